//! What the store answered to an operation.

use super::failed;
use super::keys::{suspend_or_spend, view_seen};
use crate::action::{Action, StoreAction};
use crate::decide::isolated;
use crate::event::{StoreDone, StoreEvent};
use crate::id::Revision;
use crate::lease::{Held, Tenure};
use crate::op::{Outcome, Refusal};
use crate::state::{Granted, State};
use crate::time::{Instant, Seen};

pub(super) fn store(state: &mut State, at: Instant, event: StoreEvent) {
    match event {
        // A watch that still speaks is no answer: with only our packets lost it goes on, while nobody hears this node.
        StoreEvent::Watched(seen) => {
            view_seen(state, seen);
        }
        StoreEvent::Completed { op, outcome, asked } => {
            let Some(in_flight) = state.ops.end(op) else { return };
            let Action::Store(action) = in_flight.action.clone() else { return };
            if is_contact(state, at, &outcome) {
                state.store.answered = state.store.answered.max(asked);
            }
            match outcome {
                Outcome::Done(done) => store_done(state, at, (&action, in_flight.known), done, asked),
                Outcome::Refused(refusal) => {
                    failed(state, at, &in_flight.action);
                    store_refused(state, at, &action, &refusal);
                }
                Outcome::Unknown(_) => {
                    failed(state, at, &in_flight.action);
                    store_unknown(state, at, &action);
                }
            }
        }
    }
}

/// An answer by which this node is not alone. Writes that are held go on only for one that tells whose the leader key is.
///
/// The race (seed 15006323): the key went before its time while its holder was alone, another was elected, and the first answer of
/// the store was that of another question.
fn is_contact(state: &State, at: Instant, outcome: &Outcome<StoreDone>) -> bool {
    let tells_of_the_key = || {
        let told =
            |done: &StoreDone| matches!(done, StoreDone::Read(_) | StoreDone::Acquired(_) | StoreDone::Renewed { .. });
        matches!(outcome, Outcome::Done(done) if told(done))
    };
    !matches!(outcome, Outcome::Unknown(_)) && (!isolated::asks_for_the_key(state, at) || tells_of_the_key())
}

/// What was done, ordered while the keys were known as of a revision.
fn store_done(
    state: &mut State,
    at: Instant,
    (action, known): (&StoreAction, Revision),
    done: StoreDone,
    asked: Instant,
) {
    match (action, done) {
        (_, StoreDone::Read(view)) => {
            state.memory.store_doubt = state.memory.store_doubt.filter(|since| asked < *since);
            if state.memory.store_doubt.is_none() {
                state.memory.written = state.memory.written.min(state.memory.ordered_on);
            }
            view_seen(state, Seen::new(view, asked, at));
        }
        (StoreAction::GrantTenure { .. }, StoreDone::Granted { lease, ttl }) => {
            state.memory.replaced_grant = state.granted.map(|granted| granted.lease).or(state.memory.replaced_grant);
            state.granted = Some(Granted { lease, ttl, asked });
        }
        (_, StoreDone::Granted { lease, ttl }) => {
            state.session.lease = Some(lease);
            state.session.ttl = ttl;
            state.session.kept = asked;
            state.session.published = None;
        }
        (_, StoreDone::Acquired(view)) => view_seen(state, Seen::new(view, asked, at)),
        (StoreAction::Renew { lease, epoch, .. }, StoreDone::Renewed { ttl, revision }) => {
            confirm_keys(state, at, revision, asked);
            renewed(state, Held { lease: *lease, epoch: *epoch, ttl, confirmed: asked });
        }
        (_, StoreDone::SessionKept) => state.session.kept = asked,
        (StoreAction::Release { .. }, StoreDone::Released) => released(state),
        (StoreAction::Revoke { lease }, StoreDone::Revoked) => {
            if state.spent == Some(*lease) {
                state.spent = None;
            }
        }
        (StoreAction::PutMember { record, .. }, StoreDone::Written) => {
            state.session.published = Some(record.clone());
            state.session.published_at = at;
        }
        (StoreAction::PutStatus { .. }, StoreDone::Written) => state.session.status_at = at,
        (StoreAction::AbandonInitialize { .. }, StoreDone::Written) => {
            state.memory.gave_up = Some(at);
            state.memory.store_doubt = Some(at);
        }
        // What they left behind stands in the keys: those are read, whatever the watch does.
        (
            StoreAction::RaceInitialize { .. }
            | StoreAction::CompleteInitialize { .. }
            | StoreAction::Reserve { .. }
            | StoreAction::Vouch { .. }
            | StoreAction::PutHistory { .. }
            | StoreAction::PutFailover { .. }
            | StoreAction::ClearFailover { .. },
            StoreDone::Written,
        ) => {
            if matches!(action, StoreAction::PutHistory { .. }) {
                state.memory.history_failing = None;
                state.session.status_at = at;
            }
            crate::procedure::failover_written(state, at, action, true);
            state.memory.written = state.store.cluster.as_ref().map_or(Revision(0), |seen| seen.value.revision);
            state.memory.ordered_on = known;
            state.memory.store_doubt = Some(at);
        }
        // Written, and nothing to remember: the watch brings it back.
        (_, StoreDone::Renewed { .. } | StoreDone::Released | StoreDone::Revoked | StoreDone::Written) => {}
    }
}

