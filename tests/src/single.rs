//! One PostgreSQL without an agent: what it takes to drive the runtime's PostgreSQL part directly. Needs PostgreSQL's
//! programs (`MATRIARCH_TEST_PGBIN` names the directory of another version's); run as root it uses the account
//! `postgres` for the servers.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use matriarch::hooks::Hooks;
use matriarch::postgres::{Credential, LocalConnection, RunAs, Secret, Settings};
use tempfile::TempDir;

use crate::tools;

/// The superuser's password.
pub const SUPERUSER_PASSWORD: &str = "super:geheim\\1";
/// The password of the role that replicates.
pub const REPLICATION_PASSWORD: &str = "repl'geheim 2";
/// The password of the role that rewinds.
pub const REWIND_PASSWORD: &str = "rewind-geheim-3";

/// The account for the servers: PostgreSQL refuses to be root.
pub fn account() -> Option<RunAs> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let user = nix::unistd::User::from_name("postgres").unwrap().expect("an account `postgres` for the servers");
    Some(RunAs { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups: vec![user.gid.as_raw()] })
}

/// A directory that every account may enter.
pub fn base() -> TempDir {
    let base = tempfile::Builder::new().prefix("matriarch-pg").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(base.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    base
}

/// A port of the loopback address that nobody listened on a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A role and its password.
pub fn credential(user: &str, password: &str) -> Credential {
    Credential { user: user.into(), password: Some(Secret(password.into())), keywords: BTreeMap::new() }
}

/// Everything that a node in the directory `home` has.
pub fn settings(home: &Path, member: &str, port: u16) -> Settings {
    let words = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
    let parameters = [
        ("unix_socket_directories", home.to_str().unwrap()),
        ("wal_retrieve_retry_interval", "500ms"),
        ("shared_buffers", "16MB"),
        // As in every real cluster: without it PostgreSQL 14 may have removed by then what a rewound server begins
        // with.
        ("wal_keep_size", "128MB"),
        ("log_statement", "all"),
        ("synchronous_commit", "local"),
        ("matriarch.quote", r"it's \ quoted"),
    ];
    let command_line =
        [("wal_level", "replica"), ("hot_standby", "on"), ("wal_log_hints", "on"), ("cluster_name", "batman")];
    Settings {
        member: member.into(),
        scope: "batman".into(),
        data_dir: home.join("data"),
        config_dir: home.join("data"),
        config_base_name: "postgresql".into(),
        bin_dir: Some(tools::postgres_bin_dir()),
        bin_names: BTreeMap::new(),
        run_as: account(),
        listen_addresses: "127.0.0.1".into(),
        port,
        local: LocalConnection::Socket(home.into()),
        database: "postgres".into(),
        superuser: credential("postgres", SUPERUSER_PASSWORD),
        replication: credential("replicator", REPLICATION_PASSWORD),
        rewind: Some(credential("rewinder", REWIND_PASSWORD)),
        pgpass: home.join("pgpass"),
        server_log: home.join("server.log"),
        parameters: parameters.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        command_line: command_line.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        pg_hba: words(&[
            "local all all scram-sha-256",
            "host all all 127.0.0.1/32 scram-sha-256",
            "host replication replicator 127.0.0.1/32 scram-sha-256",
        ]),
        pg_ident: vec![],
        recovery_conf: BTreeMap::new(),
        custom_conf: None,
        initdb_options: words(&["--no-sync", "--encoding=UTF8", "--locale=C"]),
        bootstrap_pg_hba: vec![],
        basebackup_options: words(&["--no-sync"]),
        rewind_options: words(&["--no-sync"]),
        use_slots: true,
        pg_ctl_timeout: Duration::from_mins(1),
        hooks: Hooks::default(),
    }
}

/// Gives a file or directory to the account of the servers.
pub fn give(path: &Path) {
    if let Some(account) = account() {
        chown(path, Some(account.uid), Some(account.gid)).unwrap();
    }
}
