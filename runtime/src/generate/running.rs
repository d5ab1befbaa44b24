//! What a running PostgreSQL is configured with.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls};

use super::{Facts, TO_FILL_IN, own_ip};
use crate::config::parameters::{refused, shared_defaults};
use crate::ctl::login::{ask_for_password, kept_password};

/// How long the server may take to answer.
const LIMIT: Duration = Duration::from_secs(10);
/// Where Debian's and PostgreSQL's own builds put their sockets.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// Settings that follow from other keys, or from the node's role.
const FOLLOW: &[&str] = &[
    "cluster_name",
    "config_file",
    "data_directory",
    "hba_file",
    "ident_file",
    "listen_addresses",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "synchronous_standby_names",
];

/// Settings that name something on this host.
const OF_THIS_HOST: &[&str] =
    &["external_pid_file", "krb_server_keyfile", "log_directory", "stats_temp_directory", "unix_socket_directories"];

const SETTINGS: &str = "SELECT name, current_setting(name), source IN ('configuration file', 'command line', \
    'environment variable') FROM pg_settings WHERE context <> 'internal' ORDER BY lower(name)";

/// Asks the server that `dsn` and the environment name.
pub(super) fn facts(dsn: Option<&str>) -> anyhow::Result<Facts> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (client, config) = connect(dsn).await?;
        tokio::time::timeout(LIMIT, ask(&client, &config)).await.context("the server does not answer")?
    })
}

/// A session, and what it was opened with.
async fn connect(dsn: Option<&str>) -> anyhow::Result<(Client, Config)> {
    let mut config: Config = dsn.unwrap_or_default().parse().context("--dsn is no connection string")?;
    from_environment(&mut config)?;
    // The files of the server are read here: it is on this host, and TLS would add nothing.
    config.connect_timeout(LIMIT).application_name("matriarch generate-config");
    let open = async |config: &Config| {
        let opened = tokio::time::timeout(LIMIT, config.connect(NoTls)).await.context("the server does not answer")?;
        let (client, connection) = opened?;
        tokio::spawn(connection);
        anyhow::Ok(client)
    };
    let mut opened = open(&config).await;
    let lacks_password = |error: &anyhow::Error| format!("{error:#}").contains("password");
    if config.get_password().is_none() && opened.as_ref().is_err_and(lacks_password) && std::io::stdin().is_terminal() {
        let user = config.get_user().unwrap_or_default().to_owned();
        let password = ask_for_password(&format!("Password of the superuser {user}"));
        config.password(password.context("no password was given")?.reveal());
        opened = open(&config).await;
    }
    let client = opened.with_context(|| format!("cannot connect to PostgreSQL at {}", place(&config)))?;
    Ok((client, config))
}

/// What libpq would take from the environment where the connection string says nothing.
fn from_environment(config: &mut Config) -> anyhow::Result<()> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if config.get_hosts().is_empty() {
        let socket = || SOCKET_DIRECTORIES.iter().find(|directory| Path::new(directory).is_dir()).copied();
        config.host(variable("PGHOST").unwrap_or_else(|| socket().unwrap_or("localhost").to_owned()));
    }
    if config.get_ports().is_empty() {
        let port = variable("PGPORT").map(|port| port.parse().with_context(|| format!("PGPORT={port} is no port")));
        config.port(port.transpose()?.unwrap_or(5432));
    }
    if config.get_user().is_none() {
        let account = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).ok().flatten();
        let user = variable("PGUSER").or(account.map(|account| account.name));
        config.user(user.context("this account has no name: name a user in --dsn or PGUSER")?);
    }
    if config.get_dbname().is_none() {
        config.dbname(variable("PGDATABASE").unwrap_or_else(|| "postgres".into()));
    }
    if config.get_password().is_none() {
        let host = match &config.get_hosts()[0] {
            Host::Tcp(host) => host.clone(),
            Host::Unix(_) => "localhost".into(),
        };
        let (dbname, user) = (config.get_dbname().unwrap_or_default(), config.get_user().unwrap_or_default());
        let kept = || kept_password(&host, config.get_ports()[0], dbname, user);
        let password = variable("PGPASSWORD").or_else(|| kept().map(|password| password.reveal().to_owned()));
        password.map(|password| config.password(password));
    }
    Ok(())
}

fn place(config: &Config) -> String {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(directory)) => directory.display().to_string(),
        None => String::new(),
    };
    format!("{host}:{}", config.get_ports().first().copied().unwrap_or(5432))
}

