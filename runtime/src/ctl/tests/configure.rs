//! `edit-config`, `pause`, `resume`.

use super::*;

const EDITED: &str = r#"{"ttl":30,"postgresql":{"parameters":{"max_connections":200}},"loop_wait":5}"#;

fn failed(text: &str) -> Result<(), CtlError> {
    Err(CtlError::Failed(text.to_owned()))
}

#[tokio::test]
async fn a_change_is_shown_asked_about_and_written() {
    let world = World::new(&quiet(NOWHERE)).await;
    let difference = "\
--- 
+++ 
@@ -1,4 +1,5 @@
+loop_wait: 5
 postgresql:
   parameters:
-    max_connections: 100
+    max_connections: 200
 ttl: 30
";
    let line = "edit-config -s loop_wait=5 --pg max_connections=200";
    let (text, ended) = world.run(line, "n\n").await;
    assert_eq!((text, ended), (format!("{difference}Apply these changes? [y/N]: "), Ok(())));
    assert!(!world.key("config").await.unwrap().contains("loop_wait"));
    let (text, ended) = world.run(line, "y\n").await;
    assert_eq!((text, ended), (format!("{difference}Apply these changes? [y/N]: Configuration changed\n"), Ok(())));
    assert_eq!(world.key("config").await.as_deref(), Some(EDITED));
    assert_eq!(world.run(line, "").await, ("Not changed\n".to_owned(), Ok(())));
    assert_eq!(world.run(&format!("{line} -q"), "").await, (String::new(), Ok(())));
    assert_eq!(world.run("edit-config -q --force -s ttl=null", "").await.0, "Configuration changed\n");
    assert!(!world.key("config").await.unwrap().contains("ttl"));
    assert_eq!(world.run("edit-config -s ttl", "").await.1, failed("Invalid parameter setting ttl"));
    let ended = world.run("edit-config other -s ttl=5", "").await.1;
    assert_eq!(ended, failed("The config key does not exist in the cluster other"));
}

#[tokio::test]
async fn yaml_is_laid_over_or_put_in_place() {
    let world = World::new(&quiet(NOWHERE)).await;
    let yaml = "loop_wait: 5\npostgresql:\n  parameters: {max_connections: 200, work_mem: null}\n";
    let (text, ended) = world.run("edit-config --apply -", yaml).await;
    assert!(text.ends_with(" ttl: 30\nUse --force option to apply changes\n") && ended.is_ok(), "{text}");
    let (text, _) = world.run("edit-config --apply - --force", yaml).await;
    assert!(text.ends_with("Configuration changed\n"), "{text}");
    assert_eq!(world.key("config").await.as_deref(), Some(EDITED));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "pause: off\n").unwrap();
    let path = file.path().to_str().unwrap();
    let (text, ended) = world.run(&format!("edit-config -q --replace {path}"), "y\n").await;
    assert_eq!((text.as_str(), ended), ("Apply these changes? [y/N]: Configuration changed\n", Ok(())));
    assert_eq!(world.key("config").await.as_deref(), Some(r#"{"pause":false}"#));
    let ended = world.run("edit-config --apply -", "- a\n").await.1;
    assert_eq!(ended, failed("- must hold a YAML mapping, not a list"));
    let ended = world.run("edit-config --apply /nowhere/x.yaml", "").await.1;
    assert!(matches!(&ended, Err(CtlError::Failed(text)) if text.starts_with("cannot read /nowhere/x.yaml: ")));
}

/// Somebody at the terminal, who says yes when another has changed the configuration of the store at this address.
struct Slow(String);
impl std::io::Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let host = self.0.clone();
        let change = || {
            on_a_runtime(async {
                let store = EtcdStore::new(vec![host], None, Connector::tcp(LIMIT));
                put_key(&store, "/service/demo/config".into(), r#"{"ttl":60}"#.into(), None, LIMIT).await;
            });
        };
        std::thread::scope(|threads| threads.spawn(change).join().unwrap());
        buffer[..2].copy_from_slice(b"y\n");
        Ok(2)
    }
}

