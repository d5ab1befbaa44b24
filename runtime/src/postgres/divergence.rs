//! Does the local data directory hold WAL that an upstream does not?

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use matriarch_core::id::{Lsn, Timeline};
use matriarch_core::time::Seen;
use matriarch_core::timeline::{History, Relation, pg_rewind_finds_the_fork};
use matriarch_core::view::postgres::{ControlState, Process, Upstream};

use super::control_data::{self, ControlData};
use super::settings::Settings;
use super::sql::{Monitor, SqlFailure};
use super::waldump::{self, End};
use super::walsender::WalSender;
use super::{files, proc};
use crate::aside::look;

/// How an upstream's history relates to ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Divergence {
    /// Everything here is there as well: streaming can go on.
    None,
    /// Here is WAL that is not there.
    Diverged {
        /// The last position that both share.
        at: Lsn,
    },
    /// It cannot be told; why.
    Unknown(String),
}

const DEADLINE: Duration = Duration::from_secs(3);

/// Compares with `upstream`, which is asked over a replication connection. It must be a primary: a standby's history
/// may yet be overtaken. Its caller knows who leads, and may be wrong: a store that was restored has brought back the
/// key and the member record of one that leads no more, and what is here may be what was acknowledged since.
pub(super) async fn check(settings: &Arc<Settings>, monitor: &Monitor, upstream: &Upstream) -> Divergence {
    let compared = async {
        let control = control_of(settings).await?;
        let mut sender = WalSender::connect(upstream, &settings.replication, DEADLINE).await?;
        // First: what it tells from here on it tells as a primary.
        let stands_by = sender.in_recovery().await?;
        let identity = sender.identify_system().await?;
        if identity.system_id != control.system_id {
            let (theirs, ours) = (identity.system_id, control.system_id);
            return Err(format!(
                "{} has system identifier {theirs}, this data directory {ours}: they are different clusters; \
                 clone this one anew or correct the address",
                upstream.member
            ));
        }
        if stands_by {
            return Err(format!("{} is a standby: it does not lead, whatever its keys say", upstream.member));
        }
        let theirs = sender.timeline_history(identity.timeline).await?;
        let local = local_position(settings, monitor).await?;
        Ok(compare(&local, &theirs, identity.position))
    };
    compared.await.unwrap_or_else(Divergence::Unknown)
}

