//! A postmaster in its first moments, before it has a `postmaster.pid`: it is started only while its tenure lasts, and
//! whoever is to stop it finds it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use matriarch::clock;
use matriarch::guard::{GuardOptions, Order, Report, connect_or_spawn};
use matriarch::postgres::{Allowance, Postgres, files, proc};
use matriarch::processes::DataDir;
use matriarch_core::id::{LeaseId, Timeline};
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::time::Instant;
use matriarch_core::view::guard::Armed;
use matriarch_core::view::postgres::{Process, StartAs, StopMode};
use matriarch_tests::single::{account, base, free_port, give, settings};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::task::JoinHandle;

const LONG: Duration = Duration::from_secs(30);
const TENURE: LeaseId = LeaseId(42);
const TOO_LATE: Outcome<()> = Outcome::Refused(Refusal::NotOurTenure);

/// A new cluster that does not run. Dropping it kills what does.
struct Node {
    base: TempDir,
    postgres: Arc<Postgres>,
}

impl Node {
    async fn new() -> Self {
        let base = base();
        let home = base.path().join("a");
        files::make_dir(&home, 0o700, account().as_ref()).unwrap();
        let postgres = Arc::new(Postgres::new(settings(&home, "a", free_port())));
        assert_eq!(postgres.initdb(&|_| ()).await, Outcome::Done(()));
        Self { base, postgres }
    }

    fn data_dir(&self) -> PathBuf {
        self.postgres.settings().data_dir.clone()
    }

    fn start(&self, allowance: &Allowance) -> JoinHandle<Outcome<()>> {
        let (postgres, allowance) = (Arc::clone(&self.postgres), allowance.clone());
        tokio::spawn(async move { postgres.start(StartAs::Primary, &allowance).await })
    }

    /// What a guard finds in the data directory.
    fn alive(&self) -> Vec<i32> {
        let members = DataDir::new(&self.data_dir()).members(None).unwrap();
        members.into_iter().map(|member| member.process.pid).collect()
    }

    fn was_ever_started(&self) -> bool {
        fs::metadata(&self.postgres.settings().server_log).is_ok_and(|log| log.len() > 0)
    }

    /// A start whose postmaster is executed and waits for its configuration, before it has looked at its directory.
    async fn newborn(&self) -> (JoinHandle<Outcome<()>>, Pipe) {
        let mut with_pipe = (*self.postgres.settings()).clone();
        let pipe = Pipe::make(self.base.path().join("included.conf"));
        with_pipe.custom_conf = Some(pipe.path.clone());
        self.postgres.apply_settings(with_pipe);
        let start = self.start(&any_time());
        let pipe = pipe.opened().await;
        assert!(!self.data_dir().join("postmaster.pid").exists());
        (start, pipe)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for pid in self.alive() {
            proc::signal(pid, Signal::KILL).ok();
        }
    }
}

/// A named pipe: whoever reads the file waits.
struct Pipe {
    path: PathBuf,
    writer: Option<File>,
}

impl Pipe {
    fn make(path: PathBuf) -> Self {
        let _ = fs::remove_file(&path);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        give(&path);
        Self { path, writer: None }
    }

    /// Waits until somebody reads it: a pipe without a reader cannot be opened for writing without waiting.
    async fn opened(mut self) -> Self {
        until(async || {
            self.writer = OpenOptions::new()
                .write(true)
                .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
                .open(&self.path)
                .ok();
            self.writer.is_some()
        })
        .await;
        self
    }

    /// The reader finds the end of the file, and whoever comes next an empty one.
    fn end(self) {
        fs::remove_file(&self.path).unwrap();
        fs::write(&self.path, "").unwrap();
        give(&self.path);
    }
}

async fn until(mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..3000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("did not come true");
}

fn under(at: Instant) -> Allowance {
    Allowance::under(Armed { tenure: TENURE, at }, clock::host())
}

fn any_time() -> Allowance {
    under(clock::now() + Duration::from_hours(1))
}

fn binary() -> PathBuf {
    let me = std::env::current_exe().unwrap();
    let path = me.parent().and_then(Path::parent).unwrap().join("matriarch");
    assert!(path.exists(), "{} is missing: cargo build -p matriarch", path.display());
    path
}

#[tokio::test]
async fn an_order_whose_instant_is_past_starts_nothing_and_changes_nothing() {
    let node = Node::new().await;
    let before = node.postgres.observe_data().await;
    fs::remove_file(node.data_dir().join("postgresql.base.conf")).ok();
    let late = under(clock::now());
    assert_eq!(node.postgres.start(StartAs::Primary, &late).await, TOO_LATE);
    assert_eq!(node.postgres.restart(LONG, &late).await, TOO_LATE);
    assert_eq!((node.alive(), node.was_ever_started()), (vec![], false));
    assert!(!node.data_dir().join("postgresql.base.conf").exists(), "it wrote its configuration");
    assert_eq!(node.postgres.observe_data().await, before);

    // A standby is not promoted, a primary not stopped to be restarted.
    let unpromised = Allowance::unbounded();
    assert_eq!(node.postgres.start(StartAs::Primary, &unpromised).await, TOO_LATE);
    assert_eq!(node.postgres.start(StartAs::Standby(None), &unpromised).await, Outcome::Done(()));
    for allowance in [&late, &unpromised] {
        assert_eq!(node.postgres.promote(Timeline(2), allowance).await.map(drop), TOO_LATE);
    }
    assert!(!node.data_dir().join("promote").exists());
    assert!(node.postgres.observe_sql(LONG).await.unwrap().value.in_recovery);
    assert!(matches!(node.postgres.promote(Timeline(2), &any_time()).await, Outcome::Done(_)));
    let running = node.postgres.observe_process().await;
    for allowance in [&late, &unpromised] {
        assert_eq!(node.postgres.restart(LONG, allowance).await, TOO_LATE);
    }
    assert_eq!(node.postgres.observe_process().await, running);
}

