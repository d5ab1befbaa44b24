//! The record of a tenure: numbers that are reserved in it, and what is vouched for afterwards. How an operator ends one.

use std::time::Duration;

use matriarch_core::action::{Status, StoreAction};
use matriarch_core::id::{LeaseId, Lsn, Revision, SystemId, Timeline};
use matriarch_core::view::store::{ClusterView, EpochRecord};

use crate::scripts::{Script, acquire, epoch, put, renew};
use crate::{Store, Who};
use Who::{A, B};

fn reserve(epoch: Revision, record: Revision, newest: u32, unguarded: bool) -> StoreAction {
    StoreAction::Reserve {
        epoch,
        record,
        timeline: Timeline(1),
        position: Lsn(7),
        newest_timeline: Timeline(newest),
        unguarded,
        config: Revision(0),
    }
}

fn vouch(record: &EpochRecord) -> StoreAction {
    StoreAction::Vouch { record: record.clone(), config: Revision(0) }
}

/// The same, decided on when this was the configuration.
fn on(order: StoreAction, configured: Revision) -> StoreAction {
    match order {
        StoreAction::Reserve { epoch, record, timeline, position, newest_timeline, unguarded, .. } => {
            let config = configured;
            StoreAction::Reserve { epoch, record, timeline, position, newest_timeline, unguarded, config }
        }
        StoreAction::Vouch { record, .. } => StoreAction::Vouch { record, config: configured },
        other => other,
    }
}

fn record(view: &ClusterView) -> EpochRecord {
    view.epoch.clone().expect("the record of a tenure")
}

pub(crate) async fn reservations<S: Store>(s: &mut Script<S>) {
    let seen = s.look().await;
    s.order("a reserves where nobody leads", A, reserve(Revision(1), Revision(0), 2, false)).await;
    let (a, b) = (s.grant(A, Duration::from_secs(30)).await, s.grant(B, Duration::from_secs(30)).await);
    s.order("a takes the leader key", A, acquire(a, &seen)).await;
    let seen = s.look().await;
    let (tenure, first) = (epoch(&seen), record(&seen));
    let complete = StoreAction::CompleteInitialize {
        epoch: tenure,
        system_id: SystemId(7_000_000_000_000_000_000),
        initialize: Revision(0),
        config: Revision(0),
    };
    s.order("a completes the cluster and writes its configuration", A, complete).await;
    let configured = s.look().await.config_revision;
    let before = Revision(configured.0 - 1);
    s.order("a reserves on another configuration", A, on(reserve(tenure, first.revision, 3, true), before)).await;
    s.order("a reserves a number", A, on(reserve(tenure, first.revision, 3, true), configured)).await;
    let seen = s.look().await;
    s.order("a reserves another and knows nothing of the first", A, reserve(tenure, first.revision, 4, false)).await;
    let second = record(&seen);
    let other = Revision(tenure.0 - 1);
    s.order("b reserves one of another tenure", B, reserve(other, second.revision, 5, false)).await;
    s.order("a reserves another", A, reserve(tenure, second.revision, 4, true)).await;
    // Who it is of is not guarded: the tenure is.
    let third = record(&s.look().await);
    s.order("b reserves one of a's tenure", B, reserve(tenure, third.revision, 5, true)).await;
    s.look().await;

    // What was let go is vouched for, by whoever it was of, until another has written a record.
    s.order("a vouches for what it reserved before", A, vouch(&third)).await;
    s.order("a lets go", A, StoreAction::Revoke { lease: a }).await;
    let seen = s.look().await;
    s.order("a reserves after its tenure", A, reserve(tenure, record(&seen).revision, 6, false)).await;
    s.order("a vouches on another configuration", A, on(vouch(&record(&seen)), before)).await;
    s.order("a vouches for its record", A, on(vouch(&record(&seen)), configured)).await;
    s.look().await;
    s.order("a vouches again and knows nothing of the first", A, vouch(&record(&seen))).await;
    let seen = s.look().await;
    s.order("b takes the leader key", B, acquire(b, &seen)).await;
    s.order("a vouches for a record that another has written since", A, vouch(&record(&seen))).await;
    let seen = s.look().await;
    s.store.delete("matriarch").await;
    s.order("a vouches for a record that is gone", A, vouch(&record(&seen))).await;
    s.order("b reserves and knows of one that is gone", B, reserve(epoch(&seen), record(&seen).revision, 7, false))
        .await;
    s.order("b reserves a number", B, reserve(epoch(&seen), Revision(0), 7, false)).await;
    s.look().await;
}

