//! History files come from another server's disk: parsing them never panics, what was parsed is parsed again from what
//! is printed of it, histories compare consistently, and where `pg_rewind` would go by the wrong place it is not let.

use std::fmt::Write;

use matriarch_core::id::{Lsn, Timeline};
use matriarch_core::timeline::{History, Relation, pg_rewind_finds_the_fork};

use crate::input::texts;

/// The target: two files, and two positions in hexadecimal digits.
pub fn target(data: &[u8]) -> String {
    let Some(&[my_file, their_file, here, there]) = texts(data).as_deref() else { return "no files".into() };
    let position = |text| u64::from_str_radix(text, 16).unwrap_or(0x300_0000);
    let (Some(mine), Some(theirs)) = (parsed(my_file), parsed(their_file)) else { return "no histories".into() };
    let (here, there) = (Lsn(position(here)), Lsn(position(there)));
    assert_eq!(mine.relation(here, &mine, here), Relation::Equal);
    let relation = mine.relation(here, &theirs, there);
    let mirrored = match theirs.relation(there, &mine, here) {
        Relation::Ahead => Relation::Behind,
        Relation::Behind => Relation::Ahead,
        same @ (Relation::Equal | Relation::Diverged { .. }) => same,
    };
    assert_eq!(relation, mirrored);
    let found = rewound((&mine, my_file), (&theirs, their_file));
    format!("{relation:?}, {found}")
}

/// A file of the timeline after the last that it names.
fn parsed(file: &str) -> Option<History> {
    let last = file.lines().rev().find_map(|line| line.split_whitespace().next()?.parse::<u32>().ok());
    let timeline = Timeline(last.unwrap_or(0).saturating_add(1));
    let history = History::parse(timeline, file).ok()?;
    let mut printed = String::new();
    for ancestor in &history.ancestors {
        writeln!(printed, "{}\t{}\t{}", ancestor.timeline, ancestor.end, ancestor.reason).expect("memory");
    }
    assert_eq!(History::parse(timeline, &printed), Ok(history.clone()), "{printed}");
    Some(history)
}

/// Where `pg_rewind` is let, the place that it takes is the one up to which both histories are the same.
fn rewound(mine: (&History, &str), theirs: (&History, &str)) -> &'static str {
    let ((mine, my_file), (theirs, their_file)) = (mine, theirs);
    let (ours, others) = ((mine.timeline, my_file), (theirs.timeline, their_file));
    let found = pg_rewind_finds_the_fork(ours, others).expect("both were parsed");
    assert_eq!(pg_rewind_finds_the_fork(others, ours), Ok(found), "it depends on who is asked");
    let taken = place_of_pg_rewind(&as_written(ours), &as_written(others));
    assert!(!found || taken == Some(fork(mine, theirs)), "{taken:?} instead of {:?}", fork(mine, theirs));
    if found { "pg_rewind finds the fork" } else { "pg_rewind does not find the fork" }
}

/// `findCommonAncestorTimeline` of `pg_rewind.c`: of the first lines that both have, the end of the last.
fn place_of_pg_rewind(ours: &[(u32, Lsn, Lsn)], theirs: &[(u32, Lsn, Lsn)]) -> Option<Lsn> {
    let mut alike = None;
    for (our, their) in ours.iter().zip(theirs) {
        if (our.0, our.1) != (their.0, their.1) {
            break;
        }
        alike = Some(our.2.min(their.2));
    }
    alike
}

/// The lines of a file: timeline, beginning and end.
fn as_written((timeline, file): (Timeline, &str)) -> Vec<(u32, Lsn, Lsn)> {
    let mut lines = Vec::new();
    let mut begin = Lsn(0);
    for line in file.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split(char::is_whitespace);
        let number = words.next().and_then(|word| word.parse().ok()).expect("it was parsed");
        let end = words.next().and_then(Lsn::parse).expect("it was parsed");
        lines.push((number, begin, end));
        begin = end;
    }
    lines.push((timeline.0, begin, Lsn(u64::MAX)));
    lines
}

/// The last position up to which the same timelines lead.
fn fork(mine: &History, theirs: &History) -> Lsn {
    let led = |history: &History, at: Lsn| {
        history
            .ancestors
            .iter()
            .find(|ancestor| at < ancestor.end)
            .map_or(history.timeline, |ancestor| ancestor.timeline)
    };
    let mut ends: Vec<Lsn> = mine.ancestors.iter().chain(&theirs.ancestors).map(|ancestor| ancestor.end).collect();
    ends.sort();
    let begins = [Lsn(0)].into_iter().chain(ends);
    begins.into_iter().find(|at| led(mine, *at) != led(theirs, *at)).unwrap_or(Lsn(u64::MAX))
}
