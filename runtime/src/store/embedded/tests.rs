//! Requests on a state, and watches on a history.

use std::time::Duration;

use etcd_client::proto::{
    PbCompare, PbDeleteRequest, PbEvent, PbPutRequest, PbRangeRequest, PbTargetUnion, PbTxnOpRequest, PbTxnRequest,
    PbTxnRequestOp, PbWatchResponse,
};
use matriarch_core::time::Instant;
use tokio::sync::mpsc;
use tonic::Code;

use super::history::History;
use super::query::{self, KeyRange};
use super::state::{Draft, State};
use super::watches::{Response, Wanted, WatchCommand, Watches};

fn draft() -> Draft {
    Draft::new(State::new(1, 2), Instant(5_000_000_000), 1)
}

fn put(draft: &mut Draft, key: &str, value: &str, lease: i64) {
    let request = PbPutRequest { key: key.into(), value: value.into(), lease, ..Default::default() };
    query::put(draft, request).unwrap();
}

fn numbers(draft: &Draft, key: &str) -> (i64, i64, i64) {
    let kv = &draft.state.keys[key.as_bytes()];
    (kv.create_revision, kv.mod_revision, kv.version)
}

fn operation(request: PbTxnOpRequest) -> PbTxnRequestOp {
    PbTxnRequestOp { request: Some(request) }
}

fn put_operation(key: &str, lease: i64) -> PbTxnRequestOp {
    let request = PbPutRequest { key: key.into(), value: "v".into(), lease, ..Default::default() };
    operation(PbTxnOpRequest::RequestPut(request))
}

fn compare(key: &str, result: i32, target_union: PbTargetUnion) -> PbCompare {
    PbCompare { result, target: 0, key: key.into(), range_end: Vec::new(), target_union: Some(target_union) }
}

#[test]
fn revisions_and_versions_count_as_in_etcd() {
    let mut draft = draft();
    put(&mut draft, "a", "1", 0);
    put(&mut draft, "a", "2", 0);
    assert_eq!(numbers(&draft, "a"), (2, 3, 2));
    let delete = PbDeleteRequest { key: "a".into(), ..Default::default() };
    assert_eq!(query::delete(&mut draft, &delete).unwrap().deleted, 1);
    assert_eq!(draft.state.revision, 4);
    assert_eq!(query::delete(&mut draft, &delete).unwrap().deleted, 0);
    assert_eq!(draft.state.revision, 4, "deleting nothing is no change");
    put(&mut draft, "a", "3", 0);
    assert_eq!(numbers(&draft, "a"), (5, 5, 1), "a key created again has a new create_revision");
}

#[test]
fn a_transaction_is_one_revision_and_reads_what_it_wrote() {
    let mut draft = draft();
    put(&mut draft, "x", "old", 0);
    let read = PbRangeRequest { key: "a".into(), range_end: "z".into(), ..Default::default() };
    let delete = PbDeleteRequest { key: "x".into(), ..Default::default() };
    let request = PbTxnRequest {
        compare: vec![
            compare("a", 0, PbTargetUnion::CreateRevision(0)),
            compare("x", 0, PbTargetUnion::ModRevision(2)),
        ],
        success: vec![
            put_operation("a", 0),
            put_operation("b", 0),
            operation(PbTxnOpRequest::RequestDeleteRange(delete)),
            operation(PbTxnOpRequest::RequestRange(read)),
        ],
        failure: Vec::new(),
    };
    let reply = query::transact(&mut draft, request.clone()).unwrap();
    assert!(reply.succeeded);
    assert_eq!((numbers(&draft, "a"), numbers(&draft, "b")), ((3, 3, 1), (3, 3, 1)));
    let Some(etcd_client::proto::PbTxnOpResponse::ResponseRange(range)) = &reply.responses[3].response else {
        panic!("the fourth response is the read")
    };
    let keys: Vec<&[u8]> = range.kvs.iter().map(|kv| kv.key.as_slice()).collect();
    assert_eq!(keys, [b"a", b"b"]);
    let effects = draft.effects.len();
    assert!(!query::transact(&mut draft, request).unwrap().succeeded);
    assert_eq!(draft.effects.len(), effects, "a refused transaction changes nothing");
}

