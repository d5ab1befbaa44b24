//! A PostgreSQL server as far as its high availability goes: what is on its disk, its postmaster, whom it follows, and
//! what its dead postmaster may have left behind. Time passes in `world`; here is what each thing that happens does.

pub mod wal;

use std::collections::{BTreeMap, BTreeSet};

use matriarch_core::id::{Lsn, Member, Pid, SystemId, Timeline};
use matriarch_core::time::Duration;
use matriarch_core::view::postgres::{
    Cluster, ControlState, DataDir, Phase, Process, Receiver, Sender, Slot, Sql, StopMode,
};

use crate::node::NodeId;
use crate::time::Time;
use wal::{Place, Record, Wal};

/// What is in a data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Disk {
    /// Nothing.
    Empty,
    /// Something that is no database cluster: one that is being made or copied.
    Unfinished,
    /// A database cluster.
    Cluster(OnDisk),
}

/// A database cluster on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OnDisk {
    /// Everything that is in its WAL files.
    pub end: Place,
    /// What has been replayed into its data files.
    pub replayed: Place,
    /// What replay must reach before it is consistent.
    pub consistent: Place,
    /// `pg_control`'s state.
    pub state: ControlState,
    /// Where its last checkpoint is, and on which timeline.
    pub checkpoint: (Lsn, Timeline),
    /// `standby.signal`.
    pub standby: bool,
    /// `primary_conninfo`.
    pub upstream: Option<NodeId>,
    /// It is being rewound, or was and it did not end.
    pub tainted: Option<&'static str>,
    /// The highest timeline that it has seen a history file of.
    pub newest: Timeline,
}

/// A running postmaster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Postmaster {
    /// Its process id.
    pub pid: Pid,
    /// What it says.
    pub phase: Phase,
    /// It replays and is read-only.
    pub in_recovery: bool,
    /// It was told to promote.
    pub promoting: bool,
    /// It is stopping so.
    pub stopping: Option<StopMode>,
    /// When it was started.
    pub since: Time,
    /// The stream that it receives.
    pub stream: Option<Stream>,
    /// Its slots.
    pub slots: BTreeSet<String>,
    /// Those that stream from it.
    pub senders: BTreeMap<NodeId, Outgoing>,
}

/// What a standby receives from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stream {
    /// From whom.
    pub from: NodeId,
    /// Which of its postmasters.
    pub pid: Pid,
    /// The last position that it heard of.
    pub latest: Lsn,
}

/// What a server sends to a standby.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// To which postmaster.
    pub pid: Pid,
    /// What was sent.
    pub sent: Place,
    /// What the standby said that it has on disk.
    pub flushed: Place,
    /// When the standby last spoke.
    pub heard: Time,
}

/// Backends that their postmaster's death left behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Orphans {
    /// How many.
    pub count: u32,
    /// They go on to commit.
    pub write: bool,
}

/// A server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    /// The data directory.
    pub disk: Disk,
    /// The postmaster.
    pub postmaster: Option<Postmaster>,
    /// What an earlier one left behind.
    pub orphans: Option<Orphans>,
    /// All its processes are stopped by SIGSTOP.
    pub held: bool,
    /// The last process id that was used.
    pub pids: i32,
    /// Replay is paused.
    pub replay_paused: bool,
    /// Whatever is started does not come up.
    pub hangs: bool,
}

impl Server {
    /// An empty directory.
    pub fn new() -> Self {
        Self {
            disk: Disk::Empty,
            postmaster: None,
            orphans: None,
            held: false,
            pids: 100,
            replay_paused: false,
            hangs: false,
        }
    }

    /// The database cluster on disk.
    pub fn cluster(&self) -> Option<&OnDisk> {
        match &self.disk {
            Disk::Cluster(cluster) => Some(cluster),
            Disk::Empty | Disk::Unfinished => None,
        }
    }

    /// The same, to be changed.
    pub fn cluster_mut(&mut self) -> Option<&mut OnDisk> {
        match &mut self.disk {
            Disk::Cluster(cluster) => Some(cluster),
            Disk::Empty | Disk::Unfinished => None,
        }
    }

    /// A postmaster runs and accepts connections, as far as anybody can tell.
    pub fn is_ready(&self) -> bool {
        !self.held && self.postmaster.as_ref().is_some_and(|pm| pm.phase == Phase::Ready)
    }

    /// A client could have a commit acknowledged now, if it reached the server.
    pub fn can_acknowledge(&self) -> bool {
        let postmaster = self
            .postmaster
            .as_ref()
            .is_some_and(|pm| pm.phase == Phase::Ready && !pm.in_recovery && pm.stopping.is_none());
        let orphans = self.orphans.is_some_and(|orphans| orphans.write);
        !self.held && (postmaster || orphans) && self.cluster().is_some()
    }

