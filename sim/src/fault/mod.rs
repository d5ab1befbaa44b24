//! Faults: an explicit plan of what goes wrong, when, where and for how long; drawn from the seed, written down, cut
//! down to what matters.

mod apply;
mod behind;
mod draw;
#[cfg(test)]
mod edges;
mod host;
mod keys;
mod network;
mod overlaps;
#[cfg(test)]
mod tests;

use matriarch_core::id::OpId;
use serde::{Deserialize, Serialize};

use crate::node::NodeId;
use crate::settings::Settings;
use crate::store::hands::Key;

pub use apply::FOREIGN;
pub use host::host_of;
pub use keys::Dynamic;

/// Everything that a run depends on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The seed of delays, clocks and durations.
    pub seed: u64,
    /// What it tells, for a plan that is kept.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub story: String,
    /// The invariant that it broke once, for a plan that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broke: Option<String>,
    /// What must be seen in its run, or its story is not told, for a plan that is kept; named as in `Coverage::saw`. The
    /// model changes, and a plan that no longer comes to its story would break nothing for ever.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reaches: Vec<String>,
    /// The world.
    pub settings: Settings,
    /// What goes wrong in it.
    #[serde(with = "serde_yaml::with::singleton_map_recursive")]
    pub faults: Vec<Fault>,
}

/// A fault.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When.
    pub when: When,
    /// What.
    pub what: What,
    /// For how long, where it goes on.
    pub for_ms: u64,
}

/// When a fault begins.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// At a time.
    AtMs(u64),
    /// With an order.
    Order {
        /// Its kind, as in `coverage`.
        kind: String,
        /// The n-th of that kind after this time.
        after_ms: u64,
        /// Which, from 1.
        nth: u32,
        /// How far it has come.
        phase: Phase,
        /// If none has come so far by then, it strikes all the same.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        or_at_ms: Option<u64>,
    },
}

/// How far an order has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is decided and not begun.
    Before,
    /// It is begun.
    After,
    /// It has taken effect, and whoever ordered it has not heard of that.
    Applied,
    /// Whoever ordered it has heard what came of it.
    Ended,
}

/// Where a fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Where {
    /// A node.
    Node(usize),
    /// Whichever node leads then, by the store; node 0 if none does.
    Leader,
    /// Whichever node gave the order; the leader, if there was none.
    Orderer,
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// SIGKILL to the postmaster; so many of its backends go on for a while.
    KillPostmaster(Where, u32),
    /// All of PostgreSQL is killed.
    KillPostgres(Where),
    /// SIGKILL to the agent; another is started after the time.
    KillAgent(Where),
    /// SIGSTOP to the agent.
    FreezeAgent(Where),
    /// SIGTERM to the agent; another is started after the time.
    StopAgent(Where),
    /// SIGKILL to the guard.
    KillGuard(Where),
    /// The host loses its power.
    CrashHost(Where),
    /// It does, and its small files cannot be read afterwards: its disk had said that they were there.
    TearFiles(Where),
    /// The host is suspended: its clocks go on, nothing else does.
    SuspendHost(Where),
    /// The wall clock is set, by so many milliseconds.
    SetWallClock(Where, i64),
    /// SIGSTOP to every process of PostgreSQL.
    FreezePostgres(Where),
    /// PostgreSQL's disk hangs: its processes wait, and not even SIGKILL ends them.
    HangPostgres(Where),
    /// PostgreSQL's disk is full.
    FillData(Where),
    /// The kernel kills a backend: PostgreSQL recovers without its postmaster's death.
    KillBackend(Where),
    /// A session of a primary takes no notice of a fast stop, which waits for it.
    DeafSession(Where),
    /// An operator stops PostgreSQL behind the agent's back (`pg_ctl stop`).
    StopByHand(Where),
    /// An operator restarts it so.
    RestartByHand(Where),
    /// An operator promotes it so.
    PromoteByHand(Where),
    /// Nothing reaches the node and nothing leaves it, but for its clients.
    Isolate(Where),
    /// The node and the store do not hear each other.
    CutStore(Where),
    /// Nothing of the node's reaches the store; it hears it.
    CutToStore(Where),
    /// The node does not hear the store.
    CutFromStore(Where),
    /// The node and the other agents do not hear each other.
    CutAgents(Where),
    /// The node does not hear the other agents; they hear it.
    CutFromAgents(Where),
    /// Nothing of the node's reaches the other agents; it hears them.
    CutToAgents(Where),
    /// The node and the others exchange no WAL.
    CutReplication(Where),
    /// Nothing comes to the node's PostgreSQL from the others'.
    CutFromReplication(Where),
    /// Nothing comes from the node's PostgreSQL to the others'.
    CutToReplication(Where),
    /// Clients and the node do not hear each other; what was sent comes late, or never.
    CutClients(Where),
    /// Nothing that clients send reaches the node.
    CutFromClients(Where),
    /// Clients do not hear what the node says of their commits.
    CutToClients(Where),
    /// The node and one other, by its number, do not hear each other and exchange no WAL; both reach everybody else.
    CutPair(Where, usize),
    /// The node and one member of the store do not hear each other.
    CutFromMember(Where, usize),
    /// A member of the store and everybody else do not hear each other.
    CutStoreMember(usize),
    /// A member of the store is down.
    StopStoreMember(usize),
    /// A member of the store stands still.
    FreezeStoreMember(usize),
    /// All members of the store are down.
    StopStore,
    /// The leader key goes before its time.
    LoseKey,
    /// The lease of the leader key ends before its time.
    LoseLease,
    /// An operator deletes a key.
    DeleteKey(Key),
    /// An operator deletes all of them, the leader key among them.
    DeleteAllKeys,
    /// An operator writes nonsense to a key.
    GarbleKey(Key),
    /// The store stops, and comes back as it was so many milliseconds before.
    RestoreStore(u64),
    /// An operator changes the dynamic configuration.
    ChangeConfig {
        /// `ttl`.
        ttl_ms: u64,
        /// `loop_wait`.
        loop_wait_ms: u64,
        /// `retry_timeout`.
        retry_timeout_ms: u64,
        /// `maximum_lag_on_failover`.
        maximum_lag_bytes: u64,
    },
    /// Messages take so many times longer.
    SlowNetwork(u64),
    /// So many of a hundred messages are lost with their connection; some questions between agents come twice.
    LossyNetwork(u64),
    /// The node's watches tell nothing.
    SilenceWatches(Where),
    /// The node's small files cannot be written.
    FillDisk(Where),
    /// No look at the node's data directory succeeds; PostgreSQL, which has its files open, goes on.
    HideData(Where),
    /// Replay is paused on the node.
    PauseReplay(Where),
    /// The data directory is removed while PostgreSQL runs on it, unless it is the leader's.
    RemoveData(Where),
    /// An operator asks for a switchover.
    Switchover(Where),
    /// An operator asks for a failover to this node, whether or not somebody leads.
    Failover(Where),
    /// An operator asks for a switchover at the fault's end, by the wall clock of whoever leads.
    ScheduleSwitchover(Where),
    /// An operator asks for a restart at the fault's end, by the wall clock there.
    ScheduleRestart(Where),
    /// An operator asks for a restart.
    Restart(Where),
    /// An operator asks for a new clone.
    Reinitialize(Where),
    /// A server that is started does not come up.
    HangStart(Where),
    /// initdb, pg_basebackup, pg_rewind and single-user mode end with an error on the node.
    FailTools(Where),
    /// The data of another cluster are put into the directory of a node that does not lead; at the end they are removed.
    ForeignData(Where),
    /// The cluster asks for a mode that is not supported.
    AskUnsupported,
    /// An operator pauses the cluster, and ends that after the time.
    Pause,
}

