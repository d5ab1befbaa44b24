//! The guard in its world: its timers, what it does to processes, and what it does when its agent is dead.

use std::time::Duration;

use matriarch_core::action::GuardAction;
use matriarch_core::event::GuardEvent;
use matriarch_core::id::LeaseId;

use crate::coverage;
use crate::fault::Given;
use crate::guard::{Guard, Obeyed};
use crate::mutant::Mutant;
use crate::net::{End, Plane};
use crate::node::NodeId;
use crate::store::Gone;
use crate::time::ms;
use crate::world::{Due, GuardDeed, World};

/// `matriarch.restart_grace`.
const RESTART_GRACE: Duration = Duration::from_secs(2);
/// How often a kill that comes to nothing is told, and tried again.
const STUCK_AFTER: Duration = Duration::from_secs(1);

impl World {
    /// The agent has found its guard, or started one.
    pub fn guard_reached(&mut self, node: NodeId) {
        if let Some(event) = self.guard_greets(node) {
            self.coverage.came_to("start_guard", "done");
            self.guard_says(node, event);
        }
    }

    /// What the guard of an agent tells it first.
    pub fn guard_greets(&mut self, node: NodeId) -> Option<GuardEvent> {
        let boot = self.nodes[node.0].agent.as_ref()?.boot;
        let now = self.now;
        let guard = self.nodes[node.0].guard.get_or_insert_with(|| Guard { since: now, ..Guard::default() });
        guard.boot = boot;
        if self.mutant == Some(Mutant::GuardForgets) {
            guard.armed = None;
        }
        (guard.absent_since, guard.winding_down) = (None, false);
        Some(GuardEvent::Connected {
            armed: guard.armed.filter(|_| !guard.firing),
            held: guard.held,
            fired: guard.fired,
        })
    }

    /// An order reaches the guard.
    pub fn guard_ordered(&mut self, node: NodeId, boot: u32, order: &GuardAction, instead_of: Option<LeaseId>) {
        let now = self.clock(node);
        let kind = coverage::guard(order);
        let Some(guard) = self.nodes[node.0].guard.as_mut().filter(|guard| guard.boot == boot) else {
            self.coverage.came_to(kind, "unknown");
            return;
        };
        let was_firing = guard.firing;
        let obeyed = guard.obey(order, instead_of, now);
        let falls = guard.firing && !was_firing;
        let refused = matches!(obeyed, Obeyed::Report(GuardEvent::Refused(_)));
        self.coverage.came_to(kind, if refused { "refused" } else { "done" });
        if refused {
            self.order_is_over(|given| given == Given::Guard(node, kind));
        }
        match obeyed {
            Obeyed::Report(event) => {
                let armed = matches!(event, GuardEvent::Armed(_));
                self.guard_says(node, event);
                if armed {
                    self.guard_waits(node);
                }
            }
            Obeyed::Begun => self.guard_acts(node, order),
        }
        if falls {
            self.fence(node);
        }
    }

    fn guard_acts(&mut self, node: NodeId, order: &GuardAction) {
        let takes = Duration::from_micros(self.host_random.between(500, 8000));
        let what = match order {
            GuardAction::Hold => GuardDeed::Held,
            GuardAction::Resume => GuardDeed::Resumed,
            GuardAction::KillOrphans => GuardDeed::OrphansDead,
            GuardAction::Arm { .. } | GuardAction::Disarm | GuardAction::Fire => return,
        };
        let Some(guard) = &mut self.nodes[node.0].guard else { return };
        guard.busy_until = guard.busy_until.max(self.now) + takes;
        let done = guard.busy_until;
        self.at(done, Due::GuardDone { node, what });
    }

    /// The guard sleeps until its instant.
    fn guard_waits(&mut self, node: NodeId) {
        let host = &mut self.nodes[node.0];
        let Some(guard) = &mut host.guard else { return };
        let Some(armed) = guard.armed else { return };
        guard.timer += 1;
        let timer = guard.timer;
        let time = host.clock.when(armed.at);
        let late = Duration::from_micros(self.host_random.between(20, 3000));
        self.at(time.max(self.now) + late, Due::GuardWakes { node, timer });
    }

    /// The guard looks at the clock.
    pub fn guard_wakes(&mut self, node: NodeId, timer: u64) {
        let now = self.clock(node);
        let mutant = self.mutant;
        let Some(guard) = self.nodes[node.0].guard.as_mut().filter(|guard| guard.timer == timer) else { return };
        if guard.is_due(now) && !guard.firing && mutant != Some(Mutant::GuardNeverFires) {
            guard.firing = true;
            self.check_due_fence(node);
            self.fence(node);
        }
        self.mind_absence(node);
    }

    /// The fence falls: everything stands still within milliseconds, and is dead a little later.
    fn fence(&mut self, node: NodeId) {
        self.coverage.count("fence");
        self.trace.note(self.now, node, '#', || "the fence falls".into());
        let late = if self.mutant == Some(Mutant::GuardLate) { 900_000 } else { 0 };
        let stopped = late + self.host_random.between(500, 8000);
        let dead = stopped + self.host_random.between(1000, 30_000);
        self.later(Duration::from_micros(stopped), Due::GuardDone { node, what: GuardDeed::Stopped });
        self.later(Duration::from_micros(dead), Due::GuardDone { node, what: GuardDeed::Dead });
    }

