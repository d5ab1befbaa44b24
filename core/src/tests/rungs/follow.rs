//! Behind another leader: rewind and follow.

use super::*;
use crate::action::Lane;
use crate::event::PostgresEvent;
use crate::op::Outcome;
use crate::view::postgres::Sql;

fn stopped_beside_b() -> Node {
    Node::standby().dead().dir(primary_dir(ControlState::ShutDown))
}

fn diverged(node: Node) -> Node {
    let now = node.now;
    node.with(|state| {
        (state.memory.compared, state.memory.compared_at) = (Some((THEIR_EPOCH, Some(Lsn(0x200_0000)))), Some(now));
    })
}

/// The bug (seed 2701059): a node went on trying to be cloned from a leader that had become a standby since it was compared.
/// The same goes for what took long to stop or to recover.
#[test]
fn what_gives_up_data_goes_by_a_comparison_of_just_now() {
    let cloned = diverged(stopped_beside_b()).config(|config| {
        (config.use_pg_rewind, config.clone_when_diverged) = (false, true);
    });
    for (node, first) in [(diverged(stopped_beside_b()), "diverged"), (cloned, "clone_instead")] {
        let reasons = [499, 500].map(|ms| node.clone().later(ms).concludes().1);
        assert_eq!(reasons, [first, "comparing_histories"]);
    }
    let crashed = diverged(stopped_beside_b()).dir(primary_dir(ControlState::InProduction));
    assert_eq!(crashed.later(500).concludes().1, "single_user_recovery", "that gives up nothing");
}

#[test]
fn a_stopped_server_is_compared_before_it_starts_and_a_running_one_when_it_does_not_stream() {
    let compare = Action::Postgres(PostgresAction::Compare(upstream("b")));
    let orders = std::slice::from_ref(&compare);
    concludes(&stopped_beside_b(), Rung::Rewind, "comparing_histories", Fate::Keep, orders);
    let mut sql = standby_sql(None);
    sql.upstream_set = true;
    let node = Node::standby().sql(sql).later(3_000);
    concludes(&node, Rung::Rewind, "comparing_histories", Fate::Keep, orders);
    assert_eq!(Node::standby().later(3_000).decide().0, Rung::Follow, "it streams");
}

/// No postmaster is seen yet; it may come up any moment.
#[test]
fn what_is_being_started_is_not_compared() {
    let starting = stopped_beside_b().doing(start_standby(Some("b")), 10);
    assert_eq!(starting.concludes(), (Rung::Follow, "starting_standby", Fate::Keep));
}

#[test]
fn a_comparison_with_one_leader_says_nothing_of_the_next() {
    let node =
        diverged(stopped_beside_b()).cluster(|cluster| cluster.leader = Some(leader("b", LeaseId(9), Revision(120))));
    assert_eq!(node.concludes().1, "comparing_histories");
}

#[test]
fn a_tenure_of_our_own_that_is_over_is_nobody_to_compare_with() {
    let node = Node::primary().dead().with(|state| (state.tenure, state.spent) = (Tenure::None, Some(OURS)));
    concludes(&node, Rung::Follow, "leader_not_ready", Fate::Keep, &[]);
    // Without a store nothing else is heard, and reads go on meanwhile.
    concludes(&node.clone().later(10_000), Rung::Follow, "starting_alone", Fate::Keep, &[start_standby(None)]);
    // The bug: a cluster that was recovering towards what its operator had named would have gone on without that.
    let lease = node.state.session.lease.expect("it has a session");
    let newborn = node.cluster(|cluster| {
        cluster.initialize = Some(Initialize { revision: Revision(5), lease, system_id: None });
    });
    concludes(&newborn.later(10_000), Rung::Follow, "leader_not_ready", Fate::Keep, &[]);
}

