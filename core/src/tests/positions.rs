//! What members tell each other of where they are, and which of it counts.

use crate::action::{Action, Answer, HostAction, Lane, PeerAction, PostgresAction, StoreAction};
use crate::event::{Event, PeerEvent, PostgresEvent, StoreEvent};
use crate::id::{LeaseId, Lsn, Member, OpId, RequestId, Revision};
use crate::op::{Outcome, Refusal};
use crate::state::{Pledge, PositionAsked, State};
use crate::testing::*;
use crate::time::Seen;
use crate::view::peers::PeerAnswer;
use crate::view::postgres::{DataDir, Process, Sql};
use crate::view::store::{ClusterView, EpochRecord, MemberRecord, StatusKey, Vanished};

const ASKED: RequestId = RequestId(5);

fn asked(absent_at: i64) -> Event {
    Event::Peer(PeerEvent::PositionAsked { request: ASKED, absent_at: Revision(absent_at) })
}

fn told(effects: &crate::effects::Effects) -> Option<PeerAnswer> {
    match answers(effects).remove(&ASKED)? {
        Answer::Position(answer) => Some(answer),
        Answer::Text { .. } => panic!("a position was asked for"),
    }
}

fn campaigns(node: &Node) -> bool {
    node.wants().iter().any(|order| matches!(order, Action::Store(StoreAction::GrantTenure { .. })))
}

/// `c` told its position; it is one of ours.
fn c_told(position: Lsn, pledge: Option<Revision>) -> Node {
    let mut node = Node::racing();
    let now = node.now;
    node.state.peers.answers.insert(Member::new("c"), Seen::new(answer(position, pledge), now, now));
    node
}

#[test]
fn the_position_of_a_peer_that_still_receives_does_not_count() {
    let less = Lsn(HERE.0 - 8);
    for pledge in [None, Some(Revision(100))] {
        let mut node = c_told(less, pledge);
        node.state.peers.answers.get_mut(&Member::new("c")).unwrap().value.receives = true;
        assert_eq!(node.concludes().1, "collecting_positions", "{pledge:?}");
        let again = |order: &Action| matches!(order, Action::Peer(PeerAction::AskPosition { .. }));
        assert!(!node.wants().iter().any(again), "it is asked again in the next round, not as fast as it answers");
        assert!(campaigns(&node.clone().later(150)), "nobody waits longer for it than for one that is silent");
        // A member of Patroni cannot stop: waiting for it would bring nothing.
        let patroni = node.cluster(|cluster| {
            cluster.members.get_mut(&Member::new("c")).unwrap().record.pledges = false;
        });
        assert!(campaigns(&patroni));
    }
    assert!(campaigns(&c_told(less, Some(Revision(101)))));
}

#[test]
fn a_peer_that_is_ahead_and_does_not_lead_is_not_waited_for_for_ever() {
    let mut node = c_told(Lsn(HERE.0 + 8), Some(Revision(101)));
    node.state.memory.leaderless = leaderless_since(node.now);
    assert_eq!(node.concludes().1, "behind_peer");
    let mut node = node.later(5_000);
    node.state.memory.race = Some((Revision(101), at(0)));
    assert!(campaigns(&node));
    // How much that may cost is bounded.
    let far = node.config(|config| config.maximum_lag_on_failover_bytes = 4).cluster(|cluster| {
        cluster.status = Some(StatusKey { optime: Lsn(HERE.0 + 8), ..Default::default() });
    });
    assert_eq!(far.concludes().1, "lag_too_large");
}

#[test]
fn who_is_asked_about_keys_that_it_has_not_seen_looks_at_them_first() {
    // Its watch is silent: it still sees a leader and streams from it.
    let mut node = Node::standby();
    let effects = node.step(asked(101));
    assert_eq!(told(&effects), None);
    assert!(actions(&effects).contains(&Action::Store(StoreAction::Read)));
    let seen = Seen::new(cluster(103), node.now, node.now);
    node.step(Event::Store(StoreEvent::Watched(seen)));
    node.state.pledge = Some(Pledge { absent_at: Revision(103), since: node.now, frozen: true, on_disk: true });
    node.state.postgres.sql = Some(Seen::new(standby_sql(None), node.now, node.now));
    let answer = told(&node.tick()).unwrap();
    assert!(answer.is_final(Revision(101)) && answer.pledge == Some(Revision(103)));
}

