//! Facts: what is known of the world, each part replaced whole by its next observation; and [`View`], which reads them
//! together for the deciders.

pub mod guard;
pub mod peers;
pub mod postgres;
pub mod store;

use alloc::format;

use crate::action::{Action, Lane, PostgresAction, StoreAction};
use crate::config::{AHEAD_PATIENCE, CHECKPOINT_LIMIT, Config, STOP_LIMIT};
use crate::event::EpochFile;
use crate::id::{LeaseId, Lsn, Member, Revision, SystemId, Timeline};
use crate::lease::{Held, Tenure};
use crate::state::State;
use crate::time::{Duration, Instant, WallMillis};
use crate::timeline::History;
use guard::Armed;
use peers::PeerAnswer;
use postgres::{Cluster, ControlState, DataDir, Phase, Process, Sql, StartAs, StopMode, Upstream};
use store::{ClusterView, FailoverKey, HistoryLine, LeaderKey, MemberKey, MemberRecord, StatusKey};

/// All facts at one instant, read together. Deciders see this and nothing else.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Now.
    pub at: Instant,
    /// The facts and what is in flight.
    pub state: &'a State,
}

/// Where a node is: its history, and what it has flushed along it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Position {
    /// The history.
    pub history: History,
    /// The last flushed position.
    pub flushed: Lsn,
}

