//! What core may order: imperative, grouped by who executes it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::event::{EpochFile, Schedule};
use crate::id::{LeaseId, Lsn, Member, RequestId, Revision, SystemId, Timeline};
use crate::time::{Duration, Instant};
use crate::view::peers::PeerAnswer;
use crate::view::postgres::{StartAs, StopMode, Upstream};
use crate::view::store::{EpochRecord, HistoryLine, MemberRecord};

/// An order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Action {
    /// To the store.
    Store(StoreAction),
    /// To PostgreSQL.
    Postgres(PostgresAction),
    /// To the host.
    Host(HostAction),
    /// To the guard: in order, on one connection, without a lane.
    Guard(GuardAction),
    /// To another agent.
    Peer(PeerAction),
    /// To an operator or a peer that asked.
    Answer(RequestId, Answer),
}

/// To the store. Every write is a transaction guarded by the revision or lease that it was decided on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum StoreAction {
    /// Read all keys of the cluster, linearizable.
    Read,
    /// Ask for a lease for a tenure.
    GrantTenure {
        /// Its ttl.
        ttl: Duration,
    },
    /// Create the leader key, if it is absent and everything that the decision used is unchanged.
    Acquire(Acquire),
    /// Put our tenure under a leader key that already names us, but under a lease that is not ours.
    TakeOver {
        /// Our lease.
        lease: LeaseId,
        /// The `mod_revision` of the leader key.
        modified: Revision,
    },
    /// Renew the tenure and prove that the key is still ours.
    Renew {
        /// The lease.
        lease: LeaseId,
        /// `create_revision` of the leader key.
        epoch: Revision,
        /// For each attempt.
        deadline: Duration,
    },
    /// Publish the final position and delete the leader key, if it is still this tenure's.
    Release {
        /// The lease.
        lease: LeaseId,
        /// `create_revision` of the leader key.
        epoch: Revision,
        /// The final position.
        position: Lsn,
        /// The timeline of it, if its beginning is in the history; 0 otherwise.
        timeline: Timeline,
        /// The lines of the history, where the store does not tell of this timeline yet.
        history: Option<Vec<HistoryLine>>,
        /// Our record from now on.
        record: Box<MemberRecord>,
        /// The lease of the record.
        session: Option<LeaseId>,
    },
    /// Revoke a lease: the only unconditional release.
    Revoke {
        /// The lease.
        lease: LeaseId,
    },
    /// Ask for a lease for the member record.
    GrantSession {
        /// Its ttl.
        ttl: Duration,
    },
    /// Keep the member lease alive.
    KeepSession {
        /// The lease.
        lease: LeaseId,
    },
    /// Write the member record.
    PutMember {
        /// Under this lease.
        lease: LeaseId,
        /// The record.
        record: MemberRecord,
    },
    /// Ask for the right to initialise the cluster: create `initialize`, empty, under the lease of our record, so that
    /// the right ends with whoever holds it.
    RaceInitialize {
        /// The lease.
        lease: LeaseId,
    },
    /// Write the system identifier, and the dynamic configuration if there is none, if this tenure still leads.
    CompleteInitialize {
        /// The epoch.
        epoch: Revision,
        /// The system identifier.
        system_id: SystemId,
        /// `mod_revision` of `initialize`, 0 if absent.
        initialize: Revision,
        /// `mod_revision` of `config`, 0 if absent.
        config: Revision,
    },
    /// Give the right to initialise back.
    AbandonInitialize {
        /// `mod_revision` of `initialize`.
        initialize: Revision,
    },
    /// Publish the leader's position and the positions of the slots.
    PutStatus {
        /// Only as this tenure.
        epoch: Revision,
        /// What is published.
        status: Status,
    },
    /// Write our record of this tenure anew, with a greater number reserved for the timeline that it may begin.
    Reserve {
        /// Only as this tenure.
        epoch: Revision,
        /// `mod_revision` of `matriarch`, 0 if absent.
        record: Revision,
        /// Our timeline when we took the key.
        timeline: Timeline,
        /// Our position then.
        position: Lsn,
        /// The greatest number that a timeline has, or may get under this tenure.
        newest_timeline: Timeline,
        /// PostgreSQL may write without the tenure, since the cluster is paused.
        unguarded: bool,
        /// `mod_revision` of `config`, which tells whether it is; 0: it is not compared.
        ///
        /// The race: the pause is over, and the word that it is guarded again is on its way through a member of the store
        /// that stands still. In the next pause it is let go, and then that word arrives.
        config: Revision,
    },
    /// Write the record of our last tenure anew: nothing of it writes any more, although it was let go.
    Vouch {
        /// The record as it is.
        record: EpochRecord,
        /// `mod_revision` of `config`, as above.
        config: Revision,
    },
    /// Write the history, and in the same transaction where its leader is.
    ///
    /// The race: the leader before it told of more than may be given up, an operator chose this one all the same, and it
    /// dies. By the position of the one and the timelines of the other nobody could lead.
    PutHistory {
        /// Only as this tenure.
        epoch: Revision,
        /// `mod_revision` of `history`, 0 if absent.
        revision: Revision,
        /// Its lines.
        lines: Vec<HistoryLine>,
        /// The position on the timeline that they lead to.
        status: Status,
    },
    /// Write an operator's request.
    PutFailover {
        /// `mod_revision` of `failover`, 0 if absent.
        revision: Revision,
        /// Only while whoever led when it was asked for leads yet: `create_revision` of `leader`, 0 if nobody does. What is
        /// asked of a leader is worth less than what is asked while there is none (decision 18).
        epoch: Revision,
        /// From whom.
        leader: Option<Member>,
        /// To whom.
        candidate: Option<Member>,
        /// When.
        scheduled_at: Option<Schedule>,
    },
    /// Clear an operator's request.
    ClearFailover {
        /// `mod_revision` of `failover`.
        revision: Revision,
    },
}

