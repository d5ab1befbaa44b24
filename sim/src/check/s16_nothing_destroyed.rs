//! S16: nothing acknowledged is destroyed. What a rewind or a clone takes away from a directory is held by the one that
//! it is rewound to or cloned from; or that one leads, serves, and was elected from what both share: then the rest was
//! given up by that election. It was not if the two parted later than where the leader was when it took the key, nor if
//! that leader has lost since what both held then. A standby that is cloned from instead is one of that leader: it holds nothing that the
//! leader does not, and what it lacks comes from the leader, if that serves; where an operator asked for the clone, it is
//! his word that gives up what only this node holds of a leader that just died, or before the next one serves. A directory that a rewind has begun to write is cloned, never rewound again or started.

use matriarch_core::id::Member;

use crate::node::NodeId;
use crate::postgres::wal::Place;
use crate::world::World;

/// What replaces a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tool {
    /// `pg_basebackup`.
    Clone,
    /// `pg_rewind`.
    Rewind,
}

/// What a leader held when it took the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Elected {
    /// All of it: its timeline begins there at the latest.
    end: Place,
    /// What no loss of power could take from it any more.
    sure: Place,
}

impl World {
    /// The leader key was taken. Whoever takes it back and has what it was elected with gives up nothing anew: what it
    /// wrote since is what its standbys hold.
    pub(super) fn note_elected(&mut self, taker: Option<NodeId>) {
        let on_disk = taker.and_then(|taker| self.nodes[taker.0].server.cluster());
        let now = on_disk.map(|on_disk| Elected { end: on_disk.end, sure: on_disk.flushed });
        let same = self.checks.last_leader == taker;
        let goes_on = |before: &Elected| same && now.is_some_and(|now| self.wal.contains(now.end, before.end));
        self.checks.elected = self.checks.elected.filter(goes_on).or(now);
    }

    /// A rewind begins.
    pub fn check_rewind(&mut self, node: NodeId) {
        let half_made = self.nodes[node.0].server.cluster().is_some_and(|on_disk| on_disk.tainted.is_some());
        if half_made {
            self.violated("S16", format!("{} is rewound and a rewind has half-made it already", self.names[node.0]));
        }
    }

    /// A server is started.
    pub fn check_whole(&mut self, node: NodeId) {
        let half_made = self.nodes[node.0].server.cluster().is_some_and(|on_disk| on_disk.tainted.is_some());
        if half_made {
            self.violated("S16", format!("{} starts in a half-made directory", self.names[node.0]));
        }
    }

    /// What a directory holds is about to be replaced by what another has: emptied for a clone, or rewound. A clone brings
    /// the checkpoint of its source about, a rewind takes the last one.
    pub fn check_replaced(&mut self, node: NodeId, from: &Member, by: Tool) {
        let Some((mine, half_made)) =
            self.nodes[node.0].server.cluster().map(|on_disk| (on_disk.end, on_disk.tainted.is_some()))
        else {
            return;
        };
        let Some(source) = self.named(from) else { return };
        let server = &self.nodes[source.0].server;
        let theirs = server.cluster().filter(|on_disk| on_disk.tainted.is_none() && server.is_ready());
        let Some((theirs, checkpoint)) = theirs.map(|on_disk| (on_disk.end, on_disk.checkpoint.1)) else {
            let what =
                format!("{} is emptied and {from}, from which it is to come, does not serve", self.names[node.0]);
            self.violated("S16", what);
            return;
        };
        // What a rewind has begun to write was given up with its beginning.
        let lost = if half_made { 0 } else { self.acknowledged_beyond(mine, theirs) };
        let by_word = self.nodes[node.0].agent.as_ref().is_some_and(|agent| agent.state.memory.reinit);
        let elected = self.is_of_the_leader(source, mine, theirs, by_word);
        let checkpointed = by == Tool::Clone || checkpoint == self.wal.timeline(theirs);
        let config = &self.nodes[node.0].config;
        let forbidden = !by_word && !config.clone_when_diverged && !config.clone_when_rewind_fails;
        if lost > 0 && by == Tool::Clone && forbidden {
            let what =
                format!("{} is emptied with {lost} acknowledged rows, which nobody has allowed", self.names[node.0]);
            self.violated("S16", what);
        } else if lost > 0 && !(elected && checkpointed) {
            let what =
                format!("{} gives up {lost} acknowledged rows for {from}, which was not elected", self.names[node.0]);
            self.violated("S16", what);
        } else if lost > 0 {
            self.coverage.count("rows given up");
        }
    }

