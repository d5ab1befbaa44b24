//! What every step does beside deciding: what it remembers, what it keeps back, what it tells, and what must hold after.

use crate::action::{Action, GuardAction, HostAction, PeerAction, PostgresAction, StoreAction};
use crate::config::RETRY_PAUSE;
use crate::event::{Event, PostgresEvent};
use crate::id::{RequestId, Revision};
use crate::lease::{Held, Tenure};
use crate::reason::Reason;
use crate::state::{Pending, PendingKind, Pledge, REQUESTS_MAX, State};
use crate::testing::*;
use crate::time::{Duration, Instant};
use crate::view::guard::Armed;
use crate::view::postgres::{ControlState, Phase};

/// What is remembered after a step by the clock alone.
fn after(mut node: Node) -> State {
    node.tick();
    node.state
}

fn winner() -> Node {
    Node::primary().dir(standby_dir()).sql(standby_sql(None))
}

#[test]
fn what_the_disk_did_under_an_earlier_tenure_is_forgotten_with_the_first_step_of_this_one() {
    let failing = |node: Node, held_since: Option<Instant>| {
        let state = after(node.with(|state| {
            (state.memory.epoch_failing, state.memory.held_since) = (Some(at(0)), held_since);
        }));
        (state.memory.epoch_failing.is_some(), state.memory.held_since)
    };
    assert_eq!(failing(Node::primary().later(5), None), (false, Some(at(5))));
    assert_eq!(failing(Node::primary().later(5), Some(at(1))), (true, Some(at(1))));
    assert_eq!(failing(Node::standby(), Some(at(1))), (true, None));
}

#[test]
fn who_gives_up_because_it_cannot_serve_or_has_no_guard_stands_back_for_a_while() {
    let gives_up = |node: Node| {
        let state = after(node);
        (state.memory.gave_up.is_some(), state.memory.giving_up)
    };
    let failed = Node::primary().dead().with(|state| state.memory.start_failures = 3);
    assert_eq!(failed.concludes().1, "cannot_serve");
    assert_eq!(gives_up(failed), (true, true));
    let unguarded = Node::primary().with(|state| {
        (state.guard.present, state.guard.armed, state.guard.gone) = (false, None, Some(at(0).back(seconds(1))));
    });
    assert_eq!(unguarded.concludes().1, "guard_missing");
    assert_eq!(gives_up(unguarded), (true, false));
    let leaving = Node::handing_over().cluster(|cluster| cluster.failover = None);
    let leaving = leaving.with(|state| (state.leaving, state.store.answered) = (true, at(5_000))).later(5_000);
    assert_eq!(leaving.concludes().1, "releasing_to_nobody");
    assert_eq!(gives_up(leaving), (false, false), "it could serve");
    assert_eq!(gives_up(Node::primary()), (false, false));
    // A wish to give up ends with the tenure.
    assert_eq!(gives_up(Node::standby().with(|state| state.memory.giving_up = true)), (false, false));
    assert!(gives_up(winner().with(|state| state.memory.giving_up = true)).1);
}

#[test]
fn who_leads_is_not_to_be_cloned_and_a_promotion_is_counted_until_it_serves() {
    let node = |node: Node| {
        let state = after(node.with(|state| {
            let memory = &mut state.memory;
            (memory.reinit, memory.promoting_since, memory.promotions_refused) = (true, Some(at(0)), 2);
        }));
        (state.memory.reinit, state.memory.promoting_since, state.memory.promotions_refused)
    };
    assert_eq!(node(Node::primary()), (false, None, 0));
    assert_eq!(node(winner()), (false, Some(at(0)), 2));
    assert_eq!(node(Node::standby()), (true, None, 0));
    assert!(!after(Node::standby()).memory.reinit, "nobody asked for it");
}

#[test]
fn a_server_drains_since_it_was_first_seen_to() {
    let drained = |node: Node, since: Option<Instant>| {
        after(node.later(5).with(|state| state.memory.drained_since = since)).memory.drained_since
    };
    let drains = || Node::primary().phase(Phase::Stopping).dir(primary_dir(ControlState::ShutDown));
    assert_eq!((drained(drains(), None), drained(drains(), Some(at(1)))), (Some(at(5)), Some(at(1))));
    assert_eq!(drained(drains().dir(primary_dir(ControlState::ShuttingDown)), Some(at(1))), None);
    assert_eq!(drained(drains().phase(Phase::Ready), Some(at(1))), None);
}