/// What a leader publishes of itself in `status`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Status {
    /// Its position.
    pub position: Lsn,
    /// The timeline of it, if its beginning is in the history; 0 otherwise.
    pub timeline: Timeline,
    /// Slots and their positions.
    pub slots: Vec<(String, Lsn)>,
    /// Names of slots to keep.
    pub retain: Vec<String>,
}

/// The guarded creation of the leader key.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Acquire {
    /// The lease of the tenure.
    pub lease: LeaseId,
    /// `mod_revision` of `failover`, 0 if absent.
    pub failover: Revision,
    /// `mod_revision` of `config`, 0 if absent.
    pub config: Revision,
    /// `mod_revision` of `sync`, 0 if absent.
    pub sync: Revision,
    /// `mod_revision` of `matriarch`, 0 if absent.
    pub record: Revision,
    /// Our timeline.
    pub timeline: Timeline,
    /// Our position.
    pub position: Lsn,
    /// The greatest number that a timeline has, or may get under this tenure.
    pub newest_timeline: Timeline,
    /// The cluster is paused: PostgreSQL may write without the tenure.
    pub unguarded: bool,
}

/// To PostgreSQL.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PostgresAction {
    /// Ask the monitoring query.
    Observe,
    /// Look at process and data directory.
    Look,
    /// Initialise a new cluster in the empty data directory.
    Initdb,
    /// Create the roles of a new cluster.
    CreateRoles,
    /// Clone the data directory. What is there is removed.
    Clone(Upstream),
    /// Start.
    Start(StartAs),
    /// Stop.
    Stop(StopMode),
    /// Stop and start again in the same role.
    Restart,
    /// Promote onto a timeline of this number, which the tenure has reserved. `Refused` if PostgreSQL would count
    /// beyond it.
    Promote {
        /// The number.
        timeline: Timeline,
    },
    /// Point the running standby to another upstream, or to none.
    Follow(Option<Upstream>),
    /// Stop the WAL receiver for good and confirm that it is gone.
    Freeze,
    /// Write a checkpoint.
    Checkpoint,
    /// Compare our history with the upstream's.
    Compare(Upstream),
    /// Recover a crashed primary in single-user mode.
    RecoverSingleUser,
    /// Rewind to the upstream.
    Rewind(Upstream),
    /// Write the configuration files of this generation and reload.
    Configure {
        /// The generation.
        generation: u64,
    },
    /// Create a physical slot.
    CreateSlot(String),
    /// Drop a slot.
    DropSlot(String),
    /// Advance a physical slot that nobody streams through. It only ever moves forwards.
    AdvanceSlot {
        /// Its name.
        slot: String,
        /// Up to there its reader has the WAL.
        to: Lsn,
    },
    /// Make the data directory, which is empty, by a way of the operator's that needs no other member.
    Restore,
}

