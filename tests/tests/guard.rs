//! The guard against a real PostgreSQL: nothing is acknowledged after the end of authority, and nothing is killed that
//! has the right to live.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use matriarch::clock;
use matriarch::guard::{Armed, Order, Report};
use matriarch::processes::Process;
use matriarch_core::id::LeaseId;
use matriarch_tests::guarded::{self, GuardedNode, Load, TENURE, ask, next, shell, until, until_async};
use rustix::process::Signal;

const NOBODY: [i32; 0] = [];
const FAR: Duration = Duration::from_mins(10);

/// Not a test of its own.
#[test]
fn agent_process() {
    guarded::agent_process();
}

// ---------------------------------------------------------------------------------------------------------------------
// The fence

#[tokio::test]
async fn nothing_is_acknowledged_after_the_fence() {
    let mut node = GuardedNode::prepare();
    node.start();
    let load = Load::start(&node, 10);
    let (mut guard, _) = node.connect().await;
    node.watch(&mut guard).await;
    let at = clock::now() + Duration::from_secs(1);
    assert_eq!(
        ask(&mut guard, Order::Arm { tenure: TENURE, at, instead_of: None }).await,
        Report::Armed(Armed { tenure: TENURE, at })
    );
    let Report::Fired(fired) = next(&mut guard).await else { panic!("not fired") };
    assert_eq!(node.alive(), NOBODY, "alive after the guard said that all are dead");
    assert_eq!(fired.tenure, Some(TENURE));
    assert!(fired.all_dead_at >= at);
    assert!(fired.processes > 10);
    let acknowledged = load.broken();
    assert!(acknowledged.len() > 100, "only {} commits before the fence", acknowledged.len());
    assert!(acknowledged.iter().all(|commit| commit.sent < fired.all_dead_at));

    // What the next tenure starts is not the fence's to kill, and the spent one is not armed again.
    node.start();
    node.watch(&mut guard).await;
    let at = clock::now() + FAR;
    assert!(matches!(
        ask(&mut guard, Order::Arm { tenure: TENURE, at, instead_of: None }).await,
        Report::Refused { .. }
    ));
    let tenure = LeaseId(43);
    assert_eq!(ask(&mut guard, Order::Arm { tenure, at, instead_of: None }).await, Report::Armed(Armed { tenure, at }));
    assert!(node.alive().len() > 3);
}

#[tokio::test]
async fn a_postmaster_that_is_stopped_dies_too() {
    let mut node = GuardedNode::prepare();
    node.start();
    let load = Load::start(&node, 4);
    let (mut guard, _) = node.connect().await;
    node.watch(&mut guard).await;
    let at = clock::now() + Duration::from_secs(1);
    ask(&mut guard, Order::Arm { tenure: TENURE, at, instead_of: None }).await;
    node.postmaster().signal(Signal::STOP).unwrap();
    let Report::Fired(fired) = next(&mut guard).await else { panic!("not fired") };
    assert_eq!(node.alive(), NOBODY);
    assert!(load.broken().iter().all(|commit| commit.sent < fired.all_dead_at));
}

#[tokio::test]
async fn a_postmaster_nobody_told_of_dies_too() {
    let mut node = GuardedNode::prepare();
    node.start();
    let (mut guard, _) = node.connect().await;
    assert!(node.alive().len() > 3);
    let Report::Fired(fired) = ask(&mut guard, Order::Fire { why: "test".into() }).await else { panic!("not fired") };
    assert_eq!((fired.tenure, node.alive()), (None, NOBODY.to_vec()));
}

#[tokio::test]
async fn orphans_are_killed_but_not_while_their_postmaster_lives() {
    let mut node = GuardedNode::prepare();
    node.start();
    let (mut guard, _) = node.connect().await;
    node.watch(&mut guard).await;
    assert!(matches!(ask(&mut guard, Order::KillOrphans).await, Report::Refused { .. }));
    let client = node.client().await;
    let endless = "do $$ begin loop insert into t values (1); commit; end loop; end $$";
    let statement = tokio::spawn(async move { client.batch_execute(endless).await });
    let observer = node.client().await;
    until_async(async || observer.query_one("select count(*) from t", &[]).await.unwrap().get::<_, i64>(0) > 10).await;
    node.postmaster().signal(Signal::KILL).unwrap();
    until(|| !node.postmaster().is_alive());
    assert!(!node.alive().is_empty(), "the backend that commits in a loop outlives its postmaster");
    // The guard refuses as long as it has not seen the postmaster's end itself; an agent asks again.
    let report = loop {
        match ask(&mut guard, Order::KillOrphans).await {
            Report::Refused { .. } => tokio::time::sleep(Duration::from_millis(5)).await,
            report => break report,
        }
    };
    let Report::OrphansDead { processes } = report else { panic!("not dead: {report:?}") };
    assert!(processes >= 1);
    assert_eq!(node.alive(), NOBODY);
    assert!(statement.await.unwrap().is_err());
    assert_eq!(ask(&mut guard, Order::KillOrphans).await, Report::OrphansDead { processes: 0 });
    node.start();
}

