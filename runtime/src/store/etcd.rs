//! The etcd v3 adapter: one channel and one client a member, chosen by us, with a deadline on every call.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{
    Compare, CompareOp, GetOptions, GetResponse, PutOptions, ResponseHeader, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use matriarch_core::id::{LeaseId, Revision, StoreId};
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::time::Instant as Moment;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::horizon::{Horizon, standing};
use super::keep_alive;
use super::member::{Fault, Member, entry, header};
use super::renew;
use super::watch::{self, WatchEvent};
use super::{Committed, Entry, Granted, Guard, KeyRead, Operation, Renewed, Snapshot, Transacted, Transaction};
use crate::clock::{self, Clock};
use crate::net::Connector;

/// A member that answered this recently is trusted with a write. An older one is asked something harmless first, since
/// a write that is lost in a frozen member cannot be sent again.
const TRUSTED_FOR: Duration = Duration::from_millis(500);
/// The pause after every member failed once, doubled up to the largest.
pub(super) const PASS_PAUSE: Duration = Duration::from_millis(20);
const PASS_PAUSE_MAX: Duration = Duration::from_millis(500);

/// A store of one or several members that speak etcd v3. Cheap to clone; all methods may be called concurrently.
#[derive(Clone)]
pub struct EtcdStore(Arc<Shared>);

pub(super) struct Shared {
    clock: Arc<dyn Clock>,
    pub(super) members: Vec<Arc<Member>>,
    pub(super) horizon: Horizon,
    sticky: AtomicUsize,
}

/// Whether a call may be sent again when it is not known what became of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Harmless,
    Never,
}

impl EtcdStore {
    /// A store behind `hosts` (each `host:port`), with an optional user and password. Connects when first used. Must be
    /// called within a tokio runtime. Panics if `hosts` is empty.
    pub fn new(hosts: Vec<String>, auth: Option<(String, String)>, connector: Connector) -> Self {
        Self::on_clock(hosts, auth, connector, clock::host())
    }

    /// As [`Self::new`], with what is asked and heard dated by `clock`.
    #[expect(clippy::needless_pass_by_value, reason = "each member keeps its own copy")]
    pub fn on_clock(
        hosts: Vec<String>,
        auth: Option<(String, String)>,
        connector: Connector,
        clock: Arc<dyn Clock>,
    ) -> Self {
        assert!(!hosts.is_empty(), "a store needs at least one host");
        let member = |host: String| Arc::new(Member::new(&host, auth.clone(), connector.clone(), Arc::clone(&clock)));
        Self(Arc::new(Shared {
            clock: Arc::clone(&clock),
            members: hosts.into_iter().map(member).collect(),
            horizon: Horizon::default(),
            sticky: AtomicUsize::new(0),
        }))
    }

    /// The clock that questions and answers are dated by.
    pub fn clock(&self) -> &dyn Clock {
        &*self.0.clock
    }

    /// Says how long a tenure may last: a store that went back is believed only after that. The longest counts.
    pub fn allow_tenure(&self, ttl: Duration) {
        self.0.horizon.allow_tenure(ttl);
    }

    /// Reads all keys under `prefix`, linearizably.
    pub async fn read_prefix(&self, prefix: &str, deadline: Duration) -> Outcome<Snapshot> {
        let shared = &self.0;
        let read = |member: Arc<Member>| async move {
            let options = GetOptions::new().with_prefix();
            let Answered { reply, asked, heard, rollbacks } = shared.range(&member, prefix, options).await?;
            let head = header(&member.host, reply.header())?;
            Ok(snapshot(head, rollbacks, reply.kvs().iter().map(entry).collect(), asked, heard))
        };
        shared.each_in_turn(Repeat::Harmless, deadline, read).await
    }

    /// Reads one key, linearizably.
    pub async fn read_key(&self, key: &str, deadline: Duration) -> Outcome<KeyRead> {
        let shared = &self.0;
        let read = |member: Arc<Member>| async move { shared.read_key_at(&member, key).await };
        shared.each_in_turn(Repeat::Harmless, deadline, read).await
    }

