//! A configuration to begin with: one that holds the defaults, or one of a PostgreSQL that runs.

mod running;

use std::io::Write;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::Context;
use serde_json::{Map, Value, json};

use crate::config::parameters::shared_defaults;
use crate::config::to_yaml;

/// What a person has to fill in.
const TO_FILL_IN: &str = "#FIXME";
/// The major version of PostgreSQL that a sample is for: the names of the settings have been the same since 13.
const SAMPLE_MAJOR: u32 = 17;

const OF_BOOTSTRAP: &str =
    "# What a new cluster is made with. Nothing under `bootstrap` is read any more once the cluster is there.\n";
const OF_DCS: &str = "  # What all members share. The member that makes the cluster writes it into the store, and from then on it is\n  \
     # changed there (`patronictl edit-config`), not here.\n";
const OF_STORE: &str = "# Where the members find each other: etcd's addresses, host:port each.\n";

/// Writes a sample to a file that only its owner may read, or to standard output.
///
/// # Errors
/// The file cannot be written.
pub fn sample(file: Option<&Path>) -> anyhow::Result<()> {
    write(file, &text(&Facts::sample()))
}

/// The same of a running PostgreSQL, which `dsn` (libpq's keywords or an address) and the variables `PG*` name.
///
/// # Errors
/// The server cannot be asked, the user is not allowed to know, or a file of the server or the result cannot be reached.
pub fn running(file: Option<&Path>, dsn: Option<&str>) -> anyhow::Result<()> {
    write(file, &text(&running::facts(dsn)?))
}

/// What the parts of a configuration are made of that differ.
#[derive(Clone, Debug)]
struct Facts {
    scope: String,
    /// `bootstrap.dcs.postgresql`.
    shared: Value,
    /// `postgresql`.
    own: Value,
}

impl Facts {
    fn sample() -> Self {
        let address = format!("{}:5432", own_ip());
        let user = |name: &str| json!({ "username": name, "password": TO_FILL_IN });
        Self {
            scope: TO_FILL_IN.into(),
            shared: json!({
                "parameters": shared_defaults(SAMPLE_MAJOR),
                "use_pg_rewind": true,
                "use_slots": true,
            }),
            own: json!({
                "authentication": {
                    "superuser": user("postgres"),
                    "replication": user("replicator"),
                    "rewind": user("rewind_user"),
                },
                "bin_dir": "",
                "connect_address": address,
                "listen": address,
                "data_dir": TO_FILL_IN,
                "parameters": { "password_encryption": "scram-sha-256" },
                "pg_hba": [
                    "host all all all scram-sha-256",
                    "host replication replicator all scram-sha-256",
                ],
            }),
        }
    }
}

fn text(facts: &Facts) -> String {
    let section = |name: &str, value: Value| to_yaml(&Value::Object(Map::from_iter([(name.to_owned(), value)])));
    let api = format!("{}:8008", own_ip());
    let dcs = json!({ "dcs": { "loop_wait": 10, "retry_timeout": 10, "ttl": 30, "postgresql": facts.shared } });
    let bootstrap = section("bootstrap", dcs).replacen("bootstrap:\n", &format!("bootstrap:\n{OF_DCS}"), 1);
    [
        section("scope", facts.scope.clone().into()) + &section("name", host_name().into()),
        section(
            "log",
            json!({
                "format": "%(asctime)s %(levelname)s: %(message)s",
                "level": "INFO",
                "max_queue_size": 1000,
                "traceback_level": "ERROR",
                "type": "plain",
            }),
        ),
        section("restapi", json!({ "connect_address": api, "listen": api })),
        OF_STORE.to_owned() + &section("etcd3", json!({ "hosts": [TO_FILL_IN] })),
        OF_BOOTSTRAP.to_owned() + &bootstrap,
        section("postgresql", facts.own.clone()),
        section(
            "tags",
            json!({
                "clonefrom": true,
                "failover_priority": 1,
                "noloadbalance": false,
                "nostream": false,
                "sync_priority": 1,
            }),
        ),
    ]
    .join("\n")
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The address that this host's own name has; one of IPv4 if there is any.
fn own_ip() -> String {
    let found: Vec<IpAddr> = (host_name().as_str(), 0)
        .to_socket_addrs()
        .map(|all| all.map(|address| address.ip()).collect())
        .unwrap_or_default();
    match found.iter().find(|ip| ip.is_ipv4()).or(found.first()) {
        Some(IpAddr::V4(ip)) => ip.to_string(),
        Some(IpAddr::V6(ip)) => format!("[{ip}]"),
        None => TO_FILL_IN.into(),
    }
}

fn write(file: Option<&Path>, text: &str) -> anyhow::Result<()> {
    let Some(file) = file else {
        return Ok(std::io::stdout().write_all(text.as_bytes())?);
    };
    let said = || format!("cannot write {}", file.display());
    let mut options = std::fs::OpenOptions::new();
    let mut opened = options.write(true).create(true).truncate(true).mode(0o600).open(file).with_context(said)?;
    // One that was there already keeps the mode that it had.
    opened.set_permissions(std::fs::Permissions::from_mode(0o600)).with_context(said)?;
    opened.write_all(text.as_bytes()).with_context(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn filled_in(text: &str) -> String {
        text.replace("'#FIXME'", "filled-in")
    }

    fn loaded(text: &str) -> crate::config::Loaded {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("node.yml");
        write(Some(&file), text).unwrap();
        load(Some(&file), []).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn a_sample_that_is_filled_in_can_be_run() {
        let text = text(&Facts::sample());
        assert!(text.contains("'#FIXME'"), "{text}");
        assert!(text.contains("\nbootstrap:\n  # What all members share."), "{text}");
        assert!(text.contains("\n  # changed there"), "{text}");
        let loaded = loaded(&filled_in(&text));
        assert_eq!(loaded.config.scope, "filled-in");
        assert_eq!(loaded.raw["bootstrap"]["dcs"]["postgresql"]["parameters"]["max_connections"], 100);
        assert!(loaded.warnings.is_empty(), "{}", loaded.render_warnings());
    }

    #[test]
    fn only_its_owner_reads_what_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("node.yml");
        std::fs::write(&file, "of before").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        sample(Some(&file)).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let error = sample(Some(&directory.path().join("none/node.yml"))).unwrap_err();
        assert!(format!("{error:#}").contains("none/node.yml"), "{error:#}");
    }
}
