//! What operators' requests come to: each is answered once, whatever becomes of what it asks for.

use crate::action::{Action, Answer, Lane, PeerAction, PostgresAction, StoreAction};
use crate::event::{Event, MoveRequest, Request, RestartConditions, Schedule, ScheduledRestart, StoreDone, StoreEvent};
use crate::id::{LeaseId, Member, RequestId, Revision};
use crate::lease::Tenure;
use crate::op::{Outcome, Refusal};
use crate::testing::*;
use crate::time::{Seen, WallMillis};
use crate::view::postgres::{Phase, Sql, StopMode};
use crate::view::store::ClusterView;

use super::races::watched;

#[test]
fn a_restart_that_loses_its_lane_is_answered() {
    let mut node = Node::primary();
    let effects = node.step(Event::Operator(RequestId(1), Request::Restart));
    assert!(actions(&effects).contains(&Action::Postgres(PostgresAction::Restart)));
    // Another leads: the restart must not bring a primary up again.
    let told = answers(&node.step(watched(&node, led_by("b", 101))));
    assert_eq!(told.get(&RequestId(1)), Some(&Answer::Text { status: 503, body: "restart failed".into() }));
}

/// The bug: the shutdown checkpoint of a restart took half a minute, in which nobody served.
#[test]
fn a_primary_writes_a_checkpoint_before_it_is_restarted() {
    const CHECKPOINT: Action = Action::Postgres(PostgresAction::Checkpoint);
    let mut node = Node::primary().with(|state| state.memory.checkpointed = None);
    let effects = node.step(Event::Operator(RequestId(1), Request::Restart));
    assert!(actions(&effects).contains(&CHECKPOINT) && !actions(&effects).contains(&RESTART));
    assert!(answers(&effects).is_empty(), "it comes after the checkpoint");
    assert_eq!(node.concludes(), (crate::decide::Rung::Leader, "checkpoint_before_stop", crate::decide::Fate::Keep));
    node = node.later(1_000);
    assert!(answers(&node.tick()).is_empty());
    let op = node.state.ops.in_lane(&Lane::PgControl).expect("the checkpoint is being written").op;
    let outcome = Outcome::Done(crate::event::PostgresDone::Done);
    let effects = node.step(Event::Postgres(crate::event::PostgresEvent::Completed { op, outcome }));
    assert!(actions(&effects).contains(&RESTART), "{effects:?}");
}

/// The bug: the order to restart waited for the end of a pause after the checkpoint had failed, and by then the operator had
/// been told that nothing came of it.
#[test]
fn a_checkpoint_that_fails_keeps_no_restart_waiting() {
    let mut node = Node::primary().with(|state| state.memory.checkpointed = None);
    node.step(Event::Operator(RequestId(1), Request::Restart));
    node = node.later(1_000);
    let op = node.state.ops.in_lane(&Lane::PgControl).expect("the checkpoint is being written").op;
    node.state.requests.values_mut().for_each(|pending| pending.since = at(0).back(seconds(60)));
    let outcome = Outcome::Unknown("no answer".into());
    let effects = node.step(Event::Postgres(crate::event::PostgresEvent::Completed { op, outcome }));
    assert!(actions(&effects).contains(&RESTART) && answers(&effects).is_empty(), "{effects:?}");
    assert_eq!(node.state.memory.checkpoint_written, None);
}

/// The bug: whose checkpoint took longer than a restart may be late was forgotten.
#[test]
fn a_scheduled_restart_that_has_begun_is_not_missed() {
    let mut node = Node::primary().with(|state| state.memory.checkpointed = None);
    told(&mut node, Request::ScheduleRestart(wanted(500)));
    assert!(!actions(&passes(&mut node, 500)).contains(&RESTART));
    node = node.later(16_000);
    node.tick();
    assert!(node.state.scheduled_restart.is_some(), "its checkpoint is being written");
}

#[test]
fn a_restart_that_no_rung_takes_up_is_answered_in_the_end() {
    let mut node = Node::racing().config(|config| config.nofailover = true);
    node.step(Event::Operator(RequestId(1), Request::Restart));
    node = node.later(20_000);
    assert_eq!(answers(&node.tick()).len(), 1);
    assert!(node.state.requests.is_empty());
}

