//! Patroni's own `patronictl` and our command line, held against each other command by command, on a cluster of ours and on
//! one of Patroni's agents. What is left of differences is listed in docs/compatibility.md.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use matriarch_tests::single::{base, give};
use matriarch_tests::{Agent, Certificates, Clients, Cluster, Node, Plan, Said, Store, eventually, output_of};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(90);
const LATER: &str = "2130-01-01T00:00:00+00:00";

fn whole(said: Said) -> Said {
    said
}

/// Without what is of the moment: times, positions, and who is called what.
fn shape(said: Said) -> Said {
    let mut output = String::new();
    for line in said.output.lines() {
        let words = line.split_inclusive([' ', '|', '"', ',', '?']).map(|word| {
            let kept = word.trim_end_matches([' ', '|', '"', ',', '?']);
            let masked = match kept {
                "n1" | "n2" | "n3" => "nX".to_owned(),
                _ if kept.contains('/') && kept.bytes().all(|b| b.is_ascii_hexdigit() || b == b'/') => {
                    "X".repeat(kept.len())
                }
                _ if kept.len() > 7 && kept.bytes().all(|b| b.is_ascii_digit() || b"-:.".contains(&b)) => {
                    "time".to_owned()
                }
                _ => kept.to_owned(),
            };
            masked + &word[kept.len()..]
        });
        output.extend(words);
        output.push('\n');
    }
    Said { output, ..said }
}

/// Without our warnings of what members will make of a configuration, which Patroni does not give.
fn unwarned(said: Said) -> Said {
    let kept = said.complaints.split_inclusive('\n').filter(|line| !line.starts_with("Warning: "));
    Said { complaints: kept.collect(), ..said }
}

/// Usage errors are told by the two libraries in their own words: only the status is the contract.
fn status(said: Said) -> Said {
    Said { output: String::new(), complaints: String::new(), ..said }
}

#[tokio::test]
async fn both_command_lines_say_the_same_of_a_cluster_of_ours() {
    both_say_the_same(Agent::Matriarch).await;
}

#[tokio::test]
async fn both_command_lines_say_the_same_of_a_cluster_of_patronis() {
    both_say_the_same(Agent::Patroni).await;
}

async fn both_say_the_same(agent: Agent) {
    let dir = base();
    let mut extra = json!({
        "tags": {"zone": "a", "clonefrom": true},
        "postgresql": {"parameters": with_tls(dir.path())},
    });
    if agent == Agent::Patroni {
        // The least that it takes.
        extra["bootstrap"] = json!({"dcs": {"ttl": 20, "retry_timeout": 3}});
    }
    let mut cluster = Cluster::prepare(Plan { agent, extra, ..Plan::default() }).await;
    let Some(clients) = Clients::of(&cluster) else { return };
    cluster.nodes.iter_mut().for_each(Node::start);
    settled(&cluster, &clients).await;
    let told = cluster.nodes[0].get("/patroni").await.body;
    assert_eq!(told.contains("\"matriarch\""), agent == Agent::Matriarch, "whose agents these are: {told}");
    moves(&cluster, &clients).await;
    settled(&cluster, &clients).await;
    looks(&clients);
    a_view_stays_open(&clients);
    members_are_told(&cluster, &clients).await;
    configurations(&clients);
    queries(&clients);
    an_error_in_json(&clients);
    refusals(&clients);
    a_restart_is_due(&cluster, &clients).await;
    cloned_anew(&cluster, &clients).await;
    removed(&mut cluster, &clients).await;
}

/// What has a server speak TLS, with a certificate and a key that its account may read.
fn with_tls(dir: &Path) -> Value {
    let made = dir.join("certificates");
    output_of(Command::new(Certificates::SCRIPT).arg(&made).arg("IP:127.0.0.1")).expect("certificates");
    let file = |name: &str| {
        let copy = dir.join(name);
        std::fs::copy(made.join(name), &copy).expect("a copy");
        std::fs::set_permissions(&copy, Permissions::from_mode(0o600)).expect("its permissions");
        give(&copy);
        copy
    };
    json!({"ssl": "on", "ssl_cert_file": file("server.pem"), "ssl_key_file": file("server.key")})
}

/// Waits until the cluster is whole, and members' records say so: those follow a moment later. The primary.
async fn settled(cluster: &Cluster, clients: &Clients) -> usize {
    let primary = cluster.healed(LIMIT).await;
    eventually("the members' records tell of a whole cluster", LIMIT, async || {
        let list = clients.ours(&["list", "-f", "json"], "").output;
        if list.matches("\"streaming\"").count() == 2 { Ok(()) } else { Err(list) }
    })
    .await;
    primary
}

