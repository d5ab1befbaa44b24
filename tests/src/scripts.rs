//! Scripts that a node's agent calls, and what they wrote down.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::node::Node;

/// The callbacks of the configuration.
const CALLBACKS: [&str; 5] = ["on_start", "on_stop", "on_restart", "on_reload", "on_role_change"];

/// A command that runs `text` in a shell, with the arguments that it is given.
///
/// # Panics
/// There is a quote in the text.
#[must_use]
pub fn shell(text: &str) -> String {
    assert!(!text.contains('\''), "{text}");
    format!("/bin/sh -c '{text}' sh")
}

/// A file of a node.
#[must_use]
pub fn file(node: &Node, name: &str) -> PathBuf {
    node.dir().join(name)
}

/// The lines that scripts have written into a file of a node.
#[must_use]
pub fn lines(node: &Node, name: &str) -> Vec<String> {
    fs::read_to_string(file(node, name)).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The configuration of callbacks that each do the same.
#[must_use]
pub fn callbacks(command: &str) -> Value {
    let callbacks: serde_json::Map<String, Value> =
        CALLBACKS.iter().map(|name| ((*name).to_owned(), json!(command))).collect();
    json!({"postgresql": {"callbacks": callbacks}})
}
