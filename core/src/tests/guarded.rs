//! What the guard says, and what it may have done before it could say so.

use crate::action::{Action, StoreAction};
use crate::config::GUARD_LIMIT;
use crate::event::{Event, GuardEvent};
use crate::id::LeaseId;
use crate::lease::{Held, Tenure};
use crate::state::State;
use crate::testing::*;
use crate::view::guard::Armed;
use crate::view::postgres::Process;

const EARLIER: LeaseId = LeaseId(3);

fn connected(armed: Option<Armed>, fired: Option<LeaseId>) -> Event {
    Event::Guard(GuardEvent::Connected { armed, held: false, fired })
}

fn after(change: impl FnOnce(&mut State), event: Event) -> Node {
    let mut node = Node::primary().with(change);
    node.step(event);
    node
}

fn suspended(state: &mut State) {
    let was = Held { lease: OURS, epoch: EPOCH, ttl: seconds(30), confirmed: at(0) };
    state.tenure = Tenure::Suspended { was, since: at(0) };
    state.store.cluster.as_mut().expect("it was seen").value.leader = None;
}

fn adopting(state: &mut State) {
    state.tenure = Tenure::Adopting { deadline: at(9_000) };
}

/// The last guard, or the connection to it, may have been lost between an order to hold and its answer.
#[test]
fn what_was_held_or_may_be_is_held_as_far_as_is_known_when_a_guard_connects() {
    let holds = |change: fn(&mut State)| {
        let guard = after(change, connected(None, None)).state.guard;
        (guard.held, guard.hold_in_doubt)
    };
    assert_eq!(holds(|_| ()), (false, false));
    assert_eq!(holds(|state| state.guard.held = true), (true, false));
    assert_eq!(holds(|state| state.guard_asked.hold = true), (true, true));
    assert_eq!(holds(|state| (state.guard.held, state.guard.hold_in_doubt) = (true, true)), (true, true));
}

#[test]
fn a_guard_that_connects_has_its_time_to_acknowledge() {
    let mut node = Node::primary().with(|state| state.memory.held_since = Some(at(0))).later(5_000);
    node.step(connected(None, None));
    let limit = u64::try_from(GUARD_LIMIT.as_millis()).expect("it is short");
    assert_ne!(node.clone().later(limit - 1).concludes().1, "guard_silent");
    assert_eq!(node.later(limit).concludes().1, "guard_silent");
}

/// What the agent before this one was promised bounds how long its PostgreSQL may go on.
#[test]
fn a_guard_that_is_armed_ends_the_search_for_a_tenure_at_its_instant() {
    let armed = Armed { tenure: OURS, at: at(4_000) };
    let node = after(adopting, connected(Some(armed), None));
    assert_eq!((node.state.tenure, node.state.guard.armed), (Tenure::Adopting { deadline: at(4_000) }, Some(armed)));
    let held = Node::primary().state.tenure;
    assert_eq!(after(|_| (), connected(Some(armed), None)).state.tenure, held);
}

#[test]
fn a_tenure_that_the_guard_fired_is_spent_and_no_other_is() {
    let fired = |tenure| Event::Guard(GuardEvent::Fired { tenure });
    let ends = |change: fn(&mut State), event: Event| {
        let state = after(change, event).state;
        (state.tenure == Tenure::None, state.spent == Some(OURS))
    };
    assert_eq!(ends(|_| (), fired(OURS)), (true, true));
    assert_eq!(ends(|_| (), fired(EARLIER)), (false, false));
    assert_eq!(ends(suspended, fired(EARLIER)), (true, true), "its processes were all that was held");
    assert!(ends(adopting, fired(EARLIER)).0);
    // Or while nobody listened.
    assert_eq!(ends(|_| (), connected(None, Some(OURS))), (true, true));
    assert_eq!(ends(|_| (), connected(None, Some(EARLIER))), (false, false));
    let again = Armed { tenure: OURS, at: at(9_000) };
    assert_eq!(ends(|_| (), connected(Some(again), Some(OURS))), (false, false), "it was armed since");
    let by_hand = |state: &mut State| {
        adopting(state);
        let keys = &mut state.store.cluster.as_mut().expect("it was seen").value;
        keys.leader.as_mut().expect("somebody leads").lease = LeaseId(0);
    };
    assert_eq!(ends(by_hand, connected(None, Some(LeaseId(0)))), (false, false), "it was armed for nobody");
    // Another than the one whose key is there is history. What runs without that key was started since.
    assert_eq!(ends(adopting, connected(None, Some(EARLIER))), (false, false));
    assert_eq!(ends(adopting, connected(None, Some(OURS))), (true, true));
    let keyless = |state: &mut State| {
        adopting(state);
        state.store.cluster.as_mut().expect("it was seen").value.leader = None;
    };
    assert_eq!(ends(keyless, connected(None, Some(OURS))), (false, false));
}

