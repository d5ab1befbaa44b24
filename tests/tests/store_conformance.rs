//! What the agent relies on, asserted by one script on the embedded store and on a real etcd alike; and what only one
//! of them can show.

#[path = "store_conformance/differential.rs"]
mod differential;
#[path = "store_conformance/servers.rs"]
mod servers;

use std::time::Duration;

use matriarch::net::{Connector, tcp_listen};
use matriarch::store::embedded::{self, StoreArgs};
use matriarch::store::{
    Change, Committed, EtcdStore, Guard, MirroredPrefix, Operation, Snapshot, Transacted, Transaction, WatchEvent,
};
use matriarch_core::id::{LeaseId, Revision};
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::time::Instant;
use servers::{PATIENCE, Server, connect, free_port};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

/// A time to live that no test waits for.
const LONG: Duration = Duration::from_mins(1);
/// The deadline of calls that are to be answered.
const SOON: Duration = Duration::from_secs(8);
/// The deadline of calls that are not.
const IN_VAIN: Duration = Duration::from_millis(700);

fn put(key: &str, value: &str, lease: Option<LeaseId>) -> Operation {
    Operation::Put { key: key.to_owned(), value: value.into(), lease }
}

fn write(guards: impl Into<Vec<Guard>>, operations: impl Into<Vec<Operation>>) -> Transaction {
    Transaction { guards: guards.into(), operations: operations.into(), ..Transaction::default() }
}

#[track_caller]
fn done<T: std::fmt::Debug>(outcome: Outcome<T>) -> T {
    match outcome {
        Outcome::Done(value) => value,
        other => panic!("not done: {other:?}"),
    }
}

#[track_caller]
fn committed(transacted: Transacted) -> Committed {
    done(transacted.outcome)
}

async fn commit(store: &EtcdStore, operations: impl Into<Vec<Operation>>) -> Committed {
    committed(store.transact(write([], operations), SOON).await)
}

fn keys(snapshot: &Snapshot) -> Vec<(&str, &str)> {
    snapshot.entries.iter().map(|entry| (entry.key.as_str(), entry.text())).collect()
}

/// The next changes of a watch, as `key=value` and `-key`.
async fn next(watch: &mut mpsc::Receiver<WatchEvent>) -> (Vec<String>, Revision, Instant) {
    match timeout(PATIENCE, watch.recv()).await.expect("an event") {
        Some(WatchEvent::Changes { revision, changes, heard }) => {
            let show = |change: &Change| match change {
                Change::Put(entry) => format!("{}={}", entry.key, entry.text()),
                Change::Delete { key, .. } => format!("-{key}"),
            };
            (changes.iter().map(show).collect(), revision, heard)
        }
        other => panic!("not changes: {other:?}"),
    }
}

