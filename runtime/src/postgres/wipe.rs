//! Getting a data directory out of the way, with the WAL directory and tablespaces that it links to.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::{files, leftovers};

/// Empties the data directory: what its links for `pg_wal` and tablespaces lead to first, then its content. The
/// directory itself stays (it may be a mount point or a link). What cannot be deleted makes the whole be moved aside to
/// `<dir>.failed`, replacing an older one.
///
/// Tools that are left of what was made of it are ended first. The caller has made sure that no server and no orphan works
/// in it, and that it may go.
///
/// # Errors
/// What could neither be deleted nor moved, or what still changes it, and why.
pub(super) fn wipe(data_dir: &Path) -> Result<(), String> {
    leftovers::end(data_dir)?;
    match delete(data_dir) {
        Ok(()) => Ok(()),
        Err(first) => move_aside(data_dir).map_err(|second| {
            format!("{} can neither be deleted ({first}) nor moved aside ({second}); do it by hand", data_dir.display())
        }),
    }
}

fn delete(data_dir: &Path) -> io::Result<()> {
    if !data_dir.exists() {
        return Ok(());
    }
    // pg_control goes first, durably: what is left of a wipe that was cut short must not look like a cluster.
    files::taint(data_dir, "being deleted", None)?;
    files::remove(&data_dir.join("global/pg_control"))?;
    for target in linked(data_dir)? {
        empty(&target)?;
    }
    empty_but(data_dir, files::TAINT)?;
    files::untaint(data_dir)
}

/// The directories outside that belong to this one alone: the target of a linked `pg_wal`, and in each tablespace only
/// the `PG_<version>_<catalog>` directories of its version: another version's may live beside them during an upgrade.
fn linked(data_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut targets = Vec::new();
    let wal = data_dir.join("pg_wal");
    if wal.is_symlink() && wal.is_dir() {
        targets.push(fs::canonicalize(&wal)?);
    }
    let links = match fs::read_dir(data_dir.join("pg_tblspc")) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(targets),
        other => other?,
    };
    let Some(major) = files::major_version(data_dir) else { return Ok(targets) };
    let ours = format!("PG_{major}_");
    for link in links {
        let link = link?.path();
        if !link.is_symlink() || !link.is_dir() {
            continue;
        }
        for inside in fs::read_dir(fs::canonicalize(&link)?)? {
            let inside = inside?;
            if inside.file_name().to_string_lossy().starts_with(&ours) && inside.file_type()?.is_dir() {
                targets.push(inside.path());
            }
        }
    }
    Ok(targets)
}

fn empty(directory: &Path) -> io::Result<()> {
    empty_but(directory, "")
}

fn empty_but(directory: &Path, kept: &str) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() == kept {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Moves the data directory to `<dir>.failed`, replacing an older one.
pub(super) fn move_aside(data_dir: &Path) -> io::Result<()> {
    let mut failed = data_dir.as_os_str().to_owned();
    failed.push(".failed");
    let failed = PathBuf::from(failed);
    if failed.exists() {
        fs::remove_dir_all(&failed)?;
    }
    fs::rename(data_dir, &failed)?;
    files::sync_parent(data_dir)
}
