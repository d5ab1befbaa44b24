//! The simulated world that hunts core's decisions: discrete events, one thread a seed, driving the very `step` that the
//! agent runs through partitions, wrong clocks, frozen agents, crashes and lost replies, and checking after every event
//! what must hold. It knows core, and nothing of the runtime. `docs/simulator.md` tells what is modelled and how.
//!
//! What an agent's flight recorder has written is replayed by the same step ([`replay`]).

pub mod agent;
mod calls;
pub mod check;
pub mod chronicle;
pub mod client;
pub mod coverage;
pub mod exhaustive;
pub mod fault;
pub mod guard;
mod guards;
pub mod html;
mod jobs;
mod monitoring;
pub mod mutant;
pub mod net;
pub mod node;
pub mod postgres;
pub mod random;
pub mod replay;
pub mod run;
mod servers;
pub mod settings;
pub mod shrink;
mod slots;
mod spoil;
pub mod store;
mod streams;
pub mod time;
pub mod trace;
pub mod world;
