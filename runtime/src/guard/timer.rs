//! A timer on the clock that goes on while the machine is suspended.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use matriarch_core::time::Instant;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

#[derive(Debug)]
pub(super) struct Timer(OwnedFd);

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self(timerfd_create(TimerfdClockId::Boottime, flags)?))
    }

    /// Readable from `wake` on, and not before; never for `None`.
    pub(super) fn set(&self, wake: Option<Instant>) {
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
