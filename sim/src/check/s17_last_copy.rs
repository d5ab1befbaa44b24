//! S17: the last copy is never wiped.

use matriarch_core::id::Member;

use crate::node::NodeId;
use crate::postgres::wal::Place;
use crate::world::World;

impl World {
    /// S17: a directory is wiped only while another holds the cluster, and the one to be copied is whole.
    pub fn check_wipe(&mut self, node: NodeId, from: &Member) {
        let holds = |index: usize| -> Option<Place> {
            self.nodes[index].server.cluster().filter(|on_disk| on_disk.tainted.is_none()).map(|on_disk| on_disk.end)
        };
        let copies = (0..self.nodes.len()).filter(|index| *index != node.0 && holds(*index).is_some()).count();
        if copies == 0 && holds(node.0).is_some() {
            self.violated("S17", format!("{} is wiped, the last copy, to be cloned from {from}", self.names[node.0]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::postgres::Disk;

    #[test]
    fn the_last_copy_is_wiped() {
        let wiped = |copies: usize| {
            broken(move |world| {
                let node = leader(world);
                for other in [standby(world), other_standby(world)].into_iter().skip(copies) {
                    world.nodes[other.0].server.disk = Disk::Empty;
                }
                let from = world.names[standby(world).0].clone();
                world.check_wipe(node, &from);
            })
        };
        assert_eq!(wiped(0), Some("S17"));
        assert_eq!(wiped(1), None);
    }
}
