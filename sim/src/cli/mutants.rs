//! The kill matrix: each planted bug, which invariant finds it, and after how many seeds.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use matriarch_sim::fault::Plan;
use matriarch_sim::mutant::Mutant;
use matriarch_sim::run::run;
use matriarch_sim::trace::Trace;

/// What to plant, and how long to look for it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this one
    #[arg(long, value_name = "NAME", value_parser = named)]
    only: Option<Mutant>,
    /// How many seeds to look for each
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// How often to look, each time from other seeds: the figure is their median
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// How many at a time (all cores if left out)
    #[arg(long)]
    jobs: Option<usize>,
}

/// `guard-never-fires`
pub(crate) fn name(mutant: Mutant) -> String {
    dashed(mutant)
}

/// The name of a variant, as it is written on the command line.
pub(super) fn dashed(variant: impl std::fmt::Debug) -> String {
    let mut name = String::new();
    for letter in format!("{variant:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

/// The mutant of a name.
pub(crate) fn named(text: &str) -> Result<Mutant, String> {
    Mutant::ALL.into_iter().find(|mutant| name(*mutant) == text).ok_or_else(|| {
        let names: Vec<String> = Mutant::ALL.into_iter().map(name).collect();
        format!("there is no such bug to plant; there are: {}", names.join(", "))
    })
}

/// After how many seeds, and by which invariant; `None`: not at all.
type Kill = Option<(u64, &'static str)>;

/// Prints the matrix; 13 if one survives.
pub(super) fn mutants(args: &Args) -> Result<u8, String> {
    let planted: Vec<Mutant> = args.only.map_or_else(|| Mutant::ALL.to_vec(), |only| vec![only]);
    let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1).max(1);
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(mutant) = planted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let kills: Vec<Kill> = (0..args.rounds).map(|round| hunt(*mutant, round, args.seeds)).collect();
                    eprintln!("{}", row(*mutant, &kills));
                    rows.lock().unwrap_or_else(PoisonError::into_inner).push((*mutant, kills));
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by_key(|(mutant, _)| *mutant);
    println!("| planted bug | found by | median seeds | rounds |\n|---|---|---|---|");
    for (mutant, kills) in &rows {
        println!("{}", row(*mutant, kills));
    }
    let survivors = rows.iter().filter(|(_, kills)| kills.iter().any(Option::is_none)).count();
    println!("\n{} planted bugs, {survivors} not found in every round within {} seeds", rows.len(), args.seeds);
    Ok(if survivors == 0 { 0 } else { 13 })
}

fn hunt(mutant: Mutant, round: u64, seeds: u64) -> Kill {
    let first = 1 + round * 1_000_000;
    (first..first + seeds).find_map(|seed| {
        let violation = run(Plan::of_seed(seed), Some(mutant), Trace::hash_only()).violation?;
        Some((seed - first + 1, violation.invariant))
    })
}

fn row(mutant: Mutant, kills: &[Kill]) -> String {
    let mut counts: Vec<u64> = kills.iter().map(|kill| kill.map_or(u64::MAX, |(count, _)| count)).collect();
    counts.sort_unstable();
    let median = counts.get(counts.len() / 2).copied().unwrap_or(u64::MAX);
    let mut invariants: Vec<&str> = kills.iter().flatten().map(|(_, invariant)| *invariant).collect();
    invariants.sort_unstable();
    invariants.dedup();
    let median = if median == u64::MAX { "not found".to_owned() } else { median.to_string() };
    let told: Vec<String> = kills.iter().map(|kill| kill.map_or("-".into(), |(count, _)| count.to_string())).collect();
    format!("| {} | {} | {median} | {} |", name(mutant), invariants.join(", "), told.join(", "))
}
