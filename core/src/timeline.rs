//! Histories of timelines. Which of two nodes is ahead is decided by history and position together: a position alone
//! says nothing across timelines, and a timeline number alone says nothing either, since two nodes can mint the same
//! one.

use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::id::{Lsn, Timeline};

/// The history of a timeline: its ancestors, oldest first, with the position at which each ended, and itself.
/// Source: `XLogFileName`/`readTimeLineHistory` in PostgreSQL's `timeline.c`: a `NNNNNNNN.history` file lists
/// `parent <tab> switchpoint <tab> reason`, oldest first.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct History {
    /// Ancestors, oldest first: timeline, the position at which it ended, and the reason in the file's words.
    pub ancestors: Vec<Ancestor>,
    /// The timeline itself; 0 if unknown.
    pub timeline: Timeline,
}

/// One line of a history file.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Ancestor {
    /// The timeline.
    pub timeline: Timeline,
    /// Where it ended.
    pub end: Lsn,
    /// Why, in the words of the file.
    pub reason: String,
}

/// How two positions on two histories relate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Relation {
    /// The same position of the same history.
    Equal,
    /// Everything the other holds, this one holds as well, and more.
    Ahead,
    /// The other holds everything of this one, and more.
    Behind,
    /// Each holds something that the other does not; `at` is where they part.
    Diverged {
        /// The last position that both share.
        at: Lsn,
    },
}

impl History {
    /// The history of a first timeline.
    pub fn first(timeline: Timeline) -> Self {
        Self { ancestors: Vec::new(), timeline }
    }

    /// Parses the text of `NNNNNNNN.history` for `timeline`. Comments and empty lines are skipped.
    ///
    /// # Errors
    /// The number of the first line that is not `timeline <tab> position <tab> reason`, or that is out of order.
    pub fn parse(timeline: Timeline, text: &str) -> Result<Self, usize> {
        let mut ancestors: Vec<Ancestor> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.splitn(3, char::is_whitespace);
            let parsed = words.next().and_then(|w| w.parse().ok()).zip(words.next().and_then(Lsn::parse));
            let (parent, end) = parsed.ok_or(number + 1)?;
            let parent = Timeline(parent);
            // A timeline begins where its parent ended, and cannot end before it began.
            let (last, begin) = ancestors.last().map_or((Timeline(0), Lsn(0)), |a| (a.timeline, a.end));
            if parent <= last || parent >= timeline || end < begin {
                return Err(number + 1);
            }
            let reason = String::from(words.next().unwrap_or("").trim());
            ancestors.push(Ancestor { timeline: parent, end, reason });
        }
        Ok(Self { ancestors, timeline })
    }

    /// Where `timeline` ended on the way to this history: `None` if it is no ancestor and not the timeline itself,
    /// `Some(None)` if it is the timeline itself, which has no end yet.
    pub fn end_of(&self, timeline: Timeline) -> Option<Option<Lsn>> {
        if timeline == self.timeline {
            return Some(None);
        }
        self.ancestors.iter().find(|a| a.timeline == timeline).map(|a| Some(a.end))
    }

    /// Where `timeline` began on the way to this history, 0 for the first; `None` if it is not on it.
    pub fn begin_of(&self, timeline: Timeline) -> Option<Lsn> {
        let _end = self.end_of(timeline)?;
        let before = self.ancestors.iter().take_while(|ancestor| ancestor.timeline != timeline);
        Some(before.last().map_or(Lsn(0), |parent| parent.end))
    }

    /// The other is of the same timeline as this: of the same number, and it began where this did. A number alone says
    /// nothing, since two nodes can mint the same one.
    pub fn is_of_the_timeline_of(&self, other: &Self) -> bool {
        let began = |history: &Self| history.ancestors.iter().map(|a| (a.timeline, a.end)).collect::<Vec<_>>();
        self.timeline == other.timeline && began(self) == began(other)
    }

    /// The stretches of WAL that make up this history up to `position`: timeline and where it ends.
    fn stretches(&self, position: Lsn) -> impl Iterator<Item = (Timeline, Lsn)> + '_ {
        let ended = self.ancestors.iter().map(|a| (a.timeline, a.end));
        ended.take_while(move |&(_, end)| end < position).chain(core::iter::once((
            self.ancestors.iter().find(|a| a.end >= position).map_or(self.timeline, |a| a.timeline),
            position,
        )))
    }

    /// How `(self, mine)` relates to `(other, theirs)`: walks both from the beginning and stops where they part.
    pub fn relation(&self, mine: Lsn, other: &Self, theirs: Lsn) -> Relation {
        let mut left = self.stretches(mine);
        let mut right = other.stretches(theirs);
        let mut shared = Lsn(0);
        loop {
            match (left.next(), right.next()) {
                (None, None) => return Relation::Equal,
                (Some(_), None) => return Relation::Ahead,
                (None, Some(_)) => return Relation::Behind,
                (Some((a, a_end)), Some((b, b_end))) => {
                    if a != b {
                        return parted(shared, mine, theirs);
                    }
                    match a_end.cmp(&b_end) {
                        Ordering::Equal => shared = a_end,
                        Ordering::Less => {
                            // Mine ends here, or goes on elsewhere while theirs goes on along this timeline.
                            return if left.next().is_none() {
                                Relation::Behind
                            } else {
                                Relation::Diverged { at: a_end }
                            };
                        }
                        Ordering::Greater => {
                            return if right.next().is_none() {
                                Relation::Ahead
                            } else {
                                Relation::Diverged { at: b_end }
                            };
                        }
                    }
                }
            }
        }
    }
}

