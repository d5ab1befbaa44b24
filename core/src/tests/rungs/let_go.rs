//! When a pause lets PostgreSQL go, and how its end takes it back.

use super::pause::{DISARM, hears, let_go, pause, paused, reserves, touches, unguarded};
use super::*;
use crate::action::{Lane, StoreAction};
use crate::decide;
use crate::event::{GuardEvent, StoreDone, StoreEvent};
use crate::id::Pid;
use crate::op::Outcome;

#[test]
fn a_primary_is_let_go_once_the_store_tells_that_it_has_no_guard() {
    let mut node = Node::primary();
    let orders = hears(&mut node, paused(led_by("a", 101)));
    assert!(reserves(&orders, true) && !orders.contains(&DISARM), "{orders:?}");
    assert!(!node.state.memory.let_go, "until then its guard ends it as ever");
    let mut told = paused(led_by("a", 102));
    told.epoch = Some(unguarded("a", EPOCH));
    let orders = hears(&mut node, told);
    assert!(node.state.memory.let_go && orders.contains(&DISARM), "{orders:?}");
    node.step(Event::Guard(GuardEvent::Disarmed));
    let (rung, verdict) = node.decide();
    assert_eq!((rung, verdict.reason.code(), verdict.fate, verdict.steady), (Rung::Pause, "paused", Fate::Keep, true));
    assert!(node.view().leads() && node.view().publishes() && !node.view().authority());
}

#[test]
fn a_record_of_another_tenure_does_not_let_go() {
    let mut node = Node::primary();
    let mut keys = paused(led_by("a", 101));
    keys.epoch = Some(unguarded("a", Revision(60)));
    hears(&mut node, keys);
    assert!(!node.state.memory.let_go);
}

/// A pause that is not told in the store takes no guard away: others would not know of this primary.
#[test]
fn before_that_a_lost_tenure_ends_as_ever() {
    let mut node = pause(Node::primary()).later(31_000);
    let orders = actions(&node.tick());
    assert!(orders.contains(&FIRE), "{orders:?}");
    node.step(Event::Guard(GuardEvent::Fired { tenure: OURS }));
    assert!(touches(&actions(&node.tick())).is_empty(), "what is dead stays dead");
}

/// What is being stopped because its tenure was lost is nobody's to run on.
#[test]
fn who_is_being_fenced_is_not_let_go() {
    let mut node = Node::primary();
    let orders = hears(&mut node, led_by("b", 101));
    assert!(orders.contains(&FIRE));
    hears(&mut node, paused(led_by("b", 102)));
    assert!(!node.state.memory.let_go);
    assert_eq!(node.concludes().0, Rung::Fence);
    // Nor does an agent that starts beside a leader's key let a primary go that it cannot vouch for.
    let starts = |paused_before: bool| {
        let node = Node::standby().dir(primary_dir(ControlState::InProduction)).sql(primary_sql());
        let mut node = node.config(|config| config.paused_before = paused_before);
        hears(&mut node, paused(led_by("b", 101)));
        node.state.memory.let_go
    };
    assert!(!starts(false) && starts(true), "unless the one before it was told of the pause");
    // Nor before its guard has told what it is armed for (seed 473701); it stops nothing before that either.
    let beside = |change: fn(&mut crate::state::State)| {
        let primary = Node::standby().dir(primary_dir(ControlState::InProduction)).sql(primary_sql());
        let node = primary.config(|config| config.paused_before = true).cluster(|cluster| cluster.paused = Some(true));
        let node = node.with(|state| {
            state.memory.paused = Some(at(0));
            state.tenure = Tenure::Adopting { deadline: at(9_000) };
            state.guard = crate::view::guard::GuardFacts::default();
        });
        node.with(change).concludes().1
    };
    assert_eq!(beside(|_| ()), "paused");
    assert_eq!(beside(|state| state.guard.gone = Some(at(0))), "paused");
    assert_eq!(beside(|state| (state.spent, state.tenure) = (Some(OURS), Tenure::None)), "leader_is_other");
    let gone = |state: &mut crate::state::State| state.guard.gone = Some(at(0).back(seconds(1)));
    assert_eq!(beside(gone), "leader_is_other");
    assert_eq!(beside(|state| state.config.paused_before = false), "leader_is_other");
    // The bug (seed 14007385): where nobody led it was stopped in the moment before its guard had told anything.
    let alone = |state: &mut crate::state::State| {
        state.config.paused_before = false;
        state.store.cluster.as_mut().unwrap().value.leader = None;
    };
    assert_eq!(beside(alone), "paused");
}

