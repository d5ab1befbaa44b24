//! What happens to a whole host, to its agent, or to its clocks: power that fails, a suspend, SIGSTOP, a wall clock that
//! is set.

use std::time::Duration;

use crate::node::NodeId;
use crate::postgres::Crash;
use crate::time::ms;
use crate::world::{Due, World};

/// After a suspend a guard that is due needs a moment to wake and to stop PostgreSQL (`docs/time.md`).
const WAKING: Duration = Duration::from_millis(50);

impl World {
    /// The power fails: nobody is told, and what was not on disk is not there.
    pub(super) fn host_crashes(&mut self, node: NodeId) {
        let host = &mut self.nodes[node.0];
        (host.suspended, host.asleep) = (false, Vec::new());
        host.guard = None;
        self.agent_gone(node);
        self.nodes[node.0].up = false;
        self.crashes(node, Crash::PowerLoss);
    }

    pub(super) fn host_comes_back(&mut self, node: NodeId) {
        let boots_for = self.host_random.between(2000, 20_000);
        self.nodes[node.0].clock.begins_anew(self.now, ms(boots_for));
        self.forget_told(node);
        self.nodes[node.0].up = true;
        self.later(ms(500), Due::StartAgent(node));
    }

    /// The host stands still. CLOCK_BOOTTIME goes on, and nothing else.
    pub(super) fn host_is_suspended(&mut self, node: NodeId) {
        let host = &mut self.nodes[node.0];
        if host.up {
            (host.suspended, host.server.frozen) = (true, true);
        }
    }

    /// It goes on: what came in meanwhile is there, and every timer is due, in the order in which they were.
    pub(super) fn host_wakes(&mut self, node: NodeId) {
        let now = self.now;
        let host = &mut self.nodes[node.0];
        if !std::mem::take(&mut host.suspended) {
            return;
        }
        host.woke = Some(now);
        let asleep = std::mem::take(&mut host.asleep);
        for what in asleep {
            self.later(Duration::from_micros(1), what);
        }
        self.processes_go_on(node);
    }

    /// It was suspended a moment ago, and its guard may still be about to look at the clock.
    pub fn is_waking(&self, node: NodeId) -> bool {
        self.nodes[node.0].woke.is_some_and(|woke| self.now.since(woke) < WAKING)
    }

    /// The agent goes on: everything that came in meanwhile is there at once.
    pub(super) fn thaw(&mut self, node: NodeId) {
        let Some(agent) = self.nodes[node.0].agent.as_mut().filter(|agent| agent.frozen) else { return };
        agent.frozen = false;
        let boot = agent.boot;
        for message in std::mem::take(&mut agent.inbox) {
            self.later(Duration::from_micros(1), Due::agent(node, boot, message));
        }
    }

    /// What was written to the state directory cannot be read after a loss of power: the next agent finds nothing there.
    pub(super) fn files_torn(&mut self, node: NodeId) {
        let files = &mut self.nodes[node.0].files;
        (files.epoch, files.pledge) = (None, None);
    }

    /// The wall clock is set: schedules are all that goes by it.
    pub(super) fn wall_jumps(&mut self, node: NodeId, by_ms: i64) {
        self.nodes[node.0].clock.wall_off_ms += by_ms;
    }
}

/// The host on which it happens, for what needs a host that runs.
pub fn host_of(what: &Due) -> Option<NodeId> {
    match what {
        Due::Agent { node, .. }
        | Due::Guard { node, .. }
        | Due::GuardWakes { node, .. }
        | Due::GuardDone { node, .. }
        | Due::GuardReleases { node, .. }
        | Due::Server { node, .. }
        | Due::OrphansEnd { node }
        | Due::Wal { node, .. }
        | Due::WalFlushed { node, .. }
        | Due::WalReply { node, .. }
        | Due::SenderLost { node, .. }
        | Due::OperatorStarts { node }
        | Due::StartAgent(node) => Some(*node),
        Due::Store { .. }
        | Due::LeaseEnds
        | Due::StoreElected
        | Due::Client(_)
        | Due::Commit { .. }
        | Due::CommitReply { .. }
        | Due::Fault(_)
        | Due::FaultEnds(_)
        | Due::Backup
        | Due::Heal => None,
    }
}
