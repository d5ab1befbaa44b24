//! Each checker alone: a bad history that somebody made by hand must fire it, and a legal one that only looks bad must
//! not.

use matriarch_core::action::{Action, StoreAction};
use matriarch_core::effects::{Effects, Order, Wake};
use matriarch_core::id::{LeaseId, OpId, Revision, SystemId, Timeline};
use matriarch_core::reason::Reason;
use matriarch_core::state::Pledge;
use matriarch_core::view::postgres::ControlState;
use matriarch_core::view::store::{HistoryLine, LeaderKey};

use crate::fault::Plan;
use crate::node::NodeId;
use crate::postgres::wal::{Place, Record, Serial};
use crate::postgres::{Disk, OnDisk};
use crate::settings::Settings;
use crate::store::{Change, Gone, Known, Request};
use crate::time::Time;
use crate::trace::Trace;
use crate::world::World;

/// Three nodes that have been at peace for a minute: one leads, two stream.
fn steady() -> World {
    let mut world = World::new(Plan::calm(1, Settings::usual()), None, Trace::hash_only());
    world.run_until(Time::from_ms(60_000));
    assert_eq!(world.violation, None);
    world.check_at_the_end();
    assert_eq!(world.violation, None);
    world
}

/// What a standby says of its receiver is what core knows its source by: otherwise it is turned to it for ever.
#[test]
fn a_standby_that_streams_is_not_turned_again() {
    let turned = steady().coverage.orders.get("follow").copied().unwrap_or(0);
    assert!(turned <= 2, "in a steady minute two standbys were turned {turned} times");
}

fn leader(world: &World) -> NodeId {
    world.leading().unwrap()
}

fn standby(world: &World) -> NodeId {
    NodeId((leader(world).0 + 1) % 3)
}

fn other_standby(world: &World) -> NodeId {
    NodeId((leader(world).0 + 2) % 3)
}

/// Which invariant breaks when a steady world is changed and checked so.
fn broken(change: impl FnOnce(&mut World)) -> Option<&'static str> {
    let mut world = steady();
    change(&mut world);
    world.violation.map(|violation| violation.invariant)
}

fn key(world: &World) -> LeaderKey {
    world.store.keys().leader.clone().unwrap()
}

fn on_disk(world: &mut World, node: NodeId) -> &mut OnDisk {
    world.nodes[node.0].server.cluster_mut().unwrap()
}

/// The leader and a standby begin timelines of one number at one position; the standby's may be an operator's doing.
fn begin_twins(world: &mut World, by_hand: bool) -> (NodeId, NodeId) {
    let (leader, node) = (leader(world), standby(world));
    let at = on_disk(world, node).end;
    for server in [leader, node] {
        let begun = world.wal.fork(at, Timeline(2));
        let end = world.wal.append(begun, Record::EndOfRecovery);
        on_disk(world, server).end = end;
        if by_hand && server == node {
            world.checks.hand_made.push(end);
        }
    }
    (leader, node)
}

fn leaves_recovery(world: &mut World, node: NodeId) {
    world.nodes[node.0].server.postmaster.as_mut().unwrap().in_recovery = false;
}

#[test]
fn s5_two_that_can_acknowledge() {
    let second = |held: bool| {
        broken(move |world| {
            let node = standby(world);
            leaves_recovery(world, node);
            world.nodes[node.0].server.held = held;
            world.nodes[node.0].guard = None;
            world.check_after_event();
        })
    };
    assert_eq!(second(false), Some("S5"));
    assert_eq!(second(true), None, "what is held acknowledges nothing");
}

#[test]
fn s7_a_key_that_went_by_its_time_and_a_holder_that_writes() {
    let expires = |held: bool| {
        broken(move |world| {
            let (node, lease) = (leader(world), key(world).lease);
            world.nodes[node.0].server.held = held;
            world.store.end(lease, Gone::Expired);
            world.store_changed();
        })
    };
    assert_eq!(expires(false), Some("S7"));
    assert_eq!(expires(true), None, "it was silent by then");
    let early = broken(|world| {
        let lease = key(world).lease;
        world.store.end(lease, Gone::Early);
        world.store_changed();
    });
    assert_eq!(early, None, "a key that goes before its time is heard of, not foreseen");
}

