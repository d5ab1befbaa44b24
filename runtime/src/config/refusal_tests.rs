//! What is refused, what is announced to have no effect, and what is adjusted.

use super::*;
use crate::config::local::Log;
use crate::hooks::{Callback, CommandLine, ReplicaMethod};
use crate::logging::{Format, PATRONI_FORMAT};

#[test]
fn what_is_not_supported_is_refused() {
    for (from, to, path, message) in [
        ("etcd3:", "etcd:", "etcd", "this store is not supported yet; use etcd3"),
        (
            "etcd3:",
            "consul: {host: h}\netcd3:",
            "consul",
            "with this section beside etcd3 Patroni's store is consul, which is not supported yet; remove the one that the cluster does not use",
        ),
        (
            "restapi:\n",
            "citus: {group: 0, database: d}\nrestapi:\n",
            "citus",
            "a Citus cluster is not supported yet; leave its nodes to Patroni",
        ),
        ("  username: patroni", "  srv: x", "etcd3.srv", "not supported yet; name the members under etcd3.hosts"),
        ("    password: hunter2\n", "", "restapi.authentication", "needs both `username` and `password`"),
        (
            "  - basebackup",
            "  - wal_e\n  - basebackup\n  wal_e: {command: \"'\"}",
            "postgresql.wal_e",
            "this is no command: a quote in it is not closed",
        ),
        (
            "  dcs:",
            "  method: wal_e\n  wal_e: 5\n  dcs:",
            "bootstrap.wal_e",
            "expected a mapping: `command` and the arguments of the method",
        ),
        ("    size: 12MB", "    size: 1000kB", "matriarch.recorder.size", "expected 1MB or more"),
        ("    size: 12MB", "    size: -1", "matriarch.recorder.size", "expected 1MB or more"),
        (
            "10.0.0.12",
            "http://10.0.0.12:2379",
            "etcd3.hosts",
            "expected host:port, found the text \"http://10.0.0.12:2379\"; the scheme belongs under `protocol`",
        ),
    ] {
        let text = sample().replace(from, to);
        let problems = loaded(&text, &[]).unwrap_err().problems;
        let errors: Vec<_> = problems
            .iter()
            .filter(|p| p.severity == Severity::Error)
            .map(|p| (p.path.as_str(), p.message.as_str()))
            .collect();
        assert_eq!(errors, [(path, message)], "{to}");
    }
    let watchdog = loaded(&sample().replace("mode: off", "mode: required"), &[]).unwrap_err().to_string();
    assert!(watchdog.contains("watchdog.mode: `required` is not supported yet"), "{watchdog}");
}

/// As with Patroni: a section that is of no use to a cluster that is there keeps nobody from serving it.
#[test]
fn what_is_the_agents_to_set_is_left_out_and_a_timing_is_adjusted() {
    for (from, to, path, message) in [
        (
            "  - data-checksums",
            "  - pwfile: /x",
            "bootstrap.initdb",
            "the option `pwfile` is left out: the agent sets it itself",
        ),
        (
            "    checkpoint: fast",
            "    wal-method: none",
            "postgresql.basebackup",
            "the option `wal-method` is left out: the agent sets it itself",
        ),
        (
            "  basebackup:",
            "  rewind: [dry-run, debug]\n  basebackup:",
            "postgresql.rewind",
            "the option `dry-run` is left out: the agent sets it itself",
        ),
        (
            "    retry_timeout: 10",
            "    retry_timeout: 15",
            "bootstrap.dcs.ttl",
            "impossible timing: loop_wait + 2*retry_timeout <= ttl cannot hold for any loop_wait with ttl=30 and retry_timeout=15; raise ttl to at least 31 or lower retry_timeout to 14",
        ),
        ("etcd3:", "zookeeper: {hosts: [h]}\netcd3:", "zookeeper", "ignored: the store is the one in section etcd3"),
    ] {
        let Loaded { config, warnings, .. } = loaded(&sample().replace(from, to), &[]).unwrap();
        assert!(warnings.iter().any(|w| (w.path.as_str(), w.message.as_str()) == (path, message)), "{warnings:?}");
        let (initdb, postgresql) = (&config.bootstrap.initdb, &config.postgresql);
        for (name, _) in initdb.iter().chain(&postgresql.basebackup).chain(&postgresql.rewind) {
            assert!(!["pwfile", "wal-method", "dry-run"].contains(&name.as_str()), "{name}");
        }
    }
}

