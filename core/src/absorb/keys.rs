//! What the keys of the cluster say, as of a revision, of our authority first of all.

use crate::config::RETRY_PAUSE;
use crate::event::EpochFile;
use crate::id::{LeaseId, Member, Revision};
use crate::lease::{Held, Tenure};
use crate::state::{Leaderless, Memory, State};
use crate::time::{Instant, Seen};
use crate::view::View;
use crate::view::postgres::{DataDir, Process};
use crate::view::store::{ClusterView, MemberRecord, StatusKey, Vanished};

/// The keys as of a revision. An older one than is known says nothing new.
pub(super) fn view_seen(state: &mut State, seen: Seen<ClusterView>) {
    let mut back = false;
    if let Some(known) = state.store.cluster.as_ref().map(|known| &known.value) {
        let new = &seen.value;
        if new.store == known.store && (new.rollbacks, new.revision) < (known.rollbacks, known.revision) {
            return;
        }
        back = new.store != known.store || new.rollbacks > known.rollbacks;
    }
    if back {
        went_back(state);
    }
    // Who led in a lost future may lead yet, and is asked where it told there.
    remember_lost_records(state, &seen.value);
    authority(state, &seen);
    pause(state, &seen);
    remember_cluster(&mut state.memory, &seen.value);
    forget_another_cluster(state, &seen.value);
    let before = state.store.cluster.as_ref().map(|known| &known.value);
    let unseen = before.and_then(|before| led_unseen(before, &seen.value)).cloned();
    // Or it was deleted, with whoever may have written it since: what was answered before that says little.
    let epoch_changed = before.is_some_and(|before| before.epoch != seen.value.epoch);
    let before = before.and_then(|before| before.leader.as_ref());
    if seen.value.leader.as_ref().is_some_and(|leader| before.is_none_or(|before| before.created != leader.created)) {
        state.memory.tenure_ttl = state.config.ttl;
    }
    let before = before.map(|leader| leader.member.clone());
    let led = unseen.clone().or(before);
    match (led, &seen.value.leader) {
        (_, Some(_)) => {
            state.store.vanished = None;
            state.memory.race = None;
            state.memory.leaderless = None;
        }
        (Some(who), None) => {
            let released = seen.value.stopped_and_released(&who).map(|status| status.revision);
            state.store.vanished = Some(Vanished { heard: seen.heard, who, released });
            state.memory.race = Some((seen.value.revision, seen.heard));
            // What PostgreSQL told while the leader lived is not where it is now: WAL was received since.
            state.memory.changed = state.memory.changed.max(seen.heard);
        }
        (None, None) if state.memory.race.is_none() || epoch_changed => {
            state.memory.race = Some((seen.value.revision, seen.heard));
        }
        (None, None) => {}
    }
    if seen.value.leader.is_none() {
        let known = state.memory.leaderless.filter(|_| unseen.is_none());
        let began = Leaderless { since: seen.heard, revision: seen.value.revision };
        state.memory.leaderless = known.or(Some(began));
    }
    if let (Some(pledge), Some(leader)) = (state.pledge, &seen.value.leader)
        && leader.created > pledge.absent_at
    {
        state.pledge = None;
    }
    let own = seen.value.members.get(&state.config.me);
    // Two nodes under one name would overwrite each other as fast as the store answers.
    let settled = seen.heard.since(state.session.published_at) >= RETRY_PAUSE;
    if settled && own.is_none_or(|own| state.session.lease.is_some_and(|lease| lease != own.lease)) {
        state.session.published = None;
    }
    let heard = seen.heard;
    state.store.cluster = Some(seen);
    // The right to initialise is gone, whether it was given back or ended with its lease: others may try.
    if state.memory.initdb_failed && !(View { at: heard, state }).initialising() {
        state.memory.initdb_failed = false;
        state.memory.gave_up = Some(heard);
    }
}

/// Who took the key after `before` and has lost it again.
///
/// The race: a node hears nothing of the store while the key is released to another, and ends with that one's lease. It is
/// absent in both views, but not the same absence: what was told, and how long was waited, concerns the leader before.
fn led_unseen<'a>(before: &ClusterView, now: &'a ClusterView) -> Option<&'a Member> {
    let record = now.epoch.as_ref().filter(|record| record.store == now.store && before.store == now.store)?;
    let since = before.revision < record.epoch && record.epoch <= now.revision;
    (since && now.leader.is_none()).then_some(&record.member)
}

