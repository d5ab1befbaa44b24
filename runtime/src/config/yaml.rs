//! YAML text to a tree that still knows where everything stood.
//!
//! Patroni's files are read by PyYAML, so this reads what PyYAML's `safe_load` reads and refuses what it refuses:
//! scalars by [`super::resolve`], merge keys, anchors, the last of duplicate keys wins. Every node keeps its place, so
//! that a complaint about it can show the line.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;

use libyaml_safer::{Encoding, Event, EventData, Mark, Parser};
use serde_json::json;

use super::resolve;

/// Deepest nesting of sequences and mappings; Patroni's own files need seven.
pub const DEPTH_MAX: usize = 64;
/// Most nodes of a document, aliases counted as what they stand for, so that a few lines cannot become gigabytes.
pub const NODES_MAX: usize = 100_000;

/// Where a node stood. Lines and columns count from 1, columns in characters. Line 0: not from a text at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Index of the text in [`super::report::Sources`].
    pub source: usize,
    /// First line.
    pub line: u32,
    /// First column.
    pub column: u32,
    /// Line of the first character after the node.
    pub end_line: u32,
    /// Column of the first character after the node.
    pub end_column: u32,
}

/// A value and its place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// Where it stood; for an alias, where the anchored value stood.
    pub span: Span,
    /// Whether it carries an anchor: such a value may exist only to be referred to.
    pub anchored: bool,
}

/// A resolved YAML value.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    #[default]
    Null,
    /// A boolean word.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a point.
    Float(f64),
    /// Text; dates and times too, as they were written.
    Str(String),
    /// A list.
    Seq(Vec<Node>),
    /// A mapping in the order of first appearance, keys unique.
    Map(Vec<(Node, Node)>),
}

/// Why a text is no YAML document, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct SyntaxError {
    /// Line, from 1; 0 if unknown.
    pub line: u32,
    /// Column, from 1; 0 if unknown.
    pub column: u32,
    /// What is wrong, without the place.
    pub message: String,
}

/// A key that stands twice in one mapping. The later value counts, as PyYAML has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// The key with those above it, with dots.
    pub path: String,
    /// The key that does not count.
    pub first: Span,
    /// The key that does.
    pub second: Span,
    /// Its value.
    pub value: Span,
}

/// The lines of a text as [`Span`] counts them: YAML knows four ends of lines beside LF and CR LF.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let ends = ['\r', '\u{85}', '\u{2028}', '\u{2029}'];
    text.split('\n').flat_map(move |line| line.strip_suffix('\r').unwrap_or(line).split(ends))
}

/// Reads one document. An empty text is [`Value::Null`].
///
/// # Errors
/// What libyaml or PyYAML would refuse, or a limit exceeded.
pub fn parse(text: &str) -> Result<Node, SyntaxError> {
    parse_source(text, 0).map(|(root, _)| root)
}

/// [`parse`], with the index that the nodes' spans carry, and with the keys that stand twice.
///
/// # Errors
/// As [`parse`].
pub fn parse_source(text: &str, source: usize) -> Result<(Node, Vec<Duplicate>), SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    only_printable(text)?;
    let mut input = text.as_bytes();
    let mut parser = Parser::new();
    // Left to itself the library takes any first character that begins with the byte EF for a byte order mark.
    parser.set_encoding(Encoding::Utf8);
    parser.set_input_string(&mut input);
    let mut loader = Loader {
        parser,
        source,
        anchors: HashMap::new(),
        nodes: 0,
        last: Mark::default(),
        path: Vec::new(),
        duplicates: Vec::new(),
    };
    let root = loader.document()?;
    Ok((root, loader.duplicates))
}

/// YAML has no control characters outside quoted escapes; the library refuses them too, but cannot say on which line.
fn only_printable(text: &str) -> Result<(), SyntaxError> {
    let printable = |c: char| {
        matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}'
            | '\u{10000}'..)
    };
    let Some((at, c)) = text.char_indices().find(|(_, c)| !printable(*c)) else { return Ok(()) };
    let before = &text[..at];
    let line = lines(before).count();
    let column = lines(before).last().unwrap_or_default().chars().count() + 1;
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let message = format!("the control character U+{:04X} is not allowed", u32::from(c));
    Err(SyntaxError { line: number(line), column: number(column), message })
}

