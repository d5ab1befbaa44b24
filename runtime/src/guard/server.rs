//! The guard's loop.

mod orders;
mod time;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::Context;
use matriarch_core::id::LeaseId;
use matriarch_core::time::Instant;
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::GuardArgs;
use super::authority::Authority;
use super::connection::Connection;
use super::fence::{Killing, Postgres};
use super::pair::Pair;
use super::release::Release;
use super::startup::{Carried, Means};
use super::succession::{Inheritance, Succession};
use super::wishes;
use crate::clock::{self, Timer};
use crate::processes::Process;

/// How long a kill is pursued before it is reported as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// How much of the reason of a fence a successor is told, in characters.
const WHY_MAX: usize = 200;

/// Why the loop ended.
pub(super) enum End {
    /// The guard is not needed.
    Retired {
        /// For the log.
        why: String,
        /// Nobody starts PostgreSQL after this, so that its cgroup is not needed either.
        for_good: bool,
    },
    /// It shall execute itself anew.
    Anew(Carried),
    /// This process is a copy of the guard: its successor.
    Forked(Succession),
}

/// The agent's process, which outlives its connections.
struct Agent {
    process: Process,
    pidfd: OwnedFd,
    gid: u32,
}

/// A fence that falls.
struct Fencing {
    why: String,
    killing: Killing,
    begun: Instant,
    is_stuck_said: bool,
}

/// A fast shutdown that was asked for because the agent is dead.
struct WindDown {
    postmaster: Option<Process>,
    pidfd: Option<OwnedFd>,
}

pub(super) struct Server {
    args: GuardArgs,
    authority: Authority,
    postgres: Postgres,
    pair: Pair,
    wishes_refused: Vec<String>,
    timer: Timer,
    /// Has connected and said nothing yet.
    candidate: Option<Connection>,
    connection: Option<Connection>,
    /// The connection has said hello and is not greeted yet: what it said since. The greeting is an acknowledgement of
    /// what is armed, so a pair has to stand before it leaves.
    ungreeted: Option<Vec<Vec<u8>>>,
    agent: Option<Agent>,
    agent_gid: Option<u32>,
    /// Since when no agent lives.
    absent_since: Option<Instant>,
    fencing: Option<Fencing>,
    wind_down: Option<WindDown>,
    release: Option<Release>,
    end: Option<End>,
}

/// Who has something for us.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Listener,
    Signals,
    Timer,
    Successor,
    Candidate,
    Connection,
    Agent,
    Postmaster,
}

impl Server {
    pub(super) fn new(args: GuardArgs, carried: Carried, means: &Means) -> anyhow::Result<Self> {
        let mut this = Self {
            authority: Authority::default(),
            postgres: Postgres::new(&args.data_dir),
            pair: Pair::default(),
            wishes_refused: wishes::ask(),
            timer: Timer::new().context("timer")?,
            candidate: None,
            connection: None,
            ungreeted: None,
            agent: None,
            agent_gid: None,
            absent_since: None,
            fencing: None,
            wind_down: None,
            release: None,
            end: None,
            args,
        };
        this.restore(carried, means);
        this.rehearse();
        for wish in &this.wishes_refused {
            means.log.say(format!("refused: {wish}"));
        }
        means.log.say(format!("guarding {} (armed: {:?})", this.args.data_dir.display(), this.authority.armed()));
        Ok(this)
    }

    /// Goes on where another execution or another process was.
    fn restore(&mut self, carried: Carried, means: &Means) {
        self.absent_since = carried.absent_since();
        self.authority = carried.authority;
        self.agent_gid = carried.agent_gid;
        self.pair.restore(carried.strict, carried.successor);
        if let Some((pid, start_ticks, gid)) = carried.agent {
            self.adopt_agent(Process { pid, start_ticks }, gid);
        }
        if self.agent.is_none() && self.absent_since.is_none() {
            self.absent_since = Some(clock::now());
        }
        if let Some((pid, start_ticks)) = carried.postmaster
            && let Err(why) = self.postgres.watch(Process { pid, start_ticks })
        {
            means.log.say(format!("the postmaster is not watched any more: {why}"));
        }
        // Why there is none is the agent's to know, when it tells of its postmaster.
        self.postgres.find_cgroup(self.agent.as_ref().map(|it| it.process.pid)).ok();
        if let Some(why) = carried.fencing {
            self.begin_fence(why);
        }
        if let Some((tenure, until)) = carried.releasing {
            self.begin_release(LeaseId(tenure), Instant(until));
        }
    }

    fn rehearse(&mut self) {
        if let Err(error) = self.postgres.rehearse() {
            self.wishes_refused.push(format!("a rehearsal of the fence: {error}; is /proc mounted?"));
        }
    }

    pub(super) fn args(&self) -> &GuardArgs {
        &self.args
    }

    /// Guards until there is a reason to end.
    pub(super) fn run(&mut self, means: &Means) -> End {
        loop {
            let mut wake = self.keep_time(means);
            if let Some(end) = self.end.take() {
                return end;
            }
            // Here and nowhere else: the copy must not go on in the middle of an order or a fence.
            if self.pair.is_due(clock::now()) {
                let before = self.pair.failure().to_owned();
                match self.pair.start(&self.carry()) {
                    Ok(Some(succession)) => return End::Forked(succession),
                    Ok(None) => {
                        let pid = self.pair.successor().map_or(0, |it| it.pid);
                        means.log.say(format!("process {pid} is the successor"));
                    }
                    // Once, however often it is tried again.
                    Err(why) if why != before => {
                        means.log.say(format!("there is no successor, so nothing is armed for longer: {why}"));
                    }
                    Err(_) => {}
                }
            }
            wake = wake.into_iter().chain(self.pair.next_start()).min();
            self.greet_newcomer(means);
            self.tell_successor();
            self.timer.set(wake);
            for source in self.wait(means) {
                self.handle(source, means);
                // What an agent orders from here on would be acknowledged, and not carried.
                if self.end.is_some() {
                    break;
                }
            }
        }
    }

