//! The table of members, and the choice of members by role.

use std::collections::BTreeSet;

use clap::ValueEnum;
use serde_json::{Map, Value};

use super::format::{Format, flow, plain, text_of};
use super::table::{Column, draw};
use crate::api::ClusterRead;
use crate::config::quantity::{bool_of, int_of};
use crate::config::to_yaml;

/// The longest line of a reason for a restart in a table.
const REASON_WIDTH_MAX: usize = 50;

/// Roles to choose members by.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Whoever holds the leader key.
    Leader,
    /// Whoever holds the leader key and leads no standby cluster.
    Primary,
    /// Whoever leads a standby cluster.
    StandbyLeader,
    /// All but the leader.
    Replica,
    /// All but the leader.
    Standby,
    /// All.
    Any,
}

impl Role {
    /// The role's name as it is written.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Primary => "primary",
            Self::StandbyLeader => "standby-leader",
            Self::Replica => "replica",
            Self::Standby => "standby",
            Self::Any => "any",
        }
    }

    /// Whether a member with this role in the `/cluster` document is meant.
    pub(super) fn includes(self, role: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Leader => matches!(role, "leader" | "standby_leader"),
            Self::Primary => role == "leader",
            Self::StandbyLeader => role == "standby_leader",
            Self::Replica | Self::Standby => !matches!(role, "leader" | "standby_leader"),
        }
    }
}

/// A member in the `/cluster` document.
#[derive(Clone, Copy)]
pub(super) struct MemberView<'a>(&'a Value);

impl<'a> MemberView<'a> {
    pub(super) fn name(self) -> &'a str {
        self.text("name")
    }

    pub(super) fn role(self) -> &'a str {
        self.text("role")
    }

    pub(super) fn api_url(self) -> &'a str {
        self.text("api_url")
    }

    pub(super) fn leads(self) -> bool {
        Role::Leader.includes(self.role())
    }

    pub(super) fn pending_restart(self) -> bool {
        self.0.get("pending_restart").is_some_and(|value| value != &Value::Bool(false) && !value.is_null())
    }

    pub(super) fn scheduled_restart(self) -> bool {
        self.0.get("scheduled_restart").and_then(Value::as_object).is_some_and(|restart| !restart.is_empty())
    }

    pub(super) fn host(self) -> &'a str {
        self.text("host")
    }

    pub(super) fn port(self) -> Option<u16> {
        self.0.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok())
    }

    fn text(self, key: &str) -> &'a str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn tag(self, name: &str) -> Option<&'a Value> {
        self.0.get("tags")?.get(name)
    }

    pub(super) fn nofailover(self) -> bool {
        let of_priority =
            || self.tag("failover_priority").and_then(|tag| int_of(tag, None)).is_some_and(|given| given <= 0);
        self.tag("nofailover").and_then(bool_of).unwrap_or_else(of_priority)
    }
}

/// The members of a cluster, sorted by name.
pub(super) fn all(cluster: &ClusterRead) -> impl Iterator<Item = MemberView<'_>> {
    cluster.document.get("members").and_then(Value::as_array).into_iter().flatten().map(MemberView)
}

const COLUMNS: [(&str, bool); 10] = [
    ("Cluster", false),
    ("Member", false),
    ("Host", false),
    ("Role", false),
    ("State", false),
    ("TL", true),
    ("Receive LSN", true),
    ("Receive Lag", true),
    ("Replay LSN", true),
    ("Replay Lag", true),
];

const OPTIONAL: [&str; 4] = ["Pending restart", "Pending restart reason", "Scheduled restart", "Tags"];

