//! The demo as a user runs it, and the binary under its other names.

use std::fs;
use std::path::Path;
use std::time::Duration;

use matriarch_tests::{Demo, Ended, run_as};
use serde_json::Value;

/// For one answer.
const LIMIT: Duration = Duration::from_secs(10);
/// The exit code after SIGINT, as shells give it.
const INTERRUPTED: Ended = Ended::Exit(130);

/// What the document of `demo --quick --json` must say of a tour that went well.
fn must_tell_of_the_quick_tour(document: &Value) {
    assert_eq!(document["error"], Value::Null, "{document:#}");
    assert_eq!(document["holds"], true, "{document:#}");
    assert_eq!(document["nodes"], 3);
    assert_eq!(document["ttl_s"], 3);
    assert!(document["postgresql"].as_str().is_some_and(|version| !version.is_empty()), "{document:#}");
    let faults = document["faults"].as_array().expect("a list of faults");
    let keys: Vec<&str> = faults.iter().filter_map(|fault| fault["fault"].as_str()).collect();
    assert_eq!(keys, ["kill_postmaster", "switchover"]);
    for fault in faults {
        assert!(fault["outage_ms"].as_u64().is_some_and(|outage| outage > 0), "{fault:#}");
        assert_eq!(fault["overlap_ms"], 0, "{fault:#}");
        assert_eq!(fault["rows_lost"], 0, "{fault:#}");
        assert_eq!(fault["may_lose_rows"], false, "{fault:#}");
        assert_eq!(fault["holds"], true, "{fault:#}");
        assert!(fault["rows_acknowledged"].as_u64().is_some_and(|rows| rows > 0), "{fault:#}");
        assert!(["n1", "n2", "n3"].iter().any(|name| fault["node"] == *name), "{fault:#}");
    }
    assert_ne!(faults[1]["primary_after"], faults[1]["node"], "a switchover to itself");
    let rows: u64 = faults.iter().filter_map(|fault| fault["rows_acknowledged"].as_u64()).sum();
    assert_eq!(document["rows_acknowledged"], rows);
}

#[tokio::test]
async fn the_quick_tour_tells_what_it_found_and_leaves_nothing() {
    let demo = Demo::start(&["--quick", "--json"]).await;
    assert_eq!(demo.ended(), Ended::Exit(0), "{}", demo.progress());
    let document = demo.document();
    must_tell_of_the_quick_tour(&document);
    assert_eq!(document["kept"], Value::Null);
    assert!(demo.has_shared_memory(), "none was seen to be used: its absence would say nothing");
    demo.must_have_left_nothing();
}

#[tokio::test]
async fn a_cluster_that_is_kept_runs_until_it_is_stopped() {
    let mut demo = Demo::start(&["--quick", "--json", "--keep"]).await;
    assert_eq!(demo.ended(), Ended::Exit(0), "{}", demo.progress());
    let document = demo.document();
    must_tell_of_the_quick_tour(&document);
    let kept = &document["kept"];
    let nodes = kept["nodes"].as_array().expect("its nodes");
    assert_eq!(nodes.iter().filter(|node| node["role"] == "primary").count(), 1, "{kept:#}");
    for node in nodes {
        let url = format!("{}{}", node["api_url"].as_str().expect("a URL"), node["role"].as_str().expect("a role"));
        let answer = matriarch::http::request(hyper::Method::GET, &url, None, None, LIMIT).await;
        assert_eq!(answer.expect("the node answers").0, 200, "{url}");
    }
    let directory = kept["directory"].as_str().expect("its directory");
    assert!(Path::new(directory).join("pgpass").is_file(), "{kept:#}");
    // Only what is a demo's is ever removed.
    let other = tempfile::tempdir().expect("a directory");
    assert_eq!(demo.stop(&other.path().display().to_string()), Ended::Exit(1));
    assert!(other.path().exists() && !demo.processes().is_empty());

    assert_eq!(demo.stop(directory), Ended::Exit(0), "{}", demo.progress());
    demo.must_have_left_nothing();
}