impl<'a> View<'a> {
    /// The configuration.
    pub fn config(&self) -> &'a Config {
        &self.state.config
    }

    /// The keys of the cluster, if they were ever seen.
    pub fn cluster(&self) -> Option<&'a ClusterView> {
        self.state.store.cluster.as_ref().map(|seen| &seen.value)
    }

    /// The leader key.
    pub fn leader(&self) -> Option<&'a LeaderKey> {
        self.cluster()?.leader.as_ref()
    }

    /// The leader key, if it is not under the tenure that we hold.
    pub fn other_leader(&self) -> Option<&'a LeaderKey> {
        self.leader().filter(|leader| self.held().is_none_or(|held| held.lease != leader.lease))
    }

    /// The tenure that we hold.
    pub fn held(&self) -> Option<&'a Held> {
        self.state.tenure.held()
    }

    /// The guard has acknowledged the tenure that we hold, and its instant has not come: PostgreSQL may write.
    pub fn authority(&self) -> bool {
        self.authority_left() > Duration::ZERO
    }

    /// The cluster is paused, as far as is known.
    pub fn paused(&self) -> bool {
        self.state.memory.paused.is_some()
    }

    /// The keys of a leader are ours to write: under authority, or as a paused primary that is let go.
    pub fn publishes(&self) -> bool {
        self.held().is_some() && (self.authority() || self.state.memory.let_go)
    }

    /// Clients that want to write are right here at this very instant: there is authority, writes are not on hold, and
    /// the leader key is not being given away. A paused primary goes on without authority, beside no other leader.
    ///
    /// The race: the store has applied the release and its answer is on the way, or lost. Another leads by then.
    pub fn leads(&self) -> bool {
        // Before the store was heard nobody knows whether another leads.
        let heard = self.cluster().is_some();
        let alone = heard && self.leader().is_none_or(|leader| leader.member == self.config().me);
        let let_go = self.state.memory.let_go && self.is_primary() && (self.held().is_some() || alone);
        (self.authority() || let_go) && !self.state.guard.held && !self.releasing()
    }

    /// The release of the leader key is on its way.
    pub fn releasing(&self) -> bool {
        let in_flight = self.state.ops.in_lane(&Lane::Lead).map(|in_flight| &in_flight.action);
        matches!(in_flight, Some(Action::Store(StoreAction::Release { .. })))
    }

    /// How long PostgreSQL may still write.
    pub fn authority_left(&self) -> Duration {
        self.promise().map_or(Duration::ZERO, |armed| self.at.until(armed.at))
    }

    /// What the guard has acknowledged for the tenure that we hold.
    pub fn promise(&self) -> Option<Armed> {
        let held = self.held()?;
        self.state.guard.armed.filter(|armed| armed.tenure == held.lease)
    }

    /// The database cluster on disk, if it is one and complete.
    pub fn complete_dir(&self) -> Option<&'a Cluster> {
        self.dir().filter(|dir| dir.tainted.is_none())
    }

    /// The database cluster on disk.
    pub fn dir(&self) -> Option<&'a Cluster> {
        match &self.state.postgres.data {
            DataDir::Cluster(dir) => Some(dir),
            DataDir::Unknown | DataDir::Unreadable(_) | DataDir::Empty | DataDir::Foreign(_) => None,
        }
    }

    /// The right to initialise is ours: the key is empty and hangs on the lease of our record. The key says so and
    /// nothing else, since an answer may be lost.
    pub fn initialising(&self) -> bool {
        let empty = self.cluster().and_then(|cluster| cluster.initialize).filter(|key| key.system_id.is_none());
        empty.is_some_and(|key| self.state.session.lease == Some(key.lease))
    }

    /// The directory is that of a cluster which this node began to initialise and did not complete: on its first
    /// timeline, never led under an epoch, and its keys were never complete. A former primary beside a store that lost
    /// its keys is nothing of the kind; nor is what an operator has put beside the data of other members.
    pub fn unfinished_bootstrap(&self) -> bool {
        let uninitialised = self.cluster().is_some_and(|cluster| cluster.system_id().is_none());
        let Some(dir) = self.complete_dir().filter(|_| uninitialised) else { return false };
        let first = dir.history.ancestors.is_empty() && dir.checkpoint_timeline <= Timeline(1);
        let never_led =
            self.state.epoch_file.is_none_or(|file| self.held().is_some_and(|held| held.epoch == file.epoch));
        let alone = || !self.others().any(|(_, key)| key.record.was_born());
        // The race: it was cut off while it initialised, its right to that ended, and another has it by now.
        let anothers = || {
            let empty = self.cluster().and_then(|cluster| cluster.initialize);
            empty.is_some_and(|key| key.lease != LeaseId(0))
        };
        let never_complete =
            || first && never_led && self.state.memory.knew.is_none() && alone() && !self.another_led() && !anothers();
        !dir.standby_signal && (self.initialising() || never_complete())
    }

    /// Another member has led here and told of its WAL: what is here was not born in this cluster.
    fn another_led(&self) -> bool {
        self.cluster().is_some_and(|cluster| {
            let another = cluster.epoch.as_ref().is_some_and(|record| record.member != self.config().me);
            another && cluster.was_published().is_some()
        })
    }

    /// Of the cluster, also if its key is gone or says nothing that can be understood: what it was is not forgotten by that.
    pub fn system_id(&self) -> Option<SystemId> {
        self.cluster()?.system_id().or(self.state.memory.knew)
    }

    /// What `history` tells, or has told until it was deleted or overwritten with nonsense: who left the leaders' branches
    /// has left them.
    ///
    /// The race: an operator does so while nobody leads, and whoever had left wins by a bare position.
    pub fn told_history(&self, cluster: &'a ClusterView) -> &'a [HistoryLine] {
        if cluster.history.tells() { &cluster.history.lines } else { &self.state.memory.told_history }
    }

    /// What `status` tells of a position, or has told until it was deleted or overwritten with nonsense.
    ///
    /// The race: an operator does so, whoever led and whoever had all of it are lost together, and one that lags wins, since
    /// nothing says that it does.
    pub fn told_status(&self, cluster: &'a ClusterView) -> Option<&'a StatusKey> {
        cluster.status.as_ref().filter(|status| status.tells()).or(self.state.memory.told_status.as_ref())
    }

    /// The cluster that this node has led as its disk tells, where the store has keys of it. Where all are gone, whoever has
    /// data may begin a cluster with them.
    ///
    /// The race: `initialize` is deleted while nobody leads, and an agent is started beside another cluster's data.
    pub fn led_here(&self) -> Option<SystemId> {
        let cluster = self.cluster()?;
        let file = self.state.epoch_file.as_ref().filter(|file| file.store == cluster.store);
        // What this node has written since it wrote its disk is of a birth: all keys were deleted, and it began anew.
        let older = |file: &&EpochFile| {
            let record = cluster.epoch.as_ref();
            record.is_some_and(|record| record.member != self.config().me || record.epoch <= file.epoch)
        };
        file.filter(older).map(|file| file.system_id)
    }

    /// The directory is another cluster's, and nothing of ours is being started on it.
    pub fn foreign(&self) -> bool {
        let cluster = self.system_id();
        let other = cluster.zip(self.dir()).is_some_and(|(cluster, dir)| dir.system_id != cluster);
        other && !self.starting_primary()
    }

    /// The guard is armed, or told to be, for a PostgreSQL that nobody vouched for when the agent started.
    pub fn armed_for_nobody(&self) -> bool {
        let told = self.state.guard.armed.or(self.state.guard_asked.arm);
        self.state.guard.present && told.is_some_and(|armed| armed.tenure == LeaseId(0))
    }

    /// The last answer of the running postmaster.
    pub fn sql(&self) -> Option<&'a Sql> {
        self.state.postgres.sql.as_ref().map(|seen| &seen.value)
    }

    /// The last answer of the running postmaster, if it was asked after everything that changed it.
    pub fn fresh_sql(&self) -> Option<&'a Sql> {
        self.state.postgres.sql.as_ref().filter(|seen| seen.asked >= self.state.memory.changed).map(|seen| &seen.value)
    }

    /// The phase of the postmaster, if it lives.
    pub fn phase(&self) -> Option<Phase> {
        match self.state.postgres.process {
            Process::Alive { phase, .. } => Some(phase),
            Process::Unknown | Process::Absent => None,
        }
    }

    /// A change of PostgreSQL is under way.
    pub fn controlling(&self) -> Option<&'a PostgresAction> {
        match &self.state.ops.in_lane(&Lane::PgControl)?.action {
            Action::Postgres(action) => Some(action),
            _ => None,
        }
    }

    /// The state of PostgreSQL in Patroni's words, for the member record and for whoever asks. `unknown` until it was
    /// looked at. A rewind has no word of its own: PostgreSQL is stopped meanwhile.
    pub fn postgres_state(&self) -> &'static str {
        match self.controlling() {
            Some(PostgresAction::Clone(_) | PostgresAction::Restore) => return "creating replica",
            Some(PostgresAction::Initdb) => return "initializing new cluster",
            Some(PostgresAction::Restart) => return "restarting",
            _ => {}
        }
        match self.state.postgres.process {
            Process::Unknown => "unknown",
            Process::Absent if self.state.memory.start_failures > 0 && !self.state.memory.came_up => "start failed",
            Process::Absent if self.dir().is_some_and(Cluster::crashed) => "crashed",
            Process::Absent => "stopped",
            Process::Alive { phase: Phase::Starting, .. } => "starting",
            Process::Alive { phase: Phase::Ready, .. } => "running",
            Process::Alive { phase: Phase::Stopping, .. } => "stopping",
        }
    }

    /// The server is a standby that receives WAL, or may begin to. In doubt, and what was asked before the last change
    /// is one: yes.
    pub fn may_receive(&self) -> bool {
        !self.dead() && self.fresh_sql().is_none_or(|sql| sql.receiver.is_some())
    }

    /// Where the WAL comes from that streams into this node, if no agent has told of that server, nor of any cluster.
    ///
    /// The race: a pair made by hand is taken over, and the agent of its standby is started first. It finds nobody to ask, and
    /// would be promoted beside the primary that it streams from.
    pub fn unmanaged_upstream(&self) -> Option<&'a str> {
        if self.system_id().is_some() || self.cluster()?.epoch.is_some() {
            return None;
        }
        let receiver = self.sql()?.receiver.as_ref().filter(|receiver| receiver.streaming)?;
        let address = |record: &MemberRecord| format!("{}:{}", record.host, record.port);
        let has_told = self.others().any(|(_, key)| address(&key.record) == receiver.upstream);
        (!has_told).then_some(receiver.upstream.as_str())
    }

    /// This node gave leadership, or the right to initialise, back since it could not serve: for how long it lets others try.
    pub fn gave_up_for(&self) -> Option<Duration> {
        let end = self.state.memory.gave_up? + self.config().loop_wait;
        Some(self.at.until(end)).filter(|left| *left > Duration::ZERO)
    }

    /// The operator's own check refused to have this node promoted: for how long it stands back, as with Patroni.
    pub fn vetoed_for(&self) -> Option<Duration> {
        let end = self.state.memory.vetoed? + self.config().ttl;
        Some(self.at.until(end)).filter(|left| *left > Duration::ZERO)
    }

    /// Our pledge is in force: the receiver is confirmed to be gone, and that is on disk.
    pub fn has_pledged(&self) -> bool {
        self.state.pledge.is_some_and(|pledge| pledge.frozen && pledge.on_disk)
    }

    /// What we tell a peer of ourselves.
    pub fn own_answer(&self) -> PeerAnswer {
        let position = self.position().or_else(|| self.bare_position());
        // The race: the cluster is paused, and an operator stops this primary as soon as its sessions have gone. They go on
        // writing, and no guard ends what was let go.
        let lingers =
            self.state.memory.let_go && self.phase() == Some(Phase::Stopping) && self.may_write() && !self.drained();
        // Who holds the key may begin to write at any moment, whatever its server does just now, unless that is the operator's.
        //
        // The race: it is being promoted, or recovers, and hears nothing of the store; the key goes before its time.
        let leads = self.may_lead() && !self.releasing() && !self.state.memory.let_go;
        // Where the position cannot be told, nothing is pledged with it.
        let pledged = self.has_pledged() && !self.history_in_doubt();
        PeerAnswer {
            leader_epoch: self.leader().map(|leader| leader.created).unwrap_or_default(),
            keys_at: self.cluster().map(|cluster| cluster.revision).unwrap_or_default(),
            tenure_ttl: self.may_lead_for(),
            primary: self.is_primary() || lingers || leads,
            // One that was not looked at yet may hold the most of all.
            barred: self.config().nofailover
                || self.vetoed_for().is_some()
                || self.state.guard.gone.is_some_and(|gone| self.at.since(gone) >= AHEAD_PATIENCE)
                || (self.complete_dir().is_none() && self.state.postgres.data != DataDir::Unknown),
            // What is not known to the end is not final.
            receives: self.may_receive() || self.history_in_doubt(),
            history: position.as_ref().map(|p| p.history.clone()).unwrap_or_default(),
            flushed: position.map(|p| p.flushed).unwrap_or_default(),
            replayed: self.replayed_from_leader(),
            replay_paused: self.sql().is_some_and(|sql| sql.replay_paused),
            // No leader was seen since the pledge was given, up to here: it would have ended it.
            pledge: self.cluster().filter(|c| pledged && c.leader.is_none()).map(|c| c.revision),
        }
    }

    /// It holds the key; or looks for its tenure beside a PostgreSQL that may write, or that the agent before has promoted.
    pub(crate) fn may_lead(&self) -> bool {
        let adopts = matches!(self.state.tenure, Tenure::Adopting { .. }) && self.dir().is_some() && self.may_write();
        self.held().is_some() || adopts
    }

    /// What has renewed its tenure before now leads for so long at most; what looks for its tenure, until the search is over. An
    /// answer counts from its question, which is a moment ago.
    fn may_lead_for(&self) -> Duration {
        match &self.state.tenure {
            Tenure::Held(held) | Tenure::Suspended { was: held, .. } => held.ttl,
            Tenure::Adopting { deadline } if self.may_lead() => self.at.until(*deadline) + Duration::from_secs(1),
            Tenure::None | Tenure::Adopting { .. } => Duration::ZERO,
        }
    }

    /// What this standby has replayed of the present leader's WAL; 0 unless it was seen to stream under that leader. Two
    /// nodes can begin timelines of one number at one position: nothing but having streamed tells them apart. One that
    /// never streams is taken at its word. Nothing is handed over to who cannot tell where it is.
    fn replayed_from_leader(&self) -> Lsn {
        let from = self.state.memory.streamed_from.as_ref();
        let streamed = self.leader().is_some_and(|leader| from == Some(&leader.member)) || self.config().nostream;
        self.sql().filter(|_| streamed && !self.history_in_doubt()).map(|sql| sql.replayed).unwrap_or_default()
    }

    /// The postmaster lives and its clients may get commits acknowledged. In doubt: yes.
    pub fn may_write(&self) -> bool {
        let standby = self.dir().is_some_and(|dir| dir.standby_signal);
        if self.phase().is_none() {
            return self.starting_primary();
        }
        // A promotion that was ordered may still come to pass, whatever became of the order.
        let memory = &self.state.memory;
        let promoting = memory.promotion
            || memory.promotion_inherited
            || matches!(self.controlling(), Some(PostgresAction::Promote { .. }));
        let recovering = self.sql().is_none_or(|sql| sql.in_recovery);
        // The postmaster may be seen before the signal file that was written for it.
        let standby = standby || self.state.memory.as_standby;
        promoting || !(standby && recovering)
    }

    /// A start is in flight that brings up a PostgreSQL which accepts writes.
    pub fn starting_primary(&self) -> bool {
        match self.controlling() {
            Some(PostgresAction::Start(StartAs::Primary)) => true,
            Some(PostgresAction::Restart) => !self.dir().is_some_and(|dir| dir.standby_signal),
            _ => false,
        }
    }

    /// The shutdown checkpoint of a primary is written and its postmaster still lives: it waits for a WAL sender or for
    /// the archiver. Nothing can be written any more, and nothing is lost by ending it.
    pub fn drained(&self) -> bool {
        let known = self.dir().filter(|_| self.state.memory.data_in_doubt.is_none());
        self.phase() == Some(Phase::Stopping) && known.is_some_and(|dir| dir.state == ControlState::ShutDown)
    }

    /// For how long it waits so, once that is longer than anybody is waited for.
    pub fn drain_hangs(&self) -> Option<Duration> {
        let since = self.state.memory.drained_since.filter(|_| self.drained())?;
        Some(self.at.since(since)).filter(|waits| *waits >= crate::decide::DRAIN_LIMIT)
    }

    /// A primary is stopping and has not begun its shutdown checkpoint: its sessions are not gone.
    pub fn lingers(&self) -> bool {
        let known = self.dir().filter(|_| self.state.memory.data_in_doubt.is_none());
        self.phase() == Some(Phase::Stopping) && known.is_some_and(|dir| dir.state == ControlState::InProduction)
    }

    /// For how long they have taken no notice of being stopped, once that is longer than anybody is waited for, and what is
    /// to end that. What stops by hand may wait for its sessions: that becomes a fast stop first.
    pub fn stop_ignored(&self) -> Option<(Duration, StopMode)> {
        let lingering = self.state.memory.lingering_since.filter(|_| self.lingers())?;
        let (since, next) = match self.controlling() {
            None => (lingering, StopMode::Fast),
            Some(PostgresAction::Stop(StopMode::Fast) | PostgresAction::Restart) => {
                let ordered = self.state.ops.in_lane(&Lane::PgControl)?.since;
                (lingering.max(ordered), StopMode::Immediate)
            }
            Some(_) => return None,
        };
        let written = self.state.memory.checkpoint_written;
        let sessions = written.is_some_and(|at| lingering.since(at) < STOP_LIMIT);
        let limit = if sessions || next == StopMode::Fast { STOP_LIMIT } else { CHECKPOINT_LIMIT };
        let waits = self.at.since(since);
        (waits >= limit).then_some((waits, next))
    }

    /// PostgreSQL is known to run as a primary.
    pub fn is_primary(&self) -> bool {
        self.phase() == Some(Phase::Ready) && self.sql().is_some_and(|sql| !sql.in_recovery)
    }

    /// The postmaster and all its processes are certainly dead.
    pub fn dead(&self) -> bool {
        // A postmaster that is being started is not seen yet, and may come up any moment.
        let starting = matches!(self.controlling(), Some(PostgresAction::Start(_) | PostgresAction::Restart));
        self.state.postgres.process == Process::Absent && self.state.postgres.orphans == Some(0) && !starting
    }

    /// Where this node is.
    pub fn position(&self) -> Option<Position> {
        let dir = self.complete_dir().filter(|_| !self.history_in_doubt())?;
        let flushed = match self.sql() {
            Some(sql) if sql.in_recovery => sql.received.max(sql.replayed),
            Some(sql) => sql.flushed,
            None if dir.state == ControlState::ShutDown => dir.checkpoint,
            None => dir.checkpoint.max(dir.min_recovery),
        };
        (flushed > Lsn(0)).then(|| Position { history: dir.history.clone(), flushed })
    }

    /// The newest timeline that this node's data are on; 0 without any.
    pub(crate) fn own_timeline(&self) -> Timeline {
        let seen = self.complete_dir().map_or(Timeline(0), |dir| dir.history.timeline);
        seen.max(self.sql().map_or(Timeline(0), |sql| sql.timeline))
    }

    /// The server has gone on to a timeline whose history was not seen, and its directory cannot be looked at, or the history in
    /// it cannot be read.
    ///
    /// The race: descriptors run out while a new leader is followed. The position would be told on the history of long ago.
    fn history_in_doubt(&self) -> bool {
        let seen = self.complete_dir().map_or(Timeline(0), |dir| dir.history.timeline);
        let unseen = self.state.memory.data_in_doubt.is_some() || seen == Timeline(0);
        unseen && self.sql().is_some_and(|sql| sql.timeline > seen)
    }

    /// As far as it can be told while the history is in doubt: on the bare timeline, as Patroni tells it.
    fn bare_position(&self) -> Option<Position> {
        let sql = self.sql().filter(|_| self.history_in_doubt())?;
        let flushed = if sql.in_recovery { sql.received.max(sql.replayed) } else { sql.flushed };
        Some(Position { history: History::first(sql.timeline), flushed })
    }

    /// The other members.
    pub fn others(&self) -> impl Iterator<Item = (&'a Member, &'a MemberKey)> {
        let me = &self.state.config.me;
        self.cluster().into_iter().flat_map(|c| c.members.iter()).filter(move |(name, _)| *name != me)
    }

    /// The other members that may take over: they run, and are not barred.
    pub fn electable_others(&self) -> impl Iterator<Item = (&'a Member, &'a MemberRecord)> {
        self.others().map(|(name, key)| (name, &key.record)).filter(|(_, record)| record.is_electable())
    }

    /// Those that may take over now or soon: whoever has data of this cluster may come up at any time, whatever its record told
    /// last. One that still copies them could not.
    ///
    /// The race: a standby is still starting when this node takes the key, or is started later, and the store is silent from
    /// then on. Nobody tells this node that it runs.
    pub fn possible_heirs(&self) -> impl Iterator<Item = (&'a Member, &'a MemberRecord)> {
        let may =
            |record: &MemberRecord| record.may_be_elected() && record.has_data() && record.state != "creating replica";
        self.others().map(|(name, key)| (name, &key.record)).filter(move |(_, record)| may(record))
    }

    /// When anybody last answered: a member of the store, another agent, or a standby through its WAL sender. Who takes WAL and is
    /// no member (an archiver on this very host, a subscriber) could not take over, and says nothing of those who could.
    pub fn last_contact(&self) -> Contact {
        let now = self.state.postgres.sql.as_ref().map_or(Instant::ZERO, |seen| {
            let is_member = |name: &Member| self.others().any(|(member, _)| member == name);
            let standbys = seen.value.senders.iter().filter(|sender| is_member(&sender.application_name));
            let ages = standbys.filter_map(|sender| sender.reply_age);
            ages.min().map_or(Instant::ZERO, |age| seen.asked.back(age))
        });
        let walsender = now.max(self.state.memory.standby_answered);
        Contact { store: self.state.store.answered, peer: self.state.peers.answered, walsender }
    }

    /// Since when this agent knows that nobody leads; now, if it has not heard so.
    pub fn leaderless_since(&self) -> Instant {
        self.state.memory.leaderless.map_or(self.at, |leaderless| leaderless.since)
    }

    /// For how long whoever led last may hold what it has renewed.
    ///
    /// The race (seed 15025579): its key went before its time, it hears nothing of the store and says that it is the primary, and
    /// the configuration makes the ttl shorter just then. Its lease was granted for the longer one.
    pub fn tenure_ttl(&self) -> Duration {
        self.state.memory.tenure_ttl.max(self.config().ttl)
    }

    /// `mod_revision` of the configuration that is gone by, where the store has one that can be understood; 0 otherwise.
    pub fn config_revision(&self) -> Revision {
        self.cluster().map_or(Revision(0), |cluster| cluster.config_revision)
    }

    /// The operator's request, if it is due and not stale. What is scheduled waits for the end of a pause, during which a
    /// candidate has to be named.
    pub fn due_failover(&self) -> Option<&'a FailoverKey> {
        let request = self.cluster()?.failover.as_ref()?;
        if self.paused() && (request.scheduled_at.is_some() || request.candidate.is_none()) {
            return None;
        }
        (self.schedule_left(request).is_none() && !self.schedule_missed(request)).then_some(request)
    }

    /// It was asked of a leader before this one, or while nobody led: who leads now is what came of it. What is scheduled
    /// is for whoever leads then.
    ///
    /// The race: the candidate of a hand-over does not take the key, and who takes it in its stead would hand over to it
    /// again, and again.
    pub fn is_of_a_leader_before(&self, request: &FailoverKey) -> bool {
        request.scheduled_at.is_none() && self.held().is_some_and(|held| request.revision < held.epoch)
    }

    /// The time of the request passed long ago: nobody wants it any more. The limit is Patroni's, 1.5 `loop_wait`.
    pub fn schedule_missed(&self, request: &FailoverKey) -> bool {
        request.scheduled_at.is_some_and(|scheduled| self.is_long_over(scheduled))
    }

    /// The time passed more than Patroni's 1.5 `loop_wait` ago.
    pub fn is_long_over(&self, scheduled: WallMillis) -> bool {
        let late_ms = self.wall_now_ms().saturating_sub(scheduled.0);
        u64::try_from(late_ms).is_ok_and(|late| Duration::from_millis(late) > self.config().loop_wait * 3 / 2)
    }

    fn wall_now_ms(&self) -> i64 {
        let (seen, wall) = self.state.wall;
        wall.0.saturating_add(i64::try_from(self.at.since(seen).as_millis()).unwrap_or(i64::MAX))
    }

    /// How long the operator's request is still to wait; `None`: it is due.
    pub fn schedule_left(&self, request: &FailoverKey) -> Option<Duration> {
        self.left_until(request.scheduled_at?)
    }

    /// The time left until then; `None`: it has come.
    pub fn left_until(&self, scheduled: WallMillis) -> Option<Duration> {
        let left_ms = scheduled.0.saturating_sub(self.wall_now_ms());
        u64::try_from(left_ms).ok().filter(|left| *left > 0).map(Duration::from_millis)
    }

    /// Whom to stream from: the member that the tag `replicatefrom` names if it runs, the leader otherwise.
    pub fn upstream(&self) -> Option<Upstream> {
        let leader = self.other_leader()?;
        let cascade = self.config().replicatefrom.as_ref().filter(|name| **name != self.config().me);
        let members = &self.cluster()?.members;
        let cascading = cascade.and_then(|name| members.get(name).map(|key| (name, key)));
        let running = cascading.filter(|(_, key)| key.record.state == "running");
        let (name, key) = running.or_else(|| members.get(&leader.member).map(|key| (&leader.member, key)))?;
        let known = !key.record.host.is_empty() && key.record.port > 0 && *name != self.config().me;
        known.then(|| Upstream { member: name.clone(), host: key.record.host.clone(), port: key.record.port })
    }

    /// The leader itself, as something to clone, compare or rewind from; only while it runs as primary.
    pub fn serving_leader(&self) -> Option<(Revision, Upstream, &'a MemberRecord)> {
        // A tenure of our own that is over still has its key, and our record may still say that we serve.
        let leader = self.other_leader().filter(|leader| leader.member != self.config().me)?;
        let record = self.cluster()?.leader_record()?;
        let upstream = Upstream { member: leader.member.clone(), host: record.host.clone(), port: record.port };
        record.serves().then_some((leader.created, upstream, record))
    }
}

/// When each kind of contact was last heard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Contact {
    /// A member of the store.
    pub store: Instant,
    /// Another agent.
    pub peer: Instant,
    /// A standby, through its WAL sender.
    pub walsender: Instant,
}

impl Contact {
    /// The latest of them.
    pub fn latest(self) -> Instant {
        self.store.max(self.peer).max(self.walsender)
    }
}
