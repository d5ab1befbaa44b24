//! Rung 8: leadership is handed over, because an operator asked for it or because the agent leaves. Every stage is
//! derived from facts: still a primary, stopped cleanly, a candidate that holds everything.

use alloc::vec;
use alloc::vec::Vec;

use super::successor::{self, ANSWER_AGE_MAX};
use super::{Fate, Verdict, ms};
use crate::action::{Action, HostAction, PeerAction, PostgresAction, StoreAction};
use crate::config::HANDOVER_LIMIT;
use crate::id::{Lsn, Member};
use crate::reason::Reason;
use crate::time::{Duration, Instant};
use crate::timeline::{History, Relation};
use crate::view::View;
use crate::view::peers::PeerAnswer;
use crate::view::postgres::{Cluster, ControlState, StopMode};
use crate::view::store::MemberRecord;

/// A postmaster that has written its shutdown checkpoint may wait for hung standbys for so long.
pub(crate) const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// A checkpoint is not repeated within this time.
const CHECKPOINT_AGE_MAX: Duration = Duration::from_secs(30);

pub(super) fn decide(view: &View<'_>) -> Option<Verdict> {
    if view.held().is_none() {
        return view.state.leaving.then(|| leave(view));
    }
    // What sessions kept from stopping is being ended for the hand-over that is given up by that.
    if view.state.memory.ending && view.controlling() == Some(&PostgresAction::Stop(StopMode::Immediate)) {
        let since = view.state.memory.lingering_since.unwrap_or(view.at);
        return Some(Verdict::wait(Reason::StopIgnored { for_ms: ms(view.at.since(since)) }));
    }
    let wanted = wanted_candidate(view)?;
    let dir = view.complete_dir()?;
    if view.is_primary() {
        return Some(prepare(view, wanted));
    }
    if view.dead() && dir.state == ControlState::ShutDown {
        return hand_over(view, wanted, dir);
    }
    draining(view)
}

/// Whether leadership is to be handed over, and to whom: `Some(None)` is to anyone.
pub(crate) fn wanted_candidate<'a>(view: &View<'a>) -> Option<Option<&'a Member>> {
    if let Some(request) = view.due_failover() {
        let ours = request.leader.as_ref().is_none_or(|leader| *leader == view.config().me);
        let other = request.candidate.as_ref() != Some(&view.config().me);
        let named = request.leader.is_some() || request.candidate.is_some();
        // What was begun is brought to its end, also where the key was lost and regained meanwhile.
        let over = view.is_primary() && view.is_of_a_leader_before(request);
        let given_up = view.state.memory.given_up == Some(request.revision);
        if ours && other && named && !over && !given_up {
            return Some(request.candidate.as_ref());
        }
    }
    view.state.leaving.then_some(None)
}

/// The shutdown checkpoint is written, and the postmaster still waits for a WAL sender whose standby does not answer:
/// nothing can be written any more, and nothing is lost by ending it.
///
/// Where a session keeps it from stopping it is ended as well. That is no clean stop, so it starts again here, and the
/// operator is not obeyed a second time: the next stop might take as long.
fn draining(view: &View<'_>) -> Option<Verdict> {
    let stop = |mode| Action::Postgres(PostgresAction::Stop(mode));
    if view.drain_hangs().is_some() {
        return Some(Verdict::order(Reason::StoppingForHandover, stop(StopMode::Immediate)));
    }
    // What somebody else has asked to stop is no hand-over yet: the next rung sees to it.
    let (waits, next) = view.stop_ignored().filter(|(_, next)| *next == StopMode::Immediate)?;
    Some(Verdict::order(Reason::StopIgnored { for_ms: ms(waits) }, stop(next)))
}

/// The operator's request is over, if its time has come.
fn clear(view: &View<'_>) -> Option<Action> {
    let request = view.due_failover()?;
    Some(Action::Store(StoreAction::ClearFailover { revision: request.revision }))
}

/// Those that may take over: who runs, or the operator's candidate, also if its record told last that it starts.
///
/// The race: a standby has just come up, and says so to whoever asks it; here its record is not read yet.
fn candidates<'a>(view: &View<'a>, wanted: Option<&Member>) -> Vec<(&'a Member, &'a MemberRecord)> {
    match wanted {
        None => view.electable_others().collect(),
        Some(wanted) => {
            let may = |record: &MemberRecord| {
                record.may_be_elected() && matches!(record.state.as_str(), "running" | "starting")
            };
            let named = view.others().filter(|(name, key)| *name == wanted && may(&key.record));
            named.map(|(name, key)| (name, &key.record)).collect()
        }
    }
}

