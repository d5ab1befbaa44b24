//! Faults at the edges of an order, cuts of one direction, and worlds that heal in part: each does what it says.

use matriarch_core::action::{Lane, StoreAction};

use super::{Fault, Phase, Plan, What, When, Where};
use crate::net::{End, Plane};
use crate::node::{File, NodeId};
use crate::settings::{LeftOut, Settings};
use crate::time::Time;
use crate::trace::Trace;
use crate::world::World;

fn world(faults: Vec<Fault>, settings: Settings) -> World {
    World::new(Plan { faults, ..Plan::calm(1, settings) }, None, Trace::hash_only())
}

fn until(world: &mut World, at_ms: u64) {
    world.run_until(Time::from_ms(at_ms));
    assert_eq!(world.violation, None);
}

/// Whoever leads is frozen when its first renewal after a minute has come so far.
fn frozen_at(phase: Phase) -> (World, NodeId) {
    let when = When::Order { kind: "renew".into(), after_ms: 60_000, nth: 1, phase, or_at_ms: None };
    let faults = vec![Fault { when, what: What::FreezeAgent(Where::Orderer), for_ms: 1000 }];
    // Every message is on its way for longer than the world is looked at.
    let mut world = world(faults, Settings { delay_us: (5000, 5000), ..Settings::usual() });
    until(&mut world, 60_000);
    let leader = world.leading().unwrap();
    while world.nodes[leader.0].awake().is_some() {
        let next = world.now.ms() + 1;
        until(&mut world, next);
        assert!(next < 90_000, "no renewal was ordered");
    }
    (world, leader)
}

#[test]
fn a_fault_strikes_before_an_order_or_once_it_is_begun_has_its_effect_or_is_over() {
    let seen = |phase| {
        let (world, leader) = frozen_at(phase);
        let agent = world.nodes[leader.0].agent.as_ref().unwrap();
        let sent = agent.calls.values().any(|call| matches!(call.action, StoreAction::Renew { .. }));
        let lease = world.store.keys().leader.as_ref().unwrap().lease;
        let left = world.store.lease_until(lease).unwrap().since(world.now);
        let renewed = left.as_millis() > 29_900;
        (agent.state.ops.in_lane(&Lane::Renew).is_some(), sent, renewed)
    };
    assert_eq!(seen(Phase::Before), (true, false, false));
    assert_eq!(seen(Phase::After), (true, true, false));
    assert_eq!(seen(Phase::Applied), (true, true, true));
    assert_eq!(seen(Phase::Ended), (false, false, true));
}

#[test]
fn an_agent_that_is_killed_between_a_file_and_the_word_of_it_has_written_the_file() {
    let when = When::Order { kind: "write_epoch".into(), after_ms: 0, nth: 1, phase: Phase::Applied, or_at_ms: None };
    let kills = vec![Fault { when, what: What::KillAgent(Where::Orderer), for_ms: 500 }];
    let mut world = world(kills, Settings::usual());
    let written = |world: &World| world.nodes.iter().position(|node| node.files.epoch.is_some());
    while written(&world).is_none() {
        let next = world.now.ms() + 1;
        until(&mut world, next);
    }
    let node = &world.nodes[written(&world).unwrap()];
    assert!(node.agent.is_none());
    until(&mut world, 60_000);
    assert!(world.serving().is_some());
}

fn cut_clients(what: What) -> World {
    let mut world = world(vec![Fault { when: When::AtMs(60_000), what, for_ms: 5000 }], Settings::usual());
    until(&mut world, 60_300);
    world
}

fn told(world: &World) -> (usize, u64, u64) {
    let end = world.nodes[world.leading().unwrap().0].place().unwrap();
    (world.ledger.acknowledged.len(), world.ledger.unknown, end.depth)
}

