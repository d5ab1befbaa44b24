//! What the dynamic configuration in the store says and nobody acts on. Patroni stores what it does not know and is
//! silent; a mistyped `loop_wait` is then the default, and nobody knows why.

use serde_json::{Map, Value};

use super::check::{LOCAL_ONLY, is_local, join, shown_key, unknown_key};
use super::quantity::{bool_of, int_of};
use super::schema::{DYNAMIC, Key, Kind};

/// Most keys that are named: more are one mistake.
const NAMED_MAX: usize = 20;

/// The keys that no table knows, each with the nearest one that it may have been meant for.
pub(super) fn unknown(json: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if let Value::Object(map) = json {
        walk(map, DYNAMIC, "", &mut found);
    }
    if found.len() > NAMED_MAX {
        let more = found.len() - NAMED_MAX;
        found.truncate(NAMED_MAX);
        found.push(format!("{more} more keys of the dynamic configuration are unknown"));
    }
    found
}

fn walk(map: &Map<String, Value>, keys: &[Key], path: &str, found: &mut Vec<String>) {
    for (name, value) in map.iter().filter(|(_, value)| !value.is_null()) {
        let say = |message: &str| format!("{}: {message}", join(path, shown_key(name)));
        match (keys.iter().find(|key| key.name == name), value) {
            (Some(Key { kind: Kind::Table(keys), .. }), Value::Object(inner)) => {
                walk(inner, keys, &join(path, name), found);
            }
            (Some(_), _) => {}
            (None, _) if path == "postgresql" && is_method(map, name) => {}
            (None, _) if path == "postgresql" && is_local(name) => found.push(say(LOCAL_ONLY)),
            (None, _) => found.push(say(&unknown_key(name, keys))),
        }
    }
}

/// Whether it is the section of a method that is named beside it.
fn is_method(postgresql: &Map<String, Value>, key: &str) -> bool {
    ["create_replica_methods", "create_replica_method"].iter().any(|list| match postgresql.get(*list) {
        Some(Value::Array(names)) => names.iter().any(|name| name == key),
        Some(Value::String(names)) => names.split(',').any(|name| name.trim() == key),
        _ => false,
    })
}

/// Values of `postgresql` that no reading makes sense of, and what counts in their place.
pub(super) fn senseless(postgresql: &Map<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    for key in ["remove_data_directory_on_rewind_failure", "remove_data_directory_on_diverged_timelines"] {
        if let Some(value) = postgresql.get(key).filter(|value| !value.is_null() && bool_of(value).is_none()) {
            found.push(format!("postgresql.{key} must be a boolean, not {value}: it counts as off"));
        }
    }
    let timeout = postgresql.get("pg_ctl_timeout").filter(|value| !value.is_null());
    if let Some(value) = timeout.filter(|value| int_of(value, Some("s")).is_none_or(|seconds| seconds < 0)) {
        found.push(format!("postgresql.pg_ctl_timeout must be a number of seconds, not {value}: it is not used"));
    }
    // Not what it says: that may be a connection string with a password.
    if postgresql.get("recovery_conf").is_some_and(|value| !value.is_null() && !value.is_object()) {
        found.push("postgresql.recovery_conf must be a mapping: it is not used".to_owned());
    }
    found
}
