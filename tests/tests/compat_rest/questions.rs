//! What is asked.

use std::fmt;

use serde_json::json;

use crate::shape::Login;

/// A request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Question {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) login: Login,
    /// The body; without one there is no `Content-Length` either.
    pub(crate) body: Option<String>,
}

impl Question {
    /// A look.
    pub(crate) fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), login: Login::None, body: None }
    }

    /// An order of somebody who may give it.
    pub(crate) fn order(method: &'static str, path: &str, body: &str) -> Self {
        Self { method, path: path.to_owned(), login: Login::Right, body: Some(body.to_owned()) }
    }

    /// An order without a body.
    pub(crate) fn bare(method: &'static str, path: &str) -> Self {
        Self { body: None, ..Self::order(method, path, "") }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        if self.login != Login::None {
            write!(f, " as {:?}", self.login)?;
        }
        // Who leads differs between the clusters, and what they are configured to be.
        match &self.body {
            Some(body) if body.len() < 60 => {
                let masked = ["n1", "n2", "n3"].iter().fold(body.clone(), |body, name| body.replace(name, "nX"));
                write!(f, " with {masked:?}")
            }
            Some(_) => write!(f, " with a body"),
            None => Ok(()),
        }
    }
}

const CHECKS: &[&str] = &[
    "/",
    "/primary",
    "/master",
    "/read-write",
    "/leader",
    "/standby-leader",
    "/standby_leader",
    "/replica",
    "/read-only",
    "/health",
    "/sync",
    "/synchronous",
    "/sync/",
    "/quorum",
    "/async",
    "/asynchronous",
    "/read-only-quorum",
    "/read-only-sync",
    "/read-only-synchronous",
    "/read-only-foo",
    "/Primary",
    "/%70rimary",
    "//primary",
    "/any-leader-of/them",
    "/nonsense",
    "/replica?lag=-1",
    "/replica?lag=1MB",
    "/replica?lag=10mb",
    "/replica?lag=12.5MB",
    "/replica?lag=",
    "/replica?lag=-1&lag=1MB",
    "/replica?replication_state=streaming",
    "/replica?replication_state=other",
    "/async?lag=-1",
    "/read-only?lag=-1",
    "/health?lag=-1",
    "/replica?tag_zone=a",
    "/replica?tag_zone=b",
    "/replica?tag_zone=a&tag_zone=b",
    "/replica?tag_flag=true",
    "/replica?tag_flag=True",
    "/replica?tag_number=7",
    "/replica?tag_other=x",
    "/health?tag_zone=a",
    "/health?tag_zone=b",
    "/primary?tag_zone=b",
    "/liveness",
    "/liveness/foo",
    "/readiness",
    "/readiness?lag=-1",
    "/readiness?lag=10mb",
    "/readiness?mode=write",
    "/readiness?mode=apply",
    "/readiness?mode=other",
];

/// What tells, and what it tells does not depend on the path behind its name.
const DOCUMENTS: &[&str] = &[
    "/patroni",
    "/patroni/x",
    "/cluster",
    "/cluster?x=y",
    "/history",
    "/config",
    "/config/x",
    "/metrics",
    "/failsafe",
];

/// Everything that can be asked without changing anything.
pub(crate) fn looks() -> Vec<Question> {
    let asked = |method: &'static str, path: &str| Question { method, ..Question::get(path) };
    let mut questions = Vec::new();
    for path in CHECKS.iter().chain(DOCUMENTS) {
        questions.extend(["GET", "HEAD", "OPTIONS"].map(|method| asked(method, path)));
    }
    questions
}

const UNSAFE: &[(&str, &str)] = &[
    ("PATCH", "/config"),
    ("PUT", "/config"),
    ("POST", "/reload"),
    ("POST", "/restart"),
    ("DELETE", "/restart"),
    ("POST", "/reinitialize"),
    ("POST", "/switchover"),
    ("DELETE", "/switchover"),
    ("POST", "/failover"),
    ("POST", "/sigterm"),
    ("POST", "/failsafe"),
    ("POST", "/citus"),
    ("POST", "/mpp"),
];

