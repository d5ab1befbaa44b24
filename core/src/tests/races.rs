//! Races that were bugs once: completions, views and guards that come late, twice, or never.

use crate::action::{Action, Answer, GuardAction, Lane, PostgresAction, StoreAction};
use crate::decide::{Fate, Rung};
use crate::event::{
    EpochFile, Event, GuardEvent, HostEvent, PeerEvent, PostgresDone, PostgresEvent, Request, StoreDone, StoreEvent,
};
use crate::id::{LeaseId, Lsn, Member, Pid, RequestId, Revision};
use crate::lease::Tenure;
use crate::op::{Outcome, Refusal};
use crate::state::{Granted, Pledge};
use crate::testing::*;
use crate::time::Seen;
use crate::view::guard::Armed;
use crate::view::postgres::{ControlState, DataDir, Phase, Process, StartAs, StopMode};
use crate::view::store::ClusterView;

const FIRE: Action = Action::Guard(GuardAction::Fire);
const KILL: Action = Action::Postgres(PostgresAction::Stop(StopMode::Immediate));

pub(super) fn watched(node: &Node, view: ClusterView) -> Event {
    Event::Store(StoreEvent::Watched(Seen::new(view, node.now, node.now)))
}

fn process(process: Process) -> Event {
    Event::Postgres(PostgresEvent::ProcessSeen(process))
}

fn written(node: &Node, outcome: Outcome<()>) -> Event {
    Event::Host(HostEvent::Completed { op: node.op(&Lane::Host), outcome })
}

fn ended(node: &Node, lane: &Lane, outcome: Outcome<PostgresDone>) -> Event {
    Event::Postgres(PostgresEvent::Completed { op: node.op(lane), outcome })
}

#[test]
fn a_tenure_that_ends_while_its_primary_is_being_started_is_not_revoked_beside_it() {
    let start = Action::Postgres(PostgresAction::Start(StartAs::Primary));
    let mut node = Node::primary().dead().doing(start, 0).later(29_700);
    let ordered = actions(&node.tick());
    assert!(ordered.contains(&FIRE) && ordered.contains(&KILL), "{ordered:?}");
    let gives_away = |action: &Action| {
        matches!(action, Action::Store(StoreAction::Revoke { .. }) | Action::Guard(GuardAction::Disarm))
    };
    assert!(!ordered.iter().any(gives_away), "{ordered:?}");
    // The start may have brought a postmaster up and the stop killed it, between two looks.
    assert_eq!(node.state.postgres.orphans, None);
}

/// The race: the agent is frozen between its decision and the fork; the guard fires and is disarmed; the agent thaws.
#[test]
fn what_makes_a_primary_carries_the_instant_that_the_guard_has_acknowledged() {
    let under = |effects: &crate::effects::Effects, wanted: &Action| {
        let order = effects.orders.iter().find(|order| order.action == *wanted);
        order.unwrap_or_else(|| panic!("{wanted:?} is not ordered: {effects:?}")).under
    };
    // Renewed since, and not acknowledged yet.
    let acknowledged = Armed { tenure: OURS, at: at(20_000) };
    let armed = |node: Node| node.with(|state| state.guard.armed = Some(acknowledged));
    let start = Action::Postgres(PostgresAction::Start(StartAs::Primary));
    assert_eq!(under(&armed(Node::primary().dead()).tick(), &start), Some(acknowledged));
    let promote = promotion();
    let won = Node::primary().dir(standby_dir()).sql(standby_sql(None));
    assert_eq!(under(&armed(won).tick(), &promote), Some(acknowledged));
    let restart = Action::Postgres(PostgresAction::Restart);
    let asked = |mut node: Node| node.step(Event::Operator(RequestId(1), Request::Restart));
    assert_eq!(under(&asked(armed(Node::primary())), &restart), Some(acknowledged));
    assert_eq!(under(&asked(Node::standby()), &restart), None, "a standby may be restarted at any time");
}

