//! Whether the port that PostgreSQL is to listen on is free: a cluster that is made or cloned and then cannot start
//! has cost minutes, and the right to initialise.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use super::settings::Settings;

/// Why PostgreSQL could not listen on its port, if something else does.
pub fn port_taken(settings: &Settings) -> Option<String> {
    taken(&settings.listen_addresses, settings.port)
}

/// Why PostgreSQL could not listen: all its addresses are taken. With one of them free it starts, and warns.
/// `addresses` as `listen_addresses`. What cannot be tried here is PostgreSQL's to complain about.
fn taken(addresses: &str, port: u16) -> Option<String> {
    let mut in_use = false;
    for address in addresses.split(',').map(str::trim).filter(|address| !address.is_empty()) {
        for address in resolved(address, port) {
            match listen(address) {
                Ok(()) => return None,
                Err(Errno::ADDRINUSE) => in_use = true,
                Err(_) => {}
            }
        }
    }
    in_use.then(|| {
        format!(
            "port {port} of {addresses} is in use by another process: stop it (`ss -ltnp` names it) or change \
             postgresql.listen"
        )
    })
}

fn resolved(address: &str, port: u16) -> Vec<SocketAddr> {
    match address {
        "*" => vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()],
        name => (name, port).to_socket_addrs().map(Iterator::collect).unwrap_or_default(),
    }
}

/// As PostgreSQL does it, up to where it would hear connections.
fn listen(address: SocketAddr) -> Result<(), Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_is_taken_while_somebody_listens_on_all_its_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let why = taken("127.0.0.1", port).unwrap_or_default();
        assert!(why.starts_with(&format!("port {port} of 127.0.0.1 is in use by another process")), "{why}");
        assert!(taken("127.0.0.1, 127.0.0.1", port).is_some());
        assert_eq!(taken("127.0.0.1,127.0.0.2", port), None, "PostgreSQL would listen on the other");
        assert_eq!(taken("no.such.host.invalid", port), None);
        assert!(taken("no.such.host.invalid,127.0.0.1", port).is_some());
        assert_eq!(taken("", port), None);
        drop(listener);
        assert_eq!(taken("127.0.0.1", port), None);
    }
}
