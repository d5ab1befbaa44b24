//! The runtime's part of the small world: what reaches an agent is given to core, what core orders is sent on its way.

use std::collections::BTreeMap;

use matriarch_core::action::{Action, Answer, HostAction, PeerAction, PostgresAction, StoreAction};
use matriarch_core::effects::{Effects, Order};
use matriarch_core::event::{Event, GuardEvent, HostEvent, PeerEvent, PostgresEvent, Started, StoreDone, StoreEvent};
use matriarch_core::id::{OpId, RequestId, Revision};
use matriarch_core::op::Outcome;
use matriarch_core::state::State;
use matriarch_core::time::{Instant, Seen, WallMillis};
use matriarch_core::view::View;
use matriarch_core::view::peers::PeerAnswer;
use matriarch_core::view::postgres::{Process, StartAs};
use matriarch_core::view::store::ClusterView;

use super::world::{Agent, Ask, File, Job, Message, Question, Shared, World, config, name};
use crate::mutant::Mutant;
use crate::store::{Known, Request};

impl World {
    pub(super) fn start_agent(&mut self, node: usize) {
        let at = self.clock();
        let host = &mut *self.nodes[node];
        host.boots += 1;
        host.agent = Some(Agent {
            boot: host.boots,
            state: State::new(config(node), at),
            wake: None,
            frozen: false,
            armed: None,
            asked: BTreeMap::new(),
            requests: 0,
            job: None,
        });
        let started = Started { epoch: host.epoch, pledge: host.pledge };
        // As in the runtime: an agent is told of its guard before it is told of its files and its keys.
        if let Some(greeting) = self.guard_greets(node) {
            self.step(node, Event::Guard(greeting));
        }
        self.step(node, Event::Started(started));
        self.tell_keys(node);
    }

    /// The agent is gone, with everything that it had in hand; what it has sent goes on.
    pub(super) fn agent_gone(&mut self, node: usize) {
        self.nodes[node].agent = None;
        self.forget(|message| match message {
            Message::Tick { node: n }
            | Message::Reply { node: n, .. }
            | Message::Watch { node: n, .. }
            | Message::Execute { node: n, .. }
            | Message::Observe { node: n, .. }
            | Message::Look { node: n }
            | Message::Write { node: n, .. }
            | Message::Report { node: n, .. }
            | Message::GuardReached { node: n }
            | Message::Answer { node: n, .. } => *n == node,
            Message::Question { from, .. } => *from == node,
            Message::Request { .. }
            | Message::Server { .. }
            | Message::Order { .. }
            | Message::GuardWakes { .. }
            | Message::LeasesEnd => false,
        });
        self.guard_misses_agent(node);
    }

    /// The keys as they are, by a watch that begins.
    pub(super) fn tell_keys(&mut self, node: usize) {
        let view = ClusterView::clone(self.store.keys());
        self.send_watch(node, &Shared::new(view));
    }

    /// A watch tells in order: what is late keeps what comes after it, and whoever hears late hears the newest.
    pub(super) fn send_watch(&mut self, node: usize, view: &Shared<ClusterView>) {
        let host = &self.nodes[node];
        let Some(agent) = host.agent.as_ref().filter(|_| !host.cut) else { return };
        let theirs = |message: &Shared<Message>| matches!(&**message, Message::Watch { node: n, .. } if *n == node);
        let told = Shared::new(Message::Watch { node, view: view.clone() });
        if let Some(late) = self.late.iter_mut().find(|message| theirs(message)) {
            *late = told;
        } else if let Some(waiting) = self.queue.iter_mut().find(|message| agent.frozen && theirs(message)) {
            *waiting = told;
        } else {
            self.queue.push(told);
        }
    }

    /// One step of core, and everything that it orders.
    pub(super) fn step(&mut self, node: usize, event: Event) {
        let Some(event) = self.bent(node, event) else { return };
        let at = self.clock();
        let Some(agent) = &mut self.nodes[node].agent else { return };
        if let Event::Guard(event) = &event {
            heard(agent, event);
        }
        let Effects { orders, cancelled, wake, decision } = matriarch_core::step(&mut agent.state, at, event);
        agent.wake = wake.at;
        let boot = agent.boot;
        if agent.job.as_ref().is_some_and(|job| cancelled.contains(&job.op)) {
            agent.job = None;
        }
        self.said.decisions.extend(decision.map(|decision| (node, decision)));
        self.forget(|message| match message {
            Message::Execute { node: n, op, .. } => *n == node && cancelled.contains(op),
            Message::Tick { node: n } => *n == node && wake.at.is_none_or(|wake| wake > at),
            _ => false,
        });
        let (guard, others): (Vec<Order>, Vec<Order>) =
            orders.into_iter().partition(|order| matches!(order.action, Action::Guard(_)));
        for order in guard.into_iter().chain(others) {
            if self.said.aloud {
                self.said.orders.push((node, order.action.to_string()));
            }
            // It left, by the order before.
            if self.nodes[node].agent.as_ref().is_some_and(|agent| agent.boot == boot) {
                self.order(node, boot, order);
            }
        }
        self.give_up_questions(node);
        self.check_belief(node);
    }

