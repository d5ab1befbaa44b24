//! The world around the agent: a store, a PostgreSQL, a guard and peers that do what they are told after a fixed while.

#[path = "orders.rs"]
mod orders;

use crate::describe::{describe, time};
use matriarch_core::action::{Action, GuardAction, HostAction};
use matriarch_core::config::Config;
use matriarch_core::effects::{Effects, Order, Wake};
use matriarch_core::event::{EpochFile, Event, GuardEvent, MoveRequest, PostgresEvent, Request, Started, StoreEvent};
use matriarch_core::id::{LeaseId, Lsn, Member, OpId, RequestId, Revision, StoreId, SystemId, Timeline};
use matriarch_core::state::State;
use matriarch_core::step;
use matriarch_core::time::{Instant, Seen, WallMillis};
use matriarch_core::timeline::History;
use matriarch_core::view::guard::Armed;
use matriarch_core::view::peers::PeerAnswer;
use matriarch_core::view::postgres::{Cluster, ControlState, DataDir, Process, Sql};
use matriarch_core::view::store::{
    ClusterView, EpochRecord, FailoverKey, Initialize, LeaderKey, MemberKey, MemberRecord, StatusKey,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use orders::{asked_of, dir, takes, upstream_of};

/// The script's 0s: the host has been up for a while.
pub(crate) const BEGIN: Instant = Instant(1_000_000_000_000);
const SYSTEM: SystemId = SystemId(4711);
const HERE: Lsn = Lsn(0x300_0060);
const TTL: Duration = Duration::from_secs(30);

/// What is in the data directory.
#[derive(Clone, Copy)]
pub(crate) enum Disk {
    Empty,
    Standby,
    CleanPrimary,
    CrashedPrimary,
    Foreign,
}

/// Something that will happen.
enum Due {
    Ends(Box<Order>),
    GuardStarted,
    GuardFires(Instant),
    Told,
}

pub(crate) struct World {
    state: State,
    now: Instant,
    started: bool,
    left: bool,
    started_with: Started,
    keys: ClusterView,
    frozen: bool,
    lease: i64,
    process: Process,
    pid: i32,
    data: DataDir,
    sql: Sql,
    diverged: Option<Lsn>,
    /// Why a crash recovery fails.
    recovery_fails: Option<String>,
    present: bool,
    startable: bool,
    armed: Option<Armed>,
    held: bool,
    peers: BTreeMap<Member, Option<PeerAnswer>>,
    due: BTreeMap<(Instant, u64), Due>,
    sequence: u64,
    cancelled: BTreeSet<OpId>,
    wake: Wake,
    /// The tenure that was last armed: renewals arm it again and again.
    told_armed: Option<LeaseId>,
    out: VecDeque<String>,
}

impl World {
    pub(crate) fn new() -> Self {
        let state = State::new(config(), BEGIN);
        let mut world = Self {
            now: BEGIN,
            started: false,
            left: false,
            started_with: Started::default(),
            keys: ClusterView {
                store: StoreId(1),
                revision: Revision(100),
                initialize: Some(Initialize { revision: Revision(5), lease: LeaseId(0), system_id: Some(SYSTEM) }),
                config_revision: Revision(6),
                ..ClusterView::default()
            },
            frozen: false,
            lease: 500,
            process: Process::Absent,
            pid: 1000,
            data: DataDir::Cluster(dir(ControlState::ShutDownInRecovery, true)),
            sql: Sql::default(),
            diverged: None,
            recovery_fails: None,
            present: false,
            startable: true,
            armed: None,
            held: false,
            peers: BTreeMap::new(),
            due: BTreeMap::new(),
            sequence: 0,
            cancelled: BTreeSet::new(),
            wake: Wake { at: None, because: matriarch_core::reason::Reason::AtGoal },
            told_armed: None,
            out: VecDeque::new(),
            state,
        };
        for name in ["b", "c"] {
            world.member(name, "replica", false);
            world.peer(name, HERE, true);
        }
        world
    }

    /// What was said since the last time, and when the agent wants to be woken.
    pub(crate) fn told(&mut self) -> Vec<String> {
        let mut told: Vec<String> = self.out.drain(..).collect();
        if let Some(at) = self.wake.at.filter(|_| self.started && !self.left && !told.is_empty()) {
            told.push(format!("           next      {} for {}", time(at.0), self.wake.because));
        }
        told
    }

    // --- what scripts say -------------------------------------------------------------------------------------------

    pub(crate) fn start(&mut self) {
        self.started = true;
        self.state = State::new(self.state.config.clone(), self.now);
        self.event(Event::Started(self.started_with));
    }

    pub(crate) fn shutdown(&mut self) {
        self.event(Event::ShutdownAsked);
    }

    pub(crate) fn uninitialise(&mut self) {
        self.keys.initialize = None;
        self.keys.config_revision = Revision(0);
        self.keys.members.clear();
    }

    pub(crate) fn unsupported(&mut self, mode: &str) {
        self.state.config.unsupported = Some(mode.into());
        let config = self.state.config.clone();
        self.event(Event::Configured(config));
    }

    pub(crate) fn disk(&mut self, disk: Disk) {
        self.data = match disk {
            Disk::Empty => DataDir::Empty,
            Disk::Standby => DataDir::Cluster(dir(ControlState::ShutDownInRecovery, true)),
            Disk::CleanPrimary => DataDir::Cluster(dir(ControlState::ShutDown, false)),
            Disk::CrashedPrimary => DataDir::Cluster(dir(ControlState::InProduction, false)),
            Disk::Foreign => {
                DataDir::Cluster(Cluster { system_id: SystemId(99), ..dir(ControlState::ShutDown, false) })
            }
        };
    }

    pub(crate) fn epoch_file(&mut self, epoch: Revision) {
        let file = EpochFile { system_id: SYSTEM, store: StoreId(1), epoch, timeline: Timeline(1) };
        self.started_with.epoch = Some(file);
    }

    pub(crate) fn postgres_runs(&mut self, standby: bool, upstream: Option<&&str>) {
        let state = if standby { ControlState::InArchiveRecovery } else { ControlState::InProduction };
        self.data = DataDir::Cluster(dir(state, standby));
        self.come_up(standby, upstream.map(|name| upstream_of(name)));
    }

    pub(crate) fn position(&mut self, position: Lsn) {
        (self.sql.flushed, self.sql.received, self.sql.replayed) = (position, position, position);
    }

    pub(crate) fn recovery_fails(&mut self, why: Option<String>) {
        self.recovery_fails = why;
    }

    pub(crate) fn diverged(&mut self, at: Lsn) {
        self.diverged = Some(at);
    }

    pub(crate) fn postmaster_dies(&mut self) {
        self.process = Process::Absent;
        self.look();
    }

    pub(crate) fn leader(&mut self, name: &str, created: Revision, lease: LeaseId) {
        let (member, newest_timeline) = (Member::new(name), self.sql.timeline.max(Timeline(1)));
        self.keys.leader = Some(LeaderKey { member: member.clone(), lease, created, modified: created });
        self.keys.epoch = Some(EpochRecord {
            revision: created,
            store: StoreId(1),
            epoch: created,
            member,
            timeline: newest_timeline,
            position: HERE,
            newest_timeline,
            unguarded: false,
        });
        if name != "a" {
            self.member(name, "primary", false);
        }
        self.changed();
    }

    pub(crate) fn leader_vanishes(&mut self) {
        self.keys.leader = None;
        self.changed();
    }

    /// One transaction tells that it is stopped and where, and deletes the key.
    pub(crate) fn leader_releases(&mut self) {
        let revision = Revision(self.keys.revision.0 + 1);
        let leader = self.keys.leader.take().map(|leader| leader.member);
        if let Some(key) = leader.and_then(|leader| self.keys.members.get_mut(&leader)) {
            (key.revision, key.record.state) = (revision, "stopped".into());
        }
        let before = self.keys.status.take().unwrap_or_default();
        self.keys.status = Some(StatusKey { revision, optime: Lsn(HERE.0 - 1), ..before });
        self.changed();
    }

    pub(crate) fn member_vanishes(&mut self, name: &str) {
        self.keys.members.remove(&Member::new(name));
        self.changed();
    }

    pub(crate) fn member(&mut self, name: &str, role: &str, checkpoint_pending: bool) {
        let record = MemberRecord {
            host: name.into(),
            port: 5432,
            api_url: format!("http://{name}:8008/patroni"),
            state: "running".into(),
            role: role.into(),
            timeline: Timeline(1),
            position: HERE,
            failover_priority: 1,
            pledges: true,
            checkpoint_pending,
            ..MemberRecord::default()
        };
        let key = MemberKey { revision: self.keys.revision, lease: LeaseId(300), record };
        self.keys.members.insert(Member::new(name), key);
        self.changed();
    }

    pub(crate) fn peer(&mut self, name: &str, position: Lsn, pledged: bool) {
        let answer = PeerAnswer {
            primary: false,
            barred: false,
            history: History::first(Timeline(1)),
            receives: !pledged,
            flushed: position,
            replayed: Lsn(position.0 + 0x78),
            replay_paused: false,
            pledge: pledged.then_some(self.keys.revision),
            leader_epoch: Revision(0),
            keys_at: Revision(0),
            tenure_ttl: Duration::ZERO,
        };
        self.peers.insert(Member::new(name), Some(answer));
    }

    pub(crate) fn peer_unreachable(&mut self, name: &str) {
        self.peers.insert(Member::new(name), None);
    }

    pub(crate) fn freeze_store(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    pub(crate) fn guard_armed(&mut self, tenure: LeaseId, at: Duration) {
        self.armed = Some(Armed { tenure, at: BEGIN + at });
    }

    pub(crate) fn guard_dies(&mut self, startable: bool) {
        (self.present, self.startable, self.armed) = (false, startable, None);
        self.event(Event::Guard(GuardEvent::Gone));
    }

    pub(crate) fn failover(&mut self, leader: Option<&str>, candidate: Option<&str>) {
        self.keys.failover_revision = Revision(self.keys.revision.0 + 1);
        self.keys.failover = Some(FailoverKey {
            revision: self.keys.failover_revision,
            leader: leader.map(Member::new),
            candidate: candidate.map(Member::new),
            scheduled_at: None,
        });
        self.changed();
    }

    pub(crate) fn operator(&mut self, request: Request) {
        self.event(Event::Operator(RequestId(1), request));
    }

    pub(crate) fn switchover(leader: Member, candidate: Member) -> Request {
        Request::Move(MoveRequest {
            switchover: true,
            leader: Some(leader),
            candidate: Some(candidate),
            scheduled_at: None,
            refused: false,
        })
    }

    // --- time -------------------------------------------------------------------------------------------------------

    /// Everything that happens before `time`.
    pub(crate) fn run_until(&mut self, time: Duration) {
        let end = BEGIN + time;
        for _ in 0..10_000 {
            let due = self.due.keys().next().map(|(at, _)| *at);
            let wake = self.wake.at.filter(|_| self.started);
            let Some(next) = due.into_iter().chain(wake).min().filter(|next| *next < end && !self.left) else { return };
            self.now = self.now.max(next);
            match self.due.first_key_value().filter(|((at, _), _)| *at <= self.now) {
                Some(_) => {
                    if let Some((_, due)) = self.due.pop_first() {
                        self.happens(due);
                    }
                }
                None => self.event(Event::Ticked(WallMillis((self.now.0 / 1_000_000) as i64))),
            }
        }
        panic!("the script never comes to rest: {:?}", self.out.iter().rev().take(8).collect::<Vec<_>>());
    }

    pub(crate) fn sleep_until(&mut self, time: Duration) {
        self.now = self.now.max(BEGIN + time);
    }

    fn later(&mut self, after: Duration, due: Due) {
        self.sequence += 1;
        self.due.insert((self.now + after, self.sequence), due);
    }

    fn happens(&mut self, due: Due) {
        match due {
            Due::Told => {
                let seen = Seen::new(self.keys.clone(), self.now, self.now);
                if !self.frozen {
                    self.event(Event::Store(StoreEvent::Watched(seen)));
                }
            }
            Due::GuardStarted if self.startable => {
                self.present = true;
                if let Some(armed) = self.armed {
                    self.later(armed.at.since(self.now), Due::GuardFires(armed.at));
                }
                let connected = GuardEvent::Connected { armed: self.armed, held: self.held, fired: None };
                self.event(Event::Guard(connected));
            }
            Due::GuardStarted => self.event(Event::Guard(GuardEvent::Gone)),
            Due::GuardFires(at) => {
                if self.armed.is_some_and(|armed| armed.at == at) && self.present {
                    self.tell("guard", "the end of the tenure is here: PostgreSQL is killed");
                    self.fires();
                }
            }
            Due::Ends(order) if self.cancelled.remove(&order.op) => {}
            Due::Ends(order) => self.ends(*order),
        }
    }

    // --- the agent --------------------------------------------------------------------------------------------------

    fn event(&mut self, event: Event) {
        if !self.started || self.left {
            return;
        }
        let Effects { orders, cancelled, wake, decision } = step(&mut self.state, self.now, event);
        self.wake = wake;
        self.cancelled.extend(cancelled);
        if let Some(decision) = decision {
            let told = format!("{} / {}: {}", decision.rung.name(), decision.reason.code(), decision.reason);
            self.tell("decision", &told);
        }
        for order in orders {
            self.ordered(order);
        }
    }

    fn tell(&mut self, what: &str, text: &str) {
        self.out.push_back(format!("{:<10} {what:<9} {text}", time(self.now.0)));
    }

    fn ordered(&mut self, order: Order) {
        let again = matches!(&order.action, Action::Guard(GuardAction::Arm { tenure, .. })
            if self.told_armed.replace(*tenure) == Some(*tenure));
        // Contact is sought every second while nobody speaks by himself.
        let routine = again || order.because.code() == "contact_due";
        if let Some(text) = describe(&order.action).filter(|_| !routine) {
            self.tell("order", &format!("{text}  ({})", order.because.code()));
        }
        match &order.action {
            Action::Host(HostAction::Exit { .. }) => self.left = true,
            Action::Host(HostAction::StartGuard) => self.later(Duration::from_millis(5), Due::GuardStarted),
            Action::Answer(..) => {}
            // A frozen store answers nothing, for as long as anybody waits.
            Action::Store(_) if self.frozen => {}
            Action::Guard(_) if !self.present => {}
            Action::Peer(action) if self.peers.get(asked_of(action)).is_none_or(Option::is_none) => {
                self.later(Duration::from_millis(100), Due::Ends(Box::new(order)));
            }
            action => {
                let after = takes(action);
                self.later(after, Due::Ends(Box::new(order)));
            }
        }
    }

    /// The keys changed: watches tell a little later.
    fn changed(&mut self) {
        self.keys.revision.0 += 1;
        if self.started {
            self.later(Duration::from_millis(1), Due::Told);
        }
    }

    /// What the runtime sees of process and data.
    fn look(&mut self) {
        self.event(Event::Postgres(PostgresEvent::ProcessSeen(self.process)));
        self.event(Event::Postgres(PostgresEvent::DataSeen(self.data.clone())));
    }

    // --- the guard --------------------------------------------------------------------------------------------------

    fn fires(&mut self) {
        let tenure = self.armed.take().map_or(LeaseId(0), |armed| armed.tenure);
        (self.held, self.process) = (false, Process::Absent);
        self.event(Event::Guard(GuardEvent::Fired { tenure }));
        self.look();
    }
}

fn config() -> Config {
    Config { ttl: TTL, ..Config::usual("a") }
}
