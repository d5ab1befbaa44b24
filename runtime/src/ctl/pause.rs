//! Modes of the whole cluster: `pause` and `resume`; `demote-cluster` and `promote-cluster`.

use std::time::Duration;

use hyper::Method;
use matriarch_core::id::Member;
use serde_json::{Value, json};

use super::execute::{ASK_LIMIT, loop_wait_seconds};
use super::flush::leader_first;
use super::{Ctl, CtlError, DemoteClusterArgs, PauseArgs, STORE_LIMIT, failed};
use crate::api::ClusterRead;
use crate::config::quantity::bool_of;
use crate::http;
use crate::store::Entry;
use crate::wire::keys;

pub(super) async fn pause(ctl: Ctl<'_>, args: PauseArgs) -> Result<(), CtlError> {
    toggle(ctl, args, true).await
}

pub(super) async fn resume(ctl: Ctl<'_>, args: PauseArgs) -> Result<(), CtlError> {
    toggle(ctl, args, false).await
}

/// The first member that can be reached writes it, the leader before all others.
async fn toggle(mut ctl: Ctl<'_>, args: PauseArgs, pause: bool) -> Result<(), CtlError> {
    let name = ctl.cluster_name(args.cluster)?;
    let cluster = ctl.read(&name).await?;
    let paused = cluster.config.as_ref().and_then(|config| config.get("pause")).and_then(bool_of) == Some(true);
    if paused == pause {
        return failed(if pause { "Cluster is already paused" } else { "Cluster is not paused" });
    }
    let body = json!({ "pause": pause.then_some(true) }).to_string();
    let (verb, done) = if pause { ("pause", "paused") } else { ("resume", "resumed") };
    for target in leader_first(&cluster) {
        let Some(base) = http::base_url(&target.api_url) else { continue };
        match ctl.request(Method::PATCH, &format!("{base}/config"), Some(body.clone()), ASK_LIMIT).await {
            Ok((200, _)) if args.wait => return wait(&mut ctl, &name, &cluster, pause).await,
            Ok((200, _)) => return ctl.console.line(&format!("Success: cluster management is {done}")),
            Ok((status, text)) => {
                let failed = format!("Failed: {verb} cluster management status code={status}, ({text})");
                return ctl.console.line(&failed);
            }
            Err(error) => eprintln!("{error}\nMember {} is not accessible", target.name),
        }
    }
    failed("Can not find accessible cluster member")
}

/// Until every member of before says so, or for `loop_wait` and a second.
async fn wait(ctl: &mut Ctl<'_>, name: &str, before: &ClusterRead, pause: bool) -> Result<(), CtlError> {
    let (verb, done) = if pause { ("pause", "paused") } else { ("resume", "resumed") };
    ctl.console.line(&format!("'{verb}' request sent, waiting until it is recognized by all nodes"))?;
    let seconds = loop_wait_seconds(before);
    let mut unaware = Vec::new();
    for _ in 0..=seconds {
        unaware = differing(ctl, name, before, pause).await?;
        if unaware.is_empty() {
            return ctl.console.line(&format!("Success: cluster management is {done}"));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    ctl.console.line(&format!("{} members didn't recognized pause state after {seconds} seconds", unaware.join(", ")))
}

/// Members whose record says something else of the pause.
async fn differing(ctl: &Ctl<'_>, name: &str, before: &ClusterRead, pause: bool) -> Result<Vec<String>, CtlError> {
    let base = format!("{}/{}", keys::base(&ctl.settings.namespace, name), keys::MEMBERS);
    let Some(snapshot) = ctl.store.read_prefix(&base, STORE_LIMIT).await.done() else {
        return failed("the store does not answer any more; the request was sent");
    };
    let differs = |entry: &Entry| {
        let record: Value = serde_json::from_str(entry.text()).unwrap_or_default();
        (record["pause"] == true) != pause
    };
    let name_of = |entry: &Entry| entry.key.strip_prefix(&base).map(str::to_owned);
    let names = snapshot.entries.iter().filter(|entry| differs(entry)).filter_map(name_of);
    Ok(names.filter(|name| before.view.members.contains_key(&Member::new(name))).collect())
}

pub(super) fn demote_cluster(args: &DemoteClusterArgs) -> Result<(), CtlError> {
    if args.host.is_none() && args.port.is_none() && args.restore_command.is_none() {
        return failed("At least --host, --port or --restore-command should be specified");
    }
    no_standby_clusters("demote-cluster")
}

pub(super) fn promote_cluster() -> Result<(), CtlError> {
    no_standby_clusters("promote-cluster")
}

fn no_standby_clusters(command: &str) -> Result<(), CtlError> {
    failed(format!("{command} is not built yet: Matriarch knows no standby clusters. Nothing was changed"))
}
