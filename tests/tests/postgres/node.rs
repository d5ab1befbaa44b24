//! One node without an agent, and what its orders come to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use matriarch::postgres::{Allowance, Postgres, control_data, files, proc, slot_name, tools};
use matriarch_core::id::{LeaseId, Lsn, Member, Timeline};
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::view::guard::Armed;
use matriarch_core::view::postgres::{ControlState, DataDir, Process, Sql, StartAs, Upstream};
use matriarch_tests::single::{SUPERUSER_PASSWORD, account, free_port, settings};
use rustix::process::Signal;
use tokio_postgres::NoTls;

use super::LONG;

/// What a file of WAL holds.
pub(super) const SEGMENT_BYTES: u64 = 16 << 20;

/// One node: a directory for everything it has, and its PostgreSQL.
pub(super) struct Node {
    pub(super) postgres: Postgres,
    pub(super) home: PathBuf,
}

impl Drop for Node {
    fn drop(&mut self) {
        let data_dir = self.home.join("data");
        for orphan in proc::orphans(&data_dir).unwrap_or_default() {
            let _ = proc::signal(orphan, Signal::KILL);
        }
        if let Process::Alive { pid, .. } = proc::observe(&data_dir) {
            let _ = proc::signal(pid.0, Signal::QUIT);
            for _ in 0..500 {
                if proc::observe(&data_dir) == Process::Absent {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = proc::signal(pid.0, Signal::KILL);
        }
    }
}

impl Node {
    pub(super) fn new(base: &Path, member: &str) -> Self {
        let home = base.join(member);
        files::make_dir(&home, 0o700, account().as_ref()).unwrap();
        let settings = settings(&home, member, free_port());
        Self { postgres: Postgres::new(settings), home }
    }

    /// A new cluster, running as primary.
    pub(super) async fn primary(base: &Path, member: &str) -> Self {
        let node = Self::new(base, member);
        done(node.postgres.initdb(&|_| ()).await);
        done(node.postgres.start(StartAs::Primary, &any_time()).await);
        done(node.postgres.post_bootstrap().await);
        node
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        self.home.join("data")
    }

    pub(super) fn upstream(&self) -> Upstream {
        let settings = self.postgres.settings();
        Upstream { member: Member::new(&settings.member), host: "127.0.0.1".into(), port: settings.port }
    }

    pub(super) async fn sql(&self) -> Sql {
        match self.postgres.observe_sql(LONG).await {
            Ok(seen) => seen.value,
            Err(failure) => {
                let log = std::fs::read_to_string(self.home.join("server.log")).unwrap();
                let lines: Vec<&str> = log.lines().filter(|l| !l.contains("LOG:  statement")).collect();
                panic!("{failure}\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
            }
        }
    }

    /// How clients reach it.
    pub(super) fn client_config(&self) -> tokio_postgres::Config {
        let settings = self.postgres.settings();
        let mut config = tokio_postgres::Config::new();
        config.host_path(&self.home).port(settings.port).user("postgres").dbname("postgres");
        config.password(SUPERUSER_PASSWORD);
        config
    }

    pub(super) async fn connect(&self) -> tokio_postgres::Client {
        let (client, connection) = self.client_config().connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Runs SQL as the superuser; the first column of the first row.
    pub(super) async fn run(&self, sql: &str) -> Option<String> {
        let client = self.connect().await;
        let answer = client.simple_query(sql).await.unwrap();
        answer.iter().find_map(|m| match m {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
    }

    pub(super) async fn clone_as(&self, base: &Path, member: &str) -> Self {
        let standby = Self::new(base, member);
        done(self.postgres.create_slot(&slot_name(member)).await);
        done(standby.postgres.clone_from(&self.upstream(), &|_| ()).await);
        done(standby.postgres.start(StartAs::Standby(Some(self.upstream())), &any_time()).await);
        until(async || standby.sql().await.receiver.is_some_and(|r| r.streaming)).await;
        standby
    }

    /// Removes the file of WAL that holds this position, and those after it.
    pub(super) fn lose_wal(&self, timeline: Timeline, from: Lsn) {
        let segment = from.0 / SEGMENT_BYTES;
        let first = format!("{:08X}{:08X}{:08X}", timeline.0, segment >> 8, segment & 0xFF);
        for entry in std::fs::read_dir(self.data_dir().join("pg_wal")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.len() == first.len() && name >= first {
                std::fs::remove_file(path).unwrap();
            }
        }
    }

    pub(super) async fn cluster(&self) -> matriarch_core::view::postgres::Cluster {
        match self.postgres.observe_data().await {
            DataDir::Cluster(cluster) => cluster,
            other => panic!("{other:?}"),
        }
    }

    /// Our reading of `pg_control` against PostgreSQL's own program.
    pub(super) fn check_control(&self, state: &str) {
        let program = tools::locate(&self.postgres.settings(), "pg_controldata").unwrap();
        // A running server may make a checkpoint between the two readings.
        let read = || control_data::read(&self.data_dir()).unwrap().unwrap();
        let (control, text) = loop {
            let control = read();
            let output = Command::new(&program).arg(self.data_dir()).env("LC_ALL", "C").output().unwrap();
            if read() == control {
                break (control, String::from_utf8(output.stdout).unwrap());
            }
        };
        let said: BTreeMap<&str, &str> =
            text.lines().filter_map(|l| Some((l.split_once(':')?.0, l.split_once(':')?.1.trim()))).collect();
        assert_eq!(said["Database cluster state"], state);
        assert_eq!(state_text(control.state), state);
        let checks = [
            ("Database system identifier", control.system_id.to_string()),
            ("pg_control version number", control.version.to_string()),
            ("Catalog version number", control.catalog_version.to_string()),
            ("Latest checkpoint location", control.checkpoint.to_string()),
            ("Latest checkpoint's REDO location", control.redo.to_string()),
            ("Latest checkpoint's TimeLineID", control.checkpoint_timeline.to_string()),
            ("Minimum recovery ending location", control.min_recovery.to_string()),
            ("Min recovery ending loc's timeline", control.min_recovery_timeline.to_string()),
            ("wal_log_hints setting", if control.wal_log_hints { "on" } else { "off" }.into()),
            ("max_connections setting", control.maxima[0].to_string()),
            ("max_worker_processes setting", control.maxima[1].to_string()),
            ("max_wal_senders setting", control.maxima[2].to_string()),
            ("max_prepared_xacts setting", control.maxima[3].to_string()),
            ("max_locks_per_xact setting", control.maxima[4].to_string()),
            ("WAL block size", control.wal_block_size.to_string()),
            ("Bytes per WAL segment", control.wal_segment_size.to_string()),
            ("Data page checksum version", control.checksum_version.to_string()),
        ];
        for (name, ours) in checks {
            assert_eq!(said[name], ours, "{name}");
        }
    }
}

fn state_text(state: ControlState) -> &'static str {
    match state {
        ControlState::StartingUp => "starting up",
        ControlState::ShutDown => "shut down",
        ControlState::ShutDownInRecovery => "shut down in recovery",
        ControlState::ShuttingDown => "shutting down",
        ControlState::InCrashRecovery => "in crash recovery",
        ControlState::InArchiveRecovery => "in archive recovery",
        ControlState::InProduction => "in production",
    }
}

#[track_caller]
pub(super) fn done<T: std::fmt::Debug>(outcome: Outcome<T>) -> T {
    match outcome {
        Outcome::Done(value) => value,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(super) fn refused<T: std::fmt::Debug>(outcome: Outcome<T>) -> String {
    match outcome {
        Outcome::Refused(Refusal::Failed(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// Waits for a condition that is to come true.
pub(super) async fn until(condition: impl AsyncFn() -> bool) {
    for _ in 0..3000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("did not come true");
}

/// For what is not about the end of a tenure.
pub(super) fn any_time() -> Allowance {
    let at = matriarch::clock::now() + Duration::from_hours(1);
    Allowance::under(Armed { tenure: LeaseId(1), at }, matriarch::clock::host())
}

pub(super) fn pid_of(process: Process) -> matriarch_core::id::Pid {
    match process {
        Process::Alive { pid, .. } => pid,
        other => panic!("{other:?}"),
    }
}
