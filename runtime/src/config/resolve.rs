//! What a plain YAML scalar means: YAML 1.1 exactly as PyYAML's `SafeLoader` resolves it.
//!
//! The expressions are those of PyYAML 6.0 `resolver.py`, the constructions those of `constructor.py`. They differ from
//! YAML 1.2 where configurations in the field feel it: `on` is true, `0644` is octal, `1:30` is ninety, `1e3` is text.

use super::yaml::Value;

/// The value of a plain (unquoted, untagged) scalar.
///
/// # Errors
/// A sentence about what PyYAML would refuse too (`=`, `<<` outside a key, `0b_`), or a number beyond 64 bits.
pub fn plain(text: &str) -> Result<Value, String> {
    if is_null(text) {
        return Ok(Value::Null);
    }
    if let Some(b) = bool_word(text) {
        return Ok(Value::Bool(b));
    }
    if is_float(text) {
        return float(text).map(Value::Float).ok_or_else(|| "this is not a number that can be held here".to_owned());
    }
    if is_int(text) {
        // The text itself is in no message: it may be a password.
        return int(text).map(Value::Int).ok_or_else(|| {
            "this is not a whole number that fits into 64 bits; quote it if it is meant as text".to_owned()
        });
    }
    match text {
        "=" | "<<" => Err(format!("`{text}` has a special meaning in YAML 1.1; quote it")),
        _ => Ok(Value::Str(text.to_owned())),
    }
}

/// Whether a plain scalar of this text would be read back as that same text by PyYAML, so that it needs no quotes.
pub fn reads_as_text(text: &str) -> bool {
    !(is_null(text)
        || bool_word(text).is_some()
        || is_float(text)
        || is_int(text)
        || is_timestamp(text)
        || matches!(text, "=" | "<<"))
}

