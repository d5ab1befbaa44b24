//! What a host does without core: work on PostgreSQL, the guard, the end of leases, and what messages come to.

use std::rc::Rc;
use std::time::Duration;

use matriarch_core::action::{GuardAction, PostgresAction};
use matriarch_core::event::{Event, GuardEvent, PostgresDone, PostgresEvent, StoreDone};
use matriarch_core::id::{LeaseId, OpId, Pid, SystemId, Timeline};
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::view::guard::Armed;
use matriarch_core::view::postgres::{ControlState, Phase, StartAs, StopMode};
use matriarch_core::view::store::ClusterView;

use super::world::{Ask, Job, Message, ServerStep, Shared, World};
use crate::check::without_authority;
use crate::guard::{Guard, Obeyed};
use crate::mutant::Mutant;
use crate::store::{Gone, Reply, Request};
use crate::time::{Time, ms};

/// `matriarch.restart_grace`.
const RESTART_GRACE: Duration = Duration::from_secs(2);

type Done = Outcome<PostgresDone>;

fn refused(why: &str) -> Done {
    Outcome::Refused(Refusal::Failed(why.into()))
}

impl World {
    /// A message has come.
    pub(super) fn deliver(&mut self, message: Message) {
        match message {
            Message::Tick { node } => self.tick(node),
            Message::Request { node, boot, op, asked, ask } => self.asked(node, boot, op, asked, &ask),
            Message::Reply { node, op, asked, outcome } => self.replied(node, op, asked, outcome),
            Message::Watch { node, view } => self.watched(node, &view),
            Message::Execute { node, op, action, under } => self.execute(node, op, action, under),
            Message::Observe { node, op, asked } => self.observed(node, op, asked),
            Message::Look { node } => self.looked(node),
            Message::Write { node, op, file } => self.written(node, op, file),
            Message::Server { node, pid, step } => self.server_goes_on(node, pid, step),
            Message::Order { node, boot, order, instead_of } => self.guard_ordered(node, boot, &order, instead_of),
            Message::Report { node, event } => self.step(node, Event::Guard(event)),
            Message::GuardReached { node } => self.guard_reached(node),
            Message::GuardWakes { node } => self.guard_wakes(node),
            Message::LeasesEnd => self.leases_end(),
            Message::Question { from, boot, op, asked, question } => {
                self.questioned(from, boot, op, asked, question);
            }
            Message::Answer { node, op, asked, outcome } => self.answered(node, op, asked, outcome),
        }
    }

    // --- the store --------------------------------------------------------------------------------------------------

    fn asked(&mut self, node: usize, boot: u32, op: OpId, asked: matriarch_core::time::Instant, ask: &Ask) {
        let (now, before) = (self.now, Rc::clone(self.store.keys()));
        let reply = match ask {
            Ask::One(request) => self.store.apply(now, request),
            Ask::Renew { lease, epoch } => match self.store.apply(now, &Request::KeepAlive(*lease)) {
                Reply::Kept(_) => self.store.apply(now, &Request::Proof { lease: *lease, epoch: *epoch }),
                other => other,
            },
        };
        if let (Ask::One(Request::Order { action, from, .. }), Reply::Done(_)) = (ask, &reply)
            && let Some(what) = without_authority(action, from, before.leader.as_ref())
        {
            self.breaks("S24", what);
        }
        self.store_changed();
        let outcome = match reply {
            Reply::Done(done) => Outcome::Done(*done),
            Reply::Refused(refusal) => Outcome::Refused(refusal),
            Reply::Instead(_) => Outcome::Refused(Refusal::Conflict),
            Reply::Kept(_) => Outcome::Done(StoreDone::SessionKept),
        };
        let waits = self.nodes[node].agent.as_ref().is_some_and(|agent| agent.boot == boot);
        if waits && !self.nodes[node].cut {
            self.send(Message::Reply { node, op, asked, outcome });
        }
    }

    pub(super) fn store_changed(&mut self) {
        for change in self.store.changes() {
            self.check_change(&change);
        }
        if self.store.keys().revision == self.told {
            return;
        }
        self.told = self.store.keys().revision;
        let view = Shared::new(ClusterView::clone(self.store.keys()));
        for node in 0..2 {
            self.send_watch(node, &view);
        }
    }

    fn leases_end(&mut self) {
        let now = self.now;
        while let Some((lease, _)) = self.store.next_end().filter(|(_, until)| *until < now) {
            self.store.end(lease, Gone::Expired);
        }
        self.store_changed();
    }