#[test]
fn answers_that_find_no_room_in_a_step_are_given_in_the_next() {
    let mut node = Node::standby();
    for id in 0..30 {
        node.state.requests.insert(
            RequestId(id),
            crate::state::Pending { kind: crate::state::PendingKind::Restarted { refused: None }, since: node.now },
        );
    }
    let mut told = std::collections::BTreeMap::new();
    for _ in 0..3 {
        let effects = node.step(Event::Ticked(WallMillis(0)));
        told.extend(answers(&effects));
        assert!(effects.orders.len() <= crate::effects::ORDERS_MAX);
        node = node.later(1);
    }
    assert_eq!(told.len(), 30);
}

fn asks(leader: Option<&str>, candidate: Option<&str>, switchover: bool) -> Request {
    Request::Move(MoveRequest {
        switchover,
        leader: leader.map(Member::new),
        candidate: candidate.map(Member::new),
        scheduled_at: None,
        refused: false,
    })
}

/// The answer that a request gets in the same step.
fn at_once(mut node: Node, request: Request) -> Option<(u16, String)> {
    let effects = node.step(Event::Operator(RequestId(1), request));
    match answers(&effects).remove(&RequestId(1)) {
        Some(Answer::Text { status, body }) => Some((status, body)),
        _ => None,
    }
}

#[test]
fn what_can_be_refused_at_once_is_refused_in_the_words_of_the_contract() {
    let node = Node::primary;
    let cases = [
        (asks(None, None, false), 400, "Failover could be performed only to a specific candidate"),
        (asks(None, Some("b"), true), 400, "Switchover could be performed only from a specific leader"),
        (asks(Some("a"), Some("a"), true), 400, "Switchover target and source are the same"),
        (asks(Some("b"), Some("c"), true), 412, "leader name does not match"),
        (asks(Some("a"), Some("z"), true), 412, "candidate does not exists"),
        (Request::Reinitialize { force: true, from_leader: false }, 503, "I am the leader, can not reinitialize"),
    ];
    for (request, status, body) in cases {
        assert_eq!(at_once(node(), request), Some((status, body.to_owned())));
    }
    let alone = || node().cluster(|cluster| cluster.members.retain(|name, _| name.as_str() == "a"));
    let body = "switchover is not possible: cluster does not have members except leader";
    assert_eq!(at_once(alone(), asks(Some("a"), None, true)), Some((412, body.to_owned())));
    let observing = Node::standby().config(|config| config.unsupported = Some("synchronous_mode".into()));
    let reinitialize = Request::Reinitialize { force: true, from_leader: false };
    let told = at_once(observing, reinitialize).map(|(status, _)| status);
    assert_eq!(told, Some(503), "it would be done when the mode is left");
    let body = "Cluster has no leader, can not reinitialize";
    assert_eq!(
        at_once(Node::racing(), Request::Reinitialize { force: true, from_leader: false }),
        Some((503, body.to_owned()))
    );
    let body = "postgres is still starting";
    assert_eq!(at_once(node().phase(Phase::Starting), Request::Restart), Some((503, body.to_owned())));
    let body = "leadership is being handed over to this node, can not reinitialize";
    let vouched = |ago_ms: u64| {
        let node = Node::standby();
        let announced = node.now.back(crate::time::Duration::from_millis(ago_ms));
        let node = node.with(|state| state.memory.handover_announced = Some(announced));
        at_once(node, Request::Reinitialize { force: false, from_leader: false })
    };
    assert_eq!(vouched(9_999), Some((503, body.to_owned())));
    assert_eq!(vouched(10_000), Some((200, "reinitialize started".into())));
    let body = "reinitialize already in progress";
    let again = Node::standby().with(|state| state.memory.reinit = true);
    assert_eq!(
        at_once(again, Request::Reinitialize { force: false, from_leader: false }),
        Some((503, body.to_owned()))
    );
    assert_eq!(
        at_once(Node::standby(), Request::Reinitialize { force: false, from_leader: false }),
        Some((200, "reinitialize started".into()))
    );
}