fn release(lease: LeaseId, epoch: Revision, session: LeaseId) -> StoreAction {
    StoreAction::Release {
        lease,
        epoch,
        position: Lsn(7),
        timeline: Timeline(1),
        history: None,
        record: Box::default(),
        session: Some(session),
    }
}

/// What a holder finds whose tenure is over: it writes nothing any more.
async fn over<S: Store>(s: &mut Script<S>, lease: LeaseId, session: LeaseId, tenure: Revision) {
    let status = Status { position: Lsn(7), timeline: Timeline(1), slots: Vec::new(), retain: Vec::new() };
    s.order("a publishes its position after its tenure", A, StoreAction::PutStatus { epoch: tenure, status }).await;
    s.order("a releases what it has no more", A, release(lease, tenure, session)).await;
    let seen = s.look().await;
    s.order("a reserves a number after its tenure", A, reserve(tenure, record(&seen).revision, 3, false)).await;
    s.order("a keeps the lease of its record", A, StoreAction::KeepSession { lease: session }).await;
    s.look().await;
}

/// An operator ends a tenure early: by its lease, by its key, and with all other keys.
pub(crate) async fn by_hand<S: Store>(s: &mut Script<S>) {
    let long = Duration::from_secs(40);
    let (session, first) = (s.grant(A, long).await, s.grant(A, long).await);
    s.order("a puts its record", A, put(session)).await;
    let seen = s.look().await;
    s.order("a takes the leader key", A, acquire(first, &seen)).await;
    let tenure = epoch(&s.look().await);
    s.store.revoke_tenure().await;
    s.look().await;
    s.order("a renews by a lease that was revoked", A, renew(first, tenure)).await;
    s.order("a keeps it", A, StoreAction::KeepSession { lease: first }).await;
    over(s, first, session, tenure).await;
    s.order("a revokes it as well", A, StoreAction::Revoke { lease: first }).await;
    let seen = s.look().await;
    s.order("a takes the leader key under it again", A, acquire(first, &seen)).await;

    let second = s.grant(A, long).await;
    s.order("a takes the leader key under another", A, acquire(second, &seen)).await;
    let tenure = epoch(&s.look().await);
    s.store.delete("leader").await;
    s.look().await;
    s.store.delete("leader").await;
    s.order("a renews what was deleted", A, renew(second, tenure)).await;
    s.order("a's lease lives", A, StoreAction::KeepSession { lease: second }).await;
    over(s, second, session, tenure).await;
    let seen = s.look().await;
    s.order("a takes the leader key again under the lease that it has", A, acquire(second, &seen)).await;
    let tenure = epoch(&s.look().await);

    // All that hangs on a lease goes with it at once.
    s.order("a puts its record under the same lease", A, put(second)).await;
    s.look().await;
    s.store.revoke_tenure().await;
    s.look().await;
    s.order("a renews by the lease of both", A, renew(second, tenure)).await;
    s.order("a puts its record", A, put(session)).await;
    let (third, seen) = (s.grant(A, long).await, s.look().await);
    s.order("a takes the leader key once more", A, acquire(third, &seen)).await;
    let tenure = epoch(&s.look().await);
    s.store.delete_all().await;
    s.look().await;
    s.order("a renews where nothing is left", A, renew(third, tenure)).await;
    s.order("a puts its record where nothing is left", A, put(session)).await;
    s.order("a takes the leader key where nothing is left", A, acquire(third, &seen)).await;
    s.look().await;
}
