//! M6: in a cluster that asks for an unsupported mode nobody races, promotes, starts, stops or copies anything. Whoever led
//! when that was asked keeps its tenure, and if its agent leaves it ends that as ever.

use matriarch_core::action::{Action, GuardAction, PeerAction, PostgresAction, StoreAction};
use matriarch_core::effects::Order;

use crate::node::NodeId;
use crate::world::World;

impl World {
    /// M6: an order is about to be carried out.
    pub(super) fn check_observer(&mut self, node: NodeId, order: &Order) {
        // It has heard of the mode; what was frozen or asleep may have to hear of it first.
        let observes = self.nodes[node.0].config.unsupported.is_some() && self.is_quiet(node, 1000);
        let led = self.checks.last_leader == Some(node);
        let leaves = led && self.nodes[node.0].agent.as_ref().is_some_and(|agent| agent.state.leaving);
        let stands_by = self.nodes[node.0].server.postmaster.as_ref().is_some_and(|pm| pm.in_recovery);
        let forbidden = match &order.action {
            // Who leads, or has just lost its key and takes it back.
            Action::Store(StoreAction::GrantTenure { .. } | StoreAction::Acquire(_)) => !led,
            Action::Store(StoreAction::RaceInitialize { .. } | StoreAction::TakeOver { .. }) => true,
            Action::Peer(PeerAction::AskPosition { .. }) => !led,
            Action::Postgres(PostgresAction::Stop(_)) | Action::Guard(GuardAction::Fire) => stands_by && !led,
            Action::Postgres(PostgresAction::Freeze | PostgresAction::Follow(_)) => true,
            Action::Postgres(
                PostgresAction::Initdb
                | PostgresAction::Clone(_)
                | PostgresAction::Start(_)
                | PostgresAction::Restart
                | PostgresAction::Promote { .. }
                | PostgresAction::Rewind(_)
                | PostgresAction::RecoverSingleUser,
            ) => true,
            _ => false,
        };
        if observes && forbidden && !leaves {
            let (what, why) = (crate::coverage::kind(&order.action), order.because.code());
            self.violated("M6", format!("{} only observes and does {what} ({why})", self.names[node.0]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::time::ms;
    use matriarch_core::id::{OpId, Timeline};
    use matriarch_core::reason::Reason;
    use matriarch_core::time::Duration;
    use matriarch_core::view::postgres::{StartAs, StopMode};

    #[test]
    fn who_only_observes_does_something() {
        let does = |action: Action, of: fn(&World) -> NodeId, change: fn(&mut World, NodeId)| {
            broken(move |world| {
                let node = of(world);
                world.nodes[node.0].config.unsupported = Some("synchronous mode".into());
                change(world, node);
                world.check_observer(node, &Order { op: OpId(1), action, because: Reason::AtGoal, under: None });
            })
        };
        let promote = || Action::Postgres(PostgresAction::Promote { timeline: Timeline(2) });
        let races = || Action::Store(StoreAction::GrantTenure { ttl: Duration::from_secs(30) });
        let as_it_is = |_: &mut World, _: NodeId| ();
        assert_eq!(does(promote(), standby, as_it_is), Some("M6"));
        assert_eq!(does(races(), standby, as_it_is), Some("M6"));
        assert_eq!(does(races(), leader, as_it_is), None, "it keeps its tenure");
        assert_eq!(does(Action::Guard(GuardAction::Fire), leader, as_it_is), None, "what is over ends");
        let stop = || Action::Postgres(PostgresAction::Stop(StopMode::Fast));
        assert_eq!(does(stop(), standby, as_it_is), Some("M6"));
        assert_eq!(does(stop(), leader, as_it_is), None);
        let start = || Action::Postgres(PostgresAction::Start(StartAs::Primary));
        let leaving = |world: &mut World, node: NodeId| {
            world.nodes[node.0].agent.as_mut().unwrap().state.leaving = true;
        };
        assert_eq!((does(start(), leader, as_it_is), does(start(), leader, leaving)), (Some("M6"), None));
        assert_eq!(does(start(), standby, leaving), Some("M6"));
        let unheard = |world: &mut World, node: NodeId| world.checks.disturbed(Some(node), world.now);
        assert_eq!(does(promote(), standby, unheard), None, "it has not heard of it");
        let told_since = |world: &mut World, node: NodeId| {
            world.checks.disturbed(Some(node), world.now);
            world.now = world.now + ms(1001);
        };
        assert_eq!(does(promote(), standby, told_since), Some("M6"));
        let asked_no_more = |world: &mut World, node: NodeId| world.nodes[node.0].config.unsupported = None;
        assert_eq!(does(promote(), standby, asked_no_more), None);
    }
}