async fn interrupted(moment: &str, quick_faults_before: usize) {
    let demo = Demo::start(&["--quick", "--json"]).await;
    demo.says(moment).await;
    demo.interrupt();
    assert_eq!(demo.ended(), INTERRUPTED, "{}", demo.progress());
    let document = demo.document();
    assert_eq!(document["error"], "interrupted");
    assert_eq!(document["holds"], false, "half a tour proves nothing");
    assert_eq!(document["faults"].as_array().map(Vec::len), Some(quick_faults_before), "{document:#}");
    demo.must_have_left_nothing();
}

#[tokio::test]
async fn an_interrupt_while_it_starts_leaves_nothing() {
    let demo = Demo::start(&["--quick", "--json"]).await;
    demo.says("starting the store and three nodes").await;
    // Amid initdb: its servers are nobody's that a pid file names.
    demo.runs("initdb").await;
    demo.interrupt();
    assert_eq!(demo.ended(), INTERRUPTED, "{}", demo.progress());
    let document = demo.document();
    assert_eq!((&document["error"], &document["holds"]), (&"interrupted".into(), &false.into()));
    demo.must_have_left_nothing();
}

/// While standbys are cloned.
#[tokio::test]
async fn an_interrupt_amid_clones_leaves_nothing() {
    let demo = Demo::start(&["--quick", "--json"]).await;
    demo.runs("pg_basebackup").await;
    demo.interrupt();
    assert_eq!(demo.ended(), INTERRUPTED, "{}", demo.progress());
    demo.must_have_left_nothing();
}

/// While a primary is dead.
#[tokio::test]
async fn an_interrupt_amid_a_fault_leaves_nothing() {
    interrupted("kill the postmaster: waiting until a node takes writes", 0).await;
}

/// While a cluster heals that has switched over.
#[tokio::test]
async fn an_interrupt_amid_healing_leaves_nothing() {
    interrupted("switchover: healing", 1).await;
}

#[test]
fn as_patroni_it_takes_a_file() {
    let (ended, said) = run_as("patroni", &["/missing.yml"]);
    assert_eq!(ended, Ended::Exit(1), "{said}");
    assert!(said.contains("/missing.yml does not exist"), "{said}");
    let (ended, said) = run_as("patroni", &["--validate-config", "/missing.yml"]);
    assert_eq!(ended, Ended::Exit(1), "{said}");
    assert!(said.contains("/missing.yml"), "{said}");
    let (ended, said) = run_as("patroni", &["--version"]);
    assert_eq!((ended, said.split_whitespace().next()), (Ended::Exit(0), Some("patroni")), "{said}");
}

#[test]
fn as_patronictl_it_is_the_client() {
    let (ended, said) = run_as("patronictl", &["-c", "/missing.yml", "list"]);
    assert_eq!(ended, Ended::Exit(1), "{said}");
    assert!(said.contains("/missing.yml"), "{said}");
    let (ended, said) = run_as("patronictl", &["-d", "127.0.0.1:1", "list", "test"]);
    assert_eq!(ended, Ended::Exit(1), "{said}");
    assert!(said.contains("127.0.0.1:1"), "{said}");
    // What is the agent's is no command of the client.
    let (ended, said) = run_as("patronictl", &["run", "x"]);
    assert_eq!(ended, Ended::Exit(2), "{said}");
}

#[test]
fn a_file_alone_is_run() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("node.yml");
    fs::write(&file, "scope: test\nname: n1\n").expect("a configuration");
    let file = file.display().to_string();
    let short = run_as("matriarch", &[&file]);
    assert_eq!(short, run_as("matriarch", &["run", &file]));
    assert_eq!(short.0, Ended::Exit(1), "{}", short.1);
    assert!(short.1.contains(&file) && short.1.contains("restapi: this key is required"), "{}", short.1);
}
