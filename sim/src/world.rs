//! The world: everything that happens, in the order of true time, one thing after the other on one thread.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::rc::Rc;

use matriarch_core::action::GuardAction;
use matriarch_core::event::{Event, Request};
use matriarch_core::id::{Lsn, Member, OpId, Pid, Revision};
use matriarch_core::time::{Duration, Instant, Seen};
use matriarch_core::view::store::ClusterView;

use crate::check::{Checks, INVARIANTS, Violation};
use crate::client::{Client, Ledger, Said};
use crate::coverage::Coverage;
use crate::fault::{Dynamic, Plan, Watching, host_of};
use crate::mutant::Mutant;
use crate::net::{Link, Net, Waiting};
use crate::node::{Message, Node, NodeId, name};
use crate::postgres::Pace;
use crate::postgres::wal::{Place, Serial, Wal};
use crate::random::Stream;
use crate::run::Class;
use crate::settings::Settings;
use crate::store::hands::Backup;
use crate::store::{Request as StoreRequest, Store, Unguarded};
use crate::time::{Clock, Time};
use crate::trace::Trace;

/// What happens at some time.
#[derive(Debug)]
pub enum Due {
    /// Something reaches an agent.
    Agent {
        /// Where.
        node: NodeId,
        /// Which agent; another one never hears of it. 0: whichever runs.
        boot: u32,
        /// What.
        message: Box<Message>,
    },
    /// A request reaches a member of the store.
    Store {
        /// Whose.
        node: NodeId,
        /// Of which agent.
        boot: u32,
        /// Its number.
        call: u64,
        /// Which member.
        member: usize,
        /// What.
        request: StoreRequest,
    },
    /// The next lease may have ended.
    LeaseEnds,
    /// The store has elected a leader.
    StoreElected,
    /// An order reaches the guard.
    Guard {
        /// Where.
        node: NodeId,
        /// From which agent.
        boot: u32,
        /// What.
        order: GuardAction,
        /// What the agent knows to be armed.
        instead_of: Option<matriarch_core::id::LeaseId>,
    },
    /// The guard looks at the clock.
    GuardWakes {
        /// Where.
        node: NodeId,
        /// By which timer.
        timer: u64,
    },
    /// The guard has done what it does to processes.
    GuardDone {
        /// Where.
        node: NodeId,
        /// What.
        what: GuardDeed,
    },
    /// The guard's command gives the tenure back.
    GuardReleases {
        /// Where.
        node: NodeId,
        /// Which tenure.
        tenure: matriarch_core::id::LeaseId,
        /// How often it was tried.
        tries: u32,
    },
    /// A postmaster has got so far.
    Server {
        /// Where.
        node: NodeId,
        /// Which.
        pid: Pid,
        /// How far.
        what: ServerStep,
    },
    /// Orphans end by themselves.
    OrphansEnd {
        /// Where.
        node: NodeId,
    },
    /// WAL reaches a standby.
    Wal {
        /// Which.
        node: NodeId,
        /// Its postmaster.
        pid: Pid,
        /// From whom.
        from: NodeId,
        /// Of which postmaster.
        from_pid: Pid,
        /// Up to where.
        to: Place,
    },
    /// A standby has made sure of what it received.
    WalFlushed {
        /// Which.
        node: NodeId,
        /// Its postmaster.
        pid: Pid,
    },
    /// A WAL sender finds out that its standby's postmaster is gone.
    SenderLost {
        /// Whose sender.
        node: NodeId,
        /// Of which postmaster.
        pid: Pid,
        /// Whose it was.
        to: NodeId,
        /// When it had connected.
        connected: Time,
    },
    /// A standby says what it has on disk.
    WalReply {
        /// To whom.
        node: NodeId,
        /// To which postmaster.
        pid: Pid,
        /// Who says it.
        from: NodeId,
        /// What it has.
        flushed: Place,
    },
    /// A client turns to its server.
    Client(usize),
    /// A commit reaches its server.
    Commit {
        /// Whose.
        client: usize,
        /// Which.
        serial: Serial,
    },
    /// What its server says of a commit reaches a client.
    CommitReply {
        /// Which client.
        client: usize,
        /// Of which commit.
        serial: Serial,
        /// What.
        said: Said,
    },
    /// A fault begins.
    Fault(usize),
    /// A fault ends.
    FaultEnds(usize),
    /// A backup of the store is taken.
    Backup,
    /// An operator starts PostgreSQL behind the agent's back, if nothing runs.
    OperatorStarts {
        /// Where.
        node: NodeId,
    },
    /// An agent is started, if none runs.
    StartAgent(NodeId),
    /// The faults are over: everything heals.
    Heal,
}

