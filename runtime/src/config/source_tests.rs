#[path = "refusal_tests.rs"]
mod refusals;
#[path = "tls_tests.rs"]
mod tls;

use std::time::Duration;

use super::super::local::{GuardMode, RecorderSection, WatchdogMode};
use super::*;

/// A file as an administrator writes one: anchors, YAML 1.1 words, options in both forms, old habits.
const SAMPLE: &str = r#"scope: herd
namespace: /db/
name: elephant0

x-hba: &hba
- local all all trust
- host replication replicator 10.0.0.0/8 scram-sha-256

log:
  level: INFO
  type: plain
  file_num: 9
  format: '%(asctime)s %(levelname)s: %(message)s'

restapi:
  listen: 0.0.0.0:8008
  connect_address: 10.0.0.1:8008
  authentication:
    username: api
    password: hunter2
  allowlist: [10.0.0.0/8, "::1"]

etcd3:
  hosts: 10.0.0.11:2379, 10.0.0.12,[fd00::1]:2379
  username: patroni
  password: hunter3

bootstrap:
  dcs:
    ttl: 30
    loop_wait: 10
    retry_timeout: 10
    maximum_lag_on_failover: 1048576
    postgresql:
      use_pg_rewind: yes
      parameters:
        max_connections: 200
  initdb:
  - encoding: UTF8
  - data-checksums
  - locale: C.UTF-8

postgresql:
  listen: "*,::1:5433"
  connect_address: 10.0.0.1:5433
  data_dir: /data/pg
  bin_dir: /usr/lib/postgresql/15/bin
  pgpass: /tmp/pgpass0
  pg_ctl_timeout: 0o90
  use_unix_socket: on
  authentication:
    replication: &account
      username: replicator
      password: hunter4
      sslmode: prefer
    superuser:
      <<: *account
      username: postgres
    rewind: {username: rewinder, password: hunter5}
  parameters:
    unix_socket_directories: '..'
    shared_buffers: 128MB
    logging_collector: on
  pg_hba: *hba
  basebackup:
    checkpoint: fast
    max-rate: 100M
  create_replica_methods:
  - basebackup

watchdog:
  mode: off

tags:
  failover_priority: 2
  noloadbalance: false
  datacenter: one

matriarch:
  isolation_timeout: 2.5
  guard: auto
  recorder:
    size: 12MB
"#;

fn sample() -> String {
    SAMPLE.replace("0o90", "90")
}

fn write(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn loaded(text: &str, env: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, "node.yml", text);
    load(Some(&path), env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
}

/// The rendered complaints, with the temporary directory's name taken out.
fn refused(text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, "node.yml", text);
    let error = load(Some(&path), []).unwrap_err().to_string();
    error.replace(&format!("{}/", dir.path().display()), "")
}

fn validated(text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, "node.yml", text);
    let error = validate(Some(&path), []).err().unwrap_or_default();
    error.replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn a_guard_may_be_strict() {
    let text = sample().replace("guard: auto", "guard: strict");
    assert_eq!(validated(&text), "");
    assert_eq!(loaded(&text, &[]).unwrap().config.matriarch.guard, GuardMode::Strict);
    let said = refused(&sample().replace("guard: auto", "guard: strictly"));
    assert!(said.contains("matriarch.guard"), "{said}");
}

