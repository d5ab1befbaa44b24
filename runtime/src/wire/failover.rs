//! `failover`: what an operator asked for and nobody has done yet.

use jiff::fmt::temporal::Pieces;
use matriarch_core::id::Member;
use matriarch_core::time::WallMillis;
use serde_json::{Map, Value};

/// A request of an operator. At least one of the members is named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FailoverRequest {
    /// A switchover away from this member; absent: a manual failover.
    pub leader: Option<Member>,
    /// To this member; absent: to whoever is best.
    pub candidate: Option<Member>,
    /// Not before this time.
    pub scheduled_at: Option<Moment>,
}

/// A point in time of the wall clock, as someone wrote it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moment {
    /// As a number.
    pub at: WallMillis,
    /// ISO 8601 with its offset, in the form of Python's `isoformat`: `2030-01-01T00:00:00+00:00`.
    pub text: String,
}

impl Moment {
    /// Reads ISO 8601. `None`: it is something else, or it has no offset, without which it is no point in time.
    pub fn parse(text: &str) -> Option<Self> {
        let pieces = Pieces::parse(text.trim()).ok()?;
        let local = pieces.date().to_datetime(pieces.time()?);
        let offset = pieces.to_numeric_offset()?;
        let at = offset.to_timestamp(local).ok()?;
        // Python knows microseconds and writes either all six digits of them or none.
        let micros = match local.subsec_nanosecond() / 1_000 {
            0 => String::new(),
            micros => format!(".{micros:06}"),
        };
        let text = format!("{}{micros}{}", local.strftime("%Y-%m-%dT%H:%M:%S"), offset_text(offset.seconds()));
        Some(Self { at: WallMillis(at.as_millisecond()), text })
    }
}

/// The value of `failover`: `{}` is "no request". `scheduled_at` is ISO 8601 and is written as Patroni would write it.
pub fn failover_json(leader: Option<&Member>, candidate: Option<&Member>, scheduled_at: Option<&str>) -> String {
    let moment = |text: &str| Moment::parse(text).map_or_else(|| text.to_owned(), |moment| moment.text);
    let mut request = Map::new();
    let named = [
        ("leader", leader.map(|member| member.0.clone())),
        ("member", candidate.map(|member| member.0.clone())),
        ("scheduled_at", scheduled_at.map(moment)),
    ];
    for (key, value) in named {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            request.insert(key.to_owned(), value.into());
        }
    }
    Value::Object(request).to_string()
}

/// Reads `failover`. `None`: no request, or one that cannot be understood in all its parts. A part must not be dropped:
/// a switchover for next Sunday whose time is unreadable would become one for now, one whose leader is unreadable a
/// failover that asks for less.
pub fn request(text: &str) -> Option<FailoverRequest> {
    let request = match serde_json::from_str(text) {
        Ok(Value::Object(object)) => FailoverRequest {
            leader: name(&object, "leader")?,
            candidate: name(&object, "member")?,
            scheduled_at: match string(&object, "scheduled_at")? {
                "" => None,
                text => Some(Moment::parse(text)?),
            },
        },
        Ok(_) => return None,
        Err(_) => legacy(text)?,
    };
    (request.leader.is_some() || request.candidate.is_some()).then_some(request)
}

/// `from:to`, as old versions wrote it. A truncated JSON text also holds a colon, but begins differently.
fn legacy(text: &str) -> Option<FailoverRequest> {
    let (from, to) = text.split_once(':').filter(|_| !text.trim_start().starts_with(['{', '[', '"']))?;
    let member = |name: &str| Some(Member::new(name.trim())).filter(|member| !member.0.is_empty());
    Some(FailoverRequest { leader: member(from), candidate: member(to), scheduled_at: None })
}

/// The outer `None`: it is no name.
#[expect(clippy::option_option, reason = "unset and unreadable lead to opposite answers")]
fn name(request: &Map<String, Value>, key: &str) -> Option<Option<Member>> {
    string(request, key).map(|name| Some(Member::new(name)).filter(|member| !member.0.is_empty()))
}

