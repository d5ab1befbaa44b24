//! `reload`, `flush`, `remove`, `version`, `dsn`, `query`.

use super::*;

fn failed(text: &str) -> Result<(), CtlError> {
    Err(CtlError::Failed(text.to_owned()))
}

#[tokio::test]
async fn a_reload_goes_to_the_chosen_members() {
    let answers = [(202, "reload scheduled"), (200, "x"), (403, "Access is denied")];
    let (api_url, seen) = member(&answers).await;
    let world = World::new(&quiet(&api_url)).await;
    let (text, ended) = world.run("reload demo n3 n1", "y\n").await;
    assert_eq!(ended, Ok(()), "{text}");
    let end = "Are you sure you want to reload members n1, n3? [y/N]: Reload request received for member n1 and will be \
               processed within 10 seconds\nNo changes to apply on member n3\n";
    assert!(text.starts_with("+ Cluster: demo ") && text.ends_with(end), "{text}");
    let (text, _) = world.run("reload demo -r leader --force", "").await;
    assert!(text.ends_with("Failed: reload for member n1, status code=403, (Access is denied)\n"), "{text}");
    assert_eq!(*seen.lock().unwrap(), ["POST /reload"; 3]);
    assert_eq!(world.run("reload demo n1", "n\n").await.1, failed("Aborted reload"));
    assert_eq!(world.run("reload demo n1 -r replica", "").await.1, failed("No 'replica' among provided members"));
    assert_eq!(world.run("reload other --force", "").await.1, failed("other cluster doesn't have any members"));
}

#[tokio::test]
async fn scheduled_restarts_are_flushed_where_there_are_any() {
    let (api_url, seen) = member(&[(200, "scheduled restart deleted"), (404, "no restarts are scheduled")]).await;
    let mut keys = quiet(&api_url);
    let scheduled =
        r#""state":"running","role":"primary","scheduled_restart":{"schedule":"2130-01-01T00:00:00+00:00"}"#;
    keys.retain(|(key, _)| *key != "members/n1");
    keys.push(("members/n1", member_key("127.0.0.1", 15432, &api_url, scheduled)));
    let world = World::new(&keys).await;
    let (text, ended) = world.run("flush demo n1 n3 restart", "y\n").await;
    assert_eq!(ended, Ok(()));
    let end = "Are you sure you want to flush members n1, n3? [y/N]: Success: flush scheduled restart for member n1\nNo \
               scheduled restart for member n3\n";
    assert!(text.starts_with("+ Cluster: demo ") && text.ends_with(end), "{text}");
    let (text, _) = world.run("flush demo restart -r leader --force", "").await;
    let end = "Failed: flush scheduled restart for member n1, status code=404, (no restarts are scheduled)\n";
    assert!(text.ends_with(end), "{text}");
    assert_eq!(*seen.lock().unwrap(), ["DELETE /restart"; 2]);
    assert_eq!(world.run("flush demo restart", "n\n").await.1, failed("Aborted flush"));
    let usage = "Invalid value for '{restart|switchover}': 'n1' is not one of 'restart', 'switchover'.";
    assert_eq!(world.run("flush demo n1 --force", "").await.1, Err(CtlError::Usage(usage.into())));
}

#[tokio::test]
async fn a_scheduled_switchover_is_flushed_by_whoever_answers_or_in_the_store() {
    let (api_url, seen) = member(&[(503, "starting"), (200, "scheduled switchover deleted")]).await;
    let world = World::new(&keys(&api_url)).await;
    let (text, ended) = world.run("flush demo switchover --force", "").await;
    assert_eq!(ended, Ok(()));
    // n1 leads, n2 is not there, n3 is asked then.
    let expected = "Failed: member=n1, status_code=503, (starting)\nSuccess: scheduled switchover deleted\n";
    assert_eq!(text, expected);
    assert_eq!(*seen.lock().unwrap(), ["DELETE /switchover"; 2]);

    let world = World::new(&keys(NOWHERE)).await;
    let (text, ended) = world.run("flush demo switchover", "").await;
    assert_eq!(ended, Ok(()));
    assert!(text.ends_with(" Could not find any accessible member of cluster demo\n"), "{text}");
    assert_eq!(world.key("failover").await.as_deref(), Some("{}"));
    assert_eq!(world.run("flush demo switchover", "").await, ("No pending scheduled switchover\n".into(), Ok(())));
}

