//! The rung that stops writes, and the search for a tenure at a start.

use super::*;
use crate::event::GuardEvent;
use crate::id::Timeline;

#[test]
fn a_tenure_that_could_not_be_renewed_ends_by_the_clock() {
    let node = Node::primary().later(29_690);
    concludes(&node, Rung::Fence, "tenure_expired", Fate::LetLapse, &[FIRE]);
    let node = Node::primary().dead().later(29_690);
    concludes(&node, Rung::Fence, "tenure_expired", Fate::LetLapse, &[]);
    assert_eq!(Node::primary().later(29_689).decide().0, Rung::Isolated);
}

#[test]
fn a_primary_without_a_guard_is_stopped_after_a_second() {
    let gone = |node: Node| {
        let now = node.now;
        node.with(|state| (state.guard.present, state.guard.gone, state.guard.armed) = (false, Some(now), None))
    };
    let node = gone(Node::primary()).later(1_000);
    concludes(&node, Rung::Fence, "guard_missing", Fate::Release, &[stop(StopMode::Fast)]);
    assert_eq!(gone(Node::primary()).later(999).concludes().0, Rung::Leader);
    let held = node.with(|state| state.guard.held = true);
    concludes(&held, Rung::Fence, "guard_missing", Fate::Release, &[stop(StopMode::Immediate)]);
}

#[test]
fn a_key_that_vanished_holds_the_writes_and_is_asked_for_once_more() {
    let node = suspended(Node::primary());
    let grant = Action::Store(StoreAction::GrantTenure { ttl: seconds(30) });
    concludes(&node, Rung::Fence, "key_vanished", Fate::Keep, &[HOLD, grant]);
    let now = node.now;
    let node = node.with(|state| {
        state.granted = Some(Granted { lease: LeaseId(9), ttl: seconds(30), asked: now });
    });
    let orders = node.wants();
    assert!(matches!(&orders[1], Action::Store(StoreAction::Acquire(acquire)) if acquire.lease == LeaseId(9)));
}

#[test]
fn a_lease_from_before_the_key_vanished_is_not_used_to_take_it_back() {
    let node = suspended(Node::primary());
    let before = node.now.back(millis(1));
    let node = node.with(|state| {
        state.granted = Some(Granted { lease: LeaseId(9), ttl: seconds(30), asked: before });
    });
    assert!(matches!(node.wants()[1], Action::Store(StoreAction::GrantTenure { .. })));
}

#[test]
fn a_key_that_does_not_come_back_in_half_a_second_kills() {
    concludes(&suspended(Node::primary()).later(500), Rung::Fence, "key_not_regained", Fate::LetLapse, &[FIRE]);
}

#[test]
fn a_hold_that_left_something_running_is_no_hold() {
    let stuck = Event::Guard(GuardEvent::Stuck { processes: 0 });
    let mut node = suspended(Node::primary());
    assert!(actions(&node.tick()).contains(&HOLD));
    let effects = node.step(stuck.clone());
    assert!(actions(&effects).contains(&FIRE), "others wait for less than a hold may last");
    assert_eq!(effects.decision.map(|decision| decision.reason.code()), Some("cannot_hold"));

    // With the tenure intact it is asked for until it holds, and whatever stands still goes on afterwards.
    let mut node = Node::primary().later(3_000);
    assert!(actions(&node.tick()).contains(&HOLD));
    assert!(!actions(&node.step(stuck)).contains(&HOLD), "not as fast as the guard fails");
    let mut node = node.later(50);
    assert!(actions(&node.tick()).contains(&HOLD));
    node.step(Event::Guard(GuardEvent::Held));
    assert!(!actions(&node.later(50).tick()).contains(&HOLD));
}

#[test]
fn without_a_guard_to_hold_the_writes_a_vanished_key_kills_at_once() {
    let node = suspended(Node::primary()).with(|state| state.guard.present = false);
    let orders = [FIRE, stop(StopMode::Immediate)];
    concludes(&node, Rung::Fence, "key_not_regained", Fate::LetLapse, &orders);
}

#[test]
fn a_primary_without_tenure_is_killed_and_the_reason_names_who_leads() {
    let node = Node::primary().with(|state| state.tenure = Tenure::None);
    concludes(&node, Rung::Fence, "no_tenure", Fate::Keep, &[FIRE]);
    let node = node.cluster(|cluster| *cluster = led_by("b", 101));
    concludes(&node, Rung::Fence, "leader_is_other", Fate::Keep, &[FIRE]);
}

