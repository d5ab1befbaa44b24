//! Agents of Patroni and of ours in one cluster, on one etcd: replaced one by one under a writing client, there and back,
//! and side by side through what a cluster lives through. What differs is in docs/compatibility.md.

use std::time::{Duration, Instant};

use matriarch_tests::{Agent, Allowance, Clients, Cluster, Ended, Ledger, Mark, Node, Plan, Said, Verdict, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};

use Agent::{Matriarch, Patroni};

/// Nothing here is done within a given time but this: for a busy machine, and Patroni's turns of a second.
const LIMIT: Duration = Duration::from_secs(120);
/// A stop of PostgreSQL, two turns of Patroni's loop, a promotion; and half of what a lost primary's key would live.
const SWITCHOVER_LIMIT: Duration = Duration::from_secs(10);

/// The shortest times that Patroni takes.
fn plan(agent: Agent) -> Plan {
    let extra = json!({"bootstrap": {"dcs": {"retry_timeout": 3}}});
    Plan { agent, ttl: 20, extra, ..Plan::default() }
}

#[tokio::test]
async fn nodes_are_replaced_one_by_one_and_back() {
    let mut cluster = Cluster::prepare(plan(Patroni)).await;
    let Some(clients) = Clients::of(&cluster) else { return };
    cluster.nodes.iter_mut().for_each(Node::start);
    let ledger = Ledger::start(&cluster).await;
    let began = Mark::now();
    let mut primaries = vec![settled(&cluster, &clients).await];
    primaries.push(replace_all(&mut cluster, &clients, Matriarch).await);
    primaries.push(replace_all(&mut cluster, &clients, Patroni).await);
    ledger.goes_on(LIMIT).await;
    let verdict = ledger.verdict(&cluster, began).await;
    verdict.must_be_clean("three nodes replaced, and back", Allowance::Nothing);
    assert_eq!(verdict.nodes(), primaries, "the primary changed where nobody asked for it");
    print_outages(&verdict);
    every_timeline_is_told(&cluster, primaries[2]).await;
    assert!(verdict.outage < SWITCHOVER_LIMIT, "longer than a switchover may take: {verdict}");
}

#[tokio::test]
async fn one_of_ours_among_patronis() {
    lives_mixed([Patroni, Patroni, Matriarch]).await;
}

#[tokio::test]
async fn one_of_patronis_among_ours() {
    let Some((mut cluster, clients, primary)) = lives_mixed([Matriarch, Matriarch, Patroni]).await else { return };
    // One of each kind is left, and both race.
    loses(&mut cluster, &clients, primary).await;
}

/// Patroni dies and leaves its PostgreSQL behind, and the node's next agent is ours: a standby first, then the primary, while
/// its key still lives. Nobody restarts, and nobody else leads.
#[tokio::test]
async fn what_a_killed_patroni_left_running_is_taken_up_as_it_runs() {
    let mut cluster = Cluster::prepare(plan(Patroni)).await;
    let Some(clients) = Clients::of(&cluster) else { return };
    cluster.nodes.iter_mut().for_each(Node::start);
    let primary = settled(&cluster, &clients).await;
    let ledger = Ledger::start(&cluster).await;
    let began = Mark::now();
    ledger.goes_on(LIMIT).await;
    let before: Vec<_> = cluster.nodes.iter().map(Node::postmaster).collect();
    let standbys = cluster.others(primary);
    for index in [standbys[0], primary, standbys[1]] {
        cluster.nodes[index].agent().kill();
        cluster.nodes[index].agent_ended(LIMIT);
        assert_eq!(cluster.nodes[index].postmaster(), before[index], "PostgreSQL outlives Patroni");
        cluster.nodes[index].whose = Matriarch;
        cluster.nodes[index].start();
        assert_eq!(settled(&cluster, &clients).await, primary);
    }
    ledger.goes_on(LIMIT).await;
    let after: Vec<_> = cluster.nodes.iter().map(Node::postmaster).collect();
    assert_eq!(after, before, "the same postmasters");
    let verdict = ledger.verdict(&cluster, began).await;
    verdict.must_be_clean("what a killed Patroni left was taken up", Allowance::Nothing);
    assert_eq!(verdict.nodes(), [primary]);
    eprintln!("taken up: {verdict}");
}

