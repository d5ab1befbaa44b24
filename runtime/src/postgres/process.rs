//! Starting and stopping the postmaster.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use matriarch_core::id::Pid;
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::view::postgres::{ControlState, Phase, Process, StopMode};
use nix::unistd::ForkResult;
use rustix::process::Signal;
use tokio::time::{Instant, timeout, timeout_at};

use super::control_data::{self, ControlData};
use super::inotify::Watch;
use super::proc::{self, Handle, PidFile};
use super::settings::Settings;
use super::tools;

/// The server's own log is begun anew when it is larger than this at a start.
const LOG_BYTES_MAX: u64 = 10 << 20;
/// How long processes of a dead postmaster are waited for.
const ORPHAN_PATIENCE: Duration = Duration::from_millis(500);
/// Bytes of the server's log that are looked at for the reason of a failed start.
const LOG_TAIL_BYTES: u64 = 8 << 10;
/// Lines of it that are shown.
const LOG_TAIL_LINES: usize = 15;

/// A postmaster that was started just now.
#[derive(Debug)]
pub(super) struct Started {
    /// Its process id.
    pub pid: Pid,
    /// Where in the server's log its output begins.
    log_from: u64,
}

/// Starts the postmaster: not our child, in a session of its own, so that it outlives the agent and no signal to the
/// agent's terminal or process group reaches it.
///
/// # Errors
/// A text that names what is missing and the way out. Nothing was started then.
pub(super) fn spawn(settings: &Settings) -> Result<Started, String> {
    let program = tools::locate(settings, "postgres")?;
    let log = open_log(&settings.server_log)
        .map_err(|e| format!("{}: {e}; give the agent a place for the server's log", settings.server_log.display()))?;
    let log_from = log.metadata().map_or(0, |m| m.len());
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| e.to_string())?;
    let mut command = Command::new(&program);
    command.arg("-D").arg(&settings.data_dir);
    command.arg(format!("--config-file={}", settings.main_conf().display()));
    for (name, value) in &settings.command_line {
        command.arg(format!("--{name}={value}"));
    }
    command.current_dir("/").stdin(Stdio::null());
    command.stdout(log.try_clone().map_err(|e| e.to_string())?).stderr(log);
    set_environment(&mut command, settings);
    detach(&mut command, settings, writer);
    let mut between = command.spawn().map_err(|e| format!("{} could not be started: {e}", program.display()))?;
    drop(command);
    between.wait().map_err(|e| e.to_string())?;
    let mut pid = [0; 4];
    File::from(reader).read_exact(&mut pid).map_err(|e| format!("{} did not start: {e}", program.display()))?;
    Ok(Started { pid: Pid(i32::from_ne_bytes(pid)), log_from })
}