#[test]
fn a_guard_that_does_not_answer_is_not_waited_for() {
    let mut node = Node::primary().with(|state| state.tenure = Tenure::None);
    assert!(actions(&node.tick()).contains(&FIRE));
    node = node.later(499);
    assert!(!actions(&node.tick()).contains(&stop(StopMode::Immediate)));
    node = node.later(1);
    assert!(actions(&node.tick()).contains(&stop(StopMode::Immediate)));
}

#[test]
fn orphans_are_killed_before_anything_else() {
    for orphans in [None, Some(3)] {
        for node in [Node::stopped(), Node::primary().dead()] {
            let node = node.with(|state| state.postgres.orphans = orphans);
            let kill = Action::Guard(GuardAction::KillOrphans);
            concludes(&node, Rung::Fence, "orphans_alive", Fate::Keep, &[kill]);
        }
    }
}

/// Nothing can be started beside what is not known to be dead: whoever can shall lead.
#[test]
fn orphans_that_cannot_be_counted_or_killed_cost_the_tenure() {
    let orphans = |ms: u64| {
        let node = Node::primary().dead().with(|state| state.postgres.orphans = None);
        node.with(|state| state.memory.dead_since = Some(at(0))).later(ms).concludes()
    };
    assert_eq!(orphans(9_999), (Rung::Fence, "orphans_alive", Fate::Keep));
    assert_eq!(orphans(10_000), (Rung::Fence, "orphans_alive", Fate::LetLapse));
}

/// It is not ours to stop: the agent leaves.
#[test]
fn a_primary_of_another_cluster_is_not_killed_unless_this_agent_is_starting_it() {
    let dir = Cluster { system_id: SystemId(1), ..primary_dir(ControlState::InProduction) };
    let other = Node::primary().with(|state| (state.tenure, state.guard.armed) = (Tenure::None, None)).dir(dir);
    assert_eq!(other.concludes().0, Rung::Identity);
    // Nor is what a dead one has left there (seed 15005182).
    let left = other.clone().dead().with(|state| state.postgres.orphans = None);
    assert_eq!(left.concludes().0, Rung::Identity);
    let starting = other.dead().doing(Action::Postgres(PostgresAction::Start(StartAs::Primary)), 10);
    assert_eq!(starting.concludes().1, "no_tenure");
}

#[test]
fn a_start_under_way_is_no_orphan() {
    let start = Action::Postgres(PostgresAction::Start(StartAs::Primary));
    let node = Node::primary().dead().with(|state| state.postgres.orphans = None).doing(start, 10);
    assert_ne!(node.concludes().1, "orphans_alive");
}

fn adopting(node: Node) -> Node {
    let deadline = node.now + seconds(10);
    node.with(|state| state.tenure = Tenure::Adopting { deadline })
}

/// The bug: agent and guard were killed together, and what they had led wrote on for as long as its tenure was looked for.
#[test]
fn what_was_left_running_without_a_guard_is_ended_after_a_second() {
    let gone = |ms: u64| {
        adopting(Node::primary()).with(|state| {
            state.guard = crate::view::guard::GuardFacts { gone: Some(at(0).back(millis(ms))), ..Default::default() };
        })
    };
    assert_eq!(gone(999).concludes().1, "adopting");
    concludes(&gone(1_000), Rung::Fence, "guard_missing", Fate::LetLapse, &[FIRE, stop(StopMode::Immediate)]);
    let deleted = gone(1_000).cluster(|cluster| cluster.leader = None);
    assert_eq!(deleted.concludes().1, "guard_missing", "nobody holds it meanwhile");
    let other = gone(1_000).cluster(|cluster| cluster.leader = Some(leader("b", LeaseId(55), Revision(190))));
    assert_eq!(other.concludes().1, "leader_is_other");
}

#[test]
fn a_start_beside_a_primary_proves_its_tenure_by_the_epoch_on_disk() {
    let node = adopting(Node::primary());
    let renew = StoreAction::Renew { lease: OURS, epoch: EPOCH, deadline: seconds(2) };
    concludes(&node, Rung::Fence, "adopting", Fate::Keep, &[Action::Store(renew)]);
    let over = node.with(|state| state.spent = Some(OURS)).cluster(|cluster| {
        cluster.epoch = Some(epoch_record("a", EPOCH));
    });
    concludes(&over, Rung::Fence, "no_tenure", Fate::Keep, &[FIRE]);
}

#[test]
fn a_start_without_that_proof_puts_a_lease_of_its_own_under_a_key_of_its_name() {
    // The key was written by an agent that leaves no record.
    let node = adopting(Node::primary()).with(|state| state.epoch_file = None).cluster(|cluster| cluster.epoch = None);
    assert!(matches!(node.wants()[..], [Action::Store(StoreAction::GrantTenure { .. })]));
    let now = node.now;
    let node = node.with(|state| {
        state.granted = Some(Granted { lease: LeaseId(9), ttl: seconds(30), asked: now });
    });
    let take = StoreAction::TakeOver { lease: LeaseId(9), modified: EPOCH };
    assert_eq!(node.wants(), [Action::Store(take)]);
}