    /// Grants a lease. May be sent again after an ambiguous error: a lease nobody knows of expires unused.
    pub async fn grant(&self, ttl_seconds: i64, deadline: Duration) -> Outcome<Granted> {
        let grant = |member: Arc<Member>| async move {
            let mut client = member.client().await?.lease_client();
            let asked = self.clock().now();
            let reply = client.grant(ttl_seconds, None).await.map_err(|error| member.fault(error))?;
            let ttl = Duration::from_secs(reply.ttl().unsigned_abs());
            Ok(Granted { lease: LeaseId(reply.id()), ttl, asked, heard: self.clock().now() })
        };
        self.0.each_in_turn(Repeat::Harmless, deadline, grant).await
    }

    /// Revokes a lease, which deletes its keys and makes every delayed request that carries it fail. Done also if there
    /// is no such lease (any more).
    pub async fn revoke(&self, lease: LeaseId, deadline: Duration) -> Outcome<()> {
        let revoke = |member: Arc<Member>| async move {
            let mut client = member.client().await?.lease_client();
            match client.revoke(lease.0).await.map_err(|error| member.fault(error)) {
                Ok(_) | Err(Fault::Refused(Refusal::LeaseGone)) => Ok(()),
                Err(fault) => Err(fault),
            }
        };
        self.0.each_in_turn(Repeat::Harmless, deadline, revoke).await
    }

    /// Keeps a lease alive, and proves nothing about any key.
    pub async fn keep_session(&self, lease: LeaseId, deadline: Duration) -> Outcome<Renewed> {
        let keep = |member: Arc<Member>| async move { keep_alive::again(&member, lease).await };
        self.0.each_in_turn(Repeat::Harmless, deadline, keep).await
    }

    /// Renews a tenure: a keep-alive of its lease and, through the same member and under the same raft term, the proof
    /// that `key` still carries that lease and was created at `create_revision`. A second attempt through another
    /// member starts after a third of `deadline`; the first success wins.
    ///
    /// `Refused(LeaseGone)`: the lease does not exist. `Refused(Conflict)`: the key is absent or not ours.
    pub async fn renew(
        &self,
        tenure: LeaseId,
        key: &str,
        create_revision: Revision,
        deadline: Duration,
    ) -> Outcome<Renewed> {
        renew::renew(&self.0, renew::Proof { tenure, key: key.into(), create_revision }, deadline).await
    }

    /// Commits a guarded write, at most once: after an ambiguous error it is not sent again, the outcome is `Unknown`.
    pub async fn transact(&self, transaction: Transaction, deadline: Duration) -> Transacted {
        let shared = &self.0;
        let end = Instant::now() + deadline;
        if !shared.sticky().answered_within(TRUSTED_FOR)
            && let Some(key) = first_key(&transaction)
            && let Outcome::Unknown(why) = self.read_key(key, deadline).await
        {
            return Transacted { outcome: Outcome::Unknown(format!("not sent: {why}")), seen_instead: None };
        }
        let (request, transaction) = (&request(&transaction), &transaction);
        let commit = |member: Arc<Member>| async move {
            let mut client = member.kv().await?;
            let floor = shared.horizon.floor();
            let asked = shared.clock.now();
            let reply = client.txn(request.clone()).await.map_err(|error| member.fault(error))?;
            let told = standing(header(&member.host, reply.header())?);
            let rollbacks = shared.horizon.admit(floor, told, &member.host, shared.clock.now())?;
            transacted(&member.host, transaction, &reply, rollbacks, (asked, shared.clock.now()))
        };
        let left = end.saturating_duration_since(Instant::now());
        match shared.each_in_turn(Repeat::Never, left, commit).await {
            Outcome::Done(transacted) => transacted,
            Outcome::Refused(refusal) => Transacted { outcome: Outcome::Refused(refusal), seen_instead: None },
            Outcome::Unknown(why) => Transacted { outcome: Outcome::Unknown(why), seen_instead: None },
        }
    }

