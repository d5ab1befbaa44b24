//! Health checks while PostgreSQL is out of connections, stands still, starts or is stopped, and while the store is silent or
//! gone: no answer is wrong, and none is late.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use hyper::Method;
use matriarch_tests::{Cluster, Node, Plan, Process, eventually, wait_until};
use rustix::process::Signal;
use serde_json::json;
use tokio_postgres::error::SqlState;

const HEAL_LIMIT: Duration = Duration::from_secs(90);
const SERVICE_LIMIT: Duration = Duration::from_secs(30);
/// What half of the answers must need at most.
const MEDIAN_MAX: Duration = Duration::from_millis(50);
/// What every answer must need at most on a busy machine: still less than one that waits for PostgreSQL needs.
const WORST_MAX: Duration = Duration::from_millis(400);
/// For so long a silent PostgreSQL may pass for one that runs: it is asked each second, and is silent after three.
const SILENT_AFTER: Duration = Duration::from_secs(5);

/// For so long the store is away: longer than an agent waits for its answer, shorter than a tenure lasts.
const STORE_AWAY: Duration = Duration::from_secs(12);

/// What is asked, and what may be answered.
type Expected = [(&'static str, &'static [u16])];

const NO: &[u16] = &[503];
const YES: &[u16] = &[200];
const EITHER: &[u16] = &[200, 503];

const PRIMARY: &Expected =
    &[("/primary", YES), ("/replica", NO), ("/health", YES), ("/readiness", YES), ("/liveness", YES)];
const STANDBY: &Expected =
    &[("/primary", NO), ("/replica", YES), ("/health", YES), ("/readiness", YES), ("/liveness", YES)];
/// Authority is a matter of store and guard, not of what PostgreSQL says.
const SILENT_PRIMARY: &Expected =
    &[("/primary", YES), ("/replica", NO), ("/health", NO), ("/readiness", YES), ("/liveness", YES)];
const NEITHER: &Expected =
    &[("/primary", NO), ("/replica", NO), ("/health", NO), ("/readiness", NO), ("/liveness", YES)];

/// How long answers took, in one state of PostgreSQL.
#[derive(Default)]
struct Times {
    checks: Vec<Duration>,
    /// Of `GET /patroni`, which is not a check: agents compare positions by it.
    status: Vec<Duration>,
}

