//! L9: once a pause is over the cluster does what L1 and L2 ask of a healed one. It has as long from there, or from whatever
//! else went wrong last: where it stays calm after a pause somebody serves within that time, and in twice that and
//! `wal_receiver_timeout` everybody follows; a shutdown checkpoint later where an operator stopped one by hand since. Of a
//! pause that ends with the faults L1 and L2 tell.

use std::time::Duration;

use crate::node::NodeId;
use crate::postgres::RECEIVER_TIMEOUT;
use crate::time::{Time, ms};
use crate::world::World;

/// A pause that is over.
#[derive(Clone, Copy, Debug)]
pub struct Resumed {
    /// Since when.
    at: Time,
    /// It was seen that somebody served when he had to.
    served: bool,
    /// An operator has stopped one by hand since.
    by_hand: bool,
}

impl World {
    /// A pause begins or ends.
    pub(super) fn note_resumed(&mut self, paused: bool) {
        self.checks.resumed = (!paused).then_some(Resumed { at: self.now, served: false, by_hand: false });
    }

    /// An operator stops one by hand, whose shutdown writes a checkpoint first.
    pub(super) fn note_stopped_by_hand(&mut self) {
        self.checks.resumed.iter_mut().for_each(|resumed| resumed.by_hand = true);
    }

    /// L9: after everything that happens.
    pub(super) fn check_resumed(&mut self) {
        let Some(resumed) = self.checks.resumed.filter(|_| self.healed.is_none()) else { return };
        let since = self.calm_since(resumed.at);
        let checkpoint = if resumed.by_hand { ms(self.pace.checkpoint.1) } else { Duration::ZERO };
        // A standby may wait for the word of a host whose power has failed.
        let bound = ms(self.settings.serving_bound_ms());
        let bound = if resumed.served { 2 * bound + RECEIVER_TIMEOUT } else { bound } + checkpoint;
        if self.now.since(since) <= bound || !self.is_undisturbed(bound) {
            return;
        }
        if !resumed.served {
            self.checks.resumed = Some(Resumed { served: true, ..resumed });
            let serves = self.checks.outage().since().is_none();
            self.coverage.count("serves after a pause");
            if !serves && !self.nobody_may_lead() {
                let what = format!("nobody has served for {} ms, after a pause", self.now.since(since).as_millis());
                self.violated("L9", what);
            }
            return;
        }
        self.checks.resumed = None;
        self.coverage.count("all follow after a pause");
        if let Some(what) = self.who_does_not_follow() {
            self.violated("L9", format!("after a pause {what}"));
        }
    }

    /// Nothing has gone wrong since then, and nobody was without service who is now. A store that went back is not believed
    /// for a while.
    fn calm_since(&self, resumed: Time) -> Time {
        let believed = self.checks.restored.map_or(Time(0), |at| at + ms(2 * self.settings.ttl_ms));
        let outage = self.checks.outage().since().unwrap_or_default();
        resumed.max(self.checks.unrest.unwrap_or_default()).max(believed).max(outage)
    }

    /// No fault goes on, and every agent was awake all the time.
    fn is_undisturbed(&self, for_so_long: Duration) -> bool {
        let long = |node: NodeId| {
            let host = &self.nodes[node.0];
            host.awake().is_some() && self.now.since(host.booted) > for_so_long
        };
        self.checks.struck.is_empty() && (0..self.nodes.len()).map(NodeId).all(long) && self.was_prompt()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::fault::{Fault, Plan, What, When, Where};
    use crate::mutant::Mutant;
    use crate::run::run;
    use crate::settings::Settings;
    use crate::trace::Trace;

    /// A pause ended that long ago, and something is as it should not be; it began with the pause.
    fn after(ms_ago: u64, spoil: fn(&mut World, NodeId)) -> Option<&'static str> {
        broken(move |world| {
            world.checks.unrest = None;
            world.note_resumed(false);
            let (resumed, lead) = (world.now, leader(world));
            spoil(world, lead);
            world.note_service();
            world.now = resumed + ms(ms_ago);
            for _ in 0..2 {
                world.check_resumed();
            }
        })
    }

    fn fences(world: &mut World, node: NodeId) {
        world.nodes[node.0].server.held = true;
    }

    fn does_not_stream(world: &mut World, _: NodeId) {
        let node = standby(world);
        world.receiver_ends(node);
    }

    #[test]
    fn a_pause_after_which_nobody_serves_or_somebody_does_not_follow() {
        let bound = Settings::usual().serving_bound_ms();
        assert_eq!(after(bound + 1, fences), Some("L9"));
        assert_eq!(after(bound, fences), None, "it has so long");
        let longer = 2 * bound + RECEIVER_TIMEOUT.as_millis() as u64;
        assert_eq!(after(longer + 1, does_not_stream), Some("L9"));
        assert_eq!(after(longer, does_not_stream), None, "that takes longer");
        let struck = |world: &mut World, node: NodeId| {
            fences(world, node);
            world.checks.struck.insert(0, node);
        };
        assert_eq!(after(bound + 1, struck), None, "a fault goes on");
        let lately = |world: &mut World, node: NodeId| {
            fences(world, node);
            world.checks.unrest = Some(world.now + ms(1000));
        };
        assert_eq!((after(bound + 1, lately), after(bound + 1001, lately)), (None, Some("L9")), "one struck after it");
        let again = |world: &mut World, node: NodeId| {
            fences(world, node);
            world.note_resumed(true);
        };
        assert_eq!(after(bound + 1, again), None, "it is paused again");
        let slow = |world: &mut World, node: NodeId| {
            fences(world, node);
            world.pace.checkpoint.1 = 30_000;
        };
        let by_hand = |world: &mut World, node: NodeId| {
            fences(world, node);
            world.pace.checkpoint.1 = 30_000;
            world.note_stopped_by_hand();
        };
        assert_eq!(
            (after(bound + 1, slow), after(bound + 1, by_hand)),
            (Some("L9"), None),
            "who stops writes a checkpoint"
        );
        assert_eq!((after(bound + 30_000, by_hand), after(bound + 30_001, by_hand)), (None, Some("L9")));
        let without_agent = |world: &mut World, node: NodeId| {
            fences(world, node);
            let away = standby(world);
            world.agent_gone(away);
        };
        assert_eq!(after(bound + 1, without_agent), None, "an agent is away");
        let barred = |world: &mut World, node: NodeId| {
            fences(world, node);
            for node in &mut world.nodes {
                node.config.nofailover = true;
            }
        };
        assert_eq!(after(bound + 1, barred), None, "whose data are there may not lead");
    }

    /// A standby that was killed in a pause is left alone as long as that lasts. Who does not hear of its end leaves it so.
    #[test]
    fn a_member_that_stays_paused_is_found() {
        let standby = standby(&steady());
        let at = |at_ms, what, for_ms| Fault { when: When::AtMs(at_ms), what, for_ms };
        let faults = vec![at(60_000, What::Pause, 60_000), at(90_000, What::KillPostgres(Where::Node(standby.0)), 0)];
        let plan = Plan { faults, ..Plan::calm(1, Settings::usual()) };
        let ran = |mutant| run(plan.clone(), mutant, Trace::hash_only());
        let found = |mutant| ran(mutant).violation.map(|violation| violation.invariant);
        assert_eq!(found(Some(Mutant::ResumeHeardByTheLeader)), Some("L9"));
        let sound = ran(None);
        assert_eq!(sound.violation, None);
        let judged = ["serves after a pause", "all follow after a pause"].map(|what| sound.coverage.of(what));
        assert_eq!(judged, [1, 1]);
    }
}
