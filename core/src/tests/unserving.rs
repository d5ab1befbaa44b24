//! A leader that cannot serve does not keep its tenure for ever.

use super::races::watched;
use crate::action::{Action, GuardAction, HostAction, Lane, PostgresAction, StoreAction};
use crate::decide::{Fate, Rung};
use crate::event::{Event, GuardEvent, HostEvent, PostgresDone, PostgresEvent};
use crate::id::{Lsn, Member, SystemId};
use crate::lease::{Held, Tenure};
use crate::op::{Outcome, Refusal};
use crate::testing::*;
use crate::view::guard::Armed;
use crate::view::postgres::{ControlState, Phase, Process, StartAs, StopMode};

const KILL: Action = Action::Postgres(PostgresAction::Stop(StopMode::Immediate));
const PROMOTE: Action = Action::Postgres(PostgresAction::Promote { timeline: crate::id::Timeline(2) });

/// Time passes, and the tenure is renewed all the while.
fn held_for(node: Node, ms: u64) -> Node {
    let mut node = node.later(ms);
    let now = node.now;
    if let Tenure::Held(held) = &mut node.state.tenure {
        held.confirmed = now;
    }
    node.state.guard.armed = Some(Armed { tenure: OURS, at: node.state.config.bounds.arm_at(now, seconds(30)) });
    node.state.store.answered = now;
    node.state.ops = Node::stopped().state.ops;
    node
}

fn winner() -> Node {
    Node::primary().dir(standby_dir()).sql(standby_sql(None))
}

fn ended(node: &mut Node, outcome: Outcome<PostgresDone>) -> Vec<Action> {
    let op = node.op(&Lane::PgControl);
    actions(&node.step(Event::Postgres(PostgresEvent::Completed { op, outcome })))
}

fn releases(ordered: &[Action]) -> bool {
    ordered.iter().any(|order| matches!(order, Action::Store(StoreAction::Release { .. })))
}

/// The bug: a restore command that hung, or a directory that took no write, and a tenure that was renewed for a day.
#[test]
fn a_promotion_that_hangs_is_given_up_and_what_was_stopped_for_it_is_not_started_again() {
    let mut node = winner();
    assert!(actions(&node.tick()).contains(&PROMOTE));
    ended(&mut node, Outcome::Unknown("told to promote, and still in recovery".into()));
    node = held_for(node, 59_999).sql(standby_sql(None));
    assert_eq!(node.concludes(), (Rung::Leader, "promoting", Fate::Keep));
    let alone = held_for(node.clone(), 600_000).cluster(|cluster| cluster.members.clear()).sql(standby_sql(None));
    assert_eq!(alone.concludes().1, "promoting", "nobody else could do better");
    let paused = held_for(node.clone(), 600_000).with(|state| state.memory.paused = Some(at(0)));
    let paused = paused.cluster(|cluster| cluster.failover = Some(failover(None, Some("a")))).sql(standby_sql(None));
    assert_eq!(paused.concludes(), (Rung::Leader, "promoting", Fate::Keep), "nor does anybody in a pause");
    node = held_for(node, 1).sql(standby_sql(None));
    assert_eq!(node.concludes(), (Rung::Leader, "asking_candidates", Fate::Keep), "whether they could");
    let now = node.now;
    let silent = ["b", "c"].iter().fold(node.clone(), |node, who| {
        node.with(|state| {
            state.peers.unreachable.insert(Member::new(who), now);
        })
    });
    assert_eq!(silent.concludes().1, "promoting", "nobody answers");
    node = node.told_by("b", answer(HERE, None));
    assert_eq!(node.concludes(), (Rung::Leader, "cannot_serve", Fate::Release));
    assert!(actions(&node.tick()).contains(&KILL), "it may yet come to pass");
    node.step(Event::Postgres(PostgresEvent::ProcessSeen(Process::Absent)));
    ended(&mut node, Outcome::Done(PostgresDone::Done));
    let effects = node.step(Event::Guard(GuardEvent::OrphansDead));
    let started = |ordered: &[Action]| {
        ordered.iter().any(|order| matches!(order, Action::Postgres(PostgresAction::Start(StartAs::Standby(_)))))
    };
    assert!(!started(&actions(&effects)), "{effects:?}");
    assert_eq!(node.concludes(), (Rung::Leader, "cannot_serve", Fate::Release));
    let forgets = node.op(&Lane::Host);
    let ordered = actions(&node.step(Event::Host(HostEvent::Completed { op: forgets, outcome: Outcome::Done(()) })));
    assert!(releases(&ordered), "{ordered:?}");
}