/// The table of members, with its title and its footer where the format has them.
pub(super) fn render(name: &str, cluster: &ClusterRead, format: Format, extended: bool) -> String {
    let members: Vec<(String, MemberView<'_>)> = match format {
        Format::Topology => tree(cluster),
        _ => all(cluster).map(|member| (member.name().to_owned(), member)).collect(),
    };
    let with_port = ports_matter(cluster);
    let rows: Vec<(Vec<Value>, [Value; 4])> = members
        .iter()
        .map(|(shown, member)| (cells(name, shown, *member, with_port), optional_cells(*member, format)))
        .collect();
    let shown: Vec<usize> =
        (0..OPTIONAL.len()).filter(|index| extended || rows.iter().any(|(_, cells)| cells[*index] != "")).collect();
    let row = |(cells, optional): (Vec<Value>, [Value; 4])| {
        cells.into_iter().chain(shown.iter().map(|index| optional[*index].clone())).collect::<Vec<Value>>()
    };
    let rows: Vec<Vec<Value>> = rows.into_iter().map(row).collect();
    if !matches!(format, Format::Pretty | Format::Topology) {
        let fixed = COLUMNS.iter().map(|(header, _)| *header);
        let headers: Vec<&str> = fixed.chain(shown.iter().map(|index| OPTIONAL[*index])).collect();
        return plain(format, &headers, &rows, true);
    }
    let columns: Vec<Column<'_>> = COLUMNS[1..]
        .iter()
        .map(|&(header, right)| Column { header: if header.ends_with("Lag") { "Lag" } else { header }, right })
        .chain(shown.iter().map(|index| Column { header: OPTIONAL[*index], right: false }))
        .collect();
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().skip(1).map(text_of).collect()).collect();
    format!("{}{}", draw(Some(&title(name, cluster)), &columns, &rows), footer(&cluster.document))
}

fn title(name: &str, cluster: &ClusterRead) -> String {
    let initialised = match cluster.initialize.as_deref() {
        None => "uninitialized",
        Some("") => "initializing",
        Some(identifier) => identifier,
    };
    format!(" Cluster: {name} ({initialised}) ")
}

fn footer(document: &Value) -> String {
    let mut lines = Vec::new();
    if document.get("pause").and_then(Value::as_bool) == Some(true) {
        lines.push(" Maintenance mode: on\n".to_owned());
    }
    if let Some(scheduled) = document.get("scheduled_switchover") {
        for (key, label) in [("at", "Switchover scheduled at"), ("from", "from"), ("to", "to")] {
            if let Some(value) = scheduled.get(key).and_then(Value::as_str) {
                lines.push(format!("{label:>24}: {value}\n"));
            }
        }
    }
    lines.concat()
}

/// Ports are shown for all if one is unusual, or if two members share a host.
fn ports_matter(cluster: &ClusterRead) -> bool {
    let mut hosts = BTreeSet::new();
    all(cluster).any(|member| {
        let port = member.0.get("port").and_then(Value::as_u64);
        port.is_some_and(|port| port != 5432) || !hosts.insert(member.text("host"))
    })
}

fn cells(cluster: &str, shown: &str, member: MemberView<'_>, with_port: bool) -> Vec<Value> {
    let host = match (member.text("host"), member.0.get("port")) {
        (host, Some(port)) if with_port => format!("{host}:{port}"),
        (host, _) => host.to_owned(),
    };
    let [received, replayed] = positions(member);
    let timeline = member.0.get("timeline").filter(|timeline| timeline.is_u64()).cloned();
    let mut cells: Vec<Value> =
        vec![cluster.into(), shown.into(), host.into(), titled(member.role()).into(), member.text("state").into()];
    cells.push(timeline.unwrap_or_else(|| "".into()));
    cells.extend(received);
    cells.extend(replayed);
    cells
}

/// Position and lag, received and replayed. A member that tells only one position has it where its state says.
fn positions(member: MemberView<'_>) -> [[Value; 2]; 2] {
    let pair = |lsn: &str, lag: &str| {
        let lsn = member.0.get(lsn).cloned().unwrap_or_else(|| "".into());
        let megabytes = member.0.get(lag).and_then(Value::as_f64).map(|bytes| (bytes / 1_048_576.0).round_ties_even());
        [lsn, megabytes.map_or_else(|| "".into(), |megabytes| (megabytes as i64).into())]
    };
    let told = |key: &str| member.0.get(key).is_some();
    if told("receive_lsn") || told("replay_lsn") || !told("lsn") {
        return [pair("receive_lsn", "receive_lag"), pair("replay_lsn", "replay_lag")];
    }
    let nothing = || ["".into(), "".into()];
    if member.text("state") == "streaming" { [pair("lsn", "lag"), nothing()] } else { [nothing(), pair("lsn", "lag")] }
}