/// To the host.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum HostAction {
    /// Write the epoch file and fsync it.
    WriteEpoch(EpochFile),
    /// Write the pledge and fsync it.
    WritePledge(Option<Revision>),
    /// Start another guard.
    StartGuard,
    /// Leave. PostgreSQL stays as it is.
    Exit {
        /// The exit code.
        code: u8,
        /// For the log and standard error.
        message: String,
    },
}

/// To the guard.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum GuardAction {
    /// Stop PostgreSQL at `at`, unless a later instant is ordered before.
    Arm {
        /// For this tenure.
        tenure: LeaseId,
        /// The instant.
        at: Instant,
    },
    /// Nothing is to be stopped any more: PostgreSQL is down, or no primary.
    Disarm,
    /// Stop PostgreSQL reversibly.
    Hold,
    /// Let it go on.
    Resume,
    /// Kill every process of PostgreSQL.
    Fire,
    /// Kill the processes of the dead postmaster.
    KillOrphans,
}

/// To another agent.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PeerAction {
    /// Ask for its position, and to freeze if it sees the leader key absent at this revision or later.
    AskPosition {
        /// Whom.
        member: Member,
        /// Where it answers.
        api_url: String,
        /// It can pledge.
        pledges: bool,
        /// The revision at which the leader key is absent.
        absent_at: Revision,
    },
    /// Ask how it is.
    AskStatus {
        /// Whom.
        member: Member,
        /// Where it answers.
        api_url: String,
    },
    /// Ask it to answer as soon as it has replayed beyond a position.
    AwaitReplay {
        /// Whom.
        member: Member,
        /// Where it answers.
        api_url: String,
        /// It is one of ours and can wait; a Patroni member is asked again and again.
        pledges: bool,
        /// The position.
        beyond: Lsn,
        /// How long.
        deadline: Duration,
    },
}

/// An answer to whoever asked.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Answer {
    /// The status code and text of the REST API.
    Text {
        /// HTTP status.
        status: u16,
        /// Its body.
        body: String,
    },
    /// Our position.
    Position(PeerAnswer),
}

/// What runs beside what: at most one operation a lane.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Lane {
    /// Renewing the tenure: never waits for anything else.
    Renew,
    /// Taking and leaving leadership.
    Lead,
    /// Reading the store.
    Observe,
    /// Member record and the other keys.
    Publish,
    /// Asking PostgreSQL.
    PgObserve,
    /// Changing PostgreSQL.
    PgControl,
    /// Small files.
    Host,
    /// A question to a member.
    Peer(Member),
}

