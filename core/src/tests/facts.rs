//! What events leave behind: what is believed afterwards, and what is not.

use crate::action::{Action, GuardAction, HostAction, Lane, PostgresAction};
use crate::event::{Event, GuardEvent, HostEvent, PostgresDone, PostgresEvent, StoreEvent};
use crate::id::{Lsn, OpId, Pid, Revision, SystemId};
use crate::lease::Tenure;
use crate::op::{Outcome, Refusal};
use crate::state::{Memory, Pledge};
use crate::testing::*;
use crate::time::{Instant, Seen};
use crate::view::postgres::{Cluster, ControlState, DataDir, Phase, Process, Sql, StartAs};
use crate::view::store::ClusterView;

fn ended(node: &Node, outcome: Outcome<PostgresDone>) -> Event {
    Event::Postgres(PostgresEvent::Completed { op: node.op(&Lane::PgControl), outcome })
}

fn seen(process: Process) -> Event {
    Event::Postgres(PostgresEvent::ProcessSeen(process))
}

/// PostgreSQL's answer to a question of `asked`.
fn told(node: &Node, sql: Sql, asked: Instant) -> Event {
    Event::Postgres(PostgresEvent::Answered { op: OpId::UNASKED, sql: Some(Seen::new(sql, asked, node.now)) })
}

/// What is remembered after an operation on PostgreSQL that ended so.
fn after(node: Node, action: PostgresAction, outcome: Outcome<PostgresDone>) -> Memory {
    let mut node = node.doing(Action::Postgres(action), 0);
    node.step(ended(&node, outcome));
    node.state.memory
}

fn done() -> Outcome<PostgresDone> {
    Outcome::Done(PostgresDone::Done)
}

/// It certainly failed, or nobody knows.
fn failures() -> [Outcome<PostgresDone>; 2] {
    [Outcome::Refused(Refusal::Failed("no".into())), Outcome::Unknown("?".into())]
}

/// What runs beside an agent that only observed may be a primary that leads by a tenure of this node.
#[test]
fn an_agent_that_need_not_observe_any_more_looks_for_its_tenure_as_after_a_start() {
    let observing = |observes: bool| observes.then(|| "pause".into());
    let configured = |before: bool, after: bool, tenure: Tenure| {
        let mut node = Node::primary().config(|config| config.unsupported = observing(before));
        node = node.cluster(|cluster| cluster.leader = None).with(|state| state.tenure = tenure);
        let config = crate::config::Config { unsupported: observing(after), loop_wait: seconds(3), ..config() };
        node.step(Event::Configured(config));
        assert_eq!(node.state.config.loop_wait, seconds(3));
        node.state.tenure
    };
    let looks = Tenure::Adopting { deadline: at(10_000) };
    assert_eq!(configured(true, false, Tenure::None), looks);
    let held = Node::primary().state.tenure;
    for (before, after, tenure) in [(true, false, held), (true, true, Tenure::None), (false, false, Tenure::None)] {
        assert_eq!(configured(before, after, tenure.clone()), tenure);
    }
}

/// Nobody knows what came of the first: a second one that is refused does not take it back.
#[test]
fn a_promotion_that_ended_without_an_answer_may_come_to_pass_whatever_becomes_of_the_next() {
    let promoting = || Node::standby().with(|state| state.memory.promotion = true).doing(promotion(), 0);
    let refused = |mut node: Node| {
        node = node.doing(promotion(), 0);
        node.step(ended(&node, Outcome::Refused(Refusal::Failed("not in recovery".into()))));
        node.view().may_write()
    };
    let mut overdue = promoting().later(3_600_000);
    let op = overdue.op(&Lane::PgControl);
    crate::absorb::overdue(&mut overdue.state, overdue.now, op);
    assert!(refused(overdue));
    let mut stopped = promoting();
    let stopping = stopped.state.ops.cancel(&Lane::PgControl).expect("a stop takes its lane");
    crate::absorb::cancelled(&mut stopped.state, &stopping);
    assert!(refused(stopped));
    assert!(!refused(Node::standby().with(|state| state.memory.promotion = true)));
}