#[test]
fn s6_a_belief_in_a_lease_that_is_not_there() {
    let believes = |writes: bool| {
        broken(move |world| {
            let (node, lease) = (leader(world), key(world).lease);
            world.nodes[node.0].server.held = true;
            world.store.end(lease, Gone::Expired);
            world.store_changed();
            world.nodes[node.0].server.held = !writes;
            let at = world.clock(node);
            world.check_belief(node, at);
        })
    };
    assert_eq!(believes(true), Some("S6"));
    assert_eq!(believes(false), None, "a holder that released it is dead");
}

#[test]
fn s8_writes_without_the_leader_key() {
    assert_eq!(broken(|world| world.became_writable(standby(world))), Some("S8"));
    assert_eq!(broken(|world| world.became_writable(leader(world))), None, "a restart in place is no promotion");
}

#[test]
fn s9_a_leader_key_without_a_lease() {
    let taken = |lease: Option<LeaseId>| {
        broken(move |world| {
            let mut key = key(world);
            key.lease = lease.unwrap_or(key.lease);
            world.check_store_change(&Change::Taken(key));
        })
    };
    assert_eq!(taken(Some(LeaseId(4711))), Some("S9"));
    assert_eq!(taken(None), None);
}

#[test]
fn s24_a_key_that_somebody_else_deletes() {
    let deleted = |by: fn(&World) -> NodeId| {
        broken(move |world| {
            let who = world.names[by(world).0].clone();
            let holder = leader(world);
            world.nodes[holder.0].server.held = true;
            world.check_store_change(&Change::Gone(key(world), Gone::Released, Some(who)));
        })
    };
    assert_eq!(deleted(standby), Some("S24"));
    assert_eq!(deleted(leader), None);
}

#[test]
fn s18_a_second_birth() {
    let completed = |other: bool| {
        broken(move |world| {
            let keys = world.keys();
            let (initialize, config) = (keys.initialize.unwrap(), keys.config_revision);
            let system_id = if other { SystemId(99) } else { keys.system_id().unwrap() };
            let initialize = initialize.revision;
            let action = Box::new(StoreAction::CompleteInitialize { system_id, initialize, config });
            let known = Known { config, ..Known::default() };
            world.store.apply(world.now, &Request::Order { action, from: world.names[0].clone(), known });
            world.store_changed();
        })
    };
    assert_eq!(completed(true), Some("S18"));
    assert_eq!(completed(false), None, "the same once more");
}

#[test]
fn s30_a_primary_whose_fence_falls_too_late_or_never() {
    let armed = |change: fn(&mut World, NodeId)| {
        broken(move |world| {
            let node = leader(world);
            change(world, node);
            world.check_fences();
        })
    };
    assert_eq!(armed(|world, node| world.nodes[node.0].guard.as_mut().unwrap().armed = None), Some("S30"));
    let beyond = |world: &mut World, node: NodeId| {
        let armed = world.nodes[node.0].guard.as_mut().unwrap().armed.as_mut().unwrap();
        armed.at = armed.at + std::time::Duration::from_secs(60);
    };
    assert_eq!(armed(beyond), Some("S30"));
    let disturbed = |world: &mut World, node: NodeId| {
        world.nodes[node.0].guard.as_mut().unwrap().armed = None;
        world.checks.disturbed(Some(node), world.now);
    };
    assert_eq!(armed(disturbed), None, "a guard that was just killed has a second to be replaced");
}

