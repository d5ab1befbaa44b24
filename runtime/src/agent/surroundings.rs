//! What an agent is put into, and how it comes to life there. Its host makes one kind of surroundings (`run.rs`); a
//! simulated world may make another: nothing from here on names a clock, a socket, a file, a process or a signal.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use matriarch_core::config::Config;
use matriarch_core::event::{Event, GuardEvent};
use matriarch_core::id::Member;
use matriarch_core::state::State;
use tokio::sync::{mpsc, watch};

use super::certificates::Slots;
use super::feed::{self, Mirror};
use super::guard_link::GuardLink;
use super::handle::{Handle, Shared};
use super::kept::Kept;
use super::keys::Keys;
use super::lanes::Lanes;
use super::namesake::{self, NAMESAKE_LIMIT, Namesake};
use super::promises::Promises;
use super::{Agent, Asked, Ended, Sources, setup};
use crate::api::{self, ApiSettings};
use crate::clock::Clock;
use crate::config::LocalConfig;
use crate::config::local::RecorderSection;
use crate::guard::{Finder, Guard, Hello};
use crate::hooks::callbacks::{Callers, Teller};
use crate::http::Client;
use crate::net::{Connector, Listener};
use crate::peers::Peers;
use crate::postgres::Server;
use crate::recorder::Recorder;
use crate::service::ServiceManager;
use crate::store::EtcdStore;

/// Requests from the REST API that may wait.
const MESSAGES_MAX: usize = 64;
/// Views that may wait; more wait in the watch.
const VIEWS_MAX: usize = 64;
/// How long a read or a write of the store may take that an operator asked for through the REST API.
const OPERATOR_LIMIT: Duration = Duration::from_secs(3);
/// How often it is looked whether PostgreSQL's program was replaced: one question about a file.
const VETTING_PAUSE: Duration = Duration::from_mins(1);

/// Reads the configuration file again; nothing if it cannot be used. It may wait for a disk, and nothing waits for it.
pub type Reload = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Option<LocalConfig>> + Send>> + Send>;

/// Everything around the loop.
pub struct Surroundings {
    /// The clock that it lives by.
    pub clock: Arc<dyn Clock>,
    /// To the store and to the other agents.
    pub connector: Connector,
    /// For the REST API.
    pub listener: Listener,
    /// PostgreSQL.
    pub postgres: Arc<dyn Server>,
    /// What survives the agent.
    pub promises: Arc<dyn Promises>,
    /// The dynamic configuration that was in force, if it is known and can be used.
    pub in_force: Option<serde_json::Value>,
    /// The guard.
    pub guard: Finder,
    /// What the operating system asks for.
    pub asked: mpsc::Receiver<Asked>,
    /// Reads the configuration file again.
    pub reload: Reload,
    /// Whoever started it and wants to hear how it is.
    pub service: ServiceManager,
}

