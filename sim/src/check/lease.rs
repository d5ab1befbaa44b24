//! S6, what core believes of its lease is true; S7, whoever held a key that goes by its time is silent by then; S9, the
//! leader key hangs on a living lease; S24, it is its holder's to delete; S18, a cluster is born once.

use matriarch_core::time::Instant;
use matriarch_core::view::View;

use crate::node::NodeId;
use crate::store::{Change, Gone};
use crate::time::ms;
use crate::world::World;

impl World {
    /// The leader key was taken, or went.
    pub fn check_store_change(&mut self, change: &Change) {
        match change {
            Change::Taken(leader) => {
                self.checks.taken += 1;
                self.coverage.count("leader key taken");
                let (now, who) = (self.now, leader.member.clone());
                self.trace.world(now, 'L', || format!("{who} takes the leader key, lease {}", leader.lease));
                if self.store.lease_until(leader.lease).is_none() {
                    self.violated("S9", format!("the leader key hangs on lease {}, which is gone", leader.lease));
                }
            }
            Change::Gone(leader, how, by) => {
                if *how == Gone::Released && by.as_ref() != Some(&leader.member) {
                    self.violated("S24", format!("the leader key of {} is deleted by {by:?}", leader.member));
                }
                let (now, who) = (self.now, leader.member.clone());
                self.trace.world(now, 'L', || format!("the leader key of {who} is gone: {how:?}"));
                self.coverage.count(match how {
                    Gone::Expired => "key expired",
                    Gone::Early => "key lost early",
                    Gone::Released => "key released",
                    Gone::Revoked => "key revoked",
                });
                let holder = self.names.iter().position(|name| *name == leader.member).map(NodeId);
                if let Some(holder) = holder {
                    self.check_holder(holder, leader.lease, *how);
                }
            }
        }
    }

    fn check_holder(&mut self, holder: NodeId, lease: matriarch_core::id::LeaseId, how: Gone) {
        if how == Gone::Early {
            self.checks.early.insert(lease, self.now);
            return;
        }
        let place = self.nodes[holder.0].server.cluster().map(|on_disk| on_disk.end);
        // A key that was lost early and taken back hangs on another lease by now.
        let other =
            self.nodes[holder.0].guard.as_ref().and_then(|guard| guard.armed).is_some_and(|a| a.tenure != lease);
        if self.writes_by_rule(holder) && !other {
            let what = format!("{how:?}: {} can acknowledge commits and its key is gone", self.names[holder.0]);
            self.violated("S7", what);
        }
        if how == Gone::Released
            && let Some(decided) = self.checks.hands_over[holder.0]
        {
            self.checks.handed_over = place.map(|place| (decided, place));
        }
    }

    /// S6: authority is never believed in beyond the key.
    pub(super) fn check_belief(&mut self, node: NodeId, at: Instant) {
        let Some(agent) = &self.nodes[node.0].agent else { return };
        let view = View { at, state: &agent.state };
        let Some(held) = view.held().filter(|_| view.authority()) else { return };
        let key = self.store.keys().leader.as_ref();
        let true_now = key.is_some_and(|leader| leader.lease == held.lease);
        if true_now {
            return;
        }
        // Where the key went early its holder has to hear of it: by a watch, or by the next renewal.
        let third = held.ttl / 3 + 2 * matriarch_core::lease::Bounds::attempt_deadline(held.ttl) + ms(1000);
        let quiet = self.now.since(self.checks.quiet_since[node.0]) > third;
        let heard = self.checks.early.get(&held.lease).is_none_or(|early| quiet && self.now.since(*early) > third);
        // Nor does a holder believe a store that went back, as long as its tenure may last.
        let ttl = ms(self.settings.ttl_ms);
        let went_back = self.checks.restored.is_some_and(|at| self.now.since(at) < ttl + third);
        if heard && !went_back {
            // A release that is under way is the holder's own deed: PostgreSQL is dead by then.
            let released = !self.writes_by_rule(node);
            if !released {
                let what = format!("{} believes in lease {}, the store does not", self.names[node.0], held.lease);
                self.violated("S6", what);
            }
        }
    }

    /// S18: the system identifier is published once and stays.
    pub fn check_birth(&mut self) {
        let Some(system) = self.store.keys().system_id() else { return };
        match self.checks.system {
            None => self.checks.system = Some(system),
            Some(known) if known != system => {
                self.violated("S18", format!("the cluster was {known} and is {system}"));
            }
            Some(_) => {}
        }
    }
}
