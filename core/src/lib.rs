//! The decisions of Matriarch: `step(state, at, event) -> effects`, and nothing that could touch the world.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod id;
pub mod op;
pub mod time;
pub mod timeline;
pub mod view;