#[test]
fn a_file_from_the_field_is_read_whole() {
    let loaded = loaded(&sample(), &[]).unwrap();
    assert_eq!(loaded.render_warnings(), "");
    let c = &loaded.config;
    assert_eq!((c.scope.as_str(), c.name.as_str(), c.base_path().as_str()), ("herd", "elephant0", "/db/herd/"));
    assert_eq!(
        (c.restapi.listen.to_string(), c.restapi.connect_address.to_string()),
        ("0.0.0.0:8008".into(), "10.0.0.1:8008".into())
    );
    assert_eq!(c.restapi.authentication.as_ref().unwrap().password.reveal(), "hunter2");
    assert_eq!(c.ctl.authentication, c.restapi.authentication);
    assert_eq!(c.restapi.allowlist, ["10.0.0.0/8", "::1"]);
    assert_eq!(c.etcd3.hosts, ["10.0.0.11:2379", "10.0.0.12:2379", "[fd00::1]:2379"]);
    assert_eq!(c.bootstrap.dcs["postgresql"]["use_pg_rewind"], serde_json::json!(true));
    let option = |k: &str, v: Option<&str>| (k.to_owned(), v.map(str::to_owned));
    assert_eq!(
        c.bootstrap.initdb,
        [option("encoding", Some("UTF8")), option("data-checksums", None), option("locale", Some("C.UTF-8"))]
    );
    let p = &c.postgresql;
    assert_eq!((p.listen_hosts.join(" "), p.listen_port), ("* ::1".to_owned(), 5433));
    assert_eq!((p.data_dir.as_path(), p.config_dir.as_path()), (Path::new("/data/pg"), Path::new("/data/pg")));
    assert_eq!(p.pg_ctl_timeout, Some(Duration::from_secs(90)));
    assert!(p.use_unix_socket && !p.use_unix_socket_repl);
    let a = &p.authentication;
    assert_eq!(a.superuser.username.as_deref(), Some("postgres"));
    assert_eq!(a.superuser.password.as_ref().unwrap().reveal(), "hunter4");
    assert_eq!(a.replication.options["sslmode"], "prefer");
    assert_eq!(a.rewind.as_ref().unwrap().username.as_deref(), Some("rewinder"));
    assert_eq!(p.pg_hba.as_ref().unwrap().len(), 2);
    assert_eq!(p.parameters["logging_collector"], serde_json::json!(true));
    assert_eq!(p.basebackup, [option("checkpoint", Some("fast")), option("max-rate", Some("100M"))]);
    assert_eq!(c.watchdog.mode, WatchdogMode::Off);
    assert_eq!((c.tags.failover_priority, c.tags.published.len()), (2, 2));
    assert_eq!((c.log.file_num, c.log.level.as_str()), (9, "INFO"));
    assert_eq!(c.matriarch.isolation_timeout, Duration::from_millis(2500));
    assert_eq!((c.matriarch.restart_grace, c.matriarch.guard), (Duration::from_secs(2), GuardMode::Auto));
    assert_eq!(c.matriarch.recorder, RecorderSection { enabled: true, size_bytes: 12 << 20 });
    assert_eq!(validated(&sample()), "");
}

#[test]
fn passwords_show_nowhere() {
    let ok = loaded(&sample(), &[("PATRONI_REPLICATION_PASSWORD", "hunter6")]).unwrap();
    assert_eq!(ok.config.postgresql.authentication.replication.password.as_ref().unwrap().reveal(), "hunter6");
    assert!(
        !format!("{ok:?} {:?} {:?}", ok.sources, env_overrides([("PATRONI_CTL_PASSWORD".into(), "hunter8".into())]))
            .contains("hunter")
    );
    for (from, to) in [
        ("rewind: {username: rewinder, password: hunter5}", "rewind: {username: 5, password: hunter5}"),
        ("rewind: {username: rewinder, password: hunter5}", "rewind: {pasword: hunter5, username: 5}"),
        ("    password: hunter2", "    password: [hunter2]"),
        ("    password: hunter2", "    password: |\n      hunter2\n    user: x"),
        ("    password: hunter2", "    password: hunter2: x"),
        ("    password: hunter2", "    password: \"hunter2"),
        ("  password: hunter3", "  passwrod: hunter3\n  host: 5"),
        ("etcd3:", "etcd3:\n  url: http://root:hunter7@h:1"),
        ("    password: hunter2", "    password: #hunter2"),
        ("    password: hunter2", "    password: 12 #hunter2"),
        ("    password: hunter2", "    pass\n    word: hunter2"),
        ("    password: hunter2", "    passphrase: hunter2"),
        ("    password: hunter2", "    key: hunter2"),
        ("password: hunter5", "passwor hunter5"),
        ("password: hunter5", "passwordhunter5"),
        ("password: hunter5", "password,hunter5"),
        ("password: hunter5", "password: *hunter5"),
        ("password: hunter5", "password: !hunter5"),
        ("password: hunter5", "password: !!int hunter5"),
        (", password: hunter5", ",&password: hunter5"),
        ("password: hunter5", "passwrd=hunter5"),
        ("10.0.0.12", "root:hunter7@10.0.0.12:1"),
        ("  hosts: ", "  url: http://root:hunter7@h:1\n  #"),
    ] {
        let text = sample().replace(from, to);
        let shown = match loaded(&text, &[]) {
            Ok(loaded) => loaded.render_warnings(),
            Err(error) => error.to_string(),
        };
        assert!(!shown.is_empty(), "{to}");
        assert!(!shown.contains("hunter") && !validated(&text).contains("hunter"), "{to}:\n{shown}");
    }
}

