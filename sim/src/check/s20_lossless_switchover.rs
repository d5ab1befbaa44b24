//! S20: a switchover loses nothing.

use matriarch_core::view::postgres::ControlState;

use crate::node::NodeId;
use crate::postgres::wal::{Place, Record};
use crate::store::Gone;
use crate::world::World;

impl World {
    /// A leader that has been told by a candidate that it holds everything gives the key away for it.
    pub(super) fn note_handover(&mut self, holder: NodeId, how: Gone) {
        let on_disk = self.nodes[holder.0].server.cluster();
        let clean = on_disk.filter(|on_disk| how == Gone::Released && on_disk.state == ControlState::ShutDown);
        self.checks.released = clean.map(|on_disk| on_disk.end);
        if how == Gone::Released
            && let Some(decided) = self.checks.hands_over[holder.0]
        {
            let place = self.nodes[holder.0].server.cluster().map(|on_disk| on_disk.end);
            self.checks.handed_over = place.map(|place| (decided, place));
        }
    }

    /// A leader releases the key, since this candidate holds everything: so it does.
    pub(super) fn check_vouched(&mut self, holder: NodeId, candidate: NodeId) {
        let end = |node: NodeId| self.nodes[node.0].server.cluster().map(|on_disk| on_disk.end);
        let Some((had, has)) = end(holder).zip(end(candidate)) else { return };
        if !self.wal.contains(has, had) {
            let (who, to) = (&self.names[holder.0], &self.names[candidate.0]);
            self.violated("S20", format!("{who} hands over to {to}, which does not hold everything"));
        }
    }

    /// Another server serves: what was handed over is there.
    pub(super) fn check_handover(&mut self, node: NodeId, mine: Place) {
        self.checks.released = None;
        let Some((since, place)) = self.checks.handed_over.take() else { return };
        // Whoever was to take over may be cut off from the store, and another comes first.
        let quiet = self.checks.struck.is_empty() && self.checks.quiet_since.iter().all(|quiet| *quiet < since);
        if quiet && !self.wal.contains(mine, place) && !self.lacks_a_shutdown_by_hand(mine, place) {
            let what = format!("{} was handed over to and does not hold what the last leader had", self.names[node.0]);
            self.violated("S20", what);
        }
        self.coverage.count("handed over");
    }

    /// An operator had promoted it behind everybody's back where the leader before had nothing more to write but its shutdown:
    /// no commit is lost with that.
    fn lacks_a_shutdown_by_hand(&self, mine: Place, place: Place) -> bool {
        let shared = self.wal.shared(mine, place).depth;
        let mut lacked = self.wal.records(place).take_while(|(_, depth)| *depth > shared);
        let left = self.wal.on_the_way(mine, shared + 1).branch;
        self.checks.hand_made.iter().any(|made| made.branch == left)
            && !lacked.any(|(record, _)| matches!(record, Record::Commit(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::postgres::wal::Serial;
    use matriarch_core::action::{Action, StoreAction};
    use matriarch_core::effects::Order;
    use matriarch_core::id::{LeaseId, Lsn, Member, OpId, Revision, Timeline};
    use matriarch_core::reason::Reason;

    #[test]
    fn a_candidate_that_is_believed() {
        let hands_over = |behind: u64, because: fn(Member) -> Reason| {
            broken(move |world| {
                let (old, new) = (leader(world), standby(world));
                world.gone(old);
                let end = on_disk(world, old).end;
                on_disk(world, new).end = Place { depth: end.depth - behind, ..end };
                let release = StoreAction::Release {
                    lease: LeaseId(1),
                    epoch: Revision(1),
                    position: Lsn(1),
                    timeline: Timeline(1),
                    history: None,
                    record: Box::default(),
                    session: None,
                };
                let because = because(world.names[new.0].clone());
                world.check_order(old, &Order { op: OpId(1), action: Action::Store(release), because, under: None });
            })
        };
        let to = |member: Member| Reason::HandingOver { to: member };
        assert_eq!(hands_over(1, to), Some("S20"));
        assert_eq!(hands_over(0, to), None);
        assert_eq!(hands_over(1, |_| Reason::ReleasingToNobody), None, "nobody is told to hold anything");
    }

    #[test]
    fn a_switchover_that_loses() {
        let handed = |behind: u64| {
            broken(move |world| {
                let (old, new) = (leader(world), standby(world));
                let end = on_disk(world, old).end;
                world.checks.handed_over = Some((world.now, end));
                on_disk(world, new).end = Place { depth: end.depth - behind, ..end };
                let mine = on_disk(world, new).end;
                world.check_handover(new, mine);
            })
        };
        assert_eq!(handed(1), Some("S20"));
        assert_eq!(handed(0), None);
        let by_hand = |lacked: Record| {
            broken(move |world| {
                let (old, new) = (leader(world), standby(world));
                let had = on_disk(world, old).end;
                let made = world.wal.fork(had, Timeline(9));
                let end = world.wal.append(had, lacked);
                let end = world.wal.append(end, Record::Checkpoint);
                world.checks.handed_over = Some((world.now, end));
                world.checks.hand_made.push(made);
                world.check_handover(new, made);
            })
        };
        assert_eq!(by_hand(Record::Commit(Serial(1_000_000))), Some("S20"));
        assert_eq!(by_hand(Record::Checkpoint), None, "it lacks nothing but the shutdown");
    }
}
