//! Slots that nobody streams through here: the operator's, and members' on a node that may lead next.

use super::reconcilers::ordered;
use crate::action::{Action, PostgresAction, StoreAction};
use crate::config::SlotMatcher;
use crate::decide;
use crate::decide::slots::order;
use crate::id::{Lsn, Member, Revision};
use crate::reason::Reason;
use crate::testing::*;
use crate::time::Duration;
use crate::view::postgres::{Slot, Sql};
use crate::view::store::StatusKey;

const SEGMENT: u64 = 16 << 20;

fn create(name: &str) -> Action {
    Action::Postgres(PostgresAction::CreateSlot(name.into()))
}

fn drop(name: &str) -> Action {
    Action::Postgres(PostgresAction::DropSlot(name.into()))
}

fn advance(slot: &str, to: Lsn) -> Action {
    Action::Postgres(PostgresAction::AdvanceSlot { slot: slot.into(), to })
}

/// An idle physical slot where everybody is.
fn slot(name: &str) -> Slot {
    Slot { name: name.into(), physical: true, restart: HERE, ..Slot::default() }
}

/// The node with the slots of the two others, and these.
fn with(node: Node, slots: &[Slot]) -> Node {
    let sql = node.view().sql().expect("it runs").clone();
    let others = sql.slots.iter().filter(|known| slots.iter().all(|slot| slot.name != known.name)).cloned();
    let slots = others.chain(slots.iter().cloned()).collect();
    node.sql(Sql { slots, ..sql })
}

/// `slots: {archive: }`.
fn configured(node: Node) -> Node {
    node.config(|config| config.permanent_slots = ["archive".to_owned()].into())
}

/// The leader tells this of its slots.
fn told(node: Node, slots: &[(&str, Lsn)], retain: &[&str]) -> Node {
    node.cluster(|cluster| {
        let slots = slots.iter().map(|(name, position)| ((*name).to_owned(), *position)).collect();
        let retain = retain.iter().map(|name| (*name).to_owned()).collect();
        cluster.status = Some(StatusKey { slots, retain, ..StatusKey::default() });
    })
}

/// What a step orders of slots.
fn of_slots(mut node: Node) -> Vec<Action> {
    let slots = |action: &Action| {
        use PostgresAction::{AdvanceSlot, CreateSlot, DropSlot};
        matches!(action, Action::Postgres(CreateSlot(_) | DropSlot(_) | AdvanceSlot { .. }))
    };
    actions(&node.tick()).into_iter().filter(slots).collect()
}

#[test]
fn a_permanent_slot_is_made_on_every_node_that_may_lead() {
    assert_eq!(of_slots(configured(Node::primary())), [create("archive")]);
    assert_eq!(of_slots(configured(Node::standby())), [create("archive")]);
    let never_leads = |node: Node| configured(node).config(|config| config.nofailover = true).published();
    assert_eq!(of_slots(never_leads(Node::standby()).cluster(|c| c.members.clear())), []);
    assert_eq!(of_slots(never_leads(Node::primary())), [create("archive")], "who leads needs it all the same");
    let own = |node: Node| node.config(|config| config.permanent_slots = ["a".to_owned()].into());
    assert_eq!((of_slots(own(Node::primary())), of_slots(own(Node::standby()))), (vec![], vec![]));
    let off = |node: Node| configured(node).config(|config| config.use_slots = false);
    assert_eq!((of_slots(off(Node::primary())), of_slots(off(Node::standby()))), (vec![], vec![]));
    let alone = configured(Node::standby()).cluster(|cluster| cluster.leader = None);
    assert_eq!(order(&alone.view()), None, "nobody leads");
    let made = |node: Node| with(configured(node), &[slot("archive")]);
    assert_eq!((ordered(made(Node::primary())), ordered(made(Node::standby()))), (vec![], vec![]));
}

#[test]
fn members_come_first() {
    let sql = |slots: &[Slot]| Sql { slots: slots.to_vec(), ..primary_sql() };
    assert_eq!(of_slots(configured(Node::primary()).sql(sql(&[]))), [create("b")]);
    let lost = Slot { lost: true, ..slot("b") };
    assert_eq!(of_slots(configured(Node::primary()).sql(sql(&[lost]))), [drop("b")]);
    let cascades = |node: Node| {
        node.cluster(|cluster| {
            let from = Some(Member::new("c"));
            cluster.members.get_mut(&Member::new("b")).expect("a member").record.replicatefrom = from;
        })
    };
    assert_eq!(of_slots(cascades(Node::primary()).sql(sql(&[]))), [create("c")], "who waits for it before who may");
}

