//! The copy of the cluster's keys, kept from what two watches tell, each late in its own way.

use std::collections::BTreeMap;

use matriarch::store::{Change, Entry, MirroredPrefix, Snapshot};
use matriarch_core::id::{LeaseId, Revision, StoreId};

use crate::input::read;

/// One change: whether the revision grows, the key, whether it is deleted, the value.
type Written<'a> = (bool, u8, bool, &'a [u8]);
/// Changes; where the snapshot stands in them; for each delivery which watch and how many changes.
type Input<'a> = (Vec<Written<'a>>, u8, Vec<(bool, u8)>);

/// The target.
pub fn target(data: &[u8]) -> String {
    let Some((written, snapshot_at, deliveries)) = read::<Input<'_>>(data) else { return "no log".into() };
    let log = log(&written);
    // A snapshot holds whole revisions.
    let snapshot_at = usize::from(snapshot_at) % (log.len() + 1);
    let known = log.get(snapshot_at.wrapping_sub(1)).map_or(Revision(0), Change::mod_revision);
    let mut mirror = MirroredPrefix::default();
    let snapshot = snapshot(&log, known);
    assert!(mirror.apply_snapshot(&snapshot));
    let mut told = [0_usize; 2];
    let mut heard = 0;
    for (which, count) in deliveries {
        let from = told[usize::from(which)];
        let mut to = (from + usize::from(count)).min(log.len());
        // What a watch tells ends with a whole revision.
        while to > from && to < log.len() && log[to].mod_revision() == log[to - 1].mod_revision() {
            to += 1;
        }
        told[usize::from(which)] = to;
        let before = mirror.clone();
        let news = mirror.apply_changes(&log[from..to]);
        assert_eq!(news, mirror.revision() > before.revision(), "news without a later revision");
        assert!(news || mirror == before, "no news, and yet it changed");
        heard += usize::from(news);
        let mut again = mirror.clone();
        assert!(!again.apply_changes(&log[from..to]) && again == mirror, "the same twice is news");
        assert_eq!(*mirror.entries(), entries(&log, mirror.revision()), "not what the store holds");
    }
    assert!(mirror.revision() <= known || !mirror.apply_snapshot(&snapshot), "an older snapshot is taken over");
    format!("a log of {} changes, news {heard} times, {} keys", log.len(), mirror.entries().len())
}

fn log(written: &[Written<'_>]) -> Vec<Change> {
    let mut revision = 0;
    let mut keys = std::collections::BTreeSet::new();
    let mut log = Vec::new();
    for (grows, key, delete, value) in written {
        // A transaction writes a key once.
        if *grows || revision == 0 || !keys.insert(*key) {
            revision += 1;
            keys.clear();
            keys.insert(*key);
        }
        let (name, mod_revision) = (format!("/service/s/{key}"), Revision(revision));
        log.push(if *delete {
            Change::Delete { key: name, mod_revision }
        } else {
            let (value, version) = (value.to_vec(), 1);
            let (create_revision, lease) = (mod_revision, LeaseId(0));
            Change::Put(Entry { key: name, value, create_revision, mod_revision, version, lease })
        });
    }
    log
}

/// What the store holds at a revision.
fn entries(log: &[Change], at: Revision) -> BTreeMap<String, Entry> {
    let mut entries = BTreeMap::new();
    for change in log.iter().take_while(|change| change.mod_revision() <= at) {
        match change {
            Change::Put(entry) => entries.insert(entry.key.clone(), entry.clone()),
            Change::Delete { key, .. } => entries.remove(key),
        };
    }
    entries
}

fn snapshot(log: &[Change], revision: Revision) -> Snapshot {
    let entries = entries(log, revision).into_values().collect();
    let (asked, heard) = Default::default();
    Snapshot { store_id: StoreId(7), rollbacks: 0, revision, raft_term: 1, entries, asked, heard }
}
