//! The operator's scripts on the way of an order.

use std::path::Path;

use matriarch::clock;
use matriarch::hooks::{CommandLine, Hooks, Method, ReplicaMethod};
use matriarch::postgres::{Allowance, Server, tools};
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
    // Looked at before the order is dropped: that kills it.
    let runs = async {
        let pid = written(&file).await;
        assert!(Path::new(&format!("/proc/{pid}")).exists());
    };
    tokio::select! {
        outcome = carry_out(&standby, PROMOTE, &allowance) => panic!("{outcome:?}"),
        () = runs => {}
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

/// A replica method that runs `text`, with `$d` and `$c` for the data directory and whom to connect to.
fn method(node: &Node, name: &str, text: &str, no_leader: bool, keep_data: bool) -> ReplicaMethod {
    let script = node.home.join(name);
    let head = "for arg; do case $arg in --datadir=*) d=${arg#*=};; --connstring=*) c=${arg#*=};; esac; done";
    std::fs::write(&script, format!("echo \"$*\" > $0.called\n{head}\n{text}\n")).unwrap();
    let command = CommandLine::parse(&format!("/bin/sh {}", script.display())).unwrap().unwrap();
    let own = vec![("threads".to_owned(), "4".to_owned())];
    let script = Method { name: name.to_owned(), command, own, takes_ours: true };
    ReplicaMethod::Script { script, no_leader, keep_data }
}

fn called(node: &Node, name: &str) -> Option<String> {
    std::fs::read_to_string(node.home.join(format!("{name}.called"))).ok()
}

#[tokio::test]
async fn replica_methods_are_tried_until_one_has_made_a_replica() {
    let base = base();
    let primary = Node::primary(base.path(), "primary").await;
    let node = Node::new(base.path(), "node");
    let basebackup = tools::locate(&node.postgres.settings(), "pg_basebackup").unwrap().display().to_string();
    let methods = vec![
        method(&node, "fails", "echo half > $d/half; exit 1", false, false),
        method(&node, "lies", "[ -z \"$(ls -A $d)\" ] && touch $d/not_a_cluster", false, false),
        method(
            &node,
            "copies",
            &format!("{basebackup} -D $d -X stream -c fast -d \"$c\" && touch $d/copied"),
            false,
            false,
        ),
        method(&node, "later", "", false, false),
    ];
    set(&node, Hooks { replica_methods: methods, ..Hooks::default() }, LONG);
    done(carry_out(&node, PostgresAction::Clone(primary.upstream()), &any_time()).await);
    assert!(["fails", "lies"].iter().all(|name| called(&node, name).is_some()) && called(&node, "later").is_none());
    let (data, port) = (node.data_dir(), primary.upstream().port);
    assert!(data.join("copied").exists() && !data.join("half").exists() && !data.join("not_a_cluster").exists());
    assert!(node.cluster().await.tainted.is_none());
    let arguments = called(&node, "copies").unwrap();
    let ours =
        format!("--threads=4 --scope=batman --role=replica --datadir={} --connstring=dbname=postgres ", data.display());
    assert!(arguments.starts_with(&ours), "{arguments}");
    assert!(arguments.contains(&format!(" host=127.0.0.1 port={port} ")), "{arguments}");
    assert!(!arguments.contains(REPLICATION_PASSWORD) && !arguments.contains("geheim"), "{arguments}");
    done(primary.postgres.create_slot("node").await);
    done(node.postgres.start(StartAs::Standby(Some(primary.upstream())), &any_time()).await);
    until(async || node.sql().await.receiver.is_some_and(|r| r.streaming)).await;

    // All fail: nothing is left of what they made.
    done(node.postgres.stop(StopMode::Fast, LONG).await);
    let fails = vec![method(&node, "fails", "touch $d/half; exit 1", false, false)];
    set(&node, Hooks { replica_methods: fails, ..Hooks::default() }, LONG);
    let why = refused(carry_out(&node, PostgresAction::Clone(primary.upstream()), &any_time()).await);
    assert!(why.contains("fails: /bin/sh failed"), "{why}");
    assert_eq!(node.postgres.observe_data().await, DataDir::Empty);
}

#[tokio::test]
async fn without_a_leader_only_what_needs_none_is_tried_and_data_are_kept_if_wished() {
    let base = base();
    let primary = Node::primary(base.path(), "primary").await;
    let node = Node::new(base.path(), "node");
    let backup = node.home.join("backup");
    let basebackup = tools::locate(&node.postgres.settings(), "pg_basebackup").unwrap().display().to_string();
    let copy = |text: &str| format!("{text}; {basebackup} -D {} -X stream -c fast -d \"$c\"", backup.display());
    let backs_up = vec![method(&node, "backs_up", &copy("exec 2>&1"), false, false)];
    set(&node, Hooks { replica_methods: backs_up, ..Hooks::default() }, LONG);
    refused(carry_out(&node, PostgresAction::Clone(primary.upstream()), &any_time()).await);
    assert!(backup.join("PG_VERSION").exists());

    let needs = || method(&node, "needs_a_leader", "", false, false);
    let restores = format!("[ -z \"$c\" ] && cp -a {}/. $d", backup.display());
    let methods = vec![ReplicaMethod::Basebackup, needs(), method(&node, "restores", &restores, true, false)];
    set(&node, Hooks { replica_methods: methods, ..Hooks::default() }, LONG);
    done(carry_out(&node, PostgresAction::Restore, &any_time()).await);
    assert!(called(&node, "needs_a_leader").is_none());
    assert!(called(&node, "restores").unwrap().trim_end().ends_with("--connstring="));
    assert_eq!(node.cluster().await.system_id, primary.cluster().await.system_id);

    // What is there is found by a method that keeps it, also after it has failed, and is marked then.
    std::fs::write(node.data_dir().join("mine"), "").unwrap();
    let keeps = |then: &str| vec![method(&node, "keeps", &format!("[ -e $d/mine ] && {then}"), false, true)];
    set(&node, Hooks { replica_methods: keeps("exit 1"), ..Hooks::default() }, LONG);
    refused(carry_out(&node, PostgresAction::Clone(primary.upstream()), &any_time()).await);
    let left = node.cluster().await;
    assert!(left.tainted.as_ref().is_some_and(|why| why.contains("keeps")), "{left:?}");
    set(&node, Hooks { replica_methods: keeps("touch $d/mended"), ..Hooks::default() }, LONG);
    done(carry_out(&node, PostgresAction::Clone(primary.upstream()), &any_time()).await);
    assert!(node.data_dir().join("mended").exists() && node.cluster().await.tainted.is_none());
    done(primary.postgres.create_slot("node").await);
    done(node.postgres.start(StartAs::Standby(Some(primary.upstream())), &any_time()).await);
    until(async || node.sql().await.receiver.is_some_and(|r| r.streaming)).await;
}

/// The bug: the source was asked once, before the first method, and one that came an hour later wiped what was left.
#[tokio::test]
async fn a_source_that_is_gone_by_the_next_method_costs_no_data() {
    let base = base();
    let primary = Node::primary(base.path(), "primary").await;
    let node = primary.clone_as(base.path(), "node").await;
    done(node.postgres.stop(StopMode::Fast, LONG).await);
    let kills = format!("kill -QUIT $(head -n 1 {}/postmaster.pid); sleep 1; exit 1", primary.data_dir().display());
    let methods = vec![method(&node, "tries", &kills, false, true), ReplicaMethod::Basebackup];
    set(&node, Hooks { replica_methods: methods, ..Hooks::default() }, LONG);
    let refused = carry_out(&node, PostgresAction::Clone(primary.upstream()), &any_time()).await;
    let kept = |why: &str| why.contains("status: 1") && why.contains("the data directory is kept");
    assert!(matches!(&refused, Outcome::Refused(Refusal::Failed(why)) if kept(why)), "{refused:?}");
    node.check_control("shut down in recovery");
}

/// The bug: a fence took the server away beneath the script, and what had been restored for hours was put aside as if the
/// operator had refused it.
#[tokio::test]
async fn a_server_that_ends_beneath_post_bootstrap_is_not_given_up() {
    let base = base();
    let node = Node::new(base.path(), "node");
    let create = async |text: &str| {
        set(&node, Hooks { post_bootstrap: shell(text), ..Hooks::default() }, LONG);
        carry_out(&node, PostgresAction::CreateRoles, &any_time()).await
    };
    done(carry_out(&node, PostgresAction::Initdb, &any_time()).await);
    done(carry_out(&node, PostgresAction::Start(StartAs::Primary), &any_time()).await);
    let kills = format!("kill -QUIT $(head -n 1 {}/postmaster.pid); sleep 1; exit 1", node.data_dir().display());
    let refused = create(&kills).await;
    assert!(matches!(&refused, Outcome::Refused(Refusal::Failed(why)) if why.contains("asked again")), "{refused:?}");
    assert!(node.data_dir().join("PG_VERSION").exists());
    done(carry_out(&node, PostgresAction::Start(StartAs::Primary), &any_time()).await);
    assert!(matches!(create("exit 1").await, Outcome::Refused(Refusal::Failed(_))));
    assert!(!node.data_dir().join("PG_VERSION").exists(), "that is the operator's no");
}
