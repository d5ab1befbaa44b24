//! What came of an operation: three outcomes, never two.

use alloc::string::String;

/// The outcome of an operation. An error is never read as "did not happen": what is not known to have been done or
/// refused is [`Outcome::Unknown`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Outcome<T> {
    /// It happened.
    Done(T),
    /// It certainly did not happen, and will not.
    Refused(Refusal),
    /// It may have happened, may happen yet, or never will: no answer, a broken connection, a deadline.
    Unknown(String),
}

impl<T> Outcome<T> {
    /// The same outcome with another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Self::Done(value) => Outcome::Done(f(value)),
            Self::Refused(refusal) => Outcome::Refused(refusal),
            Self::Unknown(text) => Outcome::Unknown(text),
        }
    }

    /// The value, if it is known to have happened.
    pub fn done(self) -> Option<T> {
        match self {
            Self::Done(value) => Some(value),
            Self::Refused(_) | Self::Unknown(_) => None,
        }
    }
}

/// Why an operation certainly did not happen.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Refusal {
    /// A guard of the transaction did not hold: another came first.
    Conflict,
    /// The lease that the operation carries does not exist any more.
    LeaseGone,
    /// The tenure that the operation carries is not the one in force.
    NotOurTenure,
    /// PostgreSQL, a tool or the host said no; its words.
    Failed(String),
    /// The operator's own check before it said no.
    Vetoed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_have_happened_has_brought_something() {
        assert_eq!(Outcome::Done(7).done(), Some(7));
        assert_eq!(Outcome::<i32>::Refused(Refusal::Conflict).done(), None);
        assert_eq!(Outcome::<i32>::Unknown("no answer".into()).done(), None);
    }
}