/// Lives in its surroundings until it is told to leave. `found` is the guard and how it greeted, if
/// there is one; `config` is what
/// [`setup::effective`] makes of `local` and of the dynamic configuration that was in force, or its bootstrap section.
pub async fn live(
    around: Surroundings,
    local: LocalConfig,
    config: Config,
    server_major: u32,
    found: Option<(Guard, Hello)>,
) -> anyhow::Result<Ended> {
    let auth = local.etcd3.username.clone().zip(local.etcd3.password.as_ref().map(|p| p.reveal().to_owned()));
    let (connector, clock) = (around.connector.clone(), Arc::clone(&around.clock));
    let certificates = Slots::new(&local);
    let to_store = certificates.to_store(connector.clone());
    let store = EtcdStore::on_clock(local.etcd3.hosts.clone(), auth, to_store, Arc::clone(&clock));
    let peers = Client::with_tls(connector, certificates.peers.clone());
    let base = local.base_path();
    let mirror = Mirror::new(&base);
    let me = Member::new(&local.name);
    let keys = Keys::new(store.clone(), mirror.clone(), &base, me, setup::extras(&local));
    let kept = Kept::read(Arc::clone(&around.promises), Arc::clone(&around.postgres), around.in_force.clone());
    keys.set_config(kept.configuration().unwrap_or(&local.bootstrap.dcs));
    keys.allow_tenure(config.ttl);
    let started = around.promises.read();
    let mut config = Config { paused_before: kept.was_paused(), ..config };
    // What was configured when the last agent heard of it counts until the store tells.
    config.permanent_slots.extend(kept.permanent_slots().iter().cloned());
    let begun = clock.now();
    let shared = super::shared(State::new(config.clone(), begun), &local.scope, &local.tags);

    let (events, events_out) = mpsc::unbounded_channel();
    let (fed, fed_out) = mpsc::channel(VIEWS_MAX);
    let (messages, messages_out) = mpsc::channel(MESSAGES_MAX);
    let (died, died_out) = mpsc::unbounded_channel();
    let lanes = Lanes::new(Arc::new(keys), &around, Peers::new(peers.clone(), &local.scope), events);
    let mut sources = Sources {
        events: events_out,
        fed: fed_out,
        messages: messages_out,
        asked: around.asked,
        changed: around.postgres.watch_files(),
        died: died_out,
    };
    let mut link = GuardLink::new(around.guard);
    let (greeted, reports) = match found {
        Some((guard, hello)) => (link.connected(&guard, hello), Some(guard.reports)),
        None => (GuardEvent::Gone, None),
    };
    let namesake = Box::pin(refuse_namesake(&store, peers.clone(), &base, &local)).await?;

    tokio::spawn(feed::run(store.clone(), mirror.clone(), fed));
    let access = api::store_access(store.clone(), local.namespace.clone(), local.scope.clone(), OPERATOR_LIMIT);
    let (api, api_settings) = watch::channel(ApiSettings::new(&local, access.clone(), peers).await);
    let api = Arc::new(api);
    tokio::spawn(certificates.clone().renew_again_and_again(Arc::clone(&api)));
    let handle = Handle::new(Arc::clone(&shared), messages, Arc::clone(&clock));
    tokio::spawn(api::serve(around.listener, handle, api_settings));

    let recorder = match local.matriarch.recorder {
        RecorderSection { enabled: true, size_bytes } => {
            Recorder::start(&setup::state_dir(&local), size_bytes, &config, begun)
        }
        RecorderSection { enabled: false, .. } => Recorder::default(),
    };
    let first = [Event::Guard(greeted), Event::Ticked(clock.wall()), Event::Started(started)];
    let mut agent = Agent {
        shared,
        alarm: clock.alarm().context("a timer")?,
        clock,
        local,
        reload: around.reload,
        reloads: 0,
        reloading: None,
        certificates,
        mirror,
        lanes,
        guard: link,
        starting_guard: None,
        reports,
        died,
        watched: None,
        answers: std::collections::BTreeMap::new(),
        next_request: 0,
        config_seen: None,
        configured: kept.configuration().cloned(),
        kept,
        server_major,
        unreachable_since: None,
        namesake,
        recorder,
        api,
        access,
        service: around.service,
        teller: Teller::default(),
        callers: Callers::start(),
        ended: None,
    };
    agent.service.ready();
    agent.live(&mut sources, first).await
}

impl Agent {
    /// Has PostgreSQL's program look at the parameters, beside the loop: nothing that a failover does waits for it.
    pub(super) fn vet_parameters(&self) {
        tokio::spawn(vet_parameters(Arc::clone(&self.lanes.postgres), Arc::clone(&self.shared)));
    }

    /// As [`Self::vet_parameters`], now and whenever the program is another one.
    fn vet_parameters_again_and_again(&self) {
        let (postgres, shared) = (Arc::clone(&self.lanes.postgres), Arc::clone(&self.shared));
        tokio::spawn(async move {
            loop {
                vet_parameters(Arc::clone(&postgres), Arc::clone(&shared)).await;
                tokio::time::sleep(VETTING_PAUSE).await;
            }
        });
    }

    async fn live(&mut self, sources: &mut Sources, first: [Event; 3]) -> anyhow::Result<Ended> {
        self.vet_parameters_again_and_again();
        let mut wake = None;
        for event in first {
            let effects = self.step(event);
            wake = effects.wake.at;
            self.hand_out(effects);
        }
        loop {
            if let Some(effects) = self.turn(sources, wake).await {
                wake = effects.wake.at;
                self.hand_out(effects);
            }
            if let Some(ended) = self.ended.clone() {
                self.lanes.withdraw_all();
                self.callers.flush().await;
                // Orders to the guard that were just sent are written before the process ends.
                tokio::time::sleep(Duration::from_millis(20)).await;
                return Ok(ended);
            }
        }
    }
}

async fn vet_parameters(postgres: Arc<dyn Server>, shared: Arc<Mutex<Shared>>) {
    let warnings = postgres.vet_parameters().await;
    shared.lock().unwrap_or_else(PoisonError::into_inner).parameter_warnings = warnings;
}

/// Whoever answers under our name at another address is alive: then this node does not start. A store that does not
/// answer is asked later: an agent that has a primary to adopt cannot wait for it.
async fn refuse_namesake(
    store: &EtcdStore,
    peers: Client,
    base: &str,
    local: &LocalConfig,
) -> anyhow::Result<Namesake> {
    let key = format!("{base}members/{}", local.name);
    let Some(read) = store.read_key(&key, NAMESAKE_LIMIT).await.done() else { return Ok(Namesake::due(peers)) };
    let record = read.entry.as_ref().and_then(|entry| serde_json::from_str(entry.text()).ok());
    let record: serde_json::Value = record.unwrap_or_default();
    match record.get("api_url").and_then(|url| url.as_str()) {
        Some(api_url)
            if !namesake::is_ours(api_url, &setup::api_url(local)) && namesake::is_alive(&peers, api_url).await =>
        {
            bail!("{}", namesake::refusal(&local.name, api_url))
        }
        _ => Ok(Namesake::none(peers)),
    }
}
