//! `flush`: what is scheduled is taken back.

use hyper::Method;
use matriarch_core::op::Outcome;

use super::execute::{ASK_LIMIT, Target, ask, choose, confirm, refusal};
use super::{Ctl, CtlError, FlushArgs, STORE_LIMIT, failed, members, timestamp};
use crate::api::{ClusterRead, put_key};
use crate::http;
use crate::wire::{failover_json, keys};

pub(super) async fn flush(ctl: Ctl<'_>, args: FlushArgs) -> Result<(), CtlError> {
    match args.members_and_target.split_last() {
        Some((target, named)) if target == "restart" => restarts(ctl, &args, named).await,
        Some((target, _)) if target == "switchover" => switchover(ctl, &args.cluster).await,
        other => {
            let given = other.map(|(target, _)| target.as_str()).unwrap_or_default();
            let why =
                format!("Invalid value for '{{restart|switchover}}': '{given}' is not one of 'restart', 'switchover'.");
            Err(CtlError::Usage(why))
        }
    }
}

async fn restarts(mut ctl: Ctl<'_>, args: &FlushArgs, named: &[String]) -> Result<(), CtlError> {
    let cluster = ctl.read(&args.cluster).await?;
    let targets = choose(&mut ctl, &args.cluster, &cluster, named, args.role, "flush", args.force)?;
    confirm(&mut ctl, &targets, args.force, "flush", None)?;
    for target in targets {
        let name = &target.name;
        if !target.scheduled_restart {
            ctl.console.line(&format!("No scheduled restart for member {name}"))?;
            continue;
        }
        let action = "flush scheduled restart";
        let (status, text) = ask(&ctl, &target, Method::DELETE, "restart", None, ASK_LIMIT).await?;
        ctl.console.line(&match status {
            ..400 => format!("Success: {action} for member {name}"),
            _ => refusal(action, name, status, &text),
        })?;
    }
    Ok(())
}

/// Asks the leader, and whoever else can be reached if it cannot; at last the store itself.
async fn switchover(mut ctl: Ctl<'_>, name: &str) -> Result<(), CtlError> {
    let cluster = ctl.read(name).await?;
    let Some(pending) = cluster.view.failover.as_ref().filter(|request| request.scheduled_at.is_some()) else {
        return ctl.console.line("No pending scheduled switchover");
    };
    for target in leader_first(&cluster) {
        let Some(base) = http::base_url(&target.api_url) else { continue };
        match ctl.request(Method::DELETE, &format!("{base}/switchover"), None, ASK_LIMIT).await {
            Ok((200, text)) => return ctl.console.line(&format!("Success: {text}")),
            Ok((404, text)) => return ctl.console.line(&format!("Failed: {text}")),
            Ok((status, text)) => {
                ctl.console.line(&format!("Failed: member={}, status_code={status}, ({text})", target.name))?;
            }
            Err(error) => eprintln!("{error}\nMember {} is not accessible", target.name),
        }
    }
    let none = format!("{} Could not find any accessible member of cluster {name}", timestamp());
    ctl.console.line(&none)?;
    let key = format!("{}/{}", keys::base(&ctl.settings.namespace, name), keys::FAILOVER);
    match put_key(&ctl.store, key, failover_json(None, None, None), Some(pending.revision), STORE_LIMIT).await {
        Outcome::Done(()) => Ok(()),
        Outcome::Refused(_) => failed("the scheduled switchover was changed meanwhile: look at the cluster again"),
        Outcome::Unknown(why) => failed(format!("it is not known whether the scheduled switchover was deleted: {why}")),
    }
}

/// The members, the leader before all others.
pub(super) fn leader_first(cluster: &ClusterRead) -> Vec<Target> {
    let (leaders, others): (Vec<_>, Vec<_>) = members::all(cluster).partition(|member| member.leads());
    leaders.into_iter().chain(others).map(Target::new).collect()
}
