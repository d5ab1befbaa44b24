//! A long random walk: well-formed events in any order, with completions that are late, refused or unknown. No model of
//! the world: only what must hold of every step, whatever happens.

use super::proof::concluded;
use super::random::Random;
use super::safety;
use crate::action::{Action, GuardAction, HostAction, Lane, PeerAction, PostgresAction, StoreAction};
use crate::event::{
    Event, GuardEvent, HostEvent, PeerEvent, PostgresDone, PostgresEvent, Request, Started, StoreDone, StoreEvent,
};
use crate::id::{LeaseId, Lsn, Member, OpId, Pid, RequestId, Revision};
use crate::op::{Outcome, Refusal};
use crate::state::State;
use crate::testing::*;
use crate::time::{Instant, Seen, WallMillis};
use crate::view::guard::Armed;
use crate::view::postgres::{ControlState, DataDir, Phase, Process, Sql};
use crate::view::store::ClusterView;

/// Seeds that a run walks, and how far.
const SEEDS: u64 = 40;
const STEPS: usize = 1_500;

/// What the walk must remember so that its events are well formed.
pub(super) struct Walk {
    pub(super) node: Node,
    random: Random,
    /// Orders that were handed out and did not end yet, the cancelled ones as well: their completions come late.
    open: Vec<(OpId, Action, Instant)>,
    /// Orders that the guard has not answered yet, in order.
    guard: Vec<GuardAction>,
    revision: i64,
    lease: i64,
    pid: i32,
    tenures: usize,
}

#[test]
fn a_random_walk_breaks_nothing_that_must_hold() {
    let mut tenures = 0;
    for seed in 0..SEEDS {
        let mut walk = Walk::new(seed);
        for step in 0..STEPS {
            let event = walk.event();
            walk.take(event, &format!("seed {seed}, step {step}"));
        }
        tenures += walk.tenures;
    }
    assert!(tenures > SEEDS as usize, "the walk hardly ever leads: {tenures} tenures are no evidence");
}

#[test]
fn the_same_walk_ends_in_the_same_state() {
    let run = |seed| {
        let mut walk = Walk::new(seed);
        for _ in 0..STEPS {
            let event = walk.event();
            walk.take(event, "determinism");
        }
        walk.node.state
    };
    assert_eq!(run(1_000), run(1_000));
}

/// What becomes of every order while the facts stay as they are.
#[derive(Clone, Copy, Debug)]
enum World {
    /// Nobody answers anything.
    Silent,
    /// Everything is refused after five milliseconds.
    Refusing,
    /// Every outcome is unknown after five milliseconds.
    Failing,
    /// Everything is done after five milliseconds, and the facts are still the same.
    Unmoved,
}

#[test]
fn no_order_is_a_busy_loop_while_the_facts_stay_as_they_are() {
    for (world, limit) in
        [(World::Silent, 2_000), (World::Refusing, 11_000), (World::Failing, 11_000), (World::Unmoved, 11_000)]
    {
        let mut random = Random(77);
        for number in 0..80 {
            let node = super::proof::any_node(&mut random);
            let before = format!("{:#?}", node.state);
            let (steps, most) = one_minute(node, world);
            assert!(
                steps < limit && most.1 < 5_000,
                "{world:?} {number}: {steps} steps in a minute, most of them {most:?}\n{before}"
            );
        }
    }
}

