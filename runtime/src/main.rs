//! The `matriarch` command. Called as `patroni` it is the agent, called as `patronictl` the cluster client.

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use matriarch::agent::run::{self, Options};
use matriarch::guard::GuardArgs;
use matriarch::store::embedded::StoreArgs;
use matriarch::wire::PATRONI_LEVEL;
use matriarch::{config, ctl, demo, generate, guard, init, store};

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
        /// Print the configuration, with the environment over it and without passwords, if nothing is wrong with it
        #[arg(short, long)]
        print: bool,
    },
    /// Write the configuration of one node, to be filled in
    GenerateSampleConfig {
        /// The file to write, for its owner only [default: standard output]
        file: Option<PathBuf>,
    },
    /// Write the configuration of a PostgreSQL that runs on this host
    GenerateConfig {
        /// The file to write, for its owner only [default: standard output]
        file: Option<PathBuf>,
        /// How a superuser connects, as libpq has it; the variables PGHOST, PGPORT, PGUSER, PGPASSWORD, ... say the rest
        #[arg(long)]
        dsn: Option<String>,
    },
    /// Print a JSON Schema of the configuration file, by which editors complete and check it
    Schema,
    #[command(flatten)]
    Ctl(ctl::CtlCommand),
    /// Print what a shell needs to complete the words of this program
    Completions {
        /// The shell
        shell: clap_complete::Shell,
        /// The name under which it is called
        #[arg(long, value_parser = ["matriarch", "patronictl"], default_value = "matriarch")]
        name: String,
    },
    /// Write the manual pages, of the same text as `--help`, into a directory
    #[command(hide = true)]
    Man {
        /// The directory, which must exist
        directory: PathBuf,
    },
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

/// Patroni's own command line. Scripts compare the version with what they need: it is the one that is spoken.
#[derive(Parser)]
#[command(name = "patroni", version = PATRONI_LEVEL)]
#[command(about = concat!("Patroni's command line, served by Matriarch ", env!("CARGO_PKG_VERSION")))]
struct AsPatroni {
    /// The configuration file or directory
    configfile: Option<PathBuf>,
    /// Check the configuration and exit
    #[arg(long, group = "mode")]
    validate_config: bool,
    /// Write a sample of a configuration and exit
    #[arg(long, group = "mode")]
    generate_sample_config: bool,
    /// Write the configuration of a PostgreSQL that runs on this host and exit
    #[arg(long, group = "mode")]
    generate_config: bool,
    /// How a superuser connects to the PostgreSQL that is the source of a configuration
    #[arg(long)]
    dsn: Option<String>,
    /// Taken as Patroni does: whether ports are free is not looked at
    #[arg(short, long)]
    ignore_listen_port: bool,
    /// Print the configuration, with the environment over it and without passwords, if nothing is wrong with it
    #[arg(short, long)]
    print: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let called = arguments.first().map(Path::new).and_then(Path::file_name).unwrap_or_default().to_owned();
    if called == "patronictl" {
        return client(ctl::CtlArgs::parse());
    }
    if called == "patroni" {
        return match AsPatroni::try_parse() {
            Ok(arguments) => as_patroni(arguments),
            Err(error) => {
                if error.kind() == clap::error::ErrorKind::DisplayVersion {
                    // Standard output is Patroni's alone.
                    anstream::eprintln!("served by Matriarch {}", env!("CARGO_PKG_VERSION"));
                }
                error.exit()
            }
        };
    }
    let cli = Cli::parse_from(with_run(arguments));
    match cli.command {
        Verb::Ctl(command) => client(ctl::CtlArgs { options: cli.options, command }),
        verb => code(dispatch(verb)),
    }
}

/// `matriarch FILE` means `matriarch run FILE`: a first argument that is no command, and that is there or reads like a
/// path. A file that is missing is then what is complained about, not a command that nobody meant.
fn with_run(mut arguments: Vec<OsString>) -> Vec<OsString> {
    use clap::CommandFactory;
    let first = arguments.get(1).and_then(|argument| argument.to_str()).map(str::to_owned);
    let is_command = |name: &str| Cli::command().get_subcommands().any(|known| known.get_name() == name);
    if first.as_deref().is_some_and(|first| {
        let path = Path::new(first);
        let reads_like_a_path =
            first.contains('/') || path.extension().is_some_and(|end| end == "yml" || end == "yaml");
        !first.starts_with('-') && first != "help" && !is_command(first) && (reads_like_a_path || path.exists())
    }) {
        arguments.insert(1, "run".into());
    }
    arguments
}

fn as_patroni(arguments: AsPatroni) -> ExitCode {
    let file = arguments.configfile.as_deref();
    if arguments.validate_config {
        return validate(file, arguments.print);
    }
    if arguments.generate_sample_config {
        return code(generate::sample(file).map(|()| 0));
    }
    if arguments.generate_config {
        return code(generate::running(file, arguments.dsn.as_deref()).map(|()| 0));
    }
    code(agent(&Options { file: arguments.configfile, user: None }))
}

/// The agent; in a container, where it would be the first process, below one that is.
fn agent(options: &Options) -> anyhow::Result<u8> {
    if init::is_first() {
        return init::run();
    }
    init::unblock()?;
    run::run(options)
}

