//! Core's orders on the store as guarded transactions on the keys of the cluster.

use std::time::Duration;

use matriarch_core::action::{Acquire, Status, StoreAction};
use matriarch_core::event::StoreDone;
use matriarch_core::id::{LeaseId, Lsn, Member, Revision, Timeline};
use matriarch_core::op::Outcome;
use matriarch_core::time::{Instant, WallMillis};
use matriarch_core::view::store::{EpochRecord, HistoryLine, MemberRecord};

use super::feed::Mirror;
use super::setup;
use crate::store::{Committed, EtcdStore, Guard, Operation, Renewed, Transaction};
use crate::wire::{self, MemberExtras, PATRONI_LEVEL, keys as key};

/// The keys of one cluster.
pub struct Keys {
    store: EtcdStore,
    mirror: Mirror,
    base: String,
    me: Member,
    extras: std::sync::Mutex<Extras>,
    /// The dynamic configuration that is written where there is none, as compact JSON.
    config: std::sync::Mutex<String>,
}

/// What the member record says beside what core decides on.
#[derive(Clone, Debug)]
pub struct Extras {
    /// The tags as published.
    pub tags: serde_json::Map<String, serde_json::Value>,
    /// The database of `conn_url`.
    pub database: String,
    /// `host:port` of `proxy_url`.
    pub proxy_address: Option<String>,
}

impl Extras {
    fn borrow(&self) -> MemberExtras<'_> {
        MemberExtras {
            tags: &self.tags,
            version: PATRONI_LEVEL,
            database: &self.database,
            proxy_address: self.proxy_address.as_deref(),
        }
    }
}

/// No single request waits longer than this, whatever budget there is: the next decision tries again.
const ATTEMPT_MAX: Duration = Duration::from_secs(3);

impl Keys {
    /// The keys under `base`.
    pub fn new(store: EtcdStore, mirror: Mirror, base: &str, me: Member, extras: Extras) -> Self {
        let (extras, config) = (std::sync::Mutex::new(extras), std::sync::Mutex::new("{}".to_owned()));
        Self { store, mirror, base: base.to_owned(), me, extras, config }
    }

    /// The dynamic configuration that is written from now on where there is none.
    pub fn set_config(&self, config: &serde_json::Value) {
        let config = if config.is_object() { config.to_string() } else { "{}".to_owned() };
        *self.config.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = config;
    }

    /// Tenures may last for so long from now on.
    pub fn allow_tenure(&self, ttl: Duration) {
        self.store.allow_tenure(ttl);
    }

