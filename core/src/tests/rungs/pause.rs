//! Rung 2, maintenance mode: one test for each difference that a pause makes, and for what keeps it from making a second
//! writer.

use super::*;
use crate::action::{Lane, StoreAction};
use crate::decide;
use crate::event::{GuardEvent, PostgresDone, PostgresEvent, StoreDone, StoreEvent};
use crate::id::Timeline;
use crate::op::Outcome;
use crate::view::store::{ClusterView, EpochRecord};

pub(super) const DISARM: Action = Action::Guard(GuardAction::Disarm);

/// The keys of a paused cluster.
pub(super) fn paused(mut keys: ClusterView) -> ClusterView {
    keys.paused = Some(true);
    keys
}

/// They were heard a minute ago, and nothing was to be stopped.
pub(super) fn pause(node: Node) -> Node {
    let let_go = node.state.tenure.held().is_none();
    node.cluster(|cluster| cluster.paused = Some(true)).with(|state| {
        state.memory.paused = Some(at(0).back(seconds(60)));
        state.memory.let_go = let_go;
    })
}

/// The primary of a paused cluster: the store tells that it has no guard, and it has none.
pub(super) fn let_go() -> Node {
    let node = pause(Node::primary()).cluster(|cluster| cluster.epoch = Some(unguarded("a", EPOCH))).with(|state| {
        state.memory.let_go = true;
        state.guard.armed = None;
    });
    node.published()
}

pub(super) fn unguarded(name: &str, epoch: Revision) -> EpochRecord {
    EpochRecord { unguarded: true, ..epoch_record(name, epoch) }
}

pub(super) fn hears(node: &mut Node, keys: ClusterView) -> Vec<Action> {
    let seen = Seen::new(keys, node.now, node.now);
    actions(&node.step(Event::Store(StoreEvent::Watched(seen))))
}

pub(super) fn reserves(orders: &[Action], wanted: bool) -> bool {
    orders
        .iter()
        .any(|order| matches!(order, Action::Store(StoreAction::Reserve { unguarded, .. }) if *unguarded == wanted))
}

/// Which of these change PostgreSQL, or the guard's hold on it.
pub(super) fn touches(orders: &[Action]) -> Vec<&Action> {
    let quiet = |order: &Action| {
        matches!(
            order,
            Action::Postgres(PostgresAction::Observe | PostgresAction::Look | PostgresAction::Configure { .. })
                | Action::Store(_)
                | Action::Peer(_)
                | Action::Host(_)
                | Action::Answer(..)
        )
    };
    orders.iter().filter(|order| !quiet(order)).collect()
}

#[test]
fn it_keeps_and_renews_its_key() {
    let mut node = let_go().later(11_000).with(|state| state.session.kept = at(11_000));
    let orders = actions(&node.tick());
    assert!(orders.iter().any(|order| matches!(order, Action::Store(StoreAction::Renew { .. }))), "{orders:?}");
    assert!(orders.iter().any(|order| matches!(order, Action::Store(StoreAction::PutStatus { .. }))), "{orders:?}");
    assert_eq!(touches(&orders), [] as [&Action; 0]);
}

/// No demotion when the store is lost, and no hold when everybody is.
#[test]
fn without_the_store_a_primary_that_is_let_go_serves_on() {
    let mut node = let_go();
    for ms in [5_000, 29_000, 31_000, 60_000, 3_600_000] {
        node.now = at(ms);
        let orders = actions(&node.tick());
        assert_eq!(touches(&orders), [] as [&Action; 0], "after {ms} ms");
        assert!(node.view().leads(), "health checks go by its role");
    }
    assert_eq!((&node.state.tenure, node.state.spent), (&Tenure::None, None), "its key is taken again, not given up");
    // The store comes back without a leader: the key is there for the taking.
    let mut keys = paused(cluster(200));
    keys.epoch = Some(unguarded("a", EPOCH));
    let orders = hears(&mut node, keys);
    assert!(orders.iter().any(|order| matches!(order, Action::Store(StoreAction::GrantTenure { .. }))), "{orders:?}");
    let granted = StoreDone::Granted { lease: LeaseId(9), ttl: seconds(30) };
    let (op, asked) = (node.op(&Lane::Lead), node.now);
    let effects = node.step(Event::Store(StoreEvent::Completed { op, outcome: Outcome::Done(granted), asked }));
    let takes = actions(&effects).into_iter().find_map(|order| match order {
        Action::Store(StoreAction::Acquire(acquire)) => Some(acquire),
        _ => None,
    });
    let takes = takes.expect("it asks for the key");
    assert!(takes.unguarded, "the store learns with the key that there is no guard");
    assert_eq!(takes.config, Revision(6), "and that the pause is not over by then");
}

