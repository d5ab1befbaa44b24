//! The guard's side of the pair: it keeps a successor, a copy of its own process that knows what it knows and becomes
//! the guard when it dies.
//!
//! A copy by fork, not by another start of the executable: that would wait for the disk, and the guard may not. For the
//! same reason the link is written to or given up, never waited for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use matriarch_core::time::Instant;
use nix::unistd::{ForkResult, fork};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, getpid, pidfd_open, pidfd_send_signal, waitpid};

use super::startup::Carried;
use super::succession::Succession;
use crate::clock::{self, Timer};
use crate::processes::Process;

/// Between the start of a successor and of the next: one that cannot live is not started in a loop.
const START_PAUSE: Duration = Duration::from_millis(100);
/// A successor that takes this long to take note is frozen or starved, and replaced.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// How long a guard that ends waits for the end of its successor.
const DISMISSAL_LIMIT: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Pair {
    is_wanted: bool,
    successor: Option<Successor>,
    /// Successors that were killed and not reaped yet.
    leaving: Vec<Pid>,
    started: Option<Instant>,
    failure: String,
}

#[derive(Debug)]
struct Successor {
    process: Process,
    pidfd: OwnedFd,
    link: OwnedFd,
    /// What it was told last.
    told: Vec<u8>,
    unanswered: u32,
    /// Since when it has not answered.
    silent_since: Instant,
}

