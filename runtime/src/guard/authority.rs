//! The rules of arming: which tenure may write until when. No process is touched here and no clock is read.
//!
//! - At most one tenure is armed. Another one is refused until that one was disarmed or has fired, unless the order
//!   names it as the one to take the place of: an agent that won its key back knows both tenures, and PostgreSQL must
//!   not be without a fence for a moment.
//! - Within a tenure `at` only grows: a delayed, smaller one is acknowledged with the larger one in force.
//! - Nothing is armed for a moment that is past, and a tenure that has fired is spent.
//! - Once `at` is reached no order changes anything any more: whoever calls asks [`Authority::is_due`] first.

use matriarch_core::id::LeaseId;
use matriarch_core::time::Instant;
use serde::{Deserialize, Serialize};

use super::protocol::{Armed, Fired};

/// What is armed, held and spent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Authority {
    armed: Option<Armed>,
    held: bool,
    fired: Option<Fired>,
}

impl Authority {
    /// What is armed.
    pub fn armed(&self) -> Option<Armed> {
        self.armed
    }

    /// PostgreSQL is held.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// The last fence that fell.
    pub fn last_fired(&self) -> Option<Fired> {
        self.fired
    }

    /// The end of authority is here or past.
    pub fn is_due(&self, now: Instant) -> bool {
        self.armed.is_some_and(|armed| now >= armed.at)
    }

    /// Arms a tenure until `at`, or later if it is armed for longer; what is in force then. Not to be called when it [is due](Self::is_due).
    ///
    /// # Errors
    /// Why not, with the way out.
    pub fn arm(
        &mut self,
        tenure: LeaseId,
        at: Instant,
        instead_of: Option<LeaseId>,
        now: Instant,
    ) -> Result<Armed, String> {
        assert!(!self.is_due(now), "an order was taken after the end of authority");
        if at <= now {
            return Err(format!("{at} is past, it is {now}: ask the store again"));
        }
        // 0 is no tenure: whoever looks for one is armed with it, again and again.
        if tenure != LeaseId(0) && self.fired.is_some_and(|fired| fired.tenure == Some(tenure)) {
            return Err(format!("tenure {tenure} has fired and is spent: win another"));
        }
        let in_force = match self.armed {
            Some(armed) if armed.tenure != tenure && instead_of != Some(armed.tenure) => {
                return Err(format!("tenure {} is armed until {}: disarm it or let it fire", armed.tenure, armed.at));
            }
            Some(armed) if armed.tenure == tenure => Armed { tenure, at: armed.at.max(at) },
            Some(_) | None => Armed { tenure, at },
        };
        assert!(in_force.at >= at && in_force.at > now);
        self.armed = Some(in_force);
        Ok(in_force)
    }

    /// The tenure is not armed any more.
    ///
    /// # Errors
    /// Why not, with the way out.
    pub fn disarm(&mut self, tenure: LeaseId) -> Result<(), String> {
        if self.held {
            return Err("PostgreSQL is held and would stay so for ever: resume or fire first".into());
        }
        match self.armed {
            Some(armed) if armed.tenure != tenure => Err(format!("the tenure that is armed is {}", armed.tenure)),
            Some(_) | None => {
                self.armed = None;
                Ok(())
            }
        }
    }

    /// PostgreSQL is stopped reversibly.
    ///
    /// # Errors
    /// Why not, with the way out.
    pub fn hold(&mut self) -> Result<(), String> {
        if self.armed.is_none() {
            return Err("nothing is armed, so nothing would end the hold: arm first".into());
        }
        self.held = true;
        Ok(())
    }

    /// It goes on.
    pub fn resume(&mut self) {
        self.held = false;
    }

