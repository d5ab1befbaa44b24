//! Rung 4: a primary that nobody answers holds its writes before its tenure ends: what it would acknowledge now is lost
//! if another is elected. The hold is reversible; the tenure's end kills.

use super::observe::contact_patience;
use super::{Verdict, ms};
use crate::action::{Action, GuardAction};
use crate::reason::Reason;
use crate::state::State;
use crate::time::{Duration, Instant};
use crate::view::View;

pub(super) fn decide(view: &View<'_>) -> Option<Verdict> {
    view.held()?;
    let alone = alone_for(view)?;
    if alone < view.config().isolation_timeout {
        return None;
    }
    let contact = view.last_contact();
    // Who was never asked is told of as silent since this tenure began.
    let began = view.state.memory.held_since.unwrap_or_default();
    let silent_ms = |contact: Instant| ms(view.at.since(contact.max(began)));
    let reason = Reason::AloneFor {
        ms: ms(alone),
        store_ms: silent_ms(contact.store),
        peer_ms: silent_ms(contact.peer),
        walsender_ms: silent_ms(contact.walsender),
    };
    Some(Verdict::order(reason, Action::Guard(GuardAction::Hold)))
}

/// For how long nobody has answered; `None` where isolation means nothing: no writes, or no other that could take over.
pub(crate) fn alone_for(view: &View<'_>) -> Option<Duration> {
    if view.state.memory.let_go || !view.may_write() || view.possible_heirs().next().is_none() {
        return None;
    }
    Some(view.at.since(silent_since(view)))
}

/// From when on a silence counts: while it was let go, did not write, or nobody could take over, nobody was asked, and from then
/// on there is time for a question.
pub(crate) fn silent_since(view: &View<'_>) -> Instant {
    let memory = &view.state.memory;
    let heirs_since = memory.heirs_since.unwrap_or(view.at);
    view.last_contact().latest().max(memory.resumed).max(heirs_since.back(contact_patience(view.config())))
}

/// Keeps in mind since when another could take over, and when a standby answered last.
pub(crate) fn remember(state: &mut State, at: Instant) {
    let view = View { at, state };
    let held = view.held().is_some();
    let heirs = held && view.may_write() && view.possible_heirs().next().is_some();
    // The race: the standby that answered last has gone, and with its WAL sender what that told.
    state.memory.standby_answered = view.last_contact().walsender;
    let known = state.memory.heirs_since;
    // The race: its PostgreSQL dies while it is alone, and comes up again. It would serve until it is found to be alone anew.
    let known = known.filter(|_| heirs || (held && was_alone(state, at)));
    state.memory.heirs_since = known.or(heirs.then_some(at));
}

/// Nobody has answered for too long, also where PostgreSQL has died since.
fn was_alone(state: &State, at: Instant) -> bool {
    let silent = at.since(silent_since(&View { at, state }));
    state.memory.heirs_since.is_some() && silent >= state.config.isolation_timeout
}

/// Writes are held, or would be if PostgreSQL ran: what lets them go on has to tell whose the leader key is.
pub(crate) fn asks_for_the_key(state: &State, at: Instant) -> bool {
    state.holds() || was_alone(state, at)
}
