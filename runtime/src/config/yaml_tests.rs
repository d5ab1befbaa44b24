use proptest::prelude::*;

use super::super::emit::to_yaml;
use super::*;

fn json(text: &str) -> String {
    parse(text).map_or_else(|e| e.to_string(), |n| n.to_json().to_string())
}

/// Each right side is what PyYAML 6.0.3 `json.dumps(safe_load(...))` gave, blanks aside.
#[test]
fn documents_as_pyyaml_reads_them() {
    for (text, expected) in [
        ("", "null"),
        ("\u{feff}a: 1\n", r#"{"a":1}"#),
        ("\u{fe54}", "\"\u{fe54}\""),
        ("# nothing\n", "null"),
        ("a: 1\na: 2\n", r#"{"a":2}"#),
        ("b: &b {x: 1, y: 2}\nr: {<<: *b, y: 3}\n", r#"{"b":{"x":1,"y":2},"r":{"x":1,"y":3}}"#),
        ("b: &b {x: 1}\nr: {x: 0, <<: *b}\n", r#"{"b":{"x":1},"r":{"x":0}}"#),
        (
            "a: &a {x: 1}\nb: &b {x: 2, y: 2}\nr: {<<: [*a, *b]}\n",
            r#"{"a":{"x":1},"b":{"x":2,"y":2},"r":{"x":1,"y":2}}"#,
        ),
        ("a: &a [1, two]\nb: *a\n", r#"{"a":[1,"two"],"b":[1,"two"]}"#),
        ("o: \"on\"\np: 'yes'\nq: !!str 12\nr: !!int \"7\"\n", r#"{"o":"on","p":"yes","q":"12","r":7}"#),
        ("on: 1\n5: 2\n", r#"{"true":1,"5":2}"#),
        ("pg_hba: [\na,\nb\n]\n", r#"{"pg_hba":["a","b"]}"#),
        ("x: |\n  one\n  two\ny: >-\n  one\n  two\n", r#"{"x":"one\ntwo\n","y":"one two"}"#),
        ("---\na: 1\n...\n", r#"{"a":1}"#),
        ("- a\n-\n- ~\n", r#"["a",null,null]"#),
        ("d: 2024-01-02\n", r#"{"d":"2024-01-02"}"#),
    ] {
        assert_eq!(json(text), expected, "{text:?}");
    }
}

#[test]
fn errors_say_where() {
    for (text, expected) in [
        ("a: [1\nb: 2\n", "line 2, column 2: while parsing a flow sequence, did not find expected ',' or ']'"),
        (
            "a: 1\n\tb: 2\n",
            "line 2, column 1: while scanning a plain scalar, found a tab character that violates indentation",
        ),
        ("pg_hba: [\n- a,\n]\n", "line 2, column 1: while parsing a flow node, did not find expected node content"),
        ("a: {!, b: 1}\n", "line 1, column 5: this cannot be read as YAML from here on"),
        ("a: 1\nb: ä\u{7}\n", "line 2, column 5: the control character U+0007 is not allowed"),
        ("a: *x\n", "line 1, column 4: found an undefined alias; quote text that begins with `*`"),
        ("a: &x [*x]\n", "line 1, column 8: found an undefined alias; quote text that begins with `*`"),
        ("a: 1\n--- \nb: 2\n", "line 2, column 1: expected a single document, but found another one"),
        (
            "a: !!python/object:os.system x\n",
            "line 1, column 4: this tag is not supported here; quote text that begins with `!`",
        ),
        ("a:\n  b: =\n", "line 2, column 6: `=` has a special meaning in YAML 1.1; quote it"),
        ("[a]: 1\n", "line 1, column 1: a list or a mapping cannot be a key"),
        ("a: {<<: 5}\n", "line 1, column 5: expected a mapping or a list of mappings after `<<`, found a whole number"),
        ("a: !!int x\n", "line 1, column 4: expected a whole number after this tag"),
    ] {
        assert_eq!(json(text), expected, "{text:?}");
    }
}

#[test]
fn places_count_from_one_in_characters() {
    let root = parse("ä: 1\npostgresql:\n  name: \"x\"  # c\n").unwrap();
    let span = |n: &Node| (n.span.line, n.span.column, n.span.end_line, n.span.end_column);
    assert_eq!(span(root.get("ä").unwrap()), (1, 4, 1, 5));
    assert_eq!(span(root.get("postgresql").unwrap().get("name").unwrap()), (3, 9, 3, 12));
}

#[test]
fn depth_and_alias_expansion_are_limited() {
    assert!(json(&"[".repeat(100_000)).contains("nested more than 64 levels deep"));
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n";
    assert_eq!(json(bomb), "line 5, column 26: more than 100000 values, counting what aliases stand for");
    assert!(parse(&format!("a: {}x{}", "[".repeat(60), "]".repeat(60))).is_ok());
}

/// JSON as a configuration could hold it; floats that YAML 1.1 keeps exactly.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let tricky = prop::sample::select(vec![
        "on",
        "No",
        "~",
        "",
        "0644",
        "1:30",
        "1e3",
        "1_000",
        "=",
        "<<",
        "- a",
        "a: b",
        "#",
        " x",
        "x ",
        "a\nb",
        "\n",
        "'",
        "\"",
        "2024-01-02",
        "!x",
        "&x",
        "*x",
        "%x",
        "@x",
        "`x`",
        "{",
        "]",
        "?",
        ":",
        "\t",
        "a #b",
        "é",
        "---",
        "...",
    ]);
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|i| json!(i)),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(|f| json!(f)),
        tricky.prop_map(|s| json!(s)),
        "[ -~]{0,300}".prop_map(|s| json!(s)),
        "\\PC{0,20}".prop_map(|s| json!(s)),
        any::<String>().prop_map(|s| json!(s)),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::Array),
            prop::collection::btree_map("[a-z_ :#-]{0,8}|on|1|~", inner, 0..6)
                .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(value in any_json()) {
        let text = to_yaml(&value);
        let back = parse(&text).map(|n| n.to_json());
        prop_assert_eq!(back.as_ref(), Ok(&value), "{}", text);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[a-z0-9:{}\\[\\]&*!|>'\"#%@\n\t ,.?~=<-]{0,80}") {
        let _ = parse(&text);
    }
}
