//! A fresh read of the cluster's keys for people: the REST API's `/cluster` and the command line.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use matriarch_core::op::Outcome;
use matriarch_core::view::store::ClusterView;
use serde_json::Value;

use crate::store::EtcdStore;
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
                value: entry.text()?,
                create_revision: entry.create_revision.0,
                mod_revision: entry.mod_revision.0,
                lease: entry.lease.0,
            })
        })
        .collect();
    let view = cluster_view(snapshot.store_id, snapshot.revision, &entries);
    Ok(ClusterRead::new(scope, view, &entries))
}

/// A [`FreshRead`] of a store.
pub fn fresh_read(store: EtcdStore, namespace: String, scope: String, deadline: Duration) -> FreshRead {
    Arc::new(move || {
        let (store, namespace, scope) = (store.clone(), namespace.clone(), scope.clone());
        Box::pin(async move { read_cluster(&store, &namespace, &scope, deadline).await })
    })
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
