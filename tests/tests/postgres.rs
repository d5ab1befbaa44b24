//! The runtime's PostgreSQL part against real servers. Needs PostgreSQL's programs (`MATRIARCH_TEST_PGBIN` names the
//! directory of another version's); run as root it uses the account `postgres` for the servers.

#[path = "postgres/archive.rs"]
mod archive;
#[path = "postgres/crashed.rs"]
mod crashed;
#[path = "postgres/directory.rs"]
mod directory;
#[path = "postgres/encryption.rs"]
mod encryption;
#[path = "postgres/hooks.rs"]
mod hooks;
#[path = "postgres/leftovers.rs"]
mod leftovers;
#[path = "postgres/node.rs"]
mod node;
#[path = "postgres/parameters.rs"]
mod parameters;
#[path = "postgres/slots.rs"]
mod slots;
#[path = "postgres/timeline_numbers.rs"]
mod timeline_numbers;
#[path = "postgres/waiting.rs"]
mod waiting;

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use matriarch::postgres::{
    Credential, Divergence, Followed, Postgres, SqlFailure, files, proc, slot_name, walsender::WalSender,
};
use matriarch::processes::child_pids;
use matriarch_core::id::{Lsn, Member, Timeline};
use matriarch_core::op::Outcome;
use matriarch_core::view::postgres::{ControlState, DataDir, Phase, Process, StartAs, StopMode, Upstream};
use matriarch_tests::single::{
    REPLICATION_PASSWORD, REWIND_PASSWORD, SUPERUSER_PASSWORD, account, base, credential, free_port, give,
};
use rustix::process::Signal;