#[test]
fn sessions_linger_since_they_were_first_seen_to() {
    let lingering = |node: Node, since: Option<Instant>| {
        after(node.later(5).with(|state| state.memory.lingering_since = since)).memory.lingering_since
    };
    let lingers = || Node::primary().phase(Phase::Stopping).dir(primary_dir(ControlState::InProduction));
    assert_eq!((lingering(lingers(), None), lingering(lingers(), Some(at(1)))), (Some(at(5)), Some(at(1))));
    assert_eq!(lingering(lingers().dir(primary_dir(ControlState::ShuttingDown)), Some(at(1))), None);
}

#[test]
fn a_race_that_came_to_no_end_begins_anew_after_a_second() {
    let pause = u64::try_from(RETRY_PAUSE.as_millis()).expect("it is short");
    let round = |ms: u64| {
        let mut node = Node::racing().config(|config| config.nofailover = true);
        node.set_cluster(cluster(140));
        after(node.later(ms)).memory.race
    };
    assert_eq!(round(pause - 1), Some((Revision(101), at(0))));
    assert_eq!(round(pause), Some((Revision(140), at(pause))));
}

#[test]
fn a_pledge_that_no_race_brought_to_an_end_is_over_after_a_while_once_somebody_leads() {
    let pledged = |node: Node, ms: u64| {
        let pledge = Pledge { absent_at: Revision(900), since: at(0), frozen: false, on_disk: true };
        after(node.later(ms).with(|state| state.pledge = Some(pledge))).pledge.is_some()
    };
    assert!(pledged(Node::standby(), 19_999) && !pledged(Node::standby(), 20_000));
    assert!(pledged(Node::racing(), 20_000), "whoever wins is behind what it promised");
}

#[test]
fn a_decision_is_news_when_another_rung_or_another_reason_concludes() {
    let mut node = Node::primary().phase(Phase::Starting);
    assert!(node.tick().decision.is_some());
    node = node.later(10);
    assert_eq!(node.tick().decision, None, "only what has passed is more");
    let ready = node.step(Event::Postgres(PostgresEvent::ProcessSeen(alive(Phase::Stopping))));
    assert!(ready.decision.is_some());
    let waits = |reason: Reason| {
        let mut node = Node::standby();
        let (rung, _) = node.decide();
        node.state.decision = Some(crate::effects::Decision { rung, reason });
        node.tick().decision.is_some()
    };
    let (_, verdict) = Node::standby().decide();
    assert!(waits(Reason::Observing) && !waits(verdict.reason));
}

#[test]
fn what_found_no_room_in_a_step_finds_it_in_a_millisecond() {
    let answering = |requests: u64| {
        let mut node = Node::standby();
        for id in 0..requests {
            let kind = PendingKind::Restarted { refused: None };
            node.state.requests.insert(RequestId(id), Pending { kind, since: node.now });
        }
        let effects = node.tick();
        (effects.orders.len(), effects.wake.at == Some(at(1)))
    };
    let most = crate::effects::ORDERS_MAX;
    assert_eq!(answering(most as u64 - 1), (most - 1, false));
    assert_eq!((answering(most as u64), answering(most as u64 + 1)), ((most, true), (most, true)));
}

#[test]
fn a_tenure_that_lapses_has_the_rest_decided_in_a_microsecond() {
    let mut node = winner().later(29_700);
    assert_eq!(node.tick().wake.at, Some(node.now + Duration::from_micros(1)));
    assert_eq!((&node.state.tenure, node.state.spent), (&Tenure::None, Some(OURS)));
    assert_ne!(node.tick().wake.at, Some(node.now + Duration::from_micros(1)), "it is over");
}

#[test]
fn only_a_question_for_contact_is_one() {
    let sought = |ms: u64| after(Node::primary().later(ms)).memory.contact_sought;
    assert_eq!((sought(2_300), sought(2_500)), (Instant::ZERO, at(2_500)));
}

