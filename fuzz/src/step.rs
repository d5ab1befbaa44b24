//! Any sequence of events into `step`: those that a world would send, with answers that are late, refused or unknown, and
//! those that none would. Whatever is known, what must hold of every step holds (`core/src/tests/safety.rs`), and a
//! second step at the same instant does the same.

mod facts;

use std::collections::BTreeMap;

use matriarch_core::action::{Action, GuardAction, HostAction, PeerAction, PostgresAction, StoreAction};
use matriarch_core::decide::{Fate, decide};
use matriarch_core::event::{
    EpochFile, Event, GuardEvent, HostEvent, PeerEvent, PostgresDone, PostgresEvent, Started, StoreDone, StoreEvent,
};
use matriarch_core::id::{LeaseId, Lsn, Member, OpId, Revision, StoreId, Timeline};
use matriarch_core::lease::Tenure;
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::state::State;
use matriarch_core::time::{Duration, Instant, Seen, WallMillis};
use matriarch_core::view::View;
use matriarch_core::view::guard::Armed;
use matriarch_core::view::postgres::{Process, StartAs};
use matriarch_core::view::store::{ClusterView, EpochRecord, FailoverKey, Initialize, LeaderKey};

use self::facts::{SYSTEM, Server, config, data, leader, member, process, seconds, sql};
use crate::input::Choices;

/// Steps of a run at most: what takes longer to come about is for the simulator.
const STEPS_MAX: usize = 400;
const STORE: StoreId = StoreId(7);
const MEMBERS: [&str; 3] = ["a", "b", "c"];

/// The target.
pub fn target(data: &[u8]) -> String {
    let mut choices = Choices(data);
    let mut agent = Agent::new(&mut choices);
    let (mut steps, mut led) = (0, false);
    while steps < STEPS_MAX && !choices.is_empty() && !agent.left {
        let event = agent.event(&mut choices);
        agent.take(event);
        steps += 1;
        led |= agent.state.tenure.held().is_some();
    }
    // How many they are changes with everything that core does.
    let length = if steps < 20 { "a few steps" } else { "many steps" };
    format!("{length}, under a tenure: {led}")
}

/// The first steps of such a run: what each was taken from, when, and the event.
#[cfg(test)]
pub(crate) fn first_steps(data: &[u8], number: usize) -> Vec<(State, Instant, Event)> {
    let mut choices = Choices(data);
    let mut agent = Agent::new(&mut choices);
    let mut steps = Vec::new();
    while steps.len() < number && !choices.is_empty() && !agent.left {
        let event = agent.event(&mut choices);
        steps.push((agent.state.clone(), agent.now, event.clone()));
        agent.take(event);
    }
    steps
}

/// An agent, and what the world knows of its orders.
struct Agent {
    state: State,
    now: Instant,
    /// Orders that have not ended.
    open: Vec<(OpId, Action, Instant)>,
    /// Orders that the guard has not answered.
    asked: Vec<GuardAction>,
    /// What the guard is armed for, whoever ordered it.
    armed: Option<Armed>,
    server: Server,
    /// The leader key as it is.
    leader: Option<LeaderKey>,
    revision: i64,
    lease: i64,
    /// It was told to exit.
    left: bool,
}

impl Agent {
    fn new(choices: &mut Choices<'_>) -> Self {
        let now = Instant(1_000_000_000_000);
        let state = State::new(config(), now);
        let mut agent = Self {
            state,
            now,
            open: Vec::new(),
            asked: Vec::new(),
            armed: None,
            server: choices.pick(&[Server::Standby, Server::Standby, Server::Stopped, Server::Primary]),
            leader: choices.pick(&[None, Some(leader("b", LeaseId(55), 190)), Some(leader("a", LeaseId(77), 150))]),
            revision: 200,
            lease: 1000,
            left: false,
        };
        let file = EpochFile { system_id: SYSTEM, store: STORE, epoch: Revision(150), timeline: Timeline(1) };
        agent.armed = choices.one_in(4).then(|| Armed { tenure: LeaseId(77), at: now + seconds(9) });
        let epoch = choices.one_in(2).then_some(file);
        agent.take(Event::Started(Started { epoch, pledge: choices.one_in(4).then_some(Revision(190)) }));
        agent
    }

