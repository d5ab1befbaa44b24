//! S9: the leader key hangs on a living lease.

use matriarch_core::view::store::LeaderKey;

use crate::world::World;

impl World {
    /// The leader key was taken.
    pub(super) fn check_key(&mut self, leader: &LeaderKey) {
        if self.store.lease_until(leader.lease).is_none() {
            self.violated("S9", format!("the leader key hangs on lease {}, which is gone", leader.lease));
        }
    }
}

#[cfg(test)]
mod tests {
    use matriarch_core::id::LeaseId;

    use super::super::testing::*;
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
}
