//! Faults that strike where they change nothing, and such as end while another of their kind goes on.

use super::What;
use crate::node::NodeId;
use crate::postgres::Disk;
use crate::store::hands::KEYS;
use crate::world::World;

impl World {
    /// There is nothing for it to strike: it is none, and resets no clock of those that wait for calm. Each kind is named:
    /// one that nobody has thought about would count as having struck, and forgive what it has no part in.
    pub(super) fn comes_to_nothing(&self, what: What, node: NodeId) -> bool {
        let host = &self.nodes[node.0];
        let pm = host.server.postmaster.as_ref();
        match what {
            What::KillPostmaster(..) => pm.is_none() || host.server.stuck.is_some(),
            What::KillPostgres(_) => pm.is_none() && host.server.orphans.is_none(),
            What::FreezePostgres(_) | What::HangPostgres(_) | What::RestartByHand(_) => pm.is_none(),
            // What stops already is not stopped.
            What::StopByHand(_) => pm.is_none_or(|pm| pm.stopping.is_some()),
            What::KillBackend(_) => !self.has_backends(node),
            What::DeafSession(_) => pm.is_none_or(|pm| pm.in_recovery),
            What::PauseReplay(_) => pm.is_none_or(|pm| !pm.in_recovery),
            What::PromoteByHand(_) => !self.can_be_promoted(node),
            What::KillAgent(_) | What::FreezeAgent(_) | What::StopAgent(_) => host.agent.is_none(),
            What::Restart(_) | What::Reinitialize(_) | What::ScheduleRestart(_) => host.agent.is_none(),
            What::Switchover(_) | What::ScheduleSwitchover(_) => self.whom_to_ask_for_a_switchover().is_none(),
            What::Failover(_) => self.whom_to_ask_for_a_failover(node).is_none(),
            What::KillGuard(_) => host.guard.is_none(),
            What::CrashHost(_) | What::TearFiles(_) | What::SuspendHost(_) => !host.up,
            What::SetWallClock(_, by_ms) => by_ms == 0,
            What::RemoveData(_) => !self.follows_who_serves(node) || (pm.is_none() && host.server.disk == Disk::Empty),
            What::ForeignData(_) => !self.follows_who_serves(node),
            What::LoseKey | What::LoseLease => self.store.keys().leader.is_none(),
            What::DeleteKey(key) => !self.store.holds(key),
            What::GarbleKey(key) => !self.store.can_be_garbled(key),
            What::DeleteAllKeys => self.store.keys().leader.is_none() && !KEYS.iter().any(|key| self.store.holds(*key)),
            What::ChangeConfig { .. } => self.is_configured(what),
            What::SlowNetwork(times) => times <= 1,
            What::LossyNetwork(percent) => percent == 0,
            cut @ (What::Isolate(_)
            | What::CutStore(_)
            | What::CutToStore(_)
            | What::CutFromStore(_)
            | What::CutAgents(_)
            | What::CutFromAgents(_)
            | What::CutToAgents(_)
            | What::CutReplication(_)
            | What::CutFromReplication(_)
            | What::CutToReplication(_)
            | What::CutClients(_)
            | What::CutFromClients(_)
            | What::CutToClients(_)
            | What::CutPair(..)
            | What::CutFromMember(..)
            | What::CutStoreMember(_)) => self.links(cut, node).iter().all(|(_, from, to)| from == to),
            // It lasts, and meets whatever comes while it does: also on a host that has no power just now.
            What::SilenceWatches(_)
            | What::FillDisk(_)
            | What::FillData(_)
            | What::HideData(_)
            | What::HangStart(_)
            | What::FailTools(_) => false,
            // It lasts, and its end is a change if its beginning was none: members start, the store is another.
            What::StopStore | What::StopStoreMember(_) | What::FreezeStoreMember(_) | What::RestoreStore(_) => false,
            // Where another has asked for it already, this one asks for longer.
            What::AskUnsupported | What::Pause => false,
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
    use crate::store::hands::Key;
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
        assert_eq!(drawn, KINDS.iter().copied().collect());
    }

    /// How a world at peace is spoilt until a fault finds nothing there.
    type Spoilt = fn(&mut World, NodeId);

    fn without_postgres(world: &mut World, node: NodeId) {
        world.gone(node);
    }

    fn without_agent(world: &mut World, node: NodeId) {
        world.agent_gone(node);
    }

    fn without_power(world: &mut World, node: NodeId) {
        world.nodes[node.0].up = false;
    }

    fn without_a_leader(world: &mut World, _: NodeId) {
        world.store.delete_leader();
    }

    fn without_keys(world: &mut World, _: NodeId) {
        world.store.delete_all();
    }

    fn empty(world: &mut World, node: NodeId) {
        world.gone(node);
        world.nodes[node.0].server.disk = Disk::Empty;
    }

    /// Of a standby's server, its agent, guard and host.
    fn of_a_node(here: Where) -> Vec<(What, Option<Spoilt>)> {
        let promoted: Spoilt =
            |world, node| world.nodes[node.0].server.postmaster.as_mut().unwrap().in_recovery = false;
        let stops: Spoilt = |world, node| {
            let pm = world.nodes[node.0].server.postmaster.as_mut().unwrap();
            pm.stopping = Some(matriarch_core::view::postgres::StopMode::Fast);
        };
        let hangs: Spoilt = |world, node| world.nodes[node.0].server.stuck = Some(false);
        vec![
            (What::KillPostmaster(here, 1), Some(hangs)),
            (What::KillPostgres(here), Some(without_postgres)),
            (What::FreezePostgres(here), Some(without_postgres)),
            (What::HangPostgres(here), Some(without_postgres)),
            (What::RestartByHand(here), Some(without_postgres)),
            (What::StopByHand(here), Some(stops)),
            (What::KillBackend(here), Some(stops)),
            (What::PauseReplay(here), Some(promoted)),
            (What::PromoteByHand(here), Some(stops)),
            (What::KillAgent(here), Some(without_agent)),
            (What::FreezeAgent(here), Some(without_agent)),
            (What::StopAgent(here), Some(without_agent)),
            (What::Restart(here), Some(without_agent)),
            (What::Reinitialize(here), Some(without_agent)),
            (What::ScheduleRestart(here), Some(without_agent)),
            (What::KillGuard(here), Some(|world, node| world.nodes[node.0].guard = None)),
            (What::CrashHost(here), Some(without_power)),
            (What::TearFiles(here), Some(without_power)),
            (What::SuspendHost(here), Some(without_power)),
            (What::RemoveData(here), Some(empty)),
            (What::ForeignData(here), Some(without_a_leader)),
            (What::SetWallClock(here, 1), None),
            (What::SilenceWatches(here), None),
            (What::FillDisk(here), None),
            (What::FillData(here), None),
            (What::HideData(here), None),
            (What::HangStart(here), None),
            (What::FailTools(here), None),
        ]
    }

    fn of_the_store() -> Vec<(What, Option<Spoilt>)> {
        let other = What::ChangeConfig { ttl_ms: 1, loop_wait_ms: 1, retry_timeout_ms: 1, maximum_lag_bytes: 1 };
        vec![
            (What::LoseKey, Some(without_a_leader)),
            (What::LoseLease, Some(without_a_leader)),
            (What::DeleteKey(Key::Status), Some(without_keys)),
            (What::DeleteAllKeys, Some(without_keys)),
            (What::GarbleKey(Key::Members), Some(without_keys)),
            (What::GarbleKey(Key::Status), None),
            (
                other,
                Some(|world, _| {
                    let same =
                        What::ChangeConfig { ttl_ms: 1, loop_wait_ms: 1, retry_timeout_ms: 1, maximum_lag_bytes: 1 };
                    world.configuration_changes(same);
                }),
            ),
            (What::StopStore, None),
            (What::StopStoreMember(0), None),
            (What::FreezeStoreMember(0), None),
            (What::RestoreStore(1000), None),
            (What::AskUnsupported, None),
            (What::Pause, None),
        ]
    }

    /// Of links none is missing: a pair alone may be none.
    fn of_the_network(here: Where) -> Vec<(What, Option<Spoilt>)> {
        let whole = [
            What::Isolate(here),
            What::CutStore(here),
            What::CutToStore(here),
            What::CutFromStore(here),
            What::CutAgents(here),
            What::CutFromAgents(here),
            What::CutToAgents(here),
            What::CutReplication(here),
            What::CutFromReplication(here),
            What::CutToReplication(here),
            What::CutClients(here),
            What::CutFromClients(here),
            What::CutToClients(here),
            What::CutFromMember(here, 0),
            What::CutStoreMember(0),
            What::SlowNetwork(2),
            What::LossyNetwork(1),
        ];
        whole.map(|what| (what, None)).into()
    }

    #[test]
    fn each_kind_strikes_something_or_is_no_fault() {
        let calm = after(Vec::new(), 60_000);
        let leader = calm.leading().unwrap();
        let standby = NodeId((leader.0 + 1) % 3);
        let here = Where::Node(standby.0);
        let led: [(What, Option<Spoilt>); 4] = [
            (
                What::DeafSession(here),
                Some(|world, node| {
                    world.nodes[node.0].server.postmaster.as_mut().unwrap().in_recovery = true;
                }),
            ),
            (What::Switchover(here), Some(without_agent)),
            (What::ScheduleSwitchover(here), Some(without_agent)),
            (What::Failover(here), Some(without_agent)),
        ];
        let of_standby = [of_a_node(here), of_the_store(), of_the_network(here)].concat();
        let cases = of_standby.into_iter().map(|case| (standby, case)).chain(led.map(|case| (leader, case)));
        let mut kinds = BTreeSet::from([What::CutPair(here, 0).kind()]);
        for (node, (what, spoilt)) in cases {
            kinds.insert(what.kind());
            assert!(!calm.comes_to_nothing(what, node), "{what:?}");
            if let Some(spoil) = spoilt {
                let mut world = after(Vec::new(), 60_000);
                spoil(&mut world, node);
                assert!(world.comes_to_nothing(what, node), "{what:?} strikes");
            }
        }
        assert_eq!(kinds, KINDS.iter().copied().collect(), "a kind without a case");
        for nothing in
            [What::CutPair(here, standby.0), What::SetWallClock(here, 0), What::SlowNetwork(1), What::LossyNetwork(0)]
        {
            assert!(calm.comes_to_nothing(nothing, standby), "{nothing:?} strikes");
        }
        assert!(!calm.comes_to_nothing(What::CutPair(here, leader.0), standby));
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
