//! The dynamic configuration that was in force, in the data directory, where Patroni keeps it too: for a start without a
//! store, and for a store that has lost it. Who empties the directory has forgotten it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use serde_json::Value;

use super::{Settings, files};

const FILE: &str = "patroni.dynamic.json";

/// What is there. Not in a directory that is not whole, nor in that of a new cluster that is not complete: a backup that it
/// was made of may have brought another's.
pub fn read(data_dir: &Path) -> Option<Value> {
    if !is_whole(data_dir) || files::is_newborn(data_dir) {
        return None;
    }
    let path = data_dir.join(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot be read and does not count");
            return None;
        }
    };
    let config = mapping(&bytes);
    if config.is_none() {
        tracing::warn!(path = %path.display(), "is no JSON mapping and does not count");
    }
    config
}

/// What the bytes of the file say; `None`: they are no JSON mapping.
pub(super) fn mapping(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice(bytes).ok().filter(Value::is_object)
}

/// Writes it, if the directory is whole and says something else.
///
/// # Errors
/// The disk's.
pub(super) fn write(settings: &Settings, config: &Value) -> io::Result<()> {
    let (path, text) = (settings.data_dir.join(FILE), config.to_string());
    if !is_whole(&settings.data_dir) || fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    files::write(&path, text.as_bytes(), Some(0o600), settings.run_as.as_ref())
}

fn is_whole(data_dir: &Path) -> bool {
    files::tainted(data_dir).is_none() && data_dir.join("global/pg_control").exists()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_there_counts_only_in_a_whole_directory_that_is_no_new_clusters() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at(FILE), r#"{"ttl": 20}"#).unwrap();
        assert_eq!(read(directory.path()), None, "no cluster");
        fs::create_dir(at("global")).unwrap();
        fs::write(at("global/pg_control"), "").unwrap();
        assert_eq!(read(directory.path()), Some(json!({"ttl": 20})));
        for mark in [files::NEWBORN, files::TAINT] {
            fs::write(at(mark), "").unwrap();
            assert_eq!(read(directory.path()), None, "{mark}");
            fs::remove_file(at(mark)).unwrap();
        }
        for nonsense in [b"".as_slice(), b"[1]", b"{", b"{\"a\": \"\xff\"}"] {
            fs::write(at(FILE), nonsense).unwrap();
            assert_eq!(read(directory.path()), None, "{}", nonsense.escape_ascii());
        }
    }
}
