//! S25, views go forward; S26, one order a lane, and no order of a former boot; S28, a second step at one instant
//! orders nothing (the decision may differ: what was ordered is in flight by then).

use matriarch_core::action::{Action, HostAction};
use matriarch_core::effects::Effects;
use matriarch_core::event::Event;
use matriarch_core::id::Revision;
use matriarch_core::time::Instant;

use crate::node::NodeId;
use crate::time::ms;
use crate::world::World;

/// Every so many steps a step is made twice: it costs as much as the step itself.
const TWICE: u64 = 16;

impl World {
    /// After a step of core.
    pub fn check_step(&mut self, node: NodeId, at: Instant, effects: &Effects) {
        if self.healed.is_some_and(|healed| self.now.since(healed) > std::time::Duration::from_secs(120)) {
            self.checks.calm_orders += effects.orders.len() as u64;
        }
        self.check_belief(node, at);
        let Some(agent) = &self.nodes[node.0].agent else { return };
        let cluster = agent.state.store.cluster.as_ref();
        let (rollbacks, known) = cluster.map_or((0, Revision(0)), |seen| (seen.value.rollbacks, seen.value.revision));
        let before = std::mem::replace(&mut self.checks.revisions[node.0], (agent.boot, rollbacks, known));
        if before.0 == agent.boot && (rollbacks, known) < (before.1, before.2) {
            self.violated("S25", format!("{} decides on revision {known}, before on {}", self.names[node.0], before.2));
            return;
        }
        let mut lanes: Vec<_> = effects.orders.iter().filter_map(|order| order.action.lane()).collect();
        let count = lanes.len();
        lanes.sort();
        lanes.dedup();
        if lanes.len() < count && effects.cancelled.is_empty() {
            self.violated("S26", format!("{} gives two orders in one lane", self.names[node.0]));
            return;
        }
        // A step that asks to be repeated at once, pre-empts, or makes PostgreSQL writable, changes what the next one sees.
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
