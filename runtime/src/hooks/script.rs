//! Running a command of the operator: in a process group of its own, its output in the log, and killed with everything
//! that it has started.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{ExitStatus, Stdio};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};

use super::CommandLine;
use crate::postgres::RunAs;
use crate::postgres::tools::become_account;
use crate::processes::child_pids;

/// Variables of the agent that are none of a script's business: secrets, and the way to the service manager.
const SCRUBBED: [&str; 3] = ["PATRONI_", "MATRIARCH_", "NOTIFY_SOCKET"];
/// A longer line of a script's output is told in pieces.
const LINE_BYTES_MAX: usize = 8 << 10;
/// Of a script that forks without end, more than these are not looked for.
const DESCENDANTS_MAX: usize = 4096;

/// A command that is about to run.
#[derive(Debug)]
pub struct Script<'a> {
    what: String,
    command: &'a CommandLine,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    account: Option<RunAs>,
    ends_with_agent: bool,
}

impl<'a> Script<'a> {
    /// `command`, run as `what`.
    pub fn new(what: impl Into<String>, command: &'a CommandLine) -> Self {
        let (what, arguments, environment) = (what.into(), Vec::new(), Vec::new());
        Self { what, command, arguments, environment, account: None, ends_with_agent: false }
    }

    /// More arguments, after those of the command.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: Into<OsString>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// One more variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Under another account than the agent's.
    #[must_use]
    pub fn account(mut self, account: Option<RunAs>) -> Self {
        self.account = account.filter(|_| rustix::process::geteuid().is_root());
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// It could not be executed.
    pub fn spawn(self) -> io::Result<Running> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut command = Command::new(&self.command.program);
        command.args(&self.command.arguments).args(&self.arguments).process_group(0).stdin(Stdio::null());
        command.stdout(writer.try_clone()?).stderr(writer);
        for (name, _) in std::env::vars_os() {
            if SCRUBBED.iter().any(|secret| name.to_string_lossy().starts_with(secret)) {
                command.env_remove(name);
            }
        }
        command.envs(self.environment);
        prepare(&mut command, &reader, self.account, self.ends_with_agent);
        let child = command.spawn()?;
        // With our copy of the end that is written to: what is read ends with the last of its writers.
        drop(command);
        tokio::spawn(tell(self.what.clone(), reader));
        Ok(Running { what: self.what, child })
    }

    /// Runs it to its end. Dropping the future kills it, and the agent's death kills its first process.
    ///
    /// # Errors
    /// It could not be executed, or its exit status is not 0.
    pub async fn run(mut self) -> Result<(), String> {
        self.ends_with_agent = true;
        let (what, program) = (self.what.clone(), self.command.program.clone());
        let running = self.spawn().map_err(|error| format!("{what}: {program} could not be started: {error}"))?;
        let mut running = Leash(running);
        match running.0.ended().await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{what}: {program} failed ({status})")),
            Err(error) => Err(format!("{what}: {program} was lost: {error}")),
        }
    }
}

/// What the child does before it executes the program.
///
/// It keeps the end of the pipe that is read: a script that outlives the agent (on_stop of an agent that leaves) would
/// otherwise die of its next line of output.
fn prepare(command: &mut Command, reader: &OwnedFd, account: Option<RunAs>, ends_with_agent: bool) {
    let reader = reader.as_raw_fd();
    let groups: Vec<_> = account.iter().flat_map(|a| &a.groups).map(|g| nix::unistd::Gid::from_raw(*g)).collect();
    // SAFETY: between fork and exec the closure makes system calls only; it allocates nothing and takes no lock. The
    // descriptor is open until `spawn` has returned.
    unsafe {
        command.pre_exec(move || {
            if nix::libc::dup(reader) < 0 {
                return Err(io::Error::last_os_error());
            }
            if let Some(account) = &account {
                become_account(account, &groups)?;
            }
            if ends_with_agent {
                // After the change of account: that clears the death signal.
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            }
            Ok(())
        });
    }
}

/// A script that runs. Dropped, it runs on.
#[derive(Debug)]
pub struct Running {
    what: String,
    child: Child,
}

