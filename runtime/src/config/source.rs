//! Where a configuration comes from: a file, a directory of files, or the environment; and in which order they count.

use std::fmt;
use std::path::{Path, PathBuf};

use super::build::Build;
use super::check::{Purpose, check};
use super::env::{EnvOverrides, env_overrides};
use super::local::{Credentials, Etcd3, LocalConfig, NAMESPACE};
use super::report::{Problem, Severity, Sources, holds_credentials, is_secret_name, render};
use super::yaml::{self, Duplicate, Node, Span, Value};
use crate::tls::ClientSettings;

/// Largest file that is read; a configuration is a few kilobytes.
pub const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// What is shown of a secret.
const HIDDEN: &str = "***";
/// Most keys of one file that are said to stand twice: more are one mistake.
const DUPLICATES_MAX: usize = 20;

/// A configuration that may be used.
#[derive(Clone)]
pub struct Loaded {
    /// The typed configuration.
    pub config: LocalConfig,
    /// What the operator should be told once; [`Loaded::render_warnings`] shows them.
    pub warnings: Vec<Problem>,
    /// File and environment merged, as data. Holds passwords: never to be logged.
    pub raw: serde_json::Value,
    /// Names of the `PATRONI_*` variables that were read: to be kept from whatever is started later.
    pub variables: Vec<String>,
    /// The texts, for showing lines of them.
    pub sources: Sources,
}

impl fmt::Debug for Loaded {
    /// Without `raw`, which holds passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("config", &self.config).field("warnings", &self.warnings).finish_non_exhaustive()
    }
}

impl Loaded {
    /// The warnings as text; empty if there are none.
    pub fn render_warnings(&self) -> String {
        render(&self.warnings, &self.sources)
    }
}

/// What a command-line client needs of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// The cluster, if the file names one.
    pub scope: Option<String>,
    /// As [`LocalConfig::namespace`].
    pub namespace: String,
    /// The store.
    pub etcd3: Etcd3,
    /// Credentials for the API of every member.
    pub authentication: Option<Credentials>,
    /// TLS towards members; the files are not read yet.
    pub members: ClientSettings,
}

/// Why a configuration may not be used; displays as the whole text for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    text: String,
    /// The single complaints, if the text could be read at all; warnings among them.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.trim_end())
    }
}

impl std::error::Error for ConfigError {}

