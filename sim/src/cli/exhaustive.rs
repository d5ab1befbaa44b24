//! The exhaustive search, from the command line.

use std::time::Duration;

use matriarch_sim::exhaustive::{Fault, From, Options, Report, search};
use matriarch_sim::mutant::Mutant;
use matriarch_sim::run::Class;

use super::mutants;

/// How far to search.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Faults on one path
    #[arg(long, default_value_t = 1)]
    faults: u8,
    /// Kinds of faults (all if left out): delay, lose, reset, kill-agent, freeze-agent, kill-guard, kill-postmaster,
    /// cut, lose-key, lose-lease, switchover, leave
    #[arg(long, value_name = "KINDS", value_delimiter = ',', value_parser = fault)]
    only: Vec<Fault>,
    /// Faults come within so many moves from the beginning (anywhere if left out)
    #[arg(long, value_name = "MOVES", default_value_t = u32::MAX, hide_default_value = true)]
    within: u32,
    /// Moves on one path
    #[arg(long, default_value_t = 10_000)]
    depth: u32,
    /// States in all
    #[arg(long, default_value_t = 10_000_000)]
    states: usize,
    /// Minutes in all
    #[arg(long)]
    minutes: Option<f64>,
    /// Timers ring at multiples of so many milliseconds: the coarser, the fewer orders of them there are
    #[arg(long, default_value_t = 200, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=200))]
    grid: u64,
    /// Begin with two empty hosts instead of a primary and its standby
    #[arg(long)]
    empty: bool,
    /// Plant a bug
    #[arg(long, value_name = "NAME", value_parser = mutants::named)]
    mutant: Option<Mutant>,
}

fn fault(text: &str) -> Result<Fault, String> {
    let all = Fault::ALL.into_iter();
    all.clone().find(|fault| mutants::dashed(*fault) == text).ok_or_else(|| {
        let names: Vec<String> = all.map(mutants::dashed).collect();
        format!("there is no such kind of fault; there are: {}", names.join(", "))
    })
}

pub(super) fn exhaustive(args: &Args) -> u8 {
    let options = Options {
        from: if args.empty { From::Empty } else { From::Settled },
        faults: args.faults,
        only: if args.only.is_empty() { Fault::ALL.to_vec() } else { args.only.clone() },
        within: args.within,
        depth: args.depth,
        states: args.states,
        time: args.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0)),
        grid: Duration::from_millis(args.grid),
        mutant: args.mutant,
    };
    let mut told = Duration::ZERO;
    let report = search(&options, &mut |so_far| {
        if so_far.took >= told + Duration::from_secs(2) {
            told = so_far.took;
            eprint!("\rdepth {}, {} states, {} moves   ", so_far.depth, so_far.states, so_far.transitions);
        }
    });
    eprintln!();
    tell(&report, args.faults);
    let Some(story) = &report.broken else { return 0 };
    println!("\n{story}");
    match story.broken.invariant {
        matriarch_sim::run::CRASH => Class::Crash.exit_code(),
        liveness if liveness.starts_with('L') => Class::Liveness.exit_code(),
        _ => Class::Safety.exit_code(),
    }
}

fn tell(report: &Report, faults: u8) {
    let seconds = report.took.as_secs_f64();
    println!(
        "{} states, {} moves, depth {}, {}; {seconds:.1} s, {:.0} states a second, {} MiB at most",
        report.states,
        report.transitions,
        report.depth,
        if report.closed { "closed: there is no other" } else { "cut short" },
        report.states as f64 / seconds,
        memory_max_mib(),
    );
    let by_faults = report.by_faults.iter().rev().map(|(left, states)| format!("{} faults: {states}", faults - left));
    println!("{}", by_faults.collect::<Vec<_>>().join(", "));
    let [a, b, nobody] = report.served;
    println!("a serves in {a}, b in {b}, nobody in {nobody}; {} different decisions", report.decisions.len());
}

/// What the kernel says of this process (`VmHWM`).
fn memory_max_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}
