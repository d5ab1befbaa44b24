//! The same seed does the same.

use std::process::Command;

use super::super::world::{NAMES, World, secs, with_seed};
use super::{LEASE, STORE, by_lease};

/// Everything that the hosts told in a run with something of each kind: events, orders, decisions, packets.
fn eventful(seed: u64) -> Vec<String> {
    let (mut world, leader) = World::whole(seed, 2);
    world.elect();
    world.partition_oneway(STORE, NAMES[World::other(leader)]);
    world.lose(leader);
    world.runs(secs(3));
    world.repair_oneway(STORE, NAMES[World::other(leader)]);
    world.crash_member(STORE);
    world.runs_until(by_lease() + LEASE, "somebody serves", |world| world.writer().is_some());
    world.start_member(STORE);
    world.start_agent(leader);
    world.heals();
    world.lines()
}

/// Has another process run it. Within one, the second run gets other numbers for its tasks, and tokio drops what a crash
/// leaves behind by these.
fn told_by_a_process_of_its_own(seed: u64) -> Vec<String> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let ran = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "--test-threads=1", "agents::repeats::the_same_seed_does_the_same"])
        .env(TELL, file.path())
        .env("MATRIARCH_TURMOIL_SEED", seed.to_string())
        .output()
        .expect("this test as another process");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let lines = std::fs::read_to_string(file.path()).expect("what it told");
    lines.lines().map(str::to_owned).collect()
}

const TELL: &str = "MATRIARCH_TURMOIL_TELL";

#[test]
#[cfg_attr(not(tokio_unstable), ignore = "tokio draws from the host: run tests/turmoil")]
fn the_same_seed_does_the_same() {
    if let Some(file) = std::env::var_os(TELL) {
        return with_seed(|seed| std::fs::write(&file, eventful(seed).join("\n")).expect("the file that was named"));
    }
    let (first, second) = (told_by_a_process_of_its_own(1), told_by_a_process_of_its_own(1));
    assert!(first.len() > 1000, "{} lines are no story", first.len());
    for (number, (one, two)) in first.iter().zip(&second).enumerate() {
        let same = one.bytes().zip(two.bytes()).take_while(|(one, two)| one == two).count();
        let end = |line: &str| String::from_utf8_lossy(&line.as_bytes()[same.saturating_sub(200)..]).into_owned();
        assert!(one == two, "line {number} differs:\n{}\n{}", end(one), end(two));
    }
    assert_eq!(first.len(), second.len());
    assert_ne!(first, told_by_a_process_of_its_own(2), "another seed does something else");
}
