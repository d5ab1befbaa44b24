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

/// The commands of a node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hooks {
    /// Told what came to pass.
    pub callbacks: BTreeMap<Callback, CommandLine>,
    /// Asked whether a standby may be promoted.
    pub pre_promote: Option<CommandLine>,
    /// Run before a server is asked to stop.
    pub before_stop: Option<CommandLine>,
}