impl Times {
    /// Asks everything again and again for `duration`.
    async fn take(&mut self, node: &Node, expected: &Expected, duration: Duration) {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            for (path, allowed) in expected {
                for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
                    let begin = Instant::now();
                    let answer = node.ask(method.clone(), path, None, SERVICE_LIMIT).await;
                    self.checks.push(begin.elapsed());
                    // HEAD and OPTIONS are checks of the whole path, and these two are no words of those.
                    let own = matches!(*path, "/readiness" | "/liveness") && method != Method::GET;
                    let allowed = if own { NO } else { allowed };
                    assert!(allowed.contains(&answer.status), "{method} {path} of {}: {answer:?}", node.name);
                }
            }
            let begin = Instant::now();
            assert_eq!(node.get("/patroni").await.status, 200);
            self.status.push(begin.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn must_be_short(mut self, state: &str) {
        self.checks.sort();
        self.status.sort();
        let median = |times: &[Duration]| times[times.len() / 2];
        let worst = self.checks.last().copied().expect("there were checks");
        eprintln!(
            "{state}: {} checks, median {:?}, worst {worst:?}; /patroni: median {:?}, worst {:?}",
            self.checks.len(),
            median(&self.checks),
            median(&self.status),
            self.status.last().expect("it was asked"),
        );
        assert!(median(&self.checks) < MEDIAN_MAX && median(&self.status) < MEDIAN_MAX, "{state}");
        assert!(worst < WORST_MAX, "{state}: {worst:?}");
    }
}

/// Waits until everything is answered as it should be once.
async fn becomes(node: &Node, expected: &Expected) {
    eventually(&format!("{} answers {expected:?}", node.name), HEAL_LIMIT, async || {
        for (path, allowed) in expected {
            let answer = node.get(path).await;
            if !allowed.contains(&answer.status) {
                return Err(format!("{path}: {answer:?}"));
            }
        }
        Ok(())
    })
    .await;
}

/// Every process of a node's PostgreSQL.
fn servers(node: &Node) -> Vec<Process> {
    let works_in = |process: &Process| std::fs::read_link(format!("/proc/{}/cwd", process.0)).unwrap_or(PathBuf::new());
    node.processes().into_iter().filter(|process| works_in(process) == node.data_dir()).collect()
}

async fn out_of_connections(node: &Node, expected: &Expected) {
    let mut clients = Vec::new();
    let refusal = loop {
        match node.connect().await {
            Ok(client) => clients.push(client),
            Err(error) => break error,
        }
    };
    assert_eq!(refusal.code(), Some(&SqlState::TOO_MANY_CONNECTIONS), "{refusal}");
    let mut times = Times::default();
    times.take(node, expected, SILENT_AFTER).await;
    times.must_be_short("out of connections");
    let refusal = node.connect().await.expect_err("the clients are still there");
    assert_eq!(refusal.code(), Some(&SqlState::TOO_MANY_CONNECTIONS), "{refusal}");
}

async fn stands_still(node: &Node, before: &Expected, after: &Expected) {
    let processes = servers(node);
    for process in &processes {
        process.freeze();
    }
    let mut either = before.to_vec();
    for ((_, allowed), (_, after)) in either.iter_mut().zip(after) {
        *allowed = if allowed == after { allowed } else { EITHER };
    }
    let mut times = Times::default();
    times.take(node, &either, SILENT_AFTER).await;
    times.take(node, after, SILENT_AFTER).await;
    times.must_be_short("stands still");
    for process in &processes {
        process.thaw();
    }
    becomes(node, before).await;
}

/// `restore_command` waits while the file is there, and so PostgreSQL starts for as long.
async fn starts(node: &Node) {
    let hold = node.dir().join("hold");
    std::fs::write(&hold, "").unwrap();
    let nothing = json!({});
    let restart = node.post("/restart", &nothing);
    let checks = async {
        becomes(node, NEITHER).await;
        wait_until("the next server starts", SERVICE_LIMIT, async || {
            let file = std::fs::read_to_string(node.data_dir().join("postmaster.pid")).unwrap_or_default();
            file.contains("starting")
        })
        .await;
        let mut times = Times::default();
        times.take(node, NEITHER, SILENT_AFTER).await;
        times.must_be_short("starts");
        std::fs::remove_file(&hold).unwrap();
    };
    let (answer, ()) = tokio::join!(restart, checks);
    assert_eq!(answer.status, 200, "{answer:?}");
    becomes(node, STANDBY).await;
}

/// The server is stopped by hand while the cluster is paused, and stays so.
async fn is_stopped(node: &Node) {
    node.postmaster().expect("it runs").signal(Signal::INT);
    becomes(node, NEITHER).await;
    let mut times = Times::default();
    times.take(node, NEITHER, SILENT_AFTER).await;
    times.must_be_short("stopped");
}

/// The primary leads until its tenure ends, and that is longer; both say so at once.
async fn beside_no_store(primary: &Node, standby: &Node, state: &str) {
    let (mut led, mut followed) = (Times::default(), Times::default());
    tokio::join!(led.take(primary, PRIMARY, STORE_AWAY), followed.take(standby, STANDBY, STORE_AWAY));
    led.must_be_short(&format!("{state}, primary"));
    followed.must_be_short(&format!("{state}, standby"));
}

#[tokio::test]
async fn no_health_check_is_wrong_or_late_whatever_postgresql_or_the_store_does() {
    // The usual timing: the agent itself asks PostgreSQL every ten seconds only.
    let extra = json!({
        "bootstrap": {"dcs": {"loop_wait": 10, "retry_timeout": 10}},
        "postgresql": {"recovery_conf": {"restore_command": "while test -e ../hold; do sleep 0.1; done; false"}},
    });
    let mut cluster = Cluster::start(Plan { nodes: 2, ttl: 30, extra, ..Plan::default() }).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let (primary, standby) = (&cluster.nodes[primary], &cluster.nodes[1 - primary]);
    for (node, expected) in [(primary, PRIMARY), (standby, STANDBY)] {
        becomes(node, expected).await;
        let mut times = Times::default();
        times.take(node, expected, SILENT_AFTER).await;
        times.must_be_short("runs");
        out_of_connections(node, expected).await;
    }
    stands_still(standby, STANDBY, NEITHER).await;
    stands_still(primary, PRIMARY, SILENT_PRIMARY).await;
    becomes(standby, STANDBY).await;
    cluster.stores[0].process().freeze();
    beside_no_store(primary, standby, "the store is silent").await;
    cluster.stores[0].process().thaw();
    cluster.healed(HEAL_LIMIT).await;
    cluster.stores[0].kill();
    beside_no_store(primary, standby, "the store is gone").await;
    cluster.stores[0].start_again();
    cluster.healed(HEAL_LIMIT).await;
    starts(standby).await;
    cluster.pause(true, SERVICE_LIMIT).await;
    is_stopped(standby).await;
    is_stopped(primary).await;
    cluster.pause(false, SERVICE_LIMIT).await;
    cluster.healed(HEAL_LIMIT).await;
}