#[test]
fn a_slot_on_a_standby_goes_with_what_the_leader_tells() {
    let at = |restart: Lsn| Slot { restart, ..slot("archive") };
    let standby = |slot: Slot, read: Lsn| told(with(configured(Node::standby()), &[slot]), &[("archive", read)], &[]);
    let begin = Lsn(HERE.0 / SEGMENT * SEGMENT);
    let before = Lsn(begin.0 - 1);
    assert_eq!(of_slots(standby(at(before), begin)), [advance("archive", begin)]);
    assert_eq!(of_slots(standby(at(begin), HERE)), [], "no file of WAL comes free by that");
    assert_eq!(of_slots(standby(at(HERE), before)), [], "never back");
    assert_eq!(of_slots(standby(at(before), Lsn(0))), [], "nothing is told");
    assert_eq!(of_slots(standby(at(before), Lsn(HERE.0 + 8))), [advance("archive", HERE)], "as far as it has replayed");
    assert_eq!(of_slots(standby(at(HERE), Lsn(HERE.0 + 2 * SEGMENT))), []);
    assert_eq!(of_slots(standby(Slot { active: true, ..at(before) }, HERE)), [], "somebody streams through it");
    let leads = told(with(configured(Node::primary()), &[at(before)]), &[("archive", HERE)], &[]);
    assert_eq!(of_slots(leads), [], "where its reader streams from it moves by itself");
    let because = order(&standby(at(before), HERE).view()).map(|(_, because)| because);
    assert_eq!(because, Some(Reason::SlotBehind { slot: "archive".into(), to: HERE }));
}

#[test]
fn a_standby_keeps_the_slots_of_members_for_when_it_leads() {
    let bare = || Node::standby().sql(Sql { slots: vec![], ..standby_sql(Some("b")) });
    assert_eq!(of_slots(bare()), [create("b")]);
    assert_eq!(of_slots(bare().config(|config| config.member_slots_ttl = Duration::ZERO)), []);
    assert_eq!(of_slots(bare().config(|config| config.nofailover = true)), []);
    let gone = |retain: &[&str]| told(Node::standby(), &[], retain);
    assert_eq!(of_slots(gone(&["a", "b", "gone"])), [create("gone")], "as long as the leader keeps one for it");
    let idle = |restart: Lsn| Slot { active: false, restart, ..slot("c") };
    let behind = Lsn(HERE.0 - 2 * SEGMENT);
    let standby = |slots: &[(&str, Lsn)]| told(with(Node::standby(), &[idle(behind)]), slots, &[]);
    let read = Lsn(HERE.0 - SEGMENT);
    assert_eq!(of_slots(standby(&[("c", read)])), [advance("c", read)]);
    assert_eq!(of_slots(standby(&[])), [advance("c", HERE)], "a leader that tells nothing: what the member says");
    let cascade = |node: Node, from: &'static str| {
        node.cluster(|cluster| {
            let member = cluster.members.get_mut(&Member::new("c")).expect("a member");
            member.record.replicatefrom = Some(Member::new(from));
        })
    };
    assert_eq!(of_slots(cascade(standby(&[]), "a")), [], "it streams from here, or will again");
    let elsewhere = cascade(told(with(Node::primary(), &[idle(behind)]), &[("c", behind)], &[]), "b");
    assert_eq!(of_slots(elsewhere), [advance("c", HERE)], "also on a leader, where it streams from another");
}

#[test]
fn a_slot_that_serves_nobody_is_made_anew() {
    let dropped = |node: Node, name: &str, change: fn(&mut Slot)| {
        let mut spoilt = slot(name);
        change(&mut spoilt);
        of_slots(with(configured(node), &[spoilt])) == [drop(name)]
    };
    let archive = |node, change| dropped(node, "archive", change);
    let logical: fn(&mut Slot) = |slot| slot.physical = false;
    assert!(archive(Node::primary(), logical) && archive(Node::standby(), logical));
    assert!(!archive(Node::primary(), |slot| (slot.physical, slot.active) = (false, true)));
    let lost: fn(&mut Slot) = |slot| slot.lost = true;
    assert!(archive(Node::primary(), lost) && archive(Node::standby(), lost));
    // Where nobody moves it: what it pins, and what it does not reserve.
    let pins: fn(&mut Slot) = |slot| slot.pins_rows = true;
    assert!(archive(Node::standby(), pins) && !archive(Node::primary(), pins));
    let empty: fn(&mut Slot) = |slot| slot.restart = Lsn(0);
    assert!(archive(Node::standby(), empty) && !archive(Node::primary(), empty));
    assert!(dropped(Node::standby(), "c", pins) && !dropped(Node::primary(), "c", pins));
    let spoilt = with(configured(Node::standby()), &[Slot { pins_rows: true, ..slot("archive") }]);
    let because = order(&spoilt.view()).map(|(_, because)| because);
    assert_eq!(because, Some(Reason::SlotUnusable { slot: "archive".into() }));
    // In a pause it is not dropped, and one that reserves nothing cannot be advanced.
    let nothing = |node: Node| {
        told(with(configured(node), &[Slot { restart: Lsn(0), ..slot("archive") }]), &[("archive", HERE)], &[])
    };
    let in_pause = nothing(Node::standby()).cluster(|cluster| cluster.paused = Some(true));
    let in_pause = in_pause.with(|state| state.memory.paused = Some(at(0)));
    assert_eq!(order(&in_pause.view()), None);
}

