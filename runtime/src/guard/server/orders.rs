//! What the guard does because of its agent: connections, orders, reports.

use std::time::Duration;

use matriarch_core::id::LeaseId;
use matriarch_core::time::Instant;

use super::super::connection::Connection;
use super::super::fence::{Killing, Progress};
use super::super::protocol::{Hello, Order, PROTOCOL, Report};
use super::super::startup::Means;
use super::{Agent, End, STUCK_AFTER, Server, open_pidfd};
use crate::clock;
use crate::processes::Process;

impl Server {
    pub(super) fn accept(&mut self, means: &Means) {
        while let Ok((stream, _)) = means.listener.accept() {
            match Connection::accept(stream, self.args.agent_uid) {
                Ok(connection) => self.candidate = Some(connection),
                Err(error) => means.log.say(format!("a connection was refused: {error}")),
            }
        }
    }

    /// A connection counts from its hello on: one that only looks whether we are there changes nothing.
    pub(super) fn hear_candidate(&mut self, means: &Means) {
        let Some(mut candidate) = self.candidate.take() else { return };
        let reading = candidate.read();
        let mut lines = reading.lines.into_iter();
        let Some(first) = lines.next() else {
            self.candidate = reading.is_open.then_some(candidate);
            return;
        };
        let is_strict = match serde_json::from_slice(&first) {
            Ok(Order::Hello { protocol: PROTOCOL, strict }) => strict,
            Ok(Order::Hello { protocol, .. }) => {
                let why = format!("this guard speaks version {PROTOCOL}: send it SIGUSR2 to have it execute anew");
                candidate.send(&Report::Refused { what: format!("hello of version {protocol}"), why }).ok();
                return;
            }
            Ok(_) | Err(_) => {
                means.log.say(format!("process {} began with something else than a hello", candidate.pid));
                return;
            }
        };
        let Ok(Some(process)) = Process::find(candidate.pid) else { return };
        let by_pid = candidate.pid;
        if !self.adopt_agent(process, candidate.gid) {
            return;
        }
        self.report(&Report::Superseded { by_pid }, means);
        means.log.say(format!("process {by_pid} is the agent"));
        self.connection = Some(candidate);
        self.pair.want(is_strict);
        self.ungreeted = Some(lines.collect());
    }

    /// Answers a hello, and then what came with it.
    pub(super) fn greet_newcomer(&mut self, means: &Means) {
        let Some(lines) = self.ungreeted.take() else { return };
        self.greet(means);
        self.obey_lines(lines, means);
    }

    pub(super) fn adopt_agent(&mut self, process: Process, gid: u32) -> bool {
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
            // An acknowledgement like any other.
            armed: self.authority.armed().filter(|_| self.pair.stands()),
            held: self.authority.is_held(),
            fencing: self.fencing.is_some(),
            fired: self.authority.last_fired(),
            wishes_refused: self.wishes_refused.clone(),
            strict: self.pair.is_wanted(),
        };
        self.report(&Report::Hello(hello), means);
    }

    pub(super) fn hear_agent(&mut self, means: &Means) {
        let Some(connection) = &mut self.connection else { return };
        let reading = connection.read();
        self.obey_lines(reading.lines, means);
        if !reading.is_open {
            self.connection = None;
        }
    }

    fn obey_lines(&mut self, lines: Vec<Vec<u8>>, means: &Means) {
        for line in lines {
            match &mut self.ungreeted {
                Some(later) => later.push(line),
                None => self.obey_line(&line, means),
            }
        }
    }

    pub(super) fn agent_died(&mut self, means: &Means) {
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
            Order::Hello { strict, .. } => {
                self.pair.want(strict);
                self.ungreeted = Some(Vec::new());
                return None;
            }
            Order::Postmaster { pid, start_ticks } => {
                if self.authority.armed().is_none() {
                    self.postgres.refresh();
                }
                self.postgres.watch(Process { pid, start_ticks }).map(|()| {
                    let why_no_cgroup = self.postgres.find_cgroup(self.agent.as_ref().map(|it| it.process.pid)).err();
                    Report::Watching { pid, why_no_cgroup }
                })
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
                self.end = Some(End::Retired { why: "the agent says so".into(), for_good: true });
                return None;
            }
        };
        Some(result.unwrap_or_else(|why| {
            means.log.say(format!("{what} refused: {why}"));
            refused(&what, why)
        }))
    }

    fn arm(&mut self, tenure: LeaseId, at: Instant, instead_of: Option<LeaseId>) -> Result<Report, String> {
        if !self.pair.stands() {
            return Err(format!("the guard has no successor ({}); arm again", self.pair.failure()));
        }
        let now = clock::now();
        if self.authority.is_due(now) {
            return Err("authority has just ended: wait for the fence's report".into());
        }
        let armed = self.authority.arm(tenure, at, instead_of, now)?;
        // Whoever leads now has won the key, so that nobody waits for a tenure to be given back. To start the command
        // once more could wait for the disk, and be late for the end of this one. An agent that only looks for its
        // tenure has won nothing.
        if tenure != LeaseId(0) {
            self.release = None;
        }
        Ok(Report::Armed(armed))
    }

    fn hold(&mut self) -> Result<Report, String> {
        self.authority.hold()?;
        // Before the first process stands still: a successor must know that there is something to let go on.
        self.tell_successor();
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

    /// Tells the agent, but never anything that the successor does not know.
    pub(super) fn report(&mut self, report: &Report, means: &Means) {
        self.tell_successor();
        if matches!(report, Report::Armed(_)) && !self.pair.stands() {
            // Its successor died just now, so the greeting says what is armed, when there is another.
            self.ungreeted.get_or_insert_default();
        }
        if self.ungreeted.is_some() {
            // A greeting comes first, and tells all of it.
            return;
        }
        if let Some(connection) = &mut self.connection
            && let Err(error) = connection.send(report)
        {
            means.log.say(format!("the agent does not hear ({error}); its connection is closed"));
            self.connection = None;
        }
    }
}

fn refused(what: &str, why: String) -> Report {
    Report::Refused { what: what.into(), why }
}
