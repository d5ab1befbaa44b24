//! What happens to PostgreSQL behind its agent's back: `pg_ctl` by hand, a backend that the kernel kills, a disk that is
//! full or hangs.

use matriarch_core::id::Timeline;
use matriarch_core::view::postgres::{ControlState, Phase, StopMode};

use crate::node::NodeId;
use crate::postgres::Crash;
use crate::postgres::wal::Record;
use crate::time::ms;
use crate::world::{Due, ServerStep, World};

impl World {
    /// `pg_ctl restart`.
    pub(super) fn operator_restarts(&mut self, node: NodeId) {
        if self.nodes[node.0].server.postmaster.is_some() {
            self.nodes[node.0].started_by_hand = true;
            self.checks.stopped_by_hand[node.0] = Some(self.now);
            self.stop(node, StopMode::Fast);
        }
    }

    /// `pg_ctl start`, unless the agent was faster.
    pub fn operator_starts(&mut self, node: NodeId) {
        let server = &self.nodes[node.0].server;
        let free = server.postmaster.is_none() && server.orphans.is_none() && self.nodes[node.0].up;
        let Some(on_disk) = server.cluster().filter(|on_disk| free && on_disk.tainted.is_none()) else { return };
        let as_standby = on_disk.standby.then_some(on_disk.upstream);
        self.coverage.count("start by hand");
        self.checks.started_by_hand[node.0] = Some(self.now);
        self.fork(node, as_standby);
        if as_standby.is_none() {
            self.checks.by_hand[node.0] = Some(self.now);
        }
    }

    /// It is a standby that takes the word.
    pub(super) fn can_be_promoted(&self, node: NodeId) -> bool {
        let server = &self.nodes[node.0].server;
        let free = server.postmaster.as_ref().is_some_and(|pm| pm.promoting.is_none() && pm.stopping.is_none());
        free && server.is_ready() && !server.is_primary()
    }

    /// `pg_ctl promote` of a standby.
    pub(super) fn operator_promotes(&mut self, node: NodeId) {
        if self.can_be_promoted(node) {
            self.coverage.count("promotion by hand");
            self.checks.by_hand[node.0] = Some(self.now);
            // PostgreSQL counts on by itself.
            self.promote(node, Timeline(0));
        }
    }

    /// There are backends whose death the postmaster answers by a recovery in place.
    pub(super) fn has_backends(&self, node: NodeId) -> bool {
        self.nodes[node.0].server.postmaster.as_ref().is_some_and(|pm| {
            let ready = pm.phase == Phase::Ready && pm.stopping.is_none();
            ready && pm.promoting.is_none() && !pm.recovers_in_place
        })
    }

    /// The kernel kills a backend: the postmaster ends all others, and recovers without dying itself.
    pub(super) fn backend_killed(&mut self, node: NodeId) {
        if !self.has_backends(node) {
            return;
        }
        let server = &mut self.nodes[node.0].server;
        let Some(pm) = &mut server.postmaster else { return };
        pm.recovers_in_place = true;
        let pid = pm.pid;
        let mut before = pm.clone();
        server.receiver_ends();
        if let Some(pm) = &mut server.postmaster {
            pm.senders.clear();
        }
        if let Some(on_disk) = server.cluster_mut().filter(|on_disk| !on_disk.standby) {
            on_disk.state = ControlState::InCrashRecovery;
        }
        before.flushing = false;
        self.coverage.count("crash in place");
        self.streams_break(node, &before, Crash::Killed);
        let takes = self.takes(self.pace.recovery);
        self.later(takes, Due::Server { node, pid, what: ServerStep::RecoveredInPlace });
        self.looks_soon(node);
    }

    /// The recovery in place is over.
    pub fn recovered_in_place(&mut self, node: NodeId) {
        let server = &mut self.nodes[node.0].server;
        let Some(pm) = &mut server.postmaster else { return };
        pm.recovers_in_place = false;
        let (pid, in_recovery, stops) = (pm.pid, pm.in_recovery, pm.stopping.is_some());
        if let Some(on_disk) = server.cluster_mut() {
            on_disk.reads_slots();
        }
        if in_recovery {
            self.later(ms(5), Due::Server { node, pid, what: ServerStep::Connect });
        } else if !stops && self.writes(node, Record::Checkpoint) {
            if let Some(on_disk) = self.nodes[node.0].server.cluster_mut() {
                on_disk.state = ControlState::InProduction;
            }
            self.pump(node);
        }
        self.looks_soon(node);
    }

    /// A record is written, unless the disk is full: then PostgreSQL panics.
    pub fn writes(&mut self, node: NodeId, record: Record) -> bool {
        if self.nodes[node.0].server.full {
            self.coverage.count("panic");
            self.gone(node);
            return false;
        }
        self.nodes[node.0].server.write(&mut self.wal, record).is_some()
    }
}
