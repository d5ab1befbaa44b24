//! Whatever waits for a time wakes the agent then: no event need come.

use crate::action::{Action, PeerAction, PostgresAction};
use crate::config;
use crate::decide::observe::{CONTACT_PAUSE, UNSETTLED, contact_patience, peers_patience};
use crate::event::{MoveRequest, RestartConditions, Schedule, ScheduledRestart};
use crate::id::{LeaseId, Member, RequestId, Revision};
use crate::lease::{Bounds, Held, Tenure};
use crate::reason::Reason;
use crate::state::{Pending, PendingKind, Pledge, PositionAsked, State};
use crate::testing::*;
use crate::time::{Duration, Instant, WallMillis};
use crate::view::guard::Armed;
use crate::view::postgres::{ControlState, Phase, StopMode};
use crate::view::store::Vanished;

/// What is waited for ends then; everything else later, or long ago.
const END: Instant = Instant(1_000_000_000_000 + 1_000_000);

/// Sets what was last heard, or began, to an instant.
type Since = fn(&mut State, Instant);

/// When the agent is woken, where `wait` of what was last heard ends at [`END`].
fn wakes(node: Node, wait: Duration, since: Since) -> Option<Instant> {
    node.with(|state| since(state, END.back(wait))).tick().wake.at
}

fn assert_wakes(node: Node, waits: &[(&str, Duration, Since)]) {
    assert!(node.clone().tick().wake.at.is_none_or(|at| at > END), "nothing else ends so soon");
    for (what, wait, since) in waits {
        assert_eq!(wakes(node.clone(), *wait, *since), Some(END), "{what}");
        let over = node.clone().with(|state| since(state, at(0).back(*wait))).tick().wake.at;
        assert!(over.is_none_or(|next| next > at(0)), "{what}: what is over wakes nobody");
    }
}

fn armed_for(state: &mut State, confirmed: Instant) {
    let ttl = seconds(30);
    state.tenure = Tenure::Held(Held { lease: OURS, epoch: EPOCH, ttl, confirmed });
    state.guard.armed = Some(Armed { tenure: OURS, at: Bounds::default().arm_at(confirmed, ttl) });
}

fn heard(state: &mut State, at: Instant) {
    (state.store.answered, state.peers.answered) = (at, at);
}

/// The store and PostgreSQL are asked, and nothing is to be told, for as long as these tests take.
fn idle(node: Node) -> Node {
    node.config(|config| config.loop_wait = seconds(60)).published()
}

#[test]
fn a_tenure_wakes_its_agent() {
    let confirm: Since = |state, at| armed_for(state, at);
    assert_wakes(idle(Node::primary()), &[("the renewal", seconds(10), confirm)]);
    let renewing = idle(Node::primary()).doing(renewal(), 0);
    let limit = Bounds::default();
    let whole = seconds(30).saturating_sub(limit.drift(seconds(30)) + limit.stop_cost);
    assert_wakes(renewing.clone(), &[("its end", whole, confirm)]);
    let acknowledged: Since = |state, at| {
        state.guard.armed = Some(Armed { tenure: OURS, at });
    };
    assert_wakes(renewing.clone(), &[("the end of what the guard acknowledged", Duration::ZERO, acknowledged)]);
    let other = |state: &mut State| {
        state.guard.armed = Some(Armed { tenure: LeaseId(3), at: END });
        state.memory.held_since = Some(at(0));
    };
    let of_another = renewing.clone().with(other);
    assert_ne!(of_another.clone().tick().wake.at, Some(END), "what it acknowledged for another tenure is nothing");
    assert_wakes(
        of_another.clone(),
        &[("the first acknowledgement", config::GUARD_LIMIT, |state, at| {
            state.memory.held_since = Some(at);
        })],
    );
    let young = of_another.with(|state| state.memory.held_since = Some(Instant::ZERO));
    assert_wakes(
        young.with(|state| state.guard.since = at(0)),
        &[("of a new guard", config::GUARD_LIMIT, |state, at| {
            state.guard.since = at;
        })],
    );
}

