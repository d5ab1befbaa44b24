//! `switchover` and `failover`.

use std::time::Duration;

use hyper::Method;
use jiff::tz::TimeZone;
use matriarch_core::id::Member;
use matriarch_core::op::Outcome;
use serde_json::{Map, Value};

use super::execute::loop_wait_seconds;
use super::{Ctl, CtlError, FailoverArgs, STORE_LIMIT, SwitchoverArgs, failed, local_time, members, timestamp};
use crate::api::{ClusterRead, put_guarded};
use crate::clock;
use crate::http::{self, HttpError};
use crate::schedule::{self, ScheduleError};
use crate::store::Guard;
use crate::wire::{failover_json, keys};

/// What the operator gave.
struct Given {
    action: &'static str,
    cluster: Option<String>,
    leader: Option<String>,
    candidate: Option<String>,
    scheduled: Option<String>,
    force: bool,
}

/// What is asked for, once everything is known.
struct Plan {
    action: &'static str,
    leader: Option<String>,
    candidate: Option<String>,
    scheduled_at: Option<String>,
}

pub(super) async fn switchover(ctl: Ctl<'_>, args: SwitchoverArgs) -> Result<(), CtlError> {
    let SwitchoverArgs { cluster, leader, candidate, scheduled, force, citus: _ } = args;
    relocate(ctl, Given { action: "switchover", cluster, leader, candidate, scheduled, force }).await
}

pub(super) async fn failover(ctl: Ctl<'_>, args: FailoverArgs) -> Result<(), CtlError> {
    let FailoverArgs { cluster, candidate, force, citus: _ } = args;
    relocate(ctl, Given { action: "failover", cluster, leader: None, candidate, scheduled: None, force }).await
}

async fn relocate(mut ctl: Ctl<'_>, given: Given) -> Result<(), CtlError> {
    let name = ctl.cluster_name(given.cluster.clone())?;
    let cluster = ctl.read(&name).await?;
    ctl.console.line("Current cluster topology")?;
    ctl.show_members(&name, &cluster)?;
    let plan = plan(&mut ctl, &name, &cluster, &given)?;
    if !given.force {
        confirm(&mut ctl, &name, &cluster, &plan)?;
    }
    execute(&mut ctl, &name, &cluster, &plan).await
}

fn plan(ctl: &mut Ctl<'_>, name: &str, cluster: &ClusterRead, given: &Given) -> Result<Plan, CtlError> {
    let current = cluster.view.leader.as_ref().map(|leader| leader.member.as_str());
    let switchover = given.action == "switchover";
    let mut leader = None;
    if switchover {
        let Some(current) = current else { return failed("This cluster has no leader") };
        let named = match &given.leader {
            Some(named) => named.clone(),
            None if given.force => current.to_owned(),
            None => ctl.console.prompt("Primary", current)?,
        };
        if named != current {
            return failed(format!("Member {named} is not the leader of cluster {name}"));
        }
        leader = Some(named);
    }
    let candidate = candidate(ctl, name, cluster, given)?;
    let scheduled_at = if switchover { scheduled(ctl, cluster, given)? } else { None };
    Ok(Plan { action: given.action, leader, candidate, scheduled_at })
}

fn candidate(ctl: &mut Ctl<'_>, name: &str, cluster: &ClusterRead, given: &Given) -> Result<Option<String>, CtlError> {
    let action = given.action;
    let candidates: Vec<&str> =
        members::all(cluster).filter(|m| !m.leads() && !m.nofailover()).map(members::MemberView::name).collect();
    if candidates.is_empty() {
        return failed(format!("No candidates found to {action} to"));
    }
    let candidate = match &given.candidate {
        Some(named) => named.clone(),
        None if given.force => String::new(),
        None => {
            let quoted: Vec<String> = candidates.iter().map(|name| format!("'{name}'")).collect();
            ctl.console.prompt(&format!("Candidate [{}]", quoted.join(", ")), "")?
        }
    };
    if candidate.is_empty() {
        if action == "failover" {
            return failed("Failover could be performed only to a specific candidate");
        }
        return Ok(None);
    }
    if !candidates.contains(&candidate.as_str()) {
        let leads = cluster.view.leader.as_ref().is_some_and(|leader| leader.member.as_str() == candidate);
        return failed(if leads {
            format!("Member {candidate} is already the leader of cluster {name}")
        } else {
            format!("Member {candidate} does not exist in cluster {name} or is tagged as nofailover")
        });
    }
    if action == "failover" && !given.force && asynchronous(cluster, &candidate) {
        let question = format!("Are you sure you want to failover to the asynchronous node {candidate}?");
        if !ctl.console.confirm(&question)? {
            return failed(format!("Aborting {action}"));
        }
    }
    Ok(Some(candidate))
}

