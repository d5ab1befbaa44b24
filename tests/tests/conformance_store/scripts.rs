//! What is done to a store, and what is observed of it.

use std::time::Duration;

use matriarch_core::action::{Acquire, Status, StoreAction};
use matriarch_core::event::StoreDone;
use matriarch_core::id::{LeaseId, Lsn, Member, Revision, SystemId, Timeline};
use matriarch_core::op::Outcome;
use matriarch_core::view::store::{ClusterView, HistoryLine, MemberRecord};

use crate::{GIVE_UP, Store, Who};
use Who::{A, B};

/// The shortest ttl that etcd grants.
pub(crate) const SHORTEST: Duration = Duration::from_secs(2);
/// How much longer than its ttl a lease lives at most, in the model.
pub(crate) const LATE_MAX: Duration = Duration::from_millis(520);
/// What a new leader of the store adds to every ttl.
pub(crate) const EXTENDED: Duration = Duration::from_secs(1);
/// How much longer things may take on a machine that is busy.
pub(crate) const SLACK: Duration = Duration::from_millis(1500);
/// Between two looks.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// A script under way.
pub(crate) struct Script<S> {
    pub(crate) store: S,
    /// What was observed, in words that are the same for every store.
    pub(crate) told: Vec<String>,
    /// In the order in which they were granted.
    leases: Vec<LeaseId>,
    /// The newest revision that the watch has told of, and how often the store had gone back by then.
    newest: (u64, Revision),
}

impl<S: Store> Script<S> {
    pub(crate) fn new(store: S) -> Self {
        Self { store, told: Vec::new(), leases: Vec::new(), newest: (0, Revision(0)) }
    }

    pub(crate) fn note(&mut self, what: &str, seen: impl std::fmt::Display) {
        self.told.push(format!("{what}: {seen}"));
    }

    /// Orders something, and notes what came of it.
    pub(crate) async fn order(&mut self, what: &str, who: Who, action: StoreAction) -> Outcome<StoreDone> {
        self.order_within(GIVE_UP, what, who, action).await
    }

    pub(crate) async fn order_within(
        &mut self,
        limit: Duration,
        what: &str,
        who: Who,
        action: StoreAction,
    ) -> Outcome<StoreDone> {
        let outcome = self.store.order(who, action, limit).await;
        let seen = match &outcome {
            Outcome::Done(StoreDone::Granted { ttl, .. }) => format!("for {ttl:?}"),
            Outcome::Done(StoreDone::Acquired(view)) => self.show(view),
            Outcome::Done(done) => format!("{done:?}"),
            Outcome::Refused(refusal) => format!("{refusal:?}"),
            Outcome::Unknown(_) => "unknown".into(),
        };
        self.note(what, seen);
        outcome
    }

    pub(crate) async fn grant(&mut self, who: Who, ttl: Duration) -> LeaseId {
        let granted = self.order(&format!("{who:?} is granted a lease"), who, StoreAction::GrantTenure { ttl }).await;
        let Outcome::Done(StoreDone::Granted { lease, .. }) = granted else { panic!("{granted:?}") };
        self.leases.push(lease);
        lease
    }

    /// The keys as whoever asks reads them.
    pub(crate) async fn read(&mut self, who: Who) -> Option<ClusterView> {
        self.read_within(GIVE_UP, who).await
    }

    pub(crate) async fn read_within(&mut self, limit: Duration, who: Who) -> Option<ClusterView> {
        match self.store.order(who, StoreAction::Read, limit).await {
            Outcome::Done(StoreDone::Read(view)) => Some(view),
            _ => None,
        }
    }

    /// Everybody reads; the watch tells the same, each change once.
    pub(crate) async fn look(&mut self) -> ClusterView {
        let (view, other) = (self.read(A).await.unwrap(), self.read(B).await.unwrap());
        let shown = self.show(&view);
        self.note("the keys", &shown);
        assert_eq!(shown, self.show(&other), "nothing happens meanwhile");
        let (mut told, mut last) = (Vec::new(), None);
        for _ in 0..250 {
            // A watch that is begun anew tells what is known first.
            for seen in self.store.watched().await {
                if (seen.rollbacks, seen.revision) > self.newest {
                    self.newest = (seen.rollbacks, seen.revision);
                    told.push(seen.revision.0);
                    last = Some(seen);
                }
            }
            if self.newest >= (view.rollbacks, view.revision) {
                break;
            }
            self.store.pass(PAUSE).await;
        }
        self.note("the watch told of", format!("{told:?}"));
        if let Some(last) = last {
            assert_eq!(self.show(&last), shown, "the watch tells what a read finds");
        }
        view
    }

