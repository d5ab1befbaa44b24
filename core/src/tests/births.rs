//! How a cluster is born, once, whatever becomes of the answers, and never beside the data of one that exists.

use alloc::vec::Vec;

use super::races::watched;
use crate::action::{Action, HostAction, Lane, PostgresAction, StoreAction};
use crate::decide::Rung;
use crate::event::{EpochFile, Event, HostEvent, PostgresDone, PostgresEvent, StoreDone, StoreEvent};
use crate::id::{LeaseId, Lsn, Member, Revision, StoreId, Timeline};
use crate::lease::{Held, Tenure};
use crate::op::{Outcome, Refusal};
use crate::testing::*;
use crate::view::guard::Armed;
use crate::view::postgres::{ControlState, DataDir};
use crate::view::store::{ClusterView, HistoryLine, Initialize};

const INITDB: Action = Action::Postgres(PostgresAction::Initdb);
/// The lease of our own member record.
const OWN: LeaseId = LeaseId(100);

/// No cluster, no data.
fn unborn() -> Node {
    let mut node = Node::stopped().with(|state| state.postgres.data = DataDir::Empty);
    node.set_cluster(without_keys(100));
    node
}

fn without_keys(revision: i64) -> ClusterView {
    ClusterView { initialize: None, config_revision: Revision(0), ..nobody(revision) }
}

/// Members that have no data yet.
fn nobody(revision: i64) -> ClusterView {
    let mut view = cluster(revision);
    for key in view.members.values_mut() {
        (key.record.position, key.record.timeline) = (Lsn(0), Timeline(0));
        (key.record.state, key.record.role) = ("stopped".into(), "uninitialized".into());
    }
    view
}

fn taken(revision: i64, lease: LeaseId) -> ClusterView {
    let initialize = Initialize { revision: Revision(revision), lease, system_id: None };
    ClusterView { initialize: Some(initialize), ..without_keys(revision) }
}

fn asks(ordered: &[Action]) -> bool {
    ordered.iter().any(|action| matches!(action, Action::Store(StoreAction::RaceInitialize { .. })))
}

fn gives_back(ordered: &[Action]) -> bool {
    ordered.iter().any(|action| matches!(action, Action::Store(StoreAction::AbandonInitialize { .. })))
}

fn answered(node: &mut Node, lane: &Lane, outcome: Outcome<StoreDone>) -> Vec<Action> {
    let (op, asked) = (node.op(lane), node.now);
    actions(&node.step(Event::Store(StoreEvent::Completed { op, outcome, asked })))
}

/// The bug: the answer was lost, the key hung empty on our own lease, and this node waited for itself for ever.
#[test]
fn a_lost_answer_to_the_wish_to_initialise_does_not_keep_the_cluster_from_being_born() {
    let mut node = unborn();
    assert!(asks(&actions(&node.tick())));
    let ordered = answered(&mut node, &Lane::Lead, Outcome::Unknown("no answer".into()));
    assert!(ordered.contains(&Action::Store(StoreAction::Read)), "with watches silent nobody tells: {ordered:?}");
    let ordered = answered(&mut node, &Lane::Observe, Outcome::Done(StoreDone::Read(taken(101, OWN))));
    assert!(ordered.contains(&INITDB), "{ordered:?}");
}

#[test]
fn a_watch_that_is_faster_than_the_answer_does_not_make_another_the_one_that_initialises() {
    let mut node = unborn();
    node.tick();
    let effects = node.step(watched(&node, taken(101, OWN)));
    assert_eq!(effects.decision.map(|decision| decision.reason.code()), Some("initialising"));
    let mut node = unborn();
    node.tick();
    let effects = node.step(watched(&node, taken(101, LeaseId(77))));
    assert_eq!(effects.decision.map(|decision| decision.reason.code()), Some("init_taken"));
}

#[test]
fn an_answer_without_the_key_is_no_right_to_initialise() {
    let mut node = unborn();
    node.tick();
    let ordered = answered(&mut node, &Lane::Lead, Outcome::Done(StoreDone::Written));
    assert!(ordered.contains(&Action::Store(StoreAction::Read)) && !ordered.contains(&INITDB), "{ordered:?}");
}

