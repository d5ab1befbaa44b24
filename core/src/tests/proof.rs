//! The proof of the ladder, by generated views: every view has a verdict, every rung is reached, and no step breaks
//! what must hold.

use std::collections::{BTreeMap, BTreeSet};

use super::random::Random;
use super::safety;
use crate::action::{Action, PostgresAction, StoreAction};
use crate::config::SlotMatcher;
use crate::decide::{LADDER, Rung, Verdict, explain};
use crate::event::Event;
use crate::id::{LeaseId, Lsn, Member, RequestId, Revision, SystemId};
use crate::lease::{Held, Tenure};
use crate::reason::Reason;
use crate::state::{Granted, Pending, PendingKind, Pledge, PositionAsked, State};
use crate::testing::*;
use crate::time::{Instant, Seen, WallMillis};
use crate::timeline::{Ancestor, History};
use crate::view::guard::Armed;
use crate::view::postgres::{ControlState, DataDir, Phase, Process, Slot, Sql, StartAs, StopMode};
use crate::view::store::{HistoryKey, HistoryLine, Initialize, StatusKey, Vanished};

/// How many views are generated.
pub(super) const VIEWS: usize = 60_000;

#[test]
fn every_view_has_a_verdict_and_every_rung_is_reached() {
    let mut random = Random(1);
    let mut reached: BTreeMap<Rung, usize> = BTreeMap::new();
    let mut passed: BTreeSet<(Rung, Rung)> = BTreeSet::new();
    let mut contested: BTreeSet<(Rung, Rung)> = BTreeSet::new();
    for _ in 0..VIEWS {
        let node = any_node(&mut random);
        let (rung, _) = node.decide();
        *reached.entry(rung).or_default() += 1;
        let all = explain(&node.view());
        assert!(all.last().is_some_and(|(_, _, reason)| reason.is_some()), "the last rung concludes always");
        for (other, _, reason) in all {
            if other < rung {
                assert!(reason.is_none(), "{other:?} said something before {rung:?} concluded");
                passed.insert((other, rung));
            } else if reason.is_some() && other > rung {
                contested.insert((rung, other));
            }
        }
    }
    for (index, row) in LADDER.iter().enumerate() {
        assert!(reached.contains_key(&row.rung), "{:?} is never reached", row.rung);
        for later in &LADDER[index + 1..] {
            assert!(passed.contains(&(row.rung, later.rung)), "{:?} never lets {:?} conclude", row.rung, later.rung);
        }
    }
    // The order of the ladder matters: for most pairs some view makes both speak.
    assert!(contested.len() > LADDER.len() * 2, "only {} pairs of rungs ever compete", contested.len());
}

#[test]
fn no_step_from_any_view_breaks_what_must_hold() {
    let mut random = Random(2);
    for number in 0..VIEWS {
        let mut node = any_node(&mut random);
        let before = node.clone();
        let effects = node.tick();
        let verdict = concluded(&before, &node);
        let checked = std::panic::catch_unwind(|| safety::check(&node.state, node.now, &verdict, &effects));
        assert!(checked.is_ok(), "view {number}: {verdict:?}\n{:#?}\norders {:#?}", before.state, effects.orders);
    }
}

#[test]
fn the_same_state_instant_and_event_give_the_same_result() {
    let mut random = Random(4);
    for _ in 0..VIEWS / 20 {
        let node = any_node(&mut random);
        let (mut one, mut two) = (node.clone(), node);
        assert_eq!(one.step(Event::ShutdownAsked), two.step(Event::ShutdownAsked));
        assert_eq!(one.state, two.state);
    }
}

/// What the step concluded: the search for a tenure may have ended before the ladder was asked.
pub(super) fn concluded(before: &Node, after: &Node) -> Verdict {
    let mut asked = before.clone();
    asked.state.wall = after.state.wall;
    if matches!(before.state.tenure, Tenure::Adopting { .. }) && after.state.tenure == Tenure::None {
        asked.state.tenure = Tenure::None;
    }
    asked.decide().1
}

