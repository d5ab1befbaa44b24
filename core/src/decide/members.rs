//! Reconciler: our member record, under a lease of its own.

use alloc::boxed::Box;
use alloc::string::{String, ToString};

use crate::action::{Action, PostgresAction, StoreAction};
use crate::id::{Lsn, Timeline};
use crate::lease::Bounds;
use crate::reason::Reason;
use crate::view::View;
use crate::view::postgres::{Phase, Sql};
use crate::view::store::{ClusterView, MemberRecord};

pub(crate) fn order(view: &View<'_>) -> Option<(Action, Reason)> {
    if is_no_member(view) {
        return None;
    }
    let session = &view.state.session;
    let ttl = view.config().ttl;
    let Some(lease) = session.lease else {
        return Some((Action::Store(StoreAction::GrantSession { ttl }), Reason::PublishDue));
    };
    // Whose member it is stands in the keys.
    view.cluster()?;
    // First of all. The race: a store that is full refuses records and keeps leases alive, and this node's own would end.
    if view.at >= session.kept + Bounds::renew_interval(session.ttl) {
        return Some((Action::Store(StoreAction::KeepSession { lease }), Reason::PublishDue));
    }
    let stale = view.at.since(session.published_at) >= view.config().loop_wait;
    let now = record(view);
    let to_tell = match &session.published {
        // Positions move all the time and may be as old as loop_wait; everything else is told at once.
        Some(MemberRecord { position, received, replayed, .. }) if !stale => {
            MemberRecord { position: *position, received: *received, replayed: *replayed, ..now }
        }
        _ => now,
    };
    let told = session.published.as_ref() == Some(&to_tell);
    (!told).then(|| (Action::Store(StoreAction::PutMember { lease, record: record(view) }), Reason::PublishDue))
}

/// The directory is of another cluster than the store names, and this agent leaves. The race: it is started again and again,
/// and told each time that its PostgreSQL runs, before it left: whoever is to stream from it by a tag waited for it for ever.
fn is_no_member(view: &View<'_>) -> bool {
    let named = view.cluster().and_then(ClusterView::system_id);
    let other = named.zip(view.dir()).is_some_and(|(named, dir)| named != dir.system_id);
    other && view.held().is_none() && !view.paused()
}

/// What we tell of ourselves now. The words are Patroni's (states and roles of its appendix A).
pub(crate) fn record(view: &View<'_>) -> MemberRecord {
    let config = view.config();
    let sql = view.sql().filter(|_| view.phase() == Some(Phase::Ready));
    let standby = sql.is_some_and(|sql| sql.in_recovery);
    let position = sql.map_or(Lsn(0), |sql| if standby { sql.received.max(sql.replayed) } else { sql.flushed });
    MemberRecord {
        host: config.published.host.clone(),
        port: config.published.port,
        api_url: config.published.api_url.clone(),
        state: view.postgres_state().to_string(),
        role: role(view).to_string(),
        timeline: sql.map_or(Timeline(0), |sql| sql.timeline),
        position,
        received: sql.map_or(Lsn(0), |sql| sql.received),
        replayed: sql.map_or(Lsn(0), |sql| sql.replayed),
        replication_state: String::from(sql.and_then(Sql::replication_state).unwrap_or_default()),
        checkpoint_pending: checkpoint_pending(view),
        nofailover: config.nofailover,
        failover_priority: config.failover_priority,
        nostream: config.nostream,
        clonefrom: config.clonefrom,
        replicatefrom: config.replicatefrom.clone(),
        pledges: true,
        paused: view.paused(),
        pending_restart: sql.map(|sql| sql.pending_restart.clone()).unwrap_or_default(),
        scheduled_restart: view.state.scheduled_restart.clone().map(Box::new),
    }
}

/// The primary has not written its first checkpoint on the new timeline: nobody can be rewound to it yet.
fn checkpoint_pending(view: &View<'_>) -> bool {
    let (Some(sql), Some(dir)) = (view.sql(), view.dir()) else { return false };
    !sql.in_recovery && sql.timeline > Timeline(0) && dir.checkpoint_timeline != sql.timeline
}

fn role(view: &View<'_>) -> &'static str {
    let Some(dir) = view.dir() else { return "uninitialized" };
    if matches!(view.controlling(), Some(PostgresAction::Promote { .. })) {
        return "promoted";
    }
    match (view.sql(), view.phase()) {
        (Some(sql), Some(_)) if !sql.in_recovery && (view.held().is_some() || view.state.memory.let_go) => "primary",
        (_, None) if view.held().is_some() && !dir.standby_signal => "primary",
        _ if dir.standby_signal => "replica",
        _ => "demoted",
    }
}
