//! S13: a timeline is begun by one promotion only.
//!
//! This does not hold today: PostgreSQL counts from what it has seen, and two nodes can begin timelines of one number
//! (`docs/simulator.md`). Until core prevents that it is counted, and told by the swarm.

use matriarch_core::id::Timeline;

use crate::node::NodeId;
use crate::postgres::wal::Place;
use crate::world::World;

/// That it does not hold is a violation.
const HOLDS: bool = false;

impl World {
    /// A server was promoted.
    pub fn note_timeline(&mut self, node: NodeId) {
        let Some(end) = self.nodes[node.0].server.cluster().map(|on_disk| on_disk.end) else { return };
        if let Some(begun) = self.wal.origin(end) {
            self.check_timeline(self.wal.timeline(end), begun);
        }
    }

    fn check_timeline(&mut self, timeline: Timeline, begun: Place) {
        let known = *self.checks.begun.entry(timeline).or_insert(begun);
        if known == begun {
            return;
        }
        self.coverage.count("timeline begun twice");
        if HOLDS {
            self.violated("S13", format!("timeline {timeline} is begun again"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_timeline_that_is_begun_twice() {
        let begun = |later: u64| {
            let mut world = steady();
            let node = leader(&world);
            let end = on_disk(&mut world, node).end;
            world.check_timeline(Timeline(7), end);
            world.check_timeline(Timeline(7 + later as u32), Place { depth: end.depth - 1, ..end });
            world.coverage.of("timeline begun twice")
        };
        assert_eq!(begun(0), 1);
        assert_eq!(begun(1), 0);
    }
}
