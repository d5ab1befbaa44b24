//! The store and the three nodes, as processes.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use hyper::Method;
use nix::unistd::User;
use rand::RngExt;
use rustix::process::Signal;

use super::account;
use super::install::Installed;
use super::processes;
use super::workdir::{self, Workdir};
use crate::http;
use crate::postgres::proc::PidFile;
use crate::processes::Process;

/// Nodes of the demo.
pub(super) const NODES: usize = 3;
/// Short, so that the tour is: in production a lease of 3 s on a store that answers late would cost failovers.
pub(super) const TTL_S: u32 = 3;
/// As `loop_wait`; no failover waits for it.
pub(super) const LOOP_WAIT_S: u32 = 1;
/// As `retry_timeout`.
pub(super) const RETRY_TIMEOUT_S: u32 = 1;

/// Where a node is reached.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// `n1` to `n3`.
    pub(super) name: String,
    /// Its directory.
    pub(super) dir: PathBuf,
    /// PostgreSQL's port on 127.0.0.1.
    pub(super) port: u16,
    /// The REST API's port on 127.0.0.1.
    pub(super) api_port: u16,
}

impl Node {
    /// A URL of its REST API; `path` without the first slash.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.api_port)
    }

    /// How clients connect as superuser.
    pub(super) fn connection(&self, password: &str) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").password(password).dbname("postgres");
        config.application_name("matriarch-demo").connect_timeout(Duration::from_secs(1));
        config
    }

    /// Asks it, the leader, to hand over to whichever standby is best.
    pub(super) async fn switchover(&self) -> anyhow::Result<()> {
        let body = serde_json::json!({ "leader": self.name }).to_string();
        let limit = Duration::from_secs(30);
        let asked = http::request(Method::POST, &self.url("switchover"), None, Some(body), limit).await;
        match asked.map_err(|error| anyhow!("{error}"))? {
            (200 | 202, _) => Ok(()),
            (status, text) => bail!("{} refuses the switchover ({status}): {}", self.name, text.trim()),
        }
    }
}

/// The processes of the demo.
pub(super) struct Cluster {
    /// Its directory.
    pub(super) workdir: Workdir,
    /// The superuser's password, made for this cluster.
    pub(super) password: String,
    /// Its nodes.
    pub(super) nodes: [Node; NODES],
    executable: PathBuf,
    account: Option<User>,
    /// Those that should be alive.
    agents: [Option<Process>; NODES],
    store: Option<Process>,
    store_port: u16,
}

impl Cluster {
    /// Writes the configuration of every node; starts nothing.
    pub(super) fn prepare(workdir: Workdir, account: Option<User>, postgres: &Installed) -> anyhow::Result<Self> {
        let ports: [u16; 1 + 2 * NODES] = workdir::free_ports()?;
        let [store_port, ports @ ..] = ports;
        let secret = || format!("{:032x}", rand::rng().random::<u128>());
        let (password, replication, rewind) = (secret(), secret(), secret());
        let node = |index: usize| {
            let name = format!("n{}", index + 1);
            let dir = workdir.node(&name);
            Node { name, dir, port: ports[index], api_port: ports[NODES + index] }
        };
        let nodes = std::array::from_fn(node);
        for node in &nodes {
            workdir.directory(&node.name, account.as_ref())?;
            let text = configuration(node, store_port, &postgres.bin_dir, [&password, &replication, &rewind]);
            workdir.file(&format!("{}/agent.yml", node.name), &text, account.as_ref())?;
        }
        let pgpass = nodes.iter().map(|node| format!("127.0.0.1:{}:*:postgres:{password}\n", node.port));
        workdir.file("pgpass", &pgpass.collect::<String>(), None)?;
        workdir.directory("store", account.as_ref())?;
        let executable = workdir::executable(&workdir, account.as_ref())?;
        Ok(Self { workdir, password, nodes, executable, account, agents: [None; NODES], store: None, store_port })
    }

    /// Starts the store. It is ready when it listens; agents wait for it.
    pub(super) fn start_store(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.executable);
        command.arg("store").arg("--listen").arg(format!("127.0.0.1:{}", self.store_port));
        command.arg("--data").arg(self.workdir.node("store").join("data"));
        if let Some(user) = &self.account {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        self.store = Some(self.spawn(command, "store/store.log")?);
        Ok(())
    }

