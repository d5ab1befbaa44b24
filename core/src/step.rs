//! `step = absorb -> decide -> reconcile -> arm`: the only entry.

use alloc::vec::Vec;

use crate::action::{Action, GuardAction, Lane, PeerAction, PostgresAction, StoreAction};
use crate::config::{FIRE_LIMIT, GUARD_LIMIT, HOLD_LIMIT, RACE_WINDOW, RETRY_PAUSE, STOP_LIMIT, VANISH_GRACE};
use crate::decide::{self, Fate, Verdict};
use crate::effects::{Decision, Effects, ORDERS_MAX, Order, Wake};
use crate::event::Event;
use crate::id::LeaseId;
use crate::lease::{Bounds, Tenure};
use crate::reason::Reason;
use crate::state::{InFlight, State};
use crate::time::{Duration, Instant};
use crate::view::View;
use crate::view::guard::Armed;
use crate::view::postgres::{StartAs, StopMode};
use crate::{absorb, procedure};

/// Takes one event in and says everything that is to be done about it. The same state, instant and event give the same
/// result. Hand out *all* effects before the next call.
///
/// # Panics
/// If an invariant of [`State::check`] is broken: going on would be worse than leaving the rest to the guard.
pub fn step(state: &mut State, at: Instant, event: Event) -> Effects {
    for op in state.ops.overdue(at) {
        absorb::overdue(state, at, op);
    }
    absorb::absorb(state, at, event);
    begin_next_round(state, at);
    if state.tenure.held().is_some() && state.memory.held_since.is_none() {
        // What the disk did under an earlier tenure says nothing of this one.
        state.memory.epoch_failing = None;
    }
    state.memory.held_since = state.tenure.held().map(|_| state.memory.held_since.unwrap_or(at));
    remember_service(state, at);
    decide::isolated::remember(state, at);
    decide::timeline_number::remember(state, at);
    decide::slots::remember(state, at);
    decide::pause::remember(state, at);
    end_pledge(state, at);
    procedure::restart::forget_void(state, at);
    let (rung, mut verdict) = decide::decide(&View { at, state });
    let unserving = matches!(verdict.reason, Reason::CannotServe { .. } | Reason::RecoveryTooLong { .. });
    let unguarded = matches!(verdict.reason, Reason::GuardSilent { .. } | Reason::GuardMissing { .. });
    if verdict.fate != Fate::Keep && (unserving || unguarded) {
        state.memory.gave_up = Some(at);
    }
    // What was stopped for it would otherwise be started again before the key is released.
    state.memory.giving_up |= verdict.fate == Fate::Release && unserving && state.tenure.held().is_some();
    if unserving {
        end_what_does_not_end(state, at, &mut verdict);
    } else {
        state.memory.unending_since = None;
    }
    let lapses = verdict.fate == Fate::LetLapse && state.tenure != Tenure::None;
    if lapses {
        state.spend_tenure();
    }
    let mut out = Outbox { state, at, orders: Vec::new(), cancelled: Vec::new() };
    reconcile(&mut out, &verdict);
    let Outbox { orders, cancelled, .. } = out;
    let mut wake = arm(&View { at, state }, &verdict);
    if orders.len() >= ORDERS_MAX {
        // Something may have found no room.
        wake =
            Wake { at: Some(at + Duration::from_millis(1)), because: Reason::DeadlineOf { what: "the rest".into() } };
    }
    if lapses {
        // Without a tenure other rungs conclude, and no event need come to ask them.
        let at = Some(at + Duration::from_micros(1));
        wake = Wake { at, because: Reason::DeadlineOf { what: "the tenure that is over".into() } };
    }
    let decision = Decision { rung, reason: verdict.reason };
    let news = state.decision.as_ref().is_none_or(|last| differs(last, &decision));
    state.decision = Some(decision.clone());
    state.check();
    Effects { orders, cancelled, wake, decision: news.then_some(decision) }
}

