//! How a node comes back to a cluster: cloned by an operator's wish, compared, rewound.

use super::races::watched;
use crate::action::{Action, Lane, PostgresAction};
use crate::decide::{Fate, Rung};
use crate::event::{Event, PostgresDone, PostgresEvent, Request};
use crate::id::{Lsn, RequestId, Revision};
use crate::lease::Tenure;
use crate::op::{Outcome, Refusal};
use crate::testing::*;
use crate::view::postgres::{ControlState, DataDir, StartAs, StopMode};

fn ended(node: &mut Node, outcome: Outcome<PostgresDone>) {
    let op = node.op(&Lane::PgControl);
    node.step(Event::Postgres(PostgresEvent::Completed { op, outcome }));
}

/// A standby that an operator wants cloned again.
fn to_be_cloned() -> Node {
    let mut node = Node::standby();
    node.step(Event::Operator(RequestId(1), Request::Reinitialize { force: false, from_leader: false }));
    assert!(node.state.memory.reinit);
    node.tick();
    node
}

/// Somebody promotes a standby by hand, and it is stopped: it may have written what its leader does not have.
#[test]
fn what_was_a_primary_since_it_was_compared_is_compared_again() {
    let mut node = Node::standby().with(|state| state.memory.compared = Some((THEIR_EPOCH, None)));
    let promoted = primary_dir(ControlState::InProduction);
    node.step(Event::Postgres(PostgresEvent::DataSeen(DataDir::Cluster(promoted))));
    assert_eq!(node.state.memory.compared, None);
    assert_eq!(node.dead().concludes().1, "comparing_histories");
}

/// The bug: PostgreSQL was stopped for the clone, the leader died, and the node waited beside its complete directory
/// for somebody to clone from, for ever.
#[test]
fn a_wish_to_clone_does_not_outlive_the_leader_while_the_directory_is_whole() {
    let mut node = to_be_cloned().dead();
    ended(&mut node, Outcome::Done(PostgresDone::Done));
    node = node.later(1_000);
    node.tick();
    ended(&mut node, Outcome::Refused(Refusal::Failed("nobody answers there".into())));
    node.step(watched(&node, cluster(200)));
    assert_eq!(node.concludes().1, "no_source");
    node = node.later(1_100);
    assert!(actions(&node.tick()).iter().any(|order| matches!(order, Action::Postgres(PostgresAction::Start(_)))));
    // It races as any other.
    let racing = Node::racing().with(|state| state.memory.reinit = true);
    assert_eq!(racing.concludes().0, Rung::Race);
    // And the wish stands for the next leader, unless that is this node.
    let mut next = Node::standby().with(|state| state.memory.reinit = true);
    assert!(next.wants().contains(&Action::Postgres(PostgresAction::Stop(StopMode::Immediate))));
    let stopped = Node::standby().with(|state| state.memory.reinit = true).dead();
    assert_eq!(stopped.concludes().1, "reinit_requested");
    let mut led = led_by("c", 300);
    led.leader = Some(leader("c", crate::id::LeaseId(9), Revision(300)));
    next.step(watched(&next, led));
    assert_eq!(next.concludes().1, "reinit_requested");
    let mut won = Node::primary().with(|state| state.memory.reinit = true);
    won.tick();
    assert!(!won.state.memory.reinit);
    assert_eq!(won.concludes().1, "tenure_held");
}

#[test]
fn an_agent_that_looks_for_its_tenure_is_not_cloned() {
    let mut node = Node::primary().with(|state| state.tenure = Tenure::Adopting { deadline: at(9_000) });
    let effects = node.step(Event::Operator(RequestId(1), Request::Reinitialize { force: true, from_leader: false }));
    let told = answers(&effects).remove(&RequestId(1));
    assert!(matches!(told, Some(crate::action::Answer::Text { status: 503, .. })), "{told:?}");
}

/// The bug: a crashed primary was recovered by itself before anybody had compared it. The checkpoint that ends a
/// recovery is WAL that the leader does not have: who had held everything had diverged, and waited for an operator.
#[test]
fn a_crashed_primary_is_compared_before_it_is_touched_and_starts_as_a_standby_if_it_holds_no_more() {
    for use_pg_rewind in [true, false] {
        for state in [ControlState::InProduction, ControlState::ShuttingDown, ControlState::InCrashRecovery] {
            let mut node = Node::standby().dead().dir(primary_dir(state)).config(|config| {
                config.use_pg_rewind = use_pg_rewind;
                config.clone_when_diverged = true;
            });
            let compare = Action::Postgres(PostgresAction::Compare(upstream("b")));
            assert_eq!(node.wants(), [compare], "{state:?}");
            node.tick();
            ended(&mut node, Outcome::Done(PostgresDone::Compared(None)));
            let start = Action::Postgres(PostgresAction::Start(StartAs::Standby(Some(upstream("b")))));
            assert_eq!(node.wants(), [start], "{state:?}");
        }
    }
}

/// The bug: a standby had received more than it had replayed when it was compared. Started, it replayed beyond where
/// the leader's history parts from that, could not stream, and was never compared again.
#[test]
fn a_standby_that_does_not_stream_is_compared_again_whatever_was_found_before_it_ran() {
    let compare = Action::Postgres(PostgresAction::Compare(upstream("b")));
    let mut deaf = standby_sql(Some("b"));
    deaf.receiver = None;
    let silent = |node: Node| node.sql(deaf.clone());
    let mut node = Node::standby().with(|state| {
        state.memory.compared = Some((THEIR_EPOCH, None));
        state.memory.compared_at = Some(at(0).back(millis(500)));
    });
    assert_eq!(silent(node.clone()).later(2_999).concludes().0, Rung::Follow);
    node = silent(node).later(3_000);
    node.state.store.answered = node.now;
    assert_eq!(node.wants(), std::slice::from_ref(&compare));
    node.tick();
    ended(&mut node, Outcome::Done(PostgresDone::Compared(None)));
    // Found once more that it has not diverged, it is not asked as fast as it answers.
    assert_eq!(silent(node.clone()).later(59_999).concludes().0, Rung::Follow);
    node = silent(node).later(60_000);
    assert_eq!(node.wants(), [compare]);
    node.tick();
    ended(&mut node, Outcome::Done(PostgresDone::Compared(Some(Lsn(0x200_0000)))));
    assert_eq!(node.concludes(), (Rung::Rewind, "diverged", Fate::Keep));
    assert_eq!(node.wants(), [Action::Postgres(PostgresAction::Stop(StopMode::Fast))]);
}
