use super::*;

/// What PyYAML 6.0.3 `safe_load` made of each text as a plain scalar. Dates are text here.
#[test]
fn plain_scalars_as_pyyaml_reads_them() {
    let text = |s: &str| Value::Str(s.to_owned());
    for (scalar, expected) in [
        ("on", Value::Bool(true)),
        ("off", Value::Bool(false)),
        ("Off", Value::Bool(false)),
        ("yes", Value::Bool(true)),
        ("No", Value::Bool(false)),
        ("y", text("y")),
        ("N", text("N")),
        ("true", Value::Bool(true)),
        ("tRue", text("tRue")),
        ("0644", Value::Int(420)),
        ("0o644", text("0o644")),
        ("08", text("08")),
        ("1:30", Value::Int(90)),
        ("1:60", text("1:60")),
        ("190:20:30", Value::Int(685_230)),
        ("0:30", text("0:30")),
        ("1:30.5", Value::Float(90.5)),
        ("1:2:3.", Value::Float(3723.0)),
        ("1e3", text("1e3")),
        ("12e03", text("12e03")),
        ("1.5e3", text("1.5e3")),
        ("1.5e+3", Value::Float(1500.0)),
        ("1.e+3", Value::Float(1000.0)),
        ("1_000", Value::Int(1000)),
        ("1_000.5", Value::Float(1000.5)),
        ("_1", text("_1")),
        ("1__", Value::Int(1)),
        ("0_7", Value::Int(7)),
        ("0x1F", Value::Int(31)),
        ("-0x1f", Value::Int(-31)),
        ("0x", text("0x")),
        ("0b101", Value::Int(5)),
        ("0b2", text("0b2")),
        ("+12", Value::Int(12)),
        ("-12", Value::Int(-12)),
        ("00", Value::Int(0)),
        ("-0", Value::Int(0)),
        ("0.", Value::Float(0.0)),
        ("~", Value::Null),
        ("", Value::Null),
        ("NULL", Value::Null),
        ("nUll", text("nUll")),
        (".5", Value::Float(0.5)),
        ("-.5", text("-.5")),
        (".", text(".")),
        (".inf", Value::Float(f64::INFINITY)),
        ("-.INF", Value::Float(f64::NEG_INFINITY)),
        ("+.inf", Value::Float(f64::INFINITY)),
        ("10.0.0.1", text("10.0.0.1")),
        ("::1", text("::1")),
        ("1,000", text("1,000")),
        ("2024-01-02", text("2024-01-02")),
        ("9223372036854775807", Value::Int(i64::MAX)),
        ("-9223372036854775808", Value::Int(i64::MIN)),
    ] {
        assert_eq!(plain(scalar), Ok(expected), "{scalar:?}");
    }
    assert!(matches!(plain(".nan"), Ok(Value::Float(f)) if f.is_nan()));
}

#[test]
fn what_pyyaml_refuses_is_refused_and_numbers_too_large_are_not_bent() {
    for scalar in ["=", "<<", "0b_", "12345678901234567890123"] {
        assert!(plain(scalar).is_err(), "{scalar:?}");
    }
}

#[test]
fn timestamps_as_pyyaml_knows_them() {
    for (scalar, expected) in [
        ("2024-01-02", true),
        ("2024-1-2", false),
        ("2024-01-02 03:04:05", true),
        ("2024-1-2 3:04:05", true),
        ("2024-01-02T03:04:05Z", true),
        ("2024-01-02t03:04:05.5 +01:30", true),
        ("2024-01-02 03:04:05 -1", true),
        ("2024-01-02 03:04:05 +1:5", false),
        ("2024-01-02 03:04", false),
        ("2024-01-02x", false),
        ("éééé-01-02", false),
    ] {
        assert_eq!(is_timestamp(scalar), expected, "{scalar:?}");
        if expected {
            assert!(!reads_as_text(scalar), "{scalar:?}");
        }
    }
}
