//! Many seeds, on all cores.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use matriarch_sim::check::Violation;
use matriarch_sim::coverage::{BASIC, Coverage, EVIDENCE, LONG_SWARM};
use matriarch_sim::fault::Plan;
use matriarch_sim::run::{Class, run};
use matriarch_sim::trace::Trace;

use super::{Which, what_led_to_it};

/// How often a log, which is no terminal, gets a line.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many seeds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// How many at a time (all cores if left out)
    #[arg(long)]
    jobs: Option<usize>,
    /// Go on to further seeds for so long, however many there are
    #[arg(long)]
    minutes: Option<u64>,
    /// Run each seed twice and compare
    #[arg(long)]
    twice: bool,
}

#[derive(Default)]
struct Sum {
    coverage: Coverage,
    steps: u64,
    events: u64,
    seconds: u64,
    seeds: u64,
    acknowledged: u64,
    lost: u64,
    found: BTreeMap<&'static str, Vec<(u64, Violation)>>,
}

/// Runs the seeds; the exit code of the worst that was found.
pub(super) fn swarm(args: &Args) -> Result<u8, String> {
    let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1).max(1);
    let (next, over, sum) = (AtomicU64::new(args.first), AtomicBool::new(false), Mutex::new(Sum::default()));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let enough = match args.minutes {
                        Some(minutes) => began.elapsed() >= Duration::from_secs(60 * minutes),
                        None => seed >= args.first + args.seeds,
                    };
                    if enough {
                        break;
                    }
                    one(seed, args.twice, &sum);
                }
            });
        }
        progress(args, began, &over, &sum, jobs);
    });
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(report(&sum, began.elapsed(), jobs))
}

/// The invariant that a seed breaks which does something else the second time.
const TWICE: &str = "S29";

fn one(seed: u64, twice: bool, sum: &Mutex<Sum>) {
    let ran = run(Plan::of_seed(seed), None, Trace::hash_only());
    let mut found = ran.violation;
    if twice && found.is_none() {
        let again = run(Plan::of_seed(seed), None, Trace::hash_only());
        if again.hash != ran.hash {
            let what = format!("hash {:016x}, then {:016x}", ran.hash, again.hash);
            found = Some(Violation { invariant: TWICE, at: matriarch_sim::time::Time(0), what });
        }
    }
    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
    sum.coverage.add(&ran.coverage);
    sum.steps += ran.steps;
    sum.events += ran.events;
    sum.seconds += ran.seconds;
    sum.seeds += 1;
    sum.acknowledged += ran.acknowledged.0;
    sum.lost += ran.acknowledged.1;
    if let Some(violation) = found {
        eprintln!("\rseed {seed}: {} at {}: {}", violation.invariant, violation.at, violation.what);
        sum.found.entry(violation.invariant).or_default().push((seed, violation));
    }
}

fn progress(args: &Args, began: Instant, over: &AtomicBool, sum: &Mutex<Sum>, jobs: usize) {
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let mut told = began;
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let (seeds, seconds) = {
            let sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            (sum.seeds, sum.seconds)
        };
        let all = match args.minutes {
            Some(minutes) => began.elapsed() >= Duration::from_secs(60 * minutes),
            None => seeds >= args.seeds,
        };
        if terminal || told.elapsed() >= TOLD_EVERY {
            told = Instant::now();
            let rate = seconds as f64 / began.elapsed().as_secs_f64() / jobs as f64;
            let (before, after) = if terminal { ("\r", "  ") } else { ("", "\n") };
            eprint!("{before}{seeds} seeds, {} h of their time, {rate:.0} s a second and core{after}", seconds / 3600);
        }
        if all {
            over.store(true, Ordering::Relaxed);
            if terminal {
                eprintln!();
            }
            return;
        }
    }
}

fn report(sum: &Sum, took: Duration, jobs: usize) -> u8 {
    let seconds = took.as_secs_f64();
    println!(
        "{} seeds, {} h of their time in {seconds:.1} s; a second and core: {:.0} s, {:.0} events, {:.0} steps of core",
        sum.seeds,
        sum.seconds / 3600,
        sum.seconds as f64 / seconds / jobs as f64,
        sum.events as f64 / seconds / jobs as f64,
        sum.steps as f64 / seconds / jobs as f64,
    );
    println!("{} commits acknowledged, {} not held by the last primary", sum.acknowledged, sum.lost);
    table("happened", sum.coverage.events.iter().map(|(name, count)| ((*name).to_owned(), *count)));
    table("faults", sum.coverage.faults.iter().map(|(name, count)| ((*name).to_owned(), *count)));
    table("reasons", sum.coverage.reasons.iter().map(|(name, count)| ((*name).to_owned(), *count)));
    let outcomes = sum.coverage.outcomes.iter().map(|((order, outcome), count)| (format!("{order} {outcome}"), *count));
    table("orders and what came of them", outcomes);
    let surprises = sum.coverage.surprises(sum.seeds >= LONG_SWARM);
    if sum.seeds < LONG_SWARM {
        println!("\nsurprises, if this were the set of the test run: {}", surprises.join("; "));
    }
    outages(&sum.coverage);
    let mut worst = None;
    for (invariant, found) in &sum.found {
        let seeds: Vec<String> = found.iter().take(8).map(|(seed, _)| seed.to_string()).collect();
        println!("\n{invariant} was broken by {} seeds: {}", found.len(), seeds.join(" "));
        if let Some((seed, violation)) = found.first() {
            println!("{:?}: {}", violation.class(), violation.what);
            if *invariant == TWICE {
                println!("again: matriarch-sim swarm --twice --seeds 1 --first {seed}");
            } else {
                let which = Which { seed: Some(*seed), plan: None, mutant: None };
                println!("{}", what_led_to_it(&Plan::of_seed(*seed), &which));
            }
            worst = worst.max(Some(violation.class()));
        }
    }
    worst.map_or_else(|| evidence(sum, &surprises), Class::exit_code)
}

/// How long nobody served after faults that came alone.
fn outages(coverage: &Coverage) {
    println!("\nmilliseconds without service after a fault that came alone:");
    println!("  {:<24}{:>8}{:>10}{:>10}{:>10}", "fault", "times", "median", "99 %", "longest");
    for (kind, lasted) in &coverage.outages {
        let mut lasted = lasted.clone();
        lasted.sort_unstable();
        let at = |percent: usize| lasted[(lasted.len() * percent / 100).min(lasted.len() - 1)];
        println!("  {kind:<24}{:>8}{:>10}{:>10}{:>10}", lasted.len(), at(50), at(99), at(100));
    }
}

/// A run in which nothing happened proves nothing.
fn evidence(sum: &Sum, surprises: &[String]) -> u8 {
    if sum.seeds >= LONG_SWARM && !surprises.is_empty() {
        println!("\nthis is no evidence, or the lists in coverage.rs are wrong: {}", surprises.join("; "));
        return 13;
    }
    let mut missing = sum.coverage.lacks(sum.acknowledged);
    if sum.seeds < 100 {
        missing.retain(|what| !EVIDENCE.contains(what) || BASIC.contains(what));
    }
    if !missing.is_empty() {
        println!("\nthis is no evidence: never seen: {}", missing.join(", "));
        return 13;
    }
    println!("\nnothing was broken");
    0
}

fn table(title: &str, rows: impl Iterator<Item = (String, u64)>) {
    println!("\n{title}:");
    let rows: Vec<String> = rows.map(|(name, count)| format!("{name:<32}{count:>10}")).collect();
    for pair in rows.chunks(2) {
        println!("  {}", pair.join("    "));
    }
}
