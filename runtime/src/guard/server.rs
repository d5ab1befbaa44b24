//! The guard's loop.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::Context;
use matriarch_core::id::LeaseId;
use matriarch_core::time::Instant;
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, geteuid, pidfd_open};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::GuardArgs;
use super::authority::Authority;
use super::connection::Connection;
use super::fence::{Killing, Postgres, Progress};
use super::processes::Process;
use super::protocol::{Hello, Order, PROTOCOL, Report};
use super::release::{Release, Step};
use super::startup::{Carried, Means};
use super::wishes;
use crate::clock;

/// How long a kill is pursued before it is reported as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// How often what is stuck is struck again.
const STRIKE_AGAIN: Duration = Duration::from_millis(50);
/// How often a postmaster that shuts down is looked at, should its pidfd not tell.
const WIND_DOWN_LOOK: Duration = Duration::from_millis(50);

/// Why the loop ended.
pub(super) enum End {
    /// The guard is not needed.
    Retired(String),
    /// It shall execute itself anew.
    Anew(Carried),
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
    wishes_refused: Vec<String>,
    timer: OwnedFd,
    /// Has connected and said nothing yet.
    candidate: Option<Connection>,
    connection: Option<Connection>,
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
    Candidate,
    Connection,
    Agent,
    Postmaster,
}

impl Server {
    pub(super) fn new(args: GuardArgs, carried: Carried, means: &Means) -> anyhow::Result<Self> {
        let absent_since = carried.absent_since();
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
            .context("timer")?;
        let mut this = Self {
            authority: carried.authority,
            postgres: Postgres::new(&args.data_dir),
            wishes_refused: wishes::ask(),
            timer,
            candidate: None,
            connection: None,
            agent: None,
            agent_gid: None,
            absent_since,
            fencing: None,
            wind_down: None,
            release: None,
            end: None,
            args,
        };
        if let Some((pid, start_ticks)) = carried.postmaster
            && let Err(why) = this.postgres.watch(Process { pid, start_ticks })
        {
            means.log.say(format!("the postmaster is not watched any more: {why}"));
        }
        if let Some((pid, start_ticks, gid)) = carried.agent {
            this.adopt_agent(Process { pid, start_ticks }, gid);
        }
        if this.agent.is_none() && this.absent_since.is_none() {
            this.absent_since = Some(clock::now());
        }
        if let Err(error) = this.postgres.rehearse() {
            this.wishes_refused.push(format!("a rehearsal of the fence: {error}; is /proc mounted?"));
        }
        for wish in &this.wishes_refused {
            means.log.say(format!("refused: {wish}"));
        }
        means.log.say(format!("guarding {} (armed: {:?})", this.args.data_dir.display(), this.authority.armed()));
        Ok(this)
    }

    pub(super) fn args(&self) -> &GuardArgs {
        &self.args
    }

    /// Guards until there is a reason to end.
    pub(super) fn run(&mut self, means: &Means) -> End {
        loop {
            let wake = self.keep_time(means);
            if let Some(end) = self.end.take() {
                return end;
            }
            self.set_timer(wake);
            for source in self.wait(means) {
                self.handle(source, means);
            }
        }
    }