#[test]
fn a_diverged_node_is_stopped_recovered_and_rewound() {
    let rewind = Action::Postgres(PostgresAction::Rewind(upstream("b")));
    concludes(&diverged(Node::standby()), Rung::Rewind, "diverged", Fate::Keep, &[stop(StopMode::Fast)]);
    concludes(&diverged(stopped_beside_b()), Rung::Rewind, "diverged", Fate::Keep, &[rewind]);
    let crashed = diverged(stopped_beside_b()).dir(primary_dir(ControlState::InProduction));
    let recover = Action::Postgres(PostgresAction::RecoverSingleUser);
    concludes(&crashed, Rung::Rewind, "single_user_recovery", Fate::Keep, &[recover]);
    let pending = diverged(stopped_beside_b()).cluster(|cluster| {
        cluster.members.get_mut(&Member::new("b")).unwrap().record.checkpoint_pending = true;
    });
    concludes(&pending, Rung::Rewind, "leader_not_checkpointed", Fate::Keep, &[]);
}

#[test]
fn what_cannot_be_rewound_is_cloned_only_where_that_is_allowed() {
    let clone = Action::Postgres(PostgresAction::Clone(upstream("b")));
    let cannot = |node: Node| node.config(|config| config.use_pg_rewind = false);
    concludes(&cannot(diverged(stopped_beside_b())), Rung::Rewind, "cannot_rewind", Fate::Keep, &[]);
    let plain = diverged(stopped_beside_b()).dir(Cluster { rewindable: false, ..primary_dir(ControlState::ShutDown) });
    concludes(&plain, Rung::Rewind, "cannot_rewind", Fate::Keep, &[]);
    let after_failures = plain.config(|config| config.clone_when_rewind_fails = true);
    concludes(&after_failures, Rung::Rewind, "cannot_rewind", Fate::Keep, &[]);
    let allowed = cannot(diverged(stopped_beside_b())).config(|config| config.clone_when_diverged = true);
    concludes(&allowed, Rung::Rewind, "clone_instead", Fate::Keep, std::slice::from_ref(&clone));
}

fn rewind_failed(node: Node) -> Node {
    diverged(node).with(|state| state.memory.rewind_failed = Some((THEIR_EPOCH, "no WAL".into())))
}

#[test]
fn a_failed_rewind_is_followed_by_a_clone_of_a_leader_that_came_after_or_where_the_operator_says_so() {
    let clone = [Action::Postgres(PostgresAction::Clone(upstream("b")))];
    let b_is_at = |node: Node, timeline, position| {
        node.cluster(|cluster| {
            let record = &mut cluster.members.get_mut(&Member::new("b")).unwrap().record;
            (record.timeline, record.position) = (crate::id::Timeline(timeline), Lsn(position));
        })
    };
    let node = || rewind_failed(stopped_beside_b());
    concludes(&b_is_at(node(), 2, 0x300_0000), Rung::Rewind, "clone_instead", Fate::Keep, &clone);
    // On our timeline without what we have, or short of the position that it shared a moment ago: that is a leader of
    // yesterday, and this may be the last copy.
    for known in [b_is_at(node(), 1, 0x300_0000), b_is_at(node(), 2, 0x1ff_ffff)] {
        concludes(&known, Rung::Rewind, "cannot_rewind", Fate::Keep, &[]);
    }
    let unknown = node().dir(Cluster { history: History::default(), ..primary_dir(ControlState::ShutDown) });
    concludes(&b_is_at(unknown, 2, 0x300_0000), Rung::Rewind, "cannot_rewind", Fate::Keep, &[]);
    for (diverged, fails) in [(true, false), (false, true)] {
        let allow = |config: &mut crate::config::Config| {
            (config.clone_when_diverged, config.clone_when_rewind_fails) = (diverged, fails);
        };
        concludes(&b_is_at(node(), 1, 0x300_0000).config(allow), Rung::Rewind, "clone_instead", Fate::Keep, &clone);
        // There is nothing to clone yet.
        concludes(&b_is_at(node(), 0, 0).config(allow), Rung::Rewind, "cannot_rewind", Fate::Keep, &[]);
    }
}