    /// Watches `prefix` from `from` on (inclusive) through two members, and hands out every change once and in order.
    /// Ends when the receiver is dropped. Must be called within a tokio runtime.
    pub fn watch(&self, prefix: &str, from: Revision) -> mpsc::Receiver<WatchEvent> {
        watch::start(self.0.clone(), prefix, from)
    }
}

impl Shared {
    fn sticky(&self) -> &Arc<Member> {
        &self.members[self.sticky.load(Ordering::Relaxed) % self.members.len()]
    }

    /// The members in the order in which to ask them: the sticky one, then those whose last failure is longest ago.
    pub(super) fn order(&self) -> Vec<(usize, Arc<Member>)> {
        let sticky = self.sticky.load(Ordering::Relaxed);
        let mut order: Vec<_> = self.members.iter().cloned().enumerate().collect();
        order.sort_by_key(|(index, member)| (*index != sticky, member.failed_at(), *index < sticky, *index));
        order
    }

    /// Notes that a member answered, and stays with it.
    pub(super) fn stay_with(&self, index: usize, member: &Member) {
        member.mark_heard();
        self.sticky.store(index, Ordering::Relaxed);
    }

    /// Asks one member after the other until one answers or the deadline is over. Attempts share what is left of it.
    async fn each_in_turn<T, F, Fut>(&self, repeat: Repeat, deadline: Duration, attempt: F) -> Outcome<T>
    where
        F: Fn(Arc<Member>) -> Fut,
        Fut: Future<Output = Result<T, Fault>>,
    {
        let end = Instant::now() + deadline;
        let mut pause = PASS_PAUSE;
        let mut last = String::from("the deadline left no time for an attempt");
        loop {
            let order = self.order();
            for (nth, (index, member)) in order.iter().enumerate() {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Outcome::Unknown(last);
                }
                let share = match repeat {
                    Repeat::Harmless => left / (order.len() - nth) as u32,
                    Repeat::Never => left,
                };
                let fault = match timeout(share, attempt(member.clone())).await {
                    Ok(Ok(value)) => {
                        self.stay_with(*index, member);
                        return Outcome::Done(value);
                    }
                    Ok(Err(Fault::Refused(refusal))) => {
                        self.stay_with(*index, member);
                        return Outcome::Refused(refusal);
                    }
                    Ok(Err(fault)) => fault,
                    Err(_) => Fault::Ambiguous(format!("{}: no answer within {share:?}", member.host)),
                };
                member.mark_failed();
                last = match fault {
                    Fault::Ambiguous(why) if repeat == Repeat::Never => return Outcome::Unknown(why),
                    Fault::Ambiguous(why) | Fault::NotSent(why) => why,
                    Fault::Refused(refusal) => return Outcome::Refused(refusal),
                };
            }
            sleep(pause.min(end.saturating_duration_since(Instant::now()))).await;
            pause = (pause * 2).min(PASS_PAUSE_MAX);
        }
    }

    /// A linearizable read of one key through `member`.
    pub(super) async fn read_key_at(&self, member: &Member, key: &str) -> Result<KeyRead, Fault> {
        let Answered { reply, asked, heard, .. } = self.range(member, key, GetOptions::new()).await?;
        let head = header(&member.host, reply.header())?;
        Ok(KeyRead {
            store_id: StoreId(head.cluster_id()),
            revision: Revision(head.revision()),
            raft_term: head.raft_term(),
            entry: reply.kvs().first().map(entry),
            asked,
            heard,
        })
    }

    async fn range(&self, member: &Member, key: &str, options: GetOptions) -> Result<Answered, Fault> {
        let mut client = member.kv().await?;
        let floor = self.horizon.floor();
        let asked = self.clock.now();
        let reply = client.get(key, Some(options)).await.map_err(|error| member.fault(error))?;
        let heard = self.clock.now();
        let told = standing(header(&member.host, reply.header())?);
        let rollbacks = self.horizon.admit(floor, told, &member.host, heard)?;
        Ok(Answered { reply, asked, heard, rollbacks })
    }
}

