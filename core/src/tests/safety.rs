//! What must hold of every step, whatever the facts: checked for generated views and along random walks.

use std::collections::BTreeSet;

use crate::action::{Action, GuardAction, HostAction, Lane, PostgresAction, StoreAction};
use crate::decide::{Fate, Verdict};
use crate::effects::{Effects, ORDERS_MAX, Order};
use crate::lease::Tenure;
use crate::reason::Reason;
use crate::state::State;
use crate::time::Instant;
use crate::view::View;
use crate::view::postgres::{Process, StartAs, StopMode};

/// Panics with the invariant that a step broke. `state` is what the step left behind, `verdict` what it concluded from.
pub(super) fn check(state: &State, at: Instant, verdict: &Verdict, effects: &Effects) {
    state.check();
    let view = View { at, state };
    bounded(state, at, effects);
    for order in &effects.orders {
        with_authority(&view, &order.action);
        bound_to_the_promise(&view, order);
        onto_a_reserved_number(&view, &order.action);
        beside_nothing_alive(&view, &order.action);
        slots_are_kept(&view, &order.action);
        if !verdict.steady {
            // Reconcilers of PostgreSQL wait for a settled role.
            let upkeep = matches!(
                order.action,
                Action::Postgres(
                    PostgresAction::Configure { .. }
                        | PostgresAction::CreateSlot(_)
                        | PostgresAction::DropSlot(_)
                        | PostgresAction::AdvanceSlot { .. }
                )
            );
            assert!(!upkeep || verdict.orders.contains(&order.action), "reconciled while not steady: {order:?}");
        }
    }
    writes_are_stopped(&view, verdict, effects);
}

/// S22: no slot is dropped that is in use or left alone, none during a pause; none is moved backwards, nor beyond what this
/// node has.
fn slots_are_kept(view: &View<'_>, action: &Action) {
    let Some(sql) = view.sql() else { return };
    let mut idle = sql.slots.iter().filter(|slot| !slot.active);
    match action {
        Action::Postgres(PostgresAction::DropSlot(name)) => {
            assert!(!view.paused(), "{name} is dropped during a pause");
            let member = view.others().any(|(member, _)| crate::slot_name(member) == *name);
            let may_go = idle.any(|slot| slot.name == *name && (member || !view.config().ignores_slot(slot)));
            assert!(may_go, "{name} is dropped, of {:?}", sql.slots);
        }
        Action::Postgres(PostgresAction::AdvanceSlot { slot: name, to }) => {
            let here = if sql.in_recovery { sql.replayed } else { sql.flushed };
            let forwards = idle.any(|slot| slot.name == *name && slot.physical && *to > slot.restart);
            assert!(forwards && *to <= here, "{name} is moved to {to}, from {:?}", sql.slots);
        }
        _ => {}
    }
}

/// S26, S28: at most one operation a lane, every order has its reason, the wake is to come.
fn bounded(state: &State, at: Instant, effects: &Effects) {
    assert!(effects.orders.len() <= ORDERS_MAX, "too many orders");
    assert!(effects.wake.at.is_none_or(|wake| wake > at), "the wake is past: {:?}", effects.wake);
    let mut lanes = BTreeSet::new();
    let mut ops = BTreeSet::new();
    for order in &effects.orders {
        assert!(ops.insert(order.op), "an order number is given twice");
        if let Some(lane) = order.action.lane() {
            assert_eq!(state.ops.in_lane(&lane).map(|in_flight| in_flight.op), Some(order.op), "lane {lane:?}");
            assert!(lanes.insert(lane), "two orders in one lane");
        }
    }
}

