//! What is tested across modules: every rung and reconciler, the table of rungs, and a long random walk.

mod proof;
mod random;
mod rungs;
mod safety;
mod walk;
