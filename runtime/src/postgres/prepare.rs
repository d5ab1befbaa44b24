//! What a start needs: that it may begin, and the files that it reads.

use std::sync::Arc;

use matriarch_core::op::Refusal;
use matriarch_core::view::postgres::DataDir;

use super::allowance::Allowance;
use super::conf::{self, Recovery};
use super::settings::{LocalConnection, Settings};
use super::{bootstrap, control_data, files, maxima, proc, timeline_numbers, workdir};

/// Whether a start may begin. `standby` `None`: as what the directory is, which whoever ordered it may have known
/// wrongly.
pub(super) fn check(settings: &Settings, standby: Option<bool>, allowance: &Allowance) -> Result<(), Refusal> {
    if standby.unwrap_or_else(|| is_standby(settings)) { allowance.check() } else { allowance.check_writable() }
}

/// What the directory is.
pub(super) fn is_standby(settings: &Settings) -> bool {
    settings.data_dir.join("standby.signal").exists()
}

/// The settings to run with on this directory as a standby, or as a primary. What cannot be read raises nothing: a reload
/// need not fail for it, and a start has read it before.
pub(super) fn for_role(settings: &Arc<Settings>, standby: bool) -> Arc<Settings> {
    let control = standby.then(|| control_data::read(&settings.data_dir).ok().flatten()).flatten();
    control.map_or_else(|| Arc::clone(settings), |control| maxima::raised(settings, &control))
}

/// Writes what a start needs; the settings to start with.
pub(super) fn prepare_start(
    settings: &Arc<Settings>,
    recovery: &Recovery,
    standby: Option<bool>,
) -> Result<Arc<Settings>, String> {
    match files::observe(&settings.data_dir, settings.run_as.as_ref()) {
        DataDir::Cluster(cluster) => {
            if let Some(why) = cluster.tainted {
                let shown = settings.data_dir.display();
                return Err(format!("{shown} is half-done ({why}): clone it anew"));
            }
        }
        DataDir::Unreadable(why) | DataDir::Foreign(why) => return Err(why),
        DataDir::Empty | DataDir::Unknown => {
            return Err(format!("{} holds no cluster: clone or initialize it first", settings.data_dir.display()));
        }
    }
    workdir::refuse_if_alive(settings)?;
    clear_left_out(settings)?;
    files::check_startable(&settings.data_dir, settings.run_as.as_ref())?;
    for directory in settings.parameters.get("unix_socket_directories").iter().flat_map(|d| d.split(',')).map(str::trim)
    {
        if directory.starts_with('/') {
            files::make_dir(directory.as_ref(), 0o755, settings.run_as.as_ref())
                .map_err(|e| format!("{directory} (unix_socket_directories) cannot be made: {e}"))?;
            proc::clear_socket_lock(directory.as_ref(), settings.port, &settings.data_dir);
        }
    }
    if let LocalConnection::Socket(directory) = &settings.local {
        proc::clear_socket_lock(directory, settings.port, &settings.data_dir);
    }
    let settings = for_role(settings, standby.unwrap_or_else(|| is_standby(settings)));
    let (settings, recovery) = bootstrap::first_start(&settings, recovery).unwrap_or((settings, recovery.clone()));
    conf::write_all(&settings, known_major(&settings)?, &recovery)?;
    if let Some(standby) = standby.filter(|_| recovery != Recovery::Bootstrap) {
        conf::write_signal(&settings, standby)?;
    }
    Ok(settings)
}

/// Before a start, or another upstream: what a promotion that did not come to pass left among the history files.
pub(super) fn clear_left_out(settings: &Settings) -> Result<(), String> {
    let Some(control) = control_data::read(&settings.data_dir)? else { return Ok(()) };
    timeline_numbers::clear(&settings.data_dir, control.timeline())
        .map_err(|e| format!("{}/pg_wal: {e}", settings.data_dir.display()))
}

pub(super) fn known_major(settings: &Settings) -> Result<u32, String> {
    let shown = settings.data_dir.display();
    match files::major_version(&settings.data_dir) {
        Some(old @ ..13) => {
            Err(format!("{shown} is of PostgreSQL {old}; supported are 13 to 18: upgrade it with pg_upgrade first"))
        }
        Some(major) => Ok(major),
        None => Err(format!("{shown}/PG_VERSION cannot be read: is this a data directory?")),
    }
}