#[test]
fn a_start_that_came_too_late_for_its_tenure_is_no_failed_start() {
    for (outcome, failures) in [
        (Outcome::Refused(Refusal::NotOurTenure), 0),
        (Outcome::Refused(Refusal::Failed("no".into())), 1),
        (Outcome::Unknown("still starting".into()), 1),
    ] {
        let mut node = Node::primary().dead();
        node.tick();
        node.step(ended(&node, &Lane::PgControl, outcome.clone()));
        assert_eq!(node.state.memory.start_failures, failures, "{outcome:?}");
    }
}

#[test]
fn an_upstream_that_only_a_restart_makes_effective_is_followed_by_the_order_to_restart() {
    let restart = Action::Postgres(PostgresAction::Restart);
    let mut node = Node::standby().sql(standby_sql(Some("c"))).later(4_000);
    let ordered = actions(&node.tick());
    assert!(ordered.contains(&Action::Postgres(PostgresAction::Follow(Some(upstream("b"))))), "{ordered:?}");
    let effects = node.step(ended(&node, &Lane::PgControl, Outcome::Done(PostgresDone::NeedsRestart)));
    assert!(actions(&effects).contains(&restart), "{effects:?}");
    // In its middle nothing runs, and that is no death: nothing is released, and no orphans are looked for.
    node.step(process(Process::Absent));
    assert!(!node.view().dead());
    assert!(!node.state.memory.needs_restart, "what runs next has read what is written");
    node.state.postgres.process = alive(Phase::Ready);
    let effects = node.step(ended(&node, &Lane::PgControl, Outcome::Done(PostgresDone::Done)));
    assert!(!actions(&effects).contains(&restart));
    assert_eq!(node.state.memory.followed, Some(upstream("b")));
}

#[test]
fn a_promotion_of_unknown_outcome_may_still_come_to_pass() {
    let mut node = Node::primary().dir(standby_dir()).sql(standby_sql(None));
    assert!(actions(&node.tick()).contains(&promotion()));
    node.step(ended(&node, &Lane::PgControl, Outcome::Unknown("the connection broke".into())));
    // That it is refused when it is asked for once more takes nothing back.
    node = node.doing(promotion(), 10);
    node.step(ended(&node, &Lane::PgControl, Outcome::Refused(Refusal::Failed("the disk is full".into()))));
    assert!(node.state.memory.promotion);
    node = node.later(29_700);
    let ordered = actions(&node.tick());
    assert!(ordered.contains(&FIRE), "{ordered:?}");
    assert!(!ordered.contains(&Action::Guard(GuardAction::Disarm)));
    node.step(process(Process::Absent));
    assert!(!node.state.memory.promotion, "it died with its postmaster");
}

#[test]
fn without_a_guard_a_tenure_that_ends_still_stops_postgresql() {
    let mut node = Node::primary().with(|state| {
        (state.guard.present, state.guard.armed, state.guard.gone) = (false, None, Some(at(29_000)));
    });
    node = node.later(29_700);
    assert!(actions(&node.tick()).contains(&KILL));
}

#[test]
fn a_guard_that_cannot_be_started_does_not_set_the_time_without_one_back() {
    let mut node = Node::primary();
    node.step(Event::Guard(GuardEvent::Gone));
    for _ in 0..9 {
        node = node.later(100);
        node.step(Event::Guard(GuardEvent::Gone));
    }
    node = node.later(100);
    let ordered = actions(&node.tick());
    assert!(ordered.contains(&Action::Postgres(PostgresAction::Stop(StopMode::Fast))), "{ordered:?}");
}

#[test]
fn a_guard_that_was_never_there_is_missing_since_the_start() {
    let mut node = Node::primary();
    let state = crate::state::State::new(config(), at(0));
    node.state.guard = state.guard;
    assert_eq!(node.later(1_000).concludes().1, "guard_missing");
}

#[test]
fn a_new_guard_lets_go_on_what_the_last_one_held() {
    let mut node = Node::primary().with(|state| state.guard.held = true);
    node.step(Event::Guard(GuardEvent::Gone));
    node.step(Event::Guard(GuardEvent::Connected { armed: None, held: false, fired: None }));
    let at = at(0) + millis(29_690);
    let effects = node.step(Event::Guard(GuardEvent::Armed(Armed { tenure: OURS, at })));
    assert!(actions(&effects).contains(&Action::Guard(GuardAction::Resume)));
}

