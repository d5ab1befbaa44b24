//! Changes to the dynamic configuration, by Patroni's rules: what is merged, and when something counts as changed.

use serde_json::{Map, Value};

use super::emit::python_float;

/// Lays `changes` over `config` and says whether that changed it. Null removes a key, objects are merged, anything else
/// replaces what is there unless both read the same as text: `"30"` over `30` is no change.
pub fn patch(config: &mut Map<String, Value>, changes: &Map<String, Value>) -> bool {
    let mut changed = false;
    for (key, value) in changes {
        changed |= match (config.get_mut(key), value) {
            (None, Value::Null) => false,
            // A null that was there meant as much as its absence.
            (Some(_), Value::Null) => config.shift_remove(key).is_some_and(|removed| !removed.is_null()),
            (Some(Value::Object(under)), Value::Object(over)) => patch(under, over),
            (Some(under), value) if reads_the_same(under, value) => false,
            (_, value) => {
                config.insert(key.clone(), value.clone());
                true
            }
        };
    }
    changed
}

/// Whether two configurations have the same keys, and values that read the same as text.
pub fn same(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    a.len() == b.len()
        && a.iter().all(|(key, value)| match (value, b.get(key)) {
            (_, None) => false,
            (Value::Object(a), Some(Value::Object(b))) => same(a, b),
            (value, Some(other)) => reads_the_same(value, other),
        })
}

/// Scalars are compared as Python's `str` shows them; within lists and objects types count.
fn reads_the_same(a: &Value, b: &Value) -> bool {
    match (shown(a), shown(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn shown(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("None".to_owned()),
        Value::Bool(true) => Some("True".to_owned()),
        Value::Bool(false) => Some("False".to_owned()),
        Value::Number(number) if number.is_f64() => number.as_f64().map(python_float),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else { panic!("an object is needed") };
        object
    }

    fn patched(config: Value, changes: Value) -> (Value, bool) {
        let mut config = object(config);
        let changed = patch(&mut config, &object(changes));
        (Value::Object(config), changed)
    }

    /// Each result is what Patroni 4.1.5's `patch_config` makes of the same.
    #[test]
    fn changes_are_laid_over_as_patroni_does() {
        let config =
            json!({"ttl": 30, "postgresql": {"parameters": {"a": 1, "b": "on"}, "use_slots": true}, "n": null});
        let cases = [
            (json!({"ttl": "30"}), config.clone(), false),
            (json!({"ttl": 30.0}), json!({"ttl": 30.0}), true),
            (json!({"postgresql": {"use_slots": "True"}}), config.clone(), false),
            (json!({"nothing": null}), config.clone(), false),
            (json!({"n": "None"}), config.clone(), false),
            (json!({"pause": true}), json!({"pause": true}), true),
            (json!({"postgresql": {}}), config.clone(), false),
            (json!({"postgresql": 5}), json!({"postgresql": 5}), true),
            (json!({"ttl": {"a": null}}), json!({"ttl": {"a": null}}), true),
            (json!({"ttl": [1, 2]}), json!({"ttl": [1, 2]}), true),
            (
                json!({"postgresql": {"parameters": {"a": null, "c": 2}}}),
                json!({"postgresql": {"parameters": {"b": "on", "c": 2}, "use_slots": true}}),
                true,
            ),
        ];
        for (changes, expected, changed) in cases {
            let mut whole = object(config.clone());
            whole.extend(object(expected));
            assert_eq!(patched(config.clone(), changes.clone()), (Value::Object(whole), changed), "{changes}");
        }
        let without = json!({"ttl": 30, "postgresql": config["postgresql"]});
        assert_eq!(patched(config, json!({"n": null})), (without, false));
    }

    #[test]
    fn sameness_is_of_keys_and_of_text() {
        let same = |a: Value, b: Value| same(&object(a), &object(b));
        assert!(same(json!({"a": 2, "b": {"c": [3, 4]}}), json!({"b": {"c": [3, 4]}, "a": "2"})));
        assert!(!same(json!({"a": null}), json!({})));
        assert!(!same(json!({"a": {}}), json!({"a": null})));
        assert!(!same(json!({"a": [1]}), json!({"a": ["1"]})));
    }

    fn flat() -> impl Strategy<Value = Map<String, Value>> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i8>().prop_map(Value::from),
            "[a-z0-9]{0,3}".prop_map(Value::from)
        ];
        proptest::collection::btree_map("[a-c]", scalar, 0..4).prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn a_change_laid_over_twice_changes_nothing(a in flat(), b in flat(), key in "[a-c]") {
            let mut config = Map::from_iter([(key.clone(), Value::Object(a.clone()))]);
            config.extend(a);
            let changes = Map::from_iter([(key, Value::Object(b.clone())), ("d".to_owned(), Value::Object(b))]);
            patch(&mut config, &changes);
            prop_assert!(!patch(&mut config, &changes));
            prop_assert!(same(&config, &config));
        }
    }
}
