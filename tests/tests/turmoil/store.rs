//! The adapter against the embedded store's services on a simulated network: what a cut costs, and what it does not.
//!
//! turmoil's TCP loses what is sent into a cut and never repeats it, so a connection that lived through one is dead
//! until its probe notices. That is the worst a real network does as well.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use matriarch::clock::Clock;
use matriarch::store::embedded::Memory;
use matriarch::store::{Change, EtcdStore, Guard, MirroredPrefix, Operation, Transaction, WatchEvent};
use matriarch_core::id::Revision;
use matriarch_core::op::{Outcome, Refusal};
use tonic::transport::Server;
use turmoil::net::TcpListener;

use super::members;
use super::network::{SimulatedClock, connector, elapsed, incoming};
use super::world::{ms, with_seed};

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

// --- one thing at a time --------------------------------------------------------------------------------------------

/// What a scenario with the adapter alone is given: a store of members whose faults can be set.
struct Members {
    store: members::Store,
    names: &'static [&'static str],
}

impl Members {
    fn adapter(&self) -> EtcdStore {
        adapter(self.names)
    }
}

/// Runs a scenario of the adapter against members of one store.
fn scenario_with<F: Future<Output = ()> + 'static>(
    names: &'static [&'static str],
    scenario: impl Fn(Members) -> F + Clone + 'static,
) {
    with_seed(|seed| {
        let (mut sim, members) = simulation(seed, names);
        let running = scenario(members);
        sim.client(AGENT, async move {
            running.await;
            Ok(())
        });
        sim.run().unwrap();
    });
}

fn simulation(seed: u64, names: &'static [&'static str]) -> (turmoil::Sim<'static>, Members) {
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .simulation_duration(Duration::from_mins(5))
        .min_message_latency(ms(1))
        .max_message_latency(ms(4))
        .tcp_capacity(65536)
        .enable_random_order()
        .build();
    let store = members::Store::new();
    let agreeing = store.clone();
    sim.host("quorum", move || agreeing.clone().agree(seed));
    for name in names {
        let store = store.clone();
        sim.host(*name, move || store.clone().member((*name).to_owned()));
    }
    (sim, Members { store, names })
}

/// How long something takes, in milliseconds of the simulation.
fn timed<T>(what: impl Future<Output = T>) -> impl Future<Output = (T, u128)> {
    let (what, begun) = (Box::pin(what), elapsed());
    async move {
        let value = what.await;
        (value, elapsed().saturating_sub(begun).as_millis())
    }
}

const ONE: &[&str] = &["store1"];
const TWO: &[&str] = &["store1", "store2"];

#[test]
fn every_call_into_a_link_that_is_held_ends_at_its_deadline_and_is_unknown() {
    scenario_with(ONE, |members| async move {
        let store = members.adapter();
        assert_eq!(create(&store, "t/a", PATIENT).await, "done");
        let lease = store.grant(60, PATIENT).await.done().unwrap().lease;
        turmoil::hold(AGENT, "store1");
        let limit = Duration::from_millis(700);
        let (read, took) = timed(store.read_prefix("t/", limit)).await;
        assert!(matches!(read, Outcome::Unknown(_)) && (700..760).contains(&took), "{took} ms");
        let (read, took) = timed(store.read_key("t/a", limit)).await;
        assert!(matches!(read, Outcome::Unknown(_)) && (700..760).contains(&took), "{took} ms");
        let (written, took) = timed(create(&store, "t/b", limit)).await;
        assert!(written == "unknown" && (700..760).contains(&took), "{took} ms");
        let (kept, took) = timed(store.keep_session(lease, limit)).await;
        assert!(matches!(kept, Outcome::Unknown(_)) && (700..760).contains(&took), "{took} ms");
        let (renewed, took) = timed(store.renew(lease, "t/a", Revision(2), limit)).await;
        assert!(matches!(renewed, Outcome::Unknown(_)) && (700..760).contains(&took), "{took} ms");
        let (revoked, took) = timed(store.revoke(lease, limit)).await;
        assert!(matches!(revoked, Outcome::Unknown(_)) && (700..760).contains(&took), "{took} ms");
    });
}

#[test]
fn what_is_answered_after_the_deadline_is_unknown_and_is_not_sent_again() {
    scenario_with(ONE, |members| async move {
        let store = members.adapter();
        assert_eq!(create(&store, "t/a", PATIENT).await, "done");
        *members.store.faults("store1").late.lock().unwrap() = Some(("/Txn", Duration::from_secs(3)));
        assert_eq!(create(&store, "t/b", SHORT).await, "unknown");
        let read = store.read_key("t/b", PATIENT).await.done().unwrap();
        let entry = read.entry.expect("it was carried out");
        assert_eq!((entry.version, read.revision), (1, entry.mod_revision), "once, and nothing since");
    });
}

