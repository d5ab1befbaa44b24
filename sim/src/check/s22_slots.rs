//! S22: the slot of a member that is there is not dropped, and in a calm world the leader has one for each. A permanent slot
//! is not dropped where it is wanted, is moved nowhere beyond what its reader has confirmed, and in a calm world everybody
//! who may lead next has it.

use matriarch_core::id::{Lsn, Member};

use crate::node::NodeId;
use crate::world::{PERMANENT_SLOT, World};

impl World {
    /// A slot is dropped.
    pub fn check_slot_dropped(&mut self, node: NodeId, slot: &str) {
        if slot == PERMANENT_SLOT && self.wants_permanent_slot(node) {
            self.violated("S22", format!("{} drops the permanent slot", self.names[node.0]));
        }
        let own = self.names[node.0].as_str() == slot;
        let Some(member) = self.named(&Member::new(slot)).filter(|_| !own) else { return };
        let server = &self.nodes[node.0].server;
        let streams = server.postmaster.as_ref().is_some_and(|pm| pm.senders.contains_key(&member));
        if streams && server.is_primary() {
            let what = format!("{} drops the slot of {slot}, which streams from it", self.names[node.0]);
            self.violated("S22", what);
        }
    }

    /// A slot was moved.
    pub fn check_slot_advanced(&mut self, node: NodeId, slot: &str, to: Lsn) {
        let confirmed = self.consumer.confirmed;
        if slot == PERMANENT_SLOT && to > confirmed {
            // Known: an operator made one the leader that was never to be one and had no such slot. It begins where that
            // leader is, and the others go along.
            if self.leading().is_some_and(|leader| leader != node && self.permanent_slot_at(leader) > confirmed) {
                self.coverage.count("a permanent slot made anew");
                return;
            }
            let what =
                format!("{} moves the permanent slot to {to}, and its reader is at {confirmed}", self.names[node.0]);
            self.violated("S22", what);
        }
    }

    fn permanent_slot_at(&self, node: NodeId) -> Lsn {
        let on_disk = self.nodes[node.0].server.cluster();
        on_disk.and_then(|on_disk| on_disk.slots.get(PERMANENT_SLOT)).copied().unwrap_or_default()
    }

    fn wants_permanent_slot(&self, node: NodeId) -> bool {
        let node = &self.nodes[node.0];
        self.settings.permanent_slot && (node.server.is_primary() || !node.config.nofailover)
    }

    /// When all is over.
    pub(super) fn check_slots(&mut self) {
        let Some(leading) = self.leading().filter(|_| self.healed.is_some()) else { return };
        let server = &self.nodes[leading.0].server;
        let (Some(pm), Some(on_disk)) = (&server.postmaster, server.cluster()) else { return };
        let missing = pm.senders.keys().find(|member| !on_disk.slots.contains_key(self.names[member.0].as_str()));
        if let Some(missing) = missing {
            let what = format!("{} streams from {} without a slot", self.names[missing.0], self.names[leading.0]);
            self.violated("S22", what);
        }
        let follows = |node: &NodeId| self.follows(*node, leading) && self.wants_permanent_slot(*node);
        let lacks = |node: &NodeId| {
            let on_disk = self.nodes[node.0].server.cluster();
            on_disk.is_some_and(|on_disk| !on_disk.slots.contains_key(PERMANENT_SLOT))
        };
        let mut others = (0..self.nodes.len()).map(NodeId);
        if let Some(node) = others.find(|node| follows(node) && lacks(node)) {
            self.violated("S22", format!("{} has no permanent slot", self.names[node.0]));
        }
    }

    /// It is the leader, or streams from it.
    fn follows(&self, node: NodeId, leader: NodeId) -> bool {
        let streams = |from: NodeId| {
            let pm = self.nodes[from.0].server.postmaster.as_ref();
            pm.is_some_and(|pm| pm.senders.contains_key(&node))
        };
        node == leader || streams(leader)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::time::Time;

    #[test]
    fn a_slot_that_is_dropped() {
        let dropped = |whose: fn(&World) -> NodeId| {
            broken(move |world| {
                let slot = world.names[whose(world).0].as_str().to_owned();
                world.check_slot_dropped(leader(world), &slot);
            })
        };
        assert_eq!(dropped(standby), Some("S22"));
        assert_eq!(dropped(leader), None, "its own is of no use to it");
        let away = broken(|world| {
            let node = standby(world);
            world.receiver_ends(node);
            let slot = world.names[node.0].as_str().to_owned();
            world.check_slot_dropped(leader(world), &slot);
        });
        assert_eq!(away, None, "one that is gone for long keeps no slot for ever");
    }

    #[test]
    fn a_slot_that_is_missing() {
        let missing = |streams: bool| {
            broken(move |world| {
                let (node, from) = (standby(world), leader(world));
                world.healed = Some(Time(0));
                let slot = world.names[node.0].as_str().to_owned();
                on_disk(world, from).slots.remove(&slot);
                if !streams {
                    world.receiver_ends(node);
                }
                world.check_slots();
            })
        };
        assert_eq!(missing(true), Some("S22"));
        assert_eq!(missing(false), None);
    }

    #[test]
    fn a_permanent_slot_that_is_lost() {
        let missing = |wanted: bool| {
            broken(move |world| {
                let node = standby(world);
                world.healed = Some(Time(0));
                world.settings.permanent_slot = wanted;
                on_disk(world, node).slots.remove(PERMANENT_SLOT).expect("it was made");
                world.check_slots();
            })
        };
        assert_eq!((missing(true), missing(false)), (Some("S22"), None));
        let dropped = |wanted: bool| {
            broken(move |world| {
                world.settings.permanent_slot = wanted;
                world.check_slot_dropped(standby(world), PERMANENT_SLOT);
            })
        };
        assert_eq!((dropped(true), dropped(false)), (Some("S22"), None));
        let moved = |beyond: u64| {
            broken(move |world| {
                let to = Lsn(world.consumer.confirmed.0 + beyond);
                world.check_slot_advanced(standby(world), PERMANENT_SLOT, to);
            })
        };
        assert_eq!((moved(1), moved(0)), (Some("S22"), None));
        let made_anew = |whose: fn(&World) -> NodeId| {
            broken(move |world| {
                let (to, lead) = (Lsn(world.consumer.confirmed.0 + 1), leader(world));
                on_disk(world, lead).slots.insert(PERMANENT_SLOT.into(), to);
                world.check_slot_advanced(whose(world), PERMANENT_SLOT, to);
            })
        };
        assert_eq!(
            (made_anew(standby), made_anew(leader)),
            (None, Some("S22")),
            "a leader's moves by its reader alone"
        );
    }

    #[test]
    fn a_permanent_slot_on_a_standby_goes_with_its_reader() {
        let world = steady();
        let at = |node: NodeId| world.nodes[node.0].server.cluster().expect("it runs").slots[PERMANENT_SLOT];
        assert!(at(leader(&world)) > Lsn(0) && world.consumer.confirmed >= at(leader(&world)));
        let moved = world.coverage.outcomes.get(&("advance_slot", "done"));
        assert!(moved.is_some_and(|moved| *moved > 0) && at(standby(&world)) <= world.consumer.confirmed);
    }
}
