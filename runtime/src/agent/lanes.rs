//! Executes core's orders. Each runs as a task of its own and ends as one event; none of them decides anything.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use matriarch_core::action::{Action, HostAction, PeerAction, PostgresAction};
use matriarch_core::event::{Event, HostEvent, PeerEvent, PostgresDone, PostgresEvent, StoreEvent};
use matriarch_core::id::{Member, OpId, Timeline};
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::view::guard::Armed;
use matriarch_core::view::postgres::{DataDir, Process, Upstream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::keys::Keys;
use super::promises::Promises;
use super::repeats::Repeats;
use super::setup::STOP_LIMIT;
use crate::aside::Changes;
use crate::clock;
use crate::peers;
use crate::postgres::{Allowance, Divergence, Followed, Postgres};

/// How long the monitoring query may take.
const SQL_DEADLINE: Duration = Duration::from_secs(2);
/// How long a checkpoint before a stop may take: it only makes the stop shorter.
const CHECKPOINT_DEADLINE: Duration = Duration::from_secs(300);
/// How long the WAL receiver may take to end.
const FREEZE_DEADLINE: Duration = Duration::from_millis(500);
/// How long a peer may take for its position, and for its status.
const POSITION_DEADLINE: Duration = Duration::from_millis(1000);
const STATUS_DEADLINE: Duration = Duration::from_secs(2);

/// What orders are executed with.
pub(super) struct Lanes {
    /// The keys of the cluster.
    pub(super) keys: Arc<Keys>,
    /// The local PostgreSQL.
    pub(super) postgres: Arc<Postgres>,
    /// Small files.
    pub(super) promises: Promises,
    events: mpsc::UnboundedSender<Event>,
    /// Writes of the small files.
    writes: Arc<Changes>,
    running: BTreeMap<OpId, Running>,
    looks: Arc<Mutex<Looks>>,
    /// What fails again and again.
    repeats: Arc<Mutex<Repeats>>,
}

/// An operation that is being carried out.
struct Running {
    task: AbortHandle,
    allowance: Allowance,
}

impl Lanes {
    /// Lanes that end in `events`. The channel is bounded by what core has in flight: one operation a lane.
    pub(super) fn new(
        keys: Arc<Keys>,
        postgres: Arc<Postgres>,
        promises: Promises,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        let looks = Arc::default();
        let (writes, repeats) = (Arc::default(), Arc::default());
        Self { keys, postgres, promises, events, writes, running: BTreeMap::new(), looks, repeats }
    }

    /// Whether a decision is to be told.
    pub(super) fn is_news(&self, decision: &str) -> bool {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner).is_news(decision, clock::now())
    }

    /// Stops an operation that lost its lane. Its tool is killed; a server that was started or signalled stays so.
    ///
    /// A start writes its files beside the loop, and that goes on. When this returns it has forked, and the postmaster
    /// is there for whoever stops it or looks for it; or it never will. Otherwise the stop that takes its place, and
    /// the guard that counts what lives, would both find nothing before it comes.
    pub(super) fn cancel(&mut self, op: OpId) {
        if let Some(running) = self.running.remove(&op) {
            running.allowance.withdraw();
            running.task.abort();
        }
    }

    /// The agent leaves: nothing is forked any more.
    pub(super) fn withdraw_all(&self) {
        for running in self.running.values() {
            running.allowance.withdraw();
        }
    }

    /// The guard has acknowledged: what is under way for the same tenure may take so long.
    pub(super) fn acknowledged(&self, armed: Armed) {
        for running in self.running.values() {
            running.allowance.prolong(armed);
        }
    }

    /// Begins an operation; one that makes PostgreSQL writable `under` the promise of the guard.
    pub(super) fn begin(&mut self, op: OpId, action: Action, under: Option<Armed>, deadline: Duration) {
        self.running.retain(|_, running| !running.task.is_finished());
        let allowance = under.map_or_else(Allowance::unbounded, Allowance::under);
        let task = match action {
            Action::Store(action) => {
                let (keys, events) = (Arc::clone(&self.keys), self.events.clone());
                tokio::spawn(async move {
                    let (outcome, asked) = keys.execute(action, deadline).await;
                    send(&events, Event::Store(StoreEvent::Completed { op, outcome, asked }));
                })
            }
            Action::Postgres(PostgresAction::Observe) => self.observe(op, None),
            Action::Postgres(PostgresAction::Look) => {
                let look = self.look();
                let events = self.events.clone();
                tokio::spawn(async move {
                    look.all().await;
                    send(&events, Event::Postgres(PostgresEvent::Answered { op, sql: None }));
                })
            }
            Action::Postgres(action) => {
                let (look, events, allowance) = (self.look(), self.events.clone(), allowance.clone());
                let repeats = Arc::clone(&self.repeats);
                tokio::spawn(async move {
                    let what = action.to_string();
                    let starts = matches!(action, PostgresAction::Start(_) | PostgresAction::Restart);
                    let outcome = control(&look.postgres, action, &allowance).await;
                    tell(&repeats, &what, &outcome);
                    if starts && matches!(outcome, Outcome::Refused(_)) {
                        // For the next attempt, if the program is another one: this one is over, and nothing waits.
                        let postgres = Arc::clone(&look.postgres);
                        tokio::spawn(async move { postgres.vet_parameters().await });
                    }
                    // The facts first: the next decision is made with the completion, and must see what it brought.
                    look.all().await;
                    send(&events, Event::Postgres(PostgresEvent::Completed { op, outcome }));
                })
            }
            Action::Host(action) => {
                let (promises, events) = (self.promises.clone(), self.events.clone());
                let (writes, repeats) = (Arc::clone(&self.writes), Arc::clone(&self.repeats));
                tokio::spawn(async move {
                    let what = action.to_string();
                    // In turn: a write that hung must not land over a later one.
                    let outcome = writes.make(move || write(&promises, &action)).await;
                    tell(&repeats, &what, &outcome);
                    send(&events, Event::Host(HostEvent::Completed { op, outcome }));
                })
            }
            Action::Peer(action) => self.ask(op, action),
            Action::Guard(_) | Action::Answer(..) => return,
        };
        self.running.insert(op, Running { task: task.abort_handle(), allowance });
    }

    /// Has PostgreSQL asked outside any operation, for a health check that wants fresh facts.
    pub(super) fn observe_for(&self, done: tokio::sync::oneshot::Sender<()>) {
        drop(self.observe(OpId::UNASKED, Some(done)));
    }

    fn observe(&self, op: OpId, done: Option<tokio::sync::oneshot::Sender<()>>) -> tokio::task::JoinHandle<()> {
        let (look, events) = (self.look(), self.events.clone());
        tokio::spawn(async move {
            let sql = match look.postgres.observe_sql(SQL_DEADLINE).await {
                Ok(seen) => {
                    look.on_timeline(seen.value.timeline).await;
                    Some(seen)
                }
                Err(failure) => {
                    tracing::debug!(%failure, "PostgreSQL does not answer");
                    look.all().await;
                    None
                }
            };
            send(&events, Event::Postgres(PostgresEvent::Answered { op, sql }));
            if let Some(done) = done {
                // The loop takes the facts in before it takes the next message: whoever waits sees them.
                tokio::task::yield_now().await;
                let _ = done.send(());
            }
        })
    }

    fn ask(&self, op: OpId, action: PeerAction) -> tokio::task::JoinHandle<()> {
        let events = self.events.clone();
        tokio::spawn(async move {
            let asked = clock::now();
            let (member, outcome) = match action {
                PeerAction::AskPosition { member, api_url, pledges, absent_at } => {
                    let outcome = peers::ask_position(&api_url, pledges, absent_at, POSITION_DEADLINE).await;
                    (member, outcome)
                }
                PeerAction::AskStatus { member, api_url } => {
                    let outcome = peers::ask_status(&api_url, STATUS_DEADLINE).await;
                    (member, outcome)
                }
                PeerAction::AwaitReplay { member, api_url, pledges, beyond, deadline } => {
                    let outcome = peers::await_replay(&api_url, pledges, beyond, deadline).await;
                    (member, outcome)
                }
            };
            send(&events, Event::Peer(answered(op, member, outcome, asked)));
        })
    }

    /// A way to look at PostgreSQL and tell what is seen.
    pub(super) fn look(&self) -> Look {
        Look { postgres: Arc::clone(&self.postgres), events: self.events.clone(), looks: Arc::clone(&self.looks) }
    }
}