#[test]
fn a_slot_that_is_taken_out_of_the_configuration_goes_unless_it_is_used() {
    let removed = |node: Node, change: fn(&mut Node, &mut Slot)| {
        let mut archive = slot("archive");
        let mut node = configured(node);
        change(&mut node, &mut archive);
        let mut node = with(node, &[archive]);
        assert_eq!(order(&node.view()).filter(|(action, _)| *action == drop("archive")), None, "it is configured");
        node.tick();
        of_slots(node.config(|config| config.permanent_slots.clear())) == [drop("archive")]
    };
    assert!(removed(Node::primary(), |_, _| ()) && removed(Node::standby(), |_, _| ()));
    assert!(!removed(Node::primary(), |_, slot| slot.active = true));
    let gone: fn(&mut Node, &mut Slot) =
        |node, _| *node = node.clone().cluster(|cluster| cluster.config_revision = Revision(0));
    assert!(!removed(Node::standby(), gone), "so did all of the configuration");
    let paused: fn(&mut Node, &mut Slot) = |node, _| node.state.memory.paused = Some(node.now);
    assert!(!removed(Node::standby(), paused));
    assert!(!removed(Node::primary(), |node, _| node.state.config.ignore_slots = vec![SlotMatcher::default()]));
    let strangers = [slot("strangers"), Slot { physical: false, ..slot("logical") }];
    assert_eq!(of_slots(with(Node::primary(), &strangers)), [], "nobody ever configured them");
    assert_eq!(of_slots(with(Node::standby(), &strangers)), []);
}

#[test]
fn what_is_configured_is_remembered_before_postgresql_answers_and_forgotten_with_the_slot() {
    let mut node = configured(Node::stopped());
    node.tick();
    node.state.config.permanent_slots.clear();
    node.tick();
    assert!(node.state.memory.permanent_slots.contains("archive"), "perhaps it is there");
    let mut node = configured(Node::standby());
    node.tick();
    assert!(node.state.memory.permanent_slots.contains("archive"), "it is to be made");
    node.state.config.permanent_slots.clear();
    node.tick();
    assert!(node.state.memory.permanent_slots.is_empty(), "it is not there");
}

#[test]
fn a_node_that_will_never_lead_keeps_no_slot_that_stands_still() {
    let tagged = |node: Node| with(configured(node), &[slot("archive")]).config(|config| config.nofailover = true);
    let standby =
        tagged(Node::standby()).published().cluster(|cluster| cluster.members.retain(|name, _| name.0 == "b"));
    let mut standby = standby;
    let mut dropped = Vec::new();
    for _ in 0..3 {
        for action in of_slots(standby.clone()) {
            let Action::Postgres(PostgresAction::DropSlot(name)) = &action else { panic!("{action:?}") };
            let sql = standby.state.postgres.sql.as_mut().expect("it runs");
            sql.value.slots.retain(|slot| slot.name != *name || slot.active);
            dropped.push(action);
        }
        for slot in &mut standby.state.postgres.sql.as_mut().expect("it runs").value.slots {
            slot.active = false;
        }
        standby.tick();
        standby.state.ops = crate::state::Ops::default();
    }
    assert_eq!(dropped, [drop("archive"), drop("b")]);
}

#[test]
fn without_a_time_to_keep_them_slots_of_members_go_at_once() {
    let off = |node: Node| node.config(|config| config.member_slots_ttl = Duration::ZERO);
    let idle = Slot { active: false, ..slot("c") };
    assert_eq!(of_slots(off(with(Node::standby(), &[idle]))), [drop("c")], "nobody streams from here");
    let status = |node: Node| {
        let due = node.with(|state| state.session.status_at = at(0).back(seconds(10)));
        ordered(due).into_iter().find_map(|action| match action {
            Action::Store(StoreAction::PutStatus { status, .. }) => Some(status.retain),
            _ => None,
        })
    };
    assert_eq!(status(off(Node::primary())), Some(vec![]));
    assert_eq!(status(Node::primary()), Some(["a", "b", "c"].map(str::to_owned).into()));
    let permanent = Node::primary().config(|config| config.permanent_slots = ["b".to_owned()].into());
    assert_eq!(status(permanent), Some(["a", "c"].map(str::to_owned).into()), "kept for good, not for a while");
}