    /// The source is the leader that was elected last and serves, or a standby of it; where that leader does not serve,
    /// one that lacks nothing of what `mine` and the leader both hold. What neither holds was given up by its election.
    fn is_of_the_leader(&self, source: NodeId, mine: Place, theirs: Place, by_word: bool) -> bool {
        let Some(leader) = self.checks.last_leader else { return false };
        let server = &self.nodes[leader.0].server;
        let (serves, end) = (server.is_primary(), server.cluster().map(|on_disk| on_disk.end));
        // What an operator has cloned again may come from a standby that has gone elsewhere a moment ago, if the leader
        // holds what is given up.
        if by_word && serves && end.is_some_and(|end| self.acknowledged_beyond(mine, end) == 0) {
            return true;
        }
        let given_up = (by_word && !serves) || end.is_some_and(|end| self.is_given_up(mine, end));
        let Some(end) = end.filter(|end| leader != source && self.wal.contains(*end, theirs)) else {
            return leader == source && (serves || by_word) && given_up;
        };
        given_up && (serves || by_word || self.acknowledged_beyond(self.wal.shared(mine, end), theirs) == 0)
    }

    /// What `mine` holds and the leader, which is at `end`, does not was none of the leader's when it was elected, and has
    /// left its way no later than there. Where an operator began another timeline by hand its rows are his.
    fn is_given_up(&self, mine: Place, end: Place) -> bool {
        let shared = self.wal.shared(mine, end);
        let begun = self.wal.on_the_way(mine, shared.depth + 1);
        if self.acknowledged_beyond(mine, end) == 0
            || self.checks.hand_made.iter().any(|made| made.branch == begun.branch)
        {
            return true;
        }
        self.checks.elected.is_some_and(|elected| {
            shared.depth <= elected.end.depth && self.wal.contains(end, self.wal.shared(mine, elected.sure))
        })
    }

