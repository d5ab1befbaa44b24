//! What a fault does to the world, and what its end does.

use matriarch_core::action::Action;
use matriarch_core::effects::Order;
use matriarch_core::event::{Event, MoveRequest, Request, RestartConditions, Schedule, ScheduledRestart};
use matriarch_core::time::WallMillis;
use matriarch_core::view::postgres::StopMode;

use super::{Given, Phase, Watching, What, When, Where};
use crate::coverage;
use crate::node::{Message, NodeId};
use crate::postgres::{Disk, Server};
use crate::settings::LeftOut;
use crate::store::Gone;
use crate::time::{Time, ms};
use crate::world::{Due, World};

/// The system identifier of data that are another cluster's.
pub const FOREIGN: matriarch_core::id::SystemId = matriarch_core::id::SystemId(u64::MAX >> 1);

impl World {
    /// Every fault of the plan waits for its time or its order.
    pub fn schedule_faults(&mut self) {
        for index in 0..self.plan.faults.len() {
            match &self.plan.faults[index].when {
                When::AtMs(at) => {
                    let at = Time::from_ms(*at);
                    self.at(at, Due::Fault(index));
                }
                When::Order { nth, or_at_ms, .. } => {
                    self.watching.push(Watching { index, left: *nth, given: None });
                    if let Some(at) = or_at_ms.map(Time::from_ms) {
                        self.at(at, Due::Fault(index));
                    }
                }
            }
        }
    }

    /// An order is about to be carried out: faults that wait for it strike. True if one is to strike right after it.
    pub fn order_begins(&mut self, node: NodeId, boot: u32, order: &Order) -> bool {
        if self.watching.is_empty() || self.healed.is_some() {
            return false;
        }
        let kind = coverage::kind(&order.action);
        let given = match order.action {
            Action::Guard(_) => Given::Guard(node, kind),
            _ => Given::Operation(node, boot, order.op),
        };
        let (mut now, mut after) = (Vec::new(), false);
        for watching in &mut self.watching {
            let When::Order { kind: wanted, after_ms, phase, .. } = &self.plan.faults[watching.index].when else {
                continue;
            };
            if wanted != kind || self.now < Time::from_ms(*after_ms) || watching.left == 0 {
                continue;
            }
            watching.left -= 1;
            if watching.left == 0 {
                match phase {
                    Phase::Before => now.push(watching.index),
                    Phase::After => after = true,
                    Phase::Applied | Phase::Ended => watching.given = Some(given),
                }
            }
        }
        for index in now {
            self.watching.retain(|watching| watching.index != index);
            self.strike(index, Some(node));
        }
        after
    }

    /// An order has been begun: faults that waited for that strike.
    pub fn order_ended(&mut self, node: NodeId) {
        let due = self.watching.extract_if(.., |watching| watching.left == 0 && watching.given.is_none());
        let due: Vec<usize> = due.map(|watching| watching.index).collect();
        for index in due {
            self.strike(index, Some(node));
        }
    }

    /// An order has come so far: faults that waited for that strike. True if one did.
    pub fn order_is(&mut self, reached: Phase, order: Given) -> bool {
        if self.watching.is_empty() || self.healed.is_some() {
            return false;
        }
        let faults = &self.plan.faults;
        let waits = |watching: &mut Watching| {
            let phase = match &faults[watching.index].when {
                When::Order { phase, .. } => Some(*phase),
                When::AtMs(_) => None,
            };
            watching.given == Some(order) && phase == Some(reached)
        };
        let due: Vec<usize> = self.watching.extract_if(.., waits).map(|watching| watching.index).collect();
        let (Given::Operation(node, ..) | Given::Guard(node, _)) = order;
        for index in &due {
            self.coverage.count(if reached == Phase::Applied { "struck at an effect" } else { "struck at an end" });
            self.strike(*index, Some(node));
        }
        if reached == Phase::Ended {
            self.order_is_over(|given| given == order);
        }
        !due.is_empty()
    }

    /// An order is over, or its agent is, and what a fault waited for did not come: it waits for the next of that kind.
    pub fn order_is_over(&mut self, is: impl Fn(Given) -> bool) {
        for watching in self.watching.iter_mut().filter(|watching| watching.given.is_some_and(&is)) {
            (watching.left, watching.given) = (1, None);
        }
    }

    /// A fault begins by its time: also one that has waited for an order in vain.
    pub fn fault_begins(&mut self, index: usize) {
        let waited = self.watching.extract_if(.., |watching| watching.index == index).count() > 0;
        let by_time = matches!(self.plan.faults[index].when, When::AtMs(_));
        if self.healed.is_none() && (by_time || waited) {
            self.strike(index, None);
        }
    }

