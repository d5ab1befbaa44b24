//! A real etcd, asked as the agent asks it.

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
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::servers::{PATIENCE, Server, connect};
use crate::{Frozen, Store, Who};

/// Where the keys are.
const BASE: &str = "/service/conformance/";

/// The servers, and those who ask them.
pub(crate) struct Etcd {
    /// The one that leads first: it is asked first.
    servers: Vec<Server>,
    /// Each with a copy of the keys of its own.
    asking: Vec<Keys>,
    fed: mpsc::Receiver<Fed>,
    told: Vec<ClusterView>,
    begun: Instant,
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
        let store = || EtcdStore::new(hosts.clone(), None, Connector::tcp(Duration::from_secs(1)));
        let keys = |name: &str| {
            let extras = Extras { tags: serde_json::Map::new(), database: "postgres".into(), proxy_address: None };
            Keys::new(store(), Mirror::new(BASE), BASE, Member::new(name), extras)
        };
        let (out, mut fed) = mpsc::channel(16);
        tokio::spawn(feed::run(store(), Mirror::new(BASE), out));
        let Some(Fed::View(first)) = fed.recv().await else { panic!("the watch does not begin") };
        let (asking, told) = (["a", "b"].map(keys).into(), vec![first.value]);
        Self { servers, asking, fed, told, begun: Instant::now() }
    }

    fn members(&self, which: Frozen) -> &[Server] {
        match which {
            Frozen::Leader => &self.servers[..1],
            Frozen::Followers => &self.servers[1..],
        }
    }
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

    async fn delete_leader(&mut self) {
        let mut raw = etcd_client::Client::connect([&self.servers[0].host], None).await.unwrap();
        raw.delete(format!("{BASE}leader"), None).await.unwrap();
    }

    async fn freeze(&mut self, which: Frozen) {
        for server in self.members(which) {
            server.freeze();
        }
    }

    async fn thaw(&mut self) {
        for server in &self.servers {
            server.thaw();
        }
    }

    async fn kill(&mut self) {
        for server in &mut self.servers {
            server.kill();
        }
    }

    async fn start_again(&mut self) {
        for server in &mut self.servers {
            server.start_again();
        }
    }
}
