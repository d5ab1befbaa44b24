//! Range, Put, DeleteRange and Txn on a state, with etcd's meaning and words.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;

use etcd_client::proto::{
    PbCompare, PbDeleteRequest, PbDeleteResponse, PbKeyValue, PbPutRequest, PbPutResponse, PbRangeRequest,
    PbRangeResponse, PbResponseOp, PbTargetUnion, PbTxnOpRequest, PbTxnOpResponse, PbTxnRequest, PbTxnRequestOp,
    PbTxnResponse,
};
use tonic::Status;

use super::state::{Draft, Effect, State, lease_not_found};

/// etcd's default limits.
const OPERATIONS_MAX: usize = 128;
const REQUEST_BYTES_MAX: usize = 3 << 19;

/// The keys that a request is about: one, `[start, end)`, or all from `start` on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct KeyRange {
    start: Vec<u8>,
    end: Bound<Vec<u8>>,
}

impl KeyRange {
    /// From etcd's `key` and `range_end`: none is one key, a zero byte is "no end".
    pub(super) fn new(key: &[u8], range_end: &[u8]) -> Self {
        let end = match range_end {
            [] => Bound::Included(key.to_vec()),
            [0] => Bound::Unbounded,
            end => Bound::Excluded(end.to_vec()),
        };
        // An empty key with an end means "from the first key on".
        Self { start: key.to_vec(), end }
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        let before_end = match &self.end {
            Bound::Included(end) => key <= end.as_slice(),
            Bound::Excluded(end) => key < end.as_slice(),
            Bound::Unbounded => true,
        };
        key >= self.start.as_slice() && before_end
    }

    fn select<'a>(&'a self, state: &'a State) -> impl Iterator<Item = &'a PbKeyValue> {
        let from = state.keys.range::<[u8], _>((Bound::Included(self.start.as_slice()), Bound::Unbounded));
        from.take_while(|(key, _)| self.contains(key)).map(|(_, kv)| kv)
    }
}

/// Reads. Only the present can be read: there is no older version of a key here, unlike in etcd.
pub(super) fn range(state: &State, request: &PbRangeRequest) -> Result<PbRangeResponse, Status> {
    check_key(&request.key, &request.range_end)?;
    if request.revision > state.revision {
        return Err(Status::out_of_range("etcdserver: mvcc: required revision is a future revision"));
    }
    if request.revision > 0 && request.revision < state.revision {
        return Err(Status::out_of_range("etcdserver: mvcc: required revision has been compacted"));
    }
    let within = |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    let wanted = KeyRange::new(&request.key, &request.range_end);
    let mut kvs: Vec<PbKeyValue> = wanted.select(state).cloned().collect();
    let count = kvs.len() as i64;
    kvs.retain(|kv| {
        within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
            && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
    });
    sort(&mut kvs, request.sort_target, request.sort_order);
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let more = limit > 0 && kvs.len() > limit;
    if more {
        kvs.truncate(limit);
    }
    if request.count_only {
        kvs.clear();
    }
    if request.keys_only {
        for kv in &mut kvs {
            kv.value.clear();
        }
    }
    Ok(PbRangeResponse { header: Some(state.header()), kvs, more, count })
}

/// Sorts as etcd's `SortTarget` and `SortOrder` say; they come ordered by key.
fn sort(kvs: &mut [PbKeyValue], target: i32, order: i32) {
    let by = |a: &PbKeyValue, b: &PbKeyValue| -> Ordering {
        match target {
            1 => a.version.cmp(&b.version),
            2 => a.create_revision.cmp(&b.create_revision),
            3 => a.mod_revision.cmp(&b.mod_revision),
            4 => a.value.cmp(&b.value),
            _ => a.key.cmp(&b.key),
        }
    };
    match (target, order) {
        (0, 0 | 1) => {}
        (_, 2) => kvs.sort_by(|a, b| by(b, a)),
        _ => kvs.sort_by(by),
    }
}

pub(super) fn put(draft: &mut Draft, request: PbPutRequest) -> Result<PbPutResponse, Status> {
    check_put(&draft.state, &request)?;
    let revision = draft.state.revision + 1;
    Ok(put_at(draft, request, revision))
}

pub(super) fn delete(draft: &mut Draft, request: &PbDeleteRequest) -> Result<PbDeleteResponse, Status> {
    check_key(&request.key, &request.range_end)?;
    let revision = draft.state.revision + 1;
    Ok(delete_at(draft, request, revision))
}

pub(super) fn transact(draft: &mut Draft, request: PbTxnRequest) -> Result<PbTxnResponse, Status> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    if longest > OPERATIONS_MAX {
        return Err(Status::invalid_argument("etcdserver: too many operations in txn request"));
    }
    for branch in [&request.success, &request.failure] {
        check_branch(branch)?;
    }
    let mut succeeded = true;
    for compare in &request.compare {
        succeeded &= holds(&draft.state, compare)?;
    }
    let branch = if succeeded { request.success } else { request.failure };
    // Everything that can fail fails here, before the first effect.
    for operation in branch.iter().filter_map(|operation| operation.request.as_ref()) {
        match operation {
            PbTxnOpRequest::RequestPut(put) => check_put(&draft.state, put)?,
            PbTxnOpRequest::RequestRange(read) => drop(range(&draft.state, read)?),
            PbTxnOpRequest::RequestDeleteRange(_) | PbTxnOpRequest::RequestTxn(_) => {}
        }
    }
    let revision = draft.state.revision + 1;
    let mut responses = Vec::with_capacity(branch.len());
    for operation in branch.into_iter().filter_map(|operation| operation.request) {
        let response = match operation {
            PbTxnOpRequest::RequestPut(put) => PbTxnOpResponse::ResponsePut(put_at(draft, put, revision)),
            PbTxnOpRequest::RequestRange(read) => PbTxnOpResponse::ResponseRange(range(&draft.state, &read)?),
            PbTxnOpRequest::RequestDeleteRange(delete) => {
                PbTxnOpResponse::ResponseDeleteRange(delete_at(draft, &delete, revision))
            }
            PbTxnOpRequest::RequestTxn(_) => return Err(nested()),
        };
        responses.push(PbResponseOp { response: Some(response) });
    }
    Ok(PbTxnResponse { header: Some(draft.state.header()), succeeded, responses })
}

