//! The store: linearizable keys with revisions, guarded transactions and leases. Who reaches which of its members, and
//! when, is the network's; what a request does once it is applied is here.

pub mod hands;

use std::collections::BTreeMap;
use std::rc::Rc;

use matriarch_core::action::{Status, StoreAction};
use matriarch_core::event::StoreDone;
use matriarch_core::id::{LeaseId, Member, Revision, StoreId};
use matriarch_core::op::Refusal;
use matriarch_core::time::Duration;
use matriarch_core::view::store::{
    ClusterView, EpochRecord, FailoverKey, HistoryKey, Initialize, LeaderKey, MemberKey, StatusKey,
};
use serde::Serialize;

use crate::time::Time;

/// What a member of the store is asked.
#[derive(Clone, Debug, Serialize)]
pub enum Request {
    /// An order of core, less its second half where it has two.
    Order {
        /// What.
        action: Box<StoreAction>,
        /// Who orders it.
        from: Member,
        /// What the asker knows of the keys that guard it beside those in the order.
        known: Known,
    },
    /// The first half of a renewal.
    KeepAlive(LeaseId),
    /// The second half of a renewal: is the leader key under this lease and of this epoch?
    Proof {
        /// The lease.
        lease: LeaseId,
        /// `create_revision`.
        epoch: Revision,
    },
}

/// Revisions that a writer knows of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Known {
    /// Of its own member key.
    pub member: Revision,
    /// Of `config`.
    pub config: Revision,
    /// Of `status`.
    pub status: Revision,
}

/// What the store answers.
#[derive(Clone, Debug)]
pub enum Reply {
    /// It was done.
    Done(Box<StoreDone>),
    /// It was not done.
    Refused(Refusal),
    /// A guard did not hold, and this is what is there instead, read in the same transaction.
    Instead(Rc<ClusterView>),
    /// The lease lives, and was granted for so long.
    Kept(Duration),
}

impl Reply {
    fn done(done: StoreDone) -> Self {
        Self::Done(Box::new(done))
    }
}

/// How the leader key went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gone {
    /// Its lease ended in its time.
    Expired,
    /// Its lease ended before its time, or somebody deleted it.
    Early,
    /// The holder deleted it.
    Released,
    /// The lease was revoked.
    Revoked,
}

/// What happened to the leader key: what the checkers judge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// It was created.
    Taken(LeaderKey),
    /// It is gone; who deleted it, if somebody did.
    Gone(LeaderKey, Gone, Option<Member>),
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Lease {
    ttl: Duration,
    until: Time,
}

/// What a leader of the store adds to the ttl of every lease when it begins: its election timeout.
pub const EXTENSION: Duration = Duration::from_secs(1);

/// The keys and leases.
#[derive(Clone, Debug, Serialize)]
pub struct Store {
    keys: ClusterView,
    #[serde(skip)]
    shared: Rc<ClusterView>,
    leases: BTreeMap<LeaseId, Lease>,
    next_lease: i64,
    /// Under which lease `initialize` is, while it is empty.
    initialize_lease: Option<LeaseId>,
    /// The shortest ttl that is granted.
    ttl_floor: Duration,
    #[serde(skip)]
    changes: Vec<Change>,
    /// A planted bug: writes are not guarded.
    #[serde(skip)]
    pub unguarded: Option<Unguarded>,
}

/// Which guards a planted bug leaves out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unguarded {
    /// Of the creation of the leader key.
    Acquire,
    /// Of its deletion.
    Release,
    /// Of the right to initialise.
    Initialize,
    /// Of what a leader publishes of its position.
    Status,
}

impl Store {
    /// An empty store.
    pub fn new(ttl_floor: Duration) -> Self {
        let keys = ClusterView { store: StoreId(1), revision: Revision(1), ..ClusterView::default() };
        Self {
            shared: Rc::new(keys.clone()),
            keys,
            leases: BTreeMap::new(),
            next_lease: 1,
            initialize_lease: None,
            ttl_floor,
            changes: Vec::new(),
            unguarded: None,
        }
    }

    /// The keys as they are.
    pub fn keys(&self) -> &Rc<ClusterView> {
        &self.shared
    }

