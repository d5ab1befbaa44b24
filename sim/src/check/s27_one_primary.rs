//! S27: at no time two agents answer a health check by "I am the primary", but where a leader key went before its time and
//! its holder is still to hear of it.

use matriarch_core::view::View;

use crate::mutant::Mutant;
use crate::node::NodeId;
use crate::time::ms;
use crate::world::World;

impl World {
    /// An agent has decided: what it would answer, and what the others would.
    pub(super) fn check_health(&mut self, node: NodeId) {
        if !self.answers_primary(node) {
            return;
        }
        if self.leads(node) {
            self.checks.led[node.0] = Some(self.now);
        }
        let others = (0..self.nodes.len()).map(NodeId).filter(|other| *other != node);
        let also = others.into_iter().find(|other| self.answers_primary(*other) && !self.lost_early(*other));
        if let Some(also) = also.filter(|_| !self.lost_early(node)) {
            let what =
                format!("{} and {} both answer that they are the primary", self.names[node.0], self.names[also.0]);
            self.violated("S27", what);
        }
    }

    /// As the runtime answers: by the clock, each time anew. An agent that stands still says nothing.
    fn leads(&self, node: NodeId) -> bool {
        let host = &self.nodes[node.0];
        host.awake().is_some_and(|agent| View { at: host.clock.read(self.now), state: &agent.state }.leads())
    }

    fn answers_primary(&self, node: NodeId) -> bool {
        self.leads(node) || (self.mutant == Some(Mutant::HealthRemembered) && self.led_lately(node))
    }

    fn led_lately(&self, node: NodeId) -> bool {
        let lately = |led| self.now.since(led) < ms(self.settings.loop_wait_ms);
        self.nodes[node.0].awake().is_some() && self.checks.led[node.0].is_some_and(lately)
    }

    fn lost_early(&self, node: NodeId) -> bool {
        let agent = self.nodes[node.0].agent.as_ref();
        let held = agent.and_then(|agent| agent.state.tenure.held().map(|held| held.lease));
        // Or an operator made a primary by hand while the cluster was paused, and it leads.
        let by_hand = self.is_by_hand(node);
        // Who was let go in that pause and stood still has a moment to hear of it.
        let let_go = agent.is_some_and(|agent| agent.state.memory.let_go) && !self.is_quiet(node, 1000);
        held.is_some_and(|lease| self.was_lost_lately(node, lease)) || by_hand || let_go
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::time::Time;

    #[test]
    fn two_that_say_that_they_are_the_primary() {
        let both = |change: fn(&mut World, NodeId)| {
            broken(move |world| {
                let (node, old) = (standby(world), leader(world));
                let state = world.nodes[old.0].agent.as_ref().unwrap().state.clone();
                // Clocks of nodes differ; here they show the same.
                world.nodes[node.0].clock = world.nodes[old.0].clock;
                world.nodes[node.0].agent.as_mut().unwrap().state = state;
                change(world, old);
                world.check_health(node);
            })
        };
        assert_eq!(both(|_, _| ()), Some("S27"));
        assert_eq!(both(|world, old| world.nodes[old.0].agent.as_mut().unwrap().frozen = true), None);
        let asleep = |world: &mut World, old: NodeId| world.nodes[old.0].suspended = true;
        assert_eq!(both(asleep), None, "nor does a host that sleeps");
        let early = |world: &mut World, _: NodeId| {
            let lease = key(world).lease;
            world.checks.early.insert(lease, world.now);
        };
        assert_eq!(both(early), None, "a key that went early is heard of later");
        let by_hand = |world: &mut World, old: NodeId| world.checks.by_hand[old.0] = Some(world.now);
        assert_eq!(both(by_hand), None, "an operator has just promoted it");
        let long_ago = |world: &mut World, old: NodeId| world.checks.by_hand[old.0] = Some(Time::from_ms(50_000));
        assert_eq!(both(long_ago), Some("S27"), "its agent has seen that long ago");
        let taken_up = |world: &mut World, old: NodeId| {
            world.checks.by_hand[old.0] = Some(world.now);
            world.note_taken_up();
        };
        assert_eq!(both(taken_up), Some("S27"), "it leads, and was restarted by hand");
    }
}
