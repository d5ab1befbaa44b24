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
}

/// What was known of the store when a request was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Floor {
    standing: Standing,
    rollbacks: u64,
}

/// The floor, and since when only the past answers.
#[derive(Clone, Debug, Default)]
pub struct Horizon {
    /// What a request that is sent now may not lie before.
    pub floor: Floor,
    past_since: Option<Instant>,
    past_members: BTreeSet<usize>,
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
        let floor = if believed_since { self.floor.standing } else { sent.standing };
        if believed_since && told.is_before(floor) {
            return None;
        }
        if !told.is_before(floor) && !self.past_members.contains(&member) {
            let standing = &mut self.floor.standing;
            (standing.term, standing.revision) = (standing.term.max(told.term), standing.revision.max(told.revision));
            self.past_since = None;
            self.past_members.clear();
            return Some(self.floor.rollbacks);
        }
        self.past_members.insert(member);
        let since = *self.past_since.get_or_insert(now);
        if now.since(since) < self.tenure_limit {
            return None;
        }
        self.floor = Floor { standing: told, rollbacks: self.floor.rollbacks + 1 };
        self.past_since = None;
        self.past_members.clear();
        Some(self.floor.rollbacks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_is_believed_when_it_was_all_that_answered_for_as_long_as_a_tenure() {
        let mut horizon = Horizon::new(Duration::from_secs(30));
        let told = |term, revision| Standing { term, revision: Revision(revision) };
        let mut ask = |seconds: u64, answer, member| {
            let now = Instant(seconds * 1_000_000_000);
            horizon.admit(horizon.floor, answer, member, now)
        };
        assert_eq!(ask(0, told(4, 100), 0), Some(0));
        assert_eq!(ask(1, told(1, 50), 0), None);
        assert_eq!(ask(2, told(4, 101), 1), Some(0), "another member knows of the present");
        assert_eq!(ask(3, told(1, 60), 0), None);
        assert_eq!(ask(20, told(1, 500), 0), None, "a few writes make it no other store");
        assert_eq!(ask(33, told(1, 501), 0), Some(1));
    }
}
