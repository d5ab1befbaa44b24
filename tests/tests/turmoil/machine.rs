//! What is pretended of each node: a PostgreSQL server (the simulated world's model of one), a guard (with the real
//! rules of arming) and small files. They live beside the agent's host, so that they outlive an agent that crashes, and go on
//! with each step of the world.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use matriarch::agent::promises::Promises;
use matriarch::clock::Clock;
use matriarch::guard::{Armed, Authority, Finder, Guard, Hello, Order, PROTOCOL, Report};
use matriarch::postgres::{Allowance, Changed, Server as PostgresServer, Settings, SqlFailure, Watched};
use matriarch_core::action::{HostAction, PostgresAction};
use matriarch_core::event::{PostgresDone, Started};
use matriarch_core::id::{LeaseId, Member, Pid, SystemId, Timeline};
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::time::Seen;
use matriarch_core::timeline::History;
use matriarch_core::view::postgres::{ControlState, DataDir, Phase, Process, Sql, StartAs, StopMode, Upstream};
use matriarch_sim::node::NodeId;
use matriarch_sim::postgres::wal::{Record, Serial, Wal};
use matriarch_sim::postgres::{Outgoing, Server, Stream};
use matriarch_sim::time::Time;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::network::{SimulatedClock, elapsed, instant};

/// How long a guard waits for an agent that is dead before it stops PostgreSQL.
const RESTART_GRACE: Duration = Duration::from_secs(2);
/// How long a start is waited for.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How often what is waited for is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// All nodes.
#[derive(Clone)]
pub(super) struct Machines(Arc<Mutex<All>>);

/// All nodes, and the one log that is a tree of theirs.
pub(super) struct All {
    wal: Wal,
    names: Vec<Member>,
    /// The nodes.
    pub(super) nodes: Vec<Machine>,
    now: Duration,
    commits: u64,
}

/// One node.
pub(super) struct Machine {
    /// Its PostgreSQL.
    pub(super) server: Server,
    /// Its guard.
    pub(super) guard: Option<PretendGuard>,
    /// Tenures that its guard gives back.
    pub(super) releases: Vec<LeaseId>,
    /// It reaches no other node.
    pub(super) is_cut_off: bool,
    due: Vec<(Duration, Pid, Due)>,
    files: Started,
    changed: Option<mpsc::Sender<Changed>>,
}

/// What comes to pass in a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    Recovered,
    Promoted,
    Checkpoint,
    ShutDown,
}

/// A guard.
#[derive(Default)]
pub(super) struct PretendGuard {
    authority: Authority,
    agent: Option<(mpsc::Receiver<Order>, mpsc::Sender<Report>)>,
    absent_since: Option<Duration>,
}

impl PretendGuard {
    /// What it would end.
    pub(super) fn armed(&self) -> Option<Armed> {
        self.authority.armed()
    }

    fn report(&self, report: Report) {
        if let Some((_, reports)) = &self.agent {
            // Whoever listened may have crashed.
            let _ = reports.try_send(report);
        }
    }
}

impl Machines {
    /// Nodes of these names, with nothing on their disks.
    pub(super) fn new(names: &[&str]) -> Self {
        let machine = |_: &&str| Machine {
            server: Server::new(),
            guard: None,
            releases: Vec::new(),
            is_cut_off: false,
            due: Vec::new(),
            files: Started::default(),
            changed: None,
        };
        Self(Arc::new(Mutex::new(All {
            wal: Wal::default(),
            names: names.iter().map(|name| Member::new(name)).collect(),
            nodes: names.iter().map(machine).collect(),
            now: Duration::ZERO,
            commits: 0,
        })))
    }

    /// All of them.
    pub(super) fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap()
    }

    /// What an agent on `node` has around it.
    pub(super) fn node(&self, node: usize) -> Arc<Node> {
        Arc::new(Node { machines: self.clone(), node })
    }
}

impl All {
    /// Time goes on.
    pub(super) fn step(&mut self, now: Duration) {
        self.now = now;
        for node in 0..self.nodes.len() {
            self.guard_lives(node);
            self.server_lives(node);
        }
        for node in 0..self.nodes.len() {
            self.stream(node);
        }
    }

    /// A client writes to every server that lets it.
    pub(super) fn clients_write(&mut self) {
        for machine in &mut self.nodes {
            if machine.server.can_acknowledge() {
                self.commits += 1;
                machine.server.write(&mut self.wal, Record::Commit(Serial(self.commits)));
            }
        }
    }

    /// The server of `node` streams from that of `from`.
    pub(super) fn streams(&self, node: usize, from: usize) -> bool {
        let pm = self.nodes[node].server.postmaster.as_ref();
        pm.is_some_and(|pm| pm.phase == Phase::Ready && pm.stream.is_some_and(|stream| stream.from == NodeId(from)))
    }

