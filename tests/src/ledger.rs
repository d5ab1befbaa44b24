//! The ledger of acknowledged rows. Each node has a client that writes a row every few milliseconds whenever its node
//! lets it, or there is one client that whatever stands in front of the nodes leads to one of them; what was acknowledged, when and by whom is noted by one clock, and that decides what a fault did to the
//! service.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use matriarch::clock;
use matriarch_core::time::Instant;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::{Cluster, eventually};

/// Between two rows of one writer.
const ROW_INTERVAL: Duration = Duration::from_millis(5);
/// Between two looks at a node that does not accept writes, or two attempts to reach it.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// One uninterrupted time of one postmaster as primary: who, on which timeline, started when. No two may acknowledge at
/// the same time, a restarted primary and its own predecessor included.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Reign {
    /// The node's index.
    pub node: usize,
    /// The timeline that it writes.
    pub timeline: String,
    /// When its postmaster started, by its own words.
    pub started: String,
}

/// A row that was acknowledged.
#[derive(Clone, Debug)]
struct Row {
    id: i64,
    sent: Instant,
    acknowledged: Instant,
    reign: Arc<Reign>,
}

/// A moment, to be compared with the ledger's.
#[derive(Clone, Copy, Debug)]
pub struct Mark(Instant);

impl Mark {
    /// Now.
    pub fn now() -> Self {
        Self(clock::now())
    }
}

/// What a fault may cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allowance {
    /// Nothing that was acknowledged.
    Nothing,
    /// What asynchronous replication had not sent yet when the primary was lost.
    Unreplicated,
}

/// Writers at work, and what they were told.
pub struct Ledger {
    rows: Arc<Mutex<Vec<Row>>>,
    stop: watch::Sender<bool>,
    writers: Vec<JoinHandle<()>>,
}

/// What the ledger says about a fault.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The longest time without an acknowledgement from the fault on.
    pub outage: Duration,
    /// The longest time from the first acknowledgement of a newer reign to the last one of an older. Zero is the only
    /// right answer.
    pub overlap: Duration,
    /// Rows acknowledged in all.
    pub acknowledged: usize,
    /// Rows that were acknowledged and are not there any more.
    pub lost: Vec<i64>,
    /// Who reigned, in order of the first acknowledgement: from when to when, and how many rows.
    pub reigns: Vec<(Reign, Instant, Instant, usize)>,
    fault: Instant,
}

impl Ledger {
    /// Makes the table, starts the writers and waits until rows are acknowledged.
    pub async fn start(cluster: &Cluster) -> Self {
        let direct = |(node, config)| Way::Node { node, config };
        Self::write(cluster, cluster.nodes.iter().map(crate::Node::client_config).enumerate().map(direct)).await
    }

    /// [`Self::start`] with one writer, who does not know the nodes: whatever is in front of them leads it.
    pub async fn start_through(cluster: &Cluster, front: Config) -> Self {
        let nodes = cluster.nodes.iter().map(crate::Node::server_address);
        Self::write(cluster, [Way::Front { nodes: nodes.collect(), config: front }]).await
    }

