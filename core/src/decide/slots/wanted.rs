//! Which slots a node is to have.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::slot_name;
use crate::id::{Lsn, Member};
use crate::time::Duration;
use crate::view::View;
use crate::view::store::{MemberRecord, StatusKey};

/// A physical slot that this node is to have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wanted<'a> {
    /// Its name.
    pub(crate) name: Cow<'a, str>,
    /// It is a member's; otherwise the operator's (`slots`).
    pub(crate) of_member: bool,
    /// Its reader streams from this node: the slot moves by itself. Any other is kept for the time when this node leads.
    pub(crate) used: bool,
    /// Up to where its reader is known to have the WAL.
    pub(crate) read: Lsn,
}

/// All of them: those of members that stream from here first, the operator's last.
pub(crate) fn wanted<'a>(view: &View<'a>) -> Vec<Wanted<'a>> {
    let mut wanted = of_members(view);
    wanted.sort_by_key(|wanted| !wanted.used);
    for slot in permanent(view) {
        if wanted.iter().all(|wanted| wanted.name != slot.name) {
            wanted.push(slot);
        }
    }
    wanted
}

/// Those of members: on the node that a member streams from, and on every one that may lead next, unless
/// `member_slots_ttl` is 0.
pub(crate) fn of_members<'a>(view: &View<'a>) -> Vec<Wanted<'a>> {
    let everywhere = everywhere(view);
    let streaming = view.others().filter(|(_, key)| !key.record.nostream);
    let members = streaming.map(|(name, key)| of_member(view, name, &key.record));
    let mut wanted: Vec<_> = members.filter(|wanted| wanted.used || everywhere).collect();
    // On a standby also those that the leader keeps for members that are gone.
    let retained = status(view).filter(|_| everywhere && !view.is_primary());
    for name in retained.into_iter().flat_map(|status| &status.retain) {
        if *name != slot_name(&view.config().me) && wanted.iter().all(|wanted| wanted.name != *name) {
            wanted.push(Wanted { name: name.into(), of_member: true, used: false, read: published(view, name) });
        }
    }
    wanted
}

fn of_member<'a>(view: &View<'a>, member: &'a Member, record: &MemberRecord) -> Wanted<'a> {
    let name = slot_name(member);
    let cascades =
        record.replicatefrom.as_ref().filter(|from| view.cluster().is_some_and(|c| c.members.contains_key(*from)));
    let used = match cascades {
        // Who leads streams from nobody, whatever its tag says.
        Some(from) => *from == view.config().me && view.leader().is_none_or(|leader| leader.member != *member),
        None => view.is_primary(),
    };
    // Where a member streams from another than the leader its slot there moves only with what it tells itself. So it goes
    // with a leader that publishes nothing of these slots.
    let told = published(view, &name);
    let read = if cascades.is_some() || told == Lsn(0) { told.max(record.position) } else { told };
    Wanted { name, of_member: true, used, read }
}

/// Slots of members are kept also where nobody streams through them: not on a standby that never leads.
fn everywhere(view: &View<'_>) -> bool {
    view.config().member_slots_ttl > Duration::ZERO && may_lead(view)
}

fn may_lead(view: &View<'_>) -> bool {
    view.is_primary() || !view.config().nofailover
}

/// The operator's: on every node that may lead.
fn permanent<'a>(view: &View<'a>) -> Vec<Wanted<'a>> {
    let (config, own) = (view.config(), slot_name(&view.config().me));
    // What matches is left alone, also if it is configured.
    let ignored = |name: &str| {
        let existing = view.sql().and_then(|sql| sql.slots.iter().find(|slot| slot.name == name));
        existing.map_or_else(|| config.ignores_physical_slot(name), |slot| config.ignores_slot(slot))
    };
    let names = config.permanent_slots.iter().filter(|name| may_lead(view) && **name != own && !ignored(name));
    let used = view.is_primary();
    names.map(|name| Wanted { name: name.into(), of_member: false, used, read: published(view, name) }).collect()
}

fn status<'a>(view: &View<'a>) -> Option<&'a StatusKey> {
    view.cluster()?.status.as_ref()
}

/// Where the leader tells that a slot is; 0: it tells nothing of it.
fn published(view: &View<'_>, name: &str) -> Lsn {
    status(view).and_then(|status| status.slots.get(name)).copied().unwrap_or_default()
}

/// Whether a slot's name is a member's: one of those that are there, or that a leader keeps a slot for.
pub(crate) fn is_of_member(view: &View<'_>, slot: &str) -> bool {
    let retained = || status(view).is_some_and(|status| status.retain.iter().any(|name| name == slot));
    view.others().any(|(member, _)| slot_name(member) == slot) || retained()
}