    /// The machine is lost: everything on it but its disk.
    pub(super) fn lost(&mut self, node: usize) {
        let machine = &mut self.nodes[node];
        machine.server.dies();
        (machine.guard, machine.changed) = (None, None);
        machine.due.clear();
        machine.releases.clear();
    }

    /// The postmaster is killed, and leaves nothing behind.
    pub(super) fn postgres_killed(&mut self, node: usize) {
        self.nodes[node].server.dies();
        self.tell(node);
    }

    // --- the guard --------------------------------------------------------------------------------------------------

    fn guard_lives(&mut self, node: usize) {
        let now = instant(self.now);
        let Some(mut guard) = self.nodes[node].guard.take() else { return };
        if guard.authority.is_due(now) {
            self.fence(node, &mut guard);
        }
        while let Some(order) = next_order(&mut guard, self.now) {
            if order == Order::Retire && guard.authority.armed().is_none() {
                return;
            }
            self.obey(node, &mut guard, order);
        }
        self.mind_absence(node, &mut guard);
        self.nodes[node].guard = Some(guard);
    }

    fn fence(&mut self, node: usize, guard: &mut PretendGuard) {
        let processes = u32::from(self.nodes[node].server.postmaster.is_some());
        self.nodes[node].server.dies();
        let fired = guard.authority.fire(instant(self.now), processes);
        guard.report(Report::Fired(fired));
        self.tell(node);
    }

    fn obey(&mut self, node: usize, guard: &mut PretendGuard, order: Order) {
        let (now, what) = (instant(self.now), format!("{order:?}"));
        let refused = |why: String| Report::Refused { what, why };
        let report = match order {
            Order::Hello { .. } => return,
            Order::Postmaster { pid, .. } => Report::Watching { pid, why_no_cgroup: None },
            Order::Arm { tenure, at, instead_of } => {
                guard.authority.arm(tenure, at, instead_of, now).map_or_else(refused, Report::Armed)
            }
            Order::Disarm { tenure } => match guard.authority.disarm(tenure) {
                Ok(()) => Report::Disarmed { tenure },
                Err(why) => refused(why),
            },
            Order::Hold => match guard.authority.hold() {
                Ok(()) => {
                    let server = &mut self.nodes[node].server;
                    server.held = server.postmaster.is_some();
                    Report::Held { processes: 1, took_us: 0 }
                }
                Err(why) => refused(why),
            },
            Order::Resume => {
                guard.authority.resume();
                self.nodes[node].server.held = false;
                Report::Resumed
            }
            Order::Fire { .. } => return self.fence(node, guard),
            Order::KillOrphans if self.nodes[node].server.postmaster.is_some() => refused("a postmaster lives".into()),
            Order::KillOrphans => Report::OrphansDead { processes: 0 },
            Order::Retire => refused("armed".into()),
        };
        guard.report(report);
    }

    /// Its agent is dead.
    fn mind_absence(&mut self, node: usize, guard: &mut PretendGuard) {
        let Some(since) = guard.absent_since.filter(|since| self.now >= *since + RESTART_GRACE) else { return };
        let Some(armed) = guard.authority.armed() else { return };
        if self.nodes[node].server.postmaster.is_none() || guard.authority.is_held() {
            self.fence(node, guard);
            self.nodes[node].releases.push(armed.tenure);
        } else if self.now.saturating_sub(since) < RESTART_GRACE + Duration::from_millis(2) {
            self.stop(node, StopMode::Fast);
        }
    }

    // --- PostgreSQL -------------------------------------------------------------------------------------------------

    fn server_lives(&mut self, node: usize) {
        let machine = &mut self.nodes[node];
        let Some(pid) = machine.server.postmaster.as_ref().map(|pm| pm.pid) else { return machine.due.clear() };
        if machine.server.held {
            return;
        }
        let now = self.now;
        let due: Vec<Due> = machine
            .due
            .extract_if(.., |(at, of, _)| *at <= now || *of != pid)
            .filter(|d| d.1 == pid)
            .map(|d| d.2)
            .collect();
        for what in due {
            self.comes_to_pass(node, pid, what);
            self.tell(node);
        }
    }