fn put_at(draft: &mut Draft, request: PbPutRequest, revision: i64) -> PbPutResponse {
    let previous = draft.state.keys.get(&request.key).cloned();
    let (value, lease) = (request.value, request.lease);
    let kv = PbKeyValue {
        create_revision: previous.as_ref().map_or(revision, |kv| kv.create_revision),
        mod_revision: revision,
        version: previous.as_ref().map_or(1, |kv| kv.version + 1),
        value: previous.as_ref().filter(|_| request.ignore_value).map_or(value, |kv| kv.value.clone()),
        lease: previous.as_ref().filter(|_| request.ignore_lease).map_or(lease, |kv| kv.lease),
        key: request.key,
    };
    draft.apply(Effect::Put(kv));
    PbPutResponse { header: Some(draft.state.header()), prev_kv: previous.filter(|_| request.prev_kv) }
}

fn delete_at(draft: &mut Draft, request: &PbDeleteRequest, revision: i64) -> PbDeleteResponse {
    let range = KeyRange::new(&request.key, &request.range_end);
    let gone: Vec<PbKeyValue> = range.select(&draft.state).cloned().collect();
    for kv in &gone {
        draft.apply(Effect::Delete { key: kv.key.clone(), revision });
    }
    let deleted = gone.len() as i64;
    let prev_kvs = if request.prev_kv { gone } else { Vec::new() };
    PbDeleteResponse { header: Some(draft.state.header()), deleted, prev_kvs }
}

fn check_key(key: &[u8], range_end: &[u8]) -> Result<(), Status> {
    if key.is_empty() && range_end.is_empty() {
        return Err(Status::invalid_argument("etcdserver: key is not provided"));
    }
    Ok(())
}

fn check_put(state: &State, request: &PbPutRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(Status::invalid_argument("etcdserver: key is not provided"));
    }
    if request.key.len() + request.value.len() > REQUEST_BYTES_MAX {
        return Err(Status::invalid_argument("etcdserver: request is too large"));
    }
    if request.lease != 0 && !state.leases.contains_key(&request.lease) {
        return Err(lease_not_found());
    }
    if (request.ignore_value || request.ignore_lease) && !state.keys.contains_key(&request.key) {
        return Err(Status::invalid_argument("etcdserver: key not found"));
    }
    Ok(())
}

/// A transaction may write a key once: put it twice, or put and delete it, and there is no one answer at its revision.
fn check_branch(branch: &[PbTxnRequestOp]) -> Result<(), Status> {
    let mut written = BTreeSet::new();
    let mut deleted = Vec::new();
    for operation in branch.iter().filter_map(|operation| operation.request.as_ref()) {
        match operation {
            PbTxnOpRequest::RequestPut(put) if !written.insert(put.key.as_slice()) => return Err(duplicate()),
            PbTxnOpRequest::RequestPut(_) => {}
            PbTxnOpRequest::RequestRange(read) => check_key(&read.key, &read.range_end)?,
            PbTxnOpRequest::RequestDeleteRange(delete) => {
                check_key(&delete.key, &delete.range_end)?;
                deleted.push(KeyRange::new(&delete.key, &delete.range_end));
            }
            PbTxnOpRequest::RequestTxn(_) => return Err(nested()),
        }
    }
    if written.iter().any(|key| deleted.iter().any(|range| range.contains(key))) {
        return Err(duplicate());
    }
    Ok(())
}

fn duplicate() -> Status {
    Status::invalid_argument("etcdserver: duplicate key given in txn request")
}

fn nested() -> Status {
    Status::invalid_argument("etcdserver: the embedded store takes no transaction within a transaction")
}

/// Whether a comparison holds, for every key of its range if it has one. A key that does not exist has revision,
/// version and lease 0, and no value that anything could be compared with.
fn holds(state: &State, compare: &PbCompare) -> Result<bool, Status> {
    let Some(target) = &compare.target_union else {
        return Err(Status::invalid_argument("etcdserver: a comparison without a target"));
    };
    let absent = PbKeyValue::default();
    let one = |kv: Option<&PbKeyValue>| {
        let found = kv.unwrap_or(&absent);
        let order = match target {
            PbTargetUnion::Version(wanted) => found.version.cmp(wanted),
            PbTargetUnion::CreateRevision(wanted) => found.create_revision.cmp(wanted),
            PbTargetUnion::ModRevision(wanted) => found.mod_revision.cmp(wanted),
            PbTargetUnion::Lease(wanted) => found.lease.cmp(wanted),
            PbTargetUnion::Value(_) if kv.is_none() => return false,
            PbTargetUnion::Value(wanted) => found.value.cmp(wanted),
        };
        match compare.result {
            0 => order.is_eq(),
            1 => order.is_gt(),
            2 => order.is_lt(),
            _ => order.is_ne(),
        }
    };
    if compare.range_end.is_empty() {
        return Ok(one(state.keys.get(&compare.key)));
    }
    let range = KeyRange::new(&compare.key, &compare.range_end);
    let mut selected = range.select(state).peekable();
    Ok(if selected.peek().is_none() { one(None) } else { selected.all(|kv| one(Some(kv))) })
}
