//! Every rung, every decision it can come to: verdict, reason, fate and orders.

use crate::action::{Action, GuardAction, HostAction, PeerAction, PostgresAction, StoreAction};
use crate::decide::{Fate, Rung};
use crate::event::{Event, Request};
use crate::id::{LeaseId, Lsn, Member, RequestId, Revision, SystemId};
use crate::lease::{Held, Tenure};
use crate::state::{Granted, Pledge};
use crate::testing::*;
use crate::time::{Instant, Seen};
use crate::timeline::{Ancestor, History};
use crate::view::guard::Armed;
use crate::view::postgres::{Cluster, ControlState, DataDir, Phase, Process, StartAs, StopMode};
use crate::view::store::{EpochRecord, Initialize, StatusKey, Vanished};

const FIRE: Action = Action::Guard(GuardAction::Fire);
const HOLD: Action = Action::Guard(GuardAction::Hold);

fn stop(mode: StopMode) -> Action {
    Action::Postgres(PostgresAction::Stop(mode))
}

fn start_standby(of: Option<&str>) -> Action {
    Action::Postgres(PostgresAction::Start(StartAs::Standby(of.map(upstream))))
}

/// One view, and all that is concluded from it.
fn concludes(node: &Node, rung: Rung, code: &str, fate: Fate, orders: &[Action]) {
    let (got, verdict) = node.decide();
    assert_eq!((got, verdict.reason.code(), verdict.fate), (rung, code, fate), "{verdict:?}");
    assert_eq!(verdict.orders, orders);
}

fn suspended(node: Node) -> Node {
    let since = node.now;
    node.cluster(|cluster| cluster.leader = None).with(|state| {
        if let Tenure::Held(was) = state.tenure {
            state.tenure = Tenure::Suspended { was, since };
        }
    })
}

// --- fence ----------------------------------------------------------------------------------------------------------

#[test]
fn a_tenure_that_could_not_be_renewed_ends_by_the_clock() {
    let node = Node::primary().later(29_690);
    concludes(&node, Rung::Fence, "tenure_expired", Fate::LetLapse, &[FIRE]);
    let node = Node::primary().dead().later(29_690);
    concludes(&node, Rung::Fence, "tenure_expired", Fate::LetLapse, &[]);
    assert_eq!(Node::primary().later(29_689).decide().0, Rung::Isolated);
}

#[test]
fn a_primary_without_a_guard_is_stopped_after_a_second() {
    let gone = |node: Node| {
        let now = node.now;
        node.with(|state| (state.guard.present, state.guard.gone, state.guard.armed) = (false, Some(now), None))
    };
    let node = gone(Node::primary()).later(1_000);
    concludes(&node, Rung::Fence, "guard_missing", Fate::Release, &[stop(StopMode::Fast)]);
    assert_eq!(gone(Node::primary()).later(999).concludes().0, Rung::Leader);
    let held = node.with(|state| state.guard.held = true);
    concludes(&held, Rung::Fence, "guard_missing", Fate::Release, &[stop(StopMode::Immediate)]);
}

#[test]
fn a_key_that_vanished_holds_the_writes_and_is_asked_for_once_more() {
    let node = suspended(Node::primary());
    let grant = Action::Store(StoreAction::GrantTenure { ttl: seconds(30) });
    concludes(&node, Rung::Fence, "key_vanished", Fate::Keep, &[HOLD, grant]);
    let now = node.now;
    let node = node.with(|state| {
        state.granted = Some(Granted { lease: LeaseId(9), ttl: seconds(30), asked: now });
    });
    let orders = node.wants();
    assert!(matches!(&orders[1], Action::Store(StoreAction::Acquire(acquire)) if acquire.lease == LeaseId(9)));
}

#[test]
fn a_lease_from_before_the_key_vanished_is_not_used_to_take_it_back() {
    let node = suspended(Node::primary());
    let before = node.now.back(millis(1));
    let node = node.with(|state| {
        state.granted = Some(Granted { lease: LeaseId(9), ttl: seconds(30), asked: before });
    });
    assert!(matches!(node.wants()[1], Action::Store(StoreAction::GrantTenure { .. })));
}

#[test]
fn a_key_that_does_not_come_back_in_half_a_second_kills() {
    concludes(&suspended(Node::primary()).later(500), Rung::Fence, "key_not_regained", Fate::LetLapse, &[FIRE]);
}

#[test]
fn without_a_guard_to_hold_the_writes_a_vanished_key_kills_at_once() {
    let node = suspended(Node::primary()).with(|state| state.guard.present = false);
    let orders = [FIRE, stop(StopMode::Immediate)];
    concludes(&node, Rung::Fence, "key_not_regained", Fate::LetLapse, &orders);
}

#[test]
fn a_primary_without_tenure_is_killed_and_the_reason_names_who_leads() {
    let node = Node::primary().with(|state| state.tenure = Tenure::None);
    concludes(&node, Rung::Fence, "no_tenure", Fate::Keep, &[FIRE]);
    let node = node.cluster(|cluster| *cluster = led_by("b", 101));
    concludes(&node, Rung::Fence, "leader_is_other", Fate::Keep, &[FIRE]);
}

#[test]
fn a_guard_that_does_not_answer_is_not_waited_for() {
    let mut node = Node::primary().with(|state| state.tenure = Tenure::None);
    assert!(actions(&node.tick()).contains(&FIRE));
    node = node.later(499);
    assert!(!actions(&node.tick()).contains(&stop(StopMode::Immediate)));
    node = node.later(1);
    assert!(actions(&node.tick()).contains(&stop(StopMode::Immediate)));
}

#[test]
fn orphans_are_killed_before_anything_else() {
    for orphans in [None, Some(3)] {
        for node in [Node::stopped(), Node::primary().dead()] {
            let node = node.with(|state| state.postgres.orphans = orphans);
            let kill = Action::Guard(GuardAction::KillOrphans);
            concludes(&node, Rung::Fence, "orphans_alive", Fate::Keep, &[kill]);
        }
    }
}

