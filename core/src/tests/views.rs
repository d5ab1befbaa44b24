//! What is read off the facts: who this node is, what it may do, where it is, and whom it can turn to.

use crate::action::{Action, PostgresAction};
use crate::id::{LeaseId, Lsn, Member, Pid, Revision, SystemId, Timeline};
use crate::lease::{Held, Tenure};
use crate::testing::*;
use crate::time::{Instant, WallMillis};
use crate::timeline::{Ancestor, History};
use crate::view::guard::Armed;
use crate::view::postgres::{Cluster, ControlState, DataDir, Phase, Process, Sender, Sql, StartAs, StopMode};
use crate::view::store::{FailoverKey, Initialize, MemberRecord};

fn restart() -> Action {
    Action::Postgres(PostgresAction::Restart)
}

fn start_primary() -> Action {
    Action::Postgres(PostgresAction::Start(StartAs::Primary))
}

fn start_standby() -> Action {
    Action::Postgres(PostgresAction::Start(StartAs::Standby(None)))
}

#[test]
fn clients_that_want_to_write_are_right_with_authority_and_without_a_hold_only() {
    assert!(Node::primary().view().leads());
    assert!(!Node::primary().with(|state| state.guard.held = true).view().leads());
    assert!(!Node::primary().with(|state| state.guard.armed = None).view().leads());
    assert!(!Node::standby().view().leads());
    let until = Node::primary().state.guard.armed.expect("it is armed").at;
    let mut last = Node::primary();
    last.now = until.back(crate::time::Duration::from_nanos(1));
    assert!(last.view().authority());
    last.now = until;
    assert!(!last.view().authority(), "its instant has come");
    let other = Armed { tenure: THEIRS, at: until };
    assert!(!Node::primary().with(|state| state.guard.armed = Some(other)).view().authority());
}

#[test]
fn a_postgresql_in_doubt_is_one_that_may_write() {
    let writes = |node: Node| node.view().may_write();
    assert!(writes(Node::primary()) && !writes(Node::standby()));
    assert!(writes(Node::primary().with(|state| state.postgres.sql = None)), "it has not answered");
    assert!(!writes(Node::standby().with(|state| state.postgres.sql = None)));
    assert!(writes(Node::primary().sql(standby_sql(None))), "no signal file: it ends its recovery by itself");
    assert!(writes(Node::standby().sql(primary_sql())), "promoted since the directory was looked at");
    assert!(writes(Node::standby().with(|state| state.memory.promotion = true)));
    assert!(writes(Node::standby().doing(promotion(), 0)));
    // The postmaster may be seen before the signal file that was written for it.
    let unsignalled = || Node::primary().sql(standby_sql(None)).with(|state| state.memory.as_standby = true);
    assert!(!writes(unsignalled()) && writes(unsignalled().sql(primary_sql())));
    // No postmaster is seen: what is being started counts.
    assert!(!writes(Node::primary().dead()) && writes(Node::primary().dead().doing(start_primary(), 0)));
    assert!(!writes(Node::primary().dead().doing(start_standby(), 0)));
    assert!(writes(Node::primary().dead().doing(restart(), 0)) && !writes(Node::stopped().doing(restart(), 0)));
}

#[test]
fn the_dead_are_absent_to_the_last_process_and_are_not_being_started() {
    let dead = |node: Node| node.view().dead();
    assert!(dead(Node::stopped()) && !dead(Node::standby()));
    assert!(!dead(Node::standby().with(|state| state.postgres.orphans = Some(0))));
    assert!(!dead(Node::stopped().with(|state| state.postgres.orphans = Some(1))));
    assert!(!dead(Node::stopped().with(|state| state.postgres.orphans = None)));
    for starts in [start_primary(), start_standby(), restart()] {
        assert!(!dead(Node::stopped().doing(starts, 0)));
    }
    assert!(dead(Node::stopped().doing(Action::Postgres(PostgresAction::Rewind(upstream("b"))), 0)));
}

#[test]
fn a_standby_in_doubt_is_one_that_may_receive() {
    let receives = |node: Node| node.view().may_receive();
    assert!(receives(Node::standby()) && !receives(Node::standby().sql(standby_sql(None))));
    let old = Node::standby().sql(standby_sql(None)).with(|state| state.memory.changed = at(1));
    assert!(receives(old));
    assert!(!receives(Node::stopped()));
}

