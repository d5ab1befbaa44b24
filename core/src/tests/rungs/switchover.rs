//! Leadership that is handed over: on request, and when the agent leaves.

use super::race::branch;
use super::*;
use crate::action::Lane;
use crate::event::{PostgresEvent, StoreDone, StoreEvent};
use crate::id::{Pid, Timeline};
use crate::op::Outcome;
use crate::reason::Reason;
use crate::time::WallMillis;
use crate::view::postgres::Sql;

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

/// The bug: a checkpoint that took longer than 1.5 `loop_wait` had a scheduled switchover dropped half-way.
#[test]
fn a_scheduled_switchover_is_asked_for_at_once_when_it_begins() {
    let scheduled = FailoverKey { scheduled_at: Some(WallMillis(1_000_000)), ..failover(Some("a"), Some("b")) };
    let with = |request: &FailoverKey| {
        let request = request.clone();
        b_answers(moving(), |_| ()).cluster(|cluster| {
            cluster.failover_revision = request.revision;
            cluster.failover = Some(request);
        })
    };
    let put = Action::Store(StoreAction::PutFailover {
        revision: scheduled.revision,
        epoch: EPOCH,
        leader: Some(Member::new("a")),
        candidate: Some(Member::new("b")),
        scheduled_at: None,
    });
    concludes(&with(&scheduled), Rung::Switchover, "schedule_begun", Fate::Keep, std::slice::from_ref(&put));
    let written = with(&FailoverKey { scheduled_at: None, ..scheduled.clone() });
    assert_eq!(written.concludes().1, "stopping_for_handover");
    // Told before the watch has: it is not written once more on the keys of before.
    let mut told = with(&scheduled);
    assert!(actions(&told.tick()).contains(&put));
    let (op, asked) = (told.op(&Lane::Publish), told.now);
    let outcome = Outcome::Done(StoreDone::Written);
    let orders = actions(&told.step(Event::Store(StoreEvent::Completed { op, outcome, asked })));
    assert!(!orders.contains(&put) && orders.contains(&Action::Store(StoreAction::Read)), "{orders:?}");
    let unasked = moving().cluster(|cluster| cluster.failover = Some(scheduled));
    assert_eq!(unasked.concludes().1, "asking_candidates", "nothing is begun for a candidate that is no good");
}

#[test]
fn one_good_candidate_is_enough_for_a_switchover_to_anybody() {
    let anybody = moving().cluster(|cluster| cluster.failover = Some(failover(Some("a"), None)));
    assert_eq!(anybody.concludes().1, "asking_candidates");
    assert_eq!(b_answers(anybody, |_| ()).concludes().1, "stopping_for_handover", "c is not waited for");
}

#[test]
fn a_candidate_that_is_no_good_is_refused_and_the_primary_stays() {
    let clear = Action::Store(StoreAction::ClearFailover { revision: Revision(90) });
    let bad = [
        ("no_good_candidate", b_answers(moving(), |answer| answer.barred = true)),
        ("no_good_candidate", b_answers(moving(), |answer| answer.primary = true)),
        // It was waited for with PostgreSQL stopped, and could never replay what was written here.
        ("no_good_candidate", b_answers(moving(), |answer| answer.history = branch(Lsn(HERE.0 - 8)))),
        ("candidate_lagging", b_answers(moving(), |answer| answer.flushed = Lsn(8))),
    ];
    for (code, node) in bad {
        concludes(&node, Rung::Switchover, code, Fate::Keep, std::slice::from_ref(&clear));
    }
    let newer = b_answers(moving(), |answer| answer.flushed = Lsn(HERE.0 + 8));
    assert_eq!(newer.concludes().1, "stopping_for_handover", "PostgreSQL was asked before it was");
    let led =
        Node::primary().dir(Cluster { history: branch(Lsn(HERE.0 - 8)), ..primary_dir(ControlState::InProduction) });
    let request = failover(Some("a"), Some("b"));
    let led = led.sql(Sql { timeline: Timeline(2), ..primary_sql() }).cluster(|cluster| {
        cluster.failover_revision = request.revision;
        cluster.failover = Some(request.clone());
    });
    let behind = b_answers(led, |_| ());
    assert_eq!(behind.concludes().1, "stopping_for_handover", "it may have followed since it looked at its files");
    let patronis = moving().cluster(|cluster| {
        cluster.members.get_mut(&Member::new("b")).expect("b is a member").record.pledges = false;
    });
    let numbered = b_answers(patronis, |answer| answer.history = History::first(Timeline(2)));
    assert_eq!(numbered.concludes().1, "stopping_for_handover", "a number says nothing of where it parted");
    let now = moving().now;
    let silent = moving().with(|state| {
        state.peers.unreachable.insert(Member::new("b"), now);
    });
    assert_eq!(silent.concludes().1, "no_good_candidate");
    // The bug: its silence is dated from the question, and was too old by the time that the question had waited for it.
    let silent = |age_ms: u64| {
        moving().with(|state| {
            let asked = now.back(crate::time::Duration::from_millis(age_ms));
            state.peers.unreachable.insert(Member::new("b"), asked);
        })
    };
    assert_eq!(silent(4_999).concludes().1, "no_good_candidate");
    assert_eq!(silent(5_001).concludes().1, "asking_candidates");
}

