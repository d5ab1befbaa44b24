//! Facts that are fresh enough to answer with, and that nobody waits long for.
//!
//! While somebody asks after this node, PostgreSQL is asked beside the requests, one question at a time. A health check
//! is answered from what it told last, so neither a slow nor a dead one delays it; and that it has become silent is
//! known within seconds, however rare the checks are.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use matriarch_core::time::Instant as CoreInstant;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::facts::{FRESH_FOR, Facts};
use crate::agent::handle::Handle;

/// The pause between two questions, so that no answer grows older than a health check takes it.
const PAUSE: Duration = Duration::from_millis(900);
const _: () = assert!(PAUSE.as_millis() < FRESH_FOR.as_millis());
/// The pause after a question that was refused, or not answered in time: such a one is asked for with every check.
const FAILURE_PAUSE: Duration = Duration::from_millis(200);
/// How long PostgreSQL is asked on after the last request. Longer than load balancers and orchestrators let pass between
/// two checks; an agent that nobody asks after stays idle.
const VISIT: Duration = Duration::from_mins(2);

/// What keeps facts fresh.
pub(super) struct Freshness {
    handle: Handle,
    /// Somebody needs a newer answer than the last.
    wanted: Notify,
    /// When somebody was here last.
    visited: Mutex<Option<Instant>>,
    /// Since when PostgreSQL owes an answer. Changes when a question has ended.
    owing: watch::Sender<Option<Instant>>,
}

impl Freshness {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle, wanted: Notify::new(), visited: Mutex::new(None), owing: watch::Sender::new(None) }
    }

    /// Waits for facts that are `age` old at most, but no longer than until PostgreSQL has owed an answer for `limit`:
    /// while it is silent, only the first who come wait. The age of the facts decides what is told then.
    pub(super) async fn wait(&self, age: Duration, limit: Duration) {
        *self.visited.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let wanted = self.handle.clock().now().back(age);
        if !self.lack(wanted) {
            return;
        }
        let mut owing = self.owing.subscribe();
        let begin = owing.borrow_and_update().unwrap_or_else(Instant::now);
        self.wanted.notify_one();
        // The answer to a question from before may be too old: the next one is on its way then. Nothing follows a failure.
        let answered = async {
            while self.lack(wanted) && owing.changed().await.is_ok() && owing.borrow_and_update().is_none() {}
        };
        // Late is as good as never.
        let _ = timeout_at(begin + limit, answered).await;
    }

    /// Asks PostgreSQL, for ever.
    pub(super) async fn keep(&self) {
        loop {
            let visited = self.is_visited();
            if !visited {
                self.owing.send_replace(None);
            }
            tokio::select! {
                () = self.wanted.notified() => {}
                () = sleep(PAUSE), if visited => {}
            }
            self.ask().await;
        }
    }

    async fn ask(&self) {
        let asked = self.handle.clock().now();
        if !self.lack(asked) {
            // It does not run: the next one that does owes nothing.
            self.owing.send_replace(None);
            return;
        }
        self.owing.send_if_modified(|owing| {
            owing.get_or_insert_with(Instant::now);
            false
        });
        self.handle.observe().await;
        let failed = self.lack(asked);
        self.owing.send_modify(|owing| *owing = owing.filter(|_| failed));
        if failed {
            sleep(FAILURE_PAUSE).await;
        }
    }

    fn is_visited(&self) -> bool {
        let visited = *self.visited.lock().unwrap_or_else(PoisonError::into_inner);
        visited.is_some_and(|at| at.elapsed() < VISIT)
    }

    /// PostgreSQL runs, and was not asked since `wanted`.
    fn lack(&self, wanted: CoreInstant) -> bool {
        Facts::new(&self.handle.shared(), self.handle.clock().now()).lack(wanted)
    }
}
