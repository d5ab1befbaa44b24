//! What goes with the tenure in every step, whatever the ladder says: renewing it, arming the guard with what was
//! renewed, letting PostgreSQL go on after a hold, disarming, and revoking a tenure that is over.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Fate, Verdict, isolated, observe, pause, timeline_number};
use crate::action::{Action, GuardAction, HostAction, PostgresAction, StoreAction};
use crate::event::EpochFile;
use crate::id::{LeaseId, Lsn, Revision, Timeline};
use crate::lease::{Bounds, Tenure};
use crate::reason::Reason;
use crate::time::Duration;
use crate::view::View;
use crate::view::postgres::{Cluster, ControlState};
use crate::view::store::HistoryLine;

/// An announced hand-over is expected for so long.
const ANNOUNCEMENT_AGE_MAX: Duration = Duration::from_secs(10);

pub(crate) fn orders(view: &View<'_>, verdict: &Verdict) -> Vec<(Action, Reason)> {
    let mut orders = Vec::new();
    if !view.state.guard.present {
        orders.push((Action::Host(HostAction::StartGuard), Reason::ArmingGuard));
    }
    orders.extend(renew(view));
    orders.extend(guard(view, &verdict.reason));
    orders.extend(release(view, verdict));
    orders.extend(tell_guarded(view));
    orders.extend(forget_spent(view));
    orders.extend(forget_lost(view));
    orders.extend(revoke(view));
    orders.extend(grant_in_advance(view));
    orders
}

/// The rhythm is a third of the granted ttl, counted from the newest proven sending. Where the store is to be asked for
/// contact, a renewal that would be due before the next such question is that question.
fn renew(view: &View<'_>) -> Option<(Action, Reason)> {
    let held = view.held()?;
    let due = held.confirmed + Bounds::renew_interval(held.ttl);
    if view.at < due && !observe::falls_to_contact(view, due) {
        return None;
    }
    let deadline = Bounds::attempt_deadline(held.ttl);
    let renew = StoreAction::Renew { lease: held.lease, epoch: held.epoch, deadline };
    Some((Action::Store(renew), Reason::RenewalDue))
}

fn guard(view: &View<'_>, reason: &Reason) -> Option<(Action, Reason)> {
    if !view.state.guard.present {
        return None;
    }
    let armed = view.state.guard.armed;
    if pause::is_hands_off(view) {
        // What is held goes on first: the guard would have to keep it stopped for ever.
        let order = if view.state.guard.held { GuardAction::Resume } else { GuardAction::Disarm };
        let wanted = view.state.guard.held || (armed.is_some() && !view.starting_primary());
        return wanted.then(|| (Action::Guard(order), reason.clone()));
    }
    match &view.state.tenure {
        Tenure::Held(held) => {
            let at = view.config().bounds.arm_at(held.confirmed, held.ttl);
            if armed.is_none_or(|armed| armed.tenure != held.lease || armed.at < at) {
                return Some((Action::Guard(GuardAction::Arm { tenure: held.lease, at }), Reason::ArmingGuard));
            }
            let alone = isolated::alone_for(view).is_some_and(|alone| alone >= view.config().isolation_timeout);
            let resume = view.state.guard.held && view.authority() && !alone;
            resume.then(|| (Action::Guard(GuardAction::Resume), reason.clone()))
        }
        // Whatever becomes of this agent from here on: a primary that nobody vouches for is stopped.
        Tenure::Adopting { deadline } if armed.is_none() && view.may_write() && view.config().unsupported.is_none() => {
            Some((Action::Guard(GuardAction::Arm { tenure: LeaseId(0), at: *deadline }), Reason::ArmingGuard))
        }
        // What turned out to be another cluster's is not ours to stop, and the guard would stop it when this agent
        // leaves. If a tenure of ours is armed, something of ours ran there: that is left to end.
        Tenure::None if view.foreign() && view.armed_for_nobody() => {
            Some((Action::Guard(GuardAction::Disarm), reason.clone()))
        }
        // Not before it is known that nothing of it is left. The race: its directory is moved away, and it is not found by its
        // files any more.
        Tenure::None if armed.is_some() && is_over(view) => Some((Action::Guard(GuardAction::Disarm), reason.clone())),
        Tenure::None | Tenure::Adopting { .. } | Tenure::Suspended { .. } => None,
    }
}

/// Nothing may write, and nothing that is in flight makes it so.
fn harmless(view: &View<'_>) -> bool {
    let starting = matches!(view.controlling(), Some(PostgresAction::Start(_) | PostgresAction::Restart));
    !view.may_write() && !starting
}

/// The epoch file names no tenure any more: the next agent takes none up by it.
pub(super) fn forget(view: &View<'_>) -> Option<Action> {
    let doubt = view.state.memory.epoch_in_doubt;
    let file = view.state.epoch_file.filter(|file| file.epoch != Revision(0) || doubt)?;
    Some(Action::Host(HostAction::WriteEpoch(EpochFile { epoch: Revision(0), ..file })))
}

/// A tenure that is over may still have its key, and a release without an answer may be applied yet: an agent that
/// starts now must not take this tenure up.
fn forget_spent(view: &View<'_>) -> Option<(Action, Reason)> {
    let lease = view.state.spent.filter(|_| view.held().is_none())?;
    Some((forget(view)?, Reason::SpentTenure { lease }))
}