#[test]
fn what_is_stopped_by_hand_stays_stopped_and_the_key_is_given_back() {
    let mut node = let_go().dead().dir(primary_dir(ControlState::ShutDown));
    concludes(&node, Rung::Pause, "paused", Fate::Release, &[]);
    let orders = actions(&node.tick());
    assert_eq!(orders.iter().find(|order| order.lane() == Some(Lane::Host)), Some(&forgets()));
    forgotten(&mut node.state);
    node.state.ops.cancel(&Lane::Host);
    let orders = actions(&node.tick());
    assert!(orders.iter().any(|order| matches!(order, Action::Store(StoreAction::Release { .. }))), "{orders:?}");
    assert_eq!(touches(&orders), [] as [&Action; 0]);
    concludes(&pause(Node::stopped()), Rung::Pause, "paused", Fate::Keep, &[]);
    let beside_leader = pause(Node::stopped()).cluster(|cluster| *cluster = paused(led_by("b", 101)));
    concludes(&beside_leader, Rung::Pause, "paused", Fate::Keep, &[]);
}

/// A key is not given away beside a backend that commits: those of a dead postmaster are ended first.
#[test]
fn the_orphans_of_a_leader_are_ended_before_its_key_is_given_back() {
    let orphans = let_go().dead().with(|state| state.postgres.orphans = None);
    let kill = Action::Guard(GuardAction::KillOrphans);
    concludes(&orphans, Rung::Fence, "orphans_alive", Fate::Keep, &[kill]);
    let standby = pause(Node::stopped()).with(|state| state.postgres.orphans = None);
    concludes(&standby, Rung::Pause, "paused", Fate::Keep, &[]);
    // Nor while it is not known whether anything runs.
    let unknown = let_go().dead().with(|state| state.postgres.process = Process::Unknown);
    concludes(&unknown, Rung::Pause, "paused", Fate::Keep, &[]);
}

/// As any primary is, but for the roles of a cluster whose key was lost.
#[test]
fn a_primary_that_is_let_go_is_seen_to() {
    let sql = crate::view::postgres::Sql { timeline: Timeline(2), ..primary_sql() };
    let promoted = let_go().sql(sql).with(|state| (state.memory.checkpointed, state.config.use_slots) = (None, false));
    concludes(&promoted, Rung::Pause, "paused", Fate::Keep, &[Action::Postgres(PostgresAction::Checkpoint)]);
    let lost = let_go().cluster(|cluster| cluster.initialize = None).with(|state| state.memory.roles_created = false);
    concludes(&lost, Rung::Pause, "paused", Fate::Keep, &[]);
}

/// Whoever holds the key and is no primary gives it back: a race that was won just before the pause ends so.
#[test]
fn a_standby_gives_the_key_back() {
    let standby = || {
        let node = pause(Node::primary()).dir(standby_dir()).sql(standby_sql(None));
        node.with(|state| state.memory.let_go = true)
    };
    concludes(&standby(), Rung::Pause, "paused", Fate::Release, &[]);
    let promoting = standby().with(|state| state.memory.promotion = true);
    concludes(&promoting, Rung::Pause, "paused", Fate::Keep, &[]);
}

#[test]
fn nobody_races() {
    let mut node = pause(Node::racing());
    concludes(&node, Rung::Pause, "paused", Fate::Keep, &[]);
    assert_eq!(touches(&actions(&node.tick())), [] as [&Action; 0]);
    // Nor pledges: its receiver goes on.
    let mut node = pause(Node::standby().cluster(|cluster| cluster.leader = None)).with(|state| {
        let (request, absent_at, since) = (RequestId(9), Revision(100), at(0));
        state.position_asked.push(crate::state::PositionAsked { request, absent_at, since });
    });
    let effects = node.tick();
    assert_eq!(answers(&effects).len(), 1, "it tells at once how things are");
    assert_eq!(touches(&actions(&effects)), [] as [&Action; 0]);
}

