//! S9: the leader key hangs on a living lease, and is taken from nobody.

use matriarch_core::view::store::LeaderKey;

use crate::world::World;

impl World {
    /// The leader key was taken.
    pub(super) fn check_key(&mut self, leader: &LeaderKey) {
        if self.store.lease_until(leader.lease).is_none() {
            self.violated("S9", format!("the leader key hangs on lease {}, which is gone", leader.lease));
        }
        let holder = self.checks.last_leader.filter(|_| self.checks.leaderless.is_none());
        if let Some(holder) = holder.filter(|holder| self.names[holder.0] != leader.member) {
            let what = format!("the leader key of {} is taken from it by {}", self.names[holder.0], leader.member);
            self.violated("S9", what);
        }
    }
}

#[cfg(test)]
mod tests {
    use matriarch_core::id::LeaseId;

    use super::super::testing::*;
    use super::*;
    use crate::node::NodeId;
    use crate::store::Change;

    #[test]
    fn a_leader_key_without_a_lease() {
        let taken = |lease: Option<LeaseId>| {
            broken(move |world| {
                let mut key = key(world);
                key.lease = lease.unwrap_or(key.lease);
                world.check_store_change(&Change::Taken(key));
            })
        };
        assert_eq!(taken(Some(LeaseId(4711))), Some("S9"));
        assert_eq!(taken(None), None);
    }

    #[test]
    fn a_leader_key_that_is_taken_from_its_holder() {
        let taken = |by: fn(&World) -> NodeId| {
            broken(move |world| {
                let member = world.names[by(world).0].clone();
                let key = LeaderKey { member, ..key(world) };
                world.check_key(&key);
            })
        };
        assert_eq!(taken(standby), Some("S9"));
        assert_eq!(taken(leader), None, "under another lease of its own");
    }
}
