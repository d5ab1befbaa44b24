//! Times that operators write. What the API takes is written into the store and read there by another node: it is the
//! same moment for everybody.

use jiff::tz::{Offset, TimeZone};
use matriarch::schedule::{ScheduleError, micros_text, millis_text, parse};
use matriarch::wire::failover::{Moment, failover_json, request};
use matriarch_core::event::Schedule;
use matriarch_core::id::Member;
use matriarch_core::time::WallMillis;

/// 2026-11-22, and a clock that was never set.
const NOWS: [WallMillis; 2] = [WallMillis(1_795_000_000_000), WallMillis(0)];

/// The target.
pub fn target(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    let mut taken = Vec::new();
    for now in NOWS {
        let anywhere = parse(&text, None, now);
        // A zone that is assumed changes nothing for a time that names its own.
        let assumed = TimeZone::fixed(Offset::constant(-3));
        let here = parse(&text, Some(&assumed), now);
        assert_ne!(here, Err(ScheduleError::NoTimezone), "a zone was given");
        if anywhere != Err(ScheduleError::NoTimezone) {
            assert_eq!(here, anywhere, "{text:?}");
        }
        for schedule in [&anywhere, &here].into_iter().flatten() {
            the_same_for_everybody(&text, schedule, now);
        }
        taken.push(anywhere.map_or_else(|why| format!("{why:?}"), |schedule| format!("at {}", schedule.at.0)));
    }
    if let Some(moment) = Moment::parse(&text) {
        assert_eq!(Moment::parse(&moment.text), Some(moment.clone()), "{text:?}");
    }
    if let Ok(number) = text.trim().parse() {
        assert!(millis_text(WallMillis(number)).ends_with("+00:00"));
        assert!(micros_text(number).ends_with("+00:00"));
    }
    taken.join(", ")
}

fn the_same_for_everybody(text: &str, schedule: &Schedule, now: WallMillis) {
    assert!(schedule.at > now, "{text:?} is over");
    assert_eq!(
        parse(&schedule.text, None, now).as_ref(),
        Ok(schedule),
        "{text:?} is another time when it is read again"
    );
    let key = failover_json(Some(&Member::new("a")), None, Some(&schedule.text));
    let moment = request(&key).and_then(|request| request.scheduled_at);
    assert_eq!(moment.map(|moment| moment.at), Some(schedule.at), "{text:?} is another time in the store: {key}");
}
