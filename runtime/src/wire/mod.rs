//! What the keys of the store mean: the translation between Patroni's keys and JSON and core's view of a cluster.
//!
//! Reading is tolerant, since other implementations, older versions and operators write these keys as well: nothing
//! that is in the store can make a read fail. Where a value cannot be understood, the reading that allows less is
//! taken. Writing is exact: Patroni's members, its `patronictl` and dashboards read what stands here, so keys are in
//! Patroni's order and JSON has no blanks.

pub mod cluster;
pub mod cluster_document;
pub mod epoch;
pub mod failover;
pub mod history;
pub mod keys;
pub(crate) mod lenient;
pub mod member;
pub mod status;

pub use cluster::cluster_view;
pub use cluster_document::cluster_document;
pub use epoch::epoch_json;
pub use failover::failover_json;
pub use history::history_json;
pub use member::{MemberExtras, PATRONI_LEVEL, member_json};
pub use status::status_json;

/// One key as a read of the store returned it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawEntry<'a> {
    /// The key, relative to the base path of the cluster: `leader`, `members/n1`, ...
    pub key: &'a str,
    /// The value.
    pub value: &'a str,
    /// The revision that created the key.
    pub create_revision: i64,
    /// The revision that last wrote the key.
    pub mod_revision: i64,
    /// The lease that the key is bound to; 0 = none.
    pub lease: i64,
}
