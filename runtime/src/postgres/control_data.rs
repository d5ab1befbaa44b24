//! Reads `global/pg_control` without starting `pg_controldata`: a health question every few milliseconds must not fork.
//!
//! Source: `src/include/catalog/pg_control.h` of PostgreSQL 13 to 18. The file is `ControlFileData` in the server's own
//! byte order and alignment, with a CRC-32C over everything before the CRC as its last field. The part that matters
//! here has had one layout since version 1300 (PostgreSQL 13 to 16, 1700 and 1800 differ only in what follows it).

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use matriarch_core::id::{Lsn, SystemId, Timeline};
use matriarch_core::view::postgres::ControlState;

/// What `pg_control` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlData {
    /// `Database system identifier`.
    pub system_id: SystemId,
    /// `pg_control version number`.
    pub version: u32,
    /// `Catalog version number`.
    pub catalog_version: u32,
    /// `Database cluster state`.
    pub state: ControlState,
    /// `Latest checkpoint location`.
    pub checkpoint: Lsn,
    /// `Latest checkpoint's REDO location`.
    pub redo: Lsn,
    /// `Latest checkpoint's TimeLineID`.
    pub checkpoint_timeline: Timeline,
    /// `Minimum recovery ending location`.
    pub min_recovery: Lsn,
    /// `Min recovery ending loc's timeline`.
    pub min_recovery_timeline: Timeline,
    /// `wal_log_hints setting`.
    pub wal_log_hints: bool,
    /// `max_connections`, `max_worker_processes`, `max_wal_senders`, `max_prepared_xacts`, `max_locks_per_xact`: a
    /// standby with less than these refuses to start.
    pub maxima: [i32; 5],
    /// `WAL block size`, bytes.
    pub wal_block_size: u32,
    /// `Bytes per WAL segment`.
    pub wal_segment_size: u32,
    /// `Data page checksum version`; 0 = off.
    pub checksum_version: u32,
}

impl ControlData {
    /// The timeline that the directory is on: a promotion writes the end-of-recovery position at once, and the
    /// checkpoint's timeline follows only with the next checkpoint.
    pub fn timeline(&self) -> Timeline {
        self.checkpoint_timeline.max(self.min_recovery_timeline)
    }

    /// `pg_rewind` can work: hint bits are in the WAL.
    pub fn rewindable(&self) -> bool {
        self.wal_log_hints || self.checksum_version != 0
    }
}

/// Reads `global/pg_control` of a data directory.
///
/// # Errors
/// `Ok(None)` if there is no such file. A text that names the file and the way out if it cannot be read or understood.
/// The server rewrites the file in place, so a torn read is tried again for up to 20 ms.
pub fn read(data_dir: &Path) -> Result<Option<ControlData>, String> {
    let path = data_dir.join("global/pg_control");
    let mut last = String::new();
    for attempt in 0..10 {
        if attempt > 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
        match std::fs::read(&path) {
            Ok(bytes) => match parse(&bytes) {
                Ok(control) => return Ok(Some(control)),
                Err(why) => last = why,
            },
            Err(e) if e.kind() == ErrorKind::NotFound || e.kind() == ErrorKind::NotADirectory => return Ok(None),
            Err(e) => return Err(format!("{} cannot be read: {e}; give its owner access", path.display())),
        }
    }
    Err(format!("{}: {last}; restore the data directory or clone it again", path.display()))
}

/// Where the CRC is, by `pg_control` version. 1800 put `default_char_signedness` before the nonce.
fn crc_offset(version: u32) -> Option<usize> {
    match version {
        1300 | 1700 => Some(288),
        1800 => Some(292),
        _ => None,
    }
}

/// Understands the bytes of `pg_control`.
///
/// # Errors
/// What is wrong with them.
pub fn parse(bytes: &[u8]) -> Result<ControlData, String> {
    let version = u32_at(bytes, 8)?;
    let crc_at = crc_offset(version).ok_or_else(|| {
        format!("pg_control version {version} is not one of PostgreSQL 13 to 18 on a machine of this byte order")
    })?;
    let covered = bytes.get(..crc_at).ok_or("the file is too short")?;
    if crc32c(covered) != u32_at(bytes, crc_at)? {
        return Err("its checksum is wrong: the file is damaged".into());
    }
    Ok(ControlData {
        system_id: SystemId(u64_at(bytes, 0)?),
        version,
        catalog_version: u32_at(bytes, 12)?,
        state: state(u32_at(bytes, 16)?)?,
        checkpoint: Lsn(u64_at(bytes, 32)?),
        redo: Lsn(u64_at(bytes, 40)?),
        checkpoint_timeline: Timeline(u32_at(bytes, 48)?),
        min_recovery: Lsn(u64_at(bytes, 136)?),
        min_recovery_timeline: Timeline(u32_at(bytes, 144)?),
        wal_log_hints: byte_at(bytes, 176)? != 0,
        maxima: [
            u32_at(bytes, 180)?.cast_signed(),
            u32_at(bytes, 184)?.cast_signed(),
            u32_at(bytes, 188)?.cast_signed(),
            u32_at(bytes, 192)?.cast_signed(),
            u32_at(bytes, 196)?.cast_signed(),
        ],
        wal_block_size: u32_at(bytes, 224)?,
        wal_segment_size: u32_at(bytes, 228)?,
        checksum_version: u32_at(bytes, 252)?,
    })
}

/// `DBState` of `pg_control.h`.
fn state(number: u32) -> Result<ControlState, String> {
    Ok(match number {
        0 => ControlState::StartingUp,
        1 => ControlState::ShutDown,
        2 => ControlState::ShutDownInRecovery,
        3 => ControlState::ShuttingDown,
        4 => ControlState::InCrashRecovery,
        5 => ControlState::InArchiveRecovery,
        6 => ControlState::InProduction,
        other => return Err(format!("cluster state {other} is unknown")),
    })
}

fn byte_at(bytes: &[u8], at: usize) -> Result<u8, String> {
    bytes.get(at).copied().ok_or_else(|| "the file is too short".into())
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, String> {
    let four = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or("the file is too short")?;
    Ok(u32::from_ne_bytes(four))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, String> {
    let eight = bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).ok_or("the file is too short")?;
    Ok(u64::from_ne_bytes(eight))
}

/// CRC-32C (Castagnoli, reflected 0x82F63B78), bit by bit: 300 bytes do not need a table.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_the_check_string() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn a_flipped_bit_and_a_short_file_are_refused() {
        let mut bytes = vec![0; 8192];
        bytes[8..12].copy_from_slice(&1300u32.to_ne_bytes());
        bytes[16..20].copy_from_slice(&6u32.to_ne_bytes());
        let crc = crc32c(&bytes[..288]);
        bytes[288..292].copy_from_slice(&crc.to_ne_bytes());
        assert_eq!(parse(&bytes).unwrap().state, ControlState::InProduction);
        bytes[40] ^= 1;
        assert!(parse(&bytes).unwrap_err().contains("checksum"));
        assert!(parse(&bytes[..100]).is_err());
        assert!(parse(&[]).is_err());
    }
}