#[test]
fn a_failover_to_the_leader_fails_and_nothing_untrue_is_said_of_the_cluster() {
    let failed = Some((503, "Failover failed".to_owned()));
    assert_eq!(at_once(Node::primary(), asks(None, Some("a"), false)), failed);
    assert_eq!(at_once(Node::standby(), asks(None, Some("b"), false)), failed, "asked of another member");
    let writes = |action: &Action| matches!(action, Action::Store(StoreAction::PutFailover { .. }));
    let mut node = Node::primary();
    let effects = node.step(Event::Operator(RequestId(1), asks(None, Some("a"), false)));
    assert!(!actions(&effects).iter().any(writes));
    // A member that does not say where it answers is a member all the same.
    let silent = Node::primary().cluster(|cluster| {
        cluster.members.get_mut(&Member::new("b")).unwrap().record.api_url.clear();
    });
    let body = "failover is not possible: no good candidates have been found";
    assert_eq!(at_once(silent, asks(None, Some("b"), false)), Some((412, body.to_owned())));
}

/// What was asked of a leader is written only while that one leads: later it would pass for what is asked while nobody does.
#[test]
fn a_request_is_written_under_the_leader_that_it_was_decided_under() {
    let written = |node: &mut Node| {
        let told = Seen::new(answer(HERE, None), node.now, node.now);
        node.state.peers.answers.insert(Member::new("c"), told);
        actions(&node.tick()).into_iter().find_map(|order| match order {
            Action::Store(StoreAction::PutFailover { epoch, .. }) => Some(epoch),
            _ => None,
        })
    };
    let asked = |mut node: Node| {
        node.step(Event::Operator(RequestId(1), asks(None, Some("c"), false)));
        node
    };
    let epoch = |node: Node| written(&mut asked(node));
    assert_eq!(epoch(Node::primary()), Some(EPOCH));
    assert_eq!(epoch(Node::standby()), Some(THEIR_EPOCH));
    let leaderless = || Node::standby().cluster(|cluster| cluster.leader = None);
    assert_eq!(epoch(leaderless()), Some(Revision(0)));
    // The bug: the leader's key went while the candidate was asked, and the request passed for one that was made after it.
    let mut late = asked(Node::standby()).cluster(|cluster| cluster.leader = None);
    assert_eq!(written(&mut late), Some(THEIR_EPOCH));
    assert_eq!(written(&mut asked(leaderless()).cluster(|cluster| *cluster = led_by("b", 101))), Some(Revision(0)));
}

/// Whoever is told that something runs knows Patroni's names for it.
#[test]
fn a_new_clone_waits_for_what_runs_unless_it_is_forced() {
    let asked = |action: &PostgresAction, force: bool| {
        let node = Node::standby().doing(Action::Postgres(action.clone()), 0);
        at_once(node, Request::Reinitialize { force, from_leader: false }).expect("it is answered at once")
    };
    let cases = [
        (PostgresAction::Restart, "restart already in progress"),
        (PostgresAction::Stop(StopMode::Fast), "stopping already in progress"),
        (PostgresAction::Rewind(upstream("b")), "running pg_rewind already in progress"),
        (PostgresAction::Freeze, "changing configuration already in progress"),
    ];
    for (action, body) in cases {
        assert_eq!(asked(&action, false), (503, body.into()));
        assert_eq!(asked(&action, true), (200, "reinitialize started".into()));
    }
}

/// The key in our name may turn out to be ours: then this node leads, and a leader is not cloned.
#[test]
fn who_may_find_its_own_tenure_yet_is_not_cloned() {
    let adopting = Tenure::Adopting { deadline: at(1_000) };
    let asked = |leader: &str, tenure: &Tenure| {
        let node = Node::standby().cluster(|cluster| *cluster = led_by(leader, 100));
        let node = node.with(|state| state.tenure = tenure.clone());
        at_once(node, Request::Reinitialize { force: false, from_leader: false }).expect("it is answered at once").0
    };
    assert_eq!(asked("a", &adopting), 503);
    assert_eq!((asked("b", &adopting), asked("a", &Tenure::None)), (200, 200));
}

