//! L5: calm is calm; and at no time is an order repeated as fast as it is answered.

use std::collections::BTreeMap;
use std::time::Duration;

use matriarch_core::action::Action;
use matriarch_core::effects::Effects;

use crate::coverage::kind;
use crate::node::NodeId;
use crate::world::World;

/// So many orders of one kind a node gives in a second at most, or to one peer.
const A_SECOND_MAX: u32 = 60;

/// So often a node concludes something else in the last minute of a calm world at most.
const DECISIONS_MAX: u32 = 2;

impl World {
    /// Every order counts in its second, and two minutes after the faults ended in all.
    pub(super) fn count_orders(&mut self, node: NodeId, effects: &Effects) {
        // What others ask for they are answered.
        let own = effects.orders.iter().filter(|order| !matches!(order.action, Action::Answer(..)));
        let peers = self.nodes.len() as u32 - 1;
        let counted = own.map(|order| match order.action {
            Action::Peer(_) => (kind(&order.action), peers * A_SECOND_MAX),
            _ => (kind(&order.action), A_SECOND_MAX),
        });
        self.count_busy(node, counted);
        if self.healed.is_some_and(|healed| self.now.since(healed) > Duration::from_secs(120)) {
            // Whoever finds another cluster's data leaves, and is started again and again; who is cut off tries on and on.
            let started = self.now.since(self.nodes[node.0].booted) <= Duration::from_secs(10);
            // Where nobody may lead everybody asks everybody anew, once a second; and what an operator's schedule asks for,
            // all take part in.
            let races = self.serving().is_none();
            self.checks.calm_orders += if races { 0 } else { effects.orders.len() as u64 };
            let asked = races || self.is_on_an_errand() || self.is_asked_to_move(node);
            let settled = !started && self.checks.left_out != Some(node) && !asked;
            self.checks.calm_decisions[node.0] += u32::from(settled && effects.decision.is_some());
        }
    }

    /// An operator's errand begins there: what led to it was no restlessness.
    pub(super) fn forgive_decisions(&mut self, node: NodeId) {
        self.checks.calm_decisions[node.0] = 0;
    }

    /// The time of an operator's request has come, by the node's clock: its candidates are asked, a checkpoint is written, it
    /// is found that one lacks something, and the request is over.
    fn is_asked_to_move(&self, node: NodeId) -> bool {
        let wall = self.nodes[node.0].clock.wall(self.now);
        let request = self.store.keys().failover.as_ref();
        request.is_some_and(|request| request.scheduled_at.is_none_or(|at| at <= wall))
    }

