//! The decisions of Matriarch: `step(state, at, event) -> effects`, and nothing that could touch the world.
//!
//! No clock, socket, file, thread or random seed can be named here: time and everything that was observed come in as
//! [`event::Event`]s, everything that is to be done goes out as [`effects::Effects`]. The same state, instant and event
//! give the same result, so every failover can be replayed, explained and searched for bugs.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod absorb;
pub mod action;
pub mod config;
pub mod decide;
pub mod digest;
pub mod effects;
pub mod event;
pub mod explain;
pub mod horizon;
pub mod id;
pub mod lease;
pub mod op;
mod procedure;
pub mod reason;
#[cfg(feature = "serde")]
pub mod record;
pub mod state;
pub mod step;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod time;
pub mod timeline;
pub mod view;

pub use decide::slots::slot_name;
pub use step::step;
