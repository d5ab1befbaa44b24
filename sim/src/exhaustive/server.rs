//! PostgreSQL as small as two agents' decisions allow: who may acknowledge, which history, how far. What takes time in
//! the large world is a message here, so that anything may come between its beginning and its end.

use matriarch_core::id::{Lsn, Member, Pid, SystemId, Timeline};
use matriarch_core::time::Duration;
use matriarch_core::timeline::{Ancestor, History, Relation};
use matriarch_core::view::postgres::{Cluster, ControlState, DataDir, Phase, Process, Receiver, Sender, Sql};
use serde::Serialize;

/// What a server writes at once: how much does not matter, only that there is something.
const RECORD: u64 = 0x100;

/// A server.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Server {
    /// The database cluster on its disk.
    pub(super) disk: Option<Disk>,
    /// The postmaster.
    pub(super) postmaster: Option<Postmaster>,
    /// Backends of a dead postmaster live; whether they go on to commit.
    pub(super) orphans: Option<bool>,
    /// All its processes stand still.
    pub(super) held: bool,
    /// The last process id.
    pids: i32,
}

/// A database cluster on disk.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Disk {
    system: SystemId,
    /// The timelines that it is of.
    pub(super) history: History,
    /// Where its WAL ends.
    pub(super) end: Lsn,
    pub(super) state: ControlState,
    checkpoint: (Lsn, Timeline),
    /// `standby.signal`.
    pub(super) standby: bool,
    /// `primary_conninfo`.
    pub(super) upstream: Option<usize>,
}

/// A postmaster.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Postmaster {
    pub(super) pid: Pid,
    pub(super) phase: Phase,
    pub(super) in_recovery: bool,
    /// It was told to promote onto this timeline; 0 if it was not.
    promotes_onto: Timeline,
}

impl Server {
    pub(super) fn new() -> Self {
        Self { disk: None, postmaster: None, orphans: None, held: false, pids: 100 }
    }

    /// A client could have a commit acknowledged now, if it reached the server.
    pub(super) fn can_acknowledge(&self) -> bool {
        self.serves() || (!self.held && self.orphans == Some(true))
    }

    /// A client that comes now could have a commit acknowledged.
    pub(super) fn serves(&self) -> bool {
        !self.held && self.is_primary()
    }

    /// It is a primary, whether held or not.
    pub(super) fn is_primary(&self) -> bool {
        self.postmaster.as_ref().is_some_and(|pm| pm.phase == Phase::Ready && !pm.in_recovery)
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.held && self.postmaster.as_ref().is_some_and(|pm| pm.phase == Phase::Ready)
    }

    pub(super) fn pid(&self) -> Option<Pid> {
        self.postmaster.as_ref().map(|pm| pm.pid)
    }

    pub(super) fn process(&self) -> Process {
        self.postmaster.as_ref().map_or(Process::Absent, |pm| Process::Alive { pid: pm.pid, phase: pm.phase })
    }

    pub(super) fn data(&self) -> DataDir {
        let Some(disk) = &self.disk else { return DataDir::Empty };
        let (min, min_timeline) = if disk.standby { (disk.end, disk.history.timeline) } else { (Lsn(0), Timeline(0)) };
        DataDir::Cluster(Cluster {
            system_id: disk.system,
            major_version: 15,
            state: disk.state,
            checkpoint: disk.checkpoint.0,
            checkpoint_timeline: disk.checkpoint.1,
            min_recovery: min,
            min_recovery_timeline: min_timeline,
            rewindable: true,
            standby_signal: disk.standby,
            backup_label: false,
            tainted: None,
            history: disk.history.clone(),
            newest_timeline: disk.history.timeline,
            segment_bytes: 16 << 20,
        })
    }

    /// The answer to the monitoring query; `streams`: from or to the other server.
    pub(super) fn sql(&self, streams: bool, other: &Member) -> Option<Sql> {
        let (pm, disk) = (self.postmaster.as_ref().filter(|_| self.is_ready())?, self.disk.as_ref()?);
        let timeline = disk.history.timeline;
        let mut sql = Sql { in_recovery: pm.in_recovery, timeline, server_version: 150_018, ..Sql::default() };
        if pm.in_recovery {
            (sql.received, sql.replayed, sql.upstream_set) = (disk.end, disk.end, disk.upstream.is_some());
            let upstream = other.as_str().to_owned() + ":5432";
            let receiver = Receiver { pid: 7, streaming: true, timeline, latest_end: disk.end, upstream };
            sql.receiver = streams.then_some(receiver);
        } else {
            sql.flushed = disk.end;
            let sender = Sender {
                application_name: other.clone(),
                state: "streaming".into(),
                flushed: disk.end,
                reply_age: Some(Duration::ZERO),
                ..Sender::default()
            };
            sql.senders = streams.then_some(sender).into_iter().collect();
        }
        Some(sql)
    }

