//! L6: no needless fence; and in a healed world nothing takes a leader out of office that serves: it is not stopped,
//! its key is not given away and does not go, unless an operator's request or schedule is still to be carried out.

use matriarch_core::action::{Action, GuardAction, PostgresAction, StoreAction};
use matriarch_core::config::AHEAD_PATIENCE;
use matriarch_core::effects::Order;
use matriarch_core::id::{Member, Revision};
use matriarch_core::reason::Reason;
use matriarch_core::time::WallMillis;

use super::NODES_MAX;
use crate::net::{End, Plane};
use crate::node::NodeId;
use crate::store::Gone;
use crate::time::{Time, ms};
use crate::world::World;

/// What operators have asked for and what stops a leader: it may come when all is calm again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Errands {
    /// When the last of them was begun.
    pub(super) since: Option<Time>,
    /// The request for a hand-over that was begun last, by its revision: none is carried out twice.
    moved: Option<Revision>,
    /// When each node is to be restarted, by its wall clock, until it is.
    restarts: [Option<WallMillis>; NODES_MAX],
}

impl World {
    /// The faults are over, and it was time enough for everything that they had left behind.
    pub(super) fn is_at_peace(&self) -> bool {
        self.serves_by().is_some_and(|by| self.now > by)
    }

    /// What an operator has asked for takes a moment, as it may where it is all that happens (L10).
    pub(super) fn is_on_an_errand(&self) -> bool {
        self.checks.errands.since.is_some_and(|since| self.now.since(since) < 2 * AHEAD_PATIENCE)
    }

    /// An operator asks for a restart at a time. While one is scheduled, another is refused.
    pub(super) fn note_scheduled_restart(&mut self, node: NodeId, at: WallMillis) {
        let scheduled = |agent: &crate::node::Agent| agent.state.scheduled_restart.is_some();
        if !self.nodes[node.0].agent.as_ref().is_some_and(scheduled) {
            self.checks.errands.restarts[node.0] = Some(at);
        }
    }

    /// An order is about to be carried out that an operator asked for, as the store and his own word have it.
    fn note_errand(&mut self, node: NodeId, action: &Action) {
        let begins = match action {
            Action::Postgres(PostgresAction::Stop(_)) => {
                let (me, request) = (&self.names[node.0], self.store.keys().failover.as_ref());
                let request = request.filter(|request| {
                    let ours = request.leader.as_ref().is_none_or(|leader| leader == me);
                    ours && request.candidate.as_ref() != Some(me) && request.scheduled_at.is_none()
                });
                let revision = request.map(|request| request.revision);
                let moves = revision.is_some() && revision != self.checks.errands.moved;
                if moves {
                    self.checks.errands.moved = revision;
                }
                moves
            }
            Action::Postgres(PostgresAction::Restart) => {
                let wall = self.nodes[node.0].clock.wall(self.now).0;
                // What is later than that is dropped; what was begun in time waits for its checkpoint.
                let late_ms = (self.settings.loop_wait_ms * 3 / 2 + 1000 + self.pace.checkpoint.1) as i64;
                let due = |at: WallMillis| (at.0..at.0 + late_ms).contains(&wall);
                self.checks.errands.restarts[node.0].take_if(|at| due(*at)).is_some()
            }
            _ => false,
        };
        if begins {
            self.checks.errands.since = Some(self.now);
            self.forgive_decisions(node);
        }
    }

    /// L6: a leader that serves in a healed world is left alone.
    pub(super) fn check_left_alone(&mut self, node: NodeId, order: &Order) {
        let ends = match &order.action {
            Action::Postgres(what) => matches!(what, PostgresAction::Stop(_) | PostgresAction::Restart),
            Action::Store(what) => matches!(what, StoreAction::Release { .. } | StoreAction::Revoke { .. }),
            Action::Guard(what) => matches!(what, GuardAction::Fire | GuardAction::Hold),
            Action::Peer(_) | Action::Host(_) | Action::Answer(..) => false,
        };
        if !ends || self.healed.is_none() {
            return;
        }
        // One that begins just before there is to be peace takes its moment all the same; and a standby's is one as well (L5).
        self.note_errand(node, &order.action);
        if self.leading() != Some(node) || !self.is_at_peace() {
            return;
        }
        if self.nodes[node.0].server.serves() && !self.is_on_an_errand() {
            let (what, why) = (crate::coverage::kind(&order.action), order.because.code());
            self.violated("L6", format!("{} serves in a calm world and does {what} ({why})", self.names[node.0]));
        }
    }