/// Remembers how to ask whose record is gone.
///
/// The race: a leader's record is deleted, or overwritten with what cannot be read, perhaps before it leads, and it hears
/// nothing of the store for a moment, neither of that nor that its key is gone as well. It lives, and is to be asked where
/// it last told.
fn remember_lost_records(state: &mut State, now: &ClusterView) {
    let lost = &mut state.memory.lost_records;
    let known = state.store.cluster.iter().flat_map(|known| &known.value.members);
    for (name, key) in known.filter(|(name, key)| key.record.can_be_asked() && !now.can_be_asked(name)) {
        lost.insert(name.clone(), key.record.clone());
    }
    lost.retain(|name, _| !now.can_be_asked(name));
    if now.leader_record().is_some_and(MemberRecord::can_be_asked) {
        lost.clear();
    }
}

/// What an operator who deletes a key does not make forgotten. Where `initialize` and the record of who led are gone as well
/// it is another cluster that begins.
fn remember_cluster(memory: &mut Memory, keys: &ClusterView) {
    let another = keys.system_id().zip(memory.knew).is_some_and(|(new, known)| new != known);
    memory.knew = keys.system_id().or(memory.knew);
    // A leader on a first timeline writes that none has ended.
    let gone = keys.epoch.is_none() && keys.initialize.is_none();
    let lost = !keys.history.tells() && !gone && !another;
    if !lost && memory.told_history != keys.history.lines {
        memory.told_history.clone_from(&keys.history.lines);
    }
    let told = keys.status.as_ref().filter(|status| status.tells());
    if told.is_some() || gone || another {
        memory.told_status = told.map(|status| StatusKey {
            revision: status.revision,
            optime: status.optime,
            timeline: status.timeline,
            ..StatusKey::default()
        });
    }
}

/// The keys and the directory are of one cluster, and what the disk tells is of another that lived here before: that this node
/// led that one says nothing any more.
fn forget_another_cluster(state: &mut State, keys: &ClusterView) {
    let DataDir::Cluster(dir) = &state.postgres.data else { return };
    let ours = keys.system_id().filter(|id| *id == dir.system_id);
    let other = |file: &EpochFile| file.store == keys.store && ours.is_some_and(|id| id != file.system_id);
    if state.tenure.held().is_none() && state.epoch_file.as_ref().is_some_and(other) {
        state.epoch_file = state.epoch_file.map(EpochFile::void);
        state.memory.void_due = true;
    }
}

/// The store was replaced, or restored from a backup: its revisions are minted a second time, and what is remembered by
/// one may be true of another tenure, or never have happened.
fn went_back(state: &mut State) {
    // Not as if there had never been one: who has led does not begin a cluster anew on its old data.
    state.memory.void_due = state.epoch_file.is_some();
    state.epoch_file = state.epoch_file.map(EpochFile::void);
    state.pledge = None;
    state.spend_tenure();
    state.granted = None;
    state.memory.replaced_grant = None;
    state.session.lease = None;
    let memory = &mut state.memory;
    (memory.race, memory.leaderless, memory.compared, memory.rewind_failed) = (None, None, None, None);
    memory.told_history.clear();
    memory.told_status = None;
    memory.given_up = None;
    memory.written = Revision(0);
}

