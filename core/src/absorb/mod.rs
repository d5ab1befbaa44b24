//! Events change facts or complete operations; here and nowhere else. Authority is settled first.

mod guard;
mod keys;
mod peers;
mod postgres;
mod store;

use self::keys::settle_adoption;
use self::store::store_unknown;
use crate::action::{Action, GuardAction, HostAction, Lane, PeerAction, PostgresAction, StoreAction};
use crate::event::{Event, HostEvent};
use crate::id::OpId;
use crate::lease::Tenure;
use crate::op::Outcome;
use crate::state::{InFlight, Pledge, State};
use crate::time::Instant;
use crate::view::postgres::Process;

/// Takes one event in. Completions that fail are remembered so that they are not repeated at once.
pub(crate) fn absorb(state: &mut State, at: Instant, event: Event) {
    match event {
        Event::Started(started) => {
            state.epoch_file = started.epoch;
            state.pledge =
                started.pledge.map(|absent_at| Pledge { absent_at, since: at, frozen: false, on_disk: true });
            guard::inherit_promotion(state);
        }
        Event::Ticked(wall) => state.wall = (at, wall),
        Event::Store(event) => store::store(state, at, event),
        Event::Postgres(event) => postgres::postgres(state, at, event),
        Event::Host(HostEvent::Completed { op, outcome }) => host(state, at, op, &outcome),
        Event::Guard(event) => guard::guard(state, at, event),
        Event::Peer(event) => peers::peer(state, at, event),
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
    // The ttl of a tenure is that of its lease: a shorter one is for the next.
    state.memory.tenure_ttl = state.memory.tenure_ttl.max(state.config.ttl);
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
    state.memory.promotion_in_doubt |= matches!(in_flight.action, Action::Postgres(PostgresAction::Promote { .. }));
    // A disk that hangs is as good as one that takes nothing.
    if let Action::Host(HostAction::WriteEpoch(file)) = &in_flight.action {
        state.memory.epoch_failing.get_or_insert(in_flight.since);
        doubt_epoch(state, *file);
    }
    if let Action::Store(action) = &in_flight.action {
        store_unknown(state, at, action);
    }
    if let Action::Peer(PeerAction::AskPosition { member, .. } | PeerAction::AskStatus { member, .. }) =
        &in_flight.action
    {
        // The race: this agent stood still, and the answer waits behind this step; or a round has begun since it was asked.
        // What was asked before a round says nothing in it: who was silent is asked again.
        state.peers.unreachable.insert(member.clone(), in_flight.since);
    }
}

/// Whether this was written is not known. Where nothing was known to be there, it may be what is to be forgotten.
fn doubt_epoch(state: &mut State, file: crate::event::EpochFile) {
    state.memory.epoch_in_doubt = true;
    state.epoch_file.get_or_insert(file);
}

/// An operation lost its lane to another: its outcome is unknown, and nobody will tell it.
pub(crate) fn cancelled(state: &mut State, in_flight: &InFlight) {
    match &in_flight.action {
        Action::Postgres(PostgresAction::Promote { .. }) => state.memory.promotion_in_doubt = true,
        Action::Postgres(PostgresAction::Start(_)) => {
            state.memory.followed = None;
            recount_orphans(state);
        }
        Action::Postgres(PostgresAction::Restart) => {
            recount_orphans(state);
            crate::procedure::restart::ended(state, in_flight.op, Some("another operation took its place".into()));
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
    state.memory.failed.insert(kind(action).into(), at);
}

/// A name for the kind of an order, for pauses after failures.
pub(crate) fn kind(action: &Action) -> &'static str {
    match action {
        Action::Store(StoreAction::Revoke { .. }) => "revoke",
        Action::Store(_) => match action.lane() {
            Some(Lane::Renew) => "renew",
            Some(Lane::Lead) => "lead",
            Some(Lane::Observe) => "read",
            _ => "publish",
        },
        Action::Postgres(PostgresAction::Observe | PostgresAction::Look) => "observe",
        Action::Postgres(PostgresAction::Freeze) => "freeze",
        Action::Postgres(PostgresAction::Stop(_)) => "stop",
        Action::Postgres(PostgresAction::CreateSlot(_) | PostgresAction::DropSlot(_)) => "slot",
        Action::Postgres(PostgresAction::AdvanceSlot { .. }) => "advance_slot",
        Action::Postgres(PostgresAction::Configure { .. }) => "configure",
        Action::Postgres(PostgresAction::Compare(_)) => "compare",
        Action::Postgres(PostgresAction::Checkpoint) => "checkpoint",
        Action::Postgres(_) => "control",
        Action::Host(_) => "host",
        Action::Guard(GuardAction::Fire) => "fire",
        Action::Guard(GuardAction::Hold) => "hold",
        Action::Guard(_) => "guard",
        Action::Peer(PeerAction::AwaitReplay { .. }) => "await",
        Action::Peer(_) => "peer",
        Action::Answer(..) => "answer",
    }
}

fn host(state: &mut State, at: Instant, op: OpId, outcome: &Outcome<()>) {
    let Some(in_flight) = state.ops.end(op) else { return };
    let Action::Host(action) = &in_flight.action else { return };
    match (action, outcome) {
        (HostAction::WriteEpoch(file), Outcome::Done(())) => {
            (state.memory.epoch_failing, state.memory.epoch_in_doubt) = (None, false);
            // The race: the store went back while an epoch of its lost future was on its way to the disk.
            let lost = *file != file.void() && state.tenure.held().is_none_or(|held| held.epoch != file.epoch);
            if !(lost && state.memory.void_due) {
                state.epoch_file = Some(*file);
                state.memory.void_due = false;
            }
        }
        (HostAction::WriteEpoch(file), _) => {
            state.memory.epoch_failing.get_or_insert(at);
            if matches!(outcome, Outcome::Unknown(_)) {
                doubt_epoch(state, *file);
            }
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