#[test]
fn a_guard_that_refuses_is_not_asked_as_fast_as_it_refuses() {
    let mut node = Node::primary().with(|state| state.guard.armed = None);
    let arms =
        |ordered: &[Action]| ordered.iter().any(|action| matches!(action, Action::Guard(GuardAction::Arm { .. })));
    assert!(arms(&actions(&node.tick())));
    let effects = node.step(Event::Guard(GuardEvent::Refused("no".into())));
    assert!(!arms(&actions(&effects)));
    assert_eq!(effects.wake.at, Some(at(20)), "pauses end one after the other");
    node = node.later(50);
    assert!(arms(&actions(&node.tick())));
}

#[test]
fn a_tenure_that_the_guard_fired_while_nobody_listened_is_not_adopted() {
    let mut node = Node::primary().dead().with(|state| {
        state.tenure = Tenure::Adopting { deadline: at(9_000) };
        state.guard.present = false;
    });
    let effects = node.step(Event::Guard(GuardEvent::Connected { armed: None, held: false, fired: Some(OURS) }));
    assert_eq!((&node.state.tenure, node.state.spent), (&Tenure::None, Some(OURS)));
    assert!(actions(&effects).contains(&Action::Store(StoreAction::Revoke { lease: OURS })));
    // The tenure that fired before the one whose key is there is history.
    let mut node = Node::primary().with(|state| state.tenure = Tenure::Adopting { deadline: at(9_000) });
    node.step(Event::Guard(GuardEvent::Connected { armed: None, held: false, fired: Some(LeaseId(3)) }));
    assert!(matches!(node.state.tenure, Tenure::Adopting { .. }));
}

/// The bug: an agent was started anew in the middle of a promotion, whose key went before its time; the guard was disarmed, and
/// what it had taken for a standby became a primary.
#[test]
fn a_promotion_that_the_last_agent_ordered_may_still_come_to_pass() {
    let begun = |epoch: Option<EpochFile>, armed: LeaseId, change: fn(&mut Node)| {
        let mut node = Node::standby().with(|state| state.tenure = Tenure::Adopting { deadline: at(9_000) });
        node.state.guard.present = false;
        (node.state.epoch_file, node.state.store.cluster) = (None, None);
        let armed = Some(Armed { tenure: armed, at: at(8_000) });
        // As an agent starts: it knows of its guard first.
        node.step(Event::Guard(GuardEvent::Connected { armed, held: false, fired: None }));
        node.step(Event::Started(crate::event::Started { epoch, pledge: None }));
        change(&mut node);
        assert_eq!(node.view().own_answer().primary, node.view().may_write(), "nobody is to overtake it");
        node.view().may_write()
    };
    let connected = |armed, change| begun(Some(epoch_file()), armed, change);
    assert!(connected(OURS, |_| ()) && !connected(LeaseId(0), |_| ()));
    assert!(!begun(None, OURS, |_| ()), "nothing is promoted before its epoch is on disk");
    let dead = |node: &mut Node| {
        node.step(Event::Postgres(PostgresEvent::ProcessSeen(Process::Absent)));
    };
    assert!(!connected(OURS, dead));
    let another = |node: &mut Node| {
        let process = Process::Alive { pid: Pid(77), phase: Phase::Ready };
        node.step(Event::Postgres(PostgresEvent::ProcessSeen(process)));
    };
    assert!(!connected(OURS, another), "it was promoted, and is dead");
}

#[test]
fn a_late_view_of_the_key_that_is_gone_does_not_turn_a_hold_into_a_kill() {
    let mut node = Node::primary().later(10_000);
    node.tick();
    let op = node.op(&Lane::Renew);
    let outcome = Outcome::Refused(Refusal::LeaseGone);
    node.step(Event::Store(StoreEvent::Completed { op, outcome, asked: node.now }));
    node.step(watched(&node, led_by("a", 101)));
    assert!(matches!(node.state.tenure, Tenure::Suspended { .. }));
    node.step(watched(&node, led_by("b", 102)));
    assert_eq!(node.state.tenure, Tenure::None);
}

