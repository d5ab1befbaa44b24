//! Starting and stopping the postmaster.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use matriarch_core::id::Pid;
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::view::postgres::{ControlState, Phase, Process, StopMode};
use nix::unistd::ForkResult;
use rustix::io::Errno;
use rustix::process::Signal;
use tokio::time::{Instant, timeout, timeout_at};

use super::allowance::Allowance;
use super::control_data::{self, ControlData};
use super::inotify::Watch;
use super::proc::{self, Handle, PidFile};
use super::settings::Settings;
use super::tools;
use crate::aside::look;
use crate::processes::{self, child_pids};

/// The server's own log is begun anew when it is larger than this at a start.
const LOG_BYTES_MAX: u64 = 10 << 20;
/// An immediate stop that takes longer is not going to end: a postmaster kills its children itself after 5 s
/// (`SIGKILL_CHILDREN_AFTER_SECS`), unless it is held or hangs.
const IMMEDIATE_PATIENCE: Duration = Duration::from_secs(6);
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
/// agent's terminal or process group reaches it. It is executed when this returns.
///
/// It begins in the data directory, as it goes on: before its `postmaster.pid` is there, that and its executable are
/// all by which the guard and the search for orphans can tell whose it is. An executable with another name than
/// PostgreSQL's is known to the guard only once it was told of it.
///
/// # Errors
/// `NotOurTenure`: the allowance is over. Otherwise a text that names what is missing and the way out. Nothing was
/// started then.
pub(super) fn spawn(settings: &Settings, allowance: &Allowance) -> Result<Started, Refusal> {
    let failed = |what: &dyn std::fmt::Display| Refusal::Failed(what.to_string());
    let program = tools::locate(settings, "postgres").map_err(Refusal::Failed)?;
    let log = open_log(&settings.server_log).map_err(|e| {
        failed(&format!("{}: {e}; give the agent a place for the server's log", settings.server_log.display()))
    })?;
    let log_from = log.metadata().map_or(0, |m| m.len());
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| failed(&e))?;
    // It works elsewhere than the agent: no path may be relative.
    let absolute = |path: &Path| std::path::absolute(path).map_err(|e| failed(&format!("{}: {e}", path.display())));
    let mut command = Command::new(absolute(&program)?);
    command.arg("-D").arg(absolute(&settings.data_dir)?);
    command.arg(format!("--config-file={}", absolute(&settings.main_conf())?.display()));
    for (name, value) in &settings.command_line {
        command.arg(format!("--{name}={value}"));
    }
    command.current_dir(&settings.data_dir).stdin(Stdio::null());
    command.stdout(log.try_clone().map_err(|e| failed(&e))?).stderr(log);
    set_environment(&mut command, settings);
    detach(&mut command, settings, writer, allowance.clone());
    let pid = allowance.begin(move || fork(command, reader).map_err(|e| not_started(&program, &e)))?;
    Ok(Started { pid, log_from })
}

/// Returns when the postmaster's program is executed, or could not be.
fn fork(mut command: Command, reader: OwnedFd) -> io::Result<Pid> {
    let mut between = command.spawn()?;
    // With the end of the pipe that tells, which the child has its own copy of.
    drop(command);
    between.wait()?;
    let mut pid = [0; 4];
    File::from(reader).read_exact(&mut pid)?;
    Ok(Pid(i32::from_ne_bytes(pid)))
}

/// What the child says between fork and exec when it is too late.
const TOO_LATE: Errno = Errno::TIME;

fn not_started(program: &Path, error: &io::Error) -> Refusal {
    if error.raw_os_error() == Some(TOO_LATE.raw_os_error()) {
        return Refusal::NotOurTenure;
    }
    Refusal::Failed(format!("{} could not be started: {error}", program.display()))
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
    command.envs(proc::no_server(&settings.data_dir));
}

/// The child forks once more and leaves at once; the grandchild tells its number and becomes the postmaster.
///
/// Its last act before that is to read the clock: an agent that was frozen on its way here, and thawed after the guard
/// has fired, starts nothing. What is left is a child that is itself stopped between this and its exec, which is
/// microseconds of its life, and until the exec it runs the agent's executable and is nobody's PostgreSQL to a search.
/// From the exec on the guard finds it by executable and directory.
fn detach(command: &mut Command, settings: &Settings, tell: OwnedFd, allowance: Allowance) {
    let account = tools::other_account(settings);
    let cgroup = super::cgroup::entrance(&settings.data_dir);
    // SAFETY: between fork and exec the closure makes system calls only; it allocates nothing and takes no lock:
    // whatever other threads hold at the fork does not matter.
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
            in_time(&allowance)
        });
    }
}

