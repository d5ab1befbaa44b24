//! Commands that act on members: `reload`, `restart` and `reinit`.

use std::time::Duration;

use hyper::Method;
use rand::seq::IteratorRandom;
use serde_json::{Map, Value, json};

use super::members::{MemberView, Role};
use super::relocate::parse_scheduled;
use super::{Ctl, CtlError, ReinitArgs, ReloadArgs, RestartArgs, failed, local_time, members};
use crate::api::{ClusterRead, server_version};
use crate::config::quantity::int_of;
use crate::http;

/// How long a restart may take: a recovery can be long, and the member answers when it is over.
const RESTART_LIMIT: Duration = Duration::from_hours(24);
/// How long any other question may take.
pub(super) const ASK_LIMIT: Duration = Duration::from_secs(30);
/// The pause between two looks at a clone.
const WAIT_PAUSE: Duration = Duration::from_secs(2);
/// How often a member that cannot be connected to is tried.
const TRIES: usize = 4;

/// A member to act on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) api_url: String,
    pending_restart: bool,
    pub(super) scheduled_restart: bool,
}

impl Target {
    pub(super) fn new(member: MemberView<'_>) -> Self {
        Self {
            name: member.name().to_owned(),
            api_url: member.api_url().to_owned(),
            pending_restart: member.pending_restart(),
            scheduled_restart: member.scheduled_restart(),
        }
    }
}

pub(super) async fn reload(mut ctl: Ctl<'_>, args: ReloadArgs) -> Result<(), CtlError> {
    let cluster = ctl.read(&args.cluster).await?;
    let targets = choose(&mut ctl, &args.cluster, &cluster, &args.members, args.role, "reload", args.force)?;
    confirm(&mut ctl, &targets, args.force, "reload", None)?;
    let seconds = loop_wait_seconds(&cluster);
    for target in targets {
        let (status, text) = ask(&ctl, &target, Method::POST, "reload", None, ASK_LIMIT).await?;
        let name = &target.name;
        ctl.console.line(&match status {
            200 => format!("No changes to apply on member {name}"),
            202 => format!("Reload request received for member {name} and will be processed within {seconds} seconds"),
            _ => refusal("reload", name, status, &text),
        })?;
    }
    Ok(())
}

/// `loop_wait` of the cluster's configuration, in seconds.
pub(super) fn loop_wait_seconds(cluster: &ClusterRead) -> u64 {
    let loop_wait = cluster.config.as_ref().and_then(|config| config.get("loop_wait"));
    loop_wait.and_then(|value| int_of(value, Some("s"))).and_then(|s| u64::try_from(s).ok()).unwrap_or(10).min(3600)
}

pub(super) async fn restart(mut ctl: Ctl<'_>, args: RestartArgs) -> Result<(), CtlError> {
    let cluster = ctl.read(&args.cluster).await?;
    let mut targets = choose(&mut ctl, &args.cluster, &cluster, &args.members, args.role, "restart", args.force)?;
    let scheduled = match &args.scheduled {
        Some(text) => text.clone(),
        None if args.force => String::new(),
        None => {
            let next_hour = local_time("%Y-%m-%dT%H:%M", Duration::from_hours(1));
            ctl.console.prompt(&format!("When should the restart take place (e.g. {next_hour}) "), "now")?
        }
    };
    let scheduled_at = parse_scheduled(&scheduled)?;
    if args.pending && scheduled_at.is_none() {
        targets.retain(|target| target.pending_restart);
    }
    if targets.is_empty() {
        return Ok(());
    }
    if args.any {
        targets = targets.into_iter().choose(&mut rand::rng()).into_iter().collect();
    }
    match &scheduled_at {
        Some(_) if args.pending && !args.force => confirm_pending(&mut ctl)?,
        _ => confirm(&mut ctl, &targets, args.force, "restart", scheduled_at.as_deref())?,
    }
    let version = match &args.pg_version {
        Some(version) => version.clone(),
        None if args.force => String::new(),
        None => {
            let question = "Restart if the PostgreSQL version is less than provided (e.g. 9.5.2) ";
            ctl.console.prompt(question, "")?
        }
    };
    let body = restart_body(&args, &version, scheduled_at.as_deref(), cluster.document.get("pause").is_some())?;
    for target in targets {
        if scheduled_at.is_some() && args.force && target.scheduled_restart {
            let (status, text) = ask(&ctl, &target, Method::DELETE, "restart", None, ASK_LIMIT).await?;
            if status >= 400 {
                ctl.console.line(&refusal("flush scheduled restart", &target.name, status, &text))?;
            }
        }
        let (status, text) = ask(&ctl, &target, Method::POST, "restart", Some(&body), RESTART_LIMIT).await?;
        let name = &target.name;
        ctl.console.line(&match status {
            200 => format!("Success: restart on member {name}"),
            202 => format!("Success: restart scheduled on member {name}"),
            409 => format!("Failed: another restart is already scheduled on member {name}"),
            _ => refusal("restart", name, status, &text),
        })?;
    }
    Ok(())
}

