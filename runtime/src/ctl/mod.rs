//! The command line for operators: Patroni's `patronictl`, and `why`.
//!
//! It reads the store itself (linearizably) and asks members through their REST API. Texts, prompts, formats and exit
//! codes are Patroni's (spec 3), since scripts know them.

mod console;
mod execute;
mod format;
mod members;
mod relocate;
mod settings;
mod show;
mod table;
#[cfg(test)]
mod tests;
mod why;

use std::io::{BufReader, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::api::{ClusterRead, read_cluster};
use crate::clock;
use crate::http::{Client, HttpError};
use crate::net::Connector;
use crate::store::EtcdStore;
use crate::tls::{self, ClientSlot};
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

/// The commands.
#[derive(Subcommand, Clone, Debug)]
pub enum CtlCommand {
    /// List the members of clusters
    List(ListArgs),
    /// Show the members as a tree: who replicates from whom
    Topology {
        /// Clusters [default: `scope` of the configuration]
        clusters: Vec<String>,
        /// Repetition
        #[command(flatten)]
        watch: WatchArgs,
        /// Patroni's option for Citus
        #[command(flatten)]
        citus: CitusArgs,
    },
    /// Hand leadership over from a running leader, now or later
    Switchover(SwitchoverArgs),
    /// Make a member the leader, even if there is none
    Failover(FailoverArgs),
    /// Restart PostgreSQL on members
    Restart(RestartArgs),
    /// Clone replicas again from the leader
    Reinit(ReinitArgs),
    /// Show which timelines ended where, and who led afterwards
    History {
        /// The cluster [default: `scope` of the configuration]
        cluster: Option<String>,
        /// Output format
        #[arg(short, long, value_enum, default_value_t = Format::Pretty)]
        format: Format,
        /// Patroni's option for Citus
        #[command(flatten)]
        citus: CitusArgs,
    },
    /// Show the dynamic configuration
    ShowConfig {
        /// The cluster [default: `scope` of the configuration]
        cluster: Option<String>,
        /// Patroni's option for Citus
        #[command(flatten)]
        citus: CitusArgs,
    },
    /// Explain what members do, and why
    Why {
        /// The member [default: each]
        member: Option<String>,
        /// The cluster [default: `scope` of the configuration]
        #[arg(long)]
        cluster: Option<String>,
        /// Output format: pretty, or json for everything there is
        #[arg(short, long, value_enum, default_value_t = Format::Pretty)]
        format: Format,
    },
}

impl CtlCommand {
    /// The Citus group that was asked for.
    fn group(&self) -> Option<u32> {
        let citus = match self {
            Self::List(ListArgs { citus, .. })
            | Self::Topology { citus, .. }
            | Self::Switchover(SwitchoverArgs { citus, .. })
            | Self::Failover(FailoverArgs { citus, .. })
            | Self::Restart(RestartArgs { citus, .. })
            | Self::Reinit(ReinitArgs { citus, .. })
            | Self::History { citus, .. }
            | Self::ShowConfig { citus, .. } => citus,
            Self::Why { .. } => return None,
        };
        citus.group
    }
}

/// What Patroni's commands take for a cluster of Citus. Scripts that give it hear why nothing is done, instead of a
/// complaint about an option they know.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct CitusArgs {
    /// A Citus group: not supported, the command is refused
    #[arg(long, value_name = "GROUP")]
    pub group: Option<u32>,
}

/// How often output is repeated.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct WatchArgs {
    /// Repeat every 2 seconds
    #[arg(short = 'W')]
    pub repeat: bool,
    /// Repeat every so many seconds
    #[arg(short, long, value_name = "SECONDS")]
    pub watch: Option<f64>,
}

/// `list`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Clusters [default: `scope` of the configuration]
    pub clusters: Vec<String>,
    /// Show all columns
    #[arg(short, long)]
    pub extended: bool,
    /// Print the time first
    #[arg(short, long)]
    pub timestamp: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Pretty)]
    pub format: Format,
    /// Repetition
    #[command(flatten)]
    pub watch: WatchArgs,
    /// Patroni's option for Citus
    #[command(flatten)]
    pub citus: CitusArgs,
}

/// `switchover`.
#[derive(Args, Clone, Debug, Default)]
pub struct SwitchoverArgs {
    /// The cluster [default: `scope` of the configuration]
    pub cluster: Option<String>,
    /// The leader as you know it
    #[arg(long, alias = "primary", value_name = "NAME")]
    pub leader: Option<String>,
    /// Who is to lead
    #[arg(long, value_name = "NAME")]
    pub candidate: Option<String>,
    /// When: ISO 8601, or `now`
    #[arg(long, value_name = "TIME")]
    pub scheduled: Option<String>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
    /// Patroni's option for Citus
    #[command(flatten)]
    pub citus: CitusArgs,
}

/// `failover`. It is done at once, whoever leads: it has no time and no leader to name.
#[derive(Args, Clone, Debug, Default)]
pub struct FailoverArgs {
    /// The cluster [default: `scope` of the configuration]
    pub cluster: Option<String>,
    /// Who is to lead
    #[arg(long, value_name = "NAME")]
    pub candidate: Option<String>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
    /// Patroni's option for Citus
    #[command(flatten)]
    pub citus: CitusArgs,
}

/// `restart`.
#[derive(Args, Clone, Debug)]
pub struct RestartArgs {
    /// The cluster
    pub cluster: String,
    /// Members [default: all with the role]
    pub members: Vec<String>,
    /// Only members with this role
    #[arg(short, long, value_enum, default_value_t = members::Role::Any)]
    pub role: members::Role,
    /// Only one of them, any
    #[arg(long)]
    pub any: bool,
    /// When: ISO 8601, or `now`
    #[arg(long, value_name = "TIME")]
    pub scheduled: Option<String>,
    /// Only where PostgreSQL is older than this
    #[arg(long, value_name = "VERSION")]
    pub pg_version: Option<String>,
    /// Only where a change waits for a restart
    #[arg(long)]
    pub pending: bool,
    /// Give up after so long (a number of seconds, or with a unit)
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
    /// Patroni's option for Citus
    #[command(flatten)]
    pub citus: CitusArgs,
}

/// `reinit`.
#[derive(Args, Clone, Debug)]
pub struct ReinitArgs {
    /// The cluster
    pub cluster: String,
    /// Replicas
    pub members: Vec<String>,
    /// Ask nothing, and cancel what runs
    #[arg(long)]
    pub force: bool,
    /// Clone from the leader, whatever else is there
    #[arg(long)]
    pub from_leader: bool,
    /// Wait until it is done
    #[arg(long)]
    pub wait: bool,
    /// Patroni's option for Citus
    #[command(flatten)]
    pub citus: CitusArgs,
}

/// Why a command ends.
#[derive(Clone, PartialEq, Eq, Debug)]
enum CtlError {
    /// `Error: text`, status 1.
    Failed(String),
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
    let console = Console::new(&mut input, &mut output);
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
        Err(CtlError::Aborted) => {
            let _ = writeln!(std::io::stderr(), "Aborted!");
            1
        }
    }
}

async fn execute_with(
    args: CtlArgs,
    console: Console<'_>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<(), CtlError> {
    if let Some(group) = args.command.group() {
        return failed(format!(
            "Citus groups are not supported, so --group {group} cannot be done; without --group the whole cluster is meant"
        ));
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
        CtlCommand::ShowConfig { cluster, .. } => show::config(ctl, cluster).await,
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
