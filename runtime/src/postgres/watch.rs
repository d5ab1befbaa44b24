//! Tells when something happens to the files that say what PostgreSQL does, so that nobody has to ask in a rhythm.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use super::inotify::Watch;
use crate::aside;

/// What changed. It is a hint to look, not a fact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Changed {
    /// `postmaster.pid` came, went, or was written.
    PidFile,
    /// `global/pg_control` came, went, or was written.
    ControlFile,
    /// The data directory came.
    DataDirCame,
    /// The data directory went.
    DataDirGone,
}

/// Hints that may wait unread. With the queue full further ones are dropped: there is something to look at anyway.
const QUEUE: usize = 16;

/// The first bytes of a file: times of modification are too coarse for two writes within a few milliseconds.
type Content = Option<Vec<u8>>;
const CONTENT_BYTES: u16 = 512;

/// Watches a data directory until the receiver is dropped.
pub(super) fn watch(data_dir: PathBuf) -> mpsc::Receiver<Changed> {
    let (tell, told) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let mut last = look(&data_dir).await;
        loop {
            // A file that is replaced takes its watch with it, so every round watches what is there now. A change
            // between the look and the watch is found by the look behind the watch.
            let (is_there, watched) = (last.0, data_dir.clone());
            let watch = aside::look(move || {
                let watch = Watch::new().and(&watched).and(&watched.join("global/pg_control"));
                if is_there { watch } else { watch.and(watched.parent().unwrap_or(&watched)) }
            });
            let watch = watch.await;
            loop {
                let now = look(&data_dir).await;
                let moved = now.0 != last.0;
                for change in changes(&last, &now) {
                    let _ = tell.try_send(change);
                }
                let rewatch = moved || now.2.is_some() != last.2.is_some();
                last = now;
                if rewatch {
                    break;
                }
                tokio::select! {
                    () = watch.changed_at_leisure() => {}
                    () = tell.closed() => return,
                }
            }
        }
    });
    told
}

async fn look(data_dir: &Path) -> (bool, Content, Content) {
    let data_dir = data_dir.to_owned();
    aside::look(move || contents(&data_dir)).await
}

fn contents(data_dir: &Path) -> (bool, Content, Content) {
    let content = |name: &str| {
        let mut bytes = Vec::with_capacity(CONTENT_BYTES.into());
        File::open(data_dir.join(name)).ok()?.take(CONTENT_BYTES.into()).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    };
    (data_dir.is_dir(), content("postmaster.pid"), content("global/pg_control"))
}

fn changes(last: &(bool, Content, Content), now: &(bool, Content, Content)) -> Vec<Changed> {
    let mut changes = Vec::new();
    if last.0 != now.0 {
        changes.push(if now.0 { Changed::DataDirCame } else { Changed::DataDirGone });
    }
    if last.1 != now.1 {
        changes.push(Changed::PidFile);
    }
    if last.2 != now.2 {
        changes.push(Changed::ControlFile);
    }
    changes
}