#[test]
fn s31_isolated_writing_without_end() {
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

#[test]
fn s2_a_failover_that_gives_up_more_than_is_allowed() {
    let loses = |limit: u64| {
        broken(move |world| {
            let (old, new) = (leader(world), standby(world));
            world.settings.maximum_lag_bytes = limit;
            world.checks.published = Some(on_disk(world, old).end);
            let behind = on_disk(world, new);
            behind.end = Place { depth: behind.end.depth - 2, ..behind.end };
            world.check_loss(new);
        })
    };
    assert_eq!(loses(0), Some("S2"));
    assert_eq!(loses(1 << 20), None);
}

#[test]
fn s2_a_failover_to_another_timeline_of_one_number() {
    let loses = |by_hand: bool| {
        broken(move |world| {
            let (old, new) = begin_twins(world, by_hand);
            world.settings.maximum_lag_bytes = 0;
            let end = on_disk(world, old).end;
            world.checks.published = Some(end);
            let line = HistoryLine {
                timeline: Timeline(1),
                end: world.wal.lsn(world.wal.origin(end).unwrap()),
                reason: String::new(),
                timestamp: None,
                leader: None,
            };
            let epoch = key(world).created;
            let put = |world: &mut World, action| {
                let (from, known) = (world.names[old.0].clone(), Known::default());
                world.store.apply(world.now, &Request::Order { action: Box::new(action), from, known });
            };
            let revision = world.store.keys().history.revision;
            put(world, StoreAction::PutHistory { epoch, revision, lines: vec![line] });
            let (position, timeline) = (world.wal.lsn(end), Timeline(2));
            put(world, StoreAction::PutStatus { epoch, position, timeline, slots: vec![], retain: vec![] });
            world.check_loss(new);
        })
    };
    assert_eq!(loses(false), Some("S2"));
    assert_eq!(loses(true), None, "an operator began it, and nobody can tell them apart");
}

#[test]
fn s20_a_switchover_that_loses() {
    let handed = |behind: u64| {
        broken(move |world| {
            let (old, new) = (leader(world), standby(world));
            let end = on_disk(world, old).end;
            world.checks.handed_over = Some((world.now, end));
            on_disk(world, new).end = Place { depth: end.depth - behind, ..end };
            world.check_loss(new);
        })
    };
    assert_eq!(handed(1), Some("S20"));
    assert_eq!(handed(0), None);
}

#[test]
fn s17_the_last_copy_is_wiped() {
    let wiped = |copies: usize| {
        broken(move |world| {
            let node = leader(world);
            for other in [standby(world), other_standby(world)].into_iter().skip(copies) {
                world.nodes[other.0].server.disk = Disk::Empty;
            }
            let from = world.names[standby(world).0].clone();
            world.check_wipe(node, &from);
        })
    };
    assert_eq!(wiped(0), Some("S17"));
    assert_eq!(wiped(1), None);
}

#[test]
fn m4_a_pledge_that_is_not_kept() {
    let receives = |newer: bool| {
        broken(move |world| {
            let (node, created) = (standby(world), key(world).created);
            let told = if newer { Revision(created.0 - 1) } else { created };
            let pledge = Pledge { absent_at: told, since: world.clock(node), frozen: true, on_disk: true };
            world.nodes[node.0].agent.as_mut().unwrap().state.pledge = Some(pledge);
            world.note_pledge(node, Some(told));
            world.check_pledge(node);
        })
    };
    assert_eq!(receives(false), Some("M4"));
    assert_eq!(receives(true), None, "a newer leader ends it");
}

#[test]
fn l6_a_fence_for_a_key_that_is_there() {
    let fired = |because: Reason| broken(move |world| world.check_fire(leader(world), &because));
    assert_eq!(fired(Reason::NoTenure), Some("L6"));
    assert_eq!(fired(Reason::KeyVanished { for_ms: 1 }), Some("L6"));
    assert_eq!(fired(Reason::TenureExpired { ago_ms: 1 }), None, "its own clock may be ahead of the store's");
}

#[test]
fn s15_wal_that_does_not_continue_what_is_there() {
    let sent = |forked: bool| {
        broken(move |world| {
            let (from, node) = (leader(world), standby(world));
            let pid = |world: &World, node: NodeId| world.nodes[node.0].server.postmaster.as_ref().unwrap().pid;
            let mine = on_disk(world, node).end;
            let at = if forked { Place { depth: mine.depth - 1, ..mine } } else { mine };
            let branch = world.wal.fork(at, Timeline(7));
            let one = world.wal.append(branch, Record::EndOfRecovery);
            let to = world.wal.append(one, Record::Commit(Serial(1_000_000)));
            world.wal_arrives(node, pid(world, node), (from, pid(world, from)), to);
        })
    };
    assert_eq!(sent(true), Some("S15"));
    assert_eq!(sent(false), None, "a standby follows onto a new timeline");
}

fn effects(actions: Vec<Action>) -> Effects {
    let order = |(n, action)| Order { op: OpId(900 + n), action, because: Reason::AtGoal, under: None };
    Effects {
        orders: (0_u64..).zip(actions).map(order).collect(),
        cancelled: Vec::new(),
        wake: Wake { at: None, because: Reason::AtGoal },
        decision: None,
    }
}

#[test]
fn s25_keys_that_go_back() {
    let checked = |known: i64, boot: u32| {
        broken(move |world| {
            let node = standby(world);
            let at = world.clock(node);
            world.checks.revisions[node.0] = (boot, 0, Revision(known));
            world.check_step(node, at, &effects(Vec::new()));
        })
    };
    assert_eq!(checked(1_000_000, 1), Some("S25"));
    assert_eq!(checked(1_000_000, 7), None, "another agent knew that");
    assert_eq!(checked(1, 1), None);
}

#[test]
fn s26_two_orders_in_a_lane() {
    let ordered = |actions: Vec<Action>| {
        broken(move |world| {
            let node = standby(world);
            let at = world.clock(node);
            world.check_step(node, at, &effects(actions));
        })
    };
    let read = || Action::Store(StoreAction::Read);
    assert_eq!(ordered(vec![read(), read()]), Some("S26"));
    assert_eq!(ordered(vec![read(), Action::Store(StoreAction::Revoke { lease: LeaseId(1) })]), None);
}

#[test]
fn s28_a_step_that_would_order_more_at_the_same_instant() {
    let again = |forget: bool| {
        broken(move |world| {
            let node = standby(world);
            let at = world.clock(node);
            let agent = world.nodes[node.0].agent.as_mut().unwrap();
            // At its goal, and without its lease: the next step asks for another.
            matriarch_core::step(
                &mut agent.state,
                at,
                matriarch_core::event::Event::Ticked(matriarch_core::time::WallMillis(0)),
            );
            if forget {
                agent.state.session.lease = None;
            }
            world.check_stable(node, at);
        })
    };
    assert_eq!(again(true), Some("S28"));
    assert_eq!(again(false), None);
}

#[test]
fn l1_a_world_that_does_not_serve() {
    let healed = |ready: bool| {
        broken(move |world| {
            world.healed = Some(Time::from_ms(10_000));
            if !ready {
                let node = leader(world);
                world.gone(node);
            }
            world.note_service();
            world.check_service();
        })
    };
    assert_eq!(healed(false), Some("L1"));
    assert_eq!(healed(true), None);
}

#[test]
fn l2_a_member_that_does_not_follow() {
    let checked = |change: fn(&mut World, NodeId)| {
        broken(move |world| {
            let node = standby(world);
            change(world, node);
            world.check_members();
        })
    };
    assert_eq!(checked(World::receiver_ends), Some("L2"));
    assert_eq!(checked(World::agent_gone), Some("L2"));
    let lag = |world: &mut World, node: NodeId| {
        let mine = on_disk(world, node);
        mine.end = Place { depth: mine.end.depth - 1, ..mine.end };
        mine.state = ControlState::InArchiveRecovery;
    };
    assert_eq!(checked(lag), None, "what is under way is no lag");
}

#[test]
fn l5_a_busy_loop() {
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
