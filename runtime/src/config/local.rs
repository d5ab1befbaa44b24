//! The local configuration of one node, typed. Read by [`super::source::load`]; reloaded on SIGHUP.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::secret::Secret;
use super::tags::Tags;
use crate::hooks::Hooks;
use crate::logging::{Format, PATRONI_FORMAT};
use crate::tls;
use crate::wire::keys;

/// The namespace if none is configured.
pub const NAMESPACE: &str = "/service";

/// Everything that one node's file and environment say. Field names are those of Patroni's keys.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalConfig {
    /// Name of the cluster; becomes `cluster_name`.
    pub scope: String,
    /// Name of this member, unique within the cluster.
    pub name: String,
    /// Where the clusters live in the store, as written; see [`LocalConfig::base_path`].
    pub namespace: String,
    /// The HTTP API.
    pub restapi: RestApi,
    /// What the command-line client uses to reach the API.
    pub ctl: Ctl,
    /// The store.
    pub etcd3: Etcd3,
    /// The watchdog device.
    pub watchdog: Watchdog,
    /// PostgreSQL.
    pub postgresql: Postgresql,
    /// What a new cluster begins with.
    pub bootstrap: Bootstrap,
    /// This member's tags.
    pub tags: Tags,
    /// Logging.
    pub log: Log,
    /// Our own section.
    pub matriarch: MatriarchSection,
}

impl LocalConfig {
    /// The prefix of all the cluster's keys in the store: `/service/scope/`. Slashes are those Patroni would write.
    pub fn base_path(&self) -> String {
        keys::base(&self.namespace, &self.scope) + "/"
    }

    /// Takes over from the configuration that the agent was `started` with what says which node it is and where its
    /// data, its promises and its store are; the keys that differed. A running agent that looked for its PostgreSQL in
    /// another directory would find none, and let go of the one that runs.
    pub fn keep_identity(&mut self, started: &Self) -> Vec<&'static str> {
        let mut changed = Vec::new();
        let mut keep = |key, differs: bool| {
            if differs {
                changed.push(key);
            }
        };
        keep("scope", self.scope != started.scope);
        keep("name", self.name != started.name);
        keep("namespace", self.namespace != started.namespace);
        keep("etcd3", self.etcd3 != started.etcd3);
        keep("restapi.listen", self.restapi.listen != started.restapi.listen);
        keep("postgresql.data_dir", self.postgresql.data_dir != started.postgresql.data_dir);
        keep("matriarch.state_dir", self.matriarch.state_dir != started.matriarch.state_dir);
        keep("matriarch.guard", self.matriarch.guard != started.matriarch.guard);
        keep("matriarch.restart_grace", self.matriarch.restart_grace != started.matriarch.restart_grace);
        keep("matriarch.recorder", self.matriarch.recorder != started.matriarch.recorder);
        // A directory of the configuration that follows the data directory goes with it.
        if self.postgresql.config_dir == self.postgresql.data_dir {
            self.postgresql.config_dir.clone_from(&started.postgresql.data_dir);
        }
        self.scope.clone_from(&started.scope);
        self.name.clone_from(&started.name);
        self.namespace.clone_from(&started.namespace);
        // The same files may hold a newer certificate.
        if self.etcd3 != started.etcd3 {
            self.etcd3.clone_from(&started.etcd3);
        }
        self.restapi.listen.clone_from(&started.restapi.listen);
        self.postgresql.data_dir.clone_from(&started.postgresql.data_dir);
        let isolation_timeout = self.matriarch.isolation_timeout;
        self.matriarch.clone_from(&started.matriarch);
        self.matriarch.isolation_timeout = isolation_timeout;
        changed
    }
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// Name or address, an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A user name and a password for HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password.
    pub password: Secret,
}

/// Section `restapi`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestApi {
    /// Where to listen.
    pub listen: Address,
    /// What other members are told; `listen` by default.
    pub connect_address: Address,
    /// Who may use the unsafe endpoints; anyone if absent.
    pub authentication: Option<Credentials>,
    /// Addresses, networks and names that may use the unsafe endpoints; anyone if empty and members are not included.
    pub allowlist: Vec<String>,
    /// Whether members count as listed in `allowlist`.
    pub allowlist_include_members: bool,
    /// Headers added to every answer.
    pub http_extra_headers: Vec<(String, String)>,
    /// Headers added to every answer over TLS, or put in the place of those with the same name.
    pub https_extra_headers: Vec<(String, String)>,
    /// Length of the queue of connections not yet accepted.
    pub request_queue_size: u16,
    /// How much the `Server` header tells: `original`, `minimal` or `productonly`.
    pub server_tokens: String,
    /// TLS; none without a certificate.
    pub tls: Option<tls::Server>,
}

/// Section `ctl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ctl {
    /// Credentials for the API of every member; `restapi`'s by default.
    pub authentication: Option<Credentials>,
    /// TLS towards members.
    pub tls: tls::Client,
}

/// Section `etcd3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etcd3 {
    /// Members of the store, `host:port`, at least one.
    pub hosts: Vec<String>,
    /// TLS towards them; none where `http` is spoken.
    pub tls: Option<tls::Client>,
    /// User of the store's own authentication.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
}

/// What happens if the watchdog device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchdogMode {
    /// It is not used.
    Off,
    /// It is used where there is one.
    Automatic,
}

/// Section `watchdog`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watchdog {
    /// Whether to use it; `required` is refused until it is supported.
    pub mode: WatchdogMode,
    /// The device.
    pub device: PathBuf,
    /// Seconds between its firing and the end of the lease; -1: half the ttl.
    pub safety_margin_s: i64,
}

