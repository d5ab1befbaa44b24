//! Which endpoint a request is for, and what is promised of it. The one source of both the routing and the description
//! at `/openapi.json` (`openapi.rs`): what is not in this table is not served, and what is in it is described.

use hyper::Method;

use self::Content::{Json, Metrics, Nothing, Page, Text};
use self::Endpoint::{Configure, Control};
use crate::agent::namesake;

/// What answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Endpoint {
    /// A health check on the whole path.
    Check,
    Status,
    Cluster,
    History,
    Config,
    Failsafe,
    Metrics,
    Liveness,
    Readiness,
    Why,
    Description,
    Replayed,
    Instance,
    Position,
    /// What changes the dynamic configuration: an operator's.
    Configure,
    /// What else an operator asks for, by the first segment of the path.
    Control,
}

/// What comes in an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Content {
    /// A status only.
    Nothing,
    /// JSON by the schema of this name.
    Json(&'static str),
    /// A text for people, which Patroni calls HTML.
    Text,
    /// An error page.
    Page,
    /// The metrics.
    Metrics,
}

/// An endpoint as it is served, and as it is described.
pub(super) struct Route {
    pub(super) method: Method,
    /// The path as it is described. Below `/matriarch` all of it counts; elsewhere the first segment is enough.
    pub(super) path: &'static str,
    pub(super) endpoint: Endpoint,
    pub(super) about: &'static str,
    /// The names of the arguments that are read, each a parameter of the description.
    pub(super) arguments: &'static [&'static str],
    /// The schema of the body.
    pub(super) body: Option<Body>,
    pub(super) answers: &'static [(u16, Content)],
}

/// The body of a request.
pub(super) struct Body {
    pub(super) schema: &'static str,
    pub(super) required: bool,
}

/// The paths of health checks that have a meaning of their own. Any path is checked: most words count wherever in it
/// they stand.
pub(super) const CHECKS: &[(&str, &str)] = &[
    ("/", "The leader, as `/primary`"),
    ("/primary", "The leader: this node holds a tenure, and its PostgreSQL may write"),
    ("/master", "The leader, as `/primary`"),
    ("/read-write", "The leader, as `/primary`"),
    ("/leader", "The leader, also of a standby cluster"),
    ("/standby-leader", "The leader of a standby cluster"),
    ("/replica", "A running standby that takes load and does not lag beyond `lag`"),
    ("/read-only", "The leader, or a replica"),
    ("/health", "PostgreSQL runs"),
    ("/sync", "A synchronous standby"),
    ("/synchronous", "A synchronous standby"),
    ("/quorum", "A standby in the quorum"),
    ("/async", "A replica that is not synchronous"),
    ("/asynchronous", "A replica that is not synchronous"),
    ("/read-only-sync", "The leader, or a synchronous standby"),
    ("/read-only-synchronous", "The leader, or a synchronous standby"),
    ("/read-only-quorum", "The leader, or a standby in the quorum"),
];

/// What a health check tells with a body.
pub(super) const CHECK_ANSWERS: &[(u16, Content)] = &[(200, Json("Status")), (503, Json("Status"))];
/// What a status alone tells.
pub(super) const BARE_ANSWERS: &[(u16, Content)] = &[(200, Nothing), (503, Nothing)];
/// What an operator who may not do it is told.
pub(super) const REFUSALS: &[(u16, Content)] = &[(401, Text), (403, Text)];

const fn look(
    path: &'static str,
    endpoint: Endpoint,
    about: &'static str,
    arguments: &'static [&'static str],
    answers: &'static [(u16, Content)],
) -> Route {
    Route { method: Method::GET, path, endpoint, about, arguments, body: None, answers }
}

const fn order(
    method: Method,
    path: &'static str,
    endpoint: Endpoint,
    about: &'static str,
    body: Option<Body>,
    answers: &'static [(u16, Content)],
) -> Route {
    Route { method, path, endpoint, about, arguments: &[], body, answers }
}

const fn needs(schema: &'static str) -> Option<Body> {
    Some(Body { schema, required: true })
}

const fn may_have(schema: &'static str) -> Option<Body> {
    Some(Body { schema, required: false })
}