    /// What happened to the leader key since the last call.
    pub fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Until when a lease lives if nothing renews it.
    pub fn lease_until(&self, lease: LeaseId) -> Option<Time> {
        self.leases.get(&lease).map(|lease| lease.until)
    }

    /// The lease that is the next to end, and when.
    pub fn next_end(&self) -> Option<(LeaseId, Time)> {
        self.leases.iter().map(|(id, lease)| (*id, lease.until)).min_by_key(|(id, until)| (*until, *id))
    }

    /// The lease is there, and its time is over.
    pub fn is_over(&self, lease: LeaseId, now: Time) -> bool {
        self.lease_until(lease).is_some_and(|until| until <= now)
    }

    /// A member of the store begins to lead: it gives every lease its whole ttl again, and a little more (etcd's
    /// `lessor.Promote`).
    pub fn refresh_leases(&mut self, now: Time) {
        for lease in self.leases.values_mut() {
            lease.until = now + lease.ttl + EXTENSION;
        }
    }

    /// A lease ends, and its keys with it.
    pub fn end(&mut self, lease: LeaseId, how: Gone) {
        if self.leases.remove(&lease).is_none() {
            return;
        }
        let next = self.next();
        let before = self.keys.members.len();
        self.keys.members.retain(|_, key| key.lease != lease);
        let mut changed = before != self.keys.members.len();
        if self.initialize_lease == Some(lease) {
            (self.keys.initialize, self.initialize_lease) = (None, None);
            changed = true;
        }
        changed |= self.drop_leader(how, None, |leader| leader.lease == lease);
        if changed {
            self.publish(next);
        }
    }

    /// Somebody deletes the leader key by hand; its lease lives on.
    pub fn delete_leader(&mut self) {
        let next = self.next();
        if self.drop_leader(Gone::Early, None, |_| true) {
            self.publish(next);
        }
    }

    /// Changes keys as a test wants them.
    #[cfg(test)]
    pub(crate) fn forge(&mut self, change: impl FnOnce(&mut ClusterView)) {
        change(&mut self.keys);
        self.publish(self.next());
    }

    fn drop_leader(&mut self, how: Gone, by: Option<&Member>, which: impl Fn(&LeaderKey) -> bool) -> bool {
        match self.keys.leader.take_if(|leader| which(leader)) {
            Some(leader) => {
                self.changes.push(Change::Gone(leader, how, by.cloned()));
                true
            }
            None => false,
        }
    }

    fn next(&self) -> Revision {
        Revision(self.keys.revision.0 + 1)
    }

    fn publish(&mut self, revision: Revision) {
        self.keys.revision = revision;
        self.shared = Rc::new(self.keys.clone());
    }

    /// Applies a request.
    pub fn apply(&mut self, now: Time, request: &Request) -> Reply {
        match request {
            Request::KeepAlive(lease) => match self.leases.get_mut(lease) {
                Some(lease) => {
                    lease.until = now + lease.ttl;
                    Reply::Kept(lease.ttl)
                }
                None => Reply::Refused(Refusal::LeaseGone),
            },
            Request::Proof { lease, epoch } => {
                let held = self.keys.leader.as_ref().filter(|l| l.lease == *lease && l.created == *epoch);
                match held {
                    Some(_) => {
                        let ttl = self.leases.get(lease).map(|lease| lease.ttl).unwrap_or_default();
                        Reply::done(StoreDone::Renewed { ttl, revision: self.keys.revision })
                    }
                    None => Reply::Refused(Refusal::Conflict),
                }
            }
            Request::Order { action, from, known } => self.order(now, action, from, *known),
        }
    }

