//! Children and orphans of this process. Some containers' PID 1 reaps every few seconds only, and until then a dead
//! postmaster looks alive to everyone who asks with `kill(pid, 0)`, PostgreSQL itself included. So this process is a
//! child subreaper and reaps at once; whoever wants the status of a child of its own asks here.

use std::collections::BTreeMap;
use std::io;
use std::process::Command;
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{WaitId, WaitIdOptions, WaitOptions, getpid, set_child_subreaper, wait, waitid};

use crate::Process;

/// How a child ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// By itself, with this code.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

/// A child of this process, spawned through [`Child::spawn`]. It is not killed when this is dropped.
#[derive(Debug)]
pub struct Child {
    process: Process,
}

/// Children that were spawned here, and how they ended. The lock is held over a spawn, so that the end of a child is
/// never seen before the child is known.
static CHILDREN: Mutex<BTreeMap<i32, Option<Ended>>> = Mutex::new(BTreeMap::new());
static SOMETHING_ENDED: Condvar = Condvar::new();
static REAPER: Once = Once::new();

impl Child {
    /// Spawns a command.
    ///
    /// # Errors
    /// The program cannot be executed.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        Ok(Self::spawn_piped(command)?.0)
    }

    /// Spawns a command and hands out its pipes as well.
    ///
    /// # Errors
    /// The program cannot be executed.
    pub fn spawn_piped(command: &mut Command) -> io::Result<(Self, std::process::Child)> {
        REAPER.call_once(start_reaper);
        let mut children = children();
        let child = command.spawn()?;
        let process = Process(child.id().cast_signed());
        children.insert(process.0, None);
        Ok((Self { process }, child))
    }

    /// The process; it may have ended.
    pub fn process(&self) -> Process {
        self.process
    }

    /// How the child ended, if it has.
    pub fn ended(&self) -> Option<Ended> {
        children().get(&self.process.0).copied().flatten()
    }

    /// Waits for the end, for `limit` at most.
    pub fn wait(&self, limit: Duration) -> Option<Ended> {
        let until = Instant::now() + limit;
        let mut children = children();
        loop {
            if let Some(Some(ended)) = children.get(&self.process.0) {
                return Some(*ended);
            }
            let left = until.checked_duration_since(Instant::now())?;
            children = SOMETHING_ENDED.wait_timeout(children, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // One that is alive still is reaped as an orphan would be.
        children().remove(&self.process.0);
    }
}

fn children() -> MutexGuard<'static, BTreeMap<i32, Option<Ended>>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start_reaper() {
    set_child_subreaper(Some(getpid())).expect("becoming a child subreaper");
    thread::Builder::new()
        .name("reaper".into())
        .spawn(|| {
            loop {
                if waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).is_err() {
                    // Nobody to wait for yet.
                    thread::sleep(Duration::from_millis(5));
                    continue;
                }
                let mut children = children();
                while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                    if let Some(known) = children.get_mut(&pid.as_raw_nonzero().get()) {
                        let signal = || Ended::Signal(status.terminating_signal().unwrap_or(0));
                        *known = Some(status.exit_status().map_or_else(signal, Ended::Exit));
                    }
                }
                SOMETHING_ENDED.notify_all();
            }
        })
        .expect("the reaper's thread");
}
