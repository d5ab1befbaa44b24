//! What the targets in `fuzz/` need of parsers that are private: each function takes what comes from outside, panics if
//! what must hold of its reading does not, and says what it was taken for. Behind the feature `fuzz`, which no agent has.

pub use crate::agent::fuzz::state_file;
pub use crate::api::fuzz::{allowed_network, control_bodies, query};
pub use crate::guard::fuzz::guard_messages;
pub use crate::peers::fuzz::{api_url, peer_answer};
pub use crate::postgres::fuzz::{
    configuration_file, follows, monitoring_row, parameter_faults, recovery_section, wal_end, wal_sender,
};
pub use crate::processes::fuzz::process_stat;
pub use crate::store::embedded::fuzz::{Journaled, journal};
