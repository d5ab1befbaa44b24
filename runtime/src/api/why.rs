//! `GET /why`: the decision in force, what every rung of the ladder says, and everything that it rests on.

use std::time::Duration;

use hyper::Method;
use matriarch_core::action::Lane;
use matriarch_core::decide::explain;
use matriarch_core::effects::Decision;
use matriarch_core::id::Member;
use matriarch_core::lease::Tenure;
use matriarch_core::reason::Reason;
use matriarch_core::time::{Instant, WallMillis};
use serde_json::{Value, json};

use super::facts::Facts;
use super::reply::Reply;
use super::{Api, Call};
use crate::http;
use crate::schedule;

/// How long another member may take to explain itself.
const PEER_LIMIT: Duration = Duration::from_secs(2);

/// `GET /why`, or `GET /why?node=b`, which asks that member.
pub(super) async fn why(api: &Api, call: &Call) -> Reply {
    match call.query.get("node").filter(|node| *node != api.handle.shared().core.config.me.as_str()) {
        Some(node) => ask(api, node).await,
        None => api.with_facts(|facts| Reply::json(200, &document(facts))),
    }
}

async fn ask(api: &Api, node: &str) -> Reply {
    let url = api.with_facts(|facts| {
        let member = facts.view.cluster()?.members.get(&Member::new(node))?;
        http::base_url(&member.record.api_url).map(|base| format!("{base}/why"))
    });
    let Some(url) = url else {
        return Reply::text(404, format!("{node} is no member of the cluster, or has no REST API"));
    };
    let peers = api.settings.borrow().peers.clone();
    let told = peers.request(Method::GET, &url, None, None, PEER_LIMIT).await;
    match told.map(|(status, body)| (status, serde_json::from_str::<Value>(&body))) {
        Ok((200, Ok(document))) => Reply::json(200, &document),
        Ok((status, _)) => Reply::text(502, format!("{node} does not explain itself: {url} answered {status}")),
        Err(error) => Reply::text(502, format!("{node} does not answer: {error}")),
    }
}

fn document(facts: &Facts<'_>) -> Value {
    let core = &facts.shared.core;
    let at = facts.view.at;
    let rungs = explain(&facts.view).into_iter().map(|(rung, precondition, reason)| {
        json!({
            "rung": rung.name(),
            "concludes_when": precondition,
            "code": reason.as_ref().map(Reason::code),
            "sentence": reason.as_ref().map(ToString::to_string),
        })
    });
    let rungs: Vec<Value> = rungs.collect();
    // The ladder is asked now: the decision of the last step carries numbers of that step.
    let decision = rungs.iter().find(|rung| !rung["code"].is_null());
    let decision =
        decision.map(|rung| json!({"rung": rung["rung"], "code": rung["code"], "sentence": rung["sentence"]}));
    json!({
        "name": core.config.me.as_str(),
        "scope": facts.shared.scope,
        "time": schedule::millis_text(crate::clock::wall()),
        "role": facts.role(),
        "state": facts.state(),
        "decision": decision,
        "rungs": rungs,
        "tenure": tenure(facts),
        "guard": guard(facts),
        "operations": operations(facts),
        "pledge": core.pledge.map(|pledge| json!({
            "absent_at": pledge.absent_at.0,
            "age_ms": ms(at, pledge.since),
            "frozen": pledge.frozen,
            "on_disk": pledge.on_disk,
        })),
        "peers": peers(facts),
        "store": {
            "revision": facts.view.cluster().map(|cluster| cluster.revision.0),
            "answered_ms_ago": ms(at, core.store.answered),
            "leader": facts.view.leader().map(|leader| leader.member.as_str()),
        },
        "leaving": core.leaving,
        "warnings": facts.shared.configuration_warnings.iter().chain(&facts.shared.parameter_warnings).collect::<Vec<_>>(),
        "journal": facts.shared.journal.iter().map(entry).collect::<Vec<Value>>(),
    })
}