    fn comes_to_pass(&mut self, node: usize, pid: Pid, what: Due) {
        let (wal, server) = (&mut self.wal, &mut self.nodes[node].server);
        match what {
            Due::Recovered if !server.recovered(wal) => self.later(node, pid, 20, Due::Recovered),
            Due::Recovered => {
                if server.is_primary() {
                    server.write(wal, Record::Checkpoint);
                }
            }
            Due::Promoted => {
                let timeline = server.postmaster.as_ref().and_then(|pm| pm.promoting).unwrap_or_default();
                server.promoted(wal, timeline);
                self.later(node, pid, 50, Due::Checkpoint);
            }
            Due::Checkpoint => drop(server.write(wal, Record::Checkpoint)),
            Due::ShutDown => {
                let primary = server.is_primary() || server.postmaster.as_ref().is_some_and(|pm| !pm.in_recovery);
                if primary {
                    server.write(wal, Record::Checkpoint);
                }
                // Its senders drain before it ends.
                for standby in 0..self.nodes.len() {
                    self.receive(standby, node);
                }
                let server = &mut self.nodes[node].server;
                if let Some(on_disk) = server.cluster_mut() {
                    on_disk.state = if primary { ControlState::ShutDown } else { ControlState::ShutDownInRecovery };
                    on_disk.consistent = on_disk.replayed;
                }
                server.dies();
            }
        }
    }

    fn later(&mut self, node: usize, pid: Pid, ms: u64, what: Due) {
        let at = self.now + Duration::from_millis(ms);
        self.nodes[node].due.push((at, pid, what));
    }

    fn fork(&mut self, node: usize, as_standby: Option<Option<NodeId>>) -> Result<Pid, Refusal> {
        let server = &mut self.nodes[node].server;
        if server.postmaster.is_some() || server.cluster().is_none_or(|on_disk| on_disk.tainted.is_some()) {
            return Err(Refusal::Failed("it runs already, or there is no whole cluster".into()));
        }
        let clean = server
            .cluster()
            .is_some_and(|c| matches!(c.state, ControlState::ShutDown | ControlState::ShutDownInRecovery));
        let pid = server.fork(Time(self.now.as_nanos() as u64), as_standby);
        self.later(node, pid, if clean { 60 } else { 300 }, Due::Recovered);
        self.tell(node);
        Ok(pid)
    }

    fn stop(&mut self, node: usize, mode: StopMode) {
        let server = &mut self.nodes[node].server;
        let Some(pm) = &mut server.postmaster else { return };
        let pid = pm.pid;
        if mode == StopMode::Immediate {
            server.dies();
        } else if pm.stopping.is_none() {
            (pm.stopping, pm.phase) = (Some(mode), Phase::Stopping);
            self.later(node, pid, 50, Due::ShutDown);
        }
        self.tell(node);
    }

    /// The server of `node` receives what that of its upstream has.
    fn stream(&mut self, node: usize) {
        let upstream = self.nodes[node].server.cluster().and_then(|on_disk| on_disk.upstream);
        for from in 0..self.nodes.len() {
            if upstream != Some(NodeId(from)) || !self.receive(node, from) {
                self.parted(node, from);
            }
        }
    }

    fn receive(&mut self, node: usize, from: usize) -> bool {
        let cut = node == from || self.nodes[node].is_cut_off || self.nodes[from].is_cut_off;
        let source = &self.nodes[from].server;
        let sends = !source.held && source.postmaster.as_ref().is_some_and(|pm| pm.phase != Phase::Starting);
        let (Some(theirs), Some(their_pid)) = (source.cluster().cloned(), source.postmaster.as_ref().map(|pm| pm.pid))
        else {
            return false;
        };
        let server = &mut self.nodes[node].server;
        let receives =
            !server.held && server.postmaster.as_ref().is_some_and(|pm| pm.in_recovery && pm.promoting.is_none());
        let Some(on_disk) = server.cluster_mut() else { return false };
        let follows = on_disk.standby && on_disk.upstream == Some(NodeId(from));
        if cut || !sends || !receives || !follows || !self.wal.contains(theirs.end, on_disk.end) {
            return false;
        }
        (on_disk.end, on_disk.replayed, on_disk.newest) = (theirs.end, theirs.end, theirs.newest.max(on_disk.newest));
        if self.wal.contains(theirs.end, on_disk.consistent) {
            (on_disk.consistent, on_disk.checkpoint) = (theirs.end, theirs.checkpoint);
        }
        let latest = self.wal.lsn(theirs.end);
        let heard = Time(self.now.as_nanos() as u64);
        let mut pid = Pid(0);
        if let Some(pm) = &mut server.postmaster {
            pid = pm.pid;
            pm.stream = Some(Stream { from: NodeId(from), pid: their_pid, connected: heard, latest });
        }
        if let Some(pm) = &mut self.nodes[from].server.postmaster {
            pm.senders
                .insert(NodeId(node), Outgoing { pid, connected: heard, sent: theirs.end, flushed: theirs.end, heard });
        }
        true
    }

