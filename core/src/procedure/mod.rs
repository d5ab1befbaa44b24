//! What operators and peers ask for and wait for. Each stage is derived from facts; only the waiting itself is state.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::action::{Action, Answer, HostAction, PostgresAction, StoreAction};
use crate::event::Request;
use crate::id::RequestId;
use crate::lease::Tenure;
use crate::reason::Reason;
use crate::state::{Pending, PendingKind, Pledge, PositionAsked, REQUESTS_MAX, State};
use crate::step::Outbox;
use crate::time::{Duration, Instant};
use crate::view::View;

pub(crate) mod restart;
mod switchover;

/// How long a peer waits for our pledge.
const POSITION_PATIENCE: Duration = Duration::from_millis(500);

/// Takes a request in. What can be refused at once is refused by [`answer`] in the same step.
pub(crate) fn begin(state: &mut State, at: Instant, id: RequestId, request: Request) {
    assert!(state.requests.len() < REQUESTS_MAX, "the runtime admits no more");
    let leader = state.store.cluster.as_ref().and_then(|seen| seen.value.leader.as_ref());
    let old = leader.map(|leader| leader.member.clone());
    let epoch = leader.map(|leader| leader.created).unwrap_or_default();
    let kind = match request {
        Request::Move(request) => PendingKind::Move { request, old, epoch, written: None },
        Request::Restart => PendingKind::Restart { op: None },
        Request::ScheduleRestart(wanted) => restart::schedule(state, wanted),
        Request::CancelRestart => restart::cancel(state),
        Request::Reinitialize { force, from_leader } => reinitialize(state, at, force, from_leader),
    };
    state.requests.insert(id, Pending { kind, since: at });
}

/// The operator's key is written, or certainly not. Only the request that it was written for is told: of two that wait
/// at once, the other has not been written.
pub(crate) fn failover_written(state: &mut State, at: Instant, action: &StoreAction, done: bool) {
    let StoreAction::PutFailover { leader, candidate, scheduled_at, .. } = action else { return };
    for pending in state.requests.values_mut() {
        if let PendingKind::Move { written, request, .. } = &mut pending.kind
            && (&request.leader, &request.candidate, &request.scheduled_at) == (leader, candidate, scheduled_at)
        {
            *written = written.or(done.then_some(at));
            request.refused |= !done;
        }
    }
}

/// What the requests under way want done now.
pub(crate) fn orders(view: &View<'_>) -> Vec<(Action, Reason)> {
    let mut orders = Vec::new();
    for pending in view.state.requests.values() {
        if let PendingKind::Move { request, epoch, written: None, .. } = &pending.kind {
            orders.extend(switchover::orders(view, request, *epoch, pending.since));
        }
    }
    let asked = if view.state.position_asked.is_empty() { None } else { pledge(view) };
    // A receiver that was stopped for it stays stopped whether or not anybody waits for the answer, and says so on disk.
    let unwritten = || view.state.pledge.filter(|pledge| pledge.frozen && !pledge.on_disk).map(written);
    orders.extend(asked.or_else(unwritten));
    orders
}

fn written(pledge: Pledge) -> (Action, Reason) {
    (Action::Host(HostAction::WritePledge(Some(pledge.absent_at))), Reason::FreezingReceiver)
}

/// A peer asked for our position because the leader key is gone. If we see the same, we stop receiving, put the pledge
/// on disk, and only then answer: from there on nothing that the old leader writes can count on us.
fn pledge(view: &View<'_>) -> Option<(Action, Reason)> {
    if !may_pledge(view) {
        return None;
    }
    match view.state.pledge {
        Some(_) if view.has_pledged() => None,
        Some(pledge) if pledge.frozen => Some(written(pledge)),
        // Without a receiver there is nothing to freeze, mostly since the primary that it came from shut down.
        _ if !view.may_receive() => None,
        _ => Some((Action::Postgres(PostgresAction::Freeze), Reason::FreezingReceiver)),
    }
}

fn may_pledge(view: &View<'_>) -> bool {
    view.cluster().is_some_and(|cluster| cluster.leader.is_none())
        && view.sql().is_some_and(|sql| sql.in_recovery)
        && view.config().unsupported.is_none()
        // Nobody is to be promoted beside what it streams from.
        && view.unmanaged_upstream().is_none()
        // While the cluster is paused nobody races but the operator's candidate.
        && (!view.paused() || view.due_failover().is_some())
}

/// Answers what can be answered.
pub(crate) fn answer(out: &mut Outbox<'_>) {
    let ids: Vec<RequestId> = out.state.requests.keys().copied().collect();
    for id in ids {
        let Some(pending) = out.state.requests.get(&id).filter(|_| out.has_room()).cloned() else { continue };
        let view = out.view();
        let answer = match &pending.kind {
            PendingKind::Move { request, old, written, .. } => {
                switchover::answer(&view, request, old.as_ref(), *written, pending.since)
            }
            PendingKind::Restart { op } => restart::answer(&view, *op, pending.since),
            PendingKind::Decided { status, body } => text(*status, body),
            PendingKind::Restarted { refused: None } => text(200, "restarted successfully"),
            PendingKind::Restarted { refused: Some(_) } => text(503, "restart failed"),
        };
        let Some(answer) = answer else { continue };
        out.state.requests.remove(&id);
        out.order(Action::Answer(id, answer), Reason::AtGoal);
    }
    answer_peers(out);
}

