//! A PostgreSQL server as far as its high availability goes: what is on its disk, its postmaster, whom it follows, and
//! what its dead postmaster may have left behind. Time passes in `world`; here is what each thing that happens does.

pub mod wal;

use std::collections::BTreeMap;

use matriarch_core::id::{Lsn, Member, Pid, SystemId, Timeline};
use matriarch_core::time::Duration;
use matriarch_core::view::postgres::{
    Cluster, ControlState, DataDir, Phase, Process, Receiver, Sender, Slot, Sql, StopMode,
};

use crate::node::NodeId;
use crate::settings::Settings;
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
    /// How much of that was made sure of: the rest does not survive the loss of power.
    pub flushed: Place,
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
    /// Its slots, and where they are. A copy gets none of them.
    pub slots: BTreeMap<String, Lsn>,
    /// Where they were when that was last written down: by a checkpoint, or when they were made.
    pub saved_slots: BTreeMap<String, Lsn>,
}

impl OnDisk {
    /// Its control file is a standby's: what it holds for sure is what replay must reach, not what its WAL holds.
    pub fn recovers(&self) -> bool {
        self.standby || matches!(self.state, ControlState::InArchiveRecovery | ControlState::ShutDownInRecovery)
    }
}

/// The size of a file of WAL: that of some dozens of records, so that slots get to be moved.
pub const SEGMENT_BYTES: u32 = 0x1000;

/// How much of PostgreSQL's work a crash leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// Its processes are killed: what was written is there, and everybody hears of it.
    Killed,
    /// The host loses its power: what was not made sure of is gone, and nobody hears of anything.
    PowerLoss,
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
    /// It was told to promote, onto a timeline of this number.
    pub promoting: Option<Timeline>,
    /// A backend was killed: it ended all others and recovers, with the postmaster that it is.
    pub recovers_in_place: bool,
    /// It is stopping so.
    pub stopping: Option<StopMode>,
    /// All but a session that takes no notice have gone.
    pub waits_for_session: bool,
    /// When it was started.
    pub since: Time,
    /// The stream that it receives.
    pub stream: Option<Stream>,
    /// What was received is about to be made sure of.
    pub flushing: bool,
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
    /// When it connected: what becomes of an earlier connection says nothing of this one.
    pub connected: Time,
    /// The last position that it heard of.
    pub latest: Lsn,
}