#[test]
fn a_start_under_way_is_no_orphan() {
    let start = Action::Postgres(PostgresAction::Start(StartAs::Primary));
    let node = Node::primary().dead().with(|state| state.postgres.orphans = None).doing(start, 10);
    assert_ne!(node.concludes().1, "orphans_alive");
}

fn adopting(node: Node) -> Node {
    let deadline = node.now + seconds(10);
    node.with(|state| state.tenure = Tenure::Adopting { deadline })
}

#[test]
fn a_start_beside_a_primary_proves_its_tenure_by_the_epoch_on_disk() {
    let node = adopting(Node::primary());
    let renew = StoreAction::Renew { lease: OURS, epoch: EPOCH, deadline: seconds(2) };
    concludes(&node, Rung::Fence, "adopting", Fate::Keep, &[Action::Store(renew)]);
}

#[test]
fn a_start_without_that_proof_puts_a_lease_of_its_own_under_a_key_of_its_name() {
    let node = adopting(Node::primary()).with(|state| state.epoch_file = None);
    assert!(matches!(node.wants()[..], [Action::Store(StoreAction::GrantTenure { .. })]));
    let now = node.now;
    let node = node.with(|state| {
        state.granted = Some(Granted { lease: LeaseId(9), ttl: seconds(30), asked: now });
    });
    let take = StoreAction::TakeOver { lease: LeaseId(9), modified: EPOCH };
    assert_eq!(node.wants(), [Action::Store(take)]);
}

#[test]
fn a_start_beside_a_primary_asks_for_a_key_that_nobody_holds() {
    let node = adopting(Node::primary()).cluster(|cluster| cluster.leader = None);
    assert!(matches!(node.wants()[..], [Action::Store(StoreAction::GrantTenure { .. })]));
}

#[test]
fn a_start_never_takes_the_key_of_another_even_before_the_data_are_known() {
    let mut node = adopting(Node::primary()).with(|state| state.postgres.data = DataDir::Unknown);
    node.set_cluster(led_by("b", 101));
    concludes(&node, Rung::Fence, "adopting", Fate::Keep, &[]);
    let ordered = actions(&node.tick());
    assert!(ordered.contains(&FIRE), "{ordered:?}");
    let takes = |action: &Action| {
        matches!(action, Action::Store(StoreAction::GrantTenure { .. } | StoreAction::TakeOver { .. }))
    };
    assert!(!ordered.iter().any(takes), "{ordered:?}");
}

#[test]
fn another_node_of_the_same_name_does_not_lose_its_key_to_this_one() {
    let node = adopting(Node::primary()).with(|state| state.epoch_file = None).cluster(|cluster| {
        cluster.epoch = Some(EpochRecord {
            revision: EPOCH,
            store: STORE,
            epoch: EPOCH,
            member: Member::new("a"),
            timeline: crate::id::Timeline(1),
            position: HERE,
        });
    });
    concludes(&node, Rung::Fence, "no_tenure", Fate::Keep, &[FIRE]);
}

#[test]
fn a_search_for_a_tenure_ends_at_the_guards_instant() {
    concludes(&adopting(Node::primary()).later(10_000), Rung::Fence, "no_tenure", Fate::LetLapse, &[FIRE]);
    let node = adopting(Node::stopped()).with(|state| state.postgres.process = Process::Unknown);
    concludes(&node, Rung::Fence, "observing", Fate::Keep, &[]);
}

// --- unsupported, identity, isolated, startup, busy -----------------------------------------------------------------

#[test]
fn an_unsupported_mode_is_observed_and_nothing_is_done() {
    for node in [Node::racing(), Node::standby(), Node::stopped(), Node::primary()] {
        let node = node.config(|config| config.unsupported = Some("pause".into()));
        concludes(&node, Rung::Unsupported, "unsupported_mode", Fate::Keep, &[]);
    }
}

#[test]
fn the_data_of_another_cluster_halt_the_agent() {
    let node = Node::stopped().dir(Cluster { system_id: SystemId(1), ..standby_dir() });
    let (rung, verdict) = node.decide();
    assert_eq!((rung, verdict.reason.code(), verdict.fate), (Rung::Identity, "system_id_mismatch", Fate::LetLapse));
    assert!(
        matches!(&verdict.orders[..], [Action::Host(HostAction::Exit { code: 1, message })] if message.contains('1'))
    );
}

#[test]
fn a_data_directory_that_cannot_be_used_halts_the_agent() {
    for data in [DataDir::Unreadable("permission denied".into()), DataDir::Foreign("a file".into())] {
        let node = Node::stopped().with(|state| state.postgres.data = data);
        assert_eq!(node.concludes(), (Rung::Identity, "data_dir_unusable", Fate::LetLapse));
        assert!(matches!(node.wants()[..], [Action::Host(HostAction::Exit { code: 1, .. })]));
    }
}

#[test]
fn nothing_is_decided_before_process_and_data_were_looked_at() {
    let node = Node::stopped().with(|state| state.postgres.data = DataDir::Unknown);
    concludes(&node, Rung::Identity, "observing", Fate::Keep, &[]);
    let node = Node::stopped().with(|state| state.postgres.process = Process::Unknown);
    concludes(&node, Rung::Identity, "observing", Fate::Keep, &[]);
}

#[test]
fn a_primary_that_nobody_answers_holds_its_writes_after_three_seconds() {
    concludes(&Node::primary().later(3_000), Rung::Isolated, "alone", Fate::Keep, &[HOLD]);
    assert_eq!(Node::primary().later(2_999).decide().0, Rung::Leader);
}

#[test]
fn any_contact_ends_isolation_and_a_primary_without_heirs_is_never_isolated() {
    let contact = at(1_000);
    let store = Node::primary().with(|state| state.store.answered = contact).later(3_500);
    let peer = Node::primary().with(|state| state.peers.answered = contact).later(3_500);
    let mut sql = primary_sql();
    sql.senders = vec![crate::view::postgres::Sender { reply_age: Some(millis(500)), ..Default::default() }];
    let walsender =
        Node::primary().with(|state| state.postgres.sql = Some(Seen::new(sql, at(1_500), at(1_500)))).later(3_500);
    let alone = Node::primary().cluster(|cluster| cluster.members.retain(|name, _| name.as_str() == "a")).later(9_000);
    for node in [store, peer, walsender, alone] {
        assert_eq!(node.decide().0, Rung::Leader);
    }
}

