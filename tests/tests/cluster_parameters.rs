//! A configuration that no server would start with, and servers that start all the same.

use std::time::Duration;

use matriarch::store::{Operation, Transaction};
use matriarch_core::op::Outcome;
use matriarch_tests::{Cluster, Node, Plan, Store, eventually};
use serde_json::{Value, json};

const HEAL_LIMIT: Duration = Duration::from_secs(60);
const SERVICE_LIMIT: Duration = Duration::from_secs(30);

async fn document(node: &Node, path: &str) -> Value {
    serde_json::from_str(&node.get(path).await.body).unwrap_or_default()
}

async fn shown(node: &Node, name: &str) -> String {
    let client = node.connect().await.expect("a connection");
    client.query_one(&format!("SHOW {name}"), &[]).await.expect("a setting").get(0)
}

/// Gives the cluster less than every standby must have, a name and a value that no server takes, and one that counts.
async fn configure(cluster: &Cluster) {
    let wrong = json!({"max_conections": 3, "wal_compression": "perhaps"});
    let mut parameters = json!({"max_connections": 40, "shared_buffers": "16MB", "work_mem": "5MB"});
    parameters.as_object_mut().expect("a mapping").extend(wrong.as_object().expect("a mapping").clone());
    put(cluster, &parameters).await;
}

async fn put(cluster: &Cluster, parameters: &Value) {
    let dynamic = json!({
        "ttl": 3, "loop_wait": 1, "retry_timeout": 1,
        "postgresql": {"use_pg_rewind": true, "parameters": parameters},
    });
    let put =
        Operation::Put { key: "/service/test/config".to_owned(), value: dynamic.to_string().into_bytes(), lease: None };
    let transaction = Transaction { operations: vec![put], ..Transaction::default() };
    let written = Store::connect(&cluster.stores).transact(transaction, SERVICE_LIMIT).await;
    assert!(matches!(written.outcome, Outcome::Done(_)), "{written:?}");
}

/// From 14 on PostgreSQL pauses the replay of a standby with less than its primary, and then can neither go on nor
/// follow another timeline; before, it stopped.
#[tokio::test]
async fn a_standby_that_its_primary_has_outgrown_is_restarted() {
    let cluster = Cluster::start(Plan::default()).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let [candidate, outgrown] = cluster.others(primary)[..] else { panic!("three nodes") };
    put(&cluster, &json!({"max_connections": 60, "shared_buffers": "16MB"})).await;
    for node in &cluster.nodes {
        eventually("the change is pending", SERVICE_LIMIT, async || {
            let state = document(node, "/patroni").await;
            if state["pending_restart"] == true { Ok(()) } else { Err(state.to_string()) }
        })
        .await;
    }
    // Everybody but one.
    for node in [candidate, primary].map(|index| &cluster.nodes[index]) {
        let answer = node.post("/restart", &json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        cluster.healed(HEAL_LIMIT).await;
    }
    let names = [primary, candidate].map(|index| cluster.nodes[index].name.clone());
    let order = json!({"leader": names[0], "candidate": names[1]});
    let answer = cluster.nodes[primary].post("/switchover", &order).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let node = &cluster.nodes[outgrown];
    eventually("it has as much and replays", HEAL_LIMIT, async || {
        let state = document(node, "/patroni").await;
        let replays = state["replication_state"] == "streaming" && state["xlog"]["paused"] == false;
        if replays && state["pending_restart"].is_null() { Ok(()) } else { Err(state.to_string()) }
    })
    .await;
    assert_eq!(cluster.healed(HEAL_LIMIT).await, candidate);
    assert_eq!(shown(node, "max_connections").await, "60");
}

#[tokio::test]
async fn a_cluster_survives_its_configuration() {
    let mut cluster = Cluster::start(Plan::default()).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    configure(&cluster).await;
    for node in &cluster.nodes {
        eventually("it takes what counts and tells of the rest", SERVICE_LIMIT, async || {
            let why = document(node, "/why").await["warnings"].to_string();
            let told = why.contains("is max_connections meant?") && why.contains("wal_compression");
            let state = document(node, "/patroni").await;
            let pending = state["pending_restart_reason"]["max_connections"].clone();
            let is_pending = pending == json!({"old_value": "50", "new_value": "40"});
            let taken = shown(node, "work_mem").await == "5MB";
            if told && is_pending && taken { Ok(()) } else { Err(format!("{why}, {state}")) }
        })
        .await;
        assert_eq!(node.log().matches("parameter max_conections is not used").count(), 1, "one warning");
    }

    // One after the other the standbys are restarted, then everything dies at once.
    for &replica in &cluster.others(primary) {
        let answer = cluster.nodes[replica].post("/restart", &json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(shown(&cluster.nodes[replica], "max_connections").await, "50");
    }
    cluster.healed(HEAL_LIMIT).await;
    cluster.nodes.iter().for_each(Node::kill_everything);
    for node in &mut cluster.nodes {
        node.agent_ended(SERVICE_LIMIT);
        node.start();
    }
    let primary = cluster.healed(HEAL_LIMIT).await;

    // The primary first: from it the others learn that less is enough.
    for node in [primary].into_iter().chain(cluster.others(primary)).map(|index| &cluster.nodes[index]) {
        let answer = node.post("/restart", &json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        cluster.healed(HEAL_LIMIT).await;
        eventually("the wish is fulfilled", SERVICE_LIMIT, async || {
            let (state, value) = (document(node, "/patroni").await, shown(node, "max_connections").await);
            let pending = &state["pending_restart"];
            if value == "40" && pending.is_null() { Ok(()) } else { Err(format!("{value}, {state}")) }
        })
        .await;
    }
}
