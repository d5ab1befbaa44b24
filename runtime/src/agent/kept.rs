//! What the next agent of this node is to know, written whenever it changes. Beside the loop: a disk that hangs must not
//! hang it.

use std::collections::BTreeSet;
use std::sync::Arc;

use matriarch_core::view::postgres::DataDir;
use serde_json::Value;

use super::handle::Shared;
use super::promises::Promises;
use crate::postgres::Server;

/// What was written last.
pub(super) struct Kept {
    promises: Arc<dyn Promises>,
    postgres: Arc<dyn Server>,
    paused: bool,
    permanent_slots: BTreeSet<String>,
    configuration: Option<Value>,
}

impl Kept {
    /// What the last agent left. `in_force` is the dynamic configuration that it found or left.
    pub(super) fn read(promises: Arc<dyn Promises>, postgres: Arc<dyn Server>, in_force: Option<Value>) -> Self {
        Self {
            paused: promises.was_paused(),
            permanent_slots: promises.permanent_slots(),
            configuration: in_force,
            promises,
            postgres,
        }
    }

    /// The cluster was paused.
    pub(super) fn was_paused(&self) -> bool {
        self.paused
    }

    /// The operator's slots.
    pub(super) fn permanent_slots(&self) -> &BTreeSet<String> {
        &self.permanent_slots
    }

    /// The dynamic configuration that was in force.
    pub(super) fn configuration(&self) -> Option<&Value> {
        self.configuration.as_ref()
    }

    /// Writes what is another than it was. `configured` is the last dynamic configuration of the store that can be used.
    pub(super) fn keep(&mut self, shared: &Shared, configured: Option<&Value>) {
        let memory = &shared.core.memory;
        let paused = memory.paused.is_some();
        if std::mem::replace(&mut self.paused, paused) != paused {
            let promises = Arc::clone(&self.promises);
            tokio::spawn(async move { promises.keep_paused(paused).await });
        }
        if memory.permanent_slots != self.permanent_slots {
            self.permanent_slots.clone_from(&memory.permanent_slots);
            let (promises, names) = (Arc::clone(&self.promises), self.permanent_slots.clone());
            tokio::spawn(async move { promises.keep_permanent_slots(names).await });
        }
        let kept = self.configuration.as_ref();
        if let Some(config) = configured.filter(|config| Some(*config) != kept && is_of_the_cluster(shared)).cloned() {
            self.configuration = Some(config.clone());
            let postgres = Arc::clone(&self.postgres);
            tokio::spawn(async move { postgres.keep_configuration(config).await });
        }
    }
}

/// The data directory is that of the cluster whose keys are seen. The race: a node is started in another cluster's scope, by
/// mistake, and leaves a moment later.
fn is_of_the_cluster(shared: &Shared) -> bool {
    let DataDir::Cluster(data) = &shared.core.postgres.data else { return false };
    let named = shared.core.store.cluster.as_ref().and_then(|seen| seen.value.system_id());
    data.tainted.is_none() && named == Some(data.system_id)
}
