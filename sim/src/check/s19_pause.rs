//! S19: a pause is respected. An agent that has seen it starts, stops, promotes, demotes and rewinds nothing but at an
//! operator's request; and its leader is soon let go, or the guard would end what nobody may end.
//!
//! What an agent has seen is noted where it arrives, before core hears of it.

use std::time::Duration;

use matriarch_core::action::{Action, GuardAction, PostgresAction};
use matriarch_core::effects::Order;
use matriarch_core::event::{Event, Request, StoreDone, StoreEvent};
use matriarch_core::id::{Lsn, Revision};
use matriarch_core::op::Outcome;
use matriarch_core::reason::Reason;
use matriarch_core::view::store::{ClusterView, FailoverKey};

use super::NODES_MAX;
use crate::node::NodeId;
use crate::time::{Time, ms};
use crate::world::World;

/// From when a pause is seen until its leader is let go: the store is told, the guard is asked.
const LET_GO_WITHIN: Duration = ms(10_000);
/// What was asked for is taken up within this time.
const TAKEN_UP_WITHIN: Duration = ms(10_000);

/// What is known of a pause.
#[derive(Clone, Debug, Default)]
pub struct Pauses {
    /// Since when the cluster is paused.
    since: Option<Time>,
    /// When the leader key was taken last.
    pub(super) taken: Time,
    /// The newest keys that each agent has seen, by its boot, and since when it has seen a pause there.
    seen: [(u32, Revision, Option<Time>); NODES_MAX],
    /// They tell that its own primary has no guard.
    told: [bool; NODES_MAX],
    /// When each agent saw a pause end.
    ended: [Time; NODES_MAX],
    /// When an operator last asked for something that concerns the node; until it is done.
    asked: [Option<Time>; NODES_MAX],
}

impl World {
    /// An operator pauses the cluster, or ends that. Nobody counts how long it does not serve meanwhile.
    pub fn note_pause(&mut self, on: bool) {
        self.checks.pauses.since = on.then_some(self.now);
        self.checks.lone = None;
        self.note_unrest();
        self.note_resumed(on);
    }

    /// The cluster is paused.
    pub(super) fn is_paused(&self) -> bool {
        self.checks.pauses.since.is_some()
    }

    /// Keys reach an agent.
    pub fn note_keys_seen(&mut self, node: NodeId, event: &Event) {
        let Event::Store(event) = event else { return };
        let keys: &ClusterView = match event {
            StoreEvent::Watched(seen) => &seen.value,
            StoreEvent::Completed {
                outcome: Outcome::Done(StoreDone::Read(keys) | StoreDone::Acquired(keys)), ..
            } => keys,
            StoreEvent::Completed { .. } => return,
        };
        let boot = self.nodes[node.0].agent.as_ref().map_or(0, |agent| agent.boot);
        let (known_boot, revision, since) = self.checks.pauses.seen[node.0];
        let since = since.filter(|_| known_boot == boot);
        if known_boot == boot && keys.revision < revision {
            return;
        }
        let (of, known) = self.checks.told_system[node.0];
        self.checks.told_system[node.0] = (boot, keys.system_id().or(known.filter(|_| of == boot)));
        let published = keys.status.as_ref().map_or(Lsn(0), |status| status.optime);
        if published > Lsn(0) {
            self.checks.told_status[node.0] = (boot, published);
        }
        let record = keys.epoch.as_ref();
        let told = record.is_some_and(|record| record.unguarded && record.member == self.names[node.0]);
        self.checks.pauses.told[node.0] = told;
        let Some(paused) = keys.paused else { return };
        if !paused && since.is_some() {
            self.checks.pauses.ended[node.0] = self.now;
        }
        let since = paused.then(|| since.unwrap_or(self.now));
        self.checks.pauses.seen[node.0] = (boot, keys.revision, since);
        // What an agent keeps of the configuration on its disk.
        self.nodes[node.0].config.paused_before = paused;
    }

    /// An operator asks an agent for something.
    pub fn note_request(&mut self, node: NodeId, request: &Request) {
        if matches!(request, Request::Restart | Request::Reinitialize { .. } | Request::Move(_)) {
            self.checks.pauses.asked[node.0] = Some(self.now);
        }
        if let Request::ScheduleRestart(wanted) = request {
            self.note_scheduled_restart(node, wanted.schedule.at);
        }
    }

    /// The leader key was taken by whom an operator asked for; what he asks for next does not take that back.
    pub(super) fn note_wish(&mut self, node: NodeId) {
        self.checks.pauses.asked[node.0] = Some(self.now);
    }

    /// Since when the agent that runs there has seen a pause.
    fn has_seen_pause(&self, node: NodeId) -> Option<Time> {
        let boot = self.nodes[node.0].agent.as_ref()?.boot;
        let (seen_by, _, since) = self.checks.pauses.seen[node.0];
        since.filter(|_| seen_by == boot)
    }

