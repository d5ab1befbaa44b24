//! S14: the key `history` tells all of the history of whoever writes it, in order: it grows, and forgets nothing, as long
//! as leaders continue what leaders before them wrote. Who left their history tells its own.

use matriarch_core::view::store::HistoryLine;

use crate::world::World;

impl World {
    /// An operator has deleted the key, overwritten it or taken it back. So it stays until the next leader tells it anew,
    /// all of it.
    pub fn note_history_lost(&mut self) {
        self.checks.history = self.store.keys().history.revision;
        self.checks.branches_untold = true;
    }

    /// The keys have changed.
    pub(super) fn check_history(&mut self) {
        let told = &self.store.keys().history;
        if std::mem::replace(&mut self.checks.history, told.revision) == told.revision {
            return;
        }
        // Who releases the key tells it in the same revision.
        let writer = self.leading().or(self.checks.last_leader).and_then(|node| self.nodes[node.0].server.cluster());
        let Some(history) = writer.map(|on_disk| self.wal.history(on_disk.end)) else { return };
        let line = |line: &HistoryLine| (line.timeline, line.end);
        let true_lines = history.ancestors.iter().map(|ancestor| (ancestor.timeline, ancestor.end));
        if !told.lines.iter().map(line).eq(true_lines) {
            let lines: Vec<_> = told.lines.iter().map(line).collect();
            let what = format!("the history says {lines:?}, the leader's own is {:?}", history.ancestors);
            self.violated("S14", what);
        }
    }
}

#[cfg(test)]
mod tests {
    use matriarch_core::id::{Revision, Timeline};
    use matriarch_core::view::store::HistoryKey;

    use super::super::testing::*;
    use super::*;
    use crate::postgres::wal::Record;
    use crate::store::hands::Key;

    #[test]
    fn a_history_that_forgets() {
        let told = |change: fn(&mut Vec<HistoryLine>)| {
            broken(move |world| {
                // A leader on timeline 3.
                let node = leader(world);
                for timeline in [2, 3] {
                    let end = on_disk(world, node).end;
                    let fork = world.wal.fork(end, Timeline(timeline));
                    on_disk(world, node).end = world.wal.append(fork, Record::EndOfRecovery);
                }
                let end = on_disk(world, node).end;
                let line = |ancestor: matriarch_core::timeline::Ancestor| HistoryLine {
                    timeline: ancestor.timeline,
                    end: ancestor.end,
                    reason: ancestor.reason,
                    timestamp: None,
                    leader: None,
                };
                let mut lines = world.wal.history(end).ancestors.into_iter().map(line).collect();
                change(&mut lines);
                world.store.forge(|keys| {
                    let revision = Revision(keys.revision.0 + 1);
                    keys.history = HistoryKey { revision, lines, ..HistoryKey::default() };
                });
                world.check_history();
            })
        };
        assert_eq!(told(|lines| drop(lines.remove(0))), Some("S14"));
        assert_eq!(told(|lines| lines[1].end.0 += 1), Some("S14"));
        assert_eq!(told(|lines| lines.reverse()), Some("S14"));
        assert_eq!(told(|lines| lines[1].timestamp = Some("now".into())), None, "what is told beside it may differ");
    }

    #[test]
    fn a_history_that_was_lost_is_told_anew() {
        let lost = |then: Option<bool>| {
            broken(move |world| {
                let node = leader(world);
                let before = on_disk(world, node).end;
                let fork = world.wal.fork(before, Timeline(2));
                on_disk(world, node).end = world.wal.append(fork, Record::EndOfRecovery);
                world.key_deleted(Key::History);
                assert_eq!(world.violation, None, "that was an operator");
                let Some(whole) = then else { return };
                let (timeline, end) = (Timeline(1), world.wal.lsn(before));
                let line = HistoryLine { timeline, end, reason: String::new(), timestamp: None, leader: None };
                let lines = if whole { vec![line] } else { vec![] };
                world.store.forge(|keys| {
                    let revision = Revision(keys.revision.0 + 1);
                    keys.history = HistoryKey { revision, lines, ..HistoryKey::default() };
                });
                world.check_history();
            })
        };
        assert_eq!(lost(None), None);
        assert_eq!(lost(Some(true)), None);
        assert_eq!(lost(Some(false)), Some("S14"), "the next leader forgets it as well");
    }
}
