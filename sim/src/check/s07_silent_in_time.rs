//! S7: whoever held a key that goes by its time is silent by then.

use matriarch_core::id::LeaseId;

use crate::node::NodeId;
use crate::store::Gone;
use crate::world::World;

impl World {
    /// The leader key is gone: what its holder may still do.
    pub(super) fn check_holder(&mut self, holder: NodeId, lease: LeaseId, how: Gone) {
        if how == Gone::Early {
            self.checks.early.insert(lease, self.now);
            return;
        }
        // A key that was lost early and taken back hangs on another lease by now.
        let other =
            self.nodes[holder.0].guard.as_ref().and_then(|guard| guard.armed).is_some_and(|a| a.tenure != lease);
        // The store tells that it has no guard, in a pause, and nobody takes its place.
        if self.writes_by_rule(holder) && !other && !self.is_let_go(holder) {
            let what = format!("{how:?}: {} can acknowledge commits and its key is gone", self.names[holder.0]);
            self.violated("S7", what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_key_that_went_by_its_time_and_a_holder_that_writes() {
        let expires = |held: bool| {
            broken(move |world| {
                let (node, lease) = (leader(world), key(world).lease);
                world.nodes[node.0].server.held = held;
                world.store.end(lease, Gone::Expired);
                world.store_changed();
            })
        };
        assert_eq!(expires(false), Some("S7"));
        assert_eq!(expires(true), None, "it was silent by then");
        let early = broken(|world| {
            let lease = key(world).lease;
            world.store.end(lease, Gone::Early);
            world.store_changed();
        });
        assert_eq!(early, None, "a key that goes before its time is heard of, not foreseen");
    }
}
