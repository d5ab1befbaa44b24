//! `matriarch`: who led last, under which epoch, and where that began. Our own key, which Patroni ignores.
//!
//! ```text
//! {"store_id":"14841639068965178418","name":"n1","timeline":2,"lsn":67417056,"newest_timeline":3}
//! ```
//! - `store_id`: the identity of the store that it was written to, in decimal digits. A string, since it needs 64 bits
//!   and many readers of JSON keep 53. A record under another identity came with a restored or copied store.
//! - `name`, `timeline`, `lsn`: the member, and its timeline and position when it took the leader key.
//! - `newest_timeline`: the greatest number that a timeline has, or may get under this tenure: reserved, so that no two
//!   promotions begin timelines of one number.
//! - `unguarded`: true while the cluster is paused and that member's primary may write without its tenure, with no guard
//!   that ends it. Left out otherwise.
//! - `epoch`: the `create_revision` of the leader key. Left out by the transaction that creates the leader key, since
//!   nobody knows the revision of a transaction before it is applied; the `mod_revision` of this key is the same number
//!   then. Anything that writes this key beside a leader key that exists already has to name it.

use matriarch_core::id::{Lsn, Member, Revision, StoreId, Timeline};
use matriarch_core::view::store::EpochRecord;
use serde_json::{Map, Value};

use super::lenient;

/// The value of `matriarch`. Its epoch is written unless it is 0: where the same transaction creates the leader key.
pub fn epoch_json(record: &EpochRecord) -> String {
    let mut json = Map::new();
    json.insert("store_id".to_owned(), record.store.to_string().into());
    json.insert("name".to_owned(), record.member.as_str().into());
    json.insert("timeline".to_owned(), record.timeline.0.into());
    json.insert("lsn".to_owned(), record.position.0.into());
    json.insert("newest_timeline".to_owned(), record.newest_timeline.0.into());
    if record.unguarded {
        json.insert("unguarded".to_owned(), true.into());
    }
    if record.epoch != Revision(0) {
        json.insert("epoch".to_owned(), record.epoch.0.into());
    }
    Value::Object(json).to_string()
}

/// Reads `matriarch`. A key that is there always gives a record, with 0 and no name for what cannot be read: the leader
/// key is taken by a transaction that compares the revision of this key, so a broken value that looked absent would
/// forbid every election for good.
pub fn epoch_record(modified: Revision, text: &str) -> EpochRecord {
    let record = lenient::object(text).unwrap_or_default();
    let timeline = |key| Timeline(u32::try_from(lenient::unsigned_at(&record, key)).unwrap_or_default());
    EpochRecord {
        revision: modified,
        store: StoreId(lenient::unsigned_at(&record, "store_id")),
        epoch: record.get("epoch").and_then(Value::as_i64).map_or(modified, Revision),
        member: Member::new(lenient::text_at(&record, "name")),
        timeline: timeline("timeline"),
        position: Lsn(lenient::unsigned_at(&record, "lsn")),
        newest_timeline: timeline("newest_timeline"),
        unguarded: record.get("unguarded").is_some_and(lenient::truthy),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_documented_form() {
        let store = StoreId(14_841_639_068_965_178_418);
        let record = EpochRecord {
            revision: Revision(0),
            store,
            epoch: Revision(0),
            member: Member::new("n1"),
            timeline: Timeline(2),
            position: Lsn(67_417_056),
            newest_timeline: Timeline(3),
            unguarded: false,
        };
        let text = r#"{"store_id":"14841639068965178418","name":"n1","timeline":2,"lsn":67417056,"newest_timeline":3}"#;
        assert_eq!(epoch_json(&record), text);
        let of_epoch = EpochRecord { epoch: Revision(9), unguarded: true, ..record };
        assert_eq!(epoch_json(&of_epoch), text.replace('}', r#","unguarded":true,"epoch":9}"#));
    }

    #[test]
    fn a_broken_record_keeps_its_revision() {
        for text in ["", "nonsense", "[]", r#"{"timeline":-1,"lsn":"x","store_id":{}}"#] {
            let record = epoch_record(Revision(12), text);
            assert_eq!((record.revision, record.epoch), (Revision(12), Revision(12)));
            assert_eq!((record.member, record.timeline, record.position), (Member::new(""), Timeline(0), Lsn(0)));
        }
    }

    proptest! {
        #[test]
        fn read_back_as_written(
            store: u64, name: String, timeline: u32, lsn: u64, newest: u32, epoch: i64, unguarded: bool
        ) {
            let member = Member(name);
            let (store, timeline, position) = (StoreId(store), Timeline(timeline), Lsn(lsn));
            let (revision, newest_timeline) = (Revision(41), Timeline(newest));
            let written = Revision(epoch);
            let record =
                EpochRecord { revision, store, epoch: written, member, timeline, position, newest_timeline, unguarded };
            let text = epoch_json(&record);
            let epoch = if epoch == 0 { revision } else { written };
            let expected = EpochRecord { epoch, ..record };
            prop_assert_eq!(epoch_record(Revision(41), &text), expected);
        }
    }
}
