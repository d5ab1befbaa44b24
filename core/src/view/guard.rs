//! What the runtime sees of the guard.

use crate::id::LeaseId;
use crate::time::Instant;

/// The guard, as far as it has answered.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GuardFacts {
    /// It is connected.
    pub present: bool,
    /// Since when it is connected, if it is.
    pub since: Instant,
    /// Since when it is gone, while it is.
    pub gone: Option<Instant>,
    /// What it has acknowledged: it stops PostgreSQL at this instant.
    pub armed: Option<Armed>,
    /// PostgreSQL is stopped reversibly, or part of it may be.
    pub held: bool,
    /// The last hold left something running, or was not answered by the guard that it was asked of.
    pub hold_in_doubt: bool,
    /// Processes that it could not kill yet.
    pub stuck: u32,
    /// The tenure that it fired while nobody listened, until its key is seen: it arms that one never again.
    pub fired: Option<LeaseId>,
}

/// An acknowledged promise of the guard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Armed {
    /// For which tenure.
    pub tenure: LeaseId,
    /// When PostgreSQL is stopped unless a later instant is acknowledged before.
    pub at: Instant,
}
