//! What happens to primaries everywhere: the server dies, somebody wants another one, the agent stops, freezes or dies,
//! the machine is gone. After each the cluster heals, no two nodes ever acknowledge at the same time, and what was
//! acknowledged is there.

use std::time::Duration;

use matriarch::store::{Operation, Transaction};
use matriarch_core::op::Outcome;
use matriarch_tests::{Allowance, Cluster, Ended, Ledger, Mark, Plan, Process, Store, eventually, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_postgres::Client;

const HEAL_LIMIT: Duration = Duration::from_secs(60);
const SERVICE_LIMIT: Duration = Duration::from_secs(30);
/// So long, in seconds, that there is time to look at what happens while a tenure lasts that nobody can renew.
const LONG_TTL: u32 = 10;
/// What is left of such a tenure, at least, when its key is deleted: two thirds of it and no less than this.
const PLEDGE_LIMIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn the_postmaster_is_killed() {
    let cluster = Cluster::start(Plan::default()).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let fault = Mark::now();
    cluster.nodes[primary].postmaster().expect("a primary runs").kill();
    ledger.goes_on(SERVICE_LIMIT).await;
    cluster.healed(HEAL_LIMIT).await;
    // Orphaned walsenders send what there is before they are killed, and whoever takes over has all of it or restarts.
    ledger.verdict(&cluster, fault).await.must_be_clean("postmaster killed", Allowance::Nothing);
}

#[tokio::test]
async fn a_switchover_is_asked_for() {
    let cluster = Cluster::start(Plan::default()).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let candidate = cluster.others(primary)[1];
    let (from, to) = (&cluster.nodes[primary], &cluster.nodes[candidate]);
    let fault = Mark::now();
    let answer = from.post("/switchover", &json!({"leader": from.name, "candidate": to.name})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    ledger.acknowledged_by(candidate, SERVICE_LIMIT).await;
    assert_eq!(cluster.healed(HEAL_LIMIT).await, candidate);
    let verdict = ledger.verdict(&cluster, fault).await;
    verdict.must_be_clean("switchover", Allowance::Nothing);
    assert_eq!(verdict.nodes(), [primary, candidate]);
}

#[tokio::test]
async fn the_agent_of_the_primary_is_asked_to_stop() {
    let mut cluster = Cluster::start(Plan::default()).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let fault = Mark::now();
    cluster.nodes[primary].agent().signal(Signal::TERM);
    assert_eq!(cluster.nodes[primary].agent_ended(SERVICE_LIMIT), Ended::Exit(0));
    ledger.goes_on(SERVICE_LIMIT).await;
    cluster.nothing_runs(primary, SERVICE_LIMIT).await;
    let next = cluster.healed_without(&[primary], HEAL_LIMIT).await;
    cluster.nodes[primary].start();
    assert_eq!(cluster.healed(HEAL_LIMIT).await, next, "the service moved again for no reason");
    ledger.verdict(&cluster, fault).await.must_be_clean("agent stopped", Allowance::Nothing);
}

#[tokio::test]
async fn the_agent_of_the_primary_freezes() {
    let cluster = Cluster::start(Plan::default()).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let fault = Mark::now();
    cluster.nodes[primary].agent().freeze();
    let next = ledger.moves_from(&cluster, primary, SERVICE_LIMIT).await;
    // Long enough for two primaries to show.
    tokio::time::sleep(cluster.ttl()).await;
    cluster.nodes[primary].agent().thaw();
    cluster.healed(HEAL_LIMIT).await;
    ledger.must_have_moved(&cluster, fault, "agent frozen", [primary, next]).await;
}

#[tokio::test]
async fn the_agent_of_the_primary_is_killed_and_stays_dead() {
    let mut cluster = Cluster::start(Plan::default()).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let fault = Mark::now();
    cluster.nodes[primary].agent().kill();
    let next = ledger.moves_from(&cluster, primary, SERVICE_LIMIT).await;
    cluster.healed_without(&[primary], HEAL_LIMIT).await;
    assert_eq!(cluster.nodes[primary].postmaster(), None, "nobody controls this server");
    cluster.nodes[primary].start();
    cluster.healed(HEAL_LIMIT).await;
    ledger.must_have_moved(&cluster, fault, "agent killed", [primary, next]).await;
}

#[tokio::test]
async fn the_whole_node_of_the_primary_is_killed() {
    let mut cluster = Cluster::start(Plan { as_root: true, ..Plan::default() }).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let fault = Mark::now();
    cluster.nodes[primary].kill_everything();
    let next = ledger.moves_from(&cluster, primary, SERVICE_LIMIT).await;
    cluster.healed_without(&[primary], HEAL_LIMIT).await;
    cluster.nodes[primary].start();
    cluster.healed(HEAL_LIMIT).await;
    ledger.must_have_moved(&cluster, fault, "node killed", [primary, next]).await;
}

/// A standby's answer to a vote is a pledge that it receives nothing more. While its replay is paused a reload alone
/// does not keep it; and what it has received must count although it has not been replayed.
#[tokio::test]
async fn a_standby_with_paused_replay_votes() {
    let mut cluster = Cluster::start(Plan::default()).await;
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    let paused = cluster.others(primary)[0];
    let client = cluster.nodes[paused].connect().await.expect("a standby lets clients in");
    client.batch_execute("select pg_wal_replay_pause()").await.expect("replay pauses");
    // Far behind in replay, level in what was received.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let fault = Mark::now();
    cluster.nodes[primary].kill_everything();
    let next = ledger.moves_from(&cluster, primary, SERVICE_LIMIT).await;
    if next != paused {
        // Whoever paused it is the one to resume it; it must follow then.
        client.batch_execute("select pg_wal_replay_resume()").await.ok();
    }
    cluster.nodes[primary].start();
    cluster.healed(HEAL_LIMIT).await;
    let verdict = ledger.verdict(&cluster, fault).await;
    verdict.must_be_clean("node killed, replay paused on a standby", Allowance::Unreplicated);
}

/// The case that pledges are for: the key is gone, and the old primary goes on streaming what it acknowledges. Its
/// agent does not reach the store and hears nothing of it; its peers are told that it is a primary, and none may be
/// promoted beside it. Whoever has told a position by then must not receive anything more, a paused standby neither.
#[tokio::test]
async fn a_standby_with_paused_replay_pledges_while_the_old_primary_streams() {
    let cluster = Cluster::start(Plan { ttl: LONG_TTL, ..Plan::default() }).await;
    if !cluster.can_cut() {
        return;
    }
    let ledger = Ledger::start(&cluster).await;
    let primary = cluster.healed(HEAL_LIMIT).await;
    // Not the one whose name sorts first: among equals that one would win, and this one is to vote.
    let paused = cluster.others(primary)[1];
    let client = cluster.nodes[paused].connect().await.expect("a standby lets clients in");
    client.batch_execute("select pg_wal_replay_pause()").await.expect("replay pauses");
    let fault = Mark::now();
    cluster.cut_off(primary, false);
    delete_leader_key(&cluster).await;
    eventually("the standby has pledged", PLEDGE_LIMIT, async || {
        let why: Value = serde_json::from_str(&cluster.nodes[paused].get("/why").await.body).unwrap_or_default();
        let pledged = why["pledge"]["frozen"] == true && why["pledge"]["on_disk"] == true;
        if pledged { Ok(()) } else { Err(format!("{:#}, {:#}", why["pledge"], why["decision"])) }
    })
    .await;
    let (pledged, end) = (Mark::now(), received(&client).await);
    wait_until("the old primary goes on writing", PLEDGE_LIMIT, async || {
        ledger.acknowledged_for(primary, pledged) > Duration::from_millis(500)
    })
    .await;
    assert_eq!(received(&client).await, end, "a standby receives what it has pledged not to");
    let next = cluster.primary_but(&[primary], SERVICE_LIMIT).await;
    if next != paused {
        // Whoever paused it is the one to resume it; it must follow then.
        client.batch_execute("select pg_wal_replay_resume()").await.ok();
    }
    ledger.acknowledged_by(next, SERVICE_LIMIT).await;
    cluster.mend(primary, false);
    cluster.healed(HEAL_LIMIT).await;
    ledger.must_have_moved(&cluster, fault, "key deleted unheard, replay paused on a standby", [primary, next]).await;
}

/// What a standby has received, after which nothing is received any more.
async fn received(standby: &Client) -> String {
    let query = "select pg_last_wal_receive_lsn()::text, (select count(*) from pg_stat_wal_receiver)";
    let row = standby.query_one(query, &[]).await.expect("a standby answers");
    assert_eq!(row.get::<_, i64>(1), 0, "it has a WAL receiver");
    row.get(0)
}

async fn delete_leader_key(cluster: &Cluster) {
    let delete = Operation::Delete("/service/test/leader".to_owned());
    let transaction = Transaction { operations: vec![delete], ..Transaction::default() };
    let deleted = Store::connect(&cluster.stores).transact(transaction, SERVICE_LIMIT).await;
    assert!(matches!(deleted.outcome, Outcome::Done(_)), "{deleted:?}");
}

/// The ledger is only worth something if nothing of a cluster is left when it ends.
#[tokio::test]
async fn nothing_is_left_of_a_cluster() {
    let cluster = Cluster::start(Plan { nodes: 1, ..Plan::default() }).await;
    let node = &cluster.nodes[0];
    let (postmaster, guard) = (node.postmaster().expect("a primary runs"), node.guard().expect("it is guarded"));
    let (agent, store, dir) = (node.agent(), cluster.stores[0].process(), node.dir().to_owned());
    let all = [agent, guard, postmaster, store];
    assert!(all.into_iter().all(Process::is_alive));
    drop(cluster);
    assert!(!all.into_iter().any(Process::is_alive));
    assert!(!dir.exists());
}
