//! The agent comes and goes under a running primary; clients do not notice.

use std::time::Duration;

use matriarch::clock;
use matriarch::schedule;
use matriarch_core::time::WallMillis;
use matriarch_tests::{Allowance, Cluster, Ended, Ledger, Mark, Plan, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::UnixDatagram;
use tokio::time::sleep;

const HEAL_LIMIT: Duration = Duration::from_secs(60);
const SERVICE_LIMIT: Duration = Duration::from_secs(30);
/// Far above a writer's interval and any hiccup of two busy cores, far below the shortest restart of PostgreSQL with
/// its checkpoint, a stop by the guard or a failover.
const NO_HOLE: Duration = Duration::from_millis(400);

/// Waits until the agent answers, and long enough for it to make a mistake; then nothing may have happened.
async fn nothing_happened(cluster: &Cluster, ledger: Ledger, fault: Mark, primary: usize, what: &str) {
    let node = &cluster.nodes[primary];
    eventually("the agent is the primary's again", SERVICE_LIMIT, async || {
        let answer = node.get("/primary").await;
        if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    sleep(2 * cluster.ttl()).await;
    assert_eq!(cluster.healed(HEAL_LIMIT).await, primary);
    let verdict = ledger.verdict(cluster, fault).await;
    verdict.must_be_clean(what, Allowance::Nothing);
    assert_eq!(verdict.reigns.len(), 1, "{what}: the service was interrupted: {verdict}");
    assert!(verdict.outage < NO_HOLE, "{what}: the service was interrupted: {verdict}");
}

#[tokio::test]
async fn an_agent_that_is_killed_and_started_again_adopts_its_primary() {
    let mut cluster = Cluster::start(Plan::default()).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let postmaster = cluster.nodes[primary].postmaster();
    let fault = Mark::now();
    cluster.nodes[primary].agent().kill();
    assert_eq!(cluster.nodes[primary].agent_ended(SERVICE_LIMIT), Ended::Signal(Signal::KILL.as_raw()));
    cluster.nodes[primary].start();
    nothing_happened(&cluster, ledger, fault, primary, "agent killed and started again").await;
    assert_eq!(cluster.nodes[primary].postmaster(), postmaster);
}

#[tokio::test]
async fn an_agent_that_executes_itself_again_adopts_its_primary() {
    let cluster = Cluster::start(Plan::default()).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let node = &cluster.nodes[primary];
    let (agent, postmaster, guard) = (node.agent(), node.postmaster(), node.guard());
    let starts = || node.log().matches("the agent has started beside a running primary").count();
    let before = starts();
    let fault = Mark::now();
    agent.signal(Signal::USR2);
    eventually("the agent has executed itself again", SERVICE_LIMIT, async || {
        if starts() > before { Ok(()) } else { Err("no second start in its log".to_owned()) }
    })
    .await;
    nothing_happened(&cluster, ledger, fault, primary, "agent executed again").await;
    assert_eq!(node.postmaster(), postmaster);
    assert_eq!(node.guard(), guard);
    assert!(agent.is_alive(), "the agent's process is another one");
}

/// The same for an agent that was started as root and has become another account since.
#[tokio::test]
async fn an_agent_started_as_root_is_killed_and_started_again() {
    let mut cluster = Cluster::start(Plan { as_root: true, ..Plan::default() }).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let postmaster = cluster.nodes[primary].postmaster();
    let fault = Mark::now();
    cluster.nodes[primary].agent().kill();
    cluster.nodes[primary].agent_ended(SERVICE_LIMIT);
    cluster.nodes[primary].start();
    nothing_happened(&cluster, ledger, fault, primary, "agent of root killed and started again").await;
    assert_eq!(cluster.nodes[primary].postmaster(), postmaster);
}

/// With `Type=notify-reload` systemd waits for these words, and `systemctl status` shows the last of them.
#[tokio::test]
async fn the_service_manager_hears_how_the_agent_is() {
    let mut cluster = Cluster::start(Plan::default()).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let leader = cluster.nodes[primary].name.clone();
    let node = &mut cluster.nodes[(primary + 1) % 3];
    node.agent().kill();
    node.agent_ended(SERVICE_LIMIT);
    let manager = UnixDatagram::bind(node.notify_socket()).unwrap();
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(node.notify_socket(), everybody).unwrap();
    let hears = async |word: &str| {
        let heard = tokio::time::timeout(SERVICE_LIMIT, async {
            loop {
                let mut buffer = [0; 1024];
                let length = manager.recv(&mut buffer).await.unwrap();
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if text.starts_with(word) {
                    return text;
                }
            }
        });
        heard.await.unwrap_or_else(|_| panic!("the agent does not say {word}"))
    };
    node.start();
    hears("READY=1").await;
    let follows = format!("STATUS=follow: this node follows {leader}");
    assert_eq!(hears(&follows).await, follows);
    node.agent().signal(Signal::HUP);
    hears("RELOADING=1\nMONOTONIC_USEC=").await;
    hears("READY=1").await;
    node.agent().signal(Signal::TERM);
    hears("STOPPING=1").await;
    assert_eq!(node.agent_ended(SERVICE_LIMIT), Ended::Exit(0));
}

/// Another directory, another port, another name: a running agent stays with what runs.
#[tokio::test]
async fn a_reload_does_not_make_a_node_another_one() {
    let cluster = Cluster::start(Plan::default()).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let node = &cluster.nodes[primary];
    let (postmaster, text) = (node.postmaster(), std::fs::read_to_string(node.config()).unwrap());
    let changed =
        text.replace(&format!("name: {}\n", node.name), "name: somebody\n").replace("/data\n", "/elsewhere\n");
    assert!(changed.contains("name: somebody") && changed.contains("elsewhere"), "{text}");
    let fault = Mark::now();
    std::fs::write(node.config(), changed).unwrap();
    let answer = node.post("/reload", &json!({})).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    eventually("the agent says what it did not take in", SERVICE_LIMIT, async || {
        let log = node.log();
        let told = |key: &str| log.contains(&format!("{key} was changed and stays as it was"));
        if told("postgresql.data_dir") && told("name") { Ok(()) } else { Err("no word of it in its log".to_owned()) }
    })
    .await;
    nothing_happened(&cluster, ledger, fault, primary, "reload with another name and directory").await;
    assert_eq!(cluster.nodes[primary].postmaster(), postmaster);
}

/// The postmaster is another one at the time that was asked for, and the same node leads on the same timeline.
#[tokio::test]
async fn a_scheduled_restart_comes_in_its_time() {
    let cluster = Cluster::start(Plan::default()).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let node = &cluster.nodes[primary];
    let shown = async |key: &str| {
        let document: Value = serde_json::from_str(&node.get("/patroni").await.body).unwrap_or_default();
        document[key].clone()
    };
    let (started, fault) = (shown("postmaster_start_time").await, Mark::now());
    let at = WallMillis(clock::wall().0 + 4_000);
    let wanted = json!({"schedule": schedule::millis_text(at), "role": "primary"});
    let answer = node.post("/restart", &wanted).await;
    assert_eq!((answer.status, answer.body.as_str()), (202, "Restart scheduled"));
    assert_eq!(node.post("/restart", &wanted).await.status, 409);
    assert_eq!(shown("scheduled_restart").await["role"], "primary");
    assert_eq!(shown("postmaster_start_time").await, started);
    eventually("PostgreSQL was started again", SERVICE_LIMIT, async || match shown("postmaster_start_time").await {
        now if now.is_string() && now != started => Ok(()),
        now => Err(format!("started {now}")),
    })
    .await;
    assert!(clock::wall() >= at);
    assert_eq!(shown("scheduled_restart").await, Value::Null);
    assert_eq!(cluster.healed(HEAL_LIMIT).await, primary);
    let verdict = ledger.verdict(&cluster, fault).await;
    verdict.must_be_clean("scheduled restart", Allowance::Nothing);
    assert_eq!(verdict.reigns.len(), 2, "of one postmaster, and of the next: {verdict}");
    let place = |nth: usize| (verdict.reigns[nth].0.node, verdict.reigns[nth].0.timeline.clone());
    assert_eq!(place(0), place(1), "{verdict}");
}

/// Nothing is made, and nothing asked of the store, for a server that could not listen in the end.
#[tokio::test]
async fn an_agent_whose_postgresql_could_not_listen_says_so_before_anything_is_made() {
    let mut cluster = Cluster::prepare(Plan { nodes: 1, ..Plan::default() }).await;
    let node = &mut cluster.nodes[0];
    let mut yaml: serde_yaml::Value = serde_yaml::from_str(&std::fs::read_to_string(node.config()).unwrap()).unwrap();
    // The agent's own REST API is there by then.
    yaml["postgresql"]["listen"] = yaml["restapi"]["listen"].clone();
    std::fs::write(node.config(), serde_yaml::to_string(&yaml).unwrap()).unwrap();
    node.start();
    assert_eq!(node.agent_ended(SERVICE_LIMIT), Ended::Exit(1));
    let log = node.log();
    assert_eq!(log.matches("is in use by another process").count(), 1, "{log}");
    assert_eq!(std::fs::read_dir(node.data_dir()).unwrap().count(), 0);
    assert!(node.guard().is_none());
}