#[test]
fn a_promotion_that_still_replays_is_waited_for() {
    let mut node = winner();
    node.tick();
    ended(&mut node, Outcome::Unknown("told to promote, and still in recovery".into()));
    for more in 1..20 {
        node = held_for(node, 30_000);
        node.tick();
        let mut sql = standby_sql(None);
        sql.replayed = Lsn(HERE.0 + more);
        let op = node.op(&Lane::PgObserve);
        let seen = crate::time::Seen::new(sql, node.now, node.now);
        node.step(Event::Postgres(PostgresEvent::Answered { op, sql: Some(seen) }));
        assert_eq!(node.concludes().2, Fate::Keep, "{more}");
    }
}

#[test]
fn a_promotion_that_is_refused_over_and_over_is_given_up_without_a_stop() {
    let mut node = winner();
    for refused in 0..3 {
        assert!(actions(&node.tick()).contains(&PROMOTE), "{refused}");
        ended(&mut node, Outcome::Refused(Refusal::Failed("promote cannot be written".into())));
        node = held_for(node, 1_000).sql(standby_sql(None)).told_by("b", answer(HERE, None));
    }
    let ordered = actions(&node.tick());
    assert!(ordered.contains(&forgets()) && !ordered.contains(&PROMOTE) && !ordered.contains(&KILL), "{ordered:?}");
    node.step(watched(&node, led_by("b", 300)));
    node.tick();
    assert_eq!((node.state.memory.promotions_refused, node.state.memory.giving_up), (0, false));
}

/// Also where nobody else could lead: what the operator's pre_promote refused is not asked again before a ttl is over.
#[test]
fn a_promotion_that_the_operator_refuses_gives_the_key_up_at_once_and_is_not_tried_for_a_ttl() {
    let mut node = winner().cluster(|cluster| cluster.members.retain(|name, _| *name == Member::new("a")));
    assert!(actions(&node.tick()).contains(&PROMOTE));
    let ordered = ended(&mut node, Outcome::Refused(Refusal::Vetoed("pre_promote: exit status: 1".into())));
    assert_eq!(node.concludes(), (Rung::Leader, "cannot_serve", Fate::Release));
    assert!(!ordered.contains(&PROMOTE) && !ordered.contains(&KILL), "it is a standby as before: {ordered:?}");
    assert!(ordered.contains(&forgets()), "{ordered:?}");
    // The next time that there is no leader.
    let vetoed = node.state.memory.vetoed;
    let racing = |ms| Node::racing().with(|state| state.memory.vetoed = vetoed).later(ms);
    assert_eq!(racing(29_999).concludes(), (Rung::Race, "promotion_vetoed", Fate::Keep));
    assert!(racing(29_999).view().own_answer().barred, "nobody waits for it");
    assert_ne!(racing(30_000).concludes().1, "promotion_vetoed");
    assert!(!racing(30_000).view().own_answer().barred);
    // A tenure of later on is another.
    node = held_for(winner().with(|state| state.memory.vetoed = vetoed), 31_000).sql(standby_sql(None));
    node.state.memory.held_since = Some(node.now);
    assert!(actions(&node.tick()).contains(&PROMOTE));
}

