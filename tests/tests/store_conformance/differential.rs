//! The embedded store against a real etcd: the same random requests, answer by answer.

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, GetOptions, KeyValue, LeaseGrantOptions, PutOptions, SortOrder,
    SortTarget, Txn, TxnOp, TxnOpResponse, WatchOptions,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::servers::{Server, connect};

/// Requests of one run.
const REQUESTS: usize = 1500;

#[derive(Clone, Debug)]
enum Request {
    Put { key: &'static str, value: u8, lease: usize },
    Delete { key: &'static str, prefix: bool },
    Get { key: &'static str, prefix: bool, limit: i64, sort: Option<SortOrder> },
    Transact { guards: Vec<(&'static str, u8, u8, i64)>, then: Vec<Request>, or_else: Vec<Request> },
    Grant,
    Revoke { lease: usize },
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "a/1", "a/2", "b", "b/1"])
}

fn plain() -> impl Strategy<Value = Request> {
    let sort = prop::sample::select(vec![None, Some(SortOrder::Ascend), Some(SortOrder::Descend)]);
    let get = (key(), any::<bool>(), 0i64..3, sort);
    prop_oneof![
        5 => (key(), 0u8..3, 0usize..6).prop_map(|(key, value, lease)| Request::Put { key, value, lease }),
        2 => (key(), any::<bool>()).prop_map(|(key, prefix)| Request::Delete { key, prefix }),
        2 => get.prop_map(|(key, prefix, limit, sort)| Request::Get { key, prefix, limit, sort }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let guard = (key(), 0u8..5, 0u8..4, -3i64..2);
    let transact = (
        prop::collection::vec(guard, 0..3),
        prop::collection::vec(plain(), 0..4),
        prop::collection::vec(plain(), 0..3),
    );
    prop_oneof![
        6 => plain(),
        4 => transact.prop_map(|(guards, then, or_else)| Request::Transact { guards, then, or_else }),
        1 => Just(Request::Grant),
        1 => (0usize..4).prop_map(|lease| Request::Revoke { lease }),
    ]
}

/// One store, with what has to be translated to compare it with the other: leases and revisions.
struct Side {
    client: Client,
    leases: Vec<i64>,
    /// The revision before the first request.
    base: i64,
}

impl Side {
    async fn new(host: &str) -> Self {
        connect([host]).await;
        let mut client = Client::connect([host], None).await.unwrap();
        let base = client.get("a", None).await.unwrap().header().unwrap().revision();
        Self { client, leases: Vec::new(), base }
    }

    fn lease(&self, nth: usize) -> i64 {
        // Some do not exist.
        let from_end = self.leases.len().wrapping_sub(nth);
        if nth == 0 { 0 } else { self.leases.get(from_end).copied().unwrap_or(99) }
    }

    fn show(&self, kv: &KeyValue) -> String {
        let lease = self.leases.iter().position(|lease| *lease == kv.lease());
        let (created, changed) = (kv.create_revision() - self.base, kv.mod_revision() - self.base);
        format!("{}={:?} c{created} m{changed} v{} {lease:?}", kv.key_str().unwrap(), kv.value(), kv.version())
    }

    fn all(&self, kvs: &[KeyValue]) -> Vec<String> {
        kvs.iter().map(|kv| self.show(kv)).collect()
    }

    fn operation(&self, request: &Request) -> TxnOp {
        match request {
            Request::Put { key, value, lease } => TxnOp::put(*key, vec![*value], Some(self.put_options(*lease))),
            Request::Delete { key, prefix } => TxnOp::delete(*key, Some(delete_options(*prefix))),
            Request::Get { key, prefix, limit, sort } => TxnOp::get(*key, Some(get_options(*prefix, *limit, *sort))),
            _ => unreachable!("transactions hold plain requests"),
        }
    }

    fn put_options(&self, lease: usize) -> PutOptions {
        PutOptions::new().with_lease(self.lease(lease)).with_prev_key()
    }

    fn guard(&self, (key, target, comparison, number): (&'static str, u8, u8, i64), revision: i64) -> Compare {
        let comparison =
            [CompareOp::Equal, CompareOp::Greater, CompareOp::Less, CompareOp::NotEqual][comparison as usize];
        match target {
            0 => Compare::version(key, comparison, number),
            1 => Compare::create_revision(key, comparison, (revision + number).max(0)),
            2 => Compare::mod_revision(key, comparison, (revision + number).max(0)),
            3 => Compare::value(key, comparison, vec![number.unsigned_abs() as u8]),
            _ => Compare::lease(key, comparison, self.lease(number.unsigned_abs() as usize)),
        }
    }

    /// The answer to a request, in terms that are the same for both stores.
    async fn ask(&mut self, request: &Request) -> Result<String, etcd_client::Error> {
        let mut client = self.client.clone();
        Ok(match request {
            Request::Put { key, value, lease } => {
                let reply = client.put(*key, vec![*value], Some(self.put_options(*lease))).await?;
                let at = reply.header().unwrap().revision() - self.base;
                format!("put @{at} {:?}", reply.prev_key().map(|kv| self.show(kv)))
            }
            Request::Delete { key, prefix } => {
                let reply = client.delete(*key, Some(delete_options(*prefix))).await?;
                let at = reply.header().unwrap().revision() - self.base;
                format!("delete @{at} {} {:?}", reply.deleted(), self.all(reply.prev_kvs()))
            }
            Request::Get { key, prefix, limit, sort } => {
                let reply = client.get(*key, Some(get_options(*prefix, *limit, *sort))).await?;
                let at = reply.header().unwrap().revision() - self.base;
                format!("get @{at} {} {} {:?}", reply.count(), reply.more(), self.all(reply.kvs()))
            }
            Request::Transact { guards, then, or_else } => {
                let revision = client.get("a", None).await?.header().unwrap().revision();
                let transaction = Txn::new()
                    .when(guards.iter().map(|guard| self.guard(*guard, revision)).collect::<Vec<_>>())
                    .and_then(then.iter().map(|request| self.operation(request)).collect::<Vec<_>>())
                    .or_else(or_else.iter().map(|request| self.operation(request)).collect::<Vec<_>>());
                let reply = client.txn(transaction).await?;
                let at = reply.header().unwrap().revision() - self.base;
                let show = |response: &TxnOpResponse| match response {
                    TxnOpResponse::Put(put) => format!("put {:?}", put.prev_key().map(|kv| self.show(kv))),
                    TxnOpResponse::Get(get) => format!("get {} {} {:?}", get.count(), get.more(), self.all(get.kvs())),
                    TxnOpResponse::Delete(gone) => format!("delete {} {:?}", gone.deleted(), self.all(gone.prev_kvs())),
                    TxnOpResponse::Txn(_) => unreachable!("no transaction was nested"),
                };
                let responses: Vec<String> = reply.op_responses().iter().map(show).collect();
                format!("txn @{at} {} {responses:?}", reply.succeeded())
            }
            Request::Grant => {
                // An id of our choice, so that comparisons of leases come out the same.
                let id = 1000 + self.leases.len() as i64;
                let reply = client.lease_grant(600, Some(LeaseGrantOptions::new().with_id(id))).await?;
                self.leases.push(reply.id());
                format!("grant {}", reply.ttl())
            }
            Request::Revoke { lease } => {
                let reply = client.lease_revoke(self.lease(lease + 1)).await?;
                format!("revoke @{}", reply.header().unwrap().revision() - self.base)
            }
        })
    }

    /// Everything that happened, as a watch tells it.
    async fn past(&mut self) -> Vec<String> {
        let end = self.client.put("z", "end", None).await.unwrap().header().unwrap().revision();
        let options = WatchOptions::new().with_all_keys().with_start_revision(self.base + 1).with_prev_key();
        let mut stream = self.client.watch("", Some(options)).await.unwrap();
        let mut told = Vec::new();
        loop {
            let reply = stream.message().await.unwrap().unwrap();
            for event in reply.events() {
                let kv = event.kv().unwrap();
                let before = event.prev_kv().map(|kv| self.show(kv));
                told.push(format!("{:?} {} before {before:?}", event.event_type(), self.show(kv)));
                if kv.mod_revision() == end {
                    return told;
                }
            }
        }
    }
}

fn delete_options(prefix: bool) -> DeleteOptions {
    let options = DeleteOptions::new().with_prev_key();
    if prefix { options.with_prefix() } else { options }
}

/// Sorted by key alone: by anything else there are ties, whose order etcd leaves open.
fn get_options(prefix: bool, limit: i64, sort: Option<SortOrder>) -> GetOptions {
    let mut options = GetOptions::new().with_limit(limit);
    if let Some(order) = sort {
        options = options.with_sort(SortTarget::Key, order);
    }
    if prefix { options.with_prefix() } else { options }
}

#[tokio::test]
async fn the_embedded_store_answers_as_etcd_does() {
    let servers = (Server::etcd(1), Server::embedded());
    let (mut etcd, mut embedded) = (Side::new(&servers.0[0].host).await, Side::new(&servers.1.host).await);
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[23; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut succeeded = 0;
    for nth in 0..REQUESTS {
        let request = request().new_tree(&mut runner).unwrap().current();
        let words = |error: etcd_client::Error| match error {
            etcd_client::Error::GRpcStatus(status) => format!("{:?}: {}", status.code(), status.message()),
            other => panic!("no answer: {other}"),
        };
        let expected = etcd.ask(&request).await.map_err(words);
        let answer = embedded.ask(&request).await.map_err(words);
        assert_eq!(answer, expected, "request {nth}: {request:?}");
        succeeded += usize::from(expected.is_ok());
    }
    assert!(succeeded > REQUESTS / 2, "most requests are to do something, not to be refused: {succeeded}");
    assert_eq!(embedded.past().await, etcd.past().await);
}
