//! S12: the winner was eligible, by the facts that it used and by how things were when it won: not barred, not beside a
//! primary that answers, not in the place of the operator's candidate, and not behind the best of those that answered or
//! could have been asked.
//!
//! What a node was told is noted where it arrives, before core hears of it: what an adapter loses or garbles on the way
//! has been told all the same.

use std::time::Duration;

use matriarch_core::config::{AHEAD_PATIENCE, CANDIDATE_PATIENCE, RACE_WINDOW};
use matriarch_core::op::Outcome;
use matriarch_core::time::Instant;
use matriarch_core::view::View;
use matriarch_core::view::peers::PeerAnswer;
use matriarch_core::view::store::{ClusterView, LeaderKey};

use crate::net::{End, Plane};
use crate::node::NodeId;
use crate::postgres::wal::Place;
use crate::time::ms;
use crate::world::World;

/// What became of a question to another agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// When it was asked.
    asked: Instant,
    /// When the answer was there, or was not.
    heard: Instant,
    /// The answer, and where in the WAL that is.
    answer: Option<(PeerAnswer, Option<Place>)>,
    /// When it was asked last what it answered as a running primary, and has not taken back since.
    primary: Option<Instant>,
}

impl World {
    /// Another agent's answer reaches an agent, or that there is none.
    pub fn note_told(&mut self, node: NodeId, from: NodeId, asked: Instant, outcome: &Outcome<PeerAnswer>) {
        let heard = self.clock(node);
        let answer = match outcome {
            Outcome::Done(answer) => Some((answer.clone(), self.place_of(from, answer))),
            Outcome::Refused(_) | Outcome::Unknown(_) => None,
        };
        let primary = match &answer {
            Some((answer, _)) => answer.primary.then_some(asked),
            None => self.checks.told[node.0].get(&from).and_then(|before| before.primary),
        };
        self.checks.told[node.0].insert(from, Told { asked, heard, answer, primary });
    }

    /// The host has booted: what its agent was told before is dated by a clock that is no more.
    pub fn forget_told(&mut self, node: NodeId) {
        self.checks.told[node.0].clear();
    }

    /// Where that is which a node has told of itself; `None`: its directory is another by now.
    fn place_of(&self, from: NodeId, answer: &PeerAnswer) -> Option<Place> {
        let end = self.nodes[from.0].place()?;
        let place = self.wal.back_to(end, answer.flushed);
        (self.wal.lsn(place) == answer.flushed).then_some(place)
    }

    /// By the facts: a node asks for the leader key after a race.
    pub(super) fn check_campaign(&mut self, node: NodeId) {
        if let Some(why) = self.ineligible(node) {
            self.violated("S12", format!("{} campaigns {why}", self.names[node.0]));
        }
    }

    fn ineligible(&self, node: NodeId) -> Option<String> {
        let agent = self.nodes[node.0].agent.as_ref()?;
        let view = View { at: self.clock(node), state: &agent.state };
        let cluster = view.cluster()?;
        // Only one node has data in a cluster that is being born.
        let _born = cluster.system_id()?;
        // Somebody has led since, of which it has not heard: the store refuses it.
        let led = |keys: &ClusterView| keys.epoch.as_ref().map(|record| record.revision);
        if led(cluster) != led(self.store.keys()) {
            return None;
        }
        if self.nodes[node.0].config.nofailover {
            return Some("and is barred".into());
        }
        let (absent_at, began) = agent.state.memory.race?;
        let wished = view.due_failover().is_some_and(|request| request.candidate.as_ref() == Some(&self.names[node.0]));
        let patient = view.at < view.leaderless_since() + AHEAD_PATIENCE;
        let mine = self.nodes[node.0].place()?;
        if let Some(primary) = (0..self.nodes.len()).map(NodeId).find(|primary| self.has_heard_primary(node, *primary))
        {
            return Some(format!("beside the primary {}, which has answered", self.names[primary.0]));
        }
        for (from, told) in self.checks.told[node.0].iter().filter(|(_, told)| told.asked >= began) {
            let Some((answer, place)) = &told.answer else { continue };
            let who = &self.names[from.0];
            // Whose record has ended does not reach the store, and could not take the key.
            if answer.barred || wished || !cluster.members.contains_key(who) {
                continue;
            }
            if let Some(why) = place.and_then(|theirs| self.gives_up(mine, theirs, patient)) {
                return Some(format!("and {who} has answered and {why}"));
            }
        }
        let early = view.at < began + RACE_WINDOW && !wished;
        let rivals = view.others().filter(|(_, key)| !key.record.api_url.is_empty() && key.record.pledges);
        let unheard = rivals.filter_map(|(name, _)| self.named(name)).find(|rival| {
            let told = self.checks.told[node.0].get(rival);
            told.is_none_or(|told| match &told.answer {
                Some((answer, _)) => told.asked < began || !(answer.barred || answer.is_final(absent_at)),
                None => told.heard < began,
            })
        });
        unheard.filter(|_| early).map(|rival| format!("and {} has told nothing final", self.names[rival.0]))
    }