impl Action {
    /// The lane that the action takes; `None`: it is handed over at once and ends there.
    pub fn lane(&self) -> Option<Lane> {
        match self {
            Self::Store(action) => Some(match action {
                StoreAction::Read => Lane::Observe,
                StoreAction::Renew { .. } => Lane::Renew,
                StoreAction::GrantTenure { .. }
                | StoreAction::Acquire(_)
                | StoreAction::TakeOver { .. }
                | StoreAction::Release { .. }
                | StoreAction::Reserve { .. }
                | StoreAction::Vouch { .. }
                | StoreAction::RaceInitialize { .. }
                | StoreAction::AbandonInitialize { .. }
                | StoreAction::Revoke { .. } => Lane::Lead,
                StoreAction::GrantSession { .. }
                | StoreAction::KeepSession { .. }
                | StoreAction::PutMember { .. }
                | StoreAction::CompleteInitialize { .. }
                | StoreAction::PutStatus { .. }
                | StoreAction::PutHistory { .. }
                | StoreAction::PutFailover { .. }
                | StoreAction::ClearFailover { .. } => Lane::Publish,
            }),
            Self::Postgres(PostgresAction::Observe | PostgresAction::Look) => Some(Lane::PgObserve),
            Self::Postgres(_) => Some(Lane::PgControl),
            Self::Host(HostAction::Exit { .. } | HostAction::StartGuard) | Self::Guard(_) | Self::Answer(..) => None,
            Self::Host(HostAction::WriteEpoch(_) | HostAction::WritePledge(_)) => Some(Lane::Host),
            Self::Peer(
                PeerAction::AskPosition { member, .. }
                | PeerAction::AskStatus { member, .. }
                | PeerAction::AwaitReplay { member, .. },
            ) => Some(Lane::Peer(member.clone())),
        }
    }

    /// Whether the action may take the place of `running` in its lane; the pre-empted one becomes `Unknown`.
    pub fn preempts(&self, running: &Self) -> bool {
        let Self::Postgres(mine) = self else {
            // A position for a race is worth more than any other question to the same member.
            return matches!(
                (self, running),
                (Self::Peer(PeerAction::AskPosition { .. }), Self::Peer(PeerAction::AskStatus { .. }))
            );
        };
        let Self::Postgres(theirs) = running else { return false };
        match mine {
            PostgresAction::Stop(StopMode::Immediate) => !matches!(theirs, PostgresAction::Stop(StopMode::Immediate)),
            PostgresAction::Stop(StopMode::Fast) => !matches!(theirs, PostgresAction::Stop(_)),
            PostgresAction::Start(_) | PostgresAction::Promote { .. } | PostgresAction::Freeze => matches!(
                theirs,
                PostgresAction::Configure { .. }
                    | PostgresAction::Checkpoint
                    | PostgresAction::Compare(_)
                    | PostgresAction::Follow(_)
                    | PostgresAction::CreateSlot(_)
                    | PostgresAction::DropSlot(_)
                    | PostgresAction::AdvanceSlot { .. }
            ),
            // What was started goes on starting, and reads whom it follows again.
            PostgresAction::Follow(_) => matches!(theirs, PostgresAction::Start(StartAs::Standby(_))),
            _ => false,
        }
    }

    /// How long core waits for it before it counts as `Unknown`. A clone or recovery may take hours: it ends by itself.
    pub fn deadline(&self, retry_timeout: Duration) -> Duration {
        match self {
            Self::Store(StoreAction::Renew { deadline, .. }) => *deadline + *deadline / 2,
            Self::Peer(PeerAction::AwaitReplay { deadline, .. }) => *deadline + Duration::from_millis(500),
            // A question that a dead network swallowed must not keep the next one waiting: the answer to that one is
            // what ends an isolation.
            Self::Store(StoreAction::Read) => retry_timeout.min(Duration::from_secs(2)),
            Self::Store(_) | Self::Host(_) | Self::Peer(_) => retry_timeout,
            Self::Postgres(PostgresAction::Observe | PostgresAction::Look) => Duration::from_secs(5),
            Self::Postgres(_) => Duration::from_secs(7 * 24 * 3600),
            Self::Guard(_) | Self::Answer(..) => Duration::ZERO,
        }
    }
}
