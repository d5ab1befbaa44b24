//! The `PATRONI_*` environment variables, which win over the file.

use std::ffi::OsString;

use super::report::{Problem, Sources};
use super::schema::ACCOUNT;
use super::secret::Secret;
use super::yaml::{self, Node, Span, Value};

/// How the text of a variable becomes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// As it is; numbers and booleans in text are understood where they are expected.
    Text,
    /// A YAML list, with or without its brackets.
    List,
    /// A YAML mapping, with or without its braces.
    Map,
}

/// What one variable sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The variable's name.
    pub variable: String,
    /// The key it sets, from the top.
    pub path: Vec<String>,
    /// Its text.
    text: Secret,
    shape: Shape,
}

/// All recognised variables, in order of their names. Patroni removes them from its environment once read, so that
/// nothing it starts inherits a password; [`EnvOverrides::variables`] says which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvOverrides {
    /// What they set.
    pub overrides: Vec<Override>,
}

/// The environment of this process. What is no text cannot be one of ours and is left out: an odd variable of somebody
/// else's must not keep an agent from starting. A value of ours that is no text is taken with what can be read of it,
/// and will be complained about where it does not fit.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|variable| text_of(&variable))
}

fn text_of((name, value): &(OsString, OsString)) -> Option<(String, String)> {
    Some((name.to_str()?.to_owned(), value.to_string_lossy().into_owned()))
}

/// Finds the variables that set something. An empty value sets nothing, as for Patroni.
pub fn env_overrides(vars: impl IntoIterator<Item = (String, String)>) -> EnvOverrides {
    let mut overrides: Vec<Override> = vars
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .filter_map(|(variable, text)| {
            let (path, shape) = target(variable.strip_prefix("PATRONI_")?)?;
            Some(Override { variable, path, text: Secret::new(text), shape })
        })
        .collect();
    // A legacy name comes before its successor, which then wins.
    overrides.sort_by_key(|o| (!LEGACY.iter().any(|(name, _)| o.variable == *name), o.variable.clone()));
    EnvOverrides { overrides }
}

impl EnvOverrides {
    /// Names of the variables that were recognised: to be removed from the environment of what is started later.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.overrides.iter().map(|o| o.variable.as_str())
    }

    /// Writes the values into the tree.
    pub(super) fn apply(&self, root: &mut Node, sources: &mut Sources, problems: &mut Vec<Problem>) {
        for one in &self.overrides {
            // The text stays out of the sources: it may be a password, and has no line to show.
            let source = sources.add(format!("environment variable {}", one.variable), "");
            match one.value(source) {
                Ok(value) => set(root, &one.path, value, source),
                Err(message) => {
                    let span = Span { source, ..Span::default() };
                    problems.push(Problem::error(span, one.path.join("."), message));
                }
            }
        }
    }
}

impl Override {
    fn value(&self, source: usize) -> Result<Node, String> {
        let trimmed = self.text.reveal().trim();
        let (text, what) = match self.shape {
            Shape::Text => return Ok(Node::synthetic(Value::Str(self.text.reveal().to_owned()), source)),
            Shape::List if trimmed.starts_with('-') || trimmed.contains('[') => (trimmed.to_owned(), "list"),
            Shape::List => (format!("[{trimmed}]"), "list"),
            Shape::Map if trimmed.starts_with('{') => (trimmed.to_owned(), "mapping"),
            Shape::Map => (format!("{{{trimmed}}}"), "mapping"),
        };
        // The parser's own words could quote the text, which could be a secret.
        let wrong = || format!("expected a YAML {what}, with or without its brackets");
        let mut node = yaml::parse_source(&text, source).map_err(|_| wrong())?.0;
        if !matches!((self.shape, &node.value), (Shape::List, Value::Seq(_)) | (Shape::Map, Value::Map(_))) {
            return Err(wrong());
        }
        forget_places(&mut node);
        Ok(node)
    }
}

/// Lines of a variable's text are no lines of any file.
fn forget_places(node: &mut Node) {
    node.span = Span { source: node.span.source, ..Span::default() };
    match &mut node.value {
        Value::Seq(items) => items.iter_mut().for_each(forget_places),
        Value::Map(entries) => entries.iter_mut().for_each(|(k, v)| {
            forget_places(k);
            forget_places(v);
        }),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_) => {}
    }
}

fn set(root: &mut Node, path: &[String], value: Node, source: usize) {
    let Some((first, rest)) = path.split_first() else {
        *root = value;
        return;
    };
    if !matches!(root.value, Value::Map(_)) {
        root.value = Value::Map(Vec::new());
    }
    let Value::Map(entries) = &mut root.value else { return };
    if let Some((_, child)) = entries.iter_mut().find(|(k, _)| k.as_str() == Some(first)) {
        return set(child, rest, value, source);
    }
    let mut child = Node::synthetic(Value::Null, source);
    set(&mut child, rest, value, source);
    entries.push((Node::synthetic(Value::Str(first.clone()), source), child));
}

