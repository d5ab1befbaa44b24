//! What the tests of core share: a node in a usual situation, to be changed by each test where it matters.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::action::{Action, Lane, PostgresAction, StoreAction};
use crate::config::Config;
use crate::decide::{Fate, Rung, Verdict, decide};
use crate::effects::Effects;
use crate::event::{EpochFile, Event};
use crate::id::{LeaseId, Lsn, Member, OpId, Pid, Revision, StoreId, SystemId, Timeline};
use crate::lease::{Bounds, Held, Tenure};
use crate::state::{InFlight, Leaderless, State};
use crate::time::{Duration, Instant, Seen, WallMillis};
use crate::timeline::History;
use crate::view::View;
use crate::view::guard::Armed;
use crate::view::peers::PeerAnswer;
use crate::view::postgres::{Cluster, ControlState, DataDir, Phase, Process, Receiver, Sql, StartAs, Upstream};
use crate::view::store::{ClusterView, EpochRecord, FailoverKey, Initialize, LeaderKey, MemberKey, MemberRecord};

pub(crate) const STORE: StoreId = StoreId(1);
pub(crate) const SYSTEM: SystemId = SystemId(4711);
/// The lease and the epoch of our own tenure in these tests.
pub(crate) const OURS: LeaseId = LeaseId(7);
pub(crate) const EPOCH: Revision = Revision(70);
/// The lease and the epoch of the tenure of `b`.
pub(crate) const THEIRS: LeaseId = LeaseId(8);
pub(crate) const THEIR_EPOCH: Revision = Revision(80);
/// Where everybody is unless a test says otherwise.
pub(crate) const HERE: Lsn = Lsn(0x300_0060);

