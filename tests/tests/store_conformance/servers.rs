//! Store servers as children of a test, which end with it.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use matriarch::net::Connector;
use matriarch::store::EtcdStore;
use matriarch_core::op::Outcome;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Long enough for a server that starts on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A free port of the loopback address.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server process with its data directory.
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) command: Command,
    child: Child,
    /// Deleted when the server is gone.
    dir: Option<TempDir>,
}

impl Server {
    /// A cluster of etcd members, each with its data directory.
    pub(crate) fn etcd(members: usize) -> Vec<Self> {
        let ports: Vec<(u16, u16)> = (0..members).map(|_| (free_port(), free_port())).collect();
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let cluster: Vec<String> =
            ports.iter().enumerate().map(|(n, (_, peer))| format!("m{n}={}", url(*peer))).collect();
        let start = |(n, (client, peer)): (usize, &(u16, u16))| {
            let dir = tempfile::tempdir().unwrap();
            let mut command = Command::new("etcd");
            command.args(["--name", &format!("m{n}"), "--log-level", "error"]);
            command.args(["--initial-cluster", &cluster.join(",")]).arg("--data-dir").arg(dir.path());
            for (flags, port) in [
                (["--listen-client-urls", "--advertise-client-urls"], *client),
                (["--listen-peer-urls", "--initial-advertise-peer-urls"], *peer),
            ] {
                for flag in flags {
                    command.args([flag, &url(port)]);
                }
            }
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut server = Self::spawn(format!("127.0.0.1:{client}"), command);
            server.dir = Some(dir);
            server
        };
        ports.iter().enumerate().map(start).collect()
    }

    /// The embedded store on a new data directory.
    pub(crate) fn embedded() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Self::embedded_on(dir.path());
        server.dir = Some(dir);
        server
    }

    /// The embedded store on a data directory.
    pub(crate) fn embedded_on(data: &Path) -> Self {
        let host = format!("127.0.0.1:{}", free_port());
        let command = embedded_command(&host, data);
        Self::spawn(host, command)
    }

    fn spawn(host: String, mut command: Command) -> Self {
        let child = command.spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {command:?} ({error}); tests/run installs etcd"));
        Self { host, command, child, dir: None }
    }

    /// Kills an embedded store and starts it again, on the same address and data.
    pub(crate) fn restart_embedded(&mut self, data: &Path) {
        self.kill();
        self.command = embedded_command(&self.host, data);
        self.start_again();
    }

    /// Starts what was killed again, on what it left.
    pub(crate) fn start_again(&mut self) {
        self.child = self.command.spawn().unwrap();
    }

    /// SIGSTOP, and waits until every thread stands still: the signal is one thread's first, and the others may go on
    /// for as long as that one waits for a processor.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        let stopped = |task: &Path| {
            let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
        };
        let tasks = format!("/proc/{}/task", self.child.id());
        while !std::fs::read_dir(&tasks).unwrap().all(|task| stopped(&task.unwrap().path())) {
            std::thread::yield_now();
        }
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

/// The embedded store in another process of this test's binary, since it has to be stopped and killed.
fn embedded_command(host: &str, data: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "embedded_store_of_a_test", "--nocapture"]);
    command.env("STORE_LISTEN", host).env("STORE_DATA", data);
    command.stdout(Stdio::null());
    command
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed by the test already.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(self.dir.take());
    }
}

/// An adapter for `hosts` that has an answer from one of them.
pub(crate) async fn connect(hosts: impl IntoIterator<Item = &str>) -> EtcdStore {
    let store = EtcdStore::new(hosts.into_iter().map(String::from).collect(), None, Connector::tcp(PATIENCE));
    let answer = store.read_key("ready", PATIENCE).await;
    assert!(matches!(answer, Outcome::Done(_)), "the store did not come up: {answer:?}");
    store
}
