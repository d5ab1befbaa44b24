//! Times that operators write, and times as Patroni shows them.

use jiff::civil::Time;
use jiff::fmt::temporal::{Pieces, PiecesOffset};
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, Zoned};
use matriarch_core::event::Schedule;
use matriarch_core::time::WallMillis;

/// Why a time cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScheduleError {
    /// Not a time.
    Unparsable,
    /// A time of no place: its offset from UTC is missing.
    NoTimezone,
    /// It has been.
    Past,
}

impl ScheduleError {
    /// Status and text of the REST API for the operation `action` (spec 2.8.1).
    pub fn answer(self, action: &str) -> (u16, String) {
        match self {
            Self::Unparsable => {
                let text = "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601";
                (422, text.to_owned())
            }
            Self::NoTimezone => (400, format!("Timezone information is mandatory for the scheduled {action}")),
            Self::Past => (422, format!("Cannot schedule {action} in the past")),
        }
    }
}

/// Parses an ISO 8601 time with a date, a time of day and an offset; `local` is the zone of one without an offset. The
/// text of the result is normalised as Patroni writes it: `2030-01-01T00:00:00+00:00`.
pub fn parse(text: &str, local: Option<&TimeZone>, now: WallMillis) -> Result<Schedule, ScheduleError> {
    let zoned = zoned(text.trim(), local)?;
    let at = WallMillis(zoned.timestamp().as_millisecond());
    if at <= now {
        return Err(ScheduleError::Past);
    }
    Ok(Schedule { text: iso(&zoned), at })
}

fn zoned(text: &str, local: Option<&TimeZone>) -> Result<Zoned, ScheduleError> {
    let normal = ["UTC", "GMT"].into_iter().find_map(|zone| text.strip_suffix(zone));
    let text = normal.map_or_else(|| text.to_owned(), |before| format!("{}Z", before.trim_end()));
    // A blank before the offset, as people write it and as `date` shows it.
    let text = match text.rfind([' ']) {
        Some(blank) if text[blank + 1..].starts_with(['+', '-']) => format!("{}{}", &text[..blank], &text[blank + 1..]),
        _ => text,
    };
    let pieces = Pieces::parse(&text).map_err(|_| ScheduleError::Unparsable)?;
    let civil = pieces.date().to_datetime(pieces.time().unwrap_or(Time::midnight()));
    let zone = match pieces.offset() {
        Some(PiecesOffset::Zulu) => TimeZone::fixed(Offset::UTC),
        Some(PiecesOffset::Numeric(numeric)) => TimeZone::fixed(numeric.offset()),
        _ => local.cloned().ok_or(ScheduleError::NoTimezone)?,
    };
    civil.to_zoned(zone).map_err(|_| ScheduleError::Unparsable)
}

/// Python's `isoformat()`: fractions only if there are any, the offset with a colon.
fn iso(zoned: &Zoned) -> String {
    let pattern = if zoned.subsec_nanosecond() >= 1000 { "%Y-%m-%dT%H:%M:%S.%6f%:z" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    zoned.strftime(pattern).to_string()
}

/// `2026-11-22 18:56:25.733225+00:00`, from microseconds since the Unix epoch.
pub fn micros_text(micros: i64) -> String {
    let timestamp = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH);
    timestamp.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S.%6f%:z").to_string()
}

/// `2026-11-22T18:56:25.733+00:00`, from milliseconds since the Unix epoch.
pub fn millis_text(wall: WallMillis) -> String {
    let timestamp = Timestamp::from_millisecond(wall.0).unwrap_or(Timestamp::UNIX_EPOCH);
    timestamp.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%3f%:z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(written: &str) -> Result<String, ScheduleError> {
        parse(written, None, WallMillis(0)).map(|schedule| schedule.text)
    }

    #[test]
    fn times_are_normalised_as_patroni_writes_them() {
        for written in ["2030-01-01T00:00:00+00:00", "2030-01-01T00:00Z", "2030-01-01 00:00:00 UTC", "20300101T000000Z"]
        {
            assert_eq!(text(written).as_deref(), Ok("2030-01-01T00:00:00+00:00"), "{written}");
        }
        assert_eq!(text("2030-01-01T02:30:00.5+02:00").as_deref(), Ok("2030-01-01T02:30:00.500000+02:00"));
        assert_eq!(text("2030-01-01 02:30:00 +0200").as_deref(), Ok("2030-01-01T02:30:00+02:00"));
        let at = parse("2030-01-01T02:00:00+02:00", None, WallMillis(0)).unwrap().at;
        assert_eq!(at, WallMillis(1_893_456_000_000));
    }

    #[test]
    fn times_that_cannot_be_used_have_patronis_answers() {
        assert_eq!(text("2030-01-01T00:00:00"), Err(ScheduleError::NoTimezone));
        assert_eq!(text("tomorrow"), Err(ScheduleError::Unparsable));
        assert_eq!(text(""), Err(ScheduleError::Unparsable));
        let now = WallMillis(1_893_456_000_000);
        assert_eq!(parse("2030-01-01T00:00:00Z", None, now), Err(ScheduleError::Past));
        assert_eq!(ScheduleError::Past.answer("switchover"), (422, "Cannot schedule switchover in the past".into()));
    }

    #[test]
    fn a_local_zone_completes_a_bare_time() {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let schedule = parse("2030-01-01T01:00", Some(&zone), WallMillis(0)).unwrap();
        assert_eq!(schedule.text, "2030-01-01T01:00:00+01:00");
        assert_eq!(schedule.at, WallMillis(1_893_456_000_000));
    }

    #[test]
    fn instants_are_shown_as_postgresql_shows_them() {
        assert_eq!(micros_text(1_795_373_785_733_225), "2026-11-22 18:56:25.733225+00:00");
        assert_eq!(millis_text(WallMillis(0)), "1970-01-01T00:00:00.000+00:00");
    }
}
