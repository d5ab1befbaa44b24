//! `matriarch run FILE`: from a configuration file to a running agent, and out again.

use std::io::ErrorKind::{NotFound, Unsupported};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use matriarch_core::op::Outcome;
use matriarch_core::view::postgres::Process;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::certificates::Slots;
use super::namesake::NAMESAKE_LIMIT;
use super::promises::Files;
use super::surroundings::{self, Surroundings};
use super::{Asked, Ended, setup, user};
use crate::aside;
use crate::clock;
use crate::config::local::GuardMode;
use crate::config::{self, DynamicConfig, LocalConfig};
use crate::guard::{Finder, GuardOptions};
use crate::net::{self, Connector, Listener};
use crate::postgres::tools::{self, SUPPORTED_MAJORS};
use crate::postgres::{self, Postgres, Settings, files, proc};
use crate::service::{self, ServiceManager};
use crate::store::EtcdStore;

/// How to run an agent.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file or directory.
    pub file: Option<PathBuf>,
    /// The account for PostgreSQL if started as root.
    pub user: Option<String>,
}

/// How long one attempt to connect to the store may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Runs an agent until it is told to leave; its exit code.
pub fn run(options: &Options) -> anyhow::Result<u8> {
    // Now: a binary that is replaced later is another file by that name, which is what to execute then.
    let program = std::env::current_exe().context("our own executable")?;
    let loaded = config::load(options.file.as_deref(), config::environment()).map_err(|error| anyhow!("{error}"))?;
    crate::logging::init(&loaded.config.log)?;
    for line in loaded.render_warnings().lines() {
        tracing::warn!("{line}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("the async runtime")?;
    let (options, config) = (options.clone(), loaded.config);
    // As a task: each wake-up of the future that is blocked on goes through the kernel.
    let agent = async { tokio::spawn(async move { Box::pin(live(&options, config)).await }).await };
    let ended = runtime.block_on(agent);
    // However it ended: a process without its loop that waits for a disk would pass for an agent.
    runtime.shutdown_timeout(Duration::from_millis(200));
    crate::logging::flush();
    match ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))? {
        Ended::Exit(code) => Ok(code),
        Ended::Again => {
            let error = Command::new(&program).args(std::env::args_os().skip(1)).exec();
            Err(error).with_context(|| format!("executing {} again", program.display()))
        }
    }
}

async fn live(options: &Options, local: LocalConfig) -> anyhow::Result<Ended> {
    let account = user::chosen(options.user.as_deref())?;
    let state_dir = setup::state_dir(&local);
    user::make_directory(&state_dir, account.as_ref())?;
    user::make_directory(&local.postgresql.data_dir, account.as_ref())?;
    let listen = local.restapi.listen.to_string();
    let listener = net::tcp_listen(&listen).await.map_err(|error| anyhow!("the REST API (restapi.listen): {error}"))?;

    let server_major = server_major(&local)?;
    let in_force = setup::in_force(&local.postgresql.data_dir);
    let dynamic = in_force.as_ref().unwrap_or(&local.bootstrap.dcs);
    let dynamic = DynamicConfig::from_json(dynamic).map_err(|why| anyhow!("bootstrap.dcs: {why}"))?;
    let effective = setup::effective(&local, &dynamic.0, dynamic.1, server_major);
    refuse_unusable(&effective.settings)?;

    let guard_options = guard_options(options, &local, &state_dir, account.as_ref())?;
    // As root, if the agent is: then no process of PostgreSQL's account can stop the guard.
    let finder = Finder::of(guard_options);
    let found = match finder.find().await {
        Ok(found) => Some(found),
        Err(error) if goes_unguarded(&local.postgresql.data_dir, &error) => None,
        Err(error) => return Err(error).context("starting the guard"),
    };
    if let Some(account) = &account {
        postgres::cgroup::prepare(&local.postgresql.data_dir);
        // As for any account, a log that cannot be had keeps no agent from starting.
        if let Some(directory) = &local.log.dir
            && let Err(error) = user::make_directory(directory, Some(account))
        {
            tracing::warn!("log.dir: {error:#}");
        }
        user::become_user(account)?;
    }
    // As the account, which has to be able to open it again, and is not to be given what it could not open itself.
    crate::logging::change(&local.log);

    let (asked, asked_out) = mpsc::channel(8);
    spawn_signals(&asked)?;
    let file = options.file.clone();
    let around = Surroundings {
        clock: clock::host(),
        connector: Connector::tcp(CONNECT_LIMIT),
        listener: Listener::tcp(listener),
        postgres: Arc::new(Postgres::new(effective.settings)),
        promises: Arc::new(Files::new(&state_dir)),
        in_force,
        guard: finder,
        asked: asked_out,
        service: ServiceManager::at(std::env::var_os(service::SOCKET)),
        reload: Box::new(move || {
            let file = file.clone();
            Box::pin(aside::look(move || reload(file.as_deref())))
        }),
    };
    surroundings::live(around, local, effective.core, server_major, found).await
}

