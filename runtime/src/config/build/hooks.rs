//! What the operator has run at the events of PostgreSQL's life.

use super::Build;
use crate::config::check::{join, texts};
use crate::config::quantity::bool_of;
use crate::config::yaml::{Node, Value};
use crate::hooks::{Callback, CommandLine, Hooks, Method, ReplicaMethod};

impl Build<'_, '_> {
    pub(super) fn hooks(&mut self) -> Hooks {
        let callbacks = Callback::ALL.into_iter().filter_map(|callback| {
            let command = self.command(&join("postgresql.callbacks", callback.name()))?;
            Some((callback, command))
        });
        Hooks {
            callbacks: callbacks.collect(),
            pre_promote: self.command("postgresql.pre_promote"),
            before_stop: self.command("postgresql.before_stop"),
            replica_methods: self.replica_methods(),
        }
    }

    /// A command; nothing if there is none, or an empty one.
    fn command(&mut self, path: &str) -> Option<CommandLine> {
        self.command_of(path, self.text(path)?)
    }

    fn command_of(&mut self, path: &str, text: &str) -> Option<CommandLine> {
        match CommandLine::parse(text) {
            Ok(command) => command,
            Err(why) => {
                self.refuse(path, format!("this is no command: {why}"));
                None
            }
        }
    }

    fn replica_methods(&mut self) -> Vec<ReplicaMethod> {
        let lists = ["create_replica_methods", "create_replica_method"];
        let Some(names) = lists.into_iter().find_map(|list| self.at(&join("postgresql", list))) else {
            return Vec::new();
        };
        texts(names).into_iter().filter_map(|name| self.replica_method(name)).collect()
    }

    fn replica_method(&mut self, name: &str) -> Option<ReplicaMethod> {
        if name == "basebackup" {
            return Some(ReplicaMethod::Basebackup);
        }
        let path = join("postgresql", name);
        let is_set = |key: &str| self.at(&join(&path, key)).is_some_and(|n| bool_of(&n.to_json()) == Some(true));
        // `no_master` is what older files say.
        let (no_leader, keep_data) = (is_set("no_leader") || is_set("no_master"), is_set("keep_data"));
        // With our arguments a script gets the whole section; without, nothing but what is its own.
        let script = self.method(&path, name, &["no_params", "no_leader", "no_master", "keep_data"])?;
        Some(ReplicaMethod::Script { script, no_leader, keep_data })
    }

    /// The script of a section; without a command, the section's name is one. `controls`: keys that are for us, and are
    /// among its arguments only together with ours.
    fn method(&mut self, path: &str, name: &str, controls: &[&str]) -> Option<Method> {
        let section = self.at(path);
        if section.is_some_and(|section| !matches!(section.value, Value::Map(_))) {
            self.refuse(path, "expected a mapping: `command` and the arguments of the method");
            return None;
        }
        let takes_ours = self.flag(&join(path, "no_params")) != Some(true);
        let entries = section.map(Node::entries).unwrap_or_default();
        let wanted = |key: &str| key != "command" && (takes_ours || !controls.contains(&key));
        let own = entries.iter().filter_map(|(key, value)| Some((key.as_str().filter(|key| wanted(key))?, value)));
        let own = own.filter_map(|(key, value)| Some((key.to_owned(), argument(value)?))).collect();
        let text = self.text(&join(path, "command")).unwrap_or(name);
        let command = self.command_of(path, text)?;
        Some(Method { name: name.to_owned(), command, own, takes_ours })
    }
}

/// A value as Patroni makes an argument of it.
fn argument(value: &Node) -> Option<String> {
    match &value.value {
        Value::Bool(true) => Some("True".to_owned()),
        Value::Bool(false) => Some("False".to_owned()),
        other => other.scalar_text(),
    }
}
