//! The account that everything runs as. PostgreSQL refuses root, so an agent started as root becomes somebody else,
//! after it has prepared what only root can.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use anyhow::{Context, bail};
use nix::unistd::{Gid, Group, Uid, User, initgroups, setgid, setuid};

/// The account to run as: `None` if the agent is not root.
pub(super) fn chosen(wanted: Option<&str>) -> anyhow::Result<Option<User>> {
    if !Uid::effective().is_root() {
        if let Some(name) = wanted {
            let me = User::from_uid(Uid::effective())?.map(|user| user.name);
            if me.as_deref() != Some(name) {
                bail!("--user {name} needs root; start the agent as root or as {name}");
            }
        }
        return Ok(None);
    }
    let name = wanted.unwrap_or("postgres");
    match User::from_name(name).with_context(|| format!("looking for the account {name}"))? {
        Some(user) if user.uid.is_root() => bail!("PostgreSQL refuses root: name another account with --user"),
        Some(user) => Ok(Some(user)),
        None => bail!(
            "PostgreSQL refuses root and there is no account {name}: create it (useradd --system {name}) or name \
             another with --user"
        ),
    }
}

/// Makes a directory for the account, and leaves one that is there alone.
pub(super) fn make_directory(path: &Path, user: Option<&User>) -> anyhow::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let shown = path.display();
    fs::create_dir_all(path).with_context(|| {
        format!("{shown} cannot be created: create it for the account of the agent, or correct its path")
    })?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).with_context(|| format!("permissions of {shown}"))?;
    if let Some(user) = user {
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).with_context(|| format!("owner of {shown}"))?;
    }
    Ok(())
}

/// Becomes the account, for good.
pub(super) fn become_user(user: &User) -> anyhow::Result<()> {
    let name = std::ffi::CString::new(user.name.as_str())?;
    initgroups(&name, user.gid).with_context(|| format!("groups of {}", user.name))?;
    setgid(user.gid).with_context(|| format!("becoming group {}", user.gid))?;
    setuid(user.uid).with_context(|| format!("becoming {}", user.name))?;
    let group = Group::from_gid(Gid::effective())?.map(|group| group.name).unwrap_or_default();
    tracing::info!(user = user.name, group, "started as root: running as another account from here on");
    Ok(())
}
