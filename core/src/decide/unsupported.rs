//! Rung 2, in the place of pause, failsafe and standby clusters: in a cluster that asks for what is not built yet the
//! agent observes. It does not race, promote or stop anything; a tenure that it holds already is kept.

use alloc::format;

use super::Verdict;
use crate::action::{Action, HostAction};
use crate::reason::Reason;
use crate::view::View;

pub(super) fn decide(view: &View<'_>) -> Option<Verdict> {
    let mode = view.config().unsupported.clone()?;
    if view.state.leaving {
        // What this agent leads, or its guard is armed for, does not live on without it: it leaves as it always does.
        if view.held().is_some() || view.state.guard.armed.is_some() {
            return None;
        }
        // Whoever runs PostgreSQL, it is not this agent: it goes, and PostgreSQL stays.
        let message = format!("stopped; PostgreSQL is left as it is, since the cluster asks for {mode}");
        return Some(Verdict::order(Reason::ShuttingDown, Action::Host(HostAction::Exit { code: 0, message })));
    }
    Some(Verdict::wait(Reason::UnsupportedMode { mode }))
}