/// An idle standby has nothing else to wake it for `loop_wait`.
#[test]
fn a_new_clone_is_begun_in_the_step_that_promises_it() {
    let mut node = Node::standby();
    let request = Request::Reinitialize { force: false, from_leader: false };
    let effects = node.step(Event::Operator(RequestId(1), request));
    let stop = Action::Postgres(PostgresAction::Stop(StopMode::Immediate));
    assert!(effects.orders.iter().any(|order| order.action == stop));
}

/// The members that an operator's request has this node ask, and whether it writes the request's key.
fn begun(mut node: Node, request: Request) -> (Vec<String>, bool) {
    let ordered = actions(&node.step(Event::Operator(RequestId(1), request)));
    let asked = ordered.iter().filter_map(|action| match action {
        Action::Peer(PeerAction::AskStatus { member, .. }) => Some(member.as_str().to_owned()),
        _ => None,
    });
    (asked.collect(), ordered.iter().any(|a| matches!(a, Action::Store(StoreAction::PutFailover { .. }))))
}

#[test]
fn whoever_may_take_over_is_asked_and_this_node_knows_of_itself() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(begun(Node::primary(), asks(Some("a"), Some("b"), true)), (names(&["b"]), false));
    assert_eq!(begun(Node::primary(), asks(Some("a"), None, true)), (names(&["b", "c"]), false));
    let to_this_node = || asks(Some("b"), Some("a"), true);
    assert_eq!(begun(Node::standby(), to_this_node()), (vec![], true));
    let body = "switchover is not possible: no good candidates have been found";
    let barred = Node::standby().config(|config| config.nofailover = true);
    assert_eq!(at_once(barred, to_this_node()), Some((412, body.into())));
}

/// Who leads then, and who is good, is not known before its time.
#[test]
fn a_switchover_at_a_time_is_written_at_once() {
    let scheduled = |leader: &str, switchover| {
        let Request::Move(request) = asks(Some(leader), Some("c"), switchover) else { panic!("it is a move") };
        let scheduled_at = Some(Schedule { text: "soon".into(), at: WallMillis(1_060_000) });
        Request::Move(MoveRequest { scheduled_at, ..request })
    };
    for leader in ["a", "b"] {
        assert_eq!(begun(Node::primary(), scheduled(leader, true)), (vec![], true));
    }
    let mut node = Node::primary();
    node.step(Event::Operator(RequestId(1), scheduled("a", true)));
    let (op, asked) = (node.op(&Lane::Publish), node.now);
    let written = StoreEvent::Completed { op, outcome: Outcome::Done(StoreDone::Written), asked };
    let told = answers(&node.step(Event::Store(written)));
    let body = "Switchover scheduled".into();
    assert_eq!(told.into_iter().collect::<Vec<_>>(), [(RequestId(1), Answer::Text { status: 202, body })]);
    assert_eq!(at_once(Node::primary(), scheduled("a", false)), Some((400, "Failover can't be scheduled".into())));
}

#[test]
fn candidates_that_all_say_no_are_no_good_and_silent_ones_are_after_two_seconds() {
    let body = "switchover is not possible: no good candidates have been found";
    let mut node = Node::primary();
    node.step(Event::Operator(RequestId(1), asks(Some("a"), Some("b"), true)));
    node = node.later(2_000);
    let told = answers(&node.tick());
    assert_eq!(told.get(&RequestId(1)), Some(&Answer::Text { status: 412, body: body.into() }));
}

/// A switchover from a to b whose key is written.
fn moving(candidate: Option<&str>) -> Node {
    let mut node = Node::standby().cluster(|cluster| *cluster = led_by("b", 100));
    node.step(Event::Operator(RequestId(1), asks(Some("b"), candidate, true)));
    for pending in node.state.requests.values_mut() {
        if let crate::state::PendingKind::Move { written, .. } = &mut pending.kind {
            *written = Some(node.now);
        }
    }
    node
}

fn body_after(mut node: Node, view: ClusterView) -> Option<String> {
    let effects = node.step(watched(&node, view));
    match answers(&effects).remove(&RequestId(1)) {
        Some(Answer::Text { body, .. }) => Some(body),
        _ => None,
    }
}

