//! L8: with every watch silent the healed world does what L1 and L2 ask of it, only slower: nothing rests on watches.

use std::time::Duration;

use crate::node::NodeId;
use crate::time::ms;
use crate::world::World;

impl World {
    /// The faults are over; where the plan wants it, no watch tells anything from here on.
    pub fn silence_watches(&mut self) {
        for node in 0..self.nodes.len() {
            self.checks.silent[node] = self.settings.silent_calm;
        }
    }

    /// The invariant that a healed world breaks if it does not do what L1 or L2 asks.
    pub(super) fn liveness(&self, id: &'static str) -> &'static str {
        let silent =
            self.settings.silent_calm && (0..self.nodes.len()).map(NodeId).all(|node| self.plan_silences(node));
        if silent { "L8" } else { id }
    }

    /// How much longer it may take: what is not told is found by the next reading of the keys, and what comes of that by
    /// the next.
    pub(super) fn slower_by(&self) -> Duration {
        if self.settings.silent_calm { ms(3 * self.settings.loop_wait_ms) } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::time::Time;

    #[test]
    fn silence_that_keeps_a_world_from_serving() {
        let served = |silent: bool, after_ms: u64| {
            broken(move |world| {
                world.settings.silent_calm = silent;
                world.silence_watches();
                world.healed = Some(Time::from_ms(10_000));
                world.checks.outage.served = Some(Time::from_ms(10_000 + after_ms));
                world.check_service();
            })
        };
        let bound = crate::settings::Settings::usual().serving_bound_ms();
        assert_eq!(served(true, bound + 31_000), Some("L8"));
        assert_eq!(served(true, bound + 1000), None, "it may be slower");
        assert_eq!(served(false, bound + 1000), Some("L1"));
    }
}
