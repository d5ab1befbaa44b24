//! Patroni's REST API and ours: one story, told by a cluster of each, and every answer held against the other's. What is
//! left of differences is in `compat_rest/differences.rs`, and in docs/compatibility.md with its reason.

#[path = "compat_rest/access.rs"]
mod access;
#[path = "compat_rest/differences.rs"]
mod differences;
#[path = "compat_rest/questions.rs"]
mod questions;
#[path = "compat_rest/shape.rs"]
mod shape;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use matriarch_tests::{Agent, Cluster, Node, Plan, eventually, patroni};
use serde_json::{Value, json};

use questions::Question;
use shape::Shape;

const LIMIT: Duration = Duration::from_secs(120);
const LATER: &str = "2130-01-01T00:00:00+00:00";

/// What was answered, by what was asked and when in the story.
type Answers = BTreeMap<String, Shape>;

#[tokio::test]
async fn both_apis_answer_the_same() {
    if patroni().is_none() {
        return;
    }
    let theirs = Story::of(Agent::Patroni).await;
    let ours = Story::of(Agent::Matriarch).await;
    differences::must_be(&compared(&theirs, &ours), differences::OF_ANSWERS);
}

/// What differs, by what was asked.
fn compared(theirs: &Answers, ours: &Answers) -> Vec<(String, String)> {
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    let mut found = Vec::new();
    for (asked, theirs) in theirs {
        let ours = &ours[asked];
        found.extend(theirs.difference(ours).map(|line| (asked.clone(), format!("- {line}"))));
        found.extend(ours.difference(theirs).map(|line| (asked.clone(), format!("+ {line}"))));
    }
    found
}

/// A cluster to which things happen, and what it answered.
struct Story {
    cluster: Cluster,
    primary: usize,
    answers: Answers,
}

impl Story {
    async fn of(agent: Agent) -> Answers {
        // The least that Patroni takes.
        let dcs = json!({"ttl": 20, "retry_timeout": 3});
        let restapi = json!({
            "authentication": {"username": "admin", "password": "secret"},
            "http_extra_headers": {"X-Extra": "of the operator"},
            "server_tokens": "minimal",
        });
        let extra = json!({
            "bootstrap": {"dcs": dcs},
            "restapi": restapi,
            "tags": {"zone": "a", "flag": true, "number": 7},
        });
        let cluster = Cluster::start(Plan { agent, extra, ..Plan::default() }).await;
        let mut story = Self { cluster, primary: 0, answers: Answers::new() };
        story.settled().await;
        story.looks().await;
        story.refusals().await;
        story.configurations().await;
        story.schedules().await;
        story.restarts().await;
        story.moves().await;
        story.paused().await;
        story.stopped().await;
        story.without_a_store().await;
        story.answers
    }

    fn leader(&self) -> &Node {
        &self.cluster.nodes[self.primary]
    }

    fn replica(&self) -> &Node {
        &self.cluster.nodes[self.cluster.others(self.primary)[0]]
    }

    async fn ask(&mut self, when: &str, address: String, question: &Question) {
        let Question { method, path, login, body } = question;
        let shape = shape::ask(&address, method, path, *login, body.as_deref()).await;
        assert_eq!(self.answers.insert(format!("{when}: {question}"), shape), None, "{when}: {question} asked twice");
    }

    async fn ask_leader(&mut self, when: &str, question: &Question) {
        self.ask(&format!("{when}, leader"), self.leader().rest_address(), question).await;
    }

    async fn ask_replica(&mut self, when: &str, question: &Question) {
        self.ask(&format!("{when}, replica"), self.replica().rest_address(), question).await;
    }