/// What the leader key says about our tenure. It can only end it, or begin the one that was asked for; it never
/// prolongs one.
fn authority(state: &mut State, seen: &Seen<ClusterView>) {
    let leader = seen.value.leader.as_ref();
    let granted = state.granted.filter(|g| leader.is_some_and(|l| l.lease == g.lease) && state.spent != Some(g.lease));
    if let (Some(granted), Some(leader)) = (granted, leader) {
        if leader.member == state.config.me {
            let (lease, epoch) = (granted.lease, leader.created);
            state.tenure = Tenure::Held(Held { lease, epoch, ttl: granted.ttl, confirmed: granted.asked });
            state.granted = None;
        }
        return;
    }
    // The race: a campaign got no answer, its lease was replaced by a fresh one, and the store, when it went on, gave the key
    // to the old one. Nobody renews that: it is given back, instead of keeping everybody waiting for a ttl.
    let forsaken = leader.map(|leader| leader.lease).filter(|lease| state.memory.replaced_grant == Some(*lease));
    if matches!(state.tenure, Tenure::None) && state.spent.is_none() {
        state.spent = forsaken;
    }
    match (&state.tenure, leader) {
        (Tenure::Held(held), Some(leader)) if leader.lease == held.lease && leader.created == held.epoch => {}
        (Tenure::Held(_), None) => suspend_or_spend(state, seen.heard),
        // A refused renewal was faster than the watch, which still tells of the key that is gone: no news.
        (Tenure::Suspended { was, .. }, Some(leader)) if leader.lease == was.lease && leader.created == was.epoch => {}
        (Tenure::Held(_) | Tenure::Suspended { .. }, Some(_)) => state.spend_tenure(),
        (Tenure::Suspended { .. } | Tenure::None | Tenure::Adopting { .. }, _) => {}
    }
}

/// What the store says of maintenance mode. Who was left alone looks for its tenure when that ends, as after a start.
fn pause(state: &mut State, seen: &Seen<ClusterView>) {
    match seen.value.paused {
        Some(true) => {
            state.memory.paused.get_or_insert(seen.heard);
        }
        Some(false) if state.memory.paused.take().is_some() => {
            (state.memory.resumed, state.memory.let_go) = (seen.heard, false);
            if matches!(state.tenure, Tenure::None | Tenure::Adopting { .. }) {
                let search = state.config.ttl.min(state.config.retry_timeout);
                state.tenure = Tenure::Adopting { deadline: seen.heard + search };
            }
        }
        // Deleted or garbled, it does not say that the pause is over.
        Some(false) | None => {}
    }
}

/// Our key is gone and nobody else is seen. A primary gets a moment to take it back; anything else just loses it.
pub(super) fn suspend_or_spend(state: &mut State, since: Instant) {
    let view = View { at: since, state };
    // What is not there yet cannot be held: a postmaster that is being started is stopped instead.
    let writes = view.may_write() && view.phase().is_some() && !state.memory.let_go;
    match (&state.tenure, writes) {
        (Tenure::Held(held), true) => state.tenure = Tenure::Suspended { was: *held, since },
        (Tenure::Held(_), false) => state.spend_tenure(),
        (Tenure::None | Tenure::Adopting { .. } | Tenure::Suspended { .. }, _) => {}
    }
}

/// The guard fired while nobody listened: that tenure is spent, even if its key is still there, or is there again with a store
/// that was away. It is armed never again, so that adopting it would mean to lead for ever and never serve. Whatever runs without
/// that key was started since; and no guard was ever armed for a key without a lease.
fn spend_fired(state: &mut State) {
    let free = state.spent.is_none() && matches!(state.tenure, Tenure::None | Tenure::Adopting { .. });
    let leader = state.store.cluster.as_ref().and_then(|seen| seen.value.leader.as_ref()).filter(|_| free);
    let fired = leader.is_some_and(|leader| leader.lease != LeaseId(0) && state.guard.fired == Some(leader.lease));
    if fired {
        (state.spent, state.tenure) = (state.guard.fired.take(), Tenure::None);
    }
}

/// The search for a tenure after a start ends where there is nothing to adopt: PostgreSQL does not write and the key is
/// not provably ours, or the key names another.
pub(super) fn settle_adoption(state: &mut State, at: Instant) {
    spend_fired(state);
    let Tenure::Adopting { .. } = state.tenure else { return };
    let view = View { at, state };
    let unseen = view.state.postgres.process == Process::Unknown || view.state.postgres.data == DataDir::Unknown;
    let Some(cluster) = view.cluster() else { return };
    let foreign = cluster.leader.as_ref().is_some_and(|leader| leader.member != view.config().me);
    if unseen && !foreign {
        return;
    }
    let ours = cluster.leader.as_ref().is_some_and(|leader| crate::decide::is_our_key(&view, leader));
    let identity = cluster.system_id().is_some_and(|id| view.dir().is_none_or(|dir| dir.system_id != id));
    if foreign || (identity && view.phase().is_some()) || (!view.may_write() && !ours) {
        state.tenure = Tenure::None;
    }
}
