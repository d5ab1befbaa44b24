//! S24: the leader key is its holder's to delete.

use matriarch_core::id::Member;
use matriarch_core::view::store::LeaderKey;

use crate::store::Gone;
use crate::world::World;

impl World {
    /// The leader key is gone.
    pub(super) fn check_deletion(&mut self, leader: &LeaderKey, how: Gone, by: Option<&Member>) {
        if how == Gone::Released && by != Some(&leader.member) {
            self.violated("S24", format!("the leader key of {} is deleted by {by:?}", leader.member));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::node::NodeId;
    use crate::store::{Change, Gone};
    use crate::world::World;

    #[test]
    fn a_key_that_somebody_else_deletes() {
        let deleted = |by: fn(&World) -> NodeId| {
            broken(move |world| {
                let who = world.names[by(world).0].clone();
                let holder = leader(world);
                world.nodes[holder.0].server.held = true;
                world.check_store_change(&Change::Gone(key(world), Gone::Released, Some(who)));
            })
        };
        assert_eq!(deleted(standby), Some("S24"));
        assert_eq!(deleted(leader), None);
    }
}
