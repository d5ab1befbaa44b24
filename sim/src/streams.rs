//! WAL on its way: from a server's flushed WAL to a standby's receiver, its disk, its replay, and the word of it back.

use matriarch_core::id::{Lsn, Pid};
use matriarch_core::view::postgres::Phase;

use crate::mutant::Mutant;
use crate::net::{End, Plane};
use crate::node::NodeId;
use crate::postgres::wal::{Place, Record};
use crate::postgres::{Crash, Outgoing, Postmaster, RECEIVER_TIMEOUT, SEGMENT_BYTES, SENDER_TIMEOUT, Stream};
use crate::time::{Time, ms};
use crate::world::{Due, PERMANENT_SLOT, ServerStep, World};

impl World {
    /// Those who streamed from a postmaster that is gone, and whom it streamed from, hear of it. Where a host has lost
    /// its power there is nobody to tell them: they find out in their own time.
    pub fn streams_break(&mut self, node: NodeId, gone: &Postmaster, how: Crash) {
        for other in 0..self.nodes.len() {
            let standby = NodeId(other);
            let Some(pm) = &self.nodes[other].server.postmaster else { continue };
            if let Some(stream) = pm.stream.filter(|stream| (stream.from, stream.pid) == (node, gone.pid)) {
                let what = ServerStep::StreamLost { from: node, connected: stream.connected };
                let lost = Due::Server { node: standby, pid: pm.pid, what };
                match how {
                    Crash::Killed => self.send((Plane::Replication, End::Node(node), End::Node(standby)), lost),
                    Crash::PowerLoss => self.later(RECEIVER_TIMEOUT, lost),
                }
            }
        }
        if let Some(stream) = gone.stream {
            let lost = Due::SenderLost { node: stream.from, pid: stream.pid, to: node, connected: stream.connected };
            match how {
                Crash::Killed => self.send((Plane::Replication, End::Node(node), End::Node(stream.from)), lost),
                Crash::PowerLoss => self.later(SENDER_TIMEOUT, lost),
            }
        }
    }

    /// A sender finds out that its standby is gone.
    pub fn sender_lost(&mut self, node: NodeId, pid: Pid, to: NodeId, connected: Time) {
        let server = &mut self.nodes[node.0].server;
        let Some(pm) = server.postmaster.as_mut().filter(|pm| pm.pid == pid) else { return };
        if pm.senders.get(&to).is_some_and(|outgoing| outgoing.connected == connected) {
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
            let what = ServerStep::StreamLost { from, connected: stream.connected };
            let lost = Due::Server { node: standby, pid: pm.pid, what };
            self.later(ms(1), lost);
        }
        self.drain(from);
    }

