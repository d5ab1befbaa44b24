//! Events change facts or complete operations; here and nowhere else. Authority is settled first.

use alloc::vec::Vec;

use crate::action::{Action, GuardAction, HostAction, PeerAction, PostgresAction, StoreAction};
use crate::config::LIFE_MIN;
use crate::config::RETRY_PAUSE;
use crate::event::{Event, GuardEvent, HostEvent, PeerEvent, PostgresDone, PostgresEvent, StoreDone, StoreEvent};
use crate::id::{OpId, Revision};
use crate::lease::{Held, Tenure};
use crate::op::{Outcome, Refusal};
use crate::state::{Granted, InFlight, PendingKind, Pledge, PositionAsked, REQUESTS_MAX, State};
use crate::time::{Instant, Seen};
use crate::view::View;
use crate::view::guard::GuardFacts;
use crate::view::postgres::{DataDir, Phase, Process, StartAs};
use crate::view::store::{ClusterView, Vanished};

/// Takes one event in. Completions that fail are remembered so that they are not repeated at once.
pub(crate) fn absorb(state: &mut State, at: Instant, event: Event) {
    match event {
        Event::Started(started) => {
            state.epoch_file = started.epoch;
            state.pledge =
                started.pledge.map(|absent_at| Pledge { absent_at, since: at, frozen: false, on_disk: true });
        }
        Event::Ticked(wall) => state.wall = (at, wall),
        Event::Store(event) => store(state, at, event),
        Event::Postgres(event) => postgres(state, at, event),
        Event::Host(HostEvent::Completed { op, outcome }) => host(state, at, op, &outcome),
        Event::Guard(event) => guard(state, at, event),
        Event::Peer(event) => peer(state, at, event),
        Event::Operator(id, request) => crate::procedure::begin(state, at, id, request),
        Event::Configured(config) => configured(state, at, config),
        Event::ShutdownAsked => state.leaving = true,
    }
    settle_adoption(state, at);
}

/// Another configuration is in force. A cluster that was observed only may run a primary that this agent knows nothing
/// of: it looks for its tenure as after a start, instead of stopping what was somebody else's business until now.
fn configured(state: &mut State, at: Instant, config: crate::config::Config) {
    let observed = state.config.unsupported.is_some() && config.unsupported.is_none();
    state.config = config;
    let free = matches!(state.tenure, Tenure::None | Tenure::Adopting { .. });
    if observed && free {
        state.tenure = Tenure::Adopting { deadline: at + state.config.ttl.min(state.config.retry_timeout) };
    }
}

/// Ends an operation by its deadline: its outcome is unknown.
pub(crate) fn overdue(state: &mut State, at: Instant, op: OpId) {
    let Some(in_flight) = state.ops.end(op) else { return };
    failed(state, at, &in_flight.action);
    if let Action::Store(action) = &in_flight.action {
        store_unknown(state, action);
    }
    if let Action::Peer(PeerAction::AskPosition { member, .. } | PeerAction::AskStatus { member, .. }) =
        &in_flight.action
    {
        state.peers.unreachable.insert(member.clone(), at);
    }
}

/// An operation lost its lane to another: its outcome is unknown, and nobody will tell it.
pub(crate) fn cancelled(state: &mut State, in_flight: &InFlight) {
    match &in_flight.action {
        Action::Postgres(PostgresAction::Start(_)) => recount_orphans(state),
        Action::Postgres(PostgresAction::Restart) => {
            recount_orphans(state);
            crate::procedure::restart_ended(state, in_flight.op, Some("another operation took its place".into()));
        }
        _ => {}
    }
}

/// An operation that may have brought a postmaster up ended, and no postmaster was seen: one may have come and gone
/// between two looks, and its children are not counted.
fn recount_orphans(state: &mut State) {
    if state.postgres.process == Process::Absent {
        state.postgres.orphans = None;
    }
}

fn failed(state: &mut State, at: Instant, action: &Action) {
    state.memory.failed.insert(kind(action), at);
}

