//! What is tested across modules: every rung and reconciler, the table of rungs, and a long random walk.

mod births;
mod calm;
mod facts;
mod guarded;
mod holds;
mod horizon;
mod keys;
mod orders;
mod permanent_slots;
mod positions;
mod proof;
mod properties;
mod published;
mod races;
mod random;
mod reconcilers;
#[cfg(feature = "serde")]
mod records;
mod recovery;
mod rejoin;
mod requests;
mod rungs;
mod safety;
mod slots;
mod steps;
mod timeline_numbers;
mod unserving;
mod views;
mod wakes;
mod walk;