/// The name of each kind, and the list of all names from the same lines: none can be left out.
macro_rules! kinds {
    ($($what:pat => $kind:literal;)+) => {
        /// The kinds of faults, all of which a plan that is drawn may have.
        pub const KINDS: &[&str] = &[$($kind),+];

        impl What {
            /// Its name, without where and how.
            pub fn kind(&self) -> &'static str {
                match self { $($what => $kind,)+ }
            }
        }
    };
}

kinds! {
    Self::KillPostmaster(..) => "kill_postmaster";
    Self::KillPostgres(_) => "kill_postgres";
    Self::KillAgent(_) => "kill_agent";
    Self::FreezeAgent(_) => "freeze_agent";
    Self::StopAgent(_) => "stop_agent";
    Self::KillGuard(_) => "kill_guard";
    Self::CrashHost(_) => "crash_host";
    Self::TearFiles(_) => "tear_files";
    Self::SuspendHost(_) => "suspend_host";
    Self::SetWallClock(..) => "set_wall_clock";
    Self::FreezePostgres(_) => "freeze_postgres";
    Self::HangPostgres(_) => "hang_postgres";
    Self::FillData(_) => "fill_data";
    Self::KillBackend(_) => "kill_backend";
    Self::DeafSession(_) => "deaf_session";
    Self::StopByHand(_) => "stop_by_hand";
    Self::RestartByHand(_) => "restart_by_hand";
    Self::PromoteByHand(_) => "promote_by_hand";
    Self::Isolate(_) => "isolate";
    Self::CutStore(_) => "cut_store";
    Self::CutToStore(_) => "cut_to_store";
    Self::CutFromStore(_) => "cut_from_store";
    Self::CutAgents(_) => "cut_agents";
    Self::CutFromAgents(_) => "cut_from_agents";
    Self::CutToAgents(_) => "cut_to_agents";
    Self::CutReplication(_) => "cut_replication";
    Self::CutFromReplication(_) => "cut_from_replication";
    Self::CutToReplication(_) => "cut_to_replication";
    Self::CutClients(_) => "cut_clients";
    Self::CutFromClients(_) => "cut_from_clients";
    Self::CutToClients(_) => "cut_to_clients";
    Self::CutPair(..) => "cut_pair";
    Self::CutFromMember(..) => "cut_from_member";
    Self::CutStoreMember(_) => "cut_store_member";
    Self::StopStoreMember(_) => "stop_store_member";
    Self::FreezeStoreMember(_) => "freeze_store_member";
    Self::StopStore => "stop_store";
    Self::LoseKey => "lose_key";
    Self::LoseLease => "lose_lease";
    Self::DeleteKey(_) => "delete_key";
    Self::DeleteAllKeys => "delete_all_keys";
    Self::GarbleKey(_) => "garble_key";
    Self::RestoreStore(_) => "restore_store";
    Self::ChangeConfig { .. } => "change_config";
    Self::SlowNetwork(_) => "slow_network";
    Self::LossyNetwork(_) => "lossy_network";
    Self::SilenceWatches(_) => "silence_watches";
    Self::FillDisk(_) => "fill_disk";
    Self::HideData(_) => "hide_data";
    Self::PauseReplay(_) => "pause_replay";
    Self::RemoveData(_) => "remove_data";
    Self::Switchover(_) => "switchover";
    Self::Failover(_) => "failover";
    Self::ScheduleSwitchover(_) => "schedule_switchover";
    Self::ScheduleRestart(_) => "schedule_restart";
    Self::Restart(_) => "restart";
    Self::Reinitialize(_) => "reinitialize";
    Self::HangStart(_) => "hang_start";
    Self::FailTools(_) => "fail_tools";
    Self::ForeignData(_) => "foreign_data";
    Self::AskUnsupported => "ask_unsupported";
    Self::Pause => "pause";
}

