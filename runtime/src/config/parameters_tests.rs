use serde_json::json;

use super::super::source::load;
use super::*;

fn local(parameters: &Value, recovery_conf: &Value) -> LocalConfig {
    let json = json!({
        "scope": "herd", "name": "a", "restapi": {"listen": "h:1"}, "etcd3": {"host": "h:1"},
        "postgresql": {"listen": "h1,h2:5433", "data_dir": "/d", "parameters": parameters, "recovery_conf": recovery_conf,
            "authentication": {"replication": {"username": "r"}}}
    });
    load(None, [("PATRONI_CONFIGURATION".to_owned(), json.to_string())]).unwrap().config
}

fn effective(own: &Value, shared: &Value, major: u32) -> Parameters {
    let dynamic = DynamicConfig::from_json(&json!({"postgresql": {"parameters": shared}})).unwrap().0;
    effective_parameters(&local(own, &json!({})), &dynamic, major)
}

#[test]
fn the_command_line_is_in_patronis_order_with_its_defaults() {
    let p = effective(&json!({}), &json!({}), 15);
    let line: Vec<String> = p.command_line.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        line,
        [
            "listen_addresses=h1,h2",
            "port=5433",
            "cluster_name=herd",
            "wal_level=replica",
            "hot_standby=on",
            "max_connections=100",
            "max_wal_senders=10",
            "max_prepared_transactions=0",
            "max_locks_per_transaction=64",
            "track_commit_timestamp=off",
            "max_replication_slots=10",
            "max_worker_processes=8",
            "wal_log_hints=on",
        ]
    );
    assert_eq!(p.all["wal_keep_size"], "128MB");
    assert_eq!(p.all["wal_retrieve_retry_interval"], "500ms");
    assert!(p.warnings.is_empty());
}

#[test]
fn shared_values_are_checked_and_local_ones_for_them_are_not_used() {
    let shared = json!({
        "Max_Connections": "200", "max_wal_senders": 2, "wal_level": "LOGICAL", "hot_standby": "off",
        "max_worker_processes": 16, "wal_log_hints": "yes", "track_commit_timestamp": true, "port": 1,
        "max_locks_per_transaction": "many"
    });
    let p = effective(&json!({"max_connections": 500, "CLUSTER_NAME": "x"}), &shared, 15);
    for (name, expected) in [
        ("max_connections", "200"),
        ("max_wal_senders", "10"),
        ("wal_level", "logical"),
        ("hot_standby", "on"),
        ("max_worker_processes", "16"),
        ("wal_log_hints", "on"),
        ("track_commit_timestamp", "on"),
        ("port", "5433"),
        ("cluster_name", "herd"),
    ] {
        assert_eq!(p.all[name], expected, "{name}");
    }
    assert_eq!(
        p.warnings,
        [
            "postgresql.parameters.cluster_name is not used: it is the scope",
            "postgresql.parameters.max_connections is not used in the local configuration: all members share the value of \
         the dynamic configuration",
            "postgresql.parameters.port is not used: every node has its own",
            "postgresql parameter hot_standby=off failed validation, defaulting to on",
            "postgresql parameter max_wal_senders=2 failed validation, defaulting to 10",
            "postgresql parameter max_locks_per_transaction=many failed validation, defaulting to 64",
        ]
    );
}

#[test]
fn how_much_wal_is_kept_is_converted_between_versions() {
    for (shared, major, name, expected) in [
        (json!({}), 13, "wal_keep_size", "128MB"),
        (json!({"wal_keep_segments": 10}), 13, "wal_keep_size", "160MB"),
        (json!({"wal_keep_segments": 10, "wal_keep_size": "1GB"}), 15, "wal_keep_size", "1GB"),
        (json!({"wal_keep_size": "8MB"}), 15, "wal_keep_size", "128MB"),
        (json!({}), 12, "wal_keep_segments", "8"),
        (json!({"wal_keep_size": "1GB"}), 12, "wal_keep_segments", "64"),
    ] {
        let p = effective(&json!({}), &shared, major);
        assert_eq!(p.all.get(name).map(String::as_str), Some(expected), "{shared} {major}");
        assert_eq!(p.all.keys().filter(|k| k.starts_with("wal_keep")).count(), 1);
    }
}

#[test]
fn the_nodes_own_values_win_whatever_their_capitals() {
    let own = json!({"Work_Mem": "8MB", "logging_collector": true, "wal_retrieve_retry_interval": "5s", "max_x": 1.5, "gone": null});
    let p = effective(&own, &json!({"WORK_MEM": "4MB", "shared_buffers": "1GB", "gone": "x"}), 15);
    for (name, expected) in [
        ("work_mem", "8MB"),
        ("logging_collector", "on"),
        ("wal_retrieve_retry_interval", "5s"),
        ("max_x", "1.5"),
        ("shared_buffers", "1GB"),
    ] {
        assert_eq!(p.all[name], expected, "{name}");
    }
    assert!(!p.all.contains_key("gone") && !p.all.contains_key("WORK_MEM"));
}

#[test]
fn recovery_settings_are_kept_apart() {
    let own = json!({"restore_command": "cp %f %p", "primary_conninfo": "x", "recovery_target_lsn": "0/1"});
    let config = local(&own, &json!({"recovery_min_apply_delay": "1h", "restore_command": "own"}));
    let dynamic = DynamicConfig::from_json(&json!({"postgresql": {"recovery_conf": {"archive_cleanup_command": "x"}}}))
        .unwrap()
        .0;
    let p = effective_parameters(&config, &dynamic, 15);
    assert!(!p.all.keys().any(|k| is_recovery(k)));
    let recovery: Vec<(&str, &str)> = p.recovery.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(recovery, [("recovery_min_apply_delay", "1h"), ("restore_command", "own")]);
    assert_eq!(p.warnings.len(), 2);
}

#[test]
fn synchronous_standby_names_belong_to_the_user_only_while_the_mode_is_off() {
    for (mode, kept) in [("off", true), ("on", false), ("quorum", false)] {
        let dynamic = DynamicConfig::from_json(&json!({"synchronous_mode": mode})).unwrap().0;
        let p = effective_parameters(&local(&json!({"synchronous_standby_names": "*"}), &json!({})), &dynamic, 15);
        assert_eq!(p.all.contains_key("synchronous_standby_names"), kept, "{mode}");
    }
}
