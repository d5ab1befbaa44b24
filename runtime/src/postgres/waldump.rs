//! Where the WAL of a server that crashed ends. `pg_waldump` reads it and writes nothing: a recovery would end with a
//! checkpoint, and a directory that held no more than its leader would hold more from then on.

use matriarch_core::id::{Lsn, Timeline};

use super::settings::Settings;
use super::tools::Tool;

/// What stopped the reading, which is never without an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The last record that is whole begins here.
    LastRecord(Lsn),
    /// There is no file for this segment.
    Segment(u64),
}

/// Reads from the record at `from` to the end.
pub(super) async fn end(settings: &Settings, timeline: Timeline, from: Lsn) -> Result<End, String> {
    let tool = Tool::new(settings, "pg_waldump").args(["-q", "-t", &timeline.to_string(), "-s", &from.to_string()]);
    match tool.arg("-p").arg(settings.data_dir.join("pg_wal")).run(&|_| ()).await {
        Ok(_) => Err("pg_waldump found no end of the WAL".into()),
        Err(said) => parse(&said).ok_or(said),
    }
}

pub(super) fn parse(said: &str) -> Option<End> {
    if let Some((_, rest)) = said.split_once("error in WAL record at ") {
        return Lsn::parse(rest.split(':').next()?).map(End::LastRecord);
    }
    let (_, rest) = said.split_once("could not find file \"")?;
    let name = rest.split('"').next()?.rsplit('/').next()?;
    let (high, low) = (name.get(8..16)?, name.get(16..24)?);
    let (high, low) = (u64::from_str_radix(high, 16).ok()?, u64::from_str_radix(low, 16).ok()?);
    // The name counts segments within 4 GiB; how many those are depends on their size.
    Some(End::Segment((high << 32) | low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stopped_the_reading_says_where_the_wal_ends() {
        let said = "pg_waldump failed (exit status: 1): pg_waldump: error: error in WAL record at 0/1526058: invalid \
                    record length at 0/15261F0: wanted 24, got 0";
        assert_eq!(parse(said), Some(End::LastRecord(Lsn(0x152_6058))));
        let said = "pg_waldump: fatal: could not find file \"000000010000000A000000FF\": No such file or directory";
        assert_eq!(parse(said), Some(End::Segment((0xA << 32) | 0xFF)));
        assert_eq!(parse("pg_waldump: error: could not open directory"), None);
        assert_eq!(parse("could not find file \"x\""), None);
    }
}
