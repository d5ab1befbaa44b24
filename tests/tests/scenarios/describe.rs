//! Orders in words. What an agent does all the time is left out: what remains is the story.

use matriarch_core::action::{Action, Answer, GuardAction, HostAction, PeerAction, PostgresAction, StoreAction};
use matriarch_core::view::postgres::{StartAs, StopMode, Upstream};

/// An order in words; `None`: routine.
pub(crate) fn describe(action: &Action) -> Option<String> {
    Some(match action {
        Action::Store(action) => store(action)?,
        Action::Postgres(action) => postgres(action)?,
        Action::Host(HostAction::WriteEpoch(file)) => format!("write epoch {} to disk", file.epoch),
        Action::Host(HostAction::WritePledge(_)) => "write the pledge to disk".into(),
        Action::Host(HostAction::StartGuard) => "start a guard".into(),
        Action::Host(HostAction::Exit { code, message }) => format!("leave with code {code}: {message}"),
        Action::Guard(GuardAction::Arm { tenure, at }) => {
            format!("guard: stop PostgreSQL at {} (tenure {tenure})", time(at.0))
        }
        Action::Guard(GuardAction::Disarm) => "guard: disarm".into(),
        Action::Guard(GuardAction::Hold) => "guard: hold the writes".into(),
        Action::Guard(GuardAction::Resume) => "guard: let the writes go on".into(),
        Action::Guard(GuardAction::Fire) => "guard: kill PostgreSQL now".into(),
        Action::Guard(GuardAction::KillOrphans) => "guard: kill what the dead postmaster left behind".into(),
        Action::Peer(PeerAction::AskPosition { member, .. }) => format!("ask {member} for its position and its pledge"),
        Action::Peer(PeerAction::AskStatus { member, .. }) => format!("ask {member} how it is"),
        Action::Peer(PeerAction::AwaitReplay { member, beyond, .. }) => {
            format!("ask {member} to tell when it has replayed beyond {beyond}")
        }
        Action::Answer(_, Answer::Text { status, body }) => format!("answer {status}: {body}"),
        Action::Answer(_, Answer::Position(answer)) => {
            format!("answer: I am at {}, pledge {:?}", answer.flushed, answer.pledge)
        }
    })
}

fn store(action: &StoreAction) -> Option<String> {
    Some(match action {
        StoreAction::GrantTenure { .. } => "ask the store for a lease".into(),
        StoreAction::Acquire(acquire) => format!("create the leader key under lease {}", acquire.lease),
        StoreAction::TakeOver { lease, .. } => format!("put lease {lease} under the leader key"),
        StoreAction::Release { epoch, position, .. } => {
            format!("delete the leader key of epoch {epoch}, final position {position}")
        }
        StoreAction::Revoke { lease } => format!("revoke lease {lease}"),
        StoreAction::RaceInitialize { .. } => "ask for the right to initialise the cluster".into(),
        StoreAction::CompleteInitialize { system_id, .. } => format!("publish system identifier {system_id}"),
        StoreAction::AbandonInitialize { .. } => "give the right to initialise back".into(),
        StoreAction::PutHistory { lines, .. } => format!("publish {} lines of history", lines.len()),
        StoreAction::PutFailover { .. } => "write the operator's request".into(),
        StoreAction::ClearFailover { .. } => "clear the operator's request".into(),
        StoreAction::Read
        | StoreAction::Renew { .. }
        | StoreAction::GrantSession { .. }
        | StoreAction::KeepSession { .. }
        | StoreAction::PutMember { .. }
        | StoreAction::PutStatus { .. } => return None,
    })
}

fn postgres(action: &PostgresAction) -> Option<String> {
    let of = |upstream: &Option<Upstream>| upstream.as_ref().map_or("nobody".into(), |u| u.member.to_string());
    Some(match action {
        PostgresAction::Initdb => "initdb".into(),
        PostgresAction::CreateRoles => "create the roles of the new cluster".into(),
        PostgresAction::Clone(upstream) => format!("clone from {}", upstream.member),
        PostgresAction::Start(StartAs::Primary) => "start PostgreSQL as primary".into(),
        PostgresAction::Start(StartAs::Standby(upstream)) => format!("start PostgreSQL as standby of {}", of(upstream)),
        PostgresAction::Stop(StopMode::Fast) => "stop PostgreSQL".into(),
        PostgresAction::Stop(StopMode::Immediate) => "stop PostgreSQL the hard way".into(),
        PostgresAction::Restart => "restart PostgreSQL".into(),
        PostgresAction::Promote => "promote PostgreSQL".into(),
        PostgresAction::Follow(upstream) => format!("point the standby to {}", of(upstream)),
        PostgresAction::Freeze => "stop the WAL receiver for good".into(),
        PostgresAction::Checkpoint => "checkpoint".into(),
        PostgresAction::Compare(upstream) => format!("compare the history with {}'s", upstream.member),
        PostgresAction::RecoverSingleUser => "recover in single-user mode".into(),
        PostgresAction::Rewind(upstream) => format!("rewind to {}", upstream.member),
        PostgresAction::Observe
        | PostgresAction::Look
        | PostgresAction::Configure { .. }
        | PostgresAction::CreateSlot(_)
        | PostgresAction::DropSlot(_) => return None,
    })
}

/// The time of the script, in seconds.
pub(crate) fn time(nanos: u64) -> String {
    format!("{:.3}s", (nanos - crate::world::BEGIN.0) as f64 / 1e9)
}
