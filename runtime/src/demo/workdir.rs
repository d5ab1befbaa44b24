//! The directory of one demo, and what lies in it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::unistd::User;
use rand::RngExt;

/// What marks a directory as a demo's: only such a one is ever stopped and removed by name.
const MARK: &str = "matriarch-demo";
/// Where ports are looked for: below the range that Linux gives to outgoing connections (32768 on), since one of those
/// could take the port of a server that is just down. Well-known ports of databases and stores are lower.
const PORTS: std::ops::Range<u16> = 17_000..32_000;

/// The directory of one demo. It is not removed when dropped: cleaning up knows when no process uses it any more.
#[derive(Clone, Debug)]
pub(super) struct Workdir {
    path: PathBuf,
}

impl Workdir {
    /// Makes a new one that `account` can enter.
    pub(super) fn create(account: Option<&User>) -> anyhow::Result<Self> {
        let mut places = vec![std::env::temp_dir(), "/tmp".into(), "/var/tmp".into()];
        // Root's own place for temporary files may be closed to everybody else.
        places.retain(|place| account.is_none() || is_open_to_all(place));
        let Some(place) = places.first() else {
            bail!("no directory for temporary files can be entered by every account; set TMPDIR to one that can")
        };
        let path = place.join(format!("matriarch-demo.{:06x}", rand::rng().random_range(0..0x100_0000)));
        let mut builder = DirBuilder::new();
        builder.mode(0o755).create(&path).with_context(|| {
            format!("the directory {} cannot be made; set TMPDIR to a place that can be written", path.display())
        })?;
        let made = Self { path };
        made.mark().inspect_err(|_| drop(fs::remove_dir_all(&made.path)))?;
        Ok(made)
    }

    fn mark(&self) -> anyhow::Result<()> {
        self.file(MARK, &format!("{}\n", std::process::id()), None)?;
        // The mask of the caller may have closed it.
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o755)).context("opening the directory to all")
    }

    /// The directory of a demo that was left running.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let path = fs::canonicalize(path).with_context(|| format!("{}: no demo runs there", path.display()))?;
        if !path.join(MARK).is_file() {
            bail!("{} is not the directory of a demo: `matriarch demo --keep` tells the right one", path.display());
        }
        Ok(Self { path })
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of a node: configuration, data, state, logs.
    pub(super) fn node(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes a directory in it for `account` alone.
    pub(super) fn directory(&self, name: &str, account: Option<&User>) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        DirBuilder::new().mode(0o700).create(&path).with_context(|| path.display().to_string())?;
        own(&path, account)?;
        Ok(path)
    }

    /// Writes a file in it that only `account` can read.
    pub(super) fn file(&self, name: &str, text: &str, account: Option<&User>) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = made.and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| format!("writing {}", path.display()))?;
        own(&path, account)?;
        Ok(path)
    }

    /// A log, to be appended to.
    pub(super) fn log(&self, name: &str) -> anyhow::Result<File> {
        let path = self.path.join(name);
        OpenOptions::new().append(true).create(true).open(&path).with_context(|| path.display().to_string())
    }

    /// What is there for nodes, and for the store.
    pub(super) fn node_dirs(&self) -> Vec<PathBuf> {
        fs::read_dir(&self.path).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    }

    /// The data directories of all nodes that are there.
    pub(super) fn data_dirs(&self) -> Vec<PathBuf> {
        let data = self.node_dirs().into_iter().map(|node| node.join("data"));
        data.filter(|data| data.join("PG_VERSION").is_file()).collect()
    }

    /// Copies what explains a failure to a directory beside it that stays; its path.
    pub(super) fn keep_logs(&self) -> anyhow::Result<PathBuf> {
        let mut kept = self.path.clone().into_os_string();
        kept.push(".logs");
        let kept = PathBuf::from(kept);
        DirBuilder::new().mode(0o700).create(&kept).with_context(|| kept.display().to_string())?;
        for entry in fs::read_dir(&self.path)?.flatten() {
            let name = entry.file_name();
            let inside = entry.path();
            for log in ["agent.log", "store.log", "agent.yml", "state/postgresql.log", "state/guard.log"] {
                let from = inside.join(log);
                if from.is_file() {
                    let to = format!("{}.{}", name.display(), log.rsplit('/').next().unwrap_or(log));
                    fs::copy(&from, kept.join(to)).with_context(|| from.display().to_string())?;
                }
            }
        }
        Ok(kept)
    }
}

fn own(path: &Path, account: Option<&User>) -> anyhow::Result<()> {
    let Some(user) = account else { return Ok(()) };
    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
        .with_context(|| format!("owner of {}", path.display()))
}

/// Every account may enter every directory on the way.
pub(super) fn is_open_to_all(path: &Path) -> bool {
    let Ok(path) = fs::canonicalize(path) else { return false };
    path.ancestors().all(|part| fs::metadata(part).is_ok_and(|found| found.permissions().mode() & 0o001 != 0))
}

/// The executable that agents are started from: ours, or a copy in the demo's directory where `account` cannot reach
/// ours. The guard starts it again as that account to give a tenure back.
pub(super) fn executable(workdir: &Workdir, account: Option<&User>) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("our own executable")?;
    if account.is_none() || is_open_to_all(&own) {
        return Ok(own);
    }
    let copy = workdir.path.join("matriarch");
    fs::copy(&own, &copy).with_context(|| format!("copying {} to {}", own.display(), copy.display()))?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    Ok(copy)
}

/// Ports on the loopback address that nobody has now.
pub(super) fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let mut held = Vec::with_capacity(N);
    let begin = rand::rng().random_range(PORTS);
    for port in (begin..PORTS.end).chain(PORTS.start..begin) {
        if held.len() == N {
            break;
        }
        held.extend(TcpListener::bind(("127.0.0.1", port)).map(|listener| (port, listener)));
    }
    let ports: Vec<u16> = held.iter().map(|(port, _)| *port).collect();
    let found = ports.len();
    ports.try_into().map_err(|_| anyhow::anyhow!("{N} free ports are needed on 127.0.0.1, {found} were found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_differ() {
        let ports: [u16; 7] = free_ports().unwrap();
        let distinct: std::collections::BTreeSet<u16> = ports.into_iter().collect();
        assert_eq!(distinct.len(), 7);
        assert!(distinct.iter().all(|port| PORTS.contains(port)));
    }

    #[test]
    fn a_directory_that_is_no_demo_is_refused() {
        let other = tempfile::tempdir().unwrap();
        let refused = Workdir::open(other.path()).unwrap_err().to_string();
        assert!(refused.contains("is not the directory of a demo"), "{refused}");
    }
}
