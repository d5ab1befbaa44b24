//! L10: how long nobody can write after a fault that comes alone has a bound, by the configuration and the kind of fault.
//! The swarm tells how such outages are distributed.

use std::time::Duration;

use matriarch_core::config::AHEAD_PATIENCE;

use crate::fault::{Fault, What};
use crate::time::{Time, ms};
use crate::world::World;

/// Nothing happened for so long: what happens next is not the work of what was before.
const ALONE_AFTER_MS: u64 = 30_000;

impl World {
    /// A fault strikes.
    pub fn note_strike(&mut self, fault: &Fault) {
        let now = self.now;
        let calm = self.checks.unrest.is_none_or(|last| now.since(last) > ms(ALONE_AFTER_MS));
        let alone = calm && !self.is_paused() && self.checks.struck.is_empty() && self.serving().is_some();
        self.checks.lone = alone.then(|| (fault.what.kind(), now, self.outage_budget(fault)));
        self.checks.unrest = Some(now);
        if stops_by_hand(&fault.what) {
            self.note_stopped_by_hand();
        }
    }

    /// An unsupported mode came back with the keys of a backup, and nobody may lead: that outage is not the restore's alone.
    pub fn note_mode_restored(&mut self) {
        let restored = |(kind, ..): &(&str, Time, Duration)| *kind == What::RestoreStore(0).kind();
        self.checks.lone = self.checks.lone.filter(|lone| !restored(lone));
    }

    /// A fault is over, or an outage.
    pub fn note_unrest(&mut self) {
        self.checks.unrest = Some(self.now);
    }

    /// Somebody serves again.
    pub(super) fn check_outage(&mut self, since: Time) {
        self.note_unrest();
        let Some((kind, at, budget)) = self.checks.lone.filter(|(_, at, _)| since >= *at) else { return };
        let lasted = self.now.since(since);
        self.coverage.outage(kind, lasted);
        if lasted > budget {
            let what = format!(
                "nobody served for {} ms after {kind} at {at}, {} ms are allowed",
                lasted.as_millis(),
                budget.as_millis()
            );
            self.violated("L10", what);
        }
    }

    /// Where the agent of the leader lives, the longest that one node stands back for another, twice. Otherwise what a
    /// healed world may take, and as long as the fault lasts: with `maximum_lag_on_failover` at 0 nobody but the last
    /// leader may be eligible.
    fn outage_budget(&self, fault: &Fault) -> Duration {
        let momentary = matches!(
            fault.what,
            What::KillPostmaster(..)
                | What::KillPostgres(_)
                | What::KillGuard(_)
                | What::KillBackend(_)
                | What::StopByHand(_)
                | What::RestartByHand(_)
                | What::ScheduleSwitchover(_)
                | What::ScheduleRestart(_)
                | What::DeleteKey(_)
                | What::GarbleKey(_)
                | What::DeleteAllKeys
                | What::CutClients(_)
                | What::CutToClients(_)
                | What::CutFromClients(_)
                | What::CutAgents(_)
                | What::CutFromAgents(_)
                | What::CutToAgents(_)
                | What::SetWallClock(..)
                | What::FillDisk(_)
                | What::FailTools(_)
                | What::ChangeConfig { .. }
                | What::LoseKey
                | What::LoseLease
                | What::Switchover(_)
                | What::Failover(_)
                | What::Restart(_)
                | What::Reinitialize(_)
        );
        if momentary {
            // What is there is started again, or handed over: no lease has to end. Nobody writes a checkpoint before he stops
            // it by hand.
            let checkpoint = if stops_by_hand(&fault.what) { ms(self.pace.checkpoint.1) } else { Duration::ZERO };
            return 2 * AHEAD_PATIENCE + checkpoint;
        }
        // A store that went back is not believed for a ttl, and its old keys last another.
        let restored = matches!(fault.what, What::RestoreStore(_));
        let disbelief = if restored { 2 * self.settings.ttl_ms } else { 0 };
        ms(self.settings.serving_bound_ms() + disbelief + fault.for_ms)
    }
}

fn stops_by_hand(what: &What) -> bool {
    matches!(what, What::StopByHand(_) | What::RestartByHand(_))
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::fault::{When, Where};

    fn outage(lasted_ms: u64, unrest: bool, for_ms: u64, what: What) -> Option<&'static str> {
        broken(move |world| {
            world.checks.unrest = unrest.then_some(world.now);
            world.note_strike(&Fault { when: When::AtMs(0), what, for_ms });
            let since = world.now;
            world.now = world.now + ms(lasted_ms);
            world.check_outage(since);
        })
    }

    #[test]
    fn an_outage_beyond_its_budget() {
        let killed = What::KillPostgres(Where::Leader);
        assert_eq!(outage(100_000, false, 60_000, killed), Some("L10"));
        assert_eq!(outage(5000, false, 60_000, killed), None);
        assert_eq!(outage(100_000, true, 60_000, killed), None, "something else had just happened");
        assert_eq!(outage(100_000, false, 60_000, What::StopStore), None, "nobody leads without a store");
        let observes = |what: What| {
            broken(move |world| {
                world.note_strike(&Fault { when: When::AtMs(0), what, for_ms: 0 });
                world.note_mode_restored();
                let since = world.now;
                world.now = world.now + ms(1_000_000);
                world.check_outage(since);
            })
        };
        assert_eq!(observes(What::RestoreStore(0)), None, "it only observes meanwhile");
        assert_eq!(observes(What::AskUnsupported), Some("L10"), "whoever leads serves on in that mode");
    }
}
