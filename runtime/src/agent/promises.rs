//! What survives the agent: small files, each written whole, renamed into place and fsynced before it counts.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use matriarch_core::action::HostAction;
use matriarch_core::event::{EpochFile, Started};
use matriarch_core::id::{Revision, StoreId, SystemId, Timeline};
use matriarch_core::op::Outcome;
use serde::{Deserialize, Serialize};

use crate::aside::Changes;

/// Where a node keeps what must survive its agent: its files ([`Files`]), or those of a simulated node.
#[tonic::async_trait]
pub trait Promises: Send + Sync {
    /// What the last agent left.
    fn read(&self) -> Started;
    /// The cluster was paused when the last agent heard of it last.
    fn was_paused(&self) -> bool {
        false
    }
    /// Remembers that for the next agent, for a start without a store. What does not get to the disk costs a primary
    /// that would be left alone, at the worst.
    async fn keep_paused(&self, _paused: bool) {}
    /// The operator's slots, as the last agent knew of them.
    fn permanent_slots(&self) -> BTreeSet<String> {
        BTreeSet::new()
    }
    /// Remembers them for the next agent: one that is configured no more by then is somebody else's otherwise, and keeps
    /// WAL for ever.
    async fn keep_permanent_slots(&self, _names: BTreeSet<String>) {}
    /// Writes what `action` says, after all that was asked for before. `Done`: it is on disk.
    async fn write(&self, action: HostAction) -> Outcome<()>;
}

/// The files of one node.
#[derive(Clone, Debug)]
pub struct Files {
    directory: PathBuf,
    /// In turn: a write that hung must not land over a later one.
    writes: Arc<Changes>,
}

#[derive(PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Epoch {
    system_id: u64,
    store_id: u64,
    epoch: i64,
    timeline: u32,
}

#[derive(PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Pause {
    paused: bool,
}

#[derive(PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Slots {
    permanent: BTreeSet<String>,
}

/// Another file in its place is no promise: its one key may be `null`, and what is missing reads so.
#[derive(PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pledge {
    absent_at: Option<i64>,
}

#[tonic::async_trait]
impl Promises for Files {
    /// A file that cannot be understood is as good as none: without an epoch nothing is started in place, without a
    /// pledge nothing is counted on.
    fn read(&self) -> Started {
        let epoch: Option<Epoch> = self.load("epoch");
        let pledge: Option<Pledge> = self.load("promises");
        Started {
            epoch: epoch.map(|epoch| EpochFile {
                system_id: SystemId(epoch.system_id),
                store: StoreId(epoch.store_id),
                epoch: Revision(epoch.epoch),
                timeline: Timeline(epoch.timeline),
            }),
            pledge: pledge.and_then(|pledge| pledge.absent_at).map(Revision),
        }
    }

    fn was_paused(&self) -> bool {
        self.load("pause").is_some_and(|pause: Pause| pause.paused)
    }

    async fn keep_paused(&self, paused: bool) {
        let files = self.clone();
        if let Err(error) = self.writes.make(move || files.store("pause", &Pause { paused })).await {
            tracing::warn!(%error, "the state directory does not take whether the cluster is paused");
        }
    }

    fn permanent_slots(&self) -> BTreeSet<String> {
        self.load("slots").map(|slots: Slots| slots.permanent).unwrap_or_default()
    }

    async fn keep_permanent_slots(&self, permanent: BTreeSet<String>) {
        let files = self.clone();
        if let Err(error) = self.writes.make(move || files.store("slots", &Slots { permanent })).await {
            tracing::warn!(%error, "the state directory does not take the names of permanent slots");
        }
    }

    async fn write(&self, action: HostAction) -> Outcome<()> {
        let files = self.clone();
        let written = self.writes.make(move || match action {
            HostAction::WriteEpoch(file) => files.write_epoch(&file),
            HostAction::WritePledge(absent_at) => files.write_pledge(absent_at),
            HostAction::StartGuard | HostAction::Exit { .. } => Ok(()),
        });
        match written.await {
            Ok(()) => Outcome::Done(()),
            Err(error) => Outcome::Unknown(format!("the state directory: {error}")),
        }
    }
}

impl Files {
    /// The files in `directory`.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), writes: Arc::default() }
    }

    fn write_epoch(&self, file: &EpochFile) -> io::Result<()> {
        let epoch = Epoch {
            system_id: file.system_id.0,
            store_id: file.store.0,
            epoch: file.epoch.0,
            timeline: file.timeline.0,
        };
        self.store("epoch", &epoch)
    }

    fn write_pledge(&self, absent_at: Option<Revision>) -> io::Result<()> {
        self.store("promises", &Pledge { absent_at: absent_at.map(|revision| revision.0) })
    }

    fn load<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Option<T> {
        let path = self.directory.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot be read and does not count");
                return None;
            }
        };
        match understood(&bytes) {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot be understood and does not count");
                None
            }
        }
    }

    fn store<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        let path = self.directory.join(name);
        let fresh = self.directory.join(format!("{name}.new"));
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(&self.directory)?.sync_all()
    }
}

/// What a file holds.
pub(super) fn understood<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pause_outlives_its_agent() {
        let directory = tempfile::tempdir().unwrap();
        let promises = Files::new(directory.path());
        assert!(!promises.was_paused());
        promises.keep_paused(true).await;
        assert!(Files::new(directory.path()).was_paused());
        promises.keep_paused(false).await;
        assert!(!promises.was_paused());
    }

    #[tokio::test]
    async fn the_operators_slots_are_known_to_the_next_agent() {
        let directory = tempfile::tempdir().unwrap();
        let promises = Files::new(directory.path());
        assert_eq!(promises.permanent_slots(), BTreeSet::new());
        let names = BTreeSet::from(["archive".to_owned()]);
        promises.keep_permanent_slots(names.clone()).await;
        assert_eq!(Files::new(directory.path()).permanent_slots(), names);
    }

    #[test]
    fn what_was_written_is_read_again_and_a_torn_file_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let promises = Files::new(directory.path());
        assert_eq!(promises.read(), Started::default());
        let epoch =
            EpochFile { system_id: SystemId(u64::MAX), store: StoreId(7), epoch: Revision(12), timeline: Timeline(3) };
        promises.write_epoch(&epoch).unwrap();
        promises.write_pledge(Some(Revision(5))).unwrap();
        assert_eq!(promises.read(), Started { epoch: Some(epoch), pledge: Some(Revision(5)) });
        fs::write(directory.path().join("epoch"), "{\"system_id\": 1").unwrap();
        assert_eq!(promises.read().epoch, None);
    }
}
