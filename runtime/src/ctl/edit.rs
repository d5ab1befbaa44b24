//! Changes to a configuration: one value by its path, or the whole by the operator's editor.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value};

use crate::config::yaml;

/// Where the names of PostgreSQL's parameters begin: from there on dots belong to the name.
const PARAMETERS: [&str; 2] = ["postgresql", "parameters"];

/// `path.to.key=value`: the value is YAML, null removes the key, and with it what is empty above it then.
pub(super) fn set(config: &mut Map<String, Value>, pair: &str) -> Result<(), String> {
    let Some((path, text)) = pair.split_once('=') else { return Err(format!("Invalid parameter setting {pair}")) };
    let value = yaml::parse(text).map_err(|error| format!("{pair}: the value is not valid YAML: {error}"))?;
    let path = path.trim();
    match path.strip_prefix("postgresql.parameters.") {
        Some(name) => put(config, &[PARAMETERS[0], PARAMETERS[1], name], value.to_json()),
        None => put(config, &path.split('.').collect::<Vec<_>>(), value.to_json()),
    }
    Ok(())
}

fn put(config: &mut Map<String, Value>, path: &[&str], value: Value) {
    match path {
        [] => {}
        [key] if value.is_null() => drop(config.shift_remove(*key)),
        [key] => drop(config.insert((*key).to_owned(), value)),
        [key, below @ ..] => {
            let entry = config.entry(*key).or_insert(Value::Null);
            let mut inner = match entry.take() {
                Value::Object(inner) => inner,
                _ => Map::new(),
            };
            put(&mut inner, below, value);
            if inner.is_empty() {
                config.shift_remove(*key);
            } else {
                config.insert((*key).to_owned(), Value::Object(inner));
            }
        }
    }
}

/// What came out of the editor, and the file that still holds it.
pub(super) struct Written {
    pub(super) text: String,
    pub(super) file: PathBuf,
}

/// Has the editor of `EDITOR` (or `editor`, or `vi`) change a text. The file is the operator's own: a configuration may
/// hold passwords.
pub(super) fn by_hand(cluster: &str, text: &str) -> Result<Written, String> {
    let named = std::env::var("EDITOR").ok().filter(|editor| !editor.is_empty());
    let found = || ["editor", "vi"].into_iter().find(|program| in_path(program)).map(str::to_owned);
    let editor =
        named.or_else(found).ok_or("EDITOR environment variable is not set. editor or vi are not available")?;
    let name = format!("{}-config-{:08x}.yaml", cluster.replace('/', "_"), rand::random::<u32>());
    let file = std::env::temp_dir().join(name);
    let write = || {
        let mut created = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file)?;
        created.write_all(text.as_bytes())
    };
    write().map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    let edited = run(&editor, &file);
    if edited.is_err() {
        let _ = std::fs::remove_file(&file);
    }
    Ok(Written { text: edited?, file })
}

/// By the shell: `EDITOR` may have arguments.
fn run(editor: &str, file: &Path) -> Result<String, String> {
    let status = Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).args(["sh".as_ref(), file]).status();
    let status = status.map_err(|error| format!("cannot start {editor}: {error}"))?;
    match status.code() {
        Some(0) => std::fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display())),
        Some(code) => Err(format!("Editor exited with return code {code}")),
        None => Err(format!("Editor was ended by a signal: {status}")),
    }
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Each result is what Patroni 4.1.5's `apply_config_changes` makes of the same.
    #[test]
    fn values_are_set_by_path_as_patroni_does() {
        let config = json!({"ttl": 30, "postgresql": {"parameters": {"work_mem": "4MB"}, "use_slots": true}});
        let cases: [(&[&str], Value); 6] = [
            (&["ttl=20", " loop_wait = 5"], json!({"ttl": 20, "loop_wait": 5})),
            (
                &["postgresql.use_slots=off", "a.b.c=[1, x]"],
                json!({"postgresql": {"parameters": {"work_mem": "4MB"}, "use_slots": false}, "a": {"b": {"c": [1, "x"]}}}),
            ),
            (
                &["postgresql.parameters.auto_explain.log_min_duration=1s"],
                json!({"postgresql": {"parameters": {"work_mem": "4MB", "auto_explain.log_min_duration": "1s"}, "use_slots": true}}),
            ),
            (&["postgresql.parameters.work_mem=null"], json!({"postgresql": {"use_slots": true}})),
            (&["postgresql.parameters.work_mem=", "postgresql.use_slots=null"], json!({"postgresql": null})),
            (&["ttl.x=1", "y.z=null"], json!({"ttl": {"x": 1}})),
        ];
        for (pairs, expected) in cases {
            let Value::Object(mut changed) = config.clone() else { panic!() };
            for pair in pairs {
                set(&mut changed, pair).unwrap();
            }
            let Value::Object(mut whole) = config.clone() else { panic!() };
            whole.extend(expected.as_object().unwrap().clone());
            whole.retain(|_, value| !value.is_null());
            assert_eq!(changed, whole, "{pairs:?}");
        }
        let mut config = Map::new();
        assert_eq!(set(&mut config, "ttl"), Err("Invalid parameter setting ttl".to_owned()));
        assert!(set(&mut config, "ttl=[").unwrap_err().starts_with("ttl=[: the value is not valid YAML: "));
    }
}
