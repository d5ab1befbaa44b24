//! Configurations as people have them, read by Patroni and by us; what both generate; and the JSON Schema against what is
//! read. What is left of differences is listed in docs/compatibility.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use matriarch::config::{
    DynamicConfig, Loaded, effective_parameters, effective_postgresql, json_schema, load, validate,
};
use matriarch_tests::guarded::{as_postgres, tool};
use matriarch_tests::single::{SUPERUSER_PASSWORD, base, free_port, give};
use matriarch_tests::{Certificates, matriarch, patroni};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compat_config/files");
const JUDGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compat_config/judge.py");
const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compat_config/schema.py");
/// Whose names for settings are compared.
const MAJOR: u32 = 15;

type Environment = Vec<(String, String)>;

/// A configuration: its name, its file or directory, its variables.
type Case = (String, Option<PathBuf>, Environment);

/// Every configuration of the folder, copied into `dir`, where the certificates are that one of them names.
fn cases(dir: &Path) -> Vec<Case> {
    let certificates = dir.join("tls");
    let made = Command::new(Certificates::SCRIPT).arg(&certificates).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut found: BTreeMap<String, (Option<PathBuf>, Environment)> = BTreeMap::new();
    for entry in std::fs::read_dir(FILES).unwrap() {
        let path = entry.unwrap().path();
        let case = found.entry(path.file_stem().unwrap().to_str().unwrap().to_owned()).or_default();
        if path.extension().is_some_and(|extension| extension == "env") {
            let text = std::fs::read_to_string(&path).unwrap();
            case.1 = text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect();
        } else if path.is_dir() {
            case.0 = Some(path);
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            let copy = dir.join(path.file_name().unwrap());
            std::fs::write(&copy, text.replace("/etc/patroni/tls", certificates.to_str().unwrap())).unwrap();
            case.0 = Some(copy);
        }
    }
    found.into_iter().map(|(name, (path, environment))| (name, path, environment)).collect()
}

/// What Patroni makes of it.
fn theirs(python: &Path, path: Option<&Path>, environment: &Environment) -> Value {
    let mut command = Command::new(python);
    command.arg(JUDGE).arg(path.unwrap_or(Path::new("-"))).envs(environment.iter().cloned());
    let ended = command.output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    serde_json::from_slice(&ended.stdout).unwrap()
}

/// The same of what we make of it.
fn ours(loaded: &Loaded) -> Value {
    let config = &loaded.config;
    let proposed = loaded.raw.pointer("/bootstrap/dcs").cloned().unwrap_or_default();
    let (dynamic, _) = DynamicConfig::from_json(&proposed).unwrap();
    let postgresql = effective_postgresql(config, &dynamic);
    let raw = |pointer: &str| loaded.raw.pointer(pointer).cloned().unwrap_or_default();
    let given = |pointer: &str| loaded.raw.pointer(pointer).is_some();
    let api = config.restapi.authentication.as_ref();
    let accounts = &config.postgresql.authentication;
    let account = |account: &matriarch::config::local::Account| {
        let mut out = Map::new();
        let mut put = |key: &str, value: Option<&str>| value.map(|value| out.insert(key.into(), value.into()));
        put("username", account.username.as_deref());
        put("password", account.password.as_ref().map(matriarch::config::Secret::reveal));
        for (key, value) in &account.options {
            put(key, Some(value));
        }
        Value::Object(out)
    };
    let mut authentication = Map::from_iter([("replication".into(), account(&accounts.replication))]);
    authentication.insert("superuser".into(), account(&accounts.superuser));
    if let Some(rewind) = accounts.rewind.as_ref().filter(|_| !given("/postgresql/pg_rewind")) {
        authentication.insert("rewind".into(), account(rewind));
    }
    json!({
        "local": loaded.raw,
        "scope": config.scope,
        "name": config.name,
        "namespace": if given("/namespace") { json!(config.namespace) } else { Value::Null },
        "restapi": {
            "listen": config.restapi.listen.to_string(),
            "connect_address": config.restapi.connect_address.to_string(),
            "auth": api.map(|api| format!("{}:{}", api.username, api.password.reveal())),
        },
        "timings": {
            "ttl": dynamic.ttl.as_secs(),
            "loop_wait": dynamic.loop_wait.as_secs(),
            "retry_timeout": dynamic.retry_timeout.as_secs(),
        },
        "tags": if given("/tags") { raw("/tags") } else { json!({}) },
        "data_dir": config.postgresql.data_dir,
        "use_pg_rewind": postgresql.use_pg_rewind,
        "use_slots": postgresql.use_slots,
        "pg_hba": postgresql.pg_hba,
        "authentication": authentication,
        "parameters": effective_parameters(config, &dynamic, MAJOR).all,
    })
}

