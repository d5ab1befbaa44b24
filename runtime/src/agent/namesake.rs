//! Two nodes with one name would write over each other's member record.
//!
//! The agent looks for a namesake before it does anything. If the store is silent then, it starts nevertheless: it may
//! have a primary to adopt. It looks again when it sees the keys for the first time, beside the loop, and leaves only
//! while it has nothing to do with leadership: the namesake's trouble is smaller than an outage.

use std::sync::OnceLock;
use std::time::Duration;

use matriarch_core::lease::Tenure;
use matriarch_core::state::State;
use matriarch_core::time::Instant;
use matriarch_core::view::View;
use matriarch_core::view::store::ClusterView;
use tokio::task::JoinHandle;

use crate::http::{self, Client};

/// How long the other node of our name may take to show that it lives.
pub(super) const NAMESAKE_LIMIT: Duration = Duration::from_secs(3);

/// Where an agent tells which process it is.
pub(crate) const PATH: &str = "/matriarch/instance";

/// This process, and no other: our own record may still show an address that we had, and that leads to us.
pub(crate) fn instance() -> &'static str {
    static INSTANCE: OnceLock<String> = OnceLock::new();
    INSTANCE.get_or_init(|| format!("{:032x}", rand::random::<u128>()))
}

/// What is known of a namesake.
pub(super) struct Namesake {
    client: Client,
    state: Search,
}

#[derive(Debug, Default)]
enum Search {
    /// There is none, or we stay beside it.
    #[default]
    Over,
    /// The keys were not seen yet.
    Due,
    /// Somebody wrote our record: does he live?
    Asked { api_url: String, alive: JoinHandle<bool> },
}

/// What to do about a namesake that lives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// There is none.
    Alone,
    /// Nothing depends on this node.
    Leave(String),
    /// This node leads, or is about to: it is said, and looked at again unless it leads for good.
    Stay(String),
}

impl Namesake {
    /// There is none.
    pub(super) fn none(client: Client) -> Self {
        Self { client, state: Search::Over }
    }

    /// The search at the start had no answer of the store.
    pub(super) fn due(client: Client) -> Self {
        Self { client, state: Search::Due }
    }

    /// The keys were seen. A record under our name with an address that is not ours has its owner asked.
    pub(super) fn seen(&mut self, cluster: &ClusterView, core: &State) {
        if !matches!(self.state, Search::Due) {
            return;
        }
        let record = cluster.members.get(&core.config.me).map(|key| &key.record);
        self.state = match record {
            Some(record) if !record.api_url.is_empty() && !is_ours(&record.api_url, &core.config.published.api_url) => {
                let api_url = record.api_url.clone();
                let (client, asked) = (self.client.clone(), api_url.clone());
                Search::Asked { api_url, alive: tokio::spawn(async move { is_alive(&client, &asked).await }) }
            }
            _ => Search::Over,
        };
    }

    /// Waits for the namesake's answer, for ever if none was asked.
    pub(super) async fn answered(&mut self) -> bool {
        match &mut self.state {
            Search::Asked { alive, .. } => alive.await.unwrap_or(false),
            Search::Over | Search::Due => std::future::pending().await,
        }
    }

    /// The answer that [`Self::answered`] had, and what follows.
    pub(super) fn judge(&mut self, alive: bool, core: &State, at: Instant) -> Verdict {
        let Search::Asked { api_url, .. } = std::mem::take(&mut self.state) else { return Verdict::Alone };
        if !alive {
            return Verdict::Alone;
        }
        let text = refusal(core.config.me.as_str(), &api_url);
        if is_dispensable(core, at) {
            return Verdict::Leave(text);
        }
        if core.tenure.held().is_none() {
            self.state = Search::Due;
        }
        Verdict::Stay(text)
    }
}

/// No tenure, none being sought, and nothing that writes: no service ends with this agent.
fn is_dispensable(core: &State, at: Instant) -> bool {
    let view = View { at, state: core };
    core.tenure == Tenure::None && core.granted.is_none() && !view.may_write() && !view.starting_primary()
}

/// What is said to the operator.
pub(super) fn refusal(name: &str, api_url: &str) -> String {
    format!("Can't start; there is already a node named '{name}' running ({api_url}): give this node another name")
}

/// Whether a published address is our own. The scheme does not count: who was given TLS, or has lost it, would ask
/// itself, in a way that it does not answer, and the guard does not wait for as long for an agent that comes back.
pub(super) fn is_ours(api_url: &str, own: &str) -> bool {
    let place = |url: &str| url.split_once("://").map_or(url, |(_, place)| place).to_owned();
    place(api_url) == place(own)
}