/// The guard is armed first, and only then the store is told.
#[test]
fn the_end_of_a_pause_arms_the_guard_first() {
    let mut node = let_go();
    let mut keys = led_by("a", 101);
    keys.epoch = Some(unguarded("a", EPOCH));
    let orders = hears(&mut node, keys);
    let arm = orders.iter().find_map(|order| match order {
        Action::Guard(GuardAction::Arm { tenure, at }) => Some(Armed { tenure: *tenure, at: *at }),
        _ => None,
    });
    assert!(!reserves(&orders, false) && !orders.contains(&FIRE), "{orders:?}");
    let orders = actions(&node.step(Event::Guard(GuardEvent::Armed(arm.expect("it is armed")))));
    assert!(reserves(&orders, false), "{orders:?}");
    assert_eq!(node.concludes(), (Rung::Leader, "tenure_held", Fate::Keep));
    // The bug (seed 311452): another pause was heard while that was on its way, and the guard was disarmed.
    let mut keys = paused(led_by("a", 102));
    keys.epoch = Some(unguarded("a", EPOCH));
    let orders = hears(&mut node, keys);
    assert!(!node.state.memory.let_go && !orders.contains(&DISARM), "{orders:?}");
}

#[test]
fn a_guard_that_is_not_armed_after_a_pause_costs_the_tenure() {
    let mut node = let_go();
    hears(&mut node, led_by("a", 101));
    assert_eq!(node.clone().later(999).concludes().0, Rung::Leader);
    assert_eq!(node.later(1_000).concludes(), (Rung::Fence, "guard_silent", Fate::LetLapse));
}

#[test]
fn after_a_pause_a_primary_without_its_key_takes_it_or_is_stopped() {
    let lapsed = || let_go().with(|state| state.tenure = Tenure::None);
    let mut node = lapsed();
    let mut keys = cluster(101);
    keys.epoch = Some(unguarded("a", EPOCH));
    let orders = hears(&mut node, keys);
    assert!(matches!(node.state.tenure, Tenure::Adopting { .. }));
    assert!(orders.iter().any(|order| matches!(order, Action::Store(StoreAction::GrantTenure { .. }))), "{orders:?}");
    assert!(orders.contains(&HOLD) && !orders.contains(&FIRE), "nothing is written until it is its own: {orders:?}");
    let mut node = lapsed();
    assert!(hears(&mut node, led_by("b", 101)).contains(&FIRE));
}

/// The bug (seed 586): the start that was under way when the pause was heard ran into its time limit, and the guard was
/// disarmed beside a primary that was still coming up.
#[test]
fn what_comes_up_is_not_let_go() {
    let coming_up = Node::primary().with(|state| {
        let alive = Process::Alive { pid: Pid(7), phase: Phase::Starting };
        (state.postgres.process, state.postgres.sql) = (alive, None);
    });
    // Seed 471620: a promotion that takes its time.
    let promoted = Node::primary().dir(standby_dir()).sql(standby_sql(None)).with(|state| {
        state.memory.promotion = true;
    });
    for node in [coming_up, promoted] {
        let mut node = node.published();
        let mut keys = paused(led_by("a", 101));
        keys.epoch = Some(unguarded("a", EPOCH));
        let orders = hears(&mut node, keys);
        assert!(!node.state.memory.let_go && !orders.contains(&DISARM), "{orders:?}");
    }
    // Nor what an operator has asked for.
    let restarted = let_go().with(|state| {
        state.postgres.process = Process::Alive { pid: Pid(7), phase: Phase::Starting };
        (state.postgres.sql, state.memory.requested) = (None, true);
    });
    assert!(!decide::pause::is_hands_off(&restarted.view()));
    let up = restarted.with(|state| state.postgres.process = Process::Alive { pid: Pid(7), phase: Phase::Ready });
    assert!(decide::pause::is_hands_off(&up.view()), "it came up, and is the operator's again");
}

/// The bug (seed 403900): the key was taken, and with it the word in the store taken back, before the guard was armed.
#[test]
fn after_a_pause_the_key_is_taken_under_an_armed_guard() {
    let mut node = let_go().with(|state| state.tenure = Tenure::None);
    let mut keys = cluster(101);
    keys.epoch = Some(unguarded("a", EPOCH));
    hears(&mut node, keys);
    let (op, lease) = (node.op(&Lane::Lead), LeaseId(7));
    let granted = StoreDone::Granted { lease, ttl: seconds(30) };
    let orders = actions(&node.step(Event::Store(StoreEvent::Completed {
        op,
        outcome: Outcome::Done(granted),
        asked: node.now,
    })));
    let takes = |orders: &[Action]| orders.iter().any(|order| matches!(order, Action::Store(StoreAction::Acquire(_))));
    assert!(!takes(&orders), "nothing is armed: {orders:?}");
    let armed = |at| Event::Guard(GuardEvent::Armed(Armed { tenure: LeaseId(0), at }));
    let orders = actions(&node.clone().step(armed(node.now + seconds(2))));
    assert!(takes(&orders), "{orders:?}");
    let in_time = config().bounds.arm_at(node.now, seconds(30));
    assert!(takes(&actions(&node.clone().step(armed(in_time)))), "as a guard is armed for that lease");
    // The bug (seed 522993): armed by a ttl that was made shorter meanwhile, it would fall after the lease ends.
    let orders = actions(&node.step(armed(node.now + seconds(30))));
    assert!(!takes(&orders), "{orders:?}");
    assert!(takes(&actions(&node.step(Event::Guard(GuardEvent::Held)))), "nothing writes until it is renewed");
}