/// What is meant, of what may be written in several ways.
fn meant(mut configuration: Value, of_patroni: bool) -> Value {
    let parameters = configuration["parameters"].as_object_mut().unwrap();
    for value in parameters.values_mut() {
        let plain = match value.as_str().unwrap() {
            "yes" | "true" => "on",
            "no" | "false" => "off",
            "hot_standby" => "replica",
            other => other,
        };
        *value = plain.into();
    }
    if of_patroni {
        // It has these from elsewhere when the server starts.
        let segments = parameters.remove("wal_keep_segments").and_then(|n| n.as_str()?.parse::<u32>().ok());
        let kept = segments.map_or_else(|| "128MB".to_owned(), |n| format!("{}MB", 16 * n));
        parameters.entry("wal_keep_size").or_insert_with(|| kept.into());
    } else {
        for decided in ["wal_retrieve_retry_interval", "listen_addresses", "port", "cluster_name"] {
            parameters.remove(decided);
        }
    }
    configuration
}

/// Where two values differ, and how.
fn differences(at: &str, theirs: &Value, ours: &Value, out: &mut String) {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            for key in theirs.keys().chain(ours.keys().filter(|key| !theirs.contains_key(*key))) {
                let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                differences(&format!("{at}.{key}"), &of(theirs), &of(ours), out);
            }
        }
        _ if theirs != ours => writeln!(out, "{at}: Patroni {theirs}, ours {ours}").unwrap(),
        _ => {}
    }
}

