//! What the runtime sees of PostgreSQL: its directory, its process, its answers.

use alloc::string::String;
use alloc::vec::Vec;

use crate::id::{Lsn, Member, Pid, SystemId, Timeline};
use crate::time::{Duration, Seen};
use crate::timeline::History;

/// Everything known of the local PostgreSQL. Each part is replaced whole by its next observation.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PostgresFacts {
    /// The data directory.
    pub data: DataDir,
    /// The postmaster.
    pub process: Process,
    /// The last answer to the monitoring query of the running postmaster.
    pub sql: Option<Seen<Sql>>,
    /// Processes of a dead postmaster that may still live and commit; `None` = not counted since the postmaster's
    /// death. An orphan counts as a primary: nothing is started, rewound, handed over or released beside one.
    pub orphans: Option<u32>,
}

/// The data directory.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum DataDir {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// Cannot be read, or belongs to someone else, even if there is nothing in it; why, and the way out.
    Unreadable(String),
    /// Missing, or holding nothing of anybody's: hidden files count as any others. What PostgreSQL and the agent leave
    /// behind does not, nor what is left of an unfinished clone.
    Empty,
    /// Not empty, and not a database cluster; what was found, and the way out.
    Foreign(String),
    /// A database cluster.
    Cluster(Cluster),
}

/// A database cluster on disk: `global/pg_control` and the files beside it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Cluster {
    /// `pg_control`: system identifier.
    pub system_id: SystemId,
    /// `PG_VERSION`.
    pub major_version: u32,
    /// `pg_control`: cluster state.
    pub state: ControlState,
    /// `pg_control`: location of the latest checkpoint record (its start).
    pub checkpoint: Lsn,
    /// `pg_control`: timeline of the latest checkpoint.
    pub checkpoint_timeline: Timeline,
    /// `pg_control`: minimum recovery ending location; 0 if none.
    pub min_recovery: Lsn,
    /// `pg_control`: timeline of the minimum recovery ending location; 0 if none.
    pub min_recovery_timeline: Timeline,
    /// Data checksums are on, or `wal_log_hints` was: `pg_rewind` can work.
    pub rewindable: bool,
    /// `standby.signal` is there.
    pub standby_signal: bool,
    /// `backup_label` is there: a clone or backup that has not reached consistency.
    pub backup_label: bool,
    /// A rewind or clone of this directory began and did not end; never electable.
    pub tainted: Option<String>,
    /// The history of the timeline that the directory is on, from `pg_wal/*.history`.
    pub history: History,
    /// The newest timeline that the directory knows of: what a promotion counts on from. The directory need not be on
    /// it, since a standby gets the files of all histories before it follows one.
    pub newest_timeline: Timeline,
    /// `pg_control`: the size of a file of WAL.
    pub segment_bytes: u32,
}

impl Cluster {
    /// Where nothing runs on it: its server did not stop, it died. Copies of what runs elsewhere look like that as well.
    pub fn crashed(&self) -> bool {
        let stopped = matches!(self.state, ControlState::ShutDown | ControlState::ShutDownInRecovery);
        !stopped && !self.backup_label && self.tainted.is_none()
    }

    /// It was a primary to the last.
    pub fn was_primary(&self) -> bool {
        let ran_as_primary = matches!(
            self.state,
            ControlState::ShutDown
                | ControlState::ShuttingDown
                | ControlState::InProduction
                | ControlState::InCrashRecovery
        );
        ran_as_primary && !self.standby_signal
    }
}

/// `pg_control`'s cluster state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ControlState {
    /// `starting up`
    StartingUp,
    /// `shut down`: a primary that stopped cleanly.
    ShutDown,
    /// `shut down in recovery`: a standby that stopped cleanly.
    ShutDownInRecovery,
    /// `shutting down`
    ShuttingDown,
    /// `in crash recovery`
    InCrashRecovery,
    /// `in archive recovery`: a standby, running or crashed.
    InArchiveRecovery,
    /// `in production`: a primary, running or crashed.
    InProduction,
}

/// The postmaster.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Process {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// No postmaster (a zombie is dead).
    Absent,
    /// A postmaster is there.
    Alive {
        /// Its process id.
        pid: Pid,
        /// What its status line (or, failing that, a connection) says.
        phase: Phase,
    },
}

/// The phase of a living postmaster, from line 8 of `postmaster.pid`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Phase {
    /// Not accepting connections yet.
    Starting,
    /// Accepting connections.
    Ready,
    /// Asked to stop.
    Stopping,
}

