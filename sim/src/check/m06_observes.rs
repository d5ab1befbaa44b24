//! M6: in a cluster that asks for an unsupported mode nobody races, promotes, starts, stops or copies anything. Whoever led
//! when that was asked keeps its tenure and serves on, and if its agent leaves it ends that as ever.

use matriarch_core::action::{Action, GuardAction, PeerAction, PostgresAction, StoreAction};
use matriarch_core::effects::Order;

use crate::node::NodeId;
use crate::time::ms;
use crate::world::World;

impl World {
    /// M6: an order is about to be carried out.
    pub(super) fn check_observer(&mut self, node: NodeId, order: &Order) {
        // It has heard of the mode; what was frozen or asleep may have to hear of it first.
        let observes = self.nodes[node.0].config.unsupported.is_some() && self.is_quiet(node, 1000);
        if !observes {
            return;
        }
        let led = self.checks.last_leader == Some(node);
        let leaves = led && self.nodes[node.0].agent.as_ref().is_some_and(|agent| agent.state.leaving);
        let server = &self.nodes[node.0].server;
        let stands_by = server.postmaster.as_ref().is_some_and(|pm| pm.in_recovery) && server.orphans.is_none();
        let forbidden = match &order.action {
            // Who leads, or has just lost its key and takes it back.
            Action::Store(StoreAction::GrantTenure { .. } | StoreAction::Acquire(_)) => !led || stands_by,
            Action::Peer(PeerAction::AskPosition { .. }) => !led || stands_by,
            Action::Store(StoreAction::RaceInitialize { .. } | StoreAction::TakeOver { .. }) => true,
            Action::Store(StoreAction::Release { .. }) => self.leads_well(node),
            Action::Store(StoreAction::Revoke { lease }) => {
                let current = self.store.keys().leader.as_ref().is_some_and(|leader| leader.lease == *lease);
                current && self.leads_well(node)
            }
            Action::Postgres(PostgresAction::Stop(_)) | Action::Guard(GuardAction::Fire) => {
                !leaves && ((stands_by && !led) || self.leads_well(node))
            }
            Action::Guard(GuardAction::Hold) => self.leads_well(node),
            Action::Postgres(PostgresAction::Start(_)) => !leaves,
            Action::Postgres(PostgresAction::Freeze | PostgresAction::Follow(_)) => true,
            Action::Postgres(
                PostgresAction::Initdb
                | PostgresAction::Clone(_)
                | PostgresAction::Restart
                | PostgresAction::Promote { .. }
                | PostgresAction::Rewind(_)
                | PostgresAction::RecoverSingleUser,
            ) => true,
            _ => false,
        };
        if forbidden {
            let (what, why) = (crate::coverage::kind(&order.action), order.because.code());
            self.violated("M6", format!("{} only observes and does {what} ({why})", self.names[node.0]));
        }
    }

    /// A primary under its key and its guard, which hears the store and is not asked to leave: nothing ends that.
    fn leads_well(&self, node: NodeId) -> bool {
        let host = &self.nodes[node.0];
        let key = self.store.keys().leader.as_ref().filter(|key| key.member == self.names[node.0]);
        let lives = |lease| self.store.lease_until(lease).is_some_and(|until| until.since(self.now) > ms(1000));
        let key = key.filter(|key| lives(key.lease));
        let guarded = host.guard.as_ref().filter(|guard| !guard.firing).and_then(|guard| guard.armed);
        let armed = key.zip(guarded).is_some_and(|(key, armed)| armed.tenure == key.lease);
        let stays = host.agent.as_ref().is_some_and(|agent| !agent.state.leaving);
        armed && stays && host.server.is_primary() && self.hears_the_store(node) && !self.is_disbelieved()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use matriarch_core::id::{LeaseId, OpId, Timeline};
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
        let stop = || Action::Postgres(PostgresAction::Stop(StopMode::Fast));
        assert_eq!(does(stop(), standby, as_it_is), Some("M6"));
        let over = |world: &mut World, node: NodeId| world.nodes[node.0].guard.as_mut().unwrap().armed = None;
        let alone = |world: &mut World, _: NodeId| world.store_leader = None;
        for end in [stop(), Action::Guard(GuardAction::Fire), Action::Guard(GuardAction::Hold)] {
            assert_eq!(does(end.clone(), leader, as_it_is), Some("M6"), "it serves on");
            assert_eq!(does(end.clone(), leader, over), None, "what is over ends");
            assert_eq!(does(end, leader, alone), None);
        }
        let lease = steady().store.keys().leader.as_ref().unwrap().lease;
        let revoke = |lease| Action::Store(StoreAction::Revoke { lease });
        assert_eq!(does(revoke(lease), leader, as_it_is), Some("M6"));
        assert_eq!(does(revoke(LeaseId(lease.0 + 1)), leader, as_it_is), None, "it is not of this tenure");
        let stands_by = |world: &mut World, node: NodeId| {
            world.nodes[node.0].server.postmaster.as_mut().unwrap().in_recovery = true;
        };
        assert_eq!(does(races(), leader, stands_by), Some("M6"), "it has led, and stands by now");
        let start = || Action::Postgres(PostgresAction::Start(StartAs::Primary));
        let leaving = |world: &mut World, node: NodeId| {
            world.nodes[node.0].agent.as_mut().unwrap().state.leaving = true;
        };
        assert_eq!((does(start(), leader, as_it_is), does(start(), leader, leaving)), (Some("M6"), None));
        assert_eq!((does(stop(), leader, leaving), does(promote(), leader, leaving)), (None, Some("M6")));
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