/// Which members wait for a restart is found out at its time.
fn confirm_pending(ctl: &mut Ctl<'_>) -> Result<(), CtlError> {
    let question = "The nodes needing a restart will be identified at the scheduled time, and might be different from the \
                    ones showing pending restart right now. Is this fine?";
    if ctl.console.confirm(question)? { Ok(()) } else { failed("Aborted scheduled restart") }
}

fn restart_body(
    args: &RestartArgs,
    version: &str,
    scheduled_at: Option<&str>,
    paused: bool,
) -> Result<Value, CtlError> {
    let mut body = Map::new();
    let mut put = |key: &str, value: Value| drop(body.insert(key.to_owned(), value));
    if args.pending {
        put("restart_pending", true.into());
    }
    if !version.is_empty() {
        server_version(version).map_err(CtlError::Failed)?;
        put("postgres_version", version.into());
    }
    if let Some(at) = scheduled_at {
        if paused {
            return failed("Can't schedule restart in the paused state");
        }
        put("schedule", at.into());
    }
    if let Some(timeout) = &args.timeout {
        put("timeout", timeout.as_str().into());
    }
    Ok(Value::Object(body))
}

pub(super) async fn reinit(mut ctl: Ctl<'_>, args: ReinitArgs) -> Result<(), CtlError> {
    let cluster = ctl.read(&args.cluster).await?;
    let role = Role::Replica;
    let targets = choose(&mut ctl, &args.cluster, &cluster, &args.members, role, "reinitialize", args.force)?;
    if targets.is_empty() {
        return Ok(());
    }
    confirm(&mut ctl, &targets, args.force, "reinitialize", None)?;
    let mut started = Vec::new();
    for target in targets {
        if reinitialize(&mut ctl, &target, &args).await? {
            started.push(target);
        }
    }
    if args.wait { wait(&mut ctl, started).await } else { Ok(()) }
}

/// Asks one member; if something is under way there already, whether to cancel it.
async fn reinitialize(ctl: &mut Ctl<'_>, target: &Target, args: &ReinitArgs) -> Result<bool, CtlError> {
    let mut force = args.force;
    loop {
        let body = json!({ "force": force, "from_leader": args.from_leader });
        let (status, text) = ask(ctl, target, Method::POST, "reinitialize", Some(&body), ASK_LIMIT).await?;
        if status == 200 {
            ctl.console.line(&format!("Success: reinitialize for member {}", target.name))?;
            return Ok(true);
        }
        ctl.console.line(&refusal("reinitialize", &target.name, status, &text))?;
        let busy = text.ends_with(" already in progress") && !force;
        if !busy || !ctl.console.confirm("Do you want to cancel it and reinitialize anyway?")? {
            return Ok(false);
        }
        force = true;
    }
}

