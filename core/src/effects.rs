//! What one step hands out.

use alloc::vec::Vec;

use crate::action::Action;
use crate::decide::Rung;
use crate::id::OpId;
use crate::reason::Reason;
use crate::time::Instant;
use crate::view::guard::Armed;

/// Everything that a step wants from the world. The runtime hands all of it out before it takes the next event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Effects {
    /// New orders, at most [`ORDERS_MAX`].
    pub orders: Vec<Order>,
    /// Operations that lost their lane: the executor stops them, their completion is not waited for.
    pub cancelled: Vec<OpId>,
    /// When to come again at the latest.
    pub wake: Wake,
    /// The decision, if it differs from the last one.
    pub decision: Option<Decision>,
}

/// The most orders that one step may give.
pub const ORDERS_MAX: usize = 16;

/// An order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Order {
    /// Its completion carries the same number.
    pub op: OpId,
    /// What to do.
    pub action: Action,
    /// Why.
    pub because: Reason,
    /// Of an order that makes PostgreSQL writable: what the guard has acknowledged when it was given. The executor
    /// reads the clock again at the last moment and does not begin at that instant or later, unless a later one was
    /// acknowledged for the same tenure meanwhile. `None`: the order makes nothing writable.
    ///
    /// The race: the agent is frozen between the decision and its execution, the guard fires and is disarmed, the agent
    /// thaws and starts a primary that nobody would stop any more.
    pub under: Option<Armed>,
}

/// When to come again, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wake {
    /// The instant.
    pub at: Option<Instant>,
    /// What it is for.
    pub because: Reason,
}

/// Which rung decided, and why.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Decision {
    /// The rung.
    pub rung: Rung,
    /// Its reason.
    pub reason: Reason,
}