#[tokio::test]
async fn a_hold_is_noticed_by_no_client() {
    let mut node = GuardedNode::prepare();
    node.start();
    let (mut guard, _) = node.connect().await;
    node.watch(&mut guard).await;
    assert!(matches!(ask(&mut guard, Order::Hold).await, Report::Refused { .. }), "nothing would end it");
    let at = clock::now() + FAR;
    ask(&mut guard, Order::Arm { tenure: TENURE, at, instead_of: None }).await;
    let load = Load::start(&node, 8);
    load.wait_for(load.count() + 200);
    let Report::Held { processes, .. } = ask(&mut guard, Order::Hold).await else { panic!("not held") };
    assert!(processes > 8);
    // Replies that were under way may still be read; then nothing comes.
    let mut before = load.count();
    until(|| {
        std::thread::sleep(Duration::from_millis(200));
        std::mem::replace(&mut before, load.count()) == load.count()
    });
    assert!(matches!(ask(&mut guard, Order::Disarm { tenure: TENURE }).await, Report::Refused { .. }));
    assert_eq!(load.count(), before, "a commit was acknowledged while everything was held");
    assert_eq!(ask(&mut guard, Order::Resume).await, Report::Resumed);
    load.wait_for(before + 200);
    load.finish();
}

#[tokio::test]
async fn what_is_held_is_killed_at_the_end_of_authority() {
    let mut node = GuardedNode::prepare();
    node.start();
    let (mut guard, _) = node.connect().await;
    node.watch(&mut guard).await;
    let at = clock::now() + Duration::from_secs(1);
    ask(&mut guard, Order::Arm { tenure: TENURE, at, instead_of: None }).await;
    assert!(matches!(ask(&mut guard, Order::Hold).await, Report::Held { .. }));
    assert!(matches!(next(&mut guard).await, Report::Fired(fired) if fired.all_dead_at >= at));
    assert_eq!(node.alive(), NOBODY);
}

#[tokio::test]
async fn orphans_are_not_resumed_without_their_postmaster() {
    let mut node = GuardedNode::prepare();
    node.start();
    let (mut guard, _) = node.connect().await;
    node.watch(&mut guard).await;
    let at = clock::now() + FAR;
    ask(&mut guard, Order::Arm { tenure: TENURE, at, instead_of: None }).await;
    assert!(matches!(ask(&mut guard, Order::Hold).await, Report::Held { .. }));
    node.postmaster().signal(Signal::KILL).unwrap();
    until(|| !node.postmaster().is_alive());
    assert!(matches!(ask(&mut guard, Order::Resume).await, Report::Refused { .. }));
    assert!(matches!(ask(&mut guard, Order::Fire { why: "test".into() }).await, Report::Fired(_)));
    assert_eq!(node.alive(), NOBODY);
}

// ---------------------------------------------------------------------------------------------------------------------
// The agent's death and silence

#[tokio::test]
async fn a_dead_agent_has_its_tenure_given_back_once_after_a_clean_shutdown() {
    let mut node = GuardedNode::prepare();
    node.start();
    let (mut agent, hello) = node.agent(FAR);
    let guard = Process::find(hello.pid).unwrap().unwrap();
    agent.kill().unwrap();
    until(|| !guard.is_alive());
    assert_eq!(node.alive(), NOBODY);
    assert_eq!(node.released(), "42\n");
    assert!(node.control_data().contains("shut down\n"), "{}", node.control_data());
    agent.wait().unwrap();
}

#[tokio::test]
async fn a_release_that_fails_is_tried_again() {
    let mut node = GuardedNode::prepare();
    node.options.release_command =
        shell(&format!("echo {{tenure}} >> {0}; test $(wc -l < {0}) -ge 3", node.path("released").display()));
    node.start();
    let (mut agent, hello) = node.agent(FAR);
    let guard = Process::find(hello.pid).unwrap().unwrap();
    agent.kill().unwrap();
    until(|| !guard.is_alive());
    assert_eq!(node.released(), "42\n42\n42\n");
    agent.wait().unwrap();
}

