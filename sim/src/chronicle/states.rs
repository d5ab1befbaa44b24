//! The states of a world as they are shown: looked at after everything that happens, kept where they changed.

use matriarch_core::action::PostgresAction;
use matriarch_core::view::View;
use matriarch_core::view::postgres::Phase;
use serde::Serialize;

use super::{Chronicle, us};
use crate::node::{Agent, Node, NodeId};
use crate::world::World;

/// A node as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct NodeState {
    /// PostgreSQL.
    pub server: Server,
    /// A client that reached it could have a commit acknowledged.
    pub serves: bool,
    /// The agent.
    pub agent: AgentState,
    /// The tenure that the agent believes in, and until when it does unless it hears more.
    pub belief: Option<Lease>,
    /// The guard.
    pub guard: GuardState,
    /// What the guard is armed for, and when its fence falls.
    pub armed: Option<Lease>,
}

/// PostgreSQL as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Server {
    /// What it does.
    pub is: Postgres,
    /// The timeline that its WAL ends on.
    pub timeline: Option<u32>,
    /// The node that it follows, or is copied from.
    pub source: Option<usize>,
}

/// What PostgreSQL does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Postgres {
    /// The host is down.
    Off,
    /// No postmaster runs.
    Down,
    /// No postmaster runs, and backends of the last one do.
    Orphans,
    /// A new cluster is made.
    Initialising,
    /// The directory is copied from another node.
    Cloning,
    /// pg_rewind runs.
    Rewinding,
    /// It starts, or recovers.
    Starting,
    /// A standby that streams.
    Standby,
    /// A standby that receives nothing.
    Waiting,
    /// A standby that was told to promote.
    Promoting,
    /// A primary.
    Primary,
    /// It shuts down.
    Stopping,
    /// All of its processes stand still.
    Held,
}

/// What an agent does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// None runs.
    Dead,
    /// It stands still.
    Frozen,
    /// It runs.
    Running,
}

/// What a guard does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardState {
    /// None runs.
    Gone,
    /// Nothing is armed.
    Idle,
    /// It will kill PostgreSQL at an instant.
    Armed,
    /// PostgreSQL is held.
    Holding,
    /// The fence falls.
    Firing,
    /// Its agent is dead, and it stops PostgreSQL.
    WindingDown,
}

/// A tenure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Lease {
    /// Its lease.
    pub lease: i64,
    /// Until when.
    pub until: u64,
}

/// The store as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StoreState {
    /// Its members.
    pub members: Vec<Member>,
    /// The node that holds the leader key.
    pub holder: Option<usize>,
    /// The lease that the key hangs on, and when that ends.
    pub key: Option<Lease>,
}

/// What a member of the store does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Member {
    /// It does not run.
    Down,
    /// It stands still.
    Frozen,
    /// It runs, and there is no leader that it could serve by.
    Waiting,
    /// It runs.
    Up,
    /// It leads.
    Leading,
}

impl Chronicle {
    /// Looks at a world, and keeps what has changed.
    pub(crate) fn look_at(&mut self, world: &World) {
        let at = us(world.now);
        for node in &world.nodes {
            let state = node_state(world, node);
            changed(&mut self.node(node.id).states, at, state);
        }
        changed(&mut self.store, at, store_state(world));
    }

    /// The run is over: what was lost is known.
    pub(crate) fn over(&mut self, world: &World) {
        self.look_at(world);
        for fault in world.checks.struck.keys() {
            self.ended(world.now, *fault);
        }
        let serving = world.nodes.iter().find(|node| node.server.can_acknowledge());
        let Some(held) = serving.and_then(Node::place) else { return };
        let mut counts = vec![0; world.nodes.len()];
        for row in &world.ledger.acknowledged {
            if !world.wal.contains(held, row.place) {
                self.node(row.node).lost.push(counts[row.node.0]);
            }
            counts[row.node.0] += 1;
        }
    }
}

