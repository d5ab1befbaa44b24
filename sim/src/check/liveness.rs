//! L1, a healed world serves; L2, every member follows; L5, calm is calm; and how long nobody served.

use std::time::Duration;

use crate::node::NodeId;
use crate::time::{Time, ms};
use crate::world::World;

/// For how long nobody could have a commit acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outage {
    /// Since when nobody serves.
    since: Option<Time>,
    /// The longest while faults went on.
    pub longest: Duration,
    /// When the healed world served first.
    pub served: Option<Time>,
    /// The last time that the healed world stopped serving.
    pub stopped: Option<Time>,
}

impl World {
    /// Whether anybody serves now.
    pub(super) fn note_service(&mut self) {
        let serves = self.nodes.iter().any(|node| node.server.can_acknowledge());
        let (now, healed) = (self.now, self.healed);
        let outage = &mut self.checks.outage;
        match (serves, outage.since) {
            (true, Some(since)) => {
                outage.since = None;
                outage.longest = outage.longest.max(now.since(since));
            }
            (false, None) => {
                outage.since = Some(now);
                if healed.is_some() {
                    outage.stopped = Some(now);
                }
            }
            (true, None) | (false, Some(_)) => {}
        }
        if serves && healed.is_some() && outage.served.is_none() {
            outage.served = Some(now);
        }
    }

    /// L1: within its bound the healed world serves, and goes on to.
    pub(super) fn check_service(&mut self) {
        let Some(healed) = self.healed else { return };
        // A store that went back is not believed for a ttl, and its old keys last another.
        let disbelief = if self.plan.restores_the_store() { 2 * self.settings.ttl_ms } else { 0 };
        let bound = healed + ms(self.settings.serving_bound_ms() + disbelief);
        let outage = *self.checks.outage();
        match outage.served {
            None => self.violated("L1", "the healed world never serves".into()),
            Some(served) if served > bound => {
                let what = format!("the healed world serves after {} ms", served.since(healed).as_millis());
                self.violated("L1", what);
            }
            Some(_) if outage.since.is_some() => {
                self.violated("L1", "the healed world has stopped serving".into());
            }
            Some(_) => {}
        }
    }

    /// L2: every other member streams from the leader and holds what it holds.
    pub(super) fn check_members(&mut self) {
        let Some(leading) = self.leading() else { return };
        let Some(theirs) = self.nodes[leading.0].place() else { return };
        for index in (0..self.nodes.len()).filter(|index| *index != leading.0) {
            let node = &self.nodes[index];
            if node.agent.is_none() {
                let what = format!("the agent of {} has left and did not come back", self.names[index]);
                self.violated("L2", what);
                return;
            }
            // Nothing brings it anything: there is no archive here.
            if self.settings.nostream == Some(index) {
                continue;
            }
            let streams = node.server.postmaster.as_ref().is_some_and(|pm| pm.stream.is_some());
            let holds = node
                .place()
                .is_some_and(|mine| self.wal.contains(theirs, mine) && theirs.depth.saturating_sub(mine.depth) <= 20);
            if !streams || !holds {
                let reason =
                    node.agent.as_ref().and_then(|agent| agent.state.decision.as_ref()).map(|d| d.reason.to_string());
                let what = format!("{} does not follow {}: {reason:?}", self.names[index], self.names[leading.0]);
                self.violated("L2", what);
                return;
            }
        }
    }

    /// L5: where nothing happens, nothing but the rhythm is ordered.
    pub(super) fn check_calm(&mut self) {
        let calm = self.settings.calm_ms.saturating_sub(120_000) / 1000;
        if self.healed.is_none() || calm == 0 {
            return;
        }
        let rate = self.checks.calm_orders / calm / self.nodes.len() as u64;
        // A tenure of 3 s is renewed and armed every second, and the store asked for contact beside it.
        if rate > 12 {
            self.violated("L5", format!("{rate} orders a second and node in a calm world"));
        }
    }

    /// How long nobody served, for a report.
    pub fn longest_outage(&self) -> Duration {
        self.checks.outage().longest
    }

    /// The node that serves.
    pub fn serving(&self) -> Option<NodeId> {
        self.nodes.iter().find(|node| node.server.can_acknowledge()).map(|node| node.id)
    }
}
