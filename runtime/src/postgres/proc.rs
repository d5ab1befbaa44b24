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

use crate::processes::{Stat, child_pids, is_gone, pids};

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
            pid: lines.first()?.parse().ok().filter(|pid| !matches!(*pid, 0 | i32::MIN))?,
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

/// The postmaster of a data directory as core counts it: a single-user server, as initdb and crash recovery run it,
/// lets no client in and can acknowledge nothing.
pub fn observe_postmaster(data_dir: &Path) -> Process {
    match PidFile::read(data_dir) {
        Some(file) if file.pid < 0 => Process::Absent,
        Some(_) | None => observe(data_dir),
    }
}

/// Tells PostgreSQL's programs, by a variable, that the number in a left-over `postmaster.pid` is no server's.
///
/// They take any process that has it for one, except their own parent and this one. After a container's restart the number
/// may be anybody's; and where nobody reaps, the dead postmaster itself is there as a zombie for ever, and neither a start
/// nor a recovery in single-user mode would succeed.
pub(super) fn no_server(data_dir: &Path) -> Option<(&'static str, String)> {
    let stale = PidFile::read(data_dir).filter(|_| observe(data_dir) == Process::Absent)?;
    Some(("PG_GRANDPARENT_PID", stale.pid.abs().to_string()))
}

/// Removes the lock of a socket that a dead server of this data directory has left behind. That none lives is the caller's
/// to know.
///
/// PostgreSQL does so itself unless a process has the number in it. Of `postmaster.pid` it is told that this is no server
/// ([`no_server`]); a recovery in single-user mode has removed that, and this lock not.
pub(super) fn clear_socket_lock(directory: &Path, port: u16, data_dir: &Path) {
    let lock = directory.join(format!(".s.PGSQL.{port}.lock"));
    let Ok(text) = fs::read_to_string(&lock) else { return };
    let owner = text.lines().nth(1).and_then(|owner| fs::canonicalize(owner).ok());
    if owner.is_some_and(|owner| fs::canonicalize(data_dir).is_ok_and(|data_dir| data_dir == owner)) {
        // Where it cannot be removed PostgreSQL says what is wrong with it.
        let _ = fs::remove_file(&lock);
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
        Err(_) => is_postgres(pid) || started_at_s(pid).is_some_and(|at| at.abs_diff(started_s) <= 3),
    }
}

/// The process exists and is no zombie. What cannot be read counts as alive.
pub fn is_alive(pid: i32) -> bool {
    Stat::read(pid).map_or(true, |stat| stat.is_some_and(|stat| !stat.is_dead()))
}

/// By its name, which anybody may see.
pub(super) fn is_postgres(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| ["postgres", "postmaster"].contains(&c.trim()))
}

/// When a process started, seconds since the epoch: field 22 of `stat` counts ticks since boot.
fn started_at_s(pid: i32) -> Option<i64> {
    let ticks = i64::try_from(Stat::read(pid).ok()??.start_ticks).ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: i64 = boot.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()?;
    let ticks_per_s = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    Some(boot + ticks / ticks_per_s.max(1))
}

/// Processes that work in `data_dir` although its postmaster is dead: they may still commit. Empty while the postmaster
/// lives.
///
/// # Errors
/// `/proc` cannot be listed, as with no descriptor left, or the directory cannot be reached: that is no word about orphans.
pub fn orphans(data_dir: &Path) -> io::Result<Vec<i32>> {
    if !matches!(observe(data_dir), Process::Absent) {
        return Ok(Vec::new());
    }
    let data_dir = match fs::canonicalize(data_dir) {
        Ok(data_dir) => data_dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let works_in = |pid: i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd: PathBuf| cwd == data_dir);
    Ok(pids()?.into_iter().filter(|pid| works_in(*pid) && is_postgres(*pid) && is_alive(*pid)).collect())
}

