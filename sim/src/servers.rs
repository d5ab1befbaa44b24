//! What happens to PostgreSQL as time passes: starts, stops, promotions, streams.

use matriarch_core::id::{Pid, Timeline};
use matriarch_core::time::Duration;
use matriarch_core::view::postgres::{ControlState, Phase, StopMode};

use crate::net::{End, Plane};
use crate::node::{Message, NodeId};
use crate::postgres::wal::{Place, Record, Wal};
use crate::postgres::{
    Crash, IMMEDIATE_PATIENCE, OnDisk, Outgoing, Postmaster, RECEIVER_TIMEOUT, SENDER_TIMEOUT, Stream,
};
use crate::time::ms;
use crate::world::{Due, ServerStep, World};

impl World {
    /// A postmaster comes up.
    pub fn fork(&mut self, node: NodeId, as_standby: Option<Option<NodeId>>) -> Pid {
        let now = self.now;
        let server = &mut self.nodes[node.0].server;
        let clean = server
            .cluster()
            .is_some_and(|c| matches!(c.state, ControlState::ShutDown | ControlState::ShutDownInRecovery));
        let pid = server.fork(now, as_standby);
        if let Some(on_disk) = server.cluster_mut() {
            on_disk.state = ControlState::StartingUp;
        }
        let takes = self.takes(if clean { self.pace.start } else { self.pace.recovery });
        self.later(takes, Due::Server { node, pid, what: ServerStep::Recovered });
        self.trace.note(self.now, node, '^', || format!("postmaster {} starts, {as_standby:?}", pid.0));
        self.looks_soon(node);
        pid
    }

    /// Someone tells the agent that PostgreSQL changed: inotify, pidfd.
    pub fn looks_soon(&mut self, node: NodeId) {
        self.tell(node, Duration::from_micros(500), Message::Look);
    }

    /// A postmaster has got so far.
    pub fn server_step(&mut self, node: NodeId, pid: Pid, what: ServerStep) {
        if self.nodes[node.0].server.postmaster.as_ref().is_none_or(|pm| pm.pid != pid) {
            return;
        }
        if what == ServerStep::KilledHard {
            self.killed(node);
            return;
        }
        if self.nodes[node.0].server.stands_still() {
            self.nodes[node.0].deferred.push(Due::Server { node, pid, what });
            return;
        }
        match what {
            ServerStep::Recovered => self.recovered(node, pid),
            ServerStep::Promoted => self.promoted(node),
            ServerStep::ShutDown => self.shut_down(node, pid),
            ServerStep::Connect => self.connect(node, pid),
            ServerStep::StreamLost { from, of } => {
                let server = &mut self.nodes[node.0].server;
                let same = |stream: &Stream| (stream.from, stream.pid) == (from, of);
                if server.postmaster.as_ref().and_then(|pm| pm.stream.as_ref()).is_some_and(same) {
                    server.receiver_ends();
                    self.later(ms(self.pace.reconnect), Due::Server { node, pid, what: ServerStep::Connect });
                    self.tell_waiters(node);
                }
            }
            ServerStep::RecoveredInPlace => self.recovered_in_place(node),
            ServerStep::GiveUpDraining => self.gone(node),
            ServerStep::KilledHard => unreachable!("not even one that stands still escapes it"),
        }
    }

    fn recovered(&mut self, node: NodeId, pid: Pid) {
        let ready = self.nodes[node.0].server.recovered(&self.wal);
        let in_recovery = self.nodes[node.0].server.postmaster.as_ref().is_some_and(|pm| pm.in_recovery);
        if ready && !in_recovery {
            // The end of a crash recovery is a checkpoint.
            if !self.writes(node, Record::Checkpoint) {
                return;
            }
            self.became_writable(node);
        }
        if in_recovery {
            self.later(ms(5), Due::Server { node, pid, what: ServerStep::Connect });
        }
        self.looks_soon(node);
        self.poll_jobs(node);
    }

    /// A promotion was asked for.
    pub fn promote(&mut self, node: NodeId) {
        let takes = self.takes(self.pace.promote);
        if let Some(pm) = &mut self.nodes[node.0].server.postmaster {
            pm.promoting = true;
            let pid = pm.pid;
            self.later(takes, Due::Server { node, pid, what: ServerStep::Promoted });
        }
    }

