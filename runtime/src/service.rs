//! What the service manager is told: systemd's notification protocol (`sd_notify(3)`), which needs no more than datagrams
//! to the socket that `NOTIFY_SOCKET` names. With `Type=notify-reload` the unit is started when the REST API serves, a
//! reload takes as long as it does, and `systemctl status` shows what the agent decided last.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::{ClockId, clock_gettime};

/// The variable that names the manager's socket. No program that the agent starts inherits it.
pub const SOCKET: &str = "NOTIFY_SOCKET";

/// Whoever started this process and wants to hear of it; perhaps nobody.
#[derive(Debug, Default)]
pub struct ServiceManager(Option<UnixDatagram>);

impl ServiceManager {
    /// Nobody.
    pub fn none() -> Self {
        Self::default()
    }

    /// The one at this socket: a path, or `@` and an abstract name. One that is not there is a warning.
    pub fn at(socket: Option<OsString>) -> Self {
        let Some(socket) = socket.filter(|socket| !socket.is_empty()) else { return Self::none() };
        match connected(&socket) {
            Ok(connected) => Self(Some(connected)),
            Err(error) => {
                tracing::warn!("{SOCKET}: the service manager at {} is not told anything: {error}", socket.display());
                Self::none()
            }
        }
    }

    /// The agent serves; or a reload is over.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The configuration is being read again.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let us = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={us}"));
    }

    /// The agent was asked to leave.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// What `systemctl status` shows: one line.
    pub fn status(&self, line: &str) {
        self.tell(&format!("STATUS={}", line.replace('\n', " ")));
    }

    /// Never waits: a manager that is behind misses what it is told.
    fn tell(&self, what: &str) {
        if let Some(socket) = &self.0
            && let Err(error) = socket.send(what.as_bytes())
        {
            tracing::debug!(what, "the service manager was not told: {error}");
        }
    }
}

fn connected(socket: &OsStr) -> io::Result<UnixDatagram> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let datagrams = UnixDatagram::unbound()?;
    datagrams.connect_addr(&address)?;
    datagrams.set_nonblocking(true)?;
    Ok(datagrams)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    fn tells_all(service: &ServiceManager, manager: &UnixDatagram) {
        service.ready();
        assert_eq!(heard(manager), "READY=1");
        let before = clock_gettime(ClockId::Monotonic).tv_sec;
        service.reloading();
        let text = heard(manager);
        let us: i64 = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!((us / 1_000_000 - before).abs() <= 5, "{text}");
        service.stopping();
        assert_eq!(heard(manager), "STOPPING=1");
        service.status("leader: it\nserves");
        assert_eq!(heard(manager), "STATUS=leader: it serves");
    }

    #[test]
    fn a_manager_at_a_path_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        tells_all(&ServiceManager::at(Some(path.into())), &manager);
    }

    #[test]
    fn a_manager_with_an_abstract_name_is_told() {
        let name = format!("matriarch-service-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        tells_all(&ServiceManager::at(Some(format!("@{name}").into())), &manager);
    }

    #[test]
    fn nobody_and_one_that_is_gone_keep_nothing_waiting() {
        ServiceManager::at(None).ready();
        ServiceManager::at(Some("/nowhere/notify".into())).ready();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let service = ServiceManager::at(Some(path.into()));
        for _ in 0..10_000 {
            service.status("nobody reads this");
        }
        drop(manager);
        service.ready();
    }
}
