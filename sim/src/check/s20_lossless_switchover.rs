//! S20: a switchover loses nothing.

use matriarch_core::view::postgres::ControlState;

use crate::node::NodeId;
use crate::postgres::wal::{Place, Record};
use crate::store::Gone;
use crate::world::World;

impl World {
    /// A leader that has been told by a candidate that it holds everything gives the key away for it.
    pub(super) fn note_handover(&mut self, holder: NodeId, how: Gone) {
        let on_disk = self.nodes[holder.0].server.cluster();
        let clean = on_disk.filter(|on_disk| how == Gone::Released && on_disk.state == ControlState::ShutDown);
        self.checks.released = clean.map(|on_disk| on_disk.end);
        if how == Gone::Released
            && let Some(decided) = self.checks.hands_over[holder.0]
        {
            let place = self.nodes[holder.0].server.cluster().map(|on_disk| on_disk.end);
            self.checks.handed_over = place.map(|place| (decided, place));
        }
    }

    /// Another server serves: what was handed over is there.
    pub(super) fn check_handover(&mut self, node: NodeId, mine: Place) {
        self.checks.released = None;
        let Some((since, place)) = self.checks.handed_over.take() else { return };
        // Whoever was to take over may be cut off from the store, and another comes first.
        let quiet = self.checks.struck.is_empty() && self.checks.quiet_since.iter().all(|quiet| *quiet < since);
        if quiet && !self.wal.contains(mine, place) && !self.lacks_a_shutdown_by_hand(mine, place) {
            let what = format!("{} was handed over to and does not hold what the last leader had", self.names[node.0]);
            self.violated("S20", what);
        }
        self.coverage.count("handed over");
    }

    /// An operator had promoted it behind everybody's back where the leader before had nothing more to write but its shutdown:
    /// no commit is lost with that.
    fn lacks_a_shutdown_by_hand(&self, mine: Place, place: Place) -> bool {
        let shared = self.wal.shared(mine, place).depth;
        let mut lacked = self.wal.records(place).take_while(|(_, depth)| *depth > shared);
        let left = self.wal.on_the_way(mine, shared + 1).branch;
        self.checks.hand_made.iter().any(|made| made.branch == left)
            && !lacked.any(|(record, _)| matches!(record, Record::Commit(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::postgres::wal::Serial;
    use matriarch_core::id::Timeline;

    #[test]
    fn a_switchover_that_loses() {
        let handed = |behind: u64| {
            broken(move |world| {
                let (old, new) = (leader(world), standby(world));
                let end = on_disk(world, old).end;
                world.checks.handed_over = Some((world.now, end));
                on_disk(world, new).end = Place { depth: end.depth - behind, ..end };
                let mine = on_disk(world, new).end;
                world.check_handover(new, mine);
            })
        };
        assert_eq!(handed(1), Some("S20"));
        assert_eq!(handed(0), None);
        let by_hand = |lacked: Record| {
            broken(move |world| {
                let (old, new) = (leader(world), standby(world));
                let had = on_disk(world, old).end;
                let made = world.wal.fork(had, Timeline(9));
                let end = world.wal.append(had, lacked);
                let end = world.wal.append(end, Record::Checkpoint);
                world.checks.handed_over = Some((world.now, end));
                world.checks.hand_made.push(made);
                world.check_handover(new, made);
            })
        };
        assert_eq!(by_hand(Record::Commit(Serial(1_000_000))), Some("S20"));
        assert_eq!(by_hand(Record::Checkpoint), None, "it lacks nothing but the shutdown");
    }
}
