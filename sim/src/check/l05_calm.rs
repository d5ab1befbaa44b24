//! L5: calm is calm.

use std::time::Duration;

use matriarch_core::effects::Effects;

use crate::world::World;

impl World {
    /// Two minutes after the faults ended every order counts.
    pub(super) fn count_calm_orders(&mut self, effects: &Effects) {
        if self.healed.is_some_and(|healed| self.now.since(healed) > Duration::from_secs(120)) {
            self.checks.calm_orders += effects.orders.len() as u64;
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
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::time::Time;

    #[test]
    fn a_busy_loop() {
        let busy = |orders: u64| {
            broken(move |world| {
                world.healed = Some(Time(0));
                world.checks.calm_orders = orders;
                world.check_calm();
            })
        };
        assert_eq!(busy(1_000_000), Some("L5"));
        assert_eq!(busy(100), None);
    }
}
