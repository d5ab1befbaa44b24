//! Rung 1: a PostgreSQL that may write without authority is stopped now, and so are the orphans of a dead one.

use alloc::vec;
use alloc::vec::Vec;

use super::{Fate, Verdict, ms, pause};
use crate::action::{Acquire, Action, GuardAction, Lane, PostgresAction, StoreAction};
use crate::config::{FIRE_LIMIT, GUARD_LIMIT, HOLD_LIMIT, ORPHANS_LIMIT};
use crate::id::{Lsn, Member, Revision, Timeline};
use crate::lease::{Held, Tenure};
use crate::reason::Reason;
use crate::time::Instant;
use crate::view::View;
use crate::view::postgres::{DataDir, Phase, Process, StopMode};
use crate::view::store::{ClusterView, LeaderKey};

pub(super) fn decide(view: &View<'_>) -> Option<Verdict> {
    let leads = matches!(view.state.tenure, Tenure::Held(_) | Tenure::Suspended { .. });
    // Whoever runs PostgreSQL in a mode that is not built yet, it is not this agent: it stops nothing and takes no key.
    // Except what its predecessor led: the guard is armed for that, and kills it unless the tenure is taken up.
    if view.config().unsupported.is_some() && !leads {
        let ours = view.leader().is_some_and(|leader| is_our_key(view, leader));
        return match &view.state.tenure {
            Tenure::Adopting { deadline } if ours && view.at < *deadline => adopting(view, *deadline),
            // Nor what this agent itself led: its fence has fallen, or is lost with the guard.
            Tenure::None if view.state.spent.is_some() => without_tenure(view),
            // The race: the mode was left and asked for again meanwhile, and there is no tenure to be looked for.
            Tenure::Adopting { .. } if view.state.spent.is_some() => {
                without_tenure(view).map(|verdict| verdict.fate(Fate::LetLapse))
            }
            _ => None,
        };
    }
    // The operator's PostgreSQL is not fenced. The orphans of one that this node leads are: it gives the key back.
    if pause::is_hands_off(view) || (view.state.memory.let_go && view.state.guard.armed.is_none()) {
        let ours = view.held().is_some() || pause::is_requested(view);
        return if ours { orphans(view) } else { None };
    }
    if pause::waits_for_guard(view) {
        return None;
    }
    match &view.state.tenure {
        Tenure::Held(held) => expired(view, held)
            .or_else(|| unacknowledged(view, held))
            .or_else(|| unguarded(view))
            .or_else(|| given_away(view)),
        Tenure::Suspended { since, was } => Some(suspended(view, *since, was)),
        Tenure::Adopting { deadline } => adopting(view, *deadline).map(|verdict| guarded_or_ended(view, verdict)),
        Tenure::None => without_tenure(view),
    }
    .or_else(|| orphans(view))
}

/// Expiry is decided by reading the clock, never by a timer having fired. The tenure lapses whether or not PostgreSQL
/// writes: nothing may be promoted under it any more.
fn expired(view: &View<'_>, held: &Held) -> Option<Verdict> {
    let end = view.config().bounds.arm_at(held.confirmed, held.ttl);
    if view.at < end {
        return None;
    }
    let reason = Reason::TenureExpired { ago_ms: ms(view.at.since(end)) };
    let orders = if view.may_write() { stop_writes(view) } else { vec![] };
    Some(Verdict::orders(reason, orders).fate(Fate::LetLapse))
}

/// Renewals go on, but the guard does not acknowledge them: what it has acknowledged is over, and should it be frozen
/// it stops nothing.
fn unacknowledged(view: &View<'_>, held: &Held) -> Option<Verdict> {
    let end = acknowledged_until(view, held);
    if !view.state.guard.present || view.at < end {
        return None;
    }
    let reason = Reason::GuardSilent { for_ms: ms(view.at.since(end)) };
    let orders = if view.may_write() { stop_writes(view) } else { vec![] };
    Some(Verdict::orders(reason, orders).fate(Fate::LetLapse))
}

/// Until when the guard is to have acknowledged another renewal. A tenure that it was never armed for gets a moment for the
/// first acknowledgement; and so does what stands still, which can acknowledge nothing meanwhile, and is not let stand still
/// for ever.
pub(crate) fn acknowledged_until(view: &View<'_>, held: &Held) -> Instant {
    let guard = &view.state.guard;
    match guard.armed.filter(|armed| armed.tenure == held.lease) {
        Some(armed) if guard.held && !guard.hold_in_doubt => armed.at + GUARD_LIMIT,
        Some(armed) => armed.at,
        None => served_since(view).max(guard.since) + GUARD_LIMIT,
    }
}