    fn take(&mut self, event: Event) {
        let before = self.state.clone();
        let effects = matriarch_core::step(&mut self.state, self.now, event.clone());
        let mut again = before.clone();
        assert_eq!(
            matriarch_core::step(&mut again, self.now, event.clone()),
            effects,
            "the same step does another thing"
        );
        assert_eq!(again.digest(), self.state.digest(), "the same step leaves another state");

        let mut verdict = decide(&View { at: self.now, state: &self.state }).1;
        if self.state.decision.as_ref().is_some_and(|decision| decision.reason != verdict.reason) {
            // What was concluded was concluded from the state before the orders: the search for a tenure may have ended.
            let mut asked = before;
            if matches!(asked.tenure, Tenure::Adopting { .. }) && self.state.tenure == Tenure::None {
                asked.tenure = Tenure::None;
            }
            verdict = decide(&View { at: self.now, state: &asked }).1;
            (verdict.steady, verdict.fate) = (true, Fate::Keep);
        }
        crate::safety::check(&self.state, self.now, &verdict, &effects);

        for order in effects.orders {
            match order.action {
                Action::Guard(action) => self.asked.push(action),
                Action::Answer(..) => {}
                Action::Host(HostAction::Exit { .. }) => self.left = true,
                action => self.open.push((order.op, action, self.now)),
            }
        }
        let excess = self.open.len().saturating_sub(40);
        self.open.drain(..excess);
    }

    fn event(&mut self, choices: &mut Choices<'_>) -> Event {
        let passes: u64 = choices.pick(&[0, 0, 0, 1, 1, 1, 5, 5, 20, 20, 20, 60, 60, 200, 700, 3_000]);
        self.now = self.now + Duration::from_millis(passes);
        match choices.below(16) {
            0..=5 if !self.open.is_empty() => self.completion(choices),
            6 | 7 => self.guard(choices),
            8 | 9 => Event::Store(StoreEvent::Watched(self.seen(choices))),
            10 => Event::Postgres(PostgresEvent::ProcessSeen(process(self.server, choices))),
            11 => Event::Postgres(PostgresEvent::DataSeen(data(self.server, choices))),
            12 if choices.one_in(4) => self.strike(choices),
            12 | 13 => self.any(choices),
            _ => self.tick(),
        }
    }

    fn tick(&self) -> Event {
        Event::Ticked(WallMillis((self.now.0 / 1_000_000) as i64))
    }

    /// The world changes by itself.
    fn strike(&mut self, choices: &mut Choices<'_>) -> Event {
        match choices.below(4) {
            0 => {
                self.server = Server::Stopped;
                Event::Postgres(PostgresEvent::ProcessSeen(Process::Absent))
            }
            1 => {
                self.leader = choices.pick(&[None, Some(leader("b", LeaseId(55), self.revision))]);
                Event::Store(StoreEvent::Watched(self.seen(choices)))
            }
            2 => Event::Guard(GuardEvent::Gone),
            _ => Event::Postgres(PostgresEvent::ProcessSeen(process(Server::Primary, choices))),
        }
    }

    /// Whatever the bytes are, made an event that the runtime could hand in.
    fn any(&mut self, choices: &mut Choices<'_>) -> Event {
        let Some(mut event) = choices.raw::<Event>() else { return self.tick() };
        match &mut event {
            Event::Store(StoreEvent::Watched(seen)) => (seen.asked, seen.heard) = (self.now, self.now),
            Event::Store(StoreEvent::Completed { op, outcome, asked }) => {
                (*op, *asked) = self.late(choices);
                // The adapter refuses a lease that is none.
                if let Outcome::Done(StoreDone::Granted { ttl, .. } | StoreDone::Renewed { ttl, .. }) = outcome {
                    *ttl = seconds(1 + ttl.as_secs() % 3600);
                }
            }
            Event::Postgres(PostgresEvent::Answered { op, sql }) => {
                let asked;
                (*op, asked) = self.late(choices);
                if let Some(seen) = sql {
                    (seen.asked, seen.heard) = (asked, self.now);
                }
            }
            Event::Postgres(PostgresEvent::Completed { op, .. }) | Event::Host(HostEvent::Completed { op, .. }) => {
                *op = self.late(choices).0;
            }
            Event::Peer(PeerEvent::Answered { op, asked, .. }) => (*op, *asked) = self.late(choices),
            // The API admits no more.
            Event::Operator(..) if !self.state.admits_request() => return self.tick(),
            Event::Peer(PeerEvent::PositionAsked { .. }) if !self.state.admits_question() => return self.tick(),
            // What the runtime has checked, within its bounds; and what the guard never says of itself.
            Event::Configured(_) | Event::Guard(_) | Event::Started(_) => return self.tick(),
            Event::Operator(..)
            | Event::Peer(PeerEvent::PositionAsked { .. } | PeerEvent::HandoverAnnounced)
            | Event::Postgres(PostgresEvent::ProcessSeen(_) | PostgresEvent::DataSeen(_))
            | Event::Ticked(_)
            | Event::ShutdownAsked => {}
        }
        event
    }