    fn promoted(&mut self, node: NodeId) {
        let server = &mut self.nodes[node.0].server;
        if !server.postmaster.as_ref().is_some_and(|pm| pm.promoting && pm.stopping.is_none()) {
            return;
        }
        if server.full {
            self.gone(node);
            return;
        }
        server.promoted(&mut self.wal);
        if let Some(begun) =
            server.cluster().map(|on_disk| on_disk.end).filter(|_| self.checks.by_hand[node.0].is_some())
        {
            self.checks.hand_made.push(begun);
        }
        self.trace.note(self.now, node, '/', || "is promoted".into());
        self.became_writable(node);
        self.pump(node);
        self.looks_soon(node);
        self.poll_jobs(node);
    }

    /// A stop was asked for.
    pub fn stop(&mut self, node: NodeId, mode: StopMode) {
        let takes = self.takes(self.pace.stop);
        let server = &mut self.nodes[node.0].server;
        let stands_still = server.stands_still();
        let Some(pm) = &mut server.postmaster else { return };
        let pid = pm.pid;
        match mode {
            // SIGQUIT to one that stands still comes to nothing until it goes on, SIGKILL does.
            StopMode::Immediate if stands_still => {
                self.later(IMMEDIATE_PATIENCE, Due::Server { node, pid, what: ServerStep::KilledHard });
            }
            StopMode::Immediate => self.gone(node),
            StopMode::Fast => {
                if pm.stopping.is_none() {
                    pm.stopping = Some(mode);
                    if pm.phase == Phase::Ready {
                        pm.phase = Phase::Stopping;
                    }
                    self.later(takes, Due::Server { node, pid, what: ServerStep::ShutDown });
                }
            }
        }
        self.looks_soon(node);
    }

    /// Sessions are over, the checkpoint of the shutdown is written; senders drain.
    fn shut_down(&mut self, node: NodeId, pid: Pid) {
        let server = &mut self.nodes[node.0].server;
        let Some(pm) = &mut server.postmaster else { return };
        if pm.in_recovery {
            if let Some(on_disk) = server.cluster_mut() {
                on_disk.state = ControlState::ShutDownInRecovery;
                on_disk.consistent = on_disk.replayed;
            }
            self.gone(node);
            return;
        }
        if pm.phase == Phase::Starting {
            self.gone(node);
            return;
        }
        if pm.recovers_in_place {
            self.gone(node);
            return;
        }
        if !self.writes(node, Record::Checkpoint) {
            return;
        }
        if let Some(on_disk) = self.nodes[node.0].server.cluster_mut() {
            on_disk.state = ControlState::ShutDown;
        }
        self.pump(node);
        self.looks_soon(node);
        self.later(SENDER_TIMEOUT, Due::Server { node, pid, what: ServerStep::GiveUpDraining });
        self.drain(node);
    }

    /// A server that has shut down goes when its standbys have everything.
    fn drain(&mut self, node: NodeId) {
        let server = &self.nodes[node.0].server;
        let (Some(pm), Some(on_disk)) = (&server.postmaster, server.cluster()) else { return };
        if pm.stopping.is_some()
            && on_disk.state == ControlState::ShutDown
            && pm.senders.values().all(|outgoing| outgoing.flushed == on_disk.end)
        {
            self.gone(node);
        }
    }

    /// SIGKILL to every process of PostgreSQL; what waits for a disk dies when that answers. True if all is dead.
    pub fn killed(&mut self, node: NodeId) -> bool {
        if let Some(due) = &mut self.nodes[node.0].server.stuck {
            *due = true;
            return false;
        }
        self.gone(node);
        true
    }

    /// PostgreSQL is gone, all of it.
    pub fn gone(&mut self, node: NodeId) {
        self.crashes(node, Crash::Killed);
    }

    /// PostgreSQL is gone, and what it had in hand with it.
    pub fn crashes(&mut self, node: NodeId, how: Crash) {
        let depths = self.nodes[node.0].server.cluster().map(|on_disk| (on_disk.flushed.depth, on_disk.end.depth));
        if let Some((flushed, end)) = depths.filter(|_| how == Crash::PowerLoss) {
            let depth = self.postgres_random.between(flushed, end);
            self.nodes[node.0].server.loses_power(&self.wal, depth);
        }
        let server = &mut self.nodes[node.0].server;
        let pm = server.postmaster.take();
        server.dies();
        let Some(pm) = pm else { return };
        self.nodes[node.0].deferred.clear();
        self.trace.note(self.now, node, '.', || format!("postmaster {} is gone ({how:?})", pm.pid.0));
        self.checks.by_hand[node.0] = None;
        if std::mem::take(&mut self.nodes[node.0].started_by_hand) && how == Crash::Killed {
            let takes = self.takes(self.pace.start);
            self.later(takes, Due::OperatorStarts { node });
        }
        if pm.promoting {
            self.half_promoted(node);
        }
        self.streams_break(node, &pm, how);
        self.guard_sees_death(node);
        self.looks_soon(node);
        self.poll_jobs(node);
    }