    // --- PostgreSQL -------------------------------------------------------------------------------------------------

    fn execute(&mut self, node: usize, op: OpId, action: PostgresAction, under: Option<Armed>) {
        let pid = self.nodes[node].server.pid();
        if let Some(agent) = &mut self.nodes[node].agent {
            agent.job = Some(Job { op, action: action.clone(), under, pid });
        }
        match action {
            PostgresAction::Start(how) => self.starts(node, Job::as_standby(&how)),
            PostgresAction::Stop(mode) => {
                self.stop(node, mode);
                self.look_soon(node);
            }
            PostgresAction::Restart => {
                self.stop(node, StopMode::Fast);
                self.look_soon(node);
            }
            PostgresAction::Promote { timeline } => self.promotes(node, timeline),
            other => {
                let done = self.at_once(node, &other);
                self.ended(node, done);
            }
        }
    }

    /// The clock is read again between an order and what it makes writable.
    fn is_too_late(&self, node: usize) -> bool {
        let job = self.nodes[node].agent.as_ref().and_then(|agent| agent.job.as_ref());
        let under = job.and_then(|job| job.under);
        under.is_some_and(|under| self.clock() >= under.at) && self.mutant != Some(Mutant::StartsLate)
    }

    fn starts(&mut self, node: usize, as_standby: Option<Option<usize>>) {
        if self.is_too_late(node) {
            self.ended(node, Outcome::Refused(Refusal::NotOurTenure));
            return;
        }
        let server = &mut self.nodes[node].server;
        if server.postmaster.is_some() || server.orphans.is_some() || server.disk.is_none() {
            self.ended(node, refused("something runs, or there is nothing to run"));
            return;
        }
        server.fork(as_standby);
        let pid = server.pid();
        if let Some(job) = self.nodes[node].agent.as_mut().and_then(|agent| agent.job.as_mut()) {
            job.pid = pid;
        }
        self.server_will(node, ServerStep::Recovered);
        self.look_soon(node);
    }

    fn promotes(&mut self, node: usize, timeline: Timeline) {
        if self.is_too_late(node) {
            self.ended(node, Outcome::Refused(Refusal::NotOurTenure));
        } else if self.nodes[node].server.is_ready() {
            self.nodes[node].server.is_told_to_promote(timeline);
            self.server_will(node, ServerStep::Promoted);
        } else {
            self.ended(node, refused("the server is not in standby mode"));
        }
    }

    fn server_will(&mut self, node: usize, step: ServerStep) {
        if let Some(pid) = self.nodes[node].server.pid() {
            self.send(Message::Server { node, pid, step });
        }
    }

    pub(super) fn stop(&mut self, node: usize, mode: StopMode) {
        let Some(pm) = &mut self.nodes[node].server.postmaster else { return };
        if mode == StopMode::Immediate {
            self.server_dies(node);
        } else if pm.phase != Phase::Stopping {
            pm.phase = Phase::Stopping;
            self.server_will(node, ServerStep::ShutDown);
        }
    }

    fn server_goes_on(&mut self, node: usize, pid: Pid, step: ServerStep) {
        let server = &mut self.nodes[node].server;
        let Some(pm) = server.postmaster.as_ref().filter(|pm| pm.pid == pid) else { return };
        let (stopping, recovering) = (pm.phase == Phase::Stopping, pm.in_recovery);
        match step {
            _ if stopping && step != ServerStep::ShutDown => return,
            ServerStep::Recovered => server.recovered(),
            ServerStep::Promoted if recovering => server.promoted(),
            ServerStep::Promoted => return,
            ServerStep::ShutDown => {
                if !recovering {
                    server.checkpoint();
                }
                // Its senders drain before it ends.
                self.flow();
                self.nodes[node].server.shut_down();
                self.guard_minds(node);
            }
        }
        if self.nodes[node].server.can_acknowledge() && step != ServerStep::ShutDown {
            self.check_holds(node);
        }
        self.look_soon(node);
    }

    /// All of PostgreSQL is gone.
    pub(super) fn server_dies(&mut self, node: usize) {
        self.nodes[node].server.dies();
        self.forget(|message| matches!(message, Message::Server { node: n, .. } if *n == node));
        self.look_soon(node);
    }

