//! Maintenance mode on whole clusters: PostgreSQL is the operator's. Nothing starts, stops or replaces it unasked, not
//! even when the store is away; resuming brings everything back, and no two nodes ever acknowledge at the same time.

use std::time::Duration;

use matriarch::store::EtcdStore;
use matriarch_tests::{Allowance, Cluster, Ended, Ledger, Mark, Plan, Store, wait_until};
use rustix::process::Signal;
use serde_json::json;
use tokio::time::sleep;

const HEAL_LIMIT: Duration = Duration::from_secs(60);
const SERVICE_LIMIT: Duration = Duration::from_secs(30);

async fn key(store: &EtcdStore, name: &str) -> Option<String> {
    let read = store.read_key(&format!("/service/test/{name}"), SERVICE_LIMIT).await.done()?;
    Some(read.entry?.text().to_owned())
}

/// Until the store tells as well whether the primary has a guard.
async fn pause(cluster: &Cluster, on: bool) {
    cluster.pause(on, SERVICE_LIMIT).await;
    let store = Store::connect(&cluster.stores);
    wait_until(&format!("the primary is let go ({on})"), SERVICE_LIMIT, async || {
        let record = key(&store, "matriarch").await.unwrap_or_default();
        record.contains("unguarded") == on
    })
    .await;
}

#[tokio::test]
async fn a_paused_cluster_is_left_alone_and_resumed() {
    let mut cluster = Cluster::start(Plan::default()).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let postmaster = cluster.nodes[primary].postmaster().expect("a primary runs");
    pause(&cluster, true).await;

    // The store is away for longer than any tenure lasts: the primary goes on.
    cluster.stores[0].kill();
    sleep(2 * cluster.ttl()).await;
    ledger.goes_on(SERVICE_LIMIT).await;
    assert_eq!(cluster.primaries().await, [primary]);
    cluster.stores[0].start_again();
    assert_eq!(cluster.healed(HEAL_LIMIT).await, primary);
    assert_eq!(cluster.nodes[primary].postmaster(), Some(postmaster), "PostgreSQL was restarted");
    let store = Store::connect(&cluster.stores);
    let name = cluster.nodes[primary].name.clone();
    wait_until("it has its key", HEAL_LIMIT, async || key(&store, "leader").await.as_ref() == Some(&name)).await;

    // Its server dies: its key is given back, nobody takes over, nobody starts it.
    let fault = Mark::now();
    postmaster.kill();
    wait_until("the key is given back", SERVICE_LIMIT, async || key(&store, "leader").await.is_none()).await;
    sleep(2 * cluster.ttl()).await;
    assert_eq!(cluster.primaries().await, [0_usize; 0]);
    assert_eq!(cluster.nodes[primary].postmaster(), None, "what was stopped stays stopped");
    assert_eq!(key(&store, "leader").await, None);

    pause(&cluster, false).await;
    ledger.goes_on(SERVICE_LIMIT).await;
    cluster.healed(HEAL_LIMIT).await;
    ledger.verdict(&cluster, fault).await.must_be_clean("killed in a pause", Allowance::Unreplicated);
}

/// Its guard outlives it, and has fired before for another tenure.
#[tokio::test]
async fn an_agent_that_is_killed_in_a_pause_is_followed_by_one_that_leaves_what_runs() {
    let mut cluster = Cluster::start(Plan { nodes: 1, ..Plan::default() }).await;
    let fired = cluster.nodes[0].postmaster();
    cluster.nodes[0].agent().signal(Signal::STOP);
    wait_until("the guard fires", HEAL_LIMIT, async || cluster.nodes[0].postmaster() != fired).await;
    cluster.nodes[0].agent().signal(Signal::CONT);
    cluster.healed(HEAL_LIMIT).await;
    pause(&cluster, true).await;
    let (server, guard) = (cluster.nodes[0].postmaster(), cluster.nodes[0].guard());
    cluster.nodes[0].agent().kill();
    cluster.nodes[0].agent_ended(SERVICE_LIMIT);
    cluster.nodes[0].start();
    cluster.healed(HEAL_LIMIT).await;
    sleep(2 * cluster.ttl()).await;
    pause(&cluster, false).await;
    cluster.healed(HEAL_LIMIT).await;
    assert!(server.is_some() && guard.is_some());
    assert_eq!((cluster.nodes[0].postmaster(), cluster.nodes[0].guard()), (server, guard));
}

#[tokio::test]
async fn what_an_operator_asks_for_in_a_pause_is_done() {
    let mut cluster = Cluster::start(Plan::default()).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    pause(&cluster, true).await;
    let fault = Mark::now();

    // A switchover names its candidate; the old primary follows it.
    let candidate = cluster.others(primary)[0];
    let (from, to) = (cluster.nodes[primary].name.clone(), cluster.nodes[candidate].name.clone());
    let anyone = cluster.nodes[primary].post("/switchover", &json!({"leader": from})).await;
    assert_eq!(anyone.status, 400, "{anyone:?}");
    let answer = cluster.nodes[primary].post("/switchover", &json!({"leader": from, "candidate": to})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    ledger.acknowledged_by(candidate, SERVICE_LIMIT).await;
    assert_eq!(cluster.healed(HEAL_LIMIT).await, candidate);

    // So is a restart, of a primary as well.
    let postmaster = cluster.nodes[candidate].postmaster();
    let answer = cluster.nodes[candidate].post("/restart", &json!({})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(cluster.healed(HEAL_LIMIT).await, candidate);
    let postmaster_now = cluster.nodes[candidate].postmaster();
    assert_ne!(postmaster_now, postmaster);

    // An agent that is stopped leaves PostgreSQL as it is, and the next one takes it up.
    cluster.nodes[candidate].agent().signal(Signal::TERM);
    assert_eq!(cluster.nodes[candidate].agent_ended(SERVICE_LIMIT), Ended::Exit(0));
    sleep(2 * cluster.ttl()).await;
    ledger.goes_on(SERVICE_LIMIT).await;
    cluster.nodes[candidate].start();
    assert_eq!(cluster.healed(HEAL_LIMIT).await, candidate);
    assert_eq!(cluster.nodes[candidate].postmaster(), postmaster_now, "PostgreSQL was restarted");

    pause(&cluster, false).await;
    assert_eq!(cluster.healed(HEAL_LIMIT).await, candidate);
    let verdict = ledger.verdict(&cluster, fault).await;
    verdict.must_be_clean("asked for in a pause", Allowance::Nothing);
    let mut served = verdict.nodes();
    // Its restart was between.
    served.dedup();
    assert_eq!(served, [primary, candidate]);
}
