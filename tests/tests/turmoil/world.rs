//! A cluster on a simulated network, and everything that a scenario does to it. One thread runs it; the same seed does
//! the same if tokio's own draws are seeded too (`--cfg tokio_unstable`, which `tests/turmoil` sets).

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, SystemTime};

use matriarch::agent::surroundings::{Surroundings, live};
use matriarch::agent::{Asked, setup};
use matriarch::config::{self, DynamicConfig, LocalConfig};
use matriarch::service::ServiceManager;
use matriarch::store::EtcdStore;
use matriarch::store::embedded::Memory;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::machine::{Machines, Node};
use super::members::{Faults, PORT, Store};
use super::network::{EPOCH_MS, SimulatedClock, connector, listen};
use super::observer::{Observer, Tenure, Use, check_use};
use super::trace::Trace;

/// The agents' hosts.
pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];
/// The members of the store.
pub(super) const MEMBERS: [&str; 2] = ["store1", "store2"];
/// What the members agree on, and where guards and operators work.
const QUORUM: &str = "quorum";
const CHORES: &str = "chores";
const REST: u16 = 8008;

/// Times of the cluster, in seconds.
pub(super) const TTL: u64 = 6;
const LOOP_WAIT: u64 = 1;
const RETRY_TIMEOUT: u64 = 2;
/// How long a cluster may take to begin, and a healed one to be whole: a lease that has to end, connections that have to
/// be found dead by their probes (13 s), a standby that is cloned.
const WHOLE_WITHIN: Duration = Duration::from_secs(40);
/// How long an election may take once the leader key is gone: positions are asked for, with deadlines of a second.
pub(super) const ELECTION: Duration = Duration::from_secs(3);

/// Seconds.
pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Milliseconds.
pub(super) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

type Chore = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// `MATRIARCH_TURMOIL_SEED`, or 1. `tests/turmoil` runs each scenario with several, each in a process of its own.
pub(super) fn seed() -> u64 {
    std::env::var("MATRIARCH_TURMOIL_SEED").map_or(1, |text| text.parse().expect("a number"))
}

/// A cluster, its store and its network.
pub(super) struct World {
    seed: u64,
    sim: turmoil::Sim<'static>,
    machines: Machines,
    store: Store,
    /// What was seen so far.
    pub(super) observer: Observer,
    uses: Arc<Mutex<BTreeMap<String, Use>>>,
    asks: Arc<Mutex<BTreeMap<String, mpsc::Sender<Asked>>>>,
    chores: Rc<RefCell<VecDeque<Chore>>>,
    members: usize,
    trace: Trace,
    _listening: tracing::subscriber::DefaultGuard,
}

impl World {
    /// Three agents and a store of so many members; nothing has happened yet.
    pub(super) fn new(seed: u64, members: usize) -> Self {
        hear_panics();
        let trace = Trace::default();
        let listening = trace.listen();
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .epoch(SystemTime::UNIX_EPOCH + ms(EPOCH_MS as u64))
            .simulation_duration(secs(3600))
            .min_message_latency(ms(1))
            .max_message_latency(ms(4))
            .tcp_capacity(65536)
            .enable_random_order()
            .build();
        let (machines, store) = (Machines::new(&NAMES), Store::new());
        let runs = Rc::new(RefCell::new(0));
        let agreeing = store.clone();
        sim.host(QUORUM, move || {
            *runs.borrow_mut() += 1;
            agreeing.clone().agree(seed ^ (*runs.borrow() << 32))
        });
        for member in &MEMBERS[..members] {
            let store = store.clone();
            sim.host(*member, move || store.clone().member((*member).to_owned()));
        }
        let (uses, asks) = (Arc::default(), Arc::default());
        for (index, name) in NAMES.iter().enumerate() {
            let surroundings = (machines.node(index), Arc::clone(&uses), Arc::clone(&asks));
            sim.host(*name, move || agent(name, members, surroundings.clone()));
        }
        let chores: Rc<RefCell<VecDeque<Chore>>> = Rc::default();
        let todo = Rc::clone(&chores);
        sim.host(CHORES, move || do_chores(Rc::clone(&todo)));
        let observer = Observer::new(trace.clone());
        Self { seed, sim, machines, store, observer, uses, asks, chores, members, trace, _listening: listening }
    }