/// Sections whose variables are `PATRONI_<SECTION>_<KEY>`, with the keys that have one.
const SECTIONS: &[(&str, &[&str])] = &[
    (
        "restapi",
        &[
            "listen",
            "connect_address",
            "certfile",
            "keyfile",
            "keyfile_password",
            "cafile",
            "ciphers",
            "verify_client",
            "http_extra_headers",
            "https_extra_headers",
            "allowlist",
            "allowlist_include_members",
            "request_queue_size",
            "server_tokens",
            "thread_pool_size",
        ],
    ),
    ("ctl", &["insecure", "cacert", "certfile", "keyfile", "keyfile_password"]),
    (
        "log",
        &[
            "type",
            "level",
            "traceback_level",
            "format",
            "dateformat",
            "static_fields",
            "max_queue_size",
            "dir",
            "mode",
            "file_num",
            "file_size",
            "loggers",
            "deduplicate_heartbeat_logs",
        ],
    ),
    ("postgresql", &["listen", "connect_address", "proxy_address", "data_dir", "config_dir", "bin_dir", "pgpass"]),
    ("citus", &["group", "database"]),
];

/// Names that Patroni, or its documentation, once had.
const LEGACY: &[(&str, &[&str])] = &[
    ("PATRONI_LOGLEVEL", &["log", "level"]),
    ("PATRONI_LOGFORMAT", &["log", "format"]),
    ("PATRONI_LOG_DATEFMT", &["log", "dateformat"]),
    ("PATRONI_POSTGRESQL_BIN_IS_READY", &["postgresql", "bin_name", "pg_isready"]),
    ("PATRONI_RETRIABLE_HTTP_CODES", &["kubernetes", "retriable_http_codes"]),
];

/// What may follow `PATRONI_<STORE>_`.
const STORE_KEYS: &[&str] = &[
    "host",
    "hosts",
    "port",
    "use_proxies",
    "protocol",
    "srv",
    "srv_suffix",
    "url",
    "proxy",
    "cacert",
    "cert",
    "key",
    "verify",
    "token",
    "checks",
    "dc",
    "consistency",
    "register_service",
    "service_check_interval",
    "service_check_tls_server_name",
    "service_tags",
    "namespace",
    "context",
    "use_endpoints",
    "scope_label",
    "role_label",
    "pod_ip",
    "ports",
    "labels",
    "bypass_api_service",
    "retriable_http_codes",
    "key_password",
    "use_ssl",
    "set_acls",
    "group",
    "database",
    "leader_label_value",
    "follower_label_value",
    "standby_leader_label_value",
    "tmp_role_label",
    "auth_data",
    "bootstrap_labels",
    "username",
    "password",
    "scheme",
];

const LISTS: &[&str] = &["hosts", "checks", "service_tags", "ports", "retriable_http_codes", "allowlist"];
const MAPS: &[&str] = &[
    "labels",
    "set_acls",
    "auth_data",
    "bootstrap_labels",
    "http_extra_headers",
    "https_extra_headers",
    "static_fields",
    "loggers",
];

