//! What the guard does because of the clock: the fence, a dead agent's wind-down, the release.

use std::time::Duration;

use matriarch_core::id::LeaseId;
use matriarch_core::time::Instant;
use rustix::process::geteuid;

use super::super::fence::{Killing, Progress};
use super::super::protocol::Report;
use super::super::release::{Release, Step};
use super::super::startup::Means;
use super::{End, Fencing, STUCK_AFTER, Server, WindDown, open_pidfd};
use crate::clock;
use crate::processes::Process;

/// How often what is stuck is struck again.
const STRIKE_AGAIN: Duration = Duration::from_millis(50);
/// How often a postmaster that shuts down is looked at, should its pidfd not tell.
const WIND_DOWN_LOOK: Duration = Duration::from_millis(50);

impl Server {
    /// Does everything that the clock asks for; when to look again.
    pub(super) fn keep_time(&mut self, means: &Means) -> Option<Instant> {
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

    pub(super) fn begin_fence(&mut self, why: String) {
        self.fencing = Some(Fencing { why, killing: Killing::default(), begun: clock::now(), is_stuck_said: false });
        self.wind_down = None;
        // A fence that has begun is finished, whoever is the guard then.
        self.tell_successor();
    }

    fn go_on_fencing(&mut self, means: &Means) {
        let Some(mut fencing) = self.fencing.take() else { return };
        let budget = if fencing.is_stuck_said { Duration::ZERO } else { STUCK_AFTER };
        match self.postgres.kill(&mut fencing.killing, budget) {
            Progress::Alive(pids) => {
                let is_news = !std::mem::replace(&mut fencing.is_stuck_said, true);
                if is_news {
                    means.log.say(format!("{}: these do not die: {pids:?}", fencing.why));
                }
                // Before the report: a successor that hears of no fence after the end of authority would take over.
                self.fencing = Some(fencing);
                if is_news {
                    self.report(&Report::Stuck { pids }, means);
                }
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

    pub(super) fn begin_release(&mut self, tenure: LeaseId, until: Instant) {
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
            self.end = Some(End::Retired { why: "no agent lives and nothing is armed".into(), for_good: true });
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
}