#[test]
fn a_leader_waits_for_its_recovery_and_gives_up_when_it_takes_too_long() {
    let began = |ms: u64| at(0).back(millis(ms));
    let node = |ms| Node::primary().phase(Phase::Starting).with(|state| state.memory.starting_since = Some(began(ms)));
    concludes(&node(299_999), Rung::Startup, "starting", Fate::Keep, &[]);
    let orders = [stop(StopMode::Immediate)];
    concludes(&node(300_000), Rung::Startup, "recovery_too_long", Fate::Release, &orders);
    let alone = node(300_000).cluster(|cluster| cluster.members.clear());
    concludes(&alone, Rung::Startup, "starting", Fate::Keep, &[]);
}

#[test]
fn what_takes_long_is_waited_for() {
    let cases = [
        (PostgresAction::Initdb, "initdb_running"),
        (PostgresAction::Clone(upstream("b")), "clone_running"),
        (PostgresAction::Rewind(upstream("b")), "rewind_running"),
        (PostgresAction::RecoverSingleUser, "single_user_running"),
    ];
    for (action, code) in cases {
        let node = Node::stopped().doing(Action::Postgres(action), 1_000);
        concludes(&node, Rung::Busy, code, Fate::Keep, &[]);
    }
    let node = Node::stopped().doing(stop(StopMode::Fast), 1_000);
    assert_ne!(node.decide().0, Rung::Busy);
}

#[test]
fn what_a_tool_of_ours_has_half_written_does_not_halt_the_agent() {
    let cases = [
        (PostgresAction::Initdb, "initdb_running"),
        (PostgresAction::Clone(upstream("b")), "clone_running"),
        (PostgresAction::Rewind(upstream("b")), "rewind_running"),
    ];
    for (action, code) in cases {
        for data in [DataDir::Unreadable("pg_control is too short".into()), DataDir::Foreign("no pg_control".into())] {
            let node = Node::stopped().with(|state| state.postgres.data = data);
            concludes(&node.doing(Action::Postgres(action.clone()), 1_000), Rung::Busy, code, Fate::Keep, &[]);
        }
    }
}

// --- bootstrap ------------------------------------------------------------------------------------------------------

fn empty() -> Node {
    Node::stopped().with(|state| state.postgres.data = DataDir::Empty)
}

fn unborn() -> Node {
    empty().cluster(|cluster| cluster.initialize = None)
}

#[test]
fn the_first_node_asks_to_initialise_and_then_does() {
    let race = Action::Store(StoreAction::RaceInitialize { lease: LeaseId(100) });
    concludes(&unborn(), Rung::Bootstrap, "no_cluster_yet", Fate::Keep, &[race]);
    let node = unborn().with(|state| state.memory.initialising = true);
    let initdb = Action::Postgres(PostgresAction::Initdb);
    concludes(&node, Rung::Bootstrap, "initialising", Fate::Keep, &[initdb]);
}

#[test]
fn a_node_that_may_not_initialise_or_was_too_late_waits() {
    let node = unborn().config(|config| config.may_bootstrap = false);
    concludes(&node, Rung::Bootstrap, "may_not_initialise", Fate::Keep, &[]);
    let node = unborn().config(|config| config.nofailover = true);
    concludes(&node, Rung::Bootstrap, "may_not_initialise", Fate::Keep, &[]);
    let taken = Initialize { revision: Revision(5), system_id: None };
    let node = empty().cluster(|cluster| cluster.initialize = Some(taken));
    concludes(&node, Rung::Bootstrap, "init_taken", Fate::Keep, &[]);
    concludes(&empty(), Rung::Bootstrap, "no_clone_source", Fate::Keep, &[]);
    let node = empty().with(|state| state.store.cluster = None);
    concludes(&node, Rung::Bootstrap, "observing", Fate::Keep, &[]);
}

#[test]
fn an_empty_node_is_cloned_from_whoever_offers_itself_or_from_the_leader() {
    let led = |node: Node| node.cluster(|cluster| *cluster = led_by("b", 100));
    let clone = |name| Action::Postgres(PostgresAction::Clone(upstream(name)));
    concludes(&led(empty()), Rung::Bootstrap, "cloning", Fate::Keep, &[clone("b")]);
    let offered = led(empty()).cluster(|cluster| {
        if let Some(key) = cluster.members.get_mut(&Member::new("c")) {
            key.record.clonefrom = true;
        }
    });
    assert_eq!(offered.wants(), [clone("c")]);
    let tainted = led(Node::stopped()).dir(Cluster { tainted: Some("rewinding".into()), ..standby_dir() });
    concludes(&tainted, Rung::Bootstrap, "tainted", Fate::Keep, &[clone("b")]);
    let reinit = Node::standby().with(|state| state.memory.reinit = true);
    concludes(&reinit, Rung::Bootstrap, "reinit_requested", Fate::Keep, &[stop(StopMode::Immediate)]);
}

#[test]
fn a_node_that_is_to_be_cloned_from_the_leader_is_not_cloned_from_who_offers_itself() {
    let reinit = |from_leader: bool| {
        let mut node = Node::standby().cluster(|cluster| {
            if let Some(key) = cluster.members.get_mut(&Member::new("c")) {
                key.record.clonefrom = true;
            }
        });
        node.step(Event::Operator(RequestId(7), Request::Reinitialize { force: true, from_leader }));
        node.dead().wants()
    };
    let clone = |name| Action::Postgres(PostgresAction::Clone(upstream(name)));
    assert_eq!(reinit(true), [clone("b")]);
    assert_eq!(reinit(false), [clone("c")]);
}