#[test]
fn wrong_values_are_shown_with_their_line() {
    let text = SAMPLE.replace("ttl: 30", "ttl: 10s").replace("file_num: 9", "filenum: 9");
    assert_eq!(
        refused(&text),
        r#"warning: log.filenum: unknown key; did you mean `file_num`?
  --> node.yml:12:3
   |
12 |   filenum: ***
   |   ^

error: bootstrap.dcs.ttl: expected a whole number of seconds, at least 1, found the text "10s"
  --> node.yml:30:10
   |
30 |     ttl: 10s
   |          ^

error: postgresql.pg_ctl_timeout: expected a whole number of seconds, at least 0, found the text "0o90"
  --> node.yml:49:19
   |
49 |   pg_ctl_timeout: 0o90
   |                   ^"#
    );
}

#[test]
fn an_unknown_key_is_a_warning_and_an_error_for_validation() {
    let text = sample().replace("use_unix_socket: on", "use_unix_sockets: on\n  completely_else: 1");
    let warnings = loaded(&text, &[]).unwrap();
    let messages: Vec<(&str, &str)> = warnings.warnings.iter().map(|p| (p.path.as_str(), p.message.as_str())).collect();
    assert_eq!(
        messages,
        [
            ("postgresql.use_unix_sockets", "unknown key; did you mean `use_unix_socket`?"),
            ("postgresql.completely_else", "unknown key; it has no effect"),
        ]
    );
    let refused = validated(&text);
    assert!(refused.starts_with("error: postgresql.use_unix_sockets: unknown key; did you mean"), "{refused}");
    let top =
        loaded(&sample().replace("tags:", "ttl: 30\ntagz: {}\nunknown: &x 1\nholder:\n- &y 2\ntags:"), &[]).unwrap();
    let paths: Vec<&str> = top.warnings.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(paths, ["ttl", "tagz"]);
    assert!(top.warnings[0].message.contains("bootstrap.dcs"));
}

#[test]
fn unknown_keys_of_a_proposed_dynamic_configuration_are_shown_with_their_lines() {
    let text = sample()
        .replace("    loop_wait: 10", "    lop_wait: 10")
        .replace("    retry_timeout: 10", "    retry_timout: 10")
        .replace("      use_pg_rewind: yes", "      use_pg_rewnd: yes\n      bin_dir: /x");
    let loaded = loaded(&text, &[]).unwrap();
    let told: Vec<_> = loaded.warnings.iter().map(|p| (p.path.as_str(), p.message.as_str(), p.strict)).collect();
    assert_eq!(
        told,
        [
            ("bootstrap.dcs.lop_wait", "unknown key; did you mean `loop_wait`?", true),
            ("bootstrap.dcs.retry_timout", "unknown key; did you mean `retry_timeout`?", true),
            ("bootstrap.dcs.postgresql.use_pg_rewnd", "unknown key; did you mean `use_pg_rewind`?", true),
            ("bootstrap.dcs.postgresql.bin_dir", "has no effect here: it counts only in a node's own file", false),
        ]
    );
    // It is stored all the same.
    assert_eq!(loaded.config.bootstrap.dcs["lop_wait"], serde_json::json!(10));
    assert!(validated(&text).contains("error: bootstrap.dcs.lop_wait: unknown key; did you mean `loop_wait`?"));
}

#[test]
fn proposed_parameters_are_judged_where_they_are_proposed() {
    for (value, shown) in [("fifty", "fifty"), ("5", "5"), ("[1]", "")] {
        let text = sample().replace("        max_connections: 200", &format!("        Max_Connections: {value}"));
        let refused = validated(&text);
        let path = "error: bootstrap.dcs.postgresql.parameters.Max_Connections: ";
        assert!(refused.starts_with(path), "{refused}");
        if !shown.is_empty() {
            let why = format!("postgresql parameter max_connections={shown} failed validation, defaulting to 100");
            assert!(refused.contains(&why), "{refused}");
            assert_eq!(loaded(&text, &[]).unwrap().warnings.len(), 1);
        }
    }
}

