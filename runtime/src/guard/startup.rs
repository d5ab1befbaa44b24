//! How a guard comes to be: detached, alone for its state directory, listening; and how it executes itself anew.

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use matriarch_core::time::Instant;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use serde::{Deserialize, Serialize};

use super::GuardArgs;
use super::authority::Authority;
use super::log::Log;
use super::server::{End, Server};
use super::succession::Succession;

/// What the guard writes to its standard output once it listens.
pub(super) const LISTENING: &str = "listening";
/// What it writes if another guard has the state directory.
pub(super) const LOCKED: &str = "locked";

/// What `ps -o comm` calls a successor, and a successor that is the guard.
const SUCCESSOR_NAME: &CStr = c"guard-successor";
const GUARD_NAME: &CStr = c"matriarch";

/// What survives when a guard executes itself anew, and what its successor knows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Carried {
    pub(super) authority: Authority,
    /// Pid and start tick of the watched postmaster.
    pub(super) postmaster: Option<(i32, u64)>,
    /// Pid, start tick and gid of the agent.
    pub(super) agent: Option<(i32, u64, u32)>,
    /// The group of the last agent, which may be dead.
    #[serde(default)]
    pub(super) agent_gid: Option<u32>,
    /// Since when the agent is known to be dead, in nanoseconds of CLOCK_BOOTTIME.
    pub(super) absent_since: Option<u64>,
    /// The guard keeps a successor.
    #[serde(default)]
    pub(super) strict: bool,
    /// Pid and start tick of the successor that there is.
    #[serde(default)]
    pub(super) successor: Option<(i32, u64)>,
    /// A fence falls, and why.
    #[serde(default)]
    pub(super) fencing: Option<String>,
    /// This tenure is being given back, which makes sense until this instant.
    #[serde(default)]
    pub(super) releasing: Option<(i64, u64)>,
}

/// The descriptors that a guard needs before it can guard.
pub(super) struct Means {
    pub(super) listener: UnixListener,
    pub(super) lock: OwnedFd,
    pub(super) signals: SignalFd,
    pub(super) log: Log,
    pub(super) log_file: File,
}

/// Runs a guard until it is retired or not needed any more. With `--detach` it only starts one.
///
/// Says on standard output that it listens, or why it does not, and closes it.
pub fn run(args: GuardArgs) -> anyhow::Result<()> {
    if args.detach {
        return detach(args);
    }
    let (mut server, mut means) = match start(args) {
        Ok(started) => started,
        Err(error) => {
            writeln!(io::stdout(), "{}", format!("{error:#}").replace('\n', " ")).ok();
            return Err(error);
        }
    };
    loop {
        match server.run(&means) {
            End::Retired { why, for_good } => {
                server.dismiss_successor();
                if for_good {
                    server.postgres().remove_cgroup();
                }
                means.log.say(format!("the guard ends: {why}"));
                // Ours by the lock that is still held: the next guard makes its own.
                fs::remove_file(server.args().state_dir.join("guard.sock")).ok();
                means.log.close();
                return Ok(());
            }
            End::Anew(carried) => {
                let error = execute_anew(server.args(), &carried, &means);
                means.log.say(format!("the guard could not execute itself anew and goes on as it is: {error:#}"));
            }
            End::Forked(succession) => succeed(succession, &mut server, &mut means),
        }
    }
}

/// The life of a successor, up to the moment at which it is the guard.
fn succeed(succession: Succession, server: &mut Server, means: &mut Means) {
    means.log.forget();
    // Whoever ends the guard's session or group does not end its successor.
    rustix::process::setsid().ok();
    rustix::thread::set_name(SUCCESSOR_NAME).ok();
    server.stand_back();
    let inheritance = succession.wait(server.postgres(), means);
    rustix::thread::set_name(GUARD_NAME).ok();
    // The file is open already: the disk may hang. A guard without a log is better than none.
    means.log = Log::onto(&means.log_file).unwrap_or_default();
    server.take_over(inheritance, means);
}

/// The child of a child: whoever asked for the guard is not its parent, and need not reap it.
fn detach(mut args: GuardArgs) -> anyhow::Result<()> {
    args.detach = false;
    let program = std::env::current_exe().context("our own executable")?;
    Command::new(&program)
        .args(args.to_command_line())
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("{} guard", program.display()))?;
    Ok(())
}

