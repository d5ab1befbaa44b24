//! The data directory as files: what is in it, whose it is, what marks it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use matriarch_core::id::Timeline;
use matriarch_core::timeline::History;
use matriarch_core::view::postgres::{Cluster, DataDir};

use super::control_data::{self, ControlData};
use super::settings::RunAs;
use super::timeline_numbers;

/// The marker of a directory whose rewind or clone began and did not end.
pub const TAINT: &str = "matriarch.tainted";

/// The user id that PostgreSQL runs as.
pub fn server_uid(run_as: Option<&RunAs>) -> u32 {
    run_as.map_or_else(|| rustix::process::geteuid().as_raw(), |r| r.uid)
}

/// Looks at a data directory.
pub fn observe(data_dir: &Path, run_as: Option<&RunAs>) -> DataDir {
    let shown = data_dir.display();
    let metadata = match fs::metadata(data_dir) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == ErrorKind::NotFound => return DataDir::Empty,
        Err(e) => return DataDir::Unreadable(format!("{shown}: {e}; {}", access_for_us())),
    };
    if !metadata.is_dir() {
        return DataDir::Unreadable(format!("{shown} is not a directory; correct postgresql.data_dir"));
    }
    // Before emptiness: no tool can work in another's directory, and an empty one is no more ours than a full one.
    if let Some(why) = wrong_owner(data_dir, metadata.uid(), server_uid(run_as)) {
        return DataDir::Unreadable(why);
    }
    let entries = match entries(data_dir) {
        Ok(entries) => entries,
        Err(e) => return DataDir::Unreadable(format!("{shown}: {e}; {}", access_for_us())),
    };
    match control_data::read(data_dir) {
        Err(why) => DataDir::Unreadable(why),
        Ok(Some(control)) => DataDir::Cluster(cluster(data_dir, &control)),
        Ok(None) if entries.is_empty() => DataDir::Empty,
        // pg_control is what a clone receives last: without it the leftovers of one hold nothing.
        Ok(None) if tainted(data_dir).is_some() => DataDir::Empty,
        Ok(None) => DataDir::Foreign(foreign(data_dir, &entries)),
    }
}

/// What is in a directory that is neither empty nor a cluster, and the way out.
fn foreign(data_dir: &Path, entries: &[String]) -> String {
    let shown = data_dir.display();
    let some = entries.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    if entries.iter().any(|name| name == LOST_AND_FOUND) {
        return format!(
            "{shown} is not empty ({some}) and holds no global/pg_control. It is a mount point, which initdb and \
             pg_basebackup refuse: make a directory below it and name that in postgresql.data_dir"
        );
    }
    format!("{shown} is not empty ({some}) and holds no global/pg_control; empty it or correct postgresql.data_dir")
}

/// What is wrong with the owner of a data directory, and the ways out; it may also be the wrong directory.
fn wrong_owner(data_dir: &Path, owner: u32, wanted: u32) -> Option<String> {
    let shown = data_dir.display();
    let (is, to_be) = (account_name(owner), account_name(wanted));
    (owner != wanted).then(|| {
        format!(
            "{shown} belongs to {is} but PostgreSQL runs as {to_be}: correct postgresql.data_dir, or, if the directory is \
             meant, chown -R {to_be} {shown}"
        )
    })
}

/// The name of an account, or its number if it has none.
fn account_name(uid: u32) -> String {
    let found = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
    found.map_or_else(|| uid.to_string(), |user| user.name)
}

fn access_for_us() -> String {
    let us = account_name(rustix::process::geteuid().as_raw());
    format!("give the account of the agent, {us}, access to it and to the directories above")
}

/// What a file system of its own has at its top.
const LOST_AND_FOUND: &str = "lost+found";

/// Not somebody's files, whatever else is hidden: what a server leaves whose sockets were in its data directory, and
/// what was to become a file of ours.
fn is_leftover(name: &str) -> bool {
    name.starts_with(".s.PGSQL.") || (name.starts_with('.') && name.ends_with(TEMPORARY))
}