#[test]
fn a_pledge_is_on_disk_when_this_one_was_written() {
    let pledge = Pledge { absent_at: Revision(101), since: at(0), frozen: true, on_disk: false };
    let written = |promised, outcome| {
        let mut node = Node::racing().with(|state| state.pledge = Some(pledge));
        node = node.doing(Action::Host(HostAction::WritePledge(promised)), 0);
        node.step(Event::Host(HostEvent::Completed { op: node.op(&Lane::Host), outcome }));
        (node.view().has_pledged(), node.state.memory.failed.contains_key("host"))
    };
    assert_eq!(written(Some(Revision(101)), Outcome::Done(())), (true, false));
    assert_eq!(written(Some(Revision(90)), Outcome::Done(())), (false, false), "an earlier one");
    assert_eq!(written(Some(Revision(101)), Outcome::Unknown("disk full".into())), (false, true));
}

#[test]
fn an_answer_of_postgresql_is_old_once_anything_changed() {
    let fresh = |change: fn(&Node) -> Event| {
        let mut node = Node::standby().later(1);
        let event = change(&node);
        node.step(event);
        node.view().fresh_sql().is_some()
    };
    let data = |data: DataDir| Event::Postgres(PostgresEvent::DataSeen(data));
    assert!(fresh(|node| seen(node.state.postgres.process)) && !fresh(|_| seen(alive(Phase::Stopping))));
    assert!(fresh(|node| Event::Postgres(PostgresEvent::DataSeen(node.state.postgres.data.clone()))));
    let mut node = Node::standby().later(1);
    node.step(data(DataDir::Cluster(standby_dir())));
    assert!(node.view().fresh_sql().is_none());
}

#[test]
fn what_was_compared_as_a_standby_is_true_while_it_is_one_and_what_was_ours_stays_ours() {
    let looked = |mut node: Node, data: DataDir| {
        node.state.memory.compared = Some((THEIR_EPOCH, None));
        node.step(Event::Postgres(PostgresEvent::DataSeen(data)));
        (node.state.memory.compared.is_some(), node.state.memory.owned)
    };
    let moved = || DataDir::Cluster(Cluster { min_recovery: Lsn(HERE.0 + 8), ..standby_dir() });
    let primary = || DataDir::Cluster(primary_dir(ControlState::ShuttingDown));
    assert_eq!(looked(Node::stopped(), moved()), (true, true));
    assert_eq!(looked(Node::stopped(), primary()), (false, true));
    assert_eq!(looked(Node::stopped().dir(primary_dir(ControlState::ShutDown)), primary()), (true, true));
    let owned = |owned: bool, data| looked(Node::stopped().with(|state| state.memory.owned = owned), data).1;
    let foreign = || DataDir::Foreign("half removed".into());
    let other = || DataDir::Cluster(Cluster { system_id: SystemId(1), ..standby_dir() });
    assert!(owned(true, foreign()) && !owned(false, foreign()));
    assert!(owned(true, other()) && !owned(false, other()) && owned(true, moved()));
}

#[test]
fn an_answer_of_postgresql_is_taken_unless_a_newer_one_is_known_or_it_is_dead() {
    let node = || Node::standby().with(|state| state.postgres.sql = None).later(10);
    let knows = |node: &Node| node.view().sql().map(|sql| sql.replayed.0);
    let moved = |by: u64| Sql { replayed: Lsn(by), ..standby_sql(None) };
    let mut running = node();
    for (asked, says, known) in [(5, 1, 1), (4, 2, 1), (5, 3, 3), (6, 4, 4)] {
        running.step(told(&running, moved(says), at(asked)));
        assert_eq!(knows(&running), Some(known));
    }
    let mut dead = node().dead();
    dead.step(told(&dead, moved(1), at(5)));
    assert_eq!(knows(&dead), None);
    let mut unseen = node().with(|state| state.postgres.process = Process::Unknown);
    unseen.step(told(&unseen, moved(1), at(5)));
    assert_eq!(knows(&unseen), Some(1));
}

