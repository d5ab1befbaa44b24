//! The agent's log: nobody waits for whoever takes it, and a reload changes it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use matriarch_tests::{Cluster, Node, Plan, eventually};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// A directory that every account may write to.
fn directory(node: &Node, name: &str) -> PathBuf {
    let path = node.dir().join(name);
    fs::create_dir(&path).expect("a directory");
    fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("its permissions");
    path
}

/// A pipe in the place of the log file, of which nobody reads and that takes nothing more.
fn full_pipe(path: &Path) -> File {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o666), 0).expect("a pipe");
    fs::set_permissions(path, Permissions::from_mode(0o666)).expect("its permissions");
    let options = i32::try_from(OFlags::NONBLOCK.bits()).expect("a flag");
    let mut pipe = OpenOptions::new().read(true).write(true).custom_flags(options).open(path).expect("both its ends");
    loop {
        match pipe.write(&[b'\n'; 4096]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return pipe,
            Err(error) => panic!("filling the pipe: {error}"),
        }
    }
}

async fn status(node: &Node) -> Value {
    serde_json::from_str(&node.get("/patroni").await.body).unwrap_or_default()
}

/// The race: a terminal, a container's log driver or a disk takes nothing for a while. An agent that waited for it would
/// not renew its tenure.
#[tokio::test]
async fn an_agent_leads_on_while_nobody_takes_its_log() {
    let mut cluster = Cluster::prepare(Plan { nodes: 1, ..Plan::default() }).await;
    let node = &mut cluster.nodes[0];
    let path = directory(node, "logs").join("patroni.log");
    let pipe = full_pipe(&path);
    node.configure(&json!({"log": {"dir": path.parent(), "max_queue_size": 50}}));
    node.start();
    cluster.healed(LIMIT).await;
    let ttl = cluster.ttl();
    let node = &cluster.nodes[0];
    let led = node.postmaster();
    eventually("it says that lines wait and that some were lost", LIMIT, async || {
        let told = status(node).await;
        let counts = (told["logger_queue_size"].as_u64(), told["logger_records_lost"].as_u64());
        if counts.0 == Some(50) && counts.1.is_some_and(|lost| lost > 0) { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    // Longer than a tenure that is not renewed.
    tokio::time::sleep(ttl + ttl / 2).await;
    assert_eq!(node.get("/primary").await.status, 200);
    assert_eq!(node.postmaster(), led);
    // Somebody reads again: what waited comes, and how much was lost.
    let reader = std::thread::spawn(move || {
        let blocking = OpenOptions::new().read(true).open(&path).expect("its reading end");
        drop(pipe);
        BufReader::new(blocking).lines().map_while(Result::ok).find(|line| line.contains("lines of this log were lost"))
    });
    let found = reader.join().expect("a reader").expect("it is told");
    assert!(found.contains(" WARNING: "), "{found}");
    eventually("nothing waits any more", LIMIT, async || match status(node).await["logger_queue_size"] {
        Value::Null => Ok(()),
        ref waiting => Err(waiting.to_string()),
    })
    .await;
}

#[tokio::test]
async fn a_reload_changes_where_the_log_goes_and_how_it_looks() {
    let cluster = Cluster::start(Plan { nodes: 1, ..Plan::default() }).await;
    let node = &cluster.nodes[0];
    assert!(node.log().contains(" INFO: "), "Patroni's format is the usual one");
    let logs = directory(node, "logs");
    let log =
        json!({"dir": logs, "format": "%(levelname)-8s|%(message)s", "file_size": 1000, "file_num": 2, "mode": 0o640});
    node.configure(&json!({"log": log}));
    assert_eq!(node.post("/reload", &json!({})).await.status, 202);
    let path = logs.join("patroni.log");
    eventually("it has begun another file, and another", LIMIT, async || {
        // What is asked of it is a line of its log.
        node.post("/reload", &json!({})).await;
        let lines = fs::read_to_string(logs.join("patroni.log.2")).unwrap_or_default();
        if lines.lines().any(|line| line.starts_with("INFO    |")) { Ok(()) } else { Err(lines) }
    })
    .await;
    eventually("its mode is as asked for, once it is not being begun anew", LIMIT, async || {
        let mode = fs::metadata(&path).map(|file| file.permissions().mode() & 0o777);
        if matches!(mode, Ok(0o640)) { Ok(()) } else { Err(format!("{mode:?}")) }
    })
    .await;
    assert!(!logs.join("patroni.log.3").exists());
    // One that cannot be opened changes nothing.
    let before = node.log();
    node.configure(&json!({"log": {"dir": "/proc/nothing/of/the/kind"}}));
    assert_eq!(node.post("/reload", &json!({})).await.status, 202);
    eventually("it says so in the log that it keeps", LIMIT, async || {
        let told = ["patroni.log", "patroni.log.1"].map(|name| fs::read_to_string(logs.join(name)).unwrap_or_default());
        let told = told.concat();
        if told.contains("WARNING |the log stays as it was: log.dir: /proc/nothing/of/the/kind") {
            Ok(())
        } else {
            Err(told)
        }
    })
    .await;
    assert_eq!(node.log(), before, "nothing goes to standard error any more");
    // One whose opening hangs delays nobody.
    let hangs = directory(node, "hangs");
    drop(full_pipe(&hangs.join("patroni.log")));
    node.configure(&json!({"log": {"dir": hangs}}));
    assert_eq!(node.post("/reload", &json!({})).await.status, 202);
    eventually("lines wait for it", LIMIT, async || {
        node.post("/reload", &json!({})).await;
        let told = status(node).await;
        if told["logger_queue_size"].is_u64() { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    tokio::time::sleep(cluster.ttl() + cluster.ttl() / 2).await;
    assert_eq!(node.get("/primary").await.status, 200);
}
