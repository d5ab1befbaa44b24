//! The command line for operators: Patroni's `patronictl`, and `why`.
//!
//! It reads the store itself (linearizably) and asks members through their REST API. Texts, prompts, formats and exit
//! codes are Patroni's (spec 3), since scripts know them.

mod args;
mod config;
mod console;
mod diff;
mod edit;
mod execute;
mod flush;
mod format;
pub(crate) mod login;
mod members;
mod pause;
pub(crate) mod pgpass;
mod query;
mod relocate;
mod remove;
mod screen;
mod settings;
mod show;
mod table;
#[cfg(test)]
mod tests;
mod version;
pub(crate) mod why;

use std::io::{BufReader, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser};
use hyper::Method;

use crate::api::{ClusterRead, read_cluster};
use crate::clock;
use crate::http::{Client, HttpError};
use crate::net::Connector;
use crate::store::EtcdStore;
use crate::tls::{self, ClientSlot};
pub use args::*;
use console::Console;
use format::Format;
use settings::Settings;

/// How long the store may take to answer. Then the command fails, and names what it tried.
const STORE_LIMIT: Duration = Duration::from_secs(5);
/// How long it may take to connect to a member, whose answer to a restart may take hours.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// `patronictl`, or `matriarch` with one of its commands.
#[derive(Parser, Clone, Debug)]
#[command(name = "matriarch", version, about = "Look at and operate a cluster")]
pub struct CtlArgs {
    /// What all commands have in common.
    #[command(flatten)]
    pub options: CtlOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: CtlCommand,
}

/// What all commands have in common.
#[derive(Args, Clone, Debug, Default)]
pub struct CtlOptions {
    /// Configuration file; the agent's own will do [default: ~/.config/patroni/patronictl.yaml]
    #[arg(short, long, global = true, env = "PATRONICTL_CONFIG_FILE", value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// The store: [etcd3://]HOST[:PORT][,HOST...][/NAMESPACE]
    #[arg(short, long, global = true, alias = "dcs", env = "DCS_URL", value_name = "URL")]
    pub dcs_url: Option<String>,
    /// Allow connections to a REST API whose certificate cannot be verified
    #[arg(short = 'k', long, global = true)]
    pub insecure: bool,
}

impl CtlOptions {
    /// `query` has `-c` and `-d` of its own, so it takes these by their long names only.
    fn take_over(&mut self, query: &QueryArgs) {
        self.config_file = query.config_file.clone().or(self.config_file.take());
        self.dcs_url = query.dcs_url.clone().or(self.dcs_url.take());
    }
}

/// Why a command ends.
#[derive(Clone, PartialEq, Eq, Debug)]
enum CtlError {
    /// `Error: text`, status 1.
    Failed(String),
    /// The command was not written as it must be: `Error: text`, status 2.
    Usage(String),
    /// A prompt was left: `Aborted!`, status 1.
    Aborted,
}

impl From<std::io::Error> for CtlError {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(format!("cannot write the output: {error}"))
    }
}

fn failed<T>(text: impl Into<String>) -> Result<T, CtlError> {
    Err(CtlError::Failed(text.into()))
}

/// Runs a command. Returns the exit status: 0, or 1 with one line on standard error. Must not be called within a tokio
/// runtime.
pub fn run(args: CtlArgs) -> i32 {
    let mut input = BufReader::new(std::io::stdin());
    let mut output = anstream::stdout();
    let console = Console::new(&mut input, &mut output, std::io::stdout().is_terminal());
    let outcome = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(execute_with(args, console, crate::config::environment())),
        Err(error) => failed(format!("cannot start the runtime: {error}")),
    };
    match outcome {
        Ok(()) => 0,
        // Whoever reads our output has seen enough.
        Err(CtlError::Failed(text)) if text.contains("Broken pipe") => 0,
        Err(CtlError::Failed(text)) => {
            let _ = writeln!(std::io::stderr(), "Error: {text}");
            1
        }
        Err(CtlError::Usage(text)) => {
            let _ = writeln!(std::io::stderr(), "Error: {text}");
            2
        }
        Err(CtlError::Aborted) => {
            let _ = writeln!(std::io::stderr(), "Aborted!");
            1
        }
    }
}