#[test]
fn a_failed_recovery_is_no_failed_rewind_and_is_tried_again() {
    let recover = [Action::Postgres(PostgresAction::RecoverSingleUser)];
    let crashed = || stopped_beside_b().dir(primary_dir(ControlState::InProduction));
    let failed = |node: Node| {
        let node = node.with(|state| state.memory.recovery_failed = Some((at(0), "no memory".into())));
        node.config(|config| (config.clone_when_diverged, config.clone_when_rewind_fails) = (true, true))
    };
    let node = failed(diverged(crashed()));
    concludes(&node, Rung::Rewind, "recovery_failed", Fate::Keep, &[]);
    concludes(&node.later(10_000), Rung::Rewind, "recovery_failed", Fate::Keep, &recover);
    // What was not compared yet is compared, whatever failed before.
    assert_eq!(failed(stopped_beside_b()).concludes().1, "comparing_histories");
}

fn compared(node: Node) -> Node {
    node.with(|state| state.memory.compared = Some((THEIR_EPOCH, None)))
}

#[test]
fn a_stopped_standby_starts_behind_its_leader() {
    concludes(&compared(stopped_beside_b()), Rung::Follow, "starting_standby", Fate::Keep, &[start_standby(Some("b"))]);
    let nostream = compared(stopped_beside_b()).config(|config| config.nostream = true);
    assert_eq!(nostream.wants(), [start_standby(None)]);
    let unready = compared(stopped_beside_b()).cluster(|cluster| {
        cluster.members.get_mut(&Member::new("b")).unwrap().record.role = "replica".into();
    });
    concludes(&unready, Rung::Follow, "leader_not_ready", Fate::Keep, &[]);
    assert_eq!(unready.later(10_000).wants(), [start_standby(Some("b"))]);
    let unknown = compared(stopped_beside_b()).cluster(|cluster| {
        cluster.members.get_mut(&Member::new("b")).unwrap().record.host.clear();
    });
    assert_eq!(
        [9_999, 10_000].map(|ms| unknown.clone().later(ms).concludes().1),
        ["leader_not_ready", "starting_alone"]
    );
}

#[test]
fn a_stopped_standby_without_a_leader_starts_alone_after_a_moment() {
    concludes(&Node::stopped(), Rung::Follow, "starting_alone", Fate::Keep, &[start_standby(None)]);
    let vanished = Vanished { heard: at(0), who: Member::new("b"), released: None };
    let node = Node::stopped().with(|state| state.store.vanished = Some(vanished));
    concludes(&node, Rung::Follow, "no_source", Fate::Keep, &[]);
    assert_eq!(node.later(1_000).concludes().1, "starting_alone");
}

#[test]
fn a_running_standby_follows_the_leader_or_the_member_of_its_tag() {
    concludes(&Node::standby(), Rung::Follow, "following", Fate::Keep, &[]);
    assert!(Node::standby().decide().1.steady);
    let follow = |name| Action::Postgres(PostgresAction::Follow(Some(upstream(name))));
    let turned = |node: Node| node.later(4_000);
    let wrong = turned(Node::standby().sql(standby_sql(Some("c"))).with(|state| state.memory.streamed = at(4_000)));
    concludes(&wrong, Rung::Follow, "turning_to", Fate::Keep, &[follow("b")]);
    let cascade = Node::standby().config(|config| config.replicatefrom = Some(Member::new("c")));
    concludes(&cascade, Rung::Follow, "turning_to", Fate::Keep, &[follow("c")]);
    let nostream = Node::standby().config(|config| config.nostream = true);
    assert_eq!(nostream.wants(), [Action::Postgres(PostgresAction::Follow(None))]);
}

#[test]
fn a_standby_that_was_just_turned_is_not_turned_again_before_it_can_have_turned() {
    let node = Node::standby().sql(standby_sql(Some("c"))).with(|state| state.memory.turned = at(0));
    concludes(&node, Rung::Follow, "following", Fate::Keep, &[]);
}