/// Since when the guard is to stand by for this tenure: from its beginning, or from the end of a pause.
fn served_since(view: &View<'_>) -> Instant {
    view.state.memory.held_since.unwrap_or(view.at).max(view.state.memory.resumed)
}

/// Without a guard nobody stops PostgreSQL if this agent freezes: after a second without one it is stopped cleanly.
fn unguarded(view: &View<'_>) -> Option<Verdict> {
    let gone = view.state.guard.gone?;
    let gone_for = view.at.since(gone);
    if gone_for < GUARD_LIMIT {
        return None;
    }
    let reason = Reason::GuardMissing { for_ms: ms(gone_for) };
    if !view.may_write() {
        return Some(Verdict::wait(reason).fate(Fate::LetLapse));
    }
    // Processes that are held take no notice of a polite request, nor do those that wait for a hung standby or
    // archiver.
    let ignored = matches!(view.stop_ignored(), Some((_, StopMode::Immediate)));
    let hangs = view.state.guard.held || view.drain_hangs().is_some() || ignored || unasked_for(view) >= GUARD_LIMIT;
    let mode = if hangs { StopMode::Immediate } else { StopMode::Fast };
    Some(Verdict::order(reason, Action::Postgres(PostgresAction::Stop(mode))).fate(Fate::Release))
}

/// What was left running writes while its tenure is looked for, if there is somebody to end it.
///
/// The race: agent and guard were killed together, another leads by now, of which nothing is heard, and no guard can be started
/// here.
fn guarded_or_ended(view: &View<'_>, searching: Verdict) -> Verdict {
    let gone_for = view.state.guard.gone.map(|gone| view.at.since(gone)).filter(|gone_for| *gone_for >= GUARD_LIMIT);
    match (gone_for, &searching.reason) {
        (Some(gone_for), Reason::Adopting { .. }) => {
            let reason = Reason::GuardMissing { for_ms: ms(gone_for) };
            Verdict::orders(reason, stop_writes(view)).fate(Fate::LetLapse)
        }
        _ => searching,
    }
}

/// How long a stop is under way that PostgreSQL takes no notice of: it waits for the operator's before_stop, or the
/// postmaster does not run.
fn unasked_for(view: &View<'_>) -> crate::time::Duration {
    let in_flight = view.state.ops.in_lane(&Lane::PgControl);
    let since = in_flight.filter(|stop| stop.action == Action::Postgres(PostgresAction::Stop(StopMode::Fast)));
    since.filter(|_| view.phase() == Some(Phase::Ready)).map_or_else(Default::default, |stop| view.at.since(stop.since))
}

/// The key is being given away, which is done beside nothing that writes: what writes now was started or promoted by
/// somebody else meanwhile. The release may have been applied, and then another leads.
fn given_away(view: &View<'_>) -> Option<Verdict> {
    let writes = view.phase().is_some() && view.may_write();
    (view.releasing() && writes).then(|| Verdict::orders(Reason::Releasing, stop_writes(view)).fate(Fate::LetLapse))
}

/// The guard kills at once. Where it is gone or does not answer, and where something is about to start PostgreSQL after
/// it has fired, the executor does.
fn stop_writes(view: &View<'_>) -> Vec<Action> {
    let mut orders = vec![Action::Guard(GuardAction::Fire)];
    let silent = view.state.guard_asked.fire.is_some_and(|asked| view.at.since(asked) >= FIRE_LIMIT);
    if !view.state.guard.present || silent || view.starting_primary() {
        orders.push(Action::Postgres(PostgresAction::Stop(StopMode::Immediate)));
    }
    orders
}

/// The key is gone and nobody else is seen: writes are held, the key is asked for once more under a new lease.
///
/// The race: the store drops our lease early (its frozen leader thaws) or an operator deletes the key. Killing at once
/// would turn either into an outage; going on would let another acquire the key beside our commits. Held processes can
/// do neither, and [`HOLD_LIMIT`] bounds what the hold costs if the key does not come back.
fn suspended(view: &View<'_>, since: Instant, was: &Held) -> Verdict {
    let held_for = view.at.since(since);
    let record = view.cluster().and_then(|cluster| cluster.epoch.as_ref());
    let overtaken = record.is_some_and(|record| record.epoch > was.epoch);
    // Without a guard nothing holds: then there is no time to ask. And who was led by another since has nothing to ask.
    if held_for >= HOLD_LIMIT || !view.state.guard.present || overtaken {
        let reason = Reason::KeyNotRegained { after_ms: ms(held_for) };
        return Verdict::orders(reason, stop_writes(view)).fate(Fate::LetLapse);
    }
    // What goes on writing may soon do so beside another, who waits for less than the hold may last.
    if view.state.guard.hold_in_doubt {
        return Verdict::orders(Reason::CannotHold, stop_writes(view)).fate(Fate::LetLapse);
    }
    let campaign = campaign(view, since);
    Verdict::orders(Reason::KeyVanished { for_ms: ms(held_for) }, vec![Action::Guard(GuardAction::Hold), campaign])
}

