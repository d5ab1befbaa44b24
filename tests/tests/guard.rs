//! The guard against a real PostgreSQL: nothing is acknowledged after the end of authority, and nothing is killed that
//! has the right to live.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use matriarch::clock;
use matriarch::guard::processes::{DataDir, Process};
use matriarch::guard::{Armed, Guard, GuardOptions, Hello, Order, Report, connect_or_spawn};
use matriarch_core::id::LeaseId;
use matriarch_core::time::Instant;
use rustix::process::{Signal, getpid, set_child_subreaper};
use tempfile::TempDir;

const TENURE: LeaseId = LeaseId(42);
const PATIENCE: Duration = Duration::from_mins(1);
const NOBODY: [i32; 0] = [];
const FAR: Duration = Duration::from_mins(10);
/// Names the node's directory to a process that plays the agent.
const AGENT_NODE: &str = "GUARD_TEST_NODE";
const AGENT_ARMS_FOR_MS: &str = "GUARD_TEST_ARMS_FOR_MS";

// ---------------------------------------------------------------------------------------------------------------------
// The fence

#[tokio::test]
async fn nothing_is_acknowledged_after_the_fence() {
    let mut node = Node::new();
    node.start();
    let load = Load::start(&node, 10);
    let (mut guard, _) = node.connect().await;
    node.watch(&mut guard).await;
    let at = clock::now() + Duration::from_secs(1);
    assert_eq!(
        ask(&mut guard, Order::Arm { tenure: TENURE, at, instead_of: None }).await,
        Report::Armed(Armed { tenure: TENURE, at })
    );
    let Report::Fired(fired) = next(&mut guard).await else { panic!("not fired") };
    assert_eq!(node.alive(), NOBODY, "alive after the guard said that all are dead");
    assert_eq!(fired.tenure, Some(TENURE));
    assert!(fired.all_dead_at >= at);
    assert!(fired.processes > 10);
    let acknowledged = load.broken();
    assert!(acknowledged.len() > 100, "only {} commits before the fence", acknowledged.len());
    assert!(acknowledged.iter().all(|commit| commit.sent < fired.all_dead_at));

    // What the next tenure starts is not the fence's to kill, and the spent one is not armed again.
    node.start();
    node.watch(&mut guard).await;
    let at = clock::now() + FAR;
    assert!(matches!(
        ask(&mut guard, Order::Arm { tenure: TENURE, at, instead_of: None }).await,
        Report::Refused { .. }
    ));
    let tenure = LeaseId(43);
    assert_eq!(ask(&mut guard, Order::Arm { tenure, at, instead_of: None }).await, Report::Armed(Armed { tenure, at }));
    assert!(node.alive().len() > 3);
}

#[tokio::test]
async fn a_postmaster_that_is_stopped_dies_too() {
    let mut node = Node::new();
    node.start();
    let load = Load::start(&node, 4);
    let (mut guard, _) = node.connect().await;
    node.watch(&mut guard).await;
    let at = clock::now() + Duration::from_secs(1);
    ask(&mut guard, Order::Arm { tenure: TENURE, at, instead_of: None }).await;
    node.postmaster().signal(Signal::STOP).unwrap();
    let Report::Fired(fired) = next(&mut guard).await else { panic!("not fired") };
    assert_eq!(node.alive(), NOBODY);
    assert!(load.broken().iter().all(|commit| commit.sent < fired.all_dead_at));
}

#[tokio::test]
async fn a_postmaster_nobody_told_of_dies_too() {
    let mut node = Node::new();
    node.start();
    let (mut guard, _) = node.connect().await;
    assert!(node.alive().len() > 3);
    let Report::Fired(fired) = ask(&mut guard, Order::Fire { why: "test".into() }).await else { panic!("not fired") };
    assert_eq!((fired.tenure, node.alive()), (None, NOBODY.to_vec()));
}

