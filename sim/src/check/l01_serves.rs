//! L1: a healed world serves, and goes on to; and how long nobody served. Where a restored store tells of a leader's position
//! that nobody holds any more, and no loss is allowed, an operator has to say who leads.

use std::time::Duration;

use matriarch_core::id::Lsn;

use crate::node::{Node, NodeId};
use crate::postgres::wal::Place;
use crate::time::{Time, ms};
use crate::world::World;

/// For how long nobody could have a commit acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outage {
    /// Since when nobody serves.
    since: Option<Time>,
    /// The longest while faults went on.
    pub longest: Duration,
    /// When the healed world served first.
    pub served: Option<Time>,
}

impl Outage {
    /// Since when nobody serves; `None`: somebody does.
    pub(super) fn since(&self) -> Option<Time> {
        self.since
    }
}

impl World {
    /// Whether anybody serves now.
    pub(super) fn note_service(&mut self) {
        let serves = self.nodes.iter().any(|node| node.server.serves());
        let (now, healed) = (self.now, self.healed);
        let outage = &mut self.checks.outage;
        match (serves, outage.since) {
            (true, Some(since)) => {
                outage.since = None;
                outage.longest = outage.longest.max(now.since(since));
                self.check_outage(since);
            }
            (false, None) => outage.since = Some(now),
            (true, None) | (false, Some(_)) => {}
        }
        if serves && healed.is_some() && self.checks.outage.served.is_none() {
            self.checks.outage.served = Some(now);
        }
        if !serves {
            self.check_peace();
        }
    }

    /// When the healed world has to serve, at the latest.
    pub(super) fn serves_by(&self) -> Option<Time> {
        // A store that went back is not believed for a ttl, and its old keys last another.
        let believed = self.checks.restored.map_or(Time(0), |at| at + ms(2 * self.settings.ttl_ms));
        Some(self.healed?.max(believed) + ms(self.settings.serving_bound_ms()) + self.slower_by())
    }

    /// L1: nobody serves, where nothing is wrong any more and no operator has asked for anything that stops it.
    fn check_peace(&mut self) {
        if self.is_at_peace() && !self.is_on_an_errand() && !self.nobody_may_lead() {
            let id = self.liveness("L1");
            self.violated(id, "the healed world has stopped serving, or has not begun to".into());
        }
    }

    /// L1: within its bound the healed world has served.
    pub(super) fn check_service(&mut self) {
        let Some(bound) = self.serves_by().filter(|_| !self.nobody_may_lead()) else { return };
        let healed = self.healed.unwrap_or_default();
        let id = self.liveness("L1");
        let outage = *self.checks.outage();
        match outage.served {
            None => self.violated(id, "the healed world never serves".into()),
            Some(served) if served > bound => {
                let what = format!("the healed world serves after {} ms", served.since(healed).as_millis());
                self.violated(id, what);
            }
            Some(_) if outage.since.is_some() => {
                self.violated(id, "the healed world has stopped serving".into());
            }
            Some(_) => {}
        }
    }

    /// Whoever may lead lost its data to an operator, and who has data may not. Or a restored store tells of a position,
    /// and everybody who may lead lacks more of that than may be given up.
    pub(super) fn nobody_may_lead(&self) -> bool {
        // One that was rewound and needs WAL to become consistent that only somebody has who may not lead does not come up.
        let comes_up = |node: &Node| {
            node.config.nofailover
                || node.server.cluster().is_some_and(|on_disk| self.wal.contains(on_disk.end, on_disk.consistent))
        };
        let has_data = |may_lead: bool| {
            let able = |node: &&Node| node.config.nofailover != may_lead && comes_up(node);
            self.nodes.iter().filter(able).any(|node| node.place().is_some())
        };
        if has_data(false) && !has_data(true) {
            return true;
        }
        // Or an operator promoted by hand who may not lead, which told of its branch while it led in a pause.
        let by_hand = !self.checks.hand_made.is_empty() && has_data(false);
        let beyond = self.checks.restored.is_some() || by_hand;
        let status = self.store.keys().status.as_ref().filter(|_| beyond);
        let Some(told) = status else { return false };
        let lines = &self.store.keys().history.lines;
        let lacks = |place: Place| {
            let history = self.wal.history(place);
            // Two timelines may have one number: they ended the one before at different places.
            let parted = lines.iter().filter_map(|line| {
                let own = history.end_of(line.timeline)??;
                (own != line.end).then_some(own.min(line.end))
            });
            let held = parted.min().unwrap_or_else(|| match history.end_of(told.timeline) {
                Some(None) => self.wal.lsn(place),
                Some(Some(end)) => end,
                None => Lsn(0),
            });
            told.optime.bytes_ahead_of(held)
        };
        let mut may_lead = self.nodes.iter().filter(|node| !node.config.nofailover);
        may_lead.all(|node| node.place().is_none_or(|place| lacks(place) > node.config.maximum_lag_on_failover_bytes))
    }

