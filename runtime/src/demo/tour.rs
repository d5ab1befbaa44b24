//! The tour: start the cluster, strike it, watch it go on, heal it, count.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::time::Duration;

use anyhow::{Context, anyhow};
use matriarch_core::time::Instant;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls};

use super::cleanup::Cleanup;
use super::cluster::{self, Cluster, LOOP_WAIT_S, NODES, RETRY_TIMEOUT_S, TTL_S};
use super::faults::{self, Fault};
use super::members::{self, Member};
use super::report::{Finding, Report};
use super::screen::Screen;
use super::writers::{CREATE_TABLE, Writers};
use super::{DemoArgs, install, processes, verdict};
use crate::clock;

/// Between two looks at the members.
const POLL: Duration = Duration::from_millis(200);
/// Between two looks at the writers.
const GLANCE: Duration = Duration::from_millis(20);
/// How long the first start of three nodes may take: initdb and two clones.
const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(120);
/// How long service may be away.
const OUTAGE_LIMIT: Duration = Duration::from_secs(60);
/// How long a node may take to come back: by a rewind, or a new clone.
const HEAL_LIMIT: Duration = Duration::from_secs(90);
/// Undisturbed writing before each fault and at the end.
const CALM: Duration = Duration::from_secs(1);
/// Rows that the children of a killed postmaster may acknowledge after it are no sign that service is back.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// Lines of a log that an error shows.
const TAIL_LINES: usize = 12;

/// Runs it. Whatever it started is stopped when it returns or is dropped, unless it is to be kept and went well.
pub(super) async fn run(args: &DemoArgs, screen: &Screen, report: &mut Report) -> anyhow::Result<()> {
    let postgres = install::find_or_install(screen)?;
    report.postgresql.clone_from(&postgres.version);
    processes::become_subreaper().context("becoming the reaper of orphans")?;
    let (workdir, account) = cluster::settle()?;
    let cleanup = Cleanup::new(workdir.clone());
    let who = cluster::described(account.as_ref());
    screen.say(&format!(
        "{} with PostgreSQL {} from {}, three nodes and an embedded store in {}, run by {who}.",
        screen.painted("Matriarch", "1"),
        postgres.version,
        postgres.bin_dir.display(),
        workdir.path().display()
    ));
    screen.say(&format!(
        "Short timings, so that the tour is: ttl {TTL_S} s, loop_wait {LOOP_WAIT_S} s, retry_timeout {RETRY_TIMEOUT_S} s (the \
         defaults are 30, 10, 10)."
    ));
    let cluster = Cluster::prepare(workdir, account, &postgres)?;
    let world = World {
        screen,
        names: cluster.nodes.clone().map(|node| node.name),
        nodes: cluster.nodes.clone(),
        cluster: RefCell::new(cluster),
        writers: RefCell::new(None),
        members: RefCell::default(),
        rounds: Cell::new(0),
    };
    let psql = postgres.bin_dir.join("psql");
    let toured = tokio::select! {
        toured = tour(&world, args, report) => toured,
        watched = world.watch() => watched,
        reaped = reap() => reaped,
    };
    screen.clear();
    let primary = toured.map_err(|error| world.explained(error))?;
    for line in std::iter::once(String::new()).chain(report.lines()) {
        screen.say(&line);
    }
    if args.keep {
        let cluster = world.cluster.borrow();
        screen.say("");
        for line in cluster.directions(primary, &psql) {
            screen.say(&line);
        }
        report.kept = Some(cluster.directory_of(primary));
        cleanup.keep();
    }
    Ok(())
}

/// Takes note of every child that ended, as long as the tour goes on.
async fn reap() -> anyhow::Result<usize> {
    let mut ended = signal(SignalKind::child())?;
    loop {
        processes::reap();
        ended.recv().await;
    }
}

/// Everything of the demo that runs, and what is known of it.
struct World<'a> {
    screen: &'a Screen,
    names: [String; NODES],
    nodes: [cluster::Node; NODES],
    cluster: RefCell<Cluster>,
    writers: RefCell<Option<Writers>>,
    members: RefCell<[Member; NODES]>,
    /// Looks at the members so far.
    rounds: Cell<u64>,
}

