//! Where lines go: standard error, or a file that is begun anew when it has grown to its size. Everything here may wait
//! for a disk.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use anyhow::Context;

use crate::config::local::Log;

/// The file's name, which is Patroni's: whoever reads it knows where it is.
const NAME: &str = "patroni.log";

/// Takes lines.
pub(super) struct Sink {
    to: To,
    /// The last line was cut short: the next is not to be a part of it.
    torn: bool,
}

enum To {
    StandardError,
    File(Rotating),
}

impl Sink {
    pub(super) fn standard_error() -> Self {
        Self { to: To::StandardError, torn: false }
    }

    /// As the section `log` says, and what of it could not be had.
    pub(super) fn open(log: &Log) -> anyhow::Result<(Self, Option<String>)> {
        let Some(directory) = &log.dir else { return Ok((Self::standard_error(), None)) };
        let path = directory.join(NAME);
        fs::create_dir_all(directory).with_context(|| format!("log.dir: {}", directory.display()))?;
        let (rotating, trouble) =
            Rotating::open(path.clone(), log).with_context(|| format!("log.dir: {}", path.display()))?;
        Ok((Self { to: To::File(rotating), torn: false }, trouble))
    }

    /// `Ok`: it is written, and perhaps there is something to say of that.
    pub(super) fn write(&mut self, line: &str) -> io::Result<Option<String>> {
        let line = if self.torn { Cow::Owned(format!("\n{line}")) } else { Cow::Borrowed(line) };
        let done = match &mut self.to {
            To::StandardError => write_to_standard_error(line.as_bytes()).map(|()| None),
            To::File(rotating) => rotating.write(&line),
        };
        self.torn = done.is_err();
        done
    }
}

/// Without the lock that whoever else writes there waits for.
fn write_to_standard_error(mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(rustix::stdio::stderr(), bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// `patroni.log`, and before it `patroni.log.1`, `.2` and so on.
struct Rotating {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// At this size it is begun anew.
    bytes_max: u64,
    kept: u64,
    mode: Option<u32>,
    /// It is told that it cannot be begun anew.
    complained: bool,
}

impl Rotating {
    fn open(path: PathBuf, log: &Log) -> io::Result<(Self, Option<String>)> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let found = file.metadata()?;
        // Python's handler rotates nothing if one of them is 0, nor what is no file, such as a link to /dev/stdout.
        let rotates = log.file_num > 0 && log.file_size_bytes > 0 && found.is_file();
        let bytes_max = if rotates { log.file_size_bytes } else { u64::MAX };
        let (bytes, kept, mode) = (found.len(), log.file_num, log.mode);
        let rotating = Self { path, file, bytes, bytes_max, kept, mode, complained: false };
        let trouble = rotating.give_mode().err();
        let trouble = trouble.map(|error| format!("log.mode: {} stays as it is: {error}", rotating.path.display()));
        Ok((rotating, trouble))
    }

    fn give_mode(&self) -> io::Result<()> {
        let Some(mode) = self.mode else { return Ok(()) };
        let found = self.file.metadata()?;
        if !found.is_file() || found.permissions().mode() & 0o7777 == mode {
            return Ok(());
        }
        self.file.set_permissions(Permissions::from_mode(mode))
    }

    fn write(&mut self, line: &str) -> io::Result<Option<String>> {
        let trouble = self.make_room(line.len() as u64);
        self.file.write_all(line.as_bytes())?;
        self.bytes = self.bytes.saturating_add(line.len() as u64);
        Ok(trouble)
    }

    /// Begins it anew if the line does not fit. A directory that takes no other file: better one that grows than no log; it
    /// is tried again a size later.
    fn make_room(&mut self, length: u64) -> Option<String> {
        if self.bytes == 0 || self.bytes.saturating_add(length) < self.bytes_max {
            return None;
        }
        // Somebody else may have cut it short, or moved it away.
        let held = self.file.metadata().map_or(self.bytes, |found| found.len());
        if held.saturating_add(length) < self.bytes_max {
            self.bytes = held;
            return None;
        }
        let rotated = self.rotate();
        self.bytes = 0;
        let first = !std::mem::replace(&mut self.complained, rotated.is_err());
        let error = rotated.err().filter(|_| first)?;
        Some(format!("{} grows beyond log.file_size: it cannot be begun anew: {error}", self.path.display()))
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.is_in_its_place() {
            for number in (1..self.kept).rev() {
                rename(self.old(number), self.old(number + 1))?;
            }
            rename(self.path.clone(), self.old(1))?;
        }
        self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        self.give_mode()
    }

    fn is_in_its_place(&self) -> bool {
        let place = |found: fs::Metadata| (found.dev(), found.ino());
        let (there, here) = (fs::metadata(&self.path).map(place), self.file.metadata().map(place));
        there.ok().zip(here.ok()).is_some_and(|(there, here)| there == here)
    }

    fn old(&self, number: u64) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        PathBuf::from(path)
    }
}

