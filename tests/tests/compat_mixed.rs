//! Agents of Patroni and of ours in one cluster, on one etcd: replaced one by one under a writing client, there and back,
//! and side by side through what a cluster lives through. What differs is in docs/compatibility.md.

use std::time::Duration;

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
    assert!(verdict.outage < SWITCHOVER_LIMIT, "longer than a switchover may take: {verdict}");
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