/// The bug would be a tenure for as long as a restore command hangs.
#[test]
fn a_promotion_is_waited_for_from_when_it_last_replayed_more() {
    let waits = |replayed: u64, asked: u64| {
        let mut node = Node::primary().dir(standby_dir()).sql(standby_sql(None)).later(10);
        node.state.memory.promoting_since = Some(at(4));
        let sql = Sql { replayed: Lsn(replayed), ..standby_sql(None) };
        let event = told(&node, sql, at(asked));
        crate::absorb::absorb(&mut node.state, at(10), event);
        node.state.memory.promoting_since
    };
    assert_eq!([HERE.0 - 1, HERE.0, HERE.0 + 1].map(|lsn| waits(lsn, 6)), [at(4), at(4), at(6)].map(Some));
    assert_eq!(waits(HERE.0 + 1, 3), Some(at(4)), "asked before it began");
}

#[test]
fn a_question_to_postgresql_without_an_answer_is_not_repeated_at_once() {
    let observe = Action::Postgres(PostgresAction::Observe);
    let mut node = Node::standby().doing(observe, 0);
    let op = node.op(&Lane::PgObserve);
    node.step(Event::Postgres(PostgresEvent::Answered { op, sql: None }));
    assert!(node.state.memory.failed.contains_key("observe"));
    // Nor is a look at what cannot be seen.
    let looked = |change: fn(&mut crate::state::State)| {
        let mut node = Node::stopped().with(change).doing(Action::Postgres(PostgresAction::Look), 0);
        let op = node.op(&Lane::PgObserve);
        node.step(Event::Postgres(PostgresEvent::Completed { op, outcome: done() }));
        node.state.memory.failed.contains_key("observe")
    };
    assert!(looked(|state| state.postgres.process = Process::Unknown));
    assert!(looked(|state| state.postgres.data = DataDir::Unknown));
    assert!(!looked(|_| ()));
}

#[test]
fn a_postmaster_that_lived_for_a_while_was_no_failed_start() {
    let failures = |lived_ms: u64| {
        let mut node = Node::standby().later(lived_ms);
        (node.state.memory.ready_since, node.state.memory.start_failures) = (Some(at(0)), 2);
        node.step(seen(Process::Absent));
        assert_eq!((node.state.memory.ready_since, node.state.memory.dead_since), (None, Some(node.now)));
        assert!(node.state.memory.came_up);
        node.state.memory.start_failures
    };
    assert_eq!([9_999, 10_000].map(failures), [2, 0]);
}

#[test]
fn a_start_that_ends_is_a_failed_one_until_the_postmaster_has_lived_for_a_while() {
    let start = || PostgresAction::Start(StartAs::Standby(Some(upstream("b"))));
    let [refused, unknown] = failures();
    for outcome in [done(), refused, unknown] {
        assert_eq!(after(Node::stopped(), start(), outcome).start_failures, 1);
    }
    let late = Outcome::Refused(Refusal::NotOurTenure);
    assert_eq!(after(Node::stopped(), start(), late).start_failures, 0);
    let [refused, unknown] = failures();
    let came_up = |outcome| after(Node::stopped().with(|state| state.memory.came_up = true), start(), outcome).came_up;
    assert_eq!([done(), refused, unknown].map(came_up), [true, false, false]);
    assert_eq!(after(Node::standby(), PostgresAction::Checkpoint, done()).start_failures, 0);
}

#[test]
fn what_was_done_to_a_postmaster_ends_with_it() {
    let done_to = || {
        Node::standby().with(|state| {
            let memory = &mut state.memory;
            (memory.promotion, memory.promotion_in_doubt, memory.needs_restart) = (true, true, true);
        })
    };
    let ends = |process: Process| {
        let mut node = done_to();
        node.step(seen(process));
        let memory = &node.state.memory;
        let told = node.state.postgres.sql.is_some();
        (memory.promotion, memory.promotion_in_doubt, memory.needs_restart, told)
    };
    assert_eq!(ends(alive(Phase::Stopping)), (true, true, true, true), "the same postmaster");
    let other = Process::Alive { pid: Pid(51), phase: Phase::Ready };
    assert_eq!([other, Process::Absent].map(ends), [(false, false, false, false); 2]);
}

