//! The agent as the first process of a container: in a namespace of processes of its own.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use matriarch::processes::child_pids;
use matriarch_tests::single::{base, free_port, give};
use matriarch_tests::{Child, Ended, Process, eventually, matriarch, output_of};
use rustix::process::Signal;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(30);

/// A container without a store and without PostgreSQL: an agent that waits.
struct Container {
    first: Process,
    agent: Process,
    unshare: Child,
    base: TempDir,
}

impl Container {
    async fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT TESTED: a namespace of processes needs root");
            return None;
        }
        let (base, port) = (base(), free_port());
        give(base.path());
        let config = base.path().join("node.yml");
        let directory = base.path().display();
        let text = format!(
            "scope: box\nname: n1\nrestapi: {{listen: '127.0.0.1:{port}'}}\netcd3: {{host: '127.0.0.1:1'}}\n\
             matriarch: {{state_dir: {directory}/state}}\n\
             postgresql:\n  listen: 127.0.0.1:{}\n  data_dir: {directory}/data\n  authentication:\n    \
             replication: {{username: replicator, password: r}}\n    superuser: {{username: postgres, password: s}}\n",
            free_port()
        );
        std::fs::write(&config, text).unwrap();
        let said = std::fs::File::create(base.path().join("said")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]).arg(matriarch()).arg("run").arg(&config);
        command.stdout(said.try_clone().unwrap()).stderr(said);
        let unshare = Child::spawn(&mut command).unwrap();
        let said = || std::fs::read_to_string(base.path().join("said")).unwrap();
        let answers =
            async || TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|e| format!("{e}: {}", said()));
        eventually("the agent answers", LIMIT, answers).await;
        let first = Process(child_pids(unshare.process().0).unwrap()[0]);
        let agent = Process(child_pids(first.0).unwrap()[0]);
        Some(Self { first, agent, unshare, base })
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.base.path().join("said")).unwrap()
    }

    fn ends(&self) -> Option<Ended> {
        self.unshare.wait(LIMIT)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.first.signal(Signal::KILL);
    }
}

fn state(process: Process) -> Option<String> {
    let status = std::fs::read_to_string(Path::new("/proc").join(process.0.to_string()).join("status")).ok()?;
    status.lines().find(|line| line.starts_with("State:")).map(str::to_owned)
}

#[tokio::test]
async fn what_was_left_behind_is_reaped_and_a_stop_is_passed_on() {
    let Some(container) = Container::start().await else { return };
    // Its parent ends at once, and it becomes a child of the first process.
    let mut orphan = Command::new("nsenter");
    let target = container.first.0.to_string();
    orphan.args(["--pid", "--target", &target, "sh", "-c", "sleep 0.2 > /dev/null 2>&1 &"]);
    output_of(&mut orphan).unwrap();
    let reaped = async || match container.said() {
        said if said.contains("matriarch: reaped process ") => Ok(()),
        said => Err(said),
    };
    eventually("the orphan is reaped", LIMIT, reaped).await;
    for child in child_pids(container.first.0).unwrap() {
        assert!(!state(Process(child)).is_some_and(|state| state.contains('Z')), "a zombie is left");
    }
    container.first.signal(Signal::TERM);
    assert_eq!(container.ends(), Some(Ended::Exit(0)), "{}", container.said());
}

#[tokio::test]
async fn it_ends_as_its_agent_ends() {
    let Some(container) = Container::start().await else { return };
    container.agent.kill();
    assert_eq!(container.ends(), Some(Ended::Exit(137)), "{}", container.said());
}
