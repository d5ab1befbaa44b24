//! Everything that core remembers. `Clone + Eq + Hash`: a state can be compared, replayed and searched.

use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use crate::action::{Action, Lane, PostgresAction};
use crate::config::Config;
use crate::effects::Decision;
use crate::event::{EpochFile, MoveRequest, ScheduledRestart};
use crate::id::{LeaseId, Lsn, Member, OpId, RequestId, Revision, SystemId, Timeline};
use crate::lease::{Held, Tenure};
use crate::time::{Duration, Instant, WallMillis};
use crate::view::guard::{Armed, GuardFacts};
use crate::view::peers::PeerFacts;
use crate::view::postgres::{PostgresFacts, Upstream};
use crate::view::store::{HistoryLine, MemberRecord, StatusKey, StoreFacts};

/// The state of one agent.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct State {
    /// The configuration in force.
    pub config: Config,
    /// Our claim to lead.
    pub tenure: Tenure,
    /// A tenure of ours that is over, but whose lease may still live. Never served under again; revoked as soon as
    /// PostgreSQL is certainly dead.
    pub spent: Option<LeaseId>,
    /// A lease that was granted for a campaign.
    pub granted: Option<Granted>,
    /// The lease of the member record.
    pub session: Session,
    /// The epoch file, as confirmed on disk.
    pub epoch_file: Option<EpochFile>,
    /// The promise not to receive WAL from the leader that was gone.
    pub pledge: Option<Pledge>,
    /// Facts: the store.
    pub store: StoreFacts,
    /// Facts: PostgreSQL.
    pub postgres: PostgresFacts,
    /// Facts: the guard.
    pub guard: GuardFacts,
    /// Facts: the other agents.
    pub peers: PeerFacts,
    /// Operations in flight.
    pub ops: Ops,
    /// Orders to the guard that it has not answered yet.
    pub guard_asked: GuardAsked,
    /// What happened to PostgreSQL, as far as facts do not tell.
    pub memory: Memory,
    /// Requests of operators that wait for their answer.
    pub requests: BTreeMap<RequestId, Pending>,
    /// The restart that was scheduled: one at a time.
    pub scheduled_restart: Option<ScheduledRestart>,
    /// Peers that wait for our pledged position.
    pub position_asked: Vec<PositionAsked>,
    /// The agent was asked to stop.
    pub leaving: bool,
    /// The last decision, so that only changes are told.
    pub decision: Option<Decision>,
    /// The wall clock at an instant: for schedules only.
    pub wall: (Instant, WallMillis),
}

/// A lease for a campaign, and when it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Granted {
    /// The lease.
    pub lease: LeaseId,
    /// What was granted.
    pub ttl: Duration,
    /// When it was asked for: the tenure is dated from here until its first renewal.
    pub asked: Instant,
}

/// The lease of the member record.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Session {
    /// The lease, if one is alive as far as is known.
    pub lease: Option<LeaseId>,
    /// What was granted.
    pub ttl: Duration,
    /// When it was last kept alive, by the sending.
    pub kept: Instant,
    /// The record that the store is known to hold under this lease.
    pub published: Option<MemberRecord>,
    /// When it was published.
    pub published_at: Instant,
    /// When the position was last published by a leader.
    pub status_at: Instant,
}

/// "I receive nothing more from the leader whose key was absent at this revision."
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Pledge {
    /// The revision at which the leader key was absent.
    pub absent_at: Revision,
    /// When it was given.
    pub since: Instant,
    /// The WAL receiver is confirmed to be gone.
    pub frozen: bool,
    /// It is on disk.
    pub on_disk: bool,
}

/// A peer waits for our position.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PositionAsked {
    /// To answer it by.
    pub request: RequestId,
    /// The revision at which it saw no leader key.
    pub absent_at: Revision,
    /// When it asked.
    pub since: Instant,
}