/// Revisions are minted a second time: nothing that is remembered by one may be held against what it names now.
#[test]
fn what_is_remembered_of_a_store_that_went_back_is_void() {
    let mut node = Node::primary().dead().with(|state| {
        state.tenure = Tenure::None;
        state.pledge = Some(Pledge { absent_at: Revision(90), since: at(0), frozen: true, on_disk: true });
        state.memory.written = Revision(100);
    });
    let mut restored = cluster(50);
    node.step(watched(&node, restored.clone()));
    assert!(node.state.epoch_file.is_some() && node.state.pledge.is_some(), "an older view is no news");
    restored.rollbacks = 1;
    node.step(watched(&node, restored));
    assert_eq!((node.state.pledge, node.state.session.lease), (None, None));
    assert_eq!(node.state.epoch_file, Some(epoch_file().void()), "it has led, under no epoch of this store");
    assert_eq!(node.view().cluster().map(|cluster| cluster.revision), Some(Revision(50)));
    assert_eq!(node.state.memory.written, Revision(0));
}

#[test]
fn the_epoch_file_names_no_tenure_of_another_member() {
    let mut node = Node::primary().with(|state| state.tenure = Tenure::Adopting { deadline: at(9_000) });
    assert!(node.wants().iter().any(|order| matches!(order, Action::Store(StoreAction::Renew { .. }))));
    let mut theirs = cluster(100);
    theirs.leader = Some(leader("b", LeaseId(77), EPOCH));
    node.set_cluster(theirs);
    assert!(actions(&node.tick()).contains(&FIRE));
    assert_eq!(node.state.tenure, Tenure::None);
}

#[test]
fn an_older_view_is_no_news() {
    let mut node = Node::primary();
    node.step(watched(&node, led_by("b", 99)));
    assert!(node.state.tenure.held().is_some());
    let mut replaced = led_by("b", 1);
    replaced.store = crate::id::StoreId(2);
    node.step(watched(&node, replaced));
    assert!(node.state.tenure.held().is_none(), "the revisions of another store begin anew");
}

#[test]
fn a_key_whose_acquisition_was_unknown_is_ours_when_a_view_shows_it() {
    let granted = Granted { lease: LeaseId(9), ttl: seconds(30), asked: at(0) };
    let mut node = Node::racing().with(|state| state.granted = Some(granted));
    assert!(actions(&node.tick()).iter().any(|action| matches!(action, Action::Store(StoreAction::Acquire(_)))));
    let (op, outcome) = (node.op(&Lane::Lead), Outcome::Unknown("no answer".into()));
    let effects = node.step(Event::Store(StoreEvent::Completed { op, outcome, asked: node.now }));
    assert!(actions(&effects).contains(&Action::Store(StoreAction::Read)), "with watches silent nobody else tells");
    let mut view = cluster(102);
    view.leader = Some(leader("a", LeaseId(9), Revision(102)));
    node = node.later(100);
    node.step(watched(&node, view));
    let held = node.state.tenure.held().copied().expect("the key is ours");
    assert_eq!((held.lease, held.epoch, held.confirmed), (LeaseId(9), Revision(102), at(0)));
}

#[test]
fn a_lease_that_ran_out_between_acquire_and_arm_is_no_tenure() {
    let granted = Granted { lease: LeaseId(9), ttl: seconds(30), asked: at(0) };
    let mut node = Node::racing().with(|state| state.granted = Some(granted)).later(29_700);
    let mut view = cluster(102);
    view.leader = Some(leader("a", LeaseId(9), Revision(102)));
    let effects = node.step(watched(&node, view));
    assert_eq!((&node.state.tenure, node.state.spent), (&Tenure::None, Some(LeaseId(9))));
    assert!(!actions(&effects).iter().any(|action| matches!(action, Action::Guard(GuardAction::Arm { .. }))));
}

