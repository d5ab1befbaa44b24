//! Rung 2, in the place of pause, failsafe and standby clusters: in a cluster that asks for what is not built yet the
//! agent observes. It does not race, promote or stop anything; a tenure that it holds already is kept.

use super::Verdict;
use crate::reason::Reason;
use crate::view::View;

pub(super) fn decide(view: &View<'_>) -> Option<Verdict> {
    let mode = view.config().unsupported.clone()?;
    Some(Verdict::wait(Reason::UnsupportedMode { mode }))
}
