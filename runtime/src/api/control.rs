//! What operators ask for. Bodies and schedules are checked here, in Patroni's order and with its texts; whether the
//! cluster can do it is core's to say.

use std::time::Duration;

use hyper::Method;
use hyper::body::Incoming;
use matriarch_core::action::Answer;
use matriarch_core::event::{MoveRequest, Request, RestartConditions, Schedule, ScheduledRestart};
use matriarch_core::id::Member;
use matriarch_core::op::Outcome;
use matriarch_core::time::WallMillis;
use serde_json::{Map, Value};

use super::reply::Reply;
use super::{Api, Call, cluster};
use crate::agent::handle::Message;
use crate::config::quantity::{bool_of, int_of};
use crate::schedule;
use crate::wire::{failover_json, keys};

type Body = Map<String, Value>;

/// `POST /switchover`, `/failover`, `/restart`, `/reinitialize`, `/reload`, `/sigterm`, `/failsafe`; `DELETE /restart`,
/// `/switchover`.
pub(super) async fn control(api: &Api, endpoint: &str, call: &Call, body: Incoming) -> Reply {
    let outcome = match endpoint {
        "switchover" if call.method == Method::DELETE => cancel_switchover(api).await,
        "switchover" | "failover" => relocate(api, endpoint, call, body).await,
        "restart" if call.method == Method::DELETE => put(api, Request::CancelRestart).await,
        "restart" => restart(api, call, body).await,
        "reinitialize" => reinitialize(api, call, body).await,
        // Patroni obeys on Windows only, where its own tests know no other way.
        "sigterm" => Ok(Reply::text(202, "shutdown scheduled")),
        // As Patroni says while failsafe mode is off: what is announced is not heard.
        "failsafe" => Ok(Reply::error_page(502, "Bad Gateway")),
        _ => {
            api.handle.tell(Message::Reload).await;
            Ok(Reply::text(202, "reload scheduled"))
        }
    };
    outcome.unwrap_or_else(|refusal| refusal)
}

async fn relocate(api: &Api, endpoint: &str, call: &Call, body: Incoming) -> Result<Reply, Reply> {
    let body = call.object(body, false).await?;
    let paused = api.paused();
    let request = move_request(&body, endpoint == "switchover", paused, api.handle.clock().wall())?;
    put(api, Request::Move(request)).await
}

/// Takes a scheduled switchover back, unless somebody changed the request since it was read: the leader may be about to
/// act on it.
async fn cancel_switchover(api: &Api) -> Result<Reply, Reply> {
    let cluster = cluster::fresh(api).await.map_err(|why| Reply::error_page(503, &why))?;
    let Some(scheduled) = cluster.view.failover.filter(|request| request.scheduled_at.is_some()) else {
        return Ok(Reply::text(404, "no switchover is scheduled"));
    };
    let put = api.settings.borrow().store.put.clone();
    match put(keys::FAILOVER, failover_json(None, None, None), Some(scheduled.revision)).await {
        Outcome::Done(()) => Ok(Reply::text(200, "scheduled switchover deleted")),
        Outcome::Refused(_) => Err(Reply::error_page(409, "Conflict")),
        Outcome::Unknown(why) => {
            let text = format!("It is not known whether the scheduled switchover was deleted: {why}");
            Err(Reply::error_page(503, &text))
        }
    }
}

/// Checks a body in the order of spec 2.8; the first check that fails answers.
pub(super) fn move_request(body: &Body, switchover: bool, paused: bool, now: WallMillis) -> Result<MoveRequest, Reply> {
    let refuse = |text: &str| Err(Reply::text(400, text));
    let leader = text_of(body, "leader")?;
    let candidate = match text_of(body, "candidate")? {
        Some(candidate) => Some(candidate),
        None => text_of(body, "member")?,
    };
    if !switchover && candidate.is_none() {
        return refuse("Failover could be performed only to a specific candidate");
    }
    if switchover && leader.is_none() {
        return refuse("Switchover could be performed only from a specific leader");
    }
    let scheduled_at = match text_of(body, "scheduled_at")? {
        None => None,
        Some(_) if !switchover => return refuse("Failover can't be scheduled"),
        Some(_) if paused => return refuse("Can't schedule switchover in the paused state"),
        Some(text) => Some(schedule::parse(&text, None, now).map_err(|error| {
            let (status, text) = error.answer("switchover");
            Reply::text(status, text)
        })?),
    };
    if paused && candidate.is_none() {
        return refuse("Switchover is possible only to a specific candidate in a paused state");
    }
    // A failover away from a named leader is a switchover.
    let switchover = switchover || leader.is_some();
    if leader.is_some() && leader == candidate {
        return refuse("Switchover target and source are the same");
    }
    let member = |name: String| Member(name);
    Ok(MoveRequest {
        switchover,
        leader: leader.map(member),
        candidate: candidate.map(member),
        scheduled_at,
        refused: false,
    })
}