#[test]
fn a_transaction_with_one_dead_lease_changes_nothing() {
    let mut draft = draft();
    let success = vec![put_operation("a", 0), put_operation("b", 99)];
    let error = query::transact(&mut draft, PbTxnRequest { success, ..Default::default() }).unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::NotFound, "etcdserver: requested lease not found"));
    assert!(draft.effects.is_empty());
}

#[test]
fn a_transaction_may_not_write_a_key_twice() {
    let delete = PbDeleteRequest { key: "a".into(), range_end: "c".into(), ..Default::default() };
    let delete = operation(PbTxnOpRequest::RequestDeleteRange(delete));
    for success in [vec![put_operation("a", 0), put_operation("a", 0)], vec![delete, put_operation("b", 0)]] {
        let mut draft = draft();
        let error = query::transact(&mut draft, PbTxnRequest { success, ..Default::default() }).unwrap_err();
        assert_eq!(error.message(), "etcdserver: duplicate key given in txn request");
        assert!(draft.effects.is_empty());
    }
}

#[test]
fn comparisons_with_absent_keys() {
    let holds = |compare: PbCompare| {
        let request = PbTxnRequest { compare: vec![compare], ..Default::default() };
        query::transact(&mut draft(), request).unwrap().succeeded
    };
    assert!(holds(compare("no", 0, PbTargetUnion::Version(0))));
    assert!(holds(compare("no", 2, PbTargetUnion::ModRevision(1))));
    assert!(!holds(compare("no", 1, PbTargetUnion::CreateRevision(0))));
    assert!(!holds(compare("no", 3, PbTargetUnion::Lease(0))));
    assert!(!holds(compare("no", 3, PbTargetUnion::Value("x".into()))), "no value differs from none");
}

#[test]
fn a_lease_takes_its_keys_along_and_only_those() {
    let mut draft = draft();
    let (lease, _) = draft.grant(0, 5).unwrap();
    for key in ["a", "b", "c"] {
        put(&mut draft, key, "1", lease);
    }
    put(&mut draft, "b", "2", 0);
    draft.revoke(lease).unwrap();
    assert_eq!(draft.state.keys.keys().collect::<Vec<_>>(), [b"b"]);
    assert_eq!(draft.state.revision, 6, "all keys of a lease go at one revision");
    assert_eq!(draft.revoke(lease).unwrap_err().code(), Code::NotFound);
}

#[test]
fn leases_expire_at_their_deadline_and_not_before() {
    let mut draft = draft();
    let (lease, ttl) = draft.grant(7, 0).unwrap();
    assert_eq!((lease, ttl), (7, 1), "the shortest time to live is a second");
    assert_eq!(draft.grant(7, 5).unwrap_err().code(), Code::FailedPrecondition);
    let end = draft.now + Duration::from_secs(1);
    assert_eq!(draft.state.earliest_deadline(), Some(end));
    assert!(draft.state.expired(end.back(Duration::from_nanos(1))).is_empty());
    assert_eq!(draft.state.expired(end), [7]);
    draft.now = end;
    assert_eq!(draft.keep_alive(7), 1);
    assert!(draft.state.expired(end).is_empty());
    assert_eq!(draft.keep_alive(8), 0);
}

#[test]
fn only_the_present_can_be_read() {
    let mut draft = draft();
    put(&mut draft, "a", "1", 0);
    put(&mut draft, "a", "2", 0);
    let read = |revision| {
        let request = PbRangeRequest { key: "a".into(), revision, ..Default::default() };
        query::range(&draft.state, &request).map(|reply| reply.kvs.len()).map_err(|status| status.code())
    };
    assert_eq!((read(0), read(3), read(2), read(4)), (Ok(1), Ok(1), Err(Code::OutOfRange), Err(Code::OutOfRange)));
}