/// The proof of a renewal was read at the very revision that the keys are known as of: they are what a read would find.
fn confirm_keys(state: &mut State, at: Instant, revision: Revision, asked: Instant) {
    let known = state.store.cluster.as_mut().filter(|seen| seen.value.revision == revision && seen.asked < asked);
    if let Some(seen) = known {
        (seen.asked, seen.heard) = (asked, at);
    }
}

/// A proven renewal, or the adoption of our own tenure after a start. The newest sending counts.
fn renewed(state: &mut State, proven: Held) {
    match &mut state.tenure {
        Tenure::Held(held) if held.lease == proven.lease => {
            assert_eq!(held.epoch, proven.epoch, "one lease is one tenure");
            if proven.confirmed > held.confirmed {
                held.confirmed = proven.confirmed;
                held.ttl = proven.ttl;
            }
        }
        Tenure::Adopting { .. } if state.spent != Some(proven.lease) => state.tenure = Tenure::Held(proven),
        // A renewal of what is over: too late to bring it back.
        Tenure::Held(_) | Tenure::Adopting { .. } | Tenure::Suspended { .. } | Tenure::None => {}
    }
}

/// The key is deleted, or may be: either way this tenure is spent.
fn released(state: &mut State) {
    let lease = state.tenure.held().map(|held| held.lease);
    state.spend_tenure();
    state.spent = lease.or(state.spent);
    state.memory.start_failures = 0;
    state.memory.handover_announced = None;
}

fn store_refused(state: &mut State, at: Instant, action: &StoreAction, refusal: &Refusal) {
    match action {
        // A store that says no for another reason (a permission, a quota) has not said that the key is not ours.
        StoreAction::Renew { .. } if !matches!(refusal, Refusal::LeaseGone | Refusal::Conflict) => {}
        StoreAction::Renew { lease, .. } => {
            let ours = state.tenure.held().is_some_and(|held| held.lease == *lease);
            if ours {
                // The store says that the key or the lease is not ours any more. What is there instead is in the view;
                // until it is seen, authority is over and a reversible fence bridges.
                suspend_or_spend(state, at);
            }
            // The race: it is of a tenure that is over, and its key is gone: another is looked for by now.
            let leader = state.store.cluster.as_ref().and_then(|seen| seen.value.leader.as_ref());
            let sought = leader.is_some_and(|key| key.lease == *lease);
            if sought && matches!(state.tenure, Tenure::Adopting { .. }) {
                state.tenure = Tenure::None;
            }
        }
        StoreAction::Acquire(_) | StoreAction::TakeOver { .. } => {
            if *refusal == Refusal::LeaseGone {
                state.granted = None;
            }
            state.memory.store_doubt = Some(at);
        }
        // The race: the lease of its record ended before its tenure. Nothing of the release was carried out, and it goes
        // without the record then.
        StoreAction::Release { session: Some(of_record), .. } if *refusal == Refusal::LeaseGone => {
            state.session.lease = state.session.lease.filter(|lease| lease != of_record);
        }
        StoreAction::Release { .. } => released(state),
        // "Not found" is as good as revoked.
        StoreAction::Revoke { lease } => {
            if state.spent == Some(*lease) && *refusal == Refusal::LeaseGone {
                state.spent = None;
            }
        }
        StoreAction::KeepSession { .. } | StoreAction::PutMember { .. } => {
            if *refusal == Refusal::LeaseGone {
                state.session.lease = None;
            }
        }
        StoreAction::PutFailover { .. } => {
            crate::procedure::failover_written(state, at, action, false);
            // Whoever asks again is not to be refused for what a silent watch does not tell.
            state.memory.store_doubt = Some(at);
        }
        StoreAction::RaceInitialize { .. }
        | StoreAction::AbandonInitialize { .. }
        | StoreAction::Reserve { .. }
        | StoreAction::Vouch { .. }
        | StoreAction::ClearFailover { .. } => {
            state.memory.store_doubt = Some(at);
        }
        StoreAction::PutHistory { .. } => history_failed(state, at),
        StoreAction::Read
        | StoreAction::GrantTenure { .. }
        | StoreAction::GrantSession { .. }
        | StoreAction::CompleteInitialize { .. }
        | StoreAction::PutStatus { .. } => {}
    }
}

fn history_failed(state: &mut State, at: Instant) {
    state.memory.history_failing.get_or_insert(at);
}

/// No answer: it may have happened. A release may have: the tenure is spent, never served under again. Everything else
/// is looked at again before anything is built on it.
pub(super) fn store_unknown(state: &mut State, at: Instant, action: &StoreAction) {
    match action {
        StoreAction::Release { .. } => released(state),
        StoreAction::PutFailover { .. } => {
            crate::procedure::failover_written(state, at, action, true);
            state.memory.store_doubt = Some(at);
        }
        // With every watch silent nothing else would tell for loop_wait what became of the key.
        StoreAction::Acquire(_)
        | StoreAction::TakeOver { .. }
        | StoreAction::RaceInitialize { .. }
        | StoreAction::Reserve { .. }
        | StoreAction::Vouch { .. }
        | StoreAction::ClearFailover { .. }
        | StoreAction::AbandonInitialize { .. } => state.memory.store_doubt = Some(at),
        StoreAction::PutHistory { .. } => history_failed(state, at),
        StoreAction::PutMember { .. } => state.session.published = None,
        _ => {}
    }
}
