//! The only place that connects to the store and to other agents, or listens, so that a simulated network can stand in
//! for the real one.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

use crate::tls::ClientSlot;

/// How long sent bytes may stay unacknowledged before the kernel calls the peer dead (TCP_USER_TIMEOUT). Without it a
/// peer whose host vanished holds a connection for the kernel's 15 minutes of retransmissions.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);

/// How long an answer may wait for a client that does not read it.
const UNREAD_MAX: Duration = Duration::from_secs(10);

/// Connections that the kernel holds for a listener that is busy.
const BACKLOG: u32 = 1024;

/// What a connection has to be able to do.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection, whatever carries it.
pub type BoxStream = Box<dyn Stream>;
/// A connection in the making.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<BoxStream>> + Send>>;

/// Opens connections to `host:port`. Real ones ([`Connector::tcp`]) or those of a simulated network.
#[derive(Clone)]
pub struct Connector {
    connect: Arc<dyn Fn(String) -> Connecting + Send + Sync>,
    /// They are encrypted.
    secure: bool,
}

impl Connector {
    /// A connector from a function of the address.
    pub fn new(connect: impl Fn(String) -> Connecting + Send + Sync + 'static) -> Self {
        Self { connect: Arc::new(connect), secure: false }
    }

    /// TCP through [`tcp_connect`]; each attempt may take `limit`.
    pub fn tcp(limit: Duration) -> Self {
        Self::new(move |addr| {
            Box::pin(async move {
                let stream = tcp_connect(&addr, limit).await?;
                Ok(Box::new(stream) as BoxStream)
            })
        })
    }

    /// The same connections with TLS over them.
    #[must_use]
    pub fn over_tls(self, tls: ClientSlot) -> Self {
        let connect = move |addr: String| -> Connecting {
            let (connecting, tls) = (self.connect(&addr), tls.clone());
            Box::pin(async move { tls.connect(&addr, connecting.await?).await })
        };
        Self { connect: Arc::new(connect), secure: true }
    }

    /// The scheme of a URL that leads through these connections.
    pub fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// Connects to `addr`, a `host:port`.
    pub fn connect(&self, addr: &str) -> Connecting {
        (self.connect)(addr.to_owned())
    }
}

/// A connection that is awaited, with the address that it comes from.
pub type Accepting = Pin<Box<dyn Future<Output = io::Result<(BoxStream, IpAddr)>> + Send>>;

/// Takes connections in. Real ones ([`Listener::tcp`]) or those of a simulated network.
pub struct Listener(Box<dyn Fn() -> Accepting + Send + Sync>);

impl Listener {
    /// A listener from a function that waits for the next connection.
    pub fn new(accept: impl Fn() -> Accepting + Send + Sync + 'static) -> Self {
        Self(Box::new(accept))
    }

    /// TCP.
    pub fn tcp(listener: TcpListener) -> Self {
        let listener = Arc::new(listener);
        Self::new(move || {
            let listener = Arc::clone(&listener);
            Box::pin(async move {
                let (stream, peer) = listener.accept().await?;
                // Without it a client's acknowledgement may delay the second packet of an answer by 40 ms.
                let _ = stream.set_nodelay(true);
                // One that asks and asks and never reads would hold its place for ever.
                let _ = sockopt::set_tcp_user_timeout(&stream, UNREAD_MAX.as_millis() as u32);
                Ok((Box::new(stream) as BoxStream, peer.ip()))
            })
        })
    }

    /// Waits for the next connection.
    pub fn accept(&self) -> Accepting {
        (self.0)()
    }
}