/// A name for the kind of an order, for pauses after failures.
pub(crate) fn kind(action: &Action) -> &'static str {
    match action {
        Action::Store(action) => match action {
            StoreAction::Renew { .. } => "renew",
            StoreAction::GrantTenure { .. }
            | StoreAction::Acquire(_)
            | StoreAction::TakeOver { .. }
            | StoreAction::Release { .. }
            | StoreAction::RaceInitialize { .. }
            | StoreAction::AbandonInitialize { .. } => "lead",
            StoreAction::Revoke { .. } => "revoke",
            StoreAction::Read => "read",
            StoreAction::GrantSession { .. }
            | StoreAction::KeepSession { .. }
            | StoreAction::PutMember { .. }
            | StoreAction::CompleteInitialize { .. }
            | StoreAction::PutStatus { .. }
            | StoreAction::PutHistory { .. }
            | StoreAction::PutFailover { .. }
            | StoreAction::ClearFailover { .. } => "publish",
        },
        Action::Postgres(PostgresAction::Observe | PostgresAction::Look) => "observe",
        Action::Postgres(PostgresAction::Freeze) => "freeze",
        Action::Postgres(PostgresAction::Stop(_)) => "stop",
        Action::Postgres(PostgresAction::CreateSlot(_) | PostgresAction::DropSlot(_)) => "slot",
        Action::Postgres(PostgresAction::Configure { .. }) => "configure",
        Action::Postgres(PostgresAction::Compare(_)) => "compare",
        Action::Postgres(_) => "control",
        Action::Host(_) => "host",
        Action::Guard(GuardAction::Fire) => "fire",
        Action::Guard(_) => "guard",
        Action::Peer(PeerAction::AwaitReplay { .. }) => "await",
        Action::Peer(_) => "peer",
        Action::Answer(..) => "answer",
    }
}

// --- store ----------------------------------------------------------------------------------------------------------

fn store(state: &mut State, at: Instant, event: StoreEvent) {
    match event {
        // A watch that still speaks is no answer: with only our packets lost it goes on, while nobody hears this node.
        StoreEvent::Watched(seen) => {
            view_seen(state, seen);
        }
        StoreEvent::Completed { op, outcome, asked } => {
            let Some(in_flight) = state.ops.end(op) else { return };
            let Action::Store(action) = in_flight.action.clone() else { return };
            if !matches!(outcome, Outcome::Unknown(_)) {
                state.store.answered = state.store.answered.max(asked);
            }
            match outcome {
                Outcome::Done(done) => store_done(state, at, &action, done, asked),
                Outcome::Refused(refusal) => {
                    failed(state, at, &in_flight.action);
                    store_refused(state, at, &action, &refusal);
                }
                Outcome::Unknown(_) => {
                    failed(state, at, &in_flight.action);
                    store_unknown(state, &action);
                }
            }
        }
    }
}

