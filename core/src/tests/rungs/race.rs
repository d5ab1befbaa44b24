//! The race for a key that nobody holds.

use super::*;

fn granted(node: Node) -> Node {
    let asked = node.now;
    node.with(|state| state.granted = Some(Granted { lease: LeaseId(9), ttl: seconds(30), asked }))
}

#[test]
fn a_node_that_is_ahead_asks_for_a_lease_and_then_for_the_key_with_everything_it_used() {
    assert_eq!(Node::racing().concludes(), (Rung::Race, "asking_lease", Fate::Keep));
    let node = granted(Node::racing()).cluster(|cluster| {
        (cluster.failover_revision, cluster.sync_revision) = (Revision(3), Revision(4));
        cluster.epoch = Some(epoch_record("b", THEIR_EPOCH));
    });
    let acquire = crate::action::Acquire {
        unguarded: false,
        lease: LeaseId(9),
        failover: Revision(3),
        config: Revision(6),
        sync: Revision(4),
        record: Revision(80),
        timeline: crate::id::Timeline(1),
        position: HERE,
        newest_timeline: crate::id::Timeline(3),
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
    let asked = node.clone().doing(verdict.orders[0].clone(), 0);
    assert_eq!(asked.clone().later(149).concludes().1, "collecting_positions");
    assert_eq!(asked.later(150).concludes().1, "asking_lease");
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

/// The bug (seed 440603): the last leader was ahead and said so, started its PostgreSQL again when it was asked once more,
/// and another campaigned because it did not answer within that round.
#[test]
fn who_said_that_it_is_ahead_goes_first_also_while_it_cannot_say_it_again() {
    let told_ms_ago = |ms: u64, flushed: Lsn, primary: bool| {
        let node = told(|answer| (answer.flushed, answer.primary) = (flushed, primary));
        node.with(|state| {
            state.memory.leaderless = leaderless_since(at(0).back(seconds(1)));
            let answer = state.peers.answers.get_mut(&Member::new("c")).expect("c has answered");
            answer.asked = at(0).back(millis(ms));
        })
    };
    let ahead = Lsn(HERE.0 + 8);
    let silent = |node: Node| {
        let orders = node.decide().1.orders;
        orders.into_iter().fold(node, |node, order| node.doing(order, 0)).later(150).concludes().1
    };
    assert_eq!(silent(told_ms_ago(1_000, ahead, false)), "behind_peer");
    assert_eq!(silent(told_ms_ago(1_001, ahead, false)), "asking_lease", "somebody led since");
    assert_eq!(silent(told_ms_ago(1_000, HERE, false)), "asking_lease");
    // The bug: it was the primary, said so, and was overtaken when its next answer was lost.
    assert_eq!(silent(told_ms_ago(1_000, HERE, true)), "primary_alive");
    let ahead_and = |change: fn(&mut crate::state::State)| silent(told_ms_ago(1_000, ahead, false).with(change));
    assert_eq!(ahead_and(|state| state.peers.unreachable.extend([(Member::new("c"), at(0))])), "asking_lease");
    assert_eq!(ahead_and(|state| state.memory.leaderless = leaderless_since(at(0).back(seconds(5)))), "asking_lease");
    // So does one on a newer branch, and it stands back for that no longer than five seconds either.
    let newer = |since_ms: u64| {
        let node = told(|answer| {
            (answer.history, answer.flushed) = (branch(Lsn(HERE.0 - (2 << 20))), Lsn(HERE.0 - 8));
        });
        silent(node.with(|state| {
            state.memory.leaderless = leaderless_since(at(0).back(millis(since_ms)));
            state.peers.answers.get_mut(&Member::new("c")).expect("c has answered").asked = at(0).back(millis(1));
        }))
    };
    assert_eq!((newer(4_849), newer(4_850)), ("newer_branch", "asking_lease"));
}

#[test]
fn a_peer_that_is_ahead_or_writes_goes_before_and_one_that_is_barred_does_not() {
    let ahead = Lsn(HERE.0 + 8);
    assert_eq!(told(|answer| answer.flushed = ahead).concludes().1, "behind_peer");
    assert_eq!(told(|answer| answer.primary = true).concludes().1, "primary_alive");
    let barred = |answer: &mut crate::view::peers::PeerAnswer| (answer.flushed, answer.barred) = (ahead, true);
    assert_eq!(told(barred).concludes().1, "asking_lease");
    // A tag keeps a node from taking over, not from being the primary that it is.
    let tagged = |answer: &mut crate::view::peers::PeerAnswer| (answer.primary, answer.barred) = (true, true);
    assert_eq!(told(tagged).concludes().1, "primary_alive");
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

pub(super) fn branch(parted: Lsn) -> History {
    let parted = Ancestor { timeline: crate::id::Timeline(1), end: parted, reason: String::new() };
    History { ancestors: vec![parted], timeline: crate::id::Timeline(2) }
}

fn told_again(mut node: Node) -> Node {
    let now = node.now;
    node.state.peers.answers.values_mut().for_each(|seen| (seen.asked, seen.heard) = (now, now));
    node.state.memory.race = Some((Revision(101), now));
    node
}

/// The bug: after five seconds a node on the old branch gave up whatever the newer one held.
#[test]
fn what_would_be_given_up_of_a_newer_branch_counts_from_where_it_was_left() {
    let held = |bytes: u64| {
        let c = told(|answer| (answer.history, answer.flushed) = (branch(Lsn(HERE.0 - 8 - bytes)), Lsn(HERE.0 - 8)));
        told_again(c.with(|state| state.memory.leaderless = leaderless_since(at(0))).later(5_000))
    };
    assert_eq!(held((1 << 20) + 1).concludes().1, "newer_branch");
    assert_eq!(held(1 << 20).concludes().1, "asking_lease", "what is allowed to be lost keeps nobody from leading");
    let patroni = told(|answer| {
        answer.history = History::first(crate::id::Timeline(2));
        answer.flushed = Lsn(HERE.0 - 8);
    });
    assert_eq!(patroni.concludes().1, "behind_peer");
    let later = patroni.with(|state| state.memory.leaderless = leaderless_since(at(0))).later(5_000);
    assert_eq!(told_again(later).concludes().1, "asking_lease", "it does not tell where it left");
}

/// The bug: who held all that was published stood back for ever for a branch that somebody had begun by hand, and that
/// lacked too much of it to lead.
#[test]
fn a_newer_branch_that_may_not_lead_keeps_nobody_from_leading() {
    let held = |optime: u64| {
        let c = told(|answer| {
            (answer.history, answer.flushed) = (branch(Lsn(HERE.0 - (4 << 20))), Lsn(HERE.0 - (2 << 20)));
        });
        c.cluster(|cluster| cluster.status = Some(StatusKey { optime: Lsn(optime), ..StatusKey::default() }))
    };
    assert_eq!(held(HERE.0).concludes().1, "asking_lease");
    assert_eq!(held(HERE.0 - (1 << 20)).concludes().1, "newer_branch");
}

/// Two nodes would stand back for each other for ever: one for the higher timeline of a branch that was given up, the
/// other since it left the history that the leaders told.
#[test]
fn a_peer_that_left_the_history_of_the_leaders_is_on_no_newer_branch() {
    let strayed = |told_end: Option<u64>| {
        let node = told(|answer| {
            answer.history.ancestors = branch(Lsn(HERE.0 - (1 << 21))).ancestors;
            (answer.history.timeline, answer.flushed) = (crate::id::Timeline(3), HERE);
        });
        node.cluster(|cluster| {
            let line = |end| HistoryLine {
                timeline: crate::id::Timeline(1),
                end: Lsn(end),
                reason: String::new(),
                timestamp: None,
                leader: None,
            };
            cluster.history = HistoryKey {
                revision: Revision(50),
                lines: told_end.map(line).into_iter().collect(),
                ..HistoryKey::default()
            };
        })
    };
    assert_eq!(strayed(None).concludes().1, "newer_branch");
    assert_eq!(strayed(Some(HERE.0 + 8)).concludes().1, "asking_lease");
}

/// Nobody on the newer branch answers; what the leaders told of it is enough to know what would be given up.
#[test]
fn who_left_the_history_of_the_leaders_is_measured_from_there() {
    let node = |parted: u64, optime: u64| {
        let line = HistoryLine {
            timeline: crate::id::Timeline(1),
            end: Lsn(parted),
            reason: String::new(),
            timestamp: None,
            leader: None,
        };
        Node::racing().with(|state| state.memory.leaderless = leaderless_since(at(0))).cluster(|cluster| {
            cluster.history = HistoryKey { revision: Revision(50), lines: vec![line], ..HistoryKey::default() };
            cluster.status = Some(StatusKey { optime: Lsn(optime), ..StatusKey::default() });
        })
    };
    let far = node(HERE.0 - 0x40, HERE.0 - 0x40 + (1 << 20) + 1);
    assert_eq!(far.concludes().1, "branch_left");
    assert_eq!(told_again(far.later(60_000)).concludes().1, "branch_left");
    let near = node(HERE.0 - 0x40, HERE.0 - 0x40 + (1 << 20));
    assert_eq!(near.concludes().1, "branch_awaited");
    assert_eq!(told_again(near.later(5_000)).concludes().1, "asking_lease");
    // One that has not reached the fork yet, and one that went along with it, have left nothing.
    assert_eq!(node(HERE.0, HERE.0 + 8).concludes().1, "asking_lease");
    let dir = Cluster { history: branch(Lsn(HERE.0 - 0x40)), ..standby_dir() };
    assert_eq!(node(HERE.0 - 0x40, HERE.0).dir(dir).concludes().1, "asking_lease");
    let elsewhere = Cluster { history: branch(Lsn(HERE.0 - 0x80)), ..standby_dir() };
    assert_eq!(node(HERE.0 - 0x40, HERE.0).dir(elsewhere).concludes().1, "branch_awaited");
    let accepted = far_failover();
    assert_eq!(accepted.concludes().1, "asking_lease", "what an operator asks for");
}

/// Two timelines can begin at one position: which of them the leaders were on is told with their position.
#[test]
fn who_went_on_where_the_leaders_timeline_began_is_measured_from_there() {
    let node = |on: u32, flushed: u64| {
        let line = HistoryLine {
            timeline: crate::id::Timeline(1),
            end: Lsn(HERE.0 - 0x40),
            reason: String::new(),
            timestamp: None,
            leader: None,
        };
        let sql = crate::view::postgres::Sql { received: Lsn(flushed), replayed: Lsn(flushed), ..standby_sql(None) };
        let dir = Cluster { history: branch(Lsn(HERE.0 - 0x40)), ..standby_dir() };
        Node::racing().dir(dir).sql(sql).with(|state| state.memory.leaderless = leaderless_since(at(0))).cluster(
            |cluster| {
                cluster.history = HistoryKey { revision: Revision(50), lines: vec![line], ..HistoryKey::default() };
                let (optime, timeline) = (Lsn(HERE.0 + (2 << 20)), crate::id::Timeline(on));
                cluster.status = Some(StatusKey { optime, timeline, ..StatusKey::default() });
            },
        )
    };
    // Not by the difference of the positions, which is none.
    let all = HERE.0 + (2 << 20);
    assert_eq!(node(3, all).concludes().1, "branch_left");
    assert_eq!(node(2, all).concludes().1, "asking_lease", "it was on the leaders' own");
    assert_eq!(node(0, all).concludes().1, "asking_lease", "and Patroni does not tell");
    assert_eq!(node(3, HERE.0 - 0x40).concludes().1, "lag_too_large", "it has only not got there yet");
    // The bug: two leaders further on, it was measured from where the second of them began, beyond what it held, and had
    // left nothing.
    let second = |flushed| {
        node(4, flushed).cluster(|cluster| {
            let first = cluster.history.lines[0].clone();
            let line = HistoryLine { timeline: crate::id::Timeline(3), end: Lsn(HERE.0 + (1 << 20)), ..first };
            cluster.history.lines.push(line);
        })
    };
    assert_eq!(second(HERE.0).concludes().1, "branch_left");
    assert_eq!(second(HERE.0 - 0x40).concludes().1, "lag_too_large");
}

/// Its own timeline has the number of the leader's and began beyond what that one told. Where the leader's ended says
/// nothing of that.
#[test]
fn who_is_on_another_timeline_of_that_number_left_where_its_own_began() {
    let began = Lsn(HERE.0 - 0x40);
    let node = Node::racing().dir(Cluster { history: branch(began), ..standby_dir() }).cluster(|cluster| {
        let (timeline, optime) = (crate::id::Timeline(2), Lsn(HERE.0 - 0x80));
        let line = HistoryLine { timeline, end: Lsn(HERE.0 - 8), reason: String::new(), timestamp: None, leader: None };
        cluster.history = HistoryKey { revision: Revision(50), lines: vec![line], ..HistoryKey::default() };
        cluster.status = Some(StatusKey { optime, timeline, ..StatusKey::default() });
    });
    let reason = node.decide().1.reason;
    assert_eq!(reason, crate::reason::Reason::BranchAwaited { at: began, left_ms: 5_000 });
}

/// The bug: with `max_timelines_history` the lines begin later than where a node left, and it won by its bare position.
#[test]
fn who_left_before_the_oldest_line_that_is_kept_has_left_with_its_whole_timeline() {
    let node = |history: History, flushed: u64| {
        let mut node = Node::racing().dir(Cluster { history, ..standby_dir() }).cluster(|cluster| {
            let timeline = crate::id::Timeline(2);
            let line =
                HistoryLine { timeline, end: Lsn(HERE.0 - 8), reason: String::new(), timestamp: None, leader: None };
            cluster.history = HistoryKey { revision: Revision(50), lines: vec![line], ..HistoryKey::default() };
            let (optime, timeline) = (HERE, crate::id::Timeline(3));
            cluster.status = Some(StatusKey { optime, timeline, ..StatusKey::default() });
        });
        node.state.postgres.sql.as_mut().expect("it has answered").value.flushed = Lsn(flushed);
        node.concludes().1
    };
    assert_eq!(node(History::first(crate::id::Timeline(1)), HERE.0 + 8), "branch_left");
    assert_ne!(
        node(branch(Lsn(HERE.0 - 0x40)), HERE.0 - 8),
        "branch_left",
        "it is on the branch that the line tells of"
    );
}

/// A branch that somebody began by hand has the greatest number, and holds nothing that the leader wrote since.
#[test]
fn who_ended_the_leaders_timeline_before_its_end_is_measured_from_there() {
    let node = |optime: u64| {
        let dir = Cluster { history: branch(Lsn(HERE.0 - 0x40)), ..standby_dir() };
        Node::racing().dir(dir).with(|state| state.memory.leaderless = leaderless_since(at(0))).cluster(|cluster| {
            let (optime, timeline) = (Lsn(optime), crate::id::Timeline(1));
            cluster.status = Some(StatusKey { optime, timeline, ..StatusKey::default() });
        })
    };
    assert_eq!(node(HERE.0 - 0x40 + (1 << 20) + 1).concludes().1, "branch_left");
    let near = node(HERE.0 - 0x40 + (1 << 20));
    assert_eq!(near.concludes().1, "branch_awaited");
    assert_eq!(told_again(near.later(5_000)).concludes().1, "asking_lease");
    assert_eq!(node(HERE.0 - 0x40).concludes().1, "asking_lease");
    // The bug: one that was promoted by hand while the leader stopped won against whom that released its key to: it held
    // all but the shutdown checkpoint, whose beginning is what is published.
    let released = |optime| {
        let vanished = Vanished { heard: at(0).back(seconds(1)), who: Member::new("b"), released: Some(Revision(0)) };
        node(optime).with(|state| state.store.vanished = Some(vanished)).concludes().1
    };
    assert_eq!(released(HERE.0 - 0x40), "branch_awaited");
    assert_eq!(released(HERE.0 - 0x48), "asking_lease");
}

/// The bug (seed 497622): what somebody had promoted by hand again and again came to a timeline of the leader's number, far
/// beyond where the leader was on its own, and was measured by the positions.
#[test]
fn a_timeline_of_the_leaders_number_that_began_beyond_its_end_is_another() {
    let node = |optime: u64| {
        let mut history = branch(Lsn(HERE.0 - (2 << 20)));
        history.ancestors.push(Ancestor { timeline: history.timeline, end: Lsn(HERE.0 - 8), reason: String::new() });
        history.timeline = crate::id::Timeline(3);
        let dir = Cluster { history, ..standby_dir() };
        Node::racing().dir(dir).cluster(|cluster| {
            let first = crate::id::Timeline(1);
            let end = Lsn(HERE.0 - (2 << 20));
            let line = HistoryLine { timeline: first, end, reason: String::new(), timestamp: None, leader: None };
            cluster.history = HistoryKey { revision: Revision(50), lines: vec![line], ..HistoryKey::default() };
            let timeline = crate::id::Timeline(3);
            cluster.status = Some(StatusKey { optime: Lsn(optime), timeline, ..StatusKey::default() });
        })
    };
    assert_eq!(node(HERE.0 - 9).concludes().1, "branch_left");
    assert_eq!(node(HERE.0 - 8).concludes().1, "asking_lease");
}

fn far_failover() -> Node {
    asked_for(None, Some("a")).cluster(|cluster| {
        let (timeline, end) = (crate::id::Timeline(1), Lsn(HERE.0 - 0x40));
        let line = HistoryLine { timeline, end, reason: String::new(), timestamp: None, leader: None };
        cluster.history = HistoryKey { revision: Revision(50), lines: vec![line], ..HistoryKey::default() };
        cluster.status = Some(StatusKey { optime: Lsn(HERE.0 + (2 << 20)), ..StatusKey::default() });
    })
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
    // What it was is known where the key is deleted.
    let lost = behind((1 << 20) + 1).with(|state| {
        let known = state.store.cluster.as_mut().expect("the keys are known");
        state.memory.told_status = known.value.status.take();
    });
    assert_eq!(lost.concludes().1, "lag_too_large");
}

#[test]
fn a_key_that_left_while_its_holder_lives_is_left_to_it_for_a_moment() {
    let node = |who: &str| {
        let vanished = Vanished { heard: at(0), who: Member::new(who), released: None };
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

/// The key left with a release, by which the leader's record and the status were written.
fn released_by(leader: &str, node: Node) -> Node {
    node.cluster(|cluster| {
        let revision = Revision(100);
        let key = cluster.members.get_mut(&Member::new(leader)).unwrap();
        (key.revision, key.record.state, key.record.role) = (revision, "stopped".into(), "primary".into());
        cluster.status.get_or_insert_default().revision = revision;
    })
}

fn asked_for(leader: Option<&str>, candidate: Option<&str>) -> Node {
    let request = failover(leader, candidate);
    Node::racing()
        .cluster(|cluster| cluster.failover = Some(request))
        .with(|state| state.memory.leaderless = leaderless_since(at(0)))
}

#[test]
fn whom_the_operator_asked_for_races_at_once_and_the_others_stand_back_for_a_while() {
    let mut node = asked_for(Some("b"), Some("a"));
    node.state.peers.answers.clear();
    assert_eq!(released_by("b", node.clone()).concludes().1, "asking_lease");
    assert_eq!(node.concludes().1, "collecting_positions", "the leader died before it released the key");
    assert_eq!(asked_for(Some("b"), Some("c")).concludes().1, "candidate_is_other");
    assert_eq!(asked_for(Some("a"), None).concludes().1, "candidate_is_other");
    assert_eq!(asked_for(Some("b"), Some("c")).later(3_000).concludes().1, "asking_lease");
}

/// The race: the old primary writes its record anew before the candidate knows its own position.
#[test]
fn that_the_key_was_released_is_not_forgotten_with_the_record_that_told_it() {
    let remembered = |who: &str, released: i64| {
        let vanished = Vanished { heard: at(0), who: Member::new(who), released: Some(Revision(released)) };
        let mut node = released_by("b", asked_for(Some("b"), Some("a"))).with(|state| {
            state.peers.answers.clear();
            state.store.vanished = Some(vanished);
        });
        node = node.cluster(|cluster| cluster.members.get_mut(&Member::new("b")).unwrap().revision = Revision(101));
        node.concludes().1
    };
    assert_eq!(remembered("b", 100), "asking_lease");
    assert_eq!(remembered("b", 99), "collecting_positions", "another has written the status since");
    assert_eq!(remembered("c", 100), "collecting_positions");
}

/// The bug (seed 430013): an operator deleted all keys while the leader heard nothing of the store, and an agent that
/// started within that second asked nobody and was promoted beside it.
#[test]
fn who_starts_beside_a_store_that_knows_of_no_cluster_waits_for_whoever_may_have_led() {
    let node = || {
        let emptied = |cluster: &mut crate::view::store::ClusterView| {
            (cluster.initialize, cluster.epoch, cluster.status) = (None, None, None);
            cluster.members.retain(|name, _| *name == Member::new("a"));
        };
        let node = Node::racing().cluster(emptied).with(|state| state.memory.leaderless = leaderless_since(at(0)));
        node.with(|state| (state.memory.knew, state.epoch_file) = (None, None))
    };
    concludes(&node(), Rung::Race, "cluster_unknown", Fate::Keep, &[]);
    assert_eq!(node().later(29_999).concludes().1, "cluster_unknown");
    assert_ne!(node().later(30_000).concludes().1, "cluster_unknown");
    let knows = node().with(|state| state.memory.knew = Some(SYSTEM));
    assert_ne!(knows.concludes().1, "cluster_unknown", "it remembers whom to ask");
    let recorded = node().cluster(|cluster| cluster.epoch = Some(epoch_record("b", THEIR_EPOCH)));
    assert_ne!(recorded.concludes().1, "cluster_unknown");
}

/// A pair made by hand is taken over, and the agent of its standby is started first.
#[test]
fn who_streams_from_a_primary_that_no_agent_has_told_of_is_not_promoted_beside_it() {
    let node = |upstream: Option<&str>| {
        let emptied = |cluster: &mut crate::view::store::ClusterView| {
            (cluster.initialize, cluster.epoch, cluster.status) = (None, None, None);
            cluster.members.retain(|name, _| *name != Member::new("b"));
        };
        let node = Node::racing().sql(standby_sql(upstream)).cluster(emptied);
        node.with(|state| {
            (state.memory.knew, state.epoch_file, state.pledge) = (None, None, None);
            state.memory.leaderless = leaderless_since(at(0));
        })
    };
    let later = |upstream: Option<&str>| node(upstream).later(30_000);
    concludes(&later(Some("b")), Rung::Race, "unmanaged_upstream", Fate::Keep, &[]);
    // That may have been started again.
    let reset =
        |ms: u64| later(None).with(|state| state.memory.streamed_unmanaged = Some(at(29_000))).later(ms).concludes().1;
    assert_eq!(reset(28_999), "cluster_unknown");
    assert_ne!(reset(29_000), "cluster_unknown");
    assert_ne!(later(None).concludes().1, "unmanaged_upstream", "it streams from nobody");
    let mut named = later(Some("b")).cluster(|cluster| cluster.failover = Some(failover(None, Some("a"))));
    let (op, at) = (crate::id::OpId::UNASKED, named.now);
    let sql = Some(Seen::new(standby_sql(Some("b")), at, at));
    named.step(Event::Postgres(crate::event::PostgresEvent::Answered { op, sql }));
    assert_eq!(named.state.memory.streamed_unmanaged, Some(at));
    assert_eq!(named.concludes().1, "freezing_receiver", "the operator's word is enough");
    assert_ne!(later(Some("c")).concludes().1, "unmanaged_upstream", "its agent has told of itself: it is none");
    let knows = later(Some("b")).with(|state| state.memory.knew = Some(SYSTEM));
    assert_ne!(knows.concludes().1, "unmanaged_upstream");
    let recorded = later(Some("b")).cluster(|cluster| cluster.epoch = Some(epoch_record("b", THEIR_EPOCH)));
    assert_ne!(recorded.concludes().1, "unmanaged_upstream");
    // Nor does it stop what it receives, for whoever asks.
    let mut asked = later(Some("b"));
    let question = crate::event::PeerEvent::PositionAsked { request: RequestId(5), absent_at: Revision(101) };
    assert!(!actions(&asked.step(Event::Peer(question))).contains(&Action::Postgres(PostgresAction::Freeze)));
}

/// The bug: the window was over when its patience with the operator's candidate was, and it took the key without having
/// asked anybody. So did a node whose PostgreSQL was ready late in a round.
#[test]
fn who_comes_late_to_a_race_asks_as_well() {
    let mut node = asked_for(Some("b"), Some("c")).later(3_000);
    node.state.peers.answers.clear();
    let (_, verdict) = node.decide();
    assert_eq!(verdict.reason.code(), "collecting_positions");
    assert_eq!(verdict.orders.len(), 2, "{verdict:?}");
    for order in verdict.orders {
        node = node.doing(order, 0);
    }
    assert_eq!(node.clone().later(149).concludes().1, "collecting_positions");
    assert_eq!(node.later(150).concludes().1, "asking_lease");
}

/// The bug: the candidate asked nobody, and overtook a primary that answers because somebody had deleted its key.
#[test]
fn whom_the_operator_asked_for_does_not_overtake_a_primary_that_lives_or_answers() {
    for leader in [Some("b"), None] {
        // It released its key, and says since that it serves.
        let serving = |vanished_ms: u64| {
            let heard = at(0).back(millis(vanished_ms));
            let vanished = Vanished { heard, who: Member::new("b"), released: Some(Revision(100)) };
            let node = released_by("b", asked_for(leader, Some("a"))).cluster(|cluster| {
                let key = cluster.members.get_mut(&Member::new("b")).unwrap();
                (key.revision, key.record.state) = (Revision(101), "running".into());
            });
            node.with(|state| state.store.vanished = Some(vanished))
        };
        // It is asked, and nobody else is: whoever is asked for is not measured by other candidates.
        let mut node = serving(1_000);
        node.state.peers.answers.clear();
        let (_, verdict) = node.decide();
        assert_eq!(verdict.reason.code(), "collecting_positions", "{leader:?}");
        assert!(matches!(&verdict.orders[..], [Action::Peer(PeerAction::AskPosition { member, .. })]
            if *member == Member::new("b")));
        let asked = node.doing(verdict.orders[0].clone(), 0).later(150);
        assert_eq!(asked.concludes().1, "asking_lease", "one that is silent is not waited for");
        // Its key vanished: it gets its moment to take it back.
        let node = serving(0);
        assert_eq!(node.concludes().1, "vanish_grace", "{leader:?}");
        let mut node = node.later(300);
        node.state.peers.answers.get_mut(&Member::new("b")).unwrap().value.primary = true;
        assert_eq!(node.concludes().1, "primary_alive", "{leader:?}");
    }
}

#[test]
fn a_leader_that_gave_its_key_away_is_not_waited_for_by_whom_the_operator_asked_for() {
    let vanished = Vanished { heard: at(0), who: Member::new("b"), released: None };
    let mut node =
        asked_for(Some("b"), Some("a")).with(|state| state.store.vanished = Some(vanished)).cluster(|cluster| {
            let record = &mut cluster.members.get_mut(&Member::new("b")).unwrap().record;
            (record.role, record.state) = ("primary".into(), "stopped".into());
        });
    node = released_by("b", node);
    node.state.peers.answers.clear();
    let (_, verdict) = node.decide();
    assert_eq!(verdict.reason.code(), "asking_lease");
    assert!(matches!(&verdict.orders[..], [Action::Store(StoreAction::GrantTenure { .. })]), "{verdict:?}");
}

/// The bug: the leader died before it released anything, and its candidate took over at once with what it had, though
/// another lives that holds more.
#[test]
fn a_candidate_whose_leader_died_takes_over_from_none_that_holds_more_and_before_its_equals() {
    let answered = |position| {
        let mut node = asked_for(Some("b"), Some("a"));
        let now = node.now;
        let told = answer(position, Some(Revision(101)));
        node.state.peers.answers.insert(Member::new("c"), Seen::new(told, now, now));
        node.config(|config| config.failover_priority = 0).concludes().1
    };
    assert_eq!(answered(Lsn(HERE.0 + 8)), "behind_peer");
    assert_eq!(answered(HERE), "asking_lease");
}

/// A switchover loses nothing; what a failover to this very node loses the operator has accepted.
#[test]
fn a_candidate_that_lags_is_kept_from_a_switchover_and_not_from_a_failover() {
    let lagging = |leader| {
        asked_for(leader, Some("a")).cluster(|cluster| {
            cluster.status = Some(StatusKey { optime: Lsn(HERE.0 + (2 << 20)), ..StatusKey::default() });
        })
    };
    assert_eq!(lagging(Some("b")).concludes().1, "lag_too_large");
    assert_eq!(lagging(None).concludes().1, "asking_lease");
}

/// The bug: the key was on its way to the candidate of one failover when the operator asked for another, which took it and gave up
/// what its leader would have refused to.
#[test]
fn a_failover_that_was_asked_of_a_leader_is_no_word_on_what_may_be_lost() {
    let asked = |request: i64| {
        let node = asked_for(None, Some("a")).cluster(|cluster| {
            cluster.status = Some(StatusKey { optime: Lsn(HERE.0 + (2 << 20)), ..StatusKey::default() });
            cluster.failover.as_mut().expect("it is asked for").revision = Revision(request);
        });
        let node = released_by("b", node).cluster(|cluster| cluster.epoch = Some(epoch_record("b", Revision(50))));
        let released = node.view().cluster().and_then(|cluster| cluster.status.as_ref()).expect("it is told").revision;
        assert!(released > Revision(1));
        (node.concludes().1, released)
    };
    assert_eq!(asked(1).0, "lag_too_large");
    assert_eq!(asked(asked(1).1.0 + 1).0, "asking_lease", "nobody led any more: it is the operator's word");
}

/// The bug: the key was on its way to another when the operator asked for this node, which took it and asked nobody
/// whether it held everything.
#[test]
fn a_candidate_that_the_key_was_not_released_to_races_as_any_other() {
    let asked = |optime: u64, timeline: u32| {
        let mut node = asked_for(Some("b"), Some("a")).cluster(|cluster| {
            let (optime, timeline) = (Lsn(optime), crate::id::Timeline(timeline));
            cluster.status = Some(StatusKey { optime, timeline, ..StatusKey::default() });
            let line = HistoryLine {
                timeline: crate::id::Timeline(1),
                end: Lsn(HERE.0 - 0x40),
                reason: String::new(),
                timestamp: None,
                leader: None,
            };
            cluster.history = HistoryKey { revision: Revision(50), lines: vec![line], ..HistoryKey::default() };
        });
        node = released_by("b", node.dir(Cluster { history: branch(Lsn(HERE.0 - 0x40)), ..standby_dir() }));
        node.state.peers.answers.clear();
        node.concludes().1
    };
    assert_eq!(asked(HERE.0 - 8, 2), "asking_lease");
    assert_eq!(asked(HERE.0, 2), "collecting_positions", "all but the checkpoint itself");
    assert_eq!(asked(HERE.0 - 8, 3), "collecting_positions", "as much, of another branch");
}

#[test]
fn an_agent_that_started_after_the_key_vanished_does_not_stand_back_for_ever() {
    let node = asked_for(None, Some("c")).later(3_000);
    assert!(node.state.store.vanished.is_none());
    assert_eq!(node.concludes().1, "asking_lease");
}

#[test]
fn a_granted_ttl_that_is_too_short_is_told_with_the_one_that_would_do() {
    let node = granted(Node::racing()).with(|state| state.granted.as_mut().unwrap().ttl = millis(500));
    let crate::reason::Reason::TtlTooShort { granted_ms, needed_ms } = node.decide().1.reason else { panic!() };
    let fits = |ms| crate::lease::Bounds::default().fits(millis(ms));
    assert_eq!(granted_ms, 500);
    assert!(fits(needed_ms) && !fits(needed_ms - 100), "{needed_ms}");
}

#[test]
fn who_gave_up_tries_again_after_loop_wait_and_not_before() {
    let node = granted(Node::racing());
    let now = node.now;
    let node = |ago| node.clone().with(|state| state.memory.gave_up = Some(now.back(millis(ago))));
    assert_eq!(node(9_999).concludes().1, "gave_up");
    assert_eq!(node(10_000).concludes().1, "campaigning");
}

/// Nobody who renewed before it answered as a primary holds anything after a ttl.
#[test]
fn a_primary_that_left_no_record_bars_for_a_ttl() {
    let node = |asked: Instant, primary: bool| {
        granted(Node::racing()).with(|state| {
            state.memory.leaderless = leaderless_since(at(0));
            let told = crate::view::peers::PeerAnswer { primary, ..answer(HERE, None) };
            state.peers.answers.insert(Member::new("d"), Seen::new(told, asked, asked));
        })
    };
    let now = Node::racing().now;
    assert_eq!(node(now, true).concludes().1, "primary_alive");
    assert_ne!(node(now, false).concludes().1, "primary_alive", "a standby without a record bars nobody");
    assert_ne!(node(now.back(seconds(1)), true).concludes().1, "primary_alive", "told while there was a leader");
    let later = |ms| granted(node(now, true).later(ms)).decide().1.reason.code();
    assert_eq!(later(29_999), "primary_alive");
    assert_ne!(later(30_000), "primary_alive", "what it held is over");
    // The bug (seed 15025579): the ttl was made shorter just then, and its lease is of the longer one.
    let shorter = |ms: u64| {
        let mut node = node(now, true);
        let config = crate::config::Config { ttl: seconds(3), ..node.state.config.clone() };
        node.step(Event::Configured(config));
        granted(node.later(ms)).concludes().1
    };
    assert_eq!((shorter(3_000), shorter(29_999)), ("primary_alive", "primary_alive"));
    assert_ne!(shorter(30_000), "primary_alive");
    // An agent that was started since knows the new ttl only; the holder tells of its own.
    let told = |ms: u64| {
        let mut node = node(now, true);
        node.state.config.ttl = seconds(3);
        node.state.memory.tenure_ttl = seconds(3);
        node.state.peers.answers.get_mut(&Member::new("d")).unwrap().value.tenure_ttl = seconds(30);
        granted(node.later(ms)).concludes().1
    };
    assert_eq!((told(3_000), told(29_999)), ("primary_alive", "primary_alive"));
    assert_ne!(told(30_000), "primary_alive");
    let mut elected = node(now, true);
    elected.state.memory.tenure_ttl = seconds(30);
    elected.state.config.ttl = seconds(3);
    pause::hears(&mut elected, led_by("b", 102));
    assert_eq!(elected.state.memory.tenure_ttl, seconds(3), "of the next tenure");
    // The bug: a record that somebody had overwritten with nonsense was one, and nobody was asked by it.
    let garbled = node(now, true).cluster(|cluster| {
        let key = crate::view::store::MemberKey {
            revision: Revision(99),
            lease: LeaseId(99),
            record: crate::view::store::MemberRecord::default(),
        };
        cluster.members.insert(Member::new("d"), key);
    });
    assert_eq!(garbled.concludes().1, "primary_alive");
}

#[test]
fn a_lease_is_asked_for_in_advance_only_by_who_has_no_other_business_with_one() {
    let asks = |change: fn(&mut crate::state::State)| {
        let mut node = Node::standby();
        node.state.memory.handover_announced = Some(node.now);
        let node = node.with(change);
        let orders = crate::decide::tenure::orders(&node.view(), &node.decide().1);
        orders.iter().any(|(action, _)| matches!(action, Action::Store(StoreAction::GrantTenure { .. })))
    };
    assert!(asks(|_| ()));
    assert!(!asks(|state| state.spent = Some(LeaseId(6))), "the spent one is revoked first");
    assert!(!asks(|state| state.config.nofailover = true));
    assert!(!asks(|state| state.config.unsupported = Some("pause".into())));
    assert!(!asks(|state| state.tenure = Tenure::Adopting { deadline: at(9_000) }), "it may have a tenure yet");
    assert!(!asks(|state| state.memory.handover_announced = Some(state.store.answered.back(seconds(3_600)))));
}

/// The bug: who had answered was forgotten when its member record was overwritten with what cannot be read, just before
/// the key was asked for; and what it held more was given up.
#[test]
fn what_a_peer_answered_counts_also_after_its_record_was_garbled() {
    let node = granted(Node::racing()).with(|state| {
        let now = state.store.answered;
        let told = answer(Lsn(HERE.0 + 8), Some(Revision(101)));
        state.peers.answers.insert(Member::new("b"), Seen::new(told, now, now));
    });
    assert_eq!(node.concludes().1, "behind_peer");
    let garbled = node.cluster(|cluster| {
        cluster.members.get_mut(&Member::new("b")).unwrap().record = crate::view::store::MemberRecord::default();
    });
    assert_eq!(garbled.concludes().1, "behind_peer");
    let ended = garbled.cluster(|cluster| drop(cluster.members.remove(&Member::new("b"))));
    assert_eq!(ended.concludes().1, "campaigning", "it does not reach the store and could not take the key");
}
