//! The rungs that keep hands off or wait: unsupported, identity, isolated, startup, busy.

use super::race::branch;
use super::*;
use crate::event::EpochFile;
use crate::id::{Member, Timeline};
use crate::view::peers::PeerAnswer;
use crate::view::postgres::{Sender, Sql};
use crate::view::store::MemberRecord;

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

/// The bug: an operator garbled `initialize` and put another cluster's data into the directory of a node; the node won the
/// key with them, and the cluster had become another.
#[test]
fn the_data_of_another_cluster_halt_the_agent_also_when_the_key_does_not_tell_of_ours() {
    for (knew, rung) in [(Some(SystemId(7)), Rung::Identity), (Some(SystemId(1)), Rung::Follow), (None, Rung::Follow)] {
        let node = Node::standby()
            .dir(Cluster { system_id: SystemId(1), ..standby_dir() })
            .cluster(|cluster| cluster.initialize = None)
            .with(|state| state.memory.knew = knew);
        assert_eq!(node.concludes().0, rung, "{knew:?}");
        // The bug: it left, as where the key tells, and the next agent knew nothing and let them lead.
        assert!(rung != Rung::Identity || node.decide().1.orders.is_empty(), "it stays, since it alone knows");
    }
}

/// The bug: `initialize` was deleted while nobody led, and a node that had led was started beside another cluster's data,
/// which won.
#[test]
fn the_data_of_another_cluster_do_not_win_where_the_disk_tells_of_ours() {
    let led = |led: Option<SystemId>, keys: bool| {
        let node = Node::racing()
            .dir(Cluster { system_id: SystemId(1), ..standby_dir() })
            .cluster(|cluster| {
                cluster.initialize = None;
                cluster.epoch = keys.then(|| epoch_record("b", THEIR_EPOCH));
            })
            .with(|state| {
                state.epoch_file = led.map(|system_id| EpochFile { system_id, ..epoch_file() });
            });
        (node.concludes().0, node.decide().1.fate)
    };
    assert_eq!(led(Some(SystemId(7)), true), (Rung::Identity, Fate::LetLapse));
    assert_ne!(led(Some(SystemId(1)), true).0, Rung::Identity);
    assert_ne!(led(None, true).0, Rung::Identity, "it never led");
    // All keys were deleted, and this node has begun a cluster anew.
    let born = |epoch: Revision| {
        let node = Node::racing().dir(Cluster { system_id: SystemId(1), ..standby_dir() }).cluster(|cluster| {
            cluster.initialize = None;
            cluster.epoch = Some(epoch_record("a", epoch));
        });
        node.with(|state| state.epoch_file = Some(EpochFile { system_id: SystemId(7), ..epoch_file() })).concludes().0
    };
    assert_eq!(born(EPOCH), Rung::Identity, "that was before");
    assert_ne!(born(Revision(EPOCH.0 + 1)), Rung::Identity);
    assert_ne!(led(Some(SystemId(7)), false).0, Rung::Identity, "all keys are gone: another cluster may begin");
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
fn our_own_directory_that_is_being_removed_is_waited_for_and_looked_at_again() {
    let owned = |data: DataDir| {
        Node::stopped().with(|state| {
            state.postgres.data = data;
            state.memory.owned = true;
        })
    };
    let foreign = || owned(DataDir::Foreign("no pg_control".into()));
    concludes(&foreign(), Rung::Identity, "data_dir_vanishing", Fate::Keep, &[]);
    let looks = |mut node: Node| {
        let orders = node.tick().orders;
        let look = orders.into_iter().find(|order| order.action == Action::Postgres(PostgresAction::Look));
        look.map(|order| order.because.code())
    };
    let changed = |node: Node| node.with(|state| state.memory.changed = at(0));
    assert_eq!(looks(changed(foreign()).later(199)), None);
    assert_eq!(looks(changed(foreign()).later(200)), Some("observation_due"));
    assert_eq!(looks(changed(foreign()).with(|state| state.memory.owned = false).later(200)), None, "another's");
    assert_eq!(looks(changed(owned(DataDir::Empty)).later(200)), None, "it is gone");
    // What cannot be read at all was not removed: it is for somebody to see.
    let unreadable = owned(DataDir::Unreadable("permission denied".into()));
    assert_eq!(unreadable.concludes(), (Rung::Identity, "data_dir_unusable", Fate::LetLapse));
    assert_ne!(owned(DataDir::Empty).decide().0, Rung::Identity);
}

#[test]
fn a_node_whose_initdb_failed_lets_others_try_for_a_while() {
    let failed = || {
        empty().with(|state| state.memory.gave_up = Some(at(0))).cluster(|cluster| {
            (cluster.initialize, cluster.config_revision) = (None, Revision(0));
            cluster.members.retain(|name, _| name.as_str() == "a");
        })
    };
    concludes(&failed(), Rung::Bootstrap, "initdb_failed", Fate::Keep, &[]);
    concludes(&failed().later(9_999), Rung::Bootstrap, "initdb_failed", Fate::Keep, &[]);
    let (rung, verdict) = failed().later(10_000).decide();
    assert_eq!((rung, verdict.reason.code()), (Rung::Bootstrap, "no_cluster_yet"));
    // Whoever wins meanwhile is cloned from.
    let led = failed().cluster(|cluster| *cluster = led_by("b", 101));
    assert_eq!(led.decide().1.reason.code(), "cloning");
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
    let resumed = Node::primary().later(3_000).with(|state| state.memory.resumed = at(1));
    assert_eq!(resumed.decide().0, Rung::Leader, "while it was let go nobody was sought");
    // In a pause as long as the store does not tell that it has no guard (seed 868).
    let paused = |let_go: bool| {
        let node = Node::primary().cluster(|cluster| cluster.paused = Some(true)).later(3_000);
        node.with(|state| (state.memory.paused, state.memory.let_go) = (Some(at(0)), let_go))
    };
    concludes(&paused(false), Rung::Pause, "alone", Fate::Keep, &[HOLD]);
    assert_ne!(paused(true).concludes().1, "alone");
    // The bug: the only other member was still starting when the store fell silent, and its record was believed ever after
    // (seed 16084120: it came up, and nobody told). One that is no cluster's yet could not take over.
    let told = |change: fn(&mut MemberRecord)| {
        let node = Node::primary().cluster(|cluster| {
            cluster.members.retain(|name, _| name.as_str() != "c");
            change(&mut cluster.members.get_mut(&Member::new("b")).expect("b is a member").record);
        });
        let mut node = node.later(1);
        node.tick();
        node.later(5_000).concludes().1
    };
    assert_eq!(told(|record| record.state = "starting".into()), "alone");
    assert_eq!(told(|record| record.state = "creating replica".into()), "tenure_held");
}

/// The bug: whoever could take over appeared, and writes were held in that very step: nobody had been asked for as long as
/// there was nobody.
#[test]
fn an_heir_that_appears_leaves_time_for_a_question() {
    let alone = |ms: u64| Node::primary().with(|state| state.memory.heirs_since = Some(at(3_000))).later(3_000 + ms);
    assert_eq!(alone(0).concludes().1, "tenure_held");
    let asks = crate::decide::observe::orders(&alone(0).view(), true);
    assert!(asks.iter().any(|(_, because)| because.code() == "observation_due"), "and that is asked at once");
    assert_eq!((alone(749).concludes().1, alone(750).concludes().1), ("tenure_held", "alone"));
    // Nor was anybody asked while PostgreSQL was stopped.
    let mut node = Node::primary().dead();
    node.tick();
    assert_eq!(node.state.memory.heirs_since, None);
    let mut node = node.later(4_000).phase(Phase::Ready).sql(primary_sql());
    node.tick();
    assert_eq!((node.state.memory.heirs_since, node.concludes().1), (Some(at(4_000)), "tenure_held"));
}

/// The bug: the standby that had answered last went away, and with its WAL sender what that had told: writes were held in that
/// very step.
#[test]
fn a_standby_that_has_gone_has_answered_all_the_same() {
    let sender = Sender { application_name: Member::new("b"), reply_age: Some(millis(0)), ..Sender::default() };
    let mut node = Node::primary().later(2_000).sql(Sql { senders: vec![sender], ..primary_sql() });
    node.tick();
    let gone = |ms: u64| node.clone().later(ms).sql(primary_sql()).concludes().1;
    assert_eq!((gone(2_999), gone(3_000)), ("tenure_held", "alone"));
}

/// It would serve for a moment beside whoever was elected meanwhile.
#[test]
fn who_was_alone_when_its_postgres_died_is_alone_when_that_is_up_again() {
    let comes_up = |after_ms: u64| {
        let mut node = Node::primary().later(after_ms);
        node.tick();
        let mut node = node.dead().later(50);
        node.tick();
        let mut node = node.later(50).phase(Phase::Ready).sql(primary_sql());
        node.tick();
        node.concludes().1
    };
    assert_eq!((comes_up(2_500), comes_up(3_000)), ("tenure_held", "alone"));
}

/// The bug: it held its writes, alone, another was elected, and that one was the first to answer: it went on beside it.
#[test]
fn who_leads_or_follows_another_is_no_contact() {
    use crate::view::peers::PeerAnswer;
    let told = |answer: PeerAnswer| {
        let mut node = Node::primary().later(3_500);
        let (op, asked, member) = (crate::id::OpId::UNASKED, node.now, Member::new("b"));
        let outcome = crate::op::Outcome::Done(answer);
        node.step(Event::Peer(crate::event::PeerEvent::Answered { op, member, outcome, asked }));
        node.concludes().1
    };
    let answered = |primary: bool, ahead: u32, epoch: i64| {
        let seen = Revision(EPOCH.0 + epoch);
        let mut answer = PeerAnswer { primary, leader_epoch: seen, keys_at: seen, ..answer(HERE, None) };
        answer.history.timeline = Timeline(Node::primary().view().own_timeline().0 + ahead);
        told(answer)
    };
    assert_eq!((answered(true, 0, 0), answered(false, 0, 0)), ("alone", "tenure_held"));
    assert_eq!(answered(false, 1, 0), "alone", "it follows who was elected meanwhile");
    assert_eq!((answered(false, 0, 1), answered(false, 0, -1)), ("alone", "tenure_held"), "it sees its key");
    let sees_none = |keys_at: i64| told(PeerAnswer { keys_at: Revision(keys_at), ..answer(HERE, None) });
    assert_eq!((sees_none(EPOCH.0), sees_none(EPOCH.0 - 1), sees_none(0)), ("alone", "tenure_held", "tenure_held"));
}

#[test]
fn any_contact_ends_isolation_and_a_primary_without_heirs_is_never_isolated() {
    let contact = at(1_000);
    let store = Node::primary().with(|state| state.store.answered = contact).later(3_500);
    let peer = Node::primary().with(|state| state.peers.answered = contact).later(3_500);
    let mut sql = primary_sql();
    let (application_name, reply_age) = (Member::new("b"), Some(millis(500)));
    sql.senders = vec![Sender { application_name, reply_age, ..Default::default() }];
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
    concludes(&node(300_000), Rung::Startup, "starting", Fate::Keep, &["b", "c"].map(asks_status));
    let silent_for = |ms: u64| {
        node(300_000).with(|state| {
            state.peers.unreachable.insert(Member::new("b"), at(0).back(millis(ms)));
        })
    };
    concludes(&silent_for(5_000), Rung::Startup, "starting", Fate::Keep, &["c"].map(asks_status));
    concludes(&silent_for(5_001), Rung::Startup, "starting", Fate::Keep, &["b", "c"].map(asks_status));
    let good = node(300_000).told_by("b", answer(HERE, None));
    concludes(&good, Rung::Startup, "recovery_too_long", Fate::Release, &orders);
    // The bug: the only other that ran had left the history of this leader, and might never lead (seed 16083621).
    let unfit = |answer: PeerAnswer| {
        let only = node(300_000).cluster(|cluster| {
            cluster.members.retain(|name, _| name.as_str() != "c");
            cluster.status = Some(StatusKey { optime: HERE, timeline: Timeline(1), ..StatusKey::default() });
        });
        only.told_by("b", answer).later(1_999).concludes().1
    };
    assert_eq!(unfit(answer(HERE, None)), "recovery_too_long");
    assert_eq!(unfit(PeerAnswer { barred: true, ..answer(HERE, None) }), "starting");
    assert_eq!(unfit(PeerAnswer { primary: true, ..answer(HERE, None) }), "starting");
    assert_eq!(unfit(answer(Lsn(0), None)), "starting", "it lags by more than may be given up");
    let strayed = |by: u64| PeerAnswer { history: branch(Lsn(HERE.0 - by)), ..answer(HERE, None) };
    assert_eq!((unfit(strayed(1 << 20)), unfit(strayed((1 << 20) + 1))), ("recovery_too_long", "starting"));
    // What it publishes when it gives up counts as well: a checkpoint that was written after its last word.
    let crashed = Cluster { checkpoint: Lsn(HERE.0 + (1 << 20) + 1), ..primary_dir(ControlState::InCrashRecovery) };
    assert_eq!(good.clone().dir(crashed.clone()).concludes().1, "starting");
    let checkpoint = Lsn(HERE.0 + (1 << 20));
    assert_eq!(good.clone().dir(Cluster { checkpoint, ..crashed }).concludes().1, "recovery_too_long");
    // Who runs and tells nothing is waited for, and not for ever; nor does what lags keep an operator from naming it, or from
    // ending this agent.
    let silent = |over_ms: u64| {
        node(300_000 + over_ms).with(|state| {
            state.peers.unreachable.insert(Member::new("b"), at(0));
        })
    };
    assert_eq!([29_999, 30_000].map(|ms| silent(ms).concludes().1), ["starting", "recovery_too_long"]);
    let named = node(300_000).cluster(|cluster| cluster.failover = Some(failover(None, Some("b"))));
    assert_eq!(named.concludes().1, "recovery_too_long");
    let moved = node(300_000).cluster(|cluster| cluster.failover = Some(failover(Some("a"), Some("b"))));
    assert_eq!(moved.concludes().1, "starting", "who is to take over in a switchover has to hold enough");
    assert_eq!(node(300_000).with(|state| state.leaving = true).concludes().1, "recovery_too_long");
    let late = good.later(2_001);
    concludes(&late, Rung::Startup, "starting", Fate::Keep, &["b", "c"].map(asks_status));
    let concluded = late.with(|state| state.memory.giving_up = true);
    assert_eq!(concluded.concludes().1, "recovery_too_long", "what was concluded once is gone through with");
    let alone = node(300_000).cluster(|cluster| cluster.members.clear());
    concludes(&alone, Rung::Startup, "starting", Fate::Keep, &[]);
    // What was begun before a pause is neither ended by it nor by what it takes (seed 461903).
    let mut paused = node(300_000).with(|state| state.memory.paused = Some(at(0)));
    paused.state.memory.requested = true;
    concludes(&paused, Rung::Startup, "starting", Fate::Keep, &[]);
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
