//! Rung 10: there is no leader key. Campaign for it, or stand back for whoever knows more of the way.

use alloc::vec::Vec;

use super::{Verdict, ms};
use crate::action::{Action, Lane, PeerAction, PostgresAction, StoreAction};
use crate::config::{AHEAD_PATIENCE, EQUALS_PATIENCE, RACE_WINDOW, VANISH_GRACE};
use crate::id::{Lsn, Member, Revision, Timeline};
use crate::reason::Reason;
use crate::state::Granted;
use crate::time::{Instant, Seen};
use crate::timeline::Relation;
use crate::view::peers::PeerAnswer;
use crate::view::postgres::Phase;
use crate::view::store::{ClusterView, MemberRecord};
use crate::view::{Position, View};

mod operator;

use operator::{Wish, stand_back_for_operator, unguarded};

pub(super) fn decide(view: &View<'_>) -> Option<Verdict> {
    let cluster = view.cluster()?;
    if view.held().is_some() || cluster.leader.is_some() {
        return None;
    }
    view.complete_dir()?;
    // Who gave up because it could not serve lets others try, and tries again later: not as fast as it fails.
    if let Some(left) = view.gave_up_for() {
        return Some(Verdict::wait(Reason::GaveUp { left_ms: ms(left) }));
    }
    if let Some(left) = view.vetoed_for() {
        return Some(Verdict::wait(Reason::PromotionVetoed { left_ms: ms(left) }));
    }
    // A cluster that was never completed has one node with data: the one that initialised it. Where no key tells so it may
    // have been another that led.
    if view.unfinished_bootstrap() && view.dead() {
        let unknown = unknown_cluster(view, cluster, Wish::None).filter(|_| !view.initialising());
        return unknown.or_else(|| Some(campaign(view)));
    }
    if view.phase() != Some(Phase::Ready) {
        return None;
    }
    if view.config().nofailover {
        return Some(Verdict::wait(Reason::NoFailoverTag));
    }
    // A key that is won without a guard could not be served under.
    if !view.state.guard.present {
        let gone = view.state.guard.gone.unwrap_or(view.at);
        return Some(Verdict::wait(Reason::GuardMissing { for_ms: ms(view.at.since(gone)) }));
    }
    if let Some(lease) = view.state.spent {
        return Some(Verdict::wait(Reason::SpentTenure { lease }));
    }
    let (absent_at, began) = view.state.memory.race?;
    let wish = match stand_back_for_operator(view, cluster) {
        Err(verdict) => return Some(verdict),
        Ok(wish) => wish,
    };
    if let Some(verdict) = unguarded(view, cluster, wish, (absent_at, began)) {
        return Some(verdict);
    }
    let mut orders = questions(view, (absent_at, began), |_, record| wish.concerns(record));
    // The operator's word is enough.
    let unmanaged = || unmanaged_upstream(view).filter(|_| wish != Wish::Failover);
    let unknown = || unknown_cluster(view, cluster, wish);
    if let Some(mut verdict) = grace(view, cluster).or_else(unmanaged).or_else(unknown) {
        // Positions are collected meanwhile; and a holder that is found unreachable gets no grace.
        verdict.orders = orders;
        return Some(verdict);
    }
    if receives(view) {
        orders.insert(0, Action::Postgres(PostgresAction::Freeze));
        return Some(Verdict::orders(Reason::FreezingReceiver, orders));
    }
    // Neither does a position that was asked for before the receiver stopped.
    let known = view.position().filter(|_| view.fresh_sql().is_some());
    let Some(mine) = known else { return Some(Verdict::orders(Reason::PositionUnknown, orders)) };
    let missing = missing(view, wish, absent_at, began);
    let window = began.max(last_asked(view, wish, began)) + RACE_WINDOW;
    if missing > 0 && view.at < window {
        let left_ms = ms(view.at.until(window));
        return Some(Verdict::orders(Reason::CollectingPositions { missing, left_ms }, orders));
    }
    Some(contest(view, cluster, wish, &mine, began).map_or_else(|| campaign(view), Verdict::wait))
}

