//! Holding writes: what is held is the processes that lived then.

use crate::action::{Action, GuardAction};
use crate::event::{Event, GuardEvent, PostgresEvent};
use crate::id::Pid;
use crate::testing::*;
use crate::view::postgres::{Phase, Process};

const HOLD: Action = Action::Guard(GuardAction::Hold);

/// The race: an isolated primary dies as it is being held, and is started again in place. Nobody stopped the newborn.
#[test]
fn a_postmaster_that_was_started_after_the_hold_is_held_too() {
    let mut node = Node::primary().later(3_000);
    assert!(actions(&node.tick()).contains(&HOLD));
    node.step(Event::Guard(GuardEvent::Held));
    assert!(!actions(&node.tick()).contains(&HOLD));
    let newborn = Process::Alive { pid: Pid(4242), phase: Phase::Starting };
    let effects = node.step(Event::Postgres(PostgresEvent::ProcessSeen(newborn)));
    assert!(actions(&effects).contains(&HOLD));
    node.step(Event::Guard(GuardEvent::Held));
    assert!(!actions(&node.tick()).contains(&HOLD));
}
