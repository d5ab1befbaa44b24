//! The data directory: a snapshot, and a journal of what happened since.
//!
//! One frame of the journal is what one fsync made durable, so only the last can be torn: the next is not written
//! before the one before it is on disk. A broken frame that a good one follows is therefore no torn write but damage,
//! and is left as it is for somebody to look at.
//!
//! A write that failed leaves the file in an unknown state, and a later fsync that succeeds says nothing about it (the
//! kernel may have dropped the pages). So after an error the state is written anew, as a snapshot, before anything
//! else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use matriarch_core::time::Instant;
use rustix::fs::{FlockOperation, flock};

use super::codec::{Reader, Writer, crc32};
use super::history::History;
use super::state::{Effect, State};

const SNAPSHOT: &str = "snapshot";
const SNAPSHOT_NEW: &str = "snapshot.new";
const JOURNAL: &str = "journal";
const LOCK: &str = "lock";
/// The journal is folded into a new snapshot when it has grown by this much.
const FOLD_BYTES: u64 = 4 << 20;
/// Length of the payload (4), sequence number (8), checksum of these (4), checksum of the payload (4).
const HEAD_BYTES: usize = 20;

/// The open journal of a data directory that is locked.
pub(super) struct Journal {
    dir: PathBuf,
    file: File,
    /// Length of the journal up to the last good frame.
    length: u64,
    fold_at: u64,
    /// The number of the last frame.
    sequence: u64,
    /// Set when a write failed and the file has not been rewritten since.
    broken: bool,
    _lock: File,
}

/// What a data directory held.
pub(super) struct Opened {
    pub(super) journal: Journal,
    pub(super) state: State,
    pub(super) history: History,
}

impl Journal {
    /// Opens a data directory, making it if it does not exist, and begins a new run in it. Every lease has its full
    /// time to live from `now`.
    pub(super) fn open(dir: &Path, now: Instant) -> anyhow::Result<Opened> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make the data directory {}", dir.display()))?;
        let lock = lock(dir)?;
        let mut state = read_snapshot(dir)?;
        let path = dir.join(JOURNAL);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = open.with_context(|| format!("cannot open {}", path.display()))?;
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let fresh = state.is_none();
        ensure!(
            !fresh || bytes.is_empty(),
            "{} is missing while there is a journal: restore the whole of {}, or move it away to begin with an empty store",
            dir.join(SNAPSHOT).display(),
            dir.display()
        );
        let (mut state, sequence) = state.take().unwrap_or_else(|| (State::new(rand::random(), rand::random()), 0));
        let mut history = History::after(state.revision);
        let replayed = replay(&path, &bytes, sequence, &mut state, &mut history, now)?;
        let mut journal = Self {
            dir: dir.to_owned(),
            file,
            length: replayed.length as u64,
            fold_at: FOLD_BYTES,
            sequence: replayed.sequence,
            broken: false,
            _lock: lock,
        };
        if replayed.length < bytes.len() {
            let lost = bytes.len() - replayed.length;
            tracing::warn!("{}: cut {lost} bytes of a torn last write, which was never acknowledged", path.display());
            journal.cut().with_context(|| format!("cannot cut the torn end of {}", path.display()))?;
        }
        if fresh {
            journal.fold(&state).with_context(|| format!("cannot write to {}", dir.display()))?;
        }
        let term = Effect::Term(state.raft_term + 1);
        journal.commit(&state, std::slice::from_ref(&term))?;
        state.apply(&term, now);
        state.restart_leases(now);
        Ok(Opened { journal, state, history })
    }

    /// Makes effects durable; `before` is the state that they are to be applied to. After an error they are not in
    /// force, and nothing will be until the directory can be written again.
    pub(super) fn commit(&mut self, before: &State, effects: &[Effect]) -> anyhow::Result<()> {
        let outcome = self.try_commit(before, effects);
        outcome.with_context(|| format!("cannot write to {}; nothing was changed", self.dir.join(JOURNAL).display()))
    }

    fn try_commit(&mut self, before: &State, effects: &[Effect]) -> io::Result<()> {
        if self.broken {
            self.fold(before)?;
        }
        let mut payload = Writer::default();
        payload.effects(effects);
        let frame = frame(self.sequence + 1, &payload.0)?;
        let written = self.file.write_all_at(&frame, self.length).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            self.broken = true;
            // So that a restart before the next write does not bring it back; if this fails too, the fold has to do it.
            drop(self.cut());
            return Err(error);
        }
        self.length += frame.len() as u64;
        self.sequence += 1;
        Ok(())
    }

    /// Folds the journal into a new snapshot if it has grown large. A failure costs nothing but room.
    pub(super) fn fold_if_large(&mut self, state: &State) {
        if self.length < self.fold_at {
            return;
        }
        self.fold_at = self.length + FOLD_BYTES;
        if let Err(error) = self.fold(state) {
            tracing::warn!("{}: cannot write a new snapshot: {error}; the journal goes on", self.dir.display());
        }
    }

    /// Writes `state` as the snapshot and empties the journal. A crash in between leaves frames that the snapshot
    /// contains already; their numbers tell.
    fn fold(&mut self, state: &State) -> io::Result<()> {
        let mut payload = Writer::default();
        payload.u64(state.cluster_id);
        payload.u64(state.member_id);
        payload.u64(state.raft_term);
        payload.i64(state.revision);
        payload.effects(&state.to_effects());
        let new = self.dir.join(SNAPSHOT_NEW);
        let mut file = File::create(&new)?;
        file.write_all(&frame(self.sequence, &payload.0)?)?;
        file.sync_all()?;
        fs::rename(&new, self.dir.join(SNAPSHOT))?;
        File::open(&self.dir)?.sync_all()?;
        self.length = 0;
        self.broken = true;
        self.cut()?;
        self.broken = false;
        self.fold_at = FOLD_BYTES;
        Ok(())
    }

    /// Makes every write fail as on a full disk.
    #[cfg(test)]
    pub(super) fn fill_disk(&mut self) -> io::Result<File> {
        let full = OpenOptions::new().write(true).open("/dev/full")?;
        Ok(std::mem::replace(&mut self.file, full))
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.sync_all()
    }
}

