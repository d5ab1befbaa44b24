//! The first process of a container: it passes signals on to the agent, reaps whatever was left behind, and ends as the
//! agent ends. An agent that did this itself would take the ends of its own children away from whoever waits for them.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};
use rustix::process::{Pid, WaitOptions, kill_process, wait};

/// What the agent is told of.
const PASSED_ON: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGABRT,
    Signal::SIGTERM,
];

/// Whether this process is the first one, to which the kernel gives whatever lost its parent.
pub fn is_first() -> bool {
    std::process::id() == 1
}

/// Takes back what the first process has blocked for itself, and what it starts inherits.
///
/// # Errors
/// The kernel refuses it, which it has no reason for.
pub fn unblock() -> anyhow::Result<()> {
    signals().thread_unblock().context("cannot unblock signals")
}

fn signals() -> SigSet {
    let mut signals: SigSet = PASSED_ON.into_iter().collect();
    signals.add(Signal::SIGCHLD);
    signals
}

/// Starts this program again with the same arguments, as the agent, and waits until it ends. Returns its exit status; 128
/// and the signal's number where it was killed, as a shell has it.
///
/// # Errors
/// It cannot be started.
pub fn run() -> anyhow::Result<u8> {
    let signals = signals();
    // Before there is a child: neither its end nor a stop must come while nobody waits.
    signals.thread_block().context("cannot block signals")?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let child = Command::new(&program)
        .args(std::env::args_os().skip(1))
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let agent = Pid::from_child(&child);
    loop {
        match signals.wait().context("cannot wait for signals")? {
            Signal::SIGCHLD => {
                if let Some(status) = reap(agent) {
                    return Ok(exit_code(status));
                }
            }
            // One that has just ended is told nothing; its end comes next.
            passed_on => drop(kill_process(agent, rustix_signal(passed_on))),
        }
    }
}

/// Reaps all that have ended; the status of the agent, if it was among them.
fn reap(agent: Pid) -> Option<ExitStatus> {
    let mut ended = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        let status = ExitStatus::from_raw(status.as_raw());
        if pid == agent {
            ended = Some(status);
        } else {
            // Whoever read this may be gone: that is no reason for a container to end.
            let _ = writeln!(std::io::stderr(), "matriarch: reaped process {}: {status}", pid.as_raw_nonzero());
        }
    }
    ended
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(1)
}

fn rustix_signal(signal: Signal) -> rustix::process::Signal {
    rustix::process::Signal::from_named_raw(signal as i32).unwrap_or(rustix::process::Signal::TERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_as_the_agent_ends() {
        assert_eq!(exit_code(ExitStatus::from_raw(0)), 0);
        assert_eq!(exit_code(ExitStatus::from_raw(101 << 8)), 101);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
    }

    #[test]
    fn every_signal_is_passed_on_as_itself() {
        for signal in PASSED_ON {
            assert_eq!(rustix_signal(signal).as_raw(), signal as i32);
        }
    }
}
