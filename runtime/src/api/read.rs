//! The cluster's keys for people, read and written past the agent's own copy of them: for the REST API and the command
//! line.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use matriarch_core::id::Revision;
use matriarch_core::op::Outcome;
use matriarch_core::view::store::ClusterView;
use serde_json::Value;

use crate::store::{EtcdStore, Guard, Operation, Transaction};
use crate::wire::{RawEntry, cluster_document, cluster_view, keys};

/// The keys of one cluster at one revision.
#[derive(Clone, PartialEq, Debug)]
pub struct ClusterRead {
    /// The keys, parsed.
    pub view: ClusterView,
    /// The document of `/cluster`.
    pub document: Value,
    /// `config`, if it is an object.
    pub config: Option<Value>,
    /// `initialize`, verbatim: empty while a node bootstraps.
    pub initialize: Option<String>,
    /// `sync`, if it is an object.
    pub sync: Option<Value>,
}

/// Reads the store for an operator, within a bounded time. The error names the store and what is wrong with it.
pub type FreshRead =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<ClusterRead, String>> + Send>> + Send + Sync + 'static>;

/// Writes one key of the cluster for an operator, within a bounded time: only while it is as it was at the revision, if
/// there is one. `Refused(Conflict)`: somebody else changed it first.
pub type GuardedPut = Arc<
    dyn Fn(&'static str, String, Option<Revision>) -> Pin<Box<dyn Future<Output = Outcome<()>> + Send>>
        + Send
        + Sync
        + 'static,
>;

/// How the REST API reads and writes the store for an operator.
#[derive(Clone)]
pub struct StoreAccess {
    /// A fresh read of all keys.
    pub read: FreshRead,
    /// A write of one key.
    pub put: GuardedPut,
}

/// A [`StoreAccess`] to the keys of a cluster; each read and each write takes `deadline` at most.
pub fn store_access(store: EtcdStore, namespace: String, scope: String, deadline: Duration) -> StoreAccess {
    let base = keys::base(&namespace, &scope);
    let writing = store.clone();
    StoreAccess {
        read: Arc::new(move || {
            let (store, namespace, scope) = (store.clone(), namespace.clone(), scope.clone());
            Box::pin(async move { read_cluster(&store, &namespace, &scope, deadline).await })
        }),
        put: Arc::new(move |key, value, at| {
            let (store, key) = (writing.clone(), format!("{base}/{key}"));
            Box::pin(async move { put_key(&store, key, value, at, deadline).await })
        }),
    }
}

/// Writes `key`, a whole key, once: only while it was last changed `at` a revision (0: does not exist), if there is one.
pub async fn put_key(
    store: &EtcdStore,
    key: String,
    value: String,
    at: Option<Revision>,
    deadline: Duration,
) -> Outcome<()> {
    let guards = at.map(|at| Guard::ModRevision(key.clone(), at)).into_iter().collect();
    put_guarded(store, key, value, guards, deadline).await
}

/// Writes `key`, a whole key, once, if all guards hold.
pub async fn put_guarded(
    store: &EtcdStore,
    key: String,
    value: String,
    guards: Vec<Guard>,
    deadline: Duration,
) -> Outcome<()> {
    let transaction = Transaction {
        guards,
        operations: vec![Operation::Put { key, value: value.into_bytes(), lease: None }],
        ..Transaction::default()
    };
    match store.transact(transaction, deadline).await.outcome {
        Outcome::Done(_) => Outcome::Done(()),
        Outcome::Refused(refusal) => Outcome::Refused(refusal),
        Outcome::Unknown(why) => Outcome::Unknown(why),
    }
}

/// Reads the keys of `namespace/scope`, linearizably.
///
/// # Errors
/// The store did not answer in time; its words.
pub async fn read_cluster(
    store: &EtcdStore,
    namespace: &str,
    scope: &str,
    deadline: Duration,
) -> Result<ClusterRead, String> {
    let base = format!("{}/", keys::base(namespace, scope));
    let snapshot = match store.read_prefix(&base, deadline).await {
        Outcome::Done(snapshot) => snapshot,
        Outcome::Refused(refusal) => return Err(format!("the store refused to be read: {refusal:?}")),
        Outcome::Unknown(why) => return Err(format!("the store does not answer: {why}")),
    };
    let entries: Vec<RawEntry<'_>> = snapshot
        .entries
        .iter()
        .filter_map(|entry| {
            Some(RawEntry {
                key: entry.key.strip_prefix(&base)?,
                value: entry.text(),
                create_revision: entry.create_revision.0,
                mod_revision: entry.mod_revision.0,
                lease: entry.lease.0,
            })
        })
        .collect();
    let view = cluster_view(snapshot.store_id, snapshot.revision, &entries);
    Ok(ClusterRead::new(scope, view, &entries))
}

impl ClusterRead {
    /// What `entries` mean, of which `view` was made.
    pub fn new(scope: &str, view: ClusterView, entries: &[RawEntry<'_>]) -> Self {
        let text = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| entry.value);
        let object = |key: &str| serde_json::from_str(text(key)?).ok().filter(Value::is_object);
        Self {
            document: cluster_document(scope, &view, entries),
            config: object(keys::CONFIG),
            initialize: text(keys::INITIALIZE).map(str::to_owned),
            sync: object(keys::SYNC),
            view,
        }
    }
}