    /// Waits until the cluster is whole, every record says so, and nobody is behind.
    async fn settled(&mut self) {
        self.primary = self.cluster.healed(LIMIT).await;
        let client = self.leader().connect().await.expect("a client of the primary");
        // Something to have been replayed, and nothing to write for the next while.
        client.batch_execute("create table if not exists t(); drop table t; checkpoint").await.expect("some WAL");
        let Self { cluster, primary, .. } = self;
        eventually("every record tells of a whole cluster", LIMIT, async || {
            let told = document(&cluster.nodes[*primary], "/cluster").await;
            let members = told["members"].as_array().cloned().unwrap_or_default();
            let streams = |member: &Value| member["role"] == "leader" || member["state"] == "streaming";
            let level = |member: &Value| member["role"] == "leader" || member["lag"] == 0;
            let timelines = members.iter().all(|member| member["timeline"] == members[0]["timeline"]);
            let whole = members.len() == 3 && members.iter().all(|member| streams(member) && level(member));
            if whole && timelines { Ok(()) } else { Err(told.to_string()) }
        })
        .await;
        for node in &cluster.nodes {
            eventually("it has replayed something, and knows its timeline", LIMIT, async || {
                let told = document(node, "/patroni").await;
                let known = told["role"] == "primary" || told["xlog"]["replayed_timestamp"].is_string();
                if known && told["timeline"].is_number() { Ok(()) } else { Err(told.to_string()) }
            })
            .await;
        }
    }

    /// Waits until a document of the leader, or else of the replica, has a key or has it no more.
    async fn until(&self, node: &Node, path: &str, key: &str, there: bool) {
        eventually(&format!("{path} has {key}: {there}"), LIMIT, async || {
            let told = node.get(path).await.body;
            if told.contains(key) == there { Ok(()) } else { Err(told) }
        })
        .await;
    }

    /// Everything that can be asked without changing anything.
    async fn looks(&mut self) {
        for question in questions::looks() {
            self.ask_leader("whole", &question).await;
            self.ask_replica("whole", &question).await;
        }
    }

    /// What is refused, and what is allowed and has no effect.
    async fn refusals(&mut self) {
        for question in questions::refusals() {
            self.ask_leader("whole", &question).await;
            self.ask_replica("whole", &question).await;
        }
        for question in questions::refusals_of_a_leader() {
            self.ask_leader("whole", &question).await;
        }
        for question in questions::moves_refused(&self.leader().name.clone()) {
            self.ask_replica("whole", &question).await;
        }
    }

    async fn configurations(&mut self) {
        let parameters = |value: Value| json!({"postgresql": {"parameters": value}}).to_string();
        let patch = |body: String| Question::order("PATCH", "/config", &body);
        self.ask_replica("a change", &patch(parameters(json!({"log_min_duration_statement": "5s"})))).await;
        self.until(self.leader(), "/config", "log_min_duration_statement", true).await;
        self.ask_leader("a change", &Question::get("/config")).await;
        self.ask_leader("no change", &patch(parameters(json!({"log_min_duration_statement": "5s"})))).await;
        self.ask_leader("taken back", &patch(parameters(json!({"log_min_duration_statement": null})))).await;
        self.until(self.leader(), "/config", "log_min_duration_statement", false).await;
        let whole = self.leader().get("/config").await.body;
        self.ask_leader("put the same", &Question::order("PUT", "/config", &whole)).await;
        self.ask_leader("put the same", &Question::get("/config")).await;
        let due = json!({"max_connections": 51, "shared_buffers": "24MB"});
        self.ask_leader("a restart is due", &patch(parameters(due))).await;
        for index in 0..self.cluster.nodes.len() {
            self.until(&self.cluster.nodes[index], "/patroni", "pending_restart", true).await;
        }
        self.until(self.leader(), "/cluster", "pending_restart", true).await;
        for path in ["/patroni", "/metrics"] {
            self.ask_leader("a restart is due", &Question::get(path)).await;
            self.ask_replica("a restart is due", &Question::get(path)).await;
        }
    }