/// Each has the cluster switched over once, and failed over. Who leads is another one each time, so members' rows are not
/// compared, and the table after it shows them on their way.
async fn moves(cluster: &Cluster, clients: &Clients) {
    let until_done = |said: Said| {
        let (before, done) = said.output.split_once("Successfully").unwrap_or_else(|| panic!("{said:?}"));
        let lines = before.split_inclusive('\n').filter(|line| !line.starts_with("| n"));
        let output = lines.chain(["Successfully", done.lines().next().unwrap_or_default()]).collect();
        shape(Said { output, ..said })
    };
    let switchover = ["switchover", "test", "--force"];
    let theirs = until_done(clients.theirs(&switchover, ""));
    settled(cluster, clients).await;
    let ours = until_done(clients.ours(&switchover, ""));
    assert_eq!(ours, theirs);
    let mut said = Vec::new();
    for run in [Clients::theirs, Clients::ours] {
        let primary = settled(cluster, clients).await;
        let candidate = cluster.nodes[cluster.others(primary)[0]].name.as_str();
        said.push(until_done(run(clients, &["failover", "test", "--candidate", candidate, "--force"], "")));
        assert_ne!(settled(cluster, clients).await, primary);
    }
    assert_eq!(said[1], said[0]);
}

/// Commands that show.
fn looks(clients: &Clients) {
    for words in [
        &["list"][..],
        &["list", "test", "-e"],
        &["list", "-f", "tsv"],
        &["list", "-f", "json"],
        &["list", "-f", "yaml"],
        &["list", "other", "test"],
        &["topology"],
        &["history"],
        &["history", "-f", "tsv"],
        &["history", "-f", "json"],
        &["history", "-f", "yml"],
        &["show-config"],
        &["show-config", "other"],
        &["version"],
        &["version", "test"],
        &["version", "test", "n2", "n9"],
        &["dsn"],
        &["dsn", "test", "-r", "replica"],
        &["dsn", "-m", "n3"],
    ] {
        assert_eq!(clients.same(words, "", whole).status, 0, "{words:?}");
    }
}

/// Painted in place on the terminal's other screen, and left behind on the first.
fn a_view_stays_open(clients: &Clients) {
    let table = shape(clients.ours(&["list"], "")).output;
    let said = clients.ours_at_a_terminal(&["list", "-w", "0.5"], 2);
    let frames = said.output.matches("\x1b[?2026h\x1b[H+ Cluster: test ").count();
    assert!(said.output.starts_with("\x1b[?1049h\x1b[?25l") && frames > 1, "{said:?}");
    let (_, left) = said.output.rsplit_once("\x1b[?25h\x1b[?1049l").unwrap_or_else(|| panic!("{said:?}"));
    let left = shape(Said { output: left.to_owned(), ..said });
    assert_eq!((left.output, left.status), (table + "Aborted!\n", 1));
}

/// Commands that members carry out.
async fn members_are_told(cluster: &Cluster, clients: &Clients) {
    for words in [&["reload", "test", "--force"][..], &["reload", "test", "n3", "n1", "-r", "replica", "--force"]] {
        assert_eq!(clients.same(words, "", shape).status, 0);
    }
    // In turn: whoever has just been restarted is shown as it comes up.
    let restart = ["restart", "test", "n3", "--force", "--timeout", "30"];
    settled(cluster, clients).await;
    let theirs = shape(clients.theirs(&restart, ""));
    settled(cluster, clients).await;
    assert_eq!(shape(clients.ours(&restart, "")), theirs);
    settled(cluster, clients).await;
    // What one schedules, both show and the other takes back.
    let schedule = ["restart", "test", "n3", "--scheduled", LATER, "--pg-version", "99.1", "--force"];
    let flush = ["flush", "test", "n3", "restart", "--force"];
    scheduled(cluster, clients, &schedule, &flush, "scheduled_restart").await;
    // What is scheduled already is scheduled anew.
    clients.same(&schedule, "", shape);
    assert!(clients.ours(&flush, "").output.contains("Success: flush scheduled restart for member n3\n"));
    clients.same(&["flush", "test", "restart", "--force"], "", shape);
    let leader = clients.ours(&["dsn"], "").output;
    assert!(leader.starts_with("host="), "{leader}");
    let schedule = ["switchover", "test", "--scheduled", LATER, "--force"];
    scheduled(cluster, clients, &schedule, &["flush", "test", "switchover"], "scheduled_switchover").await;
    clients.same(&["flush", "test", "switchover"], "", whole);
}

