//! Finding PostgreSQL's programs, and installing them where the package manager is known.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::screen::Screen;
use crate::postgres::tools::SUPPORTED_MAJORS;

/// What a node needs, all from one directory: programs of two versions do not go together.
const PROGRAMS: [&str; 5] = ["postgres", "initdb", "pg_basebackup", "pg_controldata", "pg_rewind"];

/// PostgreSQL as it was found.
#[derive(Clone, Debug)]
pub(super) struct Installed {
    /// Where its programs are.
    pub(super) bin_dir: PathBuf,
    /// `15.8`, as `postgres --version` tells it.
    pub(super) version: String,
}

/// Finds PostgreSQL, or installs it.
///
/// # Errors
/// There is none and it could not be installed; says exactly what to do.
pub(super) fn find_or_install(screen: &Screen) -> anyhow::Result<Installed> {
    if let Some(found) = find() {
        return Ok(found);
    }
    if !is_debian(&fs::read_to_string("/etc/os-release").unwrap_or_default()) {
        bail!(
            "PostgreSQL's server programs were not found. Install PostgreSQL 13 to 18 and run the demo again:\n  \
             Fedora, RHEL, Rocky, Alma:  dnf install postgresql-server postgresql-contrib\n  \
             Arch:                       pacman -S postgresql\n  \
             Alpine:                     apk add postgresql\n  \
             openSUSE:                   zypper install postgresql-server postgresql-contrib\n\
             or add the directory with its programs ({}) to PATH",
            PROGRAMS.join(", ")
        );
    }
    install(screen)?;
    find().context(
        "the package postgresql is installed, but its programs were not found in /usr/lib/postgresql/*/bin: add the \
         directory that holds them to PATH",
    )
}

fn install(screen: &Screen) -> anyhow::Result<()> {
    let by_hand = "apt-get update && apt-get install -y --no-install-recommends postgresql";
    let elevate = elevation().with_context(|| {
        format!(
            "PostgreSQL is not installed, and neither root nor sudo is at hand to install it. As root:\n  {by_hand}\n\
             Then run the demo again."
        )
    })?;
    let prefix = elevate.iter().fold(String::new(), |words, word| words + word + " ");
    screen.say("PostgreSQL is not installed. The demo now installs Debian's package `postgresql` by");
    for command in by_hand.split(" && ") {
        screen.say(&format!("  {prefix}{command}"));
    }
    screen.say("The package may start a server of its own on port 5432; the demo does not use it.");
    for arguments in [&["update", "-q"][..], &["install", "-y", "-q", "--no-install-recommends", "postgresql"][..]] {
        let mut words: Vec<&str> = elevate.clone();
        words.extend(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        words.extend(arguments);
        let Some((program, rest)) = words.split_first() else { continue };
        let mut command = Command::new(program);
        // Standard output may be a document for machines: what apt-get says goes to standard error.
        command.args(rest).stdout(Stdio::from(rustix::io::dup(rustix::stdio::stderr())?));
        let status = command.status().with_context(|| format!("running {program}"))?;
        // A list that could not be refreshed may still do; the installation itself tells.
        if !status.success() && arguments.first() == Some(&"install") {
            bail!(
                "apt-get could not install PostgreSQL ({status}); its words are above. By hand, as root:\n  {by_hand}"
            );
        }
    }
    Ok(())
}

/// The words that make a command run as root; none if we are root.
fn elevation() -> Option<Vec<&'static str>> {
    if rustix::process::geteuid().is_root() {
        return Some(Vec::new());
    }
    let silently = Command::new("sudo").args(["-n", "true"]).stdin(Stdio::null()).stderr(Stdio::null()).status();
    match silently {
        Ok(status) if status.success() => Some(vec!["sudo", "-n"]),
        // It can ask for the password.
        Ok(_) if std::io::stdin().is_terminal() => Some(vec!["sudo"]),
        Ok(_) | Err(_) => None,
    }
}

fn is_debian(os_release: &str) -> bool {
    os_release.lines().filter_map(|line| line.split_once('=')).any(|(key, value)| {
        matches!(key, "ID" | "ID_LIKE")
            && value.trim_matches('"').split_whitespace().any(|id| matches!(id, "debian" | "ubuntu"))
    })
}

fn find() -> Option<Installed> {
    directories().into_iter().find_map(|bin_dir| {
        let complete = PROGRAMS.iter().all(|program| bin_dir.join(program).is_file());
        let version = complete.then(|| version(&bin_dir)).flatten()?;
        Some(Installed { bin_dir, version })
    })
}

/// PATH first: whoever put a version there wants that one.
fn directories() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    for version in SUPPORTED_MAJORS.rev() {
        found.push(PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")));
        found.push(PathBuf::from(format!("/usr/pgsql-{version}/bin")));
        found.push(PathBuf::from(format!("/usr/libexec/postgresql{version}")));
    }
    found.extend(["/usr/local/pgsql/bin", "/usr/local/bin"].map(PathBuf::from));
    found.retain(|directory| directory.is_absolute());
    found
}

fn version(bin_dir: &Path) -> Option<String> {
    let said = Command::new(bin_dir.join("postgres")).arg("--version").stdin(Stdio::null()).output().ok()?;
    let version = supported_version(&String::from_utf8_lossy(&said.stdout))?.to_owned();
    Some(version)
}

/// The version in `postgres (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)`, if it is a supported one.
fn supported_version(said: &str) -> Option<&str> {
    let version = said.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    let major: u32 = version.get(..digits)?.parse().ok()?;
    SUPPORTED_MAJORS.contains(&major).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_are_not_supported_are_passed_over() {
        assert_eq!(supported_version("postgres (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)\n"), Some("15.8"));
        assert_eq!(supported_version("postgres (PostgreSQL) 18beta1"), Some("18beta1"));
        assert_eq!(supported_version("postgres (PostgreSQL) 12.22"), None);
        assert_eq!(supported_version("no such thing"), None);
    }

    #[test]
    fn derivatives_of_debian_are_debian() {
        assert!(is_debian("NAME=x\nID=debian\n"));
        assert!(is_debian("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian("ID=\"fedora\"\nID_LIKE=rhel\nHOME_URL=https://debian.org\n"));
    }
}