pub(crate) fn text(status: u16, body: &str) -> Option<Answer> {
    Some(Answer::Text { status, body: body.into() })
}

/// Remembers the wish for a new clone, unless it is refused. The decision of this very step acts on it.
fn reinitialize(state: &mut State, at: Instant, force: bool, from_leader: bool) -> PendingKind {
    if let Some(body) = why_no_reinit(&View { at, state }, force) {
        return PendingKind::Decided { status: 503, body };
    }
    state.memory.reinit = true;
    state.memory.reinit_from_leader = from_leader;
    PendingKind::Decided { status: 200, body: "reinitialize started".into() }
}

fn why_no_reinit(view: &View<'_>, force: bool) -> Option<String> {
    // It would be done when the mode is left, however long that takes.
    if let Some(mode) = &view.config().unsupported {
        return Some(format!("{}", Reason::UnsupportedMode { mode: mode.clone() }));
    }
    // Nor while it is not settled whether the key in our name is ours.
    let mine = matches!(view.state.tenure, Tenure::Adopting { .. })
        && view.leader().is_some_and(|leader| leader.member == view.config().me);
    if view.held().is_some() || mine {
        return Some("I am the leader, can not reinitialize".into());
    }
    if view.leader().is_none() {
        return Some("Cluster has no leader, can not reinitialize".into());
    }
    // The race: this node has vouched for holding everything, and the key is on its way to it; nobody else may hold that.
    if crate::decide::tenure::handover_expected(view) {
        return Some("leadership is being handed over to this node, can not reinitialize".into());
    }
    if view.state.memory.reinit && !force {
        return Some("reinitialize already in progress".into());
    }
    let running = view.controlling().filter(|_| !force)?;
    Some(format!("{} already in progress", words(running)))
}

/// Patroni's names for what runs.
fn words(action: &PostgresAction) -> &'static str {
    match action {
        PostgresAction::Initdb => "bootstrap",
        PostgresAction::CreateRoles => "post_bootstrap",
        PostgresAction::Clone(_) | PostgresAction::Restore => "reinitialize",
        PostgresAction::Restart => "restart",
        PostgresAction::Promote { .. } => "promote",
        PostgresAction::Rewind(_) => "running pg_rewind",
        PostgresAction::RecoverSingleUser => "doing crash recovery in a single user mode",
        PostgresAction::Start(_) => "starting",
        PostgresAction::Stop(_) => "stopping",
        PostgresAction::Checkpoint => "checkpoint",
        PostgresAction::Observe
        | PostgresAction::Look
        | PostgresAction::Follow(_)
        | PostgresAction::Freeze
        | PostgresAction::Compare(_)
        | PostgresAction::Configure { .. }
        | PostgresAction::CreateSlot(_)
        | PostgresAction::DropSlot(_)
        | PostgresAction::AdvanceSlot { .. } => "changing configuration",
    }
}

fn answer_peers(out: &mut Outbox<'_>) {
    while out.has_room()
        && let Some(next) = out.state.position_asked.iter().position(|asked| answerable(&out.view(), asked))
    {
        let asked = out.state.position_asked.swap_remove(next);
        let answer = Answer::Position(out.view().own_answer());
        out.order(Action::Answer(asked.request, answer), Reason::AtGoal);
    }
}

/// An answer without a pledge does not count. So this node first looks at what the asker saw, stops its receiver and
/// puts that on disk; who asked has given up by the end of [`POSITION_PATIENCE`], and is told how things are.
fn answerable(view: &View<'_>, asked: &PositionAsked) -> bool {
    // One that has not been asked yet may be a standby that receives. Who holds the key stands by for nobody.
    let standby = !view.may_lead() && !view.dead() && view.sql().is_none_or(|sql| sql.in_recovery);
    let observes = view.config().unsupported.is_some() || (view.paused() && view.due_failover().is_none());
    if !standby || observes || view.at >= asked.since + POSITION_PATIENCE {
        return true;
    }
    let Some(seen) = &view.state.store.cluster else { return false };
    if seen.value.revision < asked.absent_at {
        // A read (a watch asks nothing) that was begun since has not found what the asker saw: there is no such thing.
        return asked.since <= seen.asked && seen.asked < seen.heard;
    }
    if view.leader().is_some() {
        return true;
    }
    // What PostgreSQL told before the receiver stopped is less than what it holds: whoever counts on it would win with
    // less than this node has.
    (view.has_pledged() || !view.may_receive()) && view.fresh_sql().is_some()
}

/// When waiting requests change by time alone.
pub(crate) fn timers(view: &View<'_>, mut offer: impl FnMut(Instant)) {
    for asked in &view.state.position_asked {
        offer(asked.since + POSITION_PATIENCE);
    }
    for pending in view.state.requests.values() {
        match pending.kind {
            PendingKind::Move { written: Some(at), .. } => offer(at + switchover::WATCH_LAG),
            PendingKind::Move { written: None, .. } => offer(pending.since + switchover::STATUS_PATIENCE),
            PendingKind::Decided { .. } | PendingKind::Restarted { .. } => {}
            PendingKind::Restart { .. } => offer(restart::taken_up_by(view, pending.since)),
        }
        offer(pending.since + switchover::limit(view.config().loop_wait));
    }
}
