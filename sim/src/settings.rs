//! What a world is made of: drawn from its seed, written into its plan.

use serde::{Deserialize, Serialize};

use crate::random::Stream;

/// The size and the timings of a world.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Nodes.
    pub nodes: usize,
    /// Members of the store.
    pub store_members: usize,
    /// `ttl`.
    pub ttl_ms: u64,
    /// `loop_wait`.
    pub loop_wait_ms: u64,
    /// `retry_timeout`.
    pub retry_timeout_ms: u64,
    /// `primary_start_timeout`.
    pub primary_start_timeout_ms: u64,
    /// `maximum_lag_on_failover`.
    pub maximum_lag_bytes: u64,
    /// `matriarch.isolation_timeout`.
    pub isolation_timeout_ms: u64,
    /// `use_pg_rewind`.
    pub use_pg_rewind: bool,
    /// `remove_data_directory_on_diverged_timelines`.
    #[serde(default = "allowed")]
    pub clone_when_diverged: bool,
    /// `remove_data_directory_on_rewind_failure`.
    #[serde(default = "allowed")]
    pub clone_when_rewind_fails: bool,
    /// The node with the tag `nofailover`.
    pub nofailover: Option<usize>,
    /// The node with the tag `nostream`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nostream: Option<usize>,
    /// The node with the tag `clonefrom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clonefrom: Option<usize>,
    /// The node with the tag `replicatefrom`, and the node that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicatefrom: Option<(usize, usize)>,
    /// The node that has another `failover_priority` than 1, and which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover_priority: Option<(usize, i32)>,
    /// The operator wants a slot for good.
    #[serde(default)]
    pub permanent_slot: bool,
    /// The largest error of a clock's rate.
    pub clock_ppm: u64,
    /// The usual and the largest delay of a message, in microseconds.
    pub delay_us: (u64, u64),
    /// The usual pause between two commits of a client.
    pub commit_ms: u64,
    /// How long faults go on; then the world heals.
    pub faults_ms: u64,
    /// How long the healed world goes on.
    pub calm_ms: u64,
    /// No watch tells anything in the healed world.
    #[serde(default)]
    pub silent_calm: bool,
    /// A checkpoint takes up to half a minute.
    #[serde(default)]
    pub slow_checkpoints: bool,
    /// What stays broken in the healed world.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
}

/// What every plan allowed before it was drawn.
fn allowed() -> bool {
    true
}

/// What stays broken when everything else heals.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftOut {
    /// A node that does not lead has no power.
    Down,
    /// A node that does not lead is cut off from everybody.
    CutOff,
    /// A member of the store is down, of three.
    StoreMember,
}

impl LeftOut {
    /// One that there is: a store of one member does without none.
    fn drawn(random: &mut Stream, store_members: usize) -> Self {
        let all = [Self::Down, Self::CutOff, Self::StoreMember];
        *random.pick(if store_members > 2 { &all } else { &all[..2] })
    }
}

/// `ttl`, `loop_wait` and `retry_timeout` that fit together.
pub const TIMINGS: [(u64, u64, u64); 5] =
    [(30_000, 10_000, 10_000), (20_000, 5000, 7000), (10_000, 2000, 4000), (5000, 1000, 2000), (3000, 1000, 1000)];
/// `maximum_lag_on_failover`. A run writes some hundred kilobytes, what a standby lacks is a few commits or what was written
/// in half a minute: the default allows any loss, the others do not.
pub const LAGS: [u64; 5] = [1 << 20, 20_000, 2000, 600, 0];

impl Settings {
    /// Three nodes, one store, everything by its default.
    pub fn usual() -> Self {
        Self {
            nodes: 3,
            store_members: 1,
            ttl_ms: 30_000,
            loop_wait_ms: 10_000,
            retry_timeout_ms: 10_000,
            primary_start_timeout_ms: 300_000,
            maximum_lag_bytes: 1 << 20,
            isolation_timeout_ms: 3000,
            use_pg_rewind: true,
            clone_when_diverged: true,
            clone_when_rewind_fails: true,
            nofailover: None,
            nostream: None,
            clonefrom: None,
            replicatefrom: None,
            failover_priority: None,
            permanent_slot: true,
            clock_ppm: 500,
            delay_us: (300, 5000),
            commit_ms: 400,
            faults_ms: 600_000,
            calm_ms: 180_000,
            silent_calm: false,
            slow_checkpoints: false,
            left_out: None,
        }
    }

    /// Drawn within what is legal.
    pub fn drawn(random: &mut Stream) -> Self {
        let store_members = *random.pick(&[1, 1, 3]);
        // With three members the loss of the leading one takes up to two seconds of every renewal.
        let fitting = if store_members == 3 { 4 } else { 5 };
        let (ttl_ms, loop_wait_ms, retry_timeout_ms) = *random.pick(&TIMINGS[..fitting]);
        let nodes = *random.pick(&[2, 3, 3, 3, 3, 4, 5]);
        let replicatefrom = (nodes > 2 && random.chance(20)).then(|| {
            let who = random.below(nodes as u64) as usize;
            (who, (who + 1) % nodes)
        });
        // Without an archive it never gets anywhere: nobody streams from it, and enough others are left.
        let nostream = (nodes > 3 && random.chance(10)).then(|| random.below(nodes as u64) as usize);
        let nostream = nostream.filter(|node| replicatefrom.is_none_or(|(_, from)| from != *node));
        Self {
            nodes,
            store_members,
            ttl_ms,
            loop_wait_ms,
            retry_timeout_ms,
            primary_start_timeout_ms: *random.pick(&[300_000, 300_000, 10_000, 0]),
            maximum_lag_bytes: *random.pick(&LAGS),
            use_pg_rewind: random.chance(80),
            clone_when_diverged: random.chance(60),
            clone_when_rewind_fails: random.chance(60),
            nofailover: (nodes > 2 && random.chance(10)).then(|| random.below(nodes as u64) as usize),
            nostream,
            clonefrom: random.chance(20).then(|| random.below(nodes as u64) as usize),
            replicatefrom,
            failover_priority: random.chance(20).then(|| (random.below(nodes as u64) as usize, *random.pick(&[0, 2]))),
            clock_ppm: *random.pick(&[0, 100, 499, 999]),
            delay_us: *random.pick(&[(100, 1000), (300, 5000), (2000, 30_000), (5000, 100_000)]),
            commit_ms: random.magnitude(50, 2000),
            silent_calm: random.chance(10),
            slow_checkpoints: random.chance(10),
            left_out: random.chance(30).then(|| LeftOut::drawn(random, store_members)),
            permanent_slot: random.chance(50),
            ..Self::usual()
        }
    }

    /// The longest that the healed world may take until it serves again: `ttl`, the store's own delay, a race with its
    /// patience, a recovery, and what the loop and the retries may add.
    pub fn serving_bound_ms(&self) -> u64 {
        self.ttl_ms + self.loop_wait_ms + 2 * self.retry_timeout_ms + 20_000
    }
}