/// Whether another agent, Patroni's or ours, answers there. Patroni may need PostgreSQL for any path but `/liveness`.
pub(super) async fn is_alive(client: &Client, api_url: &str) -> bool {
    let Some(base) = http::base_url(api_url) else { return false };
    let ask = async |path: &str| {
        client.request(hyper::Method::GET, &format!("{base}{path}"), None, None, NAMESAKE_LIMIT).await
    };
    ask("/liveness").await.is_ok() && !ask(PATH).await.is_ok_and(|(_, body)| body == instance())
}

#[cfg(test)]
mod tests {
    use matriarch_core::id::Member;
    use matriarch_core::state::Granted;
    use matriarch_core::view::postgres::Phase;
    use matriarch_core::view::postgres::Process;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::agent::handle::Shared;
    use crate::api::tests::node::{leading, node, serve_node, standby};
    use crate::clock;
    use crate::net::Connector;

    /// Another agent: it answers, as Patroni does, a path that it does not know.
    async fn other() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api_url = format!("http://{}/patroni", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.0 503 Service Unavailable\r\n\r\n{}").await;
            }
        });
        api_url
    }

    /// The keys as this node sees them, with this address under its own name.
    fn keys(shared: &Shared, api_url: Option<&str>) -> ClusterView {
        let mut cluster = shared.core.store.cluster.clone().unwrap().value;
        let me = Member::new("n1");
        match api_url {
            Some(api_url) => cluster.members.get_mut(&me).unwrap().record.api_url = api_url.to_owned(),
            None => drop(cluster.members.remove(&me)),
        }
        cluster
    }

    /// What comes of the first sight of the keys; `None` if nobody is asked.
    async fn verdict(shared: &Shared, api_url: Option<&str>) -> (Option<Verdict>, Namesake) {
        let mut namesake = Namesake::due(Client::new(Connector::tcp(NAMESAKE_LIMIT)));
        namesake.seen(&keys(shared, api_url), &shared.core);
        if matches!(namesake.state, Search::Over) {
            return (None, namesake);
        }
        let alive = namesake.answered().await;
        (Some(namesake.judge(alive, &shared.core, clock::now())), namesake)
    }

    #[tokio::test]
    async fn a_living_namesake_makes_a_standby_leave() {
        let api_url = other().await;
        let (verdict, _) = verdict(&node(standby()), Some(&api_url)).await;
        assert_eq!(verdict, Some(Verdict::Leave(refusal("n1", &api_url))));
    }

    #[tokio::test]
    async fn a_node_that_leads_or_is_about_to_stays() {
        let api_url = other().await;
        let stays = Some(Verdict::Stay(refusal("n1", &api_url)));
        let (got, namesake) = verdict(&leading(Duration::from_secs(20)), Some(&api_url)).await;
        assert_eq!(got, stays);
        assert!(matches!(namesake.state, Search::Over), "it leads: nothing is looked for any more");

        let lease =
            Granted { lease: matriarch_core::id::LeaseId(9), ttl: Duration::from_secs(30), asked: clock::now() };
        let mut racing = node(standby());
        racing.core.granted = Some(lease);
        let mut adopting = node(standby());
        adopting.core.tenure = Tenure::Adopting { deadline: clock::now() };
        let mut unknown = node(standby());
        unknown.core.postgres.process = Process::Alive { pid: matriarch_core::id::Pid(100), phase: Phase::Ready };
        unknown.core.memory.promotion = true;
        for shared in [racing, adopting, unknown] {
            let (got, namesake) = verdict(&shared, Some(&api_url)).await;
            assert_eq!(got, stays);
            assert!(matches!(namesake.state, Search::Due), "it is looked at again");
        }
    }

    #[tokio::test]
    async fn nobody_leaves_because_of_itself_or_of_the_dead() {
        let shared = node(standby());
        let ours = shared.core.config.published.api_url.clone();
        assert_eq!(verdict(&shared, Some(&ours)).await.0, None);
        let secure = ours.replace("http://", "https://");
        assert_ne!(secure, ours);
        assert_eq!(verdict(&shared, Some(&secure)).await.0, None);
        assert_eq!(verdict(&shared, None).await.0, None);
        // An address that we had before, and that still leads here.
        let here = serve_node(node(standby()), None).await;
        assert_eq!(verdict(&shared, Some(&format!("{}/patroni", here.base))).await.0, Some(Verdict::Alone));
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api_url = format!("http://{}/patroni", gone.local_addr().unwrap());
        drop(gone);
        assert_eq!(verdict(&shared, Some(&api_url)).await.0, Some(Verdict::Alone));
    }
}
