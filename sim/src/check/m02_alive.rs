//! M2: nothing is started, made, rewound, cloned or recovered beside processes of PostgreSQL that live, and a tenure is not
//! given back while its PostgreSQL may write. What is judged is core's order and the processes that there are, whatever core
//! was told of them.

use matriarch_core::action::{Action, PostgresAction, StoreAction};
use matriarch_core::effects::Order;

use crate::node::NodeId;
use crate::time::{Time, ms};
use crate::world::World;

/// An agent that is awake sees within this time what an operator has done behind its back.
const SEEN_WITHIN_MS: u64 = 2000;

impl World {
    /// M2: an order is about to be carried out.
    pub(super) fn check_beside_living(&mut self, node: NodeId, order: &Order) {
        let beside = match &order.action {
            Action::Postgres(
                PostgresAction::Initdb
                | PostgresAction::Clone(_)
                | PostgresAction::Restore
                | PostgresAction::Start(_)
                | PostgresAction::Rewind(_)
                | PostgresAction::RecoverSingleUser,
            ) => self.lives(node),
            Action::Store(StoreAction::Release { .. }) => self.may_write(node),
            // An earlier tenure may be revoked beside a later one.
            Action::Store(StoreAction::Revoke { lease }) => {
                let leader = self.store.keys().leader.as_ref();
                leader.is_some_and(|leader| leader.lease == *lease) && self.may_write(node)
            }
            _ => false,
        };
        if beside && !self.hides_a_deed(node) {
            let (what, why) = (crate::coverage::kind(&order.action), order.because.code());
            self.violated("M2", format!("{} does {what} ({why}) and its PostgreSQL lives", self.names[node.0]));
        }
    }

    fn lives(&self, node: NodeId) -> bool {
        let server = &self.nodes[node.0].server;
        server.postmaster.is_some() || server.orphans.is_some()
    }

    /// It is a primary, or is about to be one, or somebody goes on as one.
    fn may_write(&self, node: NodeId) -> bool {
        let server = &self.nodes[node.0].server;
        let primary = server.postmaster.as_ref().is_some_and(|pm| !pm.in_recovery || pm.promoting.is_some());
        primary || server.orphans.is_some_and(|orphans| orphans.write)
    }

    /// An operator has started, stopped or promoted the server, or the guard has stopped it in the moment in which an agent came
    /// back, so lately that the agent need not have seen it.
    pub(super) fn hides_a_deed(&self, node: NodeId) -> bool {
        let checks = &self.checks;
        let deeds = [&checks.by_hand, &checks.stopped_by_hand, &checks.started_by_hand, &checks.wound_down];
        let deed: Option<Time> = deeds.into_iter().filter_map(|deeds| deeds[node.0]).max();
        deed.is_some_and(|at| self.now.since(at.max(checks.quiet_since[node.0])) < ms(SEEN_WITHIN_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::postgres::Orphans;
    use matriarch_core::id::{LeaseId, Lsn, OpId, Timeline};
    use matriarch_core::reason::Reason;
    use matriarch_core::view::postgres::StartAs;

    fn ordered(action: Action, of: fn(&World) -> NodeId, spoil: fn(&mut World, NodeId)) -> Option<&'static str> {
        broken(move |world| {
            let node = of(world);
            spoil(world, node);
            world.check_beside_living(node, &Order { op: OpId(1), action, because: Reason::AtGoal, under: None });
        })
    }

    fn as_it_is(_: &mut World, _: NodeId) {}

    fn leaves(world: &mut World, node: NodeId, write: bool) {
        world.gone(node);
        world.nodes[node.0].server.orphans = Some(Orphans { count: 1, write });
    }

    #[test]
    fn something_is_begun_beside_a_server() {
        for action in
            [PostgresAction::Start(StartAs::Primary), PostgresAction::RecoverSingleUser, PostgresAction::Initdb]
        {
            let begun = |spoil| ordered(Action::Postgres(action.clone()), standby, spoil);
            assert_eq!(begun(as_it_is), Some("M2"));
            assert_eq!(begun(|world, node| leaves(world, node, false)), Some("M2"), "backends of a dead postmaster");
            assert_eq!(begun(World::gone), None);
            let lately = |world: &mut World, node: NodeId| world.checks.started_by_hand[node.0] = Some(world.now);
            assert_eq!(begun(lately), None, "an operator was faster");
            let long_ago = |world: &mut World, node: NodeId| {
                world.checks.started_by_hand[node.0] = Some(world.now);
                world.now = world.now + ms(SEEN_WITHIN_MS);
            };
            assert_eq!(begun(long_ago), Some("M2"));
            let stood_still = |world: &mut World, node: NodeId| {
                world.checks.started_by_hand[node.0] = Some(world.now);
                world.now = world.now + ms(SEEN_WITHIN_MS);
                world.checks.disturbed(Some(node), world.now);
            };
            assert_eq!(begun(stood_still), None, "its agent was frozen meanwhile");
        }
        assert_eq!(ordered(Action::Postgres(PostgresAction::Restart), standby, as_it_is), None, "that ends it first");
    }

    #[test]
    fn a_tenure_that_is_given_back_too_soon() {
        let release = || {
            let (lease, epoch, position) = (LeaseId(1), matriarch_core::id::Revision(1), Lsn(1));
            Action::Store(StoreAction::Release {
                lease,
                epoch,
                position,
                timeline: Timeline(1),
                history: None,
                record: Box::default(),
                session: None,
            })
        };
        assert_eq!(ordered(release(), leader, as_it_is), Some("M2"));
        assert_eq!(ordered(release(), leader, World::gone), None);
        assert_eq!(ordered(release(), leader, |world, node| leaves(world, node, true)), Some("M2"));
        assert_eq!(ordered(release(), leader, |world, node| leaves(world, node, false)), None, "who only reads");
        assert_eq!(ordered(release(), standby, as_it_is), None, "it never wrote");
        let promoted = |world: &mut World, node: NodeId| {
            world.nodes[node.0].server.postmaster.as_mut().unwrap().promoting = Some(Timeline(2));
        };
        assert_eq!(ordered(release(), standby, promoted), Some("M2"), "it is about to");
        let revoked = |of_the_leader: bool| {
            broken(move |world| {
                let lease = if of_the_leader { key(world).lease } else { LeaseId(0) };
                let action = Action::Store(StoreAction::Revoke { lease });
                let order = Order { op: OpId(1), action, because: Reason::AtGoal, under: None };
                world.check_beside_living(leader(world), &order);
            })
        };
        assert_eq!((revoked(true), revoked(false)), (Some("M2"), None), "an earlier tenure's lease is of no use");
    }
}
