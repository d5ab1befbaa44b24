//! What may happen: past tense, grouped by where it comes from. An event only changes facts or completes an operation.

use alloc::string::String;

use crate::config::Config;
use crate::id::{LeaseId, Member, OpId, RequestId, Revision, StoreId, SystemId, Timeline};
use crate::op::Outcome;
use crate::time::{Duration, Instant, Seen, WallMillis};
use crate::view::guard::Armed;
use crate::view::peers::PeerAnswer;
use crate::view::postgres::{DataDir, Process, Sql};
use crate::view::store::ClusterView;

/// Everything that can reach core.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Event {
    /// The agent has started: what small files told. Always the first event.
    Started(Started),
    /// The instant of [`crate::effects::Wake`] has come; the wall clock is for schedules only.
    Ticked(WallMillis),
    /// The store.
    Store(StoreEvent),
    /// PostgreSQL.
    Postgres(PostgresEvent),
    /// Small files of the host.
    Host(HostEvent),
    /// The guard.
    Guard(GuardEvent),
    /// Another agent.
    Peer(PeerEvent),
    /// An operator asked for something.
    Operator(RequestId, Request),
    /// The configuration changed.
    Configured(Config),
    /// The agent was asked to stop: hand over, stop PostgreSQL, leave.
    ShutdownAsked,
}

/// What survived the last agent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Started {
    /// The epoch file.
    pub epoch: Option<EpochFile>,
    /// The pledge in the promises file: the revision at which the leader key was absent.
    pub pledge: Option<Revision>,
}

/// What a node fsyncs before it promotes. It gates starting in place as primary.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct EpochFile {
    /// The cluster.
    pub system_id: SystemId,
    /// The store that issued the epoch.
    pub store: StoreId,
    /// `create_revision` of the tenure's leader key.
    pub epoch: Revision,
    /// The timeline before the promotion.
    pub timeline: Timeline,
}

impl EpochFile {
    /// What is left of it when the store that issued its epoch went back: this node has led, under no epoch that any
    /// store issues. Not that of a tenure which was forgotten because it was about to be handed over.
    pub(crate) fn void(self) -> Self {
        Self { store: StoreId(0), epoch: Revision(0), ..self }
    }
}

/// From the store.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum StoreEvent {
    /// The keys, by a watch. It carries its revision: fact enough for stopping, and for what a guarded transaction
    /// does.
    Watched(Seen<ClusterView>),
    /// An operation ended.
    Completed {
        /// Which.
        op: OpId,
        /// What came of it.
        outcome: Outcome<StoreDone>,
        /// Just before the request was handed to the socket.
        asked: Instant,
    },
}

/// What a store operation brought.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum StoreDone {
    /// The keys, by a linearizable read.
    Read(ClusterView),
    /// A lease, and the ttl that the store granted.
    Granted {
        /// The lease.
        lease: LeaseId,
        /// What was granted, not what was asked for.
        ttl: Duration,
    },
    /// The leader key is ours; the keys were read back in the same transaction.
    Acquired(ClusterView),
    /// The tenure was renewed, with proof that the key is still ours.
    Renewed {
        /// What the store grants from `asked` on.
        ttl: Duration,
        /// The revision of the store that the proof was read at.
        revision: Revision,
    },
    /// The member lease was kept alive.
    SessionKept,
    /// The leader key is deleted and the final position published.
    Released,
    /// The lease and all its keys are gone.
    Revoked,
    /// A key was written or deleted.
    Written,
}

/// From PostgreSQL.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PostgresEvent {
    /// The postmaster was looked at, or its pidfd spoke.
    ProcessSeen(Process),
    /// The data directory was looked at.
    DataSeen(DataDir),
    /// The monitoring query was answered, or not.
    Answered {
        /// Which observation.
        op: OpId,
        /// The answer; `None`: no connection, no answer in time.
        sql: Option<Seen<Sql>>,
    },
    /// A control operation ended. The runtime sends what it sees of process and data before.
    Completed {
        /// Which.
        op: OpId,
        /// What came of it.
        outcome: Outcome<PostgresDone>,
    },
}

/// What a control operation of PostgreSQL brought.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PostgresDone {
    /// It was done.
    Done,
    /// Another upstream is written, but only a restart makes it effective. Before PostgreSQL 14 that is so of
    /// `restore_command`.
    NeedsRestart,
    /// The history was compared: the position at which ours leaves the leader's, if it does.
    Compared(Option<crate::id::Lsn>),
    /// The configuration of this generation is in force.
    Configured {
        /// The generation.
        generation: u64,
        /// Files were written for it.
        #[cfg_attr(feature = "serde", serde(default))]
        changed: bool,
    },
}

