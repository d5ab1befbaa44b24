//! S28: a second step at one instant orders nothing (the decision may differ: what was ordered is in flight by then).

use matriarch_core::action::{Action, HostAction};
use matriarch_core::effects::Effects;
use matriarch_core::event::Event;
use matriarch_core::time::Instant;

use crate::node::NodeId;
use crate::time::ms;
use crate::world::World;

/// Every so many steps a step is made twice: it costs as much as the step itself.
const TWICE: u64 = 16;

impl World {
    /// Every so many steps the last one is made once more, unless it asks for that itself, pre-empts, or makes PostgreSQL
    /// writable: that changes what the next one sees.
    pub(super) fn check_repetition(&mut self, node: NodeId, at: Instant, effects: &Effects) {
        let settled = effects.wake.at.is_none_or(|wake| wake > at + ms(1))
            && effects.cancelled.is_empty()
            && effects.orders.iter().all(|order| order.under.is_none());
        if settled && self.steps.is_multiple_of(TWICE) {
            self.check_stable(node, at);
        }
    }

    /// S28: a second step at the same instant, with no news, orders nothing.
    pub(super) fn check_stable(&mut self, node: NodeId, at: Instant) {
        let Some(agent) = &self.nodes[node.0].agent else { return };
        let (mut again, wall) = (agent.state.clone(), agent.state.wall.1);
        let elapsed = at.since(agent.state.wall.0).as_millis() as i64;
        let event = Event::Ticked(matriarch_core::time::WallMillis(wall.0 + elapsed));
        let effects = matriarch_core::step(&mut again, at, event);
        // Leaving takes no lane: it ends everything.
        let repeated = effects
            .orders
            .iter()
            .map(|order| &order.action)
            .filter(|action| !matches!(action, Action::Host(HostAction::Exit { .. })));
        let orders: Vec<&Action> = repeated.collect();
        if !orders.is_empty() {
            let what = format!("{}: the same view once more gives {orders:?}", self.names[node.0]);
            self.violated("S28", what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    #[test]
    fn a_step_that_would_order_more_at_the_same_instant() {
        let again = |forget: bool| {
            broken(move |world| {
                let node = standby(world);
                let at = world.clock(node);
                let agent = world.nodes[node.0].agent.as_mut().unwrap();
                // At its goal, and without its lease: the next step asks for another.
                matriarch_core::step(
                    &mut agent.state,
                    at,
                    matriarch_core::event::Event::Ticked(matriarch_core::time::WallMillis(0)),
                );
                if forget {
                    agent.state.session.lease = None;
                }
                world.check_stable(node, at);
            })
        };
        assert_eq!(again(true), Some("S28"));
        assert_eq!(again(false), None);
    }
}