/// What happened to PostgreSQL, as far as facts do not tell.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Memory {
    /// Since when the postmaster is absent.
    pub dead_since: Option<Instant>,
    /// Since when the postmaster is starting.
    pub starting_since: Option<Instant>,
    /// Starts in a row after which PostgreSQL did not live for a while.
    pub start_failures: u32,
    /// The last postmaster that ended had accepted connections, and no start has failed since.
    pub came_up: bool,
    /// Since when the tenure is held, if one is.
    pub held_since: Option<Instant>,
    /// The greatest number of a timeline that a member has told that it is on.
    #[cfg_attr(feature = "serde", serde(default))]
    pub newest_told: Timeline,
    /// Since when the tenure is held, PostgreSQL may write, and another could take over.
    #[cfg_attr(feature = "serde", serde(default))]
    pub heirs_since: Option<Instant>,
    /// When a standby last answered through its WAL sender, also one that has gone since.
    #[cfg_attr(feature = "serde", serde(default))]
    pub standby_answered: Instant,
    /// The lines of `history`, or what they were when it was deleted.
    #[cfg_attr(feature = "serde", serde(default))]
    pub told_history: Vec<HistoryLine>,
    /// The position of `status` and its timeline, or what they were when it was deleted or overwritten with nonsense; without
    /// the slots.
    #[cfg_attr(feature = "serde", serde(default))]
    pub told_status: Option<StatusKey>,
    /// The last initdb failed: somebody else may try.
    pub initdb_failed: bool,
    /// When leadership was last given up because this node could not serve.
    pub gave_up: Option<Instant>,
    /// Since when the postmaster accepts connections.
    pub ready_since: Option<Instant>,
    /// The last checkpoint that was ordered and ended.
    pub checkpointed: Option<Instant>,
    /// When one was last known to be written.
    #[cfg_attr(feature = "serde", serde(default))]
    pub checkpoint_written: Option<Instant>,
    /// The histories were compared with the leader of this epoch: where ours leaves it, if it does.
    pub compared: Option<(Revision, Option<Lsn>)>,
    /// When that was found.
    pub compared_at: Option<Instant>,
    /// Rewinding to the leader of this epoch failed; why.
    pub rewind_failed: Option<(Revision, String)>,
    /// When the last crash recovery in single-user mode failed, and why. Nothing is known of the history then, and
    /// nothing was rewound.
    pub recovery_failed: Option<(Instant, String)>,
    /// The roles of a new cluster were created.
    pub roles_created: bool,
    /// The upstream that PostgreSQL was last started with or pointed to.
    pub followed: Option<Upstream>,
    /// The longest ttl that was configured since the last leader took its key: for so long it may hold what it renewed.
    pub tenure_ttl: Duration,
    /// When the standby was last seen streaming, or was pointed to its upstream.
    pub streamed: Instant,
    /// When it was last seen to stream from a server that no agent had told of.
    pub streamed_unmanaged: Option<Instant>,
    /// The leader that this standby was last seen to stream under; nobody once it was a primary itself.
    pub streamed_from: Option<Member>,
    /// A hand-over to this node was announced.
    pub handover_announced: Option<Instant>,
    /// When the race began: the leader key absent at this revision.
    pub race: Option<(Revision, Instant)>,
    /// What members last told of themselves whose records are gone by now, or say nothing: until there is a leader whose
    /// record tells how to ask it.
    pub lost_records: BTreeMap<Member, MemberRecord>,
    /// The generation of PostgreSQL's configuration that is in force.
    pub configured: u64,
    /// Since when the history of this tenure is written in vain.
    pub history_failing: Option<Instant>,
    /// When a kind of order last failed.
    pub failed: BTreeMap<Cow<'static, str>, Instant>,
    /// Slots of members on this node, and when each was last wanted.
    pub member_slots: BTreeMap<String, Instant>,
    /// Physical slots that are the operator's, or were while this agent ran and are still there.
    pub permanent_slots: BTreeSet<String>,
    /// The last change of a slot that was done, and when.
    pub slot_changed: Option<(Instant, PostgresAction)>,
    /// The data directory was seen as this cluster's.
    pub owned: bool,
    /// An operator wants this node cloned again.
    pub reinit: bool,
    /// The operator's last wish of that kind was for a clone of the leader; without meaning unless `reinit`.
    pub reinit_from_leader: bool,
    /// When the last contact was sought because nobody had answered.
    pub contact_sought: Instant,
    /// When PostgreSQL changed, or the leader key vanished: its last answer is older than that if it was asked before.
    pub changed: Instant,
    /// No leader key is there; unlike `race` this does not begin anew with every round.
    pub leaderless: Option<Leaderless>,
    /// A promotion of the running postmaster was ordered and is not known to be refused: it may become a primary at any
    /// moment, whatever became of the order.
    pub promotion: bool,
    /// The agent before this one may have ordered one: the guard was armed for its tenure, and the postmaster is the same.
    ///
    /// The race: an agent is started anew while what was received is still being replayed, and its key goes before its time. What
    /// was taken for a standby, and its guard disarmed, would become a primary beside the next leader.
    #[cfg_attr(feature = "serde", serde(default))]
    pub promotion_inherited: bool,
    /// An order to promote the running postmaster has ended, and nobody knows what came of it: that a later one is
    /// refused does not take it back.
    pub promotion_in_doubt: bool,
    /// A start as a standby was ordered, and neither its end nor its death was seen: what is known of the directory may
    /// be older than the signal file that it wrote.
    pub as_standby: bool,
    /// When the standby was last pointed to an upstream.
    pub turned: Instant,
    /// The running postmaster was pointed to an upstream that only a restart makes effective.
    pub needs_restart: bool,
    /// A key was written when this revision was known: nothing is decided on the older keys once more. A watch may have told
    /// of it before its answer came; so once the keys were read after that, only those count that it was ordered on.
    pub written: Revision,
    /// The revision that it was ordered on.
    pub ordered_on: Revision,
    /// Since when it is not known what an operation on the store left behind: the keys are read again at once. What was
    /// asked before says nothing of it.
    pub store_doubt: Option<Instant>,
    /// Since when the epoch file cannot be written.
    pub epoch_failing: Option<Instant>,
    /// A write of the epoch file came to nothing that is known: it may be what was there, or what was written.
    pub epoch_in_doubt: bool,
    /// Since when a promotion was ordered under this tenure and nothing was replayed.
    pub promoting_since: Option<Instant>,
    /// Promotions under this tenure that certainly did not happen.
    pub promotions_refused: u32,
    /// When the operator's own check last refused a promotion.
    pub vetoed: Option<Instant>,
    /// The lease for a campaign that another has taken the place of.
    #[cfg_attr(feature = "serde", serde(default))]
    pub replaced_grant: Option<LeaseId>,
    /// Leadership is being given up because this node cannot serve.
    pub giving_up: bool,
    /// Since when the tenure is to be released for that, and PostgreSQL does not die.
    #[cfg_attr(feature = "serde", serde(default))]
    pub unending_since: Option<Instant>,
    /// Since when the postmaster has written its shutdown checkpoint and still lives.
    pub drained_since: Option<Instant>,
    /// The request for a hand-over whose stop sessions took no notice of, by its revision: it is not begun again.
    #[cfg_attr(feature = "serde", serde(default))]
    pub given_up: Option<Revision>,
    /// PostgreSQL is being ended since sessions took no notice of the stop of a hand-over.
    #[cfg_attr(feature = "serde", serde(default))]
    pub ending: bool,
    /// Since when a primary has been stopping without having begun its shutdown checkpoint: its sessions are not gone.
    #[cfg_attr(feature = "serde", serde(default))]
    pub lingering_since: Option<Instant>,
    /// The epoch file is void, and that is not on disk yet.
    pub void_due: bool,
    /// Since when the cluster is known to be paused. Once heard it holds until the store says otherwise.
    pub paused: Option<Instant>,
    /// The cluster is paused and nothing that this node leads, or has led, is still to be stopped: PostgreSQL is the
    /// operator's, and no guard ends it.
    pub let_go: bool,
    /// When the pause ended last.
    pub resumed: Instant,
    /// PostgreSQL was stopped at an operator's request, and is brought back also while the cluster is paused.
    pub requested: bool,
    /// When a look at the data directory failed last, beside a server that runs on it: what is known of it is of before.
    pub data_in_doubt: Option<Instant>,
    /// The cluster that this agent has seen in the store, whatever became of its keys.
    pub knew: Option<SystemId>,
}