#[test]
fn a_timing_that_no_arithmetic_bears_is_refused() {
    let text = sample().replace("    ttl: 30", "    ttl: -9223372036854775808");
    assert!(refused(&text).contains("bootstrap.dcs.ttl: expected a whole number of seconds, at least 1"));
}

#[test]
fn no_timing_is_advised_that_would_be_refused_too() {
    let told = |ttl: &str, retry_timeout: &str| {
        let text = sample().replace("    ttl: 30", &format!("    ttl: {ttl}"));
        let text = text.replace("    retry_timeout: 10", &format!("    retry_timeout: {retry_timeout}"));
        validated(&text.replace("    loop_wait: 10", "    loop_wait: 1"))
    };
    for (ttl, retry_timeout, needed) in [("2", "1", 3), ("1", "1", 3), ("2", "10", 21)] {
        let said = told(ttl, retry_timeout);
        let floor = format!("ttl={ttl} is below the least that is possible, 3: loop_wait + 2*retry_timeout <= ttl");
        assert!(said.contains(&floor), "{said}");
        assert!(said.contains(&format!("or to at least {needed} as they are")), "{said}");
        assert!(!said.contains("retry_timeout to 0"), "{said}");
    }
    assert!(told("3", "2").contains("raise ttl to at least 5 or lower retry_timeout to 1"));
    let least = sample().replace("    ttl: 30", "    ttl: 3").replace("    loop_wait: 10", "    loop_wait: 1");
    assert!(loaded(&least.replace("    retry_timeout: 10", "    retry_timeout: 1"), &[]).is_ok());
}

#[test]
fn hooks_are_split_as_a_shell_does() {
    let hooked = |hooks: &str| sample().replace("  pg_hba: *hba", &format!("  pg_hba: *hba\n{hooks}"));
    let hooks = "  callbacks: {on_start: /x 'a b', on_stop: ''}\n  pre_promote: /p\n  before_stop: /b";
    let loaded = loaded(&hooked(hooks), &[]).unwrap();
    assert_eq!(loaded.warnings.len(), 0, "{:?}", loaded.warnings);
    let hooks = loaded.config.postgresql.hooks;
    let command = |text: &str| CommandLine::parse(text).unwrap();
    assert_eq!(hooks.callbacks, [(Callback::Start, command("/x a\\ b").unwrap())].into());
    assert_eq!((hooks.pre_promote, hooks.before_stop), (command("/p"), command("/b")));
    let said = refused(&hooked("  callbacks: {on_start: \"/x 'a\"}"));
    assert!(said.contains("postgresql.callbacks.on_start") && said.contains("not closed"), "{said}");
}

#[test]
fn replica_methods_have_a_section_each() {
    let methods = "  - pg br\n  - wal_e\n  - basebackup\n  wal_e:\n    command: /w -v\n    threads: 4\n    no_leader: 1\n\
                   \x20   x: yes\n    none:\n  pg br: {keep_data: yes, no_params: true, command: /p, no_master: on, y: 1}";
    let loaded = loaded(&sample().replace("  - basebackup", methods), &[]).unwrap();
    let hooks = loaded.config.postgresql.hooks;
    let [first, second, third] = &hooks.replica_methods[..] else { panic!("{hooks:?}") };
    let ReplicaMethod::Script { script, no_leader: true, keep_data: true } = first else { panic!("{first:?}") };
    assert_eq!((script.name.as_str(), script.arguments(&[("scope", "s")])), ("pg br", vec!["--y=1".to_owned()]));
    let ReplicaMethod::Script { script, no_leader: true, keep_data: false } = second else { panic!("{second:?}") };
    assert_eq!(script.command, CommandLine::parse("/w -v").unwrap().unwrap());
    assert_eq!(script.arguments(&[("scope", "s")]), ["--threads=4", "--no_leader=1", "--x=True", "--scope=s"]);
    assert_eq!(third, &ReplicaMethod::Basebackup);
    assert!(hooks.restores_alone());
}