/// A watch that is older than the question says nothing of what the asker saw; nor does a read that was begun before.
#[test]
fn who_has_looked_since_it_was_asked_and_found_nothing_says_how_things_are() {
    let answers = |begun: u64, heard: u64| {
        let mut node = Node::standby().later(10);
        node.step(asked(101));
        let node = node.later(5).with(|state| {
            state.store.cluster = Some(Seen::new(led_by("b", 100), at(begun), at(heard)));
        });
        told(&node.clone().tick()).is_some()
    };
    assert!(answers(10, 12) && answers(11, 12), "a read");
    assert!(!answers(9, 12), "a read that was begun before");
    assert!(!answers(12, 12), "a watch");
}

/// What this node does for the one that asks: it stops receiving, puts that on disk, and only then answers.
fn pledges(node: &Node) -> Vec<Action> {
    crate::procedure::orders(&node.view()).into_iter().map(|(action, _)| action).collect()
}

fn asked_by_a_peer(node: Node) -> Node {
    node.with(|state| {
        let (absent_at, since) = (Revision(101), at(0));
        state.position_asked = vec![PositionAsked { request: ASKED, absent_at, since }];
    })
}

/// It still receives from the leader that is gone.
fn leaderless() -> Node {
    Node::standby().cluster(|cluster| (cluster.leader, cluster.revision) = (None, Revision(101)))
}

const FREEZE: Action = Action::Postgres(PostgresAction::Freeze);

#[test]
fn who_is_asked_for_its_position_and_sees_no_leader_stops_receiving() {
    assert_eq!(pledges(&asked_by_a_peer(leaderless())), [FREEZE]);
    assert_eq!(pledges(&leaderless()), [], "unless nobody asks");
    let receives_on = |what: &str, node: Node| assert_eq!(pledges(&asked_by_a_peer(node)), [], "{what}");
    receives_on("it sees a leader", Node::standby());
    receives_on("it has not read the keys", leaderless().with(|state| state.store.cluster = None));
    receives_on("a primary receives nothing", leaderless().sql(primary_sql()));
    receives_on("it has not answered yet", leaderless().with(|state| state.postgres.sql = None));
    receives_on("it only observes", leaderless().config(|config| config.unsupported = Some("pause".into())));
    receives_on("there is no receiver", leaderless().sql(standby_sql(None)));
}

#[test]
fn a_receiver_that_was_stopped_is_a_pledge_once_that_is_on_disk() {
    let write = Action::Host(HostAction::WritePledge(Some(Revision(101))));
    let pledged = |frozen, on_disk, receiver: Option<&str>| {
        let pledge = Pledge { absent_at: Revision(101), since: at(0), frozen, on_disk };
        leaderless().sql(standby_sql(receiver)).with(|state| state.pledge = Some(pledge))
    };
    let asked = |frozen, on_disk| pledges(&asked_by_a_peer(pledged(frozen, on_disk, Some("b"))));
    assert_eq!(asked(false, false), [FREEZE]);
    assert_eq!(asked(false, true), [FREEZE], "of an earlier agent, which did not live to stop it");
    assert_eq!(asked(true, false), std::slice::from_ref(&write));
    assert_eq!(asked(true, true), []);
    let dead = |node: Node| node.with(|state| state.postgres.sql = None);
    let asked_of_a_dead_one = pledges(&asked_by_a_peer(dead(pledged(true, false, None))));
    assert_eq!(asked_of_a_dead_one, std::slice::from_ref(&write), "PostgreSQL has died since");
    // A pledge that was begun is completed, whether or not who asked still waits.
    let alone = |frozen, on_disk| pledges(&pledged(frozen, on_disk, None));
    assert_eq!(alone(true, false), [write]);
    assert_eq!([alone(false, false), alone(false, true), alone(true, true)], [const { Vec::new() }; 3]);
}

