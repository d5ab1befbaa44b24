//! What a fault cost, from what clients were told: pure arithmetic over acknowledgements on one clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use matriarch_core::time::Instant;

/// A row whose commit a server acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ack {
    /// Index of the node that acknowledged.
    pub(super) node: usize,
    /// The timeline that it wrote on.
    pub(super) timeline: u32,
    /// The row.
    pub(super) id: i64,
    /// When the client sent it.
    pub(super) sent: Instant,
    /// When the client had the acknowledgement.
    pub(super) acked: Instant,
}

/// The longest time without any acknowledgement between `from` and the last one known. The row before `from` counts as
/// its begin: service was there until then.
pub(super) fn outage(acks: &[Ack], from: Instant) -> Duration {
    let mut at: Vec<Instant> = acks.iter().map(|ack| ack.acked).collect();
    at.sort_unstable();
    let first = at.partition_point(|acked| *acked <= from).saturating_sub(1);
    let window = at.get(first..).unwrap_or_default();
    window.iter().zip(window.iter().skip(1)).map(|(earlier, later)| later.since(*earlier)).max().unwrap_or_default()
}

/// For how long two nodes acknowledged beside each other: the longest common stretch of two reigns; `None` if there is
/// none, not even an instant. A reign is one node on one timeline, from its first acknowledgement to its last; a node
/// that leads again later does so on another timeline.
pub(super) fn overlap(acks: &[Ack]) -> Option<Duration> {
    let mut reigns: BTreeMap<(usize, u32), (Instant, Instant)> = BTreeMap::new();
    for ack in acks {
        let reign = reigns.entry((ack.node, ack.timeline)).or_insert((ack.acked, ack.acked));
        *reign = (reign.0.min(ack.acked), reign.1.max(ack.acked));
    }
    let mut longest = None;
    for (a, (a_first, a_last)) in &reigns {
        for (_, (b_first, b_last)) in reigns.range(a..).filter(|(b, _)| a.0 != b.0) {
            let (begin, end) = ((*a_first).max(*b_first), (*a_last).min(*b_last));
            if begin <= end {
                longest = longest.max(Some(end.since(begin)));
            }
        }
    }
    longest
}

/// Acknowledged rows that `present` does not hold.
pub(super) fn lost(acks: &[Ack], present: &BTreeSet<i64>) -> BTreeSet<i64> {
    acks.iter().map(|ack| ack.id).filter(|id| !present.contains(id)).collect()
}

/// The node of the first row acknowledged after `at` that was also sent after it.
pub(super) fn writing_since(acks: &[Ack], at: Instant) -> Option<usize> {
    acks.iter().find(|ack| ack.sent > at).map(|ack| ack.node)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Rows of one node on one timeline, acknowledged at these milliseconds.
    fn rows(node: usize, timeline: u32, at_ms: &[u64]) -> Vec<Ack> {
        let row = |at: &u64| Ack {
            node,
            timeline,
            id: i64::try_from(node as u64 * 1_000_000 + at).unwrap(),
            sent: Instant((at - 1) * MS),
            acked: Instant(at * MS),
        };
        at_ms.iter().map(row).collect()
    }

    #[test]
    fn an_outage_begins_with_the_last_row_before_the_fault() {
        let acks = [rows(0, 1, &[10, 15, 20]), rows(1, 2, &[500, 505])].concat();
        assert_eq!(outage(&acks, Instant(22 * MS)), Duration::from_millis(480));
    }

    #[test]
    fn what_was_before_the_fault_is_no_part_of_its_outage() {
        let acks = rows(0, 1, &[10, 900, 905, 925]);
        assert_eq!(outage(&acks, Instant(901 * MS)), Duration::from_millis(20));
    }

    #[test]
    fn rows_that_were_under_way_at_the_fault_end_later() {
        let acks = [rows(0, 1, &[20, 30]), rows(1, 2, &[200])].concat();
        assert_eq!(outage(&acks, Instant(25 * MS)), Duration::from_millis(170));
        assert_eq!(outage(&[], Instant(25 * MS)), Duration::ZERO);
    }

    #[test]
    fn reigns_one_after_the_other_do_not_overlap() {
        let acks = [rows(0, 1, &[10, 20]), rows(1, 2, &[21, 30]), rows(0, 3, &[40, 50])].concat();
        assert_eq!(overlap(&acks), None);
    }

    #[test]
    fn a_frozen_primary_that_writes_on_overlaps() {
        let acks = [rows(0, 1, &[10, 20, 90]), rows(1, 2, &[60, 70, 120])].concat();
        assert_eq!(overlap(&acks), Some(Duration::from_millis(30)));
        // The order in which they were noted does not matter.
        let other_way = [rows(1, 2, &[60, 70, 120]), rows(0, 1, &[10, 20, 90])].concat();
        assert_eq!(overlap(&other_way), Some(Duration::from_millis(30)));
    }

    #[test]
    fn one_row_amid_anothers_reign_is_an_overlap() {
        let acks = [rows(0, 1, &[10, 90]), rows(1, 2, &[60])].concat();
        assert_eq!(overlap(&acks), Some(Duration::ZERO));
    }

    #[test]
    fn two_nodes_on_one_timeline_overlap_too() {
        let acks = [rows(0, 2, &[10, 30]), rows(2, 2, &[20, 40])].concat();
        assert_eq!(overlap(&acks), Some(Duration::from_millis(10)));
    }

    #[test]
    fn a_row_is_lost_if_it_was_acknowledged_and_is_not_there() {
        let acks = rows(0, 1, &[10, 20, 30]);
        let present = BTreeSet::from([10, 30, 77]);
        assert_eq!(lost(&acks, &present), BTreeSet::from([20]));
    }

    #[test]
    fn writes_flow_again_with_a_row_sent_after_the_fault() {
        let acks = [rows(0, 1, &[10, 20]), rows(1, 2, &[50])].concat();
        // Acknowledged at 20, but sent at 19.
        assert_eq!(writing_since(&acks, Instant(19 * MS)), Some(1));
        assert_eq!(writing_since(&acks, Instant(60 * MS)), None);
    }
}
