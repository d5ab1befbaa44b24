//! What becomes of the agent's orders in the world.

use matriarch_core::action::{Action, GuardAction, PeerAction, PostgresAction, Status, StoreAction};
use matriarch_core::effects::Order;
use matriarch_core::event::{
    Event, GuardEvent, HostEvent, PeerEvent, PostgresDone, PostgresEvent, StoreDone, StoreEvent,
};
use matriarch_core::id::{LeaseId, Lsn, Member, Pid, Revision, StoreId, Timeline};
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::time::Seen;
use matriarch_core::timeline::{Ancestor, History};
use matriarch_core::view::guard::Armed;
use matriarch_core::view::postgres::{
    Cluster, ControlState, DataDir, Phase, Process, Receiver, Slot, Sql, StartAs, StopMode, Upstream,
};
use matriarch_core::view::store::{EpochRecord, FailoverKey, Initialize, LeaderKey, MemberKey, StatusKey};
use std::time::Duration;

use super::{Due, HERE, SYSTEM, TTL, World};

fn status_key(revision: Revision, status: &Status) -> StatusKey {
    let (optime, timeline) = (status.position, status.timeline);
    StatusKey { revision, optime, timeline, ..StatusKey::default() }
}

impl World {
    fn guard(&mut self, action: GuardAction) {
        let event = match action {
            GuardAction::Arm { tenure, at } => {
                let armed = Armed { tenure, at };
                self.armed = Some(armed);
                let left = at.since(self.now);
                self.later(left, Due::GuardFires(at));
                GuardEvent::Armed(armed)
            }
            GuardAction::Disarm => {
                self.armed = None;
                GuardEvent::Disarmed
            }
            GuardAction::Hold => {
                self.held = true;
                GuardEvent::Held
            }
            GuardAction::Resume => {
                self.held = false;
                GuardEvent::Resumed
            }
            GuardAction::Fire => return self.fires(),
            GuardAction::KillOrphans => GuardEvent::OrphansDead,
        };
        self.event(Event::Guard(event));
    }

    // --- orders that end --------------------------------------------------------------------------------------------

    pub(super) fn ends(&mut self, order: Order) {
        let (op, since) = (order.op, self.state.ops.iter().find(|(_, f)| f.op == order.op).map(|(_, f)| f.since));
        let asked = since.unwrap_or(self.now);
        match order.action {
            Action::Store(action) => {
                if self.frozen {
                    return;
                }
                let before = self.keys.revision;
                let outcome = self.store(action);
                self.event(Event::Store(StoreEvent::Completed { op, outcome, asked }));
                if self.keys.revision != before {
                    self.happens(Due::Told);
                }
            }
            Action::Postgres(PostgresAction::Observe) => {
                let ready = matches!(self.process, Process::Alive { phase: Phase::Ready, .. }) && !self.held;
                let sql = ready.then(|| Seen::new(self.sql.clone(), asked, self.now));
                self.event(Event::Postgres(PostgresEvent::Answered { op, sql }));
            }
            Action::Postgres(action) => {
                let fails = self.recovery_fails.clone().filter(|_| action == PostgresAction::RecoverSingleUser);
                let outcome = match fails {
                    Some(why) => Outcome::Refused(Refusal::Failed(why)),
                    None => Outcome::Done(self.postgres(action)),
                };
                self.look();
                self.event(Event::Postgres(PostgresEvent::Completed { op, outcome }));
            }
            Action::Host(_) => self.event(Event::Host(HostEvent::Completed { op, outcome: Outcome::Done(()) })),
            Action::Guard(action) => self.guard(action),
            Action::Peer(action) => {
                let member = asked_of(&action).clone();
                let answer = self.peers.get(&member).cloned().flatten();
                let outcome = answer.map_or_else(|| Outcome::Unknown("no answer".into()), Outcome::Done);
                self.event(Event::Peer(PeerEvent::Answered { op, member, outcome, asked }));
            }
            Action::Answer(..) => {}
        }
    }

