//! What goes with the tenure in every step, whatever the ladder says: renewing it, arming the guard with what was
//! renewed, letting PostgreSQL go on after a hold, disarming, and revoking a tenure that is over.

use alloc::vec::Vec;

use super::{Fate, Verdict, isolated};
use crate::action::{Action, GuardAction, HostAction, PostgresAction, StoreAction};
use crate::id::{LeaseId, Lsn};
use crate::lease::{Bounds, Tenure};
use crate::reason::Reason;
use crate::time::Duration;
use crate::view::View;
use crate::view::postgres::Process;

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
    orders.extend(revoke(view));
    orders.extend(grant_in_advance(view));
    orders
}

/// The rhythm is a third of the granted ttl, counted from the newest proven sending.
fn renew(view: &View<'_>) -> Option<(Action, Reason)> {
    let held = view.held()?;
    if view.at < held.confirmed + Bounds::renew_interval(held.ttl) {
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
        Tenure::None if armed.is_some() && view.state.postgres.process != Process::Unknown && harmless(view) => {
            Some((Action::Guard(GuardAction::Disarm), reason.clone()))
        }
        Tenure::None | Tenure::Adopting { .. } | Tenure::Suspended { .. } => None,
    }
}

/// Nothing may write, and nothing that is in flight makes it so.
fn harmless(view: &View<'_>) -> bool {
    let starting = matches!(view.controlling(), Some(PostgresAction::Start(_) | PostgresAction::Restart));
    !view.may_write() && !starting
}

/// The verdict gives leadership up: the key is deleted as soon as nothing of PostgreSQL lives.
fn release(view: &View<'_>, verdict: &Verdict) -> Option<(Action, Reason)> {
    let held = view.held().filter(|_| verdict.fate == Fate::Release && view.dead())?;
    let position = view.dir().map_or(Lsn(0), |dir| dir.checkpoint);
    let release = StoreAction::Release {
        lease: held.lease,
        epoch: held.epoch,
        position,
        record: super::members::record(view),
        session: view.state.session.lease,
    };
    Some((Action::Store(release), verdict.reason.clone()))
}

/// A tenure that is over is revoked once nothing can write any more: then nobody has to wait for its ttl, and every
/// delayed request that carries it fails.
fn revoke(view: &View<'_>) -> Option<(Action, Reason)> {
    let lease = view.state.spent?;
    let over = view.dead() || (view.phase().is_some() && harmless(view));
    over.then_some((Action::Store(StoreAction::Revoke { lease }), Reason::SpentTenure { lease }))
}

/// A hand-over was announced: the lease is asked for while the old primary still stops.
fn grant_in_advance(view: &View<'_>) -> Option<(Action, Reason)> {
    let announced = view.state.memory.handover_announced?;
    let expected = view.at.since(announced) < ANNOUNCEMENT_AGE_MAX;
    let free = view.held().is_none() && view.state.spent.is_none() && matches!(view.state.tenure, Tenure::None);
    let may_race = !view.config().nofailover && view.config().unsupported.is_none();
    let wanted = expected && free && may_race && super::race::usable_grant(view).is_none();
    let grant = StoreAction::GrantTenure { ttl: view.config().ttl };
    wanted.then_some((Action::Store(grant), Reason::HandoverExpected))
}