/// With these lines in the place of what the section `log` has.
fn with_log(lines: &str) -> String {
    let text = sample();
    let (before, rest) = text.split_once("log:\n").expect("the section");
    let (_, after) = rest.split_once("\n\n").expect("its end");
    format!("{before}log:\n{lines}\n\n{after}")
}

#[test]
fn what_has_no_effect_is_announced() {
    let text = with_log("  loggers: {urllib3: DEBUG}\n  format: '%(thread)d'\n  dateformat: '%'")
        .replace("restapi:\n", "restapi:\n  request_queue_size: 9\n  thread_pool_size: 8\n")
        .replace("mode: off", "mode: automatic")
        .replace("    ttl: 30\n", "    ttl: 30\n    slots: {a: {database: d, plugin: p}}\n");
    let loaded = loaded(&text, &[]).unwrap();
    let mut paths: Vec<&str> = loaded.warnings.iter().map(|problem| problem.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "bootstrap.dcs",
            "log.dateformat",
            "log.format",
            "log.loggers",
            "restapi.request_queue_size",
            "restapi.thread_pool_size",
            "watchdog.mode"
        ]
    );
    assert!(loaded.warnings.iter().all(|problem| !problem.strict));
    let slots = loaded.warnings.iter().find(|problem| problem.path == "bootstrap.dcs");
    assert!(slots.is_some_and(|problem| problem.message.starts_with("slots.a: not supported yet")), "{slots:?}");
}

#[test]
fn a_log_looks_as_the_file_says() {
    let log = |lines: &str| {
        let loaded = loaded(&with_log(lines), &[]).unwrap();
        assert!(loaded.warnings.is_empty(), "{lines}: {:?}", loaded.warnings);
        loaded.config.log
    };
    let plain = |format: &str| Format::plain(format).unwrap();
    assert_eq!(log("  type: plain").format, plain(PATRONI_FORMAT));
    let all = log(
        "  format: '%(levelname)s %(message)s'\n  dateformat: '%H:%M'\n  max_queue_size: 5\n  dir: /var/log/patroni\n\
                   \x20 file_size: 1000\n  mode: 0640\n  level: warning",
    );
    let expected = Log {
        format: plain("%(levelname)s %(message)s"),
        dateformat: Some("%H:%M".into()),
        queue_lines: 5,
        level: "WARNING".into(),
        dir: Some("/var/log/patroni".into()),
        file_size_bytes: 1000,
        mode: Some(0o640),
        ..all.clone()
    };
    assert_eq!(all, expected);
    let json = |lines: &str| match log(&format!("  type: json\n{lines}")).format {
        Format::Json { fields, fixed } => {
            (fields.into_iter().map(|(_, key)| key).collect::<Vec<_>>(), serde_json::Value::Object(fixed).to_string())
        }
        Format::Plain(parts) => panic!("{parts:?}"),
    };
    assert_eq!(json("").0, ["asctime", "levelname", "message"]);
    let (keys, fixed) =
        json("  format: [message, {levelname: severity, module: from}]\n  static_fields: {app: patroni}");
    assert_eq!(
        (keys, fixed.as_str()),
        (vec!["message".into(), "severity".into(), "from".into()], r#"{"app":"patroni"}"#)
    );
}

#[test]
fn adjustable_timings_are_announced() {
    let loaded = loaded(&sample().replace("loop_wait: 10", "loop_wait: 15"), &[]).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].message.contains("Adjusting loop_wait from 15 to 10"));
}