fn open_log(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|m| m.len() > LOG_BYTES_MAX) {
        fs::rename(path, path.with_extension("old"))?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn set_environment(command: &mut Command, settings: &Settings) {
    for (name, value) in std::env::vars_os() {
        if tools::scrubbed(&name) {
            command.env_remove(name);
        } else if name == "PG_MALLOC_ARENA_MAX" {
            command.env_remove(&name).env("MALLOC_ARENA_MAX", value);
        }
    }
    // PostgreSQL takes any process with the number in a left-over postmaster.pid for a server, except its own parent and
    // this one. After a container's restart the number may be anybody's; and where nobody reaps, the dead postmaster
    // itself is there as a zombie for ever, and no start would succeed.
    if let Some(stale) = PidFile::read(&settings.data_dir)
        && proc::observe(&settings.data_dir) == Process::Absent
    {
        command.env("PG_GRANDPARENT_PID", stale.pid.abs().to_string());
    }
}

/// The child forks once more and leaves at once; the grandchild tells its number and becomes the postmaster.
fn detach(command: &mut Command, settings: &Settings, tell: OwnedFd) {
    let account = tools::other_account(settings);
    let cgroup = super::cgroup::entrance(&settings.data_dir);
    // SAFETY: between fork and exec the closure makes system calls only; it allocates nothing and takes no lock. The
    // agent has one thread that matters, and the child none but the forking one.
    unsafe {
        command.pre_exec(move || {
            if let ForkResult::Parent { .. } = nix::unistd::fork()? {
                nix::libc::_exit(0);
            }
            rustix::process::setsid()?;
            super::cgroup::enter(cgroup.as_ref());
            if let Some((account, groups)) = &account {
                tools::become_account(account, groups)?;
            }
            let own = rustix::process::getpid().as_raw_nonzero().get();
            rustix::io::write(&tell, &own.to_ne_bytes())?;
            Ok(())
        });
    }
}

/// Waits until a started postmaster accepts connections.
///
/// `Refused` = it has ended; with the last lines of its log and the way out. `Unknown` = still starting at the deadline.
pub(super) async fn wait_ready(settings: &Settings, started: &Started, deadline: Duration) -> Outcome<()> {
    let until = Instant::now() + deadline;
    let watch = Watch::new().and(&settings.data_dir).and(&settings.data_dir.join("postmaster.pid"));
    let Ok(handle) = Handle::open(started.pid) else { return start_failed(settings, started) };
    loop {
        let file = PidFile::read(&settings.data_dir);
        if file.is_some_and(|f| f.pid == started.pid.0 && f.phase == Some(Phase::Ready)) {
            return Outcome::Done(());
        }
        tokio::select! {
            biased;
            () = handle.exited() => return start_failed(settings, started),
            () = watch.changed() => {}
            () = tokio::time::sleep_until(until) => {
                let seconds = deadline.as_secs_f32();
                return Outcome::Unknown(format!(
                    "PostgreSQL is still starting after {seconds:.0} s (recovery takes as long as there is WAL to replay); \
                     its log is {}",
                    settings.server_log.display()
                ));
            }
        }
    }
}

fn start_failed(settings: &Settings, started: &Started) -> Outcome<()> {
    let said = log_tail(settings, started.log_from);
    let way_out = tools::way_out(&said, settings);
    Outcome::Refused(Refusal::Failed(format!("PostgreSQL did not start: {said}{way_out}")))
}

/// What the server wrote since it was started; with the logging collector on, the rest is in its newest file.
fn log_tail(settings: &Settings, from: u64) -> String {
    let mut text = tail(&settings.server_log, from).unwrap_or_default();
    if text.contains("redirecting log output")
        && let Some(newest) =
            newest_file(&settings.data_dir.join(settings.parameters.get("log_directory").map_or("log", String::as_str)))
    {
        text = tail(&newest, 0).unwrap_or(text);
    }
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(LOG_TAIL_LINES)..).unwrap_or_default().join("\n")
}

