//! The `matriarch` command. Called as `patroni` it is the agent, called as `patronictl` the cluster client.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use matriarch::agent::run::{self, Options};
use matriarch::guard::GuardArgs;
use matriarch::store::embedded::StoreArgs;
use matriarch::{config, ctl, demo, guard, store};

/// High availability for PostgreSQL: one agent a node, one lease, one primary.
#[derive(Parser)]
#[command(name = "matriarch", version, about, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    options: ctl::CtlOptions,
    #[command(subcommand)]
    command: Verb,
}

const AFTER_HELP: &str = "\
`matriarch FILE` is short for `matriarch run FILE`. Called under the name `patroni` it takes Patroni's arguments, and
under `patronictl` the commands of the cluster client.";

#[derive(Subcommand)]
enum Verb {
    /// Run the agent of one node
    Run(RunArgs),
    /// Start a three-node cluster here and watch it fail and go on
    Demo(demo::DemoArgs),
    /// Run the embedded store: one server for one machine, speaking etcd's protocol
    Store(StoreArgs),
    /// Check a configuration as strictly as can be
    ValidateConfig {
        /// The configuration file or directory
        file: PathBuf,
    },
    #[command(flatten)]
    Ctl(ctl::CtlCommand),
    /// Guard one PostgreSQL for an agent (started by the agent itself)
    #[command(hide = true)]
    Guard(GuardArgs),
    /// Give a tenure back whose PostgreSQL is dead (run by the guard itself)
    #[command(hide = true)]
    Release {
        /// The lease of the tenure
        #[arg(long, allow_negative_numbers = true)]
        tenure: i64,
        /// The configuration file or directory
        file: Option<PathBuf>,
    },
}

#[derive(clap::Args)]
struct RunArgs {
    /// The configuration file or directory (Patroni's YAML); without it PATRONI_CONFIGURATION is the text
    file: Option<PathBuf>,
    /// The account to run PostgreSQL as when started as root
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

/// Patroni's own command line.
#[derive(Parser)]
#[command(name = "patroni", version = env!("CARGO_PKG_VERSION"), about = "Patroni's command line, served by Matriarch")]
struct AsPatroni {
    /// The configuration file or directory
    configfile: Option<PathBuf>,
    /// Check the configuration and exit
    #[arg(long)]
    validate_config: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let called = arguments.first().map(Path::new).and_then(Path::file_name).unwrap_or_default().to_owned();
    if called == "patronictl" {
        return client(ctl::CtlArgs::parse());
    }
    if called == "patroni" {
        return as_patroni(AsPatroni::parse());
    }
    let cli = Cli::parse_from(with_run(arguments));
    match cli.command {
        Verb::Ctl(command) => client(ctl::CtlArgs { options: cli.options, command }),
        verb => code(dispatch(verb)),
    }
}

/// `matriarch FILE` means `matriarch run FILE`: a first argument that names an existing file and no command.
fn with_run(mut arguments: Vec<OsString>) -> Vec<OsString> {
    use clap::CommandFactory;
    let first = arguments.get(1).and_then(|argument| argument.to_str()).map(str::to_owned);
    let is_command = |name: &str| Cli::command().get_subcommands().any(|known| known.get_name() == name);
    if first.is_some_and(|first| {
        !first.starts_with('-') && first != "help" && !is_command(&first) && Path::new(&first).exists()
    }) {
        arguments.insert(1, "run".into());
    }
    arguments
}

fn as_patroni(arguments: AsPatroni) -> ExitCode {
    if arguments.validate_config {
        return validate(arguments.configfile.as_deref());
    }
    code(run::run(&Options { file: arguments.configfile, user: None }))
}

fn dispatch(verb: Verb) -> anyhow::Result<u8> {
    match verb {
        Verb::Run(arguments) => run::run(&Options { file: arguments.file, user: arguments.user }),
        Verb::Demo(arguments) => demo::run(&arguments),
        Verb::Store(arguments) => store::embedded::run(&arguments).map(|()| 0),
        Verb::ValidateConfig { file } => Ok(u8::from(validate(Some(&file)) != ExitCode::SUCCESS)),
        Verb::Ctl(_) => unreachable!("the client has its own exit codes"),
        Verb::Guard(arguments) => guard::run(arguments).map(|()| 0),
        Verb::Release { tenure, file } => run::release(file.as_deref(), tenure),
    }
}

fn client(arguments: ctl::CtlArgs) -> ExitCode {
    ExitCode::from(u8::try_from(ctl::run(arguments)).unwrap_or(1))
}

fn validate(file: Option<&Path>) -> ExitCode {
    match config::validate(file, std::env::vars()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(complaints) => {
            anstream::eprintln!("{complaints}");
            ExitCode::FAILURE
        }
    }
}

/// A mistake of the user's is one message, not a stack trace.
fn code(result: anyhow::Result<u8>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            anstream::eprintln!("matriarch: {error:#}");
            ExitCode::FAILURE
        }
    }
}
