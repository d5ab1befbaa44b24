//! The tree against the table: wrong types, missing keys, unknown keys.

use super::quantity::{parse_bool, parse_int};
use super::report::{Problem, is_secret_name, nearest};
use super::schema::{DYNAMIC, Key, Kind, Need, POSTGRESQL, ROOT};
use super::yaml::{Node, Span, Value};

/// What a check is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Starting the agent: what Patroni's daemon runs with is enough.
    Run,
    /// A command-line client: only the store is needed.
    Client,
    /// `validate-config`: what Patroni's validator wants too.
    Validate,
}

/// Every deviation of a whole configuration from [`super::schema`], in the order of the table and the text.
pub fn check(root: &Node, purpose: Purpose) -> Vec<Problem> {
    let mut checker = Checker { problems: Vec::new(), purpose, root };
    checker.table(root, ROOT, "", false);
    checker.problems
}

/// Splits `host:port`; brackets around an IPv6 address are removed. `None` if there is no port or it is none.
pub fn split_address(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.trim().rsplit_once(':')?;
    let port: u16 = port.trim().parse().ok().filter(|p| *p > 0)?;
    let host = host.trim();
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    // More than one colon without brackets is an address without a port, or one that nobody can read safely.
    if host.is_empty() || (inner.is_none() && host.contains(':')) || host.contains('/') {
        return None;
    }
    Some((inner.unwrap_or(host).to_owned(), port))
}

/// Splits `host:port` of `restapi.listen`, where no host means all addresses, as `*` does.
pub fn split_bind(text: &str) -> Option<(String, u16)> {
    match text.trim().strip_prefix(':') {
        Some(port) => split_address(&format!("*:{port}")),
        None => split_address(text),
    }
}

/// Splits `host[,host...][:port]` of `postgresql.listen`; the port is 5432 by default.
pub fn split_listen(text: &str) -> Option<(Vec<String>, u16)> {
    let text = text.trim();
    let bare_ipv6 = text.matches(':').count() > 1 && !text.contains(['[', ',']);
    let (hosts, port) = match text.rsplit_once(':') {
        Some((hosts, port)) if !bare_ipv6 && !port.ends_with(']') => {
            (hosts, port.trim().parse().ok().filter(|p: &u16| *p > 0)?)
        }
        _ => (text, 5432),
    };
    let hosts: Vec<String> =
        hosts.split(',').map(|h| h.trim().trim_start_matches('[').trim_end_matches(']').to_owned()).collect();
    (!hosts.iter().any(String::is_empty)).then_some((hosts, port))
}

/// The items of a list of texts, or of one text with commas.
pub fn texts(node: &Node) -> Vec<&str> {
    match &node.value {
        Value::Str(s) => s.split(',').map(str::trim).filter(|s| !s.is_empty()).collect(),
        Value::Seq(items) => items.iter().filter_map(Node::as_str).map(str::trim).collect(),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Map(_) => Vec::new(),
    }
}

struct Checker<'a> {
    problems: Vec<Problem>,
    purpose: Purpose,
    root: &'a Node,
}

