use proptest::prelude::*;

use matriarch_core::event::Schedule;
use matriarch_core::time::WallMillis;

use super::*;

fn tags(text: &str) -> Map<String, Value> {
    lenient::object(text).unwrap()
}

fn extras(tags: &Map<String, Value>) -> MemberExtras<'_> {
    MemberExtras { tags, version: PATRONI_LEVEL, database: "postgres", proxy_address: None }
}

/// A record of `10.0.0.<node>` as Patroni would write it: without our mark.
fn record(node: u8, state: &str, role: &str) -> MemberRecord {
    MemberRecord {
        host: format!("10.0.0.{node}"),
        port: 5432,
        api_url: format!("http://10.0.0.{node}:8008/patroni"),
        state: state.to_owned(),
        role: role.to_owned(),
        failover_priority: 1,
        ..MemberRecord::default()
    }
}

const STARTING: &str = r#"{"conn_url":"postgres://10.0.0.1:5432/postgres","api_url":"http://10.0.0.1:8008/patroni","state":"stopped","role":"uninitialized","version":"4.1.5","tags":{"zone":"a"}}"#;
const PRIMARY: &str = r#"{"conn_url":"postgres://10.0.0.1:5432/postgres","api_url":"http://10.0.0.1:8008/patroni","state":"running","role":"primary","version":"4.1.5","tags":{"zone":"a"},"xlog_location":67108960,"timeline":1}"#;
const REPLICA: &str = r#"{"conn_url":"postgres://10.0.0.2:5432/postgres","api_url":"http://10.0.0.2:8008/patroni","state":"running","role":"replica","version":"4.1.5","pending_restart":true,"pending_restart_reason":{"max_connections":{"old_value":"100","new_value":"150"}},"xlog_location":67417512,"replay_lsn":67417512,"receive_lsn":67417512,"replication_state":"streaming","timeline":2}"#;
/// The same, with what only Patroni writes today.
const REPLICA_ALL: &str = r#"{"conn_url":"postgres://10.0.0.2:5432/postgres","api_url":"http://10.0.0.2:8008/patroni","state":"running","role":"replica","version":"4.1.5","pending_restart":true,"pending_restart_reason":{"max_connections":{"old_value":"100","new_value":"150"}},"xlog_location":67417512,"replay_lsn":67417512,"receive_lsn":67417512,"replication_state":"streaming","timeline":2,"scheduled_restart":{"schedule":"2030-01-01T00:00:00+00:00","role":"replica","timeout":60,"postgres_version":"16.1","postmaster_start_time":"2026-11-22 18:56:25.733225+00:00"},"pause":true}"#;
const STANDBY_LEADER: &str = r#"{"conn_url":"postgres://10.0.0.1:5432/postgres","api_url":"http://10.0.0.1:8008/patroni","state":"running","role":"standby_leader","version":"4.1.5","checkpoint_after_promote":false,"xlog_location":218103904,"replay_lsn":218103904,"receive_lsn":218103904,"replication_state":"streaming","timeline":3}"#;

fn starting() -> MemberRecord {
    record(1, "stopped", "uninitialized")
}

fn primary() -> MemberRecord {
    MemberRecord { position: Lsn(67_108_960), timeline: Timeline(1), ..record(1, "running", "primary") }
}

fn standby(base: MemberRecord, position: u64, timeline: u32) -> MemberRecord {
    MemberRecord {
        position: Lsn(position),
        received: Lsn(position),
        replayed: Lsn(position),
        replication_state: "streaming".to_owned(),
        timeline: Timeline(timeline),
        ..base
    }
}

fn replica() -> MemberRecord {
    let pending = ("max_connections".to_owned(), "100".to_owned(), "150".to_owned());
    MemberRecord { pending_restart: vec![pending], ..standby(record(2, "running", "replica"), 67_417_512, 2) }
}

fn standby_leader() -> MemberRecord {
    let base = MemberRecord { checkpoint_pending: true, ..record(1, "running", "standby_leader") };
    standby(base, 218_103_904, 3)
}

#[test]
fn a_scheduled_restart_is_told_as_patroni_tells_it() {
    let text = "2030-01-01T00:00:00+00:00".to_owned();
    let restart = ScheduledRestart {
        schedule: Schedule { text, at: WallMillis(1_893_456_000_000) },
        conditions: RestartConditions {
            role: Some("replica".into()),
            below_version: Some(("16.1".into(), 160_001)),
            only_pending: false,
        },
        timeout_s: Some(60),
        postmaster_start_us: 1_795_373_785_733_225,
    };
    let tags = Map::new();
    let told = |restart| {
        let record = MemberRecord { scheduled_restart: Some(Box::new(restart)), ..replica() };
        serde_json::from_str::<Value>(&member_json(&record, &extras(&tags))).unwrap()["scheduled_restart"].clone()
    };
    let reference: Value = serde_json::from_str(REPLICA_ALL).unwrap();
    assert_eq!(told(restart.clone()), reference["scheduled_restart"]);
    let unknown = ScheduledRestart { postmaster_start_us: 0, ..restart };
    assert_eq!(told(unknown)["postmaster_start_time"], Value::Null);
}

