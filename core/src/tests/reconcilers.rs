//! What goes beside the verdict: tenure, member record, keys of the cluster, history, slots, parameters, observations.

use super::slots::slots;
use crate::action::{Action, GuardAction, HostAction, Lane, PostgresAction, StoreAction};
use crate::config::Config;
use crate::event::{Event, GuardEvent, PostgresEvent, StoreDone, StoreEvent};
use crate::id::{LeaseId, Lsn, Member, Revision, SystemId, Timeline};
use crate::lease::Tenure;
use crate::op::{Outcome, Refusal};
use crate::reason::Reason;
use crate::testing::*;
use crate::time::Duration;
use crate::timeline::{Ancestor, History};
use crate::view::guard::Armed;
use crate::view::postgres::{Cluster, ControlState, Sql};
use crate::view::store::{HistoryLine, MemberRecord};

pub(super) fn ordered(mut node: Node) -> Vec<Action> {
    actions(&node.tick())
}

pub(super) fn orders(node: Node, wanted: impl Fn(&Action) -> bool) -> bool {
    ordered(node).iter().any(wanted)
}

/// Why the orders are given that are wanted.
fn because(mut node: Node, wanted: impl Fn(&Action) -> bool) -> Vec<Reason> {
    node.tick().orders.into_iter().filter(|order| wanted(&order.action)).map(|order| order.because).collect()
}

#[test]
fn a_primary_at_its_goal_orders_nothing() {
    assert_eq!(ordered(Node::primary()), []);
    assert_eq!(ordered(Node::standby()), []);
}

#[test]
fn the_tenure_is_renewed_every_third_of_its_ttl_dated_from_the_sending() {
    let renews = |action: &Action| matches!(action, Action::Store(StoreAction::Renew { lease: OURS, .. }));
    assert!(!orders(Node::primary().cluster(|cluster| cluster.members.clear()).later(9_999), renews));
    let mut node = Node::primary().later(10_000);
    node.tick();
    let op = node.op(&Lane::Renew);
    node.now = node.now + millis(400);
    let outcome = Outcome::Done(StoreDone::Renewed { ttl: seconds(30), revision: Revision(0) });
    let effects = node.step(Event::Store(StoreEvent::Completed { op, outcome, asked: at(10_000) }));
    assert_eq!(node.state.tenure.held().map(|held| held.confirmed), Some(at(10_000)));
    let arm = GuardAction::Arm { tenure: OURS, at: at(10_000) + millis(29_690) };
    assert!(actions(&effects).contains(&Action::Guard(arm)));
}

#[test]
fn a_renewal_that_is_refused_suspends_and_one_that_is_unknown_changes_nothing() {
    let ended = |outcome| {
        let mut node = Node::primary().later(10_000);
        node.tick();
        let op = node.op(&Lane::Renew);
        node.step(Event::Store(StoreEvent::Completed { op, outcome, asked: at(10_000) }));
        node.state.tenure
    };
    assert!(matches!(ended(Outcome::Refused(Refusal::LeaseGone)), Tenure::Suspended { .. }));
    assert!(matches!(ended(Outcome::Unknown("no answer".into())), Tenure::Held(_)));
}

#[test]
fn a_guard_that_is_missing_is_started_once_a_second() {
    let starts = Action::Host(HostAction::StartGuard);
    let mut node = Node::standby().with(|state| state.guard.present = false);
    assert!(actions(&node.tick()).contains(&starts));
    let failed = node.step(Event::Guard(GuardEvent::Gone));
    assert!(!actions(&failed).contains(&starts));
    node = node.later(1_000);
    assert!(actions(&node.tick()).contains(&starts));
}

