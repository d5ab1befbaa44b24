//! `status`: the leader's last published position, and the slots.

use std::collections::BTreeMap;

use matriarch_core::action::Status;
use matriarch_core::id::{Lsn, Revision, Timeline};
use matriarch_core::view::store::StatusKey;
use serde_json::{Map, Value};

use super::lenient;

/// The value of `status`. `timeline` is ours, Patroni neither writes nor reads it: the timeline of the position, left out
/// where it is not known (0). `slots` and `retain_slots` are left out when empty; slots keep the order that is given.
pub fn status_json(told: &Status) -> String {
    let mut status = Map::new();
    status.insert("optime".to_owned(), told.position.0.into());
    if told.timeline > Timeline(0) {
        status.insert("timeline".to_owned(), told.timeline.0.into());
    }
    if !told.slots.is_empty() {
        let slots: Map<_, _> = told.slots.iter().map(|(name, position)| (name.clone(), position.0.into())).collect();
        status.insert("slots".to_owned(), Value::Object(slots));
    }
    if !told.retain.is_empty() {
        status.insert("retain_slots".to_owned(), told.retain.as_slice().into());
    }
    Value::Object(status).to_string()
}

/// Reads `status`. Each of its parts is tolerated by itself; a bare number is the position alone.
pub fn status_key(revision: Revision, text: &str) -> StatusKey {
    let mut status = StatusKey { revision, ..StatusKey::default() };
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => {
            status.optime = Lsn(lenient::unsigned_at(&object, "optime"));
            status.timeline = Timeline(u32::try_from(lenient::unsigned_at(&object, "timeline")).unwrap_or_default());
            status.slots = slots(&object);
            status.retain = retain(&object);
        }
        Ok(value) => status.optime = Lsn(lenient::unsigned(&value).unwrap_or_default()),
        Err(_) => {}
    }
    status
}

/// Reads `optime/leader`: decimal digits.
pub fn legacy_optime(text: &str) -> Option<Lsn> {
    text.trim().parse().ok().map(Lsn)
}

fn slots(status: &Map<String, Value>) -> BTreeMap<String, Lsn> {
    let Some(Value::Object(slots)) = status.get("slots").map(decoded) else {
        return BTreeMap::new();
    };
    slots.into_iter().filter_map(|(name, position)| Some((name, Lsn(lenient::unsigned(&position)?)))).collect()
}

fn retain(status: &Map<String, Value>) -> Vec<String> {
    let Some(Value::Array(names)) = status.get("retain_slots").map(decoded) else {
        return Vec::new();
    };
    names.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Stores that hold only strings (annotations of Kubernetes) hold the parts as JSON within a string.
fn decoded(value: &Value) -> Value {
    match value {
        Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slots(slots: &[(&str, u64)]) -> Vec<(String, Lsn)> {
        slots.iter().map(|&(name, position)| (name.to_owned(), Lsn(position))).collect()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn json(position: u64, timeline: u32, slots: Vec<(String, Lsn)>, retain: Vec<String>) -> String {
        status_json(&Status { position: Lsn(position), timeline: Timeline(timeline), slots, retain })
    }

    #[test]
    fn written_as_patroni_writes_it() {
        assert_eq!(
            json(24_389_320, 0, slots(&[("n1", 24_389_320)]), names(&["n1"])),
            r#"{"optime":24389320,"slots":{"n1":24389320},"retain_slots":["n1"]}"#
        );
        let later = slots(&[("n2", 67_416_760), ("n3", 67_416_760), ("n1", 67_416_936)]);
        assert_eq!(
            json(67_416_936, 0, later, names(&["n1", "n2", "n3"])),
            concat!(
                r#"{"optime":67416936,"slots":{"n2":67416760,"n3":67416760,"n1":67416936},"#,
                r#""retain_slots":["n1","n2","n3"]}"#
            )
        );
        assert_eq!(json(5, 0, vec![], vec![]), r#"{"optime":5}"#);
        assert_eq!(json(5, 2, vec![], vec![]), r#"{"optime":5,"timeline":2}"#);
    }

    #[test]
    fn each_malformed_part_is_tolerated_by_itself() {
        let read = |text| status_key(Revision(7), text);
        let status = read(r#"{"optime":"x","slots":{"a":1,"b":null,"c":-1,"d":"4"},"retain_slots":["a",1]}"#);
        assert_eq!(status.revision, Revision(7));
        assert_eq!(status.optime, Lsn(0));
        assert_eq!(status.slots, BTreeMap::from([("a".to_owned(), Lsn(1)), ("d".to_owned(), Lsn(4))]));
        assert_eq!(status.retain, names(&["a"]));

        let status = read(r#"{"optime":9,"slots":[1],"retain_slots":"nonsense"}"#);
        assert_eq!((status.optime, status.slots.len(), status.retain.len()), (Lsn(9), 0, 0));

        let status = read(r#"{"optime":"9","slots":"{\"a\":1}","retain_slots":"[\"a\"]"}"#);
        assert_eq!((status.optime, status.slots.get("a"), status.retain), (Lsn(9), Some(&Lsn(1)), names(&["a"])));

        assert_eq!(read("67108960").optime, Lsn(67_108_960));
        assert_eq!(read("nonsense"), StatusKey { revision: Revision(7), ..StatusKey::default() });
    }

    proptest! {
        #[test]
        fn read_back_as_written(
            optime: u64,
            timeline: u32,
            slots in prop::collection::btree_map(".*", any::<u64>().prop_map(Lsn), 0..4),
            retain in prop::collection::vec(".*", 0..4),
        ) {
            let listed: Vec<_> = slots.clone().into_iter().collect();
            let text = json(optime, timeline, listed, retain.clone());
            let expected = StatusKey { revision: Revision(3), optime: Lsn(optime), timeline: Timeline(timeline), slots, retain };
            prop_assert_eq!(status_key(Revision(3), &text), expected);
        }
    }
}
