use matriarch_core::id::{Revision, StoreId};
use proptest::prelude::*;

use super::*;
use crate::wire::cluster_view;

fn entry<'a>(key: &'a str, value: &'a str) -> RawEntry<'a> {
    RawEntry { key, value, create_revision: 1, mod_revision: 1, lease: 0 }
}

fn document(entries: &[(&str, &str)]) -> Value {
    let entries: Vec<_> = entries.iter().map(|&(key, value)| entry(key, value)).collect();
    cluster_document("demo", &cluster_view(StoreId(1), Revision(1), &entries), &entries)
}

const N1: &str = r#"{"conn_url":"postgres://10.0.0.1:5432/postgres","api_url":"http://10.0.0.1:8008/patroni","state":"running","role":"primary","version":"4.1.5","tags":{"zone":"a"},"xlog_location":67417552,"timeline":2}"#;
const N2: &str = r#"{"conn_url":"postgres://10.0.0.2:5432/postgres","api_url":"http://10.0.0.2:8008/patroni","state":"running","role":"replica","version":"4.1.5","xlog_location":67417552,"replay_lsn":67417552,"receive_lsn":67417552,"replication_state":"streaming","timeline":2,"pause":true}"#;
/// As the specification gives it.
const SAMPLE: &str = r#"{"members": [{"name": "n1", "role": "leader", "state": "running", "api_url": "http://10.0.0.1:8008/patroni", "host": "10.0.0.1", "port": 5432, "timeline": 2, "tags": {"zone": "a"}}, {"name": "n2", "role": "sync_standby", "state": "streaming", "api_url": "http://10.0.0.2:8008/patroni", "host": "10.0.0.2", "port": 5432, "timeline": 2, "receive_lag": 0, "receive_lsn": "0/404B5D0", "replay_lag": 0, "replay_lsn": "0/404B5D0", "lag": 0, "lsn": "0/404B5D0"}], "pause": true, "scheduled_switchover": {"at": "2030-01-01T00:00:00+00:00", "from": "n1", "to": "n2"}, "scope": "demo"}"#;

