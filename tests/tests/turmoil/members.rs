//! The store: one state, served by members of their own hosts with the embedded store's own services, and what a member
//! can do wrong with a request.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyStream, StreamBody};
use matriarch::store::embedded::{Memory, Running};
use tokio::time::sleep;
use tokio_stream::StreamExt;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::service::Routes;
use tonic::transport::Server;
use tower::{Layer, Service};
use turmoil::net::TcpListener;

use super::network::incoming;

/// The port that members listen on.
pub(super) const PORT: u16 = 2379;

/// A store with all of its members.
#[derive(Clone)]
pub(super) struct Store {
    memory: Arc<Mutex<Memory>>,
    running: Arc<Mutex<Option<Running>>>,
    faults: Arc<Mutex<BTreeMap<String, Arc<Faults>>>>,
}

/// What a member does wrong.
#[derive(Default)]
pub(super) struct Faults {
    /// Watches say nothing any more, once they were confirmed.
    pub(super) silent_watches: AtomicBool,
    /// Requests are carried out and never answered: those whose path ends so.
    pub(super) unanswered: Mutex<Option<&'static str>>,
    /// Requests are carried out at once and answered so late: those whose path ends so.
    pub(super) late: Mutex<Option<(&'static str, Duration)>>,
}

impl Store {
    /// An empty one.
    pub(super) fn new() -> Self {
        let memory = Arc::new(Mutex::new(Memory::new(1)));
        Self { memory, running: Arc::default(), faults: Arc::default() }
    }

    /// What it holds.
    pub(super) fn memory(&self) -> Memory {
        self.memory.lock().unwrap().clone()
    }

    /// It is replaced by an empty one, or by what it held before, which `memory` tells; for the next run.
    pub(super) fn replace(&self, memory: Memory) {
        *self.memory.lock().unwrap() = memory;
    }

    /// The way to it, while it runs.
    pub(super) fn running(&self) -> Option<Running> {
        self.running.lock().unwrap().clone()
    }

    /// What a member does wrong.
    pub(super) fn faults(&self, member: &str) -> Arc<Faults> {
        Arc::clone(self.faults.lock().unwrap().entry(member.to_owned()).or_default())
    }

    /// What the members agree on. It has a host of its own: a member that is lost is not the store.
    pub(super) async fn agree(self, seed: u64) -> turmoil::Result {
        let (engine, running) = self.memory().run(seed);
        *self.running.lock().unwrap() = Some(running);
        engine.await;
        // Every member holds a way to it, and so does this.
        Err("the store's engine ended by itself".into())
    }

    /// One member.
    pub(super) async fn member(self, name: String) -> turmoil::Result {
        let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
        let running = loop {
            match self.running() {
                Some(running) => break running,
                None => sleep(Duration::from_millis(1)).await,
            }
        };
        let mut server = Server::builder().layer(WithFaults(self.faults(&name)));
        let routes = running.routes(&format!("http://{name}:{PORT}"));
        server.add_routes(routes).serve_with_incoming(incoming(listener)).await?;
        Ok(())
    }

    /// It stands still: members that are there find nobody to ask.
    pub(super) fn stopped(&self) {
        *self.running.lock().unwrap() = None;
    }
}

#[derive(Clone)]
struct WithFaults(Arc<Faults>);

impl Layer<Routes> for WithFaults {
    type Service = Faulty;
    fn layer(&self, routes: Routes) -> Faulty {
        Faulty { routes, faults: Arc::clone(&self.0) }
    }
}

#[derive(Clone)]
struct Faulty {
    routes: Routes,
    faults: Arc<Faults>,
}

impl Service<Request<Body>> for Faulty {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.routes, context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (path, faults) = (request.uri().path().to_owned(), Arc::clone(&self.faults));
        let answer = self.routes.call(request);
        Box::pin(async move {
            let response = answer.await?;
            if faults.unanswered.lock().unwrap().is_some_and(|end| path.ends_with(end)) {
                return std::future::pending().await;
            }
            let late = faults.late.lock().unwrap().filter(|(end, _)| path.ends_with(end));
            if let Some((_, late)) = late {
                sleep(late).await;
            }
            Ok(if path.ends_with("/Watch") { response.map(|body| muted(body, faults)) } else { response })
        })
    }
}

/// A watch's replies: the first confirms it, and comes always.
fn muted(body: Body, faults: Arc<Faults>) -> Body {
    let mut first = true;
    let frames = BodyStream::new(body).filter(move |_| {
        let confirms = std::mem::take(&mut first);
        confirms || !faults.silent_watches.load(Ordering::Relaxed)
    });
    Body::new(StreamBody::new(frames))
}
