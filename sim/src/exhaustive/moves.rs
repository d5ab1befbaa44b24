//! What may happen next in the small world. What costs nothing always may: the oldest message comes, or, if none can,
//! time passes up to the next timer; what is late comes after all; what was struck recovers. Everything else is a fault
//! and paid for out of the path's budget.

use std::fmt;

use matriarch_core::event::{Event, MoveRequest, Request};
use matriarch_core::id::RequestId;

use super::world::{Message, Past, World, name};
use crate::store::Gone;

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A message is late: others come first, and time may pass.
    Delay,
    /// A message is lost.
    Lose,
    /// A request is lost, and whoever asked is told that its connection broke.
    Reset,
    /// SIGKILL to an agent.
    KillAgent,
    /// SIGSTOP to an agent.
    FreezeAgent,
    /// SIGKILL to a guard.
    KillGuard,
    /// SIGKILL to a postmaster; its backends go on, or not.
    KillPostmaster,
    /// Nothing passes between a node and the others.
    Cut,
    /// Somebody deletes the leader key.
    LoseKey,
    /// The lease of the leader key ends before its time.
    LoseLease,
    /// An operator asks for a switchover.
    Switchover,
    /// SIGTERM to the leader's agent.
    Leave,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Delay,
        Self::Lose,
        Self::Reset,
        Self::KillAgent,
        Self::FreezeAgent,
        Self::KillGuard,
        Self::KillPostmaster,
        Self::Cut,
        Self::LoseKey,
        Self::LoseLease,
        Self::Switchover,
        Self::Leave,
    ];
}

/// One thing that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Move {
    /// The oldest message that can be delivered is.
    Deliver,
    /// Nothing can be delivered: time passes.
    Wait,
    /// What was late comes.
    Late(usize),
    /// A frozen agent goes on.
    Thaw(usize),
    /// An agent is started.
    Start(usize),
    /// A node is connected again.
    Heal(usize),
    /// The oldest message is late: others come first, and time may pass.
    Delay,
    /// The oldest message is lost.
    Lose,
    /// The oldest request is lost, and whoever asked is told that its connection broke.
    Reset,
    /// SIGKILL to an agent.
    KillAgent(usize),
    /// SIGSTOP to an agent.
    FreezeAgent(usize),
    /// SIGKILL to a guard.
    KillGuard(usize),
    /// SIGKILL to a postmaster; its backends go on, or not.
    KillPostmaster(usize, bool),
    /// Nothing passes between a node and the others.
    Cut(usize),
    /// Somebody deletes the leader key.
    LoseKey,
    /// The lease of the leader key ends before its time.
    LoseLease,
    /// An operator asks for a switchover.
    Switchover,
    /// SIGTERM to the leader's agent.
    Leave,
}

impl Move {
    /// It costs nothing.
    pub(super) fn is_free(self) -> bool {
        self.fault().is_none()
    }

    /// What kind of fault it is, if it is one.
    fn fault(self) -> Option<Fault> {
        Some(match self {
            Self::Deliver | Self::Wait | Self::Late(_) | Self::Thaw(_) | Self::Start(_) | Self::Heal(_) => return None,
            Self::Delay => Fault::Delay,
            Self::Lose => Fault::Lose,
            Self::Reset => Fault::Reset,
            Self::KillAgent(_) => Fault::KillAgent,
            Self::FreezeAgent(_) => Fault::FreezeAgent,
            Self::KillGuard(_) => Fault::KillGuard,
            Self::KillPostmaster(..) => Fault::KillPostmaster,
            Self::Cut(_) => Fault::Cut,
            Self::LoseKey => Fault::LoseKey,
            Self::LoseLease => Fault::LoseLease,
            Self::Switchover => Fault::Switchover,
            Self::Leave => Fault::Leave,
        })
    }

    /// It takes a fault back.
    pub(super) fn heals(self) -> bool {
        matches!(self, Self::Late(_) | Self::Thaw(_) | Self::Start(_) | Self::Heal(_))
    }
}

