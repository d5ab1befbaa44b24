//! How a cluster is born, once, whatever becomes of the answers, and never beside the data of one that exists.

use alloc::vec::Vec;

use super::races::watched;
use crate::action::{Action, Lane, PostgresAction, StoreAction};
use crate::event::{Event, PostgresDone, PostgresEvent, StoreDone, StoreEvent};
use crate::id::{LeaseId, Revision};
use crate::op::{Outcome, Refusal};
use crate::testing::*;
use crate::view::postgres::DataDir;
use crate::view::store::{ClusterView, Initialize};

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
        (key.record.position, key.record.timeline) = (crate::id::Lsn(0), crate::id::Timeline(0));
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
