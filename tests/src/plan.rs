//! What kind of cluster a test wants, and the YAML that comes of it.

use std::path::Path;

use serde_json::{Value, json};

use crate::network::Host;
use crate::{Certificates, tools};

/// Which store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreKind {
    /// Debian's etcd with this many members.
    Etcd(u8),
    /// The embedded store, `matriarch store`.
    Embedded,
}

/// Whose agents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Agent {
    /// Ours, the binary under test.
    Matriarch,
    /// Patroni's.
    Patroni,
}

/// A cluster to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Nodes with an agent each.
    pub nodes: u8,
    /// Whose agents, until a test says otherwise of a node.
    pub agent: Agent,
    /// The store.
    pub store: StoreKind,
    /// Seconds.
    pub ttl: u32,
    /// Start the agents as root, which become another account themselves: only Matriarch's can.
    pub as_root: bool,
    /// TLS with certificates of both sides, to the store and to the REST API.
    pub tls: bool,
    /// Laid over every node's YAML: objects are merged, anything else is replaced.
    pub extra: Value,
}

impl Default for Plan {
    /// Three nodes on one etcd member, with the shortest ttl that a single member is trusted with.
    fn default() -> Self {
        Self {
            nodes: 3,
            agent: Agent::Matriarch,
            store: StoreKind::Etcd(1),
            ttl: 3,
            as_root: false,
            tls: false,
            extra: json!({}),
        }
    }
}

/// Whom the clients and the nodes log in as.
pub(crate) const SUPERUSER: (&str, &str) = ("postgres", "secret of the superuser");

impl Plan {
    /// The configuration of the node `name` in `dir`.
    pub(crate) fn yaml(
        &self,
        name: &str,
        dir: &Path,
        host: &Host,
        hosts: &[String],
        range: &str,
        certificates: Option<&Certificates>,
    ) -> String {
        let api = format!("{}:{}", host.address, host.port(0, 8008));
        let server = format!("{}:{}", host.address, host.port(1, 5432));
        let mut yaml = json!({
            "scope": "test",
            "name": name,
            "restapi": {"listen": api, "connect_address": api},
            "etcd3": {"hosts": hosts},
            "bootstrap": {
                "dcs": {
                    "ttl": self.ttl,
                    "loop_wait": 1,
                    "retry_timeout": 1,
                    "maximum_lag_on_failover": 1_048_576,
                    "postgresql": {
                        "use_pg_rewind": true,
                        "parameters": {"max_connections": 50, "wal_keep_size": "256MB", "shared_buffers": "16MB"},
                    },
                },
                "initdb": [{"encoding": "UTF8"}, "data-checksums", "no-sync"],
            },
            "postgresql": {
                "listen": server,
                "connect_address": server,
                "data_dir": dir.join("data"),
                "bin_dir": tools::postgres_bin_dir(),
                "pg_hba": [
                    "local all all trust",
                    format!("host replication replicator {range} md5"),
                    format!("host all all {range} md5"),
                ],
                "basebackup": [{"checkpoint": "fast"}, "no-sync"],
                "authentication": {
                    "superuser": {"username": SUPERUSER.0, "password": SUPERUSER.1},
                    "replication": {"username": "replicator", "password": "secret of the replica"},
                    "rewind": {"username": "rewinder", "password": "secret of the rewinder"},
                },
                "parameters": {"unix_socket_directories": dir},
            },
        });
        if let Some(certificates) = certificates {
            lay_over(&mut yaml, &secured(certificates));
        }
        lay_over(&mut yaml, &self.extra);
        serde_yaml::to_string(&yaml).expect("YAML of JSON")
    }
}

fn secured(certificates: &Certificates) -> Value {
    let path = |file: &str| certificates.path(file);
    json!({
        "restapi": {
            "certfile": path("server.pem"),
            "keyfile": path("server.key"),
            "cafile": path("ca.pem"),
            "verify_client": "required",
        },
        "ctl": {"certfile": path("client.pem"), "keyfile": path("client.key")},
        "etcd3": {
            "protocol": "https",
            "cacert": path("ca.pem"),
            "cert": path("client.pem"),
            "key": path("client.key"),
        },
    })
}

/// Mappings are merged, anything else is replaced.
pub(crate) fn lay_over(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                lay_over(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}