#[test]
fn a_guard_is_disarmed_only_when_nothing_may_write_or_is_about_to() {
    let disarm = |action: &Action| *action == Action::Guard(GuardAction::Disarm);
    let armed = Some(Armed { tenure: OURS, at: at(9_000) });
    let standby = Node::standby().with(|state| state.guard.armed = armed);
    assert!(orders(standby.clone(), disarm));
    let promoting = standby.clone().with(|state| state.memory.promotion = true);
    assert!(!orders(promoting, disarm));
    let start = Action::Postgres(PostgresAction::Start(crate::view::postgres::StartAs::Primary));
    let starting = Node::primary().dead().with(|state| state.tenure = Tenure::None).doing(start, 5);
    assert!(!orders(starting, disarm));
    let start = Action::Postgres(PostgresAction::Start(crate::view::postgres::StartAs::Standby(None)));
    assert!(!orders(standby.dead().doing(start, 5), disarm), "nor while a standby is, for whatever comes up");
    // The guard was armed for a PostgreSQL that nobody vouched for: it goes on writing until it is stopped.
    let for_nobody = Some(Armed { tenure: LeaseId(0), at: at(9_000) });
    let writes = Node::primary().with(|state| (state.tenure, state.guard.armed) = (Tenure::None, for_nobody));
    assert!(!orders(writes, disarm));
    // The bug: its directory had been moved away, so that it was not found, and the guard had nothing to end any more.
    let lost = |orphans: Option<u32>| {
        let node = Node::primary().dead().with(|state| (state.tenure, state.guard.armed) = (Tenure::None, armed));
        orders(node.with(|state| state.postgres.orphans = orphans), disarm)
    };
    assert_eq!([None, Some(1), Some(0)].map(lost), [false, false, true]);
}

#[test]
fn a_tenure_that_is_over_is_revoked_once_nothing_may_write() {
    let revoke = |action: &Action| matches!(action, Action::Store(StoreAction::Revoke { lease: OURS }));
    let over = |node: Node| node.with(|state| (state.tenure, state.spent) = (Tenure::None, Some(OURS)));
    assert!(!orders(over(Node::primary()), revoke));
    assert!(orders(over(Node::primary().dead()), revoke));
    let start = Action::Postgres(PostgresAction::Start(crate::view::postgres::StartAs::Primary));
    assert!(!orders(over(Node::primary().dead()).doing(start, 5), revoke), "a start may bring it up yet");
    let orphans = over(Node::primary().dead()).with(|state| state.postgres.orphans = None);
    assert!(!orders(orphans, revoke));
}

#[test]
fn a_lease_is_asked_for_in_advance_when_a_hand_over_is_announced() {
    let grants = |action: &Action| matches!(action, Action::Store(StoreAction::GrantTenure { .. }));
    let announced = || Node::standby().with(|state| state.memory.handover_announced = Some(at(0)));
    assert!(orders(announced(), grants));
    assert!(!orders(announced().later(10_000), grants));
    assert!(!orders(announced().config(|config| config.nofailover = true), grants));
}

#[test]
fn a_member_record_is_published_when_it_changes_and_positions_when_they_are_old() {
    let put = |action: &Action| matches!(action, Action::Store(StoreAction::PutMember { .. }));
    assert!(orders(Node::standby().config(|config| config.nofailover = true), put));
    let moved = || {
        let mut sql = standby_sql(Some("b"));
        sql.received = Lsn(HERE.0 + 8);
        Node::standby().sql(sql).with(|state| state.session.kept = at(5_000))
    };
    assert!(!orders(moved().later(5_000), put));
    assert!(orders(moved().later(10_000), put));
    let keep = |action: &Action| matches!(action, Action::Store(StoreAction::KeepSession { .. }));
    assert!(orders(Node::standby().later(10_000), keep));
    let grant = |action: &Action| matches!(action, Action::Store(StoreAction::GrantSession { .. }));
    assert!(orders(Node::standby().with(|state| state.session.lease = None), grant));
}

