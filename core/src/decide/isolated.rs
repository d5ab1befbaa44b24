//! Rung 4: a primary that nobody answers holds its writes before its tenure ends: what it would acknowledge now is lost
//! if another is elected. The hold is reversible; the tenure's end kills.

use super::{Verdict, ms};
use crate::action::{Action, GuardAction};
use crate::reason::Reason;
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
pub(super) fn alone_for(view: &View<'_>) -> Option<Duration> {
    if view.state.memory.let_go || !view.may_write() || view.possible_heirs().next().is_none() {
        return None;
    }
    // While it was let go nobody was sought.
    Some(view.at.since(view.last_contact().latest().max(view.state.memory.resumed)))
}