    /// As [`Self::new`], after the cluster has begun: with its leader.
    pub(super) fn whole(members: usize) -> (Self, usize) {
        let mut world = Self::new(seed(), members);
        let leader = world.becomes_whole();
        world.runs(secs(5));
        (world, leader)
    }

    // --- time -------------------------------------------------------------------------------------------------------

    /// One tick of everything.
    fn step(&mut self) {
        self.sim.step().expect("no host of the simulation fails");
        let now = self.sim.elapsed();
        let mut all = self.machines.all();
        all.step(now);
        if now.subsec_millis().is_multiple_of(10) {
            all.clients_write();
        }
        let given_back: Vec<_> = all.nodes.iter_mut().flat_map(|node| std::mem::take(&mut node.releases)).collect();
        self.observer.look(now, &all, self.store.tenure());
        drop(all);
        for tenure in given_back {
            let store = self.client();
            self.chore(async move {
                // If it is in vain, the lease ends by itself.
                store().revoke(tenure, secs(3)).await;
            });
        }
        let panics = PANICS.with_borrow(|panics| panics.join("\n"));
        assert!(panics.is_empty(), "a host panicked: {panics}");
    }

    /// Time goes on.
    pub(super) fn runs(&mut self, time: Duration) {
        let end = self.sim.elapsed() + time;
        while self.sim.elapsed() < end {
            self.step();
        }
    }

    /// Time goes on until something holds.
    #[track_caller]
    pub(super) fn runs_until(&mut self, limit: Duration, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = self.sim.elapsed() + limit;
        while !holds(self) {
            assert!(self.sim.elapsed() < end, "not within {limit:?}: {what}");
            self.step();
        }
    }

    /// Time since the beginning.
    pub(super) fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    // --- what is there ----------------------------------------------------------------------------------------------

    /// The tenure in force, as the store has it.
    pub(super) fn tenure(&self) -> Option<Tenure> {
        self.store.tenure()
    }

    /// Who acknowledges writes.
    pub(super) fn writer(&self) -> Option<usize> {
        let all = self.machines.all();
        (0..NAMES.len()).find(|node| all.nodes[*node].server.can_acknowledge())
    }

    /// The leader, if it serves and all others stream from it.
    fn leader_of_all(&self) -> Option<usize> {
        let leader = self.writer().filter(|leader| self.tenure().is_some_and(|t| t.leader == NAMES[*leader]))?;
        let all = self.machines.all();
        (0..NAMES.len()).all(|node| node == leader || all.streams(node, leader)).then_some(leader)
    }

    /// Waits until there is one leader and everybody follows it.
    #[track_caller]
    pub(super) fn becomes_whole(&mut self) -> usize {
        self.runs_until(WHOLE_WITHIN, "one leader that serves, and everybody streams from it", |world| {
            world.leader_of_all().is_some()
        });
        self.leader_of_all().expect("it was there just now")
    }

    /// Everything is as it should be, and stays so: what every scenario ends with.
    #[track_caller]
    pub(super) fn heals(&mut self) -> usize {
        let leader = self.becomes_whole();
        let tenure = self.tenure();
        self.runs(secs(2 * TTL));
        assert_eq!(self.leader_of_all(), Some(leader), "a healed cluster stays whole");
        assert_eq!(self.tenure(), tenure, "a healed cluster keeps its tenure");
        check_use(&self.uses.lock().unwrap());
        leader
    }

    /// A node that does not lead.
    pub(super) fn other(leader: usize) -> usize {
        (leader + 1) % NAMES.len()
    }

    /// The longest outage since the last call.
    pub(super) fn outage(&mut self) -> Duration {
        let now = self.now();
        self.observer.outage(now)
    }

    /// Everything that the hosts told.
    pub(super) fn lines(&self) -> Vec<String> {
        self.trace.lines().clone()
    }

    // --- what is done to it -----------------------------------------------------------------------------------------

    /// Nothing passes between two hosts; connections of before hang for ever, new ones are refused at once.
    pub(super) fn partition(&mut self, one: &str, other: &str) {
        self.sim.partition(one, other);
    }

