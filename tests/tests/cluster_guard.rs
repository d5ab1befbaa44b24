//! The guard of a real node: as a pair, and with a cgroup of PostgreSQL's own. Beside `guard_pair.rs` and
//! `guard_cgroup.rs`, since a cluster reaps every child of its process.

use std::fs;
use std::time::Duration;

use matriarch::postgres::cgroup;
use matriarch_tests::{Cluster, Ledger, Mark, Plan, StoreKind, wait_until};
use rustix::process::Signal;

const LIMIT: Duration = Duration::from_secs(60);

/// Without a successor the primary would go on writing beside the next one: nobody is left to stop it.
#[tokio::test]
async fn no_two_primaries_when_the_agent_freezes_and_its_guard_is_killed() {
    let extra = serde_json::json!({"matriarch": {"guard": "strict"}});
    let cluster = Cluster::start(Plan { extra, ..Plan::default() }).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(LIMIT).await;
    let node = &cluster.nodes[primary];
    let (guard, postmaster) = (node.guard().expect("it is guarded"), node.postmaster().expect("a primary runs"));
    let fault = Mark::now();
    node.agent().freeze();
    guard.kill();
    let next = ledger.moves_from(&cluster, primary, LIMIT).await;
    assert!(!postmaster.is_alive(), "nobody has stopped the old primary");
    node.agent().thaw();
    cluster.healed(LIMIT).await;
    ledger.must_have_moved(&cluster, fault, "agent frozen and guard killed", [primary, next]).await;
}

/// The agent is root no more when it starts PostgreSQL, and may not have made the cgroup by itself.
#[tokio::test]
async fn an_agent_that_was_root_starts_postgresql_in_a_cgroup_of_its_own() {
    let own = cgroup::of(std::process::id().cast_signed()).ok();
    let probe = own.map(|own| own.join(format!("matriarch-test-{}", std::process::id())));
    if probe.is_none_or(|probe| fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).is_err()) {
        println!("not run: no cgroup can be made here");
        return;
    }
    let plan = Plan { nodes: 1, store: StoreKind::Embedded, as_root: true, ..Plan::default() };
    let cluster = Cluster::start(plan).await;
    let node = &cluster.nodes[0];
    let postmaster = node.postmaster().expect("it runs");
    let place = cgroup::of(postmaster.0).unwrap();
    assert_eq!(place.file_name().unwrap().to_str(), Some(&*cgroup::name(&node.data_dir())));
    let members = fs::read_to_string(place.join("cgroup.procs")).unwrap();
    assert!(members.lines().count() > 3, "its children are not in it: {members}");
    let why: serde_json::Value = serde_json::from_str(&node.get("/why").await.body).unwrap();
    let wishes = why["guard"]["wishes_refused"].as_array().unwrap();
    assert!(!wishes.iter().any(|wish| wish.as_str().unwrap().contains("cgroup")), "{wishes:?}");

    // After a fence the same one is used again, and a clean end removes it.
    postmaster.kill();
    wait_until("another postmaster", LIMIT, async || node.postmaster().is_some_and(|it| it != postmaster)).await;
    cluster.healed(LIMIT).await;
    assert_eq!(cgroup::of(node.postmaster().unwrap().0).unwrap(), place);
    node.agent().signal(Signal::TERM);
    node.agent_ended(LIMIT);
    wait_until("the cgroup is removed", LIMIT, async || !place.exists()).await;
}

/// The bug: an agent that found no guard and could start none left at once, and what it was to end wrote on beside whoever
/// led next.
#[tokio::test]
async fn an_agent_that_can_start_no_guard_ends_what_runs_and_goes_on_when_it_can() {
    let plan = Plan { nodes: 1, store: StoreKind::Embedded, ..Plan::default() };
    let mut cluster = Cluster::start(plan).await;
    cluster.healed(LIMIT).await;
    let node = &cluster.nodes[0];
    let (agent, guard) = (node.agent(), node.guard().expect("it is guarded"));
    let postmaster = node.postmaster().expect("a primary runs");
    agent.signal(Signal::STOP);
    guard.kill();
    agent.kill();
    node.agent_ended(LIMIT);
    let lock = node.dir().join("data.matriarch/guard.lock");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    assert!(postmaster.is_alive(), "nobody is there to stop it");
    cluster.nodes[0].start();
    let node = &cluster.nodes[0];
    wait_until("the primary is stopped", LIMIT, async || !postmaster.is_alive()).await;
    assert!(node.agent().is_alive(), "{}", node.log());
    let log = node.log();
    assert!(log.contains("the guard cannot be started, and PostgreSQL runs"), "{log}");
    assert!(log.contains("guard_missing"), "{log}");
    fs::remove_dir(&lock).unwrap();
    cluster.healed(LIMIT).await;
    assert!(cluster.nodes[0].guard().is_some());
}