/// `sync_standby` is `Sync Standby`.
fn titled(role: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect::<String>()).unwrap_or_default()
    };
    role.split('_').map(word).collect::<Vec<_>>().join(" ")
}

fn optional_cells(member: MemberView<'_>, format: Format) -> [Value; 4] {
    let object = |key: &str| member.0.get(key).and_then(Value::as_object).filter(|object| !object.is_empty());
    let pending = if member.pending_restart() { "*" } else { "" };
    let reason = object("pending_restart_reason").map(|reasons| reason(reasons, format)).unwrap_or_default();
    let scheduled = object("scheduled_restart").map(scheduled).unwrap_or_default();
    let tags = object("tags").map_or_else(|| "".into(), |tags| shown_tags(tags, format));
    [pending.into(), reason.into(), scheduled.into(), tags]
}

fn reason(reasons: &Map<String, Value>, format: Format) -> String {
    let short = matches!(format, Format::Pretty | Format::Topology);
    let lines = reasons.iter().map(|(parameter, change)| {
        let side = |key: &str| change.get(key).map(text_of).unwrap_or_default();
        let line = format!("{parameter}: {}->{}", side("old_value"), side("new_value"));
        if short && line.chars().count() > REASON_WIDTH_MAX {
            format!("{parameter}: [hidden - too long]")
        } else {
            line
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn scheduled(restart: &Map<String, Value>) -> String {
    let text = |key: &str| restart.get(key).map(text_of);
    let version = text("postgres_version").map(|version| format!(" if version < {version}")).unwrap_or_default();
    format!("{}{version}", text("schedule").unwrap_or_default())
}

fn shown_tags(tags: &Map<String, Value>, format: Format) -> Value {
    let tags = Value::Object(tags.clone());
    match format {
        Format::Json | Format::Yaml => tags,
        Format::Pretty => to_yaml(&tags).trim_end().into(),
        Format::Topology | Format::Tsv => flow(&tags).into(),
    }
}

/// The leader first, then who replicates from whom, two blanks a level.
fn tree(cluster: &ClusterRead) -> Vec<(String, MemberView<'_>)> {
    let members: Vec<MemberView<'_>> = all(cluster).collect();
    let leader = members.iter().find(|member| member.leads());
    let source = |member| source(&members, member);
    let mut rows: Vec<(String, MemberView<'_>)> =
        leader.map(|leader| (leader.name().to_owned(), *leader)).into_iter().collect();
    let mut placed: BTreeSet<&str> = leader.map(|leader| leader.name()).into_iter().collect();
    let mut open: Vec<(usize, MemberView<'_>)> =
        members.iter().rev().filter(|member| !member.leads() && source(**member).is_none()).map(|m| (0, *m)).collect();
    let mut left = members.iter().filter(|member| !member.leads());
    loop {
        // Members that name each other in a circle hang on nobody: they are shown below the leader.
        let next =
            open.pop().or_else(|| left.find(|member| !placed.contains(member.name())).map(|member| (0, *member)));
        let Some((level, member)) = next else { return rows };
        if !placed.insert(member.name()) {
            continue;
        }
        rows.push((format!("{}+ {}", "  ".repeat(level), member.name()), member));
        let children = members.iter().rev().filter(|child| !child.leads() && source(**child) == Some(member.name()));
        open.extend(children.map(|child| (level + 1, *child)));
    }
}

/// Whom a member replicates from, if that is another replica.
fn source<'a>(members: &[MemberView<'a>], member: MemberView<'a>) -> Option<&'a str> {
    let named = member.tag("replicatefrom").and_then(Value::as_str)?;
    let replica = |other: &MemberView<'_>| !other.leads() && other.name() == named && named != member.name();
    members.iter().any(replica).then_some(named)
}