async fn execute_with(
    mut args: CtlArgs,
    mut console: Console<'_>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<(), CtlError> {
    if let Some(group) = args.command.group() {
        return failed(format!(
            "Citus groups are not supported, so --group {group} cannot be done; without --group the whole cluster is meant"
        ));
    }
    match &args.command {
        // It may be asked where there is no store.
        CtlCommand::Version { cluster: None, .. } => return console.line(&version::own()),
        CtlCommand::Query(query) => args.options.take_over(query),
        _ => {}
    }
    let settings = Settings::load(&args.options, env)?;
    let to_store = Connector::tcp(STORE_LIMIT / 3);
    let to_store = match &settings.store_tls {
        Some(tls) => to_store.over_tls(ClientSlot::new(tls.clone())),
        None => to_store,
    };
    let store = EtcdStore::new(settings.hosts.clone(), settings.store_login.clone(), to_store);
    let ctl = Ctl { settings, store, console };
    match args.command {
        CtlCommand::List(list) => show::list(ctl, list).await,
        CtlCommand::Topology { clusters, watch, .. } => show::topology(ctl, &clusters, watch).await,
        CtlCommand::Switchover(request) => relocate::switchover(ctl, request).await,
        CtlCommand::Failover(request) => relocate::failover(ctl, request).await,
        CtlCommand::Restart(restart) => execute::restart(ctl, restart).await,
        CtlCommand::Reinit(reinit) => execute::reinit(ctl, reinit).await,
        CtlCommand::History { cluster, format, .. } => show::history(ctl, cluster, format).await,
        CtlCommand::Dsn(dsn) => query::dsn(ctl, dsn).await,
        CtlCommand::Query(query) => query::query(ctl, query).await,
        CtlCommand::Reload(reload) => execute::reload(ctl, reload).await,
        CtlCommand::Flush(flush) => flush::flush(ctl, flush).await,
        CtlCommand::Pause(args) => pause::pause(ctl, args).await,
        CtlCommand::Resume(args) => pause::resume(ctl, args).await,
        CtlCommand::Remove { cluster, format, .. } => remove::remove(ctl, &cluster, format).await,
        CtlCommand::Version { cluster, members, .. } => {
            version::of_members(ctl, &cluster.unwrap_or_default(), &members).await
        }
        CtlCommand::DemoteCluster(args) => pause::demote_cluster(&args),
        CtlCommand::PromoteCluster { .. } => pause::promote_cluster(),
        CtlCommand::EditConfig(edit) => config::edit(ctl, edit).await,
        CtlCommand::ShowConfig { cluster, .. } => config::show(ctl, cluster).await,
        CtlCommand::Why { member, cluster, format } => why::why(ctl, cluster, member, format).await,
    }
}

/// A command under way.
struct Ctl<'a> {
    settings: Settings,
    store: EtcdStore,
    console: Console<'a>,
}

impl Ctl<'_> {
    /// The cluster that was named, or that the configuration names.
    fn cluster_name(&self, named: Option<String>) -> Result<String, CtlError> {
        let name = named.or_else(|| self.settings.scope.clone());
        name.map_or_else(|| failed("No cluster was named, and the configuration has no scope"), Ok)
    }

    /// The way to the REST APIs of members. The files of certificates are read for it, unless no URL needs them.
    fn members(&self, api_url: &str) -> Result<Client, HttpError> {
        let connector = Connector::tcp(CONNECT_LIMIT);
        if !api_url.starts_with("https:") {
            return Ok(Client::new(connector));
        }
        let tls = tls::Client::load(self.settings.members_tls.clone());
        let tls = tls.map_err(|why| HttpError::Url { url: api_url.to_owned(), why: why.to_string() })?;
        Ok(Client::with_tls(connector, ClientSlot::new(tls)))
    }

    /// Reads a cluster.
    async fn read(&self, name: &str) -> Result<ClusterRead, CtlError> {
        let read = read_cluster(&self.store, &self.settings.namespace, name, STORE_LIMIT).await;
        read.map_err(|why| {
            let hosts = self.settings.hosts.join(", ");
            CtlError::Failed(format!(
                "{why}\ntried: {hosts}; check that the store runs and that -d or section etcd3 names it"
            ))
        })
    }

    /// Asks a member's REST API, once.
    async fn request(
        &self,
        method: Method,
        url: &str,
        body: Option<String>,
        limit: Duration,
    ) -> Result<(u16, String), HttpError> {
        self.members(url)?.request(method, url, self.settings.auth.as_ref(), body, limit).await
    }

    /// Prints the members as `list` does.
    fn show_members(&mut self, name: &str, cluster: &ClusterRead) -> Result<(), CtlError> {
        let text = members::render(name, cluster, Format::Pretty, false);
        self.console.print(&text)
    }
}

/// `2026-11-22 18:59:36.50628`: the local time of a result.
fn timestamp() -> String {
    local_time("%Y-%m-%d %H:%M:%S.%5f", Duration::ZERO)
}

/// The local time, shifted into the future.
fn local_time(pattern: &str, ahead: Duration) -> String {
    let ahead_ms = i64::try_from(ahead.as_millis()).unwrap_or(0);
    let at = jiff::Timestamp::from_millisecond(clock::wall().0.saturating_add(ahead_ms));
    at.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_zoned(jiff::tz::TimeZone::system()).strftime(pattern).to_string()
}