use node::{Node, any_time, done, pid_of, refused, until};

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_cluster_is_made_promoted_and_rewound() {
    let base = base();
    let old = Node::new(base.path(), "old");
    assert_eq!(old.postgres.observe_data().await, DataDir::Empty);
    done(old.postgres.initdb(&|_| ()).await);
    old.check_control("shut down");
    let cluster = old.cluster().await;
    assert!(cluster.tainted.is_none() && !cluster.standby_signal);
    assert_eq!(cluster.history.timeline, Timeline(1));
    done(old.postgres.start(StartAs::Primary, &any_time()).await);
    done(old.postgres.post_bootstrap().await);
    done(old.postgres.post_bootstrap().await);
    old.check_control("in production");
    assert!(matches!(old.postgres.observe_process().await, Process::Alive { phase: Phase::Ready, .. }));
    let sql = old.sql().await;
    assert!(!sql.in_recovery && sql.timeline == Timeline(1) && sql.flushed > Lsn(0) && !sql.upstream_set);
    assert!(sql.pending_restart.is_empty() && sql.postmaster_start_us > 1_600_000_000_000_000);
    assert_eq!(old.run("SHOW matriarch.quote").await.as_deref(), Some(r"it's \ quoted"));

    let new = old.clone_as(base.path(), "New-1.x").await;
    new.check_control("in archive recovery");
    let sql = new.sql().await;
    assert!(sql.in_recovery && sql.timeline == Timeline(1) && sql.upstream_set);
    assert_eq!(sql.receiver.unwrap().upstream, format!("127.0.0.1:{}", old.upstream().port));
    until(async || old.sql().await.senders.iter().any(|s| s.state == "streaming")).await;
    let sql = old.sql().await;
    assert_eq!(sql.senders[0].application_name, Member::new("New-1.x"));
    assert_eq!(sql.senders[0].user, "replicator");
    let slot = &sql.slots[0];
    assert!(slot.name == "new_1_x" && slot.physical && slot.active && !slot.lost && slot.restart > Lsn(0));
    assert_eq!(new.postgres.divergence(&old.upstream()).await, Divergence::None);
    let with_a_standby = old.postgres.divergence(&new.upstream()).await;
    assert!(matches!(&with_a_standby, Divergence::Unknown(why) if why.contains("is a standby")), "{with_a_standby:?}");

    // The two part: the old primary writes on beyond what the new one has.
    done(new.postgres.freeze(LONG).await);
    old.run("CREATE TABLE lost AS SELECT generate_series(1, 1000) AS n").await;
    assert_eq!(done(new.postgres.promote(Timeline(2), &any_time()).await), Timeline(2));
    new.check_control("in production");
    assert_eq!(new.cluster().await.history.ancestors[0].timeline, Timeline(1));
    assert!(!new.sql().await.in_recovery && new.sql().await.timeline == Timeline(2));
    new.run("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n").await;
    done(new.postgres.checkpoint(LONG).await);
    let parted = new.cluster().await.history.ancestors[0].end;
    let diverged = Divergence::Diverged { at: parted };
    assert_eq!(old.postgres.divergence(&new.upstream()).await, diverged, "while it runs");
    assert!(refused(old.postgres.follow(Some(&new.upstream())).await).contains("runs as primary"));
    assert!(refused(old.postgres.rewind(&new.upstream(), &|_| ()).await).contains("stop it first"));
    done(old.postgres.stop(StopMode::Immediate, LONG).await);
    old.check_control("in production");

    done(old.postgres.crash_recover(&|_| ()).await);
    old.check_control("shut down");
    assert_eq!(old.postgres.divergence(&new.upstream()).await, diverged, "when it is stopped");
    done(old.postgres.rewind(&new.upstream(), &|_| ()).await);
    let cluster = old.cluster().await;
    assert!(cluster.tainted.is_none() && cluster.standby_signal && cluster.backup_label);
    done(new.postgres.create_slot("old").await);
    done(new.postgres.create_slot("old").await);
    done(old.postgres.start(StartAs::Standby(Some(new.upstream())), &any_time()).await);
    until(async || old.sql().await.receiver.is_some_and(|r| r.streaming)).await;
    until(async || old.sql().await.timeline == Timeline(2)).await;
    assert_eq!(old.run("SELECT count(*) FROM kept").await.as_deref(), Some("1000"));
    assert_eq!(old.run("SELECT to_regclass('lost') IS NULL").await.as_deref(), Some("t"));
    assert_eq!(old.postgres.divergence(&new.upstream()).await, Divergence::None);

    done(new.postgres.create_slot("spare").await);
    new.run("SELECT pg_switch_wal()").await;
    let to = new.sql().await.flushed;
    done(new.postgres.advance_slot("spare", to).await);
    assert!(new.sql().await.slots.iter().any(|s| s.name == "spare" && s.restart == to));
    done(new.postgres.drop_slot("spare").await);
    done(new.postgres.drop_slot("spare").await);
    assert!(refused(new.postgres.drop_slot("old").await).contains("in use"));

    // A clean hand-over leaves nobody diverged, and the shutdown checkpoint is where the histories meet.
    let control = done(new.postgres.stop_until_checkpointed(LONG).await);
    assert_eq!(control.state, ControlState::ShutDown);
    done(new.postgres.stop(StopMode::Fast, LONG).await);
    until(async || old.sql().await.replayed > control.checkpoint).await;
    assert_eq!(done(old.postgres.promote(Timeline(3), &any_time()).await), Timeline(3));
    assert_eq!(new.postgres.divergence(&old.upstream()).await, Divergence::None);
    passwords_are_only_in_pgpass(base.path());
}

/// No password of ours in any file, logs with every statement in them included.
fn passwords_are_only_in_pgpass(base: &Path) {
    let mut directories = vec![base.to_owned()];
    let mut pgpass = 0;
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.ends_with("pgpass") {
                let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
                assert_eq!(mode, 0o600);
                pgpass += 1;
            } else if let Ok(bytes) = std::fs::read(&path) {
                for password in [SUPERUSER_PASSWORD, REPLICATION_PASSWORD, REWIND_PASSWORD] {
                    let found = bytes.windows(password.len()).any(|w| w == password.as_bytes());
                    assert!(!found, "a password in {}", path.display());
                }
            }
        }
    }
    assert_eq!(pgpass, 2);
}