    /// It is a primary, whether held or not.
    pub fn is_primary(&self) -> bool {
        self.postmaster.as_ref().is_some_and(|pm| pm.phase == Phase::Ready && !pm.in_recovery)
    }

    /// What a look at the process finds.
    pub fn process(&self) -> Process {
        match &self.postmaster {
            Some(pm) => Process::Alive { pid: pm.pid, phase: pm.phase },
            None => Process::Absent,
        }
    }

    /// What a look at the directory finds.
    pub fn data(&self, wal: &Wal) -> DataDir {
        let on_disk = match &self.disk {
            // The left-overs of a clone or initdb are marked as such and read as empty.
            Disk::Empty | Disk::Unfinished => return DataDir::Empty,
            Disk::Cluster(on_disk) => on_disk,
        };
        let recovering = on_disk.standby;
        let min = if recovering { on_disk.consistent } else { Place { depth: 0, ..on_disk.end } };
        DataDir::Cluster(Cluster {
            system_id: wal.system(on_disk.end),
            major_version: 15,
            state: on_disk.state,
            checkpoint: on_disk.checkpoint.0,
            checkpoint_timeline: on_disk.checkpoint.1,
            min_recovery: if recovering { wal.lsn(min) } else { Lsn(0) },
            min_recovery_timeline: if recovering { wal.timeline(min) } else { Timeline(0) },
            rewindable: true,
            standby_signal: on_disk.standby,
            backup_label: false,
            tainted: on_disk.tainted.map(str::to_owned),
            history: wal.history(on_disk.end),
        })
    }

    /// The answer to the monitoring query, if it is answered.
    pub fn sql(&self, wal: &Wal, now: Time, names: &[Member]) -> Option<Sql> {
        let (pm, on_disk) = (self.postmaster.as_ref().filter(|_| self.is_ready())?, self.cluster()?);
        let senders = pm.senders.iter().map(|(to, outgoing)| Sender {
            application_name: names[to.0].clone(),
            state: "streaming".into(),
            flushed: wal.lsn(outgoing.flushed),
            reply_age: Some(now.since(outgoing.heard)),
            ..Sender::default()
        });
        let slots = pm.slots.iter().map(|name| Slot {
            name: name.clone(),
            physical: true,
            active: pm.senders.keys().any(|to| names[to.0].as_str() == name),
            restart: Lsn(0),
            lost: false,
        });
        let end = wal.lsn(on_disk.end);
        let receiver = pm.stream.map(|stream| Receiver {
            pid: 7,
            streaming: true,
            timeline: wal.timeline(on_disk.end),
            latest_end: stream.latest,
            // As a receiver names its sender: host and port of the member record.
            upstream: format!("{}:5432", names[stream.from.0]),
        });
        Some(Sql {
            in_recovery: pm.in_recovery,
            timeline: wal.timeline(if pm.in_recovery { on_disk.replayed } else { on_disk.end }),
            flushed: if pm.in_recovery { Lsn(0) } else { end },
            received: if pm.in_recovery { end } else { Lsn(0) },
            replayed: if pm.in_recovery { wal.lsn(on_disk.replayed) } else { Lsn(0) },
            replay_paused: self.replay_paused,
            receiver,
            upstream_set: on_disk.upstream.is_some(),
            senders: senders.collect(),
            slots: slots.collect(),
            server_version: 150_018,
            postmaster_start_us: pm.since.0 as i64 / 1000,
            ..Sql::default()
        })
    }

    /// A new database cluster.
    pub fn initdb(&mut self, wal: &mut Wal, system: SystemId) {
        let end = wal.begin(system);
        self.disk = Disk::Cluster(OnDisk {
            end,
            replayed: end,
            consistent: end,
            state: ControlState::ShutDown,
            checkpoint: (wal.lsn(Place { depth: 0, ..end }), Timeline(1)),
            standby: false,
            upstream: None,
            tainted: None,
            newest: Timeline(1),
        });
    }

    /// A copy of `source`, which runs.
    pub fn copy_of(&mut self, source: &OnDisk) {
        self.disk = Disk::Cluster(OnDisk {
            replayed: source.end,
            consistent: source.end,
            state: ControlState::InArchiveRecovery,
            standby: true,
            upstream: None,
            tainted: None,
            ..source.clone()
        });
    }

