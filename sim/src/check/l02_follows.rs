//! L2: every member follows in the end. Known and open (`docs/simulator.md`): one whose WAL has left the history on which
//! it must become consistent, which no WAL of anybody brings back. What is left of a cluster that S18 allowed another to be
//! born in the place of follows nobody: it is the operator's.

use matriarch_core::reason::Reason;

use crate::node::NodeId;
use crate::world::World;

impl World {
    /// L2: every other member streams from the leader and holds what it holds.
    pub(super) fn check_members(&mut self) {
        if let Some(what) = self.who_does_not_follow() {
            self.violated(self.liveness("L2"), what);
        }
    }

    /// A member that does not, in words.
    pub(super) fn who_does_not_follow(&mut self) -> Option<String> {
        let leading = self.leading()?;
        let theirs = self.nodes[leading.0].place()?;
        for index in (0..self.nodes.len()).filter(|index| *index != leading.0) {
            let node = &self.nodes[index];
            if self.checks.left_out == Some(NodeId(index)) {
                self.coverage.count("a node that did not heal");
                continue;
            }
            if self.is_of_an_earlier_birth(NodeId(index)) {
                self.coverage.count("data of an earlier birth");
                continue;
            }
            if node.agent.is_none() {
                return Some(format!("the agent of {} has left and did not come back", self.names[index]));
            }
            // Nothing brings it anything: there is no archive here.
            if self.settings.nostream == Some(index) {
                continue;
            }
            let streams = node.server.postmaster.as_ref().is_some_and(|pm| pm.stream.is_some());
            let holds = node
                .place()
                .is_some_and(|mine| self.wal.contains(theirs, mine) && theirs.depth.saturating_sub(mine.depth) <= 20);
            if self.is_lost(NodeId(index)) {
                self.coverage.count("a standby that nothing makes consistent");
                continue;
            }
            if self.waits_for_its_operator(NodeId(index)) {
                self.coverage.count("a diverged standby that nobody may clone");
                continue;
            }
            if !streams || !holds {
                let reason =
                    node.agent.as_ref().and_then(|agent| agent.state.decision.as_ref()).map(|d| d.reason.to_string());
                return Some(format!("{} does not follow {}: {reason:?}", self.names[index], self.names[leading.0]));
            }
        }
        None
    }

    /// Its data are of the cluster that was there before the one that the store names. Others' data are removed in the end.
    fn is_of_an_earlier_birth(&self, node: NodeId) -> bool {
        let system = self.nodes[node.0].server.cluster().map(|on_disk| self.wal.system(on_disk.end));
        system.is_some_and(|system| self.checks.system.is_some_and(|born| born != system)) && !self.is_foreign(node)
    }

    /// It has diverged and cannot be rewound, and the operator has not allowed to clone it.
    fn waits_for_its_operator(&self, node: NodeId) -> bool {
        let host = &self.nodes[node.0];
        let decision = host.agent.as_ref().and_then(|agent| agent.state.decision.as_ref());
        let waits = decision.is_some_and(|decision| matches!(decision.reason, Reason::CannotRewind { .. }));
        waits && !host.config.clone_when_diverged
    }

    /// What its files hold parts from what it must reach before it gets there.
    fn is_lost(&self, node: NodeId) -> bool {
        self.nodes[node.0].server.cluster().is_some_and(|on_disk| {
            let (end, consistent) = (on_disk.end, on_disk.consistent);
            !self.wal.contains(end, consistent) && !self.wal.contains(consistent, end)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::fault::FOREIGN;
    use crate::postgres::wal::{Place, Record};
    use matriarch_core::id::{SystemId, Timeline};
    use matriarch_core::view::postgres::ControlState;

    /// What a standby says of its receiver is what core knows its source by: otherwise it is turned to it for ever.
    #[test]
    fn a_standby_that_streams_is_not_turned_again() {
        let turned = steady().coverage.orders.get("follow").copied().unwrap_or(0);
        assert!(turned <= 2, "in a steady minute two standbys were turned {turned} times");
    }

    #[test]
    fn a_member_that_does_not_follow() {
        let checked = |change: fn(&mut World, NodeId)| {
            broken(move |world| {
                let node = standby(world);
                change(world, node);
                world.check_members();
            })
        };
        assert_eq!(checked(World::receiver_ends), Some("L2"));
        assert_eq!(checked(World::agent_gone), Some("L2"));
        let left_with = |system| {
            broken(move |world| {
                let node = standby(world);
                on_disk(world, node).end = world.wal.begin(system);
                world.agent_gone(node);
                world.check_members();
            })
        };
        assert_eq!(left_with(SystemId(99)), None, "another cluster was born in its place");
        assert_eq!(left_with(FOREIGN), Some("L2"), "an operator removes what was put there");
        let lag = |world: &mut World, node: NodeId| {
            let mine = on_disk(world, node);
            mine.end = Place { depth: mine.end.depth - 1, ..mine.end };
            mine.state = ControlState::InArchiveRecovery;
        };
        assert_eq!(checked(lag), None, "what is under way is no lag");
        let lost = |world: &mut World, node: NodeId| {
            let end = on_disk(world, node).end;
            let fork = world.wal.fork(Place { depth: end.depth - 2, ..end }, Timeline(7));
            let strayed = world.wal.append(fork, Record::EndOfRecovery);
            on_disk(world, node).end = strayed;
        };
        assert_eq!(checked(lost), Some("L2"), "it has been consistent before");
        let lost = |world: &mut World, node: NodeId| {
            let end = on_disk(world, node).end;
            let fork = world.wal.fork(Place { depth: end.depth - 2, ..end }, Timeline(7));
            let strayed = world.wal.append(fork, Record::EndOfRecovery);
            let on_disk = on_disk(world, node);
            (on_disk.end, on_disk.consistent) = (strayed, end);
        };
        assert_eq!(checked(lost), None, "known and open");
        let waits = |allowed: bool| {
            broken(move |world| {
                let node = standby(world);
                world.receiver_ends(node);
                world.nodes[node.0].config.clone_when_diverged = allowed;
                let agent = world.nodes[node.0].agent.as_mut().unwrap();
                let decision = agent.state.decision.as_mut().unwrap();
                decision.reason = Reason::CannotRewind { why: "it may not".into() };
                world.check_members();
            })
        };
        assert_eq!((waits(false), waits(true)), (None, Some("L2")), "it is its operator's to say");
    }
}
