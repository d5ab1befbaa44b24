//! The REST API: Patroni's endpoints with Patroni's codes and texts, and Matriarch's own (`/why`, `/matriarch/...`).
//!
//! Routing is Patroni's: method and first path segment choose an endpoint, any other `GET` and every `HEAD` and
//! `OPTIONS` is a health check on the whole path. `routes` has them all, and `/openapi.json` is made of it. Nothing here remembers a role: each answer compares the clock with
//! what the guard has acknowledged.

mod allow;
mod cluster;
mod configure;
mod control;
mod facts;
mod freshness;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod health;
mod metrics;
mod openapi;
mod peer;
mod query;
mod read;
pub(crate) mod reply;
mod routes;
mod status;
#[cfg(test)]
pub(crate) mod tests;
mod why;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, watch};

use crate::agent::handle::Handle;
use crate::agent::namesake;
use crate::config::{Credentials, LocalConfig};
use crate::http::{Client, basic_authorization};
use crate::net::{BoxStream, Listener};
use crate::tls;
pub use allow::Allowlist;
pub use control::server_version;
use facts::Facts;
use freshness::Freshness;
use query::Query;
pub use read::{ClusterRead, FreshRead, GuardedPut, StoreAccess, put_guarded, put_key, read_cluster, store_access};
use reply::Reply;
use routes::Endpoint;

/// Connections served at once; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 128;
/// How long a client may take to send the head of its request, and how long an idle connection is kept.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// How long a client may take to send the body of its request.
const BODY_LIMIT: Duration = Duration::from_secs(10);
/// How long a client may take to shake hands.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// The largest body of a request: a configuration may be as large as a value of etcd.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// What the API is configured with. All of it can change while it serves.
#[derive(Clone)]
pub struct ApiSettings {
    /// Who may use the unsafe endpoints; anyone if absent.
    pub authentication: Option<Credentials>,
    /// From where the unsafe endpoints may be used.
    pub allowlist: Allowlist,
    /// TLS for the connections to come; without it they are plain.
    pub tls: Option<tls::Server>,
    /// Headers added to every answer that has a body (`restapi.http_extra_headers`, over TLS `https_extra_headers` too).
    pub extra_headers: Vec<(String, String)>,
    /// `restapi.server_tokens`: `original`, `minimal` or `productonly`.
    pub server_tokens: String,
    /// The store, for what an operator reads and writes.
    pub store: StoreAccess,
    /// To the other agents.
    pub peers: Client,
}

impl ApiSettings {
    /// What the local configuration says. Names in the allowlist are resolved now.
    pub async fn new(local: &LocalConfig, store: StoreAccess, peers: Client) -> Self {
        let restapi = &local.restapi;
        // The later of two headers with one name counts.
        let mut extra_headers = restapi.http_extra_headers.clone();
        if restapi.tls.is_some() {
            extra_headers.extend_from_slice(&restapi.https_extra_headers);
        }
        Self {
            authentication: restapi.authentication.clone(),
            allowlist: Allowlist::resolve(&restapi.allowlist, restapi.allowlist_include_members).await,
            tls: restapi.tls.clone(),
            extra_headers,
            server_tokens: restapi.server_tokens.clone(),
            store,
            peers,
        }
    }
}

/// Serves the API on `listener` until it is dropped. `settings` may change while it serves (a reload).
pub async fn serve(listener: Listener, handle: Handle, settings: watch::Receiver<ApiSettings>) {
    let freshness = Arc::new(Freshness::new(handle.clone()));
    tokio::select! {
        () = freshness.keep() => {}
        () = take_in_all(listener, handle, &freshness, settings) => {}
    }
}