#[test]
fn a_key_that_stands_twice_is_named_with_both_lines_and_the_last_counts() {
    let text =
        sample().replace("    password: hunter2\n", "    password: hunter2\n    username: late\n") + "scope: other\n";
    let loaded = loaded(&text, &[]).unwrap();
    assert_eq!(loaded.config.scope, "other");
    let last = text.lines().count();
    let told: Vec<_> = loaded.warnings.iter().map(|p| (p.path.as_str(), p.message.as_str())).collect();
    let scope = format!("stands twice, on lines 1 and {last}; the later value counts");
    let username = "stands twice, on lines 19 and 21; the later value counts";
    assert_eq!(told, [("restapi.authentication.username", username), ("scope", scope.as_str())]);
    assert!(validated(&text).contains("error: scope: stands twice"));
    let secret = sample().replace("    password: hunter2\n", "    password: hunter2\n    password: other\n");
    let rendered = self::loaded(&secret, &[]).unwrap().render_warnings();
    assert!(rendered.contains("restapi.authentication.password: stands twice"), "{rendered}");
    assert!(!rendered.contains("hunter") && !rendered.contains("other"), "{rendered}");
}

/// Found by fuzzing: the section was kept as data beside what was read of it.
#[test]
fn a_password_under_a_mistyped_section_is_not_in_what_is_kept() {
    let text =
        sample().replace("  parameters:\n    unix", "  superuseer: {password: hunter6}\n  parameters:\n    unix");
    let loaded = loaded(&text, &[]).unwrap();
    assert!(loaded.render_warnings().contains("postgresql.superuseer: unknown key"));
    let shown = format!("{loaded:?}");
    assert!(!shown.contains("hunter"), "{shown}");
}

/// Found by fuzzing: YAML counts lines by more than LF, and the lines that were hidden were others than those shown.
#[test]
fn the_line_that_is_shown_is_the_one_that_yaml_counts() {
    for end in ["\r", "\r\n", "\u{85}", "\u{2028}", "\u{2029}"] {
        let before = "scope: main\n".to_owned() + end;
        let rendered = refused(&(before + "restapi:\n  authentication: {username: u, password:\n    [hunter2]}\n"));
        assert!(!rendered.contains("hunter") && rendered.contains("4 |   authentication: {"), "{end:?}: {rendered}");
    }
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(
        refused("name: a\nrestapi:\n  connect_address: 10.0.0.1:8008\netcd3: {host: h}\n"),
        "error: scope: this key is required and has no value\n  --> node.yml:1:1\n  |\n1 | name: a\n  | ^\n\n\
         error: postgresql: this key is required and has no value\n  --> node.yml:1:1\n  |\n1 | name: a\n  | ^\n\n\
         error: restapi.listen: this key is required and has no value\n  --> node.yml:3:3\n  |\n\
         3 |   connect_address: 10.0.0.1:8008\n  |   ^"
    );
    let no_store = refused(&sample().replace("etcd3:\n", "x: &x\n"));
    assert!(
        no_store.contains("Can not find suitable configuration of distributed configuration store\n"),
        "{no_store}"
    );
}

#[test]
fn the_example_in_the_documentation_is_good_strictly() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/node.yml");
    let loaded = load(Some(&file), std::iter::empty()).unwrap();
    assert_eq!(loaded.render_warnings(), "");
}

#[test]
fn validation_wants_what_other_hosts_need() {
    let text = sample().replace("connect_address: 10.0.0.1:8008", "connect_address: 127.0.0.1:8008");
    assert!(loaded(&text, &[]).is_ok());
    assert!(validated(&text).contains("error: restapi.connect_address: must not contain \"127.0.0.1\", \"0.0.0.0\""));
    let text = sample().replace("  connect_address: 10.0.0.1:5433\n", "");
    assert!(loaded(&text, &[]).unwrap().config.postgresql.connect_address.is_none());
    assert!(validated(&text).contains("error: postgresql.connect_address: this key is required"));
}

#[test]
fn the_environment_wins_over_the_file_and_is_checked_too() {
    let env =
        [("PATRONI_NAME", "other"), ("PATRONI_LOG_FILE_NUM", "3"), ("PATRONI_ETCD3_HOSTS", "a:1,'b:2'"), ("HOME", "/")];
    let ok = loaded(&sample(), &env).unwrap();
    assert_eq!((ok.config.name.as_str(), ok.config.log.file_num), ("other", 3));
    assert_eq!(ok.config.etcd3.hosts, ["a:1", "b:2"]);
    assert_eq!(ok.variables, ["PATRONI_ETCD3_HOSTS", "PATRONI_LOG_FILE_NUM", "PATRONI_NAME"]);
    let error = loaded(&sample(), &[("PATRONI_RESTAPI_LISTEN", "nowhere")]).unwrap_err().to_string();
    assert_eq!(
        error,
        "error: restapi.listen: expected host:port (an IPv6 address in brackets), found the text \"nowhere\"\n  \
         --> environment variable PATRONI_RESTAPI_LISTEN"
    );
}