    /// Work that waited for PostgreSQL may be over.
    pub(super) fn poll_job(&mut self, node: usize) {
        let server = &self.nodes[node].server;
        let (pid, ready) = (server.pid(), server.is_ready());
        let primary = ready && server.postmaster.as_ref().is_some_and(|pm| !pm.in_recovery);
        let Some(job) = self.nodes[node].agent.as_ref().and_then(|agent| agent.job.clone()) else { return };
        let done = Outcome::Done(PostgresDone::Done);
        let stopping = server.postmaster.as_ref().is_some_and(|pm| pm.phase == Phase::Stopping);
        match &job.action {
            PostgresAction::Stop(_) if pid.is_none() => self.ended(node, done),
            PostgresAction::Restart if pid.is_none() => {
                let standby = server.disk.as_ref().filter(|disk| disk.standby).map(|disk| disk.upstream);
                self.starts(node, standby);
            }
            _ if job.is_start() && pid != job.pid => self.ended(node, refused("it did not come up")),
            _ if job.is_start() && ready && !stopping => self.ended(node, done),
            PostgresAction::Promote { .. } if pid != job.pid => self.ended(node, refused("it went down")),
            PostgresAction::Promote { .. } if primary => self.ended(node, done),
            _ => {}
        }
    }

    /// Work is over: the facts first, then its end.
    fn ended(&mut self, node: usize, outcome: Done) {
        let Some(job) = self.nodes[node].agent.as_mut().and_then(|agent| agent.job.take()) else { return };
        self.flow();
        self.look(node);
        self.step(node, Event::Postgres(PostgresEvent::Completed { op: job.op, outcome }));
    }

    fn at_once(&mut self, node: usize, action: &PostgresAction) -> Done {
        let done = Outcome::Done(PostgresDone::Done);
        let reachable = !self.nodes[0].cut && !self.nodes[1].cut && self.nodes[1 - node].server.is_ready();
        let source = self.nodes[1 - node].server.clone();
        let server = &mut self.nodes[node].server;
        match action {
            PostgresAction::Initdb => server.initdb(SystemId(1 + node as u64)),
            PostgresAction::Configure { generation } => {
                return Outcome::Done(PostgresDone::Configured { generation: *generation, changed: true });
            }
            PostgresAction::RecoverSingleUser => {
                server.checkpoint();
                if let Some(disk) = &mut server.disk {
                    disk.state = ControlState::ShutDown;
                }
            }
            PostgresAction::Compare(_) if !reachable || !source.is_primary() => {
                return Outcome::Unknown("the upstream does not answer as a primary".into());
            }
            PostgresAction::Compare(_) => return Outcome::Done(PostgresDone::Compared(server.leaves(&source))),
            PostgresAction::Clone(_) | PostgresAction::Rewind(_) => match &source.disk {
                Some(theirs) if reachable && server.postmaster.is_none() => server.copy_of(theirs),
                _ => return refused("the source does not answer"),
            },
            PostgresAction::Freeze | PostgresAction::Follow(_) if server.postmaster.is_none() => {
                return refused("it does not run");
            }
            PostgresAction::Freeze if self.mutant == Some(Mutant::FreezeIsAReload) => {}
            PostgresAction::Freeze => server.turn(None),
            PostgresAction::Follow(upstream) => {
                server.turn(Job::as_standby(&StartAs::Standby(upstream.clone())).flatten());
            }
            running if !server.is_ready() => return refused(&format!("{running:?}: it does not answer")),
            PostgresAction::Checkpoint => server.checkpoint(),
            _ => {}
        }
        done
    }

    // --- the guard --------------------------------------------------------------------------------------------------

    fn report(&mut self, node: usize, event: GuardEvent) {
        if self.nodes[node].agent.is_some() {
            self.send(Message::Report { node, event });
        }
    }

    fn guard_reached(&mut self, node: usize) {
        if let Some(greeting) = self.guard_greets(node) {
            self.report(node, greeting);
        }
    }

    pub(super) fn guard_greets(&mut self, node: usize) -> Option<GuardEvent> {
        let host = &mut *self.nodes[node];
        let boot = host.agent.as_ref().map(|agent| agent.boot)?;
        let guard = host.guard.get_or_insert_default();
        guard.boot = boot;
        (guard.absent_since, guard.winding_down) = (None, false);
        Some(GuardEvent::Connected { armed: guard.armed, held: guard.held, fired: guard.fired })
    }

