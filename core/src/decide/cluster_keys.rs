//! Reconciler of a leader: `initialize`, `config`, `status`, and requests of operators that are done or do not fit; of a
//! candidate that has failed, the request for it.

use crate::action::{Action, Status, StoreAction};
use crate::id::{Revision, SystemId, Timeline};
use crate::reason::Reason;
use crate::view::View;
use crate::view::postgres::Sql;
use crate::view::store::{ClusterView, StatusKey};

pub(crate) fn order(view: &View<'_>) -> Option<(Action, Reason)> {
    let cluster = view.cluster()?;
    if let Some(request) = cluster.failover.as_ref().filter(|_| fails_as_candidate(view)) {
        let clear = StoreAction::ClearFailover { revision: request.revision };
        return Some((Action::Store(clear), Reason::RequestStale));
    }
    let held = view.held().filter(|_| view.publishes())?;
    let dir = view.dir()?;
    let uninitialised = cluster.system_id().is_none();
    // The cluster that this agent knew is named again before its leader serves: it may come to nothing, and an agent that
    // has started since knows of no cluster.
    let known = view.state.memory.knew == Some(dir.system_id);
    // A configuration that is gone does not end a pause, and one that was written anew would.
    let may_complete = !view.paused() || cluster.config_revision != Revision(0);
    if uninitialised && known && may_complete {
        return Some(complete(cluster, held.epoch, dir.system_id));
    }
    let sql = view.sql().filter(|_| view.is_primary())?;
    if let Some(request) = &cluster.failover {
        let me = &view.config().me;
        let other_leader = request.leader.as_ref().is_some_and(|leader| leader != me);
        // Scheduled actions wait for the end of a pause.
        let missed = !view.paused() && view.schedule_missed(request);
        let nobody = view.paused() && request.candidate.is_none() && request.scheduled_at.is_none();
        let before = view.is_of_a_leader_before(request);
        let given_up = view.state.memory.given_up == Some(request.revision);
        if other_leader || nobody || missed || before || given_up || request.candidate.as_ref() == Some(me) {
            let clear = StoreAction::ClearFailover { revision: request.revision };
            return Some((Action::Store(clear), Reason::RequestStale));
        }
    }
    let due = if uninitialised { view.state.memory.roles_created } else { cluster.config_revision == Revision(0) };
    if due && may_complete {
        return Some(complete(cluster, held.epoch, dir.system_id));
    }
    let due = view.at.since(view.state.session.status_at) >= view.config().loop_wait;
    if uninitialised || !due {
        return None;
    }
    // A position says which timeline it is on only once the history tells where that began: told before, it reads as one
    // on the branch that the history ends with, and whoever is on this one would have left it. So the history goes first,
    // unless it has not got there for long: what is told is what others are measured by.
    let in_vain = |since| view.at.since(since) >= view.config().loop_wait;
    let history_due = super::history::order(view).is_some() && !view.state.memory.history_failing.is_some_and(in_vain);
    if history_due || super::history::is_outdated(dir, sql) {
        return None;
    }
    let status = status(view, sql, told_timeline(view));
    let told = |told: &StatusKey| {
        let on_it = told.timeline == status.timeline || status.timeline == Timeline(0);
        let same_slots = told.slots.iter().eq(status.slots.iter().map(|(name, position)| (name, position)));
        told.optime == status.position && on_it && same_slots && told.retain == status.retain
    };
    if cluster.status.as_ref().is_some_and(told) {
        return None;
    }
    Some((Action::Store(StoreAction::PutStatus { epoch: held.epoch, status }), Reason::StatusDue))
}

/// Where this leader is.
pub(super) fn status(view: &View<'_>, sql: &Sql, timeline: Timeline) -> Status {
    let (slots, retain) = super::slots::told(view, sql);
    Status { position: sql.flushed, timeline, slots: slots.into_iter().collect(), retain }
}

/// The operator asked for this node, and it cannot serve, or the operator's own check has refused it. The others would
/// stand back for it, for as long as it takes it to try and fail once more.
///
/// The race: its own record is being written while it gives up, and it has given up before there is a turn for this.
fn fails_as_candidate(view: &View<'_>) -> bool {
    let asked_for = view.due_failover().is_some_and(|request| request.candidate.as_ref() == Some(&view.config().me));
    asked_for && (view.state.memory.giving_up || view.gave_up_for().is_some() || view.vetoed_for().is_some())
}

/// `initialize` and, if it is absent, `config`.
fn complete(cluster: &ClusterView, epoch: Revision, system_id: SystemId) -> (Action, Reason) {
    let initialize = cluster.initialize.map(|initialize| initialize.revision).unwrap_or_default();
    let complete = StoreAction::CompleteInitialize { epoch, system_id, initialize, config: cluster.config_revision };
    (Action::Store(complete), Reason::ClusterKeysDue)
}

/// The timeline that our positions are on, once the history in the store tells where it began; 0 until then.
pub(super) fn told_timeline(view: &View<'_>) -> Timeline {
    let Some((cluster, dir)) = view.cluster().zip(view.dir()) else { return Timeline(0) };
    let on = view.sql().map_or(dir.history.timeline, |sql| sql.timeline);
    let last = cluster.history.lines.last().map(|line| (line.timeline, line.end));
    let began = dir.history.ancestors.last().map(|ancestor| (ancestor.timeline, ancestor.end));
    if on == dir.history.timeline && last == began { on } else { Timeline(0) }
}