    fn store(&mut self, action: StoreAction) -> Outcome<StoreDone> {
        let ours = |leader: &Option<LeaderKey>, lease| leader.as_ref().is_some_and(|leader| leader.lease == lease);
        let next = Revision(self.keys.revision.0 + 1);
        match action {
            StoreAction::Read => return Outcome::Done(StoreDone::Read(self.keys.clone())),
            StoreAction::GrantTenure { .. } | StoreAction::GrantSession { .. } => {
                self.lease += 1;
                return Outcome::Done(StoreDone::Granted { lease: LeaseId(self.lease), ttl: TTL });
            }
            StoreAction::Renew { lease, .. } if ours(&self.keys.leader, lease) => {
                return Outcome::Done(StoreDone::Renewed { ttl: TTL, revision: self.keys.revision });
            }
            StoreAction::Renew { .. } => return Outcome::Refused(Refusal::Conflict),
            StoreAction::KeepSession { .. } => return Outcome::Done(StoreDone::SessionKept),
            StoreAction::Acquire(_) | StoreAction::Release { .. } | StoreAction::TakeOver { .. }
                if !self.allowed(&action) =>
            {
                return Outcome::Refused(Refusal::Conflict);
            }
            _ => self.keys.revision = next,
        }
        let key = |created, lease| LeaderKey { member: Member::new("a"), lease, created, modified: next };
        match action {
            StoreAction::Acquire(acquire) => {
                self.keys.leader = Some(key(next, acquire.lease));
                self.keys.epoch = Some(EpochRecord {
                    revision: next,
                    store: StoreId(1),
                    epoch: next,
                    member: Member::new("a"),
                    timeline: acquire.timeline,
                    position: acquire.position,
                    newest_timeline: acquire.newest_timeline,
                    unguarded: acquire.unguarded,
                });
                return Outcome::Done(StoreDone::Acquired(self.keys.clone()));
            }
            StoreAction::TakeOver { lease, .. } => {
                let created = self.keys.leader.as_ref().map_or(next, |leader| leader.created);
                self.keys.leader = Some(key(created, lease));
                return Outcome::Done(StoreDone::Acquired(self.keys.clone()));
            }
            StoreAction::Release { .. } => {
                self.keys.leader = None;
                return Outcome::Done(StoreDone::Released);
            }
            StoreAction::Revoke { lease } => {
                self.keys.leader = self.keys.leader.take().filter(|leader| leader.lease != lease);
                return Outcome::Done(StoreDone::Revoked);
            }
            StoreAction::PutMember { lease, record } => {
                self.keys.members.insert(Member::new("a"), MemberKey { revision: next, lease, record });
            }
            StoreAction::RaceInitialize { lease } => {
                self.keys.initialize = Some(Initialize { revision: next, lease, system_id: None });
            }
            StoreAction::CompleteInitialize { system_id, .. } => {
                self.keys.initialize =
                    Some(Initialize { revision: next, lease: LeaseId(0), system_id: Some(system_id) });
                self.keys.config_revision = next;
            }
            StoreAction::AbandonInitialize { .. } => self.keys.initialize = None,
            StoreAction::PutStatus { status, .. } => self.keys.status = Some(status_key(next, &status)),
            StoreAction::Reserve { epoch, timeline, position, newest_timeline, unguarded, .. } => {
                let (revision, store, member) = (next, StoreId(1), Member::new("a"));
                self.keys.epoch = Some(EpochRecord {
                    revision,
                    store,
                    epoch,
                    member,
                    timeline,
                    position,
                    newest_timeline,
                    unguarded,
                });
            }
            StoreAction::Vouch { record, .. } => {
                self.keys.epoch = Some(EpochRecord { revision: next, unguarded: false, ..record });
            }
            StoreAction::PutHistory { lines, status, .. } => {
                (self.keys.history.revision, self.keys.history.lines) = (next, lines);
                self.keys.status = Some(status_key(next, &status));
            }
            StoreAction::PutFailover { leader, candidate, .. } => {
                self.keys.failover_revision = next;
                self.keys.failover = Some(FailoverKey { revision: next, leader, candidate, scheduled_at: None });
            }
            StoreAction::ClearFailover { .. } => (self.keys.failover, self.keys.failover_revision) = (None, next),
            _ => {}
        }
        Outcome::Done(StoreDone::Written)
    }

    fn allowed(&self, action: &StoreAction) -> bool {
        match action {
            StoreAction::Acquire(_) => self.keys.leader.is_none(),
            StoreAction::Release { epoch, .. } => self.keys.leader.as_ref().is_some_and(|l| l.created == *epoch),
            StoreAction::TakeOver { modified, .. } => {
                self.keys.leader.as_ref().is_some_and(|leader| leader.modified == *modified)
            }
            _ => true,
        }
    }

    fn postgres(&mut self, action: PostgresAction) -> PostgresDone {
        match action {
            PostgresAction::Initdb => self.data = DataDir::Cluster(dir(ControlState::ShutDown, false)),
            PostgresAction::Clone(_) | PostgresAction::Restore => {
                self.data = DataDir::Cluster(dir(ControlState::ShutDownInRecovery, true));
                self.diverged = None;
            }
            PostgresAction::Start(StartAs::Primary) => self.come_up(false, None),
            PostgresAction::Start(StartAs::Standby(upstream)) => self.come_up(true, upstream),
            PostgresAction::Restart => self.come_up(self.sql.in_recovery, self.state.memory.followed.clone()),
            PostgresAction::Stop(mode) => self.goes_down(mode),
            PostgresAction::Promote { timeline } => self.promoted(timeline),
            PostgresAction::Follow(upstream) => self.follow(upstream.as_ref()),
            PostgresAction::Freeze => self.follow(None),
            PostgresAction::Checkpoint => {
                let timeline = self.sql.timeline;
                self.dir(|dir| dir.checkpoint_timeline = timeline);
            }
            PostgresAction::Compare(_) => return PostgresDone::Compared(self.diverged),
            PostgresAction::RecoverSingleUser => self.dir(|dir| dir.state = ControlState::ShutDown),
            PostgresAction::Rewind(_) => {
                self.diverged = None;
                self.dir(|dir| dir.standby_signal = true);
            }
            PostgresAction::Configure { generation } => return PostgresDone::Configured { generation, changed: true },
            PostgresAction::CreateSlot(name) => {
                let restart = self.sql.flushed.max(self.sql.replayed);
                self.sql.slots.push(Slot { name, physical: true, active: true, restart, ..Slot::default() });
            }
            PostgresAction::DropSlot(name) => self.sql.slots.retain(|slot| slot.name != name),
            PostgresAction::AdvanceSlot { slot: name, to } => {
                self.sql.slots.iter_mut().filter(|slot| slot.name == name).for_each(|slot| slot.restart = to);
            }
            PostgresAction::CreateRoles | PostgresAction::Observe | PostgresAction::Look => {}
        }
        PostgresDone::Done
    }