#[test]
fn a_renewal_that_ends_after_its_tenure_was_lost_does_not_bring_it_back() {
    let mut node = Node::primary().later(10_000);
    node.tick();
    let op = node.op(&Lane::Renew);
    node.step(watched(&node, led_by("b", 101)));
    let outcome = Outcome::Done(StoreDone::Renewed { ttl: seconds(30), revision: Revision(0) });
    node.step(Event::Store(StoreEvent::Completed { op, outcome, asked: at(10_000) }));
    assert_eq!((&node.state.tenure, node.state.spent), (&Tenure::None, Some(OURS)));
}

#[test]
fn a_release_of_unknown_outcome_spends_the_tenure() {
    let mut node = Node::handing_over().with(|state| {
        let told = Seen::new(answer(HERE, None), at(0), at(0));
        state.peers.answers.insert(Member::new("b"), told);
    });
    assert!(actions(&node.tick()).contains(&forgets()), "an agent that starts now must not take the tenure up");
    assert!(node.state.ops.in_lane(&Lane::Lead).is_none());
    node.step(written(&node, Outcome::Done(())));
    let (op, outcome) = (node.op(&Lane::Lead), Outcome::Unknown("no answer".into()));
    let effects = node.step(Event::Store(StoreEvent::Completed { op, outcome, asked: node.now }));
    assert_eq!((&node.state.tenure, node.state.spent), (&Tenure::None, Some(OURS)));
    assert!(actions(&effects).contains(&Action::Store(StoreAction::Revoke { lease: OURS })));
}

#[test]
fn a_spent_tenure_is_forgotten_on_disk_and_a_full_disk_keeps_nobody_from_leading() {
    let mut node = Node::primary();
    let ordered = actions(&node.step(watched(&node, led_by("b", 101))));
    assert!(ordered.contains(&forgets()), "{ordered:?}");
    let full = || Outcome::Unknown("No space left on device".into());
    let mut node = Node::handing_over().with(|state| {
        state.peers.answers.insert(Member::new("b"), Seen::new(answer(HERE, None), at(0), at(0)));
    });
    node.tick();
    let ordered = actions(&node.step(written(&node, full())));
    assert!(ordered.iter().any(|action| matches!(action, Action::Store(StoreAction::Release { .. }))), "{ordered:?}");
}

/// A disk that hangs answers nothing at all.
#[test]
fn an_epoch_write_that_never_ends_counts_as_failed_from_its_beginning() {
    let mut node = Node::primary().dir(standby_dir()).sql(standby_sql(None)).with(|state| state.epoch_file = None);
    node.tick();
    let began = node.now;
    node = node.later(10_000);
    node.tick();
    assert_eq!(node.state.memory.epoch_failing, Some(began));
    assert!(node.state.memory.epoch_in_doubt, "it may come to be yet");
    assert!(node.state.epoch_file.is_some(), "and would have to be forgotten then");
    assert_eq!(node.concludes().1, "releasing");
}

/// Another may lead before the answer is here; a health check that said yes would send clients to two nodes.
#[test]
fn who_is_releasing_the_key_does_not_say_that_it_leads() {
    let node = Node::primary();
    assert!(node.view().leads());
    assert!(!node.doing(release(), 5).view().leads());
}

/// The release that is on its way may be applied any moment, whatever else changed meanwhile.
#[test]
fn nothing_is_begun_under_a_tenure_that_is_being_released() {
    let dead = Node::handing_over().cluster(|cluster| cluster.failover = None).doing(release(), 5);
    assert_eq!(dead.concludes(), (Rung::Leader, "releasing", Fate::Keep));
    let standby = Node::primary().dir(standby_dir()).sql(standby_sql(None)).doing(release(), 5);
    assert_eq!(standby.concludes(), (Rung::Leader, "releasing", Fate::Keep));
}

/// Somebody starts PostgreSQL by hand while the key is given away: whoever takes the key may lead already.
#[test]
fn what_is_started_by_hand_beside_a_release_is_killed() {
    let mut node = Node::primary().doing(release(), 5);
    assert_eq!(node.concludes(), (Rung::Fence, "releasing", Fate::LetLapse));
    assert!(actions(&node.tick()).contains(&Action::Guard(GuardAction::Fire)));
    assert!(node.state.tenure.held().is_none());
}