    fn strike(&mut self, index: usize, orderer: Option<NodeId>) {
        let fault = self.plan.faults[index].clone();
        let node = |place| self.node_at(place, orderer);
        let struck = fault.what.place().map(node);
        let now = self.now;
        if self.comes_to_nothing(fault.what, struck.unwrap_or(NodeId(0))) {
            return;
        }
        self.coverage.struck(fault.what.kind());
        self.trace.world(now, '*', || match struck {
            Some(node) => format!("{:?} for {} ms, node {}", fault.what, fault.for_ms, crate::node::name(node)),
            None => format!("{:?} for {} ms", fault.what, fault.for_ms),
        });
        self.trace.struck(now, index, struck);
        self.coverage.count("fault");
        self.note_strike(&fault);
        self.checks.disturbed(struck, now);
        self.take_effect(index, fault.what, struck.unwrap_or(NodeId(0)), fault.for_ms);
    }

    fn node_at(&self, place: Where, orderer: Option<NodeId>) -> NodeId {
        match (place, orderer) {
            (Where::Node(index), _) => NodeId(index % self.nodes.len()),
            (Where::Orderer, Some(node)) => node,
            (Where::Leader | Where::Orderer, _) => self.leading().unwrap_or(NodeId(0)),
        }
    }

    /// The node that the leader key names.
    pub fn leading(&self) -> Option<NodeId> {
        let leader = self.store.keys().leader.as_ref()?;
        self.names.iter().position(|name| *name == leader.member).map(NodeId)
    }

    /// Another leads and serves: only then does anybody take data away that may be the last.
    pub(super) fn follows_who_serves(&self, node: NodeId) -> bool {
        self.leading().is_some_and(|leading| leading != node && self.nodes[leading.0].server.serves())
    }

    fn take_effect(&mut self, index: usize, what: What, node: NodeId, for_ms: u64) {
        let ends = Due::FaultEnds(index);
        match what {
            What::KillPostmaster(_, backends) => self.postmaster_killed(node, backends, for_ms),
            What::KillPostgres(_) => {
                self.killed(node);
            }
            What::SetWallClock(_, by_ms) => self.wall_jumps(node, by_ms),
            What::KillBackend(_) => self.backend_killed(node),
            What::StopByHand(_) => {
                self.checks.stopped_by_hand[node.0] = Some(self.now);
                self.stop(node, StopMode::Fast);
            }
            What::RestartByHand(_) => self.operator_restarts(node),
            What::PromoteByHand(_) => self.operator_promotes(node),
            What::KillAgent(_) => {
                self.agent_gone(node);
                self.later(ms(for_ms), Due::StartAgent(node));
            }
            What::StopAgent(_) => {
                self.note_asked_to_leave(node);
                self.tell(node, ms(1), Message::event(Event::ShutdownAsked));
                self.later(ms(for_ms), Due::StartAgent(node));
            }
            What::KillGuard(_) => self.guard_killed(node),
            What::CrashHost(_) | What::TearFiles(_) => {
                self.host_crashes(node);
                if matches!(what, What::TearFiles(_)) {
                    self.files_torn(node);
                }
                self.checks.struck.insert(index, node);
                self.later(ms(for_ms), ends);
            }
            What::LoseKey => {
                self.store.delete_leader();
                self.store_changed();
            }
            What::LoseLease => {
                if let Some(lease) = self.store.keys().leader.as_ref().map(|leader| leader.lease) {
                    self.store.end(lease, Gone::Early);
                    self.store_changed();
                }
            }
            What::DeleteKey(key) => self.key_deleted(key),
            What::DeleteAllKeys => self.keys_deleted(),
            What::GarbleKey(key) => self.key_garbled(key),
            What::ChangeConfig { .. } => self.configuration_changes(what),
            What::RemoveData(_) => {
                self.nodes[node.0].server.disk = Disk::Empty;
                // A server whose files are gone does not last.
                self.killed(node);
            }
            What::ForeignData(_) => {
                self.gone(node);
                self.nodes[node.0].server.initdb(&mut self.wal, FOREIGN);
                self.looks_soon(node);
                self.checks.struck.insert(index, node);
                self.later(ms(for_ms), ends);
            }
            What::Switchover(_) => self.switchover(node, None),
            What::Failover(_) => self.failover(node),
            What::Restart(_) => self.operator_asks(node, Request::Restart),
            What::Reinitialize(_) => {
                self.operator_asks(node, Request::Reinitialize { force: false, from_leader: false });
            }
            lasting => {
                match lasting {
                    What::ScheduleSwitchover(_) => self.switchover(node, Some(for_ms)),
                    What::ScheduleRestart(_) => self.restart_in(node, for_ms),
                    _ => self.set(lasting, node, true),
                }
                self.checks.struck.insert(index, node);
                self.later(ms(for_ms), ends);
            }
        }
    }