/// A text that is there and not empty.
fn text_of(body: &Body, key: &str) -> Result<Option<String>, Reply> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(other) => Err(Reply::text(400, format!("{key} must be a text, not {other}"))),
    }
}

/// The conditions of a restart, and how long to wait for it.
#[derive(Default, PartialEq, Eq, Debug)]
pub(super) struct RestartFilter {
    pub(super) schedule: Option<Schedule>,
    pub(super) conditions: RestartConditions,
    pub(super) limit: Option<Duration>,
}

async fn restart(api: &Api, call: &Call, body: Incoming) -> Result<Reply, Reply> {
    let body = call.object(body, true).await?;
    let RestartFilter { schedule, conditions, limit } = restart_filter(&body, api.paused(), api.handle.clock().wall())?;
    if let Some(schedule) = schedule {
        let timeout_s = limit.map(|limit| limit.as_secs());
        let restart = ScheduledRestart { schedule, conditions, timeout_s, postmaster_start_us: 0 };
        return put(api, Request::ScheduleRestart(restart)).await;
    }
    api.freshen_for_comparison().await;
    if !api.with_facts(|facts| conditions.hold(facts.sql)) {
        return Ok(Reply::text(503, "restart conditions are not satisfied"));
    }
    let ask = put(api, Request::Restart);
    match limit {
        None => ask.await,
        Some(limit) => tokio::time::timeout(limit, ask).await.unwrap_or_else(|_| {
            let text = format!("restart failed: not over within {} s; it goes on", limit.as_secs());
            Ok(Reply::text(503, text))
        }),
    }
}

/// Reads the body in its own order, as Patroni does: the first key that is wrong answers.
pub(super) fn restart_filter(body: &Body, paused: bool, now: WallMillis) -> Result<RestartFilter, Reply> {
    let refuse = |text: String| Err(Reply::text(400, text));
    if paused && body.contains_key("schedule") {
        return Err(Reply::text(500, "Can't schedule restart in the paused state"));
    }
    let mut filter = RestartFilter::default();
    for (key, value) in body {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match key.as_str() {
            "schedule" => {
                let parsed = schedule::parse(&text, None, now).map_err(|error| {
                    let (status, text) = error.answer("restart");
                    Reply::text(status, text)
                })?;
                filter.schedule = Some(parsed);
            }
            "role" => match text.as_str() {
                "primary" | "standby_leader" | "replica" => filter.conditions.role = Some(text),
                _ => return refuse("PostgreSQL role should be either primary, standby_leader, or replica".to_owned()),
            },
            "postgres_version" => {
                let number = server_version(&text).map_err(|why| Reply::text(400, why))?;
                filter.conditions.below_version = Some((text, number));
            }
            "timeout" => match int_of(value, Some("s")).and_then(|seconds| u64::try_from(seconds).ok()) {
                Some(seconds) if seconds > 0 => filter.limit = Some(Duration::from_secs(seconds)),
                _ => return refuse("Timeout should be a positive number of seconds".to_owned()),
            },
            "restart_pending" => filter.conditions.only_pending = true,
            other => return refuse(format!("Unknown filter for the scheduled restart: {other}")),
        }
    }
    Ok(filter)
}

/// A version as PostgreSQL's number: `16.1` is 160001, `9.6.3` is 90603.
///
/// # Errors
/// Patroni's words for what is none.
pub fn server_version(text: &str) -> Result<u32, String> {
    let numbers: Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
    let numbers = numbers.map_err(|_| format!("Invalid PostgreSQL version: {text}"))?;
    let number = |parts: [u32; 3]| {
        let [first, second, third] = parts.map(u64::from);
        u32::try_from(first * 10_000 + second * 100 + third).ok()
    };
    let known = match numbers.as_slice() {
        [major, minor] if *major >= 10 => number([*major, 0, *minor]),
        [first, second, third] => number([*first, *second, *third]),
        _ => None,
    };
    known.ok_or_else(|| format!("Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: {text}"))
}