#[tokio::test]
async fn orphans_are_killed_but_not_while_their_postmaster_lives() {
    let mut node = Node::new();
    node.start();
    let (mut guard, _) = node.connect().await;
    node.watch(&mut guard).await;
    assert!(matches!(ask(&mut guard, Order::KillOrphans).await, Report::Refused { .. }));
    let client = node.client().await;
    let endless = "do $$ begin loop insert into t values (1); commit; end loop; end $$";
    let statement = tokio::spawn(async move { client.batch_execute(endless).await });
    let observer = node.client().await;
    until_async(async || observer.query_one("select count(*) from t", &[]).await.unwrap().get::<_, i64>(0) > 10).await;
    node.postmaster().signal(Signal::KILL).unwrap();
    until(|| !node.postmaster().is_alive());
    assert!(!node.alive().is_empty(), "the backend that commits in a loop outlives its postmaster");
    // The guard refuses as long as it has not seen the postmaster's end itself; an agent asks again.
    let report = loop {
        match ask(&mut guard, Order::KillOrphans).await {
            Report::Refused { .. } => tokio::time::sleep(Duration::from_millis(5)).await,
            report => break report,
        }
    };
    let Report::OrphansDead { processes } = report else { panic!("not dead: {report:?}") };
    assert!(processes >= 1);
    assert_eq!(node.alive(), NOBODY);
    assert!(statement.await.unwrap().is_err());
    assert_eq!(ask(&mut guard, Order::KillOrphans).await, Report::OrphansDead { processes: 0 });
    node.start();
}

#[tokio::test]
async fn a_hold_is_noticed_by_no_client() {
    let mut node = Node::new();
    node.start();
    let (mut guard, _) = node.connect().await;
    node.watch(&mut guard).await;
    assert!(matches!(ask(&mut guard, Order::Hold).await, Report::Refused { .. }), "nothing would end it");
    let at = clock::now() + FAR;
    ask(&mut guard, Order::Arm { tenure: TENURE, at, instead_of: None }).await;
    let load = Load::start(&node, 8);
    load.wait_for(load.count() + 200);
    let Report::Held { processes, .. } = ask(&mut guard, Order::Hold).await else { panic!("not held") };
    assert!(processes > 8);
    // Replies that were under way may still be read; then nothing comes.
    let mut before = load.count();
    until(|| {
        std::thread::sleep(Duration::from_millis(200));
        std::mem::replace(&mut before, load.count()) == load.count()
    });
    assert!(matches!(ask(&mut guard, Order::Disarm { tenure: TENURE }).await, Report::Refused { .. }));
    assert_eq!(load.count(), before, "a commit was acknowledged while everything was held");
    assert_eq!(ask(&mut guard, Order::Resume).await, Report::Resumed);
    load.wait_for(before + 200);
    load.finish();
}

#[tokio::test]
async fn what_is_held_is_killed_at_the_end_of_authority() {
    let mut node = Node::new();
    node.start();
    let (mut guard, _) = node.connect().await;
    node.watch(&mut guard).await;
    let at = clock::now() + Duration::from_secs(1);
    ask(&mut guard, Order::Arm { tenure: TENURE, at, instead_of: None }).await;
    assert!(matches!(ask(&mut guard, Order::Hold).await, Report::Held { .. }));
    assert!(matches!(next(&mut guard).await, Report::Fired(fired) if fired.all_dead_at >= at));
    assert_eq!(node.alive(), NOBODY);
}

#[tokio::test]
async fn orphans_are_not_resumed_without_their_postmaster() {
    let mut node = Node::new();
    node.start();
    let (mut guard, _) = node.connect().await;
    node.watch(&mut guard).await;
    let at = clock::now() + FAR;
    ask(&mut guard, Order::Arm { tenure: TENURE, at, instead_of: None }).await;
    assert!(matches!(ask(&mut guard, Order::Hold).await, Report::Held { .. }));
    node.postmaster().signal(Signal::KILL).unwrap();
    until(|| !node.postmaster().is_alive());
    assert!(matches!(ask(&mut guard, Order::Resume).await, Report::Refused { .. }));
    assert!(matches!(ask(&mut guard, Order::Fire { why: "test".into() }).await, Report::Fired(_)));
    assert_eq!(node.alive(), NOBODY);
}

// ---------------------------------------------------------------------------------------------------------------------
// The agent's death and silence

