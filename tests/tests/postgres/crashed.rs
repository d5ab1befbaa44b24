//! A primary that crashed, beside the one that was promoted meanwhile.

use std::time::Duration;

use matriarch::postgres::{Divergence, control_data, proc};
use matriarch_core::id::Timeline;
use matriarch_core::view::postgres::{Process, StartAs, StopMode};
use matriarch_tests::single::base;
use rustix::process::Signal;

use super::LONG;
use super::node::{Node, any_time, done, until};

/// A primary and a standby that holds all of it.
async fn pair(base: &std::path::Path) -> (Node, Node) {
    let old = Node::new(base, "old");
    done(old.postgres.initdb(&|_| ()).await);
    done(old.postgres.start(StartAs::Primary, &any_time()).await);
    done(old.postgres.post_bootstrap().await);
    let new = old.clone_as(base, "new").await;
    old.run("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n").await;
    // What was only read is written as well (hint bits), and flushed a moment later.
    until(async || {
        let all = old.sql().await.flushed;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let written = old.run("SELECT pg_current_wal_insert_lsn() = pg_current_wal_flush_lsn()").await;
        let calm = written.as_deref() == Some("t") && old.sql().await.flushed == all;
        calm && new.sql().await.received >= all
    })
    .await;
    (old, new)
}

/// A recovery of its own would end with a checkpoint, and be the only thing in which it differs.
#[tokio::test]
async fn a_primary_that_crashed_with_no_more_than_its_successor_has_follows_as_it_is() {
    let base = base();
    let (old, new) = pair(base.path()).await;
    done(old.postgres.stop(StopMode::Immediate, LONG).await);
    done(new.postgres.promote(Timeline(2), &any_time()).await);
    new.run("INSERT INTO kept VALUES (1001)").await;
    let before = old.cluster().await;
    assert_eq!(old.postgres.divergence(&new.upstream()).await, Divergence::None);
    assert_eq!(old.cluster().await, before, "a comparison writes nothing");
    old.check_control("in production");
    done(new.postgres.create_slot("old").await);
    done(old.postgres.start(StartAs::Standby(Some(new.upstream())), &any_time()).await);
    until(async || old.sql().await.receiver.is_some_and(|r| r.streaming)).await;
    until(async || old.sql().await.timeline == Timeline(2)).await;
    until(async || old.run("SELECT count(*) FROM kept").await.as_deref() == Some("1001")).await;
}

#[tokio::test]
async fn a_primary_that_crashed_with_more_than_its_successor_has_is_known_before_it_is_touched() {
    let base = base();
    let (old, new) = pair(base.path()).await;
    done(new.postgres.freeze(LONG).await);
    old.run("CREATE TABLE lost AS SELECT generate_series(1, 10) AS n").await;
    done(old.postgres.stop(StopMode::Immediate, LONG).await);
    done(new.postgres.promote(Timeline(2), &any_time()).await);
    let at = new.cluster().await.history.ancestors[0].end;
    assert!(old.cluster().await.checkpoint < at, "what it holds beyond is behind its last checkpoint");
    assert_eq!(old.postgres.divergence(&new.upstream()).await, Divergence::Diverged { at });
    old.check_control("in production");
}

/// Until its first checkpoint, `pg_control` of a promoted server names the timeline before as that of its checkpoint.
#[tokio::test]
async fn a_primary_that_crashed_before_its_first_checkpoint_is_known_by_the_timeline_that_it_wrote() {
    let base = base();
    let (old, new) = pair(base.path()).await;
    let checkpointer = new.run("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'").await;
    let checkpointer: i32 = checkpointer.unwrap().parse().unwrap();
    // Its first checkpoint never comes.
    proc::signal(checkpointer, Signal::STOP).unwrap();
    done(new.postgres.promote(Timeline(2), &any_time()).await);
    new.run("CREATE TABLE only_here AS SELECT generate_series(1, 10) AS n").await;
    let crash = new.postgres.stop(StopMode::Immediate, LONG);
    let crashed = async {
        // Once the postmaster stops: it would recover from the loss of it otherwise.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let _ = proc::signal(checkpointer, Signal::KILL);
    };
    done(tokio::join!(crash, crashed).0);
    let control = control_data::read(&new.data_dir()).unwrap().unwrap();
    assert_eq!((control.checkpoint_timeline, control.min_recovery_timeline), (Timeline(1), Timeline(2)));
    old.run("CREATE TABLE only_there AS SELECT generate_series(1, 10000) AS n").await;
    let at = new.cluster().await.history.ancestors[0].end;
    assert!(old.sql().await.flushed > at);
    assert_eq!(new.postgres.divergence(&old.upstream()).await, Divergence::Diverged { at });
}

/// The bug: SIGQUIT waits where a process is held, and it was waited for as long as a stop may take: half an hour.
#[tokio::test]
async fn a_server_that_is_held_is_stopped_at_once_all_the_same() {
    let base = base();
    let node = Node::primary(base.path(), "held").await;
    let Process::Alive { pid, .. } = node.postgres.observe_process().await else { panic!("it runs") };
    matriarch_tests::Process(pid.0).signal(Signal::STOP);
    let began = std::time::Instant::now();
    done(node.postgres.stop(StopMode::Immediate, Duration::from_secs(1800)).await);
    assert!(began.elapsed() < Duration::from_secs(12), "it took {:?}", began.elapsed());
}
