//! The table of keys as a JSON Schema (draft 2020-12), so that editors complete and check a node's file.
//!
//! What it takes is what [`super::check`] takes of one whole file, but for what JSON Schema has no words for: a user's own
//! section under `bootstrap` and `postgresql` may have any name, whether or not a method names it; a holder of anchors must
//! be called `x-...` or `....`; and the forms of addresses and sizes are told, not checked.

use serde_json::{Map, Value, json};

use super::schema::{Key, Kind, Need, ROOT, STORES};

/// Where the schema is known by.
const ID: &str = "urn:matriarch:configuration";
/// What is a boolean in quotes.
const BOOLEANS: &[&str] = &["on", "off", "true", "false", "yes", "no", "1", "0"];
/// A whole number in quotes.
const WHOLE: &str = "^\\s*[-+]?[0-9]+\\s*$";
/// Any number in quotes.
const NUMBER: &str = "^\\s*[-+]?[0-9]*\\.?[0-9]+([eE][-+]?[0-9]+)?\\s*$";

/// The schema of a node's own file.
pub fn json_schema() -> Value {
    let Value::Object(root) = table(ROOT, "") else { unreachable!("a table is an object") };
    let mut schema = Map::new();
    schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("$id".into(), ID.into());
    schema.insert("title".into(), "The configuration of one node (Matriarch, Patroni)".into());
    schema.extend(root);
    let stores: Vec<Value> = STORES.iter().map(|store| json!({ "required": [store] })).collect();
    schema.insert("anyOf".into(), stores.into());
    Value::Object(schema)
}

/// A mapping with known keys. An unknown one is an error, as for `validate-config`, but for what is the user's own.
fn table(keys: &[Key], path: &str) -> Value {
    let properties: Map<String, Value> = keys.iter().map(|key| (key.name.to_owned(), value(key, path))).collect();
    let required: Vec<&str> = keys.iter().filter(|key| key.need != Need::Optional).map(|key| key.name).collect();
    // The sections of methods.
    let has_methods = matches!(path, "bootstrap" | "postgresql" | "bootstrap.dcs.postgresql");
    let others = if has_methods { json!({ "type": ["object", "array"] }) } else { json!(false) };
    let mut out = json!({ "type": "object", "properties": properties, "additionalProperties": others });
    if path.is_empty() {
        out["patternProperties"] = json!({ "^(x-|\\.)": true });
    }
    if !required.is_empty() {
        out["required"] = json!(required);
    }
    out
}

fn value(key: &Key, path: &str) -> Value {
    let path = super::check::join(path, key.name);
    let one = one(key.kind, &path);
    // A section whose lines are all commented out says what it means.
    let may_be_empty =
        !matches!(key.need, Need::Start) && one.get("type").is_some_and(|t| t == "object" || t == "array");
    if may_be_empty { json!({ "anyOf": [one, { "type": "null" }] }) } else { one }
}

fn one(kind: Kind, path: &str) -> Value {
    let scalar = json!({ "type": ["string", "number", "boolean", "null"] });
    match kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Secret => json!({ "type": ["string", "integer"], "description": "Put numbers into quotes." }),
        Kind::Bool => json!({ "anyOf": [
            { "type": "boolean" },
            { "type": "string", "pattern": in_any_case(BOOLEANS) },
            { "enum": [0, 1] },
        ] }),
        Kind::Flag => json!({ "enum": [true, false, 0, 1] }),
        Kind::Int(min, max, unit) => json!({ "anyOf": [
            bounded(min, max),
            { "type": "string", "pattern": WHOLE },
        ], "description": described(unit) }),
        Kind::Seconds(above) => json!({ "anyOf": [
            { "type": "number", "exclusiveMinimum": above },
            { "type": "string", "pattern": NUMBER },
        ], "description": described("seconds") }),
        Kind::Number => json!({ "anyOf": [{ "type": "number" }, { "type": "string", "pattern": NUMBER }] }),
        Kind::OneOf(words) => one_of(words),
        Kind::Memory => json!({ "type": ["integer", "string"], "description": "Bytes, or with B, kB, MB, GB, TB." }),
        Kind::Address => json!({ "type": "string", "description": "host:port" }),
        Kind::Bind => json!({ "type": "string", "description": "host:port; `*` or nothing for all addresses" }),
        Kind::Listen => json!({ "type": "string", "description": "host[,host...][:port]" }),
        Kind::Texts => json!({ "anyOf": [
            { "type": "string" },
            { "type": "array", "items": { "type": "string" } },
        ], "description": "A list, or one text with commas." }),
        Kind::Lines => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Options => json!({ "anyOf": [
            { "type": "array", "items": { "anyOf": [
                { "type": "string" },
                { "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": scalar },
            ] } },
            { "type": "object", "additionalProperties": scalar },
            { "type": "null" },
        ], "description": "`- name` or `- name: value`." }),
        Kind::Table(keys) => table(keys, path),
        Kind::OpenTable(keys) => {
            let mut open = table(keys, path);
            open["additionalProperties"] = json!(true);
            open
        }
        Kind::Map => json!({ "type": "object" }),
        Kind::Scalars => json!({ "type": "object", "additionalProperties": scalar }),
        Kind::Any => json!({}),
    }
}

/// A whole number within its bounds, as far as there are any.
fn bounded(min: i64, max: i64) -> Value {
    let mut out = json!({ "type": "integer" });
    if min != i64::MIN {
        out["minimum"] = json!(min);
    }
    if max != i64::MAX {
        out["maximum"] = json!(max);
    }
    out
}

/// Words are taken in any case; editors offer them as they are written here. YAML reads some of them as booleans.
fn one_of(words: &'static [&'static str]) -> Value {
    let mut choices = vec![json!({ "enum": words }), json!({ "type": "string", "pattern": in_any_case(words) })];
    let read_as_boolean: Vec<bool> = [(true, ["on", "true"]), (false, ["off", "false"])]
        .into_iter()
        .filter(|(_, spelt)| words.iter().any(|word| spelt.contains(word)))
        .map(|(value, _)| value)
        .collect();
    if !read_as_boolean.is_empty() {
        choices.push(json!({ "enum": read_as_boolean }));
    }
    json!({ "anyOf": choices })
}

/// JSON Schema's patterns know no case to be ignored.
fn in_any_case(words: &[&str]) -> String {
    let either = |c: char| match (c.to_ascii_lowercase(), c.to_ascii_uppercase()) {
        (low, up) if low == up => c.to_string(),
        (low, up) => format!("[{low}{up}]"),
    };
    let words: Vec<String> = words.iter().map(|word| word.chars().map(either).collect()).collect();
    format!("^\\s*({})\\s*$", words.join("|"))
}

fn described(unit: &str) -> String {
    if unit.is_empty() { "A whole number.".into() } else { format!("In {unit}.") }
}
