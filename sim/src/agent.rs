//! The runtime's part in the world: takes what reaches an agent, has core decide, carries its orders out. It decides
//! nothing; whatever it does between an order and its end can be cut short by a fault.

use std::time::Duration;

use matriarch_core::action::{Action, Answer, GuardAction, HostAction, PostgresAction};
use matriarch_core::effects::{Effects, Order};
use matriarch_core::event::{Event, GuardEvent, HostEvent, PeerEvent, PostgresEvent, Request, Started, StoreEvent};
use matriarch_core::id::RequestId;
use matriarch_core::op::Outcome;
use matriarch_core::reason::Reason;
use matriarch_core::view::postgres::DataDir;

use crate::coverage;
use crate::fault::{Given, Phase};
use crate::mutant::Mutant;
use crate::node::{Agent, File, Message, NodeId};
use crate::time::ms;
use crate::world::{Due, World};

impl World {
    /// An agent is started, if none runs.
    pub fn start_agent(&mut self, node: NodeId) {
        let at = self.clock(node);
        let members = self.members.len();
        let host = &mut self.nodes[node.0];
        if !host.up || host.agent.is_some() {
            // Whoever starts a service that is still stopping waits for that.
            if host.agent.as_ref().is_some_and(|agent| agent.state.leaving) {
                self.later(ms(500), Due::StartAgent(node));
            }
            return;
        }
        host.boots += 1;
        host.booted = self.now;
        let mut config = host.config.clone();
        if self.mutant == Some(Mutant::StartTimeoutInSeconds) {
            config.primary_start_timeout *= 1000;
        }
        let agent = Agent::new(host.boots, config, at, node.0 % members);
        host.agent = Some(agent);
        let started = Started { epoch: host.files.epoch, pledge: host.files.pledge };
        self.trace.note(self.now, node, '+', || "the agent starts".into());
        self.coverage.count("boot");
        // It looks for its guard first of all, and knows of that one before it knows its own files or any key.
        if self.nodes[node.0].guard.is_some()
            && let Some(event) = self.guard_greets(node)
        {
            self.step(node, Event::Guard(event));
        }
        self.step(node, Event::Started(started));
        self.tell(node, Duration::ZERO, Message::Feed);
    }

    /// The agent is gone, with everything that it had in hand.
    pub fn agent_gone(&mut self, node: NodeId) {
        let Some(agent) = self.nodes[node.0].agent.take() else { return };
        // A file that was being written is in its place, or it is not.
        for (_, file) in std::mem::take(&mut self.nodes[node.0].files.writing) {
            if self.host_random.chance(50) && !self.nodes[node.0].files.full {
                self.nodes[node.0].files.put(file);
            }
        }
        self.order_is_over(|given| match given {
            Given::Operation(of, ..) | Given::Guard(of, _) => of == node,
        });
        // A tool that it ran is killed with it: what it made stays half-made.
        for job in agent.jobs.values() {
            self.job_cut_short(node, job);
        }
        self.trace.agent_gone(self.now, node);
        self.guard_misses_agent(node);
    }

    /// Something reaches an agent, if it is the one that it was meant for.
    pub fn reaches_agent(&mut self, node: NodeId, boot: u32, message: Message) {
        let host = &mut self.nodes[node.0];
        let Some(agent) = host.agent.as_mut().filter(|agent| boot == 0 || agent.boot == boot) else {
            self.nobody_there(node, message);
            return;
        };
        if agent.frozen {
            agent.inbox.push_back(message);
            return;
        }
        self.handle(node, boot, message);
    }

    /// Whoever asks an agent that is not there is refused at once.
    fn nobody_there(&mut self, node: NodeId, message: Message) {
        if let Message::Asked { asker, .. } = message
            && self.nodes[node.0].up
        {
            self.answer_peer(node, asker, Outcome::Unknown("connection refused".into()));
        }
    }