    fn guard_ordered(&mut self, node: usize, boot: u32, order: &GuardAction, instead_of: Option<LeaseId>) {
        let now = self.clock();
        let Some(guard) = self.nodes[node].guard.as_mut().filter(|guard| guard.boot == boot) else { return };
        let obeyed = guard.obey(order, instead_of, now);
        let falls = guard.firing;
        if let Obeyed::Report(event) = obeyed {
            self.report(node, event);
        } else {
            self.guard_acts(node, order);
        }
        if falls {
            self.fence(node);
        }
    }

    fn guard_acts(&mut self, node: usize, order: &GuardAction) {
        let mutant = self.mutant;
        let server = &mut self.nodes[node].server;
        let event = match order {
            GuardAction::Hold => {
                let holds = mutant != Some(Mutant::HoldHoldsNothing);
                server.held = holds && (server.postmaster.is_some() || server.orphans.is_some());
                GuardEvent::Held
            }
            GuardAction::Resume => {
                server.held = false;
                GuardEvent::Resumed
            }
            GuardAction::KillOrphans if server.postmaster.is_some() => {
                GuardEvent::Refused("a postmaster is alive".into())
            }
            GuardAction::KillOrphans => {
                if mutant != Some(Mutant::OrphansLive) {
                    server.orphans = None;
                }
                GuardEvent::OrphansDead
            }
            GuardAction::Arm { .. } | GuardAction::Disarm | GuardAction::Fire => return,
        };
        self.report(node, event);
    }

    /// Everything of PostgreSQL is killed.
    fn fence(&mut self, node: usize) {
        self.server_dies(node);
        let Some(guard) = &mut self.nodes[node].guard else { return };
        let tenure = guard.fire().map_or(LeaseId(0), |armed| armed.tenure);
        let alone = guard.absent_since.is_some();
        self.report(node, GuardEvent::Fired { tenure });
        // Its command gives the tenure back.
        if alone && !self.nodes[node].cut {
            self.store.end(tenure, Gone::Revoked);
            self.store_changed();
        }
    }

    /// When the guard wants to look at the clock.
    pub(super) fn guard_due(&self, guard: &Guard) -> Option<Time> {
        let end = guard.armed.map(|armed| Time(armed.at.0)).filter(|_| self.mutant != Some(Mutant::GuardNeverFires));
        let late = if self.mutant == Some(Mutant::GuardLate) { ms(900) } else { ms(0) };
        let absence = guard.absent_since.filter(|_| !guard.winding_down).map(|since| since + RESTART_GRACE);
        end.map(|end| end + late).into_iter().chain(absence).min()
    }

    fn guard_wakes(&mut self, node: usize) {
        let now = self.clock();
        let fires = self.mutant != Some(Mutant::GuardNeverFires);
        if self.nodes[node].guard.as_ref().is_some_and(|guard| guard.is_due(now) && fires) {
            self.fence(node);
        }
        self.guard_minds(node);
    }

    /// What is to be done because no agent lives.
    fn guard_minds(&mut self, node: usize) {
        let now = self.now;
        let (dead, writes) = (self.nodes[node].server.postmaster.is_none(), self.nodes[node].server.orphans.is_some());
        let host = &mut *self.nodes[node];
        let Some(guard) = &mut host.guard else { return };
        if guard.absent_since.is_none_or(|since| now < since + RESTART_GRACE) {
            return;
        }
        if guard.armed.is_none() {
            host.guard = None;
        } else if guard.held || dead || writes {
            self.fence(node);
            self.guard_minds(node);
        } else if !guard.winding_down {
            guard.winding_down = true;
            self.stop(node, StopMode::Fast);
        }
    }

    pub(super) fn guard_misses_agent(&mut self, node: usize) {
        let now = self.now;
        let early = self.mutant == Some(Mutant::ReleasedAlive);
        let Some(guard) = &mut self.nodes[node].guard else { return };
        guard.absent_since = Some(now);
        if let Some(armed) = guard.armed.filter(|_| early) {
            self.store.end(armed.tenure, Gone::Revoked);
            self.store_changed();
        }
    }

    /// The request is answered by nobody, and the connection is broken.
    pub(super) fn reset(&mut self, message: &Message) {
        if let Message::Request { node, boot, op, asked, .. } = message
            && self.nodes[*node].agent.as_ref().is_some_and(|agent| agent.boot == *boot)
        {
            let outcome = Outcome::Unknown("connection reset".into());
            self.send(Message::Reply { node: *node, op: *op, asked: *asked, outcome });
        }
    }
}
