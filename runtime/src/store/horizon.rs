//! What the store's answers are worth, as `core` decides it, under a lock and with a word to the operator.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use etcd_client::ResponseHeader;
use matriarch_core::horizon::{self, Floor, News, Standing};
use matriarch_core::id::{Revision, StoreId};
use matriarch_core::time::Instant;

use super::member::Fault;

/// What `head` tells of the store.
pub(super) fn standing(head: &ResponseHeader) -> Standing {
    Standing { store_id: StoreId(head.cluster_id()), raft_term: head.raft_term(), revision: Revision(head.revision()) }
}

/// How far the store has come, as all requests of a connection know it. Members go by their host.
#[derive(Default)]
pub(super) struct Horizon(Mutex<horizon::Horizon<String>>);

impl Horizon {
    /// The floor for a request that is sent now.
    pub(super) fn floor(&self) -> Floor {
        self.locked().floor()
    }

    /// The store that answered last, 0 if none did yet.
    pub(super) fn store_id(&self) -> StoreId {
        self.floor().standing.store_id
    }

    /// See [`horizon::Horizon::allow_tenure`].
    pub(super) fn allow_tenure(&self, ttl: Duration) {
        self.locked().allow_tenure(ttl);
    }

    /// Takes in what a linearizable answer of `host` told, to a request that was sent when `sent` was the floor; how often
    /// the store went back until then.
    pub(super) fn admit(&self, sent: Floor, told: Standing, host: &str, now: Instant) -> Result<u64, Fault> {
        let judged = self.locked().admit(sent, told, host.to_owned(), now);
        let (revision, raft_term) = (told.revision.0, told.raft_term);
        match judged.news {
            Some(News::Past(patience)) => tracing::warn!(
                host,
                revision,
                raft_term,
                "the store answers from the past: was it restored from a backup? If nothing else answers, it is believed in \
                 {} s",
                patience.as_secs_f32()
            ),
            Some(News::PastAgain) => {
                tracing::warn!(host, "the time until the store is believed begins anew: it went back once more");
            }
            Some(News::Silence) => tracing::warn!(
                host,
                "the time until the store is believed begins anew: it was silent, and may have gone back once more"
            ),
            Some(News::Believed) => tracing::warn!(host, revision, "the store went back, and is believed from here on"),
            None => {}
        }
        judged.believed.map_err(|floor| {
            let was = format!("was {} in {}", floor.revision.0, floor.raft_term);
            Fault::Ambiguous(format!("{host}: behind: revision {revision} in raft term {raft_term}, {was}"))
        })
    }

    /// See [`horizon::Horizon::admit_watch`].
    pub(super) fn admit_watch(&self, told: Standing) -> bool {
        self.locked().admit_watch(told)
    }

    /// See [`horizon::Horizon::is_told_the_past`].
    pub(super) fn is_told_the_past(&self) -> bool {
        self.locked().is_told_the_past()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, horizon::Horizon<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
