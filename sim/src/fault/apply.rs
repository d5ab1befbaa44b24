//! What a fault does to the world, and what its end does.

use matriarch_core::action::Action;
use matriarch_core::event::{Event, MoveRequest, Request};

use super::{Phase, Watching, What, When, Where};
use crate::coverage;
use crate::net::{End, Link, Plane};
use crate::node::{Message, NodeId};
use crate::postgres::Disk;
use crate::store::Gone;
use crate::time::{Time, ms};
use crate::world::{Due, World};

impl World {
    /// Every fault of the plan waits for its time or its order.
    pub fn schedule_faults(&mut self) {
        for index in 0..self.plan.faults.len() {
            match &self.plan.faults[index].when {
                When::AtMs(at) => {
                    let at = Time::from_ms(*at);
                    self.at(at, Due::Fault(index));
                }
                When::Order { nth, .. } => self.watching.push(Watching { index, left: *nth }),
            }
        }
    }

    /// An order is about to be carried out: faults that wait for it strike. True if one is to strike right after it.
    pub fn order_begins(&mut self, node: NodeId, action: &Action) -> bool {
        if self.watching.is_empty() || self.healed.is_some() {
            return false;
        }
        let kind = coverage::kind(action);
        let (mut now, mut after) = (Vec::new(), false);
        for watching in &mut self.watching {
            let When::Order { kind: wanted, after_ms, phase, .. } = &self.plan.faults[watching.index].when else {
                continue;
            };
            if wanted != kind || self.now < Time::from_ms(*after_ms) || watching.left == 0 {
                continue;
            }
            watching.left -= 1;
            if watching.left == 0 {
                match phase {
                    Phase::Before => now.push(watching.index),
                    Phase::After => after = true,
                }
            }
        }
        for index in now {
            self.watching.retain(|watching| watching.index != index);
            self.strike(index, Some(node));
        }
        after
    }

    /// An order has been begun: faults that waited for that strike.
    pub fn order_ended(&mut self, node: NodeId) {
        let due: Vec<usize> = self.watching.iter().filter(|w| w.left == 0).map(|w| w.index).collect();
        self.watching.retain(|watching| watching.left > 0);
        for index in due {
            self.strike(index, Some(node));
        }
    }

    /// A fault begins by its time.
    pub fn fault_begins(&mut self, index: usize) {
        if self.healed.is_none() {
            self.strike(index, None);
        }
    }

    fn strike(&mut self, index: usize, orderer: Option<NodeId>) {
        let fault = self.plan.faults[index].clone();
        let node = |place| self.node_at(place, orderer);
        let struck = match fault.what {
            What::KillPostmaster(place, _)
            | What::KillPostgres(place)
            | What::KillAgent(place)
            | What::FreezeAgent(place)
            | What::StopAgent(place)
            | What::KillGuard(place)
            | What::CrashHost(place)
            | What::Isolate(place)
            | What::CutStore(place)
            | What::CutToStore(place)
            | What::CutFromStore(place)
            | What::CutAgents(place)
            | What::CutReplication(place)
            | What::SilenceWatches(place)
            | What::FillDisk(place)
            | What::PauseReplay(place)
            | What::RemoveData(place)
            | What::Switchover(place)
            | What::Restart(place)
            | What::Reinitialize(place) => Some(node(place)),
            _ => None,
        };
        let now = self.now;
        self.trace.world(now, '*', || match struck {
            Some(node) => format!("{:?} for {} ms, node {}", fault.what, fault.for_ms, crate::node::name(node)),
            None => format!("{:?} for {} ms", fault.what, fault.for_ms),
        });
        self.coverage.count("fault");
        self.checks.disturbed(struck, now);
        if let (What::Isolate(_), Some(node)) = (fault.what, struck) {
            self.checks.isolated[node.0].get_or_insert(now);
        }
        self.take_effect(index, fault.what, struck.unwrap_or(NodeId(0)), fault.for_ms);
    }

    fn node_at(&self, place: Where, orderer: Option<NodeId>) -> NodeId {
        match (place, orderer) {
            (Where::Node(index), _) => NodeId(index % self.nodes.len()),
            (Where::Orderer, Some(node)) => node,
            (Where::Leader | Where::Orderer, _) => self.leading().unwrap_or(NodeId(0)),
        }
    }

    /// The node that the leader key names.
    pub fn leading(&self) -> Option<NodeId> {
        let leader = self.store.keys().leader.as_ref()?;
        self.names.iter().position(|name| *name == leader.member).map(NodeId)
    }