/// Nothing that the old leader writes can count on it.
#[test]
fn a_standby_without_a_receiver_answers_at_once_without_a_pledge() {
    let mut node = leaderless().sql(standby_sql(None));
    let answer = told(&node.step(asked(101))).expect("there is nothing to wait for");
    assert!(answer.pledge.is_none() && answer.is_final(Revision(101)));
}

#[test]
fn a_pledge_given_at_an_earlier_revision_of_the_same_absence_counts_for_a_later_one() {
    let pledge = Pledge { absent_at: Revision(101), since: at(0), frozen: true, on_disk: true };
    let mut node = Node::racing().with(|state| state.pledge = Some(pledge));
    node.set_cluster(cluster(140));
    let answer = told(&node.step(asked(140))).unwrap();
    assert!(answer.is_final(Revision(140)));
}

#[test]
fn who_cannot_pledge_in_time_says_how_things_are() {
    let mut node = Node::standby();
    assert_eq!(told(&node.step(asked(101))), None);
    let mut node = node.later(500);
    let answer = told(&node.tick()).unwrap();
    assert!(answer.receives && answer.pledge.is_none() && !answer.is_final(Revision(101)));
}

#[test]
fn a_primary_says_at_once_that_it_is_one() {
    let answer = told(&Node::primary().step(asked(200))).unwrap();
    assert!(answer.primary && answer.is_final(Revision(200)));
}

#[test]
fn more_questions_than_can_wait_are_not_admitted() {
    let mut node = Node::standby();
    for request in 0..crate::state::REQUESTS_MAX as u64 {
        assert!(node.state.admits_question());
        let absent_at = Revision(101);
        node.step(Event::Peer(PeerEvent::PositionAsked { request: RequestId(request), absent_at }));
    }
    assert!(!node.state.admits_question() && node.state.admits_request());
}

/// Its key was deleted by hand while it is cut off from the store: it hears nothing of it, and its member record goes
/// before its tenure ends.
#[test]
fn a_primary_that_answered_is_not_forgotten_with_its_member_record() {
    let mut node = c_told(HERE, None);
    node.state.memory.leaderless = leaderless_since(node.now);
    node.state.peers.answers.get_mut(&Member::new("c")).unwrap().value.primary = true;
    assert_eq!(node.concludes().1, "primary_alive");
    let mut without = cluster(102);
    without.members.remove(&Member::new("c"));
    let seen = Seen::new(without, node.now, node.now);
    node.step(Event::Store(StoreEvent::Watched(seen)));
    assert_eq!(node.concludes().1, "primary_alive");
    // An answer of somebody else comes, which forgets those that are gone.
    let (op, asked) = (OpId::UNASKED, node.now);
    let outcome = Outcome::Done(answer(Lsn(HERE.0 - 8), Some(Revision(102))));
    node.step(Event::Peer(PeerEvent::Answered { op, member: Member::new("b"), outcome, asked }));
    // Nobody knows where to ask it again.
    node.state.memory.lost_records.clear();
    let mut node = node.later(29_999);
    node.state.memory.race = Some((Revision(102), at(0)));
    assert_eq!(node.concludes().1, "primary_alive");
    assert!(campaigns(&node.later(1)), "no tenure lasts longer");
}

/// The bug: it was being promoted, or came up again, heard nothing of the store, and its key went before its time: it told nothing
/// in time, or that it is no primary, and was overtaken while it held its tenure.
#[test]
fn who_holds_the_key_says_at_once_that_it_is_the_primary_whatever_its_server_does() {
    let promoting = Node::standby().with(|state| {
        (state.tenure, state.memory.promotion) = (Node::primary().state.tenure, true);
    });
    let process = |phase| {
        move |state: &mut State| {
            state.postgres.process = Process::Alive { pid: crate::id::Pid(7), phase };
            state.postgres.sql = None;
        }
    };
    let comes_up = Node::primary().with(process(crate::view::postgres::Phase::Starting));
    let stops = Node::primary().with(process(crate::view::postgres::Phase::Stopping));
    for mut holder in [promoting, comes_up, stops, Node::primary().dead()] {
        assert_eq!(told(&holder.step(asked(999))).map(|answer| answer.primary), Some(true));
    }
    assert_eq!(told(&Node::racing().step(asked(999))).map(|answer| answer.primary), None, "a standby looks first");
}

