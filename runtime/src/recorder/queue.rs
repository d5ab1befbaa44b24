//! What waits for the disk: bounded in bytes, filled by the loop, emptied whole by the thread.

use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that may wait.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// A buffer that grew beyond this is given back.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<Waiting>,
    /// For the thread: there is something to do.
    filled: Condvar,
    /// For whoever closes: the thread has ended.
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    batch: Batch,
    /// The thread waits: only then it must be woken, which is a call of the kernel.
    idle: bool,
    /// A file could not be written. Nothing is taken in before another is begun.
    failed: bool,
    /// Records that were lost with it.
    lost: u64,
    closing: bool,
    ended: bool,
}

/// Frames to write, one after the other.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The frames.
    pub(super) bytes: Vec<u8>,
    /// Where in them files begin.
    pub(super) files: Vec<usize>,
    /// How many frames there are.
    pub(super) frames: u64,
}

impl Batch {
    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
        self.files.clear();
        self.frames = 0;
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a frame to the current file; false: there is no room, or no file.
    pub(super) fn push(&self, frame: &[u8]) -> bool {
        self.add(frame, false, WAITING_BYTES_MAX)
    }

    /// Adds the frame after which a file goes on that has lost records; false: there is too little room yet. Half of the
    /// queue must be free: otherwise gap would follow gap, each with a whole state.
    pub(super) fn push_gap(&self, frame: &[u8]) -> bool {
        self.add(frame, false, WAITING_BYTES_MAX / 2)
    }

    /// Adds a frame that begins a file; false: there is no room.
    pub(super) fn push_file(&self, frame: &[u8]) -> bool {
        self.add(frame, true, WAITING_BYTES_MAX)
    }

    fn add(&self, frame: &[u8], begins: bool, bytes_max: usize) -> bool {
        let mut waiting = self.lock();
        let full = waiting.batch.bytes.len() + frame.len() > bytes_max;
        // A frame that is larger than the queue can only ever go alone.
        if (waiting.failed && !begins) || (full && !waiting.batch.bytes.is_empty()) {
            return false;
        }
        if begins {
            let start = waiting.batch.bytes.len();
            waiting.batch.files.push(start);
            waiting.failed = false;
        }
        waiting.batch.bytes.extend_from_slice(frame);
        waiting.batch.frames += 1;
        let wake = mem::take(&mut waiting.idle);
        drop(waiting);
        if wake {
            self.filled.notify_one();
        }
        true
    }

    /// If no file can be written: the records that were lost with it since this was asked last.
    pub(super) fn failed(&self) -> Option<u64> {
        let mut waiting = self.lock();
        waiting.failed.then(|| mem::take(&mut waiting.lost))
    }

    /// Waits for something to write and takes all of it; false: there is nothing and will be nothing.
    pub(super) fn take(&self, batch: &mut Batch) -> bool {
        batch.clear();
        let mut waiting = self.lock();
        while waiting.batch.bytes.is_empty() {
            if waiting.closing {
                waiting.ended = true;
                self.emptied.notify_all();
                return false;
            }
            waiting.idle = true;
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        mem::swap(batch, &mut waiting.batch);
        true
    }

    /// The batch could not be written, and what waits behind it belongs to the same file.
    pub(super) fn fail(&self, batch: &Batch) {
        let mut waiting = self.lock();
        waiting.failed = true;
        waiting.lost += batch.frames + waiting.batch.frames;
        waiting.batch.clear();
    }

    /// Something is not written yet.
    #[cfg(test)]
    pub(super) fn waits(&self) -> bool {
        let waiting = self.lock();
        !waiting.idle || !waiting.batch.bytes.is_empty()
    }

    /// No file can be written.
    #[cfg(test)]
    pub(super) fn is_failed(&self) -> bool {
        self.lock().failed
    }

    /// Waits for what is there to be written, but not for ever.
    pub(super) fn close(&self, limit: Duration) {
        let mut waiting = self.lock();
        waiting.closing = true;
        self.filled.notify_one();
        // However it went: the agent leaves.
        drop(self.emptied.wait_timeout_while(waiting, limit, |waiting| !waiting.ended));
    }
}
