//! True time, which nobody in the world can see, and the clocks of its hosts, which run at their own rate.

use std::ops::Add;

use matriarch_core::time::{Duration, Instant, WallMillis};
use serde::Serialize;

/// Nanoseconds of true time since the world began.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize)]
pub struct Time(pub u64);

impl Time {
    /// From milliseconds.
    pub fn from_ms(ms: u64) -> Self {
        Self(ms * 1_000_000)
    }

    /// Whole milliseconds.
    pub fn ms(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Time since `earlier`; zero if it is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1_000_000_000, self.0 / 1_000_000 % 1000)
    }
}

/// Milliseconds as a duration.
pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Wall time of true time 0: any day will do.
const WALL_EPOCH_MS: i64 = 1_800_000_000_000;

/// A host's clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    /// What CLOCK_BOOTTIME shows at true time 0.
    pub offset_ns: i64,
    /// How much faster it runs than true time, in parts per million.
    pub rate_ppm: i64,
    /// How far the wall clock is off.
    pub wall_off_ms: i64,
}

impl Clock {
    /// What CLOCK_BOOTTIME shows.
    pub fn read(&self, now: Time) -> Instant {
        let drift = i128::from(now.0) * i128::from(self.rate_ppm) / 1_000_000;
        let shown = i128::from(self.offset_ns) + i128::from(now.0) + drift;
        Instant(u64::try_from(shown).expect("a clock does not go below zero"))
    }

    /// The first true time at which it shows `instant`, or true time 0 if that was before.
    pub fn when(&self, instant: Instant) -> Time {
        let shown = i128::from(instant.0) - i128::from(self.offset_ns);
        if shown <= 0 {
            return Time(0);
        }
        let rate = 1_000_000 + i128::from(self.rate_ppm);
        // Rounded down, and a little more: the first that shows it is found from below.
        let mut time = Time(u64::try_from(shown * 1_000_000 / rate).unwrap_or(u64::MAX).saturating_sub(2));
        while self.read(time) < instant {
            time.0 += 1;
        }
        time
    }

    /// The host has booted, so long ago: CLOCK_BOOTTIME has begun anew.
    pub fn begins_anew(&mut self, now: Time, ago: Duration) {
        let drift = i128::from(now.0) * i128::from(self.rate_ppm) / 1_000_000;
        let shown = ago.as_nanos() as i128 - i128::from(now.0) - drift;
        self.offset_ns = i64::try_from(shown).expect("a run takes less than centuries");
    }

    /// What the wall clock shows.
    pub fn wall(&self, now: Time) -> WallMillis {
        WallMillis(WALL_EPOCH_MS + now.ms() as i64 + self.wall_off_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_read_back_to_the_first_moment_that_shows_it() {
        for rate_ppm in [-900, 0, 900] {
            let clock = Clock { offset_ns: 5_000_000_000, rate_ppm, wall_off_ms: 0 };
            for now in [0, 1, 999_999, 1_000_000_007, 86_400_000_000_000] {
                let back = clock.when(clock.read(Time(now)));
                assert!(back <= Time(now) && clock.read(back) == clock.read(Time(now)), "{rate_ppm} {now} {back:?}");
            }
        }
        let clock = Clock { offset_ns: 5, rate_ppm: 0, wall_off_ms: 0 };
        assert_eq!(clock.when(Instant(3)), Time(0));
    }

    #[test]
    fn a_clock_begins_anew_with_its_host() {
        let mut clock = Clock { offset_ns: 5_000_000_000, rate_ppm: -900, wall_off_ms: 0 };
        let (now, later) = (Time(600_000_000_000), Time(601_000_000_000));
        clock.begins_anew(now, ms(3000));
        assert_eq!(clock.read(now), Instant(3_000_000_000));
        assert_eq!(clock.read(later).since(clock.read(now)), Duration::from_micros(999_100));
        let back = clock.when(clock.read(later));
        assert!(back <= later && clock.read(back) == clock.read(later), "{back:?}");
    }
}