/// Milliseconds after the beginning of the story (a host that has been up for 1000 s).
pub(crate) fn at(ms: u64) -> Instant {
    Instant(1_000_000_000_000 + ms * 1_000_000)
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn config() -> Config {
    Config::usual("a")
}

pub(crate) fn upstream(name: &str) -> Upstream {
    Upstream { member: Member::new(name), host: name.into(), port: 5432 }
}

/// The record of a tenure of `name` that began here and may begin timeline 2.
pub(crate) fn epoch_record(name: &str, epoch: Revision) -> EpochRecord {
    EpochRecord {
        revision: epoch,
        store: STORE,
        epoch,
        member: Member::new(name),
        timeline: Timeline(1),
        position: HERE,
        newest_timeline: Timeline(2),
        unguarded: false,
    }
}

/// A running replica.
pub(crate) fn record(name: &str) -> MemberRecord {
    MemberRecord {
        host: name.into(),
        port: 5432,
        api_url: alloc::format!("http://{name}:8008/patroni"),
        state: "running".into(),
        role: "replica".into(),
        timeline: Timeline(1),
        position: HERE,
        received: HERE,
        replayed: HERE,
        replication_state: "streaming".into(),
        failover_priority: 1,
        pledges: true,
        ..MemberRecord::default()
    }
}

pub(crate) fn leader(name: &str, lease: LeaseId, created: Revision) -> LeaderKey {
    LeaderKey { member: Member::new(name), lease, created, modified: created }
}

/// Members a, b and c; no leader.
pub(crate) fn cluster(revision: i64) -> ClusterView {
    let key = |(number, name): (i64, &&str)| {
        let key = MemberKey { revision: Revision(10 + number), lease: LeaseId(100 + number), record: record(name) };
        (Member::new(name), key)
    };
    ClusterView {
        store: STORE,
        revision: Revision(revision),
        initialize: Some(Initialize { revision: Revision(5), lease: LeaseId(0), system_id: Some(SYSTEM) }),
        members: (0..).zip(&["a", "b", "c"]).map(key).collect(),
        config_revision: Revision(6),
        paused: Some(false),
        ..ClusterView::default()
    }
}

/// The same with `name` as its leader, who serves.
pub(crate) fn led_by(name: &str, revision: i64) -> ClusterView {
    let mut cluster = cluster(revision);
    let (lease, epoch) = if name == "a" { (OURS, EPOCH) } else { (THEIRS, THEIR_EPOCH) };
    cluster.leader = Some(leader(name, lease, epoch));
    cluster.epoch = Some(epoch_record(name, epoch));
    if let Some(key) = cluster.members.get_mut(&Member::new(name)) {
        key.record.role = "primary".into();
    }
    cluster
}

pub(crate) fn failover(leader: Option<&str>, candidate: Option<&str>) -> FailoverKey {
    FailoverKey {
        revision: Revision(90),
        leader: leader.map(Member::new),
        candidate: candidate.map(Member::new),
        scheduled_at: None,
    }
}

/// Nobody is known to lead since then, nor at the revision of a race.
pub(crate) fn leaderless_since(since: Instant) -> Option<Leaderless> {
    Some(Leaderless { since, revision: Revision(101) })
}

/// A database cluster of a standby that was shut down.
pub(crate) fn standby_dir() -> Cluster {
    Cluster {
        system_id: SYSTEM,
        major_version: 15,
        state: ControlState::ShutDownInRecovery,
        checkpoint: Lsn(0x300_0028),
        checkpoint_timeline: Timeline(1),
        min_recovery: HERE,
        min_recovery_timeline: Timeline(1),
        rewindable: true,
        standby_signal: true,
        backup_label: false,
        tainted: None,
        history: History::first(Timeline(1)),
        newest_timeline: Timeline(1),
        segment_bytes: 16 << 20,
    }
}

/// A database cluster of a primary in this state.
pub(crate) fn primary_dir(state: ControlState) -> Cluster {
    Cluster { state, standby_signal: false, min_recovery: Lsn(0), min_recovery_timeline: Timeline(0), ..standby_dir() }
}

pub(crate) fn primary_sql() -> Sql {
    Sql { in_recovery: false, timeline: Timeline(1), flushed: HERE, server_version: 150_000, ..Sql::default() }
}

/// A standby, with slots for the others; `Some(name)`: it streams from there.
pub(crate) fn standby_sql(from: Option<&str>) -> Sql {
    let receiver = from.map(|name| Receiver {
        pid: 99,
        streaming: true,
        timeline: Timeline(1),
        latest_end: HERE,
        upstream: alloc::format!("{name}:5432"),
    });
    Sql {
        in_recovery: true,
        timeline: Timeline(1),
        received: HERE,
        replayed: HERE,
        upstream_set: from.is_some(),
        restores: false,
        receiver,
        server_version: 150_000,
        ..with_slots(Sql::default())
    }
}

pub(crate) fn alive(phase: Phase) -> Process {
    Process::Alive { pid: Pid(50), phase }
}

pub(crate) fn answer(flushed: Lsn, pledge: Option<Revision>) -> PeerAnswer {
    PeerAnswer {
        primary: false,
        barred: false,
        history: History::first(Timeline(1)),
        receives: pledge.is_none(),
        flushed,
        replayed: flushed,
        replay_paused: false,
        pledge,
        leader_epoch: Revision(0),
        keys_at: Revision(0),
        tenure_ttl: Duration::ZERO,
    }
}

/// The node `a`, and now.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) state: State,
    pub(crate) now: Instant,
}

impl Node {
    /// A stopped standby in a cluster without a leader that was looked at just now; its guard is there, not armed.
    pub(crate) fn stopped() -> Self {
        let now = at(0);
        let mut state = State::new(config(), now);
        state.tenure = Tenure::None;
        state.wall = (now, WallMillis(1_000_000));
        state.guard.present = true;
        state.guard.gone = None;
        state.memory.configured = 1;
        state.session.lease = Some(LeaseId(100));
        state.session.ttl = seconds(30);
        (state.session.kept, state.session.published_at, state.session.status_at) = (now, now, now);
        state.postgres.process = Process::Absent;
        state.postgres.orphans = Some(0);
        state.postgres.data = DataDir::Cluster(standby_dir());
        let mut node = Self { state, now };
        node.set_cluster(cluster(100));
        node.published()
    }

