//! Slots of the operator's: which ones are kept for good, and which ones are left alone.

use std::collections::BTreeSet;

use matriarch_core::config::SlotMatcher;
use serde_json::{Map, Value};

use super::check::{join, shown_key};
use crate::wire::lenient::truthy;

/// The names of one key; the first that says anything counts.
const ALIASES: [&str; 3] = ["permanent_replication_slots", "permanent_slots", "slots"];

/// What is configured as permanent, with the name of the key that counts.
pub(super) fn configured(json: &Value) -> (&'static str, Option<&Value>) {
    let says = |key: &&str| json.get(key).is_some_and(truthy);
    let key = ALIASES.into_iter().find(says).unwrap_or("slots");
    (key, json.get(key).filter(|value| !value.is_null()))
}

/// The physical ones that this cluster is to have.
pub(super) fn permanent(slots: &Map<String, Value>) -> BTreeSet<String> {
    let wanted = |(_, spec): &(&String, &Value)| kind(spec) == Ok(Kind::Physical) && !of_a_standby_cluster(spec);
    slots.iter().filter(|(name, _)| is_valid(name)).filter(wanted).map(|(name, _)| name.clone()).collect()
}

/// What matches one of them is left alone. One that cannot be understood matches nothing.
pub(super) fn matchers(list: &[Value]) -> Vec<SlotMatcher> {
    list.iter().filter_map(matcher).collect()
}

/// What is asked for and not done, in words.
pub(super) fn without_effect(json: &Value) -> Vec<String> {
    let (key, slots) = configured(json);
    let slots = slots.and_then(Value::as_object).into_iter().flatten();
    let idle = slots.filter_map(|(name, spec)| {
        let why = match kind(spec) {
            _ if !is_valid(name) => "no slot can have this name: lower-case letters, digits and _, 63 of them at most",
            Ok(Kind::Physical) => return None,
            Ok(Kind::Logical) => "not supported yet: logical slots are neither made nor copied, nor dropped",
            Err(why) => why,
        };
        Some(format!("{}: {why}", join(key, shown_key(name))))
    });
    let matchers = json.get("ignore_slots").and_then(Value::as_array).into_iter().flatten().enumerate();
    let odd = matchers.filter(|(_, value)| matcher(value).is_none()).map(|(index, _)| {
        format!(
            "ignore_slots[{index}]: matches nothing: it must be a mapping of name, type, database or plugin to texts"
        )
    });
    idle.chain(odd).collect()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Physical,
    Logical,
}

/// Without a type, whoever names database and plugin means a logical one.
fn kind(spec: &Value) -> Result<Kind, &'static str> {
    if !truthy(spec) {
        return Ok(Kind::Physical);
    }
    let Value::Object(map) = spec else { return Err("not used: it must be a mapping such as {type: physical}") };
    let decodes = map.get("database").is_some_and(truthy) && map.get("plugin").is_some_and(truthy);
    match map.get("type").filter(|value| !value.is_null()).map(Value::as_str) {
        None if decodes => Ok(Kind::Logical),
        None | Some(Some("physical")) => Ok(Kind::Physical),
        Some(Some("logical")) if decodes => Ok(Kind::Logical),
        Some(Some("logical")) => Err("not used: a logical slot needs database and plugin"),
        Some(_) => Err("not used: its type must be physical or logical"),
    }
}

/// Standby clusters are not there yet, and this is none.
fn of_a_standby_cluster(spec: &Value) -> bool {
    spec.get("cluster_type").and_then(Value::as_str) == Some("standby")
}

fn is_valid(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    (1..=63).contains(&name.len()) && name.bytes().all(allowed)
}

fn matcher(value: &Value) -> Option<SlotMatcher> {
    let map = value.as_object()?;
    let text = |key: &str| match map.get(key).filter(|value| truthy(value)) {
        None => Some(None),
        Some(Value::String(text)) => Some(Some(text.clone())),
        Some(_) => None,
    };
    Some(SlotMatcher { name: text("name")?, kind: text("type")?, database: text("database")?, plugin: text("plugin")? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(json: Value) -> Vec<String> {
        permanent(json.as_object().unwrap()).into_iter().collect()
    }

    #[test]
    fn a_physical_slot_is_what_does_not_ask_for_decoding() {
        let all = json!({
            "a": null, "b": {}, "c": {"type": "physical"}, "d": {"type": "physical", "cluster_type": "primary"},
            "e": {"cluster_type": "standby"}, "f": {"database": "x", "plugin": "y"}, "g": {"type": "logical"},
            "h": {"database": "x"}, "i": {"type": "odd"}, "j": "physical", "K": {}, "l-m": {}, "": {},
        });
        assert_eq!(names(all), ["a", "b", "c", "d", "h"]);
        let long = "x".repeat(64);
        assert_eq!(names(json!({ long.clone(): {}, &long[1..]: {} })), [&long[1..]]);
    }

    #[test]
    fn what_is_not_done_is_said_once_for_each() {
        let json = json!({
            "slots": {"a": {}, "f": {"database": "x", "plugin": "y"}, "g": {"type": "logical"}, "J": {}, "i": {"type": 1}},
            "ignore_slots": [{"name": "x"}, "x", {"name": 1}, {}],
        });
        let told: Vec<_> =
            without_effect(&json).iter().map(|text| text.split_once(": ").unwrap().0.to_owned()).collect();
        assert_eq!(told, ["slots.f", "slots.g", "slots.J", "slots.i", "ignore_slots[1]", "ignore_slots[2]"]);
        assert!(without_effect(&json)[0].contains("not supported yet"), "{json}");
    }

    #[test]
    fn the_first_name_that_says_anything_counts() {
        let counts = |json: Value| configured(&json).0;
        assert_eq!(counts(json!({"slots": {"a": {}}, "permanent_slots": {"b": {}}})), "permanent_slots");
        assert_eq!(counts(json!({"permanent_replication_slots": {}, "slots": {"a": {}}})), "slots");
        assert_eq!(configured(&json!({"slots": null})), ("slots", None));
    }

    #[test]
    fn a_matcher_has_what_it_names() {
        let list = [json!({"name": "n", "type": "logical", "database": "d", "plugin": null}), json!({}), json!([])];
        let text = |text: &str| Some(text.to_owned());
        let full = SlotMatcher { name: text("n"), kind: text("logical"), database: text("d"), plugin: None };
        assert_eq!(matchers(&list), [full, SlotMatcher::default()]);
    }
}