/// What is not known is not "no".
#[test]
fn a_server_that_has_not_answered_yet_may_receive() {
    let mut node = Node::racing();
    node.state.postgres.sql = None;
    assert_eq!(told(&node.step(asked(101))), None);
    let answer = told(&node.later(500).tick()).unwrap();
    assert!(!answer.is_final(Revision(101)));
    assert!(!Node::racing().dead().view().may_receive(), "the dead receive nothing");
    let mut started = Node::racing().dead();
    assert_eq!(told(&started.step(asked(101))), None, "it may hold more than its control file says, and receive more");
    assert!(!told(&started.later(500).tick()).unwrap().is_final(Revision(101)));
    let unseen = Node::racing().with(|state| {
        (state.postgres.process, state.postgres.data) = (Process::Unknown, DataDir::Unknown);
        (state.postgres.sql, state.pledge) = (None, None);
    });
    let answer = unseen.view().own_answer();
    assert!(!answer.barred && !answer.is_final(Revision(101)), "it may hold the most of all");
}

/// The bug (seed 14012382): its directory could not be looked at for want of descriptors, and a standby told its position on
/// the history of long ago, pledged.
#[test]
fn who_cannot_see_the_history_of_its_timeline_tells_no_position() {
    let told = |doubt: bool, ahead: bool| {
        let node = Node::racing().with(|state| {
            state.memory.data_in_doubt = doubt.then(|| at(0));
            let absent_at = Revision(101);
            state.pledge = Some(Pledge { absent_at, since: at(0), frozen: true, on_disk: true });
            let sql = &mut state.postgres.sql.as_mut().unwrap().value;
            sql.timeline.0 += u32::from(ahead);
        });
        let answer = node.view().own_answer();
        let is_final = answer.is_final(Revision(101));
        (node.view().position().is_some(), answer.pledge.is_some(), is_final, answer.history.ancestors.is_empty())
    };
    assert_eq!(told(true, true), (false, false, false, true), "but where it is on the bare timeline");
    for (doubt, ahead) in [(true, false), (false, true), (false, false)] {
        let (known, pledged, is_final, _) = told(doubt, ahead);
        assert!(known && pledged && is_final);
    }
}

/// Two nodes that began timelines of one number at one position tell the same history. Only one of them has streamed
/// from the leader.
#[test]
fn a_standby_vouches_for_what_it_has_replayed_only_if_it_has_streamed_from_the_leader() {
    let replayed = |node: &Node| node.view().own_answer().replayed;
    let observed = |mut node: Node, sql: Sql| {
        let at = node.now;
        node.step(Event::Postgres(PostgresEvent::Answered { op: OpId::UNASKED, sql: Some(Seen::new(sql, at, at)) }));
        node
    };
    let fresh = Node::standby().with(|state| state.memory.streamed_from = None);
    assert_eq!(replayed(&fresh), Lsn(0));
    let streams = observed(fresh.clone(), standby_sql(Some("b")));
    assert_eq!(replayed(&streams), HERE);
    // Its receiver ends with the primary's stop: what it has it has.
    let stopped = observed(streams, standby_sql(None));
    assert_eq!(replayed(&stopped), HERE);
    let other = stopped.cluster(|cluster| cluster.leader = Some(leader("c", LeaseId(9), Revision(95))));
    assert_eq!(replayed(&other), Lsn(0));
}

