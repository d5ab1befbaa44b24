//! The small world: two agents with core's own `State`, a store, and whatever is on its way between them.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use matriarch_core::action::{GuardAction, PostgresAction};
use matriarch_core::config::Config;
use matriarch_core::effects::Decision;
use matriarch_core::event::{EpochFile, GuardEvent, StoreDone};
use matriarch_core::id::{LeaseId, Member, OpId, Pid, RequestId, Revision};
use matriarch_core::op::Outcome;
use matriarch_core::state::State;
use matriarch_core::time::Instant;
use matriarch_core::view::guard::Armed;
use matriarch_core::view::peers::PeerAnswer;
use matriarch_core::view::postgres::Phase;
use matriarch_core::view::store::ClusterView;
use serde::{Serialize, Serializer};

use super::moves::Fault;
use super::server::Server;
use crate::guard::Guard;
use crate::mutant::Mutant;
use crate::store::{Request, Store, Unguarded};
use crate::time::{Time, ms};

/// What separates what changes facts from what was before it at nearly the same time.
const TICK: Duration = Duration::from_micros(1);
/// More than this without time passing is a busy loop.
const BURST_MAX: u32 = 2000;

/// What is shared between a world and those that follow from it until one of them changes it.
#[derive(Clone, Debug)]
pub(super) struct Shared<T>(Rc<T>);

impl<T> Shared<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Rc::new(value))
    }
}

impl<T> std::ops::Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> std::ops::DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Rc::make_mut(&mut self.0)
    }
}

impl<T: Serialize> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// A host with its agent, its guard and its server.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Node {
    pub(super) agent: Option<Agent>,
    pub(super) boots: u32,
    pub(super) server: Server,
    pub(super) guard: Option<Guard>,
    /// Since when it accepts writes and no guard is armed.
    pub(super) exposed: Option<Time>,
    pub(super) epoch: Option<EpochFile>,
    pub(super) pledge: Option<Revision>,
    /// Nothing passes between it and the store, the other agent, the other server.
    pub(super) cut: bool,
}

/// An agent.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Agent {
    pub(super) boot: u32,
    pub(super) state: State,
    /// When core wants to be asked again.
    pub(super) wake: Option<Instant>,
    /// SIGSTOP.
    pub(super) frozen: bool,
    /// The tenure that the guard is known to be armed for.
    pub(super) armed: Option<LeaseId>,
    /// Who asked for the position, by the request that core answers.
    pub(super) asked: BTreeMap<RequestId, (usize, u32, OpId, Instant)>,
    pub(super) requests: u64,
    /// Work on PostgreSQL that waits for it.
    pub(super) job: Option<Job>,
}

/// Work on PostgreSQL that is under way.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Job {
    pub(super) op: OpId,
    pub(super) action: PostgresAction,
    pub(super) under: Option<Armed>,
    /// The postmaster that it brought up or works on.
    pub(super) pid: Option<Pid>,
}

/// What is on its way.
#[derive(Clone, Debug, Serialize)]
#[expect(clippy::large_enum_variant, reason = "it is always behind a pointer")]
pub(super) enum Message {
    /// The instant that core asked for.
    Tick { node: usize },
    /// To the store.
    Request { node: usize, boot: u32, op: OpId, asked: Instant, ask: Ask },
    /// From the store.
    Reply { node: usize, op: OpId, asked: Instant, outcome: Outcome<StoreDone> },
    /// The keys, by a watch.
    Watch { node: usize, view: Shared<ClusterView> },
    /// An order for PostgreSQL that is decided and not begun: it waits while the agent is frozen.
    Execute { node: usize, op: OpId, action: PostgresAction, under: Option<Armed> },
    /// The monitoring query.
    Observe { node: usize, op: OpId, asked: Instant },
    /// The process and the directory are looked at.
    Look { node: usize },
    /// A small file is written.
    Write { node: usize, op: OpId, file: File },
    /// A postmaster has got further.
    Server { node: usize, pid: Pid, step: ServerStep },
    /// An order to the guard.
    Order { node: usize, boot: u32, order: GuardAction, instead_of: Option<LeaseId> },
    /// From the guard.
    Report { node: usize, event: GuardEvent },
    /// A guard was found or started.
    GuardReached { node: usize },
    /// The guard looks at the clock.
    GuardWakes { node: usize },
    /// The store looks at its leases.
    LeasesEnd,
    /// To the other agent.
    Question { from: usize, boot: u32, op: OpId, asked: Instant, question: Question },
    /// From the other agent.
    Answer { node: usize, op: OpId, asked: Instant, outcome: Outcome<PeerAnswer> },
}

