//! M4: a pledge is kept, and given only by who receives nothing.

use matriarch_core::id::Revision;

use crate::node::NodeId;
use crate::time::{Time, ms};
use crate::world::World;

impl World {
    /// A standby has told its position, and that it is pledged.
    pub fn note_pledge(&mut self, node: NodeId, pledge: Option<Revision>) {
        if pledge.is_none() {
            return;
        }
        // One that was outlived before it was told: who took the key since was not heard of yet, and will be followed.
        self.checks.pledged[node.0] = pledge.filter(|told| *told >= self.checks.led_since);
        self.checks.pledged_in[node.0] = self.knows(node);
        if self.nodes[node.0].server.postmaster.as_ref().is_some_and(|pm| pm.stream.is_some()) {
            self.violated("M4", format!("{} pledges and receives WAL", self.names[node.0]));
        }
    }

    /// Somebody leads since: earlier pledges are over, also when that key has gone by the time that WAL is received again.
    pub fn end_pledges(&mut self, created: Revision) {
        self.checks.led_since = created;
        for told in &mut self.checks.pledged {
            *told = told.filter(|told| *told >= created);
        }
    }

    /// M4: what a pledged standby has told is all that it will have, until there is a newer leader: it receives nothing, nor
    /// does it ask anybody for more. That it does not know of its pledge any more excuses it only as long as a store that was
    /// restored may have taken that from it.
    pub fn check_pledge(&mut self, node: NodeId) {
        let Some(told) = self.checks.pledged[node.0] else { return };
        let newer = self.store.keys().leader.as_ref().is_some_and(|leader| leader.created > told);
        if newer || self.may_end_pledge(node) {
            self.checks.pledged[node.0] = None;
        } else {
            self.violated("M4", format!("{} has pledged at {told} and receives WAL", self.names[node.0]));
        }
    }

    /// The pledge was told by revisions of a past that is lost, and was ended by core: since it has heard of that, or since a
    /// leader was there for a while that is older by those revisions.
    fn may_end_pledge(&self, node: NodeId) -> bool {
        let ended = self.nodes[node.0].agent.as_ref().is_none_or(|agent| agent.state.pledge.is_none());
        let ((booted, rollbacks), (pledged_by, counted)) = (self.knows(node), self.checks.pledged_in[node.0]);
        // A store that is restored several times may be disbelieved for long.
        let heard = self.checks.restored.is_some() && booted == pledged_by && rollbacks > counted;
        // An agent that was started since counts anew, and finds a pledge at a revision that does not exist: whoever leads by
        // then is followed.
        let told = self.checks.pledged[node.0];
        let lost = self.checks.restored.is_some() && told.is_some_and(|told| told > self.store.keys().revision);
        (booted > pledged_by && lost) || (ended && (heard || self.went_back_lately(ms(self.settings.ttl_ms))))
    }

