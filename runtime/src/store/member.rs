//! One member of the store: its channel, its client, and what its answers mean.

use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{Channel as EtcdChannel, Client, ConnectOptions, Error, KeyValue, ResponseHeader};
use hyper_util::rt::TokioIo;
use matriarch_core::id::{LeaseId, Revision};
use matriarch_core::op::Refusal;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::service_fn;

use super::Entry;
use super::keep_alive::Keeper;
use crate::clock::Clock;
use crate::net::Connector;

/// How long one attempt to connect may take.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How often an otherwise silent connection is probed (HTTP/2 ping). etcd closes connections that ping much more often.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long the answer to such a probe may take before the connection counts as dead.
const PING_MAX: Duration = Duration::from_secs(3);
/// A reply larger than this is refused by the client; etcd's requests end at 1.5 MiB, a prefix may hold several values.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// Why an attempt through a member did not bring the answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// Nothing was sent, or nothing sent was looked at, so nothing happened: another member may be asked for anything.
    NotSent(String),
    /// Not answered, or not in a usable way: a write may have happened.
    Ambiguous(String),
    /// The store said no.
    Refused(Refusal),
}

/// One member. Never more than one address behind a channel: etcd-client's balancer fails a third of all calls with one
/// of two members dead.
pub(super) struct Member {
    /// `host:port`.
    pub(super) host: String,
    channel: Channel,
    login: Option<(String, String)>,
    /// What is asked and heard is dated by it.
    pub(super) clock: Arc<dyn Clock>,
    client: Mutex<Option<Client>>,
    keeper: Mutex<Option<Keeper>>,
    marks: Mutex<Marks>,
}

#[derive(Default, Clone, Copy)]
struct Marks {
    heard: Option<Instant>,
    failed: Option<Instant>,
}

impl Member {
    /// A member behind `host` (`host:port`, a URL scheme is dropped). Connects when first used. Must be called within a
    /// tokio runtime.
    pub(super) fn new(
        host: &str,
        login: Option<(String, String)>,
        connector: Connector,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let host = host.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let (target, scheme) = (host.clone(), connector.scheme());
        let connect = service_fn(move |_: http::Uri| {
            let connecting = connector.connect(&target);
            async move { connecting.await.map(TokioIo::new) }
        });
        // The name only fills HTTP/2's :authority; where to connect is the connector's business. By the scheme etcd knows
        // that there is a certificate to take the user's name from.
        let authority = http::Uri::builder().scheme(scheme).authority(host.as_str()).path_and_query("/").build();
        let endpoint = authority.map_or_else(|_| Endpoint::from_static("http://store"), Endpoint::from);
        let channel = endpoint
            .connect_timeout(CONNECT_MAX)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_MAX)
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(connect);
        Self {
            host,
            channel,
            login,
            clock,
            client: Mutex::default(),
            keeper: Mutex::default(),
            marks: Mutex::default(),
        }
    }

    /// The bare channel, for the one call whose replies the client library does not hand out.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The stream of keep-alives that was kept, for one question.
    pub(super) fn take_keeper(&self) -> Option<Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Keeps a stream of keep-alives on which nothing is to be answered any more.
    pub(super) fn keep(&self, keeper: Keeper) {
        *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
    }

    /// The client, logged in if there is a login.
    pub(super) async fn client(&self) -> Result<Client, Fault> {
        let held = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(client) = held {
            return Ok(client);
        }
        let mut options = ConnectOptions::new().with_require_leader(true).with_auto_token_refresh(true);
        if let Some((user, password)) = &self.login {
            options = options.with_user(user, password);
        }
        let channel = EtcdChannel::Tonic(self.channel.clone());
        let client = Client::from_channel(channel, Some(options)).await.map_err(|error| match self.fault(error) {
            // Only the login was sent.
            Fault::Ambiguous(why) => Fault::NotSent(why),
            other => other,
        })?;
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
        Ok(client)
    }

    /// A client for reads of whole prefixes.
    pub(super) async fn kv(&self) -> Result<etcd_client::KvClient, Fault> {
        Ok(self.client().await?.kv_client().max_decoding_message_size(REPLY_BYTES_MAX))
    }

    /// What an error of the client library means.
    pub(super) fn fault(&self, error: Error) -> Fault {
        match error {
            Error::GRpcStatus(status) => self.status(&status),
            other => Fault::Ambiguous(format!("{}: {other}", self.host)),
        }
    }

    /// What a status means. Only etcd's own words, never a transport's, are an answer.
    pub(super) fn status(&self, status: &Status) -> Fault {
        let text = format!("{}: {}", self.host, status.message());
        if never_connected(status) {
            return Fault::NotSent(text);
        }
        let words = status.message();
        if !words.starts_with("etcdserver: ") {
            return Fault::Ambiguous(text);
        }
        if words.contains("revision of auth store is old") || words.contains("invalid auth token") {
            // Checked before anything is applied; a fresh login is what helps.
            self.client.lock().unwrap_or_else(PoisonError::into_inner).take();
            return Fault::NotSent(text);
        }
        if words == "etcdserver: no leader" {
            // We ask for this check, and it is made before the request is looked at.
            return Fault::NotSent(text);
        }
        match status.code() {
            Code::NotFound if words.contains("lease not found") => Fault::Refused(Refusal::LeaseGone),
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::ResourceExhausted => Fault::Refused(Refusal::Failed(text)),
            // "request timed out", "leader changed", ...: it may have been applied.
            _ => Fault::Ambiguous(text),
        }
    }

    /// Notes that the member answered.
    pub(super) fn mark_heard(&self) {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).heard = Some(Instant::now());
    }

    /// Notes that the member did not answer.
    pub(super) fn mark_failed(&self) {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).failed = Some(Instant::now());
    }

    /// When the member last failed; `None` if it never did.
    pub(super) fn failed_at(&self) -> Option<Instant> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).failed
    }

    /// Whether the member answered something within `age`, and has not failed since.
    pub(super) fn answered_within(&self, age: Duration) -> bool {
        let marks = *self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.heard.is_some_and(|heard| heard.elapsed() < age && marks.failed.is_none_or(|failed| failed < heard))
    }
}

/// Whether the status is about a connection that could not be made, so that no request left this host.
fn never_connected(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The header of a reply; etcd sends one with every reply.
pub(super) fn header<'a>(host: &str, header: Option<&'a ResponseHeader>) -> Result<&'a ResponseHeader, Fault> {
    header.ok_or_else(|| Fault::Ambiguous(format!("{host}: a reply without a header")))
}

/// An entry from the library's type.
pub(super) fn entry(kv: &KeyValue) -> Entry {
    Entry {
        key: String::from_utf8_lossy(kv.key()).into_owned(),
        value: kv.value().to_vec(),
        create_revision: Revision(kv.create_revision()),
        mod_revision: Revision(kv.mod_revision()),
        version: kv.version(),
        lease: LeaseId(kv.lease()),
    }
}
