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
//! - `epoch`: the `create_revision` of the leader key. Left out by the transaction that creates the leader key, since
//!   nobody knows the revision of a transaction before it is applied; the `mod_revision` of this key is the same number
//!   then. Anything that writes this key beside a leader key that exists already has to name it.

use matriarch_core::id::{Lsn, Member, Revision, StoreId, Timeline};
use matriarch_core::view::store::EpochRecord;
use serde_json::{Map, Value};

use super::lenient;

/// The value of `matriarch`. `epoch` only where the leader key was not created by the same transaction.
pub fn epoch_json(
    store: StoreId,
    member: &Member,
    timeline: Timeline,
    position: Lsn,
    newest_timeline: Timeline,
    epoch: Option<Revision>,
) -> String {
    let mut record = Map::new();
    record.insert("store_id".to_owned(), store.to_string().into());
    record.insert("name".to_owned(), member.as_str().into());
    record.insert("timeline".to_owned(), timeline.0.into());
    record.insert("lsn".to_owned(), position.0.into());
    record.insert("newest_timeline".to_owned(), newest_timeline.0.into());
    if let Some(epoch) = epoch {
        record.insert("epoch".to_owned(), epoch.0.into());
    }
    Value::Object(record).to_string()
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
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_documented_form() {
        let store = StoreId(14_841_639_068_965_178_418);
        let json = |epoch| epoch_json(store, &Member::new("n1"), Timeline(2), Lsn(67_417_056), Timeline(3), epoch);
        let text = r#"{"store_id":"14841639068965178418","name":"n1","timeline":2,"lsn":67417056,"newest_timeline":3}"#;
        assert_eq!(json(None), text);
        assert_eq!(json(Some(Revision(9))), text.replace('}', r#","epoch":9}"#));
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
            store: u64, name: String, timeline: u32, lsn: u64, newest: u32, epoch: Option<i64>
        ) {
            let member = Member(name);
            let (store, timeline, position) = (StoreId(store), Timeline(timeline), Lsn(lsn));
            let (revision, newest_timeline) = (Revision(41), Timeline(newest));
            let text = epoch_json(store, &member, timeline, position, newest_timeline, epoch.map(Revision));
            let epoch = epoch.map_or(revision, Revision);
            let expected = EpochRecord { revision, store, epoch, member, timeline, position, newest_timeline };
            prop_assert_eq!(epoch_record(Revision(41), &text), expected);
        }
    }
}
