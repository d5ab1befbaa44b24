//! What must hold of everything that comes from outside. Each module is a target: a function of bytes that panics if it
//! does not hold. `fuzz_targets/` hands them to libFuzzer; `short` runs them all on stable, in every test run
//! (`docs/fuzzing.md`).

pub mod api;
pub mod config;
pub mod control_data;
pub mod dynamic_config;
pub mod guard;
mod input;
pub mod journal;
pub mod mirror;
pub mod plan;
pub mod postgres_texts;
pub mod recording;
/// What must hold of every step: core's own, whose tests share it.
#[path = "../../core/src/tests/safety.rs"]
mod safety;
#[cfg(test)]
mod short;
pub mod step;
pub mod store_values;
pub mod timeline_history;
pub mod times;
pub mod wal_sender;

// Where `safety` expects them.
use matriarch_core::{action, decide, effects, lease, reason, slot_name, state, time, view};

/// A target: its name, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("api", api::target),
    ("config", config::target),
    ("control_data", control_data::target),
    ("dynamic_config", dynamic_config::target),
    ("guard", guard::target),
    ("journal", journal::target),
    ("mirror", mirror::target),
    ("plan", plan::target),
    ("postgres_texts", postgres_texts::target),
    ("recording", recording::target),
    ("step", step::target),
    ("store_values", store_values::target),
    ("timeline_history", timeline_history::target),
    ("times", times::target),
    ("wal_sender", wal_sender::target),
];