    fn take_effect(&mut self, index: usize, what: What, node: NodeId, for_ms: u64) {
        let ends = Due::FaultEnds(index);
        match what {
            What::KillPostmaster(_, backends) => self.postmaster_killed(node, backends, for_ms),
            What::KillPostgres(_) => self.gone(node),
            What::KillAgent(_) => {
                self.agent_gone(node);
                self.later(ms(for_ms), Due::StartAgent(node));
            }
            What::StopAgent(_) => {
                self.tell(node, ms(1), Message::event(Event::ShutdownAsked));
                self.later(ms(for_ms), Due::StartAgent(node));
            }
            What::KillGuard(_) => self.guard_killed(node),
            What::CrashHost(_) => {
                self.host_crashes(node);
                self.checks.struck.insert(index, node);
                self.later(ms(for_ms), ends);
            }
            What::LoseKey => {
                self.store.delete_leader();
                self.store_changed();
            }
            What::LoseLease => {
                if let Some(lease) = self.store.keys().leader.as_ref().map(|leader| leader.lease) {
                    self.store.end(lease, Gone::Early);
                    self.store_changed();
                }
            }
            What::RemoveData(_) => {
                if self.leading() != Some(node) && self.leading().is_some() {
                    self.nodes[node.0].server.disk = Disk::Empty;
                    // A server whose files are gone does not last.
                    self.gone(node);
                }
            }
            What::Switchover(_) => self.switchover(node),
            What::Restart(_) => self.operator_asks(node, Request::Restart),
            What::Reinitialize(_) => {
                self.operator_asks(node, Request::Reinitialize { force: false, from_leader: false });
            }
            lasting => {
                self.set(lasting, node, true);
                self.checks.struck.insert(index, node);
                self.later(ms(for_ms), ends);
            }
        }
    }

    /// A fault that lasts begins or ends.
    fn set(&mut self, what: What, node: NodeId, on: bool) {
        let host = &mut self.nodes[node.0];
        match what {
            What::FreezeAgent(_) if on => {
                if let Some(agent) = &mut host.agent {
                    agent.frozen = true;
                }
            }
            What::FreezeAgent(_) => self.thaw(node),
            What::SlowNetwork(times) => {
                self.net.slowness = if on { times } else { 1 };
                self.checks.slow_at = Some(self.now);
            }
            What::SilenceWatches(_) => self.checks.silent[node.0] = on,
            What::FillDisk(_) => host.files.full = on,
            What::PauseReplay(_) if on => {
                host.server.replay_paused = host.server.postmaster.as_ref().is_some_and(|pm| pm.in_recovery);
            }
            What::PauseReplay(_) => self.replay_goes_on(node),
            What::StopStoreMember(member) => self.store_member(member, |state| state.up = !on),
            What::FreezeStoreMember(member) => self.store_member(member, |state| state.frozen = on),
            What::StopStore => {
                for member in 0..self.members.len() {
                    self.store_member(member, |state| state.up = !on);
                }
            }
            cut => {
                for link in self.links(cut, node) {
                    if on { self.net.cut(link) } else { self.mend(link) }
                }
            }
        }
    }

    fn links(&self, what: What, node: NodeId) -> Vec<Link> {
        let here = End::Node(node);
        let others: Vec<End> = (0..self.nodes.len()).map(NodeId).filter(|n| *n != node).map(End::Node).collect();
        let stores: Vec<End> = (0..self.members.len()).map(End::Store).collect();
        let both = |plane, a: End, ends: &[End]| -> Vec<Link> {
            ends.iter().flat_map(|b| [(plane, a, *b), (plane, *b, a)]).collect()
        };
        match what {
            What::Isolate(_) => [
                both(Plane::Store, here, &stores),
                both(Plane::Agents, here, &others),
                both(Plane::Replication, here, &others),
            ]
            .concat(),
            What::CutStore(_) => both(Plane::Store, here, &stores),
            What::CutToStore(_) => stores.iter().map(|store| (Plane::Store, here, *store)).collect(),
            What::CutFromStore(_) => stores.iter().map(|store| (Plane::Store, *store, here)).collect(),
            What::CutAgents(_) => both(Plane::Agents, here, &others),
            What::CutReplication(_) => both(Plane::Replication, here, &others),
            What::CutStoreMember(member) => {
                let member = End::Store(member % self.members.len());
                let nodes: Vec<End> = (0..self.nodes.len()).map(NodeId).map(End::Node).collect();
                let rest: Vec<End> = stores.iter().copied().filter(|store| *store != member).collect();
                [both(Plane::Store, member, &nodes), both(Plane::Store, member, &rest)].concat()
            }
            _ => Vec::new(),
        }
    }

