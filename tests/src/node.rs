//! One node: an agent, its guard, its PostgreSQL, and what can be asked of them and done to them.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use matriarch::http;
use matriarch::net::Connector;
use matriarch::tls::Speaks;
use serde_json::Value;
use tokio_postgres::{Client, Config, NoTls};

use crate::network::Host;
use crate::plan::{Agent, Plan, SUPERUSER, lay_over};
use crate::{Certificates, Child, Ended, Process, tools};

/// What a REST endpoint answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The status; 0 if there was no answer.
    pub status: u16,
    /// The body, or why there is none.
    pub body: String,
}

/// A node of a cluster.
pub struct Node {
    /// Its name in the cluster.
    pub name: String,
    /// Where it lives.
    pub host: Host,
    /// Whose agent is started next.
    pub whose: Agent,
    /// Another binary of ours to start, instead of the one under test.
    pub program: Option<PathBuf>,
    dir: PathBuf,
    as_root: bool,
    certificates: Option<Arc<Certificates>>,
    agent: Option<Child>,
}

impl Node {
    /// A node in a directory of its own, which is made. Nothing runs yet.
    pub(crate) fn new(
        name: &str,
        host: Host,
        dir: &Path,
        plan: &Plan,
        certificates: Option<Arc<Certificates>>,
    ) -> Self {
        let dir = dir.join(name);
        tools::make_dir_of_account(&dir);
        let (name, whose, as_root) = (name.to_owned(), plan.agent, plan.as_root);
        Self { name, host, whose, program: None, dir, as_root, certificates, agent: None }
    }