async fn reads_and_guards(store: &EtcdStore) {
    let first = commit(store, [put("g/a", "1", None)]).await;
    let read = done(store.read_key("g/a", SOON).await);
    let entry = read.entry.unwrap();
    assert_eq!((entry.text(), entry.version, entry.lease), ("1", 1, LeaseId(0)));
    assert_eq!((entry.create_revision, entry.mod_revision), (first.revision, first.revision));
    assert!(read.revision >= first.revision && read.asked <= read.heard && read.store_id == first.store_id);
    assert_eq!(done(store.read_key("g/absent", SOON).await).entry, None);

    let second = commit(store, [put("g/a", "2", None), put("g/b", "2", None)]).await;
    let held = [
        Guard::Absent("g/absent".into()),
        Guard::CreateRevision("g/a".into(), first.revision),
        Guard::ModRevision("g/a".into(), second.revision),
        Guard::ModRevision("g/absent".into(), Revision(0)),
        Guard::Value("g/a".into(), "2".into()),
        Guard::Lease("g/a".into(), LeaseId(0)),
    ];
    let broken = [
        Guard::Absent("g/a".into()),
        Guard::CreateRevision("g/a".into(), second.revision),
        Guard::ModRevision("g/a".into(), first.revision),
        Guard::Value("g/a".into(), "1".into()),
        Guard::Value("g/absent".into(), "".into()),
        Guard::Lease("g/a".into(), LeaseId(1)),
        Guard::Lease("g/absent".into(), LeaseId(0)),
    ];
    for guard in broken {
        let guards: Vec<Guard> = held.iter().cloned().chain([guard.clone()]).collect();
        let transaction = Transaction {
            on_refusal_read: Some("g/".into()),
            then_read: Some("g/".into()),
            ..write(guards, [put("g/a", "3", None)])
        };
        let refused = store.transact(transaction, SOON).await;
        assert_eq!(refused.outcome, Outcome::Refused(Refusal::Conflict), "{guard:?}");
        assert_eq!(keys(&refused.seen_instead.unwrap()), [("g/a", "2"), ("g/b", "2")]);
    }
    let operations = [put("g/c", "3", None), Operation::Delete("g/b".into()), Operation::Delete("g/absent".into())];
    let transaction = Transaction { then_read: Some("g/".into()), ..write(held, operations) };
    let third = committed(store.transact(transaction, SOON).await);
    let snapshot = third.snapshot.unwrap();
    assert_eq!(keys(&snapshot), [("g/a", "2"), ("g/c", "3")]);
    assert_eq!(snapshot.revision, third.revision);
    assert_eq!(snapshot.get("g/c").unwrap().create_revision, third.revision);
    assert_eq!(keys(&done(store.read_prefix("g/", SOON).await)), [("g/a", "2"), ("g/c", "3")]);
}

async fn leases(store: &EtcdStore) {
    let granted = done(store.grant(LONG.as_secs() as i64, SOON).await);
    assert_eq!(granted.ttl, LONG);
    commit(store, [put("l/a", "1", Some(granted.lease)), put("l/b", "1", Some(granted.lease))]).await;
    assert_eq!(done(store.read_key("l/a", SOON).await).entry.unwrap().lease, granted.lease);
    for _ in 0..2 {
        assert_eq!(done(store.keep_session(granted.lease, SOON).await).ttl, granted.ttl);
    }
    done(store.revoke(granted.lease, SOON).await);
    assert_eq!(keys(&done(store.read_prefix("l/", SOON).await)), []);
    let late = store.transact(write([], [put("l/a", "late", Some(granted.lease))]), SOON).await;
    assert_eq!(late.outcome, Outcome::Refused(Refusal::LeaseGone));
    assert_eq!(store.keep_session(granted.lease, SOON).await, Outcome::Refused(Refusal::LeaseGone));
    done(store.revoke(granted.lease, SOON).await);
}

async fn expiry(store: &EtcdStore) {
    let granted = done(store.grant(1, SOON).await);
    assert!(granted.ttl >= Duration::from_secs(1));
    let at = commit(store, [put("e/a", "1", Some(granted.lease))]).await;
    let kept = done(store.keep_session(granted.lease, SOON).await);
    let mut watch = store.watch("e/", Revision(at.revision.0 + 1));
    let (changes, revision, heard) = next(&mut watch).await;
    assert_eq!(changes, ["-e/a"]);
    assert!(heard - kept.asked >= kept.ttl, "a lease never ends early");
    let read = done(store.read_key("e/a", SOON).await);
    assert!(read.entry.is_none() && read.revision >= revision);
    assert_eq!(store.keep_session(granted.lease, SOON).await, Outcome::Refused(Refusal::LeaseGone));
}