#[test]
fn a_leader_whose_data_are_gone_stops_and_gives_up() {
    let node = Node::primary().with(|state| state.postgres.data = DataDir::Empty);
    concludes(&node, Rung::Bootstrap, "cannot_serve", Fate::Release, &[stop(StopMode::Immediate)]);
    concludes(&node.dead(), Rung::Bootstrap, "cannot_serve", Fate::Release, &[]);
}

// --- leader ---------------------------------------------------------------------------------------------------------

#[test]
fn a_primary_with_its_tenure_serves_and_is_steady() {
    let node = Node::primary();
    concludes(&node, Rung::Leader, "tenure_held", Fate::Keep, &[]);
    assert!(node.decide().1.steady);
}

#[test]
fn nothing_writes_before_the_guard_has_acknowledged_this_tenure() {
    for armed in [None, Some(Armed { tenure: LeaseId(3), at: at(9_000) })] {
        let node = Node::primary().dead().with(|state| state.guard.armed = armed);
        concludes(&node, Rung::Leader, "arming_guard", Fate::Keep, &[]);
    }
    let over = Some(Armed { tenure: OURS, at: at(0) });
    let node = Node::primary().dead().with(|state| state.guard.armed = over);
    concludes(&node, Rung::Fence, "guard_silent", Fate::LetLapse, &[]);
}

/// The race: a store that lost its keys, and a dead former primary of another branch that takes the leader key at once,
/// because a cluster without `initialize` looked like one that it was about to make.
#[test]
fn a_former_primary_is_no_unfinished_bootstrap() {
    let wiped = |node: Node| node.cluster(|cluster| (cluster.initialize, cluster.leader) = (None, None));
    let former = wiped(Node::primary().dead()).with(|state| {
        state.tenure = Tenure::None;
        state.memory.initialising = false;
    });
    assert!(!former.view().unfinished_bootstrap());
    let maker = former.with(|state| state.memory.initialising = true);
    assert!(maker.view().unfinished_bootstrap());
}

#[test]
fn nobody_races_without_a_guard() {
    let node = Node::racing().with(|state| state.guard.present = false);
    let (rung, verdict) = crate::decide::decide(&node.view());
    assert_eq!((rung, verdict.reason.code()), (Rung::Race, "guard_missing"));
}

#[test]
fn a_dead_primary_starts_in_place_only_under_the_epoch_on_disk() {
    let dead = Node::primary().dead();
    let start = Action::Postgres(PostgresAction::Start(StartAs::Primary));
    concludes(&dead, Rung::Leader, "restart_in_place", Fate::Keep, std::slice::from_ref(&start));
    for (what, node) in [
        ("another epoch", dead.clone().with(|state| state.epoch_file.as_mut().unwrap().epoch = Revision(69))),
        ("another store", dead.clone().with(|state| state.epoch_file.as_mut().unwrap().store = crate::id::StoreId(2))),
        ("no file", dead.clone().with(|state| state.epoch_file = None)),
        ("a standby", dead.clone().dir(standby_dir())),
    ] {
        assert_eq!(node.wants(), [start_standby(None)], "{what}");
        assert_eq!(node.concludes().1, "start_to_promote", "{what}");
    }
}

#[test]
fn a_new_cluster_writes_its_epoch_before_its_first_start() {
    let node =
        Node::primary().dead().with(|state| state.epoch_file = None).cluster(|cluster| cluster.initialize = None);
    concludes(&node, Rung::Leader, "writing_epoch", Fate::Keep, &[Action::Host(HostAction::WriteEpoch(epoch_file()))]);
}

#[test]
fn a_leader_that_cannot_start_gives_up() {
    let node = Node::primary().dead().with(|state| state.memory.start_failures = 3);
    concludes(&node, Rung::Leader, "cannot_serve", Fate::Release, &[]);
    let node = Node::primary().dead().config(|config| config.primary_start_timeout = seconds(0));
    concludes(&node, Rung::Leader, "cannot_serve", Fate::Release, &[]);
}

fn winner() -> Node {
    Node::primary().dir(Cluster { state: ControlState::InArchiveRecovery, ..standby_dir() }).sql(standby_sql(None))
}

#[test]
fn a_standby_that_won_writes_its_epoch_and_is_promoted() {
    let promote = Action::Postgres(PostgresAction::Promote);
    concludes(&winner(), Rung::Leader, "promoting", Fate::Keep, &[promote]);
    let node = winner().with(|state| state.epoch_file = None);
    concludes(&node, Rung::Leader, "writing_epoch", Fate::Keep, &[Action::Host(HostAction::WriteEpoch(epoch_file()))]);
}

#[test]
fn an_answer_from_before_a_promotion_does_not_promote_again() {
    let changed = at(1);
    let node = winner().with(|state| state.memory.changed = changed).later(2);
    concludes(&node, Rung::Leader, "observing", Fate::Keep, &[]);
}

#[test]
fn a_leader_waits_while_its_postmaster_stops_or_tells_nothing() {
    concludes(&Node::primary().phase(Phase::Stopping), Rung::Leader, "stopping", Fate::Keep, &[]);
    let node = Node::primary().with(|state| state.postgres.sql = None);
    concludes(&node, Rung::Leader, "observing", Fate::Keep, &[]);
}

#[test]
fn a_new_primary_writes_its_first_checkpoint_at_once_and_not_over_and_over() {
    let sql = crate::view::postgres::Sql { timeline: crate::id::Timeline(2), ..primary_sql() };
    let node = Node::primary().sql(sql).with(|state| state.memory.checkpointed = None);
    assert!(!node.wants().contains(&Action::Postgres(PostgresAction::Checkpoint)), "slots come first");
    let node = node.with(|state| state.config.use_slots = false);
    assert_eq!(node.wants(), [Action::Postgres(PostgresAction::Checkpoint)]);
    let now = node.now;
    assert_eq!(node.with(|state| state.memory.checkpointed = Some(now)).wants(), []);
}