/// Neither the store nor this agent, which has started since, knows of any cluster: whatever renewed its tenure before
/// its keys were gone is over within a ttl.
///
/// The race: an operator deletes all keys while the leader hears nothing of the store for a moment, and an agent starts.
/// It would find nobody to ask, and be promoted beside a primary that has not heard of it yet.
fn unknown_cluster(view: &View<'_>, cluster: &ClusterView, wish: Wish) -> Option<Verdict> {
    if view.system_id().is_some() || cluster.epoch.is_some() {
        return None;
    }
    // What streamed in until now comes from one that may only have been started again.
    let streamed = view.state.memory.streamed_unmanaged.filter(|_| wish != Wish::Failover);
    let since = view.leaderless_since().max(streamed.unwrap_or_default());
    let left_ms = ms(view.at.until(since + view.tenure_ttl()));
    (left_ms > 0).then(|| Verdict::wait(Reason::ClusterUnknown { left_ms }))
}

/// WAL streams in from one that no agent has told of.
fn unmanaged_upstream(view: &View<'_>) -> Option<Verdict> {
    let upstream = view.unmanaged_upstream()?.into();
    Some(Verdict::wait(Reason::UnmanagedUpstream { upstream }))
}

/// The key left while its holder lives and says that it is a running primary: that is no expiry. Perhaps the store
/// dropped the lease early, or somebody deleted the key. The holder has stopped its writes and takes the key back in
/// a few milliseconds; racing it would turn nothing into a failover.
fn grace(view: &View<'_>, cluster: &ClusterView) -> Option<Verdict> {
    let vanished = view.state.store.vanished.as_ref()?;
    let recorded = cluster.members.get(&vanished.who).map(|key| &key.record).filter(|record| record.can_be_asked());
    let holder = recorded.or(view.state.memory.lost_records.get(&vanished.who))?;
    // A holder that says nothing while positions are collected is frozen or gone, and will not take its key back.
    let speaks = told(view, &vanished.who, vanished.heard).is_some();
    let end = vanished.heard + if speaks { VANISH_GRACE } else { RACE_WINDOW };
    let lives = !unreachable(view, &vanished.who, vanished.heard);
    if !holder.serves() || !lives || vanished.who == view.config().me || view.at >= end {
        return None;
    }
    Some(Verdict::wait(Reason::VanishGrace { who: vanished.who.clone(), left_ms: ms(view.at.until(end)) }))
}

/// This node still receives WAL, or may begin to: its position does not count yet.
fn receives(view: &View<'_>) -> bool {
    let pledged = view.state.pledge.is_some_and(|pledge| pledge.frozen);
    view.sql().is_some_and(|sql| sql.receiver.is_some()) && !pledged
}

/// Everybody else, also those whose record is gone, or does not say whom to ask, since there is no leader. The race:
/// somebody deletes all keys while a holder hears nothing of the store for a moment. Nobody would know whom to ask, and
/// another would be promoted beside it.
fn others<'a>(view: &View<'a>) -> impl Iterator<Item = (&'a Member, &'a MemberRecord)> {
    let me = &view.config().me;
    let lost = view.state.memory.lost_records.iter().filter(move |(name, _)| *name != me);
    view.others().map(|(name, key)| (name, &key.record)).chain(lost)
}

/// Those who can be asked.
fn rivals<'a>(view: &View<'a>) -> impl Iterator<Item = (&'a Member, &'a MemberRecord)> {
    others(view).filter(|(_, record)| record.can_be_asked())
}

fn told<'a>(view: &View<'a>, name: &Member, began: Instant) -> Option<&'a PeerAnswer> {
    view.state.peers.answers.get(name).filter(|seen| seen.asked >= began).map(|seen| &seen.value)
}

/// What it told in an earlier round since there is no leader, for as long as whoever is ahead goes first: it holds that yet.
///
/// The race: the last leader is ahead, and starts its PostgreSQL again when it is asked once more. It cannot tell before
/// that is up, and the round would be over.
fn told_before<'a>(view: &View<'a>, name: &Member, began: Instant) -> Option<&'a PeerAnswer> {
    let waited_for = view.at < ahead_patience(view) && !unreachable(view, name, began);
    view.state.memory.leaderless.filter(|_| waited_for).and_then(|leaderless| told(view, name, leaderless.since))
}

