//! What happens to PostgreSQL as time passes: starts, stops, promotions, streams.

use matriarch_core::id::Pid;
use matriarch_core::time::Duration;
use matriarch_core::view::postgres::{ControlState, Phase, StopMode};

use crate::net::{End, Plane};
use crate::node::{Message, NodeId};
use crate::postgres::wal::{Place, Record};
use crate::postgres::{Outgoing, SENDER_TIMEOUT, Stream};
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
        if self.nodes[node.0].server.held {
            self.nodes[node.0].deferred.push(Due::Server { node, pid, what });
            return;
        }
        match what {
            ServerStep::Recovered if self.nodes[node.0].server.hangs => {
                self.later(ms(100), Due::Server { node, pid, what });
            }
            ServerStep::Recovered => self.recovered(node, pid),
            ServerStep::Promoted => self.promoted(node),
            ServerStep::ShutDown => self.shut_down(node, pid),
            ServerStep::Connect => self.connect(node, pid),
            ServerStep::StreamLost => {
                if let Some(pm) = &mut self.nodes[node.0].server.postmaster {
                    pm.stream = None;
                }
                self.later(ms(self.pace.reconnect), Due::Server { node, pid, what: ServerStep::Connect });
            }
            ServerStep::GiveUpDraining => self.gone(node),
        }
    }

    fn recovered(&mut self, node: NodeId, pid: Pid) {
        let ready = self.nodes[node.0].server.recovered(&self.wal);
        let in_recovery = self.nodes[node.0].server.postmaster.as_ref().is_some_and(|pm| pm.in_recovery);
        if ready && !in_recovery {
            // The end of a crash recovery is a checkpoint.
            self.nodes[node.0].server.write(&mut self.wal, Record::Checkpoint);
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
        server.promoted(&mut self.wal);
        self.note_timeline(node);
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
        let Some(pm) = &mut server.postmaster else { return };
        let pid = pm.pid;
        match mode {
            // SIGQUIT to one that stands still comes to nothing until it goes on.
            StopMode::Immediate if server.held => {}
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
        server.write(&mut self.wal, Record::Checkpoint);
        if let Some(on_disk) = server.cluster_mut() {
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

    /// PostgreSQL is gone, all of it.
    pub fn gone(&mut self, node: NodeId) {
        let server = &mut self.nodes[node.0].server;
        let Some(pm) = server.postmaster.take() else {
            server.dies();
            return;
        };
        server.dies();
        self.nodes[node.0].deferred.clear();
        self.trace.note(self.now, node, '.', || format!("postmaster {} is gone", pm.pid.0));
        self.streams_break(node, pm.pid);
        self.guard_sees_death(node);
        self.looks_soon(node);
        self.poll_jobs(node);
    }

    /// The postmaster alone is gone; its backends may go on.
    pub fn postmaster_killed(&mut self, node: NodeId, backends: u32, for_ms: u64) {
        let server = &mut self.nodes[node.0].server;
        let Some(pid) = server.postmaster.as_ref().map(|pm| pm.pid) else { return };
        server.postmaster_dies(backends);
        self.nodes[node.0].deferred.clear();
        self.trace.note(self.now, node, '!', || format!("postmaster {} is killed, {backends} backends live", pid.0));
        if backends > 0 {
            self.later(ms(for_ms), Due::OrphansEnd { node });
        }
        self.streams_break(node, pid);
        self.guard_sees_death(node);
        self.looks_soon(node);
        self.poll_jobs(node);
    }

    /// What a dead postmaster left behind ends by itself.
    pub fn orphans_end(&mut self, node: NodeId) {
        self.nodes[node.0].server.orphans = None;
    }

    /// Standbys of a postmaster that is gone hear of it, if they hear anything.
    fn streams_break(&mut self, node: NodeId, pid: Pid) {
        for other in 0..self.nodes.len() {
            let standby = NodeId(other);
            let Some(pm) = &self.nodes[other].server.postmaster else { continue };
            if pm.stream.is_some_and(|stream| (stream.from, stream.pid) == (node, pid)) {
                let pid = pm.pid;
                let link = (Plane::Replication, End::Node(node), End::Node(standby));
                self.send(link, Due::Server { node: standby, pid, what: ServerStep::StreamLost });
            }
        }
    }

    /// A connection that carried WAL is given up, at both of its ends.
    pub fn stream_dies(&mut self, standby: NodeId, from: NodeId) {
        if let Some(pm) = &mut self.nodes[from.0].server.postmaster {
            pm.senders.remove(&standby);
        }
        if let Some(pm) = &self.nodes[standby.0].server.postmaster
            && pm.stream.is_some_and(|stream| stream.from == from)
        {
            let pid = pm.pid;
            self.later(ms(1), Due::Server { node: standby, pid, what: ServerStep::StreamLost });
        }
        self.drain(from);
    }

    /// A receiver tries to connect.
    fn connect(&mut self, node: NodeId, pid: Pid) {
        let again = Due::Server { node, pid, what: ServerStep::Connect };
        let server = &self.nodes[node.0].server;
        let (Some(pm), Some(on_disk)) = (&server.postmaster, server.cluster()) else { return };
        if !pm.in_recovery || pm.stream.is_some() || pm.stopping.is_some() {
            return;
        }
        let Some(from) = on_disk.upstream else { return };
        let mine = on_disk.end;
        let (there, back) = (End::Node(from), End::Node(node));
        let reachable =
            !self.net.is_cut((Plane::Replication, back, there)) && !self.net.is_cut((Plane::Replication, there, back));
        let source = &self.nodes[from.0].server;
        let accepts = source.is_ready() && source.postmaster.as_ref().is_some_and(|pm| pm.stopping.is_none());
        let theirs = source.cluster().map(|on_disk| on_disk.end);
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
        self.trace.note(now, node, '\\', || format!("streams from {}", self.names[from.0]));
        self.pump(from);
    }

    /// Sends what standbys have not been sent.
    pub fn pump(&mut self, from: NodeId) {
        let server = &mut self.nodes[from.0].server;
        let Some(end) = server.cluster().map(|on_disk| on_disk.end) else { return };
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

    /// WAL reaches a standby's receiver: written, flushed, replayed.
    pub fn wal_arrives(&mut self, node: NodeId, pid: Pid, (from, from_pid): (NodeId, Pid), to: Place) {
        let server = &mut self.nodes[node.0].server;
        let Some(pm) = server.postmaster.as_mut().filter(|pm| pm.pid == pid) else { return };
        let Some(stream) = pm.stream.as_mut().filter(|stream| (stream.from, stream.pid) == (from, from_pid)) else {
            return;
        };
        if server.held {
            self.nodes[node.0].deferred.push(Due::Wal { node, pid, from, from_pid, to });
            return;
        }
        stream.latest = stream.latest.max(self.wal.lsn(to));
        let starting = pm.phase == Phase::Starting;
        let Some(on_disk) = server.cluster_mut() else { return };
        let mine = on_disk.end;
        // Messages overtake each other here, WAL does not: what is older says nothing new.
        if to.depth > mine.depth {
            if !self.wal.contains(to, mine) {
                self.violated("S15", format!("{node:?} received WAL that does not continue its own"));
                return;
            }
            self.receive(node, to);
        }
        let flushed = self.nodes[node.0].server.cluster().map_or(to, |on_disk| on_disk.end);
        let link = (Plane::Replication, End::Node(node), End::Node(from));
        self.send(link, Due::WalReply { node: from, pid: from_pid, from: node, flushed });
        if starting {
            let what = ServerStep::Recovered;
            self.later(ms(1), Due::Server { node, pid, what });
        }
        self.pump(node);
        self.tell_waiters(node);
    }

    fn receive(&mut self, node: NodeId, to: Place) {
        self.check_pledge(node);
        let server = &mut self.nodes[node.0].server;
        let paused = server.replay_paused;
        let checkpointed = self.wal.last(to) == Some(Record::Checkpoint);
        let (lsn, timeline) = (self.wal.lsn(to), self.wal.timeline(to));
        let Some(on_disk) = server.cluster_mut() else { return };
        on_disk.end = to;
        on_disk.newest = on_disk.newest.max(timeline);
        if !paused {
            on_disk.replayed = to;
            if checkpointed {
                // A restartpoint.
                on_disk.checkpoint = (matriarch_core::id::Lsn(lsn.0 - 0x70), timeline);
                if self.wal.contains(to, on_disk.consistent) {
                    on_disk.consistent = to;
                }
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
        let Some(pm) = &mut self.nodes[node.0].server.postmaster else { return };
        let Some(stream) = pm.stream.take() else { return };
        let source = &mut self.nodes[stream.from.0].server;
        if let Some(pm) = source.postmaster.as_mut().filter(|pm| pm.pid == stream.pid) {
            pm.senders.remove(&node);
        }
        self.drain(stream.from);
    }

    /// PostgreSQL goes on after a hold: what waited happens now.
    pub fn goes_on(&mut self, node: NodeId) {
        self.nodes[node.0].server.held = false;
        for what in std::mem::take(&mut self.nodes[node.0].deferred) {
            self.at(self.now, what);
        }
    }
}
