//! Nodes that do not reach each other or the store, and stores that do not answer.

use std::time::Duration;

use matriarch_tests::{Allowance, Cluster, Ledger, Mark, Plan};
use tokio::time::sleep;

const HEAL_LIMIT: Duration = Duration::from_secs(60);
const SERVICE_LIMIT: Duration = Duration::from_secs(30);
/// What a primary that is all alone may go on writing: the default of `matriarch.isolation_timeout`, and half a second.
const ISOLATED_MAX: Duration = Duration::from_millis(3500);
/// So long that the isolation rung is what stops the writes, not the end of the tenure.
const LONG_TTL: u32 = 10;

#[tokio::test]
async fn a_primary_that_is_cut_off_from_everything_stops_first() {
    let cluster = Cluster::start(Plan { ttl: LONG_TTL, ..Plan::default() }).await;
    if !cluster.can_cut() {
        return;
    }
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let fault = Mark::now();
    cluster.cut_off(primary, true);
    let next = cluster.primary_but(&[primary], SERVICE_LIMIT).await;
    ledger.acknowledged_by(next, SERVICE_LIMIT).await;
    let isolated = ledger.acknowledged_for(primary, fault);
    cluster.mend(primary, true);
    cluster.healed(HEAL_LIMIT).await;
    let verdict = ledger.verdict(&cluster, fault).await;
    verdict.must_be_clean("cut off from store and peers", Allowance::Unreplicated);
    assert_eq!(verdict.nodes(), [primary, next]);
    eprintln!("isolated writing for {} ms", isolated.as_millis());
    assert!(isolated <= ISOLATED_MAX, "it wrote on alone for {} ms", isolated.as_millis());
}

/// With the store away a primary goes on for as long as its tenure lasts and no longer, and hands over when it is gone.
#[tokio::test]
async fn a_primary_that_is_cut_off_from_the_store_stops_with_its_tenure() {
    let cluster = Cluster::start(Plan::default()).await;
    if !cluster.can_cut() {
        return;
    }
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let fault = Mark::now();
    cluster.cut_off(primary, false);
    let next = cluster.primary_but(&[primary], SERVICE_LIMIT).await;
    ledger.acknowledged_by(next, SERVICE_LIMIT).await;
    assert!(ledger.acknowledged_for(primary, fault) <= cluster.ttl());
    cluster.mend(primary, false);
    cluster.healed(HEAL_LIMIT).await;
    let verdict = ledger.verdict(&cluster, fault).await;
    verdict.must_be_clean("cut off from the store", Allowance::Unreplicated);
    assert_eq!(verdict.nodes(), [primary, next]);
}

#[tokio::test]
async fn a_store_that_is_away_for_less_than_ttl_is_not_noticed_by_clients() {
    let cluster = Cluster::start(Plan { ttl: LONG_TTL, ..Plan::default() }).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let fault = Mark::now();
    cluster.stores[0].process().freeze();
    sleep(Duration::from_secs(4)).await;
    cluster.stores[0].process().thaw();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(cluster.healed(HEAL_LIMIT).await, primary);
    let verdict = ledger.verdict(&cluster, fault).await;
    verdict.must_be_clean("store away for less than ttl", Allowance::Nothing);
    assert_eq!(verdict.nodes(), [primary], "the service was interrupted: {verdict}");
}

/// Nobody can lead without a store, and nobody needs an operator when it is back.
#[tokio::test]
async fn a_store_that_is_away_for_longer_than_ttl_stops_writes_until_it_is_back() {
    let cluster = Cluster::start(Plan::default()).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let fault = Mark::now();
    cluster.stores[0].process().freeze();
    sleep(3 * cluster.ttl()).await;
    assert!(ledger.acknowledged_for(primary, fault) <= cluster.ttl(), "a primary without a tenure has acknowledged");
    cluster.stores[0].process().thaw();
    ledger.goes_on(SERVICE_LIMIT).await;
    cluster.healed(HEAL_LIMIT).await;
    ledger.verdict(&cluster, fault).await.must_be_clean("store away for longer than ttl", Allowance::Unreplicated);
}

/// A store that is dead refuses connections, where one that is frozen is silent: another error, and at once. Back on
/// its data it has the lease still, and etcd grants it its whole time again.
#[tokio::test]
async fn a_store_that_is_dead_for_less_than_ttl_is_not_noticed_by_clients() {
    let mut cluster = Cluster::start(Plan { ttl: LONG_TTL, ..Plan::default() }).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let postmaster = cluster.nodes[primary].postmaster();
    let fault = Mark::now();
    cluster.stores[0].kill();
    sleep(Duration::from_secs(4)).await;
    cluster.stores[0].start_again();
    // Beyond the end of a tenure that was not renewed since.
    sleep(cluster.ttl()).await;
    assert_eq!(cluster.healed(HEAL_LIMIT).await, primary);
    assert_eq!(cluster.nodes[primary].postmaster(), postmaster, "PostgreSQL was restarted");
    let verdict = ledger.verdict(&cluster, fault).await;
    verdict.must_be_clean("store dead for less than ttl", Allowance::Nothing);
    assert_eq!(verdict.nodes(), [primary], "the service was interrupted: {verdict}");
}

/// The leader key is in the store still when it is back, and outlives the tenure that it stood for.
#[tokio::test]
async fn a_store_that_is_dead_for_longer_than_ttl_stops_writes_until_it_is_back() {
    let mut cluster = Cluster::start(Plan::default()).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let fault = Mark::now();
    cluster.stores[0].kill();
    sleep(3 * cluster.ttl()).await;
    assert!(ledger.acknowledged_for(primary, fault) <= cluster.ttl(), "a primary without a tenure has acknowledged");
    cluster.stores[0].start_again();
    ledger.goes_on(SERVICE_LIMIT).await;
    cluster.healed(HEAL_LIMIT).await;
    ledger.verdict(&cluster, fault).await.must_be_clean("store dead for longer than ttl", Allowance::Unreplicated);
}
