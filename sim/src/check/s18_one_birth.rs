//! S18: a cluster is born once.

use crate::world::World;

impl World {
    /// S18: the system identifier is published once and stays.
    pub fn check_birth(&mut self) {
        let Some(system) = self.store.keys().system_id() else { return };
        match self.checks.system {
            None => self.checks.system = Some(system),
            Some(known) if known != system => {
                self.violated("S18", format!("the cluster was {known} and is {system}"));
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::store::{Known, Request};
    use matriarch_core::action::StoreAction;
    use matriarch_core::id::SystemId;

    #[test]
    fn a_second_birth() {
        let completed = |other: bool| {
            broken(move |world| {
                let keys = world.keys();
                let (initialize, config) = (keys.initialize.unwrap(), keys.config_revision);
                let system_id = if other { SystemId(99) } else { keys.system_id().unwrap() };
                let initialize = initialize.revision;
                let action = Box::new(StoreAction::CompleteInitialize { system_id, initialize, config });
                let known = Known { config, ..Known::default() };
                world.store.apply(world.now, &Request::Order { action, from: world.names[0].clone(), known });
                world.store_changed();
            })
        };
        assert_eq!(completed(true), Some("S18"));
        assert_eq!(completed(false), None, "the same once more");
    }
}
