//! A standby that waits for WAL that nobody has any more.

use std::time::Duration;

use matriarch::postgres::Divergence;
use matriarch_core::id::Timeline;
use matriarch_core::view::postgres::{Phase, Process, StartAs, StopMode};
use matriarch_tests::single::base;

use super::LONG;
use super::node::{Node, SEGMENT_BYTES, any_time, done, until};

/// It has replayed beyond where the new primary began its timeline, and must replay further before it answers: it can
/// stream nothing, and tells nothing either. As after a rewind to a primary that died then.
#[tokio::test]
async fn what_it_must_reach_is_compared_where_it_does_not_answer() {
    let base = base();
    let old = Node::primary(base.path(), "old").await;
    let (new, waiting) = (old.clone_as(base.path(), "new").await, old.clone_as(base.path(), "waiting").await);
    old.run("SELECT pg_switch_wal()").await;
    let shared = old.sql().await.flushed;
    until(async || new.sql().await.received >= shared).await;
    done(new.postgres.freeze(LONG).await);
    old.run("CREATE TABLE lost AS SELECT n, repeat('x', 1000) FROM generate_series(1, 20000) AS n").await;
    let all = old.sql().await.flushed;
    assert!(all.0 > shared.0 + SEGMENT_BYTES, "more than one file of WAL");
    until(async || waiting.sql().await.replayed >= all).await;
    done(waiting.postgres.stop(StopMode::Fast, LONG).await);
    done(old.postgres.stop(StopMode::Immediate, LONG).await);
    done(new.postgres.promote(Timeline(2), &any_time()).await);
    let at = new.cluster().await.history.ancestors[0].end;

    waiting.lose_wal(Timeline(1), all);
    let allowance = any_time();
    let start = waiting.postgres.start(StartAs::Standby(Some(new.upstream())), &allowance);
    assert!(tokio::time::timeout(Duration::from_secs(3), start).await.is_err(), "it is not consistent");
    assert!(matches!(waiting.postgres.observe_process().await, Process::Alive { phase: Phase::Starting, .. }));
    assert_eq!(waiting.postgres.divergence(&new.upstream()).await, Divergence::Diverged { at });
    done(waiting.postgres.follow(Some(&new.upstream())).await);
    done(waiting.postgres.stop(StopMode::Fast, LONG).await);
    assert_eq!(waiting.postgres.divergence(&new.upstream()).await, Divergence::Diverged { at }, "stopped as well");
}
