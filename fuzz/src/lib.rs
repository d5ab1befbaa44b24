//! What must hold of everything that comes from outside. Each module is a target: a function of bytes that panics if it
//! does not hold, and says what it took them for. `fuzz_targets/` hands them to libFuzzer; `short` runs them all on stable,
//! in every test run (`docs/fuzzing.md`).

pub mod api;
pub mod config;
pub mod control_data;
pub mod dynamic_config;
pub mod guard;
mod input;
pub mod journal;
pub mod mirror;
pub mod monitoring;
pub mod node_files;
pub mod peers;
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

/// A target: its name, and what it does with bytes. The text says what they were taken for: a kept input that is taken for
/// something else than it once was tests nothing any more (`fuzz/kept.txt`).
pub type Target = (&'static str, fn(&[u8]) -> String);

/// All targets.
pub const TARGETS: &[Target] = &[
    ("api", api::target),
    ("config", config::target),
    ("control_data", control_data::target),
    ("dynamic_config", dynamic_config::target),
    ("guard", guard::target),
    ("journal", journal::target),
    ("mirror", mirror::target),
    ("monitoring", monitoring::target),
    ("node_files", node_files::target),
    ("peers", peers::target),
    ("plan", plan::target),
    ("postgres_texts", postgres_texts::target),
    ("recording", recording::target),
    ("step", step::target),
    ("store_values", store_values::target),
    ("timeline_history", timeline_history::target),
    ("times", times::target),
    ("wal_sender", wal_sender::target),
];
