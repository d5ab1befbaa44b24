//! What is seen of PostgreSQL, and what operations on it left behind.

use super::{failed, recount_orphans};
use crate::action::{Action, PostgresAction};
use crate::config::LIFE_MIN;
use crate::event::{PostgresDone, PostgresEvent};
use crate::id::{Lsn, Pid};
use crate::op::{Outcome, Refusal};
use crate::state::{InFlight, Pledge, State};
use crate::time::{Instant, Seen};
use crate::view::View;
use crate::view::postgres::{Cluster, DataDir, Phase, Process, StartAs};

pub(super) fn postgres(state: &mut State, at: Instant, event: PostgresEvent) {
    match event {
        PostgresEvent::ProcessSeen(process) => process_seen(state, at, process),
        // The race: no descriptor is free, or the disk fails once, and a server runs on what cannot be looked at: it answers,
        // and nothing is to be started or copied there. Once that server is gone the directory is looked at again.
        PostgresEvent::DataSeen(DataDir::Unreadable(_)) if runs_on_a_cluster(state) => {
            state.memory.data_in_doubt = Some(at);
        }
        PostgresEvent::DataSeen(data) => {
            state.memory.data_in_doubt = None;
            if state.postgres.data != data {
                // What the server told before it became this may not be true any more.
                if !is_the_same_but_further(&state.postgres.data, &data) {
                    state.memory.changed = at;
                }
                // What was compared as a standby says nothing of what has been a primary since, by whose hand ever.
                if is_standby(&state.postgres.data) && !is_standby(&data) {
                    state.memory.compared = None;
                }
                state.postgres.data = data;
                state.memory.owned |= is_ours(state);
            }
        }
        PostgresEvent::Answered { op, sql } => {
            let in_flight = state.ops.end(op);
            match sql {
                Some(seen) => answered(state, seen),
                None => {
                    if let Some(in_flight) = in_flight {
                        failed(state, at, &in_flight.action);
                    }
                }
            }
        }
        PostgresEvent::Completed { op, outcome } => {
            let Some(in_flight) = state.ops.end(op) else { return };
            state.memory.changed = at;
            control_ended(state, at, &in_flight, outcome);
        }
    }
}

fn pid(process: Process) -> Option<Pid> {
    match process {
        Process::Alive { pid, .. } => Some(pid),
        Process::Absent | Process::Unknown => None,
    }
}

fn runs_on_a_cluster(state: &State) -> bool {
    let runs = matches!(state.postgres.process, Process::Alive { .. });
    runs && matches!(state.postgres.data, DataDir::Cluster(_))
}

/// Only positions have changed, as they do with every file that a standby replays: what its server has told stays true.
fn is_the_same_but_further(before: &DataDir, after: &DataDir) -> bool {
    let (DataDir::Cluster(before), DataDir::Cluster(after)) = (before, after) else { return false };
    let moved = Cluster { checkpoint: after.checkpoint, min_recovery: after.min_recovery, ..before.clone() };
    moved == *after
}

fn is_standby(data: &DataDir) -> bool {
    matches!(data, DataDir::Cluster(dir) if dir.standby_signal)
}

/// The data directory is a part of this cluster.
fn is_ours(state: &State) -> bool {
    let DataDir::Cluster(dir) = &state.postgres.data else { return false };
    state.store.cluster.as_ref().and_then(|seen| seen.value.system_id()) == Some(dir.system_id)
}

