//! From what operators write to what core and PostgreSQL's part need.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use matriarch_core::config::{Config, Published};
use matriarch_core::id::Member;
use matriarch_core::lease::Bounds;

use super::keys::Extras;
use crate::config::local::Account;
use crate::config::{DynamicConfig, LocalConfig, effective_parameters, effective_postgresql};
use crate::postgres::{Credential, LocalConnection, Secret, Settings};

/// Local and dynamic configuration, laid over each other.
pub struct Effective {
    /// What core decides on.
    pub core: Config,
    /// What PostgreSQL is run with.
    pub settings: Settings,
    /// What was adjusted or is not used, in words.
    pub warnings: Vec<String>,
}

/// Where the agent keeps what must survive it: guard socket, epoch, promises.
pub fn state_dir(local: &LocalConfig) -> PathBuf {
    local.matriarch.state_dir.clone().unwrap_or_else(|| {
        let mut name = local.postgresql.data_dir.clone().into_os_string();
        name.push(".matriarch");
        PathBuf::from(name)
    })
}

/// `api_url` as published.
pub fn api_url(local: &LocalConfig) -> String {
    let scheme = if local.restapi.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{}/patroni", local.restapi.connect_address)
}

/// What the member record says beside what core decides on.
pub fn extras(local: &LocalConfig) -> Extras {
    Extras {
        tags: local.tags.published.clone(),
        database: local.postgresql.database.clone(),
        proxy_address: local.postgresql.proxy_address.as_ref().map(ToString::to_string),
    }
}

/// Lays the configurations over each other. `server_major` is that of the data directory or of the binaries.
pub fn effective(
    local: &LocalConfig,
    dynamic: &DynamicConfig,
    mut warnings: Vec<String>,
    server_major: u32,
) -> Effective {
    let shared = effective_postgresql(local, dynamic);
    let mut parameters = effective_parameters(local, dynamic, server_major);
    if server_major >= 14 {
        // After a crash of PostgreSQL alone nothing is lost from the kernel's cache, yet recovery would fsync every
        // file of the data directory one by one before it begins: seconds to minutes in which nobody writes. One syncfs
        // is as safe. An operator's own value wins.
        parameters.all.entry("recovery_init_sync_method".to_owned()).or_insert_with(|| "syncfs".to_owned());
    }
    warnings.extend(parameters.warnings);
    let own = &local.postgresql;
    let published = own.connect_address.clone();
    let host = local_host(local);
    let settings = Settings {
        member: local.name.clone(),
        scope: local.scope.clone(),
        data_dir: own.data_dir.clone(),
        config_dir: own.config_dir.clone(),
        config_base_name: own.config_base_name.clone(),
        bin_dir: own.bin_dir.clone(),
        bin_names: own.bin_name.clone(),
        run_as: None,
        listen_addresses: own.listen_hosts.join(","),
        port: own.listen_port,
        local: local_connection(local, &parameters.all),
        database: own.database.clone(),
        superuser: credential(&own.authentication.superuser, "postgres", own.krbsrvname.as_deref()),
        replication: credential(&own.authentication.replication, "replicator", own.krbsrvname.as_deref()),
        rewind: own
            .authentication
            .rewind
            .as_ref()
            .map(|account| credential(account, "postgres", own.krbsrvname.as_deref())),
        pgpass: own.pgpass.clone().unwrap_or_else(|| state_dir(local).join("pgpass")),
        server_log: state_dir(local).join("postgresql.log"),
        parameters: parameters.all,
        command_line: parameters.command_line,
        pg_hba: shared.pg_hba.unwrap_or_default(),
        pg_ident: shared.pg_ident.unwrap_or_default(),
        recovery_conf: parameters.recovery,
        custom_conf: own.custom_conf.clone(),
        initdb_options: options(&local.bootstrap.initdb),
        bootstrap_pg_hba: local.bootstrap.pg_hba.clone(),
        basebackup_options: options(&own.basebackup),
        rewind_options: options(&own.rewind),
        use_slots: shared.use_slots,
        pg_ctl_timeout: shared.pg_ctl_timeout,
        hooks: own.hooks.clone(),
    };
    let core = Config {
        me: Member::new(&local.name),
        ttl: dynamic.ttl,
        loop_wait: dynamic.loop_wait,
        retry_timeout: dynamic.retry_timeout,
        maximum_lag_on_failover_bytes: dynamic.maximum_lag_on_failover_bytes,
        primary_start_timeout: dynamic.primary_start_timeout,
        max_timelines_history: usize::try_from(dynamic.max_timelines_history).unwrap_or(usize::MAX),
        nofailover: local.tags.nofailover,
        failover_priority: i32::try_from(local.tags.failover_priority).unwrap_or(i32::MAX),
        nostream: local.tags.nostream,
        clonefrom: local.tags.clonefrom,
        replicatefrom: local.tags.replicatefrom.as_deref().map(Member::new),
        use_slots: shared.use_slots,
        member_slots_ttl: dynamic.member_slots_ttl,
        permanent_slots: dynamic.permanent_slots.clone(),
        ignore_slots: dynamic.ignore_slots.clone(),
        use_pg_rewind: shared.use_pg_rewind,
        clone_when_diverged: shared.remove_data_directory_on_diverged_timelines,
        clone_when_rewind_fails: shared.remove_data_directory_on_rewind_failure,
        may_bootstrap: local.bootstrap.given,
        restores_alone: own.hooks.restores_alone(),
        unsupported: dynamic.unsupported().map(str::to_owned),
        paused_before: false,
        parameters_generation: generation(&settings),
        published: Published {
            host: published.as_ref().map_or(host, |address| address.host.clone()),
            port: published.as_ref().map_or(own.listen_port, |address| address.port),
            api_url: api_url(local),
        },
        isolation_timeout: local.matriarch.isolation_timeout,
        bounds: Bounds::default(),
    };
    Effective { core, settings, warnings }
}

