//! A small HTTP/1.1 client: one request, one connection, one deadline.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::config::Credentials;
use crate::net::{BoxStream, Connector};
use crate::tls::ClientSlot;

/// The largest answer that is read. A cluster document is a few kilobytes.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The name that this program gives itself in requests and, unless configured otherwise, in answers.
pub const AGENT: &str = concat!("Matriarch/", env!("CARGO_PKG_VERSION"));

/// The value of the header `Authorization` for basic authentication (RFC 7617).
pub fn basic_authorization(credentials: &Credentials) -> String {
    let Credentials { username, password } = credentials;
    format!("Basic {}", base64(format!("{username}:{}", password.reveal()).as_bytes()))
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The URL cannot be used.
    #[error("{url}: {why}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// No connection: the request was not sent.
    #[error("{0}")]
    Connect(std::io::Error),
    /// Sent, in part at least, but not answered: it may have been acted on.
    #[error("{url}: {why}")]
    Exchange {
        /// The URL.
        url: String,
        /// What went wrong.
        why: String,
    },
}

impl HttpError {
    /// The request may have had its effect all the same.
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Self::Url { .. } | Self::Connect(_) => false,
            Self::Exchange { .. } => true,
        }
    }
}

/// Sends one request over TCP and without TLS, as [`Client::request`].
///
/// # Errors
/// As there.
pub async fn request(
    method: Method,
    url: &str,
    auth: Option<&Credentials>,
    body: Option<String>,
    deadline: Duration,
) -> Result<(u16, String), HttpError> {
    Client::new(Connector::tcp(deadline)).request(method, url, auth, body, deadline).await
}

/// Sends requests, each over a connection of its own.
#[derive(Clone)]
pub struct Client {
    plain: Connector,
    secure: Option<Connector>,
}

impl Client {
    /// A client over the connections of `connector`. It speaks no TLS: URLs with `https` are errors.
    pub fn new(connector: Connector) -> Self {
        Self { plain: connector, secure: None }
    }

    /// As [`Self::new`], with `tls` where the URL says `https`.
    pub fn with_tls(connector: Connector, tls: ClientSlot) -> Self {
        Self { secure: Some(connector.clone().over_tls(tls)), plain: connector }
    }

    /// Sends one request and reads the whole answer: its status and its body. `deadline` covers everything, connecting
    /// included. A body is sent as JSON.
    ///
    /// # Errors
    /// There is no complete answer. A status that says no is an answer, not an error.
    pub async fn request(
        &self,
        method: Method,
        url: &str,
        auth: Option<&Credentials>,
        body: Option<String>,
        deadline: Duration,
    ) -> Result<(u16, String), HttpError> {
        let end = Instant::now() + deadline;
        let (address, secure, request) = build(method, url, auth, body)?;
        let connector = match (secure, &self.secure) {
            (false, _) => &self.plain,
            (true, Some(connector)) => connector,
            (true, None) => return Err(unusable(url, "this client speaks no TLS; expected http://host:port/...")),
        };
        let connected = tokio::time::timeout_at(end, connector.connect(&address)).await;
        let stream = connected.unwrap_or_else(|_| Err(late(&address))).map_err(HttpError::Connect)?;
        let failed = |why: String| HttpError::Exchange { url: url.to_owned(), why };
        match tokio::time::timeout_at(end, exchange(stream, request)).await {
            Ok(outcome) => outcome.map_err(failed),
            Err(_) => Err(failed(format!("no complete answer within {} ms", deadline.as_millis()))),
        }
    }
}

fn late(address: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, format!("cannot connect to {address}: no answer in time"))
}

/// The scheme and authority of a member's `api_url`, to which an endpoint is appended: `http://10.0.0.1:8008`.
pub fn base_url(api_url: &str) -> Option<&str> {
    let (scheme, rest) = api_url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().filter(|authority| !authority.is_empty())?;
    api_url.get(..scheme.len() + 3 + authority.len())
}

fn unusable(url: &str, why: &str) -> HttpError {
    HttpError::Url { url: url.to_owned(), why: why.to_owned() }
}

/// Where to connect, whether by TLS, and what to send.
pub(crate) fn build(
    method: Method,
    url: &str,
    auth: Option<&Credentials>,
    body: Option<String>,
) -> Result<(String, bool, Request<Full<Bytes>>), HttpError> {
    let bad = |why: &str| unusable(url, why);
    let uri: Uri = url.parse().map_err(|_| bad("not a URL"))?;
    let (secure, usual_port) = match uri.scheme_str() {
        Some("http") => (false, 80),
        Some("https") => (true, 443),
        _ => return Err(bad("expected http://host:port/... or https://host:port/...")),
    };
    let authority = uri.authority().ok_or_else(|| bad("names no host"))?;
    let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(usual_port));
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut builder = Request::builder().method(method).uri(path);
    builder = builder.header(HOST, authority.as_str()).header(USER_AGENT, AGENT).header(CONNECTION, "close");
    if let Some(auth) = auth {
        builder = builder.header(AUTHORIZATION, basic_authorization(auth));
    }
    if let Some(body) = &body {
        // Told even if it is empty: Patroni answers 411 to a POST without a length.
        builder = builder.header(CONTENT_TYPE, "application/json").header(CONTENT_LENGTH, body.len());
    }
    let request = builder.body(Full::new(Bytes::from(body.unwrap_or_default())));
    Ok((address, secure, request.map_err(|error| bad(&error.to_string()))?))
}

