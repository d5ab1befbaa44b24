//! Stopping everything that a demo started, and removing what it wrote, however it ended.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;

use super::processes;
use super::workdir::Workdir;
use crate::postgres::cgroup;
use crate::postgres::proc::PidFile;
use crate::processes::Process;

/// How long PostgreSQL may take for an immediate shutdown. It lets go of shared memory then, which a kill leaves
/// behind.
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(3);
/// How long killed processes may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// Sweeps at most: whatever was starting another process at the first is gone by the second.
const SWEEPS_MAX: u32 = 5;

/// Owns everything that a demo has started: dropped, by an error, a panic or an interruption, it stops and removes all.
#[derive(Debug)]
pub(super) struct Cleanup {
    workdir: Workdir,
    is_kept: bool,
}

impl Cleanup {
    /// Takes responsibility for a directory and for all descendants of this process.
    pub(super) fn new(workdir: Workdir) -> Self {
        Self { workdir, is_kept: false }
    }

    /// Leaves everything running and in place.
    pub(super) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(error) = stop(&self.workdir) {
            anstream::eprintln!("matriarch: {error:#}");
        }
    }
}

/// `matriarch demo --stop DIR`.
///
/// # Errors
/// It is not a demo's directory, or belongs to somebody else.
pub(super) fn stop_kept(dir: &Path) -> anyhow::Result<()> {
    let workdir = Workdir::open(dir)?;
    stop(&workdir)?;
    anstream::println!("The demo in {} is stopped and removed.", workdir.path().display());
    Ok(())
}

fn stop(workdir: &Workdir) -> anyhow::Result<()> {
    let mut segments = segments(workdir);
    let mut shared = BTreeSet::new();
    let mut cgroups = cgroups(std::process::id().cast_signed(), workdir);
    for _ in 0..SWEEPS_MAX {
        let found = processes::of_demo(workdir.path());
        if found.is_empty() {
            break;
        }
        cgroups.extend(found.iter().flat_map(|process| self::cgroups(process.pid, workdir)));
        // Agents and guards first: they would start again, or fence, what is being stopped.
        let (servers, others): (Vec<Process>, Vec<Process>) = found.into_iter().partition(|found| is_server(*found));
        shared.extend(servers.iter().flat_map(|server| shared_files(*server)));
        processes::signal_all(&others, Signal::KILL);
        processes::wait_gone(&others, KILL_LIMIT);
        segments.extend(self::segments(workdir));
        let postmasters = postmasters(workdir, &servers);
        processes::signal_all(&postmasters, Signal::QUIT);
        // A fence may hold them.
        processes::signal_all(&servers, Signal::CONT);
        if !processes::wait_gone(&postmasters, IMMEDIATE_LIMIT) || postmasters.len() < servers.len() {
            processes::signal_all(&servers, Signal::KILL);
        }
        processes::wait_gone(&servers, KILL_LIMIT);
    }
    let left = processes::of_demo(workdir.path());
    if !left.is_empty() {
        let pids: Vec<String> = left.iter().map(|process| process.pid.to_string()).collect();
        bail!("these processes could not be stopped: {}; {} stays", pids.join(" "), workdir.path().display());
    }
    segments.iter().for_each(Segment::remove);
    for file in shared {
        // Most are gone: an immediate shutdown removes them.
        let _ = fs::remove_file(file);
    }
    for cgroup in cgroups {
        // Most were never there: not every agent may make one.
        let _ = fs::remove_dir(cgroup);
    }
    remove(workdir.path())
}

/// The cgroups that the servers of all nodes have if `pid` is an agent; a killed one leaves its own behind.
fn cgroups(pid: i32, workdir: &Workdir) -> BTreeSet<PathBuf> {
    let Ok(home) = cgroup::of(pid) else { return BTreeSet::new() };
    let names = workdir.node_dirs().into_iter().map(|node| cgroup::name(&node.join("data")));
    names.map(|name| home.join(name)).collect()
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} could not be removed; remove it by hand", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn is_server(process: Process) -> bool {
    let program = fs::read_link(format!("/proc/{}/exe", process.pid)).unwrap_or_default();
    program.file_name().is_some_and(|name| name == "postgres")
}