    /// Starts the agent of a node.
    pub(super) fn start_agent(&mut self, index: usize) -> anyhow::Result<()> {
        let node = &self.nodes[index];
        let mut command = Command::new(&self.executable);
        command.arg("run").arg(node.dir.join("agent.yml"));
        if let Some(user) = &self.account {
            command.arg("--user").arg(&user.name);
        }
        self.agents[index] = Some(self.spawn(command, &format!("{}/agent.log", node.name))?);
        Ok(())
    }

    /// In a process group of its own: an interrupt from the terminal is for the demo alone, which then stops the others
    /// in the right order.
    fn spawn(&self, mut command: Command, log: &str) -> anyhow::Result<Process> {
        let log = self.workdir.log(log)?;
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            // What configures the user's own cluster is not for this one.
            if ["PATRONI_", "MATRIARCH_", "PG"].iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0).current_dir("/");
        let child = command.spawn().with_context(|| format!("starting {}", self.executable.display()))?;
        let pid = child.id().cast_signed();
        Process::find(pid)?.ok_or_else(|| anyhow!("process {pid} was gone at once"))
    }

    /// What ended although nobody ended it: a node's index, or none for the store; in words too.
    pub(super) fn ended_unasked(&self) -> Option<(Option<usize>, String)> {
        if self.store.is_some_and(|store| !store.is_alive()) {
            return Some((None, "the store has ended".to_owned()));
        }
        let index = self.agents.iter().position(|agent| agent.is_some_and(|agent| !agent.is_alive()))?;
        Some((Some(index), format!("the agent of {} has ended", self.nodes[index].name)))
    }

    /// Stops or continues the agent of a node, which stays the one that should be alive.
    pub(super) fn signal_agent(&self, index: usize, signal: Signal) -> anyhow::Result<()> {
        let name = &self.nodes[index].name;
        let agent = self.agents[index].ok_or_else(|| anyhow!("the agent of {name} is not running"))?;
        agent.signal(signal).with_context(|| format!("a signal to the agent of {name}"))
    }

    /// Ends the agent of a node by a signal; from now on it should be dead.
    pub(super) fn end_agent(&mut self, index: usize, signal: Signal) -> anyhow::Result<Process> {
        self.signal_agent(index, signal)?;
        self.agents[index].take().ok_or_else(|| anyhow!("the agent of {} is not running", self.nodes[index].name))
    }

    /// Kills the postmaster of a node and nothing else.
    pub(super) fn kill_postmaster(&self, index: usize) -> anyhow::Result<()> {
        let node = &self.nodes[index];
        let pid = PidFile::read(&node.dir.join("data")).map(|file| file.pid);
        let found = pid.and_then(|pid| Process::find(pid).ok().flatten());
        let postmaster = found.ok_or_else(|| anyhow!("PostgreSQL of {} is not running", node.name))?;
        Ok(postmaster.signal(Signal::KILL)?)
    }

    /// Kills every process of a node at one instant, as near as can be: all are stopped before the first is killed.
    pub(super) fn kill_node(&mut self, index: usize) -> anyhow::Result<()> {
        self.agents[index] = None;
        let node = &self.nodes[index];
        let found = processes::of_node(&node.dir);
        if found.is_empty() {
            bail!("{} has no processes", node.name);
        }
        processes::signal_all(&found, Signal::STOP);
        processes::signal_all(&found, Signal::KILL);
        // What a process of the first list had just started.
        processes::signal_all(&processes::of_node(&node.dir), Signal::KILL);
        Ok(())
    }

    /// How to work with a cluster that is left running.
    pub(super) fn directions(&self, primary: usize, psql: &Path) -> Vec<String> {
        let dir = self.workdir.path().display();
        let psql = psql.display();
        let mut lines = vec!["The cluster goes on running:".to_owned()];
        for (index, node) in self.nodes.iter().enumerate() {
            let role = if index == primary { "primary" } else { "standby" };
            lines.push(format!("  {} ({role})", node.name));
            lines.push(format!("    PGPASSFILE={dir}/pgpass {psql} -h 127.0.0.1 -p {} -U postgres", node.port));
            let (cluster, why) = (node.url("cluster"), node.url("why"));
            lines.push(format!("    curl -s {cluster}      curl -s {why}"));
        }
        lines.push(format!("  store (etcd's v3 protocol): http://127.0.0.1:{}", self.store_port));
        lines.push(format!("  configuration and logs: {dir}/n1/agent.yml, {dir}/n1/agent.log and so on"));
        lines.push("Stop it and remove everything:".to_owned());
        lines.push(format!("    {} demo --stop {dir}", self.executable.display()));
        lines
    }

    /// The same for machines.
    pub(super) fn directory_of(&self, primary: usize) -> serde_json::Value {
        let nodes = self.nodes.iter().enumerate().map(|(index, node)| {
            serde_json::json!({
                "name": node.name,
                "role": if index == primary { "primary" } else { "replica" },
                "postgresql": format!("127.0.0.1:{}", node.port),
                "api_url": node.url(""),
            })
        });
        serde_json::json!({
            "directory": self.workdir.path(),
            "passfile": self.workdir.path().join("pgpass"),
            "store": format!("http://127.0.0.1:{}", self.store_port),
            "nodes": nodes.collect::<Vec<_>>(),
            "stop": format!("{} demo --stop {}", self.executable.display(), self.workdir.path().display()),
        })
    }
}

