//! One run of a plan, from its first event to what came of it.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::check::Violation;
use crate::coverage::Coverage;
use crate::fault::Plan;
use crate::mutant::Mutant;
use crate::time::Time;
use crate::trace::Trace;
use crate::world::World;

/// What kind of failure it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// Something must happen, and did not.
    Liveness,
    /// Something must never happen, and did.
    Safety,
    /// An assertion failed: core's, or the world's.
    Crash,
}

impl Class {
    /// The exit code that tells of it.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Safety => 10,
            Self::Liveness => 11,
            Self::Crash => 12,
        }
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Ran {
    /// What did not hold, if anything.
    pub violation: Option<Violation>,
    /// What was seen to happen.
    pub coverage: Coverage,
    /// Steps of core.
    pub steps: u64,
    /// Things that happened in the world.
    pub events: u64,
    /// Seconds of the world's time.
    pub seconds: u64,
    /// When it ended: at the first violation, or as planned.
    pub ended: Time,
    /// Commits that were acknowledged, and how many of them the last primary does not hold.
    pub acknowledged: (u64, u64),
    /// The longest time in which nobody served, in milliseconds.
    pub outage_ms: u64,
    /// The hash of everything that was ordered.
    pub hash: u64,
    /// What happened.
    pub trace: Trace,
}

/// The invariant that a crash is told as.
pub const CRASH: &str = "crash";

impl Violation {
    /// What kind it is.
    pub fn class(&self) -> Class {
        match self.invariant {
            CRASH => Class::Crash,
            liveness if liveness.starts_with('L') => Class::Liveness,
            _ => Class::Safety,
        }
    }
}

/// As [`run`], where only what must never happen counts: what must happen in time ends nothing.
pub fn run_for_safety(plan: Plan, mutant: Option<Mutant>) -> Ran {
    let mut world = World::new(plan, mutant, Trace::hash_only());
    world.safety_alone = true;
    to_its_end(world)
}

/// Runs a plan. A failed assertion is a violation like any other.
pub fn run(plan: Plan, mutant: Option<Mutant>, trace: Trace) -> Ran {
    to_its_end(World::new(plan, mutant, trace))
}

fn to_its_end(mut world: World) -> Ran {
    if let Err(what) = caught(|| world.run()) {
        world.violation = Some(Violation { invariant: CRASH, at: world.now, what });
    }
    world.look_back();
    ran(world)
}

/// Does something; `Err`: an assertion failed, in these words.
pub fn caught<T>(what: impl FnOnce() -> T) -> Result<T, String> {
    RUNNING.set(true);
    let ended = catch_unwind(AssertUnwindSafe(what));
    RUNNING.set(false);
    ended.map_err(|_| LAST_PANIC.take())
}

/// Runs a plan up to an instant, and leaves the world as it is then.
pub fn run_until(plan: Plan, mutant: Option<Mutant>, until: Time) -> World {
    let mut world = World::new(plan, mutant, Trace::hash_only());
    world.run_until(until);
    world
}

fn ran(world: World) -> Ran {
    let (lost, acknowledged) = world.lost();
    Ran {
        steps: world.steps,
        events: world.events,
        seconds: world.now.ms() / 1000,
        ended: world.now,
        acknowledged: (acknowledged, lost),
        outage_ms: world.longest_outage().as_millis() as u64,
        hash: world.trace.hash(),
        violation: world.violation,
        coverage: world.coverage,
        trace: world.trace,
    }
}

thread_local! {
    /// A run is under way on this thread: what fails is told by it.
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Has assertions that fail in a run told by that run, not on standard error.
pub fn quiet_assertions() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if RUNNING.get() {
                LAST_PANIC.set(info.to_string());
            } else {
                usual(info);
            }
        }));
    });
}