/// Those of `servers` that the pid files name.
fn postmasters(workdir: &Workdir, servers: &[Process]) -> Vec<Process> {
    let named: Vec<i32> = workdir.data_dirs().iter().filter_map(|data| Some(PidFile::read(data)?.pid)).collect();
    servers.iter().copied().filter(|server| named.contains(&server.pid)).collect()
}

/// Where Linux keeps POSIX shared memory, and how PostgreSQL names its own there.
const SHARED_PREFIX: &str = "/dev/shm/PostgreSQL.";

/// The POSIX shared memory that a server has open: initdb's servers use it whatever the cluster's configuration will
/// say, and leave it behind when killed.
fn shared_files(server: Process) -> BTreeSet<PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{}/maps", server.pid)).unwrap_or_default();
    shared_in(&maps)
}

/// The paths in a text as `/proc/PID/maps` has it: the last of six fields.
fn shared_in(maps: &str) -> BTreeSet<PathBuf> {
    let paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    paths.filter(|path| path.starts_with(SHARED_PREFIX)).map(PathBuf::from).collect()
}

/// The System V shared memory by which PostgreSQL sees that a dead postmaster's children live. A kill leaves it behind,
/// and with the data directory goes the only note of it.
#[derive(Debug, PartialEq, Eq)]
struct Segment {
    key: i32,
    id: i32,
}

fn segments(workdir: &Workdir) -> Vec<Segment> {
    let pid_files = workdir.data_dirs().into_iter().map(|data: PathBuf| data.join("postmaster.pid"));
    pid_files.filter_map(|path| Segment::parse(&fs::read_to_string(path).ok()?)).collect()
}

impl Segment {
    /// Line 7 of `postmaster.pid`: key and id (`pidfile.h`, `LOCK_FILE_LINE_SHMEM_KEY`).
    fn parse(pid_file: &str) -> Option<Self> {
        let mut words = pid_file.lines().nth(6)?.split_whitespace();
        // The key is printed unsigned.
        let key = words.next()?.parse::<u32>().ok()?.cast_signed();
        Some(Self { key, id: words.next()?.parse().ok()? })
    }

    /// Removes it if nobody is attached, and if it is still the one that was noted: ids are given again.
    fn remove(&self) {
        let Some(found) = self.look() else { return };
        if found.shm_nattch == 0 && found.shm_perm.__key == self.key {
            // SAFETY: IPC_RMID takes no buffer.
            let _ = unsafe { nix::libc::shmctl(self.id, nix::libc::IPC_RMID, std::ptr::null_mut()) };
        }
    }

    fn look(&self) -> Option<nix::libc::shmid_ds> {
        let mut found = std::mem::MaybeUninit::<nix::libc::shmid_ds>::zeroed();
        // SAFETY: IPC_STAT fills a `shmid_ds`, for which all zeros is a value.
        let outcome = unsafe { nix::libc::shmctl(self.id, nix::libc::IPC_STAT, found.as_mut_ptr()) };
        // SAFETY: as above.
        (outcome == 0).then(|| unsafe { found.assume_init() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_is_found_among_the_mappings() {
        let maps = "\
            55d0a0000000-55d0a0001000 r--p 00000000 fe:00 1 /usr/lib/postgresql/15/bin/postgres\n\
            7f00a0000000-7f00a0100000 rw-s 00000000 00:1a 7 /dev/shm/PostgreSQL.105195006\n\
            7f00a0200000-7f00a0300000 rw-p 00000000 00:00 0\n";
        assert_eq!(shared_in(maps), BTreeSet::from([PathBuf::from("/dev/shm/PostgreSQL.105195006")]));
    }

    #[test]
    fn the_segment_is_read_from_the_pid_file() {
        let text = "4711\n/d/n1\n1700000000\n17001\n\n127.0.0.1\n    655403        12\nready   \n";
        assert_eq!(Segment::parse(text), Some(Segment { key: 655_403, id: 12 }));
        assert_eq!(Segment::parse("4711\n/d/n1\n"), None);
    }
}
