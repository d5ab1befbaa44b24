//! Until when an order may make PostgreSQL writable, and whether it still is one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use matriarch_core::id::LeaseId;
use matriarch_core::op::Refusal;
use matriarch_core::time::Instant;
use matriarch_core::view::guard::Armed;

use crate::clock::{self, Clock};

/// How often [`Allowance::ended`] looks.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// What an order may be carried out under. A clone is the same allowance: the lanes keep one to prolong or withdraw it
/// while the order is being carried out.
///
/// The race: the agent is frozen between the decision to start a primary and the fork. The guard fires at the instant
/// that it has acknowledged, finds PostgreSQL dead, and is disarmed. The agent thaws and goes on where it was. So the
/// clock is read again at the last moment.
#[derive(Clone)]
pub struct Allowance(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    tenure: Option<LeaseId>,
    /// Nanoseconds of [`Instant`].
    until: AtomicU64,
    withdrawn: Mutex<bool>,
}

impl Allowance {
    /// For what makes nothing writable: at any time, until it is withdrawn.
    pub fn unbounded() -> Self {
        Self::new(None, Instant(u64::MAX), clock::host())
    }

    /// Until the instant that the guard has acknowledged, and not at it.
    pub fn under(armed: Armed, clock: Arc<dyn Clock>) -> Self {
        Self::new(Some(armed.tenure), armed.at, clock)
    }

    fn new(tenure: Option<LeaseId>, until: Instant, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner { clock, tenure, until: AtomicU64::new(until.0), withdrawn: Mutex::new(false) }))
    }

    /// The guard has acknowledged another instant: for the same tenure it counts.
    pub fn prolong(&self, armed: Armed) {
        if self.0.tenure == Some(armed.tenure) {
            self.0.until.fetch_max(armed.at.0, Ordering::SeqCst);
        }
    }

    /// Takes it back. After this nothing begins under it, and what has begun is there for everybody to see: this waits
    /// for a fork that is under way, which is as long as it takes to execute a program.
    pub fn withdraw(&self) {
        *self.withdrawn() = true;
    }

    /// Whether the instant has come. For use between fork and exec as well: it reads the clock and allocates nothing.
    pub(super) fn is_over(&self) -> bool {
        self.0.clock.now().0 >= self.0.until.load(Ordering::SeqCst)
    }

    /// Whether something writable may begin now.
    ///
    /// # Errors
    /// Its instant has come, or it was withdrawn; or there is no promise of the guard behind it.
    pub fn check_writable(&self) -> Result<(), Refusal> {
        self.0.tenure.ok_or(Refusal::NotOurTenure)?;
        self.check()
    }

    /// Whether something may begin now.
    ///
    /// # Errors
    /// Its instant has come, or it was withdrawn.
    pub fn check(&self) -> Result<(), Refusal> {
        self.begin(|| Ok(()))
    }

    /// Returns when nothing may begin under it any more.
    pub async fn ended(&self) {
        while self.check().is_ok() {
            // The clock is read again and again: what prolongs or withdraws it wakes nobody.
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Begins something, unless the instant has come or the allowance was withdrawn; nobody withdraws it meanwhile, so
    /// `begin` must not wait for a file.
    ///
    /// # Errors
    /// Those, and what `begin` says.
    pub fn begin<T>(&self, begin: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
        let withdrawn = self.withdrawn();
        if *withdrawn || self.is_over() {
            return Err(Refusal::NotOurTenure);
        }
        begin()
    }

    fn withdrawn(&self) -> std::sync::MutexGuard<'_, bool> {
        // The value is whole after a panic as well.
        self.0.withdrawn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: Duration = Duration::from_hours(1);

    fn armed(tenure: i64, at: Instant) -> Armed {
        Armed { tenure: LeaseId(tenure), at }
    }

    #[test]
    fn nothing_begins_at_the_instant_or_after_it() {
        let past = Allowance::under(armed(1, clock::now()), clock::host());
        assert_eq!(past.begin::<()>(|| panic!("begun")), Err(Refusal::NotOurTenure));
        past.prolong(armed(2, clock::now() + FAR));
        assert_eq!(past.check(), Err(Refusal::NotOurTenure), "the promise for another tenure is none for this one");
        past.prolong(armed(1, clock::now() + FAR));
        assert_eq!(past.begin(|| Ok(7)), Ok(7));
        past.prolong(armed(1, Instant::ZERO));
        assert_eq!(past.check(), Ok(()), "an instant only grows");
    }

    #[test]
    fn what_was_withdrawn_stays_so() {
        for allowance in [Allowance::unbounded(), Allowance::under(armed(1, clock::now() + FAR), clock::host())] {
            assert_eq!(allowance.check(), Ok(()));
            assert_eq!(allowance.check_writable().is_ok(), allowance.0.tenure.is_some(), "no promise, no primary");
            allowance.clone().withdraw();
            allowance.prolong(armed(1, clock::now() + FAR));
            assert_eq!(allowance.begin::<()>(|| panic!("begun")), Err(Refusal::NotOurTenure));
        }
    }
}