/// The next half-step towards the leader key: a lease that was asked for after `since`, then the key itself.
fn campaign(view: &View<'_>, since: Instant) -> Action {
    match view.state.granted.filter(|granted| granted.asked >= since) {
        None => Action::Store(StoreAction::GrantTenure { ttl: view.config().ttl }),
        Some(granted) => Action::Store(StoreAction::Acquire(acquire(view, granted.lease))),
    }
}

/// The guarded creation of the leader key, with everything that the decision used.
pub(super) fn acquire(view: &View<'_>, lease: crate::id::LeaseId) -> Acquire {
    let cluster = view.cluster().cloned().unwrap_or_default();
    let position = view.position();
    Acquire {
        lease,
        failover: cluster.failover_revision,
        config: cluster.config_revision,
        sync: cluster.sync_revision,
        record: cluster.epoch.map(|record| record.revision).unwrap_or_default(),
        timeline: position.as_ref().map_or(Timeline(0), |p| p.history.timeline),
        position: position.map_or(Lsn(0), |p| p.flushed),
        newest_timeline: super::timeline_number::to_reserve(view),
        unguarded: view.paused(),
    }
}

/// A start is no lease loss: a primary that was left running goes on until the guard's instant, while the agent looks
/// whether the leader key is still its own.
fn adopting(view: &View<'_>, deadline: Instant) -> Option<Verdict> {
    if view.state.postgres.process == Process::Unknown {
        return Some(Verdict::wait(Reason::Observing));
    }
    if view.at >= deadline {
        if !view.may_write() {
            return Some(Verdict::wait(Reason::Observing).fate(Fate::LetLapse));
        }
        return Some(Verdict::orders(Reason::NoTenure, stop_writes(view)).fate(Fate::LetLapse));
    }
    // Nothing writes: there is no hurry, and nothing to be stopped.
    let reason =
        if view.may_write() { Reason::Adopting { left_ms: ms(view.at.until(deadline)) } } else { Reason::Observing };
    let Some(cluster) = view.cluster() else { return Some(Verdict::wait(reason)) };
    // Whose key it is cannot be told before the data are known.
    if view.state.postgres.data == DataDir::Unknown {
        return Some(Verdict::wait(reason));
    }
    // A tenure of one of ours, and not the one on disk: another node goes by our name, and may write this very moment.
    let ours_kind = |created| cluster.epoch.as_ref().is_some_and(|record| record.epoch == created);
    match &cluster.leader {
        // The epoch file proves that this key is ours: a name alone proves nothing.
        Some(leader) if is_our_key(view, leader) => {
            let deadline = crate::lease::Bounds::attempt_deadline(view.config().ttl);
            let renew = StoreAction::Renew { lease: leader.lease, epoch: leader.created, deadline };
            Some(Verdict::order(reason, Action::Store(renew)))
        }
        // Our name, under a lease that this agent's predecessor (a Patroni, perhaps) held beside this very primary.
        Some(leader) if leader.member == view.config().me && !ours_kind(leader.created) => {
            let action = match view.state.granted {
                None => StoreAction::GrantTenure { ttl: view.config().ttl },
                Some(granted) => StoreAction::TakeOver { lease: granted.lease, modified: leader.modified },
            };
            Some(Verdict::order(reason, Action::Store(action)))
        }
        // Another leads, under whatever name: the search is over.
        Some(_) => without_tenure(view),
        // Another led since this PostgreSQL did: what it acknowledged is not here.
        None if cluster.epoch.as_ref().is_some_and(|record| !ours_by_epoch(view, &record.member, record.epoch)) => {
            without_tenure(view)
        }
        // Nor is it here where Patroni led since, which keeps no record of its tenures: its history tells.
        None if is_told_as_over(view, cluster) => without_tenure(view),
        None => {
            let campaign = campaign(view, Instant::ZERO);
            Some(if view.may_write() { without_key(view, reason, campaign) } else { Verdict::order(reason, campaign) })
        }
    }
}