async fn scheduled(cluster: &Cluster, clients: &Clients, schedule: &[&str], flush: &[&str], key: &str) {
    let seen = async |there: bool| {
        eventually("the schedule is known", LIMIT, async || {
            let answer = cluster.nodes[0].get("/cluster").await.body;
            if answer.contains(key) == there { Ok(()) } else { Err(answer) }
        })
        .await;
    };
    let theirs = shape(clients.theirs(schedule, ""));
    seen(true).await;
    clients.same(&["list"], "", shape);
    clients.same(&["list", "-f", "json"], "", whole);
    let ours_flushed = shape(clients.ours(flush, ""));
    seen(false).await;
    let ours = shape(clients.ours(schedule, ""));
    seen(true).await;
    let theirs_flushed = shape(clients.theirs(flush, ""));
    seen(false).await;
    assert_eq!(ours, theirs);
    assert_eq!(ours_flushed, theirs_flushed);
    assert!(ours.status == 0 && ours_flushed.output.contains("Success"), "{ours:?} {ours_flushed:?}");
}

/// The dynamic configuration. Each changes it, and both show the same afterwards.
fn configurations(clients: &Clients) {
    let show = || clients.same(&["show-config"], "", whole).output;
    let before = show();
    let set =
        ["edit-config", "-s", "loop_wait=2", "-p", "log_min_duration_statement=5s", "-s", "postgresql.use_slots=on"];
    let reset = [
        "edit-config",
        "-q",
        "--force",
        "-s",
        "loop_wait=1",
        "-p",
        "log_min_duration_statement=null",
        "-s",
        "postgresql.use_slots=null",
    ];
    clients.same(&set, "n\n", unwarned);
    // By hand: the text that was written is what is shown, comments included.
    let edited = clients.same(&["edit-config", "test"], "n\n", unwarned);
    assert!(edited.output.contains("+ttl: 4 # seconds\n"), "{edited:?}");
    assert_eq!(show(), before);
    let theirs = clients.theirs(&set, "y\n");
    let changed = show();
    assert_eq!(clients.ours(&reset, "").output, "Configuration changed\n");
    assert_eq!(show(), before);
    assert_eq!(unwarned(clients.ours(&set, "y\n")), theirs);
    assert_eq!(show(), changed);
    clients.same(&set, "", whole);
    clients.same(&["edit-config", "-q", "-s", "loop_wait=2"], "", whole);
    let yaml = "loop_wait: null\nttl: '3'\nx: {y: [1, on, 1:30, 'no'], z: ~}\n";
    clients.same(&["edit-config", "--apply", "-"], yaml, unwarned);
    let theirs = clients.theirs(&["edit-config", "--apply", "-", "--force"], yaml);
    let changed = show();
    assert_eq!(clients.ours(&["edit-config", "--replace", "-", "--force", "-q"], &before).status, 0);
    assert_eq!(clients.ours(&set, "y\n").status, 0);
    assert_eq!(unwarned(clients.ours(&["edit-config", "--apply", "-", "--force"], yaml)), theirs);
    assert_eq!(show(), changed);
    assert_eq!(clients.theirs(&["edit-config", "--replace", "-", "--force", "-q"], &before).status, 0);
    assert_eq!(show(), before);
}

fn ask<'a>(words: &[&'a str]) -> Vec<&'a str> {
    [&["query", "test", "-U", "postgres", "-d", "postgres"][..], words].concat()
}