#[test]
fn the_words_for_what_postgresql_does_are_patronis() {
    let word = |node: Node| node.view().postgres_state();
    let doing = |action| word(Node::stopped().doing(Action::Postgres(action), 0));
    assert_eq!(doing(PostgresAction::Clone(upstream("b"))), "creating replica");
    assert_eq!(doing(PostgresAction::Initdb), "initializing new cluster");
    assert_eq!(doing(PostgresAction::Restart), "restarting");
    assert_eq!(doing(PostgresAction::Rewind(upstream("b"))), "stopped");
    let failed = |failures| word(Node::stopped().with(|state| state.memory.start_failures = failures));
    assert_eq!([0, 1, 2].map(failed), ["stopped", "start failed", "start failed"]);
    let came_up = |state: &mut crate::state::State| (state.memory.start_failures, state.memory.came_up) = (1, true);
    assert_eq!(word(Node::stopped().with(came_up)), "stopped", "it was stopped soon after it had started");
    let crashed = Node::stopped().dir(primary_dir(ControlState::InProduction)).with(came_up);
    assert_eq!(word(crashed), "crashed");
    let phases = [Phase::Starting, Phase::Ready, Phase::Stopping].map(|phase| word(Node::standby().phase(phase)));
    assert_eq!(phases, ["starting", "running", "stopping"]);
    assert_eq!(word(Node::stopped().with(|state| state.postgres.process = Process::Unknown)), "unknown");
}

#[test]
fn a_server_drains_whose_shutdown_checkpoint_is_written_and_hangs_after_a_while() {
    let stopping = |state| Node::primary().phase(Phase::Stopping).dir(primary_dir(state));
    assert!(stopping(ControlState::ShutDown).view().drained());
    assert!(!stopping(ControlState::ShuttingDown).view().drained());
    assert!(!stopping(ControlState::ShutDown).phase(Phase::Ready).view().drained());
    let hangs = |ms| {
        let node = stopping(ControlState::ShutDown).with(|state| state.memory.drained_since = Some(at(0)));
        node.later(ms).view().drain_hangs()
    };
    assert_eq!([4_999, 5_000, 6_000].map(hangs), [None, Some(seconds(5)), Some(seconds(6))]);
}

#[test]
fn sessions_linger_until_the_shutdown_checkpoint_begins_and_ignore_our_own_stop_after_a_minute() {
    let stopping = |state| Node::primary().phase(Phase::Stopping).dir(primary_dir(state));
    assert!(stopping(ControlState::InProduction).view().lingers());
    assert!(!stopping(ControlState::ShuttingDown).view().lingers());
    assert!(!stopping(ControlState::InProduction).phase(Phase::Ready).view().lingers());
    let unknown = stopping(ControlState::InProduction).with(|state| state.memory.data_in_doubt = Some(at(0)));
    assert!(!unknown.view().lingers(), "the checkpoint may have begun");
    let ignored = |action: Option<PostgresAction>, ms| {
        let node = stopping(ControlState::InProduction).with(|state| {
            (state.memory.lingering_since, state.memory.checkpoint_written) = (Some(at(0)), Some(at(0)));
        });
        let node = match action {
            Some(action) => node.doing(Action::Postgres(action), 0),
            None => node,
        };
        node.later(ms).view().stop_ignored()
    };
    let fast = || Some(PostgresAction::Stop(StopMode::Fast));
    let minute = |mode| Some((seconds(60), mode));
    assert_eq!([59_999, 60_000].map(|ms| ignored(fast(), ms)), [None, minute(StopMode::Immediate)]);
    assert_eq!(ignored(Some(PostgresAction::Restart), 60_000), minute(StopMode::Immediate));
    assert_eq!(ignored(None, 60_000), minute(StopMode::Fast), "somebody else's stop may be one that waits");
    assert_eq!(ignored(Some(PostgresAction::Stop(StopMode::Immediate)), 60_000), None, "it is being ended");
    let ordered_late = stopping(ControlState::InProduction).later(50_000).doing(Action::Postgres(fast().unwrap()), 0);
    let late = |written: Option<u64>, ms| {
        let node = ordered_late.clone().with(|state| {
            (state.memory.lingering_since, state.memory.checkpoint_written) = (Some(at(0)), written.map(at));
        });
        node.later(ms).view().stop_ignored()
    };
    let written = [59_999, 60_000].map(|ms| late(Some(0), ms));
    assert_eq!(written, [None, minute(StopMode::Immediate)], "as long after it was ordered");
    let lingers_from = |ms: u64| {
        let node = stopping(ControlState::InProduction).later(ms).doing(Action::Postgres(fast().unwrap()), 0);
        let node = node.with(|state| {
            (state.memory.lingering_since, state.memory.checkpoint_written) = (Some(at(ms)), Some(at(0)));
        });
        node.later(60_000).view().stop_ignored().is_some()
    };
    assert_eq!([59_999, 60_000].map(lingers_from), [true, false], "the checkpoint before was written too long ago");
    // What it waits for may be a checkpoint where none was written just before.
    let unsure = [299_999, 300_000].map(|ms| late(None, ms).map(|(waits, _)| waits));
    assert_eq!(unsure, [None, Some(seconds(300))]);
}