#[test]
fn a_standby_is_turned_to_a_new_leader_and_not_restarted_for_it() {
    let node = pause(Node::standby()).with(|state| state.memory.followed = None);
    let turned = node.sql(standby_sql(Some("c"))).later(10_000);
    let follow = Action::Postgres(PostgresAction::Follow(Some(upstream("b"))));
    concludes(&turned, Rung::Pause, "turning_to", Fate::Keep, &[follow]);
    let restart = pause(Node::standby()).with(|state| state.memory.needs_restart = true);
    concludes(&restart, Rung::Pause, "paused", Fate::Keep, &[]);
    let alone = pause(Node::standby()).cluster(|cluster| cluster.leader = None).sql(standby_sql(Some("c")));
    concludes(&alone, Rung::Pause, "paused", Fate::Keep, &[]);
    let follows = pause(Node::standby());
    assert!(follows.decide().1.steady, "its slots and parameters are kept");
}

/// Neither a comparison nor a rewind, whatever has diverged.
#[test]
fn nothing_is_rewound() {
    let stuck = pause(Node::standby()).sql(crate::view::postgres::Sql { upstream_set: true, ..standby_sql(None) });
    let stuck = stuck.with(|state| state.memory.compared = Some((THEIR_EPOCH, Some(Lsn(8))))).later(10_000);
    let (rung, verdict) = stuck.decide();
    assert_eq!((rung, touches(&verdict.orders)), (Rung::Pause, vec![]));
}

#[test]
fn an_operators_primary_is_left_alone_beside_another_leader() {
    let by_hand = pause(Node::standby()).dir(primary_dir(ControlState::InProduction)).sql(primary_sql());
    concludes(&by_hand, Rung::Pause, "paused", Fate::Keep, &[]);
    assert!(!by_hand.view().leads(), "clients are right at the leader");
    assert_eq!(decide::members::record(&by_hand.view()).role, "primary");
    // It takes a key that is there for the taking, if the data are this cluster's.
    let free = by_hand.cluster(|cluster| cluster.leader = None);
    let asks = Action::Store(StoreAction::GrantTenure { ttl: seconds(30) });
    concludes(&free, Rung::Pause, "paused", Fate::Keep, &[asks]);
    let foreign = free.dir(Cluster { system_id: SystemId(1), ..primary_dir(ControlState::InProduction) });
    concludes(&foreign, Rung::Pause, "paused", Fate::Keep, &[]);
}

#[test]
fn the_data_of_another_cluster_halt_nobody_and_lead_nowhere() {
    let foreign = || Cluster { system_id: SystemId(1), ..primary_dir(ControlState::InProduction) };
    concludes(&pause(Node::stopped()).dir(foreign()), Rung::Pause, "paused", Fate::Keep, &[]);
    concludes(&let_go().dir(foreign()), Rung::Pause, "paused", Fate::LetLapse, &[]);
}

#[test]
fn an_empty_directory_stays_empty() {
    let empty = pause(empty()).cluster(|cluster| *cluster = paused(led_by("b", 101)));
    concludes(&empty, Rung::Pause, "paused", Fate::Keep, &[]);
}

/// A restart that an operator asks for is done under the guard, like any other.
#[test]
fn a_primary_is_restarted_on_request_with_its_guard_armed_for_as_long() {
    let mut node = let_go();
    let orders = actions(&node.step(Event::Operator(RequestId(1), Request::Restart)));
    let arm = orders.iter().find_map(|order| match order {
        Action::Guard(GuardAction::Arm { tenure, at }) => Some(Armed { tenure: *tenure, at: *at }),
        _ => None,
    });
    assert!(!orders.contains(&Action::Postgres(PostgresAction::Restart)), "{orders:?}");
    let effects = node.step(Event::Guard(GuardEvent::Armed(arm.expect("the guard is armed first"))));
    let restarts = effects.orders.iter().find(|order| order.action == Action::Postgres(PostgresAction::Restart));
    assert_eq!(restarts.expect("now it is restarted").under, arm);
    // While that goes on, and after a failure, it is not given up.
    assert!(!actions(&node.tick()).contains(&DISARM));
    let op = node.op(&Lane::PgControl);
    node = node.dead().dir(primary_dir(ControlState::ShutDown));
    let failed = Outcome::Refused(crate::op::Refusal::Failed("no".into()));
    node.step(Event::Postgres(PostgresEvent::Completed { op, outcome: failed }));
    node.state.postgres.orphans = Some(0);
    let start = Action::Postgres(PostgresAction::Start(StartAs::Primary));
    concludes(&node.later(2_000), Rung::Leader, "restart_in_place", Fate::Keep, &[start]);
    // A restart that went well gives PostgreSQL back to the operator.
    let mut node = let_go().with(|state| {
        state.memory.requested = true;
        state.guard.armed = Some(Armed { tenure: OURS, at: at(20_000) });
    });
    assert!(actions(&node.tick()).contains(&DISARM) && !node.state.memory.requested);
}

