//! What the operator has run at the events of PostgreSQL's life.

use super::Build;
use crate::config::check::join;
use crate::hooks::{Callback, CommandLine, Hooks};

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
        }
    }

    /// A command; nothing if there is none, or an empty one.
    fn command(&mut self, path: &str) -> Option<CommandLine> {
        match CommandLine::parse(self.text(path)?) {
            Ok(command) => command,
            Err(why) => {
                self.refuse(path, format!("this is no command: {why}"));
                None
            }
        }
    }
}
