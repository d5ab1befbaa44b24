//! M5: what was found out of one leader is believed of that leader only. Whoever is rewound to a leader was compared with
//! that one, under the key that it holds, and found to have parted from it; and whoever is cloned instead was rewound to that
//! one, and that failed, unless it is not to be rewound at all.
//!
//! What was asked of whom is noted where an order is given, and what came of it where it is told, before core hears of it.

use matriarch_core::action::{Action, PostgresAction};
use matriarch_core::effects::Order;
use matriarch_core::event::{Event, PostgresDone, PostgresEvent};
use matriarch_core::id::{Member, OpId, Revision};
use matriarch_core::op::Outcome;
use matriarch_core::reason::Reason;
use matriarch_core::view::postgres::Upstream;

use crate::node::NodeId;
use crate::world::World;

/// A leader: who, and the `create_revision` of its key.
type Led = (Member, Revision);

/// What an agent has found out.
#[derive(Clone, Debug, Default)]
pub struct Found {
    boot: u32,
    /// What is under way: a comparison or a rewind, and with whom.
    asked: Option<(OpId, Led)>,
    /// The leader that the last comparison was with, if the histories part.
    parted: Option<Led>,
    /// The leader that the last rewind was to, if it failed.
    failed: Option<Led>,
}

impl World {
    /// The leader that an agent sees, if that is whom it turns to.
    fn led_by(&self, node: NodeId, upstream: &Upstream) -> Option<Led> {
        let known = self.nodes[node.0].agent.as_ref()?.state.store.cluster.as_ref()?;
        let leader = known.value.leader.as_ref().filter(|leader| leader.member == upstream.member)?;
        Some((leader.member.clone(), leader.created))
    }

    fn found(&mut self, node: NodeId) -> &mut Found {
        let boot = self.nodes[node.0].agent.as_ref().map_or(0, |agent| agent.boot);
        let found = &mut self.checks.found[node.0];
        if found.boot != boot {
            *found = Found { boot, ..Found::default() };
        }
        found
    }

    /// M5: an order is about to be carried out.
    pub(super) fn check_found(&mut self, node: NodeId, order: &Order) {
        let Action::Postgres(action) = &order.action else { return };
        let wrong = match action {
            PostgresAction::Compare(from) => {
                let led = self.led_by(node, from);
                self.found(node).asked = led.map(|led| (order.op, led));
                false
            }
            PostgresAction::Rewind(from) => {
                let led = self.led_by(node, from);
                let found = self.found(node);
                found.asked = led.clone().map(|led| (order.op, led));
                led.is_none() || found.parted != led
            }
            PostgresAction::Clone(from) if matches!(order.because, Reason::CloneInstead { .. }) => {
                let (led, may_rewind) = (self.led_by(node, from), self.nodes[node.0].config.use_pg_rewind);
                let found = self.found(node);
                led.is_none() || found.parted != led || (may_rewind && found.failed != led)
            }
            _ => false,
        };
        if wrong {
            let (what, found) = (crate::coverage::kind(&order.action), self.found(node).clone());
            let (parted, failed) = (found.parted, found.failed);
            let what = format!("{} does {what}; parted from {parted:?}, rewind to {failed:?}", self.names[node.0]);
            self.violated("M5", what);
        }
    }