/// The bug: the guard was armed for as long as the checkpoint before the restart took, and what it ended meanwhile stayed down.
#[test]
fn the_checkpoint_before_a_restart_is_written_with_hands_off() {
    let mut node = let_go().with(|state| state.memory.checkpointed = None);
    let orders = actions(&node.step(Event::Operator(RequestId(1), Request::Restart)));
    assert!(orders.contains(&Action::Postgres(PostgresAction::Checkpoint)), "{orders:?}");
    assert!(!orders.iter().any(|order| matches!(order, Action::Guard(GuardAction::Arm { .. }))), "{orders:?}");
    // The bug: it took longer than a request may wait for a rung to take it up, and the operator was told that nothing came
    // of it, while the guard was being armed.
    let mut node = node.later(30_000);
    let op = node.op(&Lane::PgControl);
    let written = Outcome::Done(PostgresDone::Done);
    let effects = node.step(Event::Postgres(PostgresEvent::Completed { op, outcome: written }));
    let orders = actions(&effects);
    assert!(orders.iter().any(|order| matches!(order, Action::Guard(GuardAction::Arm { .. }))), "{orders:?}");
    assert!(!orders.iter().any(|order| matches!(order, Action::Answer(..))), "{orders:?}");
}

#[test]
fn a_standby_is_restarted_on_request_and_a_primary_without_the_key_is_not() {
    let asked = |node: Node| {
        let mut node = node;
        actions(&node.step(Event::Operator(RequestId(1), Request::Restart)))
    };
    let restart = Action::Postgres(PostgresAction::Restart);
    assert!(asked(pause(Node::standby())).contains(&restart));
    let by_hand = pause(Node::standby()).dir(primary_dir(ControlState::InProduction)).sql(primary_sql());
    assert!(!asked(by_hand).contains(&restart), "between its halves another may lead");
}

/// An operator's request to clone a node again is carried out to its end.
#[test]
fn a_node_is_cloned_again_on_request_and_started() {
    let mut node = pause(Node::standby());
    let reinitialize = Request::Reinitialize { force: false, from_leader: false };
    let orders = actions(&node.step(Event::Operator(RequestId(1), reinitialize)));
    assert!(orders.contains(&stop(StopMode::Immediate)), "{orders:?}");
    let op = node.op(&Lane::PgControl);
    let mut node = node.dead();
    let done = Outcome::Done(PostgresDone::Done);
    let orders = actions(&node.step(Event::Postgres(PostgresEvent::Completed { op, outcome: done.clone() })));
    assert!(orders.contains(&Action::Postgres(PostgresAction::Clone(upstream("b")))), "{orders:?}");
    let op = node.op(&Lane::PgControl);
    node.step(Event::Postgres(PostgresEvent::Completed { op, outcome: done }));
    let node = node.with(|state| state.memory.compared = Some((THEIR_EPOCH, None)));
    concludes(&node, Rung::Follow, "starting_standby", Fate::Keep, &[start_standby(Some("b"))]);
}

