//! `matriarch demo`: three PostgreSQL nodes on this machine, clients that write, faults, and what they cost. Nothing in
//! it is a mock: store, agents and servers are the processes that an operator runs.
//!
//! The demo is the subreaper of everything it starts, so each process, whatever session it made for itself, is its
//! descendant until it ends; that is how it finds them all again to stop them.

mod account;
mod cleanup;
mod cluster;
mod faults;
mod install;
mod members;
mod processes;
mod report;
mod screen;
mod tour;
mod verdict;
mod workdir;
mod writers;

use std::path::PathBuf;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use self::report::Report;
use self::screen::Screen;

/// `matriarch demo`.
#[derive(clap::Args, Clone, Debug)]
pub struct DemoArgs {
    /// Print one JSON document on standard output; progress goes to standard error
    #[arg(long)]
    pub json: bool,
    /// Leave the cluster running afterwards and print how to connect
    #[arg(long)]
    pub keep: bool,
    /// Two faults only: kill the postmaster, and switch over
    #[arg(long)]
    pub quick: bool,
    /// Stop a cluster that --keep left running, and remove its directory
    #[arg(long, value_name = "DIR", conflicts_with_all = ["json", "keep", "quick"])]
    pub stop: Option<PathBuf>,
}

/// The exit code after SIGINT, as shells give it.
const INTERRUPTED: u8 = 130;

/// Runs the demo; its exit code. 0: no two nodes acknowledged writes at one instant, and nothing was lost that
/// asynchronous replication promises to keep. 1: something was. 130: interrupted.
///
/// # Errors
/// Something is missing on this machine, or the cluster did not reach a state in time. Everything is stopped then.
pub fn run(args: &DemoArgs) -> anyhow::Result<u8> {
    if let Some(dir) = &args.stop {
        return cleanup::stop_kept(dir).map(|()| 0);
    }
    let screen = Screen::new(args.json);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("the async runtime")?;
    runtime.block_on(interruptible(args, &screen))
}

async fn interruptible(args: &DemoArgs, screen: &Screen) -> anyhow::Result<u8> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut report = Report::new();
    // Dropping the tour stops whatever it has started: what it owns cleans up after itself.
    let ended = tokio::select! {
        ended = tour::run(args, screen, &mut report) => Some(ended),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        _ = hangup.recv() => None,
        _ = quit.recv() => None,
    };
    screen.clear();
    let (code, failure) = match ended {
        Some(Ok(())) => (u8::from(!report.holds()), None),
        Some(Err(error)) => (1, Some(error)),
        None => {
            screen.say("Interrupted: everything is stopped and removed.");
            (INTERRUPTED, None)
        }
    };
    if args.json {
        let told = match &failure {
            Some(error) => Some(format!("{error:#}")),
            None => (code == INTERRUPTED).then(|| "interrupted".to_owned()),
        };
        screen.document(&report.to_json(told.as_deref()));
    }
    failure.map_or(Ok(code), Err)
}
