//! Stopping, continuing and killing PostgreSQL, whole.
//!
//! Why not its own shutdown: a postmaster that is stopped ignores SIGQUIT for as long as its backends have work, and a
//! backend whose postmaster was killed goes on committing until its statement ends. So the fence is: stop the
//! postmaster (it forks nothing and reaps nothing, so no pid of its children is reused), kill its children, kill it,
//! and then kill whatever else runs the server in this data directory until twice in a row nothing is found.
//!
//! `postmaster.pid` is not read: it names only a process that works in this directory, which the search finds anyway,
//! and the disk it lies on may hang.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use matriarch_core::time::Instant;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::cgroup::Cgroup;
use crate::clock;
use crate::processes::{DataDir, Member, Process, child_pids};

/// Between two looks at processes that were signalled.
const LOOK_AGAIN: Duration = Duration::from_micros(300);
/// For how long a hold tries to read `/proc`.
const BLIND_MAX: Duration = Duration::from_millis(10);
/// How long the dying are waited for before others are looked for again.
const LOOK_ELSEWHERE: Duration = Duration::from_millis(20);
/// How long the postmaster may take to stop before its children are killed without waiting for that.
const STOP_WAIT: Duration = Duration::from_millis(10);

/// The PostgreSQL of one data directory.
#[derive(Debug)]
pub(super) struct Postgres {
    path: PathBuf,
    directory: DataDir,
    postmaster: Option<Process>,
    cgroup: Option<Cgroup>,
}

/// A kill under way.
#[derive(Debug, Default)]
pub(super) struct Killing {
    /// Those that were told to die and have not been seen dead.
    dying: BTreeMap<i32, OwnedFd>,
    signalled: u32,
    struck: bool,
    strike_took: Duration,
    empty_readings: u32,
}

impl Killing {
    /// How many processes have been told to die.
    pub(super) fn processes(&self) -> u32 {
        self.signalled
    }

    /// How long it took to signal the postmaster that was told of and its children. A process that was signalled runs
    /// nothing of its own any more, however long it takes to be gone.
    pub(super) fn strike_took(&self) -> Duration {
        self.strike_took
    }

    /// Waits until all that were told to die are dead, at most `limit`.
    fn wait(&mut self, limit: Duration) {
        let begun = clock::now();
        loop {
            let left = limit.saturating_sub(clock::now().since(begun));
            let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            let mut fds: Vec<PollFd<'_>> = self.dying.values().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)).collect();
            if fds.is_empty() || left.is_zero() || poll(&mut fds, Some(&timeout)).is_err() {
                return;
            }
            let mut dead = fds.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<_>>().into_iter();
            self.dying.retain(|_, _| !dead.next().unwrap_or(false));
        }
    }
}

/// How far a kill has come.
#[derive(Debug)]
pub(super) enum Progress {
    /// Nothing of the data directory is alive.
    AllDead,
    /// These, as far as they could be read, are alive yet.
    Alive(Vec<i32>),
}

impl Postgres {
    pub(super) fn new(directory: &Path) -> Self {
        Self { path: directory.to_owned(), directory: DataDir::new(directory), postmaster: None, cgroup: None }
    }

    /// The postmaster that the agent told of.
    pub(super) fn watched(&self) -> Option<Process> {
        self.postmaster
    }

    /// Looks again at what the data directory's path means. The disk may hang, so only while nothing is armed.
    pub(super) fn refresh(&mut self) {
        self.directory.refresh();
    }

    /// Takes the agent's word for which process is the postmaster, if there is such a process.
    pub(super) fn watch(&mut self, process: Process) -> Result<(), String> {
        if process.pid == 0 {
            self.postmaster = None;
            return Ok(());
        }
        match process.stat() {
            Ok(Some(stat)) if !stat.is_dead() => {
                self.postmaster = Some(process);
                self.learn();
                Ok(())
            }
            Ok(_) => Err(format!("no process {} that started at tick {} is alive", process.pid, process.start_ticks)),
            Err(error) => Err(format!("process {} cannot be read: {error}", process.pid)),
        }
    }

    /// Looks at what the watched postmaster executes. When the agent tells of it, it may not be in its directory yet.
    pub(super) fn learn(&mut self) {
        if let Some(postmaster) = self.postmaster {
            self.directory.learn(postmaster.pid);
        }
    }

    /// Looks for a cgroup that is the watched postmaster's alone. Without one the fence works as well, but a process
    /// that is not recognised as PostgreSQL outlives it.
    pub(super) fn find_cgroup(&mut self, agent: Option<i32>) -> Result<(), String> {
        let Some(postmaster) = self.postmaster else { return Ok(()) };
        if self.cgroup.as_ref().is_none_or(|it| !it.is_of(postmaster)) {
            self.cgroup = None;
            self.cgroup = Some(Cgroup::find(postmaster, &self.path, agent)?);
        }
        Ok(())
    }

    /// In a copy of the guard, which has not got the thread that belongs to it.
    pub(super) fn forget_cgroup(&mut self) {
        self.cgroup = None;
    }