    fn order(&mut self, node: usize, boot: u32, order: Order) {
        let Order { op, action, under, .. } = order;
        let asked = self.clock();
        let Some(agent) = &mut self.nodes[node].agent else { return };
        match action {
            Action::Guard(order) => {
                let instead_of = agent.armed;
                self.send(Message::Order { node, boot, order, instead_of });
            }
            Action::Answer(request, Answer::Position(answer)) => {
                if let Some((from, boot, op, asked)) = agent.asked.remove(&request) {
                    self.answer(node, from, boot, op, asked, Outcome::Done(answer));
                }
            }
            Action::Answer(_, Answer::Text { .. }) => {}
            Action::Host(HostAction::StartGuard) => self.send(Message::GuardReached { node }),
            Action::Host(HostAction::Exit { .. }) => self.agent_leaves(node),
            Action::Host(HostAction::WriteEpoch(file)) => {
                self.send(Message::Write { node, op, file: File::Epoch(file) });
            }
            Action::Host(HostAction::WritePledge(pledge)) => {
                self.send(Message::Write { node, op, file: File::Pledge(pledge) });
            }
            Action::Store(action) => {
                let ask = self.ask(node, action);
                self.send_far(node, Message::Request { node, boot, op, asked, ask });
            }
            Action::Peer(action) => {
                let question = match action {
                    PeerAction::AskPosition { absent_at, .. } => Question::Position { absent_at },
                    PeerAction::AskStatus { .. } => Question::Status,
                    PeerAction::AwaitReplay { .. } => Question::Replayed,
                };
                self.send_far(node, Message::Question { from: node, boot, op, asked, question });
            }
            Action::Postgres(PostgresAction::Observe) => self.send(Message::Observe { node, op, asked }),
            Action::Postgres(PostgresAction::Look) => {
                self.look_soon(node);
                // Without an answer to the query: the look that is sent before it tells.
                self.send(Message::Observe { node, op, asked });
            }
            Action::Postgres(action) => self.send(Message::Execute { node, op, action, under }),
        }
    }

    /// What core orders of the store, as the adapter asks it.
    fn ask(&self, node: usize, action: StoreAction) -> Ask {
        let from = name(node);
        let agent = self.nodes[node].agent.as_ref();
        let keys = agent.and_then(|agent| agent.state.store.cluster.as_ref()).map(|seen| &seen.value);
        let known = Known {
            member: keys.and_then(|keys| keys.members.get(&from)).map_or(Revision(0), |key| key.revision),
            config: keys.map_or(Revision(0), |keys| keys.config_revision),
            status: keys.and_then(|keys| keys.status.as_ref()).map_or(Revision(0), |status| status.revision),
        };
        match action {
            StoreAction::Renew { lease, epoch, .. } => Ask::Renew { lease, epoch },
            StoreAction::KeepSession { lease } => Ask::One(Request::KeepAlive(lease)),
            action => Ask::One(Request::Order { action: Box::new(action), from, known }),
        }
    }

    /// Over a network that may be cut: what is lost there is found out by whoever waits for an answer.
    fn send_far(&mut self, node: usize, message: Message) {
        let other = matches!(message, Message::Question { .. } | Message::Answer { .. });
        let cut = self.nodes[node].cut || (other && self.nodes[1 - node].cut);
        if !cut {
            self.send(message);
        }
    }

    /// Nobody waits for these answers any more: their connections are closed.
    fn give_up_questions(&mut self, node: usize) {
        let Some(agent) = &self.nodes[node].agent else { return };
        let open: Vec<OpId> = agent.state.ops.iter().map(|(_, in_flight)| in_flight.op).collect();
        self.forget(
            |message| matches!(message, Message::Question { from, op, .. } if *from == node && !open.contains(op)),
        );
    }

    fn agent_leaves(&mut self, node: usize) {
        if self.nodes[node].guard.as_ref().is_some_and(|guard| guard.armed.is_none()) {
            self.nodes[node].guard = None;
        }
        self.agent_gone(node);
    }

    // --- what reaches an agent --------------------------------------------------------------------------------------

    pub(super) fn tick(&mut self, node: usize) {
        // The wall clock stands still: schedules are nothing that is looked at here.
        self.step(node, Event::Ticked(WallMillis(0)));
    }

