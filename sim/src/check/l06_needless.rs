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
        // It was gone, and a store that went back once more has brought it back.
        if let (Reason::KeyNotRegained { after_ms }, Some(at)) = (because, self.checks.restored)
            && self.now.since(at) < ms(*after_ms)
        {
            return;
        }
        let alive = self.store.lease_until(key.lease).is_some_and(|until| until.since(self.now) > ms(1000));
        let over = self.nodes[node.0].agent.as_ref().is_some_and(|agent| agent.state.spent == Some(key.lease));
        let needless = match because {
            Reason::KeyVanished { .. } | Reason::KeyNotRegained { .. } | Reason::LeaderIsOther { .. } => true,
            // A tenure that is over is over; the first order to end it was judged.
            Reason::NoTenure => !over && !self.is_disbelieved() && self.hears_the_store(node),
            _ => false,
        };
        let armed = self.nodes[node.0].guard.as_ref().and_then(|guard| guard.armed);
        let fits = armed.is_some_and(|armed| armed.tenure == key.lease);
        if alive && needless && fits && self.nodes[node.0].server.is_primary() {
            let what = format!("{} is fenced ({}) and its key is there", self.names[node.0], because.code());
            self.violated("L6", what);
        }
    }

    /// L6: nor does the guard's instant come while the agent could renew, and move it: the key is there, the store answers.
    pub fn check_due_fence(&mut self, node: NodeId) {
        if self.is_disbelieved() {
            return;
        }
        let key = self.store.keys().leader.as_ref().filter(|key| key.member == self.names[node.0]);
        let alive = key.and_then(|key| self.store.lease_until(key.lease));
        let lives = alive.is_some_and(|until| until.since(self.now) > ms(1000));
        let awake = self.nodes[node.0].agent.as_ref().is_some_and(|agent| !agent.frozen);
        let quiet = self.is_quiet(node, self.settings.ttl_ms / 2);
        if lives && awake && quiet && self.hears_the_store(node) && self.nodes[node.0].server.is_primary() {
            let what = format!("the guard of {} has not heard of renewals, and its key is there", self.names[node.0]);
            self.violated("L6", what);
        }
    }

    /// The store has gone back: its keys are not believed for as long as a tenure may last.
    fn is_disbelieved(&self) -> bool {
        let ttl = ms(2 * self.settings.ttl_ms);
        self.checks.restored.is_some_and(|at| self.now.since(at) < ttl)
    }

    /// The store has answered the node for a while, at once. One that takes its time is no key that is there.
    fn hears_the_store(&self, node: NodeId) -> bool {
        let quiet = self.is_quiet(node, self.settings.retry_timeout_ms + 2000);
        quiet && self.was_prompt() && self.store_answers(node)
    }

    /// The store has a leader, and node and store hear each other.
    pub(super) fn store_answers(&self, node: NodeId) -> bool {
        let (here, members) = (End::Node(node), 0..self.members.len());
        let whole = members.map(End::Store).all(|store| {
            !self.net.is_cut((Plane::Store, here, store)) && !self.net.is_cut((Plane::Store, store, here))
        });
        let up = self.members.iter().all(|member| member.up && !member.frozen);
        whole && up && self.store_leader.is_some()
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
        let again = |change: fn(&mut World, NodeId)| {
            broken(move |world| {
                let node = leader(world);
                change(world, node);
                world.check_fire(node, &Reason::NoTenure);
            })
        };
        let over = |world: &mut World, node: NodeId| {
            let lease = world.store.keys().leader.as_ref().unwrap().lease;
            world.nodes[node.0].agent.as_mut().unwrap().state.spent = Some(lease);
        };
        assert_eq!(again(over), None, "it did not die at the first blow");
        assert_eq!(again(|world, _| world.checks.restored = Some(world.now)), None, "the store is not believed");
    }

    #[test]
    fn a_fence_that_falls_due_while_the_lease_is_renewed() {
        let due = |change: fn(&mut World, NodeId)| {
            broken(move |world| {
                let node = leader(world);
                change(world, node);
                world.check_due_fence(node);
            })
        };
        assert_eq!(due(|_, _| ()), Some("L6"));
        assert_eq!(due(|world, node| world.checks.disturbed(Some(node), world.now)), None);
        assert_eq!(due(|world, node| world.nodes[node.0].agent.as_mut().unwrap().frozen = true), None);
        assert_eq!(due(|world, _| world.store_leader = None), None, "the store is away");
    }
}