#[test]
fn a_leader_tells_where_slots_are_whenever_one_has_moved() {
    let due = |archive: Lsn, told_archive: Lsn, retain: &[&str]| {
        let slots = [("a", HERE), ("b", HERE), ("c", HERE), ("archive", told_archive)];
        let node =
            told(with(configured(Node::primary()), &[Slot { restart: archive, ..slot("archive") }]), &slots, retain);
        let node = node.cluster(|cluster| {
            let status = cluster.status.as_mut().expect("it is told");
            (status.optime, status.timeline) = (HERE, crate::id::Timeline(1));
        });
        let node = node.with(|state| state.session.status_at = at(0).back(seconds(10)));
        ordered(node).into_iter().find_map(|action| match action {
            Action::Store(StoreAction::PutStatus { status, .. }) => {
                status.slots.into_iter().find(|slot| slot.0 == "archive")
            }
            _ => None,
        })
    };
    assert_eq!(due(HERE, HERE, &["a", "b", "c"]), None);
    assert_eq!(due(Lsn(9), HERE, &["a", "b", "c"]), Some(("archive".to_owned(), Lsn(9))));
    assert_eq!(due(HERE, HERE, &["a", "b"]), Some(("archive".to_owned(), HERE)), "nor is a member forgotten");
    // Of what keeps no WAL for a standby there is nothing to tell.
    let told = |change: fn(&mut Slot)| {
        let mut archive = slot("archive");
        change(&mut archive);
        let node = with(Node::primary(), &[archive]);
        let (slots, _) = decide::slots::told(&node.view(), node.view().sql().expect("it runs"));
        slots.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(told(|_| ()), ["a", "archive", "b", "c"]);
    assert_eq!(told(|slot| slot.physical = false), ["a", "b", "c"]);
    assert_eq!(told(|slot| slot.restart = Lsn(0)), ["a", "b", "c"]);
}

#[test]
fn what_matches_is_left_alone() {
    let existing = Slot { database: "app".into(), plugin: "wal2json".into(), physical: false, ..slot("archive") };
    let dropped = |change: fn(&mut SlotMatcher)| {
        let mut matcher = SlotMatcher { name: Some("archive".into()), ..SlotMatcher::default() };
        change(&mut matcher);
        let node = configured(Node::primary()).config(|config| config.ignore_slots = vec![matcher]);
        of_slots(with(node, std::slice::from_ref(&existing))) == [drop("archive")]
    };
    assert!(!dropped(|_| ()) && !dropped(|matcher| matcher.name = None));
    assert!(dropped(|matcher| matcher.name = Some("other".into())));
    assert!(!dropped(|matcher| matcher.kind = Some("logical".into())));
    assert!(dropped(|matcher| matcher.kind = Some("physical".into())));
    assert!(!dropped(|matcher| matcher.database = Some("app".into())));
    assert!(dropped(|matcher| matcher.database = Some("web".into())));
    assert!(!dropped(|matcher| matcher.plugin = Some("wal2json".into())));
    assert!(dropped(|matcher| matcher.plugin = Some("pgoutput".into())));
    // What is configured and matches is not made, nor moved.
    let all = |node: Node| configured(node).config(|config| config.ignore_slots = vec![SlotMatcher::default()]);
    assert_eq!(of_slots(all(Node::primary())), []);
    let behind = Slot { restart: Lsn(HERE.0 - SEGMENT), ..slot("archive") };
    assert_eq!(of_slots(told(with(all(Node::standby()), &[behind]), &[("archive", HERE)], &[])), []);
    // Members need theirs.
    assert_eq!(of_slots(all(Node::primary()).sql(primary_sql())), [create("b")]);
    let own = Slot { active: false, ..slot("a") };
    assert_eq!(of_slots(with(all(Node::primary()), &[own])), []);
}

#[test]
fn a_first_checkpoint_waits_for_slots_that_somebody_waits_for_only() {
    let checkpoint = Action::Postgres(PostgresAction::Checkpoint);
    let promoted = |slots: &[Slot]| {
        let sql = Sql { timeline: crate::id::Timeline(2), slots: slots.to_vec(), ..primary_sql() };
        configured(Node::primary())
            .sql(sql)
            .with(|state| state.memory.checkpointed = None)
            .wants()
            .contains(&checkpoint)
    };
    assert!(promoted(&[slot("b"), slot("c")]), "the operator's may never come to be");
    assert!(!promoted(&[slot("b")]) && !promoted(&[slot("b"), Slot { lost: true, ..slot("c") }]));
    assert!(!promoted(&[slot("b"), slot("d")]), "each waits for its own");
}
