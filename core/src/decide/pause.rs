//! Rung 2: the cluster is paused. PostgreSQL is the operator's: nothing is started, stopped, promoted, demoted or rewound
//! but at an operator's request, which the rungs below carry out as ever. A running primary keeps its key, or takes the
//! one that is there for the taking; whoever holds the key and runs no primary gives it back.
//!
//! A primary that is *let go* serves on whatever becomes of its tenure, and no guard ends it. So that nobody takes its
//! place while it cannot be heard, the record of its tenure says so first (`tenure.rs`), and says otherwise only when
//! the guard is armed again, or nothing writes any more (`docs/decisions/0018-maintenance-mode.md`).

use alloc::vec::Vec;

use super::{Fate, Verdict, follow, isolated, leader, race, switchover};
use crate::action::{Action, HostAction, Lane, PostgresAction, StoreAction};
use crate::config::GUARD_LIMIT;
use crate::id::Timeline;
use crate::lease::{Bounds, Held, Tenure};
use crate::reason::Reason;
use crate::state::State;
use crate::time::Instant;
use crate::view::View;
use crate::view::postgres::{Cluster, DataDir, Phase, Process};

pub(super) fn decide(view: &View<'_>) -> Option<Verdict> {
    let since = view.state.memory.paused?;
    let reason = Reason::PausedByOperator { for_ms: super::ms(view.at.since(since)) };
    if view.state.leaving {
        return leave(view);
    }
    if is_requested(view) {
        return None;
    }
    match view.held() {
        Some(held) => Some(led(view, held, reason)),
        None => Some(beside(view, reason)),
    }
}

/// What an operator has asked for, and the rungs below carry out: a restart of a primary that leads, a switchover or
/// failover that concerns this node, a new clone; and PostgreSQL that was stopped for one of them is brought back.
pub(super) fn is_requested(view: &View<'_>) -> bool {
    // An agent that goes leaves PostgreSQL as it is, and begins nothing.
    if view.state.leaving && view.state.memory.let_go {
        return false;
    }
    // A start that nobody waits for any more is not over while PostgreSQL still comes up.
    let comes_up = view.held().is_some() && view.phase() == Some(Phase::Starting);
    if view.state.memory.requested && (comes_up || view.phase().is_none()) {
        return true;
    }
    let me = &view.config().me;
    if view.held().is_some() {
        // What was begun for one of them is under way.
        let begun = matches!(
            view.controlling(),
            Some(
                PostgresAction::Restart
                    | PostgresAction::Start(_)
                    | PostgresAction::Stop(_)
                    | PostgresAction::Promote { .. }
            )
        );
        // The checkpoint before it is written with hands off.
        let restart = view.is_primary() && leader::restart_wanted(view) && switchover::stops_shortly(view);
        let promotion = view.due_failover().is_some_and(|request| request.candidate.as_ref() == Some(me));
        let hand_over = switchover::wanted_candidate(view).is_some();
        // A primary that was stopped by hand is not started to be handed over.
        let ours_to_stop = view.is_primary() || view.state.memory.requested;
        return begun || restart || (promotion && !view.is_primary()) || (hand_over && ours_to_stop);
    }
    let leader = view.leader().is_some();
    let candidate = view.due_failover().is_some_and(|request| request.candidate.as_ref() == Some(me));
    let standby = view.phase() == Some(Phase::Ready) && view.sql().is_none_or(|sql| sql.in_recovery);
    (candidate && !leader && standby) || (view.state.memory.reinit && leader)
}

/// No fence and no guard: the operator has PostgreSQL to himself. While a request of his is carried out by a node that
/// leads, the guard stands by as ever.
pub(crate) fn is_hands_off(view: &View<'_>) -> bool {
    view.state.memory.let_go && !(view.held().is_some() && is_requested(view))
}

