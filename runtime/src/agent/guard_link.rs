//! The agent's end of the guard: core's orders on it, its reports as events.

use matriarch_core::action::GuardAction;
use matriarch_core::event::GuardEvent;
use matriarch_core::id::LeaseId;
use matriarch_core::view::guard::Armed;

use crate::guard::{Finder, Finding, Guard, Hello, Order, Orders, Report};

/// The connection, as far as there is one.
pub(super) struct GuardLink {
    finder: Finder,
    orders: Option<Orders>,
    armed: Option<LeaseId>,
    postmaster: (i32, u64),
    /// What the guard could not get of what it wants.
    pub(super) wishes_refused: Vec<String>,
    /// Why it has no cgroup to kill, which it finds with each postmaster.
    why_no_cgroup: Option<String>,
    /// The guard's process id.
    pid: i32,
}

impl GuardLink {
    /// No connection yet.
    pub(super) fn new(finder: Finder) -> Self {
        Self {
            finder,
            orders: None,
            armed: None,
            postmaster: (0, 0),
            wishes_refused: Vec::new(),
            why_no_cgroup: None,
            pid: 0,
        }
    }

    /// Reaches the guard, or starts one.
    pub(super) fn find(&self) -> Finding {
        self.finder.find()
    }

    /// A connection was made.
    pub(super) fn connected(&mut self, guard: &Guard, hello: Hello) -> GuardEvent {
        self.orders = Some(guard.orders());
        self.tell_postmaster();
        self.greeted(hello)
    }

    fn greeted(&mut self, hello: Hello) -> GuardEvent {
        if self.pid != 0 && self.pid != hello.pid {
            tracing::warn!(before = self.pid, now = hello.pid, "another process is the guard");
        }
        self.pid = hello.pid;
        self.armed = hello.armed.map(|armed| armed.tenure);
        self.wishes_refused = hello.wishes_refused;
        self.wishes_refused.extend(self.why_no_cgroup.clone());
        GuardEvent::Connected {
            armed: hello.armed.map(|armed| Armed { tenure: armed.tenure, at: armed.at }),
            held: hello.held,
            fired: hello.fired.and_then(|fired| fired.tenure),
        }
    }

    /// The postmaster that the guard is to watch; pid 0: none.
    pub(super) fn postmaster(&mut self, pid: i32, start_ticks: u64) {
        if self.postmaster != (pid, start_ticks) {
            self.postmaster = (pid, start_ticks);
            self.tell_postmaster();
        }
    }

    fn tell_postmaster(&self) {
        let (pid, start_ticks) = self.postmaster;
        self.send(Order::Postmaster { pid, start_ticks });
    }

    /// Carries out an order of core.
    pub(super) fn order(&self, action: &GuardAction, why: &str) {
        match action {
            GuardAction::Arm { tenure, at } => {
                self.send(Order::Arm { tenure: *tenure, at: *at, instead_of: self.armed });
            }
            GuardAction::Disarm => self.send(Order::Disarm { tenure: self.armed.unwrap_or(LeaseId(0)) }),
            GuardAction::Hold => self.send(Order::Hold),
            GuardAction::Resume => self.send(Order::Resume),
            GuardAction::Fire => self.send(Order::Fire { why: why.to_owned() }),
            GuardAction::KillOrphans => self.send(Order::KillOrphans),
        }
    }

    /// The guard is not needed any more.
    pub(super) fn retire(&self) {
        self.send(Order::Retire);
    }

    fn wish_for_cgroup(&mut self, why_not: Option<String>) {
        if let Some(why) = why_not.as_ref().filter(|why| self.why_no_cgroup.as_ref() != Some(why)) {
            tracing::warn!("the guard does without a cgroup to kill: {why}");
        }
        self.wishes_refused.retain(|wish| Some(wish) != self.why_no_cgroup.as_ref());
        self.wishes_refused.extend(why_not.clone());
        self.why_no_cgroup = why_not;
    }

    fn send(&self, order: Order) {
        let Some(orders) = &self.orders else { return };
        if let Err(error) = orders.send(order) {
            // The connection ends by itself; its end is an event, and the next guard is asked again.
            tracing::warn!(%error, "the guard cannot be told");
        }
    }

    /// What a report means to core; `None`: nothing.
    pub(super) fn reported(&mut self, report: Report) -> Option<GuardEvent> {
        Some(match report {
            Report::Hello(hello) => {
                self.tell_postmaster();
                self.greeted(hello)
            }
            Report::Watching { pid, why_no_cgroup } => {
                if pid != 0 {
                    self.wish_for_cgroup(why_no_cgroup);
                }
                return None;
            }
            Report::Armed(armed) => {
                self.armed = Some(armed.tenure);
                GuardEvent::Armed(Armed { tenure: armed.tenure, at: armed.at })
            }
            Report::Disarmed { .. } => {
                self.armed = None;
                GuardEvent::Disarmed
            }
            Report::Refused { what, why } => {
                // A postmaster removes its pid file a moment before it ends: orphans are asked for again.
                if what.starts_with("KillOrphans") {
                    tracing::debug!(order = what, why, "the guard refuses");
                } else {
                    tracing::warn!(order = what, why, "the guard refuses");
                }
                GuardEvent::Refused(why)
            }
            Report::Held { processes, took_us } => {
                tracing::warn!(processes, took_us, "PostgreSQL is held");
                GuardEvent::Held
            }
            Report::Resumed => {
                tracing::info!("PostgreSQL goes on");
                GuardEvent::Resumed
            }
            Report::Fired(fired) => {
                tracing::warn!(processes = fired.processes, at = %fired.all_dead_at, "the guard has stopped PostgreSQL");
                self.armed = None;
                GuardEvent::Fired { tenure: fired.tenure.unwrap_or(LeaseId(0)) }
            }
            Report::Stuck { pids } => {
                tracing::error!(?pids, "the guard cannot kill these processes and goes on trying");
                GuardEvent::Stuck { processes: u32::try_from(pids.len()).unwrap_or(u32::MAX) }
            }
            Report::OrphansDead { processes } => {
                if processes > 0 {
                    tracing::warn!(processes, "orphans of a dead postmaster are killed");
                }
                GuardEvent::OrphansDead
            }
            Report::Superseded { by_pid } => {
                tracing::error!(by_pid, "another agent has taken over this data directory's guard");
                self.orders = None;
                GuardEvent::Gone
            }
            Report::Gone => {
                tracing::error!("the guard is gone");
                self.orders = None;
                self.armed = None;
                GuardEvent::Gone
            }
        })
    }
}