fn dispatch(verb: Verb) -> anyhow::Result<u8> {
    match verb {
        Verb::Run(arguments) => agent(&Options { file: arguments.file, user: arguments.user }),
        Verb::Demo(arguments) => demo::run(&arguments),
        Verb::Store(arguments) => store::embedded::run(&arguments).map(|()| 0),
        Verb::ValidateConfig { file, print } => Ok(u8::from(validate(Some(&file), print) != ExitCode::SUCCESS)),
        Verb::GenerateSampleConfig { file } => generate::sample(file.as_deref()).map(|()| 0),
        Verb::GenerateConfig { file, dsn } => generate::running(file.as_deref(), dsn.as_deref()).map(|()| 0),
        Verb::Schema => printed(&serde_json::to_string_pretty(&config::json_schema())?).map(|()| 0),
        Verb::Completions { shell, name } => completions(shell, &name).map(|()| 0),
        Verb::Man { directory } => manual(&directory).map(|()| 0),
        Verb::Ctl(_) => unreachable!("the client has its own exit codes"),
        Verb::Guard(arguments) => guard::run(arguments).map(|()| 0),
        Verb::Release { tenure, file } => run::release(file.as_deref(), tenure),
    }
}

/// Written to memory first: what generates it has no answer to a reader that has seen enough.
fn completions(shell: clap_complete::Shell, name: &str) -> anyhow::Result<()> {
    use clap::CommandFactory;
    let mut command = if name == "patronictl" { ctl::CtlArgs::command() } else { Cli::command() };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}

/// A page for each command, under both names that scripts know.
fn manual(directory: &Path) -> anyhow::Result<()> {
    use clap::CommandFactory;
    for command in [Cli::command(), AsPatroni::command(), ctl::CtlArgs::command().name("patronictl")] {
        clap_mangen::generate_to(command, directory)?;
    }
    Ok(())
}

fn client(arguments: ctl::CtlArgs) -> ExitCode {
    ExitCode::from(u8::try_from(ctl::run(arguments)).unwrap_or(1))
}

fn printed(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

fn validate(file: Option<&Path>, print: bool) -> ExitCode {
    match config::validate(file, config::environment()) {
        Ok(merged) if print => code(printed(config::to_yaml(&merged).trim_end()).map(|()| 0)),
        Ok(_) => ExitCode::SUCCESS,
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
        // Whoever reads our output has seen enough.
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            anstream::eprintln!("matriarch: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(words: &[&str]) -> Vec<String> {
        let arguments = with_run(words.iter().map(OsString::from).collect());
        arguments.into_iter().map(|argument| argument.into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_run_even_if_it_is_missing() {
        for file in ["/missing.yml", "missing.yaml", "./missing", "/"] {
            assert_eq!(completed(&["matriarch", file]), ["matriarch", "run", file]);
        }
        for words in [&["matriarch", "list"][..], &["matriarch", "lsit"], &["matriarch", "--help"], &["matriarch"]] {
            assert_eq!(completed(words), words);
        }
    }

    #[test]
    fn every_command_is_written_without_a_clash_of_options() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        ctl::CtlArgs::command().debug_assert();
        let cli = Cli::parse_from(["matriarch", "-c", "file.yml", "query", "-c", "SELECT 1", "-d", "db", "demo"]);
        assert_eq!(cli.options.config_file, Some("file.yml".into()));
        let Verb::Ctl(ctl::CtlCommand::Query(query)) = cli.command else { panic!("another command") };
        assert_eq!((query.command.as_deref(), query.dbname.as_deref()), (Some("SELECT 1"), Some("db")));
    }

    #[test]
    fn patronis_version_is_the_one_that_is_spoken() {
        let error = AsPatroni::try_parse_from(["patroni", "--version"]).err().unwrap();
        assert_eq!(error.to_string(), format!("patroni {PATRONI_LEVEL}\n"));
        assert_eq!(error.exit_code(), 0);
    }

    #[test]
    fn patronis_modes_exclude_each_other() {
        for words in
            [&["--validate-config", "--generate-config"][..], &["--generate-sample-config", "--generate-config"]]
        {
            let error = AsPatroni::try_parse_from(["patroni"].iter().chain(words)).err().unwrap();
            assert_eq!(error.exit_code(), 2, "{words:?}");
        }
        let parsed = AsPatroni::try_parse_from(["patroni", "--validate-config", "-i", "-p", "file.yml"]).unwrap();
        assert!(parsed.validate_config && parsed.ignore_listen_port && parsed.print);
    }

    #[test]
    fn every_command_has_a_page_of_the_manual() {
        let directory = tempfile::tempdir().unwrap();
        manual(directory.path()).unwrap();
        for page in ["matriarch", "matriarch-run", "matriarch-switchover", "patroni", "patronictl", "patronictl-list"] {
            let text = std::fs::read_to_string(directory.path().join(page).with_extension("1")).unwrap();
            assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{page}: {text}");
        }
        let page = std::fs::read_to_string(directory.path().join("matriarch-generate-config.1")).unwrap();
        assert!(page.contains("How a superuser connects"), "{page}");
        assert!(!directory.path().join("matriarch-guard.1").exists(), "the agent's own");
    }
}