fn unreachable(view: &View<'_>, name: &Member, began: Instant) -> bool {
    view.state.peers.unreachable.get(name).is_some_and(|at| *at >= began)
}

/// Who has not told a position that counts. One of ours that still receives WAL may be further than it said; a Patroni
/// member cannot stop receiving, and only the lease protects from it.
fn missing(view: &View<'_>, wish: Wish, absent_at: Revision, began: Instant) -> usize {
    let counts = |name, record: &MemberRecord| {
        told(view, name, began).is_some_and(|answer| !record.pledges || answer.barred || answer.is_final(absent_at))
    };
    let concerned = rivals(view).filter(|(_, record)| wish.concerns(record));
    concerned.filter(|(name, record)| !counts(name, record) && !unreachable(view, name, began)).count()
}

/// When the last of those who are still to answer was asked. Not the beginning of the round: a node that stood back for
/// the operator's candidate, or whose PostgreSQL was not ready, comes late and asks then.
fn last_asked(view: &View<'_>, wish: Wish, began: Instant) -> Instant {
    let asked = unheard(view, began, |_, record| wish.concerns(record)).map(|(name, _)| {
        view.state.ops.in_lane(&Lane::Peer(name.clone())).map_or(view.at, |in_flight| in_flight.since)
    });
    asked.max().unwrap_or(began)
}

/// For positions of those who are concerned and have not told theirs.
fn questions(
    view: &View<'_>,
    (absent_at, began): (Revision, Instant),
    concerned: impl Fn(&Member, &MemberRecord) -> bool,
) -> Vec<Action> {
    let ask = |(name, record): (&Member, &MemberRecord)| {
        Action::Peer(PeerAction::AskPosition {
            member: name.clone(),
            api_url: record.api_url.clone(),
            pledges: record.pledges,
            absent_at,
        })
    };
    unheard(view, began, concerned).map(ask).collect()
}

/// Those concerned who have neither answered in this round nor were found unreachable.
fn unheard<'a>(
    view: &View<'a>,
    began: Instant,
    concerned: impl Fn(&Member, &MemberRecord) -> bool,
) -> impl Iterator<Item = (&'a Member, &'a MemberRecord)> {
    rivals(view).filter(move |(name, record)| {
        concerned(name, record) && told(view, name, began).is_none() && !unreachable(view, name, began)
    })
}

/// Why this node must not campaign; `None`: it may.
fn contest(view: &View<'_>, cluster: &ClusterView, wish: Wish, mine: &Position, began: Instant) -> Option<Reason> {
    if wish != Wish::Failover
        && let Some(reason) = lags(view, cluster, mine)
    {
        return Some(reason);
    }
    // Whatever keeps one from taking over does not keep it from being the primary that it is.
    if let Some(who) = last_told_primary(view) {
        return Some(Reason::PrimaryAlive { who });
    }
    // What one has answered counts also when its record was garbled since.
    for (name, record) in others(view) {
        let now = told(view, name, began);
        let Some(answer) = now.or_else(|| told_before(view, name, began)) else { continue };
        // Whose record has ended does not reach the store, and could not take the key.
        if answer.barred || !cluster.members.contains_key(name) {
            continue;
        }
        if matches!(wish, Wish::Switchover | Wish::Failover) {
            continue;
        }
        let relation = mine.history.relation(mine.flushed, &answer.history, answer.flushed);
        if let Some(reason) = behind(view, cluster, (name, answer), mine, relation) {
            return Some(reason);
        }
        let first = wish == Wish::None && relation == Relation::Equal && goes_first(view, name, record);
        if first && view.at < began + RACE_WINDOW + EQUALS_PATIENCE {
            return Some(Reason::PeerGoesFirst { who: name.clone() });
        }
    }
    None
}