    /// The primary, with its tenure renewed just now and the guard armed.
    pub(crate) fn primary() -> Self {
        let mut node = Self::stopped();
        node.set_cluster(led_by("a", 100));
        let now = node.now;
        let state = &mut node.state;
        state.tenure = Tenure::Held(Held { lease: OURS, epoch: EPOCH, ttl: seconds(30), confirmed: now });
        state.guard.armed = Some(Armed { tenure: OURS, at: Bounds::default().arm_at(now, seconds(30)) });
        state.epoch_file = Some(epoch_file());
        state.postgres.process = alive(Phase::Ready);
        state.postgres.orphans = None;
        state.postgres.data = DataDir::Cluster(primary_dir(ControlState::InProduction));
        state.postgres.sql = Some(Seen::new(with_slots(primary_sql()), now, now));
        state.memory.checkpointed = Some(now);
        state.memory.heirs_since = Some(now.back(seconds(60)));
        state.memory.roles_created = true;
        node.published()
    }

    /// A primary that stopped cleanly just now to hand over to `b`.
    pub(crate) fn handing_over() -> Self {
        let request = failover(Some("a"), Some("b"));
        Self::primary().dead().dir(primary_dir(ControlState::ShutDown)).cluster(|cluster| {
            cluster.failover_revision = request.revision;
            cluster.failover = Some(request);
        })
    }

    /// A standby that streams from the leader `b`.
    pub(crate) fn standby() -> Self {
        let mut node = Self::stopped();
        node.set_cluster(led_by("b", 100));
        let now = node.now;
        let state = &mut node.state;
        state.postgres.process = alive(Phase::Ready);
        state.postgres.orphans = None;
        state.postgres.data = DataDir::Cluster(Cluster { state: ControlState::InArchiveRecovery, ..standby_dir() });
        state.postgres.sql = Some(Seen::new(standby_sql(Some("b")), now, now));
        state.memory.followed = Some(upstream("b"));
        state.memory.streamed = now;
        state.memory.streamed_from = Some(Member::new("b"));
        node.published()
    }

    /// A standby whose leader key was heard to be gone just now; everybody has answered and pledged, its own receiver
    /// is frozen: it may campaign.
    pub(crate) fn racing() -> Self {
        let mut node = Self::standby();
        let now = node.now;
        node.set_cluster(cluster(101));
        let state = &mut node.state;
        state.memory.race = Some((Revision(101), now));
        state.memory.leaderless = leaderless_since(now);
        state.postgres.sql = Some(Seen::new(standby_sql(None), now, now));
        for name in ["b", "c"] {
            let told = answer(Lsn(HERE.0 - 8), Some(Revision(101)));
            state.peers.answers.insert(Member::new(name), Seen::new(told, now, now));
        }
        node
    }

    pub(crate) fn set_cluster(&mut self, cluster: ClusterView) {
        self.state.store.answered = self.now;
        self.state.store.cluster = Some(Seen::new(cluster, self.now, self.now));
    }

    /// The member record in the store is what would be published now.
    pub(crate) fn published(mut self) -> Self {
        self.state.session.published = Some(crate::decide::members::record(&self.view()));
        self
    }

    #[must_use]
    pub(crate) fn with(mut self, change: impl FnOnce(&mut State)) -> Self {
        change(&mut self.state);
        self
    }

    #[must_use]
    pub(crate) fn cluster(mut self, change: impl FnOnce(&mut ClusterView)) -> Self {
        if let Some(seen) = self.state.store.cluster.as_mut() {
            change(&mut seen.value);
        }
        self
    }

