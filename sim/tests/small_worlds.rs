//! The safety invariants over small worlds and any list of faults: a minute of two or three nodes at the shortest
//! timings. What breaks is cut down by the strategy itself to the fewest, shortest, earliest faults; the swarm draws
//! larger worlds and longer plans, and has a shrinker of its own.

use std::cell::Cell;

use matriarch_sim::fault::{Fault, Phase, Plan, What, When, Where};
use matriarch_sim::mutant::Mutant;
use matriarch_sim::run::{quiet_assertions, run_for_safety};
use matriarch_sim::settings::Settings;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

/// The cluster is born and serves by then.
const BORN_MS: u64 = 12_000;
const FAULTS_MS: u64 = 45_000;
const CASES: u32 = 600;

fn settings(nodes: usize) -> Settings {
    Settings {
        nodes,
        ttl_ms: 3000,
        loop_wait_ms: 1000,
        retry_timeout_ms: 1000,
        clock_ppm: 0,
        faults_ms: FAULTS_MS,
        calm_ms: 30_000,
        ..Settings::usual()
    }
}

fn anywhere() -> impl Strategy<Value = Where> {
    prop_oneof![Just(Where::Leader), Just(Where::Orderer), (0..3_usize).prop_map(Where::Node)]
}

/// Orders at which agents are caught half-way.
const EDGES: [&str; 8] =
    ["promote", "acquire", "release", "write_epoch", "start_primary", "start_standby", "hold", "rewind"];

/// At a time, or at an order, and at a time where none comes.
fn moment() -> impl Strategy<Value = When> {
    let order = (prop::sample::select(&EDGES[..]), BORN_MS..FAULTS_MS, 0..4_usize).prop_map(|(kind, at, phase)| {
        let phase = [Phase::Before, Phase::After, Phase::Applied, Phase::Ended][phase];
        When::Order { kind: kind.to_owned(), after_ms: at, nth: 1, phase, or_at_ms: Some(at + 5000) }
    });
    prop_oneof![2 => (BORN_MS..FAULTS_MS).prop_map(When::AtMs), 1 => order]
}

/// A kind of fault, for a place.
type Kind = fn(Where) -> What;

/// What may meet in one plan. The pairs of `docs/time.md` that nothing covers are left out: a key that goes early beside
/// a holder that cannot hear of it, a dead guard beside a dead or frozen agent.
fn kinds() -> [Vec<Kind>; 3] {
    let always: [Kind; 8] = [
        |at| What::KillPostmaster(at, 1),
        What::KillPostgres,
        What::KillBackend,
        What::Switchover,
        What::Restart,
        What::RemoveData,
        What::Reinitialize,
        What::FreezePostgres,
    ];
    let with = |more: &[Kind]| always.iter().chain(more).copied().collect();
    [
        with(&[
            What::KillAgent,
            What::FreezeAgent,
            What::StopAgent,
            What::CrashHost,
            What::TearFiles,
            What::Isolate,
            What::CutStore,
            What::CutReplication,
            What::CutToAgents,
            What::CutClients,
            |_| What::LossyNetwork(30),
        ]),
        with(&[What::KillGuard, What::Isolate, What::CutToStore, What::CutFromStore, What::SilenceWatches]),
        with(&[|_| What::LoseKey, |_| What::LoseLease, What::SilenceWatches]),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    let faults = prop::sample::select(&[0_usize, 1, 2][..]).prop_flat_map(|which| {
        let kind = prop::sample::select(kinds()[which].clone());
        let fault = (kind, anywhere(), moment(), 20..10_000_u64);
        let fault = fault.prop_map(|(what, at, when, for_ms)| Fault { when, what: what(at), for_ms });
        prop::collection::vec(fault, 0..6)
    });
    (2..4_usize, prop::sample::select(&[1, 1, 3][..]), faults, 1..1000_u64).prop_map(
        |(nodes, store_members, faults, seed)| {
            let settings = Settings { store_members, ..settings(nodes) };
            Plan { faults, ..Plan::calm(seed, settings) }
        },
    )
}

/// The same cases in every run; others with another `MATRIARCH_SIM_FIRST`.
fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 4000, ..Config::default() };
    let first: Option<u64> = std::env::var("MATRIARCH_SIM_FIRST").ok().and_then(|first| first.parse().ok());
    let random = first.map_or_else(
        || TestRng::deterministic_rng(RngAlgorithm::ChaCha),
        |first| {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&first.to_le_bytes());
            TestRng::from_seed(RngAlgorithm::ChaCha, &seed)
        },
    );
    TestRunner::new_with_rng(config, random)
}

/// What must never happen does not, and no assertion fails. What must happen in time is the swarm's to judge, which knows
/// longer calm. How many commits were acknowledged.
fn holds(plan: &Plan, mutant: Option<Mutant>) -> Result<u64, TestCaseError> {
    let ran = run_for_safety(plan.clone(), mutant);
    match ran.violation {
        Some(violation) => {
            Err(TestCaseError::fail(format!("{} at {}: {}", violation.invariant, violation.at, violation.what)))
        }
        None => Ok(ran.acknowledged.0),
    }
}

#[test]
fn no_list_of_faults_breaks_what_must_hold_in_a_small_world() {
    quiet_assertions();
    let acknowledged = Cell::new(0);
    let each = |plan| holds(&plan, None).map(|commits| acknowledged.set(acknowledged.get() + commits));
    if let Err(TestError::Fail(why, plan)) = runner(CASES).run(&plan(), each) {
        panic!("{why}\n{plan:#?}");
    }
    assert!(acknowledged.get() > 10 * u64::from(CASES), "{} commits are no service", acknowledged.get());
}

/// For each headline invariant a bug that breaks it, or what comes before it: a single writer (S7, before two can write, and
/// M2, before something is begun beside who may), a belief in a lease that is true (S30, before it is believed too long), no
/// service without the lock and what belongs to it, nothing acknowledged destroyed, and before that a winner that is behind.
#[test]
fn a_planted_bug_is_found_and_cut_down_to_its_faults() {
    quiet_assertions();
    let planted = [
        (Mutant::GuardNeverFires, "S7", 2, CASES),
        (Mutant::OrphansLive, "M2", 3, CASES),
        (Mutant::ReleasedAlive, "S7", 3, CASES),
        (Mutant::TtlAsAsked, "S30", 0, CASES),
        (Mutant::AcquireUnguarded, "S9", 3, CASES),
        (Mutant::EpochNotOnDisk, "S8", 0, CASES),
        (Mutant::PeersAreBehind, "S12", 3, CASES),
        (Mutant::WipedUnasked, "S16", 3, 5 * CASES),
    ];
    for (mutant, invariant, faults_max, cases) in planted {
        match runner(cases).run(&plan(), |plan| holds(&plan, Some(mutant)).map(|_| ())) {
            Err(TestError::Fail(why, plan)) => {
                let (why, faults) = (why.message().to_owned(), &plan.faults);
                assert!(why.starts_with(&format!("{invariant} at")), "{mutant:?}: {why}");
                assert!(faults.len() <= faults_max, "{mutant:?}: {why}\n{faults:#?}");
            }
            other => panic!("{mutant:?} was not found: {other:?}"),
        }
    }
}