    /// Every process is dead: the tenure that was armed is spent, and what is started from here on is not ours to kill.
    pub fn fire(&mut self, all_dead_at: Instant, processes: u32) -> Fired {
        let fired = Fired { tenure: self.armed.map(|armed| armed.tenure), all_dead_at, processes };
        self.armed = None;
        self.held = false;
        self.fired = Some(fired);
        fired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LeaseId = LeaseId(1);
    const B: LeaseId = LeaseId(2);

    #[test]
    fn a_regained_key_takes_the_place_of_the_vanished_one_while_held() {
        let mut authority = Authority::default();
        authority.arm(A, Instant(100), None, Instant(10)).unwrap();
        authority.hold().unwrap();
        assert!(authority.arm(B, Instant(200), None, Instant(11)).is_err());
        assert!(authority.arm(B, Instant(200), Some(LeaseId(9)), Instant(11)).is_err());
        let regained = authority.arm(B, Instant(200), Some(A), Instant(11));
        assert_eq!(regained, Ok(Armed { tenure: B, at: Instant(200) }));
        assert!(authority.is_held());
    }

    #[test]
    fn a_tenure_only_grows() {
        let mut authority = Authority::default();
        assert_eq!(authority.arm(A, Instant(100), None, Instant(10)), Ok(Armed { tenure: A, at: Instant(100) }));
        assert_eq!(authority.arm(A, Instant(90), None, Instant(11)), Ok(Armed { tenure: A, at: Instant(100) }));
        assert_eq!(authority.arm(A, Instant(200), None, Instant(12)), Ok(Armed { tenure: A, at: Instant(200) }));
        assert!(!authority.is_due(Instant(199)));
        assert!(authority.is_due(Instant(200)));
    }

    #[test]
    fn the_past_is_not_armed() {
        let mut authority = Authority::default();
        assert!(authority.arm(A, Instant(10), None, Instant(10)).is_err());
        assert_eq!(authority.armed(), None);
        authority.arm(A, Instant(20), None, Instant(10)).unwrap();
        assert!(authority.arm(A, Instant(11), None, Instant(12)).is_err());
        assert_eq!(authority.armed(), Some(Armed { tenure: A, at: Instant(20) }));
    }

    #[test]
    fn another_tenure_waits_for_the_end_of_the_first() {
        let mut authority = Authority::default();
        authority.arm(A, Instant(100), None, Instant(1)).unwrap();
        assert!(authority.arm(B, Instant(200), None, Instant(2)).is_err());
        assert!(authority.disarm(B).is_err());
        assert_eq!(authority.armed(), Some(Armed { tenure: A, at: Instant(100) }));
        authority.disarm(A).unwrap();
        authority.arm(B, Instant(200), None, Instant(2)).unwrap();
    }

    #[test]
    fn a_tenure_that_fired_is_spent_and_the_next_is_not() {
        let mut authority = Authority::default();
        authority.arm(A, Instant(100), None, Instant(1)).unwrap();
        authority.hold().unwrap();
        assert_eq!(authority.fire(Instant(101), 3).tenure, Some(A));
        assert!(!authority.is_held() && !authority.is_due(Instant(1_000)));
        assert!(authority.arm(A, Instant(300), None, Instant(200)).is_err());
        authority.arm(B, Instant(300), None, Instant(200)).unwrap();
    }

    /// The bug: an agent's first search for a tenure had come to nothing, and no later one was armed.
    #[test]
    fn who_looks_for_a_tenure_is_armed_again_after_a_search_that_fired() {
        let mut authority = Authority::default();
        authority.arm(LeaseId(0), Instant(100), None, Instant(1)).unwrap();
        authority.fire(Instant(101), 3);
        authority.arm(LeaseId(0), Instant(300), None, Instant(200)).unwrap();
    }

    #[test]
    fn what_is_held_always_ends() {
        let mut authority = Authority::default();
        assert!(authority.hold().is_err());
        authority.arm(A, Instant(100), None, Instant(1)).unwrap();
        authority.hold().unwrap();
        assert!(authority.disarm(A).is_err());
        authority.resume();
        authority.disarm(A).unwrap();
    }
}