/// Here it was left for longer than its key lives: another leads, and what was left goes on acknowledging. Our agent ends it
/// before anything else, and has it follow.
#[tokio::test]
async fn a_primary_that_a_killed_patroni_left_behind_is_ended_where_another_leads() {
    let mut cluster = Cluster::prepare(plan(Patroni)).await;
    let Some(clients) = Clients::of(&cluster) else { return };
    cluster.nodes.iter_mut().for_each(Node::start);
    let left = settled(&cluster, &clients).await;
    let server = cluster.nodes[left].postmaster();
    cluster.nodes[left].agent().kill();
    cluster.nodes[left].agent_ended(LIMIT);
    let next = cluster.primary_but(&[left], LIMIT).await;
    let client = cluster.nodes[left].connect().await.expect("it still serves");
    client.batch_execute("create table beside as select 1").await.expect("and writes beside another primary");
    cluster.nodes[left].whose = Matriarch;
    let started = Instant::now();
    cluster.nodes[left].start();
    eventually("what was left is ended", LIMIT, async || {
        let written = client.batch_execute("insert into beside values (2)").await;
        written.map_or(Ok(()), |()| Err("it still writes".into()))
    })
    .await;
    eprintln!("ended {} ms after the agent was started", started.elapsed().as_millis());
    assert_eq!(settled(&cluster, &clients).await, next);
    assert_ne!(cluster.nodes[left].postmaster(), server);
    let client = cluster.nodes[left].connect().await.expect("a client of the standby");
    let there = client.query_one("select to_regclass('beside') is null", &[]).await.expect("an answer");
    assert!(there.get::<_, bool>(0), "what was written beside the leader is rewound");
}

/// The first node makes the cluster, the last is of the other kind and copies it. The primary of each kind hands over
/// to the other, and the last node is lost while it leads. The cluster then, and its primary.
async fn lives_mixed(kinds: [Agent; 3]) -> Option<(Cluster, Clients, usize)> {
    let mut cluster = Cluster::prepare(plan(Patroni)).await;
    let clients = Clients::of(&cluster)?;
    cluster.nodes.iter_mut().zip(kinds).for_each(|(node, whose)| node.whose = whose);
    cluster.nodes[0].start();
    assert_eq!(cluster.healed_without(&[1, 2], LIMIT).await, 0);
    cluster.nodes[2].start();
    assert_eq!(cluster.healed_without(&[1], LIMIT).await, 0);
    cluster.nodes[1].start();
    let ledger = Ledger::start(&cluster).await;
    let began = Mark::now();
    assert_eq!(settled(&cluster, &clients).await, 0);

    // Each tool with a primary of each kind, and a candidate of the other.
    switchover(&cluster, &clients, [0, 2], Patroni).await;
    switchover(&cluster, &clients, [2, 0], Patroni).await;
    switchover(&cluster, &clients, [0, 2], Matriarch).await;
    configurations(&cluster, &clients).await;
    pauses(&cluster, &clients).await;
    members_are_told(&cluster, &clients).await;
    switchover(&cluster, &clients, [2, 0], Matriarch).await;
    scheduled_switchover(&cluster, &clients).await;
    let verdict = ledger.verdict(&cluster, began).await;
    verdict.must_be_clean(&format!("switchovers among {kinds:?}"), Allowance::Nothing);
    let mut served = verdict.nodes();
    // The third reign was asked to restart.
    served.dedup();
    assert_eq!(served, [0, 2, 0, 2, 0, 2], "the primary changed where nobody asked for it");
    print_outages(&verdict);

    let primary = loses(&mut cluster, &clients, 2).await;
    Some((cluster, clients, primary))
}

/// Every process of the primary is killed, and it is started again when another leads: who that is.
async fn loses(cluster: &mut Cluster, clients: &Clients, primary: usize) -> usize {
    let client = cluster.nodes[primary].connect().await.expect("a client of the primary");
    client.batch_execute("drop table ledger").await.expect("the ledger that was judged is put away");
    let ledger = Ledger::start(cluster).await;
    let fault = Mark::now();
    cluster.nodes[primary].kill_everything();
    let next = ledger.moves_from(cluster, primary, LIMIT).await;
    cluster.nodes[primary].start();
    assert_eq!(settled(cluster, clients).await, next);
    let [lost, leads] = [primary, next].map(|index| cluster.nodes[index].whose);
    let what = format!("a primary of {lost:?} lost, and one of {leads:?} leads");
    ledger.must_have_moved(cluster, fault, &what, [primary, next]).await;
    every_timeline_is_told(cluster, next).await;
    next
}