/// S8: what makes a writable PostgreSQL is ordered only under a tenure that is held, acknowledged by the guard and on
/// disk.
fn with_authority(view: &View<'_>, action: &Action) {
    let primary = matches!(
        action,
        Action::Postgres(
            PostgresAction::Promote { .. } | PostgresAction::Start(StartAs::Primary) | PostgresAction::CreateRoles
        )
    );
    let restart = matches!(action, Action::Postgres(PostgresAction::Restart)) && view.is_primary();
    if !primary && !restart {
        return;
    }
    let held = view.held().unwrap_or_else(|| panic!("{action:?} without a tenure"));
    assert!(!view.releasing(), "{action:?} beside a release");
    let armed = view.state.guard.armed.filter(|armed| armed.tenure == held.lease);
    assert!(armed.is_some_and(|armed| view.at < armed.at), "{action:?} without an acknowledged guard");
    let file = view.state.epoch_file.filter(|file| file.epoch == held.epoch);
    let create_roles = matches!(action, Action::Postgres(PostgresAction::CreateRoles));
    assert!(file.is_some() || restart || create_roles, "{action:?} without its epoch on disk");
}

/// S13: a promotion is onto a number that this very tenure has reserved, and beyond all that the directory knows of.
fn onto_a_reserved_number(view: &View<'_>, action: &Action) {
    let Action::Postgres(PostgresAction::Promote { timeline }) = action else { return };
    let record = view.cluster().and_then(|cluster| cluster.epoch.as_ref());
    let ours = record.filter(|record| view.held().is_some_and(|held| held.epoch == record.epoch));
    assert!(ours.is_some_and(|record| record.newest_timeline >= *timeline), "{action:?} is not reserved: {record:?}");
    assert!(view.dir().is_some_and(|dir| dir.newest_timeline < *timeline), "{action:?} is known already");
}

/// S8 in time as well: the executor does not begin it after the instant that the guard has acknowledged.
fn bound_to_the_promise(view: &View<'_>, order: &Order) {
    let begins = matches!(
        order.action,
        Action::Postgres(
            PostgresAction::Promote { .. } | PostgresAction::Start(StartAs::Primary) | PostgresAction::Restart
        )
    );
    match order.under {
        Some(armed) => {
            assert!(begins, "{order:?} makes nothing writable");
            assert_eq!(Some(armed), view.state.guard.armed, "{order:?} goes beyond what the guard has acknowledged");
        }
        None => assert!(
            !begins || (matches!(order.action, Action::Postgres(PostgresAction::Restart)) && !view.is_primary()),
            "{order:?} may be begun at any time"
        ),
    }
}

/// Nothing is started, rewound, cloned or recovered while processes of PostgreSQL may live, and leadership is not given
/// away while they may write.
fn beside_nothing_alive(view: &View<'_>, action: &Action) {
    let needs_dead = matches!(
        action,
        Action::Postgres(
            PostgresAction::Start(_)
                | PostgresAction::Rewind(_)
                | PostgresAction::Clone(_)
                | PostgresAction::Restore
                | PostgresAction::RecoverSingleUser
                | PostgresAction::Initdb
        )
    );
    let postgres = &view.state.postgres;
    if needs_dead {
        assert!(postgres.process == Process::Absent && postgres.orphans == Some(0), "{action:?} beside {postgres:?}");
    }
    let coming_up = view.starting_primary();
    match action {
        // An earlier tenure may be revoked beside a later one.
        Action::Store(StoreAction::Revoke { lease }) if view.held().is_some_and(|held| held.lease != *lease) => {}
        Action::Store(StoreAction::Release { .. } | StoreAction::Revoke { .. }) => {
            assert!(!view.may_write() && !coming_up, "{action:?} while PostgreSQL may write");
        }
        Action::Guard(GuardAction::Disarm) => {
            let ours = view.may_write() && !view.foreign();
            assert!(view.state.memory.let_go || !ours, "disarmed while PostgreSQL may write");
            assert!(!coming_up, "disarmed while PostgreSQL is being started as a primary");
            let over = view.state.postgres.process != Process::Absent || view.state.postgres.orphans == Some(0);
            assert!(
                view.state.memory.let_go || view.foreign() || over,
                "disarmed, and it is not known that all are dead"
            );
        }
        _ => {}
    }
}

