//! Callbacks: what came to pass of PostgreSQL, told to the operator's scripts as Patroni tells it.
//!
//! [`Teller`] finds out what is to be told, from what the loop knows after each step; [`Callers`] runs the scripts
//! beside the loop. Nothing waits for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use matriarch_core::action::{Action, PostgresAction};
use matriarch_core::event::{Event, GuardEvent, PostgresDone, PostgresEvent};
use matriarch_core::id::Pid;
use matriarch_core::op::Outcome;
use matriarch_core::state::State;
use matriarch_core::time::Instant;
use matriarch_core::view::View;
use matriarch_core::view::postgres::{Phase, Process};
use tokio::sync::{mpsc, oneshot};

use super::{CommandLine, Running, Script};

/// What scripts can be told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Callback {
    /// PostgreSQL was started, or was found running.
    Start,
    /// It was stopped.
    Stop,
    /// It was stopped and started again, and that was what was wanted.
    Restart,
    /// It was told to read its configuration again.
    Reload,
    /// It has another role than before.
    RoleChange,
}

impl Callback {
    /// All.
    pub const ALL: [Self; 5] = [Self::Start, Self::Stop, Self::Restart, Self::Reload, Self::RoleChange];

    /// The name, in the configuration and as the script's argument.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "on_start",
            Self::Stop => "on_stop",
            Self::Restart => "on_restart",
            Self::Reload => "on_reload",
            Self::RoleChange => "on_role_change",
        }
    }
}

/// What PostgreSQL is, in Patroni's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It accepts writes.
    Primary,
    /// It follows.
    Replica,
    /// It was the primary and leads no more.
    Demoted,
}

impl Role {
    /// The name, as the script's argument.
    pub fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Demoted => "demoted",
        }
    }
}

/// What is known of the server after a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Server {
    /// Too little: it is starting or stopping, or was not asked since something changed.
    Unsettled,
    /// It does not run.
    Absent,
    /// It accepts connections.
    Serves { pid: Pid, role: Role },
}

/// What [`Teller`] goes by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Facts {
    server: Server,
    /// The cluster is being made: nothing is told before it is there.
    bootstrapping: bool,
    /// This node leads.
    leads: bool,
    /// It is being stopped, by us or by the guard.
    stopping: bool,
    /// It is being restarted.
    restarting: bool,
}

impl Facts {
    fn of(state: &State, at: Instant) -> Self {
        let view = View { at, state };
        let server = match state.postgres.process {
            Process::Absent => Server::Absent,
            Process::Alive { pid, phase: Phase::Ready } => match view.fresh_sql() {
                Some(sql) => Server::Serves { pid, role: if sql.in_recovery { Role::Replica } else { Role::Primary } },
                None => Server::Unsettled,
            },
            Process::Alive { .. } | Process::Unknown => Server::Unsettled,
        };
        Self {
            server,
            bootstrapping: view.unfinished_bootstrap(),
            leads: view.held().is_some(),
            stopping: matches!(view.controlling(), Some(PostgresAction::Stop(_))) || state.guard_asked.fire.is_some(),
            restarting: view.controlling() == Some(&PostgresAction::Restart),
        }
    }
}

/// Finds out what is to be told. It compares what was told last with what is: nothing depends on having seen each step
/// in between, and what came and went unseen is not told.
#[derive(Debug, Default)]
pub struct Teller {
    /// Something but a reload was told by this agent: a change of the role is one only after that, as with Patroni.
    told: bool,
    role: Option<Role>,
    running: Option<Pid>,
    stopping: bool,
    restarting: bool,
    reloaded: bool,
    /// This agent started what runs, or has told of a reload. Patroni has a server that it finds running read its
    /// configuration, whether or not that differs, and says so.
    acquainted: bool,
}

impl Teller {
    /// An event is about to be taken in.
    pub fn before(&mut self, state: &State, event: &Event) {
        match event {
            Event::Guard(GuardEvent::Fired { .. }) => self.stopping = true,
            Event::Postgres(PostgresEvent::Completed { op, outcome: Outcome::Done(done) }) => {
                let in_flight = state.ops.iter().find(|(_, in_flight)| in_flight.op == *op);
                self.reloaded |= match in_flight.map(|(_, in_flight)| &in_flight.action) {
                    Some(Action::Postgres(PostgresAction::Configure { .. } | PostgresAction::Follow(Some(_)))) => {
                        self.is_told_of(done)
                    }
                    _ => false,
                };
            }
            _ => {}
        }
    }

    /// Whether scripts hear of a configuration that was written, or of a source that was turned to.
    fn is_told_of(&mut self, done: &PostgresDone) -> bool {
        match done {
            PostgresDone::NeedsRestart => false,
            PostgresDone::Configured { changed: false, .. } => !std::mem::replace(&mut self.acquainted, true),
            _ => {
                self.acquainted = true;
                true
            }
        }
    }

    /// What a step made of it: what is to be told now, in order.
    pub fn after(&mut self, state: &State, at: Instant) -> Vec<(Callback, Role)> {
        self.news(Facts::of(state, at))
    }