    fn handle(&mut self, node: NodeId, boot: u32, message: Message) {
        match message {
            Message::Event(event) => self.step(node, *event),
            Message::Wake(number) => {
                let host = &self.nodes[node.0];
                if host.agent.as_ref().is_some_and(|agent| agent.wake == number) {
                    let wall = host.clock.wall(self.now);
                    self.step(node, Event::Ticked(wall));
                }
            }
            Message::Reply { call, reply, told } => self.call_answered(node, call, reply, told),
            Message::Unreachable { call } => self.call_refused(node, call),
            Message::TimedOut { call } => self.call_timed_out(node, call),
            Message::Watched { watch, view } => self.watch_tells(node, watch, view),
            Message::WatchLost { watch } => self.watch_lost(node, watch),
            Message::Feed => self.feed(node),
            Message::Look => self.look(node),
            Message::Looked { number, process } => self.looked(node, number, process),
            Message::Job(op) => self.job_goes_on(node, op),
            Message::JobDone(op, outcome) => self.job_done(node, op, outcome),
            Message::Observed { op, sql } => self.observed(node, op, sql),
            Message::Written { op } => self.written(node, op),
            Message::Asked { asker, question } => self.peer_asks(node, asker, question),
            Message::WaitedLongEnough(asker) => self.peer_waited(node, asker),
            Message::Answered { op, outcome } => self.peer_answered(node, op, outcome),
            Message::GuardReached => self.guard_reached(node),
            Message::Order(order) => self.execute(node, boot, *order),
            Message::Operator(request) => self.operator(node, request),
        }
    }

    /// One step of core, and everything that it orders.
    pub fn step(&mut self, node: NodeId, event: Event) {
        if let Some(heard) = &mut self.scripted {
            heard.push((node, event));
            return;
        }
        let Some(agent) = self.nodes[node.0].agent.as_ref().filter(|agent| !agent.left) else { return };
        let boot = agent.boot;
        let mut at = self.clock(node);
        if self.mutant == Some(Mutant::WallClock) {
            let off = self.nodes[node.0].clock.wall_off_ms;
            at.0 = at.0.saturating_add_signed(off * 1_000_000);
        }
        self.note_keys_seen(node, &event);
        let Some(event) = self.bent(node, event) else { return };
        self.trace.heard(self.now, node, &event);
        self.note_found(node, &event);
        let ended = ended_by(node, boot, &event);
        if let Some(Given::Operation(.., op)) = ended {
            self.note_ended(node, op);
        }
        let agent = self.nodes[node.0].agent.as_mut().expect("looked at above");
        if let Some(mutant) = self.mutant {
            mutant.spoil(self.steps, &mut agent.state, &mut self.remembered[node.0]);
        }
        let effects = matriarch_core::step(&mut agent.state, at, event);
        self.steps += 1;
        self.trace.state(self.now, node, &effects);
        self.check_step(node, at, &effects);
        self.hand_out(node, boot, effects);
        if let Some(order) = ended {
            self.order_is(Phase::Ended, order);
        }
    }

    fn hand_out(&mut self, node: NodeId, boot: u32, effects: Effects) {
        if let Some(decision) = &effects.decision {
            self.coverage.decided(decision);
            self.trace.decided(self.now, node, decision);
        }
        self.coverage.reason(&effects.wake.because);
        self.wake(node, boot, &effects);
        // The fence first, as the runtime does it.
        let (guard, others): (Vec<Order>, Vec<Order>) =
            effects.orders.into_iter().partition(|order| matches!(order.action, Action::Guard(_)));
        for order in guard {
            self.order(node, boot, order);
        }
        for op in effects.cancelled {
            if let Some(agent) = &mut self.nodes[node.0].agent {
                agent.jobs.remove(&op);
            }
        }
        for order in others {
            self.order(node, boot, order);
        }
    }

    fn wake(&mut self, node: NodeId, boot: u32, effects: &Effects) {
        let host = &mut self.nodes[node.0];
        let Some(agent) = &mut host.agent else { return };
        agent.wake += 1;
        let dropped = self.mutant == Some(Mutant::DeadlineDropped) && is_of_an_operation(&effects.wake.because);
        if let Some(at) = effects.wake.at.filter(|_| !dropped) {
            let message = Message::Wake(agent.wake);
            let time = host.clock.when(at);
            // A timer rings a little late, never early.
            let late = Duration::from_micros(self.host_random.below(300));
            self.at(time.max(self.now) + late, Due::agent(node, boot, message));
        }
    }