#[tokio::test]
async fn a_dead_agent_has_its_tenure_given_back_once_after_a_clean_shutdown() {
    let mut node = Node::new();
    node.start();
    let (mut agent, hello) = node.agent(FAR);
    let guard = Process::find(hello.pid).unwrap().unwrap();
    agent.kill().unwrap();
    until(|| !guard.is_alive());
    assert_eq!(node.alive(), NOBODY);
    assert_eq!(node.released(), "42\n");
    assert!(node.control_data().contains("shut down\n"), "{}", node.control_data());
    agent.wait().unwrap();
}

#[tokio::test]
async fn a_release_that_fails_is_tried_again() {
    let mut node = Node::new();
    node.options.release_command =
        shell(&format!("echo {{tenure}} >> {0}; test $(wc -l < {0}) -ge 3", node.path("released").display()));
    node.start();
    let (mut agent, hello) = node.agent(FAR);
    let guard = Process::find(hello.pid).unwrap().unwrap();
    agent.kill().unwrap();
    until(|| !guard.is_alive());
    assert_eq!(node.released(), "42\n42\n42\n");
    agent.wait().unwrap();
}

#[tokio::test]
async fn an_agent_that_is_back_within_the_grace_finds_everything_as_it_was() {
    let mut node = Node::new();
    node.options.restart_grace = Duration::from_secs(2);
    node.start();
    let (mut agent, first) = node.agent(FAR);
    agent.kill().unwrap();
    let (guard, hello) = node.connect().await;
    agent.wait().unwrap();
    assert_eq!(hello.pid, first.pid);
    assert_eq!(hello.armed, first.armed);
    assert!(hello.armed.is_some_and(|armed| armed.tenure == TENURE));
    assert_eq!(hello.fired, None);
    tokio::time::sleep(node.options.restart_grace + Duration::from_millis(500)).await;
    node.client().await.batch_execute("insert into t values (1)").await.unwrap();
    assert!(node.postmaster().is_alive());
    assert_eq!(node.released(), "");
    drop(guard);
}

#[tokio::test]
async fn a_frozen_agent_is_fenced_at_the_end_of_authority_and_keeps_its_lease() {
    let mut node = Node::new();
    node.start();
    let load = Load::start(&node, 4);
    let (mut agent, first) = node.agent(Duration::from_secs(1));
    let armed = first.armed.unwrap();
    let frozen = Process::find(agent.id().cast_signed()).unwrap().unwrap();
    frozen.signal(Signal::STOP).unwrap();
    let acknowledged = load.broken();
    until(|| node.alive().is_empty());
    let (guard, hello) = node.connect().await;
    let fired = hello.fired.unwrap();
    assert_eq!((hello.pid, fired.tenure, hello.armed), (first.pid, Some(TENURE), None));
    assert!(fired.all_dead_at >= armed.at);
    assert!(acknowledged.iter().all(|commit| commit.sent < fired.all_dead_at));
    assert!(acknowledged.iter().any(|commit| commit.heard > armed.at.back(Duration::from_millis(500))));
    assert_eq!(node.released(), "");
    agent.kill().unwrap();
    agent.wait().unwrap();
    drop(guard);
}

#[tokio::test]
async fn a_standby_is_left_alone_when_its_agent_dies() {
    let mut node = Node::new();
    node.start();
    let (mut agent, hello) = node.agent(Duration::ZERO);
    let guard = Process::find(hello.pid).unwrap().unwrap();
    agent.kill().unwrap();
    until(|| !guard.is_alive());
    node.client().await.batch_execute("insert into t values (1)").await.unwrap();
    assert_eq!(node.released(), "");
    agent.wait().unwrap();
}

// ---------------------------------------------------------------------------------------------------------------------
// Orders

