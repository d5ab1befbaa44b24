//! What operators do to keys by hand: deleted, overwritten with what nobody understands, restored from a backup.

use serde::{Deserialize, Serialize};

use super::{Gone, Lease, Store};
use crate::time::Time;
use matriarch_core::id::{LeaseId, Lsn, Member, Revision, StoreId, Timeline};
use matriarch_core::view::store::{
    ClusterView, EpochRecord, HistoryKey, Initialize, MemberKey, MemberRecord, StatusKey,
};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A key that an operator lays hands on; the leader key has faults of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// `members/*`, all of them.
    Members,
    /// `status`.
    Status,
    /// `history`.
    History,
    /// `config`.
    Config,
    /// `initialize`.
    Initialize,
    /// `failover`.
    Failover,
    /// `matriarch`: the record of the last tenure.
    Record,
}

/// All of them.
pub const KEYS: [Key; 7] =
    [Key::Members, Key::Status, Key::History, Key::Config, Key::Initialize, Key::Failover, Key::Record];

/// What a backup holds.
#[derive(Clone, Debug)]
pub struct Backup {
    keys: Rc<ClusterView>,
    leases: BTreeMap<LeaseId, Lease>,
    initialize_lease: Option<LeaseId>,
}

impl Store {
    /// The key is there, or one of its kind.
    pub fn holds(&self, key: Key) -> bool {
        let keys = &self.keys;
        match key {
            Key::Members => !keys.members.is_empty(),
            Key::Status => keys.status.is_some(),
            Key::History => keys.history.revision != Revision(0),
            Key::Config => keys.config_revision != Revision(0),
            Key::Initialize => keys.initialize.is_some(),
            Key::Failover => keys.failover_revision != Revision(0),
            Key::Record => keys.epoch.is_some(),
        }
    }

    /// Nonsense in it is a change: where there is no member no key has a name, and a configuration that cannot be read is
    /// as good as none.
    pub fn can_be_garbled(&self, key: Key) -> bool {
        !matches!(key, Key::Members | Key::Config) || self.holds(key)
    }

    /// `etcdctl del`.
    pub fn delete(&mut self, key: Key) {
        let next = self.next();
        self.remove(key);
        self.publish(next);
    }

    fn remove(&mut self, key: Key) {
        let keys = &mut self.keys;
        match key {
            Key::Members => keys.members.clear(),
            Key::Status => keys.status = None,
            Key::History => keys.history = HistoryKey::default(),
            Key::Config => (keys.config_revision, keys.paused) = (Revision(0), None),
            Key::Initialize => (keys.initialize, self.initialize_lease) = (None, None),
            Key::Failover => (keys.failover, keys.failover_revision) = (None, Revision(0)),
            Key::Record => keys.epoch = None,
        }
    }

    /// `etcdctl del --prefix`: one revision.
    pub fn delete_all(&mut self) {
        let next = self.next();
        for key in KEYS {
            self.remove(key);
        }
        self.drop_leader(Gone::Early, None, |_| true);
        self.publish(next);
    }

    /// `etcdctl put KEY nonsense`: what the runtime reads of it (`runtime/src/wire`).
    pub fn garble(&mut self, key: Key) {
        let next = self.next();
        let keys = &mut self.keys;
        match key {
            // Put without a lease, a key hangs on none any more.
            Key::Members => {
                for member in keys.members.values_mut() {
                    *member = MemberKey { revision: next, lease: LeaseId(0), record: MemberRecord::default() };
                }
            }
            Key::Status => keys.status = Some(StatusKey { revision: next, ..StatusKey::default() }),
            Key::History => keys.history = HistoryKey { revision: next, unreadable: true, ..HistoryKey::default() },
            // What is no object looks absent.
            Key::Config => (keys.config_revision, keys.paused) = (Revision(0), None),
            Key::Initialize => {
                keys.initialize = Some(Initialize { revision: next, lease: LeaseId(0), system_id: None });
                self.initialize_lease = None;
            }
            Key::Failover => (keys.failover, keys.failover_revision) = (None, next),
            Key::Record => {
                keys.epoch = Some(EpochRecord {
                    revision: next,
                    store: StoreId(0),
                    epoch: next,
                    member: Member::new(""),
                    timeline: Timeline(0),
                    position: Lsn(0),
                    newest_timeline: Timeline(0),
                    unguarded: false,
                });
            }
        }
        self.publish(next);
    }

