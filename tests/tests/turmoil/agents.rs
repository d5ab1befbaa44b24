//! Whole agents: what the network and the store do to a cluster. Every scenario ends with a cluster that is whole again,
//! and at no instant of it two servers acknowledged writes or one did that no guard would have ended (`observer.rs`).

use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use matriarch::agent::Asked;
use matriarch::http::Client;
use matriarch::store::{Operation, Transaction};

use super::network::connector;
use super::world::{ELECTION, MEMBERS, NAMES, TTL, World, ms, secs, with_seed};

const STORE: &str = MEMBERS[0];

/// Shorter than anything that is an outage: the pause between two writes of the client, and a stop of the world for it.
const NO_OUTAGE: Duration = Duration::from_millis(40);
/// How long a lease lives after its last renewal, and how long ago that may have been.
const LEASE: Duration = Duration::from_secs(TTL);
/// From a promotion's order to the first write.
const PROMOTION: Duration = Duration::from_millis(500);

/// The tenure is the same, and nobody noticed anything.
#[track_caller]
fn undisturbed(world: &mut World, leader: usize, what: impl FnOnce(&mut World)) {
    let tenure = world.tenure();
    world.outage();
    what(world);
    assert_eq!(world.heals(), leader);
    assert_eq!(world.tenure(), tenure, "the tenure goes on");
    let outage = world.outage();
    assert!(outage <= NO_OUTAGE, "nobody could write for {outage:?}");
}

/// Somebody else leads, and the outage was not longer than `limit`.
#[track_caller]
fn replaced(world: &mut World, leader: usize, limit: Duration, what: impl FnOnce(&mut World)) -> usize {
    world.outage();
    what(world);
    world.runs_until(limit, "somebody else serves", |world| world.writer().is_some_and(|writer| writer != leader));
    let outage = world.outage();
    assert!(outage <= limit, "nobody could write for {outage:?}");
    world.writer().expect("there was one just now")
}

/// Until another leads who cannot know that the leader is gone before its lease has ended.
fn by_lease() -> Duration {
    LEASE + ELECTION + PROMOTION
}

// --- the network ----------------------------------------------------------------------------------------------------

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

// --- the store ------------------------------------------------------------------------------------------------------

#[test]
fn a_store_that_starts_anew_at_once_is_found_again_at_once() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        undisturbed(&mut world, leader, |world| {
            world.crash_store();
            world.start_store();
        });
    });
}

#[test]
fn a_store_that_is_away_for_less_than_the_ttl_costs_no_tenure() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        undisturbed(&mut world, leader, |world| {
            world.crash_store();
            world.runs(secs(2));
            world.start_store();
        });
    });
}

#[test]
fn a_store_that_is_away_for_longer_ends_the_tenure_until_it_is_back() {
    with_seed(|seed| {
        let (mut world, _) = World::whole(seed, 1);
        world.crash_store();
        world.runs(LEASE + secs(4));
        assert_eq!(world.writer(), None, "nobody writes without a store");
        world.start_store();
        // The lease of before has its whole time again.
        world.runs_until(by_lease() + secs(2), "somebody serves", |world| world.writer().is_some());
        world.heals();
    });
}

#[test]
fn a_store_that_comes_back_empty_is_filled_again() {
    with_seed(|seed| {
        let (mut world, _) = World::whole(seed, 1);
        world.crash_store();
        world.empty_store();
        world.start_store();
        world.heals();
    });
}

#[test]
fn a_store_that_went_back_is_believed_when_nothing_else_was_told_for_long_enough() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        let backup = world.backup();
        replaced(&mut world, leader, by_lease(), |world| world.lose(leader));
        world.start_agent(leader);
        world.heals();
        world.crash_store();
        world.restore(&backup);
        world.start_store();
        world.heals();
    });
}

#[test]
fn elections_of_the_store_cost_no_tenure() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        undisturbed(&mut world, leader, |world| {
            for pause in [2000, 700, 300, 100, 1000, 50, 400] {
                world.elect();
                world.runs(ms(pause));
            }
        });
    });
}

#[test]
fn without_any_watch_a_lost_leader_is_replaced_all_the_same() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        world.faults(STORE).silent_watches.store(true, Ordering::Relaxed);
        replaced(&mut world, leader, by_lease() + secs(1), |world| world.lose(leader));
        world.start_agent(leader);
        world.heals();
    });
}

#[test]
fn keep_alives_that_are_never_answered_for_a_while_cost_no_tenure() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        undisturbed(&mut world, leader, |world| {
            *world.faults(STORE).unanswered.lock().unwrap() = Some("/LeaseKeepAlive");
            world.runs(ms(2500));
            *world.faults(STORE).unanswered.lock().unwrap() = None;
        });
    });
}