fn store_done(state: &mut State, at: Instant, action: &StoreAction, done: StoreDone, asked: Instant) {
    match (action, done) {
        (_, StoreDone::Read(view)) => {
            state.memory.store_doubt = false;
            view_seen(state, Seen::new(view, asked, at));
        }
        (StoreAction::GrantTenure { .. }, StoreDone::Granted { lease, ttl }) => {
            state.granted = Some(Granted { lease, ttl, asked });
        }
        (_, StoreDone::Granted { lease, ttl }) => {
            state.session.lease = Some(lease);
            state.session.ttl = ttl;
            state.session.kept = asked;
            state.session.published = None;
        }
        (_, StoreDone::Acquired(view)) => view_seen(state, Seen::new(view, asked, at)),
        (StoreAction::Renew { lease, epoch, .. }, StoreDone::Renewed { ttl }) => {
            renewed(state, Held { lease: *lease, epoch: *epoch, ttl, confirmed: asked });
        }
        (_, StoreDone::SessionKept) => state.session.kept = asked,
        (StoreAction::Release { .. }, StoreDone::Released) => released(state),
        (StoreAction::Revoke { lease }, StoreDone::Revoked) => {
            if state.spent == Some(*lease) {
                state.spent = None;
            }
        }
        (StoreAction::RaceInitialize { .. }, StoreDone::Written) => state.memory.initialising = true,
        (StoreAction::AbandonInitialize { .. }, StoreDone::Written) => {
            state.memory.initialising = false;
            state.memory.initdb_failed = false;
            state.memory.gave_up = Some(at);
        }
        (StoreAction::PutMember { record, .. }, StoreDone::Written) => {
            state.session.published = Some(record.clone());
            state.session.published_at = at;
        }
        (StoreAction::PutStatus { .. }, StoreDone::Written) => state.session.status_at = at,
        (StoreAction::PutFailover { .. }, StoreDone::Written) => {
            crate::procedure::failover_written(state, action, true);
        }
        (
            StoreAction::CompleteInitialize { .. } | StoreAction::PutHistory { .. } | StoreAction::ClearFailover { .. },
            StoreDone::Written,
        ) => {
            if matches!(action, StoreAction::CompleteInitialize { .. }) {
                state.memory.initialising = false;
            }
            state.memory.written = state.store.cluster.as_ref().map_or(Revision(0), |seen| seen.value.revision);
            state.memory.store_doubt = true;
        }
        // Written, and nothing to remember: the watch brings it back.
        (_, StoreDone::Renewed { .. } | StoreDone::Released | StoreDone::Revoked | StoreDone::Written) => {}
    }
}

/// A proven renewal, or the adoption of our own tenure after a start. The newest sending counts.
fn renewed(state: &mut State, proven: Held) {
    match &mut state.tenure {
        Tenure::Held(held) if held.lease == proven.lease => {
            assert_eq!(held.epoch, proven.epoch, "one lease is one tenure");
            if proven.confirmed > held.confirmed {
                held.confirmed = proven.confirmed;
                held.ttl = proven.ttl;
            }
        }
        Tenure::Adopting { .. } if state.spent != Some(proven.lease) => state.tenure = Tenure::Held(proven),
        // A renewal of what is over: too late to bring it back.
        Tenure::Held(_) | Tenure::Adopting { .. } | Tenure::Suspended { .. } | Tenure::None => {}
    }
}

/// The key is deleted, or may be: either way this tenure is spent.
fn released(state: &mut State) {
    state.spend_tenure();
    state.memory.start_failures = 0;
    state.memory.handover_announced = None;
}

fn store_refused(state: &mut State, at: Instant, action: &StoreAction, refusal: &Refusal) {
    match action {
        // A store that says no for another reason (a permission, a quota) has not said that the key is not ours.
        StoreAction::Renew { .. } if !matches!(refusal, Refusal::LeaseGone | Refusal::Conflict) => {}
        StoreAction::Renew { lease, .. } => {
            let ours = state.tenure.held().is_some_and(|held| held.lease == *lease);
            if ours {
                // The store says that the key or the lease is not ours any more. What is there instead is in the view;
                // until it is seen, authority is over and a reversible fence bridges.
                suspend_or_spend(state, at);
            }
            if matches!(state.tenure, Tenure::Adopting { .. }) {
                state.tenure = Tenure::None;
            }
        }
        StoreAction::Acquire(_) | StoreAction::TakeOver { .. } => {
            if *refusal == Refusal::LeaseGone {
                state.granted = None;
            }
            state.memory.store_doubt = true;
        }
        StoreAction::Release { .. } => released(state),
        // "Not found" is as good as revoked.
        StoreAction::Revoke { lease } => {
            if state.spent == Some(*lease) && *refusal == Refusal::LeaseGone {
                state.spent = None;
            }
        }
        StoreAction::KeepSession { .. } | StoreAction::PutMember { .. } => {
            if *refusal == Refusal::LeaseGone {
                state.session.lease = None;
            }
        }
        StoreAction::PutFailover { .. } => crate::procedure::failover_written(state, action, false),
        StoreAction::Read
        | StoreAction::GrantTenure { .. }
        | StoreAction::GrantSession { .. }
        | StoreAction::RaceInitialize { .. }
        | StoreAction::AbandonInitialize { .. }
        | StoreAction::CompleteInitialize { .. }
        | StoreAction::PutStatus { .. }
        | StoreAction::PutHistory { .. }
        | StoreAction::ClearFailover { .. } => {}
    }
}

