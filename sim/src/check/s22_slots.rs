//! S22, as far as members' slots go: the slot of a member that is there is not dropped, and in a calm world the leader
//! has one for each.

use matriarch_core::id::Member;

use crate::node::NodeId;
use crate::world::World;

impl World {
    /// A slot is dropped.
    pub fn check_slot_dropped(&mut self, node: NodeId, slot: &str) {
        let own = self.names[node.0].as_str() == slot;
        let Some(member) = self.named(&Member::new(slot)).filter(|_| !own) else { return };
        let server = &self.nodes[node.0].server;
        let streams = server.postmaster.as_ref().is_some_and(|pm| pm.senders.contains_key(&member));
        if streams && server.is_primary() {
            let what = format!("{} drops the slot of {slot}, which streams from it", self.names[node.0]);
            self.violated("S22", what);
        }
    }

    /// When all is over.
    pub(super) fn check_slots(&mut self) {
        let Some(leading) = self.leading().filter(|_| self.healed.is_some()) else { return };
        let server = &self.nodes[leading.0].server;
        let (Some(pm), Some(on_disk)) = (&server.postmaster, server.cluster()) else { return };
        let missing = pm.senders.keys().find(|member| !on_disk.slots.contains(self.names[member.0].as_str()));
        if let Some(missing) = missing {
            let what = format!("{} streams from {} without a slot", self.names[missing.0], self.names[leading.0]);
            self.violated("S22", what);
        }
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
}