/// What the store is asked.
#[derive(Clone, Debug, Serialize)]
pub(super) enum Ask {
    /// One request.
    One(Request),
    /// A renewal: both of its halves at once.
    Renew { lease: LeaseId, epoch: Revision },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) enum File {
    Epoch(EpochFile),
    Pledge(Option<Revision>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) enum ServerStep {
    Recovered,
    Promoted,
    ShutDown,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) enum Question {
    Position { absent_at: Revision },
    Status,
    Replayed,
}

/// What has gone wrong on the way here, as far as it forbids what else may.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(super) struct Past {
    /// The leader key went early.
    pub(super) early: bool,
    /// Somebody could not hear, or could not act on what it heard.
    pub(super) deaf: bool,
    /// A guard was killed.
    pub(super) unguarded: bool,
    /// An agent was killed or frozen.
    pub(super) agent: bool,
    /// An operator has asked for something.
    pub(super) operated: bool,
}

/// Something that must not be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// Which invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

/// Everything. True time and the clocks of both hosts are the same here: clocks that run wrong are the large world's.
#[derive(Clone, Debug, Serialize)]
pub(super) struct World {
    pub(super) now: Time,
    pub(super) nodes: [Shared<Node>; 2],
    pub(super) store: Shared<Store>,
    /// What is on its way, in the order in which it was sent.
    pub(super) queue: Vec<Shared<Message>>,
    /// What is late: it may come at any time.
    pub(super) late: Vec<Shared<Message>>,
    /// Faults that may still come.
    pub(super) faults: u8,
    pub(super) past: Past,
    /// Leases whose key went early.
    pub(super) early: BTreeSet<LeaseId>,
    /// The revision that watches have told of.
    #[serde(skip)]
    pub(super) told: Revision,
    /// Timers ring at the next multiple of this: late, as timers do, and never early. The coarser it is, the fewer
    /// orders of timers there are to tell apart.
    #[serde(skip)]
    pub(super) grid: Duration,
    /// Kinds of faults that may come.
    #[serde(skip)]
    pub(super) only: Rc<[Fault]>,
    #[serde(skip)]
    pub(super) mutant: Option<Mutant>,
    #[serde(skip)]
    pub(super) broken: Option<Broken>,
    /// What was decided and ordered by the last move.
    #[serde(skip)]
    pub(super) said: Said,
    #[serde(skip)]
    burst: u32,
}

/// What the last move brought about, for whoever counts or reads it.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    pub(super) decisions: Vec<(usize, Decision)>,
    pub(super) orders: Vec<(usize, String)>,
    /// Whether orders are to be told: it costs more than the step.
    pub(super) aloud: bool,
}

pub(super) fn name(node: usize) -> Member {
    Member::new(["a", "b"][node])
}

impl World {
    /// Two hosts with empty disks and an empty store; no agent runs.
    pub(super) fn empty(grid: Duration) -> Self {
        let node = || {
            Shared::new(Node {
                agent: None,
                boots: 0,
                server: Server::new(),
                guard: None,
                exposed: None,
                epoch: None,
                pledge: None,
                cut: false,
            })
        };
        let store = Store::new(ms(2000));
        Self {
            // Later than everything that core thinks of as long ago.
            now: Time::from_ms(1_000_000),
            nodes: [node(), node()],
            told: store.keys().revision,
            store: Shared::new(store),
            queue: Vec::new(),
            late: Vec::new(),
            faults: 0,
            past: Past::default(),
            early: BTreeSet::new(),
            grid,
            only: Rc::from(Fault::ALL),
            mutant: None,
            broken: None,
            said: Said::default(),
            burst: 0,
        }
    }

    /// From now on there is this bug.
    pub(super) fn plant(&mut self, mutant: Option<Mutant>) {
        self.mutant = mutant;
        self.store.unguarded = match mutant {
            Some(Mutant::AcquireUnguarded) => Some(Unguarded::Acquire),
            Some(Mutant::ReleaseUnguarded) => Some(Unguarded::Release),
            Some(Mutant::InitializeUnguarded) => Some(Unguarded::Initialize),
            Some(Mutant::StatusUnguarded) => Some(Unguarded::Status),
            _ => None,
        };
    }

    /// What every clock shows.
    pub(super) fn clock(&self) -> Instant {
        Instant(self.now.0)
    }

    /// Something happens. What may change a fact of core's does so a moment after what happened before: a question that
    /// was asked before it is older than it. What only goes on happens at the same instant, so that what is periodic
    /// keeps its rhythm to the nanosecond and comes back to states that are known.
    pub(super) fn happens_now(&mut self, changes: bool) {
        if changes {
            self.now = self.now + TICK;
        }
        self.burst += 1;
        if self.burst > BURST_MAX {
            self.breaks("L5", format!("{BURST_MAX} things happen and no time passes"));
        }
    }

    /// Time passes up to the next timer, and all that are due ring. `false`: there is none.
    pub(super) fn time_passes(&mut self) -> bool {
        let Some(next) = self.timers().into_iter().map(|(time, _)| self.on_grid(time)).min() else { return false };
        if next > self.now {
            (self.now, self.burst) = (next, 0);
        }
        for (time, message) in self.timers() {
            if time <= self.now {
                self.send(message);
            }
        }
        true
    }

