//! S25: the revision of the keys that an agent decides on never goes back.

use matriarch_core::id::Revision;

use crate::node::NodeId;
use crate::world::World;

impl World {
    /// An agent has decided.
    pub(super) fn check_revision(&mut self, node: NodeId) {
        let Some(agent) = &self.nodes[node.0].agent else { return };
        let cluster = agent.state.store.cluster.as_ref();
        let (rollbacks, known) = cluster.map_or((0, Revision(0)), |seen| (seen.value.rollbacks, seen.value.revision));
        let before = std::mem::replace(&mut self.checks.revisions[node.0], (agent.boot, rollbacks, known));
        if before.0 == agent.boot && (rollbacks, known) < (before.1, before.2) {
            self.violated("S25", format!("{} decides on revision {known}, before on {}", self.names[node.0], before.2));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn keys_that_go_back() {
        let checked = |known: i64, boot: u32| {
            broken(move |world| {
                let node = standby(world);
                world.checks.revisions[node.0] = (boot, 0, Revision(known));
                world.check_revision(node);
            })
        };
        assert_eq!(checked(1_000_000, 1), Some("S25"));
        assert_eq!(checked(1_000_000, 7), None, "another agent knew that");
        assert_eq!(checked(1, 1), None);
    }
}
