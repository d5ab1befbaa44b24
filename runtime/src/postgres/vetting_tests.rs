use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::agent::setup;
use crate::config::{self, DynamicConfig};
use crate::postgres::{Allowance, Postgres};

/// A node whose `postgres` notes in `asked` that it was asked, and does then what `script` says.
fn node(script: &str) -> (TempDir, Settings) {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name).display().to_string();
    let text = json!({
        "scope": "herd", "name": "a", "restapi": {"listen": "h:1"}, "etcd3": {"host": "h:1"},
        "postgresql": {
            "listen": "127.0.0.1:1", "data_dir": at("data"), "bin_dir": at(""),
            "authentication": {"replication": {"username": "r"}},
            "parameters": {"work_mem": "lots"},
        },
        "matriarch": {"state_dir": at("")},
    });
    let local = config::load(None, [("PATRONI_CONFIGURATION".to_owned(), text.to_string())]).unwrap().config;
    let (dynamic, warnings) = DynamicConfig::from_json(&json!({})).unwrap();
    let settings = setup::effective(&local, &dynamic, warnings, 15).settings;
    program(&home, script);
    (home, settings)
}

fn program(home: &TempDir, script: &str) {
    let (path, next) = (home.path().join("postgres"), home.path().join("postgres.next"));
    fs::write(&next, format!("#!/bin/sh\necho >> {}\n{script}\n", home.path().join("asked").display())).unwrap();
    fs::set_permissions(&next, fs::Permissions::from_mode(0o700)).unwrap();
    fs::rename(&next, &path).unwrap();
}

fn asked(home: &TempDir) -> usize {
    fs::read(home.path().join("asked")).map_or(0, |said| said.len())
}

/// Refuses `work_mem = lots`.
const REFUSES: &str = r#"for last; do case $last in config_file=*) file=${last#config_file=};; esac; done
grep -q "^work_mem = 'lots'" "$file" || exit 0
echo 'LOG:  invalid value for parameter "work_mem": "lots"' >&2; exit 1"#;

fn work_mem(vetting: &Vetting, settings: &Settings) -> Option<String> {
    vetting.known(Arc::new(settings.clone())).parameters.get("work_mem").cloned()
}

#[tokio::test]
async fn what_was_found_out_is_kept_while_the_program_is_missing_and_is_of_one_value_only() {
    let (home, mut settings) = node(REFUSES);
    let vetting = Vetting::default();
    assert_eq!(work_mem(&vetting, &settings).as_deref(), Some("lots"), "nothing is known yet");
    let warnings = vetting.vet(|| Arc::new(settings.clone())).await.1;
    assert!(warnings.len() == 1 && warnings[0].contains("work_mem is not used"), "{warnings:?}");
    assert_eq!(work_mem(&vetting, &settings), None);
    let times = asked(&home);
    assert_eq!(times, 2);

    fs::remove_file(home.path().join("postgres")).unwrap();
    let (vetted, kept) = vetting.vet(|| Arc::new(settings.clone())).await;
    assert_eq!((vetted.parameters.get("work_mem"), kept), (None, warnings));
    program(&home, "exit 0");
    assert_eq!(vetting.vet(|| Arc::new(settings.clone())).await.1, [""; 0], "another program");
    assert_eq!(work_mem(&vetting, &settings).as_deref(), Some("lots"));

    program(&home, REFUSES);
    vetting.vet(|| Arc::new(settings.clone())).await;
    assert_eq!(work_mem(&vetting, &settings), None);
    settings.parameters.insert("work_mem".into(), "5MB".into());
    assert_eq!(work_mem(&vetting, &settings).as_deref(), Some("5MB"));
}

#[tokio::test]
async fn a_program_that_gives_no_answer_is_not_asked_again_at_once() {
    let (home, mut settings) = node("exit 3");
    let vetting = Vetting::default();
    vetting.vet(|| Arc::new(settings.clone())).await;
    let times = asked(&home);
    assert!(times > 0);
    vetting.vet(|| Arc::new(settings.clone())).await;
    assert_eq!(asked(&home), times);
    settings.parameters.insert("work_mem".into(), "5MB".into());
    vetting.vet(|| Arc::new(settings.clone())).await;
    assert!(asked(&home) > times, "it was asked something else");
    let times = asked(&home);
    if let Some(silent) = &mut vetting.known_now().silent {
        silent.since -= SILENT_FOR;
    }
    vetting.vet(|| Arc::new(settings.clone())).await;
    assert!(asked(&home) > times);
}