#[test]
fn the_outcome_of_a_switchover_is_told_in_the_words_of_the_contract() {
    let led = |name: &str| {
        let mut view = led_by("b", 110);
        view.leader = Some(leader(name, LeaseId(9), Revision(110)));
        view
    };
    assert_eq!(body_after(moving(Some("c")), led("c")).as_deref(), Some("Successfully switched over to \"c\""));
    assert_eq!(body_after(moving(Some("a")), led("c")).as_deref(), Some("Switched over to \"c\" instead of \"a\""));
    assert_eq!(body_after(moving(Some("c")).later(500), led_by("b", 110)).as_deref(), Some("Switchover failed"));
    let mut pending = led_by("b", 110);
    pending.failover = Some(failover(Some("b"), Some("c")));
    assert_eq!(body_after(moving(Some("c")).later(500), pending.clone()), None);
    assert_eq!(body_after(moving(Some("c")).later(20_000), pending).as_deref(), Some("Switchover status unknown"));
}

/// The bug: members took more than half a second to tell their status. By then the keys as they were before the request's
/// own was written passed for those after it, and the operator heard that it had failed while it was on its way.
#[test]
fn a_switchover_has_failed_only_when_its_key_is_gone_from_keys_that_were_seen_since_it_was_written() {
    for outcome in [Outcome::Done(StoreDone::Written), Outcome::Unknown("no answer".into())] {
        let mut node = Node::standby();
        node.step(Event::Operator(RequestId(1), asks(Some("b"), Some("c"), true)));
        node = node.later(600);
        node.state.peers.answers.insert(Member::new("c"), Seen::new(answer(HERE, None), node.now, node.now));
        node.tick();
        let (op, asked) = (node.op(&Lane::Publish), node.now);
        node = node.later(10);
        let effects = node.step(Event::Store(StoreEvent::Completed { op, outcome, asked }));
        assert!(answers(&effects).is_empty());
        let unseen = node.clone().later(500);
        assert!(answers(&unseen.clone().tick()).is_empty(), "nor later by what was seen before");
        let failed = Some("Switchover failed".to_owned());
        assert_eq!(body_after(unseen, led_by("b", 110)), failed);
        let read = Seen::new(led_by("b", 110), node.now, node.now);
        node.state.store.cluster = Some(read);
        assert!(answers(&node.clone().later(499).tick()).is_empty(), "a watch may lag");
        assert_eq!(answers(&node.later(500).tick()).len(), 1);
    }
}

#[test]
fn the_key_of_one_request_is_not_the_key_of_another() {
    let mut node = Node::primary();
    node.step(Event::Operator(RequestId(1), asks(Some("a"), Some("b"), true)));
    node.step(Event::Operator(RequestId(2), asks(Some("a"), Some("c"), true)));
    let told = Seen::new(answer(HERE, None), node.now, node.now);
    node.state.peers.answers.insert(Member::new("b"), told);
    let effects = node.tick();
    assert!(actions(&effects).iter().any(|action| matches!(action, Action::Store(StoreAction::PutFailover { .. }))));
    let op = node.op(&Lane::Publish);
    // Without an answer it may have been written: what comes of it is waited for, and it is not written once more.
    for outcome in [Outcome::Done(StoreDone::Written), Outcome::Unknown("no answer".into())] {
        let mut node = node.clone();
        node.step(Event::Store(StoreEvent::Completed { op, outcome, asked: node.now }));
        let written = |pending: &crate::state::Pending| {
            matches!(pending.kind, crate::state::PendingKind::Move { written: Some(_), .. })
        };
        assert_eq!(node.state.requests.values().map(written).collect::<Vec<_>>(), [true, false]);
    }
    // Another wrote the key first: who asked for this one is told, and the other goes on waiting.
    let outcome = Outcome::Refused(Refusal::Conflict);
    let told = answers(&node.step(Event::Store(StoreEvent::Completed { op, outcome, asked: node.now })));
    let body = "failed to write failover key into DCS".into();
    assert_eq!(told.into_iter().collect::<Vec<_>>(), [(RequestId(1), Answer::Text { status: 503, body })]);
}

fn wanted(in_ms: i64) -> ScheduledRestart {
    ScheduledRestart {
        schedule: Schedule { text: "soon".into(), at: WallMillis(1_000_000 + in_ms) },
        conditions: RestartConditions::default(),
        timeout_s: None,
        postmaster_start_us: 0,
    }
}