/// What runs there may write, and nobody but this agent could end it: it is not the time to leave. Core stops what may not
/// write without a guard, and asks for one again. A guard that is there and wants nothing of this agent does that itself.
///
/// The race: the host has no memory or space left, which ends agent and guard and lets no other guard start.
fn goes_unguarded(data_dir: &Path, error: &std::io::Error) -> bool {
    let unread = std::fs::read(data_dir.join("postmaster.pid")).is_err_and(|error| error.kind() != NotFound);
    if error.kind() == Unsupported || (!unread && proc::observe(data_dir) == Process::Absent) {
        return false;
    }
    tracing::error!(%error, "the guard cannot be started, and PostgreSQL runs: the agent goes on without one");
    true
}

/// The file is read again; a file that cannot be used changes nothing.
fn reload(file: Option<&Path>) -> Option<LocalConfig> {
    match config::load(file, config::environment()) {
        Ok(loaded) => {
            for line in loaded.render_warnings().lines() {
                tracing::warn!("{line}");
            }
            Some(loaded.config)
        }
        Err(error) => {
            tracing::error!("the configuration cannot be used, the old one stays: {error}");
            None
        }
    }
}

fn guard_options(
    options: &Options,
    local: &LocalConfig,
    state_dir: &Path,
    account: Option<&nix::unistd::User>,
) -> anyhow::Result<GuardOptions> {
    let exe = std::env::current_exe().context("our own executable")?;
    let mut release_command = vec![exe.display().to_string(), "release".into(), "--tenure".into(), "{tenure}".into()];
    if let Some(file) = &options.file {
        release_command.push(std::path::absolute(file)?.display().to_string());
    }
    Ok(GuardOptions {
        exe,
        state_dir: state_dir.to_owned(),
        data_dir: local.postgresql.data_dir.clone(),
        agent_uid: account.map_or_else(|| nix::unistd::Uid::effective().as_raw(), |user| user.uid.as_raw()),
        restart_grace: local.matriarch.restart_grace,
        release_command,
        strict: local.matriarch.guard == GuardMode::Strict,
    })
}

/// Without its programs and its port PostgreSQL will not run, and that is better known before anything is done for it.
fn refuse_unusable(settings: &Settings) -> anyhow::Result<()> {
    for program in ["postgres", "initdb", "pg_basebackup", "pg_controldata"] {
        tools::locate(settings, program).map_err(|why| anyhow!(why))?;
    }
    // With a cluster there it is PostgreSQL's to say: whoever listens may be ours. Nor is it looked then: a name that is
    // looked up may take longer than the guard waits for an agent that comes back to its primary.
    let empty = files::major_version(&settings.data_dir).is_none();
    if empty && let Some(why) = postgres::port_taken(settings) {
        bail!("{why}");
    }
    Ok(())
}

/// The major version of the data directory, or else of the binaries.
fn server_major(local: &LocalConfig) -> anyhow::Result<u32> {
    let data_dir = &local.postgresql.data_dir;
    if let Some(major) = files::major_version(data_dir) {
        if !SUPPORTED_MAJORS.contains(&major) {
            bail!("{} is of PostgreSQL {major}; 13 to 18 are supported. It is left as it is", data_dir.display());
        }
        return Ok(major);
    }
    let dynamic = DynamicConfig::from_json(&serde_json::json!({})).map_err(|why| anyhow!(why))?.0;
    let settings = setup::effective(local, &dynamic, Vec::new(), 15).settings;
    let postgres = tools::locate(&settings, "postgres").map_err(|why| anyhow!(why))?;
    let said = Command::new(&postgres).arg("--version").output().with_context(|| postgres.display().to_string())?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let digits: String = text.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    let major: u32 = digits.parse().map_err(|_| anyhow!("{} --version says {text:?}", postgres.display()))?;
    if !SUPPORTED_MAJORS.contains(&major) {
        bail!("{} is PostgreSQL {major}; 13 to 18 are supported: set postgresql.bin_dir", postgres.display());
    }
    Ok(major)
}

fn spawn_signals(asked: &mpsc::Sender<Asked>) -> anyhow::Result<()> {
    let kinds = [
        (SignalKind::terminate(), Asked::Stop),
        (SignalKind::interrupt(), Asked::Stop),
        (SignalKind::hangup(), Asked::Reload),
        (SignalKind::user_defined2(), Asked::Again),
    ];
    for (kind, what) in kinds {
        let mut signals = signal(kind).context("signal handlers")?;
        let asked = asked.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if asked.send(what).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

/// `matriarch release --tenure ID FILE`: gives a tenure back once its PostgreSQL is dead. The guard runs it.
pub fn release(file: Option<&Path>, tenure: i64) -> anyhow::Result<u8> {
    let loaded = config::load(file, config::environment()).map_err(|error| anyhow!("{error}"))?;
    let local = loaded.config;
    let auth = local.etcd3.username.clone().zip(local.etcd3.password.as_ref().map(|p| p.reveal().to_owned()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("the async runtime")?;
    runtime.block_on(async {
        let hosts = local.etcd3.hosts.join(", ");
        let connector = Slots::new(&local).to_store(Connector::tcp(CONNECT_LIMIT));
        let store = EtcdStore::new(local.etcd3.hosts.clone(), auth, connector);
        match store.revoke(matriarch_core::id::LeaseId(tenure), NAMESAKE_LIMIT).await {
            Outcome::Done(()) => Ok(0),
            Outcome::Refused(why) => bail!("tenure {tenure} could not be revoked at {hosts}: {why}"),
            Outcome::Unknown(why) => bail!("whether tenure {tenure} was revoked at {hosts} is not known: {why}"),
        }
    })
}