/// A switchover to a named candidate: the primary is stopped, and follows afterwards.
#[test]
fn a_switchover_to_a_named_candidate_is_carried_out_and_the_old_primary_follows() {
    let asked = |candidate: Option<&str>| {
        let request = failover(Some("a"), candidate);
        let_go().cluster(move |cluster| cluster.failover = Some(request))
    };
    assert_eq!(asked(Some("b")).concludes().0, Rung::Switchover);
    assert_eq!(asked(None).concludes().0, Rung::Pause, "a candidate has to be named");
    let orders = actions(&asked(None).tick());
    assert!(orders.iter().any(|order| matches!(order, Action::Store(StoreAction::ClearFailover { .. }))), "{orders:?}");
    let mut node = asked(Some("b")).with(|state| {
        state.peers.answers.insert(Member::new("b"), Seen::new(answer(HERE, None), at(0), at(0)));
    });
    let orders = actions(&node.tick());
    assert!(orders.contains(&stop(StopMode::Fast)) && node.state.memory.requested, "{orders:?}");
    // It released its key, and another leads.
    let done = Outcome::Done(PostgresDone::Done);
    let op = node.op(&Lane::PgControl);
    let mut node = node.dead().dir(primary_dir(ControlState::ShutDown)).with(|state| {
        state.tenure = Tenure::None;
        state.memory.compared = Some((THEIR_EPOCH, None));
    });
    node.step(Event::Postgres(PostgresEvent::Completed { op, outcome: done }));
    let node = node.cluster(|cluster| *cluster = paused(led_by("b", 101)));
    concludes(&node, Rung::Follow, "starting_standby", Fate::Keep, &[start_standby(Some("b"))]);
}

#[test]
fn the_candidate_of_an_operator_takes_the_key_and_is_promoted_under_its_guard() {
    let candidate = pause(Node::racing()).cluster(|cluster| cluster.failover = Some(failover(None, Some("a"))));
    assert_eq!(candidate.concludes(), (Rung::Race, "asking_lease", Fate::Keep));
    let other = pause(Node::racing()).cluster(|cluster| cluster.failover = Some(failover(None, Some("b"))));
    concludes(&other, Rung::Pause, "paused", Fate::Keep, &[]);
    // Only a standby is promoted: what was started by hand, or does not run, is no business of a request.
    let asked = |node: Node| {
        let free =
            |cluster: &mut ClusterView| (cluster.leader, cluster.failover) = (None, Some(failover(None, Some("a"))));
        node.with(|state| state.tenure = Tenure::None).cluster(free).concludes().0
    };
    assert_eq!(asked(let_go()), Rung::Pause);
    assert_eq!(asked(pause(Node::stopped())), Rung::Pause);
    let won = let_go().dir(standby_dir()).sql(standby_sql(None));
    let mut won = won.cluster(|cluster| cluster.failover = Some(failover(None, Some("a"))));
    assert_eq!(won.concludes(), (Rung::Leader, "arming_guard", Fate::Keep));
    let orders = actions(&won.tick());
    assert!(orders.iter().any(|order| matches!(order, Action::Guard(GuardAction::Arm { .. }))), "{orders:?}");
    won.state.guard.armed = Some(Armed { tenure: OURS, at: at(20_000) });
    concludes(&won, Rung::Leader, "promoting", Fate::Keep, &[promotion()]);
}

#[test]
fn what_is_scheduled_waits_for_the_end_of_the_pause() {
    let scheduled = || {
        let request = FailoverKey { scheduled_at: Some(crate::time::WallMillis(0)), ..failover(Some("a"), Some("b")) };
        let_go().cluster(move |cluster| cluster.failover = Some(request)).later(20_000)
    };
    assert!(scheduled().view().due_failover().is_none());
    let clears = |mut node: Node| {
        let orders = actions(&node.tick());
        orders.iter().any(|order| matches!(order, Action::Store(StoreAction::ClearFailover { .. })))
    };
    assert!(!clears(scheduled()));
}

/// What nobody will take up in a pause is taken back, and nothing else.
#[test]
fn a_request_that_a_pause_makes_void_is_taken_back() {
    let taken_back = |node: Node, candidate: Option<&str>, scheduled_ms: Option<i64>| {
        let request =
            FailoverKey { scheduled_at: scheduled_ms.map(crate::time::WallMillis), ..failover(Some("a"), candidate) };
        let mut node = node.cluster(move |cluster| cluster.failover = Some(request));
        let orders = actions(&node.tick());
        orders.iter().any(|order| matches!(order, Action::Store(StoreAction::ClearFailover { .. })))
    };
    assert!(taken_back(let_go(), None, None), "a switchover needs a candidate");
    assert!(!taken_back(Node::primary().published(), None, None), "but in a pause only");
    assert!(!taken_back(let_go(), Some("b"), None));
    assert!(!taken_back(let_go(), None, Some(3_600_000)), "it waits for its time");
    assert!(!taken_back(let_go(), Some("b"), Some(-3_600_000)), "that is over, and the pause is not");
    assert!(taken_back(Node::primary().published(), Some("b"), Some(-3_600_000)));
}