async fn ask(client: &Client, config: &Config) -> anyhow::Result<Facts> {
    let superuser =
        "SELECT rolsuper, current_setting('server_version_num')::int FROM pg_roles WHERE rolname = current_user";
    let row = client.query_one(superuser, &[]).await?;
    if !row.get::<_, bool>(0) {
        bail!(
            "{} is no superuser: settings and file names are shown to superusers only",
            config.get_user().unwrap_or_default()
        );
    }
    let major = u32::try_from(row.get::<_, i32>(1) / 10_000).unwrap_or_default();
    let settings: BTreeMap<String, (String, bool)> =
        client.query(SETTINGS, &[]).await?.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    let binaries = "SELECT setting FROM pg_config WHERE name = 'BINDIR'";
    let bin_dir: String = client.query_one(binaries, &[]).await?.get(0);
    let replication =
        "SELECT rolname FROM pg_roles WHERE rolreplication AND NOT rolsuper AND rolcanlogin ORDER BY rolname LIMIT 1";
    let replication: Option<String> = client.query_opt(replication, &[]).await?.map(|row| row.get(0));
    let checksums: String = client.query_one("SELECT current_setting('data_checksums')", &[]).await?.get(0);
    let server = Server { settings, major, bin_dir, replication, checksums: checksums == "on" };
    server.facts(config)
}

/// What was asked of the server.
struct Server {
    /// Of each setting its value, and whether somebody set it.
    settings: BTreeMap<String, (String, bool)>,
    major: u32,
    bin_dir: String,
    /// A user that may replicate and is no superuser.
    replication: Option<String>,
    checksums: bool,
}

impl Server {
    fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", |(value, _)| value)
    }

    fn facts(&self, config: &Config) -> anyhow::Result<Facts> {
        let (shared, own) = self.parameters();
        let mut dcs = json!({ "parameters": shared, "use_slots": true });
        // Without either a rewind would destroy what it is to keep, and is refused by PostgreSQL.
        if self.checksums || self.setting("wal_log_hints") == "on" {
            dcs["use_pg_rewind"] = json!(true);
        }
        let password = config.get_password().map(String::from_utf8_lossy);
        let listen = match self.setting("listen_addresses") {
            "" => "localhost",
            hosts => hosts,
        };
        let port = self.setting("port");
        // Where nothing but loopback is listened on, no other address leads there.
        let loopback = listen.split(',').all(|host| matches!(host.trim(), "localhost" | "127.0.0.1" | "::1"));
        let reached = if loopback { listen.split(',').next().unwrap_or(listen).trim().to_owned() } else { own_ip() };
        let mut own = json!({
            "authentication": {
                "superuser": {
                    "username": config.get_user().unwrap_or_default(),
                    "password": password.as_deref().unwrap_or(TO_FILL_IN),
                },
                "replication": {
                    "username": self.replication.as_deref().unwrap_or(TO_FILL_IN),
                    "password": TO_FILL_IN,
                },
            },
            "bin_dir": self.bin_dir,
            "connect_address": format!("{reached}:{port}"),
            "listen": format!("{listen}:{port}"),
            "data_dir": self.setting("data_directory"),
            "parameters": own,
            "pg_hba": lines_of(self.setting("hba_file"))?,
        });
        let config_dir = Path::new(self.setting("config_file")).parent().unwrap_or(Path::new(""));
        if config_dir != Path::new(self.setting("data_directory")) {
            own["config_dir"] = json!(config_dir);
        }
        let ident = lines_of(self.setting("ident_file"))?;
        if !ident.is_empty() {
            own["pg_ident"] = json!(ident);
        }
        let scope = match self.setting("cluster_name") {
            "" => TO_FILL_IN,
            named => named,
        };
        Ok(Facts { scope: scope.into(), shared: dcs, own })
    }

    /// What was set: for all members, and what is of this host only.
    fn parameters(&self) -> (Map<String, Value>, Map<String, Value>) {
        let controlled = shared_defaults(self.major);
        let follows = |name: &str| FOLLOW.contains(&name) || name.starts_with("recovery_target");
        let of_this_host =
            |name: &str| OF_THIS_HOST.contains(&name) || name.ends_with("_command") || name.ends_with("_file");
        // What is refused of a whole cluster is left to its default.
        let set = self.settings.iter().filter(|(name, (value, set))| {
            (*set || controlled.contains_key(*name))
                && !follows(name)
                && refused(name, &value.as_str().into()).is_none()
        });
        let (own, shared) = set.partition::<Vec<_>, _>(|(name, _)| of_this_host(name));
        let mapping = |found: Vec<(&String, &(String, bool))>| -> Map<String, Value> {
            found.into_iter().map(|(name, (value, _))| (name.clone(), Value::from(value.clone()))).collect()
        };
        (mapping(shared), mapping(own))
    }
}

/// The lines of a file that say something.
fn lines_of(file: &str) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read {file}: run this on the server's host, as its account or as root"))?;
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect())
}
