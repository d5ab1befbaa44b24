//! `pg_basebackup` is two processes; neither may go on when nobody waits for the copy any more.

use std::path::Path;

use matriarch::postgres::Postgres;
use matriarch::processes::{Process, child_pids};
use matriarch_core::id::Member;
use matriarch_core::view::postgres::DataDir;
use matriarch_tests::single::{base, settings};
use rustix::process::Signal;

use super::node::{Node, done, refused, until};
use super::{Upstream, files};

/// In the environment of this program, run once more, as the agent: its home, and the port of whom to copy.
const AGENT: &str = "MATRIARCH_TEST_AGENT_THAT_COPIES";
const NAME: &str = "leftovers::what_an_agent_that_was_killed_has_left_is_ended_before_the_next_copy";

/// So slow that the copy does not come to its end in the time of a test.
fn slowly(home: &Path) -> Postgres {
    let mut settings = settings(home, "new", 1);
    settings.basebackup_options.push("--max-rate=32k".into());
    Postgres::new(settings)
}

fn upstream(port: u16) -> Upstream {
    Upstream { member: Member::new("old"), host: "127.0.0.1".into(), port }
}

/// The process that copies, a child of `agent`, and the one that streams WAL, when both are at work.
async fn halves(agent: u32, data_dir: &Path) -> (Process, Process) {
    let copies = |pid: &i32| {
        let text = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.contains("pg_basebackup") && text.split('\0').any(|argument| Path::new(argument) == data_dir)
    };
    let child = |of: i32| child_pids(of).unwrap().into_iter().find(copies);
    let both = || child(agent.cast_signed()).and_then(|first| Some((first, child(first)?)));
    until(async || both().is_some() && data_dir.join(files::TAINT).exists() && wal_files(data_dir) > 0).await;
    let (copies, streams) = both().unwrap();
    let process = |pid| Process::find(pid).unwrap().unwrap();
    (process(copies), process(streams))
}

/// Beside `archive_status`.
fn wal_files(data_dir: &Path) -> usize {
    std::fs::read_dir(data_dir.join("pg_wal"))
        .map_or(0, |files| files.flatten().filter(|it| it.path().is_file()).count())
}

#[tokio::test]
async fn what_an_agent_that_was_killed_has_left_is_ended_before_the_next_copy() {
    if let Ok(agent) = std::env::var(AGENT) {
        let (home, port) = agent.split_once(' ').unwrap();
        done(slowly(home.as_ref()).clone_from(&upstream(port.parse().unwrap()), &|_| ()).await);
        return;
    }
    let base = base();
    let old = Node::primary(base.path(), "old").await;
    let new = Node::new(base.path(), "new");
    let mut agent = std::process::Command::new(std::env::current_exe().unwrap());
    let agent = agent.args(["--exact", NAME]).env(AGENT, format!("{} {}", new.home.display(), old.upstream().port));
    let mut agent = agent.spawn().unwrap();
    let (copies, streams) = halves(agent.id(), &new.data_dir()).await;
    agent.kill().unwrap();
    agent.wait().unwrap();
    until(async || !copies.is_alive()).await;
    // Nobody tells the other one, and it writes on what the primary writes.
    let before = wal_files(&new.data_dir());
    for table in ["a", "b"] {
        old.run(&format!("CREATE TABLE {table} AS SELECT generate_series(1, 1000) AS n")).await;
        old.run("SELECT pg_switch_wal()").await;
    }
    until(async || wal_files(&new.data_dir()) > before).await;
    // Of what it misses then it might die by itself, or might not: as it is it would wake beside the next copy.
    streams.signal(Signal::STOP).unwrap();
    assert!(streams.is_alive());

    let outcome = new.postgres.clone_from(&old.upstream(), &|_| ()).await;
    let is_ended = !streams.is_alive();
    streams.signal(Signal::KILL).unwrap();
    done(outcome);
    assert!(is_ended, "it outlived the directory that it wrote into");
    assert!(matches!(new.postgres.observe_data().await, DataDir::Cluster(cluster) if cluster.tainted.is_none()));
}

#[tokio::test]
async fn a_copy_ends_as_a_whole() {
    let base = base();
    let old = Node::primary(base.path(), "old").await;
    let new = Node::new(base.path(), "new");
    let (postgres, source, data_dir) = (slowly(&new.home), old.upstream(), new.data_dir());
    // The order loses its lane.
    let (copies, streams) = tokio::select! {
        outcome = postgres.clone_from(&source, &|_| ()) => panic!("{outcome:?}"),
        both = halves(std::process::id(), &data_dir) => both,
    };
    until(async || !copies.is_alive() && !streams.is_alive()).await;

    // One of them is killed, as for want of memory: the other would hold the output open for ever.
    let killed = async {
        let (copies, streams) = halves(std::process::id(), &data_dir).await;
        copies.signal(Signal::KILL).unwrap();
        streams
    };
    let (outcome, streams) = tokio::join!(postgres.clone_from(&source, &|_| ()), killed);
    assert!(refused(outcome).contains("signal: 9"));
    assert!(!streams.is_alive());
    assert_eq!(new.postgres.observe_data().await, DataDir::Empty);
}
