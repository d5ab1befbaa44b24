//! From no data to a primary that serves: bootstrap and leader.

use super::*;
use crate::action::Lane;
use crate::event::{Event, HostEvent};
use crate::id::Pid;
use crate::op::Outcome;
use crate::view::store::{ClusterView, MemberRecord};

// --- bootstrap ------------------------------------------------------------------------------------------------------

fn unborn() -> Node {
    empty().cluster(nobody_was_born)
}

/// No cluster, and no member that has data.
fn nobody_was_born(cluster: &mut ClusterView) {
    cluster.initialize = None;
    for key in cluster.members.values_mut() {
        (key.record.position, key.record.timeline) = (Lsn(0), crate::id::Timeline(0));
        key.record.role = "uninitialized".into();
    }
}

/// The right to initialise, under a lease: 100 is that of our own record.
fn by(lease: LeaseId) -> Initialize {
    Initialize { revision: Revision(5), lease, system_id: None }
}

#[test]
fn the_first_node_asks_to_initialise_and_then_does() {
    let race = Action::Store(StoreAction::RaceInitialize { lease: LeaseId(100) });
    concludes(&unborn(), Rung::Bootstrap, "no_cluster_yet", Fate::Keep, &[race]);
    let node = unborn().cluster(|cluster| cluster.initialize = Some(by(LeaseId(100))));
    let initdb = Action::Postgres(PostgresAction::Initdb);
    concludes(&node, Rung::Bootstrap, "initialising", Fate::Keep, &[initdb]);
}

#[test]
fn a_node_that_may_not_initialise_or_was_too_late_waits() {
    let node = unborn().config(|config| config.may_bootstrap = false);
    concludes(&node, Rung::Bootstrap, "may_not_initialise", Fate::Keep, &[]);
    let node = unborn().config(|config| config.nofailover = true);
    concludes(&node, Rung::Bootstrap, "may_not_initialise", Fate::Keep, &[]);
    let node = empty().cluster(|cluster| cluster.initialize = Some(by(LeaseId(0))));
    concludes(&node, Rung::Bootstrap, "init_taken", Fate::Keep, &[]);
    concludes(&empty(), Rung::Bootstrap, "no_clone_source", Fate::Keep, &[]);
    let alone = |node: Node| node.config(|config| config.restores_alone = true);
    let restore = Action::Postgres(PostgresAction::Restore);
    concludes(&alone(empty()), Rung::Bootstrap, "restoring", Fate::Keep, std::slice::from_ref(&restore));
    let node = alone(empty()).cluster(|cluster| cluster.initialize = Some(by(LeaseId(0))));
    concludes(&node, Rung::Bootstrap, "init_taken", Fate::Keep, &[]);
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
    // The bug: it had followed one that was promoted by hand, and a node was cloned from what nobody else held.
    let astray: [fn(&mut MemberRecord); 2] =
        [|record| record.timeline = crate::id::Timeline(2), |record| record.replication_state = String::new()];
    for change in astray {
        let change =
            |cluster: &mut ClusterView| change(&mut cluster.members.get_mut(&Member::new("c")).unwrap().record);
        assert_eq!(offered.clone().cluster(change).wants(), [clone("b")]);
    }
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

/// It may hold the most; the wish stands for the next leader.
#[test]
fn a_complete_directory_is_not_given_up_for_a_clone_of_nobody() {
    let wished = |node: Node| node.with(|state| state.memory.reinit = true);
    assert_eq!(wished(Node::racing()).concludes().0, Rung::Race);
    assert_eq!(wished(Node::standby()).concludes().0, Rung::Bootstrap);
    let incomplete = Cluster { tainted: Some("a clone began".into()), ..standby_dir() };
    let node = wished(Node::stopped()).dir(incomplete).config(|config| config.restores_alone = true);
    assert_eq!(node.concludes(), (Rung::Bootstrap, "no_clone_source", Fate::Keep), "it may be the last copy");
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
    });
    assert!(!former.view().unfinished_bootstrap());
    let maker = former.cluster(|cluster| cluster.initialize = Some(by(LeaseId(100))));
    assert!(maker.view().unfinished_bootstrap());
}

#[test]
fn nobody_races_without_a_guard() {
    let node = Node::racing().with(|state| state.guard.present = false);
    let (rung, verdict) = crate::decide::decide(&node.view());
    assert_eq!((rung, verdict.reason.code()), (Rung::Race, "guard_missing"));
}

