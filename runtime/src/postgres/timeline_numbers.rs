//! The number of the timeline that a promotion begins. PostgreSQL counts on from the newest history file in a row that it
//! finds (`findNewestTimeLine` in `timeline.c`), here or by `restore_command`. A number that another promotion may have
//! got, which this server knows nothing of, is left out by a file in its place.
//!
//! Such a file names no ancestors. To a running standby it is no child of its timeline, which it says in its log and
//! leaves it at that; one that *starts* with it as the newest would take it for its target, and one that then follows a
//! leader onto that very timeline would not fetch the true file. So what is left of a promotion that did not come to
//! pass is removed before a start and before a standby is pointed elsewhere. Below a true file it stays, since standbys
//! fetch every file in the row.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use matriarch_core::id::Timeline;

use super::files;
use super::settings::RunAs;

const LEFT_OUT: &str = "# Left out by matriarch: a promotion elsewhere may have begun a timeline of this number.\n";

fn path(data_dir: &Path, timeline: Timeline) -> PathBuf {
    data_dir.join(format!("pg_wal/{:08X}.history", timeline.0))
}

/// Has the file be archived as PostgreSQL's own are: a restore from the archive counts in the same way, and would end at
/// the first number that is missing there.
fn ready(data_dir: &Path, timeline: Timeline) -> PathBuf {
    data_dir.join(format!("pg_wal/archive_status/{:08X}.history.ready", timeline.0))
}

fn is_left_out(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text == LEFT_OUT)
}

/// The history files in a row after `timeline`: whether each is one of ours.
fn row(data_dir: &Path, timeline: Timeline) -> impl Iterator<Item = (Timeline, bool)> + '_ {
    let numbers = std::iter::successors(Some(timeline.next()), |number| Some(number.next()));
    let files = numbers.map(|number| (number, path(data_dir, number)));
    files.take_while(|(_, path)| path.exists()).map(|(number, path)| (number, is_left_out(&path)))
}

/// The newest timeline that a directory on `timeline` knows of.
pub(super) fn newest(data_dir: &Path, timeline: Timeline) -> Timeline {
    row(data_dir, timeline).filter(|(_, left_out)| !left_out).last().map_or(timeline, |(number, _)| number)
}

/// Removes what a promotion that did not come to pass has left.
///
/// # Errors
/// Of the file system.
pub(super) fn clear(data_dir: &Path, timeline: Timeline) -> io::Result<()> {
    clear_from(data_dir, newest(data_dir, timeline).next())
}

/// Removes the files of ours in a row from this number on. A true one ends it.
fn clear_from(data_dir: &Path, first: Timeline) -> io::Result<()> {
    let ours = row(data_dir, Timeline(first.0 - 1)).take_while(|(_, left_out)| *left_out);
    let beyond = ours.map(|(number, _)| number).collect::<Vec<_>>();
    // From the end: what remains if this is interrupted is still a row.
    for number in beyond.into_iter().rev() {
        files::remove(&ready(data_dir, number))?;
        files::remove(&ready(data_dir, number).with_extension("done"))?;
        files::remove(&path(data_dir, number))?;
    }
    Ok(())
}

