//! A store of one node that speaks etcd's v3 gRPC API, for trying things out and for single machines. It survives its
//! own restart; it has no quorum, so it is no place for what is to survive the loss of its machine.

mod codec;
mod engine;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod history;
mod journal;
mod memory;
mod query;
mod service;
mod state;
#[cfg(test)]
mod tests;
mod watches;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use matriarch_core::time::Instant;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use self::engine::Engine;
use self::journal::Journal;
pub use self::memory::{Memory, Running};
use self::service::Services;
use crate::net::tcp_listen;

/// How long connections may take to close when the server stops.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// `matriarch store`: a store for one machine.
#[derive(Args, Clone, Debug)]
pub struct StoreArgs {
    /// Address to listen on
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:2379")]
    pub listen: String,
    /// Directory for the data; made if it does not exist
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
}

/// Runs the store until SIGTERM or SIGINT.
pub fn run(args: &StoreArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let listener = tcp_listen(&args.listen).await?;
        anstream::println!(
            "matriarch store on {} with data in {}: for ONE machine only. It has no quorum; across hosts in production use \
             an etcd cluster of three or more members.",
            listener.local_addr()?,
            args.data.display()
        );
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        serve(listener, &args.data, shutdown).await
    })
}

/// Serves the data in `data_dir` on `listener` until `shutdown` is over. Errors name the file and what to do: a
/// directory that another store serves, that cannot be written, or that is damaged.
pub async fn serve(listener: TcpListener, data_dir: &Path, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let client_url = format!("http://{}", listener.local_addr()?);
    let opened = Journal::open(data_dir, Instant::ZERO)?;
    let (engine, handle) = Engine::on_disk(opened);
    let (close, closed) = oneshot::channel::<()>();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder()
        .add_routes(Services::new(handle, &client_url).routes())
        .serve_with_incoming_shutdown(incoming, async {
            // Closed by a message or by the sender's end.
            drop(closed.await);
        });
    let mut server = std::pin::pin!(server);
    tokio::select! {
        served = &mut server => return served.context("the store's server ended"),
        () = engine.run() => {}
        () = shutdown => {}
    }
    // The engine is gone, and with it the watches; what still comes is answered with "server stopped".
    drop(close);
    drop(timeout(CLOSE_MAX, server).await);
    Ok(())
}