/// All of them.
pub(super) const ROUTES: &[Route] = &[
    look("/patroni", Endpoint::Status, "The status of this node", &[], &[(200, Json("Status"))]),
    look(
        "/cluster",
        Endpoint::Cluster,
        "The members, read from the store",
        &[],
        &[(200, Json("Cluster")), (503, Text)],
    ),
    look("/history", Endpoint::History, "Every change of timeline", &[], &[(200, Json("History")), (503, Text)]),
    look(
        "/config",
        Endpoint::Config,
        "The dynamic configuration as it is in the store",
        &[],
        &[(200, Json("Configuration")), (502, Page)],
    ),
    look("/failsafe", Endpoint::Failsafe, "The members of failsafe mode, which is not built", &[], &[(502, Page)]),
    look("/metrics", Endpoint::Metrics, "Metrics in Prometheus' text format", &[], &[(200, Metrics)]),
    look("/liveness", Endpoint::Liveness, "The agent works", &[], BARE_ANSWERS),
    look(
        "/readiness",
        Endpoint::Readiness,
        "The leader, or a standby that streams and does not lag",
        &["lag", "mode"],
        BARE_ANSWERS,
    ),
    look(
        "/why",
        Endpoint::Why,
        "The decision in force and everything that it rests on",
        &["node"],
        &[(200, Json("Why")), (404, Text), (502, Text)],
    ),
    look("/openapi.json", Endpoint::Description, "This description", &[], &[(200, Json("Description"))]),
    look(
        "/matriarch/replayed",
        Endpoint::Replayed,
        "Between agents: answers as soon as more is replayed than a position, or when the time is over",
        &["beyond", "deadline_ms", "scope"],
        &[(200, Json("Position")), (400, Text), (409, Text)],
    ),
    look(namesake::PATH, Endpoint::Instance, "Between agents: which process this is", &[], &[(200, Text)]),
    order(
        Method::POST,
        "/matriarch/position",
        Endpoint::Position,
        "Between agents: stops receiving WAL and pledges the position",
        needs("PositionAsked"),
        &[(200, Json("Position")), (400, Text), (409, Text), (411, Page), (503, Text)],
    ),
    order(
        Method::PATCH,
        "/config",
        Configure,
        "Lays the body over the dynamic configuration; null removes a key",
        needs("Configuration"),
        &[(200, Json("Configuration")), (400, Page), (409, Page), (411, Page), (503, Page)],
    ),
    order(
        Method::PUT,
        "/config",
        Configure,
        "Puts the body in the place of the dynamic configuration",
        needs("Configuration"),
        &[(200, Json("Configuration")), (400, Page), (411, Page), (502, Page), (503, Page)],
    ),
    order(
        Method::POST,
        "/switchover",
        Control,
        "Moves the leadership away from a leader that works, now or at a time",
        needs("Move"),
        &[(200, Text), (202, Text), (400, Text), (411, Page), (412, Text), (422, Text), (503, Text)],
    ),
    order(
        Method::DELETE,
        "/switchover",
        Control,
        "Takes a scheduled switchover back",
        None,
        &[(200, Text), (404, Text), (409, Page), (503, Page)],
    ),
    order(
        Method::POST,
        "/failover",
        Control,
        "Moves the leadership to a candidate, whether or not there is a leader",
        needs("Move"),
        &[(200, Text), (202, Text), (400, Text), (411, Page), (412, Text), (422, Text), (503, Text)],
    ),
    order(
        Method::POST,
        "/restart",
        Control,
        "Restarts PostgreSQL if the conditions hold, now or at a time",
        may_have("Restart"),
        &[(200, Text), (202, Text), (400, Text), (409, Text), (422, Text), (500, Text), (503, Text)],
    ),
    order(Method::DELETE, "/restart", Control, "Takes a scheduled restart back", None, &[(200, Text), (404, Text)]),
    order(
        Method::POST,
        "/reinitialize",
        Control,
        "Clones this node anew",
        may_have("Reinitialize"),
        &[(200, Text), (400, Page), (503, Text)],
    ),
    order(Method::POST, "/reload", Control, "Reads the configuration file again", None, &[(202, Text)]),
    order(Method::POST, "/failsafe", Control, "Failsafe mode, which is not built", None, &[(502, Page)]),
    order(Method::POST, "/sigterm", Control, "Does nothing, as with Patroni on Linux", None, &[(202, Text)]),
];

/// Who answers; nobody if there is none.
pub(super) fn endpoint(method: &Method, path: &str) -> Option<Endpoint> {
    if [Method::HEAD, Method::OPTIONS].contains(method) {
        return Some(Endpoint::Check);
    }
    let first = |path: &str| path.split('/').nth(1).unwrap_or_default().to_owned();
    let served = |route: &&Route| {
        let whole = first(route.path) == "matriarch";
        route.method == *method && if whole { route.path == path } else { first(route.path) == first(path) }
    };
    let found = ROUTES.iter().find(served).map(|route| route.endpoint);
    found.or_else(|| (*method == Method::GET).then_some(Endpoint::Check))
}
