//! What the operator has run at the events of PostgreSQL's life.

use super::Build;
use crate::config::check::{join, texts};
use crate::config::quantity::bool_of;
use crate::config::yaml::{Node, Value};
use crate::hooks::{BootstrapMethod, Callback, CommandLine, Hooks, Method, ReplicaMethod};

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
            bootstrap: self.bootstrap_method(),
            post_bootstrap: self.command("bootstrap.post_bootstrap").or_else(|| self.command("bootstrap.post_init")),
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
        let controls = ["no_params", "no_leader", "no_master", "keep_data"];
        let takes_ours = self.flag(&join(&path, "no_params")) != Some(true);
        let script = self.method(&path, name, |key| takes_ours || !controls.contains(&key))?;
        Some(ReplicaMethod::Script { script, no_leader, keep_data })
    }

    fn bootstrap_method(&mut self) -> Option<BootstrapMethod> {
        let name = self.text("bootstrap.method").filter(|name| *name != "initdb")?;
        let path = join("bootstrap", name);
        let is_section = self.at(&path).is_none_or(|section| matches!(section.value, Value::Map(_)));
        if is_section && self.text(&join(&path, "command")).is_none() {
            // As Patroni: without a command it is initdb.
            self.warn("bootstrap.method", format!("`{path}.command` is not set: initdb is run"));
            return None;
        }
        let reserved = ["no_params", "keep_existing_recovery_conf", "recovery_conf", "scope", "datadir"];
        let script = self.method(&path, name, |key| !reserved.contains(&key))?;
        let conf = join(&path, "recovery_conf");
        let entries = self.at(&conf).map(|node| node.entries().iter().filter_map(setting).collect());
        let keeps = self.flag(&join(&path, "keep_existing_recovery_conf")).unwrap_or(false);
        Some(BootstrapMethod { script, recovery_conf: entries, keep_existing_recovery_conf: keeps })
    }

    /// The script of a section; without a command, the section's name is one. `is_argument`: of a key.
    fn method(&mut self, path: &str, name: &str, is_argument: impl Fn(&str) -> bool) -> Option<Method> {
        let section = self.at(path);
        if section.is_some_and(|section| !matches!(section.value, Value::Map(_))) {
            self.refuse(path, "expected a mapping: `command` and the arguments of the method");
            return None;
        }
        let takes_ours = self.flag(&join(path, "no_params")) != Some(true);
        let entries = section.map(Node::entries).unwrap_or_default();
        let wanted = |key: &&str| *key != "command" && is_argument(key);
        let own = entries.iter().filter_map(|(key, value)| Some((key.as_str().filter(wanted)?, value)));
        let own = own.filter_map(|(key, value)| Some((key.to_owned(), argument(value)?))).collect();
        let text = self.text(&join(path, "command")).unwrap_or(name);
        let command = self.command_of(path, text)?;
        Some(Method { name: name.to_owned(), command, own, takes_ours })
    }
}

/// A recovery setting. `standby_mode` is of the time before PostgreSQL 12.
fn setting((name, value): &(Node, Node)) -> Option<(String, String)> {
    let name = name.as_str().filter(|name| *name != "standby_mode")?;
    Some((name.to_owned(), value.value.scalar_text()?))
}

/// A value as Patroni makes an argument of it.
fn argument(value: &Node) -> Option<String> {
    match &value.value {
        Value::Bool(true) => Some("True".to_owned()),
        Value::Bool(false) => Some("False".to_owned()),
        other => other.scalar_text(),
    }
}