/// The cluster replicates synchronously, and not to this member.
fn asynchronous(cluster: &ClusterRead, candidate: &str) -> bool {
    let text = |key: &str| cluster.sync.as_ref().and_then(|sync| sync.get(key)).and_then(Value::as_str);
    let leader = text("leader").filter(|leader| !leader.is_empty());
    let mode = cluster.config.as_ref().and_then(|config| config.get("synchronous_mode"));
    let on = mode.is_some_and(|mode| {
        crate::config::quantity::bool_of(mode) == Some(true)
            || mode.as_str().is_some_and(|mode| mode.eq_ignore_ascii_case("quorum"))
    });
    let standbys = text("sync_standby").unwrap_or_default().split(',').map(str::trim);
    let synchronous = standbys.chain(leader).any(|name| name.eq_ignore_ascii_case(candidate));
    on && leader.is_some() && !synchronous
}

fn scheduled(ctl: &mut Ctl<'_>, cluster: &ClusterRead, given: &Given) -> Result<Option<String>, CtlError> {
    let next_hour = local_time("%Y-%m-%dT%H:%M", Duration::from_hours(1));
    let text = match &given.scheduled {
        Some(text) => text.clone(),
        None if given.force => return Ok(None),
        None => ctl.console.prompt(&format!("When should the switchover take place (e.g. {next_hour} ) "), "now")?,
    };
    let scheduled_at = parse_scheduled(&text)?;
    let paused = cluster.document.get("pause").is_some();
    if scheduled_at.is_some() && paused {
        return failed("Can't schedule switchover in the paused state");
    }
    Ok(scheduled_at)
}

/// `now` and nothing mean at once; a time without an offset is local.
pub(super) fn parse_scheduled(text: &str) -> Result<Option<String>, CtlError> {
    if matches!(text.to_lowercase().as_str(), "now" | "") {
        return Ok(None);
    }
    match schedule::parse(text, Some(&TimeZone::system()), clock::wall()) {
        Ok(schedule) => Ok(Some(schedule.text)),
        Err(ScheduleError::Past) => failed(format!("The scheduled time ({text}) is in the past")),
        Err(ScheduleError::Unparsable | ScheduleError::NoTimezone) => failed(format!(
            "Unable to parse scheduled timestamp ({text}). It should be in an unambiguous format (e.g. ISO 8601)"
        )),
    }
}

fn confirm(ctl: &mut Ctl<'_>, name: &str, cluster: &ClusterRead, plan: &Plan) -> Result<(), CtlError> {
    let action = plan.action;
    let leader = cluster.view.leader.as_ref();
    let demoting = leader.map(|leader| format!(", demoting current leader {}", leader.member)).unwrap_or_default();
    let (question, refusal) = match &plan.scheduled_at {
        Some(at) => (
            format!("Are you sure you want to schedule {action} of cluster {name} at {at}{demoting}?"),
            format!("Aborting scheduled {action}"),
        ),
        None => (format!("Are you sure you want to {action} cluster {name}{demoting}?"), format!("Aborting {action}")),
    };
    if ctl.console.confirm(&question)? { Ok(()) } else { failed(refusal) }
}

