//! Rung 11: another leads, and our history may not be a part of its. Compare, rewind, clone, or wait.

use alloc::string::String;

use super::{Verdict, ms};
use crate::action::{Action, PostgresAction};
use crate::config::{COMPARE_PAUSE, RECOVERY_PAUSE, STREAM_PATIENCE};
use crate::id::{Lsn, Revision, Timeline};
use crate::reason::Reason;
use crate::time::Duration;
use crate::view::View;
use crate::view::postgres::{Cluster, ControlState, Phase, StopMode, Upstream};
use crate::view::store::MemberRecord;

/// For how long it is known what a comparison has found: until what was ordered by it begins.
const COMPARISON_HOLDS: Duration = Duration::from_millis(500);

pub(super) fn decide(view: &View<'_>) -> Option<Verdict> {
    let dir = view.complete_dir()?;
    let (epoch, upstream, record) = view.serving_leader()?;
    let compared = view.state.memory.compared.filter(|(with, _)| *with == epoch);
    if let Some((_, Some(at))) = compared {
        return Some(diverged(view, dir, epoch, at, upstream, record));
    }
    // Also a server that crashed is compared before it is touched: to recover it by itself would write a checkpoint,
    // and what held no more than the leader would have diverged by that.
    if !suspicious(view, dir) || (compared.is_some() && !doubtful(view)) {
        return None;
    }
    Some(compare(upstream))
}

fn compare(upstream: Upstream) -> Verdict {
    let reason = Reason::ComparingHistories { with: upstream.member.clone() };
    Verdict::order(reason, Action::Postgres(PostgresAction::Compare(upstream)))
}

/// What is given up goes by a comparison of just now.
///
/// The race: the server took long to stop or to recover, or the last attempt failed, and whoever it was compared with is a
/// primary no longer: without a store it has become a standby.
fn is_old(view: &View<'_>) -> bool {
    view.state.memory.compared_at.is_none_or(|at| view.at.since(at) >= COMPARISON_HOLDS)
}

/// Recovers, and recovers again after a pause if that failed. What was not recovered is not given up:
/// a failure says something of the configuration, the disk or the WAL here, and nothing of what the leader holds.
fn recover(view: &View<'_>) -> Verdict {
    let action = Action::Postgres(PostgresAction::RecoverSingleUser);
    let Some((failed, why)) = &view.state.memory.recovery_failed else {
        return Verdict::order(Reason::SingleUserRecovery, action);
    };
    let left = view.at.until(*failed + RECOVERY_PAUSE);
    let reason = Reason::RecoveryFailed { why: why.clone(), again_ms: ms(left) };
    if left > Duration::ZERO { Verdict::wait(reason) } else { Verdict::order(reason, action) }
}

/// A stopped server is compared before it starts: it may have been a primary, or have received more than the winner.
/// A running one only if it cannot stream. One that is not consistent yet does not tell; perhaps it waits for WAL of a
/// primary that is gone and that nobody has.
fn suspicious(view: &View<'_>, dir: &Cluster) -> bool {
    let memory = &view.state.memory;
    match view.phase() {
        None => view.dead() && !dir.backup_label,
        Some(Phase::Starting) => {
            let pointed = memory.followed.is_some() && memory.followed == view.upstream();
            let turned = pointed && view.controlling().is_none();
            turned && view.at.since(memory.turned) >= STREAM_PATIENCE
        }
        Some(Phase::Ready | Phase::Stopping) => {
            let streams = view.sql().is_some_and(|sql| sql.receiver.as_ref().is_some_and(|r| r.streaming));
            let turned = view.sql().is_some_and(|sql| sql.upstream_set);
            turned && !streams && view.at.since(memory.streamed) >= STREAM_PATIENCE
        }
    }
}

/// The histories did not part by the last comparison, and yet the server does not stream: it has replayed since what it
/// had received before it was compared.
fn doubtful(view: &View<'_>) -> bool {
    let memory = &view.state.memory;
    let since_then = memory.compared_at.is_none_or(|at| at < memory.streamed || view.at.since(at) >= COMPARE_PAUSE);
    view.phase().is_some() && since_then
}

fn diverged(
    view: &View<'_>,
    dir: &Cluster,
    epoch: Revision,
    at: Lsn,
    upstream: Upstream,
    record: &MemberRecord,
) -> Verdict {
    let reason = Reason::Diverged { at, timeline: dir.history.timeline };
    if view.phase().is_some() {
        return Verdict::order(reason, Action::Postgres(PostgresAction::Stop(StopMode::Fast)));
    }
    if record.checkpoint_pending {
        return Verdict::wait(Reason::LeaderNotCheckpointed { who: upstream.member });
    }
    match failure(view, epoch).or_else(|| cannot_rewind(view, dir)) {
        None if needs_recovery(dir) => recover(view),
        None if is_old(view) => compare(upstream),
        None => Verdict::order(reason, Action::Postgres(PostgresAction::Rewind(upstream))),
        Some(_) if may_clone(view, dir, epoch, at, record) && is_old(view) => compare(upstream),
        Some(why) if may_clone(view, dir, epoch, at, record) => {
            let reason = Reason::CloneInstead { why, who: upstream.member.clone(), at };
            Verdict::order(reason, Action::Postgres(PostgresAction::Clone(upstream)))
        }
        Some(why) => Verdict::wait(Reason::CannotRewind { why }),
    }
}

/// Why rewinding to the leader of this epoch failed, if it did.
fn failure(view: &View<'_>, epoch: Revision) -> Option<String> {
    view.state.memory.rewind_failed.as_ref().filter(|(with, _)| *with == epoch).map(|(_, why)| why.clone())
}

/// `pg_rewind` refuses a target that was not shut down cleanly.
fn needs_recovery(dir: &Cluster) -> bool {
    !matches!(dir.state, ControlState::ShutDown | ControlState::ShutDownInRecovery)
}

fn cannot_rewind(view: &View<'_>, dir: &Cluster) -> Option<String> {
    if !view.config().use_pg_rewind {
        return Some("use_pg_rewind is off".into());
    }
    (!dir.rewindable).then(|| "neither data checksums nor wal_log_hints are on".into())
}

/// Cloning throws away what only this node holds: all that lies beyond the position at which the histories part. A
/// rewind does the same, so a clone may take the place of one that failed, where the leader is known to hold the rest:
/// it was compared, it serves at or beyond that position, and on a timeline begun after ours, so that it was elected
/// from our history and what is only here was given up by that. With a leader on our timeline or an older one nothing
/// of the kind is known (its store or its data may be of yesterday), and what is here may be the last copy. Then, and
/// where no rewind was tried, the operator's word is needed.
fn may_clone(view: &View<'_>, dir: &Cluster, epoch: Revision, at: Lsn, record: &MemberRecord) -> bool {
    let serves = record.timeline > Timeline(0) && record.position > Lsn(0);
    let came_after = dir.history.timeline > Timeline(0) && record.timeline > dir.history.timeline;
    let holds_the_rest = came_after && record.position >= at;
    let (config, failed) = (view.config(), failure(view, epoch).is_some());
    serves && (config.clone_when_diverged || (failed && (config.clone_when_rewind_fails || holds_the_rest)))
}