    fn order(&mut self, now: Time, action: &StoreAction, from: &Member, known: Known) -> Reply {
        match action {
            StoreAction::Read => Reply::done(StoreDone::Read(self.keys.clone())),
            StoreAction::GrantTenure { ttl } | StoreAction::GrantSession { ttl } => {
                let lease = LeaseId(self.next_lease);
                self.next_lease += 1;
                // Whole seconds, and not below the floor, as etcd grants them.
                let ttl = Duration::from_secs(ttl.as_millis().div_ceil(1000) as u64).max(self.ttl_floor);
                self.leases.insert(lease, Lease { ttl, until: now + ttl });
                Reply::done(StoreDone::Granted { lease, ttl })
            }
            StoreAction::Revoke { lease } => {
                // Of one that is gone already as well: what was wanted is so.
                self.end(*lease, Gone::Revoked);
                Reply::done(StoreDone::Revoked)
            }
            StoreAction::KeepSession { .. } | StoreAction::Renew { .. } => {
                unreachable!("the executor asks in its own words")
            }
            StoreAction::Acquire(_) | StoreAction::TakeOver { .. } => self.take(action, from),
            _ => self.write(action, from, known),
        }
    }

    /// Whoever gets the leader key.
    fn take(&mut self, action: &StoreAction, from: &Member) -> Reply {
        let next = self.next();
        let (lease, created) = match action {
            StoreAction::Acquire(acquire) => {
                let keys = &self.keys;
                let unchanged = keys.leader.is_none()
                    && keys.failover_revision == acquire.failover
                    && keys.sync_revision == acquire.sync
                    && keys.epoch.as_ref().map_or(Revision(0), |epoch| epoch.revision) == acquire.record
                    && (acquire.config == Revision(0) || keys.config_revision == acquire.config);
                if !unchanged && self.unguarded != Some(Unguarded::Acquire) {
                    return Reply::Refused(Refusal::Conflict);
                }
                (acquire.lease, next)
            }
            StoreAction::TakeOver { lease, modified } => match &self.keys.leader {
                Some(leader) if leader.modified == *modified && leader.member == *from => (*lease, leader.created),
                _ => return Reply::Refused(Refusal::Conflict),
            },
            _ => unreachable!("only what takes the leader key"),
        };
        if !self.leases.contains_key(&lease) {
            return Reply::Refused(Refusal::LeaseGone);
        }
        let leader = LeaderKey { member: from.clone(), lease, created, modified: next };
        if let StoreAction::Acquire(acquire) = action {
            self.keys.epoch = Some(EpochRecord {
                revision: next,
                store: self.keys.store,
                epoch: next,
                member: from.clone(),
                timeline: acquire.timeline,
                position: acquire.position,
                newest_timeline: acquire.newest_timeline,
                unguarded: acquire.unguarded,
            });
        }
        self.changes.push(Change::Taken(leader.clone()));
        self.keys.leader = Some(leader);
        self.publish(next);
        Reply::done(StoreDone::Acquired(self.keys.clone()))
    }

