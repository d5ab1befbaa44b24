//! S26: one order a lane, unless it takes the place of another.

use matriarch_core::effects::Effects;

use crate::node::NodeId;
use crate::world::World;

impl World {
    /// An agent has ordered.
    pub(super) fn check_lanes(&mut self, node: NodeId, effects: &Effects) {
        let mut lanes: Vec<_> = effects.orders.iter().filter_map(|order| order.action.lane()).collect();
        let count = lanes.len();
        lanes.sort();
        lanes.dedup();
        if lanes.len() < count && effects.cancelled.is_empty() {
            self.violated("S26", format!("{} gives two orders in one lane", self.names[node.0]));
        }
    }
}

#[cfg(test)]
mod tests {
    use matriarch_core::action::{Action, StoreAction};
    use matriarch_core::effects::{Order, Wake};
    use matriarch_core::id::{LeaseId, OpId};
    use matriarch_core::reason::Reason;

    use super::super::testing::*;
    use super::*;

    fn effects(actions: Vec<Action>) -> Effects {
        let order = |(n, action)| Order { op: OpId(900 + n), action, because: Reason::AtGoal, under: None };
        Effects {
            orders: (0_u64..).zip(actions).map(order).collect(),
            cancelled: Vec::new(),
            wake: Wake { at: None, because: Reason::AtGoal },
            decision: None,
        }
    }

    #[test]
    fn two_orders_in_a_lane() {
        let ordered = |actions: Vec<Action>| broken(move |world| world.check_lanes(standby(world), &effects(actions)));
        let read = || Action::Store(StoreAction::Read);
        assert_eq!(ordered(vec![read(), read()]), Some("S26"));
        assert_eq!(ordered(vec![read(), Action::Store(StoreAction::Revoke { lease: LeaseId(1) })]), None);
    }
}
