//! How far an agent knows the store to have come, and what it makes of an answer from before that: the rules of
//! `runtime/src/store/horizon.rs`, by which a store that was restored from a backup is not believed at once.

use std::collections::BTreeSet;
use std::time::Duration;

use matriarch_core::id::Revision;
use matriarch_core::time::Instant;

/// What the store tells of itself with every answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// Its raft term.
    pub term: u64,
    /// Its revision.
    pub revision: Revision,
}

impl Standing {
    fn is_before(self, floor: Self) -> bool {
        self.term < floor.term || self.revision < floor.revision
    }

    fn raised_to(self, new: Self) -> Self {
        Self { term: self.term.max(new.term), revision: self.revision.max(new.revision) }
    }
}

/// What was known of the store when a request was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Floor {
    standing: Standing,
    past: Option<Standing>,
    rollbacks: u64,
}

/// Only this past answers.
#[derive(Clone, Debug)]
struct Past {
    since: Instant,
    heard: Instant,
    silence_min: Duration,
    members: BTreeSet<usize>,
}

impl Past {
    fn new(now: Instant, tenure_limit: Duration) -> Self {
        Self { since: now, heard: now, silence_min: tenure_limit / 2, members: BTreeSet::new() }
    }

    fn is_told(&mut self, member: usize, again: bool, now: Instant) {
        let silent = now.since(self.heard) > self.silence_min;
        if silent {
            self.silence_min = self.silence_min.saturating_mul(2);
        }
        if silent || again {
            self.since = now;
        }
        self.heard = now;
        self.members.insert(member);
    }
}

/// The floor, and since when only the past answers.
#[derive(Clone, Debug, Default)]
pub struct Horizon {
    /// What a request that is sent now may not lie before.
    pub floor: Floor,
    past: Option<Past>,
    /// The longest that a tenure may last, as far as was told.
    pub tenure_limit: Duration,
}

impl Horizon {
    /// Nothing is known of the store yet; tenures last for so long.
    pub fn new(tenure_limit: Duration) -> Self {
        Self { tenure_limit, ..Self::default() }
    }

    /// Takes in what a member told in answer to a request that was sent when `sent` was the floor: how often the store
    /// had gone back by then; `None`: it is not believed.
    pub fn admit(&mut self, sent: Floor, told: Standing, member: usize, now: Instant) -> Option<u64> {
        let believed_since = sent.rollbacks < self.floor.rollbacks;
        let sent = if believed_since { self.floor } else { sent };
        if believed_since && told.is_before(sent.standing) {
            return None;
        }
        if !told.is_before(sent.standing) && !self.past.as_ref().is_some_and(|past| past.members.contains(&member)) {
            self.floor.standing = self.floor.standing.raised_to(told);
            (self.past, self.floor.past) = (None, None);
            return Some(self.floor.rollbacks);
        }
        let again = sent.past.is_some_and(|past| told.is_before(past));
        self.floor.past = Some(self.floor.past.filter(|_| !again).map_or(told, |past| past.raised_to(told)));
        let past = self.past.get_or_insert_with(|| Past::new(now, self.tenure_limit));
        past.is_told(member, again, now);
        if now.since(past.since) < self.tenure_limit {
            return None;
        }
        self.floor = Floor { standing: told, past: None, rollbacks: self.floor.rollbacks + 1 };
        self.past = None;
        Some(self.floor.rollbacks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(term: u64, revision: i64) -> Standing {
        Standing { term, revision: Revision(revision) }
    }

    fn ask(horizon: &mut Horizon, seconds: u64, answer: Standing, member: usize) -> Option<u64> {
        horizon.admit(horizon.floor, answer, member, Instant(seconds * 1_000_000_000))
    }

    /// Tenures last for 30 seconds, and the store has told how far it is.
    fn informed() -> Horizon {
        let mut horizon = Horizon::new(Duration::from_secs(30));
        assert_eq!(ask(&mut horizon, 0, told(4, 100), 0), Some(0));
        horizon
    }

    #[test]
    fn the_past_is_believed_when_it_was_all_that_answered_for_as_long_as_a_tenure() {
        let mut horizon = informed();
        assert_eq!(ask(&mut horizon, 1, told(1, 50), 0), None);
        assert_eq!(ask(&mut horizon, 2, told(4, 101), 1), Some(0), "another member knows of the present");
        assert_eq!(ask(&mut horizon, 3, told(1, 60), 0), None);
        assert_eq!(ask(&mut horizon, 18, told(1, 500), 0), None, "a few writes make it no other store");
        assert_eq!(ask(&mut horizon, 33, told(1, 501), 0), Some(1));
    }

    #[test]
    fn a_silence_of_half_a_tenure_begins_the_time_anew_and_each_doubles_what_is_one() {
        let mut horizon = informed();
        let past = told(1, 50);
        for seconds in [1, 16, 32, 61] {
            assert_eq!(ask(&mut horizon, seconds, past, 0), None, "{seconds}");
        }
        assert_eq!(ask(&mut horizon, 62, past, 0), Some(1), "30 seconds after the silence of 16, with one of 29");
    }

    #[test]
    fn a_store_that_is_restored_once_more_begins_the_time_anew() {
        let mut horizon = informed();
        for (seconds, revision) in [(1, 50), (15, 40), (30, 45), (44, 45)] {
            assert_eq!(ask(&mut horizon, seconds, told(1, revision), 0), None, "{seconds}");
        }
        assert_eq!(ask(&mut horizon, 45, told(1, 46), 0), Some(1));
    }

    #[test]
    fn answers_of_one_past_that_overtake_each_other_are_no_other_past() {
        let mut horizon = informed();
        let asked = horizon.floor;
        for (seconds, revision) in [(1, 50), (15, 52)] {
            assert_eq!(ask(&mut horizon, seconds, told(1, revision), 0), None);
        }
        assert_eq!(horizon.admit(asked, told(1, 51), 0, Instant(16_000_000_000)), None);
        assert_eq!(ask(&mut horizon, 31, told(1, 52), 0), Some(1));
    }
}
