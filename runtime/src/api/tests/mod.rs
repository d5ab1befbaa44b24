//! The API over a real socket, in front of a fabricated agent.

mod configure;
mod freshness;
pub(crate) mod node;
mod openapi;
mod tls;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::Method;
use matriarch_core::decide::Rung;
use matriarch_core::effects::Decision;
use matriarch_core::event::PeerEvent;
use matriarch_core::id::{LeaseId, Lsn, Member, Revision};
use matriarch_core::op::Outcome;
use matriarch_core::reason::Reason;
use matriarch_core::time::WallMillis;
use matriarch_core::view::guard::Armed;
use matriarch_core::view::postgres::Process;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::{Allowlist, ApiSettings, serve};
use crate::agent::handle::{Handle, Shared};
use crate::clock;
use crate::config::{Credentials, Secret};
use crate::http::{Client, request};
use crate::net::{Connector, Listener};
use crate::peers::Peers;
use node::*;

fn client() -> Client {
    Client::new(Connector::tcp(LIMIT))
}

fn asker() -> Peers {
    Peers::new(client(), "demo")
}

#[tokio::test]
async fn the_leader_answers_by_its_tenure() {
    let node = serve_node(leading(Duration::from_secs(20)), None).await;
    node.codes(&[
        ("/", 200),
        ("/primary", 200),
        ("/master", 200),
        ("/leader", 200),
        ("/read-write", 200),
        ("/read-only", 200),
        ("/read-only-sync", 200),
        ("/health", 200),
        ("/my-primary-check/x", 200),
        ("/standby-leader", 503),
        ("/standby_leader", 503),
        ("/replica", 503),
        ("/async", 503),
        ("/sync", 503),
        ("/quorum", 503),
        ("/Primary", 503),
        ("/nothing", 503),
    ])
    .await;
    assert_eq!(node.ask(Method::HEAD, "/primary", None).await, (200, String::new()));
    assert_eq!(node.get("/readiness").await, (200, String::new()));
    assert_eq!(node.get("/liveness/foo").await, (200, String::new()));
}

#[tokio::test]
async fn a_primary_without_an_acknowledged_tenure_is_none() {
    let expired = leading(Duration::ZERO);
    let mut foreign = leading(Duration::from_secs(20));
    foreign.core.guard.armed = foreign.core.guard.armed.map(|armed| Armed { tenure: LeaseId(41), ..armed });
    let mut on_hold = leading(Duration::from_secs(20));
    on_hold.core.guard.held = true;
    for shared in [expired, foreign, on_hold, node(primary())] {
        let node = serve_node(shared, None).await;
        node.codes(&[("/", 503), ("/leader", 503), ("/read-write", 503), ("/read-only", 503), ("/replica", 503)]).await;
        // What PostgreSQL says of itself stays what it is.
        node.codes(&[("/health", 200)]).await;
        let document: Value = serde_json::from_str(&node.get("/").await.1).unwrap();
        assert_eq!(document["role"], "primary");
    }
}

#[tokio::test]
async fn a_standby_answers_by_lag_and_tags() {
    let mut shared = node(standby());
    // 1024 bytes behind; nothing is observed while facts are fresh, so replay stands still.
    // What says nothing is not published, and can be filtered by all the same.
    let configured = json!({"zone": "a", "nofailover": true, "clonefrom": false, "failover_priority": 2});
    shared.configured_tags = configured.as_object().unwrap().clone();
    shared.tags = shared.configured_tags.clone();
    shared.tags.remove("clonefrom");
    let node = serve_node(shared, None).await;
    node.codes(&[
        ("/", 503),
        ("/leader", 503),
        ("/replica", 200),
        ("/read-only", 200),
        ("/async", 200),
        ("/asynchronous", 200),
        ("/async/", 503),
        ("/sync", 503),
        ("/read-only-sync", 503),
        ("/read-only-foo", 200),
        ("/replica?lag=0", 503),
        ("/replica?lag=1023", 503),
        ("/replica?lag=1kB", 200),
        ("/replica?lag=-1", 503),
        ("/replica?lag=1kb", 200),
        ("/async?lag=0", 503),
        ("/health?lag=0", 200),
        ("/replica?tag_zone=a", 200),
        ("/replica?tag_zone=b", 503),
        ("/replica?tag_zone=a&tag_zone=b", 200),
        ("/replica?tag_zone=b&tag_zone=a", 503),
        ("/replica?tag_nofailover=true", 200),
        ("/replica?tag_other=1", 503),
        ("/replica?tag_clonefrom=false", 200),
        ("/replica?tag_clonefrom=true", 503),
        ("/replica?tag_failover_priority=2", 200),
        ("/health?tag_zone=b", 503),
    ])
    .await;
    assert_eq!(node.get("/readiness").await.0, 200);
    assert_eq!(node.get("/readiness?lag=1000").await.0, 503);
    assert_eq!(node.get("/readiness?lag=0&mode=write").await.0, 200);
    node.shared.lock().unwrap().tags.insert("noloadbalance".into(), true.into());
    node.codes(&[("/replica", 503), ("/read-only", 503)]).await;
}

