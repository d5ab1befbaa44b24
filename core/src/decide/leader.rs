//! Rung 9: the leader key is ours. Serve, start again in place, promote, or give up.

use alloc::string::String;
use alloc::vec;

use super::{Fate, Verdict, ms, successor, timeline_number};
use crate::action::{Action, HostAction, Lane, PostgresAction};
use crate::config::{Config, EPOCH_LIMIT, RACE_WINDOW, RETRY_PAUSE, START_FAILURES_MAX};
use crate::event::EpochFile;
use crate::id::{Revision, Timeline};
use crate::lease::Held;
use crate::reason::Reason;
use crate::state::PendingKind;
use crate::time::Duration;
use crate::view::View;
use crate::view::postgres::{Cluster, Phase, StartAs, StopMode};

pub(super) fn decide(view: &View<'_>) -> Option<Verdict> {
    let held = *view.held()?;
    let Some(dir) = view.complete_dir() else {
        let reason = Reason::CannotServe { why: "there is no complete data directory".into() };
        return Some(Verdict::wait(reason).fate(Fate::Release));
    };
    // The release may be applied any moment, and another leads then: nothing is begun under this tenure before its
    // answer is here.
    if view.releasing() {
        return Some(Verdict::wait(Reason::Releasing));
    }
    if let Some(verdict) = unserving(view) {
        return Some(verdict);
    }
    // Nothing may write before the guard has acknowledged this very tenure.
    if !view.authority() {
        return Some(Verdict::wait(Reason::ArmingGuard));
    }
    Some(match view.phase() {
        None => dead(view, &held, dir),
        Some(Phase::Stopping) => stopping(view),
        Some(Phase::Starting) => Verdict::wait(Reason::CrashRecovery {
            since_ms: ms(view.at.since(view.state.memory.starting_since.unwrap_or(view.at))),
            limit_ms: ms(view.config().primary_start_timeout),
        }),
        Some(Phase::Ready) => match view.sql() {
            None => Verdict::wait(Reason::Observing),
            // An answer from before a promotion would order it once more. The race: PostgreSQL writes the file of its new
            // timeline before it leaves recovery, and a look between would have another number reserved.
            Some(sql) if sql.in_recovery && (view.fresh_sql().is_none() || being_promoted(view)) => {
                let promoting = view.state.memory.promotion.then_some(Reason::Promoting { epoch: held.epoch });
                Verdict::wait(promoting.unwrap_or(Reason::Observing))
            }
            Some(sql) if sql.in_recovery => promote(view, &held, dir),
            Some(sql) => serve(view, &held, dir, sql.timeline),
        },
    })
}

fn being_promoted(view: &View<'_>) -> bool {
    matches!(view.controlling(), Some(PostgresAction::Promote { .. }))
}

/// A promotion that replays nothing more is given up after so long, if another could take over: as long as a start may
/// take, within reason.
pub(crate) fn promotion_limit(config: &Config) -> Duration {
    config.primary_start_timeout.clamp(Duration::from_secs(10), Duration::from_secs(60))
}

/// This node leads and does not get to serve: a promotion that hangs (in a restore command) or is refused, or what was
/// concluded before and stopped PostgreSQL. A promotion of unknown outcome may yet come to pass: then it is stopped.
fn unserving(view: &View<'_>) -> Option<Verdict> {
    let memory = &view.state.memory;
    if view.is_primary() {
        return None;
    }
    // Whether others could take over or not: what the operator refused is not asked again at once.
    let vetoed = memory.vetoed.zip(memory.held_since).is_some_and(|(vetoed, since)| vetoed >= since);
    let why = if vetoed {
        "the operator's pre_promote refused the promotion".into()
    } else if memory.giving_up {
        "leadership is being given up".into()
    } else {
        let refused = memory.promotions_refused >= START_FAILURES_MAX;
        let since = view.at.since(memory.promoting_since?);
        // Nor does anybody take over in a pause.
        let limit = promotion_limit(view.config());
        if view.paused() || !(refused || since >= limit) {
            return None;
        }
        // For who tells nothing it is not waited for ever.
        let silent = since >= limit + view.config().ttl && successor::is_silent(view);
        if !silent && !successor::is_known(view) {
            let asks = successor::questions(view, view.electable_others());
            return (!asks.is_empty()).then(|| Verdict::orders(Reason::AskingCandidates, asks));
        }
        let (refusals, since) = (memory.promotions_refused, ms(since));
        alloc::format!("PostgreSQL was not promoted within {since} ms, and refused it {refusals} times (see its log)")
    };
    Some(give_up(view, why))
}

