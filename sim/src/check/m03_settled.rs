//! M3: the parameters and slots of a PostgreSQL are changed only while its role is settled: not while it comes up, is
//! promoted or stops. What an operator has only just begun by hand its agent need not have seen.

use matriarch_core::action::{Action, PostgresAction};
use matriarch_core::effects::Order;
use matriarch_core::view::postgres::Phase;

use crate::node::NodeId;
use crate::world::World;

impl World {
    /// M3: an order is about to be carried out.
    pub(super) fn check_settled(&mut self, node: NodeId, order: &Order) {
        let changes = matches!(
            order.action,
            Action::Postgres(
                PostgresAction::Configure { .. }
                    | PostgresAction::CreateSlot(_)
                    | PostgresAction::DropSlot(_)
                    | PostgresAction::AdvanceSlot { .. }
            )
        );
        if !changes {
            return;
        }
        let Some(pm) = &self.nodes[node.0].server.postmaster else { return };
        let unsettled = pm.phase != Phase::Ready || pm.promoting.is_some() || pm.stopping.is_some();
        if unsettled && !self.hides_a_deed(node) {
            let (what, phase) = (crate::coverage::kind(&order.action), pm.phase);
            let promoted = if pm.promoting.is_some() { ", being promoted" } else { "" };
            self.violated(
                "M3",
                format!("{} does {what} and its PostgreSQL is {phase:?}{promoted}", self.names[node.0]),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use matriarch_core::id::{OpId, Timeline};
    use matriarch_core::reason::Reason;
    use matriarch_core::view::postgres::StopMode;

    #[test]
    fn what_is_changed_while_the_role_is_not_settled() {
        let changed = |action: PostgresAction, spoil: fn(&mut World, NodeId)| {
            broken(move |world| {
                let node = standby(world);
                spoil(world, node);
                let action = Action::Postgres(action);
                world.check_settled(node, &Order { op: OpId(1), action, because: Reason::AtGoal, under: None });
            })
        };
        let promoted = |world: &mut World, node: NodeId| {
            world.nodes[node.0].server.postmaster.as_mut().unwrap().promoting = Some(Timeline(2));
        };
        let starts = |world: &mut World, node: NodeId| {
            world.nodes[node.0].server.postmaster.as_mut().unwrap().phase = Phase::Starting;
        };
        let stops = |world: &mut World, node: NodeId| {
            world.nodes[node.0].server.postmaster.as_mut().unwrap().stopping = Some(StopMode::Fast);
        };
        let configure = || PostgresAction::Configure { generation: 1 };
        let slots = || [PostgresAction::CreateSlot("b".into()), PostgresAction::DropSlot("b".into())];
        for action in slots().into_iter().chain([configure()]) {
            assert_eq!(changed(action.clone(), |_, _| ()), None);
            for spoil in [promoted, starts, stops] {
                assert_eq!(changed(action.clone(), spoil), Some("M3"), "{action:?}");
            }
        }
        assert_eq!(changed(configure(), World::gone), None, "it is written for the next start");
        let by_hand = |world: &mut World, node: NodeId| {
            world.nodes[node.0].server.postmaster.as_mut().unwrap().stopping = Some(StopMode::Fast);
            world.checks.stopped_by_hand[node.0] = Some(world.now);
        };
        assert_eq!(changed(configure(), by_hand), None, "an operator stops it in this moment");
        let by_guard = |world: &mut World, node: NodeId| {
            world.nodes[node.0].server.postmaster.as_mut().unwrap().stopping = Some(StopMode::Fast);
            world.checks.wound_down[node.0] = Some(world.now);
        };
        assert_eq!(
            changed(configure(), by_guard),
            None,
            "an agent comes back, and the guard has just stopped waiting for it"
        );
        assert_eq!(changed(PostgresAction::Checkpoint, promoted), None, "that changes nothing");
    }
}
