//! The simulator's store.

use std::time::Duration;

use matriarch_core::action::StoreAction;
use matriarch_core::event::StoreDone;
use matriarch_core::op::Outcome;
use matriarch_core::view::store::ClusterView;
use matriarch_sim::fault::{What, Where};
use matriarch_sim::settings::Settings;
use matriarch_sim::store::hands::Key;
use matriarch_tests::Model;

use crate::{GIVE_UP, Members, Store, TENURE, Who};

/// The model, and the faults that go on.
pub(crate) struct ModelStore {
    model: Model,
    faults: Vec<usize>,
}

impl ModelStore {
    pub(crate) fn new(members: usize) -> Self {
        let (ttl_ms, retry_timeout_ms) = (TENURE.as_millis() as u64, GIVE_UP.as_millis() as u64);
        let settings = Settings { nodes: 3, store_members: members, ttl_ms, retry_timeout_ms, ..Settings::usual() };
        let mut model = Model::with(1, settings);
        for who in [Who::A, Who::B] {
            model.strikes(What::SilenceWatches(Where::Node(who as usize)));
        }
        Self { model, faults: Vec::new() }
    }

    fn members(&self, which: Members) -> Vec<usize> {
        let leader = self.model.world.store_leader.expect("a member that leads");
        let is_meant = |member: &usize| match which {
            Members::All => true,
            Members::Leader => *member == leader,
            Members::Followers => *member != leader,
            Members::Of(who) => *member == who as usize,
        };
        (0..self.model.world.members.len()).filter(is_meant).collect()
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

    async fn delete(&mut self, key: &str) {
        self.model.strikes(match key {
            "leader" => What::LoseKey,
            "matriarch" => What::DeleteKey(Key::Record),
            other => panic!("no script deletes {other}"),
        });
    }

    async fn delete_all(&mut self) {
        self.model.strikes(What::DeleteAllKeys);
    }

    async fn revoke_tenure(&mut self) {
        self.model.strikes(What::LoseLease);
    }

    async fn freeze(&mut self, which: Members) {
        for member in self.members(which) {
            self.faults.push(self.model.strikes(What::FreezeStoreMember(member)));
        }
    }

    async fn thaw(&mut self) {
        self.ends();
    }

    async fn kill(&mut self, which: Members) {
        for member in self.members(which) {
            self.faults.push(self.model.strikes(What::StopStoreMember(member)));
        }
    }

    async fn start_again(&mut self) {
        self.ends();
    }

    async fn backup(&mut self) {
        let backup = self.model.world.store.backup();
        self.model.world.backups = [backup].into();
    }

    async fn restore(&mut self) {
        let restored = self.model.strikes(What::RestoreStore(0));
        self.model.ends(restored);
    }
}