/// Of what happens within a microsecond the last counts.
fn changed<T: PartialEq>(states: &mut Vec<(u64, T)>, at: u64, state: T) {
    match states.last_mut() {
        Some((_, last)) if *last == state => {}
        Some((since, last)) if *since == at => *last = state,
        _ => states.push((at, state)),
    }
}

fn node_state(world: &World, node: &Node) -> NodeState {
    let when = |armed: matriarch_core::view::guard::Armed| Lease {
        lease: armed.tenure.0,
        until: us(node.clock.when(armed.at)),
    };
    let agent = node.agent.as_ref();
    let believed = agent.and_then(|agent| {
        let view = View { at: node.clock.read(world.now), state: &agent.state };
        view.promise().filter(|_| view.authority())
    });
    NodeState {
        server: server(world, node),
        serves: node.server.can_acknowledge(),
        agent: match agent {
            None => AgentState::Dead,
            Some(agent) if agent.frozen => AgentState::Frozen,
            Some(_) => AgentState::Running,
        },
        belief: believed.map(when),
        guard: guard(node),
        armed: node.guard.as_ref().and_then(|guard| guard.armed).map(when),
    }
}

fn guard(node: &Node) -> GuardState {
    match &node.guard {
        None => GuardState::Gone,
        Some(guard) if guard.firing => GuardState::Firing,
        Some(guard) if guard.held => GuardState::Holding,
        Some(guard) if guard.winding_down => GuardState::WindingDown,
        Some(guard) if guard.armed.is_some() => GuardState::Armed,
        Some(_) => GuardState::Idle,
    }
}

fn server(world: &World, node: &Node) -> Server {
    let on_disk = node.server.cluster();
    let timeline = on_disk.map(|on_disk| world.wal.timeline(on_disk.end).0);
    let upstream = on_disk.and_then(|on_disk| on_disk.upstream).map(|from| from.0);
    let (is, source) = match (&node.server.postmaster, node.agent.as_ref().and_then(|agent| tool(world, agent))) {
        _ if !node.up => (Postgres::Off, None),
        _ if node.server.held => (Postgres::Held, None),
        (None, _) if node.server.orphans.is_some() => (Postgres::Orphans, None),
        (None, Some(tool)) => tool,
        (None, None) => (Postgres::Down, None),
        (Some(pm), _) if pm.stopping.is_some() => (Postgres::Stopping, None),
        (Some(pm), _) if pm.phase == Phase::Starting => (Postgres::Starting, None),
        (Some(pm), _) if pm.promoting.is_some() => (Postgres::Promoting, None),
        (Some(pm), _) if !pm.in_recovery => (Postgres::Primary, None),
        (Some(pm), _) => match pm.stream {
            Some(stream) => (Postgres::Standby, Some(stream.from.0)),
            None => (Postgres::Waiting, upstream),
        },
    };
    Server { is, timeline, source }
}

/// The tool that an agent runs on the data directory, and the node that it reads from.
fn tool(world: &World, agent: &Agent) -> Option<(Postgres, Option<usize>)> {
    let from = |member| world.names.iter().position(|name| name == member);
    agent.jobs.values().find_map(|job| match &job.action {
        PostgresAction::Initdb => Some((Postgres::Initialising, None)),
        PostgresAction::Clone(upstream) => Some((Postgres::Cloning, from(&upstream.member))),
        PostgresAction::Rewind(upstream) => Some((Postgres::Rewinding, from(&upstream.member))),
        _ => None,
    })
}

fn store_state(world: &World) -> StoreState {
    let members = world.members.iter().enumerate().map(|(index, member)| match (member.up, member.frozen) {
        (false, _) => Member::Down,
        (true, true) => Member::Frozen,
        (true, false) if world.store_leader == Some(index) => Member::Leading,
        (true, false) if world.store_leader.is_some() => Member::Up,
        (true, false) => Member::Waiting,
    });
    let leader = world.store.keys().leader.as_ref();
    StoreState {
        members: members.collect(),
        holder: world.leading().map(|NodeId(index)| index),
        key: leader
            .map(|leader| Lease { lease: leader.lease.0, until: world.store.lease_until(leader.lease).map_or(0, us) }),
    }
}
