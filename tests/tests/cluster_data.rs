//! Data directories and names that are missing, or somebody else's.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use matriarch_tests::single::give;
use matriarch_tests::{Allowance, Cluster, Ended, Ledger, Mark, Plan, StoreKind, wait_until};

const HEAL_LIMIT: Duration = Duration::from_secs(60);
const SERVICE_LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_replica_whose_data_directory_is_removed_comes_back() {
    let cluster = Cluster::start(Plan::default()).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let replica = &cluster.nodes[cluster.others(primary)[0]];
    let postmaster = replica.postmaster().expect("a replica runs");
    let fault = Mark::now();
    // Its server may still write while it is being removed.
    wait_until("the directory is gone", SERVICE_LIMIT, async || {
        fs::remove_dir_all(replica.data_dir()).is_ok() || !replica.data_dir().exists()
    })
    .await;
    wait_until("another server runs there", HEAL_LIMIT, async || {
        replica.postmaster().is_some_and(|new| new != postmaster)
    })
    .await;
    assert_eq!(cluster.healed(HEAL_LIMIT).await, primary);
    let verdict = ledger.verdict(&cluster, fault).await;
    verdict.must_be_clean("data directory of a replica removed", Allowance::Nothing);
    assert_eq!(verdict.reigns.len(), 1, "the service was interrupted: {verdict}");
}

/// The bug: it was not found by its files any more, after ten seconds its tenure was let lapse and its guard disarmed, and it went
/// on acknowledging beside the next leader. PostgreSQL itself does not notice before its next checkpoint.
#[tokio::test]
async fn a_primary_whose_data_directory_is_moved_away_writes_beside_nobody() {
    let cluster = Cluster::start(Plan::default()).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let old = &cluster.nodes[primary];
    let postmaster = old.postmaster().expect("the primary runs");
    let fault = Mark::now();
    fs::rename(old.data_dir(), old.data_dir().with_extension("moved")).unwrap();
    // A leader without data is to stop what runs and to give its leadership up, in this order.
    cluster.primary_but(&[primary], HEAL_LIMIT).await;
    assert!(!postmaster.is_alive());
    cluster.healed(HEAL_LIMIT).await;
    let verdict = ledger.verdict(&cluster, fault).await;
    verdict.must_be_clean("data directory of the primary moved away", Allowance::Unreplicated);
}

#[tokio::test]
async fn a_second_node_of_one_name_refuses_to_start() {
    let mut cluster = Cluster::start(Plan { nodes: 2, ..Plan::default() }).await;
    let of_first = |cluster: &Cluster| (cluster.nodes[0].postmaster(), cluster.nodes[0].guard());
    let before = of_first(&cluster);
    let twin = cluster.add_node("twin", "n1");
    twin.start();
    assert_eq!(twin.agent_ended(SERVICE_LIMIT), Ended::Exit(1));
    let log = twin.log();
    assert!(log.contains("Can't start; there is already a node named 'n1' running"), "{log}");
    // No data, no server; and its guard, if it had one already, goes with the agent.
    assert_eq!(fs::read_dir(twin.data_dir()).map(Iterator::count).unwrap_or_default(), 0);
    assert_eq!(twin.postmaster(), None);
    wait_until("nothing of it runs", SERVICE_LIMIT, async || twin.processes().is_empty()).await;
    // Whoever had the name first has it still, and what it ran.
    cluster.nodes.pop();
    cluster.healed(HEAL_LIMIT).await;
    assert_eq!(of_first(&cluster), before);
}

#[tokio::test]
async fn the_data_directory_of_another_cluster_is_refused_and_not_touched() {
    let mut cluster = Cluster::start(Plan { nodes: 2, ..Plan::default() }).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    // A cluster of its own, stopped cleanly, that is then pointed at the first one's store.
    let stranger = cluster.add_node("n3", "n3");
    let joins = fs::read_to_string(stranger.config()).expect("its configuration");
    fs::write(stranger.config(), joins.replace("scope: test", "scope: another")).expect("another scope");
    stranger.start();
    wait_until("it leads its own cluster", HEAL_LIMIT, async || stranger.get("/primary").await.status == 200).await;
    stranger.agent().signal(rustix::process::Signal::TERM);
    assert_eq!(stranger.agent_ended(SERVICE_LIMIT), Ended::Exit(0));
    wait_until("its processes end", SERVICE_LIMIT, async || stranger.processes().is_empty()).await;
    let before = files(&stranger.data_dir());
    assert!(before.len() > 100, "no data directory: {before:?}");

    fs::write(stranger.config(), joins).expect("the first scope");
    stranger.start();
    assert_eq!(stranger.agent_ended(SERVICE_LIMIT), Ended::Exit(1));
    let log = stranger.log();
    assert!(log.lines().last().unwrap_or_default().contains("system"), "no clear last word: {log}");
    assert_eq!(files(&stranger.data_dir()), before, "a foreign data directory was touched");
    cluster.nodes.pop();
    assert_eq!(cluster.healed(HEAL_LIMIT).await, primary);
}

#[tokio::test]
async fn a_directory_that_is_not_ours_is_refused_and_not_touched() {
    let mut cluster = Cluster::prepare(Plan { nodes: 1, ..Plan::default() }).await;
    let node = &mut cluster.nodes[0];
    fs::create_dir(node.data_dir()).expect("a directory");
    // Root's, if that is who runs the tests; with hidden files only in any case.
    fs::write(node.data_dir().join(".env"), "precious").expect("a file");
    let is_root = fs::metadata(node.data_dir()).expect("metadata").uid() == 0;
    for says in if is_root { &["belongs to root", ".env"][..] } else { &[".env"][..] } {
        node.start();
        assert_eq!(node.agent_ended(SERVICE_LIMIT), Ended::Exit(1));
        let log = node.log();
        assert!(log.lines().last().unwrap_or_default().contains(says), "no clear last word: {log}");
        assert_eq!(fs::read_to_string(node.data_dir().join(".env")).expect("the file"), "precious");
        give(&node.data_dir());
    }
}

/// Nothing is begun beside what may run there: an agent that cannot look at the data would hold or end it.
#[tokio::test]
async fn data_of_another_version_are_refused_before_anything_is_done() {
    let mut cluster = Cluster::prepare(Plan { nodes: 1, store: StoreKind::Embedded, ..Plan::default() }).await;
    let node = &mut cluster.nodes[0];
    fs::create_dir(node.data_dir()).expect("a directory");
    for (version, major) in [("12\n", "12"), ("9.6\n", "9"), ("19\n", "19")] {
        fs::write(node.data_dir().join("PG_VERSION"), version).expect("a file");
        give(&node.data_dir());
        node.start();
        assert_eq!(node.agent_ended(SERVICE_LIMIT), Ended::Exit(1));
        let log = node.log();
        let says = format!("is of PostgreSQL {major}; 13 to 18 are supported");
        assert!(log.lines().last().unwrap_or_default().contains(&says), "{log}");
        assert_eq!(node.guard(), None);
    }
}

/// Every file below `dir` with its size and the time of its last change.
fn files(dir: &Path) -> Vec<(std::path::PathBuf, u64, Option<SystemTime>)> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                open.push(entry.path());
            } else {
                found.push((entry.path(), metadata.size(), metadata.modified().ok()));
            }
        }
    }
    found.sort();
    found
}