#[test]
fn a_start_beside_a_primary_asks_for_a_key_that_nobody_holds() {
    let node = adopting(Node::primary()).cluster(|cluster| cluster.leader = None);
    // Until it is ours another may take it, and what is written beside that one would be lost.
    assert!(matches!(node.wants()[..], [HOLD, Action::Store(StoreAction::GrantTenure { .. })]));
    let doubt = node.clone().with(|state| (state.guard.held, state.guard.hold_in_doubt) = (true, true));
    concludes(&doubt, Rung::Fence, "cannot_hold", Fate::LetLapse, &[FIRE]);
    let standby = adopting(Node::standby()).cluster(|cluster| (cluster.leader, cluster.epoch) = (None, None));
    assert!(matches!(standby.wants()[..], [Action::Store(StoreAction::GrantTenure { .. })]));
}

/// The bug: beside the primary that a killed Patroni had left the key was taken without a look at the history, and what another
/// had acknowledged since was rewound.
#[test]
fn a_start_beside_a_primary_whose_timeline_is_told_as_over_takes_no_free_key() {
    let with = |ended: u32| {
        adopting(Node::primary()).cluster(|cluster| {
            (cluster.leader, cluster.epoch) = (None, None);
            let (reason, timestamp, leader) = (String::new(), None, None);
            cluster.history.revision = Revision(50);
            cluster.history.lines =
                vec![HistoryLine { timeline: Timeline(ended), end: HERE, reason, timestamp, leader }];
        })
    };
    concludes(&with(1), Rung::Fence, "no_tenure", Fate::Keep, &[FIRE]);
    concludes(&with(2), Rung::Fence, "no_tenure", Fate::Keep, &[FIRE]);
    let later =
        with(1).dir(Cluster { history: History::first(Timeline(2)), ..primary_dir(ControlState::InProduction) });
    assert!(matches!(later.wants()[..], [HOLD, Action::Store(StoreAction::GrantTenure { .. })]), "it came after that");
}

#[test]
fn a_start_never_takes_the_key_of_another_even_before_the_data_are_known() {
    let mut node = adopting(Node::primary()).with(|state| state.postgres.data = DataDir::Unknown);
    node.set_cluster(led_by("b", 101));
    concludes(&node, Rung::Fence, "adopting", Fate::Keep, &[]);
    let ordered = actions(&node.tick());
    assert!(ordered.contains(&FIRE), "{ordered:?}");
    let takes = |action: &Action| {
        matches!(action, Action::Store(StoreAction::GrantTenure { .. } | StoreAction::TakeOver { .. }))
    };
    assert!(!ordered.iter().any(takes), "{ordered:?}");
}

#[test]
fn another_node_of_the_same_name_does_not_lose_its_key_to_this_one() {
    let node = adopting(Node::primary()).with(|state| state.epoch_file = None).cluster(|cluster| {
        cluster.epoch = Some(epoch_record("a", EPOCH));
    });
    concludes(&node, Rung::Fence, "no_tenure", Fate::Keep, &[FIRE]);
}

#[test]
fn a_search_for_a_tenure_ends_at_the_guards_instant() {
    concludes(&adopting(Node::primary()).later(10_000), Rung::Fence, "no_tenure", Fate::LetLapse, &[FIRE]);
    let node = adopting(Node::stopped()).with(|state| state.postgres.process = Process::Unknown);
    concludes(&node, Rung::Fence, "observing", Fate::Keep, &[]);
}

/// What a lapsed tenure leaves to do is another decision, and nothing else may come to wake it for seconds.
#[test]
fn a_tenure_that_lapses_without_an_order_is_looked_at_again_at_once() {
    let mut node = adopting(Node::stopped()).later(10_000);
    (node.state.store.cluster, node.state.postgres.orphans) = (None, None);
    let effects = node.tick();
    assert!(!actions(&effects).contains(&Action::Guard(GuardAction::KillOrphans)));
    let again = effects.wake.at.unwrap();
    assert!(again <= node.now + millis(1));
    node.now = again;
    assert!(actions(&node.tick()).contains(&Action::Guard(GuardAction::KillOrphans)));
}

