//! Executes core's orders. Each runs as a task of its own and ends as one event; none of them decides anything.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use matriarch_core::action::{Action, PeerAction, PostgresAction};
use matriarch_core::decide::Rung;
use matriarch_core::effects::Decision;
use matriarch_core::event::{Event, HostEvent, PeerEvent, PostgresEvent, StoreEvent};
use matriarch_core::id::{Member, OpId, Timeline};
use matriarch_core::op::Outcome;
use matriarch_core::reason::Reason;
use matriarch_core::time::Instant;
use matriarch_core::view::guard::Armed;
use matriarch_core::view::postgres::{DataDir, Process};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::keys::Keys;
use super::promises::Promises;
use super::repeats::Repeats;
use super::surroundings::Surroundings;
use crate::clock::Clock;
use crate::peers::Peers;
use crate::postgres::{Allowance, Server};

/// How long the monitoring query may take.
const SQL_DEADLINE: Duration = Duration::from_secs(2);
/// How long a peer may take for its position, and for its status.
const POSITION_DEADLINE: Duration = Duration::from_millis(1000);
const STATUS_DEADLINE: Duration = Duration::from_secs(2);

/// What orders are executed with.
pub(super) struct Lanes {
    /// The keys of the cluster.
    pub(super) keys: Arc<Keys>,
    /// The local PostgreSQL.
    pub(super) postgres: Arc<dyn Server>,
    /// Small files.
    promises: Arc<dyn Promises>,
    clock: Arc<dyn Clock>,
    /// To the other agents.
    peers: Peers,
    events: mpsc::UnboundedSender<Event>,
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
        around: &Surroundings,
        peers: Peers,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        Self {
            keys,
            postgres: Arc::clone(&around.postgres),
            promises: Arc::clone(&around.promises),
            clock: Arc::clone(&around.clock),
            peers,
            events,
            running: BTreeMap::new(),
            looks: Arc::default(),
            repeats: Arc::default(),
        }
    }

    /// Whether a decision is to be kept in the journal, and whether it is to be told in the log as well.
    ///
    /// What a node does with authority is told whatever repeats: who fenced, held or promoted is what an incident is about.
    pub(super) fn is_news(&self, decision: &Decision, sentence: &str) -> (bool, bool) {
        let mut repeats = self.repeats.lock().unwrap_or_else(PoisonError::into_inner);
        let at = self.clock.now();
        // What is in the way of a start that fails every second fails with it.
        let waits = matches!(decision.reason, Reason::OrphansAlive | Reason::Observing);
        let grave = matches!(decision.rung, Rung::Fence | Rung::Isolated) && !waits
            || matches!(decision.reason, Reason::Promoting { .. } | Reason::Campaigning { .. });
        let another_turn = repeats.is_a_new_turn(sentence, at);
        let news = repeats.is_news(sentence, at) && (decision.rung != Rung::Race || another_turn);
        (grave || another_turn, grave || news)
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
        let allowance =
            under.map_or_else(Allowance::unbounded, |armed| Allowance::under(armed, Arc::clone(&self.clock)));
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
                let (repeats, clock) = (Arc::clone(&self.repeats), Arc::clone(&self.clock));
                tokio::spawn(async move {
                    let what = action.to_string();
                    let starts = matches!(action, PostgresAction::Start(_) | PostgresAction::Restart);
                    let outcome = look.postgres.carry_out(action, &allowance).await;
                    tell(&repeats, &what, &outcome, clock.now());
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
                let (promises, events) = (Arc::clone(&self.promises), self.events.clone());
                let (repeats, clock) = (Arc::clone(&self.repeats), Arc::clone(&self.clock));
                tokio::spawn(async move {
                    let what = action.to_string();
                    let outcome = promises.write(action).await;
                    tell(&repeats, &what, &outcome, clock.now());
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
        let (events, peers, clock) = (self.events.clone(), self.peers.clone(), Arc::clone(&self.clock));
        tokio::spawn(async move {
            let asked = clock.now();
            let (member, outcome) = match action {
                PeerAction::AskPosition { member, api_url, pledges, absent_at } => {
                    let outcome = peers.ask_position(&api_url, pledges, absent_at, POSITION_DEADLINE).await;
                    (member, outcome)
                }
                PeerAction::AskStatus { member, api_url } => {
                    let outcome = peers.ask_status(&api_url, STATUS_DEADLINE).await;
                    (member, outcome)
                }
                PeerAction::AwaitReplay { member, api_url, pledges, beyond, deadline } => {
                    let outcome = peers.await_replay(&api_url, pledges, beyond, deadline).await;
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
    asked: Instant,
) -> PeerEvent {
    PeerEvent::Answered { op, member, outcome, asked }
}

/// Looks at process and data directory, and tells core.
#[derive(Clone)]
pub(super) struct Look {
    postgres: Arc<dyn Server>,
    events: mpsc::UnboundedSender<Event>,
    looks: Arc<Mutex<Looks>>,
}

/// What looks know of each other. They run beside one another: one that a slow disk held up must not overwrite what a
/// later one has told.
#[derive(Default)]
struct Looks {
    begun: u64,
    told_data: u64,
    told_process: u64,
    /// The newest timeline that the running server has told: `pg_control` of a standby lags behind it.
    timeline: Timeline,
    /// The last look could not read the directory.
    unreadable: bool,
}

/// What was begun before that which was told last is old, whichever took longer. The process is told by looks at both only,
/// and what they find in the directory is as new as when they came to look there.
fn is_news(number: u64, told: &mut u64) -> bool {
    let news = number > *told;
    *told = number.max(*told);
    news
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
        let of_data = self.begin();
        let data = self.observe().await;
        self.tell((of_data, data), Some((number, process)));
    }

    /// The data directory.
    pub(super) async fn data(&self) {
        let number = self.begin();
        let data = self.observe().await;
        self.tell((number, data), None);
    }

    /// Told under the lock, so that two looks that end at once are told in their order.
    fn tell(&self, (of_data, data): (u64, DataDir), process: Option<(u64, Process)>) {
        let mut looks = self.looks();
        if is_news(of_data, &mut looks.told_data) {
            send(&self.events, Event::Postgres(PostgresEvent::DataSeen(data)));
        }
        if let Some((number, process)) = process
            && is_news(number, &mut looks.told_process)
        {
            send(&self.events, Event::Postgres(PostgresEvent::ProcessSeen(process)));
        }
    }

    /// While PostgreSQL runs nothing comes of it, and nobody would hear.
    fn tell_of_unreadable(&self, data: &DataDir) {
        let unreadable = matches!(data, DataDir::Unreadable(_));
        let before = std::mem::replace(&mut self.looks().unreadable, unreadable);
        match data {
            DataDir::Unreadable(why) if !before => tracing::warn!(%why, "the data directory cannot be looked at"),
            _ if before && !unreadable => tracing::info!("the data directory can be looked at again"),
            _ => {}
        }
    }

    async fn observe(&self) -> DataDir {
        let mut data = self.postgres.observe_data().await;
        self.tell_of_unreadable(&data);
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

    fn looks(&self) -> std::sync::MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The loop has ended: nobody is there to be told.
fn send(events: &mpsc::UnboundedSender<Event>, event: Event) {
    let _ = events.send(event);
}

/// Tells what came of an order.
fn tell<T>(repeats: &Mutex<Repeats>, what: &str, outcome: &Outcome<T>, at: Instant) {
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
    if let Some(line) = repeats.failed(what, &why, at) {
        tracing::warn!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bug: of two looks at the directory alone the one that was begun first and took longer was told last.
    #[test]
    fn what_an_overtaken_look_has_found_is_not_told() {
        let mut told = 0;
        assert_eq!(
            [2, 1, 3, 3, 5, 4].map(|number| is_news(number, &mut told)),
            [true, false, true, false, true, false]
        );
    }
}