impl Node {
    /// A node that stood in no text.
    pub fn synthetic(value: Value, source: usize) -> Self {
        Self { value, span: Span { source, ..Span::default() }, anchored: false }
    }

    /// The value under a text key, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(k, _)| matches!(&k.value, Value::Str(s) if s == key)).map(|(_, v)| v)
    }

    /// The entries of a mapping; nothing for any other value.
    pub fn entries(&self) -> &[(Self, Self)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; nothing for any other value.
    pub fn items(&self) -> &[Self] {
        match &self.value {
            Value::Seq(items) => items,
            _ => &[],
        }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Str(s) => Some(s),
            _ => None,
        }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// The same data as JSON. Keys that are not text become the text Python's `json` makes of them; the numbers JSON
    /// does not have (infinities, not-a-number) become text.
    pub fn to_json(&self) -> serde_json::Value {
        self.value.to_json()
    }

    fn count(&self) -> usize {
        1 + match &self.value {
            Value::Seq(items) => items.iter().map(Self::count).sum(),
            Value::Map(entries) => entries.iter().map(|(k, v)| k.count() + v.count()).sum(),
            _ => 0,
        }
    }
}

impl Value {
    /// What it is called in a message.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Str(_) => "text",
            Self::Seq(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }

    /// A scalar as Python's `str` would show it, booleans as JSON; `None` for null, lists and mappings.
    pub fn scalar_text(&self) -> Option<String> {
        match self {
            Self::Bool(b) => Some(b.to_string()),
            Self::Int(i) => Some(i.to_string()),
            Self::Float(f) => Some(super::emit::python_float(*f)),
            Self::Str(s) => Some(s.clone()),
            Self::Null | Self::Seq(_) | Self::Map(_) => None,
        }
    }

    fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(b) => json!(b),
            Self::Int(i) => json!(i),
            Self::Float(f) if f.is_finite() => json!(f),
            Self::Float(f) => json!(super::emit::python_float(*f)),
            Self::Str(s) => json!(s),
            Self::Seq(items) => items.iter().map(Node::to_json).collect(),
            Self::Map(entries) => serde_json::Value::Object(
                entries
                    .iter()
                    .map(|(k, v)| (k.value.scalar_text().unwrap_or_else(|| "null".to_owned()), v.to_json()))
                    .collect(),
            ),
        }
    }
}

struct Loader<'a, 'b> {
    parser: Parser<&'a mut &'b [u8]>,
    source: usize,
    /// Completed anchored nodes with their sizes; an alias inside its own anchor finds nothing, as recursion should.
    anchors: HashMap<String, (Node, usize)>,
    nodes: usize,
    /// Where the last event ended.
    last: Mark,
    /// The keys above the value that is read now.
    path: Vec<String>,
    duplicates: Vec<Duplicate>,
}

impl Loader<'_, '_> {
    fn document(&mut self) -> Result<Node, SyntaxError> {
        self.event()?;
        if matches!(self.event()?.data, EventData::StreamEnd) {
            return Ok(Node {
                span: Span { source: self.source, line: 1, column: 1, ..Span::default() },
                ..Node::default()
            });
        }
        let first = self.event()?;
        let root = self.node(first, 0)?;
        self.event()?;
        let after = self.event()?;
        if matches!(after.data, EventData::StreamEnd) {
            Ok(root)
        } else {
            Err(at(after.start_mark, "expected a single document, but found another one".to_owned()))
        }
    }

    fn event(&mut self) -> Result<Event, SyntaxError> {
        // The library panics on a few texts that are no YAML (`{!,`). The parser is not used after any error.
        let parsed = std::panic::catch_unwind(AssertUnwindSafe(|| self.parser.parse()));
        match parsed {
            Ok(Ok(event)) => {
                self.last = event.end_mark;
                Ok(event)
            }
            Ok(Err(e)) => {
                let message = match e.context() {
                    Some(context) => format!("{context}, {}", e.problem()),
                    None => e.problem().to_owned(),
                };
                Err(at(e.problem_mark().unwrap_or(self.last), message))
            }
            Err(_) => Err(at(self.last, "this cannot be read as YAML from here on".to_owned())),
        }
    }