#[test]
fn a_node_is_where_its_server_says_or_its_control_file() {
    let flushed = |node: Node| node.view().position().map(|position| position.flushed.0);
    let standby = |received, replayed| Sql { received: Lsn(received), replayed: Lsn(replayed), ..standby_sql(None) };
    assert_eq!(flushed(Node::standby().sql(standby(7, 5))), Some(7));
    assert_eq!(flushed(Node::standby().sql(standby(0, 5))), Some(5), "restored from an archive");
    assert_eq!(flushed(Node::primary().sql(Sql { flushed: Lsn(9), ..primary_sql() })), Some(9));
    let dir = |state, checkpoint, min_recovery| Cluster {
        state,
        checkpoint: Lsn(checkpoint),
        min_recovery: Lsn(min_recovery),
        ..standby_dir()
    };
    assert_eq!(flushed(Node::stopped().dir(dir(ControlState::ShutDown, 3, 4))), Some(3), "a primary that stopped");
    assert_eq!(flushed(Node::stopped().dir(dir(ControlState::ShutDownInRecovery, 3, 4))), Some(4));
    assert_eq!(flushed(Node::stopped().dir(dir(ControlState::InArchiveRecovery, 5, 4))), Some(5));
    assert_eq!(flushed(Node::stopped().dir(dir(ControlState::InArchiveRecovery, 0, 0))), None, "nowhere");
    let tainted = Cluster { tainted: Some("a rewind began".into()), ..standby_dir() };
    assert_eq!(flushed(Node::stopped().dir(tainted)), None);
}

#[test]
fn who_may_not_lead_says_so_to_who_asks() {
    let barred = |node: Node| node.view().own_answer().barred;
    assert!(!barred(Node::standby()) && barred(Node::standby().config(|config| config.nofailover = true)));
    let unguarded = |since_ms| barred(Node::standby().later(9_000).with(|state| state.guard.gone = Some(at(since_ms))));
    assert!(unguarded(4_000) && !unguarded(4_001), "it could not serve; one that has just started may hold the most");
    let data = |data| barred(Node::stopped().with(|state| state.postgres.data = data));
    assert!(data(DataDir::Empty) && !data(DataDir::Unknown), "one that was not looked at may hold the most of all");
    let replayed = |nostream: bool, from: Option<&str>| {
        let node = Node::standby().config(|config| config.nostream = nostream);
        node.with(|state| state.memory.streamed_from = from.map(Member::new)).view().own_answer().replayed
    };
    assert_eq!([replayed(false, Some("b")), replayed(false, Some("c")), replayed(false, None)], [HERE, Lsn(0), Lsn(0)]);
    assert_eq!(replayed(true, None), HERE, "one that never streams is taken at its word");
    let pledged = |frozen, on_disk, leads: bool| {
        let absent_at = Revision(101);
        let node = Node::racing().with(|state| {
            state.pledge = Some(crate::state::Pledge { absent_at, since: at(0), frozen, on_disk });
        });
        let node = if leads { node.cluster(|cluster| *cluster = led_by("b", 101)) } else { node };
        node.view().own_answer().pledge.is_some()
    };
    assert!(pledged(true, true, false));
    assert!(!pledged(false, true, false) && !pledged(true, false, false) && !pledged(true, true, true));
}