    /// L6: a primary that hears the store holds no writes for want of an answer: it could have asked.
    pub(super) fn check_hold(&mut self, node: NodeId, order: &Order) {
        // Nor does it count what a store told that has gone back since.
        let holds = order.action == Action::Guard(GuardAction::Hold) && !self.is_disbelieved();
        // Where a member of the store was just away, or the node was, the answer may be on its way.
        let long = self.now.since(self.nodes[node.0].booted) >= ms(self.settings.retry_timeout_ms + 2000);
        if holds && matches!(order.because, Reason::AloneFor { .. }) && long && self.hears_the_store(node) {
            self.violated("L6", format!("{} holds its writes and could ask the store", self.names[node.0]));
        }
    }

    /// L6: nor does the key of a leader go there.
    pub(super) fn check_key_stays(&mut self, who: &Member, how: Gone) {
        let asked = how == Gone::Released && self.is_on_an_errand();
        if self.is_at_peace() && !asked && !self.nobody_may_lead() {
            self.violated("L6", format!("the leader key of {who} goes in a calm world: {how:?}"));
        }
    }

    /// L6: PostgreSQL is not killed for a key that is there. A key that was heard to be gone is gone; an agent that looks
    /// for its tenure finds it, if the store answers.
    pub fn check_fire(&mut self, node: NodeId, because: &Reason) {
        let key = self.store.keys().leader.as_ref();
        let Some(key) = key.filter(|key| key.member == self.names[node.0]) else { return };
        // It was gone, and a store that went back once more has brought it back.
        if let (Reason::KeyNotRegained { after_ms }, Some(at)) = (because, self.checks.restored)
            && self.now.since(at) < ms(*after_ms)
        {
            return;
        }
        let alive = self.store.lease_until(key.lease).is_some_and(|until| until.since(self.now) > ms(1000));
        let over = self.nodes[node.0].agent.as_ref().is_some_and(|agent| agent.state.spent == Some(key.lease));
        let needless = match because {
            Reason::KeyVanished { .. } | Reason::KeyNotRegained { .. } | Reason::LeaderIsOther { .. } => true,
            // A tenure that is over is over; the first order to end it was judged.
            Reason::NoTenure => !over && !self.is_disbelieved() && self.hears_the_store(node),
            _ => false,
        };
        let armed = self.nodes[node.0].guard.as_ref().and_then(|guard| guard.armed);
        let fits = armed.is_some_and(|armed| armed.tenure == key.lease);
        if alive && needless && fits && self.nodes[node.0].server.is_primary() {
            let what = format!("{} is fenced ({}) and its key is there", self.names[node.0], because.code());
            self.violated("L6", what);
        }
    }

    /// L6: nor does the guard's instant come while the agent could renew, and move it: the key is there, the store answers.
    pub fn check_due_fence(&mut self, node: NodeId) {
        if self.is_disbelieved() {
            return;
        }
        let key = self.store.keys().leader.as_ref().filter(|key| key.member == self.names[node.0]);
        let alive = key.and_then(|key| self.store.lease_until(key.lease));
        let lives = alive.is_some_and(|until| until.since(self.now) > ms(1000));
        let awake = self.nodes[node.0].agent.as_ref().is_some_and(|agent| !agent.frozen);
        // An agent that has just started finds its tenure first.
        let began = self.now.since(self.nodes[node.0].booted) >= ms(self.settings.ttl_ms / 2);
        let quiet = began && self.is_quiet(node, self.settings.ttl_ms / 2);
        if lives && awake && quiet && self.hears_the_store(node) && self.nodes[node.0].server.is_primary() {
            let what = format!("the guard of {} has not heard of renewals, and its key is there", self.names[node.0]);
            self.violated("L6", what);
        }
    }

    /// The store has gone back: its keys are not believed for as long as a tenure may last.
    pub(super) fn is_disbelieved(&self) -> bool {
        let ttl = ms(2 * self.settings.ttl_ms);
        self.checks.restored.is_some_and(|at| self.now.since(at) < ttl)
    }

    /// The store has answered the node for a while, at once. One that takes its time is no key that is there.
    pub(super) fn hears_the_store(&self, node: NodeId) -> bool {
        let quiet = self.is_quiet(node, self.settings.retry_timeout_ms + 2000);
        quiet && self.was_prompt() && self.store_answers(node)
    }

