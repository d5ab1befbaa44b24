//! A fabricated node: what its agent would share, and a loop that grants everything.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::Method;
use matriarch_core::action::Answer;
use matriarch_core::config::{Config, Published};
use matriarch_core::event::Request;
use matriarch_core::id::{LeaseId, Lsn, Member, Pid, Revision, StoreId, SystemId, Timeline};
use matriarch_core::lease::{Held, Tenure};
use matriarch_core::op::Outcome;
use matriarch_core::state::State;
use matriarch_core::time::{Seen, WallMillis};
use matriarch_core::timeline::{Ancestor, History};
use matriarch_core::view::guard::Armed;
use matriarch_core::view::peers::PeerAnswer;
use matriarch_core::view::postgres::{Cluster, ControlState, DataDir, Phase, Process, Receiver, Sender, Sql};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::agent::counts::Counts;
use crate::agent::handle::{Handle, Message, Shared};
use crate::api::{Allowlist, ApiSettings, ClusterRead, StoreAccess, serve};
use crate::clock;
use crate::config::Credentials;
use crate::http::{Client, request};
use crate::net::{Connector, Listener};
use crate::wire::{RawEntry, cluster_view};

pub(super) const LIMIT: Duration = Duration::from_secs(10);
const OBSERVE: &str = "Observe";

pub(super) fn config() -> Config {
    let api_url = "http://127.0.0.1:8008/patroni".into();
    Config {
        clone_when_diverged: true,
        clone_when_rewind_fails: true,
        published: Published { host: "127.0.0.1".into(), port: 5432, api_url },
        ..Config::usual("n1")
    }
}

pub(super) fn entry<'a>(key: &'a str, value: &'a str) -> RawEntry<'a> {
    RawEntry { key, value, create_revision: 5, mod_revision: 7, lease: 42 }
}