/// The bug: an operator's primary that lets its sessions go on while it shuts down said that it writes nothing.
#[test]
fn a_primary_that_was_let_go_is_one_until_it_has_stopped() {
    let primary = |let_go: bool, state: ControlState| {
        let node = Node::primary().with(|state| (state.memory.let_go, state.tenure) = (let_go, Tenure::None));
        let process = Process::Alive { pid: Pid(7), phase: Phase::Stopping };
        node.dir(primary_dir(state)).with(|state| state.postgres.process = process).view().own_answer().primary
    };
    assert!(primary(true, ControlState::InProduction));
    assert!(!primary(true, ControlState::ShutDown), "only its archiver works yet");
    assert!(!primary(false, ControlState::InProduction), "a guard ends it");
}

#[test]
fn data_of_another_cluster_are_foreign_unless_this_node_is_starting_them() {
    let foreign = |node: Node| node.view().foreign();
    let other = |node: Node| node.dir(Cluster { system_id: SystemId(1), ..primary_dir(ControlState::InProduction) });
    assert!(!foreign(Node::primary()) && foreign(other(Node::primary())));
    assert!(!foreign(other(Node::primary()).doing(start_primary(), 0)));
    assert!(foreign(other(Node::primary()).doing(start_standby(), 0)));
    let keyless = |node: Node| node.cluster(|cluster| cluster.initialize = None);
    assert!(!foreign(keyless(other(Node::primary()))), "no cluster is known");
    assert!(foreign(keyless(other(Node::primary())).with(|state| state.memory.knew = Some(SYSTEM))));
    let armed = |tenure, present| {
        let node = Node::primary().with(|state| {
            (state.guard.armed, state.guard.present) = (Some(Armed { tenure, at: at(1) }), present);
        });
        node.view().armed_for_nobody()
    };
    assert!(armed(LeaseId(0), true) && !armed(OURS, true) && !armed(LeaseId(0), false));
}

/// Such a directory is not started as a primary but by whom it is its own: a cluster is born once.
#[test]
fn a_birth_that_was_not_completed_shows_by_all_that_it_has_not_come_to() {
    let unfinished = |dir: fn(&mut Cluster), change: &dyn Fn(&mut Node)| {
        let mut node = Node::stopped().cluster(|cluster| {
            cluster.initialize = None;
            cluster.members.retain(|name, _| name.as_str() == "a");
        });
        let mut begun = primary_dir(ControlState::InProduction);
        dir(&mut begun);
        node = node.dir(begun);
        change(&mut node);
        node.view().unfinished_bootstrap()
    };
    assert!(unfinished(|_| (), &|_| ()));
    // Seed 1001746: another member led here, and told of its WAL, when an operator deleted `initialize`.
    let led = |by: &'static str, optime: Lsn| {
        unfinished(|_| (), &|node: &mut Node| {
            let led = node.clone().cluster(|cluster| {
                cluster.epoch = Some(epoch_record(by, EPOCH));
                cluster.status = Some(crate::view::store::StatusKey { optime, ..Default::default() });
            });
            *node = led;
        })
    };
    assert!(!led("b", HERE) && led("a", HERE) && led("b", Lsn(0)));
    assert!(!unfinished(|dir| dir.standby_signal = true, &|_| ()));
    assert!(!unfinished(|dir| dir.tainted = Some("a clone began".into()), &|_| ()));
    assert!(!unfinished(|dir| dir.checkpoint_timeline = Timeline(2), &|_| ()), "it was promoted");
    let parted = |dir: &mut Cluster| {
        let ended = Ancestor { timeline: Timeline(1), end: HERE, reason: String::new() };
        dir.history = History { ancestors: vec![ended], timeline: Timeline(2) };
    };
    assert!(!unfinished(parted, &|_| ()), "it was promoted and has written no checkpoint since");
    assert!(!unfinished(|_| (), &|node| node.state.memory.knew = Some(SYSTEM)));
    // The bug: it was cut off for longer than a ttl, and another had the right to initialise by then.
    let right = |lease: i64| {
        unfinished(|_| (), &|node: &mut Node| {
            let initialize = Initialize { revision: Revision(100), lease: LeaseId(lease), system_id: None };
            *node = node.clone().cluster(|cluster| cluster.initialize = Some(initialize));
        })
    };
    assert!(!right(77) && right(0));
    let initialised = |node: &mut Node| node.set_cluster(cluster(100));
    assert!(!unfinished(|_| (), &initialised));
    let beside_data = |node: &mut Node| {
        let mut view = cluster(100);
        view.initialize = None;
        node.set_cluster(view);
    };
    assert!(!unfinished(|_| (), &beside_data));
    // Who has led under an epoch has served, unless it is that of the tenure in which the cluster is being born.
    assert!(!unfinished(|_| (), &|node| node.state.epoch_file = Some(epoch_file())));
    let leads = |node: &mut Node, epoch: Revision| {
        node.state.epoch_file = Some(epoch_file());
        node.state.tenure = Tenure::Held(Held { lease: OURS, epoch, ttl: seconds(30), confirmed: at(0) });
    };
    assert!(unfinished(|_| (), &|node| leads(node, EPOCH)));
    assert!(!unfinished(|_| (), &|node| leads(node, Revision(EPOCH.0 + 1))));
    // The key says that this node initialises: then it is its own birth, whatever else.
    let initialises = |node: &mut Node| {
        let mut view = cluster(100);
        view.initialize = Some(Initialize { revision: Revision(5), lease: LeaseId(100), system_id: None });
        node.set_cluster(view);
    };
    assert!(unfinished(|_| (), &initialises));
}

