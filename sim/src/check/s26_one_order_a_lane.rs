//! S26: an operation has its own number, and its lane to itself until it has ended: until whoever ordered it was told, or its
//! time was up, or another took its place. No step orders more than sixteen.

use std::collections::BTreeMap;

use matriarch_core::action::Lane;
use matriarch_core::effects::Effects;
use matriarch_core::id::OpId;
use matriarch_core::time::Instant;

use crate::node::NodeId;
use crate::world::World;

/// The most orders of one step.
const ORDERS_MAX: usize = 16;

/// What an agent has under way, as its executor knows it.
#[derive(Clone, Debug, Default)]
pub struct Lanes {
    boot: u32,
    /// The last number that was given.
    last: OpId,
    /// Until when each operation may go on that has not ended.
    open: BTreeMap<Lane, (OpId, Instant)>,
}

impl World {
    /// An operation has ended for whoever ordered it.
    pub fn note_ended(&mut self, node: NodeId, op: OpId) {
        self.checks.lanes[node.0].open.retain(|_, (open, _)| *open != op);
    }

    /// An agent has ordered.
    pub(super) fn check_lanes(&mut self, node: NodeId, at: Instant, effects: &Effects) {
        if effects.orders.is_empty() && effects.cancelled.is_empty() {
            return;
        }
        let Some(agent) = &self.nodes[node.0].agent else { return };
        let retry_timeout = agent.state.config.retry_timeout;
        let lanes = &mut self.checks.lanes[node.0];
        if lanes.boot != agent.boot {
            *lanes = Lanes { boot: agent.boot, ..Lanes::default() };
        }
        lanes.open.retain(|_, (open, until)| !effects.cancelled.contains(open) && at < *until);
        let mut wrong = (effects.orders.len() > ORDERS_MAX).then(|| format!("{} orders", effects.orders.len()));
        for order in &effects.orders {
            if order.op <= lanes.last {
                wrong = Some(format!("number {} after {}", order.op, lanes.last));
            }
            lanes.last = order.op;
            let Some(lane) = order.action.lane() else { continue };
            let until = at + order.action.deadline(retry_timeout);
            if let Some((open, _)) = lanes.open.insert(lane.clone(), (order.op, until)) {
                wrong = Some(format!("{} in lane {lane:?} beside {open}", order.op));
            }
        }
        if let Some(what) = wrong {
            self.violated("S26", format!("{} gives {what}", self.names[node.0]));
        }
    }
}

#[cfg(test)]
mod tests {
    use matriarch_core::action::{Action, StoreAction};
    use matriarch_core::effects::{Order, Wake};
    use matriarch_core::id::{LeaseId, RequestId};
    use matriarch_core::reason::Reason;

    use super::super::testing::*;
    use super::*;

    fn effects(orders: Vec<(u64, Action)>, cancelled: Vec<u64>) -> Effects {
        let order = |(n, action)| Order { op: OpId(n), action, because: Reason::AtGoal, under: None };
        Effects {
            orders: orders.into_iter().map(order).collect(),
            cancelled: cancelled.into_iter().map(OpId).collect(),
            wake: Wake { at: None, because: Reason::AtGoal },
            decision: None,
        }
    }

    fn read() -> Action {
        Action::Store(StoreAction::Read)
    }

    /// One step after the other orders so; between them an operation ends.
    fn ordered(steps: Vec<Effects>, ended: Option<u64>) -> Option<&'static str> {
        broken(move |world| {
            let node = standby(world);
            let at = world.clock(node);
            for step in steps {
                world.check_lanes(node, at, &step);
                if let Some(op) = ended {
                    world.note_ended(node, OpId(op));
                }
            }
        })
    }

    #[test]
    fn two_orders_in_a_lane() {
        let other = || Action::Store(StoreAction::Revoke { lease: LeaseId(1) });
        let first = 1_000_000;
        let once = |n: u64| effects(vec![(first + n, read())], Vec::new());
        assert_eq!(ordered(vec![effects(vec![(first, read()), (first + 1, read())], vec![])], None), Some("S26"));
        assert_eq!(ordered(vec![effects(vec![(first, read()), (first + 1, other())], vec![])], None), None);
        assert_eq!(ordered(vec![once(0), once(1)], None), Some("S26"), "in the next step");
        assert_eq!(ordered(vec![once(0), once(1)], Some(first)), None, "the first has ended");
        let instead = effects(vec![(first + 1, read())], vec![first]);
        assert_eq!(ordered(vec![once(0), instead], None), None, "it takes its place");
        assert_eq!(ordered(vec![once(0), once(0)], Some(first)), Some("S26"), "one number, two operations");
        let many = (0..17).map(|n| (first + n, Action::Answer(RequestId::default(), answer()))).collect();
        assert_eq!(ordered(vec![effects(many, vec![])], None), Some("S26"), "too many at once");
    }

    fn answer() -> matriarch_core::action::Answer {
        matriarch_core::action::Answer::Text { status: 200, body: String::new() }
    }
}
