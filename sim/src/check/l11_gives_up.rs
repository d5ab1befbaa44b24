//! L11: a leader that cannot serve does not keep its tenure for ever where another could take over.

use std::time::Duration;

use matriarch_core::config::{ASKED_START_LIMIT, CHECKPOINT_LIMIT, STOP_LIMIT};

use crate::node::NodeId;
use crate::postgres::wal::Place;
use crate::time::ms;
use crate::world::World;

/// Beside what is configured: three failed starts, a promotion that hangs, a stop that hangs.
const STAGES_MS: u64 = 30_000;

impl World {
    /// After everything: since when the holder of the leader key does not serve and another could.
    pub(super) fn check_gives_up(&mut self) {
        let key = self.store.keys().leader.as_ref().map(|key| (key.created, key.member.clone()));
        let holder = key.as_ref().and_then(|(_, member)| self.named(member));
        let idle = holder.filter(|holder| !self.nodes[holder.0].server.can_acknowledge());
        let (Some((created, _)), Some(holder)) = (key, idle.filter(|holder| self.has_heirs(*holder))) else {
            self.checks.idle = None;
            return;
        };
        // While the store is away nobody can give a key up, and none ends.
        let answers = self.store_answers(holder);
        let known = self.checks.idle.filter(|(since_key, _)| *since_key == created && answers);
        let (_, since) = *self.checks.idle.insert(known.unwrap_or((created, self.now)));
        // A key whose holder has no agent ends by its time, and that of a store without quorum does not count.
        let awake = self.nodes[holder.0].awake().is_some() && self.store_leader.is_some();
        // Whoever stops by hand what comes up has it begin anew.
        let by_hand = self.checks.stopped_by_hand[holder.0].unwrap_or_default();
        let since = since.max(self.nodes[holder.0].booted).max(by_hand);
        if self.now.since(since) <= self.idle_bound(holder) || !awake || !self.is_quiet(holder, 10_000) {
            return;
        }
        let what = format!("{} leads since {since} at least and does not serve", self.names[holder.0]);
        self.violated("L11", what);
    }

    /// Another could take over: it holds enough of what the leaders have told.
    fn has_heirs(&self, holder: NodeId) -> bool {
        let limit = self.checks.lag_limits.last().map_or(self.settings.maximum_lag_bytes, |(_, bytes)| *bytes);
        let mut others = (0..self.nodes.len()).map(NodeId).filter(|node| *node != holder);
        others.any(|heir| {
            let place = self.could_lead(heir).filter(|_| self.store_answers(heir));
            place.is_some_and(|place| self.lacks_bytes(place) <= limit)
        })
    }

    /// How much of what was published last is not there.
    fn lacks_bytes(&self, place: Place) -> u64 {
        let Some(published) = self.checks.published else { return 0 };
        self.wal.lsn(published).bytes_ahead_of(self.wal.lsn(self.wal.shared(place, published)))
    }

    /// What an operator has asked for may take long also where a crash may not take at all.
    fn idle_bound(&self, holder: NodeId) -> Duration {
        let requested = self.nodes[holder.0].agent.as_ref().is_some_and(|agent| agent.state.memory.requested);
        let configured = ms(self.settings.primary_start_timeout_ms);
        let start = if requested && configured.is_zero() { ASKED_START_LIMIT } else { configured };
        let checkpoint = ms(self.pace.checkpoint.1);
        // Who tells nothing of itself is waited for as long.
        let silent = ms(self.settings.ttl_ms);
        start + silent + checkpoint + self.stop_bound(holder) + ms(self.settings.serving_bound_ms() + STAGES_MS)
    }

    /// A session that takes no notice is waited for, and once more where somebody else had asked for the stop: for longer then
    /// where this agent does not know that a checkpoint was written just before.
    fn stop_bound(&self, holder: NodeId) -> Duration {
        let since = self.checks.idle.map_or(self.now, |(_, since)| since);
        let host = &self.nodes[holder.0];
        let waits = host.server.postmaster.as_ref().is_some_and(|pm| pm.waits_for_session);
        let waited = self.checks.waited_for_session.is_some_and(|at| at >= since);
        if !waits && !waited {
            return Duration::ZERO;
        }
        let known = host.server.checkpointed.filter(|at| *at > host.booted);
        let written = known.is_some_and(|at| since.since(at) < STOP_LIMIT);
        STOP_LIMIT + if written { STOP_LIMIT } else { CHECKPOINT_LIMIT }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::postgres::wal::Record;

    #[test]
    fn a_leader_that_never_serves() {
        let idle = |heirs: bool| {
            broken(move |world| {
                let node = leader(world);
                world.nodes[node.0].server.held = true;
                world.check_gives_up();
                world.now = world.now + world.idle_bound(node) + ms(1000);
                if !heirs {
                    for other in [standby(world), other_standby(world)] {
                        world.nodes[other.0].agent.as_mut().unwrap().frozen = true;
                    }
                }
                world.check_gives_up();
            })
        };
        assert_eq!(idle(true), Some("L11"));
        // Enough is published on a branch that nobody else is on.
        let unfit = |limit_bytes: u64| {
            broken(move |world| {
                let node = leader(world);
                world.nodes[node.0].server.held = true;
                let place = world.nodes[node.0].place().expect("it leads");
                world.settings.maximum_lag_bytes = limit_bytes;
                world.checks.published = Some(world.wal.append(place, Record::EndOfRecovery));
                world.check_gives_up();
                world.now = world.now + world.idle_bound(node) + ms(1000);
                world.check_gives_up();
            })
        };
        assert_eq!((unfit(1000), unfit(0)), (Some("L11"), None));
        let away = broken(|world| {
            let node = leader(world);
            world.nodes[node.0].server.held = true;
            world.check_gives_up();
            world.store_leader = None;
            world.now = world.now + world.idle_bound(node) + ms(1000);
            world.check_gives_up();
        });
        assert_eq!(away, None, "without a store nobody can give up");
        let deaf = |checkpoint: bool, for_s: u64| {
            broken(move |world| {
                let node = leader(world);
                world.nodes[node.0].server.checkpointed = checkpoint.then_some(world.now);
                let allowed = STOP_LIMIT + if checkpoint { STOP_LIMIT } else { CHECKPOINT_LIMIT };
                world.stop(node, matriarch_core::view::postgres::StopMode::Fast);
                world.nodes[node.0].server.postmaster.as_mut().unwrap().waits_for_session = true;
                world.check_gives_up();
                world.now = world.now + world.idle_bound(node).saturating_sub(allowed) + ms(for_s * 1000);
                world.check_gives_up();
            })
        };
        assert_eq!(
            (deaf(true, 119), deaf(true, 121)),
            (None, Some("L11")),
            "a session is waited for, and not for ever"
        );
        assert_eq!((deaf(false, 359), deaf(false, 361)), (None, Some("L11")), "it may be a checkpoint");
        assert_eq!(idle(false), None, "nobody else could");
        let by_hand = broken(|world| {
            let node = leader(world);
            world.nodes[node.0].server.held = true;
            world.check_gives_up();
            world.now = world.now + world.idle_bound(node) + ms(1000);
            world.checks.stopped_by_hand[node.0] = Some(world.now);
            world.check_gives_up();
        });
        assert_eq!(by_hand, None, "an operator has just stopped what came up");
    }
}
