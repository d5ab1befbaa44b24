//! What the guard says.

use super::postgres::process_seen;
use crate::event::GuardEvent;
use crate::id::{LeaseId, Revision};
use crate::lease::Tenure;
use crate::state::State;
use crate::time::Instant;
use crate::view::guard::GuardFacts;
use crate::view::postgres::Process;

pub(super) fn guard(state: &mut State, at: Instant, event: GuardEvent) {
    match event {
        GuardEvent::Connected { armed, held, fired } => {
            // What an earlier guard held stays stopped: a new one knows nothing of it, but it can let it go on.
            let held = held || state.guard.held || state.guard_asked.hold;
            let hold_in_doubt = state.guard.hold_in_doubt || state.guard_asked.hold;
            let fired = fired.filter(|_| armed.is_none());
            state.guard =
                GuardFacts { present: true, since: at, armed, held, hold_in_doubt, fired, ..Default::default() };
            state.guard_asked = crate::state::GuardAsked::default();
            if state.tenure.held().is_some_and(|held| Some(held.lease) == fired) {
                state.spend_tenure();
            }
            // What the last agent promised bounds how long its PostgreSQL may go on.
            if let (Tenure::Adopting { deadline }, Some(armed)) = (&mut state.tenure, armed) {
                *deadline = armed.at;
                inherit_promotion(state);
            }
        }
        GuardEvent::Armed(armed) => state.guard.armed = Some(armed),
        GuardEvent::Refused(_) => {
            // Which order it was is not told: all that are open may be given again, after a pause.
            // The race: the guard refuses to be armed, and the leader key is gone a moment later. What it was not asked for
            // waits for nothing.
            if state.guard_asked.fire.is_some() {
                state.memory.failed.insert("fire".into(), at);
            }
            if state.guard_asked.hold {
                state.memory.failed.insert("hold".into(), at);
            }
            state.guard_asked = crate::state::GuardAsked::default();
            state.memory.failed.insert("guard".into(), at);
        }
        GuardEvent::Disarmed => {
            state.guard.armed = None;
            state.guard_asked.disarm = false;
            state.guard_asked.arm = None;
        }
        GuardEvent::Held => {
            (state.guard.held, state.guard.hold_in_doubt) = (true, false);
            state.guard_asked.hold = false;
        }
        GuardEvent::Resumed => {
            (state.guard.held, state.guard.hold_in_doubt) = (false, false);
            state.guard_asked.resume = false;
        }
        GuardEvent::Fired { tenure } => {
            state.guard.armed = None;
            (state.guard.held, state.guard.hold_in_doubt) = (false, false);
            state.guard.stuck = 0;
            state.guard_asked = crate::state::GuardAsked::default();
            if state.tenure.held().is_some_and(|held| held.lease == tenure)
                || matches!(state.tenure, Tenure::Suspended { .. })
            {
                state.spend_tenure();
            }
            if matches!(state.tenure, Tenure::Adopting { .. }) {
                (state.guard.fired, state.tenure) = (Some(tenure), Tenure::None);
            }
            process_seen(state, at, Process::Absent);
            state.postgres.orphans = Some(0);
        }
        // It stopped or killed what it could. Both are asked for again; what it holds is let go on like any other hold.
        GuardEvent::Stuck { processes } => {
            state.guard.stuck = processes;
            if core::mem::take(&mut state.guard_asked.hold) {
                (state.guard.held, state.guard.hold_in_doubt) = (true, true);
                state.memory.failed.insert("hold".into(), at);
            }
            state.guard_asked.orphans = false;
        }
        GuardEvent::OrphansDead => {
            state.guard_asked.orphans = false;
            if state.postgres.process == Process::Absent {
                state.postgres.orphans = Some(0);
            }
        }
        GuardEvent::Gone => {
            state.guard.present = false;
            // It may have stopped processes before it could say so.
            if state.guard_asked.hold {
                (state.guard.held, state.guard.hold_in_doubt) = (true, true);
            }
            // A guard that could not be started is gone as well: the time without one goes on.
            state.guard.gone = state.guard.gone.or(Some(at));
            state.guard.armed = None;
            let start = state.guard_asked.start;
            state.guard_asked = crate::state::GuardAsked { start, ..Default::default() };
        }
    }
}

/// What the agent before this one led may be in the middle of its promotion. Nothing is promoted before its epoch is on disk,
/// and an agent that starts is told of its guard before it is told of its files.
pub(super) fn inherit_promotion(state: &mut State) {
    let led = state.guard.armed.is_some_and(|armed| armed.tenure != LeaseId(0));
    let was_promoted = state.epoch_file.is_some_and(|file| file.epoch != Revision(0));
    state.memory.promotion_inherited |= matches!(state.tenure, Tenure::Adopting { .. }) && led && was_promoted;
}
