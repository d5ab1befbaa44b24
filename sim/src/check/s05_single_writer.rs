//! S5: two servers never acknowledge commits at one instant.

use crate::node::NodeId;
use crate::time::ms;
use crate::world::World;

impl World {
    /// S5: at no instant could two servers acknowledge a commit, whoever reaches them.
    pub(super) fn check_writers(&mut self) {
        // What `docs/time.md` asks of who restores a store was not kept to.
        if self.checks.unaware.is_some_and(|at| self.now.since(at) < ms(2 * self.settings.ttl_ms)) {
            return;
        }
        let mut writers = self.nodes.iter().filter(|node| self.writes_by_rule(node.id));
        if let (Some(one), Some(other)) = (writers.next(), writers.next()) {
            let what = format!("{} and {} can both acknowledge commits", self.names[one.id.0], self.names[other.id.0]);
            self.violated("S5", what);
        }
    }

    /// A commit can be acknowledged there, and Matriarch answers for it: not in the moment that a guard needs to wake
    /// after a suspend, nor where an operator has just made a primary of a server by hand.
    pub(super) fn writes_by_rule(&self, node: NodeId) -> bool {
        let writes = self.nodes[node.0].server.can_acknowledge() && !self.is_foreign(node);
        writes && !self.is_waking(node) && !self.is_by_hand(node)
    }

    /// What an operator did by hand is the agent's to undo, as soon as it sees it, if it is there.
    fn is_by_hand(&self, node: NodeId) -> bool {
        let Some(since) = self.checks.by_hand[node.0] else { return false };
        // Where an unsupported mode is asked for it only observes.
        if self.nodes[node.0].config.unsupported.is_some() {
            return true;
        }
        // And nothing is undone while the cluster is paused, as far as it knows.
        let paused = self.nodes[node.0].agent.as_ref().is_some_and(|agent| agent.state.memory.paused.is_some());
        if paused {
            return true;
        }
        let since = since.max(self.checks.quiet_since[node.0]).max(self.saw_pause_end(node));
        // An agent that was only just started looks for its tenure first.
        let booted = self.nodes[node.0].booted + ms(self.settings.retry_timeout_ms + 2000);
        self.nodes[node.0].awake().is_none() || self.now < booted || self.now.since(since) < ms(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    #[test]
    fn two_that_can_acknowledge() {
        let second = |held: bool| {
            broken(move |world| {
                let node = standby(world);
                leaves_recovery(world, node);
                world.nodes[node.0].server.held = held;
                world.nodes[node.0].guard = None;
                world.check_after_event();
            })
        };
        assert_eq!(second(false), Some("S5"));
        assert_eq!(second(true), None, "what is held acknowledges nothing");
    }
}