/// A tenure that is to be released once PostgreSQL is dead lapses where that does not die. What not even SIGKILL ends, since its
/// disk does not answer, acknowledges nothing, and would keep the key for as long as the store answers.
fn end_what_does_not_end(state: &mut State, at: Instant, verdict: &mut Verdict) {
    let view = View { at, state };
    let waits = verdict.fate == Fate::Release && view.held().is_some() && !decide::tenure::is_over(&view);
    state.memory.unending_since = waits.then(|| state.memory.unending_since.unwrap_or(at));
    if state.memory.unending_since.is_some_and(|since| at.since(since) >= STOP_LIMIT) {
        verdict.fate = Fate::LetLapse;
    }
}

/// How far this node is from serving under its tenure.
fn remember_service(state: &mut State, at: Instant) {
    let view = View { at, state };
    let (held, serves, drained, lingers) = (view.held().is_some(), view.is_primary(), view.drained(), view.lingers());
    let memory = &mut state.memory;
    // Who leads is what the others are cloned from.
    memory.reinit &= !held;
    memory.giving_up &= held;
    if !held || serves {
        (memory.promoting_since, memory.promotions_refused) = (None, 0);
    }
    memory.drained_since = drained.then(|| memory.drained_since.unwrap_or(at));
    memory.lingering_since = lingers.then(|| memory.lingering_since.unwrap_or(at));
}

/// Two decisions differ if another rung or another code concluded; numbers alone (what is left, what has passed) are
/// no news.
fn differs(last: &Decision, new: &Decision) -> bool {
    last.rung != new.rung || last.reason.code() != new.reason.code()
}

/// A race that came to no end is run again from the beginning, with new questions.
fn begin_next_round(state: &mut State, at: Instant) {
    let Some((revision, began)) = state.memory.race else { return };
    if at.since(began) < RETRY_PAUSE {
        return;
    }
    let revision = state.store.cluster.as_ref().map_or(revision, |seen| seen.value.revision);
    state.memory.race = Some((revision, at));
}

/// A pledge that no race brought to an end is over after a while, or a store that was restored from a backup, and
/// mints smaller revisions than the one pledged at, would keep this node from following anybody for ever.
fn end_pledge(state: &mut State, at: Instant) {
    let limit = 2 * state.config.retry_timeout;
    let led = state.store.cluster.as_ref().is_some_and(|seen| seen.value.leader.is_some());
    if led && state.pledge.is_some_and(|pledge| at.since(pledge.since) >= limit) {
        state.pledge = None;
    }
}

fn reconcile(out: &mut Outbox<'_>, verdict: &Verdict) {
    // Authority first: what keeps or ends the tenure waits for nothing else.
    for (action, because) in decide::tenure::orders(&out.view(), verdict) {
        out.order(action, because);
    }
    for action in verdict.orders.iter().cloned() {
        out.order(action, verdict.reason.clone());
    }
    for (action, because) in procedure::orders(&out.view()) {
        out.order(action, because);
    }
    procedure::answer(out);
    let observing = out.state.config.unsupported.is_some();
    if !observing || out.state.tenure.held().is_some() {
        let additive = [decide::members::order, decide::cluster_keys::order, decide::history::order];
        for reconciler in additive {
            if let Some((action, because)) = reconciler(&out.view()) {
                out.order(action, because);
            }
        }
    }
    if verdict.steady {
        for reconciler in [decide::params::order, decide::slots::order] {
            if let Some((action, because)) = reconciler(&out.view()) {
                out.order(action, because);
            }
        }
    }
    for (action, because) in decide::observe::orders(&out.view(), verdict.steady) {
        out.order(action, because);
    }
}

/// Orders of one step, less what is in flight.
pub(crate) struct Outbox<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) at: Instant,
    orders: Vec<Order>,
    cancelled: Vec<crate::id::OpId>,
}

