//! The dynamic configuration: what the whole cluster shares, kept in the store under `/config`.

use std::collections::BTreeSet;
use std::time::Duration;

use matriarch_core::config::SlotMatcher;
use serde_json::{Map, Value};

use super::ignored;
use super::quantity::{bool_of, int_of};
use super::schema::STANDBY_CLUSTER;
use super::slots;
use crate::wire::lenient::truthy;

/// Keys of `postgresql` that only a node's own file may set.
const LOCAL_ONLY: &[&str] =
    &["connect_address", "proxy_address", "listen", "config_dir", "data_dir", "pgpass", "authentication"];
/// Below this ttl Patroni would adjust; we go on with shorter minima.
const PATRONI_TTL_MIN: i64 = 20;
/// No timing is longer than this many seconds (68 years): later arithmetic cannot overflow.
const SECONDS_MAX: i64 = i32::MAX as i64;

/// How commits wait for standbys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SynchronousMode {
    /// As `synchronous_standby_names` of the user says.
    Off,
    /// Named standbys.
    On,
    /// Any of a quorum.
    Quorum,
}

/// The dynamic configuration in effect: defaults filled in, timings adjusted.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicConfig {
    /// Length of the lease to ask the store for.
    pub ttl: Duration,
    /// The heartbeat's period.
    pub loop_wait: Duration,
    /// How long store and PostgreSQL may fail before it counts.
    pub retry_timeout: Duration,
    /// How far a candidate may lie behind.
    pub maximum_lag_on_failover_bytes: u64,
    /// How long a primary may take to start before another takes over; zero: at once.
    pub primary_start_timeout: Duration,
    /// How long a primary may take to stop, in synchronous mode; zero: without limit.
    pub primary_stop_timeout: Duration,
    /// Whether a candidate must have the cluster's newest timeline.
    pub check_timeline: bool,
    /// How many lines of history are kept; 0: all.
    pub max_timelines_history: u64,
    /// Synchronous replication; off in a standby cluster.
    pub synchronous_mode: SynchronousMode,
    /// Whether the primary stops acknowledging when no synchronous standby is left.
    pub synchronous_mode_strict: bool,
    /// How many standbys must confirm.
    pub synchronous_node_count: u32,
    /// Whether the primary goes on without the store while all members agree.
    pub failsafe_mode: bool,
    /// Whether the operator said hands off.
    pub pause: bool,
    /// The remote cluster to follow, if this is a standby cluster.
    pub standby_cluster: Option<Map<String, Value>>,
    /// How long an absent member's slot is kept; zero: not.
    pub member_slots_ttl: Duration,
    /// The physical slots to keep for good, by name.
    pub permanent_slots: BTreeSet<String>,
    /// What matches one of these is left alone.
    pub ignore_slots: Vec<SlotMatcher>,
    /// Section `postgresql`.
    pub postgresql: DynamicPostgresql,
}

/// What the dynamic configuration says about PostgreSQL; a node's own file is laid over it.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicPostgresql {
    /// Whether replication slots are used; true.
    pub use_slots: bool,
    /// Whether a diverged former primary is rewound.
    pub use_pg_rewind: Option<bool>,
    /// GUCs for all.
    pub parameters: Map<String, Value>,
    /// Lines of `pg_hba.conf`.
    pub pg_hba: Option<Vec<String>>,
    /// Lines of `pg_ident.conf`.
    pub pg_ident: Option<Vec<String>>,
    /// The section without what only a node's own file may set.
    pub raw: Map<String, Value>,
}