async fn watches(store: &EtcdStore, host: &str) {
    let first = commit(store, [put("w/a", "1", None), put("w/b", "1", None)]).await;
    commit(store, [put("other", "1", None)]).await;
    commit(store, [Operation::Delete("w/a".into())]).await;
    let mut watch = store.watch("w/", first.revision);
    let mut heard = Vec::new();
    while heard.len() < 3 {
        heard.extend(next(&mut watch).await.0);
    }
    assert_eq!(heard, ["w/a=1", "w/b=1", "-w/a"]);
    let last = commit(store, [put("w/c", "2", None)]).await;
    let (changes, revision, _) = next(&mut watch).await;
    assert_eq!((changes, revision), (vec!["w/c=2".to_owned()], last.revision));

    let mut early = store.watch("w/", Revision(last.revision.0 + 1000));
    let event = timeout(PATIENCE, early.recv()).await.unwrap();
    assert!(matches!(&event, Some(WatchEvent::Lost { why }) if why.contains("went back")), "{event:?}");
    let mut raw = etcd_client::Client::connect([host], None).await.unwrap();
    raw.compact(last.revision.0, None).await.unwrap();
    let mut late = store.watch("w/", first.revision);
    let event = timeout(PATIENCE, late.recv()).await.unwrap();
    assert!(matches!(&event, Some(WatchEvent::Lost { why }) if why.contains("compacted")), "{event:?}");
    assert_eq!(timeout(PATIENCE, late.recv()).await.unwrap(), None, "nothing comes after a loss");
    commit(store, [put("w/d", "3", None)]).await;
    assert_eq!(next(&mut watch).await.0, ["w/d=3"], "the first watch goes on");
}

async fn renewals(store: &EtcdStore) {
    let conflict = Outcome::Refused(Refusal::Conflict);
    let tenure = done(store.grant(LONG.as_secs() as i64, SOON).await).lease;
    let renew = async |created: Revision| store.renew(tenure, "r/leader", created, SOON).await;
    let lead = [put("r/leader", "a", Some(tenure))];
    let absent = [Guard::Absent("r/leader".into())];
    let first = committed(store.transact(write(absent, lead.clone()), SOON).await).revision;
    let renewed = done(renew(first).await);
    assert_eq!(renewed.ttl, LONG);
    assert!(renewed.asked < renewed.heard);
    commit(store, lead.clone()).await;
    done(renew(first).await);

    commit(store, [Operation::Delete("r/leader".into())]).await;
    assert_eq!(renew(first).await, conflict, "deleted by an operator");
    let again = commit(store, lead).await.revision;
    assert_eq!(renew(first).await, conflict, "our lease, but another tenure");
    done(renew(again).await);
    let other = done(store.grant(LONG.as_secs() as i64, SOON).await).lease;
    commit(store, [put("r/leader", "b", Some(other))]).await;
    assert_eq!(renew(again).await, conflict, "taken by another");
    done(store.revoke(tenure, SOON).await);
    assert_eq!(renew(again).await, Outcome::Refused(Refusal::LeaseGone));
}

async fn frozen(store: &EtcdStore, server: &Server) {
    let session = done(store.grant(LONG.as_secs() as i64, SOON).await).lease;
    done(store.keep_session(session, SOON).await);
    // Just answered, so the write is sent without asking first.
    commit(store, [put("f/a", "1", None)]).await;
    server.freeze();
    let sent = store.transact(write([Guard::Absent("f/b".into())], [put("f/b", "1", None)]), IN_VAIN).await;
    assert!(matches!(sent.outcome, Outcome::Unknown(_)), "{sent:?}");
    assert!(matches!(store.read_key("f/a", IN_VAIN).await, Outcome::Unknown(_)));
    assert!(matches!(store.keep_session(session, IN_VAIN).await, Outcome::Unknown(_)));
    assert!(matches!(store.renew(LeaseId(1), "f/a", Revision(1), IN_VAIN).await, Outcome::Unknown(_)));
    let unsent = store.transact(write([Guard::Absent("f/c".into())], [put("f/c", "1", None)]), IN_VAIN).await;
    assert!(matches!(&unsent.outcome, Outcome::Unknown(why) if why.starts_with("not sent")), "{unsent:?}");
    server.thaw();
    let unheard_of = store.keep_session(LeaseId(1), PATIENCE).await;
    assert_eq!(unheard_of, Outcome::Refused(Refusal::LeaseGone), "a late reply is not the next question's");
    done(store.keep_session(session, SOON).await);
    let told = done(store.read_prefix("f/", PATIENCE).await);
    assert!(told.get("f/a").is_some() && told.get("f/c").is_none());
}

