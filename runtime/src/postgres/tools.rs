//! Finding and running PostgreSQL's programs.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use matriarch_core::id::Pid;
use rustix::process::{Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::leftovers;
use super::proc::{self, Handle};
use super::settings::{RunAs, Settings};

/// The major versions of PostgreSQL that are known.
pub const SUPPORTED_MAJORS: std::ops::RangeInclusive<u32> = 13..=18;
/// Lines of a tool's output that are kept for the error.
const KEPT_LINES: usize = 20;
/// Variables of the agent that are none of PostgreSQL's business (secrets among them).
const SCRUBBED: [&str; 4] = ["PATRONI_", "MATRIARCH_", "KUBERNETES_", "NOTIFY_SOCKET"];

/// Those that change the data directory.
const CHANGING: [&str; 3] = ["initdb", "pg_basebackup", "pg_rewind"];

/// Receives each line that a tool writes, for the operator.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// Finds one of PostgreSQL's programs.
///
/// # Errors
/// A text that names it, says where was looked, and the way out.
pub fn locate(settings: &Settings, program: &str) -> Result<PathBuf, String> {
    let name = settings.bin_names.get(program).map_or(program, String::as_str);
    let places: Vec<PathBuf> = match &settings.bin_dir {
        Some(directory) => vec![directory.clone()],
        None => path_directories().into_iter().chain(usual_directories(settings)).collect(),
    };
    // `join` of an absolute name is that name: `bin_name` may be a path.
    if let Some(found) = places.iter().map(|p| p.join(name)).find(|p| p.is_file()) {
        return Ok(found);
    }
    let looked = places.iter().map(|p| p.to_string_lossy()).collect::<Vec<_>>().join(", ");
    Err(format!("PostgreSQL's program {name} was not found; looked in {looked}; install it or set postgresql.bin_dir"))
}

fn path_directories() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// Where distributions put the server's programs; the data directory's own version first, then newest first.
fn usual_directories(settings: &Settings) -> Vec<PathBuf> {
    let mut versions: Vec<u32> = SUPPORTED_MAJORS.rev().collect();
    if let Some(own) = super::files::major_version(&settings.data_dir) {
        versions.retain(|v| *v == own);
    }
    let mut found = Vec::new();
    for version in versions {
        found.push(PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")));
        found.push(PathBuf::from(format!("/usr/pgsql-{version}/bin")));
        found.push(PathBuf::from(format!("/usr/libexec/postgresql{version}")));
    }
    found.push("/usr/local/pgsql/bin".into());
    found.push("/usr/local/bin".into());
    found
}

/// Takes on another account in a child before it executes its program. Only system calls: nothing here may allocate.
pub(crate) fn become_account(account: &RunAs, groups: &[nix::unistd::Gid]) -> io::Result<()> {
    nix::unistd::setgroups(groups)?;
    nix::unistd::setgid(nix::unistd::Gid::from_raw(account.gid))?;
    nix::unistd::setuid(nix::unistd::Uid::from_raw(account.uid))?;
    Ok(())
}

/// The account to take on, if it is not ours already.
pub(super) fn other_account(settings: &Settings) -> Option<(RunAs, Vec<nix::unistd::Gid>)> {
    let account = settings.run_as.clone().filter(|_| rustix::process::geteuid().is_root())?;
    let groups = account.groups.iter().map(|g| nix::unistd::Gid::from_raw(*g)).collect();
    Some((account, groups))
}

/// Whether an environment variable is kept from PostgreSQL.
pub(super) fn scrubbed(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    SCRUBBED.iter().any(|s| name.starts_with(s))
}

/// A tool about to run.
#[derive(Debug)]
pub struct Tool<'a> {
    settings: &'a Settings,
    program: &'static str,
    arguments: Vec<OsString>,
}

impl<'a> Tool<'a> {
    /// A tool with no arguments.
    pub fn new(settings: &'a Settings, program: &'static str) -> Self {
        Self { settings, program, arguments: Vec::new() }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: Into<OsString>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Runs it to its end. Dropping the future kills it with all that it has started: nothing must go on writing into a
    /// data directory that nobody watches. The agent's death kills its first process; the rest is for the next agent
    /// ([`leftovers`]).
    ///
    /// # Errors
    /// It is missing, could not be started, or ended with an error: its last words and, where known, the way out.
    pub async fn run(self, progress: Progress<'_>) -> Result<String, String> {
        let mut command = self.command()?;
        let child = command.spawn().map_err(|e| format!("{} could not be started: {e}", self.program))?;
        let mut group = Group(child);
        let (stdout, stderr) = (group.0.stdout.take(), group.0.stderr.take());
        let (out, err, status) =
            tokio::join!(read_lines(stdout, progress), read_lines(stderr, progress), group.ended());
        let status = status.map_err(|e| format!("{} was lost: {e}", self.program))?;
        if status.success() {
            return Ok([out, err].concat().join("\n"));
        }
        // What they tell of their progress is not what went wrong, and the log has it by the line.
        let said = if err.is_empty() { out } else { err }.join("\n");
        Err(format!("{} failed ({status}): {said}{}", self.program, way_out(&said, self.settings)))
    }

    /// Runs it to its end, as [`Self::run`]; all that it wrote to its standard output.
    ///
    /// # Errors
    /// It is missing, could not be started, or ended with an error.
    pub async fn output(self) -> Result<String, String> {
        let output = self.command()?.output().await;
        let output = output.map_err(|e| format!("{} could not be started: {e}", self.program))?;
        if !output.status.success() {
            return Err(format!("{} failed ({})", self.program, output.status));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn command(&self) -> Result<Command, String> {
        let mut command = Command::new(locate(self.settings, self.program)?);
        command.args(&self.arguments).current_dir("/").process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for (name, _) in std::env::vars_os().filter(|(name, _)| scrubbed(name)) {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C").env("PGPASSFILE", &self.settings.pgpass);
        command.env("PGOPTIONS", "-c statement_timeout=0").envs(proc::no_server(&self.settings.data_dir));
        command.envs(CHANGING.contains(&self.program).then(|| leftovers::mark(&self.settings.data_dir)));
        let account = other_account(self.settings);
        // SAFETY: between fork and exec the closure makes system calls only; it allocates nothing and takes no lock.
        unsafe {
            command.pre_exec(move || {
                if let Some((account, groups)) = &account {
                    become_account(account, groups)?;
                }
                // After the change of account: that clears the death signal.
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                Ok(())
            });
        }
        Ok(command)
    }
}

/// A tool's processes: the first and, in its process group, those that it has started. Dropped, they are killed.
struct Group(Child);

impl Group {
    /// Waits for the end of the first, which is the end of the others: a `pg_basebackup` that the kernel has killed for its
    /// memory leaves the half of it that streams WAL, which would hold the output open for ever.
    async fn ended(&mut self) -> io::Result<ExitStatus> {
        let pid = self.0.id().map(|pid| Pid(pid.cast_signed()));
        if let Some(Ok(handle)) = pid.map(Handle::open) {
            handle.exited().await;
            self.kill();
        }
        self.0.wait().await
    }

    /// The number is theirs until the first was waited for.
    fn kill(&self) {
        if let Some(group) = self.0.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            // Whoever is dead needs none.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads lines, as progress meters write them where there is no terminal, and keeps the last.
async fn read_lines(from: Option<impl AsyncRead + Unpin>, progress: Progress<'_>) -> Vec<String> {
    let mut kept = Vec::new();
    let Some(from) = from else { return kept };
    let mut lines = BufReader::new(from);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).await.is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        progress(&text);
        kept.push(text);
        if kept.len() > KEPT_LINES {
            kept.remove(0);
        }
        line.clear();
    }
    kept
}

/// The way out of what PostgreSQL's programs commonly say.
pub fn way_out(said: &str, settings: &Settings) -> String {
    let data = settings.data_dir.display();
    if said.contains("No space left on device") {
        format!("\nThe disk is full: free space on the file system of {data}")
    } else if said.contains("Address already in use") || said.contains(".lock\" already exists") {
        format!(
            "\nPort {} is in use by another process: stop it (`ss -ltnp` names it) or change postgresql.listen",
            settings.port
        )
    } else if said.contains("exists but is not empty") {
        format!("\n{data} is not empty: empty it or correct postgresql.data_dir")
    } else if said.contains("has wrong ownership") {
        format!("\n{data} belongs to another account: chown -R it to the account that PostgreSQL runs as")
    } else if said.contains("has invalid permissions") {
        format!("\nchmod 0700 {data}")
    } else if said.contains("no pg_hba.conf entry") {
        "\nAdd a line for this member and role to the pg_hba of the other member".into()
    } else if said.contains("password authentication failed") {
        "\nCorrect the password in postgresql.authentication".into()
    } else if said.contains("pre-existing shared memory block is still in use") {
        format!("\nProcesses of a dead postmaster still work in {data}: end them first")
    } else if ["Permission denied", "Operation not permitted"].iter().any(|no| said.contains(no)) {
        format!("\nGive the account that PostgreSQL runs as access to what is named, and to {data}")
    } else {
        String::new()
    }
}

/// A file with a password for `initdb`, readable by nobody else, gone when dropped: a cancelled initdb leaves none.
#[derive(Debug)]
pub(super) struct PasswordFile(PathBuf);

impl PasswordFile {
    pub(super) fn new(settings: &Settings, password: &str) -> Result<Self, String> {
        let path = settings.pgpass.with_extension(format!("pwfile.{}", std::process::id()));
        super::files::write(&path, format!("{password}\n").as_bytes(), Some(0o600), settings.run_as.as_ref())
            .map_err(|e| format!("{} cannot be written: {e}", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PasswordFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
