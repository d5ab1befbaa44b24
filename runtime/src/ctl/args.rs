//! The commands and their options, as they are written.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::format::Format;
use super::members::Role;

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
    /// Print how to connect to a member; by default to the leader
    Dsn(DsnArgs),
    /// Run SQL on a member
    Query(QueryArgs),
    /// Have members read their configuration files again
    Reload(ReloadArgs),
    /// Take scheduled restarts or a scheduled switchover back
    Flush(FlushArgs),
    /// Stop managing the cluster until `resume`
    Pause(PauseArgs),
    /// Manage the cluster again
    Resume(PauseArgs),
    /// Remove everything that the store has of a cluster
    Remove {
        /// The cluster
        cluster: String,
        /// Output format of the table of members
        #[arg(short, long, value_enum, default_value_t = Format::Pretty)]
        format: Format,
        /// Patroni's option for Citus
        #[command(flatten)]
        citus: CitusArgs,
    },
    /// Show the version of this program, and of the members of a cluster
    Version {
        /// The cluster [default: none]
        cluster: Option<String>,
        /// Members [default: all]
        members: Vec<String>,
        /// Patroni's option for Citus
        #[command(flatten)]
        citus: CitusArgs,
    },
    /// Make the cluster the standby of another (not built yet)
    DemoteCluster(DemoteClusterArgs),
    /// Make a standby cluster stand alone (not built yet)
    PromoteCluster {
        /// The cluster [default: `scope` of the configuration]
        cluster: Option<String>,
        /// Ask nothing
        #[arg(long)]
        force: bool,
    },
    /// Change the dynamic configuration
    EditConfig(EditConfigArgs),
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
    pub(super) fn group(&self) -> Option<u32> {
        let citus = match self {
            Self::List(ListArgs { citus, .. })
            | Self::Topology { citus, .. }
            | Self::Switchover(SwitchoverArgs { citus, .. })
            | Self::Failover(FailoverArgs { citus, .. })
            | Self::Restart(RestartArgs { citus, .. })
            | Self::Reinit(ReinitArgs { citus, .. })
            | Self::History { citus, .. }
            | Self::Dsn(DsnArgs { citus, .. })
            | Self::Query(QueryArgs { citus, .. })
            | Self::Reload(ReloadArgs { citus, .. })
            | Self::Flush(FlushArgs { citus, .. })
            | Self::Pause(PauseArgs { citus, .. })
            | Self::Resume(PauseArgs { citus, .. })
            | Self::Remove { citus, .. }
            | Self::Version { citus, .. }
            | Self::EditConfig(EditConfigArgs { citus, .. })
            | Self::ShowConfig { citus, .. } => citus,
            Self::DemoteCluster(_) | Self::PromoteCluster { .. } | Self::Why { .. } => return None,
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

impl WatchArgs {
    /// The time from one output to the next; `None`: there is one only.
    pub(super) fn pause(self) -> Option<Duration> {
        let seconds = self.watch.filter(|seconds| *seconds != 0.0).or(self.repeat.then_some(2.0))?;
        Duration::try_from_secs_f64(seconds.clamp(0.1, 86_400.0)).ok()
    }
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
    #[arg(short, long, value_enum, default_value_t = Role::Any)]
    pub role: Role,
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

/// `dsn`.
#[derive(Args, Clone, Debug, Default)]
pub struct DsnArgs {
    /// The cluster [default: `scope` of the configuration]
    pub cluster: Option<String>,
    /// Any member with this role
    #[arg(short, long, value_enum)]
    pub role: Option<Role>,
    /// This member
    #[arg(short, long, value_name = "NAME")]
    pub member: Option<String>,
    /// Patroni's option for Citus
    #[command(flatten)]
    pub citus: CitusArgs,
}

/// `query`. Its `-c` and `-d` are Patroni's, and not those that stand before a command.
#[derive(Args, Clone, Debug)]
pub struct QueryArgs {
    /// The cluster [default: `scope` of the configuration]
    pub cluster: Option<String>,
    /// Any member with this role
    #[arg(short, long, value_enum)]
    pub role: Option<Role>,
    /// This member
    #[arg(short, long, value_name = "NAME")]
    pub member: Option<String>,
    /// The SQL
    #[arg(short, long, value_name = "SQL")]
    pub command: Option<String>,
    /// A file with the SQL; - is standard input
    #[arg(short, long)]
    pub file: Option<PathBuf>,
    /// The database [default: PGDATABASE, or the user's name]
    #[arg(short, long, value_name = "NAME")]
    pub dbname: Option<String>,
    /// The user [default: PGUSER, or the name of this account]
    #[arg(short = 'U', long, value_name = "NAME")]
    pub username: Option<String>,
    /// Ask for the password [default: PGPASSWORD, or the file PGPASSFILE, or ~/.pgpass]
    #[arg(long)]
    pub password: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Tsv)]
    pub format: Format,
    /// What stands between the columns of tsv
    #[arg(long, default_value = "\t", hide_default_value = true)]
    pub delimiter: String,
    /// Repetition
    #[command(flatten)]
    pub watch: WatchArgs,
    /// Patroni's option for Citus
    #[command(flatten)]
    pub citus: CitusArgs,
    /// As before the command, where it is also called -c
    #[arg(long, hide = true)]
    pub config_file: Option<PathBuf>,
    /// As before the command, where it is also called -d
    #[arg(long, alias = "dcs", hide = true)]
    pub dcs_url: Option<String>,
}

/// `reload`.
#[derive(Args, Clone, Debug)]
pub struct ReloadArgs {
    /// The cluster
    pub cluster: String,
    /// Members [default: all with the role]
    pub members: Vec<String>,
    /// Only members with this role
    #[arg(short, long, value_enum, default_value_t = Role::Any)]
    pub role: Role,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
    /// Patroni's option for Citus
    #[command(flatten)]
    pub citus: CitusArgs,
}

/// `flush`.
#[derive(Args, Clone, Debug)]
#[command(override_usage = "flush [OPTIONS] <CLUSTER> [MEMBER]... <restart|switchover>")]
pub struct FlushArgs {
    /// The cluster
    pub cluster: String,
    /// Members [default: all with the role], and what to take back: restart or switchover
    #[arg(required = true, value_name = "MEMBER|restart|switchover")]
    pub members_and_target: Vec<String>,
    /// Only members with this role
    #[arg(short, long, value_enum, default_value_t = Role::Any)]
    pub role: Role,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
    /// Patroni's option for Citus
    #[command(flatten)]
    pub citus: CitusArgs,
}

/// `pause` and `resume`.
#[derive(Args, Clone, Debug, Default)]
pub struct PauseArgs {
    /// The cluster [default: `scope` of the configuration]
    pub cluster: Option<String>,
    /// Wait until all members know
    #[arg(long)]
    pub wait: bool,
    /// Patroni's option for Citus
    #[command(flatten)]
    pub citus: CitusArgs,
}

/// `demote-cluster`.
#[derive(Args, Clone, Debug, Default)]
pub struct DemoteClusterArgs {
    /// The cluster [default: `scope` of the configuration]
    pub cluster: Option<String>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
    /// The primary to follow
    #[arg(long)]
    pub host: Option<String>,
    /// Its port
    #[arg(long)]
    pub port: Option<u16>,
    /// How to fetch WAL from its archive
    #[arg(long, value_name = "COMMAND")]
    pub restore_command: Option<String>,
    /// The slot to use there
    #[arg(long, value_name = "NAME")]
    pub primary_slot_name: Option<String>,
}

/// `edit-config`.
#[derive(Args, Clone, Debug, Default)]
pub struct EditConfigArgs {
    /// The cluster [default: `scope` of the configuration]
    pub cluster: Option<String>,
    /// Do not show what changes
    #[arg(short, long)]
    pub quiet: bool,
    /// Set a value, written as YAML; null removes it
    #[arg(short, long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Set a parameter of PostgreSQL
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub pg: Vec<String>,
    /// Lay this YAML over what is there; - is standard input
    #[arg(long, value_name = "FILE")]
    pub apply: Option<PathBuf>,
    /// Put this YAML in the place of what is there; - is standard input
    #[arg(long, value_name = "FILE")]
    pub replace: Option<PathBuf>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
    /// Patroni's option for Citus
    #[command(flatten)]
    pub citus: CitusArgs,
}