    /// The guarded writes of single keys, as the adapter makes them of core's orders.
    fn write(&mut self, action: &StoreAction, from: &Member, known: Known) -> Reply {
        let next = self.next();
        let unguarded = match action {
            StoreAction::Release { .. } => self.unguarded == Some(Unguarded::Release) && self.keys.leader.is_some(),
            StoreAction::RaceInitialize { .. } | StoreAction::CompleteInitialize { .. } => {
                self.unguarded == Some(Unguarded::Initialize)
            }
            StoreAction::PutStatus { .. } => self.unguarded == Some(Unguarded::Status),
            _ => false,
        };
        if !unguarded && !self.allows(action, from, known) {
            return match action {
                StoreAction::PutMember { .. } | StoreAction::PutStatus { .. } => {
                    Reply::Instead(Rc::clone(&self.shared))
                }
                _ => Reply::Refused(Refusal::Conflict),
            };
        }
        let put = |record: &_, lease| MemberKey { revision: next, lease, record: Clone::clone(record) };
        let keys = &mut self.keys;
        let mut done = StoreDone::Written;
        match action {
            StoreAction::Release { position, timeline, history, record, session, .. } => {
                if session.is_some_and(|session| !self.leases.contains_key(&session)) {
                    return Reply::Refused(Refusal::LeaseGone);
                }
                let (optime, timeline) = (*position, *timeline);
                if let Some(lines) = history {
                    keys.history = HistoryKey { revision: next, lines: lines.clone(), unreadable: false };
                }
                let before = keys.status.take().unwrap_or_default();
                keys.status = Some(StatusKey { revision: next, optime, timeline, ..before });
                if let Some(session) = session {
                    keys.members.insert(from.clone(), put(record, *session));
                }
                self.drop_leader(Gone::Released, Some(from), |_| true);
                done = StoreDone::Released;
            }
            StoreAction::PutMember { lease, record } => {
                if !self.leases.contains_key(lease) {
                    return Reply::Refused(Refusal::LeaseGone);
                }
                keys.members.insert(from.clone(), put(record, *lease));
            }
            StoreAction::RaceInitialize { lease } => {
                if !self.leases.contains_key(lease) {
                    return Reply::Refused(Refusal::LeaseGone);
                }
                keys.initialize = Some(Initialize { revision: next, lease: *lease, system_id: None });
                self.initialize_lease = Some(*lease);
            }
            StoreAction::AbandonInitialize { .. } => (keys.initialize, self.initialize_lease) = (None, None),
            StoreAction::CompleteInitialize { system_id, config, .. } => {
                keys.initialize = Some(Initialize { revision: next, lease: LeaseId(0), system_id: Some(*system_id) });
                self.initialize_lease = None;
                if *config == Revision(0) {
                    (keys.config_revision, keys.paused) = (next, Some(false));
                }
            }
            StoreAction::PutStatus { status, .. } => keys.status = Some(status_key(next, status)),
            StoreAction::Vouch { record, .. } => {
                keys.epoch = Some(EpochRecord { revision: next, unguarded: false, ..record.clone() });
            }
            StoreAction::Reserve { epoch, timeline, position, newest_timeline, unguarded, .. } => {
                keys.epoch = Some(EpochRecord {
                    revision: next,
                    store: keys.store,
                    epoch: *epoch,
                    member: from.clone(),
                    timeline: *timeline,
                    position: *position,
                    newest_timeline: *newest_timeline,
                    unguarded: *unguarded,
                });
            }
            StoreAction::PutHistory { lines, status, .. } => {
                keys.history = HistoryKey { revision: next, lines: lines.clone(), unreadable: false };
                keys.status = Some(status_key(next, status));
            }
            StoreAction::PutFailover { leader, candidate, scheduled_at, .. } => {
                keys.failover_revision = next;
                keys.failover = Some(FailoverKey {
                    revision: next,
                    leader: leader.clone(),
                    candidate: candidate.clone(),
                    scheduled_at: scheduled_at.as_ref().map(|schedule| schedule.at),
                });
            }
            StoreAction::ClearFailover { .. } => (keys.failover, keys.failover_revision) = (None, next),
            _ => unreachable!("executed by a function of its own"),
        }
        self.publish(next);
        Reply::done(done)
    }

    fn allows(&self, action: &StoreAction, from: &Member, known: Known) -> bool {
        let keys = &self.keys;
        let leads = |epoch: &Revision| keys.leader.as_ref().is_some_and(|leader| leader.created == *epoch);
        let initialize = keys.initialize.map_or(Revision(0), |initialize| initialize.revision);
        let as_configured = |config: &Revision| *config == Revision(0) || keys.config_revision == *config;
        match action {
            StoreAction::Release { lease, epoch, .. } => {
                leads(epoch) && keys.leader.as_ref().is_some_and(|leader| leader.lease == *lease)
            }
            StoreAction::PutMember { .. } => {
                keys.members.get(from).map_or(Revision(0), |key| key.revision) == known.member
            }
            StoreAction::RaceInitialize { .. } => keys.initialize.is_none() && keys.leader.is_none(),
            StoreAction::AbandonInitialize { initialize: mine } => initialize == *mine,
            StoreAction::CompleteInitialize { epoch, initialize: mine, .. } => {
                leads(epoch) && initialize == *mine && keys.config_revision == known.config
            }
            StoreAction::PutStatus { epoch, .. } => {
                leads(epoch) && keys.status.as_ref().map_or(Revision(0), |status| status.revision) == known.status
            }
            StoreAction::Reserve { epoch, record, config, .. } => {
                let known = keys.epoch.as_ref().map_or(Revision(0), |known| known.revision);
                leads(epoch) && known == *record && as_configured(config)
            }
            StoreAction::Vouch { record, config } => {
                keys.epoch.as_ref().is_some_and(|known| known.revision == record.revision) && as_configured(config)
            }
            StoreAction::PutHistory { epoch, revision, .. } => leads(epoch) && keys.history.revision == *revision,
            StoreAction::PutFailover { revision, epoch, .. } => {
                let led = keys.leader.as_ref().map_or(Revision(0), |leader| leader.created);
                led == *epoch && keys.failover_revision == *revision
            }
            StoreAction::ClearFailover { revision } => keys.failover_revision == *revision,
            _ => unreachable!("executed by a function of its own"),
        }
    }
}

