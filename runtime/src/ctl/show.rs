//! Commands that only show: `list`, `topology`, `history`, `show-config`.

use std::io::IsTerminal;
use std::time::Duration;

use serde_json::Value;

use super::format::{Format, plain, text_of};
use super::table::{Column, draw};
use super::{CitusArgs, Ctl, CtlError, ListArgs, WatchArgs, local_time, members};
use crate::config::to_yaml;

const HISTORY: [&str; 5] = ["TL", "LSN", "Reason", "Timestamp", "New Leader"];

pub(super) async fn list(mut ctl: Ctl<'_>, list: ListArgs) -> Result<(), CtlError> {
    loop {
        show(&mut ctl, &list.clusters, &list).await?;
        if !again(&mut ctl, list.watch).await? {
            return Ok(());
        }
    }
}

pub(super) async fn topology(ctl: Ctl<'_>, clusters: &[String], watch: WatchArgs) -> Result<(), CtlError> {
    let as_tree = ListArgs {
        clusters: clusters.to_vec(),
        extended: false,
        timestamp: false,
        format: Format::Topology,
        watch,
        citus: CitusArgs::default(),
    };
    list(ctl, as_tree).await
}

async fn show(ctl: &mut Ctl<'_>, clusters: &[String], list: &ListArgs) -> Result<(), CtlError> {
    let names: Vec<String> =
        if clusters.is_empty() { ctl.settings.scope.iter().cloned().collect() } else { clusters.to_vec() };
    if names.is_empty() {
        let now = local_time("%Y-%m-%d %H:%M:%S", Duration::ZERO);
        eprintln!("{now} - WARNING - Listing members: No cluster names were provided");
    }
    for name in names {
        let cluster = ctl.read(&name).await?;
        if list.timestamp {
            ctl.console.line(&local_time("%Y-%m-%d %H:%M:%S", Duration::ZERO))?;
        }
        ctl.console.print(&members::render(&name, &cluster, list.format, list.extended))?;
    }
    Ok(())
}

/// Waits for the next round, if there is one, and clears a terminal for it.
async fn again(ctl: &mut Ctl<'_>, watch: WatchArgs) -> Result<bool, CtlError> {
    let seconds = watch.watch.or(watch.repeat.then_some(2.0));
    let Some(seconds) = seconds.filter(|seconds| seconds.is_finite() && *seconds > 0.0) else { return Ok(false) };
    tokio::time::sleep(Duration::from_secs_f64(seconds.min(86_400.0))).await;
    if std::io::stdout().is_terminal() {
        ctl.console.print("\x1b[2J\x1b[H")?;
    }
    Ok(true)
}

pub(super) async fn history(mut ctl: Ctl<'_>, cluster: Option<String>, format: Format) -> Result<(), CtlError> {
    let name = ctl.cluster_name(cluster)?;
    let read = ctl.read(&name).await?;
    let rows: Vec<Vec<Value>> = read
        .view
        .history
        .lines
        .iter()
        .map(|line| {
            let text = |text: &Option<String>| Value::from(text.clone().unwrap_or_default());
            let reason = Value::from(line.reason.as_str());
            vec![line.timeline.0.into(), line.end.0.into(), reason, text(&line.timestamp), text(&line.leader)]
        })
        .collect();
    if format != Format::Pretty {
        return ctl.console.print(&plain(format, &HISTORY, &rows, false));
    }
    let columns = HISTORY.map(|header| Column { header, right: matches!(header, "TL" | "LSN") });
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(text_of).collect()).collect();
    ctl.console.print(&draw(None, &columns, &rows))
}

pub(super) async fn config(mut ctl: Ctl<'_>, cluster: Option<String>) -> Result<(), CtlError> {
    let name = ctl.cluster_name(cluster)?;
    match ctl.read(&name).await?.config {
        Some(config) => ctl.console.line(&to_yaml(&config)),
        None => Ok(()),
    }
}
