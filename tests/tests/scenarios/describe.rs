//! Orders in words. What an agent does all the time is left out: what remains is the story.

use matriarch_core::action::{Action, GuardAction};

/// An order in words; `None`: routine.
pub(crate) fn describe(action: &Action) -> Option<String> {
    match action {
        Action::Guard(GuardAction::Arm { tenure, at }) => {
            Some(format!("guard: stop PostgreSQL at {} (tenure {tenure})", time(at.0)))
        }
        action => (!action.is_routine()).then(|| action.to_string()),
    }
}

/// The time of the script, in seconds.
pub(crate) fn time(nanos: u64) -> String {
    format!("{:.3}s", (nanos - crate::world::BEGIN.0) as f64 / 1e9)
}
