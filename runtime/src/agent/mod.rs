//! The agent: one loop that takes an event, asks core, and hands out all effects.

mod certificates;
pub mod counts;
pub mod feed;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod guard_link;
pub mod handle;
mod kept;
pub mod keys;
mod lanes;
pub(crate) mod namesake;
pub mod promises;
mod repeats;
pub mod run;
pub mod setup;
pub mod surroundings;
mod user;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use matriarch_core::action::{Action, Answer, GuardAction, HostAction};
use matriarch_core::effects::{Effects, Order};
use matriarch_core::event::{Event, GuardEvent, PeerEvent, PostgresEvent, StoreDone, StoreEvent};
use matriarch_core::id::{Pid, RequestId};
use matriarch_core::op::Outcome;
use matriarch_core::state::State;
use matriarch_core::view::postgres::{DataDir, Process};
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::{ApiSettings, StoreAccess};
use crate::clock::{Alarm, Clock};
use crate::config::tags::Tags;
use crate::config::{DynamicConfig, LocalConfig};
use crate::guard::{Guard, Hello, Report};
use crate::hooks::callbacks::{Callers, Teller};
use crate::postgres::Changed;
use crate::recorder::Recorder;
use crate::service::ServiceManager;
use crate::wire;
use certificates::Slots;
use counts::{Before, Counts};
use feed::{Fed, Mirror};
use guard_link::GuardLink;
use handle::{JOURNAL_MAX, Message, Shared};
use kept::Kept;
use lanes::Lanes;
use namesake::{Namesake, Verdict};
use surroundings::Reload;

/// Why the loop ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// With an exit code.
    Exit(u8),
    /// To execute itself again in place.
    Again,
}

/// What the operating system asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// SIGTERM or SIGINT: hand over, stop PostgreSQL, leave.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR2: execute again in place.
    Again,
}

/// Where events come from, beside the lanes.
pub struct Sources {
    /// Completions and observations of the lanes.
    pub events: mpsc::UnboundedReceiver<Event>,
    /// The keys of the cluster.
    pub fed: mpsc::Receiver<Fed>,
    /// The REST API.
    pub messages: mpsc::Receiver<Message>,
    /// Signals.
    pub asked: mpsc::Receiver<Asked>,
    /// Changes of PostgreSQL's files.
    pub changed: mpsc::Receiver<Changed>,
    /// Deaths of postmasters.
    pub died: mpsc::UnboundedReceiver<Pid>,
}

/// The agent.
pub struct Agent {
    shared: Arc<Mutex<Shared>>,
    clock: Arc<dyn Clock>,
    alarm: Box<dyn Alarm>,
    local: LocalConfig,
    reload: Reload,
    reloads: u64,
    reloading: Option<tokio::task::JoinHandle<Option<LocalConfig>>>,
    certificates: Slots,
    mirror: Mirror,
    lanes: Lanes,
    guard: GuardLink,
    starting_guard: Option<tokio::task::JoinHandle<std::io::Result<(Guard, Hello)>>>,
    reports: Option<mpsc::Receiver<Report>>,
    died: mpsc::UnboundedSender<Pid>,
    watched: Option<Pid>,
    answers: BTreeMap<RequestId, oneshot::Sender<Answer>>,
    next_request: u64,
    /// The text of `config`, or that there is none, once it was looked at.
    config_seen: Option<Option<String>>,
    /// The last dynamic configuration of the store that could be used.
    configured: Option<serde_json::Value>,
    kept: Kept,
    server_major: u32,
    unreachable_since: Option<matriarch_core::time::Instant>,
    namesake: Namesake,
    recorder: Recorder,
    api: Arc<watch::Sender<ApiSettings>>,
    access: StoreAccess,
    service: ServiceManager,
    teller: Teller,
    callers: Callers,
    ended: Option<Ended>,
}

