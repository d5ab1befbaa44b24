//! What is wrong with the dynamic configuration in the store is told by every agent, once, and changes nothing else.

use std::time::Duration;

use matriarch::store::{Operation, Transaction};
use matriarch_core::op::Outcome;
use matriarch_tests::{Cluster, Plan, Store, eventually};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

async fn configure(cluster: &Cluster, value: &Value) {
    let put =
        Operation::Put { key: "/service/test/config".to_owned(), value: value.to_string().into_bytes(), lease: None };
    let transaction = Transaction { operations: vec![put], ..Transaction::default() };
    let written = Store::connect(&cluster.stores).transact(transaction, LIMIT).await;
    assert!(matches!(written.outcome, Outcome::Done(_)), "{written:?}");
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
