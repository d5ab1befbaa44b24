//! Failures that repeat. What core tries again every second fails every second while a disk is full, and a log of one
//! sentence is a log that nobody reads: the first failure is told as a whole, equal ones by a short line at growing
//! intervals, and their end. So it is with what takes turns: a race that comes to no end is run anew every second.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use matriarch_core::time::Instant;

/// When equal failures are told again, since they were told last; the last one for ever.
const INTERVALS: [Duration; 3] = [Duration::from_secs(10), Duration::from_mins(1), Duration::from_mins(10)];
/// What did not fail again for so long is over: the next failure is told as a whole.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(1);
/// While something failed again so lately, decisions that take turns are told once.
const QUIET: Duration = Duration::from_secs(10);
/// So often what a race came to is told before it is a repetition.
const TURNS_TOLD: u64 = 2;
/// What fails and is remembered; and decisions.
const KNOWN_MAX: usize = 64;
/// Ways in which one thing fails that are told as they come; one more has to wait for the first interval.
const WAYS_MAX: usize = 3;
/// Characters of a failure that are compared.
const COMPARED_CHARS: usize = 1000;
/// Characters that a short line repeats.
const SHORT_CHARS: usize = 160;

#[derive(Default)]
pub(super) struct Repeats {
    /// By what was tried.
    failing: BTreeMap<String, Failing>,
    /// Decisions that were told while failures repeat.
    decisions: BTreeSet<String>,
    /// What was concluded again and again.
    turns: BTreeMap<String, Turn>,
}

struct Turn {
    count: u64,
    last: Instant,
    told: Instant,
    /// Which interval comes next.
    interval: usize,
}

struct Failing {
    /// In which ways it failed, as far as they were told.
    ways: BTreeSet<String>,
    count: u64,
    last: Instant,
    told: Instant,
    told_count: u64,
    /// Which interval comes next.
    interval: usize,
}

impl Repeats {
    /// `what` failed as the sentence `why` says: what is to be told of it.
    pub(super) fn failed(&mut self, what: &str, why: &str, at: Instant) -> Option<String> {
        self.failing.retain(|_, failing| at.since(failing.last) < FORGOTTEN_AFTER);
        let Some(failing) = self.failing.get_mut(what) else {
            if self.failing.len() >= KNOWN_MAX {
                let oldest = self.failing.iter().min_by_key(|(_, failing)| failing.last).map(|(what, _)| what.clone());
                oldest.map(|what| self.failing.remove(&what));
            }
            let ways = BTreeSet::from([way(why)]);
            let first = Failing { ways, count: 1, last: at, told: at, told_count: 1, interval: 0 };
            self.failing.insert(what.to_owned(), first);
            return Some(why.to_owned());
        };
        (failing.count, failing.last) = (failing.count + 1, at);
        let silent = at.since(failing.told);
        let another = !failing.ways.contains(&way(why));
        let due = if another { INTERVALS[0] } else { INTERVALS[failing.interval] };
        if silent < due && !(another && failing.ways.len() < WAYS_MAX) {
            return None;
        }
        let more = failing.count - failing.told_count;
        (failing.told, failing.told_count) = (at, failing.count);
        if another {
            if failing.ways.len() >= KNOWN_MAX {
                failing.ways.clear();
            }
            failing.ways.insert(way(why));
            failing.interval = 0;
            return Some(why.to_owned());
        }
        failing.interval = (failing.interval + 1).min(INTERVALS.len() - 1);
        Some(format!("could not {what} {more} times more in {} s: {}", silent.as_secs(), short(what, why)))
    }

    /// `what` succeeded: what is to be told of that, if it failed again and again before.
    pub(super) fn done(&mut self, what: &str) -> Option<String> {
        let failures = self.failing.remove(what)?.count;
        (failures > 1).then(|| format!("{what}: done, after {failures} failures"))
    }

    /// Whether what was concluded is news: the rounds of a race follow each other every second for as long as nobody may lead, and
    /// so do starts that fail.
    pub(super) fn is_a_new_turn(&mut self, decision: &str, at: Instant) -> bool {
        self.turns.retain(|_, turn| at.since(turn.last) < QUIET);
        let first = Turn { count: 0, last: at, told: at, interval: 0 };
        let turn = self.turns.entry(without_numbers(decision)).or_insert(first);
        (turn.count, turn.last) = (turn.count + 1, at);
        if turn.count <= TURNS_TOLD {
            turn.told = at;
            return true;
        }
        let due = at.since(turn.told) >= INTERVALS[turn.interval];
        if due {
            (turn.told, turn.interval) = (at, (turn.interval + 1).min(INTERVALS.len() - 1));
        }
        due
    }