    fn lease(&self, lease: LeaseId) -> String {
        let position = self.leases.iter().position(|known| *known == lease);
        position.map_or_else(|| "none".into(), |position| format!("l{position}"))
    }

    fn show(&self, view: &ClusterView) -> String {
        let mut text = format!("@{}", view.revision.0);
        if let Some(leader) = &view.leader {
            let (lease, created, modified) = (self.lease(leader.lease), leader.created.0, leader.modified.0);
            text += &format!(", leader {} under {lease} c{created} m{modified}", leader.member);
        }
        for (name, key) in &view.members {
            text += &format!(", member {name} under {} m{}", self.lease(key.lease), key.revision.0);
        }
        if let Some(initialize) = view.initialize {
            let (lease, revision) = (self.lease(initialize.lease), initialize.revision.0);
            text += &format!(", initialize {:?} under {lease} m{revision}", initialize.system_id);
        }
        if let Some(status) = &view.status {
            text += &format!(", status {} {:?} m{}", status.optime, status.slots, status.revision.0);
        }
        if let Some(epoch) = &view.epoch {
            text += &format!(", epoch {} of {} m{}", epoch.epoch.0, epoch.member, epoch.revision.0);
            let guarded = if epoch.unguarded { "unguarded" } else { "guarded" };
            text += &format!(" at {}/{} up to {}, {guarded}", epoch.timeline, epoch.position, epoch.newest_timeline);
        }
        let failover = view.failover.as_ref().map(|key| format!("{:?} to {:?}", key.leader, key.candidate));
        text += &format!(", failover {failover:?} m{}", view.failover_revision.0);
        text += &format!(", config m{}, sync m{}", view.config_revision.0, view.sync_revision.0);
        text + &format!(", history {} m{}", view.history.lines.len(), view.history.revision.0)
    }
}

pub(crate) fn put(lease: LeaseId) -> StoreAction {
    StoreAction::PutMember { lease, record: MemberRecord { state: "running".into(), ..MemberRecord::default() } }
}

pub(crate) fn acquire(lease: LeaseId, seen: &ClusterView) -> StoreAction {
    StoreAction::Acquire(Acquire {
        unguarded: false,
        lease,
        failover: seen.failover_revision,
        config: seen.config_revision,
        sync: seen.sync_revision,
        record: seen.epoch.as_ref().map_or(Revision(0), |epoch| epoch.revision),
        timeline: Timeline(1),
        position: Lsn(7),
        newest_timeline: Timeline(1),
    })
}

pub(crate) fn renew(lease: LeaseId, epoch: Revision) -> StoreAction {
    StoreAction::Renew { lease, epoch, deadline: GIVE_UP }
}

pub(crate) fn epoch(view: &ClusterView) -> Revision {
    view.leader.as_ref().expect("a leader key").created
}

pub(crate) async fn keys<S: Store>(s: &mut Script<S>) {
    s.look().await;
    let long = Duration::from_secs(30);
    let (a, b) = (s.grant(A, long).await, s.grant(B, long).await);
    s.grant(A, Duration::from_millis(1)).await;
    s.grant(A, Duration::from_millis(2500)).await;
    records(s, a, b).await;
    birth(s, a, b).await;
    let tenure = leadership(s).await;
    leaders_keys(s).await;
    take_over(s, tenure).await;
    release(s, a, b).await;
    ends(s, a, b).await;
}

async fn records<S: Store>(s: &mut Script<S>, a: LeaseId, b: LeaseId) {
    s.order("a puts its record", A, put(a)).await;
    s.order("b puts its record", B, put(b)).await;
    s.order("a puts it again and knows nothing of the first", A, put(a)).await;
    s.order("a has been told what is there, and puts it", A, put(a)).await;
    s.look().await;
}

async fn birth<S: Store>(s: &mut Script<S>, a: LeaseId, b: LeaseId) {
    s.order("a may initialise", A, StoreAction::RaceInitialize { lease: a }).await;
    s.order("b may not", B, StoreAction::RaceInitialize { lease: b }).await;
    let initialize = s.look().await.initialize.unwrap().revision;
    let other = Revision(initialize.0 - 1);
    s.order("b gives up what it has not", B, StoreAction::AbandonInitialize { initialize: other }).await;
    s.order("a gives it up", A, StoreAction::AbandonInitialize { initialize }).await;
    s.order("b may initialise", B, StoreAction::RaceInitialize { lease: b }).await;
    s.look().await;
}

