//! WAL that a primary has finished and not archived when it ends. Only its own archiver would: a standby takes what it
//! receives for archived, and what this node has left it removes unarchived once it runs as a standby itself, or is
//! rewound. The archive would keep a hole that no restore of an earlier backup gets over. So it is archived before; where
//! it was started while nobody led, once it follows somebody. Until then it replays no checkpoint by which it could remove
//! anything, unless it restores others' WAL from the archive.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::settings::Settings;
use super::tools::Tool;
use crate::aside::{Changes, look};
use crate::hooks::{CommandLine, Script};

/// For how long a standby that could be started, or that has turned to somebody, is kept waiting. It is tried again each time.
pub(super) const BEFORE_START: Duration = Duration::from_secs(10);
/// The same before a rewind, after which it is gone.
pub(super) const BEFORE_REWIND: Duration = Duration::from_secs(60);

/// Archives what is left, for `limit` at most, unless nothing is to be archived any more. What comes of it keeps nothing
/// from going on, and is in the log.
pub(super) async fn archive_left(settings: &Arc<Settings>, changes: &Changes, limit: Duration) {
    let looked = Arc::clone(settings);
    let left = look(move || left_to_archive(&looked.data_dir)).await;
    if left.is_empty() {
        return;
    }
    let mut archived = 0;
    let ended = timeout(limit, archive(settings, changes, &left, &mut archived)).await;
    let why = match ended {
        Ok(Ok(())) => {
            if archived > 0 {
                tracing::info!(files = archived, "WAL that this node had left unarchived as primary is archived");
            }
            return;
        }
        Ok(Err(why)) => why,
        Err(_) => format!("archive_command did not end within {} s", limit.as_secs()),
    };
    tracing::warn!(
        "{why}: of {} files of WAL that this node had left unarchived as primary {archived} are archived; \
         the archive may lack {} and what follows it",
        left.len(),
        left.get(archived).map_or("none", String::as_str)
    );
}

async fn archive(
    settings: &Arc<Settings>,
    changes: &Changes,
    left: &[String],
    archived: &mut usize,
) -> Result<(), String> {
    let value = |name: &'static str| async move {
        let tool = Tool::new(settings, "postgres").arg("-D").arg(&settings.data_dir).arg("-C").arg(name);
        let value = tool.arg("-c").arg(format!("config_file={}", settings.main_conf().display())).output().await?;
        Ok::<String, String>(value.trim().to_owned())
    };
    if value("archive_mode").await? == "off" {
        return Ok(());
    }
    let command = value("archive_command").await?;
    if command.is_empty() {
        return Err("archive_command is not set".to_owned());
    }
    for name in left {
        let command = CommandLine::shell(&filled_in(&command, &settings.data_dir.join("pg_wal").join(name), name));
        Script::new("archive_command", &command).account(settings.run_as.clone()).run().await?;
        let status = settings.data_dir.join("pg_wal/archive_status");
        let (ready, done) = (status.join(format!("{name}.ready")), status.join(format!("{name}.done")));
        let noted = changes.make(move || fs::rename(&ready, &done).map_err(|e| format!("{}: {e}", done.display())));
        noted.await?;
        *archived += 1;
    }
    Ok(())
}

/// What PostgreSQL has marked as ready to be archived, oldest first. Not the histories of timelines: that of a promotion
/// that came to nothing must not get there, and later ones repeat those that came to something.
fn left_to_archive(data_dir: &Path) -> Vec<String> {
    let entries = match fs::read_dir(data_dir.join("pg_wal/archive_status")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!(%error, "what is left to archive cannot be read");
            return Vec::new();
        }
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut left: Vec<String> = names.filter_map(|name| name.strip_suffix(".ready").map(str::to_owned)).collect();
    left.retain(|name| !name.ends_with(".history") && data_dir.join("pg_wal").join(name).exists());
    left.sort();
    left
}

/// The command with its file in the place of `%p` and `%f`, as PostgreSQL puts it there; the whole path, since the
/// command is not run in the data directory.
fn filled_in(command: &str, path: &Path, name: &str) -> String {
    let mut filled = String::new();
    let mut rest = command.chars();
    while let Some(next) = rest.next() {
        match (next, rest.clone().next()) {
            ('%', Some('p')) => filled.push_str(&path.to_string_lossy()),
            ('%', Some('f')) => filled.push_str(name),
            ('%', Some('%')) => filled.push('%'),
            _ => {
                filled.push(next);
                continue;
            }
        }
        rest.next();
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_gets_its_file() {
        let of = |command| filled_in(command, Path::new("/d/pg_wal/0A"), "0A");
        assert_eq!(of("push %p && echo %f 100%% %x %"), "push /d/pg_wal/0A && echo 0A 100% %x %");
    }

    #[test]
    fn what_is_left_is_what_is_ready_and_there() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(left_to_archive(dir.path()), Vec::<String>::new());
        let (wal, status) = (dir.path().join("pg_wal"), dir.path().join("pg_wal/archive_status"));
        fs::create_dir_all(&status).unwrap();
        for name in ["B", "A.partial", "C", "A", "00000002.history"] {
            fs::write(status.join(format!("{name}.ready")), "").unwrap();
            fs::write(wal.join(name), "").unwrap();
        }
        fs::rename(status.join("C.ready"), status.join("C.done")).unwrap();
        fs::write(status.join("gone.ready"), "").unwrap();
        assert_eq!(left_to_archive(dir.path()), ["A", "A.partial", "B"]);
    }
}
