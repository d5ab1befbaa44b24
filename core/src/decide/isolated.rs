//! Rung 4: a primary that nobody answers holds its writes before its tenure ends: what it would acknowledge now is lost
//! if another is elected. The hold is reversible; the tenure's end kills.

use super::{Verdict, ms};
use crate::action::{Action, GuardAction};
use crate::reason::Reason;
use crate::time::Duration;
use crate::view::View;

pub(super) fn decide(view: &View<'_>) -> Option<Verdict> {
    view.held()?;
    let alone = alone_for(view)?;
    if alone < view.config().isolation_timeout {
        return None;
    }
    let contact = view.last_contact();
    let reason = Reason::AloneFor {
        ms: ms(alone),
        store_ms: ms(view.at.since(contact.store)),
        peer_ms: ms(view.at.since(contact.peer)),
        walsender_ms: ms(view.at.since(contact.walsender)),
    };
    Some(Verdict::order(reason, Action::Guard(GuardAction::Hold)))
}

/// For how long nobody has answered; `None` where isolation means nothing: no writes, or no other that could take over.
pub(super) fn alone_for(view: &View<'_>) -> Option<Duration> {
    if !view.may_write() || view.electable_others().is_empty() {
        return None;
    }
    Some(view.at.since(view.last_contact().latest()))
}