/// The bug: a candidate whose pre_promote said no was waited for by the others, led again when its ttl was over, failed
/// again, and nobody else ever led.
#[test]
fn a_candidate_that_fails_takes_the_request_for_it_back() {
    let clear = Action::Store(StoreAction::ClearFailover { revision: failover(None, None).revision });
    let asked = |node: Node, candidate: &str| {
        let request = failover(Some("b"), Some(candidate));
        let node = node.cluster(|cluster| cluster.failover = Some(request));
        crate::decide::cluster_keys::order(&node.view()).is_some_and(|(action, _)| action == clear)
    };
    let vetoed = || Node::racing().with(|state| state.memory.vetoed = Some(at(0)));
    assert!(asked(vetoed(), "a"));
    assert!(!asked(vetoed(), "c"), "another is asked for");
    assert!(!asked(Node::racing(), "a"), "it has not failed");
    assert!(!asked(vetoed().later(30_000), "a"), "it may try again");
    let hangs = || winner().with(|state| state.memory.giving_up = true);
    assert!(asked(hangs(), "a") && !asked(hangs(), "c"));
    // The bug: its own record was on its way, and there was no turn for this before it had given up.
    let gave_up = || Node::racing().with(|state| state.memory.gave_up = Some(at(0)));
    assert!(asked(gave_up().later(9_999), "a") && !asked(gave_up().later(10_000), "a"));
    assert!(!asked(gave_up(), "c"));
}

#[test]
fn a_promotion_that_was_told_and_is_refused_afterwards_is_stopped() {
    let mut node = winner();
    node.tick();
    ended(&mut node, Outcome::Unknown("told to promote, and still in recovery".into()));
    node = held_for(node, 1_000).sql(standby_sql(None));
    assert!(actions(&node.tick()).contains(&PROMOTE));
    let ordered = ended(&mut node, Outcome::Refused(Refusal::Vetoed("pre_promote: exit status: 1".into())));
    assert!(ordered.contains(&KILL), "it may yet come to pass: {ordered:?}");
}

#[test]
fn a_recovery_that_took_too_long_and_was_stopped_is_not_begun_again() {
    let mut node = held_for(Node::primary().phase(Phase::Starting), 0).told_by("b", answer(HERE, None));
    node.state.memory.starting_since = Some(node.now.back(seconds(300)));
    assert!(actions(&node.tick()).contains(&KILL));
    node.step(Event::Postgres(PostgresEvent::ProcessSeen(Process::Absent)));
    ended(&mut node, Outcome::Done(PostgresDone::Done));
    node.step(Event::Guard(GuardEvent::OrphansDead));
    assert_eq!(node.concludes(), (Rung::Leader, "cannot_serve", Fate::Release));
}

/// The bug: the guard had asked PostgreSQL to stop, a new agent took its tenure up, and the archiver hung: clients were
/// refused for as long as that took.
#[test]
fn a_server_that_only_waits_for_a_standby_or_its_archiver_is_ended_whoever_stopped_it() {
    let mut node = Node::primary().phase(Phase::Stopping).dir(primary_dir(ControlState::ShuttingDown));
    node.tick();
    node = held_for(node, 60_000);
    node.tick();
    assert_eq!(node.concludes().1, "stopping", "its checkpoint may take long");
    node = held_for(node.dir(primary_dir(ControlState::ShutDown)), 0);
    node.tick();
    node = held_for(node, 4_999);
    assert!(!actions(&node.tick()).contains(&KILL));
    node = held_for(node, 1);
    assert_eq!(node.concludes(), (Rung::Leader, "drain_hangs", Fate::Keep));
    assert!(actions(&node.tick()).contains(&KILL));
    node.step(Event::Postgres(PostgresEvent::ProcessSeen(Process::Absent)));
    ended(&mut node, Outcome::Done(PostgresDone::Done));
    let effects = node.step(Event::Guard(GuardEvent::OrphansDead));
    assert!(actions(&effects).contains(&Action::Postgres(PostgresAction::Start(StartAs::Primary))), "{effects:?}");
}

#[test]
fn a_server_without_a_guard_that_only_waits_for_its_archiver_is_ended() {
    let mut node = Node::primary().phase(Phase::Stopping).dir(primary_dir(ControlState::ShutDown));
    node.tick();
    node = held_for(node, 5_000);
    node.state.guard.present = false;
    node.state.guard.gone = Some(at(0));
    let (_, verdict) = node.decide();
    assert_eq!((verdict.reason.code(), &verdict.orders[..]), ("guard_missing", &[KILL][..]));
    assert!(!verdict.orders.contains(&Action::Guard(GuardAction::Fire)));
}

