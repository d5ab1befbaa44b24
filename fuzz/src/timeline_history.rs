//! History files come from another server's disk: parsing them never panics, what was parsed is parsed again from what
//! is printed of it, and histories compare consistently.

use std::fmt::Write;

use matriarch_core::id::{Lsn, Timeline};
use matriarch_core::timeline::{History, Relation};

use crate::input::texts;

/// The target: two files, and two positions in hexadecimal digits.
pub fn target(data: &[u8]) {
    let Some(&[my_file, their_file, here, there]) = texts(data).as_deref() else { return };
    let position = |text| u64::from_str_radix(text, 16).unwrap_or(0x300_0000);
    let (Some(mine), Some(theirs)) = (parsed(my_file), parsed(their_file)) else { return };
    let (here, there) = (Lsn(position(here)), Lsn(position(there)));
    assert_eq!(mine.relation(here, &mine, here), Relation::Equal);
    let mirrored = match theirs.relation(there, &mine, here) {
        Relation::Ahead => Relation::Behind,
        Relation::Behind => Relation::Ahead,
        same @ (Relation::Equal | Relation::Diverged { .. }) => same,
    };
    assert_eq!(mine.relation(here, &theirs, there), mirrored);
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
