//! What is wrong with the dynamic configuration in the store is told by every agent, once, and changes nothing else; one that
//! is lost stays in force.

use std::time::Duration;

use matriarch::store::{Operation, Transaction};
use matriarch_core::op::Outcome;
use matriarch_tests::{Cluster, Plan, Store, eventually};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

const KEY: &str = "/service/test/config";

async fn configure(cluster: &Cluster, value: &Value) {
    change(cluster, Operation::Put { key: KEY.to_owned(), value: value.to_string().into_bytes(), lease: None }).await;
}

async fn change(cluster: &Cluster, operation: Operation) {
    let transaction = Transaction { operations: vec![operation], ..Transaction::default() };
    let written = Store::connect(&cluster.stores).transact(transaction, LIMIT).await;
    assert!(matches!(written.outcome, Outcome::Done(_)), "{written:?}");
}

async fn work_mem(cluster: &Cluster) -> Result<String, String> {
    let client = cluster.nodes[0].connect().await.map_err(|error| error.to_string())?;
    let row = client.query_one("SHOW work_mem", &[]).await.map_err(|error| error.to_string())?;
    Ok(row.get(0))
}

#[tokio::test]
async fn what_is_not_taken_of_the_dynamic_configuration_is_told_once() {
    let cluster = Cluster::start(Plan { nodes: 1, ..Plan::default() }).await;
    let dynamic = |parameters: Value| {
        json!({
            "ttl": 3, "loop_wait": 1, "retry_timeout": 1, "retry_timout": 2,
            "postgresql": {"use_pg_rewind": true, "parameters": parameters},
        })
    };
    let replaced = "postgresql parameter max_connections=fifty failed validation, defaulting to 100";
    let unknown = "retry_timout: unknown key; did you mean `retry_timeout`?";
    let told = |what: &str| {
        let log = cluster.nodes[0].log();
        log.lines().filter(|line| line.contains("WARN") && line.contains(what)).count()
    };
    configure(&cluster, &dynamic(json!({"max_connections": "fifty"}))).await;
    eventually("both are told", LIMIT, async || match (told(replaced), told(unknown)) {
        (1, 1) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    // Something else changes; these are no news then.
    configure(&cluster, &dynamic(json!({"max_connections": "fifty", "max_wal_senders": 1}))).await;
    let next = "max_wal_senders=1 failed validation";
    eventually("the next is told", LIMIT, async || if told(next) == 1 { Ok(()) } else { Err(String::new()) }).await;
    assert_eq!((told(replaced), told(unknown)), (1, 1));
}

/// The bug: a key that was lost, or was no configuration any more, put the cluster back to what its first file had said.
#[tokio::test]
async fn a_configuration_that_the_store_loses_stays_in_force() {
    let mut cluster = Cluster::start(Plan { nodes: 1, ..Plan::default() }).await;
    let configured = json!({
        "ttl": 3, "loop_wait": 1, "retry_timeout": 1,
        "postgresql": {"use_pg_rewind": true, "parameters": {"work_mem": "7MB"}},
    });
    configure(&cluster, &configured).await;
    let in_force = async |cluster: &Cluster| match work_mem(cluster).await? {
        value if value == "7MB" => Ok(()),
        other => Err(other),
    };
    eventually("it is in force", LIMIT, async || in_force(&cluster).await).await;
    let nonsense = Operation::Put { key: KEY.to_owned(), value: b"nonsense".to_vec(), lease: None };
    for loss in [Operation::Delete(KEY.to_owned()), nonsense] {
        change(&cluster, loss).await;
        in_the_store_again(&cluster, &configured).await;
        assert_eq!(work_mem(&cluster).await, Ok("7MB".to_owned()));
    }
    // Nor does an agent that has not seen it.
    cluster.nodes[0].kill_everything();
    cluster.nodes[0].agent_ended(LIMIT);
    change(&cluster, Operation::Delete(KEY.to_owned())).await;
    cluster.nodes[0].start();
    in_the_store_again(&cluster, &configured).await;
    eventually("it is in force", LIMIT, async || in_force(&cluster).await).await;
}

async fn in_the_store_again(cluster: &Cluster, configured: &Value) {
    eventually("it is in the store again", LIMIT, async || {
        let read = Store::connect(&cluster.stores).read_key(KEY, LIMIT).await.done();
        let text = read.and_then(|read| read.entry).map(|entry| entry.text().to_owned()).unwrap_or_default();
        if serde_json::from_str(&text).is_ok_and(|value: Value| value == *configured) { Ok(()) } else { Err(text) }
    })
    .await;
}