#[test]
fn a_search_for_a_tenure_or_a_key_wakes_the_agent() {
    let keyless = idle(Node::primary()).cluster(|cluster| cluster.leader = None);
    let adopting = keyless.clone().with(|state| state.tenure = Tenure::Adopting { deadline: at(9_000) });
    assert_wakes(
        adopting,
        &[("its end", Duration::ZERO, |state, at| {
            state.tenure = Tenure::Adopting { deadline: at };
        })],
    );
    let suspended: Since = |state, since| {
        let was = Held { lease: OURS, epoch: EPOCH, ttl: seconds(30), confirmed: at(0) };
        state.tenure = Tenure::Suspended { was, since };
    };
    let hold = keyless.with(|state| suspended(state, at(0)));
    assert_wakes(hold, &[("the hold", config::HOLD_LIMIT, suspended)]);
}

#[test]
fn a_guard_that_is_waited_for_wakes_the_agent() {
    let standby = || idle(Node::standby());
    assert_wakes(
        standby().with(|state| state.guard.present = false),
        &[("without one", config::GUARD_LIMIT, |state, at| {
            state.guard.gone = Some(at);
        })],
    );
    let asked: Since = |state, at| state.guard_asked.start = Some(at);
    assert_wakes(standby(), &[("one that is started", config::RETRY_PAUSE, asked)]);
    let fire: Since = |state, at| state.guard_asked.fire = Some(at);
    assert_wakes(standby(), &[("one that is to fire", config::FIRE_LIMIT, fire)]);
}

#[test]
fn a_primary_that_hears_nobody_wakes() {
    let primary = idle(Node::primary());
    let config = primary.state.config.clone();
    let waits: [(&str, Duration, Since); 3] = [
        ("the store is asked", contact_patience(&config), heard),
        ("everyone is asked", peers_patience(&config), heard),
        ("isolation", config.isolation_timeout, heard),
    ];
    assert_wakes(primary.clone(), &waits);
    assert_wakes(primary, &[("everyone is asked again", CONTACT_PAUSE, |state, at| state.memory.contact_sought = at)]);
    // Who does not write is not isolated.
    let winner = idle(Node::primary().dir(standby_dir()).sql(standby_sql(None)));
    let winner = winner.with(|state| state.guard.armed = None);
    for (what, wait, since) in waits {
        assert_ne!(wakes(winner.clone(), wait, since), Some(END), "{what}");
    }
}

#[test]
fn a_race_wakes_its_agent() {
    let racing = idle(Node::racing()).config(|config| config.nofailover = true).published();
    let began: Since = |state, at| state.memory.race = Some((Revision(101), at));
    assert_wakes(
        racing.clone(),
        &[
            ("the window", config::RACE_WINDOW, began),
            ("the patience among equals", config::RACE_WINDOW + config::EQUALS_PATIENCE, began),
            ("the next round", config::RETRY_PAUSE, began),
        ],
    );
    let (member, api_url) = (Member::new("b"), String::new());
    let ask = Action::Peer(PeerAction::AskPosition { member, api_url, pledges: true, absent_at: Revision(101) });
    let asking = |ms| racing.clone().doing(ask.clone(), ms).with(|state| began(state, at(0).back(millis(500))));
    assert_eq!(asking(149).tick().wake.at, Some(END), "who came late to it waits for its own questions");
    let told: Since = |state, heard| {
        state.store.vanished = Some(Vanished { heard, who: Member::new("b"), released: None });
    };
    let without = racing.with(|state| began(state, at(0).back(millis(500))));
    assert_wakes(
        without.clone(),
        &[
            ("the grace for the last leader", config::VANISH_GRACE, told),
            ("the wait for the next one", seconds(1), told),
        ],
    );
    let leaderless: Since = |state, at| state.memory.leaderless = leaderless_since(at);
    assert_wakes(
        without.clone(),
        &[
            ("the candidate", config::CANDIDATE_PATIENCE, leaderless),
            ("who is ahead", config::AHEAD_PATIENCE, leaderless),
        ],
    );
    let gave_up: Since = |state, at| state.memory.gave_up = Some(at);
    let vetoed: Since = |state, at| state.memory.vetoed = Some(at);
    let ttl = without.state.config.ttl;
    assert_wakes(without, &[("who gave up", seconds(60), gave_up), ("who was vetoed", ttl, vetoed)]);
}