/// No answer: it may have happened. A release may have: the tenure is spent, never served under again. Everything else
/// is looked at again before anything is built on it.
fn store_unknown(state: &mut State, action: &StoreAction) {
    match action {
        StoreAction::Release { .. } => released(state),
        StoreAction::PutFailover { .. } => crate::procedure::failover_written(state, action, true),
        // With every watch silent nothing else would tell for loop_wait whether the key is ours.
        StoreAction::Acquire(_) | StoreAction::TakeOver { .. } => state.memory.store_doubt = true,
        StoreAction::PutMember { .. } => state.session.published = None,
        _ => {}
    }
}

/// The keys as of a revision. An older one than is known says nothing new.
fn view_seen(state: &mut State, seen: Seen<ClusterView>) {
    if let Some(known) = state.store.cluster.as_ref().map(|known| &known.value).filter(|k| k.store == seen.value.store)
    {
        let new = &seen.value;
        if (new.rollbacks, new.revision) < (known.rollbacks, known.revision) {
            return;
        }
        if new.rollbacks > known.rollbacks {
            went_back(state);
        }
    }
    authority(state, &seen);
    let before = state.store.cluster.as_ref().and_then(|known| known.value.leader.clone());
    match (&before, &seen.value.leader) {
        (_, Some(_)) => {
            state.store.vanished = None;
            state.memory.race = None;
            state.memory.leaderless = None;
        }
        (Some(leader), None) => {
            state.store.vanished = Some(Vanished { heard: seen.heard, who: leader.member.clone() });
            state.memory.race = Some((seen.value.revision, seen.heard));
            // What PostgreSQL told while the leader lived is not where it is now: WAL was received since.
            state.memory.changed = state.memory.changed.max(seen.heard);
        }
        (None, None) if state.memory.race.is_none() => state.memory.race = Some((seen.value.revision, seen.heard)),
        (None, None) => {}
    }
    if seen.value.leader.is_none() {
        state.memory.leaderless = state.memory.leaderless.or(Some(seen.heard));
    }
    if let (Some(pledge), Some(leader)) = (state.pledge, &seen.value.leader)
        && leader.created > pledge.absent_at
    {
        state.pledge = None;
    }
    let own = seen.value.members.get(&state.config.me);
    // Two nodes under one name would overwrite each other as fast as the store answers.
    let settled = seen.heard.since(state.session.published_at) >= RETRY_PAUSE;
    if settled && own.is_none_or(|own| state.session.lease.is_some_and(|lease| lease != own.lease)) {
        state.session.published = None;
    }
    state.store.cluster = Some(seen);
}

/// The store was restored from a backup: its revisions are minted a second time, and what is remembered by one may be
/// true of another tenure, or never have happened.
fn went_back(state: &mut State) {
    state.epoch_file = None;
    state.pledge = None;
    state.spend_tenure();
    state.granted = None;
    state.session.lease = None;
    let memory = &mut state.memory;
    (memory.race, memory.compared, memory.rewind_failed) = (None, None, None);
    memory.written = Revision(0);
}

/// What the leader key says about our tenure. It can only end it, or begin the one that was asked for; it never
/// prolongs one.
fn authority(state: &mut State, seen: &Seen<ClusterView>) {
    let leader = seen.value.leader.as_ref();
    let granted = state.granted.filter(|g| leader.is_some_and(|l| l.lease == g.lease) && state.spent != Some(g.lease));
    if let (Some(granted), Some(leader)) = (granted, leader) {
        let held = Held { lease: granted.lease, epoch: leader.created, ttl: granted.ttl, confirmed: granted.asked };
        let known = state.tenure.held().is_some_and(|held| held.lease == granted.lease);
        if !known && leader.member == state.config.me {
            state.tenure = Tenure::Held(held);
            state.granted = None;
        }
        return;
    }
    match (&state.tenure, leader) {
        (Tenure::Held(held), Some(leader)) if leader.lease == held.lease && leader.created == held.epoch => {}
        (Tenure::Held(_), None) => suspend_or_spend(state, seen.heard),
        // A refused renewal was faster than the watch, which still tells of the key that is gone: no news.
        (Tenure::Suspended { was, .. }, Some(leader)) if leader.lease == was.lease && leader.created == was.epoch => {}
        (Tenure::Held(_) | Tenure::Suspended { .. }, Some(_)) => state.spend_tenure(),
        (Tenure::Suspended { .. } | Tenure::None | Tenure::Adopting { .. }, _) => {}
    }
}