    async fn schedules(&mut self) {
        let when = "scheduled";
        let restart = json!({"schedule": LATER, "role": "replica", "postgres_version": "99.1", "timeout": 30, "restart_pending": true});
        let restart = Question::order("POST", "/restart", &restart.to_string());
        self.ask_replica(when, &restart).await;
        self.ask_replica("scheduled twice", &restart).await;
        self.until(self.leader(), "/cluster", "scheduled_restart", true).await;
        let switchover = json!({"leader": self.leader().name, "candidate": self.replica().name, "scheduled_at": LATER});
        self.ask_replica(when, &Question::order("POST", "/switchover", &switchover.to_string())).await;
        self.until(self.leader(), "/cluster", "scheduled_switchover", true).await;
        self.ask_replica(when, &Question::get("/cluster")).await;
        self.ask_replica(when, &Question::get("/patroni")).await;
        self.ask_replica(when, &Question::order("DELETE", "/restart", "")).await;
        self.ask_replica("deleted twice", &Question::order("DELETE", "/restart", "")).await;
        self.ask_leader(when, &Question::order("DELETE", "/switchover", "")).await;
        self.until(self.leader(), "/cluster", "scheduled_switchover", false).await;
        self.ask_leader("deleted twice", &Question::order("DELETE", "/switchover", "")).await;
    }