#[test]
fn a_server_that_is_waited_for_wakes_the_agent() {
    let died: Since = |state, at| state.memory.dead_since = Some(at);
    let handing_over = idle(Node::handing_over()).doing(renewal(), 0);
    assert_wakes(
        handing_over,
        &[
            ("a candidate that says no", seconds(2), died),
            ("a hand-over", config::HANDOVER_LIMIT, died),
            ("orphans", config::ORPHANS_LIMIT, died),
        ],
    );
    let stopping = idle(Node::primary().phase(Phase::Stopping).dir(primary_dir(ControlState::ShutDown)));
    assert_wakes(
        stopping,
        &[("what only drains", crate::decide::DRAIN_LIMIT, |state, at| {
            state.memory.drained_since = Some(at);
        })],
    );
    let lingering = idle(Node::primary().phase(Phase::Stopping).dir(primary_dir(ControlState::InProduction)));
    assert_wakes(
        lingering,
        &[("a session that stays", config::STOP_LIMIT, |state, at| state.memory.lingering_since = Some(at))],
    );
    let asked = idle(Node::primary().phase(Phase::Stopping).dir(primary_dir(ControlState::InProduction)));
    let asked = asked.with(|state| state.memory.lingering_since = Some(at(0).back(seconds(70))));
    let mut asked = asked.doing(Action::Postgres(PostgresAction::Stop(StopMode::Fast)), 59_500);
    assert_eq!(asked.tick().wake.at, Some(at(500)), "a fast stop took the place of another, and is ignored as well");
    let promoting = idle(Node::primary().dir(standby_dir()).sql(standby_sql(None)).doing(promotion(), 0));
    let limit = crate::decide::promotion_limit(&promoting.state.config);
    assert_wakes(promoting, &[("a promotion", limit, |state, at| state.memory.promoting_since = Some(at))]);
    let starting: Since = |state, at| state.memory.starting_since = Some(at);
    assert_wakes(idle(Node::primary().phase(Phase::Starting)), &[("a start", seconds(300), starting)]);
    let standby = idle(Node::standby().phase(Phase::Starting));
    assert_ne!(wakes(standby, seconds(300), starting), Some(END), "a standby has all the time");
    let failed: Since = |state, at| state.memory.recovery_failed = Some((at, "no".into()));
    assert_wakes(idle(Node::standby()), &[("the next recovery", config::RECOVERY_PAUSE, failed)]);
}

#[test]
fn a_standby_that_is_to_stream_wakes_its_agent() {
    assert_wakes(
        idle(Node::standby()),
        &[
            ("streaming", config::STREAM_PATIENCE, |state, at| state.memory.streamed = at),
            ("the turn", config::STREAM_PATIENCE, |state, at| state.memory.turned = at),
            ("the next comparison", config::COMPARE_PAUSE, |state, at| state.memory.compared_at = Some(at)),
            ("the pledge", seconds(20), |state, since| {
                let absent_at = Revision(101);
                state.pledge = Some(Pledge { absent_at, since, frozen: false, on_disk: true });
            }),
        ],
    );
}

#[test]
fn what_an_operator_wants_at_a_time_wakes_the_agent_then() {
    let later = WallMillis(1_000_001);
    let moving = idle(Node::standby()).cluster(|cluster| {
        let mut request = failover(Some("b"), Some("c"));
        request.scheduled_at = Some(later);
        cluster.failover = Some(request);
    });
    assert_eq!(moving.clone().tick().wake.at, Some(END));
    let schedule = Schedule { text: String::new(), at: later };
    let restart = ScheduledRestart {
        schedule,
        conditions: RestartConditions::default(),
        timeout_s: None,
        postmaster_start_us: 0,
    };
    assert_eq!(idle(Node::standby()).with(|state| state.scheduled_restart = Some(restart)).tick().wake.at, Some(END));
}

