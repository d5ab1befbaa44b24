//! History files come from another server's disk: parsing them never panics, and what was parsed compares consistently.
#![no_main]

use libfuzzer_sys::fuzz_target;
use matriarch_core::id::{Lsn, Timeline};
use matriarch_core::timeline::{History, Relation};

fuzz_target!(|input: (u32, &str, u32, &str, u64, u64)| {
    let (mine, my_file, theirs, their_file, my_position, their_position) = input;
    let (Ok(mine), Ok(theirs)) =
        (History::parse(Timeline(mine), my_file), History::parse(Timeline(theirs), their_file))
    else {
        return;
    };
    let (here, there) = (Lsn(my_position), Lsn(their_position));
    let mirrored = match theirs.relation(there, &mine, here) {
        Relation::Ahead => Relation::Behind,
        Relation::Behind => Relation::Ahead,
        same @ (Relation::Equal | Relation::Diverged { .. }) => same,
    };
    assert_eq!(mine.relation(here, &theirs, there), mirrored);
});