type Change = fn(&mut State, Instant, &mut Random);
const CHANGES: &[Change] =
    &[process, data, sql, tenure, keys, guard, operator, config_of, control, small_files, memory, peers, pause, slots];

/// How long after the usual situation a view may be, in milliseconds.
pub(super) const LATER: [u64; 11] = [0, 1, 100, 160, 301, 500, 1_001, 2_500, 3_100, 11_000, 29_800];
/// How many kinds of facts can be replaced.
pub(super) const CHANGES_MAX: usize = CHANGES.len();

/// A node in any situation: a usual one, with some of its facts replaced.
pub(super) fn any_node(random: &mut Random) -> Node {
    let mut node = usual_node(random.below(6));
    node = node.later(random.pick(&LATER));
    // Few changes leave a usual situation nearly as it was, many mix everything with everything.
    let chances = random.pick(&[2, 4, 8]);
    let now = node.now;
    for change in CHANGES {
        if random.one_in(chances) {
            change(&mut node.state, now, random);
        }
    }
    lawful(&mut node.state, now);
    node
}

/// A usual situation, later, with these facts replaced, each by its own seed: what shrinks is the list.
pub(super) fn node_of(usual: u64, later_ms: u64, changes: &BTreeMap<usize, u64>) -> Node {
    let mut node = usual_node(usual).later(later_ms);
    let now = node.now;
    for (change, seed) in changes {
        CHANGES[*change](&mut node.state, now, &mut Random(*seed));
    }
    lawful(&mut node.state, now);
    node
}

fn usual_node(number: u64) -> Node {
    match number {
        0 => Node::stopped(),
        1 | 2 => Node::primary(),
        3 => Node::standby(),
        4 => Node::handing_over().with(|state| state.memory.dead_since = Some(at(0).back(seconds(6)))),
        _ => Node::racing(),
    }
}

/// What no sequence of events leads to is taken back: the rest is fair game.
fn lawful(state: &mut State, now: Instant) {
    if !matches!(state.postgres.process, Process::Alive { phase: Phase::Ready | Phase::Stopping, .. }) {
        state.postgres.sql = None;
    }
    if !matches!(state.postgres.process, Process::Absent) {
        state.postgres.orphans = None;
    }
    if let Tenure::Held(held) = state.tenure {
        state.memory.reinit = false;
        if state.spent == Some(held.lease) {
            state.spent = None;
        }
        if let Some(armed) = state.guard.armed.as_mut().filter(|armed| armed.tenure == held.lease) {
            armed.at = armed.at.min(state.config.bounds.arm_at(held.confirmed, held.ttl));
        }
    }
    // A promotion is refused after it was ordered.
    if state.memory.promoting_since.is_none() {
        state.memory.promotions_refused = 0;
    }
    // Whether PostgreSQL is let go is found out before every decision.
    state.memory.let_go &= state.memory.paused.is_some();
    crate::decide::pause::remember(state, now);
}

fn process(state: &mut State, now: Instant, random: &mut Random) {
    state.postgres.process = random.pick(&[
        Process::Unknown,
        Process::Absent,
        Process::Absent,
        alive(Phase::Starting),
        alive(Phase::Ready),
        alive(Phase::Stopping),
    ]);
    state.postgres.orphans = random.pick(&[None, Some(0), Some(0), Some(3)]);
    state.memory.dead_since = random.pick(&[None, Some(now), Some(now.back(seconds(6)))]);
    state.memory.starting_since = random.pick(&[None, Some(now), Some(now.back(seconds(400)))]);
}

