//! Reconciler: physical slots. One for each member, and each that the operator wants for good, also where nobody streams
//! through it now: there it goes along with what was read elsewhere, so that whoever reads finds its slot, with the WAL
//! that it needs, on whichever node leads next.

pub(crate) mod wanted;

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::mem;

use crate::action::{Action, PostgresAction};
use crate::config::RETRY_PAUSE;
use crate::id::{Lsn, Member, Revision};
use crate::reason::Reason;
use crate::state::State;
use crate::time::{Duration, Instant};
use crate::view::View;
use crate::view::postgres::{Slot, Sql};
use wanted::{Wanted, wanted};

pub(crate) fn order(view: &View<'_>) -> Option<(Action, Reason)> {
    // What was asked before the last change would make the same slot once more.
    let sql = view.fresh_sql().filter(|_| manages(view))?;
    let wanted = wanted(view);
    // Members first: nobody is to wait for his slot because the operator's cannot be made.
    let of_members = || first_missing(sql, wanted.iter().filter(|wanted| wanted.of_member));
    let of_operator = || first_missing(sql, wanted.iter().filter(|wanted| !wanted.of_member));
    // Before one is made that has no room, what is of no use any more makes room.
    (unusable(view, sql, &wanted, true).or_else(of_members))
        .or_else(|| obsolete(view, sql, &wanted))
        .or_else(|| unusable(view, sql, &wanted, false))
        .or_else(|| behind(view, sql, &wanted))
        .or_else(of_operator)
        .filter(|(action, _)| !just_done(view, action))
}

/// It was done a moment ago and the slot is as it was: somebody else is at it as well. It is not done over and over.
fn just_done(view: &View<'_>, action: &Action) -> bool {
    let last = view.state.memory.slot_changed.as_ref();
    last.is_some_and(|(at, done)| Action::Postgres(done.clone()) == *action && view.at.since(*at) < RETRY_PAUSE)
}

/// A standby that streams from here waits for its slot.
pub(crate) fn are_awaited(view: &View<'_>) -> bool {
    let Some(sql) = view.fresh_sql().filter(|_| manages(view)) else { return false };
    let lacks = |wanted: &Wanted<'_>| match sql.slots.iter().find(|slot| slot.name == wanted.name) {
        None => true,
        Some(slot) => slot.lost && !slot.active && !view.paused(),
    };
    wanted(view).iter().any(|wanted| wanted.of_member && wanted.used && lacks(wanted))
}

/// Slots are used, and it is known who leads.
fn manages(view: &View<'_>) -> bool {
    view.config().use_slots && (view.is_primary() || view.other_leader().is_some())
}

fn first_missing<'a>(sql: &Sql, mut wanted: impl Iterator<Item = &'a Wanted<'a>>) -> Option<(Action, Reason)> {
    let missing = wanted.find(|wanted| !sql.slots.iter().any(|slot| slot.name == wanted.name))?;
    let reason = Reason::SlotMissing { slot: missing.name.to_string() };
    Some((Action::Postgres(PostgresAction::CreateSlot(missing.name.to_string())), reason))
}

fn dropped(slot: &Slot, reason: Reason) -> (Action, Reason) {
    (Action::Postgres(PostgresAction::DropSlot(slot.name.clone())), reason)
}

/// What may be dropped at all: nothing that is in use, nothing while the cluster is paused.
fn droppable<'a>(view: &View<'_>, sql: &'a Sql) -> impl Iterator<Item = &'a Slot> {
    let paused = view.paused();
    sql.slots.iter().filter(move |slot| !paused && !slot.active)
}

/// A slot that is wanted and serves nobody as it is: it is dropped, and made anew by the next step.
fn unusable(view: &View<'_>, sql: &Sql, wanted: &[Wanted<'_>], of_member: bool) -> Option<(Action, Reason)> {
    let spoilt = |slot: &Slot, wanted: &Wanted<'_>| {
        // Nobody streams through it here and moves what it pins: dead rows would be kept for ever, on every node. One that
        // never reserved anything cannot be advanced.
        let idle = !wanted.used && (slot.pins_rows || slot.restart == Lsn(0));
        // A logical slot of a member's name is a user's.
        if slot.physical { slot.lost || idle } else { !wanted.of_member }
    };
    let slot = droppable(view, sql).find(|slot| {
        let wanted = wanted.iter().find(|wanted| wanted.name == slot.name && wanted.of_member == of_member);
        wanted.is_some_and(|wanted| spoilt(slot, wanted))
    })?;
    Some(dropped(slot, Reason::SlotUnusable { slot: slot.name.clone() }))
}

/// A slot that this cluster made, or had configured, and that nobody wants here any more. It would keep WAL until the disk
/// is full. One that never was a member's nor configured is somebody else's, and stays.
fn obsolete(view: &View<'_>, sql: &Sql, wanted: &[Wanted<'_>]) -> Option<(Action, Reason)> {
    let memory = &view.state.memory;
    // Our own is what an earlier leader kept for this node.
    let own = slot_name(&view.config().me);
    // The leader waits for a member that is gone to come back, and tells the others for how long.
    let patience = if view.is_primary() { view.config().member_slots_ttl } else { Duration::ZERO };
    // A configuration that is gone takes nothing back.
    let configured = view.cluster().is_some_and(|cluster| cluster.config_revision != Revision(0));
    let was_permanent = |name: &String| configured && memory.permanent_slots.contains(name);
    let gone = |name: &String| memory.member_slots.get(name).is_some_and(|seen| view.at.since(*seen) >= patience);
    let slot = droppable(view, sql).find(|slot| {
        let name = &slot.name;
        let kept = wanted.iter().any(|wanted| wanted.name == *name) || view.config().ignores_slot(slot);
        slot.physical && !kept && (*name == own || gone(name) || was_permanent(name))
    })?;
    Some(dropped(slot, Reason::SlotObsolete { slot: slot.name.clone() }))
}

