//! The early release: a command that gives the tenure back to the store once nothing of PostgreSQL is alive.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use matriarch_core::id::LeaseId;
use matriarch_core::time::Instant;

/// Attempts in all.
const ATTEMPTS_MAX: u32 = 5;
/// An attempt that takes longer is killed.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);
/// Between a failed attempt and the next.
const PAUSE: Duration = Duration::from_millis(200);

/// A release under way.
#[derive(Debug)]
pub(super) struct Release {
    tenure: LeaseId,
    command: Vec<String>,
    /// The uid and gid to run it as, if not our own.
    identity: Option<(u32, u32)>,
    /// After this the lease ends by itself soon: no further attempt.
    until: Instant,
    attempts: u32,
    running: Option<(Child, Instant)>,
    next_at: Instant,
}

/// How a release stands.
#[derive(Debug)]
pub(super) enum Step {
    /// Look again at this time.
    Wait(Instant),
    /// It worked.
    Done,
    /// It did not, and will not be tried again.
    GivenUp(String),
}

impl Release {
    pub(super) fn new(command: &[String], tenure: LeaseId, identity: Option<(u32, u32)>, until: Instant) -> Self {
        let command = command.iter().map(|word| word.replace("{tenure}", &tenure.to_string())).collect();
        Self { tenure, command, identity, until, attempts: 0, running: None, next_at: Instant::ZERO }
    }

    /// What is given back.
    pub(super) fn tenure(&self) -> LeaseId {
        self.tenure
    }

    /// When it ends by itself.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Starts an attempt, or sees what became of the one that runs.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        let failure = if let Some((child, since)) = &mut self.running {
            match child.try_wait() {
                Ok(None) if now.since(*since) < ATTEMPT_LIMIT => return Step::Wait(now + Duration::from_millis(5)),
                Ok(None) => {
                    // Not waited for: a new agent may have armed the guard by now, and it may not wait for anything.
                    child.kill().ok();
                    format!("no end after {ATTEMPT_LIMIT:?}")
                }
                Ok(Some(status)) if status.success() => return Step::Done,
                Ok(Some(status)) => status.to_string(),
                Err(error) => error.to_string(),
            }
        } else if now < self.next_at {
            return Step::Wait(self.next_at);
        } else {
            self.attempts += 1;
            match self.spawn() {
                Ok(child) => {
                    self.running = Some((child, now));
                    return Step::Wait(now + Duration::from_millis(5));
                }
                Err(error) => error.to_string(),
            }
        };
        self.running = None;
        self.next_at = now + PAUSE;
        if self.attempts >= ATTEMPTS_MAX || self.next_at >= self.until {
            return Step::GivenUp(failure);
        }
        Step::Wait(self.next_at)
    }

    fn spawn(&self) -> io::Result<Child> {
        let [program, arguments @ ..] = self.command.as_slice() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no release command was given"));
        };
        let mut command = Command::new(program);
        command.args(arguments).current_dir("/").stdin(Stdio::null());
        if let Some((uid, gid)) = self.identity {
            command.uid(uid).gid(gid);
        }
        command.spawn()
    }
}