    /// Removes the cgroup, if it is empty.
    pub(super) fn remove_cgroup(&mut self) {
        if let Some(cgroup) = self.cgroup.take() {
            cgroup.remove();
        }
    }

    /// Reads everything that a fence reads, so that its code and the kernel's are in memory.
    pub(super) fn rehearse(&self) -> io::Result<()> {
        let me = std::process::id().cast_signed();
        child_pids(me)?;
        if let Some(me) = Process::find(me)? {
            me.signal(Signal::CONT)?;
        }
        self.directory.members(self.postmaster).map(drop)
    }

    /// Kills everything, for at most `budget`; to be called again with the same `killing` until all are dead.
    pub(super) fn kill(&self, killing: &mut Killing, budget: Duration) -> Progress {
        let begun = clock::now();
        if !killing.struck {
            killing.struck = true;
            if let Some(cgroup) = &self.cgroup {
                cgroup.kill();
            }
            self.strike(killing, begun);
            killing.strike_took = clock::now().since(begun);
        }
        loop {
            let alive = match self.directory.members(self.postmaster) {
                Ok(members) => members,
                Err(_) if clock::now().since(begun) >= budget => return Progress::Alive(Vec::new()),
                Err(_) => {
                    sleep(LOOK_AGAIN);
                    continue;
                }
            };
            for member in &alive {
                kill_one(member.process, killing);
            }
            if alive.is_empty() {
                // One reading may miss a process: forked under a pid already passed by one that died before its own.
                killing.empty_readings += 1;
                if killing.empty_readings < 2 {
                    continue;
                }
                if self.cgroup.as_ref().is_none_or(|it| !it.is_killing()) {
                    return Progress::AllDead;
                }
                if clock::now().since(begun) >= budget {
                    return Progress::Alive(Vec::new());
                }
                sleep(LOOK_AGAIN);
                continue;
            }
            killing.empty_readings = 0;
            if clock::now().since(begun) >= budget {
                return Progress::Alive(alive.iter().map(|member| member.process.pid).collect());
            }
            killing.wait(LOOK_ELSEWHERE);
            sleep(LOOK_AGAIN);
        }
    }

    /// The first and fastest blow, at the postmaster we were told of. What goes wrong here, the search makes good.
    fn strike(&self, killing: &mut Killing, begun: Instant) {
        let Some(postmaster) = self.postmaster.filter(|it| it.is_alive()) else { return };
        if postmaster.signal(Signal::STOP).is_err() {
            return;
        }
        loop {
            // Asked before the children are read: a fork under way when the signal came may still have completed.
            let stopped = !postmaster.stat().is_ok_and(|stat| stat.is_some_and(|stat| !b"TtZX".contains(&stat.state)));
            let Ok(new) = signal_children(postmaster.pid, Signal::KILL, &killing.dying) else { break };
            let is_complete = stopped && new.is_empty();
            killing.signalled += new.len() as u32;
            killing.dying.extend(new);
            if is_complete || clock::now().since(begun) >= STOP_WAIT {
                break;
            }
            if !stopped {
                sleep(LOOK_AGAIN);
            }
        }
        kill_one(postmaster, killing);
    }

    /// Stops everything, postmaster first; the number of processes, or the pids of those that did not stop within
    /// `budget`.
    pub(super) fn hold(&self, budget: Duration) -> Result<u32, Vec<i32>> {
        let begun = clock::now();
        let mut before: Option<Vec<Process>> = None;
        if let Some(postmaster) = self.postmaster.filter(|it| it.is_alive())
            && postmaster.signal(Signal::STOP).is_ok()
        {
            // Whoever is missed is found below, where that counts.
            signal_children(postmaster.pid, Signal::STOP, &BTreeMap::new()).ok();
        }
        loop {
            let members = match self.directory.members(self.postmaster) {
                Ok(members) => members,
                // Nobody is known to stand still, and what is told of that soon is a kill in time.
                Err(_) if clock::now().since(begun) >= budget.min(BLIND_MAX) => return Err(Vec::new()),
                Err(_) => {
                    before = None;
                    sleep(LOOK_AGAIN);
                    continue;
                }
            };
            if before.is_none()
                && let Some(postmaster) = self.live_postmaster(&members)
            {
                postmaster.signal(Signal::STOP).ok();
            }
            let mut moving = Vec::new();
            for member in &members {
                // Also those that stand still already: a process that waits for a disk goes on when it has what it
                // waits for, unless a stop is pending.
                member.process.signal(Signal::STOP).ok();
                if !is_still(member.process) {
                    moving.push(member.process.pid);
                }
            }
            let now: Vec<Process> = members.iter().map(|member| member.process).collect();
            if moving.is_empty() && before.as_ref() == Some(&now) {
                return Ok(u32::try_from(now.len()).unwrap_or(u32::MAX));
            }
            if clock::now().since(begun) >= budget {
                return Err(moving);
            }
            before = Some(now);
            sleep(LOOK_AGAIN);
        }
    }

