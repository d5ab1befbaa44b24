//! What the caller's configuration says about the local PostgreSQL.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::hooks::Hooks;

/// A password. It shows itself to nobody by accident.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// A role and how it authenticates.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Credential {
    /// The role's name.
    pub user: String,
    /// Its password; `None` where the server trusts or knows it otherwise.
    pub password: Option<Secret>,
    /// Further libpq keywords (`sslmode`, `sslcert`, `channel_binding` ...).
    pub keywords: BTreeMap<String, String>,
}

/// The account that PostgreSQL and its tools run as, where it is not the agent's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunAs {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

/// How the agent itself connects to the local server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LocalConnection {
    /// The directory of its Unix socket.
    Socket(PathBuf),
    /// A host name or address.
    Host(String),
}

/// Everything about the local PostgreSQL that comes from configuration, ready to use: precedence, validation and
/// defaults are the caller's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// This member's name; `application_name` of its replication connections.
    pub member: String,
    /// The cluster's name.
    pub scope: String,
    /// PGDATA.
    pub data_dir: PathBuf,
    /// Where `<base>.conf`, `pg_hba.conf` and `pg_ident.conf` are; usually PGDATA.
    pub config_dir: PathBuf,
    /// `postgresql` in `postgresql.conf`.
    pub config_base_name: String,
    /// Where the server's programs are; `None` = `PATH`, then the usual places.
    pub bin_dir: Option<PathBuf>,
    /// Other names for programs: `pg_rewind` -> `pg_rewind-15`.
    pub bin_names: BTreeMap<String, String>,
    /// The account for PostgreSQL; `None` = the agent's own.
    pub run_as: Option<RunAs>,
    /// `listen_addresses`.
    pub listen_addresses: String,
    /// The port.
    pub port: u16,
    /// How the agent connects.
    pub local: LocalConnection,
    /// The database that the agent connects to.
    pub database: String,
    /// The superuser.
    pub superuser: Credential,
    /// The role that replicates.
    pub replication: Credential,
    /// The role that rewinds; `None` = the superuser.
    pub rewind: Option<Credential>,
    /// The password file that libpq of server and tools reads; written by the agent, 0600.
    pub pgpass: PathBuf,
    /// The file that receives what the server writes to its standard error.
    pub server_log: PathBuf,
    /// Parameters for `<base>.conf`.
    pub parameters: BTreeMap<String, String>,
    /// Parameters for the command line, in order.
    pub command_line: Vec<(String, String)>,
    /// Lines of `pg_hba.conf`; empty = leave the file alone.
    pub pg_hba: Vec<String>,
    /// Lines of `pg_ident.conf`; empty = leave the file alone.
    pub pg_ident: Vec<String>,
    /// Further recovery parameters (`restore_command`, `recovery_min_apply_delay` ...).
    pub recovery_conf: BTreeMap<String, String>,
    /// A file to include instead of `<base>.base.conf`.
    pub custom_conf: Option<PathBuf>,
    /// Options of `initdb`, each with its dashes.
    pub initdb_options: Vec<String>,
    /// Lines appended to `pg_hba.conf` after `initdb`.
    pub bootstrap_pg_hba: Vec<String>,
    /// Options of `pg_basebackup`, each with its dashes.
    pub basebackup_options: Vec<String>,
    /// Options of `pg_rewind`, each with its dashes.
    pub rewind_options: Vec<String>,
    /// Standbys stream through a slot of their own.
    pub use_slots: bool,
    /// How long a start may take.
    pub pg_ctl_timeout: Duration,
    /// What the operator has run.
    pub hooks: Hooks,
}

impl Settings {
    /// The role that rewinds.
    pub fn rewind_credential(&self) -> &Credential {
        self.rewind.as_ref().unwrap_or(&self.superuser)
    }

    /// The path of `<base>.conf`.
    pub fn main_conf(&self) -> PathBuf {
        self.config_dir.join(format!("{}.conf", self.config_base_name))
    }
}

/// The name of a member's replication slot; core's rule.
pub fn slot_name(member: &str) -> String {
    matriarch_core::slot_name(&matriarch_core::id::Member::new(member)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_names_are_patronis() {
        assert_eq!(slot_name("Node-1.dc"), "node_1_dc");
        assert_eq!(slot_name("a b"), "au0032b");
        assert_eq!(slot_name(&"x".repeat(80)).len(), 63);
    }

    #[test]
    fn a_password_does_not_show() {
        let credential = Credential { password: Some(Secret("geheim".into())), ..Credential::default() };
        assert!(!format!("{credential:?}").contains("geheim"));
    }
}
