//! The swarm of every test run: thousands of seeds, none of which breaks anything; the plans that broke something once;
//! and planted bugs, to see that the swarm would find them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use matriarch_sim::coverage::{Coverage, EVIDENCE};
use matriarch_sim::fault::{Fault, KINDS, Plan, When};
use matriarch_sim::mutant::Mutant;
use matriarch_sim::run::{quiet_assertions, run};
use matriarch_sim::trace::Trace;

/// As the tool.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SEEDS: u64 = 2000;
/// Every so many seeds one is run twice, and must do the same; each one, and each kept plan, where `MATRIARCH_SIM_TWICE`
/// is set.
const TWICE: u64 = 20;

#[derive(Default)]
struct Sum {
    coverage: Coverage,
    acknowledged: u64,
    found: Vec<String>,
}

#[test]
fn two_thousand_seeds_break_nothing() {
    quiet_assertions();
    let first = std::env::var("MATRIARCH_SIM_FIRST").ok().and_then(|first| first.parse().ok()).unwrap_or(1);
    let every = if std::env::var_os("MATRIARCH_SIM_TWICE").is_some() { 1 } else { TWICE };
    let (next, sum) = (AtomicU64::new(first), Mutex::new(Sum::default()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + SEEDS {
                        break;
                    }
                    one(seed, seed.is_multiple_of(every), &sum);
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap();
    assert!(sum.found.is_empty(), "{}", sum.found.join("\n"));
    // A swarm in which nothing happened proves nothing.
    for what in EVIDENCE.into_iter().chain([
        "early release",
        "failover by word",
        "freeze",
        "key lost early",
        "resume",
        "rows given up",
        "serves after a pause",
        "wind-down",
    ]) {
        assert!(sum.coverage.of(what) >= 10, "{what} was seen {} times", sum.coverage.of(what));
    }
    // Other seeds may miss what is rare.
    if first == 1 {
        assert_eq!(sum.coverage.surprises(false), [""; 0]);
    }
    assert!(sum.acknowledged > 100_000);
}

fn one(seed: u64, twice: bool, sum: &Mutex<Sum>) {
    let ran = run(Plan::of_seed(seed), None, Trace::hash_only());
    assert!(ran.seconds >= 600 || ran.violation.is_some(), "a run is ten minutes of the world's time at least");
    let mut found = ran.violation.map(|violation| {
        format!("{} at {}: {} (matriarch-sim run --seed {seed})", violation.invariant, violation.at, violation.what)
    });
    if found.is_none() && twice {
        let again = run(Plan::of_seed(seed), None, Trace::hash_only());
        found = (again.hash != ran.hash).then(|| format!("S29: seed {seed} did something else the second time"));
    }
    let mut sum = sum.lock().unwrap();
    sum.coverage.add(&ran.coverage);
    sum.acknowledged += ran.acknowledged.0;
    sum.found.extend(found);
}

#[test]
fn plans_that_broke_something_once_do_not_any_more() {
    quiet_assertions();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let twice = std::env::var_os("MATRIARCH_SIM_TWICE").is_some();
    let (mut reached, mut lost) = (BTreeMap::new(), Vec::new());
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yml") {
            continue;
        }
        let plan: Plan = serde_yaml::from_str(&std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(!plan.story.is_empty() && plan.broke.is_some(), "{} tells no story", path.display());
        assert!(!plan.reaches.is_empty(), "{} does not say what its story cannot be told without", path.display());
        // Where the order does not come the fault would strike later, and have nothing to do with it.
        let waits = |fault: &Fault| matches!(fault.when, When::Order { or_at_ms: Some(_), .. });
        assert!(!plan.faults.iter().any(waits), "{}: a fault strikes without its order", path.display());
        let planned = plan.faults.len();
        let ran = run(plan.clone(), None, Trace::hash_only());
        assert_eq!(ran.violation, None, "{}", path.display());
        if twice {
            let again = run(plan.clone(), None, Trace::hash_only());
            assert_eq!(again.hash, ran.hash, "S29: {} did something else the second time", path.display());
        }
        let missed = plan.reaches.iter().filter(|what| !ran.coverage.saw(what));
        let missed = missed.map(|what| format!("{}: does not come to its story: {what}", path.display()));
        lost.extend(
            missed.chain(in_vain(&plan, &ran.coverage).map(|kind| format!("{}: {kind} in vain", path.display()))),
        );
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        reached.insert(name, (planned, ran.coverage));
    }
    assert!(!reached.is_empty(), "there are no plans in {}", dir.display());
    // A plan that does not come to what broke something once would break nothing for ever.
    lost.sort();
    assert!(lost.is_empty(), "{}", lost.join("\n"));
    let (file, now) = (dir.join("reached.txt"), told(&reached));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &now).unwrap();
    }
    let before = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(now, before, "a plan does not come to what it came to (UPDATE=1 writes {} anew)", file.display());
}