    /// A promotion first removes the signal file, then writes the history file of its timeline, then its first record:
    /// a crash comes before, between or after.
    fn half_promoted(&mut self, node: NodeId) {
        let how_far = self.postgres_random.below(3);
        let timeline = |on_disk: &OnDisk, wal: &Wal| on_disk.newest.max(wal.timeline(on_disk.end));
        let wal = &self.wal;
        let Some(on_disk) = self.nodes[node.0].server.cluster_mut().filter(|_| how_far > 0) else { return };
        on_disk.standby = false;
        if how_far > 1 {
            on_disk.newest = Timeline(timeline(on_disk, wal).0 + 1);
        }
        self.coverage.count("promotion cut short");
    }

    /// The postmaster alone is gone; its backends may go on.
    pub fn postmaster_killed(&mut self, node: NodeId, backends: u32, for_ms: u64) {
        let server = &mut self.nodes[node.0].server;
        let Some(pm) = server.postmaster.clone().filter(|_| server.stuck.is_none()) else { return };
        let pid = pm.pid;
        server.postmaster_dies(backends);
        self.nodes[node.0].deferred.clear();
        self.trace.note(self.now, node, '!', || format!("postmaster {} is killed, {backends} backends live", pid.0));
        if backends > 0 {
            self.later(ms(for_ms), Due::OrphansEnd { node });
        }
        self.streams_break(node, &pm, Crash::Killed);
        self.guard_sees_death(node);
        self.looks_soon(node);
        self.poll_jobs(node);
    }

    /// What a dead postmaster left behind ends by itself.
    pub fn orphans_end(&mut self, node: NodeId) {
        self.nodes[node.0].server.orphans = None;
    }

    /// Those who streamed from a postmaster that is gone, and whom it streamed from, hear of it. Where a host has lost
    /// its power there is nobody to tell them: they find out in their own time.
    pub fn streams_break(&mut self, node: NodeId, gone: &Postmaster, how: Crash) {
        let of = gone.pid;
        for other in 0..self.nodes.len() {
            let standby = NodeId(other);
            let Some(pm) = &self.nodes[other].server.postmaster else { continue };
            if pm.stream.is_some_and(|stream| (stream.from, stream.pid) == (node, of)) {
                let what = ServerStep::StreamLost { from: node, of };
                let lost = Due::Server { node: standby, pid: pm.pid, what };
                match how {
                    Crash::Killed => self.send((Plane::Replication, End::Node(node), End::Node(standby)), lost),
                    Crash::PowerLoss => self.later(RECEIVER_TIMEOUT, lost),
                }
            }
        }
        if let Some(stream) = gone.stream {
            let lost = Due::SenderLost { node: stream.from, pid: stream.pid, to: node, of };
            match how {
                Crash::Killed => self.send((Plane::Replication, End::Node(node), End::Node(stream.from)), lost),
                Crash::PowerLoss => self.later(SENDER_TIMEOUT, lost),
            }
        }
    }

    /// A sender finds out that its standby is gone.
    pub fn sender_lost(&mut self, node: NodeId, pid: Pid, to: NodeId, of: Pid) {
        let server = &mut self.nodes[node.0].server;
        let Some(pm) = server.postmaster.as_mut().filter(|pm| pm.pid == pid) else { return };
        if pm.senders.get(&to).is_some_and(|outgoing| outgoing.pid == of) {
            pm.senders.remove(&to);
            self.drain(node);
        }
    }

    /// A connection that carried WAL is given up, at both of its ends.
    pub fn stream_dies(&mut self, standby: NodeId, from: NodeId) {
        if let Some(pm) = &mut self.nodes[from.0].server.postmaster {
            pm.senders.remove(&standby);
        }
        if let Some(pm) = &self.nodes[standby.0].server.postmaster
            && let Some(stream) = pm.stream.filter(|stream| stream.from == from)
        {
            let what = ServerStep::StreamLost { from, of: stream.pid };
            let lost = Due::Server { node: standby, pid: pm.pid, what };
            self.later(ms(1), lost);
        }
        self.drain(from);
    }