    /// A postmaster comes up.
    pub fn fork(&mut self, now: Time, as_standby: Option<Option<NodeId>>) -> Pid {
        assert!(self.postmaster.is_none() && self.orphans.is_none(), "one server a directory");
        self.pids += 1;
        let pid = Pid(self.pids);
        let on_disk = self.cluster_mut().expect("PostgreSQL needs a database cluster to start on");
        on_disk.standby = as_standby.is_some();
        on_disk.upstream = as_standby.flatten();
        self.postmaster = Some(Postmaster {
            pid,
            phase: Phase::Starting,
            in_recovery: as_standby.is_some(),
            promoting: false,
            stopping: None,
            since: now,
            stream: None,
            slots: BTreeSet::new(),
            senders: BTreeMap::new(),
        });
        self.held = false;
        pid
    }

    /// Recovery has got as far as the files go; accepts connections, if it is consistent.
    pub fn recovered(&mut self, wal: &Wal) -> bool {
        let paused = self.replay_paused;
        let Disk::Cluster(on_disk) = &mut self.disk else { return false };
        let Some(pm) = self.postmaster.as_mut().filter(|pm| pm.stopping.is_none()) else { return false };
        // Paused replay is not paused before consistency.
        on_disk.replayed =
            if paused && pm.in_recovery { wal.shared(on_disk.consistent, on_disk.end) } else { on_disk.end };
        if !wal.contains(on_disk.end, on_disk.consistent) {
            return false;
        }
        on_disk.state = if pm.in_recovery { ControlState::InArchiveRecovery } else { ControlState::InProduction };
        pm.phase = Phase::Ready;
        true
    }

    /// The promotion that was asked for ends: a new timeline begins where the WAL ends.
    pub fn promoted(&mut self, wal: &mut Wal) {
        let Some(on_disk) = self.cluster_mut() else { return };
        let timeline = Timeline(on_disk.newest.max(wal.timeline(on_disk.end)).0 + 1);
        let begun = wal.fork(on_disk.end, timeline);
        on_disk.end = wal.append(begun, Record::EndOfRecovery);
        (on_disk.replayed, on_disk.consistent, on_disk.newest) = (on_disk.end, on_disk.end, timeline);
        (on_disk.standby, on_disk.upstream, on_disk.state) = (false, None, ControlState::InProduction);
        self.replay_paused = false;
        if let Some(pm) = &mut self.postmaster {
            (pm.in_recovery, pm.promoting, pm.stream) = (false, false, None);
        }
    }

    /// Writes a record and makes sure of it.
    pub fn write(&mut self, wal: &mut Wal, record: Record) -> Option<Place> {
        let on_disk = self.cluster_mut()?;
        let before = wal.lsn(on_disk.end);
        on_disk.end = wal.append(on_disk.end, record);
        (on_disk.replayed, on_disk.consistent) = (on_disk.end, on_disk.end);
        if record == Record::Checkpoint {
            on_disk.checkpoint = (before, wal.timeline(on_disk.end));
        }
        Some(on_disk.end)
    }

    /// The postmaster and all of its processes are gone, whatever they were doing.
    pub fn dies(&mut self) {
        self.postmaster = None;
        self.orphans = None;
        self.held = false;
    }

    /// The postmaster alone is gone.
    pub fn postmaster_dies(&mut self, backends: u32) {
        let Some(pm) = self.postmaster.take() else { return };
        let write = pm.phase == Phase::Ready && !pm.in_recovery && pm.stopping.is_none();
        self.orphans = (backends > 0).then_some(Orphans { count: backends, write });
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

/// How long things take, in milliseconds: what was measured on a small machine, and its surroundings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// From the fork to the first connection, without anything to recover.
    pub start: (u64, u64),
    /// A recovery after a crash.
    pub recovery: (u64, u64),
    /// A fast stop up to its checkpoint.
    pub stop: (u64, u64),
    /// A promotion.
    pub promote: (u64, u64),
    /// A checkpoint.
    pub checkpoint: (u64, u64),
    /// initdb, a clone.
    pub copy: (u64, u64),
    /// pg_rewind, single-user mode.
    pub rewind: (u64, u64),
    /// Between two tries of a receiver.
    pub reconnect: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            start: (40, 200),
            recovery: (60, 2000),
            stop: (30, 70),
            promote: (28, 80),
            checkpoint: (5, 200),
            copy: (500, 4000),
            rewind: (300, 2000),
            reconnect: 500,
        }
    }
}

/// How long a WAL receiver may be silent before its sender gives it up (`wal_sender_timeout`).
pub const SENDER_TIMEOUT: Duration = Duration::from_secs(60);
