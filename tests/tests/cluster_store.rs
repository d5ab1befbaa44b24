//! Stores that misbehave: a leader of etcd that comes back, a key that somebody deletes; and the store that we bring.

use std::time::Duration;

use matriarch::store::{Operation, Transaction};
use matriarch_core::op::Outcome;
use matriarch_tests::{Allowance, Cluster, Ledger, Mark, Plan, Store, StoreKind};
use rustix::process::Signal;
use serde_json::json;
use tokio::time::sleep;

const HEAL_LIMIT: Duration = Duration::from_secs(60);
const SERVICE_LIMIT: Duration = Duration::from_secs(30);

/// An etcd leader that was frozen may, when it is thawed, drop leases that were renewed through its successor (etcd
/// before pull request 16822). The key of a primary can vanish a moment after a good renewal: no overlap even so.
#[tokio::test]
async fn an_etcd_leader_that_was_frozen_makes_no_second_primary() {
    let cluster = Cluster::start(Plan { store: StoreKind::Etcd(3), ttl: 6, ..Plan::default() }).await;
    let ledger = Ledger::start(&cluster).await;
    let fault = Mark::now();
    let frozen = cluster.raft_leader().await;
    cluster.stores[frozen].process().freeze();
    sleep(cluster.ttl() + Duration::from_secs(3)).await;
    cluster.stores[frozen].process().thaw();
    sleep(cluster.ttl() + Duration::from_secs(2)).await;
    ledger.goes_on(SERVICE_LIMIT).await;
    cluster.healed(HEAL_LIMIT).await;
    ledger.verdict(&cluster, fault).await.must_be_clean("etcd leader frozen and thawed", Allowance::Unreplicated);
}

/// Somebody deletes the leader key while its primary is alive and well: it takes the key again, and clients see a
/// pause.
#[tokio::test]
async fn a_deleted_leader_key_is_taken_again() {
    let cluster = Cluster::start(Plan::default()).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let postmaster = cluster.nodes[primary].postmaster();
    let store = Store::connect(&cluster.stores);
    let fault = Mark::now();
    let delete = Operation::Delete("/service/test/leader".to_owned());
    let deleted =
        store.transact(Transaction { operations: vec![delete], ..Transaction::default() }, SERVICE_LIMIT).await;
    assert!(matches!(deleted.outcome, Outcome::Done(_)), "{deleted:?}");
    sleep(2 * cluster.ttl()).await;
    ledger.goes_on(SERVICE_LIMIT).await;
    assert_eq!(cluster.healed(HEAL_LIMIT).await, primary);
    assert_eq!(cluster.nodes[primary].postmaster(), postmaster, "PostgreSQL was restarted");
    let verdict = ledger.verdict(&cluster, fault).await;
    verdict.must_be_clean("leader key deleted", Allowance::Nothing);
    assert_eq!(verdict.nodes(), [primary]);
}

/// The store is restored from a backup under its old identity: what happened since is lost to it, a switchover even.
/// Nobody leads by a key of the lost future for longer than its ttl, nobody believes the past before that, and then the
/// cluster goes on, without anybody's help.
#[tokio::test]
async fn a_store_restored_from_a_backup_is_believed_after_a_while() {
    let mut cluster = Cluster::start(Plan::default()).await;
    let ledger = Ledger::start(&cluster).await;
    let first = cluster.healed(HEAL_LIMIT).await;
    let backup = cluster.stores[0].back_up();
    let answer = cluster.nodes[first].post("/switchover", &json!({"leader": cluster.nodes[first].name})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let second = cluster.healed(HEAL_LIMIT).await;
    assert_ne!(second, first);
    let fault = Mark::now();
    cluster.stores[0].restore(&backup);
    // The old key may hold the cluster up for its ttl again, before and after the past is believed.
    sleep(2 * cluster.ttl()).await;
    ledger.goes_on(SERVICE_LIMIT).await;
    cluster.healed(HEAL_LIMIT).await;
    ledger.verdict(&cluster, fault).await.must_be_clean("store restored from a backup", Allowance::Unreplicated);
}

/// The store for one machine carries a cluster through its faults as etcd does.
#[tokio::test]
async fn the_embedded_store_carries_a_cluster() {
    let mut cluster = Cluster::start(Plan { store: StoreKind::Embedded, ..Plan::default() }).await;
    let ledger = Ledger::start(&cluster).await;
    let first = cluster.healed(HEAL_LIMIT).await;
    let fault = Mark::now();
    let answer = cluster.nodes[first].post("/switchover", &json!({"leader": cluster.nodes[first].name})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let second = cluster.healed(HEAL_LIMIT).await;
    assert_ne!(second, first);
    cluster.nodes[second].agent().signal(Signal::TERM);
    cluster.nodes[second].agent_ended(SERVICE_LIMIT);
    let third = cluster.healed_without(&[second], HEAL_LIMIT).await;
    cluster.nodes[second].start();
    cluster.healed(HEAL_LIMIT).await;
    cluster.nodes[third].kill_everything();
    let fourth = cluster.primary_but(&[third], SERVICE_LIMIT).await;
    ledger.acknowledged_by(fourth, SERVICE_LIMIT).await;
    cluster.nodes[third].start();
    ledger.verdict(&cluster, fault).await.must_be_clean("three faults on the embedded store", Allowance::Unreplicated);
}
