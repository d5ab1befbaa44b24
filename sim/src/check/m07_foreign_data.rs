//! M7: the data of another cluster are not touched: nothing runs on them, and nothing writes over them.

use matriarch_core::action::{Action, GuardAction, PostgresAction};
use matriarch_core::effects::Order;

use crate::node::NodeId;
use crate::time::ms;
use crate::world::World;

impl World {
    /// M7: an order is about to be carried out.
    pub(super) fn check_foreign(&mut self, node: NodeId, order: &Order) {
        let touches = match &order.action {
            Action::Postgres(what) => {
                !matches!(what, PostgresAction::Observe | PostgresAction::Look | PostgresAction::Compare(_))
            }
            Action::Guard(what) => matches!(what, GuardAction::Fire | GuardAction::Hold | GuardAction::KillOrphans),
            _ => false,
        };
        if !touches || !self.is_foreign(node) {
            return;
        }
        // It has looked at the directory since, and the keys tell which cluster this is; where an operator has deleted
        // `initialize`, whoever leads writes it again, and others hear of it a moment later. What a dead server may have left
        // behind is ended before anything is known.
        let runs = self.now.since(self.nodes[node.0].booted) >= ms(1000);
        let seen = runs && self.is_quiet(node, 1000) && !self.nodes[node.0].files.hidden;
        let heard = self.nodes[node.0].agent.as_ref().and_then(|agent| agent.mirror.system_id());
        let told = [self.store.keys().system_id(), heard];
        let known = self.checks.system.is_some() && told.iter().all(|told| *told == self.checks.system);
        if seen && known {
            let (what, why) = (crate::coverage::kind(&order.action), order.because.code());
            self.violated("M7", format!("{} has another cluster's data and does {what} ({why})", self.names[node.0]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::fault::FOREIGN;
    use matriarch_core::id::OpId;
    use matriarch_core::reason::Reason;
    use matriarch_core::view::postgres::StartAs;

    #[test]
    fn the_data_of_another_cluster_are_touched() {
        let does = |action: Action, change: fn(&mut World, NodeId)| {
            broken(move |world| {
                let node = standby(world);
                world.gone(node);
                world.nodes[node.0].server.initdb(&mut world.wal, FOREIGN);
                change(world, node);
                world.check_foreign(node, &Order { op: OpId(1), action, because: Reason::AtGoal, under: None });
            })
        };
        let start = || Action::Postgres(PostgresAction::Start(StartAs::Standby(None)));
        let as_it_is = |_: &mut World, _: NodeId| ();
        assert_eq!(does(start(), as_it_is), Some("M7"));
        assert_eq!(does(Action::Guard(GuardAction::KillOrphans), as_it_is), Some("M7"));
        assert_eq!(does(Action::Postgres(PostgresAction::Look), as_it_is), None, "that is how it finds out");
        let just_now = |world: &mut World, node: NodeId| world.checks.disturbed(Some(node), world.now);
        assert_eq!(does(start(), just_now), None, "it has not looked yet");
        let began = |world: &mut World, node: NodeId| world.nodes[node.0].booted = world.now;
        assert_eq!(does(Action::Guard(GuardAction::KillOrphans), began), None, "it has only just started");
        let unknown = |world: &mut World, _: NodeId| world.store.forge(|keys| keys.initialize = None);
        assert_eq!(does(start(), unknown), None, "nothing tells which cluster this is");
        let unheard = |world: &mut World, node: NodeId| {
            let agent = world.nodes[node.0].agent.as_mut().unwrap();
            std::rc::Rc::make_mut(&mut agent.mirror).initialize = None;
        };
        assert_eq!(does(start(), unheard), None, "it is told only now");
        let system = |world: &mut World, node: NodeId| {
            let ours = world.checks.system.unwrap();
            world.nodes[node.0].server.initdb(&mut world.wal, ours);
        };
        assert_eq!(does(start(), system), None, "they are ours");
    }
}