    pub(super) fn replied(&mut self, node: usize, op: OpId, asked: Instant, outcome: Outcome<StoreDone>) {
        let asked = if self.mutant == Some(Mutant::LeaseDatedFromTheAnswer) { self.clock() } else { asked };
        // What was read is laid over what is known: the newest counts.
        let known = self.nodes[node].agent.as_ref().and_then(|agent| agent.state.store.cluster.as_ref());
        let newest = |view: ClusterView| match known {
            Some(known) if known.value.revision > view.revision => known.value.clone(),
            _ => view,
        };
        let outcome = outcome.map(|done| match done {
            StoreDone::Read(view) => StoreDone::Read(newest(view)),
            StoreDone::Acquired(view) => StoreDone::Acquired(newest(view)),
            other => other,
        });
        self.step(node, Event::Store(StoreEvent::Completed { op, outcome, asked }));
    }

    pub(super) fn watched(&mut self, node: usize, view: &ClusterView) {
        let known = self.nodes[node].agent.as_ref().and_then(|agent| agent.state.store.cluster.as_ref());
        if known.is_some_and(|known| known.value.revision >= view.revision) {
            return;
        }
        let now = self.clock();
        self.step(node, Event::Store(StoreEvent::Watched(Seen::new(view.clone(), now, now))));
    }

    pub(super) fn observed(&mut self, node: usize, op: OpId, asked: Instant) {
        let sql = self.sql(node).map(|sql| Seen::new(sql, asked, self.clock()));
        if sql.is_none() {
            self.look(node);
        } else {
            self.step(node, Event::Postgres(PostgresEvent::DataSeen(self.nodes[node].server.data())));
        }
        self.step(node, Event::Postgres(PostgresEvent::Answered { op, sql }));
    }

    fn sql(&self, node: usize) -> Option<matriarch_core::view::postgres::Sql> {
        let server = &self.nodes[node].server;
        let receives = server.postmaster.as_ref().is_some_and(|pm| pm.in_recovery);
        let streams = if receives { self.streams(node) } else { self.streams(1 - node) };
        server.sql(streams, &name(1 - node))
    }

    /// Something changed that the kernel tells of.
    pub(super) fn look_soon(&mut self, node: usize) {
        let there = self.nodes[node].agent.is_some();
        if there && !self.is_on_its_way(|message| matches!(message, Message::Look { node: n } if *n == node)) {
            self.send(Message::Look { node });
        }
    }

    /// The facts, and the end of work that waited for them.
    pub(super) fn looked(&mut self, node: usize) {
        self.look(node);
        self.poll_job(node);
    }

    pub(super) fn look(&mut self, node: usize) {
        let (process, data) = (self.nodes[node].server.process(), self.nodes[node].server.data());
        self.step(node, Event::Postgres(PostgresEvent::DataSeen(data)));
        self.step(node, Event::Postgres(PostgresEvent::ProcessSeen(process)));
    }

    pub(super) fn written(&mut self, node: usize, op: OpId, file: File) {
        let forgets = self.mutant == Some(Mutant::EpochNotOnDisk);
        match file {
            File::Epoch(_) if forgets => {}
            File::Epoch(file) => self.nodes[node].epoch = Some(file),
            File::Pledge(pledge) => self.nodes[node].pledge = pledge,
        }
        self.step(node, Event::Host(HostEvent::Completed { op, outcome: Outcome::Done(()) }));
    }

    // --- the other agent --------------------------------------------------------------------------------------------

    pub(super) fn questioned(&mut self, from: usize, boot: u32, op: OpId, asked: Instant, question: Question) {
        let node = 1 - from;
        let Some(agent) = &mut self.nodes[node].agent else {
            self.answer(node, from, boot, op, asked, Outcome::Unknown("connection refused".into()));
            return;
        };
        match question {
            Question::Position { absent_at } => {
                if !agent.state.admits_question() {
                    self.answer(node, from, boot, op, asked, Outcome::Unknown("too many questions".into()));
                    return;
                }
                agent.requests += 1;
                let request = RequestId(agent.requests);
                agent.asked.insert(request, (from, boot, op, asked));
                self.step(node, Event::Peer(PeerEvent::PositionAsked { request, absent_at }));
            }
            Question::Status => {
                let answer = PeerAnswer { pledge: None, ..self.own_answer(node) };
                self.answer(node, from, boot, op, asked, Outcome::Done(answer));
            }
            // One that cannot wait says how far it is.
            Question::Replayed => {
                self.step(node, Event::Peer(PeerEvent::HandoverAnnounced));
                let now = self.clock();
                let sql = self.sql(node).map(|sql| Seen::new(sql, now, now));
                self.step(node, Event::Postgres(PostgresEvent::Answered { op: OpId::UNASKED, sql }));
                if self.nodes[node].agent.is_some() {
                    let answer = self.own_answer(node);
                    self.answer(node, from, boot, op, asked, Outcome::Done(answer));
                }
            }
        }
    }

