//! The guard's log. A thread of its own writes it: the disk may hang, and the guard may not.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

/// Lines that wait for the disk; what comes beyond is dropped.
const LINES_MAX: usize = 256;
/// A log that is larger is begun anew when a guard starts, in bytes.
const LOG_BYTES_MAX: u64 = 1 << 20;
/// How long a guard that ends waits for its last lines.
const LAST_LINES_WAIT: Duration = Duration::from_millis(200);

/// Does nothing before it is opened.
#[derive(Default)]
pub(super) struct Log(Option<Queue>);

struct Queue {
    lines: SyncSender<String>,
    written: Receiver<()>,
}

impl Log {
    /// Opens `path`.
    pub(super) fn open(path: &Path) -> io::Result<(Self, File)> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        if file.metadata()?.len() > LOG_BYTES_MAX {
            file.set_len(0)?;
        }
        Ok((Self::onto(&file)?, file))
    }

    /// Writes to the end of `file`.
    pub(super) fn onto(file: &File) -> io::Result<Self> {
        let (lines, to_write) = sync_channel::<String>(LINES_MAX);
        let (done, written) = sync_channel(1);
        let mut to = file.try_clone()?;
        thread::Builder::new().name("guard-log".into()).stack_size(128 * 1024).spawn(move || {
            for line in to_write {
                // A log that cannot be written is no reason to stop guarding.
                writeln!(to, "{} [{}] {line}", jiff::Timestamp::now(), std::process::id()).ok();
            }
            done.send(()).ok();
        })?;
        Ok(Self(Some(Queue { lines, written })))
    }

    /// After a fork the writing thread is the other process's. Its queue is not even dropped: the thread may have been
    /// in the middle of it.
    pub(super) fn forget(&mut self) {
        std::mem::forget(self.0.take());
    }

    pub(super) fn say(&self, line: String) {
        let Some(queue) = &self.0 else { return };
        match queue.lines.try_send(line) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }

    /// Waits a moment for the last lines.
    pub(super) fn close(self) {
        let Some(Queue { lines, written }) = self.0 else { return };
        drop(lines);
        written.recv_timeout(LAST_LINES_WAIT).ok();
    }
}