#[test]
fn no_slot_is_dropped_and_missing_ones_are_made() {
    let slot = |name: &str| crate::view::postgres::Slot { name: name.into(), physical: true, ..Default::default() };
    let with = |names: &[&str]| {
        let sql = crate::view::postgres::Sql { slots: names.iter().map(|name| slot(name)).collect(), ..primary_sql() };
        decide::slots::order(&let_go().sql(sql).view()).map(|(action, _)| action)
    };
    assert_eq!(with(&["a", "b", "c"]), None, "our own would be dropped");
    assert_eq!(with(&["a", "b"]), Some(Action::Postgres(PostgresAction::CreateSlot("c".into()))));
}

#[test]
fn an_agent_that_is_stopped_leaves_everything_as_it_is() {
    let leaves = |node: Node| node.with(|state| state.leaving = true).decide().1;
    for node in [let_go(), pause(Node::standby()), pause(Node::stopped())] {
        let verdict = leaves(node);
        assert!(matches!(verdict.orders[..], [Action::Host(HostAction::Exit { code: 0, .. })]), "{verdict:?}");
        assert_eq!(verdict.fate, Fate::Keep);
    }
    // The bug: the guard was armed while the agent left, and stopped PostgreSQL two seconds later.
    let mut leaves_now = let_go().with(|state| state.leaving = true);
    let orders = actions(&leaves_now.tick());
    assert_eq!(touches(&orders), [] as [&Action; 0]);
    let armed = let_go().with(|state| state.guard.armed = Some(Armed { tenure: OURS, at: at(20_000) }));
    assert!(leaves(armed).orders.is_empty(), "the guard is disarmed first");
}

/// The bug: it had given its key back a moment before, and PostgreSQL was stopped with it.
#[test]
fn a_standby_whose_tenure_is_still_to_be_revoked_is_left_as_well() {
    let spent = pause(Node::standby()).with(|state| {
        (state.spent, state.memory.let_go, state.leaving) = (Some(OURS), false, true);
    });
    let mut node = spent;
    let orders = actions(&node.tick());
    assert!(orders.iter().any(|order| matches!(order, Action::Host(HostAction::Exit { .. }))), "{orders:?}");
    // Nothing is known of what was not looked at.
    let mut unseen = pause(Node::standby()).with(|state| {
        state.memory.let_go = false;
        state.postgres.process = Process::Unknown;
    });
    unseen.tick();
    assert!(!unseen.state.memory.let_go);
}

/// An agent that starts in a pause beside a primary, and has heard nothing of the store, does not say that it leads.
#[test]
fn nobody_leads_before_the_store_was_heard() {
    let alone = let_go().with(|state| state.tenure = Tenure::None).cluster(|cluster| cluster.leader = None);
    assert!(alone.view().leads());
    assert!(!alone.with(|state| state.store.cluster = None).view().leads());
}

#[test]
fn who_led_without_a_guard_tells_when_nothing_writes_any_more() {
    let vouches = |node: Node| {
        let mut node = node.cluster(|cluster| cluster.epoch = Some(unguarded("a", EPOCH)));
        actions(&node.tick()).iter().any(|order| matches!(order, Action::Store(StoreAction::Vouch { .. })))
    };
    assert!(vouches(Node::stopped()) && vouches(Node::standby()));
    assert!(!vouches(pause(Node::stopped())), "the operator may start it as a primary again, out of reach");
    let uncounted = Node::stopped().with(|state| state.postgres.orphans = None);
    assert!(!vouches(uncounted), "what a dead postmaster left behind may write");
    let unasked = Node::standby().dir(primary_dir(ControlState::InProduction)).with(|state| state.postgres.sql = None);
    assert!(!vouches(unasked));
}

/// A configuration that is gone does not end a pause, and one that was written anew with the name would.
#[test]
fn a_lost_name_is_written_again_while_there_is_a_configuration() {
    let names = |config: i64| {
        let mut node =
            let_go().with(|state| state.memory.knew = state.store.cluster.as_ref().unwrap().value.system_id());
        let mut keys = paused(led_by("a", 101));
        keys.epoch = Some(unguarded("a", EPOCH));
        (keys.initialize, keys.config_revision) = (None, Revision(config));
        let orders = hears(&mut node, keys);
        orders.iter().any(|order| matches!(order, Action::Store(StoreAction::CompleteInitialize { .. })))
    };
    assert!(names(5));
    assert!(!names(0));
}
