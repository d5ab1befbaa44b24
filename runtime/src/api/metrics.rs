//! `GET /metrics`: Patroni's metrics in Patroni's order, then Matriarch's own.

use std::collections::BTreeMap;

use matriarch_core::decide::explain;
use matriarch_core::id::Lsn;

use super::Api;
use super::facts::Facts;
use super::reply::Reply;
use crate::agent::counts::Histogram;
use crate::wire::PATRONI_LEVEL;

/// The states of PostgreSQL by their frozen index (spec A.1): text and name.
const STATES: [(&str, &str); 15] = [
    ("initializing new cluster", "initdb"),
    ("initdb failed", "initdb_failed"),
    ("running custom bootstrap script", "custom_bootstrap"),
    ("custom bootstrap failed", "custom_bootstrap_failed"),
    ("creating replica", "creating_replica"),
    ("running", "running"),
    ("starting", "starting"),
    ("starting after custom bootstrap", "bootstrap_starting"),
    ("start failed", "start_failed"),
    ("restarting", "restarting"),
    ("restart failed", "restart_failed"),
    ("stopping", "stopping"),
    ("stopped", "stopped"),
    ("stop failed", "stop_failed"),
    ("crashed", "crashed"),
];

/// `GET /metrics`.
pub(super) async fn metrics(api: &Api) -> Reply {
    api.freshen().await;
    Reply::metrics(api.with_facts(render))
}

fn render(facts: &Facts<'_>) -> String {
    let mut page = Page { text: String::new(), labels: labels(facts) };
    postgresql(facts, &mut page);
    cluster(facts, &mut page);
    ours(facts, &mut page);
    page.text
}

fn postgresql(facts: &Facts<'_>, page: &mut Page) {
    let sql = facts.sql;
    let standby = sql.filter(|sql| sql.in_recovery);
    let primary = sql.filter(|sql| !sql.in_recovery);
    let lsn = |lsn: Option<Lsn>| lsn.unwrap_or_default().0.to_string();
    let seconds = |micros: Option<i64>| micros.map_or_else(|| "0".to_owned(), micros_as_seconds);
    page.gauge("patroni_version", "Patroni version of the interfaces", &padded(PATRONI_LEVEL));
    page.flag("patroni_postgres_running", "Whether PostgreSQL is running", facts.state() == "running");
    let started = seconds(sql.map(|sql| sql.postmaster_start_us));
    page.gauge("patroni_postmaster_start_time", "Epoch seconds since PostgreSQL started", &started);
    page.flag("patroni_primary", "Whether this node is the primary", facts.role() == "primary");
    let location = lsn(primary.map(|sql| sql.flushed));
    page.counter(
        "patroni_xlog_location",
        "Current location of the PostgreSQL transaction log, 0 on a standby",
        &location,
    );
    page.flag("patroni_standby_leader", "Whether this node is the standby leader", false);
    page.flag("patroni_replica", "Whether this node is a replica", facts.role() == "replica");
    page.flag("patroni_sync_standby", "Whether this node is a synchronous standby", false);
    page.flag("patroni_quorum_standby", "Whether this node is a quorum standby", false);
    let received = lsn(standby.map(|sql| sql.received.max(sql.replayed)));
    page.counter("patroni_xlog_received_location", "Location received by a standby, 0 on a primary", &received);
    let replayed = lsn(standby.map(|sql| sql.replayed));
    page.counter("patroni_xlog_replayed_location", "Location replayed by a standby, 0 on a primary", &replayed);
    let replayed_at = seconds(standby.and_then(|sql| sql.replayed_at).map(|ms| ms.saturating_mul(1000)));
    page.gauge("patroni_xlog_replayed_timestamp", "Time of the last replayed transaction", &replayed_at);
    page.flag("patroni_xlog_paused", "Whether replay is paused", standby.is_some_and(|sql| sql.replay_paused));
    let state = |of| facts.replication_state() == Some(of);
    // Patroni has these two only for a server whose version it knows.
    if sql.is_some() {
        page.flag("patroni_postgres_streaming", "Whether PostgreSQL is streaming", state("streaming"));
        let archive = "Whether PostgreSQL is replicating from the archive";
        page.flag("patroni_postgres_in_archive_recovery", archive, state("in archive recovery"));
    }
    let version = sql.map_or(0, |sql| sql.server_version).to_string();
    page.gauge("patroni_postgres_server_version", "Version of PostgreSQL", &version);
}

fn cluster(facts: &Facts<'_>, page: &mut Page) {
    page.flag("patroni_cluster_unlocked", "Whether nobody leads", facts.unlocked());
    page.flag("patroni_failsafe_mode_is_active", "Whether failsafe mode is active", false);
    let timeline = facts.sql.map_or(0, |sql| sql.timeline.0).to_string();
    page.gauge("patroni_postgres_timeline", "Timeline of PostgreSQL, 0 if unknown", &timeline);
    let seen = facts.shared.store_last_seen_s.to_string();
    page.gauge("patroni_dcs_last_seen", "Epoch seconds when the store last answered", &seen);
    let pending = facts.sql.is_some_and(|sql| !sql.pending_restart.is_empty());
    page.flag("patroni_pending_restart", "Whether PostgreSQL waits for a restart", pending);
    page.flag("patroni_is_paused", "Whether the cluster is paused", facts.paused());
    let index = STATES.iter().position(|(text, _)| *text == facts.state());
    let index = index.map_or_else(|| "-1".to_owned(), |index| index.to_string());
    let names: Vec<String> = STATES.iter().enumerate().map(|(index, (_, name))| format!("{index}={name}")).collect();
    let values = format!("# Values: {}\n", names.join(", "));
    page.metric("patroni_postgres_state", "gauge", "State of PostgreSQL", &values, &index, "");
}