    /// `etcdctl put config`: another configuration, in which `pause` is as it was.
    pub fn configure(&mut self) {
        self.pause(self.keys.paused.unwrap_or_default());
    }

    /// `patronictl pause`, or `resume`.
    pub fn pause(&mut self, paused: bool) {
        let next = self.next();
        (self.keys.config_revision, self.keys.paused) = (next, Some(paused));
        self.publish(next);
    }

    /// Everything as it is now.
    pub fn backup(&self) -> Backup {
        Backup { keys: Rc::clone(&self.shared), leases: self.leases.clone(), initialize_lease: self.initialize_lease }
    }

    /// Everything as it was then: revisions go back, keys and leases of then are there, each with its whole ttl again.
    pub fn restore(&mut self, backup: &Backup, now: Time) {
        let lost = self.keys.leader.clone().map(|leader| leader.lease);
        let kept = backup.keys.leader.as_ref().map(|leader| leader.lease);
        if lost != kept {
            self.drop_leader(Gone::Early, None, |_| true);
        }
        self.keys = ClusterView::clone(&backup.keys);
        self.leases.clone_from(&backup.leases);
        self.initialize_lease = backup.initialize_lease;
        self.refresh_leases(now);
        self.publish(self.keys.revision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use crate::time::Time;
    use crate::trace::Trace;
    use crate::world::World;

    fn steady() -> World {
        let mut world = World::new(crate::fault::Plan::calm(1, Settings::usual()), None, Trace::hash_only());
        world.run_until(Time::from_ms(60_000));
        assert_eq!(world.violation, None);
        world
    }

    #[test]
    fn a_deleted_key_is_gone_and_a_garbled_one_is_there_and_says_nothing() {
        let store = steady().store;
        let before = store.keys().revision;
        for key in KEYS {
            let (mut deleted, mut garbled) = (store.clone(), store.clone());
            deleted.delete(key);
            garbled.garble(key);
            assert_eq!(deleted.keys().revision.0, before.0 + 1, "{key:?}");
            assert_ne!(deleted.keys().epoch.is_some(), key == Key::Record, "{key:?}");
            assert_ne!(deleted.keys().system_id().is_some(), key == Key::Initialize, "{key:?}");
            assert_ne!(garbled.keys().system_id().is_some(), key == Key::Initialize, "{key:?}");
            assert!(garbled.keys().epoch.is_some() && garbled.keys().leader.is_some(), "{key:?}");
            assert_eq!(deleted.keys().members.is_empty(), key == Key::Members, "{key:?}");
            assert!(!deleted.holds(key), "{key:?}");
            assert_eq!(garbled.holds(key), key != Key::Config, "{key:?}");
            assert_eq!(deleted.can_be_garbled(key), !matches!(key, Key::Members | Key::Config), "{key:?}");
        }
    }

    #[test]
    fn a_restored_store_has_gone_back_with_its_leases() {
        let mut world = steady();
        let backup = world.store.backup();
        let (then, leader) = (world.store.keys().revision, world.store.keys().leader.clone());
        world.run_until(Time::from_ms(90_000));
        assert!(world.store.keys().revision > then);
        let now = world.now;
        world.store.restore(&backup, now);
        assert_eq!((world.store.keys().revision, world.store.keys().leader.clone()), (then, leader.clone()));
        let lease = leader.unwrap().lease;
        assert_eq!(
            world.store.lease_until(lease),
            Some(now + std::time::Duration::from_secs(30) + crate::store::EXTENSION)
        );
    }
}
