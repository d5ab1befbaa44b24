//! The host's clock as core's [`Instant`].

use matriarch_core::time::{Instant, WallMillis};
use rustix::time::{ClockId, clock_gettime};

/// CLOCK_BOOTTIME: goes on while the host is suspended, unlike the monotonic clock.
pub fn now() -> Instant {
    let t = clock_gettime(ClockId::Boottime);
    Instant(t.tv_sec.unsigned_abs() * 1_000_000_000 + t.tv_nsec.unsigned_abs())
}

/// The wall clock: for schedules and display only.
pub fn wall() -> WallMillis {
    let t = clock_gettime(ClockId::Realtime);
    WallMillis(t.tv_sec * 1000 + t.tv_nsec / 1_000_000)
}
