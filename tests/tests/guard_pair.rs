//! A guard with a successor: what one process knows is not lost with it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use matriarch::clock;
use matriarch::guard::{Armed, Guard, Hello, Order, Report};
use matriarch::processes::Process;
use matriarch_core::time::Instant;
use matriarch_tests::guarded::{self, GuardedNode, Load, TENURE, ask, next, until, until_async};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};

const NOBODY: [i32; 0] = [];
const FAR: Duration = Duration::from_mins(10);

/// Not a test of its own.
#[test]
fn agent_process() {
    guarded::agent_process();
}

// ---------------------------------------------------------------------------------------------------------------------
// The double fault

#[tokio::test]
async fn a_frozen_agent_is_fenced_although_its_guard_was_killed() {
    let mut node = strict();
    node.start();
    let load = Load::start(&node, 4);
    let (mut agent, first) = node.agent(Duration::from_secs(2));
    let armed = first.armed.unwrap();
    process(agent.id().cast_signed()).signal(Signal::STOP).unwrap();
    process(first.pid).signal(Signal::KILL).unwrap();
    let acknowledged = load.broken();
    until(|| node.alive().is_empty());
    let (_guard, hello) = node.connect().await;
    let fired = hello.fired.unwrap();
    assert_ne!(hello.pid, first.pid);
    assert_eq!((fired.tenure, hello.armed), (Some(TENURE), None));
    assert!(fired.all_dead_at >= armed.at, "it fired before the end of authority");
    assert!(acknowledged.iter().all(|commit| commit.sent < fired.all_dead_at));
    assert_eq!(node.released(), "", "a frozen agent may hold its lease");
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[tokio::test]
async fn a_frozen_agent_is_fenced_although_its_guard_is_frozen_too() {
    let mut node = strict();
    node.start();
    let load = Load::start(&node, 4);
    let (mut agent, first) = node.agent(Duration::from_secs(2));
    let guard = process(first.pid);
    process(agent.id().cast_signed()).signal(Signal::STOP).unwrap();
    guard.signal(Signal::STOP).unwrap();
    let acknowledged = load.broken();
    until(|| node.alive().is_empty());
    assert!(!guard.is_alive(), "two guards");
    let (_guard, hello) = node.connect().await;
    let fired = hello.fired.unwrap();
    assert!(fired.all_dead_at >= first.armed.unwrap().at);
    assert!(acknowledged.iter().all(|commit| commit.sent < fired.all_dead_at));
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[tokio::test]
async fn a_tenure_is_given_back_although_agent_and_guard_were_killed_together() {
    let mut node = strict();
    node.start();
    let (mut agent, first) = node.agent(FAR);
    process(first.pid).signal(Signal::KILL).unwrap();
    agent.kill().unwrap();
    until(|| node.released() == "42\n");
    assert_eq!(node.alive(), NOBODY);
    assert!(node.control_data().contains("shut down\n"), "{}", node.control_data());
    agent.wait().unwrap();
    until(|| node.helpers().is_empty());
}

// ---------------------------------------------------------------------------------------------------------------------
// One of the two

#[tokio::test]
async fn a_killed_guard_is_succeeded_and_nothing_is_interrupted() {
    let mut node = strict();
    node.start();
    let load = Load::start(&node, 4);
    let (mut guard, mut hello) = node.connect().await;
    node.watch(&mut guard).await;
    let at = arm(&mut guard, FAR).await;
    for _ in 0..5 {
        let successor = successor(&node, hello.pid);
        let before = load.count();
        process(hello.pid).signal(Signal::KILL).unwrap();
        let again = next_hello(&mut guard).await;
        assert_eq!((again.pid, again.armed), (successor.pid, Some(Armed { tenure: TENURE, at })));
        load.wait_for(before + 200);
        hello = again;
    }
    arm(&mut guard, 2 * FAR).await;
    assert!(node.postmaster().is_alive());
    load.finish();
}

#[tokio::test]
async fn whatever_was_acknowledged_outlives_the_guard_that_did() {
    let node = strict();
    let (mut guard, mut hello) = node.connect().await;
    for round in 1..=30 {
        let at = arm(&mut guard, FAR + Duration::from_secs(round)).await;
        process(hello.pid).signal(Signal::KILL).unwrap();
        hello = next_hello(&mut guard).await;
        assert_eq!(hello.armed, Some(Armed { tenure: TENURE, at }), "round {round}");
    }
}

#[tokio::test]
async fn a_killed_successor_is_replaced_by_one_that_knows_as_much() {
    let mut node = strict();
    node.start();
    let (mut guard, hello) = node.connect().await;
    node.watch(&mut guard).await;
    let at = arm(&mut guard, FAR).await;
    let first = successor(&node, hello.pid);
    first.signal(Signal::KILL).unwrap();
    until(|| node.successor(hello.pid).is_some_and(|it| it != first));
    let second = successor(&node, hello.pid);
    process(hello.pid).signal(Signal::KILL).unwrap();
    let again = next_hello(&mut guard).await;
    assert_eq!((again.pid, again.armed), (second.pid, Some(Armed { tenure: TENURE, at })));
    // It knows the postmaster as well: nothing but the fence is told.
    assert!(matches!(ask(&mut guard, Order::Fire { why: "test".into() }).await, Report::Fired(_)));
    assert_eq!(node.alive(), NOBODY);
}

#[tokio::test]
async fn a_frozen_successor_is_replaced() {
    let node = strict();
    let (mut guard, hello) = node.connect().await;
    let first = successor(&node, hello.pid);
    first.signal(Signal::STOP).unwrap();
    let mut ahead = FAR;
    while first.is_alive() {
        ahead += Duration::from_secs(1);
        arm(&mut guard, ahead).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_ne!(successor(&node, hello.pid), first);
}

#[tokio::test]
async fn what_a_successor_cannot_know_is_not_acknowledged() {
    let node = strict();
    let (mut guard, hello) = node.connect().await;
    let at = arm(&mut guard, FAR).await;
    let first = successor(&node, hello.pid);
    let pid = rustix::process::Pid::from_raw(hello.pid);
    // No further descriptor, no further successor. What it has it may use and wait for.
    let few = Rlimit { current: Some(8), maximum: getrlimit(Resource::Nofile).maximum };
    let before = prlimit(pid, Resource::Nofile, few).unwrap();
    first.signal(Signal::KILL).unwrap();
    until(|| !first.is_alive());
    let order = Order::Arm { tenure: TENURE, at: at + FAR, instead_of: None };
    let report = ask(&mut guard, order.clone()).await;
    assert!(matches!(&report, Report::Refused { why, .. } if why.contains("successor")), "{report:?}");
    prlimit(pid, Resource::Nofile, before).unwrap();
    successor(&node, hello.pid);
    assert_eq!(ask(&mut guard, order).await, Report::Armed(Armed { tenure: TENURE, at: at + FAR }));
}

#[tokio::test]
async fn a_hold_outlives_the_guard_that_made_it() {
    let mut node = strict();
    node.start();
    let (mut guard, hello) = node.connect().await;
    node.watch(&mut guard).await;
    arm(&mut guard, FAR).await;
    assert!(matches!(ask(&mut guard, Order::Hold).await, Report::Held { .. }));
    process(hello.pid).signal(Signal::KILL).unwrap();
    let again = next_hello(&mut guard).await;
    assert!(again.held);
    assert!(matches!(ask(&mut guard, Order::Disarm { tenure: TENURE }).await, Report::Refused { .. }));
    assert_eq!(ask(&mut guard, Order::Resume).await, Report::Resumed);
    node.client().await.batch_execute("insert into t values (1)").await.unwrap();
}

// ---------------------------------------------------------------------------------------------------------------------
// Upgrades and ends

#[tokio::test]
async fn a_guard_that_executes_itself_anew_gets_a_new_successor() {
    let mut node = strict();
    node.start();
    let (mut guard, hello) = node.connect().await;
    node.watch(&mut guard).await;
    let at = arm(&mut guard, Duration::from_secs(4)).await;
    let armed = Some(Armed { tenure: TENURE, at });
    let first = successor(&node, hello.pid);
    process(hello.pid).signal(Signal::USR2).unwrap();
    let again = next_hello(&mut guard).await;
    assert_eq!((again.pid, again.armed, again.strict), (hello.pid, armed, true));
    let second = successor(&node, hello.pid);
    assert!(second != first && !first.is_alive());
    process(hello.pid).signal(Signal::KILL).unwrap();
    let third = next_hello(&mut guard).await;
    assert_eq!((third.pid, third.armed), (second.pid, armed));
    assert!(matches!(next(&mut guard).await, Report::Fired(fired) if fired.all_dead_at >= at));
    assert_eq!(node.alive(), NOBODY);
}

#[tokio::test]
async fn a_clean_end_leaves_nobody() {
    let node = strict();
    let (mut guard, hello) = node.connect().await;
    let first = successor(&node, hello.pid);
    // What ends a guard does not end its successor.
    first.signal(Signal::TERM).unwrap();
    arm(&mut guard, FAR).await;
    assert!(matches!(ask(&mut guard, Order::Retire).await, Report::Refused { .. }));
    assert_eq!(node.successor(hello.pid), Some(first));
    assert_eq!(ask(&mut guard, Order::Disarm { tenure: TENURE }).await, Report::Disarmed { tenure: TENURE });
    assert_eq!(ask(&mut guard, Order::Retire).await, Report::Gone);
    assert_eq!(node.helpers(), []);
}

#[tokio::test]
async fn a_signal_ends_both_once_nothing_is_armed() {
    let node = strict();
    let (mut guard, hello) = node.connect().await;
    successor(&node, hello.pid);
    process(hello.pid).signal(Signal::TERM).unwrap();
    assert_eq!(next(&mut guard).await, Report::Gone);
    assert_eq!(node.helpers(), []);
}

#[tokio::test]
async fn the_agent_says_whether_there_is_a_pair() {
    let mut node = GuardedNode::prepare();
    let (mut plain, hello) = node.connect().await;
    let at = arm(&mut plain, FAR).await;
    assert_eq!((hello.strict, node.successor(hello.pid)), (false, None));
    node.options.strict = true;
    let (_strict, again) = node.connect().await;
    assert_eq!((again.pid, again.strict, again.armed), (hello.pid, true, Some(Armed { tenure: TENURE, at })));
    let successor = successor(&node, hello.pid);
    node.options.strict = false;
    let (_plain, last) = node.connect().await;
    assert!(!last.strict);
    until(|| !successor.is_alive());
    assert_eq!(node.successor(hello.pid), None);
}

// ---------------------------------------------------------------------------------------------------------------------
// A measurement

/// What a guard that is the postmaster's parent would do (`PR_SET_PDEATHSIG`): docs/decisions/0009-guard-pair.md.
///
/// The procedure tells its client nothing: one that does ends as soon as it has to wait for its client.
#[tokio::test]
#[ignore = "a measurement, of something that is not done"]
async fn how_long_a_procedure_outlives_a_postmaster_that_dies_with_its_parent() {
    const WATCHED: Duration = Duration::from_secs(15);
    for _ in 0..3 {
        let mut node = GuardedNode::prepare();
        let (mut parent, postmaster) = node.start_below_a_parent();
        let (client, observer) = (node.client().await, node.client().await);
        client.batch_execute("create table commits (at timestamptz)").await.unwrap();
        let endless = "do $$ begin loop insert into commits values (clock_timestamp()); commit; end loop; end $$";
        let procedure = tokio::spawn(async move { client.batch_execute(endless).await });
        let count = "select count(*) from commits";
        until_async(async || observer.query_one(count, &[]).await.unwrap().get::<_, i64>(0) > 1000).await;
        let killed_at = SystemTime::now();
        parent.kill().unwrap();
        until(|| !postmaster.is_alive());
        let postmaster_took = killed_at.elapsed().unwrap();
        until_async(async || procedure.is_finished() || killed_at.elapsed().unwrap() > WATCHED).await;
        let ended = procedure.is_finished();
        node.kill_server();
        node.start();
        let sql = "select count(*), extract(epoch from max(at))::float8 from commits where at > to_timestamp($1)";
        let since = killed_at.duration_since(UNIX_EPOCH).unwrap().as_secs_f64() + postmaster_took.as_secs_f64();
        let row = node.client().await.query_one(sql, &[&since]).await.unwrap();
        let (commits, last): (i64, Option<f64>) = (row.get(0), row.get(1));
        println!(
            "the postmaster was dead {postmaster_took:?} after its parent was killed; the procedure committed {commits} \
             times after that, for {:.1} s; it {} by itself",
            last.map_or(0.0, |last| last - since),
            if ended { "ended" } else { "did not end" },
        );
        parent.wait().unwrap();
    }
}

fn strict() -> GuardedNode {
    let mut node = GuardedNode::prepare();
    node.options.strict = true;
    node
}

fn process(pid: i32) -> Process {
    Process::find(pid).unwrap().expect("a process")
}

/// The successor, as soon as there is one.
fn successor(node: &GuardedNode, guard: i32) -> Process {
    until(|| node.successor(guard).is_some());
    node.successor(guard).unwrap()
}

/// Arms as an agent does, which asks again when it is refused.
async fn arm(guard: &mut Guard, ahead: Duration) -> Instant {
    let at = clock::now() + ahead;
    loop {
        match ask(guard, Order::Arm { tenure: TENURE, at, instead_of: None }).await {
            Report::Armed(armed) => return armed.at,
            Report::Refused { why, .. } => assert!(why.contains("successor"), "{why}"),
            report => panic!("{report:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn next_hello(guard: &mut Guard) -> Hello {
    match next(guard).await {
        Report::Hello(hello) => hello,
        report => panic!("no hello but {report:?}"),
    }
}