#[test]
fn the_variable_with_the_text_counts_only_without_a_file() {
    let env =
        |text: String| [("PATRONI_CONFIGURATION".to_owned(), text), ("PATRONI_NAME".to_owned(), "ignored".to_owned())];
    assert_eq!(load(None, env(sample())).unwrap().config.name, "elephant0");
    assert_eq!(load(Some(Path::new("/nowhere/x.yml")), env(sample())).unwrap().config.name, "elephant0");
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, "a.yml", &sample());
    assert_eq!(load(Some(&path), env("scope: x".to_owned())).unwrap().config.name, "ignored");
}

#[test]
fn the_environment_alone_is_enough() {
    let variables = [
        ("PATRONI_SCOPE", "s"),
        ("PATRONI_NAME", "n"),
        ("PATRONI_RESTAPI_LISTEN", "h:1"),
        ("PATRONI_ETCD3_HOSTS", "e:1"),
        ("PATRONI_POSTGRESQL_LISTEN", "h:2"),
        ("PATRONI_POSTGRESQL_DATA_DIR", "/d"),
        ("PATRONI_REPLICATION_USERNAME", "r"),
    ];
    let env = || variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let without = load(None, env()).unwrap();
    assert_eq!((without.config.name.as_str(), without.render_warnings().as_str()), ("n", ""));
    let missing = load(Some(Path::new("/nowhere/x.yml")), env()).unwrap();
    assert_eq!(missing.config, without.config);
    assert_eq!(
        missing.render_warnings(),
        "warning: does not exist: the environment alone counts\n  --> /nowhere/x.yml\n"
    );
    let unknown = [("PATRONI_UNKNOWN".to_owned(), "x".to_owned())];
    assert!(load(None, unknown).unwrap_err().to_string().starts_with("Config is empty.\n"));
}

#[test]
fn what_is_printed_has_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, "a.yml", &sample());
    let printed = super::super::to_yaml(&validate(Some(&path), []).unwrap());
    assert!(!printed.contains("hunter") && printed.contains("password: '***'"), "{printed}");
    assert!(printed.contains("pgpass: /tmp/pgpass0"), "{printed}");
    let mut inside = serde_json::json!({
        "url": "http://user:hunter2@h",
        "list": ["host=h password = hunter2", "host all all all ldap ldapbindpasswd=hunter2", "host all all all md5"],
        "archive_command": "push --token=hunter2 %p",
        "work_mem": "a=b",
        "a": 1,
    });
    hide_secrets(&mut inside);
    let list = [HIDDEN, HIDDEN, "host all all all md5"];
    let shown = serde_json::json!({"url": HIDDEN, "list": list, "archive_command": HIDDEN, "work_mem": "a=b", "a": 1});
    assert_eq!(inside, shown);
}

#[test]
fn a_directory_is_merged_in_the_order_of_names() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "10-base.yml", &sample());
    write(&dir, "20-node.yaml", "name: b\nlog:\n  dir:\n  file_num: 4\ntags:\npostgresql:\n  pg_ctl_timeout: never\n");
    write(&dir, "30-not.txt", "name: c\n");
    let error = load(Some(dir.path()), []).unwrap_err().to_string();
    assert!(error.contains("20-node.yaml:7:19\n"), "{error}");
    write(&dir, "20-node.yaml", "name: b\nlog:\n  dir:\n  file_num: 4\ntags:\n");
    let c = load(Some(dir.path()), []).unwrap().config;
    assert_eq!((c.name.as_str(), c.log.file_num, c.log.dir), ("b", 4, None));
    assert_eq!(c.tags, super::super::tags::Tags::default());
}

