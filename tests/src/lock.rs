//! One real cluster at a time on this machine: two cores do not carry two, and what is measured is waiting.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

/// Held for as long as a cluster exists. The kernel lets go of it with the process, however that ends.
pub(crate) struct MachineLock {
    _file: File,
}

impl MachineLock {
    pub(crate) async fn take() -> Self {
        let path = std::env::temp_dir().join("matriarch-tests.lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o666).open(&path);
        // The sticky bit of /tmp keeps a file of another user from being opened for writing: reading is enough to lock.
        let file = file.or_else(|_| File::open(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // Not the blocking form: tests of one process share a lock's file description with nobody, but a thread.
        while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self { _file: file }
    }
}
