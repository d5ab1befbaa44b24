use serde_json::json;

use super::*;

fn read(json: &Value) -> (DynamicConfig, Vec<String>) {
    DynamicConfig::from_json(json).unwrap()
}

#[test]
fn defaults_are_patronis() {
    for empty in [json!({}), json!(null), json!({"ttl": null, "unknown": null})] {
        let (config, warnings) = read(&empty);
        assert_eq!((config.ttl, config.loop_wait, config.retry_timeout), (seconds(30), seconds(10), seconds(10)));
        assert_eq!(config.maximum_lag_on_failover_bytes, 1_048_576);
        assert_eq!((config.primary_start_timeout, config.primary_stop_timeout), (seconds(300), Duration::ZERO));
        assert_eq!(config.member_slots_ttl, seconds(1800));
        assert_eq!(config.synchronous_mode, SynchronousMode::Off);
        assert!(config.postgresql.use_slots);
        assert_eq!(config.unsupported(), None);
        assert!(warnings.is_empty());
    }
}

#[test]
fn no_number_is_too_odd_to_be_refused() {
    for key in ["ttl", "loop_wait", "retry_timeout", "primary_start_timeout"] {
        for number in [i64::MIN, i64::MAX, SECONDS_MAX + 1] {
            let refused = DynamicConfig::from_json(&json!({ key: number })).unwrap_err();
            assert!(refused.contains(key) && refused.contains("must not be longer"), "{refused}");
        }
    }
}

#[test]
fn timings_are_adjusted_with_patronis_words() {
    let none: &[&str] = &[];
    for (ttl, loop_wait, retry_timeout, expected, words) in [
        (30, 10, 10, (30, 10, 10), none),
        (
            20,
            5,
            30,
            (20, 1, 9),
            &[
                "Violated the rule \"loop_wait + 2*retry_timeout <= ttl\", where ttl=20. Adjusting loop_wait from 5 to 1 and \
             retry_timeout from 30 to 9",
            ],
        ),
        (
            30,
            20,
            10,
            (30, 10, 10),
            &[
                "Violated the rule \"loop_wait + 2*retry_timeout <= ttl\", where ttl=30 and retry_timeout=10. Adjusting \
             loop_wait from 20 to 10",
            ],
        ),
        (30, 0, 10, (30, 1, 10), &["loop_wait=0 can't be smaller than 1, adjusting..."]),
        (30, 10, 2, (30, 10, 3), &["retry_timeout=2 can't be smaller than 3, adjusting..."]),
        // Shorter than Patroni allows.
        (19, 10, 2, (19, 10, 2), none),
        (5, 1, 2, (5, 1, 2), none),
        (
            5,
            2,
            2,
            (5, 1, 2),
            &["Violated the rule \"loop_wait + 2*retry_timeout <= ttl\", where ttl=5 and retry_timeout=2. Adjusting \
             loop_wait from 2 to 1"],
        ),
        (3, 1, 0, (3, 1, 1), &["retry_timeout=0 can't be smaller than 1, adjusting..."]),
        (1, 1, 1, (1, 1, 1), none),
        (0, 1, 1, (1, 1, 1), &["ttl=0 can't be smaller than 1, adjusting..."]),
        (
            5,
            10,
            10,
            (5, 1, 2),
            &[
                "Violated the rule \"loop_wait + 2*retry_timeout <= ttl\", where ttl=5. Adjusting loop_wait from 10 to 1 and \
             retry_timeout from 10 to 2",
            ],
        ),
    ] {
        let (config, warnings) = read(&json!({"ttl": ttl, "loop_wait": loop_wait, "retry_timeout": retry_timeout}));
        let got = (config.ttl.as_secs(), config.loop_wait.as_secs(), config.retry_timeout.as_secs());
        assert_eq!(got, expected, "{ttl} {loop_wait} {retry_timeout}");
        assert_eq!(warnings, words, "{ttl} {loop_wait} {retry_timeout}");
    }
}

#[test]
fn numbers_in_text_count_and_other_types_reject_the_whole() {
    let (config, _) =
        read(&json!({"ttl": "60", "loop_wait": 10.9, "primary_start_timeout": "5", "max_timelines_history": "7"}));
    assert_eq!((config.ttl, config.loop_wait), (seconds(60), seconds(10)));
    assert_eq!((config.primary_start_timeout, config.max_timelines_history), (seconds(5), 7));
    assert_eq!(read(&json!({"master_start_timeout": 9})).0.primary_start_timeout, seconds(9));
    assert_eq!(
        read(&json!({"master_start_timeout": 9, "primary_start_timeout": 8})).0.primary_start_timeout,
        seconds(8)
    );
    assert_eq!(read(&json!({"member_slots_ttl": "1h"})).0.member_slots_ttl, seconds(3600));
    for (json, expected) in [
        (json!({"ttl": "soon"}), "ttl must be a whole number, not \"soon\""),
        (json!({"ttl": [1]}), "ttl must be a whole number, not [1]"),
        (json!({"ttl": 1e12}), "ttl must not be longer than 2147483647 seconds, but is 1000000000000"),
        (json!({"maximum_lag_on_failover": -1}), "maximum_lag_on_failover must not be negative, but is -1"),
        (json!({"synchronous_mode": "some"}), "synchronous_mode must be on, off or quorum, not \"some\""),
        (json!({"pause": "perhaps"}), "pause must be a boolean, not \"perhaps\""),
        (json!({"postgresql": []}), "postgresql must be a mapping, not a list"),
        (json!({"postgresql": {"parameters": "x"}}), "postgresql.parameters must be a mapping, not text"),
        (json!({"postgresql": {"pg_hba": ["a", 1]}}), "postgresql.pg_hba must be a list of texts"),
        (json!({"slots": 5}), "slots must be a mapping, not a number"),
        (json!({"member_slots_ttl": "x"}), "member_slots_ttl must be a time such as 30min, not \"x\""),
        (json!([]), "the dynamic configuration must be a mapping, not a list"),
    ] {
        assert_eq!(DynamicConfig::from_json(&json).unwrap_err(), expected);
    }
}

