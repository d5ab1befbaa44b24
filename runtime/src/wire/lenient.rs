//! Readings of JSON that never fail: what does not fit is absent.

use serde_json::{Map, Value};

/// A JSON object, or nothing.
pub(super) fn object(text: &str) -> Option<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}

/// A number that is not negative, also as decimal digits in a string: some stores hold every value as a string.
pub(super) fn unsigned(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// The number under `key`; 0 if there is none.
pub(super) fn unsigned_at(object: &Map<String, Value>, key: &str) -> u64 {
    object.get(key).and_then(unsigned).unwrap_or_default()
}

/// The string under `key`; empty if there is none.
pub(super) fn text_at<'a>(object: &'a Map<String, Value>, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// What Python takes for true: Patroni decides several tags by it.
pub(crate) fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(object) => !object.is_empty(),
    }
}

/// A switch as people write it: a boolean, a number, or one of the words for "on".
pub(super) fn switched_on(value: &Value) -> bool {
    match value {
        Value::String(text) => ["on", "true", "yes", "1"].iter().any(|word| text.trim().eq_ignore_ascii_case(word)),
        Value::Bool(_) | Value::Number(_) => truthy(value),
        _ => false,
    }
}

/// What [`percent_decoded`] reads back, for a part of a URL.
pub(crate) fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// `%2F` and the like, and `+` for a blank, as in the query of a URL. Any other `%` stands for itself, and what is not
/// UTF-8 afterwards is replaced.
pub(crate) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| (high << 4 | low, tail)),
            (b'+', tail) => Some((b' ', tail)),
            _ => None,
        };
        let (byte, tail) = escaped.unwrap_or((*first, tail));
        bytes.push(byte);
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