/// Locks the directory for as long as the file is open.
fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join(LOCK);
    let open = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = open.with_context(|| format!("cannot open {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("another store is running on {}: stop it first, or give this one another --data", dir.display());
    }
    Ok(file)
}

pub(super) fn frame(sequence: u64, payload: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(payload.len()).map_err(|_| io::Error::other("the state is larger than 4 GiB"))?;
    let mut frame = Vec::with_capacity(HEAD_BYTES + payload.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&sequence.to_le_bytes());
    frame.extend_from_slice(&crc32(&frame).to_le_bytes());
    frame.extend_from_slice(&crc32(payload).to_le_bytes());
    frame.extend_from_slice(payload);
    Ok(frame)
}

/// The frame at the beginning of `bytes`, if it is whole: its number and payload.
fn whole_frame(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let number = |from: usize| head.get(from..from + 4)?.first_chunk().map(|four| u32::from_le_bytes(*four));
    if crc32(&head[..12]) != number(12)? {
        return None;
    }
    let payload = rest.get(..number(0)? as usize)?;
    let sequence = head.get(4..12)?.first_chunk().map(|eight| u64::from_le_bytes(*eight))?;
    (crc32(payload) == number(16)?).then_some((sequence, payload))
}

/// The state of the snapshot and the number of the last frame that it contains; `None` if there is no snapshot.
fn read_snapshot(dir: &Path) -> anyhow::Result<Option<(State, u64)>> {
    let path = dir.join(SNAPSHOT);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let parse = || {
        let (sequence, payload) = whole_frame(&bytes)?;
        let mut reader = Reader(payload);
        let mut state = State::new(reader.u64()?, reader.u64()?);
        state.raft_term = reader.u64()?;
        let revision = reader.i64()?;
        for effect in reader.effects()? {
            state.apply(&effect, Instant::ZERO);
        }
        state.revision = revision;
        Some((state, sequence))
    };
    let Some(parsed) = parse() else { return Err(damaged(&path, 0)) };
    Ok(Some(parsed))
}

pub(super) struct Replayed {
    /// Up to where the journal is good.
    pub(super) length: usize,
    pub(super) sequence: u64,
}

/// Applies the frames that the snapshot does not contain yet. `sequence` is the number of its last one.
pub(super) fn replay(
    path: &Path,
    bytes: &[u8],
    mut sequence: u64,
    state: &mut State,
    history: &mut History,
    now: Instant,
) -> anyhow::Result<Replayed> {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let Some((number, payload)) = whole_frame(rest) else {
            if (1..rest.len()).any(|skip| rest.get(skip..).is_some_and(|later| whole_frame(later).is_some())) {
                return Err(damaged(path, at));
            }
            break;
        };
        if number > sequence {
            let mut reader = Reader(payload);
            let effects = reader.effects().filter(|_| reader.0.is_empty() && number == sequence + 1);
            for effect in effects.ok_or_else(|| damaged(path, at))? {
                history.extend(state.apply(&effect, now));
            }
            sequence = number;
        }
        at += HEAD_BYTES + payload.len();
    }
    Ok(Replayed { length: at, sequence })
}

fn damaged(path: &Path, offset: usize) -> anyhow::Error {
    anyhow::anyhow!(
        "{} is damaged at byte {offset}, and nothing was touched: restore the whole directory from a backup, or move it \
         away to begin with an empty store",
        path.display()
    )
}

#[cfg(test)]
mod tests;