/// Between fork and exec: whether to go on.
fn in_time(allowance: &Allowance) -> io::Result<()> {
    if allowance.is_over() { Err(TOO_LATE.into()) } else { Ok(()) }
}

/// Waits until a started postmaster accepts connections.
///
/// `Refused` = it has ended; with the last lines of its log and the way out. `Unknown` = still starting at the
/// deadline.
pub(super) async fn wait_ready(settings: &Arc<Settings>, started: Started, deadline: Duration) -> Outcome<()> {
    let until = Instant::now() + deadline;
    let watched = Arc::clone(settings);
    let watch = look(move || Watch::new().and(&watched.data_dir).and(&watched.data_dir.join("postmaster.pid"))).await;
    let Ok(handle) = Handle::open(started.pid) else { return start_failed(settings, started).await };
    loop {
        let seen = Arc::clone(settings);
        let file = look(move || PidFile::read(&seen.data_dir)).await;
        if file.is_some_and(|f| f.pid == started.pid.0 && f.phase == Some(Phase::Ready)) {
            return Outcome::Done(());
        }
        tokio::select! {
            biased;
            () = handle.exited() => return start_failed(settings, started).await,
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

async fn start_failed(settings: &Arc<Settings>, started: Started) -> Outcome<()> {
    let seen = Arc::clone(settings);
    let said = look(move || log_tail(&seen, started.log_from)).await;
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

/// Stops the server. `Done` = the postmaster and all its processes have ended. `known`: as in [`signal_stop`].
pub(super) async fn stop(
    settings: &Arc<Settings>,
    known: Option<processes::Process>,
    mode: StopMode,
    deadline: Duration,
) -> Outcome<()> {
    let until = Instant::now() + deadline;
    loop {
        let ended = match signal_stop(settings, known, mode).await {
            Outcome::Done(Some((pid, handle))) => wait_for_end(pid, &handle, mode, deadline).await,
            Outcome::Done(None) => Outcome::Done(()),
            Outcome::Refused(refusal) => Outcome::Refused(refusal),
            Outcome::Unknown(why) => Outcome::Unknown(why),
        };
        let ended = match ended {
            Outcome::Done(()) => end_orphans(settings, mode).await,
            other => return other,
        };
        // A postmaster that was forked just before this order has no pid file at first: it passes for an orphan then,
        // and may have made its file since.
        let Outcome::Done(()) = ended else { return ended };
        match observe(settings).await {
            Process::Alive { pid, .. } if Instant::now() >= until => {
                return Outcome::Unknown(format!("PostgreSQL (pid {pid}) has been started while it was being stopped"));
            }
            Process::Alive { .. } => {}
            Process::Absent | Process::Unknown => return Outcome::Done(()),
        }
    }
}

async fn observe(settings: &Arc<Settings>) -> Process {
    let settings = Arc::clone(settings);
    look(move || proc::observe(&settings.data_dir)).await
}

async fn wait_for_end(pid: Pid, handle: &Handle, mode: StopMode, deadline: Duration) -> Outcome<()> {
    let patience = if mode == StopMode::Immediate { IMMEDIATE_PATIENCE.min(deadline / 2) } else { deadline };
    if timeout(patience, handle.exited()).await.is_ok() {
        return Outcome::Done(());
    }
    if mode == StopMode::Fast {
        let left = child_pids(pid.0).map_or(0, |children| children.len());
        return Outcome::Unknown(format!(
            "PostgreSQL (pid {pid}) is still stopping after {:.1} s with {left} processes left",
            deadline.as_secs_f32()
        ));
    }
    kill_all(pid, handle);
    match timeout(deadline / 2, handle.exited()).await {
        Ok(()) => Outcome::Done(()),
        Err(_) => Outcome::Unknown(format!("PostgreSQL (pid {pid}) does not end, not even by SIGKILL")),
    }
}

/// Sends the signal of a stop and returns at once; `None` = nothing runs.
///
/// `known` is the postmaster that was found last: where its directory was moved away no file tells of it, and an answer that
/// nothing runs would be followed by the same order at once, for it is seen to be alive.
pub(super) async fn signal_stop(
    settings: &Arc<Settings>,
    known: Option<processes::Process>,
    mode: StopMode,
) -> Outcome<Option<(Pid, Handle)>> {
    let (pid, is_found) = match (observe(settings).await, known) {
        (Process::Alive { pid, .. }, _) => (pid, true),
        (Process::Absent | Process::Unknown, Some(known)) => (Pid(known.pid), false),
        (Process::Absent | Process::Unknown, None) => return Outcome::Done(None),
    };
    let handle = match Handle::open(pid) {
        Ok(handle) => handle,
        Err(e) if e.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return Outcome::Done(None),
        // Nobody was told to stop: a caller that took this for an end would look, find the server, and ask again at once.
        Err(e) => return Outcome::Refused(Refusal::Failed(format!("PostgreSQL (pid {pid}) cannot be watched: {e}"))),
    };
    let seen = Arc::clone(settings);
    let file = look(move || PidFile::read(&seen.data_dir)).await.map(|file| file.pid);
    // Held by now, the number cannot come to mean another process; a file may name one that has it since.
    let is_known = known.is_some_and(|known| known.pid == pid.0 && known.is_alive());
    if !is_known && (!is_found || file.is_none()) {
        return Outcome::Done(None);
    }
    if file == Some(-pid.0) {
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
        Err(e) if e.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Outcome::Done(None),
        Err(e) => Outcome::Refused(Refusal::Failed(format!(
            "PostgreSQL (pid {pid}) cannot be signalled: {e}; run the agent as the server's account"
        ))),
    }
}

/// The hard way. The postmaster is stopped first: then it neither forks nor reaps, so that no number is reused.
fn kill_all(pid: Pid, handle: &Handle) {
    let _ = handle.signal(Signal::STOP);
    // Whoever cannot be found now is an orphan then, and is looked for as such.
    for child in child_pids(pid.0).unwrap_or_default() {
        let _ = proc::signal(child, Signal::KILL);
    }
    let _ = handle.signal(Signal::KILL);
}

/// A dead postmaster is not a dead PostgreSQL: a backend goes on, and commits, until it notices. A postmaster that is
/// about to exit has removed its pid file already and looks like such a one: so they get a moment to go by themselves.
async fn end_orphans(settings: &Arc<Settings>, mode: StopMode) -> Outcome<()> {
    let until = Instant::now() + ORPHAN_PATIENCE;
    loop {
        let seen = Arc::clone(settings);
        let orphans = match look(move || proc::orphans(&seen.data_dir)).await {
            Ok(orphans) if orphans.is_empty() => return Outcome::Done(()),
            Ok(orphans) => orphans,
            Err(error) => return Outcome::Unknown(format!("orphans cannot be looked for: /proc: {error}")),
        };
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
pub(super) async fn wait_shut_down(settings: &Arc<Settings>, deadline: Duration) -> Outcome<ControlData> {
    let until = Instant::now() + deadline;
    let watched = Arc::clone(settings);
    let watch =
        look(move || Watch::new().and(&watched.data_dir.join("global/pg_control")).and(&watched.data_dir)).await;
    loop {
        let seen = Arc::clone(settings);
        // Alive is looked at before the file: a server that ends in between has written it by then.
        let both = move || (proc::observe(&seen.data_dir) != Process::Absent, control_data::read(&seen.data_dir));
        let (alive, control) = look(both).await;
        match control {
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

#[cfg(test)]
mod tests {
    use matriarch_core::id::LeaseId;
    use matriarch_core::view::guard::Armed;

    use super::*;
    use crate::clock;

    /// `true`, executed by a grandchild that looks at the clock last.
    fn executed_under(allowance: Allowance) -> Result<Pid, Refusal> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let mut command = Command::new("true");
        // SAFETY: system calls only, as in `detach`.
        unsafe {
            command.pre_exec(move || {
                if let ForkResult::Parent { .. } = nix::unistd::fork()? {
                    nix::libc::_exit(0);
                }
                rustix::io::write(&writer, &7_i32.to_ne_bytes())?;
                in_time(&allowance)
            });
        }
        fork(command, reader).map_err(|error| not_started(Path::new("true"), &error))
    }

    /// The race: the agent is frozen after its last look at the clock and before the fork.
    #[test]
    fn a_child_that_is_too_late_executes_nothing_and_its_parent_learns_why() {
        let under = |at| Allowance::under(Armed { tenure: LeaseId(1), at }, clock::host());
        assert_eq!(executed_under(under(clock::now())), Err(Refusal::NotOurTenure));
        assert_eq!(executed_under(under(clock::now() + Duration::from_hours(1))), Ok(Pid(7)));
    }

    #[test]
    fn a_program_that_cannot_be_executed_is_named() {
        let error = Command::new("/nowhere/postgres").spawn().unwrap_err();
        let Refusal::Failed(why) = not_started(Path::new("/nowhere/postgres"), &error) else { panic!() };
        assert!(why.contains("/nowhere/postgres"), "{why}");
    }
}
