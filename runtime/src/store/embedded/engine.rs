//! The one task that owns the state. Requests that wait together are tried on a draft, made durable by one fsync, and
//! only then answered: nobody hears of anything that a crash could take back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use matriarch_core::time::Instant as Moment;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::history::History;
use super::journal::{Journal, Opened};
use super::state::{Draft, State};
use super::watches::{WatchCommand, Watches};

/// Requests that wait for the engine before their senders wait.
const WAITING_MAX: usize = 1024;
/// Requests that share one fsync.
const BATCH_MAX: usize = 256;
/// A deadline missed by more than this means that the process was stopped.
const STOPPED_AFTER: Duration = Duration::from_millis(250);
/// How long a process that was stopped serves what waited in its sockets before it expires anything: among it may be
/// the keep-alives that came in the meantime.
const THAW_GRACE: Duration = Duration::from_millis(200);
/// How long an expiry that could not be written waits for the next try.
const EXPIRY_RETRY: Duration = Duration::from_secs(1);
/// Turns given to the connections before a lease expires, so that a keep-alive that is here already is read.
const TURNS_BEFORE_EXPIRY: usize = 8;

/// Something to do on the state.
pub(super) enum Command {
    Work(Box<dyn Work>),
    Watch(WatchCommand),
}

/// A request that waits for its answer. It may run twice: again on the old state if the draft could not be written.
pub(super) trait Work: Send {
    fn run(&mut self, draft: &mut Draft);
    fn refuse(&mut self, status: Status);
    fn answer(self: Box<Self>);
}

struct Job<T, F> {
    run: F,
    outcome: Result<T, Status>,
    reply: oneshot::Sender<Result<T, Status>>,
}

impl<T: Send, F: FnMut(&mut Draft) -> Result<T, Status> + Send> Work for Job<T, F> {
    fn run(&mut self, draft: &mut Draft) {
        self.outcome = (self.run)(draft);
    }

    fn refuse(&mut self, status: Status) {
        self.outcome = Err(status);
    }

    fn answer(self: Box<Self>) {
        // Whoever asked may be gone.
        drop(self.reply.send(self.outcome));
    }
}

/// A way to the engine, for the services.
#[derive(Clone)]
pub(super) struct Handle(mpsc::Sender<Command>);

impl Handle {
    /// Runs `run` on the state, and answers once what it did is durable.
    pub(super) async fn call<T, F>(&self, run: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: FnMut(&mut Draft) -> Result<T, Status> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Job { run, outcome: Err(stopping()), reply };
        self.0.send(Command::Work(Box::new(job))).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    /// Hands a command to the watches, after all requests sent before it.
    pub(super) async fn watch(&self, command: WatchCommand) -> Result<(), Status> {
        self.0.send(Command::Watch(command)).await.map_err(|_| stopping())
    }
}

fn stopping() -> Status {
    Status::unavailable("etcdserver: server stopped")
}

/// The state, its history, its disk and its watchers.
pub(super) struct Engine {
    state: State,
    history: History,
    disk: Disk,
    /// For the ids of leases.
    random: StdRng,
    watches: Watches,
    commands: mpsc::Receiver<Command>,
    epoch: Instant,
    /// Nothing expires before this.
    expire_from: Option<Instant>,
}

/// Where the state survives the engine.
enum Disk {
    Journal(Journal),
    /// In memory only: for a simulated network, where nothing may wait for a disk.
    Memory(Arc<Mutex<State>>),
}

impl Engine {
    /// An engine on a data directory.
    pub(super) fn on_disk(opened: Opened) -> (Self, Handle) {
        Self::new(Disk::Journal(opened.journal), opened.state, opened.history, rand::random())
    }

    /// An engine on what an earlier one left in memory. Those who watch from before that have to read anew.
    pub(super) fn in_memory(memory: Arc<Mutex<State>>, seed: u64) -> (Self, Handle) {
        let state = memory.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let history = History::after(state.revision);
        Self::new(Disk::Memory(memory), state, history, seed)
    }

    fn new(disk: Disk, state: State, history: History, seed: u64) -> (Self, Handle) {
        let (sender, commands) = mpsc::channel(WAITING_MAX);
        let (watches, epoch) = (Watches::default(), Instant::now());
        let random = StdRng::seed_from_u64(seed);
        let mut engine = Self { state, history, disk, random, watches, commands, epoch, expire_from: None };
        let now = engine.now();
        engine.state.restart_leases(now);
        (engine, Handle(sender))
    }