    /// Carries an order out, unless a fault comes first.
    fn order(&mut self, node: NodeId, boot: u32, order: Order) {
        let here = |world: &Self| world.nodes[node.0].agent.as_ref().is_some_and(|agent| agent.boot == boot);
        if !here(self) {
            return;
        }
        self.coverage.ordered(&order);
        self.trace.ordered(self.now, node, &order);
        self.check_order(node, &order);
        let watched = self.order_begins(node, boot, &order);
        // Killed before it, or frozen: what a frozen agent has decided and not yet done is what this is about.
        if !here(self) {
            return;
        }
        if self.nodes[node.0].suspended {
            let what = Due::agent(node, boot, Message::Order(Box::new(order)));
            self.nodes[node.0].asleep.push(what);
            return;
        }
        if let Some(agent) = self.nodes[node.0].agent.as_mut().filter(|agent| agent.frozen) {
            agent.inbox.push_back(Message::Order(Box::new(order)));
            return;
        }
        self.execute(node, boot, order);
        if watched {
            self.order_ended(node);
        }
    }

    fn execute(&mut self, node: NodeId, boot: u32, order: Order) {
        let Order { op, action, under, because } = order;
        match action {
            Action::Guard(order) => {
                if order == GuardAction::Fire {
                    self.coverage.count("fire");
                    self.check_fire(node, &because);
                }
                let instead_of = self.nodes[node.0].agent.as_ref().and_then(|agent| agent.armed);
                let arrives = self.now + Duration::from_micros(self.host_random.between(30, 500));
                let Some(agent) = &mut self.nodes[node.0].agent else { return };
                agent.guard_told = agent.guard_told.max(arrives) + Duration::from_nanos(1);
                let time = agent.guard_told;
                self.at(time, Due::Guard { node, boot, order, instead_of });
            }
            Action::Answer(request, Answer::Text { .. })
                if self.mutant == Some(Mutant::AnswersDropped) && request.0.is_multiple_of(5) => {}
            Action::Answer(request, answer) => {
                self.coverage.came_to("answer", "done");
                self.answer(node, request, answer);
            }
            Action::Host(HostAction::StartGuard) => {
                let wait = ms(self.host_random.between(5, 60));
                self.tell(node, wait, Message::GuardReached);
            }
            Action::Host(HostAction::Exit { .. }) => {
                self.coverage.came_to("exit", "done");
                if let Some(agent) = &mut self.nodes[node.0].agent {
                    agent.left = true;
                }
                self.agent_leaves(node);
            }
            Action::Host(HostAction::WriteEpoch(file)) => self.write(node, op, File::Epoch(file)),
            Action::Host(HostAction::WritePledge(pledge)) => self.write(node, op, File::Pledge(pledge)),
            Action::Store(action) => self.call(node, op, action),
            Action::Peer(action) => self.ask_peer(node, op, action),
            Action::Postgres(PostgresAction::Observe) => self.ask_postgres(node, op),
            Action::Postgres(PostgresAction::Look) => {
                self.tell(node, ms(1), Message::Look);
                self.tell(node, ms(3), Message::event(Event::Postgres(PostgresEvent::Answered { op, sql: None })));
            }
            Action::Postgres(action) => self.begin_job(node, op, action, under),
        }
    }

    fn write(&mut self, node: NodeId, op: matriarch_core::id::OpId, file: File) {
        let takes = Duration::from_micros(self.host_random.between(500, 6000));
        self.nodes[node.0].files.writing.push((op, file));
        self.tell(node, takes, Message::Written { op });
    }