    #[must_use]
    pub(crate) fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.state.config);
        self
    }

    #[must_use]
    pub(crate) fn dir(mut self, dir: Cluster) -> Self {
        self.state.postgres.data = DataDir::Cluster(dir);
        self
    }

    #[must_use]
    pub(crate) fn sql(mut self, sql: Sql) -> Self {
        self.state.postgres.sql = Some(Seen::new(sql, self.now, self.now));
        self
    }

    /// The postmaster died just now and nothing of it is left.
    #[must_use]
    pub(crate) fn dead(mut self) -> Self {
        self.state.postgres.process = Process::Absent;
        self.state.postgres.orphans = Some(0);
        self.state.postgres.sql = None;
        self.state.memory.dead_since = Some(self.now);
        self
    }

    #[must_use]
    pub(crate) fn phase(mut self, phase: Phase) -> Self {
        self.state.postgres.process = alive(phase);
        self
    }

    /// Time passes; nothing else happens.
    #[must_use]
    pub(crate) fn later(mut self, ms: u64) -> Self {
        self.now = self.now + millis(ms);
        self
    }

    /// That member has told just now how it is.
    #[must_use]
    pub(crate) fn told_by(mut self, member: &str, answer: PeerAnswer) -> Self {
        self.state.peers.answers.insert(Member::new(member), Seen::new(answer, self.now, self.now));
        self
    }

    /// This is in flight since `ms` ago.
    #[must_use]
    pub(crate) fn doing(mut self, action: Action, ms: u64) -> Self {
        let lane: Lane = action.lane().expect("only what takes a lane is in flight");
        let since = self.now.back(millis(ms));
        let deadline = self.now + seconds(3600);
        let op = self.state.ops.number();
        self.state.memory.as_standby |= matches!(&action, Action::Postgres(PostgresAction::Start(StartAs::Standby(_))));
        let known = self.view().cluster().map(|cluster| cluster.revision).unwrap_or_default();
        self.state.ops.begin(lane, InFlight { op, action, since, deadline, leader: None, known });
        self
    }

    pub(crate) fn view(&self) -> View<'_> {
        View { at: self.now, state: &self.state }
    }

    pub(crate) fn decide(&self) -> (Rung, Verdict) {
        decide(&self.view())
    }

    /// The rung that concludes, the code of its reason, the fate of the tenure.
    pub(crate) fn concludes(&self) -> (Rung, &'static str, Fate) {
        let (rung, verdict) = self.decide();
        (rung, verdict.reason.code(), verdict.fate)
    }

    /// What the verdict wants done.
    pub(crate) fn wants(&self) -> Vec<Action> {
        self.decide().1.orders
    }

    pub(crate) fn step(&mut self, event: Event) -> Effects {
        crate::step(&mut self.state, self.now, event)
    }

    /// A step by the clock alone.
    pub(crate) fn tick(&mut self) -> Effects {
        self.step(Event::Ticked(WallMillis(1_000_000)))
    }

    /// The number of what is in flight in a lane.
    pub(crate) fn op(&self, lane: &Lane) -> OpId {
        self.state.ops.in_lane(lane).map(|in_flight| in_flight.op).expect("something is in flight in this lane")
    }
}

pub(crate) fn epoch_file() -> EpochFile {
    EpochFile { system_id: SYSTEM, store: STORE, epoch: EPOCH, timeline: Timeline(1) }
}

/// The renewal of our tenure.
pub(crate) fn renewal() -> Action {
    Action::Store(StoreAction::Renew { lease: OURS, epoch: EPOCH, deadline: seconds(10) })
}

/// The promotion onto the timeline that our tenure has reserved.
pub(crate) fn promotion() -> Action {
    Action::Postgres(PostgresAction::Promote { timeline: Timeline(2) })
}

/// The release of our tenure.
pub(crate) fn release() -> Action {
    let (lease, epoch, session) = (OURS, EPOCH, Some(LeaseId(100)));
    let (position, timeline) = (HERE, Timeline(1));
    Action::Store(StoreAction::Release {
        lease,
        epoch,
        position,
        timeline,
        history: None,
        record: Box::new(record("a")),
        session,
    })
}

/// The order to forget the tenure on disk.
pub(crate) fn forgets() -> Action {
    let forgotten = EpochFile { epoch: Revision(0), ..epoch_file() };
    Action::Host(crate::action::HostAction::WriteEpoch(forgotten))
}

/// The tenure was forgotten on disk.
pub(crate) fn forgotten(state: &mut State) {
    state.epoch_file = Some(EpochFile { epoch: Revision(0), ..epoch_file() });
}

fn with_slots(mut sql: Sql) -> Sql {
    let slot = |name: &str| crate::view::postgres::Slot {
        name: String::from(name),
        physical: true,
        active: true,
        restart: HERE,
        ..Default::default()
    };
    sql.slots = ["b", "c"].map(slot).into();
    sql
}

pub(crate) fn actions(effects: &Effects) -> Vec<Action> {
    effects.orders.iter().map(|order| order.action.clone()).collect()
}

/// The answers to these requests.
pub(crate) fn answers(effects: &Effects) -> BTreeMap<crate::id::RequestId, crate::action::Answer> {
    let answer = |order: &crate::effects::Order| match &order.action {
        Action::Answer(id, answer) => Some((*id, answer.clone())),
        _ => None,
    };
    effects.orders.iter().filter_map(answer).collect()
}
