//! What must hold, and when it is looked at. The ids are those of `docs/invariants.md`; each group has a file.

mod lease;
mod liveness;
mod loss;
mod steps;
#[cfg(test)]
mod tests;
mod writers;

use std::collections::BTreeMap;

use matriarch_core::id::{LeaseId, Revision, SystemId};

use crate::node::NodeId;
use crate::postgres::wal::Place;
use crate::time::Time;
use crate::world::World;

pub use liveness::Outage;

/// An invariant did not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// When.
    pub at: Time,
    /// What was seen.
    pub what: String,
}

/// The most nodes that a world has.
pub const NODES_MAX: usize = 7;

/// What the checkers remember.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    /// When a fault last struck each node, or ended there.
    pub quiet_since: [Time; NODES_MAX],
    /// Faults that go on, and where.
    pub struck: BTreeMap<usize, NodeId>,
    /// Nodes whose watches tell nothing.
    pub silent: [bool; NODES_MAX],
    /// When the network was slow last.
    pub slow_at: Option<Time>,
    /// Since when nothing reaches a node.
    pub isolated: [Option<Time>; NODES_MAX],
    /// Since when a server runs as primary because an operator made it one behind its agent's back.
    pub by_hand: [Option<Time>; NODES_MAX],
    /// Where branches begin that an operator began by hand.
    pub hand_made: Vec<Place>,
    /// What each standby has pledged, and told somebody of.
    pledged: [Option<Revision>; NODES_MAX],
    /// Leases that ended before their time, and when.
    early: BTreeMap<LeaseId, Time>,
    /// When each node decided to release its key to somebody, if that was its last release.
    hands_over: [Option<Time>; NODES_MAX],
    /// What a leader that handed over had, and when it decided to, until another serves.
    handed_over: Option<(Time, Place)>,
    /// What a leader last published of its position.
    published: Option<Place>,
    /// When the store was restored from a backup last.
    restored: Option<Time>,
    /// The system identifier of the cluster.
    system: Option<SystemId>,
    /// The newest revision that each agent has decided on, by its boot.
    revisions: [(u32, u64, Revision); NODES_MAX],
    /// Who served when, and for how long nobody did.
    outage: Outage,
    /// How often the leader key was taken.
    pub taken: u64,
    /// Orders that core gave since the world was calm.
    calm_orders: u64,
}

impl Checks {
    /// A fault strikes a node, or all of them, or ends there.
    pub fn disturbed(&mut self, node: Option<NodeId>, now: Time) {
        match node {
            Some(node) => self.quiet_since[node.0] = now,
            None => self.quiet_since = [now; NODES_MAX],
        }
    }

    /// What was published is not there any more: nobody can go by it.
    pub fn forget_published(&mut self) {
        self.published = None;
    }

    /// The store went back: what was published, pledged and given away since then never happened.
    pub fn restored(&mut self, now: Time) {
        (self.restored, self.published, self.handed_over) = (Some(now), None, None);
        self.pledged = [None; NODES_MAX];
        self.disturbed(None, now);
    }

    /// How long nobody served, by time since the faults ended.
    pub fn outage(&self) -> &Outage {
        &self.outage
    }
}

impl World {
    /// After everything that happens.
    pub fn check_after_event(&mut self) {
        self.check_writers();
        self.check_isolated();
        self.check_fences();
        self.note_service();
    }

    /// When all is over.
    pub fn check_at_the_end(&mut self) {
        self.check_service();
        self.check_members();
        self.check_calm();
    }
}