/// Section `postgresql`.
#[derive(Clone, Debug, PartialEq)]
pub struct Postgresql {
    /// Hosts of `listen`, the later `listen_addresses`.
    pub listen_hosts: Vec<String>,
    /// Port of `listen`.
    pub listen_port: u16,
    /// What other members and clients are told; if absent, what is reachable of `listen`.
    pub connect_address: Option<Address>,
    /// Address of a proxy that is published beside it.
    pub proxy_address: Option<Address>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Directory of the configuration files; the data directory by default.
    pub config_dir: PathBuf,
    /// Name of the configuration file without `.conf`; `postgresql`.
    pub config_base_name: String,
    /// Directory of the binaries; if absent, `PATH`.
    pub bin_dir: Option<PathBuf>,
    /// Other names of single binaries, by their usual name.
    pub bin_name: BTreeMap<String, String>,
    /// The password file that the agent writes; `pgpass` in the home directory if absent.
    pub pgpass: Option<PathBuf>,
    /// The database the agent connects to; `postgres`.
    pub database: String,
    /// The users of the agent.
    pub authentication: Authentication,
    /// Service name for Kerberos.
    pub krbsrvname: Option<String>,
    /// GUCs, as written; those that the whole cluster must share count only in the dynamic configuration.
    pub parameters: serde_json::Map<String, Value>,
    /// Lines of `pg_hba.conf`; if absent, the file is left alone.
    pub pg_hba: Option<Vec<String>>,
    /// Lines of `pg_ident.conf`; if absent, the file is left alone.
    pub pg_ident: Option<Vec<String>>,
    /// Further recovery settings.
    pub recovery_conf: serde_json::Map<String, Value>,
    /// A file included instead of the original `postgresql.base.conf`.
    pub custom_conf: Option<PathBuf>,
    /// Options of pg_basebackup.
    pub basebackup: Vec<(String, Option<String>)>,
    /// Options of pg_rewind.
    pub rewind: Vec<(String, Option<String>)>,
    /// How long a start or stop may take. Absent here: as the dynamic configuration says.
    pub pg_ctl_timeout: Option<Duration>,
    /// Whether a diverged former primary is rewound. Absent here: as the dynamic configuration says.
    pub use_pg_rewind: Option<bool>,
    /// Whether the data directory is removed, for a new clone, when rewinding fails.
    pub remove_data_directory_on_rewind_failure: Option<bool>,
    /// Whether it is removed when histories diverged and rewinding is not possible.
    pub remove_data_directory_on_diverged_timelines: Option<bool>,
    /// Whether the agent's own connections use the socket.
    pub use_unix_socket: bool,
    /// Whether its replication connections to its own server use the socket.
    pub use_unix_socket_repl: bool,
    /// What the operator has run.
    pub hooks: Hooks,
}

/// The users that the agent needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// Bootstraps and watches.
    pub superuser: Account,
    /// Standbys stream as this one.
    pub replication: Account,
    /// pg_rewind connects as this one; the superuser if absent.
    pub rewind: Option<Account>,
}

/// One user of PostgreSQL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Role; libpq's default if absent.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// libpq's connection options: `sslmode`, `sslcert`, `channel_binding` and so on.
    pub options: BTreeMap<String, String>,
    /// Passphrase of `sslkey`.
    pub sslpassword: Option<Secret>,
}

/// Section `bootstrap`.
#[derive(Clone, Debug, PartialEq)]
pub struct Bootstrap {
    /// The section is there: only such a node may make a cluster, as with Patroni.
    pub given: bool,
    /// The first dynamic configuration of a new cluster.
    pub dcs: Value,
    /// Options of initdb.
    pub initdb: Vec<(String, Option<String>)>,
    /// Lines of `pg_hba.conf` for a new cluster, used only without `postgresql.pg_hba`.
    pub pg_hba: Vec<String>,
}

/// Section `log`.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// How a line looks; Patroni's text.
    pub format: Format,
    /// How a time looks (strftime); Python's default if absent.
    pub dateformat: Option<String>,
    /// How many lines may wait to be written before others are lost; 1000. 0: any number.
    pub queue_lines: usize,
    /// Least severity that is written, in capitals; INFO.
    pub level: String,
    /// Directory of the log file; standard error if absent.
    pub dir: Option<PathBuf>,
    /// Size in bytes at which a new file is begun; 25,000,000.
    pub file_size_bytes: u64,
    /// How many old files are kept; 4.
    pub file_num: u64,
    /// Permissions of the file; by umask if absent.
    pub mode: Option<u32>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: Format::plain(PATRONI_FORMAT).expect("a format"),
            dateformat: None,
            queue_lines: 1000,
            level: "INFO".into(),
            dir: None,
            file_size_bytes: 25_000_000,
            file_num: 4,
            mode: None,
        }
    }
}

/// How many guards there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardMode {
    /// One process.
    Auto,
    /// Two: the guard, and a successor that becomes the guard when it dies.
    Strict,
}

/// Section `matriarch`: what Patroni does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatriarchSection {
    /// How long a primary that hears from nobody goes on writing; 3 s.
    pub isolation_timeout: Duration,
    /// How long the guard waits for a dead agent to come back; 2 s.
    pub restart_grace: Duration,
    /// Where the agent keeps what must survive it; chosen by the agent if absent.
    pub state_dir: Option<PathBuf>,
    /// The guard.
    pub guard: GuardMode,
    /// The flight recorder.
    pub recorder: RecorderSection,
}

/// Section `matriarch.recorder`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecorderSection {
    /// It records; yes.
    pub enabled: bool,
    /// The bytes that all its files take at most; 64 MB.
    pub size_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_show_as_they_are_written() {
        assert_eq!(Address { host: "a".to_owned(), port: 1 }.to_string(), "a:1");
        assert_eq!(Address { host: "::1".to_owned(), port: 1 }.to_string(), "[::1]:1");
    }
}
