//! S17: the last copy is never wiped. What is judged is core's order, as it is given: whether the executor would then find
//! that nobody answers, and keep what is there, is its own merit. Only a clone takes away what a directory holds without
//! having read the other's first; what a rewind takes is S16's.

use matriarch_core::action::{Action, PostgresAction};
use matriarch_core::effects::Order;
use matriarch_core::id::SystemId;

use crate::node::NodeId;
use crate::world::World;

impl World {
    /// S17: a clone is ordered of a directory only while another holds the cluster. Of another cluster's data M7 tells.
    pub(super) fn check_last_copy(&mut self, node: NodeId, order: &Order) {
        let Action::Postgres(PostgresAction::Clone(from)) = &order.action else { return };
        let Some(system) = self.whole_copy(node).filter(|_| !self.is_foreign(node)) else { return };
        let others = (0..self.nodes.len()).map(NodeId).filter(|other| *other != node);
        if others.filter(|other| self.whole_copy(*other) == Some(system)).count() == 0 {
            let (me, from, why) = (&self.names[node.0], &from.member, order.because.code());
            self.violated("S17", format!("{me} is to be cloned from {from} and is the last copy ({why})"));
        }
    }

    /// The cluster that a directory holds, if it is whole: a half-made one is no copy.
    fn whole_copy(&self, node: NodeId) -> Option<SystemId> {
        let on_disk = self.nodes[node.0].server.cluster().filter(|on_disk| on_disk.tainted.is_none())?;
        Some(self.wal.system(on_disk.end))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::fault::FOREIGN;
    use crate::postgres::Disk;
    use matriarch_core::id::OpId;
    use matriarch_core::reason::Reason;
    use matriarch_core::view::postgres::Upstream;

    /// A node is to be cloned from another, when all has been spoilt.
    fn ordered(action: fn(Upstream) -> PostgresAction, spoil: fn(&mut World, [NodeId; 3])) -> Option<&'static str> {
        broken(move |world| {
            let nodes = [leader(world), standby(world), other_standby(world)];
            spoil(world, nodes);
            let upstream = Upstream { member: world.names[nodes[1].0].clone(), host: String::new(), port: 5432 };
            let action = Action::Postgres(action(upstream));
            world.check_last_copy(nodes[0], &Order { op: OpId(1), action, because: Reason::AtGoal, under: None });
        })
    }

    fn wiped(world: &mut World, nodes: &[NodeId]) {
        for node in nodes {
            world.nodes[node.0].server.disk = Disk::Empty;
        }
    }

    #[test]
    fn the_last_copy_is_to_be_wiped() {
        let clone = |spoil| ordered(PostgresAction::Clone, spoil);
        assert_eq!(clone(|world, [_, b, c]| wiped(world, &[b, c])), Some("S17"));
        assert_eq!(clone(|world, [_, b, _]| wiped(world, &[b])), None, "another has one, whether or not it answers");
        assert_eq!(clone(|world, nodes| wiped(world, &nodes)), None, "there is none any more");
        let half_made = |world: &mut World, [_, b, c]: [NodeId; 3]| {
            wiped(world, &[c]);
            on_disk(world, b).tainted = Some("a rewind");
        };
        assert_eq!(clone(half_made), Some("S17"), "a half-made directory is no copy");
        let half_made_itself = |world: &mut World, [a, b, c]: [NodeId; 3]| {
            wiped(world, &[b, c]);
            on_disk(world, a).tainted = Some("a rewind");
        };
        assert_eq!(clone(half_made_itself), None, "what is cloned is none either");
        let foreign = |world: &mut World, [_, b, c]: [NodeId; 3]| {
            wiped(world, &[c]);
            on_disk(world, b).end = world.wal.begin(FOREIGN);
        };
        assert_eq!(clone(foreign), Some("S17"), "another cluster's data are none");
        let foreign_itself = |world: &mut World, [a, _, _]: [NodeId; 3]| {
            on_disk(world, a).end = world.wal.begin(FOREIGN);
        };
        assert_eq!(clone(foreign_itself), None, "they were put there in this moment: that is M7's");
        let rewind = ordered(PostgresAction::Rewind, |world, [_, b, c]| wiped(world, &[b, c]));
        assert_eq!(rewind, None, "it does nothing without what it reads");
    }
}
