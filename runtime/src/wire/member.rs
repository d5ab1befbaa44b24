//! `members/<name>`: what each member says of itself.

use matriarch_core::event::{RestartConditions, ScheduledRestart};
use matriarch_core::id::{Lsn, Member, Timeline};
use matriarch_core::view::store::MemberRecord;
use serde_json::{Map, Value, json};

use super::lenient;
use crate::schedule;

/// The level of Patroni that our records claim: its members compare `version` numerically, fall back to legacy keys and
/// protocols below 4.0.0, and cannot read anything but dotted integers. Our own version stands under [`MARK`].
pub const PATRONI_LEVEL: &str = "4.1.5";

/// The key that marks the record of one of ours: the version of this program. A Patroni member does not have it.
pub const MARK: &str = "matriarch";

/// The port of a `conn_url` that names none.
const PORT_DEFAULT: u16 = 5432;

/// What a member tells others that decisions do not need.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MemberExtras<'a> {
    /// The effective tags, falsy ones dropped.
    pub tags: &'a Map<String, Value>,
    /// `version`: [`PATRONI_LEVEL`].
    pub version: &'a str,
    /// The database of `conn_url`.
    pub database: &'a str,
    /// `postgresql.proxy_address` (`host:port`), if configured.
    pub proxy_address: Option<&'a str>,
}

/// The value of a member key. The tags are those of `extras`; the record's own are what readers make of them.
pub fn member_json(record: &MemberRecord, extras: &MemberExtras<'_>) -> String {
    let mut member = Map::new();
    let mut put = |key: &str, value: Value| drop(member.insert(key.to_owned(), value));
    let database = extras.database;
    put("conn_url", format!("postgres://{}:{}/{database}", bracketed(&record.host), record.port).into());
    put("api_url", record.api_url.as_str().into());
    put("state", record.state.as_str().into());
    put("role", record.role.as_str().into());
    put("version", extras.version.into());
    if let Some(address) = extras.proxy_address {
        put("proxy_url", format!("postgres://{address}/{database}").into());
    }
    if record.checkpoint_pending {
        put("checkpoint_after_promote", false.into());
    }
    if !extras.tags.is_empty() {
        put("tags", Value::Object(extras.tags.clone()));
    }
    if !record.pending_restart.is_empty() {
        put("pending_restart", true.into());
        put("pending_restart_reason", pending_json(&record.pending_restart));
    }
    if record.position > Lsn(0) {
        put("xlog_location", record.position.0.into());
    }
    if !is_primary(&record.role) {
        for (key, position) in [("replay_lsn", record.replayed), ("receive_lsn", record.received)] {
            if position > Lsn(0) {
                put(key, position.0.into());
            }
        }
        if !record.replication_state.is_empty() {
            put("replication_state", record.replication_state.as_str().into());
        }
    }
    if record.timeline > Timeline(0) {
        put("timeline", record.timeline.0.into());
    }
    if let Some(restart) = record.scheduled_restart.as_deref() {
        let mut told = scheduled_restart(restart);
        let started = restart.postmaster_start_us;
        let started = if started == 0 { Value::Null } else { schedule::micros_text(started).into() };
        told.insert("postmaster_start_time".to_owned(), started);
        put("scheduled_restart", told.into());
    }
    if record.paused {
        put("pause", true.into());
    }
    if record.pledges {
        put(MARK, env!("CARGO_PKG_VERSION").into());
    }
    Value::Object(member).to_string()
}

/// Reads the value of a member key: the JSON object, or the legacy `postgres://...?application_name=<api url>`. What is
/// neither is a member of which nothing is known.
pub fn member_record(text: &str) -> MemberRecord {
    if text.starts_with("postgres") {
        return legacy(text);
    }
    let member = lenient::object(text).unwrap_or_default();
    let string = |key| lenient::text_at(&member, key).to_owned();
    let position = |key| Lsn(lenient::unsigned_at(&member, key));
    let (host, port) = host_and_port(lenient::text_at(&member, "conn_url"));
    let role = string("role");
    MemberRecord {
        host,
        port,
        api_url: string("api_url"),
        state: string("state"),
        role: if is_primary(&role) { "primary".to_owned() } else { role },
        timeline: Timeline(u32::try_from(lenient::unsigned_at(&member, "timeline")).unwrap_or_default()),
        position: position("xlog_location"),
        received: position("receive_lsn"),
        replayed: position("replay_lsn"),
        replication_state: string("replication_state"),
        checkpoint_pending: member.get("checkpoint_after_promote") == Some(&Value::Bool(false)),
        pledges: member.contains_key(MARK),
        paused: member.get("pause").is_some_and(lenient::truthy),
        pending_restart: pending(&member),
        ..tagged(member.get("tags").and_then(Value::as_object).unwrap_or(&Map::new()))
    }
}