/// The kinds of the planned faults that did not all strike: a plan has none that do nothing.
fn in_vain<'a>(plan: &'a Plan, seen: &'a Coverage) -> impl Iterator<Item = &'static str> + 'a {
    let planned = |kind: &str| plan.faults.iter().filter(|fault| fault.what.kind() == kind).count() as u64;
    KINDS.iter().copied().filter(move |kind| seen.faults.get(kind).copied().unwrap_or(0) < planned(kind))
}

/// What each plan comes to: how many of its faults struck, and the reasons that few plans reach. A plan that comes to
/// something else has lost its point, or found another.
fn told(reached: &BTreeMap<String, (usize, Coverage)>) -> String {
    let plans_with = |code: &str| reached.values().filter(|(_, seen)| seen.reasons.contains_key(code)).count();
    let mut text = String::new();
    for (name, (planned, seen)) in reached {
        let rare = seen.reasons.keys().filter(|code| 4 * plans_with(code) <= reached.len());
        let rare: Vec<&str> = rare.copied().collect();
        text += &format!("{name}: {} of {planned} faults; {}\n", seen.of("fault"), rare.join(" "));
    }
    text
}

/// Bugs that a few seeds must find; `matriarch-sim mutants` plants all of them.
#[test]
fn planted_bugs_are_found() {
    quiet_assertions();
    let planted = [
        (Mutant::LeaseDatedFromTheAnswer, 60),
        (Mutant::UnknownIsDone, 20),
        (Mutant::TtlAsAsked, 20),
        (Mutant::WallClock, 20),
        (Mutant::GuardLate, 100),
        (Mutant::GuardAcknowledgesMore, 20),
        (Mutant::OrphansLive, 100),
        (Mutant::NeverDiverged, 20),
        (Mutant::SessionLossUnheard, 30),
        (Mutant::DeathUnseen, 20),
        (Mutant::EpochNotOnDisk, 20),
        (Mutant::EveryAnswerIsPledged, 20),
        (Mutant::PledgeForgotten, 60),
        (Mutant::WipedUnasked, 100),
        (Mutant::GuardForgets, 100),
        (Mutant::HealthRemembered, 20),
        (Mutant::HistoryForgets, 20),
        (Mutant::SlotsNotMade, 20),
        (Mutant::SlotAdvancedToTheEnd, 20),
        (Mutant::DeadlineDropped, 20),
        (Mutant::LockUnconfirmed, 200),
        (Mutant::InitializeRemoved, 200),
        (Mutant::NumberNotReserved, 200),
        (Mutant::PublishedUnread, 200),
        (Mutant::StartWaits, 40),
        (Mutant::RestlessLeader, 20),
        (Mutant::ModeUnheard, 200),
        (Mutant::ForeignDataOurs, 200),
        (Mutant::ClonedFromTheEmpty, 60),
    ];
    for (mutant, seeds) in planted {
        let found = (1..=seeds).filter_map(|seed| mutant.found_with(seed)).any(|by| mutant.breaks().contains(&by));
        assert!(found, "{mutant:?} was not found within {seeds} seeds by {:?}", mutant.breaks());
    }
}