    /// What else the member record says from now on.
    pub fn set_extras(&self, extras: Extras) {
        *self.extras.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = extras;
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.base)
    }

    fn put(&self, name: &str, value: impl Into<Vec<u8>>) -> Operation {
        Operation::Put { key: self.key(name), value: value.into(), lease: None }
    }

    /// Executes an order: what came of it, and when it was asked.
    pub async fn execute(&self, action: StoreAction, deadline: Duration) -> (Outcome<StoreDone>, Instant) {
        let asked = self.store.clock().now();
        let deadline = deadline.min(ATTEMPT_MAX);
        let outcome = match action {
            StoreAction::Read => return self.read(deadline).await,
            StoreAction::GrantTenure { ttl } | StoreAction::GrantSession { ttl } => {
                return self.grant(ttl, deadline).await;
            }
            StoreAction::Renew { lease, epoch, deadline } => return self.renew(lease, epoch, deadline).await,
            StoreAction::KeepSession { lease } => {
                return match self.store.keep_session(lease, deadline).await {
                    Outcome::Done(kept) => (Outcome::Done(StoreDone::SessionKept), kept.asked),
                    Outcome::Refused(refusal) => (Outcome::Refused(refusal), asked),
                    Outcome::Unknown(why) => (Outcome::Unknown(why), asked),
                };
            }
            StoreAction::Revoke { lease } => self.store.revoke(lease, deadline).await.map(|()| StoreDone::Revoked),
            StoreAction::Acquire(acquire) => self.acquire(&acquire, deadline).await,
            StoreAction::TakeOver { lease, modified } => self.take_over(lease, modified, deadline).await,
            StoreAction::Release { lease, epoch, position, timeline, history, record, session } => {
                let mut operations = self.last_words(position, timeline, history);
                operations.extend(session.map(|session| self.member_operation(session, &record)));
                self.release(lease, epoch, operations, deadline).await.map(|_| StoreDone::Released)
            }
            StoreAction::PutMember { lease, record } => self.put_member(lease, &record, deadline).await,
            StoreAction::PutStatus { epoch, status } => self.put_status(epoch, &status, deadline).await,
            other => self.write(self.transaction(other), deadline).await,
        };
        (outcome, asked)
    }

    async fn read(&self, deadline: Duration) -> (Outcome<StoreDone>, Instant) {
        let asked = self.store.clock().now();
        match self.store.read_prefix(&self.base, deadline).await {
            Outcome::Done(snapshot) => (Outcome::Done(StoreDone::Read(self.mirror.apply(&snapshot))), snapshot.asked),
            Outcome::Refused(refusal) => (Outcome::Refused(refusal), asked),
            Outcome::Unknown(why) => (Outcome::Unknown(why), asked),
        }
    }

    async fn grant(&self, ttl: Duration, deadline: Duration) -> (Outcome<StoreDone>, Instant) {
        let asked = self.store.clock().now();
        let seconds = i64::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        match self.store.grant(seconds, deadline).await {
            Outcome::Done(granted) => {
                (Outcome::Done(StoreDone::Granted { lease: granted.lease, ttl: granted.ttl }), granted.asked)
            }
            Outcome::Refused(refusal) => (Outcome::Refused(refusal), asked),
            Outcome::Unknown(why) => (Outcome::Unknown(why), asked),
        }
    }

    async fn renew(&self, lease: LeaseId, epoch: Revision, deadline: Duration) -> (Outcome<StoreDone>, Instant) {
        let asked = self.store.clock().now();
        match self.store.renew(lease, &self.key(key::LEADER), epoch, deadline).await {
            // Credited to when the keep-alive of the attempt that succeeded was sent.
            Outcome::Done(Renewed { ttl, revision, asked, .. }) => {
                (Outcome::Done(StoreDone::Renewed { ttl, revision }), asked)
            }
            Outcome::Refused(refusal) => (Outcome::Refused(refusal), asked),
            Outcome::Unknown(why) => (Outcome::Unknown(why), asked),
        }
    }

    async fn commit(&self, transaction: Transaction, deadline: Duration) -> Outcome<Committed> {
        self.store.transact(transaction, deadline).await.outcome
    }

    async fn write(&self, transaction: Transaction, deadline: Duration) -> Outcome<StoreDone> {
        self.commit(transaction, deadline).await.map(|_| StoreDone::Written)
    }

    /// The keys read back in the same transaction are the view in which this node leads.
    fn acquired(&self, outcome: Outcome<Committed>) -> Outcome<StoreDone> {
        match outcome {
            Outcome::Done(Committed { snapshot: Some(snapshot), .. }) => {
                Outcome::Done(StoreDone::Acquired(self.mirror.apply(&snapshot)))
            }
            Outcome::Done(_) => Outcome::Unknown("the transaction did not read the keys back".into()),
            Outcome::Refused(refusal) => Outcome::Refused(refusal),
            Outcome::Unknown(why) => Outcome::Unknown(why),
        }
    }

    async fn acquire(&self, acquire: &Acquire, deadline: Duration) -> Outcome<StoreDone> {
        let unchanged = |name: &str, revision: Revision| Guard::ModRevision(self.key(name), revision);
        let record = wire::epoch_json(&EpochRecord {
            // Nobody knows the revision of a transaction before it is applied.
            epoch: Revision(0),
            timeline: acquire.timeline,
            position: acquire.position,
            newest_timeline: acquire.newest_timeline,
            unguarded: acquire.unguarded,
            ..self.record()
        });
        let mut guards = vec![
            Guard::Absent(self.key(key::LEADER)),
            unchanged(key::FAILOVER, acquire.failover),
            unchanged(key::SYNC, acquire.sync),
            unchanged(key::MATRIARCH, acquire.record),
        ];
        // A configuration that cannot be used has no revision; it must not forbid every election.
        guards.extend((acquire.config != Revision(0)).then(|| unchanged(key::CONFIG, acquire.config)));
        let transaction = Transaction {
            guards,
            operations: vec![self.put_leader(acquire.lease), self.put(key::MATRIARCH, record)],
            on_refusal_read: None,
            then_read: Some(self.base.clone()),
        };
        self.acquired(self.commit(transaction, deadline).await)
    }

    async fn take_over(&self, lease: LeaseId, modified: Revision, deadline: Duration) -> Outcome<StoreDone> {
        let leader = self.key(key::LEADER);
        let transaction = Transaction {
            guards: vec![
                Guard::ModRevision(leader.clone(), modified),
                Guard::Value(leader, self.me.as_str().as_bytes().to_vec()),
            ],
            operations: vec![self.put_leader(lease)],
            on_refusal_read: None,
            then_read: Some(self.base.clone()),
        };
        self.acquired(self.commit(transaction, deadline).await)
    }

    /// A record of this node's, of nothing yet.
    fn record(&self) -> EpochRecord {
        EpochRecord {
            revision: Revision(0),
            store: self.mirror.store_id(),
            epoch: Revision(0),
            member: self.me.clone(),
            timeline: Timeline(0),
            position: Lsn(0),
            newest_timeline: Timeline(0),
            unguarded: false,
        }
    }

    fn put_leader(&self, lease: LeaseId) -> Operation {
        Operation::Put { key: self.key(key::LEADER), value: self.me.as_str().as_bytes().to_vec(), lease: Some(lease) }
    }

    /// Position, our record and the end of the tenure in one transaction: nobody sees one without the others.
    async fn release(
        &self,
        lease: LeaseId,
        epoch: Revision,
        mut operations: Vec<Operation>,
        deadline: Duration,
    ) -> Outcome<Committed> {
        let leader = self.key(key::LEADER);
        operations.push(Operation::Delete(leader.clone()));
        let transaction = Transaction {
            guards: vec![Guard::CreateRevision(leader.clone(), epoch), Guard::Lease(leader, lease)],
            operations,
            on_refusal_read: None,
            then_read: None,
        };
        self.commit(transaction, deadline).await
    }

    fn last_words(&self, position: Lsn, timeline: Timeline, history: Option<Vec<HistoryLine>>) -> Vec<Operation> {
        // Slots outlive the leader that reported them.
        let (text, revision) = self.mirror.text(key::STATUS).unwrap_or_default();
        let before = wire::status::status_key(Revision(revision), &text);
        let slots = before.slots.into_iter().collect();
        let status = Status { position, timeline, slots, retain: before.retain };
        let status = self.put(key::STATUS, wire::status_json(&status));
        history.map(|lines| self.history_operation(lines)).into_iter().chain([status]).collect()
    }

    fn history_operation(&self, lines: Vec<HistoryLine>) -> Operation {
        self.put(key::HISTORY, wire::history_json(&stamped(lines, self.store.clock().wall())))
    }

    fn member_operation(&self, lease: LeaseId, record: &MemberRecord) -> Operation {
        let extras = self.extras.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Operation::Put {
            key: self.key(&key::member(self.me.as_str())),
            value: wire::member_json(record, &extras.borrow()).into_bytes(),
            lease: Some(lease),
        }
    }

    /// Guarded by what is known of our own key: another node that writes it under our name is noticed.
    async fn put_member(&self, lease: LeaseId, record: &MemberRecord, deadline: Duration) -> Outcome<StoreDone> {
        let guard = self.as_known(&key::member(self.me.as_str()));
        self.write_or_read(vec![guard], self.member_operation(lease, record), deadline).await
    }

    /// Guarded by what is known of the key as well as by the tenure. The race: one that was told stands still in a member of
    /// the store, a later one is done through another, and then the first arrives: it would take the position back.
    async fn put_status(&self, epoch: Revision, status: &Status, deadline: Duration) -> Outcome<StoreDone> {
        let guards = vec![Guard::CreateRevision(self.key(key::LEADER), epoch), self.as_known(key::STATUS)];
        self.write_or_read(guards, self.put(key::STATUS, wire::status_json(status)), deadline).await
    }

    /// The key is as it was when it was last heard of.
    fn as_known(&self, name: &str) -> Guard {
        let known = self.mirror.text(name).map_or(Revision(0), |(_, revision)| Revision(revision));
        Guard::ModRevision(self.key(name), known)
    }

    /// Where a guard fails the keys are taken in as they are: the next attempt knows them.
    async fn write_or_read(&self, guards: Vec<Guard>, put: Operation, deadline: Duration) -> Outcome<StoreDone> {
        let transaction =
            Transaction { guards, operations: vec![put], on_refusal_read: Some(self.base.clone()), then_read: None };
        let transacted = self.store.transact(transaction, deadline).await;
        if let Some(snapshot) = &transacted.seen_instead {
            self.mirror.apply(snapshot);
        }
        transacted.outcome.map(|_| StoreDone::Written)
    }

    /// The other writes: one key each, guarded by its revision or by the tenure.
    fn transaction(&self, action: StoreAction) -> Transaction {
        let guarded = |guards: Vec<Guard>, operations: Vec<Operation>| Transaction {
            guards,
            operations,
            on_refusal_read: None,
            then_read: None,
        };
        let unchanged = |name: &str, revision: Revision| Guard::ModRevision(self.key(name), revision);
        let as_leader = |epoch: Revision| Guard::CreateRevision(self.key(key::LEADER), epoch);
        // A configuration that cannot be used has no revision.
        let as_configured = |config: Revision| (config != Revision(0)).then(|| unchanged(key::CONFIG, config));
        match action {
            StoreAction::RaceInitialize { lease } => guarded(
                vec![Guard::Absent(self.key(key::INITIALIZE)), Guard::Absent(self.key(key::LEADER))],
                vec![Operation::Put { key: self.key(key::INITIALIZE), value: Vec::new(), lease: Some(lease) }],
            ),
            StoreAction::AbandonInitialize { initialize } => guarded(
                vec![unchanged(key::INITIALIZE, initialize)],
                vec![Operation::Delete(self.key(key::INITIALIZE))],
            ),
            StoreAction::CompleteInitialize { epoch, system_id, initialize, config } => {
                let mut operations = vec![self.put(key::INITIALIZE, system_id.to_string())];
                // Also one that is there and is no mapping has no revision: what is replaced is what is known of it. The
                // race: an operator has written one since this was decided.
                let known = self.mirror.text(key::CONFIG).map_or(Revision(0), |(text, revision)| {
                    let written_since = config == Revision(0) && setup::stored(Some(&text)).0.is_some();
                    Revision(if written_since { 0 } else { revision })
                });
                if config == Revision(0) {
                    let config = self.config.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    operations.push(self.put(key::CONFIG, config.as_str()));
                }
                let keys = [unchanged(key::INITIALIZE, initialize), unchanged(key::CONFIG, known)];
                guarded([as_leader(epoch)].into_iter().chain(keys).collect(), operations)
            }
            StoreAction::Reserve { epoch, record, timeline, position, newest_timeline, unguarded, config } => {
                let written = EpochRecord { epoch, timeline, position, newest_timeline, unguarded, ..self.record() };
                let mut guards = vec![as_leader(epoch), unchanged(key::MATRIARCH, record)];
                guards.extend(as_configured(config));
                guarded(guards, vec![self.put(key::MATRIARCH, wire::epoch_json(&written))])
            }
            // Whoever took the key since has written a record of his own.
            StoreAction::Vouch { record, config } => {
                let mut guards = vec![unchanged(key::MATRIARCH, record.revision)];
                guards.extend(as_configured(config));
                let written = EpochRecord { unguarded: false, ..record };
                guarded(guards, vec![self.put(key::MATRIARCH, wire::epoch_json(&written))])
            }
            StoreAction::PutHistory { epoch, revision, lines, status } => {
                let status = self.put(key::STATUS, wire::status_json(&status));
                let guards = vec![as_leader(epoch), unchanged(key::HISTORY, revision)];
                guarded(guards, vec![self.history_operation(lines), status])
            }
            StoreAction::PutFailover { revision, epoch, leader, candidate, scheduled_at } => {
                let at = scheduled_at.map(|schedule| schedule.text);
                let text = wire::failover_json(leader.as_ref(), candidate.as_ref(), at.as_deref());
                let guards = vec![as_leader(epoch), unchanged(key::FAILOVER, revision)];
                guarded(guards, vec![self.put(key::FAILOVER, text)])
            }
            StoreAction::ClearFailover { revision } => {
                guarded(vec![unchanged(key::FAILOVER, revision)], vec![self.put(key::FAILOVER, "{}")])
            }
            StoreAction::Read
            | StoreAction::GrantTenure { .. }
            | StoreAction::Acquire(_)
            | StoreAction::TakeOver { .. }
            | StoreAction::Renew { .. }
            | StoreAction::Release { .. }
            | StoreAction::Revoke { .. }
            | StoreAction::GrantSession { .. }
            | StoreAction::KeepSession { .. }
            | StoreAction::PutMember { .. }
            | StoreAction::PutStatus { .. } => unreachable!("executed by a function of its own"),
        }
    }
}

/// The newest line of a history gets the time at which it is written, if it has none.
fn stamped(mut lines: Vec<HistoryLine>, wall: WallMillis) -> Vec<HistoryLine> {
    if let Some(last) = lines.last_mut().filter(|line| line.timestamp.is_none()) {
        let now = jiff::Timestamp::from_millisecond(wall.0).unwrap_or_default().to_zoned(jiff::tz::TimeZone::system());
        last.timestamp = Some(now.strftime("%Y-%m-%dT%H:%M:%S%.6f%:z").to_string());
    }
    lines
}
