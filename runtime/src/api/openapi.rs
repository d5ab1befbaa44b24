//! `GET /openapi.json`: the API described for machines, made from the table that routes it.

use serde_json::{Map, Value, json};

use super::reply::Reply;
use super::routes::{BARE_ANSWERS, CHECK_ANSWERS, CHECKS, Content, Endpoint, REFUSALS, ROUTES, Route};

/// `GET /openapi.json`.
pub(super) fn description() -> Reply {
    Reply::json(200, &document())
}

pub(super) fn document() -> Value {
    let mut paths = Map::new();
    let mut describe = |path: &str, method: &str, operation: Value| {
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[method] = operation;
    };
    for (path, about) in CHECKS {
        describe(path, "get", operation(about, &["lag"], CHECK_ANSWERS));
    }
    for route in ROUTES {
        describe(route.path, &route.method.as_str().to_lowercase(), routed(route));
    }
    for path in CHECKS.iter().map(|(path, _)| *path).chain(ROUTES.iter().map(|route| route.path)) {
        for method in ["head", "options"] {
            describe(path, method, operation("A health check on the whole path", &["lag"], BARE_ANSWERS));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Matriarch",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Patroni's REST API with Patroni's codes and texts, and Matriarch's own. \
                Any other path of a GET is a health check; HEAD and OPTIONS always are. Health checks but those of a \
                leader take filters `tag_NAME=VALUE` too: the tag must be configured and have the value.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "parameters": parameters(),
            "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}},
        },
    })
}

fn routed(route: &Route) -> Value {
    let mut described = operation(route.about, route.arguments, route.answers);
    if let Some(body) = &route.body {
        described["requestBody"] = json!({
            "required": body.required,
            "content": {"application/json": {"schema": reference("schemas", body.schema)}},
        });
    }
    if matches!(route.endpoint, Endpoint::Configure | Endpoint::Control) {
        described["security"] = json!([{"basic": []}]);
        let refused = REFUSALS.iter().map(|answer| (answer.0.to_string(), told(*answer)));
        described["responses"].as_object_mut().into_iter().for_each(|responses| responses.extend(refused.clone()));
    }
    described
}

fn operation(about: &str, arguments: &[&str], answers: &[(u16, Content)]) -> Value {
    let responses: Map<String, Value> = answers.iter().map(|answer| (answer.0.to_string(), told(*answer))).collect();
    let parameters: Vec<Value> = arguments.iter().map(|name| reference("parameters", name)).collect();
    json!({"summary": about, "parameters": parameters, "responses": responses})
}

fn told((status, content): (u16, Content)) -> Value {
    let reason = hyper::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let mut told = json!({"description": reason.unwrap_or_default()});
    let (kind, schema) = match content {
        Content::Nothing => return told,
        Content::Json(schema) => ("application/json", reference("schemas", schema)),
        Content::Text | Content::Page => ("text/html", json!({"type": "string"})),
        Content::Metrics => ("text/plain", json!({"type": "string"})),
    };
    told["content"] = json!({kind: {"schema": schema}});
    if status == 401 {
        told["headers"] =
            json!({"WWW-Authenticate": {"required": true, "schema": {"const": "Basic realm=\"Patroni\""}}});
    }
    told
}

fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

fn parameters() -> Value {
    let named = |name: &str, required: bool, about: &str, schema: Value| json!({"name": name, "in": "query", "required": required, "description": about, "schema": schema});
    json!({
        "lag": named("lag", false, "How far behind is allowed: bytes, or with a unit (kB, MB, GB, TB)", json!({"type": "string"})),
        "mode": named("mode", false, "Whether what is replayed counts, or what is received", json!({"enum": ["apply", "write"]})),
        "node": named("node", false, "The member that is asked in this one's place", json!({"type": "string"})),
        "beyond": named("beyond", true, "A position", position()),
        "scope": named("scope", false, "The cluster whose member is meant: one of another refuses", json!({"type": "string"})),
        "deadline_ms": named("deadline_ms", true, "Milliseconds; a minute at most is waited", json!({"type": "integer", "minimum": 0})),
    })
}

fn position() -> Value {
    json!({"type": "string", "pattern": "^[0-9A-F]{1,8}/[0-9A-F]{1,8}$"})
}