/// What hyper says, and why: that a server wants a certificate stands in the cause.
fn with_cause(error: hyper::Error) -> String {
    std::error::Error::source(&error).map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// The connection is driven beside the exchange, not in a task of its own: it ends with the deadline.
async fn exchange(stream: BoxStream, request: Request<Full<Bytes>>) -> Result<(u16, String), String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(with_cause)?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(with_cause)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::pin!(answer);
    let broken = tokio::select! {
        biased;
        answered = &mut answer => return answered,
        ended = connection => ended.err().map(with_cause),
    };
    // The connection has ended: whatever it brought is with the answer already, which cannot wait for more.
    let answered: Result<_, String> = answer.await;
    answered.map_err(|why| broken.unwrap_or(why))
}

/// Base64 with padding (RFC 4648 section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u32| char::from(DIGITS[(bits & 63) as usize]);
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        text.push(digit(bits >> 18));
        text.push(digit(bits >> 12));
        text.push(if chunk.len() > 1 { digit(bits >> 6) } else { '=' });
        text.push(if chunk.len() > 2 { digit(bits) } else { '=' });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server that reads one request and answers with the given bytes, then closes.
    async fn answers(reply: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = vec![0; 4096];
            let read = stream.read(&mut seen).await.unwrap();
            stream.write_all(reply.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&seen[..read]).into_owned()
        });
        (url, served)
    }

    #[test]
    fn base64_follows_the_rfc() {
        let vectors =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("\u{ff}", "w78=")];
        for (plain, encoded) in vectors {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn the_base_of_an_api_url_is_scheme_and_authority() {
        assert_eq!(base_url("http://10.0.0.1:8008/patroni"), Some("http://10.0.0.1:8008"));
        assert_eq!(base_url("http://[::1]:8008"), Some("http://[::1]:8008"));
        assert_eq!(base_url("10.0.0.1:8008"), None);
        assert_eq!(base_url("http:///patroni"), None);
    }

    #[tokio::test]
    async fn an_answer_that_ends_with_the_connection_is_complete() {
        // Patroni answers with HTTP/1.0 and without Content-Length.
        let (url, served) = answers("HTTP/1.0 503 Service Unavailable\r\nServer: BaseHTTP\r\n\r\n{\"a\": 1}").await;
        let auth = Credentials { username: "u".into(), password: crate::config::Secret::new("p") };
        let path = format!("{url}/patroni?x=1");
        let answer = request(Method::POST, &path, Some(&auth), Some("{}".into()), Duration::from_secs(5)).await;
        assert_eq!(answer.unwrap(), (503, "{\"a\": 1}".to_owned()));
        let seen = served.await.unwrap().to_lowercase();
        assert!(seen.starts_with("post /patroni?x=1 http/1.1\r\n"), "{seen}");
        assert!(seen.contains("authorization: basic dtpw\r\n") && seen.contains("content-length: 2\r\n"), "{seen}");
    }

    #[tokio::test]
    async fn a_refused_connection_is_certain_and_a_broken_exchange_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let refused = request(Method::GET, &url, None, None, Duration::from_secs(5)).await.unwrap_err();
        assert!(!refused.is_ambiguous(), "{refused}");
        let (url, _served) = answers("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await;
        let broken = request(Method::GET, &url, None, None, Duration::from_secs(5)).await.unwrap_err();
        assert!(broken.is_ambiguous(), "{broken}");
    }

    #[tokio::test]
    async fn a_server_that_never_answers_costs_the_deadline_only() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let silent = request(Method::GET, &url, None, None, Duration::from_millis(50)).await.unwrap_err();
        assert!(silent.is_ambiguous() && silent.to_string().contains("50 ms"), "{silent}");
    }

    #[tokio::test]
    async fn a_url_that_cannot_be_used_says_why() {
        let https = request(Method::GET, "https://h/x", None, None, Duration::from_secs(1)).await.unwrap_err();
        assert!(https.to_string().contains("speaks no TLS") && !https.is_ambiguous(), "{https}");
        let bare = request(Method::GET, "h:8008", None, None, Duration::from_secs(1)).await.unwrap_err();
        assert!(!bare.is_ambiguous());
    }
}
