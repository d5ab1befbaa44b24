//! S5, single writer; S8, nobody writes without the leader key; S30, the standing fence.

use matriarch_core::id::LeaseId;

use crate::node::NodeId;
use crate::time::ms;
use crate::world::World;

impl World {
    /// S5: at no instant could two servers acknowledge a commit, whoever reaches them.
    pub(super) fn check_writers(&mut self) {
        let mut writers = self.nodes.iter().filter(|node| node.server.can_acknowledge());
        if let (Some(one), Some(other)) = (writers.next(), writers.next()) {
            let what = format!("{} and {} can both acknowledge commits", self.names[one.id.0], self.names[other.id.0]);
            self.violated("S5", what);
        }
    }

    /// A server accepts writes from now on: S8, and what its coming means for what others hold.
    pub fn became_writable(&mut self, node: NodeId) {
        self.coverage.count("serves");
        let holds = self.store.keys().leader.as_ref().is_some_and(|leader| leader.member == self.names[node.0]);
        // A key that went early, and a held postmaster that could not be reached: within the time in which its holder
        // may take it back, it is nobody's.
        let lost_early = !self.checks.early.is_empty();
        if !holds && !lost_early {
            let what = format!("{} accepts writes and does not hold the leader key", self.names[node.0]);
            self.violated("S8", what);
        }
        self.check_loss(node);
    }

    /// S30: whoever can acknowledge has a fence that falls before its lease can end. A guard that was killed is the
    /// agent's to replace within a second, or to do without PostgreSQL.
    pub(super) fn check_fences(&mut self) {
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            let Some(guard) = &node.guard else { continue };
            if !node.server.can_acknowledge() || guard.firing {
                continue;
            }
            let Some(armed) = guard.armed else {
                // Backends of a dead postmaster are killed before anything else; nothing can be armed for them.
                let recent = self.now.since(self.checks.quiet_since[index]) < ms(2000);
                if node.server.orphans.is_none() && !recent {
                    let what = format!("{} accepts writes and nothing is armed", self.names[index]);
                    self.violated("S30", what);
                    return;
                }
                continue;
            };
            if armed.tenure == LeaseId(0) || self.checks.early.contains(&armed.tenure) {
                continue;
            }
            let falls = node.clock.when(armed.at);
            let until = self.store.lease_until(armed.tenure);
            if until.is_some_and(|until| falls > until) {
                let what = format!(
                    "the fence of {} falls at {falls}, its lease may end at {}",
                    self.names[index],
                    until.unwrap_or_default()
                );
                self.violated("S30", what);
                return;
            }
        }
    }
}
