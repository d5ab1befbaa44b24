//! Waiting for changes of files, with a bounded look-again for where inotify is not to be had or sees nothing.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Look again at the latest after this, event or not: some file systems deliver no events, and an instance may be
/// refused (`fs.inotify.max_user_instances`).
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// The same where there is no inotify at all.
const LOOK_AGAIN_BLIND: Duration = Duration::from_millis(20);

/// The same for a watch that lasts for ever.
const LEISURE: Duration = Duration::from_secs(60);

/// A set of watched paths.
#[derive(Debug)]
pub struct Watch {
    fd: Option<AsyncFd<OwnedFd>>,
    /// Not everything that is there is watched.
    blind: bool,
}

impl Watch {
    /// Watches nothing yet. Never fails: without inotify [`Watch::changed`] returns every 20 ms.
    pub fn new() -> Self {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok();
        // SAFETY: an `OwnedFd` names the same descriptor until it is dropped, which is after its deregistration.
        Self {
            fd: fd.and_then(|fd| unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.ok()),
            blind: false,
        }
    }

    /// Watches one path as well: a directory for entries made, moved and removed, a file for being written.
    #[must_use]
    pub fn and(mut self, path: &Path) -> Self {
        let what = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MODIFY
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        if let Some(fd) = &self.fd
            && let Err(error) = inotify::add_watch(fd.get_ref(), path, what)
        {
            tracing::debug!(path = %path.display(), %error, "cannot be watched");
            self.blind |= error != Errno::NOENT;
        }
        self
    }

    /// Returns when something changed, or after 250 ms. Spurious returns are allowed: look at the files.
    pub async fn changed(&self) {
        self.changed_within(LOOK_AGAIN, LOOK_AGAIN_BLIND).await;
    }

    /// The same for a watch that lasts for ever, which must cost nothing: returns after 60 s at the latest, or after
    /// 250 ms without inotify or where it refused a path.
    pub async fn changed_at_leisure(&self) {
        self.changed_within(LEISURE, LOOK_AGAIN).await;
    }

    async fn changed_within(&self, limit: Duration, blind: Duration) {
        let Some(fd) = &self.fd else {
            tokio::time::sleep(blind).await;
            return;
        };
        let limit = if self.blind { limit.min(LOOK_AGAIN) } else { limit };
        if let Ok(Ok(mut guard)) = tokio::time::timeout(limit, fd.readable()).await {
            let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
            let mut events = Reader::new(fd.get_ref(), &mut buffer);
            while events.next().is_ok() {}
            guard.clear_ready();
        }
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}
