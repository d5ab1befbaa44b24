use super::super::report::{Severity, Sources, distance, is_secret_name, render};
use super::super::yaml::parse;
use super::*;

/// The complaints about one section, put under `section` of an otherwise empty tree.
fn complaints(text: &str) -> Vec<(String, String)> {
    let root = parse(text).unwrap();
    check(&root, Purpose::Run)
        .into_iter()
        .filter(|p| !p.message.starts_with("this key is required"))
        .map(|p| (p.path, p.message))
        .collect()
}

#[test]
fn every_kind_of_value_says_what_it_expects() {
    for (text, path, message) in [
        ("scope: 5", "scope", "expected text (put numbers and words like `on` into quotes), found the whole number 5"),
        ("name: on", "name", "expected text (put numbers and words like `on` into quotes), found the boolean true"),
        (
            "log: {level: LOUD}",
            "log.level",
            "expected one of DEBUG, INFO, WARN, WARNING, ERROR, FATAL, CRITICAL, found the text \"LOUD\"",
        ),
        ("log: {mode: 01000}", "log.mode", "expected a whole number from 0 to 511, found the whole number 512"),
        ("log: 5", "log", "expected a mapping, found the whole number 5"),
        (
            "tags: {nofailover: 'false'}",
            "tags.nofailover",
            "expected a boolean without quotes (true or false), found the text \"false\"",
        ),
        ("ctl: {insecure: maybe}", "ctl.insecure", "expected a boolean (on or off), found the text \"maybe\""),
        (
            "restapi: {listen: here}",
            "restapi.listen",
            "expected host:port (an IPv6 address in brackets), found the text \"here\"",
        ),
        (
            "restapi: {listen: '::1:80'}",
            "restapi.listen",
            "expected host:port (an IPv6 address in brackets), found the text \"::1:80\"",
        ),
        (
            "restapi: {listen: 'h:99999'}",
            "restapi.listen",
            "expected host:port (an IPv6 address in brackets), found the text \"h:99999\"",
        ),
        (
            "restapi: {authentication: {password: [x]}}",
            "restapi.authentication.password",
            "expected text (put numbers and words like `on` into quotes), found a list",
        ),
        (
            "postgresql: {listen: ',:5432'}",
            "postgresql.listen",
            "expected host[,host...][:port], found the text \",:5432\"",
        ),
        (
            "postgresql: {pg_hba: local all all trust}",
            "postgresql.pg_hba",
            "expected a list, each item a line of text, found the text \"local all all trust\"",
        ),
        ("postgresql: {pg_hba: [a, {b: c}]}", "postgresql.pg_hba[1]", "expected a line of text, found a mapping"),
        (
            "postgresql: {parameters: {work_mem: [1]}}",
            "postgresql.parameters.work_mem",
            "expected text, a number or a boolean, found a list",
        ),
        (
            "postgresql: {basebackup: [[x]]}",
            "postgresql.basebackup[0]",
            "expected an option: `- name` or `- name: value`, found a list",
        ),
        (
            "postgresql: {basebackup: 5}",
            "postgresql.basebackup",
            "expected a list of options (`- name` or `- name: value`), or a mapping, found the whole number 5",
        ),
        ("etcd3: {hosts: {a: b}}", "etcd3.hosts", "expected a list, each item text, found a mapping"),
        ("etcd3: {protocol: ftp}", "etcd3.protocol", "expected one of http, https, found the text \"ftp\""),
        (
            "matriarch: {isolation_timeout: 0}",
            "matriarch.isolation_timeout",
            "expected a number of seconds greater than 0, found the whole number 0",
        ),
        (
            "matriarch: {recorder: {size: much}}",
            "matriarch.recorder.size",
            "expected a number of bytes, or one with a unit (B, kB, MB, GB, TB), found the text \"much\"",
        ),
        ("matriarch: {recorder: {siz: 5MB}}", "matriarch.recorder.siz", "unknown key; did you mean `size`?"),
        ("matriarch: {guard: maybe}", "matriarch.guard", "expected one of auto, strict, found the text \"maybe\""),
        (
            "bootstrap: {dcs: {synchronous_mode: some}}",
            "bootstrap.dcs.synchronous_mode",
            "expected one of off, on, quorum, true, false, found the text \"some\"",
        ),
        (
            "bootstrap: {dcs: {ttl: 0}}",
            "bootstrap.dcs.ttl",
            "expected a whole number of seconds, at least 1, found the whole number 0",
        ),
        (
            "thread_stack_size: much",
            "thread_stack_size",
            "expected a number of bytes, or one with a unit (B, kB, MB, GB, TB), found the text \"much\"",
        ),
        ("namespace:", "namespace", "has no value, as if the key were not there"),
        ("scop: x", "scop", "unknown key; did you mean `scope`?"),
    ] {
        assert_eq!(complaints(text), [(path.to_owned(), message.to_owned())], "{text}");
    }
}

