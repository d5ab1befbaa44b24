//! What the tests of the checkers share: a world at peace, to be spoilt by hand.

use matriarch_core::view::store::LeaderKey;

use crate::fault::Plan;
use crate::node::NodeId;
use crate::postgres::OnDisk;
use crate::settings::Settings;
use crate::time::Time;
use crate::trace::Trace;
use crate::world::World;

/// Three nodes that have been at peace for a minute: one leads, two stream.
pub(super) fn steady() -> World {
    let mut world = World::new(Plan::calm(1, Settings::usual()), None, Trace::hash_only());
    world.run_until(Time::from_ms(60_000));
    assert_eq!(world.violation, None);
    world.check_at_the_end();
    assert_eq!(world.violation, None);
    world
}

pub(super) fn leader(world: &World) -> NodeId {
    world.leading().unwrap()
}

pub(super) fn standby(world: &World) -> NodeId {
    NodeId((leader(world).0 + 1) % 3)
}

pub(super) fn other_standby(world: &World) -> NodeId {
    NodeId((leader(world).0 + 2) % 3)
}

/// Which invariant breaks when a steady world is changed and checked so.
pub(super) fn broken(change: impl FnOnce(&mut World)) -> Option<&'static str> {
    let mut world = steady();
    change(&mut world);
    world.violation.map(|violation| violation.invariant)
}

pub(super) fn key(world: &World) -> LeaderKey {
    world.store.keys().leader.clone().unwrap()
}

pub(super) fn on_disk(world: &mut World, node: NodeId) -> &mut OnDisk {
    world.nodes[node.0].server.cluster_mut().unwrap()
}

pub(super) fn leaves_recovery(world: &mut World, node: NodeId) {
    world.nodes[node.0].server.postmaster.as_mut().unwrap().in_recovery = false;
}