/// The key that the variable `PATRONI_<name>` sets.
fn target(name: &str) -> Option<(Vec<String>, Shape)> {
    let path = |keys: &[&str]| keys.iter().map(|k| (*k).to_owned()).collect::<Vec<_>>();
    let shape = |key: &str| match key {
        _ if LISTS.contains(&key) => Shape::List,
        _ if MAPS.contains(&key) => Shape::Map,
        _ => Shape::Text,
    };
    if let Some((_, keys)) = LEGACY.iter().find(|(legacy, _)| legacy.strip_prefix("PATRONI_") == Some(name)) {
        return Some((path(keys), shape(keys.last()?)));
    }
    if name.chars().any(|c| c.is_ascii_lowercase()) {
        return None;
    }
    let lower = name.to_ascii_lowercase();
    if matches!(lower.as_str(), "scope" | "name" | "namespace" | "thread_pool_size" | "thread_stack_size") {
        return Some((path(&[&lower]), Shape::Text));
    }
    let (section, key) = lower.split_once('_')?;
    match section {
        "superuser" | "replication" | "rewind" if ACCOUNT.iter().any(|k| k.name == key) => {
            return Some((path(&["postgresql", "authentication", section, key]), Shape::Text));
        }
        "restapi" | "ctl" if matches!(key, "username" | "password") => {
            return Some((path(&[section, "authentication", key]), Shape::Text));
        }
        "postgresql" if key.starts_with("bin_") && key != "bin_dir" => {
            let binary = key.strip_prefix("bin_")?;
            let known = ["pg_ctl", "initdb", "pg_controldata", "pg_basebackup", "postgres", "pg_isready", "pg_rewind"];
            return known.contains(&binary).then(|| (path(&["postgresql", "bin_name", binary]), Shape::Text));
        }
        _ => {}
    }
    if let Some((_, keys)) = SECTIONS.iter().find(|(s, _)| *s == section) {
        return keys.contains(&key).then(|| (path(&[section, key]), shape(key)));
    }
    let known = super::schema::STORES.contains(&section) && STORE_KEYS.contains(&key);
    known.then(|| (path(&[section, key]), shape(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(vars: &[(&str, &str)], file: &str) -> (serde_json::Value, Vec<Problem>) {
        let mut sources = Sources::default();
        let source = sources.add("f", file);
        let mut root = yaml::parse_source(file, source).unwrap().0;
        let mut problems = Vec::new();
        env_overrides(vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))).apply(
            &mut root,
            &mut sources,
            &mut problems,
        );
        (root.to_json(), problems)
    }

    #[test]
    fn variables_reach_their_keys() {
        for (variable, text, expected) in [
            ("PATRONI_SCOPE", "batman", r#"{"scope":"batman"}"#),
            ("PATRONI_THREAD_POOL_SIZE", "9", r#"{"thread_pool_size":"9"}"#),
            ("PATRONI_RESTAPI_LISTEN", "0.0.0.0:8008", r#"{"restapi":{"listen":"0.0.0.0:8008"}}"#),
            ("PATRONI_RESTAPI_PASSWORD", "x", r#"{"restapi":{"authentication":{"password":"x"}}}"#),
            ("PATRONI_CTL_USERNAME", "x", r#"{"ctl":{"authentication":{"username":"x"}}}"#),
            ("PATRONI_RESTAPI_ALLOWLIST", "10.0.0.1, 'b'", r#"{"restapi":{"allowlist":["10.0.0.1","b"]}}"#),
            ("PATRONI_RESTAPI_HTTP_EXTRA_HEADERS", "'X-A': b", r#"{"restapi":{"http_extra_headers":{"X-A":"b"}}}"#),
            ("PATRONI_LOGLEVEL", "DEBUG", r#"{"log":{"level":"DEBUG"}}"#),
            ("PATRONI_LOG_DATEFMT", "%H", r#"{"log":{"dateformat":"%H"}}"#),
            (
                "PATRONI_SUPERUSER_SSLMODE",
                "require",
                r#"{"postgresql":{"authentication":{"superuser":{"sslmode":"require"}}}}"#,
            ),
            ("PATRONI_POSTGRESQL_BIN_PG_ISREADY", "x", r#"{"postgresql":{"bin_name":{"pg_isready":"x"}}}"#),
            ("PATRONI_POSTGRESQL_BIN_IS_READY", "x", r#"{"postgresql":{"bin_name":{"pg_isready":"x"}}}"#),
            ("PATRONI_POSTGRESQL_BIN_DIR", "/b", r#"{"postgresql":{"bin_dir":"/b"}}"#),
            ("PATRONI_ETCD3_HOSTS", "a:2379,b:2379", r#"{"etcd3":{"hosts":["a:2379","b:2379"]}}"#),
            ("PATRONI_ETCD3_HOSTS", "- a:1\n- b:2", r#"{"etcd3":{"hosts":["a:1","b:2"]}}"#),
            ("PATRONI_ETCD3_PASSWORD", "x", r#"{"etcd3":{"password":"x"}}"#),
            ("PATRONI_KUBERNETES_LABELS", "{a: b}", r#"{"kubernetes":{"labels":{"a":"b"}}}"#),
        ] {
            let (json, problems) = applied(&[(variable, text)], "{}");
            assert_eq!(json.to_string(), expected, "{variable}");
            assert_eq!(problems, [], "{variable}");
        }
    }

    #[test]
    fn a_variable_that_is_no_text_is_no_reason_to_panic() {
        use std::os::unix::ffi::OsStringExt;
        let odd = || OsString::from_vec(b"a\xff".to_vec());
        assert_eq!(text_of(&(odd(), "x".into())), None);
        assert_eq!(text_of(&("X".into(), odd())), Some(("X".to_owned(), "a\u{fffd}".to_owned())));
    }

    #[test]
    fn others_are_left_alone() {
        for variable in
            ["PATRONI_CONFIGURATION", "PATRONI_ADMIN_PASSWORD", "PATRONI_scope", "SCOPE", "PATRONI_RESTAPI_X"]
        {
            let found = env_overrides([(variable.to_owned(), "x".to_owned())]);
            assert_eq!(found.variables().count(), 0, "{variable}");
        }
        assert_eq!(env_overrides([("PATRONI_SCOPE".to_owned(), String::new())]).variables().count(), 0);
    }

    #[test]
    fn the_environment_wins_and_the_successor_wins_over_the_old_name() {
        let file = "scope: file\nlog: {level: INFO, dir: /x}\n";
        let vars = [("PATRONI_SCOPE", "env"), ("PATRONI_LOG_LEVEL", "ERROR"), ("PATRONI_LOGLEVEL", "DEBUG")];
        let (json, _) = applied(&vars, file);
        assert_eq!(json.to_string(), r#"{"scope":"env","log":{"level":"ERROR","dir":"/x"}}"#);
    }

    #[test]
    fn a_broken_list_is_an_error_that_shows_no_value() {
        let (_, problems) = applied(&[("PATRONI_ETCD3_HOSTS", "[hunter2")], "{}");
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].path, "etcd3.hosts");
        assert!(!problems[0].message.contains("hunter2"));
    }
}
