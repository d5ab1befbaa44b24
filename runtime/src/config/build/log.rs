//! The section `log`.

use jiff::Zoned;
use jiff::fmt::strtime;
use serde_json::{Map, Value as Json};

use super::Build;
use crate::config::local::Log;
use crate::config::yaml::{Node, Value};
use crate::logging::{Attribute, Format, PATRONI_FORMAT};

impl Build<'_, '_> {
    pub(super) fn log(&mut self) -> Log {
        if self.at("log.loggers").is_some_and(|node| !node.entries().is_empty()) {
            self.warn("log.loggers", "not used: this program has no loggers of Python's; RUST_LOG sets levels by part");
        }
        let positive = |build: &Self, path: &str| build.int(path).and_then(|n| u64::try_from(n).ok());
        let standard = Log::default();
        Log {
            format: self.log_format(),
            dateformat: self.log_dateformat(),
            queue_lines: positive(self, "log.max_queue_size")
                .map_or(standard.queue_lines, |lines| usize::try_from(lines).unwrap_or(usize::MAX)),
            level: self.text("log.level").map_or(standard.level, str::to_ascii_uppercase),
            dir: self.path("log.dir"),
            file_size_bytes: positive(self, "log.file_size").unwrap_or(standard.file_size_bytes),
            file_num: positive(self, "log.file_num").unwrap_or(standard.file_num),
            mode: positive(self, "log.mode").and_then(|mode| u32::try_from(mode).ok()),
        }
    }

    /// A format that cannot be understood is no reason not to start: lines look as usual then.
    fn log_format(&mut self) -> Format {
        let path = "log.format";
        let fixed = self.at("log.static_fields").map(Node::to_json);
        let fixed = fixed.and_then(|fixed| fixed.as_object().cloned()).unwrap_or_default();
        let json = self.text("log.type").is_some_and(|kind| kind.eq_ignore_ascii_case("json"));
        let usual = |fixed: Map<String, Json>| {
            if json { Format::json(PATRONI_FORMAT, fixed) } else { Format::plain(PATRONI_FORMAT) }
        };
        let wanted = match self.at(path).map(|node| &node.value) {
            None => usual(fixed.clone()),
            Some(Value::Str(text)) if text.is_empty() && !json => Format::plain("%(message)s"),
            Some(Value::Str(text)) if json => Format::json(text, fixed.clone()),
            Some(Value::Str(text)) => Format::plain(text),
            Some(Value::Seq(items)) if json => {
                let fields: Result<Vec<_>, String> = items.iter().flat_map(named).collect();
                match fields {
                    Ok(fields) if fields.is_empty() => Err("the list is empty".into()),
                    fields => fields.map(|fields| Format::Json { fields, fixed: fixed.clone() }),
                }
            }
            Some(_) => Err("expected a text; with `type: json` a list of names, or of `name: key`, will do".into()),
        };
        wanted.unwrap_or_else(|why| {
            self.warn(path, format!("not used: {why}"));
            usual(fixed).expect("Patroni's format is one")
        })
    }

    fn log_dateformat(&mut self) -> Option<String> {
        let path = "log.dateformat";
        let format = self.text(path).filter(|format| !format.is_empty())?;
        match strtime::format(format, &Zoned::default()) {
            Ok(_) => Some(format.to_owned()),
            Err(why) => {
                self.warn(path, format!("not used: {why}"));
                None
            }
        }
    }
}

/// An entry of a list of what a JSON line tells: a name, or names with the keys for them.
fn named(item: &Node) -> Vec<Result<(Attribute, String), String>> {
    let field = |name: &str, key: &str| Attribute::named(name).map(|attribute| (attribute, key.to_owned()));
    match &item.value {
        Value::Str(name) => vec![field(name, name)],
        Value::Map(entries) => {
            let renamed = |(name, key): &(Node, Node)| match (name.as_str(), key.as_str()) {
                (Some(name), Some(key)) => field(name, key),
                _ => Err("expected the key for a name".to_owned()),
            };
            entries.iter().map(renamed).collect()
        }
        _ => vec![Err("expected names".to_owned())],
    }
}