impl Agent {
    /// One pass: waits for the next event, whichever source has it first, and lives through it.
    async fn turn(&mut self, sources: &mut Sources, wake: Option<matriarch_core::time::Instant>) -> Option<Effects> {
        tokio::select! {
            // What the guard and the kernel say ends authority; it is never kept waiting by the rest.
            biased;
            report = next_report(&mut self.reports) => {
                let event = report.and_then(|report| self.guard.reported(report));
                if let Some(GuardEvent::Armed(armed)) = event {
                    self.lanes.acknowledged(armed);
                }
                let wishes = self.guard.wishes_refused.clone();
                self.shared().guard_wishes_refused = wishes;
                event.map(|event| self.step(Event::Guard(event)))
            }
            Some(pid) = sources.died.recv() => {
                if self.watched == Some(pid) {
                    self.watched = None;
                }
                let look = self.lanes.look();
                tokio::spawn(async move { look.all().await });
                None
            }
            started = guard_started(&mut self.starting_guard) => {
                self.starting_guard = None;
                Some(self.guard_started(started))
            }
            Some(asked) = sources.asked.recv() => self.asked(asked),
            local = reloaded(&mut self.reloading) => {
                self.reloading = None;
                let effects = local.and_then(|local| self.reloaded(local));
                // Also where the file cannot be used: the manager waits for the end, and the log tells which it was.
                self.service.ready();
                effects
            }
            alive = self.namesake.answered() => {
                self.namesake_answered(alive);
                None
            }
            Some(event) = sources.events.recv() => {
                self.follow_postmaster(&event);
                if let Event::Store(StoreEvent::Completed {
                    outcome: Outcome::Done(StoreDone::Read(_) | StoreDone::Acquired(_)),
                    ..
                }) = &event
                {
                    self.configure_if_new();
                }
                Some(self.step(event))
            }
            Some(fed) = sources.fed.recv() => self.fed(fed),
            Some(message) = sources.messages.recv() => self.message(message),
            Some(changed) = sources.changed.recv() => {
                let look = self.lanes.look();
                // Beside the loop: a disk that hangs must not hang it.
                tokio::spawn(async move {
                    match changed {
                        Changed::PidFile => look.all().await,
                        Changed::ControlFile | Changed::DataDirCame | Changed::DataDirGone => look.data().await,
                    }
                });
                None
            }
            () = self.alarm.rings(wake) => Some(self.step(Event::Ticked(self.clock.wall()))),
        }
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One step of core.
    fn step(&mut self, event: Event) -> Effects {
        let at = self.clock.now();
        tracing::trace!(?event, "event");
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let taking = self.recorder.taking(&shared.core, at, &event);
        let before = Before::of(&shared.core, at, &event);
        self.teller.before(&shared.core, &event);
        let effects = matriarch_core::step(&mut shared.core, at, event);
        let took = self.clock.now().since(at);
        taking.taken(&shared.core);
        let Shared { core, counts, .. } = &mut *shared;
        counts.stepped(&before, core, effects.decision.as_ref(), took);
        for told in self.teller.after(&shared.core, at) {
            self.callers.call(&self.local.postgresql.hooks.callbacks, told, &self.local.scope);
        }
        if let Some(decision) = &effects.decision {
            let (rung, code, sentence) = (decision.rung.name(), decision.reason.code(), decision.reason.to_string());
            self.service.status(&format!("{rung}: {sentence}"));
            let (kept, told) = self.lanes.is_news(decision, &sentence);
            if told {
                tracing::info!(rung, code, "{sentence}");
            } else {
                tracing::debug!(rung, code, "{sentence}");
            }
            if kept {
                shared.journal.push_back((self.clock.wall(), decision.clone()));
            }
            while shared.journal.len() > JOURNAL_MAX {
                shared.journal.pop_front();
            }
        }
        if let DataDir::Cluster(cluster) = &shared.core.postgres.data {
            shared.system_identifier = Some(cluster.system_id.to_string());
        }
        self.kept.keep(&shared, self.configured.as_ref());
        effects
    }

    /// Hands all effects of a step out.
    fn hand_out(&mut self, effects: Effects) {
        // The fence first: cancelling a start waits for its fork, and that may wait for a disk.
        let (guard, others): (Vec<_>, Vec<_>) =
            effects.orders.into_iter().partition(|order| matches!(order.action, Action::Guard(_)));
        for order in guard {
            self.execute(order);
        }
        for op in effects.cancelled {
            self.lanes.cancel(op);
        }
        for order in others {
            self.execute(order);
        }
    }

    fn execute(&mut self, order: Order) {
        tracing::debug!(op = order.op.0, because = order.because.code(), action = ?order.action, "order");
        match order.action {
            Action::Guard(action) => {
                if action == GuardAction::Fire {
                    tracing::warn!("the guard is told to stop PostgreSQL: {}", order.because);
                }
                self.guard.order(&action, &order.because.to_string());
            }
            Action::Answer(id, answer) => {
                if let Some(waiting) = self.answers.remove(&id) {
                    // Whoever asked may have gone.
                    let _ = waiting.send(answer);
                }
            }
            // Core asks each second. One that takes longer to be found would never be, if each question began anew.
            Action::Host(HostAction::StartGuard) if self.starting_guard.is_some() => {}
            Action::Host(HostAction::StartGuard) => {
                self.starting_guard = Some(tokio::spawn(self.guard.find()));
            }
            Action::Host(HostAction::Exit { code, message }) => {
                if code == 0 {
                    tracing::info!("the agent leaves: {message}");
                    self.guard.retire();
                } else {
                    tracing::error!("the agent leaves: {message}");
                    anstream::eprintln!("matriarch: {message}");
                }
                self.ended = Some(Ended::Exit(code));
            }
            action => {
                let deadline = action.deadline(self.shared().core.config.retry_timeout);
                self.lanes.begin(order.op, action, order.under, deadline);
            }
        }
    }

    fn guard_started(&mut self, started: std::io::Result<(Guard, Hello)>) -> Effects {
        match started {
            Ok((guard, hello)) => {
                let event = self.guard.connected(&guard, hello);
                let wishes = self.guard.wishes_refused.clone();
                for wish in &wishes {
                    tracing::warn!("the guard does without: {wish}");
                }
                self.shared().guard_wishes_refused = wishes;
                self.reports = Some(guard.reports);
                self.step(Event::Guard(event))
            }
            Err(error) => {
                tracing::error!(%error, "the guard cannot be started");
                self.step(Event::Guard(GuardEvent::Gone))
            }
        }
    }

    /// Another node of our name answered, or nobody did.
    fn namesake_answered(&mut self, alive: bool) {
        let verdict = {
            let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            self.namesake.judge(alive, &shared.core, self.clock.now())
        };
        match verdict {
            Verdict::Alone => {}
            Verdict::Leave(why) => {
                tracing::error!("the agent leaves: {why}");
                anstream::eprintln!("matriarch: {why}");
                self.ended = Some(Ended::Exit(1));
            }
            Verdict::Stay(why) => tracing::error!("{why}; this node leads, or may be about to, and goes on"),
        }
    }

    fn asked(&mut self, asked: Asked) -> Option<Effects> {
        match asked {
            Asked::Stop => {
                tracing::info!("asked to stop");
                self.service.stopping();
                Some(self.step(Event::ShutdownAsked))
            }
            Asked::Reload => {
                self.reload();
                None
            }
            Asked::Again => {
                tracing::info!("asked to execute again in place");
                self.ended = Some(Ended::Again);
                None
            }
        }
    }

    /// Begins to read the configuration again. What is being read already may have been read too early.
    fn reload(&mut self) {
        self.service.reloading();
        self.reloading = Some(tokio::spawn((self.reload)()));
    }

    fn reloaded(&mut self, mut local: LocalConfig) -> Option<Effects> {
        tracing::info!("the configuration file was read again");
        for key in local.keep_identity(&self.local) {
            tracing::warn!("{key} was changed and stays as it was: restart the agent for it");
        }
        // Also where it says the same: a file that was moved away is left, and one that could not be opened is tried again.
        crate::logging::change(&local.log);
        self.local = local;
        self.certificates.take_in(&self.local);
        let (local, access, api) = (self.local.clone(), self.access.clone(), Arc::clone(&self.api));
        let peers = api.borrow().peers.clone();
        // Names in the allowlist are looked up: nothing waits for a name server.
        tokio::spawn(async move { api.send_replace(ApiSettings::new(&local, access, peers).await) });
        // As with Patroni, PostgreSQL reads its files again whatever has changed: what the agent does not write, a renewed
        // certificate for example, has no other way in.
        self.reloads += 1;
        self.lanes.postgres.tell_of_reload();
        self.configure()
    }

    /// The postmaster that runs now is watched by its pidfd, here and in the guard.
    fn follow_postmaster(&mut self, event: &Event) {
        let Event::Postgres(PostgresEvent::ProcessSeen(process)) = event else { return };
        match process {
            Process::Alive { pid, .. } if self.watched != Some(*pid) => {
                self.watched = Some(*pid);
                let watched = self.lanes.postgres.watch(*pid);
                self.guard.postmaster(pid.0, watched.start_ticks);
                let (died, pid) = (self.died.clone(), *pid);
                tokio::spawn(async move {
                    watched.ended.await;
                    // The loop has ended: nobody is there to be told.
                    let _ = died.send(pid);
                });
            }
            Process::Absent => {
                self.watched = None;
                self.guard.postmaster(0, 0);
            }
            Process::Alive { .. } | Process::Unknown => {}
        }
    }

    fn fed(&mut self, fed: Fed) -> Option<Effects> {
        match fed {
            Fed::View(seen) => {
                if let Some(since) = self.unreachable_since.take() {
                    let seconds = self.clock.now().since(since).as_secs();
                    tracing::info!("the store answers again after {seconds} s");
                }
                self.shared().store_last_seen_s = self.clock.wall().0 / 1000;
                self.configure_if_new();
                self.namesake.seen(&seen.value, &self.shared.lock().unwrap_or_else(PoisonError::into_inner).core);
                Some(self.step(Event::Store(StoreEvent::Watched(*seen))))
            }
            Fed::Unreachable(why) => {
                if self.unreachable_since.is_none() {
                    self.unreachable_since = Some(self.clock.now());
                    let hosts = self.local.etcd3.hosts.join(", ");
                    tracing::warn!(
                        "waiting on etcd: none of {hosts} answers ({why}); trying again: is etcd running, and is etcd3.hosts right?"
                    );
                }
                None
            }
        }
    }

    /// What the cluster is configured to do is known before anything is decided on its keys: nothing is begun in a
    /// cluster that asks to be left alone. It is known by its text: a store that was restored mints its revision again.
    fn configure_if_new(&mut self) {
        let text = self.mirror.text(wire::keys::CONFIG).map(|(text, _)| text);
        if self.config_seen.as_ref() == Some(&text) {
            return;
        }
        self.config_seen = Some(text);
        if let Some(effects) = self.configure() {
            self.hand_out(effects);
        }
    }

    /// The configurations changed: laid over each other again.
    fn configure(&mut self) -> Option<Effects> {
        let text = self.mirror.text(wire::keys::CONFIG);
        let (value, senseless) = setup::stored(text.as_ref().map(|(text, _)| text.as_str()));
        self.shared().dynamic.clone_from(&value);
        // What cannot be used does not reset what was in force, nor does a store that was wiped; a new cluster begins with its
        // bootstrap section.
        let usable = value.as_ref().map(DynamicConfig::from_json).transpose();
        let why = usable
            .as_ref()
            .err()
            .map(|why| format!("the dynamic configuration cannot be used, the old one stays: {why}"));
        let (dynamic, mut warnings) = if let Ok(Some(understood)) = usable {
            self.configured = value;
            understood
        } else {
            let old = self.configured.as_ref().unwrap_or(&self.local.bootstrap.dcs);
            let understood = DynamicConfig::from_json(old);
            understood.inspect_err(|why| tracing::error!("bootstrap.dcs cannot be used: {why}")).ok()?
        };
        warnings.extend(why.into_iter().chain(senseless));
        self.lanes.keys.set_config(self.configured.as_ref().unwrap_or(&self.local.bootstrap.dcs));
        let effective = setup::effective(&self.local, &dynamic, warnings, self.server_major);
        {
            let mut shared = self.shared();
            for warning in setup::news(&shared.configuration_warnings, &effective.warnings) {
                tracing::warn!("{warning}");
            }
            shared.configuration_warnings = effective.warnings;
            shared.tags.clone_from(&self.local.tags.published);
            shared.configured_tags.clone_from(&self.local.tags.configured);
        }
        self.lanes.keys.set_extras(setup::extras(&self.local));
        self.lanes.keys.allow_tenure(effective.core.ttl);
        // The new settings are there before the order that writes them.
        self.lanes.postgres.apply_settings(effective.settings);
        self.vet_parameters();
        let paused_before = self.shared().core.config.paused_before;
        let parameters_generation = setup::asked_again(effective.core.parameters_generation, self.reloads);
        let config = matriarch_core::config::Config { paused_before, parameters_generation, ..effective.core };
        Some(self.step(Event::Configured(config)))
    }

    fn message(&mut self, message: Message) -> Option<Effects> {
        match message {
            Message::Operator(_, answer) if !self.shared().core.admits_request() => busy(answer),
            Message::PositionAsked(_, answer) if !self.shared().core.admits_question() => busy(answer),
            Message::Operator(request, answer) => {
                let id = self.remember(answer);
                Some(self.step(Event::Operator(id, request)))
            }
            Message::PositionAsked(absent_at, answer) => {
                let request = self.remember(answer);
                Some(self.step(Event::Peer(PeerEvent::PositionAsked { request, absent_at })))
            }
            Message::Peer(event) => Some(self.step(Event::Peer(event))),
            Message::Reload => {
                self.reload();
                None
            }
            Message::Observe(done) => {
                self.lanes.observe_for(done);
                None
            }
        }
    }

    fn remember(&mut self, answer: oneshot::Sender<Answer>) -> RequestId {
        self.answers.retain(|_, waiting| !waiting.is_closed());
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.answers.insert(id, answer);
        id
    }
}

/// Too many wait already.
fn busy(answer: oneshot::Sender<Answer>) -> Option<Effects> {
    let body = "too many requests wait for an answer already; try again later".into();
    // Whoever asked may have gone.
    let _ = answer.send(Answer::Text { status: 503, body });
    None
}

/// The next report of the guard; for ever nothing while there is none.
async fn next_report(reports: &mut Option<mpsc::Receiver<Report>>) -> Option<Report> {
    match reports {
        Some(open) => {
            let report = open.recv().await;
            if report.is_none() {
                *reports = None;
            }
            report
        }
        None => std::future::pending().await,
    }
}

/// The configuration that was read again; for ever nothing while none is being read.
async fn reloaded(reloading: &mut Option<tokio::task::JoinHandle<Option<LocalConfig>>>) -> Option<LocalConfig> {
    match reloading {
        Some(task) => task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())),
        None => std::future::pending().await,
    }
}

async fn guard_started(
    starting: &mut Option<tokio::task::JoinHandle<std::io::Result<(Guard, Hello)>>>,
) -> std::io::Result<(Guard, Hello)> {
    match starting {
        Some(task) => task.await.unwrap_or_else(|error| Err(std::io::Error::other(error))),
        None => std::future::pending().await,
    }
}

/// A handle on the agent and what its loop shares.
pub fn shared(core: State, scope: &str, tags: &Tags) -> Arc<Mutex<Shared>> {
    Arc::new(Mutex::new(Shared {
        core,
        journal: VecDeque::new(),
        counts: Counts::default(),
        dynamic: None,
        tags: tags.published.clone(),
        configured_tags: tags.configured.clone(),
        scope: scope.to_owned(),
        system_identifier: None,
        store_last_seen_s: 0,
        guard_wishes_refused: Vec::new(),
        configuration_warnings: Vec::new(),
        parameter_warnings: Vec::new(),
    }))
}