#[test]
fn who_asked_for_something_and_waits_wakes_the_agent() {
    fn moves(state: &mut State, since: Instant, written: Option<Instant>) {
        let request = MoveRequest {
            switchover: true,
            leader: Some(Member::new("b")),
            candidate: Some(Member::new("c")),
            scheduled_at: None,
            refused: false,
        };
        let kind = PendingKind::Move { request, old: Some(Member::new("b")), epoch: Revision(50), written };
        state.requests.insert(RequestId(1), Pending { kind, since });
    }
    let waits: [(&str, Duration, Since); 2] = [
        ("the key to be seen", millis(500), |state, written| moves(state, at(0), Some(written))),
        ("the outcome of a switchover", seconds(120), |state, since| moves(state, since, Some(at(0)))),
    ];
    // The key is there: nothing is answered before the last of these.
    let moving = idle(Node::standby()).cluster(|cluster| cluster.failover = Some(failover(Some("b"), Some("c"))));
    assert_wakes(moving.clone(), &waits);
    // Of b and c nothing is known, and each is being asked.
    let ask = |name: &str| Action::Peer(PeerAction::AskStatus { member: Member::new(name), api_url: String::new() });
    let asking = moving.doing(ask("b"), 0).doing(ask("c"), 0);
    assert_wakes(asking, &[("members to tell their status", seconds(2), |state, since| moves(state, since, None))]);
    let restarts: Since = |state, since| {
        state.requests.insert(RequestId(1), Pending { kind: PendingKind::Restart { op: None }, since });
    };
    let stands_back = idle(Node::racing()).config(|config| config.nofailover = true).published();
    let stands_back = stands_back.with(|state| state.memory.race = Some((Revision(101), at(0).back(millis(500)))));
    assert_wakes(stands_back, &[("a restart that no rung takes up", seconds(120), restarts)]);
    let asks: Since = |state, since| {
        state.position_asked = vec![PositionAsked { request: RequestId(2), absent_at: Revision(101), since }];
    };
    assert_wakes(idle(Node::standby()), &[("a peer", millis(500), asks)]);
}

#[test]
fn what_is_published_or_asked_for_every_while_wakes_the_agent() {
    let standby = || {
        Node::standby().with(|state| state.session.ttl = seconds(600)).config(|config| {
            (config.loop_wait, config.nostream) = (seconds(60), false);
        })
    };
    let far = |node: Node| {
        node.with(|state| {
            let session = &mut state.session;
            (session.kept, session.published_at, session.status_at) = (at(0), at(0), at(0));
        })
    };
    let asked: Since = |state, asked| {
        (state.postgres.sql.as_mut().expect("it answered").asked, state.memory.changed) = (asked, asked);
    };
    let kept: Since = |state, at| state.session.kept = at;
    assert_wakes(
        far(standby()),
        &[
            ("the member lease", seconds(200), kept),
            ("the member record", seconds(60), |state, at| state.session.published_at = at),
            ("the status", seconds(60), |state, at| state.session.status_at = at),
            ("the store", seconds(60), |state, at| state.store.cluster.as_mut().expect("it was seen").asked = at),
            ("PostgreSQL", seconds(60), asked),
        ],
    );
    let unsettled = idle(Node::racing()).config(|config| config.nofailover = true).published();
    assert_wakes(
        unsettled.with(|state| state.memory.race = Some((Revision(101), at(0)))),
        &[("PostgreSQL, in an unsettled role", UNSETTLED, |state, asked| {
            (state.postgres.sql.as_mut().expect("it answered").asked, state.memory.changed) = (asked, asked);
            state.memory.race = Some((Revision(101), at(0).back(millis(900))));
        })],
    );
    // Without a lease there is no record to keep, and what is being written is not due.
    let lease = far(standby()).with(|state| state.session.lease = None);
    assert_ne!(wakes(lease, seconds(200), kept), Some(END));
    let put = Action::Store(crate::action::StoreAction::KeepSession { lease: LeaseId(100) });
    assert_ne!(wakes(far(standby()).doing(put, 0), seconds(200), kept), Some(END));
    let observing = far(standby()).doing(Action::Postgres(PostgresAction::Observe), 0);
    assert_ne!(wakes(observing, seconds(60), asked), Some(END));
}

#[test]
fn a_failure_wakes_the_agent_after_each_pause_that_it_may_cause() {
    let failed: Since = |state, at| {
        state.memory.failed.insert("control".into(), at);
    };
    let pauses = [millis(20), millis(50), millis(200), config::RETRY_PAUSE];
    assert_wakes(idle(Node::standby()), &pauses.map(|pause| ("a pause", pause, failed)));
    let mut node = idle(Node::standby()).doing(Action::Postgres(PostgresAction::Checkpoint), 0);
    let late = node.state.ops.cancel(&crate::action::Lane::PgControl).expect("it is in flight");
    node.state.ops.begin(crate::action::Lane::PgControl, crate::state::InFlight { deadline: END, ..late });
    let effects = node.tick();
    assert_eq!(effects.wake.at, Some(END));
    assert_eq!(effects.wake.because, Reason::DeadlineOf { what: "an operation in flight".into() });
}
