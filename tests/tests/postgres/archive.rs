//! WAL that a primary had not archived when it was killed.

use std::fs;
use std::path::PathBuf;

use matriarch_core::id::Timeline;
use matriarch_core::view::postgres::{StartAs, StopMode};
use matriarch_tests::single::{base, give};

use super::LONG;
use super::node::{Node, any_time, done, until};

/// As a standby PostgreSQL archives nothing, and removes what it does not need: what was started while nobody led had
/// nobody to wait for, so its archive is filled up once it follows somebody.
#[tokio::test]
async fn what_was_started_alone_archives_what_it_had_left_when_it_follows() {
    let base = base();
    let archive = base.path().join("archive");
    fs::create_dir(&archive).unwrap();
    give(&archive);
    let open = base.path().join("open");
    let old = Node::new(base.path(), "old");
    let mut settings = (*old.postgres.settings()).clone();
    let command = format!("test -e {} && cp %p {}/%f", open.display(), archive.display());
    settings.parameters.extend([("archive_mode".into(), "on".into()), ("archive_command".into(), command)]);
    old.postgres.apply_settings(settings);
    done(old.postgres.initdb(&|_| ()).await);
    done(old.postgres.start(StartAs::Primary, &any_time()).await);
    done(old.postgres.post_bootstrap().await);
    let new = old.clone_as(base.path(), "new").await;
    old.run("CREATE TABLE t()").await;
    old.run("SELECT pg_switch_wal()").await;
    let all = old.sql().await.flushed;
    until(async || new.sql().await.received >= all).await;
    done(old.postgres.stop(StopMode::Immediate, LONG).await);
    let left = || -> Vec<PathBuf> {
        let entries = fs::read_dir(old.data_dir().join("pg_wal/archive_status")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|kind| kind == "ready")).collect()
    };
    let unarchived = left();
    assert!(!unarchived.is_empty(), "the primary had something to archive");

    done(old.postgres.start(StartAs::Standby(None), &any_time()).await);
    done(new.postgres.promote(Timeline(2), &any_time()).await);
    assert_eq!(left(), unarchived);
    fs::write(&open, "").unwrap();
    done(old.postgres.follow(Some(&new.upstream())).await);
    assert_eq!(left(), Vec::<PathBuf>::new());
    for path in unarchived {
        assert!(archive.join(path.file_stem().unwrap()).exists(), "{}", path.display());
    }
}
