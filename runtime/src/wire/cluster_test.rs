use matriarch_core::id::{LeaseId, Lsn, Timeline};
use matriarch_core::time::WallMillis;

use super::*;

fn entry<'a>(key: &'a str, value: &'a str, mod_revision: i64) -> RawEntry<'a> {
    RawEntry { key, value, create_revision: mod_revision - 1, mod_revision, lease: 0 }
}

fn view(entries: &[RawEntry<'_>]) -> ClusterView {
    cluster_view(StoreId(5), Revision(100), entries)
}

fn one(key: &str, value: &str) -> ClusterView {
    view(&[entry(key, value, 9)])
}

#[test]
fn a_whole_cluster() {
    let replica =
        r#"{"conn_url":"postgres://[fd00::2]:5433/postgres","state":"running","role":"replica","timeline":2}"#;
    let view = view(&[
        entry("config", r#"{"ttl":30}"#, 20),
        entry("failover", r#"{"leader":"n1","member":"n2","scheduled_at":"2030-01-01T00:00:00+00:00"}"#, 21),
        entry("failsafe", r#"{"n1":"http://10.0.0.1:8008/patroni"}"#, 22),
        entry("history", r#"[[1,67417056,"no recovery target specified"]]"#, 23),
        entry("initialize", "7711071687290272793", 24),
        RawEntry { lease: 77, ..entry("leader", "n1", 25) },
        entry("matriarch", r#"{"store_id":"5","name":"n1","timeline":2,"lsn":67417056}"#, 26),
        RawEntry { lease: 78, ..entry("members/n2", replica, 27) },
        entry("members/n2/extra", "{}", 28),
        entry("optime/leader", "1", 29),
        entry("status", r#"{"optime":67417552}"#, 30),
        entry("sync", "nonsense", 31),
        entry("somebody_else", "x", 32),
    ]);
    let n1 = || Member::new("n1");
    let leader = LeaderKey { member: n1(), lease: LeaseId(77), created: Revision(24), modified: Revision(25) };
    assert_eq!((view.store, view.revision), (StoreId(5), Revision(100)));
    assert_eq!(view.leader, Some(leader));
    assert_eq!(view.system_id(), Some(SystemId(7_711_071_687_290_272_793)));
    assert_eq!((view.config_revision, view.paused), (Revision(20), Some(false)));
    assert_eq!((view.failover_revision, view.sync_revision), (Revision(21), Revision(31)));
    let request = FailoverKey {
        revision: Revision(21),
        leader: Some(n1()),
        candidate: Some(Member::new("n2")),
        scheduled_at: Some(WallMillis(1_893_456_000_000)),
    };
    assert_eq!(view.failover, Some(request));
    assert_eq!(view.history.revision, Revision(23));
    assert_eq!(view.history.lines.iter().map(|line| line.end).collect::<Vec<_>>(), [Lsn(67_417_056)]);
    let record = view.epoch.unwrap();
    assert_eq!((record.revision, record.epoch, record.member), (Revision(26), Revision(26), n1()));
    assert_eq!(view.members.keys().map(Member::as_str).collect::<Vec<_>>(), ["n2"]);
    let member = view.members.get(&Member::new("n2")).unwrap();
    assert_eq!((member.revision, member.lease), (Revision(27), LeaseId(78)));
    assert_eq!((member.record.host.as_str(), member.record.port), ("fd00::2", 5433));
    assert_eq!(member.record.timeline, Timeline(2));
    assert_eq!(view.status.map(|status| (status.revision, status.optime)), Some((Revision(30), Lsn(67_417_552))));
}

#[test]
fn nothing_is_an_empty_cluster() {
    assert_eq!(view(&[]), ClusterView { store: StoreId(5), revision: Revision(100), ..ClusterView::default() });
}

#[test]
fn only_enough_digits_are_a_system_identifier() {
    let read = |text| one("initialize", text).initialize.unwrap();
    assert_eq!(read("7711071687290272793").system_id, Some(SystemId(7_711_071_687_290_272_793)));
    for text in ["", "771107168", "+7711071687290272793", "77110716872902727x", "99999999999999999999999"] {
        assert_eq!(read(text), Initialize { revision: Revision(9), lease: LeaseId(0), system_id: None }, "{text}");
    }
}

#[test]
fn the_right_to_initialise_names_the_lease_that_it_ends_with() {
    let empty = view(&[RawEntry { lease: 78, ..entry("initialize", "", 9) }]);
    assert_eq!(empty.initialize, Some(Initialize { revision: Revision(9), lease: LeaseId(78), system_id: None }));
}

#[test]
fn a_configuration_that_is_no_object_looks_absent() {
    assert_eq!(one("config", "{}").config_revision, Revision(9));
    for text in ["", "nonsense", "[]", "null", r#""text""#] {
        assert_eq!(one("config", text).config_revision, Revision(0), "{text}");
    }
}

#[test]
fn an_empty_request_is_none_but_keeps_its_revision() {
    for text in ["{}", "", r#"{"leader":"","member":""}"#] {
        let view = one("failover", text);
        assert_eq!((view.failover, view.failover_revision), (None, Revision(9)), "{text}");
    }
    let legacy = one("failover", "n1:n2").failover.unwrap();
    assert_eq!((legacy.leader, legacy.candidate), (Some(Member::new("n1")), Some(Member::new("n2"))));
}

#[test]
fn the_legacy_position_counts_only_without_a_status() {
    let legacy = one("optime/leader", "67108960");
    assert_eq!(legacy.status.map(|status| (status.revision, status.optime)), Some((Revision(0), Lsn(67_108_960))));
    assert_eq!(one("optime/leader", "x").status, None);
    let broken = view(&[entry("status", "nonsense", 8), entry("optime/leader", "67108960", 9)]);
    assert_eq!(broken.status.map(|status| (status.revision, status.optime)), Some((Revision(8), Lsn(0))));
}

#[test]
fn a_leader_without_a_record_and_a_record_that_is_unreadable() {
    let view = view(&[entry("leader", "n9", 4), entry("members/n1", "nonsense", 5)]);
    assert_eq!(view.leader_record(), None);
    assert_eq!(view.leader.map(|leader| leader.member), Some(Member::new("n9")));
    assert_eq!(view.members.get(&Member::new("n1")).map(|key| key.record.state.as_str()), Some(""));
}

/// What is no object says nothing of a pause: it neither begins one nor ends it.
#[test]
fn a_pause_is_read_as_patroni_reads_it() {
    let paused = |config| view(&[entry("config", config, 20)]).paused;
    for (config, expected) in [
        (r#"{"pause":true}"#, Some(true)),
        (r#"{"pause":"on"}"#, Some(true)),
        (r#"{"pause":null}"#, Some(false)),
        ("{}", Some(false)),
        ("[]", None),
        ("nonsense", None),
    ] {
        assert_eq!(paused(config), expected, "{config}");
    }
    assert_eq!(view(&[]).paused, None);
}