/// The dynamic configuration that counts until the store tells, if there is one that can be used: what was in force when the
/// last agent heard of it. Otherwise it is the bootstrap section.
pub fn in_force(data_dir: &Path) -> Option<serde_json::Value> {
    let config = crate::postgres::dynamic::read(data_dir)?;
    match DynamicConfig::from_json(&config) {
        Ok(_) => Some(config),
        Err(why) => {
            tracing::warn!(
                "the dynamic configuration that was in force cannot be used any more, bootstrap.dcs is: {why}"
            );
            None
        }
    }
}

/// What stands in the key `config`, and what is to be said if that is no configuration at all.
pub fn stored(text: Option<&str>) -> (Option<serde_json::Value>, Option<String>) {
    let Some(text) = text else { return (None, None) };
    let value = serde_json::from_str(text).ok().filter(serde_json::Value::is_object);
    let why = "the key config in the store is no JSON mapping: what was in force before counts, or else bootstrap.dcs of this node's file";
    let said = value.is_none().then(|| why.to_owned());
    (value, said)
}

/// The warnings that were not said before: each is told once, and again when it has come back.
pub fn news<'a>(before: &[String], now: &'a [String]) -> Vec<&'a String> {
    now.iter().filter(|warning| !before.contains(warning)).collect()
}

/// A number that changes with everything of the dynamic configuration that ends up in PostgreSQL's files. What comes from the
/// node's own file, a password for example, is written when that is read again ([`asked_again`]).
fn generation(settings: &Settings) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&settings.parameters, &settings.command_line, &settings.pg_hba, &settings.pg_ident, &settings.recovery_conf)
        .hash(&mut hasher);
    settings.use_slots.hash(&mut hasher);
    hasher.finish()
}

/// Another generation of the same settings, after an operator has asked `count` times for a reload.
pub fn asked_again(generation: u64, count: u64) -> u64 {
    if count == 0 {
        return generation;
    }
    let mut hasher = DefaultHasher::new();
    (generation, count).hash(&mut hasher);
    hasher.finish()
}

/// `kerberos_service` is for libpq alone, in standbys, tools and scripts: our own connections know no Kerberos.
fn credential(account: &Account, default_user: &str, kerberos_service: Option<&str>) -> Credential {
    let mut keywords = account.options.clone();
    if let Some(service) = kerberos_service {
        keywords.insert("krbsrvname".to_owned(), service.to_owned());
    }
    if let Some(password) = &account.sslpassword {
        keywords.insert("sslpassword".to_owned(), password.reveal().to_owned());
    }
    Credential {
        user: account.username.clone().unwrap_or_else(|| default_user.to_owned()),
        password: account.password.as_ref().map(|password| Secret(password.reveal().to_owned())),
        keywords,
    }
}