#[test]
fn a_postmaster_starts_since_it_was_first_seen_to_and_is_ready_since_it_first_was() {
    let mut node = Node::stopped();
    let mut sees = |phase: Phase, ms: u64| {
        node.now = at(ms);
        node.step(seen(alive(phase)));
        let memory = &node.state.memory;
        (memory.starting_since, memory.ready_since, memory.dead_since)
    };
    assert_eq!(sees(Phase::Starting, 1), (Some(at(1)), None, None));
    assert_eq!(sees(Phase::Ready, 2), (None, Some(at(2)), None));
    assert_eq!(sees(Phase::Stopping, 3), (None, Some(at(2)), None));
}

/// A start writes for whom it is; what PostgreSQL streams before it was turned may still be the last leader's.
#[test]
fn whom_a_standby_follows_is_whom_it_was_last_started_for_or_turned_to() {
    let to_c = || Some(upstream("c"));
    for action in [PostgresAction::Start(StartAs::Standby(to_c())), PostgresAction::Follow(to_c())] {
        let memory = after(Node::standby().later(5), action.clone(), done());
        assert_eq!((memory.followed, memory.streamed, memory.turned), (to_c(), at(5), at(5)));
        for failure in failures() {
            let memory = after(Node::standby().later(5), action.clone(), failure);
            assert_eq!((memory.followed, memory.streamed, memory.turned), (None, at(0), Instant::ZERO));
        }
    }
    let primary = after(Node::standby().later(5), PostgresAction::Start(StartAs::Primary), done());
    assert_eq!(primary.followed, None);
    assert_eq!(after(Node::standby(), PostgresAction::Checkpoint, done()).followed, Some(upstream("b")));
}

#[test]
fn a_standby_streams_from_the_leader_only_if_it_was_asked_after_it_was_turned() {
    let streams = |turned: u64| {
        let mut node = Node::standby().later(10).with(|state| {
            (state.memory.streamed_from, state.memory.turned) = (None, at(turned));
        });
        node.step(told(&node, standby_sql(Some("b")), at(5)));
        (node.state.memory.streamed, node.state.memory.streamed_from)
    };
    let b = Some(crate::id::Member::new("b"));
    assert_eq!([4, 5, 6].map(streams), [(at(5), b.clone()), (at(5), b), (at(5), None)]);
    let mut promoted = Node::standby();
    promoted.step(told(&promoted, primary_sql(), at(0)));
    assert_eq!(promoted.state.memory.streamed_from, None, "it was a primary since");
    let mut quiet = Node::standby().later(10);
    quiet.step(told(&quiet, standby_sql(None), at(5)));
    assert_eq!(quiet.state.memory.streamed, at(0));
}

#[test]
fn a_restart_that_an_upstream_waits_for_is_due_until_one_was_done() {
    let waits = |needs: bool, action, outcome| {
        after(Node::standby().with(|state| state.memory.needs_restart = needs), action, outcome).needs_restart
    };
    let follow = || PostgresAction::Follow(Some(upstream("c")));
    let new = || Outcome::Done(PostgresDone::NeedsRestart);
    assert!(waits(false, follow(), new()) && waits(true, follow(), done()) && !waits(false, follow(), done()));
    assert!(!waits(true, PostgresAction::Restart, done()));
    for failure in failures() {
        assert!(
            waits(true, PostgresAction::Restart, failure.clone()) && !waits(false, PostgresAction::Restart, failure)
        );
    }
}

