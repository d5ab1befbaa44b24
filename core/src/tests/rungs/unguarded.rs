//! What an operator's word is worth where the last primary may write without a guard.

use super::pause::{hears, pause, paused, unguarded};
use super::*;
use crate::action::StoreAction;
use crate::config::{RACE_WINDOW, RETRY_PAUSE};
use crate::decide;
use crate::view::peers::PeerAnswer;
use crate::view::store::ClusterView;

/// The race: a primary that was let go is cut off and goes on writing; its key goes, and the pause ends.
#[test]
fn nobody_takes_the_place_of_a_primary_without_a_guard_but_on_an_operators_word() {
    let racing = |change: &dyn Fn(&mut ClusterView)| {
        let node = Node::racing().cluster(|cluster| cluster.epoch = Some(unguarded("b", THEIR_EPOCH))).cluster(change);
        node.with(|state| _ = state.peers.answers.remove(&Member::new("b"))).concludes()
    };
    let stands_back = (Rung::Race, "unguarded_primary", Fate::Keep);
    let campaigns = (Rung::Race, "asking_lease", Fate::Keep);
    assert_eq!(racing(&|_| ()), stands_back);
    let asked_at = |cluster: &mut ClusterView, revision| {
        cluster.failover = Some(FailoverKey { revision: Revision(revision), ..failover(None, Some("a")) });
    };
    assert_eq!(racing(&|cluster| asked_at(cluster, 102)), campaigns, "his word");
    assert_eq!(racing(&|cluster| asked_at(cluster, 101)), stands_back, "perhaps of a leader");
    let gone = |cluster: &mut ClusterView| _ = cluster.members.remove(&Member::new("b"));
    assert_eq!(racing(&gone), stands_back);
    let foreign = |cluster: &mut ClusterView| cluster.epoch.as_mut().unwrap().store = crate::id::StoreId(2);
    assert_ne!(racing(&foreign), stands_back, "no record of this store");
    assert_ne!(racing(&|cluster| cluster.epoch = Some(epoch_record("b", THEIR_EPOCH))), stands_back);
    assert_ne!(racing(&|cluster| cluster.epoch = Some(unguarded("a", EPOCH))), stands_back, "it knows of itself");
}

/// A candidate in a pause, from when it hears that the key of the primary `b` is gone and for some rounds of its race:
/// whether it ever asks for a lease.
fn takes_over(request: Revision, released: bool) -> bool {
    let mut node = pause(Node::standby()).sql(standby_sql(None)).cluster(|cluster| cluster.revision = Revision(99));
    node.state.memory.let_go = true;
    let keys = |revision: i64| {
        let mut keys = paused(cluster(revision));
        keys.epoch = Some(unguarded("b", THEIR_EPOCH));
        if released {
            let (b, status) =
                (keys.members.get_mut(&Member::new("b")).unwrap(), keys.status.insert(StatusKey::default()));
            (b.record.state, b.record.role) = ("stopped".into(), "primary".into());
            // What the candidate lacks of it the operator gives up.
            (b.revision, status.revision, status.optime) = (Revision(101), Revision(101), Lsn(HERE.0 + 8));
        }
        keys.failover = (request.0 <= revision).then(|| FailoverKey { revision: request, ..failover(None, Some("a")) });
        keys
    };
    let mut orders = Vec::new();
    for round in 0..4 {
        node.now = at(0) + (RETRY_PAUSE + millis(1)) * round;
        node.state.postgres.sql = Some(Seen::new(standby_sql(None), node.now, node.now));
        // Keys that were written since, of no interest here.
        orders.extend(hears(&mut node, keys(101 + 2 * i64::from(round))));
        orders.extend(actions(&node.tick()));
        node.now = node.now + RACE_WINDOW;
        orders.extend(actions(&node.tick()));
    }
    orders.iter().any(|order| matches!(order, Action::Store(StoreAction::GrantTenure { .. })))
}