    /// Something is told to an agent.
    pub fn note_found(&mut self, node: NodeId, event: &Event) {
        let Event::Postgres(PostgresEvent::Completed { op, outcome }) = event else { return };
        let found = self.found(node);
        let Some((_, led)) = found.asked.take_if(|(asked, _)| asked == op) else { return };
        match outcome {
            Outcome::Done(PostgresDone::Compared(parts)) => found.parted = parts.map(|_| led),
            // A rewind, or a comparison that has no answer: it says nothing.
            Outcome::Done(_) => (found.parted, found.failed) = (None, None),
            Outcome::Refused(_) => found.failed = Some(led),
            Outcome::Unknown(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use matriarch_core::id::Lsn;
    use matriarch_core::op::Refusal;

    fn upstream(world: &World, of: NodeId) -> Upstream {
        Upstream { member: world.names[of.0].clone(), host: String::new(), port: 5432 }
    }

    fn order(op: u64, action: PostgresAction, because: Reason) -> Order {
        Order { op: OpId(op), action: Action::Postgres(action), because, under: None }
    }

    fn told(world: &mut World, node: NodeId, op: u64, outcome: Outcome<PostgresDone>) {
        world.note_found(node, &Event::Postgres(PostgresEvent::Completed { op: OpId(op), outcome }));
    }

    fn compared(world: &mut World, node: NodeId, with: NodeId, parts: bool) {
        let from = upstream(world, with);
        world.check_found(node, &order(1, PostgresAction::Compare(from), Reason::AtGoal));
        told(world, node, 1, Outcome::Done(PostgresDone::Compared(parts.then_some(Lsn(1)))));
    }

    fn rewound(world: &mut World, node: NodeId, to: NodeId, outcome: Outcome<PostgresDone>) {
        let from = upstream(world, to);
        world.check_found(node, &order(2, PostgresAction::Rewind(from), Reason::AtGoal));
        told(world, node, 2, outcome);
    }

    /// Another takes the key: the same node under a later one, as its agents hear of it.
    fn leads_again(world: &mut World) {
        for node in &mut world.nodes {
            let known = node.agent.as_mut().unwrap().state.store.cluster.as_mut().unwrap();
            known.value.leader.as_mut().unwrap().created.0 += 1;
        }
    }

    fn refused() -> Outcome<PostgresDone> {
        Outcome::Refused(Refusal::Failed("no WAL".into()))
    }

    #[test]
    fn a_rewind_to_a_leader_that_was_not_compared() {
        let rewinds = |before: &dyn Fn(&mut World, NodeId, NodeId)| {
            broken(move |world| {
                let (node, to) = (standby(world), leader(world));
                before(world, node, to);
                rewound(world, node, to, Outcome::Unknown(String::new()));
            })
        };
        assert_eq!(rewinds(&|_, _, _| ()), Some("M5"), "it was compared with nobody");
        assert_eq!(rewinds(&|world, node, to| compared(world, node, to, true)), None);
        assert_eq!(rewinds(&|world, node, to| compared(world, node, to, false)), Some("M5"), "they do not part");
        let of_another = |world: &mut World, node: NodeId, to: NodeId| {
            compared(world, node, to, true);
            leads_again(world);
        };
        assert_eq!(rewinds(&of_another), Some("M5"), "it leads anew, and may have less");
        let again = |world: &mut World, node: NodeId, to: NodeId| {
            of_another(world, node, to);
            compared(world, node, to, true);
        };
        assert_eq!(rewinds(&again), None);
        let with_a_standby = |world: &mut World, node: NodeId, _: NodeId| {
            let other = other_standby(world);
            compared(world, node, other, true);
        };
        assert_eq!(rewinds(&with_a_standby), Some("M5"), "that leads nobody");
        let another_agent = |world: &mut World, node: NodeId, to: NodeId| {
            compared(world, node, to, true);
            world.nodes[node.0].agent.as_mut().unwrap().boot += 1;
        };
        assert_eq!(rewinds(&another_agent), Some("M5"), "an agent remembers nothing of the one before it");
    }

    #[test]
    fn a_clone_for_a_rewind_that_failed_elsewhere() {
        let clones = |why: fn(Member) -> Reason, before: &dyn Fn(&mut World, NodeId, NodeId)| {
            broken(move |world| {
                let (node, to) = (standby(world), leader(world));
                before(world, node, to);
                let from = upstream(world, to);
                let why = why(from.member.clone());
                world.check_found(node, &order(3, PostgresAction::Clone(from), why));
            })
        };
        let instead = |who| Reason::CloneInstead { why: "no WAL".into(), who, at: Lsn(1) };
        let failed = |world: &mut World, node: NodeId, to: NodeId| {
            compared(world, node, to, true);
            rewound(world, node, to, refused());
        };
        assert_eq!(clones(instead, &failed), None);
        let of_another = |world: &mut World, node: NodeId, to: NodeId| {
            failed(world, node, to);
            leads_again(world);
            compared(world, node, to, true);
        };
        assert_eq!(clones(instead, &of_another), Some("M5"), "it failed with the leader before");
        let not_tried = |world: &mut World, node: NodeId, to: NodeId| compared(world, node, to, true);
        assert_eq!(clones(instead, &not_tried), Some("M5"));
        let never = |world: &mut World, node: NodeId, to: NodeId| {
            world.nodes[node.0].config.use_pg_rewind = false;
            not_tried(world, node, to);
        };
        assert_eq!(clones(instead, &never), None, "it is not to be rewound");
        assert_eq!(clones(|_| Reason::ReinitRequested, &|_, _, _| ()), None, "an operator asked for it");
    }
}
