//! S24: the leader key is its holder's to delete, and what a leader tells is its holder's to write.

use matriarch_core::action::{Action, StoreAction};
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

    /// The store has carried an order out.
    pub fn check_writer(&mut self, action: &StoreAction, from: &Member) {
        let of_a_leader = matches!(
            action,
            StoreAction::PutStatus { .. }
                | StoreAction::PutHistory { .. }
                | StoreAction::Reserve { .. }
                | StoreAction::CompleteInitialize { .. }
        );
        let holder = self.store.keys().leader.as_ref().map(|leader| &leader.member);
        if of_a_leader && holder != Some(from) {
            let what = format!(
                "{from} writes {} where {holder:?} leads",
                crate::coverage::kind(&Action::Store(action.clone()))
            );
            self.violated("S24", what);
        }
    }
}

#[cfg(test)]
mod tests {
    use matriarch_core::action::Status;
    use matriarch_core::id::{Lsn, Revision, Timeline};

    use super::super::testing::*;
    use super::*;
    use crate::node::NodeId;
    use crate::store::Change;

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

    #[test]
    fn a_status_that_somebody_else_writes() {
        let written = |by: fn(&World) -> NodeId, action: fn(Revision) -> StoreAction| {
            broken(move |world| {
                let (from, epoch) = (world.names[by(world).0].clone(), key(world).created);
                world.check_writer(&action(epoch), &from);
            })
        };
        let put = |epoch| {
            let (position, timeline) = (Lsn(8), Timeline(1));
            StoreAction::PutStatus { epoch, status: Status { position, timeline, slots: vec![], retain: vec![] } }
        };
        assert_eq!(written(standby, put), Some("S24"));
        assert_eq!(written(leader, put), None);
        assert_eq!(written(standby, |revision| StoreAction::ClearFailover { revision }), None, "that is anybody's");
    }
}
