//! The fence: nothing of an old primary commits beside a new one, whatever state its processes are in when authority
//! ends.

use std::time::Duration;

use matriarch_tests::{Allowance, Cluster, CommitLoop, Ledger, Mark, Plan, wait_until};

const HEAL_LIMIT: Duration = Duration::from_secs(60);
const SERVICE_LIMIT: Duration = Duration::from_secs(30);

/// A backend whose procedure commits in a loop does not notice that its postmaster is dead; it committed for seconds
/// more in trials. No other primary, and no new postmaster on the same data, may acknowledge while it lives.
#[tokio::test]
async fn an_orphan_never_commits_beside_a_primary() {
    let cluster = Cluster::start(Plan::default()).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let orphan = CommitLoop::start(&cluster.nodes[primary].client_config()).await.expect("the primary lets clients in");
    wait_until("the loop commits", SERVICE_LIMIT, async || orphan.count() > 100).await;
    let fault = Mark::now();
    cluster.nodes[primary].postmaster().expect("a primary runs").kill();
    ledger.goes_on(SERVICE_LIMIT).await;
    cluster.healed(HEAL_LIMIT).await;
    wait_until("the orphan is gone", SERVICE_LIMIT, async || orphan.is_over()).await;
    let verdict = ledger.verdict(&cluster, fault).await;
    verdict.must_be_clean("postmaster killed under a commit loop", Allowance::Unreplicated);
    let last = orphan.last().expect("it had committed");
    let next = verdict.reigns.get(1).expect("somebody took over");
    assert!(
        last <= next.1,
        "the orphan committed {} ms into the next reign: {verdict}",
        last.since(next.1).as_millis()
    );
}

/// A stopped postmaster answers no signal but SIGKILL, and its children go on without it.
#[tokio::test]
async fn a_stopped_postmaster_is_fenced() {
    let cluster = Cluster::start(Plan::default()).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let node = &cluster.nodes[primary];
    let postmaster = node.postmaster().expect("a primary runs");
    let fault = Mark::now();
    node.agent().freeze();
    postmaster.freeze();
    let next = ledger.moves_from(&cluster, primary, SERVICE_LIMIT).await;
    assert!(!postmaster.is_alive(), "the guard has left a stopped postmaster alive");
    node.agent().thaw();
    cluster.healed(HEAL_LIMIT).await;
    ledger.must_have_moved(&cluster, fault, "agent frozen, postmaster stopped", [primary, next]).await;
}

/// The guard's death is no reason to stop: the agent lives, sees it, and has another one armed at once.
#[tokio::test]
async fn a_killed_guard_is_replaced_without_interruption() {
    let cluster = Cluster::start(Plan::default()).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let node = &cluster.nodes[primary];
    let (guard, postmaster) = (node.guard().expect("it is guarded"), node.postmaster());
    let fault = Mark::now();
    guard.kill();
    wait_until("another guard is there", SERVICE_LIMIT, async || node.guard().is_some_and(|new| new != guard)).await;
    tokio::time::sleep(2 * cluster.ttl()).await;
    assert_eq!(node.postmaster(), postmaster, "PostgreSQL was restarted");

    // The new one is worth as much as the first.
    let frozen = Mark::now();
    node.agent().freeze();
    let next = ledger.moves_from(&cluster, primary, SERVICE_LIMIT).await;
    assert!(ledger.acknowledged_for(primary, fault) > 2 * cluster.ttl(), "writes stopped with the guard");
    assert!(ledger.acknowledged_for(primary, frozen) < cluster.ttl(), "the new guard has not fenced");
    node.agent().thaw();
    cluster.healed(HEAL_LIMIT).await;
    ledger.must_have_moved(&cluster, fault, "guard killed, then agent frozen", [primary, next]).await;
}
