//! S13: no two promotions begin timelines of one number, but where what was reserved was lost with the store's keys. What
//! an operator begins by hand is not reserved: PostgreSQL counts from what it has seen.

use matriarch_core::action::PostgresAction;
use matriarch_core::id::Timeline;

use crate::node::NodeId;
use crate::postgres::wal::Place;
use crate::world::World;

impl World {
    /// Which numbers were reserved for timelines is not known any more, not even those of promotions under way.
    pub fn forget_reserved(&mut self) {
        let begun = std::mem::take(&mut self.checks.begun);
        self.checks.forgotten.extend(begun);
        let promotes = |node: &&NodeId| {
            let jobs = self.nodes[node.0].agent.iter().flat_map(|agent| agent.jobs.values());
            jobs.into_iter().any(|job| matches!(job.action, PostgresAction::Promote { .. }))
        };
        let all: Vec<NodeId> = (0..self.nodes.len()).map(NodeId).collect();
        self.checks.unreserved = all.iter().filter(promotes).copied().collect();
    }

    /// A server was promoted.
    pub fn note_timeline(&mut self, node: NodeId) {
        let Some(end) = self.nodes[node.0].server.cluster().map(|on_disk| on_disk.end) else { return };
        let reserved = !self.checks.unreserved.remove(&node) && self.checks.by_hand[node.0].is_none();
        let timeline = self.wal.timeline(end);
        if self.checks.forgotten.contains_key(&timeline) {
            self.checks.reused.push(end);
        }
        if let Some(begun) = self.wal.origin(end).filter(|_| reserved) {
            self.check_timeline(timeline, begun);
        }
    }

    fn check_timeline(&mut self, timeline: Timeline, begun: Place) {
        let known = *self.checks.begun.entry(timeline).or_insert(begun);
        if known == begun {
            return;
        }
        self.violated("S13", format!("timeline {timeline} is begun again"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_timeline_that_is_begun_twice() {
        let begun = |later: u32, forgotten: bool| {
            broken(move |world| {
                let node = leader(world);
                let end = on_disk(world, node).end;
                world.check_timeline(Timeline(7), end);
                if forgotten {
                    world.forget_reserved();
                }
                world.check_timeline(Timeline(7 + later), Place { depth: end.depth - 1, ..end });
            })
        };
        assert_eq!(begun(0, false), Some("S13"));
        assert_eq!(begun(1, false), None);
        assert_eq!(begun(0, true), None, "the store was restored, and what was reserved since then is not known");
    }

    #[test]
    fn a_timeline_that_an_operator_begins() {
        let begun = |by_hand: bool| {
            broken(move |world| {
                let node = leader(world);
                let end = on_disk(world, node).end;
                let fork = world.wal.fork(end, Timeline(7));
                on_disk(world, node).end = world.wal.append(fork, crate::postgres::wal::Record::EndOfRecovery);
                world.check_timeline(Timeline(7), Place { depth: end.depth - 1, ..end });
                world.checks.by_hand[node.0] = by_hand.then_some(world.now);
                world.note_timeline(node);
            })
        };
        assert_eq!(begun(false), Some("S13"));
        assert_eq!(begun(true), None);
    }
}
