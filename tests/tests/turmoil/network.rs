//! Connections of turmoil's network as the runtime wants them, and its time as the runtime's clock.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use matriarch::clock::{Alarm, Clock};
use matriarch::net::{BoxStream, Connector, Listener};
use matriarch_core::time::{Instant, WallMillis};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use turmoil::net::{TcpListener, TcpStream};

/// What the clocks of all hosts show at the beginning.
const BOOTED: Duration = Duration::from_hours(1);
/// What the wall clocks show at the beginning, in milliseconds since the Unix epoch.
pub(super) const EPOCH_MS: i64 = 1_770_000_000_000;

/// What a host's clock shows so long after the beginning.
pub(super) fn instant(elapsed: Duration) -> Instant {
    Instant::ZERO + BOOTED + elapsed
}

/// Turmoil's time. There is one for all hosts: clocks that run wrong are for the simulated world.
pub(super) struct SimulatedClock;

/// Time since the beginning, as the host that runs now sees it.
pub(super) fn elapsed() -> Duration {
    turmoil::sim_elapsed().expect("a host of the simulation asks for the time")
}

impl Clock for SimulatedClock {
    fn now(&self) -> Instant {
        instant(elapsed())
    }

    fn wall(&self) -> WallMillis {
        WallMillis(EPOCH_MS + elapsed().as_millis() as i64)
    }

    fn alarm(&self) -> io::Result<Box<dyn Alarm>> {
        Ok(Box::new(SimulatedAlarm))
    }
}

struct SimulatedAlarm;

impl Alarm for SimulatedAlarm {
    fn rings(&mut self, wake: Option<Instant>) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let Some(wake) = wake else { return std::future::pending().await };
            while SimulatedClock.now() < wake {
                tokio::time::sleep(wake.since(SimulatedClock.now())).await;
            }
        })
    }
}

/// Connects over turmoil's network.
pub(super) fn connector() -> Connector {
    Connector::new(|addr| Box::pin(async move { Ok(Box::new(TcpStream::connect(addr).await?) as BoxStream) }))
}

/// Listens on turmoil's network.
pub(super) async fn listen(port: u16) -> io::Result<Listener> {
    let listener = Arc::new(TcpListener::bind(("0.0.0.0", port)).await?);
    Ok(Listener::new(move || {
        let listener = Arc::clone(&listener);
        Box::pin(async move {
            let (stream, peer) = listener.accept().await?;
            Ok((Box::new(stream) as BoxStream, peer.ip()))
        })
    }))
}

/// A connection that tonic takes.
pub(super) struct Connection(TcpStream);

impl tonic::transport::server::Connected for Connection {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The connections that come to `listener`.
pub(super) fn incoming(listener: TcpListener) -> impl Stream<Item = io::Result<Connection>> {
    let (connections, incoming) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if connections.send(Ok(Connection(stream))).await.is_err() {
                break;
            }
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(incoming)
}