/// S7: a PostgreSQL that may write without a tenure is killed, one whose key vanished is held or killed.
fn writes_are_stopped(view: &View<'_>, verdict: &Verdict, effects: &Effects) {
    // An agent that leaves because the data are another cluster's, or cannot be used, touches nothing.
    let halts = view.foreign()
        || effects.orders.iter().any(|order| matches!(order.action, Action::Host(HostAction::Exit { code: 1, .. })));
    // In a mode that is not built yet somebody else runs PostgreSQL, unless this node leads already.
    let led = view.state.spent.is_some() && matches!(view.state.tenure, Tenure::None | Tenure::Adopting { .. });
    let leads = led || matches!(view.state.tenure, Tenure::Held(_) | Tenure::Suspended { .. });
    let observes = view.config().unsupported.is_some() && !leads;
    // In a pause it is the operator's, once that is told in the store.
    let guard = &view.state.guard;
    // As long as an agent that starts waits for it (`GUARD_LIMIT`).
    let unknown =
        !guard.present && guard.gone.is_none_or(|gone| view.at.since(gone) < crate::time::Duration::from_secs(1));
    let another = view.leader().is_some_and(|leader| leader.member != view.config().me);
    let awaits_guard = view.paused() && (view.config().paused_before || !another) && !leads && unknown;
    let let_go = view.state.memory.let_go || awaits_guard;
    if !view.may_write() || halts || observes || let_go {
        return;
    }
    let ordered = |wanted: &Action| effects.orders.iter().any(|order| order.action == *wanted);
    let asked = &view.state.guard_asked;
    let stopping = matches!(
        view.state.ops.in_lane(&Lane::PgControl).map(|in_flight| &in_flight.action),
        Some(Action::Postgres(PostgresAction::Stop(StopMode::Immediate)))
    );
    let present = view.state.guard.present;
    // What failed just now is repeated after a pause.
    let failed_within = |kind: &str, pause_ms: u64| {
        let pause = crate::time::Duration::from_millis(pause_ms);
        view.state.memory.failed.get(kind).is_some_and(|failed| view.at < *failed + pause)
    };
    let paused = failed_within("stop", 1000) || failed_within("fire", 50);
    let killed = (present && asked.fire.is_some()) || stopping || paused;
    let refused = failed_within("hold", 50);
    let held = ordered(&Action::Guard(GuardAction::Hold)) || view.state.guard.held || asked.hold || refused;
    match &view.state.tenure {
        // Another cluster's data end the tenure; what is being started on them is stopped by the decision after it.
        Tenure::None if matches!(verdict.reason, Reason::SystemIdMismatch { .. }) => {
            let soon = view.at + crate::time::Duration::from_micros(1);
            assert!(killed || effects.wake.at == Some(soon), "writes without a tenure go on: {verdict:?}");
        }
        Tenure::None => assert!(killed, "writes without a tenure go on: {verdict:?} {:?}", effects.orders),
        Tenure::Suspended { .. } => {
            assert!(killed || held || paused, "writes go on beside a vanished key: {verdict:?}");
        }
        Tenure::Held(held) => {
            let end = view.config().bounds.arm_at(held.confirmed, held.ttl);
            assert!(view.at < end, "an expired tenure is held: {verdict:?}");
            assert!(verdict.fate != Fate::LetLapse, "a tenure that lapsed is held");
        }
        Tenure::Adopting { deadline } => {
            assert!(view.at < *deadline || view.phase().is_none(), "the search for a tenure goes on too long");
        }
    }
    let exits =
        effects.orders.iter().any(|order| matches!(order.action, Action::Host(HostAction::Exit { code: 0, .. })));
    assert!(!exits, "the agent leaves a PostgreSQL that may write");
}