/// Decides whether PostgreSQL is let go, and remembers it. Once it is, only the end of the pause takes it back.
///
/// The race: a tenure was lost, and its primary is being killed, when the pause is heard. That primary is not the
/// operator's, but one beside which another may lead already.
pub(crate) fn remember(state: &mut State, at: Instant) {
    let view = View { at, state };
    let let_go = view.paused() && (state.memory.let_go || may_let_go(&view));
    let settled = view.phase() == Some(Phase::Ready) && view.fresh_sql().is_some() && view.controlling().is_none();
    state.memory.let_go = let_go;
    state.memory.requested &= !settled;
}

fn may_let_go(view: &View<'_>) -> bool {
    match &view.state.tenure {
        Tenure::Held(held) | Tenure::Suspended { was: held, .. } => {
            let record = view.cluster().and_then(|cluster| cluster.epoch.as_ref());
            // What comes up, or is promoted, stays under its guard until it is up, however long that takes.
            let ordered = view.state.memory.promotion || view.state.memory.promotion_inherited;
            let promoted = ordered && !view.is_primary();
            let comes_up = promoted || view.starting_primary() || view.phase() == Some(Phase::Starting);
            // The race: the pause is over, the record is being corrected, and another pause is heard.
            let leads = view.state.ops.in_lane(&Lane::Lead).map(|in_flight| &in_flight.action);
            let corrected = matches!(leads, Some(Action::Store(StoreAction::Reserve { unguarded: false, .. })));
            // A watch may lag behind what was written: the keys are read first.
            let read = view.state.memory.store_doubt.is_none();
            !comes_up
                && !corrected
                && read
                && record.is_some_and(|record| record.epoch == held.epoch && record.unguarded)
        }
        Tenure::None | Tenure::Adopting { .. } => {
            let unseen =
                view.state.postgres.process == Process::Unknown || view.state.postgres.data == DataDir::Unknown;
            !unseen && (!view.may_write() || is_the_operators(view))
        }
    }
}

/// A primary without a tenure is none that this node still has to stop.
fn is_the_operators(view: &View<'_>) -> bool {
    let guard = &view.state.guard;
    // What an agent before this one led is taken up first.
    let free = guard.armed.is_none() || view.armed_for_nobody();
    let coming_up = view.starting_primary() || view.state.memory.promotion;
    let falling = view.state.guard_asked.fire.is_some() || view.state.spent.is_some() || coming_up;
    guard_is_known(view) && free && !falling && !is_beside_another(view)
}

/// Another leads, and no agent before this one was told of the pause: it cannot vouch for what runs here.
fn is_beside_another(view: &View<'_>) -> bool {
    let another = view.leader().is_some_and(|leader| leader.member != view.config().me);
    another && !view.config().paused_before
}

/// An agent starts in a pause beside what may be the operator's primary, and does not know yet whether the guard is armed
/// for that.
pub(super) fn waits_for_guard(view: &View<'_>) -> bool {
    let led = view.state.spent.is_some() || matches!(view.state.tenure, Tenure::Held(_) | Tenure::Suspended { .. });
    view.paused() && !is_beside_another(view) && !led && !guard_is_known(view)
}

/// The guard has told what it is armed for, or there is none.
fn guard_is_known(view: &View<'_>) -> bool {
    let guard = &view.state.guard;
    guard.present || guard.gone.is_some_and(|gone| view.at.since(gone) >= GUARD_LIMIT)
}

/// This node holds the key.
fn led(view: &View<'_>, held: &Held, reason: Reason) -> Verdict {
    if view.releasing() {
        return Verdict::wait(Reason::Releasing);
    }
    let over = view.at >= view.config().bounds.arm_at(held.confirmed, held.ttl);
    let foreign = view.complete_dir().is_some_and(|dir| view.system_id().is_some_and(|id| id != dir.system_id));
    // Nothing was armed, so nothing is to be stopped: the key is taken again when there is a store. Another cluster's
    // data have no business with it.
    if view.state.memory.let_go && (over || foreign) {
        return Verdict::wait(reason).fate(Fate::LetLapse);
    }
    // Until the record tells that it is let go, it is guarded, and what it acknowledges alone may be lost as ever.
    if let Some(hold) = isolated::decide(view) {
        return hold;
    }
    match view.phase() {
        Some(Phase::Starting | Phase::Stopping) => Verdict::wait(reason),
        None if view.dead() => Verdict::wait(reason).fate(Fate::Release),
        None => Verdict::wait(reason),
        Some(Phase::Ready) => match (view.fresh_sql(), view.complete_dir()) {
            (Some(sql), Some(dir)) if !sql.in_recovery => served(view, held, dir, sql.timeline, reason),
            // A promotion that was ordered before the pause may come to pass.
            (Some(sql), _) if sql.in_recovery && !view.state.memory.promotion && view.controlling().is_none() => {
                Verdict::wait(reason).fate(Fate::Release)
            }
            _ => Verdict::wait(reason),
        },
    }
}