/// This node does not get to serve: its tenure goes, once what may write yet is stopped.
fn give_up(view: &View<'_>, why: String) -> Verdict {
    let stop = (view.phase().is_some() && view.may_write())
        .then_some(Action::Postgres(PostgresAction::Stop(StopMode::Immediate)));
    Verdict::orders(Reason::CannotServe { why }, stop.into_iter().collect()).fate(Fate::Release)
}

/// Whoever has asked it to stop: what only waits for a standby or an archiver that hangs is ended, and starts again. So is
/// what a session keeps from stopping.
fn stopping(view: &View<'_>) -> Verdict {
    let drains = view.drain_hangs().map(|waits| (Reason::DrainHangs { for_ms: ms(waits) }, StopMode::Immediate));
    let ignored = || view.stop_ignored().map(|(waits, next)| (Reason::StopIgnored { for_ms: ms(waits) }, next));
    match drains.or_else(ignored) {
        Some((reason, mode)) => Verdict::order(reason, Action::Postgres(PostgresAction::Stop(mode))),
        None => Verdict::wait(Reason::Stopping),
    }
}

/// PostgreSQL is dead under our tenure. In place, if this node was the primary of the last epoch and nobody led since:
/// then nothing can have been acknowledged elsewhere. Otherwise as a standby that is promoted onto a new timeline.
fn dead(view: &View<'_>, held: &Held, dir: &Cluster) -> Verdict {
    assert!(view.authority(), "nothing is started as primary without authority");
    let failures = view.state.memory.start_failures;
    // What an operator asked for is no crash, and in a pause nobody would take over.
    let crashed = !view.state.memory.requested && !view.paused();
    let hurries = view.config().primary_start_timeout.is_zero() && crashed;
    let at_once = hurries && successor::is_known(view);
    if failures >= START_FAILURES_MAX || at_once {
        let why = if at_once {
            "PostgreSQL is gone, and primary_start_timeout is 0: another is to take over at once".into()
        } else {
            alloc::format!("PostgreSQL did not start {failures} times in a row (see its log)")
        };
        return Verdict::wait(Reason::CannotServe { why }).fate(Fate::Release);
    }
    // Nobody is waited for longer than that: what starts in place is given up yet if a late answer is good.
    if hurries {
        let asks = successor::questions(view, view.electable_others());
        let asked = |ask: &Action| view.state.ops.in_lane(&ask.lane()?).map(|question| question.since);
        if asks.iter().any(|ask| asked(ask).is_none_or(|since| view.at.since(since) < RACE_WINDOW)) {
            return Verdict::orders(Reason::AskingCandidates, asks);
        }
    }
    // The race: a tenure that was to be given away is being forgotten on disk, and nobody took it. What is known to be
    // there is there for a moment only.
    if forgetting(view, held) {
        return Verdict::wait(Reason::WritingEpoch { epoch: held.epoch });
    }
    // What is being born may have been made from a standby's backup, or have died while it recovered from one.
    let was_primary = view.unfinished_bootstrap() || dir.was_primary();
    // Or the tenure was about to be handed over, and nobody took it: it was forgotten, or that is not known. A file that
    // is void names no store.
    let store = view.cluster().map(|cluster| cluster.store);
    let kept = view.state.epoch_file.is_some_and(|file| {
        let ours = file.epoch == Revision(0) || file.epoch == held.epoch;
        ours && Some(file.store) == store && file.system_id == dir.system_id
    });
    if was_primary && (view.unfinished_bootstrap() || kept) && !epoch_on_disk(view, held, dir) {
        return write_epoch(view, held, dir);
    }
    if was_primary && epoch_on_disk(view, held, dir) {
        let start = Action::Postgres(PostgresAction::Start(StartAs::Primary));
        return Verdict::order(Reason::RestartInPlace { epoch: held.epoch }, start);
    }
    if let Some(verdict) = only_ends(view) {
        return verdict;
    }
    Verdict::order(Reason::StartToPromote, Action::Postgres(PostgresAction::Start(StartAs::Standby(None))))
}

/// A leader leaves where the agent may only observe (rung `unsupported`): it brings to an end what it led, and promotes nothing.
fn only_ends(view: &View<'_>) -> Option<Verdict> {
    let mode = view.config().unsupported.as_ref()?;
    let why = alloc::format!("this agent leaves, and promotes nothing where the cluster asks for {mode}");
    Some(give_up(view, why))
}

/// Another epoch than that of this tenure is on its way to the disk.
fn forgetting(view: &View<'_>, held: &Held) -> bool {
    let writing = view.state.ops.in_lane(&Lane::Host).map(|in_flight| &in_flight.action);
    matches!(writing, Some(Action::Host(HostAction::WriteEpoch(file))) if file.epoch != held.epoch)
}