    /// Its agent was told by the other, since nobody leads, that it is a running primary; and has not been told otherwise since.
    /// What that one renewed before it said so ends within a ttl.
    pub(super) fn has_heard_primary(&self, node: NodeId, primary: NodeId) -> bool {
        let told = self.checks.told[node.0].get(&primary).and_then(|told| told.primary);
        let Some((agent, at)) = self.nodes[node.0].agent.as_ref().zip(told) else { return false };
        let view = View { at: self.clock(node), state: &agent.state };
        at >= view.leaderless_since() && view.at < at + agent.state.config.ttl
    }

    /// What a campaign with `mine` would give up of a peer's WAL that it must not; while the peer goes first (`patient`)
    /// that is anything.
    fn gives_up(&self, mine: Place, theirs: Place, patient: bool) -> Option<String> {
        let shared = self.wal.shared(mine, theirs);
        if self.wal.are_twins(mine, theirs) || shared.depth == theirs.depth {
            return None;
        }
        let bytes = self.wal.lsn(theirs).bytes_ahead_of(self.wal.lsn(shared));
        if shared.depth == self.wal.shared(mine, mine).depth {
            return patient.then(|| format!("holds {bytes} bytes more"));
        }
        // They have parted. The newer branch counts, unless it left what the leaders told while this one did not; and
        // where its leader died before it had told of it, nobody knows which of the two that is.
        let branch = self.wal.timeline(theirs);
        let told = self.store.keys().status.as_ref().is_some_and(|status| status.timeline >= branch);
        let newer = told && branch > self.wal.timeline(mine);
        // What is published with a release is where the shutdown checkpoint begins, and it holds that as well.
        let published = self.checks.published.filter(|_| !self.checks.branches_untold && !self.checks.status_lost);
        let published = self.checks.released.or(published)?;
        // As it seems to whoever compares numbers and positions, where an operator's timeline has the number of a leader's.
        let kept = |place| {
            let twins = self.are_twins_by_hand(place, published);
            if twins { self.seems_shared(place, published) } else { self.wal.lsn(self.wal.shared(place, published)) }
        };
        let counts = newer && kept(theirs) >= kept(mine);
        let too_much = patient || bytes > self.lag_allowed(self.now);
        (counts && too_much).then(|| format!("holds {bytes} bytes of a newer branch"))
    }

    /// By how things are: the leader key was taken.
    pub(super) fn check_winner(&mut self, leader: &LeaderKey) {
        let Some(node) = self.named(&leader.member) else { return };
        // Whoever takes back what went before its time was never out of office.
        let back = self.checks.last_leader == Some(node) && self.checks.last_holder.is_none_or(|last| last == node);
        self.checks.by_word &= back;
        // Nor does a primary that an operator made by hand in a pause race for its key.
        let by_hand = self.is_by_hand(node);
        let (Some(since), false) = (self.checks.leaderless, back || by_hand) else { return };
        let waited = self.now.since(since).max(self.waited_in_a_lost_past(node));
        if self.nodes[node.0].config.nofailover {
            self.violated("S12", format!("{} takes the leader key and is barred", self.names[node.0]));
        }
        // What was scheduled is asked for at once when it begins.
        let request = self.store.keys().failover.as_ref().filter(|request| request.scheduled_at.is_none());
        let candidate = request.and_then(|request| request.candidate.clone());
        let wished = candidate.as_ref() == Some(&self.names[node.0]);
        // For whom the last leader has handed over to it vouches, unless the operator has named another since.
        let failover = wished && request.is_some_and(|request| request.leader.is_none());
        let told = self.store.keys().status.as_ref().map(|status| status.revision);
        if failover && request.map(|request| request.revision) > told {
            self.checks.handed_over = None;
        }
        // Nor is what was asked of a leader that has stopped cleanly and given its key away since, whomever for.
        let last = self.checks.last_leader.and_then(|last| self.store.keys().members.get(&self.names[last.0]));
        let gave_it_away = self.checks.released.is_some() && last.map(|key| key.revision) == told;
        let before = gave_it_away && request.map(|request| request.revision) < told;
        self.checks.by_word = failover && self.checks.handed_over.is_none() && !before;
        if wished {
            self.note_wish(node);
        }
        // A clock that is wrong within bounds is wrong by a few milliseconds here.
        if let Some(other) = candidate.filter(|_| !wished && waited + ms(10) < CANDIDATE_PATIENCE) {
            let what = format!("{} takes the leader key in the place of the candidate {other}", self.names[node.0]);
            self.violated("S12", what);
        }
        if !wished && waited + ms(10) < AHEAD_PATIENCE {
            self.check_best(node);
        }
    }