async fn script(server: &Server) {
    let store = connect([server.host.as_str()]).await;
    reads_and_guards(&store).await;
    leases(&store).await;
    expiry(&store).await;
    watches(&store, &server.host).await;
    renewals(&store).await;
    frozen(&store, server).await;
}

#[tokio::test]
async fn etcd_keeps_what_the_agent_relies_on() {
    script(&Server::etcd(1)[0]).await;
}

#[tokio::test]
async fn the_embedded_store_keeps_what_the_agent_relies_on() {
    script(&Server::embedded()).await;
}

/// Not a test: the embedded store that other tests start in a process of its own.
#[test]
#[ignore = "started by other tests"]
fn embedded_store_of_a_test() {
    if let (Ok(listen), Some(data)) = (std::env::var("STORE_LISTEN"), std::env::var_os("STORE_DATA")) {
        embedded::run(&StoreArgs { listen, data: data.into() }).unwrap();
    }
}

#[tokio::test]
async fn a_cluster_with_a_dead_address_and_a_frozen_member_serves_every_call() {
    let cluster = Server::etcd(3);
    let dead = format!("127.0.0.1:{}", free_port());
    // The one to be frozen is the sticky one, and the dead address comes next.
    let store = connect([&cluster[0].host, &dead, &cluster[1].host, &cluster[2].host].map(String::as_str)).await;
    let tenure = done(store.grant(LONG.as_secs() as i64, SOON).await).lease;
    let created = commit(&store, [put("c/leader", "a", Some(tenure))]).await.revision;
    let mut watch = store.watch("c/", created);
    assert_eq!(next(&mut watch).await.0, ["c/leader=a"]);

    cluster[0].freeze();
    // It may have led: the others elect first, which a call cannot help. Then everything is answered in time.
    done(connect([&cluster[1].host, &cluster[2].host].map(String::as_str)).await.read_key("c/leader", PATIENCE).await);
    let renewed = done(store.renew(tenure, "c/leader", created, SOON).await);
    assert_eq!(renewed.ttl, LONG);
    let after = commit(&store, [put("c/a", "1", None)]).await;
    assert_eq!(next(&mut watch).await.0, ["c/a=1"], "one of the two copies of the watch is through a live member");
    assert!(done(store.read_prefix("c/", SOON).await).revision >= after.revision);
    done(store.keep_session(tenure, SOON).await);
    let other = done(store.grant(LONG.as_secs() as i64, SOON).await).lease;
    done(store.revoke(other, SOON).await);

    // A fresh adapter whose first choice is frozen asks before it writes.
    let hosts = [&cluster[0].host, &dead, &cluster[1].host, &cluster[2].host].map(Clone::clone);
    let fresh = EtcdStore::new(hosts.into(), None, Connector::tcp(PATIENCE));
    commit(&fresh, [put("c/b", "2", None)]).await;
    assert_eq!(next(&mut watch).await.0, ["c/b=2"]);
    cluster[0].thaw();
    commit(&fresh, [put("c/c", "3", None)]).await;
    assert_eq!(next(&mut watch).await.0, ["c/c=3"], "what the thawed member brings late is not delivered again");
}

