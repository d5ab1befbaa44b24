//! What restarts, losses and lags of the store do to whole agents.

use std::sync::atomic::Ordering;

use super::super::world::{MEMBERS, NAMES, World, ms, secs, with_seed};
use super::{LEASE, STORE, by_lease, replaced, undisturbed};

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