/// The cluster's history tells that the timeline of this PostgreSQL has ended, or of later ones.
///
/// The race: this agent takes the place of a Patroni that was killed and left its primary running; another has led since,
/// and its key is free for a moment.
fn is_told_as_over(view: &View<'_>, cluster: &ClusterView) -> bool {
    let own = view.dir().map(|dir| dir.history.timeline);
    own.is_some_and(|own| view.told_history(cluster).iter().any(|line| line.timeline >= own))
}

/// The search for a tenure finds no key at all: somebody else may create it any moment, and until it is ours nothing is
/// written. As after a key that vanished, but for a guard that is only being started: it is waited for.
fn without_key(view: &View<'_>, reason: Reason, campaign: Action) -> Verdict {
    if view.state.guard.hold_in_doubt {
        return Verdict::orders(Reason::CannotHold, stop_writes(view)).fate(Fate::LetLapse);
    }
    let mut orders = vec![Action::Guard(GuardAction::Hold)];
    let takes = matches!(campaign, Action::Store(StoreAction::Acquire(_)));
    if !(takes && (vouches_for_nothing(view) || outlasts_the_lease(view))) {
        orders.push(campaign);
    }
    Verdict::orders(reason, orders)
}

/// Whoever takes the key vouches for its guard. After a pause there may be none: it is armed first.
fn vouches_for_nothing(view: &View<'_>) -> bool {
    let unguarded = view.cluster().and_then(|cluster| cluster.epoch.as_ref()).is_some_and(|record| record.unguarded);
    unguarded && view.state.guard.armed.is_none()
}

/// The search goes by the ttl that this agent knew when it began. Where the cluster's is shorter by now, the guard's
/// instant comes after the new lease may end: then what may write is held before the key is taken.
fn outlasts_the_lease(view: &View<'_>) -> bool {
    let guard = &view.state.guard;
    let until = view.state.granted.map(|granted| view.config().bounds.arm_at(granted.asked, granted.ttl));
    !guard.held && guard.armed.zip(until).is_some_and(|(armed, until)| armed.at > until)
}

/// The leader key is of the tenure that the epoch file of this node names, and that one is not over: it may take long to
/// revoke its lease, and to forget it on disk.
pub(crate) fn is_our_key(view: &View<'_>, leader: &LeaderKey) -> bool {
    view.state.spent != Some(leader.lease) && ours_by_epoch(view, &leader.member, leader.created)
}

/// The epoch file of this node names this tenure, in this cluster and this store. The name counts as well: a store that
/// was restored from a backup mints the revision of the file a second time, for another.
fn ours_by_epoch(view: &View<'_>, member: &Member, created: Revision) -> bool {
    if *member != view.config().me {
        return false;
    }
    let Some((file, cluster, dir)) =
        view.state.epoch_file.zip(view.cluster()).zip(view.dir()).map(|((f, c), d)| (f, c, d))
    else {
        return false;
    };
    file.epoch == created && file.store == cluster.store && file.system_id == dir.system_id
}

/// No tenure: nothing that may write goes on.
fn without_tenure(view: &View<'_>) -> Option<Verdict> {
    // Another cluster's PostgreSQL is not ours to stop, unless this agent is starting it: the agent leaves.
    if !view.may_write() || view.foreign() {
        return None;
    }
    let reason = match view.leader() {
        Some(leader) if leader.member != view.config().me => {
            Reason::LeaderIsOther { who: leader.member.clone(), revision: leader.created }
        }
        Some(_) | None => Reason::NoTenure,
    };
    Some(Verdict::orders(reason, stop_writes(view)))
}

/// A dead postmaster is not a dead PostgreSQL: its backends may go on committing until their statements end.
fn orphans(view: &View<'_>) -> Option<Verdict> {
    let postgres = &view.state.postgres;
    let possible = postgres.process == Process::Absent && postgres.orphans != Some(0);
    // What is being started is no orphan: between its two halves a restart has no postmaster.
    let starting = matches!(view.controlling(), Some(PostgresAction::Start(_) | PostgresAction::Restart));
    // Nor is what was left behind on another cluster's data one of ours.
    if !possible || starting || matches!(postgres.data, DataDir::Unknown) || view.foreign() {
        return None;
    }
    let verdict = Verdict::order(Reason::OrphansAlive, Action::Guard(GuardAction::KillOrphans));
    // With no guard to count them nothing can be started here: whoever can shall lead.
    let since = view.state.memory.dead_since.or(view.state.guard.gone);
    let uncountable = since.is_some_and(|since| view.at.since(since) >= ORPHANS_LIMIT);
    Some(if uncountable { verdict.fate(Fate::LetLapse) } else { verdict })
}