fn answered(
    op: OpId,
    member: Member,
    outcome: Outcome<matriarch_core::view::peers::PeerAnswer>,
    asked: matriarch_core::time::Instant,
) -> PeerEvent {
    PeerEvent::Answered { op, member, outcome, asked }
}

/// Looks at process and data directory, and tells core.
#[derive(Clone)]
pub(super) struct Look {
    postgres: Arc<Postgres>,
    events: mpsc::UnboundedSender<Event>,
    looks: Arc<Mutex<Looks>>,
}

/// What looks know of each other. They run beside one another: one that a slow disk held up must not overwrite what a
/// later one has told.
#[derive(Default)]
struct Looks {
    begun: u64,
    told: u64,
    /// The newest timeline that the running server has told: `pg_control` of a standby lags behind it.
    timeline: Timeline,
}

impl Look {
    /// Both. The directory is looked at after the process and told before it: what a postmaster was started as stands
    /// in the directory before it runs, and core must not take a new standby for a primary, however briefly.
    pub(super) async fn all(&self) {
        let number = self.begin();
        let process = self.postgres.observe_postmaster().await;
        if process == Process::Absent {
            self.looks().timeline = Timeline(0);
        }
        let data = self.observe().await;
        if self.is_newest(number) {
            send(&self.events, Event::Postgres(PostgresEvent::DataSeen(data)));
            send(&self.events, Event::Postgres(PostgresEvent::ProcessSeen(process)));
        }
    }

