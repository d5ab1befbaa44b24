//! What the next agent of this node is to know, written whenever it changes. Beside the loop: a disk that hangs must not
//! hang it.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::handle::Shared;
use super::promises::{InForce, Promises};

/// What was written last.
pub(super) struct Kept {
    promises: Arc<dyn Promises>,
    paused: bool,
    permanent_slots: BTreeSet<String>,
    configuration: Option<InForce>,
}

impl Kept {
    /// What the last agent left.
    pub(super) fn read(promises: Arc<dyn Promises>) -> Self {
        Self {
            paused: promises.was_paused(),
            permanent_slots: promises.permanent_slots(),
            configuration: promises.configuration(),
            promises,
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
        self.configuration.as_ref().map(|in_force| &in_force.config)
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
        let kept = self.configuration.as_ref().map(|kept| (&kept.system_id, &kept.config));
        let in_force = shared.system_identifier.as_ref().zip(configured);
        if let Some((system_id, config)) = in_force.filter(|in_force| kept != Some(*in_force)) {
            let in_force = InForce { system_id: system_id.clone(), config: config.clone() };
            self.configuration = Some(in_force.clone());
            let promises = Arc::clone(&self.promises);
            tokio::spawn(async move { promises.keep_configuration(in_force).await });
        }
    }
}