#[tokio::test]
async fn a_frozen_standby_acknowledges_nothing_even_with_replay_paused() {
    let base = base();
    let primary = Node::primary(base.path(), "a").await;
    let standby = primary.clone_as(base.path(), "b").await;
    standby.run("SELECT pg_wal_replay_pause()").await;
    until(async || standby.sql().await.replay_paused).await;
    primary.run("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n").await;
    let sent = primary.sql().await.flushed;
    until(async || standby.sql().await.received >= sent).await;

    done(standby.postgres.freeze(LONG).await);
    let frozen = standby.sql().await;
    assert!(frozen.receiver.is_none() && !frozen.upstream_set && frozen.replay_paused);
    primary.run("INSERT INTO t SELECT generate_series(1, 1000)").await;
    // Longer than wal_retrieve_retry_interval, after which a receiver that was merely ended would be back.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let later = standby.sql().await;
    assert_eq!(later.received, frozen.received);
    assert!(later.receiver.is_none());
    let pid = pid_of(standby.postgres.observe_process().await);
    assert!(proc::wal_receivers(pid).unwrap().is_empty());

    assert_eq!(done(standby.postgres.follow(Some(&primary.upstream())).await), Followed::Done);
    standby.run("SELECT pg_wal_replay_resume()").await;
    let sent = primary.sql().await.flushed;
    until(async || standby.sql().await.replayed >= sent).await;
    assert_eq!(proc::wal_receivers(pid).unwrap().len(), 1);

    // Cut off from it for ever it can still be promoted.
    done(primary.postgres.stop(StopMode::Fast, LONG).await);
    primary.check_control("shut down");
    assert_eq!(done(standby.postgres.promote(Timeline(2), &any_time()).await), Timeline(2));
    assert!(refused(standby.postgres.freeze(LONG).await).contains("runs as primary"));
}

#[tokio::test]
async fn a_standby_whose_replay_is_blocked_freezes_as_well() {
    let base = base();
    let primary = Node::primary(base.path(), "a").await;
    let standby = Node::new(base.path(), "b");
    let mut settings = (*standby.postgres.settings()).clone();
    settings.parameters.insert("max_standby_streaming_delay".into(), "-1".into());
    standby.postgres.apply_settings(settings);
    primary.run("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n").await;
    done(primary.postgres.create_slot("b").await);
    done(standby.postgres.clone_from(&primary.upstream(), &|_| ()).await);
    done(standby.postgres.start(StartAs::Standby(Some(primary.upstream())), &any_time()).await);
    until(async || standby.sql().await.receiver.is_some_and(|r| r.streaming)).await;

    // A query on the standby needs the rows that the primary's VACUUM has removed: replay waits for it, for ever.
    let reader = standby.connect().await;
    reader.simple_query("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t").await.unwrap();
    for statement in ["DELETE FROM t", "VACUUM (FREEZE) t", "CREATE TABLE later ()"] {
        primary.run(statement).await;
    }
    let sent = primary.sql().await.flushed;
    until(async || standby.sql().await.received >= sent).await;
    assert!(standby.sql().await.replayed < sent);

    // What a freeze writes along is told by the reload that finds it written.
    let mut settings = (*standby.postgres.settings()).clone();
    settings.parameters.insert("work_mem".into(), "5MB".into());
    standby.postgres.apply_settings(settings);
    done(standby.postgres.freeze(LONG).await);
    let frozen = standby.sql().await;
    assert!(done(standby.postgres.reload_configuration().await));
    assert!(!done(standby.postgres.reload_configuration().await));
    primary.run("CREATE TABLE unseen ()").await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let later = standby.sql().await;
    assert!(later.received == frozen.received && later.receiver.is_none());
    reader.simple_query("COMMIT").await.unwrap();
    // Not until the position `sent`: that may be the end of a page in the midst of a record, whose rest never comes.
    until(async || standby.run("SELECT to_regclass('later') IS NOT NULL").await.as_deref() == Some("t")).await;
    assert!(standby.sql().await.receiver.is_none());
    assert_eq!(standby.run("SELECT to_regclass('unseen') IS NULL").await.as_deref(), Some("t"));
    assert_eq!(done(standby.postgres.promote(Timeline(2), &any_time()).await), Timeline(2));
}