fn entry((time, decision): &(WallMillis, Decision)) -> Value {
    json!({
        "time": schedule::millis_text(*time),
        "rung": decision.rung.name(),
        "code": decision.reason.code(),
        "sentence": decision.reason.to_string(),
    })
}

fn tenure(facts: &Facts<'_>) -> Value {
    let core = &facts.shared.core;
    let at = facts.view.at;
    let (name, held) = match &core.tenure {
        Tenure::None => ("none", None),
        Tenure::Adopting { deadline } => {
            return json!({"state": "adopting", "left_ms": ms(*deadline, at)});
        }
        Tenure::Held(held) => ("held", Some(held)),
        Tenure::Suspended { was, .. } => ("suspended", Some(was)),
    };
    json!({
        "state": name,
        "lease": held.map(|held| held.lease.0),
        "epoch": held.map(|held| held.epoch.0),
        "ttl_ms": held.map(|held| held.ttl.as_millis() as u64),
        "renewed_ms_ago": held.map(|held| ms(at, held.confirmed)),
        "left_ms": facts.view.authority_left().as_millis() as u64,
        "spent_lease": core.spent.map(|lease| lease.0),
    })
}

fn guard(facts: &Facts<'_>) -> Value {
    let guard = &facts.shared.core.guard;
    json!({
        "present": guard.present,
        "gone_ms": guard.gone.map(|gone| ms(facts.view.at, gone)),
        "armed_for_lease": guard.armed.map(|armed| armed.tenure.0),
        "fires_in_ms": guard.armed.map(|armed| ms(armed.at, facts.view.at)),
        "holds_writes": guard.held,
        "stuck_processes": guard.stuck,
        "wishes_refused": facts.shared.guard_wishes_refused,
    })
}

fn operations(facts: &Facts<'_>) -> Vec<Value> {
    let at = facts.view.at;
    let operations = facts.shared.core.ops.iter().map(|(lane, in_flight)| {
        json!({
            "lane": lane_name(lane),
            "operation": in_flight.op.0,
            "action": in_flight.action.to_string(),
            "age_ms": ms(at, in_flight.since),
            "deadline_ms": ms(in_flight.deadline, at),
        })
    });
    operations.collect()
}

fn lane_name(lane: &Lane) -> String {
    match lane {
        Lane::Peer(member) => format!("Peer {member}"),
        lane => format!("{lane:?}"),
    }
}

/// What the others told last, and that a Patroni member has not pledged: only the lease protects from it.
fn peers(facts: &Facts<'_>) -> Vec<Value> {
    let core = &facts.shared.core;
    let pledges = |name: &Member| {
        facts.view.cluster().and_then(|cluster| cluster.members.get(name)).is_some_and(|key| key.record.pledges)
    };
    let told = core.peers.answers.iter().map(|(name, seen)| {
        json!({
            "name": name.as_str(),
            "age_ms": ms(facts.view.at, seen.heard),
            "primary": seen.value.primary,
            "barred": seen.value.barred,
            "timeline": seen.value.history.timeline.0,
            "flushed": seen.value.flushed.to_string(),
            "replayed": seen.value.replayed.to_string(),
            "pledge": seen.value.pledge.map(|revision| revision.0),
            "can_pledge": pledges(name),
            "unreachable_ms_ago": core.peers.unreachable.get(name).map(|since| ms(facts.view.at, *since)),
        })
    });
    told.collect()
}

/// Whole milliseconds from `earlier` to `later`; 0 if it is the other way round.
fn ms(later: Instant, earlier: Instant) -> u64 {
    u64::try_from(later.since(earlier).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_to_a_member_is_named_by_the_member() {
        assert_eq!(lane_name(&Lane::Peer(Member::new("n1"))), "Peer n1");
        assert_eq!(lane_name(&Lane::PgControl), "PgControl");
    }
}