/// The bug: the record of a holder that is cut off from the store ends before its key; what it answered, or that it did
/// not, was forgotten with the record, and it was asked again as fast as that, for as long as it lived. Nobody took over.
#[test]
fn a_last_holder_without_a_record_is_asked_once() {
    let stepped_down = answer(Lsn(HERE.0 - 8), None);
    let busy = Refusal::Failed("too many questions wait for it".into());
    for outcome in [Outcome::Refused(busy), Outcome::Done(stepped_down)] {
        let vanished = Vanished { heard: at(0), who: Member::new("b"), released: None };
        let knows = |state: &mut State| {
            state.store.vanished = Some(vanished);
            state.memory.lost_records.insert(Member::new("b"), record("b"));
        };
        let mut node = Node::racing().with(knows).cluster(|cluster| {
            cluster.members.remove(&Member::new("b"));
        });
        node.state.peers.answers.remove(&Member::new("b"));
        let asks = |effects: &crate::effects::Effects| {
            actions(effects).iter().any(|order| matches!(order, Action::Peer(PeerAction::AskPosition { .. })))
        };
        assert!(asks(&node.tick()));
        let (op, member, asked) = (node.op(&Lane::Peer(Member::new("b"))), Member::new("b"), node.now);
        node.now = at(1);
        let effects = node.step(Event::Peer(PeerEvent::Answered { op, member, outcome, asked }));
        assert!(!asks(&effects), "{effects:?}");
        assert!(campaigns(&node.later(150)), "and it is not waited for");
    }
}

/// The bug: a leader that heard nothing of the store for a moment did not rewrite its record, which somebody had deleted or
/// overwritten with what cannot be read; then its key was lost as well. Nobody knew any more whom to ask, and another was
/// promoted beside it. Or all keys went at once, or with a store that was restored from before it led.
#[test]
fn a_last_holder_is_asked_where_it_last_told() {
    let garbled: fn(&mut ClusterView) = |cluster| {
        cluster.members.get_mut(&Member::new("b")).unwrap().record = MemberRecord::default();
    };
    let deleted: fn(&mut ClusterView) = |cluster| drop(cluster.members.remove(&Member::new("b")));
    let lost: fn(&mut ClusterView) = |cluster| {
        cluster.rollbacks += 1;
        cluster.members.clear();
    };
    for (spoil, at_once) in [(garbled, false), (deleted, false), (deleted, true), (lost, true)] {
        let mut node = Node::standby();
        let mut view = node.state.store.cluster.clone().unwrap().value;
        let mut hears = |change: &dyn Fn(&mut ClusterView)| {
            view.revision = Revision(view.revision.0 + 1);
            change(&mut view);
            node.step(Event::Store(StoreEvent::Watched(Seen::new(view.clone(), node.now, node.now))));
        };
        hears(&|_| ());
        if !at_once {
            hears(&spoil);
        }
        hears(&|cluster| {
            spoil(cluster);
            cluster.leader = None;
        });
        let asked = node.state.ops.in_lane(&Lane::Peer(Member::new("b")));
        assert!(asked.is_some_and(|asked| matches!(asked.action, Action::Peer(PeerAction::AskPosition { .. }))));
        node.state.memory.changed = at(0);
        assert_eq!(node.concludes().1, "vanish_grace");
    }
}

/// A release by one that could not serve publishes nothing of its own, and later records are of later revisions.
#[test]
fn what_was_released_before_a_tenure_says_nothing_of_its_end() {
    let released_at = |revision: i64, store: u64| {
        let mut cluster = led_by("b", 100);
        cluster.leader = None;
        cluster.epoch = Some(EpochRecord { store: crate::id::StoreId(store), ..epoch_record("b", Revision(90)) });
        let key = cluster.members.get_mut(&Member::new("b")).expect("it is a member");
        (key.revision, key.record.state, key.record.role) = (Revision(revision), "stopped".into(), "primary".into());
        cluster.status = Some(StatusKey { revision: Revision(revision), ..StatusKey::default() });
        cluster.stopped_and_released(&Member::new("b")).is_some()
    };
    let here = cluster(1).store.0;
    assert_eq!([89, 90, 91].map(|revision| released_at(revision, here)), [false, false, true]);
    assert!(released_at(89, here + 1), "a record of another store tells of no tenure here");
}

