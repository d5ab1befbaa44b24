use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use super::*;

fn said() -> Said {
    Said {
        level: Level::WARN,
        target: "matriarch::agent::run",
        file: Some("agent/run.rs"),
        line: Some(7),
        message: "it is so".into(),
        fields: vec![("rung", "race".into()), ("why", "two words".into()), ("epoch", 7.into())],
    }
}

fn line_of(format: Format, dateformat: Option<&str>) -> String {
    let at = Timestamp::from_microsecond(1_795_953_600_012_345).expect("a time").to_zoned(TimeZone::UTC);
    let style = Style { format, dateformat: dateformat.map(str::to_owned), colours: false };
    style.line(&said(), &at)
}

fn plain(format: &str) -> String {
    line_of(Format::plain(format).expect("a format"), None)
}

#[test]
fn a_line_looks_as_pythons_logging_makes_it() {
    assert_eq!(
        plain(PATRONI_FORMAT),
        "2026-11-29 12:00:00,012 WARNING: it is so rung=race why=\"two words\" epoch=7\n"
    );
    let parts = "[%(process)d] %(name)s %(module)s:%(lineno)d %(filename)s %(levelno)s %(created)f 100%%";
    let process = std::process::id();
    let expected = "matriarch::agent::run run:7 agent/run.rs 30 1795953600.012345 100%";
    assert_eq!(plain(parts), format!("[{process}] {expected}\n"));
    assert_eq!(plain("%(levelname)-9s|%(levelname)9s|%(msecs)04d|%(levelname)s"), "WARNING  |  WARNING|0012|WARNING\n");
    let parts = "%(levelname).4s|%(levelname)09s|%(created).3f|%(created)d|%(lineno)03d|%(levelname)-3s";
    assert_eq!(plain(parts), "WARN|  WARNING|1795953600.012|1795953600|007|WARNING\n");
    let format = Format::plain("%(asctime)s %(levelname)s").expect("a format");
    assert_eq!(line_of(format, Some("%d/%b/%Y:%H:%M:%S %z")), "29/Nov/2026:12:00:00 +0000 WARNING\n");
}

#[test]
fn what_is_no_format_is_told() {
    for (format, why) in [
        ("%(message)", "`%` is followed by"),
        ("%s", "`%` is followed by"),
        ("100%", "`%` is followed by"),
        ("%(message)x", "`%` is followed by"),
        ("%(message)-1-s", "`%` is followed by"),
        ("%(message)9999s", "a width or a precision is more than 200"),
        ("%(message).1.1s", "`%` is followed by"),
        ("", "it names nothing"),
        ("{message} 100%%", "it names nothing"),
        ("%(thread)d", "`thread` is nothing that a line of this log can tell; it can tell asctime, created,"),
    ] {
        let error = Format::plain(format).expect_err(format);
        assert!(error.starts_with(why), "{format}: {error}");
    }
}

#[test]
fn a_json_line_has_what_the_format_names_the_fields_of_the_event_and_what_is_fixed() {
    let fixed = json!({"app": "patroni", "rung": "ours"}).as_object().expect("an object").clone();
    let told = line_of(Format::json(PATRONI_FORMAT, fixed).expect("a format"), None);
    let expected = json!({
        "asctime": "2026-11-29 12:00:00,012", "levelname": "WARNING", "message": "it is so",
        "rung": "ours", "why": "two words", "epoch": 7, "app": "patroni",
    });
    assert_eq!(serde_json::from_str::<Value>(&told).expect("JSON"), expected);
    let keys = [(Attribute::Message, "text"), (Attribute::Line, "rung"), (Attribute::Created, "at")];
    let fields = keys.map(|(attribute, key)| (attribute, key.to_owned())).to_vec();
    let told = line_of(Format::Json { fields, fixed: Map::new() }, None);
    assert_eq!(
        told,
        "{\"text\":\"it is so\",\"rung\":7,\"at\":1795953600.012345,\"event.rung\":\"race\",\"why\":\"two words\",\"epoch\":7}\n"
    );
}

/// Tools say what they like: a line of the log stays one line, and moves no cursor.
#[test]
fn what_is_said_passes_for_nothing_else() {
    let format = Format::plain("%(message)s").expect("a format");
    let style = Style { format, dateformat: None, colours: false };
    let at = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
    let said = Said { message: "one\n2026 ERROR: two\u{1b}[2J\tthree é".into(), ..Said::warning(String::new()) };
    assert_eq!(style.line(&said, &at), "one\\n2026 ERROR: two\\u{1b}[2J\tthree é\n");
}