/// Steps that a simulated minute takes, and the order that was given most often.
fn one_minute(mut node: Node, world: World) -> (usize, (String, usize)) {
    let end = node.now + seconds(60);
    let mut due: Vec<(Instant, OpId, Action)> = Vec::new();
    let mut counts: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    let mut event = Event::Ticked(WallMillis(0));
    let mut steps = 0;
    while node.now < end && steps < 12_000 {
        let effects = crate::step(&mut node.state, node.now, event);
        steps += 1;
        for order in effects.orders {
            *counts.entry(format!("{:?}", order.action).chars().take(60).collect()).or_default() += 1;
            if matches!(order.action, Action::Host(HostAction::Exit { .. })) {
                return (steps, ("exit".into(), 1));
            }
            due.push((node.now + millis(5), order.op, order.action));
        }
        due.retain(|(_, op, _)| !effects.cancelled.contains(op));
        let wake = effects.wake.at.unwrap_or(end);
        assert!(wake > node.now, "a wake that is past");
        let next = due.iter().map(|(at, ..)| *at).min().filter(|_| !matches!(world, World::Silent));
        let completion = next.filter(|at| *at <= wake);
        node.now = completion.unwrap_or(wake);
        event = Event::Ticked(WallMillis(0));
        if let Some(at) = completion
            && let Some(index) = due.iter().position(|(when, ..)| *when == at)
        {
            let (_, op, action) = due.remove(index);
            event = ended(&node, op, action, at.back(millis(5)), world).unwrap_or(event);
        }
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count).unwrap_or_default();
    (steps, most)
}

fn ended(node: &Node, op: OpId, action: Action, asked: Instant, world: World) -> Option<Event> {
    let refused = matches!(world, World::Refusing);
    let fail = move || failed(refused);
    let done = matches!(world, World::Unmoved);
    Some(match action {
        Action::Store(action) => {
            let view = node.state.store.cluster.as_ref().map(|seen| seen.value.clone()).unwrap_or_default();
            let outcome = if done {
                match action {
                    StoreAction::Read => Outcome::Done(StoreDone::Read(view)),
                    StoreAction::GrantTenure { ttl } | StoreAction::GrantSession { ttl } => {
                        Outcome::Done(StoreDone::Granted { lease: LeaseId(900), ttl })
                    }
                    StoreAction::Renew { .. } => {
                        Outcome::Done(StoreDone::Renewed { ttl: seconds(30), revision: Revision(0) })
                    }
                    StoreAction::Release { .. } => Outcome::Done(StoreDone::Released),
                    StoreAction::Revoke { .. } => Outcome::Done(StoreDone::Revoked),
                    StoreAction::KeepSession { .. } => Outcome::Done(StoreDone::SessionKept),
                    StoreAction::Acquire(_) | StoreAction::TakeOver { .. } => Outcome::Refused(Refusal::Conflict),
                    _ => Outcome::Done(StoreDone::Written),
                }
            } else if refused {
                Outcome::Refused(Refusal::Conflict)
            } else {
                failed(false)
            };
            Event::Store(StoreEvent::Completed { op, outcome, asked })
        }
        Action::Postgres(PostgresAction::Observe) => {
            let sql = node.state.postgres.sql.as_ref().map(|seen| seen.value.clone()).filter(|_| done);
            let sql = sql.map(|sql| Seen::new(sql, asked, node.now));
            Event::Postgres(PostgresEvent::Answered { op, sql })
        }
        Action::Postgres(action) => {
            let outcome = match action {
                _ if !done => fail(),
                // What was done would have changed something.
                PostgresAction::Stop(_)
                | PostgresAction::Start(_)
                | PostgresAction::Promote { .. }
                | PostgresAction::Initdb
                | PostgresAction::Clone(_)
                | PostgresAction::Restore
                | PostgresAction::Rewind(_)
                | PostgresAction::RecoverSingleUser
                | PostgresAction::Freeze => Outcome::Unknown("nothing changed".into()),
                PostgresAction::Follow(_) => Outcome::Done(PostgresDone::NeedsRestart),
                PostgresAction::Compare(_) => Outcome::Done(PostgresDone::Compared(None)),
                PostgresAction::Configure { generation } => {
                    Outcome::Done(PostgresDone::Configured { generation, changed: true })
                }
                _ => Outcome::Done(PostgresDone::Done),
            };
            Event::Postgres(PostgresEvent::Completed { op, outcome })
        }
        Action::Host(HostAction::StartGuard) => Event::Guard(GuardEvent::Gone),
        Action::Host(_) => {
            let outcome = if done { Outcome::Done(()) } else { failed(refused) };
            Event::Host(HostEvent::Completed { op, outcome })
        }
        Action::Guard(action) => {
            let armed = node.state.guard.armed;
            Event::Guard(match action {
                _ if !done => GuardEvent::Refused("no".into()),
                GuardAction::Arm { tenure, at } => GuardEvent::Armed(Armed { tenure, at }),
                GuardAction::Disarm => GuardEvent::Disarmed,
                GuardAction::Hold => GuardEvent::Held,
                GuardAction::Resume => GuardEvent::Resumed,
                GuardAction::Fire => GuardEvent::Fired { tenure: armed.map_or(LeaseId(0), |armed| armed.tenure) },
                GuardAction::KillOrphans => GuardEvent::OrphansDead,
            })
        }
        Action::Peer(
            PeerAction::AskPosition { member, .. }
            | PeerAction::AskStatus { member, .. }
            | PeerAction::AwaitReplay { member, .. },
        ) => {
            let outcome = if done { Outcome::Done(answer(Lsn(8), None)) } else { failed(refused) };
            Event::Peer(PeerEvent::Answered { op, member, outcome, asked })
        }
        Action::Answer(..) => return None,
    })
}

