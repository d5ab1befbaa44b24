//! Clients that know no node: HAProxy and PgBouncer, as `docs/examples` configures them, lead them to the primary
//! wherever it goes, and readers to standbys.

use std::time::Duration;

use matriarch_tests::{Allowance, Cluster, Front, Ledger, Mark, Plan, eventually};
use serde_json::json;
use tokio_postgres::{Client, Config};

const HEAL_LIMIT: Duration = Duration::from_secs(90);
const SERVICE_LIMIT: Duration = Duration::from_secs(30);
/// More than there are standbys, so that each gets some.
const READERS: usize = 12;

/// Waits until HAProxy has the states that the cluster has.
async fn agrees(front: &Front, cluster: &Cluster) -> usize {
    let primary = cluster.healed(HEAL_LIMIT).await;
    front.sees(primary, &cluster.others(primary), SERVICE_LIMIT).await;
    primary
}

async fn is_standby(client: &Client) -> bool {
    client.query_one("select pg_is_in_recovery()", &[]).await.expect("a reader reads").get(0)
}

/// Clients that read by this way reach standbys and nothing else.
async fn reach_standbys(way: &Config) {
    for _ in 0..READERS {
        let client = Front::connect(way).await.expect("there is a standby to read from");
        assert!(is_standby(&client).await, "a reader has reached the primary");
    }
}

/// Every node but these two.
fn others_but(cluster: &Cluster, one: usize, other: usize) -> Vec<usize> {
    cluster.others(one).into_iter().filter(|index| *index != other).collect()
}