    /// A receiver tries to connect.
    fn connect(&mut self, node: NodeId, pid: Pid) {
        let again = Due::Server { node, pid, what: ServerStep::Connect };
        let server = &self.nodes[node.0].server;
        let (Some(pm), Some(on_disk)) = (&server.postmaster, server.cluster()) else { return };
        if !pm.in_recovery || pm.stream.is_some() || pm.stopping.is_some() || pm.recovers_in_place {
            return;
        }
        let Some(from) = on_disk.upstream else { return };
        let mine = on_disk.end;
        // The position that it asks for is what it has read from its files, and those it has made sure of.
        let (there, back) = (End::Node(from), End::Node(node));
        let reachable =
            !self.net.is_cut((Plane::Replication, back, there)) && !self.net.is_cut((Plane::Replication, there, back));
        let source = &self.nodes[from.0].server;
        let accepts = source.is_ready() && source.postmaster.as_ref().is_some_and(|pm| pm.stopping.is_none());
        let theirs = source.cluster().map(|on_disk| on_disk.flushed);
        let Some(theirs) = theirs.filter(|theirs| reachable && accepts && self.wal.contains(*theirs, mine)) else {
            self.later(ms(self.pace.reconnect), again);
            return;
        };
        let (now, newest) = (self.now, self.wal.timeline(theirs));
        let source = self.nodes[from.0].server.postmaster.as_mut().expect("it accepts");
        let from_pid = source.pid;
        source.senders.insert(node, Outgoing { pid, sent: mine, flushed: mine, heard: now });
        let server = &mut self.nodes[node.0].server;
        if let Some(pm) = &mut server.postmaster {
            pm.stream = Some(Stream { from, pid: from_pid, latest: self.wal.lsn(theirs) });
        }
        if let Some(on_disk) = server.cluster_mut() {
            on_disk.newest = on_disk.newest.max(newest);
        }
        server.flush();
        self.trace.note(now, node, '\\', || format!("streams from {}", self.names[from.0]));
        self.pump(from);
    }

    /// Sends what standbys have not been sent.
    pub fn pump(&mut self, from: NodeId) {
        let server = &mut self.nodes[from.0].server;
        let Some(end) = server.cluster().map(|on_disk| on_disk.flushed) else { return };
        let Some(pm) = &mut server.postmaster else { return };
        let from_pid = pm.pid;
        let mut news = Vec::new();
        for (to, outgoing) in &mut pm.senders {
            if outgoing.sent != end {
                outgoing.sent = end;
                news.push((*to, outgoing.pid));
            }
        }
        for (node, pid) in news {
            let link = (Plane::Replication, End::Node(from), End::Node(node));
            self.send(link, Due::Wal { node, pid, from, from_pid, to: end });
        }
    }

    /// WAL reaches a standby's receiver, and is written.
    pub fn wal_arrives(&mut self, node: NodeId, pid: Pid, (from, from_pid): (NodeId, Pid), to: Place) {
        let server = &mut self.nodes[node.0].server;
        let stands_still = server.stands_still();
        let Some(pm) = server.postmaster.as_mut().filter(|pm| pm.pid == pid) else { return };
        let Some(stream) = pm.stream.as_mut().filter(|stream| (stream.from, stream.pid) == (from, from_pid)) else {
            return;
        };
        if stands_still {
            self.nodes[node.0].deferred.push(Due::Wal { node, pid, from, from_pid, to });
            return;
        }
        stream.latest = stream.latest.max(self.wal.lsn(to));
        let flushes = std::mem::replace(&mut pm.flushing, true);
        let Some(on_disk) = server.cluster_mut() else { return };
        let mine = on_disk.end;
        // Messages overtake each other here, WAL does not: what is older says nothing new.
        if to.depth > mine.depth {
            if self.nodes[node.0].server.full {
                self.coverage.count("panic");
                self.gone(node);
                return;
            }
            if !self.wal.contains(to, mine) {
                self.violated("S15", format!("{node:?} received WAL that does not continue its own"));
                return;
            }
            self.check_pledge(node);
            let Some(on_disk) = self.nodes[node.0].server.cluster_mut() else { return };
            on_disk.end = to;
            on_disk.newest = on_disk.newest.max(self.wal.timeline(to));
        }
        if !flushes {
            let takes = self.takes(self.pace.flush);
            self.later(takes, Due::WalFlushed { node, pid });
        }
    }

