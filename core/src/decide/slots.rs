//! Reconciler: a physical slot for each member that streams from this node.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::action::{Action, PostgresAction};
use crate::id::Member;
use crate::reason::Reason;
use crate::state::State;
use crate::time::Instant;
use crate::view::View;
use crate::view::postgres::{Slot, Sql};

pub(crate) fn order(view: &View<'_>) -> Option<(Action, Reason)> {
    if !view.config().use_slots {
        return None;
    }
    // What was asked before the last change would make the same slot once more.
    let sql = view.fresh_sql()?;
    let wanted = wanted(view);
    if let Some(obsolete) = obsolete(view, sql, &wanted).filter(|_| !view.paused()) {
        return Some(obsolete);
    }
    let missing = wanted.into_iter().find(|name| !sql.slots.iter().any(|slot| slot.name == *name))?;
    let reason = Reason::SlotMissing { slot: missing.clone() };
    Some((Action::Postgres(PostgresAction::CreateSlot(missing)), reason))
}

/// A slot to be dropped. While the cluster is paused none is.
fn obsolete(view: &View<'_>, sql: &Sql, wanted: &[String]) -> Option<(Action, Reason)> {
    // A slot that lost its WAL can never be streamed from again: it is dropped, and made anew by the next step.
    if let Some(lost) = sql.slots.iter().find(|slot| slot.lost && !slot.active && wanted.contains(&slot.name)) {
        let reason = Reason::SlotObsolete { slot: lost.name.clone() };
        return Some((Action::Postgres(PostgresAction::DropSlot(lost.name.clone())), reason));
    }
    // Our own slot is what an earlier leader kept for this node; here it would only keep WAL for ever.
    let own = slot_name(&view.config().me);
    if sql.slots.iter().any(|slot| slot.name == own && slot.physical && !slot.active) {
        let reason = Reason::SlotObsolete { slot: own.clone() };
        return Some((Action::Postgres(PostgresAction::DropSlot(own)), reason));
    }
    // The slot of a member that is gone keeps WAL until the disk is full: it is dropped when nobody has come back for
    // long.
    let ttl = view.config().member_slots_ttl;
    let gone_for_long = |name: &String| {
        view.state.memory.member_slots.get(name).is_some_and(|wanted_at| view.at.since(*wanted_at) >= ttl)
    };
    let unused = |slot: &&Slot| slot.physical && !slot.active && !wanted.contains(&slot.name);
    let gone = sql.slots.iter().filter(unused).find(|slot| gone_for_long(&slot.name))?;
    let reason = Reason::SlotObsolete { slot: gone.name.clone() };
    Some((Action::Postgres(PostgresAction::DropSlot(gone.name.clone())), reason))
}

/// Remembers which slots are members' and when each was last wanted. A new leader takes over what the last one knew
/// (`retain_slots`), as of now. Slots that no member ever had are somebody else's and never touched.
pub(crate) fn remember(state: &mut State, at: Instant) {
    let view = View { at, state };
    if view.held().is_none() || !view.is_primary() {
        state.memory.member_slots.clear();
        return;
    }
    let wanted = wanted(&view);
    let known = view.cluster().and_then(|cluster| cluster.status.as_ref()).map(|status| status.retain.clone());
    let existing: Vec<String> =
        view.sql().map(|sql| sql.slots.iter().map(|s| s.name.clone()).collect()).unwrap_or_default();
    let own = slot_name(&view.config().me);
    let remembered = &mut state.memory.member_slots;
    for name in known.into_iter().flatten().filter(|name| existing.contains(name) && *name != own) {
        remembered.entry(name).or_insert(at);
    }
    for name in wanted {
        remembered.insert(name, at);
    }
    remembered.retain(|name, wanted_at| *wanted_at == at || existing.contains(name));
}

/// The slots of the members that stream from this node.
pub(crate) fn wanted(view: &View<'_>) -> Vec<String> {
    let me = &view.config().me;
    let leads = view.is_primary();
    let Some(cluster) = view.cluster() else { return Vec::new() };
    let streams = |record: &crate::view::store::MemberRecord| {
        let cascades = record.replicatefrom.as_ref().filter(|from| cluster.members.contains_key(*from));
        match cascades {
            Some(from) => from == me,
            None => leads,
        }
    };
    view.others()
        .filter(|(_, key)| !key.record.nostream && streams(&key.record))
        .map(|(name, _)| slot_name(name))
        .collect()
}

/// The name of a member's slot: lower case; `-` and `.` become `_`, anything else outside `[a-z0-9_]` its code point as
/// `uNNNN`; cut to PostgreSQL's 63 characters.
pub fn slot_name(member: &Member) -> String {
    let mut name = String::new();
    for c in member.as_str().chars().flat_map(char::to_lowercase) {
        match c {
            'a'..='z' | '0'..='9' | '_' => name.push(c),
            '-' | '.' => name.push('_'),
            other => name.push_str(&format!("u{:04}", u32::from(other))),
        }
    }
    name.truncate(63);
    name
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
    }
}