/// From the host.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum HostEvent {
    /// A small file is on disk, or not.
    Completed {
        /// Which.
        op: OpId,
        /// What came of it.
        outcome: Outcome<()>,
    },
}

/// From the guard.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum GuardEvent {
    /// Connected; what it holds from before.
    Connected {
        /// It is armed.
        armed: Option<Armed>,
        /// PostgreSQL is held.
        held: bool,
        /// It has fired for this tenure.
        fired: Option<LeaseId>,
    },
    /// It acknowledged.
    Armed(Armed),
    /// It refused an order; why.
    Refused(String),
    /// It is disarmed.
    Disarmed,
    /// PostgreSQL is stopped reversibly.
    Held,
    /// PostgreSQL goes on.
    Resumed,
    /// Every process of PostgreSQL is dead.
    Fired {
        /// For which tenure.
        tenure: LeaseId,
    },
    /// Processes that will not die.
    Stuck {
        /// How many.
        processes: u32,
    },
    /// No process of a dead postmaster is left.
    OrphansDead,
    /// The guard is gone.
    Gone,
}

/// From the other agents.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PeerEvent {
    /// A question was answered, or not.
    Answered {
        /// Which question.
        op: OpId,
        /// Whom it was put to.
        member: Member,
        /// The answer; anything but `Done` is "unreachable".
        outcome: Outcome<PeerAnswer>,
        /// When it was asked.
        asked: Instant,
    },
    /// A peer asks for our position, and asks us to freeze because the leader key is absent at `absent_at`.
    PositionAsked {
        /// To answer it by.
        request: RequestId,
        /// The revision at which the asker saw no leader key.
        absent_at: Revision,
    },
    /// A leader that is about to hand over asks how far we are: a hand-over may come.
    HandoverAnnounced,
}

/// What an operator may ask for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Request {
    /// Move leadership.
    Move(MoveRequest),
    /// Restart PostgreSQL here.
    Restart,
    /// Restart PostgreSQL here at a time.
    ScheduleRestart(ScheduledRestart),
    /// Forget the restart that was scheduled.
    CancelRestart,
    /// Clone this node again.
    Reinitialize {
        /// Even if something else is running.
        force: bool,
        /// From the leader, even if a replica offers itself.
        from_leader: bool,
    },
}

/// A switchover (with `leader`) or a manual failover (without).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MoveRequest {
    /// `POST /switchover`, not `/failover`.
    pub switchover: bool,
    /// From whom.
    pub leader: Option<Member>,
    /// To whom.
    pub candidate: Option<Member>,
    /// When; not before.
    pub scheduled_at: Option<Schedule>,
    /// The store refused the key: another request came first.
    pub refused: bool,
}

/// A restart at a time, if its conditions hold then.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ScheduledRestart {
    /// When.
    pub schedule: Schedule,
    /// What must hold then.
    pub conditions: RestartConditions,
    /// The time in seconds that the operator gives it. It is shown; an own start has `primary_start_timeout`.
    pub timeout_s: Option<u64>,
    /// When the postmaster was started that is to be restarted, microseconds since the Unix epoch; 0: not known.
    pub postmaster_start_us: i64,
}

/// What must hold for a restart that an operator asks for.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RestartConditions {
    /// Only in this role, in Patroni's words.
    pub role: Option<String>,
    /// Only below this version: as the operator wrote it, and as `server_version_num`.
    pub below_version: Option<(String, u32)>,
    /// Only if a parameter waits for a restart.
    pub only_pending: bool,
}

impl RestartConditions {
    /// They hold for the server that answered so; `None`: for one that does not answer only what asks for nothing holds.
    pub fn hold(&self, sql: Option<&Sql>) -> bool {
        let Some(sql) = sql else { return *self == Self::default() };
        let role = if sql.in_recovery { "replica" } else { "primary" };
        self.role.as_ref().is_none_or(|wanted| wanted == role)
            && self.below_version.as_ref().is_none_or(|(_, version)| sql.server_version < *version)
            && (!self.only_pending || !sql.pending_restart.is_empty())
    }
}

/// A time as the operator wrote it, and as a number.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Schedule {
    /// The operator's text (ISO 8601).
    pub text: String,
    /// The same in milliseconds since the Unix epoch.
    pub at: WallMillis,
}