/// Two histories that part after `shared`: one that ends right there is only behind, not diverged.
fn parted(shared: Lsn, mine: Lsn, theirs: Lsn) -> Relation {
    match (mine <= shared, theirs <= shared) {
        (true, true) => Relation::Equal,
        (true, false) => Relation::Behind,
        (false, true) => Relation::Ahead,
        (false, false) => Relation::Diverged { at: shared },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn history(ancestors: &[(u32, u64)], timeline: u32) -> History {
        let ancestors = ancestors
            .iter()
            .map(|&(t, end)| Ancestor { timeline: Timeline(t), end: Lsn(end), reason: String::new() })
            .collect();
        History { ancestors, timeline: Timeline(timeline) }
    }

    #[test]
    fn parses_a_file_of_postgresql() {
        let text = "1\t0/3000148\tno recovery target specified\n\n2\t0/5000000\tno recovery target specified\n";
        let parsed = History::parse(Timeline(3), text).unwrap();
        assert_eq!(parsed.ancestors.len(), 2);
        assert_eq!(parsed.end_of(Timeline(1)), Some(Some(Lsn(0x300_0148))));
        assert_eq!(parsed.end_of(Timeline(3)), Some(None));
        assert_eq!(parsed.end_of(Timeline(4)), None);
        assert_eq!([1, 3, 4].map(|timeline| parsed.begin_of(Timeline(timeline)).is_some()), [true, true, false]);
        assert_eq!(parsed.begin_of(Timeline(1)), Some(Lsn(0)));
        assert_eq!(parsed.begin_of(Timeline(3)), parsed.end_of(Timeline(2)).flatten());
        assert_eq!(parsed.ancestors[0].reason, "no recovery target specified");
    }

    #[test]
    fn refuses_a_file_out_of_order_and_names_the_line() {
        assert_eq!(History::parse(Timeline(3), "2\t0/1\tx\n1\t0/2\tx\n"), Err(2));
        assert_eq!(History::parse(Timeline(2), "2\t0/1\tx\n"), Err(1));
        assert_eq!(History::parse(Timeline(2), "one\t0/1\tx\n"), Err(1));
        assert_eq!(History::parse(Timeline(3), "1\t0/5\tx\n2\t0/4\tx\n"), Err(2));
    }

    #[test]
    fn a_standby_that_stopped_at_the_switchpoint_is_only_behind() {
        let old = history(&[], 1);
        let new = history(&[(1, 100)], 2);
        assert_eq!(old.relation(Lsn(100), &new, Lsn(150)), Relation::Behind);
        assert_eq!(old.relation(Lsn(90), &new, Lsn(150)), Relation::Behind);
        assert_eq!(old.relation(Lsn(101), &new, Lsn(150)), Relation::Diverged { at: Lsn(100) });
        assert_eq!(new.relation(Lsn(150), &old, Lsn(101)), Relation::Diverged { at: Lsn(100) });
        assert_eq!(new.relation(Lsn(150), &old, Lsn(100)), Relation::Ahead);
    }

    #[test]
    fn a_timeline_may_end_where_it_began() {
        // Promoted twice, and nothing was written in between.
        let twice = "1\t0/3000148\tno recovery target specified\n2\t0/3000148\tno recovery target specified\n";
        assert_eq!(History::parse(Timeline(3), twice).map(|history| history.ancestors.len()), Ok(2));
        assert_eq!(History::parse(Timeline(3), &twice.replacen("0/3000148", "0/3000149", 1)), Err(2));
    }

    #[test]
    fn the_same_number_minted_twice_is_divergence() {
        let one = history(&[(1, 100)], 2);
        let two = history(&[(1, 90)], 2);
        assert_eq!(one.relation(Lsn(120), &two, Lsn(110)), Relation::Diverged { at: Lsn(90) });
    }

    /// The naive version: a history is the list of (timeline, byte) pairs that it consists of.
    fn bytes(h: &History, position: u64) -> Vec<(u32, u64)> {
        (0..position)
            .map(|byte| {
                let owner = h.ancestors.iter().find(|a| byte < a.end.0).map_or(h.timeline, |a| a.timeline);
                (owner.0, byte)
            })
            .collect()
    }

    fn naive(a: &[(u32, u64)], b: &[(u32, u64)]) -> Relation {
        let shared = a.iter().zip(b).take_while(|(x, y)| x == y).count();
        match (shared == a.len(), shared == b.len()) {
            (true, true) => Relation::Equal,
            (true, false) => Relation::Behind,
            (false, true) => Relation::Ahead,
            (false, false) => Relation::Diverged { at: Lsn(shared as u64) },
        }
    }

    /// Histories with increasing timelines and increasing ends, and a position beyond the last end.
    fn any_history() -> impl Strategy<Value = (History, u64)> {
        (proptest::collection::vec((1u32..3, 1u64..12), 0..4), 0u64..12).prop_map(|(steps, more)| {
            let (mut timeline, mut end, mut ancestors) = (1, 0, Vec::new());
            for (gap, length) in steps {
                end += length;
                ancestors.push((timeline, end));
                timeline += gap;
            }
            (history(&ancestors, timeline), end + more)
        })
    }

    proptest! {
        #[test]
        fn relation_equals_the_naive_version((a, mine) in any_history(), (b, theirs) in any_history()) {
            let expected = naive(&bytes(&a, mine), &bytes(&b, theirs));
            prop_assert_eq!(a.relation(Lsn(mine), &b, Lsn(theirs)), expected);
        }

        #[test]
        fn relation_is_antisymmetric((a, mine) in any_history(), (b, theirs) in any_history()) {
            let mirrored = match b.relation(Lsn(theirs), &a, Lsn(mine)) {
                Relation::Ahead => Relation::Behind,
                Relation::Behind => Relation::Ahead,
                same @ (Relation::Equal | Relation::Diverged { .. }) => same,
            };
            prop_assert_eq!(a.relation(Lsn(mine), &b, Lsn(theirs)), mirrored);
        }
    }
}