    fn parted(&mut self, node: usize, from: usize) {
        if let Some(pm) = &mut self.nodes[node].server.postmaster {
            pm.stream = pm.stream.filter(|stream| stream.from != NodeId(from));
        }
        if let Some(pm) = &mut self.nodes[from].server.postmaster {
            pm.senders.remove(&NodeId(node));
        }
    }

    fn tell(&self, node: usize) {
        if let Some(changed) = &self.nodes[node].changed {
            // One that waits already says the same.
            let _ = changed.try_send(Changed::PidFile);
        }
    }

    fn find(&self, upstream: &Upstream) -> Option<usize> {
        self.names.iter().position(|name| *name == upstream.member)
    }

    /// The node of `upstream`, if its server is a running primary that `node` reaches.
    fn source(&self, node: usize, upstream: &Upstream) -> Option<usize> {
        let from = self.find(upstream)?;
        let reached = !self.nodes[node].is_cut_off && !self.nodes[from].is_cut_off;
        (reached && self.nodes[from].server.is_ready()).then_some(from)
    }

    /// What an order comes to that is done at once.
    fn at_once(&mut self, node: usize, action: PostgresAction) -> Outcome<PostgresDone> {
        let done = Outcome::Done(PostgresDone::Done);
        let (wal, server) = (&mut self.wal, &mut self.nodes[node].server);
        match action {
            PostgresAction::Initdb => server.initdb(wal, SystemId(7_400_000_000_000_000_007)),
            PostgresAction::RecoverSingleUser => {
                server.write(wal, Record::Checkpoint);
                if let Some(on_disk) = server.cluster_mut() {
                    on_disk.state = ControlState::ShutDown;
                }
            }
            PostgresAction::Configure { generation } => return Outcome::Done(PostgresDone::Configured { generation }),
            PostgresAction::Clone(upstream) | PostgresAction::Rewind(upstream) => {
                let Some(from) = self.source(node, &upstream) else { return refused("the source does not answer") };
                let Some(source) = self.nodes[from].server.cluster().cloned() else { return refused("no source") };
                self.nodes[node].server.copy_of(&source);
            }
            PostgresAction::Compare(upstream) => {
                let from = self.source(node, &upstream);
                let theirs = from.and_then(|from| self.nodes[from].server.cluster());
                let (Some(theirs), Some(mine)) = (theirs, self.nodes[node].server.cluster()) else {
                    return Outcome::Unknown("the upstream does not answer".into());
                };
                let shared = self.wal.shared(theirs.end, mine.end);
                let diverged = (shared.depth < mine.end.depth).then(|| self.wal.lsn(shared));
                return Outcome::Done(PostgresDone::Compared(diverged));
            }
            running if !server.is_ready() => return refused(&format!("{running:?}: it does not answer")),
            PostgresAction::Follow(upstream) => {
                let to = upstream.as_ref().and_then(|upstream| self.find(upstream)).map(NodeId);
                self.point_to(node, to);
            }
            PostgresAction::Freeze => self.point_to(node, None),
            PostgresAction::Checkpoint if server.is_primary() => drop(server.write(wal, Record::Checkpoint)),
            PostgresAction::CreateSlot(name) => {
                server.cluster_mut().map(|on_disk| on_disk.slots.insert(name));
            }
            PostgresAction::DropSlot(name) => {
                server.cluster_mut().map(|on_disk| on_disk.slots.remove(&name));
            }
            _ => {}
        }
        done
    }

    fn point_to(&mut self, node: usize, to: Option<NodeId>) {
        if let Some(on_disk) = self.nodes[node].server.cluster_mut() {
            on_disk.upstream = to;
        }
        self.stream(node);
    }
}

fn next_order(guard: &mut PretendGuard, now: Duration) -> Option<Order> {
    let (orders, _) = guard.agent.as_mut()?;
    match orders.try_recv() {
        Ok(order) => Some(order),
        Err(mpsc::error::TryRecvError::Empty) => None,
        Err(mpsc::error::TryRecvError::Disconnected) => {
            (guard.agent, guard.absent_since) = (None, Some(now));
            None
        }
    }
}

fn refused(why: &str) -> Outcome<PostgresDone> {
    Outcome::Refused(Refusal::Failed(why.into()))
}

/// A node as its agent has it.
pub(super) struct Node {
    machines: Machines,
    node: usize,
}

impl Node {
    fn server<T>(&self, look: impl FnOnce(&Server) -> T) -> T {
        look(&self.machines.all().nodes[self.node].server)
    }

    /// How its guard is found.
    pub(super) fn finder(self: &Arc<Self>) -> Finder {
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