    fn wait(&self, means: &Means) -> Vec<Source> {
        let mut sources: Vec<(Source, BorrowedFd<'_>)> = vec![
            (Source::Listener, means.listener.as_fd()),
            (Source::Signals, means.signals.as_fd()),
            (Source::Timer, self.timer.as_fd()),
        ];
        sources.extend(self.pair.link().map(|it| (Source::Successor, it)));
        sources.extend(self.candidate.iter().map(|it| (Source::Candidate, it.as_fd())));
        // Before its death: what an agent sent while it lived is heard first.
        sources.extend(self.connection.iter().map(|it| (Source::Connection, it.as_fd())));
        sources.extend(self.agent.iter().map(|it| (Source::Agent, it.pidfd.as_fd())));
        let postmaster = self.wind_down.as_ref().and_then(|it| it.pidfd.as_ref());
        sources.extend(postmaster.map(|it| (Source::Postmaster, it.as_fd())));
        let mut fds: Vec<PollFd<'_>> =
            sources.iter().map(|(_, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(error) => {
                // An interrupted wait is a short one. Any other failure must not become a busy loop or a missed fence.
                if error != rustix::io::Errno::INTR {
                    std::thread::sleep(Duration::from_millis(1));
                }
                return Vec::new();
            }
        }
        let ready = fds.iter().zip(&sources).filter(|(fd, _)| !fd.revents().is_empty());
        ready.map(|(_, (source, _))| *source).collect()
    }

    fn handle(&mut self, source: Source, means: &Means) {
        match source {
            Source::Listener => self.accept(means),
            Source::Signals => self.take_signals(means),
            // Both only wake the loop, which reads the clock; setting the timer anew takes back that it has fired.
            Source::Timer | Source::Postmaster => {}
            Source::Successor => {
                if let Some(pid) = self.pair.hear(clock::now()) {
                    means.log.say(format!("the successor, process {pid}, is dead"));
                }
            }
            Source::Candidate => self.hear_candidate(means),
            Source::Connection => self.hear_agent(means),
            Source::Agent => self.agent_died(means),
        }
    }

    fn take_signals(&mut self, means: &Means) {
        while let Ok(Some(info)) = means.signals.read_signal() {
            let is_busy = self.fencing.is_some() || self.release.is_some();
            match Signal::try_from(info.ssi_signo.cast_signed()) {
                Ok(Signal::SIGUSR2) if !is_busy => self.end = Some(End::Anew(self.carry())),
                Ok(Signal::SIGTERM | Signal::SIGINT) if !is_busy && self.authority.armed().is_none() => {
                    let why = "asked to by a signal, and nothing is armed".into();
                    self.end = Some(End::Retired { why, for_good: false });
                }
                Ok(signal) => means.log.say(format!(
                    "{signal} of process {} is ignored (armed: {:?})",
                    info.ssi_pid,
                    self.authority.armed()
                )),
                Err(_) => {}
            }
        }
    }

    fn carry(&self) -> Carried {
        Carried {
            authority: self.authority.clone(),
            postmaster: self.postgres.watched().map(|it| (it.pid, it.start_ticks)),
            agent: self.agent.as_ref().map(|it| (it.process.pid, it.process.start_ticks, it.gid)),
            agent_gid: self.agent_gid,
            absent_since: self.absent_since.map(|since| since.0),
            strict: self.pair.is_wanted(),
            successor: self.pair.successor().map(|it| (it.pid, it.start_ticks)),
            fencing: self.fencing.as_ref().map(|it| it.why.chars().take(WHY_MAX).collect()),
            releasing: self.release.as_ref().map(|it| (it.tenure().0, it.until().0)),
        }
    }

    /// To be called before anything leaves that rests on what has changed.
    fn tell_successor(&mut self) {
        if self.pair.successor().is_some() {
            let carried = self.carry();
            self.pair.tell(&carried, clock::now());
        }
    }

    /// In a copy of the guard: lets go of everything that is the guard's, and gets what a guard wants for itself.
    pub(super) fn stand_back(&mut self) {
        self.pair.forget();
        self.postgres.forget_cgroup();
        self.candidate = None;
        self.connection = None;
        self.ungreeted = None;
        self.agent = None;
        self.fencing = None;
        self.wind_down = None;
        self.release = None;
        self.end = None;
        self.wishes_refused = wishes::ask();
        self.rehearse();
    }

    /// In the successor of a guard that is gone: from here on this is the guard.
    pub(super) fn take_over(&mut self, inheritance: Inheritance, means: &Means) {
        let Inheritance { carried, timer, why } = inheritance;
        self.timer = timer;
        // Its own successor is this process.
        self.restore(Carried { successor: None, ..carried }, means);
        means.log.say(format!("{why}; its successor is the guard now (armed: {:?})", self.authority.armed()));
    }

    /// Nothing that this guard leaves behind shall guard.
    pub(super) fn dismiss_successor(&mut self) {
        self.pair.dismiss();
    }

    pub(super) fn postgres(&mut self) -> &mut Postgres {
        &mut self.postgres
    }
}

fn open_pidfd(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}
