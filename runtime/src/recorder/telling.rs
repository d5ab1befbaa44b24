//! What is told of a disk that cannot be written: each kind of failure once, and that it works again. On a full disk
//! every other file can be begun and none be written, for hours.

use std::io::{self, ErrorKind};
use std::time::Duration;

use matriarch_core::time::Instant;

/// For how long there must have been no failure.
const WORKS_AFTER: Duration = Duration::from_mins(1);

#[derive(Debug, Default)]
pub(super) struct Telling {
    /// The kinds of failure that were told since it worked.
    told: Vec<ErrorKind>,
    /// The last one.
    failed: Option<Instant>,
}

impl Telling {
    /// Something could not be written: whether that is to be told.
    pub(super) fn failed(&mut self, error: &io::Error, at: Instant) -> bool {
        self.failed = Some(at);
        let news = !self.told.contains(&error.kind());
        if news {
            self.told.push(error.kind());
        }
        news
    }

    /// Something was written: whether it is to be told that it works again.
    pub(super) fn written(&mut self, at: Instant) -> bool {
        let works = self.failed.is_some_and(|failed| at.since(failed) >= WORKS_AFTER);
        if works {
            *self = Self::default();
        }
        works
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_full_is_told_once_until_it_has_room() {
        let mut telling = Telling::default();
        let at = |s: u64| Instant(1_000_000_000_000 + s * 1_000_000_000);
        let (full, read_only) = (ErrorKind::StorageFull.into(), ErrorKind::ReadOnlyFilesystem.into());
        assert!(!telling.written(at(0)));
        let told: Vec<u64> = (1..1000).filter(|s| telling.failed(&full, at(*s)) | telling.written(at(*s))).collect();
        assert_eq!(told, [1]);
        assert!(telling.failed(&read_only, at(1000)) && !telling.failed(&full, at(1001)));
        let told: Vec<u64> = (1002..1100).filter(|s| telling.written(at(*s))).collect();
        assert_eq!(told, [1061]);
        assert!(telling.failed(&full, at(1101)));
    }
}
