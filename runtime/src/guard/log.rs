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

pub(super) struct Log {
    lines: SyncSender<String>,
    written: Receiver<()>,
}

impl Log {
    /// Opens `path` and makes it the process's standard output and error too.
    pub(super) fn open(path: &Path) -> io::Result<(Self, File)> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        if file.metadata()?.len() > LOG_BYTES_MAX {
            file.set_len(0)?;
        }
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
        Ok((Self { lines, written }, file))
    }

    pub(super) fn say(&self, line: String) {
        match self.lines.try_send(line) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }

    /// Waits a moment for the last lines.
    pub(super) fn close(self) {
        drop(self.lines);
        self.written.recv_timeout(LAST_LINES_WAIT).ok();
    }
}