fn schemas() -> Value {
    json!({
        "Status": status(),
        "Cluster": cluster(),
        "History": {
            "type": "array",
            // Timeline, position, reason, time, leader: tools know no better words for it that all of them understand.
            "items": {"type": "array", "minItems": 3, "maxItems": 5, "items": {"type": ["integer", "string"]}},
        },
        "Configuration": {"type": "object"},
        "Why": {
            "type": "object",
            "required": ["name", "scope", "time", "role", "state", "decision", "rungs", "tenure", "guard", "operations",
                "pledge", "peers", "store", "leaving", "warnings", "journal"],
        },
        "Description": {"type": "object", "required": ["openapi", "info", "paths", "components"]},
        "Position": {
            "type": "object",
            "required": ["primary", "barred", "timeline", "history", "receives", "flushed", "replayed", "replay_paused",
                "pledge", "leader_epoch", "keys_at", "tenure_ttl_ms"],
            "properties": {
                "timeline": {"type": "integer"},
                "leader_epoch": {"type": "integer"},
                "keys_at": {"type": "integer"},
                "tenure_ttl_ms": {"type": "integer"},
                "flushed": position(),
                "replayed": position(),
                "pledge": {"type": ["integer", "null"]},
            },
        },
        "PositionAsked": {
            "type": "object",
            "required": ["absent_at"],
            "properties": {"absent_at": {"type": "integer", "format": "int64"}, "scope": {"type": "string"}},
        },
        "Move": {
            "type": "object",
            "minProperties": 1,
            "properties": {
                "leader": {"type": ["string", "null"]},
                "candidate": {"type": ["string", "null"]},
                "member": {"type": ["string", "null"], "description": "The candidate, by its old name"},
                "scheduled_at": {"type": ["string", "null"], "description": "When, with a time zone"},
            },
        },
        "Restart": {"type": "object", "properties": restart(), "additionalProperties": false},
        "Reinitialize": {
            "type": "object",
            "properties": {"force": {"type": "boolean"}, "from_leader": {"type": "boolean"}},
        },
        "PendingRestart": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "properties": {"old_value": {"type": "string"}, "new_value": {"type": "string"}},
            },
        },
    })
}

fn restart() -> Value {
    json!({
        "schedule": {"type": "string", "description": "When, with a time zone"},
        "role": {"enum": ["primary", "standby_leader", "replica"]},
        "postgres_version": {"type": "string", "description": "Only if PostgreSQL is older"},
        "timeout": {"type": ["integer", "string"], "description": "Seconds, or with a unit"},
        "restart_pending": {"type": "boolean", "description": "Only if a restart is due, whatever the value"},
    })
}

fn status() -> Value {
    let integer = || json!({"type": "integer"});
    let string = || json!({"type": "string"});
    json!({
        "type": "object",
        "required": ["state", "role", "dcs_last_seen", "patroni"],
        "additionalProperties": false,
        "properties": {
            "state": string(),
            "postmaster_start_time": string(),
            "role": {"enum": ["primary", "replica", "demoted", "promoted", "uninitialized"]},
            "server_version": integer(),
            "xlog": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "location": integer(),
                    "received_location": integer(),
                    "replayed_location": integer(),
                    "replayed_timestamp": {"type": ["string", "null"]},
                    "paused": {"type": "boolean"},
                },
            },
            "timeline": {"type": ["integer", "null"]},
            "replication_state": string(),
            "replication": {"type": "array", "items": {
                "type": "object",
                "required": ["usename", "application_name", "client_addr", "state", "sync_state", "sync_priority"],
            }},
            "pause": {"const": true},
            "cluster_unlocked": {"const": true},
            "dcs_last_seen": integer(),
            "tags": {"type": "object"},
            "database_system_identifier": string(),
            "pending_restart": {"const": true},
            "pending_restart_reason": reference("schemas", "PendingRestart"),
            "scheduled_restart": {"type": "object", "properties": restart()},
            "patroni": {
                "type": "object",
                "required": ["version", "scope", "name", "matriarch"],
                "additionalProperties": {"type": "string"},
            },
            "matriarch": reference("schemas", "Position"),
            "logger_queue_size": integer(),
            "logger_records_lost": integer(),
        },
    })
}

fn cluster() -> Value {
    let position = || json!({"type": "string"});
    let lag = || json!({"anyOf": [{"type": "integer", "minimum": 0}, {"const": "unknown"}]});
    json!({
        "type": "object",
        "required": ["members", "scope"],
        "properties": {
            "members": {"type": "array", "items": {
                "type": "object",
                "required": ["name", "role", "state"],
                "properties": {
                    "name": {"type": "string"},
                    "role": {"enum": ["leader", "standby_leader", "sync_standby", "quorum_standby", "replica"]},
                    "state": {"type": "string"},
                    "api_url": {"type": "string"},
                    "host": {"type": "string"},
                    "port": {"type": "integer"},
                    "timeline": {"type": "integer"},
                    "pending_restart": {"const": true},
                    "pending_restart_reason": reference("schemas", "PendingRestart"),
                    "scheduled_restart": {"type": "object"},
                    "tags": {"type": "object"},
                    "receive_lag": lag(), "receive_lsn": position(),
                    "replay_lag": lag(), "replay_lsn": position(),
                    "lag": lag(), "lsn": position(),
                },
            }},
            "pause": {"const": true},
            "scheduled_switchover": {"type": "object", "required": ["at"]},
            "scope": {"type": "string"},
        },
    })
}
