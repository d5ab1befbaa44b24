//! What a node tells of itself in its member record, and a leader in the history.

use super::reconcilers::{ordered, orders};
use crate::action::{Action, Lane, StoreAction};
use crate::event::{Event, StoreDone, StoreEvent};
use crate::id::{Lsn, Timeline};
use crate::lease::Tenure;
use crate::op::{Outcome, Refusal};
use crate::reason::Reason;
use crate::testing::*;
use crate::timeline::{Ancestor, History};
use crate::view::postgres::{Cluster, ControlState, Phase, Sql};
use crate::view::store::{HistoryLine, MemberRecord, StatusKey};

#[test]
fn a_member_record_says_what_the_node_has_and_whether_it_streams() {
    let record = |node: Node| crate::decide::members::record(&node.view());
    let says = |node: Node| {
        let MemberRecord { position, received, replayed, replication_state, .. } = record(node);
        (position.0, received.0, replayed.0, replication_state == "streaming")
    };
    let standby =
        |received, replayed| Sql { received: Lsn(received), replayed: Lsn(replayed), ..standby_sql(Some("b")) };
    assert_eq!(says(Node::standby().sql(standby(5, 4))), (5, 5, 4, true));
    assert_eq!(says(Node::standby().sql(standby(0, 4))), (4, 0, 4, true), "restored from an archive");
    assert_eq!(says(Node::primary().sql(Sql { flushed: Lsn(9), ..primary_sql() })), (9, 0, 0, false));
    let waits = |mut sql: Sql| {
        sql.receiver.as_mut().expect("it has one").streaming = false;
        sql
    };
    assert!(!says(Node::standby().sql(waits(standby(5, 4)))).3 && !says(Node::standby().sql(standby_sql(None))).3);
    let promoted = Sql { receiver: standby(5, 4).receiver, ..primary_sql() };
    assert!(!says(Node::primary().sql(promoted)).3, "a receiver that is not gone yet");
    assert_eq!(says(Node::standby().phase(Phase::Stopping)), (0, 0, 0, false), "what it told is old");
}

#[test]
fn a_member_record_calls_primary_who_leads_and_demoted_who_only_was_one() {
    let role = |node: Node| crate::decide::members::record(&node.view()).role;
    let without_tenure = |node: Node| node.with(|state| state.tenure = Tenure::None);
    assert_eq!(role(Node::primary().dead()), "primary", "about to start again");
    assert_eq!(role(without_tenure(Node::primary().dead())), "demoted");
    let signal = |node: Node| node.dir(standby_dir());
    assert_eq!(role(signal(Node::primary())), "primary", "promoted since the directory was looked at");
    assert_eq!(role(without_tenure(signal(Node::primary()))), "replica");
    assert_eq!(role(signal(Node::primary().dead())), "replica", "it has won and was not promoted yet");
    assert_eq!(role(Node::primary().sql(standby_sql(None))), "demoted");
}

#[test]
fn a_checkpoint_is_pending_from_a_promotion_to_the_first_checkpoint_on_its_timeline() {
    let pending = |sql: Sql, checkpoint: u32| {
        let dir = Cluster { checkpoint_timeline: Timeline(checkpoint), ..primary_dir(ControlState::InProduction) };
        crate::decide::members::record(&Node::primary().dir(dir).sql(sql).view()).checkpoint_pending
    };
    let on = |timeline: u32| Sql { timeline: Timeline(timeline), ..primary_sql() };
    assert!(pending(on(2), 1) && !pending(on(2), 2));
    assert!(!pending(on(0), 1), "which timeline it is on is not known");
    assert!(!pending(Sql { in_recovery: true, ..on(2) }, 1), "a standby has no checkpoints of its own");
}

#[test]
fn a_position_that_moved_is_told_with_the_next_record_and_the_lease_kept_a_third_of_its_ttl() {
    let published = |received: u64, replayed: u64| {
        let sql =
            |received, replayed| Sql { received: Lsn(received), replayed: Lsn(replayed), ..standby_sql(Some("b")) };
        let before = Node::standby().sql(sql(9, 5)).published();
        ordered(before.sql(sql(received, replayed)).later(9_999))
    };
    assert_eq!([published(9, 5), published(9, 8), published(12, 8)], [const { Vec::new() }; 3]);
    let keep = |action: &Action| matches!(action, Action::Store(StoreAction::KeepSession { .. }));
    let short = |ms| Node::standby().with(|state| state.session.ttl = seconds(3)).later(ms);
    assert!(!orders(short(999), keep) && orders(short(1_000), keep));
    // The bug: a full store refused one record after the other, and nobody kept the lease of them.
    let untold = short(1_000).with(|state| state.session.published = None);
    assert!(orders(untold, keep), "first of all");
}