async fn take_in_all(
    listener: Listener,
    handle: Handle,
    freshness: &Arc<Freshness>,
    settings: watch::Receiver<ApiSettings>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, client)) => {
                let (handle, freshness, settings) = (handle.clone(), Arc::clone(freshness), settings.clone());
                let api = Api { handle, freshness, settings, client, certified: false };
                tokio::spawn(async move {
                    api.take_in(stream).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors or memory: an accept that is repeated at once would only burn the processor.
                tracing::warn!(%error, "the REST API could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// What serves one connection.
#[derive(Clone)]
struct Api {
    handle: Handle,
    freshness: Arc<Freshness>,
    settings: watch::Receiver<ApiSettings>,
    client: IpAddr,
    /// The client has shown a certificate, and it was good.
    certified: bool,
}

impl Api {
    /// Shakes hands if there is TLS, beside all other connections, and serves the connection.
    async fn take_in(mut self, stream: BoxStream) {
        let tls = self.settings.borrow().tls.clone();
        let Some(tls) = tls else { return self.connection(stream).await };
        match tokio::time::timeout(HANDSHAKE_LIMIT, tls.accept(stream)).await {
            Ok(Ok((stream, certified))) => {
                self.certified = certified;
                self.connection(stream).await;
            }
            // Whoever looks whether the port is open ends like this as well.
            Ok(Err(error)) => tracing::debug!(client = %self.client, %error, "no TLS with a client of the REST API"),
            Err(_) => tracing::debug!(client = %self.client, "a client of the REST API did not shake hands in time"),
        }
    }

    async fn connection(self, stream: BoxStream) {
        let service = service_fn(|request| {
            let api = self.clone();
            async move { Ok::<_, Infallible>(api.respond(request).await) }
        });
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
        // A connection that the client breaks is no event.
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<http_body_util::Full<bytes::Bytes>> {
        let (parts, body) = request.into_parts();
        let call = Call {
            path: parts.uri.path().to_owned(),
            query: Query::parse(parts.uri.query().unwrap_or_default()),
            authorization: parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned),
            sized: parts.headers.contains_key(CONTENT_LENGTH) || parts.headers.contains_key(TRANSFER_ENCODING),
            method: parts.method,
        };
        let reply = self.reply(&call, body).await;
        let settings = self.settings.borrow();
        reply.into_response(&settings.server_tokens, &settings.extra_headers)
    }

    async fn reply(&self, call: &Call, body: Incoming) -> Reply {
        let Some(endpoint) = routes::endpoint(&call.method, &call.path) else {
            return Reply::error_page(501, &format!("Unsupported method ('{}')", call.method));
        };
        match endpoint {
            Endpoint::Check if call.method == Method::GET => health::check(self, call).await,
            Endpoint::Check => health::check(self, call).await.without_body(),
            Endpoint::Status => status::patroni(self).await,
            Endpoint::Cluster => cluster::cluster(self).await,
            Endpoint::History => cluster::history(self).await,
            Endpoint::Config => cluster::config(self),
            Endpoint::Failsafe => Reply::error_page(502, "Bad Gateway"),
            Endpoint::Metrics => metrics::metrics(self).await,
            Endpoint::Liveness => health::liveness(self),
            Endpoint::Readiness => health::readiness(self, call).await,
            Endpoint::Why => why::why(self, call).await,
            Endpoint::Description => openapi::description(),
            Endpoint::Replayed => peer::replayed(self, call).await,
            Endpoint::Instance => Reply::text(200, namesake::instance()),
            Endpoint::Position => peer::position(self, call, body).await,
            Endpoint::Configure | Endpoint::Control => self.ordered(endpoint, call, body).await,
        }
    }

    /// What an operator asks for.
    async fn ordered(&self, endpoint: Endpoint, call: &Call, body: Incoming) -> Reply {
        let name = call.path.split('/').nth(1).unwrap_or_default();
        let reply = match self.denied(call).await {
            Some(refusal) => refusal,
            None if endpoint == Endpoint::Configure => configure::configure(self, call, body).await,
            None => control::control(self, name, call, body).await,
        };
        tracing::info!(client = %self.client, endpoint = name, status = reply.status(), "an operator's request was answered");
        reply
    }

    /// Access to the unsafe endpoints (spec 2.7): first from where, then with which certificate, then who.
    async fn denied(&self, call: &Call) -> Option<Reply> {
        let settings = self.settings.borrow().clone();
        let api_urls = || {
            self.with_facts(|facts| {
                let members = facts.view.cluster().into_iter().flat_map(|cluster| cluster.members.values());
                members.map(|key| key.record.api_url.clone()).collect()
            })
        };
        // For a time when the store is away, which tells who the members are.
        let counted = (call.path.split('/').nth(1) != Some("failsafe")).then_some(api_urls);
        if !settings.allowlist.permits(self.client, counted).await {
            return Some(Reply::text(403, "Access is denied"));
        }
        if !self.certified && settings.tls.as_ref().is_some_and(tls::Server::demands_certificate) {
            return Some(Reply::text(403, "client certificate required"));
        }
        let expected = basic_authorization(settings.authentication.as_ref()?);
        match &call.authorization {
            None => Some(Reply::unauthorized("no auth header received")),
            Some(given) if same(given.as_bytes(), expected.as_bytes()) => None,
            Some(_) => Some(Reply::unauthorized("not authenticated")),
        }
    }

    /// Reads what is known under the lock, for a moment.
    fn with_facts<T>(&self, read: impl FnOnce(&Facts<'_>) -> T) -> T {
        let shared = self.handle.shared();
        read(&Facts::new(&shared, self.handle.clock().now()))
    }

    /// The cluster is paused.
    fn paused(&self) -> bool {
        Facts::new(&self.handle.shared(), self.handle.clock().now()).paused()
    }

    /// Facts for a health check: of a second ago, and at once.
    async fn freshen(&self) {
        self.freshness.wait(facts::FRESH_FOR, facts::CHECK_LIMIT).await;
    }

    /// Facts for what is compared: of now, if PostgreSQL answers at all.
    async fn freshen_for_comparison(&self) {
        self.freshness.wait(facts::PRESENT_FOR, facts::COMPARISON_LIMIT).await;
    }
}

/// A request, as far as endpoints need it.
struct Call {
    method: Method,
    path: String,
    query: Query,
    authorization: Option<String>,
    sized: bool,
}

impl Call {
    /// The JSON object in the body. Where the body is optional, none counts as an empty object.
    async fn object(&self, body: Incoming, optional: bool) -> Result<Map<String, Value>, Reply> {
        if !self.sized {
            return if optional { Ok(Map::new()) } else { Err(Reply::error_page(411, "Length Required")) };
        }
        let bad = || Reply::error_page(400, "Bad Request");
        let read = tokio::time::timeout(BODY_LIMIT, Limited::new(body, BODY_BYTES_MAX).collect()).await;
        let bytes = read.ok().and_then(Result::ok).ok_or_else(bad)?.to_bytes();
        if bytes.is_empty() && optional {
            return Ok(Map::new());
        }
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(object)) if optional || !object.is_empty() => Ok(object),
            _ => Err(bad()),
        }
    }
}

/// Compares without telling by its duration where two texts differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}
