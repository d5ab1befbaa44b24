//! Health checks: what load balancers and orchestrators ask.

use std::time::Duration;

use hyper::Method;
use matriarch_core::id::Lsn;
use serde_json::Value;

use super::facts::Facts;
use super::query::Query;
use super::reply::Reply;
use super::{Api, Call, status};
use crate::config::quantity::parse_int;

/// What a path asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Question {
    /// Nothing that this node could say yes to.
    Never,
    Leader,
    Replica,
    LeaderOrReplica,
    Running,
    /// A replica, and neither synchronous nor in a quorum.
    Asynchronous,
    /// The leader, or a synchronous or quorum standby.
    LeaderOrSynchronous,
}

impl Question {
    /// The first rule of spec 2.2 that fits the path. Most are tested by substring.
    fn of(path: &str) -> Self {
        let path = if path == "/" { "/primary" } else { path };
        let contains = |words: &[&str]| words.iter().any(|word| path.contains(word));
        if contains(&["standby_leader", "standby-leader"]) {
            // Only a standby cluster has one, and that is not supported yet.
            Self::Never
        } else if contains(&["leader", "master", "primary", "read-write"]) {
            Self::Leader
        } else if contains(&["replica"]) {
            Self::Replica
        } else if contains(&["read-only"]) && !contains(&["sync", "quorum"]) {
            Self::LeaderOrReplica
        } else if contains(&["health"]) {
            Self::Running
        } else {
            match path {
                "/async" | "/asynchronous" => Self::Asynchronous,
                "/read-only-quorum" | "/read-only-sync" | "/read-only-synchronous" => Self::LeaderOrSynchronous,
                // Synchronous modes are not supported: no node is a synchronous or quorum standby.
                _ => Self::Never,
            }
        }
    }
}

/// Any path that has no endpoint of its own: a code by the rules of spec 2.2, and the status document with it.
pub(super) async fn check(api: &Api, call: &Call) -> Reply {
    let question = Question::of(&call.path);
    // Whether this node leads is known without PostgreSQL: a check that wants nothing else never waits for it.
    if call.method == Method::GET || !matches!(question, Question::Leader | Question::Never) {
        api.freshen().await;
    }
    api.with_facts(|facts| {
        let ok = healthy(facts, question, &call.query);
        Reply::json(if ok { 200 } else { 503 }, &status::document(facts))
    })
}

fn healthy(facts: &Facts<'_>, question: Question, query: &Query) -> bool {
    let seen = facts.view.cluster().is_some();
    let yes = match question {
        Question::Never => return false,
        // Tags filter what takes load, not who leads.
        Question::Leader => return facts.leads(),
        Question::Replica => replica(facts, query),
        Question::LeaderOrReplica => facts.leads() || replica(facts, query),
        Question::Running => facts.state() == "running",
        Question::Asynchronous => seen && replica(facts, query),
        Question::LeaderOrSynchronous => seen && facts.leads(),
    };
    yes && tags_match(facts, query)
}

/// A running standby that takes load and does not lag beyond the argument `lag`.
fn replica(facts: &Facts<'_>, query: &Query) -> bool {
    let standby = facts.sql.is_some_and(|sql| sql.in_recovery);
    let allowed = query.get("lag").and_then(|lag| parse_int(lag, Some("B")));
    let replayed = facts.sql.map(|sql| sql.replayed).unwrap_or_default();
    standby && facts.state() == "running" && !facts.tagged("noloadbalance") && !lags(facts, replayed, allowed)
}

/// `leader_position > position + allowed`; without a known position of the leader nothing lags.
fn lags(facts: &Facts<'_>, position: Lsn, allowed: Option<i64>) -> bool {
    let leader = i128::from(facts.leader_position().0);
    allowed.is_some_and(|allowed| leader > 0 && leader > i128::from(position.0) + i128::from(allowed))
}

/// `tag_name=value`, the first of each name: the tag must be configured and read like the value. A `false` that is not
/// published is configured.
fn tags_match(facts: &Facts<'_>, query: &Query) -> bool {
    query.firsts().filter_map(|(name, value)| Some((name.strip_prefix("tag_")?, value))).all(|(name, wanted)| {
        facts.shared.configured_tags.get(name).is_some_and(|tag| match tag {
            Value::String(text) => text == wanted,
            other => other.to_string().to_lowercase() == wanted,
        })
    })
}

/// The agent's loop has been seen at work recently enough. It wakes at least every `loop_wait`; a primary's loop must
/// not be silent for longer than the ttl, any other's for twice as long.
pub(super) fn liveness(api: &Api) -> Reply {
    api.with_facts(|facts| {
        let core = &facts.shared.core;
        let worked = core.wall.0.max(core.store.answered).max(core.session.kept);
        let config = facts.view.config();
        let primary = facts.sql.is_some_and(|sql| !sql.in_recovery);
        let patience: Duration = config.loop_wait + config.ttl * if primary { 1 } else { 2 };
        Reply::bare(facts.paused() || facts.view.at.since(worked) < patience)
    })
}

/// The leader, or a standby that streams and does not lag.
pub(super) async fn readiness(api: &Api, call: &Call) -> Reply {
    api.freshen().await;
    api.with_facts(|facts| Reply::bare(facts.leads() || ready(facts, &call.query)))
}

fn ready(facts: &Facts<'_>, query: &Query) -> bool {
    let Some(sql) = facts.sql.filter(|sql| sql.in_recovery) else { return false };
    let known = facts.leader_position() > Lsn(0);
    let position = if query.get("mode") == Some("write") { sql.received } else { sql.replayed };
    let default = i64::try_from(facts.view.config().maximum_lag_on_failover_bytes).unwrap_or(i64::MAX);
    let allowed = query.get("lag").and_then(|lag| parse_int(lag, Some("B"))).unwrap_or(default);
    let streaming = facts.replication_state() == Some("streaming");
    facts.state() == "running" && streaming && known && !lags(facts, position, Some(allowed))
}
