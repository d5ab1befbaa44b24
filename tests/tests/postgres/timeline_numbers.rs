//! No two promotions begin timelines of one number, and what is left out between two numbers keeps nobody from following.

use matriarch::postgres::{Divergence, Followed};
use matriarch_core::id::Timeline;
use matriarch_core::view::postgres::{StartAs, StopMode};
use matriarch_tests::single::{account, base};

use super::LONG;
use super::node::{Node, any_time, done, refused, until};

/// A primary that was stopped, and two standbys that hold all of it.
async fn three(base: &std::path::Path) -> (Node, Node, Node) {
    let old = Node::primary(base, "old").await;
    let (new, third) = (old.clone_as(base, "new").await, old.clone_as(base, "third").await);
    old.run("CREATE TABLE kept AS SELECT generate_series(1, 100) AS n").await;
    let all = old.sql().await.flushed;
    until(async || new.sql().await.received >= all && third.sql().await.received >= all).await;
    done(old.postgres.stop(StopMode::Fast, LONG).await);
    let end = old.cluster().await.checkpoint;
    until(async || new.sql().await.replayed > end && third.sql().await.replayed > end).await;
    (old, new, third)
}

/// With a slot for each that is to follow.
async fn promoted(node: &Node, timeline: Timeline, slots: &[&str]) {
    assert_eq!(done(node.postgres.promote(timeline, &any_time()).await), timeline);
    for slot in slots {
        done(node.postgres.create_slot(slot).await);
    }
}

async fn follows(standby: &Node, primary: &Node, rows: &str, timeline: Timeline) {
    until(async || standby.sql().await.receiver.is_some_and(|r| r.streaming)).await;
    until(async || standby.sql().await.timeline == timeline).await;
    until(async || standby.run("SELECT count(*) FROM kept").await.as_deref() == Some(rows)).await;
    assert_eq!(standby.postgres.divergence(&primary.upstream()).await, Divergence::None);
}

/// `old` leads again on timeline 2 and nobody hears of it; `new` begins timeline 3 at the very same position. By numbers
/// as PostgreSQL counts both would be 2, and nothing would tell them apart.
#[tokio::test]
async fn two_that_do_not_know_of_each_other_begin_timelines_of_two_numbers_at_one_position() {
    let base = base();
    let (old, new, third) = three(base.path()).await;
    done(third.postgres.freeze(LONG).await);
    done(new.postgres.freeze(LONG).await);
    done(old.postgres.start(StartAs::Standby(None), &any_time()).await);
    promoted(&old, Timeline(2), &[]).await;
    old.run("INSERT INTO kept VALUES (101)").await;
    done(old.postgres.stop(StopMode::Immediate, LONG).await);

    promoted(&new, Timeline(3), &["old", "third"]).await;
    new.run("INSERT INTO kept VALUES (102), (103)").await;
    done(new.postgres.checkpoint(LONG).await);
    let begun = |cluster: matriarch_core::view::postgres::Cluster| cluster.history.ancestors[0].end;
    let at = begun(new.cluster().await);
    assert_eq!(begun(old.cluster().await), at, "both begin at one position");
    assert_eq!(old.postgres.divergence(&new.upstream()).await, Divergence::Diverged { at });

    // A standby that was there before passes over the number that was left out.
    assert_eq!(done(third.postgres.follow(Some(&new.upstream())).await), Followed::Done);
    follows(&third, &new, "102", Timeline(3)).await;
    done(third.postgres.stop(StopMode::Fast, LONG).await);
    done(third.postgres.start(StartAs::Standby(Some(new.upstream())), &any_time()).await);
    follows(&third, &new, "102", Timeline(3)).await;
    let clone = new.clone_as(base.path(), "clone").await;
    follows(&clone, &new, "102", Timeline(3)).await;

    // And pg_rewind sees two timelines, where it would have seen one and done nothing.
    done(old.postgres.crash_recover(&|_| ()).await);
    done(old.postgres.rewind(&new.upstream(), &|_| ()).await);
    done(old.postgres.start(StartAs::Standby(Some(new.upstream())), &any_time()).await);
    follows(&old, &new, "102", Timeline(3)).await;
    assert_eq!(old.cluster().await.newest_timeline, Timeline(3));
}

/// What a promotion that did not come to pass has left behind is gone before it could keep the standby from the true
/// timeline of that number.
#[tokio::test]
async fn a_standby_that_was_not_promoted_follows_the_timeline_whose_number_it_had_left_out() {
    let base = base();
    let (old, new, third) = three(base.path()).await;
    // As if the agent had ended between the files and the promotion.
    let left_out = |node: &Node| {
        let file = node.data_dir().join("pg_wal/00000002.history");
        let text = "# Left out by matriarch: a promotion elsewhere may have begun a timeline of this number.\n";
        matriarch::postgres::files::write(&file, text.as_bytes(), Some(0o600), account().as_ref()).unwrap();
        file
    };
    let files = [left_out(&new), left_out(&third)];
    assert_eq!(new.cluster().await.newest_timeline, Timeline(1));
    done(old.postgres.start(StartAs::Standby(None), &any_time()).await);
    promoted(&old, Timeline(2), &["new", "third"]).await;
    old.run("INSERT INTO kept VALUES (101)").await;

    assert_eq!(done(new.postgres.follow(Some(&old.upstream())).await), Followed::Done);
    done(third.postgres.stop(StopMode::Fast, LONG).await);
    done(third.postgres.start(StartAs::Standby(Some(old.upstream())), &any_time()).await);
    for (standby, file) in [&new, &third].into_iter().zip(&files) {
        follows(standby, &old, "101", Timeline(2)).await;
        assert!(std::fs::read_to_string(file).unwrap().contains("no recovery target"), "the true file took its place");
        assert_eq!(standby.cluster().await.newest_timeline, Timeline(2));
    }
    assert!(refused(new.postgres.promote(Timeline(2), &any_time()).await).contains("knows of timeline 2"));
    assert!(new.sql().await.in_recovery);
}
