//! A node as its agent has it: the traits by which the agent asks and orders.

use std::sync::Arc;
use std::time::Duration;

use matriarch::agent::promises::Promises;
use matriarch::clock::Clock;
use matriarch::guard::{Finder, Guard, Hello, PROTOCOL};
use matriarch::postgres::{Allowance, Changed, Server as PostgresServer, Settings, SqlFailure, Watched};
use matriarch_core::action::{HostAction, PostgresAction};
use matriarch_core::event::{PostgresDone, Started};
use matriarch_core::id::{Pid, Timeline};
use matriarch_core::op::Outcome;
use matriarch_core::time::Seen;
use matriarch_core::timeline::History;
use matriarch_core::view::postgres::{DataDir, Process, Sql, StartAs, StopMode};
use matriarch_sim::node::NodeId;
use matriarch_sim::postgres::Server;
use matriarch_sim::time::Time;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::super::network::{SimulatedClock, elapsed};
use super::{Due, LOOK_AGAIN, Machines, START_LIMIT, refused};

/// A node as its agent has it.
pub(crate) struct Node {
    pub(super) machines: Machines,
    pub(super) node: usize,
}

impl Node {
    fn server<T>(&self, look: impl FnOnce(&Server) -> T) -> T {
        look(&self.machines.all().nodes[self.node].server)
    }

    /// How its guard is found.
    pub(crate) fn finder(self: &Arc<Self>) -> Finder {
        let this = Arc::clone(self);
        Finder::new(move || {
            let this = Arc::clone(&this);
            Box::pin(async move {
                sleep(Duration::from_millis(3)).await;
                let (connection, orders, reports) = Guard::connection();
                let mut all = this.machines.all();
                let guard = all.nodes[this.node].guard.get_or_insert_default();
                (guard.agent, guard.absent_since) = (Some((orders, reports)), None);
                let hello = Hello {
                    protocol: PROTOCOL,
                    pid: 1,
                    armed: guard.authority.armed(),
                    held: guard.authority.is_held(),
                    fencing: false,
                    fired: guard.authority.last_fired(),
                    wishes_refused: Vec::new(),
                    strict: false,
                };
                Ok((connection, hello))
            })
        })
    }