/// The race: starting the command waits for the disk, if that hangs; and the next tenure has an end that must be kept.
#[tokio::test]
async fn a_release_is_not_tried_again_under_the_next_tenure() {
    let mut node = GuardedNode::prepare();
    node.options.release_command = shell(&format!("echo {{tenure}} >> {}; exit 1", node.path("released").display()));
    node.start();
    let (mut agent, _) = node.agent(FAR);
    agent.kill().unwrap();
    until(|| !node.released().is_empty());
    let (mut guard, _) = node.connect().await;
    let at = clock::now() + FAR;
    let order = Order::Arm { tenure: LeaseId(43), at, instead_of: None };
    assert_eq!(ask(&mut guard, order).await, Report::Armed(Armed { tenure: LeaseId(43), at }));
    // One attempt may be under way.
    let attempts = node.released().lines().count() + 1;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(node.released().lines().count() <= attempts, "{}", node.released());
    agent.wait().unwrap();
}

#[tokio::test]
async fn an_agent_that_is_back_within_the_grace_finds_everything_as_it_was() {
    let mut node = GuardedNode::prepare();
    node.options.restart_grace = Duration::from_secs(2);
    node.start();
    let (mut agent, first) = node.agent(FAR);
    agent.kill().unwrap();
    let (guard, hello) = node.connect().await;
    agent.wait().unwrap();
    assert_eq!(hello.pid, first.pid);
    assert_eq!(hello.armed, first.armed);
    assert!(hello.armed.is_some_and(|armed| armed.tenure == TENURE));
    assert_eq!(hello.fired, None);
    tokio::time::sleep(node.options.restart_grace + Duration::from_millis(500)).await;
    node.client().await.batch_execute("insert into t values (1)").await.unwrap();
    assert!(node.postmaster().is_alive());
    assert_eq!(node.released(), "");
    drop(guard);
}

#[tokio::test]
async fn a_frozen_agent_is_fenced_at_the_end_of_authority_and_keeps_its_lease() {
    let mut node = GuardedNode::prepare();
    node.start();
    let load = Load::start(&node, 4);
    let (mut agent, first) = node.agent(Duration::from_secs(1));
    let armed = first.armed.unwrap();
    let frozen = Process::find(agent.id().cast_signed()).unwrap().unwrap();
    frozen.signal(Signal::STOP).unwrap();
    let acknowledged = load.broken();
    until(|| node.alive().is_empty());
    let (guard, hello) = node.connect().await;
    let fired = hello.fired.unwrap();
    assert_eq!((hello.pid, fired.tenure, hello.armed), (first.pid, Some(TENURE), None));
    assert!(fired.all_dead_at >= armed.at);
    assert!(acknowledged.iter().all(|commit| commit.sent < fired.all_dead_at));
    assert!(acknowledged.iter().any(|commit| commit.heard > armed.at.back(Duration::from_millis(500))));
    assert_eq!(node.released(), "");
    agent.kill().unwrap();
    agent.wait().unwrap();
    drop(guard);
}

#[tokio::test]
async fn a_standby_is_left_alone_when_its_agent_dies() {
    let mut node = GuardedNode::prepare();
    node.start();
    let (mut agent, hello) = node.agent(Duration::ZERO);
    let guard = Process::find(hello.pid).unwrap().unwrap();
    agent.kill().unwrap();
    until(|| !guard.is_alive());
    node.client().await.batch_execute("insert into t values (1)").await.unwrap();
    assert_eq!(node.released(), "");
    agent.wait().unwrap();
}

// ---------------------------------------------------------------------------------------------------------------------
// Orders

#[tokio::test]
async fn arming_only_grows_and_only_for_one_tenure() {
    let node = GuardedNode::prepare();
    let (mut guard, hello) = node.connect().await;
    assert_eq!((hello.armed, hello.held, hello.fired), (None, false, None));
    let at = clock::now() + FAR;
    let armed = Report::Armed(Armed { tenure: TENURE, at });
    assert_eq!(ask(&mut guard, Order::Arm { tenure: TENURE, at, instead_of: None }).await, armed);
    let sooner = at.back(Duration::from_mins(1));
    assert_eq!(ask(&mut guard, Order::Arm { tenure: TENURE, at: sooner, instead_of: None }).await, armed);
    let past = clock::now();
    assert!(matches!(
        ask(&mut guard, Order::Arm { tenure: TENURE, at: past, instead_of: None }).await,
        Report::Refused { .. }
    ));
    let other = LeaseId(43);
    assert!(matches!(
        ask(&mut guard, Order::Arm { tenure: other, at, instead_of: None }).await,
        Report::Refused { .. }
    ));
    assert!(matches!(ask(&mut guard, Order::Disarm { tenure: other }).await, Report::Refused { .. }));
    assert!(matches!(ask(&mut guard, Order::Retire).await, Report::Refused { .. }));
    assert_eq!(ask(&mut guard, Order::Disarm { tenure: TENURE }).await, Report::Disarmed { tenure: TENURE });
    let armed = Report::Armed(Armed { tenure: other, at });
    assert_eq!(ask(&mut guard, Order::Arm { tenure: other, at, instead_of: None }).await, armed);
    assert_eq!(ask(&mut guard, Order::Disarm { tenure: other }).await, Report::Disarmed { tenure: other });
    assert_eq!(ask(&mut guard, Order::Retire).await, Report::Gone);
}

