//! A copy of a prefix, kept by snapshots and watch events.

use std::collections::BTreeMap;

use matriarch_core::id::{Revision, StoreId};

use super::watch::Change;
use super::{Entry, Snapshot};

/// What is known of a prefix: the entries as of a revision of one store. Whatever is not newer is ignored, so snapshots
/// and changes may come twice, late, and from several members.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MirroredPrefix {
    store_id: StoreId,
    rollbacks: u64,
    revision: Revision,
    entries: BTreeMap<String, Entry>,
}

impl MirroredPrefix {
    /// The store that the copy is of.
    pub fn store_id(&self) -> StoreId {
        self.store_id
    }

    /// How often that store had gone back.
    pub fn rollbacks(&self) -> u64 {
        self.rollbacks
    }

    /// The revision that the copy is at; a watch that continues it starts one later.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The entries by key.
    pub fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// Takes over a snapshot. `false` if it is older than the copy and so was ignored; one of another store, or of this
    /// one after it went back, replaces the copy whatever its revision.
    pub fn apply_snapshot(&mut self, snapshot: &Snapshot) -> bool {
        let same = snapshot.store_id == self.store_id;
        if same && (snapshot.rollbacks, snapshot.revision) < (self.rollbacks, self.revision) {
            return false;
        }
        self.store_id = snapshot.store_id;
        self.rollbacks = snapshot.rollbacks;
        self.revision = snapshot.revision;
        self.entries = snapshot.entries.iter().map(|entry| (entry.key.clone(), entry.clone())).collect();
        true
    }

    /// Applies changes of this store, ordered by revision. `false` if none was newer than the copy.
    pub fn apply_changes(&mut self, changes: &[Change]) -> bool {
        // Several changes may share a revision, so each is held against the revision before the first.
        let before = self.revision;
        for change in changes.iter().filter(|change| change.mod_revision() > before) {
            self.revision = self.revision.max(change.mod_revision());
            match change {
                Change::Put(entry) => self.entries.insert(entry.key.clone(), entry.clone()),
                Change::Delete { key, .. } => self.entries.remove(key),
            };
        }
        self.revision > before
    }
}

#[cfg(test)]
mod tests {
    use matriarch_core::id::LeaseId;
    use matriarch_core::time::Instant;
    use proptest::prelude::*;

    use super::*;

    fn put(key: &str, revision: i64) -> Change {
        Change::Put(Entry {
            key: key.to_owned(),
            value: revision.to_string().into_bytes(),
            create_revision: Revision(revision),
            mod_revision: Revision(revision),
            version: 1,
            lease: LeaseId(0),
        })
    }

    /// One batch of changes a revision, from revision 1.
    fn history() -> impl Strategy<Value = Vec<Vec<Change>>> {
        let step = proptest::collection::btree_map("[a-d]", any::<bool>(), 1..4);
        proptest::collection::vec(step, 1..30).prop_map(|steps| {
            let change = |revision: i64, (key, is_put): (String, bool)| {
                if is_put { put(&key, revision) } else { Change::Delete { key, mod_revision: Revision(revision) } }
            };
            let batch = |(n, step): (usize, BTreeMap<String, bool>)| {
                step.into_iter().map(|item| change(n as i64 + 1, item)).collect()
            };
            steps.into_iter().enumerate().map(batch).collect()
        })
    }

    fn replay(batches: &[Vec<Change>]) -> BTreeMap<String, Entry> {
        let mut entries = BTreeMap::new();
        for change in batches.iter().flatten() {
            match change {
                Change::Put(entry) => entries.insert(entry.key.clone(), entry.clone()),
                Change::Delete { key, .. } => entries.remove(key),
            };
        }
        entries
    }

    fn snapshot(batches: &[Vec<Change>], revision: usize) -> Snapshot {
        Snapshot {
            store_id: StoreId(7),
            rollbacks: 0,
            revision: Revision(revision as i64),
            raft_term: 1,
            entries: replay(&batches[..revision]).into_values().collect(),
            asked: Instant::ZERO,
            heard: Instant::ZERO,
        }
    }

    proptest! {
        /// However often old snapshots and old changes come in between, the copy equals a naive replay.
        #[test]
        fn equals_a_naive_replay(
            batches in history(),
            noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..40),
        ) {
            let mut mirror = MirroredPrefix::default();
            prop_assert!(mirror.apply_snapshot(&snapshot(&batches, 0)));
            let mut noise = noise.into_iter();
            for now in 1..=batches.len() {
                if let Some((index, as_snapshot)) = noise.next() {
                    let old = index.index(now);
                    let before = mirror.clone();
                    if as_snapshot {
                        mirror.apply_snapshot(&snapshot(&batches, old));
                    } else {
                        prop_assert!(!mirror.apply_changes(&batches[..old].concat()));
                    }
                    prop_assert_eq!(&before, &mirror);
                }
                prop_assert!(mirror.apply_changes(&batches[now - 1]));
                prop_assert_eq!(mirror.revision(), Revision(now as i64));
                prop_assert_eq!(mirror.entries(), &replay(&batches[..now]));
            }
        }
    }

    /// A store that was restored unseen may have come to it by another write.
    #[test]
    fn what_is_read_at_the_same_revision_counts() {
        let known = vec![vec![put("config", 1)]];
        let another = vec![vec![put("members/a", 1)]];
        let mut mirror = MirroredPrefix::default();
        assert!(mirror.apply_snapshot(&snapshot(&known, 1)) && mirror.apply_snapshot(&snapshot(&another, 1)));
        assert_eq!(mirror.entries(), &replay(&another));
        assert!(!mirror.apply_changes(&known.concat()), "a change is no newer than that");
    }

    #[test]
    fn another_store_replaces_the_copy_even_at_a_lower_revision() {
        let mut mirror = MirroredPrefix::default();
        let batches: Vec<Vec<Change>> = (1..=9).map(|n| vec![put("a", n)]).collect();
        mirror.apply_snapshot(&snapshot(&batches, 9));
        let other = Snapshot { store_id: StoreId(8), ..snapshot(&batches, 2) };
        assert!(mirror.apply_snapshot(&other));
        assert_eq!((mirror.store_id(), mirror.revision()), (StoreId(8), Revision(2)));
        let restored = Snapshot { rollbacks: 1, ..other.clone() };
        assert!(mirror.apply_snapshot(&Snapshot { revision: Revision(5), ..other.clone() }));
        assert!(mirror.apply_snapshot(&restored), "the same store, after it went back");
        assert!(!mirror.apply_snapshot(&Snapshot { revision: Revision(9), ..other }), "from before it went back");
    }
}
