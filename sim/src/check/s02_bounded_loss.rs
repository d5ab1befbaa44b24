//! S2: a failover gives up no more than `maximum_lag_on_failover` of what was published.

use matriarch_core::id::{Lsn, Revision, Timeline};
use matriarch_core::timeline::Relation;
use matriarch_core::view::postgres::ControlState;

use crate::node::{Node, NodeId};
use crate::postgres::wal::Place;
use crate::time::{Time, ms};
use crate::world::World;

impl World {
    /// Another server serves: what was published is there, or as much of it as must be.
    pub(super) fn check_loss(&mut self, node: NodeId, mine: Place) {
        if let Some(place) = self.checks.published.filter(|place| self.knows_published(node, *place)) {
            let shared = self.wal.lsn(self.wal.shared(mine, place));
            if self.wal.lsn(place) > shared {
                self.coverage.count("failover with loss");
            }
            let parted = if self.are_twins_by_hand(mine, place) { self.seems_shared(mine, place) } else { shared };
            let lost = self.wal.lsn(place).bytes_ahead_of(parted);
            // Whoever won decided before it took the key.
            let allowed = self.lag_allowed(self.checks.pauses.taken);
            if lost > allowed && self.is_evident(mine, place) {
                let who = &self.names[node.0];
                let what = format!("{who} leads without {lost} bytes that were published, {allowed} are allowed");
                self.violated("S2", what);
            }
        }
    }

    /// What was published is there to be read; or its agent was told of it, before an operator deleted it.
    fn knows_published(&self, node: NodeId, published: Place) -> bool {
        let (boot, told) = self.checks.told_status[node.0];
        let knows = self.nodes[node.0].agent.as_ref().is_some_and(|agent| agent.boot == boot);
        !self.checks.status_lost || (knows && told >= self.wal.lsn(published))
    }

    /// The operator allows so much from now on.
    pub fn note_lag_limit(&mut self, bytes: u64) {
        self.checks.lag_limits.push((self.now, bytes));
    }

    /// Nothing tells any more what he allows: everybody goes by what he has seen last, however long ago.
    pub fn note_lag_limit_lost(&mut self) {
        let all = self.checks.lag_limits.iter().map(|(_, bytes)| *bytes);
        let most = all.chain([self.settings.maximum_lag_bytes]).max().unwrap_or_default();
        self.note_lag_limit(most);
        self.checks.limit_lost = true;
    }

    /// The keys have changed: with the configuration what it said last is there again.
    pub(super) fn note_lag_limit_back(&mut self) {
        if self.checks.limit_lost && self.store.keys().config_revision != Revision(0) {
            self.checks.limit_lost = false;
            self.note_lag_limit(self.last_lag_limit().unwrap_or(self.settings.maximum_lag_bytes));
        }
    }

    /// The most that may have been allowed to whoever decided then: what is newer than his view of the keys he does not know,
    /// and nobody takes a leader key by a view that is older than two ttl (docs/time.md).
    pub(super) fn lag_allowed(&self, decided: Time) -> u64 {
        let seen = Time(decided.0.saturating_sub(ms(2 * self.settings.ttl_ms).as_nanos() as u64));
        let limits = &self.checks.lag_limits;
        let newer = limits.iter().filter(|(since, _)| *since > seen && *since <= decided).map(|(_, bytes)| *bytes);
        let last = limits.iter().rfind(|(since, _)| *since <= seen).map(|(_, bytes)| *bytes);
        newer.chain([last.unwrap_or(self.settings.maximum_lag_bytes)]).max().unwrap_or_default()
    }

    /// Nobody led, and the operator named who is to: what that loses he has accepted, and nobody has to answer for it later.
    pub(super) fn accept_loss(&mut self, mine: Place) -> bool {
        let accepted = std::mem::take(&mut self.checks.by_word);
        if accepted {
            self.coverage.count("failover by word");
            self.checks.published = self.checks.published.map(|place| self.wal.shared(mine, place));
        }
        accepted
    }

