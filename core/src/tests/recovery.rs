//! A crashed server that recovers, or does not, before anything is decided on what it holds.

use crate::action::{Action, Lane, PostgresAction};
use crate::effects::Effects;
use crate::event::{Event, PostgresDone, PostgresEvent};
use crate::id::Lsn;
use crate::op::{Outcome, Refusal};
use crate::testing::*;
use crate::view::postgres::ControlState;

fn ended(node: &Node, outcome: Outcome<PostgresDone>) -> Event {
    Event::Postgres(PostgresEvent::Completed { op: node.op(&Lane::PgControl), outcome })
}

/// The bug: a parameter of the server was misspelt, the crash recovery failed for it, that passed for a failed rewind,
/// and the directory was given up for a clone.
#[test]
fn a_crash_recovery_that_fails_costs_no_data_directory() {
    let recover = Action::Postgres(PostgresAction::RecoverSingleUser);
    let clones = |effects: &Effects| {
        actions(effects).iter().any(|action| matches!(action, Action::Postgres(PostgresAction::Clone(_))))
    };
    let mut node = Node::standby().dead().dir(primary_dir(ControlState::InProduction));
    node.state.memory.compared = Some((THEIR_EPOCH, Some(Lsn(0x200_0000))));
    assert!(actions(&node.tick()).contains(&recover));
    for outcome in [Outcome::Refused(Refusal::Failed("errors".into())), Outcome::Unknown("?".into())] {
        let effects = node.step(ended(&node, outcome));
        assert_eq!(node.concludes().1, "recovery_failed");
        assert_eq!(node.state.memory.rewind_failed, None);
        assert!(!clones(&effects) && !actions(&effects).contains(&recover));
        node = node.later(10_000);
        let effects = node.tick();
        assert!(actions(&effects).contains(&recover) && !clones(&effects), "{effects:?}");
    }
    let effects = node.step(ended(&node, Outcome::Done(PostgresDone::Done)));
    assert_eq!(node.state.memory.recovery_failed, None);
    assert!(!clones(&effects));
}