fn data(state: &mut State, _: Instant, random: &mut Random) {
    let tainted = || {
        let mut dir = standby_dir();
        dir.tainted = Some("rewinding".into());
        dir
    };
    let foreign = || {
        let mut dir = standby_dir();
        dir.system_id = SystemId(1);
        dir
    };
    state.postgres.data = match random.below(9) {
        0 => DataDir::Unknown,
        1 => DataDir::Unreadable("permission denied".into()),
        2 => DataDir::Empty,
        3 => DataDir::Foreign("a file".into()),
        4 => DataDir::Cluster(tainted()),
        5 => DataDir::Cluster(foreign()),
        6 => DataDir::Cluster(primary_dir(ControlState::ShutDown)),
        7 => DataDir::Cluster(primary_dir(ControlState::InProduction)),
        _ => DataDir::Cluster(standby_dir()),
    };
}

fn sql(state: &mut State, now: Instant, random: &mut Random) {
    let answer = random.pick(&[
        None,
        Some(primary_sql()),
        Some(standby_sql(None)),
        Some(standby_sql(Some("b"))),
        Some(Sql { replay_paused: true, outgrown: true, ..standby_sql(Some("b")) }),
        Some(standby_sql(Some("c"))),
    ]);
    let asked = random.pick(&[now, now.back(seconds(5))]);
    state.postgres.sql = answer.map(|sql| Seen::new(sql, asked, now));
    state.memory.changed = random.pick(&[Instant::ZERO, now]);
}

fn slots(state: &mut State, now: Instant, random: &mut Random) {
    let positions = [Lsn(0), Lsn(HERE.0 - (32 << 20)), Lsn(HERE.0 - 8), HERE, Lsn(HERE.0 + 8)];
    let names = ["a", "b", "c", "d", "archive"];
    let listed = |random: &mut Random| -> Vec<String> {
        names.iter().filter(|_| random.one_in(2)).map(|name| (*name).to_owned()).collect()
    };
    state.config.permanent_slots = listed(random).into_iter().collect();
    state.memory.permanent_slots = listed(random).into_iter().collect();
    state.memory.member_slots = listed(random).into_iter().map(|name| (name, now.back(seconds(1_800)))).collect();
    state.config.member_slots_ttl = random.pick(&[seconds(0), seconds(1_800)]);
    let matcher = SlotMatcher { name: Some("archive".into()), ..SlotMatcher::default() };
    state.config.ignore_slots = random.pick(&[vec![], vec![], vec![matcher]]);
    let told = (random.pick(&positions), listed(random));
    if let Some(status) = state.store.cluster.as_mut().and_then(|seen| seen.value.status.as_mut()) {
        status.slots = names.iter().map(|name| ((*name).to_owned(), told.0)).collect();
        status.retain = told.1;
    }
    let Some(sql) = state.postgres.sql.as_mut() else { return };
    sql.value.slots = listed(random)
        .into_iter()
        .map(|name| Slot {
            name,
            physical: !random.one_in(4),
            active: random.one_in(4),
            restart: random.pick(&positions),
            lost: random.one_in(8),
            pins_rows: random.one_in(4),
            ..Slot::default()
        })
        .collect();
}

fn tenure(state: &mut State, now: Instant, random: &mut Random) {
    let confirmed = random.pick(&[now, now.back(seconds(11)), now.back(seconds(31))]);
    let held = Held { lease: OURS, epoch: EPOCH, ttl: random.pick(&[seconds(2), seconds(30)]), confirmed };
    state.tenure = match random.below(6) {
        0 => Tenure::None,
        1 => Tenure::Adopting { deadline: now + seconds(5) },
        2 => Tenure::Adopting { deadline: now },
        3 => Tenure::Suspended { was: held, since: random.pick(&[now, now.back(millis(600))]) },
        _ => Tenure::Held(held),
    };
    let granted = Granted { lease: LeaseId(9), ttl: seconds(30), asked: random.pick(&[now, now.back(seconds(11))]) };
    state.granted = random.pick(&[None, Some(granted), Some(Granted { ttl: millis(100), ..granted })]);
    state.spent = random.pick(&[None, None, Some(LeaseId(6))]);
}