#[tokio::test]
async fn a_user_and_password_are_used_and_wrong_ones_refused() {
    let cluster = Server::etcd(1);
    let host = &cluster[0].host;
    connect([host.as_str()]).await;
    let mut raw = etcd_client::Client::connect([host], None).await.unwrap();
    raw.user_add("root", "secret", None).await.unwrap();
    raw.user_grant_role("root", "root").await.unwrap();
    raw.auth_enable().await.unwrap();
    let login = |password: &str| Some(("root".to_owned(), password.to_owned()));
    let store = EtcdStore::new(vec![host.clone()], login("secret"), Connector::tcp(PATIENCE));
    let tenure = done(store.grant(LONG.as_secs() as i64, SOON).await).lease;
    let created = commit(&store, [put("u/leader", "a", Some(tenure))]).await.revision;
    done(store.renew(tenure, "u/leader", created, SOON).await);
    assert_eq!(next(&mut store.watch("u/", created)).await.0, ["u/leader=a"]);
    for auth in [login("wrong"), None] {
        let store = EtcdStore::new(vec![host.clone()], auth, Connector::tcp(PATIENCE));
        let refused = store.read_key("u/leader", SOON).await;
        assert!(matches!(&refused, Outcome::Refused(Refusal::Failed(why)) if why.contains(host)), "{refused:?}");
    }
}

#[tokio::test]
async fn a_keep_alive_that_waited_in_a_frozen_embedded_store_counts() {
    let server = Server::embedded();
    let store = connect([server.host.as_str()]).await;
    let lease = done(store.grant(1, SOON).await).lease;
    commit(&store, [put("k/a", "1", Some(lease))]).await;
    server.freeze();
    let thaw = async {
        sleep(Duration::from_secs(3)).await;
        server.thaw();
    };
    let (kept, ()) = tokio::join!(store.keep_session(lease, PATIENCE), thaw);
    done(kept);
    assert!(done(store.read_key("k/a", SOON).await).entry.is_some());
}

#[tokio::test]
async fn a_restarted_embedded_store_has_lost_nothing_and_its_watches_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let host = format!("127.0.0.1:{}", free_port());
    let start = async |host: String| {
        let (stop, stopped) = oneshot::channel::<()>();
        let listener = tcp_listen(&host).await.unwrap();
        let data = dir.path().to_owned();
        let serving = tokio::spawn(async move {
            embedded::serve(listener, &data, async { drop(stopped.await) }).await.unwrap();
        });
        (stop, serving)
    };
    let (stop, serving) = start(host.clone()).await;
    let store = connect([host.as_str()]).await;
    let tenure = done(store.grant(LONG.as_secs() as i64, SOON).await).lease;
    let created = commit(&store, [put("s/leader", "a", Some(tenure))]).await.revision;
    done(store.keep_session(tenure, SOON).await);
    let before = done(store.read_prefix("s/", SOON).await);
    let mut watch = store.watch("s/", Revision(created.0 + 1));
    stop.send(()).unwrap();
    serving.await.unwrap();

    let (stop, serving) = start(host.clone()).await;
    let after = done(store.read_prefix("s/", PATIENCE).await);
    assert_eq!((after.entries, after.revision, after.store_id), (before.entries, before.revision, before.store_id));
    assert!(after.raft_term > before.raft_term);
    done(store.keep_session(tenure, SOON).await);
    done(store.renew(tenure, "s/leader", created, SOON).await);
    commit(&store, [put("s/a", "1", None)]).await;
    assert_eq!(next(&mut watch).await.0, ["s/a=1"]);
    let mut past = store.watch("s/", created);
    assert_eq!(next(&mut past).await.0, ["s/leader=a", "s/a=1"], "the past is known after a restart");
    stop.send(()).unwrap();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_write_that_died_with_its_server_is_unknown_and_not_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::embedded_on(dir.path());
    let store = connect([server.host.as_str()]).await;
    server.freeze();
    let write = write([Guard::Absent("k/a".into())], [put("k/a", "1", None)]);
    let restart = async {
        sleep(Duration::from_millis(300)).await;
        server.restart_embedded(dir.path());
    };
    let (transacted, ()) = tokio::join!(store.transact(write, PATIENCE), restart);
    assert!(matches!(transacted.outcome, Outcome::Unknown(_)), "{transacted:?}");
    assert_eq!(done(store.read_key("k/a", PATIENCE).await).entry, None);
}