/// The bug: it ran on with its replay paused for ever, and could not follow the next leader either.
#[test]
fn a_standby_whose_primary_has_outgrown_it_is_restarted_behind_the_right_leader() {
    let outgrown = |from| Sql { replay_paused: true, outgrown: true, ..standby_sql(from) };
    let restart = [Action::Postgres(PostgresAction::Restart)];
    concludes(&Node::standby().sql(outgrown(Some("b"))), Rung::Follow, "outgrown", Fate::Keep, &restart);
    // Behind a new timeline a paused replay has no receiver.
    let stuck = Sql { upstream_set: true, ..outgrown(None) };
    concludes(&compared(Node::standby()).sql(stuck), Rung::Follow, "outgrown", Fate::Keep, &restart);
    let wrong = Node::standby().sql(outgrown(Some("c"))).later(4_000);
    assert_eq!(wrong.with(|state| state.memory.streamed = at(4_000)).concludes().1, "turning_to");
    let paused_by_hand = Sql { outgrown: false, ..outgrown(Some("b")) };
    concludes(&Node::standby().sql(paused_by_hand), Rung::Follow, "following", Fate::Keep, &[]);
}

#[test]
fn a_pledge_binds_until_a_newer_tenure_is_seen() {
    let pledge = |absent_at| Pledge { absent_at: Revision(absent_at), since: at(0), frozen: true, on_disk: true };
    let bound = Node::standby().with(|state| state.pledge = Some(pledge(80)));
    concludes(&bound, Rung::Follow, "no_source", Fate::Keep, &[]);
    assert_eq!(Node::standby().with(|state| state.pledge = Some(pledge(79))).concludes().1, "following");
    // A store that was restored mints smaller revisions: the pledge ends by itself.
    let mut late = bound.later(20_000);
    late.tick();
    assert_eq!(late.state.pledge, None);
}

#[test]
fn a_standby_that_is_not_consistent_yet_is_turned_as_well() {
    let node = Node::standby().phase(Phase::Starting).with(|state| {
        (state.postgres.sql, state.memory.turned) = (None, at(0));
    });
    concludes(&node, Rung::Follow, "starting", Fate::Keep, &[]);
    let node = node.with(|state| state.memory.followed = None);
    assert_eq!(node.concludes().1, "turning_to");
    concludes(&Node::standby().phase(Phase::Stopping), Rung::Follow, "not_steady", Fate::Keep, &[]);
}

/// The bug: after a rewind it had been started without a leader and waited for WAL that only a leader has; who led then
/// was not followed before the start was given up, a minute later.
#[test]
fn a_standby_that_was_started_for_another_is_turned_while_it_starts() {
    let follow = Action::Postgres(PostgresAction::Follow(Some(upstream("b"))));
    let starting = |from, phase| Node::standby().phase(phase).doing(start_standby(from), 10);
    for from in [None, Some("c")] {
        let mut node = starting(from, Phase::Starting).with(|state| state.postgres.sql = None);
        concludes(&node, Rung::Follow, "turning_to", Fate::Keep, std::slice::from_ref(&follow));
        let effects = node.tick();
        assert!(actions(&effects).contains(&follow), "{effects:?}");
        assert_eq!(effects.cancelled.len(), 1, "the start is not waited for any more");
        assert_eq!(starting(from, Phase::Ready).concludes().1, "starting_standby", "its end is a moment away");
    }
    assert_eq!(starting(Some("b"), Phase::Starting).concludes().1, "starting_standby");
}

/// The bug: it had followed the leader before it was started alone, and nobody pointed it there again.
#[test]
fn a_start_that_is_given_up_leaves_nobody_that_is_followed() {
    let mut node = Node::standby().phase(Phase::Starting).doing(start_standby(None), 10);
    node.state.postgres.sql = None;
    let outcome = Outcome::Unknown("PostgreSQL is still starting".into());
    let op = node.op(&Lane::PgControl);
    node.step(Event::Postgres(PostgresEvent::Completed { op, outcome }));
    assert_eq!(node.state.memory.followed, None);
    assert_eq!(node.later(1_000).concludes().1, "turning_to");
}

