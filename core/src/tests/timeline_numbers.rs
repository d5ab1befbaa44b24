//! No two promotions begin timelines of one number.

use crate::action::{Action, PostgresAction, StoreAction};
use crate::decide::{Fate, Rung};
use crate::id::{Lsn, Revision, Timeline};
use crate::lease::Tenure;
use crate::op::{Outcome, Refusal};
use crate::testing::*;
use crate::view::postgres::{Cluster, ControlState};
use crate::view::store::{HistoryKey, HistoryLine};

/// A node that leads and is about to promote its standby.
fn promoting() -> Node {
    let node = Node::primary().dir(Cluster { state: ControlState::InArchiveRecovery, ..standby_dir() });
    node.sql(standby_sql(None)).published()
}

/// What a node that may campaign reserves with the key.
fn reserves(node: Node) -> Timeline {
    let now = node.now;
    let node = node.with(|state| {
        let (lease, ttl) = (crate::id::LeaseId(9), seconds(30));
        state.granted = Some(crate::state::Granted { lease, ttl, asked: now });
    });
    let acquired = node.wants().into_iter().find_map(|action| match action {
        Action::Store(StoreAction::Acquire(acquire)) => Some(acquire.newest_timeline),
        _ => None,
    });
    acquired.expect("the node campaigns")
}

/// The order to reserve up to `newest`, where the record has this revision.
fn reserve_of(record: Revision, newest: u32) -> Action {
    let (epoch, timeline, position, newest_timeline) = (EPOCH, Timeline(1), HERE, Timeline(newest));
    Action::Store(StoreAction::Reserve {
        epoch,
        record,
        timeline,
        position,
        newest_timeline,
        unguarded: false,
        config: Revision(6),
    })
}