/// A peer that can lead holds what this node does not.
fn behind(
    view: &View<'_>,
    cluster: &ClusterView,
    (name, peer): (&Member, &PeerAnswer),
    mine: &Position,
    relation: Relation,
) -> Option<Reason> {
    let who = name.clone();
    match relation {
        Relation::Ahead | Relation::Equal => return None,
        Relation::Behind => {}
        // Each holds what the other does not. The newer branch holds what was acknowledged last.
        Relation::Diverged { .. } if (mine.history.timeline, mine.flushed) >= (peer.history.timeline, peer.flushed) => {
            return None;
        }
        // Nor is a branch newer, by its number, that left what the leaders told while this node did not.
        Relation::Diverged { .. } if strayed(view, cluster, peer) && left_at(view, cluster, mine).is_none() => {
            return None;
        }
        // Nor does one that may not lead keep away who may: nobody would lead.
        Relation::Diverged { .. } if may_never_lead(view, cluster, peer) => return None,
        // All of the newer branch would be given up, from where this one left it, and not what the positions differ by.
        // A Patroni member does not tell where that was (0).
        Relation::Diverged { at } => {
            let (by_bytes, limit_bytes) =
                (peer.flushed.bytes_ahead_of(at), view.config().maximum_lag_on_failover_bytes);
            if at > Lsn(0) && by_bytes > limit_bytes {
                return Some(Reason::NewerBranch { who, at, by_bytes, limit_bytes });
            }
        }
    }
    // Whoever is ahead campaigns as soon as it can. One that cannot (its server does not start, it does not reach the
    // store) must not keep the cluster without a primary for ever: what it costs is bounded.
    (view.at < ahead_patience(view)).then_some(Reason::BehindPeer { who, lsn: peer.flushed })
}

/// The peer lacks more of what was published than may be given up.
pub(super) fn may_never_lead(view: &View<'_>, cluster: &ClusterView, peer: &PeerAnswer) -> bool {
    let theirs = Position { history: peer.history.clone(), flushed: peer.flushed };
    matches!(lags(view, cluster, &theirs), Some(Reason::LagTooLarge { .. } | Reason::BranchLeft { .. }))
}

/// The peer went on along a timeline that the leaders had ended, or ended one elsewhere.
fn strayed(view: &View<'_>, cluster: &ClusterView, peer: &PeerAnswer) -> bool {
    left_at(view, cluster, &Position { history: peer.history.clone(), flushed: peer.flushed }).is_some()
}

/// Until when whoever holds more goes first.
fn ahead_patience(view: &View<'_>) -> Instant {
    view.leaderless_since() + AHEAD_PATIENCE
}

/// The leader's last known position is too far ahead of this node: of what both share, if this node is on a branch that
/// the leader had left. Whoever is on the leader's branch and cannot be asked gets the time to come back.
fn lags(view: &View<'_>, cluster: &ClusterView, mine: &Position) -> Option<Reason> {
    let optime = view.told_status(cluster).map_or(Lsn(0), |status| status.optime);
    let limit_bytes = view.config().maximum_lag_on_failover_bytes;
    let Some(at) = left_at(view, cluster, mine) else {
        let by_bytes = optime.bytes_ahead_of(mine.flushed);
        return (by_bytes > limit_bytes).then_some(Reason::LagTooLarge { by_bytes, limit_bytes });
    };
    let by_bytes = optime.bytes_ahead_of(at);
    if by_bytes > limit_bytes {
        return Some(Reason::BranchLeft { at, by_bytes, limit_bytes });
    }
    let left_ms = ms(view.at.until(ahead_patience(view)));
    (left_ms > 0).then_some(Reason::BranchAwaited { at, left_ms })
}