/// The bug: a standby that was rewound to a leader which died at once waited for WAL that nobody has, for ever.
#[test]
fn a_standby_that_does_not_become_consistent_is_compared_and_brought_onto_the_leaders_history() {
    let node = Node::standby().phase(Phase::Starting).with(|state| {
        (state.postgres.sql, state.memory.turned) = (None, at(0));
    });
    concludes(&node.clone().later(2_999), Rung::Follow, "starting", Fate::Keep, &[]);
    let compare = Action::Postgres(PostgresAction::Compare(upstream("b")));
    let late = node.later(3_000);
    concludes(&late, Rung::Rewind, "comparing_histories", Fate::Keep, &[compare]);
    concludes(&diverged(late.clone()), Rung::Rewind, "diverged", Fate::Keep, &[stop(StopMode::Fast)]);
    let cascade = late.clone().config(|config| config.replicatefrom = Some(Member::new("c")));
    assert_eq!(cascade.concludes().1, "turning_to");
    let cascade = cascade.with(|state| state.memory.followed = Some(upstream("c")));
    assert_eq!(cascade.concludes().1, "comparing_histories", "with the leader, whomever it follows");
    let elsewhere = late.clone().doing(start_standby(None), 10);
    assert_eq!(elsewhere.concludes().1, "turning_to", "it is pointed to the leader first");
    let none = late.with(|state| {
        (state.memory.compared, state.memory.compared_at) = (Some((THEIR_EPOCH, None)), Some(at(3_000)));
    });
    assert_eq!(none.concludes().1, "starting", "then it waits for what the leader sends");
    assert_eq!(none.later(60_000).concludes().1, "comparing_histories");
}

#[test]
fn a_standby_is_turned_where_its_receiver_or_without_one_its_settings_are_not_of_the_last_order() {
    let follows = |mut sql: Sql, upstream_set: bool, followed: Option<&str>, nostream: bool| {
        sql.upstream_set = upstream_set;
        let node = Node::standby().sql(sql).config(|config| config.nostream = nostream).with(|state| {
            (state.memory.followed, state.memory.streamed) = (followed.map(upstream), at(4_000));
        });
        node.later(4_000).concludes().1 == "following"
    };
    let (receives, none) = (|| standby_sql(Some("b")), || standby_sql(None));
    assert!(follows(receives(), true, Some("b"), false) && follows(receives(), true, Some("c"), false));
    assert!(follows(none(), true, Some("b"), false));
    assert!(!follows(none(), true, Some("c"), false) && !follows(none(), false, Some("b"), false));
    assert!(follows(none(), false, None, true));
    assert!(!follows(none(), true, None, true) && !follows(receives(), false, None, true));
    // Turning takes a moment, and no longer.
    let turned = |ms| {
        let node = Node::standby().sql(standby_sql(Some("c"))).with(|state| state.memory.turned = at(0));
        node.later(ms).concludes().1
    };
    assert_eq!([2_999, 3_000].map(turned), ["following", "turning_to"]);
}

#[test]
fn a_clone_that_did_not_reach_consistency_is_started_and_not_compared() {
    let clone = Cluster { backup_label: true, ..standby_dir() };
    assert_eq!(Node::standby().dead().dir(clone).decide().0, Rung::Follow);
}

#[test]
fn a_comparison_is_repeated_once_it_streamed_since_or_after_a_while() {
    let compares = |compared_ms: u64, streamed_ms: u64, now_ms: u64| {
        let node = compared(Node::standby().sql(Sql { upstream_set: true, ..standby_sql(None) }));
        let node = node.with(|state| {
            (state.memory.compared_at, state.memory.streamed) = (Some(at(compared_ms)), at(streamed_ms));
        });
        node.later(now_ms).concludes().1 == "comparing_histories"
    };
    assert!(compares(1, 2, 10_000));
    assert!(!compares(2, 2, 10_000) && !compares(3, 2, 10_000));
    assert!(compares(3, 2, 60_003) && !compares(3, 2, 60_002));
}

#[test]
fn nobody_is_cloned_that_tells_no_position_or_no_timeline() {
    for (timeline, position) in [(1, 0), (0, 0x300_0000)] {
        let node = rewind_failed(stopped_beside_b()).config(|config| config.clone_when_diverged = true);
        let node = node.cluster(|cluster| {
            let record = &mut cluster.members.get_mut(&Member::new("b")).unwrap().record;
            (record.timeline, record.position) = (crate::id::Timeline(timeline), Lsn(position));
        });
        concludes(&node, Rung::Rewind, "cannot_rewind", Fate::Keep, &[]);
    }
}
