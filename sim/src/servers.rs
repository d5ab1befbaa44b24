//! What happens to PostgreSQL as time passes: starts, stops, promotions, crashes.

use matriarch_core::action::PostgresAction;
use matriarch_core::id::{Pid, Timeline};
use matriarch_core::time::Duration;
use matriarch_core::view::postgres::{ControlState, Phase, StopMode};

use crate::node::{Message, NodeId};
use crate::postgres::wal::Record;
use crate::postgres::{Crash, SENDER_TIMEOUT, Stream};
use crate::time::ms;
use crate::world::{Due, ServerStep, World};

/// So little is left to be written by a checkpoint after another.
const CHECKPOINT_AGE_MS: u64 = 40_000;

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
            // What was shut down as a primary stays so until it is in production.
            on_disk.state = match on_disk.state {
                _ if on_disk.standby => ControlState::InArchiveRecovery,
                ControlState::ShutDown => ControlState::ShutDown,
                _ => ControlState::InCrashRecovery,
            };
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
            self.monitoring_breaks(node, what);
            return;
        }
        if self.nodes[node.0].server.stands_still() {
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
            ServerStep::StreamLost { from, connected } => {
                let server = &mut self.nodes[node.0].server;
                let same = |stream: &Stream| (stream.from, stream.connected) == (from, connected);
                if server.postmaster.as_ref().and_then(|pm| pm.stream.as_ref()).is_some_and(same) {
                    server.receiver_ends();
                    self.later(ms(self.pace.reconnect), Due::Server { node, pid, what: ServerStep::Connect });
                    self.tell_waiters(node);
                }
            }
            ServerStep::RecoveredInPlace => self.recovered_in_place(node),
            ServerStep::GiveUpDraining => self.gone(node),
            ServerStep::Quit => self.gone(node),
            ServerStep::Asked { op, boot, asked, back } => self.monitored(node, (op, boot), asked, back),
        }
    }

    fn recovered(&mut self, node: NodeId, pid: Pid) {
        let ready = self.nodes[node.0].server.recovered(&self.wal);
        self.checks.ready_since[node.0] = self.now;
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

    /// A promotion onto a timeline of this number was asked for.
    pub fn promote(&mut self, node: NodeId, timeline: Timeline) {
        let takes = self.takes(self.pace.promote);
        if let Some(pm) = &mut self.nodes[node.0].server.postmaster {
            pm.promoting = Some(timeline);
            let pid = pm.pid;
            self.later(takes, Due::Server { node, pid, what: ServerStep::Promoted });
        }
    }

    fn promoted(&mut self, node: NodeId) {
        let server = &mut self.nodes[node.0].server;
        let promoting = server.postmaster.as_ref().filter(|pm| pm.stopping.is_none()).and_then(|pm| pm.promoting);
        let Some(timeline) = promoting else { return };
        if server.full {
            self.gone(node);
            return;
        }
        // Its receiver is gone, and whoever it received from hears of it.
        self.receiver_ends(node);
        let server = &mut self.nodes[node.0].server;
        server.promoted(&mut self.wal, timeline);
        if let Some(begun) =
            server.cluster().map(|on_disk| on_disk.end).filter(|_| self.checks.by_hand[node.0].is_some())
        {
            self.checks.hand_made.push(begun);
        }
        self.note_timeline(node);
        self.trace.note(self.now, node, '/', || "is promoted".into());
        self.became_writable(node);
        self.pump(node);
        self.looks_soon(node);
        self.poll_jobs(node);
    }

    /// A stop was asked for.
    pub fn stop(&mut self, node: NodeId, mode: StopMode) {
        let takes = self.takes(self.pace.stop) + self.shutdown_checkpoint(node);
        let server = &mut self.nodes[node.0].server;
        let stands_still = server.stands_still();
        let Some(pm) = &mut server.postmaster else { return };
        let pid = pm.pid;
        match mode {
            // SIGQUIT to one that stands still comes to nothing until it goes on. SIGKILL would, after half an hour
            // (`STOP_LIMIT` of the runtime): that is longer than a run.
            StopMode::Immediate if stands_still => {
                self.nodes[node.0].deferred.push(Due::Server { node, pid, what: ServerStep::Quit });
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

    /// Where checkpoints are slow, that of a primary's shutdown is, unless another has just been written.
    fn shutdown_checkpoint(&mut self, node: NodeId) -> Duration {
        let server = &self.nodes[node.0].server;
        let primary = server.postmaster.as_ref().is_some_and(|pm| !pm.in_recovery);
        let recent = server.checkpointed.is_some_and(|at| self.now.since(at) < ms(CHECKPOINT_AGE_MS));
        let slow = self.settings.slow_checkpoints && primary && !recent;
        if slow { self.takes(self.pace.checkpoint) } else { Duration::ZERO }
    }

    /// Sessions are over, the checkpoint of the shutdown is written; senders drain.
    fn shut_down(&mut self, node: NodeId, pid: Pid) {
        let server = &mut self.nodes[node.0].server;
        let Some(pm) = &mut server.postmaster else { return };
        if pm.in_recovery {
            self.shut_down_in_recovery(node, pid);
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
        // Its shutdown checkpoint comes when the last session has gone.
        if server.deaf {
            pm.waits_for_session = true;
            self.checks.waited_for_session = Some(self.now);
            self.coverage.count("stop that a session ignores");
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

    /// A session that took no notice of a stop has ended.
    pub fn session_ends(&mut self, node: NodeId) {
        let server = &mut self.nodes[node.0].server;
        server.deaf = false;
        let Some(pm) = &mut server.postmaster else { return };
        if std::mem::take(&mut pm.waits_for_session) {
            let pid = pm.pid;
            self.checks.waited_for_session = Some(self.now);
            self.later(ms(1), Due::Server { node, pid, what: ServerStep::ShutDown });
        }
    }

    /// A standby receives and replays no more; those who stream from it get the rest.
    fn shut_down_in_recovery(&mut self, node: NodeId, pid: Pid) {
        self.receiver_ends(node);
        if let Some(on_disk) = self.nodes[node.0].server.cluster_mut() {
            on_disk.state = ControlState::ShutDownInRecovery;
            on_disk.saves_slots();
            // What it must reach it must reach after the stop as well.
            if self.wal.contains(on_disk.replayed, on_disk.consistent) {
                on_disk.consistent = on_disk.replayed;
            }
        }
        self.pump(node);
        self.looks_soon(node);
        self.later(SENDER_TIMEOUT, Due::Server { node, pid, what: ServerStep::GiveUpDraining });
        self.drain(node);
    }

    /// A server that has shut down goes when its standbys have everything.
    pub fn drain(&mut self, node: NodeId) {
        let server = &self.nodes[node.0].server;
        let (Some(pm), Some(on_disk)) = (&server.postmaster, server.cluster()) else { return };
        if pm.stopping.is_some()
            && matches!(on_disk.state, ControlState::ShutDown | ControlState::ShutDownInRecovery)
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
        self.deferred_breaks(node);
        self.trace.note(self.now, node, '.', || format!("postmaster {} is gone ({how:?})", pm.pid.0));
        if pm.waits_for_session {
            self.checks.waited_for_session = Some(self.now);
        }
        if !self.is_restarting(node) {
            self.checks.by_hand[node.0] = None;
        }
        if std::mem::take(&mut self.nodes[node.0].started_by_hand) && how == Crash::Killed {
            let takes = self.takes(self.pace.start);
            self.later(takes, Due::OperatorStarts { node });
        }
        if let Some(timeline) = pm.promoting {
            self.half_promoted(node, timeline);
        }
        self.streams_break(node, &pm, how);
        self.guard_sees_death(node);
        self.looks_soon(node);
        self.poll_jobs(node);
    }

    /// What waited for its processes to go on waits for nothing.
    fn deferred_breaks(&mut self, node: NodeId) {
        for due in std::mem::take(&mut self.nodes[node.0].deferred) {
            if let Due::Server { what, .. } = due {
                self.monitoring_breaks(node, what);
            }
        }
    }

    /// Its agent restarts it: it comes up again as what it was.
    fn is_restarting(&self, node: NodeId) -> bool {
        let agent = self.nodes[node.0].agent.as_ref();
        agent.is_some_and(|agent| agent.jobs.values().any(|job| job.action == PostgresAction::Restart))
    }

    /// A promotion first removes the signal file, then writes the history file of its timeline, then its first record:
    /// a crash comes before, between or after.
    fn half_promoted(&mut self, node: NodeId, timeline: Timeline) {
        let how_far = self.postgres_random.below(3);
        let wal = &self.wal;
        let Some(on_disk) = self.nodes[node.0].server.cluster_mut().filter(|_| how_far > 0) else { return };
        on_disk.standby = false;
        if how_far > 1 {
            on_disk.newest = on_disk.newest.max(wal.timeline(on_disk.end)).next().max(timeline);
        }
        self.coverage.count("promotion cut short");
    }

    /// The postmaster alone is gone; its backends may go on.
    pub fn postmaster_killed(&mut self, node: NodeId, backends: u32, for_ms: u64) {
        let server = &mut self.nodes[node.0].server;
        let Some(pm) = server.postmaster.clone().filter(|_| server.stuck.is_none()) else { return };
        let pid = pm.pid;
        server.postmaster_dies(backends);
        self.deferred_breaks(node);
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
        self.poll_jobs(node);
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
