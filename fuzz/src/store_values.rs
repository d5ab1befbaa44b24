//! What anybody may have written into the store: every reading is tolerant, and what was read is the same after this
//! program has written it.

use matriarch::wire::{
    MemberExtras, PATRONI_LEVEL, RawEntry, cluster_document, cluster_view, epoch, epoch_json, failover, failover_json,
    history, history_json, member, member_json, status, status_json,
};
use matriarch_core::action::Status;
use matriarch_core::id::{Revision, StoreId};
use matriarch_core::view::store::EpochRecord;
use serde_json::Value;

use crate::input::texts;

/// The target: keys and values in turn.
pub fn target(data: &[u8]) -> String {
    let Some(texts) = texts(data) else { return "no text".into() };
    let pairs: Vec<_> = texts.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    for (_, value) in &pairs {
        written_again(value);
    }
    let entries: Vec<_> = (1..).zip(&pairs).map(|(number, (key, value))| entry(key, value, number)).collect();
    let view = cluster_view(StoreId(1), Revision(99), &entries);
    for member in view.members.keys() {
        let key = format!("members/{member}");
        assert!(entries.iter().any(|entry| entry.key == key), "{member} is made up");
    }
    assert_eq!(
        view.leader.is_some(),
        entries.iter().any(|entry| entry.key == "leader"),
        "the leader key is there or not"
    );
    assert_eq!(view.epoch.is_some(), entries.iter().any(|entry| entry.key == "matriarch"));
    let document = cluster_document("main", &view, &entries);
    let shown = document.get("members").and_then(Value::as_array).map(Vec::len);
    assert_eq!(shown, Some(view.members.len()), "{document}");
    format!(
        "{} keys, {} members, {} of them with an address, {} that pledge; leader: {}, epoch: {}, request: {}, {} lines of history",
        entries.len(),
        view.members.len(),
        view.members.values().filter(|key| !key.record.host.is_empty()).count(),
        view.members.values().filter(|key| key.record.pledges).count(),
        view.leader.is_some(),
        view.epoch.is_some(),
        view.failover.is_some(),
        view.history.lines.len(),
    )
}

fn entry<'a>(key: &'a str, value: &'a str, number: i64) -> RawEntry<'a> {
    RawEntry { key, value, create_revision: number, mod_revision: number, lease: number % 3 }
}

fn written_again(value: &str) {
    let read = status::status_key(Revision(3), value);
    let (slots, retain) = (read.slots.clone().into_iter().collect(), read.retain.clone());
    let text = status_json(&Status { position: read.optime, timeline: read.timeline, slots, retain });
    assert_eq!(status::status_key(Revision(3), &text), read, "{value}");

    if let Some(lines) = history::history_lines(value) {
        assert_eq!(history::history_lines(&history_json(&lines)), Some(lines), "{value}");
    }

    if let Some(asked) = failover::request(value) {
        let at = asked.scheduled_at.as_ref().map(|moment| moment.text.as_str());
        let key = failover_json(asked.leader.as_ref(), asked.candidate.as_ref(), at);
        assert_eq!(failover::request(&key), Some(asked), "{value}");
    }

    let tenure = epoch::epoch_record(Revision(3), value);
    let key = epoch_json(&tenure);
    // An epoch of 0 is not written: the revision stands for it.
    let epoch = if tenure.epoch == Revision(0) { Revision(3) } else { tenure.epoch };
    let again = epoch::epoch_record(Revision(3), &key);
    assert_eq!(again, EpochRecord { epoch, ..tenure }, "{value}");

    member_again(value);
}

/// Writing leaves out what does not fit a role, and what tags mean comes from the tags: the second reading of what was
/// read and written is the first.
fn member_again(value: &str) {
    let told: Value = serde_json::from_str(value).unwrap_or_default();
    let tags = told.get("tags").and_then(Value::as_object).cloned().unwrap_or_default();
    let extras = MemberExtras { tags: &tags, version: PATRONI_LEVEL, database: "postgres", proxy_address: None };
    let once = member::member_record(&member_json(&member::member_record(value), &extras));
    let twice = member::member_record(&member_json(&once, &extras));
    assert_eq!(once, twice, "{value}");
    let read = member::member_record(value);
    // It becomes part of a line in PostgreSQL's files.
    assert!(!read.host.contains(|c: char| c.is_whitespace() || c.is_control()), "{:?}", read.host);
    // A host with half a pair of brackets is none.
    assert!(once.host == read.host || read.host.contains(['[', ']']), "{value}");
    assert_eq!((once.role, once.nofailover), (read.role, read.nofailover), "{value}");
}
