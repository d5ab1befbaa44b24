//! The example configurations of `docs/examples`: what the tests run with are the files that readers see, so that they
//! cannot rot. Addresses, ports, paths and accounts are all that is put in their place.

use std::fs;
use std::path::{Path, PathBuf};

/// Where a file of the documentation is.
pub fn documented(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

/// The text of an example, with each pair's second in the place of its first. Panics if one is not in it: the example
/// has changed, and the test would run with something else.
pub fn example(name: &str, changes: &[(impl AsRef<str>, impl AsRef<str>)]) -> String {
    let path = documented("examples").join(name);
    let mut text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for (from, to) in changes {
        let (from, to) = (from.as_ref(), to.as_ref());
        assert!(text.contains(from), "{} has no {from:?}", path.display());
        text = text.replace(from, to);
    }
    text
}
