//! The command line.

mod exhaustive;
mod explain;
mod mutants;
mod recording;
mod swarm;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use matriarch_core::record::BUILD;
use matriarch_sim::coverage::{BASIC, Coverage};
use matriarch_sim::fault::Plan;
use matriarch_sim::html::{Shown, page};
use matriarch_sim::mutant::Mutant;
use matriarch_sim::run::{Class, Ran, quiet_assertions, run};
use matriarch_sim::shrink::shrink;
use matriarch_sim::trace::Trace;

/// Drives the agent's own decisions through a simulated world of partitions, wrong clocks, frozen agents, crashes and
/// lost replies, and checks after every event what must hold.
///
/// Exit codes: 0 nothing was found; 1 a file cannot be read; 2 an option is wrong; 10 a safety invariant was broken, 11 a liveness
/// bound, 12 an assertion failed; 13 too little happened for the swarm to be evidence, or a planted bug was not found.
#[derive(Parser)]
#[command(name = "matriarch-sim", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one seed, and tell what happened
    Run {
        #[command(flatten)]
        which: Which,
        /// Tell everything that happened
        #[arg(long)]
        trace: bool,
        /// Write a page that shows the run, to be opened in a browser
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// Run many seeds, and stop at nothing but the end
    Swarm(swarm::Args),
    /// Run plans that were written down, or take an agent's steps again from what its flight recorder wrote
    Replay {
        /// Plans (YAML) or recordings (.rec)
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Tell everything that happened
        #[arg(long)]
        trace: bool,
        /// Plant a bug
        #[arg(long, value_name = "NAME", value_parser = mutants::named)]
        mutant: Option<Mutant>,
        /// Write a page that shows the run of the plan, to be opened in a browser
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// Cut what a seed or plan breaks down to a story that a person can read, and write it down
    Shrink {
        #[command(flatten)]
        which: Which,
        /// Where to (standard output if left out)
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Write a page that shows the run of what is left, to be opened in a browser
        #[arg(long, value_name = "FILE", requires = "out")]
        html: Option<PathBuf>,
    },
    /// What a node decides at an instant, with every rung's answer
    Explain {
        #[command(flatten)]
        which: Which,
        /// When: seconds of the world's time, such as 12.5s
        #[arg(long, value_parser = explain::time)]
        at: matriarch_sim::time::Time,
        /// Which node: a, b, ...
        #[arg(long)]
        node: char,
    },
    /// Try everything that can happen to two agents and a store, up to a number of faults
    Exhaustive(exhaustive::Args),
    /// Plant each known bug in turn, and see which invariant finds it and after how many seeds
    Mutants(mutants::Args),
}

/// A run: of a seed, or of a plan.
#[derive(clap::Args)]
struct Which {
    /// The seed
    #[arg(long, required_unless_present = "plan")]
    seed: Option<u64>,
    /// A plan (YAML) instead of a seed
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    plan: Option<PathBuf>,
    /// Plant a bug
    #[arg(long, value_name = "NAME", value_parser = mutants::named)]
    mutant: Option<Mutant>,
}

impl Which {
    fn plan(&self) -> Result<Plan, String> {
        match (&self.plan, self.seed) {
            (Some(file), _) => read(file),
            (None, seed) => Ok(Plan::of_seed(seed.unwrap_or_default())),
        }
    }

    /// How to say it again.
    fn repeat(&self) -> String {
        let mutant = self.mutant.map(|mutant| format!(" --mutant {}", mutants::name(mutant))).unwrap_or_default();
        match (&self.plan, self.seed) {
            (Some(file), _) => format!("--plan {}{mutant}", file.display()),
            (None, seed) => format!("--seed {}{mutant}", seed.unwrap_or_default()),
        }
    }
}

/// Does what the command line says.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    if !cfg!(debug_assertions) {
        eprintln!(
            "matriarch-sim: built without assertions, it proves little: cargo run --profile sim -p matriarch-sim"
        );
        return ExitCode::from(1);
    }
    quiet_assertions();
    let done = match cli.command {
        Command::Run { which, trace, html } => run_one(&which, trace, html.as_deref()),
        Command::Swarm(args) => swarm::swarm(&args),
        Command::Replay { files, trace, mutant, html } => replay(files, trace, mutant, html.as_deref()),
        Command::Shrink { which, out, html } => cut_down(&which, out, html.as_deref()),
        Command::Explain { which, at, node } => explain::explain(&which, at, node),
        Command::Exhaustive(args) => Ok(exhaustive::exhaustive(&args)),
        Command::Mutants(args) => mutants::mutants(&args),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            eprintln!("matriarch-sim: {why}");
            ExitCode::from(1)
        }
    }
}