/// Our key is gone and nobody else is seen. A primary gets a moment to take it back; anything else just loses it.
fn suspend_or_spend(state: &mut State, since: Instant) {
    let view = View { at: since, state };
    // What is not there yet cannot be held: a postmaster that is being started is stopped instead.
    let writes = view.may_write() && view.phase().is_some();
    match (&state.tenure, writes) {
        (Tenure::Held(held), true) => state.tenure = Tenure::Suspended { was: *held, since },
        (Tenure::Held(_), false) => state.spend_tenure(),
        (Tenure::None | Tenure::Adopting { .. } | Tenure::Suspended { .. }, _) => {}
    }
}

/// The search for a tenure after a start ends where there is nothing to adopt: PostgreSQL does not write and the key is
/// not provably ours, or the key names another.
fn settle_adoption(state: &mut State, at: Instant) {
    let Tenure::Adopting { .. } = state.tenure else { return };
    let view = View { at, state };
    let unseen = view.state.postgres.process == Process::Unknown || view.state.postgres.data == DataDir::Unknown;
    let Some(cluster) = view.cluster() else { return };
    let foreign = cluster.leader.as_ref().is_some_and(|leader| leader.member != view.config().me);
    if unseen && !foreign {
        return;
    }
    let ours = cluster.leader.as_ref().is_some_and(|leader| crate::decide::is_our_key(&view, leader));
    let identity = cluster.system_id().is_some_and(|id| view.dir().is_none_or(|dir| dir.system_id != id));
    if foreign || (identity && view.phase().is_some()) || (!view.may_write() && !ours) {
        state.tenure = Tenure::None;
    }
}

// --- PostgreSQL -----------------------------------------------------------------------------------------------------

fn postgres(state: &mut State, at: Instant, event: PostgresEvent) {
    match event {
        PostgresEvent::ProcessSeen(process) => process_seen(state, at, process),
        PostgresEvent::DataSeen(data) => {
            if state.postgres.data != data {
                state.memory.changed = at;
                state.postgres.data = data;
                state.memory.owned |= is_ours(state);
            }
        }
        PostgresEvent::Answered { op, sql } => {
            let in_flight = state.ops.end(op);
            match sql {
                Some(seen) => answered(state, seen),
                None => {
                    if let Some(in_flight) = in_flight {
                        failed(state, at, &in_flight.action);
                    }
                }
            }
        }
        PostgresEvent::Completed { op, outcome } => {
            let Some(in_flight) = state.ops.end(op) else { return };
            state.memory.changed = at;
            control_ended(state, at, &in_flight, outcome);
        }
    }
}

/// The data directory is a part of this cluster.
fn is_ours(state: &State) -> bool {
    let DataDir::Cluster(dir) = &state.postgres.data else { return false };
    state.store.cluster.as_ref().and_then(|seen| seen.value.system_id()) == Some(dir.system_id)
}