async fn leadership<S: Store>(s: &mut Script<S>) -> LeaseId {
    let seen = s.look().await;
    let (a, b) = (s.grant(A, Duration::from_secs(30)).await, s.grant(B, Duration::from_secs(30)).await);
    let stale = ClusterView { failover_revision: Revision(1), ..seen.clone() };
    s.order("a decided on another failover key", A, acquire(a, &stale)).await;
    let stale = ClusterView { config_revision: Revision(1), ..seen.clone() };
    s.order("a decided on another configuration", A, acquire(a, &stale)).await;
    s.order("a takes the leader key", A, acquire(a, &seen)).await;
    s.order("b takes it too", B, acquire(b, &seen)).await;
    let seen = s.look().await;
    s.order("b, knowing the record of the tenure", B, acquire(b, &seen)).await;
    s.order("b initialises beside a leader", B, StoreAction::RaceInitialize { lease: b }).await;
    s.order("a renews", A, renew(a, epoch(&seen))).await;
    s.order("a renews another tenure", A, renew(a, Revision(epoch(&seen).0 - 1))).await;
    s.order("b renews a's", B, renew(b, epoch(&seen))).await;
    s.order("b renews what is no lease", B, renew(LeaseId(999_999), epoch(&seen))).await;
    s.look().await;
    a
}

async fn leaders_keys<S: Store>(s: &mut Script<S>) {
    let seen = s.look().await;
    let (epoch, initialize) = (epoch(&seen), seen.initialize.unwrap().revision);
    let complete = |epoch, initialize| StoreAction::CompleteInitialize {
        epoch,
        system_id: SystemId(7_000_000_000_000_000_000),
        initialize,
        config: Revision(0),
    };
    s.order("a has initialised what it does not know", A, complete(epoch, Revision(initialize.0 - 1))).await;
    s.order("a tenure that is none has initialised", B, complete(Revision(epoch.0 + 1), initialize)).await;
    s.order("a has initialised", A, complete(epoch, initialize)).await;
    let status = |position, timeline| Status {
        position: Lsn(position),
        timeline: Timeline(timeline),
        slots: vec![("b".into(), Lsn(9))],
        retain: Vec::new(),
    };
    let publish = |epoch| StoreAction::PutStatus { epoch, status: status(0x0100_0000, 1) };
    s.order("a publishes its position", A, publish(epoch)).await;
    s.order("a publishes another and knows nothing of the first", A, publish(epoch)).await;
    s.order("a publishes another, and knows it by now", A, publish(epoch)).await;
    s.order("a tenure that is none publishes one", B, publish(Revision(epoch.0 + 1))).await;
    let line = HistoryLine {
        timeline: Timeline(1),
        end: Lsn(3),
        reason: "a test".into(),
        timestamp: Some("now".into()),
        leader: None,
    };
    let history = |revision, position| {
        let (lines, status) = (vec![line.clone()], status(position, 2));
        StoreAction::PutHistory { epoch, revision, lines, status }
    };
    s.order("a writes the history, and where it is", A, history(Revision(0), 0x0100_0100)).await;
    s.order("a writes it again and knows nothing of the first", A, history(Revision(0), 0x0100_0200)).await;
    let seen = s.look().await;
    s.order("a writes it again", A, history(seen.history.revision, 0x0100_0300)).await;
    s.look().await;
    let failover = |epoch| StoreAction::PutFailover {
        revision: Revision(0),
        epoch,
        leader: Some(Member::new("a")),
        candidate: None,
        scheduled_at: None,
    };
    s.order("an operator asks where nobody was seen to lead", A, failover(Revision(0))).await;
    s.order("an operator asks where another was", A, failover(Revision(epoch.0 - 1))).await;
    s.order("an operator asks", A, failover(epoch)).await;
    s.order("another one does not see it", B, failover(epoch)).await;
    let revision = s.look().await.failover_revision;
    s.order("it is done, by who saw another", B, StoreAction::ClearFailover { revision: Revision(1) }).await;
    s.order("it is done", A, StoreAction::ClearFailover { revision }).await;
    s.look().await;
}

async fn take_over<S: Store>(s: &mut Script<S>, tenure: LeaseId) {
    let seen = s.look().await;
    let (epoch, modified) = (epoch(&seen), seen.leader.as_ref().unwrap().modified);
    let (a, b) = (s.grant(A, Duration::from_secs(30)).await, s.grant(B, Duration::from_secs(30)).await);
    s.order("b takes over what is not its own", B, StoreAction::TakeOver { lease: b, modified }).await;
    let other = Revision(modified.0 - 1);
    s.order("a takes over what has changed", A, StoreAction::TakeOver { lease: a, modified: other }).await;
    s.order("a takes its own over", A, StoreAction::TakeOver { lease: a, modified }).await;
    s.order("a renews by the lease before", A, renew(tenure, epoch)).await;
    s.order("a renews by the new one", A, renew(a, epoch)).await;
    s.order("the lease before is revoked", A, StoreAction::Revoke { lease: tenure }).await;
    s.order("it is revoked again", A, StoreAction::Revoke { lease: tenure }).await;
    s.look().await;
}

