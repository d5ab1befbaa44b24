//! Newtypes for every number and name that could be confused with another.

use alloc::string::String;
use core::fmt;

/// The name of a member of the cluster, as in `members/<name>`. Names are not identities: two nodes may claim one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Member(pub String);

impl Member {
    /// A member name from text.
    pub fn new(name: &str) -> Self {
        Self(String::from(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// An operation that core ordered; its completion carries the same number.
    OpId(u64)
}
impl OpId {
    /// What was observed without an order of core, for a health check.
    pub const UNASKED: Self = Self(0);
}

number! {
    /// A request of an operator; its answer carries the same number.
    RequestId(u64)
}
number! {
    /// A lease in the store. The lease of a tenure identifies that tenure.
    LeaseId(i64)
}
number! {
    /// A revision of the store (etcd's `revision`, `create_revision`, `mod_revision`). 0 means "absent".
    Revision(i64)
}
number! {
    /// PostgreSQL's database system identifier, from `pg_control`.
    SystemId(u64)
}
number! {
    /// The identity of the store itself (etcd's `cluster_id`): another one means that the store was replaced.
    StoreId(u64)
}
number! {
    /// A PostgreSQL timeline. 0 means "unknown".
    Timeline(u32)
}
number! {
    /// The process id of a postmaster.
    Pid(i32)
}

/// A position in the write-ahead log, in bytes. 0 means "unknown".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Lsn(pub u64);

impl Timeline {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Lsn {
    /// Bytes by which `self` is ahead of `other`, 0 if it is not.
    pub fn bytes_ahead_of(self, other: Self) -> u64 {
        self.0.saturating_sub(other.0)
    }

    /// Parses PostgreSQL's `XXX/YYY`.
    pub fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.trim().split_once('/')?;
        let high = u32::from_str_radix(high, 16).ok()?;
        let low = u32::from_str_radix(low, 16).ok()?;
        Some(Self((u64::from(high) << 32) + u64::from(low)))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_postgresql_writes_it() {
        for (text, lsn) in
            [("0/0", 0), ("0/3000060", 0x300_0060), ("A/1F", 0xA_0000_001F), ("FFFFFFFF/FFFFFFFF", u64::MAX)]
        {
            assert_eq!(Lsn::parse(text), Some(Lsn(lsn)));
            assert_eq!(Lsn(lsn).to_string(), text);
        }
        assert_eq!(Lsn::parse(" a/1f\n"), Some(Lsn(0xA_0000_001F)), "as a tool may print it");
        for text in ["", "1", "1/", "/1", "100000000/0", "0/100000000", "0/1/2", "0/x", "0/-1"] {
            assert_eq!(Lsn::parse(text), None, "{text:?}");
        }
    }
}
