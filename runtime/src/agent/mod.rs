//! The agent: one loop that takes an event, asks core, and hands out all effects.

pub mod handle;
