//! Whole agents: what the network and the store do to a cluster. Every scenario ends with a cluster that is whole again,
//! and at no instant of it two servers acknowledged writes or one did that no guard would have ended (`observer.rs`).

#[path = "agents/crashes.rs"]
mod crashes;
#[path = "agents/network.rs"]
mod network;
#[path = "agents/repeats.rs"]
mod repeats;
#[path = "agents/store.rs"]
mod store;

use std::time::Duration;

use super::world::{ELECTION, MEMBERS, TTL, World};

const STORE: &str = MEMBERS[0];

/// Shorter than anything that is an outage: the pause between two writes of the client, and a stop of the world for it.
const NO_OUTAGE: Duration = Duration::from_millis(40);
/// How long a lease lives after its last renewal, and how long ago that may have been.
const LEASE: Duration = Duration::from_secs(TTL);
/// From a promotion's order to the first write.
const PROMOTION: Duration = Duration::from_millis(500);

/// The tenure is the same, and nobody noticed anything.
#[track_caller]
fn undisturbed(world: &mut World, leader: usize, what: impl FnOnce(&mut World)) {
    let tenure = world.tenure();
    world.outage();
    what(world);
    assert_eq!(world.heals(), leader);
    assert_eq!(world.tenure(), tenure, "the tenure goes on");
    let outage = world.outage();
    assert!(outage <= NO_OUTAGE, "nobody could write for {outage:?}");
}

/// Somebody else leads, and the outage was not longer than `limit`.
#[track_caller]
fn replaced(world: &mut World, leader: usize, limit: Duration, what: impl FnOnce(&mut World)) -> usize {
    world.outage();
    what(world);
    world.runs_until(limit, "somebody else serves", |world| world.writer().is_some_and(|writer| writer != leader));
    let outage = world.outage();
    assert!(outage <= limit, "nobody could write for {outage:?}");
    world.writer().expect("there was one just now")
}

/// Until another leads who cannot know that the leader is gone before its lease has ended.
fn by_lease() -> Duration {
    LEASE + ELECTION + PROMOTION
}
