//! Why: data first (a variant with its numbers), a stable code second, a sentence last.

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt;

use crate::id::{LeaseId, Lsn, Member, Revision, SystemId, Timeline};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident $({ $($(#[$field_doc:meta])* $field:ident : $kind:ty),+ $(,)? })? => $code:literal, $text:literal;)+) => {
        /// Why a decision, an order, a wait or a refusal is as it is.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[allow(missing_docs, reason = "the sentence of each variant names and explains its fields")]
        pub enum Reason { $($(#[$doc])* $name $({ $($(#[$field_doc])* $field: $kind),+ })?,)+ }

        impl Reason {
            /// A stable code: what monitoring and tests match on.
            pub fn code(&self) -> &'static str {
                match self { $(Self::$name $({ $($field: _),+ })? => $code,)+ }
            }

            /// Every code, in the order of declaration.
            pub const CODES: &'static [&'static str] = &[$($code),+];
        }

        impl fmt::Display for Reason {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $(Self::$name $({ $($field),+ })? => write!(f, $text),)+ }
            }
        }
    };
}

reasons! {
    // fence
    /// The tenure ended by our own clock.
    TenureExpired { ago_ms: u64 } => "tenure_expired", "the tenure could not be renewed in time and ended {ago_ms} ms ago: writes are stopped";
    /// The leader key names another.
    LeaderIsOther { who: Member, revision: Revision } => "leader_is_other", "{who} holds the leader key since revision {revision}: writes are stopped";
    /// The leader key was heard to be gone.
    KeyVanished { for_ms: u64 } => "key_vanished", "our leader key vanished {for_ms} ms ago without another leader: writes are held and the key is asked for again";
    /// Nothing brought the key back in time.
    KeyNotRegained { after_ms: u64 } => "key_not_regained", "our leader key vanished and was not regained within {after_ms} ms: writes are stopped";
    /// The key is gone, and something that could not be stopped may go on writing.
    CannotHold => "cannot_hold", "our leader key vanished and not all of PostgreSQL could be held: writes are stopped for good";
    /// A writable PostgreSQL without any tenure.
    NoTenure => "no_tenure", "PostgreSQL accepts writes but this node holds no tenure: writes are stopped";
    /// A start looks for its tenure.
    Adopting { left_ms: u64 } => "adopting", "the agent has started beside a running primary and looks for its tenure; the guard stops writes in {left_ms} ms otherwise";
    /// Guard is missing.
    GuardMissing { for_ms: u64 } => "guard_missing", "the guard is gone for {for_ms} ms and could not be armed: PostgreSQL is stopped";
    /// The guard does not acknowledge.
    GuardSilent { for_ms: u64 } => "guard_silent", "the guard has not acknowledged the tenure, {for_ms} ms after its last word was over: PostgreSQL is stopped";
    /// Orphans live on.
    OrphansAlive => "orphans_alive", "no postmaster runs; whatever a dead one may have left behind could still commit and is killed before anything else";
    // unsupported
    /// The cluster asks for a mode that is not built yet.
    UnsupportedMode { mode: String } => "unsupported_mode", "the cluster asks for {mode}, which is not supported yet: this agent only observes";
    // pause
    /// Maintenance mode.
    PausedByOperator { for_ms: u64 } => "paused", "the cluster is paused for {for_ms} ms: PostgreSQL is left to the operator";
    /// Told before the guard is disarmed.
    LettingGo => "letting_go", "the cluster is paused: the store is told that this primary has no guard, then the guard is disarmed";
    /// Told when the guard is armed again.
    GuardedAgain => "guarded_again", "the pause is over and the guard is armed: the store is told that this primary has a guard again";
    /// Told when nothing can write any more.
    NothingWrites => "nothing_writes", "nothing writes here any more: the store is told, so that others may lead";
    // identity
    /// The data directory belongs to another cluster.
    SystemIdMismatch { ours: SystemId, cluster: SystemId } => "system_id_mismatch", "the data directory has system identifier {ours}, the cluster has {cluster}: this is another cluster's data; nothing is touched";
    /// The data directory cannot be used.
    DataDirUnusable { why: String } => "data_dir_unusable", "the data directory cannot be used: {why}";
    /// The directory was ours a moment ago.
    DataDirVanishing => "data_dir_vanishing", "the data directory has lost what makes it a database cluster, as while it is being removed: nothing is done until it is whole or empty";
    // isolated
    /// Nobody answers.
    AloneFor { ms: u64, store_ms: u64, peer_ms: u64, walsender_ms: u64 } => "alone", "no answer from anyone for {ms} ms (store {store_ms}, peers {peer_ms}, standbys {walsender_ms}): writes are held";
    // startup and busy
    /// PostgreSQL starts or recovers.
    CrashRecovery { since_ms: u64, limit_ms: u64 } => "starting", "PostgreSQL is starting or recovering for {since_ms} ms (limit {limit_ms} ms)";
    /// Recovery takes too long and others could serve.
    RecoveryTooLong { since_ms: u64, limit_ms: u64 } => "recovery_too_long", "PostgreSQL has been recovering for {since_ms} ms, longer than the {limit_ms} ms allowed: leadership is given up";
    /// PostgreSQL stops.
    Stopping => "stopping", "PostgreSQL is stopping";
    /// PostgreSQL does not end.
    DrainHangs { for_ms: u64 } => "drain_hangs", "PostgreSQL has written its shutdown checkpoint and waits for a standby or its archiver for {for_ms} ms: it is ended, nothing is lost by that";
    /// A session does not end.
    StopIgnored { for_ms: u64 } => "stop_ignored", "sessions have taken no notice of being stopped for {for_ms} ms: they are not waited for any longer (a fast stop takes the place of one by hand, an immediate one that of a fast one)";
    /// An initdb is under way.
    InitdbRunning { since_ms: u64 } => "initdb_running", "a new cluster is being initialised for {since_ms} ms";
    /// A clone is under way.
    CloneRunning { since_ms: u64 } => "clone_running", "the data directory is being cloned for {since_ms} ms";
    /// A rewind is under way.
    RewindRunning { since_ms: u64 } => "rewind_running", "pg_rewind is running for {since_ms} ms";
    /// A single-user crash recovery is under way.
    SingleUserRunning { since_ms: u64 } => "single_user_running", "a single-user crash recovery is running for {since_ms} ms";
    /// Nothing observed yet.
    Observing => "observing", "the store and PostgreSQL have not both been seen yet";
    // bootstrap
    /// The initialize key is asked for.
    NoClusterYet => "no_cluster_yet", "there is no cluster yet: this node asks to initialise it";
    /// Won the initialize key.
    Initialising => "initialising", "this node initialises the cluster";
    /// The initdb failed here.
    InitdbFailed => "initdb_failed", "initialising the cluster failed here (see the log): the right to do it is given back for a while";
    /// Another node initialises.
    InitTaken => "init_taken", "another node is initialising the cluster";
    /// Not allowed to initialise.
    MayNotInitialise => "may_not_initialise", "there is no cluster yet and this node may not initialise one (no bootstrap section, or nofailover)";
    /// The keys are gone, the cluster need not be.
    ClusterKnown { system_id: SystemId } => "cluster_known", "the store holds no cluster any more, but this agent has known one there ({system_id}): no other is made in its place; if it is gone for good, restart this agent";
    /// Somebody has data.
    MemberHasData { who: Member } => "member_has_data", "there is no cluster in the store, but {who} has data: none is made beside them";
    /// An operator removed `initialize` alone, and whoever has the data is not there.
    ClusterPublished { lsn: Lsn } => "cluster_published", "there is no cluster in the store, but what one has published is (up to {lsn}): none is made in its place; if it is gone for good, remove `status` and `history` as well";
    /// The data directory is empty and nobody can be cloned from.
    NoCloneSource => "no_clone_source", "the data directory is empty and no running leader is there to clone from";
    /// Without a source.
    Restoring => "restoring", "the data directory is empty and no running leader is there to clone from: it is made by a method of the operator that needs none";
    /// The clone is ordered.
    Cloning { from: Member } => "cloning", "the data directory is empty: it is cloned from {from}";
    /// The directory is half-made.
    Tainted { why: String } => "tainted", "the data directory is incomplete ({why}): it must be cloned again";
    // switchover
    /// The candidate is asked where it is.
    AskingCandidates => "asking_candidates", "candidates are asked for their positions";
    /// The time is taken out of the request.
    ScheduleBegun => "schedule_begun", "what was scheduled begins, and is asked for at once from here on";
    /// A checkpoint before the stop.
    CheckpointBeforeStop => "checkpoint_before_stop", "a checkpoint is written first so that the stop is short";
    /// Stopping for a hand-over.
    StoppingForHandover => "stopping_for_handover", "PostgreSQL is stopped cleanly before leadership is handed over";
    /// Waiting for a candidate to hold everything.
    AwaitingCandidate { lsn: Lsn } => "awaiting_candidate", "waiting for a candidate to have replayed beyond {lsn}";
    /// The leader key is released.
    HandingOver { to: Member } => "handing_over", "{to} holds everything: leadership is released to it";
    /// Released although nobody is there to take over.
    ReleasingToNobody => "releasing_to_nobody", "PostgreSQL is stopped and nobody can take over: leadership is released";
    /// The key is being given away.
    Releasing => "releasing", "leadership is being released: nothing is begun before the store has answered";
    /// Nobody came.
    NoTaker { after_ms: u64 } => "no_taker", "no candidate confirmed within {after_ms} ms: PostgreSQL is started again as primary";
    /// No good candidate.
    NoGoodCandidate => "no_good_candidate", "no good candidates have been found";
    /// The candidate is behind.
    CandidateLagging { who: Member, by_bytes: u64 } => "candidate_lagging", "{who} is {by_bytes} bytes behind";
    /// The request is not for this leader any more.
    RequestStale => "request_stale", "the request in the failover key does not fit the cluster any more: it is cleared";
    /// The agent stops.
    ShuttingDown => "shutting_down", "the agent was asked to stop";
    // leader
    /// All is well.
    TenureHeld { left_ms: u64 } => "tenure_held", "this node is the primary; the tenure holds for another {left_ms} ms";
    /// The guard must be armed first.
    ArmingGuard => "arming_guard", "the guard must acknowledge the tenure before PostgreSQL may write";
    /// The epoch must be on disk first.
    WritingEpoch { epoch: Revision } => "writing_epoch", "epoch {epoch} is written to disk before the promotion";
    /// The number of the next timeline.
    ReservingTimeline { timeline: Timeline } => "reserving_timeline", "timeline {timeline} is reserved in the store before the promotion: no other node may begin one of this number";
    /// Promotion.
    Promoting { epoch: Revision } => "promoting", "PostgreSQL is promoted under epoch {epoch}";
    /// In place.
    RestartInPlace { epoch: Revision } => "restart_in_place", "PostgreSQL is dead, nobody led since epoch {epoch}: it is started again in place as primary";
    /// Must go through recovery as a standby first.
    StartToPromote => "start_to_promote", "PostgreSQL is started as a standby without upstream to be promoted onto a new timeline";
    /// Starting failed.
    CannotServe { why: String } => "cannot_serve", "this node leads but cannot serve: {why}; leadership is given up";
    /// Roles of a new cluster.
    CreatingRoles => "creating_roles", "the roles of the new cluster are created";
    /// The primary has larger parameters.
    Outgrown => "outgrown", "replay has stopped since the primary runs with a larger max_connections, or the like, than this standby: it is restarted with as much";
    /// An operator's restart.
    RestartRequested => "restart_requested", "an operator asked for a restart";
    /// An operator's reinitialize.
    ReinitRequested => "reinit_requested", "an operator asked to clone this node again";
    // race
    /// Not allowed.
    NoFailoverTag => "no_failover_tag", "this node is tagged nofailover and does not race";
    /// The key left while its holder lives.
    VanishGrace { who: Member, left_ms: u64 } => "vanish_grace", "the leader key is gone but {who} lives: it gets another {left_ms} ms to take it back";
    /// Another is asked for by the operator.
    CandidateIsOther { who: Member } => "candidate_is_other", "an operator asked for {who} as the new leader: this node stands back";
    /// This node gave leadership up a moment ago.
    GaveUp { left_ms: u64 } => "gave_up", "this node gave leadership up because it could not serve, and does not race for another {left_ms} ms";
    /// The operator's own check refused.
    PromotionVetoed { left_ms: u64 } => "promotion_vetoed", "pre_promote refused the promotion of this node, which does not race for another {left_ms} ms";
    /// Positions are collected.
    CollectingPositions { missing: usize, left_ms: u64 } => "collecting_positions", "{missing} members have not told their position yet; {left_ms} ms are left";
    /// The WAL receiver is stopped before its position counts.
    FreezingReceiver => "freezing_receiver", "the WAL receiver is stopped so that the position counts";
    /// Behind.
    LagTooLarge { by_bytes: u64, limit_bytes: u64 } => "lag_too_large", "this node is {by_bytes} bytes behind the last known position of the leader, more than the {limit_bytes} allowed";
    /// Another is ahead.
    BehindPeer { who: Member, lsn: Lsn } => "behind_peer", "{who} is ahead at {lsn}: this node stands back";
    /// Another holds the newer branch.
    NewerBranch { who: Member, at: Lsn, by_bytes: u64, limit_bytes: u64 } => "newer_branch", "{who} is on a newer branch, which this node left at {at}: {by_bytes} bytes of it would be given up, more than the {limit_bytes} allowed";
    /// The last leader's branch is another.
    BranchLeft { at: Lsn, by_bytes: u64, limit_bytes: u64 } => "branch_left", "this node left the history of the leader at {at}: at least {by_bytes} bytes of that would be given up, more than the {limit_bytes} allowed";
    /// The same, with little to be lost.
    BranchAwaited { at: Lsn, left_ms: u64 } => "branch_awaited", "this node left the history of the leader at {at}: whoever holds more of that goes first for another {left_ms} ms";
    /// Another goes first among equals.
    PeerGoesFirst { who: Member } => "peer_goes_first", "{who} is equal and goes first";
    /// A primary answers.
    PrimaryAlive { who: Member } => "primary_alive", "{who} answers as a running primary: this node stands back";
    /// The last leader may write yet.
    UnguardedPrimary { who: Member } => "unguarded_primary", "{who} led without a guard while the cluster was paused, and has not told since that it has one again or writes nothing: this node stands back; if {who} is certainly down, ask for a failover to a named candidate (again, if that was asked for while it led)";
    /// Its primary is nobody's yet.
    UnmanagedUpstream { upstream: String } => "unmanaged_upstream", "the store knows of no cluster, and WAL streams from {upstream}, of which no agent has told: start the agent of that primary, or stop it";
    /// Nobody knows whom to ask.
    ClusterUnknown { left_ms: u64 } => "cluster_unknown", "the store knows of no cluster, and this agent has just started: who led before its keys were gone may write for another {left_ms} ms";
    /// The position is unknown.
    PositionUnknown => "position_unknown", "this node does not know its own position yet";
    /// Pledged.
    Campaigning { lease: LeaseId } => "campaigning", "this node asks for the leader key with lease {lease}";
    /// Lease for the campaign.
    AskingLease => "asking_lease", "a lease for the tenure is asked for";
    /// The granted lease is too short.
    TtlTooShort { granted_ms: u64, needed_ms: u64 } => "ttl_too_short", "the store granted {granted_ms} ms, but at least {needed_ms} ms are needed to stop in time";
    /// An old tenure of ours must go first.
    SpentTenure { lease: LeaseId } => "spent_tenure", "tenure {lease} of this node is over: it is revoked";
    /// The epoch on disk is of a future that the store has lost.
    StoreWentBack => "store_went_back", "the store was replaced or restored from a backup: the epoch file of this node is made void";
    /// Hand-over is expected.
    HandoverExpected => "handover_expected", "a hand-over to this node was announced: its lease is asked for in advance";
    // rewind
    /// The histories are compared.
    ComparingHistories { with: Member } => "comparing_histories", "the history is compared with that of {with}";
    /// Diverged.
    Diverged { at: Lsn, timeline: Timeline } => "diverged", "this node holds WAL after {at} on timeline {timeline} that the leader does not have: it is rewound";
    /// The leader's checkpoint is missing.
    LeaderNotCheckpointed { who: Member } => "leader_not_checkpointed", "{who} has not finished its checkpoint after promotion: the rewind waits";
    /// Rewind impossible and cloning not allowed.
    CannotRewind { why: String } => "cannot_rewind", "this node diverged and cannot be rewound ({why}): allow remove_data_directory_on_diverged_timelines (after a rewind that failed, remove_data_directory_on_rewind_failure does as well) or reinitialise it";
    /// Cloned again.
    CloneInstead { why: String, who: Member, at: Lsn } => "clone_instead", "rewinding does not work ({why}): this node is cloned again from {who}, which holds what both have up to {at}; what only this node has after it is given up";
    /// A crash recovery is needed before.
    SingleUserRecovery => "single_user_recovery", "the crashed primary recovers in single-user mode before it can be rewound";
    /// The crash recovery does not work.
    RecoveryFailed { why: String, again_ms: u64 } => "recovery_failed", "the crashed server does not recover in single-user mode ({why}): until it has, this node is neither rewound nor cloned; correct what is named, or save what you need and reinitialise it; it is tried again in {again_ms} ms";
    // follow
    /// Following.
    FollowingLeader { who: Member } => "following", "this node follows {who}";
    /// Starting to follow.
    StartingStandby { of: Member } => "starting_standby", "PostgreSQL is started as a standby of {of}";
    /// Turning to a new leader.
    TurningTo { who: Member } => "turning_to", "the standby is pointed to {who}";
    /// Nobody to follow.
    NoReplicationSource => "no_source", "there is no leader to follow";
    /// Without upstream.
    StartingAlone => "starting_alone", "PostgreSQL is started as a standby without upstream until a leader is found";
    /// The leader does not serve yet.
    LeaderNotReady { who: Member } => "leader_not_ready", "{who} leads but does not serve yet";
    // reconcilers and housekeeping
    /// The lease is renewed.
    RenewalDue => "renewal_due", "the tenure is renewed";
    /// The member record.
    PublishDue => "publish_due", "the member record is published";
    /// Positions.
    StatusDue => "status_due", "the position is published";
    /// Initialize and config.
    ClusterKeysDue => "cluster_keys_due", "the keys of the cluster are completed";
    /// History.
    HistoryDue => "history_due", "a new timeline is added to the history";
    /// Slots.
    SlotMissing { slot: String } => "slot_missing", "slot {slot} is missing";
    /// Slots.
    SlotObsolete { slot: String } => "slot_obsolete", "nobody wants slot {slot} here any more";
    /// Slots.
    SlotUnusable { slot: String } => "slot_unusable", "slot {slot} serves nobody as it is, and is made anew";
    /// Slots.
    SlotBehind { slot: String, to: Lsn } => "slot_behind", "slot {slot} keeps WAL that was read up to {to}";
    /// Parameters.
    ParametersChanged => "parameters_changed", "the configuration of PostgreSQL changed";
    /// Observation.
    ObservationDue => "observation_due", "what is known of the store or PostgreSQL is old";
    /// Someone must answer.
    ContactDue => "contact_due", "no one has answered for a while: everyone is asked";
    /// Not now.
    NotSteady => "not_steady", "nothing is maintained while the role changes";
    /// Nothing to do.
    AtGoal => "at_goal", "nothing is to be done";
    /// A timer.
    DeadlineOf { what: Cow<'static, str> } => "deadline", "the deadline of {what}";
}

#[cfg(test)]
mod tests {
    use super::Reason;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_stable_words_and_unique() {
        let unique: BTreeSet<_> = Reason::CODES.iter().collect();
        assert_eq!(unique.len(), Reason::CODES.len());
        for code in Reason::CODES {
            assert!(code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{code}");
        }
    }

    #[test]
    fn a_sentence_carries_its_numbers_and_units() {
        let reason = Reason::TenureExpired { ago_ms: 12 };
        assert_eq!(reason.code(), "tenure_expired");
        assert!(reason.to_string().contains("12 ms ago"));
    }
}
