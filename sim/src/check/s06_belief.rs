//! S6: what core believes of its lease is true, until it hears otherwise.

use matriarch_core::id::LeaseId;
use matriarch_core::lease::Bounds;
use matriarch_core::time::{Duration, Instant};
use matriarch_core::view::View;

use crate::node::NodeId;
use crate::time::ms;
use crate::world::World;

impl World {
    /// The store refuses to renew a lease: whoever asked is told here.
    pub fn note_refused(&mut self, node: NodeId, lease: LeaseId) {
        self.checks.refused[node.0] = Some(lease);
    }

    /// S6: authority is never believed in beyond the key.
    pub(super) fn check_belief(&mut self, node: NodeId, at: Instant) {
        let Some(agent) = &self.nodes[node.0].agent else { return };
        let view = View { at, state: &agent.state };
        let Some(held) = view.held().filter(|_| view.authority()) else { return };
        if self.checks.refused[node.0] == Some(held.lease) {
            let what = format!("{} believes in lease {} and was told that it is lost", self.names[node.0], held.lease);
            self.violated("S6", what);
            return;
        }
        let key = self.store.keys().leader.as_ref();
        let true_now = key.is_some_and(|leader| leader.lease == held.lease);
        if true_now {
            return;
        }
        if !self.may_not_have_heard(node, held.lease, held.ttl) && !self.went_back_lately(held.ttl) {
            // A release that is under way is the holder's own deed: PostgreSQL is dead by then.
            let released = !self.writes_by_rule(node);
            if !released {
                let what = format!("{} believes in lease {}, the store does not", self.names[node.0], held.lease);
                self.violated("S6", what);
            }
        }
    }

    /// Where the key went early its holder has to hear of it: by a watch, or by the next renewal.
    pub(super) fn may_not_have_heard(&self, node: NodeId, lease: LeaseId, ttl: Duration) -> bool {
        let quiet = self.now.since(self.checks.quiet_since[node.0]) > heard_within(ttl);
        let early = self.checks.early.get(&lease);
        early.is_some_and(|early| !quiet || self.now.since(*early) <= heard_within(ttl))
    }

    /// The same, of a lease of which nobody knows any more for how long it was granted: for no longer than was ever asked.
    pub(super) fn was_lost_lately(&self, node: NodeId, lease: LeaseId) -> bool {
        self.may_not_have_heard(node, lease, ms(self.settings.ttl_ms))
    }

    /// A holder does not believe a store that went back, as long as its tenure may last.
    pub(super) fn went_back_lately(&self, ttl: Duration) -> bool {
        let last = ms(self.settings.ttl_ms) + heard_within(ttl);
        self.checks.restored.is_some_and(|at| self.now.since(at) < last)
    }
}

/// How long a holder without a word of the store needs at most until it asks, and has an answer.
fn heard_within(ttl: Duration) -> Duration {
    ttl / 3 + 2 * Bounds::attempt_deadline(ttl) + ms(1000)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::store::Gone;

    #[test]
    fn a_belief_in_a_lease_that_is_not_there() {
        let believes = |writes: bool| {
            broken(move |world| {
                let (node, lease) = (leader(world), key(world).lease);
                world.nodes[node.0].server.held = true;
                world.store.end(lease, Gone::Expired);
                world.store_changed();
                world.nodes[node.0].server.held = !writes;
                let at = world.clock(node);
                world.check_belief(node, at);
            })
        };
        assert_eq!(believes(true), Some("S6"));
        assert_eq!(believes(false), None, "a holder that released it is dead");
    }

    #[test]
    fn a_belief_in_a_lease_that_was_told_to_be_lost() {
        let told = |lease: fn(&World) -> LeaseId| {
            broken(move |world| {
                let (node, lease) = (leader(world), lease(world));
                world.note_refused(node, lease);
                let at = world.clock(node);
                world.check_belief(node, at);
            })
        };
        assert_eq!(told(|world| key(world).lease), Some("S6"));
        assert_eq!(told(|_| LeaseId(4711)), None, "an earlier one");
    }
}
