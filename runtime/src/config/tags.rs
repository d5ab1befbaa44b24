//! A member's tags: what they mean together, and what of them other members see.

use serde_json::{Map, Value, json};

use super::check::join;
use super::report::Problem;
use super::yaml::Node;

/// The tags of this node, with the rules between them already applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tags {
    /// Never becomes leader: `nofailover`, or a `failover_priority` of zero or less.
    pub nofailover: bool,
    /// Preference among equal candidates, higher first; 0 where `nofailover` holds, 1 by default.
    pub failover_priority: i64,
    /// Answers 503 to replica health checks.
    pub noloadbalance: bool,
    /// Preferred as the source of new replicas.
    pub clonefrom: bool,
    /// Never a synchronous standby: `nosync`, or a `sync_priority` of zero or less.
    pub nosync: bool,
    /// Preference among synchronous candidates; 0 where `nosync` holds, 1 by default.
    pub sync_priority: i64,
    /// Replays from the archive only: no replication connection, no slot.
    pub nostream: bool,
    /// The member to stream from instead of the leader.
    pub replicatefrom: Option<String>,
    /// What the member's record shows: all tags, custom ones too, without the booleans that say nothing.
    pub published: Map<String, Value>,
    /// All tags as they are written in the configuration.
    pub configured: Map<String, Value>,
}

impl Default for Tags {
    fn default() -> Self {
        Self::build(None, &mut Vec::new())
    }
}

impl Tags {
    /// From the section `tags`, whose types were checked before.
    pub(super) fn build(node: Option<&Node>, problems: &mut Vec<Problem>) -> Self {
        let empty = Node::default();
        let node = node.unwrap_or(&empty);
        let flag = |name: &str| node.get(name).and_then(|n| super::quantity::bool_of(&n.to_json()));
        let (nofailover, failover_priority) = twins(node, "nofailover", "failover_priority", problems);
        let (nosync, sync_priority) = twins(node, "nosync", "sync_priority", problems);
        Self {
            nofailover,
            failover_priority,
            noloadbalance: flag("noloadbalance").unwrap_or(false),
            clonefrom: flag("clonefrom").unwrap_or(false),
            nosync,
            sync_priority,
            nostream: flag("nostream").unwrap_or(false),
            replicatefrom: node.get("replicatefrom").and_then(Node::as_str).map(str::to_owned),
            published: published(node),
            configured: configured(node),
        }
    }
}

/// A prohibition and the priority that can say the same: the boolean wins, and contradicting it is worth a warning.
fn twins(node: &Node, no: &str, priority: &str, problems: &mut Vec<Problem>) -> (bool, i64) {
    let flag = node.get(no).and_then(|n| super::quantity::bool_of(&n.to_json()));
    let number = node.get(priority).and_then(|n| super::check::whole(&n.value));
    if let (Some(flag), Some(number), Some(at)) = (flag, number, node.get(priority)) {
        if flag == (number > 0) {
            let message = format!("contradicts `{no}: {flag}`, which wins; remove one of the two");
            problems.push(Problem::suspect(at.span, join("tags", priority), message));
        } else {
            let message = format!("says the same as `{no}: {flag}`; one of the two is enough");
            problems.push(Problem::suspect(at.span, join("tags", priority), message));
        }
    }
    let effective = flag.unwrap_or_else(|| number.is_some_and(|n| n <= 0));
    (effective, if effective && flag == Some(true) { 0 } else { number.unwrap_or(1) })
}

fn configured(node: &Node) -> Map<String, Value> {
    match node.to_json() {
        Value::Object(tags) => tags,
        _ => Map::new(),
    }
}

fn published(node: &Node) -> Map<String, Value> {
    let mut tags = configured(node);
    let has = |tags: &Map<String, Value>, name: &str| tags.get(name).is_some_and(|v| !v.is_null());
    let keeps_nofailover = has(&tags, "failover_priority");
    let keeps_nosync = has(&tags, "sync_priority");
    tags.retain(|name, value| match name.as_str() {
        "clonefrom" | "noloadbalance" | "nostream" => is_true(value),
        "nofailover" => is_true(value) || (keeps_nofailover && !value.is_null()),
        "nosync" => is_true(value) || (keeps_nosync && !value.is_null()),
        _ => true,
    });
    tags
}

/// Python's truth of the two forms that the check lets through.
fn is_true(value: &Value) -> bool {
    *value == json!(true) || *value == json!(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(yaml: &str) -> (Tags, usize) {
        let mut problems = Vec::new();
        let tags = Tags::build(Some(&super::super::yaml::parse(yaml).unwrap()), &mut problems);
        (tags, problems.len())
    }

    #[test]
    fn the_boolean_wins_over_its_priority_twin() {
        for (yaml, no, priority, warnings) in [
            ("{}", false, 1, 0),
            ("{nofailover: true}", true, 0, 0),
            ("{nofailover: false}", false, 1, 0),
            ("{failover_priority: 0}", true, 0, 0),
            ("{failover_priority: -1}", true, -1, 0),
            ("{failover_priority: 5}", false, 5, 0),
            ("{nofailover: true, failover_priority: 5}", true, 0, 1),
            ("{nofailover: false, failover_priority: 0}", false, 0, 1),
            ("{nofailover: true, failover_priority: 0}", true, 0, 1),
        ] {
            let (t, found) = tags(yaml);
            assert_eq!((t.nofailover, t.failover_priority, found), (no, priority, warnings), "{yaml}");
            let sync = yaml.replace("nofailover", "nosync").replace("failover_priority", "sync_priority");
            let (t, found) = tags(&sync);
            assert_eq!((t.nosync, t.sync_priority, found), (no, priority, warnings), "{sync}");
        }
    }

    #[test]
    fn only_tags_that_say_something_are_published() {
        for (yaml, expected) in [
            ("{nofailover: false, noloadbalance: false, clonefrom: false, nosync: false, nostream: false}", "{}"),
            ("{nofailover: true, clonefrom: true}", r#"{"nofailover":true,"clonefrom":true}"#),
            ("{nofailover: false, failover_priority: 2}", r#"{"nofailover":false,"failover_priority":2}"#),
            ("{nosync: false, sync_priority: 2}", r#"{"nosync":false,"sync_priority":2}"#),
            ("{datacenter: x, replicatefrom: b}", r#"{"datacenter":"x","replicatefrom":"b"}"#),
        ] {
            let tags = tags(yaml).0;
            assert_eq!(Value::Object(tags.published).to_string(), expected, "{yaml}");
            assert!(yaml.split(", ").count() == tags.configured.len(), "{yaml}");
        }
    }
}