#[test]
fn a_member_record_says_in_patronis_words_what_the_node_is() {
    let record = |node: &Node| {
        let MemberRecord { state, role, .. } = crate::decide::members::record(&node.view());
        (state, role)
    };
    let words = |node: Node| record(&node);
    let is = |state: &str, role: &str| (state.to_owned(), role.to_owned());
    assert_eq!(words(Node::primary()), is("running", "primary"));
    assert_eq!(words(Node::standby()), is("running", "replica"));
    assert_eq!(words(Node::stopped()), is("stopped", "replica"));
    for state in [ControlState::InProduction, ControlState::InArchiveRecovery, ControlState::ShuttingDown] {
        assert_eq!(words(Node::stopped().dir(primary_dir(state))).0, "crashed");
    }
    let cloned = Cluster { backup_label: true, ..primary_dir(ControlState::InProduction) };
    assert_eq!(words(Node::stopped().dir(cloned)).0, "stopped", "it never ran here");
    assert_eq!(words(Node::stopped().with(|state| state.memory.start_failures = 1)), is("start failed", "replica"));
    let rewinding = Action::Postgres(PostgresAction::Rewind(upstream("b")));
    assert_eq!(words(Node::stopped().doing(rewinding, 1)), is("stopped", "replica"));
    assert_eq!(words(Node::primary().with(|state| state.tenure = Tenure::None)), is("running", "demoted"));
    let promoting = promotion();
    assert_eq!(words(Node::standby().doing(promoting, 1)), is("running", "promoted"));
    let cloning = Action::Postgres(PostgresAction::Clone(upstream("b")));
    let empty = Node::stopped().with(|state| state.postgres.data = crate::view::postgres::DataDir::Empty);
    assert_eq!(words(empty.doing(cloning, 1)), is("creating replica", "uninitialized"));
}

#[test]
fn two_nodes_under_one_name_do_not_overwrite_each_other_as_fast_as_the_store_answers() {
    let foreign = || {
        let mut view = led_by("b", 101);
        view.members.get_mut(&Member::new("a")).unwrap().lease = LeaseId(999);
        Event::Store(StoreEvent::Watched(crate::time::Seen::new(view, at(0), at(0))))
    };
    let put = |effects: &crate::effects::Effects| {
        actions(effects).iter().any(|action| matches!(action, Action::Store(StoreAction::PutMember { .. })))
    };
    let mut node = Node::standby();
    assert!(!put(&node.step(foreign())), "just published");
    let mut node = Node::standby().with(|state| state.session.published_at = at(0).back(seconds(1)));
    assert!(put(&node.step(foreign())));
}

#[test]
fn a_leader_clears_requests_that_do_not_fit_and_completes_the_keys() {
    let clears = |action: &Action| *action == Action::Store(StoreAction::ClearFailover { revision: Revision(90) });
    for request in [failover(Some("c"), Some("b")), failover(None, Some("a")), failover(Some("a"), Some("a"))] {
        let node = Node::primary().cluster(|cluster| cluster.failover = Some(request.clone()));
        assert!(orders(node, clears), "{request:?}");
    }
    let completes = |action: &Action| matches!(action, Action::Store(StoreAction::CompleteInitialize { .. }));
    assert!(orders(Node::primary().cluster(|cluster| cluster.initialize = None), completes));
    assert!(orders(Node::primary().cluster(|cluster| cluster.config_revision = Revision(0)), completes));
    assert!(!orders(Node::standby().cluster(|cluster| cluster.initialize = None), completes));
    // The bug: all keys were deleted, and PostgreSQL crashed at each promotion, so that `initialize` stayed away: an agent
    // that started then knew of no cluster, and won the key with the data of another one.
    for (knew, due) in [(Some(SYSTEM), true), (Some(SystemId(1)), false), (None, false)] {
        let dead = Node::primary().dead().cluster(|cluster| cluster.initialize = None);
        let dead = dead.with(|state| (state.memory.knew, state.memory.roles_created) = (knew, false));
        let ordered = crate::decide::cluster_keys::order(&dead.view());
        assert_eq!(ordered.is_some_and(|(action, _)| completes(&action)), due, "{knew:?}");
    }
}

