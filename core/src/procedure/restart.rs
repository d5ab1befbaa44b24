//! Restarts that an operator asks for: now, or at a time.

use alloc::format;
use alloc::string::String;

use super::{switchover, text, words};
use crate::action::{Answer, PostgresAction};
use crate::config::CHECKPOINT_LIMIT;
use crate::decide::stops_shortly;
use crate::event::ScheduledRestart;
use crate::id::OpId;
use crate::state::{PendingKind, State};
use crate::time::Instant;
use crate::view::View;

/// Restarts that wait for an operation take the number of the one that was just ordered.
pub(crate) fn ordered(state: &mut State, op: OpId) {
    state.scheduled_restart = None;
    for pending in state.requests.values_mut() {
        if let PendingKind::Restart { op: slot @ None } = &mut pending.kind {
            *slot = Some(op);
        }
    }
}

/// A restart ended.
pub(crate) fn ended(state: &mut State, op: OpId, refused: Option<String>) {
    for pending in state.requests.values_mut() {
        if pending.kind == (PendingKind::Restart { op: Some(op) }) {
            pending.kind = PendingKind::Restarted { refused: refused.clone() };
        }
    }
}

pub(super) fn answer(view: &View<'_>, op: Option<OpId>, since: Instant) -> Option<Answer> {
    if op.is_some() {
        return None;
    }
    // The one before the stop, or another: the restart comes after it.
    if matches!(view.controlling(), Some(PostgresAction::Checkpoint)) {
        return None;
    }
    // The role is not settled, or the agent only observes: no rung takes the request up.
    if view.at >= taken_up_by(view, since) {
        return text(503, "restart failed");
    }
    match view.phase() {
        None => text(503, "postgres is not running"),
        Some(crate::view::postgres::Phase::Starting) => text(503, "postgres is still starting"),
        Some(_) => match view.controlling() {
            Some(PostgresAction::Restart) | None => None,
            Some(running) => text(503, &format!("{} already in progress", words(running))),
        },
    }
}

/// Until when some rung has to have taken up what was asked for then. In a pause the guard is armed first, when the
/// checkpoint is over; one that cannot be armed has checkpoints written again and again.
pub(super) fn taken_up_by(view: &View<'_>, since: Instant) -> Instant {
    let checkpointed = view.state.memory.checkpointed.unwrap_or_default().min(since + CHECKPOINT_LIMIT);
    since.max(checkpointed) + switchover::limit(view.config().loop_wait)
}

/// Keeps a restart until its time, for the postmaster that runs now.
pub(super) fn schedule(state: &mut State, mut wanted: ScheduledRestart) -> PendingKind {
    if state.scheduled_restart.is_some() {
        return PendingKind::Decided { status: 409, body: "Another restart is already scheduled".into() };
    }
    wanted.postmaster_start_us = state.postgres.sql.as_ref().map_or(0, |seen| seen.value.postmaster_start_us);
    state.scheduled_restart = Some(wanted);
    PendingKind::Decided { status: 202, body: "Restart scheduled".into() }
}

/// Forgets the scheduled restart.
pub(super) fn cancel(state: &mut State) -> PendingKind {
    match state.scheduled_restart.take() {
        Some(_) => PendingKind::Decided { status: 200, body: "scheduled restart deleted".into() },
        None => PendingKind::Decided { status: 404, body: "no restarts are scheduled".into() },
    }
}

/// Forgets a scheduled restart that has nothing to restart any more.
pub(crate) fn forget_void(state: &mut State, at: Instant) {
    let view = View { at, state };
    let void = view.state.scheduled_restart.as_ref().is_some_and(|wanted| is_void(&view, wanted));
    if void {
        state.scheduled_restart = None;
    }
}

/// The time has come; what is due and void is forgotten before.
pub(crate) fn is_due(view: &View<'_>) -> bool {
    let wanted = view.state.scheduled_restart.as_ref();
    let due = wanted.is_some_and(|wanted| view.left_until(wanted.schedule.at).is_none());
    due && !view.paused() && view.fresh_sql().is_some()
}

/// PostgreSQL was restarted meanwhile, the time passed long ago, or it has come and the conditions do not hold. While
/// the cluster is paused its time does not come.
fn is_void(view: &View<'_>, wanted: &ScheduledRestart) -> bool {
    // A checkpoint before the stop may take longer than a restart may be late.
    let begun = matches!(view.controlling(), Some(PostgresAction::Checkpoint)) || stops_shortly(view);
    let missed = !view.paused() && !begun && view.is_long_over(wanted.schedule.at);
    let Some(sql) = view.fresh_sql() else { return missed };
    let known = wanted.postmaster_start_us != 0;
    if (known && sql.postmaster_start_us != wanted.postmaster_start_us) || missed {
        return true;
    }
    if view.paused() {
        return false;
    }
    view.left_until(wanted.schedule.at).is_none() && !wanted.conditions.hold(Some(sql))
}