/// Otherwise the guard, which is armed for it, would kill what its predecessor led, and nobody may race.
#[test]
fn an_agent_that_starts_again_where_it_may_only_observe_takes_its_own_tenure_up() {
    let mut node = Node::primary()
        .config(|config| config.unsupported = Some("pause".into()))
        .with(|state| state.tenure = Tenure::Adopting { deadline: at(9_000) });
    let ordered = actions(&node.tick());
    assert!(ordered.iter().any(|order| matches!(order, Action::Store(StoreAction::Renew { .. }))), "{ordered:?}");
    let mut theirs = node.clone();
    theirs.set_cluster(led_by("b", 101));
    assert!(theirs.wants().is_empty(), "what another leads is left alone");
    // And a leader that is asked to leave does so, as everywhere.
    let leaving = Node::primary().config(|config| config.unsupported = Some("pause".into())).with(|state| {
        state.leaving = true;
    });
    assert_eq!(leaving.concludes().0, Rung::Switchover);
}

/// The bug (seed 450305): the tenure ended, the guard was killed before it could fire, and the primary went on unguarded.
#[test]
fn what_an_agent_led_is_stopped_also_where_it_may_only_observe() {
    let ended = || {
        let observes = Node::primary().config(|config| config.unsupported = Some("synchronous mode".into()));
        let mut node = observes.later(30_000);
        assert!(actions(&node.tick()).contains(&FIRE));
        node
    };
    let mut node = ended();
    assert!(actions(&node.step(Event::Guard(GuardEvent::Gone))).contains(&KILL));
    let mut revoked = ended().with(|state| state.spent = None);
    assert!(!actions(&revoked.step(Event::Guard(GuardEvent::Gone))).contains(&KILL), "somebody else runs it");
}

#[test]
fn a_hold_that_the_guard_did_not_live_to_report_is_let_go() {
    let mut node = Node::primary().with(|state| state.guard_asked.hold = true);
    node.step(Event::Guard(GuardEvent::Gone));
    assert!(node.state.guard.held);
    let mut node = Node::primary().with(|state| state.guard_asked.hold = true);
    let armed = node.state.guard.armed;
    let effects = node.step(Event::Guard(GuardEvent::Connected { armed, held: false, fired: None }));
    assert!(actions(&effects).contains(&Action::Guard(GuardAction::Resume)));
}

/// What a dead primary still knows is less than what it published: nobody may be measured by that.
#[test]
fn a_release_after_a_crash_does_not_lower_the_published_position() {
    let optime = Lsn(HERE.0 + 1_000_000);
    let status = crate::view::store::StatusKey { optime, ..Default::default() };
    let releases = |change: &dyn Fn(&mut Node)| {
        let crashed = Node::primary().dead().with(forgotten).with(|state| state.memory.start_failures = 3);
        let mut crashed = crashed.dir(primary_dir(ControlState::InProduction));
        change(&mut crashed);
        let ordered = actions(&crashed.tick());
        ordered.iter().find_map(|order| match order {
            Action::Store(StoreAction::Release { position, .. }) => Some(*position),
            _ => None,
        })
    };
    let published = |node: &mut Node| {
        node.state.store.cluster.as_mut().expect("it has read").value.status = Some(status.clone());
    };
    assert_eq!(releases(&published), Some(optime));
    // The bug: an operator had deleted it meanwhile.
    let deleted = |node: &mut Node| {
        node.state.store.cluster.as_mut().expect("it has read").value.status = None;
        node.state.memory.told_status = Some(status.clone());
    };
    assert_eq!(releases(&deleted), Some(optime));
    // The bug (seed 16016328): it was stopped before it was promoted, on a branch that is longer than what was published, and
    // nobody was found to have as much.
    let checkpoint = Lsn(optime.0 + 5000);
    let never = |dir: crate::view::postgres::Cluster| {
        releases(&|node: &mut Node| {
            published(node);
            node.state.postgres.data = DataDir::Cluster(crate::view::postgres::Cluster { checkpoint, ..dir.clone() });
        })
    };
    assert_eq!(never(primary_dir(ControlState::InProduction)), Some(checkpoint), "it had written so much itself");
    assert_eq!(never(standby_dir()), Some(optime));
}

