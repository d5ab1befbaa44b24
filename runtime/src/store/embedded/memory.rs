//! A store without a disk, for a simulated network: what it holds outlives a run of it, its time is the async runtime's,
//! and what it draws comes from a seed.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tonic::Status;
use tonic::service::Routes;

use super::engine::{Engine, Handle};
use super::service::Services;
use super::state::{Effect, State};

/// What a store holds. A clone is the same memory.
#[derive(Clone)]
pub struct Memory(Arc<Mutex<State>>);

impl Memory {
    /// An empty store of this id.
    pub fn new(store_id: u64) -> Self {
        Self(Arc::new(Mutex::new(State::new(store_id, 1))))
    }

    /// Begins a run, at the next raft term and with the full time again for every lease: the engine, which serves while
    /// it is polled, and the way to it. Must be called within a tokio runtime.
    pub fn run(&self, seed: u64) -> (impl Future<Output = ()> + Send + use<>, Running) {
        self.state().raft_term += 1;
        let (engine, handle) = Engine::in_memory(Arc::clone(&self.0), seed);
        (engine.run(), Running(handle))
    }

    /// A copy of what it holds now, as a backup is one.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.state().clone())))
    }

    /// The raft term of the run, or of the last one.
    pub fn raft_term(&self) -> u64 {
        self.state().raft_term
    }

    /// A key's value, if it is there and text, with the revision that created it and its lease.
    pub fn text(&self, key: &str) -> Option<(String, i64, i64)> {
        let state = self.state();
        let kv = state.keys.get(key.as_bytes())?;
        Some((String::from_utf8(kv.value.clone()).ok()?, kv.create_revision, kv.lease))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A way to a store that runs, as each of its members has it.
#[derive(Clone)]
pub struct Running(Handle);

impl Running {
    /// The services of one member, which clients reach at `client_url`.
    pub fn routes(&self, client_url: &str) -> Routes {
        Services::new(self.0.clone(), client_url).routes()
    }

    /// Another member becomes the leader: a new raft term, and the full time again for every lease.
    ///
    /// # Errors
    /// The run is over.
    pub async fn elect(&self) -> Result<(), Status> {
        let elect = self.0.call(|draft| {
            draft.apply(Effect::Term(draft.state.raft_term + 1));
            draft.state.restart_leases(draft.now);
            Ok(())
        });
        elect.await
    }
}