    /// When the agent has seen the end of a pause last.
    pub(super) fn saw_pause_end(&self, node: NodeId) -> Time {
        self.checks.pauses.ended[node.0]
    }

    /// The store tells that a primary of this node has no guard.
    pub fn is_let_go(&self, node: NodeId) -> bool {
        let record = self.store.keys().epoch.as_ref();
        record.is_some_and(|record| record.unguarded && record.member == self.names[node.0])
    }

    /// The node is concerned by an operator's request, and that is not done.
    fn is_asked(&mut self, node: NodeId) -> bool {
        let name = &self.names[node.0];
        let request = self.store.keys().failover.as_ref().filter(|request| request.scheduled_at.is_none());
        // The wish for a new clone stands until there is a leader to clone from, and a request until it is answered. An
        // agent that was asked to stop undoes what it had begun for that.
        let stands = self.nodes[node.0].agent.as_ref().is_some_and(|agent| {
            let state = &agent.state;
            state.memory.reinit || state.leaving || !state.requests.is_empty()
        });
        // A failover is for whoever leads to carry out, however long ago it was asked for.
        let leads = self.leading() == Some(node);
        let concerns = |request: &FailoverKey| {
            let of = request.leader.as_ref().map_or(leads, |leader| leader == name);
            of || request.candidate.as_ref() == Some(name)
        };
        if stands || request.is_some_and(concerns) {
            self.checks.pauses.asked[node.0] = Some(self.now);
        }
        let ready = self.nodes[node.0].server.is_ready();
        // Not while the node stands still.
        let quiet = self.checks.quiet_since[node.0];
        let open = |asked: &Time| !ready || self.now.since(quiet.max(*asked)) < TAKEN_UP_WITHIN;
        let asked = self.checks.pauses.asked[node.0].filter(open);
        self.checks.pauses.asked[node.0] = asked;
        asked.is_some()
    }

    /// S19: an order is about to be carried out.
    pub(super) fn check_paused_order(&mut self, node: NodeId, order: &Order) {
        let stops = match &order.action {
            Action::Postgres(PostgresAction::Stop(_)) | Action::Guard(GuardAction::Fire | GuardAction::Hold) => true,
            Action::Postgres(
                PostgresAction::Start(_)
                | PostgresAction::Restart
                | PostgresAction::Promote { .. }
                | PostgresAction::Initdb
                | PostgresAction::Clone(_)
                | PostgresAction::Rewind(_)
                | PostgresAction::RecoverSingleUser,
            ) => false,
            _ => return,
        };
        if self.is_asked(node) {
            return;
        }
        let Some(since) = self.has_seen_pause(node) else {
            // What was scheduled has begun, and PostgreSQL is brought back from it.
            if matches!(order.because, Reason::RestartRequested | Reason::StoppingForHandover) {
                self.checks.pauses.asked[node.0] = Some(self.now);
            }
            return;
        };
        // A primary that is not let go yet, or lost its tenure before it could be, ends as ever.
        // What was begun before, a promotion too, stays under its guard until it is up.
        let postmaster = self.nodes[node.0].server.postmaster.as_ref();
        let agent = self.nodes[node.0].agent.as_ref();
        let promotes = |what: &PostgresAction| matches!(what, PostgresAction::Promote { .. });
        let ordered = agent
            .is_some_and(|agent| agent.state.memory.promotion || agent.jobs.values().any(|job| promotes(&job.action)));
        let recovers = postmaster.is_some_and(|pm| pm.in_recovery && pm.promoting.is_none()) && !ordered;
        // Restarted by hand under a tenure of its own, it is still what that tenure ends.
        let led = agent.is_some_and(|agent| agent.state.tenure.held().is_some() || agent.state.spent.is_some());
        let begun = !self.nodes[node.0].server.is_ready();
        // Where requests were lost just before, the keys are read again before it is let go; and one that stands still lets
        // nothing go.
        let since = since.max(self.checks.quiet_since[node.0]);
        let let_go = self.nodes[node.0].agent.as_ref().is_some_and(|agent| agent.state.memory.let_go);
        // And what was made a primary before the pause, beside whoever leads, is no wish of this pause: one that was away and
        // has not known it then ends that at once, unless it has let it go.
        let beside = self.leading().is_some_and(|leading| leading != node) && !let_go;
        let fresh = self.now.since(since.max(self.nodes[node.0].booted)) < LET_GO_WITHIN;
        let wished = |at: &Time| !(beside && fresh) || self.checks.pauses.since.is_none_or(|paused| *at >= paused);
        let by_hand = self.checks.by_hand[node.0].as_ref().is_some_and(wished) && !led;
        let reads = !let_go && self.now.since(since) < LET_GO_WITHIN;
        if stops && !recovers && !by_hand && (begun || reads || !self.checks.pauses.told[node.0]) {
            return;
        }
        let (what, why) = (crate::coverage::kind(&order.action), order.because.code());
        self.violated("S19", format!("{} has seen a pause and does {what} ({why})", self.names[node.0]));
    }