/// A first start that fails publishes nothing: whoever tried again would wait for a cluster that never was.
#[test]
fn a_leader_of_a_cluster_that_was_never_completed_publishes_no_position() {
    let published = |born: bool| {
        let dir = primary_dir(ControlState::ShutDown);
        let node = Node::primary().dead().dir(dir).with(forgotten).with(|state| state.memory.start_failures = 3);
        let mut node = node.cluster(|cluster| cluster.initialize = cluster.initialize.filter(|_| born));
        let ordered = actions(&node.tick());
        ordered.iter().find_map(|order| match order {
            Action::Store(StoreAction::Release { position, .. }) => Some(*position > Lsn(0)),
            _ => None,
        })
    };
    assert_eq!((published(true), published(false)), (Some(true), Some(false)));
}

/// What a write left behind that nobody answered is written again before anybody else is let in.
#[test]
fn a_tenure_is_not_taken_for_forgotten_while_it_is_not_known_what_is_on_disk() {
    for doubt in [false, true] {
        let mut node = Node::handing_over().with(forgotten).with(|state| {
            state.memory.epoch_in_doubt = doubt;
            state.peers.answers.insert(Member::new("b"), Seen::new(answer(HERE, None), at(0), at(0)));
        });
        let ordered = actions(&node.tick());
        let releases = ordered.iter().any(|action| matches!(action, Action::Store(StoreAction::Release { .. })));
        assert_eq!((ordered.contains(&forgets()), releases), (doubt, !doubt), "{ordered:?}");
    }
}

#[test]
fn a_hand_over_that_nobody_took_goes_on_under_its_tenure() {
    let mut node = Node::handing_over().cluster(|cluster| cluster.failover = None).with(forgotten);
    let again = actions(&node.tick());
    assert!(again.contains(&Action::Host(crate::action::HostAction::WriteEpoch(epoch_file()))), "{again:?}");
    let ordered = actions(&node.step(written(&node, Outcome::Done(()))));
    assert!(ordered.contains(&Action::Postgres(PostgresAction::Start(StartAs::Primary))), "{ordered:?}");
}

#[test]
fn who_cannot_write_its_epoch_file_lets_others_lead() {
    let mut node = Node::primary().dir(standby_dir()).sql(standby_sql(None)).with(|state| state.epoch_file = None);
    node.tick();
    for _ in 0..5 {
        node.step(written(&node, Outcome::Unknown("No space left on device".into())));
        node = node.later(1_000);
        assert_eq!(node.concludes().0, Rung::Leader);
        node.tick();
    }
    assert_eq!(node.concludes(), (Rung::Leader, "releasing", Fate::Keep));
    let released = node.state.ops.in_lane(&Lane::Lead).map(|in_flight| &in_flight.action);
    assert!(matches!(released, Some(Action::Store(StoreAction::Release { .. }))), "its standby writes nothing");
    // The disk was freed since: what it did under one tenure says nothing of the next.
    node.state.spend_tenure();
    node.tick();
    node.state.spent = None;
    node.state.ops = Node::stopped().state.ops;
    node.state.tenure = Node::primary().state.tenure;
    node.state.guard.armed = Some(Armed { tenure: OURS, at: node.now + seconds(20) });
    node.tick();
    let again = node.state.ops.in_lane(&Lane::Host).map(|in_flight| &in_flight.action);
    assert!(matches!(again, Some(Action::Host(crate::action::HostAction::WriteEpoch(_)))), "{again:?}");
    // A primary that serves goes on: what it lacks is only the start in place after a crash.
    let serving = Node::primary().with(|state| {
        state.epoch_file = None;
        state.memory.epoch_failing = Some(at(0).back(seconds(60)));
    });
    assert_eq!(serving.concludes().1, "tenure_held");
}