/// The words YAML 1.1 reads as null.
pub fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// The words YAML 1.1 reads as booleans; `y` and `n` are not among PyYAML's.
pub fn bool_word(text: &str) -> Option<bool> {
    match text {
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// The value of a scalar that is an integer by [`plain`] or by a `!!int` tag; `None` if it is none or needs more than
/// 64 bits.
pub fn int(text: &str) -> Option<i64> {
    let digits = text.replace('_', "");
    let (negative, digits) = split_sign(&digits);
    let magnitude: i128 = if let Some(binary) = digits.strip_prefix("0b") {
        i128::from_str_radix(unsigned(binary)?, 2).ok()?
    } else if let Some(hex) = digits.strip_prefix("0x") {
        i128::from_str_radix(unsigned(hex)?, 16).ok()?
    } else if digits.len() > 1 && digits.starts_with('0') {
        i128::from_str_radix(unsigned(digits)?, 8).ok()?
    } else if digits.contains(':') {
        digits
            .split(':')
            .try_fold(0_i128, |sum, part| sum.checked_mul(60)?.checked_add(unsigned(part)?.parse().ok()?))?
    } else {
        unsigned(digits)?.parse().ok()?
    };
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

/// The value of a scalar that is a float by [`plain`] or by a `!!float` tag.
pub fn float(text: &str) -> Option<f64> {
    let lower = text.replace('_', "").to_ascii_lowercase();
    let (negative, digits) = split_sign(&lower);
    let magnitude = match digits {
        ".inf" => f64::INFINITY,
        ".nan" => f64::NAN,
        _ if digits.contains(':') => {
            digits.split(':').try_fold(0.0_f64, |sum, part| Some(sum * 60.0 + unsigned(part)?.parse::<f64>().ok()?))?
        }
        _ => unsigned(digits)?.parse().ok()?,
    };
    Some(if negative { -magnitude } else { magnitude })
}

/// A date or a date with time: PyYAML makes a `datetime` of it, here it stays the text it was written as.
pub fn is_timestamp(text: &str) -> bool {
    let mut rest = Scan(text);
    if !rest.digits(4, 4) || !rest.one("-") {
        return false;
    }
    let month = rest.count_digits(2);
    if month == 0 || !rest.one("-") {
        return false;
    }
    let day = rest.count_digits(2);
    if day == 0 {
        return false;
    }
    if rest.0.is_empty() {
        return month == 2 && day == 2;
    }
    if !rest.one("Tt") && !rest.blanks() {
        return false;
    }
    if !(rest.digits(1, 2) && rest.one(":") && rest.digits(2, 2) && rest.one(":") && rest.digits(2, 2)) {
        return false;
    }
    if rest.one(".") {
        rest.count_digits(usize::MAX);
    }
    let mut zone = Scan(rest.0);
    zone.blanks();
    if zone.one("Z") {
        return zone.0.is_empty();
    }
    if zone.one("+-") {
        return zone.digits(1, 2) && (zone.0.is_empty() || (zone.one(":") && zone.digits(2, 2) && zone.0.is_empty()));
    }
    rest.0.is_empty()
}

fn is_int(text: &str) -> bool {
    let (_, body) = split_sign(text);
    let all = |s: &str, ok: fn(char) -> bool| !s.is_empty() && s.chars().all(|c| c == '_' || ok(c));
    if let Some(binary) = body.strip_prefix("0b") {
        return all(binary, |c| matches!(c, '0' | '1'));
    }
    if let Some(hex) = body.strip_prefix("0x") {
        return all(hex, |c| c.is_ascii_hexdigit());
    }
    if body == "0" {
        return true;
    }
    if let Some(octal) = body.strip_prefix('0') {
        return all(octal, |c| matches!(c, '0'..='7'));
    }
    let mut parts = body.split(':');
    let head = parts.next().unwrap_or_default();
    head.starts_with(|c: char| c.is_ascii_digit()) && all(head, |c| c.is_ascii_digit()) && parts.all(is_sixtieth)
}

fn is_float(text: &str) -> bool {
    if matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (_, body) = split_sign(text);
    if matches!(body, ".inf" | ".Inf" | ".INF") {
        return true;
    }
    let Some((whole, fraction)) = body.split_once('.') else { return false };
    let number = |s: &str| s.chars().all(|c| c.is_ascii_digit() || c == '_');
    let (digits, exponent) = match fraction.find(['e', 'E']) {
        Some(at) => (&fraction[..at], Some(&fraction[at + 1..])),
        None => (fraction, None),
    };
    let exponent_is_signed = exponent.is_none_or(|e| {
        e.strip_prefix(['+', '-']).is_some_and(|d| !d.is_empty() && d.chars().all(|c| c.is_ascii_digit()))
    });
    if !number(digits) || !exponent_is_signed {
        return false;
    }
    if whole.is_empty() {
        // PyYAML 6 accepts no sign here.
        return text.starts_with('.') && digits.starts_with(|c: char| c.is_ascii_digit());
    }
    let mut parts = whole.split(':');
    let head = parts.next().unwrap_or_default();
    let sexagesimal = whole.contains(':');
    head.starts_with(|c: char| c.is_ascii_digit())
        && number(head)
        && parts.all(is_sixtieth)
        && !(sexagesimal && exponent.is_some())
}

/// `[0-5]?[0-9]`, one place of a number in base sixty.
fn is_sixtieth(part: &str) -> bool {
    match part.as_bytes() {
        [d] => d.is_ascii_digit(),
        [t, d] => matches!(t, b'0'..=b'5') && d.is_ascii_digit(),
        _ => false,
    }
}

fn split_sign(text: &str) -> (bool, &str) {
    match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    }
}

/// Rust's number parsers take a sign of their own; a second one is no number.
fn unsigned(digits: &str) -> Option<&str> {
    (!digits.starts_with(['-', '+'])).then_some(digits)
}

/// The rest of a text that is matched from its start.
struct Scan<'a>(&'a str);

impl Scan<'_> {
    fn one(&mut self, of: &str) -> bool {
        match self.0.strip_prefix(|c| of.contains(c)) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn blanks(&mut self) -> bool {
        let rest = self.0.trim_start_matches([' ', '\t']);
        let any = rest.len() < self.0.len();
        self.0 = rest;
        any
    }

    fn count_digits(&mut self, max: usize) -> usize {
        let count = self.0.bytes().take(max).take_while(u8::is_ascii_digit).count();
        self.0 = &self.0[count..];
        count
    }

    fn digits(&mut self, min: usize, max: usize) -> bool {
        let count = self.count_digits(max);
        (min..=max).contains(&count)
    }
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
