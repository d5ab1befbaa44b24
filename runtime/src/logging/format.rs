//! How a line looks: the section `log` names it in the words of Python's `logging`, as parsers of logs expect it.

use std::fmt::Write;

use jiff::Zoned;
use jiff::fmt::strtime;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

/// What Patroni's lines look like where nothing else is said.
pub const PATRONI_FORMAT: &str = "%(asctime)s %(levelname)s: %(message)s";

/// How lines look.
#[derive(Clone, PartialEq, Debug)]
pub enum Format {
    /// Text.
    Plain(Vec<Part>),
    /// A JSON object: what goes under which key, and what is the same in each.
    Json {
        /// What an event tells, and the key for it.
        fields: Vec<(Attribute, String)>,
        /// The same in each line.
        fixed: Map<String, Value>,
    },
}

/// A part of a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// As it is.
    Text(String),
    /// What the event tells.
    Value {
        /// What.
        attribute: Attribute,
        /// In how many columns at least.
        width: usize,
        /// At their left.
        left: bool,
        /// A number, filled with zeros.
        zeros: bool,
        /// Of a text so many characters at most, of a number with a fraction so many digits.
        precision: Option<usize>,
        /// As a whole number.
        whole: bool,
    },
}

/// What of an event can be told, by Python's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attribute {
    /// `asctime`: when, by `log.dateformat`.
    Time,
    /// `created`: when, in seconds since 1970.
    Created,
    /// `msecs`: the milliseconds of that.
    Millis,
    /// `levelname`: how severe.
    Level,
    /// `levelno`: how severe, as Python's number.
    LevelNumber,
    /// `message`: what was said, and the fields of the event.
    Message,
    /// `name`: which part of the program said it.
    Target,
    /// `module`: the last part of that.
    Module,
    /// `process`: the process.
    Process,
    /// `pathname` and `filename`: the file of the source.
    File,
    /// `lineno`: the line in it.
    Line,
}

const ATTRIBUTES: &[(&str, Attribute)] = &[
    ("asctime", Attribute::Time),
    ("created", Attribute::Created),
    ("msecs", Attribute::Millis),
    ("levelname", Attribute::Level),
    ("levelno", Attribute::LevelNumber),
    ("message", Attribute::Message),
    ("name", Attribute::Target),
    ("module", Attribute::Module),
    ("process", Attribute::Process),
    ("pathname", Attribute::File),
    ("filename", Attribute::File),
    ("lineno", Attribute::Line),
];

impl Attribute {
    /// By Python's name.
    pub fn named(name: &str) -> Result<Self, String> {
        let found = ATTRIBUTES.iter().find(|(known, _)| *known == name);
        found.map(|(_, attribute)| *attribute).ok_or_else(|| {
            let known: Vec<&str> = ATTRIBUTES.iter().map(|(name, _)| *name).collect();
            format!("`{name}` is nothing that a line of this log can tell; it can tell {}", known.join(", "))
        })
    }
}

impl Format {
    /// Text as Python's `%` operator describes it: `%(levelname)-8s`, `%%`.
    pub fn plain(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        let mut verbatim = String::new();
        while let Some(at) = rest.find('%') {
            verbatim.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                verbatim.push('%');
                rest = after;
                continue;
            }
            let (part, after) = value(rest)?;
            if !verbatim.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut verbatim)));
            }
            parts.push(part);
            rest = after;
        }
        verbatim.push_str(rest);
        if !verbatim.is_empty() {
            parts.push(Part::Text(verbatim));
        }
        // Nor does Python take a line that tells nothing.
        if !parts.iter().any(|part| matches!(part, Part::Value { .. })) {
            return Err("it names nothing of what a line tells, as `%(message)s` does".to_owned());
        }
        Ok(Self::Plain(parts))
    }

    /// JSON with what such a text names.
    pub fn json(text: &str, fixed: Map<String, Value>) -> Result<Self, String> {
        let Self::Plain(parts) = Self::plain(text)? else { unreachable!("plain text was asked for") };
        let named = |attribute: Attribute| ATTRIBUTES.iter().find(|(_, known)| *known == attribute);
        let fields = parts.iter().filter_map(|part| match part {
            Part::Value { attribute, .. } => named(*attribute).map(|(name, _)| (*attribute, (*name).to_owned())),
            Part::Text(_) => None,
        });
        Ok(Self::Json { fields: fields.collect(), fixed })
    }
}

