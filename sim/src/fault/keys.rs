//! What operators do to the store behind the agents' backs.

use matriarch_core::event::Event;
use matriarch_core::id::Revision;
use matriarch_core::time::Duration;

use super::What;
use crate::node::{Node, NodeId};
use crate::store::hands::{Backup, Key};
use crate::time::ms;
use crate::world::World;

/// How often a backup is taken, where one will be wanted.
const BACKUP_EVERY: Duration = Duration::from_secs(5);
/// The most that are kept: ten minutes.
const BACKUPS_MAX: usize = 120;

/// The dynamic configuration, as far as it changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dynamic {
    ttl_ms: u64,
    loop_wait_ms: u64,
    retry_timeout_ms: u64,
    maximum_lag_bytes: u64,
    /// It asks for a mode that is not supported.
    unsupported: bool,
}

impl World {
    /// A backup of the store is taken, if the plan restores one.
    pub fn take_backup(&mut self) {
        if self.backups.len() == BACKUPS_MAX {
            self.backups.pop_front();
        }
        let backup = self.store.backup();
        self.backups.push_back(backup);
        self.later(BACKUP_EVERY, crate::world::Due::Backup);
    }

    /// The backup of so long ago, or the oldest.
    fn backup_of(&self, ago_ms: u64) -> Option<Backup> {
        let back = (ago_ms / BACKUP_EVERY.as_millis() as u64) as usize;
        self.backups.get(self.backups.len().saturating_sub(back + 1)).cloned()
    }

    /// The store comes back as it was. Its raft term begins anew, as after `etcdctl snapshot restore`: with the election
    /// that is to come it is what it was when the store was new.
    pub(super) fn store_restored(&mut self, ago_ms: u64) {
        let Some(backup) = self.backup_of(ago_ms) else { return };
        let now = self.now;
        // Another fault may have started its members meanwhile: no watch goes on across it.
        for member in 0..self.members.len() {
            for node in 0..self.nodes.len() {
                self.watches_break(NodeId(node), member);
            }
        }
        let led = |world: &Self| world.store.keys().leader.as_ref().map(|leader| (leader.lease, leader.created));
        let led_before = led(self);
        self.store.restore(&backup, now);
        self.note_initialize_gone();
        self.note_history_lost();
        // A tenure of the lost future, and an agent that had heard nothing of it: it believes the store at once. So does
        // everybody where the backup is older than another restore, and of more revisions than were written since.
        let lost = led_before.is_some() && led(self) != led_before;
        let back_to = self.store.keys().revision;
        self.dynamic.retain(|since, _| *since <= back_to);
        // What it says of the configuration is told by the keys below.
        self.note_lag_limit_lost();
        let heard = |node: &Node| {
            let agent = node.agent.as_ref()?;
            Some(agent.state.store.cluster.as_ref().map_or(Revision(0), |seen| seen.value.revision))
        };
        if lost && self.nodes.iter().filter_map(heard).any(|known| known <= back_to) {
            self.checks.unaware = Some(now);
        }
        self.term = 0;
        // Whoever was elected meanwhile has led another store.
        (self.store_leader, self.lonely) = (None, None);
        self.coverage.count("store restored");
        self.checks.restored(now);
        self.forget_reserved();
        self.store_changed();
    }

    pub(crate) fn key_deleted(&mut self, key: Key) {
        self.store.delete(key);
        self.hands_on(key);
    }

    pub(super) fn key_garbled(&mut self, key: Key) {
        self.store.garble(key);
        self.hands_on(key);
    }

    fn hands_on(&mut self, key: Key) {
        self.coverage.count("key changed by hand");
        if key == Key::Initialize {
            self.note_initialize_gone();
        }
        // Whoever has seen what was published there knows it, and nobody else.
        if key == Key::Status {
            self.checks.status_lost = true;
        }
        if key == Key::Config {
            self.note_lag_limit_lost();
        }
        if key == Key::History {
            self.note_history_lost();
        }
        if key == Key::Members {
            self.checks.keys_gone = Some(self.now);
        }
        if key == Key::Record {
            self.forget_reserved();
        }
        self.store_changed();
    }

    pub(super) fn keys_deleted(&mut self) {
        self.store.delete_all();
        self.coverage.count("all keys deleted");
        self.note_initialize_gone();
        self.note_history_lost();
        self.note_lag_limit_lost();
        self.checks.keys_gone = Some(self.now);
        self.checks.forget_published();
        self.forget_reserved();
        self.store_changed();
    }

    /// An operator pauses the cluster, or ends that. Whoever was left alone may have much to make up for.
    pub(super) fn cluster_paused(&mut self, on: bool) {
        self.checks.disturbed(None, self.now);
        self.note_pause(on);
        self.coverage.count(if on { "cluster paused" } else { "cluster resumed" });
        self.store.pause(on);
        self.store_changed();
    }

