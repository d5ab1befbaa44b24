//! What must hold at every instant, and what a scenario wants to know of the time behind it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::machine::All;
use super::trace::Trace;

/// The most tasks that one agent's runtime may have alive, and the most connections of its host: each lane, watch and
/// peer has a few. What grows with time or with faults gets beyond any number.
const TASKS_MAX: usize = 60;
const CONNECTIONS_MAX: usize = 24;

/// One time of leading, as the leader key tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Tenure {
    /// Who.
    pub(super) leader: String,
    /// The revision that created the key.
    pub(super) epoch: i64,
}

/// What one agent uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Use {
    /// Tasks alive.
    pub(super) tasks: usize,
    /// Connections of its host.
    pub(super) connections: usize,
}

/// The witness.
pub(super) struct Observer {
    trace: Trace,
    tenure: Option<Tenure>,
    /// Every tenure so far.
    pub(super) tenures: Vec<Tenure>,
    written_at: Duration,
    /// The longest time in which nobody could write, since the last mark.
    outage: Duration,
    writer: Option<usize>,
}

impl Observer {
    pub(super) fn new(trace: Trace) -> Self {
        let (tenures, written_at, outage) = (Vec::new(), Duration::ZERO, Duration::ZERO);
        Self { trace, tenure: None, tenures, written_at, outage, writer: None }
    }

    /// Looks at everything at one instant.
    pub(super) fn look(&mut self, now: Duration, all: &All, tenure: Option<Tenure>) {
        let writable = |node: &usize| all.nodes[*node].server.can_acknowledge();
        let writers: Vec<usize> = (0..all.nodes.len()).filter(writable).collect();
        assert!(writers.len() <= 1, "{now:?}: nodes {writers:?} acknowledge writes at one instant");
        if let Some(writer) = writers.first() {
            let guarded = all.nodes[*writer].guard.as_ref().is_some_and(|guard| guard.armed().is_some());
            assert!(guarded, "{now:?}: node {writer} writes, and no guard would end it");
            (self.outage, self.written_at) = (self.outage.max(now.saturating_sub(self.written_at)), now);
        }
        if self.writer != writers.first().copied() {
            self.writer = writers.first().copied();
            self.trace.note(format!("{:>9.3} observer  writable: {writers:?}", now.as_secs_f64()));
        }
        if tenure != self.tenure {
            self.trace.note(format!("{:>9.3} observer  leader key: {tenure:?}", now.as_secs_f64()));
            self.tenures.extend(tenure.clone());
            self.tenure = tenure;
        }
    }

    /// The longest outage since the last mark, up to `now`; from here on another is looked for.
    pub(super) fn outage(&mut self, now: Duration) -> Duration {
        let outage = self.outage.max(now.saturating_sub(self.written_at));
        (self.outage, self.written_at) = (Duration::ZERO, now);
        outage
    }
}

/// Nothing grows.
pub(super) fn check_use(uses: &BTreeMap<String, Use>) {
    for (agent, Use { tasks, connections }) in uses {
        assert!(*tasks <= TASKS_MAX, "{agent}: {tasks} tasks are alive");
        assert!(*connections <= CONNECTIONS_MAX, "{agent}: {connections} connections are open");
    }
}