/// Not a file any more: NFS keeps what was deleted until the last who has it open is gone.
fn is_deleted(name: &str) -> bool {
    let number = name.strip_prefix(".nfs").unwrap_or_default();
    number.len() >= 16 && number.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A socket of a server that lives, whatever it does in this directory; its lock file begins with its process.
fn is_in_use(directory: &Path, name: &str) -> bool {
    let lock = directory.join(format!("{}.lock", name.trim_end_matches(".lock")));
    let pid = fs::read_to_string(lock).ok().and_then(|text| text.lines().next()?.trim().parse::<i32>().ok());
    let program = pid.and_then(|pid| fs::read_to_string(format!("/proc/{}/comm", pid.abs())).ok());
    program.is_some_and(|program| matches!(program.trim_end(), "postgres" | "postmaster"))
}

/// The names in a directory, sorted, hidden ones among them; without leftovers. A missing directory has none.
fn entries(directory: &Path) -> io::Result<Vec<String>> {
    let read = match fs::read_dir(directory) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in read {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !is_leftover(&name) && !is_deleted(&name) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Whether a directory is missing or holds nothing but leftovers.
///
/// # Errors
/// It cannot be listed.
pub fn is_empty(directory: &Path) -> io::Result<bool> {
    entries(directory).map(|names| names.is_empty())
}

/// Removes what is left over, so that the tools find an empty directory.
///
/// # Errors
/// Of the file system. `DirectoryNotEmpty`: something remains, which is named; what a tool would leave behind could not
/// be told from it.
pub fn clear_leftovers(directory: &Path) -> io::Result<()> {
    let (mut gone, mut remain) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let removable = is_leftover(&name) && !is_in_use(directory, &name) && !entry.file_type()?.is_dir();
        if removable {
            gone.push(entry.path());
        } else {
            remain.push(name);
        }
    }
    // All were looked at first: whose socket it is, is in the lock file beside it.
    gone.iter().try_for_each(|path| remove(path))?;
    if remain.is_empty() {
        return Ok(());
    }
    remain.sort();
    Err(io::Error::new(ErrorKind::DirectoryNotEmpty, format!("it holds {}", remain.join(", "))))
}

fn cluster(data_dir: &Path, control: &ControlData) -> Cluster {
    Cluster {
        system_id: control.system_id,
        major_version: major_version(data_dir).unwrap_or(0),
        state: control.state,
        checkpoint: control.checkpoint,
        checkpoint_timeline: control.checkpoint_timeline,
        min_recovery: control.min_recovery,
        min_recovery_timeline: control.min_recovery_timeline,
        rewindable: control.rewindable(),
        standby_signal: data_dir.join("standby.signal").exists(),
        backup_label: data_dir.join("backup_label").exists(),
        tainted: tainted(data_dir),
        history: history(data_dir, control.timeline()),
        newest_timeline: timeline_numbers::newest(data_dir, control.timeline()),
        segment_bytes: control.wal_segment_size,
    }
}

/// `PG_VERSION`; of `9.6` the 9.
pub fn major_version(data_dir: &Path) -> Option<u32> {
    fs::read_to_string(data_dir.join("PG_VERSION")).ok()?.trim().split('.').next()?.parse().ok()
}

/// The history of `timeline` from `pg_wal`. Timeline 0 (unknown) if a later timeline's file is missing or damaged: a
/// made-up history would read as divergence.
pub fn history(data_dir: &Path, timeline: Timeline) -> History {
    let Ok(text) = history_file(data_dir, timeline) else { return History::default() };
    History::parse(timeline, &text).unwrap_or_else(|line| {
        tracing::warn!(directory = %data_dir.display(), %timeline, line, "damaged history file");
        History::default()
    })
}

/// The text that [`history`] reads; empty for timeline 1.
pub(super) fn history_file(data_dir: &Path, timeline: Timeline) -> io::Result<String> {
    if timeline <= Timeline(1) {
        return Ok(String::new());
    }
    fs::read_to_string(data_dir.join(format!("pg_wal/{:08X}.history", timeline.0)))
}

/// Marks the directory of a new cluster whose bootstrap has not ended: its roles are not made yet, and the operator's
/// script has not run. A directory that was taken over, or copied, has no such mark.
pub const NEWBORN: &str = "matriarch.newborn";

/// The directory is that of a new cluster whose bootstrap has not ended.
pub fn is_newborn(data_dir: &Path) -> bool {
    data_dir.join(NEWBORN).exists()
}

/// Why the directory is tainted, if it is. A marker that cannot be read still marks.
pub fn tainted(data_dir: &Path) -> Option<String> {
    match fs::read_to_string(data_dir.join(TAINT)) {
        Ok(why) => Some(why.trim().to_owned()),
        Err(e) if e.kind() == ErrorKind::NotFound || e.kind() == ErrorKind::NotADirectory => None,
        Err(e) => Some(format!("{TAINT} cannot be read: {e}")),
    }
}

/// Marks the directory, durably, before anything in it is touched.
///
/// # Errors
/// The marker could not be made durable: do not go on.
pub fn taint(data_dir: &Path, why: &str, run_as: Option<&RunAs>) -> io::Result<()> {
    write(&data_dir.join(TAINT), format!("{why}\n").as_bytes(), Some(file_mode(data_dir)), run_as)
}

/// Removes the mark, durably, when everything in the directory is whole.
///
/// # Errors
/// The mark may still be there.
pub fn untaint(data_dir: &Path) -> io::Result<()> {
    remove(&data_dir.join(TAINT))
}

/// The mode of new files in a data directory: they follow its group permission, as PostgreSQL's own do.
pub fn file_mode(data_dir: &Path) -> u32 {
    let group = fs::metadata(data_dir).is_ok_and(|m| m.permissions().mode() & 0o050 == 0o050);
    if group { 0o640 } else { 0o600 }
}

/// Replaces a file as one step: a new file, synced, renamed over the old one, the directory synced. `mode` `None` means
/// 0666 less the process's umask.
///
/// # Errors
/// Of the file system. The old file is then still whole.
pub fn write(path: &Path, content: &[u8], mode: Option<u32>, run_as: Option<&RunAs>) -> io::Result<()> {
    let temporary = temporary_name(path);
    let _ = fs::remove_file(&temporary);
    let result = (|| {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        if let Some(mode) = mode {
            options.mode(mode);
        }
        let mut file = options.open(&temporary)?;
        if let Some(mode) = mode {
            file.set_permissions(fs::Permissions::from_mode(mode))?;
        }
        give(&file, run_as)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_parent(path)
    })();
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// How the name of a file ends that is not yet in its place.
const TEMPORARY: &str = ".matriarch";

/// A leftover by name.
fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}{TEMPORARY}"))
}

fn give(file: &File, run_as: Option<&RunAs>) -> io::Result<()> {
    if let Some(account) = run_as
        && rustix::process::geteuid().is_root()
    {
        std::os::unix::fs::fchown(file, Some(account.uid), Some(account.gid))?;
    }
    Ok(())
}

/// Removes a file, durably. One that is not there is fine.
///
/// # Errors
/// Of the file system.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// Makes changes to the directory that holds `path` durable.
///
/// # Errors
/// Of the file system.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Makes a directory for PostgreSQL, with the right owner; one that is there is left as it is.
///
/// # Errors
/// Of the file system.
pub fn make_dir(path: &Path, mode: u32, run_as: Option<&RunAs>) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    give(&File::open(path)?, run_as)?;
    sync_parent(path)
}

/// PostgreSQL's own conditions for starting on a directory (`checkDataDir` in `miscinit.c`), worded before it refuses.
///
/// # Errors
/// What is wrong and the way out.
pub fn check_startable(data_dir: &Path, run_as: Option<&RunAs>) -> Result<(), String> {
    let shown = data_dir.display();
    let metadata = fs::metadata(data_dir).map_err(|e| format!("{shown}: {e}"))?;
    if let Some(why) = wrong_owner(data_dir, metadata.uid(), server_uid(run_as)) {
        return Err(why);
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o027 != 0 {
        return Err(format!("{shown} has mode {mode:04o}, PostgreSQL wants 0700 or 0750: chmod 0700 {shown}"));
    }
    Ok(())
}