fn process_seen(state: &mut State, at: Instant, process: Process) {
    let before = state.postgres.process;
    if before == process {
        return;
    }
    state.memory.changed = at;
    state.postgres.process = process;
    match process {
        Process::Absent => {
            state.postgres.sql = None;
            // The children of a dead postmaster are not counted by looking at the postmaster.
            state.postgres.orphans = None;
            state.memory.dead_since = Some(at);
            // One that lived for a while was no failed start, whatever ended it.
            let lived = state.memory.ready_since.take().is_some_and(|since| at.since(since) >= LIFE_MIN);
            if lived {
                state.memory.start_failures = 0;
            }
            state.memory.starting_since = None;
            state.memory.promotion = false;
            state.memory.as_standby = false;
            state.memory.needs_restart = false;
        }
        Process::Alive { pid, phase } => {
            let same = matches!(before, Process::Alive { pid: old, .. } if old == pid);
            if !same {
                state.postgres.sql = None;
                state.memory.promotion = false;
                state.memory.needs_restart = false;
            }
            state.postgres.orphans = None;
            state.memory.dead_since = None;
            state.memory.starting_since = match phase {
                Phase::Starting => state.memory.starting_since.filter(|_| same).or(Some(at)),
                Phase::Ready | Phase::Stopping => None,
            };
            if phase == Phase::Ready {
                state.memory.ready_since.get_or_insert(at);
            }
        }
        Process::Unknown => {}
    }
}

fn answered(state: &mut State, seen: Seen<crate::view::postgres::Sql>) {
    if state.postgres.sql.as_ref().is_some_and(|known| known.asked > seen.asked)
        || state.postgres.process == Process::Absent
    {
        return;
    }
    if seen.value.receiver.as_ref().is_some_and(|receiver| receiver.streaming) {
        state.memory.streamed = seen.asked;
    }
    // A receiver that is there again is not frozen, whatever was confirmed before.
    if seen.value.receiver.is_some()
        && let Some(pledge) = state.pledge.as_mut()
    {
        pledge.frozen = false;
    }
    state.postgres.sql = Some(seen);
}

fn control_ended(state: &mut State, at: Instant, in_flight: &InFlight, outcome: Outcome<PostgresDone>) {
    let Action::Postgres(action) = &in_flight.action else { return };
    let (op, refused) = (
        in_flight.op,
        match &outcome {
            Outcome::Done(_) => None,
            Outcome::Refused(Refusal::Failed(why)) | Outcome::Unknown(why) => Some(why.clone()),
            Outcome::Refused(_) => Some("refused".into()),
        },
    );
    if refused.is_some() {
        failed(state, at, &in_flight.action);
    }
    // A start that came too late for its tenure says nothing about whether PostgreSQL can start.
    let too_late = matches!(outcome, Outcome::Refused(Refusal::NotOurTenure));
    if matches!(action, PostgresAction::Start(_)) && !too_late {
        state.memory.start_failures = state.memory.start_failures.saturating_add(1);
    }
    if matches!(action, PostgresAction::Start(_) | PostgresAction::Restart) {
        state.memory.as_standby = false;
        recount_orphans(state);
    }
    match (action, outcome) {
        (PostgresAction::Start(StartAs::Standby(upstream)) | PostgresAction::Follow(upstream), Outcome::Done(done)) => {
            state.memory.needs_restart |= done == PostgresDone::NeedsRestart;
            state.memory.followed.clone_from(upstream);
            state.memory.streamed = at;
            state.memory.turned = at;
        }
        (PostgresAction::Checkpoint, _) => state.memory.checkpointed = Some(at),
        (PostgresAction::Initdb, outcome) => state.memory.initdb_failed = !matches!(outcome, Outcome::Done(_)),
        // A look that saw nothing is repeated, but not as fast as it sees nothing.
        (PostgresAction::Look, Outcome::Done(_))
            if state.postgres.process == Process::Unknown || state.postgres.data == DataDir::Unknown =>
        {
            failed(state, at, &in_flight.action);
        }
        (PostgresAction::Promote, Outcome::Refused(_)) => state.memory.promotion = false,
        (PostgresAction::CreateRoles, Outcome::Done(_)) => state.memory.roles_created = true,
        (PostgresAction::Clone(_), Outcome::Done(_)) => {
            state.memory.reinit = false;
            state.memory.rewind_failed = None;
            state.memory.compared = None;
        }
        (PostgresAction::Compare(_), Outcome::Done(PostgresDone::Compared(diverged_at))) => {
            state.memory.compared = in_flight.leader.map(|epoch| (epoch, diverged_at));
        }
        (PostgresAction::Rewind(_), Outcome::Done(_)) => {
            state.memory.compared = in_flight.leader.map(|epoch| (epoch, None));
        }
        (PostgresAction::Rewind(_), _)
        | (PostgresAction::RecoverSingleUser, Outcome::Refused(_) | Outcome::Unknown(_)) => {
            state.memory.rewind_failed = in_flight.leader.zip(refused.clone());
        }
        (PostgresAction::Freeze, Outcome::Done(_)) => {
            let absent_at = state.memory.race.map_or(Revision(0), |(revision, _)| revision);
            let before = state.pledge.filter(|pledge| pledge.absent_at == absent_at);
            state.pledge =
                Some(before.map_or(Pledge { absent_at, since: at, frozen: true, on_disk: false }, |pledge| Pledge {
                    frozen: true,
                    ..pledge
                }));
            state.memory.followed = None;
        }
        (PostgresAction::Configure { .. }, Outcome::Done(PostgresDone::Configured { generation })) => {
            state.memory.configured = generation;
        }
        (PostgresAction::Restart, outcome) => {
            state.memory.needs_restart &= !matches!(outcome, Outcome::Done(_));
            crate::procedure::restart_ended(state, op, refused);
        }
        _ => {}
    }
}

