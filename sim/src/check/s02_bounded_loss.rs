//! S2: a failover gives up no more than `maximum_lag_on_failover` of what was published.

use crate::node::{Node, NodeId};
use crate::postgres::wal::Place;
use crate::world::World;

impl World {
    /// Another server serves: what was published is there, or as much of it as must be.
    pub(super) fn check_loss(&mut self, node: NodeId, mine: Place) {
        if let Some(place) = self.checks.published {
            let shared = self.wal.shared(mine, place);
            let lost = self.wal.lsn(place).bytes_ahead_of(self.wal.lsn(shared));
            if lost > 0 {
                self.coverage.count("failover with loss");
            }
            if lost > self.settings.maximum_lag_bytes && self.is_evident(mine, place) {
                let what = format!(
                    "{} leads without {lost} bytes that were published, {} are allowed",
                    self.names[node.0], self.settings.maximum_lag_bytes
                );
                self.violated("S2", what);
            }
        }
    }

    /// Whoever decides can know what it lacks: it is behind on the same branch, or the store tells which timeline
    /// the published position is on and where that began. A leader that dies before it has written that leaves no trace
    /// of its branch.
    fn is_evident(&self, mine: Place, published: Place) -> bool {
        let shared = self.wal.shared(mine, published);
        let plain_lag = shared.depth == self.wal.shared(mine, mine).depth;
        let origin = self.wal.origin(published).map(|origin| (self.wal.timeline(origin), self.wal.lsn(origin)));
        let keys = self.store.keys();
        let told = keys.status.as_ref().is_some_and(|status| status.timeline == self.wal.timeline(published));
        let lines = &keys.history.lines;
        let began = |(timeline, end)| lines.iter().any(|line| (line.timeline, line.end) == (timeline, end));
        plain_lag || (told && origin.is_some_and(began))
    }

    /// A leader has published its position; or, with a release, what another had published, which is beyond its own.
    pub fn note_published(&mut self, node: NodeId, position: matriarch_core::id::Lsn) {
        let Some(end) = self.nodes[node.0].server.cluster().map(|on_disk| on_disk.end) else { return };
        if self.wal.lsn(end) >= position {
            self.checks.published = Some(self.wal.back_to(end, position));
        }
    }

    /// How many acknowledged commits the serving primary does not hold, and how many there were.
    pub fn lost(&self) -> (u64, u64) {
        let serving = self.nodes.iter().find(|node| node.server.can_acknowledge());
        let Some(mine) = serving.and_then(Node::place) else { return (0, 0) };
        let all = &self.ledger.acknowledged;
        let lost = all.iter().filter(|row| !self.wal.contains(mine, row.place)).count();
        (lost as u64, all.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_failover_that_gives_up_more_than_is_allowed() {
        let loses = |limit: u64| {
            broken(move |world| {
                let (old, new) = (leader(world), standby(world));
                world.settings.maximum_lag_bytes = limit;
                world.checks.published = Some(on_disk(world, old).end);
                let behind = on_disk(world, new);
                behind.end = Place { depth: behind.end.depth - 2, ..behind.end };
                let mine = on_disk(world, new).end;
                world.check_loss(new, mine);
            })
        };
        assert_eq!(loses(0), Some("S2"));
        assert_eq!(loses(1 << 20), None);
    }

    #[test]
    fn a_release_that_publishes_again_what_another_had_published() {
        let mut world = steady();
        let (old, new) = (leader(&world), standby(&world));
        let end = on_disk(&mut world, old).end;
        world.note_published(old, world.wal.lsn(end));
        let published = world.checks.published;
        assert_eq!(published, Some(end));
        let mine = on_disk(&mut world, new);
        mine.end = Place { depth: end.depth - 2, ..end };
        world.note_published(new, world.wal.lsn(end));
        assert_eq!(world.checks.published, published);
    }
}