    /// A fault that lasts begins or ends.
    fn set(&mut self, what: What, node: NodeId, on: bool) {
        let host = &mut self.nodes[node.0];
        match what {
            What::FreezeAgent(_) if on => {
                if let Some(agent) = &mut host.agent {
                    agent.frozen = true;
                }
            }
            What::FreezeAgent(_) => self.thaw(node),
            What::SlowNetwork(times) => {
                self.net.slowness = if on { times } else { 1 };
                self.checks.slow_at = Some(self.now);
            }
            What::LossyNetwork(percent) => {
                self.net.loss_percent = if on { percent } else { 0 };
                self.checks.slow_at = Some(self.now);
            }
            What::SilenceWatches(_) => self.checks.silent[node.0] = on,
            What::FillDisk(_) => host.files.full = on,
            What::HideData(_) => {
                host.files.hidden = on;
                if !on {
                    self.later(ms(500), Due::StartAgent(node));
                }
            }
            What::FillData(_) => host.server.full = on,
            What::DeafSession(_) if on => {
                host.server.deaf = host.server.postmaster.as_ref().is_some_and(|pm| !pm.in_recovery);
            }
            What::DeafSession(_) => self.session_ends(node),
            What::SuspendHost(_) if on => self.host_is_suspended(node),
            What::SuspendHost(_) => self.host_wakes(node),
            // What stands still already, with its host perhaps, goes on standing still.
            What::FreezePostgres(_) if on => host.server.frozen |= host.server.postmaster.is_some(),
            What::HangPostgres(_) if on && host.server.postmaster.is_some() => {
                host.server.frozen = true;
                host.server.stuck.get_or_insert(false);
            }
            What::HangPostgres(_) if on => {}
            What::FreezePostgres(_) | What::HangPostgres(_) => self.processes_go_on(node),
            What::HangStart(_) => host.server.hangs = on,
            What::FailTools(_) => host.files.tools_fail = on,
            What::AskUnsupported => self.unsupported_asked(on),
            What::Pause => self.cluster_paused(on),
            What::PauseReplay(_) if on => {
                host.server.replay_paused = host.server.postmaster.as_ref().is_some_and(|pm| pm.in_recovery);
            }
            What::PauseReplay(_) => self.replay_goes_on(node),
            What::StopStoreMember(member) => self.store_member(member, |state| state.up = !on),
            What::FreezeStoreMember(member) => self.store_member(member, |state| state.frozen = on),
            What::StopStore | What::RestoreStore(_) => {
                if let (What::RestoreStore(ago_ms), false) = (what, on) {
                    self.store_restored(ago_ms);
                }
                for member in 0..self.members.len() {
                    let stays_down = !on && self.is_kept_up(What::StopStoreMember(member), NodeId(0));
                    self.store_member(member, |state| state.up = !on && !stays_down);
                }
            }
            cut => {
                for link in self.links(cut, node) {
                    if on { self.net.cut(link) } else { self.mend(link) }
                }
                if matches!(cut, What::CutStoreMember(_)) {
                    self.store_settles();
                }
            }
        }
    }

    /// The operator removes what is not this cluster's, and starts the agent again that would not run beside it.
    fn foreign_data_removed(&mut self, node: NodeId) {
        // Another fault of the kind may have come and gone meanwhile: what was cloned since is ours.
        let end = self.nodes[node.0].server.cluster().map(|on_disk| on_disk.end);
        if end.is_some_and(|end| self.wal.system(end) == FOREIGN) {
            self.gone(node);
            self.nodes[node.0].server.disk = Disk::Empty;
        }
        self.later(ms(500), Due::StartAgent(node));
    }

    /// The leader that can be asked to hand over: with an agent that hears it.
    pub(super) fn whom_to_ask_for_a_switchover(&self) -> Option<NodeId> {
        self.leading().filter(|leading| self.nodes[leading.0].agent.is_some())
    }

    /// The operator asks the leader to hand over to this node, or to anybody; now, or at a time.
    fn switchover(&mut self, node: NodeId, in_ms: Option<u64>) {
        let Some(leading) = self.whom_to_ask_for_a_switchover() else { return };
        let request = MoveRequest {
            switchover: true,
            leader: Some(self.names[leading.0].clone()),
            candidate: (leading != node).then(|| self.names[node.0].clone()),
            scheduled_at: in_ms.map(|in_ms| self.schedule(leading, in_ms)),
            refused: false,
        };
        self.operator_asks(leading, Request::Move(request));
    }