/// The bug: a standby had just come up and streamed, and a switchover to it was refused at once, since its record still said
/// `starting` where the leader read it.
#[test]
fn a_candidate_is_asked_whatever_its_record_told_last() {
    let comes_up = || {
        moving().cluster(|cluster| {
            let b = cluster.members.get_mut(&Member::new("b")).expect("it is a member");
            b.record.state = "starting".into();
        })
    };
    assert_eq!(comes_up().concludes().1, "asking_candidates");
    assert_eq!(b_answers(comes_up(), |_| ()).concludes().1, "stopping_for_handover", "it replays what is written here");
    let stopped = b_answers(comes_up(), |answer| answer.replayed = Lsn(0));
    assert_eq!(stopped.concludes().1, "no_good_candidate");
    let anybody = comes_up().cluster(|cluster| {
        cluster.failover = Some(failover(Some("a"), None));
        cluster.members.remove(&Member::new("c"));
    });
    assert_eq!(anybody.concludes().1, "no_good_candidate", "who is not named is not asked before it runs");
}

/// The bug: a candidate did not take the key that was released to it, and whoever won it in its stead stopped for it again.
#[test]
fn what_was_asked_of_a_leader_before_this_one_is_over() {
    let asked = |revision: i64, scheduled: bool| {
        let scheduled_at = scheduled.then_some(WallMillis(1_000_000));
        let request = FailoverKey { revision: Revision(revision), scheduled_at, ..failover(None, Some("b")) };
        moving().cluster(|cluster| cluster.failover = Some(request))
    };
    assert_eq!(asked(EPOCH.0 + 1, false).decide().0, Rung::Switchover);
    assert_eq!(asked(EPOCH.0 - 1, false).decide().0, Rung::Leader);
    let stopped = Node::handing_over().cluster(|cluster| {
        cluster.failover = Some(FailoverKey { revision: Revision(EPOCH.0 - 1), ..failover(None, Some("b")) });
    });
    assert_eq!(stopped.decide().0, Rung::Switchover, "the key was regained meanwhile");
    assert_eq!(asked(EPOCH.0 - 1, true).decide().0, Rung::Switchover, "what is scheduled is for who leads then");
    let cleared = |node: &Node| crate::decide::cluster_keys::order(&node.view()).map(|(_, reason)| reason);
    assert_eq!(cleared(&asked(EPOCH.0 - 1, false)), Some(Reason::RequestStale));
    assert_ne!(cleared(&asked(EPOCH.0 + 1, false)), Some(Reason::RequestStale));
}

