//! What the guard would like of the host. None of it is needed to start; what is refused is said.

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
    if let Err(error) = setpriority_process(None, -20) {
        refused.push(format!(
            "priority -20: {error}; under load the fence may come later: give it CAP_SYS_NICE or set LimitNICE=-20 in \
             the service"
        ));
    }
    // Only pages that are used: the binary is far larger than the guard's part of it. Without the privilege, nothing
    // of the future: an allocation beyond the limit would fail, and end the guard.
    let mut flags = MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT;
    if geteuid().is_root() {
        flags |= MlockAllFlags::FUTURE;
    }
    if let Err(error) = mlockall(flags) {
        refused.push(format!(
            "memory locked: {error}; under memory pressure the fence may wait for the disk: give it CAP_IPC_LOCK or set \
             LimitMEMLOCK=infinity in the service"
        ));
    }
    let files = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum }) {
        refused.push(format!("more open files: {error}"));
    }
    refused
}