fn keys(state: &mut State, now: Instant, random: &mut Random) {
    let mut view = match random.below(4) {
        0 => cluster(101),
        1 => led_by("a", 101),
        _ => led_by("b", 101),
    };
    if random.one_in(3) {
        view.initialize = None;
    }
    if random.one_in(6) {
        view.epoch = None;
    }
    if random.one_in(6)
        && let Some(record) = &mut view.epoch
    {
        record.newest_timeline = crate::id::Timeline(random.pick(&[0, 1, 5]));
    }
    if random.one_in(6)
        && let Some(key) = view.members.get_mut(&Member::new("b"))
    {
        key.record.checkpoint_pending = true;
        key.record.state = random.pick(&["running", "starting", "stopped"]).into();
    }
    if random.one_in(8) {
        let lease = random.pick(&[LeaseId(0), LeaseId(100)]);
        view.initialize = Some(Initialize { revision: Revision(5), lease, system_id: None });
    }
    if random.one_in(4) {
        view.status = Some(StatusKey { optime: Lsn(0x4000_0000), ..StatusKey::default() });
    }
    if random.one_in(6) {
        let (timeline, end) = (crate::id::Timeline(1), Lsn(HERE.0 - 0x40));
        let line = HistoryLine { timeline, end, reason: String::new(), timestamp: None, leader: None };
        view.history = HistoryKey { revision: Revision(50), lines: [line].into(), ..HistoryKey::default() };
    }
    if random.one_in(4)
        && let Some(key) = view.members.get_mut(&Member::new("b"))
    {
        (key.record.role, key.record.failover_priority) = ("primary".into(), 9);
    }
    if random.one_in(8) {
        view.members.remove(&Member::new("b"));
        view.members.remove(&Member::new("c"));
    }
    if random.one_in(8) {
        (view.initialize, view.leader) = (None, None);
        let position = random.pick(&[Lsn(0), HERE]);
        for key in view.members.values_mut() {
            (key.record.position, key.record.timeline) = (position, crate::id::Timeline(u32::from(position > Lsn(0))));
        }
    }
    let absent = view.leader.is_none();
    let heard = random.pick(&[now, now.back(millis(200)), now.back(seconds(4))]);
    state.store.cluster = (!random.one_in(6)).then(|| Seen::new(view, heard, now));
    state.store.answered = random.pick(&[now, now.back(seconds(2)), now.back(seconds(4))]);
    let who = random.pick(&["a", "b"]);
    let vanished = Vanished { heard, who: Member::new(who), released: None };
    if absent && random.one_in(2) {
        state.memory.lost_records.insert(Member::new("d"), record("d"));
    }
    state.store.vanished = (absent && random.one_in(2)).then_some(vanished);
    state.memory.race = absent.then_some((Revision(101), heard));
    state.memory.leaderless = leaderless_since(heard).filter(|_| absent);
}

fn guard(state: &mut State, now: Instant, random: &mut Random) {
    state.guard.present = !random.one_in(3);
    state.guard.gone = (!state.guard.present).then(|| random.pick(&[now, now.back(seconds(2))]));
    let armed = [
        None,
        Some(Armed { tenure: OURS, at: now + seconds(9) }),
        Some(Armed { tenure: OURS, at: now }),
        Some(Armed { tenure: LeaseId(3), at: now + seconds(9) }),
        Some(Armed { tenure: LeaseId(0), at: now + seconds(9) }),
    ];
    state.guard.armed = random.pick(&armed).filter(|_| state.guard.present);
    state.guard.held = random.one_in(3);
    state.guard.hold_in_doubt = state.guard.held && random.one_in(3);
}

