//! Agents that crash, stop or are asked for something, and machines that are lost.

use matriarch::agent::Asked;
use matriarch::http::Client;
use matriarch::store::{Operation, Transaction};

use super::super::network::connector;
use super::super::world::{NAMES, World, ms, secs, with_seed};
use super::{LEASE, PROMOTION, STORE, by_lease, replaced, undisturbed};

#[test]
fn an_agent_that_crashes_and_is_back_adopts_what_goes_on() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        undisturbed(&mut world, leader, |world| {
            world.crash_agent(leader);
            world.runs(ms(1200));
            world.start_agent(leader);
        });
    });
}

#[test]
fn all_agents_may_crash_at_once() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        undisturbed(&mut world, leader, |world| {
            (0..NAMES.len()).for_each(|node| world.crash_agent(node));
            world.runs(ms(800));
            (0..NAMES.len()).for_each(|node| world.start_agent(node));
        });
    });
}

#[test]
fn an_agent_that_crashes_for_good_is_replaced_before_its_lease_would_have_ended() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        world.crash_agent(leader);
        // Its guard gives it two seconds, stops PostgreSQL and gives the tenure back.
        replaced(&mut world, leader, secs(2) + PROMOTION + secs(1), |_| {});
        world.start_agent(leader);
        world.heals();
    });
}

#[test]
fn an_agent_that_is_back_while_the_store_is_away_holds_what_it_has() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        undisturbed(&mut world, leader, |world| {
            world.crash_store();
            world.crash_agent(leader);
            world.runs(ms(500));
            world.start_agent(leader);
            world.runs(ms(1000));
            world.start_store();
        });
    });
}

#[test]
fn a_lost_machine_is_replaced_and_follows_when_it_is_back() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        let next = replaced(&mut world, leader, by_lease(), |world| world.lose(leader));
        world.runs(secs(2));
        world.start_agent(leader);
        assert_eq!(world.heals(), next);
    });
}

#[test]
fn standbys_that_crash_and_come_back_disturb_nobody() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        undisturbed(&mut world, leader, |world| {
            for node in (0..NAMES.len()).filter(|node| *node != leader) {
                world.lose(node);
                world.runs(secs(2));
                world.start_agent(node);
            }
        });
    });
}

/// Who has the key now, and does not know it yet.
fn acquires(world: &mut World, leader: usize) -> usize {
    world.lose(leader);
    world.runs_until(by_lease(), "another has the key", |world| {
        world.tenure().is_some_and(|tenure| tenure.leader != NAMES[leader])
    });
    let tenure = world.tenure().expect("there was one just now");
    NAMES.iter().position(|name| *name == tenure.leader).expect("one of ours")
}

#[test]
fn an_agent_that_crashes_in_the_middle_of_an_acquisition_comes_back_and_leads_or_lets_go() {
    with_seed(|seed| {
        for pause in [ms(0), ms(3), ms(12), ms(60)] {
            let (mut world, leader) = World::whole(seed, 1);
            let next = acquires(&mut world, leader);
            world.runs(pause);
            world.crash_agent(next);
            world.runs(ms(700));
            world.start_agent(next);
            world.runs_until(by_lease() + secs(2), "somebody serves", |world| world.writer().is_some());
            world.start_agent(leader);
            world.heals();
        }
    });
}

#[test]
fn an_agent_that_never_hears_that_it_acquired_the_key_leads_or_lets_go() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        let next = acquires(&mut world, leader);
        world.partition_oneway(STORE, NAMES[next]);
        world.runs(ms(2000));
        world.repair_oneway(STORE, NAMES[next]);
        world.runs_until(by_lease() + LEASE, "somebody serves", |world| world.writer().is_some());
        world.start_agent(leader);
        world.heals();
    });
}

#[test]
fn an_agent_that_is_asked_to_stop_hands_over() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        let next = replaced(&mut world, leader, secs(1), |world| world.ask(leader, Asked::Stop));
        world.runs(secs(3));
        world.start_agent(leader);
        assert_eq!(world.heals(), next);
    });
}

#[test]
fn an_agent_that_is_asked_to_stop_while_peers_hang_stays_or_hands_over() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        let silent = World::other(leader);
        world.hold(NAMES[leader], NAMES[silent]);
        let next = replaced(&mut world, leader, secs(4), |world| world.ask(leader, Asked::Stop));
        world.release(NAMES[leader], NAMES[silent]);
        world.runs(secs(2));
        world.start_agent(leader);
        assert_eq!(world.heals(), next);
    });
}

#[test]
fn an_operator_moves_the_leadership_over_the_network() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        let candidate = World::other(leader);
        let (from, to) = (NAMES[leader], NAMES[candidate]);
        let next = replaced(&mut world, leader, secs(3), |world| {
            world.chore(async move {
                let body = serde_json::json!({"leader": from, "candidate": to}).to_string();
                let url = format!("http://{from}:8008/switchover");
                let client = Client::new(connector());
                let asked = client.request(hyper::Method::POST, &url, None, Some(body), secs(10)).await;
                let (status, text) = asked.expect("an answer");
                assert_eq!(status, 200, "{text}");
            });
        });
        assert_eq!(next, candidate);
        assert_eq!(world.heals(), candidate);
    });
}

#[test]
fn a_postmaster_that_dies_is_started_in_place() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        let tenure = world.tenure();
        world.outage();
        world.kill_postgres(leader);
        world.runs_until(secs(2), "it serves again", |world| world.writer() == Some(leader));
        assert!(world.outage() < secs(1));
        assert_eq!((world.heals(), world.tenure()), (leader, tenure));
    });
}

#[test]
fn a_leader_key_that_is_deleted_is_regained() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        let before = world.tenure();
        world.outage();
        let store = world.client();
        world.chore(async move {
            let operations = vec![Operation::Delete("/service/herd/leader".into())];
            let deleted = store().transact(Transaction { operations, ..Transaction::default() }, secs(3)).await;
            assert!(deleted.outcome.done().is_some(), "it is deleted");
        });
        world.runs_until(secs(1), "another tenure", |world| world.tenure().is_some_and(|t| Some(t) != before));
        assert_eq!(world.heals(), leader);
        assert!(world.outage() < ms(500));
    });
}

#[test]
fn a_configuration_that_is_read_again_disturbs_nobody() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        undisturbed(&mut world, leader, |world| (0..NAMES.len()).for_each(|node| world.ask(node, Asked::Reload)));
    });
}