impl World {
    /// Everything that may happen next: first what costs nothing, the usual course foremost.
    pub(super) fn moves(&self) -> Vec<Move> {
        let oldest = self.oldest();
        let mut moves = vec![if oldest.is_some() { Move::Deliver } else { Move::Wait }];
        let late = self.late.iter().enumerate().filter(|(_, message)| self.is_deliverable(message));
        moves.extend(late.map(|(index, _)| Move::Late(index)));
        for (node, host) in self.nodes.iter().enumerate() {
            match &host.agent {
                None => moves.push(Move::Start(node)),
                Some(agent) if agent.frozen => moves.push(Move::Thaw(node)),
                Some(_) => {}
            }
            if host.cut {
                moves.push(Move::Heal(node));
            }
        }
        if self.faults > 0 {
            let next = oldest.map(|index| &*self.queue[index]);
            if let Some(message) = next {
                self.faults_of(message, &mut moves);
            }
            for node in 0..2 {
                if next.is_none_or(|message| message.concerns(node)) {
                    self.faults_at(node, &mut moves);
                }
            }
            self.faults_of_leading(next, &mut moves);
            moves.retain(|what| what.fault().is_none_or(|fault| self.only.contains(&fault)));
        }
        moves
    }

    fn oldest(&self) -> Option<usize> {
        self.queue.iter().position(|message| self.is_deliverable(message))
    }

    fn faults_of(&self, message: &Message, moves: &mut Vec<Move>) {
        // What tells the holder of a key that it is gone, and what acts on that, does not come late where the key may
        // go early: no clock closes that (docs/time.md).
        let may_be_deaf = !self.past.early;
        match message {
            Message::Request { .. } => moves.extend([Move::Delay, Move::Lose, Move::Reset]),
            Message::Reply { .. } => moves.extend([Move::Delay, Move::Lose]),
            Message::Question { .. } | Message::Answer { .. } => moves.push(Move::Lose),
            Message::Watch { .. } | Message::Order { .. } | Message::Report { .. } if may_be_deaf => {
                moves.push(Move::Delay);
            }
            Message::Execute { .. } | Message::Server { .. } | Message::Write { .. } => moves.push(Move::Delay),
            // An agent that is late with all of it is one that is frozen; the guard is never late.
            Message::Tick { .. }
            | Message::Watch { .. }
            | Message::Observe { .. }
            | Message::Look { .. }
            | Message::Order { .. }
            | Message::Report { .. }
            | Message::GuardReached { .. }
            | Message::GuardWakes { .. } => {}
            // etcd may take longer over it.
            Message::LeasesEnd => moves.push(Move::Delay),
        }
    }

    fn faults_at(&self, node: usize, moves: &mut Vec<Move>) {
        let host = &self.nodes[node];
        // A dead or frozen agent and a dead guard together leave nobody to stop PostgreSQL (docs/time.md).
        let agent = host.agent.as_ref().is_some_and(|agent| !agent.frozen);
        if agent && !self.past.early && !self.past.unguarded {
            moves.extend([Move::KillAgent(node), Move::FreezeAgent(node)]);
        }
        if host.guard.is_some() && !self.past.early && !self.past.agent {
            moves.push(Move::KillGuard(node));
        }
        if let Some(pm) = &host.server.postmaster {
            moves.push(Move::KillPostmaster(node, false));
            if !pm.in_recovery {
                moves.push(Move::KillPostmaster(node, true));
            }
        }
        if !host.cut && !self.past.early {
            moves.push(Move::Cut(node));
        }
    }

    fn faults_of_leading(&self, next: Option<&Message>, moves: &mut Vec<Move>) {
        let Some(leader) = &self.store.keys().leader else { return };
        if !self.past.deaf && next.is_none_or(Message::concerns_keys) {
            moves.extend([Move::LoseKey, Move::LoseLease]);
        }
        let Some(node) = (0..2).find(|node| name(*node) == leader.member) else { return };
        let asked = self.nodes[node].agent.is_some() && next.is_none_or(|message| message.concerns(node));
        if asked && !self.past.operated {
            moves.extend([Move::Switchover, Move::Leave]);
        }
    }