    fn written(&mut self, node: NodeId, op: matriarch_core::id::OpId) {
        let files = &mut self.nodes[node.0].files;
        let Some(index) = files.writing.iter().position(|(writing, _)| *writing == op) else { return };
        let (_, file) = files.writing.remove(index);
        let forgotten = matches!(file, File::Epoch(_)) && self.mutant == Some(Mutant::EpochNotOnDisk);
        let outcome = if files.full {
            Outcome::Unknown("no space left on device".into())
        } else {
            if !forgotten {
                files.put(file);
            }
            Outcome::Done(())
        };
        let kind = if matches!(file, File::Epoch(_)) { "write_epoch" } else { "write_pledge" };
        self.coverage.came_to(kind, coverage::told(&outcome));
        let done = outcome == Outcome::Done(());
        let told = Event::Host(HostEvent::Completed { op, outcome });
        if done && self.takes_effect(node, op) {
            self.tell(node, Duration::ZERO, Message::event(told));
        } else {
            self.step(node, told);
        }
    }

    /// What the agent that runs there has ordered has taken effect, and it has not heard of that: true if a fault waited for it.
    pub fn takes_effect(&mut self, node: NodeId, op: matriarch_core::id::OpId) -> bool {
        let boot = self.nodes[node.0].agent.as_ref().map_or(0, |agent| agent.boot);
        self.order_is(Phase::Applied, Given::Operation(node, boot, op))
    }

    /// The agent leaves in order. PostgreSQL stays as it is; the guard ends if nothing is armed.
    fn agent_leaves(&mut self, node: NodeId) {
        if let Some(guard) = &self.nodes[node.0].guard
            && guard.armed.is_none()
        {
            self.nodes[node.0].guard = None;
        }
        self.agent_gone(node);
        if self.healed.is_some() {
            self.later(ms(2000), Due::StartAgent(node));
        }
    }

    // --- looking ----------------------------------------------------------------------------------------------------

    fn look(&mut self, node: NodeId) {
        let process = self.nodes[node.0].server.process();
        let Some(agent) = &mut self.nodes[node.0].agent else { return };
        agent.looks.0 += 1;
        let number = agent.looks.0;
        let takes = Duration::from_micros(self.host_random.between(100, 2000));
        self.tell(node, takes, Message::Looked { number, process });
    }

    fn looked(&mut self, node: NodeId, number: u64, process: matriarch_core::view::postgres::Process) {
        let data = self.data(node);
        self.coverage.came_to("look", if self.nodes[node.0].files.hidden { "refused" } else { "done" });
        let Some(agent) = &mut self.nodes[node.0].agent else { return };
        if number <= agent.looks.1 {
            return;
        }
        agent.looks.1 = number;
        self.step(node, Event::Postgres(PostgresEvent::DataSeen(data)));
        self.step(node, Event::Postgres(PostgresEvent::ProcessSeen(process)));
    }

    pub(crate) fn data(&self, node: NodeId) -> DataDir {
        if self.nodes[node.0].files.hidden {
            return DataDir::Unreadable("too many open files".into());
        }
        let mut data = self.nodes[node.0].server.data(&self.wal);
        if self.mutant == Some(Mutant::TaintIgnored)
            && let DataDir::Cluster(cluster) = &mut data
        {
            cluster.tainted = None;
        }
        data
    }

    /// The facts before the end of an operation, at once.
    pub fn look_at_once(&mut self, node: NodeId) {
        let (process, data) = (self.nodes[node.0].server.process(), self.data(node));
        if let Some(agent) = &mut self.nodes[node.0].agent {
            agent.looks.0 += 1;
            agent.looks.1 = agent.looks.0;
        }
        self.step(node, Event::Postgres(PostgresEvent::DataSeen(data)));
        self.step(node, Event::Postgres(PostgresEvent::ProcessSeen(process)));
    }

    // --- operators --------------------------------------------------------------------------------------------------

    fn operator(&mut self, node: NodeId, request: Request) {
        let Some(agent) = &mut self.nodes[node.0].agent else { return };
        if !agent.state.admits_request() {
            return;
        }
        agent.requests += 1;
        let id = RequestId(agent.requests);
        let boot = agent.boot;
        self.note_asked(node, boot, id);
        self.note_request(node, &request);
        self.coverage.count("operator's request");
        self.step(node, Event::Operator(id, request));
    }