impl DynamicConfig {
    /// Reads the value of `/config`. Unknown keys are no error; null means absent. The warnings are for the log.
    ///
    /// # Errors
    /// A value of the wrong type. The whole text is then to be rejected and the last good one kept, as Patroni does.
    pub fn from_json(json: &Value) -> Result<(Self, Vec<String>), String> {
        let empty = Map::new();
        let map = match json {
            Value::Object(map) => map,
            Value::Null => &empty,
            other => return Err(format!("the dynamic configuration must be a mapping, not {}", kind(other))),
        };
        let get = Get { map };
        let mut warnings = Vec::new();
        let (ttl, loop_wait, retry_timeout) = timing(
            get.seconds(&["ttl"], 30)?,
            get.seconds(&["loop_wait"], 10)?,
            get.seconds(&["retry_timeout"], 10)?,
            &mut warnings,
        );
        let standby_cluster = standby_cluster(&get)?;
        let synchronous_mode = match &standby_cluster {
            Some(_) => SynchronousMode::Off,
            None => synchronous_mode(get.value("synchronous_mode"))?,
        };
        let count = get.int(&["synchronous_node_count"], 1)?;
        warnings.extend(without_effect(json));
        warnings.extend(ignored::unknown(json));
        let section = get.map("postgresql")?;
        warnings.extend(ignored::senseless(&section));
        Ok((
            Self {
                ttl: seconds(ttl),
                loop_wait: seconds(loop_wait),
                retry_timeout: seconds(retry_timeout),
                maximum_lag_on_failover_bytes: get.unsigned("maximum_lag_on_failover", 1_048_576)?,
                primary_start_timeout: seconds(get.seconds(&["primary_start_timeout", "master_start_timeout"], 300)?),
                primary_stop_timeout: seconds(get.seconds(&["primary_stop_timeout", "master_stop_timeout"], 0)?),
                check_timeline: get.flag("check_timeline")?,
                max_timelines_history: get.unsigned("max_timelines_history", 0)?,
                synchronous_mode,
                synchronous_mode_strict: get.flag("synchronous_mode_strict")?,
                synchronous_node_count: u32::try_from(count.max(1)).unwrap_or(u32::MAX),
                failsafe_mode: get.flag("failsafe_mode")?,
                pause: get.flag("pause")?,
                standby_cluster,
                member_slots_ttl: member_slots_ttl(get.value("member_slots_ttl"))?,
                permanent_slots: slots::permanent(&get.map(slots::configured(json).0)?),
                ignore_slots: match get.value("ignore_slots") {
                    None => Vec::new(),
                    Some(Value::Array(list)) => slots::matchers(list),
                    Some(other) => return Err(format!("ignore_slots must be a list, not {}", kind(other))),
                },
                postgresql: postgresql(section)?,
            },
            warnings,
        ))
    }

    /// The first thing asked for that this version does not do. In such a cluster the agent only observes.
    pub fn unsupported(&self) -> Option<&'static str> {
        [
            ("synchronous_mode", self.synchronous_mode != SynchronousMode::Off),
            ("failsafe_mode", self.failsafe_mode),
            ("standby_cluster", self.standby_cluster.is_some()),
        ]
        .into_iter()
        .find_map(|(name, on)| on.then_some(name))
    }
}

/// Patroni's rule `loop_wait + 2*retry_timeout <= ttl` and its minima, with its words. One difference: a ttl below
/// Patroni's minimum of 20 stands, with minima of 1 for the others; the store decides what it grants.
fn timing(ttl: i64, loop_wait: i64, retry_timeout: i64, warnings: &mut Vec<String>) -> (i64, i64, i64) {
    let mut raise = |name: &str, value: i64, min: i64| {
        if value < min {
            warnings.push(format!("{name}={value} can't be smaller than {min}, adjusting..."));
        }
        value.max(min)
    };
    let retry_min = if ttl < PATRONI_TTL_MIN { 1 } else { 3 };
    let loop_wait = raise("loop_wait", loop_wait, 1);
    let retry_timeout = raise("retry_timeout", retry_timeout, retry_min);
    let ttl = raise("ttl", ttl, 1);
    let rule = "Violated the rule \"loop_wait + 2*retry_timeout <= ttl\", where";
    if 1 + 2 * retry_timeout > ttl {
        // A ttl of 1 or 2 cannot keep the rule at all: the store raises it.
        let fitting = ((ttl - 1) / 2).max(1);
        if (loop_wait, retry_timeout) != (1, fitting) {
            warnings.push(format!(
                "{rule} ttl={ttl}. Adjusting loop_wait from {loop_wait} to 1 and retry_timeout from {retry_timeout} to {fitting}"
            ));
        }
        return (ttl, 1, fitting);
    }
    if loop_wait + 2 * retry_timeout > ttl {
        let fitting = ttl - 2 * retry_timeout;
        warnings.push(format!(
            "{rule} ttl={ttl} and retry_timeout={retry_timeout}. Adjusting loop_wait from {loop_wait} to {fitting}"
        ));
        return (ttl, fitting, retry_timeout);
    }
    (ttl, loop_wait, retry_timeout)
}

/// What the dynamic configuration asks for that is read and not acted on, in words.
pub(super) fn without_effect(json: &Value) -> Vec<String> {
    let mut told = slots::without_effect(json);
    let idle = [
        ("check_timeline", "not used: candidates are compared by timeline anyway"),
        ("primary_race_backoff", "not used: a race waits for positions, not for a time"),
        ("primary_stop_timeout", "not used yet: a primary that stops has the time it needs while its tenure lasts"),
        ("master_stop_timeout", "not used yet: a primary that stops has the time it needs while its tenure lasts"),
    ];
    let idle = idle.into_iter().filter(|(key, _)| json.get(key).is_some_and(truthy));
    told.extend(idle.map(|(key, why)| format!("{key}: {why}")));
    told
}

