//! Reconciler of a leader: a line of `history` for every timeline that ended.

use alloc::string::ToString;
use alloc::vec::Vec;

use crate::action::{Action, StoreAction};
use crate::id::Timeline;
use crate::reason::Reason;
use crate::view::View;
use crate::view::postgres::{Cluster, Sql};
use crate::view::store::HistoryLine;

/// The directory was looked at before the promotion that the query has seen.
pub(super) fn is_outdated(dir: &Cluster, sql: &Sql) -> bool {
    dir.history.timeline > Timeline(0) && dir.history.timeline < sql.timeline
}

pub(crate) fn order(view: &View<'_>) -> Option<(Action, Reason)> {
    let held = view.held().filter(|_| view.is_primary() && view.publishes())?;
    let (dir, sql) = view.dir().zip(view.sql())?;
    if sql.timeline != dir.history.timeline || sql.timeline < Timeline(1) {
        return None;
    }
    let put = StoreAction::PutHistory {
        epoch: held.epoch,
        revision: view.cluster()?.history.revision,
        lines: untold(view, dir)?,
        status: super::cluster_keys::status(view, sql, sql.timeline),
    };
    Some((Action::Store(put), Reason::HistoryDue))
}

/// The lines that lead to this directory's timeline, unless the store tells of them.
pub(super) fn untold(view: &View<'_>, dir: &Cluster) -> Option<Vec<HistoryLine>> {
    let cluster = view.cluster().filter(|cluster| cluster.system_id().is_some())?;
    let known = &cluster.history;
    // Another may have led on a timeline of its own meanwhile, in a pause: everybody would have left what that one told.
    let told = match (known.lines.last(), dir.history.ancestors.last()) {
        // What others remember of a key that is gone is told anew as well.
        (None, None) => view.told_history(cluster).is_empty() && !known.unreadable,
        (Some(line), Some(newest)) => {
            line.timeline == newest.timeline && line.end == newest.end && line.leader.is_some()
        }
        (None, Some(_)) | (Some(_), None) => false,
    };
    if told {
        return None;
    }
    let mut lines: Vec<HistoryLine> = dir
        .history
        .ancestors
        .iter()
        .map(|ancestor| {
            let before = known.lines.iter().find(|line| line.timeline == ancestor.timeline && line.end == ancestor.end);
            before.cloned().unwrap_or_else(|| HistoryLine {
                timeline: ancestor.timeline,
                end: ancestor.end,
                reason: ancestor.reason.clone(),
                timestamp: None,
                leader: None,
            })
        })
        .collect();
    // The runtime stamps the newest line with the time of the history file when it writes it.
    if let Some(last) = lines.last_mut() {
        last.leader = Some(view.config().me.to_string());
    }
    let keep = view.config().max_timelines_history;
    let skip = if keep == 0 { 0 } else { lines.len().saturating_sub(keep) };
    Some(lines.split_off(skip))
}
