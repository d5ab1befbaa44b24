//! The exhaustive search of every test run: everything that one fault can do to two agents and a store, and a bounded
//! part of what two can; and planted bugs, to see that it would find them.

use matriarch_sim::exhaustive::{Fault, From, Options, search};
use matriarch_sim::mutant::Mutant;
use matriarch_sim::run::quiet_assertions;

fn nothing_is_broken(options: &Options) -> matriarch_sim::exhaustive::Report {
    let report = search(options, &mut |_| {});
    if let Some(story) = &report.broken {
        panic!("{story}");
    }
    report
}

#[test]
fn the_usual_course_comes_back_to_where_it_was() {
    quiet_assertions();
    for from in [From::Settled, From::Empty] {
        let report = nothing_is_broken(&Options { from, faults: 0, ..Options::default() });
        assert!(report.closed && report.states > 10, "{report:?}");
    }
}

#[test]
fn no_single_fault_breaks_anything() {
    quiet_assertions();
    let report = nothing_is_broken(&Options::default());
    assert!(report.closed && report.states > 100_000, "{} states", report.states);
    // A search in which nothing happens proves nothing.
    let met = |rung, code| report.decisions.contains_key(&(rung, code));
    for (rung, code) in [
        ("fence", "key_vanished"),
        ("fence", "orphans_alive"),
        ("leader", "promoting"),
        ("leader", "restart_in_place"),
        ("switchover", "handing_over"),
    ] {
        assert!(met(rung, code), "{rung}/{code} was not met: {:?}", report.decisions.keys());
    }
    assert!(report.served.iter().all(|states| *states > 1000), "{:?}", report.served);
}

/// How many faults each takes, of which kinds (all if none is named), and which invariant finds it.
#[test]
fn planted_bugs_are_found() {
    quiet_assertions();
    let planted: [(Mutant, u8, &[Fault], &str); 7] = [
        (Mutant::GuardNeverFires, 1, &[], "S7"),
        (Mutant::GuardLate, 1, &[], "S7"),
        (Mutant::GuardAcknowledgesMore, 1, &[], "crash"),
        (Mutant::TtlAsAsked, 0, &[], "S30"),
        (Mutant::UnknownIsDone, 1, &[], "S30"),
        (Mutant::ReleasedAlive, 1, &[], "S7"),
        // The swarm needs hundreds of seeds for it: an agent frozen between an order and the fork, for longer than its tenure.
        (Mutant::StartsLate, 2, &[Fault::KillPostmaster, Fault::FreezeAgent], "S8"),
    ];
    for (mutant, faults, only, invariant) in planted {
        let only = if only.is_empty() { Fault::ALL.to_vec() } else { only.to_vec() };
        let options = Options { faults, only, within: 20, mutant: Some(mutant), ..Options::default() };
        let story = search(&options, &mut |_| {}).broken.unwrap_or_else(|| panic!("{mutant:?} was not found"));
        assert_eq!(story.broken.invariant, invariant, "{mutant:?}\n{story}");
        assert!(story.faults <= usize::from(faults), "{story}");
    }
}
