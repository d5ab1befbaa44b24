//! What events leave behind: what is believed afterwards, and what is not.

use crate::action::{Action, HostAction, Lane};
use crate::event::{Event, HostEvent, PostgresDone, PostgresEvent};
use crate::id::Revision;
use crate::lease::Tenure;
use crate::op::{Outcome, Refusal};
use crate::state::Pledge;
use crate::testing::*;

fn ended(node: &Node, outcome: Outcome<PostgresDone>) -> Event {
    Event::Postgres(PostgresEvent::Completed { op: node.op(&Lane::PgControl), outcome })
}

/// What runs beside an agent that only observed may be a primary that leads by a tenure of this node.
#[test]
fn an_agent_that_need_not_observe_any_more_looks_for_its_tenure_as_after_a_start() {
    let observing = |observes: bool| observes.then(|| "pause".into());
    let configured = |before: bool, after: bool, tenure: Tenure| {
        let mut node = Node::primary().config(|config| config.unsupported = observing(before));
        node = node.cluster(|cluster| cluster.leader = None).with(|state| state.tenure = tenure);
        let config = crate::config::Config { unsupported: observing(after), loop_wait: seconds(3), ..config() };
        node.step(Event::Configured(config));
        assert_eq!(node.state.config.loop_wait, seconds(3));
        node.state.tenure
    };
    let looks = Tenure::Adopting { deadline: at(10_000) };
    assert_eq!(configured(true, false, Tenure::None), looks);
    let held = Node::primary().state.tenure;
    for (before, after, tenure) in [(true, false, held), (true, true, Tenure::None), (false, false, Tenure::None)] {
        assert_eq!(configured(before, after, tenure.clone()), tenure);
    }
}

/// Nobody knows what came of the first: a second one that is refused does not take it back.
#[test]
fn a_promotion_that_ended_without_an_answer_may_come_to_pass_whatever_becomes_of_the_next() {
    let promoting = || Node::standby().with(|state| state.memory.promotion = true).doing(promotion(), 0);
    let refused = |mut node: Node| {
        node = node.doing(promotion(), 0);
        node.step(ended(&node, Outcome::Refused(Refusal::Failed("not in recovery".into()))));
        node.view().may_write()
    };
    let mut overdue = promoting().later(3_600_000);
    let op = overdue.op(&Lane::PgControl);
    crate::absorb::overdue(&mut overdue.state, overdue.now, op);
    assert!(refused(overdue));
    let mut stopped = promoting();
    let stopping = stopped.state.ops.cancel(&Lane::PgControl).expect("a stop takes its lane");
    crate::absorb::cancelled(&mut stopped.state, &stopping);
    assert!(refused(stopped));
    assert!(!refused(Node::standby().with(|state| state.memory.promotion = true)));
}

#[test]
fn a_pledge_is_on_disk_when_this_one_was_written() {
    let pledge = Pledge { absent_at: Revision(101), since: at(0), frozen: true, on_disk: false };
    let written = |promised, outcome| {
        let mut node = Node::racing().with(|state| state.pledge = Some(pledge));
        node = node.doing(Action::Host(HostAction::WritePledge(promised)), 0);
        node.step(Event::Host(HostEvent::Completed { op: node.op(&Lane::Host), outcome }));
        (node.view().has_pledged(), node.state.memory.failed.contains_key("host"))
    };
    assert_eq!(written(Some(Revision(101)), Outcome::Done(())), (true, false));
    assert_eq!(written(Some(Revision(90)), Outcome::Done(())), (false, false), "an earlier one");
    assert_eq!(written(Some(Revision(101)), Outcome::Unknown("disk full".into())), (false, true));
}