pub(super) fn process_seen(state: &mut State, at: Instant, process: Process) {
    let before = state.postgres.process;
    if before == process {
        return;
    }
    state.memory.changed = at;
    state.postgres.process = process;
    // The race: the same look that could not read the directory tells that the server on it is gone, or another is there.
    if pid(before) != pid(process) && state.memory.data_in_doubt.take().is_some() {
        state.postgres.data = DataDir::Unknown;
    }
    state.memory.ending &= pid(before) == pid(process);
    match process {
        Process::Absent => {
            state.postgres.sql = None;
            // The children of a dead postmaster are not counted by looking at the postmaster.
            state.postgres.orphans = None;
            state.memory.dead_since = Some(at);
            // One that lived for a while was no failed start, whatever ended it.
            let ready_since = state.memory.ready_since.take();
            state.memory.came_up = ready_since.is_some();
            if ready_since.is_some_and(|since| at.since(since) >= LIFE_MIN) {
                state.memory.start_failures = 0;
            }
            state.memory.starting_since = None;
            (state.memory.promotion, state.memory.promotion_in_doubt) = (false, false);
            state.memory.promotion_inherited = false;
            state.memory.as_standby = false;
            state.memory.needs_restart = false;
        }
        Process::Alive { pid, phase } => {
            let same = matches!(before, Process::Alive { pid: old, .. } if old == pid);
            if !same {
                state.postgres.sql = None;
                // What is held is what lived then: nobody has stopped a newborn.
                state.guard.hold_in_doubt |= state.guard.held;
                (state.memory.promotion, state.memory.promotion_in_doubt) = (false, false);
                // The first that this agent sees may be the one that the last agent had promoted.
                state.memory.promotion_inherited &= before == Process::Unknown;
                state.memory.needs_restart = false;
            }
            state.postgres.orphans = None;
            state.memory.dead_since = None;
            state.memory.starting_since = match phase {
                Phase::Starting => state.memory.starting_since.filter(|_| same).or(Some(at)),
                Phase::Ready | Phase::Stopping => None,
            };
            if phase == Phase::Ready {
                state.memory.recovery_failed = None;
                state.memory.ready_since.get_or_insert(at);
            }
        }
        Process::Unknown => {}
    }
}

fn answered(state: &mut State, seen: Seen<crate::view::postgres::Sql>) {
    if state.postgres.sql.as_ref().is_some_and(|known| known.asked > seen.asked)
        || state.postgres.process == Process::Absent
    {
        return;
    }
    if seen.value.receiver.as_ref().is_some_and(|receiver| receiver.streaming) {
        state.memory.streamed = seen.asked;
        // Before it was turned to this leader it may have streamed from the last one.
        let leader = state.store.cluster.as_ref().and_then(|seen| seen.value.leader.as_ref());
        if let Some(leader) = leader.filter(|_| seen.asked >= state.memory.turned) {
            state.memory.streamed_from = Some(leader.member.clone());
        }
    }
    if !seen.value.in_recovery {
        state.memory.streamed_from = None;
        state.memory.promotion_inherited = false;
    }
    // A promotion first replays what was received, and that may take its time.
    let before = state.postgres.sql.as_ref().map_or(Lsn(0), |known| known.value.replayed);
    if seen.value.replayed > before {
        state.memory.promoting_since = state.memory.promoting_since.map(|since| since.max(seen.asked));
    }
    // A receiver that is there again is not frozen, whatever was confirmed before.
    if seen.value.receiver.is_some()
        && let Some(pledge) = state.pledge.as_mut()
    {
        pledge.frozen = false;
    }
    let asked = seen.asked;
    state.postgres.sql = Some(seen);
    if (View { at: asked, state }).unmanaged_upstream().is_some() {
        state.memory.streamed_unmanaged = Some(asked);
    }
}

