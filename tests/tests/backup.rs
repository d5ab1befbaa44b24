//! Replicas and clusters that are made of a backup, by real pgBackRest and as `docs/examples` configures it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use matriarch_tests::single::{base, give};
use matriarch_tests::{
    Allowance, Cluster, Ended, Ledger, Mark, Node, Plan, Process, Repository, documented, eventually, example, run_as,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_postgres::Client;

const HEAL_LIMIT: Duration = Duration::from_secs(90);
const SERVICE_LIMIT: Duration = Duration::from_secs(60);

/// What PostgreSQL keeps of how its directory was made.
fn made_by(node: &Node) -> String {
    let label = fs::read_to_string(node.data_dir().join("backup_label.old")).unwrap_or_default();
    label.lines().find_map(|line| line.strip_prefix("LABEL: ")).unwrap_or_default().to_owned()
}

async fn rows(node: &Node) -> Result<i64, String> {
    let client = node.connect().await.map_err(|error| error.to_string())?;
    let row = client.query_one("select count(*) from t", &[]).await.map_err(|error| error.to_string())?;
    Ok(row.get(0))
}

async fn has_rows(node: &Node, wanted: i64) {
    eventually(&format!("{} has {wanted} rows", node.name), SERVICE_LIMIT, async || match rows(node).await? {
        found if found == wanted => Ok(()),
        found => Err(format!("it has {found}")),
    })
    .await;
}

/// Ends the segment that is written, and waits until it is in the repository. Its name.
async fn archived(client: &Client) -> String {
    let row = client.query_one("select pg_walfile_name(pg_current_wal_lsn())", &[]).await.unwrap();
    let segment: String = row.get(0);
    client.batch_execute("select pg_switch_wal()").await.unwrap();
    eventually(&format!("{segment} is archived"), SERVICE_LIMIT, async || {
        let row = client.query_one("select coalesce(last_archived_wal, ''), failed_count from pg_stat_archiver", &[]);
        let row = row.await.map_err(|error| error.to_string())?;
        let (last, failed): (String, i64) = (row.get(0), row.get(1));
        if last >= segment { Ok(()) } else { Err(format!("the last one is {last:?}, and {failed} attempts failed")) }
    })
    .await;
    segment
}

/// A row in the backup, a row in the WAL that was archived after it, and nothing of that left at the primary.
async fn backed_up(repository: &Repository, node: &Node) {
    repository.run(node, &["stanza-create"]).unwrap();
    let client = node.connect().await.unwrap();
    client.batch_execute("create table t (n int); insert into t values (1)").await.unwrap();
    repository.run(node, &["backup", "--type=full"]).unwrap();
    client.batch_execute("insert into t values (2)").await.unwrap();
    let segment = archived(&client).await;
    eventually("the segment is gone from the primary", SERVICE_LIMIT, async || {
        client.batch_execute("select pg_switch_wal(); checkpoint").await.map_err(|error| error.to_string())?;
        let there = node.data_dir().join("pg_wal").join(&segment).exists();
        if there { Err("it is there".to_owned()) } else { Ok(()) }
    })
    .await;
}

/// Nodes that keep no WAL for replicas that are to come.
fn plan(nodes: u8) -> Plan {
    let parameters = json!({"wal_keep_size": "16MB", "min_wal_size": "32MB"});
    Plan { nodes, extra: json!({"bootstrap": {"dcs": {"postgresql": {"parameters": parameters}}}}), ..Plan::default() }
}

#[tokio::test]
async fn a_replica_is_made_from_the_repository_and_from_the_primary_where_that_is_empty() {
    let (Some(repository), Some(empty)) = (Repository::new(), Repository::new()) else { return };
    let mut cluster = Cluster::prepare(plan(1)).await;
    repository.configure(&cluster.nodes[0], &["pgbackrest.yml"]);
    cluster.nodes[0].start();
    assert_eq!(cluster.healed(HEAL_LIMIT).await, 0);
    backed_up(&repository, &cluster.nodes[0]).await;
    for (name, its) in [("n2", &repository), ("n3", &empty)] {
        let node = cluster.add_node(name, name);
        its.configure(node, &["pgbackrest.yml"]);
        node.start();
    }
    assert_eq!(cluster.healed(HEAL_LIMIT).await, 0);
    let [primary, restored, copied] = &cluster.nodes[..] else { unreachable!("three nodes") };
    assert!(made_by(restored).starts_with("pgBackRest backup"), "{}", made_by(restored));
    assert!(made_by(copied).starts_with("pg_basebackup"), "{}", made_by(copied));
    assert!(copied.log().contains("the replica method pgbackrest failed"));
    primary.connect().await.unwrap().batch_execute("insert into t values (3)").await.unwrap();
    for node in [restored, copied] {
        has_rows(node, 3).await;
    }

    // What is there is kept, and what is no part of the backup goes.
    let made = || fs::metadata(restored.data_dir().join("PG_VERSION")).unwrap().created().ok();
    let (before, stray) = (made(), restored.data_dir().join("stray"));
    fs::write(&stray, "").unwrap();
    let answer = restored.post("/reinitialize", &json!({})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    eventually(
        "the restore cleans up",
        HEAL_LIMIT,
        async || {
            if stray.exists() { Err("not yet".to_owned()) } else { Ok(()) }
        },
    )
    .await;
    assert_eq!(cluster.healed(HEAL_LIMIT).await, 0);
    assert_eq!(made(), before);
    has_rows(restored, 3).await;

    is_killed_while_it_restores(&mut cluster).await;
    goes_round(&mut cluster).await;
    // On the timeline of whoever leads now.
    let primary = cluster.healed(HEAL_LIMIT).await;
    archived(&cluster.nodes[primary].connect().await.unwrap()).await;
}

/// What a restore has left half-done is gone on with by the next one.
async fn is_killed_while_it_restores(cluster: &mut Cluster) {
    let node = &mut cluster.nodes[1];
    assert_eq!(node.post("/reinitialize", &json!({})).await.status, 200);
    let restores = |process: &Process| process.command_line().iter().any(|word| word == "restore");
    eventually("it restores", HEAL_LIMIT, async || {
        if node.processes().iter().any(restores) { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    node.kill_everything();
    node.agent_ended(SERVICE_LIMIT);
    node.start();
    cluster.healed(HEAL_LIMIT).await;
    assert!(made_by(&cluster.nodes[1]).starts_with("pgBackRest backup"));
    has_rows(&cluster.nodes[1], 3).await;
}

/// A switchover to the node that was restored, and its loss: what archives and fetches WAL is in nobody's way.
async fn goes_round(cluster: &mut Cluster) {
    let ledger = Ledger::start(cluster).await;
    let mark = Mark::now();
    let answer = cluster.nodes[0].post("/switchover", &json!({"leader": "n1", "candidate": "n2"})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    ledger.acknowledged_by(1, SERVICE_LIMIT).await;
    assert_eq!(cluster.healed(HEAL_LIMIT).await, 1);
    let verdict = ledger.verdict(cluster, mark).await;
    verdict.must_be_clean("switchover with an archive", Allowance::Nothing);

    let ledger = Ledger::start(cluster).await;
    let mark = Mark::now();
    cluster.nodes[1].kill_everything();
    ledger.moves_from(cluster, 1, HEAL_LIMIT).await;
    cluster.nodes[1].start();
    cluster.healed(HEAL_LIMIT).await;
    ledger.verdict(cluster, mark).await.must_be_clean("node killed, with an archive", Allowance::Unreplicated);
}

/// Once with all that was archived, and once up to a moment, from which on the archive has another timeline as well.
#[tokio::test]
async fn clusters_are_born_from_the_repository() {
    let Some(repository) = Repository::new() else { return };
    let old = tempfile::tempdir().unwrap();
    let (original, moment) = {
        let mut cluster = Cluster::prepare(plan(1)).await;
        repository.configure(&cluster.nodes[0], &["pgbackrest.yml"]);
        cluster.nodes[0].start();
        cluster.healed(HEAL_LIMIT).await;
        let node = &cluster.nodes[0];
        backed_up(&repository, node).await;
        let client = node.connect().await.unwrap();
        // pgBackRest looks for a backup that ended before that, by the second.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let moment: String = client.query_one("select clock_timestamp()::text", &[]).await.unwrap().get(0);
        client.batch_execute("insert into t values (3)").await.unwrap();
        // What pg_rewind would take for common, by the wrong place.
        client.batch_execute("checkpoint").await.unwrap();
        archived(&client).await;
        let original = identity(node).await;
        node.kill_everything();
        fs::rename(node.data_dir(), old.path().join("data")).unwrap();
        (original, moment)
    };
    let cluster = is_born(&repository, "restore", 3).await;
    let all = identity(&cluster.nodes[0]).await;
    assert!(all.0 == original.0 && all.1 > original.1, "a timeline of its own: {all:?}");
    joins(&repository, cluster, None, 3).await;

    let command = format!("restore --type=time \"--target={moment}\"");
    let cluster = is_born(&repository, &command, 2).await;
    let some = identity(&cluster.nodes[0]).await;
    assert!(some.0 == original.0 && some.1 > all.1, "a timeline of its own: {some:?}");
    let cluster = joins(&repository, cluster, None, 2).await;
    // The node of before comes back. pg_rewind would leave there some of what was changed since that moment.
    let cluster = joins(&repository, cluster, Some(&old.path().join("data")), 3).await;
    assert!(cluster.nodes[2].log().contains("pg_rewind would go by the wrong place"));
}

/// A cluster of one node, by the example with these words for its `restore`.
async fn is_born(repository: &Repository, words: &str, wanted: i64) -> Cluster {
    let mut cluster = Cluster::prepare(plan(1)).await;
    let node = &mut cluster.nodes[0];
    repository.configure(node, &["pgbackrest.yml", "pgbackrest-restore.yml"]);
    let yaml: Value = serde_yaml::from_str(&fs::read_to_string(node.config()).unwrap()).unwrap();
    let command = yaml["bootstrap"]["pgbackrest"]["command"].as_str().unwrap().replace("restore", words);
    node.configure(&json!({"bootstrap": {"pgbackrest": {"command": command}}}));
    node.start();
    cluster.healed(HEAL_LIMIT).await;
    assert!(made_by(&cluster.nodes[0]).starts_with("pgBackRest backup"), "{}", made_by(&cluster.nodes[0]));
    has_rows(&cluster.nodes[0], wanted).await;
    cluster
}

/// One more node, with data or without; it has the rows that are there, and gets another.
async fn joins(repository: &Repository, mut cluster: Cluster, data: Option<&Path>, there: i64) -> Cluster {
    let name = format!("n{}", cluster.nodes.len() + 1);
    let node = cluster.add_node(&name, &name);
    repository.configure(node, &["pgbackrest.yml"]);
    if let Some(data) = data {
        fs::rename(data, node.data_dir()).unwrap();
    }
    node.start();
    assert_eq!(cluster.healed(HEAL_LIMIT).await, 0);
    has_rows(cluster.nodes.last().unwrap(), there).await;
    let client = cluster.nodes[0].connect().await.unwrap();
    client.batch_execute("insert into t values (9)").await.unwrap();
    archived(&client).await;
    has_rows(cluster.nodes.last().unwrap(), there + 1).await;
    cluster
}

/// The system identifier, and the timeline that was last checkpointed.
async fn identity(node: &Node) -> (i64, i32) {
    let client = node.connect().await.unwrap();
    let query = "select system_identifier, timeline_id from pg_control_system(), pg_control_checkpoint()";
    let row = client.query_one(query, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

/// Each example beside the node's file that it is written for.
#[test]
fn examples_are_valid() {
    let together: [&[&str]; 4] = [
        &["pgbackrest.yml"],
        &["pgbackrest.yml", "pgbackrest-restore.yml"],
        &["wal-g.yml"],
        &["wal-g.yml", "wal-g-restore.yml"],
    ];
    let mut seen: Vec<&str> = together.concat();
    for examples in together {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(documented("node.yml"), dir.path().join("node.yml")).unwrap();
        for name in examples {
            fs::copy(documented("examples").join(name), dir.path().join(name)).unwrap();
        }
        let (ended, said) = run_as("matriarch", &["validate-config", &dir.path().display().to_string()]);
        assert_eq!((ended, said.as_str()), (Ended::Exit(0), ""), "{examples:?}");
    }
    let there = fs::read_dir(documented("examples")).unwrap().map(|entry| entry.unwrap().path());
    let there = there.filter(|path| path.extension().is_some_and(|extension| extension == "yml"));
    let mut there: Vec<String> = there.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    there.sort();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(there, seen, "every example is tried");
}

/// What WAL-G does with these words, with a directory for its store.
const WAL_G: &str = r#"#!/bin/sh
w=$(dirname "$0")
case $1 in
backup-fetch) [ "$3" = LATEST ] && cp -a "$w/base/." "$2";;
wal-fetch) cp "$w/archive/$2" "$3";;
wal-push) while [ -e "$w/hangs" ]; do sleep 0.1; done; ! [ -e "$w/closed" ] && cp "$2" "$w/archive/new" && mv "$w/archive/new" "$w/archive/${2##*/}";;
*) exit 2;;
esac
"#;

/// A store of backups and WAL, and commands as WAL-G's.
struct WalG {
    dir: TempDir,
}

impl WalG {
    fn new() -> Self {
        let dir = base();
        give(dir.path());
        let (program, archive) = (dir.path().join("wal-g"), dir.path().join("archive"));
        fs::write(&program, WAL_G).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(&archive).unwrap();
        give(&archive);
        Self { dir }
    }

    /// Makes or removes a file: nothing is archived while there is `closed`, and what would archive waits while there
    /// is `hangs`.
    fn set(&self, name: &str, there: bool) {
        let file = self.dir.path().join(name);
        if there { fs::write(file, "").unwrap() } else { fs::remove_file(file).unwrap() }
    }

    fn has(&self, segment: &str) -> bool {
        self.dir.path().join("archive").join(segment).exists()
    }

    fn configure(&self, node: &Node, examples: &[&str]) {
        let changes = [
            ("/usr/local/bin/wal-g", self.dir.path().join("wal-g").display().to_string()),
            ("/var/lib/postgresql/main", node.data_dir().display().to_string()),
        ];
        for name in examples {
            node.configure(&serde_yaml::from_str(&example(name, &changes)).unwrap());
        }
    }

    /// A backup that is of no use without the archive.
    fn back_up(&self, node: &Node) {
        let yaml: Value = serde_yaml::from_str(&fs::read_to_string(node.config()).unwrap()).unwrap();
        let program = Path::new(yaml["postgresql"]["bin_dir"].as_str().unwrap()).join("pg_basebackup");
        let (host, port) = node.server_address();
        let login = &yaml["postgresql"]["authentication"]["replication"];
        let [user, password] = ["username", "password"].map(|key| login[key].as_str().unwrap());
        let dsn = format!("host={host} port={port} user={user} password='{password}'");
        let base = self.dir.path().join("base").display().to_string();
        node.run(&program, &["-D", &base, "-d", &dsn, "-c", "fast", "-X", "none", "--no-sync"]).unwrap();
    }
}

/// A cluster that archives into the store, and its primary.
async fn archiving(store: &WalG, nodes: u8) -> (Cluster, usize) {
    archiving_by(store, nodes, &["wal-g.yml"]).await
}

async fn archiving_by(store: &WalG, nodes: u8, examples: &[&str]) -> (Cluster, usize) {
    let mut cluster = Cluster::prepare(plan(nodes)).await;
    for node in &mut cluster.nodes {
        store.configure(node, examples);
        node.start();
    }
    let primary = cluster.healed(HEAL_LIMIT).await;
    (cluster, primary)
}

/// The primary is lost while it could not archive, and another goes on, to which those segments were sent: as a standby
/// PostgreSQL archives nothing, so only who wrote them can put them into the archive. It comes back as it is, and then
/// with WAL that the other does not have.
#[tokio::test]
async fn what_a_lost_primary_had_not_archived_is_archived() {
    let store = WalG::new();
    let (mut cluster, first) = archiving(&store, 2).await;
    let client = cluster.nodes[first].connect().await.unwrap();
    client.batch_execute("create table t (n int)").await.unwrap();
    archived(&client).await;
    let second = is_lost_with_segments(&store, &mut cluster, first, false).await;
    assert!(!cluster.nodes[first].log().contains("order=\"rewind to"));
    if cluster.can_cut() {
        is_lost_with_segments(&store, &mut cluster, second, true).await;
        assert!(cluster.nodes[second].log().contains("order=\"rewind to"));
    }
}

async fn is_lost_with_segments(store: &WalG, cluster: &mut Cluster, lost: usize, diverges: bool) -> usize {
    let other = cluster.others(lost)[0];
    let client = cluster.nodes[lost].connect().await.unwrap();
    store.set("closed", true);
    let mut segments = Vec::new();
    for _ in 0..2 {
        let row = client.query_one("select pg_walfile_name(pg_current_wal_lsn())", &[]).await.unwrap();
        segments.push(row.get::<_, String>(0));
        client.batch_execute("insert into t values (1); select pg_switch_wal()").await.unwrap();
    }
    has_rows(&cluster.nodes[other], rows(&cluster.nodes[lost]).await.unwrap()).await;
    if diverges {
        cluster.cut_off(lost, true);
        client.batch_execute("insert into t values (1)").await.unwrap();
    }
    cluster.nodes[lost].kill_everything();
    assert_eq!(cluster.primary_but(&[lost], HEAL_LIMIT).await, other);
    if diverges {
        // Not before: the kernel still sends what a dead server had written.
        cluster.mend(lost, true);
    }
    store.set("closed", false);
    cluster.nodes[lost].start();
    assert_eq!(cluster.healed(HEAL_LIMIT).await, other);
    for segment in segments {
        assert!(store.has(&segment), "{segment}");
    }
    other
}

/// Neither the old primary's end nor its return waits for an archive that does not answer.
#[tokio::test]
async fn a_switchover_gets_over_an_archive_that_hangs() {
    let store = WalG::new();
    let (cluster, first) = archiving(&store, 2).await;
    let second = cluster.others(first)[0];
    let ledger = Ledger::start(&cluster).await;
    let mark = Mark::now();
    store.set("hangs", true);
    let (from, to) = (&cluster.nodes[first], &cluster.nodes[second]);
    let answer = from.post("/switchover", &json!({"leader": from.name, "candidate": to.name})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    ledger.acknowledged_by(second, SERVICE_LIMIT).await;
    assert_eq!(cluster.healed(HEAL_LIMIT).await, second);
    assert!(from.log().contains("archive_command did not end within 10 s"));
    let verdict = ledger.verdict(&cluster, mark).await;
    verdict.must_be_clean("switchover, and the archive hangs", Allowance::Nothing);
    store.set("hangs", false);
    archived(&to.connect().await.unwrap()).await;
}

/// Nobody leads, and who was the primary is wanted: what it has not archived waits, not the cluster.
#[tokio::test]
async fn nobody_waits_for_an_archive_while_nobody_leads() {
    let store = WalG::new();
    let (mut cluster, only) = archiving(&store, 1).await;
    let client = cluster.nodes[only].connect().await.unwrap();
    client.batch_execute("create table t (n int)").await.unwrap();
    archived(&client).await;
    store.set("closed", true);
    let row = client.query_one("select pg_walfile_name(pg_current_wal_lsn())", &[]).await.unwrap();
    let segment: String = row.get(0);
    client.batch_execute("insert into t values (1); select pg_switch_wal()").await.unwrap();
    cluster.nodes[only].kill_everything();
    // Its key is gone: it starts as a standby, to see where it is.
    tokio::time::sleep(2 * cluster.ttl()).await;
    store.set("hangs", true);
    cluster.nodes[only].start();
    assert_eq!(cluster.healed(HEAL_LIMIT).await, only);
    let log = cluster.nodes[only].log();
    assert!(log.contains("order=\"start PostgreSQL as standby of nobody"), "it was not started as a standby");
    assert!(!log.contains("archive_command did not end"), "it waited for its archive");
    for name in ["closed", "hangs"] {
        store.set(name, false);
    }
    archived(&cluster.nodes[only].connect().await.unwrap()).await;
    assert!(store.has(&segment), "{segment}");
}

/// All nodes lose their data, and the store remains; then a new cluster is made of the same backup.
#[tokio::test]
async fn a_cluster_without_data_fetches_them_while_nobody_leads() {
    let store = WalG::new();
    {
        let (mut cluster, primary) = archiving(&store, 2).await;
        let primary = &cluster.nodes[primary];
        let client = primary.connect().await.unwrap();
        client.batch_execute("create table t (n int); insert into t values (1)").await.unwrap();
        store.back_up(primary);
        client.batch_execute("insert into t values (2)").await.unwrap();
        archived(&client).await;
        for node in &mut cluster.nodes {
            node.kill_everything();
            fs::remove_dir_all(node.data_dir()).unwrap();
        }
        for node in &mut cluster.nodes {
            node.start();
        }
        let primary = cluster.healed(HEAL_LIMIT).await;
        for node in &cluster.nodes {
            has_rows(node, 2).await;
        }
        let client = cluster.nodes[primary].connect().await.unwrap();
        client.batch_execute("insert into t values (3)").await.unwrap();
        archived(&client).await;
    }

    let (cluster, _) = archiving_by(&store, 2, &["wal-g.yml", "wal-g-restore.yml"]).await;
    for node in &cluster.nodes {
        has_rows(node, 3).await;
    }
}