#[test]
fn a_key_that_was_written_is_not_written_again_before_the_keys_are_seen() {
    let mut node = Node::primary().cluster(|cluster| cluster.config_revision = Revision(0));
    node.tick();
    let op = node.op(&Lane::Publish);
    let outcome = Outcome::Done(StoreDone::Written);
    let effects = node.step(Event::Store(StoreEvent::Completed { op, outcome, asked: node.now }));
    assert_eq!(actions(&effects), [Action::Store(StoreAction::Read)]);
}

#[test]
fn a_leader_publishes_its_position_every_loop_wait() {
    let put = |action: &Action| {
        matches!(action, Action::Store(StoreAction::PutStatus { epoch: EPOCH, status })
            if status.position == HERE && status.slots.contains(&("a".to_owned(), HERE)))
    };
    let due = || Node::primary().with(|state| state.session.status_at = at(0).back(seconds(10)));
    assert!(orders(due(), put));
    assert!(!orders(Node::primary(), put));
    assert!(!orders(due().with(|state| state.guard.armed = None), put), "not without authority");
}

#[test]
fn a_leader_adds_the_timeline_that_ended_to_the_history_with_its_name() {
    let parted = Ancestor { timeline: Timeline(1), end: HERE, reason: "no recovery target specified".into() };
    let dir = Cluster {
        checkpoint_timeline: Timeline(2),
        history: History { ancestors: vec![parted], timeline: Timeline(2) },
        ..primary_dir(ControlState::InProduction)
    };
    let node = Node::primary().dir(dir).sql(Sql { timeline: Timeline(2), ..primary_sql() }).published();
    let written = ordered(node.clone()).into_iter().find_map(|action| match action {
        Action::Store(StoreAction::PutHistory { lines, epoch: EPOCH, status, .. }) => Some((lines, status)),
        _ => None,
    });
    let (lines, status) = written.expect("the history is written");
    assert_eq!((status.position, status.timeline), (HERE, Timeline(2)), "and where it is, in one");
    assert_eq!((lines.len(), lines[0].end, lines[0].leader.as_deref()), (1, HERE, Some("a")));
    let known = node.clone().cluster(|cluster| cluster.history.lines = lines);
    let puts_history = |action: &Action| matches!(action, Action::Store(StoreAction::PutHistory { .. }));
    assert!(!orders(known.clone(), puts_history));
    // The bug (seed 473454): one that was promoted by hand in a pause led, and then the old leader again, on its timeline.
    // By the history everybody had left it.
    let first = |told: &[HistoryLine]| {
        let told = told.to_vec();
        ordered(Node::primary().published().cluster(|cluster| cluster.history.lines = told))
            .into_iter()
            .find(puts_history)
    };
    let lines = &known.view().cluster().expect("they are known").history.lines;
    assert!(matches!(first(lines), Some(Action::Store(StoreAction::PutHistory { lines, .. })) if lines.is_empty()));
    assert_eq!(first(&[]), None);
    // Where that was deleted, or overwritten with nonsense, others go by what they remember of it.
    let tells_anew = |node: Node| ordered(node.published()).iter().any(puts_history);
    let remembered = || Node::primary().with(|state| state.memory.told_history.clone_from(lines));
    assert!(tells_anew(remembered()));
    assert!(!tells_anew(remembered().cluster(|cluster| cluster.history.revision = Revision(50))));
    let nonsense =
        |unreadable| move |cluster: &mut crate::view::store::ClusterView| cluster.history.unreadable = unreadable;
    assert_eq!(
        [true, false].map(|unreadable| tells_anew(Node::primary().cluster(nonsense(unreadable)))),
        [true, false]
    );
}

