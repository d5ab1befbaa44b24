//! How long ago standbys answered their WAL senders. PostgreSQL tells only what the standby's own clock showed then, and two
//! hosts' clocks are not compared: that it has changed between two questions tells that an answer came in between.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use matriarch_core::time::{Duration, Instant};

/// What the last questions have told of each WAL sender, by its process.
#[derive(Debug, Default)]
pub(super) struct Replies(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// When the last question was asked.
    asked: Instant,
    senders: BTreeMap<i64, Reply>,
}

#[derive(Clone, Copy, Debug)]
struct Reply {
    /// What the standby's clock showed, microseconds since the epoch.
    by_its_clock_us: i64,
    /// Not before this by ours; `None`: it has not changed since it was first seen.
    since: Option<Instant>,
}

impl Replies {
    /// What a question that was `asked` then has told: WAL senders by their process and what their standby's clock showed at its
    /// last answer. For each of them how long ago that was at most, where it is known.
    pub(super) fn ages(&self, asked: Instant, told: &[(i64, i64)]) -> BTreeMap<i64, Duration> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that was overtaken by a later question tells nothing of what has changed since.
        let overtaken = asked < known.asked;
        let mut senders = BTreeMap::new();
        for (process, by_its_clock_us) in told {
            let before = known.senders.get(process);
            let since = match before {
                Some(before) if overtaken || before.by_its_clock_us == *by_its_clock_us => before.since,
                Some(_) => Some(known.asked),
                None => None,
            };
            senders.insert(*process, Reply { by_its_clock_us: *by_its_clock_us, since });
        }
        let dated = senders.iter().filter_map(|(process, reply)| Some((*process, asked.since(reply.since?))));
        let ages = dated.collect();
        if !overtaken {
            *known = Told { asked, senders };
        }
        ages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    #[test]
    fn an_answer_came_since_the_question_before_it_was_first_told() {
        let replies = Replies::default();
        let age = |asked_ms: u64, told: &[(i64, i64)]| {
            replies.ages(at(asked_ms), told).get(&7).map(|age| age.as_millis() as u64)
        };
        assert_eq!(age(1000, &[(7, 50)]), None, "it may be old");
        assert_eq!(age(2000, &[(7, 50)]), None);
        assert_eq!(age(3000, &[(7, 60)]), Some(1000));
        assert_eq!(age(4500, &[(7, 60)]), Some(2500));
        // The bug: a clock that is ahead made every answer one of just now, and one that is set back none at all.
        assert_eq!(age(5000, &[(7, 60)]), Some(3000));
        assert_eq!(age(6000, &[(7, 10)]), Some(1000), "its clock was set, by an answer all the same");
        assert_eq!(age(5500, &[(7, 60)]), Some(500), "a question that was overtaken");
        assert_eq!(age(7000, &[(7, 10)]), Some(2000));
        assert_eq!(age(8000, &[(8, 90)]), None);
        assert_eq!(age(9000, &[(7, 95)]), None, "a process of that number, and another");
    }
}
