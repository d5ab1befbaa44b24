//! The guard: a small process beside the agent that sees to it that PostgreSQL acknowledges nothing after the moment
//! its agent's authority ends, also when the agent is frozen or killed.
//!
//! [`run`] is the process itself: one thread that waits in `poll(2)` (and one that writes the log), no store, no TLS,
//! nothing that waits for a disk or a peer. [`connect_or_spawn`] is the agent's side.
//!
//! - While a tenure is armed and its `at` is reached, everything of the data directory is killed, whoever is alive or
//!   silent. Expiry is found by reading the clock, before every order and after every wait.
//! - The agent is *dead* (its pidfd says so, not its silence): after `restart_grace` without a new agent PostgreSQL is
//!   asked for a fast shutdown, killed at `at` regardless, and once nothing is alive the release command gives the
//!   tenure back.
//! - In strict mode a second process, its successor, knows what the guard knows and becomes the guard when it dies.
//! - The agent is alive and silent: only the fence at `at`. It may hold the lease yet, so nothing is released.

mod authority;
mod cgroup;
mod client;
mod connection;
mod fence;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod log;
mod pair;
mod protocol;
mod release;
mod server;
mod startup;
mod succession;
mod wishes;

use std::ffi::OsString;
use std::path::PathBuf;

pub use authority::Authority;
pub use client::{Finder, Finding, Guard, GuardOptions, Orders, connect_or_spawn};
pub use protocol::{Armed, Fired, Hello, Order, PROTOCOL, Report};
pub use startup::run;

/// Arguments of `matriarch guard`.
#[derive(Clone, Debug, clap::Args)]
pub struct GuardArgs {
    /// Directory for the guard's socket, lock and log.
    #[arg(long)]
    pub state_dir: PathBuf,
    /// PostgreSQL's data directory; it need not exist yet.
    #[arg(long)]
    pub data_dir: PathBuf,
    /// The user id of the agent; only it and root may give orders.
    #[arg(long)]
    pub agent_uid: u32,
    /// How long a dead agent is waited for before PostgreSQL is stopped, in milliseconds.
    #[arg(long, default_value_t = 5_000)]
    pub restart_grace_ms: u64,
    /// Start another process as the guard and return at once.
    #[arg(long)]
    pub detach: bool,
    /// What a guard hands to itself when it executes anew.
    #[arg(long, hide = true)]
    pub carried: Option<String>,
    /// The command, after `--`, that gives a tenure back; `{tenure}` in it is replaced.
    #[arg(last = true)]
    pub release_command: Vec<String>,
}

impl GuardArgs {
    /// The arguments as a command line, from the subcommand's name on.
    fn to_command_line(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["guard".into()];
        for (name, value) in [
            ("--state-dir", self.state_dir.clone().into_os_string()),
            ("--data-dir", self.data_dir.clone().into_os_string()),
            ("--agent-uid", self.agent_uid.to_string().into()),
            ("--restart-grace-ms", self.restart_grace_ms.to_string().into()),
        ] {
            words.extend([name.into(), value]);
        }
        words.extend(self.detach.then(|| "--detach".into()));
        if let Some(carried) = &self.carried {
            words.extend(["--carried".into(), carried.into()]);
        }
        if !self.release_command.is_empty() {
            words.push("--".into());
            words.extend(self.release_command.iter().map(OsString::from));
        }
        words
    }
}
