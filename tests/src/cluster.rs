//! A whole cluster: store, network, nodes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lock::MachineLock;
use crate::{Certificates, Network, Node, Plan, Store, eventually, wait_until};

/// Long enough for three nodes that are cloned on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(90);
/// How much of a log is printed when a test fails.
const LOG_LINES_MAX: usize = 200;

/// A cluster that runs. Everything of it ends when this is dropped.
pub struct Cluster {
    /// The nodes, `n1` first.
    pub nodes: Vec<Node>,
    /// The servers of the store.
    pub stores: Vec<Store>,
    /// What it was started from.
    pub plan: Plan,
    /// The certificates of all, if there is TLS.
    pub certificates: Option<Arc<Certificates>>,
    network: Network,
    dir: TempDir,
    _lock: MachineLock,
}

impl Cluster {
    /// Starts a cluster and waits until it is whole: one primary, everybody else streaming from it.
    pub async fn start(plan: Plan) -> Self {
        let cluster = Self::prepare(plan).await;
        let mut cluster = cluster;
        for node in &mut cluster.nodes {
            node.start();
        }
        cluster.healed(START_LIMIT).await;
        cluster
    }

    /// A cluster with a running store and nodes that are configured and not started.
    pub async fn prepare(plan: Plan) -> Self {
        let lock = MachineLock::take().await;
        let mut network = Network::new();
        let dir = tempfile::Builder::new().prefix("matriarch-test-").tempdir().expect("a directory");
        // The nodes' account must be able to pass.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("permissions of the directory");
        let certificates = plan.tls.then(|| Arc::new(Certificates::make(dir.path(), &network.addresses())));
        let stores = Store::start(plan.store, &mut network, dir.path(), certificates.as_deref()).await;
        let mut cluster = Self { nodes: Vec::new(), stores, plan, certificates, network, dir, _lock: lock };
        for number in 1..=cluster.plan.nodes {
            let name = format!("n{number}");
            cluster.add_node(&name, &name);
        }
        cluster
    }

    /// Adds a node, configured and not started; its name in the cluster may be another's.
    pub fn add_node(&mut self, directory: &str, name: &str) -> &mut Node {
        let number = 11 + u8::try_from(self.nodes.len()).expect("few nodes");
        let host = self.network.add(directory, number);
        let node = Node::new(directory, host, self.dir.path(), &self.plan, self.certificates.clone());
        let stores: Vec<String> = self.stores.iter().map(|store| store.client.clone()).collect();
        let certificates = self.certificates.as_deref();
        let yaml = self.plan.yaml(name, node.dir(), &node.host, &stores, &self.network.range(), certificates);
        fs::write(node.config(), yaml).expect("the configuration");
        self.nodes.push(node);
        self.nodes.last_mut().expect("just added")
    }

    /// Whether nodes can be cut off from each other; says so if not.
    pub fn can_cut(&self) -> bool {
        if !self.network.can_cut() {
            eprintln!("NOT TESTED: cutting needs network namespaces, which need root");
        }
        self.network.can_cut()
    }

    /// The granted time to live of a tenure.
    pub fn ttl(&self) -> Duration {
        Duration::from_secs(self.plan.ttl.into())
    }

