//! L4: every operation ends by its deadline, and every request of an operator is answered; whom he stops leaves.

use std::time::Duration;

use matriarch_core::id::RequestId;

use crate::node::NodeId;
use crate::time::ms;
use crate::world::World;

/// Not a number of a request, of which an agent is asked a few.
const LEAVE: RequestId = RequestId(u64::MAX);

impl World {
    /// An operator asks an agent.
    pub fn note_asked(&mut self, node: NodeId, boot: u32, request: RequestId) {
        self.checks.asked.insert((node, boot, request), self.now);
    }

    /// An operator stops an agent: it leaves, as it would answer.
    pub fn note_asked_to_leave(&mut self, node: NodeId) {
        if let Some(boot) = self.nodes[node.0].agent.as_ref().map(|agent| agent.boot) {
            self.checks.asked.entry((node, boot, LEAVE)).or_insert(self.now);
        }
    }

    /// The operator is answered.
    pub fn note_answered(&mut self, node: NodeId, boot: u32, request: RequestId) {
        self.checks.asked.remove(&(node, boot, request));
    }

    /// What a node that runs undisturbed has under way ends by its deadline.
    pub fn check_operations_end(&mut self, node: NodeId) {
        if !self.is_quiet(node, 2000) || self.nodes[node.0].awake().is_none() {
            return;
        }
        let at = self.clock(node);
        let Some(agent) = &self.nodes[node.0].agent else { return };
        let late = agent.state.ops.iter().find(|(_, in_flight)| at > in_flight.deadline + ms(1000));
        if let Some((lane, in_flight)) = late {
            let what = format!("{}: {:?} in lane {lane:?} does not end", self.names[node.0], in_flight.action);
            self.violated("L4", what);
        }
    }

    /// When all is over: what has been under way for longer than it may.
    pub(super) fn check_ends(&mut self) {
        for node in (0..self.nodes.len()).map(NodeId) {
            self.check_operations_end(node);
        }
        let limit = self.answer_bound();
        // With an agent its requests end: whoever asked loses the connection.
        let waits = self.checks.asked.iter().find(|((node, boot, _), since)| {
            let lives = self.nodes[node.0].agent.as_ref().is_some_and(|agent| agent.boot == *boot);
            lives && self.now.since(**since) > limit
        });
        if let Some(((node, _, request), since)) = waits {
            self.violated("L4", format!("{} has not answered request {request:?} of {since}", self.names[node.0]));
        }
    }

    /// The longest that an operator waits: what is asked for, what a failing store adds, and a start.
    fn answer_bound(&self) -> Duration {
        ms(self.settings.primary_start_timeout_ms.min(60_000) + 2 * self.settings.serving_bound_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::time::Time;
    use matriarch_core::state::Ops;

    #[test]
    fn a_request_without_an_answer() {
        let asked = |boot: u32, answered: bool| {
            broken(move |world| {
                let node = leader(world);
                world.now = Time(0);
                world.note_asked(node, boot, RequestId(1));
                world.now = Time::from_ms(600_000);
                if answered {
                    world.note_answered(node, boot, RequestId(1));
                }
                for node in &mut world.nodes {
                    node.agent.as_mut().unwrap().state.ops = Ops::default();
                }
                world.check_ends();
            })
        };
        assert_eq!(asked(1, false), Some("L4"));
        assert_eq!(asked(1, true), None);
        assert_eq!(asked(7, false), None, "that agent is gone");
        let stays = |is_there: bool| {
            broken(move |world| {
                let node = leader(world);
                world.now = Time(0);
                world.note_asked_to_leave(node);
                world.now = Time::from_ms(600_000);
                for node in &mut world.nodes {
                    node.agent.as_mut().unwrap().state.ops = Ops::default();
                }
                if !is_there {
                    world.nodes[node.0].agent = None;
                }
                world.check_ends();
            })
        };
        assert_eq!((stays(true), stays(false)), (Some("L4"), None));
    }

    #[test]
    fn an_operation_without_an_end() {
        let late = |by_ms: u64| {
            broken(move |world| {
                let node = standby(world);
                let at = world.clock(node);
                let event = matriarch_core::event::Event::Ticked(matriarch_core::time::WallMillis(0));
                let agent = world.nodes[node.0].agent.as_mut().unwrap();
                // A member that publishes anew has something in flight.
                agent.state.session.lease = None;
                matriarch_core::step(&mut agent.state, at, event);
                assert!(agent.state.ops.iter().next().is_some());
                world.now = world.now + ms(by_ms);
                world.check_ends();
            })
        };
        assert_eq!(late(60_000), Some("L4"));
        assert_eq!(late(0), None);
    }
}
