//! What other agents say and ask.

use super::failed;
use crate::action::{Action, PeerAction};
use crate::event::PeerEvent;
use crate::id::{Member, Revision};
use crate::lease::Held;
use crate::op::Outcome;
use crate::state::{PositionAsked, REQUESTS_MAX, State};
use crate::time::{Instant, Seen};
use crate::view::View;
use crate::view::peers::PeerAnswer;

/// It leads, or sees that our key has gone, or is on a timeline that began after ours: nobody that this node may go on for. What
/// it saw before our tenure began says nothing.
///
/// The race: this node held its writes, alone, another is being elected meanwhile, and that one, or who knows of it, is the first
/// to answer.
fn tells_of_another(state: &State, at: Instant, answer: &PeerAnswer) -> bool {
    let view = View { at, state };
    let sees = |held: &Held| answer.keys_at >= held.epoch && answer.leader_epoch != held.epoch;
    answer.primary || view.held().is_some_and(sees) || answer.history.timeline > view.own_timeline()
}

pub(super) fn peer(state: &mut State, at: Instant, event: PeerEvent) {
    match event {
        PeerEvent::Answered { op, member, outcome, asked } => {
            let in_flight = state.ops.end(op);
            match outcome {
                Outcome::Done(answer) => {
                    // One that answers "not yet" instead of waiting, or is there and cannot take over, is not asked again
                    // as fast as it answers.
                    if let Some(in_flight) = in_flight
                        && matches!(in_flight.action, Action::Peer(PeerAction::AwaitReplay { .. }))
                    {
                        failed(state, at, &in_flight.action);
                    }
                    if !tells_of_another(state, at, &answer) {
                        state.peers.answered = state.peers.answered.max(asked);
                    }
                    state.peers.unreachable.remove(&member);
                    let older = state.peers.answers.get(&member).is_some_and(|known| known.asked > asked);
                    if !older {
                        state.peers.answers.insert(member, Seen::new(answer, asked, at));
                    }
                }
                Outcome::Refused(_) | Outcome::Unknown(_) => {
                    if let Some(in_flight) = in_flight {
                        failed(state, at, &in_flight.action);
                        state.peers.unreachable.insert(member, in_flight.since);
                    }
                }
            }
            keep_members_only(state);
        }
        PeerEvent::PositionAsked { request, absent_at } => {
            assert!(state.position_asked.len() < REQUESTS_MAX, "the runtime admits no more");
            state.position_asked.push(PositionAsked { request, absent_at, since: at });
            // It knows of something that this node has not heard, perhaps because a watch is silent.
            let known = state.store.cluster.as_ref().map_or(Revision(0), |seen| seen.value.revision);
            if known < absent_at {
                state.memory.store_doubt = Some(at);
            }
        }
        PeerEvent::HandoverAnnounced => state.memory.handover_announced = Some(at),
    }
}

/// Answers of members that are gone are forgotten: nothing grows without bound. Not that one of them is a running
/// primary without its key: a holder that is cut off from the store loses its member record as well, before its tenure.
/// Nor what came of asking the last holder, or whose record is lost: it would be asked again as fast as it answers.
fn keep_members_only(state: &mut State) {
    let Some(cluster) = &state.store.cluster else { return };
    let vanished = state.store.vanished.as_ref().map(|vanished| &vanished.who);
    let lost = &state.memory.lost_records;
    let concerns =
        |name: &Member| cluster.value.members.contains_key(name) || lost.contains_key(name) || vanished == Some(name);
    let leaderless = state.memory.leaderless;
    state.peers.answers.retain(|name, seen| {
        concerns(name) || (seen.value.primary && leaderless.is_some_and(|began| seen.asked >= began.since))
    });
    state.peers.unreachable.retain(|name, _| concerns(name));
}