/// Somebody changes the configuration while the question stands.
#[tokio::test]
async fn a_change_between_question_and_answer_is_not_overwritten() {
    let world = World::new(&quiet(NOWHERE)).await;
    let url = format!("etcd3://{}", world.host);
    let args = CtlArgs::try_parse_from(["matriarch", "-d", &url, "edit-config", "demo", "-s", "ttl=20"]).unwrap();
    let (mut input, mut output) = (std::io::BufReader::new(Slow(world.host.clone())), Vec::new());
    let ended = execute_with(args, Console::new(&mut input, &mut output, false), []).await;
    assert_eq!(ended, failed("Config modification aborted due to concurrent changes"));
    assert_eq!(world.key("config").await.as_deref(), Some(r#"{"ttl":60}"#));
}

#[tokio::test]
async fn colours_are_for_terminals() {
    let world = World::new(&quiet(NOWHERE)).await;
    let url = format!("etcd3://{}", world.host);
    let args = CtlArgs::try_parse_from(["matriarch", "-d", &url, "edit-config", "demo", "-s", "ttl=20"]).unwrap();
    let (mut input, mut output) = ("n\n".as_bytes(), Vec::new());
    execute_with(args, Console::new(&mut input, &mut output, true), []).await.unwrap();
    let text = String::from_utf8(output).unwrap();
    assert!(text.contains("\x1b[31m-ttl: 30\x1b[0m\n\x1b[32m+ttl: 20\x1b[0m\n"), "{text:?}");
}

#[tokio::test]
async fn a_cluster_is_paused_and_resumed_through_a_member() {
    let (api_url, seen) = member(&[(200, "{}"), (200, "{}"), (409, "page")]).await;
    let world = World::new(&quiet(&api_url)).await;
    assert_eq!(world.run("pause", "").await, ("Success: cluster management is paused\n".to_owned(), Ok(())));
    assert_eq!(*seen.lock().unwrap(), [r#"PATCH /config {"pause":true}"#]);
    assert_eq!(world.run("resume", "").await.1, failed("Cluster is not paused"));
    world.put("config", r#"{"loop_wait":1,"pause":true}"#).await;
    assert_eq!(world.run("pause", "").await.1, failed("Cluster is already paused"));
    let (text, ended) = world.run("resume --wait", "").await;
    let expected =
        "'resume' request sent, waiting until it is recognized by all nodes\nSuccess: cluster management is resumed\n";
    assert_eq!((text.as_str(), ended), (expected, Ok(())));
    assert_eq!(seen.lock().unwrap()[1], r#"PATCH /config {"pause":null}"#);
    let (text, ended) = world.run("resume", "").await;
    assert_eq!((text.as_str(), ended), ("Failed: resume cluster management status code=409, (page)\n", Ok(())));
}

#[tokio::test]
async fn a_wait_for_a_pause_ends() {
    let (api_url, _) = member(&[(200, "{}")]).await;
    let mut keys = quiet(&api_url);
    keys.retain(|(key, _)| !matches!(*key, "config" | "members/n3"));
    keys.push(("config", r#"{"loop_wait":1}"#.into()));
    keys.push(("members/n3", member_key("127.0.0.1", 15434, NOWHERE, r#""state":"running","pause":true"#)));
    let world = World::new(&keys).await;
    let (text, ended) = world.run("pause --wait", "").await;
    assert!(text.ends_with("\nn1, n2 members didn't recognized pause state after 1 seconds\n"), "{text}");
    assert_eq!(ended, Ok(()));
}

#[tokio::test]
async fn clusters_become_no_standbys_yet() {
    let world = World::new(&quiet(NOWHERE)).await;
    let ended = world.run("demote-cluster --force", "").await.1;
    assert_eq!(ended, failed("At least --host, --port or --restore-command should be specified"));
    for line in ["demote-cluster demo --host h --port 5432 --force", "promote-cluster demo --force"] {
        let (text, ended) = world.run(line, "").await;
        let clear = matches!(&ended, Err(CtlError::Failed(why)) if why.contains("knows no standby clusters"));
        assert!(text.is_empty() && clear, "{line}: {ended:?}");
    }
}