/// What a failover does: it neither asks nor waits for who asks.
#[tokio::test]
async fn a_freeze_and_a_new_upstream_do_not_wait_for_a_program_that_hangs() {
    let (home, settings) = node("exec sleep 60");
    let postgres = Arc::new(Postgres::new(settings));
    let asking = tokio::spawn({
        let postgres = Arc::clone(&postgres);
        async move { postgres.vet_parameters().await }
    });
    while asked(&home) == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let begun = Instant::now();
    // How they end is another matter: there is no cluster.
    let _ = postgres.freeze(Duration::from_millis(10)).await;
    let _ = postgres.follow(None).await;
    assert!(begun.elapsed() < FIRST_WAIT, "{:?}", begun.elapsed());
    let _ = postgres.start(matriarch_core::view::postgres::StartAs::Standby(None), &Allowance::unbounded()).await;
    assert!(begun.elapsed() < 2 * FIRST_WAIT + Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(asked(&home), 1);
    asking.abort();
}

fn given(names: &[&str]) -> BTreeMap<String, String> {
    names.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect()
}

#[test]
fn what_the_server_says_is_understood() {
    let said = "postgres failed (exit status: 1): LOG:  skipping missing configuration file \"/x/postgresql.auto.conf\"\n\
                LOG:  unrecognized configuration parameter \"max_conections\" in file \"/x/t\" line 1\n\
                LOG:  invalid value for parameter \"DateStyle\": \"x\"\n\
                DETAIL:  Unrecognized key word: \"x\".\n\
                LOG:  Bonjour is not supported by this build\n\
                HINT:  Nothing of ours.\n\
                LOG:  invalid value for parameter \"of_the_base_file\": \"x\"\n\
                FATAL:  configuration file \"/x/t\" contains errors";
    let faults = faults(said, &given(&["datestyle", "max_conections"]));
    assert_eq!(faults.len(), 2);
    assert!(faults[0].unknown && faults[0].name == "max_conections");
    assert_eq!(faults[0].why, "unrecognized configuration parameter \"max_conections\"");
    assert_eq!((faults[1].name.as_str(), faults[1].unknown), ("datestyle", false));
    assert_eq!(faults[1].why, "invalid value for parameter \"DateStyle\": \"x\"; Unrecognized key word: \"x\"");
}

#[test]
fn what_breaks_the_syntax_is_told_by_its_line() {
    let parameters: BTreeMap<_, _> =
        [("a", "1"), ("b", "two\nlines"), ("c d", "2")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    let said = |line: u32| format!("LOG:  syntax error in file \"/x/line 9\" line {line}, near token \"=\"");
    for (line, name) in [(1, Some("a")), (2, Some("b")), (3, Some("b")), (4, Some("c d")), (5, None)] {
        let found = faults(&said(line), &parameters);
        assert_eq!(found.first().map(|fault| fault.name.as_str()), name, "line {line}");
        assert!(found.iter().all(|fault| fault.why == "syntax error" && !fault.unknown));
    }
}

#[test]
fn what_is_out_of_range_has_a_nearest_value() {
    for (message, nearest) in [
        ("1 s is outside the valid range for parameter \"a\" (30 .. 86400)", Some("30")),
        ("1 8kB is outside the valid range for parameter \"a\" (16 8kB .. 1073741823 8kB)", Some("16")),
        ("500 is outside the valid range for parameter \"a\" (0 .. 100)", Some("100")),
        ("-1.5 is outside the valid range for parameter \"a\" (0 .. 1e+10)", Some("0")),
        ("invalid value for parameter \"a\": \"x\"", None),
    ] {
        assert_eq!(nearest_value(message).as_deref(), nearest, "{message}");
    }
}

#[test]
fn the_nearest_known_name_is_proposed() {
    let known = ["max_connections", "max_wal_size", "port"].map(str::to_owned).into();
    assert!(unknown_warning("max_conections", &known).ends_with("is max_connections meant?"));
    assert!(unknown_warning("prot", &known).ends_with("no such parameter"), "half of it is no near miss");
    assert!(unknown_warning("shared_bufers", &known).ends_with("no such parameter"));
    assert_eq!((distance("", "abc"), distance("abc", "abc"), distance("kitten", "sitting")), (3, 0, 3));
}