pub(super) const KEYS: &[(&str, &str)] = &[
    ("initialize", "7711071687290272793"),
    ("leader", "n1"),
    (
        "members/n1",
        r#"{"conn_url":"postgres://10.0.0.1:5432/postgres","api_url":"http://10.0.0.1:8008/patroni","state":"running","role":"primary","version":"4.1.5","xlog_location":67416760,"timeline":2}"#,
    ),
    (
        "members/n2",
        r#"{"conn_url":"postgres://10.0.0.2:5432/postgres","api_url":"http://10.0.0.2:8008/patroni","state":"running","role":"replica","version":"4.1.5","xlog_location":67416760,"replay_lsn":67416760,"receive_lsn":67416760,"replication_state":"streaming","timeline":2}"#,
    ),
    ("status", r#"{"optime":67417552}"#),
    ("history", r#"[[1,67417056,"no recovery target specified","2026-11-22T18:59:36.068758+00:00","n2"]]"#),
];

pub(super) fn cluster_read() -> ClusterRead {
    let entries: Vec<RawEntry<'_>> = KEYS.iter().map(|(key, value)| entry(key, value)).collect();
    ClusterRead::new("demo", cluster_view(StoreId(1), Revision(7), &entries), &entries)
}

/// A node that runs PostgreSQL, has seen the cluster, and holds nothing.
pub(crate) fn node(sql: Sql) -> Shared {
    let now = clock::now();
    let mut core = State::new(config(), now);
    core.tenure = Tenure::None;
    core.wall = (now, WallMillis(1));
    core.store.answered = now;
    core.store.cluster = Some(Seen::new(cluster_read().view, now, now));
    core.memory.streamed_from = sql.in_recovery.then(|| Member::new("n1"));
    core.postgres.process = Process::Alive { pid: Pid(100), phase: Phase::Ready };
    core.postgres.data = DataDir::Cluster(Cluster {
        system_id: SystemId(7_711_071_687_290_272_793),
        major_version: 15,
        state: if sql.in_recovery { ControlState::InArchiveRecovery } else { ControlState::InProduction },
        checkpoint: Lsn(1),
        checkpoint_timeline: Timeline(2),
        min_recovery: Lsn(0),
        min_recovery_timeline: Timeline(0),
        rewindable: true,
        standby_signal: sql.in_recovery,
        backup_label: false,
        tainted: None,
        history: History {
            ancestors: vec![Ancestor { timeline: Timeline(1), end: Lsn(0x404_0000), reason: String::new() }],
            timeline: Timeline(2),
        },
        newest_timeline: Timeline(2),
        segment_bytes: 16 << 20,
    });
    // Fresh for as long as any test takes: what is observed, a test makes old.
    let fresh = now + Duration::from_mins(1);
    core.postgres.sql = Some(Seen::new(sql, fresh, fresh));
    Shared {
        core,
        journal: VecDeque::new(),
        counts: Counts::default(),
        dynamic: Some(json!({"ttl": 30, "loop_wait": 10})),
        tags: serde_json::Map::new(),
        configured_tags: serde_json::Map::new(),
        scope: "demo".into(),
        system_identifier: Some("7711071687290272793".into()),
        store_last_seen_s: 1_795_373_943,
        guard_wishes_refused: vec!["real-time priority: not permitted".into()],
        configuration_warnings: vec!["ttl was raised".into()],
        parameter_warnings: vec!["prot is not used".into()],
    }
}

pub(crate) fn standby() -> Sql {
    Sql {
        in_recovery: true,
        timeline: Timeline(2),
        received: Lsn(67_417_552),
        replayed: Lsn(67_416_528),
        replayed_at: Some(1_795_373_612_523),
        receiver: Some(Receiver { pid: 7, streaming: true, latest_end: Lsn(67_417_552), ..Receiver::default() }),
        server_version: 150_018,
        postmaster_start_us: 1_795_373_785_733_225,
        pending_restart: vec![("max_connections".into(), "100".into(), "150".into())],
        ..Sql::default()
    }
}

pub(super) fn primary() -> Sql {
    let sender = Sender {
        application_name: Member::new("n2"),
        user: "repl".into(),
        address: Some("10.0.0.2".into()),
        state: "streaming".into(),
        sync_state: "async".into(),
        ..Sender::default()
    };
    Sql {
        timeline: Timeline(2),
        flushed: Lsn(67_416_760),
        senders: vec![sender],
        server_version: 150_018,
        postmaster_start_us: 1_795_373_785_733_225,
        ..Sql::default()
    }
}

/// The same node with a tenure that the guard has acknowledged for another `left`.
pub(crate) fn leading(left: Duration) -> Shared {
    let mut shared = node(primary());
    let now = clock::now();
    let held = Held { lease: LeaseId(42), epoch: Revision(5), ttl: Duration::from_secs(30), confirmed: now };
    shared.core.tenure = Tenure::Held(held);
    shared.core.guard.present = true;
    shared.core.guard.armed = Some(Armed { tenure: LeaseId(42), at: now + left });
    shared
}

/// What the fabricated loop was told.
pub(super) type Told = Arc<Mutex<Vec<String>>>;

pub(crate) struct Node {
    pub(crate) base: String,
    pub(super) shared: Arc<Mutex<Shared>>,
    pub(super) told: Told,
    pub(super) settings: watch::Sender<ApiSettings>,
}

/// Serves a node. Its loop grants every request, and an observation lets replay go on by 512 bytes.
pub(crate) async fn serve_node(shared: Shared, authentication: Option<Credentials>) -> Node {
    serve_with(shared, ApiSettings { authentication, ..settings() }).await
}

pub(crate) fn settings() -> ApiSettings {
    ApiSettings {
        authentication: None,
        allowlist: Allowlist::default(),
        tls: None,
        extra_headers: vec![("X-Frame-Options".into(), "DENY".into())],
        server_tokens: "original".into(),
        store: StoreAccess {
            read: Arc::new(|| Box::pin(async { Ok(cluster_read()) })),
            put: Arc::new(|_, _, _| Box::pin(async { Outcome::Unknown("nothing is written here".into()) })),
        },
        peers: Client::new(Connector::tcp(LIMIT)),
    }
}

pub(super) async fn serve_with(shared: Shared, settings: ApiSettings) -> Node {
    let shared = Arc::new(Mutex::new(shared));
    let (messages, mut inbox) = mpsc::channel(16);
    let told = Told::default();
    let (state, heard) = (Arc::clone(&shared), Arc::clone(&told));
    tokio::spawn(async move {
        while let Some(message) = inbox.recv().await {
            let text = match message {
                Message::Operator(request, answer) => {
                    let text = format!("{request:?}");
                    let body = match request {
                        Request::Move(_) => "Successfully switched over to \"n2\"",
                        Request::Restart => "restarted successfully",
                        Request::ScheduleRestart(_) => "Restart scheduled",
                        Request::CancelRestart => "scheduled restart deleted",
                        Request::Reinitialize { .. } => "reinitialize started",
                    };
                    let _ = answer.send(Answer::Text { status: 200, body: body.into() });
                    text
                }
                Message::PositionAsked(absent_at, answer) => {
                    let _ = answer.send(Answer::Position(pledged(absent_at)));
                    format!("PositionAsked({absent_at})")
                }
                Message::Observe(done) => {
                    let mut state = state.lock().unwrap();
                    let now = clock::now();
                    if let Some(seen) = state.core.postgres.sql.as_mut() {
                        seen.value.replayed.0 += 512;
                        (seen.asked, seen.heard) = (now, now);
                    }
                    let _ = done.send(());
                    OBSERVE.into()
                }
                other => format!("{other:?}"),
            };
            heard.lock().unwrap().push(text);
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    let base = format!("{scheme}://{}", listener.local_addr().unwrap());
    let (settings, seen) = watch::channel(settings);
    tokio::spawn(serve(Listener::tcp(listener), Handle::new(Arc::clone(&shared), messages, clock::host()), seen));
    Node { base, shared, told, settings }
}

pub(super) fn pledged(absent_at: Revision) -> PeerAnswer {
    PeerAnswer {
        primary: false,
        barred: false,
        history: History {
            ancestors: vec![Ancestor { timeline: Timeline(1), end: Lsn(0x404_0000), reason: String::new() }],
            timeline: Timeline(2),
        },
        receives: false,
        flushed: Lsn(67_417_552),
        replayed: Lsn(67_416_528),
        replay_paused: false,
        pledge: Some(absent_at),
        leader_epoch: Revision(0),
        keys_at: Revision(0),
        tenure_ttl: Duration::ZERO,
    }
}

impl Node {
    pub(super) async fn ask(&self, method: Method, path: &str, body: Option<&str>) -> (u16, String) {
        let url = format!("{}{path}", self.base);
        request(method, &url, None, body.map(str::to_owned), LIMIT).await.unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> (u16, String) {
        self.ask(Method::GET, path, None).await
    }

    pub(super) async fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    pub(super) async fn codes(&self, expected: &[(&str, u16)]) {
        for (path, code) in expected {
            assert_eq!(self.get(path).await.0, *code, "GET {path}");
            let (status, body) = self.ask(Method::OPTIONS, path, None).await;
            assert_eq!((status, body.as_str()), (*code, ""), "OPTIONS {path}");
        }
    }

    /// What the loop was told, but for the questions to PostgreSQL: once there was one, more follow by themselves.
    pub(super) fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().iter().filter(|told| *told != OBSERVE).cloned().collect()
    }

    /// PostgreSQL was asked.
    pub(super) fn observed(&self) -> bool {
        self.told.lock().unwrap().iter().any(|told| told == OBSERVE)
    }
}
