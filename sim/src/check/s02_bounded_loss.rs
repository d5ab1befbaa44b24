//! S2: a failover gives up no more than `maximum_lag_on_failover` of what was published.

use crate::node::{Node, NodeId};
use crate::postgres::wal::Place;
use crate::world::World;

impl World {
    /// Another server serves: what was published is there, or as much of it as must be.
    pub(super) fn check_loss(&mut self, node: NodeId, mine: Place) {
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

    /// A leader has published its position; or, with a release, what another had published, which is beyond its own.
    pub fn note_published(&mut self, node: NodeId, position: matriarch_core::id::Lsn) {
        let Some(end) = self.nodes[node.0].server.cluster().map(|on_disk| on_disk.end) else { return };
        if self.wal.lsn(end) >= position {
            self.checks.published = Some(self.wal.back_to(end, position));
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
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::postgres::wal::Record;
    use crate::store::{Known, Request};
    use matriarch_core::action::StoreAction;
    use matriarch_core::id::Timeline;
    use matriarch_core::view::store::HistoryLine;

    #[test]
    fn a_failover_that_gives_up_more_than_is_allowed() {
        let loses = |limit: u64| {
            broken(move |world| {
                let (old, new) = (leader(world), standby(world));
                world.settings.maximum_lag_bytes = limit;
                world.checks.published = Some(on_disk(world, old).end);
                let behind = on_disk(world, new);
                behind.end = Place { depth: behind.end.depth - 2, ..behind.end };
                let mine = on_disk(world, new).end;
                world.check_loss(new, mine);
            })
        };
        assert_eq!(loses(0), Some("S2"));
        assert_eq!(loses(1 << 20), None);
    }

    #[test]
    fn a_release_that_publishes_again_what_another_had_published() {
        let mut world = steady();
        let (old, new) = (leader(&world), standby(&world));
        let end = on_disk(&mut world, old).end;
        world.note_published(old, world.wal.lsn(end));
        let published = world.checks.published;
        assert_eq!(published, Some(end));
        let mine = on_disk(&mut world, new);
        mine.end = Place { depth: end.depth - 2, ..end };
        world.note_published(new, world.wal.lsn(end));
        assert_eq!(world.checks.published, published);
    }

    /// The leader and a standby begin timelines of one number at one position; the standby's may be an operator's doing.
    fn begin_twins(world: &mut World, by_hand: bool) -> (NodeId, NodeId) {
        let (leader, node) = (leader(world), standby(world));
        let at = on_disk(world, node).end;
        for server in [leader, node] {
            let begun = world.wal.fork(at, Timeline(2));
            let end = world.wal.append(begun, Record::EndOfRecovery);
            on_disk(world, server).end = end;
            if by_hand && server == node {
                world.checks.hand_made.push(end);
            }
        }
        (leader, node)
    }

    #[test]
    fn a_failover_to_another_timeline_of_one_number() {
        let loses = |by_hand: bool| {
            broken(move |world| {
                let (old, new) = begin_twins(world, by_hand);
                world.settings.maximum_lag_bytes = 0;
                let end = on_disk(world, old).end;
                world.checks.published = Some(end);
                let line = HistoryLine {
                    timeline: Timeline(1),
                    end: world.wal.lsn(world.wal.origin(end).unwrap()),
                    reason: String::new(),
                    timestamp: None,
                    leader: None,
                };
                let epoch = key(world).created;
                let put = |world: &mut World, action| {
                    let (from, known) = (world.names[old.0].clone(), Known::default());
                    world.store.apply(world.now, &Request::Order { action: Box::new(action), from, known });
                };
                let revision = world.store.keys().history.revision;
                put(world, StoreAction::PutHistory { epoch, revision, lines: vec![line] });
                let (position, timeline) = (world.wal.lsn(end), Timeline(2));
                put(world, StoreAction::PutStatus { epoch, position, timeline, slots: vec![], retain: vec![] });
                let mine = on_disk(world, new).end;
                world.check_loss(new, mine);
            })
        };
        assert_eq!(loses(false), Some("S2"));
        assert_eq!(loses(true), None, "an operator began it, and nobody can tell them apart");
    }
}
