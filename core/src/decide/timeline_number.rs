//! The number of the next timeline. PostgreSQL counts on from what its directory knows of, so that two nodes that do not
//! know of each other's promotions would give one number to two timelines; where they begin at one position too, nothing
//! tells them apart. So whoever takes the leader key reserves a number in the record of its tenure, beyond all that are
//! reserved or known, and promotes onto it. Patroni's nodes reserve none: of theirs counts what has become known.

use crate::action::{Action, StoreAction};
use crate::id::{Lsn, Timeline};
use crate::lease::Held;
use crate::state::State;
use crate::time::Instant;
use crate::view::View;

/// Numbers that may be left out at one promotion: each costs a file. A record that was damaged must not cost millions.
const LEFT_OUT_MAX: u32 = 256;

/// What to reserve with the leader key: the next number, unless PostgreSQL goes on along the timeline that it is on.
pub(super) fn to_reserve(view: &View<'_>) -> Timeline {
    let goes_on = view.is_primary() || view.unfinished_bootstrap();
    if goes_on { newest_known(view) } else { newest_known(view).next() }
}

/// The number that this tenure has reserved, if it is `least` at least.
pub(super) fn reserved(view: &View<'_>, held: &Held, least: Timeline) -> Option<Timeline> {
    let record = view.cluster()?.epoch.as_ref().filter(|record| record.epoch == held.epoch)?;
    Some(record.newest_timeline).filter(|newest| *newest >= least)
}

/// The order to reserve the next number, `least` at least, under a tenure that has not; and the number.
pub(super) fn reserve(view: &View<'_>, held: &Held, least: Timeline) -> (Timeline, Action) {
    let newest_timeline = newest_known(view).max(least);
    (newest_timeline, write_record(view, held, newest_timeline))
}

/// The order to tell whether this tenure is served under a guard.
pub(super) fn tell_guarded(view: &View<'_>, held: &Held) -> Action {
    let told = reserved(view, held, Timeline(0));
    write_record(view, held, told.unwrap_or_else(|| newest_known(view)))
}

fn write_record(view: &View<'_>, held: &Held, newest_timeline: Timeline) -> Action {
    let record = view.cluster().and_then(|cluster| cluster.epoch.as_ref());
    let position = view.position();
    let now = || position.as_ref().map_or((Timeline(0), Lsn(0)), |p| (p.history.timeline, p.flushed));
    let began = record.filter(|record| record.epoch == held.epoch).map(|record| (record.timeline, record.position));
    let (timeline, position) = began.unwrap_or_else(now);
    let (epoch, record) = (held.epoch, record.map(|record| record.revision).unwrap_or_default());
    let (unguarded, config) = (view.paused(), view.config_revision());
    Action::Store(StoreAction::Reserve { epoch, record, timeline, position, newest_timeline, unguarded, config })
}

/// Keeps in mind the greatest number that a member told that it is on.
///
/// The race: what was promoted by hand is killed, and by that its record tells of no timeline any more.
pub(crate) fn remember(state: &mut State, at: Instant) {
    let view = View { at, state };
    let members = view.cluster().into_iter().flat_map(|cluster| cluster.members.values());
    // Of a damaged record as many are left out as may be at most: not once more each time.
    let most = view.own_timeline().0.saturating_add(LEFT_OUT_MAX);
    let told = members.map(|member| member.record.timeline).filter(|told| told.0 <= most);
    state.memory.newest_told = told.fold(state.memory.newest_told, Timeline::max);
}

/// The greatest number that anything tells of: our directory, reservations, the history, what members are on or were, and answer.
fn newest_known(view: &View<'_>) -> Timeline {
    let ours = view.dir().map(|dir| dir.newest_timeline.max(dir.history.timeline)).unwrap_or_default();
    let ours = view.sql().map_or(ours, |sql| ours.max(sql.timeline));
    let Some(cluster) = view.cluster() else { return ours };
    let record = cluster.epoch.iter().filter(|record| record.store == cluster.store);
    let told = record.map(|record| record.newest_timeline.max(record.timeline));
    // A line tells of a timeline that has ended: another has begun there.
    let ended = view.told_history(cluster).iter().map(|line| line.timeline.next());
    let members = cluster.members.values().map(|member| member.record.timeline);
    // One that was promoted by hand has reserved nothing, and is stopped before it could publish it.
    let answers = view.state.peers.answers.values().map(|seen| seen.value.history.timeline);
    let before = view.state.memory.newest_told;
    let newest = told.chain(ended).chain(members).chain(answers).fold(ours.max(before), Timeline::max);
    newest.min(Timeline(ours.0.saturating_add(LEFT_OUT_MAX)))
}
