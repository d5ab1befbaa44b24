//! What operators have run at the events of a cluster's life.

use std::fs;
use std::time::Duration;

use matriarch_tests::scripts::{callbacks, file, lines, shell};
use matriarch_tests::{Answer, Cluster, Ended, Node, Plan, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};

const HEAL_LIMIT: Duration = Duration::from_secs(90);
const SERVICE_LIMIT: Duration = Duration::from_secs(30);

/// The configuration of one node.
fn yaml(node: &Node) -> Value {
    serde_yaml::from_str(&fs::read_to_string(node.config()).unwrap()).unwrap()
}

/// Starts a cluster whose nodes have more in their configuration.
async fn started(plan: Plan, extra: impl Fn(&Node) -> Value) -> (Cluster, usize) {
    let mut cluster = Cluster::prepare(plan).await;
    for node in &mut cluster.nodes {
        node.configure(&extra(node));
        node.start();
    }
    let primary = cluster.healed(HEAL_LIMIT).await;
    (cluster, primary)
}

async fn switch(from: &Node, to: &Node) -> Answer {
    from.post("/switchover", &json!({"leader": from.name, "candidate": to.name})).await
}

async fn switched(from: &Node, to: &Node) {
    let answer = switch(from, to).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// What a node's callbacks were called with, reloads aside, once there is that much.
async fn called(node: &Node, wanted: &[&str]) {
    eventually(&format!("{} calls {wanted:?}", node.name), SERVICE_LIMIT, async || {
        let calls = lines(node, "calls");
        let changes: Vec<_> = calls.iter().filter(|call| !call.starts_with("on_reload")).collect();
        if changes == wanted { Ok(()) } else { Err(format!("{calls:?}")) }
    })
    .await;
}

#[tokio::test]
async fn callbacks_are_called_as_patroni_calls_them() {
    let (mut cluster, first) = started(Plan::default(), |node| {
        let calls = file(node, "calls").display().to_string();
        callbacks(&shell(&format!("echo \"$*\" >> {calls}; echo heard: $1; env >> {calls}.env")))
    })
    .await;
    let others = cluster.others(first);
    let (second, third) = (others[0], others[1]);
    called(&cluster.nodes[first], &["on_start primary test"]).await;
    for other in [second, third] {
        called(&cluster.nodes[other], &["on_start replica test"]).await;
    }

    switched(&cluster.nodes[first], &cluster.nodes[second]).await;
    assert_eq!(cluster.healed(HEAL_LIMIT).await, second);
    let stepped_down = ["on_start primary test", "on_stop primary test", "on_role_change replica test"];
    called(&cluster.nodes[first], &stepped_down).await;
    called(&cluster.nodes[second], &["on_start replica test", "on_role_change primary test"]).await;
    called(&cluster.nodes[third], &["on_start replica test"]).await;

    let node = &cluster.nodes[third];
    assert_eq!(node.post("/restart", &json!({})).await.status, 200);
    called(node, &["on_start replica test", "on_restart replica test"]).await;
    let text = fs::read_to_string(node.config()).unwrap();
    let reloads = lines(node, "calls").len();
    fs::write(node.config(), text.replace("unix_socket_directories", "work_mem: 5MB\n    unix_socket_directories"))
        .unwrap();
    node.agent().signal(Signal::HUP);
    eventually("on_reload is called", SERVICE_LIMIT, async || {
        let calls = lines(node, "calls");
        let called = calls[reloads..] == ["on_reload replica test"];
        if called { Ok(()) } else { Err(format!("{calls:?}")) }
    })
    .await;

    // An agent that comes back to a running server tells its scripts so; one that leaves, that it was stopped.
    let node = &mut cluster.nodes[third];
    node.agent().kill();
    node.agent_ended(SERVICE_LIMIT);
    node.start();
    let so_far = ["on_start replica test", "on_restart replica test", "on_start replica test"];
    called(node, &so_far).await;
    node.agent().signal(Signal::TERM);
    assert_eq!(node.agent_ended(SERVICE_LIMIT), Ended::Exit(0));
    called(node, &[so_far[0], so_far[1], so_far[2], "on_stop replica test"]).await;

    let log = node.log();
    assert!(log.contains("on_restart: heard: on_restart"), "what a script says is in the log");
    let secrets = ["secret of the superuser", "secret of the replica", "PATRONI", "MATRIARCH"];
    let told = lines(node, "calls.env").join("\n");
    assert!(told.contains("PATH=") && !secrets.iter().any(|secret| told.contains(secret)), "{told}");
}

/// Refuses while the node has a file `refuse`, and hangs while it has a file `hang`.
fn watched(node: &Node) -> Value {
    let [refuse, hang, asked] = ["refuse", "hang", "asked"].map(|name| file(node, name).display().to_string());
    let text = format!("echo $$ >> {asked}; if [ -e {hang} ]; then sleep 600; fi; ! [ -e {refuse} ]");
    json!({"postgresql": {"pre_promote": shell(&text)}})
}

#[tokio::test]
async fn a_pre_promote_that_says_no_leaves_the_lead_to_others() {
    let (cluster, first) = started(Plan::default(), watched).await;
    assert!(cluster.nodes.iter().all(|node| lines(node, "asked").is_empty()), "the first primary was not promoted");
    let refuses = cluster.others(first)[0];
    let node = &cluster.nodes[refuses];
    fs::write(file(node, "refuse"), "").unwrap();
    // What the operator wished for does not come to pass, and somebody leads all the same.
    switch(&cluster.nodes[first], node).await;
    let leads = cluster.healed(HEAL_LIMIT).await;
    assert_ne!(leads, refuses);
    assert_eq!(lines(node, "asked").len(), 1, "it is asked once, and does not race again");
    assert!(node.log().contains("the operator's pre_promote refused the promotion"));

    fs::remove_file(file(node, "refuse")).unwrap();
    // Longer than its ttl.
    tokio::time::sleep(2 * cluster.ttl()).await;
    switched(&cluster.nodes[leads], node).await;
    assert_eq!(cluster.healed(HEAL_LIMIT).await, refuses);
    assert_eq!(lines(node, "asked").len(), 2);
}

/// It has the key all the while; somebody else is given it after `primary_start_timeout`.
#[tokio::test]
async fn a_pre_promote_that_hangs_is_killed_and_another_leads() {
    let extra = json!({"bootstrap": {"dcs": {"primary_start_timeout": 10}}});
    let (cluster, first) = started(Plan { extra, ..Plan::default() }, watched).await;
    let hangs = cluster.others(first)[0];
    let node = &cluster.nodes[hangs];
    fs::write(file(node, "hang"), "").unwrap();
    switch(&cluster.nodes[first], node).await;
    eventually("it is asked", SERVICE_LIMIT, async || match lines(node, "asked").len() {
        0 => Err("not yet".to_owned()),
        _ => Ok(()),
    })
    .await;
    let leads = cluster.healed(HEAL_LIMIT).await;
    assert_ne!(leads, hangs);
    let waits = node.processes().into_iter().filter(|process| process.command_line().join(" ").contains("sleep 600"));
    assert_eq!(waits.count(), 0, "the script is gone with its children");
}

/// Makes a server with three rows, a backup from when there was one, and an archive; two rows were there at the restore
/// point `here`. Its superuser has no password.
const MADE_OF_A_BACKUP: &str = r#"
for arg; do case $arg in --datadir=*) d=${arg#*=};; --bin=*) b=${arg#*=};; --work=*) w=${arg#*=};; esac; done
echo "$*" >> "$w.called"
rm -rf "$w" && mkdir -p "$w/archive" || exit 1
"$b/initdb" -D "$w/origin" -U postgres -A trust --no-sync >/dev/null || exit 1
o="-c listen_addresses= -k $w -c archive_mode=on -c fsync=off"
"$b/pg_ctl" -w -D "$w/origin" -l "$w/log" -o "$o -c archive_command='cp %p $w/archive/%f'" start >/dev/null || exit 1
sql() { "$b/psql" -X -q -h "$w" -U postgres -d postgres -c "$1" >/dev/null || exit 1; }
sql "create table t as select 1 as n"
"$b/pg_basebackup" -D "$d" -h "$w" -U postgres -c fast --no-sync || exit 1
sql "insert into t values (2)"
sql "select pg_create_restore_point('here')"
sql "insert into t values (3)"
sql "select pg_switch_wal()"
exec "$b/pg_ctl" -w -D "$w/origin" stop >/dev/null
"#;

/// The first time post_bootstrap is not content.
#[tokio::test]
async fn a_cluster_is_made_of_a_backup_up_to_a_restore_point_and_a_script_has_the_last_word() {
    let (cluster, primary) = started(Plan { nodes: 2, ..Plan::default() }, |node| {
        let [work, script, asked] = ["work", "made", "asked"].map(|name| file(node, name).display().to_string());
        fs::write(&script, MADE_OF_A_BACKUP).unwrap();
        let bin = yaml(node)["postgresql"]["bin_dir"].as_str().unwrap().to_owned();
        let accepts = format!(
            "echo \"$1\" >> {asked}; [ $(wc -l < {asked}) = 2 ] || exit 3; {bin}/psql -X -d \"$1\" -c \"create table born()\""
        );
        json!({"bootstrap": {
            "method": "backup",
            "backup": {
                "command": format!("/bin/sh {script}"),
                "bin": bin,
                "work": work,
                "recovery_conf": {
                    "restore_command": format!("cp {work}/archive/%f %p"),
                    "recovery_target_name": "here",
                },
            },
            "post_bootstrap": shell(&accepts),
        }})
    })
    .await;
    let node = &cluster.nodes[primary];
    let calls = lines(node, "work.called");
    let ours = format!("--scope=test --datadir={}", node.data_dir().display());
    assert!(calls.len() == 2 && calls[1].ends_with(&ours) && !calls[1].contains("recovery"), "{calls:?}");
    let asked = lines(node, "asked");
    assert!(asked[1].contains("dbname=postgres") && !asked[1].contains("secret"), "{asked:?}");
    assert!(node.dir().join("data.failed/PG_VERSION").exists(), "the first one is kept");
    assert!(!node.data_dir().join("matriarch.newborn").exists());
    let hba = fs::read_to_string(node.data_dir().join("pg_hba.conf")).unwrap();
    assert!(!hba.contains("samehost"), "nobody is let in without a password any more: {hba}");
    for node in &cluster.nodes {
        let client = node.connect().await.unwrap();
        let rows = client.query_one("select count(*), to_regclass('born') is not null from t", &[]).await.unwrap();
        assert_eq!((rows.get::<_, i64>(0), rows.get::<_, bool>(1)), (2, true), "{}", node.name);
    }
    let replica = &cluster.nodes[cluster.others(primary)[0]];
    assert!(lines(replica, "work.called").is_empty(), "what is there is cloned");
}