#[test]
fn ranges_are_limited_and_counted() {
    let mut draft = draft();
    for key in ["a", "b", "c"] {
        put(&mut draft, key, "1", 0);
    }
    let all = PbRangeRequest { key: vec![0], range_end: vec![0], ..Default::default() };
    let two = query::range(&draft.state, &PbRangeRequest { limit: 2, ..all.clone() }).unwrap();
    assert_eq!((two.kvs.len(), two.count, two.more), (2, 3, true));
    let down = PbRangeRequest { sort_order: 2, limit: 1, ..all };
    assert_eq!(query::range(&draft.state, &down).unwrap().kvs[0].key, b"c");
}

struct Watched {
    watches: Watches,
    history: History,
    out: mpsc::Receiver<Response>,
}

impl Watched {
    fn new(waiting_max: usize) -> Self {
        let (sender, out) = mpsc::channel(waiting_max);
        let mut watches = Watches::default();
        let mut history = History::after(1);
        let open = WatchCommand::Open { stream: 1, out: sender };
        watches.command(open, &State::new(1, 2), &mut history);
        Self { watches, history, out }
    }

    fn create(&mut self, state: &State, from: i64) {
        let range = KeyRange::new(b"a", b"b");
        let wanted = Wanted { range, from, watch_id: 0, prev_kv: false, no_puts: false, no_deletes: false };
        self.watches.command(WatchCommand::Create { stream: 1, wanted }, state, &mut self.history);
    }

    fn publish(&mut self, draft: &mut Draft) {
        let events: Vec<PbEvent> = draft.events.drain(..).collect();
        self.watches.publish(&events, &draft.state);
        self.history.extend(events);
    }

    fn next(&mut self) -> PbWatchResponse {
        self.out.try_recv().unwrap().unwrap()
    }
}

#[test]
fn a_watch_from_the_past_hears_history_then_news_once() {
    let mut watched = Watched::new(8);
    let mut draft = draft();
    put(&mut draft, "a1", "1", 0);
    put(&mut draft, "b1", "1", 0);
    watched.publish(&mut draft);
    watched.create(&draft.state, 2);
    put(&mut draft, "a2", "1", 0);
    watched.publish(&mut draft);
    assert!(watched.next().created);
    for key in ["a1", "a2"] {
        let response = watched.next();
        let keys: Vec<_> = response.events.iter().map(|event| event.kv.clone().unwrap().key).collect();
        assert_eq!(keys, [key.as_bytes()]);
    }
    assert!(watched.out.try_recv().is_err());
}

#[test]
fn a_watch_from_a_forgotten_revision_is_told_so() {
    let mut watched = Watched::new(8);
    let mut draft = draft();
    put(&mut draft, "a", "1", 0);
    put(&mut draft, "a", "2", 0);
    watched.publish(&mut draft);
    watched.watches.command(WatchCommand::Compact { revision: 3 }, &draft.state, &mut watched.history);
    watched.create(&draft.state, 2);
    assert!(watched.next().created);
    let response = watched.next();
    assert_eq!((response.canceled, response.compact_revision), (true, 3));
}

#[test]
fn a_watch_from_the_future_waits_for_it() {
    let mut watched = Watched::new(8);
    let mut draft = draft();
    watched.create(&draft.state, 3);
    put(&mut draft, "a", "1", 0);
    put(&mut draft, "a", "2", 0);
    watched.publish(&mut draft);
    assert!(watched.next().created);
    let revisions: Vec<_> = watched.next().events.iter().map(super::history::revision).collect();
    assert_eq!(revisions, [3]);
}

#[test]
fn a_watcher_that_does_not_read_loses_its_stream_and_nobody_waits() {
    let mut watched = Watched::new(2);
    let mut draft = draft();
    watched.create(&draft.state, 0);
    for n in 0..3 {
        put(&mut draft, "a", &n.to_string(), 0);
        watched.publish(&mut draft);
    }
    assert!(watched.next().created);
    assert_eq!(watched.next().events.len(), 1);
    assert!(matches!(watched.out.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
}