/// A primary on timeline 3, and the lines that it writes to the history beside these.
fn history_beside(lines: Vec<HistoryLine>, change: impl FnOnce(Node) -> Node) -> Option<Vec<HistoryLine>> {
    let ancestors = vec![ended(1, 16), ended(2, 32)];
    let dir = Cluster {
        checkpoint_timeline: Timeline(3),
        history: History { ancestors, timeline: Timeline(3) },
        ..primary_dir(ControlState::InProduction)
    };
    let node = Node::primary().dir(dir).sql(Sql { timeline: Timeline(3), ..primary_sql() });
    let node = change(node.cluster(|cluster| cluster.history.lines = lines)).published();
    ordered(node).into_iter().find_map(|action| match action {
        Action::Store(StoreAction::PutHistory { lines, .. }) => Some(lines),
        _ => None,
    })
}

fn ended(timeline: u32, end: u64) -> Ancestor {
    Ancestor { timeline: Timeline(timeline), end: Lsn(end), reason: "promoted".into() }
}

fn line(timeline: u32, end: u64, leader: Option<&str>) -> HistoryLine {
    let Ancestor { timeline, end, reason } = ended(timeline, end);
    HistoryLine { timeline, end, reason, timestamp: None, leader: leader.map(Into::into) }
}

#[test]
fn the_history_keeps_who_began_what_and_no_more_lines_than_it_may() {
    let (first, second) = (|| line(1, 16, Some("b")), || line(2, 32, Some("a")));
    let beside = |lines: Vec<HistoryLine>| history_beside(lines, |node| node);
    assert_eq!(beside(vec![]), Some(vec![line(1, 16, None), second()]));
    assert_eq!(beside(vec![first()]), Some(vec![first(), second()]));
    assert_eq!(beside(vec![first(), second()]), None);
    for other in [line(2, 32, None), line(2, 33, Some("c")), line(4, 32, Some("c"))] {
        assert_eq!(beside(vec![first(), other]), Some(vec![first(), second()]), "not of this history, or of nobody");
    }
    for other in [line(1, 17, Some("c")), line(3, 16, Some("c"))] {
        assert_eq!(beside(vec![other]), Some(vec![line(1, 16, None), second()]));
    }
    let keeping = |lines: usize| {
        let written = history_beside(vec![first()], |node| node.config(|config| config.max_timelines_history = lines));
        written.expect("it is due").len()
    };
    assert_eq!([0, 1, 2, 3].map(keeping), [2, 1, 2, 2]);
}

#[test]
fn the_history_is_written_by_who_leads_and_knows_it_whole() {
    let writes = |change: fn(Node) -> Node| history_beside(vec![], change).is_some();
    assert!(writes(|node| node));
    assert!(!writes(|node| node.with(|state| state.guard.armed = None)), "no authority");
    assert!(!writes(|node| node.sql(Sql { timeline: Timeline(3), ..standby_sql(None) })), "not promoted yet");
    assert!(!writes(|node| node.sql(Sql { timeline: Timeline(4), ..primary_sql() })), "the directory is of before");
    let first = |node: Node| node.dir(primary_dir(ControlState::InProduction)).sql(primary_sql());
    assert!(!writes(first), "nothing has ended");
}

/// A position told before the history is would read as one on the branch that the history ends with: the leader itself would
/// have left that, and nobody might lead after it.
#[test]
fn a_position_is_told_once_the_history_tells_where_its_timeline_began() {
    let on_three = |node: Node| {
        let history = History { ancestors: vec![ended(1, 16), ended(2, 32)], timeline: Timeline(3) };
        let dir = Cluster { history, ..primary_dir(ControlState::InProduction) };
        node.dir(dir).sql(Sql { timeline: Timeline(3), ..primary_sql() })
    };
    let told = |change: &dyn Fn(Node) -> Node| {
        let node =
            on_three(Node::primary()).published().with(|state| state.session.status_at = at(0).back(seconds(10)));
        ordered(change(node)).into_iter().find_map(|action| match action {
            Action::Store(StoreAction::PutStatus { status, .. }) => Some(status.timeline.0),
            _ => None,
        })
    };
    let lines = |node: Node| node.cluster(|c| c.history.lines = vec![line(1, 16, Some("b")), line(2, 32, Some("a"))]);
    assert_eq!([told(&|node| node), told(&lines)], [None, Some(3)]);
    let failed = |node: Node| {
        node.with(|state| {
            state.memory.failed.insert("publish".into(), at(0).back(seconds(9)));
        })
    };
    assert_eq!(told(&failed), None, "something else was not written, once");
    let before = |node: Node| node.dir(Cluster { history: History::first(Timeline(1)), ..standby_dir() });
    assert_eq!(told(&before), None, "the directory is of before the promotion");
    let unreadable =
        |node: Node| node.dir(Cluster { history: History::default(), ..primary_dir(ControlState::InProduction) });
    assert_eq!(told(&unreadable), Some(0), "nothing is to come");
}

