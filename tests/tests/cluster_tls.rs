//! A cluster in which everything but SQL goes over TLS with certificates of both sides: etcd, the REST API, what agents
//! ask each other, and ctl.

use std::time::Duration;

use hyper::Method;
use matriarch::http;
use matriarch::net::Connector;
use matriarch::tls::Speaks;
use matriarch_tests::{Allowance, Certificates, Cluster, Ended, Ledger, Mark, Node, Plan, run_as};
use serde_json::{Value, json};

const HEAL_LIMIT: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(10);

/// What a client that trusts this authority and shows this certificate hears from a node.
async fn hears(files: &Certificates, node: &Node, authority: &str, identity: Option<&str>) -> Result<u16, String> {
    let client = http::Client::with_tls(Connector::tcp(LIMIT), files.client(authority, identity, Speaks::Http1));
    let url = format!("https://{}/liveness", node.rest_address());
    let answer = client.request(Method::GET, &url, None, None, LIMIT).await;
    answer.map(|(status, _)| status).map_err(|error| error.to_string())
}

fn ctl(node: &Node, words: &[&str]) -> (Ended, String) {
    let file = node.config().display().to_string();
    let words: Vec<&str> = ["-c", &file].into_iter().chain(words.iter().copied()).collect();
    run_as("patronictl", &words)
}

#[tokio::test]
async fn a_cluster_lives_on_tls() {
    let cluster = Cluster::start(Plan { tls: true, ..Plan::default() }).await;
    let files = cluster.certificates.clone().expect("a cluster with TLS");
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;

    // Nobody is heard without a certificate, nor the servers believed without their authority.
    for node in &cluster.nodes {
        assert_eq!(hears(&files, node, "ca.pem", Some("client")).await, Ok(200));
        assert!(hears(&files, node, "ca.pem", None).await.is_err());
        assert!(hears(&files, node, "ca.pem", Some("foreign")).await.is_err());
        assert!(hears(&files, node, "foreign-ca.pem", Some("client")).await.is_err());
    }

    let name = cluster.nodes[primary].name.clone();
    let (ended, listed) = ctl(&cluster.nodes[0], &["list", "-f", "json"]);
    assert_eq!(ended, Ended::Exit(0), "{listed}");
    let listed: Value = serde_json::from_str(listed.trim()).expect("a list of members");
    assert_eq!(listed.as_array().map(Vec::len), Some(3), "{listed}");
    let (ended, told) = ctl(&cluster.nodes[0], &["why", &name]);
    assert!(ended == Ended::Exit(0) && told.contains(&name), "{told}");

    // A hand-over: the candidates are asked by the primary, and wait for its last position by a long poll.
    let fault = Mark::now();
    let (ended, said) = ctl(&cluster.nodes[0], &["switchover", "test", "--leader", &name, "--force"]);
    assert!(ended == Ended::Exit(0) && said.contains("Successfully switched over"), "{said}");
    let second = cluster.healed(HEAL_LIMIT).await;
    assert_ne!(second, primary);
    ledger.verdict(&cluster, fault).await.must_be_clean("switchover", Allowance::Nothing);

    // The node is lost: the survivors ask each other before one of them takes over.
    cluster.nodes[second].kill_everything();
    let third = cluster.healed_without(&[second], HEAL_LIMIT).await;
    let why = cluster.nodes[third].get("/why").await;
    let why: Value = serde_json::from_str(&why.body).expect("a document");
    let other = (0..3).find(|index| ![second, third].contains(index)).map(|index| cluster.nodes[index].name.as_str());
    let mut peers = why["peers"].as_array().expect("peers").iter();
    let heard = peers.any(|peer| peer["name"].as_str() == other && peer["unreachable_ms_ago"].is_null());
    assert!(heard, "the other survivor was not heard: {}", why["peers"]);

    // The certificate is replaced in its file: connections after the reload see the new one, by another authority.
    let node = &cluster.nodes[third];
    files.replace("server", "renewed");
    assert_eq!(hears(&files, node, "ca.pem", Some("client")).await, Ok(200), "nothing was reloaded yet");
    assert_eq!(node.post("/reload", &json!({})).await.status, 202);
    matriarch_tests::eventually("the new certificate is shown", LIMIT, async || {
        hears(&files, node, "foreign-ca.pem", Some("client")).await.map(|status| assert_eq!(status, 200))
    })
    .await;
    assert!(hears(&files, node, "ca.pem", Some("client")).await.is_err());
}