    /// The data directory.
    pub(super) async fn data(&self) {
        let number = self.begin();
        let data = self.observe().await;
        // The process is told by looks at both only: this one may not make an older one of those forget it.
        if number > self.looks().told {
            send(&self.events, Event::Postgres(PostgresEvent::DataSeen(data)));
        }
    }

    async fn observe(&self) -> DataDir {
        let mut data = self.postgres.observe_data().await;
        let newest = self.looks().timeline;
        if let DataDir::Cluster(cluster) = &mut data
            && newest > cluster.history.timeline
        {
            cluster.history = self.postgres.history(newest).await;
        }
        data
    }

    /// The server has told its timeline: a standby that followed its leader onto a new one has a new history.
    async fn on_timeline(&self, timeline: Timeline) {
        let newer = {
            let mut looks = self.looks();
            let newer = timeline > looks.timeline;
            looks.timeline = timeline.max(looks.timeline);
            newer
        };
        if newer {
            self.data().await;
        }
    }

    fn begin(&self) -> u64 {
        let mut looks = self.looks();
        looks.begun += 1;
        looks.begun
    }

    fn is_newest(&self, number: u64) -> bool {
        let mut looks = self.looks();
        let newest = number > looks.told;
        looks.told = looks.told.max(number);
        newest
    }