/// The WAL receivers of a postmaster, by the title that PostgreSQL gives them whatever `update_process_title` says.
/// Asking the kernel instead of SQL works with every connection slot taken and with recovery blocked.
///
/// # Errors
/// The postmaster's children, or the title of one, cannot be read: one of them may be a receiver.
pub fn wal_receivers(postmaster: Pid) -> io::Result<Vec<i32>> {
    let mut receivers = Vec::new();
    for pid in child_pids(postmaster.0)? {
        let title = match fs::read(format!("/proc/{pid}/cmdline")) {
            Ok(title) => title,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        if is_receiver(&String::from_utf8_lossy(&title)) && is_alive(pid) {
            receivers.push(pid);
        }
    }
    Ok(receivers)
}

/// `postgres: walreceiver ...` or, with a `cluster_name`, `postgres: NAME: walreceiver ...`.
fn is_receiver(title: &str) -> bool {
    let title = title.strip_prefix("postgres: ").unwrap_or_default();
    title.starts_with("walreceiver") || title.split_once(": ").is_some_and(|(_, t)| t.starts_with("walreceiver"))
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
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    #[test]
    fn only_its_own_lock_is_taken_off_a_socket() {
        let (sockets, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let lock = sockets.path().join(".s.PGSQL.5433.lock");
        for (owner, left) in [(data.path(), false), (sockets.path(), true), (Path::new("/nowhere"), true)] {
            fs::write(&lock, format!("4711\n{}\n1700000000\n5433\n/tmp\n", owner.display())).unwrap();
            clear_socket_lock(sockets.path(), 5433, data.path());
            assert_eq!(lock.exists(), left, "{}", owner.display());
        }
    }

    #[test]
    fn a_left_over_number_is_told_to_be_no_servers() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(no_server(data.path()), None);
        // A single-user server's is negative.
        for number in [1, -1] {
            fs::write(data.path().join("postmaster.pid"), format!("{number}\n/elsewhere\n1\n")).unwrap();
            assert_eq!(no_server(data.path()), Some(("PG_GRANDPARENT_PID", "1".into())));
        }
    }

    #[test]
    fn reads_the_pid_file_as_far_as_it_is_written() {
        let whole = "4711\n/data\n1700000000\n5433\n/tmp\n127.0.0.1\n  5433001   32768\nready   \n";
        let file = PidFile::parse(whole).unwrap();
        assert_eq!((file.pid, file.port, file.phase), (4711, 5433, Some(Phase::Ready)));
        assert_eq!(PidFile::parse("4711\n/data\n").unwrap().phase, None);
        assert_eq!(PidFile::parse("-4711\n").unwrap().pid, -4711);
        assert_eq!(PidFile::parse(""), None);
        assert_eq!(PidFile::parse("0\n"), None);
        assert_eq!(PidFile::parse("-2147483648\n"), None, "it is no number of a process, with no sign either");
        let stopping = whole.replace("ready   ", "stopping");
        assert_eq!(PidFile::parse(&stopping).unwrap().phase, Some(Phase::Stopping));
    }

    #[test]
    fn a_receiver_is_known_by_its_title() {
        assert!(is_receiver("postgres: walreceiver streaming 0/3000000"));
        assert!(is_receiver("postgres: main: walreceiver "));
        assert!(!is_receiver("postgres: main: startup recovering 000000010000000000000003"));
        assert!(!is_receiver("vi walreceiver.c"));
    }

    /// In a process of its own, which runs nothing but this test: the limit is the process's.
    #[test]
    fn what_cannot_be_read_is_neither_dead_nor_gone() {
        const ALONE: &str = "MATRIARCH_TEST_WITHOUT_DESCRIPTORS";
        if std::env::var_os(ALONE).is_none() {
            let own = std::env::current_exe().unwrap();
            let name = "postgres::proc::tests::what_cannot_be_read_is_neither_dead_nor_gone";
            let alone = std::process::Command::new(own).args(["--exact", name]).env(ALONE, "1").output().unwrap();
            assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stdout));
            return;
        }
        let own = std::process::id().cast_signed();
        setrlimit(Resource::Nofile, Rlimit { current: Some(0), maximum: getrlimit(Resource::Nofile).maximum }).unwrap();
        assert!(is_alive(own));
        assert!(wal_receivers(Pid(own)).is_err());
        assert!(orphans(Path::new("/")).is_err());
    }

    #[test]
    fn a_process_of_another_kind_is_no_server() {
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
        assert!(!is_server(std::process::id().cast_signed(), Path::new("/"), 0));
        assert!(!is_server(parent, Path::new("/"), 0));
        assert!(!is_alive(i32::MAX));
    }
}