    /// The node's directory: configuration, log, sockets, data.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// PostgreSQL's data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.join("node.yml")
    }

    /// Lays more over the node's configuration: mappings are merged, anything else is replaced. It counts from the next
    /// start or reload on.
    pub fn configure(&self, extra: &Value) {
        let text = fs::read_to_string(self.config()).expect("the configuration");
        let mut yaml = serde_yaml::from_str(&text).expect("YAML");
        lay_over(&mut yaml, extra);
        fs::write(self.config(), serde_yaml::to_string(&yaml).expect("YAML of JSON")).expect("the configuration");
    }

    /// Where a test that listens as systemd does binds its socket, before it starts the agent.
    pub fn notify_socket(&self) -> PathBuf {
        self.dir.join("notify")
    }

    /// What the agent has written to standard error, over all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("agent.log")).unwrap_or_default()
    }

    /// Starts the agent.
    pub fn start(&mut self) {
        assert!(self.agent.as_ref().is_none_or(|agent| agent.ended().is_some()), "{} runs already", self.name);
        let account = tools::account();
        let (program, word) = match self.whose {
            Agent::Matriarch => {
                let built = self.program.clone().unwrap_or_else(tools::matriarch);
                (tools::for_account(built, self.dir.parent().unwrap_or(&self.dir)), Some("run"))
            }
            Agent::Patroni => (tools::patroni().expect("Patroni is installed").join("patroni"), None),
        };
        let mut command = self.host.command(&program.display().to_string(), (!self.as_root).then_some(&account));
        command.args(word).arg(self.config());
        if self.as_root && tools::is_root() {
            command.args(["--user", &account.name]);
        }
        let log =
            OpenOptions::new().create(true).append(true).open(self.dir.join("agent.log")).expect("the agent's log");
        command.current_dir(&self.dir).env("HOME", &self.dir).env("RUST_BACKTRACE", "1");
        if self.notify_socket().exists() {
            command.env("NOTIFY_SOCKET", self.notify_socket());
        }
        command.env("RUST_LOG", std::env::var("MATRIARCH_TEST_LOG").unwrap_or_else(|_| "matriarch=debug".to_owned()));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PATRONI") || name.starts_with("PG")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log again")).stderr(log);
        let child = Child::spawn(&mut command);
        self.agent = Some(child.unwrap_or_else(|error| panic!("cannot start the agent of {}: {error}", self.name)));
    }

    /// Runs a program on the node, as the servers' account, to its end; its output.
    ///
    /// # Errors
    /// It failed, and why.
    pub fn run(&self, program: &Path, words: &[&str]) -> Result<String, String> {
        let mut command = self.host.command(&program.display().to_string(), Some(&tools::account()));
        tools::output_of(command.args(words).current_dir(&self.dir))
    }

    /// The agent's process.
    pub fn agent(&self) -> Process {
        self.agent.as_ref().expect("an agent was started").process()
    }

    /// Waits for the agent to end.
    pub fn agent_ended(&self, limit: Duration) -> Ended {
        let ended = self.agent.as_ref().expect("an agent was started").wait(limit);
        ended.unwrap_or_else(|| panic!("the agent of {} has not ended within {} s", self.name, limit.as_secs()))
    }

    /// The postmaster, if there is one that lives.
    pub fn postmaster(&self) -> Option<Process> {
        let pid = fs::read_to_string(self.data_dir().join("postmaster.pid")).ok()?;
        let process = Process(pid.lines().next()?.trim().parse().ok()?);
        // The file outlives a postmaster that was killed, and its id may be another's by now.
        let cwd = fs::read_link(format!("/proc/{}/cwd", process.0)).ok()?;
        (process.is_alive() && cwd == self.data_dir()).then_some(process)
    }

    /// The guard, if there is one; not its successor.
    pub fn guard(&self) -> Option<Process> {
        self.processes().into_iter().find(|process| {
            let words = process.command_line();
            let comm = fs::read_to_string(format!("/proc/{}/comm", process.0)).unwrap_or_default();
            words.get(1).is_some_and(|word| word == "guard") && comm != "guard-successor\n"
        })
    }

    /// Every process of the node that is alive, in no order.
    pub fn processes(&self) -> Vec<Process> {
        Process::of_directory(&self.dir)
    }

    /// SIGKILL to every process of the node, until there is none.
    pub fn kill_everything(&self) {
        // Stopped first, the agent before the guard before PostgreSQL: a machine that loses its power does not get to
        // see its own end.
        let mut first: Vec<Process> = self.agent.iter().map(Child::process).chain(self.guard()).collect();
        for process in &first {
            process.signal(rustix::process::Signal::STOP);
        }
        loop {
            first.extend(self.processes());
            for process in &first {
                process.kill();
            }
            first = self.processes();
            if first.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Asks the agent's REST API.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None, Duration::from_secs(2)).await
    }

    /// Sends an order to the agent's REST API and waits for its answer.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, path, Some(body.to_string()), Duration::from_secs(60)).await
    }

    /// Changes the dynamic configuration through the agent's REST API.
    pub async fn patch_config(&self, change: &Value) -> Answer {
        self.ask(Method::PATCH, "/config", Some(change.to_string()), Duration::from_secs(10)).await
    }

    /// Asks the agent's REST API anything.
    pub async fn ask(&self, method: Method, path: &str, body: Option<String>, limit: Duration) -> Answer {
        let connector = Connector::tcp(limit);
        let (scheme, client) = match &self.certificates {
            Some(files) => {
                let tls = files.client("ca.pem", Some("client"), Speaks::Http1);
                ("https", http::Client::with_tls(connector, tls))
            }
            None => ("http", http::Client::new(connector)),
        };
        let url = format!("{scheme}://{}{path}", self.rest_address());
        match client.request(method, &url, None, body, limit).await {
            Ok((status, body)) => Answer { status, body },
            Err(error) => Answer { status: 0, body: error.to_string() },
        }
    }

    /// Where the REST API is: `host:port`.
    pub fn rest_address(&self) -> String {
        format!("{}:{}", self.host.address, self.host.port(0, 8008))
    }

    /// Where PostgreSQL is.
    pub fn server_address(&self) -> (String, u16) {
        (self.host.address.clone(), self.host.port(1, 5432))
    }

    /// How a client logs in.
    pub fn client_config(&self) -> Config {
        let mut config = Config::new();
        let (host, port) = self.server_address();
        config.host(&host).port(port).dbname("postgres");
        config.user(SUPERUSER.0).password(SUPERUSER.1).connect_timeout(Duration::from_secs(2));
        config.ssl_mode(tokio_postgres::config::SslMode::Disable);
        config
    }

    /// A client's connection to the node's PostgreSQL.
    ///
    /// # Errors
    /// The server refuses or is not there.
    pub async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.client_config().connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill_everything();
    }
}
