//! The GUCs PostgreSQL is started with: those the whole cluster must share, and the rest.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::check::join;
use super::dynamic::{DynamicConfig, SynchronousMode};
use super::local::LocalConfig;
use super::quantity::{bool_of, int_of, parse_int};

/// What PostgreSQL gets. Names are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Everything for the configuration file; `hba_file` and `ident_file` only if the user set them.
    pub all: BTreeMap<String, String>,
    /// What is passed as `--name=value`, in Patroni's order, so that ALTER SYSTEM cannot change it.
    pub command_line: Vec<(String, String)>,
    /// Recovery settings that the user gave, among the parameters or under `recovery_conf`.
    pub recovery: BTreeMap<String, String>,
    /// What was not taken as written, and why.
    pub warnings: Vec<String>,
}

/// How the value of a controlled GUC is judged.
#[derive(Clone, Copy)]
enum Rule {
    /// Follows from other keys; nobody sets it.
    Ours,
    Int(i64),
    Memory(i64),
    Bool,
    True,
    WalLevel,
}

/// The GUCs that count only in the dynamic configuration, with their defaults, in Patroni's order.
const CONTROLLED: &[(&str, &str, Rule)] = &[
    ("listen_addresses", "", Rule::Ours),
    ("port", "", Rule::Ours),
    ("cluster_name", "", Rule::Ours),
    ("wal_level", "replica", Rule::WalLevel),
    ("hot_standby", "on", Rule::True),
    ("max_connections", "100", Rule::Int(25)),
    ("max_wal_senders", "10", Rule::Int(3)),
    ("wal_keep_segments", "8", Rule::Int(1)),
    ("wal_keep_size", "128MB", Rule::Memory(16)),
    ("max_prepared_transactions", "0", Rule::Int(0)),
    ("max_locks_per_transaction", "64", Rule::Int(32)),
    ("track_commit_timestamp", "off", Rule::Bool),
    ("max_replication_slots", "10", Rule::Int(4)),
    ("max_worker_processes", "8", Rule::Int(2)),
    ("wal_log_hints", "on", Rule::Bool),
];

/// Recovery settings: they belong to how this node follows, not to the parameters.
const RECOVERY: &[&str] = &[
    "archive_cleanup_command",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "restore_command",
    "standby_mode",
    "trigger_file",
];

/// How soon a standby tries a lost upstream again. PostgreSQL's 5 s would let a standby sleep through a failover.
const WAL_RETRIEVE_RETRY_INTERVAL: &str = "500ms";
const WAL_SEGMENT_MB: i64 = 16;

/// Lays the node's own parameters over the cluster's and adds what the agent decides itself. `server_major` is
/// PostgreSQL's major version, 13 or later as `15`; older ones as `12`.
pub fn effective_parameters(local: &LocalConfig, dynamic: &DynamicConfig, server_major: u32) -> Parameters {
    let mut out = Parameters::default();
    let shared = lower_case(&dynamic.postgresql.parameters);
    let own = lower_case(&local.postgresql.parameters);
    let mut user: BTreeMap<&str, &Value> = BTreeMap::new();
    for (name, value) in &shared {
        if rule_of(name).is_none() {
            user.insert(name, value);
        }
    }
    for (name, value) in &own {
        if rule_of(name).is_none() {
            user.insert(name, value);
        } else {
            out.warnings.push(match name.as_str() {
                "listen_addresses" | "port" => {
                    format!("postgresql.parameters.{name} is not used: it follows from postgresql.listen")
                }
                "cluster_name" => "postgresql.parameters.cluster_name is not used: it is the scope".to_owned(),
                _ => format!(
                    "postgresql.parameters.{name} is not used in the local configuration: all members share the value \
                     of the dynamic configuration"
                ),
            });
        }
    }
    let controlled = controlled(local, &shared, server_major, &mut out.warnings);
    let synchronous = dynamic.synchronous_mode != SynchronousMode::Off;
    for (name, value) in user {
        let Some(text) = parameter_text(value) else {
            if !value.is_null() {
                out.warnings.push(format!("postgresql.parameters.{name} is not used: it is no single value"));
            }
            continue;
        };
        if is_recovery(name) {
            keep_recovery(&mut out, name, text, "postgresql.parameters");
        } else if name == "synchronous_standby_names" && synchronous {
            out.warnings.push(
                "postgresql.parameters.synchronous_standby_names is not used: synchronous_mode decides it".to_owned(),
            );
        } else {
            out.all.insert(name.to_owned(), text);
        }
    }
    recovery_conf(local, dynamic, &mut out);
    out.all.entry("wal_retrieve_retry_interval".to_owned()).or_insert_with(|| WAL_RETRIEVE_RETRY_INTERVAL.to_owned());
    out.command_line = controlled.iter().filter(|(n, _)| !n.starts_with("wal_keep_")).cloned().collect();
    out.all.extend(controlled);
    out
}

/// The settings that all members share, with their defaults: whole numbers as such.
pub fn shared_defaults(server_major: u32) -> Map<String, Value> {
    let value = |default: &str| default.parse::<i64>().map_or_else(|_| Value::from(default), Value::from);
    let other = if server_major >= 13 { "wal_keep_segments" } else { "wal_keep_size" };
    let shared = CONTROLLED.iter().filter(|(name, _, rule)| !matches!(rule, Rule::Ours) && *name != other);
    shared.map(|(name, default, _)| ((*name).to_owned(), value(default))).collect()
}