#[test]
fn a_leader_stopped_and_released_its_key_where_its_record_and_the_status_are_of_one_revision() {
    let cases = [
        ("stopped", "primary", 0, true),
        ("stopped", "replica", 0, false),
        ("start failed", "primary", 0, false),
        ("crashed", "primary", 0, false),
        ("stopped", "primary", 1, false),
    ];
    for (state, role, later, released) in cases {
        let mut node = Node::standby();
        let mut view = node.state.store.cluster.clone().unwrap().value;
        let revision = Revision(view.revision.0 + 1);
        (view.revision, view.leader) = (Revision(revision.0 + later), None);
        view.status.get_or_insert_default().revision = revision;
        let key = view.members.get_mut(&Member::new("b")).unwrap();
        key.revision = view.revision;
        (key.record.state, key.record.role) = (state.into(), role.into());
        node.step(Event::Store(StoreEvent::Watched(Seen::new(view, node.now, node.now))));
        assert_eq!(
            node.state.store.vanished.as_ref().and_then(|vanished| vanished.released),
            released.then_some(revision),
            "{state}"
        );
    }
}

/// What came of a question to `b` that was put just now, 5 ms after `b` last answered.
fn answered(question: PeerAction, outcome: Outcome<PeerAnswer>, asked: u64) -> Node {
    let b = Member::new("b");
    let mut node = Node::standby().later(10);
    node.state.peers.answers.insert(b.clone(), Seen::new(answer(HERE, None), at(5), at(6)));
    node.state.peers.unreachable.insert(b.clone(), at(1));
    node = node.doing(Action::Peer(question), 2);
    let op = node.op(&Lane::Peer(b.clone()));
    let event = Event::Peer(PeerEvent::Answered { op, member: b, outcome, asked: at(asked) });
    crate::absorb::absorb(&mut node.state, node.now, event);
    node
}

fn asks_status() -> PeerAction {
    PeerAction::AskStatus { member: Member::new("b"), api_url: String::new() }
}

#[test]
fn a_newer_answer_takes_the_place_of_an_older_one_and_none_leaves_what_was_known() {
    let known = |node: &Node| node.state.peers.answers[&Member::new("b")].value.flushed;
    let unreachable = |node: &Node| node.state.peers.unreachable.get(&Member::new("b")).copied();
    let new = || Outcome::Done(answer(Lsn(1), None));
    for (asked, flushed) in [(4, HERE), (5, Lsn(1)), (6, Lsn(1))] {
        let node = answered(asks_status(), new(), asked);
        assert_eq!((known(&node), unreachable(&node)), (flushed, None), "{asked}");
        assert_eq!(node.state.peers.answered, at(asked));
    }
    for outcome in [Outcome::Unknown("no answer".into()), Outcome::Refused(Refusal::Failed("no".into()))] {
        let node = answered(asks_status(), outcome, 8);
        assert_eq!((known(&node), unreachable(&node)), (HERE, Some(at(8))), "since it was asked");
        assert!(node.state.memory.failed.contains_key("peer"));
    }
}

#[test]
fn a_candidate_that_does_not_wait_before_it_answers_is_not_asked_as_fast_as_that() {
    let (member, api_url) = (Member::new("b"), String::new());
    let awaits = PeerAction::AwaitReplay { member, api_url, pledges: false, beyond: HERE, deadline: seconds(1) };
    let failed = |question| answered(question, Outcome::Done(answer(HERE, None)), 8).state.memory.failed;
    assert!(failed(awaits).contains_key("await") && failed(asks_status()).is_empty());
}