/// A state that was not reached.
#[derive(Debug)]
struct Stuck {
    what: String,
    /// Whose logs tell.
    nodes: Vec<usize>,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Stuck {}

/// The whole tour; the primary at its end.
async fn tour(world: &World<'_>, args: &DemoArgs, report: &mut Report) -> anyhow::Result<usize> {
    let faults = if args.quick { &Fault::QUICK[..] } else { &Fault::TOUR[..] };
    report.planned = faults.len();
    world.screen.stage(0, faults.len(), "starting the store and three nodes");
    let mut primary = world.bootstrap().await?;
    let mut lost = BTreeSet::new();
    for (done, fault) in faults.iter().enumerate() {
        let strike = Strike { world, fault: *fault, done, of: faults.len() };
        let (finding, after) = strike.carry_out(primary, report.rows_acknowledged, &mut lost).await?;
        let colour = if finding.holds() { "32" } else { "31" };
        world.screen.say(&world.screen.painted(&finding.sentence(), colour));
        primary = after;
        report.rows_acknowledged += finding.rows_acknowledged;
        report.findings.push(finding);
    }
    world.screen.stage(faults.len(), faults.len(), "done");
    Ok(primary)
}

/// One fault of the tour.
struct Strike<'a> {
    world: &'a World<'a>,
    fault: Fault,
    done: usize,
    of: usize,
}

impl Strike<'_> {
    /// Strikes, watches, heals, and counts what was acknowledged after the first `counted` rows; the primary at the
    /// end too.
    async fn carry_out(
        &self,
        primary: usize,
        counted: usize,
        lost: &mut BTreeSet<i64>,
    ) -> anyhow::Result<(Finding, usize)> {
        let (world, fault) = (self.world, self.fault);
        self.stage(&format!("{} is primary and takes writes", world.names[primary]));
        sleep(CALM).await;
        let struck = world.await_whole(HEAL_LIMIT).await?;
        let name = &world.names[struck];
        self.stage(&format!("striking {name}"));
        let at = clock::now();
        let made = faults::strike(fault, &world.cluster, struck).await?;
        self.stage("waiting until a node takes writes");
        let other_than = fault.moves_the_primary().then_some(struck);
        world.await_writes(at, other_than).await?;
        sleep(fault.watched_for()).await;
        self.stage(&format!("healing {name}: waiting for one primary and two standbys"));
        faults::heal(&made, &world.cluster).await?;
        let primary = world.await_whole(HEAL_LIMIT).await?;
        sleep(CALM).await;
        let (outage, overlap, rows_acknowledged) = world.with_acks(|acks| {
            // From the end of the last fault's, so that no moment of the tour goes unwatched.
            let since = acks.get(counted.saturating_sub(1)..).unwrap_or_default();
            (verdict::outage(acks, at), verdict::overlap(since), acks.len().saturating_sub(counted))
        });
        let gone = world.lost(primary).await?;
        let rows_lost = gone.difference(lost).count();
        lost.extend(gone);
        let (node, primary_after) = (name.clone(), world.names[primary].clone());
        Ok((Finding { fault, node, primary_after, outage, overlap, rows_acknowledged, rows_lost }, primary))
    }

    fn stage(&self, text: &str) {
        self.world.screen.stage(self.done, self.of, &format!("{}: {text}", self.fault.title()));
    }
}