#[tokio::test]
async fn a_later_agent_supersedes_an_earlier_one() {
    let node = GuardedNode::prepare();
    let (mut first, hello) = node.connect().await;
    let (mut second, again) = node.connect().await;
    assert_eq!(hello.pid, again.pid);
    assert!(matches!(next(&mut first).await, Report::Superseded { .. }));
    assert!(first.reports.recv().await.is_none());
    let report = ask(&mut second, Order::Postmaster { pid: 0, start_ticks: 0 }).await;
    assert_eq!(report, Report::Watching { pid: 0, why_no_cgroup: None });
}

#[tokio::test]
async fn a_foreign_user_gives_no_orders() {
    if !rustix::process::geteuid().is_root() {
        println!("not run: it needs root to become another user");
        return;
    }
    let node = GuardedNode::prepare();
    let (mut guard, _) = node.connect().await;
    let at = clock::now() + FAR;
    let armed = Report::Armed(Armed { tenure: TENURE, at });
    assert_eq!(ask(&mut guard, Order::Arm { tenure: TENURE, at, instead_of: None }).await, armed);
    // The directory alone keeps others out; here the credentials have to.
    for path in [node.path(""), node.options.state_dir.clone()] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let script = "import socket,sys\ns=socket.socket(socket.AF_UNIX);s.connect(sys.argv[1])\n\
                  try:\n s.sendall(b'{\"Hello\":{\"protocol\":1}}\\n\"Retire\"\\n');print(len(s.recv(99)))\n\
                  except OSError: print(0)";
    let foreign = Command::new("python3")
        .args(["-c", script])
        .arg(node.options.state_dir.join("guard.sock"))
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&foreign.stdout), "0\n", "{}", String::from_utf8_lossy(&foreign.stderr));
    assert_eq!(
        ask(&mut guard, Order::Arm { tenure: TENURE, at, instead_of: None }).await,
        armed,
        "the agent is the agent still"
    );
}

#[tokio::test]
async fn a_guard_executes_itself_anew_and_fences_in_time() {
    let mut node = GuardedNode::prepare();
    node.start();
    let (mut guard, hello) = node.connect().await;
    node.watch(&mut guard).await;
    let at = clock::now() + Duration::from_secs(4);
    ask(&mut guard, Order::Arm { tenure: TENURE, at, instead_of: None }).await;
    let process = Process::find(hello.pid).unwrap().unwrap();
    process.signal(Signal::USR2).unwrap();
    let Report::Hello(again) = next(&mut guard).await else { panic!("no hello") };
    assert_eq!((again.pid, again.armed), (hello.pid, Some(Armed { tenure: TENURE, at })));
    let command = fs::read_to_string(format!("/proc/{}/cmdline", hello.pid)).unwrap();
    assert!(command.contains("--carried"), "it did not execute itself anew: {command}");
    assert!(matches!(next(&mut guard).await, Report::Fired(fired) if fired.all_dead_at >= at));
    assert_eq!(node.alive(), NOBODY);
    assert_eq!(Process::find(hello.pid).unwrap(), Some(process), "the same process");
}

#[tokio::test]
async fn a_signal_ends_a_guard_only_when_nothing_is_armed() {
    let node = GuardedNode::prepare();
    let (mut guard, hello) = node.connect().await;
    let at = clock::now() + FAR;
    let arm = Order::Arm { tenure: TENURE, at, instead_of: None };
    ask(&mut guard, arm.clone()).await;
    let process = Process::find(hello.pid).unwrap().unwrap();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        process.signal(signal).unwrap();
    }
    assert_eq!(ask(&mut guard, arm).await, Report::Armed(Armed { tenure: TENURE, at }));
    assert!(process.is_alive());
    ask(&mut guard, Order::Disarm { tenure: TENURE }).await;
    process.signal(Signal::TERM).unwrap();
    assert_eq!(next(&mut guard).await, Report::Gone);
    assert!(guard.reports.recv().await.is_none());
}

#[tokio::test]
async fn a_guard_that_was_killed_is_reported_and_replaced() {
    let mut node = GuardedNode::prepare();
    // Longer than the path of a Unix socket may be.
    node.options.state_dir = node.path(&"long/".repeat(30));
    let (mut guard, hello) = node.connect().await;
    Process::find(hello.pid).unwrap().unwrap().signal(Signal::KILL).unwrap();
    assert_eq!(next(&mut guard).await, Report::Gone);
    let (mut guard, again) = node.connect().await;
    assert_ne!(hello.pid, again.pid);
    assert_eq!(ask(&mut guard, Order::Retire).await, Report::Gone);
}
