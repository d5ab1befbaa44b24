//! What a standby may not go below.
//!
//! The race: the cluster's `max_connections` is lowered and every node is restarted. A standby must be able to hold what
//! a primary with the old value did, finds that value in `pg_control`, and refuses to start with less; nor does it ever
//! learn of the new value, which only a primary that runs with it writes into the WAL. So a standby starts with what
//! `pg_control` says if that is more. The price: it is told of a restart that waits until the primary has been
//! restarted, and then itself.

use std::sync::Arc;

use super::control_data::ControlData;
use super::settings::Settings;

/// The column of the monitoring query that has the values in force, in the order of [`NAMES`].
pub(super) const COLUMN: &str = "maxima";

/// In the order of [`ControlData::maxima`].
const NAMES: [&str; 5] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];

/// The settings to run a standby with on a directory that says `control`.
pub(super) fn raised(settings: &Arc<Settings>, control: &ControlData) -> Arc<Settings> {
    let mut raised = Arc::clone(settings);
    for (name, least) in NAMES.into_iter().zip(control.maxima) {
        let Some(wanted) = wanted(settings, name).filter(|wanted| *wanted < least) else { continue };
        tracing::info!("{name}={wanted} is too little for a standby here: {least} is used, as the primary had");
        let raised = Arc::make_mut(&mut raised);
        if let Some(value) = raised.parameters.get_mut(name) {
            *value = least.to_string();
        }
        for (_, value) in raised.command_line.iter_mut().filter(|(given, _)| given == name) {
            *value = least.to_string();
        }
    }
    raised
}

/// What waits for a restart since more is in force than is wanted. The server knows nothing of it: it was started so.
pub(super) fn pending(settings: &Settings, running: &str, pending: &mut Vec<(String, String, String)>) {
    for (name, running) in NAMES.into_iter().zip(running.split(',')) {
        let (Some(wanted), Ok(runs)) = (wanted(settings, name), running.parse::<i32>()) else { continue };
        if runs > wanted && !pending.iter().any(|(known, _, _)| known == name) {
            pending.push((name.to_owned(), runs.to_string(), wanted.to_string()));
        }
    }
}

/// The server runs with less than `least`, which the primary has as [`ControlData::maxima`] says. From 14 on a standby
/// pauses its replay then, and never goes on; before, it stopped.
pub(super) fn outgrown(running: &str, least: [i32; 5]) -> bool {
    let running = running.split(',').map(str::parse::<i32>);
    running.zip(least).any(|(running, least)| running.is_ok_and(|running| running < least))
}

/// What the configuration says; the command line wins over the file.
fn wanted(settings: &Settings, name: &str) -> Option<i32> {
    let given = settings.command_line.iter().rev().find(|(given, _)| given == name).map(|(_, value)| value);
    given.or_else(|| settings.parameters.get(name))?.parse().ok()
}