    /// A link is whole again: what waited for it comes, or its connection is given up.
    fn mend(&mut self, link: Link) {
        if !self.net.mend(link) {
            return;
        }
        let (mine, others) = std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.link == link);
        self.waiting = others;
        let mine: Vec<crate::net::Waiting<Due>> = mine;
        let Some(since) = mine.first().map(|waiting| waiting.since) else { return };
        let survives = self.net.survives(self.now.since(since));
        for waiting in mine {
            match waiting.what {
                what if survives => self.send(link, what),
                Due::Agent { node, boot, message } => {
                    if let Message::Watched { watch, .. } = *message {
                        self.later(ms(1), Due::agent(node, boot, Message::WatchLost { watch }));
                    }
                }
                Due::Wal { node, from, .. } | Due::WalReply { node: from, from: node, .. } => {
                    self.stream_dies(node, from);
                }
                // The end of a connection is found out, if not told.
                lost @ Due::Server { .. } => self.later(ms(1), lost),
                _ => {}
            }
        }
    }

    fn store_member(&mut self, member: usize, change: impl Fn(&mut crate::world::StoreMember)) {
        let member = member % self.members.len();
        change(&mut self.members[member]);
        let state = self.members[member];
        if !state.up {
            for node in 0..self.nodes.len() {
                self.watches_break(NodeId(node), member);
            }
        }
        // One alone that stands still loses its lead to nobody: it goes on as if nothing had been.
        let alone = self.members.len() == 1;
        let leads = |member: &crate::world::StoreMember| member.up && (alone || !member.frozen);
        let able = self.members.iter().filter(|member| leads(member)).count();
        let lost = self.store_leader.is_some_and(|leader| !leads(&self.members[leader]));
        if lost || able * 2 <= self.members.len() {
            self.store_leader = None;
        }
        if self.store_leader.is_none() {
            // One alone is there at once, three take one to two election timeouts.
            let election = if self.members.len() == 1 { (5, 100) } else { (1000, 2000) };
            let takes = self.store_random.between(election.0, election.1);
            self.later(ms(takes), Due::StoreElected);
        } else {
            self.store_answers_again();
        }
    }

    fn watches_break(&mut self, node: NodeId, member: usize) {
        let Some(agent) = &self.nodes[node.0].agent else { return };
        let broken: Vec<usize> = (0..2).filter(|watch| agent.watches[*watch].member == Some(member)).collect();
        for watch in broken {
            self.tell(node, ms(1), Message::WatchLost { watch });
        }
    }

    /// The agent goes on: everything that came in meanwhile is there at once.
    fn thaw(&mut self, node: NodeId) {
        let Some(agent) = self.nodes[node.0].agent.as_mut().filter(|agent| agent.frozen) else { return };
        agent.frozen = false;
        let boot = agent.boot;
        for message in std::mem::take(&mut agent.inbox) {
            self.later(std::time::Duration::from_micros(1), Due::agent(node, boot, message));
        }
    }

    fn host_crashes(&mut self, node: NodeId) {
        self.gone(node);
        self.nodes[node.0].guard = None;
        self.agent_gone(node);
        self.nodes[node.0].up = false;
    }

    fn host_comes_back(&mut self, node: NodeId) {
        self.nodes[node.0].up = true;
        self.later(ms(500), Due::StartAgent(node));
    }

    /// The operator asks the leader to hand over to this node, or to anybody.
    fn switchover(&mut self, node: NodeId) {
        let Some(leading) = self.leading() else { return };
        let candidate = (leading != node).then(|| self.names[node.0].clone());
        let request = MoveRequest {
            switchover: true,
            leader: Some(self.names[leading.0].clone()),
            candidate,
            scheduled_at: None,
            refused: false,
        };
        self.operator_asks(leading, Request::Move(request));
    }

    /// A fault ends by its time.
    pub fn fault_ends(&mut self, index: usize) {
        let Some(node) = self.checks.struck.remove(&index) else { return };
        let what = self.plan.faults[index].what;
        let now = self.now;
        self.trace.world(now, '.', || format!("{what:?} ends"));
        self.checks.disturbed(Some(node), now);
        match what {
            What::CrashHost(_) => self.host_comes_back(node),
            What::Isolate(_) => {
                self.checks.isolated[node.0] = None;
                self.set(what, node, false);
            }
            lasting => self.set(lasting, node, false),
        }
    }

    /// The faults are over: everything heals, and whatever was down is started.
    pub fn heal(&mut self) {
        let lasting: Vec<usize> = self.checks.struck.keys().copied().collect();
        for index in lasting {
            self.fault_ends(index);
        }
        self.watching.clear();
        self.healed = Some(self.now);
        let now = self.now;
        self.trace.world(now, '=', || "everything heals".into());
        for node in 0..self.nodes.len() {
            self.later(ms(3000), Due::StartAgent(NodeId(node)));
        }
    }

    /// The node's watches tell nothing.
    pub fn plan_silences(&self, node: NodeId) -> bool {
        self.checks.silent[node.0]
    }
}