#[tokio::test]
async fn facts_that_are_old_are_asked_for_and_silence_means_unknown() {
    let aged = || {
        let mut shared = node(standby());
        let old = clock::now().back(Duration::from_mins(1));
        if let Some(seen) = shared.core.postgres.sql.as_mut() {
            (seen.asked, seen.heard) = (old, old);
        }
        shared
    };
    let node = serve_node(aged(), None).await;
    assert_eq!(node.get("/replica").await.0, 200);
    assert!(node.observed());

    // Nobody reads the messages: PostgreSQL does not answer.
    let (messages, _inbox) = mpsc::channel(16);
    let shared = Arc::new(Mutex::new(aged()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/replica", listener.local_addr().unwrap());
    let (_keep, settings) = watch::channel(settings());
    tokio::spawn(serve(Listener::tcp(listener), Handle::new(shared, messages, clock::host()), settings));
    let (status, body) = request(Method::GET, &url, None, None, LIMIT).await.unwrap();
    let document: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &document["state"], document.get("xlog")), (503, &json!("unknown"), None));
}

/// A primary's position can be a segment further within an instant: one that tells an older one passes for lagging.
#[tokio::test]
async fn a_position_is_of_now_and_a_health_check_may_be_of_a_second_ago() {
    let mut shared = node(standby());
    let lately = clock::now().back(Duration::from_millis(100));
    if let Some(seen) = shared.core.postgres.sql.as_mut() {
        (seen.asked, seen.heard) = (lately, lately);
    }
    let before = standby().replayed.0;
    let node = serve_node(shared, None).await;
    let document: Value = serde_json::from_str(&node.get("/replica").await.1).unwrap();
    assert_eq!(document["xlog"]["replayed_location"], before);
    assert!(!node.observed());
    assert_eq!(node.json("/patroni").await["xlog"]["replayed_location"], before + 512);
    assert!(node.observed());
}

#[tokio::test]
async fn the_status_document_has_patronis_keys_in_patronis_order() {
    let node_of_primary = serve_node(leading(Duration::from_secs(20)), None).await;
    let (_, body) = node_of_primary.get("/patroni").await;
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "{{\"state\": \"running\", \"postmaster_start_time\": \"2026-11-22 18:56:25.733225+00:00\", \
         \"role\": \"primary\", \"server_version\": 150018, \"xlog\": {{\"location\": 67416760}}, \"timeline\": 2, \
         \"replication\": [{{\"usename\": \"repl\", \"application_name\": \"n2\", \"client_addr\": \"10.0.0.2\", \
         \"state\": \"streaming\", \"sync_state\": \"async\", \"sync_priority\": 0}}], \"dcs_last_seen\": 1795373943, \
         \"database_system_identifier\": \"7711071687290272793\", \"patroni\": {{\"version\": \"4.1.5\", \
         \"scope\": \"demo\", \"name\": \"n1\", \"matriarch\": \"{version}\"}}, \
         \"matriarch\": {{\"primary\": true, \"barred\": false, \"timeline\": 2, \"history\": [[1, \"0/4040000\"]], \
         \"receives\": false, \"flushed\": \"0/404B2B8\", \"replayed\": \"0/0\", \"replay_paused\": false, \
         \"pledge\": null, \"leader_epoch\": 5, \"keys_at\": 7, \"tenure_ttl_ms\": 30000}}}}"
    );
    assert_eq!(body, expected);
    let node_of_standby = serve_node(node(standby()), None).await;
    let document = node_of_standby.json("/patroni").await;
    let xlog = json!({
        "received_location": 67_417_552, "replayed_location": 67_416_528,
        "replayed_timestamp": "2026-11-22 18:53:32.523000+00:00", "paused": false,
    });
    assert_eq!(document["xlog"], xlog);
    assert_eq!(document["replication_state"], "streaming");
    assert_eq!(
        document["pending_restart_reason"],
        json!({"max_connections": {"old_value": "100", "new_value": "150"}})
    );
    let keys: Vec<&String> = document.as_object().unwrap().keys().collect();
    let order = "state postmaster_start_time role server_version xlog timeline replication_state dcs_last_seen \
                 database_system_identifier pending_restart pending_restart_reason patroni matriarch";
    assert_eq!(keys, order.split_whitespace().collect::<Vec<_>>());
}

