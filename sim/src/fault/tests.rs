//! Each fault alone: it does to the world what the real thing does, and its end undoes it.

use matriarch_core::event::EpochFile;
use matriarch_core::id::{Revision, StoreId, Timeline};
use matriarch_core::view::postgres::ControlState;

use super::{Fault, Plan, What, When, Where};
use crate::node::{File, NodeId};
use crate::postgres::Crash;
use crate::settings::Settings;
use crate::store::hands::Key;
use crate::time::{Time, ms};
use crate::trace::Trace;
use crate::world::World;

/// A minute of peace, then one fault on the leader for so long.
fn struck(what: What, for_ms: u64) -> World {
    let mut plan = Plan::calm(1, Settings::usual());
    plan.faults.push(Fault { when: When::AtMs(60_000), what, for_ms });
    World::new(plan, None, Trace::hash_only())
}

fn until(world: &mut World, at_ms: u64) {
    world.run_until(Time::from_ms(at_ms));
    assert_eq!(world.violation, None);
}

fn steady() -> (World, NodeId, NodeId) {
    let mut world = World::new(Plan::calm(1, Settings::usual()), None, Trace::hash_only());
    until(&mut world, 60_000);
    let leader = world.leading().unwrap();
    let standby = NodeId((leader.0 + 1) % 3);
    (world, leader, standby)
}

/// The node that the leader key named when the fault came.
fn before(world: &mut World) -> NodeId {
    until(world, 59_999);
    world.leading().unwrap()
}

#[test]
fn a_plan_is_written_down_and_read_back() {
    for seed in 1..200 {
        let plan = Plan::of_seed(seed);
        let text = serde_yaml::to_string(&plan).unwrap();
        assert_eq!(serde_yaml::from_str::<Plan>(&text).unwrap(), plan, "{text}");
    }
}

#[test]
fn power_that_fails_takes_what_was_written_and_not_made_sure_of() {
    let (mut kept, mut lost) = (0, 0);
    for _ in 0..20 {
        let (mut world, leader, standby) = steady();
        let ahead = (0..5).all(|_| world.writes(leader, crate::postgres::wal::Record::Checkpoint));
        assert!(ahead);
        let to = world.nodes[leader.0].server.cluster().unwrap().end;
        let on_disk = world.nodes[standby.0].server.cluster_mut().unwrap();
        let flushed = on_disk.flushed;
        on_disk.end = to;
        for _ in 0..kept + lost {
            world.postgres_random.draw();
        }
        world.crashes(standby, Crash::PowerLoss);
        let on_disk = world.nodes[standby.0].server.cluster().unwrap();
        assert!(on_disk.end.depth >= flushed.depth && world.wal.contains(to, on_disk.end));
        assert_eq!(on_disk.end, on_disk.flushed);
        if on_disk.end == to { kept += 1 } else { lost += 1 }
    }
    assert!(kept > 0 && lost > 0, "the kernel may have written it, or not: {kept} and {lost}");
    let (mut world, leader, _) = steady();
    let end = world.nodes[leader.0].server.cluster().unwrap().end;
    world.crashes(leader, Crash::PowerLoss);
    assert_eq!(world.nodes[leader.0].server.cluster().unwrap().end, end, "a commit is made sure of before it is one");
}

#[test]
fn a_small_file_that_was_being_written_is_whole_or_the_old_one() {
    let (mut world, leader, _) = steady();
    let file = EpochFile { store: StoreId(9), epoch: Revision(9), timeline: Timeline(9), ..epoch(&world, leader) };
    let old = world.nodes[leader.0].files.epoch;
    let (mut whole, mut none) = (0, 0);
    for op in 0..20 {
        let files = &mut world.nodes[leader.0].files;
        files.epoch = old;
        files.writing.push((matriarch_core::id::OpId(op), File::Epoch(file)));
        world.agent_gone(leader);
        match world.nodes[leader.0].files.epoch {
            Some(found) if found == file => whole += 1,
            found => {
                assert_eq!(found, old);
                none += 1;
            }
        }
        assert!(world.nodes[leader.0].files.writing.is_empty());
        world.start_agent(leader);
    }
    assert!(whole > 0 && none > 0, "{whole} and {none}");
}

fn epoch(world: &World, node: NodeId) -> EpochFile {
    world.nodes[node.0].files.epoch.expect("a leader has its epoch on disk")
}

