//! What cuts, holds and delays do to whole agents.

use super::super::world::{NAMES, TTL, World, ms, secs, with_seed};
use super::{STORE, by_lease, replaced, undisturbed};

#[test]
fn a_cluster_begins_and_stays() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        undisturbed(&mut world, leader, |world| world.runs(secs(5)));
    });
}

#[test]
fn a_hold_shorter_than_the_ttl_costs_no_tenure() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        undisturbed(&mut world, leader, |world| {
            world.hold(NAMES[leader], STORE);
            world.runs(ms(2500));
            world.release(NAMES[leader], STORE);
        });
    });
}

#[test]
fn a_hold_longer_than_the_ttl_costs_it_and_what_comes_late_changes_nothing() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        let next = replaced(&mut world, leader, by_lease(), |world| world.hold(NAMES[leader], STORE));
        let tenure = world.tenure();
        world.runs(secs(3));
        world.release(NAMES[leader], STORE);
        assert_eq!(world.heals(), next);
        assert_eq!(world.tenure(), tenure);
    });
}

#[test]
fn a_leader_that_is_cut_off_from_the_store_is_replaced() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        let next = replaced(&mut world, leader, by_lease(), |world| world.partition(NAMES[leader], STORE));
        world.runs(secs(3));
        world.repair(NAMES[leader], STORE);
        assert_eq!(world.heals(), next);
    });
}

#[test]
fn a_leader_that_is_cut_off_from_everybody_stops_and_follows_when_it_is_back() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        let next = replaced(&mut world, leader, by_lease(), |world| world.cut_off(leader));
        world.runs(secs(3));
        world.joins_again(leader);
        assert_eq!(world.heals(), next);
    });
}

#[test]
fn a_standby_that_is_cut_off_disturbs_nobody() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        undisturbed(&mut world, leader, |world| {
            world.cut_off(World::other(leader));
            world.runs(secs(10));
            world.joins_again(World::other(leader));
        });
    });
}

#[test]
fn a_leader_whose_renewals_arrive_and_whose_answers_do_not_stops_in_time() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        // What is under way may have prolonged the lease once more.
        let limit = by_lease() + secs(TTL / 2);
        let next = replaced(&mut world, leader, limit, |world| world.partition_oneway(STORE, NAMES[leader]));
        world.repair_oneway(STORE, NAMES[leader]);
        assert_eq!(world.heals(), next);
    });
}

#[test]
fn a_leader_whose_renewals_do_not_arrive_stops_in_time() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        let next = replaced(&mut world, leader, by_lease(), |world| world.partition_oneway(NAMES[leader], STORE));
        world.repair_oneway(NAMES[leader], STORE);
        assert_eq!(world.heals(), next);
    });
}

#[test]
fn a_link_that_comes_and_goes_leaves_a_cluster_that_is_whole() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        for _ in 0..15 {
            world.partition(NAMES[leader], STORE);
            world.runs(ms(150));
            world.repair(NAMES[leader], STORE);
            world.runs(ms(850));
        }
        world.heals();
    });
}

#[test]
fn peers_that_do_not_reach_each_other_elect_one_of_them() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        let others: Vec<usize> = (0..NAMES.len()).filter(|node| *node != leader).collect();
        world.partition(NAMES[others[0]], NAMES[others[1]]);
        replaced(&mut world, leader, by_lease(), |world| world.lose(leader));
        world.repair(NAMES[others[0]], NAMES[others[1]]);
        world.start_agent(leader);
        world.heals();
    });
}

#[test]
fn a_peer_that_hangs_costs_an_election_the_time_for_its_answer_and_no_more() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        let others: Vec<usize> = (0..NAMES.len()).filter(|node| *node != leader).collect();
        world.hold(NAMES[others[0]], NAMES[others[1]]);
        replaced(&mut world, leader, by_lease(), |world| world.lose(leader));
        world.release(NAMES[others[0]], NAMES[others[1]]);
        world.start_agent(leader);
        world.heals();
    });
}

#[test]
fn a_store_that_is_far_away_costs_no_tenure() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        undisturbed(&mut world, leader, |world| {
            for name in NAMES {
                world.latency(name, STORE, ms(150));
            }
            world.runs(secs(15));
        });
    });
}
