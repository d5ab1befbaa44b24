//! Small files that survive the agent, each written whole, renamed into place and fsynced before it counts.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use matriarch_core::event::{EpochFile, Started};
use matriarch_core::id::{Revision, StoreId, SystemId, Timeline};
use serde::{Deserialize, Serialize};

/// The files of one node.
#[derive(Clone, Debug)]
pub struct Promises {
    directory: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Epoch {
    system_id: u64,
    store_id: u64,
    epoch: i64,
    timeline: u32,
}

#[derive(Serialize, Deserialize)]
struct Pledge {
    absent_at: Option<i64>,
}

impl Promises {
    /// The files in `directory`.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// What the last agent left. A file that cannot be understood is as good as none: without an epoch nothing is
    /// started in place, without a pledge nothing is counted on.
    pub fn read(&self) -> Started {
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

    /// Writes the epoch. When it returns, it is on disk.
    pub fn write_epoch(&self, file: &EpochFile) -> io::Result<()> {
        let epoch = Epoch {
            system_id: file.system_id.0,
            store_id: file.store.0,
            epoch: file.epoch.0,
            timeline: file.timeline.0,
        };
        self.store("epoch", &epoch)
    }

    /// Writes the pledge, or that there is none.
    pub fn write_pledge(&self, absent_at: Option<Revision>) -> io::Result<()> {
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
        match serde_json::from_slice(&bytes) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again_and_a_torn_file_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let promises = Promises::new(directory.path());
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