/// What the leaders have written of former timelines is what the primary's own file tells, whoever wrote which line, and
/// every node reads the same.
async fn every_timeline_is_told(cluster: &Cluster, primary: usize) {
    let client = cluster.nodes[primary].connect().await.expect("a client of the primary");
    let file = "select pg_read_file('pg_wal/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) || '.history')";
    let file: String = client.query_one(file, &[]).await.expect("the file of its timeline").get(0);
    let passed: Vec<&str> = file.lines().filter_map(|line| line.split('\t').next().filter(|n| !n.is_empty())).collect();
    for node in &cluster.nodes {
        eventually(&format!("{} knows of the timelines {passed:?}", node.name), LIMIT, async || {
            let told = node.get("/history").await.body;
            let history: Vec<Value> = serde_json::from_str(&told).unwrap_or_default();
            let lines: Vec<String> = history.iter().map(|line| line[0].to_string()).collect();
            if lines == passed { Ok(()) } else { Err(told) }
        })
        .await;
    }
}

/// Changes of the configuration through a node of either kind are taken by every server; what needs a restart waits for
/// one, which each tool can have made, and which spares who needs none.
async fn configurations(cluster: &Cluster, clients: &Clients) {
    change(cluster, 0, "log_min_duration_statement", "5s").await;
    everywhere(cluster, "log_min_duration_statement", "5s").await;
    change(cluster, 2, "log_min_duration_statement", "7s").await;
    everywhere(cluster, "log_min_duration_statement", "7s").await;
    change(cluster, 0, "max_connections", "60").await;
    for node in &cluster.nodes {
        eventually(&format!("{} needs a restart", node.name), LIMIT, async || {
            let told = node.get("/patroni").await.body;
            if told.contains("pending_restart") { Ok(()) } else { Err(told) }
        })
        .await;
    }
    // Standbys before the primary, which may then do what they can follow.
    for (tool, name) in [(Patroni, "n1"), (Matriarch, "n2"), (Patroni, "n3")] {
        let said = by(clients, tool, &["restart", "test", name, "--pending", "--force"]);
        assert!(said.output.contains(&format!("Success: restart on member {name}")), "{tool:?}: {said:?}");
        assert_eq!(settled(cluster, clients).await, 2);
    }
    everywhere(cluster, "max_connections", "60").await;
    let node = &cluster.nodes[2];
    eventually("nobody needs a restart", LIMIT, async || {
        let told = node.get("/cluster").await.body;
        if told.contains("pending_restart") { Err(told) } else { Ok(()) }
    })
    .await;
}

async fn change(cluster: &Cluster, through: usize, parameter: &str, value: &str) {
    let change = json!({"postgresql": {"parameters": {parameter: value}}});
    let answer = cluster.nodes[through].patch_config(&change).await;
    assert_eq!(answer.status, 200, "{change}: {answer:?}");
}

async fn everywhere(cluster: &Cluster, parameter: &str, value: &str) {
    for node in &cluster.nodes {
        eventually(&format!("{} has {parameter} = {value}", node.name), LIMIT, async || {
            let client = node.connect().await.map_err(|error| error.to_string())?;
            let row = client.query_one(&format!("show {parameter}"), &[]).await;
            let there: String = row.map_err(|error| error.to_string())?.get(0);
            if there == value { Ok(()) } else { Err(there) }
        })
        .await;
    }
}

/// A pause that one tool begins and the other ends is heard by everybody.
async fn pauses(cluster: &Cluster, clients: &Clients) {
    let first = cluster.nodes[2].whose;
    let then = if first == Patroni { Matriarch } else { Patroni };
    for (tool, word) in [(first, "pause"), (then, "resume")] {
        let said = by(clients, tool, &[word, "test", "--wait"]);
        assert_eq!(said.status, 0, "{said:?}");
        for node in &cluster.nodes {
            let status: Value = serde_json::from_str(&node.get("/patroni").await.body).expect("a status");
            assert_eq!(status["pause"] == true, word == "pause", "{tool:?} waited for {}: {status}", node.name);
        }
    }
}

/// Each tool has a member of either kind cloned again, from the third node.
async fn members_are_told(cluster: &Cluster, clients: &Clients) {
    for (tool, index) in [(Patroni, 0), (Matriarch, 1)] {
        let name = &cluster.nodes[index].name;
        let before = cluster.nodes[index].postmaster();
        let said = by(clients, tool, &["reinit", "test", name, "--force", "--wait"]);
        assert!(said.output.contains(&format!("Success: reinitialize for member {name}")), "{tool:?}: {said:?}");
        assert_eq!(settled(cluster, clients).await, 2);
        assert_ne!(cluster.nodes[index].postmaster(), before);
    }
}