    fn count_busy(&mut self, node: NodeId, kinds: impl Iterator<Item = (&'static str, u32)>) {
        let busy = &mut self.checks.busy[node.0];
        if self.now.since(busy.0) >= Duration::from_secs(1) {
            *busy = (self.now, BTreeMap::new());
        }
        for (kind, at_most) in kinds {
            let times = busy.1.entry(kind).or_default();
            *times += 1;
            if *times > at_most {
                let what = format!("{} orders {kind} {times} times within a second", self.names[node.0]);
                self.violated("L5", what);
                break;
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
        // Beside what is looked at and told, a tenure is renewed and armed a few times within its `ttl`. (Of 600 seeds the
        // busiest gave 5.7 orders a second, at a `ttl` of 30 s, and 5.4 at 3 s.)
        let agents = self.nodes.iter().filter_map(|node| node.agent.as_ref());
        let ttl_ms = agents.map(|agent| agent.state.config.ttl.as_millis() as u64).min();
        let usual = 8 + 12_000 / ttl_ms.unwrap_or(self.settings.ttl_ms);
        if rate > usual {
            self.violated("L5", format!("{rate} orders a second and node in a calm world, {usual} are allowed"));
        }
        let restless = self.checks.calm_decisions.iter().position(|decisions| *decisions > DECISIONS_MAX);
        if let Some(node) = restless {
            let (name, decisions) = (&self.names[node], self.checks.calm_decisions[node]);
            self.violated("L5", format!("{name} concluded something else {decisions} times in the last calm minute"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::time::Time;

    #[test]
    fn an_order_that_is_repeated_as_fast_as_it_is_answered() {
        let ordered = |times: u32, apart: Duration| {
            broken(move |world| {
                for _ in 0..times {
                    world.count_busy(NodeId(0), [("read", A_SECOND_MAX)].into_iter());
                    world.now = world.now + apart;
                }
            })
        };
        assert_eq!(ordered(A_SECOND_MAX + 1, Duration::from_millis(1)), Some("L5"));
        assert_eq!(ordered(A_SECOND_MAX, Duration::from_millis(1)), None);
        assert_eq!(ordered(10 * A_SECOND_MAX, Duration::from_millis(20)), None);
    }

    /// A step that concludes something else, or does not.
    fn news(is_news: bool) -> Effects {
        let reason = matriarch_core::reason::Reason::Observing;
        let decision = matriarch_core::effects::Decision { rung: matriarch_core::decide::Rung::Fence, reason };
        let wake = matriarch_core::effects::Wake { at: None, because: matriarch_core::reason::Reason::AtGoal };
        Effects { orders: vec![], cancelled: vec![], wake, decision: is_news.then_some(decision) }
    }

    #[test]
    fn a_node_that_concludes_now_this_and_now_that() {
        let restless = |decisions: u32| {
            broken(move |world| {
                world.healed = Some(Time(0));
                world.checks.calm_decisions[1] = decisions;
                world.check_calm();
            })
        };
        assert_eq!((restless(DECISIONS_MAX + 1), restless(DECISIONS_MAX)), (Some("L5"), None));
        let counted = |since_start_ms: u64, is_news: bool, left_out: bool| {
            let mut world = steady();
            let node = leader(&world);
            (world.healed, world.now) = (Some(Time(0)), Time::from_ms(121_000));
            world.nodes[node.0].booted = Time::from_ms(121_000 - since_start_ms);
            world.checks.left_out = left_out.then_some(node);
            world.count_orders(node, &news(is_news));
            world.checks.calm_decisions[node.0]
        };
        assert_eq!((counted(20_000, true, false), counted(20_000, false, false)), (1, 0));
        assert_eq!((counted(2_000, true, false), counted(20_000, true, true)), (0, 0));
        let mut world = steady();
        let (primary, standby) = (leader(&world), standby(&world));
        (world.healed, world.now) = (Some(Time(0)), Time::from_ms(121_000));
        world.gone(primary);
        world.count_orders(standby, &news(true));
        assert_eq!(world.checks.calm_decisions[standby.0], 0, "nobody serves, and it races");
        assert_eq!(world.checks.calm_orders, 0, "and asks everybody anew");
        let mut world = steady();
        (world.healed, world.now) = (Some(Time(0)), Time::from_ms(121_000));
        world.checks.errands.since = Some(Time::from_ms(115_000));
        world.count_orders(standby, &news(true));
        assert_eq!(world.checks.calm_decisions[standby.0], 0, "a scheduled switchover has come");
        world.now = Time::from_ms(131_000);
        world.count_orders(standby, &news(true));
        assert_eq!(world.checks.calm_decisions[standby.0], 1, "that is over");
        world.forgive_decisions(standby);
        assert_eq!(world.checks.calm_decisions[standby.0], 0, "another errand begins, and this led to it");
    }

    #[test]
    fn a_busy_loop() {
        let busy = |a_second: u64, ttl_ms: u64| {
            broken(move |world| {
                world.healed = Some(Time(0));
                // As an operator has changed it.
                world.nodes[1].agent.as_mut().unwrap().state.config.ttl = Duration::from_millis(ttl_ms);
                world.checks.calm_orders = a_second * 3 * 60;
                world.check_calm();
            })
        };
        assert_eq!((busy(9, 30_000), busy(8, 30_000)), (Some("L5"), None));
        assert_eq!((busy(13, 3000), busy(12, 3000)), (Some("L5"), None), "shorter timings take more");
    }
}