impl Pair {
    /// Whether there shall be a successor.
    pub(super) fn want(&mut self, is_wanted: bool) {
        self.is_wanted = is_wanted;
        if !is_wanted {
            self.kill_successor("it is not wanted");
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// What is acknowledged now is known to a successor, or needs none.
    pub(super) fn stands(&self) -> bool {
        !self.is_wanted || self.successor.is_some()
    }

    pub(super) fn successor(&self) -> Option<Process> {
        self.successor.as_ref().map(|it| it.process)
    }

    /// Why there is no successor.
    pub(super) fn failure(&self) -> &str {
        &self.failure
    }

    /// After the guard has executed itself anew: a successor of before is of the old executable, and its link is gone.
    pub(super) fn restore(&mut self, is_wanted: bool, successor: Option<(i32, u64)>) {
        self.is_wanted = is_wanted;
        if let Some((pid, start_ticks)) = successor {
            // Before another one is started: two that outlive the guard would both be the guard.
            Process { pid, start_ticks }.signal(Signal::KILL).ok();
            self.leaving.extend(Pid::from_raw(pid));
        }
    }

    /// In a copy of the guard: nothing of this is the copy's.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// A successor is to be started now.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        self.leaving.retain(|pid| matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(None)));
        let is_silent = |it: &Successor| it.unanswered > 0 && now.since(it.silent_since) >= ANSWER_LIMIT;
        if self.successor.as_ref().is_some_and(is_silent) {
            self.kill_successor("it did not answer");
        }
        self.next_start().is_some_and(|at| now >= at)
    }

    /// When a successor is to be started, if there is none and shall be one.
    pub(super) fn next_start(&self) -> Option<Instant> {
        let is_missing = self.is_wanted && self.successor.is_none();
        is_missing.then(|| self.started.map_or(Instant::ZERO, |started| started + START_PAUSE))
    }

    /// Makes a copy of this process as its successor. In the copy, and only there, it returns the copy's task.
    pub(super) fn start(&mut self, carried: &Carried) -> Result<Option<Succession>, String> {
        self.started = Some(clock::now());
        let started = self.fork(carried);
        if let Err(why) = &started {
            self.failure.clone_from(why);
        }
        started
    }

    fn fork(&mut self, carried: &Carried) -> Result<Option<Succession>, String> {
        let failed = |what: &str, error: std::io::Error| format!("{what}: {error}");
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (link, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(|error| failed("socketpair", error.into()))?;
        // Everything that could fail in the copy is done before it.
        let timer = Timer::new().map_err(|error| failed("timer", error))?;
        let guard = pidfd_open(getpid(), PidfdFlags::empty()).map_err(|error| failed("pidfd", error.into()))?;
        // SAFETY: beside this thread there are only those that write the log and kill the cgroup. The copy uses nothing
        // that they use (it forgets the log's queue unseen), and the C library puts its allocator in order in a fork.
        match unsafe { fork() }.map_err(|error| failed("fork", error.into()))? {
            ForkResult::Child => Ok(Some(Succession::new(guard, theirs, timer, carried.clone()))),
            ForkResult::Parent { child } => {
                self.meet(child.as_raw(), link, carried)?;
                Ok(None)
            }
        }
    }

    fn meet(&mut self, pid: i32, link: OwnedFd, carried: &Carried) -> Result<(), String> {
        let Some(number) = Pid::from_raw(pid) else { return Err("fork: no process id".into()) };
        let found = (pidfd_open(number, PidfdFlags::empty()), Process::find(pid));
        let (Ok(pidfd), Ok(Some(process))) = found else {
            // Not reaped yet, so the number is still its own.
            rustix::process::kill_process(number, Signal::KILL).ok();
            self.leaving.push(number);
            return Err("the successor's pidfd: too many open files?".into());
        };
        let told = serde_json::to_vec(carried).unwrap_or_default();
        self.successor = Some(Successor { process, pidfd, link, told, unanswered: 0, silent_since: Instant::ZERO });
        Ok(())
    }

    /// Puts `carried` into the successor's socket if it does not know it. A successor that cannot be told is none.
    pub(super) fn tell(&mut self, carried: &Carried, now: Instant) {
        let Some(successor) = &mut self.successor else { return };
        // The successor does not need to know of itself.
        let told = serde_json::to_vec(&Carried { successor: None, ..carried.clone() }).unwrap_or_default();
        if told == successor.told {
            return;
        }
        match send(&successor.link, &told, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(_) => {
                if successor.unanswered == 0 {
                    successor.silent_since = now;
                }
                successor.unanswered += 1;
                successor.told = told;
            }
            Err(error) => drop(self.kill_successor(&format!("it could not be told: {error}"))),
        }
    }

    pub(super) fn link(&self) -> Option<BorrowedFd<'_>> {
        self.successor.as_ref().map(|it| it.link.as_fd())
    }

    /// Takes in the successor's answers; its pid if it has died.
    pub(super) fn hear(&mut self, now: Instant) -> Option<i32> {
        let successor = self.successor.as_mut()?;
        let mut answer = [0; 1];
        loop {
            match recv(&successor.link, &mut answer, RecvFlags::DONTWAIT) {
                Ok((length, _)) if length > 0 => {
                    successor.unanswered = successor.unanswered.saturating_sub(1);
                    successor.silent_since = now;
                }
                Err(Errno::AGAIN) => return None,
                Err(Errno::INTR) => {}
                Ok(_) | Err(_) => {
                    let pid = successor.process.pid;
                    self.kill_successor("it died");
                    return Some(pid);
                }
            }
        }
    }

    /// Ends the successor, and waits until it has ended.
    pub(super) fn dismiss(&mut self) {
        self.is_wanted = false;
        let Some(successor) = self.kill_successor("the guard ends") else { return };
        let limit = Timespec { tv_sec: DISMISSAL_LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
        poll(&mut [PollFd::new(&successor.pidfd, PollFlags::IN)], Some(&limit)).ok();
    }

    /// By the one signal that nothing can come before: a successor that is told to leave could still become the guard.
    fn kill_successor(&mut self, why: &str) -> Option<Successor> {
        let successor = self.successor.take()?;
        why.clone_into(&mut self.failure);
        pidfd_send_signal(&successor.pidfd, Signal::KILL).ok();
        self.leaving.extend(Pid::from_raw(successor.process.pid));
        Some(successor)
    }
}