/// Prints how long promotions take: of a standby whose primary has just been stopped, that is frozen, or neither.
/// `MATRIARCH_TEST_PROMOTIONS` = how many of each.
#[tokio::test]
#[ignore = "a measurement, minutes long"]
async fn how_long_promotions_take() {
    let rounds = std::env::var("MATRIARCH_TEST_PROMOTIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let base = base();
    let first = Node::primary(base.path(), "a").await;
    let second = first.clone_as(base.path(), "b").await;
    for node in [&first, &second] {
        let mut settings = (*node.postgres.settings()).clone();
        settings.parameters.insert("wal_retrieve_retry_interval".into(), "2s".into());
        settings.parameters.insert("log_min_messages".into(), "debug2".into());
        node.postgres.apply_settings(settings);
        done(node.postgres.reload_configuration().await);
    }
    let (mut primary, mut standby) = (&first, &second);
    for (name, freeze, stop) in [("stopped", false, true), ("frozen", true, true), ("cut", false, false)] {
        let (mut times, mut freezes) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            primary.run("CREATE TABLE IF NOT EXISTS t (n int); INSERT INTO t VALUES (1)").await;
            if freeze {
                let began = std::time::Instant::now();
                done(standby.postgres.freeze(LONG).await);
                freezes.push(began.elapsed().as_millis());
            }
            if stop {
                done(primary.postgres.stop_until_checkpointed(LONG).await);
                tokio::time::sleep(Duration::from_millis(round % 10)).await;
            }
            let next = standby.cluster().await.newest_timeline.next();
            let began = std::time::Instant::now();
            done(standby.postgres.promote(next, &any_time()).await);
            let took = began.elapsed().as_millis();
            times.push(took);
            if took > 300 {
                let log = std::fs::read_to_string(standby.home.join("server.log")).unwrap();
                let lines: Vec<&str> = log.lines().filter(|l| !l.contains("LOG:  statement")).collect();
                println!("{name}, {took} ms:\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
            }
            done(primary.postgres.stop(StopMode::Fast, LONG).await);
            done(standby.postgres.checkpoint(LONG).await);
            let member = primary.upstream().member;
            done(standby.postgres.create_slot(&slot_name(member.as_str())).await);
            if primary.postgres.divergence(&standby.upstream()).await != Divergence::None {
                done(primary.postgres.rewind(&standby.upstream(), &|_| ()).await);
            }
            done(primary.postgres.start(StartAs::Standby(Some(standby.upstream())), &any_time()).await);
            (primary, standby) = (standby, primary);
            let streams = standby;
            until(async || streams.sql().await.receiver.is_some_and(|r| r.streaming)).await;
        }
        for (what, mut times) in [("promotions", times), ("freezes", freezes)] {
            times.sort_unstable();
            let median = times.get(times.len() / 2);
            println!("{name}: {} {what}, median {median:?} ms, longest {:?} ms", times.len(), times.last());
        }
    }
}

#[tokio::test]
async fn a_postmaster_is_watched_stopped_and_started() {
    let base = base();
    let node = Node::primary(base.path(), "a").await;
    let mut files = node.postgres.watch_files();
    let first = pid_of(node.postgres.observe_process().await);
    assert_ne!(child_pids(first.0).unwrap().len(), 0);
    assert!(!child_pids(std::process::id().cast_signed()).unwrap().contains(&first.0), "it is no child of ours");

    // A backend that is busy does not notice the death of its postmaster.
    let busy = node.connect().await;
    tokio::spawn(async move { busy.simple_query("DO $$ BEGIN LOOP END LOOP; END $$").await });
    until(async || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO%'";
        node.run(query).await.as_deref() == Some("1")
    })
    .await;
    assert!(refused(node.postgres.start(StartAs::Primary, &any_time()).await).contains("stop it first"));
    assert!(refused(node.postgres.wipe_data_dir("a test").await).contains("stop it first"));
    let exit = node.postgres.watch_exit(first);
    proc::signal(first.0, Signal::KILL).unwrap();
    exit.await;
    assert_eq!(node.postgres.observe_process().await, Process::Absent);
    assert!(matches!(
        node.postgres.observe_sql(LONG).await,
        Err(SqlFailure::Unreachable(_) | SqlFailure::NotAccepting(_))
    ));
    until(async || node.postgres.observe_orphans().await.unwrap().len() == 1).await;
    assert!(refused(node.postgres.start(StartAs::Primary, &any_time()).await).contains("dead postmaster"));
    assert!(refused(node.postgres.wipe_data_dir("a test").await).contains("dead postmaster"));
    assert!(matches!(node.postgres.stop(StopMode::Fast, LONG).await, Outcome::Unknown(_)));
    done(node.postgres.stop(StopMode::Immediate, LONG).await);
    assert!(node.postgres.observe_orphans().await.unwrap().is_empty());
    node.check_control("in production");

    done(node.postgres.start(StartAs::Primary, &any_time()).await);
    assert!(files.recv().await.is_some());
    let second = pid_of(node.postgres.observe_process().await);
    assert_ne!(first, second);
    done(node.postgres.restart(LONG, &any_time()).await);
    assert_ne!(second, pid_of(node.postgres.observe_process().await));

    // A changed setting: what needs no restart is in force, what does is said.
    let mut settings = (*node.postgres.settings()).clone();
    settings.parameters.insert("work_mem".into(), "5MB".into());
    settings.parameters.insert("max_files_per_process".into(), "900".into());
    node.postgres.apply_settings(settings);
    assert!(done(node.postgres.reload_configuration().await));
    assert!(!done(node.postgres.reload_configuration().await));
    until(async || node.run("SHOW work_mem").await.as_deref() == Some("5MB")).await;
    until(async || !node.sql().await.pending_restart.is_empty()).await;
    let pending = node.sql().await.pending_restart;
    assert_eq!(pending, [("max_files_per_process".into(), "1000".into(), "900".into())]);

    // A stopped process ignores SIGQUIT; the hard way ends it.
    let third = pid_of(node.postgres.observe_process().await);
    proc::signal(third.0, Signal::STOP).unwrap();
    done(node.postgres.stop(StopMode::Immediate, Duration::from_secs(2)).await);
    assert_eq!(node.postgres.observe_process().await, Process::Absent);
    done(node.postgres.start(StartAs::Standby(None), &any_time()).await);
    assert!(node.sql().await.in_recovery);
    done(node.postgres.stop(StopMode::Fast, LONG).await);
    node.check_control("shut down in recovery");
    done(node.postgres.stop(StopMode::Fast, LONG).await);
    done(node.postgres.wipe_data_dir("a test").await);
    assert_eq!(node.postgres.observe_data().await, DataDir::Empty);
}

