//! The description of the REST API, held against a running agent by schemathesis, which makes requests of it and checks
//! every answer against it.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use matriarch_tests::{Child, Cluster, Ended, Plan, schemathesis};
use serde_json::json;

/// As many requests as it makes, and a restart of PostgreSQL for some, on a busy machine.
const LIMIT: Duration = Duration::from_secs(600);
/// What is checked. Not that nothing is answered with 5xx, nor that unknown methods are with 405: Patroni's codes are
/// others.
const CHECKS: &str = "status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,ignored_auth";

#[tokio::test]
async fn a_running_agent_keeps_what_the_description_promises() {
    let Some(schemathesis) = schemathesis() else { return };
    let authentication = json!({"username": "admin", "password": "secret"});
    let extra = json!({"restapi": {"authentication": authentication}, "tags": {"zone": "a"}});
    let cluster = Cluster::start(Plan { nodes: 1, extra, ..Plan::default() }).await;
    let mut command = Command::new(schemathesis);
    command.current_dir(cluster.nodes[0].dir().parent().expect("the cluster's directory"));
    command.arg("run").arg(format!("http://{}/openapi.json", cluster.nodes[0].rest_address()));
    command.args(["--checks", CHECKS, "--auth", "admin:secret", "--seed", "1", "--max-examples", "20"]);
    command.args(["--phases", "examples,coverage,fuzzing", "--request-timeout", "60", "--warnings", "off"]);
    command.args(["--generation-database", "none", "--suppress-health-check", "all", "--no-color"]);
    // It waits for as long as it is told to.
    command.args(["--exclude-path", "/matriarch/replayed", "--continue-on-failure"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let (child, mut pipes) = Child::spawn_piped(&mut command).expect("schemathesis starts");
    let mut output = pipes.stdout.take().expect("its output");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).map(|_| text)
    });
    let ended = child.wait(LIMIT);
    if ended.is_none() {
        child.process().kill();
    }
    let said = reader.join().expect("its output was read").expect("its output is text");
    assert_eq!(ended, Some(Ended::Exit(0)), "{said}");
    assert!(said.contains("Tested: "), "{said}");
    // The agent has lived through it.
    assert_eq!(cluster.nodes[0].get("/liveness").await.status, 200);
}