/// The store went back: an agent that starts now must not believe in the epoch of what was lost either.
fn forget_lost(view: &View<'_>) -> Option<(Action, Reason)> {
    let file = view.state.epoch_file.filter(|_| view.state.memory.void_due)?;
    Some((Action::Host(HostAction::WriteEpoch(file.void())), Reason::StoreWentBack))
}

/// The verdict gives leadership up: the key is deleted as soon as nothing of PostgreSQL can write, and the tenure is
/// forgotten on disk. A disk that takes nothing does not keep the others from leading.
fn release(view: &View<'_>, verdict: &Verdict) -> Option<(Action, Reason)> {
    let held = view.held().filter(|_| verdict.fate == Fate::Release && is_over(view))?;
    if let Some(forget) = forget(view).filter(|_| view.state.memory.epoch_failing.is_none()) {
        return Some((forget, verdict.reason.clone()));
    }
    let (position, timeline, history) = last_words(view);
    let release = StoreAction::Release {
        lease: held.lease,
        epoch: held.epoch,
        position,
        timeline,
        history,
        record: Box::new(super::members::record(view)),
        session: view.state.session.lease,
    };
    Some((Action::Store(release), verdict.reason.clone()))
}

/// Where the primary of this tenure ended, on which timeline, and the lines of history that lead there where the store does
/// not tell of them.
fn last_words(view: &View<'_>) -> (Lsn, Timeline, Option<Vec<HistoryLine>>) {
    let checkpoint = view.dir().map_or(Lsn(0), |dir| dir.checkpoint);
    // The race: an operator deletes `status` while this primary cannot serve, and what it says last is what is remembered.
    let status = view.cluster().and_then(|cluster| view.told_status(cluster));
    let published = status.map_or((Lsn(0), Timeline(0), None), |status| (status.optime, status.timeline, None));
    // A cluster that was never completed has nothing to publish: others would wait for it.
    if view.system_id().is_none() {
        return published;
    }
    // Only a clean shutdown says where the primary ended. After anything else this node may hold less than was
    // published, and what others lack is measured by what was.
    let stopped = view.dir().filter(|dir| view.dead() && dir.state == ControlState::ShutDown);
    // The race: it is stopped before its timeline was told. Whoever had gone on along the one before would seem to lack
    // little of what was acknowledged on this one.
    let untold = stopped.and_then(|dir| Some((dir.history.timeline, super::history::untold(view, dir)?)));
    match untold {
        Some((timeline, lines)) if timeline > Timeline(0) => (checkpoint, timeline, Some(lines)),
        // A standby that was not promoted has its checkpoint on whatever branch it is on: no leader was there.
        _ if stopped.is_some() || (checkpoint >= published.0 && view.dir().is_some_and(Cluster::was_primary)) => {
            (checkpoint, super::cluster_keys::told_timeline(view), None)
        }
        _ => published,
    }
}

/// A tenure that is over is revoked once nothing can write any more: then nobody has to wait for its ttl, and every
/// delayed request that carries it fails.
fn revoke(view: &View<'_>) -> Option<(Action, Reason)> {
    let lease = view.state.spent?;
    is_over(view).then_some((Action::Store(StoreAction::Revoke { lease }), Reason::SpentTenure { lease }))
}

/// Says in the store, for whoever would take this node's place, whether its primary has a guard: before the guard is
/// disarmed in a pause, and when that is over after it is armed again, or where nothing writes any more.
fn tell_guarded(view: &View<'_>) -> Option<(Action, Reason)> {
    let record = view.cluster()?.epoch.as_ref();
    let paused = view.paused();
    if let Some(held) = view.held() {
        let told = record.is_some_and(|record| record.epoch == held.epoch && record.unguarded);
        let due = told != paused && (paused || view.authority()) && !view.releasing();
        let reason = if paused { Reason::LettingGo } else { Reason::GuardedAgain };
        return due.then(|| (timeline_number::tell_guarded(view, held), reason));
    }
    let ours = record.filter(|record| record.unguarded && record.member == view.config().me)?;
    // Not before the pause is over: until then the operator may start it as a primary again, beside an agent that is cut
    // off and can neither take the key nor take this word back.
    let over = matches!(view.state.tenure, Tenure::None) && !paused && is_over(view);
    let vouch = || StoreAction::Vouch { record: ours.clone(), config: view.config_revision() };
    over.then(|| (Action::Store(vouch()), Reason::NothingWrites))
}

/// PostgreSQL is dead, or runs as a standby.
pub(crate) fn is_over(view: &View<'_>) -> bool {
    view.dead() || (view.phase().is_some() && harmless(view))
}

/// A hand-over to this node was announced a moment ago.
pub(crate) fn handover_expected(view: &View<'_>) -> bool {
    view.state.memory.handover_announced.is_some_and(|announced| view.at.since(announced) < ANNOUNCEMENT_AGE_MAX)
}

/// A hand-over was announced: the lease is asked for while the old primary still stops.
fn grant_in_advance(view: &View<'_>) -> Option<(Action, Reason)> {
    let expected = handover_expected(view);
    let free = view.state.spent.is_none() && matches!(view.state.tenure, Tenure::None);
    let may_race = !view.config().nofailover && view.config().unsupported.is_none();
    let wanted = expected && free && may_race && super::race::usable_grant(view).is_none();
    let grant = StoreAction::GrantTenure { ttl: view.config().ttl };
    wanted.then_some((Action::Store(grant), Reason::HandoverExpected))
}