#[test]
fn a_new_generation_of_parameters_is_written_while_the_role_is_settled_and_only_then() {
    let changed = |config: &mut Config| config.parameters_generation = 2;
    let configure = Action::Postgres(PostgresAction::Configure { generation: 2 });
    assert_eq!(ordered(Node::primary().config(changed)), std::slice::from_ref(&configure));
    let unsettled = Node::racing().config(changed);
    assert!(!orders(unsettled, |action| *action == configure));
}

#[test]
fn what_is_known_is_asked_for_again_when_it_is_old() {
    let observe = |action: &Action| *action == Action::Postgres(PostgresAction::Observe);
    let read = |action: &Action| *action == Action::Store(StoreAction::Read);
    assert!(!orders(Node::standby().later(9_999), read));
    assert!(orders(Node::standby().later(10_000), read));
    assert!(orders(Node::standby().later(10_000), observe));
    let unsettled = || Node::standby().config(|config| config.nofailover = true).cluster(|c| c.leader = None);
    assert!(orders(unsettled().later(200), observe));
    let look = |action: &Action| *action == Action::Postgres(PostgresAction::Look);
    let unknown = Node::stopped().with(|state| state.postgres.data = crate::view::postgres::DataDir::Unknown);
    assert!(orders(unknown, look));
}

#[test]
fn a_primary_that_hears_nobody_asks_everyone_twice_a_second() {
    let asks = |node: &mut Node| {
        let ask = |action: &&Action| matches!(action, Action::Peer(_));
        actions(&node.tick()).iter().filter(ask).count()
    };
    let mut node = Node::primary().later(2_500);
    assert_eq!(asks(&mut node), 2);
    let mut early = Node::primary().later(2_499);
    assert_eq!(asks(&mut early), 0);
    // Before isolation can be concluded, however early that is.
    let mut hasty = Node::primary().config(|config| config.isolation_timeout = millis(400)).later(334);
    assert_eq!(asks(&mut hasty), 2);
}

#[test]
fn an_agent_in_an_unsupported_cluster_publishes_nothing_unless_it_leads() {
    let observing = |node: Node| node.config(|config| config.unsupported = Some("pause".into())).later(10_000);
    let writes = |action: &Action| {
        matches!(action, Action::Store(StoreAction::PutMember { .. } | StoreAction::KeepSession { .. }))
    };
    assert!(!orders(observing(Node::standby()), writes));
    let renews = |action: &Action| matches!(action, Action::Store(StoreAction::Renew { .. }));
    assert!(orders(observing(Node::primary()), renews));
}

/// The bug (seed 483665): an agent that left beside another cluster's data, and was started again each time, told of it.
#[test]
fn what_is_another_clusters_is_no_member_of_this_one() {
    let publishes = |node: Node| {
        let due = node.with(|state| state.session.published = None);
        orders(due, |action| matches!(action, Action::Store(StoreAction::PutMember { .. })))
    };
    let other = || Cluster { system_id: SystemId(9), ..standby_dir() };
    assert!(publishes(Node::standby()) && !publishes(Node::standby().dir(other())));
    let unnamed = Node::standby().dir(other()).cluster(|cluster| cluster.initialize = None);
    assert!(publishes(unnamed), "perhaps it is the last that has data");
    assert!(!publishes(Node::standby().with(|state| state.store.cluster = None)), "whose it is is not known");
}

/// What the store has not changed since need not be read.
#[test]
fn a_renewal_proven_at_the_known_revision_confirms_the_keys() {
    let read = |node: &Node| node.view().cluster().map(|_| node.state.store.cluster.as_ref().map(|seen| seen.asked));
    for (revision, confirmed) in [(Revision(100), true), (Revision(101), false)] {
        let mut node = Node::primary().later(9_000).doing(renewal(), 0);
        let (op, asked) = (node.op(&Lane::Renew), node.now);
        let outcome = Outcome::Done(StoreDone::Renewed { ttl: seconds(30), revision });
        node.step(Event::Store(StoreEvent::Completed { op, outcome, asked }));
        assert_eq!(read(&node) == Some(Some(asked)), confirmed);
        let due = |action: &Action| *action == Action::Store(StoreAction::Read);
        assert_eq!(orders(node.later(1_000), due), !confirmed);
    }
}