/// Connects to `addr` (`host:port`, IPv6 in brackets) within `deadline`, trying each address of the name in turn.
/// TCP_NODELAY is on and TCP_USER_TIMEOUT is set. Errors name the address.
pub async fn tcp_connect(addr: &str, deadline: Duration) -> io::Result<TcpStream> {
    let attempt = async {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for resolved in lookup_host(addr).await? {
            match TcpStream::connect(resolved).await {
                Ok(stream) => return prepare(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    let outcome = tokio::time::timeout(deadline, attempt).await;
    let outcome = outcome.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")));
    outcome.map_err(|error| io::Error::new(error.kind(), format!("cannot connect to {addr}: {error}")))
}

fn prepare(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED_MAX.as_millis() as u32)?;
    Ok(stream)
}

/// Listens on `addr` (`host:port`; the first address of the name) with SO_REUSEADDR, so that a restarted process need
/// not wait for old connections to leave TIME_WAIT. The host `*`, or none, means all addresses: those of IPv6 and IPv4
/// through one socket where the kernel has IPv6, those of IPv4 elsewhere. Errors name the address and what to do.
pub async fn tcp_listen(addr: &str) -> io::Result<TcpListener> {
    let outcome = match addr.strip_prefix('*').unwrap_or(addr).strip_prefix(':') {
        Some(port) if !port.contains(':') => listen_everywhere(port),
        _ => match first_address(addr).await {
            Ok(resolved) => listen_at(resolved),
            Err(error) => Err(error),
        },
    };
    outcome.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {addr}: {error}{}", listen_advice(error.kind())))
    })
}

/// The first address of a name. Whatever the resolver complains about, it is the name that was not found.
async fn first_address(addr: &str) -> io::Result<SocketAddr> {
    let not_found = |why: String| io::Error::new(io::ErrorKind::NotFound, why);
    let mut addresses = lookup_host(addr).await.map_err(|error| not_found(error.to_string()))?;
    addresses.next().ok_or_else(|| not_found("the name has no address".to_owned()))
}

fn listen_everywhere(port: &str) -> io::Result<TcpListener> {
    let port: u16 =
        port.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{port} is not a port")))?;
    match listen_at(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
        Err(error) if is_without_ipv6(&error) => listen_at(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
        outcome => outcome,
    }
}

/// The kernel has no IPv6, or it is switched off.
fn is_without_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn listen_at(resolved: SocketAddr) -> io::Result<TcpListener> {
    let socket = if resolved.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if resolved.ip() == Ipv6Addr::UNSPECIFIED {
        // Whether `::` takes IPv4 as well is else the choice of the host (net.ipv6.bindv6only).
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(resolved)?;
    socket.listen(BACKLOG)
}

/// The way out, by what went wrong.
fn listen_advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => {
            "; stop what uses the port (`ss -ltnp` names it; another agent?) or take another port"
        }
        io::ErrorKind::NotFound => "; correct the name, or give an address of this host",
        io::ErrorKind::AddrNotAvailable => {
            "; no interface of this host has the address (`ip addr` lists them): correct it, or listen on `*`"
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need root or CAP_NET_BIND_SERVICE: take a higher port, or grant it"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn all_addresses_are_those_of_both_families() {
        for addr in ["*:0", ":0"] {
            let listener = tcp_listen(addr).await.unwrap();
            let local = listener.local_addr().unwrap();
            assert!(local.ip().is_unspecified(), "{addr}: {local}");
            tcp_connect(&format!("127.0.0.1:{}", local.port()), LIMIT).await.unwrap();
            if local.is_ipv6() {
                tcp_connect(&format!("[::1]:{}", local.port()), LIMIT).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn what_cannot_be_listened_on_is_named_with_the_way_out() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let in_use = taken.local_addr().unwrap().to_string();
        for (addr, kind, advice) in [
            (in_use.as_str(), io::ErrorKind::AddrInUse, "stop what uses the port"),
            ("name.invalid:0", io::ErrorKind::NotFound, "correct the name"),
            ("192.0.2.1:0", io::ErrorKind::AddrNotAvailable, "no interface of this host has the address"),
            ("*:70000", io::ErrorKind::InvalidInput, "70000 is not a port"),
        ] {
            let error = tcp_listen(addr).await.unwrap_err();
            let text = error.to_string();
            assert_eq!(error.kind(), kind, "{text}");
            assert!(text.starts_with(&format!("cannot listen on {addr}: ")) && text.contains(advice), "{text}");
        }
        assert!(listen_advice(io::ErrorKind::PermissionDenied).contains("CAP_NET_BIND_SERVICE"));
    }
}