    /// The world after a move.
    pub(super) fn after(&self, what: Move) -> Self {
        let mut next = self.clone();
        next.said = super::world::Said { aloud: self.said.aloud, ..Default::default() };
        if !what.is_free() {
            next.faults -= 1;
            next.past = next.past.and(what, self.oldest().map(|index| &*self.queue[index]));
        }
        if what != Move::Wait {
            let goes_on = what == Move::Deliver
                && self.oldest().is_some_and(|index| {
                    matches!(
                        &*self.queue[index],
                        Message::Tick { .. }
                            | Message::Request { .. }
                            | Message::Reply { .. }
                            | Message::Observe { .. }
                    )
                });
            next.happens_now(!goes_on);
        }
        next.happens(what);
        next.flow();
        next.check();
        next
    }

    fn happens(&mut self, what: Move) {
        match what {
            Move::Deliver => {
                if let Some(message) = self.take_oldest() {
                    self.deliver(message);
                }
            }
            Move::Wait => {
                let all_live = self.nodes.iter().all(|node| node.agent.as_ref().is_some_and(|agent| !agent.frozen));
                if !self.time_passes() && all_live {
                    self.breaks("L4", "nothing is under way, and nobody waits for anything".into());
                }
            }
            Move::Late(index) => {
                let message = self.late.remove(index);
                self.deliver(Message::clone(&message));
            }
            Move::Delay => {
                if let Some(message) = self.take_oldest() {
                    self.late.push(super::world::Shared::new(message));
                }
            }
            Move::Lose => drop(self.take_oldest()),
            Move::Reset => {
                if let Some(message) = self.take_oldest() {
                    self.reset(&message);
                }
            }
            Move::Thaw(node) => {
                if let Some(agent) = &mut self.nodes[node].agent {
                    agent.frozen = false;
                }
            }
            Move::FreezeAgent(node) => {
                if let Some(agent) = &mut self.nodes[node].agent {
                    agent.frozen = true;
                }
                self.forget(|message| matches!(message, Message::Tick { node: n } if *n == node));
            }
            Move::Start(node) => self.start_agent(node),
            Move::KillAgent(node) => self.agent_gone(node),
            Move::Heal(node) => {
                self.nodes[node].cut = false;
                for node in 0..2 {
                    self.tell_keys(node);
                }
            }
            Move::Cut(node) => self.cut(node),
            Move::KillGuard(node) => {
                self.nodes[node].guard = None;
                self.forget(|message| matches!(message, Message::GuardWakes { node: n } | Message::Order { node: n, .. } if *n == node));
                if self.nodes[node].agent.is_some() && self.mutant != Some(crate::mutant::Mutant::GuardDeathUnheard) {
                    let event = matriarch_core::event::GuardEvent::Gone;
                    self.send(Message::Report { node, event });
                }
            }
            Move::KillPostmaster(node, backends) => {
                self.nodes[node].server.postmaster_dies();
                if !backends {
                    self.nodes[node].server.dies();
                }
                self.forget(|message| matches!(message, Message::Server { node: n, .. } if *n == node));
                self.look_soon(node);
            }
            Move::LoseKey => {
                self.store.delete_leader();
                self.store_changed();
            }
            Move::LoseLease => {
                if let Some(lease) = self.store.keys().leader.as_ref().map(|leader| leader.lease) {
                    self.store.end(lease, Gone::Early);
                    self.store_changed();
                }
            }
            Move::Switchover => self.asks_for_switchover(),
            Move::Leave => {
                let leader = self.store.keys().leader.as_ref().map(|leader| leader.member.clone());
                if let Some(node) = (0..2).find(|node| Some(name(*node)) == leader) {
                    self.step(node, Event::ShutdownAsked);
                }
            }
        }
    }

    fn take_oldest(&mut self) -> Option<Message> {
        let index = self.oldest()?;
        Some(Message::clone(&self.queue.remove(index)))
    }

    /// What was on its way is lost. A primary goes on to write, and nobody receives it.
    fn cut(&mut self, node: usize) {
        self.nodes[node].cut = true;
        self.forget(|message| match message {
            Message::Request { node: n, .. } | Message::Reply { node: n, .. } | Message::Watch { node: n, .. } => {
                *n == node
            }
            Message::Question { .. } | Message::Answer { .. } => true,
            _ => false,
        });
        if self.nodes[node].server.can_acknowledge() {
            self.nodes[node].server.write();
        }
    }