/// A primary with its key: its small files, its record and its first checkpoint are seen to as ever.
fn served(view: &View<'_>, held: &Held, dir: &Cluster, timeline: Timeline, reason: Reason) -> Verdict {
    let Verdict { mut orders, .. } = leader::serve(view, held, dir, timeline);
    // The roles of a cluster whose key was lost are no business of a pause.
    orders.retain(|order| *order != Action::Postgres(PostgresAction::CreateRoles));
    Verdict { steady: true, ..Verdict::orders(reason, orders) }
}

/// This node does not hold the key.
fn beside(view: &View<'_>, reason: Reason) -> Verdict {
    match &view.state.tenure {
        Tenure::Suspended { .. } => return Verdict::wait(reason).fate(Fate::LetLapse),
        Tenure::Adopting { deadline } => {
            if view.at >= *deadline {
                return Verdict::wait(reason).fate(Fate::LetLapse);
            }
            if let Some(leader) = view.leader().filter(|leader| super::is_our_key(view, leader)) {
                let deadline = Bounds::attempt_deadline(view.config().ttl);
                let renew = StoreAction::Renew { lease: leader.lease, epoch: leader.created, deadline };
                return Verdict::order(reason, Action::Store(renew));
            }
        }
        Tenure::None | Tenure::Held(_) => {}
    }
    if view.is_primary() {
        return if may_take_key(view) { Verdict { reason, ..race::campaign(view) } } else { Verdict::wait(reason) };
    }
    let standby = matches!(view.phase(), Some(Phase::Starting | Phase::Ready)) && !view.may_write();
    if !standby {
        return Verdict::wait(reason);
    }
    if view.phase() == Some(Phase::Ready) && leader::restart_wanted(view) {
        return Verdict::order(Reason::RestartRequested, Action::Postgres(PostgresAction::Restart));
    }
    // A new leader is followed. What only a restart would make effective waits.
    let Verdict { reason: following, mut orders, steady, .. } = follow::running(view);
    orders.retain(|order| matches!(order, Action::Postgres(PostgresAction::Follow(_))));
    if orders.is_empty() && !steady {
        return Verdict::wait(reason);
    }
    let reason = if steady { reason } else { following };
    Verdict { steady, ..Verdict::orders(reason, orders) }
}

/// There is no leader, and PostgreSQL runs as a primary of this cluster, by whose hand ever.
fn may_take_key(view: &View<'_>) -> bool {
    let ours = view.complete_dir().is_some_and(|dir| view.system_id() == Some(dir.system_id));
    let free = view.cluster().is_some_and(|cluster| cluster.leader.is_none());
    let gave_up = view.gave_up_for().is_some();
    view.state.memory.let_go && ours && free && !gave_up
}

/// The agent goes, PostgreSQL and the key stay as they are.
fn leave(view: &View<'_>) -> Option<Verdict> {
    if !view.state.memory.let_go {
        return None;
    }
    let armed = view.state.guard.armed.is_some() || view.state.guard.held;
    let message = "stopped; PostgreSQL is left as it is, since the cluster is paused".into();
    let exit = Action::Host(HostAction::Exit { code: 0, message });
    let orders: Vec<Action> = (!armed).then_some(exit).into_iter().collect();
    Some(Verdict::orders(Reason::ShuttingDown, orders))
}
