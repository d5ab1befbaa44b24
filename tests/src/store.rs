//! The stores under the clusters.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use matriarch::http;
use matriarch::net::Connector;
use matriarch::store::EtcdStore;
use matriarch::tls::{ClientSlot, Speaks};
use matriarch_core::op::Outcome;

use crate::network::{Host, Network, free_port};
use crate::plan::StoreKind;
use crate::{Certificates, Child, Process, eventually, tools};

/// One store server.
pub struct Store {
    /// Where it lives.
    pub host: Host,
    /// `host:port` for clients.
    pub client: String,
    command: Command,
    child: Child,
    data: PathBuf,
    pub(crate) log: PathBuf,
    tls: Option<ClientSlot>,
}

impl Store {
    /// Starts the servers of a store and waits until they answer.
    pub(crate) async fn start(
        kind: StoreKind,
        network: &mut Network,
        dir: &Path,
        certificates: Option<&Certificates>,
    ) -> Vec<Self> {
        let scheme = if certificates.is_some() { "https" } else { "http" };
        let tls = certificates.map(|files| files.client("ca.pem", Some("client"), Speaks::Http2));
        let count = match kind {
            StoreKind::Etcd(count) => count,
            StoreKind::Embedded => 1,
        };
        let hosts: Vec<Host> = (0..count).map(|n| network.add(&format!("e{n}"), 5 + n)).collect();
        // One etcd member is told of the others by their peer URLs, on a port of their own each.
        let peers: Vec<String> = hosts.iter().map(|host| format!("http://{}:{}", host.address, free_port())).collect();
        let cluster: Vec<String> = peers.iter().enumerate().map(|(n, url)| format!("e{n}={url}")).collect();
        let mut stores = Vec::new();
        for (n, host) in hosts.into_iter().enumerate() {
            let client = format!("{}:{}", host.address, host.port(0, 2379));
            let (log, data) = (dir.join(format!("e{n}.log")), dir.join(format!("e{n}")));
            let mut command = match kind {
                StoreKind::Embedded => {
                    let mut command = host.command(&tools::matriarch().display().to_string(), None);
                    command.args(["store", "--listen", &client, "--data"]).arg(&data);
                    command
                }
                StoreKind::Etcd(_) => {
                    let mut command = host.command("etcd", None);
                    command.args(["--name", &format!("e{n}"), "--logger", "zap", "--log-level", "warn"]);
                    command.args(["--initial-cluster", &cluster.join(",")]);
                    if let Some(files) = certificates {
                        command.arg("--cert-file").arg(files.path("server.pem"));
                        command.arg("--key-file").arg(files.path("server.key"));
                        command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(files.path("ca.pem"));
                    }
                    let url = format!("{scheme}://{client}");
                    command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
                    command.args(["--listen-peer-urls", &peers[n], "--initial-advertise-peer-urls", &peers[n]]);
                    command.arg("--data-dir").arg(&data);
                    command
                }
            };
            let file = File::create(&log).expect("the store's log");
            command.stdin(Stdio::null()).stderr(file.try_clone().expect("the log again")).stdout(file);
            let child = spawn(&mut command);
            stores.push(Self { host, client, command, child, data, log, tls: tls.clone() });
        }
        let connection = Self::connect(&stores);
        eventually("the store answers", Duration::from_secs(30), async || {
            match connection.read_key("ready", Duration::from_secs(1)).await {
                Outcome::Done(_) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        stores
    }

    /// A client of all of them.
    pub fn connect(stores: &[Self]) -> EtcdStore {
        let hosts = stores.iter().map(|store| store.client.clone()).collect();
        let connector = Connector::tcp(Duration::from_secs(1));
        let tls = stores.first().and_then(|store| store.tls.clone());
        let connector = match tls {
            Some(tls) => connector.over_tls(tls),
            None => connector,
        };
        EtcdStore::new(hosts, None, connector)
    }

    /// Whether this etcd member leads its cluster, by its own metrics.
    pub async fn is_raft_leader(&self) -> bool {
        let url = format!("http://{}/metrics", self.client);
        let answer = http::request(hyper::Method::GET, &url, None, None, Duration::from_secs(2)).await;
        answer.is_ok_and(|(_, body)| body.lines().any(|line| line == "etcd_server_is_leader 1"))
    }

    /// The server's process.
    pub fn process(&self) -> Process {
        self.child.process()
    }

    /// Copies everything that the server has on disk, as of one instant; where to.
    pub fn back_up(&self) -> PathBuf {
        let backup = self.data.with_extension("backup");
        self.process().freeze();
        copy(&self.data, &backup);
        self.process().thaw();
        backup
    }

    /// SIGKILL to the server, until it has ended: whoever connects is refused from now on.
    pub fn kill(&self) {
        // One that has ended is reaped, and its id may be another's.
        if self.child.ended().is_none() {
            self.process().kill();
            assert!(self.child.wait(Duration::from_secs(10)).is_some(), "the store survives SIGKILL");
        }
    }

    /// Starts the server that was killed again, on the data that it left, under its address.
    pub fn start_again(&mut self) {
        assert!(self.child.ended().is_some(), "the store runs");
        self.child = spawn(&mut self.command);
    }

    /// Kills the server and starts it again on what was copied: same identity, and everything since then is lost.
    pub fn restore(&mut self, from: &Path) {
        self.kill();
        std::fs::remove_dir_all(&self.data).expect("the store's data");
        copy(from, &self.data);
        self.start_again();
    }
}

fn spawn(command: &mut Command) -> Child {
    Child::spawn(command).unwrap_or_else(|error| panic!("cannot start the store ({error}); tests/run installs etcd"))
}

fn copy(from: &Path, to: &Path) {
    // By the harness: it reaps every child of this process, and another wait for one may find it gone.
    let (from, to) = (from.display().to_string(), to.display().to_string());
    tools::run("cp", &["-a", &from, &to]).expect("a copy of the store's data");
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.child.ended().is_none() {
            self.process().kill();
            self.child.wait(Duration::from_secs(10));
        }
    }
}
