//! Who could take over if this leader gave up or hands over: asked for before it does. A record says that a server runs, and
//! nothing of what it holds: who gave up for one that may not lead would leave nobody to serve.

use alloc::vec::Vec;

use super::race::may_never_lead;
use crate::action::{Action, PeerAction};
use crate::id::{Lsn, Member};
use crate::time::Duration;
use crate::view::View;
use crate::view::store::MemberRecord;

/// An answer counts for so long before PostgreSQL is stopped for it.
pub(super) const ANSWER_AGE_MAX: Duration = Duration::from_secs(2);
/// Nor is who did not answer asked again for so long: longer than any question waits for its answer, from which its silence
/// is dated.
const SILENCE_AGE_MAX: Duration = Duration::from_secs(5);

/// Somebody has told just now that it holds enough to lead: of what was published, and of what this node publishes when it
/// gives up (what it has as a primary that crashed, as far as it is known).
pub(super) fn is_known(view: &View<'_>) -> bool {
    let Some(cluster) = view.cluster() else { return false };
    let since = view.at.back(ANSWER_AGE_MAX);
    let written = view.dir().filter(|dir| dir.was_primary()).map_or(Lsn(0), |dir| dir.checkpoint);
    let limit_bytes = view.config().maximum_lag_on_failover_bytes;
    view.electable_others().any(|(name, _)| {
        let told = view.state.peers.answers.get(name).filter(|seen| seen.asked >= since);
        told.is_some_and(|seen| {
            let answer = &seen.value;
            let holds_enough = written.bytes_ahead_of(answer.flushed) <= limit_bytes;
            !answer.barred && !answer.primary && holds_enough && !may_never_lead(view, cluster, answer)
        })
    })
}

/// Somebody who runs has told nothing when it was asked. Its record lives, so it reaches the store: it might lead.
pub(super) fn is_silent(view: &View<'_>) -> bool {
    let since = view.at.back(SILENCE_AGE_MAX);
    view.electable_others().any(|(name, _)| view.state.peers.unreachable.get(name).is_some_and(|at| *at >= since))
}

/// For those of them who have not told lately how they are, nor were silent.
pub(super) fn questions<'a>(
    view: &View<'_>,
    them: impl Iterator<Item = (&'a Member, &'a MemberRecord)>,
) -> Vec<Action> {
    let peers = &view.state.peers;
    let unasked = them.filter(|(name, _)| {
        let told = peers.answers.get(*name).is_some_and(|seen| seen.asked >= view.at.back(ANSWER_AGE_MAX));
        let silent = peers.unreachable.get(*name).is_some_and(|at| *at >= view.at.back(SILENCE_AGE_MAX));
        !told && !silent
    });
    let ask = |(name, record): (&Member, &MemberRecord)| {
        Action::Peer(PeerAction::AskStatus { member: name.clone(), api_url: record.api_url.clone() })
    };
    unasked.map(ask).collect()
}