/// Both are due at once, for ever: each is dated by the same renewal.
#[test]
fn nothing_is_read_beside_a_renewal_unless_that_fails() {
    let read = |effects: &crate::effects::Effects| actions(effects).contains(&Action::Store(StoreAction::Read));
    // With others who might take over it would have to hear from somebody, too.
    let mut node = Node::primary().cluster(|cluster| cluster.members.clear()).later(10_000);
    let effects = node.tick();
    assert!(actions(&effects).iter().any(|action| matches!(action, Action::Store(StoreAction::Renew { .. }))));
    assert!(!read(&effects));
    let (op, asked) = (node.op(&Lane::Renew), node.now);
    let failed = Event::Store(StoreEvent::Completed { op, outcome: Outcome::Unknown("no answer".into()), asked });
    assert!(read(&node.step(failed)));
}

#[test]
fn a_renewal_that_is_due_before_the_next_question_for_contact_is_the_question() {
    let renews = |action: &Action| matches!(action, Action::Store(StoreAction::Renew { .. }));
    let asks = |action: &Action| matches!(action, Action::Store(StoreAction::KeepSession { .. } | StoreAction::Read));
    assert!(orders(Node::primary().later(7_750), asks) && !orders(Node::primary().later(7_750), renews));
    let mut node = Node::primary().later(7_751);
    let effects = node.tick();
    assert!(actions(&effects).iter().any(renews) && !actions(&effects).iter().any(asks));
    // It hangs in one member of the store, perhaps: before writes are held, others are asked.
    let mut node = node.later(249);
    assert!(!actions(&node.tick()).iter().any(asks));
    assert!(actions(&node.later(1).tick()).iter().any(asks));
}

/// Once asked, a question for contact is not followed by a dearer one because its lane is taken now.
#[test]
fn one_question_for_contact_is_asked_at_a_time() {
    let asks = |action: &Action| matches!(action, Action::Store(StoreAction::KeepSession { .. } | StoreAction::Read));
    let mut node = Node::primary().later(2_300);
    let asked = |node: &mut Node| actions(&node.tick()).into_iter().filter(|action| asks(action)).count();
    assert_eq!(asked(&mut node), 1);
    assert_eq!(asked(&mut node), 0);
    node.now = node.now + millis(200);
    assert_eq!(asked(&mut node), 0);
    // But one that has no answer is, before everybody is asked.
    node.now = node.now + millis(50);
    assert_eq!(asked(&mut node), 1);
    // What is being written is no question: its answer may take long.
    let write = Action::Store(StoreAction::ClearFailover { revision: Revision(90) });
    assert_eq!(asked(&mut Node::primary().later(2_300).doing(write, 0)), 1);
}

/// The exhaustive search found it: with a `loop_wait` below the patience for contact, PostgreSQL was asked again as fast as
/// it answered, until somebody else did.
#[test]
fn a_primary_that_hears_nobody_does_not_ask_postgresql_as_fast_as_it_answers() {
    let observes =
        |effects: &crate::effects::Effects| actions(effects).contains(&Action::Postgres(PostgresAction::Observe));
    let mut node = Node::primary().config(|config| config.loop_wait = seconds(1)).later(2_300);
    assert!(observes(&node.tick()));
    let op = node.op(&Lane::PgObserve);
    let asked = node.now;
    node.now = node.now + millis(1);
    let sql = node.state.postgres.sql.clone().map(|seen| crate::time::Seen::new(seen.value, asked, node.now));
    assert!(!observes(&node.step(Event::Postgres(PostgresEvent::Answered { op, sql }))));
    node.now = asked + millis(500);
    assert!(observes(&node.tick()), "the next question for contact");
}