#[tokio::test]
async fn a_watch_ends_when_the_store_was_replaced() {
    let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut server = Server::embedded_on(before.path());
    let store = connect([server.host.as_str()]).await;
    store.allow_tenure(Duration::from_secs(2));
    let at = commit(&store, [put("k/a", "1", None)]).await;
    let mut watch = store.watch("k/", at.revision);
    assert_eq!(next(&mut watch).await.0, ["k/a=1"]);
    server.restart_embedded(after.path());
    let event = timeout(PATIENCE, watch.recv()).await.unwrap();
    assert!(matches!(&event, Some(WatchEvent::Lost { why }) if why.contains("another store")), "{event:?}");
    assert_ne!(done(store.read_key("k/a", PATIENCE).await).store_id, at.store_id);
}

/// A restored store is not believed at once, since somebody may still lead by what it forgot; and not refused for ever.
#[tokio::test]
async fn a_store_that_went_back_is_believed_when_every_tenure_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let (data, backup) = (dir.path().join("data"), dir.path().join("backup"));
    let mut server = Server::embedded_on(&data);
    let store = connect([server.host.as_str()]).await;
    store.allow_tenure(Duration::from_secs(6));
    commit(&store, [put("k/a", "1", None)]).await;
    server.kill();
    std::fs::create_dir(&backup).unwrap();
    for file in ["journal", "snapshot"] {
        std::fs::copy(data.join(file), backup.join(file)).unwrap();
    }
    server.restart_embedded(&data);
    done(store.read_key("k/a", PATIENCE).await);
    let lost = commit(&store, [put("k/b", "1", None)]).await;
    let before = done(store.read_prefix("k/", PATIENCE).await);
    let mut watch = store.watch("k/", Revision(lost.revision.0 + 1));
    let mut mirror = MirroredPrefix::default();
    assert!(mirror.apply_snapshot(&before));

    server.restart_embedded(&backup);
    let early = store.read_prefix("k/", Duration::from_secs(3)).await;
    assert!(matches!(&early, Outcome::Unknown(_)), "{early:?}");
    let event = timeout(PATIENCE, watch.recv()).await.unwrap();
    assert!(matches!(&event, Some(WatchEvent::Lost { why }) if why.contains("went back")), "{event:?}");
    let after = done(store.read_prefix("k/", PATIENCE).await);
    assert_eq!((after.store_id, after.rollbacks), (before.store_id, 1));
    assert!(after.revision < before.revision && after.get("k/b").is_none() && after.get("k/a").is_some());
    assert!(mirror.apply_snapshot(&after) && !mirror.apply_snapshot(&before), "the lost future does not come back");
}

#[tokio::test]
async fn a_killed_embedded_store_has_everything_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::embedded_on(dir.path());
    let store = connect([server.host.as_str()]).await;
    let tenure = done(store.grant(LONG.as_secs() as i64, SOON).await).lease;
    let created = commit(&store, [put("leader", "a", Some(tenure))]).await.revision;
    for n in 0..50 {
        commit(&store, [put(&format!("k/{n:02}"), "1", None)]).await;
    }
    server.kill();
    let journal = dir.path().join("journal");
    let mut torn = std::fs::read(&journal).unwrap();
    torn.extend([7; 13]);
    std::fs::write(&journal, torn).unwrap();

    // A renewal goes on trying for as long as its deadline lasts.
    let start = async {
        sleep(Duration::from_millis(300)).await;
        server.restart_embedded(dir.path());
    };
    let (renewed, ()) = tokio::join!(store.renew(tenure, "leader", created, PATIENCE), start);
    assert_eq!(done(renewed).ttl, LONG);
    assert_eq!(done(store.read_prefix("k/", SOON).await).entries.len(), 50);
    commit(&store, [put("k/50", "1", None)]).await;
    let listener = tcp_listen("127.0.0.1:0").await.unwrap();
    let error = embedded::serve(listener, dir.path(), std::future::pending()).await.unwrap_err();
    assert!(error.to_string().contains("another store is running"), "{error:#}");
}