/// What keeps PostgreSQL from being asked may be the operator's before_stop.
#[test]
fn a_server_without_a_guard_does_not_wait_for_whatever_keeps_it_from_being_asked_to_stop() {
    let stop = Action::Postgres(PostgresAction::Stop(StopMode::Fast));
    let gone = |stopping: u64| {
        let mut node = held_for(Node::primary(), 5_000);
        node.state.guard.present = false;
        node.state.guard.gone = Some(at(0));
        node.doing(stop.clone(), stopping)
    };
    let orders = |node: &Node| node.decide().1.orders;
    assert_eq!(orders(&gone(999)), std::slice::from_ref(&stop));
    assert_eq!(gone(999).tick().wake.at, Some(gone(999).now + millis(1)));
    assert_eq!(orders(&gone(1_000)), [KILL]);
    assert_eq!(orders(&gone(1_000).phase(Phase::Stopping)), std::slice::from_ref(&stop), "it was asked");
}

/// The bug: the agent armed the guard for a primary that it had not identified yet, left when it turned out to be
/// another cluster's, and the guard stopped that one.
#[test]
fn an_agent_that_finds_the_data_of_another_cluster_takes_the_guard_off_it_before_it_leaves() {
    let disarm = Action::Guard(GuardAction::Disarm);
    let leaves =
        |ordered: &[Action]| ordered.iter().any(|order| matches!(order, Action::Host(HostAction::Exit { .. })));
    for acknowledged in [true, false] {
        let mut node = Node::primary().with(|state| {
            state.tenure = Tenure::Adopting { deadline: at(9_000) };
            (state.store.cluster, state.guard.armed, state.epoch_file) = (None, None, None);
        });
        let armed = actions(&node.tick()).into_iter().find_map(|order| match order {
            Action::Guard(GuardAction::Arm { tenure, at }) => Some(Armed { tenure, at }),
            _ => None,
        });
        let armed = armed.expect("whatever it is, it is not left without a guard");
        if acknowledged {
            node.step(Event::Guard(GuardEvent::Armed(armed)));
        }
        let mut other = cluster(100);
        other.initialize.as_mut().unwrap().system_id = Some(SystemId(1));
        let ordered = actions(&node.step(watched(&node, other)));
        assert!(ordered.contains(&disarm) && !leaves(&ordered), "{ordered:?}");
        if !acknowledged {
            assert!(!leaves(&actions(&node.step(Event::Guard(GuardEvent::Armed(armed))))));
        }
        assert!(leaves(&actions(&node.step(Event::Guard(GuardEvent::Disarmed)))));
    }
    // A tenure that is armed was somebody's of this node.
    let ours = Node::primary().cluster(|cluster| cluster.initialize.as_mut().unwrap().system_id = Some(SystemId(1)));
    let mut ours = ours.with(|state| state.tenure = Tenure::None);
    assert!(!actions(&ours.tick()).contains(&disarm));
}

/// The bug: PostgreSQL hung on a disk that does not answer, so that not even SIGKILL ended it, and its key was renewed for ever.
#[test]
fn the_key_of_a_server_that_nothing_ends_lapses_after_a_minute() {
    let mut node = Node::primary().phase(Phase::Starting).told_by("b", answer(HERE, None));
    node.state.memory.starting_since = Some(at(0).back(seconds(300)));
    node.state.postgres.sql = None;
    let hangs = |node: &mut Node, after_ms: u64| {
        node.now = at(after_ms);
        node.state.store.answered = node.now;
        let renewed = Held { confirmed: node.now, ..*node.state.tenure.held().expect("it leads") };
        node.state.tenure = Tenure::Held(renewed);
        node.state.guard.armed = Some(Armed { tenure: renewed.lease, at: node.now + seconds(20) });
        node.tick();
        node.state.tenure.held().is_some()
    };
    assert!(hangs(&mut node, 0) && hangs(&mut node, 59_999));
    assert!(!hangs(&mut node, 60_000));
    assert!(node.state.memory.gave_up.is_some(), "and it lets others try");
}