fn sample() -> Vec<(&'static str, &'static str)> {
    vec![
        ("config", r#"{"pause":true,"synchronous_mode":true}"#),
        ("failover", r#"{"leader":"n1","member":"n2","scheduled_at":"2030-01-01T00:00:00+00:00"}"#),
        ("leader", "n1"),
        ("members/n2", N2),
        ("members/n1", N1),
        ("status", r#"{"optime":67417552}"#),
        ("sync", r#"{"leader":"n1","quorum":0,"sync_standby":"n2,n3"}"#),
    ]
}

fn replaced(key: &str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    sample().into_iter().map(|(k, v)| if k == key { (k, value) } else { (k, v) }).collect()
}

fn roles(document: &Value) -> Vec<&str> {
    document["members"].as_array().unwrap().iter().map(|member| member["role"].as_str().unwrap()).collect()
}

#[test]
fn the_sample_of_the_specification() {
    // Without blanks on both sides: the order of the fields is what is compared, blanks are put in by the REST API.
    let expected: Value = serde_json::from_str(SAMPLE).unwrap();
    assert_eq!(document(&sample()).to_string(), expected.to_string());
}

#[test]
fn roles_follow_the_modes_of_the_cluster() {
    let with = |config| document(&replaced("config", config));
    assert_eq!(roles(&with(r#"{"synchronous_mode":"quorum"}"#)), ["leader", "quorum_standby"]);
    assert_eq!(roles(&with(r#"{"synchronous_mode":"on"}"#)), ["leader", "sync_standby"]);
    assert_eq!(roles(&with(r#"{"synchronous_mode":false}"#)), ["leader", "replica"]);
    assert_eq!(roles(&with("nonsense")), ["leader", "replica"]);
    let standby = with(r#"{"synchronous_mode":true,"standby_cluster":{"host":"10.1.0.1"}}"#);
    assert_eq!(roles(&standby), ["standby_leader", "replica"]);
    assert_eq!(roles(&with(r#"{"standby_cluster":{"host":""}}"#)), ["leader", "replica"]);
}

#[test]
fn sync_without_a_leader_says_nothing_and_names_have_no_case() {
    let with = |sync| document(&replaced("sync", sync));
    assert_eq!(roles(&with(r#"{"leader":null,"sync_standby":"n2"}"#)), ["leader", "replica"]);
    assert_eq!(roles(&with(r#"{"leader":"n1","sync_standby":" N2 "}"#)), ["leader", "sync_standby"]);
    assert_eq!(roles(&with("nonsense")), ["leader", "replica"]);
}

#[test]
fn a_standby_leader_shows_its_replication_and_no_lag() {
    let standby = r#"{"standby_cluster":{"port":5432}}"#;
    let entries: Vec<_> = [("leader", "n2"), ("config", standby), ("members/n2", N2)].into();
    let document = document(&entries);
    assert_eq!(document["members"][0]["state"], "streaming");
    assert_eq!(document["members"][0].get("lag"), None);
}

#[test]
fn lag_is_unknown_without_a_position_and_never_negative() {
    let silent = r#"{"conn_url":"postgres://10.0.0.3:5433/x","state":"stopped","role":"replica"}"#;
    let behind = r#"{"state":"running","xlog_location":100,"replay_lsn":90,"receive_lsn":150}"#;
    let document = document(&[("members/n3", silent), ("members/n4", behind), ("status", r#"{"optime":120}"#)]);
    let lags = |index: usize| {
        let member = &document["members"][index];
        ["receive_lag", "replay_lag", "lag", "receive_lsn", "replay_lsn", "lsn"].map(|key| member[key].to_string())
    };
    assert_eq!(lags(0), ["\"unknown\""; 6]);
    let keys: Vec<_> = document["members"][0].as_object().unwrap().keys().skip(6).map(String::as_str).collect();
    assert_eq!(keys, ["receive_lsn", "receive_lag", "replay_lsn", "replay_lag", "lsn", "lag"]);
    assert_eq!(lags(1), ["0", "30", "20", "\"0/96\"", "\"0/5A\"", "\"0/64\""]);
    assert_eq!(document["members"][0]["port"], 5433);
    assert_eq!(document["members"][1].get("host"), None);
    assert_eq!(document["members"][1]["api_url"], Value::Null);
}

#[test]
fn what_members_say_is_passed_on_in_order() {
    let member = r#"{"tags":{"x":[1]},"scheduled_restart":{"schedule":"s"},"pending_restart_reason":{"a":{}},"pending_restart":true,"timeline":4}"#;
    let document = document(&[("members/n1", member), ("leader", "n1")]);
    assert_eq!(
        document["members"][0].to_string(),
        concat!(
            r#"{"name":"n1","role":"leader","state":"","api_url":null,"timeline":4,"pending_restart":true,"#,
            r#""pending_restart_reason":{"a":{}},"scheduled_restart":{"schedule":"s"},"tags":{"x":[1]}}"#
        )
    );
}

#[test]
fn an_empty_cluster_has_no_members() {
    assert_eq!(document(&[]).to_string(), r#"{"members":[],"scope":"demo"}"#);
    assert_eq!(document(&[("failover", r#"{"member":"n2"}"#)]).to_string(), r#"{"members":[],"scope":"demo"}"#);
}

/// JSON of any shape, with the names that the keys use.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z:/%\\[\\]@,.é0-9-]{0,16}".prop_map(Value::from),
    ];
    let names = "leader|member|scheduled_at|optime|slots|retain_slots|tags|nofailover|failover_priority|conn_url|sync_standby\
                 |timeline|xlog_location|pending_restart_reason|standby_cluster|synchronous_mode|host|state|role|epoch";
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((names, inner), 0..6).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_keys_can_be_read(
        entries in prop::collection::vec(
            (
                "leader|members/[a-z]{0,2}|initialize|config|status|optime/leader|failover|sync|history|matriarch|.*",
                prop_oneof![any_json().prop_map(|value| value.to_string()), any::<String>()],
                any::<(i64, i64, i64)>(),
            ),
            0..12,
        ),
    ) {
        let entries: Vec<_> = entries
            .iter()
            .map(|(key, value, numbers)| RawEntry {
                key, value, create_revision: numbers.0, mod_revision: numbers.1, lease: numbers.2,
            })
            .collect();
        let view = cluster_view(StoreId(1), Revision(1), &entries);
        let document = cluster_document("demo", &view, &entries);
        prop_assert_eq!(document["members"].as_array().map(Vec::len), Some(view.members.len()));
    }
}
