//! The distributed store as the agent uses it: etcd v3, or the embedded single-node store that speaks the same
//! protocol.

pub mod embedded;
mod etcd;
mod horizon;
mod keep_alive;
mod member;
mod mirror;
mod renew;
mod watch;

pub use etcd::EtcdStore;
pub use mirror::MirroredPrefix;
pub use watch::{Change, WatchEvent};

use std::time::Duration;

use matriarch_core::id::{LeaseId, Revision, StoreId};
use matriarch_core::op::Outcome;
use matriarch_core::time::Instant;

/// A key with its value and the store's bookkeeping (etcd's `mvccpb.KeyValue`).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Entry {
    /// The whole key. Bytes that are not UTF-8 are replaced: Matriarch writes no such key.
    pub key: String,
    /// The value, uninterpreted.
    pub value: Vec<u8>,
    /// The revision that created the key, after its latest deletion.
    pub create_revision: Revision,
    /// The revision that last changed the key.
    pub mod_revision: Revision,
    /// How often the key was put since its creation.
    pub version: i64,
    /// The lease that the key dies with; 0 for none.
    pub lease: LeaseId,
}

impl Entry {
    /// The value as text. What is no UTF-8 is there all the same, and reads as what nobody understands: a leader key is
    /// somebody's, and what is written in its place is guarded by its revision.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.value).unwrap_or("\u{fffd}")
    }
}

/// Keys read at one revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Which store answered.
    pub store_id: StoreId,
    /// How often it was found to have gone back, restored from a backup; revisions before that mean nothing.
    pub rollbacks: u64,
    /// The revision of the store that the entries are of.
    pub revision: Revision,
    /// The raft term of the member that answered.
    pub raft_term: u64,
    /// The entries, ordered by key.
    pub entries: Vec<Entry>,
    /// Just before the request was handed to the connection.
    pub asked: Instant,
    /// When the reply was here.
    pub heard: Instant,
}

impl Snapshot {
    /// The entry of `key`, if it is there.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

/// One key read at a revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyRead {
    /// Which store answered.
    pub store_id: StoreId,
    /// The revision of the store at which this was true; with no entry: "absent at revision R".
    pub revision: Revision,
    /// The raft term of the member that answered.
    pub raft_term: u64,
    /// The entry, if the key exists.
    pub entry: Option<Entry>,
    /// Just before the request was handed to the connection.
    pub asked: Instant,
    /// When the reply was here.
    pub heard: Instant,
}

/// A lease that was granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Granted {
    /// Its id.
    pub lease: LeaseId,
    /// The time to live that the store granted, which may be longer than asked for.
    pub ttl: Duration,
    /// Just before the request was handed to the connection.
    pub asked: Instant,
    /// When the reply was here.
    pub heard: Instant,
}

/// A lease that was kept alive, or a tenure that was renewed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Renewed {
    /// The time to live, counted from `asked`.
    pub ttl: Duration,
    /// Just before the keep-alive was handed to the connection: what the renewal is credited to.
    pub asked: Instant,
    /// When the last reply that the renewal rests on was here.
    pub heard: Instant,
    /// The raft term of the replies.
    pub raft_term: u64,
    /// The revision of the store in the last of them: with a proof, read linearizably; with a keep-alive alone, a
    /// member's own word.
    pub revision: Revision,
}

/// What must be true for a transaction to happen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Guard {
    /// The key does not exist.
    Absent(String),
    /// The key was created at this revision (0: it does not exist).
    CreateRevision(String, Revision),
    /// The key was last changed at this revision (0: it does not exist).
    ModRevision(String, Revision),
    /// The key exists and has this value.
    Value(String, Vec<u8>),
    /// The key exists and is bound to this lease (0: no lease).
    Lease(String, LeaseId),
}

/// What a transaction does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Writes a key.
    Put {
        /// The whole key.
        key: String,
        /// Its new value.
        value: Vec<u8>,
        /// The lease that it dies with.
        lease: Option<LeaseId>,
    },
    /// Deletes one key; no error if it does not exist.
    Delete(String),
}

/// A guarded write. All guards hold and all operations happen, at one revision, or none does.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Transaction {
    /// What must hold.
    pub guards: Vec<Guard>,
    /// What then happens.
    pub operations: Vec<Operation>,
    /// A prefix that is read back, within the transaction, if a guard did not hold.
    pub on_refusal_read: Option<String>,
    /// A prefix that is read back, within the transaction, after the operations.
    pub then_read: Option<String>,
}

/// A transaction that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// Which store it happened in.
    pub store_id: StoreId,
    /// The revision it happened at.
    pub revision: Revision,
    /// The prefix asked for by [`Transaction::then_read`], as the transaction left it.
    pub snapshot: Option<Snapshot>,
    /// Just before the request was handed to the connection.
    pub asked: Instant,
    /// When the reply was here.
    pub heard: Instant,
}

/// What came of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transacted {
    /// Whether it happened. `Refused(Conflict)`: a guard did not hold; `Refused(LeaseGone)`: a put carried a dead
    /// lease.
    pub outcome: Outcome<Committed>,
    /// The prefix asked for by [`Transaction::on_refusal_read`]; only with `Refused(Conflict)`.
    pub seen_instead: Option<Snapshot>,
}