    /// Waits until the postmaster is another one or none, or `until` holds of it; whether that was so.
    async fn wait(&self, pid: Pid, until: impl Fn(&Server) -> bool) -> bool {
        loop {
            let (same, holds) = self.server(|server| {
                let same = server.postmaster.as_ref().is_some_and(|pm| pm.pid == pid);
                (same, same && until(server))
            });
            if holds || !same {
                return holds;
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    fn pid(&self) -> Option<Pid> {
        self.server(|server| server.postmaster.as_ref().map(|pm| pm.pid))
    }

    async fn start(&self, as_standby: Option<Option<NodeId>>, allowance: &Allowance) -> Outcome<PostgresDone> {
        sleep(Duration::from_millis(5)).await;
        let writable = if as_standby.is_none() { allowance.check_writable() } else { Ok(()) };
        let fork = || self.machines.all().fork(self.node, as_standby);
        let pid = match writable.and_then(|()| allowance.begin(fork)) {
            Ok(pid) => pid,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        match tokio::time::timeout(START_LIMIT, self.wait(pid, Server::is_ready)).await {
            Ok(true) => Outcome::Done(PostgresDone::Done),
            Ok(false) => refused("it did not come up"),
            Err(_) => Outcome::Unknown("it is still starting".into()),
        }
    }

    async fn stop(&self, mode: StopMode) {
        sleep(LOOK_AGAIN).await;
        let Some(pid) = self.pid() else { return };
        self.machines.all().stop(self.node, mode);
        self.wait(pid, |_| false).await;
    }

    async fn promote(&self, timeline: Timeline, allowance: &Allowance) -> Outcome<PostgresDone> {
        sleep(LOOK_AGAIN).await;
        if let Err(refusal) = allowance.check_writable() {
            return Outcome::Refused(refusal);
        }
        let pid = {
            let mut all = self.machines.all();
            let server = &mut all.nodes[self.node].server;
            let ready = server.is_ready();
            let Some(pm) = server.postmaster.as_mut().filter(|pm| ready && pm.in_recovery) else {
                return refused("the server is not in standby mode");
            };
            pm.promoting = Some(timeline);
            let pid = pm.pid;
            all.later(self.node, pid, 40, Due::Promoted);
            pid
        };
        if self.wait(pid, Server::is_primary).await {
            Outcome::Done(PostgresDone::Done)
        } else {
            refused("it went down")
        }
    }
}

#[tonic::async_trait]
impl PostgresServer for Node {
    async fn observe_postmaster(&self) -> Process {
        self.server(Server::process)
    }

    async fn observe_data(&self) -> DataDir {
        let all = self.machines.all();
        all.nodes[self.node].server.data(&all.wal)
    }

    async fn history(&self, timeline: Timeline) -> History {
        let all = self.machines.all();
        let end = all.nodes[self.node].server.cluster().map(|on_disk| on_disk.end);
        end.map_or_else(|| History::first(timeline), |end| all.wal.history(end))
    }

    async fn observe_sql(&self, deadline: Duration) -> Result<Seen<Sql>, SqlFailure> {
        let asked = SimulatedClock.now();
        sleep(Duration::from_millis(1)).await;
        if self.server(|server| server.held) {
            sleep(deadline).await;
        }
        let all = self.machines.all();
        let sql = all.nodes[self.node].server.sql(&all.wal, Time(elapsed().as_nanos() as u64), &all.names);
        let sql = sql.ok_or_else(|| SqlFailure::Unreachable("no answer".into()))?;
        Ok(Seen::new(sql, asked, SimulatedClock.now()))
    }

    async fn carry_out(&self, action: PostgresAction, allowance: &Allowance) -> Outcome<PostgresDone> {
        match action {
            PostgresAction::Start(StartAs::Primary) => self.start(None, allowance).await,
            PostgresAction::Start(StartAs::Standby(upstream)) => {
                let from = upstream.and_then(|upstream| self.machines.all().find(&upstream)).map(NodeId);
                self.start(Some(from), allowance).await
            }
            PostgresAction::Stop(mode) => {
                self.stop(mode).await;
                Outcome::Done(PostgresDone::Done)
            }
            PostgresAction::Restart => {
                self.stop(StopMode::Fast).await;
                let role = self.server(|server| server.cluster().filter(|disk| disk.standby).map(|disk| disk.upstream));
                self.start(role, allowance).await
            }
            PostgresAction::Promote { timeline } => self.promote(timeline, allowance).await,
            slow @ (PostgresAction::Initdb | PostgresAction::Clone(_) | PostgresAction::Rewind(_)) => {
                sleep(Duration::from_millis(400)).await;
                self.machines.all().at_once(self.node, slow)
            }
            quick => {
                sleep(Duration::from_millis(4)).await;
                self.machines.all().at_once(self.node, quick)
            }
        }
    }

    fn watch(&self, pid: Pid) -> Watched {
        let this = Self { machines: self.machines.clone(), node: self.node };
        let ended = async move {
            this.wait(pid, |_| false).await;
        };
        Watched { start_ticks: 0, ended: Box::pin(ended) }
    }

    fn watch_files(&self) -> mpsc::Receiver<Changed> {
        let (tell, told) = mpsc::channel(1);
        self.machines.all().nodes[self.node].changed = Some(tell);
        told
    }

    fn apply_settings(&self, _: Settings) {}

    fn tell_of_reload(&self) {}

    async fn keep_configuration(&self, _: serde_json::Value) {}

    async fn vet_parameters(&self) -> Vec<String> {
        Vec::new()
    }
}

#[tonic::async_trait]
impl Promises for Node {
    fn read(&self) -> Started {
        self.machines.all().nodes[self.node].files
    }

    async fn write(&self, action: HostAction) -> Outcome<()> {
        sleep(LOOK_AGAIN).await;
        let files = &mut self.machines.all().nodes[self.node].files;
        match action {
            HostAction::WriteEpoch(epoch) => files.epoch = Some(epoch),
            HostAction::WritePledge(absent_at) => files.pledge = absent_at,
            HostAction::StartGuard | HostAction::Exit { .. } => {}
        }
        Outcome::Done(())
    }
}