/// The answer to the monitoring query.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Sql {
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// A primary's current timeline; a standby's replayed timeline (from `pg_control_recovery`/receiver); 0 if unknown.
    pub timeline: Timeline,
    /// Primary: flush position. Standby: 0.
    pub flushed: Lsn,
    /// Standby: position received and flushed to disk.
    pub received: Lsn,
    /// Standby: position replayed.
    pub replayed: Lsn,
    /// Standby: replay is paused.
    pub replay_paused: bool,
    /// Standby: it is, since the primary has more of what a standby may not have less of (`max_connections` ...): only a
    /// restart, with what is configured by now or with what the primary has, lets replay go on.
    #[cfg_attr(feature = "serde", serde(default))]
    pub outgrown: bool,
    /// Standby: the WAL receiver, if one runs.
    pub receiver: Option<Receiver>,
    /// Standby: milliseconds since the Unix epoch of the last replayed transaction.
    pub replayed_at: Option<i64>,
    /// `primary_conninfo` is not empty.
    pub upstream_set: bool,
    /// `restore_command` is not empty.
    #[cfg_attr(feature = "serde", serde(default))]
    pub restores: bool,
    /// WAL senders.
    pub senders: Vec<Sender>,
    /// Replication slots.
    pub slots: Vec<Slot>,
    /// `server_version_num`.
    pub server_version: u32,
    /// `pg_postmaster_start_time()`, microseconds since the Unix epoch.
    pub postmaster_start_us: i64,
    /// Parameters whose change waits for a restart: name, old value, new value.
    pub pending_restart: Vec<(String, String, String)>,
}

impl Sql {
    /// Where a standby has its WAL from, in Patroni's words; nothing of a primary, or of one that waits for it.
    pub fn replication_state(&self) -> Option<&'static str> {
        let streams = self.receiver.as_ref().is_some_and(|receiver| receiver.streaming);
        match (self.in_recovery, streams, self.restores) {
            (true, true, _) => Some("streaming"),
            (true, false, true) => Some("in archive recovery"),
            (true, false, false) | (false, _, _) => None,
        }
    }
}

/// A WAL receiver.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Receiver {
    /// Its process id.
    pub pid: i32,
    /// It is streaming (`status = 'streaming'`).
    pub streaming: bool,
    /// The timeline that it receives.
    pub timeline: Timeline,
    /// The last position that its sender reported (`latest_end_lsn`).
    pub latest_end: Lsn,
    /// `host:port` of its sender.
    pub upstream: String,
}

/// A WAL sender.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Sender {
    /// `application_name`: the member's name.
    pub application_name: Member,
    /// `usename`.
    pub user: String,
    /// `client_addr`.
    pub address: Option<String>,
    /// `state`.
    pub state: String,
    /// `sync_state`.
    pub sync_state: String,
    /// `sync_priority`.
    pub sync_priority: i32,
    /// `flush_lsn`.
    pub flushed: Lsn,
    /// Age of `reply_time` by the primary's own clock when asked; `None` if there was no reply yet.
    pub reply_age: Option<Duration>,
}

/// A replication slot.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Slot {
    /// `slot_name`.
    pub name: String,
    /// `slot_type = 'physical'`.
    pub physical: bool,
    /// `database`; empty for a physical one.
    pub database: String,
    /// `plugin`; empty for a physical one.
    pub plugin: String,
    /// `active`.
    pub active: bool,
    /// `restart_lsn`; 0 if it has reserved nothing.
    pub restart: Lsn,
    /// It has an `xmin`: dead rows that its reader may still see are kept.
    pub pins_rows: bool,
    /// `wal_status = 'lost'`.
    pub lost: bool,
}

/// Where a standby streams, clones or rewinds from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Upstream {
    /// The member.
    pub member: Member,
    /// Its host, from its `conn_url`.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// How PostgreSQL is to start.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum StartAs {
    /// In place as primary: only the node whose epoch is the store's record, and where nobody led since.
    Primary,
    /// As a standby of `upstream`, or of nobody.
    Standby(Option<Upstream>),
}

/// How PostgreSQL is to stop.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum StopMode {
    /// SIGINT: sessions are ended, WAL senders drain, a shutdown checkpoint is written.
    Fast,
    /// SIGQUIT, then the hard way: recovery will be needed.
    Immediate,
}