#[test]
fn a_renewal_goes_on_through_the_next_member_after_a_third_of_its_deadline() {
    scenario_with(TWO, |members| async move {
        let store = members.adapter();
        let lease = store.grant(60, PATIENT).await.done().unwrap().lease;
        let put = Operation::Put { key: "t/leader".into(), value: "a".into(), lease: Some(lease) };
        let written = store.transact(Transaction { operations: vec![put], ..Transaction::default() }, PATIENT).await;
        let epoch = written.outcome.done().unwrap().revision;
        let limit = Duration::from_millis(1200);
        assert!(store.renew(lease, "t/leader", epoch, limit).await.done().is_some());
        // The member that answered last is asked first.
        turmoil::hold(AGENT, "store1");
        let begun = SimulatedClock.now();
        let (renewed, took) = timed(store.renew(lease, "t/leader", epoch, limit)).await;
        let renewed = renewed.done().expect("the other member answers");
        assert!((400..460).contains(&took), "{took} ms");
        assert!(renewed.asked.since(begun) >= ms(400), "credited to the keep-alive that was answered");
        let (again, took) = timed(store.renew(lease, "t/leader", epoch, limit)).await;
        assert!(again.done().is_some() && took < 40, "it stays with who answered: {took} ms");
    });
}

#[test]
fn a_renewal_is_credited_to_when_it_was_asked_for() {
    scenario_with(ONE, |members| async move {
        let store = members.adapter();
        let lease = store.grant(60, PATIENT).await.done().unwrap().lease;
        let put = Operation::Put { key: "t/leader".into(), value: "a".into(), lease: Some(lease) };
        let written = store.transact(Transaction { operations: vec![put], ..Transaction::default() }, PATIENT).await;
        let epoch = written.outcome.done().unwrap().revision;
        *members.store.faults("store1").late.lock().unwrap() = Some(("/LeaseKeepAlive", ms(300)));
        let begun = SimulatedClock.now();
        let renewed = store.renew(lease, "t/leader", epoch, SHORT).await.done().expect("an answer, late");
        assert!(renewed.asked.since(begun) < ms(10) && renewed.heard.since(begun) >= ms(300), "{renewed:?}");
    });
}

#[test]
fn a_renewal_is_refused_when_the_key_is_not_ours_or_the_lease_is_gone() {
    scenario_with(ONE, |members| async move {
        let store = members.adapter();
        let lease = store.grant(60, PATIENT).await.done().unwrap().lease;
        assert_eq!(create(&store, "t/leader", PATIENT).await, "done");
        let conflict = store.renew(lease, "t/leader", Revision(2), SHORT).await;
        assert!(matches!(conflict, Outcome::Refused(Refusal::Conflict)), "{conflict:?}");
        store.revoke(lease, PATIENT).await.done().expect("it is revoked");
        let gone = store.renew(lease, "t/leader", Revision(2), SHORT).await;
        assert!(matches!(gone, Outcome::Refused(Refusal::LeaseGone)), "{gone:?}");
    });
}

#[test]
fn a_keep_alive_of_before_an_election_proves_nothing_after_it() {
    scenario_with(ONE, |members| async move {
        let store = members.adapter();
        let lease = store.grant(60, PATIENT).await.done().unwrap().lease;
        let put = Operation::Put { key: "t/leader".into(), value: "a".into(), lease: Some(lease) };
        let written = store.transact(Transaction { operations: vec![put], ..Transaction::default() }, PATIENT).await;
        let epoch = written.outcome.done().unwrap().revision;
        let faults = members.store.faults("store1");
        *faults.late.lock().unwrap() = Some(("/LeaseKeepAlive", ms(300)));
        let begun = SimulatedClock.now();
        let renewing = tokio::spawn({
            let store = store.clone();
            async move { store.renew(lease, "t/leader", epoch, Duration::from_secs(3)).await }
        });
        tokio::time::sleep(ms(100)).await;
        members.store.running().unwrap().elect().await.unwrap();
        *faults.late.lock().unwrap() = None;
        let renewed = renewing.await.unwrap().done().expect("the next attempt is of one term");
        assert_eq!(renewed.raft_term, members.store.memory().raft_term());
        assert!(renewed.asked.since(begun) >= ms(290), "credited to the keep-alive of the new term");
    });
}

#[test]
fn a_connection_that_is_reset_is_replaced_at_once_and_the_watch_goes_on() {
    with_seed(|seed| {
        let (mut sim, members) = simulation(seed, ONE);
        sim.client(AGENT, async move {
            let store = members.adapter();
            assert_eq!(create(&store, "t/a", PATIENT).await, "done");
            let mut watch = store.watch("t/", Revision(3));
            let lease = store.grant(60, PATIENT).await.done().unwrap().lease;
            // Its connections are reset after two seconds.
            tokio::time::sleep(Duration::from_secs(2).saturating_sub(elapsed()) + ms(60)).await;
            let (kept, took) = timed(store.keep_session(lease, PATIENT)).await;
            assert!(kept.done().is_some() && took < 60, "{took} ms");
            let (written, took) = timed(create(&store, "t/b", PATIENT)).await;
            assert!(written == "done" && took < 60, "{took} ms: {written}");
            let (event, took) = timed(watch.recv()).await;
            assert!(matches!(event, Some(WatchEvent::Changes { .. })) && took < 200, "{took} ms: {event:?}");
            Ok(())
        });
        while sim.elapsed() < Duration::from_secs(2) {
            sim.step().unwrap();
        }
        sim.crash("store1");
        sim.bounce("store1");
        sim.run().unwrap();
    });
}
