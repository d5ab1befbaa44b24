//! The latest changes, so that a watch can start in the past.

use std::collections::VecDeque;

use etcd_client::proto::PbEvent;

use super::query::KeyRange;

/// How many changes are kept, and how many bytes of keys and values in them.
const EVENTS_MAX: usize = 10_000;
const BYTES_MAX: usize = 16 << 20;

/// The changes of all revisions from [`History::oldest`] on.
#[derive(Debug)]
pub(super) struct History {
    oldest: i64,
    events: VecDeque<PbEvent>,
    bytes: usize,
}

impl History {
    /// A history that begins after `revision`.
    pub(super) fn after(revision: i64) -> Self {
        Self { oldest: revision + 1, events: VecDeque::new(), bytes: 0 }
    }

    /// The oldest revision whose changes are all here.
    pub(super) fn oldest(&self) -> i64 {
        self.oldest
    }

    /// Adds changes, and forgets the oldest revisions above the limits, each as a whole.
    pub(super) fn extend(&mut self, events: impl IntoIterator<Item = PbEvent>) {
        for event in events {
            self.bytes += bytes(&event);
            self.events.push_back(event);
        }
        while (self.events.len() > EVENTS_MAX || self.bytes > BYTES_MAX)
            && let Some(front) = self.events.front()
        {
            self.forget_before(revision(front) + 1);
        }
    }

    /// Forgets the changes before `oldest`.
    pub(super) fn forget_before(&mut self, oldest: i64) {
        self.oldest = self.oldest.max(oldest);
        while let Some(event) = self.events.pop_front_if(|event| revision(event) < self.oldest) {
            self.bytes -= bytes(&event);
        }
    }

    /// The changes of keys in `range` from revision `from` on.
    pub(super) fn select(&self, range: &KeyRange, from: i64) -> Vec<PbEvent> {
        let first = self.events.partition_point(|event| revision(event) < from);
        self.events.iter().skip(first).filter(|event| concerns(event, range)).cloned().collect()
    }
}

pub(super) fn revision(event: &PbEvent) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

fn bytes(event: &PbEvent) -> usize {
    [&event.kv, &event.prev_kv].into_iter().flatten().map(|kv| kv.key.len() + kv.value.len()).sum()
}

pub(super) fn concerns(event: &PbEvent, range: &KeyRange) -> bool {
    event.kv.as_ref().is_some_and(|kv| range.contains(&kv.key))
}

#[cfg(test)]
mod tests {
    use etcd_client::proto::PbKeyValue;

    use super::*;

    fn event(key: &str, mod_revision: i64) -> PbEvent {
        let kv = PbKeyValue { key: key.into(), mod_revision, ..PbKeyValue::default() };
        PbEvent { r#type: 0, kv: Some(kv), prev_kv: None }
    }

    #[test]
    fn selects_by_range_and_revision() {
        let mut history = History::after(1);
        history.extend([event("a", 2), event("b", 2), event("a/x", 3)]);
        let of = |range: &KeyRange, from| -> Vec<i64> { history.select(range, from).iter().map(revision).collect() };
        assert_eq!(of(&KeyRange::new(b"a", b"b"), 2), [2, 3]);
        assert_eq!(of(&KeyRange::new(b"a", b"b"), 3), [3]);
        assert_eq!(of(&KeyRange::new(b"a", b""), 2), [2]);
        assert_eq!(of(&KeyRange::new(b"a", &[0]), 2), [2, 2, 3]);
    }

    #[test]
    fn forgets_whole_revisions_only() {
        let mut history = History::after(0);
        history.extend([event("a", 1), event("b", 1)]);
        history.extend((2..=EVENTS_MAX as i64).map(|revision| event("a", revision)));
        assert_eq!(history.oldest(), 2, "both changes of revision 1 are gone");
        assert_eq!(history.events.len(), EVENTS_MAX - 1);
    }

    #[test]
    fn large_values_are_kept_in_smaller_numbers() {
        let mut history = History::after(0);
        let large = |mod_revision| {
            let PbEvent { kv, .. } = event("a", mod_revision);
            let kv = kv.map(|kv| PbKeyValue { value: vec![0; BYTES_MAX / 4], ..kv });
            PbEvent { r#type: 0, kv, prev_kv: None }
        };
        history.extend((1..=9).map(large));
        assert_eq!((history.oldest(), history.events.len()), (7, 3));
        history.forget_before(10);
        assert_eq!((history.bytes, history.events.len()), (0, 0));
    }
}