    fn asks_for_switchover(&mut self) {
        let Some(leader) = self.store.keys().leader.as_ref().map(|leader| leader.member.clone()) else { return };
        let Some(node) = (0..2).find(|node| name(*node) == leader) else { return };
        let Some(agent) = self.nodes[node].agent.as_mut() else { return };
        agent.requests += 1;
        let id = RequestId(agent.requests);
        let request = MoveRequest {
            switchover: true,
            leader: Some(leader),
            candidate: Some(name(1 - node)),
            scheduled_at: None,
            refused: false,
        };
        self.step(node, Event::Operator(id, Request::Move(request)));
    }
}

/// A fault comes right before something that it could change, or before time passes: whatever else comes first neither
/// sees nor changes what it strikes, so that the two orders end in the same state, but for the order of what they send.
impl Message {
    fn concerns(&self, node: usize) -> bool {
        match self {
            Self::Tick { node: n }
            | Self::Reply { node: n, .. }
            | Self::Watch { node: n, .. }
            | Self::Look { node: n }
            | Self::Write { node: n, .. }
            | Self::Order { node: n, .. }
            | Self::Report { node: n, .. }
            | Self::GuardReached { node: n }
            | Self::GuardWakes { node: n }
            | Self::Answer { node: n, .. } => *n == node,
            // It sends to both, or what one server does flows to the other, or it looks at what flows.
            Self::Request { .. }
            | Self::Observe { .. }
            | Self::Question { .. }
            | Self::Execute { .. }
            | Self::Server { .. }
            | Self::LeasesEnd => true,
        }
    }

    fn concerns_keys(&self) -> bool {
        matches!(self, Self::Request { .. } | Self::Watch { .. } | Self::LeasesEnd)
    }
}

impl Past {
    fn and(mut self, what: Move, oldest: Option<&Message>) -> Self {
        match what {
            Move::LoseKey | Move::LoseLease => self.early = true,
            Move::KillAgent(_) | Move::FreezeAgent(_) => (self.deaf, self.agent) = (true, true),
            Move::KillGuard(_) => (self.deaf, self.unguarded) = (true, true),
            Move::Cut(_) => self.deaf = true,
            Move::Switchover | Move::Leave => self.operated = true,
            Move::Delay => {
                let hearing =
                    matches!(oldest, Some(Message::Watch { .. } | Message::Order { .. } | Message::Report { .. }));
                self.deaf |= hearing;
            }
            _ => {}
        }
        self
    }
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deliver => f.write_str("comes"),
            Self::Wait => f.write_str("time passes"),
            Self::Late(_) => f.write_str("comes late"),
            Self::Thaw(node) => write!(f, "the agent of {} thaws", name(*node)),
            Self::Start(node) => write!(f, "the agent of {} is started", name(*node)),
            Self::Heal(node) => write!(f, "{} is connected again", name(*node)),
            Self::Delay => f.write_str("is late"),
            Self::Lose => f.write_str("is lost"),
            Self::Reset => f.write_str("is lost with its connection"),
            Self::KillAgent(node) => write!(f, "the agent of {} is killed", name(*node)),
            Self::FreezeAgent(node) => write!(f, "the agent of {} is frozen", name(*node)),
            Self::KillGuard(node) => write!(f, "the guard of {} is killed", name(*node)),
            Self::KillPostmaster(node, false) => write!(f, "PostgreSQL of {} is killed", name(*node)),
            Self::KillPostmaster(node, true) => write!(f, "the postmaster of {} alone is killed", name(*node)),
            Self::Cut(node) => write!(f, "{} is cut off", name(*node)),
            Self::LoseKey => f.write_str("the leader key is deleted by hand"),
            Self::LoseLease => f.write_str("the lease of the leader key ends early"),
            Self::Switchover => f.write_str("an operator asks for a switchover"),
            Self::Leave => f.write_str("the leader's agent is asked to stop"),
        }
    }
}
