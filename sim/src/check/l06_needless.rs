//! L6: no needless fence.

use matriarch_core::reason::Reason;

use crate::net::{End, Plane};
use crate::node::NodeId;
use crate::time::ms;
use crate::world::World;

impl World {
    /// L6: PostgreSQL is not killed for a key that is there. A key that was heard to be gone is gone; an agent that looks
    /// for its tenure finds it, if the store answers.
    pub fn check_fire(&mut self, node: NodeId, because: &Reason) {
        let key = self.store.keys().leader.as_ref();
        let Some(key) = key.filter(|key| key.member == self.names[node.0]) else { return };
        let alive = self.store.lease_until(key.lease).is_some_and(|until| until.since(self.now) > ms(1000));
        let needless = match because {
            Reason::KeyVanished { .. } | Reason::KeyNotRegained { .. } | Reason::LeaderIsOther { .. } => true,
            Reason::NoTenure => self.hears_the_store(node),
            _ => false,
        };
        let armed = self.nodes[node.0].guard.as_ref().and_then(|guard| guard.armed);
        let fits = armed.is_some_and(|armed| armed.tenure == key.lease);
        if alive && needless && fits && self.nodes[node.0].server.is_primary() {
            let what = format!("{} is fenced ({}) and its key is there", self.names[node.0], because.code());
            self.violated("L6", what);
        }
    }

    /// The store has answered the node for a while, at once. One that takes its time is no key that is there.
    fn hears_the_store(&self, node: NodeId) -> bool {
        let (here, members) = (End::Node(node), 0..self.members.len());
        let whole = members.map(End::Store).all(|store| {
            !self.net.is_cut((Plane::Store, here, store)) && !self.net.is_cut((Plane::Store, store, here))
        });
        let quiet = self.is_quiet(node, self.settings.retry_timeout_ms + 2000);
        whole && quiet && self.was_prompt() && self.store_leader.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_fence_for_a_key_that_is_there() {
        let fired = |because: Reason| broken(move |world| world.check_fire(leader(world), &because));
        assert_eq!(fired(Reason::NoTenure), Some("L6"));
        assert_eq!(fired(Reason::KeyVanished { for_ms: 1 }), Some("L6"));
        assert_eq!(fired(Reason::TenureExpired { ago_ms: 1 }), None, "its own clock may be ahead of the store's");
    }
}