/// Absent and null are the empty string; `None`: it is no string.
fn string<'a>(request: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    match request.get(key) {
        None | Some(Value::Null) => Some(""),
        Some(value) => value.as_str(),
    }
}

fn offset_text(seconds: i32) -> String {
    let sign = if seconds < 0 { '-' } else { '+' };
    let size = seconds.unsigned_abs();
    let (hours, minutes, rest) = (size / 3_600, size / 60 % 60, size % 60);
    let rest = if rest == 0 { String::new() } else { format!(":{rest:02}") };
    format!("{sign}{hours:02}:{minutes:02}{rest}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn written_as_patroni_writes_it() {
        let (n1, n2) = (Member::new("n1"), Member::new("n2"));
        assert_eq!(failover_json(Some(&n1), Some(&n2), None), r#"{"leader":"n1","member":"n2"}"#);
        assert_eq!(failover_json(None, Some(&n2), None), r#"{"member":"n2"}"#);
        assert_eq!(failover_json(None, None, None), "{}");
        for scheduled in ["2030-01-01T00:00:00+00:00", "2030-01-01T00:00:00Z", "2030-01-01 00:00+00:00"] {
            assert_eq!(
                failover_json(Some(&n1), Some(&n2), Some(scheduled)),
                r#"{"leader":"n1","member":"n2","scheduled_at":"2030-01-01T00:00:00+00:00"}"#
            );
        }
    }

    #[test]
    fn a_moment_keeps_the_offset_that_it_was_written_with() {
        let moment = Moment::parse("2030-01-01T02:30:00.5+02:30").unwrap();
        assert_eq!(moment.at, WallMillis(1_893_456_000_500));
        assert_eq!(moment.text, "2030-01-01T02:30:00.500000+02:30");
        assert_eq!(Moment::parse("2029-12-31T19:00:00-05:00").unwrap().at, WallMillis(1_893_456_000_000));
        for unclear in ["2030-01-01T00:00:00", "2030-01-01", "tomorrow", ""] {
            assert_eq!(Moment::parse(unclear), None, "{unclear}");
        }
    }

    #[test]
    fn the_legacy_text_form() {
        let read = |text| request(text).map(|r| (r.leader.map(|m| m.0), r.candidate.map(|m| m.0)));
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(read("n1:n2"), Some((named("n1"), named("n2"))));
        assert_eq!(read(" n1 : "), Some((named("n1"), None)));
        assert_eq!(read(":n2"), Some((None, named("n2"))));
        assert_eq!(read(":"), None);
        assert_eq!(read("n1"), None);
    }

    #[test]
    fn no_request() {
        for text in ["", "{}", "null", "[]", "7", r#"{"leader":"","member":null}"#, r#"{"leader":"n1","mem"#] {
            assert_eq!(request(text), None, "{text}");
        }
    }

    #[test]
    fn a_request_with_an_unreadable_part_is_none() {
        for text in [
            r#"{"leader":"n1","scheduled_at":"next sunday"}"#,
            r#"{"leader":"n1","scheduled_at":"2030-01-01T00:00:00"}"#,
            r#"{"leader":5,"member":"n2"}"#,
            r#"{"leader":"n1","member":["n2"]}"#,
        ] {
            assert_eq!(request(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn read_back_as_written(leader in "[a-z:\"é]{0,5}", candidate in "[a-z:\"é]{1,5}", ms in 0..4_102_444_800_000_i64) {
            let leader = Some(Member(leader)).filter(|member| !member.0.is_empty());
            let candidate = Some(Member(candidate));
            let text = jiff::Timestamp::from_millisecond(ms).unwrap().to_string();
            let read = request(&failover_json(leader.as_ref(), candidate.as_ref(), Some(&text))).unwrap();
            prop_assert_eq!(read.leader, leader);
            prop_assert_eq!(read.candidate, candidate);
            prop_assert_eq!(read.scheduled_at.unwrap().at, WallMillis(ms));
        }

        #[test]
        fn any_text_can_be_read(text in ".*") {
            let _ = (request(&text), Moment::parse(&text));
        }
    }
}