/// There is no leader key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Leaderless {
    /// Since when this agent knows.
    pub since: Instant,
    /// The first revision without one that it has seen: what was written later was written while nobody led.
    pub revision: Revision,
}

/// An operator's request under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Pending {
    /// What was asked.
    pub kind: PendingKind,
    /// When.
    pub since: Instant,
}

/// What an operator waits for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PendingKind {
    /// A switchover or failover.
    Move {
        /// What was asked.
        request: MoveRequest,
        /// Who led when it was asked.
        old: Option<Member>,
        /// And under which epoch; 0: nobody did.
        epoch: Revision,
        /// When the key was known to be written, or that it may have been.
        written: Option<Instant>,
    },
    /// A restart.
    Restart {
        /// It was ordered as this operation.
        op: Option<OpId>,
    },
    /// What is answered in the same step.
    Decided {
        /// The status.
        status: u16,
        /// The text.
        body: String,
    },
    /// A restart that ended.
    Restarted {
        /// Why it failed, if it did.
        refused: Option<String>,
    },
}

/// Orders to the guard that are sent and not answered yet. The connection keeps their order.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GuardAsked {
    /// The last `Arm`.
    pub arm: Option<Armed>,
    /// `Hold`.
    pub hold: bool,
    /// `Resume`.
    pub resume: bool,
    /// `Fire`: when.
    pub fire: Option<Instant>,
    /// `Disarm`.
    pub disarm: bool,
    /// `KillOrphans`.
    pub orphans: bool,
    /// `StartGuard`: when. It is repeated, since nothing tells that it failed.
    pub start: Option<Instant>,
}

