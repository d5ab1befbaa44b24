//! Slots that the operator wants for good: whoever reads through one finds it, with the WAL that it needs, wherever there
//! is a primary. One that is configured no more goes; one that nobody configured, or that is to be left alone, stays.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use matriarch_core::id::Lsn;
use matriarch_tests::{Child, Cluster, Node, Plan, eventually, postgres_bin_dir};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const SEGMENT_BYTES: u64 = 16 << 20;

/// A cluster that keeps no WAL but for slots, and has this slot for good.
fn plan(nodes: u8, slots: &Value) -> Plan {
    let parameters = json!({"wal_keep_size": "0", "min_wal_size": "32MB", "max_wal_size": "32MB"});
    let dcs = json!({"slots": slots, "postgresql": {"parameters": parameters}});
    Plan { nodes, extra: json!({"bootstrap": {"dcs": dcs}}), ..Plan::default() }
}

async fn text(node: &Node, sql: &str) -> Result<Option<String>, String> {
    let client = node.connect().await.map_err(|error| error.to_string())?;
    let row = client.query_opt(sql, &[]).await.map_err(|error| error.to_string())?;
    Ok(row.and_then(|row| row.get(0)))
}

/// Where a slot is; `None`: there is none.
async fn slot(node: &Node, name: &str) -> Result<Option<Lsn>, String> {
    let sql = format!("select restart_lsn::text from pg_replication_slots where slot_name = '{name}'");
    Ok(text(node, &sql).await?.and_then(|lsn| Lsn::parse(&lsn)))
}

/// Waits until these nodes have the slot, and it has come so far.
async fn have_slot(cluster: &Cluster, nodes: &[usize], name: &str, at_least: Lsn) {
    eventually(&format!("slot {name} at {at_least} on {nodes:?}"), LIMIT, async || {
        for &node in nodes {
            let at = slot(&cluster.nodes[node], name).await?;
            if at.is_none_or(|at| at < at_least) {
                return Err(format!("node {node}: {at:?}"));
            }
        }
        Ok(())
    })
    .await;
}

/// Fills four files of WAL on the primary; where it is then.
async fn fill(primary: &Node) -> Lsn {
    let client = primary.connect().await.unwrap();
    for _ in 0..4 {
        client
            .batch_execute("create table filler as select 1 as n; drop table filler; select pg_switch_wal()")
            .await
            .unwrap();
    }
    let row = client.query_one("select pg_current_wal_flush_lsn()::text", &[]).await.unwrap();
    Lsn::parse(row.get(0)).unwrap()
}