    /// A receiver tries to connect.
    pub fn connect(&mut self, node: NodeId, pid: Pid) {
        let again = Due::Server { node, pid, what: ServerStep::Connect };
        let server = &self.nodes[node.0].server;
        let (Some(pm), Some(on_disk)) = (&server.postmaster, server.cluster()) else { return };
        // Whoever was told to promote asks for no more WAL: PostgreSQL looks for that before it starts a receiver.
        if !pm.in_recovery || pm.stream.is_some() || pm.promoting.is_some() {
            return;
        }
        if pm.stopping.is_some() || pm.recovers_in_place {
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
        // `primary_slot_name` is its own name.
        let slot = self.names[node.0].as_str();
        let fits = |theirs| self.may_stream(theirs, mine) || self.mutant == Some(Mutant::StreamsWhateverComes);
        let theirs = source.cluster().filter(|on_disk| on_disk.slots.contains_key(slot)).map(|on_disk| on_disk.flushed);
        let Some(theirs) = theirs.filter(|theirs| reachable && accepts && fits(*theirs)) else {
            self.later(ms(self.pace.reconnect), again);
            return;
        };
        let (now, newest) = (self.now, self.wal.timeline(theirs));
        let source = self.nodes[from.0].server.postmaster.as_mut().expect("it accepts");
        let from_pid = source.pid;
        source.senders.insert(node, Outgoing { pid, connected: now, sent: mine, flushed: mine, heard: now });
        let server = &mut self.nodes[node.0].server;
        if let Some(pm) = &mut server.postmaster {
            pm.stream = Some(Stream { from, pid: from_pid, connected: now, latest: self.wal.lsn(theirs) });
        }
        if let Some(on_disk) = server.cluster_mut() {
            on_disk.newest = on_disk.newest.max(newest);
        }
        server.flush();
        self.trace.note(now, node, '\\', || format!("streams from {}", self.names[from.0]));
        self.check_pledge(node);
        self.pump(from);
    }

    /// A receiver asks for the file of WAL that it has come to from its beginning: who has that is accepted as a source,
    /// also where it has less. Then nothing comes that is new until it has more.
    fn may_stream(&self, theirs: Place, mine: Place) -> bool {
        let (there, here) = (self.wal.lsn(theirs).0, self.wal.lsn(mine).0);
        let begins = here - here % u64::from(SEGMENT_BYTES);
        let lags = self.wal.timeline(theirs) == self.wal.timeline(mine) && self.wal.contains(mine, theirs);
        self.wal.contains(theirs, mine) || (lags && begins <= there)
    }

    /// Sends what standbys have not been sent.
    pub fn pump(&mut self, from: NodeId) {
        self.consumer_reads(from);
        let server = &mut self.nodes[from.0].server;
        let Some(end) = server.cluster().map(|on_disk| on_disk.flushed) else { return };
        let Some(pm) = &mut server.postmaster else { return };
        let from_pid = pm.pid;
        let (mut news, mut ahead) = (Vec::new(), Vec::new());
        for (to, outgoing) in &mut pm.senders {
            // One that had more: either this server has not come to that yet, or it has begun a timeline before it, and the
            // stream ends where the old one does.
            let (had, goes_on) = (outgoing.sent, self.wal.timeline(outgoing.sent) == self.wal.timeline(end));
            if self.wal.contains(had, end) {
                continue;
            }
            if goes_on || self.wal.contains(end, had) {
                outgoing.sent = end;
                news.push((*to, outgoing.pid));
            } else {
                ahead.push(*to);
            }
        }
        for node in ahead {
            self.stream_dies(node, from);
        }
        for (node, pid) in news {
            let link = (Plane::Replication, End::Node(from), End::Node(node));
            self.send(link, Due::Wal { node, pid, from, from_pid, to: end });
        }
    }

    /// Whoever reads through the permanent slot is wherever there is a primary. It confirms what it was sent once it is sent
    /// more.
    fn consumer_reads(&mut self, from: NodeId) {
        let server = &mut self.nodes[from.0].server;
        let Some(flushed) = server.cluster().map(|on_disk| self.wal.lsn(on_disk.flushed)) else { return };
        if !server.is_primary() {
            return;
        }
        let sent = self.consumer.sent.replace((from, flushed));
        let Some((_, confirms)) = sent.filter(|(node, _)| *node == from) else { return };
        let slot = server.cluster_mut().and_then(|on_disk| on_disk.slots.get_mut(PERMANENT_SLOT));
        if let Some(at) = slot.filter(|at| **at < confirms) {
            *at = confirms;
            self.consumer.confirmed = self.consumer.confirmed.max(confirms);
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
            on_disk.checkpoint = (Lsn(self.wal.lsn(to).0 - 0x70), self.wal.timeline(to));
            on_disk.saves_slots();
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
            // One connection: what was confirmed before comes before, and an overtaken word says nothing any more.
            if flushed.depth >= outgoing.flushed.depth {
                outgoing.flushed = flushed;
            }
        }
        let (slot, position) = (self.names[from.0].as_str(), self.wal.lsn(flushed));
        if let Some(at) = server.cluster_mut().and_then(|on_disk| on_disk.slots.get_mut(slot)) {
            *at = position.max(*at);
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
}
