//! S8: nobody begins to write without the leader key, nor goes on to where it was held, stood still or was recovering when
//! that went.

use matriarch_core::action::PostgresAction;
use matriarch_core::view::guard::Armed;

use crate::fault::FOREIGN;
use crate::node::NodeId;
use crate::time::ms;
use crate::world::World;

impl World {
    /// A start as primary, a promotion or the restart of a primary begins: in time, and the first two with the epoch of
    /// their tenure on disk.
    pub fn check_authorised(&mut self, node: NodeId, action: &PostgresAction, under: Option<Armed>) {
        let now = self.clock(node);
        let host = &self.nodes[node.0];
        let Some(agent) = &host.agent else { return };
        // What was ordered under another tenure goes by that one's epoch: a key may be lost and taken back meanwhile.
        let held = agent.state.tenure.held().filter(|held| under.is_some_and(|under| under.tenure == held.lease));
        let late = under.is_some_and(|under| now >= under.at);
        let on_disk = host.files.epoch.map(|file| file.epoch);
        let restart = matches!(action, PostgresAction::Restart);
        let unwritten = !restart && held.is_some_and(|held| on_disk != Some(held.epoch));
        if late || unwritten {
            let why = if late { "after the end of its tenure" } else { "without its epoch on disk" };
            self.violated("S8", format!("{} begins to serve {why}", self.names[node.0]));
        }
    }

    /// A server accepts writes from now on: S8, and what its coming means for what others hold.
    pub fn became_writable(&mut self, node: NodeId) {
        self.coverage.count("serves");
        let holds = self.store.keys().leader.as_ref().is_some_and(|leader| leader.member == self.names[node.0]);
        let by_hand = self.checks.by_hand[node.0].is_some() && !holds;
        if by_hand || self.is_waking(node) || self.is_foreign(node) {
            return;
        }
        // Its key went early, and it was held, or starting, when it went: within the time in which its holder may take it
        // back, the key is nobody's.
        let armed = self.nodes[node.0].guard.as_ref().and_then(|guard| guard.armed);
        let lost_early = armed.is_some_and(|armed| self.was_lost_lately(node, armed.tenure));
        // Or that was in a pause, in which no guard ends it: the store tells of that.
        let last = self.checks.last_lease[node.0];
        let let_go = self.is_let_go(node) && last.is_some_and(|lease| self.checks.early.contains_key(&lease));
        if !holds && !lost_early && !let_go {
            let what = format!("{} accepts writes and does not hold the leader key", self.names[node.0]);
            self.violated("S8", what);
        }
        // Nor does it take anything from anybody that goes on where it was overtaken unheard.
        if let Some(mine) = self.nodes[node.0].server.cluster().map(|on_disk| on_disk.end)
            && !self.is_overtaken_unheard(node)
            && !self.accept_loss(mine)
        {
            self.check_handover(node, mine);
            self.check_loss(node, mine);
        }
    }

    /// S8: whoever can acknowledge holds the leader key. That it did when it began says nothing of one that was held, stood
    /// still or recovered in place when the key went: S7 finds it silent then, and it may go on later.
    pub(super) fn check_keys_of_writers(&mut self) {
        for node in (0..self.nodes.len()).map(NodeId) {
            if self.writes_by_rule(node) && !self.holds_or_may_not_know(node) {
                self.violated(
                    "S8",
                    format!("{} can acknowledge commits and does not hold the leader key", self.names[node.0]),
                );
                return;
            }
        }
    }

    /// The leader key is its own; or it went early and that is still to be heard of; or the store tells that this primary has
    /// no guard, in a pause, and nobody takes its place.
    fn holds_or_may_not_know(&self, node: NodeId) -> bool {
        let holds = self.store.keys().leader.as_ref().is_some_and(|leader| leader.member == self.names[node.0]);
        let last = self.checks.last_lease[node.0];
        let ttl = ms(self.settings.ttl_ms);
        // What `docs/time.md` asks of who restores a store was not kept to.
        let unaware = self.checks.unaware.is_some_and(|at| self.now.since(at) < 2 * ttl);
        holds
            || self.is_let_go(node)
            || last.is_some_and(|lease| self.was_lost_lately(node, lease))
            || self.went_back_lately(ttl)
            || unaware
    }

