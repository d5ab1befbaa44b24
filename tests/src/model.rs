//! The simulator's world driven by a script: orders and faults come from a script, no agent decides, and nothing is checked.
//! What conformance tests hold against real servers.

use std::time::Duration;

use matriarch_core::action::{PostgresAction, StoreAction};
use matriarch_core::event::{Event, PostgresDone, PostgresEvent, StoreDone, StoreEvent};
use matriarch_core::id::OpId;
use matriarch_core::op::Outcome;
use matriarch_core::view::store::ClusterView;
use matriarch_sim::fault::{Fault, Plan, What, When};
use matriarch_sim::node::NodeId;
use matriarch_sim::settings::Settings;
use matriarch_sim::time::Time;
use matriarch_sim::trace::Trace;
use matriarch_sim::world::World;

/// Longer than any script.
const NEVER_MS: u64 = 1_000_000_000;

/// The world, and what was heard in it.
pub struct Model {
    /// The world.
    pub world: World,
    orders: u64,
    heard: Vec<(NodeId, Event)>,
}

impl Model {
    /// Empty nodes beside an empty store. The members of the store answer, and whoever asks gives up after
    /// `retry_timeout_ms`.
    pub fn new(seed: u64, nodes: usize, store_members: usize, retry_timeout_ms: u64) -> Self {
        Self::with(seed, Settings { nodes, store_members, retry_timeout_ms, ..Settings::usual() })
    }

    /// The same with other settings; nobody commits, and no fault comes by itself.
    pub fn with(seed: u64, settings: Settings) -> Self {
        let settings = Settings { commit_ms: NEVER_MS, faults_ms: NEVER_MS, ..settings };
        let mut world = World::new(Plan::calm(seed, settings), None, Trace::hash_only());
        world.scripted = Some(Vec::new());
        let mut model = Self { world, orders: 0, heard: Vec::new() };
        // Agents are there by then: what they hear is ours.
        model.pass(Duration::from_secs(3));
        model
    }

    /// Time passes.
    pub fn pass(&mut self, time: Duration) {
        let end = self.world.now + time;
        loop {
            self.world.run_until(end);
            // Nobody leads here, and whoever is promoted has no right to: what core must not do, a script may.
            if self.world.violation.take().is_none() {
                break;
            }
        }
        self.heard.extend(self.world.scripted.iter_mut().flat_map(std::mem::take));
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.world.now
    }

    fn op(&mut self) -> OpId {
        self.orders += 1;
        OpId(self.orders)
    }

    /// Orders something of the store, without waiting for what comes of it.
    pub fn begin_store(&mut self, node: usize, action: StoreAction) -> OpId {
        let op = self.op();
        self.world.call(NodeId(node), op, action);
        op
    }

    /// Orders something of the store, and waits for the answer, which comes in time or is `Unknown`.
    pub fn store(&mut self, node: usize, action: StoreAction) -> Outcome<StoreDone> {
        let op = self.begin_store(node, action);
        loop {
            let found = self.take(|event| match event {
                Event::Store(StoreEvent::Completed { op: of, outcome, .. }) if *of == op => Some(outcome.clone()),
                _ => None,
            });
            match found {
                Some(outcome) => return outcome,
                None => self.pass(Duration::from_millis(1)),
            }
        }
    }

    /// Orders something of PostgreSQL, and waits for its end; `None` if it has not ended within `limit`.
    pub fn postgres(&mut self, node: usize, action: PostgresAction, limit: Duration) -> Option<Outcome<PostgresDone>> {
        let op = self.op();
        self.world.begin_job(NodeId(node), op, action, None);
        let end = self.world.now + limit;
        while self.world.now < end {
            let found = self.take(|event| match event {
                Event::Postgres(PostgresEvent::Completed { op: of, outcome }) if *of == op => Some(outcome.clone()),
                _ => None,
            });
            if found.is_some() {
                return found;
            }
            self.pass(Duration::from_millis(1));
        }
        None
    }

    fn take<T>(&mut self, which: impl Fn(&Event) -> Option<T>) -> Option<T> {
        let (index, found) =
            self.heard.iter().enumerate().find_map(|(index, (_, event))| Some((index, which(event)?)))?;
        self.heard.remove(index);
        Some(found)
    }

    /// What the watches of a node have told since it was last asked.
    pub fn watched(&mut self, node: usize) -> Vec<ClusterView> {
        let told = self
            .heard
            .extract_if(.., |(at, event)| at.0 == node && matches!(event, Event::Store(StoreEvent::Watched(_))));
        let view = |event| match event {
            Event::Store(StoreEvent::Watched(seen)) => Some(seen.value),
            _ => None,
        };
        told.filter_map(|(_, event)| view(event)).collect()
    }

    /// A fault strikes; until when, [`Self::ends`] says.
    pub fn strikes(&mut self, what: What) -> usize {
        let index = self.world.plan.faults.len();
        self.world.plan.faults.push(Fault { when: When::AtMs(0), what, for_ms: NEVER_MS });
        self.world.fault_begins(index);
        index
    }

    /// A fault that lasts ends.
    pub fn ends(&mut self, index: usize) {
        self.world.fault_ends(index);
    }
}