fn status_key(revision: Revision, status: &Status) -> StatusKey {
    let slots = status.slots.iter().cloned().collect();
    StatusKey { revision, optime: status.position, timeline: status.timeline, slots, retain: status.retain.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use matriarch_core::action::Acquire;
    use matriarch_core::id::{Lsn, Timeline};

    fn order(store: &mut Store, from: &str, action: StoreAction) -> Reply {
        let known = Known::default();
        store.apply(Time(0), &Request::Order { action: Box::new(action), from: Member::new(from), known })
    }

    fn lease(store: &mut Store) -> LeaseId {
        match order(store, "a", StoreAction::GrantTenure { ttl: Duration::from_millis(2500) }) {
            Reply::Done(done) => match *done {
                StoreDone::Granted { lease, ttl } => {
                    assert_eq!(ttl, Duration::from_secs(3));
                    lease
                }
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    fn acquire(lease: LeaseId, record: Revision) -> StoreAction {
        let zero = Revision(0);
        let (timeline, position, newest_timeline) = (Timeline(1), Lsn(1), Timeline(2));
        let (failover, config, sync) = (zero, zero, zero);
        let unguarded = false;
        StoreAction::Acquire(Acquire {
            lease,
            failover,
            config,
            sync,
            record,
            timeline,
            position,
            newest_timeline,
            unguarded,
        })
    }

    #[test]
    fn the_leader_key_goes_to_one_and_ends_with_its_lease() {
        let mut store = Store::new(Duration::from_secs(1));
        let (a, b) = (lease(&mut store), lease(&mut store));
        assert!(matches!(order(&mut store, "a", acquire(a, Revision(0))), Reply::Done(_)));
        assert!(matches!(order(&mut store, "b", acquire(b, Revision(2))), Reply::Refused(Refusal::Conflict)));
        let epoch = store.keys().leader.as_ref().unwrap().created;
        assert!(matches!(store.apply(Time(0), &Request::Proof { lease: a, epoch }), Reply::Done(_)));
        store.end(a, Gone::Expired);
        assert!(matches!(store.apply(Time(0), &Request::Proof { lease: a, epoch }), Reply::Refused(_)));
        // A decision made on an older record of the last tenure is not carried out.
        assert!(matches!(order(&mut store, "b", acquire(b, Revision(0))), Reply::Refused(Refusal::Conflict)));
        assert!(matches!(order(&mut store, "b", acquire(b, epoch)), Reply::Done(_)));
        assert!(matches!(order(&mut store, "a", acquire(a, Revision(0))), Reply::Refused(_)));
        assert_eq!(store.changes().len(), 3);
    }

    #[test]
    fn a_lease_that_is_gone_holds_nothing() {
        let mut store = Store::new(Duration::from_secs(1));
        let a = lease(&mut store);
        store.end(a, Gone::Expired);
        assert!(matches!(order(&mut store, "a", acquire(a, Revision(0))), Reply::Refused(Refusal::LeaseGone)));
        assert!(matches!(store.apply(Time(0), &Request::KeepAlive(a)), Reply::Refused(Refusal::LeaseGone)));
        let before = store.keys().revision;
        store.end(a, Gone::Expired);
        assert_eq!(store.keys().revision, before);
    }

    #[test]
    fn a_new_leader_of_the_store_gives_leases_their_time_again() {
        let mut store = Store::new(Duration::from_secs(1));
        let a = lease(&mut store);
        store.refresh_leases(Time::from_ms(2000));
        assert_eq!(store.lease_until(a), Some(Time::from_ms(6000)));
        assert_eq!(store.next_end(), Some((a, Time::from_ms(6000))));
    }
}