#[tokio::test]
async fn cluster_history_and_config_are_those_of_the_store() {
    let node = serve_node(node(standby()), None).await;
    let cluster = node.json("/cluster").await;
    assert_eq!(cluster["scope"], "demo");
    assert_eq!(cluster["members"][0]["role"], "leader");
    let line = json!([1, 67_417_056, "no recovery target specified", "2026-11-22T18:59:36.068758+00:00", "n2"]);
    assert_eq!(node.json("/history").await, json!([line]));
    assert_eq!(node.json("/config/xyz").await, json!({"ttl": 30, "loop_wait": 10}));
    node.shared.lock().unwrap().dynamic = None;
    assert_eq!(node.get("/config").await.0, 502);

    let mut silent = settings();
    silent.store.read = Arc::new(|| Box::pin(async { Err("no store".into()) }));
    let node = serve_with(node::node(standby()), silent).await;
    assert_eq!(node.get("/cluster").await, (503, "no store".into()));
}

#[tokio::test]
async fn unsafe_endpoints_ask_who_is_there_and_unknown_ones_are_501() {
    let auth = Credentials { username: "admin".into(), password: Secret::new("s3cret") };
    let node = serve_node(leading(Duration::from_secs(20)), Some(auth.clone())).await;
    let url = format!("{}/restart", node.base);
    assert_eq!(node.ask(Method::POST, "/restart", None).await, (401, "no auth header received".into()));
    let wrong = Credentials { password: Secret::new("s3creT"), ..auth.clone() };
    let answer = request(Method::POST, &url, Some(&wrong), None, LIMIT).await.unwrap();
    assert_eq!(answer, (401, "not authenticated".into()));
    assert_eq!(node.told(), [""; 0]);
    let answer = request(Method::POST, &url, Some(&auth), None, LIMIT).await.unwrap();
    assert_eq!(answer, (200, "restarted successfully".into()));
    assert_eq!(node.told(), ["Restart"]);
    assert_eq!(node.ask(Method::DELETE, "/restart", None).await.0, 401);
    for (method, path) in [
        (Method::PATCH, "/config"),
        (Method::PUT, "/config"),
        (Method::DELETE, "/switchover"),
        (Method::POST, "/sigterm"),
    ] {
        assert_eq!(node.ask(method, path, Some("{}")).await.0, 401, "{path}");
    }
    for (method, path) in [(Method::POST, "/unknown"), (Method::PATCH, "/patroni"), (Method::DELETE, "/config")] {
        let (status, body) = node.ask(method, path, Some("{}")).await;
        assert!(status == 501 && body.contains("Server does not support this operation"), "{path}: {status} {body}");
    }
}

#[tokio::test]
async fn an_allowlist_closes_the_unsafe_endpoints_only() {
    let allowlist = Allowlist::resolve(&["192.0.2.0/24".to_owned()], true).await;
    let node = serve_with(leading(Duration::from_secs(20)), ApiSettings { allowlist, ..settings() }).await;
    assert_eq!(node.ask(Method::POST, "/reload", None).await, (403, "Access is denied".into()));
    assert_eq!(node.told(), [""; 0]);
    assert_eq!(node.get("/patroni").await.0, 200);
    // A member's address is listed as soon as the member is.
    if let Some(seen) = node.shared.lock().unwrap().core.store.cluster.as_mut() {
        seen.value.members.get_mut(&Member::new("n2")).unwrap().record.api_url = "http://127.0.0.1:1/patroni".into();
    }
    assert_eq!(node.ask(Method::POST, "/reload", None).await.0, 202);
    // What is for a time without a store is not opened by what the store tells of members.
    assert_eq!(node.ask(Method::POST, "/failsafe", Some("{}")).await.0, 403);
}