    /// An order that is or was under way.
    fn late(&mut self, choices: &mut Choices<'_>) -> (OpId, Instant) {
        let found = (!self.open.is_empty()).then(|| self.open.remove(choices.below(self.open.len())));
        found.map_or((OpId(u64::from(choices.byte())), self.now), |(op, _, since)| (op, since))
    }

    fn guard(&mut self, choices: &mut Choices<'_>) -> Event {
        if !self.state.guard.present || choices.one_in(16) {
            self.asked.clear();
            if choices.one_in(4) {
                return Event::Guard(GuardEvent::Gone);
            }
            // Another one knows nothing, the same one everything.
            self.armed = self.armed.filter(|armed| armed.at > self.now && choices.one_in(2));
            let (armed, held) = (self.armed, choices.one_in(8));
            return Event::Guard(GuardEvent::Connected { armed, held, fired: None });
        }
        if let Some(armed) = self.armed.filter(|armed| armed.at <= self.now) {
            self.armed = None;
            return Event::Guard(GuardEvent::Fired { tenure: armed.tenure });
        }
        if self.asked.is_empty() {
            return self.tick();
        }
        let action = self.asked.remove(0);
        Event::Guard(match action {
            _ if choices.one_in(12) => GuardEvent::Refused("no".into()),
            GuardAction::Arm { tenure, at } if at > self.now => {
                let armed = Armed { tenure, at };
                self.armed = Some(armed);
                GuardEvent::Armed(armed)
            }
            GuardAction::Arm { .. } => GuardEvent::Refused("past".into()),
            GuardAction::Disarm => {
                self.armed = None;
                GuardEvent::Disarmed
            }
            GuardAction::Hold if choices.one_in(6) => GuardEvent::Stuck { processes: 1 },
            GuardAction::Hold => GuardEvent::Held,
            GuardAction::Resume => GuardEvent::Resumed,
            GuardAction::Fire => {
                let tenure = self.armed.take().map_or(LeaseId(0), |armed| armed.tenure);
                GuardEvent::Fired { tenure }
            }
            GuardAction::KillOrphans => GuardEvent::OrphansDead,
        })
    }

    fn completion(&mut self, choices: &mut Choices<'_>) -> Event {
        let (op, action, asked) = self.open.remove(choices.below(self.open.len()));
        let fate = choices.below(12);
        match action {
            Action::Store(action) => {
                let outcome = self.stored(&action, choices);
                let outcome = ended(fate, outcome);
                Event::Store(StoreEvent::Completed { op, outcome, asked })
            }
            Action::Postgres(PostgresAction::Observe) => {
                let answers = fate > 1 && self.server != Server::Stopped;
                let sql = answers.then(|| Seen::new(sql(self.server, choices), asked, self.now));
                Event::Postgres(PostgresEvent::Answered { op, sql })
            }
            Action::Postgres(action) => {
                self.controlled(&action);
                let done = match action {
                    PostgresAction::Configure { generation, .. } => {
                        PostgresDone::Configured { generation, changed: true }
                    }
                    PostgresAction::Compare(_) => PostgresDone::Compared(choices.one_in(3).then_some(Lsn(0x300_0000))),
                    _ => PostgresDone::Done,
                };
                Event::Postgres(PostgresEvent::Completed { op, outcome: ended(fate, Some(done)) })
            }
            Action::Host(HostAction::StartGuard) => self.guard(choices),
            Action::Host(_) => Event::Host(HostEvent::Completed { op, outcome: ended(fate, Some(())) }),
            Action::Peer(
                PeerAction::AskPosition { member, .. }
                | PeerAction::AskStatus { member, .. }
                | PeerAction::AwaitReplay { member, .. },
            ) => {
                let outcome = ended(fate, choices.raw());
                Event::Peer(PeerEvent::Answered { op, member, outcome, asked })
            }
            Action::Guard(_) | Action::Answer(..) => self.tick(),
        }
    }

