//! What the other agents have told.

use alloc::collections::BTreeMap;

use crate::id::{Lsn, Member, Revision};
use crate::time::{Instant, Seen};
use crate::timeline::History;

/// What is known of the other agents.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
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
pub struct PeerAnswer {
    /// Its PostgreSQL accepts writes.
    pub primary: bool,
    /// It would not take over (`nofailover`, or its watchdog failed).
    pub barred: bool,
    /// Its history; a Patroni peer tells its timeline only.
    pub history: History,
    /// What it has flushed (received).
    pub flushed: Lsn,
    /// What it has replayed.
    pub replayed: Lsn,
    /// The pledge that it gave: it has stopped its WAL receiver because the key was absent at this revision.
    /// `None`: it has not, or cannot (Patroni).
    pub pledge: Option<Revision>,
}