// --- host, guard, peers -----------------------------------------------------------------------------------------------

fn host(state: &mut State, at: Instant, op: OpId, outcome: &Outcome<()>) {
    let Some(in_flight) = state.ops.end(op) else { return };
    let Action::Host(action) = &in_flight.action else { return };
    match (action, outcome) {
        (HostAction::WriteEpoch(file), Outcome::Done(())) => {
            state.epoch_file = Some(*file);
            state.memory.epoch_failing = None;
        }
        (HostAction::WriteEpoch(_), _) => {
            state.memory.epoch_failing.get_or_insert(at);
            failed(state, at, &in_flight.action);
        }
        (HostAction::WritePledge(promised), Outcome::Done(())) => {
            if let Some(pledge) = state.pledge.as_mut().filter(|pledge| Some(pledge.absent_at) == *promised) {
                pledge.on_disk = true;
            }
        }
        _ => failed(state, at, &in_flight.action),
    }
}

fn guard(state: &mut State, at: Instant, event: GuardEvent) {
    match event {
        GuardEvent::Connected { armed, held, fired } => {
            // What an earlier guard held stays stopped: a new one knows nothing of it, but it can let it go on.
            let held = held || state.guard.held;
            state.guard = GuardFacts { present: true, since: at, gone: None, armed, held, fired, stuck: 0 };
            state.guard_asked = crate::state::GuardAsked::default();
            if let Some(tenure) = fired.filter(|_| armed.is_none()) {
                spent_by_guard(state, tenure);
            }
            // What the last agent promised bounds how long its PostgreSQL may go on.
            if let (Tenure::Adopting { deadline }, Some(armed)) = (&mut state.tenure, armed) {
                *deadline = armed.at;
            }
        }
        GuardEvent::Armed(armed) => state.guard.armed = Some(armed),
        GuardEvent::Refused(_) => {
            // Which order it was is not told: all that are open may be given again, after a pause.
            if state.guard_asked.fire.is_some() {
                state.memory.failed.insert("fire", at);
            }
            state.guard_asked = crate::state::GuardAsked::default();
            state.memory.failed.insert("guard", at);
        }
        GuardEvent::Disarmed => {
            state.guard.armed = None;
            state.guard_asked.disarm = false;
            state.guard_asked.arm = None;
        }
        GuardEvent::Held => {
            state.guard.held = true;
            state.guard_asked.hold = false;
        }
        GuardEvent::Resumed => {
            state.guard.held = false;
            state.guard_asked.resume = false;
        }
        GuardEvent::Fired { tenure } => {
            state.guard.fired = Some(tenure);
            state.guard.armed = None;
            state.guard.held = false;
            state.guard.stuck = 0;
            state.guard_asked = crate::state::GuardAsked::default();
            if state.tenure.held().is_some_and(|held| held.lease == tenure)
                || matches!(state.tenure, Tenure::Suspended { .. })
            {
                state.spend_tenure();
            }
            if matches!(state.tenure, Tenure::Adopting { .. }) {
                state.tenure = Tenure::None;
            }
            process_seen(state, at, Process::Absent);
            state.postgres.orphans = Some(0);
        }
        // It stopped or killed what it could. Orphans are asked for again; what it holds is let go on like any other hold.
        GuardEvent::Stuck { processes } => {
            state.guard.stuck = processes;
            state.guard.held |= state.guard_asked.hold;
            state.guard_asked.hold = false;
            state.guard_asked.orphans = false;
        }
        GuardEvent::OrphansDead => {
            state.guard_asked.orphans = false;
            if state.postgres.process == Process::Absent {
                state.postgres.orphans = Some(0);
            }
        }
        GuardEvent::Gone => {
            state.guard.present = false;
            // A guard that could not be started is gone as well: the time without one goes on.
            state.guard.gone = state.guard.gone.or(Some(at));
            state.guard.armed = None;
            let start = state.guard_asked.start;
            state.guard_asked = crate::state::GuardAsked { start, ..Default::default() };
        }
    }
}