    /// What becomes of the server, whether that is told or not.
    fn controlled(&mut self, action: &PostgresAction) {
        match action {
            PostgresAction::Start(StartAs::Primary) | PostgresAction::Promote { .. } => self.server = Server::Primary,
            PostgresAction::Start(StartAs::Standby(_)) => self.server = Server::Standby,
            PostgresAction::Stop(_) => self.server = Server::Stopped,
            _ => {}
        }
    }

    /// What the store does, if it does what it is asked.
    fn stored(&mut self, action: &StoreAction, choices: &mut Choices<'_>) -> Option<StoreDone> {
        self.revision += 1;
        Some(match action {
            StoreAction::Read => StoreDone::Read(self.keys(choices)),
            StoreAction::GrantTenure { ttl } | StoreAction::GrantSession { ttl } => {
                self.lease += 1;
                StoreDone::Granted { lease: LeaseId(self.lease), ttl: *ttl }
            }
            StoreAction::Renew { .. } => {
                StoreDone::Renewed { ttl: self.state.config.ttl, revision: Revision(self.revision) }
            }
            StoreAction::Acquire(acquire) => {
                if self.leader.is_some() {
                    return None;
                }
                self.leader = Some(leader("a", acquire.lease, self.revision));
                StoreDone::Acquired(ClusterView { leader: self.leader.clone(), ..self.keys(choices) })
            }
            StoreAction::Release { .. } => {
                self.leader = None;
                StoreDone::Released
            }
            StoreAction::Revoke { lease } => {
                self.leader = self.leader.take().filter(|leader| leader.lease != *lease);
                StoreDone::Revoked
            }
            StoreAction::KeepSession { .. } => StoreDone::SessionKept,
            StoreAction::TakeOver { .. } if self.leader.as_ref().is_none_or(|leader| leader.member.0 != "a") => {
                return None;
            }
            StoreAction::TakeOver { lease, .. } => {
                self.leader = self.leader.take().map(|leader| LeaderKey { lease: *lease, ..leader });
                StoreDone::Acquired(self.keys(choices))
            }
            _ => StoreDone::Written,
        })
    }

    fn seen(&mut self, choices: &mut Choices<'_>) -> Seen<ClusterView> {
        if !choices.one_in(4) {
            self.revision += 1;
        }
        let asked = self.now.back(Duration::from_millis(choices.pick(&[0, 1, 50, 2_000])));
        Seen::new(self.keys(choices), asked, self.now)
    }

    /// Keys that other agents, or this one, may have written.
    fn keys(&self, choices: &mut Choices<'_>) -> ClusterView {
        let mut view = ClusterView {
            store: STORE,
            revision: Revision(self.revision),
            initialize: Some(Initialize { revision: Revision(5), lease: LeaseId(0), system_id: Some(SYSTEM) }),
            leader: self.leader.clone(),
            config_revision: Revision(6),
            ..ClusterView::default()
        };
        view.members =
            (100..).zip(MEMBERS).map(|(lease, name)| member(name, lease, choices)).collect::<BTreeMap<_, _>>();
        if choices.one_in(8) {
            let name = |choices: &mut Choices<'_>| choices.pick(&[None, Some("a"), Some("b")]).map(Member::new);
            let (leader, candidate) = (name(choices), name(choices));
            let scheduled_at = choices.one_in(3).then_some(WallMillis(1_005_000));
            view.failover_revision = Revision(self.revision);
            view.failover = Some(FailoverKey { revision: Revision(self.revision), leader, candidate, scheduled_at });
        }
        if choices.one_in(16) {
            (view.store, view.rollbacks) = choices.pick(&[(StoreId(8), 0), (STORE, 1)]);
        }
        if choices.one_in(16) {
            view.initialize = None;
        }
        view.paused = choices.pick(&[Some(false), Some(false), Some(true), None]);
        view.epoch = choices.one_in(4).then(|| EpochRecord {
            revision: Revision(150),
            store: STORE,
            epoch: Revision(150),
            member: Member::new("b"),
            timeline: Timeline(2),
            position: Lsn(0x300_0000),
            newest_timeline: choices.pick(&[Timeline(2), Timeline(3), Timeline(0)]),
            unguarded: choices.one_in(3),
        });
        view
    }
}

fn ended<T>(fate: usize, done: Option<T>) -> Outcome<T> {
    match (fate, done) {
        (0, _) => Outcome::Unknown("?".into()),
        (1, _) | (_, None) => Outcome::Refused(Refusal::Conflict),
        (_, Some(done)) => Outcome::Done(done),
    }
}