/// A slot that nobody streams through here, while its reader has gone on elsewhere. It moves only forwards, and no further
/// than this node is: its reader needs the rest if this node leads next. WAL is removed by whole files, so that it is
/// left where it is until one comes free.
fn behind(view: &View<'_>, sql: &Sql, wanted: &[Wanted<'_>]) -> Option<(Action, Reason)> {
    let file = |position: Lsn| position.0 / u64::from(view.dir().map_or(1, |dir| dir.segment_bytes.max(1)));
    let here = if sql.in_recovery { sql.replayed } else { sql.flushed };
    wanted.iter().filter(|wanted| !wanted.used).find_map(|wanted| {
        let slot = sql.slots.iter().find(|slot| slot.name == wanted.name && slot.physical && !slot.active)?;
        let to = wanted.read.min(here);
        (slot.restart > Lsn(0) && file(to) > file(slot.restart)).then(|| {
            let reason = Reason::SlotBehind { slot: slot.name.clone(), to };
            (Action::Postgres(PostgresAction::AdvanceSlot { slot: slot.name.clone(), to }), reason)
        })
    })
}

/// Remembers which slots on this node are members', with when each was last wanted, and which are or were the operator's.
/// A new leader begins to count anew for members that are gone (`retain_slots`).
pub(crate) fn remember(state: &mut State, at: Instant) {
    for name in &state.config.permanent_slots {
        if !state.memory.permanent_slots.contains(name) {
            state.memory.permanent_slots.insert(name.clone());
        }
    }
    // The step that is most often taken finds every slot as it was: what is remembered is changed in place.
    let (mut members, mut permanent) =
        (mem::take(&mut state.memory.member_slots), mem::take(&mut state.memory.permanent_slots));
    let view = View { at, state };
    if let Some(sql) = view.sql() {
        let own = slot_name(&view.config().me);
        let exists = |name: &String| sql.slots.iter().any(|slot| slot.physical && slot.name == *name);
        members.retain(|name, _| exists(name));
        permanent.retain(|name| exists(name) || view.config().permanent_slots.contains(name));
        // Until it leads it does not count for how long they are gone.
        let leads = view.held().is_some() && view.is_primary();
        let wanted = if leads { wanted::of_members(&view) } else { Vec::new() };
        for Slot { name, .. } in sql.slots.iter().filter(|slot| slot.physical) {
            match members.get_mut(name) {
                Some(_) if leads && wanted.iter().all(|wanted| wanted.name != *name) => {}
                Some(seen) => *seen = at,
                None if *name != own && wanted::is_of_member(&view, name) => drop(members.insert(name.clone(), at)),
                None => {}
            }
        }
    }
    (state.memory.member_slots, state.memory.permanent_slots) = (members, permanent);
}

/// What a leader tells the others: where its physical slots are, and for which members it keeps one. Their own slots for
/// these go along with it. It has no slot for itself; others have, and have it read whatever the leader has.
pub(crate) fn told(view: &View<'_>, sql: &Sql) -> (BTreeMap<String, Lsn>, Vec<String>) {
    let own = slot_name(&view.config().me);
    let reserved = sql.slots.iter().filter(|slot| slot.physical && slot.restart > Lsn(0));
    let mut slots: BTreeMap<_, _> = reserved.map(|slot| (slot.name.clone(), slot.restart)).collect();
    slots.insert(own.to_string(), sql.flushed);
    if view.config().member_slots_ttl == Duration::ZERO {
        return (slots, Vec::new());
    }
    let members = view.state.memory.member_slots.keys().cloned().chain([own.into_owned()]);
    let mut retain: Vec<_> = members.filter(|name| !view.config().permanent_slots.contains(name)).collect();
    retain.sort();
    (slots, retain)
}

/// PostgreSQL's limit to the length of a name.
const NAME_MAX: usize = 63;

/// The name of a member's slot: lower case; `-` and `.` become `_`, anything else outside `[a-z0-9_]` its code point as
/// `uNNNN`; cut to PostgreSQL's 63 characters.
pub fn slot_name(member: &Member) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if member.as_str().len() <= NAME_MAX && member.as_str().bytes().all(plain) {
        return Cow::Borrowed(member.as_str());
    }
    let mut name = String::new();
    for c in member.as_str().chars().flat_map(char::to_lowercase) {
        match c {
            'a'..='z' | '0'..='9' | '_' => name.push(c),
            '-' | '.' => name.push('_'),
            other => name.push_str(&format!("u{:04}", u32::from(other))),
        }
    }
    name.truncate(NAME_MAX);
    Cow::Owned(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_names_follow_the_contract() {
        for (member, slot) in [("n1", "n1"), ("Node-A.b", "node_a_b"), ("a b", "au0032b"), ("é", "u0233")] {
            assert_eq!(slot_name(&Member::new(member)), slot);
        }
        assert_eq!(slot_name(&Member::new(&"x".repeat(70))).len(), 63);
        for plain in ["n", "1", "_", "node_1"] {
            assert!(
                matches!(slot_name(&Member::new(plain)), Cow::Borrowed(name) if name == plain),
                "no step copies it"
            );
        }
    }
}
