//! The ladder decides the role: the first rung that concludes wins. Beside it, reconcilers keep what goes with a steady
//! role. One file each; a decider is a pure function of [`View`].
//!
//! Places are kept for what is not built yet: `failsafe` and `standby_cluster` are one rung today, `unsupported`, which
//! observes.

use alloc::vec;
use alloc::vec::Vec;

use crate::action::Action;
use crate::reason::Reason;
use crate::view::View;

mod bootstrap;
mod busy;
mod fence;
mod follow;
mod identity;
pub(crate) mod isolated;
mod leader;
mod race;
mod rewind;
mod startup;
mod successor;
mod switchover;
mod unsupported;

pub(crate) mod cluster_keys;
pub(crate) mod history;
pub(crate) mod members;
pub(crate) mod observe;
pub(crate) mod params;
pub(crate) mod pause;
pub(crate) mod slots;
pub(crate) mod tenure;
pub(crate) mod timeline_number;

/// The rungs, in the order of the ladder.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Rung {
    /// Stop writes now.
    Fence,
    /// Hands off: the cluster asks for what is not built yet.
    Unsupported,
    /// Hands off: an operator has paused the cluster.
    Pause,
    /// Halt: the data belongs to another cluster, or cannot be used.
    Identity,
    /// Hold writes: nobody answers.
    Isolated,
    /// Wait for PostgreSQL to start, or give leadership up.
    Startup,
    /// Wait for something long.
    Busy,
    /// Initialise, clone, or wait.
    Bootstrap,
    /// Checkpoint, stop, hand over, refuse; or leave.
    Switchover,
    /// Stay, promote, restart, release.
    Leader,
    /// Campaign, or stand back.
    Race,
    /// Rewind, clone, or wait.
    Rewind,
    /// Follow; the last rung concludes always.
    Follow,
}

impl Rung {
    /// The name, as in `/why`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fence => "fence",
            Self::Unsupported => "unsupported",
            Self::Pause => "pause",
            Self::Identity => "identity",
            Self::Isolated => "isolated",
            Self::Startup => "startup",
            Self::Busy => "busy",
            Self::Bootstrap => "bootstrap",
            Self::Switchover => "switchover",
            Self::Leader => "leader",
            Self::Race => "race",
            Self::Rewind => "rewind",
            Self::Follow => "follow",
        }
    }
}

/// One row of the ladder.
pub struct Row {
    /// The rung.
    pub rung: Rung,
    /// When it may conclude at all, in words, for `/why` and the docs.
    pub precondition: &'static str,
    /// The decider.
    pub decide: fn(&View<'_>) -> Option<Verdict>,
}

/// The ladder: first verdict wins.
pub const LADDER: &[Row] = &[
    Row { rung: Rung::Fence, precondition: "PostgreSQL may write, or orphans may", decide: fence::decide },
    Row {
        rung: Rung::Unsupported,
        precondition: "the cluster asks for a mode not built yet",
        decide: unsupported::decide,
    },
    Row { rung: Rung::Pause, precondition: "the cluster is paused", decide: pause::decide },
    Row { rung: Rung::Identity, precondition: "a data directory that is not ours to use", decide: identity::decide },
    Row { rung: Rung::Isolated, precondition: "a running primary with a tenure", decide: isolated::decide },
    Row { rung: Rung::Startup, precondition: "PostgreSQL is starting", decide: startup::decide },
    Row { rung: Rung::Busy, precondition: "something long is under way", decide: busy::decide },
    Row { rung: Rung::Bootstrap, precondition: "no complete data directory", decide: bootstrap::decide },
    Row {
        rung: Rung::Switchover,
        precondition: "an operator's request, or the agent leaves",
        decide: switchover::decide,
    },
    Row { rung: Rung::Leader, precondition: "a tenure is held", decide: leader::decide },
    Row { rung: Rung::Race, precondition: "no leader key", decide: race::decide },
    Row { rung: Rung::Rewind, precondition: "another leads, and our history may differ", decide: rewind::decide },
    Row { rung: Rung::Follow, precondition: "none: concludes always", decide: follow::decide },
];

/// What becomes of the tenure.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fate {
    /// It is kept and renewed.
    Keep,
    /// It is given up in the store as soon as PostgreSQL is certainly dead.
    Release,
    /// It is over now: it is not renewed and never served under again.
    LetLapse,
}

/// What a rung concludes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Why.
    pub reason: Reason,
    /// What is wanted; what is in flight already is not ordered again.
    pub orders: Vec<Action>,
    /// What becomes of the tenure.
    pub fate: Fate,
    /// The role is settled: reconcilers may change PostgreSQL.
    pub steady: bool,
}

impl Verdict {
    /// Nothing but time helps.
    pub(crate) fn wait(reason: Reason) -> Self {
        Self { reason, orders: Vec::new(), fate: Fate::Keep, steady: false }
    }

    /// One order.
    pub(crate) fn order(reason: Reason, action: Action) -> Self {
        Self { reason, orders: vec![action], fate: Fate::Keep, steady: false }
    }

    /// Several orders, in different lanes.
    pub(crate) fn orders(reason: Reason, orders: Vec<Action>) -> Self {
        Self { reason, orders, fate: Fate::Keep, steady: false }
    }

    /// The role is settled.
    pub(crate) fn steady(reason: Reason) -> Self {
        Self { reason, orders: Vec::new(), fate: Fate::Keep, steady: true }
    }

    /// The same with another fate of the tenure.
    #[must_use]
    pub(crate) fn fate(mut self, fate: Fate) -> Self {
        self.fate = fate;
        self
    }
}

pub(crate) use fence::{acknowledged_until, is_our_key};
pub(crate) use leader::promotion_limit;
pub(crate) use switchover::{DRAIN_LIMIT, stops_shortly, wanted_candidate};

/// Asks the ladder: the rung that concludes, and its verdict.
pub fn decide(view: &View<'_>) -> (Rung, Verdict) {
    for row in LADDER {
        if let Some(verdict) = (row.decide)(view) {
            return (row.rung, verdict);
        }
    }
    unreachable!("the last rung concludes always");
}

/// What every rung would say, for `/why`: also those below the one that concludes.
pub fn explain(view: &View<'_>) -> Vec<(Rung, &'static str, Option<Reason>)> {
    LADDER.iter().map(|row| (row.rung, row.precondition, (row.decide)(view).map(|verdict| verdict.reason))).collect()
}

/// Whole milliseconds, for reasons.
pub(crate) fn ms(duration: crate::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