#[test]
fn who_runs_and_may_lead_and_can_be_asked_may_take_over() {
    let electable = |change: fn(&mut MemberRecord)| {
        let node = Node::primary().cluster(|cluster| {
            change(&mut cluster.members.get_mut(&Member::new("b")).expect("b is a member").record);
        });
        node.view().electable_others().map(|(name, _)| name.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(electable(|_| ()), ["b", "c"]);
    assert_eq!(electable(|record| record.nofailover = true), ["c"]);
    assert_eq!(electable(|record| record.state = "starting".into()), ["c"]);
    assert_eq!(electable(|record| record.api_url.clear()), ["c"]);
}

#[test]
fn who_has_data_may_take_over_soon_whatever_its_record_told() {
    let heirs = |change: fn(&mut MemberRecord)| {
        let node = Node::primary().cluster(|cluster| {
            change(&mut cluster.members.get_mut(&Member::new("b")).expect("b is a member").record);
        });
        node.view().possible_heirs().map(|(name, _)| name.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(heirs(|_| ()), ["b", "c"]);
    assert_eq!(heirs(|record| record.state = "starting".into()), ["b", "c"]);
    assert_eq!(heirs(|record| record.state = "stopped".into()), ["b", "c"], "it may be started");
    let led = |record: &mut MemberRecord| {
        (record.state, record.role) = ("crashed".into(), "demoted".into());
        (record.position, record.timeline) = (Lsn(0), Timeline(0));
    };
    assert_eq!(heirs(led), ["b", "c"], "one that was a primary tells no position until it has been rewound");
    assert_eq!(heirs(|record| record.nofailover = true), ["c"]);
    assert_eq!(heirs(|record| record.api_url.clear()), ["c"]);
    assert_eq!(heirs(|record| record.state = "creating replica".into()), ["c"], "it copies this node's data");
    let unborn = |record: &mut MemberRecord| {
        record.state = "starting".into();
        (record.position, record.timeline, record.role) = (Lsn(0), Timeline(0), "uninitialized".into());
    };
    assert_eq!(heirs(unborn), ["c"], "it has no data yet");
}

#[test]
fn the_last_contact_is_the_latest_of_all() {
    let contact = |name: &str, ages: &[Option<u64>]| {
        let sender = |age_ms: &Option<u64>| Sender {
            application_name: Member::new(name),
            reply_age: age_ms.map(millis),
            ..Sender::default()
        };
        let node = Node::primary().sql(Sql { senders: ages.iter().map(sender).collect(), ..primary_sql() });
        node.view().last_contact()
    };
    assert_eq!(contact("b", &[]).walsender, Instant::ZERO);
    assert_eq!(contact("b", &[Some(30), None, Some(20)]).walsender, at(0).back(millis(20)));
    assert_eq!(
        contact("pg_receivewal", &[Some(20)]).walsender,
        Instant::ZERO,
        "it is no member, and here it may be at home"
    );
    for (store, peer, walsender) in [(3, 2, 1), (1, 3, 2), (2, 1, 3)] {
        let contact = crate::view::Contact { store: at(store), peer: at(peer), walsender: at(walsender) };
        assert_eq!(contact.latest(), at(3));
    }
}

#[test]
fn a_request_is_due_at_its_time_and_not_wanted_any_more_long_after() {
    let scheduled_in = |ms: i64| {
        let node = Node::primary().later(20_000);
        let request = FailoverKey { scheduled_at: Some(WallMillis(1_020_000 + ms)), ..failover(Some("a"), None) };
        let node = node.cluster(|cluster| cluster.failover = Some(request.clone()));
        let view = node.view();
        (view.schedule_left(&request), view.due_failover().is_some(), view.schedule_missed(&request))
    };
    assert_eq!(scheduled_in(1), (Some(millis(1)), false, false));
    assert_eq!(scheduled_in(0), (None, true, false));
    assert_eq!(scheduled_in(-15_000), (None, true, false), "1.5 times loop_wait");
    assert_eq!(scheduled_in(-15_001), (None, false, true));
    assert!(Node::handing_over().view().due_failover().is_some(), "at once");
}

/// Names are not identities: the tenure is its lease.
#[test]
fn the_leader_is_another_unless_its_key_is_under_the_lease_that_we_hold() {
    let other = |node: Node| node.view().other_leader().map(|leader| leader.lease);
    assert_eq!(other(Node::primary()), None);
    let namesake = Node::primary().cluster(|cluster| cluster.leader = Some(leader("a", THEIRS, THEIR_EPOCH)));
    assert_eq!(other(namesake), Some(THEIRS));
    assert_eq!(other(Node::standby()), Some(THEIRS));
}

#[test]
fn a_standby_streams_from_whom_its_tag_names_while_that_runs_and_from_the_leader_otherwise() {
    let from = |name: &str, change: fn(&mut MemberRecord)| {
        let node = Node::standby().config(|config| config.replicatefrom = Some(Member::new(name)));
        let node = node.cluster(|cluster| {
            if let Some(key) = cluster.members.get_mut(&Member::new(name)) {
                change(&mut key.record);
            }
        });
        node.view().upstream().map(|upstream| upstream.member.as_str().to_owned())
    };
    assert_eq!(from("c", |_| ()).as_deref(), Some("c"));
    assert_eq!(from("c", |record| record.state = "stopped".into()).as_deref(), Some("b"));
    assert_eq!(from("z", |_| ()).as_deref(), Some("b"));
    assert_eq!(from("a", |_| ()).as_deref(), Some("b"), "not from itself");
    // Where it does not say where it is, nobody can stream from it.
    assert_eq!(from("b", |record| record.host.clear()), None);
    assert_eq!(from("b", |record| record.port = 0), None);
    assert_eq!(Node::primary().view().upstream(), None, "who leads follows nobody");
    let over = Node::primary().with(|state| state.tenure = Tenure::None);
    assert_eq!(over.view().upstream(), None, "nor who led, while its key is still there");
    assert!(over.view().serving_leader().is_none());
    let serves = Node::standby().view().serving_leader().map(|(epoch, upstream, _)| (epoch, upstream.member));
    assert_eq!(serves, Some((THEIR_EPOCH, Member::new("b"))));
    let promoting = Node::standby().cluster(|cluster| {
        cluster.members.get_mut(&Member::new("b")).expect("b").record.role = "replica".into();
    });
    assert!(promoting.view().serving_leader().is_none());
}

#[test]
fn a_record_says_that_its_member_serves_was_born_and_has_data() {
    let says = |change: fn(&mut MemberRecord)| {
        let mut record = record("b");
        change(&mut record);
        (record.serves(), record.was_born(), record.has_data())
    };
    let nothing = |record: &mut MemberRecord| {
        (record.position, record.timeline, record.role) = (Lsn(0), Timeline(0), String::new());
    };
    assert_eq!(says(|_| ()), (false, true, true));
    assert_eq!(says(|record| record.role = "primary".into()), (true, true, true));
    assert_eq!(says(|record| record.role = "master".into()), (true, true, true));
    assert_eq!(says(|record| (record.role, record.state) = ("primary".into(), "starting".into())), (false, true, true));
    assert_eq!(says(nothing), (false, false, false));
    let with = |change: fn(&mut MemberRecord)| {
        let mut record = record("b");
        nothing(&mut record);
        change(&mut record);
        (record.was_born(), record.has_data())
    };
    assert_eq!(with(|record| record.role = "uninitialized".into()), (false, false));
    assert_eq!(with(|record| record.role = "demoted".into()), (false, true));
    assert_eq!(with(|record| record.role = "replica".into()), (true, true));
    assert_eq!(with(|record| record.position = HERE), (true, true));
    assert_eq!(with(|record| record.timeline = Timeline(1)), (true, true));
}