/// The file of a node, as an operator would write it.
fn configuration(node: &Node, store_port: u16, bin_dir: &Path, secrets: [&String; 3]) -> String {
    let Node { name, dir, port, api_port } = node;
    let [superuser, replication, rewind] = secrets;
    let (dir, bin_dir) = (dir.display(), bin_dir.display());
    format!(
        "\
scope: demo
name: {name}
restapi:
  listen: 127.0.0.1:{api_port}
  connect_address: 127.0.0.1:{api_port}
etcd3:
  hosts: ['127.0.0.1:{store_port}']
matriarch:
  state_dir: '{dir}/state'
bootstrap:
  dcs:
    ttl: {TTL_S}
    loop_wait: {LOOP_WAIT_S}
    retry_timeout: {RETRY_TIMEOUT_S}
    maximum_lag_on_failover: 1048576
    postgresql:
      use_pg_rewind: true
      parameters:
        max_connections: 50
        shared_buffers: 32MB
        wal_keep_size: 128MB
        max_wal_size: 128MB
        dynamic_shared_memory_type: mmap
  initdb:
  - encoding: UTF8
  - locale: C
  - data-checksums
postgresql:
  listen: 127.0.0.1:{port}
  connect_address: 127.0.0.1:{port}
  data_dir: '{dir}/data'
  bin_dir: '{bin_dir}'
  pg_hba:
  - host replication replicator 127.0.0.1/32 scram-sha-256
  - host all all 127.0.0.1/32 scram-sha-256
  authentication:
    superuser: {{username: postgres, password: '{superuser}'}}
    replication: {{username: replicator, password: '{replication}'}}
    rewind: {{username: rewind_user, password: '{rewind}'}}
  parameters:
    unix_socket_directories: ''
    password_encryption: scram-sha-256
"
    )
}

/// The last lines of a log; empty if there is none.
pub(super) fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

/// Who the nodes run as, in words.
pub(super) fn described(account: Option<&User>) -> String {
    account.map_or_else(|| "the account that started the demo".to_owned(), |user| format!("the account {}", user.name))
}

/// Chooses the account and makes the directory.
pub(super) fn settle() -> anyhow::Result<(Workdir, Option<User>)> {
    let account = account::choose()?;
    Ok((Workdir::create(account.as_ref())?, account))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_a_node_is_one_that_validates_strictly() {
        let dir = tempfile::tempdir().unwrap();
        let node = Node { name: "n1".into(), dir: dir.path().to_owned(), port: 17_001, api_port: 17_002 };
        let secret = "0".repeat(32);
        let text = configuration(&node, 17_000, Path::new("/usr/lib/postgresql/15/bin"), [&secret, &secret, &secret]);
        let path = dir.path().join("agent.yml");
        fs::write(&path, text).unwrap();
        let loaded = crate::config::load(Some(&path), std::iter::empty()).unwrap();
        assert_eq!(loaded.render_warnings(), "");
        assert_eq!(loaded.config.etcd3.hosts, ["127.0.0.1:17000"]);
    }
}