    fn looks(&self) -> std::sync::MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The loop has ended: nobody is there to be told.
fn send(events: &mpsc::UnboundedSender<Event>, event: Event) {
    let _ = events.send(event);
}

fn write(promises: &Promises, action: &HostAction) -> Outcome<()> {
    let written = match action {
        HostAction::WriteEpoch(file) => promises.write_epoch(file),
        HostAction::WritePledge(absent_at) => promises.write_pledge(*absent_at),
        HostAction::StartGuard | HostAction::Exit { .. } => Ok(()),
    };
    match written {
        Ok(()) => Outcome::Done(()),
        Err(error) => Outcome::Unknown(format!("the state directory: {error}")),
    }
}

/// A line of a tool, for the operator.
fn progress(line: &str) {
    tracing::debug!(tool = line);
}

async fn control(postgres: &Postgres, action: PostgresAction, allowance: &Allowance) -> Outcome<PostgresDone> {
    match action {
        PostgresAction::Observe | PostgresAction::Look => Outcome::Done(PostgresDone::Done),
        PostgresAction::Initdb => match postgres.port_taken().await {
            Some(why) => Outcome::Refused(Refusal::Failed(why)),
            None => done(postgres.initdb(&progress).await),
        },
        PostgresAction::CreateRoles => done(postgres.post_bootstrap().await),
        PostgresAction::Clone(upstream) => clone(postgres, &upstream).await,
        PostgresAction::Start(how) => done(postgres.start(how, allowance).await),
        PostgresAction::Stop(mode) => done(postgres.stop(mode, STOP_LIMIT).await),
        PostgresAction::Restart => done(postgres.restart(STOP_LIMIT, allowance).await),
        PostgresAction::Promote { timeline } => postgres.promote(timeline, allowance).await.map(|_| PostgresDone::Done),
        PostgresAction::Follow(upstream) => postgres.follow(upstream.as_ref()).await.map(|followed| match followed {
            Followed::Done => PostgresDone::Done,
            Followed::NeedsRestart(parameter) => {
                tracing::info!(parameter, "PostgreSQL needs a restart for it");
                PostgresDone::NeedsRestart
            }
        }),
        PostgresAction::Freeze => done(postgres.freeze(FREEZE_DEADLINE).await),
        PostgresAction::Checkpoint => done(postgres.checkpoint(CHECKPOINT_DEADLINE).await),
        PostgresAction::Compare(upstream) => match postgres.divergence(&upstream).await {
            Divergence::None => Outcome::Done(PostgresDone::Compared(None)),
            Divergence::Diverged { at } => Outcome::Done(PostgresDone::Compared(Some(at))),
            Divergence::Unknown(why) => Outcome::Unknown(why),
        },
        PostgresAction::RecoverSingleUser => done(postgres.crash_recover(&progress).await),
        PostgresAction::Rewind(upstream) => done(postgres.rewind(&upstream, &progress).await),
        PostgresAction::Configure { generation } => {
            postgres.reload_configuration().await.map(|_| PostgresDone::Configured { generation })
        }
        PostgresAction::CreateSlot(name) => done(postgres.create_slot(&name).await),
        PostgresAction::DropSlot(name) => done(postgres.drop_slot(&name).await),
    }
}

/// Tells what came of an order.
fn tell<T>(repeats: &Mutex<Repeats>, what: &str, outcome: &Outcome<T>) {
    let mut repeats = repeats.lock().unwrap_or_else(PoisonError::into_inner);
    let why = match outcome {
        Outcome::Done(_) => match repeats.done(what) {
            Some(line) => return tracing::info!("{line}"),
            None => return tracing::debug!(order = what, "done"),
        },
        // As text: as a field, the lines of a tool would run together with `\n` between them.
        Outcome::Refused(why) => format!("could not {what}: {why}"),
        Outcome::Unknown(why) => format!("could not {what}, or not yet: {why}"),
    };
    if let Some(line) = repeats.failed(what, &why, clock::now()) {
        tracing::warn!("{line}");
    }
}

fn done<T>(outcome: Outcome<T>) -> Outcome<PostgresDone> {
    outcome.map(|_| PostgresDone::Done)
}

/// What is in the data directory goes first; core has decided that it may.
async fn clone(postgres: &Postgres, upstream: &Upstream) -> Outcome<PostgresDone> {
    if let Some(why) = postgres.port_taken().await {
        return Outcome::Refused(Refusal::Failed(why));
    }
    let room = match postgres.observe_data().await {
        DataDir::Empty => Outcome::Done(()),
        // What is here may be the last copy: it goes only while the one to be copied answers as the same cluster.
        _ if let Err(why) = postgres.is_served_by(upstream).await => {
            return Outcome::Refused(Refusal::Failed(format!("the data directory is kept: {why}")));
        }
        _ => postgres.wipe_data_dir("it is cloned again").await,
    };
    match room {
        Outcome::Done(()) => done(postgres.clone_from(upstream, &progress).await),
        other => done(other),
    }
}