#[test]
fn what_is_not_supported_is_named() {
    for (json, expected) in [
        (json!({"pause": true, "synchronous_mode": true}), Some("synchronous_mode")),
        (json!({"pause": "on"}), None),
        (json!({"pause": false, "synchronous_mode": "quorum"}), Some("synchronous_mode")),
        (json!({"synchronous_mode": "off", "failsafe_mode": 1}), Some("failsafe_mode")),
        (json!({"standby_cluster": {"host": "h"}}), Some("standby_cluster")),
        (json!({"standby_cluster": {"restore_command": "x"}, "synchronous_mode": true}), Some("standby_cluster")),
        (json!({"standby_cluster": {"host": "", "port": 0, "primary_slot_name": "x"}}), None),
        (json!({"synchronous_mode_strict": true}), None),
    ] {
        assert_eq!(read(&json).0.unsupported(), expected, "{json}");
    }
}

#[test]
fn what_only_a_node_may_set_is_dropped() {
    let (config, _) = read(&json!({"postgresql": {
        "listen": "x", "connect_address": "x", "data_dir": "/evil", "authentication": {"superuser": {}}, "pgpass": "x",
        "use_pg_rewind": "on", "use_slots": false, "bin_dir": "/b", "pg_hba": ["a"], "parameters": {"x": 1}
    }}));
    let kept: Vec<&str> = config.postgresql.raw.keys().map(String::as_str).collect();
    assert_eq!(kept, ["use_pg_rewind", "use_slots", "bin_dir", "pg_hba", "parameters"]);
    assert_eq!(config.postgresql.use_pg_rewind, Some(true));
    assert!(!config.postgresql.use_slots);
    assert_eq!(config.postgresql.pg_hba, Some(vec!["a".to_owned()]));
}

#[test]
fn what_has_no_effect_is_said() {
    let (_, warnings) = read(&json!({
        "permanent_slots": {"a": {"type": "logical", "database": "d", "plugin": "p"}}, "check_timeline": true,
        "primary_stop_timeout": 30
    }));
    let keys: Vec<&str> = warnings.iter().filter_map(|warning| Some(warning.split_once(": not ")?.0)).collect();
    assert_eq!(keys, ["permanent_slots.a", "check_timeline", "primary_stop_timeout"]);
    let (_, warnings) = read(&json!({
        "slots": {"a": {"type": "physical"}}, "ignore_slots": [{"name": "b"}], "check_timeline": false, "primary_stop_timeout": 0, "permanent_slots": null
    }));
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn the_first_name_of_the_slots_wins() {
    let (config, _) = read(&json!({"slots": {"a": {}}, "permanent_slots": {"b": {}}}));
    assert!(config.permanent_slots.contains("b") && !config.permanent_slots.contains("a"));
}

#[test]
fn keys_that_nobody_knows_are_named_with_the_nearest_one() {
    let (config, warnings) = read(&json!({
        "lop_wait": 2, "retry_timout": 5, "my own: secret": {"x": 1}, "loop_wait": 10,
        "standby_cluster": {"hots": "h"},
        "postgresql": {"use_pg_rewnd": true, "bin_dir": "/b", "create_replica_methods": ["wal_e"], "wal_e": {"command": "x"}}
    }));
    assert_eq!(config.loop_wait, seconds(10));
    assert_eq!(
        warnings,
        [
            "lop_wait: unknown key; did you mean `loop_wait`?",
            "retry_timout: unknown key; did you mean `retry_timeout`?",
            "my: unknown key; it has no effect",
            "standby_cluster.hots: unknown key; did you mean `host`?",
            "postgresql.use_pg_rewnd: unknown key; did you mean `use_pg_rewind`?",
            "postgresql.bin_dir: has no effect here: it counts only in a node's own file",
            "postgresql.create_replica_methods: has no effect here: it counts only in a node's own file",
        ]
    );
    let many: Map<String, Value> = (0..1000).map(|n| (format!("x{n}"), json!(1))).collect();
    let (_, warnings) = read(&Value::Object(many));
    assert_eq!(warnings.len(), 21);
    assert_eq!(warnings[20], "980 more keys of the dynamic configuration are unknown");
}

#[test]
fn a_value_that_makes_no_sense_is_not_dropped_in_silence() {
    let (_, warnings) = read(&json!({"postgresql": {
        "remove_data_directory_on_rewind_failure": "maybe", "pg_ctl_timeout": "soon", "recovery_conf": "x",
        "remove_data_directory_on_diverged_timelines": "on"
    }}));
    assert_eq!(
        warnings,
        [
            "postgresql.remove_data_directory_on_rewind_failure must be a boolean, not \"maybe\": it counts as off",
            "postgresql.pg_ctl_timeout must be a number of seconds, not \"soon\": it is not used",
            "postgresql.recovery_conf must be a mapping: it is not used",
        ]
    );
}