impl Outbox<'_> {
    pub(crate) fn view(&self) -> View<'_> {
        View { at: self.at, state: self.state }
    }

    /// Orders an action, unless its lane is taken by something that it may not pre-empt, or it failed just now.
    pub(crate) fn order(&mut self, action: Action, because: Reason) {
        if self.orders.len() >= ORDERS_MAX || !self.wanted(&action) {
            return;
        }
        let op = self.state.ops.number();
        if let Some(lane) = action.lane() {
            if let Some(running) = self.state.ops.in_lane(&lane) {
                if !action.preempts(&running.action) {
                    return;
                }
                if let Some(cancelled) = self.state.ops.cancel(&lane) {
                    absorb::cancelled(self.state, &cancelled);
                    self.cancelled.push(cancelled.op);
                }
            }
            let deadline = self.at + action.deadline(self.state.config.retry_timeout);
            let leader = self.view().leader().map(|leader| leader.created);
            let known = self.view().cluster().map(|cluster| cluster.revision).unwrap_or_default();
            let in_flight = InFlight { op, action: action.clone(), since: self.at, deadline, leader, known };
            self.state.ops.begin(lane, in_flight);
        }
        // The next one waits as well, also where nothing comes of this one.
        if action == Action::Postgres(PostgresAction::Look) {
            self.state.memory.data_in_doubt = self.state.memory.data_in_doubt.map(|_| self.at);
        }
        if because == Reason::ContactDue {
            self.state.memory.contact_sought = self.at;
        }
        self.note_given_up(&action, &because);
        self.state.memory.requested |= stops_for_operator(&self.view(), &action, &because);
        match &action {
            Action::Postgres(PostgresAction::Restart) => procedure::restart::ordered(self.state, op),
            Action::Postgres(PostgresAction::Promote { .. }) => {
                self.state.memory.promotion = true;
                self.state.memory.promoting_since.get_or_insert(self.at);
            }
            Action::Postgres(PostgresAction::Start(how)) => {
                self.state.memory.as_standby = matches!(how, StartAs::Standby(_));
            }
            _ => {}
        }
        let under = under(&self.view(), &action);
        self.orders.push(Order { op, action, because, under });
    }

    /// A hand-over is given up whose stop sessions took no notice of: PostgreSQL is ended, and the operator not obeyed again.
    fn note_given_up(&mut self, action: &Action, because: &Reason) {
        let ends = *action == Action::Postgres(PostgresAction::Stop(StopMode::Immediate));
        if ends && matches!(because, Reason::StopIgnored { .. }) && decide::wanted_candidate(&self.view()).is_some() {
            self.state.memory.given_up = self.view().due_failover().map(|request| request.revision);
            self.state.memory.ending = true;
        }
    }

    /// There is room for another order: an answer that finds none would be lost.
    pub(crate) fn has_room(&self) -> bool {
        self.orders.len() < ORDERS_MAX
    }

    fn wanted(&mut self, action: &Action) -> bool {
        match action {
            Action::Guard(guard) => {
                resume_at(self.state, action).is_none_or(|resume| self.at >= resume) && self.guard_wanted(guard)
            }
            Action::Host(crate::action::HostAction::StartGuard) => {
                let due = self.state.guard_asked.start.is_none_or(|asked| self.at >= asked + RETRY_PAUSE);
                if due {
                    self.state.guard_asked.start = Some(self.at);
                }
                due
            }
            // Before the watch tells, the keys that asked for it would ask for it again.
            Action::Store(
                StoreAction::RaceInitialize { .. }
                | StoreAction::CompleteInitialize { .. }
                | StoreAction::Reserve { .. }
                | StoreAction::Vouch { .. }
                | StoreAction::PutHistory { .. }
                | StoreAction::PutFailover { .. }
                | StoreAction::ClearFailover { .. },
            ) if self.view().cluster().is_some_and(|cluster| cluster.revision <= self.state.memory.written) => false,
            _ => resume_at(self.state, action).is_none_or(|resume| self.at >= resume),
        }
    }

    /// Orders to the guard take no lane; each is sent once and waited for.
    fn guard_wanted(&mut self, action: &GuardAction) -> bool {
        if !self.state.guard.present {
            return false;
        }
        let (asked, facts) = (&mut self.state.guard_asked, &self.state.guard);
        let once = |flag: &mut bool| !core::mem::replace(flag, true);
        match action {
            GuardAction::Arm { tenure, at } => {
                let armed = Some(Armed { tenure: *tenure, at: *at });
                core::mem::replace(&mut asked.arm, armed) != armed
            }
            GuardAction::Hold => (!facts.held || facts.hold_in_doubt) && once(&mut asked.hold),
            GuardAction::Resume => once(&mut asked.resume),
            GuardAction::Fire => {
                let first = asked.fire.is_none();
                asked.fire = asked.fire.or(Some(self.at));
                first
            }
            GuardAction::Disarm => once(&mut asked.disarm),
            GuardAction::KillOrphans => once(&mut asked.orphans),
        }
    }
}