#[tokio::test]
async fn every_error_names_the_thing_and_the_way_out() {
    let base = base();
    let node = Node::new(base.path(), "a");
    let data_dir = node.data_dir();
    let mut settings = (*node.postgres.settings()).clone();

    settings.bin_dir = Some("/nowhere".into());
    let missing = refused(Postgres::new(settings.clone()).initdb(&|_| ()).await);
    assert!(missing.contains("initdb") && missing.contains("/nowhere") && missing.contains("bin_dir"), "{missing}");
    settings.bin_dir.clone_from(&node.postgres.settings().bin_dir);

    std::fs::create_dir_all(&data_dir).unwrap();
    give(&data_dir);
    assert_eq!(node.postgres.observe_data().await, DataDir::Empty);
    std::fs::write(data_dir.join("accounts.xls"), "").unwrap();
    let DataDir::Foreign(foreign) = node.postgres.observe_data().await else { panic!() };
    assert!(foreign.contains("accounts.xls") && foreign.contains("data_dir"), "{foreign}");
    assert!(refused(node.postgres.initdb(&|_| ()).await).contains("accounts.xls"));
    assert!(refused(node.postgres.clone_from(&node.upstream(), &|_| ()).await).contains("accounts.xls"));
    assert!(refused(node.postgres.wipe_data_dir("a test").await).contains("accounts.xls"));
    assert!(data_dir.join("accounts.xls").exists());
    assert!(refused(node.postgres.start(StartAs::Primary, &any_time()).await).contains("accounts.xls"));
    std::fs::remove_dir_all(&data_dir).unwrap();
    assert!(refused(node.postgres.start(StartAs::Primary, &any_time()).await).contains("holds no cluster"));

    // Nobody listens there: the clone fails and leaves nothing behind.
    let nobody = Upstream { port: free_port(), ..node.upstream() };
    assert!(refused(node.postgres.clone_from(&nobody, &|_| ()).await).contains("Connection refused"));
    assert_eq!(node.postgres.observe_data().await, DataDir::Empty);

    done(node.postgres.initdb(&|_| ()).await);
    assert!(refused(node.postgres.initdb(&|_| ()).await).contains("holds a cluster already"));
    std::fs::set_permissions(&data_dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(refused(node.postgres.start(StartAs::Primary, &any_time()).await).contains("chmod 0700"));
    std::fs::set_permissions(&data_dir, std::fs::Permissions::from_mode(0o700)).unwrap();

    let taken = TcpListener::bind(("127.0.0.1", settings.port)).unwrap();
    let busy = refused(node.postgres.start(StartAs::Primary, &any_time()).await);
    assert!(busy.contains(&format!("Port {} is in use", settings.port)) && busy.contains("listen"), "{busy}");
    drop(taken);

    files::taint(&data_dir, "rewind to b", account().as_ref()).unwrap();
    assert_eq!(node.cluster().await.tainted.as_deref(), Some("rewind to b"));
    assert!(refused(node.postgres.start(StartAs::Primary, &any_time()).await).contains("rewind to b"));
    files::untaint(&data_dir).unwrap();

    let version = std::fs::read(data_dir.join("PG_VERSION")).unwrap();
    std::fs::write(data_dir.join("PG_VERSION"), "12\n").unwrap();
    let old = refused(node.postgres.start(StartAs::Primary, &any_time()).await);
    assert!(old.contains("PostgreSQL 12") && old.contains("pg_upgrade"), "{old}");
    std::fs::write(data_dir.join("PG_VERSION"), version).unwrap();

    std::fs::write(data_dir.join("postgresql.base.conf"), "work_mem = 'many'\n").unwrap();
    assert!(refused(node.postgres.start(StartAs::Primary, &any_time()).await).contains("work_mem"));

    let control = data_dir.join("global/pg_control");
    let mut bytes = std::fs::read(&control).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&control, bytes).unwrap();
    let DataDir::Unreadable(damaged) = node.postgres.observe_data().await else { panic!() };
    assert!(damaged.contains("pg_control") && damaged.contains("checksum"), "{damaged}");
    if rustix::process::geteuid().is_root() {
        chown(&data_dir, Some(12345), None).unwrap();
        std::fs::remove_file(&control).unwrap();
        let DataDir::Unreadable(owner) = node.postgres.observe_data().await else { panic!() };
        assert!(owner.contains("12345") && owner.contains("chown"), "{owner}");
    }
}