    /// Who says that it is the primary.
    pub async fn primaries(&self) -> Vec<usize> {
        let mut found = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            if node.get("/primary").await.status == 200 {
                found.push(index);
            }
        }
        found
    }

    /// Waits until the cluster is whole: exactly one node says that it is the primary, every other that it is a
    /// replica, and that many stream from the one primary. Its index.
    pub async fn healed(&self, limit: Duration) -> usize {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.healed_but(&[], &all, limit).await
    }

    /// [`Self::healed`] while the nodes `without` are away.
    pub async fn healed_without(&self, without: &[usize], limit: Duration) -> usize {
        let rest: Vec<usize> = (0..self.nodes.len()).filter(|index| !without.contains(index)).collect();
        self.healed_but(without, &rest, limit).await
    }

    async fn healed_but(&self, without: &[usize], nodes: &[usize], limit: Duration) -> usize {
        let what = format!("one primary and everybody else streaming from it, without {without:?}");
        eventually(&what, limit, async || {
            let mut primary = None;
            for &index in nodes {
                let node = &self.nodes[index];
                if node.get("/primary").await.status == 200 {
                    if let Some(other) = primary.replace(index) {
                        return Err(format!("both {} and {} say that they are the primary", index + 1, other + 1));
                    }
                } else if node.get("/replica").await.status != 200 {
                    return Err(format!(
                        "{} is neither primary nor replica: {}",
                        node.name,
                        node.get("/patroni").await.body
                    ));
                }
            }
            let primary = primary.ok_or("nobody says that it is the primary")?;
            let client = self.nodes[primary].connect().await.map_err(|error| error.to_string())?;
            let query =
                "select count(*) from pg_stat_replication where state = 'streaming' and application_name ~ '^n[0-9]+$'";
            let row = client.query_one(query, &[]).await.map_err(|error| error.to_string())?;
            let streaming: i64 = row.get(0);
            let wanted = nodes.len() as i64 - 1;
            if streaming == wanted { Ok(primary) } else { Err(format!("{streaming} of {wanted} replicas stream")) }
        })
        .await
    }

    /// Waits until some node but these says that it is the primary; its index.
    pub async fn primary_but(&self, not: &[usize], limit: Duration) -> usize {
        eventually("another primary", limit, async || {
            let primaries = self.primaries().await;
            primaries.into_iter().find(|index| !not.contains(index)).ok_or_else(|| "there is none".to_owned())
        })
        .await
    }

    /// Every index but this one.
    pub fn others(&self, index: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|other| *other != index).collect()
    }

    /// Cuts a node off from the store, and from the other nodes if `peers` is set. Clients reach it still.
    pub fn cut_off(&self, index: usize, peers: bool) {
        self.for_each_neighbour(index, peers, crate::Host::cut);
    }

    /// Undoes [`Self::cut_off`].
    pub fn mend(&self, index: usize, peers: bool) {
        self.for_each_neighbour(index, peers, crate::Host::mend);
    }

    fn for_each_neighbour(&self, index: usize, peers: bool, act: impl Fn(&crate::Host, &crate::Host)) {
        let host = &self.nodes[index].host;
        self.stores.iter().for_each(|store| act(host, &store.host));
        if peers {
            self.others(index).into_iter().for_each(|other| act(host, &self.nodes[other].host));
        }
    }

    /// The member of a several-member etcd that leads; its index.
    pub async fn raft_leader(&self) -> usize {
        eventually("a raft leader", Duration::from_secs(20), async || {
            for (index, store) in self.stores.iter().enumerate() {
                if store.is_raft_leader().await {
                    return Ok(index);
                }
            }
            Err("no member says that it leads".to_owned())
        })
        .await
    }

    /// Waits until nothing of a node runs any more.
    pub async fn nothing_runs(&self, index: usize, limit: Duration) {
        let node = &self.nodes[index];
        wait_until(&format!("nothing of {} runs", node.name), limit, async || node.processes().is_empty()).await;
    }

    /// Pauses the cluster, or ends that, until every node says so, and the guards of what is let go are armed for nothing: the
    /// race is a store that dies between the write that tells of that and its answer, and who does not know that it is let go
    /// is not. Before the cluster's birth is over there is no configuration, and a change is answered 503 as by Patroni.
    pub async fn pause(&self, on: bool, limit: Duration) {
        eventually("the configuration is changed", limit, async || {
            let answer = self.nodes[0].patch_config(&json!({"pause": on})).await;
            if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
        for node in &self.nodes {
            let what = format!("{} knows of the pause ({on}), and its guard", node.name);
            eventually(&what, limit, async || {
                let [status, why] = [node.get("/patroni").await.body, node.get("/why").await.body];
                let read = |text: &str| -> Value { serde_json::from_str(text).unwrap_or_default() };
                let let_go = read(&why)["guard"].get("armed_for_lease").is_some_and(Value::is_null);
                let known = (read(&status)["pause"] == true) == on;
                if known && (let_go || !on) { Ok(()) } else { Err(format!("{status}, {why}")) }
            })
            .await;
        }
    }

    fn print_logs(&self) {
        for store in &self.stores {
            print_tail(&store.log);
        }
        for node in &self.nodes {
            let state = node.dir().join("data.matriarch");
            for log in [node.dir().join("agent.log"), state.join("guard.log"), state.join("postgresql.log")] {
                print_tail(&log);
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        if std::env::var_os("MATRIARCH_TEST_KEEP").is_some() {
            eprintln!("kept: {}", self.dir.path().display());
            self.dir.disable_cleanup(true);
        }
        // Before their network and their directories go.
        self.nodes.clear();
        self.stores.clear();
    }
}

pub(crate) fn print_tail(log: &Path) {
    let Ok(text) = fs::read_to_string(log) else { return };
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(LOG_LINES_MAX);
    eprintln!("---- {} ({skipped} lines before these)", log.display());
    lines[skipped..].iter().for_each(|line| eprintln!("{line}"));
}