    /// Serves until every handle is gone. May be dropped at any await: what was answered is durable.
    pub(super) async fn run(mut self) {
        loop {
            let wake = self.next_expiry();
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.batch(command),
                    None => return,
                },
                () = sleep_until(wake.unwrap_or(self.epoch)), if wake.is_some() => self.expire().await,
            }
        }
    }

    /// The engine's own time: since it began, on the timers' clock, so that nothing is ever early by a difference
    /// between two clocks.
    fn now(&self) -> Moment {
        Moment::ZERO + self.epoch.elapsed()
    }

    /// When the next lease is to expire.
    fn next_expiry(&self) -> Option<Instant> {
        let deadline = self.epoch + self.state.earliest_deadline()?.since(Moment::ZERO);
        Some(self.expire_from.map_or(deadline, |from| from.max(deadline)))
    }

    /// Takes what waits, up to a watch command, and answers it with one fsync.
    fn batch(&mut self, first: Command) {
        let mut works = Vec::new();
        let mut next = Some(first);
        while let Some(command) = next.take() {
            match command {
                Command::Work(work) => works.push(work),
                Command::Watch(command) => {
                    self.commit(std::mem::take(&mut works));
                    self.watches.command(command, &self.state, &mut self.history);
                }
            }
            if works.len() < BATCH_MAX {
                next = self.commands.try_recv().ok();
            }
        }
        self.commit(works);
    }

    fn commit(&mut self, mut works: Vec<Box<dyn Work>>) {
        if works.is_empty() {
            return;
        }
        let mut draft = self.draft();
        for work in &mut works {
            work.run(&mut draft);
        }
        if let Err(status) = self.adopt(draft) {
            for work in &mut works {
                let mut alone = self.draft();
                work.run(&mut alone);
                if alone.effects.is_empty() {
                    self.state = alone.state;
                } else {
                    work.refuse(status.clone());
                }
            }
        }
        for work in works {
            work.answer();
        }
    }

    fn draft(&mut self) -> Draft {
        Draft::new(self.state.clone(), self.now(), self.random.random())
    }

    /// Makes a draft durable and real, and tells the watchers.
    fn adopt(&mut self, draft: Draft) -> Result<(), Status> {
        if let Disk::Journal(journal) = &mut self.disk
            && !draft.effects.is_empty()
            && let Err(error) = journal.commit(&self.state, &draft.effects)
        {
            tracing::error!("{error:#}");
            return Err(Status::unavailable(format!("etcdserver: {error:#}")));
        }
        assert!(draft.state.revision >= self.state.revision, "revisions never go back");
        self.state = draft.state;
        match &mut self.disk {
            Disk::Journal(journal) => journal.fold_if_large(&self.state),
            Disk::Memory(memory) => {
                memory.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&self.state);
            }
        }
        self.watches.publish(&draft.events, &self.state);
        self.history.extend(draft.events);
        Ok(())
    }

    /// Expires what is due, unless the process was just stopped and continued.
    async fn expire(&mut self) {
        let missed = self.next_expiry().map(|due| due.elapsed());
        if let Some(missed) = missed.filter(|missed| *missed > STOPPED_AFTER) {
            tracing::warn!(
                "a lease's end was missed by {missed:?}: this process was stopped; serving what waits first"
            );
            self.expire_from = Some(Instant::now() + THAW_GRACE);
            return;
        }
        for _ in 0..TURNS_BEFORE_EXPIRY {
            yield_now().await;
            if let Ok(command) = self.commands.try_recv() {
                self.batch(command);
            }
        }
        self.expire_from = None;
        let mut draft = self.draft();
        for lease in self.state.expired(draft.now) {
            // It is there: the state was just asked.
            drop(draft.revoke(lease));
        }
        if !draft.effects.is_empty() && self.adopt(draft).is_err() {
            self.expire_from = Some(Instant::now() + EXPIRY_RETRY);
        }
    }
}

#[cfg(test)]
mod tests {
    use etcd_client::proto::{PbPutRequest, PbRangeRequest};
    use tokio::time::sleep;
    use tonic::Code;

    use super::super::query;
    use super::super::state::Effect;
    use super::*;

    /// The whole process stands still, as under SIGSTOP, and goes on after the lease's end.
    async fn stand_still(handle: &Handle, time: Duration) {
        let stop = handle.call(move |_| {
            std::thread::sleep(time);
            Ok(())
        });
        stop.await.unwrap();
    }

    #[tokio::test]
    async fn after_a_thaw_a_keep_alive_comes_in_time_and_without_one_the_lease_ends() {
        let (engine, handle) = Engine::in_memory(Arc::new(Mutex::new(State::new(1, 1))), 1);
        tokio::spawn(engine.run());
        let (lease, _) = handle.call(|draft| draft.grant(0, 1)).await.unwrap();
        stand_still(&handle, Duration::from_millis(1500)).await;
        // Not among what waited, but within the grace.
        sleep(THAW_GRACE / 4).await;
        assert_eq!(handle.call(move |draft| Ok(draft.keep_alive(lease))).await.unwrap(), 1);

        stand_still(&handle, Duration::from_millis(1500)).await;
        let gone = async {
            while handle.call(move |draft| Ok(draft.state.leases.contains_key(&lease))).await.unwrap() {
                sleep(THAW_GRACE / 4).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the lease ends");
    }

    #[tokio::test]
    async fn a_full_disk_refuses_writes_and_goes_on_serving_reads_and_keep_alives() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = Journal::open(dir.path(), Moment::ZERO).unwrap();
        let lease = Effect::Grant { id: 7, ttl_seconds: 60 };
        opened.journal.commit(&opened.state, std::slice::from_ref(&lease)).unwrap();
        opened.state.apply(&lease, Moment::ZERO);
        opened.journal.fill_disk().unwrap();
        let (engine, handle) = Engine::on_disk(opened);
        tokio::spawn(engine.run());

        let put = PbPutRequest { key: "a".into(), ..PbPutRequest::default() };
        let read = PbRangeRequest { key: "a".into(), ..PbRangeRequest::default() };
        // All three in one batch: the read and the keep-alive share the draft that could not be written.
        let (written, seen, kept) = tokio::join!(
            handle.call(move |draft| query::put(draft, put.clone())),
            handle.call(move |draft| query::range(&draft.state, &read)),
            handle.call(|draft| Ok(draft.keep_alive(7))),
        );
        let refused = written.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(refused.message().contains("nothing was changed"), "{refused}");
        assert_eq!(seen.unwrap().count, 0, "nobody reads what was not written");
        assert_eq!(kept.unwrap(), 60);
    }
}
