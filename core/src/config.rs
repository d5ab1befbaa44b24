//! What core must know of the configuration: no secret, no path, only what decisions depend on.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use crate::id::Member;
use crate::lease::Bounds;
use crate::time::Duration;
use crate::view::postgres::Slot;

/// The configuration in force: local file, dynamic configuration and defaults, merged by the runtime.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Config {
    /// Our name.
    pub me: Member,
    /// The ttl to ask the store for.
    pub ttl: Duration,
    /// How often what is known is refreshed and published when nothing happens.
    pub loop_wait: Duration,
    /// The budget for retries against the store.
    pub retry_timeout: Duration,
    /// A standby further behind the last known position does not race.
    pub maximum_lag_on_failover_bytes: u64,
    /// How long a leader may start or recover before it gives up; zero: at once, if another could take over.
    pub primary_start_timeout: Duration,
    /// Lines kept in `history`; 0 = all.
    pub max_timelines_history: usize,
    /// The effective tag `nofailover`.
    pub nofailover: bool,
    /// The effective tag `failover_priority`.
    pub failover_priority: i32,
    /// The tag `nostream`.
    pub nostream: bool,
    /// The tag `clonefrom`.
    pub clonefrom: bool,
    /// The tag `replicatefrom`.
    pub replicatefrom: Option<Member>,
    /// A physical slot for each member.
    pub use_slots: bool,
    /// How long the slot of a member that is gone is kept; zero: not, and none is kept for when another node leads.
    pub member_slots_ttl: Duration,
    /// The physical slots that the operator wants for good (`slots`), by their names.
    pub permanent_slots: BTreeSet<String>,
    /// What matches one of these is left alone, but for the slots of members that are there (`ignore_slots`).
    pub ignore_slots: Vec<SlotMatcher>,
    /// `pg_rewind` may be used.
    pub use_pg_rewind: bool,
    /// The data directory may be cloned again when it diverged and cannot be rewound, or was not.
    pub clone_when_diverged: bool,
    /// The data directory may be cloned again when a rewind of it failed.
    pub clone_when_rewind_fails: bool,
    /// There is a `bootstrap` section: this node may initialise a new cluster.
    pub may_bootstrap: bool,
    /// The operator has a way to make the data directory that needs no other member.
    pub restores_alone: bool,
    /// A mode that the cluster asks for and that is not built yet.
    pub unsupported: Option<String>,
    /// The last dynamic configuration that this node has kept on its disk pauses the cluster. The store has the last word;
    /// until it is heard, an agent that starts leaves PostgreSQL alone.
    pub paused_before: bool,
    /// A number that changes with everything that ends up in PostgreSQL's configuration files.
    pub parameters_generation: u64,
    /// What our member record says of where we are.
    pub published: Published,
    /// A primary without any answer for so long holds its writes.
    pub isolation_timeout: Duration,
    /// The bounds of the lease arithmetic.
    pub bounds: Bounds,
}

impl Config {
    /// The member `name` on a host of that name, with the ports, timings and limits that are usual. For worlds and tests:
    /// an agent's configuration leaves nothing to this.
    pub fn usual(name: &str) -> Self {
        let api_url = alloc::format!("http://{name}:8008/patroni");
        Self {
            me: Member::new(name),
            ttl: Duration::from_secs(30),
            loop_wait: Duration::from_secs(10),
            retry_timeout: Duration::from_secs(10),
            maximum_lag_on_failover_bytes: 1 << 20,
            primary_start_timeout: Duration::from_secs(300),
            max_timelines_history: 0,
            nofailover: false,
            failover_priority: 1,
            nostream: false,
            clonefrom: false,
            replicatefrom: None,
            use_slots: true,
            member_slots_ttl: Duration::from_secs(1800),
            permanent_slots: BTreeSet::new(),
            ignore_slots: Vec::new(),
            use_pg_rewind: true,
            clone_when_diverged: false,
            clone_when_rewind_fails: false,
            may_bootstrap: true,
            restores_alone: false,
            unsupported: None,
            paused_before: false,
            parameters_generation: 1,
            published: Published { host: name.into(), port: 5432, api_url },
            isolation_timeout: Duration::from_secs(3),
            bounds: Bounds::default(),
        }
    }
}

impl Config {
    /// The operator wants this slot to be left alone.
    pub fn ignores_slot(&self, slot: &Slot) -> bool {
        self.ignore_slots.iter().any(|matcher| matcher.matches(slot))
    }

