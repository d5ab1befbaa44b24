//! Cutting a plan down to what matters: fewer faults, shorter, at plain times, in a simpler world, as long as the same
//! invariant breaks. (Delta debugging: Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002.)

use crate::fault::{Fault, Plan, When};
use crate::mutant::Mutant;
use crate::run::run;
use crate::settings::Settings;
use crate::trace::Trace;

/// The most runs that are spent on it.
const RUNS_MAX: u32 = 2000;

/// Cuts a plan down; the plan itself, if it breaks nothing. `progress` is told of every smaller one.
pub fn shrink(plan: &Plan, mutant: Option<Mutant>, progress: &mut dyn FnMut(&Plan)) -> Plan {
    let Some(invariant) = broken(plan, mutant) else { return plan.clone() };
    let mut shrinking = Shrinking { best: plan.clone(), invariant, mutant, runs: 0, progress };
    shrinking.best.broke = Some(invariant.to_owned());
    loop {
        let before = shrinking.best.clone();
        shrinking.fewer_faults();
        shrinking.plainer_faults();
        shrinking.simpler_world();
        if shrinking.best == before || shrinking.runs >= RUNS_MAX {
            return shrinking.best;
        }
    }
}

fn broken(plan: &Plan, mutant: Option<Mutant>) -> Option<&'static str> {
    run(plan.clone(), mutant, Trace::hash_only()).violation.map(|violation| violation.invariant)
}

struct Shrinking<'a> {
    best: Plan,
    invariant: &'static str,
    mutant: Option<Mutant>,
    runs: u32,
    progress: &'a mut dyn FnMut(&Plan),
}

impl Shrinking<'_> {
    /// Takes the plan if it breaks the same.
    fn try_out(&mut self, plan: Plan) -> bool {
        if self.runs >= RUNS_MAX || plan == self.best {
            return false;
        }
        self.runs += 1;
        if broken(&plan, self.mutant) != Some(self.invariant) {
            return false;
        }
        (self.progress)(&plan);
        self.best = plan;
        true
    }

    /// Without ever smaller groups of faults.
    fn fewer_faults(&mut self) {
        let mut size = self.best.faults.len();
        while size > 0 {
            let mut from = 0;
            while from < self.best.faults.len() {
                let to = (from + size).min(self.best.faults.len());
                let mut without = self.best.clone();
                without.faults.drain(from..to);
                if !self.try_out(without) {
                    from += size;
                }
            }
            size /= 2;
        }
    }

    /// Each fault shorter, and at a time instead of with an order.
    fn plainer_faults(&mut self) {
        for index in 0..self.best.faults.len() {
            for for_ms in [0, 100, 1000, 10_000] {
                let shorter = |fault: &mut Fault| fault.for_ms = for_ms.min(fault.for_ms);
                if self.with(index, shorter) {
                    break;
                }
            }
            let times = match &self.best.faults[index].when {
                When::Order { after_ms, or_at_ms, .. } => [Some(*after_ms), *or_at_ms],
                When::AtMs(_) => continue,
            };
            times.into_iter().flatten().any(|at_ms| self.with(index, |fault| fault.when = When::AtMs(at_ms)));
        }
    }

    fn with(&mut self, index: usize, change: impl Fn(&mut Fault)) -> bool {
        let mut plan = self.best.clone();
        change(&mut plan.faults[index]);
        self.try_out(plan)
    }

    /// Two nodes rather than five, one member of the store, defaults everywhere, a shorter run.
    fn simpler_world(&mut self) {
        let usual = Settings::usual();
        let changes: [&dyn Fn(&mut Settings); 12] = [
            &|world| world.nodes = world.nodes.min(2),
            &|world| world.nodes = world.nodes.min(3),
            &|world| world.store_members = 1,
            &|world| world.clock_ppm = 0,
            &|world| world.delay_us = usual.delay_us,
            &|world| world.nofailover = None,
            &|world| {
                (world.nostream, world.clonefrom) = (None, None);
                (world.replicatefrom, world.failover_priority) = (None, None);
            },
            &|world| world.maximum_lag_bytes = usual.maximum_lag_bytes,
            &|world| world.primary_start_timeout_ms = usual.primary_start_timeout_ms,
            &|world| world.commit_ms = usual.commit_ms,
            &|world| (world.left_out, world.slow_checkpoints) = (None, false),
            &|world| (world.clone_when_diverged, world.clone_when_rewind_fails) = (true, true),
        ];
        for change in changes {
            let mut plan = self.best.clone();
            change(&mut plan.settings);
            self.try_out(plan);
        }
        for share in [4, 2] {
            let mut plan = self.best.clone();
            plan.settings.faults_ms = plan.settings.faults_ms / share * (share - 1);
            self.try_out(plan);
        }
    }
}