    /// An operator put another cluster's data there.
    pub(super) fn is_foreign(&self, node: NodeId) -> bool {
        let end = self.nodes[node.0].server.cluster().map(|on_disk| on_disk.end);
        end.is_some_and(|end| self.wal.system(end) == FOREIGN)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::store::Gone;
    use crate::time::Time;
    use matriarch_core::view::store::LeaderKey;

    const PROMOTE: PostgresAction = PostgresAction::Promote { timeline: matriarch_core::id::Timeline(2) };

    #[test]
    fn writes_without_the_leader_key() {
        assert_eq!(broken(|world| world.became_writable(standby(world))), Some("S8"));
        assert_eq!(broken(|world| world.became_writable(leader(world))), None, "a restart in place is no promotion");
        let lost = |of: fn(&World) -> NodeId| {
            broken(move |world| {
                world.checks.early.insert(key(world).lease, world.now);
                world.became_writable(of(world));
            })
        };
        assert_eq!(lost(standby), Some("S8"), "that another's key was lost allows it nothing");
        let own = broken(|world| {
            let (node, lease) = (leader(world), key(world).lease);
            world.checks.early.insert(lease, world.now);
            world.store.end(lease, Gone::Early);
            world.became_writable(node);
        });
        assert_eq!(own, None, "it may take its own back");
        let long_ago = broken(|world| {
            let (node, lease) = (leader(world), key(world).lease);
            world.checks.early.insert(lease, Time::from_ms(1000));
            world.store.end(lease, Gone::Early);
            world.became_writable(node);
        });
        assert_eq!(long_ago, Some("S8"), "it has heard of that by now");
        let alone = |for_ms: u64| {
            broken(move |world| {
                let (node, lease) = (leader(world), key(world).lease);
                world.store_leader = None;
                world.checks.early.insert(lease, world.now);
                world.store.end(lease, Gone::Early);
                world.now = world.now + ms(for_ms);
                world.became_writable(node);
            })
        };
        assert_eq!(
            [29_999, 30_001].map(alone),
            [None, Some("S8")],
            "it hears nothing of the store until its tenure ends"
        );
        let without_a_guard = |paused: bool, gone: fn(&mut World, NodeId)| {
            broken(move |world| {
                if paused {
                    world.note_pause(true);
                    world.store.pause(true);
                    world.store_changed();
                    world.run_until(world.now + ms(60_000));
                }
                let node = leader(world);
                gone(world, node);
                world.nodes[node.0].guard.as_mut().unwrap().armed = None;
                world.became_writable(node);
            })
        };
        let early = |world: &mut World, _: NodeId| {
            let lease = key(world).lease;
            world.checks.early.insert(lease, world.now);
            world.store.end(lease, Gone::Early);
        };
        assert_eq!([true, false].map(|paused| without_a_guard(paused, early)), [None, Some("S8")]);
        let another_before = |world: &mut World, _: NodeId| {
            world.checks.early.insert(matriarch_core::id::LeaseId(1), world.now);
            world.store.end(key(world).lease, Gone::Expired);
        };
        assert_eq!(without_a_guard(true, another_before), Some("S8"), "its own key went by its time");
        let by_hand = |of: fn(&World) -> NodeId, loses: bool| {
            broken(move |world| {
                let node = of(world);
                world.checks.by_hand[node.0] = Some(world.now);
                let end = on_disk(world, node).end;
                world.checks.published = Some(end);
                world.settings.maximum_lag_bytes = 0;
                on_disk(world, node).end.depth -= u64::from(loses);
                world.became_writable(node);
            })
        };
        assert_eq!(by_hand(standby, true), None, "an operator promoted it");
        assert_eq!(by_hand(leader, true), Some("S2"), "he has restarted the leader, and it lacks something");
        assert_eq!(by_hand(leader, false), None);
        let foreign = broken(|world| {
            let node = standby(world);
            world.nodes[node.0].server.initdb(&mut world.wal, FOREIGN);
            world.became_writable(node);
        });
        assert_eq!(foreign, None, "what is not this cluster's");
    }

    /// S7 finds who stands still silent when the key goes.
    #[test]
    fn writes_again_after_the_leader_key_has_gone() {
        let goes_on = |still: fn(&mut World, NodeId), how: Gone, wait_ms: u64, again: fn(&mut World, NodeId)| {
            broken(move |world| {
                let (node, lease) = (leader(world), key(world).lease);
                still(world, node);
                world.store.end(lease, how);
                world.store_changed();
                world.check_after_event();
                assert_eq!(world.violation, None, "it is silent by then");
                world.now = world.now + ms(wait_ms);
                world.nodes[node.0].guard.as_mut().unwrap().since = world.now;
                again(world, node);
                world.check_keys_of_writers();
            })
        };
        let held = |world: &mut World, node: NodeId| world.nodes[node.0].server.held = true;
        let frozen = |world: &mut World, node: NodeId| world.nodes[node.0].server.frozen = true;
        let recovers = |world: &mut World, node: NodeId| {
            world.nodes[node.0].server.postmaster.as_mut().unwrap().recovers_in_place = true;
        };
        assert_eq!(goes_on(held, Gone::Expired, 1000, World::goes_on), Some("S8"), "its guard lets it go on");
        assert_eq!(goes_on(held, Gone::Expired, 1000, |_, _| ()), None, "it is held for good");
        assert_eq!(goes_on(frozen, Gone::Revoked, 1000, World::processes_go_on), Some("S8"), "SIGCONT");
        assert_eq!(goes_on(recovers, Gone::Expired, 1000, World::recovered_in_place), Some("S8"), "a crash in place");
        assert_eq!(goes_on(held, Gone::Early, 1000, World::goes_on), None, "its holder is still to hear of that");
        assert_eq!(goes_on(held, Gone::Early, 60_000, World::goes_on), Some("S8"), "for so long it must not take");
        let let_go = |world: &mut World, node: NodeId| {
            let me = world.names[node.0].clone();
            world.store.forge(|keys| {
                let record = keys.epoch.as_mut().unwrap();
                (record.unguarded, record.member) = (true, me);
            });
            world.goes_on(node);
        };
        assert_eq!(
            goes_on(held, Gone::Expired, 1000, let_go),
            None,
            "in a pause it has no guard, and nobody takes its place"
        );
        let back = |world: &mut World, node: NodeId| {
            let me = world.names[node.0].clone();
            let (lease, created) = (matriarch_core::id::LeaseId(4711), world.store.keys().revision);
            world.store.forge(|keys| keys.leader = Some(LeaderKey { member: me, lease, created, modified: created }));
            world.goes_on(node);
        };
        assert_eq!(goes_on(held, Gone::Expired, 1000, back), None, "it has taken it again");
    }

    #[test]
    fn a_start_that_nobody_allows() {
        let begins = |action: PostgresAction, late: bool, change: fn(&mut World, NodeId)| {
            broken(move |world| {
                let node = leader(world);
                let now = world.clock(node);
                change(world, node);
                let at = if late { now } else { now + std::time::Duration::from_millis(1) };
                world.check_authorised(node, &action, Some(Armed { tenure: key(world).lease, at }));
            })
        };
        assert_eq!(begins(PROMOTE, false, |_, _| ()), None, "there is a moment left");
        assert_eq!(begins(PROMOTE, true, |_, _| ()), Some("S8"));
        assert_eq!(begins(PROMOTE, false, |world, node| world.nodes[node.0].files.epoch = None), Some("S8"));
        let adopting = |world: &mut World, node: NodeId| {
            world.nodes[node.0].files.epoch = None;
            let tenure = &mut world.nodes[node.0].agent.as_mut().unwrap().state.tenure;
            *tenure = matriarch_core::lease::Tenure::None;
        };
        assert_eq!(begins(PROMOTE, false, adopting), None, "its tenure went while that was on its way");
        let unwritten = |world: &mut World, node: NodeId| world.nodes[node.0].files.epoch = None;
        assert_eq!(begins(PostgresAction::Restart, false, unwritten), None, "it is a primary already");
    }
}
