use serde_json::json;

use super::*;

/// PyYAML 6.0.3 `safe_dump(..., default_flow_style=False, allow_unicode=True, width=200)`.
#[test]
fn a_dynamic_configuration_as_pyyaml_writes_it() {
    let value = json!({
        "ttl": 30, "loop_wait": 10, "retry_timeout": 10, "maximum_lag_on_failover": 1_048_576,
        "postgresql": {
            "use_pg_rewind": true,
            "parameters": {"max_connections": 100, "wal_level": "replica", "archive_mode": "on", "archive_timeout": "1800s",
                "archive_command": "mkdir -p ../wal_archive && test ! -f ../wal_archive/%f && cp %p ../wal_archive/%f",
                "log_line_prefix": "%t [%p]: ", "search_path": "\"$user\", public", "checkpoint_completion_target": 0.9},
            "pg_hba": ["host replication replicator 127.0.0.1/32 md5", "# none", "local all all trust"],
            "empty": {}, "none": [], "null": null
        },
        "tags": [["a", 1], {"x": "y", "b": 1}],
        "ä": "ünï", "on": "0644", "time": "1:30", "date": "2024-01-02", "multi": "one\ntwo\n"
    });
    let expected = r#"date: '2024-01-02'
loop_wait: 10
maximum_lag_on_failover: 1048576
multi: 'one

  two

  '
'on': '0644'
postgresql:
  empty: {}
  none: []
  'null': null
  parameters:
    archive_command: mkdir -p ../wal_archive && test ! -f ../wal_archive/%f && cp %p ../wal_archive/%f
    archive_mode: 'on'
    archive_timeout: 1800s
    checkpoint_completion_target: 0.9
    log_line_prefix: '%t [%p]: '
    max_connections: 100
    search_path: '"$user", public'
    wal_level: replica
  pg_hba:
  - host replication replicator 127.0.0.1/32 md5
  - '# none'
  - local all all trust
  use_pg_rewind: true
retry_timeout: 10
tags:
- - a
  - 1
- b: 1
  x: y
time: '1:30'
ttl: 30
ä: ünï
"#;
    assert_eq!(to_yaml(&value), expected);
}

#[test]
fn scalars_as_pyyaml_writes_them() {
    for (value, expected) in [
        (json!("on"), "'on'"),
        (json!("yes"), "'yes'"),
        (json!("y"), "y"),
        (json!("1_000"), "'1_000'"),
        (json!("1:30"), "'1:30'"),
        (json!("2024-01-02"), "'2024-01-02'"),
        (json!("="), "'='"),
        (json!("<<"), "'<<'"),
        (json!("~"), "'~'"),
        (json!(""), "''"),
        (json!("null"), "'null'"),
        (json!("0644"), "'0644'"),
        (json!("0o644"), "0o644"),
        (json!("1e3"), "1e3"),
        (json!("1.5"), "'1.5'"),
        (json!("a: b"), "'a: b'"),
        (json!("a #b"), "'a #b'"),
        (json!("- a"), "'- a'"),
        (json!("x"), "x"),
        (json!(" x"), "' x'"),
        (json!("x "), "'x '"),
        (json!("it's"), "it's"),
        (json!("\"q\""), "'\"q\"'"),
        (json!("#c"), "'#c'"),
        (json!("a\nb"), "'a\n\n  b'"),
        (json!("tab\there"), "\"tab\\there\""),
        (json!("\u{7}"), "\"\\a\""),
        (json!("%x"), "'%x'"),
        (json!("@x"), "'@x'"),
        (json!("é"), "é"),
        (json!("😀"), "😀"),
        (json!("0x1F"), "'0x1F'"),
        (json!("-"), "'-'"),
        (json!("?"), "'?'"),
        (json!("&a"), "'&a'"),
        (json!("*a"), "'*a'"),
        (json!("!t"), "'!t'"),
        (json!("{a"), "'{a'"),
        (json!("[a"), "'[a'"),
        (json!("a,b"), "a,b"),
        (json!("a]"), "a]"),
        (json!("123abc"), "123abc"),
        (json!(1e+16), "1.0e+16"),
        (json!(0.5), "0.5"),
        (json!(10), "10"),
        (json!(-1), "-1"),
        (json!(true), "true"),
        (json!(null), "null"),
        (json!([]), "[]"),
        (json!({}), "{}"),
    ] {
        assert_eq!(to_yaml(&json!({ "k": value })), format!("k: {expected}\n"), "{value}");
    }
}

#[test]
fn floats_as_python_shows_them() {
    for (f, expected) in [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (0.1, "0.1"),
        (1e15, "1000000000000000.0"),
        (1e16, "1e+16"),
        (1.5e300, "1.5e+300"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (123_456.789, "123456.789"),
        (f64::INFINITY, ".inf"),
        (f64::NEG_INFINITY, "-.inf"),
        (f64::NAN, ".nan"),
    ] {
        assert_eq!(python_float(f), expected);
    }
}