/// Initdb failed here, and the right to it is given back, whatever the store answers to that.
#[test]
fn a_right_that_was_given_back_is_not_used_again_whatever_the_answer() {
    for outcome in
        [Outcome::Done(StoreDone::Written), Outcome::Unknown("no answer".into()), Outcome::Refused(Refusal::Conflict)]
    {
        let mut node = unborn();
        node.tick();
        node.step(watched(&node, taken(101, OWN)));
        let (op, failed) = (node.op(&Lane::PgControl), Outcome::Refused(Refusal::Failed("no".into())));
        // The answer to the wish came meanwhile.
        answered(&mut node, &Lane::Lead, Outcome::Done(StoreDone::Written));
        let effects =
            node.step(Event::Postgres(PostgresEvent::Completed { op, outcome: failed.map(|()| PostgresDone::Done) }));
        assert!(gives_back(&actions(&effects)), "{effects:?}");
        answered(&mut node, &Lane::Lead, outcome.clone());
        node.step(watched(&node, without_keys(102)));
        for _ in 0..9 {
            node = node.later(1_000);
            let ordered = actions(&node.tick());
            assert!(!ordered.contains(&INITDB) && !asks(&ordered), "{outcome:?}: {ordered:?}");
        }
        node.state.ops = Node::stopped().state.ops;
        node = node.later(1_500);
        assert!(asks(&actions(&node.tick())), "{outcome:?}: and later it tries again");
        assert!(!node.state.memory.initdb_failed);
    }
}

/// An empty store in the place of the one that was there.
fn replaced(revision: i64) -> ClusterView {
    ClusterView { store: StoreId(2), revision: Revision(revision), rollbacks: 1, ..ClusterView::default() }
}

/// The bug: etcd was replaced by an empty one, and the dead primary of the first timeline, which another had succeeded,
/// took the key at once and started in place.
#[test]
fn a_former_primary_beside_an_empty_store_in_the_place_of_the_last_one_does_not_begin_the_cluster_anew() {
    for file in [Some(epoch_file()), None] {
        let mut node = Node::stopped()
            .dir(primary_dir(ControlState::InProduction))
            .config(|config| config.use_pg_rewind = false)
            .with(|state| state.epoch_file = file);
        node.step(watched(&node, led_by("b", 101)));
        node = node.later(60_000);
        let ordered = actions(&node.step(watched(&node, replaced(3))));
        let campaigns = ordered.iter().any(|action| matches!(action, Action::Store(StoreAction::GrantTenure { .. })));
        assert!(!campaigns, "{file:?}: {ordered:?}");
        assert_ne!(node.concludes().0, Rung::Race, "{file:?}");
        // Whatever it leads by, it does not start in place.
        let confirmed = node.now;
        node.state.ops = Node::stopped().state.ops;
        node.state.tenure = Tenure::Held(Held { lease: OURS, epoch: EPOCH, ttl: seconds(30), confirmed });
        node.state.guard.armed = Some(Armed { tenure: OURS, at: confirmed + seconds(9) });
        assert_eq!(node.concludes().1, "start_to_promote", "{file:?}");
    }
}

#[test]
fn a_void_epoch_is_put_on_disk_and_one_of_the_lost_future_that_is_on_its_way_there_is_not_believed() {
    let mut node = Node::primary();
    let write = |file: EpochFile| Action::Host(HostAction::WriteEpoch(file));
    node = node.doing(write(EpochFile { epoch: Revision(71), ..epoch_file() }), 5);
    node.step(watched(&node, replaced(3)));
    assert_eq!(node.state.epoch_file, Some(epoch_file().void()));
    let done = |node: &Node| Event::Host(HostEvent::Completed { op: node.op(&Lane::Host), outcome: Outcome::Done(()) });
    let ordered = actions(&node.step(done(&node)));
    assert_eq!(node.state.epoch_file, Some(epoch_file().void()));
    assert!(ordered.contains(&write(epoch_file().void())), "{ordered:?}");
    let ordered = actions(&node.step(done(&node)));
    assert!(!ordered.iter().any(|action| matches!(action, Action::Host(HostAction::WriteEpoch(_)))), "{ordered:?}");
    assert!(!node.state.memory.void_due);
}

