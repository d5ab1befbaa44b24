//! What the metrics count. The loop counts; the REST API tells.

use std::collections::BTreeMap;
use std::time::Duration;

use matriarch_core::effects::Decision;
use matriarch_core::event::{Event, StoreEvent};
use matriarch_core::lease::Held;
use matriarch_core::reason::Reason;
use matriarch_core::state::State;
use matriarch_core::time::Instant;
use matriarch_core::view::View;

/// Counted since the agent has started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counts {
    /// How long core took for a step.
    pub steps: Histogram,
    /// How long the store took for an operation, from the order to its end, however that was.
    pub store: Histogram,
    /// How much was left of the tenure each time that a renewal was proven: what could have gone wrong still.
    pub slack: Histogram,
    /// Decisions that differed from the one before, by their code.
    pub decisions: BTreeMap<&'static str, u64>,
    /// Tenures that this node has won.
    pub tenures_won: u64,
    /// Tenures that ended while the agent ran, by the code of the decision that led to it.
    pub tenures_ended: BTreeMap<&'static str, u64>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            steps: Histogram::new(&[100, 1_000, 10_000, 100_000, 1_000_000]),
            store: Histogram::new(&[1_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000]),
            slack: Histogram::new(&[100_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000]),
            decisions: BTreeMap::new(),
            tenures_won: 0,
            tenures_ended: BTreeMap::new(),
        }
    }
}

/// What a step is compared with afterwards.
pub(super) struct Before {
    held: Option<Held>,
    left: Duration,
    /// The code of the decision in force, unless that is that all is well.
    led: Option<&'static str>,
    /// How long the operation of the store has taken that has just ended.
    store_took: Option<Duration>,
}

impl Before {
    /// Before the step that takes `event` in.
    pub(super) fn of(state: &State, at: Instant, event: &Event) -> Self {
        let ended = match event {
            Event::Store(StoreEvent::Completed { op, .. }) => Some(*op),
            _ => None,
        };
        let in_flight = ended.and_then(|op| state.ops.iter().find(|(_, in_flight)| in_flight.op == op));
        Self {
            held: state.tenure.held().copied(),
            left: View { at, state }.authority_left(),
            led: code(state.decision.as_ref().filter(|decision| !matches!(decision.reason, Reason::TenureHeld { .. }))),
            store_took: in_flight.map(|(_, in_flight)| at.since(in_flight.since)),
        }
    }
}

impl Counts {
    /// A step is done, and took so long.
    pub(super) fn stepped(&mut self, before: &Before, state: &State, decided: Option<&Decision>, took: Duration) {
        self.steps.add(took);
        if let Some(took) = before.store_took {
            self.store.add(took);
        }
        if let Some(code) = code(decided) {
            *self.decisions.entry(code).or_default() += 1;
        }
        let now = state.tenure.held();
        match (&before.held, now) {
            (Some(then), Some(now)) if then.lease == now.lease => {
                if now.confirmed > then.confirmed {
                    self.slack.add(before.left);
                }
            }
            (None, Some(_)) => self.tenures_won += 1,
            (Some(_), _) => {
                let led = before.led.or_else(|| code(state.decision.as_ref()));
                *self.tenures_ended.entry(led.unwrap_or("none")).or_default() += 1;
            }
            (None, None) => {}
        }
    }
}

fn code(decision: Option<&Decision>) -> Option<&'static str> {
    decision.map(|decision| decision.reason.code())
}

/// Durations, counted by how long they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Histogram {
    bounds_us: &'static [u64],
    /// One for each bound, and one for what is longer.
    counts: Vec<u64>,
    sum: Duration,
}

impl Histogram {
    fn new(bounds_us: &'static [u64]) -> Self {
        debug_assert!(bounds_us.is_sorted());
        Self { bounds_us, counts: vec![0; bounds_us.len() + 1], sum: Duration::ZERO }
    }

    fn add(&mut self, duration: Duration) {
        let place = self.bounds_us.partition_point(|bound| Duration::from_micros(*bound) < duration);
        self.counts[place] += 1;
        self.sum += duration;
    }

    /// Each bound with how many were not longer.
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> {
        let mut so_far = 0;
        self.bounds_us.iter().zip(&self.counts).map(move |(bound, count)| {
            so_far += count;
            (Duration::from_micros(*bound), so_far)
        })
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long they were together.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use matriarch_core::decide::Rung;
    use matriarch_core::id::{Member, Revision};
    use matriarch_core::lease::Tenure;
    use matriarch_core::time::WallMillis;

    use super::*;
    use crate::api::tests::node::leading;

    #[test]
    fn a_tenure_is_counted_when_it_is_won_renewed_and_ended() {
        let mut counts = Counts::default();
        let serving = leading(Duration::from_secs(9)).core;
        let at = serving.guard.armed.expect("the guard is armed").at.back(Duration::from_secs(3));
        let mut without = serving.clone();
        without.tenure = Tenure::None;
        let mut step = |before: &State, after: &State| {
            let before = Before::of(before, at, &Event::Ticked(WallMillis(0)));
            counts.stepped(&before, after, after.decision.as_ref(), Duration::from_millis(2));
        };
        step(&without, &serving);
        let mut renewed = serving.clone();
        if let Tenure::Held(held) = &mut renewed.tenure {
            held.confirmed = held.confirmed + Duration::from_secs(1);
        }
        step(&serving, &serving);
        step(&serving, &renewed);
        let reason = Reason::LeaderIsOther { who: Member::new("n2"), revision: Revision(9) };
        without.decision = Some(Decision { rung: Rung::Fence, reason });
        renewed.decision = Some(Decision { rung: Rung::Leader, reason: Reason::TenureHeld { left_ms: 1 } });
        step(&renewed, &without);
        assert_eq!((counts.tenures_won, counts.steps.count()), (1, 4));
        assert_eq!((counts.slack.count(), counts.slack.sum()), (1, Duration::from_secs(3)));
        assert_eq!(counts.tenures_ended, BTreeMap::from([("leader_is_other", 1)]));
        assert_eq!(counts.decisions, BTreeMap::from([("leader_is_other", 1)]));
    }

    #[test]
    fn a_duration_counts_where_it_is_not_longer() {
        let mut histogram = Histogram::new(&[1_000, 5_000]);
        for us in [0, 1_000, 1_001, 5_000, 5_001] {
            histogram.add(Duration::from_micros(us));
        }
        let counted: Vec<u64> = histogram.cumulative().map(|(_, count)| count).collect();
        assert_eq!((counted.as_slice(), histogram.count()), (&[2, 4][..], 5));
        assert_eq!(histogram.sum(), Duration::from_micros(12_002));
    }
}
