//! One writing client a node: a row every few milliseconds whenever its node accepts writes. They run in a thread of
//! their own, so that nothing else the demo does delays what they note; one thread, so that what one of them noted
//! before another wrote is ordered in fact and not by two clocks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio_postgres::{Client, NoTls};

use super::cluster::{NODES, Node};
use super::verdict::Ack;
use crate::clock;

/// Between two rows of one client.
const PACE: Duration = Duration::from_millis(5);
/// Between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(10);
/// How long one attempt to connect may take. A statement under way has no limit: a server that is held answers when it
/// is let go, and that answer counts.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Ids of a node begin at its number times this.
const IDS_PER_NODE: i64 = 1_000_000_000;

/// What the rows go into.
pub(super) const CREATE_TABLE: &str =
    "CREATE TABLE demo_ledger (id bigint PRIMARY KEY, node text NOT NULL, written_at timestamptz DEFAULT now())";
/// The first: whether this server takes writes, and on which timeline; the second: a row.
const ROLE: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN NULL \
                    ELSE left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END";
const WRITE: &str = "INSERT INTO demo_ledger (id, node) VALUES ($1, $2)";

/// The clients.
pub(super) struct Writers {
    acks: Arc<Mutex<Vec<Ack>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writers {
    /// Starts them.
    pub(super) fn start(nodes: &[Node; NODES], password: &str) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (acks, is_over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let writer = |(index, node): (usize, &Node)| Writer {
            node: index,
            name: node.name.clone(),
            config: node.connection(password),
            next_id: (index as i64 + 1) * IDS_PER_NODE,
            acks: Arc::clone(&acks),
            is_over: Arc::clone(&is_over),
        };
        let writers: Vec<Writer> = nodes.iter().enumerate().map(writer).collect();
        let live = move || {
            runtime.block_on(async {
                let running: Vec<_> = writers.into_iter().map(|writer| tokio::spawn(writer.live())).collect();
                for writer in running {
                    let _ = writer.await;
                }
            });
        };
        let thread = std::thread::Builder::new().name("writers".into()).spawn(live).context("the writers' thread")?;
        Ok(Self { acks, is_over, thread: Some(thread) })
    }

    /// Reads everything that was acknowledged so far, in order.
    pub(super) fn with<T>(&self, read: impl FnOnce(&[Ack]) -> T) -> T {
        read(&self.acks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Writers {
    /// Not joined: a writer may wait for a server that is held until the cleanup, which comes later, ends it.
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        drop(self.thread.take());
    }
}

struct Writer {
    node: usize,
    name: String,
    config: tokio_postgres::Config,
    next_id: i64,
    acks: Arc<Mutex<Vec<Ack>>>,
    is_over: Arc<AtomicBool>,
}

impl Writer {
    async fn live(mut self) {
        while !self.is_over.load(Ordering::Relaxed) {
            if let Ok(Ok((client, connection))) = tokio::time::timeout(CONNECT_LIMIT, self.config.connect(NoTls)).await
            {
                let connection = tokio::spawn(connection);
                // Whatever ended it, the next connection shows what the node is now.
                let _ = self.work(&client).await;
                connection.abort();
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Until an error, or the end.
    async fn work(&mut self, client: &Client) -> Result<(), tokio_postgres::Error> {
        let role = client.prepare(ROLE).await?;
        let timeline = loop {
            let found: Option<String> = client.query_one(&role, &[]).await?.try_get(0)?;
            if let Some(found) = found {
                break u32::from_str_radix(&found, 16).unwrap_or_default();
            }
            tokio::time::sleep(PACE).await;
            if self.is_over.load(Ordering::Relaxed) {
                return Ok(());
            }
        };
        // A primary becomes a standby only by a restart, which ends this connection.
        let write = client.prepare(WRITE).await?;
        while !self.is_over.load(Ordering::Relaxed) {
            let id = self.next_id;
            self.next_id += 1;
            let sent = clock::now();
            client.execute(&write, &[&id, &self.name]).await?;
            let ack = Ack { node: self.node, timeline, id, sent, acked: clock::now() };
            self.acks.lock().unwrap_or_else(PoisonError::into_inner).push(ack);
            tokio::time::sleep(PACE).await;
        }
        Ok(())
    }
}