fn queries(clients: &Clients) {
    let sql = "SELECT 1 AS one, 1.50 AS numeric, 'x' AS text, NULL AS nothing, true AS yes, 1e20::float8 AS float, \
               '2026-11-22 18:59:36.5+00'::timestamptz AS at, '2026-11-22'::date AS day, 5::oid AS oid";
    for words in [
        &["-c", sql][..],
        &["-c", sql, "--format", "pretty"],
        &["-c", sql, "--delimiter", ";"],
        &["-c", "SELECT 1 AS one, NULL AS nothing, true AS yes, 'x' AS text", "--format", "json"],
        &["-c", "SELECT 1 AS one, NULL AS nothing, true AS yes, 'x' AS text", "--format", "yaml"],
        &["-c", "SELECT pg_is_in_recovery()", "-r", "replica"],
        &["-c", "SELECT pg_is_in_recovery()", "-r", "primary"],
        &["-c", "SELECT current_setting('application_name'), current_user", "-m", "n2"],
        &["-c", "SELECT 1 AS a; SELECT 2 AS b"],
        &["-c", "SELECT 1 WHERE false"],
        &["-f", "-"],
    ] {
        assert_eq!(clients.same(&ask(words), "SELECT 7 AS seven", whole).status, 0, "{words:?}");
    }
    let encrypted = ask(&["-c", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"]);
    assert_eq!(clients.same(&encrypted, "", whole).output, "ssl\nTrue\n");
    for words in [
        &["-c", "SELECT nothing"][..],
        &["-c", "SELECT 1", "-m", "n9"],
        &["-c", "SELECT 1", "-r", "standby-leader", "--format", "pretty"],
    ] {
        assert_eq!(clients.same(&ask(words), "", shape).status, 0, "{words:?}");
    }
}

/// An error has no name and so no place in JSON. We tell it beside.
fn an_error_in_json(clients: &Clients) {
    let words = ask(&["-c", "SELECT nothing", "--format", "json"]);
    let said = clients.same(&words, "", |said| Said { complaints: String::new(), ..said });
    assert_eq!((said.output.as_str(), said.status), ("[{}]\n", 0));
    assert_eq!(clients.ours(&words, "").complaints, "ERROR, SQLSTATE: 42703\n");
}

/// What is refused, with the same words and the same status.
fn refusals(clients: &Clients) {
    for (words, input) in [
        (&["dsn", "-m", "n9"][..], ""),
        (&["dsn", "-m", "n1", "-r", "any"], ""),
        (&["query", "test"], ""),
        (&["query", "test", "-c", "SELECT 1", "-f", "/dev/null"], ""),
        (&["edit-config", "-s", "ttl"], ""),
        (&["edit-config", "other", "-s", "ttl=5"], ""),
        (&["resume"], ""),
        (&["demote-cluster", "test", "--force"], ""),
        (&["reload", "test", "n9", "--force"], ""),
        (&["restart", "test", "n1"], "now\nn\n"),
        (&["restart", "test", "n1", "--scheduled", LATER], "n\n"),
        (&["restart", "test", "n1", "--scheduled", LATER, "--pending"], "n\n"),
        (&["restart", "test", "n1", "--pg-version", "15", "--force"], ""),
        (&["restart", "test", "n1", "--pg-version", "a.b"], "now\ny\n"),
        (&["reinit", "test", "n9"], ""),
        (&["switchover", "test", "--scheduled", LATER], "\n\nn\n"),
        (&["switchover", "test"], "\n\n\nn\n"),
        (&["flush", "test", "n2", "restart", "-r", "standby-leader"], ""),
        (&["switchover", "test", "--leader", "n9", "--force"], ""),
        (&["switchover", "test", "--force", "--scheduled", "tomorrow at noon"], ""),
        (&["failover", "test", "--force"], ""),
        (&["remove", "test"], "\nother\n"),
        (&["remove", "test", "-f", "json"], "test\nyes\n"),
        (&["remove", "test", "-f", "tsv"], "test\nYes I am aware\nn9\n"),
    ] {
        assert_eq!(clients.same(words, input, whole).status, 1, "{words:?}");
    }
    for words in [&["lsit"][..], &["list", "--nonsense"], &["list", "-f", "xml"], &["flush", "test", "n1"], &["remove"]]
    {
        assert_eq!(clients.same(words, "", status).status, 2, "{words:?}");
    }
    // Each in its turn, since a cluster is paused once.
    let (pause, resume) = (["pause", "--wait"], ["resume", "--wait"]);
    let (theirs, our_end) = (clients.theirs(&pause, ""), clients.ours(&resume, ""));
    let ours = clients.ours(&pause, "");
    assert!(clients.same(&["list", "test"], "", whole).output.contains(" Maintenance mode: on"));
    assert_eq!(clients.same(&pause, "", whole).status, 1, "it is paused already");
    let their_end = clients.theirs(&resume, "");
    for (theirs, ours, done) in [(theirs, ours, "paused"), (their_end, our_end, "resumed")] {
        assert!(theirs.output.contains(&format!("Success: cluster management is {done}")), "{theirs:?}");
        assert_eq!((theirs.status, theirs.output), (ours.status, ours.output));
    }
    assert_eq!(clients.same(&resume, "", whole).status, 1, "it is not paused");
}

/// What needs a restart is listed with its reason, and each has members restarted that wait for one.
async fn a_restart_is_due(cluster: &Cluster, clients: &Clients) {
    let change = ["edit-config", "test", "-q", "-p", "max_connections=60", "--force"];
    assert_eq!(clients.ours(&change, "").output, "Configuration changed\n");
    eventually("everybody needs a restart", LIMIT, async || {
        let list = clients.ours(&["list", "-f", "json"], "").output;
        if list.matches("max_connections: 50->60").count() == 3 { Ok(()) } else { Err(list) }
    })
    .await;
    for words in [&["list"][..], &["list", "-f", "json"], &["list", "-f", "tsv"], &["topology"]] {
        assert!(clients.same(words, "", whole).output.contains("max_connections: 50->60"), "{words:?}");
    }
    // Standbys before the primary, which may then do what they can follow.
    let primary = settled(cluster, clients).await;
    let mut said = Vec::new();
    for (standby, run) in cluster.others(primary).into_iter().zip([Clients::theirs, Clients::ours]) {
        let name = cluster.nodes[standby].name.as_str();
        let told = run(clients, &["restart", "test", name, "--pending", "--force"], "");
        assert!(told.output.contains(&format!("Success: restart on member {name}")), "{told:?}");
        settled(cluster, clients).await;
        // Who needs a restart no more shows no reason: the table before it is not the other's.
        let output = told.output.lines().filter(|line| line.starts_with("Success")).collect();
        said.push(shape(Said { output, ..told }));
    }
    assert_eq!(said[1], said[0]);
    let ours = clients.ours(&["restart", "test", "--pending", "--force"], "");
    assert_eq!(ours.output.matches("Success: restart on member").count(), 1, "{ours:?}");
    settled(cluster, clients).await;
    eventually("nobody needs a restart", LIMIT, async || {
        let list = clients.ours(&["list", "-f", "json"], "").output;
        if list.contains("Pending restart") { Err(list) } else { Ok(()) }
    })
    .await;
    clients.same(&["restart", "test", "--pending", "--force"], "", shape);
    clients.same(&["restart", "test", "--any", "--role", "replica"], "now\nn\n", shape);
}

/// Each has a standby cloned again, and waits for it.
async fn cloned_anew(cluster: &Cluster, clients: &Clients) {
    let primary = settled(cluster, clients).await;
    let mut said = Vec::new();
    for (standby, run) in cluster.others(primary).into_iter().zip([Clients::theirs, Clients::ours]) {
        let before = cluster.nodes[standby].postmaster();
        let words = ["reinit", "test", cluster.nodes[standby].name.as_str(), "--force", "--wait"];
        said.push(shape(run(clients, &words, "")));
        assert_eq!(settled(cluster, clients).await, primary);
        assert_ne!(cluster.nodes[standby].postmaster(), before);
    }
    assert_eq!(said[1], said[0]);
    assert!(said[1].status == 0 && said[1].output.contains("Success: reinitialize for member nX"), "{said:?}");
}

/// A cluster that ended is removed from the store by each, and nothing is left of it.
async fn removed(cluster: &mut Cluster, clients: &Clients) {
    cluster.nodes.iter().for_each(Node::kill_everything);
    eventually("nobody is a member", LIMIT, async || {
        let list = clients.ours(&["list", "-f", "json"], "").output;
        if list == "[]\n" { Ok(()) } else { Err(list) }
    })
    .await;
    for words in [&["list"][..], &["topology"], &["history"], &["show-config"], &["dsn"], &["version", "test"]] {
        clients.same(words, "", whole);
    }
    let backup = cluster.stores[0].back_up();
    let remove = ["remove", "test"];
    let input = "test\nYes I am aware\n";
    let theirs = clients.theirs(&remove, input);
    let emptied = [clients.theirs(&["list"], ""), clients.theirs(&["show-config"], "")];
    cluster.stores[0].restore(&backup);
    eventually("the store is as it was", LIMIT, async || {
        let config = clients.ours(&["show-config"], "");
        if config.output.contains("loop_wait") { Ok(()) } else { Err(format!("{config:?}")) }
    })
    .await;
    let ours = clients.ours(&remove, input);
    assert_eq!(ours, theirs);
    assert_eq!([clients.ours(&["list"], ""), clients.ours(&["show-config"], "")], emptied);
    let left = Store::connect(&cluster.stores).read_prefix("/service/test/", LIMIT).await.done().expect("a look");
    assert!(left.entries.is_empty(), "{left:?}");
}
