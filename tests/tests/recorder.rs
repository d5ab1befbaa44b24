//! What the agents of a real cluster decided during a failover is decided again from their flight recorders alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use matriarch::recorder::DIRECTORY;
use matriarch_core::lease::Tenure;
use matriarch_core::record::BUILD;
use matriarch_sim::replay::{ReplaySummary, replay_with};
use matriarch_tests::{Cluster, Node, Plan, eventually};

/// A cluster heals within this.
const HEAL_LIMIT: Duration = Duration::from_secs(60);

/// The files of a node's recorder, oldest first.
fn recordings(node: &Node) -> Vec<PathBuf> {
    let directory = node.dir().join("data.matriarch").join(DIRECTORY);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

/// Replays every recording of a node; the summaries, and the codes of the decisions that were news, in order.
fn replayed(node: &Node) -> (Vec<ReplaySummary>, Vec<&'static str>) {
    let mut codes = Vec::new();
    let mut summaries = Vec::new();
    for file in recordings(node) {
        let mode = fs::metadata(&file).expect("its mode").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        let bytes = fs::read(&file).expect("a recording");
        // All passwords of the plan begin so.
        assert!(!bytes.windows(9).any(|text| text == b"secret of"), "a password is in {}", file.display());
        let summary = replay_with(&bytes, |step| {
            codes.extend(step.effects.decision.as_ref().map(|decision| decision.reason.code()));
        });
        let summary = summary.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        eprintln!(
            "{} {}: {} steps, {} bytes, {} a step",
            node.name,
            file.file_name().unwrap_or_default().display(),
            summary.steps,
            bytes.len(),
            bytes.len() as u64 / summary.steps.max(1)
        );
        assert_eq!((summary.build.as_str(), summary.lost, &summary.fatal), (BUILD, 0, &None), "{}", file.display());
        summaries.push(summary);
    }
    (summaries, codes)
}

/// How many steps there are in all.
fn steps(summaries: &[ReplaySummary]) -> u64 {
    summaries.iter().map(|summary| summary.steps).sum()
}

#[tokio::test]
async fn a_failover_is_replayed_from_the_recordings_of_every_node() {
    let mut cluster = Cluster::start(Plan::default()).await;
    let old = cluster.primaries().await[0];
    // Its postmaster dies, and the agent with it: another node takes over. Then the agent is started again, and follows.
    let postmaster = cluster.nodes[old].postmaster().expect("a primary runs");
    cluster.nodes[old].agent().kill();
    postmaster.kill();
    let new = cluster.primary_but(&[old], HEAL_LIMIT).await;
    let before = recordings(&cluster.nodes[old]);
    assert_eq!(before.len(), 1);
    cluster.nodes[old].agent_ended(HEAL_LIMIT);
    cluster.nodes[old].start();
    cluster.healed(HEAL_LIMIT).await;

    for (index, node) in cluster.nodes.iter().enumerate() {
        let files = if index == old { 2 } else { 1 };
        let (summaries, codes) = eventually("a recording of a whole failover", HEAL_LIMIT, async || {
            let (summaries, codes) = replayed(node);
            if steps(&summaries) > 50 { Ok((summaries, codes)) } else { Err(format!("{} steps", steps(&summaries))) }
        })
        .await;
        assert_eq!(summaries.len(), files, "a file for each start of {}", node.name);
        let holds = matches!(summaries[files - 1].state.tenure, Tenure::Held(_));
        assert_eq!(holds, index == new, "{} leads in the end of its recording", node.name);
        let told = |code: &str| codes.contains(&code);
        if index == old {
            assert!(told("tenure_held") && told("following"), "{codes:?}");
        } else if index == new {
            assert!(told("following") && told("promoting") && told("tenure_held"), "{codes:?}");
        }
    }
}
