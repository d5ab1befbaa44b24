//! Numbers and booleans as Patroni and PostgreSQL take them from text: `on`, `0x10`, `1.5`, `128MB`, `30min`.

use serde_json::Value;

/// Units of memory in bytes; PostgreSQL spells them exactly so.
const MEMORY: &[(&str, f64)] =
    &[("B", 1.0), ("kB", 1024.0), ("MB", 1_048_576.0), ("GB", 1_073_741_824.0), ("TB", 1_099_511_627_776.0)];
/// Units of time in microseconds.
const TIME: &[(&str, f64)] = &[
    ("us", 1.0),
    ("ms", 1_000.0),
    ("s", 1_000_000.0),
    ("min", 60_000_000.0),
    ("h", 3_600_000_000.0),
    ("d", 86_400_000_000.0),
];

/// on/true/yes/1 and off/false/no/0 in any case; anything else is no boolean.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// [`parse_bool`] of a JSON value.
pub fn bool_of(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(*b),
        Value::Number(n) => parse_bool(&n.to_string()),
        Value::String(s) => parse_bool(s),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A whole number: decimal, octal (leading 0), hexadecimal, or decimal with a fraction, which is rounded (half to even,
/// as PostgreSQL's `rint`); with a unit where `base` names the unit of the result (`MB`, `s`).
pub fn parse_int(text: &str, base: Option<&str>) -> Option<i64> {
    let (number, unit) = split_number(text.trim())?;
    if unit.is_empty() {
        return round(number);
    }
    let base = base?;
    let scale = |table: &[(&str, f64)]| {
        let of = |name: &str| table.iter().find(|(n, _)| *n == name).map(|(_, scale)| *scale);
        Some(of(unit)? / of(base)?)
    };
    round(number * scale(MEMORY).or_else(|| scale(TIME))?)
}

/// [`parse_int`] of a JSON value.
pub fn int_of(value: &Value, base: Option<&str>) -> Option<i64> {
    match value {
        Value::Number(n) => n.as_i64().or_else(|| round(n.as_f64()?)),
        Value::String(s) => parse_int(s, base),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn round(number: f64) -> Option<i64> {
    let whole = number.round_ties_even();
    // 2^63 is the first float that does not fit.
    (whole.is_finite() && whole.abs() < 9_223_372_036_854_775_808.0).then_some(whole as i64)
}

/// The number at the start of a text, and what follows it, without blanks.
fn split_number(text: &str) -> Option<(f64, &str)> {
    let (sign, body) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if body.starts_with("0x") || body.starts_with("0X") {
        return radix(sign, &body[2..], 16);
    }
    let whole = body.find(|c: char| !c.is_ascii_digit()).unwrap_or(body.len());
    if whole > 1 && body.starts_with('0') && !body[whole..].starts_with('.') {
        return radix(sign, &body[1..], 8);
    }
    let mut end = whole;
    if let Some(fraction) = body[end..].strip_prefix('.') {
        end += 1 + fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
    }
    if let Some(exponent) = body[end..].strip_prefix(['e', 'E']) {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let count = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        if count > 0 {
            end += 1 + (exponent.len() - digits.len()) + count;
        }
    }
    let number: f64 = body[..end].parse().ok()?;
    Some((sign * number, body[end..].trim()))
}

/// The digits of a base other than ten at the start of a text, and what follows.
fn radix(sign: f64, digits: &str, radix: u32) -> Option<(f64, &str)> {
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let value = i64::from_str_radix(&digits[..end], radix).ok()?;
    Some((sign * value as f64, digits[end..].trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans() {
        for (text, expected) in [
            ("on", Some(true)),
            ("TRUE", Some(true)),
            ("1", Some(true)),
            ("Yes", Some(true)),
            ("off", Some(false)),
            ("0", Some(false)),
            ("no", Some(false)),
            ("quorum", None),
            ("", None),
        ] {
            assert_eq!(parse_bool(text), expected, "{text}");
        }
    }

    #[test]
    fn whole_numbers_with_and_without_units() {
        for (text, base, expected) in [
            ("10", None, Some(10)),
            (" -3 ", None, Some(-3)),
            ("0644", None, Some(420)),
            ("0x10", None, Some(16)),
            ("1.5", None, Some(2)),
            ("2.5", None, Some(2)),
            ("0.5", None, Some(0)),
            ("1e3", None, Some(1000)),
            ("128MB", Some("MB"), Some(128)),
            ("1GB", Some("MB"), Some(1024)),
            ("16384 kB", Some("MB"), Some(16)),
            ("30min", Some("s"), Some(1800)),
            ("2d", Some("s"), Some(172_800)),
            ("1500ms", Some("s"), Some(2)),
            ("30min", None, None),
            ("30MB", Some("s"), None),
            ("mb", Some("MB"), None),
            ("ten", None, None),
            ("089", None, None),
            ("", None, None),
            ("0x", None, None),
            ("99999999999999999999", None, None),
            ("é", None, None),
        ] {
            assert_eq!(parse_int(text, base), expected, "{text:?} in {base:?}");
        }
    }
}