/// Has the next promotion of a server on `current` begin `wanted`.
///
/// The race: a promotion onto the same number was asked for before and is under way. It must find every file that it was
/// given, at any moment: what is there and wanted is left alone.
///
/// # Errors
/// A text: PostgreSQL would count beyond it, or a file could not be written, with the way out.
pub(super) fn leave_out(
    data_dir: &Path,
    current: Timeline,
    wanted: Timeline,
    run_as: Option<&RunAs>,
) -> Result<(), String> {
    let failed = |error: io::Error| {
        let shown = data_dir.display();
        format!("the history files in {shown}/pg_wal cannot be written: {error}; free space or correct their owner")
    };
    let counts_beyond = |known: Timeline| {
        let refusal = format!("PostgreSQL knows of timeline {known}, and timeline {wanted} is what is reserved");
        if known >= wanted { Err(refusal) } else { Ok(known) }
    };
    let newest_known = counts_beyond(newest(data_dir, current))?;
    clear_from(data_dir, wanted).map_err(failed)?;
    let mode = Some(files::file_mode(data_dir));
    let numbers = std::iter::successors(Some(newest_known.next()), |number| Some(number.next()));
    for number in numbers.take_while(|number| *number < wanted) {
        let (file, ready) = (path(data_dir, number), ready(data_dir, number));
        if !file.exists() {
            tracing::info!(
                timeline = number.0,
                "left out: a promotion elsewhere may have begun a timeline of this number"
            );
            files::write(&file, LEFT_OUT.as_bytes(), mode, run_as).map_err(failed)?;
        }
        if !ready.exists() && !ready.with_extension("done").exists() {
            files::write(&ready, b"", mode, run_as).map_err(failed)?;
        }
    }
    // The row may reach now what lay beyond a gap in it: a true file that came from an archive, or that of the promotion
    // that has come to pass meanwhile.
    counts_beyond(newest(data_dir, current)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(own: &[u32]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("pg_wal/archive_status")).unwrap();
        for &number in own {
            add(directory.path(), number);
        }
        directory
    }

    fn add(data_dir: &Path, number: u32) {
        fs::write(path(data_dir, Timeline(number)), "1\t0/3000000\tno recovery target specified\n").unwrap();
    }

    fn files(data_dir: &Path) -> Vec<String> {
        let of = |inside: &str| fs::read_dir(data_dir.join(inside)).unwrap().map(|entry| entry.unwrap().file_name());
        let names = of("pg_wal").chain(of("pg_wal/archive_status")).map(|name| name.into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != "archive_status").collect();
        names.sort();
        names
    }

    #[test]
    fn the_next_number_needs_no_file() {
        let directory = directory(&[2]);
        leave_out(directory.path(), Timeline(1), Timeline(3), None).unwrap();
        assert_eq!(files(directory.path()), ["00000002.history"]);
        assert_eq!(newest(directory.path(), Timeline(1)), Timeline(2));
    }

    #[test]
    fn numbers_that_are_left_out_are_no_timelines_and_go_when_nothing_came_of_it() {
        let directory = directory(&[]);
        leave_out(directory.path(), Timeline(1), Timeline(4), None).unwrap();
        let left = ["00000002.history", "00000002.history.ready", "00000003.history", "00000003.history.ready"];
        assert_eq!(files(directory.path()), left);
        assert_eq!(newest(directory.path(), Timeline(1)), Timeline(1));
        // Another tenure needs fewer.
        leave_out(directory.path(), Timeline(1), Timeline(3), None).unwrap();
        assert_eq!(files(directory.path()), left[..2]);
        clear(directory.path(), Timeline(1)).unwrap();
        assert_eq!(files(directory.path()), [""; 0]);
    }

    #[test]
    fn what_a_promotion_under_way_was_given_is_not_touched() {
        use std::os::unix::fs::MetadataExt;
        let directory = directory(&[]);
        let inodes = || {
            let numbers = [Timeline(2), Timeline(3)];
            numbers.map(|number| fs::metadata(path(directory.path(), number)).map(|file| file.ino()).ok())
        };
        leave_out(directory.path(), Timeline(1), Timeline(4), None).unwrap();
        let given = inodes();
        assert!(given.iter().all(Option::is_some));
        leave_out(directory.path(), Timeline(1), Timeline(4), None).unwrap();
        assert_eq!(inodes(), given);
        // The archiver has taken one.
        let ready = ready(directory.path(), Timeline(2));
        fs::rename(&ready, ready.with_extension("done")).unwrap();
        leave_out(directory.path(), Timeline(1), Timeline(5), None).unwrap();
        assert_eq!(inodes(), given);
        assert!(!ready.exists(), "it is not archived twice");
        // And it comes to pass.
        add(directory.path(), 5);
        clear_from(directory.path(), Timeline(5)).unwrap();
        assert!(path(directory.path(), Timeline(5)).exists(), "PostgreSQL's own");
    }

    #[test]
    fn a_true_file_beyond_a_gap_is_not_counted_beyond() {
        let directory = directory(&[4]);
        let refusal = leave_out(directory.path(), Timeline(1), Timeline(4), None).unwrap_err();
        assert!(refusal.contains("knows of timeline 4"), "{refusal}");
        assert!(!is_left_out(&path(directory.path(), Timeline(4))));
    }

    #[test]
    fn below_a_true_file_they_stay() {
        let directory = directory(&[]);
        leave_out(directory.path(), Timeline(1), Timeline(3), None).unwrap();
        add(directory.path(), 3);
        clear(directory.path(), Timeline(1)).unwrap();
        assert_eq!(files(directory.path()), ["00000002.history", "00000002.history.ready", "00000003.history"]);
        assert_eq!(newest(directory.path(), Timeline(1)), Timeline(3));
        let refusal = leave_out(directory.path(), Timeline(1), Timeline(3), None).unwrap_err();
        assert!(refusal.contains("knows of timeline 3"), "{refusal}");
    }
}
