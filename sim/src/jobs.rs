//! Work on PostgreSQL: each order of core's lane for it, from its beginning to what comes of it. PostgreSQL goes on by
//! itself once it was told; what the agent does between two stages waits while the agent is frozen.

use std::collections::BTreeMap;
use std::time::Duration;

use matriarch_core::action::PostgresAction;
use matriarch_core::event::{Event, PostgresDone, PostgresEvent};
use matriarch_core::id::{Member, OpId, SystemId, Timeline};
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::view::guard::Armed;
use matriarch_core::view::postgres::{ControlState, Phase, StartAs, StopMode, Upstream};

use crate::check::Tool;
use crate::mutant::Mutant;
use crate::node::{Job, Message, NodeId, Source, Stage};
use crate::postgres::Disk;
use crate::postgres::wal::Record;
use crate::time::ms;
use crate::world::{Due, ServerStep, World};

type Done = Outcome<PostgresDone>;

/// For how long the executor waits for a start before it tells that the outcome is unknown (`pg_ctl_timeout`).
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long a stop waits for what a dead postmaster left behind (the runtime's constant of this name).
const ORPHAN_PATIENCE: Duration = Duration::from_millis(500);

fn refused(why: &str) -> Done {
    Outcome::Refused(Refusal::Failed(why.into()))
}

impl World {
    /// Begins what core orders.
    pub fn begin_job(&mut self, node: NodeId, op: OpId, action: PostgresAction, under: Option<Armed>) {
        let pid = self.nodes[node.0].server.postmaster.as_ref().map(|pm| pm.pid);
        let takes = self.first_stage(&action);
        let source = match &action {
            PostgresAction::Clone(upstream) | PostgresAction::Rewind(upstream) => self.source(upstream),
            _ => None,
        };
        if let Some(agent) = &mut self.nodes[node.0].agent {
            let stage = Stage::Preparing;
            agent.jobs.insert(op, Job { action: action.clone(), under, stage, pid, signal_aside: false, source });
        }
        match action {
            PostgresAction::Initdb => self.nodes[node.0].server.disk = Disk::Unfinished,
            PostgresAction::Clone(upstream) if self.may_clone(node, &upstream) => {
                self.check_replaced(node, &upstream.member, Tool::Clone);
                self.nodes[node.0].server.disk = Disk::Unfinished;
            }
            PostgresAction::RecoverSingleUser => self.puts_signal_aside(node, op),
            PostgresAction::Rewind(_) => {
                self.check_rewind(node);
                if let Some(on_disk) = self.nodes[node.0].server.cluster_mut() {
                    on_disk.tainted = Some("a rewind");
                }
            }
            _ => {}
        }
        self.tell(node, takes, Message::Job(op));
    }

    /// Single-user mode refuses a standby's directory: its signal file is put aside meanwhile.
    fn puts_signal_aside(&mut self, node: NodeId, op: OpId) {
        let host = &mut self.nodes[node.0];
        let runs = host.server.postmaster.is_some() || host.server.orphans.is_some();
        let Some(on_disk) = host.server.cluster_mut().filter(|on_disk| !runs && on_disk.standby) else { return };
        on_disk.standby = false;
        if let Some(job) = host.agent.as_mut().and_then(|agent| agent.jobs.get_mut(&op)) {
            job.signal_aside = true;
        }
    }

    /// Its agent died over it: a recovery may have come to its end, and its signal file is not put back.
    pub fn job_cut_short(&mut self, node: NodeId, job: &Job) {
        let ended = job.action == PostgresAction::RecoverSingleUser && self.postgres_random.chance(50);
        let server = &self.nodes[node.0].server;
        if ended && job.signal_aside && server.postmaster.is_none() && server.orphans.is_none() {
            self.recovers_alone(node);
        }
    }

    fn recovers_alone(&mut self, node: NodeId) {
        let server = &mut self.nodes[node.0].server;
        server.write(&mut self.wal, Record::Checkpoint);
        if let Some(on_disk) = server.cluster_mut() {
            on_disk.state = ControlState::ShutDown;
        }
    }

    fn first_stage(&mut self, action: &PostgresAction) -> Duration {
        let pace = self.pace;
        match action {
            PostgresAction::Initdb | PostgresAction::Clone(_) => self.takes(pace.copy),
            PostgresAction::Rewind(_) | PostgresAction::RecoverSingleUser => self.takes(pace.rewind),
            PostgresAction::Checkpoint => self.takes(pace.checkpoint),
            PostgresAction::Start(_) if self.mutant == Some(Mutant::StartWaits) => ms(12_000),
            PostgresAction::CreateRoles | PostgresAction::Compare(_) => self.takes((5, 50)),
            _ => self.takes((1, 6)),
        }
    }

    /// What is in the directory is kept unless the one to be copied answers as the same cluster.
    fn may_clone(&self, node: NodeId, upstream: &Upstream) -> bool {
        let Some(from) = self.upstream(&upstream.member) else { return false };
        let source = &self.nodes[from.0].server;
        let answers = source.is_ready() && self.replicates(from, node);
        if self.mutant == Some(Mutant::WipedUnasked) {
            return self.nodes[node.0].server.postmaster.is_none();
        }
        let Some(theirs) = source.cluster().filter(|_| answers) else { return false };
        let same = self.nodes[node.0]
            .server
            .cluster()
            .is_none_or(|mine| self.wal.system(mine.end) == self.wal.system(theirs.end));
        same && self.nodes[node.0].server.postmaster.is_none() && self.nodes[node.0].server.orphans.is_none()
    }

    fn source(&self, upstream: &Upstream) -> Option<Source> {
        let server = &self.nodes[self.upstream(&upstream.member)?.0].server;
        Some(Source { pid: server.postmaster.as_ref()?.pid, flushed: server.cluster()?.flushed })
    }

    fn upstream(&self, member: &Member) -> Option<NodeId> {
        self.names.iter().position(|name| name == member).map(NodeId)
    }

    fn replicates(&self, from: NodeId, to: NodeId) -> bool {
        use crate::net::{End, Plane};
        let (from, to) = (End::Node(from), End::Node(to));
        !self.net.is_cut((Plane::Replication, from, to)) && !self.net.is_cut((Plane::Replication, to, from))
    }

    /// A stage is over: files are written, a tool has ended, PostgreSQL has stopped.
    pub fn job_goes_on(&mut self, node: NodeId, op: OpId) {
        let Some(job) = self.nodes[node.0].agent.as_ref().and_then(|agent| agent.jobs.get(&op)).cloned() else {
            return;
        };
        match &job.action {
            PostgresAction::Start(how) => self.start(node, op, &job, how.clone()),
            PostgresAction::Stop(mode) => {
                self.stage(node, op, Stage::Stopping);
                self.stop(node, *mode);
                self.poll_jobs(node);
            }
            PostgresAction::Restart if job.stage == Stage::Preparing => {
                self.stage(node, op, Stage::Stopping);
                self.stop(node, StopMode::Fast);
                self.poll_jobs(node);
            }
            PostgresAction::Restart => {
                let standby = self.nodes[node.0].server.cluster().map(|on_disk| (on_disk.standby, on_disk.upstream));
                match standby {
                    Some((true, upstream)) => self.starts(node, op, &job, Some(upstream)),
                    Some((false, _)) => self.starts(node, op, &job, None),
                    None => self.job_done(node, op, refused("there is no cluster")),
                }
            }
            PostgresAction::Promote { timeline } => self.begin_promotion(node, op, &job, *timeline),
            _ => {
                let done = self.at_the_end(node, &job);
                self.job_done(node, op, done);
            }
        }
    }

    fn stage(&mut self, node: NodeId, op: OpId, stage: Stage) {
        if let Some(job) = self.nodes[node.0].agent.as_mut().and_then(|agent| agent.jobs.get_mut(&op)) {
            job.stage = stage;
        }
    }

    fn start(&mut self, node: NodeId, op: OpId, job: &Job, how: StartAs) {
        match how {
            StartAs::Primary => self.starts(node, op, job, None),
            StartAs::Standby(upstream) => {
                let upstream = upstream.and_then(|upstream| self.upstream(&upstream.member));
                self.starts(node, op, job, Some(upstream));
            }
        }
    }

    /// Forks the postmaster, unless the time for it is over: the clock is read again between fork and exec.
    fn starts(&mut self, node: NodeId, op: OpId, job: &Job, as_standby: Option<Option<NodeId>>) {
        let now = self.clock(node);
        let late = job.under.is_some_and(|under| now >= under.at) && self.mutant != Some(Mutant::StartsLate);
        if late {
            self.job_done(node, op, Outcome::Refused(Refusal::NotOurTenure));
            return;
        }
        let server = &self.nodes[node.0].server;
        if server.postmaster.is_some() || server.orphans.is_some() {
            self.job_done(node, op, refused("pre-existing shared memory block is still in use"));
            return;
        }
        if self.nodes[node.0].files.hidden {
            self.job_done(node, op, refused("the data directory cannot be read"));
            return;
        }
        self.check_whole(node);
        let server = &self.nodes[node.0].server;
        if server.cluster().is_none_or(|on_disk| on_disk.tainted.is_some()) {
            self.job_done(node, op, refused("the directory holds no whole cluster"));
            return;
        }
        if as_standby.is_none() {
            self.check_authorised(node, &job.action, job.under);
        }
        let pid = self.fork(node, as_standby);
        if let Some(job) = self.nodes[node.0].agent.as_mut().and_then(|agent| agent.jobs.get_mut(&op)) {
            (job.pid, job.stage) = (Some(pid), Stage::Starting);
        }
        self.tell(node, START_LIMIT, Message::JobDone(op, Outcome::Unknown("PostgreSQL is still starting".into())));
    }

    fn begin_promotion(&mut self, node: NodeId, op: OpId, job: &Job, timeline: Timeline) {
        let now = self.clock(node);
        if job.under.is_some_and(|under| now >= under.at) && self.mutant != Some(Mutant::StartsLate) {
            self.job_done(node, op, Outcome::Refused(Refusal::NotOurTenure));
            return;
        }
        if self.nodes[node.0].server.is_primary() {
            // It is what it is to become.
            self.job_done(node, op, Outcome::Done(PostgresDone::Done));
            return;
        }
        let ready = self.nodes[node.0].server.postmaster.as_ref().is_some_and(|pm| pm.phase == Phase::Ready);
        if !ready {
            self.job_done(node, op, refused("the server is not in standby mode"));
            return;
        }
        // The numbers between are left out by files that the executor makes for them.
        let counts_to = self.nodes[node.0].server.cluster().map(|on_disk| on_disk.newest.next());
        if counts_to.is_some_and(|next| next > timeline) {
            self.job_done(node, op, refused("PostgreSQL would begin a timeline that is not reserved"));
            return;
        }
        self.check_authorised(node, &job.action, job.under);
        self.stage(node, op, Stage::Waiting);
        let reserved = self.mutant != Some(Mutant::NumberNotReserved);
        self.promote(node, if reserved { timeline } else { Timeline(0) });
    }

    /// PostgreSQL has changed: work that waited for that may be over.
    pub fn poll_jobs(&mut self, node: NodeId) {
        self.stop_kills_orphans(node);
        let server = &self.nodes[node.0].server;
        let pm = server.postmaster.as_ref();
        let running = pm.map(|pm| pm.pid);
        let ready = pm.is_some_and(|pm| pm.phase == Phase::Ready);
        let primary = ready && pm.is_some_and(|pm| !pm.in_recovery);
        let Some(agent) = &self.nodes[node.0].agent else { return };
        let (mut messages, mut left) = (Vec::new(), Vec::new());
        for (op, job) in &agent.jobs {
            let message = match (job.stage, &job.action) {
                (Stage::Starting, _) if running != job.pid => Message::JobDone(*op, refused("it did not come up")),
                (Stage::Starting, _) if ready => Message::JobDone(*op, Outcome::Done(PostgresDone::Done)),
                (Stage::Stopping, _) if running.is_none() && server.orphans.is_some() => {
                    left.push(*op);
                    continue;
                }
                (Stage::Stopping, PostgresAction::Restart) if running.is_none() => Message::Job(*op),
                (Stage::Stopping, PostgresAction::Stop(_)) if running.is_none() => {
                    Message::JobDone(*op, Outcome::Done(PostgresDone::Done))
                }
                (Stage::Waiting, PostgresAction::Promote { .. }) if running != job.pid => {
                    Message::JobDone(*op, refused("it went down"))
                }
                (Stage::Waiting, PostgresAction::Promote { .. }) if primary => {
                    Message::JobDone(*op, Outcome::Done(PostgresDone::Done))
                }
                _ => continue,
            };
            messages.push(message);
        }
        for message in messages {
            let wait = Duration::from_micros(self.host_random.between(50, 1000));
            self.tell(node, wait, message);
        }
        for op in left {
            let still = Outcome::Unknown("processes of a dead postmaster still live".into());
            self.tell(node, ORPHAN_PATIENCE, Message::JobDone(op, still));
        }
    }

    /// An immediate stop ends with SIGKILL what a dead postmaster left behind.
    fn stop_kills_orphans(&mut self, node: NodeId) {
        let host = &mut self.nodes[node.0];
        let Some(agent) = host.agent.as_ref().filter(|_| host.server.postmaster.is_none()) else { return };
        let kills = |job: &Job| job.stage == Stage::Stopping && job.action == PostgresAction::Stop(StopMode::Immediate);
        if agent.jobs.values().any(kills) {
            host.server.orphans = None;
        }
    }

    /// Work is over, if it is still wanted: the facts first, then its end.
    pub fn job_done(&mut self, node: NodeId, op: OpId, outcome: Done) {
        let here = self.nodes[node.0].agent.as_ref().is_some_and(|agent| agent.jobs.contains_key(&op));
        if here && matches!(outcome, Outcome::Done(_)) && self.takes_effect(node, op) {
            self.tell(node, Duration::ZERO, Message::JobDone(op, outcome));
            return;
        }
        let Some(agent) = &mut self.nodes[node.0].agent else { return };
        let Some(job) = agent.jobs.remove(&op) else { return };
        if job.signal_aside
            && let Some(on_disk) = self.nodes[node.0].server.cluster_mut()
        {
            on_disk.standby = true;
        }
        self.coverage.ended(&job.action, &outcome);
        self.look_at_once(node);
        self.step(node, Event::Postgres(PostgresEvent::Completed { op, outcome }));
    }

    /// A tool that ends with an error leaves what it made half-made, or has cleared it away.
    fn tool_fails(&mut self, node: NodeId, action: &PostgresAction) -> Option<Done> {
        let host = &mut self.nodes[node.0];
        let tool = match action {
            PostgresAction::Initdb | PostgresAction::Clone(_) => {
                if host.files.tools_fail && host.server.disk == Disk::Unfinished {
                    host.server.disk = Disk::Empty;
                }
                true
            }
            PostgresAction::Rewind(_) | PostgresAction::RecoverSingleUser => true,
            _ => false,
        };
        (tool && host.files.tools_fail).then(|| refused("no space left on device"))
    }

    /// What work comes to that is one stage.
    fn at_the_end(&mut self, node: NodeId, job: &Job) -> Done {
        let action = job.action.clone();
        if let Some(failed) = self.tool_fails(node, &action) {
            return failed;
        }
        let server = &mut self.nodes[node.0].server;
        let done = Outcome::Done(PostgresDone::Done);
        if server.full && matches!(action, PostgresAction::Initdb | PostgresAction::Clone(_)) {
            if server.disk == Disk::Unfinished {
                server.disk = Disk::Empty;
            }
            return refused("no space left on device");
        }
        if server.full && matches!(action, PostgresAction::Rewind(_) | PostgresAction::RecoverSingleUser) {
            return refused("no space left on device");
        }
        match action {
            PostgresAction::Initdb => {
                let system = SystemId(self.host_random.draw() >> 1);
                server.initdb(&mut self.wal, system);
                self.coverage.count("initdb");
                done
            }
            PostgresAction::Clone(upstream) => self.cloned(node, &upstream, job.source),
            PostgresAction::RecoverSingleUser => {
                if server.postmaster.is_some() || server.orphans.is_some() {
                    return refused("it runs");
                }
                if server.cluster().is_none() {
                    return refused("the directory holds no whole cluster");
                }
                self.recovers_alone(node);
                done
            }
            PostgresAction::Rewind(upstream) => self.rewound(node, &upstream, job.source),
            PostgresAction::Compare(upstream) => self.compared(node, &upstream),
            PostgresAction::Configure { generation } => {
                Outcome::Done(PostgresDone::Configured { generation, changed: true })
            }
            // A change of the configuration and a signal: a server that is not consistent yet obeys as well.
            PostgresAction::Follow(_) | PostgresAction::Freeze if self.nodes[node.0].server.postmaster.is_none() => {
                refused("it does not run")
            }
            PostgresAction::Follow(upstream) => {
                let to = upstream.and_then(|upstream| self.upstream(&upstream.member));
                self.point_to(node, to);
                done
            }
            PostgresAction::Freeze => {
                if self.mutant != Some(Mutant::FreezeIsAReload) {
                    self.point_to(node, None);
                }
                self.coverage.count("freeze");
                done
            }
            // By a connection, of which nobody can say how far it came.
            running if !self.nodes[node.0].server.is_ready() => {
                Outcome::Unknown(format!("{running:?}: it does not answer"))
            }
            PostgresAction::Checkpoint => {
                if self.nodes[node.0].server.is_primary() {
                    if !self.writes(node, Record::Checkpoint) {
                        return refused("no space left on device");
                    }
                    self.pump(node);
                }
                self.nodes[node.0].server.checkpointed = Some(self.now);
                done
            }
            PostgresAction::CreateSlot(_) | PostgresAction::AdvanceSlot { .. } | PostgresAction::DropSlot(_) => {
                self.slot_ordered(node, action);
                done
            }
            _ => done,
        }
    }

    /// A running standby turns to another source, or to none.
    fn point_to(&mut self, node: NodeId, to: Option<NodeId>) {
        let server = &mut self.nodes[node.0].server;
        let Some(pid) = server.postmaster.as_ref().map(|pm| pm.pid) else { return };
        let Some(on_disk) = server.cluster_mut() else { return };
        if on_disk.upstream == to {
            return;
        }
        on_disk.upstream = to;
        self.receiver_ends(node);
        if to.is_some() {
            self.later(ms(10), Due::Server { node, pid, what: ServerStep::Connect });
        }
    }

    /// Whether what a copy was begun from is there without a break: pg_basebackup and pg_rewind fail with their connection.
    fn lasts(&self, upstream: &Upstream, source: Option<Source>) -> bool {
        source.is_some_and(|began| self.source(upstream).is_some_and(|now| now.pid == began.pid))
    }

    fn cloned(&mut self, node: NodeId, upstream: &Upstream, begun_from: Option<Source>) -> Done {
        let was_begun = self.nodes[node.0].server.disk == Disk::Unfinished;
        let answers = was_begun && self.may_clone(node, upstream) && self.lasts(upstream, begun_from);
        let from = self.upstream(&upstream.member).filter(|_| answers);
        let source = from.and_then(|from| self.nodes[from.0].server.cluster().cloned());
        let server = &mut self.nodes[node.0].server;
        let Some(source) = source else {
            if was_begun {
                server.disk = Disk::Empty;
            }
            return refused("the source does not answer");
        };
        server.copy_of(&source);
        self.coverage.count("clone");
        Outcome::Done(PostgresDone::Done)
    }

    fn compared(&mut self, node: NodeId, upstream: &Upstream) -> Done {
        let from = self.upstream(&upstream.member).filter(|from| self.replicates(*from, node));
        let source = from.map(|from| &self.nodes[from.0].server);
        let theirs =
            source.filter(|source| source.is_ready() && source.is_primary()).and_then(|source| source.cluster());
        let (Some(theirs), Some(mine)) = (theirs, self.nodes[node.0].server.cluster()) else {
            return Outcome::Unknown("the upstream does not answer as a primary".into());
        };
        if self.mutant == Some(Mutant::NeverDiverged) {
            return Outcome::Done(PostgresDone::Compared(None));
        }
        // A standby that does not answer is where its control file says; one that does, or a primary, where its WAL ends.
        let mine = match &self.nodes[node.0].server.postmaster {
            Some(pm) if pm.phase != Phase::Starting => mine.flushed,
            _ if mine.recovers() => mine.consistent,
            _ => mine.end,
        };
        let shared = self.wal.shared(theirs.end, mine);
        let diverged = shared.depth < mine.depth;
        Outcome::Done(PostgresDone::Compared(diverged.then(|| self.wal.lsn(shared))))
    }

    /// pg_rewind: what lies behind the last common checkpoint goes, what the source has comes.
    fn rewound(&mut self, node: NodeId, upstream: &Upstream, begun_from: Option<Source>) -> Done {
        let lasts = self.lasts(upstream, begun_from);
        let from = self.upstream(&upstream.member).filter(|from| lasts && self.replicates(*from, node));
        let source = from.filter(|from| self.nodes[from.0].server.is_primary() && self.nodes[from.0].server.is_ready());
        let source = source.and_then(|from| self.nodes[from.0].server.cluster().cloned());
        let server = &mut self.nodes[node.0].server;
        let stopped = server.postmaster.is_none() && server.orphans.is_none();
        let (Some(source), Some(on_disk)) = (source, server.cluster_mut()) else {
            return refused("the source is no running primary");
        };
        if !stopped {
            on_disk.tainted = None;
            return refused("the target runs");
        }
        // pg_rewind asks the source's control file for its timeline: before the first checkpoint after a promotion that
        // is the old one, and it finds nothing to do.
        if source.checkpoint.1 == on_disk.checkpoint.1 && source.checkpoint.1 < self.wal.timeline(source.end) {
            (on_disk.tainted, on_disk.standby) = (None, true);
            return Outcome::Done(PostgresDone::Done);
        }
        self.check_replaced(node, &upstream.member, Tool::Rewind);
        let Some(on_disk) = self.nodes[node.0].server.cluster_mut() else { return refused("there is no cluster") };
        let shared = self.wal.shared(source.end, on_disk.end);
        // The WAL files of the source come with it. What was written into them meanwhile may not, and it is consistent with
        // that only: it waits for it if the source is gone.
        let brought =
            begun_from.map_or(0, |began| self.wal.shared(source.flushed, began.flushed).depth).max(shared.depth);
        on_disk.end = self.wal.on_the_way(source.flushed, brought);
        (on_disk.flushed, on_disk.consistent) = (on_disk.end, source.end);
        on_disk.replayed = self.wal.on_the_way(source.flushed, shared.depth);
        (on_disk.checkpoint, on_disk.state) = (source.checkpoint, ControlState::InArchiveRecovery);
        (on_disk.standby, on_disk.upstream, on_disk.tainted) = (true, None, None);
        on_disk.newest = on_disk.newest.max(source.newest);
        (on_disk.slots, on_disk.saved_slots) = (BTreeMap::new(), BTreeMap::new());
        self.coverage.count("rewind");
        Outcome::Done(PostgresDone::Done)
    }
}
