//! What an earlier agent's tools still do to a data directory.
//!
//! A tool's first process dies with its agent; the kernel says nothing to the processes that it has started. The race: an
//! agent is killed while `pg_basebackup` copies; the half of it that streams WAL goes on, by path; the next agent empties
//! the directory and copies anew; and the stream of the first copy writes into the `pg_wal` of the second.
//!
//! They are known by a variable of their environment, which names the directory and which everything that they start
//! inherits. No server of ours, no shell of an operator and no tool that was started by one has it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use super::proc;
use crate::clock;
use crate::processes::{Process, is_gone, pids};

/// Killed processes take a moment to leave: at most this long is waited for them.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

/// The variable that marks what is started to change a data directory. The directory that it lies in is named by its
/// number as well: a container may have another one at the same path.
pub(super) fn mark(data_dir: &Path) -> (&'static str, String) {
    let above = data_dir.parent().and_then(|above| fs::metadata(above).ok());
    let (device, inode) = above.map_or((0, 0), |above| (above.dev(), above.ino()));
    ("MATRIARCH_CHANGES", format!("{device}:{inode}:{}", data_dir.display()))
}

/// Ends whatever was started to change the directory. For whoever is about to take it for its own; a server that may run
/// in it is not meant.
///
/// # Errors
/// What there is cannot be looked at, or does not end.
pub(super) fn end(data_dir: &Path) -> Result<(), String> {
    let shown = data_dir.display();
    let until = clock::now() + LEAVE_LIMIT;
    let mut left: Vec<Process> = Vec::new();
    loop {
        let found = find(data_dir)
            .map_err(|error| format!("tools that still change {shown} cannot be looked for: /proc: {error}"))?;
        // Also those that show nothing any more, until they are dead.
        left.retain(|process| process.is_alive());
        if found.is_empty() && left.is_empty() {
            return Ok(());
        }
        let number = |process: &Process| process.pid;
        if clock::now() >= until {
            let left: Vec<i32> = left.iter().map(number).collect();
            return Err(format!(
                "processes {left:?} of an earlier tool still change {shown} and do not end, not even by SIGKILL"
            ));
        }
        for process in found {
            let pid = process.pid;
            process
                .signal(Signal::KILL)
                .map_err(|error| format!("process {pid} changes {shown} and cannot be ended: {error}"))?;
            if !left.contains(&process) {
                tracing::warn!(pid, data_dir = %shown, "what an earlier tool has left running is ended");
                left.push(process);
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// PostgreSQL's own processes are looked for elsewhere ([`proc::orphans`]), and not ended by the way.
fn find(data_dir: &Path) -> io::Result<Vec<Process>> {
    let (name, value) = mark(data_dir);
    let mark = format!("{name}={value}");
    let mut found = Vec::new();
    for pid in pids()? {
        // Before it is looked at: a later process with its number is not meant.
        let Ok(Some(process)) = Process::find(pid) else { continue };
        let environment = match fs::read(format!("/proc/{pid}/environ")) {
            Ok(environment) => environment,
            // Another account's was not started by us; or we are root without CAP_SYS_PTRACE, and shall not know.
            Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::PermissionDenied => continue,
            Err(error) => return Err(error),
        };
        if environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) && !proc::is_postgres(pid) {
            found.push(process);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeper(directory: &Path, marked: Option<&Path>) -> Child {
        let mut command = Command::new("sleep");
        command.arg("600").current_dir(directory).envs(marked.map(mark)).spawn().unwrap()
    }

    #[test]
    fn only_what_was_started_to_change_the_directory_is_ended() {
        let (ours, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let data_dir = ours.path().join("data");
        fs::create_dir(&data_dir).unwrap();
        let mut left = sleeper(other.path(), Some(&data_dir));
        // A shell in the directory; a tool for a neighbour; one for another directory of that name.
        let neighbour = ours.path().join("data2");
        let mut others = [None, Some(neighbour.as_path()), Some(&other.path().join("data"))]
            .map(|marked| sleeper(&data_dir, marked));
        assert_eq!(find(&data_dir).unwrap().iter().map(|it| it.pid).collect::<Vec<_>>(), [left.id().cast_signed()]);
        assert_eq!(end(&data_dir), Ok(()));
        assert!(!left.wait().unwrap().success());
        for other in &mut others {
            assert_eq!(other.try_wait().unwrap(), None);
            other.kill().unwrap();
            other.wait().unwrap();
        }
        assert_eq!(end(&data_dir), Ok(()), "also where there is nothing to end");
    }

    #[test]
    fn a_directory_is_not_another_one_at_the_same_path() {
        let base = tempfile::tempdir().unwrap();
        let data_dir = base.path().join("home/data");
        fs::create_dir(base.path().join("home")).unwrap();
        let before = mark(&data_dir);
        fs::create_dir(&data_dir).unwrap();
        assert_eq!(mark(&data_dir), before, "it need not be there");
        fs::rename(base.path().join("home"), base.path().join("other")).unwrap();
        fs::create_dir(base.path().join("home")).unwrap();
        assert_ne!(mark(&data_dir), before);
    }
}