/// PostgreSQL goes down for an operator's request, which includes that it comes back.
fn stops_for_operator(view: &View<'_>, action: &Action, because: &Reason) -> bool {
    let stops = matches!(
        action,
        Action::Postgres(PostgresAction::Stop(_) | PostgresAction::Clone(_) | PostgresAction::Restart)
    );
    let asked = match because {
        Reason::StoppingForHandover => !view.state.leaving,
        Reason::RestartRequested | Reason::ReinitRequested => true,
        _ => false,
    };
    stops && asked
}

/// The promise of the guard that an order is given under, if it makes PostgreSQL writable.
fn under(view: &View<'_>, action: &Action) -> Option<Armed> {
    let writable = match action {
        Action::Postgres(PostgresAction::Start(StartAs::Primary) | PostgresAction::Promote { .. }) => true,
        // It comes up as what it is.
        Action::Postgres(PostgresAction::Restart) => view.may_write(),
        _ => false,
    };
    // No rung gives such an order without authority; if one did, an instant that is past would keep it from being
    // begun.
    writable.then(|| view.promise().unwrap_or(Armed { tenure: LeaseId(0), at: Instant::ZERO }))
}

/// When a kind of order that failed may be given again.
fn resume_at(state: &State, action: &Action) -> Option<Instant> {
    let failed = state.memory.failed.get(absorb::kind(action))?;
    Some(*failed + pause_after_failure(action))
}

/// What decides over leading is tried again soon; what changes PostgreSQL or the other keys, less often.
fn pause_after_failure(action: &Action) -> Duration {
    match action {
        Action::Store(
            StoreAction::Renew { .. }
            | StoreAction::GrantTenure { .. }
            | StoreAction::Acquire(_)
            | StoreAction::TakeOver { .. },
        ) => Duration::from_millis(50),
        Action::Store(_) => Duration::from_millis(200),
        Action::Postgres(PostgresAction::Observe | PostgresAction::Look | PostgresAction::Freeze) => {
            Duration::from_millis(50)
        }
        Action::Postgres(_) | Action::Host(_) => RETRY_PAUSE,
        // A guard that refuses is asked again, but not as fast as it refuses.
        Action::Guard(_) => Duration::from_millis(50),
        Action::Peer(PeerAction::AwaitReplay { .. }) => Duration::from_millis(20),
        Action::Peer(_) | Action::Answer(..) => Duration::ZERO,
    }
}

/// The earliest instant at which time alone changes something.
fn arm(view: &View<'_>, verdict: &Verdict) -> Wake {
    let mut soonest = Soonest { at: view.at, wake: Wake { at: None, because: Reason::AtGoal } };
    for (_, in_flight) in view.state.ops.iter() {
        soonest.offer(in_flight.deadline, "an operation in flight");
    }
    for failed in view.state.memory.failed.values() {
        soonest.offer(*failed + Duration::from_millis(20), "a pause after a failure");
        soonest.offer(*failed + Duration::from_millis(50), "a pause after a failure");
        soonest.offer(*failed + Duration::from_millis(200), "a pause after a failure");
        soonest.offer(*failed + RETRY_PAUSE, "a pause after a failure");
    }
    tenure_timers(view, &mut soonest);
    role_timers(view, &mut soonest);
    upkeep_timers(view, verdict.steady, &mut soonest);
    soonest.wake
}