/// It may end after the next tenure began, and before that was written.
#[test]
fn an_epoch_of_the_lost_future_is_not_believed_beside_a_tenure_that_began_since() {
    for (epoch, believed) in [(Revision(71), false), (EPOCH, true)] {
        let file = EpochFile { epoch, ..epoch_file() };
        let mut node = Node::primary().with(|state| {
            (state.memory.void_due, state.epoch_file) = (true, Some(epoch_file().void()));
        });
        node = node.doing(Action::Host(HostAction::WriteEpoch(file)), 5);
        let op = node.op(&Lane::Host);
        node.step(Event::Host(HostEvent::Completed { op, outcome: Outcome::Done(()) }));
        assert_eq!(node.state.epoch_file == Some(file), believed);
    }
}

#[test]
fn no_cluster_is_made_in_the_place_of_one_that_was_known_or_beside_the_data_of_a_member() {
    let mut node = Node::stopped().with(|state| state.postgres.data = DataDir::Empty);
    node.step(watched(&node, led_by("b", 101)));
    node = node.later(60_000).with(|state| state.ops = Node::stopped().state.ops);
    node.step(watched(&node, replaced(3)));
    node.state.session.lease = Some(OWN);
    assert!(!asks(&actions(&node.tick())));
    assert_eq!(node.concludes().1, "cluster_known");
    // One that has just started never knew it, and still sees who has data.
    let mut fresh = unborn();
    let mut view = without_keys(101);
    view.members.insert(Member::new("b"), cluster(101).members[&Member::new("b")].clone());
    fresh.set_cluster(view);
    assert!(!asks(&actions(&fresh.tick())));
    assert_eq!(fresh.concludes().1, "member_has_data");
    // The bug: `initialize` alone was deleted while the node that had the data was away, and another made a new cluster.
    for (optime, line, published) in [(0, 0, false), (8, 0, true), (0, 8, true)] {
        let mut fresh = unborn();
        let mut view = without_keys(101);
        view.status = Some(crate::view::store::StatusKey { optime: Lsn(optime), ..Default::default() });
        let (timeline, end) = (Timeline(1), Lsn(line));
        let line = HistoryLine { timeline, end, reason: String::new(), timestamp: None, leader: None };
        view.history.lines = vec![line];
        fresh.set_cluster(view);
        assert_eq!(asks(&actions(&fresh.tick())), !published);
        assert_eq!(fresh.concludes().1, if published { "cluster_published" } else { "no_cluster_yet" });
    }
}

/// The bug: all keys were deleted, and a node whose data and agent were lost at that moment made a new cluster beside
/// members whose servers were only starting, which tells no position.
#[test]
fn no_cluster_is_made_beside_the_data_of_a_member_that_is_only_starting() {
    for (state, role, waits) in [
        ("starting", "demoted", true),
        ("stopped", "replica", true),
        ("stopped", "uninitialized", false),
        ("unknown", "uninitialized", true),
        ("running custom bootstrap script", "", false),
    ] {
        let mut fresh = unborn();
        let mut view = without_keys(101);
        let record = &mut view.members.get_mut(&Member::new("b")).unwrap().record;
        (record.state, record.role) = (state.into(), role.into());
        fresh.set_cluster(view);
        assert_eq!(asks(&actions(&fresh.tick())), !waits, "{state} {role}");
        let reason = if waits { "member_has_data" } else { "no_cluster_yet" };
        assert_eq!(fresh.concludes().1, reason, "{state} {role}");
    }
}

/// The bug: all keys were deleted while a node had another cluster's data in its directory; its agent had started since
/// and took that for a birth of its own that was never completed, beside standbys that ran.
#[test]
fn a_directory_beside_members_that_run_is_no_birth_that_was_never_completed() {
    for born in [false, true] {
        let mut node = Node::stopped().dir(primary_dir(ControlState::InProduction)).with(|state| {
            (state.epoch_file, state.memory.knew) = (None, None);
            state.memory.leaderless = leaderless_since(at(0));
        });
        let mut view = without_keys(101);
        if born {
            view.members.insert(Member::new("b"), cluster(101).members[&Member::new("b")].clone());
        }
        node.set_cluster(view);
        let campaigns = |node: &mut Node| {
            actions(&node.tick()).iter().any(|action| matches!(action, Action::Store(StoreAction::GrantTenure { .. })))
        };
        // The bug: it campaigned at once, beside a leader of Patroni's that heard nothing of the store for a moment.
        assert!(!campaigns(&mut node));
        assert_eq!(node.concludes().1 == "cluster_unknown", !born);
        let mut later = node.later(30_000);
        assert_eq!((campaigns(&mut later), later.concludes().0 == Rung::Race), (!born, !born));
    }
}
