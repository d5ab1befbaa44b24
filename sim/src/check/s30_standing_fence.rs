//! S30: whoever can acknowledge has a fence that falls before its lease can end. Where agent and guard are both dead nothing
//! of ours is left on that host; a guard alone is the agent's to replace, or to do without PostgreSQL.

use std::time::Duration;

use matriarch_core::id::LeaseId;

use crate::time::ms;
use crate::world::World;

/// How long a primary may go on after its guard died, until another is armed.
const REPLACED_WITHIN: Duration = ms(2000);

impl World {
    pub(super) fn check_fences(&mut self) {
        for index in 0..self.nodes.len() {
            // In a pause there is none, and the store tells of that.
            if self.is_let_go(crate::node::NodeId(index)) {
                self.checks.guardless[index] = None;
                continue;
            }
            let node = &self.nodes[index];
            let guardless = node.awake().is_some() && node.guard.is_none() && self.writes_by_rule(node.id);
            let since = &mut self.checks.guardless[index];
            *since = guardless.then(|| since.unwrap_or(self.now));
            if since.is_some_and(|since| self.now.since(since) > REPLACED_WITHIN) {
                let what = format!("{} accepts writes and has no guard", self.names[index]);
                self.violated("S30", what);
                return;
            }
            let node = &self.nodes[index];
            let Some(guard) = &node.guard else { continue };
            if !self.writes_by_rule(node.id) || guard.firing {
                continue;
            }
            let Some(armed) = guard.armed else {
                // Backends of a dead postmaster are killed before anything else; nothing can be armed for them.
                let recent = self.now.since(guard.since) < REPLACED_WITHIN;
                if node.server.orphans.is_none() && !recent {
                    let what = format!("{} accepts writes and nothing is armed", self.names[index]);
                    self.violated("S30", what);
                    return;
                }
                continue;
            };
            // An agent that starts beside a primary without a guard arms one for no tenure, until it has found its own.
            let key = self.store.keys().leader.as_ref().filter(|key| key.member == self.names[index]);
            let tenure = if armed.tenure == LeaseId(0) { key.map(|key| key.lease) } else { Some(armed.tenure) };
            let Some(tenure) = tenure.filter(|tenure| !self.was_lost_lately(node.id, *tenure)) else { continue };
            let falls = node.clock.when(armed.at);
            let until = self.store.lease_until(tenure);
            // One that is gone has ended: whoever writes goes by a fence that protects nothing. But it may be gone with the
            // past that a store was restored from, and its holder not believe that, or not hear of it; nobody else leads
            // meanwhile.
            if until.is_none() && self.went_back_lately(ms(self.settings.ttl_ms)) {
                continue;
            }
            if until.is_none_or(|until| falls > until) {
                let ends = until.map_or("is gone".into(), |until| format!("may end at {until}"));
                let what = format!("the fence of {} falls at {falls}, its lease {ends}", self.names[index]);
                self.violated("S30", what);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::node::NodeId;
    use crate::store::Gone;
    use crate::time::Time;

    #[test]
    fn a_primary_whose_fence_falls_too_late_or_never() {
        fn armed(change: impl FnOnce(&mut World, NodeId)) -> Option<&'static str> {
            broken(move |world| {
                let node = leader(world);
                change(world, node);
                world.check_fences();
            })
        }
        assert_eq!(armed(|world, node| world.nodes[node.0].guard.as_mut().unwrap().armed = None), Some("S30"));
        let beyond = |world: &mut World, node: NodeId| {
            let armed = world.nodes[node.0].guard.as_mut().unwrap().armed.as_mut().unwrap();
            armed.at = armed.at + Duration::from_secs(60);
        };
        assert_eq!(armed(beyond), Some("S30"));
        let ends = |how: Gone, long_ago: bool| {
            move |world: &mut World, node: NodeId| {
                let lease = key(world).lease;
                world.nodes[node.0].server.held = true;
                world.store.end(lease, how);
                world.store_changed();
                world.nodes[node.0].server.held = false;
                if long_ago {
                    world.checks.early.insert(lease, Time::from_ms(1000));
                }
            }
        };
        assert_eq!(armed(ends(Gone::Expired, false)), Some("S30"), "its lease is gone");
        assert_eq!(armed(ends(Gone::Early, false)), None, "and it is still to hear of that");
        assert_eq!(armed(ends(Gone::Early, true)), Some("S30"), "it has heard");
        let restored = |ago_ms: u64| {
            move |world: &mut World, node: NodeId| {
                ends(Gone::Early, true)(world, node);
                world.checks.restored(world.now);
                world.now = world.now + ms(ago_ms);
                let at = world.clock(node) + ms(1000);
                world.nodes[node.0].guard.as_mut().unwrap().armed.as_mut().unwrap().at = at;
            }
        };
        assert_eq!(armed(restored(1000)), None, "what it holds was restored away, and it does not know that");
        assert_eq!(armed(restored(60_000)), Some("S30"), "its tenure cannot have lasted for so long");
        let newborn = |world: &mut World, node: NodeId| {
            let guard = world.nodes[node.0].guard.as_mut().unwrap();
            (guard.armed, guard.since) = (None, world.now);
        };
        assert_eq!(armed(newborn), None, "one that has just taken the place of a dead one is armed at once");
        let killed = |since_ms: u64, frozen: bool| {
            broken(move |world| {
                let node = leader(world);
                world.nodes[node.0].guard = None;
                world.nodes[node.0].agent.as_mut().unwrap().frozen = frozen;
                world.check_fences();
                world.now = world.now + ms(since_ms);
                world.check_fences();
            })
        };
        assert_eq!(killed(2001, false), Some("S30"));
        assert_eq!(killed(2000, false), None, "its agent replaces it");
        assert_eq!(killed(2001, true), None, "and nothing of ours is left without one");
    }
}