/// Deleted or garbled, the key says nothing of the pause.
#[test]
fn a_pause_once_heard_holds_until_the_store_says_otherwise() {
    let mut node = let_go();
    let mut keys = led_by("a", 101);
    keys.paused = None;
    hears(&mut node, keys);
    assert!(node.view().paused() && node.state.memory.let_go);
    // An agent that starts without a store goes by what this node last knew.
    let starts = |paused_before: bool| {
        crate::state::State::new(crate::config::Config { paused_before, ..config() }, at(0)).memory.paused.is_some()
    };
    assert!(starts(true) && !starts(false));
}

/// A primary without a tenure is the operator's, but for one that this node has still to stop, or that it has begun.
#[test]
fn what_is_being_stopped_or_begun_is_not_the_operators() {
    let lets_go = |change: fn(&mut crate::state::State)| {
        let primary = pause(Node::standby()).dir(primary_dir(ControlState::InProduction)).sql(primary_sql());
        let mut node = primary.cluster(|cluster| cluster.leader = None).with(|state| state.memory.let_go = false);
        change(&mut node.state);
        decide::pause::remember(&mut node.state, node.now);
        node.state.memory.let_go
    };
    assert!(lets_go(|_| ()));
    assert!(!lets_go(|state| state.guard_asked.fire = Some(at(0))));
    assert!(!lets_go(|state| state.spent = Some(OURS)));
    assert!(!lets_go(|state| state.memory.promotion = true));
    assert!(!lets_go(|state| {
        let start = Action::Postgres(PostgresAction::Start(StartAs::Primary));
        state.ops = Node::stopped().doing(start, 0).state.ops;
    }));
}

#[test]
fn what_was_promoted_and_is_up_is_let_go() {
    let mut node = Node::primary().with(|state| state.memory.promotion = true).published();
    let mut keys = paused(led_by("a", 101));
    keys.epoch = Some(unguarded("a", EPOCH));
    hears(&mut node, keys);
    assert!(node.state.memory.let_go);
}

/// The guard's instant has come in a pause: the key is not renewed any more by who has only found it.
#[test]
fn a_tenure_that_was_found_is_renewed_until_its_deadline() {
    let found = pause(Node::primary()).with(|state| {
        state.tenure = Tenure::Adopting { deadline: at(9_000) };
        state.memory.let_go = true;
    });
    let decided = |ms: u64| {
        let (_, verdict) = found.clone().later(ms).decide();
        let renews = matches!(verdict.orders[..], [Action::Store(StoreAction::Renew { .. })]);
        (renews, verdict.fate)
    };
    assert_eq!(decided(8_999), (true, Fate::Keep));
    assert_eq!(decided(9_000), (false, Fate::LetLapse));
}

/// Whoever has just given a key back leaves it to the others for a round.
#[test]
fn a_key_that_was_given_up_is_not_taken_again_at_once() {
    let by_hand = pause(Node::standby()).dir(primary_dir(ControlState::InProduction)).sql(primary_sql());
    let gave_up = by_hand.cluster(|cluster| cluster.leader = None).with(|state| state.memory.gave_up = Some(at(0)));
    let takes = |ms: u64| !gave_up.clone().later(ms).decide().1.orders.is_empty();
    let loop_wait = config().loop_wait.as_millis() as u64;
    assert_eq!([0, 1, loop_wait - 1, loop_wait, loop_wait + 1].map(takes), [false, false, false, true, true]);
}

/// Its guard is being disarmed: what that was armed for is no fence any more.
#[test]
fn who_is_let_go_is_not_fenced_while_its_guard_is_disarmed() {
    let armed = let_go().with(|state| state.guard.armed = Some(Armed { tenure: OURS, at: at(20_000) }));
    concludes(&armed.clone().later(29_700), Rung::Pause, "paused", Fate::LetLapse, &[]);
    let taken_back = armed.with(|state| state.memory.let_go = false);
    assert_eq!(taken_back.later(29_700).decide().0, Rung::Fence);
}