impl Due {
    /// Something reaches an agent.
    pub fn agent(node: NodeId, boot: u32, message: Message) -> Self {
        Self::Agent { node, boot, message: Box::new(message) }
    }
}

/// What a guard does to processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuardDeed {
    /// All of them stand still.
    Stopped,
    /// All of them are dead.
    Dead,
    /// All of them are held.
    Held,
    /// They go on.
    Resumed,
    /// Nothing is left of a dead postmaster.
    OrphansDead,
}

/// How far a postmaster has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerStep {
    /// It has recovered what is on its disk.
    Recovered,
    /// It was promoted.
    Promoted,
    /// It has written the checkpoint of its shutdown.
    ShutDown,
    /// Its receiver tries to connect.
    Connect,
    /// A stream of its receiver's is broken off.
    StreamLost {
        /// From whom.
        from: NodeId,
        /// When it had connected.
        connected: Time,
    },
    /// A crash in place is over: every process but the postmaster was killed, and the WAL replayed.
    RecoveredInPlace,
    /// It waits for its senders no longer.
    GiveUpDraining,
    /// SIGQUIT that came while its processes stood still.
    Quit,
    /// An agent asks it how it is.
    Asked {
        /// The order.
        op: OpId,
        /// Of which agent.
        boot: u32,
        /// When it was asked, by the agent's clock.
        asked: Instant,
        /// How long the answer takes.
        back: Duration,
    },
}

struct Entry(Time, u64, Due);

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// Everything.
pub struct World {
    /// True time.
    pub now: Time,
    due: BinaryHeap<Reverse<Entry>>,
    sequence: u64,
    /// What it is made of.
    pub settings: Settings,
    /// How long PostgreSQL takes.
    pub pace: Pace,
    /// The names of all nodes.
    pub names: Vec<Member>,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// All WAL.
    pub wal: Wal,
    /// The store.
    pub store: Store,
    /// Its members.
    pub members: Vec<StoreMember>,
    /// The member that leads; `None` while none is elected.
    pub store_leader: Option<usize>,
    /// One that has led and does not see most of the others any more, and until when it does not know that.
    pub lonely: Option<(usize, Time)>,
    /// Its raft term.
    pub term: u64,
    /// Its backups, if one will be wanted.
    pub backups: VecDeque<Backup>,
    /// The dynamic configurations since each revision of the store, once it was changed.
    pub dynamic: BTreeMap<Revision, Dynamic>,
    /// Requests that wait for the store to elect.
    pub store_waiting: Vec<Due>,
    /// When the store looks for leases that are over.
    pub lease_check: Option<Time>,
    /// The revision that watches have told of.
    pub told: Revision,
    /// The network.
    pub net: Net,
    /// What waits for its link.
    pub waiting: Vec<Waiting<Due>>,
    /// The clients.
    pub clients: Vec<Client>,
    /// What they were told.
    pub ledger: Ledger,
    /// Whoever reads through the permanent slot.
    pub consumer: Consumer,
    /// The faults.
    pub plan: Plan,
    /// Faults that wait for an order.
    pub watching: Vec<Watching>,
    /// The faults are over.
    pub healed: Option<Time>,
    /// A planted bug.
    pub mutant: Option<Mutant>,
    /// What it remembers of each node's keys.
    pub remembered: Vec<Option<Seen<ClusterView>>>,
    /// The next request number of a store call.
    pub calls: u64,
    /// How long things of a host take.
    pub host_random: Stream,
    /// How long things of PostgreSQL take.
    pub postgres_random: Stream,
    /// When the store gets to expiring.
    pub store_random: Stream,
    /// When clients commit.
    pub client_random: Stream,
    /// How long what they are told takes.
    pub reply_random: Stream,
    /// What must hold.
    pub checks: Checks,
    /// The first violation.
    pub violation: Option<Violation>,
    /// Only what must never happen counts.
    pub safety_alone: bool,
    /// What has been seen to happen.
    pub coverage: Coverage,
    /// What happened, for whoever reads it.
    pub trace: Trace,
    /// Steps of core.
    pub steps: u64,
    /// Things that happened.
    pub events: u64,
    /// A script drives the world: agents decide nothing, and what they would have been told is here.
    pub scripted: Option<Vec<(NodeId, Event)>>,
}

/// The slot that the operator wants for good, where the settings say so.
pub const PERMANENT_SLOT: &str = "archive";

/// Whoever reads WAL through the permanent slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Consumer {
    /// What it was sent last, and from where.
    pub sent: Option<(NodeId, Lsn)>,
    /// The furthest that it has ever confirmed.
    pub confirmed: Lsn,
}