#[test]
fn writes_that_are_carried_out_and_never_answered_elect_one_leader_in_the_end() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        *world.faults(STORE).unanswered.lock().unwrap() = Some("/Txn");
        world.lose(leader);
        world.runs(LEASE + secs(6));
        *world.faults(STORE).unanswered.lock().unwrap() = None;
        world.runs_until(by_lease(), "somebody serves", |world| world.writer().is_some());
        world.start_agent(leader);
        world.heals();
    });
}

#[test]
fn writes_that_are_answered_after_their_deadline_elect_one_leader_in_the_end() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 1);
        *world.faults(STORE).late.lock().unwrap() = Some(("/Txn", ms(2600)));
        world.lose(leader);
        world.runs(LEASE + secs(6));
        *world.faults(STORE).late.lock().unwrap() = None;
        world.runs_until(by_lease(), "somebody serves", |world| world.writer().is_some());
        world.start_agent(leader);
        world.heals();
    });
}

#[test]
fn of_two_members_one_may_die() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 2);
        for member in MEMBERS {
            undisturbed(&mut world, leader, |world| {
                world.crash_member(member);
                world.runs(secs(8));
                world.start_member(member);
            });
        }
    });
}

#[test]
fn of_two_members_one_may_hang() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 2);
        for member in MEMBERS {
            undisturbed(&mut world, leader, |world| {
                for name in NAMES {
                    world.hold(name, member);
                }
                world.runs(secs(20));
                for name in NAMES {
                    world.release(name, member);
                }
            });
        }
    });
}

#[test]
fn while_one_of_two_members_hangs_a_lost_leader_is_replaced() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 2);
        for name in NAMES {
            world.hold(name, STORE);
        }
        world.runs(secs(1));
        replaced(&mut world, leader, by_lease() + secs(1), |world| world.lose(leader));
        for name in NAMES {
            world.release(name, STORE);
        }
        world.start_agent(leader);
        world.heals();
    });
}

#[test]
fn a_watch_that_is_silent_through_one_member_is_made_up_for_by_the_other() {
    with_seed(|seed| {
        let (mut world, leader) = World::whole(seed, 2);
        world.faults(STORE).silent_watches.store(true, Ordering::Relaxed);
        world.lose(leader);
        world.runs_until(LEASE + secs(1), "the lease ends", |world| world.tenure().is_none());
        // By the watch alone: reads come once in a second.
        world.runs_until(ms(450), "somebody takes the key", |world| world.tenure().is_some());
        world.start_agent(leader);
        world.heals();
    });
}

// --- agents ---------------------------------------------------------------------------------------------------------

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

// --- repeating ------------------------------------------------------------------------------------------------------

/// Everything that the hosts told in a run with something of each kind: events, orders, decisions, packets.
fn eventful(seed: u64) -> Vec<String> {
    let (mut world, leader) = World::whole(seed, 2);
    world.elect();
    world.partition_oneway(STORE, NAMES[World::other(leader)]);
    world.lose(leader);
    world.runs(secs(3));
    world.repair_oneway(STORE, NAMES[World::other(leader)]);
    world.crash_member(STORE);
    world.runs_until(by_lease() + LEASE, "somebody serves", |world| world.writer().is_some());
    world.start_member(STORE);
    world.start_agent(leader);
    world.heals();
    world.lines()
}

/// Has another process run it. Within one, the second run gets other numbers for its tasks, and tokio drops what a crash
/// leaves behind by these.
fn told_by_a_process_of_its_own(seed: u64) -> Vec<String> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let ran = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "--test-threads=1", "agents::the_same_seed_does_the_same"])
        .env(TELL, file.path())
        .env("MATRIARCH_TURMOIL_SEED", seed.to_string())
        .output()
        .expect("this test as another process");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let lines = std::fs::read_to_string(file.path()).expect("what it told");
    lines.lines().map(str::to_owned).collect()
}

const TELL: &str = "MATRIARCH_TURMOIL_TELL";

#[test]
#[cfg_attr(not(tokio_unstable), ignore = "tokio draws from the host: run tests/turmoil")]
fn the_same_seed_does_the_same() {
    if let Some(file) = std::env::var_os(TELL) {
        return with_seed(|seed| std::fs::write(&file, eventful(seed).join("\n")).expect("the file that was named"));
    }
    let (first, second) = (told_by_a_process_of_its_own(1), told_by_a_process_of_its_own(1));
    assert!(first.len() > 1000, "{} lines are no story", first.len());
    for (number, (one, two)) in first.iter().zip(&second).enumerate() {
        let same = one.bytes().zip(two.bytes()).take_while(|(one, two)| one == two).count();
        let end = |line: &str| String::from_utf8_lossy(&line.as_bytes()[same.saturating_sub(200)..]).into_owned();
        assert!(one == two, "line {number} differs:\n{}\n{}", end(one), end(two));
    }
    assert_eq!(first.len(), second.len());
    assert_ne!(first, told_by_a_process_of_its_own(2), "another seed does something else");
}
