//! S2, a failover gives up no more than `maximum_lag_on_failover`; S15, what streams is a prefix (checked where it is
//! received); S17, never the last copy; S20, a switchover loses nothing.

use matriarch_core::action::{Action, StoreAction};
use matriarch_core::effects::Order;
use matriarch_core::id::Member;
use matriarch_core::reason::Reason;

use crate::node::{Node, NodeId};
use crate::postgres::wal::Place;
use crate::time::ms;
use crate::world::World;

impl World {
    /// Another server serves: what was published and handed over is there, or as much of it as must be.
    pub(super) fn check_loss(&mut self, node: NodeId) {
        let Some(mine) = self.nodes[node.0].server.cluster().map(|on_disk| on_disk.end) else { return };
        if let Some((since, place)) = self.checks.handed_over.take() {
            // Whoever was to take over may be cut off from the store, and another comes first.
            let quiet = self.checks.struck.is_empty() && self.checks.quiet_since.iter().all(|quiet| *quiet < since);
            if quiet && !self.wal.contains(mine, place) {
                let what =
                    format!("{} was handed over to and does not hold what the last leader had", self.names[node.0]);
                self.violated("S20", what);
            }
            self.coverage.count("handed over");
        }
        if let Some(place) = self.checks.published {
            let shared = self.wal.shared(mine, place);
            let lost = self.wal.lsn(place).bytes_ahead_of(self.wal.lsn(shared));
            if lost > 0 {
                self.coverage.count("failover with loss");
            }
            if lost > self.settings.maximum_lag_bytes && self.is_evident(mine, place) {
                let what = format!(
                    "{} leads without {lost} bytes that were published, {} are allowed",
                    self.names[node.0], self.settings.maximum_lag_bytes
                );
                self.violated("S2", what);
            }
        }
    }

    /// Whoever decides can know what it lacks: it is behind on the same branch, or the store tells which timeline
    /// the published position is on and where that began. A leader that dies before it has written that leaves no trace
    /// of its branch.
    fn is_evident(&self, mine: Place, published: Place) -> bool {
        let shared = self.wal.shared(mine, published);
        let plain_lag = shared.depth == self.wal.shared(mine, mine).depth;
        let origin = self.wal.origin(published).map(|origin| (self.wal.timeline(origin), self.wal.lsn(origin)));
        let keys = self.store.keys();
        let told = keys.status.as_ref().is_some_and(|status| status.timeline == self.wal.timeline(published));
        let lines = &keys.history.lines;
        let began = |(timeline, end)| lines.iter().any(|line| (line.timeline, line.end) == (timeline, end));
        plain_lag || (told && origin.is_some_and(began) && !self.are_twins_by_hand(mine, published))
    }

    /// The two part where an operator began one of two timelines of one number. Those that begin at one position look
    /// alike to whoever compares, so nobody can know what lies beyond. Core begins none such.
    fn are_twins_by_hand(&self, one: Place, other: Place) -> bool {
        let parted = self.wal.shared(one, other).depth;
        let holds = |begun: &Place| self.wal.contains(one, *begun) || self.wal.contains(other, *begun);
        let by_hand = |begun: &Place| begun.depth > parted && holds(begun);
        self.wal.are_twins(one, other) && self.checks.hand_made.iter().any(by_hand)
    }

    /// A leader that has been told by a candidate that it holds everything gives the key away for it.
    pub fn note_order(&mut self, node: NodeId, order: &Order) {
        if matches!(order.action, Action::Store(StoreAction::Release { .. })) {
            let hands_over = matches!(order.because, Reason::HandingOver { .. });
            self.checks.hands_over[node.0] = hands_over.then_some(self.now);
        }
    }

    /// A leader has published its position.
    pub fn note_published(&mut self, node: NodeId, position: matriarch_core::id::Lsn) {
        let Some(end) = self.nodes[node.0].server.cluster().map(|on_disk| on_disk.end) else { return };
        let mut place = end;
        while self.wal.lsn(place) > position && place.depth > 0 {
            place = self.wal.on_the_way(end, place.depth - 1);
        }
        self.checks.published = Some(place);
    }

    /// S17: a directory is wiped only while another holds the cluster, and the one to be copied is whole.
    pub fn check_wipe(&mut self, node: NodeId, from: &Member) {
        let holds = |index: usize| -> Option<Place> {
            self.nodes[index].server.cluster().filter(|on_disk| on_disk.tainted.is_none()).map(|on_disk| on_disk.end)
        };
        let copies = (0..self.nodes.len()).filter(|index| *index != node.0 && holds(*index).is_some()).count();
        if copies == 0 && holds(node.0).is_some() {
            self.violated("S17", format!("{} is wiped, the last copy, to be cloned from {from}", self.names[node.0]));
        }
    }

    /// How many acknowledged commits the serving primary does not hold, and how many there were.
    pub fn lost(&self) -> (u64, u64) {
        let serving = self.nodes.iter().find(|node| node.server.can_acknowledge());
        let Some(mine) = serving.and_then(Node::place) else { return (0, 0) };
        let all = &self.ledger.acknowledged;
        let lost = all.iter().filter(|row| !self.wal.contains(mine, row.place)).count();
        (lost as u64, all.len() as u64)
    }

    /// A node that nothing has happened to for a while.
    pub fn is_quiet(&self, node: NodeId, for_ms: u64) -> bool {
        self.now.since(self.checks.quiet_since[node.0]) >= ms(for_ms)
    }
}