#[tokio::test]
async fn arming_only_grows_and_only_for_one_tenure() {
    let node = Node::new();
    let (mut guard, hello) = node.connect().await;
    assert_eq!((hello.armed, hello.held, hello.fired), (None, false, None));
    let at = clock::now() + FAR;
    let armed = Report::Armed(Armed { tenure: TENURE, at });
    assert_eq!(ask(&mut guard, Order::Arm { tenure: TENURE, at, instead_of: None }).await, armed);
    let sooner = at.back(Duration::from_mins(1));
    assert_eq!(ask(&mut guard, Order::Arm { tenure: TENURE, at: sooner, instead_of: None }).await, armed);
    let past = clock::now();
    assert!(matches!(
        ask(&mut guard, Order::Arm { tenure: TENURE, at: past, instead_of: None }).await,
        Report::Refused { .. }
    ));
    let other = LeaseId(43);
    assert!(matches!(
        ask(&mut guard, Order::Arm { tenure: other, at, instead_of: None }).await,
        Report::Refused { .. }
    ));
    assert!(matches!(ask(&mut guard, Order::Disarm { tenure: other }).await, Report::Refused { .. }));
    assert!(matches!(ask(&mut guard, Order::Retire).await, Report::Refused { .. }));
    assert_eq!(ask(&mut guard, Order::Disarm { tenure: TENURE }).await, Report::Disarmed { tenure: TENURE });
    let armed = Report::Armed(Armed { tenure: other, at });
    assert_eq!(ask(&mut guard, Order::Arm { tenure: other, at, instead_of: None }).await, armed);
    assert_eq!(ask(&mut guard, Order::Disarm { tenure: other }).await, Report::Disarmed { tenure: other });
    assert_eq!(ask(&mut guard, Order::Retire).await, Report::Gone);
}

#[tokio::test]
async fn a_later_agent_supersedes_an_earlier_one() {
    let node = Node::new();
    let (mut first, hello) = node.connect().await;
    let (mut second, again) = node.connect().await;
    assert_eq!(hello.pid, again.pid);
    assert!(matches!(next(&mut first).await, Report::Superseded { .. }));
    assert!(first.reports.recv().await.is_none());
    assert_eq!(ask(&mut second, Order::Postmaster { pid: 0, start_ticks: 0 }).await, Report::Watching { pid: 0 });
}

#[tokio::test]
async fn a_foreign_user_gives_no_orders() {
    let node = Node::new();
    let (mut guard, _) = node.connect().await;
    let at = clock::now() + FAR;
    let armed = Report::Armed(Armed { tenure: TENURE, at });
    assert_eq!(ask(&mut guard, Order::Arm { tenure: TENURE, at, instead_of: None }).await, armed);
    assert!(rustix::process::geteuid().is_root(), "this test needs root to become another user");
    // The directory alone keeps others out; here the credentials have to.
    for path in [node.directory.path(), &node.options.state_dir] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let script = "import socket,sys\ns=socket.socket(socket.AF_UNIX);s.connect(sys.argv[1])\n\
                  try:\n s.sendall(b'{\"Hello\":{\"protocol\":1}}\\n\"Retire\"\\n');print(len(s.recv(99)))\n\
                  except OSError: print(0)";
    let foreign = Command::new("python3")
        .args(["-c", script])
        .arg(node.options.state_dir.join("guard.sock"))
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&foreign.stdout), "0\n", "{}", String::from_utf8_lossy(&foreign.stderr));
    assert_eq!(
        ask(&mut guard, Order::Arm { tenure: TENURE, at, instead_of: None }).await,
        armed,
        "the agent is the agent still"
    );
}

#[tokio::test]
async fn a_guard_executes_itself_anew_and_fences_in_time() {
    let mut node = Node::new();
    node.start();
    let (mut guard, hello) = node.connect().await;
    node.watch(&mut guard).await;
    let at = clock::now() + Duration::from_secs(4);
    ask(&mut guard, Order::Arm { tenure: TENURE, at, instead_of: None }).await;
    let process = Process::find(hello.pid).unwrap().unwrap();
    process.signal(Signal::USR2).unwrap();
    let Report::Hello(again) = next(&mut guard).await else { panic!("no hello") };
    assert_eq!((again.pid, again.armed), (hello.pid, Some(Armed { tenure: TENURE, at })));
    let command = fs::read_to_string(format!("/proc/{}/cmdline", hello.pid)).unwrap();
    assert!(command.contains("--carried"), "it did not execute itself anew: {command}");
    assert!(matches!(next(&mut guard).await, Report::Fired(fired) if fired.all_dead_at >= at));
    assert_eq!(node.alive(), NOBODY);
    assert_eq!(Process::find(hello.pid).unwrap(), Some(process), "the same process");
}

