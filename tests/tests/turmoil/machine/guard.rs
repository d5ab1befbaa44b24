//! A pretended guard, with the real rules of arming.

use std::time::Duration;

use matriarch::guard::{Armed, Authority, Order, Report};
use matriarch_core::view::postgres::StopMode;
use tokio::sync::mpsc;

use super::super::network::instant;
use super::All;

/// How long a guard waits for an agent that is dead before it stops PostgreSQL.
const RESTART_GRACE: Duration = Duration::from_secs(2);

/// A guard.
#[derive(Default)]
pub(crate) struct PretendGuard {
    pub(super) authority: Authority,
    pub(super) agent: Option<(mpsc::Receiver<Order>, mpsc::Sender<Report>)>,
    pub(super) absent_since: Option<Duration>,
}

impl PretendGuard {
    /// What it would end.
    pub(crate) fn armed(&self) -> Option<Armed> {
        self.authority.armed()
    }

    fn report(&self, report: Report) {
        if let Some((_, reports)) = &self.agent {
            // Whoever listened may have crashed.
            let _ = reports.try_send(report);
        }
    }
}

impl All {
    pub(super) fn guard_lives(&mut self, node: usize) {
        let now = instant(self.now);
        let Some(mut guard) = self.nodes[node].guard.take() else { return };
        if guard.authority.is_due(now) {
            self.fence(node, &mut guard);
        }
        while let Some(order) = next_order(&mut guard, self.now) {
            if order == Order::Retire && guard.authority.armed().is_none() {
                return;
            }
            self.obey(node, &mut guard, order);
        }
        self.mind_absence(node, &mut guard);
        self.nodes[node].guard = Some(guard);
    }

    fn fence(&mut self, node: usize, guard: &mut PretendGuard) {
        let processes = u32::from(self.nodes[node].server.postmaster.is_some());
        self.nodes[node].server.dies();
        let fired = guard.authority.fire(instant(self.now), processes);
        guard.report(Report::Fired(fired));
        self.tell(node);
    }

    fn obey(&mut self, node: usize, guard: &mut PretendGuard, order: Order) {
        let (now, what) = (instant(self.now), format!("{order:?}"));
        let refused = |why: String| Report::Refused { what, why };
        let report = match order {
            Order::Hello { .. } => return,
            Order::Postmaster { pid, .. } => Report::Watching { pid, why_no_cgroup: None },
            Order::Arm { tenure, at, instead_of } => {
                guard.authority.arm(tenure, at, instead_of, now).map_or_else(refused, Report::Armed)
            }
            Order::Disarm { tenure } => match guard.authority.disarm(tenure) {
                Ok(()) => Report::Disarmed { tenure },
                Err(why) => refused(why),
            },
            Order::Hold => match guard.authority.hold() {
                Ok(()) => {
                    let server = &mut self.nodes[node].server;
                    server.held = server.postmaster.is_some();
                    Report::Held { processes: 1, took_us: 0 }
                }
                Err(why) => refused(why),
            },
            Order::Resume => {
                guard.authority.resume();
                self.nodes[node].server.held = false;
                Report::Resumed
            }
            Order::Fire { .. } => return self.fence(node, guard),
            Order::KillOrphans if self.nodes[node].server.postmaster.is_some() => refused("a postmaster lives".into()),
            Order::KillOrphans => Report::OrphansDead { processes: 0 },
            Order::Retire => refused("armed".into()),
        };
        guard.report(report);
    }

    /// Its agent is dead.
    fn mind_absence(&mut self, node: usize, guard: &mut PretendGuard) {
        let Some(since) = guard.absent_since.filter(|since| self.now >= *since + RESTART_GRACE) else { return };
        let Some(armed) = guard.authority.armed() else { return };
        if self.nodes[node].server.postmaster.is_none() || guard.authority.is_held() {
            self.fence(node, guard);
            self.nodes[node].releases.push(armed.tenure);
        } else if self.now.saturating_sub(since) < RESTART_GRACE + Duration::from_millis(2) {
            self.stop(node, StopMode::Fast);
        }
    }
}

fn next_order(guard: &mut PretendGuard, now: Duration) -> Option<Order> {
    let (orders, _) = guard.agent.as_mut()?;
    match orders.try_recv() {
        Ok(order) => Some(order),
        Err(mpsc::error::TryRecvError::Empty) => None,
        Err(mpsc::error::TryRecvError::Disconnected) => {
            (guard.agent, guard.absent_since) = (None, Some(now));
            None
        }
    }
}
