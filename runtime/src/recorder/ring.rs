//! The files: numbered, one after the other, the oldest removed before there are too many bytes of them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::queue::Batch;

/// An agent that cannot live begins a file each time it is started again.
const FILES_MAX: usize = 128;
const SUFFIX: &str = ".rec";

/// The files of one directory.
#[derive(Debug)]
pub(super) struct Ring {
    directory: PathBuf,
    bytes_max: u64,
    file_bytes_max: u64,
    file: Option<File>,
}

/// A file that is there.
#[derive(Clone, Debug)]
struct Old {
    number: u64,
    bytes: u64,
    path: PathBuf,
}

impl Ring {
    /// A ring of `bytes_max`, whose files are `file_bytes_max` long at most. Nothing is touched yet.
    pub(super) fn new(directory: &Path, bytes_max: u64, file_bytes_max: u64) -> Self {
        Self { directory: directory.to_owned(), bytes_max, file_bytes_max, file: None }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes a batch, with as few calls as there are files in it.
    pub(super) fn write(&mut self, batch: &Batch) -> io::Result<()> {
        let mut rest = batch.bytes.as_slice();
        let mut written = 0;
        for &start in &batch.files {
            let (before, after) = rest.split_at(start - written);
            self.append(before)?;
            self.file = None;
            self.file = Some(self.begin()?);
            (rest, written) = (after, start);
        }
        self.append(rest)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let Some(file) = &mut self.file else { return Err(io::Error::other("no file is begun")) };
        let done = file.write_all(bytes);
        if done.is_err() {
            // What comes next would stand behind half a frame.
            self.file = None;
        }
        done
    }

    /// Makes room and begins the next file.
    fn begin(&self) -> io::Result<File> {
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut old = self.old()?;
        let next = old.last().map_or(1, |last| last.number.saturating_add(1));
        let mut bytes: u64 = old.iter().map(|old| old.bytes).sum();
        while old.len() >= FILES_MAX || bytes > self.bytes_max.saturating_sub(self.file_bytes_max) {
            if old.is_empty() {
                break;
            }
            let oldest = old.remove(0);
            match fs::remove_file(&oldest.path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            bytes -= oldest.bytes;
        }
        let path = self.directory.join(format!("{next:010}{SUFFIX}"));
        OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
    }

    /// Our files, oldest first.
    fn old(&self) -> io::Result<Vec<Old>> {
        let mut old = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).and_then(|name| name.parse().ok());
            let Some(number) = number else { continue };
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() => {
                    old.push(Old { number, bytes: metadata.len(), path: entry.path() });
                }
                Ok(_) => {}
                // Somebody else removed it.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        old.sort_by_key(|old| old.number);
        Ok(old)
    }
}