#[test]
fn what_an_operation_on_postgresql_brought_is_remembered() {
    let [refused, unknown] = failures();
    for outcome in [done(), refused.clone()] {
        let memory = after(Node::standby().later(5), PostgresAction::Checkpoint, outcome);
        assert_eq!(memory.checkpointed, Some(at(5)), "not ordered over and over");
    }
    let initdb = |outcome| after(Node::stopped(), PostgresAction::Initdb, outcome).initdb_failed;
    assert_eq!([done(), refused.clone(), unknown.clone()].map(initdb), [false, true, true]);
    let without_roles = || Node::primary().with(|state| state.memory.roles_created = false);
    let roles = |outcome| after(without_roles(), PostgresAction::CreateRoles, outcome).roles_created;
    assert_eq!([done(), refused.clone(), unknown.clone()].map(roles), [true, false, false]);
    let configured = Outcome::Done(PostgresDone::Configured { generation: 4, changed: true });
    let generation = |outcome| after(Node::standby(), PostgresAction::Configure { generation: 4 }, outcome).configured;
    assert_eq!([configured, refused, unknown].map(generation), [4, 1, 1]);
}

#[test]
fn a_clone_leaves_nothing_of_what_was_known_of_the_directory_before() {
    let node = || {
        Node::stopped().with(|state| {
            let memory = &mut state.memory;
            (memory.reinit, memory.compared) = (true, Some((THEIR_EPOCH, Some(HERE))));
            memory.rewind_failed = Some((THEIR_EPOCH, "no".into()));
            memory.recovery_failed = Some((at(0), "no".into()));
        })
    };
    let left = |memory: Memory| {
        let failed = (memory.rewind_failed.is_some(), memory.recovery_failed.is_some());
        (memory.reinit, memory.compared.is_some(), failed)
    };
    let clone = || PostgresAction::Clone(upstream("b"));
    assert_eq!(left(after(node(), clone(), done())), (false, false, (false, false)));
    for failure in failures() {
        assert_eq!(left(after(node(), clone(), failure)), (true, true, (true, true)));
    }
}

#[test]
fn what_was_rewound_to_a_leader_leaves_its_history_nowhere() {
    let rewound = |outcome| {
        let mut node = Node::standby().dead().dir(standby_dir());
        node.state.memory.compared = Some((THEIR_EPOCH, Some(HERE)));
        node = node.doing(Action::Postgres(PostgresAction::Rewind(upstream("b"))), 0);
        let op = node.op(&Lane::PgControl);
        let mut in_flight = node.state.ops.cancel(&Lane::PgControl).expect("it is in flight");
        in_flight.leader = Some(THEIR_EPOCH);
        node.state.ops.begin(Lane::PgControl, in_flight);
        node.step(Event::Postgres(PostgresEvent::Completed { op, outcome }));
        (node.state.memory.compared, node.state.memory.rewind_failed.map(|(epoch, _)| epoch))
    };
    assert_eq!(rewound(done()), (Some((THEIR_EPOCH, None)), None));
    for failure in failures() {
        assert_eq!(rewound(failure), (Some((THEIR_EPOCH, Some(HERE))), Some(THEIR_EPOCH)));
    }
}

#[test]
fn a_receiver_that_was_stopped_is_a_pledge_for_this_absence_of_the_key() {
    let frozen = |pledge: Option<Pledge>| {
        let mut node = Node::racing().with(|state| state.pledge = pledge).later(5);
        node = node.doing(Action::Postgres(PostgresAction::Freeze), 0);
        node.step(ended(&node, done()));
        assert_eq!(node.state.memory.followed, None);
        node.state.pledge
    };
    let new = Pledge { absent_at: Revision(101), since: at(5), frozen: true, on_disk: false };
    assert_eq!(frozen(None), Some(new));
    assert_eq!(frozen(Some(Pledge { absent_at: Revision(90), on_disk: true, ..new })), Some(new));
    let before = Pledge { since: at(1), frozen: false, on_disk: true, ..new };
    assert_eq!(frozen(Some(before)), Some(Pledge { frozen: true, ..before }), "it was put on disk before");
    // The bug: a leader was seen meanwhile, and was followed with a pledge for no absence at all. It outlived that leader,
    // and was told while WAL came in.
    let mut node = Node::standby().doing(Action::Postgres(PostgresAction::Freeze), 0);
    node.step(ended(&node, done()));
    assert_eq!((node.state.pledge, node.state.memory.followed), (None, None));
}