fn start(mut args: GuardArgs) -> anyhow::Result<(Server, Means)> {
    let carried = args.carried.take();
    // Before any thread: a signal that is not blocked everywhere would end us.
    let signals = block_signals().context("signals")?;
    // Refused to the leader of a group only, which then has a session that does not end with the agent's either.
    rustix::process::setsid().ok();
    make_state_dir(&args.state_dir)?;
    let (lock, listener) = match &carried {
        Some(_) => {
            (io::stdout().as_fd().try_clone_to_owned()?, UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?))
        }
        None => (lock(&args.state_dir)?, listen(&args.state_dir)?),
    };
    let carried: Option<Carried> = carried.as_deref().map(serde_json::from_str).transpose().context("--carried")?;
    let (log, log_file) = Log::open(&args.state_dir.join("guard.log")).context("guard.log")?;
    give_to_agent(&args);
    let is_new = carried.is_none();
    let means = Means { listener, lock, signals, log, log_file };
    if is_new {
        let server = Server::new(args, Carried::default(), &means)?;
        writeln!(io::stdout(), "{LISTENING}").ok();
        settle_descriptors(&means)?;
        return Ok((server, means));
    }
    settle_descriptors(&means)?;
    Ok((Server::new(args, carried.unwrap_or_default(), &means)?, means))
}

/// Standard input from nowhere, output and errors into the log.
fn settle_descriptors(means: &Means) -> io::Result<()> {
    dup2_stdin(File::open("/dev/null")?)?;
    dup2_stdout(&means.log_file)?;
    Ok(dup2_stderr(&means.log_file)?)
}

fn block_signals() -> nix::Result<SignalFd> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR2] {
        signals.add(signal);
    }
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// Creates the directory, for its owner alone, if it is missing.
pub(super) fn make_state_dir(path: &Path) -> anyhow::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).with_context(|| format!("the guard's directory {} cannot be made", path.display()))
}

/// A guard that root started may have to be replaced by one that the agent starts, which is not root.
fn give_to_agent(args: &GuardArgs) {
    for name in ["guard.lock", "guard.log"] {
        // Only root can, and only root has to.
        std::os::unix::fs::chown(args.state_dir.join(name), Some(args.agent_uid), None).ok();
    }
}

fn lock(state_dir: &Path) -> anyhow::Result<OwnedFd> {
    let path = state_dir.join("guard.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.with_context(|| path.display().to_string())?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file.into()),
        Err(Errno::WOULDBLOCK) => bail!("{LOCKED}: another guard has {}", path.display()),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn listen(state_dir: &Path) -> anyhow::Result<UnixListener> {
    // What lies there was left by a guard that is gone: the lock is ours.
    match fs::remove_file(state_dir.join("guard.sock")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context("guard.sock"),
        Ok(()) | Err(_) => {}
    }
    let (_directory, path) = socket_path(state_dir)?;
    let listener = UnixListener::bind(&path).with_context(|| format!("{}/guard.sock", state_dir.display()))?;
    // Who may order is decided by the peer's credentials; root's guard must be reachable for the agent's user.
    fs::set_permissions(state_dir.join("guard.sock"), fs::Permissions::from_mode(0o666))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A path to the socket that fits into `sockaddr_un` (108 bytes), however long the directory's is. It is good for as
/// long as the descriptor is open.
pub(super) fn socket_path(state_dir: &Path) -> anyhow::Result<(OwnedFd, PathBuf)> {
    let directory = rustix::fs::open(state_dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("the guard's directory {}", state_dir.display()))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/guard.sock", directory.as_raw_fd()));
    Ok((directory, path))
}

/// Replaces this process by the executable it was started from (an upgrade). Returns only if that fails. The socket and
/// the lock are handed on as standard input and output, so neither is ever let go.
fn execute_anew(args: &GuardArgs, carried: &Carried, means: &Means) -> anyhow::Error {
    let attempt = || -> anyhow::Result<io::Error> {
        let program = std::env::args_os().next().map(PathBuf::from).filter(|path| path.is_absolute());
        let program = program.map_or_else(std::env::current_exe, Ok).context("our own executable")?;
        let args = GuardArgs { carried: Some(serde_json::to_string(carried)?), ..args.clone() };
        dup2_stdin(&means.listener)?;
        dup2_stdout(&means.lock)?;
        Ok(Command::new(program).args(args.to_command_line()).exec())
    };
    let error = attempt().map_or_else(|error| error, anyhow::Error::from);
    match settle_descriptors(means) {
        Ok(()) => error,
        Err(other) => error.context(other),
    }
}

impl Carried {
    pub(super) fn absent_since(&self) -> Option<Instant> {
        self.absent_since.map(Instant)
    }
}
