//! The adapter against the embedded store's services on a simulated network: what a cut costs, and what it does not.
//!
//! turmoil's TCP loses what is sent into a cut and never repeats it, so a connection that lived through one is dead
//! until its probe notices. That is the worst a real network does as well.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use matriarch::store::embedded::Memory;
use matriarch::store::{Change, EtcdStore, Guard, MirroredPrefix, Operation, Transaction, WatchEvent};
use matriarch_core::id::Revision;
use matriarch_core::op::Outcome;
use tonic::transport::Server;
use turmoil::net::TcpListener;

use super::network::{SimulatedClock, connector, incoming};

const STORE: &str = "store";
const AGENT: &str = "agent";
const PORT: u16 = 2379;
/// For calls that are to be answered: longer than the probe that notices a dead connection takes.
const PATIENT: Duration = Duration::from_secs(40);
/// For calls into a cut.
const SHORT: Duration = Duration::from_secs(2);

async fn serve(raft_term: u64) -> turmoil::Result {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let memory = Memory::new(1);
    while memory.raft_term() + 1 < raft_term {
        drop(memory.run(0));
    }
    let (engine, running) = memory.run(raft_term);
    tokio::spawn(engine);
    let routes = running.routes("http://store");
    Server::builder().add_routes(routes).serve_with_incoming(incoming(listener)).await?;
    Ok(())
}

fn adapter(hosts: &[&str]) -> EtcdStore {
    let hosts = hosts.iter().map(|host| format!("{host}:{PORT}")).collect();
    EtcdStore::on_clock(hosts, None, connector(), Arc::new(SimulatedClock))
}

async fn create(store: &EtcdStore, key: &str, deadline: Duration) -> &'static str {
    let put = Operation::Put { key: key.into(), value: "v".into(), lease: None };
    let transaction =
        Transaction { guards: vec![Guard::Absent(key.into())], operations: vec![put], ..Transaction::default() };
    match store.transact(transaction, deadline).await.outcome {
        Outcome::Done(_) => "done",
        Outcome::Refused(_) => "refused",
        Outcome::Unknown(_) => "unknown",
    }
}

async fn exists(store: &EtcdStore, key: &str) -> bool {
    store.read_key(key, PATIENT).await.done().expect("an answer after the repair").entry.is_some()
}

/// One run: what happened, with simulated times.
fn run(seed: u64) -> String {
    let log = Arc::new(Mutex::new(String::new()));
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .simulation_duration(Duration::from_mins(5))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(50))
        .build();
    sim.host(STORE, || serve(1));
    let written = log.clone();
    sim.client(AGENT, async move {
        let note = |what: &str| {
            writeln!(written.lock().unwrap(), "{:>8} ms  {what}", turmoil::elapsed().as_millis()).unwrap();
        };
        scenario(note).await;
        Ok(())
    });
    sim.run().unwrap();
    log.lock().unwrap().clone()
}

async fn scenario(note: impl Fn(&str)) {
    let store = adapter(&[STORE]);
    let mut mirror = MirroredPrefix::default();
    mirror.apply_snapshot(&store.read_prefix("t/", PATIENT).await.done().expect("the first answer"));
    let mut watch = store.watch("t/", Revision(mirror.revision().0 + 1));
    assert_eq!(create(&store, "t/before", PATIENT).await, "done");

    // Cut before the request: it never arrives.
    turmoil::partition(AGENT, STORE);
    let lost_request = create(&store, "t/lost-request", SHORT).await;
    turmoil::repair(AGENT, STORE);
    let there = exists(&store, "t/lost-request").await;
    note(&format!("request lost: {lost_request}, there: {there}"));
    assert_eq!((lost_request, there), ("unknown", false));

    // Cut in one direction: the request arrives and is applied, the reply is lost.
    turmoil::partition_oneway(STORE, AGENT);
    let lost_reply = create(&store, "t/lost-reply", SHORT).await;
    turmoil::repair_oneway(STORE, AGENT);
    let there = exists(&store, "t/lost-reply").await;
    note(&format!("reply lost: {lost_reply}, there: {there}"));
    assert_eq!((lost_reply, there), ("unknown", true));
    assert_eq!(create(&store, "t/lost-reply", PATIENT).await, "refused", "the guard makes trying again safe");

    assert_eq!(create(&store, "t/after", PATIENT).await, "done");
    while !mirror.entries().contains_key("t/after") {
        match watch.recv().await {
            Some(WatchEvent::Changes { changes, .. }) => {
                changes.iter().map(Change::mod_revision).for_each(|revision| note(&format!("heard {revision}")));
                assert!(mirror.apply_changes(&changes), "nothing is delivered twice");
            }
            other => panic!("the watch does not end: {other:?}"),
        }
    }
    let told = store.read_prefix("t/", PATIENT).await.done().expect("the last answer");
    let read: BTreeMap<_, _> = told.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
    assert_eq!(&read, mirror.entries(), "the watch came back by itself and missed nothing");
    note(&format!("{} keys", read.len()));
}

#[test]
fn a_cut_leaves_writes_unknown_and_a_read_tells_the_truth() {
    for seed in 1..=5 {
        let first = run(seed);
        assert!(first.ends_with("3 keys\n"), "{first}");
        assert_eq!(first, run(seed), "seed {seed} is not repeatable");
    }
}

#[test]
fn a_member_that_fell_behind_in_raft_terms_is_not_believed() {
    let mut sim = turmoil::Builder::new().rng_seed(1).simulation_duration(Duration::from_mins(5)).build();
    sim.host("behind", || serve(3));
    sim.host("current", || serve(4));
    sim.client(AGENT, async {
        let store = adapter(&["behind", "current"]);
        turmoil::partition(AGENT, "behind");
        assert_eq!(store.read_key("a", PATIENT).await.done().unwrap().raft_term, 4);
        turmoil::repair(AGENT, "behind");
        turmoil::partition(AGENT, "current");
        let read = store.read_key("a", PATIENT).await;
        assert!(matches!(&read, Outcome::Unknown(_)), "{read:?}");
        turmoil::repair(AGENT, "current");
        assert_eq!(store.read_key("a", PATIENT).await.done().unwrap().raft_term, 4);
        Ok(())
    });
    sim.run().unwrap();
}
