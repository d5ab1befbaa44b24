//! Rung 7: there is no complete data directory. Initialise the cluster, clone from whoever leads, or wait.

use alloc::vec::Vec;

use super::{Fate, Verdict};
use crate::action::{Action, PostgresAction, StoreAction};
use crate::reason::Reason;
use crate::view::View;
use crate::view::postgres::{DataDir, StopMode, Upstream};
use crate::view::store::MemberRecord;

pub(super) fn decide(view: &View<'_>) -> Option<Verdict> {
    // Asked to stop, with nothing to hand over: whether the store answers, or somebody is there to clone from, is
    // nothing to wait for any more.
    if view.state.leaving && view.held().is_none() {
        return None;
    }
    let Some(cluster) = view.cluster() else { return Some(Verdict::wait(Reason::Observing)) };
    let why_tainted = view.dir().and_then(|dir| dir.tainted.clone());
    // A complete directory is worth more than an operator's wish to clone it while nobody is there to clone from: this
    // node may hold the most. The wish stands for the next leader.
    let reinit = view.state.memory.reinit && (cluster.leader.is_some() || view.complete_dir().is_none());
    let empty = matches!(view.state.postgres.data, DataDir::Empty);
    if !empty && why_tainted.is_none() && !reinit {
        return None;
    }
    if view.held().is_some() {
        return Some(lead_without_data(view));
    }
    // PostgreSQL may still run on a directory that was removed beneath it.
    if view.phase().is_some() {
        let reason = if reinit { Reason::ReinitRequested } else { Reason::NoCloneSource };
        return Some(Verdict::order(reason, Action::Postgres(PostgresAction::Stop(StopMode::Immediate))));
    }
    if let Some(upstream) = clone_source(view) {
        let reason = match why_tainted {
            Some(why) => Reason::Tainted { why },
            None if reinit => Reason::ReinitRequested,
            None => Reason::Cloning { from: upstream.member.clone() },
        };
        return Some(Verdict::order(reason, Action::Postgres(PostgresAction::Clone(upstream))));
    }
    let gave_up = view.gave_up_for().is_some();
    if let Some(initialize) = cluster.initialize.filter(|_| view.state.memory.initdb_failed && view.initialising()) {
        // Given back a moment ago, it is not seen to be gone yet.
        let abandon = Action::Store(StoreAction::AbandonInitialize { initialize: initialize.revision });
        return Some(Verdict::orders(Reason::InitdbFailed, if gave_up { Vec::new() } else { [abandon].into() }));
    }
    let fresh = cluster.initialize.is_none() && cluster.leader.is_none() && empty;
    if fresh {
        if gave_up {
            return Some(Verdict::wait(Reason::InitdbFailed));
        }
        if !view.config().may_bootstrap || view.config().nofailover {
            return Some(Verdict::wait(Reason::MayNotInitialise));
        }
        if let Some(reason) = somebodys_data(view) {
            return Some(Verdict::wait(reason));
        }
        let ask = view.state.session.lease.map(|lease| Action::Store(StoreAction::RaceInitialize { lease }));
        return Some(Verdict::orders(Reason::NoClusterYet, ask.into_iter().collect()));
    }
    if view.initialising() && cluster.leader.is_none() {
        return Some(Verdict::order(Reason::Initialising, Action::Postgres(PostgresAction::Initdb)));
    }
    // A cluster that is being made has nothing to restore yet. And what is half-done here may be the last copy: without a
    // leader nobody knows.
    if view.config().restores_alone && cluster.system_id().is_some() && empty {
        return Some(Verdict::order(Reason::Restoring, Action::Postgres(PostgresAction::Restore)));
    }
    let taken = cluster.initialize.is_some_and(|initialize| initialize.system_id.is_none());
    Some(Verdict::wait(if taken { Reason::InitTaken } else { Reason::NoCloneSource }))
}

/// The store knows of no cluster: it was replaced, or its keys were removed, and the data are still there. A cluster
/// that is made beside them would keep whoever has them from coming back.
fn somebodys_data(view: &View<'_>) -> Option<Reason> {
    if let Some(system_id) = view.state.memory.knew {
        return Some(Reason::ClusterKnown { system_id });
    }
    if let Some((who, _)) = view.others().find(|(_, key)| key.record.has_data()) {
        return Some(Reason::MemberHasData { who: who.clone() });
    }
    view.cluster()?.was_published().map(|lsn| Reason::ClusterPublished { lsn })
}

/// A leader whose data are gone cannot serve: it gives the key up as soon as nothing runs any more.
fn lead_without_data(view: &View<'_>) -> Verdict {
    let reason = Reason::CannotServe { why: "the data directory is gone or incomplete".into() };
    if view.phase().is_some() {
        let stop = Action::Postgres(PostgresAction::Stop(StopMode::Immediate));
        return Verdict::order(reason, stop).fate(Fate::Release);
    }
    Verdict::wait(reason).fate(Fate::Release)
}

/// A running replica that offers itself (`clonefrom`), or else the leader; the leader alone if the operator said so.
fn clone_source(view: &View<'_>) -> Option<Upstream> {
    let (_, leader, led) = view.serving_leader()?;
    // Before the cluster is complete there is no role to clone with.
    view.cluster()?.system_id()?;
    let memory = &view.state.memory;
    if memory.reinit && memory.reinit_from_leader {
        return Some(leader);
    }
    // One that follows somebody who was promoted by hand, or that does not stream, may hold what is nobody's.
    let follows = |record: &MemberRecord| record.timeline == led.timeline && record.replication_state == "streaming";
    let offers = |record: &MemberRecord| record.clonefrom && record.state == "running" && follows(record);
    let other = view.others().find(|(name, key)| offers(&key.record) && **name != leader.member);
    Some(other.map_or(leader, |(name, key)| Upstream {
        member: name.clone(),
        host: key.record.host.clone(),
        port: key.record.port,
    }))
}