/// Where this node left the history that the leaders told, if it did: it went on along a timeline that had ended, or
/// ended one elsewhere, or went on where theirs began.
fn left_at(view: &View<'_>, cluster: &ClusterView, mine: &Position) -> Option<Lsn> {
    let told = view.told_history(cluster).iter().map(|line| (line.timeline, line.end));
    let ended = told.clone().filter_map(|(timeline, end)| match mine.history.end_of(timeline)? {
        Some(own) => (own != end).then_some(own.min(end)),
        None => Some(end),
    });
    let status = view.told_status(cluster).filter(|status| status.timeline != Timeline(0));
    // It ended the leader's timeline before what the leader wrote on it: it was promoted by hand, or took over with no more
    // than that. What is published with the release is where the shutdown checkpoint begins.
    let published = status.and_then(|status| {
        let released = view.state.store.vanished.as_ref().is_some_and(|last| last.released == Some(status.revision));
        let end = mine.history.end_of(status.timeline)??;
        (end < status.optime || (end == status.optime && released)).then_some(end)
    });
    // Several timelines may begin at one position, and the lines name ancestors only: the first that is not this node's
    // began where it went another way.
    let mut leaders = told.clone().map(|(timeline, _)| timeline).chain(status.map(|status| status.timeline));
    let foreign = leaders.find(|timeline| mine.history.end_of(*timeline).is_none());
    let parted = foreign.and_then(|foreign| {
        let before = told.clone().rev().find(|(timeline, _)| *timeline < foreign).map(|(_, end)| end);
        before.or_else(|| parted_untold(mine))
    });
    // The leader's timeline began, here, beyond what the leader told of it: this is another of that number.
    let twin = status.and_then(|status| {
        let began = mine.history.begin_of(status.timeline).filter(|began| *began > status.optime)?;
        let mut before = told.rev().filter(|(timeline, _)| *timeline < status.timeline);
        Some(before.next().map_or(began, |(_, end)| end))
    });
    let left = ended.chain(published).chain(parted).chain(twin);
    // The epoch record says nothing of this: whoever took the key may have received a part of a record beyond which it
    // promoted, and would be found to have left its own history.
    left.min().filter(|at| *at < mine.flushed)
}

/// The lines begin later than where this node and the leaders parted (`max_timelines_history`): all of its own timeline may
/// be beside theirs. What a Patroni member is on says nothing of where that began.
fn parted_untold(mine: &Position) -> Option<Lsn> {
    let told_whole = mine.history.timeline == Timeline(1) || !mine.history.ancestors.is_empty();
    mine.history.begin_of(mine.history.timeline).filter(|_| told_whole)
}

/// Who answered as a running primary since there is no leader, and nothing else since: what it has renewed before it
/// answered ends within a ttl.
///
/// The race: the key went before its time, and its holder hears nothing of the store. It says that it is the primary, and its
/// next answer is lost, or it has no record any more to be asked again by: it would be overtaken while it writes.
fn last_told_primary(view: &View<'_>) -> Option<Member> {
    let leaderless = view.state.memory.leaderless?;
    let counts = |seen: &Seen<PeerAnswer>| {
        let ttl = view.tenure_ttl().max(seen.value.tenure_ttl);
        seen.value.primary && seen.asked >= leaderless.since && view.at < seen.asked + ttl
    };
    let mut answers = view.state.peers.answers.iter();
    answers.find(|(_, seen)| counts(seen)).map(|(name, _)| name.clone())
}

/// Among equals: the higher priority, then the name that sorts first. Only an order that all agree on, so that they do
/// not wait for each other; the store decides if they try at once all the same.
fn goes_first(view: &View<'_>, name: &Member, record: &MemberRecord) -> bool {
    let config = view.config();
    (core::cmp::Reverse(record.failover_priority), name) < (core::cmp::Reverse(config.failover_priority), &config.me)
}

/// The next half-step: a fresh lease, then the key.
pub(super) fn campaign(view: &View<'_>) -> Verdict {
    match usable_grant(view) {
        None => Verdict::order(Reason::AskingLease, Action::Store(StoreAction::GrantTenure { ttl: view.config().ttl })),
        Some(granted) if !view.config().bounds.fits(granted.ttl) => {
            let needed = (1..=600).map(|tenths| crate::time::Duration::from_millis(tenths * 100));
            let needed_ms = needed.into_iter().find(|ttl| view.config().bounds.fits(*ttl)).map_or(0, ms);
            Verdict::wait(Reason::TtlTooShort { granted_ms: ms(granted.ttl), needed_ms })
        }
        Some(granted) => {
            let acquire = super::fence::acquire(view, granted.lease);
            Verdict::order(Reason::Campaigning { lease: granted.lease }, Action::Store(StoreAction::Acquire(acquire)))
        }
    }
}

/// A lease with two thirds of its time left: a tenure is dated from when its lease was asked for.
pub(super) fn usable_grant(view: &View<'_>) -> Option<Granted> {
    view.state.granted.filter(|granted| view.at.since(granted.asked) < granted.ttl / 3)
}