impl Checker<'_> {
    fn table(&mut self, node: &Node, keys: &[Key], path: &str, open: bool) {
        for key in keys.iter().filter(|k| node.get(k.name).is_none_or(Node::is_null)) {
            self.missing(node, key, path);
        }
        for (name, value) in node.entries() {
            let Some(text) = name.as_str() else {
                if !open {
                    let message = format!("expected a key that is text, found {}", name.value.kind());
                    self.problems.push(Problem::suspect(name.span, path, message));
                }
                continue;
            };
            match keys.iter().find(|k| k.name == text) {
                Some(key) => self.value(value, key.kind, &join(path, text)),
                None if open || self.is_users_own(path, text, value) => {}
                None if path == "bootstrap.dcs.postgresql" && is_local(text) => {
                    self.problems.push(Problem::warning(name.span, join(path, text), LOCAL_ONLY));
                }
                None => self.unknown(node, name, value, keys, path),
            }
        }
    }

    fn missing(&mut self, within: &Node, key: &Key, path: &str) {
        let old_name = path.is_empty()
            && key.name == "name"
            && self.root.get("postgresql").and_then(|p| p.get("name")).is_some_and(|n| n.as_str().is_some());
        let full = join(path, key.name);
        let message = "this key is required and has no value".to_owned();
        // A key that is there without a value is pointed at; a missing one can only be missed in its section.
        let span = within.get(key.name).map_or(within.span, |n| n.span);
        match key.need {
            Need::Start if !old_name && self.purpose != Purpose::Client => {
                self.problems.push(Problem::error(span, full, message));
            }
            Need::Validation if self.purpose == Purpose::Validate => {
                self.problems.push(Problem::error(span, full, message));
            }
            Need::Start | Need::Validation | Need::Optional => {}
        }
    }

    fn unknown(&mut self, within: &Node, name: &Node, value: &Node, keys: &[Key], path: &str) {
        let text = name.as_str().unwrap_or_default();
        let message = if path.is_empty() && DYNAMIC.iter().any(|k| k.name == text) {
            "has no effect here: it belongs to the dynamic configuration (`bootstrap.dcs` of a new cluster)".to_owned()
        } else {
            unknown_key(text, keys)
        };
        // A comma forgotten after `password` makes the secret a key.
        let lost = |key: &Node, value: &Node| value.is_null() && key.as_str().is_some_and(is_secret_name);
        let shown = match shown_key(text) {
            whole if whole == text && value.is_null() && within.entries().iter().any(|(k, v)| lost(k, v)) => "?",
            shown => shown,
        };
        let mut hides = Span { end_line: value.span.end_line, end_column: value.span.end_column, ..name.span };
        if shown == text && value.span.line == name.span.line {
            hides.column = value.span.column;
        } else {
            hides.column += if shown == "?" { 0 } else { shown.chars().count() as u32 };
        }
        let problem = Problem::suspect(name.span, join(path, shown), message);
        self.problems.push(Problem { hides: Some(hides), ..problem });
    }

    /// Keys outside the table that belong to the user: holders of anchors, and the sections of methods he named.
    fn is_users_own(&self, path: &str, key: &str, value: &Node) -> bool {
        let named = |section: &str, list: &str| {
            self.root.get(section).and_then(|s| s.get(list)).is_some_and(|methods| texts(methods).contains(&key))
        };
        match path {
            "" => value.anchored || holds_anchor(value),
            "postgresql" => {
                named("postgresql", "create_replica_methods") || named("postgresql", "create_replica_method")
            }
            "bootstrap" => named("bootstrap", "method"),
            "bootstrap.dcs.postgresql" => {
                let dynamic = self.root.get("bootstrap").and_then(|b| b.get("dcs")?.get("postgresql"));
                let named = |list: &str| dynamic.and_then(|d| d.get(list)).is_some_and(|m| texts(m).contains(&key));
                named("create_replica_methods") || named("create_replica_method")
            }
            _ => false,
        }
    }

    fn value(&mut self, node: &Node, kind: Kind, path: &str) {
        if node.is_null() {
            self.nothing(node, kind, path);
            return;
        }
        match kind {
            Kind::Table(keys) if matches!(node.value, Value::Map(_)) => self.table(node, keys, path, false),
            Kind::OpenTable(keys) if matches!(node.value, Value::Map(_)) => self.table(node, keys, path, true),
            Kind::Lines => self.each(node, path, "a line of text", |v| matches!(v, Value::Str(_))),
            Kind::Texts if !matches!(node.value, Value::Str(_)) => {
                self.each(node, path, "text", |v| matches!(v, Value::Str(_)));
            }
            Kind::Options => self.options(node, path),
            Kind::Scalars => self.scalars(node, path),
            Kind::Secret if matches!(node.value, Value::Int(_)) => {
                let message =
                    "a number without quotes: leading zeros and underscores are lost on the way; put it in quotes";
                self.problems.push(Problem::warning(node.span, path, message));
            }
            _ if fits(&node.value, kind) => {}
            _ => self.wrong(node, path, &expected(kind)),
        }
    }

    fn nothing(&mut self, node: &Node, kind: Kind, path: &str) {
        // An empty section, or a list whose lines are all commented out, says what it means.
        let composite = matches!(
            kind,
            Kind::Table(_) | Kind::OpenTable(_) | Kind::Map | Kind::Scalars | Kind::Lines | Kind::Options | Kind::Any
        );
        let required = self.problems.iter().any(|p| p.path == path);
        if !composite && !required {
            self.problems.push(Problem::warning(node.span, path, "has no value, as if the key were not there"));
        }
    }

    fn each(&mut self, node: &Node, path: &str, what: &str, ok: fn(&Value) -> bool) {
        let Value::Seq(items) = &node.value else {
            return self.wrong(node, path, &format!("a list, each item {what}"));
        };
        for (index, item) in items.iter().enumerate().filter(|(_, item)| !ok(&item.value)) {
            self.wrong(item, &format!("{path}[{index}]"), what);
        }
    }

    fn scalars(&mut self, node: &Node, path: &str) {
        let Value::Map(entries) = &node.value else {
            return self.wrong(node, path, "a mapping of names to values");
        };
        for (name, value) in entries {
            let full = join(path, name.as_str().unwrap_or("?"));
            if !value.is_null() && value.value.scalar_text().is_none() {
                self.wrong(value, &full, "text, a number or a boolean");
            }
        }
    }

    fn options(&mut self, node: &Node, path: &str) {
        let expected = "an option: `- name` or `- name: value`";
        match &node.value {
            Value::Map(_) => self.scalars(node, path),
            Value::Seq(items) => {
                for (index, item) in items.iter().enumerate() {
                    let ok = match &item.value {
                        Value::Str(_) => true,
                        Value::Map(entries) => {
                            entries.len() == 1 && entries.iter().all(|(_, v)| v.value.scalar_text().is_some())
                        }
                        _ => false,
                    };
                    if !ok {
                        self.wrong(item, &format!("{path}[{index}]"), expected);
                    }
                }
            }
            _ => self.wrong(node, path, "a list of options (`- name` or `- name: value`), or a mapping"),
        }
    }

    fn wrong(&mut self, node: &Node, path: &str, expected: &str) {
        let secret = path.rsplit('.').next().is_some_and(is_secret_name);
        let message = format!("expected {expected}, found {}", describe(&node.value, secret));
        self.problems.push(Problem::error(node.span, path, message));
    }
}