    /// When the agent there was started, and how often the store has gone back since, as it has heard.
    fn knows(&self, node: NodeId) -> (Time, u64) {
        let node = &self.nodes[node.0];
        let known = node.agent.as_ref().and_then(|agent| agent.state.store.cluster.as_ref());
        (node.booted, known.map_or(0, |seen| seen.value.rollbacks))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use matriarch_core::state::Pledge;

    #[test]
    fn a_pledge_that_is_not_kept() {
        let receives = |newer: bool| {
            broken(move |world| {
                let (node, created) = (standby(world), key(world).created);
                let told = if newer { Revision(created.0 - 1) } else { created };
                let pledge = Pledge { absent_at: told, since: world.clock(node), frozen: true, on_disk: true };
                world.nodes[node.0].agent.as_mut().unwrap().state.pledge = Some(pledge);
                world.checks.pledged[node.0] = Some(told);
                world.check_pledge(node);
            })
        };
        assert_eq!(receives(false), Some("M4"));
        assert_eq!(receives(true), None, "a newer leader ends it");
    }

    #[test]
    fn a_pledge_that_is_forgotten() {
        let receives = |change: fn(&mut World, NodeId)| {
            broken(move |world| {
                let (node, told) = (standby(world), Revision(1_000_000));
                (world.checks.pledged[node.0], world.checks.pledged_in[node.0]) = (Some(told), world.knows(node));
                change(world, node);
                world.check_pledge(node);
            })
        };
        assert_eq!(receives(|_, _| ()), Some("M4"), "nobody leads since, and its agent knows of no pledge");
        assert_eq!(
            receives(|world, node| world.nodes[node.0].agent = None),
            Some("M4"),
            "nor does one that is not there"
        );
        let restored = |world: &mut World, node: NodeId| {
            let told = world.checks.pledged[node.0];
            world.checks.restored(world.now);
            world.checks.pledged[node.0] = told;
        };
        assert_eq!(receives(restored), None, "what it told of is of a past that is lost");
        let long_ago = |world: &mut World, _: NodeId| {
            world.checks.restored = Some(Time(0));
            world.now = world.now + ms(600_000);
        };
        assert_eq!(receives(long_ago), Some("M4"), "it has heard of that and has pledged since");
        let heard_late = |world: &mut World, node: NodeId| {
            world.checks.restored = Some(Time(0));
            world.now = world.now + ms(600_000);
            world.nodes[node.0].agent.as_mut().unwrap().state.store.cluster.as_mut().unwrap().value.rollbacks += 1;
        };
        assert_eq!(receives(heard_late), None, "it hears of that only now");
        let starts = |world: &mut World, node: NodeId| {
            world.checks.restored = Some(Time(0));
            world.now = world.now + ms(600_000);
            world.nodes[node.0].booted = world.now;
        };
        assert_eq!(receives(starts), None, "an agent that has started since knows of no such revision");
    }

    #[test]
    fn a_pledge_of_who_asks_for_more() {
        let connects = |told: Option<Revision>| {
            broken(move |world| {
                let node = standby(world);
                world.receiver_ends(node);
                world.checks.pledged[node.0] = told;
                let pid = world.nodes[node.0].server.postmaster.as_ref().unwrap().pid;
                world.connect(node, pid);
            })
        };
        assert_eq!(connects(Some(Revision(1_000_000))), Some("M4"));
        assert_eq!(connects(Some(Revision(1))), None, "of the leader that it had waited for");
        assert_eq!(connects(None), None);
    }

    #[test]
    fn a_pledge_ends_with_a_newer_leader_that_is_gone_again() {
        let receives = |created: i64| {
            broken(move |world| {
                let (node, told) = (standby(world), Revision(1_000_000));
                let pledge = Pledge { absent_at: told, since: world.clock(node), frozen: true, on_disk: true };
                world.nodes[node.0].agent.as_mut().unwrap().state.pledge = Some(pledge);
                world.checks.pledged[node.0] = Some(told);
                world.end_pledges(Revision(created));
                world.check_pledge(node);
            })
        };
        assert_eq!((receives(999_999), receives(1_000_001)), (Some("M4"), None));
    }

    /// The one that leads since is not heard of where a pledge is told; by the time that it is followed its key is gone.
    #[test]
    fn a_pledge_that_was_outlived_before_it_was_told() {
        let receives = |led: i64| {
            broken(move |world| {
                let (node, told) = (standby(world), Revision(1_000_000));
                world.receiver_ends(node);
                world.end_pledges(Revision(led));
                world.note_pledge(node, Some(told));
                world.check_pledge(node);
            })
        };
        assert_eq!((receives(1_000_001), receives(999_999)), (None, Some("M4")));
    }

    #[test]
    fn a_pledge_of_who_still_receives() {
        let told = |pledge: Option<Revision>, streams: bool| {
            broken(move |world| {
                let node = standby(world);
                if !streams {
                    world.receiver_ends(node);
                }
                world.note_pledge(node, pledge);
            })
        };
        assert_eq!(told(Some(Revision(1)), true), Some("M4"));
        assert_eq!(told(Some(Revision(1)), false), None);
        assert_eq!(told(None, true), None, "a position that is not final");
    }
}