fn synchronous_mode(value: Option<&Value>) -> Result<SynchronousMode, String> {
    match value {
        None => Ok(SynchronousMode::Off),
        Some(Value::String(s)) if s.trim().eq_ignore_ascii_case("quorum") => Ok(SynchronousMode::Quorum),
        Some(value) => match bool_of(value) {
            Some(true) => Ok(SynchronousMode::On),
            Some(false) => Ok(SynchronousMode::Off),
            None => Err(format!("synchronous_mode must be on, off or quorum, not {value}")),
        },
    }
}

fn standby_cluster(get: &Get<'_>) -> Result<Option<Map<String, Value>>, String> {
    let mut map = get.map("standby_cluster")?;
    map.retain(|key, _| STANDBY_CLUSTER.iter().any(|known| known.name == key));
    let set = |key: &str| map.get(key).is_some_and(truthy);
    Ok((set("host") || set("port") || set("restore_command")).then_some(map))
}

fn member_slots_ttl(value: Option<&Value>) -> Result<Duration, String> {
    let Some(value) = value else { return Ok(Duration::from_mins(30)) };
    match int_of(value, Some("s")) {
        Some(n) if (0..=SECONDS_MAX).contains(&n) => Ok(seconds(n)),
        _ => Err(format!("member_slots_ttl must be a time such as 30min, not {value}")),
    }
}

fn postgresql(mut raw: Map<String, Value>) -> Result<DynamicPostgresql, String> {
    raw.retain(|key, value| !LOCAL_ONLY.contains(&key.as_str()) && !value.is_null());
    let get = Get { map: &raw };
    let flag = |key: &str| match get.value(key) {
        None => Ok(None),
        Some(value) => {
            bool_of(value).map(Some).ok_or_else(|| format!("postgresql.{key} must be a boolean, not {value}"))
        }
    };
    let lines = |key: &str| match get.value(key) {
        None => Ok(None),
        Some(Value::Array(items)) => items
            .iter()
            .map(|i| i.as_str().map(str::to_owned).ok_or_else(|| format!("postgresql.{key} must be a list of texts")))
            .collect::<Result<Vec<_>, _>>()
            .map(Some),
        Some(other) => Err(format!("postgresql.{key} must be a list of texts, not {}", kind(other))),
    };
    Ok(DynamicPostgresql {
        use_slots: flag("use_slots")?.unwrap_or(true),
        use_pg_rewind: flag("use_pg_rewind")?,
        parameters: get.map("parameters").map_err(|e| format!("postgresql.{e}"))?,
        pg_hba: lines("pg_hba")?,
        pg_ident: lines("pg_ident")?,
        raw,
    })
}

struct Get<'a> {
    map: &'a Map<String, Value>,
}

impl<'a> Get<'a> {
    fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// The first of several names of one key.
    fn int(&self, names: &[&str], default: i64) -> Result<i64, String> {
        let Some((name, value)) = names.iter().find_map(|name| Some((name, self.value(name)?))) else {
            return Ok(default);
        };
        let number = match value {
            // As Python's int(): text must be a whole number, a fraction is cut off.
            Value::String(s) => s.trim().parse().ok(),
            Value::Number(n) => n.as_i64().or_else(|| n.as_f64().filter(|f| f.abs() < 9e15).map(|f| f as i64)),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        number.ok_or_else(|| format!("{name} must be a whole number, not {value}"))
    }

    fn unsigned(&self, key: &str, default: i64) -> Result<u64, String> {
        let value = self.int(&[key], default)?;
        u64::try_from(value).map_err(|_| format!("{key} must not be negative, but is {value}"))
    }

    fn seconds(&self, names: &[&str], default: i64) -> Result<i64, String> {
        let value = self.int(names, default)?;
        if value.unsigned_abs() > SECONDS_MAX.unsigned_abs() {
            return Err(format!("{} must not be longer than {SECONDS_MAX} seconds, but is {value}", names[0]));
        }
        Ok(value)
    }

    fn flag(&self, key: &str) -> Result<bool, String> {
        match self.value(key) {
            None => Ok(false),
            Some(value) => bool_of(value).ok_or_else(|| format!("{key} must be a boolean, not {value}")),
        }
    }

    fn map(&self, key: &str) -> Result<Map<String, Value>, String> {
        match self.value(key) {
            None => Ok(Map::new()),
            Some(Value::Object(map)) => Ok(map.clone()),
            Some(other) => Err(format!("{key} must be a mapping, not {}", kind(other))),
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

fn seconds(n: i64) -> Duration {
    Duration::from_secs(u64::try_from(n).unwrap_or(0))
}

#[cfg(test)]
#[path = "dynamic_tests.rs"]
mod tests;
