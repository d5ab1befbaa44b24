//! What the operator wants of whoever might take the leader key, and what his word is worth where the last primary has no
//! guard.

use alloc::vec::Vec;

use super::{left_at, questions, told};
use crate::config::CANDIDATE_PATIENCE;
use crate::decide::Verdict;
use crate::id::{Member, Revision};
use crate::reason::Reason;
use crate::time::Instant;
use crate::view::peers::PeerAnswer;
use crate::view::store::{ClusterView, MemberRecord, StatusKey};
use crate::view::{Position, View};

/// What the operator wants of this node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nothing: it races as any other.
    None,
    /// It is the candidate of what a leader was asked for, and the key was not released to it. It races as any other, before its
    /// equals.
    Preferred,
    /// It is the candidate of what a leader was asked for, and the key was released to it, which loses nothing.
    Switchover,
    /// It is the candidate of a failover that was asked for while nobody led, or whose leader died: what that loses the operator
    /// has accepted.
    Failover,
}

impl Wish {
    /// Whoever is asked for does not wait for other candidates; only a primary that still writes concerns it.
    pub(super) fn concerns(self, record: &MemberRecord) -> bool {
        matches!(self, Self::None | Self::Preferred) || record.serves()
    }
}

/// A wish of the operator for this node; `Err`: one for another, for a while.
pub(super) fn stand_back_for_operator(view: &View<'_>, cluster: &ClusterView) -> Result<Wish, Verdict> {
    let Some(request) = cluster.failover.as_ref().filter(|_| view.due_failover().is_some()) else {
        return Ok(Wish::None);
    };
    let me = &view.config().me;
    if request.candidate.as_ref() == Some(me) {
        let asked_of = request.leader.as_ref().or_else(|| has_released_since(view, cluster, request.revision));
        return Ok(match asked_of {
            None => Wish::Failover,
            Some(leader) if holds_what_was_released(view, cluster, leader) => Wish::Switchover,
            Some(_) => Wish::Preferred,
        });
    }
    // Not from when the key was heard to vanish: an agent that started later never heard it, and would stand back for a
    // dead candidate for ever.
    if view.at.since(view.leaderless_since()) >= CANDIDATE_PATIENCE {
        return Ok(Wish::None);
    }
    let who = match &request.candidate {
        Some(candidate) => candidate.clone(),
        // A switchover to anyone but the one that gave leadership away.
        None if request.leader.as_ref() == Some(me) => me.clone(),
        None => return Ok(Wish::None),
    };
    Err(Verdict::wait(Reason::CandidateIsOther { who }))
}

/// The leader releases its key to who has received beyond its shutdown checkpoint, whose position it publishes in one
/// transaction with that and with its own record, until it writes another. A position from before says nothing: it may
/// have died since.
/// The race: it has decided to release the key to another, and while that is on its way the operator asks for this node.
fn holds_what_was_released(view: &View<'_>, cluster: &ClusterView, leader: &Member) -> bool {
    let Some(status) = released(view, cluster, leader) else { return false };
    let holds = |mine: &Position| mine.flushed > status.optime && left_at(view, cluster, mine).is_none();
    view.position().as_ref().is_some_and(holds)
}

/// Who led when that was asked, and has stopped and released its key since: a failover that was asked of a leader is no word
/// on what may be lost.
///
/// The race: it has decided to release the key to the candidate of the request before, and the operator names another that
/// it would have refused.
fn has_released_since<'a>(view: &View<'a>, cluster: &'a ClusterView, asked: Revision) -> Option<&'a Member> {
    let vanished = view.state.store.vanished.as_ref().map(|vanished| &vanished.who);
    let last = vanished.or(cluster.epoch.as_ref().map(|record| &record.member))?;
    released(view, cluster, last).is_some_and(|status| asked < status.revision).then_some(last)
}

/// What this member published when it had stopped cleanly and released the key, if it was that which ended its tenure.
fn released<'a>(view: &View<'_>, cluster: &'a ClusterView, leader: &Member) -> Option<&'a StatusKey> {
    let vanished = view.state.store.vanished.as_ref().filter(|vanished| vanished.who == *leader);
    let remembered =
        cluster.status.as_ref().filter(|status| vanished.is_some_and(|last| last.released == Some(status.revision)));
    remembered.or_else(|| cluster.stopped_and_released(leader))
}

/// Whoever led last was let go in a pause, and has not said since that it is under a guard again or writes nothing.
///
/// The race: it is cut off from the store, goes on writing and has not heard that the pause is over, or that the key is
/// gone. Only an operator can know better: a failover to a named candidate is his word, if he asked for it while nobody
/// led. What he asks of a leader, by a switchover too, asks for that one's end as well: that it stopped and released the
/// key, or its own answer that it writes nothing, is enough, and no less is.
///
/// The race: a leader is asked to fail over, and its agent goes before it has handed over, with PostgreSQL running.
pub(super) fn unguarded(
    view: &View<'_>,
    cluster: &ClusterView,
    wish: Wish,
    round @ (absent_at, began): (Revision, Instant),
) -> Option<Verdict> {
    let record = cluster.epoch.as_ref().filter(|record| record.unguarded && record.store == cluster.store)?;
    let who = Some(record.member.clone()).filter(|member| *member != view.config().me)?;
    let may_go = match wish {
        Wish::None => false,
        Wish::Switchover => true,
        Wish::Preferred | Wish::Failover => {
            let writes_nothing = |answer: &PeerAnswer| !answer.primary && answer.is_final(absent_at);
            told(view, &who, began).is_some_and(writes_nothing)
        }
    };
    let by_word = match wish {
        Wish::Failover => asked_while_nobody_led(view, cluster) || released(view, cluster, &who).is_some(),
        // A failover too that was asked of it before it released the key; a switchover is no word on who writes.
        Wish::Preferred => {
            let failover = cluster.failover.as_ref().is_some_and(|request| request.leader.is_none());
            failover && released(view, cluster, &who).is_some()
        }
        Wish::None | Wish::Switchover => false,
    };
    if may_go || by_word {
        return None;
    }
    let orders = if wish == Wish::None { Vec::new() } else { questions(view, round, |name, _| *name == who) };
    Some(Verdict::orders(Reason::UnguardedPrimary { who }, orders))
}

/// The operator's request was written after the leader key was gone. Who started later, or has heard of the key's end
/// together with the request, cannot tell, and waits for him to ask again.
fn asked_while_nobody_led(view: &View<'_>, cluster: &ClusterView) -> bool {
    let request = cluster.failover.as_ref();
    request.zip(view.state.memory.leaderless).is_some_and(|(request, began)| request.revision > began.revision)
}