#[test]
fn a_promotion_that_came_too_late_for_its_tenure_is_not_counted_as_refused() {
    let refused = |why| {
        let node = Node::primary().dir(standby_dir()).sql(standby_sql(None));
        after(node, PostgresAction::Promote { timeline: crate::id::Timeline(2) }, Outcome::Refused(why))
            .promotions_refused
    };
    assert_eq!((refused(Refusal::NotOurTenure), refused(Refusal::Failed("no".into()))), (0, 1));
}

/// The children of a postmaster that came and went between two looks are not counted by looking at it.
#[test]
fn what_may_have_brought_up_a_postmaster_may_have_left_orphans() {
    let counted = |node: Node, action, outcome| {
        let mut node = node.doing(Action::Postgres(action), 0);
        node.step(ended(&node, outcome));
        node.state.postgres.orphans
    };
    let start = || PostgresAction::Start(StartAs::Standby(None));
    for outcome in failures() {
        assert_eq!(counted(Node::stopped(), start(), outcome.clone()), None);
        assert_eq!(counted(Node::stopped(), PostgresAction::Restart, outcome.clone()), None);
        assert_eq!(counted(Node::stopped(), PostgresAction::Rewind(upstream("b")), outcome), Some(0));
    }
}

/// What is on disk after a write without an answer is known again only by one that was done.
#[test]
fn a_write_of_the_epoch_without_an_answer_leaves_it_in_doubt_until_one_is_done() {
    let doubt = |before: bool, outcome| {
        let mut node = Node::primary().with(|state| state.memory.epoch_in_doubt = before);
        node = node.doing(Action::Host(HostAction::WriteEpoch(epoch_file())), 0);
        let op = node.op(&Lane::Host);
        let event = Event::Host(HostEvent::Completed { op, outcome });
        crate::absorb::absorb(&mut node.state, at(1), event);
        (node.state.memory.epoch_in_doubt, node.state.memory.epoch_failing.is_some())
    };
    let refused = || Outcome::Refused(Refusal::Failed("read-only".into()));
    assert_eq!([doubt(false, refused()), doubt(true, refused())], [(false, true), (true, true)]);
    for before in [false, true] {
        assert_eq!(doubt(before, Outcome::Unknown("no answer".into())), (true, true));
        assert_eq!(doubt(before, Outcome::Done(())), (false, false));
    }
}

/// The bug: a standby's control file moves on with all that is replayed, and each time what its server had told was taken
/// for old. A race waited for another answer.
#[test]
fn what_a_server_told_stays_true_while_only_positions_move() {
    let mut node = Node::standby();
    let changed = node.state.memory.changed;
    let dir = node.view().dir().unwrap().clone();
    let further = Cluster { checkpoint: Lsn(dir.checkpoint.0 + 8), min_recovery: Lsn(dir.min_recovery.0 + 8), ..dir };
    node = node.later(1);
    node.step(Event::Postgres(PostgresEvent::DataSeen(DataDir::Cluster(further.clone()))));
    assert_eq!(node.state.memory.changed, changed);
    assert_eq!(node.state.postgres.data, DataDir::Cluster(further.clone()));
    let promoted = Cluster { state: ControlState::InProduction, ..further };
    node.step(Event::Postgres(PostgresEvent::DataSeen(DataDir::Cluster(promoted))));
    assert_eq!(node.state.memory.changed, node.now);
}

