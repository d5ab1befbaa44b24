//! All keys of a cluster, as core sees them.

use matriarch_core::id::{LeaseId, Member, Revision, StoreId, SystemId};
use matriarch_core::view::store::{ClusterView, FailoverKey, HistoryKey, Initialize, LeaderKey, MemberKey, StatusKey};

use super::{RawEntry, epoch, failover, history, keys, lenient, member, status};

/// A system identifier has at least so many digits; anything shorter in `initialize` is not one.
const SYSTEM_ID_DIGITS_MIN: usize = 10;

/// Reads the keys of a cluster as they were in `store` at `revision`. Keys that are not known are ignored, values that
/// cannot be understood are tolerated key by key.
pub fn cluster_view(store: StoreId, revision: Revision, entries: &[RawEntry<'_>]) -> ClusterView {
    let mut view = ClusterView { store, revision, ..ClusterView::default() };
    let mut legacy = None;
    for entry in entries {
        let modified = Revision(entry.mod_revision);
        match entry.key {
            keys::LEADER => view.leader = Some(leader(entry)),
            keys::INITIALIZE => {
                let (lease, system_id) = (LeaseId(entry.lease), system_id(entry.value));
                view.initialize = Some(Initialize { revision: modified, lease, system_id });
            }
            // What is not an object must look absent: it must never replace a configuration in force.
            keys::CONFIG => {
                if let Some(config) = lenient::object(entry.value) {
                    view.config_revision = modified;
                    view.paused = Some(config.get("pause").is_some_and(lenient::switched_on));
                }
            }
            keys::STATUS => view.status = Some(status::status_key(modified, entry.value)),
            keys::OPTIME_LEADER => legacy = status::legacy_optime(entry.value),
            keys::FAILOVER => {
                view.failover_revision = modified;
                view.failover = failover::request(entry.value).map(|request| FailoverKey {
                    revision: modified,
                    leader: request.leader,
                    candidate: request.candidate,
                    scheduled_at: request.scheduled_at.map(|moment| moment.at),
                });
            }
            keys::SYNC => view.sync_revision = modified,
            keys::HISTORY => {
                let lines = history::history_lines(entry.value);
                let unreadable = lines.is_none();
                view.history = HistoryKey { revision: modified, lines: lines.unwrap_or_default(), unreadable };
            }
            keys::MATRIARCH => view.epoch = Some(epoch::epoch_record(modified, entry.value)),
            key => {
                if let Some(name) = keys::member_name(key) {
                    view.members.insert(Member::new(name), member_key(entry));
                }
            }
        }
    }
    if let (None, Some(optime)) = (&view.status, legacy) {
        view.status = Some(StatusKey { optime, ..StatusKey::default() });
    }
    view
}

fn leader(entry: &RawEntry<'_>) -> LeaderKey {
    LeaderKey {
        member: Member::new(entry.value),
        lease: LeaseId(entry.lease),
        created: Revision(entry.create_revision),
        modified: Revision(entry.mod_revision),
    }
}

fn member_key(entry: &RawEntry<'_>) -> MemberKey {
    MemberKey {
        revision: Revision(entry.mod_revision),
        lease: LeaseId(entry.lease),
        record: member::member_record(entry.value),
    }
}

/// A valid system identifier: digits only, and enough of them.
fn system_id(text: &str) -> Option<SystemId> {
    let valid = text.len() >= SYSTEM_ID_DIGITS_MIN && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| valid).map(SystemId)
}

#[cfg(test)]
#[path = "cluster_test.rs"]
mod tests;