#[tokio::test]
async fn members_alone_as_an_allowlist_do_not_close_what_they_ask_each_other_without_a_store() {
    let allowlist = Allowlist::resolve(&[], true).await;
    let node = serve_with(leading(Duration::from_secs(20)), ApiSettings { allowlist, ..settings() }).await;
    assert_eq!(node.ask(Method::POST, "/reload", None).await.0, 403);
    assert_eq!(node.ask(Method::POST, "/failsafe", Some("{}")).await.0, 502);
}

#[tokio::test]
async fn answers_carry_patronis_headers() {
    let node =
        serve_with(leading(Duration::from_secs(20)), ApiSettings { server_tokens: "Minimal".into(), ..settings() });
    let base = node.await.base;
    let address = base.trim_start_matches("http://");
    for (request, expected, absent) in [
        ("GET /patroni HTTP/1.0\r\n\r\n", "server: patroni/4.1.5\r\n", "x-none"),
        ("GET /patroni HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "x-frame-options: deny\r\n", "x-none"),
        ("OPTIONS / HTTP/1.0\r\n\r\n", "http/1.0 200 ok\r\n", "x-frame-options"),
        ("POST /unknown HTTP/1.0\r\n\r\n", "content-type: text/html;charset=utf-8\r\n", "x-none"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let answer = answer.to_lowercase();
        assert!(answer.contains(expected) && !answer.contains(absent), "{request}\n{answer}");
    }
}

/// A place for a connection is held by nobody who asks and asks and never reads.
#[tokio::test]
async fn a_client_that_does_not_read_is_let_go() {
    let node = serve_node(leading(Duration::from_secs(20)), None).await;
    let mut stream = tokio::net::TcpStream::connect(node.base.trim_start_matches("http://")).await.unwrap();
    let ended = async { while stream.write_all(b"GET /why HTTP/1.1\r\nHost: x\r\n\r\n").await.is_ok() {} };
    assert!(tokio::time::timeout(Duration::from_secs(60), ended).await.is_ok(), "it is served for ever");
}

#[tokio::test]
async fn operators_reach_core_and_bad_bodies_do_not() {
    let node = serve_node(leading(Duration::from_secs(20)), None).await;
    let body = r#"{"leader": "n1", "candidate": "n2"}"#;
    let answer = node.ask(Method::POST, "/switchover", Some(body)).await;
    assert_eq!(answer, (200, "Successfully switched over to \"n2\"".into()));
    assert!(node.told()[0].contains("switchover: true"), "{:?}", node.told());
    for body in ["[]", "{}", "\"a\"", "{", ""] {
        let (status, page) = node.ask(Method::POST, "/switchover", Some(body)).await;
        assert!(status == 400 && page.contains("Bad Request"), "{body}: {status}");
    }
    assert_eq!(node.ask(Method::POST, "/restart", Some("[")).await.0, 400);
    assert_eq!(node.ask(Method::POST, "/switchover", None).await.0, 411);
    assert_eq!(node.ask(Method::POST, "/restart", Some(r#"{"role": "replica"}"#)).await.0, 503);
    // Whether its conditions hold is asked at its time.
    let scheduled = r#"{"schedule": "2199-01-01T00:00:00Z", "role": "replica", "timeout": "1min"}"#;
    assert_eq!(node.ask(Method::POST, "/restart", Some(scheduled)).await, (200, "Restart scheduled".into()));
    let told = node.told();
    for part in ["ScheduleRestart", "2199-01-01T00:00:00+00:00", "Some(\"replica\")", "timeout_s: Some(60)"] {
        assert!(told[1].contains(part), "{part}: {told:?}");
    }
    assert_eq!(node.ask(Method::DELETE, "/restart", None).await, (200, "scheduled restart deleted".into()));
    assert_eq!(node.ask(Method::POST, "/reinitialize", Some(r#"{"force": "on", "from_leader": true}"#)).await.0, 200);
    assert_eq!(node.ask(Method::POST, "/reload", None).await, (202, "reload scheduled".into()));
    let told = node.told();
    assert_eq!(&told[2..], ["CancelRestart", "Reinitialize { force: true, from_leader: true }", "Reload"]);
}

#[tokio::test]
async fn metrics_are_patronis_in_order_and_ours_after_them() {
    let mut shared = leading(Duration::from_secs(20));
    shared.counts.decisions.insert("tenure_held", 3);
    let node = serve_node(shared, None).await;
    let (status, page) = node.get("/metrics").await;
    assert_eq!(status, 200);
    let names: Vec<&str> =
        page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split('{').next()).collect();
    assert!(names[23..].iter().all(|name| name.starts_with("matriarch_")), "{names:?}");
    assert_eq!((names[0], names[22]), ("patroni_version", "patroni_postgres_state"));
    for line in [
        "patroni_version{scope=\"demo\",name=\"n1\"} 040105",
        "patroni_primary{scope=\"demo\",name=\"n1\"} 1",
        "patroni_xlog_location{scope=\"demo\",name=\"n1\"} 67416760",
        "patroni_postmaster_start_time{scope=\"demo\",name=\"n1\"} 1795373785.733225",
        "patroni_postgres_state{scope=\"demo\",name=\"n1\"} 5",
        "# TYPE patroni_xlog_location counter",
        "matriarch_decisions_total{scope=\"demo\",name=\"n1\",code=\"tenure_held\"} 3",
        "matriarch_tenures_won_total{scope=\"demo\",name=\"n1\"} 0",
        "# TYPE matriarch_tenures_ended_total counter",
        "# TYPE matriarch_step_seconds histogram",
        "matriarch_step_seconds_bucket{scope=\"demo\",name=\"n1\",le=\"0.0001\"} 0",
        "matriarch_store_seconds_bucket{scope=\"demo\",name=\"n1\",le=\"+Inf\"} 0",
        "matriarch_tenure_slack_seconds_count{scope=\"demo\",name=\"n1\"} 0",
        "matriarch_guard_wishes_refused{scope=\"demo\",name=\"n1\"} 1",
        "matriarch_decision{scope=\"demo\",name=\"n1\",code=\"tenure_held\"} 1",
    ] {
        assert!(page.lines().any(|known| known == line), "{line} is not in\n{page}");
    }
    assert!(page.contains("# HELP patroni_postgres_state State of PostgreSQL.\n# Values: 0=initdb, 1=initdb_failed,"));
}

#[tokio::test]
async fn why_tells_every_rung_and_what_it_rests_on() {
    let mut shared = leading(Duration::from_secs(20));
    let reason = Reason::LeaderIsOther { who: Member::new("n2"), revision: Revision(9) };
    shared.journal.push_back((WallMillis(0), Decision { rung: Rung::Fence, reason }));
    let node = serve_node(shared, None).await;
    let why = node.json("/why").await;
    assert_eq!(why["decision"]["rung"], "leader");
    assert_eq!(why["rungs"].as_array().map(Vec::len), Some(matriarch_core::decide::LADDER.len()));
    assert_eq!(why["rungs"][0]["code"], Value::Null);
    assert_eq!(why["tenure"]["lease"], 42);
    assert_eq!(why["guard"]["wishes_refused"], json!(["real-time priority: not permitted"]));
    assert_eq!(why["warnings"], json!(["ttl was raised", "prot is not used"]));
    assert_eq!(why["journal"][0]["code"], "leader_is_other");
    assert_eq!(why["journal"][0]["time"], "1970-01-01T00:00:00.000+00:00");
    assert_eq!(node.json("/why?node=n1").await["name"], "n1");
    assert_eq!(node.get("/why?node=n9").await.0, 404);

    // Another member explains itself through this one.
    let other = serve_node(node_named("n2"), None).await;
    let api_url = format!("{}/patroni", other.base);
    if let Some(seen) = node.shared.lock().unwrap().core.store.cluster.as_mut() {
        seen.value.members.get_mut(&Member::new("n2")).unwrap().record.api_url = api_url;
    }
    assert_eq!(node.json("/why?node=n2").await["name"], "n2");
}

fn node_named(name: &str) -> Shared {
    let mut shared = node(standby());
    shared.core.config.me = Member::new(name);
    shared
}

#[tokio::test]
async fn peers_read_a_matriarch_node() {
    let node = serve_node(node(standby()), None).await;
    let api_url = format!("{}/patroni", node.base);
    let pledge = Revision(77);
    let position = asker().ask_position(&api_url, true, pledge, LIMIT).await;
    assert_eq!(position, Outcome::Done(pledged(pledge)));
    assert_eq!(node.told(), ["PositionAsked(77)"]);

    let Outcome::Done(status) = asker().ask_status(&api_url, LIMIT).await else { panic!("no status") };
    assert!(!status.primary && !status.barred && status.pledge.is_none());
    assert_eq!((status.flushed, status.history), (Lsn(67_417_552), pledged(pledge).history));

    // Replay goes on by 512 bytes an observation, so the third one is beyond.
    let Outcome::Done(answer) = asker().await_replay(&api_url, true, Lsn(67_417_600), LIMIT).await else {
        panic!("no answer")
    };
    assert_eq!(answer.replayed, Lsn(67_416_528 + 3 * 512));
    assert_eq!(answer.history, pledged(pledge).history);
    assert!(node.told().contains(&format!("Peer({:?})", PeerEvent::HandoverAnnounced)));

    // A position out of reach: the answer comes with the deadline and tells how far it is.
    let short = Duration::from_millis(20);
    let Outcome::Done(answer) = asker().await_replay(&api_url, true, Lsn(u64::MAX), short).await else {
        panic!("no answer")
    };
    assert!(answer.replayed < Lsn(u64::MAX));
    assert_eq!(node.get("/matriarch/replayed?beyond=x&deadline_ms=1").await.0, 400);
    // Whoever means a member of another cluster, which had this address, hears of none.
    let stranger = Peers::new(client(), "an other/cluster");
    let heard = node.told().len();
    for answer in [
        stranger.ask_position(&api_url, true, pledge, LIMIT).await,
        stranger.await_replay(&api_url, true, Lsn(0), LIMIT).await,
        stranger.ask_status(&api_url, LIMIT).await,
    ] {
        assert!(matches!(answer, Outcome::Refused(_)), "{answer:?}");
    }
    assert_eq!(node.told().len(), heard);
    assert_eq!(node.ask(Method::POST, "/matriarch/position", Some("{\"absent_at\": \"x\"}")).await.0, 400);
}

#[tokio::test]
async fn peers_read_a_patroni_node() {
    let mut shared = node(standby());
    shared.core.config.nofailover = true;
    let old = clock::now().back(Duration::from_secs(2));
    if let Some(seen) = shared.core.postgres.sql.as_mut() {
        (seen.asked, seen.heard) = (old, old);
    }
    let replica = serve_node(shared, None).await;
    let api_url = format!("{}/patroni", replica.base);
    let Outcome::Done(position) = asker().ask_position(&api_url, false, Revision(77), LIMIT).await else {
        panic!("no position")
    };
    assert!(position.barred && position.pledge.is_none());
    assert_eq!(position.history, pledged(Revision(77)).history, "ours tells all that it would tell one of ours");
    let Outcome::Done(answer) = asker().await_replay(&api_url, false, Lsn(67_417_000), LIMIT).await else {
        panic!("no answer")
    };
    assert_eq!(answer.replayed, Lsn(67_416_528 + 512));

    let primary = serve_node(leading(Duration::from_secs(20)), None).await;
    let Outcome::Done(answer) = asker().ask_status(&format!("{}/patroni", primary.base), LIMIT).await else {
        panic!("no status")
    };
    assert!(answer.primary && answer.flushed == Lsn(67_416_760));

    // Who leads tells so also while its PostgreSQL says nothing. One that is not there is unreachable.
    primary.shared.lock().unwrap().core.postgres.process = Process::Absent;
    let api_url = format!("{}/patroni", primary.base);
    let told = asker().ask_status(&api_url, LIMIT).await.done();
    assert!(told.is_some_and(|answer| answer.primary && answer.replayed == Lsn(0)));
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api_url = format!("http://{}/patroni", nobody.local_addr().unwrap());
    assert!(matches!(asker().ask_status(&api_url, Duration::from_millis(50)).await, Outcome::Unknown(_)));
    drop(nobody);
    assert!(matches!(asker().ask_status(&api_url, LIMIT).await, Outcome::Refused(_)));
}