async fn reinitialize(api: &Api, call: &Call, body: Incoming) -> Result<Reply, Reply> {
    let body = call.object(body, true).await?;
    let flag = |key: &str| body.get(key).and_then(bool_of).unwrap_or(false);
    put(api, Request::Reinitialize { force: flag("force"), from_leader: flag("from_leader") }).await
}

async fn put(api: &Api, request: Request) -> Result<Reply, Reply> {
    match api.handle.ask(request).await {
        Some(Answer::Text { status, body }) => Ok(Reply::text(status, body)),
        Some(Answer::Position(_)) => Err(Reply::text(500, "the agent answered another question; this is a bug")),
        None => Err(Reply::text(503, "the agent is stopping, or too many requests wait for it already")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn body(value: Value) -> Body {
        let Value::Object(body) = value else { panic!("an object is needed") };
        body
    }

    fn refusal(value: Value, switchover: bool, paused: bool) -> Reply {
        move_request(&body(value), switchover, paused, WallMillis(0)).unwrap_err()
    }

    #[test]
    fn moves_are_refused_in_patronis_order_and_words() {
        let cases = [
            (json!({"leader": "a"}), false, "Failover could be performed only to a specific candidate"),
            (json!({"candidate": "b"}), true, "Switchover could be performed only from a specific leader"),
            (json!({"candidate": "b", "scheduled_at": "x"}), false, "Failover can't be scheduled"),
            (json!({"leader": "a", "member": "a"}), true, "Switchover target and source are the same"),
            (
                json!({"leader": "a", "scheduled_at": "2030-01-01T00:00:00"}),
                true,
                "Timezone information is mandatory for the scheduled switchover",
            ),
        ];
        for (value, switchover, text) in cases {
            assert_eq!(refusal(value, switchover, false), Reply::text(400, text));
        }
        let scheduled = json!({"leader": "a", "candidate": "b", "scheduled_at": "2030-01-01T00:00:00Z"});
        let paused = "Can't schedule switchover in the paused state";
        assert_eq!(refusal(scheduled, true, true), Reply::text(400, paused));
        let specific = "Switchover is possible only to a specific candidate in a paused state";
        assert_eq!(refusal(json!({"leader": "a"}), true, true), Reply::text(400, specific));
    }

    #[test]
    fn a_failover_from_a_named_leader_is_a_switchover() {
        let request = move_request(&body(json!({"leader": "a", "member": "b"})), false, false, WallMillis(0)).unwrap();
        assert!(request.switchover);
        assert_eq!(request.candidate, Some(Member::new("b")));
        let request =
            move_request(&body(json!({"leader": "", "candidate": "b"})), false, false, WallMillis(0)).unwrap();
        assert!(!request.switchover && request.leader.is_none());
    }

    #[test]
    fn restarts_are_checked_in_patronis_words() {
        let refused = |value: Value, paused: bool| restart_filter(&body(value), paused, WallMillis(0)).unwrap_err();
        let cases = [
            (json!({"role": "master"}), 400, "PostgreSQL role should be either primary, standby_leader, or replica"),
            (json!({"postgres_version": "15"}), 400, "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: 15"),
            (
                json!({"postgres_version": "9.6"}),
                400,
                "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: 9.6",
            ),
            (json!({"postgres_version": "a.b"}), 400, "Invalid PostgreSQL version: a.b"),
            (json!({"timeout": 0}), 400, "Timeout should be a positive number of seconds"),
            (json!({"foo": 1}), 400, "Unknown filter for the scheduled restart: foo"),
            (json!({"schedule": "2030-01-01"}), 400, "Timezone information is mandatory for the scheduled restart"),
        ];
        for (value, status, text) in cases {
            assert_eq!(refused(value, false), Reply::text(status, text));
        }
        let paused = refused(json!({"schedule": "2030-01-01T00:00Z"}), true);
        assert_eq!(paused, Reply::text(500, "Can't schedule restart in the paused state"));
        let accepted =
            json!({"role": "replica", "postgres_version": "15.2", "timeout": "2min", "restart_pending": false});
        let filter = restart_filter(&body(accepted), false, WallMillis(0)).unwrap();
        assert_eq!(filter.conditions.below_version, Some(("15.2".to_owned(), 150_002)));
        assert_eq!(filter.limit, Some(Duration::from_mins(2)));
        assert!(filter.conditions.only_pending);
        assert_eq!(server_version("9.6.3"), Ok(90_603));
        assert!(server_version("429497.0.0").is_err());
    }
}