#[test]
fn written_as_patroni_writes_it() {
    let (zone, none) = (tags(r#"{"zone":"a"}"#), Map::new());
    assert_eq!(member_json(&starting(), &extras(&zone)), STARTING);
    assert_eq!(member_json(&primary(), &extras(&zone)), PRIMARY);
    assert_eq!(member_json(&replica(), &extras(&none)), REPLICA);
    assert_eq!(member_json(&standby_leader(), &extras(&none)), STANDBY_LEADER);
}

#[test]
fn samples_of_patroni_are_read() {
    assert_eq!(member_record(STARTING), starting());
    assert_eq!(member_record(PRIMARY), primary());
    assert_eq!(member_record(REPLICA), replica());
    assert_eq!(member_record(REPLICA_ALL), MemberRecord { paused: true, ..replica() });
    assert_eq!(member_record(STANDBY_LEADER), standby_leader());
}

#[test]
fn our_mark_comes_last() {
    let ours = MemberRecord { pledges: true, ..primary() };
    let text = member_json(&ours, &extras(&Map::new()));
    assert!(text.ends_with(concat!(r#","timeline":1,"matriarch":""#, env!("CARGO_PKG_VERSION"), r#""}"#)), "{text}");
    assert_eq!(member_record(&text), ours);
}

#[test]
fn a_proxy_and_the_database_are_told() {
    let none = Map::new();
    let extras = MemberExtras { database: "app", proxy_address: Some("10.0.0.9:6432"), ..extras(&none) };
    let text = member_json(&starting(), &extras);
    assert!(text.contains(r#""conn_url":"postgres://10.0.0.1:5432/app","#), "{text}");
    assert!(text.contains(r#""version":"4.1.5","proxy_url":"postgres://10.0.0.9:6432/app"}"#), "{text}");
}

#[test]
fn a_primary_does_not_tell_what_only_replicas_have() {
    let odd = standby(record(1, "running", "primary"), 50, 1);
    let text = member_json(&odd, &extras(&Map::new()));
    assert!(text.ends_with(r#""version":"4.1.5","xlog_location":50,"timeline":1}"#), "{text}");
}

#[test]
fn master_is_primary_and_only_false_is_a_pending_checkpoint() {
    assert_eq!(member_record(r#"{"role":"master"}"#).role, "primary");
    assert!(member_record(r#"{"checkpoint_after_promote":false}"#).checkpoint_pending);
    assert!(!member_record(r#"{"checkpoint_after_promote":true}"#).checkpoint_pending);
    assert!(!member_record(r#"{"checkpoint_after_promote":null}"#).checkpoint_pending);
    assert!(!member_record("{}").checkpoint_pending);
}

#[test]
fn what_is_no_object_is_a_member_of_which_nothing_is_known() {
    let unknown = MemberRecord { failover_priority: 1, ..MemberRecord::default() };
    for text in ["", "nonsense", "[]", "7", "{}", r#"{"state":5,"tags":[],"timeline":-1,"xlog_location":1.5}"#] {
        assert_eq!(member_record(text), unknown, "{text}");
    }
}

#[test]
fn the_legacy_form() {
    let record = member_record("postgres://u:p@10.0.0.4/db?a=b&application_name=http%3A%2F%2F10.0.0.4:8008/patroni");
    assert_eq!((record.host.as_str(), record.port), ("10.0.0.4", 5432));
    assert_eq!(record.api_url, "http://10.0.0.4:8008/patroni");
    assert_eq!((record.state.as_str(), record.failover_priority), ("", 1));
}

#[test]
fn addresses_in_connection_urls() {
    let address = |url| host_and_port(url);
    assert_eq!(address("postgres://db1:15432/postgres"), ("db1".to_owned(), 15432));
    assert_eq!(address("postgresql://db1"), ("db1".to_owned(), 5432));
    assert_eq!(address("postgres://[fe80::1]:5433/postgres"), ("fe80::1".to_owned(), 5433));
    assert_eq!(address("postgres://u:p%40@[::1]/x"), ("::1".to_owned(), 5432));
    assert_eq!(address("postgres://fe80::1/postgres"), ("fe80::1".to_owned(), 5432));
    assert_eq!(address("postgres://db1:99999/x"), ("db1".to_owned(), 5432));
    assert_eq!(address("db1:5432"), (String::new(), 0));
    for in_two in ["postgres://db 1:5432/x", "postgres://db1\n:5432/x", "postgres://[::1\u{7}]:5432/x"] {
        assert_eq!(address(in_two), (String::new(), 0), "{in_two:?} would end a line of a file");
    }
}

#[test]
fn nofailover_decides_over_its_priority() {
    let effective = |text| {
        let record = tagged(&tags(text));
        (record.nofailover, record.failover_priority)
    };
    assert_eq!(effective("{}"), (false, 1));
    assert_eq!(effective(r#"{"nofailover":true}"#), (true, 0));
    assert_eq!(effective(r#"{"nofailover":true,"failover_priority":5}"#), (true, 0));
    assert_eq!(effective(r#"{"nofailover":false,"failover_priority":0}"#), (false, 0));
    assert_eq!(effective(r#"{"failover_priority":0}"#), (true, 0));
    assert_eq!(effective(r#"{"failover_priority":"3"}"#), (false, 3));
    assert_eq!(effective(r#"{"nofailover":null,"failover_priority":9999999999}"#), (false, i32::MAX));
}

#[test]
fn nostream_is_a_switch() {
    let nostream = |text| tagged(&tags(text)).nostream;
    assert!(nostream(r#"{"nostream":true}"#) && nostream(r#"{"nostream":"Yes"}"#) && nostream(r#"{"nostream":1}"#));
    assert!(!nostream("{}") && !nostream(r#"{"nostream":"off"}"#) && !nostream(r#"{"nostream":null}"#));
}

/// Tags and the record that readers make of them.
fn any_tags() -> impl Strategy<Value = (Map<String, Value>, MemberRecord)> {
    let kind = prop_oneof![Just(None), any::<bool>().prop_map(Some)];
    (kind, prop::option::of(any::<i32>()), any::<bool>(), any::<bool>(), prop::option::of("[a-z]{1,4}")).prop_map(
        |(nofailover, priority, nostream, clonefrom, replicatefrom)| {
            let mut tags = Map::new();
            for (key, value) in [
                ("nofailover", nofailover.map(Value::from)),
                ("failover_priority", priority.map(Value::from)),
                ("nostream", nostream.then_some(true.into())),
                ("clonefrom", clonefrom.then_some(true.into())),
                ("replicatefrom", replicatefrom.clone().map(Value::from)),
            ] {
                if let Some(value) = value {
                    tags.insert(key.to_owned(), value);
                }
            }
            let record = MemberRecord {
                nofailover: nofailover.unwrap_or(priority.is_some_and(|priority| priority <= 0)),
                failover_priority: if nofailover == Some(true) { 0 } else { priority.unwrap_or(1) },
                nostream,
                clonefrom,
                replicatefrom: replicatefrom.map(Member),
                ..MemberRecord::default()
            };
            (tags, record)
        },
    )
}

fn any_member() -> impl Strategy<Value = (Map<String, Value>, MemberRecord)> {
    let place = ("[a-z0-9.-]{1,12}|[0-9a-f]{1,4}:(:[0-9a-f]{1,4}){1,3}", any::<u16>(), ".*");
    let condition =
        (".*", "primary|replica|standby_leader|demoted|uninitialized|promoted", any::<bool>(), any::<bool>());
    let positions = (any::<u32>(), any::<u64>(), any::<u64>(), any::<u64>(), "|streaming|in archive recovery");
    let pending = prop::collection::btree_map(".*", (".*", ".*"), 0..3);
    (any_tags(), place, condition, positions, pending).prop_map(
        |((tags, tagged), place, condition, positions, pending)| {
            let replica = condition.1 != "primary";
            let record = MemberRecord {
                host: place.0,
                port: place.1,
                api_url: place.2,
                state: condition.0,
                role: condition.1,
                checkpoint_pending: condition.2,
                pledges: condition.3,
                timeline: Timeline(positions.0),
                position: Lsn(positions.1),
                received: Lsn(if replica { positions.2 } else { 0 }),
                replayed: Lsn(if replica { positions.3 } else { 0 }),
                replication_state: if replica { positions.4 } else { String::new() },
                pending_restart: pending.into_iter().map(|(name, (old, new))| (name, old, new)).collect(),
                ..tagged
            };
            (tags, record)
        },
    )
}

proptest! {
    #[test]
    fn read_back_as_written((tags, record) in any_member(), database in "[a-z_]{1,8}", proxy in prop::option::of(".*")) {
        let extras = MemberExtras { database: &database, proxy_address: proxy.as_deref(), ..extras(&tags) };
        prop_assert_eq!(member_record(&member_json(&record, &extras)), record);
    }

    #[test]
    fn any_text_can_be_read(text in "(postgres|postgresql://)?.*", escaped in "[%+0-9a-f]*") {
        let _ = member_record(&text);
        let _ = lenient::percent_decoded(&escaped);
    }
}