    /// The same of a physical slot that is not there yet.
    pub fn ignores_physical_slot(&self, name: &str) -> bool {
        self.ignores_slot(&Slot { name: name.into(), physical: true, ..Slot::default() })
    }
}

/// Matches the slots that have all that it names.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SlotMatcher {
    /// `name`.
    pub name: Option<String>,
    /// `type`: `physical` or `logical`.
    pub kind: Option<String>,
    /// `database`.
    pub database: Option<String>,
    /// `plugin`.
    pub plugin: Option<String>,
}

impl SlotMatcher {
    fn matches(&self, slot: &Slot) -> bool {
        let kind = if slot.physical { "physical" } else { "logical" };
        let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        fits(&self.name, &slot.name)
            && fits(&self.kind, kind)
            && fits(&self.database, &slot.database)
            && fits(&self.plugin, &slot.plugin)
    }
}

/// Where others find this node.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Published {
    /// Host of `conn_url`.
    pub host: String,
    /// Port of `conn_url`.
    pub port: u16,
    /// `api_url`.
    pub api_url: String,
}

/// With `primary_start_timeout` 0, which is for crashes, a start that an operator asked for may take so long: what Patroni's
/// `primary_start_timeout` is by default.
pub const ASKED_START_LIMIT: Duration = Duration::from_secs(300);

/// The holder of a key that vanished while it lives gets so long to take it back.
pub const VANISH_GRACE: Duration = Duration::from_millis(300);
/// A primary whose key vanished holds its writes for so long at most, and is stopped then.
pub const HOLD_LIMIT: Duration = Duration::from_millis(500);
/// A race waits for positions for so long at most: unreachable means no vote.
pub const RACE_WINDOW: Duration = Duration::from_millis(150);
/// Among equals the one that does not go first waits for so long, then tries as well.
pub const EQUALS_PATIENCE: Duration = Duration::from_millis(250);
/// Who holds less than a peer stands back for so long, for that one to campaign. A peer that is ahead and cannot lead
/// would keep the cluster without a primary for ever otherwise; `maximum_lag_on_failover` bounds what is given up. So
/// does who left the newest branch, for whoever is on it; beyond that bound it stands back for good.
pub const AHEAD_PATIENCE: Duration = Duration::from_secs(5);
/// A node that was not asked for by the operator stands back for so long.
pub const CANDIDATE_PATIENCE: Duration = Duration::from_secs(3);
/// A hand-over waits for a candidate for so long, then the primary starts again.
pub const HANDOVER_LIMIT: Duration = Duration::from_secs(5);
/// Sessions may take no notice of a stop for so long: as long as `pg_ctl` waits for one by default (`PGCTLTIMEOUT`).
pub const STOP_LIMIT: Duration = Duration::from_secs(60);
/// So long where it may be a checkpoint that is waited for: none was written just before, or nobody knows. PostgreSQL says
/// that it shuts down only when the checkpoint of the shutdown begins, and another may be under way until then.
pub const CHECKPOINT_LIMIT: Duration = Duration::from_secs(300);
/// An agent without a guard for so long stops PostgreSQL.
pub const GUARD_LIMIT: Duration = Duration::from_secs(1);
/// A guard that was told to fire and has not answered for so long is not waited for: PostgreSQL is stopped without it.
pub const FIRE_LIMIT: Duration = Duration::from_millis(500);
/// A standby that does not stream for so long compares its history with the leader's.
pub const STREAM_PATIENCE: Duration = Duration::from_secs(3);
/// Orphans that cannot be counted or killed for so long cost this node its tenure.
pub const ORPHANS_LIMIT: Duration = Duration::from_secs(10);
/// A standby that does not stream although it has not diverged compares its history again after so long.
pub const COMPARE_PAUSE: Duration = Duration::from_secs(60);
/// A PostgreSQL that accepted connections for so long did not fail to start.
pub const LIFE_MIN: Duration = Duration::from_secs(10);
/// Starts in place that may fail in a row before leadership is given up.
pub const START_FAILURES_MAX: u32 = 3;
/// A node that cannot write its epoch file for so long cannot lead.
pub const EPOCH_LIMIT: Duration = Duration::from_secs(5);
/// A crash recovery that failed is not repeated sooner than this: it may take long, and most often fails for what
/// somebody must correct.
pub const RECOVERY_PAUSE: Duration = Duration::from_secs(10);
/// An order that failed is not repeated sooner than this.
pub const RETRY_PAUSE: Duration = Duration::from_secs(1);
