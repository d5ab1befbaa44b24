//! Replication slots: what core orders of them. They keep nothing here, they only have a position.

use matriarch_core::action::PostgresAction;
use matriarch_core::id::Lsn;

use crate::mutant::Mutant;
use crate::node::NodeId;
use crate::postgres::OnDisk;
use crate::world::World;

impl OnDisk {
    /// A checkpoint writes down where its slots are.
    pub fn saves_slots(&mut self) {
        self.saved_slots.clone_from(&self.slots);
    }

    /// Whoever starts or recovers reads where they were.
    pub fn reads_slots(&mut self) {
        self.slots.clone_from(&self.saved_slots);
    }
}

impl World {
    /// A slot of a server that answers is made, moved or dropped.
    pub fn slot_ordered(&mut self, node: NodeId, action: PostgresAction) {
        match action {
            PostgresAction::CreateSlot(_) if self.mutant == Some(Mutant::SlotsNotMade) => {}
            PostgresAction::CreateSlot(name) => {
                // It holds what a restart would need.
                let on_disk = self.nodes[node.0].server.cluster_mut();
                if let Some(on_disk) = on_disk.filter(|on_disk| !on_disk.slots.contains_key(&name)) {
                    on_disk.slots.insert(name.clone(), on_disk.checkpoint.0);
                    on_disk.saved_slots.insert(name, on_disk.checkpoint.0);
                }
            }
            PostgresAction::AdvanceSlot { slot, to } => self.slot_advanced(node, &slot, to),
            PostgresAction::DropSlot(name) => {
                self.check_slot_dropped(node, &name);
                if let Some(on_disk) = self.nodes[node.0].server.cluster_mut() {
                    on_disk.slots.remove(&name);
                    on_disk.saved_slots.remove(&name);
                }
            }
            _ => unreachable!("an order on a slot"),
        }
    }

    /// Forwards only, and no further than the server itself is. Whoever streams through it moves it himself.
    fn slot_advanced(&mut self, node: NodeId, slot: &str, to: Lsn) {
        let server = &mut self.nodes[node.0].server;
        let mut senders = server.postmaster.iter().flat_map(|pm| pm.senders.keys());
        if senders.any(|to| self.names[to.0].as_str() == slot) {
            return;
        }
        let primary = server.is_primary();
        let Some(on_disk) = server.cluster_mut() else { return };
        let here = self.wal.lsn(if primary { on_disk.flushed } else { on_disk.replayed });
        let to = if self.mutant == Some(Mutant::SlotAdvancedToTheEnd) { here } else { to.min(here) };
        if let Some(at) = on_disk.slots.get_mut(slot).filter(|at| **at < to) {
            *at = to;
            self.check_slot_advanced(node, slot, to);
        }
    }
}