fn told(node: &mut Node, request: Request) -> (u16, String) {
    match answers(&node.step(Event::Operator(RequestId(1), request))).remove(&RequestId(1)) {
        Some(Answer::Text { status, body }) => (status, body),
        other => panic!("{other:?}"),
    }
}

/// Time passes on both clocks.
fn passes(node: &mut Node, ms: u64) -> crate::effects::Effects {
    let wall = node.state.wall.1.0 + ms as i64;
    node.now = node.now + millis(ms);
    node.step(Event::Ticked(WallMillis(wall)))
}

const RESTART: Action = Action::Postgres(PostgresAction::Restart);

#[test]
fn conditions_of_a_restart_hold_for_who_does_not_answer_only_if_there_are_none() {
    assert!(RestartConditions::default().hold(None));
    assert!(!RestartConditions { only_pending: true, ..Default::default() }.hold(None));
    assert!(!RestartConditions { role: Some("replica".into()), ..Default::default() }.hold(None));
}

#[test]
fn one_restart_is_scheduled_at_a_time_and_can_be_forgotten() {
    for mut node in [Node::primary(), Node::standby()] {
        assert_eq!(told(&mut node, Request::CancelRestart), (404, "no restarts are scheduled".into()));
        assert_eq!(told(&mut node, Request::ScheduleRestart(wanted(5_000))), (202, "Restart scheduled".into()));
        let record = crate::decide::members::record(&node.view());
        assert_eq!(record.scheduled_restart.map(|restart| restart.schedule.at), Some(WallMillis(1_005_000)));
        let again = told(&mut node, Request::ScheduleRestart(wanted(6_000)));
        assert_eq!(again, (409, "Another restart is already scheduled".into()));
        assert_eq!(told(&mut node, Request::CancelRestart), (200, "scheduled restart deleted".into()));
        assert!(!actions(&passes(&mut node, 5_000)).contains(&RESTART));
    }
}

#[test]
fn a_scheduled_restart_comes_at_its_time_once() {
    for mut node in [Node::primary(), Node::standby()] {
        told(&mut node, Request::ScheduleRestart(wanted(500)));
        let effects = passes(&mut node, 499);
        assert!(!actions(&effects).contains(&RESTART));
        assert_eq!(effects.wake.at, Some(node.now + millis(1)));
        assert!(actions(&passes(&mut node, 1)).contains(&RESTART));
        assert_eq!(node.state.scheduled_restart, None);
    }
}

#[test]
fn a_scheduled_restart_whose_conditions_do_not_hold_is_forgotten_when_it_is_due() {
    let role = |role: &str| RestartConditions { role: Some(role.into()), ..Default::default() };
    let version = |number| RestartConditions { below_version: Some((String::new(), number)), ..Default::default() };
    let pending = RestartConditions { only_pending: true, ..Default::default() };
    let comes = |conditions: RestartConditions, change: &dyn Fn(&mut Sql)| {
        let restart = ScheduledRestart { conditions, ..wanted(500) };
        let mut node = Node::primary();
        change(&mut node.state.postgres.sql.as_mut().unwrap().value);
        told(&mut node, Request::ScheduleRestart(restart));
        assert!(node.state.scheduled_restart.is_some(), "the conditions are those of its time");
        let comes = actions(&passes(&mut node, 500)).contains(&RESTART);
        assert_eq!(node.state.scheduled_restart, None);
        comes
    };
    let as_is = |_: &mut Sql| {};
    let at_15 = |sql: &mut Sql| sql.server_version = 150_018;
    let changed = |sql: &mut Sql| sql.pending_restart = vec![("a".into(), "1".into(), "2".into())];
    assert!(comes(role("primary"), &as_is) && !comes(role("replica"), &as_is));
    assert!(comes(version(160_000), &at_15) && !comes(version(150_018), &at_15));
    assert!(comes(pending.clone(), &changed) && !comes(pending, &as_is));
}