/// What is not there is not moved.
fn rename(from: PathBuf, to: PathBuf) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn log(dir: &Path) -> Log {
        Log { dir: Some(dir.to_owned()), file_size_bytes: 20, file_num: 2, ..Log::default() }
    }

    fn open(log: &Log) -> Sink {
        let (sink, trouble) = Sink::open(log).expect("a file");
        assert_eq!(trouble, None);
        sink
    }

    fn write(sink: &mut Sink, lines: &[&str]) -> Vec<String> {
        lines.iter().filter_map(|line| sink.write(line).expect("it takes lines")).collect()
    }

    fn read(dir: &Path, name: &str) -> Option<String> {
        fs::read_to_string(dir.join(name)).ok()
    }

    #[test]
    fn a_file_is_begun_anew_at_its_size_and_some_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut sink = open(&log(dir.path()));
        let long = "dddddddddddddddddddddddd\n";
        assert!(write(&mut sink, &["aaaaaaaa\n", "bbbbbbbb\n", "cccccccc\n", long, "e\n"]).is_empty());
        assert_eq!(read(dir.path(), NAME).as_deref(), Some("e\n"));
        assert_eq!(read(dir.path(), "patroni.log.1").as_deref(), Some(long), "longer than it may be");
        assert_eq!(read(dir.path(), "patroni.log.2").as_deref(), Some("cccccccc\n"));
        assert_eq!(read(dir.path(), "patroni.log.3"), None);
    }

    #[test]
    fn a_log_goes_on_where_it_was_and_has_the_mode_that_was_asked_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = Log { mode: Some(0o640), file_num: 0, ..log(&dir.path().join("new")) };
        write(&mut open(&log), &["the first of them\n"]);
        write(&mut open(&log), &["the second of them\n"]);
        let dir = dir.path().join("new");
        let all = read(&dir, NAME);
        assert_eq!(all.as_deref(), Some("the first of them\nthe second of them\n"), "none are kept: none is begun");
        let mode = fs::metadata(dir.join(NAME)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn a_directory_that_takes_no_file_keeps_one_that_grows_and_that_is_told_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut sink = open(&log(dir.path()));
        // No file can take the place of a directory.
        for name in ["patroni.log.1/in", "patroni.log.2/in"] {
            fs::create_dir_all(dir.path().join(name)).expect("a directory");
        }
        let told = write(&mut sink, &["aaaaaaaaaaaaaa\n", "bbbbbbbbbbbbbb\n", "cccccccccccccc\n", "dddddddddddddd\n"]);
        assert!(matches!(&told[..], [told] if told.contains("patroni.log grows beyond log.file_size")), "{told:?}");
        assert_eq!(read(dir.path(), NAME).map(|log| log.lines().count()), Some(4));
    }

    /// logrotate moves it, or copies it and cuts it short.
    #[test]
    fn whoever_else_rotates_it_does_no_harm() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut sink = open(&log(dir.path()));
        write(&mut sink, &["aaaaaaaaaaaaaa\n"]);
        let path = dir.path().join(NAME);
        OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(0)).expect("cut short");
        write(&mut sink, &["bbbbbbbbbbbbbb\n"]);
        assert_eq!(read(dir.path(), "patroni.log.1"), None);
        assert_eq!(read(dir.path(), NAME).as_deref(), Some("bbbbbbbbbbbbbb\n"));
        fs::rename(&path, dir.path().join("elsewhere")).expect("it is moved");
        write(&mut sink, &["cccccccccccccc\n"]);
        assert_eq!(read(dir.path(), "patroni.log.1"), None, "what is elsewhere is somebody else's");
        assert_eq!(read(dir.path(), NAME).as_deref(), Some("cccccccccccccc\n"));
    }

    #[test]
    fn what_is_no_file_is_not_rotated() {
        let dir = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::symlink("/dev/null", dir.path().join(NAME)).expect("a link");
        let log = Log { mode: Some(0o600), ..log(dir.path()) };
        write(&mut open(&log), &["aaaaaaaaaaaaaa\n", "bbbbbbbbbbbbbb\n", "cccccccccccccc\n"]);
        assert!(fs::symlink_metadata(dir.path().join(NAME)).expect("the link").is_symlink());
        let mode = fs::metadata("/dev/null").expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o666);
    }
}