/// Spec 6.1: the socket if the operator wants it, else the first address that PostgreSQL listens on.
fn local_connection(local: &LocalConfig, parameters: &std::collections::BTreeMap<String, String>) -> LocalConnection {
    let own = &local.postgresql;
    if own.use_unix_socket {
        let directories = parameters.get("unix_socket_directories").map(String::as_str);
        let first = directories.unwrap_or("/var/run/postgresql").split(',').map(str::trim).find(|d| d.starts_with('/'));
        if let Some(directory) = first {
            return LocalConnection::Socket(PathBuf::from(directory));
        }
    }
    LocalConnection::Host(local_host(local))
}

/// Where PostgreSQL is to be found on this host; without a `connect_address` that is published as well, as by Patroni.
fn local_host(local: &LocalConfig) -> String {
    match local.postgresql.listen_hosts.first().map(String::as_str) {
        None | Some("*" | "localhost" | "0.0.0.0" | "127.0.0.1" | "::") => "localhost".to_owned(),
        Some(host) => host.to_owned(),
    }
}

fn options(pairs: &[(String, Option<String>)]) -> Vec<String> {
    let render = |(name, value): &(String, Option<String>)| match value {
        Some(value) => format!("--{name}={value}"),
        None => format!("--{name}"),
    };
    pairs.iter().map(render).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn local() -> LocalConfig {
        local_with("h:5432", json!({}))
    }

    fn local_with(listen: &str, more: Value) -> LocalConfig {
        let mut text = json!({
            "scope": "herd", "name": "a", "restapi": {"listen": "h:1"}, "etcd3": {"host": "h:1"},
            "postgresql": {"listen": listen, "data_dir": "/d", "authentication": {"replication": {"username": "r"}}}
        });
        text.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        crate::config::load(None, [("PATRONI_CONFIGURATION".to_owned(), text.to_string())]).unwrap().config
    }

    fn core_config(local: &LocalConfig) -> Config {
        let (dynamic, warnings) = DynamicConfig::from_json(&json!({})).unwrap();
        effective(local, &dynamic, warnings, 15).core
    }

    /// The bug: one that was only to join ran initdb where its scope was mistyped.
    #[test]
    fn only_a_node_with_a_section_bootstrap_makes_a_cluster() {
        let makes = |more: Value| core_config(&local_with("h:5432", more)).may_bootstrap;
        assert!(!makes(json!({})));
        assert!(makes(json!({"bootstrap": {"dcs": {"ttl": 30}}})));
    }

    #[test]
    fn what_listens_everywhere_is_published_as_patroni_does() {
        let published = |listen: &str| core_config(&local_with(listen, json!({}))).published.host;
        for everywhere in ["*:5432", "0.0.0.0:5432", "127.0.0.1,10.0.0.1:5432"] {
            assert_eq!(published(everywhere), "localhost");
        }
        assert_eq!(published("10.0.0.1,127.0.0.1:5432"), "10.0.0.1");
    }

    #[test]
    fn a_controlled_parameter_that_is_replaced_is_said_once() {
        let json = json!({"postgresql": {"parameters": {"max_connections": "fifty"}}, "loop_wait": 0});
        let (dynamic, warnings) = DynamicConfig::from_json(&json).unwrap();
        let said = effective(&local(), &dynamic, warnings, 15).warnings;
        let replaced = "postgresql parameter max_connections=fifty failed validation, defaulting to 100";
        assert_eq!(news(&[], &said), ["loop_wait=0 can't be smaller than 1, adjusting...", replaced]);
        assert_eq!(news(&said, &said), [""; 0]);
        assert_eq!(news(&said[..1], &said), [replaced]);
    }

    #[test]
    fn a_key_that_holds_no_configuration_is_said_to() {
        assert_eq!(stored(None), (None, None));
        assert_eq!(stored(Some("{}")), (Some(json!({})), None));
        for text in ["", "[1]", "{", "null"] {
            let (value, why) = stored(Some(text));
            assert!(value.is_none() && why.is_some_and(|why| why.contains("no JSON mapping")), "{text}");
        }
    }
}