/// What follows a `%`, and what follows that.
fn value(rest: &str) -> Result<(Part, &str), String> {
    let wrong = || "`%` is followed by `(name)s`, as in `%(message)s`, or by another `%`".to_owned();
    let (name, rest) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or_else(wrong)?;
    let end = rest.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (modifiers, rest) = rest.split_at(end);
    let conversion = rest.chars().next().filter(|c| "srdif".contains(*c)).ok_or_else(wrong)?;
    let attribute = Attribute::named(name)?;
    let digits = modifiers.trim_start_matches(['-', '+', ' ', '#', '0']);
    let flags = &modifiers[..modifiers.len() - digits.len()];
    let (width, precision) =
        digits.split_once('.').map_or((digits, None), |(width, precision)| (width, Some(precision)));
    let number = |digits: &str| match digits {
        "" => Ok(0),
        _ => digits.parse::<usize>().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit())).ok_or_else(wrong),
    };
    let (width, precision) = (number(width)?, precision.map(number).transpose()?);
    if width.max(precision.unwrap_or(0)) > 200 {
        return Err("a width or a precision is more than 200".to_owned());
    }
    let (left, text) = (flags.contains('-'), "sr".contains(conversion));
    let (zeros, whole) = (flags.contains('0') && !left && !text, "di".contains(conversion));
    let part = Part::Value { attribute, width, left, zeros, precision, whole };
    Ok((part, &rest[1..]))
}

/// What an event says.
#[derive(Clone, Debug)]
pub(super) struct Said {
    level: Level,
    target: &'static str,
    file: Option<&'static str>,
    line: Option<u32>,
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Said {
    pub(super) fn by(event: &Event<'_>) -> Self {
        let from = event.metadata();
        let (file, line, target) = (from.file(), from.line(), from.target());
        let mut said = Self { level: *from.level(), target, file, line, message: String::new(), fields: Vec::new() };
        event.record(&mut said);
        said
    }

    #[cfg(test)]
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// What the log itself has to say.
    pub(super) fn warning(message: String) -> Self {
        let target = "matriarch::logging";
        Self { level: Level::WARN, target, file: None, line: None, message, fields: Vec::new() }
    }
}

impl Visit for Said {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            name => self.fields.push((name, value.into())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.fields.push((name, format!("{value:?}").into())),
        }
    }
}

/// What a line is made with.
#[derive(Clone, Debug)]
pub(super) struct Style {
    pub(super) format: Format,
    pub(super) dateformat: Option<String>,
    pub(super) colours: bool,
}

impl Style {
    /// A line, with its end.
    pub(super) fn line(&self, said: &Said, at: &Zoned) -> String {
        let mut line = match &self.format {
            Format::Plain(parts) => self.plain(parts, said, at),
            Format::Json { fields, fixed } => self.json(fields, fixed, said, at),
        };
        line.push('\n');
        line
    }