    /// How long the winner has waited for the key of a leader that a restored store brought back: it knew of its end, and
    /// does not believe the store that it is there again, where nobody can take it before it ends once more.
    fn waited_in_a_lost_past(&self, node: NodeId) -> Duration {
        let leaderless = self.nodes[node.0].agent.as_ref().and_then(|agent| agent.state.memory.leaderless);
        let waited = leaderless.map(|began| self.clock(node).since(began.since)).unwrap_or_default();
        let restored_meanwhile = self.checks.restored.is_some_and(|at| self.now.since(at) <= waited);
        if restored_meanwhile { waited } else { Duration::ZERO }
    }

    /// Whoever could have been asked does not hold more.
    fn check_best(&mut self, node: NodeId) {
        // Where an answer may take longer than a race waits, nobody knows who could have been asked.
        let prompt = self.was_prompt() && self.settings.delay_us.1 <= 30_000;
        let Some(mine) = self.nodes[node.0].place().filter(|_| prompt && self.is_quiet(node, 3000)) else { return };
        for other in (0..self.nodes.len()).map(NodeId).filter(|other| *other != node) {
            // Its agent finds out after a moment that it answers.
            let up = self.now.since(self.checks.ready_since[other.0]) >= ms(500);
            let asked = up && self.hear_each_other(node, other) && self.store_answers(other);
            let Some(theirs) = self.could_lead(other).filter(|_| asked) else { continue };
            if self.wal.contains(theirs, mine) && theirs.depth > mine.depth {
                let bytes = self.wal.lsn(theirs).bytes_ahead_of(self.wal.lsn(mine));
                let (winner, better) = (&self.names[node.0], &self.names[other.0]);
                let what = format!("{winner} takes the leader key and {better} holds {bytes} bytes more");
                self.violated("S12", what);
                return;
            }
        }
    }

    /// Its server stands by and its agent is awake, as far as others can tell, for a while: it could take over.
    pub(super) fn could_lead(&self, node: NodeId) -> Option<Place> {
        self.stands_by(node).filter(|_| self.is_quiet(node, 3000))
    }

    pub(super) fn stands_by(&self, node: NodeId) -> Option<Place> {
        let host = &self.nodes[node.0];
        let awake = host.agent.as_ref().is_some_and(|agent| !agent.frozen);
        let stands_by = host.server.is_ready() && host.server.postmaster.as_ref().is_some_and(|pm| pm.in_recovery);
        let known = self.store.keys().members.get(&self.names[node.0]).is_some_and(|key| key.record.state == "running");
        let barred = host.config.nofailover || host.files.full;
        host.place().filter(|_| awake && stands_by && known && !barred)
    }

    fn hear_each_other(&self, one: NodeId, other: NodeId) -> bool {
        let (one, other) = (End::Node(one), End::Node(other));
        !self.net.is_cut((Plane::Agents, one, other)) && !self.net.is_cut((Plane::Agents, other, one))
    }
}

#[cfg(test)]
mod tests {
    use crate::time::Time;
    use matriarch_core::id::{Lsn, Revision};
    use matriarch_core::state::Leaderless;
    use matriarch_core::view::store::FailoverKey;

    use super::super::testing::*;
    use super::*;
    use crate::postgres::wal::Record;
    use crate::store::Gone;