/// The guard fired while nobody listened: the tenure is spent, even if its key is still there. The guard arms it never
/// again, so that adopting it would mean to lead for ever and never serve.
fn spent_by_guard(state: &mut State, tenure: crate::id::LeaseId) {
    if state.tenure.held().is_some_and(|held| held.lease == tenure) {
        state.spend_tenure();
    }
    let key = state.store.cluster.as_ref().and_then(|seen| seen.value.leader.as_ref());
    let other = key.is_some_and(|leader| leader.lease != tenure);
    if matches!(state.tenure, Tenure::Adopting { .. }) && tenure != crate::id::LeaseId(0) && !other {
        state.spent = Some(tenure);
        state.tenure = Tenure::None;
    }
}

fn peer(state: &mut State, at: Instant, event: PeerEvent) {
    match event {
        PeerEvent::Answered { op, member, outcome, asked } => {
            let in_flight = state.ops.end(op);
            match outcome {
                Outcome::Done(answer) => {
                    state.peers.answered = state.peers.answered.max(asked);
                    state.peers.unreachable.remove(&member);
                    let older = state.peers.answers.get(&member).is_some_and(|known| known.asked > asked);
                    if !older {
                        state.peers.answers.insert(member, Seen::new(answer, asked, at));
                    }
                }
                Outcome::Refused(_) | Outcome::Unknown(_) => {
                    if let Some(in_flight) = in_flight {
                        failed(state, at, &in_flight.action);
                        state.peers.unreachable.insert(member, in_flight.since);
                    }
                }
            }
            keep_members_only(state);
        }
        PeerEvent::PositionAsked { request, absent_at } => {
            assert!(state.position_asked.len() < REQUESTS_MAX, "the runtime admits no more");
            state.position_asked.push(PositionAsked { request, absent_at, since: at });
            // It knows of something that this node has not heard, perhaps because a watch is silent.
            let known = state.store.cluster.as_ref().map_or(Revision(0), |seen| seen.value.revision);
            state.memory.store_doubt |= known < absent_at;
        }
        PeerEvent::HandoverAnnounced => state.memory.handover_announced = Some(at),
    }
}

/// Answers of members that are gone are forgotten: nothing grows without bound.
fn keep_members_only(state: &mut State) {
    let Some(cluster) = &state.store.cluster else { return };
    let members = &cluster.value.members;
    state.peers.answers.retain(|name, _| members.contains_key(name));
    state.peers.unreachable.retain(|name, _| members.contains_key(name));
}

/// Restarts that wait for an operation take the number of the one that was just ordered.
pub(crate) fn restart_ordered(state: &mut State, op: OpId) {
    let waiting: Vec<_> = state.requests.values_mut().collect();
    for pending in waiting {
        if let PendingKind::Restart { op: slot @ None } = &mut pending.kind {
            *slot = Some(op);
        }
    }
}