    /// Whether a decision is news. While failures repeat, the same few decisions take turns as often.
    pub(super) fn is_news(&mut self, decision: &str, at: Instant) -> bool {
        if !self.failing.values().any(|failing| failing.count > 1 && at.since(failing.last) < QUIET) {
            self.decisions.clear();
            return true;
        }
        if self.decisions.len() >= KNOWN_MAX {
            self.decisions.clear();
        }
        self.decisions.insert(without_numbers(decision))
    }
}

/// What two failures have in common that are of one kind: the way out that is named in a line of its own at the end (a
/// tool on a full disk complains of another file each time), or else the whole text.
fn way(why: &str) -> String {
    without_numbers(way_out(why).unwrap_or(why))
}

/// The last line, if it is one of ours: it begins like a sentence, and no program's name or time is before it.
fn way_out(why: &str) -> Option<&str> {
    let (_, last) = why.trim_end().rsplit_once('\n')?;
    let ours = last.starts_with(|c: char| c.is_ascii_uppercase()) && !last.contains("LOG: ");
    ours.then_some(last)
}

/// Equal but for numbers is equal: times, process ids and positions are others each time. Digits of a name (`n1`, `pg-2`)
/// are no number.
fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    let mut in_a_name = false;
    for c in text.chars().take(COMPARED_CHARS) {
        match c {
            '0'..='9' | 'A'..='F' if out.ends_with('#') => {}
            'A'..='F' if out.ends_with("#/") => out.push('#'),
            '0'..='9' if !in_a_name => out.push('#'),
            c => {
                in_a_name = c.is_alphanumeric() || (in_a_name && matches!(c, '-' | '_'));
                out.push(c);
            }
        }
    }
    out
}

