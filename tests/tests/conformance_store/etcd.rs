//! A real etcd, asked as the agent asks it.

use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use hyper::Method;
use matriarch::agent::feed::{self, Fed, Mirror};
use matriarch::agent::keys::{Extras, Keys};
use matriarch::http;
use matriarch::net::Connector;
use matriarch::store::EtcdStore;
use matriarch_core::action::StoreAction;
use matriarch_core::event::StoreDone;
use matriarch_core::id::Member;
use matriarch_core::op::Outcome;
use matriarch_core::view::store::ClusterView;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::servers::{PATIENCE, Server, connect};
use crate::{Members, Store, TENURE, Who};

/// Where the keys are.
const BASE: &str = "/service/conformance/";

/// The servers, and those who ask them.
pub(crate) struct Etcd {
    /// First the one that leads first.
    servers: Vec<Server>,
    killed: Vec<usize>,
    /// Each with a copy of the keys of its own; the last one's is that of the watch.
    asking: Vec<Keys>,
    fed: mpsc::Receiver<Fed>,
    told: Vec<ClusterView>,
    begun: Instant,
    /// What is restored.
    backup: Option<TempDir>,
}

impl Etcd {
    pub(crate) async fn start(members: usize) -> Self {
        let mut servers = Server::etcd(members);
        connect(servers.iter().map(|server| server.host.as_str())).await;
        for member in 0..members {
            if leads(&servers[member]).await {
                servers.swap(0, member);
            }
        }
        let hosts: Vec<String> = servers.iter().map(|server| server.host.clone()).collect();
        // Each asks another one first.
        let store = |who: Who| {
            let mut hosts = hosts.clone();
            hosts.rotate_left(who as usize % members);
            let store = EtcdStore::new(hosts, None, Connector::tcp(Duration::from_secs(1)));
            store.allow_tenure(TENURE);
            store
        };
        let keys = |store: EtcdStore, mirror: Mirror, name: &str| {
            let extras = Extras { tags: serde_json::Map::new(), database: "postgres".into(), proxy_address: None };
            Keys::new(store, mirror, BASE, Member::new(name), extras)
        };
        let (out, mut fed) = mpsc::channel(16);
        let (watching, mirror) = (store(Who::Watcher), Mirror::new(BASE));
        tokio::spawn(feed::run(watching.clone(), mirror.clone(), out));
        let Some(Fed::View(first)) = fed.recv().await else { panic!("the watch does not begin") };
        let writers = [(Who::A, "a"), (Who::B, "b")].map(|(who, name)| keys(store(who), Mirror::new(BASE), name));
        let asking = writers.into_iter().chain([keys(watching, mirror, "watcher")]).collect();
        Self { servers, killed: Vec::new(), asking, fed, told: vec![first.value], begun: Instant::now(), backup: None }
    }

    /// Where the backup is.
    fn snapshot(&self) -> String {
        let path: PathBuf = self.backup.as_ref().expect("a backup was taken").path().join("snapshot");
        path.to_str().expect("text").to_owned()
    }

    /// An operator's client.
    async fn raw(&self) -> etcd_client::Client {
        etcd_client::Client::connect([&self.servers[0].host], None).await.unwrap()
    }

    fn members(&self, which: Members) -> Range<usize> {
        match which {
            Members::All => 0..self.servers.len(),
            Members::Leader => 0..1,
            Members::Followers => 1..self.servers.len(),
            Members::Of(who) => who as usize..who as usize + 1,
        }
    }
}

/// What a server is started with as this flag.
fn flag(server: &Server, name: &str) -> String {
    let mut rest = server.command.get_args().skip_while(|argument| *argument != name);
    rest.nth(1).expect("a flag that every server has").to_str().expect("text").to_owned()
}

fn etcdctl(arguments: &[&str]) {
    // What 3.4 speaks unasked depends on who built it.
    let output = Command::new("etcdctl").env("ETCDCTL_API", "3").args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run etcdctl ({error}); tests/run installs it"));
    assert!(output.status.success(), "etcdctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn leads(server: &Server) -> bool {
    let url = format!("http://{}/metrics", server.host);
    let answer = http::request(Method::GET, &url, None, None, PATIENCE).await;
    answer.is_ok_and(|(_, body)| body.lines().any(|line| line == "etcd_server_is_leader 1"))
}

impl Store for Etcd {
    async fn order(&mut self, who: Who, action: StoreAction, limit: Duration) -> Outcome<StoreDone> {
        self.asking[who as usize].execute(action, limit).await.0
    }

    async fn pass(&mut self, time: Duration) {
        sleep(time).await;
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    async fn watched(&mut self) -> Vec<ClusterView> {
        let mut told = std::mem::take(&mut self.told);
        while let Ok(Some(fed)) = timeout(Duration::from_millis(1), self.fed.recv()).await {
            if let Fed::View(seen) = fed {
                told.push(seen.value);
            }
        }
        told
    }

    async fn delete(&mut self, key: &str) {
        self.raw().await.delete(format!("{BASE}{key}"), None).await.unwrap();
    }

    async fn delete_all(&mut self) {
        let all = etcd_client::DeleteOptions::new().with_prefix();
        self.raw().await.delete(BASE, Some(all)).await.unwrap();
    }

    async fn revoke_tenure(&mut self) {
        let mut raw = self.raw().await;
        let leader = raw.get(format!("{BASE}leader"), None).await.unwrap();
        raw.lease_revoke(leader.kvs().first().expect("a leader key").lease()).await.unwrap();
    }

    async fn freeze(&mut self, which: Members) {
        for member in self.members(which) {
            self.servers[member].freeze();
        }
    }

    async fn thaw(&mut self) {
        for server in &self.servers {
            server.thaw();
        }
    }

    async fn kill(&mut self, which: Members) {
        for member in self.members(which) {
            self.servers[member].kill();
            self.killed.push(member);
        }
    }

    async fn start_again(&mut self) {
        for member in std::mem::take(&mut self.killed) {
            self.servers[member].start_again();
        }
        for server in &self.servers {
            connect([server.host.as_str()]).await;
        }
    }

    async fn backup(&mut self) {
        self.backup = Some(tempfile::tempdir().unwrap());
        etcdctl(&["--endpoints", &self.servers[0].host, "snapshot", "save", &self.snapshot()]);
    }

    async fn restore(&mut self) {
        self.kill(Members::All).await;
        let snapshot = self.snapshot();
        for server in &self.servers {
            let flag = |name| flag(server, name);
            let (name, peer, data) = (flag("--name"), flag("--initial-advertise-peer-urls"), flag("--data-dir"));
            // It restores into a new directory only.
            std::fs::remove_dir_all(&data).unwrap();
            let mut arguments = vec!["snapshot", "restore", &snapshot, "--name", &name, "--data-dir", &data];
            let cluster = flag("--initial-cluster");
            arguments.extend(["--initial-cluster", &cluster, "--initial-advertise-peer-urls", &peer]);
            etcdctl(&arguments);
        }
        self.start_again().await;
    }
}
