//! The embedded store's journal after crashes and on bad disks.

use matriarch::fuzz::{Journaled, journal};

use crate::input::read;

/// The target.
pub fn target(data: &[u8]) -> String {
    let Some((payloads, tail, flipped)) = read::<(Vec<&[u8]>, &[u8], u16)>(data) else { return "no journal".into() };
    journal(&Journaled { payloads, tail, flipped: usize::from(flipped) })
}
