//! Processes of PostgreSQL as the kernel shows them: which one is the postmaster, which are its children, which have
//! outlived it. A zombie is dead everywhere here.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use matriarch_core::id::Pid;
use matriarch_core::view::postgres::{Phase, Process};
use rustix::process::{PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `postmaster.pid`: pid, PGDATA, start time (seconds since the epoch), port, socket directory, listen address, shared
/// memory key, status (`pidfile.h`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PidFile {
    /// Line 1; negative for a single-user server.
    pub pid: i32,
    /// Line 3.
    pub started_s: i64,
    /// Line 4.
    pub port: u16,
    /// Line 8, if it is there yet.
    pub phase: Option<Phase>,
}

impl PidFile {
    /// Reads `postmaster.pid`; `None` if there is none or it is not written yet.
    pub fn read(data_dir: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(data_dir.join("postmaster.pid")).ok()?)
    }

    /// Understands the text of `postmaster.pid`.
    pub fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        Some(Self {
            pid: lines.first()?.parse().ok().filter(|pid| *pid != 0)?,
            started_s: lines.get(2).and_then(|l| l.parse().ok()).unwrap_or(0),
            port: lines.get(3).and_then(|l| l.parse().ok()).unwrap_or(0),
            phase: lines.get(7).and_then(|l| match *l {
                "ready" => Some(Phase::Ready),
                // "standby" = up, but accepting nobody (hot_standby off).
                "starting" | "standby" => Some(Phase::Starting),
                "stopping" => Some(Phase::Stopping),
                _ => None,
            }),
        })
    }
}

/// The postmaster of a data directory.
pub fn observe(data_dir: &Path) -> Process {
    let Some(file) = PidFile::read(data_dir) else { return Process::Absent };
    let pid = file.pid.abs();
    if !is_server(pid, data_dir, file.started_s) {
        return Process::Absent;
    }
    Process::Alive { pid: Pid(pid), phase: file.phase.unwrap_or(Phase::Starting) }
}

/// The postmaster of a data directory as core counts it: a single-user server, as initdb and crash recovery run it, lets
/// no client in and can acknowledge nothing.
pub fn observe_postmaster(data_dir: &Path) -> Process {
    match PidFile::read(data_dir) {
        Some(file) if file.pid < 0 => Process::Absent,
        Some(_) | None => observe(data_dir),
    }
}

/// Whether a living process `pid` is the server of `data_dir`. The pid file of a crashed server may name anything that
/// has the number now: us, our parent (containers number alike), some other program.
fn is_server(pid: i32, data_dir: &Path, started_s: i64) -> bool {
    let own = std::process::id().cast_signed();
    let parent = rustix::process::getppid().map_or(0, |p| p.as_raw_nonzero().get());
    if pid == own || pid == parent || !is_alive(pid) {
        return false;
    }
    match fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(cwd) => fs::canonicalize(data_dir).is_ok_and(|data_dir| data_dir == cwd),
        Err(_) => is_postgres(pid) || started_at_s(pid).is_some_and(|at| (at - started_s).abs() <= 3),
    }
}

/// The fields of `/proc/PID/stat` after the name (which may hold anything): `[0]` is the state, `[1]` the parent.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// The process exists and is no zombie.
pub fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|s| s.first().is_some_and(|state| state != "Z" && state != "X"))
}

fn is_postgres(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| ["postgres", "postmaster"].contains(&c.trim()))
}

/// When a process started, seconds since the epoch: field 22 of `stat` counts ticks since boot.
fn started_at_s(pid: i32) -> Option<i64> {
    let ticks: i64 = stat(pid)?.get(19)?.parse().ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: i64 = boot.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()?;
    let ticks_per_s = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    Some(boot + ticks / ticks_per_s.max(1))
}

/// Living processes whose parent is `pid`.
pub fn children(pid: i32) -> Vec<i32> {
    if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")) {
        return text.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    }
    all().filter(|p| stat(*p).and_then(|s| s.get(1)?.parse().ok()) == Some(pid)).collect()
}

fn all() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok())
}

/// Processes that work in `data_dir` although its postmaster is dead: they may still commit. Empty while the postmaster
/// lives.
pub fn orphans(data_dir: &Path) -> Vec<i32> {
    if !matches!(observe(data_dir), Process::Absent) {
        return Vec::new();
    }
    let Ok(data_dir) = fs::canonicalize(data_dir) else { return Vec::new() };
    let works_in = |pid: i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd: PathBuf| cwd == data_dir);
    all().filter(|pid| works_in(*pid) && is_postgres(*pid) && is_alive(*pid)).collect()
}

/// The WAL receivers of a postmaster, by the title that PostgreSQL gives them whatever `update_process_title` says.
/// Asking the kernel instead of SQL works with every connection slot taken and with recovery blocked.
pub fn wal_receivers(postmaster: Pid) -> Vec<i32> {
    let is_receiver = |pid: &i32| {
        let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let title = String::from_utf8_lossy(&title);
        let title = title.strip_prefix("postgres: ").unwrap_or_default();
        // "postgres: walreceiver ..." or, with a cluster_name, "postgres: NAME: walreceiver ...".
        title.starts_with("walreceiver") || title.split_once(": ").is_some_and(|(_, t)| t.starts_with("walreceiver"))
    };
    children(postmaster.0).into_iter().filter(|pid| is_receiver(pid) && is_alive(*pid)).collect()
}

/// A living process, held so that its number cannot come to mean another one.
#[derive(Debug)]
pub struct Handle {
    fd: AsyncFd<OwnedFd>,
}

impl Handle {
    /// Takes hold of a process.
    ///
    /// # Errors
    /// There is none, or there are no more descriptors.
    pub fn open(pid: Pid) -> io::Result<Self> {
        let pid = rustix::process::Pid::from_raw(pid.0).ok_or(io::ErrorKind::InvalidInput)?;
        let fd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        // SAFETY: an `OwnedFd` names the same descriptor until it is dropped, which is after its deregistration.
        Ok(Self { fd: unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }? })
    }

    /// Returns when the process has ended, whoever its parent is.
    pub async fn exited(&self) {
        // The only error is a runtime that shuts down; then nobody waits any more.
        let _ = self.fd.readable().await;
    }

    /// Signals the process.
    ///
    /// # Errors
    /// It is gone, or belongs to someone else.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(self.fd.get_ref(), signal)?)
    }
}

/// Signals a process by number.
///
/// # Errors
/// It is gone, or belongs to someone else.
pub fn signal(pid: i32, signal: Signal) -> io::Result<()> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::kill_process(pid, signal)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_pid_file_as_far_as_it_is_written() {
        let whole = "4711\n/data\n1700000000\n5433\n/tmp\n127.0.0.1\n  5433001   32768\nready   \n";
        let file = PidFile::parse(whole).unwrap();
        assert_eq!((file.pid, file.port, file.phase), (4711, 5433, Some(Phase::Ready)));
        assert_eq!(PidFile::parse("4711\n/data\n").unwrap().phase, None);
        assert_eq!(PidFile::parse("-4711\n").unwrap().pid, -4711);
        assert_eq!(PidFile::parse(""), None);
        assert_eq!(PidFile::parse("0\n"), None);
        let stopping = whole.replace("ready   ", "stopping");
        assert_eq!(PidFile::parse(&stopping).unwrap().phase, Some(Phase::Stopping));
    }

    #[test]
    fn a_process_of_another_kind_is_no_server() {
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
        assert!(!is_server(std::process::id().cast_signed(), Path::new("/"), 0));
        assert!(!is_server(parent, Path::new("/"), 0));
        assert!(!is_alive(i32::MAX));
    }
}