#[test]
fn the_number_that_is_reserved_with_the_key_is_beyond_all_that_anything_tells_of() {
    assert_eq!(reserves(Node::racing()), Timeline(2));
    let of_a_tenure_before = Node::racing().cluster(|cluster| {
        cluster.epoch = Some(epoch_record("b", THEIR_EPOCH));
    });
    assert_eq!(reserves(of_a_tenure_before), Timeline(3));
    let of_a_history = Node::racing().cluster(|cluster| {
        let line = |timeline| HistoryLine {
            timeline: Timeline(timeline),
            end: HERE,
            reason: "no recovery target specified".into(),
            timestamp: None,
            leader: None,
        };
        let lines = [line(1), line(4)].into();
        cluster.history = HistoryKey { revision: Revision(9), lines, ..HistoryKey::default() };
    });
    assert_eq!(reserves(of_a_history), Timeline(6));
    let of_a_member = Node::racing().cluster(|cluster| {
        cluster.members.values_mut().for_each(|member| member.record.timeline = Timeline(7));
    });
    assert_eq!(reserves(of_a_member), Timeline(8));
    // What was promoted by hand in a pause was killed, and its record tells of no timeline any more.
    let told_before = |b: u32, c: u32| {
        let tells = |timelines: [(&'static str, u32); 2]| {
            move |cluster: &mut crate::view::store::ClusterView| {
                for (name, timeline) in timelines {
                    let member = cluster.members.get_mut(&crate::id::Member::new(name)).unwrap();
                    member.record.timeline = Timeline(timeline);
                }
            }
        };
        let mut node = Node::racing().cluster(tells([("b", b), ("c", c)]));
        node.tick();
        reserves(node.cluster(tells([("b", 0), ("c", 0)])))
    };
    assert_eq!([(1, 7), (1, 257)].map(|(b, c)| told_before(b, c)), [Timeline(8), Timeline(258)]);
    assert_eq!(
        [(1, 258), (7, 258)].map(|(b, c)| told_before(b, c)),
        [Timeline(2), Timeline(8)],
        "nonsense hides nothing"
    );
    // Promoted by hand: the branch that it has begun is short, and it is no rival.
    let of_an_answer = Node::racing().with(|state| {
        let answer = state.peers.answers.get_mut(&crate::id::Member::new("c")).unwrap();
        (answer.value.history.timeline, answer.value.barred) = (Timeline(3), true);
    });
    assert_eq!(reserves(of_an_answer), Timeline(4));
    let of_our_files = Node::racing().dir(Cluster { newest_timeline: Timeline(9), ..standby_dir() });
    assert_eq!(reserves(of_our_files), Timeline(10));
}

#[test]
fn a_record_of_another_store_or_a_damaged_one_reserves_nothing() {
    let other = Node::racing().cluster(|cluster| {
        let record = epoch_record("b", THEIR_EPOCH);
        cluster.epoch = Some(crate::view::store::EpochRecord { store: crate::id::StoreId(2), ..record });
    });
    assert_eq!(reserves(other), Timeline(2));
    // Each number that is left out costs a file.
    let damaged = Node::racing().cluster(|cluster| {
        let record = epoch_record("b", THEIR_EPOCH);
        cluster.epoch = Some(crate::view::store::EpochRecord { newest_timeline: Timeline(u32::MAX), ..record });
    });
    assert_eq!(reserves(damaged), Timeline(258));
}

#[test]
fn a_primary_that_asks_for_its_key_again_reserves_no_new_number() {
    let vanished = Node::primary().cluster(|cluster| cluster.leader = None).with(|state| {
        let Tenure::Held(was) = state.tenure else { panic!("a primary holds its tenure") };
        state.tenure = Tenure::Suspended { since: at(0), was };
    });
    assert_eq!(reserves(vanished.clone()), Timeline(2), "what it had reserved before");
    assert_eq!(reserves(vanished.cluster(|cluster| cluster.epoch = None)), Timeline(1), "what it is on");
}

#[test]
fn a_promotion_is_onto_the_number_that_was_reserved() {
    let node = promoting().cluster(|cluster| {
        cluster.epoch.as_mut().unwrap().newest_timeline = Timeline(5);
    });
    let promote = PostgresAction::Promote { timeline: Timeline(5) };
    assert_eq!(node.wants(), [Action::Postgres(promote)]);
}

#[test]
fn a_server_that_knows_of_more_than_was_reserved_waits_for_a_greater_number() {
    let node = promoting().dir(Cluster {
        state: ControlState::InArchiveRecovery,
        newest_timeline: Timeline(2),
        ..standby_dir()
    });
    assert_eq!(node.concludes(), (Rung::Leader, "reserving_timeline", Fate::Keep));
    assert_eq!(node.wants(), [reserve_of(EPOCH, 3)]);
    // The key of our tenure was taken over from an agent that writes no record.
    let of_another = promoting().cluster(|cluster| cluster.epoch = Some(epoch_record("b", THEIR_EPOCH)));
    assert_eq!(of_another.wants(), [reserve_of(THEIR_EPOCH, 2)]);
    let none = promoting().cluster(|cluster| cluster.epoch = None);
    assert_eq!(none.wants(), [reserve_of(Revision(0), 2)]);
}

/// PostgreSQL writes the file of the timeline that it begins before it leaves recovery, and is seen between.
#[test]
fn what_a_promotion_under_way_has_written_reserves_no_other_number() {
    let written = Cluster { state: ControlState::InArchiveRecovery, newest_timeline: Timeline(2), ..standby_dir() };
    let node = promoting().doing(promotion(), 0).with(|state| state.memory.promotion = true).dir(written);
    assert_eq!(node.concludes(), (Rung::Leader, "promoting", Fate::Keep));
    assert_eq!(node.wants(), []);
}

/// The record is of the tenure: it tells where that began, and not where it has got to since.
#[test]
fn a_reservation_leaves_standing_where_the_tenure_began() {
    let further = Lsn(HERE.0 + 8);
    let sql = crate::view::postgres::Sql { received: further, replayed: further, ..standby_sql(None) };
    let node = promoting().sql(sql).dir(Cluster {
        state: ControlState::InArchiveRecovery,
        newest_timeline: Timeline(2),
        ..standby_dir()
    });
    let told = |node: Node| match &node.wants()[..] {
        [Action::Store(StoreAction::Reserve { position, .. })] => *position,
        other => panic!("{other:?}"),
    };
    assert_eq!(told(node.clone()), HERE);
    let of_another = node.cluster(|cluster| cluster.epoch = Some(epoch_record("b", THEIR_EPOCH)));
    assert_eq!(told(of_another), further, "another's tells nothing of this tenure");
}

#[test]
fn a_primary_on_a_greater_number_than_it_reserved_makes_that_known() {
    let dir = primary_dir(ControlState::InProduction);
    let dir = Cluster { checkpoint_timeline: Timeline(3), newest_timeline: Timeline(3), ..dir };
    let sql = crate::view::postgres::Sql { timeline: Timeline(3), ..primary_sql() };
    let node = Node::primary().dir(dir).sql(sql);
    assert!(node.wants().contains(&reserve_of(EPOCH, 3)), "{:?}", node.wants());
    assert!(!Node::primary().wants().iter().any(|a| matches!(a, Action::Store(StoreAction::Reserve { .. }))));
}

/// A promotion that is refused since the server counts beyond what was reserved is ordered again with a greater number,
/// once that is reserved: the look that follows tells of it.
#[test]
fn a_reservation_that_was_refused_has_the_keys_read() {
    let mut node = promoting().dir(Cluster {
        state: ControlState::InArchiveRecovery,
        newest_timeline: Timeline(2),
        ..standby_dir()
    });
    assert!(actions(&node.tick()).iter().any(|a| matches!(a, Action::Store(StoreAction::Reserve { .. }))));
    let op = node.op(&crate::action::Lane::Lead);
    let (now, outcome) = (node.now, Outcome::Refused(Refusal::Conflict));
    let completed = crate::event::StoreEvent::Completed { op, asked: now, outcome };
    let effects = node.step(crate::event::Event::Store(completed));
    assert!(actions(&effects).contains(&Action::Store(StoreAction::Read)), "{effects:?}");
}