#[test]
fn what_was_begun_is_remembered_of_it() {
    let promoting = after(winner().with(|state| state.memory.promoting_since = None)).memory;
    assert_eq!((promoting.promotion, promoting.promoting_since), (true, Some(at(0))));
    let starting =
        |node: Node, before: bool| after(node.with(|state| state.memory.as_standby = before)).memory.as_standby;
    assert!(starting(Node::stopped().cluster(|c| c.leader = None).later(3_000).with(leaderless), false));
    assert!(!starting(Node::primary().dead(), true));
}

fn leaderless(state: &mut State) {
    (state.memory.race, state.memory.leaderless, state.config.nofailover) = (None, leaderless_since(at(0)), true);
}

/// The order is given when the pause after its failure is over, and not before.
fn assert_pause(node: &Node, kind: &'static str, pause: Duration, wanted: fn(&Action) -> bool) {
    let ordered = |ago: Duration| {
        let mut node = node.clone();
        node.state.memory.failed.insert(kind.into(), node.now.back(ago));
        actions(&node.tick()).iter().any(wanted)
    };
    assert!(ordered(pause), "{kind}");
    assert!(pause == Duration::ZERO || !ordered(pause.saturating_sub(Duration::from_nanos(1))), "{kind}");
}

#[test]
fn what_decides_over_leading_is_tried_again_soon_and_the_rest_less_often() {
    let [soon, later] = [millis(50), millis(200)];
    assert_pause(&Node::primary().later(10_000), "renew", soon, |action| {
        matches!(action, Action::Store(StoreAction::Renew { .. }))
    });
    assert_pause(&Node::racing(), "lead", soon, |action| {
        matches!(action, Action::Store(StoreAction::GrantTenure { .. }))
    });
    assert_pause(&Node::standby().later(10_000), "read", later, |action| *action == Action::Store(StoreAction::Read));
    assert_pause(&Node::standby().config(|config| config.nofailover = true), "publish", later, |action| {
        matches!(action, Action::Store(StoreAction::PutMember { .. }))
    });
    assert_pause(&Node::standby().later(10_000), "observe", soon, |action| {
        *action == Action::Postgres(PostgresAction::Observe)
    });
    let receives = Node::racing().sql(standby_sql(Some("b")));
    assert_pause(&receives, "freeze", soon, |action| *action == Action::Postgres(PostgresAction::Freeze));
    assert_pause(&winner(), "control", RETRY_PAUSE, |action| {
        matches!(action, Action::Postgres(PostgresAction::Promote { .. }))
    });
    let unwritten = winner().with(|state| state.epoch_file = None);
    assert_pause(&unwritten, "host", RETRY_PAUSE, |action| matches!(action, Action::Host(HostAction::WriteEpoch(_))));
    let unarmed = Node::primary().with(|state| state.guard.armed = None);
    assert_pause(&unarmed, "guard", soon, |action| matches!(action, Action::Guard(GuardAction::Arm { .. })));
    let expired = Node::primary().later(29_700);
    assert_pause(&expired, "fire", soon, |action| *action == Action::Guard(GuardAction::Fire));
    assert_pause(&Node::handing_over(), "await", millis(20), |action| {
        matches!(action, Action::Peer(PeerAction::AwaitReplay { .. }))
    });
    assert_pause(&Node::primary().later(2_500), "peer", Duration::ZERO, |action| {
        matches!(action, Action::Peer(PeerAction::AskStatus { .. }))
    });
}

#[test]
fn an_order_to_the_guard_is_given_once_and_only_to_one_that_is_there() {
    let fires = |change: fn(&mut State)| {
        let mut node = Node::primary().later(29_700).with(change);
        actions(&node.tick()).contains(&Action::Guard(GuardAction::Fire))
    };
    assert!(fires(|_| ()) && !fires(|state| state.guard_asked.fire = Some(at(0))));
    assert!(!fires(|state| state.guard.present = false));
    let arms = |asked: Option<Armed>| {
        let mut node = Node::primary().with(|state| (state.guard.armed, state.guard_asked.arm) = (None, asked));
        actions(&node.tick()).iter().any(|action| matches!(action, Action::Guard(GuardAction::Arm { .. })))
    };
    let due = Node::primary().state.guard.armed.expect("it is armed");
    assert!(arms(None) && arms(Some(Armed { at: at(1), ..due })) && !arms(Some(due)));
    let holds = |held: bool, doubt: bool, asked: bool| {
        let mut node = Node::primary().later(3_000).with(|state| {
            (state.guard.held, state.guard.hold_in_doubt, state.guard_asked.hold) = (held, doubt, asked);
        });
        actions(&node.tick()).contains(&Action::Guard(GuardAction::Hold))
    };
    assert!(holds(false, false, false) && holds(true, true, false) && !holds(true, false, false));
    assert!(!holds(false, false, true));
}