/// The third node is to take over at a time that is told to a member of the other kind.
async fn scheduled_switchover(cluster: &Cluster, clients: &Clients) {
    let client = cluster.nodes[0].connect().await.expect("a client of the primary");
    let soon = r#"to_char(now() at time zone 'UTC' + '8 s', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"')"#;
    let soon: String = client.query_one(&format!("select {soon}"), &[]).await.expect("a time").get(0);
    let order = json!({"leader": "n1", "candidate": "n3", "scheduled_at": soon});
    let answer = cluster.nodes[2].post("/switchover", &order).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(cluster.primary_but(&[0], LIMIT).await, 2);
    assert_eq!(settled(cluster, clients).await, 2);
}

/// As docs/operations.md says: the standbys, a switchover to one of them, the old primary. The primary at the end.
async fn replace_all(cluster: &mut Cluster, clients: &Clients, whose: Agent) -> usize {
    let primary = settled(cluster, clients).await;
    let standbys = cluster.others(primary);
    for &standby in &standbys {
        replace(cluster, standby, whose).await;
        assert_eq!(settled(cluster, clients).await, primary);
    }
    // By the tool of those who are on their way out.
    switchover(cluster, clients, [primary, standbys[0]], cluster.nodes[primary].whose).await;
    replace(cluster, primary, whose).await;
    assert_eq!(settled(cluster, clients).await, standbys[0]);
    standbys[0]
}

/// Stops a node's agent, and its PostgreSQL with it, and starts the other's on the same directory and file.
async fn replace(cluster: &mut Cluster, index: usize, whose: Agent) {
    cluster.nodes[index].agent().signal(Signal::TERM);
    assert_eq!(cluster.nodes[index].agent_ended(LIMIT), Ended::Exit(0));
    cluster.nothing_runs(index, LIMIT).await;
    cluster.nodes[index].whose = whose;
    cluster.nodes[index].start();
}

/// Has a cluster switched over by the one tool or the other, and waits until everybody follows.
async fn switchover(cluster: &Cluster, clients: &Clients, from_to: [usize; 2], tool: Agent) {
    let [from, to] = from_to.map(|index| cluster.nodes[index].name.as_str());
    let said = by(clients, tool, &["switchover", "test", "--leader", from, "--candidate", to, "--force"]);
    assert!(said.output.contains(&format!("Successfully switched over to \"{to}\"")), "{tool:?}: {said:?}");
    assert_eq!(settled(cluster, clients).await, from_to[1], "{tool:?}: {said:?}");
}

fn by(clients: &Clients, tool: Agent, words: &[&str]) -> Said {
    match tool {
        Patroni => clients.theirs(words, ""),
        Matriarch => clients.ours(words, ""),
    }
}

/// Waits until the cluster is whole and both tools show it as that. The primary.
async fn settled(cluster: &Cluster, clients: &Clients) -> usize {
    let primary = cluster.healed(LIMIT).await;
    eventually("both tools show a whole cluster", LIMIT, async || {
        let [theirs, ours] = [Patroni, Matriarch].map(|tool| members(&by(clients, tool, &["list", "-f", "json"])));
        let whole = cluster.nodes.iter().enumerate().map(|(index, node)| {
            let (role, state) = if index == primary { ("Leader", "running") } else { ("Replica", "streaming") };
            json!([node.name, role, state])
        });
        let whole: Vec<Value> = whole.collect();
        if theirs == whole && ours == whole { Ok(()) } else { Err(format!("{theirs:?}, {ours:?}")) }
    })
    .await;
    primary
}

/// Names, roles and states of a list.
fn members(list: &Said) -> Vec<Value> {
    let members: Vec<Value> = serde_json::from_str(&list.output).unwrap_or_default();
    members.iter().map(|member| json!([member["Member"], member["Role"], member["State"]])).collect()
}

/// How long nobody acknowledged between two reigns.
fn print_outages(verdict: &Verdict) {
    for pair in verdict.reigns.windows(2) {
        let [(old, _, last, _), (new, first, ..)] = pair else { continue };
        eprintln!("from n{} to n{}: {} ms", old.node + 1, new.node + 1, first.since(*last).as_millis());
    }
}
