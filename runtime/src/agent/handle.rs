//! What the REST API may see and ask of the agent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use matriarch_core::action::Answer;
use matriarch_core::effects::Decision;
use matriarch_core::event::{PeerEvent, Request};
use matriarch_core::id::Revision;
use matriarch_core::state::State;
use matriarch_core::time::WallMillis;
use tokio::sync::{mpsc, oneshot};

use super::counts::Counts;
use crate::clock::Clock;

/// The most decisions that are kept for `/why`.
pub const JOURNAL_MAX: usize = 200;

/// What the agent's loop shares with the REST API: core's state after the last step, and what surrounds it.
#[derive(Debug)]
pub struct Shared {
    /// Core's state. Authority in it is to be compared with the clock each time it is read.
    pub core: State,
    /// The last decisions that differed from the one before, newest last; a race
    /// that is run again and again is there as often as in the log.
    pub journal: VecDeque<(WallMillis, Decision)>,
    /// What the metrics count.
    pub counts: Counts,
    /// The dynamic configuration as it is in the store, verbatim; `None`: absent or not an object.
    pub dynamic: Option<serde_json::Value>,
    /// The tags of this node as published (effective, falsy ones dropped).
    pub tags: serde_json::Map<String, serde_json::Value>,
    /// The tags of this node as configured: what `tag_` filters of health checks compare with.
    pub configured_tags: serde_json::Map<String, serde_json::Value>,
    /// `scope`.
    pub scope: String,
    /// The database system identifier, once known.
    pub system_identifier: Option<String>,
    /// When the store last answered, seconds since the Unix epoch; 0 = never.
    pub store_last_seen_s: i64,
    /// What the guard could not get of what it wants (real-time priority, locked memory, ...).
    pub guard_wishes_refused: Vec<String>,
    /// The dynamic configuration was adjusted, or something in it is ignored: in words.
    pub configuration_warnings: Vec<String>,
    /// What PostgreSQL would refuse of its parameters: in words.
    pub parameter_warnings: Vec<String>,
}

/// What reaches the agent's loop from the REST API.
#[derive(Debug)]
pub enum Message {
    /// An operator's request, to be answered once.
    Operator(Request, oneshot::Sender<Answer>),
    /// A peer asks for our pledged position.
    PositionAsked(Revision, oneshot::Sender<Answer>),
    /// Something that a peer told.
    Peer(PeerEvent),
    /// `POST /reload`, or SIGHUP: read the configuration file again.
    Reload,
    /// Ask PostgreSQL now; the facts are fresh when the sender is answered (or the deadline has passed).
    Observe(oneshot::Sender<()>),
}

/// A handle on the running agent.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Mutex<Shared>>,
    messages: mpsc::Sender<Message>,
    clock: Arc<dyn Clock>,
}

impl Handle {
    /// A handle on what the loop shares, the channel that the loop reads, and its clock.
    pub fn new(shared: Arc<Mutex<Shared>>, messages: mpsc::Sender<Message>, clock: Arc<dyn Clock>) -> Self {
        Self { shared, messages, clock }
    }

    /// The clock that the agent lives by.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// What the loop shares. Held for a moment only, never across an await.
    pub fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an operator's request to core and waits for its answer; `None`: the agent is leaving.
    pub async fn ask(&self, request: Request) -> Option<Answer> {
        let (answer, answered) = oneshot::channel();
        self.messages.send(Message::Operator(request, answer)).await.ok()?;
        answered.await.ok()
    }

    /// Puts a peer's question for our pledged position to core; `None`: the agent is leaving.
    pub async fn position(&self, absent_at: Revision) -> Option<Answer> {
        let (answer, answered) = oneshot::channel();
        self.messages.send(Message::PositionAsked(absent_at, answer)).await.ok()?;
        answered.await.ok()
    }

    /// Passes on what a peer told, or a reload.
    pub async fn tell(&self, message: Message) {
        // A closed channel means that the agent is leaving: nobody is there to be told.
        let _ = self.messages.send(message).await;
    }

    /// Has PostgreSQL asked now.
    pub async fn observe(&self) {
        let (done, observed) = oneshot::channel();
        self.tell(Message::Observe(done)).await;
        let _ = observed.await;
    }
}
