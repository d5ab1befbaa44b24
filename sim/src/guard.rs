//! The guard: armed, it kills PostgreSQL at its instant, whatever has become of the agent. Its rules of arming are those
//! of `runtime/src/guard/authority.rs`; `tests/tests/guard_rules.rs` holds the two against each other.

use matriarch_core::action::GuardAction;
use matriarch_core::event::GuardEvent;
use matriarch_core::id::LeaseId;
use matriarch_core::time::Instant;
use matriarch_core::view::guard::Armed;
use serde::Serialize;

use crate::time::Time;

/// A guard.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Guard {
    /// What it has acknowledged.
    pub armed: Option<Armed>,
    /// PostgreSQL is held.
    pub held: bool,
    /// The tenure that it fired for last; `None` inside: nothing was armed then.
    pub fired: Option<LeaseId>,
    /// The fence is falling.
    pub firing: bool,
    /// When it was started.
    pub since: Time,
    /// The agent whose orders it takes.
    pub boot: u32,
    /// Since when no agent lives.
    pub absent_since: Option<Time>,
    /// PostgreSQL was asked for a fast stop, since the agent is dead.
    pub winding_down: bool,
    /// The number of the timer that counts.
    pub timer: u64,
    /// It does one thing after the other: the next is not done before this.
    pub busy_until: Time,
}

/// What an order comes to at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Obeyed {
    /// The report.
    Report(GuardEvent),
    /// The report comes when it is done: hold, resume, kill what is left, fire.
    Begun,
}

impl Guard {
    /// The end of authority is here or past.
    pub fn is_due(&self, now: Instant) -> bool {
        self.armed.is_some_and(|armed| now >= armed.at)
    }

    /// Takes an order; `instead_of` is the tenure that the agent knows to be armed.
    pub fn obey(&mut self, order: &GuardAction, instead_of: Option<LeaseId>, now: Instant) -> Obeyed {
        let refused = |why: &str| Obeyed::Report(GuardEvent::Refused(why.into()));
        if self.firing {
            return match order {
                GuardAction::Fire => Obeyed::Begun,
                _ => refused("a fence is falling"),
            };
        }
        if self.is_due(now) {
            self.firing = true;
            return refused("authority has just ended");
        }
        match order {
            GuardAction::Arm { tenure, at } => match self.arm(*tenure, *at, instead_of, now) {
                Ok(armed) => Obeyed::Report(GuardEvent::Armed(armed)),
                Err(why) => refused(why),
            },
            GuardAction::Disarm if self.held => refused("PostgreSQL is held"),
            GuardAction::Disarm if self.armed.is_some_and(|armed| armed.tenure != instead_of.unwrap_or(LeaseId(0))) => {
                refused("another tenure is armed")
            }
            GuardAction::Disarm => {
                self.armed = None;
                Obeyed::Report(GuardEvent::Disarmed)
            }
            GuardAction::Hold if self.armed.is_none() => refused("nothing is armed"),
            GuardAction::Hold => {
                self.held = true;
                Obeyed::Begun
            }
            GuardAction::Resume => {
                self.held = false;
                Obeyed::Begun
            }
            GuardAction::Fire => {
                self.firing = true;
                Obeyed::Begun
            }
            GuardAction::KillOrphans => Obeyed::Begun,
        }
    }

    fn arm(
        &mut self,
        tenure: LeaseId,
        at: Instant,
        instead_of: Option<LeaseId>,
        now: Instant,
    ) -> Result<Armed, &'static str> {
        if at <= now {
            return Err("the instant is past");
        }
        if tenure != LeaseId(0) && self.fired == Some(tenure) {
            return Err("the tenure is spent");
        }
        let armed = match self.armed {
            Some(armed) if armed.tenure == tenure => Armed { tenure, at: armed.at.max(at) },
            Some(armed) if instead_of != Some(armed.tenure) => return Err("another tenure is armed"),
            Some(_) | None => Armed { tenure, at },
        };
        self.armed = Some(armed);
        Ok(armed)
    }

    /// Everything is dead: the tenure that was armed.
    pub fn fire(&mut self) -> Option<Armed> {
        let armed = self.armed.take();
        (self.firing, self.held, self.winding_down) = (false, false, false);
        self.fired = armed.map(|armed| armed.tenure);
        armed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LeaseId = LeaseId(1);
    const B: LeaseId = LeaseId(2);

    fn arm(tenure: LeaseId, at: u64) -> GuardAction {
        GuardAction::Arm { tenure, at: Instant(at) }
    }

    fn armed(obeyed: &Obeyed) -> Option<u64> {
        match obeyed {
            Obeyed::Report(GuardEvent::Armed(armed)) => Some(armed.at.0),
            _ => None,
        }
    }

    #[test]
    fn a_tenure_only_grows_and_another_takes_its_place_only_by_name() {
        let mut guard = Guard::default();
        assert_eq!(armed(&guard.obey(&arm(A, 100), None, Instant(1))), Some(100));
        assert_eq!(armed(&guard.obey(&arm(A, 90), Some(A), Instant(2))), Some(100));
        assert_eq!(armed(&guard.obey(&arm(B, 200), None, Instant(3))), None);
        assert_eq!(armed(&guard.obey(&arm(B, 200), Some(A), Instant(4))), Some(200));
        assert_eq!(guard.fire().map(|armed| armed.tenure), Some(B));
        assert_eq!(armed(&guard.obey(&arm(B, 300), None, Instant(5))), None);
    }

    #[test]
    fn nothing_is_obeyed_once_the_end_is_here() {
        let mut guard = Guard::default();
        guard.obey(&arm(A, 100), None, Instant(1));
        assert_eq!(armed(&guard.obey(&arm(A, 900), Some(A), Instant(100))), None);
        assert!(guard.firing);
        let report = guard.obey(&GuardAction::Disarm, Some(A), Instant(101));
        assert!(matches!(report, Obeyed::Report(GuardEvent::Refused(_))));
    }

    #[test]
    fn what_is_held_is_armed() {
        let mut guard = Guard::default();
        assert!(matches!(guard.obey(&GuardAction::Hold, None, Instant(1)), Obeyed::Report(GuardEvent::Refused(_))));
        guard.obey(&arm(A, 100), None, Instant(1));
        assert_eq!(guard.obey(&GuardAction::Hold, Some(A), Instant(2)), Obeyed::Begun);
        assert!(matches!(
            guard.obey(&GuardAction::Disarm, Some(A), Instant(3)),
            Obeyed::Report(GuardEvent::Refused(_))
        ));
    }
}
