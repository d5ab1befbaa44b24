//! What is pretended of each node: a PostgreSQL server (the simulated world's model of one), a guard (with the real
//! rules of arming) and small files. They live beside the agent's host, so that they outlive an agent that crashes, and go on
//! with each step of the world.

#[path = "machine/guard.rs"]
mod guard;
#[path = "machine/node.rs"]
mod node;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use matriarch::postgres::Changed;
use matriarch_core::action::PostgresAction;
use matriarch_core::event::{PostgresDone, Started};
use matriarch_core::id::{LeaseId, Member, Pid, SystemId};
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::view::postgres::{ControlState, Phase, StopMode, Upstream};
use matriarch_sim::node::NodeId;
use matriarch_sim::postgres::wal::{Record, Serial, Wal};
use matriarch_sim::postgres::{Outgoing, Server, Stream};
use matriarch_sim::time::Time;
use tokio::sync::mpsc;

use guard::PretendGuard;
pub(crate) use node::Node;

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
            PostgresAction::Configure { generation } => {
                return Outcome::Done(PostgresDone::Configured { generation, changed: true });
            }
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
                server.cluster_mut().map(|on_disk| on_disk.slots.entry(name).or_insert(on_disk.checkpoint.0));
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

fn refused(why: &str) -> Outcome<PostgresDone> {
    Outcome::Refused(Refusal::Failed(why.into()))
}
