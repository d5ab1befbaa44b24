//! The kill matrix: each planted bug, which invariant finds it, and after how many seeds.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use matriarch_sim::check::INVARIANTS;
use matriarch_sim::mutant::Mutant;

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
    /// Print the matrix as a table of markdown
    #[arg(long)]
    markdown: bool,
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
    print(&rows, args.markdown);
    let survivors = rows.iter().filter(|(_, kills)| kills.iter().any(Option::is_none)).count();
    println!("\n{} planted bugs, {survivors} not found in every round within {} seeds", rows.len(), args.seeds);
    Ok(if survivors == 0 { 0 } else { 13 })
}

/// What it is not meant to break is told and does not count.
fn hunt(mutant: Mutant, round: u64, seeds: u64) -> Kill {
    let first = 1 + round * 1_000_000;
    (first..first + seeds).find_map(|seed| {
        let by = mutant.found_with(seed)?;
        if !mutant.breaks().contains(&by) {
            eprintln!("{}: {by} with seed {seed}, which it is not meant to break", name(mutant));
            return None;
        }
        Some((seed - first + 1, by))
    })
}

/// One bug a line; a cell tells how often an invariant found it, the last column after how many seeds.
fn print(rows: &[(Mutant, Vec<Kill>)], markdown: bool) {
    let found = |invariant: &str| rows.iter().any(|(_, kills)| kills.iter().flatten().any(|(_, by)| *by == invariant));
    let columns: Vec<&str> = INVARIANTS.iter().copied().filter(|invariant| found(invariant)).collect();
    let line = |cells: Vec<String>| {
        if markdown {
            println!("| {} |", cells.join(" | "));
        } else {
            let rest: Vec<String> = cells[1..].iter().map(|cell| format!("{cell:>5}")).collect();
            println!("{:<30}{}", cells[0], rest.join(" "));
        }
    };
    let titles = ["planted bug"].into_iter().chain(columns.iter().copied()).chain(["seeds"]);
    line(titles.map(str::to_owned).collect());
    if markdown {
        println!("|---|{}", "--:|".repeat(columns.len() + 1));
    }
    for (mutant, kills) in rows {
        let times = |by: &str| kills.iter().flatten().filter(|(_, invariant)| *invariant == by).count();
        let cell = |count: usize| if count == 0 { String::new() } else { count.to_string() };
        let cells = columns.iter().map(|invariant| cell(times(invariant)));
        line([name(*mutant)].into_iter().chain(cells).chain([median(kills)]).collect());
    }
    let idle: Vec<&str> = INVARIANTS.iter().copied().filter(|invariant| !found(invariant)).collect();
    println!("\ninvariants that found none of these first: {}", idle.join(", "));
}

fn median(kills: &[Kill]) -> String {
    let mut counts: Vec<u64> = kills.iter().map(|kill| kill.map_or(u64::MAX, |(count, _)| count)).collect();
    counts.sort_unstable();
    match counts.get(counts.len() / 2).copied() {
        Some(u64::MAX) | None => "none".into(),
        Some(count) => count.to_string(),
    }
}

/// A line of progress.
fn row(mutant: Mutant, kills: &[Kill]) -> String {
    let one = |kill: &Kill| kill.map_or("not found".into(), |(count, invariant)| format!("{invariant} after {count}"));
    format!("{}: {}", name(mutant), kills.iter().map(one).collect::<Vec<_>>().join(", "))
}