/// `primary`, or `master` as it was called before Patroni 4.
pub(super) fn is_primary(role: &str) -> bool {
    role == "primary" || role == "master"
}

/// A record that holds what the tags mean, and nothing else. A set `nofailover` decides over `failover_priority`.
fn tagged(tags: &Map<String, Value>) -> MemberRecord {
    let set = |key| tags.get(key).filter(|value| !value.is_null());
    let is = |key| set(key).is_some_and(lenient::truthy);
    let priority = set("failover_priority").and_then(signed);
    MemberRecord {
        nofailover: set("nofailover").map_or(priority.is_some_and(|priority| priority <= 0), lenient::truthy),
        failover_priority: if is("nofailover") { 0 } else { priority.unwrap_or(1) },
        nostream: set("nostream").is_some_and(lenient::switched_on),
        clonefrom: is("clonefrom"),
        replicatefrom: set("replicatefrom").and_then(Value::as_str).filter(|name| !name.is_empty()).map(Member::new),
        ..MemberRecord::default()
    }
}

fn legacy(url: &str) -> MemberRecord {
    let (url, query) = url.split_once('?').unwrap_or((url, ""));
    let (host, port) = host_and_port(url);
    let api_url = query.split('&').find_map(|pair| pair.strip_prefix("application_name=")).unwrap_or_default();
    MemberRecord { host, port, api_url: lenient::percent_decoded(api_url), ..tagged(&Map::new()) }
}

/// Host and port of a connection URL; an empty host and 0 if there is none. A host with blanks in it is none: it becomes
/// part of a line in PostgreSQL's configuration and in the password file, and would end it.
fn host_and_port(url: &str) -> (String, u16) {
    let Some((_, rest)) = url.split_once("://") else { return (String::new(), 0) };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    let (host, port) = match address.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':').unwrap_or_default()),
        // More than one colon without brackets: an IPv6 address whose writer forgot them.
        None if address.matches(':').count() > 1 => (address, ""),
        None => address.split_once(':').unwrap_or((address, "")),
    };
    if host.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return (String::new(), 0);
    }
    (host.to_owned(), port.parse().unwrap_or(PORT_DEFAULT))
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// What a member tells of the restart that is scheduled on it, as `GET /patroni` shows it.
pub fn scheduled_restart(restart: &ScheduledRestart) -> Map<String, Value> {
    let RestartConditions { role, below_version, only_pending } = &restart.conditions;
    let told = [
        ("schedule", Some(restart.schedule.text.as_str().into())),
        ("role", role.as_deref().map(Value::from)),
        ("postgres_version", below_version.as_ref().map(|(text, _)| text.as_str().into())),
        ("timeout", restart.timeout_s.map(Value::from)),
        ("restart_pending", only_pending.then_some(Value::Bool(true))),
    ];
    told.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

fn pending_json(pending: &[(String, String, String)]) -> Value {
    let reasons = pending.iter().map(|(name, old, new)| (name.clone(), json!({"old_value": old, "new_value": new})));
    Value::Object(reasons.collect())
}

fn pending(member: &Map<String, Value>) -> Vec<(String, String, String)> {
    let Some(Value::Object(reasons)) = member.get("pending_restart_reason") else { return Vec::new() };
    let text = |reason: &Value, key: &str| match reason.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let read = |(name, reason): (&String, &Value)| (name.clone(), text(reason, "old_value"), text(reason, "new_value"));
    reasons.iter().map(read).collect()
}

fn signed(value: &Value) -> Option<i32> {
    let number = match value {
        Value::String(text) => text.trim().parse().ok()?,
        _ => value.as_i64()?,
    };
    Some(i32::try_from(number).unwrap_or(if number < 0 { i32::MIN } else { i32::MAX }))
}

#[cfg(test)]
#[path = "member_test.rs"]
mod tests;
