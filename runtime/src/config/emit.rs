//! JSON data as the YAML text that PyYAML's `safe_dump(default_flow_style=False, allow_unicode=True, width=200)`
//! writes.

use libyaml_safer::{Emitter, Encoding, Event, MappingStyle, ScalarStyle, SequenceStyle};
use serde_json::Value;

use super::resolve;

/// Longest line before text is folded.
const WIDTH: i32 = 200;

/// Block style, keys sorted, text quoted exactly where PyYAML would otherwise read something else from it.
pub fn to_yaml(value: &Value) -> String {
    let mut out = Vec::new();
    {
        let mut emitter = Emitter::new();
        emitter.set_output_string(&mut out);
        emitter.set_unicode(true);
        emitter.set_width(WIDTH);
        // The output is memory and the events are balanced: the only failures an emitter knows cannot occur.
        let done = document(&mut emitter, value);
        debug_assert!(done.is_ok(), "emitting to memory failed: {done:?}");
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A float as Python's `repr` shows it; infinities and not-a-number as YAML writes them.
pub fn python_float(f: f64) -> String {
    if f.is_nan() {
        return ".nan".to_owned();
    }
    if f.is_infinite() {
        return if f > 0.0 { ".inf" } else { "-.inf" }.to_owned();
    }
    let scientific = format!("{f:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if f == 0.0 || (-4..16).contains(&exponent) {
        let plain = format!("{f}");
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

fn document(emitter: &mut Emitter<'_>, value: &Value) -> libyaml_safer::Result<()> {
    emitter.emit(Event::stream_start(Encoding::Utf8))?;
    emitter.emit(Event::document_start(None, &[], true))?;
    node(emitter, value)?;
    emitter.emit(Event::document_end(true))?;
    emitter.emit(Event::stream_end())?;
    emitter.flush()
}

fn node(emitter: &mut Emitter<'_>, value: &Value) -> libyaml_safer::Result<()> {
    match value {
        Value::Object(map) => {
            let style = if map.is_empty() { MappingStyle::Flow } else { MappingStyle::Block };
            emitter.emit(Event::mapping_start(None, None, true, style))?;
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            for (key, value) in entries {
                text(emitter, key)?;
                node(emitter, value)?;
            }
            emitter.emit(Event::mapping_end())
        }
        Value::Array(items) => {
            let style = if items.is_empty() { SequenceStyle::Flow } else { SequenceStyle::Block };
            emitter.emit(Event::sequence_start(None, None, true, style))?;
            items.iter().try_for_each(|item| node(emitter, item))?;
            emitter.emit(Event::sequence_end())
        }
        Value::String(s) => text(emitter, s),
        Value::Null => plain(emitter, "null"),
        Value::Bool(b) => plain(emitter, if *b { "true" } else { "false" }),
        Value::Number(n) => match n.as_f64() {
            Some(f) if n.is_f64() => plain(emitter, &yaml_float(f)),
            _ => plain(emitter, &n.to_string()),
        },
    }
}

/// PyYAML adds the point that its own resolver needs to see a float in `1e+16`.
fn yaml_float(f: f64) -> String {
    let repr = python_float(f);
    if repr.contains('.') { repr } else { repr.replacen('e', ".0e", 1) }
}

fn text(emitter: &mut Emitter<'_>, text: &str) -> libyaml_safer::Result<()> {
    let plain_is_safe = resolve::reads_as_text(text);
    emitter.emit(Event::scalar(None, None, text, plain_is_safe, true, ScalarStyle::Any))
}

fn plain(emitter: &mut Emitter<'_>, text: &str) -> libyaml_safer::Result<()> {
    emitter.emit(Event::scalar(None, None, text, true, false, ScalarStyle::Plain))
}

#[cfg(test)]
#[path = "emit_tests.rs"]
mod tests;
