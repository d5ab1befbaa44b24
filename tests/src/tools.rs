//! Programs of the system, and the account that servers run as.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::unistd::{Group, Uid, User};

use crate::{Child, Ended};

/// Runs a program to its end; its output, or what went wrong.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments);
    output_of(&mut command)
}

/// Runs a command to its end; its output, or what went wrong. Where a [`Child`] was spawned before, the reaper may take
/// the status from [`Command::output`] and [`Command::status`], and they fail; this asks it.
///
/// # Errors
/// The program cannot be executed, ends otherwise than with 0, or does not end within a minute.
pub fn output_of(command: &mut Command) -> Result<String, String> {
    use std::io::Read;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let spawned = Child::spawn_piped(command);
    let shown = || {
        let words = [command.get_program()].into_iter().chain(command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    };
    let (child, mut pipes) = spawned.map_err(|error| format!("{}: {error}", shown()))?;
    let (mut output, mut complaints) = (String::new(), String::new());
    if let Some(mut pipe) = pipes.stdout.take() {
        pipe.read_to_string(&mut output).map_err(|error| error.to_string())?;
    }
    if let Some(mut pipe) = pipes.stderr.take() {
        pipe.read_to_string(&mut complaints).map_err(|error| error.to_string())?;
    }
    match child.wait(Duration::from_secs(60)) {
        Some(Ended::Exit(0)) => Ok(output),
        ended => Err(format!("{}: {ended:?}: {}", shown(), complaints.trim())),
    }
}

/// The binary under test, of the same profile as the test: `target/<profile>/matriarch`.
pub fn matriarch() -> PathBuf {
    let test = std::env::current_exe().expect("the test's executable");
    let found = test.ancestors().skip(1).map(|dir| dir.join("matriarch")).find(|path| path.is_file());
    found
        .unwrap_or_else(|| panic!("no matriarch beside {}: cargo build -p matriarch first (tests/run)", test.display()))
}

/// The binary as it is given to people: `MATRIARCH_TEST_RELEASE`, or `target/release/matriarch`; `None`, and it is said,
/// where none was built.
pub fn released() -> Option<PathBuf> {
    let built = || matriarch().parent()?.parent().map(|target| target.join("release/matriarch"));
    let binary = std::env::var_os("MATRIARCH_TEST_RELEASE").map(PathBuf::from).or_else(built);
    let found = binary.filter(|path| path.is_file());
    if found.is_none() {
        eprintln!("NOT TESTED: there is no release build: cargo build --release -p matriarch");
    }
    found
}

/// A binary where the servers' account can execute it: a copy in `dir` if the build is below somebody's closed home.
pub(crate) fn for_account(built: PathBuf, dir: &Path) -> PathBuf {
    let open = |dir: &Path| dir.metadata().is_ok_and(|metadata| metadata.mode() & 0o001 != 0);
    if !is_root() || built.ancestors().all(open) {
        return built;
    }
    let profile = built.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let copy = dir.join(format!("matriarch-{profile}"));
    if !copy.exists() {
        std::fs::copy(&built, &copy).expect("a copy of the binary under test");
    }
    copy
}

/// The directory of Patroni's programs; `None`, and it is said, where Patroni is not installed.
pub fn patroni() -> Option<PathBuf> {
    installed("Patroni", "MATRIARCH_TEST_PATRONI", "/var/tmp/matriarch-patroni-4.1.5")
}

/// The program `schemathesis`; `None`, and it is said, where it is not installed.
pub fn schemathesis() -> Option<PathBuf> {
    let bin = installed("schemathesis", "MATRIARCH_TEST_SCHEMATHESIS", "/var/tmp/matriarch-schemathesis-4.32.5");
    bin.map(|bin| bin.join("schemathesis"))
}

/// The programs of a Python environment that `tests/run` has made, in the directory that `variable` names or there.
fn installed(what: &str, variable: &str, there: &str) -> Option<PathBuf> {
    let dir = std::env::var_os(variable).map_or_else(|| PathBuf::from(there), PathBuf::from);
    if !dir.join("ready").exists() {
        eprintln!("NOT TESTED: there is no {what} in {}; tests/run installs it", dir.display());
        return None;
    }
    Some(dir.join("bin"))
}

/// A program of the system, which may be where only root looks for it; `None`, and it is said, where it is not installed.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).chain(["/usr/sbin".into()]).map(|dir| dir.join(name));
    let found = found.into_iter().find(|path| path.is_file());
    if found.is_none() {
        eprintln!("NOT TESTED: there is no {name}; tests/run installs it as root on Debian");
    }
    found
}

/// Makes a directory that is the servers' account's.
pub(crate) fn make_dir_of_account(dir: &Path) {
    std::fs::create_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let account = account();
    chown(dir, Some(account.uid.as_raw()), Some(account.gid.as_raw())).expect("the directory is the account's");
}

/// The directory of PostgreSQL's binaries: `MATRIARCH_TEST_PGBIN`, or the newest installed where distributions put
/// them.
pub fn postgres_bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("MATRIARCH_TEST_PGBIN") {
        return dir.into();
    }
    let version =
        |dir: &Path| dir.parent().and_then(Path::file_name)?.to_str()?.trim_start_matches("pgsql-").parse().ok();
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for parent in ["/usr/lib/postgresql", "/usr"] {
        let dirs = std::fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
        found.extend(dirs.filter(|dir| dir.join("initdb").exists()).filter_map(|dir| Some((version(&dir)?, dir))));
    }
    let in_path = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).find(|dir| dir.join("initdb").exists())
    };
    let newest = found.into_iter().max().map(|(_, dir)| dir).or_else(in_path);
    newest.expect("PostgreSQL's binaries are not installed; tests/run installs them")
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    Uid::effective().is_root()
}

/// The account of the servers: ours, or if we are root `MATRIARCH_TEST_USER`, by default `postgres`.
pub(crate) fn account() -> User {
    if !is_root() {
        return User::from_uid(Uid::effective()).ok().flatten().expect("our own account");
    }
    let name = std::env::var("MATRIARCH_TEST_USER").unwrap_or_else(|_| "postgres".to_owned());
    let found = User::from_name(&name).ok().flatten();
    found.unwrap_or_else(|| panic!("there is no account {name}; tests/run installs PostgreSQL, which makes one"))
}

/// The name of the account's group.
pub(crate) fn account_group() -> String {
    Group::from_gid(account().gid).ok().flatten().expect("the account's group").name
}