    async fn write(cluster: &Cluster, ways: impl IntoIterator<Item = Way>) -> Self {
        let primary = cluster.healed(Duration::from_secs(60)).await;
        let client = cluster.nodes[primary].connect().await.expect("the primary lets clients in");
        let create = "create table if not exists ledger (id bigint primary key)";
        client.batch_execute(create).await.expect("the table of the ledger");
        let (stop, stopped) = watch::channel(false);
        let rows: Arc<Mutex<Vec<Row>>> = Arc::default();
        // There may have been a ledger before.
        let last = client.query_one("select coalesce(max(id), 0) from ledger", &[]).await.expect("the ledger is read");
        let next_id = Arc::new(AtomicI64::new(last.get::<_, i64>(0) + 1));
        let mut writers = Vec::new();
        for way in ways {
            let writer = Writer { way, rows: Arc::clone(&rows), next_id: Arc::clone(&next_id) };
            let mut stopped = stopped.clone();
            // A thread each: what one writer waits for must not make another's clock late.
            writers.push(std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a writer's runtime").block_on(async {
                    tokio::select! {
                        () = writer.write() => {}
                        _ = stopped.wait_for(|stop| *stop) => {}
                    }
                });
            }));
        }
        let ledger = Self { rows, stop, writers };
        ledger.goes_on(Duration::from_secs(10)).await;
        // A little history before whatever is to happen.
        sleep(Duration::from_millis(500)).await;
        ledger
    }

    /// Waits until rows that were sent from now on are acknowledged.
    pub async fn goes_on(&self, limit: Duration) {
        let now = clock::now();
        eventually("writes are acknowledged", limit, async || {
            let last = self.rows().last().cloned();
            match last {
                Some(row) if row.sent >= now => Ok(()),
                Some(row) => Err(format!("the last row is of {}", row.acknowledged)),
                None => Err("there was none".to_owned()),
            }
        })
        .await;
    }

    /// Waits until a node acknowledges rows.
    pub async fn acknowledged_by(&self, node: usize, limit: Duration) {
        let now = clock::now();
        eventually(&format!("node {} acknowledges writes", node + 1), limit, async || {
            let by_it = self.rows().iter().rev().any(|row| row.reign.node == node && row.sent >= now);
            if by_it { Ok(()) } else { Err("it does not".to_owned()) }
        })
        .await;
    }

    /// Waits until another node than `from` leads and acknowledges rows; its index.
    pub async fn moves_from(&self, cluster: &Cluster, from: usize, limit: Duration) -> usize {
        let next = cluster.primary_but(&[from], limit).await;
        self.acknowledged_by(next, limit).await;
        next
    }

    /// How long after `mark` this node still acknowledged.
    pub fn acknowledged_for(&self, node: usize, mark: Mark) -> Duration {
        let last = self.rows().iter().rev().find(|row| row.reign.node == node).map(|row| row.acknowledged);
        last.map_or(Duration::ZERO, |last| last.since(mark.0))
    }

    fn rows(&self) -> std::sync::MutexGuard<'_, Vec<Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the writers, waits until the cluster is whole and compares what was acknowledged with what is there.
    pub async fn verdict(mut self, cluster: &Cluster, fault: Mark) -> Verdict {
        let end = clock::now();
        self.end();
        let primary = cluster.healed(Duration::from_secs(90)).await;
        let client = cluster.nodes[primary].connect().await.expect("the primary lets clients in");
        let there = client.query("select id from ledger", &[]).await.expect("the ledger is there");
        let there: BTreeSet<i64> = there.iter().map(|row| row.get(0)).collect();
        let rows = std::mem::take(&mut *self.rows());
        Verdict::of(&rows, &there, fault.0, end)
    }

    /// Panics unless the service went from one node to another and nowhere else, and nothing was lost but what had not
    /// been replicated.
    pub async fn must_have_moved(self, cluster: &Cluster, since: Mark, fault: &str, from_to: [usize; 2]) {
        let verdict = self.verdict(cluster, since).await;
        verdict.must_be_clean(fault, Allowance::Unreplicated);
        assert_eq!(verdict.nodes(), from_to);
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        for writer in self.writers.drain(..) {
            assert!(writer.join().is_ok() || std::thread::panicking(), "a writer panicked");
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.end();
    }
}

/// How a writer reaches the primary.
enum Way {
    /// It is this node, if any.
    Node { node: usize, config: Config },
    /// It is where this leads. The nodes' addresses and ports tell which one it was.
    Front { nodes: Vec<(String, u16)>, config: Config },
}

struct Writer {
    way: Way,
    rows: Arc<Mutex<Vec<Row>>>,
    next_id: Arc<AtomicI64>,
}

/// The timeline that is written.
const TIMELINE: &str = "substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)";

impl Writer {
    async fn write(&self) {
        let (Way::Node { config, .. } | Way::Front { config, .. }) = &self.way;
        loop {
            if let Ok((client, connection)) = config.connect(NoTls).await {
                let driven = tokio::spawn(connection);
                // However it ends, there is another connection to try.
                match &self.way {
                    Way::Node { node, .. } => self.write_on(*node, &client).await.ok(),
                    Way::Front { nodes, .. } => self.write_somewhere(nodes, &client).await.ok(),
                };
                driven.abort();
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    /// Writes for as long as the connection lasts and the server is a primary.
    async fn write_on(&self, node: usize, client: &Client) -> Result<(), tokio_postgres::Error> {
        let query = format!(
            "select case when pg_is_in_recovery() then null else {TIMELINE} end, pg_postmaster_start_time()::text"
        );
        let query = client.prepare(&query).await?;
        let (reign, insert) = loop {
            let row = client.query_one(&query, &[]).await?;
            if let Some(timeline) = row.get::<_, Option<String>>(0) {
                let reign = Arc::new(Reign { node, timeline, started: row.get(1) });
                break (reign, client.prepare("insert into ledger values ($1)").await?);
            }
            sleep(RETRY_INTERVAL).await;
        };
        loop {
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            let sent = clock::now();
            client.execute(&insert, &[&id]).await?;
            self.acknowledged(id, sent, Arc::clone(&reign));
            sleep(ROW_INTERVAL).await;
        }
    }

    /// Writes until something is refused. Each row tells who took it: a pooler gives each statement to whom it likes,
    /// and none is prepared, since no other would know it.
    async fn write_somewhere(&self, nodes: &[(String, u16)], client: &Client) -> Result<(), tokio_postgres::Error> {
        loop {
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            let insert = format!(
                "insert into ledger values ({id}) returning host(inet_server_addr()), inet_server_port(), {TIMELINE}, \
                 pg_postmaster_start_time()"
            );
            let sent = clock::now();
            let answer = client.simple_query(&insert).await?;
            let row = answer.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            });
            let row = row.expect("a row that was written is returned");
            let [address, port, timeline, started] = [0, 1, 2, 3].map(|n| row.get(n).unwrap_or_default().to_owned());
            let by = |node: &(String, u16)| node.0 == address && node.1.to_string() == port;
            let node = nodes.iter().position(by).unwrap_or_else(|| panic!("{address}:{port} is no node"));
            self.acknowledged(id, sent, Arc::new(Reign { node, timeline, started }));
            sleep(ROW_INTERVAL).await;
        }
    }

    fn acknowledged(&self, id: i64, sent: Instant, reign: Arc<Reign>) {
        let row = Row { id, sent, acknowledged: clock::now(), reign };
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).push(row);
    }
}

