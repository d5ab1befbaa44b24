//! Reconciler: what is known grows old. Watches and pidfds tell at once; these questions find what they missed, and ask
//! everyone when nobody has spoken for a while.

use alloc::vec::Vec;

use super::isolated;
use crate::action::{Action, Lane, PeerAction, PostgresAction, StoreAction};
use crate::config::Config;
use crate::reason::Reason;
use crate::time::{Duration, Instant};
use crate::view::View;
use crate::view::postgres::{DataDir, Phase, Process};

/// A primary that nobody has answered for so long asks the store. An idle one does that for ever: often enough that
/// everyone can be asked as well before isolation is concluded, and no oftener.
pub(crate) fn contact_patience(config: &Config) -> Duration {
    config.isolation_timeout * 3 / 4
}

/// A primary that nobody has answered for so long asks everyone.
pub(crate) fn peers_patience(config: &Config) -> Duration {
    config.isolation_timeout * 5 / 6
}

/// ... and again after so long.
pub(crate) const CONTACT_PAUSE: Duration = Duration::from_millis(500);
/// While the role is not settled PostgreSQL is asked so often, beside what the kernel tells.
pub(crate) const UNSETTLED: Duration = Duration::from_millis(200);

pub(crate) fn orders(view: &View<'_>, steady: bool) -> Vec<(Action, Reason)> {
    let mut orders = Vec::new();
    let postgres = &view.state.postgres;
    let unseen = postgres.process == Process::Unknown || postgres.data == DataDir::Unknown;
    let vanishing = matches!(postgres.data, DataDir::Foreign(_)) && view.state.memory.owned;
    let failed = view.state.memory.data_in_doubt.is_some_and(|at| view.at >= at + UNSETTLED);
    if unseen || failed || (vanishing && view.at >= view.state.memory.changed + UNSETTLED) {
        orders.push((Action::Postgres(PostgresAction::Look), Reason::ObservationDue));
    } else if view.phase() == Some(Phase::Ready) {
        let due = next_question(view, interval(view, steady));
        // Not as fast as it answers, where the interval is shorter than the patience.
        let just_asked = postgres.sql.as_ref().is_some_and(|seen| view.at < seen.asked + CONTACT_PAUSE);
        if view.at >= due || (steady && !just_asked && falls_to_contact(view, due)) {
            orders.push((Action::Postgres(PostgresAction::Observe), Reason::ObservationDue));
        }
    }
    let seen = view.state.store.cluster.as_ref().map_or(Instant::ZERO, |seen| seen.asked);
    // A renewal under way reads as well, and proves what is known where nothing was written since.
    let renewing = view.state.ops.in_lane(&Lane::Renew).is_some();
    let read_due = seen == Instant::ZERO || (view.at >= seen + view.config().loop_wait && !renewing);
    let lonely = contact_due(view);
    // A renewal that was begun for it is the question, as the session's keep-alive is, unless the peers have to be asked
    // already.
    let patience = peers_patience(view.config()).saturating_sub(contact_patience(view.config()));
    let waits_on = |lane| view.state.ops.in_lane(&lane).filter(|question| view.at.since(question.since) < patience);
    let asked = waits_on(Lane::Renew).or(waits_on(Lane::Publish).filter(|question| keeps_session(&question.action)));
    let alone = lonely && asked.is_none();
    // What is held goes on for an answer that tells of the key.
    let question = session_question(view).filter(|_| alone && !isolated::asks_for_the_key(view.state, view.at));
    if read_due || view.state.memory.store_doubt.is_some() || (alone && question.is_none()) {
        orders.push((Action::Store(StoreAction::Read), Reason::ObservationDue));
    }
    orders.extend(question.map(|question| (question, Reason::ObservationDue)));
    // The store is asked first, alone: that is cheap enough to do for ever, asking everyone is not.
    let store_silent = isolated::alone_for(view).is_some_and(|alone| alone >= peers_patience(view.config()));
    if lonely && store_silent && view.at >= view.state.memory.contact_sought + CONTACT_PAUSE {
        orders.extend(view.possible_heirs().map(|(name, record)| {
            let ask = PeerAction::AskStatus { member: name.clone(), api_url: record.api_url.clone() };
            (Action::Peer(ask), Reason::ContactDue)
        }));
    }
    orders
}

fn keeps_session(action: &Action) -> bool {
    matches!(action, Action::Store(StoreAction::KeepSession { .. }))
}

/// The cheapest question to the store, and one that has to be asked anyway: whether the member's lease lives. Behind
/// another write in its lane it would have to wait.
fn session_question(view: &View<'_>) -> Option<Action> {
    let lease = view.state.session.lease?;
    let free = view.state.ops.in_lane(&Lane::Publish).is_none();
    free.then_some(Action::Store(StoreAction::KeepSession { lease }))
}

/// A primary has heard nothing for a while.
pub(crate) fn contact_due(view: &View<'_>) -> bool {
    view.held().is_some() && isolated::alone_for(view).is_some_and(|alone| alone >= contact_patience(view.config()))
}

/// Contact is asked for now, and something else would be due before that is asked for again: an idle agent is woken once
/// for both.
pub(crate) fn falls_to_contact(view: &View<'_>, due: Instant) -> bool {
    contact_due(view) && view.at + contact_patience(view.config()) > due
}

/// How often PostgreSQL is asked. While looks at its directory fail, its answer has to tell what they would tell at once: a
/// promotion behind our back.
pub(crate) fn interval(view: &View<'_>, steady: bool) -> Duration {
    let settled = steady && view.state.memory.data_in_doubt.is_none();
    if settled { view.config().loop_wait } else { UNSETTLED }
}

/// When PostgreSQL is to be asked again: at once if it changed since.
pub(crate) fn next_question(view: &View<'_>, interval: Duration) -> Instant {
    match &view.state.postgres.sql {
        Some(seen) if seen.asked >= view.state.memory.changed => seen.asked + interval,
        Some(_) | None => Instant::ZERO,
    }
}
