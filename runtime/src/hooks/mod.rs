//! What operators have run at the events of PostgreSQL's life: callbacks, hooks, and scripts in the place of our own
//! tools.

pub mod callbacks;
mod script;
mod words;

use std::collections::BTreeMap;
use std::fmt;

pub use callbacks::Callback;
pub use script::{Running, Script};

/// A command of the operator: a program and its first arguments. No shell is asked.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandLine {
    program: String,
    arguments: Vec<String>,
}

impl CommandLine {
    /// Splits a text as a shell does. `None`: it is empty, and nothing is to be run.
    ///
    /// # Errors
    /// A quote is not closed, or nothing follows a backslash.
    pub fn parse(text: &str) -> Result<Option<Self>, &'static str> {
        let mut words = words::split(text)?.into_iter();
        Ok(words.next().map(|program| Self { program, arguments: words.collect() }))
    }

    /// A text that a shell is to read.
    pub fn shell(text: &str) -> Self {
        Self { program: "/bin/sh".to_owned(), arguments: vec!["-c".to_owned(), text.to_owned()] }
    }

    /// The program, for messages.
    pub fn program(&self) -> &str {
        &self.program
    }
}

/// Arguments may hold anything, passwords as well.
impl fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} arguments)", self.program, self.arguments.len())
    }
}

/// A way to make a replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplicaMethod {
    /// `pg_basebackup`, run by the agent.
    Basebackup,
    /// A script of the operator.
    Script {
        /// What is run.
        script: Method,
        /// It needs no other member to copy from.
        no_leader: bool,
        /// What is in the data directory stays there, before it and after it has failed.
        keep_data: bool,
    },
}

impl ReplicaMethod {
    /// The name.
    pub fn name(&self) -> &str {
        match self {
            Self::Basebackup => "basebackup",
            Self::Script { script, .. } => &script.name,
        }
    }

    /// Whether it can do without anybody to copy from.
    pub fn needs_nobody(&self) -> bool {
        matches!(self, Self::Script { no_leader: true, .. })
    }
}

/// A way to make the first data directory of a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootstrapMethod {
    /// What is run.
    pub script: Method,
    /// Recovery settings for the first start, if PostgreSQL is to recover to somewhere.
    pub recovery_conf: Option<BTreeMap<String, String>>,
    /// The script has left recovery settings, and they are to be used.
    pub keep_existing_recovery_conf: bool,
}

/// A script that makes a data directory.
#[derive(Clone, PartialEq, Eq)]
pub struct Method {
    /// Its name in the configuration.
    pub name: String,
    /// The command.
    pub command: CommandLine,
    /// Keys and values of its section, which become arguments.
    pub own: Vec<(String, String)>,
    /// It gets our arguments as well.
    pub takes_ours: bool,
}

impl Method {
    /// All arguments, as Patroni writes them: `--key=value`.
    pub fn arguments(&self, ours: &[(&str, &str)]) -> Vec<String> {
        let own = self.own.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        // One that the section names as well is ours, where it stands.
        let instead = |key: &str| ours.iter().find(|(name, _)| self.takes_ours && *name == key);
        let own = own.map(|(key, value)| instead(key).copied().unwrap_or((key, value)));
        let named = |key: &str| self.own.iter().any(|(name, _)| name == key);
        let more = ours.iter().copied().filter(|(key, _)| self.takes_ours && !named(key));
        own.chain(more).map(|(key, value)| format!("--{key}={value}")).collect()
    }
}

/// Values may hold anything, passwords as well.
impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.name, self.command)
    }
}

/// The commands of a node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hooks {
    /// Told what came to pass.
    pub callbacks: BTreeMap<Callback, CommandLine>,
    /// Asked whether a standby may be promoted.
    pub pre_promote: Option<CommandLine>,
    /// Run before a server is asked to stop.
    pub before_stop: Option<CommandLine>,
    /// Ways to make a replica, in the order in which they are tried; none: `pg_basebackup`.
    pub replica_methods: Vec<ReplicaMethod>,
    /// Makes the first data directory of a cluster; none: `initdb`.
    pub bootstrap: Option<BootstrapMethod>,
    /// Run on the new primary of a new cluster.
    pub post_bootstrap: Option<CommandLine>,
}

impl Hooks {
    /// Some way to make a replica needs nobody to copy from.
    pub fn restores_alone(&self) -> bool {
        self.replica_methods.iter().any(ReplicaMethod::needs_nobody)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_gets_its_keys_and_ours() {
        let command = CommandLine::parse("/m 'secret'").unwrap().unwrap();
        let own =
            [("threads", "4"), ("role", "mine"), ("no_leader", "True")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let mut method = Method { name: "m".to_owned(), command, own: own.into(), takes_ours: true };
        let ours = [("scope", "herd"), ("role", "replica")];
        let all = ["--threads=4", "--role=replica", "--no_leader=True", "--scope=herd"];
        assert_eq!(method.arguments(&ours), all);
        method.takes_ours = false;
        assert_eq!(method.arguments(&ours), ["--threads=4", "--role=mine", "--no_leader=True"]);
        assert!(!format!("{method:?}").contains("secret"));
    }
}
