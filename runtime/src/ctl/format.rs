//! Output formats that are not tables.

use clap::ValueEnum;
use serde_json::{Map, Value};

use crate::api::reply::spaced;
use crate::config::to_yaml;

/// How results are shown.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// A table.
    #[default]
    Pretty,
    /// Values between tabs.
    Tsv,
    /// One line of JSON.
    Json,
    /// YAML.
    #[value(alias = "yml")]
    Yaml,
    /// A tree; `topology` only.
    #[value(skip)]
    Topology,
}

/// Rows as JSON, YAML or tab-separated values. `sparse` leaves empty cells out of JSON and YAML.
pub(super) fn plain(format: Format, headers: &[&str], rows: &[Vec<Value>], sparse: bool) -> String {
    let object = |row: &Vec<Value>| {
        let cells = headers.iter().zip(row).filter(|(_, cell)| !(sparse && is_empty(cell)));
        Value::Object(cells.map(|(header, cell)| ((*header).to_owned(), cell.clone())).collect::<Map<_, _>>())
    };
    match format {
        Format::Json => format!("{}\n", spaced(&rows.iter().map(object).collect())),
        Format::Yaml => format!("{}\n", to_yaml(&rows.iter().map(object).collect())),
        Format::Pretty | Format::Topology | Format::Tsv => {
            let row = |row: &Vec<Value>| row.iter().map(text_of).collect::<Vec<_>>().join("\t");
            let lines: Vec<String> = [headers.join("\t")].into_iter().chain(rows.iter().map(row)).collect();
            format!("{}\n", lines.join("\n"))
        }
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_str().is_some_and(str::is_empty)
}

/// A cell of a table.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(_) | Value::Array(_) => flow(value),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// YAML on one line: `{a: 1, b: x}`, keys sorted.
pub(super) fn flow(value: &Value) -> String {
    match value {
        Value::Object(entries) => {
            let mut entries: Vec<(&String, &Value)> = entries.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let entry =
                |(key, value): (&String, &Value)| format!("{}: {}", scalar(&Value::from(key.as_str())), flow(value));
            format!("{{{}}}", entries.into_iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        value => scalar(value),
    }
}

/// A scalar as YAML writes it in a list, quoted where it must be.
fn scalar(value: &Value) -> String {
    let text = to_yaml(&Value::Array(vec![value.clone()]));
    text.trim_end().strip_prefix("- ").unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn flow_is_yaml_on_one_line() {
        assert_eq!(flow(&json!({"b": "x", "a": 1, "c": ["true", true]})), "{a: 1, b: x, c: ['true', true]}");
        assert_eq!(flow(&json!({})), "{}");
    }
}