    async fn restarts(&mut self) {
        for (when, body) in [
            ("not of this role", json!({"role": "primary"})),
            ("not of this version", json!({"postgres_version": "10.1"})),
            ("due", json!({"restart_pending": true})),
            ("due no more", json!({"restart_pending": true})),
        ] {
            self.ask_replica(when, &Question::order("POST", "/restart", &body.to_string())).await;
            self.settled().await;
        }
        self.ask_replica("without a body", &Question::bare("POST", "/restart")).await;
        self.settled().await;
        // The other standby too, before the primary may do what it could not follow.
        let other = self.cluster.nodes[self.cluster.others(self.primary)[1]].rest_address();
        self.ask("due, other replica", other, &Question::bare("POST", "/restart")).await;
        self.settled().await;
        self.ask_leader("empty", &Question::order("POST", "/restart", "")).await;
        self.settled().await;
        self.ask_replica("cloned anew", &Question::order("POST", "/reinitialize", r#"{"force": true}"#)).await;
        self.until(self.replica(), "/patroni", "\"streaming\"", false).await;
        self.settled().await;
    }

    async fn moves(&mut self) {
        let (leader, candidate) = (self.leader().name.clone(), self.replica().name.clone());
        let switchover = json!({"leader": leader, "candidate": candidate}).to_string();
        self.ask_leader("moved", &Question::order("POST", "/switchover", &switchover)).await;
        self.settled().await;
        let failover = json!({"candidate": leader}).to_string();
        self.ask_replica("moved back", &Question::order("POST", "/failover", &failover)).await;
        self.settled().await;
        self.until(self.leader(), "/history", &format!("\"{leader}\""), true).await;
        for path in ["/history", "/cluster", "/patroni"] {
            self.ask_leader("moved", &Question::get(path)).await;
        }
    }

    /// Maintenance mode.
    async fn paused(&mut self) {
        let pause = |pause: Value| Question::order("PATCH", "/config", &json!({"pause": pause}).to_string());
        self.ask_leader("pausing", &pause(json!(true))).await;
        for index in 0..self.cluster.nodes.len() {
            self.until(&self.cluster.nodes[index], "/patroni", "\"pause\"", true).await;
        }
        self.until(self.leader(), "/cluster", "\"pause\"", true).await;
        for question in questions::looks() {
            self.ask_leader("paused", &question).await;
            self.ask_replica("paused", &question).await;
        }
        let (leader, candidate) = (self.leader().name.clone(), self.replica().name.clone());
        for (path, body) in [
            ("/switchover", json!({"leader": leader})),
            ("/switchover", json!({"leader": leader, "candidate": candidate, "scheduled_at": LATER})),
            ("/restart", json!({"schedule": LATER})),
        ] {
            self.ask_leader("paused", &Question::order("POST", path, &body.to_string())).await;
        }
        self.ask_leader("resumed", &pause(Value::Null)).await;
        for index in 0..self.cluster.nodes.len() {
            self.until(&self.cluster.nodes[index], "/patroni", "\"pause\"", false).await;
        }
        self.until(self.leader(), "/cluster", "\"pause\"", false).await;
        self.settled().await;
    }

    /// The store is gone, and the time of the tenure has passed.
    async fn without_a_store(&mut self) {
        self.cluster.stores.iter().for_each(matriarch_tests::Store::kill);
        let node = self.leader();
        eventually("the primary has become a standby that answers", LIMIT, async || {
            let told = document(node, "/patroni").await;
            let there = told["role"] == "replica" && told["state"] == "running" && told["timeline"].is_number();
            if there { Ok(()) } else { Err(told.to_string()) }
        })
        .await;
        let other = self.cluster.others(self.primary)[1];
        for index in [self.primary, other] {
            self.until(&self.cluster.nodes[index], "/patroni", "\"cluster_unlocked\"", true).await;
        }
        let other = self.cluster.nodes[other].rest_address();
        // Whether the standbys stream depends on when the old primary was there for them again, and what that replayed
        // last on how it was stopped. Who is asked to be ahead of the leader (`lag=-1`) is if that wrote something, as it
        // does of itself now and then, after it had told its position for the last time.
        let of_the_moment = [
            "replication_state=",
            "readiness",
            "replayed_timestamp",
            "$.replication",
            "patroni_postgres_streaming",
            "lag=-1",
        ];
        let lasts = |text: &str| !of_the_moment.iter().any(|part| text.contains(part));
        for question in questions::looks().into_iter().filter(|question| lasts(&question.path)) {
            self.ask_leader("without a store", &question).await;
            self.ask("without a store, replica", other.clone(), &question).await;
        }
        for (_, shape) in self.answers.iter_mut().filter(|(asked, _)| asked.starts_with("without a store")) {
            shape.retain(|line| lasts(line));
        }
    }

    /// A replica whose PostgreSQL is dead and cannot be started.
    async fn stopped(&mut self) {
        let node = self.replica();
        let base = node.data_dir().join("postgresql.base.conf");
        let mut file = std::fs::OpenOptions::new().append(true).open(base).expect("its configuration");
        writeln!(file, "nothing = 'that is a parameter").expect("a line that no server takes");
        node.postmaster().expect("a replica runs").kill();
        eventually("its server cannot be started", LIMIT, async || {
            let log = node.get("/patroni").await.body;
            if log.contains("\"start failed\"") { Ok(()) } else { Err(log) }
        })
        .await;
        for question in questions::looks() {
            self.ask_replica("stopped", &question).await;
        }
        // Both try again and again, each at its own pace.
        for (_, shape) in self.answers.iter_mut().filter(|(asked, _)| asked.starts_with("stopped")) {
            *shape = std::mem::take(shape).into_iter().map(not_running).collect();
        }
    }
}

/// Without the way in which it does not run.
fn not_running(line: String) -> String {
    let Some((key, value)) = line.rsplit_once(' ') else { return line };
    let texts = ["\"crashed\"", "\"starting\"", "\"stopped\"", "\"start failed\""];
    let numbers = ["14", "6", "12", "8"];
    if line.starts_with("metric patroni_postgres_state") && numbers.contains(&value) {
        return format!("{key} not running");
    }
    match line.split_once(": ") {
        Some((key @ ("$.state" | "$.members[].state"), state)) if texts.contains(&state) => {
            format!("{key}: not running")
        }
        _ => line,
    }
}

async fn document(node: &Node, path: &str) -> Value {
    serde_json::from_str(&node.get(path).await.body).unwrap_or_default()
}