#[test]
fn configurations_as_people_have_them_mean_the_same() {
    let Some(python) = patroni().map(|bin| bin.join("python")) else { return };
    let mut differ = String::new();
    let dir = tempfile::tempdir().unwrap();
    let cases = cases(dir.path());
    assert!(cases.len() >= 8, "the folder was not found whole");
    for (name, path, environment) in cases {
        let loaded = load(path.as_deref(), environment.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let theirs = meant(theirs(&python, path.as_deref(), &environment), true);
        differences(&name, &theirs, &meant(ours(&loaded), false), &mut differ);
    }
    assert_eq!(differ, "");
}

fn data(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

fn output(program: &Path, arguments: &[&str]) -> String {
    let ended = Command::new(program).args(arguments).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap()
}

/// With what Patroni leaves to the reader to know: that a store must be named, and that its validator does not take two
/// tags which say the same.
fn completed(mut sample: Value) -> Value {
    sample["etcd3"] = json!({"hosts": ["#FIXME"]});
    assert_eq!(sample["tags"].as_object_mut().unwrap().remove("nosync"), Some(false.into()));
    sample
}

#[test]
fn samples_are_alike() {
    let Some(patroni) = patroni().map(|bin| bin.join("patroni")) else { return };
    let theirs = completed(data(&output(&patroni, &["--generate-sample-config"])));
    let ours = data(&output(&matriarch(), &["generate-sample-config"]));
    let mut differ = String::new();
    differences("sample", &theirs, &ours, &mut differ);
    assert_eq!(differ, "");
}

/// A server as somebody set it up by hand, stopped in the end.
struct ByHand {
    base: TempDir,
    port: u16,
}

impl ByHand {
    const SETTINGS: &str = "work_mem = '8MB'\narchive_mode = on\narchive_command = 'true'\nmax_connections = 120\n\
        wal_level = logical\nwal_keep_size = '1GB'\nwal_log_hints = on\ncluster_name = ''\n\
        shared_preload_libraries = 'pg_stat_statements'\n";

    fn start() -> Self {
        let (base, port) = (base(), free_port());
        give(base.path());
        let by_hand = Self { base, port };
        std::fs::write(by_hand.base.path().join("password"), SUPERUSER_PASSWORD).unwrap();
        by_hand.run("initdb", &["-N", "-A", "scram-sha-256", "-U", "postgres", "--pwfile", "password", "-D", "data"]);
        let file = by_hand.base.path().join("data/postgresql.conf");
        let text = std::fs::read_to_string(&file).unwrap() + Self::SETTINGS;
        std::fs::write(&file, text).unwrap();
        let options = format!("-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=/tmp");
        by_hand.run("pg_ctl", &["-D", "data", "-o", &options, "-l", "log", "-w", "start"]);
        by_hand
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = as_postgres(&tool(program));
        let ended = command.current_dir(self.base.path()).args(arguments).stdout(Stdio::null()).status().unwrap();
        assert!(ended.success(), "{program} {arguments:?}");
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        self.run("pg_ctl", &["-D", "data", "-m", "immediate", "stop"]);
    }
}

#[test]
fn a_running_server_is_written_down_alike() {
    let Some(patroni) = patroni().map(|bin| bin.join("patroni")) else { return };
    let server = ByHand::start();
    let dsn = format!(
        "host=127.0.0.1 port={} user=postgres password='{}'",
        server.port,
        SUPERUSER_PASSWORD.replace('\\', "\\\\")
    );
    let mut theirs = data(&output(&patroni, &["--generate-config", "--dsn", &dsn]));
    let text = output(&matriarch(), &["generate-config", "--dsn", &dsn]);
    let ours = data(&text);
    let mut differ = String::new();
    // What follows from other keys; what is of one host is in its own file; a rewind is possible.
    let mut take = |pointer: &str, key: &str| theirs.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(key);
    assert_eq!(take("/bootstrap/dcs/postgresql/parameters", "cluster_name"), Some(json!("")));
    let sockets = take("/bootstrap/dcs/postgresql/parameters", "unix_socket_directories").unwrap();
    for file in ["config_file", "hba_file", "ident_file"] {
        assert!(take("/postgresql/parameters", file).is_some());
    }
    for connection in ["channel_binding", "gssencmode", "sslmode"] {
        assert_eq!(take("/postgresql/authentication/superuser", connection), Some(json!("prefer")));
    }
    theirs["postgresql"]["parameters"]["unix_socket_directories"] = sockets;
    theirs["bootstrap"]["dcs"]["postgresql"]["use_pg_rewind"] = true.into();
    differences("running", &completed(theirs), &ours, &mut differ);
    assert_eq!(differ, "");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.yml");
    std::fs::write(&file, text.replace("'#FIXME'", "filled-in")).unwrap();
    let loaded = load(Some(&file), []).unwrap();
    assert_eq!(loaded.render_warnings(), "");
}

/// Texts whose places in the table are right or wrong, and why.
const JUDGED: &[(&str, &str, bool)] = &[
    ("scope", "5", false),
    ("name", "on", false),
    ("log.level", "info", true),
    ("log.level", "loud", false),
    ("log.mode", "0644", true),
    ("log.mode", "4096", false),
    ("log.file_num", "'7'", true),
    ("log.file_num", "seven", false),
    ("log.deduplicate_heartbeat_logs", "'YES'", true),
    ("log.deduplicate_heartbeat_logs", "maybe", false),
    ("log.type", "JSON", true),
    ("log.type", "xml", false),
    ("restapi.authentication", "{username: u, password: 5}", true),
    ("restapi.authentication", "{username: u, pasword: x}", false),
    ("restapi.allowlist", "10.0.0.0/8, other", true),
    ("restapi.allowlist", "[1]", false),
    ("restapi.http_extra_headers", "{A: 1, B: x}", true),
    ("restapi.http_extra_headers", "{A: [1]}", false),
    ("tags.nofailover", "'false'", false),
    ("tags.nofailover", "false", true),
    ("tags.anything", "[1, 2]", true),
    ("bootstrap.dcs.synchronous_mode", "on", true),
    ("bootstrap.dcs.synchronous_mode", "quorum", true),
    ("bootstrap.dcs.synchronous_mode", "most", false),
    ("bootstrap.dcs.ttl", "0", false),
    ("bootstrap.initdb", "[{encoding: UTF8}, data-checksums]", true),
    ("bootstrap.initdb", "[{encoding: UTF8, locale: C}]", false),
    ("postgresql.pg_hba", "local all all trust", false),
    ("postgresql.parameters", "{max_connections: 5, ssl: on}", true),
    ("postgresql.parameters", "[max_connections]", false),
    ("postgresql.basebackup", "{max-rate: 100M}", true),
    ("matriarch.isolation_timeout", "0", false),
    ("matriarch.isolation_timeout", "0.5", true),
    ("matriarch.recorder.size", "64MB", true),
    ("matriarch.guard", "lax", false),
    ("restpai", "{}", false),
];

#[test]
fn the_schema_takes_what_is_taken() {
    let Some(python) = patroni().map(|bin| bin.join("python")) else { return };
    let whole = std::fs::read_to_string(Path::new(FILES).join("one-etcd.yml")).unwrap();
    let mut texts: Vec<(String, Value, bool)> = Vec::new();
    for (key, value, taken) in JUDGED {
        let mut text = data(&whole);
        let value = matriarch::config::yaml::parse(value).unwrap().to_json();
        let mut place = &mut text;
        for part in key.split('.') {
            place = &mut place[part];
        }
        *place = value;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.yml");
        std::fs::write(&file, matriarch::config::to_yaml(&text)).unwrap();
        assert_eq!(validate(Some(&file), []).is_ok(), *taken, "{key}: {:?}", validate(Some(&file), []).err());
        texts.push((format!("{key}: {value}", value = place_of(&text, key)), text, *taken));
    }
    let dir = tempfile::tempdir().unwrap();
    for (name, path, environment) in cases(dir.path()) {
        let loaded = load(path.as_deref(), environment).unwrap();
        // Its names are no longer those of the table.
        let taken = name != "old-spellings";
        texts.push((name, loaded.raw, taken));
    }
    let asked = json!({ "schema": json_schema(), "texts": texts.iter().map(|(_, text, _)| text).collect::<Vec<_>>() });
    let mut child =
        Command::new(python).arg(SCHEMA).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a validator");
    serde_json::to_writer(child.stdin.take().unwrap(), &asked).unwrap();
    let said: Vec<Option<String>> = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(said.len(), texts.len());
    for ((what, _, taken), complaint) in texts.iter().zip(said) {
        assert_eq!(complaint.is_none(), *taken, "{what}: {complaint:?}");
    }
}

fn place_of(text: &Value, key: &str) -> Value {
    text.pointer(&format!("/{}", key.replace('.', "/"))).cloned().unwrap_or_default()
}
