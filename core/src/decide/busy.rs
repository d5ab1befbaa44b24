//! Rung 6: something long is under way and ends by itself.

use super::{Verdict, ms};
use crate::action::{Lane, PostgresAction};
use crate::reason::Reason;
use crate::view::View;

pub(super) fn decide(view: &View<'_>) -> Option<Verdict> {
    let since = view.state.ops.in_lane(&Lane::PgControl)?.since;
    let since_ms = ms(view.at.since(since));
    let reason = match view.controlling()? {
        // It may take hours, nothing is lost but them, and whoever asked the agent to stop waits.
        PostgresAction::Clone(_) | PostgresAction::Restore if view.state.leaving => return None,
        PostgresAction::Initdb => Reason::InitdbRunning { since_ms },
        PostgresAction::Clone(_) | PostgresAction::Restore => Reason::CloneRunning { since_ms },
        PostgresAction::Rewind(_) => Reason::RewindRunning { since_ms },
        PostgresAction::RecoverSingleUser => Reason::SingleUserRunning { since_ms },
        PostgresAction::Observe
        | PostgresAction::Look
        | PostgresAction::CreateRoles
        | PostgresAction::Start(_)
        | PostgresAction::Stop(_)
        | PostgresAction::Restart
        | PostgresAction::Promote { .. }
        | PostgresAction::Follow(_)
        | PostgresAction::Freeze
        | PostgresAction::Checkpoint
        | PostgresAction::Compare(_)
        | PostgresAction::Configure { .. }
        | PostgresAction::CreateSlot(_)
        | PostgresAction::DropSlot(_)
        | PostgresAction::AdvanceSlot { .. } => return None,
    };
    Some(Verdict::wait(reason))
}