#[test]
fn a_key_that_vanished_is_not_asked_for_once_another_has_led() {
    let later = Revision(EPOCH.0 + 1);
    let overtaken = suspended(Node::primary()).cluster(|cluster| cluster.epoch = Some(epoch_record("b", later)));
    concludes(&overtaken, Rung::Fence, "key_not_regained", Fate::LetLapse, &[FIRE]);
    // Its own record, and one from before, say nothing.
    for epoch in [EPOCH, Revision(EPOCH.0 - 1)] {
        let node = suspended(Node::primary()).cluster(|cluster| cluster.epoch = Some(epoch_record("a", epoch)));
        assert_eq!(node.concludes(), (Rung::Fence, "key_vanished", Fate::Keep));
    }
}

#[test]
fn a_start_beside_a_primary_without_a_key_asks_for_it_only_if_nobody_else_led_since() {
    let node = |member, epoch| {
        adopting(Node::primary()).cluster(|cluster| {
            (cluster.leader, cluster.epoch) = (None, Some(epoch_record(member, epoch)));
        })
    };
    assert_eq!(node("a", EPOCH).concludes(), (Rung::Fence, "adopting", Fate::Keep));
    concludes(&node("b", Revision(EPOCH.0 + 1)), Rung::Fence, "no_tenure", Fate::Keep, &[FIRE]);
}

#[test]
fn the_epoch_on_disk_proves_a_tenure_only_in_its_cluster_and_its_store() {
    use crate::event::EpochFile;
    let renews = |file: EpochFile| {
        let node = adopting(Node::primary()).with(|state| state.epoch_file = Some(file));
        matches!(node.wants()[..], [Action::Store(StoreAction::Renew { .. })])
    };
    assert!(renews(epoch_file()));
    assert!(!renews(EpochFile { epoch: Revision(EPOCH.0 - 1), ..epoch_file() }));
    assert!(!renews(EpochFile { store: crate::id::StoreId(STORE.0 + 1), ..epoch_file() }));
    assert!(!renews(EpochFile { system_id: SystemId(SYSTEM.0 + 1), ..epoch_file() }));
}

#[test]
fn a_guard_that_acknowledges_nothing_ends_the_tenure_and_a_moment_later_what_stands_still() {
    let silent = Node::primary().with(|state| {
        state.guard.armed = Some(Armed { tenure: OURS, at: state.store.answered });
        if let Tenure::Held(held) = &mut state.tenure {
            held.confirmed = state.store.answered + millis(1);
        }
    });
    assert_eq!(silent.concludes(), (Rung::Fence, "guard_silent", Fate::LetLapse));
    // The bug: a guard that was frozen while it held had the key renewed for ever, and nobody served.
    let held = |ms: u64| {
        let mut node = silent.clone().later(ms).with(|state| state.guard.held = true);
        let Tenure::Held(held) = &mut node.state.tenure else { unreachable!("it leads") };
        held.confirmed = node.now;
        node.concludes()
    };
    assert_ne!(held(999).1, "guard_silent");
    assert_eq!(held(1_000), (Rung::Fence, "guard_silent", Fate::LetLapse));
    let doubt = silent.with(|state| (state.guard.held, state.guard.hold_in_doubt) = (true, true));
    assert_eq!(doubt.concludes(), (Rung::Fence, "guard_silent", Fate::LetLapse));
}

/// A mode that is not built yet: what this agent's predecessor led is taken up while there is time, and nothing after.
#[test]
fn in_a_mode_that_is_not_built_the_search_for_a_tenure_ends_with_the_guards_instant() {
    let node = adopting(Node::primary()).config(|config| config.unsupported = Some("pause".into()));
    assert_eq!(node.clone().later(9_999).concludes().0, Rung::Fence);
    assert_eq!(node.clone().later(10_000).concludes().0, Rung::Unsupported);
    // The bug (seed 2802252): what this agent itself had led went on, since it may look for a tenure again.
    let led = node.later(10_000).with(|state| state.spent = Some(OURS));
    assert_eq!(led.concludes(), (Rung::Fence, "no_tenure", Fate::LetLapse));
}

#[test]
fn a_start_beside_what_may_write_arms_the_guard_for_nobody() {
    let arms = |node: Node| {
        let mut node = node.with(|state| state.guard.armed = None);
        actions(&node.tick())
            .iter()
            .any(|action| matches!(action, Action::Guard(GuardAction::Arm { tenure, .. }) if *tenure == LeaseId(0)))
    };
    assert!(arms(adopting(Node::primary())));
    assert!(!arms(adopting(Node::standby())), "nothing writes");
    let observes = |node: Node| node.config(|config| config.unsupported = Some("pause".into()));
    assert!(!arms(observes(adopting(Node::primary()))), "somebody else runs it");
}