#[test]
fn a_history_that_is_written_in_vain_keeps_a_position_back_for_a_loop_wait() {
    let tells = |outcome: fn() -> Outcome<StoreDone>| {
        let history = History { ancestors: vec![ended(1, 16)], timeline: Timeline(2) };
        let dir = Cluster { history, ..primary_dir(ControlState::InProduction) };
        let node = Node::primary().dir(dir).sql(Sql { timeline: Timeline(2), ..primary_sql() });
        let mut node = node.published().with(|state| state.session.status_at = at(0).back(seconds(10)));
        let puts = |action: &Action| matches!(action, Action::Store(StoreAction::PutHistory { .. }));
        assert!(node.tick().orders.iter().any(|order| puts(&order.action)));
        let op = node.op(&Lane::Publish);
        let ended = Event::Store(StoreEvent::Completed { op, outcome: outcome(), asked: node.now });
        node.step(ended);
        let told = |node: &Node| {
            let (_, reason) = crate::decide::cluster_keys::order(&node.view())?;
            Some(reason)
        };
        let soon = told(&node.clone().later(9_999));
        let later = told(&node.clone().later(10_000));
        node.state.spend_tenure();
        assert_eq!(node.state.memory.history_failing, None, "another tenure tries anew");
        [soon, later]
    };
    for failed in [
        || Outcome::Refused(Refusal::Failed("no space".into())),
        || Outcome::Refused(Refusal::Conflict),
        || Outcome::Unknown("no answer".into()),
    ] {
        assert_eq!(tells(failed), [None, Some(Reason::StatusDue)]);
    }
}

#[test]
fn a_position_is_told_again_once_its_timeline_is_known() {
    let told = |timeline: u32| {
        let node = Node::primary().published().with(|state| state.session.status_at = at(0).back(seconds(10)));
        let node = node.cluster(|cluster| cluster.status = None);
        let (told, _) = crate::decide::cluster_keys::order(&node.view()).expect("nothing was told");
        let Action::Store(StoreAction::PutStatus { status, .. }) = told else { panic!("{told:?}") };
        let status = StatusKey {
            optime: status.position,
            timeline: Timeline(timeline),
            slots: status.slots.into_iter().collect(),
            retain: status.retain,
            ..StatusKey::default()
        };
        let node = node.cluster(|cluster| cluster.status = Some(status));
        crate::decide::cluster_keys::order(&node.view()).is_some()
    };
    assert_eq!([0, 1].map(told), [true, false]);
}

#[test]
fn a_standby_tells_where_it_has_its_wal_from() {
    let told = |sql: Sql| crate::decide::members::record(&Node::standby().sql(sql).view()).replication_state;
    let archive = |from: Option<&str>| Sql { restores: true, ..standby_sql(from) };
    assert_eq!(told(archive(Some("b"))), "streaming");
    assert_eq!(told(archive(None)), "in archive recovery");
    assert_eq!(told(standby_sql(None)), "");
    let primary = Node::primary().sql(Sql { restores: true, ..primary_sql() });
    assert_eq!(crate::decide::members::record(&primary.view()).replication_state, "");
}

/// What others lack is measured by it. Only a clean stop says where the primary ended, and more than its last checkpoint
/// was published of what crashed.
#[test]
fn a_release_tells_where_the_primary_stopped_or_as_much_as_is_known() {
    let (less, checkpoint, more) = (0x300_0020, 0x300_0028, 0x300_0030);
    let told = |state: ControlState, optime: u64| {
        let dir = Cluster { checkpoint: Lsn(checkpoint), ..primary_dir(state) };
        let node = Node::primary().dead().dir(dir).with(forgotten).with(|state| state.memory.start_failures = 3);
        let node = node.cluster(|cluster| {
            cluster.status = Some(StatusKey { optime: Lsn(optime), ..StatusKey::default() });
        });
        ordered(node).into_iter().find_map(|action| match action {
            Action::Store(StoreAction::Release { position, .. }) => Some(position.0),
            _ => None,
        })
    };
    assert_eq!([less, more].map(|optime| told(ControlState::ShutDown, optime)), [Some(checkpoint); 2]);
    assert_eq!([less, more].map(|optime| told(ControlState::InProduction, optime)), [Some(checkpoint), Some(more)]);
}

/// The race: it is stopped before it has told of the timeline that it began, and who did not follow it seems to lack little.
#[test]
fn a_release_tells_the_history_that_was_not_told() {
    let released = |state: ControlState, lines: Vec<HistoryLine>| {
        let history = History { ancestors: vec![ended(1, 16), ended(2, 32)], timeline: Timeline(3) };
        let dir = Cluster { checkpoint_timeline: Timeline(3), history, ..primary_dir(state) };
        let node = Node::primary().dead().dir(dir).with(forgotten).with(|state| state.memory.start_failures = 3);
        ordered(node.cluster(|cluster| cluster.history.lines = lines)).into_iter().find_map(|action| match action {
            Action::Store(StoreAction::Release { timeline, history, .. }) => Some((timeline.0, history)),
            _ => None,
        })
    };
    let before = || vec![line(1, 16, Some("b"))];
    let all = || vec![line(1, 16, Some("b")), line(2, 32, Some("a"))];
    assert_eq!(released(ControlState::ShutDown, before()), Some((3, Some(all()))));
    assert_eq!(released(ControlState::ShutDown, all()), Some((3, None)));
    assert_eq!(released(ControlState::InProduction, before()), Some((0, None)), "where it ended is not known");
}
