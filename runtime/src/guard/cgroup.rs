//! The guard's hold on PostgreSQL's own cgroup: one write to `cgroup.kill` kills everything in it, also what forks
//! faster than it can be read and what is not recognised as PostgreSQL.
//!
//! The write touches no disk, but it takes a lock that the kernel may hold for a while when others move processes
//! between cgroups. So a thread of its own writes, and the fence goes on beside it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::pipe::{PipeFlags, pipe_with};

use super::wishes;
use crate::postgres::cgroup;
use crate::processes::Process;

/// The cgroup of one postmaster, in which nothing else is.
#[derive(Debug)]
pub(super) struct Cgroup {
    postmaster: Process,
    directory: PathBuf,
    /// Wakes the thread that writes.
    wake: OwnedFd,
    asked: AtomicU32,
    done: Arc<AtomicU32>,
}

impl Cgroup {
    /// The cgroup of `postmaster`, if its name says that it was made for `data_dir` and neither this guard nor the
    /// agent is in it or below. Otherwise the reason, with the way out.
    pub(super) fn find(postmaster: Process, data_dir: &Path, agent: Option<i32>) -> Result<Self, String> {
        let directory = cgroup::of(postmaster.pid)?;
        if directory.file_name().is_none_or(|name| *name != *cgroup::name(data_dir)) {
            let why = "give the agent's account the right to make one: Delegate=yes in the service";
            return Err(format!("PostgreSQL has no cgroup of its own, it is in {}: {why}", directory.display()));
        }
        for pid in agent.into_iter().chain([std::process::id().cast_signed()]) {
            if cgroup::of(pid)?.starts_with(&directory) {
                return Err(format!("process {pid} of the agent or its guard is in {} too", directory.display()));
            }
        }
        let path = directory.join("cgroup.kill");
        let kill = OpenOptions::new().write(true).open(&path);
        let kill = kill.map_err(|error| format!("{}: {error}; it takes Linux 5.14", path.display()))?;
        let failed = |error: std::io::Error| format!("a thread for {}: {error}", path.display());
        let (woken, wake) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        let done = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&done);
        let body = move || kill_when_woken(kill, File::from(woken), &counter);
        let name = "guard-cgroup".to_owned();
        thread::Builder::new().name(name).stack_size(64 * 1024).spawn(body).map_err(failed)?;
        Ok(Self { postmaster, directory, wake, asked: AtomicU32::new(0), done })
    }

    pub(super) fn is_of(&self, postmaster: Process) -> bool {
        self.postmaster == postmaster
    }

    /// Kills everything in it, beside the caller.
    pub(super) fn kill(&self) {
        if rustix::io::write(&self.wake, b"k").is_ok() {
            self.asked.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A kill has not been carried out yet. Whatever is started in the cgroup before it is, it would kill too.
    pub(super) fn is_killing(&self) -> bool {
        self.done.load(Ordering::SeqCst) != self.asked.load(Ordering::SeqCst)
    }

    /// Removes it if nothing is in it.
    pub(super) fn remove(self) {
        fs::remove_dir(self.directory).ok();
    }
}

/// Ends with the other end of the pipe. In a copy of the guard there is no such thread, and these two files stay open
/// unused: two for each generation.
fn kill_when_woken(mut kill: File, mut woken: File, done: &AtomicU32) {
    // Threads do not inherit it from the guard's.
    wishes::take_priority().ok();
    let mut byte = [0; 1];
    while woken.read_exact(&mut byte).is_ok() {
        // What it does not kill, the fence finds.
        kill.write_all(b"1").ok();
        done.fetch_add(1, Ordering::SeqCst);
    }
}