fn tenure_timers(view: &View<'_>, soonest: &mut Soonest) {
    match &view.state.tenure {
        Tenure::Held(held) => {
            if view.state.ops.in_lane(&Lane::Renew).is_none() {
                soonest.offer(held.confirmed + Bounds::renew_interval(held.ttl), "the next renewal");
            }
            soonest.offer(view.config().bounds.arm_at(held.confirmed, held.ttl), "the tenure");
            // A guard that acknowledges nothing more is found out at the end of what it has acknowledged.
            soonest.offer(decide::acknowledged_until(view, held), "the guard's acknowledgement");
        }
        Tenure::Suspended { since, .. } => soonest.offer(*since + HOLD_LIMIT, "the hold"),
        Tenure::Adopting { deadline } => soonest.offer(*deadline, "the search for a tenure"),
        Tenure::None => {}
    }
    if let Some(gone) = view.state.guard.gone {
        soonest.offer(gone + GUARD_LIMIT, "the missing guard");
        for (_, in_flight) in view.state.ops.iter() {
            if in_flight.action == Action::Postgres(PostgresAction::Stop(StopMode::Fast)) {
                soonest.offer(in_flight.since + GUARD_LIMIT, "a stop without a guard");
            }
        }
    }
    if let Some(asked) = view.state.guard_asked.start {
        soonest.offer(asked + RETRY_PAUSE, "the next guard");
    }
    if let Some(asked) = view.state.guard_asked.fire {
        soonest.offer(asked + FIRE_LIMIT, "the guard's fence");
    }
    if view.held().is_some() && decide::isolated::alone_for(view).is_some() {
        let contact = decide::isolated::silent_since(view);
        soonest.offer(contact + decide::observe::contact_patience(view.config()), "the next contact");
        soonest.offer(contact + decide::observe::peers_patience(view.config()), "the next contact");
        soonest.offer(view.state.memory.contact_sought + decide::observe::CONTACT_PAUSE, "the next contact");
        soonest.offer(contact + view.config().isolation_timeout, "isolation");
    }
}

