//! What is observed, in words that are the same for every server.

use std::collections::BTreeSet;
use std::time::Duration;

use matriarch_core::action::PostgresAction;
use matriarch_core::event::PostgresDone;
use matriarch_core::op::Outcome;
use matriarch_core::view::postgres::{Cluster, Process, Sql, StartAs, StopMode};

use crate::{Blow, LONG, Servers};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// A script under way.
pub(crate) struct Script<S> {
    pub(crate) servers: S,
    /// What was observed.
    pub(crate) told: Vec<String>,
    row: u64,
}

pub(crate) fn name(server: usize) -> char {
    char::from(b'a' + server as u8)
}

impl<S: Servers> Script<S> {
    pub(crate) fn new(servers: S) -> Self {
        Self { servers, told: Vec::new(), row: 0 }
    }

    pub(crate) fn note(&mut self, what: impl std::fmt::Display, seen: impl std::fmt::Display) {
        self.told.push(format!("{what}: {seen}"));
    }

    /// Orders something that ends, and notes what came of it.
    pub(crate) async fn order(&mut self, server: usize, what: PostgresAction) {
        self.order_within(LONG, server, what).await;
    }

    /// The same; it may not end in time.
    pub(crate) async fn order_within(&mut self, limit: Duration, server: usize, what: PostgresAction) {
        let shown = format!("{} {}", name(server), short(&what));
        let seen = match self.servers.order(server, what, limit).await {
            Some(Outcome::Done(PostgresDone::Compared(Some(_)))) => "diverged",
            Some(Outcome::Done(PostgresDone::Compared(None))) => "has not diverged",
            Some(Outcome::Done(_)) => "done",
            Some(Outcome::Refused(_)) => "refused",
            Some(Outcome::Unknown(_)) => "unknown",
            None => "not ended",
        };
        self.note(shown, seen);
    }

    /// A new cluster, running as primary.
    pub(crate) async fn begin(&mut self, server: usize) {
        self.order(server, PostgresAction::Initdb).await;
        self.order(server, PostgresAction::Start(StartAs::Primary)).await;
        self.order(server, PostgresAction::CreateRoles).await;
    }

    /// A copy of another, streaming from it.
    pub(crate) async fn copy(&mut self, server: usize, from: usize) {
        let upstream = self.servers.upstream(from);
        self.order(server, PostgresAction::Clone(upstream)).await;
        self.follows(server, from).await;
    }

    /// A server that is down is started to stream from another, which has a slot for it.
    pub(crate) async fn follows(&mut self, server: usize, from: usize) {
        self.starts_behind(server, from).await;
        self.until(format!("{} streams", name(server)), server, streams).await;
    }

    /// The same, whatever comes of it.
    pub(crate) async fn starts_behind(&mut self, server: usize, from: usize) {
        self.order(from, PostgresAction::CreateSlot(name(server).to_string())).await;
        let upstream = self.servers.upstream(from);
        self.order(server, PostgresAction::Start(StartAs::Standby(Some(upstream)))).await;
    }

    pub(crate) async fn stop(&mut self, server: usize, mode: StopMode) {
        self.order(server, PostgresAction::Stop(mode)).await;
    }

    pub(crate) async fn befalls(&mut self, server: usize, blow: Blow) {
        self.servers.befalls(server, blow).await;
    }

    /// A client writes the next row.
    pub(crate) async fn commit(&mut self, server: usize) -> u64 {
        self.row += 1;
        let acknowledged = self.servers.commit(server, self.row).await;
        self.note(format!("{} acknowledges row {}", name(server), self.row), acknowledged);
        self.row
    }

    /// Waits for something to be seen of a server.
    pub(crate) async fn until(&mut self, what: impl std::fmt::Display, server: usize, seen: impl Fn(&Sql) -> bool) {
        let mut so = false;
        for _ in 0..500 {
            so = self.servers.sql(server).await.is_some_and(|sql| seen(&sql));
            if so {
                break;
            }
            self.servers.pass(PAUSE).await;
        }
        self.note(what, so);
    }

    /// Waits until a standby has replayed all that its source has.
    pub(crate) async fn level(&mut self, server: usize, from: usize) {
        let end = self.sql(from).await;
        let end = end.flushed.max(end.received);
        let what = format!("{} has all of {}", name(server), name(from));
        self.until(what, server, |sql| sql.replayed >= end).await;
    }

    /// What a server answers, which must.
    pub(crate) async fn sql(&mut self, server: usize) -> Sql {
        self.servers.sql(server).await.unwrap_or_else(|| panic!("{} does not answer", name(server)))
    }

    /// Notes all that a script may compare of a server, but for its positions.
    pub(crate) async fn look(&mut self, server: usize) {
        let process = match self.servers.process(server).await {
            Process::Alive { phase, .. } => format!("{phase:?}"),
            other => format!("{other:?}"),
        };
        let on_disk = disk(&self.servers.cluster(server).await);
        let says = self.servers.sql(server).await.map(|sql| says(&sql));
        let rows = self.servers.rows(server).await;
        self.note(name(server), format!("{process}, on disk {on_disk}, says {says:?}, rows {rows:?}"));
    }
}

pub(crate) fn streams(sql: &Sql) -> bool {
    sql.receiver.as_ref().is_some_and(|receiver| receiver.streaming)
}

fn disk(cluster: &Cluster) -> String {
    let parents: Vec<u32> = cluster.history.ancestors.iter().map(|ancestor| ancestor.timeline.0).collect();
    let standby = if cluster.standby_signal { ", standby.signal" } else { "" };
    format!("{:?}{standby}, timeline {} after {parents:?}", cluster.state, cluster.history.timeline)
}

fn says(sql: &Sql) -> String {
    let role = if sql.in_recovery { "standby" } else { "primary" };
    let paused = if sql.replay_paused { ", replay paused" } else { "" };
    let stream = if streams(sql) { ", streams" } else { "" };
    let slots: BTreeSet<&str> = sql.slots.iter().map(|slot| slot.name.as_str()).collect();
    format!("{role} on timeline {}{paused}{stream}, slots {slots:?}", sql.timeline)
}

fn short(action: &PostgresAction) -> String {
    match action {
        PostgresAction::Clone(from) => format!("is cloned from {}", from.member),
        PostgresAction::Start(StartAs::Standby(Some(from))) => format!("starts behind {}", from.member),
        PostgresAction::Start(StartAs::Standby(None)) => "starts behind nobody".into(),
        PostgresAction::Follow(from) => format!("turns to {:?}", from.as_ref().map(|from| from.member.as_str())),
        PostgresAction::Compare(with) => format!("compared with {}", with.member),
        PostgresAction::Rewind(to) => format!("is rewound to {}", to.member),
        PostgresAction::Promote { timeline } => format!("is promoted to timeline {timeline}"),
        PostgresAction::AdvanceSlot { slot, .. } => format!("advances slot {slot}"),
        other => format!("{other:?}"),
    }
}