async fn release<S: Store>(s: &mut Script<S>, a: LeaseId, b: LeaseId) {
    let seen = s.look().await;
    let leader = seen.leader.clone().unwrap();
    let lines = [(1, "a test"), (2, "another")].map(|(timeline, reason)| HistoryLine {
        timeline: Timeline(timeline),
        end: Lsn(u64::from(timeline) * 3),
        reason: reason.into(),
        timestamp: Some("now".into()),
        leader: Some("a".into()),
    });
    let release_by = |lease, session| StoreAction::Release {
        lease,
        epoch: leader.created,
        position: Lsn(0x0200_0000),
        timeline: Timeline(3),
        history: Some(lines.to_vec()),
        record: Box::default(),
        session: Some(session),
    };
    let release = |lease| release_by(lease, a);
    s.order("a releases, and the lease of its record is gone", A, release_by(leader.lease, LeaseId(999_999))).await;
    s.order("b releases by a lease of its own", B, release(b)).await;
    s.order("a releases", A, release(leader.lease)).await;
    s.look().await;
    s.order("a releases again", A, release(leader.lease)).await;
    s.order("a renews what it released", A, renew(leader.lease, leader.created)).await;
    s.order("b decided before the record of the last tenure", B, acquire(b, &ClusterView::default())).await;
    s.order("b takes the leader key", B, acquire(b, &seen)).await;
    let view = s.look().await;
    s.order("b renews", B, renew(b, epoch(&view))).await;
    s.store.delete("leader").await;
    s.order("b renews what an operator deleted", B, renew(b, epoch(&view))).await;
    s.order("its lease lives", B, StoreAction::KeepSession { lease: b }).await;
    s.look().await;
}

async fn ends<S: Store>(s: &mut Script<S>, a: LeaseId, b: LeaseId) {
    let seen = s.look().await;
    s.order("b takes the leader key under the lease of its record", B, acquire(b, &seen)).await;
    s.look().await;
    s.order("a lease of two keys is revoked", B, StoreAction::Revoke { lease: b }).await;
    let seen = s.look().await;
    s.order("b takes the leader key under a lease that is gone", B, acquire(b, &seen)).await;
    s.order("a lease of one key is revoked", A, StoreAction::Revoke { lease: a }).await;
    s.order("a puts its record under a lease that is gone", A, put(a)).await;
    s.look().await;
    s.order("a puts its record under a lease that is gone, knowing the keys", A, put(a)).await;
    s.order("a keeps a lease that is gone", A, StoreAction::KeepSession { lease: a }).await;
    let empty = s.grant(A, Duration::from_secs(30)).await;
    s.order("a lease without keys is revoked", A, StoreAction::Revoke { lease: empty }).await;
    s.look().await;
}

/// Waits until the member key of a is gone; when it was.
pub(crate) async fn until_gone<S: Store>(s: &mut Script<S>, limit: Duration) -> Duration {
    let end = s.store.now() + limit;
    loop {
        let view = s.read(B).await;
        let now = s.store.now();
        if view.is_some_and(|view| !view.members.contains_key(&Member::new("a"))) || now >= end {
            return now;
        }
        s.store.pass(PAUSE).await;
    }
}

pub(crate) async fn expiry<S: Store>(s: &mut Script<S>) {
    let lease = s.grant(A, SHORTEST).await;
    s.order("a puts its record", A, put(lease)).await;
    let (mut asked, mut heard) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..6 {
        s.store.pass(Duration::from_millis(500)).await;
        asked = s.store.now();
        s.order("a keeps its lease", A, StoreAction::KeepSession { lease }).await;
        heard = s.store.now();
    }
    let gone = until_gone(s, Duration::from_secs(10)).await;
    s.note("its end was not before its ttl", gone >= asked + SHORTEST);
    s.note("nor later than it may be", gone <= heard + SHORTEST + LATE_MAX + SLACK);
    s.order("a keeps it", A, StoreAction::KeepSession { lease }).await;
    s.look().await;

    // Its time is over, and the store has not come to ending it.
    let lease = s.grant(A, SHORTEST).await;
    s.order("a puts its record", A, put(lease)).await;
    s.order("a keeps its lease", A, StoreAction::KeepSession { lease }).await;
    s.store.pass(SHORTEST + Duration::from_millis(15)).await;
    s.order("a is too late to keep it", A, StoreAction::KeepSession { lease }).await;
    s.look().await;
}