/// The text of a value for PostgreSQL: booleans as `on` and `off`. `None` for null, lists and mappings.
pub fn parameter_text(value: &Value) -> Option<String> {
    match value {
        Value::Bool(b) => Some(if *b { "on" } else { "off" }.to_owned()),
        Value::Number(n) => Some(n.to_string()),
        Value::String(s) => Some(s.clone()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn rule_of(name: &str) -> Option<Rule> {
    CONTROLLED.iter().find(|(n, _, _)| *n == name).map(|(_, _, rule)| *rule)
}

fn controlled(
    local: &LocalConfig,
    shared: &BTreeMap<String, Value>,
    server_major: u32,
    warnings: &mut Vec<String>,
) -> Vec<(String, String)> {
    let mut values: Vec<(String, String)> = Vec::new();
    for (name, default, rule) in CONTROLLED {
        let value = match (*name, rule) {
            ("listen_addresses", _) => local.postgresql.listen_hosts.join(","),
            ("port", _) => local.postgresql.listen_port.to_string(),
            ("cluster_name", _) => local.scope.clone(),
            ("wal_keep_segments" | "wal_keep_size", _) => {
                let wanted = if server_major >= 13 { "wal_keep_size" } else { "wal_keep_segments" };
                if *name != wanted {
                    continue;
                }
                wal_keep(wanted, shared, warnings)
            }
            _ => valid(name, shared, warnings).unwrap_or_else(|| (*default).to_owned()),
        };
        if matches!(rule, Rule::Ours) && shared.contains_key(*name) {
            warnings.push(format!("postgresql.parameters.{name} is not used: every node has its own"));
        }
        values.push(((*name).to_owned(), value));
    }
    values
}

/// The value of the dynamic configuration, if there is one and it is valid.
fn valid(name: &str, shared: &BTreeMap<String, Value>, warnings: &mut Vec<String>) -> Option<String> {
    let value = shared.get(name).filter(|v| !v.is_null())?;
    judge(name, value)?.map_err(|why| warnings.push(why)).ok()
}

/// What the rule of a controlled GUC makes of a value, or why it does not take it; `None` if there is no such rule.
fn judge(name: &str, value: &Value) -> Option<Result<String, String>> {
    let (_, default, rule) = CONTROLLED.iter().find(|(n, _, _)| *n == name)?;
    let text = match rule {
        Rule::Int(min) => int_of(value, None).filter(|n| n >= min).map(|n| n.to_string()),
        Rule::Memory(min) => int_of(value, Some("MB")).filter(|n| n >= min).and_then(|_| parameter_text(value)),
        Rule::Bool => bool_of(value).map(|b| if b { "on" } else { "off" }.to_owned()),
        Rule::True => bool_of(value).filter(|b| *b).map(|_| "on".to_owned()),
        Rule::WalLevel => value.as_str().and_then(|level| match level.to_ascii_lowercase().as_str() {
            "hot_standby" | "replica" => Some("replica".to_owned()),
            "logical" => Some("logical".to_owned()),
            _ => None,
        }),
        Rule::Ours => return None,
    };
    Some(text.ok_or_else(|| {
        let shown = parameter_text(value).unwrap_or_else(|| value.to_string());
        format!("postgresql parameter {name}={shown} failed validation, defaulting to {default}")
    }))
}

/// Why a value of the dynamic configuration will not count, for whoever proposes it.
pub(crate) fn refused(name: &str, value: &Value) -> Option<String> {
    judge(&name.to_ascii_lowercase(), value).filter(|_| !value.is_null())?.err()
}

/// One of the two names of how much WAL is kept, converted from the other if only that is set.
fn wal_keep(wanted: &str, shared: &BTreeMap<String, Value>, warnings: &mut Vec<String>) -> String {
    let size = valid("wal_keep_size", shared, warnings);
    let segments = valid("wal_keep_segments", shared, warnings);
    if wanted == "wal_keep_size" {
        let converted =
            segments.and_then(|s| s.parse::<i64>().ok()).map(|s| format!("{}MB", s.saturating_mul(WAL_SEGMENT_MB)));
        return size.or(converted).unwrap_or_else(|| "128MB".to_owned());
    }
    let converted = size
        .and_then(|s| parse_int(&s, Some("MB")))
        .map(|mb| (mb.saturating_add(WAL_SEGMENT_MB / 2) / WAL_SEGMENT_MB).to_string());
    segments.or(converted).unwrap_or_else(|| "8".to_owned())
}

fn is_recovery(name: &str) -> bool {
    RECOVERY.contains(&name) || decided_by_role(name)
}

/// Settings that follow from whom this node follows.
fn decided_by_role(name: &str) -> bool {
    matches!(name, "primary_conninfo" | "primary_slot_name") || name.starts_with("recovery_target")
}

fn keep_recovery(out: &mut Parameters, name: &str, text: String, section: &str) {
    if decided_by_role(name) {
        out.warnings.push(format!("{} is not used: it follows from the node's role", join(section, name)));
    } else {
        out.recovery.insert(name.to_owned(), text);
    }
}

fn recovery_conf(local: &LocalConfig, dynamic: &DynamicConfig, out: &mut Parameters) {
    let shared = match dynamic.postgresql.raw.get("recovery_conf") {
        Some(Value::Object(map)) => lower_case(map),
        _ => BTreeMap::new(),
    };
    // A section of the node's own file replaces the cluster's as a whole.
    let own = lower_case(&local.postgresql.recovery_conf);
    for (name, value) in if own.is_empty() { shared } else { own } {
        if let Some(text) = parameter_text(&value) {
            keep_recovery(out, &name, text, "postgresql.recovery_conf");
        }
    }
}

/// Names of GUCs do not distinguish capitals; of two spellings in one mapping the last counts.
fn lower_case(map: &Map<String, Value>) -> BTreeMap<String, Value> {
    map.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
}

#[cfg(test)]
#[path = "parameters_tests.rs"]
mod tests;
