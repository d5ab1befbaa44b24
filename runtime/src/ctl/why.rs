//! `why`: what members say about their decisions.

use std::time::Duration;

use hyper::Method;
use serde_json::Value;

use super::format::{Format, text_of};
use super::{Ctl, CtlError, failed, members};
use crate::api::reply::spaced;
use crate::config::to_yaml;
use crate::http;

/// How long a member may take to explain itself.
const LIMIT: Duration = Duration::from_secs(3);
/// Past decisions that are shown.
const JOURNAL_SHOWN: usize = 8;

pub(super) async fn why(
    mut ctl: Ctl<'_>,
    cluster: Option<String>,
    member: Option<String>,
    format: Format,
) -> Result<(), CtlError> {
    let name = ctl.cluster_name(cluster)?;
    let read = ctl.read(&name).await?;
    let chosen: Vec<_> =
        members::all(&read).filter(|known| member.as_deref().is_none_or(|member| member == known.name())).collect();
    if chosen.is_empty() {
        return failed(match member {
            Some(member) => format!("{member} is not a member of cluster {name}"),
            None => format!("{name} cluster doesn't have any members"),
        });
    }
    let mut documents = Vec::new();
    let mut silent = Vec::new();
    for member in chosen {
        match ask(&ctl, member.api_url()).await {
            Ok(document) if format == Format::Pretty => ctl.console.print(&told(&document))?,
            Ok(document) => documents.push(document),
            Err(why) if format == Format::Pretty => ctl.console.line(&format!("{}: {why}", member.name()))?,
            Err(why) => silent.push(format!("{}: {why}", member.name())),
        }
    }
    match format {
        Format::Json => ctl.console.line(&spaced(&Value::Array(documents)))?,
        Format::Yaml => ctl.console.line(&to_yaml(&Value::Array(documents)))?,
        Format::Pretty => {}
        Format::Tsv | Format::Topology => return failed("why knows the formats pretty, json and yaml"),
    }
    if silent.is_empty() { Ok(()) } else { failed(silent.join("\n")) }
}

async fn ask(ctl: &Ctl<'_>, api_url: &str) -> Result<Value, String> {
    let base = http::base_url(api_url).ok_or("it has no REST API in the store")?;
    let url = format!("{base}/why");
    let members = ctl.members(base).map_err(|error| error.to_string())?;
    let told = members.request(Method::GET, &url, None, None, LIMIT).await;
    let (status, body) = told.map_err(|error| format!("no answer: {error}"))?;
    let document: Option<Value> = serde_json::from_str(&body).ok();
    // Patroni takes the unknown path for a health check and answers with its status.
    match document.filter(|document| status == 200 && document.get("rungs").is_some()) {
        Some(document) => Ok(document),
        None => Err("it does not explain its decisions (is it a Patroni member?)".to_owned()),
    }
}

/// The explanation as people read it.
pub(crate) fn told(document: &Value) -> String {
    let at = |pointer: &str| document.pointer(pointer).map(text_of).unwrap_or_default();
    let mut lines = vec![format!("{} ({}, PostgreSQL {})\n", at("/name"), at("/role"), at("/state"))];
    let mut say = |label: &str, sentence: &str| {
        if !sentence.is_empty() {
            lines.push(format!("  {label:<10} {sentence}\n"));
        }
    };
    say("now", &format!("{}  [{}/{}]", at("/decision/sentence"), at("/decision/rung"), at("/decision/code")));
    say("tenure", &tenure(document));
    say("guard", &guard(document));
    let all = |pointer: &str| document.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    // The last rung concludes always: what it would say is no news.
    let others = |rung: &&Value| rung["rung"] != document["decision"]["rung"] && rung["rung"] != "follow";
    for rung in all("/rungs").filter(|rung| rung["code"].is_string()).filter(others) {
        say("otherwise", &format!("{}: {}", text_of(&rung["rung"]), text_of(&rung["sentence"])));
    }
    for operation in all("/operations") {
        say("under way", &format!("{} for {} ms", text_of(&operation["action"]), text_of(&operation["age_ms"])));
    }
    for warning in all("/warnings") {
        say("warning", &text_of(warning));
    }
    let journal: Vec<&Value> = all("/journal").collect();
    for entry in journal.iter().rev().take(JOURNAL_SHOWN).rev() {
        say(
            "before",
            &format!("{}  {}  [{}]", text_of(&entry["time"]), text_of(&entry["sentence"]), text_of(&entry["code"])),
        );
    }
    lines.concat()
}

fn tenure(document: &Value) -> String {
    let at = |key: &str| document["tenure"].get(key).map(text_of).unwrap_or_default();
    match at("state").as_str() {
        "held" => {
            format!("held, epoch {}, {} ms left, renewed {} ms ago", at("epoch"), at("left_ms"), at("renewed_ms_ago"))
        }
        "suspended" => format!("suspended: the leader key of epoch {} vanished", at("epoch")),
        "adopting" => format!("looking for the tenure of the last agent, {} ms left", at("left_ms")),
        _ => "none".to_owned(),
    }
}

fn guard(document: &Value) -> String {
    let guard = &document["guard"];
    if guard["present"] != true {
        return "absent: nobody stops PostgreSQL if the agent freezes".to_owned();
    }
    let mut text = match &guard["fires_in_ms"] {
        Value::Null => "present, not armed".to_owned(),
        ms => format!("armed, stops PostgreSQL in {} ms unless the tenure is renewed", text_of(ms)),
    };
    if guard["holds_writes"] == true {
        text += ", holds writes";
    }
    let wishes: Vec<String> = guard["wishes_refused"].as_array().into_iter().flatten().map(text_of).collect();
    if !wishes.is_empty() {
        text = format!("{text}; could not get: {}", wishes.join(", "));
    }
    text
}