/// What is said of a key of `postgresql` in the dynamic configuration that is read nowhere but in a node's own file.
pub(super) const LOCAL_ONLY: &str = "has no effect here: it counts only in a node's own file";

/// Whether a key of `postgresql` is one of a node's own file.
pub(super) fn is_local(key: &str) -> bool {
    POSTGRESQL.iter().any(|known| known.name == key)
}

/// What is said of a key that is in no table.
pub(super) fn unknown_key(key: &str, known: &[Key]) -> String {
    match nearest(key, known.iter().map(|k| k.name)) {
        Some(known) => format!("unknown key; did you mean `{known}`?"),
        None => "unknown key; it has no effect".to_owned(),
    }
}

/// What of an unknown key may be shown: a colon forgotten after `password` makes the secret a part of the key.
pub(super) fn shown_key(key: &str) -> &str {
    match key.find(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-')) {
        Some(end) => &key[..end],
        None => key,
    }
}

/// What a value is, for a message. Long text is cut; secrets are only named.
pub fn describe(value: &Value, secret: bool) -> String {
    const SHOWN_CHARS_MAX: usize = 40;
    let kind = value.kind();
    match value {
        _ if secret => kind.to_owned(),
        Value::Str(s) if super::report::holds_credentials(s) => kind.to_owned(),
        Value::Str(s) if s.chars().count() > SHOWN_CHARS_MAX => {
            format!("the text {:?}…", s.chars().take(SHOWN_CHARS_MAX).collect::<String>())
        }
        Value::Str(s) => format!("the text {s:?}"),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
            format!("the {} {}", kind.trim_start_matches("a "), value.scalar_text().unwrap_or_default())
        }
        Value::Null | Value::Seq(_) | Value::Map(_) => kind.to_owned(),
    }
}