/// The race: a leader that was let go is asked to fail over, and its agent goes before it has handed over, with its
/// PostgreSQL running. The race for its key is run again and again, and each round knows it to be absent at a newer
/// revision.
#[test]
fn what_was_asked_of_a_leader_is_no_word_that_it_writes_nothing() {
    assert!(!takes_over(Revision(99), false));
    assert!(!takes_over(Revision(101), false), "heard together with the end of the key");
    assert!(takes_over(Revision(102), false));
    assert!(takes_over(Revision(105), false), "asked again");
    assert!(takes_over(Revision(99), true), "it has stopped cleanly and released the key");
}

/// What was released by who led before says nothing of the last leader.
#[test]
fn what_another_released_is_no_end_of_the_last_leader() {
    let code = |who: &str| {
        let node = Node::racing().cluster(|cluster| {
            cluster.epoch = Some(unguarded("b", THEIR_EPOCH));
            cluster.failover = Some(failover(None, Some("a")));
            cluster.status =
                Some(StatusKey { revision: Revision(95), optime: Lsn(HERE.0 - 8), ..StatusKey::default() });
            let key = cluster.members.get_mut(&Member::new(who)).unwrap();
            (key.revision, key.record.state, key.record.role) = (Revision(95), "stopped".into(), "primary".into());
        });
        node.with(|state| state.peers.answers.clear()).concludes().1
    };
    assert_eq!(code("c"), "unguarded_primary");
    assert_ne!(code("b"), "unguarded_primary");
}

/// A leader that was let go was asked for something, and has stopped and released its key since to nobody that holds everything.
#[test]
fn a_release_is_enough_for_a_failover_and_not_for_a_switchover() {
    let code = |of: Option<&str>| {
        let node = Node::racing().cluster(|cluster| {
            cluster.epoch = Some(unguarded("b", THEIR_EPOCH));
            cluster.failover = Some(FailoverKey { revision: Revision(94), ..failover(of, Some("a")) });
            let optime = Lsn(HERE.0 + 8);
            cluster.status = Some(StatusKey { revision: Revision(95), optime, ..StatusKey::default() });
            let key = cluster.members.get_mut(&Member::new("b")).unwrap();
            (key.revision, key.record.state, key.record.role) = (Revision(95), "stopped".into(), "primary".into());
        });
        node.with(|state| state.peers.answers.clear()).concludes().1
    };
    assert_ne!(code(None), "unguarded_primary");
    assert_eq!(code(Some("b")), "unguarded_primary");
}

/// The bug: who had stopped for a switchover in a pause wrote its record anew before its candidate knew its own position.
/// Nothing told any more that the key was released to that one, which stood back, and nobody led.
#[test]
fn a_move_in_a_pause_goes_on_when_the_old_primary_says_that_it_writes_nothing() {
    let asked = |told: Option<PeerAnswer>, of: Option<&str>| {
        let node = pause(Node::racing()).cluster(|cluster| {
            cluster.epoch = Some(unguarded("b", THEIR_EPOCH));
            cluster.failover = Some(failover(of, Some("a")));
            // It need not tell that it is a running primary to be asked whether it is one.
            cluster.members.get_mut(&Member::new("b")).unwrap().record.role = "replica".into();
        });
        node.with(|state| {
            state.peers.answers.clear();
            let seen = told.map(|told| Seen::new(told, at(0), at(0)));
            state.peers.answers.extend(seen.map(|seen| (Member::new("b"), seen)));
        })
    };
    let stands_back = |told: Option<PeerAnswer>, of: Option<&str>, asks: &[&str]| {
        let node = asked(told, of);
        let (reason, orders) = (node.concludes().1, decide::decide(&node.view()).1.orders);
        let asked = orders.iter().map(|order| match order {
            Action::Peer(PeerAction::AskPosition { member, .. }) => member.as_str(),
            other => panic!("{other:?}"),
        });
        assert_eq!(asked.collect::<Vec<_>>(), asks);
        assert_eq!(reason, "unguarded_primary");
    };
    for of in [Some("b"), None] {
        stands_back(None, of, &["b"]);
        stands_back(Some(PeerAnswer { primary: true, ..answer(HERE, None) }), of, &[]);
        stands_back(Some(PeerAnswer { receives: true, ..answer(HERE, None) }), of, &[]);
        let stopped = PeerAnswer { receives: false, ..answer(Lsn(HERE.0 - 8), None) };
        assert_ne!(asked(Some(stopped), of).concludes().1, "unguarded_primary");
    }
}
