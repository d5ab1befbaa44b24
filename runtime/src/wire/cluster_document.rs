//! The document of `GET /cluster`: what the REST API shows and what `list` and `topology` draw.

use std::collections::BTreeMap;

use matriarch_core::id::{Lsn, Member};
use matriarch_core::view::store::{ClusterView, MemberRecord};
use serde_json::{Map, Value};

use super::failover::FailoverRequest;
use super::{RawEntry, failover, keys, lenient};

/// What a member's own words are passed on for, in this order, whatever they hold.
const PASSED_ON: [&str; 5] = ["timeline", "pending_restart", "pending_restart_reason", "scheduled_restart", "tags"];

/// The `/cluster` document of the cluster `scope`: `view` and the `entries` that it was made from. Members are sorted
/// by name; the leader's lag is not shown; a position that a member does not tell is `"unknown"`, and so is its lag.
pub fn cluster_document(scope: &str, view: &ClusterView, entries: &[RawEntry<'_>]) -> Value {
    let value = |key| entries.iter().find(|entry| entry.key == key).map(|entry| entry.value);
    let config = value(keys::CONFIG).and_then(lenient::object).unwrap_or_default();
    let modes = Modes::new(&config, value(keys::SYNC).unwrap_or_default());
    let told: BTreeMap<_, _> = entries
        .iter()
        .filter_map(|entry| Some((keys::member_name(entry.key)?, lenient::object(entry.value).unwrap_or_default())))
        .collect();

    let nothing = Map::new();
    let member =
        |(name, key): (&Member, _)| member(view, &modes, name, key, told.get(name.as_str()).unwrap_or(&nothing));
    let records = view.members.iter().map(|(name, key)| (name, &key.record));
    let mut document = Map::new();
    document.insert("members".to_owned(), Value::Array(records.map(member).collect()));
    if config.get("pause").is_some_and(lenient::switched_on) {
        document.insert("pause".to_owned(), true.into());
    }
    let request = value(keys::FAILOVER).and_then(failover::request);
    if let Some(scheduled) = request.and_then(scheduled_switchover) {
        document.insert("scheduled_switchover".to_owned(), scheduled);
    }
    document.insert("scope".to_owned(), scope.into());
    Value::Object(document)
}

/// The modes of the cluster that decide how roles are called.
struct Modes {
    standby_cluster: bool,
    /// What a synchronous standby is called.
    sync_role: &'static str,
    /// Synchronous standbys, if the configuration asks for synchronous replication.
    sync_standbys: Vec<String>,
}

impl Modes {
    fn new(config: &Map<String, Value>, sync: &str) -> Self {
        let remote = config.get("standby_cluster").and_then(Value::as_object);
        let set = |key| remote.and_then(|remote| remote.get(key)).is_some_and(lenient::truthy);
        let standby_cluster = set("host") || set("port") || set("restore_command");
        let mode = config.get("synchronous_mode").unwrap_or(&Value::Null);
        let quorum = mode.as_str().is_some_and(|mode| mode.eq_ignore_ascii_case("quorum"));
        let synchronous = !standby_cluster && (quorum || lenient::switched_on(mode));
        Self {
            standby_cluster,
            sync_role: if quorum { "quorum_standby" } else { "sync_standby" },
            sync_standbys: if synchronous { sync_standbys(sync) } else { Vec::new() },
        }
    }

    fn role(&self, name: &Member, leads: bool) -> &'static str {
        // Names in lists of synchronous standbys went through PostgreSQL, which folds their case.
        let is_name = |standby: &String| standby.eq_ignore_ascii_case(name.as_str());
        match (leads, self.standby_cluster) {
            (true, false) => "leader",
            (true, true) => "standby_leader",
            (false, _) if self.sync_standbys.iter().any(is_name) => self.sync_role,
            (false, _) => "replica",
        }
    }
}

/// The standbys that `sync` names; none if it names no leader, since it says nothing then.
fn sync_standbys(sync: &str) -> Vec<String> {
    let sync = lenient::object(sync).unwrap_or_default();
    if lenient::text_at(&sync, "leader").is_empty() {
        return Vec::new();
    }
    let names = lenient::text_at(&sync, "sync_standby").split(',').map(str::trim);
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn member(view: &ClusterView, modes: &Modes, name: &Member, record: &MemberRecord, told: &Map<String, Value>) -> Value {
    let leads = view.leader.as_ref().is_some_and(|leader| leader.member == *name);
    let role = modes.role(name, leads);
    let replication = Some(&record.replication_state).filter(|state| role != "leader" && !state.is_empty());

    let mut member = Map::new();
    let mut put = |key: &str, value: Value| drop(member.insert(key.to_owned(), value));
    put("name", name.as_str().into());
    put("role", role.into());
    put("state", replication.unwrap_or(&record.state).as_str().into());
    put("api_url", Some(record.api_url.as_str()).filter(|url| !url.is_empty()).into());
    if !record.host.is_empty() {
        put("host", record.host.as_str().into());
        put("port", record.port.into());
    }
    for key in PASSED_ON {
        if let Some(value) = told.get(key) {
            put(key, value.clone());
        }
    }
    if !leads {
        let optime = view.status.as_ref().map_or(Lsn(0), |status| status.optime);
        let positions = [("receive_", record.received), ("replay_", record.replayed), ("", record.position)];
        for (prefix, position) in positions {
            let (lag, lsn) = (format!("{prefix}lag"), format!("{prefix}lsn"));
            if position > Lsn(0) {
                put(&lag, optime.bytes_ahead_of(position).into());
                put(&lsn, position.to_string().into());
            } else {
                // Patroni turns the two round here.
                put(&lsn, "unknown".into());
                put(&lag, "unknown".into());
            }
        }
    }
    Value::Object(member)
}

fn scheduled_switchover(request: FailoverRequest) -> Option<Value> {
    let mut scheduled = Map::new();
    scheduled.insert("at".to_owned(), request.scheduled_at?.text.into());
    for (key, member) in [("from", request.leader), ("to", request.candidate)] {
        if let Some(member) = member {
            scheduled.insert(key.to_owned(), member.0.into());
        }
    }
    Some(Value::Object(scheduled))
}

#[cfg(test)]
#[path = "cluster_document_test.rs"]
mod tests;
