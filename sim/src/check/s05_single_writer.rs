//! S5: two servers never acknowledge commits at one instant.

use crate::node::NodeId;
use crate::time::ms;
use crate::world::World;

impl World {
    /// S5: at no instant could two servers acknowledge a commit, whoever reaches them.
    pub(super) fn check_writers(&mut self) {
        // What `docs/time.md` asks of who restores a store was not kept to.
        if self.checks.unaware.is_some_and(|at| self.now.since(at) < ms(2 * self.settings.ttl_ms)) {
            return;
        }
        let mut writers =
            self.nodes.iter().filter(|node| self.writes_by_rule(node.id) && !self.is_overtaken_unheard(node.id));
        if let (Some(one), Some(other)) = (writers.next(), writers.next()) {
            let what = format!("{} and {} can both acknowledge commits", self.names[one.id.0], self.names[other.id.0]);
            self.violated("S5", what);
        }
    }

    /// The leader key was taken. Whoever had it before may write on if it went before its time, he hears nothing of the store,
    /// and whoever takes it has not heard from him that he is the primary: the one hole that no clock closes (docs/time.md).
    pub(super) fn note_overtaken(&mut self, taker: NodeId) {
        let deaf = |last: NodeId| {
            let early = self.checks.last_lease[last.0].is_some_and(|lease| self.was_lost_lately(last, lease));
            early && !self.store_answers(last) && !self.has_heard_primary(taker, last)
        };
        // Whoever takes back what he has lost takes it from nobody else.
        if let Some(last) = self.checks.last_leader.filter(|last| *last != taker) {
            self.checks.overtaken_unheard = deaf(last).then_some(last);
        }
    }

    /// It was, and the store has not told it so yet.
    pub(super) fn is_overtaken_unheard(&self, node: NodeId) -> bool {
        let tells = self.store_answers(node) && self.now.since(self.checks.quiet_since[node.0]) > ms(1000);
        let lease = self.checks.last_lease[node.0];
        let lately = lease.is_some_and(|lease| self.was_lost_lately(node, lease));
        self.checks.overtaken_unheard == Some(node) && !tells && lately
    }

    /// A commit can be acknowledged there, and Matriarch answers for it: not in the moment that a guard needs to wake
    /// after a suspend, nor where an operator has just made a primary of a server by hand.
    pub(super) fn writes_by_rule(&self, node: NodeId) -> bool {
        let writes = self.nodes[node.0].server.can_acknowledge() && !self.is_foreign(node);
        writes && !self.is_waking(node) && !self.is_by_hand(node)
    }

    /// What an operator made a primary by hand is Matriarch's once it holds the leader key, under a guard that is armed for
    /// it or, in a pause, let go: as a leader is that he has only restarted. While it is still to come up the key may go.
    pub(super) fn note_taken_up(&mut self) {
        for index in 0..self.nodes.len() {
            let key = self.store.keys().leader.as_ref().filter(|key| key.member == self.names[index]);
            let node = &self.nodes[index];
            let guarded = |lease| {
                let guard = node.guard.as_ref().filter(|guard| !guard.firing);
                guard.and_then(|guard| guard.armed).is_some_and(|armed| armed.tenure == lease)
            };
            let holds = key.is_some_and(|key| guarded(key.lease) || self.is_let_go(node.id));
            let stays = self.checks.taken_up[index] && node.server.is_primary();
            self.checks.taken_up[index] = self.checks.by_hand[index].is_some() && (holds || stays);
        }
    }

    /// What an operator did by hand is the agent's to undo, as soon as it sees it, if it is there.
    pub(super) fn is_by_hand(&self, node: NodeId) -> bool {
        let Some(since) = self.checks.by_hand[node.0].filter(|_| !self.checks.taken_up[node.0]) else { return false };
        // Where an unsupported mode is asked for it only observes.
        if self.nodes[node.0].config.unsupported.is_some() {
            return true;
        }
        // And nothing is undone while the cluster is paused, as far as it knows.
        let paused = self.nodes[node.0].agent.as_ref().is_some_and(|agent| agent.state.memory.paused.is_some());
        if paused {
            return true;
        }
        let since = since.max(self.checks.quiet_since[node.0]).max(self.saw_pause_end(node));
        // An agent that was only just started looks for its tenure first.
        let booted = self.nodes[node.0].booted + ms(self.settings.retry_timeout_ms + 2000);
        self.nodes[node.0].awake().is_none() || self.now < booted || self.now.since(since) < ms(1000)
    }
}

#[cfg(test)]
mod tests {
    use matriarch_core::op::Outcome;
    use matriarch_core::time::Instant;
    use matriarch_core::view::View;
    use matriarch_core::view::guard::Armed;
    use matriarch_core::view::postgres::Phase;

    use super::super::testing::*;
    use super::*;
    use crate::net::{End, Plane};

    #[test]
    fn two_that_can_acknowledge() {
        let second = |held: bool| {
            broken(move |world| {
                let node = standby(world);
                leaves_recovery(world, node);
                world.nodes[node.0].server.held = held;
                world.nodes[node.0].guard = None;
                world.check_after_event();
            })
        };
        assert_eq!(second(false), Some("S5"));
        assert_eq!(second(true), None, "what is held acknowledges nothing");
    }