    /// How long nobody served, for a report.
    pub fn longest_outage(&self) -> Duration {
        self.checks.outage().longest
    }

    /// The node that serves.
    pub fn serving(&self) -> Option<NodeId> {
        self.nodes.iter().find(|node| node.server.can_acknowledge()).map(|node| node.id)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::postgres::Orphans;

    fn gives_up_at_most(world: &mut World, bytes: u64) {
        for node in &mut world.nodes {
            node.config.maximum_lag_on_failover_bytes = bytes;
        }
    }

    #[test]
    fn a_world_that_does_not_serve() {
        let healed = |spoil: fn(&mut World, NodeId)| {
            broken(move |world| {
                world.healed = Some(Time::from_ms(10_000));
                let node = leader(world);
                spoil(world, node);
                world.note_service();
                world.check_service();
            })
        };
        assert_eq!(healed(World::gone), Some("L1"));
        assert_eq!(healed(|_, _| ()), None);
        let orphans = |world: &mut World, node: NodeId| {
            world.gone(node);
            world.nodes[node.0].server.orphans = Some(Orphans { count: 1, write: true });
        };
        assert_eq!(healed(orphans), Some("L1"), "whom nobody can connect to");
        let barred = |world: &mut World, node: NodeId| {
            world.gone(node);
            for node in &mut world.nodes {
                node.config.nofailover = true;
            }
        };
        assert_eq!(healed(barred), None, "whose data are there may not lead");
        let restored = |world: &mut World, node: NodeId| {
            world.gone(node);
            world.checks.restored = Some(world.now);
            gives_up_at_most(world, 1000);
        };
        assert_eq!(healed(restored), Some("L1"), "others hold what it tells of");
        let beyond = |world: &mut World, node: NodeId| {
            let end = on_disk(world, node).end;
            world.gone(node);
            world.checks.restored = Some(world.now);
            gives_up_at_most(world, 0);
            for node in &mut world.nodes {
                let on_disk = node.server.cluster_mut().unwrap();
                on_disk.end = Place { depth: end.depth - 100, ..end };
            }
        };
        assert_eq!(healed(beyond), None, "nobody does, and nothing may be given up");
        let barred_by_hand = |world: &mut World, node: NodeId| {
            let end = on_disk(world, node).end;
            world.gone(node);
            world.nodes[node.0].config.nofailover = true;
            gives_up_at_most(world, 0);
            for other in world.nodes.iter_mut().filter(|other| other.id != node) {
                other.server.cluster_mut().unwrap().end = Place { depth: end.depth - 100, ..end };
            }
            world.checks.hand_made.push(end);
        };
        assert_eq!(healed(barred_by_hand), None, "who does may not lead, and was promoted by hand");
    }

    #[test]
    fn a_healed_world_that_stops_serving_and_begins_again() {
        let pauses = |healed_before_ms: u64, asked: Option<u64>| {
            broken(move |world| {
                world.healed = Some(world.now);
                world.note_service();
                world.now = world.now + ms(healed_before_ms);
                if let Some(ago_ms) = asked {
                    world.checks.errands.since = Some(world.now);
                    world.now = world.now + ms(ago_ms);
                }
                let node = leader(world);
                world.nodes[node.0].server.held = true;
                world.note_service();
                world.nodes[node.0].server.held = false;
                world.note_service();
                world.check_service();
            })
        };
        let bound = crate::settings::Settings::usual().serving_bound_ms();
        assert_eq!(pauses(bound + 1, None), Some("L1"));
        assert_eq!(pauses(bound - 1, None), None, "it is healing");
        assert_eq!(pauses(bound + 1, Some(1000)), None, "an operator's schedule has come");
        assert_eq!(pauses(bound + 1, Some(60_000)), Some("L1"), "and was over long ago");
    }

    #[test]
    fn a_healed_world_that_waits_for_a_store_that_went_back() {
        let serves_after = |after_ms: u64, restored_ms_before: Option<u64>| {
            broken(move |world| {
                let Time(ns) = world.now;
                world.checks.restored = restored_ms_before.map(|before| Time(ns - before * 1_000_000));
                world.healed = Some(world.now);
                world.checks.outage.served = Some(world.now + ms(after_ms));
                world.check_service();
            })
        };
        let bound = crate::settings::Settings::usual().serving_bound_ms();
        assert_eq!(serves_after(bound + 1, None), Some("L1"), "whatever the plan might still do");
        assert_eq!(serves_after(bound + 60_000, Some(0)), None, "it is not believed yet");
        assert_eq!(serves_after(bound + 60_001, Some(0)), Some("L1"));
        assert_eq!(serves_after(bound + 10_001, Some(50_000)), Some("L1"), "it has been for long");
    }
}
