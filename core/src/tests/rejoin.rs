//! How a node comes back to a cluster: cloned by an operator's wish, compared, rewound.

use super::races::watched;
use crate::action::{Action, Lane, PostgresAction};
use crate::decide::Rung;
use crate::event::{Event, PostgresDone, PostgresEvent, Request};
use crate::id::{RequestId, Revision};
use crate::lease::Tenure;
use crate::op::{Outcome, Refusal};
use crate::testing::*;
use crate::view::postgres::StopMode;

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
