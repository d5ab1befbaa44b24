//! The configuration file, from its text to what is in effect. A complaint names a line that is there; what is accepted
//! is accepted again from its own data; and nothing that is shown holds a password.

use matriarch::config::report::is_secret_name;
use matriarch::config::yaml::{self, Node};
use matriarch::config::{
    ConfigError, DynamicConfig, Loaded, LocalConfig, Problem, effective_parameters, effective_postgresql, load,
    load_client, to_yaml, validate,
};
use serde_json::Value;

/// What stands for a secret in seeds and dictionary; nothing else is spelled so.
const CANARY: &str = "cAnArY";

/// The target.
pub fn target(data: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(data) else { return "no text".into() };
    let strictly = validate(None, variables(text));
    let client = load_client(None, variables(text));
    let taken = match load(None, variables(text)) {
        Ok(loaded) => {
            assert!(client.is_ok(), "a node's own file is no client's: {client:?}");
            accepted(text, &loaded);
            let config = without_free_names(loaded.config.clone());
            let shown = format!("{config:?} {:?} {}", loaded.sources, loaded.render_warnings());
            keeps_secrets(text, &shown);
            placed(text, &loaded.warnings);
            format!("a configuration, {} warnings", loaded.warnings.len())
        }
        Err(refused) => {
            assert!(strictly.is_err(), "validated, and refused when it is used: {refused}");
            let ConfigError { problems, .. } = &refused;
            assert!(!refused.to_string().is_empty());
            keeps_secrets(text, &format!("{refused} {problems:?}"));
            placed(text, problems);
            let first = problems.first().map_or("nothing", |problem| problem.path.as_str());
            format!("refused for {} problems, the first of {first:?}", problems.len())
        }
    };
    let valid = strictly.is_ok();
    if let Err(complaints) = strictly {
        keeps_secrets(text, &complaints);
    }
    if let Err(refused) = client {
        keeps_secrets(text, &refused.to_string());
    }
    format!("{taken}, valid: {valid}")
}

/// Without what is passed on under any name: a secret there has no name by which the types could know it.
fn without_free_names(mut config: LocalConfig) -> LocalConfig {
    let (postgresql, bootstrap) = (&mut config.postgresql, &mut config.bootstrap);
    postgresql.parameters.clear();
    postgresql.recovery_conf.clear();
    postgresql.bin_name.clear();
    for options in [&mut postgresql.basebackup, &mut postgresql.rewind, &mut bootstrap.initdb] {
        options.clear();
    }
    bootstrap.dcs = Value::Null;
    config.restapi.http_extra_headers.clear();
    config.tags.published.clear();
    config.tags.configured.clear();
    config
}

fn variables(text: &str) -> [(String, String); 1] {
    [("PATRONI_CONFIGURATION".to_owned(), text.to_owned())]
}

/// Every complaint names its key or a line of the text; what is missing at its end is on the line after the last.
fn placed(text: &str, problems: &[Problem]) {
    // YAML knows more ends of lines than one.
    let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() as u32;
    for problem in problems {
        assert!(!problem.message.is_empty());
        assert!(!problem.path.is_empty() || problem.span.line > 0 || lines <= 1, "nowhere: {problem:?}");
        assert!(problem.span.line <= lines + 1, "line {} of {lines}: {problem:?}", problem.span.line);
    }
}

fn accepted(text: &str, loaded: &Loaded) {
    let again = to_yaml(&loaded.raw);
    match load(None, variables(&again)) {
        Ok(same) => assert_eq!(same.config, loaded.config, "{text}\n---\n{again}"),
        Err(why) => panic!("accepted once and not again: {why}\n{text}\n---\n{again}"),
    }
    let dcs = loaded.raw.pointer("/bootstrap/dcs").unwrap_or(&Value::Null);
    let Ok((dynamic, _)) = DynamicConfig::from_json(dcs) else { return };
    let _ = effective_postgresql(&loaded.config, &dynamic);
    for major in [12, 13, 18] {
        let parameters = effective_parameters(&loaded.config, &dynamic, major);
        for (name, value) in &parameters.command_line {
            assert_eq!(parameters.all.get(name), Some(value), "{name} differs between the file and the command line");
        }
    }
}

/// Secrets that the tree knows as such, or that stand on a line behind a word that names one, are not shown.
fn keeps_secrets(text: &str, shown: &str) {
    if !shown.contains(CANARY) {
        return;
    }
    let all = text.matches(CANARY).count();
    let secret = match yaml::parse(text) {
        Ok(root) => {
            let (secret, others) = canaries(&root, false);
            others == 0 && secret == all
        }
        Err(_) => text.lines().filter(|line| line.contains(CANARY)).all(names_a_secret),
    };
    assert!(!secret, "a secret is shown:\n{shown}\nof\n{text}");
}

/// How often the canary is a secret, and how often it is not.
fn canaries(node: &Node, secret: bool) -> (usize, usize) {
    let here = node.as_str().map_or(0, |text| text.matches(CANARY).count());
    let mut found = if secret { (here, 0) } else { (0, here) };
    let mut add = |(secret, others): (usize, usize)| found = (found.0 + secret, found.1 + others);
    for (key, value) in node.entries() {
        add(canaries(key, false));
        add(canaries(value, secret || key.as_str().is_some_and(is_secret_name)));
    }
    node.items().iter().for_each(|item| add(canaries(item, secret)));
    found
}

/// `password: cAnArY`, whatever else is wrong.
fn names_a_secret(line: &str) -> bool {
    let (before, _) = line.split_once(CANARY).unwrap_or((line, ""));
    before.trim().strip_suffix(':').is_some_and(|key| key.chars().all(char::is_alphanumeric) && is_secret_name(key))
}