    pub(super) fn initdb(&mut self, system: SystemId) {
        let history = History::first(Timeline(1));
        let (state, checkpoint) = (ControlState::ShutDown, (Lsn(RECORD), Timeline(1)));
        let end = Lsn(2 * RECORD);
        self.disk = Some(Disk { system, history, end, state, checkpoint, standby: false, upstream: None });
    }

    /// What a clone or a rewind leaves: a copy that is to be started as a standby.
    pub(super) fn copy_of(&mut self, source: &Disk) {
        let state = ControlState::InArchiveRecovery;
        self.disk = Some(Disk { state, standby: true, upstream: None, ..source.clone() });
    }

    /// A postmaster comes up; `Some`: as a standby of that server, or of none.
    pub(super) fn fork(&mut self, as_standby: Option<Option<usize>>) {
        assert!(self.postmaster.is_none() && self.orphans.is_none(), "one server a directory");
        let disk = self.disk.as_mut().expect("PostgreSQL needs a database cluster to start on");
        (disk.standby, disk.upstream) = (as_standby.is_some(), as_standby.flatten());
        self.pids += 1;
        let pid = Pid(self.pids);
        let (phase, in_recovery, promotes_onto) = (Phase::Starting, as_standby.is_some(), Timeline(0));
        self.postmaster = Some(Postmaster { pid, phase, in_recovery, promotes_onto });
        self.held = false;
    }

    /// Recovery is over: it accepts connections.
    pub(super) fn recovered(&mut self) {
        let (Some(pm), Some(disk)) = (&mut self.postmaster, &mut self.disk) else { return };
        pm.phase = Phase::Ready;
        disk.state = if pm.in_recovery { ControlState::InArchiveRecovery } else { ControlState::InProduction };
        if !pm.in_recovery {
            self.write();
        }
    }

    /// Nothing shows yet.
    pub(super) fn is_told_to_promote(&mut self, timeline: Timeline) {
        if let Some(pm) = &mut self.postmaster {
            pm.promotes_onto = timeline;
        }
    }

    /// A promotion ends: a new timeline begins where the WAL ends.
    pub(super) fn promoted(&mut self) {
        let (Some(pm), Some(disk)) = (&mut self.postmaster, &mut self.disk) else { return };
        let timeline = disk.history.timeline;
        disk.history.ancestors.push(Ancestor { timeline, end: disk.end, reason: String::new() });
        disk.history.timeline = timeline.next().max(pm.promotes_onto);
        (disk.standby, disk.upstream, disk.state) = (false, None, ControlState::InProduction);
        (pm.in_recovery, pm.promotes_onto) = (false, Timeline(0));
        self.write();
    }

    /// A running standby turns to another source, or to none.
    pub(super) fn turn(&mut self, to: Option<usize>) {
        if let Some(disk) = &mut self.disk {
            disk.upstream = to;
        }
    }

    /// Something is written, and may be acknowledged.
    pub(super) fn write(&mut self) {
        if let Some(disk) = &mut self.disk {
            disk.end.0 += RECORD;
        }
    }

    pub(super) fn checkpoint(&mut self) {
        if let Some(disk) = &mut self.disk {
            disk.checkpoint = (disk.end, disk.history.timeline);
            disk.end.0 += RECORD;
        }
    }

    /// A fast stop has come to its end.
    pub(super) fn shut_down(&mut self) {
        let recovering = self.postmaster.take().is_some_and(|pm| pm.in_recovery);
        if let Some(disk) = &mut self.disk {
            disk.state = if recovering { ControlState::ShutDownInRecovery } else { ControlState::ShutDown };
        }
        self.held = false;
    }

    /// Every process is gone, whatever it was doing.
    pub(super) fn dies(&mut self) {
        (self.postmaster, self.orphans, self.held) = (None, None, false);
    }

    /// The postmaster alone is gone.
    pub(super) fn postmaster_dies(&mut self) {
        let Some(pm) = self.postmaster.take() else { return };
        self.orphans = Some(pm.phase == Phase::Ready && !pm.in_recovery);
    }

    /// Everything that this server holds is on the way to what the other holds.
    pub(super) fn is_prefix_of(&self, other: &Self) -> bool {
        let (Some(mine), Some(theirs)) = (&self.disk, &other.disk) else { return false };
        let relation = mine.history.relation(mine.end, &theirs.history, theirs.end);
        matches!(relation, Relation::Equal | Relation::Behind)
    }

    /// Where this server's history leaves the other's.
    pub(super) fn leaves(&self, other: &Self) -> Option<Lsn> {
        let (mine, theirs) = (self.disk.as_ref()?, other.disk.as_ref()?);
        match mine.history.relation(mine.end, &theirs.history, theirs.end) {
            Relation::Equal | Relation::Behind => None,
            Relation::Ahead => Some(theirs.end),
            Relation::Diverged { at } => Some(at),
        }
    }
}