/// Has every node remove the WAL that nobody needs, as far as it is told who needs what.
async fn remove_wal(cluster: &Cluster, primary: usize, position: Lsn) {
    cluster.nodes[primary].connect().await.unwrap().batch_execute("checkpoint").await.unwrap();
    for standby in cluster.others(primary) {
        let replayed = format!("select (pg_last_wal_replay_lsn() >= '{position}')::text");
        eventually("it is replayed", LIMIT, async || match text(&cluster.nodes[standby], &replayed).await? {
            Some(replayed) if replayed == "true" => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        cluster.nodes[standby].connect().await.unwrap().batch_execute("checkpoint").await.unwrap();
    }
}

/// `pg_receivewal`, through the slot.
struct Consumer {
    child: Option<Child>,
    directory: tempfile::TempDir,
}

impl Consumer {
    fn new() -> Self {
        Self { child: None, directory: tempfile::tempdir().unwrap() }
    }

    fn reads_from(&mut self, node: &Node) {
        let config = node.client_config();
        let [tokio_postgres::config::Host::Tcp(host)] = config.get_hosts() else { panic!("a server on TCP") };
        let mut command = Command::new(postgres_bin_dir().join("pg_receivewal"));
        command.args(["-S", "archive", "--synchronous", "-s", "1", "-U", "replicator", "-h", host]);
        command.arg("-p").arg(config.get_ports()[0].to_string()).arg("-D").arg(self.directory.path());
        command.env("PGPASSWORD", "secret of the replica").stdin(Stdio::null());
        self.child = Some(Child::spawn(&mut command).unwrap());
    }

    /// It is away, and whoever served it has noticed.
    async fn leaves(&mut self, node: &Node) {
        let child = self.child.take().expect("it reads");
        child.process().kill();
        child.wait(LIMIT).expect("it was killed");
        let active = "select active::text from pg_replication_slots where slot_name = 'archive'";
        eventually("it is gone", LIMIT, async || match text(node, active).await? {
            Some(active) if active == "false" => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    /// The files of WAL that it has: their numbers.
    fn whole_segments(&self) -> Vec<u64> {
        let files = std::fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let number = |path: PathBuf| {
            let name = path.file_name()?.to_str()?.to_owned();
            let whole = name.len() == 24 && std::fs::metadata(&path).ok()?.len() == SEGMENT_BYTES;
            let part = |at: usize| u64::from_str_radix(&name[at..at + 8], 16).ok();
            whole.then(|| part(8)?.checked_mul(256)?.checked_add(part(16)?)).flatten()
        };
        let mut numbers: Vec<u64> = files.filter_map(number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

#[tokio::test]
async fn who_reads_through_a_permanent_slot_misses_nothing_whoever_leads() {
    let mut cluster = Cluster::start(plan(3, &json!({"archive": {"type": "physical"}}))).await;
    let mut consumer = Consumer::new();
    let first = cluster.healed(LIMIT).await;
    have_slot(&cluster, &[0, 1, 2], "archive", Lsn(1)).await;
    consumer.reads_from(&cluster.nodes[first]);
    let begun = fill(&cluster.nodes[first]).await;
    // What it has read is kept nowhere.
    have_slot(&cluster, &[0, 1, 2], "archive", Lsn(begun.0 - SEGMENT_BYTES)).await;

    // It is away while another takes over, and comes back to that one.
    consumer.leaves(&cluster.nodes[first]).await;
    let filled = fill(&cluster.nodes[first]).await;
    remove_wal(&cluster, first, filled).await;
    let second = cluster.others(first)[0];
    let (from, to) = (&cluster.nodes[first], &cluster.nodes[second]);
    let answer = from.post("/switchover", &json!({"leader": from.name, "candidate": to.name})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(cluster.healed(LIMIT).await, second);
    let filled = fill(&cluster.nodes[second]).await;
    remove_wal(&cluster, second, filled).await;
    consumer.reads_from(&cluster.nodes[second]);
    have_slot(&cluster, &[0, 1, 2], "archive", Lsn(filled.0 - SEGMENT_BYTES)).await;

    // The same when the primary dies with its host.
    consumer.leaves(&cluster.nodes[second]).await;
    let filled = fill(&cluster.nodes[second]).await;
    remove_wal(&cluster, second, filled).await;
    cluster.nodes[second].kill_everything();
    let third = cluster.healed_without(&[second], LIMIT).await;
    let last = fill(&cluster.nodes[third]).await;
    consumer.reads_from(&cluster.nodes[third]);
    have_slot(&cluster, &[third], "archive", Lsn(last.0 - SEGMENT_BYTES)).await;
    let had = consumer.whole_segments();
    let (least, most) = (had[0], had[had.len() - 1]);
    assert_eq!(had, (least..=most).collect::<Vec<_>>(), "nothing is missing in between");
    assert!(least < begun.0 / SEGMENT_BYTES && most + 2 >= last.0 / SEGMENT_BYTES, "{had:?}, to {last}");

    // Who comes back has it as well.
    cluster.nodes[second].start();
    cluster.healed(LIMIT).await;
    have_slot(&cluster, &[0, 1, 2], "archive", Lsn(1)).await;
}

#[tokio::test]
async fn a_slot_goes_with_its_configuration_and_no_other() {
    let mut cluster = Cluster::start(plan(2, &json!({"archive": null, "left_alone": {"type": "physical"}}))).await;
    let primary = cluster.healed(LIMIT).await;
    let standby = cluster.others(primary)[0];
    let names = ["archive", "left_alone", "strangers"];
    for node in &cluster.nodes {
        let make = "select pg_create_physical_replication_slot('strangers', true)";
        node.connect().await.unwrap().batch_execute(make).await.unwrap();
    }
    for name in names {
        have_slot(&cluster, &[0, 1], name, Lsn(1)).await;
    }
    let change = json!({"slots": null, "ignore_slots": [{"name": "left_alone", "type": "physical"}]});
    // The next agent of the standby has never heard of it.
    cluster.nodes[standby].agent().kill();
    assert_eq!(cluster.nodes[primary].patch_config(&change).await.status, 200);
    eventually("archive is gone from the primary", LIMIT, async || {
        match slot(&cluster.nodes[primary], "archive").await? {
            Some(at) => Err(format!("it is at {at}")),
            None => Ok(()),
        }
    })
    .await;
    assert!(slot(&cluster.nodes[standby], "archive").await.unwrap().is_some());
    cluster.nodes[standby].start();
    eventually("archive is gone everywhere", LIMIT, async || {
        for node in &cluster.nodes {
            if let Some(at) = slot(node, "archive").await? {
                return Err(format!("{} has it, at {at}", node.name));
            }
        }
        Ok(())
    })
    .await;
    for name in ["left_alone", "strangers"] {
        have_slot(&cluster, &[0, 1], name, Lsn(1)).await;
    }
}
