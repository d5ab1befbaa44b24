//! The checked tree to a [`LocalConfig`], with the complaints that a table of types cannot make: what is not
//! supported, and what contradicts itself.

mod bootstrap;
mod etcd3;
mod hooks;
mod log;
mod tls;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value as Json;

use super::check::{Purpose, join, number, split_address, split_bind, split_listen, texts, whole, word};
use super::local::{
    Account, Address, Authentication, Credentials, Ctl, GuardMode, LocalConfig, MatriarchSection, NAMESPACE,
    Postgresql, RecorderSection, RestApi, Watchdog, WatchdogMode,
};
use super::quantity::{bool_of, int_of};
use super::report::Problem;
use super::schema::{ACCOUNT, BASEBACKUP_FORBIDDEN, REWIND_FORBIDDEN};
use super::secret::Secret;
use super::tags::Tags;
use super::yaml::{Node, Value};
use crate::recorder::SIZE_BYTES_MIN;

/// Addresses that mean something else on every host.
const NOT_REACHABLE: &[&str] = &["127.0.0.1", "0.0.0.0", "*", "::1", "localhost"];

/// What the flight recorder's files take at most, unless the file says otherwise.
const RECORDER_BYTES: u64 = 64 << 20;

impl LocalConfig {
    /// Builds what can be built; `None` only where a required key is missing or wrong, which [`super::check`] has said.
    pub(super) fn build(root: &Node, purpose: Purpose, problems: &mut Vec<Problem>) -> Option<Self> {
        let mut build = Build { root, purpose, problems };
        let etcd3 = build.etcd3();
        build.citus();
        let watchdog = build.watchdog();
        let restapi = build.restapi();
        let postgresql = build.postgresql();
        let bootstrap = build.bootstrap();
        let matriarch = build.matriarch();
        let log = build.log();
        let ctl = build.ctl(restapi.as_ref().and_then(|r| r.authentication.clone()));
        let tags = Tags::build(root.get("tags"), build.problems);
        let name = root.get("name").or_else(|| root.get("postgresql")?.get("name"));
        Some(Self {
            scope: root.get("scope")?.as_str()?.to_owned(),
            name: name?.as_str()?.to_owned(),
            namespace: build.text("namespace").unwrap_or(NAMESPACE).to_owned(),
            restapi: restapi?,
            ctl: ctl?,
            etcd3: etcd3?,
            watchdog,
            postgresql: postgresql?,
            bootstrap,
            tags,
            log,
            matriarch,
        })
    }
}

/// A tree being turned into types, and where its complaints go.
pub(super) struct Build<'a, 'p> {
    pub(super) root: &'a Node,
    pub(super) purpose: Purpose,
    pub(super) problems: &'p mut Vec<Problem>,
}

