//! A node: a host with its clock, its small files, its PostgreSQL, the guard, and the agent while one runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use matriarch_core::action::{PostgresAction, StoreAction};
use matriarch_core::config::Config;
use matriarch_core::event::{EpochFile, Event};
use matriarch_core::horizon::{Floor, Horizon, Standing};
use matriarch_core::id::{LeaseId, Lsn, Member, OpId, Pid, RequestId, Revision};
use matriarch_core::op::Outcome;
use matriarch_core::state::State;
use matriarch_core::time::Instant;
use matriarch_core::view::guard::Armed;
use matriarch_core::view::peers::PeerAnswer;
use matriarch_core::view::postgres::{Process, Sql};
use matriarch_core::view::store::ClusterView;

use crate::fault::Dynamic;
use crate::guard::Guard;
use crate::postgres::Server;
use crate::postgres::wal::Place;
use crate::settings::Settings;
use crate::store::Reply;
use crate::time::{Clock, Time, ms};
use crate::world::{Due, PERMANENT_SLOT};

/// The number of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub usize);

/// The name of a node: a, b, c, ...
pub fn name(node: NodeId) -> Member {
    Member(char::from(b'a' + node.0 as u8).to_string())
}

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// Its clocks.
    pub clock: Clock,
    /// The host runs.
    pub up: bool,
    /// It stands still: its clocks go on, nothing else does.
    pub suspended: bool,
    /// Whoever stops PostgreSQL now starts it again by hand.
    pub started_by_hand: bool,
    /// What happens once it goes on.
    pub asleep: Vec<Due>,
    /// When it went on last.
    pub woke: Option<Time>,
    /// What is on its disk beside PostgreSQL.
    pub files: Files,
    /// PostgreSQL.
    pub server: Server,
    /// What happens to PostgreSQL once it goes on.
    pub deferred: Vec<Due>,
    /// The guard, while one runs.
    pub guard: Option<Guard>,
    /// The agent, while one runs.
    pub agent: Option<Agent>,
    /// How many agents have been started here.
    pub boots: u32,
    /// When the last of them was.
    pub booted: Time,
    /// The configuration that an agent starts with.
    pub config: Config,
}

/// The small files of the state directory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Files {
    /// `epoch`.
    pub epoch: Option<EpochFile>,
    /// `promises`.
    pub pledge: Option<Revision>,
    /// Nothing can be written.
    pub full: bool,
    /// The data directory cannot be read.
    pub hidden: bool,
    /// Tools that write a data directory end with an error.
    pub tools_fail: bool,
    /// What is being written: whole or not at all, since it is renamed into place once it is on disk.
    pub writing: Vec<(OpId, File)>,
}

impl Files {
    /// A file is in its place.
    pub fn put(&mut self, file: File) {
        match file {
            File::Epoch(file) => self.epoch = Some(file),
            File::Pledge(pledge) => self.pledge = pledge,
        }
    }
}

/// A running agent: core's state, and what the runtime keeps around it.
#[derive(Debug)]
pub struct Agent {
    /// Which one it is: whatever was meant for an earlier one never reaches it.
    pub boot: u32,
    /// What core remembers.
    pub state: State,
    /// The number of the wake-up that counts.
    pub wake: u64,
    /// SIGSTOP.
    pub frozen: bool,
    /// What has come in while it was frozen.
    pub inbox: VecDeque<Message>,
    /// Requests to the store.
    pub calls: BTreeMap<u64, Call>,
    /// Work on PostgreSQL, by its order.
    pub jobs: BTreeMap<OpId, Job>,
    /// What PostgreSQL was asked, and has not answered.
    pub monitoring: BTreeSet<OpId>,
    /// Questions to other agents.
    pub questions: BTreeMap<OpId, Question>,
    /// Who asked for our position, by the request that core answers.
    pub asked: BTreeMap<RequestId, Asker>,
    /// Those that wait for a position to be replayed here.
    pub waiters: Vec<(Asker, Lsn)>,
    /// The last request number.
    pub requests: u64,
    /// The keys as this agent knows them.
    pub mirror: Rc<ClusterView>,
    /// The configuration that it goes by, once there was one.
    pub config_seen: Option<Dynamic>,
    /// How far it knows the store to have come.
    pub horizon: Horizon<usize>,
    /// The member of the store that is asked first.
    pub member: usize,
    /// Its watches.
    pub watches: [Watch; 2],
    /// When the last order reaches the guard, and its last report the agent: they keep their order.
    pub guard_told: Time,
    /// Likewise.
    pub guard_heard: Time,
    /// What the guard is known to be armed for.
    pub armed: Option<LeaseId>,
    /// The first look that counts: one that an earlier one overtook is not told.
    pub looks: (u64, u64),
    /// It has left.
    pub left: bool,
}