/// The bug: an agent that starts is told of its guard before it knows any key. One whose guard had once fired another tenure
/// took its own for spent, and killed in a pause what it led.
#[test]
fn what_the_guard_fired_before_is_known_by_the_key() {
    let starts = |fired: LeaseId| {
        let mut node = Node::primary().with(adopting);
        let keys = node.state.store.cluster.take().expect("it was seen");
        node.step(connected(None, Some(fired)));
        assert!(matches!(node.state.tenure, Tenure::Adopting { .. }), "nothing is known yet");
        node.step(Event::Store(crate::event::StoreEvent::Watched(keys)));
        (node.state.tenure == Tenure::None, node.state.spent == Some(fired))
    };
    assert_eq!((starts(EARLIER), starts(OURS)), ((false, false), (true, true)));
    // Or the search was over before there was any key: the store was away with its leases, which begin anew.
    let late = |event: Event| {
        let mut node = Node::primary().dead().with(adopting);
        let keys = node.state.store.cluster.take().expect("it was seen");
        node.step(event);
        node.state.tenure = Tenure::None;
        let ordered = actions(&node.step(Event::Store(crate::event::StoreEvent::Watched(keys))));
        (node.state.spent == Some(OURS), ordered.contains(&Action::Store(StoreAction::Revoke { lease: OURS })))
    };
    assert_eq!(late(connected(None, Some(OURS))), (true, true));
    assert_eq!(late(Event::Guard(GuardEvent::Fired { tenure: OURS })), (true, true));
}

#[test]
fn what_the_guard_fired_is_dead_to_the_last_process() {
    let node = after(|state| state.guard.held = true, Event::Guard(GuardEvent::Fired { tenure: OURS }));
    let facts = &node.state.guard;
    assert_eq!((node.state.postgres.process, node.state.postgres.orphans), (Process::Absent, Some(0)));
    assert_eq!((facts.held, facts.armed, node.state.memory.dead_since), (false, None, Some(at(0))));
}

#[test]
fn orphans_are_dead_only_while_no_postmaster_lives() {
    let dead = Event::Guard(GuardEvent::OrphansDead);
    assert_eq!(after(|_| (), dead.clone()).state.postgres.orphans, None);
    let absent = |state: &mut State| (state.postgres.process, state.postgres.sql) = (Process::Absent, None);
    assert_eq!(after(absent, dead).state.postgres.orphans, Some(0));
}

#[test]
fn an_order_to_the_guard_is_open_until_it_is_answered() {
    let open = |state: &mut State| {
        let asked = &mut state.guard_asked;
        (asked.hold, asked.resume, asked.disarm, asked.orphans) = (true, true, true, true);
        (asked.fire, asked.start) = (Some(at(0)), Some(at(0)));
    };
    let left = |event: GuardEvent| {
        let mut state = Node::standby().with(open).state;
        crate::absorb::absorb(&mut state, at(1), Event::Guard(event));
        let asked = &state.guard_asked;
        (asked.hold, asked.resume, asked.disarm, asked.orphans, asked.fire.is_some(), asked.start.is_some())
    };
    assert_eq!(left(GuardEvent::Held), (false, true, true, true, true, true));
    assert_eq!(left(GuardEvent::Resumed), (true, false, true, true, true, true));
    assert_eq!(left(GuardEvent::Disarmed), (true, true, false, true, true, true));
    assert_eq!(left(GuardEvent::OrphansDead), (true, true, true, false, true, true));
    assert_eq!(left(GuardEvent::Stuck { processes: 1 }), (false, true, true, false, true, true));
    let nothing = (false, false, false, false, false, false);
    assert_eq!(left(GuardEvent::Refused("no".into())), nothing);
    assert_eq!(left(GuardEvent::Gone), (false, false, false, false, false, true), "another is being started");
}

#[test]
fn an_order_to_fire_that_was_refused_is_not_repeated_at_once() {
    let refused = |asked: Option<crate::time::Instant>| {
        let state = after(|state| state.guard_asked.fire = asked, Event::Guard(GuardEvent::Refused("no".into()))).state;
        (state.memory.failed.contains_key("fire"), state.memory.failed.contains_key("guard"))
    };
    assert_eq!((refused(Some(at(0))), refused(None)), ((true, true), (false, true)));
}