#[test]
fn what_was_found_out_of_one_leader_is_not_believed_of_the_next() {
    let mut node = Node::standby().dead();
    assert!(actions(&node.tick()).contains(&Action::Postgres(PostgresAction::Compare(upstream("b")))));
    let mut next = led_by("c", 120);
    next.leader = Some(leader("c", LeaseId(9), Revision(120)));
    node.step(watched(&node, next));
    let effects = node.step(ended(&node, &Lane::PgControl, Outcome::Done(PostgresDone::Compared(None))));
    assert_eq!(node.state.memory.compared, Some((THEIR_EPOCH, None)));
    assert!(actions(&effects).contains(&Action::Postgres(PostgresAction::Compare(upstream("c")))));
}

#[test]
fn a_standby_whose_process_is_seen_before_its_signal_file_is_not_killed() {
    let start = Action::Postgres(PostgresAction::Start(StartAs::Standby(Some(upstream("b")))));
    let mut node = Node::standby().dead().dir(primary_dir(ControlState::ShutDown)).doing(start, 5);
    let effects = node.step(process(alive(Phase::Starting)));
    assert!(!actions(&effects).contains(&FIRE));
    node.step(ended(&node, &Lane::PgControl, Outcome::Done(PostgresDone::Done)));
    assert!(node.view().may_write(), "after its end only what was seen counts");
}

#[test]
fn a_pledged_answer_waits_for_a_position_from_after_the_receiver_stopped() {
    let pledge = Pledge { absent_at: Revision(101), since: at(0), frozen: true, on_disk: true };
    let mut node = Node::racing().with(|state| (state.pledge, state.memory.changed) = (Some(pledge), at(1))).later(2);
    let asked = PeerEvent::PositionAsked { request: RequestId(5), absent_at: Revision(101) };
    let effects = node.step(Event::Peer(asked));
    assert!(answers(&effects).is_empty());
    let op = node.op(&Lane::PgObserve);
    let mut sql = standby_sql(None);
    sql.received = Lsn(HERE.0 + 64);
    let effects =
        node.step(Event::Postgres(PostgresEvent::Answered { op, sql: Some(Seen::new(sql, node.now, node.now)) }));
    let told = answers(&effects);
    assert!(matches!(&told[&RequestId(5)], Answer::Position(answer)
        if answer.flushed == Lsn(HERE.0 + 64) && answer.pledge == Some(Revision(101))));
}

#[test]
fn a_receiver_that_came_back_is_not_frozen_whatever_was_confirmed_before() {
    let pledge = Pledge { absent_at: Revision(101), since: at(0), frozen: true, on_disk: true };
    let mut node = Node::racing().with(|state| state.pledge = Some(pledge)).later(300);
    node.tick();
    let op = node.op(&Lane::PgObserve);
    let sql = Seen::new(standby_sql(Some("b")), node.now, node.now);
    node.step(Event::Postgres(PostgresEvent::Answered { op, sql: Some(sql) }));
    assert_eq!(node.state.pledge.map(|pledge| pledge.frozen), Some(false));
}

#[test]
fn data_that_come_after_the_process_do_not_let_an_agent_take_the_key_of_another() {
    let mut node = Node::primary().with(|state| {
        state.tenure = Tenure::Adopting { deadline: at(9_000) };
        state.postgres.data = DataDir::Unknown;
        state.store.cluster = None;
    });
    let effects = node.step(watched(&node, led_by("b", 101)));
    assert_eq!(node.state.tenure, Tenure::None);
    assert!(actions(&effects).contains(&FIRE));
}

/// The race: a node whose PostgreSQL cannot start wins the key, gives it up after three attempts, wins it again at
/// once, and gives it up without an attempt: thousands of tenures a minute, and nobody else gets a turn.
#[test]
fn who_gave_up_because_it_could_not_serve_does_not_race_at_once() {
    let node = Node::racing();
    let now = node.now;
    let node = node.with(|state| state.memory.gave_up = Some(now));
    let (rung, verdict) = crate::decide::decide(&node.view());
    assert_eq!((rung, verdict.reason.code()), (Rung::Race, "gave_up"));
    let (_, verdict) = crate::decide::decide(&node.later(60_000).view());
    assert_ne!(verdict.reason.code(), "gave_up");
}