/// A watch through a member of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Watch {
    /// Through which; `None`: it is broken.
    pub member: Option<usize>,
    /// Nothing comes before this: messages keep their order.
    pub last: Time,
}

/// A request to the store.
#[derive(Clone, Debug)]
pub struct Call {
    /// Whose: core's order, or none for the feed's own read.
    pub op: Option<OpId>,
    /// What was ordered.
    pub action: StoreAction,
    /// When its first half was handed to the connection.
    pub asked: Instant,
    /// Through which member.
    pub member: usize,
    /// What no answer may lie before.
    pub floor: Floor,
    /// The ttl that its first half was told.
    pub kept: Option<std::time::Duration>,
}

/// Work on PostgreSQL.
#[derive(Clone, Debug)]
pub struct Job {
    /// What was ordered.
    pub action: PostgresAction,
    /// Until when it may make PostgreSQL writable.
    pub under: Option<Armed>,
    /// How far it is.
    pub stage: Stage,
    /// The postmaster that it began with or brought up.
    pub pid: Option<Pid>,
    /// It has put the signal file aside, to put it back at its end.
    pub signal_aside: bool,
    /// What a clone or a rewind copies from, as it was when it began. It hangs on that postmaster's connections.
    pub source: Option<Source>,
}

/// What a tool copies from, as it was when the tool began.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Its postmaster: the copy ends with an error when that does.
    pub pid: Pid,
    /// The WAL that it had written, which comes with the files.
    pub flushed: Place,
}

/// How far work on PostgreSQL is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Files are written, a tool runs.
    Preparing,
    /// PostgreSQL is on its way down.
    Stopping,
    /// PostgreSQL is on its way up.
    Starting,
    /// PostgreSQL does it.
    Waiting,
}

/// Whoever asked, to be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asker {
    /// The node.
    pub node: NodeId,
    /// Its agent.
    pub boot: u32,
    /// Its order.
    pub op: OpId,
}

/// A question to another agent.
#[derive(Clone, Debug)]
pub struct Question {
    /// The kind of the order.
    pub kind: &'static str,
    /// Whom.
    pub member: Member,
    /// When.
    pub asked: Instant,
}

/// What another agent is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerQuestion {
    /// To freeze, and its position.
    Position {
        /// The leader key was absent at this revision.
        absent_at: Revision,
    },
    /// How it is.
    Status,
    /// To tell when it has replayed beyond a position.
    Replayed {
        /// The position.
        beyond: Lsn,
        /// How long it may wait.
        limit: std::time::Duration,
    },
}

/// What reaches an agent.
#[derive(Debug)]
pub enum Message {
    /// An event of core, as it is.
    Event(Box<Event>),
    /// The instant that core asked for.
    Wake(u64),
    /// The store answered.
    Reply {
        /// Which request.
        call: u64,
        /// What.
        reply: Reply,
        /// What the store told of itself.
        told: Standing,
    },
    /// The store cannot be reached: the connection was refused.
    Unreachable {
        /// Which request.
        call: u64,
    },
    /// A request takes too long.
    TimedOut {
        /// Which.
        call: u64,
    },
    /// The keys, by a watch.
    Watched {
        /// By which.
        watch: usize,
        /// The keys.
        view: Rc<ClusterView>,
    },
    /// A watch is broken.
    WatchLost {
        /// Which.
        watch: usize,
    },
    /// The keys are to be read, and watches begun anew.
    Feed,
    /// PostgreSQL is to be looked at.
    Look,
    /// The process was looked at, the directory is next.
    Looked {
        /// Which look.
        number: u64,
        /// What it found.
        process: Process,
    },
    /// Work on PostgreSQL goes on with its next stage.
    Job(OpId),
    /// Work on PostgreSQL is over.
    JobDone(OpId, Outcome<matriarch_core::event::PostgresDone>),
    /// The monitoring query is over.
    Observed {
        /// The order.
        op: OpId,
        /// What PostgreSQL said, and when it was asked.
        sql: Option<(Box<Sql>, Instant)>,
    },
    /// A small file was written, or not.
    Written {
        /// The order.
        op: OpId,
    },
    /// Another agent asks.
    Asked {
        /// Who.
        asker: Asker,
        /// What.
        question: PeerQuestion,
    },
    /// Another agent waits no longer.
    WaitedLongEnough(Asker),
    /// Another agent answered, or the question is too old.
    Answered {
        /// The order.
        op: OpId,
        /// What it said.
        outcome: Outcome<PeerAnswer>,
    },
    /// A guard was started or found.
    GuardReached,
    /// An order that was decided when the agent was frozen.
    Order(Box<matriarch_core::effects::Order>),
    /// The operator asks.
    Operator(matriarch_core::event::Request),
}