#[test]
fn a_key_is_written_again_only_once_the_keys_were_seen_after_it_was() {
    let writes = |written: i64| {
        let mut node = Node::primary().cluster(|cluster| cluster.config_revision = Revision(0));
        node.state.memory.written = Revision(written);
        actions(&node.tick())
            .iter()
            .any(|action| matches!(action, Action::Store(StoreAction::CompleteInitialize { .. })))
    };
    assert_eq!([99, 100, 101].map(writes), [true, false, false]);
}

#[test]
fn an_agent_that_only_observes_writes_its_record_only_if_it_leads() {
    let writes = |node: Node, observes: bool| {
        let mut node = node.config(|config| config.nofailover = true);
        node.state.config.unsupported = observes.then(|| "pause".into());
        actions(&node.tick()).iter().any(|action| matches!(action, Action::Store(StoreAction::PutMember { .. })))
    };
    assert!(writes(Node::standby(), false) && !writes(Node::standby(), true));
    assert!(writes(Node::primary(), false) && writes(Node::primary(), true));
}

#[test]
fn a_step_that_would_go_on_from_a_state_that_cannot_be_does_not_return() {
    let going_on = |change: fn(&mut State)| {
        let node = Node::primary().with(change);
        std::panic::catch_unwind(|| node.state.check()).is_ok()
    };
    assert!(going_on(|_| ()));
    assert!(!going_on(|state| state.spent = Some(OURS)));
    assert!(!going_on(|state| state.memory.reinit = true));
    assert!(!going_on(|state| {
        let (lease, epoch, confirmed) = (OURS, EPOCH, at(0));
        state.tenure = Tenure::Held(Held { lease, epoch, confirmed, ttl: Duration::ZERO });
    }));
    let checks = |tenure| {
        let node = Node::primary().with(|state| state.guard.armed = Some(Armed { tenure, at: at(29_691) }));
        std::panic::catch_unwind(|| node.state.check()).is_ok()
    };
    assert!(!checks(OURS) && checks(THEIRS), "what it was armed for before this tenure is history");
}

#[test]
fn more_requests_than_can_wait_are_not_admitted() {
    let mut node = Node::standby();
    for id in 0..REQUESTS_MAX as u64 {
        assert!(node.state.admits_request(), "{id}");
        let kind = PendingKind::Restarted { refused: None };
        node.state.requests.insert(RequestId(id), Pending { kind, since: node.now });
    }
    assert!(!node.state.admits_request() && node.state.admits_question());
}

#[test]
fn an_operation_is_late_at_its_deadline_and_no_other_ends_with_it() {
    let mut node = Node::standby().doing(Action::Postgres(PostgresAction::Observe), 0);
    node = node.doing(Action::Store(StoreAction::Read), 0);
    let op = node.op(&crate::action::Lane::Observe);
    assert_ne!(op, node.op(&crate::action::Lane::PgObserve), "each has a number of its own");
    let deadline = at(3_600_000);
    assert_eq!(node.state.ops.overdue(deadline.back(Duration::from_nanos(1))).len(), 0);
    assert_eq!(node.state.ops.overdue(deadline).len(), 2);
    assert_eq!(node.state.ops.end(op).map(|ended| ended.op), Some(op));
    assert!(node.state.ops.end(op).is_none() && node.state.ops.iter().count() == 1);
    assert_eq!(node.state.ops.stale, 1);
    assert!(node.state.ops.end(crate::id::OpId::UNASKED).is_none());
    assert_eq!(node.state.ops.stale, 1, "nobody asked for it, nobody is late");
}
