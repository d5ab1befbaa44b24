//! Planted bugs: what an adapter, an executor or a guard would do wrong, switched on for a run. A checker that does not
//! find them would not find the bugs that nobody planted.

use matriarch_core::event::{Event, GuardEvent, PeerEvent, PostgresEvent, StoreDone, StoreEvent};
use matriarch_core::id::{Lsn, Revision, Timeline};
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::timeline::History;
use matriarch_core::view::postgres::{DataDir, Process};
use matriarch_core::view::store::{ClusterView, FailoverKey, LeaderKey};

use crate::fault::Plan;
use crate::node::NodeId;
use crate::run::{CRASH, run};
use crate::trace::Trace;
use crate::world::World;

/// A planted bug.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mutant {
    /// The lease is dated from the answer, not from the sending.
    LeaseDatedFromTheAnswer,
    /// A refused renewal is taken for one without answer.
    RefusedRenewalIsUnknown,
    /// A request to the store without answer is taken for one that was done.
    UnknownIsDone,
    /// A renewal without answer is taken for a refused one.
    UnknownRenewalIsRefused,
    /// The store's own ttl is not read: what was asked for counts.
    TtlAsAsked,
    /// The wall clock is used for leases.
    WallClock,
    /// The guard never fires.
    GuardNeverFires,
    /// The guard fires a second too late.
    GuardLate,
    /// The guard acknowledges more than it was told.
    GuardAcknowledgesMore,
    /// What the guard holds goes on to write.
    HoldHoldsNothing,
    /// Backends of a dead postmaster are said to be dead.
    OrphansLive,
    /// A start or promotion does not read the clock again.
    StartsLate,
    /// The epoch file is never on disk.
    EpochNotOnDisk,
    /// Freezing a standby is a reload.
    FreezeIsAReload,
    /// A position is told as pledged at once, before the receiver has stopped.
    EveryAnswerIsPledged,
    /// Timelines are ignored in the race, those of peers and those that the store tells: positions alone count.
    TimelinesIgnored,
    /// Peers are said to be behind.
    PeersAreBehind,
    /// Histories are never found to part.
    NeverDiverged,
    /// A half-made directory is taken for a whole one.
    TaintIgnored,
    /// The first checkpoint after a promotion is not waited for.
    CheckpointNotAwaited,
    /// A candidate is believed to hold everything.
    CandidateBelieved,
    /// The leader does not hear that its key is gone.
    VanishedKeyUnheard,
    /// The leader key is created whether or not it is there.
    AcquireUnguarded,
    /// The leader key is deleted whoever holds it.
    ReleaseUnguarded,
    /// The right to initialise is had by whoever asks.
    InitializeUnguarded,
    /// What a leader publishes is written whoever leads.
    StatusUnguarded,
    /// The guard gives a dead agent's tenure back before PostgreSQL is dead.
    ReleasedAlive,
    /// A directory is wiped whatever the source says.
    WipedUnasked,
    /// The guard forgets what it is armed for when another agent connects.
    GuardForgets,
    /// The death of a postmaster is never seen.
    DeathUnseen,
    /// The guard's death is not heard.
    GuardDeathUnheard,
    /// Answers of peers are lost.
    PeersUnheard,
    /// A lost member lease is not heard of.
    SessionLossUnheard,
    /// A health check repeats the role that was decided last, whatever the clock says.
    HealthRemembered,
    /// Only the newest line of the history is written.
    HistoryForgets,
    /// Slots are said to be made and are not.
    SlotsNotMade,
    /// A slot is advanced to where its server is, whatever its reader has.
    SlotAdvancedToTheEnd,
    /// Some requests of operators are not answered.
    AnswersDropped,
    /// Reading the keys tells what watches have told: they are relied upon.
    WatchesReliedUpon,
    /// A pause is not heard.
    PauseUnheard,
    /// A pause is heard by the leader only.
    PauseHeardByTheLeader,
    /// A paused primary's guard is disarmed, and the store is not told.
    LetGoUntold,
    /// Milliseconds are taken for seconds in `primary_start_timeout`.
    StartTimeoutInSeconds,
    /// The creation of the leader key without an answer is taken for one that was done: promoted before the lock is confirmed.
    LockUnconfirmed,
    /// Core goes by a view that it had before.
    StaleSnapshotAccepted,
    /// Whoever has pledged forgets it while nobody leads, and goes by the leader that was there before.
    PledgeForgotten,
    /// Whoever could take over has always been there: nobody is asked before writes are held.
    HeirsAtOnce,
    /// A primary that said so is forgotten when its next answer is lost.
    SaidSoForgotten,
    /// Core forgets what is under way, and which numbers it has given.
    OperationsForgotten,
    /// Nothing ends a request to the store that gets no answer: neither the executor's limit nor a timer of core's.
    DeadlineDropped,
    /// Who lost the race for the right to initialise removes that of whoever has it.
    InitializeRemoved,
    /// A promotion does not leave out the numbers that are not reserved for it.
    NumberNotReserved,
    /// A start waits for a fixed time first.
    StartWaits,
    /// The published position is not read.
    PublishedUnread,
    /// A receiver takes WAL that does not continue its own.
    StreamsWhateverComes,
    /// A server writes what it refuses.
    RefusedIsWritten,
    /// Now and then a leader is told of a switchover that nobody asked for.
    RestlessLeader,
    /// A mode that is not supported is not heard of.
    ModeUnheard,
    /// Another cluster's data are taken for this one's.
    ForeignDataOurs,
    /// Who sees no leader has itself cloned from a member that has no data, as if that led.
    ClonedFromTheEmpty,
    /// The end of a pause is heard by the leader only.
    ResumeHeardByTheLeader,
    /// What was found out of one leader is believed of the next, as if it had just been found.
    FoundOfAnother,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 62] = [
        Self::LeaseDatedFromTheAnswer,
        Self::RefusedRenewalIsUnknown,
        Self::UnknownIsDone,
        Self::UnknownRenewalIsRefused,
        Self::TtlAsAsked,
        Self::WallClock,
        Self::GuardNeverFires,
        Self::GuardLate,
        Self::GuardAcknowledgesMore,
        Self::HoldHoldsNothing,
        Self::OrphansLive,
        Self::StartsLate,
        Self::EpochNotOnDisk,
        Self::FreezeIsAReload,
        Self::EveryAnswerIsPledged,
        Self::TimelinesIgnored,
        Self::PeersAreBehind,
        Self::NeverDiverged,
        Self::TaintIgnored,
        Self::CheckpointNotAwaited,
        Self::CandidateBelieved,
        Self::VanishedKeyUnheard,
        Self::AcquireUnguarded,
        Self::ReleaseUnguarded,
        Self::InitializeUnguarded,
        Self::StatusUnguarded,
        Self::ReleasedAlive,
        Self::WipedUnasked,
        Self::GuardForgets,
        Self::DeathUnseen,
        Self::GuardDeathUnheard,
        Self::PeersUnheard,
        Self::SessionLossUnheard,
        Self::HealthRemembered,
        Self::HistoryForgets,
        Self::SlotsNotMade,
        Self::SlotAdvancedToTheEnd,
        Self::AnswersDropped,
        Self::WatchesReliedUpon,
        Self::PauseUnheard,
        Self::PauseHeardByTheLeader,
        Self::LetGoUntold,
        Self::StartTimeoutInSeconds,
        Self::LockUnconfirmed,
        Self::StaleSnapshotAccepted,
        Self::PledgeForgotten,
        Self::OperationsForgotten,
        Self::DeadlineDropped,
        Self::InitializeRemoved,
        Self::NumberNotReserved,
        Self::StartWaits,
        Self::PublishedUnread,
        Self::StreamsWhateverComes,
        Self::RefusedIsWritten,
        Self::RestlessLeader,
        Self::ModeUnheard,
        Self::ForeignDataOurs,
        Self::HeirsAtOnce,
        Self::SaidSoForgotten,
        Self::ClonedFromTheEmpty,
        Self::ResumeHeardByTheLeader,
        Self::FoundOfAnother,
    ];

    /// The invariants that it is meant to break, and that have been seen to find it first: another that does may be a chance.
    pub fn breaks(self) -> &'static [&'static str] {
        match self {
            Self::LeaseDatedFromTheAnswer
            | Self::TtlAsAsked
            | Self::GuardForgets
            | Self::GuardDeathUnheard
            | Self::LetGoUntold => &["S30"],
            Self::RefusedRenewalIsUnknown | Self::LockUnconfirmed => &["S6"],
            Self::UnknownIsDone => &["S30", CRASH],
            Self::UnknownRenewalIsRefused | Self::RestlessLeader | Self::HeirsAtOnce => &["L6"],
            Self::WallClock => &["L5", CRASH],
            Self::SaidSoForgotten => &["S5", "S12"],
            Self::GuardNeverFires | Self::ReleasedAlive => &["S7"],
            Self::OrphansLive => &["S7", "M2"],
            Self::GuardLate => &["S5", "S7"],
            Self::GuardAcknowledgesMore => &[CRASH],
            Self::HoldHoldsNothing => &["S31"],
            Self::StartsLate | Self::EpochNotOnDisk => &["S8"],
            Self::FreezeIsAReload => &["M4", "L5"],
            Self::EveryAnswerIsPledged | Self::PledgeForgotten => &["M4"],
            Self::TimelinesIgnored => &["S2", "S12"],
            Self::PeersAreBehind | Self::PeersUnheard => &["S12"],
            Self::NeverDiverged | Self::CheckpointNotAwaited | Self::SessionLossUnheard => &["L2", "L8"],
            Self::TaintIgnored | Self::WipedUnasked => &["S16"],
            Self::CandidateBelieved => &["S2", "S20"],
            Self::VanishedKeyUnheard | Self::DeathUnseen => &["L1", "L8"],
            Self::AcquireUnguarded => &["S9"],
            Self::ReleaseUnguarded | Self::StatusUnguarded => &["S24"],
            Self::InitializeUnguarded | Self::InitializeRemoved => &["S18"],
            Self::HealthRemembered => &["S27"],
            Self::HistoryForgets => &["S14"],
            Self::SlotsNotMade => &["L2"],
            Self::SlotAdvancedToTheEnd => &["S22"],
            Self::AnswersDropped | Self::DeadlineDropped => &["L4"],
            Self::WatchesReliedUpon => &["L8"],
            Self::PauseUnheard => &["S19"],
            Self::PauseHeardByTheLeader => &["S19", "L5"],
            Self::StartTimeoutInSeconds => &["L10", "L11"],
            Self::StaleSnapshotAccepted => &["S25"],
            Self::OperationsForgotten => &["S26"],
            Self::NumberNotReserved => &["S13"],
            Self::StartWaits => &["L10"],
            Self::PublishedUnread => &["S2"],
            Self::StreamsWhateverComes => &["S15"],
            Self::RefusedIsWritten => &["S3"],
            Self::ModeUnheard => &["M6"],
            Self::ForeignDataOurs => &["M7"],
            Self::ClonedFromTheEmpty => &["S17"],
            Self::ResumeHeardByTheLeader => &["L1", "L2", "L9"],
            Self::FoundOfAnother => &["M5"],
        }
    }

    /// Which invariant finds it with that seed, if the seed breaks nothing without it.
    pub fn found_with(self, seed: u64) -> Option<&'static str> {
        let broken = |mutant| run(Plan::of_seed(seed), mutant, Trace::hash_only()).violation;
        let found = broken(Some(self))?;
        broken(None).is_none().then_some(found.invariant)
    }

    /// What core hears of an event where the bug is planted; `None`: nothing.
    pub fn bend(self, world: &World, node: NodeId, event: Event) -> Option<Event> {
        let now = world.clock(node);
        Some(match event {
            Event::Store(StoreEvent::Completed { op, outcome, asked }) => {
                let asked = if self == Self::LeaseDatedFromTheAnswer { now } else { asked };
                let outcome = self.outcome(world, node, op, outcome);
                Event::Store(StoreEvent::Completed { op, outcome, asked })
            }
            Event::Store(StoreEvent::Watched(mut seen)) => {
                self.view(world, node, &mut seen.value);
                Event::Store(StoreEvent::Watched(seen))
            }
            Event::Guard(GuardEvent::Armed(mut armed)) if self == Self::GuardAcknowledgesMore => {
                armed.at = armed.at + std::time::Duration::from_secs(2);
                Event::Guard(GuardEvent::Armed(armed))
            }
            Event::Guard(GuardEvent::Gone) if self == Self::GuardDeathUnheard => return None,
            Event::Peer(PeerEvent::Answered { op, member, outcome, asked }) => {
                let outcome = match outcome {
                    Outcome::Done(_) if self == Self::PeersUnheard => Outcome::Unknown("unheard".into()),
                    Outcome::Done(answer) => Outcome::Done(self.answer(world, node, answer)),
                    other => other,
                };
                Event::Peer(PeerEvent::Answered { op, member, outcome, asked })
            }
            Event::Postgres(PostgresEvent::ProcessSeen(process))
                if self == Self::DeathUnseen && process == Process::Absent =>
            {
                return None;
            }
            Event::Postgres(PostgresEvent::DataSeen(DataDir::Cluster(mut cluster)))
                if self == Self::CheckpointNotAwaited =>
            {
                cluster.checkpoint_timeline = cluster.history.timeline;
                Event::Postgres(PostgresEvent::DataSeen(DataDir::Cluster(cluster)))
            }
            Event::Configured(mut config) if self == Self::ModeUnheard => {
                config.unsupported = None;
                Event::Configured(config)
            }
            Event::Postgres(PostgresEvent::DataSeen(DataDir::Cluster(mut cluster)))
                if self == Self::ForeignDataOurs =>
            {
                cluster.system_id = world.store.keys().system_id().unwrap_or(cluster.system_id);
                Event::Postgres(PostgresEvent::DataSeen(DataDir::Cluster(cluster)))
            }
            other => other,
        })
    }

    fn outcome(
        self,
        world: &World,
        node: NodeId,
        op: matriarch_core::id::OpId,
        outcome: Outcome<StoreDone>,
    ) -> Outcome<StoreDone> {
        use matriarch_core::action::{Action, StoreAction};
        let agent = world.nodes[node.0].agent.as_ref();
        let in_flight =
            agent.and_then(|agent| agent.state.ops.iter().find(|(_, f)| f.op == op).map(|(_, f)| &f.action));
        match (self, outcome, in_flight) {
            (Self::RefusedRenewalIsUnknown, Outcome::Refused(_), Some(Action::Store(StoreAction::Renew { .. }))) => {
                Outcome::Unknown("refused".into())
            }
            (Self::UnknownRenewalIsRefused, Outcome::Unknown(_), Some(Action::Store(StoreAction::Renew { .. }))) => {
                Outcome::Refused(Refusal::LeaseGone)
            }
            (
                Self::SessionLossUnheard,
                Outcome::Refused(Refusal::LeaseGone),
                Some(Action::Store(StoreAction::KeepSession { .. } | StoreAction::PutMember { .. })),
            ) => Outcome::Unknown("unheard".into()),
            (Self::UnknownIsDone, Outcome::Unknown(_), Some(Action::Store(action))) => match action {
                StoreAction::Renew { .. } => {
                    let ttl = world.nodes[node.0].config.ttl;
                    Outcome::Done(StoreDone::Renewed { ttl, revision: Revision(0) })
                }
                StoreAction::KeepSession { .. } => Outcome::Done(StoreDone::SessionKept),
                StoreAction::Revoke { .. } => Outcome::Done(StoreDone::Revoked),
                _ => Outcome::Unknown("no answer".into()),
            },
            (Self::LockUnconfirmed, Outcome::Unknown(why), Some(Action::Store(StoreAction::Acquire(acquire)))) => {
                let known = agent.and_then(|agent| agent.state.store.cluster.as_ref());
                let Some(mut view) = known.map(|seen| seen.value.clone()) else { return Outcome::Unknown(why) };
                let next = Revision(view.revision.0 + 1);
                view.revision = next;
                view.leader = Some(LeaderKey {
                    member: world.names[node.0].clone(),
                    lease: acquire.lease,
                    created: next,
                    modified: next,
                });
                Outcome::Done(StoreDone::Acquired(view))
            }
            (Self::TtlAsAsked, Outcome::Done(StoreDone::Renewed { revision, .. }), _) => {
                Outcome::Done(StoreDone::Renewed { ttl: world.nodes[node.0].config.ttl * 2, revision })
            }
            (Self::WatchesReliedUpon, Outcome::Done(StoreDone::Read(view)), _) => {
                let known = agent.and_then(|agent| agent.state.store.cluster.as_ref());
                Outcome::Done(StoreDone::Read(known.map_or(view, |seen| seen.value.clone())))
            }
            (_, Outcome::Done(StoreDone::Read(mut view)), _) => {
                self.view(world, node, &mut view);
                Outcome::Done(StoreDone::Read(view))
            }
            (_, outcome, _) => outcome,
        }
    }

    fn view(self, world: &World, node: NodeId, view: &mut ClusterView) {
        match self {
            // As a cache that holds what it was told first: the leader that was known before goes on to be seen.
            Self::VanishedKeyUnheard if view.leader.is_none() => {
                let agent = world.nodes[node.0].agent.as_ref();
                let known = agent.and_then(|agent| agent.state.store.cluster.as_ref());
                let mine = known.and_then(|seen| seen.value.leader.clone());
                view.leader = mine.filter(|leader| leader.member == world.names[node.0]);
            }
            Self::PauseUnheard => view.paused = view.paused.map(|_| false),
            Self::PauseHeardByTheLeader => {
                let leads = view.leader.as_ref().is_some_and(|leader| leader.member == world.names[node.0]);
                view.paused = view.paused.map(|paused| paused && leads);
            }
            Self::ResumeHeardByTheLeader => {
                let known = world.nodes[node.0].agent.as_ref().and_then(|agent| agent.state.store.cluster.as_ref());
                let paused = known.is_some_and(|seen| seen.value.paused == Some(true));
                let leads = view.leader.as_ref().is_some_and(|leader| leader.member == world.names[node.0]);
                view.paused = view.paused.map(|now| now || (paused && !leads));
            }
            // As others see the record; its own node believes what it has written.
            Self::LetGoUntold => {
                let me = &world.names[node.0];
                if let Some(record) = view.epoch.as_mut().filter(|record| record.member != *me) {
                    record.unguarded = false;
                }
            }
            Self::PublishedUnread => view.status = None,
            // Fifteen seconds of every two minutes: long enough for a hand-over.
            Self::RestlessLeader if world.now.ms() % 120_000 > 105_000 => {
                let leader = view.leader.as_ref().map(|leader| leader.member.clone());
                if leader.as_ref() == Some(&world.names[node.0]) {
                    let revision = view.revision;
                    view.failover = Some(FailoverKey { revision, leader, candidate: None, scheduled_at: None });
                }
            }
            Self::TimelinesIgnored if view.leader.is_none() => {
                view.history.lines.clear();
                // That the leader was on another timeline tells of a branch that was left as well.
                view.status.as_mut().into_iter().for_each(|status| status.timeline = Timeline(0));
            }
            Self::CheckpointNotAwaited => {
                for key in view.members.values_mut() {
                    key.record.checkpoint_pending = false;
                }
            }
            _ => {}
        }
    }

    fn answer(
        self,
        world: &World,
        node: NodeId,
        mut answer: matriarch_core::view::peers::PeerAnswer,
    ) -> matriarch_core::view::peers::PeerAnswer {
        match self {
            Self::TimelinesIgnored => {
                let agent = world.nodes[node.0].agent.as_ref();
                let mine = agent.and_then(|agent| match &agent.state.postgres.data {
                    DataDir::Cluster(cluster) => Some(cluster.history.clone()),
                    _ => None,
                });
                answer.history = mine.unwrap_or_else(|| History::first(Timeline(1)));
            }
            Self::PeersAreBehind => answer.flushed = Lsn(1),
            Self::CandidateBelieved => answer.replayed = Lsn(u64::MAX),
            _ => {}
        }
        answer
    }
}