/// Operations in flight: at most one a lane.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Ops {
    next: u64,
    lanes: BTreeMap<Lane, InFlight>,
    /// Completions that belonged to no operation in flight.
    pub stale: u64,
}

/// One operation in flight.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct InFlight {
    /// Its number.
    pub op: OpId,
    /// What was ordered.
    pub action: Action,
    /// When.
    pub since: Instant,
    /// When it counts as `Unknown`.
    pub deadline: Instant,
    /// `create_revision` of the leader key when it was ordered: what it found out is true of that leader only.
    pub leader: Option<Revision>,
    /// The revision that the keys were known as of then.
    pub known: Revision,
}

impl Ops {
    /// A new number.
    pub(crate) fn number(&mut self) -> OpId {
        self.next += 1;
        OpId(self.next)
    }

    /// What is in flight in a lane.
    pub fn in_lane(&self, lane: &Lane) -> Option<&InFlight> {
        self.lanes.get(lane)
    }

    /// Everything in flight.
    pub fn iter(&self) -> impl Iterator<Item = (&Lane, &InFlight)> {
        self.lanes.iter()
    }

    pub(crate) fn begin(&mut self, lane: Lane, in_flight: InFlight) {
        assert!(in_flight.deadline >= in_flight.since, "an operation cannot be late before it began");
        let before = self.lanes.insert(lane, in_flight);
        assert!(before.is_none(), "a lane holds one operation");
    }