fn ours(facts: &Facts<'_>, page: &mut Page) {
    let core = &facts.shared.core;
    let left = if facts.leads() { facts.view.authority_left() } else { matriarch_core::time::Duration::ZERO };
    let left = format!("{}.{:03}", left.as_secs(), left.subsec_millis());
    page.gauge(
        "matriarch_tenure_left_seconds",
        "How long PostgreSQL may still write unless the tenure is renewed",
        &left,
    );
    page.flag("matriarch_guard_present", "Whether the guard is there", core.guard.present);
    let refused = facts.shared.guard_wishes_refused.len().to_string();
    page.gauge("matriarch_guard_wishes_refused", "What the guard wants and could not get", &refused);
    let code = core.decision.as_ref().map(|decision| decision.reason.code());
    let code = code.or_else(|| explain(&facts.view).into_iter().find_map(|(.., reason)| Some(reason?.code())));
    let label = format!(",code=\"{}\"", code.unwrap_or("none"));
    page.metric("matriarch_decision", "gauge", "The decision in force, by its code", "", "1", &label);
    counted(facts, page);
    let stale = core.ops.stale.to_string();
    page.counter("matriarch_stale_completions_total", "Completions of operations nobody waited for any more", &stale);
}

/// What has been counted since the agent has started.
fn counted(facts: &Facts<'_>, page: &mut Page) {
    let counts = &facts.shared.counts;
    page.counters("matriarch_decisions_total", "Decisions that differed from the one before", &counts.decisions);
    page.counter("matriarch_tenures_won_total", "Tenures that this node has won", &counts.tenures_won.to_string());
    page.counters(
        "matriarch_tenures_ended_total",
        "Tenures of this node that ended, by the decision that led to it",
        &counts.tenures_ended,
    );
    page.histogram(
        "matriarch_tenure_slack_seconds",
        "How much of the tenure was left when a renewal was proven",
        &counts.slack,
    );
    page.histogram("matriarch_store_seconds", "How long the store took for an operation", &counts.store);
    page.histogram("matriarch_step_seconds", "How long a decision took", &counts.steps);
}

/// `4.1.5` is `040105`.
fn padded(version: &str) -> String {
    let parts: Vec<String> = version.split('.').map(|part| format!("{part:0>2}")).collect();
    parts.concat()
}

fn micros_as_seconds(micros: i64) -> String {
    let micros = micros.max(0);
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

fn labels(facts: &Facts<'_>) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("scope=\"{}\",name=\"{}\"", escape(&facts.shared.scope), escape(facts.view.config().me.as_str()))
}

struct Page {
    text: String,
    labels: String,
}

impl Page {
    fn flag(&mut self, name: &str, help: &str, value: bool) {
        self.metric(name, "gauge", help, "", if value { "1" } else { "0" }, "");
    }

    fn gauge(&mut self, name: &str, help: &str, value: &str) {
        self.metric(name, "gauge", help, "", value, "");
    }

    fn counter(&mut self, name: &str, help: &str, value: &str) {
        self.metric(name, "counter", help, "", value, "");
    }

    /// One sample for each code. Without any it is only announced.
    fn counters(&mut self, name: &str, help: &str, values: &BTreeMap<&'static str, u64>) {
        self.head(name, "counter", help, "");
        for (code, value) in values {
            self.sample(name, &format!(",code=\"{code}\""), &value.to_string());
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help, "");
        let (bucket, count) = (format!("{name}_bucket"), histogram.count().to_string());
        for (bound, count) in histogram.cumulative() {
            self.sample(&bucket, &format!(",le=\"{}\"", bound.as_secs_f64()), &count.to_string());
        }
        self.sample(&bucket, ",le=\"+Inf\"", &count);
        self.sample(&format!("{name}_sum"), "", &histogram.sum().as_secs_f64().to_string());
        self.sample(&format!("{name}_count"), "", &count);
    }

    fn metric(&mut self, name: &str, kind: &str, help: &str, comment: &str, value: &str, more: &str) {
        self.head(name, kind, help, comment);
        self.sample(name, more, value);
    }

    fn head(&mut self, name: &str, kind: &str, help: &str, comment: &str) {
        self.text.push_str(&format!("# HELP {name} {help}.\n{comment}# TYPE {name} {kind}\n"));
    }

    fn sample(&mut self, name: &str, more: &str, value: &str) {
        let labels = &self.labels;
        self.text.push_str(&format!("{name}{{{labels}{more}}} {value}\n"));
    }
}
