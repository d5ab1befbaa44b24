//! S18: a cluster is born once; and once more where its key was deleted and nobody was left who knew of it: no agent that
//! had seen its name and had had time to tell of itself, no record of a member that had data, nothing that it had published.
//! Whoever may initialise created the key where none was.

use std::time::Duration;

use matriarch_core::id::{LeaseId, SystemId};

use crate::node::NodeId;
use crate::time::ms;
use crate::world::World;

/// How long members may take until they have published their records again.
const TOLD_WITHIN: Duration = ms(3000);

impl World {
    /// S18: the system identifier is published once and stays.
    pub fn check_birth(&mut self) {
        self.check_right_to_initialise();
        let system = self.store.keys().system_id();
        match (self.checks.system, system) {
            (None, _) => self.checks.system = system,
            (Some(known), None) if !self.is_known(known) => self.checks.system = None,
            (Some(known), Some(system)) if known != system => {
                self.violated("S18", format!("the cluster was {known} and is {system}"));
            }
            (Some(_), _) => {}
        }
    }

    /// S18: `initialize` is created, not overwritten, and goes by its owner's word or with its lease. What is under no lease
    /// an operator put, and a restored store goes back.
    fn check_right_to_initialise(&mut self) {
        let initialize = self.store.keys().initialize;
        let Some(before) = std::mem::replace(&mut self.checks.initialize, initialize) else { return };
        match initialize {
            Some(now) if now.lease != LeaseId(0) && now.revision > before.revision => {
                self.violated("S18", format!("the right to initialise was had, and is another's: {before:?}, {now:?}"));
            }
            None if before.lease != LeaseId(0) && self.store.lease_until(before.lease).is_some() => {
                self.violated("S18", format!("the right to initialise was taken from who has it: {before:?}"));
            }
            _ => {}
        }
    }

    /// The right to initialise goes by an operator's hand.
    pub fn note_initialize_gone(&mut self) {
        self.checks.initialize = None;
    }

    /// It is given up, as far as it is his, by who has it: under the lease of his agent's session, or of his record, since what
    /// he asked may come when that agent is gone.
    pub fn note_initialize_abandoned(&mut self, node: NodeId) {
        let session = self.nodes[node.0].agent.as_ref().and_then(|agent| agent.state.session.lease);
        let record = self.store.keys().members.get(&self.names[node.0]).map(|key| key.lease);
        let his = |lease| session == Some(lease) || record == Some(lease);
        self.checks.initialize = self.checks.initialize.filter(|had| !his(had.lease));
    }

    fn is_known(&self, system: SystemId) -> bool {
        let mut agents = self.nodes.iter().filter_map(|node| node.agent.as_ref());
        // The race: all keys are deleted, and a node whose agent has just started asks before anybody has told of itself.
        let told = self.checks.keys_gone.is_none_or(|gone| self.now.since(gone) > TOLD_WITHIN);
        (told && agents.any(|agent| agent.state.memory.knew == Some(system)))
            || self.store.keys().members.values().any(|key| key.record.has_data())
            || self.store.keys().was_published().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::store::hands::Key;
    use crate::store::{Known, Request, Unguarded};
    use crate::time::Time;
    use matriarch_core::action::StoreAction;

    #[test]
    fn a_second_birth() {
        let completed = |other: bool, spoil: fn(&mut World)| {
            broken(move |world| {
                spoil(world);
                world.store_changed();
                let keys = world.keys();
                let initialize = keys.initialize.map(|initialize| initialize.revision).unwrap_or_default();
                let (system, config) = (world.checks.system.unwrap_or_default(), keys.config_revision);
                let system_id = if other { SystemId(99) } else { system };
                world.store.unguarded = Some(Unguarded::Initialize);
                let epoch = matriarch_core::id::Revision(0);
                let action = Box::new(StoreAction::CompleteInitialize { epoch, system_id, initialize, config });
                let known = Known { config, ..Known::default() };
                world.store.apply(world.now, &Request::Order { action, from: world.names[0].clone(), known });
                world.store_changed();
            })
        };
        let deleted = |world: &mut World| world.store.delete(Key::Initialize);
        let forgotten = |world: &mut World| {
            for node in &mut world.nodes {
                node.agent = None;
            }
            world.store.delete_all();
        };
        assert_eq!(completed(true, |_| ()), Some("S18"));
        assert_eq!(completed(false, |_| ()), None, "the same once more");
        assert_eq!(completed(true, deleted), Some("S18"), "agents know its name");
        assert_eq!(completed(true, forgotten), None, "nobody does");
        let all = |world: &mut World| {
            world.store.delete_all();
            world.checks.keys_gone = Some(world.now);
        };
        assert_eq!(completed(true, all), None, "nobody has had time to tell of it");
        let long_ago = |world: &mut World| {
            world.store.delete_all();
            world.checks.keys_gone = Some(Time(world.now.0 - 3_000_000_001));
        };
        assert_eq!(completed(true, long_ago), Some("S18"));
    }

    #[test]
    fn the_right_to_initialise() {
        let race = |world: &mut World, node: usize| {
            world.store.unguarded = Some(Unguarded::Initialize);
            let action = Box::new(StoreAction::RaceInitialize { lease: key(world).lease });
            let order = Request::Order { action, from: world.names[node].clone(), known: Known::default() };
            world.store.apply(world.now, &order);
            world.store_changed();
        };
        let delete = |world: &mut World| {
            world.store.delete(Key::Initialize);
            world.store_changed();
        };
        assert_eq!(broken(|world| race(world, 0)), Some("S18"), "a cluster is there");
        let once = |world: &mut World| {
            delete(world);
            race(world, 0);
        };
        assert_eq!(broken(once), None, "nobody had it");
        let twice = |world: &mut World| {
            once(world);
            race(world, 1);
        };
        assert_eq!(broken(twice), Some("S18"), "another had it");
        let taken = |world: &mut World| {
            once(world);
            delete(world);
        };
        assert_eq!(broken(taken), Some("S18"), "whoever has it has not given it up");
        let given_up = |world: &mut World| {
            once(world);
            world.note_initialize_gone();
            delete(world);
        };
        assert_eq!(broken(given_up), None);
        // Abandoned by whoever holds its lease, by the agent's session or by the record alone.
        let abandoned = |by_owner: bool, alive: bool| {
            broken(move |world| {
                delete(world);
                let owner = standby(world);
                let lease = world.nodes[owner.0].agent.as_ref().unwrap().state.session.lease.unwrap();
                world.store.unguarded = Some(Unguarded::Initialize);
                let action = Box::new(StoreAction::RaceInitialize { lease });
                let order = Request::Order { action, from: world.names[owner.0].clone(), known: Known::default() };
                world.store.apply(world.now, &order);
                world.store_changed();
                if !alive {
                    world.nodes[owner.0].agent = None;
                }
                world.note_initialize_abandoned(if by_owner { owner } else { other_standby(world) });
                delete(world);
            })
        };
        assert_eq!((abandoned(true, true), abandoned(true, false)), (None, None));
        assert_eq!(abandoned(false, true), Some("S18"), "it is another's");
        let garbled = |world: &mut World| {
            world.store.garble(Key::Initialize);
            world.store_changed();
        };
        assert_eq!(broken(garbled), None, "an operator wrote it");
        let restored = |world: &mut World| {
            once(world);
            let backup = world.store.backup();
            world.note_initialize_gone();
            delete(world);
            world.store.restore(&backup, world.now);
            world.store_changed();
        };
        assert_eq!(broken(restored), None, "a backup had it");
    }
}