#[test]
fn nobody_is_told_that_the_power_of_a_host_failed() {
    let (mut world, leader, standby) = steady();
    let streams = |world: &World| world.nodes[standby.0].server.postmaster.as_ref().unwrap().stream.is_some();
    world.crashes(leader, Crash::PowerLoss);
    let at = world.now.ms();
    world.nodes[standby.0].agent = None;
    world.run_until(Time::from_ms(at + 59_000));
    assert!(streams(&world), "it waits for a word until wal_receiver_timeout");
    world.run_until(Time::from_ms(at + 60_300));
    assert!(!streams(&world));
}

#[test]
fn a_suspended_host_does_nothing_and_its_clock_goes_on() {
    let mut world = struck(What::SuspendHost(Where::Leader), 50_000);
    let old = before(&mut world);
    until(&mut world, 60_001);
    let (clock, steps) = (world.clock(old), world.nodes[old.0].asleep.len());
    assert!(!world.nodes[old.0].server.can_acknowledge());
    until(&mut world, 109_000);
    assert!(world.clock(old).since(clock) > ms(48_000) && world.nodes[old.0].asleep.len() > steps);
    assert!(world.leading().is_some_and(|new| new != old), "its lease has ended");
    assert!(world.nodes[old.0].server.is_primary(), "it does not know yet");
    until(&mut world, 111_000);
    assert!(!world.nodes[old.0].server.is_primary(), "its guard was due when it woke");
}

#[test]
fn a_frozen_server_answers_nothing_and_dies_by_sigkill_and_a_hanging_one_does_not() {
    for (what, dies) in [(What::FreezePostgres(Where::Leader), true), (What::HangPostgres(Where::Leader), false)] {
        let mut world = struck(what, 5000);
        let old = before(&mut world);
        until(&mut world, 61_000);
        assert!(!world.nodes[old.0].server.can_acknowledge() && !world.nodes[old.0].server.is_ready());
        assert_eq!(world.killed(old), dies);
        assert_eq!(world.nodes[old.0].server.postmaster.is_none(), dies);
        until(&mut world, 120_000);
        assert!(world.serving().is_some() && !world.nodes[old.0].server.stands_still());
    }
    let mut world = struck(What::FreezePostgres(Where::Leader), 5000);
    let old = before(&mut world);
    until(&mut world, 64_900);
    assert!(!world.nodes[old.0].server.can_acknowledge());
    until(&mut world, 65_100);
    assert!(world.nodes[old.0].server.can_acknowledge(), "it goes on as if nothing had been");
}

#[test]
fn a_killed_backend_is_a_crash_without_a_dead_postmaster() {
    let mut world = struck(What::KillBackend(Where::Leader), 0);
    let old = before(&mut world);
    let pid = world.nodes[old.0].server.postmaster.as_ref().map(|pm| pm.pid);
    until(&mut world, 60_001);
    let on_disk = world.nodes[old.0].server.cluster().unwrap();
    assert_eq!(on_disk.state, ControlState::InCrashRecovery);
    assert!(!world.nodes[old.0].server.can_acknowledge());
    until(&mut world, 63_000);
    assert_eq!(world.nodes[old.0].server.postmaster.as_ref().map(|pm| pm.pid), pid);
    assert!(world.nodes[old.0].server.can_acknowledge() && world.leading() == Some(old));
}

#[test]
fn a_full_disk_ends_a_primary_and_its_recovery() {
    let mut world = struck(What::FillData(Where::Leader), 60_000);
    let old = before(&mut world);
    until(&mut world, 100_000);
    assert!(world.coverage.of("panic") > 1 && !world.nodes[old.0].server.can_acknowledge());
    assert!(world.serving().is_some_and(|new| new != old), "another leads");
    until(&mut world, 180_000);
    assert!(world.nodes[old.0].server.postmaster.as_ref().is_some_and(|pm| pm.stream.is_some()));
}

#[test]
fn what_is_promoted_by_hand_is_stopped_at_once_and_follows_again() {
    let (world, _, standby) = steady();
    drop(world);
    let mut world = struck(What::PromoteByHand(Where::Node(standby.0)), 0);
    until(&mut world, 60_500);
    assert_eq!(world.coverage.of("promotion by hand"), 1);
    assert!(!world.nodes[standby.0].server.is_primary(), "its agent has seen it");
    until(&mut world, 120_000);
    world.check_at_the_end();
    assert_eq!(world.violation, None);
}

