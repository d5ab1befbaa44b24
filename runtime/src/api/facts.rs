//! What the API knows at one instant, in Patroni's words.

use std::time::Duration;

use matriarch_core::action::PostgresAction;
use matriarch_core::id::Lsn;
use matriarch_core::time::{Instant, Seen};
use matriarch_core::view::View;
use matriarch_core::view::postgres::{Phase, Sql};
use serde_json::Value;

use crate::agent::handle::Shared;

/// An answer of PostgreSQL that is older is asked for again before a health check is answered from it.
pub(super) const FRESH_FOR: Duration = Duration::from_secs(1);
/// The same for what is asked to compare positions: a primary's may have gone on by a segment since, at a checkpoint or
/// `pg_switch_wal()`, and a candidate that tells where it was then passes for one that lags.
pub(super) const PRESENT_FOR: Duration = Duration::from_millis(50);
/// How long a health check waits for an answer of PostgreSQL that is late.
pub(super) const CHECK_LIMIT: Duration = Duration::from_millis(40);
/// The same for what is compared: an old position costs more than half a second does.
pub(super) const COMPARISON_LIMIT: Duration = Duration::from_millis(500);
/// An answer of PostgreSQL to a question that is older than this, although it was asked again, means that it does not
/// answer.
const SILENT_AFTER: Duration = Duration::from_secs(3);

/// Everything known, at one instant.
pub(super) struct Facts<'a> {
    pub(super) shared: &'a Shared,
    pub(super) view: View<'a>,
    /// What the running PostgreSQL told last, unless that is too long ago.
    pub(super) sql: Option<&'a Sql>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(shared: &'a Shared, at: Instant) -> Self {
        let view = View { at, state: &shared.core };
        let ready = view.phase() == Some(Phase::Ready);
        let seen = shared.core.postgres.sql.as_ref();
        let sql = seen.filter(|seen| ready && at.since(seen.asked) < SILENT_AFTER).map(|seen| &seen.value);
        Self { shared, view, sql }
    }

    /// PostgreSQL runs, and what it told last was not asked since `wanted`.
    pub(super) fn lack(&self, wanted: Instant) -> bool {
        let seen = self.shared.core.postgres.sql.as_ref();
        self.view.phase() == Some(Phase::Ready) && seen.is_none_or(|seen| seen.asked < wanted)
    }

    /// This node leads at this very instant, by the clock.
    pub(super) fn leads(&self) -> bool {
        self.view.leads()
    }

    /// The state of PostgreSQL as the member record says it, but `unknown` if it does not answer just now.
    pub(super) fn state(&self) -> &'static str {
        match self.view.postgres_state() {
            "running" if self.sql.is_none() => "unknown",
            state => state,
        }
    }

    /// The role: what PostgreSQL says, and what the data directory says while it does not answer.
    pub(super) fn role(&self) -> &'static str {
        match (self.sql, self.view.dir()) {
            (Some(sql), _) if sql.in_recovery => "replica",
            (Some(_), _) => "primary",
            (None, None) => "uninitialized",
            (None, Some(_)) if matches!(self.view.controlling(), Some(PostgresAction::Promote { .. })) => "promoted",
            (None, Some(dir)) if dir.standby_signal => "replica",
            (None, Some(_)) if self.view.held().is_some() => "primary",
            (None, Some(_)) => "demoted",
        }
    }

    /// Where a standby has its WAL from.
    pub(super) fn replication_state(&self) -> Option<&'static str> {
        self.sql.and_then(Sql::replication_state)
    }

    /// The newest position of the leader that this node has heard of, by the store or by its WAL receiver.
    pub(super) fn leader_position(&self) -> Lsn {
        let status = self.view.cluster().and_then(|cluster| cluster.status.as_ref()).map(|status| status.optime);
        let receiver = self.sql.and_then(|sql| sql.receiver.as_ref()).map(|receiver| receiver.latest_end);
        status.unwrap_or_default().max(receiver.unwrap_or_default())
    }

    /// The cluster is paused, by its configuration.
    pub(super) fn paused(&self) -> bool {
        let pause = self.shared.dynamic.as_ref().and_then(|dynamic| dynamic.get("pause"));
        pause.and_then(crate::config::quantity::bool_of) == Some(true)
    }

    /// Nobody leads, as far as is known.
    pub(super) fn unlocked(&self) -> bool {
        let View { at, state } = self.view;
        // Keys that were heard longer ago than the leader's lasts by itself tell of nobody who leads now. They are read
        // each `loop_wait`.
        let lasts = state.config.ttl.max(2 * state.config.loop_wait);
        let fresh = |seen: &Seen<_>| at.since(seen.heard) <= lasts;
        self.view.leader().is_none() || !state.store.cluster.as_ref().is_some_and(fresh)
    }

    /// An effective tag that is a true boolean.
    pub(super) fn tagged(&self, name: &str) -> bool {
        self.shared.tags.get(name).is_some_and(|value| match value {
            Value::Bool(b) => *b,
            other => crate::config::quantity::bool_of(other).unwrap_or(false),
        })
    }
}