fn epoch_on_disk(view: &View<'_>, held: &Held, dir: &Cluster) -> bool {
    let store = view.cluster().map(|cluster| cluster.store);
    let known = view.state.epoch_file.filter(|_| !view.state.memory.epoch_in_doubt);
    known.is_some_and(|file| file.epoch == held.epoch && Some(file.store) == store && file.system_id == dir.system_id)
}

fn write_epoch(view: &View<'_>, held: &Held, dir: &Cluster) -> Verdict {
    let failing = view.state.memory.epoch_failing.is_some_and(|since| view.at.since(since) >= EPOCH_LIMIT);
    if failing && !view.is_primary() {
        let why = "the epoch cannot be written to the state directory (is its disk full?)".into();
        return Verdict::wait(Reason::CannotServe { why }).fate(Fate::Release);
    }
    let store = view.cluster().map(|cluster| cluster.store).unwrap_or_default();
    let timeline = view.sql().map_or(dir.checkpoint_timeline, |sql| sql.timeline);
    let file = EpochFile { system_id: dir.system_id, store, epoch: held.epoch, timeline };
    Verdict::order(Reason::WritingEpoch { epoch: held.epoch }, Action::Host(HostAction::WriteEpoch(file)))
}

/// A standby under our tenure: the epoch goes to disk, then PostgreSQL is promoted.
fn promote(view: &View<'_>, held: &Held, dir: &Cluster) -> Verdict {
    assert!(view.authority(), "nothing is promoted without authority");
    if let Some(verdict) = only_ends(view) {
        return verdict;
    }
    if !epoch_on_disk(view, held, dir) {
        return write_epoch(view, held, dir);
    }
    let least = dir.newest_timeline.next();
    let Some(timeline) = timeline_number::reserved(view, held, least) else {
        let (timeline, reserve) = timeline_number::reserve(view, held, least);
        return Verdict::order(Reason::ReservingTimeline { timeline }, reserve);
    };
    let promote = Action::Postgres(PostgresAction::Promote { timeline });
    Verdict::order(Reason::Promoting { epoch: held.epoch }, promote)
}

/// A primary under our tenure.
pub(super) fn serve(view: &View<'_>, held: &Held, dir: &Cluster, timeline: Timeline) -> Verdict {
    let mut verdict = Verdict::steady(Reason::TenureHeld { left_ms: ms(view.authority_left()) });
    // A tenure that was regained has a new epoch: a crash from now on must find it on disk.
    if !epoch_on_disk(view, held, dir) {
        verdict.orders = write_epoch(view, held, dir).orders;
    }
    // PostgreSQL took a greater number than was reserved: it found more in an archive than there is in the directory.
    if timeline_number::reserved(view, held, timeline).is_none() {
        verdict.orders.push(timeline_number::reserve(view, held, timeline).1);
    }
    if restart_wanted(view) {
        let short = super::switchover::stops_shortly(view);
        verdict.reason = if short { Reason::RestartRequested } else { Reason::CheckpointBeforeStop };
        let next = if short { PostgresAction::Restart } else { PostgresAction::Checkpoint };
        verdict.orders.push(Action::Postgres(next));
        verdict.steady = false;
    } else if view.cluster().is_some_and(|c| c.system_id().is_none()) && !view.state.memory.roles_created {
        verdict.reason = Reason::CreatingRoles;
        verdict.orders.push(Action::Postgres(PostgresAction::CreateRoles));
        verdict.steady = false;
    } else if dir.checkpoint_timeline != timeline
        && timeline > Timeline(0)
        && view.state.memory.data_in_doubt.is_none()
        && !just_checkpointed(view)
        && !super::slots::are_awaited(view)
    {
        // Slots first: standbys wait for them to attach again, and a checkpoint would keep their lane.
        // PostgreSQL spreads its first checkpoint after a promotion over minutes; nobody can be rewound before it.
        verdict.orders = [verdict.orders, vec![Action::Postgres(PostgresAction::Checkpoint)]].concat();
    }
    verdict
}

/// A checkpoint that has just ended and did not bring the directory onto the timeline is not repeated at once.
fn just_checkpointed(view: &View<'_>) -> bool {
    view.state.memory.checkpointed.is_some_and(|at| view.at.since(at) < RETRY_PAUSE)
}

/// An operator waits for a restart that has not been ordered yet, or the time of one has come.
pub(super) fn restart_wanted(view: &View<'_>) -> bool {
    let asked = view.state.requests.values().any(|pending| matches!(pending.kind, PendingKind::Restart { op: None }));
    asked || crate::procedure::restart::is_due(view)
}
