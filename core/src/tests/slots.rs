//! Slots on a primary: one for each member that streams from it, and none that only keeps WAL for ever.

use super::reconcilers::{ordered, orders};
use crate::action::{Action, Lane, PostgresAction};
use crate::event::{Event, PostgresDone, PostgresEvent};
use crate::id::Member;
use crate::lease::Tenure;
use crate::op::Outcome;
use crate::testing::*;
use crate::time::Duration;
use crate::view::postgres::{Slot, Sql};

pub(super) fn slots(names: &[(&str, bool, bool)]) -> Sql {
    let slot = |&(name, active, lost): &(&str, bool, bool)| Slot {
        name: name.to_owned(),
        physical: true,
        active,
        lost,
        restart: HERE,
        ..Slot::default()
    };
    Sql { slots: names.iter().map(slot).collect(), ..primary_sql() }
}

#[test]
fn a_primary_keeps_a_slot_for_every_member_and_none_for_itself() {
    let create = |name: &str| Action::Postgres(PostgresAction::CreateSlot(name.to_owned()));
    let drop = |name: &str| Action::Postgres(PostgresAction::DropSlot(name.to_owned()));
    assert_eq!(ordered(Node::primary().sql(slots(&[("b", true, false)]))), [create("c")]);
    let own = [("a", false, false), ("b", true, false), ("c", true, false)];
    assert_eq!(ordered(Node::primary().sql(slots(&own))), [drop("a")]);
    let lost = [("b", false, true), ("c", true, false)];
    assert_eq!(ordered(Node::primary().sql(slots(&lost))), [drop("b")]);
    let off = Node::primary().sql(slots(&[])).config(|config| config.use_slots = false);
    assert_eq!(ordered(off), []);
    let nostream = Node::primary().sql(slots(&[("c", true, false)])).cluster(|cluster| {
        cluster.members.get_mut(&Member::new("b")).unwrap().record.nostream = true;
    });
    assert_eq!(ordered(nostream), []);
}

#[test]
fn the_slot_of_a_member_that_is_gone_is_dropped_after_a_while_and_a_strangers_never() {
    let ours = [("b", true, false), ("c", true, false), ("gone", false, false), ("backup_tool", false, false)];
    let remembering = |status: &[&str]| {
        let retain = status.iter().map(|name| (*name).to_owned()).collect();
        Node::primary().sql(slots(&ours)).cluster(|cluster| {
            cluster.status = Some(crate::view::store::StatusKey { retain, ..Default::default() });
        })
    };
    let dropped = |node: &mut Node| {
        let orders = actions(&node.tick());
        orders.into_iter().find(|action| matches!(action, Action::Postgres(PostgresAction::DropSlot(_))))
    };
    let mut node = remembering(&["b", "c", "gone"]).config(|config| config.member_slots_ttl = millis(500));
    assert_eq!(dropped(&mut node), None);
    node.now = node.now + millis(499);
    assert_eq!(dropped(&mut node), None);
    node.now = node.now + millis(1);
    assert_eq!(dropped(&mut node), Some(Action::Postgres(PostgresAction::DropSlot("gone".into()))));
}

#[test]
fn a_slot_that_is_in_use_or_somebody_elses_is_never_dropped() {
    let dropped = |change: fn(&mut Slot), own: &str| {
        let mut sql = slots(&[("b", true, false), ("c", true, false)]);
        let mut slot = Slot { name: own.into(), physical: true, restart: HERE, ..Slot::default() };
        change(&mut slot);
        sql.slots.retain(|slot| slot.name != own);
        sql.slots.push(slot);
        ordered(Node::primary().sql(sql))
            .iter()
            .any(|action| matches!(action, Action::Postgres(PostgresAction::DropSlot(_))))
    };
    // Our own: an earlier leader made it for this node.
    assert!(dropped(|_| (), "a") && !dropped(|slot| slot.active = true, "a"));
    assert!(!dropped(|slot| slot.physical = false, "a"), "a logical slot of that name is a user's");
    // One that lost its WAL is made anew.
    assert!(dropped(|slot| slot.lost = true, "b") && !dropped(|slot| (slot.lost, slot.active) = (true, true), "b"));
    assert!(!dropped(|slot| slot.lost = true, "backup_tool"));
}