/// The disk takes its time, or the agent is frozen, between the order and the fork.
#[tokio::test]
async fn an_instant_that_comes_while_the_files_are_written_is_noticed_before_the_fork() {
    let node = Node::new().await;
    let slow = Pipe::make(node.data_dir().join("postgresql.auto.conf"));
    let at = clock::now() + Duration::from_secs(1);
    let start = node.start(&under(at));
    let slow = slow.opened().await;
    until(async || clock::now() >= at).await;
    slow.end();
    assert_eq!(start.await.unwrap(), TOO_LATE);
    assert_eq!((node.alive(), node.was_ever_started()), (vec![], false));
}

#[tokio::test]
async fn a_promise_that_is_renewed_meanwhile_counts() {
    let node = Node::new().await;
    let slow = Pipe::make(node.data_dir().join("postgresql.auto.conf"));
    let at = clock::now() + Duration::from_secs(1);
    let allowance = under(at);
    let start = node.start(&allowance);
    let slow = slow.opened().await;
    allowance.prolong(Armed { tenure: TENURE, at: at + LONG });
    until(async || clock::now() >= at).await;
    slow.end();
    assert_eq!(start.await.unwrap(), Outcome::Done(()));
    assert_eq!(node.postgres.stop(StopMode::Immediate, LONG).await, Outcome::Done(()));
}

/// The race: a start loses its lane while a slow disk keeps it from forking. The stop that takes its place finds
/// nothing to stop; a fork after that would be a primary that nobody has ordered.
#[tokio::test]
async fn a_start_that_was_cancelled_while_it_wrote_its_files_forks_nothing() {
    let node = Node::new().await;
    let slow = Pipe::make(node.data_dir().join("postgresql.auto.conf"));
    let allowance = any_time();
    let start = node.start(&allowance);
    let slow = slow.opened().await;
    allowance.withdraw();
    start.abort();
    assert!(start.await.unwrap_err().is_cancelled());
    // The stop does not wait for the disk.
    assert_eq!(node.postgres.stop(StopMode::Immediate, LONG).await, Outcome::Done(()));
    slow.end();
    // The next change has to wait for the end of what goes on.
    assert!(matches!(node.postgres.reload_configuration().await, Outcome::Done(_)));
    assert_eq!((node.alive(), node.was_ever_started()), (vec![], false));
}

#[tokio::test]
async fn a_newborn_without_a_pid_file_is_killed_by_the_fence() {
    let node = Node::new().await;
    let (start, pipe) = node.newborn().await;
    assert_eq!(node.alive().len(), 1, "it is found by its executable and its directory");
    let options = GuardOptions {
        exe: binary(),
        state_dir: node.base.path().join("state"),
        data_dir: node.data_dir(),
        agent_uid: rustix::process::geteuid().as_raw(),
        restart_grace: LONG,
        release_command: vec![],
        strict: false,
    };
    let (mut guard, _) = connect_or_spawn(&options).await.unwrap();
    guard.send(Order::Fire { why: "test".into() }).unwrap();
    let report = tokio::time::timeout(LONG, guard.reports.recv()).await.unwrap().unwrap();
    assert!(matches!(&report, Report::Fired(fired) if fired.processes == 1), "{report:?}");
    assert_eq!(node.alive(), [0; 0]);
    assert!(matches!(start.await.unwrap(), Outcome::Refused(Refusal::Failed(_))));
    drop(pipe);
    guard.send(Order::Retire).unwrap();
    while guard.reports.recv().await.is_some_and(|report| report != Report::Gone) {}
}

#[tokio::test]
async fn a_newborn_without_a_pid_file_is_stopped() {
    let node = Node::new().await;
    let (start, pipe) = node.newborn().await;
    assert_eq!(node.postgres.stop(StopMode::Immediate, LONG).await, Outcome::Done(()));
    assert_eq!(node.alive(), [0; 0]);
    assert!(matches!(start.await.unwrap(), Outcome::Refused(Refusal::Failed(_))));
    drop(pipe);

    // A polite stop waits for it to have its file, and is then understood.
    let (start, pipe) = node.newborn().await;
    let postgres = Arc::clone(&node.postgres);
    let stop = tokio::spawn(async move { postgres.stop(StopMode::Fast, LONG).await });
    tokio::task::yield_now().await;
    pipe.end();
    assert_eq!(stop.await.unwrap(), Outcome::Done(()));
    assert_eq!((node.alive(), node.postgres.observe_process().await), (vec![], Process::Absent));
    start.abort();
}
