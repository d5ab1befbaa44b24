//! The keys of the cluster as a stream of views: a read, then watches from there, again and again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use matriarch_core::op::Outcome;
use matriarch_core::time::{Instant, Seen};
use matriarch_core::view::store::ClusterView;
use tokio::sync::mpsc;

use crate::store::{EtcdStore, MirroredPrefix, Snapshot, WatchEvent};
use crate::wire::{RawEntry, cluster_view};

/// The copy of the cluster's keys that reads, transactions and watches keep together.
#[derive(Clone, Debug)]
pub struct Mirror {
    base: String,
    keys: Arc<Mutex<Kept>>,
}

/// The keys, and what they mean as of their revision: most reads find nothing new.
#[derive(Debug, Default)]
struct Kept {
    keys: MirroredPrefix,
    view: Option<ClusterView>,
}

impl Mirror {
    /// Of the keys under `base` (`/service/scope/`).
    pub fn new(base: &str) -> Self {
        Self { base: base.to_owned(), keys: Arc::default() }
    }

    /// Takes a snapshot in and tells the view as of the newest revision known.
    pub fn apply(&self, snapshot: &Snapshot) -> ClusterView {
        let mut kept = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        kept.keys.apply_snapshot(snapshot);
        self.view(&mut kept)
    }

    /// The store that the copy is of.
    pub fn store_id(&self) -> matriarch_core::id::StoreId {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).keys.store_id()
    }

    /// The text of a key, by its relative name, and its `mod_revision`.
    pub fn text(&self, key: &str) -> Option<(String, i64)> {
        let kept = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = kept.keys.entries().get(&format!("{}{key}", self.base))?;
        Some((entry.text().to_owned(), entry.mod_revision.0))
    }

    fn view(&self, kept: &mut Kept) -> ClusterView {
        let keys = &kept.keys;
        let current = |view: &&ClusterView| {
            (view.store, view.rollbacks, view.revision) == (keys.store_id(), keys.rollbacks(), keys.revision())
        };
        if let Some(view) = kept.view.as_ref().filter(current) {
            return view.clone();
        }
        let entries: Vec<RawEntry<'_>> = keys
            .entries()
            .values()
            .filter_map(|entry| {
                Some(RawEntry {
                    key: entry.key.strip_prefix(&self.base)?,
                    value: entry.text(),
                    create_revision: entry.create_revision.0,
                    mod_revision: entry.mod_revision.0,
                    lease: entry.lease.0,
                })
            })
            .collect();
        let view =
            ClusterView { rollbacks: keys.rollbacks(), ..cluster_view(keys.store_id(), keys.revision(), &entries) };
        kept.view = Some(view.clone());
        view
    }
}

/// What the feed tells.
pub enum Fed {
    /// The keys.
    View(Box<Seen<ClusterView>>),
    /// The store does not answer; for the log.
    Unreachable(String),
}

/// How long one read of the keys may take.
const READ_DEADLINE: Duration = Duration::from_secs(3);
/// The pause before a read that failed is tried again.
const AGAIN: Duration = Duration::from_millis(250);

/// Reads and watches until nobody listens. The channel is bounded: with the loop stuck, the watches wait.
pub async fn run(store: EtcdStore, mirror: Mirror, out: mpsc::Sender<Fed>) {
    loop {
        let snapshot = match store.read_prefix(&mirror.base, READ_DEADLINE).await {
            Outcome::Done(snapshot) => snapshot,
            Outcome::Refused(why) => {
                if unreachable(&out, format!("{why:?}")).await.is_err() {
                    return;
                }
                continue;
            }
            Outcome::Unknown(why) => {
                if unreachable(&out, why).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let view = mirror.apply(&snapshot);
        if out.send(Fed::View(Box::new(Seen::new(view, snapshot.asked, snapshot.heard)))).await.is_err() {
            return;
        }
        let next = matriarch_core::id::Revision(snapshot.revision.0 + 1);
        let mut events = store.watch(&mirror.base, next);
        while let Some(event) = events.recv().await {
            match event {
                WatchEvent::Changes { changes, heard, .. } => {
                    let view = {
                        let mut kept = mirror.keys.lock().unwrap_or_else(PoisonError::into_inner);
                        kept.keys.apply_changes(&changes);
                        mirror.view(&mut kept)
                    };
                    // Nothing was asked: the oldest instant that it may be true of is when it was heard.
                    let heard: Instant = heard.min(store.clock().now());
                    if out.send(Fed::View(Box::new(Seen::new(view, heard, heard)))).await.is_err() {
                        return;
                    }
                }
                WatchEvent::Lost { why } => {
                    tracing::info!(why, "the watch is begun anew");
                    break;
                }
            }
        }
    }
}

async fn unreachable(out: &mpsc::Sender<Fed>, why: String) -> Result<(), ()> {
    out.send(Fed::Unreachable(why)).await.map_err(drop)?;
    tokio::time::sleep(AGAIN).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use matriarch_core::id::{LeaseId, Revision, StoreId};
    use matriarch_core::time::Instant;

    use super::*;
    use crate::store::Entry;

    /// The bug: what is no UTF-8 looked absent, so that it was written in its place, guarded by its absence, in vain for
    /// ever; and a leader key with such a name nobody's, to be taken.
    #[test]
    fn a_value_that_is_no_text_is_there() {
        let entry = |name: &str, revision: i64| Entry {
            key: format!("/service/demo/{name}"),
            value: vec![b'n', 0xff],
            create_revision: Revision(revision),
            mod_revision: Revision(revision),
            version: 1,
            lease: LeaseId(0),
        };
        let mirror = Mirror::new("/service/demo/");
        let view = mirror.apply(&Snapshot {
            store_id: StoreId(1),
            rollbacks: 0,
            revision: Revision(9),
            raft_term: 1,
            entries: vec![entry("history", 5), entry("leader", 6), entry("members/n1", 7)],
            asked: Instant::ZERO,
            heard: Instant::ZERO,
        });
        assert_eq!((view.history.revision, view.history.lines.len()), (Revision(5), 0));
        assert_eq!(view.leader.map(|leader| leader.created), Some(Revision(6)));
        let revisions: Vec<_> = view.members.values().map(|member| member.revision).collect();
        assert_eq!(revisions, [Revision(7)]);
        assert_eq!(mirror.text("members/n1").map(|(_, revision)| revision), Some(7));
    }
}