#[tokio::test]
async fn a_walsender_is_asked_with_every_kind_of_password() {
    let base = base();
    let node = Node::primary(base.path(), "a").await;
    let mut settings = (*node.postgres.settings()).clone();
    node.run("SET password_encryption = 'md5'; CREATE ROLE old REPLICATION LOGIN PASSWORD 'md5-geheim'").await;
    settings.pg_hba = ["all replicator 127.0.0.1/32 scram-sha-256", "replication old 127.0.0.1/32 md5"]
        .iter()
        .map(|l| format!("host {l}").replace("host all repl", "host replication repl"))
        .chain(["local all all scram-sha-256".into(), "local replication postgres trust".into()])
        .collect();
    node.postgres.apply_settings(settings.clone());
    done(node.postgres.reload_configuration().await);

    node.run("ALTER SYSTEM SET default_transaction_read_only = on").await;
    node.run("SELECT pg_reload_conf()").await;

    let system_id = node.cluster().await.system_id;
    let socket = Upstream { host: node.home.to_str().unwrap().into(), ..node.upstream() };
    let trusted = Credential { user: "postgres".into(), ..Credential::default() };
    let cases = [
        (node.upstream(), settings.replication.clone()),
        (node.upstream(), credential("old", "md5-geheim")),
        (socket, trusted),
    ];
    for (upstream, credential) in cases {
        until(async || WalSender::connect(&upstream, &credential, LONG).await.is_ok()).await;
        let mut sender = WalSender::connect(&upstream, &credential, LONG).await.unwrap();
        let identity = sender.identify_system().await.unwrap();
        assert_eq!((identity.system_id, identity.timeline), (system_id, Timeline(1)));
        assert_eq!(sender.in_recovery().await, Ok(false), "though its transactions only read");
        assert_eq!(sender.timeline_history(Timeline(1)).await.unwrap().timeline, Timeline(1));
        assert!(sender.timeline_history(Timeline(9)).await.unwrap_err().contains("00000009.history"));
    }
    let wrong = credential("replicator", "wrong");
    let error = WalSender::connect(&node.upstream(), &wrong, LONG).await.unwrap_err();
    assert!(error.contains("password authentication failed") && !error.contains("wrong"), "{error}");
    let tls = Credential { keywords: [("sslmode".into(), "require".into())].into(), ..settings.replication };
    assert!(WalSender::connect(&node.upstream(), &tls, LONG).await.unwrap_err().contains("TLS"));
}