#[test]
fn what_is_stopped_or_restarted_by_hand_serves_again() {
    for what in [What::StopByHand(Where::Leader), What::RestartByHand(Where::Leader)] {
        let mut world = struck(what, 0);
        let old = before(&mut world);
        let pid = world.nodes[old.0].server.postmaster.as_ref().map(|pm| pm.pid);
        until(&mut world, 90_000);
        assert_ne!(world.nodes[old.0].server.postmaster.as_ref().map(|pm| pm.pid), pid, "{what:?}");
        assert!(world.serving().is_some(), "{what:?}");
    }
}

/// Nobody's role changes for that: no agent knows of clients.
#[test]
fn whom_no_client_reaches_acknowledges_nothing_and_leads_on() {
    let mut world = struck(What::CutClients(Where::Leader), 5000);
    let leader = before(&mut world);
    let acknowledged = |world: &World| world.ledger.acknowledged.len();
    until(&mut world, 60_010);
    let so_far = acknowledged(&world);
    until(&mut world, 64_999);
    assert_eq!(acknowledged(&world), so_far);
    assert!(world.nodes[leader.0].server.can_acknowledge());
    until(&mut world, 70_000);
    assert!(acknowledged(&world) > so_far);
    assert_eq!(world.leading(), Some(leader));
}

#[test]
fn a_wall_clock_that_is_set_moves_no_deadline() {
    let mut world = struck(What::SetWallClock(Where::Leader, -40_000_000), 0);
    let old = before(&mut world);
    let wall = world.nodes[old.0].clock.wall(world.now);
    until(&mut world, 120_000);
    assert!(world.nodes[old.0].clock.wall(world.now) < wall && world.leading() == Some(old));
}

#[test]
fn keys_that_an_operator_deletes_come_back() {
    for key in crate::store::hands::KEYS {
        for what in [What::DeleteKey(key), What::GarbleKey(key)] {
            let mut world = struck(what, 0);
            let old = before(&mut world);
            until(&mut world, 120_000);
            let keys = world.keys();
            assert_eq!(world.leading(), Some(old), "{what:?}");
            assert!(keys.system_id().is_some() && keys.members.len() == 3, "{what:?}");
            assert!(keys.members.values().all(|key| !key.record.api_url.is_empty()), "{what:?}");
            assert!(key == Key::Record || keys.epoch.is_some(), "{what:?}");
        }
    }
}

#[test]
fn a_restored_store_is_believed_after_a_ttl_and_led_again() {
    let mut world = struck(What::RestoreStore(30_000), 2000);
    before(&mut world);
    let newest = world.keys().revision;
    until(&mut world, 63_000);
    assert!(world.keys().revision < newest);
    let believed = |world: &World| {
        let agents = world.nodes.iter().filter_map(|node| node.agent.as_ref());
        agents.filter(|agent| agent.mirror.rollbacks == 1).count()
    };
    until(&mut world, 85_000);
    assert_eq!(believed(&world), 0);
    until(&mut world, 180_000);
    assert_eq!(believed(&world), 3);
    assert!(world.serving().is_some());
}

#[test]
fn a_changed_configuration_reaches_every_agent() {
    let what =
        What::ChangeConfig { ttl_ms: 10_000, loop_wait_ms: 2000, retry_timeout_ms: 4000, maximum_lag_bytes: 600 };
    let mut world = struck(what, 0);
    until(&mut world, 62_000);
    for node in &world.nodes {
        let config = &node.agent.as_ref().unwrap().state.config;
        assert_eq!((config.ttl, config.maximum_lag_on_failover_bytes), (ms(10_000), 600));
    }
}

/// The bug (seed 14012533): a configuration was known by its revision alone, and a store that was restored minted it again.
#[test]
fn a_configuration_whose_revision_is_minted_again_is_followed() {
    let (mut world, ..) = steady();
    let limit = |maximum_lag_bytes| What::ChangeConfig {
        ttl_ms: 30_000,
        loop_wait_ms: 10_000,
        retry_timeout_ms: 10_000,
        maximum_lag_bytes,
    };
    let revision = |world: &World| world.keys().config_revision;
    world.take_backup();
    world.configuration_changes(limit(600));
    let first = revision(&world);
    until(&mut world, 65_000);
    world.store_restored(300_000);
    world.store_settles();
    world.configuration_changes(limit(700));
    assert_eq!(revision(&world), first, "minted again");
    until(&mut world, 200_000);
    for node in &world.nodes {
        let config = &node.agent.as_ref().unwrap().state.config;
        assert_eq!(config.maximum_lag_on_failover_bytes, 700);
    }
}