#[tokio::test]
async fn a_signal_ends_a_guard_only_when_nothing_is_armed() {
    let node = Node::new();
    let (mut guard, hello) = node.connect().await;
    let at = clock::now() + FAR;
    let arm = Order::Arm { tenure: TENURE, at, instead_of: None };
    ask(&mut guard, arm.clone()).await;
    let process = Process::find(hello.pid).unwrap().unwrap();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        process.signal(signal).unwrap();
    }
    assert_eq!(ask(&mut guard, arm).await, Report::Armed(Armed { tenure: TENURE, at }));
    assert!(process.is_alive());
    ask(&mut guard, Order::Disarm { tenure: TENURE }).await;
    process.signal(Signal::TERM).unwrap();
    assert_eq!(next(&mut guard).await, Report::Gone);
    assert!(guard.reports.recv().await.is_none());
}

#[tokio::test]
async fn a_guard_that_was_killed_is_reported_and_replaced() {
    let mut node = Node::new();
    // Longer than the path of a Unix socket may be.
    node.options.state_dir = node.path(&"long/".repeat(30));
    let (mut guard, hello) = node.connect().await;
    Process::find(hello.pid).unwrap().unwrap().signal(Signal::KILL).unwrap();
    assert_eq!(next(&mut guard).await, Report::Gone);
    let (mut guard, again) = node.connect().await;
    assert_ne!(hello.pid, again.pid);
    assert_eq!(ask(&mut guard, Order::Retire).await, Report::Gone);
}

// ---------------------------------------------------------------------------------------------------------------------
// The harness

/// Not a test of its own: the body of the process that plays an agent to be killed or frozen. Without its variable there
/// is nothing to play.
#[test]
fn agent_process() {
    let Ok(directory) = std::env::var(AGENT_NODE) else { return };
    let arms_for = Duration::from_millis(std::env::var(AGENT_ARMS_FOR_MS).unwrap().parse().unwrap());
    let options = options_from(&serde_json::from_slice(&fs::read(format!("{directory}/options")).unwrap()).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut guard, mut hello) = connect_or_spawn(&options).await.unwrap();
        let (pid, start_ticks) = postmaster_of(&options.data_dir).map_or((0, 0), |it| (it.pid, it.start_ticks));
        assert_eq!(ask(&mut guard, Order::Postmaster { pid, start_ticks }).await, Report::Watching { pid });
        if !arms_for.is_zero() {
            let at = clock::now() + arms_for;
            let Report::Armed(armed) = ask(&mut guard, Order::Arm { tenure: TENURE, at, instead_of: None }).await
            else {
                panic!()
            };
            hello.armed = Some(armed);
        }
        let ready = format!("{directory}/ready");
        fs::write(format!("{ready}.new"), serde_json::to_vec(&hello).unwrap()).unwrap();
        fs::rename(format!("{ready}.new"), ready).unwrap();
        std::future::pending::<()>().await;
    });
}

/// One PostgreSQL with a place for its guard. Dropping it kills everything.
struct Node {
    directory: TempDir,
    options: GuardOptions,
    server: Option<Child>,
}