impl Running {
    /// Waits for its end.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Kills it with its children and theirs, also those that left its process group.
    pub fn kill(&self) {
        // Nobody has waited for it, so that its number is its own still.
        let Some(leader) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
        tracing::warn!("{} is still running (pid {leader}) and is killed", self.what);
        let mut found = vec![leader];
        let mut next = 0;
        while let Some(pid) = found.get(next).copied().filter(|_| next < DESCENDANTS_MAX) {
            // Stopped, it neither forks nor reaps.
            signal(pid, Signal::STOP);
            // Whoever has gone meanwhile has no children of its own any more.
            found.extend(child_pids(pid).unwrap_or_default());
            next += 1;
        }
        for pid in found {
            signal(pid, Signal::KILL);
        }
        if let Some(group) = Pid::from_raw(leader) {
            // It is empty if all are dead.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // Another account's (by sudo) is not ours to kill; one that is dead needs none.
        let _ = kill_process(pid, signal);
    }
}

/// A script that is killed when it is dropped before its end.
struct Leash(Running);

impl Drop for Leash {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// Tells what a script says, by the line.
async fn tell(what: String, reader: OwnedFd) {
    let Ok(mut output) = Receiver::from_owned_fd(reader) else { return };
    let mut kept: Vec<u8> = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = output.read(&mut buffer).await {
        kept.extend(&buffer[..length]);
        while let Some(end) = kept.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = kept.drain(..=end).collect();
            say(&what, &line);
        }
        if kept.len() >= LINE_BYTES_MAX {
            say(&what, &std::mem::take(&mut kept));
        }
    }
    say(&what, &kept);
}

fn say(what: &str, line: &[u8]) {
    let line = String::from_utf8_lossy(line);
    if !line.trim().is_empty() {
        tracing::info!("{what}: {}", line.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    /// `sh -c text`.
    fn shell(text: &str) -> CommandLine {
        CommandLine {
            program: "/bin/sh".to_owned(),
            arguments: vec!["-c".to_owned(), text.to_owned(), "sh".to_owned()],
        }
    }

    async fn written(path: &Path) -> String {
        loop {
            match std::fs::read_to_string(path) {
                Ok(text) if text.ends_with('\n') => return text,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    fn is_alive(pid: i32) -> bool {
        crate::processes::Process::find(pid).unwrap().is_some_and(crate::processes::Process::is_alive)
    }

    async fn dead(pids: &str) {
        for pid in pids.split_whitespace().map(|pid| pid.parse().unwrap()) {
            while is_alive(pid) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    #[tokio::test]
    async fn its_exit_status_counts_and_it_is_named() {
        assert_eq!(Script::new("pre_promote", &shell("exit 0")).run().await, Ok(()));
        let failed = Script::new("pre_promote", &shell("exit 3")).run().await.unwrap_err();
        assert!(failed.contains("pre_promote") && failed.contains("/bin/sh") && failed.contains('3'), "{failed}");
        let missing = CommandLine { program: "/nowhere/hook".to_owned(), arguments: Vec::new() };
        let failed = Script::new("pre_promote", &missing).run().await.unwrap_err();
        assert!(failed.contains("/nowhere/hook could not be started"), "{failed}");
    }

    #[tokio::test]
    async fn it_gets_its_arguments_and_none_of_our_secrets() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("said");
        let command = shell(&format!("(echo \"$# $1 $2 $PGPASSFILE\"; env) > {}; echo >> {0}", file.display()));
        let script = Script::new("on_start", &command).args(["a b", "c"]).env("PGPASSFILE", "/pgpass");
        script.run().await.unwrap();
        let said = std::fs::read_to_string(&file).unwrap();
        assert_eq!(said.lines().next(), Some("2 a b c /pgpass"));
        assert!(!SCRUBBED.iter().any(|secret| said.lines().any(|line| line.starts_with(secret))), "{said}");
        assert!(said.contains("PATH="), "{said}");
    }

    /// One child in its group, one in a session of its own.
    #[tokio::test]
    async fn what_it_has_started_dies_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pids");
        let command =
            shell(&format!("sleep 600 & one=$!; setsid sleep 600 & echo $$ $one $! > {}; wait", file.display()));
        let run = tokio::spawn(async move { Script::new("pre_promote", &command).run().await });
        let pids = written(&file).await;
        assert_eq!(pids.split_whitespace().count(), 3);
        run.abort();
        assert!(run.await.unwrap_err().is_cancelled());
        dead(&pids).await;
    }

    #[tokio::test]
    async fn a_script_outlives_whoever_read_its_output() {
        let directory = tempfile::tempdir().unwrap();
        let (go, done) = (directory.path().join("go"), directory.path().join("done"));
        let text = format!(
            "while ! [ -e {} ]; do sleep 0.01; done; echo one; echo two; echo > {}",
            go.display(),
            done.display()
        );
        let command = shell(&text);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { drop(Script::new("on_stop", &command).spawn().unwrap()) });
        })
        .join()
        .unwrap();
        std::fs::write(&go, "").unwrap();
        assert_eq!(written(&done).await, "\n");
    }
}