    /// Timers that run, each once, and none whose ringing is on its way.
    fn timers(&self) -> Vec<(Time, Message)> {
        let mut timers = Vec::new();
        for (node, host) in self.nodes.iter().enumerate() {
            if let Some(at) = host.guard.as_ref().and_then(|guard| self.guard_due(guard))
                && !self.is_on_its_way(|message| matches!(message, Message::GuardWakes { node: n } if *n == node))
            {
                timers.push((at, Message::GuardWakes { node }));
            }
            if let Some(at) = host.agent.as_ref().filter(|agent| !agent.frozen).and_then(|agent| agent.wake)
                && !self.is_on_its_way(|message| matches!(message, Message::Tick { node: n } if *n == node))
            {
                timers.push((Time(at.0), Message::Tick { node }));
            }
        }
        // A lease goes a little after its end, as etcd's does.
        if let Some((_, until)) = self.store.next_end()
            && !self.is_on_its_way(|message| matches!(message, Message::LeasesEnd))
        {
            timers.push((until + ms(50), Message::LeasesEnd));
        }
        timers
    }

    fn on_grid(&self, time: Time) -> Time {
        Time(time.0.next_multiple_of(self.grid.as_nanos() as u64))
    }

    pub(super) fn is_on_its_way(&self, which: impl Fn(&Message) -> bool) -> bool {
        self.queue.iter().chain(&self.late).any(|message| which(message))
    }

    pub(super) fn send(&mut self, message: Message) {
        self.queue.push(Shared::new(message));
    }

    pub(super) fn forget(&mut self, which: impl Fn(&Message) -> bool) {
        self.queue.retain(|message| !which(message));
        self.late.retain(|message| !which(message));
    }

    /// Whether a message can be delivered now: a frozen agent takes nothing, a held server does nothing.
    pub(super) fn is_deliverable(&self, message: &Message) -> bool {
        match message {
            Message::Tick { node }
            | Message::Reply { node, .. }
            | Message::Watch { node, .. }
            | Message::Execute { node, .. }
            | Message::Observe { node, .. }
            | Message::Look { node }
            | Message::Write { node, .. }
            | Message::Report { node, .. }
            | Message::GuardReached { node }
            | Message::Answer { node, .. } => self.nodes[*node].agent.as_ref().is_none_or(|agent| !agent.frozen),
            Message::Question { from, .. } => self.nodes[1 - from].agent.as_ref().is_none_or(|agent| !agent.frozen),
            Message::Server { node, .. } => !self.nodes[*node].server.held,
            Message::Request { .. } | Message::Order { .. } | Message::GuardWakes { .. } | Message::LeasesEnd => true,
        }
    }

    pub(super) fn breaks(&mut self, invariant: &'static str, what: String) {
        self.broken.get_or_insert(Broken { invariant, what });
    }

    /// Whoever holds the leader key serves.
    pub(super) fn is_served(&self) -> bool {
        let Some(leader) = &self.store.keys().leader else { return false };
        (0..2).any(|node| name(node) == leader.member && self.nodes[node].server.serves())
    }

    /// WAL flows by itself as long as it can: a standby has what its source has.
    pub(super) fn flow(&mut self) {
        for node in 0..2 {
            if !self.streams(node) {
                continue;
            }
            let (Some(source), Some(mine)) = (&self.nodes[1 - node].server.disk, &self.nodes[node].server.disk) else {
                continue;
            };
            if (source.end, source.history.timeline) == (mine.end, mine.history.timeline) {
                continue;
            }
            let (end, history) = (source.end, source.history.clone());
            if let Some(disk) = &mut self.nodes[node].server.disk {
                (disk.end, disk.history) = (end, history);
            }
        }
    }

    /// The standby receives from the other server.
    pub(super) fn streams(&self, node: usize) -> bool {
        let (mine, source) = (&self.nodes[node], &self.nodes[1 - node]);
        let turned = mine.server.disk.as_ref().is_some_and(|disk| disk.upstream == Some(1 - node));
        let receives = mine.server.postmaster.as_ref().is_some_and(|pm| pm.in_recovery) && !mine.server.held;
        // A sender that drains still sends.
        let up = source.server.postmaster.as_ref().is_some_and(|pm| pm.phase != Phase::Starting);
        let sends = up && !source.server.held;
        turned && receives && sends && !mine.cut && !source.cut && mine.server.is_prefix_of(&source.server)
    }
}

/// The shortest timings that are legal, so that the most that matters fits into the fewest steps; one rhythm for
/// everything periodic.
pub(super) fn config(node: usize) -> Config {
    Config {
        ttl: ms(3000),
        loop_wait: ms(1000),
        retry_timeout: ms(1000),
        primary_start_timeout: ms(5000),
        use_slots: false,
        clone_when_diverged: true,
        clone_when_rewind_fails: true,
        isolation_timeout: ms(2400),
        ..Config::usual(&name(node).0)
    }
}
