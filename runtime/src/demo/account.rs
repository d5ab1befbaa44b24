//! The account that PostgreSQL runs as. It refuses root, so a demo started as root needs somebody else.

use anyhow::{Context, bail};
use nix::unistd::{Uid, User};

/// The account for agents and servers; `None` if the demo is not root: then everything runs as whoever started it.
///
/// PostgreSQL's own account if there is one, else whoever called sudo, else the account that owns nothing.
pub(super) fn choose() -> anyhow::Result<Option<User>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let caller = std::env::var("SUDO_USER").ok();
    for name in ["postgres"].into_iter().chain(caller.as_deref()).chain(["nobody"]) {
        let found = User::from_name(name).with_context(|| format!("looking for the account {name}"))?;
        if let Some(user) = found.filter(|user| !user.uid.is_root()) {
            return Ok(Some(user));
        }
    }
    bail!("PostgreSQL refuses root and there is no other account: create one with `useradd --system postgres`")
}
