//! What the other agents have told.

use alloc::collections::BTreeMap;

use crate::id::{Lsn, Member, Revision};
use crate::time::{Duration, Instant, Seen};
use crate::timeline::History;

/// What is known of the other agents.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PeerFacts {
    /// The last answer of each.
    pub answers: BTreeMap<Member, Seen<PeerAnswer>>,
    /// When each was last found unreachable.
    pub unreachable: BTreeMap<Member, Instant>,
    /// When the newest question that any of them has answered was asked.
    pub answered: Instant,
}

/// The answer of a peer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PeerAnswer {
    /// Its PostgreSQL accepts writes.
    pub primary: bool,
    /// It would not take over (`nofailover`, or its watchdog failed).
    pub barred: bool,
    /// Its history; a Patroni peer tells its timeline only.
    pub history: History,
    /// Its WAL receiver runs: it may hold more already.
    pub receives: bool,
    /// What it has flushed (received).
    pub flushed: Lsn,
    /// What it has replayed of the present leader's WAL; 0 if it has not streamed from it.
    pub replayed: Lsn,
    /// Its replay is paused: it will replay no more before somebody resumes that, or it is promoted.
    #[cfg_attr(feature = "serde", serde(default))]
    pub replay_paused: bool,
    /// The pledge that it gave: its WAL receiver is stopped, and the newest revision at which it has seen no leader
    /// key. `None`: it has not stopped it, or cannot (Patroni).
    pub pledge: Option<Revision>,
    /// The epoch of the leader whose key it sees (the key's `create_revision`); 0: it sees none, or does not tell (Patroni).
    #[cfg_attr(feature = "serde", serde(default))]
    pub leader_epoch: Revision,
    /// The revision of the keys that it sees; 0: none, or it does not tell.
    #[cfg_attr(feature = "serde", serde(default))]
    pub keys_at: Revision,
    /// What it has renewed before it answered lets it lead for so long: the ttl of its lease; 0: by nothing, or it does not tell.
    #[cfg_attr(feature = "serde", serde(default))]
    pub tenure_ttl: Duration,
}

impl PeerAnswer {
    /// The position is final as far as the leader whose key was absent at `absent_at` is concerned: nothing more comes
    /// from it, and nothing that it acknowledges can count on this peer.
    pub fn is_final(&self, absent_at: Revision) -> bool {
        self.primary || !self.receives || self.pledge.is_some_and(|pledge| pledge >= absent_at)
    }
}