#[test]
fn a_request_for_another_leader_or_a_later_time_is_not_this_ones() {
    let other = moving().cluster(|cluster| cluster.failover = Some(failover(Some("c"), Some("b"))));
    assert_eq!(other.decide().0, Rung::Leader);
    let later = moving().cluster(|cluster| {
        cluster.failover.as_mut().unwrap().scheduled_at = Some(WallMillis(1_000_001));
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
    let other_timeline = b_answers(Node::handing_over(), |answer| answer.history = History::first(Timeline(9)));
    assert_eq!(other_timeline.concludes().1, "awaiting_candidate");
    // Two nodes can mint the same number: where it began tells them apart.
    let minted = |end: u64| {
        let ancestors = vec![Ancestor { timeline: Timeline(1), end: Lsn(end), reason: String::new() }];
        History { ancestors, timeline: Timeline(2) }
    };
    let ours = || {
        Node::handing_over().dir(Cluster {
            history: minted(100),
            checkpoint_timeline: Timeline(2),
            ..primary_dir(ControlState::ShutDown)
        })
    };
    let theirs =
        |end| b_answers(ours(), move |answer| (answer.history, answer.replayed) = (minted(end), Lsn(u64::MAX)));
    assert_eq!(theirs(100).concludes().1, "handing_over");
    assert_eq!(theirs(90).concludes().1, "awaiting_candidate");
    let patroni = theirs(90).cluster(|cluster| {
        cluster.members.get_mut(&Member::new("b")).unwrap().record.pledges = false;
    });
    assert_eq!(patroni.concludes().1, "handing_over", "it tells no more than the number");
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

/// The bug: whoever asked it to stop waited for hours.
#[test]
fn an_agent_that_leaves_waits_for_no_copy() {
    let exit = Action::Host(HostAction::Exit { code: 0, message: "stopped".into() });
    let doing = |action| Node::stopped().doing(Action::Postgres(action), 1_000).with(|state| state.leaving = true);
    for copy in [PostgresAction::Clone(upstream("b")), PostgresAction::Restore] {
        let orders = std::slice::from_ref(&exit);
        concludes(&doing(copy).later(2_000), Rung::Switchover, "shutting_down", Fate::Keep, orders);
    }
    // What was rewound half-way would have to be cloned.
    assert_eq!(doing(PostgresAction::Rewind(upstream("b"))).concludes().1, "rewind_running");
}

#[test]
fn an_agent_that_only_observes_leaves_without_touching_postgresql() {
    let node = Node::standby().with(|state| state.leaving = true);
    let node = node.config(|config| config.unsupported = Some("pause".into()));
    let message = "stopped; PostgreSQL is left as it is, since the cluster asks for pause".into();
    let exit = Action::Host(HostAction::Exit { code: 0, message });
    concludes(&node, Rung::Unsupported, "shutting_down", Fate::Keep, &[exit]);
    // What it leads, or its guard is armed for, does not live on without it.
    let armed = node.with(|state| state.guard.armed = Some(Armed { tenure: LeaseId(0), at: at(9_000) }));
    assert_eq!(armed.concludes().0, Rung::Switchover);
    let leads = Node::primary().with(|state| (state.leaving, state.guard.armed) = (true, None));
    let leads = leads.config(|config| config.unsupported = Some("pause".into()));
    assert_eq!(leads.concludes().0, Rung::Switchover);
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

#[test]
fn a_request_is_a_wish_for_this_leader_if_it_names_anybody_but_this_node() {
    let hands_over = |leader: Option<&str>, candidate: Option<&str>| {
        moving().cluster(|cluster| cluster.failover = Some(failover(leader, candidate))).decide().0 == Rung::Switchover
    };
    assert!(hands_over(Some("a"), Some("b")) && hands_over(None, Some("b")) && hands_over(Some("a"), None));
    assert!(!hands_over(None, None) && !hands_over(Some("c"), Some("b")) && !hands_over(None, Some("a")));
}

#[test]
fn a_primary_that_crashed_on_its_way_down_hands_nothing_over() {
    let crashed = Node::handing_over().dir(primary_dir(ControlState::InProduction));
    assert_eq!(crashed.concludes().1, "restart_in_place");
}

#[test]
fn a_hand_over_does_not_wait_for_what_only_drains() {
    let draining = |ms| {
        let node = moving().phase(Phase::Stopping).dir(primary_dir(ControlState::ShutDown));
        node.with(|state| (state.memory.drained_since, state.store.answered) = (Some(at(0)), at(ms))).later(ms)
    };
    concludes(&draining(5_000), Rung::Switchover, "stopping_for_handover", Fate::Keep, &[stop(StopMode::Immediate)]);
    assert_eq!(draining(4_999).wants(), []);
}

/// The bug: one session that takes no notice of a fast stop kept the cluster without a primary for as long as it liked.
#[test]
fn a_hand_over_that_a_session_keeps_from_stopping_is_given_up() {
    let lingering = |ms| {
        let node = moving().phase(Phase::Stopping).dir(primary_dir(ControlState::InProduction));
        let node = node.doing(stop(StopMode::Fast), 0).later(ms).with(renewed);
        node.with(|state| {
            (state.memory.lingering_since, state.store.answered) = (Some(at(0)), at(ms));
            state.memory.checkpoint_written = Some(at(0));
        })
    };
    let node = lingering(60_000).with(|state| {
        let now = at(59_000);
        state.tenure = Tenure::Held(Held { lease: OURS, epoch: EPOCH, ttl: seconds(30), confirmed: now });
        state.guard.armed = Some(Armed { tenure: OURS, at: state.config.bounds.arm_at(now, seconds(30)) });
    });
    concludes(&node, Rung::Switchover, "stop_ignored", Fate::Keep, &[stop(StopMode::Immediate)]);
    assert_eq!(lingering(29_999).concludes().1, "stopping");
    // Nor is it begun again, however long it takes to be cleared.
    let revision = node.view().cluster().and_then(|cluster| cluster.failover.as_ref()).unwrap().revision;
    let mut node = node;
    node.tick();
    assert_eq!(node.state.memory.given_up, Some(revision));
    let mut again = b_answers(moving(), |_| ()).with(|state| state.memory.given_up = Some(revision));
    assert_eq!(again.concludes(), (Rung::Leader, "tenure_held", Fate::Keep));
    let clear = Action::Store(StoreAction::ClearFailover { revision });
    assert!(actions(&again.tick()).contains(&clear));
    let newer = again.with(|state| state.memory.given_up = Some(Revision(1)));
    assert_ne!(newer.concludes().1, "tenure_held", "it was asked for again");
    // A fence is none that is given up.
    let mut fenced = moving().cluster(|cluster| {
        let leader = cluster.leader.as_mut().expect("it leads");
        (leader.member, leader.lease, leader.created) = (Member::new("b"), LeaseId(77), Revision(101));
    });
    fenced.state.spend_tenure();
    (fenced.state.guard.present, fenced.state.guard.armed) = (false, None);
    let orders = actions(&fenced.tick());
    assert!(orders.contains(&stop(StopMode::Immediate)), "{orders:?}");
    assert_eq!((fenced.state.memory.given_up, fenced.state.memory.ending), (None, false));
}

#[test]
fn a_stop_that_is_being_ended_is_that_of_the_server_that_runs() {
    let seen = |process| {
        let mut node = Node::primary().with(|state| state.memory.ending = true);
        node.step(Event::Postgres(PostgresEvent::ProcessSeen(process)));
        node.state.memory.ending
    };
    let pid = Node::primary().state.postgres.process;
    let Process::Alive { pid, .. } = pid else { panic!("a primary runs") };
    assert!(seen(Process::Alive { pid, phase: Phase::Stopping }));
    assert!(!seen(Process::Alive { pid: Pid(4242), phase: Phase::Ready }));
    assert!(!seen(Process::Absent));
}

/// The bug: whoever left while an operator's candidate was no good stopped PostgreSQL, waited for that one, and so did
/// everybody else.
#[test]
fn who_leaves_does_not_wait_for_a_candidate_that_is_no_good() {
    let leaving = |barred| b_answers(moving(), |answer| answer.barred = barred).with(|state| state.leaving = true);
    assert_eq!(leaving(true).concludes().1, "no_good_candidate", "the request is cleared, and anybody may have it");
    assert_ne!(leaving(false).concludes().1, "no_good_candidate");
}

#[test]
fn a_candidate_whose_replay_is_paused_is_no_good() {
    let paused = |paused| b_answers(moving(), |answer| answer.replay_paused = paused).concludes().1;
    assert_eq!(paused(true), "no_good_candidate", "it would be waited for with PostgreSQL stopped");
    assert_ne!(paused(false), "no_good_candidate");
    let node = Node::standby().sql(Sql { replay_paused: true, ..standby_sql(None) });
    assert!(node.view().own_answer().replay_paused && !Node::standby().view().own_answer().replay_paused);
}

#[test]
fn a_checkpoint_before_the_stop_is_not_older_than_half_a_minute() {
    let code = |age_ms| {
        let node = b_answers(moving().later(age_ms), |_| ());
        node.with(|state| state.memory.checkpointed = Some(at(0))).with(renewed).concludes().1
    };
    assert_eq!([25_000, 29_999].map(code), ["stopping_for_handover"; 2]);
    assert_eq!(code(30_000), "checkpoint_before_stop");
}

/// The tenure is held for as long as these tests take, and the store has answered.
fn renewed(state: &mut crate::state::State) {
    let now = at(29_000);
    let ttl = seconds(30);
    state.tenure = Tenure::Held(Held { lease: OURS, epoch: EPOCH, ttl, confirmed: now });
    state.guard.armed = Some(Armed { tenure: OURS, at: state.config.bounds.arm_at(now, ttl) });
    state.store.answered = now;
}
