//! Whole commands, against an embedded store and members of cardboard.

mod configure;
mod operate;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use matriarch_core::op::Outcome;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::console::Console;
use super::{CtlArgs, CtlError, execute_with};
use crate::api::put_key;
use crate::net::Connector;
use crate::store::{EtcdStore, Operation, Transaction, embedded};

const LIMIT: Duration = Duration::from_secs(10);

struct World {
    store: EtcdStore,
    host: String,
    _data: TempDir,
    /// The server ends when this is gone.
    _serving: tokio::sync::oneshot::Sender<()>,
}

/// What came of a command: its output, and how it ended.
type Ended = (String, Result<(), CtlError>);

impl World {
    async fn new(keys: &[(&str, String)]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let directory = data.path().to_path_buf();
        let (serving, ended) = tokio::sync::oneshot::channel::<()>();
        // On a thread of its own: a command that waits for a person holds up its own.
        std::thread::spawn(move || {
            on_a_runtime(async move {
                listener.set_nonblocking(true).unwrap();
                let listener = TcpListener::from_std(listener).unwrap();
                embedded::serve(listener, &directory, async { drop(ended.await) }).await.unwrap();
            });
        });
        let store = EtcdStore::new(vec![host.clone()], None, Connector::tcp(LIMIT));
        let put = |(key, value): &(&str, String)| Operation::Put {
            key: format!("/service/demo/{key}"),
            value: value.clone().into_bytes(),
            lease: None,
        };
        let transaction = Transaction { operations: keys.iter().map(put).collect(), ..Transaction::default() };
        let written = store.transact(transaction, LIMIT).await.outcome;
        assert!(matches!(written, Outcome::Done(_)), "{written:?}");
        Self { store, host, _data: data, _serving: serving }
    }

    async fn run(&self, line: &str, answers: &str) -> Ended {
        self.run_words(&line.split(' ').collect::<Vec<_>>(), answers).await
    }

    async fn run_words(&self, words: &[&str], answers: &str) -> Ended {
        self.run_for(words, &mut answers.as_bytes()).await
    }

    async fn run_for(&self, words: &[&str], person: &mut dyn std::io::BufRead) -> Ended {
        let url = format!("etcd3://{}", self.host);
        let words = ["matriarch", "-d", &url].into_iter().chain(words.iter().copied());
        let args = CtlArgs::try_parse_from(words).unwrap();
        let mut output = Vec::new();
        let env = [("PATRONI_SCOPE".to_owned(), "demo".to_owned())];
        let ended = execute_with(args, Console::new(person, &mut output, false), env).await;
        (String::from_utf8(output).unwrap(), ended)
    }

    async fn put(&self, key: &str, value: &str) {
        let written = put_key(&self.store, format!("/service/demo/{key}"), value.to_owned(), None, LIMIT).await;
        assert_eq!(written, Outcome::Done(()));
    }

    async fn key(&self, key: &str) -> Option<String> {
        let read = self.store.read_key(&format!("/service/demo/{key}"), LIMIT).await;
        Some(read.done()?.entry?.text().to_owned())
    }
}