/// A primary: look at the candidates, write a checkpoint so that the stop is short, stop.
fn prepare(view: &View<'_>, wanted: Option<&Member>) -> Verdict {
    if matches!(view.controlling(), Some(PostgresAction::Stop(_))) {
        return Verdict::wait(Reason::StoppingForHandover);
    }
    let candidates = candidates(view, wanted);
    let since = view.at.back(ANSWER_AGE_MAX);
    let asks = successor::questions(view, candidates.iter().copied());
    let good = |(name, record): &(&Member, &MemberRecord)| {
        fresh_answer(view, name, since).is_some_and(|answer| good(view, record, answer))
    };
    let good = candidates.iter().any(good);
    if !good && !asks.is_empty() {
        return Verdict::orders(Reason::AskingCandidates, asks);
    }
    // Who leaves hands over to anybody else then, whom nothing keeps waiting for the operator's candidate.
    if !good && (wanted.is_some() || !view.state.leaving) {
        return refuse(view, &candidates, since);
    }
    if let Some(begin) = asked_for_at_once(view) {
        return Verdict::order(Reason::ScheduleBegun, Action::Store(begin));
    }
    if !stops_shortly(view) {
        return Verdict::order(Reason::CheckpointBeforeStop, Action::Postgres(PostgresAction::Checkpoint));
    }
    let stop = Action::Postgres(PostgresAction::Stop(StopMode::Fast));
    // The candidate is told to get its lease ready: by the time PostgreSQL has stopped it has one.
    let announce = candidates.iter().map(|(name, record)| await_replay(name, record, Lsn(0), Duration::from_secs(1)));
    Verdict::orders(Reason::StoppingForHandover, core::iter::once(stop).chain(announce).collect())
}

/// A checkpoint was written a moment ago: that of the shutdown finds little to write. Nobody serves while it is written.
pub(crate) fn stops_shortly(view: &View<'_>) -> bool {
    view.state.memory.checkpointed.is_some_and(|at| view.at.since(at) < CHECKPOINT_AGE_MAX)
}

/// What was scheduled is asked for at once from here on, by the key and so for whoever reads it.
///
/// The race: a checkpoint and a stop take longer than a request may be late. It would be dropped half-way, and whoever is
/// not the candidate would race for the key that was released to that.
fn asked_for_at_once(view: &View<'_>) -> Option<StoreAction> {
    let request = view.due_failover().filter(|request| request.scheduled_at.is_some())?;
    Some(StoreAction::PutFailover {
        revision: request.revision,
        epoch: view.held()?.epoch,
        leader: request.leader.clone(),
        candidate: request.candidate.clone(),
        scheduled_at: None,
    })
}

fn await_replay(name: &Member, record: &MemberRecord, beyond: Lsn, deadline: Duration) -> Action {
    Action::Peer(PeerAction::AwaitReplay {
        member: name.clone(),
        api_url: record.api_url.clone(),
        pledges: record.pledges,
        beyond,
        deadline,
    })
}

fn fresh_answer<'a>(view: &View<'a>, name: &Member, since: Instant) -> Option<&'a PeerAnswer> {
    view.state.peers.answers.get(name).filter(|seen| seen.asked >= since).map(|seen| &seen.value)
}

fn good(view: &View<'_>, record: &MemberRecord, answer: &PeerAnswer) -> bool {
    able(view, record, answer) && lag_bytes(view, answer) <= view.config().maximum_lag_on_failover_bytes
}

/// But for its lag. One that does not replay would be waited for with PostgreSQL stopped, until it has replayed everything.
fn able(view: &View<'_>, record: &MemberRecord, answer: &PeerAnswer) -> bool {
    let runs = record.is_electable() || answer.replayed > Lsn(0);
    runs && !answer.barred && !answer.primary && !answer.replay_paused && !strayed(view, record, answer)
}