#[test]
fn files_that_are_none_have_one_clear_message() {
    let dir = tempfile::tempdir().unwrap();
    let none = dir.path().join("none.yml");
    let missing = load(Some(&none), []).unwrap_err().to_string();
    assert_eq!(
        missing,
        format!("Config is empty.\n{} does not exist, and PATRONI_CONFIGURATION is not set", none.display())
    );
    assert!(load(None, []).unwrap_err().to_string().starts_with("Config is empty.\n"));
    assert!(load(Some(dir.path()), []).unwrap_err().to_string().starts_with("Config is empty.\n"));
    let list = write(&dir, "list.yml", "- a\n");
    let shown = list.display();
    assert_eq!(
        load(Some(&list), []).unwrap_err().to_string(),
        format!("{shown} does not contain a dict\ninvalid config file {shown}")
    );
    let binary = dir.path().join("x.bin");
    std::fs::write(&binary, [b'a', 0xff]).unwrap();
    assert!(load(Some(&binary), []).unwrap_err().to_string().contains("byte 1 is not UTF-8"));
    assert_eq!(
        refused("scope: a\nlog: [1\nname: b\n"),
        "error: not valid YAML: while parsing a flow sequence, did not find expected ',' or ']'\n  --> node.yml:3:5\n  |\n\
         3 | name:***\n  |     ^"
    );
}

#[test]
fn the_layout_from_before_authentication_is_still_read() {
    let text = "scope: s\nrestapi: {listen: 'h:1'}\netcd3: {host: 'h:1'}\npostgresql:\n  name: old\n  listen: h\n  data_dir: /d\n  \
                superuser: {username: su}\n  replication: {username: re, password: 123}\n  pg_rewind: {username: rw}\n";
    let loaded = loaded(text, &[]).unwrap();
    let p = &loaded.config.postgresql;
    assert_eq!((loaded.config.name.as_str(), p.listen_port, p.use_pg_rewind), ("old", 5432, Some(true)));
    assert_eq!(p.authentication.rewind.as_ref().unwrap().username.as_deref(), Some("rw"));
    assert_eq!(p.authentication.replication.password.as_ref().unwrap().reveal(), "123");
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].message.contains("a number without quotes"));
}

/// One slip of the finger anywhere in the file, and whatever is said about it shows no password.
#[test]
fn no_typing_mistake_brings_a_password_to_light() {
    const SLIPS: &[u8] = b"a9:{}[]&*|!'\"# \n,-=%@";
    for at in (0..SAMPLE.len()).step_by(3) {
        let mut text = sample();
        let slip = char::from(SLIPS[at * 7 % SLIPS.len()]).to_string();
        text.replace_range(at.min(text.len())..(at + at / 3 % 3).min(text.len()), &slip);
        // The password itself may have been what was hit.
        if text.matches("hunter").count() < SAMPLE.matches("hunter").count() {
            continue;
        }
        let shown = match loaded(&text, &[]) {
            Ok(loaded) => loaded.render_warnings(),
            Err(error) => error.to_string(),
        };
        assert!(!shown.contains("hunter"), "{shown}");
    }
}

#[test]
fn a_client_needs_only_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, "ctl.yaml", "etcd3: {host: h}\nctl: {authentication: {username: u, password: p}}\n");
    let client = load_client(Some(&path), []).unwrap();
    assert_eq!((client.scope, client.namespace.as_str()), (None, "/service"));
    assert_eq!(client.etcd3.hosts, ["h:2379"]);
    assert_eq!(client.authentication.unwrap().username, "u");
    let path = write(&dir, "node.yaml", &sample());
    let client = load_client(Some(&path), []).unwrap();
    assert_eq!((client.scope.as_deref(), client.authentication.unwrap().username.as_str()), (Some("herd"), "api"));
    let path = write(&dir, "none.yaml", "scope: x\n");
    assert!(load_client(Some(&path), []).unwrap_err().to_string().contains("distributed configuration store"));
}

#[test]
fn a_reload_keeps_what_says_which_node_it_is() {
    let started = loaded(&sample(), &[]).unwrap().config;
    let mut same = started.clone();
    assert!(same.keep_identity(&started).is_empty());
    let mut other = started.clone();
    other.name = "somebody".into();
    other.postgresql.data_dir = "/elsewhere".into();
    other.postgresql.config_dir = "/elsewhere".into();
    other.matriarch.isolation_timeout = Duration::from_secs(9);
    other.matriarch.recorder.enabled = false;
    other.tags.noloadbalance = !started.tags.noloadbalance;
    assert_eq!(other.keep_identity(&started), ["name", "postgresql.data_dir", "matriarch.recorder"]);
    assert_eq!(other.matriarch.recorder, started.matriarch.recorder);
    assert_eq!((&other.name, &other.postgresql.data_dir), (&started.name, &started.postgresql.data_dir));
    assert_eq!(other.postgresql.config_dir, started.postgresql.data_dir);
    assert_eq!(other.matriarch.isolation_timeout, Duration::from_secs(9));
    assert_ne!(other.tags.noloadbalance, started.tags.noloadbalance);
}
