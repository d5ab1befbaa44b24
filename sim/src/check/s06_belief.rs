//! S6: what core believes of its lease is true, until it hears otherwise.

use matriarch_core::action::{Action, StoreAction};
use matriarch_core::id::LeaseId;
use matriarch_core::lease::Bounds;
use matriarch_core::state::State;
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
            // PostgreSQL is dead before a tenure is given back.
            if !gives_back(&agent.state, held.lease) || self.writes_by_rule(node) {
                let what = format!("{} believes in lease {}, the store does not", self.names[node.0], held.lease);
                self.violated("S6", what);
            }
        }
    }

    /// Where the key went early its holder has to hear of it: by a watch, or by the next renewal; or, where it hears nothing of
    /// the store, its tenure ends.
    pub(super) fn may_not_have_heard(&self, node: NodeId, lease: LeaseId, ttl: Duration) -> bool {
        let quiet = self.now.since(self.checks.quiet_since[node.0]) > heard_within(ttl);
        let limit = if self.store_answers(node) { heard_within(ttl) } else { ttl };
        let early = self.checks.early.get(&lease);
        early.is_some_and(|early| !quiet || self.now.since(*early) <= limit)
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

/// A release or a revocation is the holder's own deed: until its answer is here, or is not waited for any more, nobody knows
/// whether the store has done it.
pub(crate) fn gives_back(state: &State, lease: LeaseId) -> bool {
    state.ops.iter().any(|(_, in_flight)| match &in_flight.action {
        Action::Store(StoreAction::Release { .. }) => true,
        Action::Store(StoreAction::Revoke { lease: revoked }) => *revoked == lease,
        _ => false,
    })
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
    use matriarch_core::event::{MoveRequest, Request};
    use matriarch_core::state::Ops;
    use matriarch_core::view::guard::Armed;
    use matriarch_core::view::postgres::Phase;

    #[test]
    fn a_belief_in_a_lease_that_is_not_there() {
        let believes = |held: bool| {
            broken(move |world| {
                let (node, lease) = (leader(world), key(world).lease);
                world.nodes[node.0].server.held = true;
                world.store.end(lease, Gone::Expired);
                world.store_changed();
                world.nodes[node.0].server.held = held;
                let at = world.clock(node);
                world.check_belief(node, at);
            })
        };
        assert_eq!(believes(false), Some("S6"));
        assert_eq!(believes(true), Some("S6"), "that it does not write just now makes it no truer");
    }

    #[test]
    fn a_belief_in_a_lease_that_is_given_back() {
        let believes = |starts: bool, unheard: bool| {
            broken(move |world| {
                let (node, lease) = (leader(world), key(world).lease);
                let (leader, candidate) =
                    (Some(world.names[node.0].clone()), Some(world.names[standby(world).0].clone()));
                let request = MoveRequest { switchover: true, leader, candidate, scheduled_at: None, refused: false };
                world.operator_asks(node, Request::Move(request));
                let gives = |world: &World| gives_back(&world.nodes[node.0].agent.as_ref().unwrap().state, lease);
                while !gives(world) {
                    world.run_until(world.now + Duration::from_micros(10));
                }
                // What its guard answers to being disarmed may come later.
                let armed = Armed { tenure: lease, at: world.clock(node) + ms(1000) };
                world.nodes[node.0].agent.as_mut().unwrap().state.guard.armed = Some(armed);
                world.store.end(lease, Gone::Released);
                if starts {
                    world.fork(node, None);
                    let pm = world.nodes[node.0].server.postmaster.as_mut().unwrap();
                    (pm.phase, pm.in_recovery) = (Phase::Ready, false);
                }
                if !unheard {
                    world.nodes[node.0].agent.as_mut().unwrap().state.ops = Ops::default();
                }
                let at = world.clock(node);
                world.check_belief(node, at);
            })
        };
        assert_eq!(believes(false, true), None, "its answer is on the way, and it is dead");
        assert_eq!(believes(false, false), Some("S6"), "nothing is on the way");
        assert_eq!(believes(true, true), Some("S6"), "it gives back what it writes under");
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