#[test]
fn what_patroni_takes_is_taken() {
    for text in [
        "thread_pool_size: '9'",
        "thread_stack_size: 512kB",
        "watchdog: {mode: off}",
        "watchdog: {mode: auto, safety_margin: -1}",
        "ctl: {insecure: 'on'}",
        "tags: {nofailover: 1, anything: [goes], failover_priority: '5'}",
        "postgresql: {listen: '127.0.0.1,h,[::1]:5432', parameters: {a: on, b: 1.5, c: }}",
        "postgresql: {create_replica_methods: [wal_e, basebackup], wal_e: {command: x}}",
        "bootstrap: {method: mine, mine: {command: x}, dcs: {synchronous_mode: on, member_slots_ttl: 1h}}",
        "x: &x 1",
        "holder:\n  inner: &y 1",
        "tags:",
    ] {
        assert_eq!(complaints(text), [], "{text}");
    }
}

#[test]
fn long_text_is_cut() {
    let found = complaints(&format!("log: {{level: {}}}", "x".repeat(1000)));
    assert!(found[0].1.len() < 200);
}

#[test]
fn addresses_are_split() {
    assert_eq!(split_address("[::1]:80"), Some(("::1".to_owned(), 80)));
    assert_eq!(split_address("h:0"), None);
    assert_eq!(split_address(":80"), None);
    for text in [":80", "*:80", " :80"] {
        assert_eq!(split_bind(text), Some(("*".to_owned(), 80)), "{text}");
    }
    assert_eq!(split_bind("::1:80"), None);
    assert_eq!(split_bind(":"), None);
    for (text, hosts, port) in [
        ("h", "h", 5432),
        ("h:1", "h", 1),
        ("a, b:1", "a b", 1),
        ("::1", "::1", 5432),
        ("[::1]", "::1", 5432),
        ("[::1]:6", "::1", 6),
        ("*:5", "*", 5),
    ] {
        assert_eq!(split_listen(text).map(|(h, p)| (h.join(" "), p)), Some((hosts.to_owned(), port)), "{text}");
    }
}

#[test]
fn near_names_are_near() {
    for (a, b, expected) in
        [("", "abc", 3), ("ttl", "ttl", 0), ("tlt", "ttl", 1), ("listen", "lisen", 1), ("kitten", "sitting", 3)]
    {
        assert_eq!(distance(a, b), expected, "{a} {b}");
    }
    assert_eq!(nearest("zzz", ["scope", "name"].into_iter()), None);
    for (name, secret) in [
        ("password", true),
        ("passwrod", true),
        ("keyfile_password", true),
        ("token", true),
        ("pgpass", false),
        ("password_encryption", false),
        ("username", false),
        ("server_tokens", false),
        ("PASSWORD", true),
    ] {
        assert_eq!(is_secret_name(name), secret, "{name}");
    }
}

#[test]
fn secrets_on_a_shown_line_are_blanked_and_the_caret_moves_with_them() {
    let text = "a: {password: hunter2, b: x}\n";
    let mut sources = Sources::default();
    sources.add("f.yml", text);
    let root = parse(text).unwrap();
    sources.hide_secrets(&root);
    let span = root.get("a").and_then(|a| a.get("b")).unwrap().span;
    let problem = Problem { severity: Severity::Error, ..Problem::warning(span, "a.b", "wrong") };
    assert_eq!(
        render(&[problem], &sources),
        "error: a.b: wrong\n  --> f.yml:1:27\n  |\n1 | a: {password: ***, b: x}\n  |                       ^\n"
    );
}

/// The bug: the environment's `0640` was read as six hundred and forty, and kept the agent from starting.
#[test]
fn whole_numbers_of_the_environment_are_patronis() {
    for (text, number) in [("0640", Some(416)), ("0x1A0", Some(416)), (" 416 ", Some(416)), ("many", None), ("", None)]
    {
        assert_eq!(whole(&Value::Str(text.to_owned())), number, "{text}");
    }
}