async fn execute(ctl: &mut Ctl<'_>, name: &str, cluster: &ClusterRead, plan: &Plan) -> Result<(), CtlError> {
    let titled = if plan.action == "switchover" { "Switchover" } else { "Failover" };
    match post(ctl, cluster, plan).await {
        Ok((200 | 202, body)) => ctl.console.line(&format!("{} {body}", timestamp()))?,
        Ok((status, body)) if body.contains("status unknown") => {
            return ctl.console.line(&format!("{titled} result unknown, details: {status}, {body}"));
        }
        Ok((status, body)) => return ctl.console.line(&format!("{titled} failed, details: {status}, {body}")),
        // It may be under way: a second request through the store could undo it.
        Err(error) if error.is_ambiguous() => {
            ctl.console.line(&format!("{} {titled} result unknown: {error}", timestamp()))?;
        }
        Err(error) => {
            let action = plan.action;
            eprintln!("{error}");
            ctl.console.line(&format!("{} Could not {action} using Patroni api, falling back to DCS", timestamp()))?;
            write(ctl, name, cluster, plan).await?;
        }
    }
    let cluster = ctl.read(name).await?;
    ctl.show_members(name, &cluster)
}

/// Asks the leader, or the candidate where there is none. Old Patroni knows only `/failover`.
async fn post(ctl: &Ctl<'_>, cluster: &ClusterRead, plan: &Plan) -> Result<(u16, String), HttpError> {
    let leader = cluster.view.leader.as_ref().map(|leader| leader.member.as_str());
    let asked = leader.or(plan.candidate.as_deref()).unwrap_or_default();
    let api_url = members::all(cluster).find(|member| member.name() == asked).map(members::MemberView::api_url);
    let Some(base) = api_url.and_then(http::base_url) else {
        return Err(HttpError::Url { url: asked.to_owned(), why: "the member has no REST API".to_owned() });
    };
    let mut body = Map::new();
    body.insert("candidate".to_owned(), plan.candidate.clone().into());
    for (key, value) in [("leader", &plan.leader), ("scheduled_at", &plan.scheduled_at)] {
        if let Some(value) = value {
            body.insert(key.to_owned(), value.as_str().into());
        }
    }
    let body = Value::Object(body).to_string();
    let (auth, members) = (ctl.settings.auth.as_ref(), ctl.members(base)?);
    let limit = limit(cluster);
    let send = async |action: &str| {
        let url = format!("{base}/{action}");
        members.request(Method::POST, &url, auth, Some(body.clone()), limit).await
    };
    let answer = send(plan.action).await?;
    let legacy = answer.0 == 501 && plan.action == "switchover";
    if legacy && answer.1.contains("Server does not support this operation") {
        send("failover").await
    } else {
        Ok(answer)
    }
}

/// The member itself waits for twice `loop_wait`, at least 20 s.
fn limit(cluster: &ClusterRead) -> Duration {
    Duration::from_secs(2 * loop_wait_seconds(cluster).max(10) + 10)
}

/// Writes the operator's key itself, unless another request came first, or another leads than the operator was told of, or
/// nobody does: what is asked of a leader is worth less than what is asked while there is none (decision 18).
async fn write(ctl: &Ctl<'_>, name: &str, cluster: &ClusterRead, plan: &Plan) -> Result<(), CtlError> {
    let member = |name: &Option<String>| name.as_deref().map(Member::new);
    let value =
        failover_json(member(&plan.leader).as_ref(), member(&plan.candidate).as_ref(), plan.scheduled_at.as_deref());
    let base = keys::base(&ctl.settings.namespace, name);
    let key = format!("{base}/{}", keys::FAILOVER);
    let epoch = cluster.view.leader.as_ref().map(|leader| leader.created).unwrap_or_default();
    let guards = vec![
        Guard::ModRevision(key.clone(), cluster.view.failover_revision),
        Guard::CreateRevision(format!("{base}/{}", keys::LEADER), epoch),
    ];
    match put_guarded(&ctl.store, key, value, guards, STORE_LIMIT).await {
        Outcome::Done(()) => Ok(()),
        Outcome::Refused(refusal) => {
            failed(format!("the request was not written ({refusal:?}): look at the cluster again"))
        }
        Outcome::Unknown(why) => failed(format!("it is not known whether the request was written: {why}")),
    }
}