/// The way out, or the first line, cut.
fn short(what: &str, why: &str) -> String {
    let first = why.lines().next().unwrap_or_default();
    let first = first.strip_prefix("could not ").and_then(|rest| rest.strip_prefix(what)).unwrap_or(first);
    let line = way_out(why).unwrap_or(first).trim_start_matches(": ");
    match line.char_indices().nth(SHORT_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(1_000_000_000_000 + seconds * 1_000_000_000)
    }

    #[test]
    fn an_equal_failure_is_told_once_and_then_at_growing_intervals() {
        let mut repeats = Repeats::default();
        let gone = |second: u64| format!("could not clone from n1: pg_basebackup, pid {second}: connection refused");
        let told: Vec<(u64, String)> =
            (0..700).filter_map(|s| Some((s, repeats.failed("clone from n1", &gone(s), at(s))?))).collect();
        let times: Vec<u64> = told.iter().map(|(second, _)| *second).collect();
        assert_eq!(times, [0, 10, 70, 670]);
        assert_eq!(told[0].1, gone(0));
        let line = "could not clone from n1 10 times more in 10 s: pg_basebackup, pid 10: connection refused";
        assert_eq!(told[1].1, line);
        let line = "could not clone from n1 600 times more in 600 s: pg_basebackup, pid 670: connection refused";
        assert_eq!(told[3].1, line);
        assert_eq!(repeats.done("clone from n2"), None);
        assert_eq!(repeats.done("clone from n1").as_deref(), Some("clone from n1: done, after 700 failures"));
        assert_eq!(repeats.done("clone from n1"), None);
        assert_eq!(repeats.failed("clone from n1", &gone(1), at(701)), Some(gone(1)));
        assert_eq!(repeats.done("clone from n1"), None, "one failure is no story");
    }

    /// On a full disk the tool names another file each time.
    #[test]
    fn failures_with_one_way_out_are_of_one_kind() {
        let mut repeats = Repeats::default();
        let full =
            |file: &str| format!("could not clone from n1: no room for {file}\nThe disk is full: free space on /d");
        assert!(repeats.failed("clone from n1", &full("x"), at(0)).is_some());
        for s in 1..10 {
            assert_eq!(repeats.failed("clone from n1", &full(&"x".repeat(s as usize)), at(s)), None);
        }
        let line = "could not clone from n1 10 times more in 10 s: The disk is full: free space on /d";
        assert_eq!(repeats.failed("clone from n1", &full("y"), at(10)).as_deref(), Some(line));
        // The server's own last words are no way out.
        assert_eq!(way_out("no:\n2026-11-28 02:04:21 UTC [1] LOG:  database system is shut down"), None);
        assert_eq!(way_out("no:\nLOG:  database system is shut down"), None);
        assert_eq!(way_out("no:\npg_basebackup: removing contents"), None);
    }

    #[test]
    fn another_failure_and_one_that_comes_back_late_are_told_as_a_whole() {
        let mut repeats = Repeats::default();
        assert!(repeats.failed("start", "no: x", at(0)).is_some());
        assert!(repeats.failed("start", "no: x", at(1)).is_none());
        assert_eq!(repeats.failed("start", "no: y", at(2)).as_deref(), Some("no: y"));
        // They take turns.
        assert!(repeats.failed("start", "no: x", at(3)).is_none());
        assert!(repeats.failed("start", "no: y", at(4)).is_none());
        assert_eq!(repeats.failed("start", "no: x", at(64)).as_deref(), Some("no: x"));
        for n in 0..1000 {
            repeats.failed(&format!("x{n}"), "no", at(64));
        }
        assert!(repeats.failing.len() <= KNOWN_MAX);
    }

    #[test]
    fn failures_that_are_all_different_are_not_all_told() {
        let mut repeats = Repeats::default();
        let told: Vec<u64> =
            (0..40).filter(|s| repeats.failed("start", &"x".repeat(*s as usize + 1), at(*s)).is_some()).collect();
        assert_eq!(told, [0, 1, 2, 12, 22, 32]);
    }

    #[test]
    fn decisions_that_take_turns_while_a_failure_repeats_are_told_once() {
        let mut repeats = Repeats::default();
        let mut told = Vec::new();
        for s in 0..30 {
            for decision in [format!("it is cloned, {s} ms"), "it is empty".to_owned()] {
                if repeats.is_news(&decision, at(s)) {
                    told.push((s, decision));
                }
            }
            repeats.failed("clone", "no", at(s));
        }
        let seconds: Vec<u64> = told.iter().map(|(second, _)| *second).collect();
        assert_eq!(seconds, [0, 0, 1, 1, 2, 2]);
        assert!(repeats.is_news("another", at(30)) && !repeats.is_news("another", at(30)));
        repeats.done("clone");
        assert!(repeats.is_news("it is empty", at(31)) && repeats.is_news("it is empty", at(31)));
    }

    #[test]
    fn a_race_that_is_run_every_second_is_told_twice_and_then_at_growing_intervals() {
        let mut repeats = Repeats::default();
        let mut told = Vec::new();
        for s in 0..700 {
            for decision in [format!("{s} members have not told their position"), "n1 is ahead".to_owned()] {
                if repeats.is_a_new_turn(&decision, at(s)) {
                    told.push(s);
                }
            }
        }
        assert_eq!(told, [0, 0, 1, 1, 11, 11, 71, 71, 671, 671]);
        assert!(repeats.is_a_new_turn("n2 is ahead", at(700)), "it came to something else");
        assert!(!repeats.is_a_new_turn("n1 is ahead", at(701)));
        assert!(repeats.is_a_new_turn("n1 is ahead", at(711)), "it is another race");
        assert_eq!(repeats.turns.len(), 1);
    }

    #[test]
    fn times_process_ids_and_positions_do_not_make_a_failure_another_one() {
        let first = "2026-11-28 01:02:03.004 UTC [17] LOG: redo at 0/3000A8";
        assert_eq!(without_numbers(first), without_numbers("2026-11-29 11:12:13.1 UTC [4711] LOG: redo at 12/5F"));
        assert_ne!(without_numbers("disk full"), without_numbers("port taken"));
        assert_ne!(without_numbers("db-1 is ahead of 0/3000A8"), without_numbers("db-2 is ahead of 0/3000A8"));
        assert_eq!(without_numbers("db-1 is ahead of 0/3000A8"), without_numbers("db-1 is ahead of 0/A30B"));
        assert_eq!(without_numbers("no room for xlogtemp.4711"), without_numbers("no room for xlogtemp.5"));
    }
}