    fn spend(&mut self, nodes: usize, mark: Mark) -> Result<(), SyntaxError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES_MAX {
            return Err(at(mark, format!("more than {NODES_MAX} values, counting what aliases stand for")));
        }
        Ok(())
    }

    fn node(&mut self, event: Event, depth: usize) -> Result<Node, SyntaxError> {
        let start = event.start_mark;
        if depth > DEPTH_MAX {
            return Err(at(start, format!("nested more than {DEPTH_MAX} levels deep")));
        }
        let (anchor, value, end) = match event.data {
            EventData::Alias { anchor } => return self.alias(&anchor, start),
            EventData::Scalar { anchor, tag, value, plain_implicit, .. } => {
                let value = scalar(value, tag.as_deref(), plain_implicit).map_err(|m| at(start, m))?;
                (anchor, value, event.end_mark)
            }
            EventData::SequenceStart { anchor, tag, .. } => {
                known_tag(tag.as_deref(), libyaml_safer::SEQ_TAG).map_err(|m| at(start, m))?;
                let (value, end) = self.sequence(depth)?;
                (anchor, value, end)
            }
            EventData::MappingStart { anchor, tag, .. } => {
                known_tag(tag.as_deref(), libyaml_safer::MAP_TAG).map_err(|m| at(start, m))?;
                let (value, end) = self.mapping(depth)?;
                (anchor, value, end)
            }
            EventData::StreamStart { .. }
            | EventData::StreamEnd
            | EventData::DocumentStart { .. }
            | EventData::DocumentEnd { .. }
            | EventData::SequenceEnd
            | EventData::MappingEnd => return Err(at(start, "expected a value".to_owned())),
        };
        self.spend(1, start)?;
        let node = Node { value, span: self.span(start, end), anchored: anchor.is_some() };
        if let Some(name) = anchor {
            let size = node.count();
            self.anchors.insert(name, (node.clone(), size));
        }
        Ok(node)
    }

    fn alias(&mut self, name: &str, mark: Mark) -> Result<Node, SyntaxError> {
        let Some(size) = self.anchors.get(name).map(|(_, size)| *size) else {
            return Err(at(mark, "found an undefined alias; quote text that begins with `*`".to_owned()));
        };
        // Counted before it is copied: the copy is what the limit protects from.
        self.spend(size, mark)?;
        Ok(self.anchors.get(name).map(|(node, _)| node.clone()).unwrap_or_default())
    }

    fn sequence(&mut self, depth: usize) -> Result<(Value, Mark), SyntaxError> {
        let mut items = Vec::new();
        loop {
            let event = self.event()?;
            if matches!(event.data, EventData::SequenceEnd) {
                return Ok((Value::Seq(items), event.end_mark));
            }
            items.push(self.node(event, depth + 1)?);
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<(Value, Mark), SyntaxError> {
        let mut merged: Vec<(Node, Node)> = Vec::new();
        let mut own: Vec<(Node, Node)> = Vec::new();
        loop {
            let event = self.event()?;
            let mark = event.start_mark;
            match &event.data {
                EventData::MappingEnd => {
                    // PyYAML puts what is merged first and lets the mapping's own keys win.
                    for (key, value) in own {
                        put(&mut merged, key, value);
                    }
                    return Ok((Value::Map(merged), event.end_mark));
                }
                EventData::Scalar { value, plain_implicit: true, tag: None, .. } if value == "<<" => {
                    let from = self.event()?;
                    let from = self.node(from, depth + 1)?;
                    merge(&mut merged, from).map_err(|m| at(mark, m))?;
                    continue;
                }
                EventData::Scalar { value, plain_implicit: true, tag: None, .. } if value == "=" => {
                    let key = Node {
                        value: Value::Str("=".to_owned()),
                        span: self.span(mark, event.end_mark),
                        anchored: false,
                    };
                    let value = self.event()?;
                    put(&mut own, key, self.node(value, depth + 1)?);
                    continue;
                }
                _ => {}
            }
            let key = self.node(event, depth + 1)?;
            if matches!(key.value, Value::Seq(_) | Value::Map(_)) {
                return Err(at(mark, "a list or a mapping cannot be a key".to_owned()));
            }
            self.path.push(key.value.scalar_text().unwrap_or_else(|| "null".to_owned()));
            let value = self.event()?;
            let value = self.node(value, depth + 1)?;
            self.duplicate(&own, &key, &value);
            self.path.pop();
            put(&mut own, key, value);
        }
    }

    /// Notes a key that is there already. Each costs at least one node, of which there are not more than [`NODES_MAX`].
    fn duplicate(&mut self, own: &[(Node, Node)], key: &Node, value: &Node) {
        let Some((before, _)) = own.iter().find(|(known, _)| known.value == key.value) else { return };
        let (path, first, second) = (self.path.join("."), before.span, key.span);
        self.duplicates.push(Duplicate { path, first, second, value: value.span });
    }

    fn span(&self, start: Mark, end: Mark) -> Span {
        let (line, column) = place(start);
        let (end_line, end_column) = place(end);
        Span { source: self.source, line, column, end_line, end_column }
    }
}

/// Adds an entry; a key that is there already keeps its position and takes the new value and place.
pub(super) fn put(entries: &mut Vec<(Node, Node)>, key: Node, value: Node) {
    match entries.iter_mut().find(|(k, _)| k.value == key.value) {
        Some(entry) => *entry = (key, value),
        None => entries.push((key, value)),
    }
}

fn merge(into: &mut Vec<(Node, Node)>, from: Node) -> Result<(), String> {
    let refuse =
        |found: &Value| Err(format!("expected a mapping or a list of mappings after `<<`, found {}", found.kind()));
    match from.value {
        Value::Map(entries) => entries.into_iter().for_each(|(k, v)| put(into, k, v)),
        Value::Seq(maps) => {
            // The first of the list wins, so it comes last.
            for map in maps.into_iter().rev() {
                match map.value {
                    Value::Map(entries) => entries.into_iter().for_each(|(k, v)| put(into, k, v)),
                    other => return refuse(&other),
                }
            }
        }
        other => return refuse(&other),
    }
    Ok(())
}

fn scalar(text: String, tag: Option<&str>, plain_implicit: bool) -> Result<Value, String> {
    let not = |what: &str| format!("expected {what} after this tag");
    match tag {
        None | Some("!") if plain_implicit => resolve::plain(&text),
        None | Some("!" | libyaml_safer::STR_TAG | libyaml_safer::TIMESTAMP_TAG) => Ok(Value::Str(text)),
        Some(libyaml_safer::INT_TAG) => resolve::int(&text).map(Value::Int).ok_or_else(|| not("a whole number")),
        Some(libyaml_safer::FLOAT_TAG) => resolve::float(&text).map(Value::Float).ok_or_else(|| not("a number")),
        Some(libyaml_safer::BOOL_TAG) => resolve::bool_word(&text).map(Value::Bool).ok_or_else(|| not("a boolean")),
        Some(libyaml_safer::NULL_TAG) => Ok(Value::Null),
        Some(_) => Err(unknown_tag()),
    }
}

fn known_tag(tag: Option<&str>, expected: &str) -> Result<(), String> {
    match tag {
        Some(tag) if tag != "!" && tag != expected => Err(unknown_tag()),
        _ => Ok(()),
    }
}

/// Neither tag nor alias is repeated in a message: a password may begin with `!` or `*`.
fn unknown_tag() -> String {
    "this tag is not supported here; quote text that begins with `!`".to_owned()
}

fn place(mark: Mark) -> (u32, u32) {
    let one_based = |n: u64| u32::try_from(n.saturating_add(1)).unwrap_or(u32::MAX);
    (one_based(mark.line), one_based(mark.column))
}

fn at(mark: Mark, message: String) -> SyntaxError {
    let (line, column) = place(mark);
    SyntaxError { line, column, message }
}

#[cfg(test)]
#[path = "yaml_tests.rs"]
mod tests;