#[test]
fn the_slot_of_a_member_that_is_gone_is_kept_while_it_is_used_or_the_member_is_back() {
    let dropped = |change: fn(&mut Slot), back: bool| {
        let mut sql = slots(&[("b", true, false), ("c", false, false), ("gone", false, false)]);
        change(&mut sql.slots[2]);
        let name = if back { "c" } else { "gone" };
        let mut node = Node::primary().sql(sql).config(|config| config.member_slots_ttl = Duration::ZERO);
        node.state.memory.member_slots.insert(name.into(), at(0));
        let drops = |action: &Action| *action == Action::Postgres(PostgresAction::DropSlot(name.into()));
        orders(node, drops)
    };
    assert!(dropped(|_| (), false) && !dropped(|_| (), true));
    assert!(!dropped(|slot| slot.active = true, false) && !dropped(|slot| slot.physical = false, false));
}

#[test]
fn a_leader_remembers_since_when_a_members_slot_is_not_wanted() {
    let remembered = |node: Node| {
        let mut node = node.later(5);
        node.tick();
        node.state.memory.member_slots.into_iter().collect::<Vec<_>>()
    };
    let retaining = |node: Node| {
        node.cluster(|cluster| {
            let retain = ["a", "b", "gone", "dropped"].map(str::to_owned).into();
            cluster.status = Some(crate::view::store::StatusKey { retain, ..Default::default() });
        })
    };
    let primary = || Node::primary().sql(slots(&[("a", false, false), ("b", true, false), ("gone", false, false)]));
    let since = |name: &str, ms| (name.to_owned(), at(ms));
    let now = [since("b", 5), since("gone", 5)];
    assert_eq!(remembered(retaining(primary())), now, "not our own, nor what is not there");
    let earlier = |name: &'static str| {
        retaining(primary()).with(|state| {
            state.memory.member_slots.insert(name.into(), at(1));
        })
    };
    assert_eq!(remembered(earlier("gone"))[1], since("gone", 1));
    assert_eq!(remembered(earlier("dropped")), now);
    let without = earlier("gone").with(|state| state.tenure = Tenure::None);
    assert_eq!(remembered(without), now, "it begins to count when it leads");
    let standby = Sql { in_recovery: true, ..slots(&[("c", false, false), ("gone", false, false)]) };
    assert_eq!(remembered(earlier("gone").sql(standby)), [since("c", 5), since("gone", 5)], "as does a standby");
}

#[test]
fn a_slot_is_kept_where_its_member_streams_from() {
    let wanted = |node: Node, of: &str, from: &str| {
        let node = node.cluster(|cluster| {
            cluster.members.get_mut(&Member::new(of)).expect("it is a member").record.replicatefrom =
                Some(Member::new(from));
        });
        let wanted = crate::decide::slots::wanted::wanted(&node.view());
        wanted.into_iter().filter(|wanted| wanted.used).map(|wanted| wanted.name.into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(wanted(Node::primary(), "c", "b"), ["b"]);
    assert_eq!(wanted(Node::primary(), "c", "z"), ["b", "c"], "nobody of that name: from the leader");
    assert_eq!(wanted(Node::primary(), "c", "a"), ["b", "c"]);
    assert_eq!((wanted(Node::standby(), "c", "a"), wanted(Node::standby(), "c", "b")), (vec!["c".to_owned()], vec![]));
}

#[test]
fn a_slot_is_not_made_twice_because_the_answer_is_from_before_it_was_made() {
    let mut node = Node::primary().sql(slots(&[("b", true, false)]));
    node.tick();
    let op = node.op(&Lane::PgControl);
    node.now = node.now + millis(5);
    let outcome = Outcome::Done(PostgresDone::Done);
    let effects = node.step(Event::Postgres(PostgresEvent::Completed { op, outcome }));
    assert_eq!(actions(&effects), [Action::Postgres(PostgresAction::Observe)]);
    // Nor over and over where it does not come to be.
    node.state.memory.changed = at(0);
    let creates = |node: &Node| crate::decide::slots::order(&node.view()).is_some();
    assert!(!creates(&node.clone().later(999)) && creates(&node.clone().later(1_000)));
    node.state.memory.slot_changed = Some((node.now, PostgresAction::CreateSlot("b".into())));
    assert!(creates(&node), "that was another");
}