    /// The leader or, where there is none, the node itself. The operator knows that his word counts where nobody leads and a
    /// primary may run without a guard, and makes sure that none does.
    pub(super) fn whom_to_ask_for_a_failover(&self, node: NodeId) -> Option<NodeId> {
        let writes = |server: &Server| {
            let postmaster = server.postmaster.as_ref().is_some_and(|pm| !pm.in_recovery);
            postmaster || server.orphans.is_some_and(|orphans| orphans.write)
        };
        let leading = self.leading();
        let beside = |other: NodeId| self.is_let_go(other) && writes(&self.nodes[other.0].server);
        let danger = (0..self.nodes.len()).map(NodeId).any(|other| leading != Some(other) && beside(other));
        let asked = leading.unwrap_or(node);
        (!danger && self.nodes[asked.0].agent.is_some()).then_some(asked)
    }

    /// The operator asks for this node whoever leads.
    fn failover(&mut self, node: NodeId) {
        let Some(asked) = self.whom_to_ask_for_a_failover(node) else { return };
        let candidate = Some(self.names[node.0].clone());
        let request = MoveRequest { switchover: false, leader: None, candidate, scheduled_at: None, refused: false };
        self.operator_asks(asked, Request::Move(request));
    }

    fn restart_in(&mut self, node: NodeId, in_ms: u64) {
        let (conditions, schedule) = (RestartConditions::default(), self.schedule(node, in_ms));
        let wanted = ScheduledRestart { schedule, conditions, timeout_s: None, postmaster_start_us: 0 };
        self.operator_asks(node, Request::ScheduleRestart(wanted));
    }

    fn schedule(&self, node: NodeId, in_ms: u64) -> Schedule {
        let at = self.nodes[node.0].clock.wall(self.now);
        let at = WallMillis(at.0 + in_ms as i64);
        Schedule { text: format!("in {in_ms} ms"), at }
    }

    /// A fault ends by its time.
    pub fn fault_ends(&mut self, index: usize) {
        let Some(node) = self.checks.struck.remove(&index) else { return };
        let what = self.plan.faults[index].what;
        let now = self.now;
        self.trace.world(now, '.', || format!("{what:?} ends"));
        self.trace.ended(now, index);
        self.checks.disturbed(what.place().map(|_| node), now);
        self.note_unrest();
        if self.is_kept_up(what, node) {
            return;
        }
        match what {
            What::CrashHost(_) | What::TearFiles(_) => self.host_comes_back(node),
            What::ForeignData(_) => self.foreign_data_removed(node),
            What::ScheduleSwitchover(_) | What::ScheduleRestart(_) => {}
            lasting => self.set(lasting, node, false),
        }
    }

    /// The faults are over: everything heals, and whatever was down is started.
    pub fn heal(&mut self) {
        let lasting: Vec<usize> = self.checks.struck.keys().copied().collect();
        for index in lasting {
            self.fault_ends(index);
        }
        self.take_back_unsupported();
        self.watching.clear();
        self.silence_watches();
        self.leave_out();
        self.healed = Some(self.now);
        let now = self.now;
        self.trace.healed(now);
        for node in 0..self.nodes.len() {
            self.later(ms(3000), Due::StartAgent(NodeId(node)));
        }
    }

    /// Something that the rest does without stays broken, if the plan wants that: a node beside one that serves, or a
    /// member of a store of three.
    fn leave_out(&mut self) {
        let leading = self.leading().filter(|leading| self.nodes[leading.0].server.serves());
        let other = leading.map(|leading| NodeId((leading.0 + 1) % self.nodes.len()));
        match (self.settings.left_out, other) {
            (Some(LeftOut::Down), Some(node)) => {
                self.coverage.count("left out without power");
                self.host_crashes(node);
                self.checks.left_out = Some(node);
            }
            (Some(LeftOut::CutOff), Some(node)) => {
                self.coverage.count("left out of the network");
                for what in [What::Isolate(Where::Node(node.0)), What::CutClients(Where::Node(node.0))] {
                    self.set(what, node, true);
                }
                self.checks.left_out = Some(node);
            }
            (Some(LeftOut::StoreMember), _) if self.members.len() > 2 => {
                self.coverage.count("left out of the store");
                self.set(What::StopStoreMember(0), NodeId(0), true);
            }
            _ => {}
        }
    }

    /// The node's watches tell nothing.
    pub fn plan_silences(&self, node: NodeId) -> bool {
        self.checks.silent[node.0]
    }
}