/// What a server sends to a standby.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// To which postmaster.
    pub pid: Pid,
    /// When it connected.
    pub connected: Time,
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
    /// All its processes are stopped by its guard's SIGSTOP.
    pub held: bool,
    /// All its processes stand still, and it was not the guard: another's SIGSTOP, a disk that hangs, a suspended host.
    pub frozen: bool,
    /// Not even SIGKILL ends them: they wait for a disk. `Some(true)`: it was sent and is due when they go on.
    pub stuck: Option<bool>,
    /// When the last checkpoint that was asked for was written.
    pub checkpointed: Option<Time>,
    /// One of its sessions takes no notice of a fast stop.
    pub deaf: bool,
    /// The last process id that was used.
    pub pids: i32,
    /// Replay is paused.
    pub replay_paused: bool,
    /// Nothing can be written: PostgreSQL panics where it has to.
    pub full: bool,
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
            frozen: false,
            stuck: None,
            checkpointed: None,
            deaf: false,
            pids: 100,
            replay_paused: false,
            full: false,
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

    /// Its processes do nothing, for whatever reason.
    pub fn stands_still(&self) -> bool {
        self.held || self.frozen
    }

    /// A postmaster runs and accepts connections, as far as anybody can tell.
    pub fn is_ready(&self) -> bool {
        let answers = |pm: &Postmaster| pm.phase == Phase::Ready && !pm.recovers_in_place;
        !self.stands_still() && self.postmaster.as_ref().is_some_and(answers)
    }

    /// A client could have a commit acknowledged now, if it reached the server.
    pub fn can_acknowledge(&self) -> bool {
        let orphans = self.orphans.is_some_and(|orphans| orphans.write);
        self.serves() || (orphans && !self.stands_still() && self.cluster().is_some())
    }

    /// A client that comes now could have a commit acknowledged: backends of a dead postmaster take no new one.
    pub fn serves(&self) -> bool {
        let postmaster = self.postmaster.as_ref().is_some_and(|pm| {
            pm.phase == Phase::Ready && !pm.in_recovery && pm.stopping.is_none() && !pm.recovers_in_place
        });
        postmaster && !self.stands_still() && self.cluster().is_some()
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
        let recovering = on_disk.recovers();
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
            newest_timeline: on_disk.newest,
            segment_bytes: SEGMENT_BYTES,
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
        let slots = on_disk.slots.iter().map(|(name, position)| Slot {
            name: name.clone(),
            physical: true,
            active: pm.senders.keys().any(|to| names[to.0].as_str() == name),
            restart: *position,
            ..Slot::default()
        });
        let end = wal.lsn(on_disk.flushed);
        let receiver = pm.stream.map(|stream| Receiver {
            pid: 7,
            streaming: true,
            timeline: wal.timeline(on_disk.end),
            latest_end: stream.latest,
            upstream: format!("{}:{PORT}", names[stream.from.0]),
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
            restores: false,
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
            flushed: end,
            replayed: end,
            consistent: end,
            state: ControlState::ShutDown,
            checkpoint: (wal.lsn(Place { depth: 0, ..end }), Timeline(1)),
            standby: false,
            upstream: None,
            tainted: None,
            newest: Timeline(1),
            slots: BTreeMap::new(),
            saved_slots: BTreeMap::new(),
        });
    }

    /// A copy of `source`, which runs.
    pub fn copy_of(&mut self, source: &OnDisk) {
        self.disk = Disk::Cluster(OnDisk {
            end: source.flushed,
            replayed: source.flushed,
            consistent: source.flushed,
            state: ControlState::InArchiveRecovery,
            standby: true,
            upstream: None,
            tainted: None,
            slots: BTreeMap::new(),
            saved_slots: BTreeMap::new(),
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
        on_disk.reads_slots();
        self.postmaster = Some(Postmaster {
            pid,
            phase: Phase::Starting,
            in_recovery: as_standby.is_some(),
            promoting: None,
            recovers_in_place: false,
            stopping: None,
            waits_for_session: false,
            since: now,
            stream: None,
            flushing: false,
            senders: BTreeMap::new(),
        });
        (self.held, self.frozen) = (false, false);
        pid
    }

    /// Recovery has got as far as the files go; accepts connections, if it is consistent.
    pub fn recovered(&mut self, wal: &Wal) -> bool {
        let paused = self.replay_paused;
        let Disk::Cluster(on_disk) = &mut self.disk else { return false };
        let Some(pm) = self.postmaster.as_mut().filter(|pm| pm.stopping.is_none()) else { return false };
        on_disk.flushed = on_disk.end;
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

    /// The promotion that was asked for ends: a new timeline begins where the WAL ends. It gets the number after the
    /// newest that there is a history file of; the executor has made files up to `timeline`.
    pub fn promoted(&mut self, wal: &mut Wal, timeline: Timeline) {
        let Some(on_disk) = self.cluster_mut() else { return };
        let timeline = on_disk.newest.max(wal.timeline(on_disk.end)).next().max(timeline);
        let begun = wal.fork(on_disk.end, timeline);
        on_disk.end = wal.append(begun, Record::EndOfRecovery);
        on_disk.flushed = on_disk.end;
        (on_disk.replayed, on_disk.consistent, on_disk.newest) = (on_disk.end, on_disk.end, timeline);
        (on_disk.standby, on_disk.upstream, on_disk.state) = (false, None, ControlState::InProduction);
        self.replay_paused = false;
        if let Some(pm) = &mut self.postmaster {
            (pm.in_recovery, pm.promoting, pm.stream) = (false, None, None);
        }
    }

    /// Writes a record and makes sure of it.
    pub fn write(&mut self, wal: &mut Wal, record: Record) -> Option<Place> {
        let on_disk = self.cluster_mut()?;
        let before = wal.lsn(on_disk.end);
        on_disk.end = wal.append(on_disk.end, record);
        on_disk.flushed = on_disk.end;
        (on_disk.replayed, on_disk.consistent) = (on_disk.end, on_disk.end);
        if record == Record::Checkpoint {
            on_disk.checkpoint = (before, wal.timeline(on_disk.end));
            on_disk.saves_slots();
        }
        Some(on_disk.end)
    }

    /// The postmaster and all of its processes are gone, whatever they were doing.
    pub fn dies(&mut self) {
        self.postmaster = None;
        self.orphans = None;
        (self.held, self.frozen, self.stuck, self.deaf) = (false, false, None, false);
    }

    /// What was written and not made sure of goes with the power, up to `depth`: the kernel may have written some of it.
    pub fn loses_power(&mut self, wal: &Wal, depth: u64) {
        let Some(on_disk) = self.cluster_mut() else { return };
        assert!(on_disk.flushed.depth <= depth && depth <= on_disk.end.depth, "what was made sure of is there");
        on_disk.end = wal.on_the_way(on_disk.end, depth);
        on_disk.flushed = on_disk.end;
    }

    /// A receiver ends, and makes sure of what it has written (`WalRcvDie`).
    pub fn receiver_ends(&mut self) -> Option<Stream> {
        let stream = self.postmaster.as_mut()?.stream.take()?;
        self.flush();
        Some(stream)
    }

    /// What was received is made sure of, and replayed.
    pub fn flush(&mut self) {
        let paused = self.replay_paused;
        let Some(on_disk) = self.cluster_mut() else { return };
        on_disk.flushed = on_disk.end;
        if !paused {
            on_disk.replayed = on_disk.end;
        }
    }

    /// The postmaster alone is gone.
    pub fn postmaster_dies(&mut self, backends: u32) {
        let Some(pm) = self.postmaster.take() else { return };
        let write = pm.phase == Phase::Ready && !pm.in_recovery && pm.stopping.is_none() && !pm.recovers_in_place;
        self.deaf = false;
        self.orphans = (backends > 0).then_some(Orphans { count: backends, write });
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

/// Where every server listens.
pub const PORT: u16 = 5432;

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
    /// A receiver's fsync.
    pub flush: (u64, u64),
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
            flush: (1, 12),
            copy: (500, 4000),
            rewind: (300, 2000),
            reconnect: 500,
        }
    }
}

impl Pace {
    /// That of a world.
    pub fn of(settings: &Settings) -> Self {
        let usual = Self::default();
        let checkpoint = if settings.slow_checkpoints { (2000, 30_000) } else { usual.checkpoint };
        Self { checkpoint, ..usual }
    }
}

/// How long a WAL receiver may be silent before its sender gives it up (`wal_sender_timeout`).
pub const SENDER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a WAL sender may be silent before its receiver gives it up (`wal_receiver_timeout`).
pub const RECEIVER_TIMEOUT: Duration = Duration::from_secs(60);
