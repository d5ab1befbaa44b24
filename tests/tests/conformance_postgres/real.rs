//! Real servers, without agents.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use matriarch::postgres::{Postgres, Server, proc};
use matriarch::processes::child_pids;
use matriarch_core::action::PostgresAction;
use matriarch_core::event::PostgresDone;
use matriarch_core::op::Outcome;
use matriarch_core::view::postgres::{Cluster, Process, Sql, Upstream};
use matriarch_tests::CommitLoop;
use matriarch_tests::single::base;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::NoTls;

use crate::facts::name;
use crate::node::{Node, any_time, pid_of};
use crate::{Blow, COMMIT_MAX, LONG, Servers};

/// Three servers.
pub(crate) struct RealServers {
    nodes: Vec<Node>,
    /// Commits without an answer yet, by their row.
    waiting: BTreeMap<u64, JoinHandle<bool>>,
    /// Backends that live on without a postmaster.
    orphan: Option<CommitLoop>,
    /// What stands still.
    held: BTreeSet<usize>,
    /// Stopped: it holds its postmaster up until it goes.
    checkpointer: Option<i32>,
    _base: TempDir,
}

impl RealServers {
    pub(crate) fn new() -> Self {
        let base = base();
        let nodes = (0..3).map(|server| Node::new(base.path(), &name(server).to_string())).collect();
        Self { nodes, waiting: BTreeMap::new(), orphan: None, held: BTreeSet::new(), checkpointer: None, _base: base }
    }

    /// The postmaster and all of its processes.
    async fn processes(&self, server: usize) -> Vec<i32> {
        let pid = pid_of(self.nodes[server].postgres.observe_process().await).0;
        std::iter::once(pid).chain(child_pids(pid).unwrap()).collect()
    }

    async fn signal(&self, server: usize, signal: Signal) {
        for pid in self.processes(server).await {
            let _ = proc::signal(pid, signal);
        }
    }