    /// An operator's primary takes the key: what he gave up by its promotion nobody has to answer for when it serves again.
    pub(super) fn accept_loss_by_hand(&mut self, holder: NodeId) {
        let server = &self.nodes[holder.0].server;
        let Some(mine) = server.cluster().map(|on_disk| on_disk.end).filter(|_| server.is_primary()) else { return };
        if self.checks.hand_made.iter().any(|made| made.branch == mine.branch) {
            self.checks.published = self.checks.published.map(|place| self.wal.shared(mine, place));
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
        plain_lag || (told && origin.is_some_and(began))
    }

    /// The two part where timelines of one number begin at one position, one of them by an operator's doing: he began it by
    /// hand, or what was reserved is lost since he deleted the record. Nobody can tell those apart by number and position.
    /// Core begins none such.
    pub(super) fn are_twins_by_hand(&self, one: Place, other: Place) -> bool {
        let shared = self.wal.shared(one, other);
        let begun = |goal| self.wal.on_the_way(goal, shared.depth + 1);
        let (one, other) = (begun(one), begun(other));
        let begins = |begun: Place| begun.branch != shared.branch && begun.depth == shared.depth + 1;
        let by_hand = |begun: Place| {
            let mut made = self.checks.hand_made.iter().chain(&self.checks.reused);
            made.any(|made| made.branch == begun.branch)
        };
        begins(one)
            && begins(other)
            && self.wal.timeline(one) == self.wal.timeline(other)
            && (by_hand(one) || by_hand(other))
    }

    /// How far the two seem to be one to whoever compares numbers and positions.
    pub(super) fn seems_shared(&self, mine: Place, published: Place) -> Lsn {
        let (at, other) = (self.wal.lsn(mine), self.wal.lsn(published));
        match self.wal.history(mine).relation(at, &self.wal.history(published), other) {
            Relation::Diverged { at } => at,
            Relation::Equal | Relation::Ahead | Relation::Behind => at.min(other),
        }
    }

    /// A leader has published its position; or, with a release, what another had published: that is beyond its own end, or
    /// on another timeline (0: not told).
    pub fn note_published(&mut self, node: NodeId, position: Lsn, timeline: Timeline) {
        let Some(end) = self.nodes[node.0].server.cluster().map(|on_disk| on_disk.end) else { return };
        let own = timeline == Timeline(0) || timeline == self.wal.timeline(end);
        if own && self.wal.lsn(end) >= position {
            self.checks.published = Some(self.wal.back_to(end, position));
            (self.checks.branches_untold, self.checks.status_lost) = (false, false);
        }
    }

    /// A leader gives the key back and says where it ended. One that did not stop cleanly cannot know that, and takes back nothing
    /// of what it knows to be published.
    pub fn note_last_words(&mut self, node: NodeId, position: Lsn, timeline: Timeline) {
        let clean = self.nodes[node.0].server.cluster().is_some_and(|dir| dir.state == ControlState::ShutDown);
        let beyond = self.checks.published.filter(|place| self.wal.lsn(*place) > position);
        if beyond.is_some_and(|place| !clean && self.knows_published(node, place)) {
            self.checks.status_lost = false;
        } else {
            self.note_published(node, position, timeline);
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
    use matriarch_core::action::{Status, StoreAction};
    use matriarch_core::id::Timeline;
    use matriarch_core::view::store::HistoryLine;

    use super::super::testing::*;
    use super::*;
    use crate::postgres::wal::{Record, Serial};
    use crate::store::{Known, Request};

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
    fn a_failover_that_gives_up_what_was_published_in_a_key_that_is_gone() {
        let loses = |told: fn(&World, Place) -> (u32, Lsn)| {
            broken(move |world| {
                let (old, new) = (leader(world), standby(world));
                world.settings.maximum_lag_bytes = 0;
                let end = on_disk(world, old).end;
                (world.checks.published, world.checks.status_lost) = (Some(end), true);
                world.checks.told_status[new.0] = told(world, end);
                let behind = on_disk(world, new);
                behind.end = Place { depth: behind.end.depth - 2, ..behind.end };
                let mine = on_disk(world, new).end;
                world.check_loss(new, mine);
            })
        };
        assert_eq!(loses(|world, end| (1, world.wal.lsn(end))), Some("S2"), "it was told before");
        assert_eq!(loses(|world, end| (1, Lsn(world.wal.lsn(end).0 - 1))), None, "of less than that");
        assert_eq!(loses(|world, end| (7, world.wal.lsn(end))), None, "another agent was");
    }

    const MUCH: u64 = 1 << 20;

    #[test]
    fn a_failover_that_gives_up_what_was_allowed_once() {
        let loses = |limits: &'static [(u64, u64)], lost: bool| {
            broken(move |world| {
                let (old, new) = (leader(world), standby(world));
                world.settings.maximum_lag_bytes = 0;
                let now = world.now;
                for (ago_ms, bytes) in limits {
                    world.now = Time(now.0 - ago_ms * 1_000_000);
                    world.note_lag_limit(*bytes);
                }
                if lost {
                    world.note_lag_limit_lost();
                }
                world.now = now;
                world.settings.ttl_ms = 5000;
                world.checks.pauses.taken = Time(now.0 - 2_000_000_000);
                world.checks.published = Some(on_disk(world, old).end);
                let behind = on_disk(world, new);
                behind.end = Place { depth: behind.end.depth - 2, ..behind.end };
                let mine = on_disk(world, new).end;
                world.check_loss(new, mine);
            })
        };
        assert_eq!(loses(&[(30_000, MUCH)], false), None, "it is allowed");
        assert_eq!(loses(&[(30_000, MUCH), (20_000, 0)], false), Some("S2"), "it was, and long ago");
        assert_eq!(loses(&[(30_000, MUCH), (11_000, 0)], false), None, "whoever won need not have heard");
        assert_eq!(loses(&[(1000, MUCH)], false), Some("S2"), "it had won before");
        assert_eq!(loses(&[(30_000, MUCH), (20_000, 0)], true), None, "nor will he ever");
    }

    /// What an operator gives up by his word neither his candidate nor whoever leads after it has to answer for.
    #[test]
    fn a_failover_by_word_that_gives_up_more() {
        let loses = |by_word: bool| {
            broken(move |world| {
                let (old, new) = (leader(world), standby(world));
                world.settings.maximum_lag_bytes = 0;
                world.checks.published = Some(on_disk(world, old).end);
                world.checks.by_word = by_word;
                let behind = on_disk(world, new);
                behind.end = Place { depth: behind.end.depth - 2, ..behind.end };
                let mine = on_disk(world, new).end;
                for _ in 0..2 {
                    if !world.accept_loss(mine) {
                        world.check_loss(new, mine);
                    }
                }
            })
        };
        assert_eq!(loses(false), Some("S2"));
        assert_eq!(loses(true), None);
    }

    /// The bug: an operator promoted one in a pause, it took the key and crashed, and was judged when it served again.
    #[test]
    fn a_promotion_by_hand_that_gives_up_more() {
        let loses = |by_hand: bool| {
            broken(move |world| {
                let (old, new) = (leader(world), standby(world));
                world.settings.maximum_lag_bytes = 0;
                world.checks.published = Some(on_disk(world, old).end);
                let end = on_disk(world, new).end;
                let made = world.wal.fork(Place { depth: end.depth - 2, ..end }, Timeline(2));
                on_disk(world, new).end = made;
                let pm = world.nodes[new.0].server.postmaster.as_mut().unwrap();
                pm.in_recovery = false;
                if by_hand {
                    world.checks.hand_made.push(made);
                }
                world.accept_loss_by_hand(new);
                world.check_loss(new, made);
            })
        };
        assert_eq!(loses(false), Some("S2"));
        assert_eq!(loses(true), None);
    }

    /// The standby's timeline of the number that the leader's has, and how it came about.
    #[derive(Clone, Copy, Default)]
    struct Twin {
        by_hand: bool,
        /// Its number was reserved for another, in a record that is lost.
        reused: bool,
        /// An operator began another one on top of it.
        later_by_hand: bool,
        begins_earlier: u64,
        commits: u32,
    }

    /// Where the standby is.
    fn begin(world: &mut World, node: NodeId, twin: Twin) -> Place {
        let end = on_disk(world, node).end;
        let mut at = world.wal.fork(Place { depth: end.depth - twin.begins_earlier, ..end }, Timeline(2));
        at = world.wal.append(at, Record::EndOfRecovery);
        if twin.by_hand {
            world.checks.hand_made.push(at);
        }
        if twin.reused {
            world.checks.reused.push(at);
        }
        for serial in 0..twin.commits {
            at = world.wal.append(at, Record::Commit(Serial(1_000_000 + u64::from(serial))));
        }
        if twin.later_by_hand {
            let later = world.wal.fork(at, Timeline(3));
            at = world.wal.append(later, Record::EndOfRecovery);
            world.checks.hand_made.push(at);
        }
        on_disk(world, node).end = at;
        at
    }

    /// The leader tells how far it is, and where its timeline began.
    fn publishes(world: &mut World, node: NodeId, end: Place) {
        let (epoch, from) = (key(world).created, world.names[node.0].clone());
        let (revision, origin) = (world.store.keys().history.revision, world.wal.origin(end).unwrap());
        let (timeline, end_of_first) = (world.wal.timeline(origin), world.wal.lsn(origin));
        let (reason, timestamp, leader) = (String::new(), None, None);
        let lines = vec![HistoryLine { timeline, end: end_of_first, reason, timestamp, leader }];
        let (position, timeline) = (world.wal.lsn(end), world.wal.timeline(end));
        let status = Status { position, timeline, slots: vec![], retain: vec![] };
        let action = Box::new(StoreAction::PutHistory { epoch, revision, lines, status });
        world.store.apply(world.now, &Request::Order { action, from, known: Known::default() });
        world.checks.published = Some(end);
    }

    #[test]
    fn a_failover_to_another_timeline_of_one_number() {
        let loses = |twin: Twin| {
            broken(move |world| {
                let (old, new) = (leader(world), standby(world));
                let (theirs, mine) = (on_disk(world, old).end, on_disk(world, new).end);
                assert_eq!(theirs, mine);
                world.settings.maximum_lag_bytes = 0;
                let end = begin(world, old, Twin { commits: 1, ..Twin::default() });
                publishes(world, old, end);
                let mine = begin(world, new, twin);
                world.check_loss(new, mine);
            })
        };
        let by_hand = Twin { by_hand: true, commits: 1, ..Twin::default() };
        assert_eq!(loses(by_hand), None, "nobody can tell them apart");
        assert_eq!(loses(Twin { by_hand: false, ..by_hand }), Some("S2"), "core begins none such");
        assert_eq!(loses(Twin { by_hand: false, reused: true, ..by_hand }), None, "the record was deleted");
        assert_eq!(loses(Twin { commits: 0, ..by_hand }), Some("S2"), "it is behind by its position alone");
        assert_eq!(loses(Twin { begins_earlier: 1, ..by_hand }), Some("S2"), "where they began tells them apart");
        let later = Twin { by_hand: false, later_by_hand: true, ..by_hand };
        assert_eq!(loses(later), Some("S2"), "what an operator began is none of the two");
        assert_eq!(loses(Twin { later_by_hand: true, ..by_hand }), None);
    }

    /// The bug: `status` was deleted while a primary could not serve, and what it gave the key back with was its last checkpoint.
    #[test]
    fn last_words_that_take_back_what_was_published() {
        let kept = |clean: bool, heard: bool| {
            let mut world = steady();
            let old = leader(&world);
            let end = on_disk(&mut world, old).end;
            (world.checks.published, world.checks.status_lost) = (Some(end), true);
            world.checks.told_status[old.0].1 = if heard { world.wal.lsn(end) } else { Lsn(0) };
            if clean {
                on_disk(&mut world, old).state = ControlState::ShutDown;
            }
            let before = world.wal.lsn(Place { depth: end.depth - 2, ..end });
            world.note_last_words(old, before, Timeline(0));
            world.checks.published == Some(end)
        };
        assert!(kept(false, true) && !kept(true, true), "a clean stop knows where it ended");
        assert!(!kept(false, false), "its agent has not heard of it");
    }

    #[test]
    fn a_release_that_publishes_again_what_another_had_published() {
        let mut world = steady();
        let (old, new) = (leader(&world), standby(&world));
        let end = on_disk(&mut world, old).end;
        world.note_published(old, world.wal.lsn(end), Timeline(0));
        let published = world.checks.published;
        assert_eq!(published, Some(end));
        let mine = on_disk(&mut world, new);
        mine.end = Place { depth: end.depth - 2, ..end };
        world.note_published(new, world.wal.lsn(end), Timeline(0));
        assert_eq!(world.checks.published, published);
        let before = on_disk(&mut world, new).end;
        world.note_published(new, world.wal.lsn(before), Timeline(9));
        assert_eq!(world.checks.published, published, "what it passes on is on another timeline than its own");
    }
}