    /// The store has a leader, and node and store hear each other.
    pub(super) fn store_answers(&self, node: NodeId) -> bool {
        let (here, members) = (End::Node(node), 0..self.members.len());
        let whole = members.map(End::Store).all(|store| {
            !self.net.is_cut((Plane::Store, here, store)) && !self.net.is_cut((Plane::Store, store, here))
        });
        let up = self.members.iter().all(|member| member.up && !member.frozen);
        whole && up && self.store_leader.is_some()
    }
}

#[cfg(test)]
mod tests {
    use matriarch_core::event::{RestartConditions, Schedule, ScheduledRestart};
    use matriarch_core::id::{LeaseId, OpId};
    use matriarch_core::view::postgres::StopMode;
    use matriarch_core::view::store::FailoverKey;

    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_fence_for_a_key_that_is_there() {
        let fired = |because: Reason| broken(move |world| world.check_fire(leader(world), &because));
        assert_eq!(fired(Reason::NoTenure), Some("L6"));
        assert_eq!(fired(Reason::KeyVanished { for_ms: 1 }), Some("L6"));
        assert_eq!(fired(Reason::TenureExpired { ago_ms: 1 }), None, "its own clock may be ahead of the store's");
        let again = |change: fn(&mut World, NodeId)| {
            broken(move |world| {
                let node = leader(world);
                change(world, node);
                world.check_fire(node, &Reason::NoTenure);
            })
        };
        let over = |world: &mut World, node: NodeId| {
            let lease = world.store.keys().leader.as_ref().unwrap().lease;
            world.nodes[node.0].agent.as_mut().unwrap().state.spent = Some(lease);
        };
        assert_eq!(again(over), None, "it did not die at the first blow");
        assert_eq!(again(|world, _| world.checks.restored = Some(world.now)), None, "the store is not believed");
    }

    #[test]
    fn a_fence_that_falls_due_while_the_lease_is_renewed() {
        let due = |change: fn(&mut World, NodeId)| {
            broken(move |world| {
                let node = leader(world);
                change(world, node);
                world.check_due_fence(node);
            })
        };
        assert_eq!(due(|_, _| ()), Some("L6"));
        assert_eq!(due(|world, node| world.checks.disturbed(Some(node), world.now)), None);
        assert_eq!(due(|world, node| world.nodes[node.0].agent.as_mut().unwrap().frozen = true), None);
        assert_eq!(due(|world, _| world.store_leader = None), None, "the store is away");
    }

    fn ordered(action: Action) -> Order {
        Order { op: OpId(1), action, because: Reason::AtGoal, under: None }
    }

    /// The faults were over long ago.
    fn at_peace(world: &mut World) -> NodeId {
        world.healed = Some(world.now);
        world.now = world.now + ms(world.settings.serving_bound_ms() + 1);
        leader(world)
    }

    fn stop() -> Action {
        Action::Postgres(PostgresAction::Stop(StopMode::Fast))
    }

    /// A restart is scheduled by the node's wall clock.
    fn in_ms(world: &mut World, node: NodeId, in_ms: i64) {
        let wall = world.nodes[node.0].clock.wall(world.now);
        world.note_scheduled_restart(node, WallMillis(wall.0 + in_ms));
    }

    #[test]
    fn a_hold_of_who_could_ask() {
        let holds = |because: Reason, change: fn(&mut World, NodeId)| {
            broken(move |world| {
                let node = leader(world);
                change(world, node);
                world.check_hold(node, &Order { because, ..ordered(Action::Guard(GuardAction::Hold)) });
            })
        };
        let alone = || Reason::AloneFor { ms: 3000, store_ms: 3000, peer_ms: 3000, walsender_ms: 3000 };
        assert_eq!(holds(alone(), |_, _| ()), Some("L6"));
        assert_eq!(holds(alone(), |world, _| world.members[0].up = false), None, "the store does not answer");
        let struck = |world: &mut World, node: NodeId| world.checks.disturbed(Some(node), world.now);
        assert_eq!(holds(alone(), struck), None, "it did not a moment ago");
        assert_eq!(holds(Reason::NoTenure, |_, _| ()), None, "for another reason");
    }

