//! Time as core knows it: a number handed in, never a clock that is read.

use core::fmt;
use core::ops::{Add, Sub};
pub use core::time::Duration;

/// Nanoseconds of the host's CLOCK_BOOTTIME. It goes on during suspend, never goes back, and means nothing on another
/// host. Wall-clock time is another thing ([`WallMillis`]) and never takes part in a decision about authority.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Instant(pub u64);

impl Instant {
    /// The beginning of the host's time.
    pub const ZERO: Self = Self(0);

    /// Time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Time until `later`; zero if it is past.
    pub fn until(self, later: Self) -> Duration {
        later.since(self)
    }

    /// `self - by`, not before [`Self::ZERO`].
    #[must_use]
    pub fn back(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(by)))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos(by)))
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000 / 1_000)
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// Milliseconds since the Unix epoch: for schedules and display only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct WallMillis(pub i64);

/// A fact together with both ends of the exchange that brought it. "Old for hope, new for fear": what allows something
/// dangerous is as old as `asked`; what stops us counts from `heard`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Seen<T> {
    /// What was observed.
    pub value: T,
    /// Just before the question was sent.
    pub asked: Instant,
    /// When the answer was here.
    pub heard: Instant,
}

impl<T> Seen<T> {
    /// A fact with both ends of its exchange.
    pub fn new(value: T, asked: Instant, heard: Instant) -> Self {
        assert!(asked <= heard, "an answer cannot be heard before the question was asked");
        Self { value, asked, heard }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, millis};

    #[test]
    fn no_time_lies_between_an_instant_and_an_earlier_one() {
        assert_eq!((at(5) - at(2), at(2) - at(5)), (millis(3), Duration::ZERO));
        assert_eq!((at(5).since(at(2)), at(2).since(at(5))), (millis(3), Duration::ZERO));
        assert_eq!((at(2).until(at(5)), at(5).until(at(2))), (millis(3), Duration::ZERO));
        assert_eq!(Instant(7).back(millis(1)), Instant::ZERO, "nothing is before the host's time began");
    }
}