    fn dir(&mut self, change: impl FnOnce(&mut Cluster)) {
        if let DataDir::Cluster(dir) = &mut self.data {
            change(dir);
        }
    }

    pub(super) fn come_up(&mut self, standby: bool, upstream: Option<Upstream>) {
        self.pid += 1;
        self.process = Process::Alive { pid: Pid(self.pid), phase: Phase::Ready };
        let state = if standby { ControlState::InArchiveRecovery } else { ControlState::InProduction };
        let mut timeline = Timeline(1);
        self.dir(|dir| {
            (dir.state, dir.standby_signal) = (state, standby);
            timeline = dir.history.timeline;
        });
        self.sql = Sql { in_recovery: standby, timeline, server_version: 150_000, ..Sql::default() };
        self.position(HERE);
        self.follow(upstream.as_ref().filter(|_| standby));
    }

    fn follow(&mut self, upstream: Option<&Upstream>) {
        self.sql.upstream_set = upstream.is_some();
        self.sql.receiver = upstream.filter(|_| self.diverged.is_none()).map(|upstream| Receiver {
            pid: 99,
            streaming: true,
            timeline: self.sql.timeline,
            latest_end: HERE,
            upstream: format!("{}:{}", upstream.host, upstream.port),
        });
    }

    fn goes_down(&mut self, mode: StopMode) {
        self.process = Process::Absent;
        let state = if self.sql.in_recovery { ControlState::ShutDownInRecovery } else { ControlState::ShutDown };
        let position = self.sql.flushed;
        if mode == StopMode::Fast {
            self.dir(|dir| (dir.state, dir.checkpoint) = (state, position));
        }
    }

    fn promoted(&mut self, timeline: Timeline) {
        let (ended, end) = (self.sql.timeline, self.sql.received);
        self.sql.in_recovery = false;
        self.sql.timeline = timeline;
        self.dir(|dir| {
            dir.newest_timeline = timeline;
            (dir.state, dir.standby_signal, dir.history.timeline) = (ControlState::InProduction, false, timeline);
            let reason = "no recovery target specified".into();
            dir.history.ancestors.push(Ancestor { timeline: ended, end, reason });
        });
    }
}

pub(super) fn asked_of(action: &PeerAction) -> &Member {
    match action {
        PeerAction::AskPosition { member, .. }
        | PeerAction::AskStatus { member, .. }
        | PeerAction::AwaitReplay { member, .. } => member,
    }
}

/// How long things take in this world.
pub(super) fn takes(action: &Action) -> Duration {
    Duration::from_millis(match action {
        Action::Postgres(PostgresAction::Start(_) | PostgresAction::Stop(_)) => 50,
        Action::Postgres(PostgresAction::Restart) => 100,
        Action::Postgres(PostgresAction::Promote { .. } | PostgresAction::Checkpoint) => 40,
        Action::Postgres(
            PostgresAction::Initdb | PostgresAction::Clone(_) | PostgresAction::Restore | PostgresAction::Rewind(_),
        ) => 2_000,
        Action::Postgres(PostgresAction::RecoverSingleUser) => 300,
        Action::Postgres(PostgresAction::Observe | PostgresAction::Look) | Action::Guard(_) | Action::Host(_) => 1,
        Action::Postgres(_) | Action::Peer(_) => 5,
        Action::Store(_) | Action::Answer(..) => 2,
    })
}

pub(super) fn upstream_of(name: &str) -> Upstream {
    Upstream { member: Member::new(name), host: name.into(), port: 5432 }
}

pub(super) fn dir(state: ControlState, standby_signal: bool) -> Cluster {
    Cluster {
        system_id: SYSTEM,
        major_version: 15,
        state,
        checkpoint: Lsn(0x300_0028),
        checkpoint_timeline: Timeline(1),
        min_recovery: if standby_signal { HERE } else { Lsn(0) },
        min_recovery_timeline: Timeline(u32::from(standby_signal)),
        rewindable: true,
        standby_signal,
        backup_label: false,
        tainted: None,
        history: History::first(Timeline(1)),
        newest_timeline: Timeline(1),
        segment_bytes: 16 << 20,
    }
}
