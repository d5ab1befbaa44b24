//! S31: isolated writing has a bound.

use matriarch_core::view::View;

use crate::time::ms;
use crate::world::World;

impl World {
    /// S31: a primary that hears nobody acknowledges nothing that its isolation would lose, but for `isolation_timeout`
    /// and what it takes to hold: if another could take over, and if its agent lives to see it.
    pub(super) fn check_isolated(&mut self) {
        for index in 0..self.nodes.len() {
            let Some(since) = self.checks.isolated[index] else { continue };
            let limit = ms(self.settings.isolation_timeout_ms + 600);
            let node = &self.nodes[index];
            let alone = self.now.since(since) > limit && self.now.since(self.checks.quiet_since[index]) > limit;
            let Some(agent) = node.agent.as_ref().filter(|agent| alone && !agent.frozen) else { continue };
            let view = View { at: node.clock.read(self.now), state: &agent.state };
            // An agent that only observes holds nothing; the guard ends what it observes.
            let observes = agent.state.config.unsupported.is_some() || self.is_let_go(node.id);
            let heirs = view.has_electable_others() && self.was_prompt();
            // Backends without a postmaster cannot be held by core's order: the guard kills them instead.
            if heirs && !observes && self.writes_by_rule(node.id) && node.server.orphans.is_none() {
                let what = format!("{} hears nobody since {since} and acknowledges commits", self.names[index]);
                self.violated("S31", what);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::time::Time;

    #[test]
    fn isolated_writing_without_end() {
        let isolated = |held: bool| {
            broken(move |world| {
                let node = leader(world);
                world.checks.isolated[node.0] = Some(Time::from_ms(50_000));
                world.nodes[node.0].server.held = held;
                world.check_isolated();
            })
        };
        assert_eq!(isolated(false), Some("S31"));
        assert_eq!(isolated(true), None);
    }
}
