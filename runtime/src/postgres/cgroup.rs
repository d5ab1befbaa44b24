//! A cgroup of PostgreSQL's own, below the agent's, so that the guard can kill all that is in it with one write.
//!
//! Only cgroup v2 (or the v2 hierarchy beside v1). The agent needs the right to make a cgroup below its own and to move
//! processes from one to the other: root has it, and systemd gives it with `Delegate=yes`. Without it PostgreSQL is
//! started where the agent is.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What root had opened before it became another account: the kernel asks who opened it, not who writes (since 5.16).
static ROOTS: OnceLock<OwnedFd> = OnceLock::new();

/// What the cgroup for `data_dir` is called: always the same, so that it is recognised and used again.
pub fn name(data_dir: &Path) -> String {
    // FNV-1a: the same in every version and on every machine, unlike the standard library's.
    let bytes = data_dir.as_os_str().as_encoded_bytes();
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("matriarch-postgres-{hash:016x}")
}

/// The directory of the cgroup that `pid` is in.
///
/// # Errors
/// A text: there is no cgroup v2 here, or the process cannot be read.
pub fn of(pid: i32) -> Result<PathBuf, String> {
    let read = |path: String| fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"));
    let mounts = read("/proc/self/mountinfo".into())?;
    let memberships = read(format!("/proc/{pid}/cgroup"))?;
    let path = memberships.lines().find_map(|line| line.strip_prefix("0::"));
    let path = path.and_then(|path| mounts.lines().find_map(|line| below_mount(line, Path::new(path))));
    path.ok_or_else(|| "there is no cgroup v2 here".into())
}

/// Where the cgroup `path` is if `mount`, a line of `/proc/PID/mountinfo` (proc(5)), shows it.
fn below_mount(mount: &str, path: &Path) -> Option<PathBuf> {
    let (fields, kind) = mount.split_once(" - ")?;
    if kind.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = fields.split(' ').skip(3);
    let (root, mounted_at) = (fields.next()?, fields.next()?);
    Some(Path::new(mounted_at).join(path.strip_prefix(root).ok()?))
}

/// As root, before it becomes another account: makes the cgroup and keeps the means to start processes in it.
pub(crate) fn prepare(data_dir: &Path) {
    if let Ok(procs) = make(data_dir) {
        // Set once: an agent becomes another account once.
        ROOTS.set(procs).ok();
    }
}

/// What a process writes to by [`enter`] to be in the cgroup of `data_dir`, which is made if it is missing; `None`
/// where that is not allowed, which the guard tells its agent.
pub(crate) fn entrance(data_dir: &Path) -> Option<OwnedFd> {
    match ROOTS.get() {
        Some(procs) => procs.try_clone().ok(),
        None => make(data_dir).ok(),
    }
}

/// Moves the calling process, which may be between fork and exec.
pub(crate) fn enter(entrance: Option<&OwnedFd>) {
    if let Some(procs) = entrance {
        // The writer itself. If it is refused, the process stays where it is.
        rustix::io::write(procs, b"0").ok();
    }
}

fn make(data_dir: &Path) -> io::Result<OwnedFd> {
    let own = of(std::process::id().cast_signed()).map_err(io::Error::other)?;
    let directory = own.join(name(data_dir));
    match fs::create_dir(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    Ok(OpenOptions::new().write(true).open(directory.join("cgroup.procs"))?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_found_where_it_is_mounted() {
        let hybrid = "20 10 0:17 / /sys/fs/cgroup/unified rw,relatime shared:5 - cgroup2 cgroup2 rw";
        let found = |line, path| below_mount(line, Path::new(path));
        assert_eq!(found(hybrid, "/"), Some("/sys/fs/cgroup/unified/".into()));
        assert_eq!(found(hybrid, "/a/b"), Some("/sys/fs/cgroup/unified/a/b".into()));
        let container = "30 10 0:17 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup rw";
        assert_eq!(found(container, "/docker/1/x"), Some("/sys/fs/cgroup/x".into()));
        assert_eq!(found(container, "/docker/2"), None);
        assert_eq!(found("20 10 0:17 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu", "/"), None);
        assert_eq!(found("", "/"), None);
    }

    #[test]
    fn names_are_different_and_stay() {
        assert_eq!(name(Path::new("/data")), "matriarch-postgres-2e61291ce2d9239e");
        assert_ne!(name(Path::new("/data")), name(Path::new("/data/")));
    }
}
