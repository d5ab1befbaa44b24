//! S24: the leader key is its holder's to delete, and what a leader tells is its holder's to write: under the tenure that
//! it has, not under one that the same node had before, or another agent there.

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

    /// The store has carried an order out; before that it was led so.
    pub fn check_writer(&mut self, action: &StoreAction, from: &Member, led: Option<&LeaderKey>) {
        if let Some(what) = without_authority(action, from, led) {
            self.violated("S24", what);
        }
    }
}

/// What is wrong with an order that was carried out: it is of a tenure that is not the leader's.
pub(crate) fn without_authority(action: &StoreAction, from: &Member, led: Option<&LeaderKey>) -> Option<String> {
    let (StoreAction::Release { epoch, .. }
    | StoreAction::PutStatus { epoch, .. }
    | StoreAction::PutHistory { epoch, .. }
    | StoreAction::Reserve { epoch, .. }
    | StoreAction::CompleteInitialize { epoch, .. }) = action
    else {
        return None;
    };
    let leads = led.is_some_and(|leader| (&leader.member, leader.created) == (from, *epoch));
    let what = crate::coverage::kind(&Action::Store(action.clone()));
    let holder = led.map(|leader| (&leader.member, leader.created));
    (!leads).then(|| format!("{from} does {what} under its tenure of {epoch} where {holder:?} leads"))
}

#[cfg(test)]
mod tests {
    use matriarch_core::action::Status;
    use matriarch_core::id::{LeaseId, Lsn, Revision, Timeline};

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

    fn put(epoch: Revision) -> StoreAction {
        let (position, timeline) = (Lsn(8), Timeline(1));
        StoreAction::PutStatus { epoch, status: Status { position, timeline, slots: vec![], retain: vec![] } }
    }

    /// What becomes of an order of the tenure that is the leader's, or was so many revisions before.
    fn written(
        by: fn(&World) -> NodeId,
        action: fn(Revision) -> StoreAction,
        change: fn(LeaderKey) -> Option<LeaderKey>,
    ) -> Option<&'static str> {
        broken(move |world| {
            let (from, epoch) = (world.names[by(world).0].clone(), key(world).created);
            let led = change(key(world));
            world.check_writer(&action(epoch), &from, led.as_ref());
        })
    }

    #[test]
    fn a_status_that_somebody_else_writes() {
        assert_eq!(written(standby, put, Some), Some("S24"));
        assert_eq!(written(leader, put, Some), None);
        assert_eq!(written(leader, put, |_| None), Some("S24"), "nobody leads");
        assert_eq!(
            written(standby, |revision| StoreAction::ClearFailover { revision }, Some),
            None,
            "that is anybody's"
        );
    }

    #[test]
    fn what_a_former_tenure_of_the_same_node_writes() {
        let again = |led: LeaderKey| Some(LeaderKey { created: Revision(led.created.0 + 1), ..led });
        let adopted = |led: LeaderKey| Some(LeaderKey { modified: Revision(led.modified.0 + 1), ..led });
        let release = |epoch| StoreAction::Release {
            lease: LeaseId(1),
            epoch,
            position: Lsn(8),
            timeline: Timeline(1),
            history: None,
            record: Box::default(),
            session: None,
        };
        let actions: [fn(Revision) -> StoreAction; 2] = [put, release];
        for action in actions {
            assert_eq!(written(leader, action, again), Some("S24"), "it has taken the key anew since");
            assert_eq!(
                written(leader, action, adopted),
                None,
                "an agent that was started has gone on with that tenure"
            );
        }
    }
}