#[test]
fn answers_of_who_is_gone_are_kept_from_the_last_holder_and_from_a_primary_without_its_key() {
    let kept = |change: &dyn Fn(&mut Node)| {
        let mut node = Node::racing();
        let gone = Member::new("gone");
        node.state.peers.answers.insert(gone.clone(), Seen::new(answer(HERE, None), at(5), at(6)));
        node.state.peers.unreachable.insert(gone.clone(), at(5));
        change(&mut node);
        let event = PeerEvent::Answered {
            op: OpId::UNASKED,
            member: Member::new("b"),
            outcome: Outcome::Done(answer(HERE, None)),
            asked: at(7),
        };
        crate::absorb::absorb(&mut node.state, at(8), Event::Peer(event));
        (node.state.peers.answers.contains_key(&gone), node.state.peers.unreachable.contains_key(&gone))
    };
    let primary_since = |node: &mut Node, leaderless: Option<u64>| {
        node.state.peers.answers.get_mut(&Member::new("gone")).expect("it answered").value.primary = true;
        node.state.memory.leaderless = leaderless.and_then(|ms| leaderless_since(at(ms)));
    };
    assert_eq!(kept(&|_| ()), (false, false));
    assert_eq!(kept(&|node| node.state.memory.leaderless = leaderless_since(at(5))), (false, false), "a standby");
    assert_eq!(kept(&|node| primary_since(node, Some(5))), (true, false));
    assert_eq!(kept(&|node| primary_since(node, Some(6))), (false, false), "it answered while somebody led");
    assert_eq!(kept(&|node| primary_since(node, None)), (false, false));
    let vanished = |node: &mut Node| {
        let who = Member::new("gone");
        node.state.store.vanished = Some(Vanished { heard: at(0), who, released: None });
    };
    assert_eq!(kept(&vanished), (true, true));
}

/// The bug (seed 511173): what was asked in the round before came to nothing in this one, and was not asked again.
#[test]
fn who_was_silent_in_the_round_before_is_asked_again_in_this_one() {
    let b = Member::new("b");
    let asked = |round_ms: u64| {
        let ask = PeerAction::AskPosition {
            member: b.clone(),
            api_url: "http://b:8008/patroni".into(),
            pledges: true,
            absent_at: Revision(101),
        };
        let mut node = Node::racing().doing(Action::Peer(ask), 0).with(|state| {
            state.peers.answers.clear();
            state.memory.race = Some((Revision(101), at(round_ms)));
        });
        let lane = Lane::Peer(b.clone());
        let mut question = node.state.ops.in_lane(&lane).expect("it is asked").clone();
        question.deadline = at(600);
        node.state.ops.cancel(&lane);
        node.state.ops.begin(lane, question);
        let orders = actions(&node.later(600).tick());
        orders.iter().any(|order| matches!(order, Action::Peer(PeerAction::AskPosition { member, .. }) if *member == b))
    };
    assert!(asked(500) && !asked(0));
}

#[test]
fn only_a_question_about_keys_that_were_not_seen_has_them_read() {
    let doubts = |absent_at: i64, doubted: bool| {
        let mut node = Node::standby().with(|state| state.memory.store_doubt = doubted.then(|| at(0)));
        crate::absorb::absorb(&mut node.state, at(1), asked(absent_at));
        node.state.memory.store_doubt.is_some()
    };
    assert_eq!([99, 100, 101].map(|absent_at| doubts(absent_at, false)), [false, false, true]);
    assert!(doubts(99, true) && doubts(101, true), "another doubt is not put at rest by it");
}

#[test]
fn a_position_is_final_of_who_leads_receives_nothing_or_has_pledged_since() {
    let is_final = |primary, receives, pledge: Option<i64>| {
        let told = PeerAnswer { primary, receives, pledge: pledge.map(Revision), ..answer(HERE, None) };
        told.is_final(Revision(101))
    };
    assert!(is_final(true, true, None) && is_final(false, false, None), "a pledge adds nothing to either");
    assert!(!is_final(false, true, None));
    assert_eq!([100, 101, 102].map(|at| is_final(false, true, Some(at))), [false, true, true]);
}

/// Whoever asks counts on it from its question on.
#[test]
fn who_may_lead_tells_for_how_long() {
    use crate::lease::Tenure;
    let tells = |node: Node| node.view().own_answer().tenure_ttl;
    assert_eq!(tells(Node::primary()), seconds(30));
    let searching = |node: Node| node.with(|state| state.tenure = Tenure::Adopting { deadline: at(9_000) });
    assert_eq!(tells(searching(Node::primary())), seconds(10));
    assert_eq!(tells(searching(Node::standby())), seconds(0), "nothing of it writes");
    assert_eq!(tells(Node::standby()), seconds(0));
}
