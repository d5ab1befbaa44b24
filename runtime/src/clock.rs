//! The host's clock as core's [`Instant`], and the clock that an agent lives by.

mod alarm;

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;

use matriarch_core::time::{Instant, WallMillis};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};

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

/// The clock that an agent lives by: that of its host ([`host`]), or that of a simulated world.
pub trait Clock: Send + Sync {
    /// As [`now`].
    fn now(&self) -> Instant;
    /// As [`wall`].
    fn wall(&self) -> WallMillis;
    /// An alarm on this clock.
    ///
    /// # Errors
    /// The host has no timer left.
    fn alarm(&self) -> io::Result<Box<dyn Alarm>>;
}

/// Waits for an instant of its clock.
pub trait Alarm: Send {
    /// Returns at `wake` or, if that is over, at once; never for `None`. May be dropped and called again at any time.
    fn rings(&mut self, wake: Option<Instant>) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// The host's clock.
pub fn host() -> Arc<dyn Clock> {
    Arc::new(Host)
}

struct Host;

impl Clock for Host {
    fn now(&self) -> Instant {
        now()
    }

    fn wall(&self) -> WallMillis {
        wall()
    }

    fn alarm(&self) -> io::Result<Box<dyn Alarm>> {
        Ok(Box::new(alarm::HostAlarm::new()?))
    }
}

/// A timer on the clock of [`now`]: what fell due while the host was suspended is due when it wakes up.
#[derive(Debug)]
pub(crate) struct Timer(OwnedFd);

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self(timerfd_create(TimerfdClockId::Boottime, flags)?))
    }

    /// Readable from `wake` on, and not before; never for `None`.
    pub(crate) fn set(&self, wake: Option<Instant>) {
        // All zeros would switch the timer off instead of firing at once.
        let nanos = wake.map_or(0, |wake| wake.0.max(1));
        let value = Timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 };
        let setting = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // Cannot fail for a timerfd and a normalised time.
        timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &setting).ok();
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