/// The bug: a hand-over was given up while its tenure was being forgotten on disk, and PostgreSQL started beside that.
#[test]
fn nothing_starts_while_the_epoch_is_being_forgotten_on_disk() {
    let file = Node::primary().state.epoch_file.unwrap();
    let writes = |epoch| Action::Host(HostAction::WriteEpoch(crate::event::EpochFile { epoch, ..file }));
    let forgets = Node::primary().dead().doing(writes(Revision(0)), 5);
    concludes(&forgets, Rung::Leader, "writing_epoch", Fate::Keep, &[]);
    assert_eq!(Node::primary().dead().doing(writes(file.epoch), 5).concludes().1, "restart_in_place");
}

/// The bug: the host was suspended while a tenure was being forgotten on disk, nobody took it, and the write, given up by
/// its deadline, came to be after PostgreSQL had been started in place under what had been there.
#[test]
fn what_a_write_of_the_epoch_left_on_disk_is_not_known_before_another_one() {
    let mut node = Node::primary().dead().with(|state| state.memory.epoch_in_doubt = true);
    let writes = Action::Host(HostAction::WriteEpoch(node.state.epoch_file.unwrap()));
    concludes(&node, Rung::Leader, "writing_epoch", Fate::Keep, &[writes]);
    node.tick();
    node.step(Event::Host(HostEvent::Completed { op: node.op(&Lane::Host), outcome: Outcome::Done(()) }));
    assert_eq!(node.concludes().1, "restart_in_place");
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

/// The bug (seed 15030461): PostgreSQL was stopped at once, the agent was asked to leave in a cluster that asks for what is
/// not built yet, and PostgreSQL was started as a standby and promoted.
#[test]
fn a_leader_that_leaves_where_it_may_only_observe_promotes_nothing() {
    let leaves = |node: Node| {
        let node = node.config(|config| config.unsupported = Some("synchronous mode".into()));
        node.with(|state| state.leaving = true)
    };
    concludes(&leaves(Node::primary().dead().dir(standby_dir())), Rung::Leader, "cannot_serve", Fate::Release, &[]);
    let standby =
        || Node::primary().with(|state| state.postgres.sql = Node::standby().state.postgres.sql).dir(standby_dir());
    assert_ne!(standby().concludes().1, "cannot_serve");
    concludes(&leaves(standby()), Rung::Leader, "cannot_serve", Fate::Release, &[]);
    // What it led comes up once more to be stopped as it should.
    assert_eq!(leaves(Node::primary().dead()).concludes().1, "restart_in_place");
}

/// What a standby received may not be all that was acknowledged, whatever became of its signal file. And who has one was
/// to be a standby, whatever it was before.
#[test]
fn in_place_starts_what_was_a_primary_to_the_last() {
    let starts = |state: ControlState, standby_signal: bool| {
        let dir = Cluster { standby_signal, ..primary_dir(state) };
        Node::primary().dead().dir(dir).concludes().1
    };
    for state in [ControlState::InProduction, ControlState::ShuttingDown, ControlState::InCrashRecovery] {
        assert_eq!((starts(state, false), starts(state, true)), ("restart_in_place", "start_to_promote"));
    }
    for state in [ControlState::InArchiveRecovery, ControlState::ShutDownInRecovery, ControlState::StartingUp] {
        assert_eq!(starts(state, false), "start_to_promote", "{state:?}");
    }
}

#[test]
fn a_new_cluster_writes_its_epoch_before_its_first_start() {
    let node = Node::primary().dead().with(|state| state.epoch_file = None).cluster(nobody_was_born);
    concludes(&node, Rung::Leader, "writing_epoch", Fate::Keep, &[Action::Host(HostAction::WriteEpoch(epoch_file()))]);
}

#[test]
fn a_leader_that_cannot_start_gives_up() {
    let node = Node::primary().dead().with(|state| state.memory.start_failures = 3);
    concludes(&node, Rung::Leader, "cannot_serve", Fate::Release, &[]);
    let at_once = || Node::primary().dead().config(|config| config.primary_start_timeout = seconds(0));
    // Whether another could take over is asked first; nobody is waited for longer than a race waits.
    let asks = ["b", "c"].map(asks_status);
    concludes(&at_once(), Rung::Leader, "asking_candidates", Fate::Keep, &asks);
    let dead_for = |ms: u64| asks.iter().fold(at_once(), |node, ask| node.doing(ask.clone(), ms));
    assert_eq!([149, 150].map(|ms| dead_for(ms).concludes().1), ["asking_candidates", "restart_in_place"]);
    let silent = |node: Node| {
        let now = node.now;
        ["b", "c"].iter().fold(node, |node, who| {
            node.with(|state| {
                state.peers.unreachable.insert(Member::new(who), now);
            })
        })
    };
    assert_eq!(silent(dead_for(100)).concludes().1, "restart_in_place", "nobody answers");
    let failed = dead_for(0).with(|state| state.memory.start_failures = 3);
    concludes(&failed, Rung::Leader, "cannot_serve", Fate::Release, &[]);
    let paused = dead_for(0).with(|state| state.memory.paused = Some(at(0)));
    assert_ne!(paused.concludes().1, "asking_candidates");
    let at_once = || at_once().told_by("b", answer(HERE, None));
    concludes(&at_once(), Rung::Leader, "cannot_serve", Fate::Release, &[]);
    // The bug: between the halves of a restart that an operator asked for it was given up, and killed when it came up.
    let asked = at_once().with(|state| state.memory.requested = true);
    assert_ne!(asked.concludes().1, "cannot_serve");
    let starting = |requested: bool| {
        let process = Process::Alive { pid: Pid(7), phase: Phase::Starting };
        at_once().with(|state| (state.postgres.process, state.memory.requested) = (process, requested)).concludes().1
    };
    assert_eq!([true, false].map(starting), ["starting", "recovery_too_long"]);
    // And one that hung was waited for without end.
    let after = |ms: u64| {
        let node = at_once();
        let since = node.now.back(millis(ms));
        let hangs = node.with(|state| {
            state.postgres.process = Process::Alive { pid: Pid(7), phase: Phase::Starting };
            (state.memory.requested, state.memory.starting_since) = (true, Some(since));
        });
        hangs.concludes().1
    };
    assert_eq!([after(299_999), after(300_000)], ["starting", "recovery_too_long"]);
    let crashed = at_once().dir(primary_dir(ControlState::InCrashRecovery)).with(|state| {
        state.postgres.process = Process::Alive { pid: Pid(7), phase: Phase::Starting };
        state.memory.requested = true;
    });
    assert_eq!(crashed.concludes().1, "recovery_too_long", "the restart became a crash");
}

fn winner() -> Node {
    Node::primary().dir(Cluster { state: ControlState::InArchiveRecovery, ..standby_dir() }).sql(standby_sql(None))
}

#[test]
fn a_standby_that_won_writes_its_epoch_and_is_promoted() {
    let promote = promotion();
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

/// Nobody took it. A file that is void names no store.
#[test]
fn a_tenure_that_was_to_be_handed_over_is_gone_on_with_in_place_where_it_was_given_away() {
    use crate::id::StoreId;
    let given_away = crate::event::EpochFile { epoch: Revision(0), ..epoch_file() };
    let dead = |file| Node::primary().dead().with(|state| state.epoch_file = Some(file)).concludes().1;
    assert_eq!(dead(given_away), "writing_epoch");
    for file in [
        crate::event::EpochFile { epoch: Revision(1), ..given_away },
        crate::event::EpochFile { store: StoreId(2), ..given_away },
        crate::event::EpochFile { system_id: SystemId(1), ..given_away },
        given_away.void(),
    ] {
        assert_eq!(dead(file), "start_to_promote", "{file:?}");
    }
}

#[test]
fn roles_are_created_once_and_in_a_new_cluster_only() {
    let reason = |initialised: bool, created: bool| {
        let node = Node::primary().with(|state| state.memory.roles_created = created).cluster(|cluster| {
            cluster.initialize = cluster.initialize.filter(|_| initialised);
        });
        node.concludes().1
    };
    assert_eq!(reason(false, false), "creating_roles");
    assert_eq!([(true, false), (false, true), (true, true)].map(|(i, c)| reason(i, c)), ["tenure_held"; 3]);
}

#[test]
fn a_checkpoint_is_written_for_the_timeline_that_has_none_and_again_after_a_second() {
    let writes = |timeline: u32, checkpoint: u32, checkpointed: Option<u64>| {
        let sql = crate::view::postgres::Sql { timeline: crate::id::Timeline(timeline), ..primary_sql() };
        let checkpoint_timeline = crate::id::Timeline(checkpoint);
        let dir = Cluster { checkpoint_timeline, ..primary_dir(ControlState::InProduction) };
        let node = Node::primary().dir(dir).sql(sql).config(|config| config.use_slots = false);
        let node = node.with(|state| state.memory.checkpointed = checkpointed.map(at)).later(1_000);
        node.wants().contains(&Action::Postgres(PostgresAction::Checkpoint))
    };
    assert!(writes(2, 1, None) && !writes(2, 2, None) && !writes(0, 1, None));
    assert!(writes(2, 1, Some(0)) && !writes(2, 1, Some(1)));
}