    /// S19: a leader that has seen a pause is let go.
    pub(super) fn check_let_go(&mut self, node: NodeId) {
        let Some(since) = self.has_seen_pause(node) else { return };
        let armed = self.nodes[node.0].guard.as_ref().is_some_and(|guard| guard.armed.is_some() && !guard.firing);
        let calm = self.is_quiet(node, 10_000) && self.was_prompt() && self.store_answers(node);
        let struck = self.checks.struck.values().any(|struck| *struck == node);
        // An operator's primary that takes the key in a pause is armed for that moment like any other.
        let due = self.now.since(since.max(self.checks.pauses.taken)) > LET_GO_WITHIN && armed && calm && !struck;
        if due && self.leading() == Some(node) && self.nodes[node.0].server.is_primary() && !self.is_asked(node) {
            let what = format!("{} has seen a pause at {since} and its guard is armed", self.names[node.0]);
            self.violated("S19", what);
        }
    }

    /// An operator's primary took the key: whoever was let go and cannot hear of it is beside it by his hand.
    pub(super) fn note_taken_by_hand(&mut self, holder: NodeId) {
        if self.checks.by_hand[holder.0].is_none() {
            return;
        }
        for node in 0..self.nodes.len() {
            // Its agent may have left it as it is.
            let let_go = self.nodes[node].agent.as_ref().is_none_or(|agent| agent.state.memory.let_go);
            // One that stands still goes on some time.
            let server = &self.nodes[node].server;
            if node != holder.0 && let_go && (server.is_primary() || server.can_acknowledge()) {
                self.checks.by_hand[node].get_or_insert(self.now);
                self.checks.taken_up[node] = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use matriarch_core::id::{OpId, Timeline};
    use matriarch_core::view::postgres::{StartAs, StopMode};

    /// A minute later in a cluster that was paused.
    fn paused(world: &mut World) {
        world.note_pause(true);
        world.store.pause(true);
        world.store_changed();
        let end = world.now + ms(60_000);
        world.run_until(end);
        assert_eq!(world.violation, None);
    }

    fn order(action: Action) -> Order {
        Order { op: OpId(1), action, because: Reason::AtGoal, under: None }
    }

    fn start() -> Action {
        Action::Postgres(PostgresAction::Start(StartAs::Standby(None)))
    }

    #[test]
    fn something_is_done_that_nobody_asked_for() {
        let does = |action: Action, of: fn(&World) -> NodeId, change: fn(&mut World, NodeId)| {
            broken(move |world| {
                paused(world);
                let node = of(world);
                change(world, node);
                world.check_paused_order(node, &order(action));
            })
        };
        let stop = || Action::Postgres(PostgresAction::Stop(StopMode::Fast));
        assert_eq!(does(start(), standby, |_, _| ()), Some("S19"));
        assert_eq!(does(stop(), standby, |_, _| ()), Some("S19"));
        assert_eq!(does(Action::Guard(GuardAction::Fire), leader, |_, _| ()), Some("S19"));
        let asked = |world: &mut World, node: NodeId| world.note_request(node, &Request::Restart);
        assert_eq!(does(stop(), standby, asked), None, "an operator has asked for it");
        let long_ago = |world: &mut World, node: NodeId| {
            world.note_request(node, &Request::Restart);
            world.now = world.now + TAKEN_UP_WITHIN;
        };
        assert_eq!(does(stop(), standby, long_ago), Some("S19"), "and that was done long ago");
        let unseen = |world: &mut World, node: NodeId| world.checks.pauses.seen[node.0].2 = None;
        assert_eq!(does(start(), standby, unseen), None, "it has not heard of the pause");
        let scheduled = |world: &mut World, node: NodeId| {
            let paused = std::mem::take(&mut world.checks.pauses.seen[node.0].2);
            let restart = Action::Postgres(PostgresAction::Restart);
            world.check_paused_order(node, &Order { because: Reason::RestartRequested, ..order(restart) });
            world.checks.pauses.seen[node.0].2 = paused;
        };
        assert_eq!(does(start(), standby, scheduled), None, "a restart was due just before");
        let of_the_leader = |world: &mut World, _: NodeId| {
            let candidate = Some(world.names[standby(world).0].clone());
            let revision = Revision(1);
            world.store.forge(|keys| {
                keys.failover = Some(FailoverKey { revision, leader: None, candidate, scheduled_at: None });
            });
        };
        assert_eq!(does(stop(), leader, of_the_leader), None, "it is asked to fail over");
        assert_eq!(does(stop(), other_standby, of_the_leader), Some("S19"), "another is");
        let chosen = |world: &mut World, node: NodeId| world.note_wish(node);
        assert_eq!(does(start(), standby, chosen), None, "an operator named it, and then another");
        let untold = |world: &mut World, node: NodeId| world.checks.pauses.told[node.0] = false;
        assert_eq!(does(Action::Guard(GuardAction::Fire), leader, untold), None, "it was not let go");
        let promoting = |world: &mut World, node: NodeId| {
            world.nodes[node.0].server.postmaster.as_mut().unwrap().promoting = Some(Timeline(9));
            world.checks.pauses.told[node.0] = false;
        };
        assert_eq!(does(Action::Guard(GuardAction::Hold), standby, promoting), None, "it was promoted before");
        assert_eq!(does(Action::Guard(GuardAction::Hold), standby, untold), Some("S19"), "it was not");
        let reading = |world: &mut World, node: NodeId| {
            world.nodes[node.0].agent.as_mut().unwrap().state.memory.let_go = false;
            world.checks.pauses.seen[node.0].2 = Some(world.now);
        };
        assert_eq!(does(Action::Guard(GuardAction::Fire), leader, reading), None, "it reads the keys first");
        let never = |world: &mut World, node: NodeId| {
            world.nodes[node.0].agent.as_mut().unwrap().state.memory.let_go = false;
        };
        assert_eq!(does(Action::Guard(GuardAction::Fire), leader, never), Some("S19"), "it had time for that");
        let stood_still = |world: &mut World, node: NodeId| {
            world.nodes[node.0].agent.as_mut().unwrap().state.memory.let_go = false;
            world.checks.quiet_since[node.0] = world.now;
        };
        assert_eq!(does(Action::Guard(GuardAction::Fire), leader, stood_still), None, "it had not");
        assert_eq!(does(Action::Guard(GuardAction::KillOrphans), leader, |_, _| ()), None, "they are no PostgreSQL");
        let by_hand = |at: fn(&World) -> Time, let_go: bool, seen_now: bool| {
            broken(move |world| {
                paused(world);
                let node = standby(world);
                world.nodes[node.0].server.postmaster.as_mut().unwrap().in_recovery = false;
                world.checks.by_hand[node.0] = Some(at(world));
                world.nodes[node.0].agent.as_mut().unwrap().state.memory.let_go = let_go;
                if seen_now {
                    world.checks.pauses.seen[node.0].2 = Some(world.now);
                }
                world.check_paused_order(node, &order(stop()));
            })
        };
        assert_eq!(by_hand(|world| world.now, false, true), Some("S19"), "an operator has promoted it in the pause");
        assert_eq!(by_hand(|_| Time(0), false, true), None, "it ran beside the leader before");
        assert_eq!(by_hand(|_| Time(0), false, false), Some("S19"), "and was left alone for a minute");
        assert_eq!(by_hand(|_| Time(0), true, true), Some("S19"), "and was let go");
    }

    #[test]
    fn a_leader_that_is_not_let_go() {
        let armed = |change: fn(&mut World, NodeId)| {
            broken(move |world| {
                paused(world);
                let node = leader(world);
                let tenure = key(world).lease;
                let guard = world.nodes[node.0].guard.as_mut().unwrap();
                assert_eq!(guard.armed, None);
                guard.armed =
                    Some(matriarch_core::view::guard::Armed { tenure, at: matriarch_core::time::Instant(u64::MAX) });
                change(world, node);
                world.check_let_go(node);
            })
        };
        assert_eq!(armed(|_, _| ()), Some("S19"));
        assert_eq!(
            armed(|world, node| world.checks.pauses.seen[node.0].2 = Some(world.now)),
            None,
            "it takes a moment"
        );
        let took = |world: &mut World, _: NodeId| world.checks.pauses.taken = world.now;
        assert_eq!(armed(took), None, "it has taken the key just now");
        let asked = |world: &mut World, node: NodeId| world.note_request(node, &Request::Restart);
        assert_eq!(armed(asked), None, "while it is restarted");
    }

    /// What a pause must not end, and what it must: the guard is gone, PostgreSQL goes on, and resuming arms it again.
    #[test]
    fn a_pause_and_its_end() {
        let mut world = steady();
        paused(&mut world);
        let node = leader(&world);
        assert!(world.nodes[node.0].server.can_acknowledge() && world.is_let_go(node));
        world.note_pause(false);
        world.store.pause(false);
        world.store_changed();
        let end = world.now + ms(60_000);
        world.run_until(end);
        assert_eq!(world.violation, None);
        assert_eq!(leader(&world), node);
        assert!(!world.is_let_go(node) && world.nodes[node.0].guard.as_ref().unwrap().armed.is_some());
    }
}