fn role_timers(view: &View<'_>, soonest: &mut Soonest) {
    let memory = &view.state.memory;
    if let Some((_, began)) = memory.race {
        soonest.offer(began + RACE_WINDOW, "the race");
        for (_, in_flight) in view.state.ops.iter() {
            if matches!(in_flight.action, Action::Peer(PeerAction::AskPosition { .. })) {
                soonest.offer(in_flight.since + RACE_WINDOW, "the race");
            }
        }
        soonest.offer(began + RACE_WINDOW + crate::config::EQUALS_PATIENCE, "the patience among equals");
        soonest.offer(began + RETRY_PAUSE, "the next round of the race");
    }
    if let Some(vanished) = &view.state.store.vanished {
        soonest.offer(vanished.heard + VANISH_GRACE, "the grace for the last leader");
        soonest.offer(vanished.heard + Duration::from_secs(1), "the wait for the next leader");
    }
    if let Some(unending) = memory.unending_since {
        soonest.offer(unending + STOP_LIMIT, "a stop that does not end");
    }
    if let Some(dead) = memory.dead_since {
        for (_, in_flight) in view.state.ops.iter() {
            if view.held().is_some() && matches!(in_flight.action, Action::Peer(PeerAction::AskStatus { .. })) {
                soonest.offer(in_flight.since + RACE_WINDOW, "who could take over");
            }
        }
        for patience in [Duration::from_secs(2), crate::config::HANDOVER_LIMIT, Duration::from_secs(10)] {
            soonest.offer(dead + patience, "a hand-over");
        }
    }
    if let Some(drained) = memory.drained_since {
        soonest.offer(drained + decide::DRAIN_LIMIT, "what waits for a hung standby or archiver");
    }
    if let Some(lingering) = memory.lingering_since {
        let ordered = view.state.ops.in_lane(&Lane::PgControl).map(|in_flight| in_flight.since);
        for since in [Some(lingering), ordered].into_iter().flatten() {
            soonest.offer(since + STOP_LIMIT, "a stop that sessions take no notice of");
            soonest.offer(since + crate::config::CHECKPOINT_LIMIT, "a stop that sessions take no notice of");
        }
    }
    if let Some(promoting) = memory.promoting_since {
        soonest.offer(promoting + decide::promotion_limit(view.config()), "the promotion");
    }
    if let Some((failed, _)) = memory.recovery_failed {
        soonest.offer(failed + crate::config::RECOVERY_PAUSE, "the next crash recovery");
    }
    if let Some(gave_up) = memory.gave_up {
        soonest.offer(gave_up + view.config().loop_wait, "the pause after giving up");
    }
    if let Some(left) = view.vetoed_for() {
        soonest.offer(view.at + left, "the pause after a veto");
    }
    if let Some(starting) = memory.starting_since.filter(|_| view.held().is_some()) {
        soonest.offer(starting + view.config().primary_start_timeout, "the start of PostgreSQL");
        soonest.offer(starting + crate::config::ASKED_START_LIMIT, "the start of PostgreSQL");
    }
    if let Some(crate::state::Leaderless { since, .. }) = memory.leaderless {
        soonest.offer(since + crate::config::CANDIDATE_PATIENCE, "the patience with the candidate");
        soonest.offer(since + crate::config::AHEAD_PATIENCE, "the patience with who is ahead");
        soonest.offer(since + view.tenure_ttl(), "what a tenure of nobody knows whom may last");
    }
    soonest.offer(memory.streamed + crate::config::STREAM_PATIENCE, "streaming");
    if let Some(streamed) = memory.streamed_unmanaged {
        soonest.offer(streamed + view.tenure_ttl(), "what a tenure of nobody knows whom may last");
    }
    if let Some(compared) = memory.compared_at {
        soonest.offer(compared + crate::config::COMPARE_PAUSE, "the next comparison");
    }
    soonest.offer(memory.turned + crate::config::STREAM_PATIENCE, "the turn to another upstream");
    if let Some(pledge) = view.state.pledge {
        soonest.offer(pledge.since + 2 * view.config().retry_timeout, "the pledge");
    }
    let request = view.cluster().and_then(|cluster| cluster.failover.as_ref());
    if let Some(left) = request.and_then(|request| view.schedule_left(request)) {
        soonest.offer(view.at + left, "a scheduled switchover");
    }
    let restart = view.state.scheduled_restart.as_ref();
    if let Some(left) = restart.and_then(|restart| view.left_until(restart.schedule.at)) {
        soonest.offer(view.at + left, "a scheduled restart");
    }
    procedure::timers(view, |at| soonest.offer(at, "an operator's request"));
}

fn upkeep_timers(view: &View<'_>, steady: bool, soonest: &mut Soonest) {
    let session = &view.state.session;
    let idle = |lane: Lane| view.state.ops.in_lane(&lane).is_none();
    if session.lease.is_some() && idle(Lane::Publish) {
        soonest.offer(session.kept + Bounds::renew_interval(session.ttl), "the member lease");
        soonest.offer(session.published_at + view.config().loop_wait, "the member record");
        soonest.offer(session.status_at + view.config().loop_wait, "the status");
    }
    if idle(Lane::PgObserve) && view.phase() == Some(crate::view::postgres::Phase::Ready) {
        let interval = decide::observe::interval(view, steady);
        soonest.offer(decide::observe::next_question(view, interval), "the next look at PostgreSQL");
    }
    if let Some(failed) = view.state.memory.data_in_doubt.filter(|_| idle(Lane::PgObserve)) {
        soonest.offer(failed + decide::observe::UNSETTLED, "the next look at the data directory");
    }
    if idle(Lane::Observe) {
        let seen = view.state.store.cluster.as_ref().map_or(view.at, |seen| seen.asked);
        soonest.offer(seen + view.config().loop_wait, "the next look at the store");
    }
}

struct Soonest {
    at: Instant,
    wake: Wake,
}

impl Soonest {
    /// Only what is still to come can change anything: the past was part of this decision.
    fn offer(&mut self, instant: Instant, what: &'static str) {
        if instant > self.at && self.wake.at.is_none_or(|soonest| instant < soonest) {
            self.wake = Wake { at: Some(instant), because: Reason::DeadlineOf { what: what.into() } };
        }
    }
}