    /// The leader's key goes before its time: who led, and who may lead next.
    fn lost_early(world: &mut World, deaf: bool) -> (NodeId, NodeId) {
        let (old, new) = (leader(world), standby(world));
        let lost = key(world);
        if deaf {
            world.net.cut((Plane::Store, End::Store(0), End::Node(old)));
        }
        world.store.forge(|keys| keys.leader = None);
        world.checks.early.insert(lost.lease, world.now);
        world.checks.last_leader = Some(old);
        (old, new)
    }

    /// A key goes early while its holder hears nothing of the store, and another takes it.
    #[test]
    fn two_that_can_acknowledge_after_an_early_loss() {
        let overtaken = |deaf: bool, told: bool, later_ms: u64| {
            broken(move |world| {
                let (old, new) = lost_early(world, deaf);
                if told {
                    let asked = world.clock(new);
                    let state = &world.nodes[old.0].agent.as_ref().unwrap().state;
                    let answer = View { at: world.clock(old), state }.own_answer();
                    world.note_told(new, old, asked, &Outcome::Done(answer));
                }
                world.note_overtaken(new);
                world.now = world.now + ms(later_ms);
                leaves_recovery(world, new);
                world.check_writers();
            })
        };
        assert_eq!(overtaken(true, false, 100), None, "nobody could know");
        assert_eq!(overtaken(false, false, 100), Some("S5"), "it hears the store");
        assert_eq!(overtaken(true, true, 100), Some("S5"), "whoever took it was told");
        assert_eq!(overtaken(true, false, 60_000), Some("S5"), "its tenure is over");
        // Nor does that holder take anything from whoever took its key.
        let goes_on = |deaf: bool| {
            broken(move |world| {
                let (old, new) = lost_early(world, deaf);
                world.note_overtaken(new);
                world.settings.maximum_lag_bytes = 0;
                let end = on_disk(world, old).end;
                world.checks.published = Some(end);
                on_disk(world, old).end = crate::postgres::wal::Place { depth: end.depth - 2, ..end };
                world.became_writable(old);
            })
        };
        assert_eq!((goes_on(true), goes_on(false)), (None, Some("S2")));
    }

    /// The leader key was the node's for a moment.
    fn held_once(world: &mut World, node: NodeId) {
        let (name, was) = (world.names[node.0].clone(), key(world).member);
        for holder in [name, was] {
            world.store.forge(|keys| keys.leader.as_mut().unwrap().member = holder);
            world.note_taken_up();
        }
    }

    /// The same, and no guard was armed for it.
    fn unguarded(world: &mut World, node: NodeId) {
        world.nodes[node.0].guard.as_mut().unwrap().armed = None;
        held_once(world, node);
    }

    /// A standby that an operator has promoted; its agent is frozen, so that it does not see it.
    #[test]
    fn two_that_can_acknowledge_by_an_operators_hand() {
        let second = |change: fn(&mut World, NodeId)| {
            broken(move |world| {
                let node = standby(world);
                leaves_recovery(world, node);
                world.nodes[node.0].agent.as_mut().unwrap().frozen = true;
                world.checks.by_hand[node.0] = Some(world.now);
                let (tenure, at) = (key(world).lease, Instant(u64::MAX));
                let guard = world.nodes[node.0].guard.get_or_insert_default();
                (guard.armed, guard.since) = (Some(Armed { tenure, at }), world.now);
                change(world, node);
                world.check_after_event();
            })
        };
        assert_eq!(second(|_, _| ()), None, "nobody has seen it yet");
        assert_eq!(second(held_once), Some("S5"), "it has held the key, and its guard is armed for that");
        assert_eq!(second(unguarded), None, "no guard was armed for it");
        let let_go = |world: &mut World, node: NodeId| {
            let name = world.names[node.0].clone();
            world.store.forge(|keys| {
                let record = keys.epoch.as_mut().unwrap();
                (record.unguarded, record.member) = (true, name);
            });
            unguarded(world, node);
        };
        assert_eq!(second(let_go), Some("S5"), "it was let go in a pause");
        let starts = |world: &mut World, node: NodeId| {
            world.nodes[node.0].server.postmaster.as_mut().unwrap().phase = Phase::Starting;
            held_once(world, node);
            world.nodes[node.0].server.postmaster.as_mut().unwrap().phase = Phase::Ready;
        };
        assert_eq!(second(starts), None, "the key went before it was up");
        let restarted = |world: &mut World, node: NodeId| {
            held_once(world, node);
            world.gone(node);
            world.operator_starts(node);
            world.note_taken_up();
            leaves_recovery(world, node);
            world.nodes[node.0].server.postmaster.as_mut().unwrap().phase = Phase::Ready;
            world.checks.by_hand[node.0] = Some(world.now);
        };
        assert_eq!(second(restarted), None, "it was started by hand once more");
    }
}