fn tail(path: &Path, from: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let from = from.max(file.metadata()?.len().saturating_sub(LOG_TAIL_BYTES));
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn newest_file(directory: &Path) -> Option<std::path::PathBuf> {
    let files = fs::read_dir(directory).ok()?.flatten();
    files.max_by_key(|e| e.metadata().and_then(|m| m.modified()).ok()).map(|e| e.path())
}

/// Stops the server. `Done` = the postmaster and all its processes have ended.
pub(super) async fn stop(settings: &Settings, mode: StopMode, deadline: Duration) -> Outcome<()> {
    let handle = match signal_stop(settings, mode) {
        Outcome::Done(Some((pid, handle))) => (pid, handle),
        Outcome::Done(None) => return end_orphans(settings, mode).await,
        Outcome::Refused(refusal) => return Outcome::Refused(refusal),
        Outcome::Unknown(why) => return Outcome::Unknown(why),
    };
    let (pid, handle) = handle;
    let patience = if mode == StopMode::Immediate { deadline / 2 } else { deadline };
    if timeout(patience, handle.exited()).await.is_ok() {
        return end_orphans(settings, mode).await;
    }
    if mode == StopMode::Fast {
        let left = proc::children(pid.0).len();
        return Outcome::Unknown(format!(
            "PostgreSQL (pid {pid}) is still stopping after {:.1} s with {left} processes left",
            deadline.as_secs_f32()
        ));
    }
    kill_all(pid, &handle);
    match timeout(deadline / 2, handle.exited()).await {
        Ok(()) => end_orphans(settings, mode).await,
        Err(_) => Outcome::Unknown(format!("PostgreSQL (pid {pid}) does not end, not even by SIGKILL")),
    }
}

/// Sends the signal of a stop and returns at once; `None` = nothing runs.
pub(super) fn signal_stop(settings: &Settings, mode: StopMode) -> Outcome<Option<(Pid, Handle)>> {
    let Process::Alive { pid, .. } = proc::observe(&settings.data_dir) else { return Outcome::Done(None) };
    let Ok(handle) = Handle::open(pid) else { return Outcome::Done(None) };
    let Some(file) = PidFile::read(&settings.data_dir) else { return Outcome::Done(None) };
    if file.pid < 0 {
        return Outcome::Refused(Refusal::Failed(format!(
            "{} is in use by a single-user server (pid {pid}): end it by hand",
            settings.data_dir.display()
        )));
    }
    let signal = match mode {
        StopMode::Fast => Signal::INT,
        StopMode::Immediate => Signal::QUIT,
    };
    match handle.signal(signal) {
        Ok(()) => Outcome::Done(Some((pid, handle))),
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Outcome::Done(None),
        Err(e) => Outcome::Refused(Refusal::Failed(format!(
            "PostgreSQL (pid {pid}) cannot be signalled: {e}; run the agent as the server's account"
        ))),
    }
}

/// The hard way. The postmaster is stopped first: then it neither forks nor reaps, so that no number is reused.
fn kill_all(pid: Pid, handle: &Handle) {
    let _ = handle.signal(Signal::STOP);
    for child in proc::children(pid.0) {
        let _ = proc::signal(child, Signal::KILL);
    }
    let _ = handle.signal(Signal::KILL);
}

/// A dead postmaster is not a dead PostgreSQL: a backend goes on, and commits, until it notices. A postmaster that is
/// about to exit has removed its pid file already and looks like such a one: so they get a moment to go by themselves.
async fn end_orphans(settings: &Settings, mode: StopMode) -> Outcome<()> {
    let until = Instant::now() + ORPHAN_PATIENCE;
    loop {
        let orphans = proc::orphans(&settings.data_dir);
        if orphans.is_empty() {
            return Outcome::Done(());
        }
        if Instant::now() >= until {
            let count = orphans.len();
            return Outcome::Unknown(format!("{count} processes of a dead postmaster still live: {orphans:?}"));
        }
        if mode == StopMode::Immediate {
            for orphan in orphans {
                let _ = proc::signal(orphan, Signal::KILL);
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until `pg_control` says that the shutdown checkpoint is written: from then on no backend can exist, although
/// the postmaster may still wait for its WAL senders to drain.
///
/// `Refused` = the postmaster has ended without it: recovery will be needed.
pub(super) async fn wait_shut_down(settings: &Settings, deadline: Duration) -> Outcome<ControlData> {
    let until = Instant::now() + deadline;
    let watch = Watch::new().and(&settings.data_dir.join("global/pg_control")).and(&settings.data_dir);
    loop {
        // Alive is looked at before the file: a server that ends in between has written it by then.
        let alive = proc::observe(&settings.data_dir) != Process::Absent;
        match control_data::read(&settings.data_dir) {
            Ok(Some(control)) => match control.state {
                ControlState::ShutDown | ControlState::ShutDownInRecovery => return Outcome::Done(control),
                _ if !alive => {
                    return Outcome::Refused(Refusal::Failed(format!(
                        "PostgreSQL ended without a shutdown checkpoint (pg_control says {:?})",
                        control.state
                    )));
                }
                _ => {}
            },
            Ok(None) => return Outcome::Refused(Refusal::Failed("there is no pg_control any more".into())),
            Err(why) => return Outcome::Unknown(why),
        }
        if timeout_at(until, watch.changed()).await.is_err() {
            return Outcome::Unknown(format!("no shutdown checkpoint within {:.1} s", deadline.as_secs_f32()));
        }
    }
}

/// Appends a line to the server's log: what the agent did to the server, where its operator looks first.
pub(super) fn note(settings: &Settings, line: &str) {
    if let Ok(mut log) = open_log(&settings.server_log) {
        let _ = writeln!(log, "matriarch: {line}");
    }
}