impl<'a> Build<'a, '_> {
    /// The value at a dotted path, unless it is null.
    fn at(&self, path: &str) -> Option<&'a Node> {
        path.split('.').try_fold(self.root, |node, key| node.get(key)).filter(|n| !n.is_null())
    }

    pub(super) fn text(&self, path: &str) -> Option<&'a str> {
        self.at(path)?.as_str()
    }

    fn path(&self, path: &str) -> Option<PathBuf> {
        self.text(path).filter(|p| !p.is_empty()).map(PathBuf::from)
    }

    fn flag(&self, path: &str) -> Option<bool> {
        bool_of(&self.at(path)?.to_json())
    }

    fn int(&self, path: &str) -> Option<i64> {
        whole(&self.at(path)?.value)
    }

    fn address(&self, path: &str) -> Option<Address> {
        split_address(self.text(path)?).map(|(host, port)| Address { host, port })
    }

    /// A password; a number is the text Patroni would make of it.
    fn secret(&self, path: &str) -> Option<Secret> {
        self.at(path)?.value.scalar_text().map(Secret::new)
    }

    fn lines(&self, path: &str) -> Option<Vec<String>> {
        Some(self.at(path)?.items().iter().filter_map(Node::as_str).map(str::to_owned).collect())
    }

    fn map(&self, path: &str) -> serde_json::Map<String, Json> {
        match self.at(path).map(Node::to_json) {
            Some(Json::Object(map)) => map,
            _ => serde_json::Map::new(),
        }
    }

    fn refuse(&mut self, path: &str, message: impl Into<String>) {
        let span = self.at(path).unwrap_or(self.root).span;
        self.problems.push(Problem::error(span, path, message));
    }

    fn warn(&mut self, path: &str, message: impl Into<String>) {
        let span = self.at(path).unwrap_or(self.root).span;
        self.problems.push(Problem::warning(span, path, message));
    }

    /// As [`Self::warn`]; `validate-config` counts it as an error.
    fn suspect(&mut self, path: &str, message: impl Into<String>) {
        let span = self.at(path).unwrap_or(self.root).span;
        self.problems.push(Problem::suspect(span, path, message));
    }

    /// A node of a Citus cluster has its keys elsewhere, and would find nobody beside its group's primary.
    fn citus(&mut self) {
        if self.int("citus.group").is_some() && self.text("citus.database").is_some() {
            self.refuse("citus", "a Citus cluster is not supported yet; leave its nodes to Patroni");
        }
    }

    fn watchdog(&mut self) -> Watchdog {
        const MODES: &[&str] = &["off", "disabled", "false", "automatic", "auto", "required", "require"];
        let mode = match self.at("watchdog.mode").and_then(|n| word(&n.value, MODES)) {
            Some("off" | "disabled" | "false") => WatchdogMode::Off,
            Some("required" | "require") => {
                self.refuse(
                    "watchdog.mode",
                    "`required` is not supported yet; with `automatic` the guard process takes the watchdog's place",
                );
                WatchdogMode::Automatic
            }
            _ => WatchdogMode::Automatic,
        };
        if self.at("watchdog.mode").is_some() && mode == WatchdogMode::Automatic {
            self.warn("watchdog.mode", "no watchdog device is used yet: the guard process takes its place");
        }
        Watchdog {
            mode,
            device: self.path("watchdog.device").unwrap_or_else(|| PathBuf::from("/dev/watchdog")),
            safety_margin_s: self.int("watchdog.safety_margin").unwrap_or(5),
        }
    }

    pub(super) fn credentials(&mut self, section: &str) -> Option<Credentials> {
        let at = format!("{section}.authentication");
        let username = self.text(&format!("{at}.username"));
        let password = self.secret(&format!("{at}.password"));
        match (username, password) {
            (Some(username), Some(password)) => Some(Credentials { username: username.to_owned(), password }),
            (None, None) => None,
            // Half a pair would leave the API open to everyone while its file looks protected.
            _ => {
                self.refuse(&at, "needs both `username` and `password`");
                None
            }
        }
    }

    fn restapi(&mut self) -> Option<RestApi> {
        for key in ["restapi.request_queue_size", "restapi.thread_pool_size", "thread_pool_size"] {
            if self.at(key).is_some() {
                self.warn(key, "not used: one thread serves up to 128 connections at once, and 1024 more may wait");
            }
        }
        self.reachable("restapi.connect_address");
        let authentication = self.credentials("restapi");
        let tls = self.restapi_tls();
        let (host, port) = split_bind(self.text("restapi.listen")?)?;
        let listen = Address { host, port };
        let allowlist = self.at("restapi.allowlist").map(texts).unwrap_or_default();
        Some(RestApi {
            connect_address: self.address("restapi.connect_address").unwrap_or_else(|| listen.clone()),
            listen,
            authentication,
            allowlist: allowlist.into_iter().map(str::to_owned).collect(),
            allowlist_include_members: self.flag("restapi.allowlist_include_members").unwrap_or(false),
            http_extra_headers: self.headers("restapi.http_extra_headers"),
            https_extra_headers: self.headers("restapi.https_extra_headers"),
            request_queue_size: self.int("restapi.request_queue_size").and_then(|n| u16::try_from(n).ok()).unwrap_or(5),
            server_tokens: self.text("restapi.server_tokens").unwrap_or("original").to_ascii_lowercase(),
            tls,
        })
    }

    fn headers(&self, path: &str) -> Vec<(String, String)> {
        let given = self.at(path).map(pairs).unwrap_or_default();
        given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    fn ctl(&mut self, restapi: Option<Credentials>) -> Option<Ctl> {
        Some(Ctl { authentication: self.credentials("ctl").or(restapi), tls: self.ctl_tls()? })
    }

    fn postgresql(&mut self) -> Option<Postgresql> {
        self.postgresql_unsupported();
        self.reachable("postgresql.connect_address");
        let authentication = self.authentication();
        let basebackup = self.tool_options("postgresql.basebackup", BASEBACKUP_FORBIDDEN);
        let rewind = self.tool_options("postgresql.rewind", REWIND_FORBIDDEN);
        let hooks = self.hooks();
        let (listen_hosts, listen_port) = split_listen(self.text("postgresql.listen")?)?;
        let data_dir = self.path("postgresql.data_dir");
        if data_dir.is_none() && self.text("postgresql.data_dir").is_some() {
            self.refuse("postgresql.data_dir", "expected a directory, found an empty text");
        }
        let data_dir = data_dir?;
        let old_rewind = self.at("postgresql.authentication").is_none() && self.at("postgresql.pg_rewind").is_some();
        Some(Postgresql {
            listen_hosts,
            listen_port,
            connect_address: self.address("postgresql.connect_address"),
            proxy_address: self.address("postgresql.proxy_address"),
            config_dir: self.path("postgresql.config_dir").unwrap_or_else(|| data_dir.clone()),
            data_dir,
            config_base_name: self.text("postgresql.config_base_name").unwrap_or("postgresql").to_owned(),
            bin_dir: self.path("postgresql.bin_dir"),
            bin_name: self.text_map("postgresql.bin_name"),
            pgpass: self.path("postgresql.pgpass"),
            database: self.text("postgresql.database").unwrap_or("postgres").to_owned(),
            authentication: authentication?,
            krbsrvname: self.text("postgresql.krbsrvname").map(str::to_owned),
            parameters: self.map("postgresql.parameters"),
            pg_hba: self.lines("postgresql.pg_hba"),
            pg_ident: self.lines("postgresql.pg_ident"),
            recovery_conf: self.map("postgresql.recovery_conf"),
            custom_conf: self.path("postgresql.custom_conf"),
            basebackup,
            rewind,
            pg_ctl_timeout: self
                .int("postgresql.pg_ctl_timeout")
                .and_then(|s| u64::try_from(s).ok())
                .map(Duration::from_secs),
            use_pg_rewind: self.flag("postgresql.use_pg_rewind").or(old_rewind.then_some(true)),
            remove_data_directory_on_rewind_failure: self.flag("postgresql.remove_data_directory_on_rewind_failure"),
            remove_data_directory_on_diverged_timelines: self
                .flag("postgresql.remove_data_directory_on_diverged_timelines"),
            use_unix_socket: self.flag("postgresql.use_unix_socket").unwrap_or(false),
            use_unix_socket_repl: self.flag("postgresql.use_unix_socket_repl").unwrap_or(false),
            hooks,
        })
    }

    fn postgresql_unsupported(&mut self) {
        for base in ["parameters", "pg_hba", "pg_ident"] {
            for role in ["primary", "replica", "standby_leader"] {
                let path = format!("postgresql.{base}_{role}");
                if self.at(&path).is_some() {
                    self.warn(&path, format!("not used: Patroni 4.1 does not know it either; use `{base}`"));
                }
            }
        }
        if self.at("postgresql.use_slots").is_some() {
            self.warn("postgresql.use_slots", "not used here: it counts only in the dynamic configuration");
        }
    }

    fn authentication(&mut self) -> Option<Authentication> {
        let old = self.at("postgresql.authentication").is_none();
        let base = if old { "postgresql" } else { "postgresql.authentication" };
        let rewind = if old { "postgresql.pg_rewind" } else { "postgresql.authentication.rewind" };
        let replication = format!("{base}.replication");
        if old && self.at(&replication).is_none() {
            let span = self.root.get("postgresql")?.span;
            let message = "this key is required and has no value: the user that standbys stream as";
            self.problems.push(Problem::error(span, "postgresql.authentication.replication", message));
            return None;
        }
        if self.at(&replication).is_some() && self.text(&format!("{replication}.username")).is_none() {
            self.refuse(&format!("{replication}.username"), "this key is required and has no value");
        }
        Some(Authentication {
            superuser: self.account(&format!("{base}.superuser")).unwrap_or_default(),
            replication: self.account(&replication)?,
            rewind: self.account(rewind),
        })
    }

    fn account(&self, path: &str) -> Option<Account> {
        self.at(path)?;
        let option = |key: &str| Some((key.to_owned(), self.text(&join(path, key))?.to_owned()));
        let secret = |key: &str| matches!(key, "username" | "password" | "sslpassword");
        Some(Account {
            username: self.text(&join(path, "username")).map(str::to_owned),
            password: self.secret(&join(path, "password")),
            sslpassword: self.secret(&join(path, "sslpassword")),
            options: ACCOUNT.iter().filter(|k| !secret(k.name)).filter_map(|k| option(k.name)).collect(),
        })
    }

    fn matriarch(&mut self) -> MatriarchSection {
        let seconds = |path: &str, default: f64| {
            let value = self.at(path).and_then(|n| number(&n.value)).unwrap_or(default);
            Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX)
        };
        MatriarchSection {
            isolation_timeout: seconds("matriarch.isolation_timeout", 3.0),
            restart_grace: seconds("matriarch.restart_grace", 2.0),
            state_dir: self.path("matriarch.state_dir"),
            guard: match self.text("matriarch.guard") {
                Some(mode) if mode.eq_ignore_ascii_case("strict") => GuardMode::Strict,
                _ => GuardMode::Auto,
            },
            recorder: RecorderSection {
                enabled: self.flag("matriarch.recorder.enabled").unwrap_or(true),
                size_bytes: self.recorder_size(),
            },
        }
    }

    fn recorder_size(&mut self) -> u64 {
        let path = "matriarch.recorder.size";
        let value = self.at(path).map(Node::to_json);
        let Some(bytes) = value.and_then(|value| int_of(&value, Some("B"))) else { return RECORDER_BYTES };
        let bytes = u64::try_from(bytes).unwrap_or(0);
        if bytes < SIZE_BYTES_MIN {
            self.refuse(path, "expected 1MB or more");
        }
        bytes
    }

    fn text_map(&self, path: &str) -> BTreeMap<String, String> {
        let entries = self.at(path).map(Node::entries).unwrap_or_default();
        entries.iter().filter_map(|(k, v)| Some((k.as_str()?.to_owned(), v.as_str()?.to_owned()))).collect()
    }

    /// Options of a tool; those that the agent decides itself are refused rather than dropped.
    fn options(&self, path: &str) -> Vec<(String, Option<String>)> {
        let Some(node) = self.at(path) else { return Vec::new() };
        match &node.value {
            Value::Seq(items) => items.iter().flat_map(pairs).collect(),
            _ => pairs(node),
        }
    }

    /// Options of a program without those that are the agent's to set.
    fn tool_options(&mut self, path: &str, forbidden: &[&str]) -> Vec<(String, Option<String>)> {
        let (ours, options): (Vec<_>, Vec<_>) =
            self.options(path).into_iter().partition(|(name, _)| forbidden.contains(&name.as_str()));
        for (name, _) in ours {
            self.suspect(path, format!("the option `{name}` is left out: the agent sets it itself"));
        }
        options
    }

    /// Other members connect to what is published: an address of the host itself is a mistake that shows late.
    fn reachable(&mut self, path: &str) {
        let Some(address) = self.address(path).filter(|_| self.purpose == Purpose::Validate) else { return };
        if NOT_REACHABLE.contains(&address.host.as_str()) {
            let list = NOT_REACHABLE.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(", ");
            self.refuse(path, format!("must not contain {list}: other members connect to it"));
        }
    }
}

/// An option or the entries of a mapping; `name: true` stays `name=true`, as Patroni renders it.
fn pairs(node: &Node) -> Vec<(String, Option<String>)> {
    match &node.value {
        Value::Str(name) => vec![(name.clone(), None)],
        Value::Map(entries) => {
            entries.iter().filter_map(|(k, v)| Some((k.as_str()?.to_owned(), v.value.scalar_text()))).collect()
        }
        _ => Vec::new(),
    }
}
