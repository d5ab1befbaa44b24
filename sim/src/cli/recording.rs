//! Replaying what an agent's flight recorder wrote: the same step, event by event, and every digest the same.

use std::fs;
use std::path::Path;

use matriarch_core::record::MAGIC;
use matriarch_sim::replay::{ReplayError, Replayed, replay_with};
use matriarch_sim::run::Class;

/// The file is a recording.
pub(super) fn is_one(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// Replays one file and tells of it: what did not hold in it or does not agree with it, if anything.
///
/// # Errors
/// It cannot be read.
pub(super) fn replay(file: &Path, bytes: &[u8], trace: bool) -> Result<Option<Class>, String> {
    let shown = file.display();
    let replayed = replay_with(bytes, |step| {
        if trace {
            print!("{}", line(step));
        }
    });
    match replayed {
        Ok(summary) => {
            let span = summary
                .span
                .map_or_else(String::new, |(first, last)| format!(" over {} s", last.since(first).as_secs()));
            println!("{shown}: {} steps{span}, every digest agrees (build {})", summary.steps, summary.build);
            if summary.lost > 0 {
                println!("  {} steps were lost while it was recorded", summary.lost);
            }
            if summary.torn_bytes > 0 {
                println!("  the last record is cut off ({} bytes)", summary.torn_bytes);
            }
            if let Some(fatal) = &summary.fatal {
                println!("  the last step never returned: {fatal}");
            }
            Ok(summary.fatal.map(|_| Class::Crash))
        }
        // What another build wrote says nothing of this one.
        Err(error @ (ReplayError::Unreadable(_) | ReplayError::OtherBuild { .. })) => Err(format!("{shown}: {error}")),
        Err(error) => {
            println!("{shown}: {error}");
            Ok(Some(if matches!(error, ReplayError::Panicked { .. }) { Class::Crash } else { Class::Safety }))
        }
    }
}

/// A decision that changed, and every order.
fn line(step: &Replayed<'_>) -> String {
    let mut text = String::new();
    if let Some(decision) = &step.effects.decision {
        let (rung, code) = (decision.rung.name(), decision.reason.code());
        text.push_str(&format!("{}  : {rung}/{code}: {}\n", step.at, decision.reason));
    }
    for order in &step.effects.orders {
        text.push_str(&format!("{}  > {:?}  ({})\n", step.at, order.action, order.because.code()));
    }
    text
}

/// Reads a file.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))
}
