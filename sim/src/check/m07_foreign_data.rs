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
        // It has looked at the directory since.
        let runs = self.now.since(self.nodes[node.0].booted) >= ms(1000);
        let seen = runs && self.is_quiet(node, 1000) && !self.nodes[node.0].files.hidden;
        if seen && self.knows_the_cluster(node) {
            let (what, why) = (crate::coverage::kind(&order.action), order.because.code());
            self.violated("M7", format!("{} has another cluster's data and does {what} ({why})", self.names[node.0]));
        }
    }
}

impl World {
    /// Its agent was told which cluster this is, also where an operator has deleted `initialize` since; or its disk tells that
    /// it has led this one, and the record of who led last is there, and was read.
    fn knows_the_cluster(&self, node: NodeId) -> bool {
        let Some(ours) = self.checks.system else { return false };
        let host = &self.nodes[node.0];
        let (boot, told) = self.checks.told_system[node.0];
        let told = host.agent.as_ref().is_some_and(|agent| agent.boot == boot && told == Some(ours));
        let keys = self.store.keys();
        let led = host.files.epoch.is_some_and(|file| file.system_id == ours && file.store == keys.store);
        let has_read = host.agent.as_ref().is_some_and(|agent| agent.state.store.cluster.is_some());
        told || (led && has_read && keys.epoch.is_some())
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
        let deleted = |world: &mut World, _: NodeId| world.store.forge(|keys| keys.initialize = None);
        assert_eq!(does(start(), deleted), Some("M7"), "it was told which cluster this is");
        let unheard = |world: &mut World, node: NodeId| world.checks.told_system[node.0].1 = None;
        assert_eq!(does(start(), unheard), None, "it is told only now");
        let of_another_agent = |world: &mut World, node: NodeId| world.checks.told_system[node.0].0 += 1;
        assert_eq!(does(start(), of_another_agent), None);
        let led = |world: &mut World, node: NodeId| {
            world.checks.told_system[node.0].1 = None;
            world.nodes[node.0].files.epoch = world.nodes[leader(world).0].files.epoch;
        };
        assert_eq!(does(start(), led), Some("M7"), "its disk tells");
        let reads_nothing = |world: &mut World, node: NodeId| {
            world.checks.told_system[node.0].1 = None;
            world.nodes[node.0].files.epoch = world.nodes[leader(world).0].files.epoch;
            world.nodes[node.0].agent.as_mut().unwrap().state.store.cluster = None;
        };
        assert_eq!(does(Action::Guard(GuardAction::KillOrphans), reads_nothing), None, "who led last is in the store");
        let system = |world: &mut World, node: NodeId| {
            let ours = world.checks.system.unwrap();
            world.nodes[node.0].server.initdb(&mut world.wal, ours);
        };
        assert_eq!(does(start(), system), None, "they are ours");
    }
}
