//! The lease arithmetic. `docs/time.md` derives it; every function here is pure and has a naive twin in its tests.

use crate::id::{LeaseId, Revision};
use crate::time::{Duration, Instant};

/// What the arithmetic assumes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Bounds {
    /// `rho`: the largest relative error of the rate of any clock, in parts per million.
    pub rho_ppm: u32,
    /// `c`: the worst time from the guard's deadline until PostgreSQL can acknowledge nothing more.
    pub stop_cost: Duration,
}

impl Default for Bounds {
    /// Twice what ntpd slews at most; chrony needs a `maxslewrate` (`docs/time.md`). Killing 106 children took 25 ms on
    /// a quiet machine, and up to 123 ms on a loaded one.
    fn default() -> Self {
        Self { rho_ppm: 1000, stop_cost: Duration::from_millis(250) }
    }
}

impl Bounds {
    /// Until when a lease of `ttl` holds at the latest that is safe, if the renewal was sent at `sent`:
    /// `sent + ttl - 2*rho*ttl`. Dated from the *sending*: the store may have begun to count right then.
    pub fn until(self, sent: Instant, ttl: Duration) -> Instant {
        let until = sent + ttl.saturating_sub(self.drift(ttl));
        assert!(until >= sent, "a lease cannot end before it began");
        assert!(until <= sent + ttl, "no one may count on more than was granted");
        until
    }

    /// When the guard must stop PostgreSQL for it to be silent at [`Self::until`].
    pub fn arm_at(self, sent: Instant, ttl: Duration) -> Instant {
        let at = self.until(sent, ttl).back(self.stop_cost);
        assert!(at <= self.until(sent, ttl), "the guard fires before the lease ends");
        at
    }

    /// `2*rho*ttl`: our clock may be slow and the store's fast at once.
    pub fn drift(self, ttl: Duration) -> Duration {
        let nanos = ttl.as_nanos().saturating_mul(2 * u128::from(self.rho_ppm)) / 1_000_000;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How often a tenure is renewed: a third of what was granted.
    pub fn renew_interval(ttl: Duration) -> Duration {
        ttl / 3
    }

    /// How long one attempt to renew may take: two of them and the stop must fit behind one interval.
    pub fn attempt_deadline(ttl: Duration) -> Duration {
        (ttl / 5).min(Duration::from_secs(2))
    }

    /// The shortest granted ttl with which a missed attempt does no harm:
    /// `renew_interval + 2*attempt_deadline + stop_cost + drift <= ttl`.
    pub fn fits(self, ttl: Duration) -> bool {
        let needed = Self::renew_interval(ttl) + 2 * Self::attempt_deadline(ttl) + self.stop_cost + self.drift(ttl);
        needed <= ttl
    }
}

/// Our claim to lead. Authority needs a held tenure *and* the guard's acknowledgement.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Tenure {
    /// None.
    #[default]
    None,
    /// The agent has started beside a primary that may be its own: it may go on until the guard's instant.
    Adopting {
        /// The guard stops PostgreSQL then.
        deadline: Instant,
    },
    /// The leader key is ours.
    Held(Held),
    /// The leader key was ours and is heard to be gone. No leader is known. Writes are held reversibly while the key is
    /// asked for once more.
    Suspended {
        /// What was held.
        was: Held,
        /// When the key was heard to be gone.
        since: Instant,
    },
}

/// A tenure whose key is ours as far as is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Held {
    /// The lease.
    pub lease: LeaseId,
    /// The `create_revision` of the leader key: the epoch.
    pub epoch: Revision,
    /// The ttl that the store granted.
    pub ttl: Duration,
    /// When the newest proven renewal was *sent*.
    pub confirmed: Instant,
}

impl Tenure {
    /// The tenure that is held.
    pub fn held(&self) -> Option<&Held> {
        match self {
            Self::Held(held) => Some(held),
            Self::None | Self::Adopting { .. } | Self::Suspended { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_ttl_fits_only_with_room_for_the_drift_of_the_clocks() {
        let ttl = Duration::from_secs(30);
        let others = Bounds::renew_interval(ttl) + 2 * Bounds::attempt_deadline(ttl) + Bounds::default().drift(ttl);
        let spare = ttl.saturating_sub(others);
        let bounds = |stop_cost| Bounds { stop_cost, ..Bounds::default() };
        assert!(bounds(spare).fits(ttl));
        assert!(!bounds(spare + Duration::from_nanos(1)).fits(ttl));
    }

    /// The naive version: two clocks that are wrong by `rho` in opposite directions, counted in nanoseconds.
    /// The store starts to count when the renewal is sent, at the earliest, and its clock runs fast.
    fn store_expires_at(sent: u64, ttl_ns: u64, rho_ppm: u64) -> u64 {
        // true time that passes while the fast clock of the store shows ttl
        sent + (u128::from(ttl_ns) * 1_000_000 / u128::from(1_000_000 + rho_ppm)) as u64
    }

    /// True time at which our slow clock shows `until`, if both clocks agreed at `sent`.
    fn we_stop_at(sent: u64, until: u64, rho_ppm: u64) -> u64 {
        let shown = u128::from(until - sent);
        sent + (shown * 1_000_000 / u128::from(1_000_000 - rho_ppm)) as u64
    }

    proptest! {
        #[test]
        fn our_end_is_never_after_the_stores(sent in 0u64..1 << 60, ttl_ms in 1u64..120_000, rho in 0u32..2000) {
            let bounds = Bounds { rho_ppm: rho, stop_cost: Duration::ZERO };
            let ttl = Duration::from_millis(ttl_ms);
            let until = bounds.until(Instant(sent), ttl).0;
            let ours = we_stop_at(sent, until, u64::from(rho));
            let theirs = store_expires_at(sent, ttl_ms * 1_000_000, u64::from(rho));
            prop_assert!(ours <= theirs + 1, "we stop at {ours}, the store expires at {theirs}");
        }

        #[test]
        fn a_later_renewal_never_shortens_a_tenure(sent in 0u64..1 << 60, more in 0u64..1 << 40, ttl_ms in 1u64..120_000) {
            let bounds = Bounds::default();
            let ttl = Duration::from_millis(ttl_ms);
            prop_assert!(bounds.arm_at(Instant(sent), ttl) <= bounds.arm_at(Instant(sent + more), ttl));
        }
    }

    #[test]
    fn two_seconds_fit_and_half_a_second_does_not() {
        let bounds = Bounds::default();
        assert!(bounds.fits(Duration::from_secs(2)));
        assert!(bounds.fits(Duration::from_secs(30)));
        assert!(!bounds.fits(Duration::from_millis(500)));
    }

    #[test]
    fn the_guard_fires_before_the_end() {
        let bounds = Bounds { rho_ppm: 1000, stop_cost: Duration::from_millis(250) };
        let sent = Instant(1_000_000_000);
        let ttl = Duration::from_secs(30);
        assert_eq!(bounds.until(sent, ttl), sent + Duration::from_millis(29_940));
        assert_eq!(bounds.arm_at(sent, ttl), sent + Duration::from_millis(29_690));
    }
}