#[test]
fn a_new_cluster_gets_its_roles() {
    let node = Node::primary().cluster(|cluster| cluster.initialize = None).with(|s| s.memory.roles_created = false);
    concludes(&node, Rung::Leader, "creating_roles", Fate::Keep, &[Action::Postgres(PostgresAction::CreateRoles)]);
}

// --- race -----------------------------------------------------------------------------------------------------------

fn granted(node: Node) -> Node {
    let asked = node.now;
    node.with(|state| state.granted = Some(Granted { lease: LeaseId(9), ttl: seconds(30), asked }))
}

#[test]
fn a_node_that_is_ahead_asks_for_a_lease_and_then_for_the_key_with_everything_it_used() {
    assert_eq!(Node::racing().concludes(), (Rung::Race, "asking_lease", Fate::Keep));
    let node = granted(Node::racing()).cluster(|cluster| {
        (cluster.failover_revision, cluster.sync_revision) = (Revision(3), Revision(4));
        cluster.epoch = Some(EpochRecord {
            revision: Revision(80),
            store: STORE,
            epoch: THEIR_EPOCH,
            member: Member::new("b"),
            timeline: crate::id::Timeline(1),
            position: HERE,
        });
    });
    let acquire = crate::action::Acquire {
        lease: LeaseId(9),
        failover: Revision(3),
        config: Revision(6),
        sync: Revision(4),
        record: Revision(80),
        timeline: crate::id::Timeline(1),
        position: HERE,
    };
    concludes(&node, Rung::Race, "campaigning", Fate::Keep, &[Action::Store(StoreAction::Acquire(acquire))]);
}

#[test]
fn a_lease_that_is_old_or_too_short_is_not_campaigned_with() {
    let old = granted(Node::racing()).with(|state| {
        let granted = state.granted.as_mut().unwrap();
        granted.asked = granted.asked.back(seconds(10));
    });
    assert_eq!(old.concludes().1, "asking_lease");
    let short = granted(Node::racing()).with(|state| state.granted.as_mut().unwrap().ttl = millis(500));
    concludes(&short, Rung::Race, "ttl_too_short", Fate::Keep, &[]);
}

#[test]
fn who_may_not_race_stands_back() {
    let node = Node::racing().config(|config| config.nofailover = true);
    concludes(&node, Rung::Race, "no_failover_tag", Fate::Keep, &[]);
    let node = Node::racing().with(|state| state.spent = Some(LeaseId(6)));
    concludes(&node, Rung::Race, "spent_tenure", Fate::Keep, &[]);
}

#[test]
fn a_receiver_is_stopped_before_the_position_counts() {
    let node = Node::racing().sql(standby_sql(Some("b")));
    concludes(&node, Rung::Race, "freezing_receiver", Fate::Keep, &[Action::Postgres(PostgresAction::Freeze)]);
    let now = node.now;
    let pledge = Pledge { absent_at: Revision(101), since: now, frozen: true, on_disk: true };
    assert_eq!(node.with(|state| state.pledge = Some(pledge)).concludes().1, "asking_lease");
}

#[test]
fn a_position_from_before_the_receiver_stopped_does_not_count() {
    let node = Node::racing().with(|state| state.memory.changed = at(1)).later(2);
    concludes(&node, Rung::Race, "position_unknown", Fate::Keep, &[]);
}

#[test]
fn positions_are_collected_for_as_long_as_the_window_and_no_longer() {
    let node = Node::racing().with(|state| drop(state.peers.answers.remove(&Member::new("c"))));
    let (rung, verdict) = node.decide();
    assert_eq!((rung, verdict.reason.code()), (Rung::Race, "collecting_positions"));
    assert!(
        matches!(&verdict.orders[..], [Action::Peer(PeerAction::AskPosition { member, absent_at: Revision(101), .. })]
        if member.as_str() == "c")
    );
    assert_eq!(node.clone().later(149).concludes().1, "collecting_positions");
    assert_eq!(node.clone().later(150).concludes().1, "asking_lease");
    let now = node.now;
    let unreachable = node.with(|state| {
        state.peers.unreachable.insert(Member::new("c"), now);
    });
    assert_eq!(unreachable.concludes().1, "asking_lease");
}

fn told(change: impl FnOnce(&mut crate::view::peers::PeerAnswer)) -> Node {
    Node::racing().with(|state| {
        change(&mut state.peers.answers.get_mut(&Member::new("c")).expect("c has answered").value);
    })
}

#[test]
fn a_peer_that_is_ahead_or_writes_goes_before_and_one_that_is_barred_does_not() {
    let ahead = Lsn(HERE.0 + 8);
    assert_eq!(told(|answer| answer.flushed = ahead).concludes().1, "behind_peer");
    assert_eq!(told(|answer| answer.primary = true).concludes().1, "primary_alive");
    let barred = |answer: &mut crate::view::peers::PeerAnswer| (answer.flushed, answer.barred) = (ahead, true);
    assert_eq!(told(barred).concludes().1, "asking_lease");
}

#[test]
fn of_two_branches_the_newer_one_wins() {
    let newer = |answer: &mut crate::view::peers::PeerAnswer| {
        let parted = Ancestor { timeline: crate::id::Timeline(1), end: Lsn(HERE.0 - 0x20), reason: String::new() };
        answer.history = History { ancestors: vec![parted], timeline: crate::id::Timeline(2) };
        answer.flushed = Lsn(HERE.0 - 8);
    };
    assert_eq!(told(newer).concludes().1, "behind_peer");
}

#[test]
fn among_equals_one_goes_first_and_the_other_waits_for_it_only_so_long() {
    let equal = |priority: i32| {
        told(|answer| answer.flushed = HERE).cluster(|cluster| {
            cluster.members.get_mut(&Member::new("c")).unwrap().record.failover_priority = priority;
        })
    };
    assert_eq!(equal(1).concludes().1, "asking_lease", "a sorts before c");
    assert_eq!(equal(2).concludes().1, "peer_goes_first");
    assert_eq!(equal(2).later(400).concludes().1, "asking_lease");
}