#[test]
fn a_scheduled_restart_is_void_after_another_start_or_long_after_its_time() {
    let mut node = Node::primary();
    node.state.postgres.sql.as_mut().unwrap().value.postmaster_start_us = 7;
    told(&mut node, Request::ScheduleRestart(wanted(500)));
    node.tick();
    assert!(node.state.scheduled_restart.is_some(), "it runs as it did");
    node.state.postgres.sql.as_mut().unwrap().value.postmaster_start_us = 8;
    node.tick();
    assert_eq!(node.state.scheduled_restart, None);

    // Nobody could take it up: the role was not settled, or PostgreSQL did not answer.
    let mut node = Node::primary();
    told(&mut node, Request::ScheduleRestart(wanted(500)));
    (node.state.postgres.sql, node.state.memory.checkpointed) = (None, None);
    assert!(!actions(&passes(&mut node, 15_500)).contains(&RESTART));
    assert!(node.state.scheduled_restart.is_some());
    passes(&mut node, 1);
    assert_eq!(node.state.scheduled_restart, None);
}

/// What a member said, or that it said nothing, before the operator asked is no answer.
#[test]
fn a_candidate_is_good_by_what_it_told_since_the_operator_asked() {
    let told = |answered: Option<(u64, bool)>, unreachable: Option<u64>| {
        let mut node = Node::primary().later(10);
        let b = Member::new("b");
        if let Some((ms, barred)) = answered {
            let answer = crate::view::peers::PeerAnswer { barred, ..answer(HERE, None) };
            node.state.peers.answers.insert(b.clone(), Seen::new(answer, at(ms), at(ms)));
        }
        node.state.peers.unreachable.extend(unreachable.map(|ms| (b, at(ms))));
        let effects = node.step(Event::Operator(RequestId(1), asks(Some("a"), Some("b"), true)));
        let writes = actions(&effects).iter().any(|a| matches!(a, Action::Store(StoreAction::PutFailover { .. })));
        let questions = actions(&effects).iter().any(|a| matches!(a, Action::Peer(_)));
        (writes, questions, answers(&effects).len())
    };
    assert_eq!(told(None, None), (false, true, 0));
    assert_eq!(told(Some((9, false)), Some(9)), (false, true, 0));
    assert_eq!(told(Some((10, false)), None), (true, false, 0));
    assert_eq!(told(Some((10, true)), None), (false, false, 1));
    assert_eq!(told(None, Some(10)), (false, false, 1));
}

#[test]
fn a_request_that_the_store_refuses_or_never_takes_is_answered() {
    let answered = |refused: bool, after_ms: u64| {
        let Request::Move(request) = asks(Some("a"), Some("b"), true) else { panic!("it is a move") };
        let kind = crate::state::PendingKind::Move {
            request: MoveRequest { refused, ..request },
            old: Some(Member::new("a")),
            epoch: EPOCH,
            written: None,
        };
        let mut node = Node::primary();
        node.state.requests.insert(RequestId(1), crate::state::Pending { kind, since: at(0) });
        node.state.store.answered = at(after_ms);
        if let Tenure::Held(held) = &mut node.state.tenure {
            held.confirmed = at(after_ms);
        }
        let now = at(after_ms);
        let told = Seen::new(answer(HERE, None), now, now);
        node.state.peers.answers.insert(Member::new("b"), told);
        match answers(&node.later(after_ms).tick()).remove(&RequestId(1)) {
            Some(Answer::Text { status, body }) => Some((status, body)),
            _ => None,
        }
    };
    let failed = Some((503, "failed to write failover key into DCS".to_owned()));
    assert_eq!((answered(false, 0), answered(true, 0)), (None, failed.clone()));
    assert_eq!((answered(false, 19_999), answered(false, 20_000)), (None, failed));
}

#[test]
fn a_restart_whose_checkpoints_follow_each_other_is_answered_in_the_end() {
    let answered = |after_s: u64| {
        let mut node = Node::racing().config(|config| config.nofailover = true);
        node.step(Event::Operator(RequestId(1), Request::Restart));
        let mut node = node.later(after_s * 1_000);
        node.state.memory.checkpointed = Some(node.now);
        answers(&node.tick()).len()
    };
    assert_eq!([100, 300, 330].map(answered), [0, 0, 1]);
}