/// The bug: a host that was out of descriptors for one look had a primary that served given up.
#[test]
fn a_directory_that_cannot_be_read_is_what_it_was_while_a_server_runs_on_it() {
    let unreadable = || DataDir::Unreadable("too many open files".into());
    let sees = |node: &mut Node, data: DataDir| node.step(Event::Postgres(PostgresEvent::DataSeen(data)));
    let mut primary = Node::primary();
    let known = primary.state.postgres.data.clone();
    sees(&mut primary, unreadable());
    assert_eq!(primary.state.postgres.data, known);
    let looks = |node: &Node| crate::decide::observe::orders(&node.view(), true).into_iter().map(|(action, _)| action);
    let look = Action::Postgres(PostgresAction::Look);
    assert!(!looks(&primary).any(|action| action == look), "not as fast as looks fail");
    assert!(looks(&primary.clone().later(200)).any(|action| action == look));
    let asks = |doubt: bool| {
        let node = primary.clone().later(1_000);
        let now = node.now;
        let node = node.with(|state| state.memory.data_in_doubt = doubt.then_some(now));
        let orders = crate::decide::observe::orders(&node.view(), true);
        orders.into_iter().any(|(action, _)| action == Action::Postgres(PostgresAction::Observe))
    };
    assert_eq!((asks(true), asks(false)), (true, false), "PostgreSQL has to tell what a look would");
    let doubt_after = |ms: u64| {
        let mut node = primary.clone().later(ms);
        let effects = node.step(Event::Operator(crate::id::RequestId(1), crate::event::Request::Restart));
        (actions(&effects).contains(&look), node.state.memory.data_in_doubt)
    };
    assert_eq!(doubt_after(50), (false, Some(at(0))), "other orders put off no look");
    assert_eq!(doubt_after(200), (true, Some(at(200))), "the next look waits as well");
    // A look tells of the directory first.
    let mut dead = primary.clone();
    dead.step(seen(Process::Absent));
    assert_eq!(dead.state.postgres.data, DataDir::Unknown, "of before its end");
    sees(&mut dead, unreadable());
    assert_eq!(dead.state.postgres.data, unreadable(), "nothing runs there");
    let mut another = primary.clone();
    another.step(seen(Process::Alive { pid: Pid(4242), phase: Phase::Ready }));
    assert_eq!(another.state.postgres.data, DataDir::Unknown);
    sees(&mut primary, known.clone());
    primary.step(seen(Process::Absent));
    assert_eq!(primary.state.postgres.data, known, "it was looked at since");
    let mut unknown = Node::primary().with(|state| state.postgres.data = DataDir::Unknown);
    sees(&mut unknown, unreadable());
    assert_eq!(unknown.state.postgres.data, unreadable(), "it was never read");
}

#[test]
fn a_stop_is_not_drained_by_what_was_read_before() {
    let drained = Node::primary().dir(primary_dir(ControlState::ShutDown)).with(|state| {
        state.postgres.process = Process::Alive { pid: Pid(9), phase: Phase::Stopping };
    });
    assert!(drained.view().drained());
    assert!(!drained.with(|state| state.memory.data_in_doubt = Some(Instant(1))).view().drained());
}

/// The bug: a hold waited out the pause after a refusal of something else, and writes went on beside a vanished key.
#[test]
fn what_the_guard_refused_keeps_nothing_else_from_being_ordered() {
    let gone = |node: &mut Node| {
        let view = ClusterView { leader: None, ..cluster(300) };
        let effects = node.step(Event::Store(StoreEvent::Watched(Seen::new(view, node.now, node.now))));
        effects.orders.iter().any(|order| order.action == Action::Guard(GuardAction::Hold))
    };
    let refuses = |node: &mut Node| drop(node.step(Event::Guard(GuardEvent::Refused("no".into()))));
    let mut node = Node::primary();
    node.tick();
    refuses(&mut node);
    assert!(gone(&mut node));
    refuses(&mut node);
    let again = |node: &mut Node| {
        let orders = node.tick().orders;
        orders.iter().any(|order| order.action == Action::Guard(GuardAction::Hold))
    };
    assert!(!again(&mut node), "a hold that was refused itself is asked for after a pause");
    assert!(again(&mut node.later(50)));
}