#[test]
fn who_is_too_far_behind_the_last_known_position_does_not_race() {
    let behind = |by: u64| {
        Node::racing().cluster(|cluster| {
            cluster.status = Some(StatusKey { optime: Lsn(HERE.0 + by), ..StatusKey::default() });
        })
    };
    assert_eq!(behind((1 << 20) + 1).concludes().1, "lag_too_large");
    assert_eq!(behind(1 << 20).concludes().1, "asking_lease");
}

#[test]
fn a_key_that_left_while_its_holder_lives_is_left_to_it_for_a_moment() {
    let node = |who: &str| {
        let vanished = Vanished { heard: at(0), who: Member::new(who) };
        Node::racing()
            .cluster(|cluster| {
                *cluster = {
                    let mut c = led_by("b", 101);
                    c.leader = None;
                    c
                }
            })
            .with(|state| state.store.vanished = Some(vanished))
    };
    concludes(&node("b"), Rung::Race, "vanish_grace", Fate::Keep, &[]);
    assert_eq!(node("b").later(300).concludes().1, "asking_lease");
    assert_eq!(node("c").concludes().1, "asking_lease", "c does not say that it serves");
}

fn asked_for(leader: Option<&str>, candidate: Option<&str>) -> Node {
    let request = failover(leader, candidate);
    Node::racing()
        .cluster(|cluster| cluster.failover = Some(request))
        .with(|state| state.memory.leaderless = Some(at(0)))
}

#[test]
fn whom_the_operator_asked_for_races_at_once_and_the_others_stand_back_for_a_while() {
    let mut node = asked_for(Some("b"), Some("a"));
    node.state.peers.answers.clear();
    assert_eq!(node.concludes().1, "asking_lease");
    assert_eq!(asked_for(Some("b"), Some("c")).concludes().1, "candidate_is_other");
    assert_eq!(asked_for(Some("a"), None).concludes().1, "candidate_is_other");
    assert_eq!(asked_for(Some("b"), Some("c")).later(3_000).concludes().1, "asking_lease");
}

#[test]
fn an_agent_that_started_after_the_key_vanished_does_not_stand_back_for_ever() {
    let node = asked_for(None, Some("c")).later(3_000);
    assert!(node.state.store.vanished.is_none());
    assert_eq!(node.concludes().1, "asking_lease");
}

// --- rewind and follow ----------------------------------------------------------------------------------------------

fn stopped_beside_b() -> Node {
    Node::standby().dead().dir(primary_dir(ControlState::ShutDown))
}

fn diverged(node: Node) -> Node {
    node.with(|state| state.memory.compared = Some((THEIR_EPOCH, Some(Lsn(0x200_0000)))))
}

#[test]
fn a_stopped_server_is_compared_before_it_starts_and_a_running_one_when_it_does_not_stream() {
    let compare = Action::Postgres(PostgresAction::Compare(upstream("b")));
    let orders = std::slice::from_ref(&compare);
    concludes(&stopped_beside_b(), Rung::Rewind, "comparing_histories", Fate::Keep, orders);
    let mut sql = standby_sql(None);
    sql.upstream_set = true;
    let node = Node::standby().sql(sql).later(3_000);
    concludes(&node, Rung::Rewind, "comparing_histories", Fate::Keep, orders);
    assert_eq!(Node::standby().later(3_000).decide().0, Rung::Follow, "it streams");
}

#[test]
fn a_comparison_with_one_leader_says_nothing_of_the_next() {
    let node =
        diverged(stopped_beside_b()).cluster(|cluster| cluster.leader = Some(leader("b", LeaseId(9), Revision(120))));
    assert_eq!(node.concludes().1, "comparing_histories");
}

#[test]
fn a_tenure_of_our_own_that_is_over_is_nobody_to_compare_with() {
    let node = Node::primary().dead().with(|state| (state.tenure, state.spent) = (Tenure::None, Some(OURS)));
    concludes(&node, Rung::Follow, "leader_not_ready", Fate::Keep, &[]);
}

#[test]
fn a_diverged_node_is_stopped_recovered_and_rewound() {
    let rewind = Action::Postgres(PostgresAction::Rewind(upstream("b")));
    concludes(&diverged(Node::standby()), Rung::Rewind, "diverged", Fate::Keep, &[stop(StopMode::Fast)]);
    concludes(&diverged(stopped_beside_b()), Rung::Rewind, "diverged", Fate::Keep, &[rewind]);
    let crashed = diverged(stopped_beside_b()).dir(primary_dir(ControlState::InProduction));
    let recover = Action::Postgres(PostgresAction::RecoverSingleUser);
    concludes(&crashed, Rung::Rewind, "single_user_recovery", Fate::Keep, &[recover]);
    let pending = diverged(stopped_beside_b()).cluster(|cluster| {
        cluster.members.get_mut(&Member::new("b")).unwrap().record.checkpoint_pending = true;
    });
    concludes(&pending, Rung::Rewind, "leader_not_checkpointed", Fate::Keep, &[]);
}

#[test]
fn what_cannot_be_rewound_is_cloned_only_where_that_is_allowed() {
    let clone = Action::Postgres(PostgresAction::Clone(upstream("b")));
    let cannot = |node: Node| node.config(|config| config.use_pg_rewind = false);
    concludes(&cannot(diverged(stopped_beside_b())), Rung::Rewind, "cannot_rewind", Fate::Keep, &[]);
    let plain = diverged(stopped_beside_b()).dir(Cluster { rewindable: false, ..primary_dir(ControlState::ShutDown) });
    concludes(&plain, Rung::Rewind, "cannot_rewind", Fate::Keep, &[]);
    let allowed = cannot(diverged(stopped_beside_b())).config(|config| config.clone_when_diverged = true);
    concludes(&allowed, Rung::Rewind, "clone_instead", Fate::Keep, std::slice::from_ref(&clone));
    let failed = diverged(stopped_beside_b()).with(|s| s.memory.rewind_failed = Some((THEIR_EPOCH, "no WAL".into())));
    concludes(&failed, Rung::Rewind, "clone_instead", Fate::Keep, &[clone]);
}