/// Whether `upstream` answers as the cluster that this directory holds, as far as the directory still tells which.
pub(super) async fn same_cluster(settings: &Arc<Settings>, upstream: &Upstream) -> Result<(), String> {
    let mut sender = WalSender::connect(upstream, &settings.replication, DEADLINE).await?;
    let theirs = sender.identify_system().await?.system_id;
    match control_of(settings).await {
        Ok(control) if control.system_id != theirs => {
            let (member, ours) = (&upstream.member, control.system_id);
            Err(format!("{member} has system identifier {theirs}, this data directory {ours}: correct the address"))
        }
        // What cannot be read any more holds nothing to be kept.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Refuses a rewind to `upstream` for which `pg_rewind` would take another place than where the histories part.
pub(super) async fn must_be_found_by_pg_rewind(settings: &Arc<Settings>, upstream: &Upstream) -> Result<(), String> {
    let mut sender = WalSender::connect(upstream, &settings.replication, DEADLINE).await?;
    let timeline = sender.identify_system().await?.timeline;
    let theirs = sender.history_file(timeline).await?;
    let control = control_of(settings).await?;
    // Which of the two it goes by differs between versions.
    for own in [control.checkpoint_timeline, control.timeline()] {
        let seen = Arc::clone(settings);
        let ours = look(move || files::history_file(&seen.data_dir, own)).await;
        let ours = ours.map_err(|e| format!("the history of timeline {own}: {e}"))?;
        match pg_rewind_finds_the_fork((own, &ours), (timeline, &theirs)) {
            Ok(true) => {}
            Ok(false) => {
                return Err(format!(
                    "pg_rewind would go by the wrong place: {}'s timeline {timeline} comes of a recovery to before its \
                     parent began",
                    upstream.member
                ));
            }
            Err(line) => return Err(format!("line {line} of a history file is not understood")),
        }
    }
    Ok(())
}

/// How far this directory goes.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Local {
    history: History,
    position: Lsn,
}

fn compare(local: &Local, theirs: &History, their_position: Lsn) -> Divergence {
    // Their position was asked before ours was read, and a primary's only grows: being ahead of it on its own timeline
    // is no divergence.
    let their_position =
        if local.history.timeline == theirs.timeline { their_position.max(local.position) } else { their_position };
    match local.history.relation(local.position, theirs, their_position) {
        Relation::Diverged { at } => Divergence::Diverged { at },
        // The upstream leads; what is only here will never be there.
        Relation::Ahead => Divergence::Diverged { at: their_position },
        Relation::Equal | Relation::Behind => Divergence::None,
    }
}

async fn control_of(settings: &Arc<Settings>) -> Result<ControlData, String> {
    let settings = Arc::clone(settings);
    look(move || read_control(&settings.data_dir)).await
}

fn read_control(data_dir: &Path) -> Result<ControlData, String> {
    control_data::read(data_dir)?.ok_or_else(|| format!("{} holds no pg_control", data_dir.display()))
}

async fn local_position(settings: &Arc<Settings>, monitor: &Monitor) -> Result<Local, String> {
    let seen = Arc::clone(settings);
    let stopped = look(move || match proc::observe(&seen.data_dir) {
        Process::Absent => read_control(&seen.data_dir).map(Some),
        Process::Alive { .. } | Process::Unknown => Ok(None),
    });
    let (timeline, position) = if let Some(control) = stopped.await? {
        stopped_position(settings, control).await?
    } else {
        match monitor.observe(settings, DEADLINE).await {
            Ok(Seen { value: sql, .. }) => {
                (sql.timeline, if sql.in_recovery { sql.received.max(sql.replayed) } else { sql.flushed })
            }
            Err(SqlFailure::NotAccepting(why)) => must_reach(&control_of(settings).await?).ok_or(why)?,
            Err(failure) => return Err(failure.to_string()),
        }
    };
    let seen = Arc::clone(settings);
    let history = look(move || files::history(&seen.data_dir, timeline)).await;
    if history.timeline == Timeline(0) {
        return Err(format!("pg_wal/{:08X}.history of this data directory is missing or damaged", timeline.0));
    }
    Ok(Local { history, position })
}

fn recovers(control: &ControlData) -> bool {
    matches!(control.state, ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery)
}

/// Up to where a standby must replay before it answers: its minimum recovery point.
fn must_reach(control: &ControlData) -> Option<(Timeline, Lsn)> {
    let known = control.min_recovery != Lsn(0) && control.min_recovery_timeline != Timeline(0);
    (recovers(control) && known).then_some((control.min_recovery_timeline, control.min_recovery))
}

/// A standby that stopped holds everything up to its minimum recovery point; what it has received beyond that is found
/// when it runs. One without that point is like a primary: one that stopped cleanly holds everything up to the end of
/// its shutdown checkpoint, one that crashed whatever its WAL holds.
async fn stopped_position(settings: &Arc<Settings>, control: ControlData) -> Result<(Timeline, Lsn), String> {
    if let Some(known) = must_reach(&control) {
        return Ok(known);
    }
    let (timeline, last) = if recovers(&control) || control.state == ControlState::ShutDown {
        (control.checkpoint_timeline, control.checkpoint)
    } else {
        let seen = Arc::clone(settings);
        let timeline = control.timeline();
        let history = look(move || files::history(&seen.data_dir, timeline)).await;
        let (timeline, from) = last_known(&control, &history)?;
        match waldump::end(settings, timeline, from).await? {
            End::LastRecord(at) => (timeline, at),
            End::Segment(name) => {
                let start = segment_start(control.wal_segment_size, name)
                    .ok_or("pg_waldump misses a segment that there cannot be")?;
                return Ok((timeline, start));
            }
        }
    };
    let seen = Arc::clone(settings);
    let end = look(move || end_of_record(&seen.data_dir, &control, timeline, last)).await?;
    Ok((timeline, end))
}

/// From where on the WAL of a primary that crashed is to be read: from its last checkpoint; or, if it had been promoted
/// and came to no checkpoint since, from the beginning of its timeline. Its control file tells that one by the end of
/// recovery, as to PostgreSQL itself. `history` is that of the timeline which the directory is on.
fn last_known(control: &ControlData, history: &History) -> Result<(Timeline, Lsn), String> {
    let timeline = control.timeline();
    if timeline == control.checkpoint_timeline {
        return Ok((timeline, control.checkpoint));
    }
    match history.ancestors.last() {
        Some(ancestor) if history.timeline == timeline => Ok((timeline, ancestor.end)),
        _ => Err(format!("pg_wal/{:08X}.history of this data directory is missing or damaged", timeline.0)),
    }
}

/// Where a segment begins, by the two last words of its name; `None` if the last counts further than to 4 GiB.
pub(super) fn segment_start(segment_size: u32, name: u64) -> Option<Lsn> {
    let (high, low) = (name & !u64::from(u32::MAX), name & u64::from(u32::MAX));
    let within = low * u64::from(segment_size);
    u32::try_from(within).ok().map(|within| Lsn(high | u64::from(within)))
}

/// Where the WAL record at `start` ends: its length is its first field (`xlogrecord.h`), and it goes on behind the
/// header of each page that it reaches (`xlog_internal.h`: 24 bytes, 40 at the beginning of a segment).
fn end_of_record(data_dir: &Path, control: &ControlData, timeline: Timeline, start: Lsn) -> Result<Lsn, String> {
    let (segment_size, page) = (u64::from(control.wal_segment_size), u64::from(control.wal_block_size));
    if segment_size == 0 || page < 64 {
        return Err("pg_control has no sizes of WAL segments and pages".into());
    }
    let segment = start.0 / segment_size;
    let per_id = (1 << 32) / segment_size;
    let name = format!("{:08X}{:08X}{:08X}", timeline.0, segment / per_id, segment % per_id);
    let path = data_dir.join("pg_wal").join(&name);
    let mut length = [0; 4];
    File::open(&path)
        .and_then(|mut file| {
            file.seek(SeekFrom::Start(start.0 % segment_size))?;
            file.read_exact(&mut length)
        })
        .map_err(|e| format!("{}: {e}", path.display()))?;
    let length = u64::from(u32::from_ne_bytes(length));
    if !(24..=1 << 30).contains(&length) {
        return Err(format!("{}: no record at {start}", path.display()));
    }
    let end = walk(start.0, length.next_multiple_of(8), segment_size, page);
    end.map(Lsn).ok_or_else(|| format!("{}: the record at {start} has no end", path.display()))
}

/// `None`: there are no positions as far as that.
pub(super) fn walk(start: u64, length: u64, segment_size: u64, page: u64) -> Option<u64> {
    let (mut at, mut left) = (start, length);
    loop {
        let room = page - at % page;
        if left <= room {
            return at.checked_add(left);
        }
        left -= room;
        at = at.checked_add(room)?;
        at = at.checked_add(if at % segment_size == 0 { 40 } else { 24 })?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use matriarch_core::timeline::Ancestor;

    fn second(end: u64) -> History {
        let ancestors = vec![Ancestor { timeline: Timeline(1), end: Lsn(end), reason: String::new() }];
        History { ancestors, timeline: Timeline(2) }
    }

    fn first(position: u64) -> Local {
        Local { history: History::first(Timeline(1)), position: Lsn(position) }
    }

    #[test]
    fn an_old_primary_that_ended_at_the_switch_is_not_diverged() {
        assert_eq!(compare(&first(100), &second(100), Lsn(500)), Divergence::None);
        assert_eq!(compare(&first(101), &second(100), Lsn(500)), Divergence::Diverged { at: Lsn(100) });
    }

    #[test]
    fn what_only_we_hold_is_divergence() {
        let local = Local { history: second(100), position: Lsn(150) };
        let theirs = History::first(Timeline(1));
        assert!(matches!(compare(&local, &theirs, Lsn(100)), Divergence::Diverged { .. }));
        assert_eq!(compare(&first(120), &theirs, Lsn(100)), Divergence::None);
    }

    fn crashed(min_recovery_timeline: u32) -> ControlData {
        ControlData {
            system_id: matriarch_core::id::SystemId(7),
            version: 1300,
            catalog_version: 1,
            state: ControlState::InProduction,
            checkpoint: Lsn(80),
            redo: Lsn(70),
            checkpoint_timeline: Timeline(1),
            min_recovery: Lsn(if min_recovery_timeline == 0 { 0 } else { 120 }),
            min_recovery_timeline: Timeline(min_recovery_timeline),
            wal_log_hints: true,
            maxima: [0; 5],
            wal_block_size: 8192,
            wal_segment_size: 16 << 20,
            checksum_version: 0,
        }
    }

    #[test]
    fn one_that_crashed_before_the_first_checkpoint_of_its_timeline_is_read_on_that_timeline() {
        let first = History::first(Timeline(1));
        assert_eq!(last_known(&crashed(0), &first), Ok((Timeline(1), Lsn(80))));
        assert_eq!(last_known(&crashed(1), &first), Ok((Timeline(1), Lsn(80))));
        assert_eq!(last_known(&crashed(2), &second(100)), Ok((Timeline(2), Lsn(100))));
        assert!(last_known(&crashed(2), &History::first(Timeline(0))).is_err());
    }

    #[test]
    fn a_record_goes_on_behind_page_headers() {
        let (segment, page) = (16 << 20, 8192);
        assert_eq!(walk(100, 120, segment, page), Some(220));
        assert_eq!(walk(8192 - 120, 120, segment, page), Some(8192));
        assert_eq!(walk(8192 - 40, 120, segment, page), Some(8192 + 24 + 80));
        assert_eq!(walk(segment - 40, 120, segment, page), Some(segment + 40 + 80));
        assert_eq!(walk(u64::MAX - 100, 120, segment, page), None, "no number overflows");
    }

    #[test]
    fn a_segment_begins_where_its_name_says_if_there_can_be_one_of_that_name() {
        let size = 16 << 20;
        assert_eq!(segment_start(size, (0xA << 32) | 0xFF), Some(Lsn(0xA_FF00_0000)));
        assert_eq!(segment_start(size, 0x100), None, "there are 256 of 16 MiB in 4 GiB");
        assert_eq!(segment_start(size, u64::MAX), None);
    }
}
