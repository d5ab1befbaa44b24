//! Commands that only show: `list`, `topology`, `history`.

use std::time::Duration;

use serde_json::Value;

use super::format::{Format, plain, text_of};
use super::table::{Column, draw};
use super::{CitusArgs, Ctl, CtlError, ListArgs, WatchArgs, local_time, members, screen};

const HISTORY: [&str; 5] = ["TL", "LSN", "Reason", "Timestamp", "New Leader"];

pub(super) async fn list(mut ctl: Ctl<'_>, list: ListArgs) -> Result<(), CtlError> {
    let names: Vec<String> =
        if list.clusters.is_empty() { ctl.settings.scope.iter().cloned().collect() } else { list.clusters.clone() };
    if names.is_empty() {
        let now = local_time("%Y-%m-%d %H:%M:%S", Duration::ZERO);
        eprintln!("{now} - WARNING - Listing members: No cluster names were provided");
        return Ok(());
    }
    match list.watch.pause() {
        None => {
            let text = text(&ctl, &names, &list).await?;
            ctl.console.print(&text)
        }
        Some(pause) if ctl.console.is_terminal => screen::keep(pause, async || text(&ctl, &names, &list).await).await,
        Some(pause) => repeat(&mut ctl, pause, &names, &list).await,
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

async fn text(ctl: &Ctl<'_>, names: &[String], list: &ListArgs) -> Result<String, CtlError> {
    let mut text = String::new();
    if list.timestamp {
        text += &(local_time("%Y-%m-%d %H:%M:%S", Duration::ZERO) + "\n");
    }
    for name in names {
        text += &members::render(name, &ctl.read(name).await?, list.format, list.extended);
    }
    Ok(text)
}

/// One after the other, into a file or a pipe. A store that is away for a while ends nothing that has begun.
async fn repeat(ctl: &mut Ctl<'_>, pause: Duration, names: &[String], list: &ListArgs) -> Result<(), CtlError> {
    let first = text(ctl, names, list).await?;
    ctl.console.print(&first)?;
    loop {
        tokio::time::sleep(pause).await;
        match text(ctl, names, list).await {
            Ok(text) => ctl.console.print(&text)?,
            Err(CtlError::Failed(why)) => eprintln!("Error: {why}"),
            Err(other) => return Err(other),
        }
    }
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