impl World<'_> {
    /// From nothing to three nodes, a table and clients that write.
    async fn bootstrap(&self) -> anyhow::Result<usize> {
        {
            let mut cluster = self.cluster.borrow_mut();
            cluster.start_store()?;
            for index in 0..NODES {
                cluster.start_agent(index)?;
            }
        }
        let primary = self.await_whole(BOOTSTRAP_LIMIT).await?;
        self.client(primary).await?.batch_execute(CREATE_TABLE).await.context("creating the table of the demo")?;
        let password = self.cluster.borrow().password.clone();
        *self.writers.borrow_mut() = Some(Writers::start(&self.nodes, &password)?);
        self.await_writes(clock::now(), None).await?;
        Ok(primary)
    }

    /// Looks at the members again and again, and draws.
    async fn watch(&self) -> anyhow::Result<usize> {
        loop {
            let seen = members::poll(&self.nodes).await;
            *self.members.borrow_mut() = seen;
            self.rounds.set(self.rounds.get() + 1);
            let ended = self.cluster.borrow().ended_unasked();
            if let Some((node, what)) = ended {
                return Err(Stuck { what, nodes: node.into_iter().collect() }.into());
            }
            let second_ago = Instant(clock::now().0.saturating_sub(1_000_000_000));
            let rates = self.with_acks(|acks| {
                let recent = acks.partition_point(|ack| ack.acked < second_ago);
                let recent = acks.get(recent..).unwrap_or_default();
                std::array::from_fn(|node| recent.iter().filter(|ack| ack.node == node).count() as u64)
            });
            let names = self.names.each_ref().map(String::as_str);
            self.screen.draw(names, &self.members.borrow(), rates);
            sleep(POLL).await;
        }
    }

    /// Reads what was acknowledged so far.
    fn with_acks<T>(&self, read: impl FnOnce(&[verdict::Ack]) -> T) -> T {
        match self.writers.borrow().as_ref() {
            Some(writers) => writers.with(read),
            None => read(&[]),
        }
    }

    /// Waits until a row is acknowledged that was sent after `at`, by another node than `other_than`.
    async fn await_writes(&self, at: Instant, other_than: Option<usize>) -> anyhow::Result<()> {
        let begin = clock::now();
        loop {
            let since = at + LAST_WORDS;
            let found = self.with_acks(|acks| {
                let first = acks.partition_point(|ack| ack.acked <= since);
                let others = acks.get(first..).unwrap_or_default().iter();
                let others: Vec<_> = others.filter(|ack| Some(ack.node) != other_than).copied().collect();
                verdict::writing_since(&others, since)
            });
            if found.is_some() {
                return Ok(());
            }
            if clock::now().since(begin) > OUTAGE_LIMIT {
                let what = format!("no node took writes within {} s", OUTAGE_LIMIT.as_secs());
                return Err(Stuck { what, nodes: (0..NODES).collect() }.into());
            }
            sleep(GLANCE).await;
        }
    }

    /// Waits until there is one primary with two streaming standbys, seen by a look that began after this call and by
    /// the next one too.
    async fn await_whole(&self, limit: Duration) -> anyhow::Result<usize> {
        let begin = clock::now();
        let mut fresh = self.rounds.get() + 2;
        let mut before = None;
        loop {
            let found = members::whole(&self.members.borrow());
            if self.rounds.get() >= fresh {
                fresh = self.rounds.get() + 1;
                match found {
                    Ok(primary) if before == Some(primary) => return Ok(primary),
                    Ok(primary) => before = Some(primary),
                    Err((what, nodes)) => {
                        before = None;
                        if clock::now().since(begin) > limit {
                            let what = format!("the cluster was not whole within {} s: {what}", limit.as_secs());
                            return Err(Stuck { what, nodes }.into());
                        }
                    }
                }
            }
            sleep(GLANCE).await;
        }
    }

    /// Acknowledged rows that the primary does not have.
    async fn lost(&self, primary: usize) -> anyhow::Result<BTreeSet<i64>> {
        // In this order: whatever is acknowledged before the query must be in its answer.
        let acks = self.with_acks(<[_]>::to_vec);
        let client = self.client(primary).await?;
        let rows = client.query("SELECT id FROM demo_ledger", &[]).await.context("reading the table of the demo")?;
        let present: Result<BTreeSet<i64>, _> = rows.iter().map(|row| row.try_get(0)).collect();
        Ok(verdict::lost(&acks, &present?))
    }

    async fn client(&self, index: usize) -> anyhow::Result<Client> {
        let config = self.nodes[index].connection(&self.cluster.borrow().password);
        let connected = config.connect(NoTls).await;
        let (client, connection) = connected.with_context(|| format!("connecting to {}", self.names[index]))?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// An error with the last words of the nodes that it is about, and where all of them are kept.
    fn explained(&self, error: anyhow::Error) -> anyhow::Error {
        let mut text = format!("{error:#}");
        // A cluster that does not heal must not hide the worst that can be said of it.
        if let Some(overlap) = self.with_acks(verdict::overlap) {
            let _ = write!(
                text,
                "\n\nBROKEN: two nodes acknowledged writes beside each other for {} ms",
                overlap.as_millis()
            );
        }
        let nodes = error.downcast_ref::<Stuck>().map(|stuck| stuck.nodes.clone()).unwrap_or_default();
        for index in nodes {
            let (name, member) = (&self.names[index], self.members.borrow()[index].clone());
            let Member { role, state, timeline, reason, .. } = member;
            let said = if member.answers {
                format!("{role}, {state}, timeline {timeline}: {reason}")
            } else {
                "the agent does not answer".into()
            };
            let log = cluster::tail(&self.nodes[index].dir.join("agent.log"), TAIL_LINES);
            text.push_str(&format!("\n\n{name}: {said}\n--- the last lines of its log\n{log}"));
        }
        match self.cluster.borrow().workdir.keep_logs() {
            Ok(kept) => text.push_str(&format!("\n\nAll logs are kept in {}", kept.display())),
            Err(error) => text.push_str(&format!("\n\nThe logs could not be kept: {error:#}")),
        }
        anyhow!(text)
    }
}
