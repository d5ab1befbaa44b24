//! One PostgreSQL without an agent, for the tests of its guard: what they order, and what they do to guard and server.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use matriarch::clock;
use matriarch::guard::{Guard, GuardOptions, Hello, Order, Report, connect_or_spawn};
use matriarch::processes::{DataDir, Process, child_pids};
use matriarch_core::id::LeaseId;
use matriarch_core::time::Instant;
use rustix::process::{Signal, getpid, set_child_subreaper};
use tempfile::TempDir;

use crate::tools;

/// The tenure that an agent process arms.
pub const TENURE: LeaseId = LeaseId(42);
/// For which a test waits for what should come at once.
const PATIENCE: Duration = Duration::from_mins(1);
/// Names the node's directory to a process that plays the agent.
const AGENT_NODE: &str = "GUARD_TEST_NODE";
const AGENT_ARMS_FOR_MS: &str = "GUARD_TEST_ARMS_FOR_MS";

/// The body of the process that plays an agent to be killed or frozen. Without its variable there is nothing to play.
/// A test binary that uses [`GuardedNode::agent`] has a test of the name `agent_process` that calls it.
pub fn agent_process() {
    let Ok(directory) = std::env::var(AGENT_NODE) else { return };
    let arms_for = Duration::from_millis(std::env::var(AGENT_ARMS_FOR_MS).unwrap().parse().unwrap());
    let options = options_from(&serde_json::from_slice(&fs::read(format!("{directory}/options")).unwrap()).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut guard, mut hello) = connect_or_spawn(&options).await.unwrap();
        let (pid, start_ticks) = postmaster_of(&options.data_dir).map_or((0, 0), |it| (it.pid, it.start_ticks));
        tell_postmaster(&mut guard, Process { pid, start_ticks }).await;
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
pub struct GuardedNode {
    directory: TempDir,
    /// How its guard is found and started.
    pub options: GuardOptions,
    server: Option<Child>,
}

impl GuardedNode {
    /// A node whose PostgreSQL does not run yet.
    pub fn prepare() -> Self {
        // Orphans come to us, and we never reap them: a zombie has to count as dead.
        set_child_subreaper(Some(getpid())).unwrap();
        let directory = tempfile::Builder::new().prefix("guard").tempdir_in("/tmp").unwrap();
        give(directory.path());
        let released = directory.path().join("released");
        let options = GuardOptions {
            exe: tools::matriarch(),
            state_dir: directory.path().join("state"),
            data_dir: directory.path().join("data"),
            agent_uid: rustix::process::geteuid().as_raw(),
            restart_grace: Duration::from_millis(300),
            release_command: shell(&format!("echo {{tenure}} >> {}", released.display())),
            strict: false,
        };
        Self { directory, options, server: None }
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts PostgreSQL and waits until it serves.
    pub fn start(&mut self) {
        self.make_data();
        let data = self.options.data_dir.clone();
        if let Some(mut server) = self.server.take() {
            server.wait().unwrap();
        }
        let server = self.server_command().spawn().unwrap();
        let pid = server.id().to_string();
        self.server = Some(server);
        until(|| {
            let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            text.lines().next() == Some(&pid) && text.contains("ready")
        });
    }

    fn make_data(&self) {
        if !self.options.data_dir.exists() {
            let copied = Command::new("cp").arg("-a").args([template(), &self.options.data_dir]).status().unwrap();
            assert!(copied.success());
        }
    }

    fn server_command(&self) -> Command {
        let log = fs::File::create(self.path("postgresql.log")).unwrap();
        let mut command = as_postgres(&tool("postgres"));
        command.arg("-D").arg(&self.options.data_dir);
        command.args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=50", "-k"]);
        command.arg(self.directory.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    /// Starts PostgreSQL as the child of another process that ends only by a signal, and has the kernel kill the
    /// postmaster with it; that process and the postmaster.
    pub fn start_below_a_parent(&self) -> (Child, Process) {
        self.make_data();
        let command = self.server_command();
        let mut parent = Command::new("/bin/sh");
        parent.args(["-c", "\"$@\" & wait", "sh", "setpriv", "--pdeathsig", "KILL"]);
        if let Some(user) = postgres_user() {
            parent.args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid), "--clear-groups".into()]);
        }
        let parent = parent.arg(command.get_program()).args(command.get_args()).current_dir("/").spawn().unwrap();
        until(|| {
            let text = fs::read_to_string(self.options.data_dir.join("postmaster.pid")).unwrap_or_default();
            text.contains("ready")
        });
        (parent, postmaster_of(&self.options.data_dir).unwrap())
    }

    /// SIGKILL to every process of PostgreSQL until there is none.
    pub fn kill_server(&self) {
        until(|| {
            let alive = self.alive();
            for process in alive.iter().filter_map(|pid| Process::find(*pid).ok()?) {
                process.signal(Signal::KILL).ok();
            }
            alive.is_empty()
        });
        // Its postmaster is a zombie of ours, which the next one would take for a server.
        for lock in [self.options.data_dir.join("postmaster.pid"), self.path(".s.PGSQL.5432.lock")] {
            fs::remove_file(lock).ok();
        }
    }

    /// The successor of the guard with this process id.
    pub fn successor(&self, guard: i32) -> Option<Process> {
        let children = child_pids(guard).unwrap().into_iter().filter_map(|pid| Process::find(pid).unwrap());
        children.filter(|it| it.is_alive()).find(|it| {
            fs::read_to_string(format!("/proc/{}/comm", it.pid)).is_ok_and(|name| name == "guard-successor\n")
        })
    }

    /// The server's process, also after its end: it is not reaped.
    pub fn postmaster(&self) -> Process {
        Process::find(self.server.as_ref().unwrap().id().cast_signed()).unwrap().unwrap()
    }

    /// The pids of PostgreSQL that are alive.
    pub fn alive(&self) -> Vec<i32> {
        alive_in(&self.options.data_dir)
    }

    /// A connection to PostgreSQL.
    pub async fn client(&self) -> tokio_postgres::Client {
        connect_to(self.directory.path()).await
    }

    /// A connection to its guard, which is started if there is none.
    pub async fn connect(&self) -> (Guard, Hello) {
        connect_or_spawn(&self.options).await.unwrap()
    }

    /// Tells the guard of the postmaster.
    pub async fn watch(&self, guard: &mut Guard) {
        tell_postmaster(guard, self.postmaster()).await;
    }

    /// Another process as the agent, armed for `arms_for` from its start unless that is zero.
    pub fn agent(&self, arms_for: Duration) -> (Child, Hello) {
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

    /// What the release command has written.
    pub fn released(&self) -> String {
        fs::read_to_string(self.path("released")).unwrap_or_default()
    }

    /// What `pg_controldata` says.
    pub fn control_data(&self) -> String {
        let output = as_postgres(&tool("pg_controldata")).arg(&self.options.data_dir).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Guards and whatever else was started with a path of this node in its arguments.
    pub fn helpers(&self) -> Vec<Process> {
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

impl Drop for GuardedNode {
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
pub struct Commit {
    /// When it was asked for.
    pub sent: Instant,
    /// When it was acknowledged.
    pub heard: Instant,
}

/// What one client was told, and how it ended.
type Told = (Vec<Commit>, Option<String>);

/// Clients that commit as fast as they can, each noting every acknowledgement.
pub struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    clients: JoinHandle<Vec<Told>>,
}

impl Load {
    /// Starts `clients` clients and waits until they commit.
    pub fn start(node: &GuardedNode, clients: usize) -> Self {
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

    /// Commits that were acknowledged.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits for so many commits.
    pub fn wait_for(&self, count: u64) {
        until(|| self.count() >= count);
    }

    /// Waits until every client's connection has broken: every acknowledgement that any of them got.
    pub fn broken(self) -> Vec<Commit> {
        let results = self.clients.join().unwrap();
        assert!(results.iter().all(|(_, error)| error.is_some()));
        results.into_iter().flat_map(|(commits, _)| commits).collect()
    }

    /// Ends the load, during which no client may have seen an error.
    pub fn finish(self) {
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

async fn tell_postmaster(guard: &mut Guard, Process { pid, start_ticks }: Process) {
    let report = ask(guard, Order::Postmaster { pid, start_ticks }).await;
    assert!(matches!(report, Report::Watching { pid: watched, .. } if watched == pid), "{report:?}");
}

/// Gives an order and waits for a report.
pub async fn ask(guard: &mut Guard, order: Order) -> Report {
    guard.send(order).unwrap();
    next(guard).await
}

/// Waits for the next report.
pub async fn next(guard: &mut Guard) -> Report {
    tokio::time::timeout(PATIENCE, guard.reports.recv()).await.expect("no report").expect("no guard")
}

/// Waits until it is so.
#[track_caller]
pub fn until(mut done: impl FnMut() -> bool) {
    let begun = clock::now();
    while !done() {
        assert!(clock::now().since(begun) < PATIENCE, "it does not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until it is so.
pub async fn until_async(done: impl AsyncFn() -> bool) {
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

/// A command line for a shell.
pub fn shell(script: &str) -> Vec<String> {
    vec!["/bin/sh".into(), "-c".into(), script.into()]
}

/// A program of PostgreSQL.
pub fn tool(name: &str) -> PathBuf {
    let path = tools::postgres_bin_dir().join(name);
    assert!(path.exists(), "{} is missing: install PostgreSQL, or set MATRIARCH_TEST_PGBIN", path.display());
    path
}

fn postgres_user() -> Option<nix::unistd::User> {
    // PostgreSQL refuses to run as root.
    let is_root = rustix::process::geteuid().is_root();
    is_root.then(|| nix::unistd::User::from_name("postgres").unwrap().expect("a user postgres"))
}

/// A command as an account that PostgreSQL does not refuse.
pub fn as_postgres(program: &Path) -> Command {
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
        "release_command": options.release_command, "strict": options.strict,
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
        strict: value["strict"].as_bool().unwrap(),
    }
}