    /// It passes again.
    pub(super) fn repair(&mut self, one: &str, other: &str) {
        self.sim.repair(one, other);
    }

    /// What one host sends to the other is lost.
    pub(super) fn partition_oneway(&mut self, from: &str, to: &str) {
        self.sim.partition_oneway(from, to);
    }

    /// It arrives again.
    pub(super) fn repair_oneway(&mut self, from: &str, to: &str) {
        self.sim.repair_oneway(from, to);
    }

    /// What is sent between two hosts waits.
    pub(super) fn hold(&mut self, one: &str, other: &str) {
        self.sim.hold(one, other);
    }

    /// It arrives now.
    pub(super) fn release(&mut self, one: &str, other: &str) {
        self.sim.release(one, other);
    }

    /// A node reaches nobody and nothing.
    pub(super) fn cut_off(&mut self, node: usize) {
        for host in self.others(node) {
            self.sim.partition(NAMES[node], host);
        }
        self.machines.all().nodes[node].is_cut_off = true;
    }

    /// It does again.
    pub(super) fn joins_again(&mut self, node: usize) {
        for host in self.others(node) {
            self.sim.repair(NAMES[node], host);
        }
        self.machines.all().nodes[node].is_cut_off = false;
    }

    fn others(&self, node: usize) -> impl Iterator<Item = &'static str> + use<> {
        NAMES.into_iter().filter(move |name| *name != NAMES[node]).chain(MEMBERS.into_iter().take(self.members))
    }

    /// Everything between two hosts takes so long, from the first message to the last.
    pub(super) fn latency(&mut self, one: &str, other: &str, latency: Duration) {
        self.sim.set_link_latency(one, other, latency);
    }

    /// An agent's process ends; PostgreSQL and guard go on.
    pub(super) fn crash_agent(&mut self, node: usize) {
        self.sim.crash(NAMES[node]);
        self.asks.lock().unwrap().remove(NAMES[node]);
        self.uses.lock().unwrap().remove(NAMES[node]);
    }

    /// An agent is started.
    pub(super) fn start_agent(&mut self, node: usize) {
        self.sim.bounce(NAMES[node]);
    }

    /// A whole machine is lost, but for its disk.
    pub(super) fn lose(&mut self, node: usize) {
        self.crash_agent(node);
        self.machines.all().lost(node);
    }

    /// The operating system asks an agent for something.
    pub(super) fn ask(&mut self, node: usize, asked: Asked) {
        let asks = self.asks.lock().unwrap();
        asks[NAMES[node]].try_send(asked).expect("the agent hears");
    }

    /// A postmaster is killed.
    pub(super) fn kill_postgres(&mut self, node: usize) {
        self.machines.all().postgres_killed(node);
    }

    /// A member of the store crashes; the others go on.
    pub(super) fn crash_member(&mut self, member: &str) {
        self.sim.crash(member);
    }

    /// A member of the store is started.
    pub(super) fn start_member(&mut self, member: &str) {
        self.sim.bounce(member);
    }

    /// The store crashes as a whole.
    pub(super) fn crash_store(&mut self) {
        self.store.stopped();
        self.sim.crash(QUORUM);
        MEMBERS[..self.members].iter().for_each(|member| self.sim.crash(*member));
    }

    /// The store is started, with what it held.
    pub(super) fn start_store(&mut self) {
        self.sim.bounce(QUORUM);
        MEMBERS[..self.members].iter().for_each(|member| self.sim.bounce(*member));
    }

    /// The store, while it is down, is replaced by an empty one.
    pub(super) fn empty_store(&mut self) {
        self.store.replace(Memory::new(2));
    }

    /// What the store holds now.
    pub(super) fn backup(&self) -> Memory {
        self.store.memory().copy()
    }

    /// The store, while it is down, gets back what it held then.
    pub(super) fn restore(&mut self, backup: &Memory) {
        self.store.replace(backup.copy());
    }

    /// Another member of the store leads.
    pub(super) fn elect(&mut self) {
        let running = self.store.running().expect("the store runs");
        self.chore(async move { running.elect().await.expect("the store answers") });
    }

    /// What a member of the store does wrong.
    pub(super) fn faults(&self, member: &str) -> Arc<Faults> {
        self.store.faults(member)
    }

    /// Work on a host of its own.
    pub(super) fn chore(&self, chore: impl Future<Output = ()> + 'static) {
        self.chores.borrow_mut().push_back(Box::pin(chore));
    }

    /// The store as an operator reaches it, from within a chore.
    pub(super) fn client(&self) -> impl Fn() -> EtcdStore + use<> {
        let hosts = hosts(self.members);
        move || EtcdStore::on_clock(hosts.clone(), None, connector(), Arc::new(SimulatedClock))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.trace.tail());
            eprintln!("seed {0}; again: MATRIARCH_TURMOIL_SEED={0} tests/turmoil NAME_OF_THE_TEST", self.seed);
        }
    }
}