impl Message {
    /// An event of core.
    pub fn event(event: Event) -> Self {
        Self::Event(Box::new(event))
    }
}

/// A small file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum File {
    /// `epoch`.
    Epoch(EpochFile),
    /// `promises`.
    Pledge(Option<Revision>),
}

impl Node {
    /// A new host with an empty disk.
    pub fn new(id: NodeId, clock: Clock, settings: &Settings) -> Self {
        Self {
            id,
            clock,
            up: true,
            suspended: false,
            started_by_hand: false,
            asleep: Vec::new(),
            woke: None,
            files: Files::default(),
            server: Server::new(),
            deferred: Vec::new(),
            guard: None,
            agent: None,
            boots: 0,
            booted: Time(0),
            config: config(id, settings),
        }
    }

    /// The agent, if it runs and is not frozen.
    pub fn awake(&self) -> Option<&Agent> {
        self.agent.as_ref().filter(|agent| !agent.frozen && !self.suspended)
    }

    /// How far this server is, if it holds a whole database cluster.
    pub fn place(&self) -> Option<Place> {
        self.server.cluster().filter(|on_disk| on_disk.tainted.is_none()).map(|on_disk| on_disk.end)
    }
}

impl Agent {
    /// An agent that has just been started.
    pub fn new(boot: u32, config: Config, at: Instant, first_member: usize) -> Self {
        let mut horizon = Horizon::default();
        horizon.allow_tenure(config.ttl);
        Self {
            boot,
            horizon,
            config_seen: None,
            state: State::new(config, at),
            wake: 0,
            frozen: false,
            inbox: VecDeque::new(),
            calls: BTreeMap::new(),
            jobs: BTreeMap::new(),
            monitoring: BTreeSet::new(),
            questions: BTreeMap::new(),
            asked: BTreeMap::new(),
            waiters: Vec::new(),
            requests: 0,
            mirror: Rc::default(),
            member: first_member,
            watches: [Watch::default(); 2],
            guard_told: Time(0),
            guard_heard: Time(0),
            armed: None,
            looks: (0, 0),
            left: false,
        }
    }

    /// A view goes into the copy of the keys, unless that is newer; the copy. What was read counts at the same revision too:
    /// a store that was restored unseen may have come to it by another write.
    pub fn mirrors(&mut self, view: ClusterView, rollbacks: u64) -> ClusterView {
        if (rollbacks, view.revision) >= (self.mirror.rollbacks, self.mirror.revision) {
            self.mirror = Rc::new(ClusterView { rollbacks, ..view });
        }
        ClusterView::clone(&self.mirror)
    }
}

fn config(id: NodeId, settings: &Settings) -> Config {
    let priority = settings.failover_priority.filter(|(who, _)| *who == id.0).map_or(1, |(_, priority)| priority);
    Config {
        ttl: ms(settings.ttl_ms),
        loop_wait: ms(settings.loop_wait_ms),
        retry_timeout: ms(settings.retry_timeout_ms),
        maximum_lag_on_failover_bytes: settings.maximum_lag_bytes,
        primary_start_timeout: ms(settings.primary_start_timeout_ms),
        // Priority 0 is the same tag by another name.
        nofailover: settings.nofailover == Some(id.0) || priority == 0,
        failover_priority: priority,
        nostream: settings.nostream == Some(id.0),
        clonefrom: settings.clonefrom == Some(id.0),
        replicatefrom: settings.replicatefrom.filter(|(who, _)| *who == id.0).map(|(_, from)| name(NodeId(from))),
        permanent_slots: settings.permanent_slot.then(|| PERMANENT_SLOT.to_owned()).into_iter().collect(),
        use_pg_rewind: settings.use_pg_rewind,
        clone_when_diverged: settings.clone_when_diverged,
        clone_when_rewind_fails: settings.clone_when_rewind_fails,
        isolation_timeout: ms(settings.isolation_timeout_ms),
        ..Config::usual(&name(id).0)
    }
}
