//! What the targets in `fuzz/` need of parsers that are private: each function takes what comes from outside, and panics
//! if what must hold of its reading does not. Behind the feature `fuzz`, which no agent has.

pub use crate::api::fuzz::{allowed_network, control_bodies, query};
pub use crate::guard::fuzz::guard_messages;
pub use crate::postgres::fuzz::{wal_end, wal_sender};
pub use crate::store::embedded::fuzz::{Journaled, journal};