    /// Ends the operation `op`; `None`: it is not in flight any more, its completion is stale.
    pub(crate) fn end(&mut self, op: OpId) -> Option<InFlight> {
        let lane = self.lanes.iter().find(|(_, f)| f.op == op).map(|(lane, _)| lane.clone());
        if lane.is_none() && op != OpId::UNASKED {
            self.stale += 1;
        }
        self.lanes.remove(&lane?)
    }

    pub(crate) fn cancel(&mut self, lane: &Lane) -> Option<InFlight> {
        self.lanes.remove(lane)
    }

    /// The operations whose deadline has come.
    pub(crate) fn overdue(&self, at: Instant) -> Vec<OpId> {
        self.lanes.values().filter(|f| f.deadline <= at).map(|f| f.op).collect()
    }
}

impl State {
    /// Writes are held, or may be.
    pub(crate) fn holds(&self) -> bool {
        self.guard.held || self.guard.hold_in_doubt || self.guard_asked.hold
    }

    /// The state of an agent that has not seen anything yet.
    pub fn new(config: Config, at: Instant) -> Self {
        let deadline = at + config.ttl.min(config.retry_timeout);
        let paused = config.paused_before.then_some(at);
        Self {
            config,
            tenure: Tenure::Adopting { deadline },
            spent: None,
            granted: None,
            session: Session::default(),
            epoch_file: None,
            pledge: None,
            store: StoreFacts::default(),
            postgres: PostgresFacts::default(),
            // A guard that was never there is missing since the start.
            guard: GuardFacts { gone: Some(at), ..GuardFacts::default() },
            peers: PeerFacts::default(),
            ops: Ops::default(),
            guard_asked: GuardAsked::default(),
            memory: Memory { streamed: at, paused, ..Memory::default() },
            requests: BTreeMap::new(),
            scheduled_restart: None,
            position_asked: Vec::new(),
            leaving: false,
            decision: None,
            wall: (at, WallMillis(0)),
        }
    }

    /// Another request of an operator may be put to core; one too many is to be refused by whoever takes it in.
    pub fn admits_request(&self) -> bool {
        self.requests.len() < REQUESTS_MAX
    }

    /// Another peer may ask for our position; likewise.
    pub fn admits_question(&self) -> bool {
        self.position_asked.len() < REQUESTS_MAX
    }

    /// The tenure in force ends: its lease is remembered so that it can be revoked once PostgreSQL is dead.
    pub(crate) fn spend_tenure(&mut self) {
        let lease = match &self.tenure {
            Tenure::Held(Held { lease, .. }) | Tenure::Suspended { was: Held { lease, .. }, .. } => Some(*lease),
            Tenure::None | Tenure::Adopting { .. } => None,
        };
        self.tenure = Tenure::None;
        self.memory.history_failing = None;
        // A primary that is let go serves on: its tenure ends by itself, and is taken up again as soon as there is a store.
        if lease.is_some() && !self.memory.let_go {
            self.spent = lease;
        }
        assert!(self.tenure.held().is_none(), "a spent tenure is not held");
    }

    /// What must hold between any two steps.
    ///
    /// # Panics
    /// If it does not: going on would be worse.
    pub fn check(&self) {
        if let Tenure::Held(held) = &self.tenure {
            assert!(Some(held.lease) != self.spent, "a spent tenure is never held again");
            assert!(held.ttl > Duration::ZERO, "a tenure has a length");
            if let Some(armed) = self.guard.armed.filter(|armed| armed.tenure == held.lease) {
                let latest = self.config.bounds.arm_at(held.confirmed, held.ttl);
                assert!(armed.at <= latest, "the guard is never armed beyond what a renewal has proven");
            }
        }
        assert!(self.tenure.held().is_none() || !self.memory.reinit, "a leader is not cloned");
        assert!(self.requests.len() <= REQUESTS_MAX, "requests are bounded");
        assert!(self.position_asked.len() <= REQUESTS_MAX, "questions are bounded");
    }
}

/// The most requests that may wait at once; more are refused.
pub const REQUESTS_MAX: usize = 32;