impl What {
    /// Where it strikes, if it may strike anywhere.
    pub fn place(mut self) -> Option<Where> {
        self.place_mut().copied()
    }

    /// The same, to be changed.
    pub fn place_mut(&mut self) -> Option<&mut Where> {
        match self {
            Self::KillPostmaster(place, _)
            | Self::KillPostgres(place)
            | Self::KillAgent(place)
            | Self::FreezeAgent(place)
            | Self::StopAgent(place)
            | Self::KillGuard(place)
            | Self::CrashHost(place)
            | Self::TearFiles(place)
            | Self::SuspendHost(place)
            | Self::SetWallClock(place, _)
            | Self::FreezePostgres(place)
            | Self::HangPostgres(place)
            | Self::FillData(place)
            | Self::KillBackend(place)
            | Self::DeafSession(place)
            | Self::StopByHand(place)
            | Self::RestartByHand(place)
            | Self::PromoteByHand(place)
            | Self::Isolate(place)
            | Self::CutStore(place)
            | Self::CutToStore(place)
            | Self::CutFromStore(place)
            | Self::CutAgents(place)
            | Self::CutFromAgents(place)
            | Self::CutToAgents(place)
            | Self::CutReplication(place)
            | Self::CutFromReplication(place)
            | Self::CutToReplication(place)
            | Self::CutClients(place)
            | Self::CutFromClients(place)
            | Self::CutToClients(place)
            | Self::CutPair(place, _)
            | Self::CutFromMember(place, _)
            | Self::SilenceWatches(place)
            | Self::FillDisk(place)
            | Self::HideData(place)
            | Self::PauseReplay(place)
            | Self::RemoveData(place)
            | Self::Switchover(place)
            | Self::Failover(place)
            | Self::ScheduleSwitchover(place)
            | Self::ScheduleRestart(place)
            | Self::Restart(place)
            | Self::Reinitialize(place)
            | Self::HangStart(place)
            | Self::FailTools(place)
            | Self::ForeignData(place) => Some(place),
            Self::CutStoreMember(_)
            | Self::StopStoreMember(_)
            | Self::FreezeStoreMember(_)
            | Self::StopStore
            | Self::LoseKey
            | Self::LoseLease
            | Self::DeleteKey(_)
            | Self::DeleteAllKeys
            | Self::GarbleKey(_)
            | Self::RestoreStore(_)
            | Self::ChangeConfig { .. }
            | Self::SlowNetwork(_)
            | Self::LossyNetwork(_)
            | Self::AskUnsupported
            | Self::Pause => None,
        }
    }
}

/// A fault that waits for an order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watching {
    /// Which.
    pub index: usize,
    /// How many of its kind are still to come.
    pub left: u32,
    /// The order that came, if the fault waits for what becomes of it.
    pub given: Option<Given>,
}

/// An order that somebody waits for the effect or the end of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Given {
    /// An operation of a node, by the boot of the agent: the numbers begin anew with each.
    Operation(NodeId, u32, OpId),
    /// An order to a node's guard, by its kind: the guard's reports name no operation.
    Guard(NodeId, &'static str),
}

impl Plan {
    /// The plan of a seed.
    pub fn of_seed(seed: u64) -> Self {
        draw::plan(seed)
    }

    /// A world in which nothing goes wrong.
    pub fn calm(seed: u64, settings: Settings) -> Self {
        Self { seed, story: String::new(), broke: None, reaches: Vec::new(), settings, faults: Vec::new() }
    }

    /// It restores the store from a backup.
    pub fn restores_the_store(&self) -> bool {
        self.faults.iter().any(|fault| matches!(fault.what, What::RestoreStore(_)))
    }
}