#[tokio::test]
async fn a_cluster_is_removed_only_by_who_knows_what_it_is() {
    let mut keys = quiet(NOWHERE);
    let many: Vec<String> = (0..150).map(|number| format!("members/m{number}")).collect();
    let many: Vec<&'static str> = many.into_iter().map(|key| &*key.leak()).collect();
    keys.extend(many[..100].iter().map(|key| (*key, "{}".to_owned())));
    let world = World::new(&keys).await;
    for key in &many[100..] {
        world.put(key, "{}").await;
    }
    let refusals = [
        ("demo2\n", "Cluster names specified do not match"),
        ("demo\nyes\n", "You did not exactly type \"Yes I am aware\""),
        ("demo\nYes I am aware\nn2\n", "You did not specify the current leader of the cluster"),
    ];
    for (answers, why) in refusals {
        assert_eq!(world.run("remove demo -f json", answers).await.1, failed(why));
    }
    assert_eq!(world.run("remove demo", "demo\n").await.1, Err(CtlError::Aborted));
    assert_eq!(world.key("leader").await.as_deref(), Some("n1"));
    let (text, ended) = world.run("remove demo", "\ndemo\nYes I am aware\nn1\n").await;
    assert_eq!(ended, Ok(()), "{text}");
    let questions = "Please confirm the cluster name to remove: Please confirm the cluster name to remove: You are about \
                     to remove all information in DCS for demo, please type: \"Yes I am aware\": This cluster currently \
                     is healthy. Please specify the leader name to continue: ";
    assert!(text.ends_with(questions), "{text}");
    let left = world.store.read_prefix("/service/demo/", LIMIT).await.done().unwrap();
    assert_eq!(left.entries, []);

    // Nobody leads: nobody's name is asked for. A neighbour with a longer name stays.
    let world = World::new(&[("initialize", "7711071687290272793".into())]).await;
    let neighbour = Operation::Put { key: "/service/demo2/leader".into(), value: b"n1".to_vec(), lease: None };
    world.store.transact(Transaction { operations: vec![neighbour], ..Transaction::default() }, LIMIT).await;
    assert_eq!(world.run("remove demo", "demo\nYes I am aware\n").await.1, Ok(()));
    assert_eq!(world.store.read_prefix("/service/", LIMIT).await.done().unwrap().entries.len(), 1);
}

#[tokio::test]
async fn versions_are_told_by_members_and_a_member_that_is_away_stops_nothing() {
    let status = r#"{"server_version": 150018, "patroni": {"version": "4.1.5", "scope": "demo", "name": "n1"}}"#;
    let (api_url, _) = member(&[(200, status), (503, r#"{"patroni": {"version": "3.0.0"}}"#)]).await;
    let world = World::new(&quiet(&api_url)).await;
    assert_eq!(world.run("version", "").await, ("patronictl version 4.1.5\n".into(), Ok(())));
    let (text, ended) = world.run("version demo", "").await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        (&lines[..3], ended),
        (&["patronictl version 4.1.5", "", "n1: Patroni 4.1.5 PostgreSQL 15.18"][..], Ok(()))
    );
    assert!(lines[3].starts_with("n2: failed to get version: "), "{text}");
    assert_eq!(lines[4..], ["n3: Patroni 3.0.0"]);
    assert_eq!(world.run("version demo n9", "").await.0, "patronictl version 4.1.5\n\n");
}

#[tokio::test]
async fn a_dsn_is_of_the_member_that_is_meant() {
    let world = World::new(&quiet(NOWHERE)).await;
    for (line, expected) in [
        ("dsn", "host=127.0.0.1 port=15432\n"),
        ("dsn demo -r replica", "host=127.0.0.1 port=15433\n"),
        ("dsn -r any", "host=127.0.0.1 port=15432\n"),
        ("dsn -m n3", "host=127.0.0.1 port=15434\n"),
    ] {
        assert_eq!(world.run(line, "").await, (expected.to_owned(), Ok(())), "{line}");
    }
    for line in ["dsn -m n9", "dsn -r standby-leader", "dsn other"] {
        assert_eq!(world.run(line, "").await.1, failed("Can not find a suitable member"), "{line}");
    }
    let ended = world.run("dsn -m n1 -r any", "").await.1;
    assert_eq!(ended, failed("--role and --member are mutually exclusive options"));
}

#[tokio::test]
async fn a_query_that_reaches_nobody_says_so_in_its_row() {
    let mut keys = quiet(NOWHERE);
    keys.retain(|(key, _)| *key != "members/n1");
    keys.push(("members/n1", member_key("127.0.0.1", 1, NOWHERE, LEADING)));
    let world = World::new(&keys).await;
    let query = async |words: &[&str]| {
        let words = [&["query", "demo"][..], words].concat();
        world.run_words(&words, "s3cret\n").await
    };
    for (words, expected) in [
        (&["-c", "SELECT 1", "-m", "n9"][..], "\tNo connection to member n9 is available\n"),
        (&["-c", "SELECT 1", "-r", "standby-leader"], "\tNo connection to role 'standby-leader' is available\n"),
        (&["-c", "SELECT 1", "--delimiter", "|", "-m", "n9"], "|No connection to member n9 is available\n"),
    ] {
        let (text, ended) = query(words).await;
        assert!(ended.is_ok() && text.ends_with(expected) && text.lines().count() == 1, "{text}");
    }
    let (text, ended) = query(&["-c", "SELECT 1", "-U", "me", "--password"]).await;
    assert!(ended.is_ok() && text.contains("\tERROR, SQLSTATE: 127.0.0.1:1: Connection refused"), "{text}");
    assert!(text.starts_with("Password: ") && !text.contains("s3cret"), "{text}");
    assert_eq!(query(&["-c", "SELECT 1", "-m", "n9", "--format", "json"]).await.0, "[{}]\n");
    let both = query(&["-c", "SELECT 1", "-f", "/dev/null"]).await.1;
    assert_eq!(both, failed("--file and --command are mutually exclusive options"));
    assert_eq!(query(&[]).await.1, failed("You need to specify either --command or --file"));
}