fn fits(value: &Value, kind: Kind) -> bool {
    match kind {
        Kind::Text | Kind::Secret => matches!(value, Value::Str(_)),
        Kind::Bool => match value {
            Value::Bool(_) => true,
            Value::Int(i) => matches!(i, 0 | 1),
            Value::Str(s) => parse_bool(s).is_some(),
            _ => false,
        },
        Kind::Flag => matches!(value, Value::Bool(_) | Value::Int(0 | 1)),
        Kind::Int(min, max, _) => whole(value).is_some_and(|i| (min..=max).contains(&i)),
        Kind::Seconds(above) => number(value).is_some_and(|f| f.is_finite() && f > above),
        Kind::Number => number(value).is_some_and(f64::is_finite),
        Kind::OneOf(words) => word(value, words).is_some(),
        Kind::Memory => match value {
            Value::Int(_) => true,
            Value::Str(s) => parse_int(s, Some("B")).is_some(),
            _ => false,
        },
        Kind::Address => matches!(value, Value::Str(s) if split_address(s).is_some()),
        Kind::Bind => matches!(value, Value::Str(s) if split_bind(s).is_some()),
        Kind::Listen => matches!(value, Value::Str(s) if split_listen(s).is_some()),
        Kind::Map => matches!(value, Value::Map(_)),
        Kind::Any | Kind::Texts => true,
        Kind::Lines | Kind::Options | Kind::Scalars | Kind::Table(_) | Kind::OpenTable(_) => false,
    }
}

/// A whole number; in quotes, or from the environment, it may be octal or hexadecimal.
pub fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Int(i) => Some(*i),
        Value::Str(s) => parse_int(s, None),
        _ => None,
    }
}

/// A number with or without a fraction, in quotes or not.
pub fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(i) => Some(*i as f64),
        Value::Float(f) => Some(*f),
        Value::Str(s) => s.trim().parse().ok(),
        _ => None,
    }
}

/// Which of the words a value is; YAML's own booleans stand for off/false and on/true.
pub fn word(value: &Value, words: &'static [&'static str]) -> Option<&'static str> {
    words.iter().copied().find(|w| match value {
        Value::Str(s) => s.eq_ignore_ascii_case(w),
        Value::Bool(false) => matches!(*w, "off" | "false"),
        Value::Bool(true) => matches!(*w, "on" | "true"),
        _ => false,
    })
}

fn expected(kind: Kind) -> String {
    match kind {
        Kind::Text | Kind::Secret => "text (put numbers and words like `on` into quotes)".to_owned(),
        Kind::Bool => "a boolean (on or off)".to_owned(),
        Kind::Flag => "a boolean without quotes (true or false)".to_owned(),
        Kind::Int(min, max, unit) => {
            let of = if unit.is_empty() { String::new() } else { format!(" of {unit}") };
            match (min, max) {
                (i64::MIN, _) => format!("a whole number{of}"),
                (_, i64::MAX) => format!("a whole number{of}, at least {min}"),
                _ => format!("a whole number{of} from {min} to {max}"),
            }
        }
        Kind::Seconds(above) => format!("a number of seconds greater than {above}"),
        Kind::Number => "a number".to_owned(),
        Kind::OneOf(words) => format!("one of {}", words.join(", ")),
        Kind::Memory => "a number of bytes, or one with a unit (B, kB, MB, GB, TB)".to_owned(),
        Kind::Address | Kind::Bind => "host:port (an IPv6 address in brackets)".to_owned(),
        Kind::Listen => "host[,host...][:port]".to_owned(),
        Kind::Texts => "a list of texts, or one text with commas".to_owned(),
        Kind::Table(_) | Kind::OpenTable(_) | Kind::Map => "a mapping".to_owned(),
        Kind::Lines | Kind::Options | Kind::Scalars | Kind::Any => "another kind of value".to_owned(),
    }
}

fn holds_anchor(value: &Node) -> bool {
    value.anchored
        || value.items().iter().any(holds_anchor)
        || value.entries().iter().any(|(k, v)| k.anchored || holds_anchor(v))
}

pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
