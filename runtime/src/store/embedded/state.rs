//! What the store holds: keys, leases, and the revision they are at. No clock, no file, no socket.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use etcd_client::proto::{PbEvent, PbKeyValue, PbResponseHeader};
use matriarch_core::time::Instant;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tonic::Status;

/// etcd's limit on a lease's time to live.
const TTL_SECONDS_MAX: i64 = 9_000_000_000;
/// The shortest time to live that is granted.
const TTL_SECONDS_MIN: i64 = 1;

/// One change of the state, the unit of the journal. Applying the same effects to the same state gives the same state.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Effect {
    /// A key was written, in full.
    Put(PbKeyValue),
    /// A key was deleted.
    Delete { key: Vec<u8>, revision: i64 },
    /// A lease was granted.
    Grant { id: i64, ttl_seconds: i64 },
    /// A lease ended; its keys were deleted by effects before this one.
    Revoke { id: i64 },
    /// A new run of the server began.
    Term(u64),
}

/// A lease.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Lease {
    pub(super) ttl_seconds: i64,
    pub(super) deadline: Instant,
    pub(super) keys: BTreeSet<Vec<u8>>,
}

/// The whole state, without its history.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct State {
    pub(super) cluster_id: u64,
    pub(super) member_id: u64,
    /// Counts the runs of the server. A renewal whose two halves are of different runs proves nothing.
    pub(super) raft_term: u64,
    pub(super) revision: i64,
    pub(super) keys: BTreeMap<Vec<u8>, PbKeyValue>,
    pub(super) leases: BTreeMap<i64, Lease>,
}

impl State {
    /// An empty store. Like etcd's, its first revision is 1.
    pub(super) fn new(cluster_id: u64, member_id: u64) -> Self {
        Self { cluster_id, member_id, revision: 1, ..Self::default() }
    }

    /// The header of a reply.
    pub(super) fn header(&self) -> PbResponseHeader {
        PbResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision: self.revision,
            raft_term: self.raft_term,
        }
    }

    /// The only way in which anything but a lease's deadline changes. Returns what watchers are told.
    pub(super) fn apply(&mut self, effect: &Effect, now: Instant) -> Option<PbEvent> {
        match effect {
            Effect::Put(kv) => {
                self.revision = kv.mod_revision;
                let prev_kv = self.keys.insert(kv.key.clone(), kv.clone());
                self.unbind(prev_kv.as_ref());
                if let Some(lease) = self.leases.get_mut(&kv.lease) {
                    lease.keys.insert(kv.key.clone());
                }
                Some(PbEvent { r#type: 0, kv: Some(kv.clone()), prev_kv })
            }
            Effect::Delete { key, revision } => {
                self.revision = *revision;
                let prev_kv = self.keys.remove(key);
                self.unbind(prev_kv.as_ref());
                let kv = PbKeyValue { key: key.clone(), mod_revision: *revision, ..PbKeyValue::default() };
                Some(PbEvent { r#type: 1, kv: Some(kv), prev_kv })
            }
            Effect::Grant { id, ttl_seconds } => {
                let deadline = now + seconds(*ttl_seconds);
                let lease = Lease { ttl_seconds: *ttl_seconds, deadline, keys: BTreeSet::new() };
                self.leases.insert(*id, lease);
                None
            }
            Effect::Revoke { id } => {
                self.leases.remove(id);
                None
            }
            Effect::Term(term) => {
                self.raft_term = *term;
                None
            }
        }
    }

    /// Gives every lease its full time to live again: while the server was away nobody could keep it alive.
    pub(super) fn restart_leases(&mut self, now: Instant) {
        for lease in self.leases.values_mut() {
            lease.deadline = now + seconds(lease.ttl_seconds);
        }
    }

    /// When the first lease expires.
    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        self.leases.values().map(|lease| lease.deadline).min()
    }

    /// The leases that are past their deadline.
    pub(super) fn expired(&self, now: Instant) -> Vec<i64> {
        self.leases.iter().filter(|(_, lease)| lease.deadline <= now).map(|(id, _)| *id).collect()
    }

    /// Effects that bring an empty state of the same ids and term here; the revision has to be set besides.
    pub(super) fn to_effects(&self) -> Vec<Effect> {
        let grant = |(id, lease): (&i64, &Lease)| Effect::Grant { id: *id, ttl_seconds: lease.ttl_seconds };
        self.leases.iter().map(grant).chain(self.keys.values().cloned().map(Effect::Put)).collect()
    }

    fn unbind(&mut self, previous: Option<&PbKeyValue>) {
        if let Some(previous) = previous
            && let Some(lease) = self.leases.get_mut(&previous.lease)
        {
            lease.keys.remove(&previous.key);
        }
    }
}

pub(super) fn seconds(ttl_seconds: i64) -> Duration {
    Duration::from_secs(ttl_seconds.unsigned_abs())
}

/// A state that requests are tried on. It replaces the real one once its effects are on disk.
pub(super) struct Draft {
    pub(super) state: State,
    pub(super) effects: Vec<Effect>,
    pub(super) events: Vec<PbEvent>,
    pub(super) now: Instant,
    /// What ids of leases are drawn from.
    seed: u64,
}

impl Draft {
    pub(super) fn new(state: State, now: Instant, seed: u64) -> Self {
        Self { state, effects: Vec::new(), events: Vec::new(), now, seed }
    }

    pub(super) fn apply(&mut self, effect: Effect) {
        let event = self.state.apply(&effect, self.now);
        self.events.extend(event);
        self.effects.push(effect);
    }

    /// Grants a lease; `id` 0 lets the store choose. Returns its id and time to live.
    pub(super) fn grant(&mut self, id: i64, ttl_seconds: i64) -> Result<(i64, i64), Status> {
        if ttl_seconds > TTL_SECONDS_MAX {
            return Err(Status::out_of_range("etcdserver: too large lease TTL"));
        }
        if self.state.leases.contains_key(&id) {
            return Err(Status::failed_precondition("etcdserver: lease already exists"));
        }
        let ttl_seconds = ttl_seconds.max(TTL_SECONDS_MIN);
        let id = if id == 0 { self.unused_lease() } else { id };
        self.apply(Effect::Grant { id, ttl_seconds });
        Ok((id, ttl_seconds))
    }

    /// Ends a lease and deletes its keys, all at one revision.
    pub(super) fn revoke(&mut self, id: i64) -> Result<(), Status> {
        let lease = self.state.leases.get(&id).ok_or_else(lease_not_found)?;
        let revision = self.state.revision + 1;
        for key in lease.keys.clone() {
            self.apply(Effect::Delete { key, revision });
        }
        self.apply(Effect::Revoke { id });
        Ok(())
    }

    /// Keeps a lease alive: its time to live in seconds, 0 if there is no such lease. Not journaled, since a restart
    /// gives every lease its full time anyway.
    pub(super) fn keep_alive(&mut self, id: i64) -> i64 {
        let now = self.now;
        self.state.leases.get_mut(&id).map_or(0, |lease| {
            lease.deadline = now + seconds(lease.ttl_seconds);
            lease.ttl_seconds
        })
    }

    /// Random, so that an id is not used again after a restored backup: a lease's id is a tenure's.
    fn unused_lease(&self) -> i64 {
        let mut random = StdRng::seed_from_u64(self.seed);
        loop {
            let id = random.random::<i64>() & i64::MAX;
            if id != 0 && !self.state.leases.contains_key(&id) {
                return id;
            }
        }
    }
}

pub(super) fn lease_not_found() -> Status {
    Status::not_found("etcdserver: requested lease not found")
}