/// What is refused whoever leads, and what is allowed and has no effect.
pub(crate) fn refusals() -> Vec<Question> {
    let mut questions = Vec::new();
    for (method, path) in UNSAFE {
        // A body that nobody reads is not sent: it could break the connection before the answer is read.
        for login in [Login::None, Login::Wrong] {
            questions.push(Question { login, ..Question::bare(method, path) });
        }
    }
    for (method, path) in [
        ("POST", "/"),
        ("POST", "/nonsense"),
        ("POST", "/patroni"),
        ("POST", "/config"),
        ("PUT", "/restart"),
        ("PATCH", "/patroni"),
        ("DELETE", "/config"),
        ("DELETE", "/"),
        ("BREW", "/primary"),
        ("TRACE", "/primary"),
        ("get", "/primary"),
        ("DELETE", "/switchover"),
        ("DELETE", "/restart"),
        ("POST", "/reload"),
        ("POST", "/sigterm"),
    ] {
        questions.push(Question::bare(method, path));
    }
    for (method, path) in [
        ("PATCH", "/config"),
        ("PUT", "/config"),
        ("POST", "/switchover"),
        ("POST", "/failover"),
        ("POST", "/failsafe"),
        ("POST", "/citus"),
        ("POST", "/mpp"),
    ] {
        questions.push(Question::bare(method, path));
        questions.extend(
            ["", "{}", "[]", "3", "\"a\"", "{\"a\":", "nonsense"].map(|body| Question::order(method, path, body)),
        );
    }
    for body in ["[]", "3", "nonsense"] {
        questions.push(Question::order("POST", "/restart", body));
    }
    for body in [
        json!({"role": "master"}),
        json!({"role": 3}),
        json!({"postgres_version": "15"}),
        json!({"postgres_version": "9.6"}),
        json!({"postgres_version": "a.b"}),
        json!({"postgres_version": 15}),
        json!({"timeout": 0}),
        json!({"timeout": "-1s"}),
        json!({"timeout": "soon"}),
        json!({"timeout": null}),
        json!({"other": 1}),
        json!({"schedule": "2130-01-01T00:00:00"}),
        json!({"schedule": "2020-01-01T00:00:00+00:00"}),
        json!({"schedule": "whenever"}),
        json!({"schedule": 7}),
        json!({"schedule": "2130-01-01T00:00Z", "other": 1}),
    ] {
        questions.push(Question::order("POST", "/restart", &body.to_string()));
    }
    for body in [
        json!({"leader": "n9"}),
        json!({"candidate": "n9"}),
        json!({"member": "n9"}),
        json!({"leader": "n9", "candidate": "n9"}),
        json!({"leader": "n9", "scheduled_at": "2130-01-01T00:00:00"}),
        json!({"leader": "n9", "scheduled_at": "2020-01-01T00:00Z"}),
        json!({"leader": "n9", "scheduled_at": "whenever"}),
        json!({"candidate": "n9", "scheduled_at": "2130-01-01T00:00Z"}),
    ] {
        questions.push(Question::order("POST", "/switchover", &body.to_string()));
        questions.push(Question::order("POST", "/failover", &body.to_string()));
    }
    questions
}

/// What only a leader refuses.
pub(crate) fn refusals_of_a_leader() -> Vec<Question> {
    let body = ["{}", r#"{"force": true}"#, r#"{"force": "on", "from_leader": "true"}"#];
    let mut questions = vec![Question::bare("POST", "/reinitialize")];
    questions.extend(body.map(|body| Question::order("POST", "/reinitialize", body)));
    questions
}

/// Moves that are refused because of who leads.
pub(crate) fn moves_refused(leader: &str) -> Vec<Question> {
    [
        json!({"leader": leader, "candidate": leader}),
        json!({"leader": leader, "candidate": "n9"}),
        json!({"leader": leader, "member": "n9"}),
    ]
    .map(|body| Question::order("POST", "/switchover", &body.to_string()))
    .into()
}