    /// What the guard did to processes is done.
    pub fn guard_done(&mut self, node: NodeId, what: GuardDeed) {
        if self.nodes[node.0].guard.is_none() {
            return;
        }
        match what {
            GuardDeed::Stopped => self.nodes[node.0].server.held |= self.nodes[node.0].server.postmaster.is_some(),
            GuardDeed::Dead => self.fenced(node),
            GuardDeed::Held => {
                if self.mutant != Some(Mutant::HoldHoldsNothing) {
                    let server = &mut self.nodes[node.0].server;
                    server.held = server.postmaster.is_some() || server.orphans.is_some();
                }
                self.coverage.count("hold");
                self.trace.note(self.now, node, '=', || "is held".into());
                self.guard_says(node, GuardEvent::Held);
            }
            GuardDeed::Resumed => {
                if !self.nodes[node.0].guard.as_ref().is_some_and(|guard| guard.firing) {
                    self.goes_on(node);
                    self.coverage.count("resume");
                    self.guard_says(node, GuardEvent::Resumed);
                }
            }
            GuardDeed::OrphansDead => {
                if self.nodes[node.0].server.postmaster.is_some() {
                    self.guard_says(node, GuardEvent::Refused("a postmaster is alive".into()));
                    return;
                }
                if self.mutant != Some(Mutant::OrphansLive) {
                    self.orphans_end(node);
                }
                self.guard_says(node, GuardEvent::OrphansDead);
            }
        }
    }

    fn fenced(&mut self, node: NodeId) {
        if !self.killed(node) {
            self.guard_says(node, GuardEvent::Stuck { processes: 1 });
            self.later(STUCK_AFTER, Due::GuardDone { node, what: GuardDeed::Dead });
            return;
        }
        let Some(guard) = &mut self.nodes[node.0].guard else { return };
        let armed = guard.fire();
        let agent_dead = guard.absent_since.is_some();
        let tenure = armed.map_or(LeaseId(0), |armed| armed.tenure);
        self.guard_says(node, GuardEvent::Fired { tenure });
        if agent_dead && tenure != LeaseId(0) {
            self.later(ms(30), Due::GuardReleases { node, tenure, tries: 0 });
        }
    }

    /// The guard's command revokes the lease of the tenure that is over.
    pub fn guard_releases(&mut self, node: NodeId, tenure: LeaseId, tries: u32) {
        let adopted = self.nodes[node.0].guard.as_ref().is_none_or(|guard| guard.absent_since.is_none());
        if adopted || tries > 20 {
            return;
        }
        let (there, back) = (End::Store(node.0 % self.members.len()), End::Node(node));
        let reachable = !self.net.is_cut((Plane::Store, back, there)) && !self.net.is_cut((Plane::Store, there, back));
        if reachable && self.store_leader.is_some() && self.members[node.0 % self.members.len()].up {
            self.coverage.count("early release");
            self.store.end(tenure, Gone::Revoked);
            self.store_changed();
        } else {
            self.later(ms(500), Due::GuardReleases { node, tenure, tries: tries + 1 });
        }
    }

    /// The agent is dead.
    pub fn guard_misses_agent(&mut self, node: NodeId) {
        let now = self.now;
        let Some(guard) = &mut self.nodes[node.0].guard else { return };
        guard.absent_since = Some(now);
        let timer = guard.timer;
        if let Some(armed) = guard.armed.filter(|_| self.mutant == Some(Mutant::ReleasedAlive)) {
            self.later(ms(30), Due::GuardReleases { node, tenure: armed.tenure, tries: 0 });
        }
        self.later(RESTART_GRACE, Due::GuardWakes { node, timer });
    }

    /// What is to be done because no agent lives.
    fn mind_absence(&mut self, node: NodeId) {
        let now = self.now;
        let dead = self.nodes[node.0].server.postmaster.is_none();
        let Some(guard) = &mut self.nodes[node.0].guard else { return };
        let Some(since) = guard.absent_since else { return };
        if guard.firing || now < since + RESTART_GRACE {
            return;
        }
        if guard.armed.is_none() {
            self.nodes[node.0].guard = None;
            return;
        }
        if guard.held || dead {
            guard.firing = true;
            self.fence(node);
        } else if !guard.winding_down {
            guard.winding_down = true;
            self.coverage.count("wind-down");
            self.checks.wound_down[node.0] = Some(now);
            self.stop(node, matriarch_core::view::postgres::StopMode::Fast);
        }
    }

    /// A postmaster has died: a guard that waits for it goes on.
    pub fn guard_sees_death(&mut self, node: NodeId) {
        if let Some(guard) = &self.nodes[node.0].guard
            && guard.winding_down
        {
            let timer = guard.timer;
            self.later(ms(1), Due::GuardWakes { node, timer });
        }
    }

    /// The guard is killed.
    pub fn guard_killed(&mut self, node: NodeId) {
        if self.nodes[node.0].guard.take().is_some() {
            self.trace.note(self.now, node, '!', || "the guard is killed".into());
            self.guard_says(node, GuardEvent::Gone);
        }
    }
}

impl Guard {
    /// It would end a primary in time: armed, and not after `latest`.
    pub fn covers(&self, latest: matriarch_core::time::Instant) -> bool {
        self.firing || self.armed.is_some_and(|armed| armed.at <= latest)
    }
}