/// Loads the configuration for running the agent: `path` (a file or a directory), with the environment over it. Without
/// a file, the variable `PATRONI_CONFIGURATION` is the text, and then no other variable counts; without that either, the
/// other variables are all there is.
///
/// # Errors
/// Everything that keeps the agent from starting, rendered.
pub fn load(path: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Result<Loaded, ConfigError> {
    examine(path, env, Purpose::Run)
}

/// Checks a configuration as strictly as `validate-config` does: unknown keys are errors too. Returns file and
/// environment merged, without what is secret.
///
/// # Errors
/// The rendered complaints.
pub fn validate(
    path: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<serde_json::Value, String> {
    let mut merged = examine(path, env, Purpose::Validate).map_err(|e| e.to_string())?.raw;
    hide_secrets(&mut merged);
    Ok(merged)
}

/// Puts [`HIDDEN`] in the place of passwords, tokens, and addresses and connection strings that hold one.
fn hide_secrets(value: &mut serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                if is_secret_name(key) && !value.is_object() {
                    *value = HIDDEN.into();
                } else {
                    hide_secrets(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide_secrets),
        Value::String(text) if holds_credentials(text) => HIDDEN.clone_into(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Loads what a command-line client needs: the store, and how to reach the API. It takes a node's own file as well as
/// `patronictl.yaml`, in which the sections of a node are missing. Without a file the environment has to say it all.
///
/// # Errors
/// As [`load`].
pub fn load_client(
    path: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<ClientConfig, ConfigError> {
    let Gathered { root, mut problems, sources, .. } = gather(path, env, Purpose::Client)?;
    let mut build = Build { root: &root, purpose: Purpose::Client, problems: &mut problems };
    let etcd3 = build.etcd3();
    let restapi = build.credentials("restapi");
    let authentication = build.credentials("ctl").or(restapi);
    let members = build.ctl_tls_settings();
    let scope = build.text("scope").map(str::to_owned);
    let namespace = build.text("namespace").unwrap_or(NAMESPACE).to_owned();
    let failed = problems.iter().any(|p| p.severity == Severity::Error);
    match etcd3 {
        Some(etcd3) if !failed => Ok(ClientConfig { scope, namespace, etcd3, authentication, members }),
        _ => Err(ConfigError { text: render(&problems, &sources), problems }),
    }
}

/// Texts read, merged and checked, before anything is typed.
struct Gathered {
    root: Node,
    sources: Sources,
    problems: Vec<Problem>,
    variables: EnvOverrides,
}

fn gather(
    path: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
    purpose: Purpose,
) -> Result<Gathered, ConfigError> {
    let mut sources = Sources::default();
    let mut problems = Vec::new();
    let environment: Vec<(String, String)> = env.into_iter().collect();
    let text = environment.iter().find(|(name, text)| name == "PATRONI_CONFIGURATION" && !text.is_empty());
    let (mut root, variables) = if let Some(path) = path.filter(|path| path.exists()) {
        (read(path, &mut sources, &mut problems)?, env_overrides(environment))
    } else if let Some((name, text)) = text {
        (parse_mapping(name, text, &mut sources, &mut problems)?, EnvOverrides::default())
    } else {
        let variables = env_overrides(environment);
        let is_empty = variables.variables().next().is_none();
        if is_empty && purpose != Purpose::Client {
            return Err(empty(path));
        }
        if let Some(path) = path.filter(|_| !is_empty) {
            let span = Span { source: sources.add(path.display().to_string(), ""), ..Span::default() };
            problems.push(Problem::warning(span, "", "does not exist: the environment alone counts"));
        }
        (Node { value: Value::Map(Vec::new()), ..Node::default() }, variables)
    };
    variables.apply(&mut root, &mut sources, &mut problems);
    lift_exhibitor(&mut root);
    sources.hide_secrets(&root);
    problems.extend(check(&root, purpose));
    Ok(Gathered { root, sources, problems, variables })
}

fn examine(
    path: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
    purpose: Purpose,
) -> Result<Loaded, ConfigError> {
    let Gathered { root, sources, mut problems, variables } = gather(path, env, purpose)?;
    let config = LocalConfig::build(&root, purpose, &mut problems);
    if purpose == Purpose::Validate {
        problems.iter_mut().filter(|p| p.strict).for_each(|p| p.severity = Severity::Error);
    }
    let failed = problems.iter().any(|p| p.severity == Severity::Error);
    match config {
        Some(config) if !failed => {
            let raw = root.to_json();
            let variables = variables.variables().map(str::to_owned).collect();
            Ok(Loaded { config, warnings: problems, raw, variables, sources })
        }
        _ => Err(ConfigError { text: render(&problems, &sources), problems }),
    }
}

fn empty(path: Option<&Path>) -> ConfigError {
    let reason = match path {
        Some(path) => format!("{} does not exist, and PATRONI_CONFIGURATION is not set", path.display()),
        None => "no configuration file was named, and PATRONI_CONFIGURATION is not set".to_owned(),
    };
    fatal(format!("Config is empty.\n{reason}"))
}

fn fatal(text: String) -> ConfigError {
    ConfigError { text, problems: Vec::new() }
}

fn read(path: &Path, sources: &mut Sources, problems: &mut Vec<Problem>) -> Result<Node, ConfigError> {
    if !path.is_dir() {
        let text = read_text(path)?;
        let mut root = Node { value: Value::Map(Vec::new()), ..Node::default() };
        patch(&mut root, parse_mapping(&path.display().to_string(), &text, sources, problems)?);
        return Ok(root);
    }
    let cannot = |e: std::io::Error| fatal(format!("cannot read the directory {}: {e}", path.display()));
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(path).map_err(cannot)? {
        let file = entry.map_err(cannot)?.path();
        if file.extension().is_some_and(|e| e == "yml" || e == "yaml") && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    let mut root = Node { value: Value::Map(Vec::new()), ..Node::default() };
    for file in &files {
        let text = read_text(file)?;
        patch(&mut root, parse_mapping(&file.display().to_string(), &text, sources, problems)?);
    }
    if root.entries().is_empty() {
        return Err(fatal(format!(
            "Config is empty.\n{} has no *.yml or *.yaml file with a key in it",
            path.display()
        )));
    }
    Ok(root)
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let cannot = |why: String| fatal(format!("cannot read the configuration file {}: {why}", path.display()));
    let size = std::fs::metadata(path).map_err(|e| cannot(e.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(cannot(format!("it has {size} bytes, more than {FILE_BYTES_MAX}; is it the right file?")));
    }
    let bytes = std::fs::read(path).map_err(|e| cannot(e.to_string()))?;
    String::from_utf8(bytes).map_err(|e| {
        cannot(format!("byte {} is not UTF-8; save the file in that encoding", e.utf8_error().valid_up_to()))
    })
}

fn parse_mapping(
    name: &str,
    text: &str,
    sources: &mut Sources,
    problems: &mut Vec<Problem>,
) -> Result<Node, ConfigError> {
    let source = sources.add(name, text);
    match yaml::parse_source(text, source) {
        Ok((root, duplicates)) if matches!(root.value, Value::Map(_)) => {
            problems.extend(duplicates.into_iter().take(DUPLICATES_MAX).map(twice));
            Ok(root)
        }
        Ok(_) => Err(fatal(format!("{name} does not contain a dict\ninvalid config file {name}"))),
        Err(e) => {
            let span = Span { source, line: e.line, column: e.column, ..Span::default() };
            let message = format!("not valid YAML: {}", e.message);
            // Without a tree nobody knows which value is a password: no value is shown, and near such a key no line.
            let values = values_of_line(text, span);
            let problems = if near_secret(text, e.line) {
                let whole = Span { column: 1, ..values };
                vec![Problem { hides: Some(whole), ..Problem::error(span, "", message) }]
            } else {
                vec![Problem { hides: Some(values), ..Problem::error(span, "", message) }]
            };
            let text = render(&problems, sources);
            Err(ConfigError { text, problems })
        }
    }
}

/// A key that stands twice is a mistake in one of the two places. Neither value is shown: the one that does not count is
/// not in the tree, so nobody knows whether it holds a password.
fn twice(duplicate: Duplicate) -> Problem {
    let Duplicate { path, first, second, value } = duplicate;
    let mut hides = Span { end_line: value.end_line, end_column: value.end_column, ..second };
    hides.column = if value.line == second.line { value.column } else { second.end_column };
    let message = format!("stands twice, on lines {} and {}; the later value counts", first.line, second.line);
    Problem { hides: Some(hides), ..Problem::suspect(second, path, message) }
}

/// What follows the first colon of a line.
fn values_of_line(text: &str, at: Span) -> Span {
    let line = (at.line as usize).checked_sub(1).and_then(|n| yaml::lines(text).nth(n)).unwrap_or_default();
    let key_chars = line.chars().position(|c| c == ':').unwrap_or(line.chars().count()) + 1;
    let column = u32::try_from(key_chars + 1).unwrap_or(u32::MAX);
    Span { column, end_line: at.line.saturating_add(1), end_column: 1, ..at }
}

/// Whether a line, or the key above that it may continue, is about a secret.
fn near_secret(text: &str, line: u32) -> bool {
    let lines: Vec<&str> = yaml::lines(text).take(line as usize).collect();
    for line in lines.iter().rev() {
        let words = line.split(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-'));
        if words.filter(|w| w.len() > 2).any(is_secret_name) || holds_credentials(line) {
            return true;
        }
        if line.trim_start().trim_start_matches("- ").split_once(':').is_some_and(|(key, _)| !key.contains(['"', '\'']))
        {
            return false;
        }
    }
    false
}

/// Patroni's way of laying one file over another: mappings are merged, null deletes, everything else replaces.
fn patch(base: &mut Node, over: Node) {
    if base.entries().is_empty() {
        base.span = over.span;
    }
    let (Value::Map(entries), Value::Map(new)) = (&mut base.value, over.value) else { return };
    for (key, value) in new {
        if value.is_null() {
            entries.retain(|(k, _)| k.value != key.value);
            continue;
        }
        match entries.iter_mut().find(|(k, _)| k.value == key.value) {
            Some((_, old)) if matches!((&old.value, &value.value), (Value::Map(_), Value::Map(_))) => patch(old, value),
            _ => yaml::put(entries, key, value),
        }
    }
}

/// `zookeeper.exhibitor` means the section `exhibitor`.
fn lift_exhibitor(root: &mut Node) {
    let Some(nested) = root.get("zookeeper").and_then(|z| z.get("exhibitor")).cloned() else { return };
    if let Value::Map(entries) = &mut root.value {
        let name = Node { value: Value::Str("exhibitor".to_owned()), span: nested.span, anchored: false };
        yaml::put(entries, name, nested);
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
