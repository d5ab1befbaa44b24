//! The operator's scripts on the way of an order.

use std::path::Path;

use matriarch::clock;
use matriarch::hooks::{CommandLine, Hooks};
use matriarch::postgres::{Allowance, Server};
use matriarch_core::action::PostgresAction;
use matriarch_core::event::PostgresDone;
use matriarch_core::id::{LeaseId, Timeline};
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::view::guard::Armed;

use super::*;

const PROMOTE: PostgresAction = PostgresAction::Promote { timeline: Timeline(2) };

/// `text` in a shell.
fn shell(text: &str) -> Option<CommandLine> {
    CommandLine::parse(&format!("/bin/sh -c '{text}' sh")).unwrap()
}

fn set(node: &Node, hooks: Hooks, patience: Duration) {
    let mut settings = (*node.postgres.settings()).clone();
    (settings.hooks, settings.pg_ctl_timeout) = (hooks, patience);
    node.postgres.apply_settings(settings);
}

async fn carry_out(node: &Node, action: PostgresAction, allowance: &Allowance) -> Outcome<PostgresDone> {
    Server::carry_out(&node.postgres, action, allowance).await
}

/// The number that a script has written.
async fn written(file: &Path) -> i32 {
    let number = || std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
    until(async || number().is_some()).await;
    number().unwrap()
}

async fn gone(pid: i32) {
    until(async || !Path::new(&format!("/proc/{pid}")).exists()).await;
}

/// The promise is not prolonged, as when the store is away: the script has no say any more, and nothing is promoted.
#[tokio::test]
async fn a_pre_promote_does_not_outlive_the_promise_that_it_runs_under() {
    let base = base();
    let primary = Node::primary(base.path(), "primary").await;
    let standby = primary.clone_as(base.path(), "standby").await;
    let file = standby.home.join("pid");
    let hangs = shell(&format!("echo $$ > {}; sleep 600; true", file.display()));
    set(&standby, Hooks { pre_promote: hangs, ..Hooks::default() }, LONG);
    let armed = Armed { tenure: LeaseId(1), at: clock::now() + Duration::from_secs(2) };
    let allowance = Allowance::under(armed, clock::host());
    assert_eq!(carry_out(&standby, PROMOTE, &allowance).await, Outcome::Refused(Refusal::NotOurTenure));
    assert!(clock::now() >= armed.at, "it was waited for as long as the promise held");
    gone(written(&file).await).await;
    // The order loses its lane.
    std::fs::remove_file(&file).unwrap();
    let allowance = any_time();
    tokio::select! {
        outcome = carry_out(&standby, PROMOTE, &allowance) => panic!("{outcome:?}"),
        pid = written(&file) => assert!(Path::new(&format!("/proc/{pid}")).exists()),
    }
    gone(written(&file).await).await;
    assert!(standby.sql().await.in_recovery);

    set(&standby, Hooks { pre_promote: shell("exit 7"), ..Hooks::default() }, LONG);
    let refused = carry_out(&standby, PROMOTE, &any_time()).await;
    assert!(matches!(&refused, Outcome::Refused(Refusal::Vetoed(why)) if why.contains("status: 7")), "{refused:?}");
    assert!(standby.sql().await.in_recovery);
    let asks = shell(&format!("! [ -e {} ]", standby.data_dir().join("promote").display()));
    set(&standby, Hooks { pre_promote: asks, ..Hooks::default() }, LONG);
    assert_eq!(carry_out(&standby, PROMOTE, &any_time()).await, Outcome::Done(PostgresDone::Done));
    assert!(!standby.sql().await.in_recovery);
}

#[tokio::test]
async fn before_stop_comes_before_a_stop_and_does_not_keep_it_for_ever() {
    let base = base();
    let node = Node::primary(base.path(), "a").await;
    let file = node.home.join("seen");
    let pid_file = node.data_dir().join("postmaster.pid");
    // Its exit status is no matter.
    let looks = |then: &str| shell(&format!("head -n 1 {} > {}; {then}", pid_file.display(), file.display()));
    let stop = |mode| PostgresAction::Stop(mode);
    let restarted = || async {
        std::fs::remove_file(&file).unwrap();
        done(node.postgres.start(StartAs::Primary, &any_time()).await);
        pid_of(node.postgres.observe_process().await).0
    };
    set(&node, Hooks { before_stop: looks("exit 1"), ..Hooks::default() }, LONG);
    let pid = pid_of(node.postgres.observe_process().await).0;
    done(carry_out(&node, stop(StopMode::Fast), &any_time()).await);
    assert_eq!(written(&file).await, pid, "PostgreSQL was there");
    // Nothing is there to be stopped.
    std::fs::remove_file(&file).unwrap();
    done(carry_out(&node, stop(StopMode::Fast), &any_time()).await);
    assert!(!file.exists());
    std::fs::write(&file, "").unwrap();

    let pid = restarted().await;
    done(carry_out(&node, PostgresAction::Restart, &any_time()).await);
    assert_eq!(written(&file).await, pid);
    // What is stopped at once, as what is fenced, waits for no script.
    std::fs::remove_file(&file).unwrap();
    done(carry_out(&node, stop(StopMode::Immediate), &any_time()).await);
    assert!(!file.exists());
    std::fs::write(&file, "").unwrap();

    restarted().await;
    set(&node, Hooks { before_stop: looks("sleep 600; true"), ..Hooks::default() }, Duration::from_secs(1));
    done(carry_out(&node, stop(StopMode::Fast), &any_time()).await);
    node.check_control("shut down");
}