impl Node {
    fn new() -> Self {
        // Orphans come to us, and we never reap them: a zombie has to count as dead.
        set_child_subreaper(Some(getpid())).unwrap();
        let directory = tempfile::Builder::new().prefix("guard").tempdir_in("/tmp").unwrap();
        give(directory.path());
        let released = directory.path().join("released");
        let options = GuardOptions {
            exe: binary(),
            state_dir: directory.path().join("state"),
            data_dir: directory.path().join("data"),
            agent_uid: rustix::process::geteuid().as_raw(),
            restart_grace: Duration::from_millis(300),
            release_command: shell(&format!("echo {{tenure}} >> {}", released.display())),
        };
        Self { directory, options, server: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts PostgreSQL and waits until it serves.
    fn start(&mut self) {
        let data = self.options.data_dir.clone();
        if !data.exists() {
            let copied = Command::new("cp").arg("-a").args([template(), &data]).status().unwrap();
            assert!(copied.success());
        }
        if let Some(mut server) = self.server.take() {
            server.wait().unwrap();
        }
        let log = fs::File::create(self.path("postgresql.log")).unwrap();
        let server = as_postgres(&tool("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=50", "-k"])
            .arg(self.directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let pid = server.id().to_string();
        self.server = Some(server);
        until(|| {
            let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            text.lines().next() == Some(&pid) && text.contains("ready")
        });
    }

    /// The server's process, also after its end: it is not reaped.
    fn postmaster(&self) -> Process {
        Process::find(self.server.as_ref().unwrap().id().cast_signed()).unwrap().unwrap()
    }

    fn alive(&self) -> Vec<i32> {
        alive_in(&self.options.data_dir)
    }

    async fn client(&self) -> tokio_postgres::Client {
        connect_to(self.directory.path()).await
    }

    async fn connect(&self) -> (Guard, Hello) {
        connect_or_spawn(&self.options).await.unwrap()
    }

    async fn watch(&self, guard: &mut Guard) {
        let Process { pid, start_ticks } = self.postmaster();
        assert_eq!(ask(guard, Order::Postmaster { pid, start_ticks }).await, Report::Watching { pid });
    }

    /// Another process as the agent, armed for `arms_for` from its start unless that is zero.
    fn agent(&self, arms_for: Duration) -> (Child, Hello) {
        fs::write(self.path("options"), options_to(&self.options).to_string()).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "agent_process", "--nocapture"])
            .env(AGENT_NODE, self.directory.path())
            .env(AGENT_ARMS_FOR_MS, arms_for.as_millis().to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        until(|| self.path("ready").exists());
        (child, serde_json::from_slice(&fs::read(self.path("ready")).unwrap()).unwrap())
    }

    fn released(&self) -> String {
        fs::read_to_string(self.path("released")).unwrap_or_default()
    }

    fn control_data(&self) -> String {
        let output = as_postgres(&tool("pg_controldata")).arg(&self.options.data_dir).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Guards and whatever else was started with a path of this node in its arguments.
    fn helpers(&self) -> Vec<Process> {
        let mark = self.directory.path().as_os_str().as_encoded_bytes();
        let named = |pid: i32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.windows(mark.len()).any(|part| part == mark)
        };
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| named(*pid)).filter_map(|pid| Process::find(pid).ok()?).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.options.state_dir.join("guard.log")).unwrap_or_default());
        }
        let servers = self.alive().into_iter().filter_map(|pid| Process::find(pid).ok()?);
        for process in self.helpers().into_iter().chain(servers) {
            process.signal(Signal::KILL).ok();
        }
        if let Some(mut server) = self.server.take() {
            server.wait().ok();
        }
    }
}

/// A commit that a client was told of.
struct Commit {
    sent: Instant,
    heard: Instant,
}

/// What one client was told, and how it ended.
type Told = (Vec<Commit>, Option<String>);

/// Clients that commit as fast as they can, each noting every acknowledgement.
struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    clients: JoinHandle<Vec<Told>>,
}

impl Load {
    fn start(node: &Node, clients: usize) -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopping, counting, host) = (stop.clone(), count.clone(), node.directory.path().to_owned());
        let clients = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let tasks: Vec<_> = (0..clients)
                    .map(|_| tokio::spawn(commit_until(host.clone(), stopping.clone(), counting.clone())))
                    .collect();
                let mut results = Vec::new();
                for task in tasks {
                    results.push(task.await.unwrap());
                }
                results
            })
        });
        let load = Self { stop, count, clients };
        load.wait_for(50);
        load
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    fn wait_for(&self, count: u64) {
        until(|| self.count() >= count);
    }

    /// Waits until every client's connection has broken: every acknowledgement that any of them got.
    fn broken(self) -> Vec<Commit> {
        let results = self.clients.join().unwrap();
        assert!(results.iter().all(|(_, error)| error.is_some()));
        results.into_iter().flat_map(|(commits, _)| commits).collect()
    }

    /// Ends the load, during which no client may have seen an error.
    fn finish(self) {
        self.stop.store(true, Ordering::SeqCst);
        for (_, error) in self.clients.join().unwrap() {
            assert_eq!(error, None);
        }
    }
}

async fn commit_until(host: PathBuf, stop: Arc<AtomicBool>, count: Arc<AtomicU64>) -> Told {
    let client = connect_to(&host).await;
    let mut commits = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let sent = clock::now();
        if let Err(error) = client.batch_execute("insert into t values (7)").await {
            return (commits, Some(error.to_string()));
        }
        commits.push(Commit { sent, heard: clock::now() });
        count.fetch_add(1, Ordering::SeqCst);
    }
    (commits, None)
}