impl Verdict {
    fn of(rows: &[Row], there: &BTreeSet<i64>, fault: Instant, end: Instant) -> Self {
        let mut times: Vec<Instant> = rows.iter().map(|row| row.acknowledged).collect();
        times.sort();
        times.push(end);
        let holes = times.windows(2).filter(|pair| pair[1] >= fault).map(|pair| pair[1].since(pair[0]));
        let outage = holes.max().unwrap_or_default();
        let mut by_reign: BTreeMap<&Reign, (Instant, Instant, usize)> = BTreeMap::new();
        for row in rows {
            let entry = by_reign.entry(&row.reign).or_insert((row.acknowledged, row.acknowledged, 0));
            entry.0 = entry.0.min(row.acknowledged);
            entry.1 = entry.1.max(row.acknowledged);
            entry.2 += 1;
        }
        let mut reigns: Vec<_> = by_reign.into_iter().map(|(reign, (a, b, n))| (reign.clone(), a, b, n)).collect();
        reigns.sort_by_key(|(_, first, _, _)| *first);
        let older_last = |index: usize| reigns[..index].iter().map(|(_, _, last, _)| *last).max();
        let overlaps = (1..reigns.len()).filter_map(|index| Some(older_last(index)?.since(reigns[index].1)));
        Self {
            outage,
            overlap: overlaps.max().unwrap_or_default(),
            acknowledged: rows.len(),
            lost: rows.iter().map(|row| row.id).filter(|id| !there.contains(id)).collect(),
            reigns,
            fault,
        }
    }

    /// Prints the verdict, and panics if two reigns overlap, two nodes wrote one timeline, or more was lost than is
    /// allowed.
    pub fn must_be_clean(&self, fault: &str, allowed: Allowance) {
        eprintln!("{fault}: {self}");
        assert_eq!(self.overlap, Duration::ZERO, "{fault}: two primaries acknowledged at the same time: {self}");
        let mut writers: BTreeMap<&str, usize> = BTreeMap::new();
        for (reign, ..) in &self.reigns {
            let first = *writers.entry(&reign.timeline).or_insert(reign.node);
            assert_eq!(first, reign.node, "{fault}: two nodes wrote timeline {}: {self}", reign.timeline);
        }
        match allowed {
            Allowance::Nothing => assert!(self.lost.is_empty(), "{fault}: acknowledged rows are lost: {self}"),
            Allowance::Unreplicated if !self.lost.is_empty() => {
                eprintln!("{fault}: {} acknowledged rows had not been replicated", self.lost.len());
            }
            Allowance::Unreplicated => {}
        }
    }

    /// The nodes that reigned, in order; one that reigned again is there again.
    pub fn nodes(&self) -> Vec<usize> {
        self.reigns.iter().map(|(reign, ..)| reign.node).collect()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (outage, overlap) = (self.outage.as_millis(), self.overlap.as_secs_f64() * 1000.0);
        let (lost, all) = (self.lost.len(), self.acknowledged);
        write!(f, "outage {outage} ms, overlap {overlap:.1} ms, {lost} of {all} rows lost;")?;
        let millis = |at: &Instant| (at.0 as f64 - self.fault.0 as f64) / 1e6;
        for (reign, first, last, count) in &self.reigns {
            let (node, timeline) = (reign.node + 1, reign.timeline.trim_start_matches('0'));
            write!(f, " n{node} timeline {timeline} {:.0}..{:.0} ms ({count})", millis(first), millis(last))?;
        }
        Ok(())
    }
}