    fn wait(&self, means: &Means) -> Vec<Source> {
        let mut sources: Vec<(Source, BorrowedFd<'_>)> = vec![
            (Source::Listener, means.listener.as_fd()),
            (Source::Signals, means.signals.as_fd()),
            (Source::Timer, self.timer.as_fd()),
        ];
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

    fn set_timer(&self, wake: Option<Instant>) {
        // All zeros would switch the timer off instead of firing at once.
        let nanos = wake.map_or(0, |wake| wake.0.max(1));
        let value = Timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 };
        let setting = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // Cannot fail for a timerfd and a normalised time.
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &setting).ok();
    }

    fn handle(&mut self, source: Source, means: &Means) {
        match source {
            Source::Listener => self.accept(means),
            Source::Signals => self.take_signals(means),
            // Both only wake the loop, which reads the clock; setting the timer anew takes back that it has fired.
            Source::Timer | Source::Postmaster => {}
            Source::Candidate => self.hear_candidate(means),
            Source::Connection => self.hear_agent(means),
            Source::Agent => self.agent_died(means),
        }
    }

    /// Does everything that the clock asks for; when to look again.
    fn keep_time(&mut self, means: &Means) -> Option<Instant> {
        let now = clock::now();
        if self.fencing.is_none() && self.authority.is_due(now) {
            self.begin_fence("authority has ended".into());
        }
        if self.fencing.is_some() {
            self.go_on_fencing(means);
        }
        let mut wakes: Vec<Option<Instant>> = Vec::with_capacity(4);
        wakes.push(match &self.fencing {
            Some(_) => Some(clock::now() + STRIKE_AGAIN),
            None => self.authority.armed().map(|armed| armed.at),
        });
        wakes.push(self.go_on_releasing(means));
        wakes.push(self.mind_absence(means));
        wakes.into_iter().flatten().min()
    }

    fn begin_fence(&mut self, why: String) {
        self.fencing = Some(Fencing { why, killing: Killing::default(), begun: clock::now(), is_stuck_said: false });
        self.wind_down = None;
    }

    fn go_on_fencing(&mut self, means: &Means) {
        let Some(mut fencing) = self.fencing.take() else { return };
        let budget = if fencing.is_stuck_said { Duration::ZERO } else { STUCK_AFTER };
        match self.postgres.kill(&mut fencing.killing, budget) {
            Progress::Alive(pids) => {
                if !fencing.is_stuck_said {
                    fencing.is_stuck_said = true;
                    means.log.say(format!("{}: these do not die: {pids:?}", fencing.why));
                    self.report(&Report::Stuck { pids }, means);
                }
                self.fencing = Some(fencing);
            }
            Progress::AllDead => {
                let armed = self.authority.armed();
                let fired = self.authority.fire(clock::now(), fencing.killing.processes());
                means.log.say(format!(
                    "{}: {} processes, the postmaster's signalled in {:?}, all dead in {:?}, {armed:?}",
                    fencing.why,
                    fired.processes,
                    fencing.killing.strike_took(),
                    fired.all_dead_at.since(fencing.begun),
                ));
                self.report(&Report::Fired(fired), means);
                if self.absent_since.is_some()
                    && let Some(armed) = armed
                {
                    self.begin_release(armed.tenure, armed.at);
                }
            }
        }
    }

    fn begin_release(&mut self, tenure: LeaseId, until: Instant) {
        if self.args.release_command.is_empty() {
            return;
        }
        let uid = self.args.agent_uid;
        let identity = (geteuid().is_root() && uid != 0).then(|| (uid, self.agent_gid.unwrap_or(uid)));
        self.release = Some(Release::new(&self.args.release_command, tenure, identity, until));
    }

    fn go_on_releasing(&mut self, means: &Means) -> Option<Instant> {
        match self.release.as_mut()?.step(clock::now()) {
            Step::Wait(until) => return Some(until),
            Step::Done => means.log.say("the tenure was given back".into()),
            Step::GivenUp(why) => means.log.say(format!("the tenure could not be given back and will run out: {why}")),
        }
        self.release = None;
        Some(clock::now())
    }

    /// What is to be done because no agent lives.
    fn mind_absence(&mut self, means: &Means) -> Option<Instant> {
        let grace_end = self.absent_since? + Duration::from_millis(self.args.restart_grace_ms);
        if self.fencing.is_some() || self.release.is_some() {
            return None;
        }
        let now = clock::now();
        if now < grace_end {
            return Some(grace_end);
        }
        if self.authority.armed().is_none() {
            self.end = Some(End::Retired("no agent lives and nothing is armed".into()));
            return None;
        }
        match &self.wind_down {
            None if self.authority.is_held() => {
                self.begin_fence("the agent is dead and PostgreSQL is held".into());
            }
            None => {
                means.log.say("the agent is dead: PostgreSQL is asked for a fast shutdown".into());
                // What cannot be asked now is asked again: the fence at the end of authority stands behind it.
                if let Ok(postmaster) = self.postgres.fast_stop() {
                    let pidfd = postmaster.and_then(|it| open_pidfd(it.pid));
                    self.wind_down = Some(WindDown { postmaster, pidfd });
                }
            }
            Some(wind_down) if wind_down.postmaster.is_some_and(Process::is_alive) => {}
            // Backends that their postmaster left behind are dealt with by the fence.
            Some(_) => self.begin_fence("the agent is dead and the postmaster too".into()),
        }
        let is_waiting = self.wind_down.as_ref().is_some_and(|it| it.postmaster.is_some()) || self.fencing.is_none();
        Some(if is_waiting { now + WIND_DOWN_LOOK } else { now })
    }

    fn accept(&mut self, means: &Means) {
        while let Ok((stream, _)) = means.listener.accept() {
            match Connection::accept(stream, self.args.agent_uid) {
                Ok(connection) => self.candidate = Some(connection),
                Err(error) => means.log.say(format!("a connection was refused: {error}")),
            }
        }
    }

    /// A connection counts from its hello on: one that only looks whether we are there changes nothing.
    fn hear_candidate(&mut self, means: &Means) {
        let Some(mut candidate) = self.candidate.take() else { return };
        let reading = candidate.read();
        let mut lines = reading.lines.into_iter();
        let Some(first) = lines.next() else {
            self.candidate = reading.is_open.then_some(candidate);
            return;
        };
        match serde_json::from_slice(&first) {
            Ok(Order::Hello { protocol: PROTOCOL }) => {}
            Ok(Order::Hello { protocol }) => {
                let why = format!("this guard speaks version {PROTOCOL}: send it SIGUSR2 to have it execute anew");
                candidate.send(&Report::Refused { what: format!("hello of version {protocol}"), why }).ok();
                return;
            }
            Ok(_) | Err(_) => {
                means.log.say(format!("process {} began with something else than a hello", candidate.pid));
                return;
            }
        }
        let Ok(Some(process)) = Process::find(candidate.pid) else { return };
        let by_pid = candidate.pid;
        if !self.adopt_agent(process, candidate.gid) {
            return;
        }
        self.report(&Report::Superseded { by_pid }, means);
        means.log.say(format!("process {by_pid} is the agent"));
        self.connection = Some(candidate);
        self.greet(means);
        for line in lines {
            self.obey_line(&line, means);
        }
    }

    fn adopt_agent(&mut self, process: Process, gid: u32) -> bool {
        // Looked at after the pidfd was opened: it is the process meant, or there is none.
        let Some(pidfd) = open_pidfd(process.pid).filter(|_| process.is_alive()) else { return false };
        self.agent = Some(Agent { process, pidfd, gid });
        self.agent_gid = Some(gid);
        self.absent_since = None;
        self.wind_down = None;
        true
    }

    fn greet(&mut self, means: &Means) {
        let hello = Hello {
            protocol: PROTOCOL,
            pid: std::process::id().cast_signed(),
            armed: self.authority.armed(),
            held: self.authority.is_held(),
            fencing: self.fencing.is_some(),
            fired: self.authority.last_fired(),
            wishes_refused: self.wishes_refused.clone(),
        };
        self.report(&Report::Hello(hello), means);
    }

    fn hear_agent(&mut self, means: &Means) {
        let Some(connection) = &mut self.connection else { return };
        let reading = connection.read();
        for line in reading.lines {
            self.obey_line(&line, means);
        }
        if !reading.is_open {
            self.connection = None;
        }
    }

    fn agent_died(&mut self, means: &Means) {
        let Some(agent) = self.agent.take() else { return };
        means.log.say(format!("the agent, process {}, is dead", agent.process.pid));
        // Its last words came before its end, also if they were not ready when the wait was over.
        self.hear_agent(means);
        self.connection = None;
        self.absent_since = Some(clock::now());
    }

    fn obey_line(&mut self, line: &[u8], means: &Means) {
        // Many orders may wait; none of them is obeyed after the end of authority.
        self.keep_time(means);
        let report = match serde_json::from_slice::<Order>(line) {
            Ok(order) => self.obey(order, means),
            Err(error) => Some(refused("an order", format!("it is not understood: {error}"))),
        };
        if let Some(report) = report {
            self.report(&report, means);
        }
    }

    fn obey(&mut self, order: Order, means: &Means) -> Option<Report> {
        if self.fencing.is_some() && !matches!(order, Order::Hello { .. } | Order::Postmaster { .. }) {
            // The fence's own report answers the order to fence.
            let is_fire = matches!(order, Order::Fire { .. });
            return (!is_fire)
                .then(|| refused(&format!("{order:?}"), "a fence is falling: wait for its report".into()));
        }
        let what = format!("{order:?}");
        let result = match order {
            Order::Hello { .. } => {
                self.greet(means);
                return None;
            }
            Order::Postmaster { pid, start_ticks } => {
                if self.authority.armed().is_none() {
                    self.postgres.refresh();
                }
                self.postgres.watch(Process { pid, start_ticks }).map(|()| Report::Watching { pid })
            }
            Order::Arm { tenure, at, instead_of } => {
                self.postgres.learn();
                self.arm(tenure, at, instead_of)
            }
            Order::Disarm { tenure } => self.authority.disarm(tenure).map(|()| Report::Disarmed { tenure }),
            Order::Hold => self.hold(),
            Order::Resume => self.postgres.resume().map(|()| {
                self.authority.resume();
                Report::Resumed
            }),
            Order::Fire { why } => {
                self.begin_fence(format!("the agent says: {why}"));
                self.keep_time(means);
                return None;
            }
            Order::KillOrphans => self.kill_orphans(),
            Order::Retire if self.authority.armed().is_some() => Err("a tenure is armed: disarm it first".into()),
            Order::Retire => {
                self.end = Some(End::Retired("the agent says so".into()));
                return None;
            }
        };
        Some(result.unwrap_or_else(|why| {
            means.log.say(format!("{what} refused: {why}"));
            refused(&what, why)
        }))
    }

    fn arm(&mut self, tenure: LeaseId, at: Instant, instead_of: Option<LeaseId>) -> Result<Report, String> {
        let now = clock::now();
        if self.authority.is_due(now) {
            return Err("authority has just ended: wait for the fence's report".into());
        }
        self.authority.arm(tenure, at, instead_of, now).map(Report::Armed)
    }

    fn hold(&mut self) -> Result<Report, String> {
        self.authority.hold()?;
        let begun = clock::now();
        Ok(match self.postgres.hold(self.patience()) {
            Ok(processes) => {
                let took_us = u64::try_from(clock::now().since(begun).as_micros()).unwrap_or(u64::MAX);
                Report::Held { processes, took_us }
            }
            Err(pids) => Report::Stuck { pids },
        })
    }

    fn kill_orphans(&mut self) -> Result<Report, String> {
        match self.postgres.find_postmaster() {
            Err(error) => return Err(format!("/proc cannot be read: {error}")),
            Ok(Some(postmaster)) => return Err(format!("postmaster {} is alive: stop it or fire", postmaster.pid)),
            Ok(None) => {}
        }
        let mut killing = Killing::default();
        Ok(match self.postgres.kill(&mut killing, self.patience()) {
            Progress::AllDead => Report::OrphansDead { processes: killing.processes() },
            Progress::Alive(pids) => Report::Stuck { pids },
        })
    }

    /// How long an order may take: while a tenure is armed nothing keeps us past its end, not even what does not die.
    fn patience(&self) -> Duration {
        self.authority.armed().map_or(STUCK_AFTER, |armed| clock::now().until(armed.at).min(STUCK_AFTER))
    }

    fn take_signals(&mut self, means: &Means) {
        while let Ok(Some(info)) = means.signals.read_signal() {
            let is_busy = self.fencing.is_some() || self.release.is_some();
            match Signal::try_from(info.ssi_signo.cast_signed()) {
                Ok(Signal::SIGUSR2) if !is_busy => self.end = Some(End::Anew(self.carry())),
                Ok(Signal::SIGTERM | Signal::SIGINT) if !is_busy && self.authority.armed().is_none() => {
                    self.end = Some(End::Retired("asked to by a signal, and nothing is armed".into()));
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
            absent_since: self.absent_since.map(|since| since.0),
        }
    }

    fn report(&mut self, report: &Report, means: &Means) {
        if let Some(connection) = &mut self.connection
            && let Err(error) = connection.send(report)
        {
            means.log.say(format!("the agent does not hear ({error}); its connection is closed"));
            self.connection = None;
        }
    }
}

fn open_pidfd(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

fn refused(what: &str, why: String) -> Report {
    Report::Refused { what: what.into(), why }
}