    fn own_answer(&self, node: usize) -> PeerAnswer {
        let agent = self.nodes[node].agent.as_ref().expect("only an agent answers");
        View { at: self.clock(), state: &agent.state }.own_answer()
    }

    fn answer(&mut self, node: usize, to: usize, boot: u32, op: OpId, asked: Instant, outcome: Outcome<PeerAnswer>) {
        if self.nodes[to].agent.as_ref().is_some_and(|agent| agent.boot == boot) {
            self.send_far(node, Message::Answer { node: to, op, asked, outcome });
        }
    }

    pub(super) fn answered(&mut self, node: usize, op: OpId, asked: Instant, outcome: Outcome<PeerAnswer>) {
        let outcome = match outcome {
            Outcome::Done(mut answer) if self.mutant == Some(Mutant::EveryAnswerIsPledged) => {
                answer.pledge = Some(Revision(i64::MAX));
                Outcome::Done(answer)
            }
            other => other,
        };
        self.step(node, Event::Peer(PeerEvent::Answered { op, member: name(1 - node), outcome, asked }));
    }

    // --- planted bugs -----------------------------------------------------------------------------------------------

    /// What core hears of an event where a bug is planted; `None`: nothing.
    fn bent(&self, node: usize, event: Event) -> Option<Event> {
        let Some(mutant) = self.mutant else { return Some(event) };
        let state = self.nodes[node].agent.as_ref().map(|agent| &agent.state)?;
        Some(match event {
            Event::Store(StoreEvent::Completed { op, outcome, asked }) => {
                let action = state.ops.iter().find(|(_, in_flight)| in_flight.op == op).map(|(_, f)| f.action.clone());
                let renews = matches!(action, Some(Action::Store(StoreAction::Renew { .. })));
                let outcome = match (mutant, outcome) {
                    (Mutant::UnknownIsDone, Outcome::Unknown(_)) if renews => {
                        Outcome::Done(StoreDone::Renewed { ttl: state.config.ttl, revision: Revision(0) })
                    }
                    (Mutant::TtlAsAsked, Outcome::Done(StoreDone::Renewed { revision, .. })) => {
                        Outcome::Done(StoreDone::Renewed { ttl: state.config.ttl * 2, revision })
                    }
                    (_, outcome) => outcome,
                };
                Event::Store(StoreEvent::Completed { op, outcome, asked })
            }
            Event::Guard(GuardEvent::Armed(mut armed)) if mutant == Mutant::GuardAcknowledgesMore => {
                armed.at = armed.at + std::time::Duration::from_secs(2);
                Event::Guard(GuardEvent::Armed(armed))
            }
            Event::Guard(GuardEvent::Connected { held, fired, .. }) if mutant == Mutant::GuardForgets => {
                Event::Guard(GuardEvent::Connected { armed: None, held, fired })
            }
            Event::Guard(GuardEvent::Gone) if mutant == Mutant::GuardDeathUnheard => return None,
            Event::Postgres(PostgresEvent::ProcessSeen(Process::Absent)) if mutant == Mutant::DeathUnseen => {
                return None;
            }
            other => other,
        })
    }
}

/// What the guard says is noted by the executor before core hears it.
fn heard(agent: &mut Agent, event: &GuardEvent) {
    match event {
        GuardEvent::Armed(armed) => {
            agent.armed = Some(armed.tenure);
            let under = agent.job.as_mut().and_then(|job| job.under.as_mut());
            if let Some(under) = under.filter(|under| under.tenure == armed.tenure) {
                under.at = under.at.max(armed.at);
            }
        }
        GuardEvent::Connected { armed, .. } => agent.armed = armed.map(|armed| armed.tenure),
        GuardEvent::Disarmed | GuardEvent::Fired { .. } | GuardEvent::Gone => agent.armed = None,
        _ => {}
    }
}

impl Job {
    pub(super) fn is_start(&self) -> bool {
        matches!(self.action, PostgresAction::Start(_) | PostgresAction::Restart)
    }

    /// How it brings the server up; `None`: as a primary.
    pub(super) fn as_standby(how: &StartAs) -> Option<Option<usize>> {
        match how {
            StartAs::Primary => None,
            StartAs::Standby(upstream) => {
                let node = |member| (0..2).find(|node| name(*node) == member);
                Some(upstream.as_ref().and_then(|upstream| node(upstream.member.clone())))
            }
        }
    }
}
