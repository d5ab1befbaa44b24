//! What the guard would like of the host. None of it is needed to start; what is refused is said.

use std::io;

use nix::libc;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setpriority_process, setrlimit};

/// Asks for everything; returns what was refused, each with the way out.
pub(super) fn ask() -> Vec<String> {
    let mut refused = Vec::new();
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "-1000") {
        refused.push(format!(
            "oom_score_adj -1000: {error}; out of memory may kill the guard: give it CAP_SYS_RESOURCE or set \
             OOMScoreAdjust=-1000 in the service"
        ));
    }
    if let Err(why) = take_priority() {
        refused.push(format!(
            "real-time priority: {why}; under load the fence may come later: give it CAP_SYS_NICE or set \
             LimitRTPRIO=1 in the service"
        ));
    }
    if let Err(why) = lock_memory() {
        refused.push(format!(
            "memory locked: {why}; under memory pressure the fence may wait for the disk: give it CAP_IPC_LOCK or set \
             LimitMEMLOCK=infinity in the service"
        ));
    }
    let files = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum }) {
        refused.push(format!("more open files: {error}"));
    }
    refused
}

/// Locks only pages that are used: the binary is far larger than the guard's part of it.
fn lock_memory() -> Result<(), String> {
    let mut flags = MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT;
    if geteuid().is_root() {
        flags |= MlockAllFlags::FUTURE;
    } else if let Some(limit) = getrlimit(Resource::Memlock).current {
        // Just below the limit it would work, and then end us when the stack grows.
        return Err(format!("the limit is {limit} bytes"));
    }
    mlockall(flags).map_err(|error| error.to_string())
}

/// The lowest real-time priority: above everything ordinary. Whatever this process starts is ordinary again.
///
/// Niceness is not enough: it counts within a session only (sched(7), autogroups), and every backend of PostgreSQL has
/// a session of its own. With a hundred busy clients the fence then took 190 ms.
pub(super) fn take_priority() -> Result<(), String> {
    let parameters = libc::sched_param { sched_priority: 1 };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the call reads the structure, which outlives it, and changes nothing in memory.
    if unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } == 0 {
        return Ok(());
    }
    let refusal = io::Error::last_os_error().to_string();
    // The next best, each of which may be refused too.
    setpriority_process(None, -20).ok();
    std::fs::write("/proc/self/autogroup", "-20").ok();
    Err(refusal)
}