async fn connect_to(host: &Path) -> tokio_postgres::Client {
    let config = format!("host={} user=postgres dbname=postgres", host.display());
    let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn ask(guard: &mut Guard, order: Order) -> Report {
    guard.send(order).unwrap();
    next(guard).await
}

async fn next(guard: &mut Guard) -> Report {
    tokio::time::timeout(PATIENCE, guard.reports.recv()).await.expect("no report").expect("no guard")
}

fn until(mut done: impl FnMut() -> bool) {
    let begun = clock::now();
    while !done() {
        assert!(clock::now().since(begun) < PATIENCE, "it does not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

async fn until_async(done: impl AsyncFn() -> bool) {
    let begun = clock::now();
    while !done().await {
        assert!(clock::now().since(begun) < PATIENCE, "it does not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn alive_in(data_dir: &Path) -> Vec<i32> {
    DataDir::new(data_dir).members(None).unwrap().into_iter().map(|member| member.process.pid).collect()
}

fn postmaster_of(data_dir: &Path) -> Option<Process> {
    let text = fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    Process::find(text.lines().next()?.parse().ok()?).unwrap()
}

fn shell(script: &str) -> Vec<String> {
    vec!["/bin/sh".into(), "-c".into(), script.into()]
}

/// The binary that `cargo build -p matriarch` leaves beside the tests' directory.
fn binary() -> PathBuf {
    let me = std::env::current_exe().unwrap();
    let path = me.parent().and_then(Path::parent).unwrap().join("matriarch");
    assert!(path.exists(), "{} is missing: cargo build -p matriarch", path.display());
    path
}

fn tool(name: &str) -> PathBuf {
    let directory = std::env::var("MATRIARCH_TEST_PGBIN").unwrap_or_else(|_| "/usr/lib/postgresql/15/bin".into());
    let path = Path::new(&directory).join(name);
    assert!(
        path.exists(),
        "{} is missing: install PostgreSQL or set MATRIARCH_TEST_PGBIN to its bin directory",
        path.display()
    );
    path
}

fn postgres_user() -> Option<nix::unistd::User> {
    // PostgreSQL refuses to run as root.
    let is_root = rustix::process::geteuid().is_root();
    is_root.then(|| nix::unistd::User::from_name("postgres").unwrap().expect("a user postgres"))
}

fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some(user) = postgres_user() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command.current_dir("/");
    command
}

fn give(path: &Path) {
    if let Some(user) = postgres_user() {
        std::os::unix::fs::chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
}

/// A cluster with the table that the load writes to, made once.
fn template() -> &'static PathBuf {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let directory = std::env::temp_dir().join("matriarch-guard-template");
        let data = directory.join(std::process::id().to_string());
        fs::create_dir_all(&data).unwrap();
        remove_old_templates(&directory);
        give(&data);
        let made = as_postgres(&tool("initdb"))
            .args(["-N", "-A", "trust", "-U", "postgres", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        let mut single = as_postgres(&tool("postgres"))
            .args(["--single", "-D"])
            .arg(&data)
            .arg("postgres")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut single.stdin.take().unwrap(), b"create table t (i int)\n").unwrap();
        assert!(single.wait().unwrap().success());
        data
    })
}

/// A static is never dropped, so each run clears away what earlier ones left.
fn remove_old_templates(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let owner = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        if owner.is_none_or(|pid| Process::find(pid).unwrap().is_none()) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

fn options_to(options: &GuardOptions) -> serde_json::Value {
    serde_json::json!({
        "exe": options.exe, "state_dir": options.state_dir, "data_dir": options.data_dir,
        "agent_uid": options.agent_uid, "restart_grace_ms": options.restart_grace.as_millis() as u64,
        "release_command": options.release_command,
    })
}

fn options_from(value: &serde_json::Value) -> GuardOptions {
    let path = |key: &str| PathBuf::from(value[key].as_str().unwrap());
    GuardOptions {
        exe: path("exe"),
        state_dir: path("state_dir"),
        data_dir: path("data_dir"),
        agent_uid: value["agent_uid"].as_u64().unwrap() as u32,
        restart_grace: Duration::from_millis(value["restart_grace_ms"].as_u64().unwrap()),
        release_command: serde_json::from_value(value["release_command"].clone()).unwrap(),
    }
}