    /// Continues what was held. Not without the postmaster: its children would be orphans that commit.
    pub(super) fn resume(&self) -> Result<(), String> {
        let members =
            self.directory.members(self.postmaster).map_err(|error| format!("/proc cannot be read: {error}"))?;
        if members.is_empty() {
            return Ok(());
        }
        let Some(postmaster) = self.live_postmaster(&members) else {
            return Err("the postmaster died while it was held: fire".into());
        };
        for member in members.iter().filter(|member| member.process != postmaster) {
            member.process.signal(Signal::CONT).map_err(|error| format!("{}: {error}", member.process.pid))?;
        }
        postmaster.signal(Signal::CONT).map_err(|error| format!("{}: {error}", postmaster.pid))
    }

    /// Asks the postmaster for a fast shutdown (SIGINT: walsenders drain); the postmaster, if there is one.
    pub(super) fn fast_stop(&self) -> io::Result<Option<Process>> {
        let postmaster = self.find_postmaster()?;
        if let Some(postmaster) = postmaster {
            postmaster.signal(Signal::INT)?;
        }
        Ok(postmaster)
    }

    /// The postmaster that is alive: the one we were told of, or the one that works in the directory.
    pub(super) fn find_postmaster(&self) -> io::Result<Option<Process>> {
        Ok(self.live_postmaster(&self.directory.members(self.postmaster)?))
    }

    fn live_postmaster(&self, members: &[Member]) -> Option<Process> {
        self.postmaster.filter(|it| it.is_alive()).or_else(|| self.directory.postmaster(members))
    }
}

/// Signals the children of `parent` that are not in `done`; their pidfds.
///
/// The fast way, which reads nothing of each child: a pid that is a child's after its pidfd was opened was a child's
/// when it was opened, unless all pids were used up twice in that millisecond.
fn signal_children(parent: i32, signal: Signal, done: &BTreeMap<i32, OwnedFd>) -> io::Result<BTreeMap<i32, OwnedFd>> {
    let mut opened = BTreeMap::new();
    for pid in child_pids(parent)? {
        if !done.contains_key(&pid)
            && let Some(number) = Pid::from_raw(pid)
            && let Ok(pidfd) = pidfd_open(number, PidfdFlags::empty())
        {
            opened.insert(pid, pidfd);
        }
    }
    if !opened.is_empty() {
        let still = child_pids(parent)?;
        opened.retain(|pid, pidfd| still.contains(pid) && pidfd_send_signal(pidfd, signal).is_ok());
    }
    Ok(opened)
}

fn kill_one(process: Process, killing: &mut Killing) {
    // Once is enough: nothing loses a SIGKILL. One that fails (another user's process) leaves it alive, and that is
    // what is looked at.
    if killing.dying.contains_key(&process.pid) || process.signal(Signal::KILL).is_err() {
        return;
    }
    killing.signalled += 1;
    if let Some(pidfd) = Pid::from_raw(process.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) {
        killing.dying.insert(process.pid, pidfd);
    }
}

fn is_still(process: Process) -> bool {
    process.stat().is_ok_and(|stat| stat.is_none_or(crate::processes::Stat::is_still))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use nix::libc;

    use super::*;

    /// The race: a backend that waits for a disk while everything is stopped, and commits when it has been served. The
    /// parent of a `vfork` waits in the same uninterruptible way.
    #[test]
    fn a_process_in_an_uninterruptible_wait_stands_still_after_it() {
        let root = tempfile::tempdir().unwrap();
        let mut postgres = Postgres::new(root.path());
        let flags = libc::CLONE_VFORK | libc::SIGCHLD;
        let script = format!("fork or syscall({}, {flags}, 0, 0, 0, 0); sleep 600", libc::SYS_clone);
        let mut command = Command::new("perl");
        command.args(["-e", &script]).current_dir(root.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut postmaster = command.spawn().unwrap();
        let state = |process: Process| process.stat().unwrap().map(|stat| char::from(stat.state));
        let (backend, served) = loop {
            let backend = only_child(postmaster.id().cast_signed());
            // Also an exec waits for the disk: in the wait that is meant there is a child.
            match backend.map(|backend| (backend, only_child(backend.pid))) {
                Some((backend, Some(served))) if state(backend) == Some('D') => break (backend, served),
                Some(_) | None => sleep(LOOK_AGAIN),
            }
        };
        postgres.directory.learn(backend.pid);

        assert_eq!(postgres.hold(Duration::from_secs(10)), Ok(3));
        served.signal(Signal::KILL).unwrap();
        // It is on its way out of the wait: from there into the stop and nowhere else.
        let settled = loop {
            match state(backend) {
                Some('D' | 'R') => sleep(LOOK_AGAIN),
                other => break other,
            }
        };
        backend.signal(Signal::KILL).unwrap();
        postmaster.kill().unwrap();
        postmaster.wait().unwrap();
        assert_eq!(settled, Some('T'));
    }

    fn only_child(parent: i32) -> Option<Process> {
        child_pids(parent).unwrap().first().and_then(|pid| Process::find(*pid).unwrap())
    }
}
