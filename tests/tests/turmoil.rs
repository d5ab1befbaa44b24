//! The agent's own loop, and the adapter to its store, on a simulated network: what cuts, resets, holds and crashes do to
//! connections, streams, deadlines and lanes. `docs/simulator.md` says what is real here and what is pretended.
//!
//! `tests/turmoil` runs them so that they can be repeated step by step; without it tokio draws from the host.

#[path = "turmoil/agents.rs"]
mod agents;
#[path = "turmoil/machine.rs"]
mod machine;
#[path = "turmoil/members.rs"]
mod members;
#[path = "turmoil/network.rs"]
mod network;
#[path = "turmoil/observer.rs"]
mod observer;
#[path = "turmoil/store.rs"]
mod store;
#[path = "turmoil/trace.rs"]
mod trace;
#[path = "turmoil/world.rs"]
mod world;
