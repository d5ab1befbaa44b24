//! S14: the key `history` only grows: what it told once it goes on to tell, and later lines tell of later timelines.

use crate::world::World;

impl World {
    /// The keys have changed.
    pub(super) fn check_history(&mut self) {
        let lines = &self.store.keys().history.lines;
        let known = &mut self.checks.history;
        let kept = known.len() <= lines.len() && known.iter().zip(lines).all(|(k, l)| *k == (l.timeline, l.end));
        let ascending = lines.windows(2).all(|pair| pair[0].timeline < pair[1].timeline);
        known.extend(lines.iter().skip(known.len()).map(|line| (line.timeline, line.end)));
        if !kept || !ascending {
            let what = format!("the history was {:?} and is {lines:?}", self.checks.history);
            self.violated("S14", what);
        }
    }
}

#[cfg(test)]
mod tests {
    use matriarch_core::id::{Lsn, Timeline};
    use matriarch_core::view::store::HistoryLine;

    use super::super::testing::*;

    #[test]
    fn a_history_that_forgets() {
        let told = |known: &'static [(u32, u64)], lines: &'static [(u32, u64)]| {
            broken(move |world| {
                world.checks.history = known.iter().map(|(timeline, end)| (Timeline(*timeline), Lsn(*end))).collect();
                let line = |(timeline, end): &(u32, u64)| HistoryLine {
                    timeline: Timeline(*timeline),
                    end: Lsn(*end),
                    reason: String::new(),
                    timestamp: None,
                    leader: None,
                };
                world.store.set_history(lines.iter().map(line).collect());
                world.check_history();
            })
        };
        assert_eq!(told(&[(1, 10), (2, 20)], &[(2, 20)]), Some("S14"));
        assert_eq!(told(&[(1, 10)], &[(1, 11), (2, 20)]), Some("S14"));
        assert_eq!(told(&[], &[(2, 20), (1, 30)]), Some("S14"));
        assert_eq!(told(&[(1, 10)], &[(1, 10), (3, 10)]), None, "a timeline whose leader wrote no line is left out");
    }
}