fn control_ended(state: &mut State, at: Instant, in_flight: &InFlight, outcome: Outcome<PostgresDone>) {
    let Action::Postgres(action) = &in_flight.action else { return };
    let (op, refused) = (
        in_flight.op,
        match &outcome {
            Outcome::Done(_) => None,
            Outcome::Refused(Refusal::Failed(why) | Refusal::Vetoed(why)) | Outcome::Unknown(why) => Some(why.clone()),
            Outcome::Refused(_) => Some("refused".into()),
        },
    );
    if refused.is_some() {
        failed(state, at, &in_flight.action);
    }
    // A start that came too late for its tenure says nothing about whether PostgreSQL can start.
    let too_late = matches!(outcome, Outcome::Refused(Refusal::NotOurTenure));
    if matches!(action, PostgresAction::Start(_)) && !too_late {
        state.memory.start_failures = state.memory.start_failures.saturating_add(1);
        state.memory.came_up &= refused.is_none();
    }
    if matches!(action, PostgresAction::Start(_) | PostgresAction::Restart) {
        recount_orphans(state);
    }
    // A change of the upstream takes the place of a start: the directory was looked at since.
    if matches!(action, PostgresAction::Start(_) | PostgresAction::Restart | PostgresAction::Follow(_)) {
        state.memory.as_standby = false;
    }
    if matches!(action, PostgresAction::Start(_) | PostgresAction::Follow(_)) {
        // Where it was pointed to before, it may not be any more.
        state.memory.followed = None;
    }
    match (action, outcome) {
        (PostgresAction::Start(StartAs::Standby(upstream)) | PostgresAction::Follow(upstream), Outcome::Done(done)) => {
            state.memory.needs_restart |= done == PostgresDone::NeedsRestart;
            state.memory.followed.clone_from(upstream);
            state.memory.streamed = at;
            state.memory.turned = at;
        }
        (PostgresAction::Checkpoint, outcome) => {
            state.memory.checkpointed = Some(at);
            if matches!(outcome, Outcome::Done(_)) {
                state.memory.checkpoint_written = Some(at);
            }
        }
        (
            PostgresAction::CreateSlot(_) | PostgresAction::DropSlot(_) | PostgresAction::AdvanceSlot { .. },
            Outcome::Done(_),
        ) => state.memory.slot_changed = Some((at, action.clone())),
        (PostgresAction::Initdb, outcome) => state.memory.initdb_failed = !matches!(outcome, Outcome::Done(_)),
        // A look that saw nothing is repeated, but not as fast as it sees nothing.
        (PostgresAction::Look, Outcome::Done(_))
            if state.postgres.process == Process::Unknown || state.postgres.data == DataDir::Unknown =>
        {
            failed(state, at, &in_flight.action);
        }
        (PostgresAction::Promote { .. }, Outcome::Unknown(_)) => state.memory.promotion_in_doubt = true,
        (PostgresAction::Promote { .. }, Outcome::Refused(refusal)) => {
            state.memory.promotion = state.memory.promotion_in_doubt;
            state.memory.promotions_refused += u32::from(!too_late);
            if matches!(refusal, Refusal::Vetoed(_)) {
                state.memory.vetoed = Some(at);
            }
        }
        (PostgresAction::CreateRoles, Outcome::Done(_)) => state.memory.roles_created = true,
        (PostgresAction::Clone(_) | PostgresAction::Restore, Outcome::Done(_)) => {
            state.memory.reinit = false;
            state.memory.rewind_failed = None;
            state.memory.recovery_failed = None;
            state.memory.compared = None;
        }
        (PostgresAction::Compare(_), Outcome::Done(PostgresDone::Compared(diverged_at))) => {
            state.memory.compared = in_flight.leader.map(|epoch| (epoch, diverged_at));
            state.memory.compared_at = Some(at);
        }
        (PostgresAction::Rewind(_), Outcome::Done(_)) => {
            state.memory.compared = in_flight.leader.map(|epoch| (epoch, None));
        }
        (PostgresAction::Rewind(_), _) => state.memory.rewind_failed = in_flight.leader.zip(refused.clone()),
        (PostgresAction::RecoverSingleUser, _) => state.memory.recovery_failed = refused.map(|why| (at, why)),
        (PostgresAction::Freeze, Outcome::Done(_)) => {
            // The race: a leader was seen while the receiver was stopped. It is followed next, and that ends no pledge.
            if let Some((absent_at, _)) = state.memory.race {
                let before = state.pledge.filter(|pledge| pledge.absent_at == absent_at);
                let new = Pledge { absent_at, since: at, frozen: true, on_disk: false };
                state.pledge = Some(before.map_or(new, |pledge| Pledge { frozen: true, ..pledge }));
            }
            state.memory.followed = None;
        }
        (PostgresAction::Configure { .. }, Outcome::Done(PostgresDone::Configured { generation, .. })) => {
            state.memory.configured = generation;
        }
        (PostgresAction::Restart, outcome) => {
            state.memory.needs_restart &= !matches!(outcome, Outcome::Done(_));
            crate::procedure::restart::ended(state, op, refused);
        }
        _ => {}
    }
}