#[test]
fn what_goes_with_the_tenure_and_the_keys_says_why() {
    let renews = |action: &Action| matches!(action, Action::Store(StoreAction::Renew { .. }));
    assert_eq!(because(Node::primary().later(10_000), renews), [Reason::RenewalDue]);
    let grants = |action: &Action| matches!(action, Action::Store(StoreAction::GrantTenure { .. }));
    let announced = Node::standby().with(|state| state.memory.handover_announced = Some(at(0)));
    assert_eq!(because(announced, grants), [Reason::HandoverExpected]);
    let puts = |action: &Action| matches!(action, Action::Store(StoreAction::PutMember { .. }));
    assert_eq!(because(Node::standby().config(|config| config.nofailover = true), puts), [Reason::PublishDue]);
    let keeps = |action: &Action| matches!(action, Action::Store(StoreAction::KeepSession { .. }));
    assert_eq!(because(Node::standby().later(10_000), keeps), [Reason::PublishDue]);
    let asks = |action: &Action| matches!(action, Action::Store(StoreAction::GrantSession { .. }));
    assert_eq!(because(Node::standby().with(|state| state.session.lease = None), asks), [Reason::PublishDue]);
    let tells = |action: &Action| matches!(action, Action::Store(StoreAction::PutStatus { .. }));
    let due = Node::primary().with(|state| state.session.status_at = at(0).back(seconds(10)));
    assert_eq!(because(due, tells), [Reason::StatusDue]);
}

#[test]
fn a_change_of_postgresql_says_why() {
    let changes = |action: &Action| matches!(action, Action::Postgres(_));
    let slot = |name: &str| name.to_owned();
    let missing = Node::primary().sql(slots(&[("b", true, false)]));
    assert_eq!(because(missing, changes), [Reason::SlotMissing { slot: slot("c") }]);
    let own = [("a", false, false), ("b", true, false), ("c", true, false)];
    assert_eq!(because(Node::primary().sql(slots(&own)), changes), [Reason::SlotObsolete { slot: slot("a") }]);
    let lost = [("b", false, true), ("c", true, false)];
    assert_eq!(because(Node::primary().sql(slots(&lost)), changes), [Reason::SlotUnusable { slot: slot("b") }]);
    let gone = [("b", true, false), ("c", true, false), ("gone", false, false)];
    let gone = Node::primary().sql(slots(&gone)).config(|config| config.member_slots_ttl = Duration::ZERO);
    let gone = gone.cluster(|cluster| {
        let retain = vec![slot("gone")];
        cluster.status = Some(crate::view::store::StatusKey { retain, ..Default::default() });
    });
    assert_eq!(because(gone, changes), [Reason::SlotObsolete { slot: slot("gone") }]);
    let changed = Node::standby().config(|config| config.parameters_generation = 2);
    assert_eq!(because(changed, changes), [Reason::ParametersChanged]);
}

#[test]
fn a_question_says_why() {
    let old = || Node::standby().later(10_000);
    let reads = |action: &Action| *action == Action::Store(StoreAction::Read);
    assert_eq!(because(old(), reads), [Reason::ObservationDue]);
    assert_eq!(because(old(), |action| matches!(action, Action::Postgres(_))), [Reason::ObservationDue]);
    let unknown = Node::stopped().with(|state| state.postgres.data = crate::view::postgres::DataDir::Unknown);
    assert_eq!(because(unknown, |action| matches!(action, Action::Postgres(_))), [Reason::ObservationDue]);
    // The store first, and then everyone.
    let keeps = |action: &Action| matches!(action, Action::Store(StoreAction::KeepSession { .. }));
    assert_eq!(because(Node::primary().later(2_300), keeps), [Reason::ObservationDue]);
    let asks = |action: &Action| matches!(action, Action::Peer(_));
    assert_eq!(because(Node::primary().later(2_500), asks), [Reason::ContactDue, Reason::ContactDue]);
}