fn compared(node: Node) -> Node {
    node.with(|state| state.memory.compared = Some((THEIR_EPOCH, None)))
}

#[test]
fn a_stopped_standby_starts_behind_its_leader() {
    concludes(&compared(stopped_beside_b()), Rung::Follow, "starting_standby", Fate::Keep, &[start_standby(Some("b"))]);
    let nostream = compared(stopped_beside_b()).config(|config| config.nostream = true);
    assert_eq!(nostream.wants(), [start_standby(None)]);
    let unready = compared(stopped_beside_b()).cluster(|cluster| {
        cluster.members.get_mut(&Member::new("b")).unwrap().record.role = "replica".into();
    });
    concludes(&unready, Rung::Follow, "leader_not_ready", Fate::Keep, &[]);
    assert_eq!(unready.later(10_000).wants(), [start_standby(Some("b"))]);
}

#[test]
fn a_stopped_standby_without_a_leader_starts_alone_after_a_moment() {
    concludes(&Node::stopped(), Rung::Follow, "starting_alone", Fate::Keep, &[start_standby(None)]);
    let vanished = Vanished { heard: at(0), who: Member::new("b") };
    let node = Node::stopped().with(|state| state.store.vanished = Some(vanished));
    concludes(&node, Rung::Follow, "no_source", Fate::Keep, &[]);
    assert_eq!(node.later(1_000).concludes().1, "starting_alone");
}

#[test]
fn a_running_standby_follows_the_leader_or_the_member_of_its_tag() {
    concludes(&Node::standby(), Rung::Follow, "following", Fate::Keep, &[]);
    assert!(Node::standby().decide().1.steady);
    let follow = |name| Action::Postgres(PostgresAction::Follow(Some(upstream(name))));
    let turned = |node: Node| node.later(4_000);
    let wrong = turned(Node::standby().sql(standby_sql(Some("c"))).with(|state| state.memory.streamed = at(4_000)));
    concludes(&wrong, Rung::Follow, "turning_to", Fate::Keep, &[follow("b")]);
    let cascade = Node::standby().config(|config| config.replicatefrom = Some(Member::new("c")));
    concludes(&cascade, Rung::Follow, "turning_to", Fate::Keep, &[follow("c")]);
    let nostream = Node::standby().config(|config| config.nostream = true);
    assert_eq!(nostream.wants(), [Action::Postgres(PostgresAction::Follow(None))]);
}

#[test]
fn a_standby_that_was_just_turned_is_not_turned_again_before_it_can_have_turned() {
    let node = Node::standby().sql(standby_sql(Some("c"))).with(|state| state.memory.turned = at(0));
    concludes(&node, Rung::Follow, "following", Fate::Keep, &[]);
}

#[test]
fn a_pledge_binds_until_a_newer_tenure_is_seen() {
    let pledge = |absent_at| Pledge { absent_at: Revision(absent_at), since: at(0), frozen: true, on_disk: true };
    let bound = Node::standby().with(|state| state.pledge = Some(pledge(80)));
    concludes(&bound, Rung::Follow, "no_source", Fate::Keep, &[]);
    assert_eq!(Node::standby().with(|state| state.pledge = Some(pledge(79))).concludes().1, "following");
    // A store that was restored mints smaller revisions: the pledge ends by itself.
    let mut late = bound.later(20_000);
    late.tick();
    assert_eq!(late.state.pledge, None);
}

#[test]
fn a_standby_that_is_not_consistent_yet_is_turned_as_well() {
    let node = Node::standby().phase(Phase::Starting).with(|state| state.postgres.sql = None);
    concludes(&node, Rung::Follow, "starting", Fate::Keep, &[]);
    let node = node.with(|state| state.memory.followed = None);
    assert_eq!(node.concludes().1, "turning_to");
    concludes(&Node::standby().phase(Phase::Stopping), Rung::Follow, "not_steady", Fate::Keep, &[]);
}

// --- switchover -----------------------------------------------------------------------------------------------------

fn moving() -> Node {
    let request = failover(Some("a"), Some("b"));
    Node::primary().cluster(|cluster| {
        cluster.failover_revision = request.revision;
        cluster.failover = Some(request);
    })
}

fn b_answers(node: Node, change: impl FnOnce(&mut crate::view::peers::PeerAnswer)) -> Node {
    let now = node.now;
    let mut told = answer(HERE, None);
    change(&mut told);
    node.with(|state| drop(state.peers.answers.insert(Member::new("b"), Seen::new(told, now, now))))
}

#[test]
fn a_switchover_asks_checkpoints_and_stops() {
    let (rung, verdict) = moving().decide();
    assert_eq!((rung, verdict.reason.code()), (Rung::Switchover, "asking_candidates"));
    assert!(
        matches!(&verdict.orders[..], [Action::Peer(PeerAction::AskStatus { member, .. })] if member.as_str() == "b")
    );
    let good = b_answers(moving(), |_| ()).with(|state| state.memory.checkpointed = None);
    let checkpoint = Action::Postgres(PostgresAction::Checkpoint);
    concludes(&good, Rung::Switchover, "checkpoint_before_stop", Fate::Keep, &[checkpoint]);
    let ready = b_answers(moving(), |_| ());
    assert_eq!(ready.concludes().1, "stopping_for_handover");
    assert!(matches!(
        &ready.wants()[..],
        [
            Action::Postgres(PostgresAction::Stop(StopMode::Fast)),
            Action::Peer(PeerAction::AwaitReplay { beyond: Lsn(0), .. })
        ]
    ));
    let stopping = ready.doing(stop(StopMode::Fast), 1);
    concludes(&stopping, Rung::Switchover, "stopping_for_handover", Fate::Keep, &[]);
}