    /// Returns when its postmaster has ended all others, and recovers.
    async fn kill_backend(&self, server: usize) {
        let pid = pid_of(self.nodes[server].postgres.observe_process().await).0;
        let all = child_pids(pid).unwrap();
        let backend = self.nodes[server].connect().await;
        let one = backend.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        proc::signal(one, Signal::KILL).unwrap();
        while all.iter().any(|pid| proc::is_alive(*pid)) {
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop_checkpointer(&mut self, server: usize) {
        let query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
        let pid = self.nodes[server].run(query).await.unwrap().parse().unwrap();
        proc::signal(pid, Signal::STOP).unwrap();
        self.checkpointer = Some(pid);
    }
}

impl Servers for RealServers {
    async fn order(&mut self, server: usize, what: PostgresAction, limit: Duration) -> Option<Outcome<PostgresDone>> {
        let postgres = &self.nodes[server].postgres;
        match what {
            // It says itself that it waits no longer.
            PostgresAction::Start(_) => {
                let mut settings = (*postgres.settings()).clone();
                settings.pg_ctl_timeout = limit;
                postgres.apply_settings(settings);
                match carry_out(postgres, what).await {
                    Outcome::Unknown(_) => None,
                    ended => Some(ended),
                }
            }
            PostgresAction::Stop(mode) => {
                let checkpointer = self.checkpointer.take();
                let ended = async {
                    // It does not end by itself; its postmaster is told before it is.
                    sleep(Duration::from_millis(if checkpointer.is_some() { 200 } else { 0 })).await;
                    checkpointer.map(|pid| proc::signal(pid, Signal::KILL));
                };
                let stopping = async { tokio::join!(carry_out(postgres, PostgresAction::Stop(mode)), ended).0 };
                timeout(limit, stopping).await.ok()
            }
            what => timeout(limit, carry_out(postgres, what)).await.ok(),
        }
    }

    fn upstream(&self, server: usize) -> Upstream {
        self.nodes[server].upstream()
    }

    async fn commit(&mut self, server: usize, row: u64) -> bool {
        let config = self.nodes[server].client_config();
        let mut writing = tokio::spawn(async move {
            let Ok((client, connection)) = config.connect(NoTls).await else { return false };
            tokio::spawn(connection);
            let insert = format!("CREATE TABLE IF NOT EXISTS written (n bigint); INSERT INTO written VALUES ({row})");
            client.batch_execute(&insert).await.is_ok()
        });
        // A machine that is busy is no server that is held.
        let patience = if self.held.contains(&server) { COMMIT_MAX } else { LONG };
        if let Ok(answered) = timeout(patience, &mut writing).await {
            return answered.unwrap();
        }
        self.waiting.insert(row, writing);
        false
    }

    async fn acknowledged_late(&mut self, row: u64) -> bool {
        let Some(writing) = self.waiting.remove(&row) else { return false };
        timeout(LONG, writing).await.is_ok_and(|answered| answered.unwrap())
    }

    async fn orphan_commits(&mut self, _server: usize) -> bool {
        let Some(orphan) = &self.orphan else { return false };
        // What it told before is heard by then.
        sleep(COMMIT_MAX).await;
        let before = orphan.count();
        let more = async {
            while orphan.count() == before {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(3 * COMMIT_MAX, more).await.is_ok()
    }

    async fn rows(&mut self, server: usize) -> Option<Vec<u64>> {
        self.sql(server).await?;
        let client = self.nodes[server].connect().await;
        let query = "SELECT string_agg(n::text, ',' ORDER BY n) FROM written";
        let answer = client.simple_query(query).await.unwrap_or_default();
        let text = answer.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        Some(text.iter().flat_map(|text| text.split(',')).map(|row| row.parse().unwrap()).collect())
    }

    async fn sql(&mut self, server: usize) -> Option<Sql> {
        self.nodes[server].postgres.observe_sql(Duration::from_secs(2)).await.ok().map(|seen| seen.value)
    }

    async fn cluster(&mut self, server: usize) -> Cluster {
        let newest = self.sql(server).await.map(|sql| sql.timeline);
        let mut cluster = self.nodes[server].cluster().await;
        // As the agent reads it: `pg_control` of a standby lags behind what the server says.
        if let Some(newest) = newest.filter(|newest| *newest > cluster.history.timeline) {
            cluster.history = self.nodes[server].postgres.history(newest).await;
        }
        cluster
    }

    async fn process(&mut self, server: usize) -> Process {
        self.nodes[server].postgres.observe_process().await
    }

    async fn befalls(&mut self, server: usize, blow: Blow) {
        self.held.remove(&server);
        match blow {
            Blow::Kill => {
                let pids = self.processes(server).await;
                self.signal(server, Signal::KILL).await;
                while pids.iter().any(|pid| proc::is_alive(*pid)) {
                    sleep(Duration::from_millis(5)).await;
                }
            }
            Blow::Behead => {
                let orphan = CommitLoop::start(&self.nodes[server].client_config()).await.unwrap();
                while orphan.count() == 0 {
                    sleep(Duration::from_millis(10)).await;
                }
                self.orphan = Some(orphan);
                let pid = pid_of(self.process(server).await);
                let exit = self.nodes[server].postgres.watch_exit(pid);
                proc::signal(pid.0, Signal::KILL).unwrap();
                exit.await;
            }
            Blow::KillBackend => self.kill_backend(server).await,
            Blow::Hold => {
                // Its postmaster first; what that forked before is found the second time.
                for _ in 0..2 {
                    self.signal(server, Signal::STOP).await;
                }
                self.held.insert(server);
            }
            Blow::Resume => self.signal(server, Signal::CONT).await,
            Blow::PauseReplay => drop(self.nodes[server].run("SELECT pg_wal_replay_pause()").await),
            Blow::ResumeReplay => drop(self.nodes[server].run("SELECT pg_wal_replay_resume()").await),
            Blow::HoldCheckpoints => self.stop_checkpointer(server).await,
            Blow::NextWalFile => drop(self.nodes[server].run("SELECT pg_switch_wal()").await),
            Blow::LoseWalFile => {
                let node = &self.nodes[server];
                let cluster = node.cluster().await;
                node.lose_wal(cluster.min_recovery_timeline, cluster.min_recovery);
            }
        }
    }

    async fn pass(&mut self, time: Duration) {
        sleep(time).await;
    }
}

impl Drop for RealServers {
    fn drop(&mut self) {
        if let Some(pid) = self.checkpointer {
            let _ = proc::signal(pid, Signal::KILL);
        }
    }
}

/// As the agent carries it out, and with more patience for a machine that is busy.
async fn carry_out(postgres: &Postgres, what: PostgresAction) -> Outcome<PostgresDone> {
    match what {
        PostgresAction::Freeze => postgres.freeze(LONG).await.map(|()| PostgresDone::Done),
        other => Server::carry_out(postgres, other, &any_time()).await,
    }
}