    fn news(&mut self, facts: Facts) -> Vec<(Callback, Role)> {
        self.stopping |= facts.stopping;
        self.restarting |= facts.restarting;
        self.acquainted |= facts.bootstrapping || facts.server == Server::Absent;
        if facts.bootstrapping {
            self.reloaded = false;
            return Vec::new();
        }
        let told = match facts.server {
            Server::Unsettled => None,
            Server::Absent => self.absent(facts.leads),
            Server::Serves { pid, role } => self.serves(pid, role, facts),
        };
        self.told |= told.is_some();
        let reloaded = std::mem::take(&mut self.reloaded);
        let reloaded = self.role.filter(|_| reloaded && self.running.is_some()).map(|role| (Callback::Reload, role));
        told.into_iter().chain(reloaded).collect()
    }

    fn absent(&mut self, leads: bool) -> Option<(Callback, Role)> {
        let (ran, role) = (self.running.take().is_some(), self.role?);
        let stopped = ran && self.stopping && !self.restarting;
        let given_up = role == Role::Primary && !leads;
        if given_up {
            self.role = Some(Role::Demoted);
        }
        if stopped {
            return Some((Callback::Stop, role));
        }
        // It died, and this node leads no more: whoever was told of a primary here has to know. Who was told that it
        // was stopped knows.
        (given_up && !self.stopping).then_some((Callback::RoleChange, Role::Demoted))
    }

    fn serves(&mut self, pid: Pid, role: Role, facts: Facts) -> Option<(Callback, Role)> {
        let same = self.running == Some(pid);
        let (before, restarted) = (self.role, !same && self.restarting);
        // Also where what was to stop it did not.
        if !same || !(facts.stopping || facts.restarting) {
            (self.stopping, self.restarting) = (false, false);
        }
        (self.running, self.role) = (Some(pid), Some(role));
        match before {
            Some(before) if before != role && self.told => Some((Callback::RoleChange, role)),
            _ if same => None,
            _ if restarted => Some((Callback::Restart, role)),
            _ => Some((Callback::Start, role)),
        }
    }
}

/// How long an agent that leaves waits for scripts to be started. It does not wait for their end.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Runs callbacks, one at a time: the next kills the one that runs. Reloads have a place of their own, as with Patroni,
/// and disturb no other.
#[derive(Debug)]
pub struct Callers {
    changes: mpsc::UnboundedSender<Job>,
    reloads: mpsc::UnboundedSender<Job>,
}

#[derive(Debug)]
enum Job {
    Call {
        callback: Callback,
        role: Role,
        scope: String,
        command: Arc<CommandLine>,
    },
    /// To be answered when everything before it was started.
    Flush(oneshot::Sender<()>),
}

impl Callers {
    /// Callers beside the loop.
    pub fn start() -> Self {
        let place = || {
            let (jobs, out) = mpsc::unbounded_channel();
            tokio::spawn(one_at_a_time(out));
            jobs
        };
        Self { changes: place(), reloads: place() }
    }

    /// Calls the script of `callback`, if there is one.
    pub fn call(&self, commands: &BTreeMap<Callback, CommandLine>, (callback, role): (Callback, Role), scope: &str) {
        let Some(command) = commands.get(&callback) else { return };
        let place = if callback == Callback::Reload { &self.reloads } else { &self.changes };
        let command = Arc::new(command.clone());
        // Nobody takes it only if the agent is on its way out.
        let _ = place.send(Job::Call { callback, role, scope: scope.to_owned(), command });
    }

    /// Waits until everything that was called was started.
    pub async fn flush(&self) {
        let _ = tokio::time::timeout(FLUSH_LIMIT, async {
            for place in [&self.changes, &self.reloads] {
                let (done, wait) = oneshot::channel();
                if place.send(Job::Flush(done)).is_ok() {
                    let _ = wait.await;
                }
            }
        })
        .await;
    }
}

async fn one_at_a_time(mut jobs: mpsc::UnboundedReceiver<Job>) {
    let mut running: Option<(Callback, Running)> = None;
    loop {
        tokio::select! {
            biased;
            callback = ended(&mut running) => {
                tracing::debug!("{callback} has ended");
                running = None;
            }
            job = jobs.recv() => match job {
                None => return,
                Some(Job::Flush(done)) => {
                    // Whoever waited may have lost patience.
                    let _ = done.send(());
                }
                Some(Job::Call { callback, role, scope, command }) => {
                    if let Some((_, before)) = running.take() {
                        before.kill();
                    }
                    running = start(callback, role, scope, command).await.map(|started| (callback, started));
                }
            }
        }
    }
}

/// In a thread of its own: executing a program may wait for a disk.
async fn start(callback: Callback, role: Role, scope: String, command: Arc<CommandLine>) -> Option<Running> {
    let (name, program) = (callback.name(), command.program().to_owned());
    tracing::info!("{name} {} {scope}: {program} is called", role.name());
    let spawn = move || Script::new(name, &command).args([name, role.name(), &scope]).spawn();
    match tokio::task::spawn_blocking(spawn).await.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
        Ok(running) => Some(running),
        Err(error) => {
            tracing::warn!("{name}: {program} could not be started: {error}");
            None
        }
    }
}

/// The end of what runs; for ever nothing while nothing does.
async fn ended(running: &mut Option<(Callback, Running)>) -> &'static str {
    let Some((callback, running)) = running else { return std::future::pending().await };
    match running.ended().await {
        Ok(status) if status.success() => {}
        Ok(status) => tracing::warn!("{} failed ({status})", callback.name()),
        Err(error) => tracing::warn!("{} was lost: {error}", callback.name()),
    }
    callback.name()
}

#[cfg(test)]
#[path = "callbacks_tests.rs"]
mod tests;