/// A member of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreMember {
    /// It runs.
    pub up: bool,
    /// It stands still.
    pub frozen: bool,
}

impl World {
    /// The world of a plan, before anything happens.
    pub fn new(plan: Plan, mutant: Option<Mutant>, trace: Trace) -> Self {
        let (seed, settings) = (plan.seed, plan.settings.clone());
        let mut hosts = Stream::new(seed, "hosts");
        let clock = |random: &mut Stream| Clock {
            offset_ns: random.between(1_000_000_000, 1_000_000_000_000) as i64,
            rate_ppm: random.between(0, 2 * settings.clock_ppm) as i64 - settings.clock_ppm as i64,
            wall_off_ms: random.between(0, 20_000) as i64 - 10_000,
        };
        let ids = (0..settings.nodes).map(NodeId);
        let nodes: Vec<Node> = ids.map(|id| Node::new(id, clock(&mut hosts), &settings)).collect();
        let clients = (0..settings.nodes).map(|node| Client::new(NodeId(node))).collect();
        let mut world = Self {
            now: Time(0),
            due: BinaryHeap::new(),
            sequence: 0,
            pace: Pace::of(&settings),
            names: (0..settings.nodes).map(|node| name(NodeId(node))).collect(),
            wal: Wal::default(),
            store: Store::new(Duration::from_secs(2)),
            members: vec![StoreMember { up: true, frozen: false }; settings.store_members],
            store_leader: Some(0),
            lonely: None,
            term: 1,
            backups: VecDeque::new(),
            dynamic: BTreeMap::new(),
            store_waiting: Vec::new(),
            lease_check: None,
            told: Revision(0),
            net: Net::new(settings.delay_us, Stream::new(seed, "net")),
            waiting: Vec::new(),
            clients,
            ledger: Ledger::default(),
            consumer: Consumer::default(),
            watching: Vec::new(),
            healed: None,
            mutant,
            remembered: vec![None; settings.nodes],
            calls: 0,
            host_random: Stream::new(seed, "host"),
            postgres_random: Stream::new(seed, "postgres"),
            store_random: Stream::new(seed, "store"),
            client_random: Stream::new(seed, "client"),
            reply_random: Stream::new(seed, "replies"),
            checks: Checks::default(),
            violation: None,
            safety_alone: false,
            coverage: Coverage::default(),
            trace,
            steps: 0,
            events: 0,
            scripted: None,
            nodes,
            settings,
            plan,
        };
        world.store.unguarded = match mutant {
            Some(Mutant::AcquireUnguarded) => Some(Unguarded::Acquire),
            Some(Mutant::ReleaseUnguarded) => Some(Unguarded::Release),
            Some(Mutant::InitializeUnguarded) => Some(Unguarded::Initialize),
            Some(Mutant::StatusUnguarded) => Some(Unguarded::Status),
            _ => None,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for node in 0..self.nodes.len() {
            let wait = Duration::from_millis(self.host_random.between(0, 2000));
            self.at(self.now + wait, Due::StartAgent(NodeId(node)));
        }
        for client in 0..self.clients.len() {
            self.at(self.now + Duration::from_millis(500), Due::Client(client));
        }
        self.schedule_faults();
        if self.plan.restores_the_store() {
            self.take_backup();
        }
        self.at(Time::from_ms(self.settings.faults_ms), Due::Heal);
    }

    /// Has something happen at a time.
    pub fn at(&mut self, time: Time, what: Due) {
        self.sequence += 1;
        self.due.push(Reverse(Entry(time.max(self.now), self.sequence, what)));
    }

    /// Has something happen after a while.
    pub fn later(&mut self, wait: Duration, what: Due) {
        self.at(self.now + wait, what);
    }

    /// Sends something over a link.
    pub fn send(&mut self, link: Link, what: Due) {
        if self.net.is_cut(link) {
            self.waiting.push(Waiting { link, since: self.now, what });
            return;
        }
        if self.net.loses() {
            self.connection_lost(what);
            return;
        }
        let delay = self.net.delay();
        if let Some(again) = self.asked_again(&what) {
            self.later(delay * 2, again);
        }
        self.later(delay, what);
    }

    /// A question to another agent that is asked once more because its connection went away beneath it. Where it had
    /// arrived before, it comes twice.
    fn asked_again(&mut self, what: &Due) -> Option<Due> {
        let Due::Agent { node, boot, message } = what else { return None };
        let Message::Asked { asker, question } = **message else { return None };
        self.net.loses().then(|| Due::agent(*node, *boot, Message::Asked { asker, question }))
    }

    /// The same, where it is known how long it takes if nothing is cut.
    pub fn send_after(&mut self, link: Link, delay: Duration, what: Due) {
        if self.net.is_cut(link) {
            self.waiting.push(Waiting { link, since: self.now, what });
        } else if self.net.loses() {
            self.connection_lost(what);
        } else {
            self.later(delay, what);
        }
    }

    /// Runs to the end of the plan, or to the first violation.
    pub fn run(&mut self) {
        self.run_until(Time::from_ms(self.settings.faults_ms + self.settings.calm_ms));
        if self.violation.is_none() {
            self.check_at_the_end();
        }
    }

    /// Runs to a time, or to the first violation.
    pub fn run_until(&mut self, end: Time) {
        while self.violation.is_none() {
            match self.due.peek() {
                Some(Reverse(Entry(time, _, _))) if *time <= end => {}
                _ => break,
            }
            let Some(Reverse(Entry(time, _, what))) = self.due.pop() else { break };
            self.now = time;
            self.events += 1;
            self.happens(what);
            self.look_around();
            self.check_after_event();
        }
        if self.violation.is_none() {
            self.now = end;
        }
    }

    fn happens(&mut self, what: Due) {
        // What is to happen on a suspended host happens when it goes on.
        if let Some(node) = host_of(&what).filter(|node| self.nodes[node.0].suspended) {
            self.nodes[node.0].asleep.push(what);
            return;
        }
        match what {
            Due::Agent { node, boot, message } => self.reaches_agent(node, boot, *message),
            Due::Store { .. } => self.reaches_store(what),
            Due::LeaseEnds => self.leases_end(),
            Due::StoreElected => self.store_elected(),
            Due::Guard { node, boot, order, instead_of } => self.guard_ordered(node, boot, &order, instead_of),
            Due::GuardWakes { node, timer } => self.guard_wakes(node, timer),
            Due::GuardDone { node, what } => self.guard_done(node, what),
            Due::GuardReleases { node, tenure, tries } => self.guard_releases(node, tenure, tries),
            Due::Server { node, pid, what } => self.server_step(node, pid, what),
            Due::OrphansEnd { node } => self.orphans_end(node),
            Due::Wal { node, pid, from, from_pid, to } => self.wal_arrives(node, pid, (from, from_pid), to),
            Due::WalFlushed { node, pid } => self.wal_flushed(node, pid),
            Due::SenderLost { node, pid, to, connected } => self.sender_lost(node, pid, to, connected),
            Due::OperatorStarts { node } => self.operator_starts(node),
            Due::WalReply { node, pid, from, flushed } => self.wal_confirmed(node, pid, from, flushed),
            Due::Client(client) => self.client_turns(client),
            Due::Commit { client, serial } => self.commit_arrives(client, serial),
            Due::CommitReply { client, serial, said } => self.client_hears(client, serial, said),
            Due::Fault(index) => self.fault_begins(index),
            Due::FaultEnds(index) => self.fault_ends(index),
            Due::StartAgent(node) => self.start_agent(node),
            Due::Backup => self.take_backup(),
            Due::Heal => self.heal(),
        }
    }

    /// What a node's CLOCK_BOOTTIME shows.
    pub fn clock(&self, node: NodeId) -> Instant {
        self.nodes[node.0].clock.read(self.now)
    }

    /// Sends a message to the agent that runs on a node now, without the network.
    pub fn tell(&mut self, node: NodeId, wait: Duration, message: Message) {
        if let Some(agent) = &self.nodes[node.0].agent {
            let boot = agent.boot;
            self.later(wait, Due::agent(node, boot, message));
        }
    }

    /// An operator asks a node's agent.
    pub fn operator_asks(&mut self, node: NodeId, request: Request) {
        self.tell(node, Duration::from_millis(1), Message::Operator(request));
    }

    /// A draw between two numbers of milliseconds, for something that PostgreSQL does.
    pub fn takes(&mut self, (low, high): (u64, u64)) -> Duration {
        Duration::from_micros(self.postgres_random.between(low * 1000, high * 1000))
    }

    /// The keys as they are in the store.
    pub fn keys(&self) -> Rc<ClusterView> {
        Rc::clone(self.store.keys())
    }

    /// Names a violation, if it is the first.
    pub fn violated(&mut self, invariant: &'static str, what: String) {
        assert!(INVARIANTS.contains(&invariant), "{invariant} has no column in the kill matrix");
        let violation = Violation { invariant, at: self.now, what };
        if self.violation.is_none() && !(self.safety_alone && violation.class() == Class::Liveness) {
            self.violation = Some(violation);
        }
    }
}