fn operator(state: &mut State, now: Instant, random: &mut Random) {
    let keys = [failover(Some("a"), Some("b")), failover(Some("a"), None), failover(None, Some("a"))];
    let key = random.pick(&keys);
    let scheduled = WallMillis(random.pick(&[0, 999_000, 9_000_000]));
    if let Some(seen) = state.store.cluster.as_mut() {
        seen.value.failover_revision = key.revision;
        seen.value.failover = Some(key);
        if random.one_in(4)
            && let Some(key) = seen.value.failover.as_mut()
        {
            key.scheduled_at = Some(scheduled);
        }
    }
    state.leaving = random.one_in(3);
    if random.one_in(2) {
        let kind = PendingKind::Restart { op: None };
        state.requests.insert(RequestId(1), Pending { kind, since: now });
    }
}

fn config_of(state: &mut State, _: Instant, random: &mut Random) {
    match random.below(9) {
        8 => state.config.restores_alone = true,
        7 => state.config.clone_when_rewind_fails = true,
        0 => state.config.unsupported = Some("synchronous mode".into()),
        1 => state.config.nofailover = true,
        2 => (state.config.use_pg_rewind, state.config.may_bootstrap) = (false, false),
        3 => state.config.clone_when_diverged = true,
        4 => state.config.primary_start_timeout = seconds(0),
        5 => state.config.nostream = true,
        _ => state.config.parameters_generation = 2,
    }
}

fn control(state: &mut State, now: Instant, random: &mut Random) {
    let action = random.pick(&[
        Action::Postgres(PostgresAction::Start(StartAs::Primary)),
        Action::Postgres(PostgresAction::Start(StartAs::Standby(None))),
        Action::Postgres(PostgresAction::Stop(StopMode::Fast)),
        promotion(),
        Action::Postgres(PostgresAction::Restart),
        Action::Postgres(PostgresAction::Clone(upstream("b"))),
        Action::Postgres(PostgresAction::Rewind(upstream("b"))),
        Action::Postgres(PostgresAction::Initdb),
        Action::Postgres(PostgresAction::RecoverSingleUser),
        Action::Postgres(PostgresAction::Checkpoint),
        Action::Postgres(PostgresAction::Freeze),
        Action::Store(StoreAction::GrantTenure { ttl: seconds(30) }),
        release(),
    ]);
    let mut node = Node { state: state.clone(), now };
    node = node.doing(action, random.pick(&[0, 3_000]));
    *state = node.state;
}

fn small_files(state: &mut State, now: Instant, random: &mut Random) {
    state.epoch_file = random.pick(&[None, Some(epoch_file())]);
    let pledge = Pledge { absent_at: Revision(101), since: now, frozen: random.one_in(2), on_disk: random.one_in(2) };
    state.pledge = random.pick(&[None, Some(pledge)]);
    if random.one_in(2) {
        state.position_asked.push(PositionAsked { request: RequestId(9), absent_at: Revision(101), since: now });
    }
}

fn memory(state: &mut State, now: Instant, random: &mut Random) {
    let compared = [None, Some((THEIR_EPOCH, None)), Some((THEIR_EPOCH, Some(Lsn(0x200_0000))))];
    state.memory.compared = random.pick(&compared);
    state.memory.rewind_failed = random.pick(&[None, Some((THEIR_EPOCH, "no WAL".into()))]);
    let failed = [now, now.back(seconds(10))].map(|at| Some((at, "no memory".into())));
    state.memory.recovery_failed = random.pick(&[None, failed[0].clone(), failed[1].clone()]);
    state.memory.streamed = random.pick(&[now, now.back(seconds(4))]);
    state.memory.compared_at = Some(state.memory.streamed);
    state.memory.reinit = random.one_in(4);
    state.memory.owned = random.one_in(2);
    state.memory.gave_up = random.pick(&[None, None, None, Some(now)]);
    state.memory.vetoed = random.pick(&[None, None, None, Some(now), Some(now.back(seconds(30)))]);
    state.memory.initdb_failed = random.one_in(8);
    state.memory.knew = random.pick(&[None, None, Some(SYSTEM)]);
    state.memory.void_due = random.one_in(8);
    state.memory.drained_since = random.pick(&[None, Some(now), Some(now.back(seconds(6)))]);
    state.memory.lingering_since = random.pick(&[None, Some(now), Some(now.back(seconds(61)))]);
    state.memory.promoting_since = random.pick(&[None, None, Some(now), Some(now.back(seconds(61)))]);
    state.memory.promotions_refused = random.pick(&[0, 0, 3]);
    state.memory.giving_up = random.one_in(16);
    state.memory.start_failures = random.pick(&[0, 3]);
    state.memory.checkpointed = random.pick(&[None, Some(now)]);
    state.memory.handover_announced = random.pick(&[None, Some(now)]);
    state.memory.heirs_since = Some(Instant(1));
    state.memory.configured = random.pick(&[0, 1]);
    state.memory.roles_created = random.one_in(2);
}