    /// A race of a standby, whose peer has answered so; its own WAL ends `behind` records before the peer's.
    fn races(behind: u64, change: impl FnOnce(&mut PeerAnswer)) -> Option<&'static str> {
        broken(move |world| {
            let (node, peer) = (standby(world), other_standby(world));
            let at = world.clock(node);
            let agent = world.nodes[node.0].agent.as_mut().unwrap();
            agent.state.memory.race = Some((Revision(1), at));
            agent.state.memory.leaderless = Some(Leaderless { since: at, revision: Revision(1) });
            let at = world.clock(peer);
            let told = world.nodes[peer.0].agent.as_ref().unwrap();
            let mut answer = View { at, state: &told.state }.own_answer();
            let end = world.nodes[peer.0].place().unwrap();
            (answer.flushed, answer.receives) = (world.wal.lsn(end), false);
            change(&mut answer);
            let old = leader(world);
            let gone = PeerAnswer { barred: true, ..answer.clone() };
            world.note_told(node, old, world.clock(node), &Outcome::Done(gone));
            world.note_told(node, peer, world.clock(node), &Outcome::Done(answer));
            on_disk(world, node).end = Place { depth: end.depth - behind, ..end };
            world.check_campaign(node);
        })
    }

    #[test]
    fn a_campaign_of_who_was_told_better() {
        assert_eq!(races(2, |_| ()), Some("S12"));
        assert_eq!(races(0, |_| ()), None, "as far as the other");
        assert_eq!(races(2, |answer| answer.barred = true), None, "who is barred need not be waited for");
        assert_eq!(races(0, |answer| answer.primary = true), Some("S12"));
        let then_silent = |later_ms: u64| {
            broken(move |world| {
                let (node, peer) = (standby(world), other_standby(world));
                let at = world.clock(node);
                let told = world.nodes[peer.0].agent.as_ref().unwrap();
                let answer = PeerAnswer { primary: true, ..View { at, state: &told.state }.own_answer() };
                world.note_told(node, peer, at, &Outcome::Done(answer));
                world.now = world.now + ms(later_ms);
                let (since, at) = (at, world.clock(node));
                for other in [peer, leader(world)] {
                    world.note_told(node, other, at, &Outcome::Unknown("lost".into()));
                }
                let agent = world.nodes[node.0].agent.as_mut().unwrap();
                agent.state.memory.race = Some((Revision(1), at));
                agent.state.memory.leaderless = Some(Leaderless { since, revision: Revision(1) });
                world.check_campaign(node);
            })
        };
        assert_eq!(then_silent(1000), Some("S12"), "its next answer was lost");
        assert_eq!(then_silent(30_000), None, "what it held is over");
        let receives = |answer: &mut PeerAnswer| (answer.receives, answer.pledge) = (true, None);
        assert_eq!(races(0, receives), Some("S12"), "more may come to it");
    }

    #[test]
    fn a_campaign_that_gives_up_a_newer_branch() {
        let parting = |told: u32, patient: bool, published: Option<u64>| {
            broken(move |world| {
                let node = standby(world);
                world.store.forge(|keys| keys.status.as_mut().unwrap().timeline = matriarch_core::id::Timeline(told));
                let end = world.nodes[node.0].place().unwrap();
                let fork = world.wal.fork(Place { depth: end.depth - 2, ..end }, matriarch_core::id::Timeline(7));
                let theirs = world.wal.append(fork, Record::EndOfRecovery);
                world.checks.published = published.map(|before| Place { depth: end.depth - before, ..end });
                if let Some(why) = world.gives_up(end, theirs, patient) {
                    world.violated("S12", why);
                }
            })
        };
        let parted = |patient, published| parting(7, patient, published);
        assert_eq!(parted(true, Some(2)), Some("S12"));
        assert_eq!(parting(1, true, Some(2)), None, "who led last has told nothing");
        assert_eq!(parted(true, Some(0)), None, "it left what the leaders told, and this node did not");
        assert_eq!(parted(true, None), None, "nobody knows what they told");
        assert_eq!(parted(false, Some(2)), None, "it had its time, and little is given up");
    }

    fn wins(change: impl FnOnce(&mut World, NodeId)) -> Option<&'static str> {
        broken(move |world| {
            let (old, node, mut key) = (leader(world), standby(world), key(world));
            world.nodes[old.0].server.held = true;
            world.store.end(key.lease, Gone::Expired);
            world.store_changed();
            world.gone(old);
            change(world, node);
            key.member = world.names[node.0].clone();
            world.check_winner(&key);
        })
    }

    #[test]
    fn a_winner_that_others_were_better_than() {
        let behind = |world: &mut World, node: NodeId| {
            let end = on_disk(world, node).end;
            on_disk(world, node).end = Place { depth: end.depth - 3, ..end };
        };
        assert_eq!(wins(behind), Some("S12"));
        assert_eq!(wins(|_, _| ()), None);
        let unasked = |world: &mut World, node: NodeId| {
            behind(world, node);
            let (one, other) = (End::Node(node), End::Node(other_of(world, node)));
            world.net.cut((Plane::Agents, other, one));
        };
        assert_eq!(wins(unasked), None, "the better one could not answer");
        assert_eq!(wins(|world, node| world.nodes[node.0].config.nofailover = true), Some("S12"));
        let by_hand = |ago_ms: u64| {
            wins(move |world, node| {
                behind(world, node);
                world.checks.by_hand[node.0] = Some(Time(world.now.0 - ago_ms * 1_000_000));
            })
        };
        assert_eq!(by_hand(10), None, "an operator has just promoted it");
        assert_eq!(by_hand(10_000), Some("S12"), "nor is the cluster paused");
    }

    fn other_of(world: &World, node: NodeId) -> NodeId {
        let old = world.checks.last_leader.unwrap();
        (0..3).map(NodeId).find(|other| *other != node && *other != old).unwrap()
    }

    #[test]
    fn a_winner_in_the_place_of_the_candidate() {
        let asked = |after_ms: u64| {
            wins(move |world, node| {
                let candidate = Some(world.names[other_of(world, node).0].clone());
                let request = FailoverKey { revision: Revision(1), leader: None, candidate, scheduled_at: None };
                world.store.forge(|keys| keys.failover = Some(request));
                world.now = world.now + ms(after_ms);
            })
        };
        assert_eq!(asked(100), Some("S12"));
        assert_eq!(asked(4000), None, "the candidate had its time");
    }

    #[test]
    fn a_winner_by_the_operators_word() {
        let by_word = |switchover: bool, handed_over: bool, asked: i64| {
            let mut by_word = false;
            broken(|world| {
                let (old, node, mut key) = (leader(world), standby(world), key(world));
                let candidate = Some(world.names[node.0].clone());
                let leader = switchover.then(|| world.names[old.0].clone());
                world.store.forge(|keys| {
                    let revision = Revision(asked);
                    keys.failover = Some(FailoverKey { revision, leader, candidate, scheduled_at: None });
                });
                world.store.end(key.lease, Gone::Expired);
                world.store_changed();
                world.gone(old);
                let place = world.nodes[old.0].place().filter(|_| handed_over);
                world.checks.handed_over = place.map(|place| (world.now, place));
                key.member = world.names[node.0].clone();
                world.check_winner(&key);
                by_word = world.checks.by_word;
            });
            by_word
        };
        assert!(by_word(false, false, 1));
        assert!(!by_word(true, false, 1), "a switchover loses nothing that may not be lost");
        assert!(!by_word(false, true, 1), "the leader has vouched for it");
        assert!(by_word(false, true, 1_000_000), "for another, and then the operator named it");
    }

    #[test]
    fn a_winner_that_waited_while_a_restored_store_held_the_old_key() {
        let restored = |ago_ms: Option<u64>| {
            wins(move |world, node| {
                let candidate = Some(world.names[other_of(world, node).0].clone());
                let request = FailoverKey { revision: Revision(1), leader: None, candidate, scheduled_at: None };
                world.store.forge(|keys| keys.failover = Some(request));
                let clock = world.clock(node);
                world.nodes[node.0].agent.as_mut().unwrap().state.memory.leaderless =
                    Some(Leaderless { since: clock, revision: Revision(1) });
                world.now = world.now + ms(4000);
                world.checks.leaderless = Some(Time(world.now.0 - 100_000_000));
                world.checks.restored = ago_ms.map(|ago_ms| Time(world.now.0 - ago_ms * 1_000_000));
            })
        };
        assert_eq!(restored(None), Some("S12"), "nothing was restored");
        assert_eq!(restored(Some(3000)), None);
        assert_eq!(restored(Some(5000)), Some("S12"), "it was before the leader went");
    }

    #[test]
    fn what_was_told_is_where_it_was() {
        let world = steady();
        let node = standby(&world);
        let at = world.clock(node);
        let agent = world.nodes[node.0].agent.as_ref().unwrap();
        let mut answer = View { at, state: &agent.state }.own_answer();
        let end = world.nodes[node.0].place().unwrap();
        answer.flushed = world.wal.lsn(Place { depth: end.depth - 1, ..end });
        assert_eq!(world.place_of(node, &answer).map(|place| place.depth), Some(end.depth - 1));
        answer.flushed = Lsn(answer.flushed.0 + 1);
        assert_eq!(world.place_of(node, &answer), None, "that is no position of its");
    }
}
