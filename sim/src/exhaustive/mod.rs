//! An exhaustive search of the smallest world in which leadership can move: two agents with core's own `State` and
//! `step`, one store, two servers. Everything that may happen next is tried, up to a number of faults, a depth and a
//! number of states; what must hold is checked in each of them.
//!
//! The large world draws delays; here there are none: messages come in the order in which they were sent and time passes
//! only when none is left, unless a fault of the path's budget makes one late. So the schedules are covered in which at most
//! so many messages are late or lost, each until what it would meet has happened; what is left out says decision 15.

mod agent;
mod canonical;
mod check;
mod hosts;
mod moves;
mod search;
mod server;
mod story;
mod world;

pub use moves::Fault;
pub use search::{From, Options, Report, search};
pub use story::{Story, Told};
pub use world::Broken;
