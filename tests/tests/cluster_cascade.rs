//! Standbys that do not stream from the leader: one that streams from another standby (`replicatefrom`), and one that
//! takes its WAL from the archive alone (`nostream`). Patroni's agents are led through the same first part.

use std::time::Duration;

use matriarch_tests::single::give;
use matriarch_tests::{Agent, Cluster, Node, Plan, eventually, patroni};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
/// The leader, whom the third streams from, the third, and the one that reads the archive.
const NAMES: [&str; 4] = ["n1", "n2", "n3", "n4"];

async fn texts(node: &Node, sql: &str) -> Result<Vec<String>, String> {
    let client = node.connect().await.map_err(|error| format!("{}: {error}", node.name))?;
    let rows = client.query(sql, &[]).await.map_err(|error| format!("{}: {error}", node.name))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Who streams from a node, each through the slot of its name.
async fn streams_from(node: &Node) -> Result<Vec<String>, String> {
    let sql = "select application_name from pg_stat_replication r join pg_replication_slots s on s.active_pid = r.pid \
               where state = 'streaming' and slot_name = application_name order by 1";
    texts(node, sql).await
}

/// The slots of members that a node has, whoever reads through them.
async fn slots(node: &Node) -> Result<Vec<String>, String> {
    texts(node, "select slot_name::text from pg_replication_slots order by 1").await
}

/// Waits until they stream so, and nobody streams from anybody else.
async fn becomes(cluster: &Cluster, what: &str, streaming: [&[&str]; 4], away: &[usize]) {
    eventually(what, LIMIT, async || {
        for (index, node) in cluster.nodes.iter().enumerate().filter(|(index, _)| !away.contains(index)) {
            let found = streams_from(node).await?;
            if found != streaming[index] {
                return Err(format!("{found:?} stream from {}", node.name));
            }
        }
        Ok(())
    })
    .await;
}

/// Writes a row on one node, and waits until all others have it; those that stream without a file of WAL being full.
async fn a_row_arrives(cluster: &Cluster, from: usize, row: u32, away: &[usize]) {
    let client = cluster.nodes[from].connect().await.expect("a client of the primary");
    let insert = format!("create table if not exists t(n int); insert into t values ({row})");
    client.batch_execute(&insert).await.expect("a row");
    let arrived = async |index: usize| {
        let node = &cluster.nodes[index];
        eventually(&format!("{} has row {row}", node.name), LIMIT, async || {
            let found = texts(node, &format!("select n::text from t where n = {row}")).await?;
            if found.len() == 1 { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    };
    let others = cluster.others(from).into_iter().filter(|index| !away.contains(index));
    for index in others.clone().filter(|index| *index != 3) {
        arrived(index).await;
    }
    if others.clone().any(|index| index == 3) {
        client.batch_execute("select pg_switch_wal()").await.expect("a file for the archive");
        arrived(3).await;
    }
}

/// Four nodes, of which the first leads; the second, third and fourth are to get their WAL in three ways.
async fn started(agent: Agent) -> Cluster {
    let dcs = if agent == Agent::Patroni { json!({"ttl": 20, "retry_timeout": 3}) } else { json!({}) };
    let extra = json!({"bootstrap": {"dcs": dcs}});
    let mut cluster = Cluster::prepare(Plan { nodes: 4, agent, extra, ..Plan::default() }).await;
    let archive = cluster.nodes[0].dir().with_file_name("archive");
    std::fs::create_dir(&archive).expect("an archive");
    give(&archive);
    let archive = archive.display();
    let archived = format!("test -e {archive}/%f || (cp %p {archive}/%f.new && mv {archive}/%f.new {archive}/%f)");
    for node in &cluster.nodes {
        node.configure(&json!({"postgresql": {"parameters": {"archive_mode": "on", "archive_command": archived}}}));
    }
    cluster.nodes[2].configure(&json!({"tags": {"replicatefrom": "n2"}}));
    let restore = json!({"restore_command": format!("cp {archive}/%f %p")});
    cluster.nodes[3].configure(&json!({"tags": {"nostream": true}, "postgresql": {"recovery_conf": restore}}));
    cluster.nodes[0].start();
    assert_eq!(cluster.healed_without(&[1, 2, 3], LIMIT).await, 0);
    cluster.nodes[1..].iter_mut().for_each(Node::start);
    becomes(&cluster, "one of three streams from the leader, and one from that", [&["n2"], &["n3"], &[], &[]], &[])
        .await;
    a_row_arrives(&cluster, 0, 1, &[]).await;
    cluster
}

/// What holds of both kinds of agents while nothing happens.
async fn is_settled(cluster: &Cluster) {
    let [leader, cascading, leaf, archived] = &cluster.nodes[..] else { panic!("four nodes") };
    // Those who stream have a slot also where they might stream from next; who reads the archive has none anywhere.
    eventually("slots of members", LIMIT, async || {
        let found = [slots(leader).await?, slots(cascading).await?];
        let wanted: [&[&str]; 2] = [&["n2", "n3"], &["n1", "n3"]];
        if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    for node in [leader, cascading, leaf] {
        assert!(!slots(node).await.expect("its slots").contains(&"n4".to_owned()), "{}", node.name);
    }
    assert_eq!(texts(archived, "select 'it has one' from pg_stat_wal_receiver").await, Ok(vec![]));
    assert_eq!(texts(archived, "show primary_conninfo").await, Ok(vec![String::new()]));
    let tells = json!(["leader running", "replica streaming", "replica streaming", "replica in archive recovery"]);
    eventually("the members' records tell of it", LIMIT, async || {
        let told: Value = serde_json::from_str(&leader.get("/cluster").await.body).unwrap_or_default();
        let members = told["members"].as_array().cloned().unwrap_or_default();
        let of = |name: &&str| {
            let member = members.iter().find(|member| member["name"] == *name).unwrap_or(&Value::Null);
            [&member["role"], &member["state"]].map(|text| text.as_str().unwrap_or("?")).join(" ")
        };
        let told: Vec<String> = NAMES.iter().map(of).collect();
        if json!(told) == tells { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
}

#[tokio::test]
async fn patronis_standbys_take_their_wal_so() {
    if patroni().is_some() {
        is_settled(&started(Agent::Patroni).await).await;
    }
}

#[tokio::test]
async fn a_standby_streams_from_whom_its_tag_names_or_from_nobody() {
    let mut cluster = started(Agent::Matriarch).await;
    is_settled(&cluster).await;

    // Whom it streams from is lost: from the leader, until that one is back.
    let [_, _, leaf, archived] = &cluster.nodes[..] else { panic!("four nodes") };
    let servers = [leaf.postmaster(), archived.postmaster()];
    cluster.nodes[1].kill_everything();
    becomes(&cluster, "the third streams from the leader", [&["n3"], &[], &[], &[]], &[1]).await;
    a_row_arrives(&cluster, 0, 2, &[1]).await;
    cluster.nodes[1].start();
    becomes(&cluster, "the third streams from the second again", [&["n2"], &["n3"], &[], &[]], &[]).await;
    a_row_arrives(&cluster, 0, 3, &[]).await;

    // Whom it streams from leads.
    switchover(&cluster, 0, 1).await;
    becomes(&cluster, "everybody streams from the second", [&[], &["n1", "n3"], &[], &[]], &[]).await;
    a_row_arrives(&cluster, 1, 4, &[]).await;
    let [_, _, leaf, archived] = &cluster.nodes[..] else { panic!("four nodes") };
    assert_eq!([leaf.postmaster(), archived.postmaster()], servers, "neither was restarted for any of it");

    // It leads itself, and streams from nobody, whatever its tag says.
    switchover(&cluster, 1, 2).await;
    becomes(&cluster, "everybody streams from the third", [&[], &[], &["n1", "n2"], &[]], &[]).await;
    a_row_arrives(&cluster, 2, 5, &[]).await;
}

async fn switchover(cluster: &Cluster, from: usize, to: usize) {
    let order = json!({"leader": NAMES[from], "candidate": NAMES[to]});
    let answer = cluster.nodes[from].post("/switchover", &order).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}
