//! Rung 5: PostgreSQL starts or recovers. A leader waits for it, for a while; a standby goes on to the rungs below,
//! which may point it elsewhere.

use super::{Fate, Verdict, ms, successor};
use crate::action::{Action, PostgresAction};
use crate::config::ASKED_START_LIMIT;
use crate::reason::Reason;
use crate::view::View;
use crate::view::postgres::{ControlState, Phase, StopMode};
use crate::view::store::FailoverKey;

pub(super) fn decide(view: &View<'_>) -> Option<Verdict> {
    let starting = view.phase() == Some(Phase::Starting);
    if !starting || view.held().is_none() {
        return None;
    }
    let since = view.state.memory.starting_since.unwrap_or(view.at);
    // A limit of none is for a crash, and what an operator has stopped cleanly recovers from none.
    let crashed = view.dir().is_some_and(|dir| dir.state == ControlState::InCrashRecovery);
    let configured = view.config().primary_start_timeout;
    let asked_for = configured.is_zero() && view.state.memory.requested && !crashed;
    let limit = if asked_for { ASKED_START_LIMIT } else { configured };
    let (since_ms, limit_ms) = (ms(view.at.since(since)), ms(limit));
    // In a pause nobody would take over.
    if view.at.since(since) < limit || view.paused() {
        return Some(Verdict::wait(Reason::CrashRecovery { since_ms, limit_ms }));
    }
    // What was concluded once is gone through with; what an operator asks for is not for this node to refuse; and for who tells
    // nothing it is not waited for ever.
    let failover = |request: &FailoverKey| request.leader.is_none() && request.candidate.is_some();
    let by_hand = view.state.leaving || view.due_failover().is_some_and(failover);
    let patient = view.at.since(since) < limit + view.config().ttl;
    let concluded = view.state.memory.giving_up || by_hand || (!patient && successor::is_silent(view));
    if !concluded && !successor::is_known(view) {
        let asks = successor::questions(view, view.electable_others());
        return Some(Verdict::orders(Reason::CrashRecovery { since_ms, limit_ms }, asks));
    }
    let stop = Action::Postgres(PostgresAction::Stop(StopMode::Immediate));
    Some(Verdict::order(Reason::RecoveryTooLong { since_ms, limit_ms }, stop).fate(Fate::Release))
}
