//! The only place that connects or listens, so that a simulated network can stand in for the real one.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

/// How long sent bytes may stay unacknowledged before the kernel calls the peer dead (TCP_USER_TIMEOUT). Without it a
/// peer whose host vanished holds a connection for the kernel's 15 minutes of retransmissions.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);

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
pub struct Connector(Arc<dyn Fn(String) -> Connecting + Send + Sync>);

impl Connector {
    /// A connector from a function of the address.
    pub fn new(connect: impl Fn(String) -> Connecting + Send + Sync + 'static) -> Self {
        Self(Arc::new(connect))
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

    /// Connects to `addr`, a `host:port`.
    pub fn connect(&self, addr: &str) -> Connecting {
        (self.0)(addr.to_owned())
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
/// not wait for old connections to leave TIME_WAIT. Errors name the address.
pub async fn tcp_listen(addr: &str) -> io::Result<TcpListener> {
    let listen = async {
        let resolved: Option<SocketAddr> = lookup_host(addr).await?.next();
        let resolved = resolved.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))?;
        let socket = if resolved.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(resolved)?;
        socket.listen(BACKLOG)
    };
    let outcome: io::Result<TcpListener> = listen.await;
    outcome.map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {addr}: {error}")))
}
