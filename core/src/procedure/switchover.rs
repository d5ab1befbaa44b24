//! `POST /switchover` and `POST /failover`: check, write the operator's key, wait until it is done. The texts are the
//! contract that `patronictl` and its users know.

use alloc::format;
use alloc::vec::Vec;

use super::text;
use crate::action::{Action, Answer, PeerAction, StoreAction};
use crate::event::MoveRequest;
use crate::id::{Member, Revision};
use crate::reason::Reason;
use crate::time::{Duration, Instant};
use crate::view::View;
use crate::view::store::MemberRecord;

/// How long members may take to tell their status.
pub(super) const STATUS_PATIENCE: Duration = Duration::from_secs(2);

/// A watch tells of a write within this time.
pub(super) const WATCH_LAG: Duration = Duration::from_millis(500);

/// How long the operator waits for the outcome at most.
pub(super) fn limit(loop_wait: Duration) -> Duration {
    2 * loop_wait.max(Duration::from_secs(10))
}

fn word(request: &MoveRequest) -> (&'static str, &'static str) {
    if request.switchover { ("switchover", "Switchover") } else { ("failover", "Failover") }
}

/// Members that may take over, as far as the store tells.
fn candidates<'a>(view: &View<'a>, request: &MoveRequest) -> Vec<(&'a Member, &'a MemberRecord)> {
    let leader = view.leader().map(|leader| &leader.member);
    let members = view.cluster().into_iter().flat_map(|cluster| cluster.members.iter());
    members
        .filter(|(name, key)| Some(*name) != leader && key.record.can_be_asked())
        .filter(|(name, _)| request.candidate.as_ref().is_none_or(|candidate| candidate == *name))
        .map(|(name, key)| (name, &key.record))
        .collect()
}

fn told(view: &View<'_>, name: &Member, since: Instant) -> Option<bool> {
    if *name == view.config().me {
        return Some(!view.config().nofailover);
    }
    let peers = &view.state.peers;
    if let Some(seen) = peers.answers.get(name).filter(|seen| seen.asked >= since) {
        return Some(!seen.value.barred);
    }
    peers.unreachable.get(name).filter(|at| **at >= since).map(|_| false)
}

/// `epoch`: of whoever led when it was asked for. The race: its key goes while candidates are asked, and what was asked of
/// it would be written while nobody leads.
pub(super) fn orders(view: &View<'_>, request: &MoveRequest, epoch: Revision, since: Instant) -> Vec<(Action, Reason)> {
    if refusal(view, request).is_some() {
        return Vec::new();
    }
    let candidates = candidates(view, request);
    let scheduled = request.scheduled_at.is_some();
    let good = scheduled || candidates.iter().any(|(name, _)| told(view, name, since) == Some(true));
    if good {
        let put = StoreAction::PutFailover {
            revision: view.cluster().map(|cluster| cluster.failover_revision).unwrap_or_default(),
            epoch,
            leader: request.leader.clone(),
            candidate: request.candidate.clone(),
            scheduled_at: request.scheduled_at.clone(),
        };
        return alloc::vec![(Action::Store(put), Reason::AskingCandidates)];
    }
    let unasked = candidates.into_iter().filter(|(name, _)| told(view, name, since).is_none());
    let ask = |(name, record): (&Member, &MemberRecord)| {
        let ask = PeerAction::AskStatus { member: name.clone(), api_url: record.api_url.clone() };
        (Action::Peer(ask), Reason::AskingCandidates)
    };
    unasked.map(ask).collect()
}

pub(super) fn answer(
    view: &View<'_>,
    request: &MoveRequest,
    old: Option<&Member>,
    written: Option<Instant>,
    since: Instant,
) -> Option<Answer> {
    let Some(written) = written else { return unwritten(view, request, since) };
    let (_, title) = word(request);
    if request.scheduled_at.is_some() {
        return text(202, &format!("{title} scheduled"));
    }
    let cluster = view.cluster()?;
    match cluster.leader.as_ref().filter(|leader| Some(&leader.member) != old) {
        Some(new) => {
            let done = if request.switchover { "Switched over" } else { "Failed over" };
            let success = if request.switchover { "Successfully switched over" } else { "Successfully failed over" };
            match request.candidate.as_ref().filter(|candidate| **candidate != new.member) {
                Some(asked) => text(200, &format!("{done} to \"{}\" instead of \"{asked}\"", new.member)),
                None => text(200, &format!("{success} to \"{}\"", new.member)),
            }
        }
        None if cluster.leader.is_some() && cluster.failover.is_none() && seen_since(view, written) => {
            text(503, &format!("{title} failed"))
        }
        None if view.at.since(since) >= limit(view.config().loop_wait) => text(503, &format!("{title} status unknown")),
        None => None,
    }
}

/// Before its key is written.
fn unwritten(view: &View<'_>, request: &MoveRequest, since: Instant) -> Option<Answer> {
    let (action, _) = word(request);
    if let Some(refusal) = refusal(view, request) {
        return Some(refusal);
    }
    if request.refused || view.at.since(since) >= limit(view.config().loop_wait) {
        return text(503, "failed to write failover key into DCS");
    }
    let all = candidates(view, request);
    let none = all.iter().all(|(name, _)| told(view, name, since) == Some(false));
    let late =
        view.at.since(since) >= STATUS_PATIENCE && !all.iter().any(|(name, _)| told(view, name, since) == Some(true));
    let bad = request.scheduled_at.is_none() && (none || late);
    if bad { text(412, &format!("{action} is not possible: no good candidates have been found")) } else { None }
}

/// The keys are newer than the one that was written: if it is not in them it is gone, not "not there yet". A watch may
/// lag a little.
fn seen_since(view: &View<'_>, written: Instant) -> bool {
    let newer = view.state.store.cluster.as_ref().is_some_and(|seen| seen.asked >= written);
    newer && view.at >= written + WATCH_LAG
}

/// What can be refused without asking anybody, in the order of the contract.
fn refusal(view: &View<'_>, request: &MoveRequest) -> Option<Answer> {
    let (action, title) = word(request);
    if !request.switchover && request.candidate.is_none() {
        return text(400, "Failover could be performed only to a specific candidate");
    }
    if request.switchover && request.leader.is_none() {
        return text(400, "Switchover could be performed only from a specific leader");
    }
    if !request.switchover && request.scheduled_at.is_some() {
        return text(400, "Failover can't be scheduled");
    }
    if request.leader.is_some() && request.leader == request.candidate {
        return text(400, "Switchover target and source are the same");
    }
    let Some(cluster) = view.cluster() else { return text(503, "the store has not been read yet") };
    if let Some(mode) = &view.config().unsupported {
        return text(503, &format!("{}", Reason::UnsupportedMode { mode: mode.clone() }));
    }
    if request.scheduled_at.is_some() {
        return None;
    }
    let leader = cluster.leader.as_ref().map(|leader| &leader.member);
    if request.leader.is_some() && request.leader.as_ref() != leader {
        return text(412, "leader name does not match");
    }
    if let Some(candidate) = &request.candidate
        && !cluster.members.contains_key(candidate)
    {
        return text(412, "candidate does not exists");
    }
    // Patroni writes the key, has the leader clear it, and says this then.
    if request.candidate.as_ref().is_some_and(|candidate| Some(candidate) == leader) {
        return text(503, &format!("{title} failed"));
    }
    if request.candidate.is_none() && candidates(view, request).is_empty() {
        return text(412, &format!("{action} is not possible: cluster does not have members except leader"));
    }
    None
}