#[test]
fn a_commit_whose_answer_is_cut_off_is_there_and_its_client_does_not_know() {
    let mut world = cut_clients(What::CutToClients(Where::Leader));
    let before = told(&world);
    until(&mut world, 64_999);
    let cut = told(&world);
    assert_eq!(cut.0, before.0, "nobody hears of anything");
    assert!(cut.1 > before.1 && cut.2 > before.2);
    until(&mut world, 70_000);
    assert!(told(&world).0 > cut.0);
}

#[test]
fn a_commit_that_is_cut_off_on_its_way_is_not_there() {
    let mut world = cut_clients(What::CutFromClients(Where::Leader));
    let before = told(&world);
    until(&mut world, 64_999);
    let cut = told(&world);
    assert_eq!(cut.0, before.0);
    assert!(cut.1 > before.1);
    let lsn = |depth: u64| depth - before.2;
    assert!(lsn(cut.2) <= 1, "no row is written: a checkpoint may be");
}

#[test]
fn a_cut_of_one_direction_leaves_the_other() {
    let directions = [
        (What::CutFromAgents(Where::Node(1)), Plane::Agents, false),
        (What::CutToAgents(Where::Node(1)), Plane::Agents, true),
        (What::CutFromReplication(Where::Node(1)), Plane::Replication, false),
        (What::CutToReplication(Where::Node(1)), Plane::Replication, true),
        (What::CutFromStore(Where::Node(1)), Plane::Store, false),
        (What::CutToStore(Where::Node(1)), Plane::Store, true),
    ];
    for (what, plane, out_of) in directions {
        let mut world = world(vec![Fault { when: When::AtMs(60_000), what, for_ms: 2000 }], Settings::usual());
        until(&mut world, 60_001);
        let (here, there) =
            (End::Node(NodeId(1)), if plane == Plane::Store { End::Store(0) } else { End::Node(NodeId(0)) });
        let cut = |world: &World| (world.net.is_cut((plane, there, here)), world.net.is_cut((plane, here, there)));
        assert_eq!(cut(&world), (!out_of, out_of), "{what:?}");
        until(&mut world, 62_001);
        assert_eq!(cut(&world), (false, false), "{what:?}");
    }
}

#[test]
fn a_session_that_takes_no_notice_keeps_its_server_from_stopping_until_it_is_ended() {
    let stops = |stop: What, for_ms| {
        let deaf = What::DeafSession(Where::Leader);
        let faults = vec![
            Fault { when: When::AtMs(60_000), what: deaf, for_ms },
            Fault { when: When::AtMs(61_000), what: stop, for_ms: 0 },
        ];
        let mut world = world(faults, Settings::usual());
        until(&mut world, 60_999);
        let old = world.leading().unwrap();
        let pid = world.nodes[old.0].server.postmaster.as_ref().unwrap().pid;
        while world.nodes[old.0].server.postmaster.as_ref().is_some_and(|pm| pm.pid == pid) {
            let next = world.now.ms() + 100;
            until(&mut world, next);
            assert!(next < 600_000, "it stops for nobody");
        }
        let gone = world.now.ms();
        until(&mut world, gone + 10_000);
        assert!(world.serving().is_some());
        gone / 1000
    };
    let switchover = What::Switchover(Where::Leader);
    assert_eq!(stops(switchover, 20_000), 80, "the session has ended by itself");
    // It is ended a minute after it was told to stop; where whoever told it so was not the agent, and so no checkpoint was
    // written before, when a minute and five more have passed.
    assert_eq!(stops(switchover, 500_000), 121);
    assert_eq!(stops(What::StopByHand(Where::Leader), 500_000), 420);
}

