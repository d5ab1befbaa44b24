//! Rung 12, the last: a standby of whoever leads. Concludes always.

use alloc::format;
use alloc::string::String;

use super::Verdict;
use crate::action::{Action, PostgresAction};
use crate::config::STREAM_PATIENCE;
use crate::reason::Reason;
use crate::time::Duration;
use crate::view::View;
use crate::view::postgres::{Phase, StartAs, Upstream};

/// After a leader key was heard to vanish a stopped server waits so long for the next leader before it starts alone.
const NEXT_LEADER_PATIENCE: Duration = Duration::from_secs(1);

pub(super) fn decide(view: &View<'_>) -> Option<Verdict> {
    Some(match view.phase() {
        None => stopped(view),
        Some(Phase::Stopping) => Verdict::wait(Reason::NotSteady),
        Some(Phase::Starting | Phase::Ready) => running(view),
    })
}

fn stopped(view: &View<'_>) -> Verdict {
    if view.complete_dir().is_none() {
        return Verdict::wait(Reason::NoCloneSource);
    }
    let upstream = view.upstream();
    let serves = view.serving_leader().is_some() && upstream.is_some();
    match (view.other_leader(), upstream) {
        // What its birth recovers towards would be forgotten.
        (Some(leader), _) if !serves && (!just_alone(view) || view.unfinished_bootstrap()) => {
            Verdict::wait(Reason::LeaderNotReady { who: leader.member.clone() })
        }
        (Some(_), Some(upstream)) => {
            let reason = Reason::StartingStandby { of: upstream.member.clone() };
            let start = PostgresAction::Start(StartAs::Standby(wanted(view, upstream)));
            Verdict::order(reason, Action::Postgres(start))
        }
        // The store was heard last while this node led, or nothing tells where the leader is.
        (Some(_), None) => start_alone(),
        (None, _) => {
            let vanished = view.state.store.vanished.as_ref();
            if vanished.is_some_and(|v| view.at.since(v.heard) < NEXT_LEADER_PATIENCE) {
                return Verdict::wait(Reason::NoReplicationSource);
            }
            start_alone()
        }
    }
}

fn start_alone() -> Verdict {
    Verdict::order(Reason::StartingAlone, Action::Postgres(PostgresAction::Start(StartAs::Standby(None))))
}

/// A leader that does not serve is waited for, but not for ever: a standby that runs serves reads and can be asked.
fn just_alone(view: &View<'_>) -> bool {
    view.state.memory.dead_since.is_some_and(|since| view.at.since(since) >= Duration::from_secs(10))
}

pub(super) fn running(view: &View<'_>) -> Verdict {
    if super::leader::restart_wanted(view) {
        return Verdict::order(Reason::RestartRequested, Action::Postgres(PostgresAction::Restart));
    }
    let Some(leader) = view.other_leader() else { return Verdict::wait(Reason::NoReplicationSource) };
    // A pledge ends where a newer tenure is seen; until then nothing is received from whoever was the leader.
    if view.state.pledge.is_some_and(|pledge| leader.created <= pledge.absent_at) {
        return Verdict::wait(Reason::NoReplicationSource);
    }
    let Some(upstream) = view.upstream() else {
        return Verdict::wait(Reason::LeaderNotReady { who: leader.member.clone() });
    };
    if let Some(PostgresAction::Start(how)) = view.controlling() {
        let wanted = wanted(view, upstream.clone());
        // A server that was started before there was a leader may wait for WAL that only the leader has, and would be
        // waited for until its start is given up.
        let elsewhere = matches!(how, StartAs::Standby(from) if *from != wanted);
        return if elsewhere && view.phase() == Some(Phase::Starting) {
            turn_to(view, upstream)
        } else {
            Verdict::wait(Reason::StartingStandby { of: upstream.member })
        };
    }
    if view.state.memory.needs_restart {
        return Verdict::order(Reason::TurningTo { who: upstream.member }, Action::Postgres(PostgresAction::Restart));
    }
    let Some(sql) = view.sql() else { return starting(view, upstream) };
    let wanted = wanted(view, upstream.clone());
    // Turning takes a moment, the next answer as well; and a receiver may call its sender by another name.
    let turning = view.state.memory.followed == wanted && view.at.since(view.state.memory.turned) < STREAM_PATIENCE;
    let right = match (&wanted, &sql.receiver) {
        (Some(upstream), Some(receiver)) => receiver.upstream == address(upstream),
        // Without a receiver only what was last ordered is known.
        (Some(_), None) => sql.upstream_set && view.state.memory.followed == wanted,
        (None, receiver) => receiver.is_none() && !sql.upstream_set,
    };
    if !right && !turning {
        return turn_to(view, upstream);
    }
    if sql.outgrown {
        return Verdict::order(Reason::Outgrown, Action::Postgres(PostgresAction::Restart));
    }
    let who = wanted.map_or_else(|| leader.member.clone(), |upstream| upstream.member);
    Verdict::steady(Reason::FollowingLeader { who })
}

/// A standby that is not consistent yet answers no query, and may wait for WAL that only the new leader has.
fn starting(view: &View<'_>, upstream: Upstream) -> Verdict {
    if view.phase() == Some(Phase::Ready) {
        return Verdict::wait(Reason::Observing);
    }
    if view.state.memory.followed == wanted(view, upstream.clone()) {
        let since = view.state.memory.starting_since.unwrap_or(view.at);
        return Verdict::wait(Reason::CrashRecovery {
            since_ms: super::ms(view.at.since(since)),
            limit_ms: super::ms(view.config().primary_start_timeout),
        });
    }
    turn_to(view, upstream)
}

fn turn_to(view: &View<'_>, upstream: Upstream) -> Verdict {
    let who = upstream.member.clone();
    Verdict::order(Reason::TurningTo { who }, Action::Postgres(PostgresAction::Follow(wanted(view, upstream))))
}

/// Whom PostgreSQL is to stream from.
fn wanted(view: &View<'_>, upstream: Upstream) -> Option<Upstream> {
    (!view.config().nostream).then_some(upstream)
}

/// `host:port`, as a WAL receiver names its sender.
fn address(upstream: &Upstream) -> String {
    format!("{}:{}", upstream.host, upstream.port)
}