    /// The last of them, if it was changed.
    pub fn last_lag_limit(&self) -> Option<u64> {
        self.dynamic.last_key_value().map(|(_, dynamic)| dynamic.maximum_lag_bytes)
    }

    /// The store holds this very configuration.
    pub(super) fn is_configured(&self, what: What) -> bool {
        let What::ChangeConfig { ttl_ms, loop_wait_ms, retry_timeout_ms, maximum_lag_bytes } = what else {
            return false;
        };
        let there = self.store.holds(Key::Config);
        let is_wanted = |dynamic: &Dynamic| {
            *dynamic == Dynamic { ttl_ms, loop_wait_ms, retry_timeout_ms, maximum_lag_bytes, ..*dynamic }
        };
        there && self.dynamic.last_key_value().is_some_and(|(_, dynamic)| is_wanted(dynamic))
    }

    /// What the dynamic configuration says.
    fn dynamic(&mut self) -> Dynamic {
        let settings = &self.settings;
        self.dynamic.entry(Revision(0)).or_insert(Dynamic {
            ttl_ms: settings.ttl_ms,
            loop_wait_ms: settings.loop_wait_ms,
            retry_timeout_ms: settings.retry_timeout_ms,
            maximum_lag_bytes: settings.maximum_lag_bytes,
            unsupported: false,
        });
        self.dynamic.last_key_value().map(|(_, dynamic)| *dynamic).expect("it was put there")
    }

    /// An operator writes another dynamic configuration.
    fn configured(&mut self, dynamic: Dynamic) {
        self.store.configure();
        self.dynamic.insert(self.store.keys().config_revision, dynamic);
        self.store_changed();
    }

    /// He asks for a mode that is not supported, or not any more: agents hear of it as of anything that `config` tells.
    pub(super) fn unsupported_asked(&mut self, on: bool) {
        // Whoever has observed may have much to make up for.
        self.checks.disturbed(None, self.now);
        let dynamic = Dynamic { unsupported: on, ..self.dynamic() };
        self.configured(dynamic);
    }

    /// What asks for an unsupported mode again came back with the keys of a backup, or was deleted before who goes by it heard
    /// of its end: whoever heals the world sees to that.
    pub(super) fn take_back_unsupported(&mut self) {
        let observes = self.nodes.iter().any(|node| node.config.unsupported.is_some());
        if observes || self.dynamic().unsupported {
            self.unsupported_asked(false);
        }
    }

    /// The dynamic configuration is another from now on. What is checked goes by the longest times that were ever allowed, and
    /// by the loss that is.
    pub(super) fn configuration_changes(&mut self, what: What) {
        let What::ChangeConfig { ttl_ms, loop_wait_ms, retry_timeout_ms, maximum_lag_bytes } = what else { return };
        let dynamic = Dynamic { ttl_ms, loop_wait_ms, retry_timeout_ms, maximum_lag_bytes, ..self.dynamic() };
        let bounds = &mut self.settings;
        bounds.ttl_ms = bounds.ttl_ms.max(ttl_ms);
        bounds.loop_wait_ms = bounds.loop_wait_ms.max(loop_wait_ms);
        bounds.retry_timeout_ms = bounds.retry_timeout_ms.max(retry_timeout_ms);
        self.note_lag_limit(maximum_lag_bytes);
        self.coverage.count("configuration changed");
        self.configured(dynamic);
    }

    /// An agent that has seen another `config` than it goes by takes it up. Its revision tells nothing: a store that was restored
    /// mints it again.
    pub fn follow_configuration(&mut self, node: NodeId) {
        let host = &mut self.nodes[node.0];
        let Some(agent) = host.agent.as_mut().filter(|agent| !agent.left) else { return };
        let seen = agent.mirror.config_revision;
        let Some((_, new)) = self.dynamic.range(..=seen).next_back() else { return };
        // What was there in a past that is lost says nothing of what is there now.
        let lost = seen > self.store.keys().revision;
        if agent.config_seen == Some(*new) || seen.0 == 0 || lost {
            return;
        }
        agent.config_seen = Some(*new);
        let config = &mut host.config;
        let modes_change = config.unsupported.is_some() != new.unsupported;
        config.ttl = ms(new.ttl_ms);
        config.loop_wait = ms(new.loop_wait_ms);
        config.retry_timeout = ms(new.retry_timeout_ms);
        config.maximum_lag_on_failover_bytes = new.maximum_lag_bytes;
        config.unsupported = new.unsupported.then(|| "synchronous mode".into());
        agent.horizon.allow_tenure(config.ttl);
        let event = (agent.state.config != *config).then(|| Event::Configured(config.clone()));
        // Who hears late that it may do more than observe begins late to make up for it.
        if modes_change {
            self.checks.disturbed(Some(node), self.now);
            self.note_mode_restored();
        }
        if let Some(event) = event {
            self.step(node, event);
        }
    }
}