/// It went on where this leader's history did not, and will never have replayed what is written here: it would be waited for
/// in vain. A Patroni member tells no more of its history than a number.
///
/// The race: a standby has followed onto this leader's timeline, and has not looked at its own files since. By the older
/// timeline that it tells, it would be beyond the end of that.
fn strayed(view: &View<'_>, record: &MemberRecord, answer: &PeerAnswer) -> bool {
    let known = view.position().filter(|mine| mine.history.timeline == view.own_timeline());
    let Some(mine) = known.filter(|mine| record.pledges && answer.history.timeline >= mine.history.timeline) else {
        return false;
    };
    matches!(mine.history.relation(mine.flushed, &answer.history, answer.flushed), Relation::Diverged { .. })
}

fn lag_bytes(view: &View<'_>, answer: &PeerAnswer) -> u64 {
    view.sql().map_or(Lsn(0), |sql| sql.flushed).bytes_ahead_of(answer.flushed)
}

/// The one that comes closest, if it is the lag that keeps everybody from taking over.
fn lagging(view: &View<'_>, candidates: &[(&Member, &MemberRecord)], since: Instant) -> Option<Reason> {
    let lag = |(name, record): &(&Member, &MemberRecord)| {
        let answer = fresh_answer(view, name, since).filter(|answer| able(view, record, answer))?;
        Some((lag_bytes(view, answer), (*name).clone()))
    };
    let (by_bytes, who) = candidates.iter().filter_map(lag).min()?;
    Some(Reason::CandidateLagging { who, by_bytes })
}

/// Nobody good: the request is cleared and the primary stays.
fn refuse(view: &View<'_>, candidates: &[(&Member, &MemberRecord)], since: Instant) -> Verdict {
    let reason = lagging(view, candidates, since).unwrap_or(Reason::NoGoodCandidate);
    Verdict::orders(reason, clear(view).into_iter().collect())
}

/// Stopped cleanly: the shutdown checkpoint is the last thing that was ever written on this timeline. Whoever has
/// replayed beyond it holds everything.
fn hand_over(view: &View<'_>, wanted: Option<&Member>, dir: &Cluster) -> Option<Verdict> {
    let stopped = view.state.memory.dead_since?;
    let holds_all = |name: &Member, record: &MemberRecord| {
        // A Patroni member tells no more of its history than a number.
        let same_timeline = |history: &History| {
            history.timeline == dir.checkpoint_timeline
                && (!record.pledges || history.is_of_the_timeline_of(&dir.history))
        };
        fresh_answer(view, name, stopped)
            .is_some_and(|a| !a.barred && a.replayed > dir.checkpoint && same_timeline(&a.history))
    };
    let candidates = candidates(view, wanted);
    if let Some((name, _)) = candidates.iter().find(|(name, record)| holds_all(name, record)) {
        return Some(Verdict::wait(Reason::HandingOver { to: (*name).clone() }).fate(Fate::Release));
    }
    let waited = view.at.since(stopped);
    if waited < HANDOVER_LIMIT && !candidates.is_empty() {
        let left = view.at.until(stopped + HANDOVER_LIMIT);
        let asks = candidates.iter().map(|(name, record)| await_replay(name, record, dir.checkpoint, left));
        // Meanwhile, since the release waits for it.
        let orders = asks.chain(super::tenure::forget(view)).collect();
        return Some(Verdict::orders(Reason::AwaitingCandidate { lsn: dir.checkpoint }, orders));
    }
    if view.state.leaving {
        return Some(Verdict::wait(Reason::ReleasingToNobody).fate(Fate::Release));
    }
    Some(Verdict::order(Reason::NoTaker { after_ms: ms(waited) }, clear(view)?))
}

/// Not the leader (any more): stop PostgreSQL, publish that it is stopped, leave.
fn leave(view: &View<'_>) -> Verdict {
    if view.phase().is_some() {
        return Verdict::order(Reason::ShuttingDown, Action::Postgres(PostgresAction::Stop(StopMode::Fast)));
    }
    let stopped = |state: &str| matches!(state, "stopped" | "crashed" | "start failed");
    let told = view.state.session.published.as_ref().is_none_or(|record| stopped(&record.state));
    let patience = view.state.memory.dead_since.is_some_and(|since| view.at.since(since) >= Duration::from_secs(2));
    let revoked = view.state.spent.is_none();
    let forgotten = super::tenure::forget(view).is_none() || view.state.memory.epoch_failing.is_some();
    if (told && revoked) || (patience && forgotten) {
        let exit = HostAction::Exit { code: 0, message: "stopped".into() };
        return Verdict::orders(Reason::ShuttingDown, vec![Action::Host(exit)]);
    }
    Verdict::wait(Reason::ShuttingDown)
}