impl Store {
    fn tenure(&self) -> Option<Tenure> {
        let (leader, epoch, _) = self.memory().text("/service/herd/leader")?;
        Some(Tenure { leader, epoch })
    }
}

/// Every panic counts, also one that tokio catches at the edge of a task.
fn hear_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
            before(panic);
        }));
    });
    PANICS.with_borrow_mut(Vec::clear);
}

fn hosts(members: usize) -> Vec<String> {
    MEMBERS[..members].iter().map(|member| format!("{member}:{PORT}")).collect()
}

fn configuration(name: &str, members: usize) -> LocalConfig {
    let text = json!({
        "scope": "herd",
        "name": name,
        "restapi": {"listen": format!("0.0.0.0:{REST}"), "connect_address": format!("{name}:{REST}")},
        "etcd3": {"hosts": hosts(members)},
        "bootstrap": {"dcs": {
            "ttl": TTL, "loop_wait": LOOP_WAIT, "retry_timeout": RETRY_TIMEOUT,
            "postgresql": {"use_pg_rewind": true},
        }},
        "postgresql": {
            "listen": "0.0.0.0:5432", "connect_address": format!("{name}:5432"), "data_dir": "/nowhere",
            "authentication": {"superuser": {"username": "p"}, "replication": {"username": "r"}},
        },
        "matriarch": {"recorder": {"enabled": false}},
    });
    let environment = [("PATRONI_CONFIGURATION".to_owned(), text.to_string())];
    config::load(None, environment).unwrap_or_else(|error| panic!("{error}")).config
}

type Beside = (Arc<Node>, Arc<Mutex<BTreeMap<String, Use>>>, Arc<Mutex<BTreeMap<String, mpsc::Sender<Asked>>>>);

/// One agent, as `run.rs` puts it into its host.
async fn agent(name: &'static str, members: usize, (node, uses, asks): Beside) -> turmoil::Result {
    let local = configuration(name, members);
    let dynamic = DynamicConfig::from_json(&local.bootstrap.dcs)?;
    let effective = setup::effective(&local, &dynamic.0, dynamic.1, 15);
    let (ask, asked) = mpsc::channel(8);
    asks.lock().unwrap().insert(name.to_owned(), ask);
    let guard = node.finder();
    let found = guard.find().await?;
    tokio::spawn(async move {
        loop {
            let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
            let connections = turmoil::established_tcp_stream_count_on(name);
            uses.lock().unwrap().insert(name.to_owned(), Use { tasks, connections });
            sleep(ms(500)).await;
        }
    });
    let around = Surroundings {
        clock: Arc::new(SimulatedClock),
        connector: connector(),
        listener: listen(REST).await?,
        postgres: node.clone(),
        promises: node,
        in_force: None,
        guard,
        asked,
        reload: Box::new(move || Box::pin(std::future::ready(Some(configuration(name, members))))),
        service: ServiceManager::none(),
    };
    live(around, local, effective.core, 15, Some(found)).await?;
    Ok(())
}

async fn do_chores(todo: Rc<RefCell<VecDeque<Chore>>>) -> turmoil::Result {
    loop {
        while let Some(chore) = { todo.borrow_mut().pop_front() } {
            tokio::task::spawn_local(chore);
        }
        sleep(ms(1)).await;
    }
}