    /// How many rows that `mine` holds were acknowledged and are not held by `theirs`.
    fn acknowledged_beyond(&self, mine: Place, theirs: Place) -> usize {
        let shared = self.wal.shared(mine, theirs);
        if shared.depth == mine.depth {
            return 0;
        }
        let rows = self.ledger.acknowledged.iter().rev();
        rows.filter(|row| row.place.depth > shared.depth && self.wal.contains(mine, row.place)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::client::Acknowledged;
    use crate::postgres::wal::{Record, Serial};

    /// The leader was elected with all that it has but the last records.
    fn elected_before(world: &mut World, records: u64) {
        let lead = leader(world);
        let end = on_disk(world, lead).end;
        let from = Place { depth: end.depth - records, ..end };
        world.checks.elected = Some(Elected { end: from, sure: from });
    }

    /// A standby with a row of its own that was acknowledged, two records before the leader's end, where that was elected,
    /// is replaced by what another has.
    fn replaced(own: bool, by: Tool, change: impl FnOnce(&mut World, NodeId)) -> Option<&'static str> {
        broken(move |world| {
            let (node, source) = (standby(world), leader(world));
            if own {
                let end = on_disk(world, node).end;
                let fork = world.wal.fork(Place { depth: end.depth - 2, ..end }, matriarch_core::id::Timeline(1));
                let place = world.wal.append(fork, Record::Commit(Serial(1_000_000)));
                on_disk(world, node).end = place;
                let row = Acknowledged { serial: Serial(1_000_000), node, at: world.now, place };
                world.ledger.acknowledged.push(row);
            }
            elected_before(world, 2);
            change(world, source);
            let from = world.names[source.0].clone();
            world.check_replaced(node, &from, by);
        })
    }

    #[test]
    fn rows_that_are_destroyed() {
        let nobody = |world: &mut World, _: NodeId| world.checks.last_leader = None;
        let old = |world: &mut World, node: NodeId| on_disk(world, node).checkpoint.1 = matriarch_core::id::Timeline(0);
        for by in [Tool::Clone, Tool::Rewind] {
            assert_eq!(replaced(true, by, |_, _| ()), None, "the leader was elected from what both share");
            assert_eq!(replaced(true, by, nobody), Some("S16"));
            assert_eq!(replaced(false, by, nobody), None, "nothing is lost");
            assert_eq!(replaced(false, by, World::gone), Some("S16"), "there is nothing to come from");
        }
        assert_eq!(replaced(true, Tool::Rewind, old), Some("S16"), "its first checkpoint is still to come");
        assert_eq!(replaced(true, Tool::Clone, old), None, "a clone waits for one");
        let forbids = |world: &mut World, _: NodeId| {
            let node = standby(world);
            let config = &mut world.nodes[node.0].config;
            (config.clone_when_diverged, config.clone_when_rewind_fails) = (false, false);
        };
        assert_eq!(replaced(true, Tool::Clone, forbids), Some("S16"), "nobody has allowed that");
        assert_eq!(replaced(false, Tool::Clone, forbids), None, "nothing is lost");
        assert_eq!(replaced(true, Tool::Rewind, forbids), None, "a rewind needs no leave");
        let half_made = |world: &mut World, _: NodeId| {
            world.checks.last_leader = None;
            let node = standby(world);
            on_disk(world, node).tainted = Some("a rewind");
        };
        assert_eq!(replaced(true, Tool::Clone, half_made), None, "what it held was given up already");
    }

    #[test]
    fn rows_that_no_election_gave_up() {
        for by in [Tool::Clone, Tool::Rewind] {
            let elected = |records: u64| replaced(true, by, move |world, _| elected_before(world, records));
            assert_eq!(elected(1), None, "they parted before, and it was elected on its own branch");
            assert_eq!(elected(3), Some("S16"), "they parted under the leader that is to be followed");
            let born = |world: &mut World, _: NodeId| world.checks.elected = None;
            assert_eq!(replaced(true, by, born), Some("S16"), "with it the cluster began");
            assert_eq!(replaced(false, by, born), None, "nothing is lost");
            let by_hand = |world: &mut World, _: NodeId| {
                elected_before(world, 3);
                let node = standby(world);
                let own = on_disk(world, node).end;
                world.checks.hand_made.push(own);
            };
            assert_eq!(replaced(true, by, by_hand), None, "an operator began its branch");
            // It was elected with a row that it does not hold any more.
            let lost = |world: &mut World, source: NodeId, sure: bool| {
                let node = standby(world);
                let own = on_disk(world, node).end;
                let end = on_disk(world, source).end;
                let sure = if sure { own } else { Place { depth: end.depth - 2, ..end } };
                world.checks.elected = Some(Elected { end: own, sure });
            };
            assert_eq!(replaced(true, by, |world, source| lost(world, source, true)), Some("S16"));
            assert_eq!(
                replaced(true, by, |world, source| lost(world, source, false)),
                None,
                "it was not on its disk yet"
            );
        }
    }

    /// Whose key it was and who takes it back gives up what it had at the first time only.
    #[test]
    fn a_leader_that_is_elected_again() {
        let elected = |taker: fn(&World) -> NodeId, before: u64, lost: bool| {
            let mut world = steady();
            let world = &mut world;
            elected_before(world, before);
            let (was, taker) = (world.checks.elected, taker(world));
            if lost {
                let at = was.unwrap().end;
                on_disk(world, taker).end = Place { depth: at.depth - 1, ..at };
            }
            world.note_elected(Some(taker));
            world.checks.elected == was
        };
        assert!(elected(leader, 2, false), "what it wrote since is its standbys' as well");
        assert!(!elected(standby, 2, false), "another one begins from where it is");
        assert!(!elected(leader, 2, true), "it has other data since");
    }

    /// Leaves the leader's history.
    fn leaves(world: &mut World, source: NodeId, _: NodeId) {
        let end = on_disk(world, source).end;
        let fork = world.wal.fork(Place { depth: end.depth - 1, ..end }, matriarch_core::id::Timeline(1));
        on_disk(world, source).end = world.wal.append(fork, Record::EndOfRecovery);
    }

    /// Rows of an old leader are given up for a clone from a standby.
    #[test]
    fn a_clone_from_a_standby() {
        let cloned = |parted: bool, change: fn(&mut World, NodeId, NodeId)| {
            broken(move |world| {
                let (node, source, lead) = (standby(world), other_standby(world), leader(world));
                let end = on_disk(world, lead).end;
                let fork = world.wal.fork(Place { depth: end.depth - 2, ..end }, matriarch_core::id::Timeline(1));
                let row = Record::Commit(Serial(1_000_000));
                let place = world.wal.append(if parted { fork } else { end }, row);
                if !parted {
                    on_disk(world, lead).end = place;
                }
                on_disk(world, node).end = place;
                let row = Acknowledged { serial: Serial(1_000_000), node, at: world.now, place };
                world.ledger.acknowledged.push(row);
                elected_before(world, if parted { 2 } else { 1 });
                change(world, source, lead);
                let from = world.names[source.0].clone();
                world.check_replaced(node, &from, Tool::Clone);
            })
        };
        let dies = |world: &mut World, _: NodeId, lead: NodeId| world.gone(lead);
        assert_eq!(cloned(true, |_, _, _| ()), None, "a standby of the leader, which was elected without those rows");
        assert_eq!(cloned(true, dies), None, "and which does not serve just now");
        let long_ago = |world: &mut World, _: NodeId, _: NodeId| elected_before(world, 3);
        assert_eq!(cloned(true, long_ago), Some("S16"), "it was elected before those rows were written");
        assert_eq!(cloned(false, |_, _, _| ()), None, "what it lacks comes from the leader");
        assert_eq!(cloned(false, dies), Some("S16"), "perhaps the last copy of what the leader wrote");
        let asked = |world: &mut World, _: NodeId, lead: NodeId| {
            world.gone(lead);
            for node in &mut world.nodes {
                node.agent.as_mut().unwrap().state.memory.reinit = true;
            }
        };
        assert_eq!(cloned(false, asked), None, "an operator asked for it");
        assert_eq!(cloned(true, leaves), Some("S16"), "it has left the leader's history");
        let asked_and_left = |world: &mut World, source: NodeId, lead: NodeId| {
            leaves(world, source, lead);
            for node in &mut world.nodes {
                node.agent.as_mut().unwrap().state.memory.reinit = true;
            }
        };
        assert_eq!(cloned(false, leaves), Some("S16"));
        assert_eq!(cloned(false, asked_and_left), None, "an operator asked for it, and the leader has them");
        assert_eq!(cloned(true, asked_and_left), Some("S16"), "nobody else has them");
    }

    #[test]
    fn a_directory_that_is_half_made() {
        let tainted = |check: fn(&mut World, NodeId), tainted: bool| {
            broken(move |world| {
                let node = standby(world);
                on_disk(world, node).tainted = tainted.then_some("a rewind");
                check(world, node);
            })
        };
        for check in [World::check_rewind, World::check_whole] {
            assert_eq!(tainted(check, true), Some("S16"));
            assert_eq!(tainted(check, false), None);
        }
    }
}
