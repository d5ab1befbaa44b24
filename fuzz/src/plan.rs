//! Fault plans: what a seed would do, at other times, in other places, in parts. The kinds of faults stay those of one
//! seed, since some break an assumption together (`docs/simulator.md`).

use std::sync::Once;

use matriarch_sim::fault::{Fault, Phase, Plan, When, Where};
use matriarch_sim::run::{quiet_assertions, run};
use matriarch_sim::trace::Trace;

use crate::input::Choices;

/// Faults of a plan at most, and how long they go on: a run is to be short.
const FAULTS_MAX: usize = 10;
const FAULTS_MS: u64 = 90_000;

/// The target.
pub fn target(data: &[u8]) -> String {
    static ONCE: Once = Once::new();
    ONCE.call_once(quiet_assertions);
    let plan = plan(&mut Choices(data));
    let ran = run(plan.clone(), None, Trace::hash_only());
    if let Some(violation) = ran.violation {
        let plan = serde_json::to_string(&plan).unwrap_or_default();
        panic!("{} at {:?}: {}\n{plan}", violation.invariant, violation.at, violation.what);
    }
    let faults = if plan.faults.is_empty() { "no faults" } else { "faults" };
    format!("{faults} in a cluster of {}", plan.settings.nodes)
}

fn plan(choices: &mut Choices<'_>) -> Plan {
    let mut plan = Plan::of_seed(u64::from(choices.number()));
    let kinds: Vec<Fault> = std::mem::take(&mut plan.faults);
    plan.settings.faults_ms = FAULTS_MS;
    let mut at = 12_000;
    while plan.faults.len() < FAULTS_MAX && !choices.is_empty() && !kinds.is_empty() {
        let mut fault = choices.pick(&kinds);
        at += u64::from(choices.number()) / 4;
        if at >= FAULTS_MS {
            break;
        }
        match &mut fault.when {
            When::AtMs(when) => *when = at,
            When::Order { after_ms, nth, phase, or_at_ms, .. } => {
                *or_at_ms = or_at_ms.map(|or_at| or_at.saturating_sub(*after_ms) + at);
                *after_ms = at;
                *nth = choices.pick(&[1, 1, 2, 3]);
                *phase = choices.pick(&[Phase::Before, Phase::After, Phase::Applied, Phase::Ended]);
            }
        }
        if choices.one_in(2) {
            fault.for_ms = 5 << choices.below(14);
        }
        let node = Where::Node(choices.below(plan.settings.nodes));
        if choices.one_in(3)
            && let Some(place) = fault.what.place_mut()
        {
            *place = node;
        }
        plan.faults.push(fault);
    }
    plan
}
