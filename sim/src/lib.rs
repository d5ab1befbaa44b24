//! The simulated world that will hunt core's decisions: discrete events, one thread a seed, driving the very `step`
//! that the agent runs. The world itself is still to be built; the crate keeps its place and the direction of its
//! dependencies: it knows core, and nothing of the runtime.
//!
//! What is there replays what an agent's flight recorder has written ([`replay`]).

pub mod replay;

pub use matriarch_core::step;