    fn answer(&mut self, node: NodeId, request: RequestId, answer: Answer) {
        match answer {
            Answer::Text { status, body } => {
                let boot = self.nodes[node.0].agent.as_ref().map_or(0, |agent| agent.boot);
                self.note_answered(node, boot, request);
                self.coverage.count(if status < 300 { "operator served" } else { "operator refused" });
                self.trace.note(self.now, node, '?', || format!("answers {status}: {body}"));
            }
            Answer::Position(answer) => {
                let asker = self.nodes[node.0].agent.as_mut().and_then(|agent| agent.asked.remove(&request));
                if let Some(asker) = asker {
                    self.note_pledge(node, answer.pledge);
                    self.answer_peer(node, asker, Outcome::Done(answer));
                }
            }
        }
    }

    /// The guard's report, as an event of core.
    pub fn guard_says(&mut self, node: NodeId, event: GuardEvent) {
        let heard = self.now + Duration::from_micros(self.host_random.between(30, 500));
        // One connection: what was said first is heard first.
        let Some(agent) = &mut self.nodes[node.0].agent else { return };
        agent.guard_heard = agent.guard_heard.max(heard) + Duration::from_nanos(1);
        let (boot, time) = (agent.boot, agent.guard_heard);
        let kind = guard_kind(&event);
        self.at(time, Due::agent(node, boot, Message::event(Event::Guard(event))));
        if let Some(kind) = kind {
            self.order_is(Phase::Applied, Given::Guard(node, kind));
        }
    }

    /// What the guard says is noted by the executor before core hears it; and where a bug is planted, it is bent.
    fn bent(&mut self, node: NodeId, event: Event) -> Option<Event> {
        if let Event::Guard(event) = &event {
            let agent = self.nodes[node.0].agent.as_mut()?;
            match event {
                GuardEvent::Armed(armed) => {
                    agent.armed = Some(armed.tenure);
                    for job in agent.jobs.values_mut() {
                        if let Some(under) = job.under.as_mut().filter(|under| under.tenure == armed.tenure) {
                            under.at = under.at.max(armed.at);
                        }
                    }
                }
                GuardEvent::Connected { armed, .. } => agent.armed = armed.map(|armed| armed.tenure),
                GuardEvent::Disarmed | GuardEvent::Fired { .. } | GuardEvent::Gone => agent.armed = None,
                _ => {}
            }
        }
        match self.mutant {
            Some(mutant) => mutant.bend(self, node, event),
            None => Some(event),
        }
    }

    /// A peer's answer, or that there is none, as an event of core.
    pub fn peer_event(&mut self, node: NodeId, event: PeerEvent) {
        self.step(node, Event::Peer(event));
    }

    /// The end of an order on the store, as an event of core.
    pub fn store_event(&mut self, node: NodeId, event: StoreEvent) {
        self.step(node, Event::Store(event));
    }
}

/// The wake-up is for the deadline of an operation.
fn is_of_an_operation(because: &Reason) -> bool {
    matches!(because, Reason::DeadlineOf { what } if what == "an operation in flight")
}

/// The order that an event is the end of.
fn ended_by(node: NodeId, boot: u32, event: &Event) -> Option<Given> {
    let op = match event {
        Event::Store(StoreEvent::Completed { op, .. })
        | Event::Postgres(PostgresEvent::Completed { op, .. } | PostgresEvent::Answered { op, .. })
        | Event::Host(HostEvent::Completed { op, .. })
        | Event::Peer(PeerEvent::Answered { op, .. }) => *op,
        Event::Guard(event) => return guard_kind(event).map(|kind| Given::Guard(node, kind)),
        _ => return None,
    };
    Some(Given::Operation(node, boot, op))
}

/// The kind of the order that a report of the guard's is the end of.
pub fn guard_kind(event: &GuardEvent) -> Option<&'static str> {
    match event {
        GuardEvent::Armed(_) => Some("arm"),
        GuardEvent::Disarmed => Some("disarm"),
        GuardEvent::Held => Some("hold"),
        GuardEvent::Resumed => Some("resume"),
        GuardEvent::Fired { .. } => Some("fire"),
        GuardEvent::OrphansDead => Some("kill_orphans"),
        GuardEvent::Connected { .. } | GuardEvent::Refused(_) | GuardEvent::Stuck { .. } | GuardEvent::Gone => None,
    }
}