/// Until no member is cloned any more. A member that does not answer is asked again.
async fn wait(ctl: &mut Ctl<'_>, mut waiting: Vec<Target>) -> Result<(), CtlError> {
    let mut shown = usize::MAX;
    while !waiting.is_empty() {
        if shown != waiting.len() {
            let names: Vec<&str> = waiting.iter().map(|target| target.name.as_str()).collect();
            ctl.console.line(&format!("Waiting for reinitialize to complete on: {}", names.join(", ")))?;
            shown = waiting.len();
        }
        tokio::time::sleep(WAIT_PAUSE).await;
        let mut left = Vec::new();
        for target in waiting {
            let state = match ask(ctl, &target, Method::GET, "patroni", None, ASK_LIMIT).await {
                Ok((_, text)) => {
                    serde_json::from_str::<Value>(&text).ok().and_then(|document| document.get("state").cloned())
                }
                Err(_) => None,
            };
            match state.as_ref().and_then(Value::as_str) {
                None | Some("creating replica" | "stopping") => left.push(target),
                Some(_) => ctl.console.line(&format!("Reinitialize is completed on: {}", target.name))?,
            }
        }
        waiting = left;
    }
    Ok(())
}

/// The members that a command is about: those named, of those with the role. Shows the table first.
pub(super) fn choose(
    ctl: &mut Ctl<'_>,
    name: &str,
    cluster: &ClusterRead,
    named: &[String],
    role: Role,
    action: &str,
    force: bool,
) -> Result<Vec<Target>, CtlError> {
    let candidates: Vec<Target> =
        members::all(cluster).filter(|member| role.includes(member.role())).map(Target::new).collect();
    if candidates.is_empty() && named.is_empty() {
        return failed(format!("{name} cluster doesn't have any members"));
    }
    ctl.show_members(name, cluster)?;
    if !named.is_empty() {
        let mut chosen = candidates;
        chosen.retain(|target| named.contains(&target.name));
        // `reinit` knows the role as such, the others as the text of an option.
        let role = if action == "reinitialize" { role.name().to_owned() } else { format!("'{}'", role.name()) };
        return if chosen.is_empty() { failed(format!("No {role} among provided members")) } else { Ok(chosen) };
    }
    if action != "reinitialize" {
        return Ok(candidates);
    }
    if force {
        // Nobody was named: with --force nothing may be guessed.
        return Ok(Vec::new());
    }
    let names: Vec<&str> = candidates.iter().map(|target| target.name.as_str()).collect();
    let question = format!("Which member do you want to {action} [{}]?", names.join(", "));
    let answer = ctl.console.prompt(&question, "")?;
    let known = candidates.into_iter().find(|target| target.name == answer);
    known.map_or_else(|| failed(format!("{answer} is not a member of cluster")), |target| Ok(vec![target]))
}

pub(super) fn confirm(
    ctl: &mut Ctl<'_>,
    targets: &[Target],
    force: bool,
    action: &str,
    scheduled_at: Option<&str>,
) -> Result<(), CtlError> {
    if force {
        return Ok(());
    }
    let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    let names = names.join(", ");
    let (question, refusal) = match scheduled_at {
        Some(at) => (
            // As Python shows a time, which is not the form that is sent.
            format!("Are you sure you want to schedule {action} of members {names} at {}?", at.replacen('T', " ", 1)),
            format!("Aborted scheduled {action}"),
        ),
        None => (format!("Are you sure you want to {action} members {names}?"), format!("Aborted {action}")),
    };
    if ctl.console.confirm(&question)? { Ok(()) } else { failed(refusal) }
}

pub(super) fn refusal(action: &str, name: &str, status: u16, text: &str) -> String {
    format!("Failed: {action} for member {name}, status code={status}, ({text})")
}

/// Asks a member; a connection that cannot be made is tried again, a request that was sent is not.
pub(super) async fn ask(
    ctl: &Ctl<'_>,
    target: &Target,
    method: Method,
    endpoint: &str,
    body: Option<&Value>,
    limit: Duration,
) -> Result<(u16, String), CtlError> {
    let Some(base) = http::base_url(&target.api_url) else {
        return failed(format!("member {} has no REST API in the store", target.name));
    };
    let url = format!("{base}/{endpoint}");
    let members = ctl.members(base).map_err(|error| CtlError::Failed(format!("{endpoint}: {error}")))?;
    let mut tries = 0;
    loop {
        tries += 1;
        let auth = ctl.settings.auth.as_ref();
        match members.request(method.clone(), &url, auth, body.map(Value::to_string), limit).await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.is_ambiguous() || tries == TRIES => {
                return failed(format!("{endpoint} on member {}: {error}", target.name));
            }
            Err(_) => {}
        }
    }
}