#[test]
fn who_hears_late_what_postgresql_answered_hears_of_the_past() {
    let freeze = Fault { when: When::AtMs(60_003), what: What::FreezeAgent(Where::Leader), for_ms: 9997 };
    let mut world = world(vec![freeze], Settings::usual());
    until(&mut world, 60_000);
    let leader = world.leading().unwrap();
    let flushed = |world: &World| world.nodes[leader.0].agent.as_ref().unwrap().state.postgres.sql.clone().unwrap();
    world.ask_postgres(leader, matriarch_core::id::OpId(u64::MAX));
    until(&mut world, 60_003);
    let (end, before) = (world.nodes[leader.0].place().unwrap(), flushed(&world));
    until(&mut world, 69_999);
    assert!(world.nodes[leader.0].agent.as_ref().unwrap().frozen);
    assert!(world.nodes[leader.0].place().unwrap().depth > end.depth, "it goes on");
    until(&mut world, 70_001);
    let told = flushed(&world);
    assert_ne!(told.asked, before.asked);
    assert!(told.value.flushed <= world.wal.lsn(end), "{told:?}");
}

#[test]
fn who_asks_a_server_that_stands_still_waits_for_two_seconds() {
    let op = matriarch_core::id::OpId(u64::MAX);
    let answered = |frozen: bool, ms: u64| {
        let mut world = world(Vec::new(), Settings::usual());
        until(&mut world, 60_000);
        let leader = world.leading().unwrap();
        world.nodes[leader.0].server.frozen = frozen;
        world.ask_postgres(leader, op);
        until(&mut world, 60_000 + ms);
        !world.nodes[leader.0].agent.as_ref().unwrap().monitoring.contains(&op)
    };
    assert!(answered(false, 10));
    assert_eq!([1990, 2010].map(|ms| answered(true, ms)), [false, true]);
}

#[test]
fn files_that_a_crash_tore_are_not_there_afterwards() {
    let what = What::TearFiles(Where::Leader);
    let mut world = world(vec![Fault { when: When::AtMs(60_000), what, for_ms: 60_000 }], Settings::usual());
    until(&mut world, 59_999);
    let old = world.leading().unwrap();
    assert!(world.nodes[old.0].files.epoch.is_some());
    world.nodes[old.0].files.put(File::Pledge(Some(matriarch_core::id::Revision(1))));
    until(&mut world, 60_001);
    let host = &world.nodes[old.0];
    assert!(!host.up && host.files.epoch.is_none() && host.files.pledge.is_none());
    until(&mut world, 180_000);
    assert!(world.nodes[old.0].up && world.serving().is_some());
}

#[test]
fn a_world_that_heals_in_part_serves_without_what_is_left_out() {
    for left_out in [LeftOut::Down, LeftOut::CutOff, LeftOut::StoreMember] {
        let settings = Settings { left_out: Some(left_out), store_members: 3, faults_ms: 60_000, ..Settings::usual() };
        let mut world = world(Vec::new(), settings);
        until(&mut world, 60_000);
        let so_far = world.ledger.acknowledged.len();
        world.run();
        assert_eq!(world.violation, None, "{left_out:?}");
        assert!(world.ledger.acknowledged.len() > so_far + 100, "{left_out:?}");
        let left = world.checks.left_out;
        match left_out {
            LeftOut::Down => assert!(!world.nodes[left.unwrap().0].up),
            LeftOut::CutOff => {
                let node = End::Node(left.unwrap());
                assert!(world.net.is_cut((Plane::Store, node, End::Store(0))));
                assert!(world.net.is_cut((Plane::Clients, End::Client, node)));
            }
            LeftOut::StoreMember => assert!(left.is_none() && !world.members[0].up),
        }
    }
}

/// The bug: what had asked for it came back with the keys of a backup, and the healed world observed for ever.
#[test]
fn a_world_that_heals_asks_for_no_unsupported_mode() {
    let mut world = world(Vec::new(), Settings { faults_ms: 60_000, ..Settings::usual() });
    until(&mut world, 30_000);
    world.unsupported_asked(true);
    until(&mut world, 59_000);
    assert!(world.nodes.iter().all(|node| node.config.unsupported.is_some()));
    world.run();
    assert_eq!(world.violation, None);
    assert!(world.nodes.iter().all(|node| node.config.unsupported.is_none()));
}
