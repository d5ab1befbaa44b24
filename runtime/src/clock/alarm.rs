//! Waiting for the instant that core named.

use std::future::Future;
use std::io;
use std::pin::Pin;

use matriarch_core::time::Instant;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Alarm, Timer, now};

/// One timer for the loop, on core's own clock. It wakes the agent once where the timers of the async runtime, on a
/// clock that stands still while the host is suspended, wake it two or three times.
pub(super) struct HostAlarm {
    timer: AsyncFd<Timer>,
    set: Option<Instant>,
}

impl HostAlarm {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: a `Timer` names the same descriptor until it is dropped, which is after its deregistration.
        let timer = unsafe { AsyncFd::register_with_interest(Timer::new()?, Interest::READABLE) }?;
        Ok(Self { timer, set: None })
    }

    async fn wait(&mut self, wake: Option<Instant>) {
        if self.set != wake {
            self.timer.get_ref().set(wake);
            self.set = wake;
        }
        loop {
            let Ok(mut ready) = self.timer.readable().await else { return std::future::pending().await };
            ready.clear_ready();
            if wake.is_some_and(|wake| now() >= wake) {
                self.set = None;
                return;
            }
            // What was ready was an earlier setting. Or this one, by a clock that is a little ahead of what we read.
            self.timer.get_ref().set(wake);
        }
    }
}

impl Alarm for HostAlarm {
    fn rings(&mut self, wake: Option<Instant>) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.wait(wake))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use matriarch_core::time::Duration;

    use super::*;

    #[tokio::test]
    async fn rings_for_the_last_setting_alone() {
        let mut alarm = HostAlarm::new().unwrap();
        let past = now();
        alarm.rings(Some(past)).await;
        // Due, and given up before anybody looked: it is ready when another instant is waited for.
        let mut given_up = Box::pin(alarm.rings(Some(past)));
        assert!(poll_fn(|context| Poll::Ready(given_up.as_mut().poll(context).is_pending())).await);
        drop(given_up);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let soon = now() + Duration::from_millis(30);
        alarm.rings(Some(soon)).await;
        assert!(now() >= soon);
        // Set for long, given up, and set again for now.
        let late = now() + Duration::from_secs(3600);
        assert!(tokio::time::timeout(Duration::from_millis(20), alarm.rings(Some(late))).await.is_err());
        assert!(tokio::time::timeout(Duration::from_millis(20), alarm.rings(None)).await.is_err());
        alarm.rings(Some(now())).await;
        alarm.rings(Some(now())).await;
    }
}