fn pause(state: &mut State, now: Instant, random: &mut Random) {
    state.memory.paused = random.pick(&[None, Some(now), Some(now.back(seconds(60)))]);
    state.memory.let_go = random.one_in(2);
    state.memory.requested = random.one_in(4);
    state.memory.data_in_doubt = random.one_in(8).then_some(Instant(1));
    state.memory.resumed = random.pick(&[Instant::ZERO, Instant::ZERO, now]);
    state.config.paused_before = random.one_in(4);
    if let Some(seen) = state.store.cluster.as_mut() {
        seen.value.paused = random.pick(&[None, Some(state.memory.paused.is_some())]);
        if let Some(record) = &mut seen.value.epoch {
            record.unguarded = random.one_in(2);
        }
    }
}

fn peers(state: &mut State, now: Instant, random: &mut Random) {
    for name in ["b", "c"] {
        let mut told = answer(random.pick(&[Lsn(HERE.0 - 8), HERE, Lsn(HERE.0 + 8)]), None);
        (told.primary, told.barred) = (random.one_in(6), random.one_in(6));
        if random.one_in(6) {
            let left = Ancestor { timeline: crate::id::Timeline(1), end: Lsn(8), reason: String::new() };
            told.history = History { ancestors: [left].into(), timeline: crate::id::Timeline(2) };
        }
        if let Some(key) = state.store.cluster.as_mut().and_then(|seen| seen.value.members.get_mut(&Member::new(name)))
        {
            key.record.failover_priority = 9;
        }
        let name = Member::new(name);
        match random.below(3) {
            0 => drop(state.peers.answers.remove(&name)),
            1 => {
                state.peers.unreachable.insert(name, now);
            }
            _ => drop(state.peers.answers.insert(name, Seen::new(told, now, now))),
        }
    }
    state.peers.answered = random.pick(&[now, now.back(seconds(4))]);
}

#[test]
fn the_reasons_that_the_ladder_can_give_are_all_given() {
    let mut random = Random(5);
    let mut given = BTreeSet::new();
    for _ in 0..5 * VIEWS {
        for (_, _, reason) in explain(&any_node(&mut random).view()) {
            given.extend(reason.map(|reason| reason.code()));
        }
    }
    // What only reconcilers, procedures and timers say, and what stands for later.
    let elsewhere = [
        "renewal_due",
        "publish_due",
        "status_due",
        "cluster_keys_due",
        "history_due",
        "slot_missing",
        "slot_obsolete",
        "slot_unusable",
        "slot_behind",
        "parameters_changed",
        "observation_due",
        "contact_due",
        "at_goal",
        "deadline",
        "handover_expected",
        "store_went_back",
        "request_stale",
        "candidate_lagging",
        "stop_ignored",
        "scheduled_later",
        "cloning",
        "letting_go",
        "guarded_again",
        "nothing_writes",
    ];
    let missing: Vec<_> =
        Reason::CODES.iter().filter(|code| !given.contains(**code) && !elsewhere.contains(*code)).collect();
    assert!(missing.is_empty(), "no generated view gives {missing:?}");
}
