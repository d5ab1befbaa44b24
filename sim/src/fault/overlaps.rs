//! Faults that strike where they change nothing, and such as end while another of their kind goes on.

use super::What;
use crate::node::NodeId;
use crate::world::World;

impl World {
    /// There is nothing for it to strike: it is none, and resets no clock of those that wait for calm.
    pub(super) fn comes_to_nothing(&self, what: What, node: NodeId) -> bool {
        let host = &self.nodes[node.0];
        let runs = host.server.postmaster.is_some();
        match what {
            What::KillPostmaster(..)
            | What::KillBackend(_)
            | What::DeafSession(_)
            | What::FreezePostgres(_)
            | What::HangPostgres(_)
            | What::StopByHand(_)
            | What::RestartByHand(_)
            | What::PauseReplay(_) => !runs,
            What::KillPostgres(_) => !runs && host.server.orphans.is_none(),
            What::PromoteByHand(_) => host.server.postmaster.as_ref().is_none_or(|pm| !pm.in_recovery),
            What::KillAgent(_) | What::FreezeAgent(_) | What::StopAgent(_) => host.agent.is_none(),
            What::Restart(_) | What::Reinitialize(_) | What::ScheduleRestart(_) => host.agent.is_none(),
            What::KillGuard(_) => host.guard.is_none(),
            What::CrashHost(_) | What::TearFiles(_) | What::SuspendHost(_) => !host.up,
            What::RemoveData(_) | What::ForeignData(_) => !self.follows_who_serves(node),
            What::Switchover(_) | What::ScheduleSwitchover(_) | What::LoseKey | What::LoseLease => {
                self.store.keys().leader.is_none()
            }
            What::CutPair(_, other) => other % self.nodes.len() == node.0,
            _ => false,
        }
    }