    /// What was received is on disk: it is replayed, and the sender hears of it.
    pub fn wal_flushed(&mut self, node: NodeId, pid: Pid) {
        let server = &mut self.nodes[node.0].server;
        let stands_still = server.stands_still();
        let Some(pm) = server.postmaster.as_mut().filter(|pm| pm.pid == pid) else { return };
        if stands_still {
            self.nodes[node.0].deferred.push(Due::WalFlushed { node, pid });
            return;
        }
        pm.flushing = false;
        let (stream, starting) = (pm.stream, pm.phase == Phase::Starting);
        if !pm.in_recovery {
            return;
        }
        server.flush();
        self.restartpoint(node);
        let Some(flushed) = self.nodes[node.0].server.cluster().map(|on_disk| on_disk.flushed) else { return };
        if let Some(Stream { from, pid: from_pid, .. }) = stream {
            let link = (Plane::Replication, End::Node(node), End::Node(from));
            self.send(link, Due::WalReply { node: from, pid: from_pid, from: node, flushed });
        }
        if starting {
            let what = ServerStep::Recovered;
            self.later(ms(1), Due::Server { node, pid, what });
        }
        self.pump(node);
        self.tell_waiters(node);
    }

    /// A checkpoint that was replayed is one to begin from.
    fn restartpoint(&mut self, node: NodeId) {
        let server = &mut self.nodes[node.0].server;
        let Some(on_disk) = server.cluster_mut() else { return };
        let to = on_disk.replayed;
        if self.wal.last(to) == Some(Record::Checkpoint) {
            on_disk.checkpoint = (matriarch_core::id::Lsn(self.wal.lsn(to).0 - 0x70), self.wal.timeline(to));
            if self.wal.contains(to, on_disk.consistent) {
                on_disk.consistent = to;
            }
        }
    }

    /// Replay goes on after a pause.
    pub fn replay_goes_on(&mut self, node: NodeId) {
        self.nodes[node.0].server.replay_paused = false;
        let running = self.nodes[node.0].server.postmaster.as_ref().is_some_and(|pm| pm.phase == Phase::Ready);
        if let Some(on_disk) = self.nodes[node.0].server.cluster_mut().filter(|_| running) {
            on_disk.replayed = on_disk.end;
        }
        self.tell_waiters(node);
    }

    /// A standby has said what it has.
    pub fn wal_confirmed(&mut self, node: NodeId, pid: Pid, from: NodeId, flushed: Place) {
        let now = self.now;
        let server = &mut self.nodes[node.0].server;
        let Some(pm) = server.postmaster.as_mut().filter(|pm| pm.pid == pid) else { return };
        if let Some(outgoing) = pm.senders.get_mut(&from) {
            outgoing.heard = now;
            outgoing.flushed = flushed;
        }
        self.drain(node);
    }

    /// A receiver is ended, and the sender hears of it.
    pub fn receiver_ends(&mut self, node: NodeId) {
        let Some(stream) = self.nodes[node.0].server.receiver_ends() else { return };
        let source = &mut self.nodes[stream.from.0].server;
        if let Some(pm) = source.postmaster.as_mut().filter(|pm| pm.pid == stream.pid) {
            pm.senders.remove(&node);
        }
        self.drain(stream.from);
    }

    /// The guard's SIGCONT: whoever else has stopped them, they go on.
    pub fn goes_on(&mut self, node: NodeId) {
        let server = &mut self.nodes[node.0].server;
        server.held = false;
        if server.stuck.is_none() {
            server.frozen = false;
        }
        self.what_waited_happens(node);
    }

    /// What stopped the processes has ended. Those that the guard holds stay held, those that were killed are dead.
    pub fn processes_go_on(&mut self, node: NodeId) {
        let host = &mut self.nodes[node.0];
        host.server.frozen = host.suspended;
        let server = &mut host.server;
        if server.stuck.take() == Some(true) {
            self.gone(node);
        }
        self.what_waited_happens(node);
    }

    fn what_waited_happens(&mut self, node: NodeId) {
        if self.nodes[node.0].server.stands_still() {
            return;
        }
        for what in std::mem::take(&mut self.nodes[node.0].deferred) {
            self.at(self.now, what);
        }
    }
}
