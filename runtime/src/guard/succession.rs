//! The successor's side of the pair: it waits for the guard's end.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use matriarch_core::time::Instant;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::process::{Signal, pidfd_send_signal};

use super::fence::Postgres;
use super::startup::{Carried, Means};
use crate::clock::{self, Timer};
use crate::processes::Process;

/// How long after the end of authority a guard that lives may have done nothing: it is frozen or starved then. Well
/// below the time that is set aside for a fence.
const OVERDUE_AFTER: Duration = Duration::from_millis(100);
/// How long the end of an overdue guard is waited for. Its main thread runs no more as soon as it is signalled.
const END_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// More than a guard ever says at once, in bytes.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// What a successor has.
pub(super) struct Succession {
    /// The guard, from before the fork: it cannot be mistaken for another.
    guard: OwnedFd,
    /// Where the guard says what it knows; `None` once it has executed itself anew, and is about to replace us.
    link: Option<OwnedFd>,
    timer: Timer,
    copy: Carried,
}

/// How a guard ended.
pub(super) struct Inheritance {
    /// What it knew.
    pub(super) carried: Carried,
    /// A timer that it did not set.
    pub(super) timer: Timer,
    /// What happened to it.
    pub(super) why: &'static str,
}

impl Succession {
    pub(super) fn new(guard: OwnedFd, link: OwnedFd, timer: Timer, copy: Carried) -> Self {
        Self { guard, link: Some(link), timer, copy }
    }

    /// Waits until the guard is dead, or does not do what is due.
    pub(super) fn wait(mut self, postgres: &mut Postgres, means: &Means) -> Inheritance {
        let why = self.wait_for_end(postgres, means);
        Inheritance { carried: self.copy, timer: self.timer, why }
    }

    fn wait_for_end(&mut self, postgres: &mut Postgres, means: &Means) -> &'static str {
        self.learn(postgres);
        loop {
            let is_dead = self.is_guard_dead();
            // After the look: what it sent, it sent while it lived.
            self.hear(postgres);
            if is_dead {
                return "the guard is dead";
            }
            if self.overdue_at().is_some_and(|at| clock::now() >= at) {
                pidfd_send_signal(&self.guard, Signal::KILL).ok();
                poll(&mut [PollFd::new(&self.guard, PollFlags::IN)], Some(&END_WAIT)).ok();
                self.hear(postgres);
                return "the guard did not fire at its instant and was killed";
            }
            self.timer.set(self.overdue_at());
            let mut fds = vec![
                PollFd::new(&self.guard, PollFlags::IN),
                PollFd::from_borrowed_fd(self.timer.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(means.signals.as_fd(), PollFlags::IN),
            ];
            fds.extend(self.link.iter().map(|link| PollFd::new(link, PollFlags::IN)));
            if poll(&mut fds, None).is_err_and(|error| error != Errno::INTR) {
                std::thread::sleep(Duration::from_millis(1));
            }
            // They are meant for the guard, which gets its own.
            while let Ok(Some(_)) = means.signals.read_signal() {}
        }
    }

    fn is_guard_dead(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.guard, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// A guard whose fence falls has said so first.
    fn overdue_at(&self) -> Option<Instant> {
        let armed = self.copy.authority.armed().filter(|_| self.copy.fencing.is_none())?;
        Some(armed.at + OVERDUE_AFTER)
    }

    /// Takes in everything that the guard has said.
    fn hear(&mut self, postgres: &mut Postgres) {
        let mut message = [0; MESSAGE_BYTES_MAX];
        let mut is_new = false;
        while let Some(link) = &self.link {
            match recv(link, &mut message[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => self.link = None,
                Ok((length, _)) => {
                    // Nobody but a guard of this very executable writes here.
                    if let Ok(copy) = serde_json::from_slice(message.get(..length).unwrap_or_default()) {
                        self.copy = copy;
                        is_new = true;
                    }
                    send(link, b".", SendFlags::NOSIGNAL | SendFlags::DONTWAIT).ok();
                }
                // A guard that died with answers unread leaves this once, before what it said last.
                Err(Errno::CONNRESET | Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => self.link = None,
            }
        }
        if is_new {
            self.learn(postgres);
        }
    }

    /// Looks at the postmaster as the guard did: its executable may have another name, its directory may be a new one.
    fn learn(&self, postgres: &mut Postgres) {
        let (pid, start_ticks) = self.copy.postmaster.unwrap_or((0, 0));
        postgres.watch(Process { pid, start_ticks }).ok();
    }
}
