//! Rung 11: another leads, and our history may not be a part of its. Compare, rewind, clone, or wait.

use alloc::string::String;

use super::Verdict;
use crate::action::{Action, PostgresAction};
use crate::config::STREAM_PATIENCE;
use crate::id::{Lsn, Revision, Timeline};
use crate::reason::Reason;
use crate::view::View;
use crate::view::postgres::{Cluster, ControlState, StopMode, Upstream};
use crate::view::store::MemberRecord;

pub(super) fn decide(view: &View<'_>) -> Option<Verdict> {
    let dir = view.complete_dir()?;
    let (epoch, upstream, record) = view.serving_leader()?;
    match view.state.memory.compared.filter(|(with, _)| *with == epoch) {
        Some((_, None)) => None,
        Some((_, Some(at))) => Some(diverged(view, dir, epoch, at, upstream, record)),
        // What could not even be recovered cannot be compared: it can only be cloned again, if it may.
        None if suspicious(view, dir) && failure(view, epoch).is_some() => {
            Some(diverged(view, dir, epoch, dir.checkpoint, upstream, record))
        }
        // The end of a crashed primary's WAL is known once it has recovered.
        None if suspicious(view, dir) && crashed_primary(dir) => {
            Some(Verdict::order(Reason::SingleUserRecovery, Action::Postgres(PostgresAction::RecoverSingleUser)))
        }
        None if suspicious(view, dir) => {
            let reason = Reason::ComparingHistories { with: upstream.member.clone() };
            Some(Verdict::order(reason, Action::Postgres(PostgresAction::Compare(upstream))))
        }
        None => None,
    }
}

/// A stopped server is compared before it starts: it may have been a primary, or have received more than the winner.
/// A running one only if it cannot stream.
fn suspicious(view: &View<'_>, dir: &Cluster) -> bool {
    if view.phase().is_none() {
        view.dead() && !dir.backup_label
    } else {
        let streams = view.sql().is_some_and(|sql| sql.receiver.as_ref().is_some_and(|r| r.streaming));
        let turned = view.sql().is_some_and(|sql| sql.upstream_set);
        turned && !streams && view.at.since(view.state.memory.streamed) >= STREAM_PATIENCE
    }
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
    let failed =
        view.state.memory.rewind_failed.as_ref().filter(|(with, _)| *with == epoch).map(|(_, why)| why.clone());
    match failed.or_else(|| cannot_rewind(view, dir)) {
        None if needs_recovery(dir) => {
            Verdict::order(Reason::SingleUserRecovery, Action::Postgres(PostgresAction::RecoverSingleUser))
        }
        None => Verdict::order(reason, Action::Postgres(PostgresAction::Rewind(upstream))),
        Some(why) if may_clone(view, epoch, record) => {
            Verdict::order(Reason::CloneInstead { why }, Action::Postgres(PostgresAction::Clone(upstream)))
        }
        Some(why) => Verdict::wait(Reason::CannotRewind { why }),
    }
}

/// Why rewinding to the leader of this epoch, or the recovery before it, failed.
fn failure(view: &View<'_>, epoch: Revision) -> Option<String> {
    view.state.memory.rewind_failed.as_ref().filter(|(with, _)| *with == epoch).map(|(_, why)| why.clone())
}

fn crashed_primary(dir: &Cluster) -> bool {
    !dir.standby_signal
        && matches!(
            dir.state,
            ControlState::StartingUp
                | ControlState::ShuttingDown
                | ControlState::InCrashRecovery
                | ControlState::InProduction
        )
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

/// Cloning throws away what only this node holds. It is allowed where the operator says so, or after a rewind was
/// allowed and failed (it leaves the directory unusable), and only while the leader serves on a known timeline.
fn may_clone(view: &View<'_>, epoch: Revision, record: &MemberRecord) -> bool {
    let allowed = view.config().clone_when_diverged || failure(view, epoch).is_some();
    allowed && record.timeline > Timeline(0) && record.position > Lsn(0)
}
