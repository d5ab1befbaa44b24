//! Servers that nothing manages are taken over as they run: nobody is started again, initialised or cloned, and no order in
//! which their agents are started makes a second primary.

use std::fs;
use std::time::Duration;

use matriarch::store::{Operation, Transaction};
use matriarch_core::op::Outcome;
use matriarch_tests::{Allowance, Cluster, Ended, Ledger, Mark, Node, Plan, Process, Store, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::sleep;

const HEAL_LIMIT: Duration = Duration::from_secs(60);
const SERVICE_LIMIT: Duration = Duration::from_secs(30);
/// What runs is held while its agent looks for a key and takes it: far less than a restart needs.
const NO_HOLE: Duration = Duration::from_millis(800);

fn postmasters(cluster: &Cluster) -> Vec<Option<Process>> {
    cluster.nodes.iter().map(Node::postmaster).collect()
}

async fn json(cluster: &Cluster, node: usize, path: &str) -> Value {
    serde_json::from_str(&cluster.nodes[node].get(path).await.body).unwrap_or_default()
}

/// Removes what the agent has kept, but for what the server goes by: the password of its upstream, and its log.
fn forget(node: &Node) {
    for entry in fs::read_dir(node.dir().join("data.matriarch")).expect("the state directory") {
        let entry = entry.expect("an entry of it");
        if !["pgpass", "postgresql.log"].map(Into::into).contains(&entry.file_name()) {
            let path = entry.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
}

/// Pauses, stops the agents, and removes whatever they know: three servers that stream, as somebody has made them by hand.
async fn is_left_unmanaged(cluster: &Cluster) {
    cluster.pause(true, SERVICE_LIMIT).await;
    for node in &cluster.nodes {
        node.agent().signal(Signal::TERM);
        assert_eq!(node.agent_ended(SERVICE_LIMIT), Ended::Exit(0));
        wait_until("its guard is gone", SERVICE_LIMIT, async || node.guard().is_none()).await;
        forget(node);
    }
    let store = Store::connect(&cluster.stores);
    let keys = store.read_prefix("/service/test/", SERVICE_LIMIT).await.done().expect("the store answers").entries;
    let operations = keys.into_iter().map(|entry| Operation::Delete(entry.key)).collect();
    let deleted = store.transact(Transaction { operations, ..Transaction::default() }, SERVICE_LIMIT).await.outcome;
    assert!(matches!(deleted, Outcome::Done(_)), "{deleted:?}");
}

#[tokio::test]
async fn servers_that_nothing_manages_are_taken_over_as_they_run_whoever_is_first() {
    let mut cluster = Cluster::start(Plan::default()).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    is_left_unmanaged(&cluster).await;
    let (running, fault) = (postmasters(&cluster), Mark::now());
    assert!(running.iter().all(Option::is_some), "they run on: {running:?}");

    // A standby's agent is started first: it is not promoted beside the primary, however long that has no agent.
    let first = cluster.others(primary)[0];
    cluster.nodes[first].start();
    wait_until("it sees from whom it streams", SERVICE_LIMIT, async || {
        json(&cluster, first, "/why").await["decision"]["code"] == "unmanaged_upstream"
    })
    .await;
    sleep(2 * cluster.ttl()).await;
    assert_eq!(json(&cluster, first, "/why").await["decision"]["code"], "unmanaged_upstream");
    assert_eq!(cluster.nodes[first].get("/primary").await.status, 503);
    ledger.acknowledged_by(primary, SERVICE_LIMIT).await;

    for node in [primary, cluster.others(primary)[1]] {
        cluster.nodes[node].start();
    }
    assert_eq!(cluster.healed(HEAL_LIMIT).await, primary);
    sleep(2 * cluster.ttl()).await;
    assert_eq!(cluster.healed(HEAL_LIMIT).await, primary);
    assert_eq!(postmasters(&cluster), running, "none was started again");
    let verdict = ledger.verdict(&cluster, fault).await;
    verdict.must_be_clean("taken over", Allowance::Nothing);
    assert!(verdict.outage < NO_HOLE, "the service was interrupted: {verdict}");
}
