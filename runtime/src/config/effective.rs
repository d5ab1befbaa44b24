//! What a node's own file and the cluster's configuration say together, for the keys of `postgresql` that both may
//! have.

use std::time::Duration;

use super::dynamic::DynamicConfig;
use super::local::LocalConfig;
use super::quantity::{bool_of, int_of};

/// How long a start or stop may take where nobody says so.
const PG_CTL_TIMEOUT: Duration = Duration::from_secs(60);

/// Keys of `postgresql` in effect: the node's own file first, then the dynamic configuration, then the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectivePostgresql {
    /// Whether a diverged former primary is rewound.
    pub use_pg_rewind: bool,
    /// Whether replication slots are used: the dynamic configuration alone decides.
    pub use_slots: bool,
    /// Whether a failed rewind is followed by a new clone.
    pub remove_data_directory_on_rewind_failure: bool,
    /// Whether diverged histories are followed by a new clone where rewinding is impossible.
    pub remove_data_directory_on_diverged_timelines: bool,
    /// How long a start or stop may take.
    pub pg_ctl_timeout: Duration,
    /// Lines of `pg_hba.conf`; absent: the file is left alone.
    pub pg_hba: Option<Vec<String>>,
    /// Lines of `pg_ident.conf`; absent: the file is left alone.
    pub pg_ident: Option<Vec<String>>,
}

/// Lays the local configuration over the dynamic one.
pub fn effective_postgresql(local: &LocalConfig, dynamic: &DynamicConfig) -> EffectivePostgresql {
    let own = &local.postgresql;
    let shared = &dynamic.postgresql;
    let flag = |key: &str| shared.raw.get(key).and_then(bool_of).unwrap_or(false);
    let shared_timeout = shared.raw.get("pg_ctl_timeout").and_then(|v| int_of(v, Some("s")));
    EffectivePostgresql {
        use_pg_rewind: own.use_pg_rewind.or(shared.use_pg_rewind).unwrap_or(false),
        use_slots: shared.use_slots,
        remove_data_directory_on_rewind_failure: own
            .remove_data_directory_on_rewind_failure
            .unwrap_or_else(|| flag("remove_data_directory_on_rewind_failure")),
        remove_data_directory_on_diverged_timelines: own
            .remove_data_directory_on_diverged_timelines
            .unwrap_or_else(|| flag("remove_data_directory_on_diverged_timelines")),
        pg_ctl_timeout: own
            .pg_ctl_timeout
            .or_else(|| shared_timeout.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs))
            .unwrap_or(PG_CTL_TIMEOUT),
        pg_hba: own.pg_hba.clone().or_else(|| shared.pg_hba.clone()),
        pg_ident: own.pg_ident.clone().or_else(|| shared.pg_ident.clone()),
    }
}