    fn plain(&self, parts: &[Part], said: &Said, at: &Zoned) -> String {
        let mut line = String::new();
        for part in parts {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Value { attribute, width, left, zeros, precision, whole } => {
                    let text = printable(&self.text(*attribute, said, at));
                    let text = shortened(&text, *attribute, *precision, *whole);
                    let fill = if *zeros { "0" } else { " " }.repeat(width.saturating_sub(text.chars().count()));
                    let (before, after) = if *left { ("", fill.as_str()) } else { (fill.as_str(), "") };
                    let (colour, end) = self.colour(*attribute, said.level);
                    _ = write!(line, "{before}{colour}{text}{end}{after}");
                }
            }
        }
        line
    }

    fn json(&self, fields: &[(Attribute, String)], fixed: &Map<String, Value>, said: &Said, at: &Zoned) -> String {
        let mut object = Map::new();
        for (attribute, key) in fields {
            let value = match attribute {
                Attribute::Message => said.message.as_str().into(),
                Attribute::LevelNumber | Attribute::Process | Attribute::Line | Attribute::Millis => {
                    self.text(*attribute, said, at).parse::<u64>().map_or(Value::Null, Value::from)
                }
                Attribute::Created => self.text(*attribute, said, at).parse::<f64>().map_or(Value::Null, Value::from),
                _ => self.text(*attribute, said, at).into(),
            };
            object.insert(key.clone(), value);
        }
        for (name, value) in &said.fields {
            let key = if object.contains_key(*name) { format!("event.{name}") } else { (*name).to_owned() };
            object.insert(key, value.clone());
        }
        object.extend(fixed.clone());
        Value::Object(object).to_string()
    }

    fn text(&self, attribute: Attribute, said: &Said, at: &Zoned) -> String {
        let milliseconds = at.timestamp().as_millisecond();
        match attribute {
            Attribute::Time => self.time(at),
            Attribute::Created => format!("{}.{:06}", at.timestamp().as_second(), at.timestamp().subsec_microsecond()),
            Attribute::Millis => (milliseconds.rem_euclid(1000)).to_string(),
            Attribute::Level => level_name(said.level).to_owned(),
            Attribute::LevelNumber => level_number(said.level).to_string(),
            Attribute::Message => {
                let mut text = said.message.clone();
                for (name, value) in &said.fields {
                    _ = write!(text, "{}{name}={}", if text.is_empty() { "" } else { " " }, quoted(value));
                }
                text
            }
            Attribute::Target => said.target.to_owned(),
            Attribute::Module => said.target.rsplit("::").next().unwrap_or_default().to_owned(),
            Attribute::Process => std::process::id().to_string(),
            Attribute::File => said.file.unwrap_or_default().to_owned(),
            Attribute::Line => said.line.unwrap_or_default().to_string(),
        }
    }

    /// Python's default has milliseconds behind a comma, and no format can ask for them.
    fn time(&self, at: &Zoned) -> String {
        let asked = self.dateformat.as_ref().and_then(|format| strtime::format(format, at).ok());
        asked.unwrap_or_else(|| {
            format!("{},{:03}", at.strftime("%Y-%m-%d %H:%M:%S"), at.timestamp().as_millisecond().rem_euclid(1000))
        })
    }

    fn colour(&self, attribute: Attribute, level: Level) -> (&'static str, &'static str) {
        if !self.colours || attribute != Attribute::Level {
            return ("", "");
        }
        let colour = match level {
            Level::ERROR => "\u{1b}[31m",
            Level::WARN => "\u{1b}[33m",
            Level::INFO => "\u{1b}[32m",
            _ => "\u{1b}[34m",
        };
        (colour, "\u{1b}[0m")
    }
}

/// By a precision, or as a whole number.
fn shortened(text: &str, attribute: Attribute, precision: Option<usize>, whole: bool) -> String {
    match (attribute, precision) {
        (Attribute::Created, _) if whole => text.split('.').next().unwrap_or_default().to_owned(),
        (Attribute::Created, Some(digits)) => text.parse().map_or(text.to_owned(), |at: f64| format!("{at:.digits$}")),
        (_, Some(characters)) => text.chars().take(characters).collect(),
        (_, None) => text.to_owned(),
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        _ => "DEBUG",
    }
}

/// Python's numbers.
fn level_number(level: Level) -> u32 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        _ => 10,
    }
}

/// A value of more than one word is told apart from what follows it.
fn quoted(value: &Value) -> String {
    let Value::String(value) = value else { return value.to_string() };
    let simple = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == '"' || c == '=');
    let enclosed = value.starts_with(['"', '[', '{', '(']) || value.ends_with(')');
    if simple || enclosed { value.clone() } else { format!("{value:?}") }
}

/// Without what would move a terminal's cursor, or pass for a line of the log.
fn printable(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    let escaped = |c: char| if c.is_control() && c != '\t' { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests;