/// Replays each file as what it is; the exit code of the worst.
fn replay(files: Vec<PathBuf>, trace: bool, mutant: Option<Mutant>, html: Option<&Path>) -> Result<u8, String> {
    if html.is_some() && files.len() > 1 {
        return Err("--html shows one run: name one plan".into());
    }
    let mut code = 0;
    for file in files {
        let bytes = recording::read(&file)?;
        code = code.max(if !recording::is_one(&bytes) {
            run_one(&Which { seed: None, plan: Some(file), mutant }, trace, html)?
        } else if html.is_some() {
            return Err(format!("{} is a recording: --html shows the run of a plan", file.display()));
        } else {
            recording::replay(&file, &bytes, trace)?.map_or(0, Class::exit_code)
        });
    }
    Ok(code)
}

fn read(file: &Path) -> Result<Plan, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    serde_yaml::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))
}

fn run_one(which: &Which, trace: bool, html: Option<&Path>) -> Result<u8, String> {
    let plan = which.plan()?;
    let names = plan.settings.nodes;
    let mut kept = if trace { Trace::full() } else { Trace::hash_only() };
    if html.is_some() {
        kept = kept.with_chronicle();
    }
    let began = std::time::Instant::now();
    let ran = run(plan.clone(), which.mutant, kept);
    let took = began.elapsed();
    if trace {
        print!("{}", explain::lines(&ran.trace, 0));
    }
    println!(
        "{names} nodes, {} s of their time in {:.2} s ({:.0} s, {:.0} events, {:.0} steps of core a second), hash {:016x}",
        ran.seconds,
        took.as_secs_f64(),
        ran.seconds as f64 / took.as_secs_f64(),
        ran.events as f64 / took.as_secs_f64(),
        ran.steps as f64 / took.as_secs_f64(),
        ran.hash
    );
    println!("{}", happened(&ran.coverage));
    println!(
        "{} commits acknowledged, {} of them not held by the last primary; longest outage {} ms",
        ran.acknowledged.0, ran.acknowledged.1, ran.outage_ms
    );
    if let Some(file) = html {
        write_page(file, &plan, which, &ran)?;
    }
    Ok(tell(&plan, which, &ran))
}

/// How much happened, for whoever would take a run in which nothing did for evidence.
fn happened(coverage: &Coverage) -> String {
    let counted = [("fault", "faults")].into_iter().chain(BASIC.map(|what| (what, what)));
    let counted: Vec<String> = counted.map(|(what, shown)| format!("{shown}: {}", coverage.of(what))).collect();
    counted.join(", ")
}

/// Writes the page of a run.
fn write_page(file: &Path, plan: &Plan, which: &Which, ran: &Ran) -> Result<(), String> {
    let mutant = which.mutant.map(mutants::name);
    let repeat = format!("matriarch-sim run {} --html {}", which.repeat(), file.display());
    let shown = Shown { plan, mutant: mutant.as_deref(), repeat: &repeat };
    let page = page(shown, ran).ok_or("the run was not kept for a page")?;
    fs::write(file, page).map_err(|error| format!("{} cannot be written: {error}", file.display()))?;
    println!("{} shows it", file.display());
    Ok(())
}

/// Tells of a violation, with what came before it and how to see it again.
fn tell(plan: &Plan, which: &Which, ran: &Ran) -> u8 {
    let Some(violation) = &ran.violation else {
        println!("nothing was broken");
        return 0;
    };
    println!("\n{:?}: {} was broken at {}: {}", violation.class(), violation.invariant, violation.at, violation.what);
    println!("{}", what_led_to_it(plan, which));
    violation.class().exit_code()
}

/// What was decided and done last, and the commands that show the same again.
fn what_led_to_it(plan: &Plan, which: &Which) -> String {
    let again = run(plan.clone(), which.mutant, Trace::full());
    let (story, repeat) = (explain::story(&again.trace, 40), which.repeat());
    format!(
        "\nThe last that was decided and done:\n{story}\nbuild:    {BUILD}\nlook:     matriarch-sim run {repeat} --html \
         run.html\nagain:    matriarch-sim run {repeat} --trace\ncut down: matriarch-sim shrink {repeat}"
    )
}

fn cut_down(which: &Which, out: Option<PathBuf>, html: Option<&Path>) -> Result<u8, String> {
    let plan = which.plan()?;
    let mut count = 0;
    let shrunk = shrink(&plan, which.mutant, &mut |smaller| {
        count += 1;
        eprint!("\r{count} steps: {} faults, {} nodes   ", smaller.faults.len(), smaller.settings.nodes);
    });
    eprintln!();
    if shrunk.broke.is_none() {
        return Err("it breaks nothing, there is nothing to cut down".into());
    }
    let text = serde_yaml::to_string(&shrunk).map_err(|error| error.to_string())?;
    match &out {
        Some(file) => {
            fs::write(file, text).map_err(|error| format!("{} cannot be written: {error}", file.display()))?;
        }
        None => print!("{text}"),
    }
    if let Some(file) = html {
        let ran = run(shrunk.clone(), which.mutant, Trace::hash_only().with_chronicle());
        write_page(file, &shrunk, &Which { seed: None, plan: out, mutant: which.mutant }, &ran)?;
    }
    Ok(0)
}
