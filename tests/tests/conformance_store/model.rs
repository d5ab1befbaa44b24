//! The simulator's store.

use std::time::Duration;

use matriarch_core::action::StoreAction;
use matriarch_core::event::StoreDone;
use matriarch_core::op::Outcome;
use matriarch_core::view::store::ClusterView;
use matriarch_sim::fault::{What, Where};
use matriarch_tests::Model;

use crate::{Frozen, GIVE_UP, Store, Who};

/// The model, and the faults that go on.
pub(crate) struct ModelStore {
    model: Model,
    faults: Vec<usize>,
}

impl ModelStore {
    pub(crate) fn new(members: usize) -> Self {
        let mut model = Model::new(1, 3, members, GIVE_UP.as_millis() as u64);
        for who in [Who::A, Who::B] {
            model.strikes(What::SilenceWatches(Where::Node(who as usize)));
        }
        Self { model, faults: Vec::new() }
    }

    fn ends(&mut self) {
        for fault in std::mem::take(&mut self.faults) {
            self.model.ends(fault);
        }
    }
}

impl Store for ModelStore {
    async fn order(&mut self, who: Who, action: StoreAction, limit: Duration) -> Outcome<StoreDone> {
        self.model.world.nodes[who as usize].config.retry_timeout = limit;
        self.model.store(who as usize, action)
    }

    async fn pass(&mut self, time: Duration) {
        self.model.pass(time);
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.model.world.now.0)
    }

    async fn watched(&mut self) -> Vec<ClusterView> {
        self.model.watched(Who::Watcher as usize)
    }

    async fn delete_leader(&mut self) {
        self.model.strikes(What::LoseKey);
    }

    async fn freeze(&mut self, which: Frozen) {
        let leader = self.model.world.store_leader.expect("a member that leads");
        for member in 0..self.model.world.members.len() {
            if (member == leader) == (which == Frozen::Leader) {
                self.faults.push(self.model.strikes(What::FreezeStoreMember(member)));
            }
        }
    }

    async fn thaw(&mut self) {
        self.ends();
    }

    async fn kill(&mut self) {
        self.faults.push(self.model.strikes(What::StopStore));
    }

    async fn start_again(&mut self) {
        self.ends();
    }
}
