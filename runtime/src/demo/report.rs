//! What the tour found: one line a fault, a table at the end, a document for machines.

use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::{LOOP_WAIT_S, NODES, RETRY_TIMEOUT_S, TTL_S};
use super::faults::Fault;

/// What one fault cost.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    /// The fault.
    pub(super) fault: Fault,
    /// The primary that it struck.
    pub(super) node: String,
    /// The primary after it.
    pub(super) primary_after: String,
    /// The longest time without an acknowledged write.
    pub(super) outage: Duration,
    /// For how long two nodes acknowledged beside each other; `None`: never.
    pub(super) overlap: Option<Duration>,
    /// Rows acknowledged before, during and after it: since the last fault was over.
    pub(super) rows_acknowledged: usize,
    /// Acknowledged rows that no longer exist.
    pub(super) rows_lost: usize,
}

impl Finding {
    /// Nothing happened that must not.
    pub(super) fn holds(&self) -> bool {
        self.overlap.is_none() && (self.rows_lost == 0 || self.fault.may_lose_rows())
    }

    /// Whole milliseconds, never rounded down to none.
    fn overlap_ms(&self) -> u64 {
        self.overlap.map_or(0, |overlap| millis(overlap).max(1))
    }

    /// One line, as the fault is over.
    pub(super) fn sentence(&self) -> String {
        let place = if self.primary_after == self.node {
            format!("{} again", self.node)
        } else {
            format!("{} after {}", self.primary_after, self.node)
        };
        let Self { fault, rows_lost, .. } = self;
        let (outage, overlap) = (millis(self.outage), self.overlap_ms());
        let title = fault.title();
        format!("{title:<36} {place:<12} outage {outage:>5} ms   overlap {overlap} ms   rows lost {rows_lost}")
    }
}

/// The whole tour.
#[derive(Default, Debug)]
pub(super) struct Report {
    /// PostgreSQL's version.
    pub(super) postgresql: String,
    /// Faults that the tour consists of.
    pub(super) planned: usize,
    /// What was found so far.
    pub(super) findings: Vec<Finding>,
    /// Rows acknowledged in all.
    pub(super) rows_acknowledged: usize,
    /// How to reach a cluster that was left running.
    pub(super) kept: Option<Value>,
}

impl Report {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// The tour is complete, and nothing happened that must not.
    pub(super) fn holds(&self) -> bool {
        self.planned > 0 && self.findings.len() == self.planned && self.findings.iter().all(Finding::holds)
    }

    /// The table at the end and what it means.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("  {:<36} {:>10} {:>11} {:>10}", "fault", "outage ms", "overlap ms", "rows lost"),
            format!("  {:-<36} {:->10} {:->11} {:->10}", "", "", "", ""),
        ];
        for finding in &self.findings {
            let mark = match (finding.holds(), finding.fault.may_lose_rows()) {
                (false, _) => "  BROKEN",
                (true, true) => "  *",
                (true, false) => "",
            };
            let title = finding.fault.title();
            let (outage, overlap, lost) = (millis(finding.outage), finding.overlap_ms(), finding.rows_lost);
            lines.push(format!("  {title:<36} {outage:>10} {overlap:>11} {lost:>10}{mark}"));
        }
        lines.push(String::new());
        let rows = self.rows_acknowledged;
        lines.push(format!("{rows} rows were acknowledged. Outage: the longest time in which no node acknowledged a row. Overlap: the time"));
        lines.push(
            "in which two nodes did; more than 0 would be two primaries. Rows lost: acknowledged, then gone."
                .to_owned(),
        );
        if self.findings.iter().any(|finding| finding.fault.may_lose_rows()) {
            lines.push("* Replication is asynchronous here: a primary that is lost or silenced at once may take along the last rows".to_owned());
            lines.push("  that no standby had received yet. They are counted. Synchronous replication is what keeps those, too.".to_owned());
        }
        let outcome = if self.holds() {
            "One writer at every instant, and nothing lost that was promised."
        } else {
            "BROKEN: two nodes acknowledged writes at one instant, or rows were lost that must not be."
        };
        lines.push(outcome.to_owned());
        lines
    }

    /// The document of `--json`. `error` says why the tour is not complete.
    pub(super) fn to_json(&self, error: Option<&str>) -> Value {
        let finding = |finding: &Finding| {
            json!({
                "fault": finding.fault.key(),
                "title": finding.fault.title(),
                "node": finding.node,
                "primary_after": finding.primary_after,
                "outage_ms": millis(finding.outage),
                "overlap_ms": finding.overlap_ms(),
                "rows_acknowledged": finding.rows_acknowledged,
                "rows_lost": finding.rows_lost,
                "may_lose_rows": finding.fault.may_lose_rows(),
                "holds": finding.holds(),
            })
        };
        json!({
            "matriarch": env!("CARGO_PKG_VERSION"),
            "postgresql": self.postgresql,
            "nodes": NODES,
            "replication": "asynchronous",
            "ttl_s": TTL_S,
            "loop_wait_s": LOOP_WAIT_S,
            "retry_timeout_s": RETRY_TIMEOUT_S,
            "faults": self.findings.iter().map(finding).collect::<Vec<Value>>(),
            "rows_acknowledged": self.rows_acknowledged,
            "holds": error.is_none() && self.holds(),
            "kept": self.kept,
            "error": error,
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(fault: Fault, overlap: Option<Duration>, rows_lost: usize) -> Finding {
        Finding {
            fault,
            node: "n1".into(),
            primary_after: "n2".into(),
            outage: Duration::from_micros(123_400),
            overlap,
            rows_acknowledged: 500,
            rows_lost,
        }
    }

    fn report(findings: Vec<Finding>) -> Report {
        Report { planned: findings.len(), findings, ..Report::new() }
    }

    #[test]
    fn only_a_lost_node_may_take_rows_along() {
        assert!(report(vec![finding(Fault::KillNode, None, 3), finding(Fault::Switchover, None, 0)]).holds());
        assert!(!report(vec![finding(Fault::Switchover, None, 1)]).holds());
        assert!(!report(vec![finding(Fault::KillPostmaster, None, 1)]).holds());
    }

    #[test]
    fn no_overlap_is_small_enough() {
        let broken = report(vec![finding(Fault::FreezeAgent, Some(Duration::ZERO), 0)]);
        assert!(!broken.holds());
        assert_eq!(broken.to_json(None)["faults"][0]["overlap_ms"], 1);
        assert!(broken.lines().concat().contains("BROKEN"));
    }

    #[test]
    fn a_tour_that_did_not_end_proves_nothing() {
        assert!(!Report::new().holds());
        let half = Report { planned: 2, ..report(vec![finding(Fault::Switchover, None, 0)]) };
        assert!(!half.holds());
        let whole = report(vec![finding(Fault::Switchover, None, 0)]);
        assert_eq!(whole.to_json(Some("interrupted"))["holds"], false);
    }

    #[test]
    fn the_table_has_a_row_a_fault() {
        let lines = report(vec![finding(Fault::KillNode, None, 2)]).lines();
        assert_eq!(lines[2], "  kill the whole node                         124           0          2  *");
    }
}