#[test]
fn a_candidate_that_is_no_good_is_refused_and_the_primary_stays() {
    let clear = Action::Store(StoreAction::ClearFailover { revision: Revision(90) });
    let bad = [
        ("no_good_candidate", b_answers(moving(), |answer| answer.barred = true)),
        ("no_good_candidate", b_answers(moving(), |answer| answer.primary = true)),
        ("candidate_lagging", b_answers(moving(), |answer| answer.flushed = Lsn(8))),
    ];
    for (code, node) in bad {
        concludes(&node, Rung::Switchover, code, Fate::Keep, std::slice::from_ref(&clear));
    }
    let now = moving().now;
    let silent = moving().with(|state| {
        state.peers.unreachable.insert(Member::new("b"), now);
    });
    assert_eq!(silent.concludes().1, "no_good_candidate");
}

#[test]
fn a_request_for_another_leader_or_a_later_time_is_not_this_ones() {
    let other = moving().cluster(|cluster| cluster.failover = Some(failover(Some("c"), Some("b"))));
    assert_eq!(other.decide().0, Rung::Leader);
    let later = moving().cluster(|cluster| {
        cluster.failover.as_mut().unwrap().scheduled_at = Some(crate::time::WallMillis(1_000_001));
    });
    assert_eq!(later.decide().0, Rung::Leader);
    assert_eq!(later.later(1).decide().0, Rung::Switchover);
}

#[test]
fn the_key_is_released_only_to_who_has_replayed_beyond_the_shutdown_checkpoint() {
    let beyond =
        |by: u64| b_answers(Node::handing_over(), move |answer| answer.replayed = Lsn(standby_dir().checkpoint.0 + by));
    concludes(&beyond(1), Rung::Switchover, "handing_over", Fate::Release, &[]);
    assert_eq!(beyond(0).concludes(), (Rung::Switchover, "awaiting_candidate", Fate::Keep));
    // The tenure is forgotten on disk meanwhile: the release waits for that.
    assert!(matches!(&beyond(0).wants()[..], [Action::Peer(PeerAction::AwaitReplay { beyond, .. }), forget]
        if *beyond == standby_dir().checkpoint && *forget == forgets()));
    let before = beyond(1).with(|state| state.memory.dead_since = Some(at(1))).later(2);
    assert_eq!(before.concludes().1, "awaiting_candidate", "an answer from before the stop proves nothing");
    let other_timeline =
        b_answers(Node::handing_over(), |answer| answer.history = History::first(crate::id::Timeline(9)));
    assert_eq!(other_timeline.concludes().1, "awaiting_candidate");
}

#[test]
fn without_a_taker_the_request_is_cleared_and_the_primary_starts_again() {
    let clear = Action::Store(StoreAction::ClearFailover { revision: Revision(90) });
    let node = Node::handing_over().with(|state| state.store.answered = at(5_000)).later(5_000);
    concludes(&node, Rung::Switchover, "no_taker", Fate::Keep, &[clear]);
    let cleared = node.cluster(|cluster| cluster.failover = None);
    assert_eq!(cleared.concludes().1, "restart_in_place");
}

#[test]
fn an_agent_that_leaves_hands_over_or_releases_to_nobody() {
    let leaving = Node::handing_over().cluster(|cluster| cluster.failover = None).with(|state| state.leaving = true);
    assert_eq!(leaving.concludes().1, "awaiting_candidate");
    concludes(&leaving.later(5_000), Rung::Switchover, "releasing_to_nobody", Fate::Release, &[]);
}

#[test]
fn a_standbys_agent_that_leaves_stops_postgresql_tells_and_exits() {
    let node = Node::standby().with(|state| state.leaving = true);
    concludes(&node, Rung::Switchover, "shutting_down", Fate::Keep, &[stop(StopMode::Fast)]);
    let dead = node.dead();
    concludes(&dead, Rung::Switchover, "shutting_down", Fate::Keep, &[]);
    let exit = Action::Host(HostAction::Exit { code: 0, message: "stopped".into() });
    concludes(&dead.clone().later(2_000), Rung::Switchover, "shutting_down", Fate::Keep, std::slice::from_ref(&exit));
    assert_eq!(dead.clone().published().wants(), std::slice::from_ref(&exit));
    // A server that could not be started is as stopped as any.
    let failed = dead.with(|state| state.memory.start_failures = 1);
    assert_eq!(failed.published().wants(), [exit]);
}

#[test]
fn an_agent_that_leaves_waits_for_no_store_and_nobody_to_clone_from() {
    let exit = Action::Host(HostAction::Exit { code: 0, message: "stopped".into() });
    let no_store = empty().with(|state| (state.leaving, state.store.cluster) = (true, None));
    concludes(&no_store, Rung::Switchover, "shutting_down", Fate::Keep, std::slice::from_ref(&exit));
    let nobody = empty().with(|state| state.leaving = true);
    concludes(&nobody, Rung::Switchover, "shutting_down", Fate::Keep, &[exit]);
}

#[test]
fn an_agent_that_only_observes_leaves_without_touching_postgresql() {
    let node = Node::standby().with(|state| state.leaving = true);
    let node = node.config(|config| config.unsupported = Some("pause".into()));
    let message = "stopped; PostgreSQL is left as it is, since the cluster asks for pause".into();
    let exit = Action::Host(HostAction::Exit { code: 0, message });
    concludes(&node, Rung::Unsupported, "shutting_down", Fate::Keep, &[exit]);
}

#[test]
fn a_node_without_data_is_not_said_to_write_when_its_search_for_a_tenure_ends() {
    let node = empty().with(|state| state.store.cluster = None);
    let node = node.with(|state| state.tenure = Tenure::Adopting { deadline: at(1_000) });
    concludes(&node.later(1_000), Rung::Fence, "observing", Fate::LetLapse, &[]);
}

#[test]
fn a_held_tenure_of_two_seconds_is_renewed_in_time() {
    let node = Node::primary().with(|state| {
        state.tenure = Tenure::Held(Held { lease: OURS, epoch: EPOCH, ttl: seconds(2), confirmed: Instant(at(0).0) });
    });
    assert_eq!(node.clone().later(1_745).decide().0, Rung::Leader);
    assert_eq!(node.later(1_746).concludes().1, "tenure_expired");
}
