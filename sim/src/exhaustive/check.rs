//! What must hold in every state of the small world; the ids are those of `docs/invariants.md`. M1, and what else
//! `State::check` asserts, is core's own to see in every step.

use matriarch_core::id::LeaseId;
use matriarch_core::view::View;
use matriarch_core::view::store::LeaderKey;

use super::world::{World, name};
use crate::check::gives_back;
use crate::store::{Change, Gone};
use crate::time::{Time, ms};

/// A guard that was killed is replaced within a second, or PostgreSQL is stopped; what that takes comes on top.
const UNARMED_MAX_MS: u64 = 2000;

impl World {
    /// After every move.
    pub(super) fn check(&mut self) {
        if self.nodes.iter().all(|node| node.server.can_acknowledge()) {
            self.breaks("S5", "both servers can acknowledge commits".into());
        }
        for node in 0..2 {
            self.check_belief(node);
            self.check_fence(node);
            // Also where it goes on after it was held or stood still.
            if self.nodes[node].server.can_acknowledge() {
                self.check_holds(node);
            }
        }
    }

    /// S6: authority is not believed in beyond the key. Where that went early its holder has to hear of it first; a
    /// release that is under way is the holder's own deed, and its PostgreSQL is dead.
    pub(super) fn check_belief(&mut self, node: usize) {
        let Some(agent) = &self.nodes[node].agent else { return };
        let view = View { at: self.clock(), state: &agent.state };
        let Some(held) = view.held().filter(|_| view.authority()) else { return };
        let is_under = |leader: Option<&LeaderKey>| leader.is_some_and(|leader| leader.lease == held.lease);
        let unheard = agent.state.store.cluster.as_ref().is_some_and(|seen| is_under(seen.value.leader.as_ref()));
        let is_true = is_under(self.store.keys().leader.as_ref()) || (self.early.contains(&held.lease) && unheard);
        let given_back = gives_back(&agent.state, held.lease) && !self.nodes[node].server.can_acknowledge();
        if !is_true && !given_back {
            let what = format!("{} believes in lease {}, the store does not", name(node), held.lease);
            self.breaks("S6", what);
        }
    }

    /// S30: whoever can acknowledge has a fence, and it falls before its lease can end.
    fn check_fence(&mut self, node: usize) {
        let now = self.now;
        let host = &self.nodes[node];
        let armed = host.guard.as_ref().and_then(|guard| guard.armed);
        // Backends of a dead postmaster are killed before anything else; nothing can be armed for them.
        let writes = host.server.can_acknowledge() && host.server.orphans.is_none();
        let exposed = writes && armed.is_none();
        let since = exposed.then(|| host.exposed.unwrap_or(now));
        if since != host.exposed {
            self.nodes[node].exposed = since;
        }
        if since.is_some_and(|since| now.since(since) > ms(UNARMED_MAX_MS)) {
            self.breaks("S30", format!("{} accepts writes and nothing is armed", name(node)));
        }
        let Some(armed) = armed.filter(|armed| writes && armed.tenure != LeaseId(0)) else { return };
        let until = self.store.lease_until(armed.tenure);
        if !self.early.contains(&armed.tenure) && until.is_none_or(|until| Time(armed.at.0) > until) {
            self.breaks("S30", format!("the fence of {} falls after its lease may have ended", name(node)));
        }
    }

    /// S7: whoever held a key that goes in its time is silent by then. S24: a release is its holder's.
    pub(super) fn check_change(&mut self, change: &Change) {
        let Change::Gone(leader, how, by) = change else { return };
        if *how == Gone::Early {
            self.early.insert(leader.lease);
            return;
        }
        if *how == Gone::Released && by.as_ref() != Some(&leader.member) {
            self.breaks("S24", format!("the leader key of {} is deleted by {by:?}", leader.member));
        }
        let Some(holder) = (0..2).find(|node| name(*node) == leader.member) else { return };
        let host = &self.nodes[holder];
        let other = host.guard.as_ref().and_then(|guard| guard.armed).is_some_and(|a| a.tenure != leader.lease);
        if host.server.can_acknowledge() && !other {
            self.breaks("S7", format!("{how:?}: {} can acknowledge commits and its key is gone", leader.member));
        }
    }

    /// S8: nobody is a primary that writes without the key. The one that it was armed for may have gone early.
    pub(super) fn check_holds(&mut self, node: usize) {
        let holds = self.store.keys().leader.as_ref().is_some_and(|leader| leader.member == name(node));
        let armed = self.nodes[node].guard.as_ref().and_then(|guard| guard.armed);
        let early = armed.is_some_and(|armed| self.early.contains(&armed.tenure));
        if !holds && !early {
            self.breaks("S8", format!("{} accepts writes and does not hold the leader key", name(node)));
        }
    }
}