async fn switch(cluster: &Cluster, from: usize, to: usize) {
    let (from, to) = (&cluster.nodes[from], &cluster.nodes[to]);
    let answer = from.post("/switchover", &json!({"leader": from.name, "candidate": to.name})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// One writer by `way` through a switchover and through the loss of a whole node.
async fn writes_on(cluster: &mut Cluster, front: &Front, way: Config, name: &str) {
    let first = agrees(front, cluster).await;
    let second = cluster.others(first)[0];
    let ledger = Ledger::start_through(cluster, way.clone()).await;
    let mark = Mark::now();
    switch(cluster, first, second).await;
    ledger.acknowledged_by(second, SERVICE_LIMIT).await;
    assert_eq!(agrees(front, cluster).await, second);
    let verdict = ledger.verdict(cluster, mark).await;
    verdict.must_be_clean(&format!("switchover, a client through {name}"), Allowance::Nothing);
    assert_eq!(verdict.nodes(), [first, second]);

    let ledger = Ledger::start_through(cluster, way).await;
    let mark = Mark::now();
    cluster.nodes[second].kill_everything();
    let third = ledger.moves_from(cluster, second, HEAL_LIMIT).await;
    front.sees(third, &others_but(cluster, third, second), SERVICE_LIMIT).await;
    reach_standbys(&front.replicas()).await;
    cluster.nodes[second].start();
    assert_eq!(agrees(front, cluster).await, third);
    let verdict = ledger.verdict(cluster, mark).await;
    verdict.must_be_clean(&format!("node killed, a client through {name}"), Allowance::Unreplicated);
    assert_eq!(verdict.nodes(), [second, third]);
}

#[tokio::test]
async fn a_client_through_haproxy_writes_on_and_readers_reach_standbys() {
    let mut cluster = Cluster::start(Plan::default()).await;
    let Some(front) = Front::start(&cluster).await else { return };
    agrees(&front, &cluster).await;
    reach_standbys(&front.replicas()).await;
    let way = front.primary();
    writes_on(&mut cluster, &front, way, "HAProxy").await;
    reach_standbys(&front.replicas()).await;
}

/// The REST API hears nobody without a certificate.
#[tokio::test]
async fn haproxy_knows_the_roles_where_its_checks_go_over_tls() {
    let cluster = Cluster::start(Plan { tls: true, ..Plan::default() }).await;
    let Some(front) = Front::start(&cluster).await else { return };
    let first = agrees(&front, &cluster).await;
    reach_standbys(&front.replicas()).await;
    let second = cluster.others(first)[0];
    switch(&cluster, first, second).await;
    assert_eq!(agrees(&front, &cluster).await, second);
    assert!(!is_standby(&Front::connect(&front.primary()).await.unwrap()).await);
}

#[tokio::test]
async fn a_client_through_pgbouncer_and_haproxy_writes_on() {
    let mut cluster = Cluster::start(Plan::default()).await;
    let Some(front) = Front::start(&cluster).await else { return };
    let primary = agrees(&front, &cluster).await;
    cluster.nodes[primary].connect().await.unwrap().batch_execute("create database app").await.unwrap();
    let reads = front.pooled("app_read");
    eventually("the database is at the standbys", SERVICE_LIMIT, async || {
        Front::connect(&reads).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    reach_standbys(&reads).await;
    writes_on(&mut cluster, &front, front.pooled("postgres"), "PgBouncer and HAProxy").await;
    reach_standbys(&reads).await;
}

/// HAProxy still reaches a primary that is cut off from store and peers, and one whose agent is frozen.
#[tokio::test]
async fn clients_are_led_away_from_a_primary_that_lost_its_tenure() {
    let cluster = Cluster::start(Plan::default()).await;
    let Some(front) = Front::start(&cluster).await else { return };
    let first = agrees(&front, &cluster).await;
    let ledger = Ledger::start_through(&cluster, front.primary()).await;
    let mark = Mark::now();
    let agent = cluster.nodes[first].agent();
    agent.freeze();
    let second = ledger.moves_from(&cluster, first, HEAL_LIMIT).await;
    front.sees(second, &others_but(&cluster, second, first), SERVICE_LIMIT).await;
    agent.thaw();
    assert_eq!(agrees(&front, &cluster).await, second);
    let verdict = ledger.verdict(&cluster, mark).await;
    verdict.must_be_clean("agent frozen, a client through HAProxy", Allowance::Unreplicated);
    assert_eq!(verdict.nodes(), [first, second]);

    if !cluster.can_cut() {
        return;
    }
    let ledger = Ledger::start_through(&cluster, front.primary()).await;
    let mark = Mark::now();
    cluster.cut_off(second, true);
    let third = ledger.moves_from(&cluster, second, HEAL_LIMIT).await;
    front.sees(third, &others_but(&cluster, third, second), SERVICE_LIMIT).await;
    cluster.mend(second, true);
    assert_eq!(agrees(&front, &cluster).await, third);
    let verdict = ledger.verdict(&cluster, mark).await;
    verdict.must_be_clean("primary cut off, a client through HAProxy", Allowance::Unreplicated);
    assert_eq!(verdict.nodes(), [second, third]);
}

/// Whoever reads from a standby that is promoted is sent away, and so is whoever is left with a primary that was.
#[tokio::test]
async fn no_session_stays_where_the_role_has_changed() {
    let cluster = Cluster::start(Plan::default()).await;
    let Some(front) = Front::start(&cluster).await else { return };
    let first = agrees(&front, &cluster).await;
    let second = cluster.others(first)[0];
    let reader = loop {
        let client = Front::connect(&front.replicas()).await.unwrap();
        let row = client.query_one("select host(inet_server_addr()), inet_server_port()", &[]).await.unwrap();
        let (address, port) = cluster.nodes[second].server_address();
        if row.get::<_, &str>(0) == address && row.get::<_, i32>(1) == i32::from(port) {
            break client;
        }
    };
    assert!(is_standby(&reader).await);
    switch(&cluster, first, second).await;
    eventually("the reader is sent away", SERVICE_LIMIT, async || {
        if reader.is_closed() { Ok(()) } else { Err("it is still there".to_owned()) }
    })
    .await;
    assert_eq!(agrees(&front, &cluster).await, second);
    reach_standbys(&front.replicas()).await;
}