fn on_a_runtime(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

/// A member's REST API: answers each request with the next of `answers`, and remembers what it was asked.
async fn member(answers: &[(u16, &str)]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api_url = format!("http://{}/patroni", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = Arc::clone(&seen);
    let answers: Vec<String> = answers
        .iter()
        .map(|(status, body)| format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
        .collect();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let mut length = 0;
            // The head and the body may come apart.
            while !complete(&request[..length]) {
                length += stream.read(&mut request[length..]).await.unwrap();
            }
            let text = String::from_utf8_lossy(&request[..length]).into_owned();
            let line = text.lines().next().unwrap_or_default().replace(" HTTP/1.1", "");
            let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
            requests.lock().unwrap().push(format!("{line} {body}").trim_end().to_owned());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (api_url, seen)
}

fn complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    body.len() >= length.unwrap_or(0)
}

fn member_key(host: &str, port: u16, api_url: &str, rest: &str) -> String {
    format!(r#"{{"conn_url":"postgres://{host}:{port}/postgres","api_url":"{api_url}",{rest}}}"#)
}

const LEADING: &str = r#""state":"running","role":"primary","version":"4.1.5","xlog_location":67417552,"timeline":2"#;
const STREAMING: &str = r#""state":"running","role":"replica","version":"4.1.5","xlog_location":67417552,"replay_lsn":67417552,"receive_lsn":67417552,"replication_state":"streaming","timeline":2"#;

/// Three members; `rest` is the API of n1, the leader.
fn keys(api_url: &str) -> Vec<(&'static str, String)> {
    let tags = r#","tags":{"nofailover":true,"datacenter":"dc2"}"#;
    vec![
        ("initialize", "7711071687290272793".into()),
        ("leader", "n1".into()),
        ("config", r#"{"ttl":30,"loop_wait":10,"pause":true,"synchronous_mode":true}"#.into()),
        ("sync", r#"{"leader":"n1","quorum":0,"sync_standby":"n2"}"#.into()),
        ("status", r#"{"optime":67417552}"#.into()),
        ("failover", r#"{"leader":"n1","member":"n2","scheduled_at":"2130-01-01T00:00:00+00:00"}"#.into()),
        ("history", r#"[[1,67417056,"no recovery target specified","2026-11-22T18:59:36.068758+00:00","n2"]]"#.into()),
        ("members/n1", member_key("127.0.0.1", 15432, api_url, LEADING)),
        ("members/n2", member_key("127.0.0.1", 15433, "http://127.0.0.1:1/patroni", &format!("{STREAMING}{tags}"))),
        (
            "members/n3",
            member_key("127.0.0.1", 15434, api_url, r#""state":"stopped","role":"replica","version":"4.1.5""#),
        ),
    ]
}

/// The same without pause and scheduled request.
fn quiet(api_url: &str) -> Vec<(&'static str, String)> {
    let mut keys = keys(api_url);
    keys.retain(|(key, _)| *key != "failover" && *key != "config" && *key != "sync");
    keys.push(("config", r#"{"ttl":30,"postgresql":{"parameters":{"max_connections":100}}}"#.into()));
    keys
}

const NOWHERE: &str = "http://127.0.0.1:1/patroni";

#[tokio::test]
async fn list_draws_patronis_table() {
    let world = World::new(&keys(NOWHERE)).await;
    let (text, ended) = world.run("list", "").await;
    assert_eq!(ended, Ok(()));
    let expected = "\
+ Cluster: demo (7711071687290272793) ----+-----------+----+-------------+-----+------------+-----+------------------+
| Member | Host            | Role         | State     | TL | Receive LSN | Lag | Replay LSN | Lag | Tags             |
+--------+-----------------+--------------+-----------+----+-------------+-----+------------+-----+------------------+
| n1     | 127.0.0.1:15432 | Leader       | running   |  2 |             |     |            |     |                  |
+--------+-----------------+--------------+-----------+----+-------------+-----+------------+-----+------------------+
| n2     | 127.0.0.1:15433 | Sync Standby | streaming |  2 |   0/404B5D0 |   0 |  0/404B5D0 |   0 | datacenter: dc2  |
|        |                 |              |           |    |             |     |            |     | nofailover: true |
+--------+-----------------+--------------+-----------+----+-------------+-----+------------+-----+------------------+
| n3     | 127.0.0.1:15434 | Replica      | stopped   |    |     unknown |     |    unknown |     |                  |
+--------+-----------------+--------------+-----------+----+-------------+-----+------------+-----+------------------+
 Maintenance mode: on
 Switchover scheduled at: 2130-01-01T00:00:00+00:00
                    from: n1
                      to: n2
";
    assert_eq!(text, expected, "\n{text}");
}

#[tokio::test]
async fn list_has_patronis_formats() {
    let world = World::new(&keys(NOWHERE)).await;
    let (text, _) = world.run("list -f json", "").await;
    let leader = r#"[{"Cluster": "demo", "Member": "n1", "Host": "127.0.0.1:15432", "Role": "Leader", "State": "running", "TL": 2}, "#;
    let standby = r#"{"Cluster": "demo", "Member": "n2", "Host": "127.0.0.1:15433", "Role": "Sync Standby", "State": "streaming", "TL": 2, "Receive LSN": "0/404B5D0", "Receive Lag": 0, "Replay LSN": "0/404B5D0", "Replay Lag": 0, "Tags": {"nofailover": true, "datacenter": "dc2"}}, "#;
    let stopped = r#"{"Cluster": "demo", "Member": "n3", "Host": "127.0.0.1:15434", "Role": "Replica", "State": "stopped", "Receive LSN": "unknown", "Replay LSN": "unknown"}]"#;
    assert_eq!(text, format!("{leader}{standby}{stopped}\n"));
    let (text, _) = world.run("list -f tsv", "").await;
    let header = "Cluster\tMember\tHost\tRole\tState\tTL\tReceive LSN\tReceive Lag\tReplay LSN\tReplay Lag\tTags";
    assert_eq!(text.lines().next(), Some(header));
    let line = "demo\tn2\t127.0.0.1:15433\tSync Standby\tstreaming\t2\t0/404B5D0\t0\t0/404B5D0\t0\t{datacenter: dc2, nofailover: true}";
    assert_eq!(text.lines().nth(2), Some(line));
    let (text, _) = world.run("list -f yml", "").await;
    assert!(text.starts_with("- Cluster: demo\n  Host: 127.0.0.1:15432\n  Member: n1\n"), "{text}");
    assert!(text.ends_with("  State: stopped\n\n"), "{text}");
}

#[tokio::test]
async fn an_unknown_cluster_is_an_empty_table() {
    let world = World::new(&[("initialize", String::new())]).await;
    let (text, ended) = world.run("list other", "").await;
    assert_eq!(ended, Ok(()));
    let expected = "\
+ Cluster: other (uninitialized) ---+-------------+-----+------------+-----+
| Member | Host | Role | State | TL | Receive LSN | Lag | Replay LSN | Lag |
+--------+------+------+-------+----+-------------+-----+------------+-----+
+--------+------+------+-------+----+-------------+-----+------------+-----+
";
    assert_eq!(text, expected, "\n{text}");
    let (text, _) = world.run("list", "").await;
    assert!(text.starts_with("+ Cluster: demo (initializing) "), "{text}");
    assert_eq!(world.run("show-config other", "").await, (String::new(), Ok(())));
}

#[tokio::test]
async fn topology_is_a_tree() {
    let mut keys = quiet(NOWHERE);
    let tags = r#","tags":{"replicatefrom":"n3"}"#;
    keys.retain(|(key, _)| *key != "members/n2");
    keys.push(("members/n2", member_key("127.0.0.1", 15433, NOWHERE, &format!("{STREAMING}{tags}"))));
    let circle = |from: &str| format!(r#""state":"running","role":"replica","tags":{{"replicatefrom":"{from}"}}"#);
    keys.push(("members/n4", member_key("127.0.0.1", 15435, NOWHERE, &circle("n5"))));
    keys.push(("members/n5", member_key("127.0.0.1", 15436, NOWHERE, &circle("n4"))));
    let world = World::new(&keys).await;
    let (text, _) = world.run("topology", "").await;
    let names: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).map(|line| &line[2..8]).collect();
    assert_eq!(names, ["Member", "n1    ", "+ n3  ", "  + n2", "+ n4  ", "  + n5"], "\n{text}");
    assert!(text.contains("| {replicatefrom: n3} |"), "{text}");
}

#[tokio::test]
async fn history_and_configuration_are_shown() {
    let world = World::new(&quiet(NOWHERE)).await;
    let (text, _) = world.run("history", "").await;
    let expected = "\
+----+----------+------------------------------+----------------------------------+------------+
| TL |      LSN | Reason                       | Timestamp                        | New Leader |
+----+----------+------------------------------+----------------------------------+------------+
|  1 | 67417056 | no recovery target specified | 2026-11-22T18:59:36.068758+00:00 | n2         |
+----+----------+------------------------------+----------------------------------+------------+
";
    assert_eq!(text, expected);
    let (text, _) = world.run("history -f json", "").await;
    let json = r#"[{"TL": 1, "LSN": 67417056, "Reason": "no recovery target specified", "Timestamp": "2026-11-22T18:59:36.068758+00:00", "New Leader": "n2"}]"#;
    assert_eq!(text, format!("{json}\n"));
    let (text, _) = world.run("show-config", "").await;
    assert_eq!(text, "postgresql:\n  parameters:\n    max_connections: 100\nttl: 30\n\n");
}

#[tokio::test]
async fn a_switchover_asks_as_patronictl_does_and_goes_to_the_leader() {
    let (api_url, seen) = member(&[(200, "Successfully switched over to \"n3\"")]).await;
    let world = World::new(&quiet(&api_url)).await;
    let (text, ended) = world.run("switchover", "\nn3\nnow\ny\n").await;
    assert_eq!(ended, Ok(()), "{text}");
    assert!(text.starts_with("Current cluster topology\n+ Cluster: demo (7711071687290272793) "), "{text}");
    for part in [
        "Primary [n1]: Candidate ['n3'] []: When should the switchover take place (e.g. ",
        " )  [now]: Are you sure you want to switchover cluster demo, demoting current leader n1? [y/N]: ",
        " Successfully switched over to \"n3\"\n+ Cluster: demo ",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert_eq!(*seen.lock().unwrap(), [r#"POST /switchover {"candidate":"n3","leader":"n1"}"#]);
}

#[tokio::test]
async fn a_switchover_that_cannot_be_says_why() {
    let world = World::new(&quiet(NOWHERE)).await;
    let cases = [
        ("switchover --leader n2", "", "Member n2 is not the leader of cluster demo"),
        ("switchover --candidate n1 --force", "", "Member n1 is already the leader of cluster demo"),
        (
            "switchover --candidate n2 --force",
            "",
            "Member n2 does not exist in cluster demo or is tagged as nofailover",
        ),
        ("switchover --candidate n3 --leader n1", "\nn\n", "Aborting switchover"),
        ("switchover --candidate n3 --leader n1 --scheduled 2130-01-01T00:00Z", "n\n", "Aborting scheduled switchover"),
        ("failover --force", "", "Failover could be performed only to a specific candidate"),
        (
            "switchover --force --scheduled tomorrow",
            "",
            "Unable to parse scheduled timestamp (tomorrow). It should be in an unambiguous format (e.g. ISO 8601)",
        ),
    ];
    for (line, answers, expected) in cases {
        let (text, ended) = world.run(line, answers).await;
        assert_eq!(ended, Err(CtlError::Failed(expected.into())), "{line}\n{text}");
    }
    assert_eq!(world.run("switchover", "").await.1, Err(CtlError::Aborted));
    let (text, _) = world.run("switchover --candidate n3 --leader n1 --scheduled 2130-01-01T00:00Z", "n\n").await;
    let question = "Are you sure you want to schedule switchover of cluster demo at 2130-01-01T00:00:00+00:00, \
                    demoting current leader n1? [y/N]: ";
    assert!(text.ends_with(question), "{text}");

    let world = World::new(&[("initialize", "7711071687290272793".into())]).await;
    let ended = world.run("switchover --force", "").await.1;
    assert_eq!(ended, Err(CtlError::Failed("This cluster has no leader".into())));
}

#[test]
fn a_failover_has_no_time_and_no_leader() {
    let parse = |line: &str| CtlArgs::try_parse_from(line.split(' '));
    for extra in ["--scheduled 2130-01-01T00:00Z", "--leader n1", "--primary n1"] {
        let refused = parse(&format!("matriarch failover demo --candidate n3 --force {extra}")).unwrap_err();
        assert_eq!((refused.kind(), refused.exit_code()), (clap::error::ErrorKind::UnknownArgument, 2), "{extra}");
    }
    assert!(parse("matriarch failover demo --candidate n3 --force").is_ok());
}

#[tokio::test]
async fn a_citus_group_is_refused_before_anything_is_asked() {
    let world = World::new(&quiet(NOWHERE)).await;
    for command in [
        "list",
        "topology",
        "switchover demo --candidate n3 --force",
        "failover demo --candidate n3 --force",
        "restart demo --force",
        "reinit demo n3 --force",
        "history",
        "dsn",
        "query -c SELECT",
        "reload demo --force",
        "flush demo switchover",
        "resume",
        "remove demo",
        "version demo",
        "edit-config -s ttl=20 --force",
        "show-config",
    ] {
        let (text, ended) = world.run(&format!("{command} --group 1"), "").await;
        let why =
            "Citus groups are not supported, so --group 1 cannot be done; without --group the whole cluster is meant";
        assert_eq!((text.as_str(), ended), ("", Err(CtlError::Failed(why.into()))), "{command}");
    }
    assert_eq!(world.key("failover").await, None);
}

#[tokio::test]
async fn a_refused_switchover_is_printed_and_is_no_error() {
    let (api_url, _) = member(&[(412, "leader name does not match")]).await;
    let world = World::new(&quiet(&api_url)).await;
    let (text, ended) = world.run("switchover --force", "").await;
    assert_eq!(ended, Ok(()));
    assert!(text.ends_with("Switchover failed, details: 412, leader name does not match\n"), "{text}");
}

#[tokio::test]
async fn an_unreachable_leader_is_asked_through_the_store_and_a_silent_one_is_not() {
    let world = World::new(&quiet(NOWHERE)).await;
    let (text, ended) = world.run("switchover --candidate n3 --force", "").await;
    assert_eq!(ended, Ok(()), "{text}");
    assert!(text.contains(" Could not switchover using Patroni api, falling back to DCS\n"), "{text}");
    assert_eq!(world.key("failover").await.as_deref(), Some(r#"{"leader":"n1","member":"n3"}"#));

    // It has the request and dies with it: nobody knows whether it was acted on.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api_url = format!("http://{}/patroni", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
    });
    let world = World::new(&quiet(&api_url)).await;
    let (text, ended) = world.run("switchover --candidate n3 --force", "").await;
    assert_eq!(ended, Ok(()), "{text}");
    assert!(text.contains("Switchover result unknown: "), "{text}");
    assert_eq!(world.key("failover").await, None);
}

/// Takes a moment to say yes.
struct Slow<F: FnMut()>(F);

impl<F: FnMut()> std::io::Read for Slow<F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        (self.0)();
        buffer[..2].copy_from_slice(b"y\n");
        Ok(2)
    }
}

/// The race: the leader's key ends while a person thinks. What he was asked about was that leader; written now, his request
/// would pass for one that was made while nobody leads.
#[tokio::test]
async fn what_was_asked_of_a_leader_is_not_written_after_it() {
    for ends in [false, true] {
        let world = World::new(&quiet(NOWHERE)).await;
        let host = world.host.clone();
        let leader_ends = move || {
            let host = host.clone();
            let end = async move {
                let store = EtcdStore::new(vec![host], None, Connector::tcp(LIMIT));
                let operations = vec![Operation::Delete("/service/demo/leader".into())];
                let deleted = store.transact(Transaction { operations, ..Transaction::default() }, LIMIT).await;
                assert!(matches!(deleted.outcome, Outcome::Done(_)));
            };
            if ends {
                std::thread::spawn(move || on_a_runtime(end)).join().unwrap();
            }
        };
        let mut person = std::io::BufReader::new(Slow(leader_ends));
        let words = ["failover", "demo", "--candidate", "n3"];
        let (text, ended) = world.run_for(&words, &mut person).await;
        let written = world.key("failover").await;
        if ends {
            assert!(
                matches!(&ended, Err(CtlError::Failed(why)) if why.contains("look at the cluster again")),
                "{text}"
            );
            assert_eq!(written, None);
        } else {
            assert_eq!(ended, Ok(()), "{text}");
            assert_eq!(written.as_deref(), Some(r#"{"member":"n3"}"#));
        }
    }
}

#[tokio::test]
async fn restart_and_reinit_go_to_the_chosen_members() {
    let answers = [
        (200, "restarted successfully"),
        (503, "restart failed"),
        (503, "reinitialize already in progress"),
        (200, "reinitialize started"),
    ];
    let (api_url, seen) = member(&answers).await;
    let world = World::new(&quiet(&api_url)).await;
    let (text, ended) = world.run("restart demo n1 n3 n1 n9 --timeout 60", "\ny\n\n").await;
    assert_eq!(ended, Ok(()), "{text}");
    let end = "Are you sure you want to restart members n1, n3? [y/N]: Restart if the PostgreSQL version is less than \
               provided (e.g. 9.5.2)  []: Success: restart on member n1\nFailed: restart for member n3, status \
               code=503, (restart failed)\n";
    assert!(text.ends_with(end), "{text}");
    let (text, ended) = world.run("reinit demo", "n3\ny\ny\n").await;
    assert_eq!(ended, Ok(()), "{text}");
    let end = "Which member do you want to reinitialize [n2, n3]? []: Are you sure you want to reinitialize members n3? \
               [y/N]: Failed: reinitialize for member n3, status code=503, (reinitialize already in progress)\nDo you \
               want to cancel it and reinitialize anyway? [y/N]: Success: reinitialize for member n3\n";
    assert!(text.ends_with(end), "{text}");
    let expected = [
        r#"POST /restart {"timeout":"60"}"#,
        r#"POST /restart {"timeout":"60"}"#,
        r#"POST /reinitialize {"force":false,"from_leader":false}"#,
        r#"POST /reinitialize {"force":true,"from_leader":false}"#,
    ];
    assert_eq!(*seen.lock().unwrap(), expected);

    let ended = world.run("reinit demo n1 --force", "").await.1;
    assert_eq!(ended, Err(CtlError::Failed("No replica among provided members".into())));
    let ended = world.run("restart demo n9 --force", "").await.1;
    assert_eq!(ended, Err(CtlError::Failed("No 'any' among provided members".into())));
    let ended = world.run("restart demo n1", "now\nn\n").await.1;
    assert_eq!(ended, Err(CtlError::Failed("Aborted restart".into())));
    let (text, ended) = world.run("restart demo --pending --force", "").await;
    assert!(ended.is_ok() && text.lines().all(|line| line.starts_with(['+', '|'])), "{text}");
    assert_eq!(world.run("reinit demo --force", "").await.1, Ok(()));
}

#[tokio::test]
async fn why_reads_what_members_say() {
    let document = r#"{"name": "n1", "role": "primary", "state": "running",
        "decision": {"rung": "leader", "code": "tenure_held", "sentence": "this node is the primary"},
        "rungs": [{"rung": "leader", "code": "tenure_held", "sentence": "x"}, {"rung": "race", "code": null},
                  {"rung": "rewind", "code": "wal_gone", "sentence": "WAL is gone"},
                  {"rung": "follow", "code": "no_source", "sentence": "there is nobody to follow"}],
        "tenure": {"state": "held", "epoch": 5, "left_ms": 19000, "renewed_ms_ago": 100},
        "guard": {"present": true, "fires_in_ms": 19000, "wishes_refused": ["locked memory"]},
        "operations": [{"action": "Renew", "age_ms": 3}], "warnings": ["ttl was raised"],
        "journal": [{"time": "T", "code": "promoting", "sentence": "PostgreSQL is promoted"}]}"#;
    let (api_url, _) = member(&[(200, document)]).await;
    let world = World::new(&quiet(&api_url)).await;
    let (text, ended) = world.run("why n1", "").await;
    assert_eq!(ended, Ok(()));
    let expected = "\
n1 (primary, PostgreSQL running)
  now        this node is the primary  [leader/tenure_held]
  tenure     held, epoch 5, 19000 ms left, renewed 100 ms ago
  guard      armed, stops PostgreSQL in 19000 ms unless the tenure is renewed; could not get: locked memory
  otherwise  rewind: WAL is gone
  under way  Renew for 3 ms
  warning    ttl was raised
  before     T  PostgreSQL is promoted  [promoting]
";
    assert_eq!(text, expected);
    let ended = world.run("why n9", "").await.1;
    assert_eq!(ended, Err(CtlError::Failed("n9 is not a member of cluster demo".into())));
    let (_, ended) = world.run("why n2 -f json", "").await;
    assert!(matches!(&ended, Err(CtlError::Failed(text)) if text.starts_with("n2: no answer: ")), "{ended:?}");
}