    #[test]
    fn a_leader_that_is_stopped_for_nothing() {
        let does = |action: Action, change: fn(&mut World, NodeId)| {
            broken(move |world| {
                let node = at_peace(world);
                change(world, node);
                world.check_left_alone(node, &ordered(action));
            })
        };
        let revoke = || Action::Store(StoreAction::Revoke { lease: LeaseId(1) });
        let restart = || Action::Postgres(PostgresAction::Restart);
        for action in [stop(), restart(), revoke(), Action::Guard(GuardAction::Hold)] {
            assert_eq!(does(action, |_, _| ()), Some("L6"));
        }
        assert_eq!(does(stop(), |world, _| world.healed = Some(world.now)), None, "faults go on, or did a moment ago");
        assert_eq!(does(restart(), World::gone), None, "it is dead");
        assert_eq!(does(stop(), |world, node| asked_of(world, node, Revision(5))), None, "a switchover was asked for");
        let of_another = |world: &mut World, _: NodeId| asked_of(world, standby(world), Revision(5));
        assert_eq!(does(stop(), of_another), Some("L6"), "of another, long ago");
        assert_eq!(does(restart(), |world, node| in_ms(world, node, -10)), None, "it was scheduled");
        assert_eq!(does(restart(), |world, node| in_ms(world, node, 1000)), Some("L6"), "for later");
        let and_refused = |world: &mut World, node: NodeId| {
            in_ms(world, node, -10);
            let wanted = ScheduledRestart {
                schedule: Schedule { text: String::new(), at: WallMillis(0) },
                conditions: RestartConditions::default(),
                timeout_s: None,
                postmaster_start_us: 0,
            };
            world.nodes[node.0].agent.as_mut().unwrap().state.scheduled_restart = Some(wanted);
            in_ms(world, node, 60_000);
        };
        assert_eq!(does(restart(), and_refused), None, "it was scheduled, and another refused");
        let begins_before = |healed: bool| {
            let mut world = steady();
            let node = leader(&world);
            world.healed = healed.then_some(world.now);
            in_ms(&mut world, node, -10);
            world.check_left_alone(node, &ordered(restart()));
            world.is_on_an_errand()
        };
        assert_eq!((begins_before(true), begins_before(false)), (true, false), "before there has to be peace");
        assert_eq!(does(restart(), |world, node| in_ms(world, node, -60_000)), Some("L6"), "for long ago");
        let other = broken(|world| {
            at_peace(world);
            world.check_left_alone(standby(world), &ordered(stop()));
        });
        assert_eq!(other, None, "a standby may be stopped");
    }

    fn requested(world: &mut World, revision: Revision) {
        asked_of(world, leader(world), revision);
    }

    fn asked_of(world: &mut World, node: NodeId, revision: Revision) {
        let (leader, candidate) = (Some(world.names[node.0].clone()), None);
        let request = FailoverKey { revision, leader, candidate, scheduled_at: None };
        world.store.forge(|keys| keys.failover = Some(request));
    }

    #[test]
    fn a_request_is_carried_out_once() {
        let asked = |again: Revision, after_ms: u64| {
            broken(move |world| {
                let node = at_peace(world);
                requested(world, Revision(5));
                world.check_left_alone(node, &ordered(stop()));
                assert_eq!(world.violation, None);
                requested(world, again);
                world.now = world.now + ms(after_ms);
                world.check_left_alone(node, &ordered(stop()));
            })
        };
        assert_eq!(asked(Revision(5), 60_000), Some("L6"));
        assert_eq!(asked(Revision(5), 1000), None, "it is being carried out");
        assert_eq!(asked(Revision(6), 60_000), None, "it was asked for again");
    }

    #[test]
    fn a_key_that_goes_in_a_calm_world() {
        let goes = |how: Gone, change: fn(&mut World)| {
            broken(move |world| {
                let node = at_peace(world);
                change(world);
                let who = world.names[node.0].clone();
                world.check_key_stays(&who, how);
            })
        };
        let handed_over = |world: &mut World| {
            requested(world, Revision(5));
            world.check_left_alone(leader(world), &ordered(stop()));
        };
        assert_eq!(goes(Gone::Released, |_| ()), Some("L6"));
        assert_eq!(goes(Gone::Released, handed_over), None, "an operator asked for that");
        assert_eq!(goes(Gone::Expired, handed_over), Some("L6"), "but not for this");
        assert_eq!(goes(Gone::Expired, |world| world.healed = None), None, "faults go on");
    }
}