/// The reply to a linearizable read.
struct Answered {
    reply: GetResponse,
    asked: Moment,
    heard: Moment,
    /// How often the store had gone back.
    rollbacks: u64,
}

fn snapshot(head: &ResponseHeader, rollbacks: u64, entries: Vec<Entry>, asked: Moment, heard: Moment) -> Snapshot {
    let (store_id, revision) = (StoreId(head.cluster_id()), Revision(head.revision()));
    Snapshot { store_id, rollbacks, revision, raft_term: head.raft_term(), entries, asked, heard }
}

/// The key to ask for before a write: one that the login may read.
fn first_key(transaction: &Transaction) -> Option<&str> {
    let guard = transaction.guards.first().map(|guard| match guard {
        Guard::Absent(key)
        | Guard::CreateRevision(key, _)
        | Guard::ModRevision(key, _)
        | Guard::Value(key, _)
        | Guard::Lease(key, _) => key.as_str(),
    });
    guard.or_else(|| {
        transaction.operations.first().map(|operation| match operation {
            Operation::Put { key, .. } | Operation::Delete(key) => key.as_str(),
        })
    })
}

fn request(transaction: &Transaction) -> Txn {
    let equal = CompareOp::Equal;
    let compare = |guard: &Guard| match guard {
        Guard::Absent(key) => vec![Compare::create_revision(key.as_str(), equal, 0)],
        Guard::CreateRevision(key, revision) => vec![Compare::create_revision(key.as_str(), equal, revision.0)],
        Guard::ModRevision(key, revision) => vec![Compare::mod_revision(key.as_str(), equal, revision.0)],
        Guard::Value(key, value) => vec![Compare::value(key.as_str(), equal, value.clone())],
        // An absent key compares like one without a lease.
        Guard::Lease(key, lease) => vec![
            Compare::lease(key.as_str(), equal, lease.0),
            Compare::create_revision(key.as_str(), CompareOp::Greater, 0),
        ],
    };
    let operation = |operation: &Operation| match operation {
        Operation::Put { key, value, lease } => {
            let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
            TxnOp::put(key.as_str(), value.clone(), options)
        }
        Operation::Delete(key) => TxnOp::delete(key.as_str(), None),
    };
    let read = |prefix: &Option<String>| {
        let prefix = prefix.as_deref();
        prefix.map(|prefix| TxnOp::get(prefix, Some(GetOptions::new().with_prefix())))
    };
    let success = transaction.operations.iter().map(operation).chain(read(&transaction.then_read));
    let failure = read(&transaction.on_refusal_read).into_iter();
    Txn::new()
        .when(transaction.guards.iter().flat_map(compare).collect::<Vec<_>>())
        .and_then(success.collect::<Vec<_>>())
        .or_else(failure.collect::<Vec<_>>())
}

fn transacted(
    host: &str,
    transaction: &Transaction,
    reply: &TxnResponse,
    rollbacks: u64,
    (asked, heard): (Moment, Moment),
) -> Result<Transacted, Fault> {
    let head = header(host, reply.header())?;
    let read_back = reply.op_responses().into_iter().rev().find_map(|response| match response {
        TxnOpResponse::Get(range) => {
            Some(snapshot(head, rollbacks, range.kvs().iter().map(entry).collect(), asked, heard))
        }
        _ => None,
    });
    if !reply.succeeded() {
        return Ok(Transacted { outcome: Outcome::Refused(Refusal::Conflict), seen_instead: read_back });
    }
    if transaction.then_read.is_some() && read_back.is_none() {
        return Err(Fault::Ambiguous(format!("{host}: a transaction's reply without the read that was asked for")));
    }
    let (store_id, revision) = (StoreId(head.cluster_id()), Revision(head.revision()));
    let committed = Committed { store_id, revision, snapshot: read_back, asked, heard };
    Ok(Transacted { outcome: Outcome::Done(committed), seen_instead: None })
}