fn failed<T>(refused: bool) -> Outcome<T> {
    if refused { Outcome::Refused(Refusal::Failed("no".into())) } else { Outcome::Unknown("?".into()) }
}

impl Walk {
    pub(super) fn new(seed: u64) -> Self {
        let now = at(0);
        let state = State::new(config(), now);
        let mut walk = Self {
            node: Node { state, now },
            random: Random(seed),
            open: Vec::new(),
            guard: Vec::new(),
            revision: 200,
            lease: 1_000,
            pid: 100,
            tenures: 0,
        };
        // The runtime tells of the guard first, or that none could be started.
        let greeting = walk.guard_comes();
        walk.take(Event::Guard(greeting), "start");
        let started = Started { epoch: walk.random.one_in(2).then(epoch_file), pledge: None };
        walk.take(Event::Started(started), "start");
        walk
    }

    pub(super) fn take(&mut self, event: Event, whence: &str) {
        let before = self.node.clone();
        let told = format!("{event:?}");
        let effects = self.node.step(event);
        let verdict = self.node.state.decision.clone();
        let asked = concluded(&before, &self.node);
        // The verdict is asked of the state that the step left; where the step changed it, only its own reason counts.
        let mut verdict_now = self.node.decide().1;
        if verdict.is_some_and(|decision| decision.reason != verdict_now.reason) {
            verdict_now = asked;
            verdict_now.steady = true;
            verdict_now.fate = crate::decide::Fate::Keep;
        }
        let node = &self.node;
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            safety::check(&node.state, node.now, &verdict_now, &effects);
        }));
        assert!(checked.is_ok(), "{whence}: after {told}\n{:#?}\norders {:#?}", before.state, effects.orders);
        self.tenures += usize::from(before.state.tenure.held().is_none() && node.state.tenure.held().is_some());
        for order in effects.orders {
            match order.action {
                Action::Guard(action) => self.guard.push(action),
                Action::Answer(..) | Action::Host(HostAction::Exit { .. }) => {}
                action => self.open.push((order.op, action, self.node.now)),
            }
        }
        let excess = self.open.len().saturating_sub(40);
        self.open.drain(..excess);
    }

    pub(super) fn event(&mut self) -> Event {
        let passes = self.random.pick(&[0, 0, 1, 1, 5, 20, 60, 200, 700, 3_000]);
        self.node.now = self.node.now + millis(passes);
        match self.random.below(20) {
            0..=6 if !self.open.is_empty() => self.completion(),
            7..=10 if !self.guard.is_empty() => self.guard_answer(),
            11 | 12 => Event::Store(StoreEvent::Watched(self.keys())),
            13 => self.process(),
            14 => Event::Postgres(PostgresEvent::DataSeen(self.data())),
            15 => self.rare(),
            _ => Event::Ticked(WallMillis((self.node.now.0 / 1_000_000) as i64)),
        }
    }

    fn completion(&mut self) -> Event {
        let index = self.random.below(self.open.len() as u64) as usize;
        let (op, action, since) = self.open.remove(index);
        let kind = self.random.below(8);
        let world = match kind {
            0 => World::Failing,
            1 => World::Refusing,
            _ => World::Unmoved,
        };
        let asked = since;
        match (&action, world) {
            (Action::Store(StoreAction::Read), World::Unmoved) => {
                let outcome = Outcome::Done(StoreDone::Read(self.view()));
                Event::Store(StoreEvent::Completed { op, outcome, asked })
            }
            (Action::Store(StoreAction::GrantTenure { ttl } | StoreAction::GrantSession { ttl }), World::Unmoved) => {
                self.lease += 1;
                let granted = StoreDone::Granted { lease: LeaseId(self.lease), ttl: *ttl };
                Event::Store(StoreEvent::Completed { op, outcome: Outcome::Done(granted), asked })
            }
            (Action::Store(StoreAction::Acquire(acquire)), World::Unmoved) => {
                self.revision += 1;
                let mut view = cluster(self.revision);
                view.leader = Some(leader("a", acquire.lease, Revision(self.revision)));
                Event::Store(StoreEvent::Completed { op, outcome: Outcome::Done(StoreDone::Acquired(view)), asked })
            }
            (Action::Postgres(PostgresAction::Observe), World::Unmoved) => {
                let sql = self.sql();
                let sql = sql.map(|sql| Seen::new(sql, asked, self.node.now));
                Event::Postgres(PostgresEvent::Answered { op, sql })
            }
            (Action::Host(HostAction::StartGuard), _) => Event::Guard(self.guard_comes()),
            _ => ended(&self.node, op, action, asked, world).unwrap_or(Event::Ticked(WallMillis(0))),
        }
    }

    fn guard_answer(&mut self) -> Event {
        if !self.node.state.guard.present {
            self.guard.clear();
            return Event::Guard(self.guard_comes());
        }
        let action = self.guard.remove(0);
        Event::Guard(match action {
            _ if self.random.one_in(12) => GuardEvent::Refused("no".into()),
            GuardAction::Arm { tenure, at } if at > self.node.now => GuardEvent::Armed(Armed { tenure, at }),
            GuardAction::Arm { .. } => GuardEvent::Refused("past".into()),
            GuardAction::Disarm => GuardEvent::Disarmed,
            GuardAction::Hold => GuardEvent::Held,
            GuardAction::Resume => GuardEvent::Resumed,
            GuardAction::Fire => {
                let armed = self.node.state.guard.armed;
                GuardEvent::Fired { tenure: armed.map_or(LeaseId(0), |armed| armed.tenure) }
            }
            GuardAction::KillOrphans => GuardEvent::OrphansDead,
        })
    }

    fn guard_comes(&mut self) -> GuardEvent {
        self.guard.clear();
        if self.random.one_in(4) {
            return GuardEvent::Gone;
        }
        GuardEvent::Connected { armed: None, held: false, fired: None }
    }

    fn keys(&mut self) -> Seen<ClusterView> {
        let now = self.node.now;
        Seen::new(self.view(), now, now)
    }

    /// Mostly newer than the last one, sometimes older: a watch that was slow.
    fn view(&mut self) -> ClusterView {
        let older = self.random.one_in(8);
        self.revision += 1;
        let revision = if older { self.revision - 5 } else { self.revision };
        let mut view = cluster(revision);
        let held = self.node.state.tenure.held().copied();
        view.leader = match (self.random.below(8), held) {
            (0, _) => None,
            (1, _) => {
                self.lease += 1;
                Some(leader("b", LeaseId(self.lease), Revision(revision)))
            }
            (_, Some(held)) => Some(leader("a", held.lease, held.epoch)),
            (2, None) => Some(leader("b", THEIRS, THEIR_EPOCH)),
            (3, None) => Some(leader("a", OURS, EPOCH)),
            (4, None) => self.node.state.granted.map(|granted| leader("a", granted.lease, Revision(revision))),
            _ => None,
        };
        if self.random.one_in(6) {
            view.failover = Some(failover(Some("a"), Some("b")));
            view.failover_revision = Revision(90);
        }
        view.paused = match self.random.below(12) {
            0 => Some(true),
            1 => None,
            2 | 3 => Some(false),
            _ => Some(self.node.view().paused()),
        };
        view.epoch = held.map(|held| crate::view::store::EpochRecord {
            unguarded: self.random.one_in(2),
            ..epoch_record("a", held.epoch)
        });
        if let Some(key) = view.members.get_mut(&Member::new("b")) {
            key.record.role = self.random.pick(&["primary", "replica"]).into();
        }
        view
    }

    fn process(&mut self) -> Event {
        if self.random.one_in(3) {
            self.pid += 1;
        }
        let pid = Pid(self.pid);
        let process = self.random.pick(&[
            Process::Absent,
            Process::Alive { pid, phase: Phase::Starting },
            Process::Alive { pid, phase: Phase::Ready },
            Process::Alive { pid, phase: Phase::Ready },
            Process::Alive { pid, phase: Phase::Ready },
            Process::Alive { pid, phase: Phase::Stopping },
        ]);
        Event::Postgres(PostgresEvent::ProcessSeen(process))
    }

    fn data(&mut self) -> DataDir {
        match self.random.below(12) {
            0 => DataDir::Empty,
            1..=4 => DataDir::Cluster(primary_dir(ControlState::InProduction)),
            5 => DataDir::Cluster(primary_dir(ControlState::ShutDown)),
            6 => {
                let mut dir = standby_dir();
                dir.tainted = Some("cloning".into());
                DataDir::Cluster(dir)
            }
            _ => DataDir::Cluster(standby_dir()),
        }
    }

    fn sql(&mut self) -> Option<Sql> {
        self.random.pick(&[
            None,
            Some(primary_sql()),
            Some(standby_sql(None)),
            Some(standby_sql(None)),
            Some(standby_sql(Some("b"))),
        ])
    }

    fn rare(&mut self) -> Event {
        let id = RequestId(self.random.below(1 << 40));
        match self.random.below(12) {
            0 => Event::Guard(GuardEvent::Gone),
            1 => Event::Guard(self.guard_comes()),
            2 => {
                let tenure = self.node.state.guard.armed.map_or(LeaseId(0), |armed| armed.tenure);
                Event::Guard(GuardEvent::Fired { tenure })
            }
            3 => Event::Guard(GuardEvent::Stuck { processes: 2 }),
            4 => Event::Operator(id, Request::Restart),
            5 => Event::Operator(id, Request::Reinitialize { force: self.random.one_in(2), from_leader: false }),
            6 | 7 => Event::Peer(PeerEvent::PositionAsked { request: id, absent_at: Revision(self.revision) }),
            8 => Event::Peer(PeerEvent::HandoverAnnounced),
            9 if self.random.one_in(20) => Event::ShutdownAsked,
            10 => {
                let mut config = config();
                config.unsupported = self.random.one_in(3).then(|| "pause".into());
                config.parameters_generation = self.random.below(9);
                Event::Configured(config)
            }
            _ => Event::Ticked(WallMillis(0)),
        }
    }
}

#[test]
fn an_operation_ends_once_and_a_completion_of_it_that_comes_again_is_counted_and_dropped() {
    let mut node = Node::primary().later(11_000);
    node.tick();
    let op = node.op(&Lane::Renew);
    let renewed = |asked| {
        let outcome = Outcome::Done(StoreDone::Renewed { ttl: seconds(30), revision: Revision(0) });
        Event::Store(StoreEvent::Completed { op, outcome, asked })
    };
    node.step(renewed(node.now));
    let before = node.state.ops.stale;
    let confirmed = node.state.tenure.held().map(|held| held.confirmed);
    node.now = node.now + seconds(5);
    node.step(renewed(node.now));
    assert_eq!(node.state.ops.stale, before + 1);
    assert_eq!(node.state.tenure.held().map(|held| held.confirmed), confirmed);
}