    /// Another fault keeps it so: the end of this one ends nothing. Cuts are counted where they are made, and end one by one.
    pub(super) fn is_kept_up(&self, what: What, node: NodeId) -> bool {
        let others = self.checks.struck.iter().map(|(index, at)| (self.plan.faults[*index].what, *at));
        let mut others = others.filter(|(_, at)| *at == node).map(|(other, _)| other);
        let stops_store = |other: &What| matches!(other, What::StopStore | What::RestoreStore(_));
        match what {
            What::CrashHost(_) | What::TearFiles(_) => {
                others.any(|other| matches!(other, What::CrashHost(_) | What::TearFiles(_)))
            }
            What::FreezePostgres(_) | What::HangPostgres(_) => {
                others.any(|other| matches!(other, What::FreezePostgres(_) | What::HangPostgres(_)))
            }
            What::StopStore => others.any(|other| stops_store(&other)),
            What::StopStoreMember(_) => others.any(|other| other == what || stops_store(&other)),
            What::FreezeStoreMember(_) => others.any(|other| other == what),
            What::FreezeAgent(_)
            | What::SlowNetwork(_)
            | What::LossyNetwork(_)
            | What::SilenceWatches(_)
            | What::FillDisk(_)
            | What::FillData(_)
            | What::HideData(_)
            | What::SuspendHost(_)
            | What::DeafSession(_)
            | What::HangStart(_)
            | What::FailTools(_)
            | What::AskUnsupported
            | What::Pause
            | What::PauseReplay(_) => others.any(|other| other.kind() == what.kind()),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{Fault, KINDS, Phase, Plan, When, Where};
    use super::*;
    use crate::settings::Settings;
    use crate::time::Time;
    use crate::trace::Trace;

    type Holds<'a> = &'a dyn Fn(&World) -> bool;

    fn at(at_ms: u64, what: What, for_ms: u64) -> Fault {
        Fault { when: When::AtMs(at_ms), what, for_ms }
    }

    fn after(faults: Vec<Fault>, ms: u64) -> World {
        let mut world = World::new(Plan { faults, ..Plan::calm(1, Settings::usual()) }, None, Trace::hash_only());
        world.run_until(Time::from_ms(ms));
        assert_eq!(world.violation, None);
        world
    }

    #[test]
    fn every_kind_that_is_drawn_has_its_name_in_the_list() {
        let plans = (1..600).map(Plan::of_seed);
        let drawn: BTreeSet<&str> = plans.flat_map(|plan| plan.faults).map(|fault| fault.what.kind()).collect();
        assert_eq!(drawn, KINDS.into_iter().collect());
    }

    #[test]
    fn what_strikes_nothing_is_no_fault() {
        let of = |what| after(vec![at(60_000, what, 1000)], 60_001).coverage.of("fault");
        let calm = after(Vec::new(), 60_000);
        let leader = Where::Node(calm.leading().unwrap().0);
        let standby = Where::Node((calm.leading().unwrap().0 + 1) % 3);
        let nothing = [
            What::RemoveData(leader),
            What::ForeignData(leader),
            What::PromoteByHand(leader),
            What::CutPair(Where::Node(1), 4),
        ];
        assert_eq!(nothing.map(of), [0; 4]);
        let something = [What::RemoveData(standby), What::PromoteByHand(standby), What::CutPair(Where::Node(1), 3)];
        assert_eq!(something.map(of), [1; 3]);
        // The second finds nobody to kill.
        let killed = |what| after(vec![at(60_000, what, 5000), at(60_001, what, 5000)], 60_002).coverage.of("fault");
        let (agent, host, guard) = (What::KillAgent(standby), What::CrashHost(standby), What::KillGuard(standby));
        assert_eq!([agent, host, guard].map(killed), [1; 3]);
    }

    /// The bug: two faults of one kind overlapped, and the end of the first ended both.
    #[test]
    fn the_end_of_a_fault_ends_no_other_of_its_kind() {
        let node = Where::Node(0);
        let overlapping = |what, then| vec![at(60_000, what, 2000), at(61_000, then, 4000)];
        let both = |what, then, holds: Holds<'_>| {
            [60_500, 61_500, 62_500, 66_500].map(|ms| holds(&after(overlapping(what, then), ms)))
        };
        let lasts = [true, true, true, false];
        let cases: [(What, Holds<'_>); 8] = [
            (What::FillDisk(node), &|world| world.nodes[0].files.full),
            (What::HideData(node), &|world| world.nodes[0].files.hidden),
            (What::FreezeAgent(node), &|world| world.nodes[0].agent.as_ref().is_some_and(|agent| agent.frozen)),
            (What::CrashHost(node), &|world| !world.nodes[0].up),
            (What::SuspendHost(node), &|world| world.nodes[0].suspended),
            (What::StopStore, &|world| !world.members[0].up),
            (What::LossyNetwork(50), &|world| world.net.loss_percent > 0),
            (What::Isolate(node), &|world| {
                let store = crate::net::End::Store(0);
                world.net.is_cut((crate::net::Plane::Store, crate::net::End::Node(NodeId(0)), store))
            }),
        ];
        for (what, holds) in cases {
            // A host without power is not struck again, and comes back with the first.
            let expected = if matches!(what, What::CrashHost(_)) { [true, true, false, false] } else { lasts };
            assert_eq!(both(what, what, holds), expected, "{what:?}");
        }
        let down: Holds<'_> = &|world| !world.members[0].up;
        assert_eq!(both(What::StopStore, What::StopStoreMember(0), down), lasts);
        assert_eq!(both(What::StopStoreMember(0), What::StopStore, down), lasts);
    }

    #[test]
    fn a_fault_that_waits_for_an_order_in_vain_strikes_by_its_time() {
        let waits = |kind: &str, or_at_ms| {
            let when = When::Order { kind: kind.into(), after_ms: 60_000, nth: 1, phase: Phase::Before, or_at_ms };
            let faults = vec![Fault { when, what: What::FillDisk(Where::Node(0)), for_ms: 1000 }];
            [79_999, 80_500].map(|ms| after(faults.clone(), ms).coverage.of("fault"))
        };
        assert_eq!(waits("rewind", Some(80_000)), [0, 1]);
        assert_eq!(waits("rewind", None), [0, 0]);
        assert_eq!(waits("renew", Some(80_000)), [1, 1], "once is enough");
    }
}
