//! A small client for PostgreSQL's replication protocol: `IDENTIFY_SYSTEM`, `TIMELINE_HISTORY` and `SHOW`, with the
//! credentials that every standby has anyway. tokio-postgres does not speak it.
//!
//! Source: "Streaming Replication Protocol" and "Frontend/Backend Protocol" in PostgreSQL's documentation.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use matriarch_core::id::{Lsn, SystemId, Timeline};
use matriarch_core::timeline::History;
use matriarch_core::view::postgres::Upstream;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::{backend::Message, frontend};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::encryption::{Encrypted, Mode, encrypt};
use super::settings::Credential;
use crate::net::BoxStream;

/// Bytes that an answer may have: a history file of thousands of promotions is far below.
pub(super) const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Bytes that a row takes here beside its text.
const ROW_BYTES: usize = 64;

/// Who a server is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Its system identifier.
    pub system_id: SystemId,
    /// Its timeline.
    pub timeline: Timeline,
    /// Its flushed position.
    pub position: Lsn,
}

/// A connection to a WAL sender.
pub struct WalSender {
    pub(super) stream: BoxStream,
    pub(super) received: BytesMut,
    pub(super) deadline: Duration,
    /// What the login can be bound to.
    pub(super) end_point: Option<Vec<u8>>,
}

impl std::fmt::Debug for WalSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WalSender").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl WalSender {
    /// Connects and authenticates. `deadline` bounds this and every later question.
    ///
    /// # Errors
    /// A text that names the server and what it said.
    pub async fn connect(upstream: &Upstream, credential: &Credential, deadline: Duration) -> Result<Self, String> {
        let place = format!("{}:{}", upstream.host, upstream.port);
        let mode = Mode::of(&credential.keywords).map_err(|why| format!("{place}: {why}"))?;
        // libpq has no TLS on a Unix socket, whatever is asked for.
        let attempts = if upstream.host.starts_with('/') { &[false] } else { mode.attempts() };
        let connecting = async {
            let mut failed = Vec::new();
            for with_tls in attempts {
                match Self::attempt(upstream, credential, deadline, with_tls.then_some(mode)).await {
                    Ok(sender) => return Ok(sender),
                    Err(error) => failed.push(error.to_string()),
                }
            }
            failed.dedup();
            Err(failed.join("; "))
        };
        match timeout(deadline, connecting).await {
            Ok(Ok(sender)) => Ok(sender),
            Ok(Err(why)) => Err(format!("{place}: {why}")),
            Err(_) => Err(format!("{place}: no connection within {} ms", deadline.as_millis())),
        }
    }

    async fn attempt(
        upstream: &Upstream,
        credential: &Credential,
        deadline: Duration,
        tls: Option<Mode>,
    ) -> io::Result<Self> {
        let stream: BoxStream = if upstream.host.starts_with('/') {
            Box::new(UnixStream::connect(format!("{}/.s.PGSQL.{}", upstream.host, upstream.port)).await?)
        } else {
            let stream = TcpStream::connect((upstream.host.as_str(), upstream.port)).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        };
        let Encrypted { stream, end_point } = match tls {
            Some(mode) => encrypt(stream, &upstream.host, mode, &credential.keywords).await?,
            None => Encrypted { stream, end_point: None },
        };
        let mut sender = Self { stream, received: BytesMut::new(), deadline, end_point };
        sender.authenticate(credential).await?;
        Ok(sender)
    }

    /// `IDENTIFY_SYSTEM`.
    ///
    /// # Errors
    /// What the server said, or what its answer lacks.
    pub async fn identify_system(&mut self) -> Result<Identity, String> {
        let rows = self.ask("IDENTIFY_SYSTEM").await?;
        let row = rows.first().ok_or("IDENTIFY_SYSTEM: no row")?;
        let word = |at: usize| row.get(at).and_then(|v| v.as_deref()).and_then(|v| std::str::from_utf8(v).ok());
        let identity = || {
            Some(Identity {
                system_id: SystemId(word(0)?.parse().ok()?),
                timeline: Timeline(word(1)?.parse().ok()?),
                position: Lsn::parse(word(2)?)?,
            })
        };
        identity().ok_or_else(|| "IDENTIFY_SYSTEM: the answer is not understood".into())
    }

    /// Whether it is a standby. A server that is none stays none for as long as this connection lasts.
    ///
    /// Source: a transaction that begins in recovery is read-only (`xact.c`, `StartTransaction`); any other is what
    /// `default_transaction_read_only` says, which was set off at the connection's beginning. (`in_hot_standby` says it
    /// plainly, from version 14 on.)
    ///
    /// # Errors
    /// What the server said, or that its answer is not understood.
    pub async fn in_recovery(&mut self) -> Result<bool, String> {
        let rows = self.ask("SHOW transaction_read_only").await?;
        match rows.first().and_then(|row| row.first()?.as_deref()) {
            Some(b"on") => Ok(true),
            Some(b"off") => Ok(false),
            _ => Err("SHOW transaction_read_only: the answer is not understood".into()),
        }
    }

    /// `TIMELINE_HISTORY`. Timeline 1 has no file and no ancestors.
    ///
    /// # Errors
    /// What the server said, or the line of the file that is not understood.
    pub async fn timeline_history(&mut self, timeline: Timeline) -> Result<History, String> {
        let file = self.history_file(timeline).await?;
        History::parse(timeline, &file)
            .map_err(|line| format!("line {line} of the history of timeline {timeline} is not understood"))
    }

    /// The text that [`Self::timeline_history`] reads; empty for timeline 1.
    ///
    /// # Errors
    /// What the server said.
    pub async fn history_file(&mut self, timeline: Timeline) -> Result<String, String> {
        if timeline <= Timeline(1) {
            return Ok(String::new());
        }
        let rows = self.ask(&format!("TIMELINE_HISTORY {timeline}")).await?;
        let file = rows.first().and_then(|row| row.get(1)?.clone()).ok_or("TIMELINE_HISTORY: no file in the answer")?;
        Ok(String::from_utf8_lossy(&file).into_owned())
    }

    async fn ask(&mut self, command: &str) -> Result<Vec<Vec<Option<Bytes>>>, String> {
        let deadline = self.deadline;
        match timeout(deadline, self.query(command)).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(e)) => Err(format!("{command}: {e}")),
            Err(_) => Err(format!("{command}: no answer within {} ms", deadline.as_millis())),
        }
    }

    async fn query(&mut self, command: &str) -> io::Result<Vec<Vec<Option<Bytes>>>> {
        let mut out = BytesMut::new();
        frontend::query(command, &mut out)?;
        self.stream.write_all(&out).await?;
        let mut rows = Vec::new();
        let mut bytes = 0;
        loop {
            match self.message().await? {
                Message::DataRow(row) => {
                    let buffer = row.buffer_bytes().clone();
                    // One without a column has no text, and no end of them may come.
                    bytes += ROW_BYTES + buffer.len();
                    if bytes > ANSWER_BYTES_MAX {
                        return Err(too_long());
                    }
                    let values = row.ranges().map(|range| Ok(range.map(|r| buffer.slice(r))));
                    rows.push(values.collect()?);
                }
                Message::ReadyForQuery(_) => return Ok(rows),
                _ => {}
            }
        }
    }

    pub(super) async fn authenticate(&mut self, credential: &Credential) -> io::Result<()> {
        let mut out = BytesMut::new();
        let name = [
            ("user", credential.user.as_str()),
            ("replication", "true"),
            ("application_name", "matriarch"),
            ("default_transaction_read_only", "off"),
        ];
        frontend::startup_message(name, &mut out)?;
        let password = credential.password.as_ref().map(|p| p.0.as_bytes());
        let wanted = || {
            let user = &credential.user;
            io::Error::other(format!("the server wants a password for {user}, and none is configured"))
        };
        let binding = credential.keywords.get("channel_binding").map_or("prefer", String::as_str);
        let mut scram: Option<sasl::ScramSha256> = None;
        let (mut bound, mut is_proven) = (false, false);
        loop {
            self.stream.write_all(&out).await?;
            out.clear();
            match self.message().await? {
                Message::AuthenticationCleartextPassword | Message::AuthenticationMd5Password(_)
                    if binding == "require" =>
                {
                    return Err(unbound());
                }
                Message::AuthenticationCleartextPassword => {
                    frontend::password_message(password.ok_or_else(wanted)?, &mut out)?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let password = password.ok_or_else(wanted)?;
                    let hash = md5_hash(credential.user.as_bytes(), password, body.salt());
                    frontend::password_message(hash.as_bytes(), &mut out)?;
                }
                Message::AuthenticationSasl(body) => {
                    let password = password.ok_or_else(wanted)?;
                    let is_offered = body.mechanisms().any(|name| Ok(name == sasl::SCRAM_SHA_256_PLUS))?;
                    let end_point = self.end_point.clone().filter(|_| binding != "disable");
                    bound = is_offered && end_point.is_some();
                    // A server that hides that it can bind is found out by `unrequested`.
                    let (name, channel) = match end_point {
                        Some(hash) if bound => {
                            (sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash))
                        }
                        Some(_) => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
                        None => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
                    };
                    let exchange = sasl::ScramSha256::new(password, channel);
                    frontend::sasl_initial_response(name, exchange.message(), &mut out)?;
                    scram = Some(exchange);
                }
                Message::AuthenticationSaslContinue(body) => {
                    let exchange = scram.as_mut().ok_or(io::ErrorKind::InvalidData)?;
                    exchange.update(body.data())?;
                    frontend::sasl_response(exchange.message(), &mut out)?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    scram.as_mut().ok_or(io::ErrorKind::InvalidData)?.finish(body.data())?;
                    is_proven = bound;
                }
                Message::AuthenticationGss | Message::AuthenticationKerberosV5 | Message::AuthenticationSspi => {
                    return Err(io::Error::other("the server wants GSS authentication, which this client has not"));
                }
                Message::ReadyForQuery(_) if binding == "require" && !is_proven => return Err(unbound()),
                Message::ReadyForQuery(_) => return Ok(()),
                _ => {}
            }
        }
    }

    /// The next message; the server's errors as errors.
    async fn message(&mut self) -> io::Result<Message> {
        loop {
            // Before it is parsed, which reserves what a message says of its length. Whatever else listens at that port
            // says anything.
            if announced(&self.received).is_some_and(|length| length > ANSWER_BYTES_MAX) {
                return Err(too_long());
            }
            if let Some(message) = Message::parse(&mut self.received)? {
                let Message::ErrorResponse(body) = message else { return Ok(message) };
                let mut fields = body.fields();
                let mut text = String::from("the server refused without a reason");
                while let Some(field) = fields.next()? {
                    if field.type_() == b'M' {
                        text = String::from_utf8_lossy(field.value_bytes()).into_owned();
                    }
                }
                return Err(io::Error::other(text));
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// The length that the message at the beginning says of itself, behind the byte that tells its kind.
fn announced(received: &[u8]) -> Option<usize> {
    usize::try_from(u32::from_be_bytes(*received.get(1..)?.first_chunk()?)).ok()
}

fn unbound() -> io::Error {
    io::Error::other("channel_binding=require is asked for, and the server lets this login in without it")
}

fn too_long() -> io::Error {
    io::Error::other("the answer is too long for a WAL sender's: is it a PostgreSQL that listens there?")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    /// What a question comes to at a server that answers with `piece`, so many times, and does not hang up.
    async fn asked(piece: Vec<u8>, times: usize) -> String {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let server = tokio::spawn(async move {
            for _ in 0..times {
                if theirs.write_all(&piece).await.is_err() {
                    return;
                }
            }
            while theirs.read_u8().await.is_ok() {}
        });
        let mut sender =
            WalSender { stream: Box::new(ours), received: BytesMut::new(), deadline: DEADLINE, end_point: None };
        let said = sender.identify_system().await.unwrap_err();
        drop(sender);
        server.await.unwrap();
        said
    }

    #[tokio::test]
    async fn an_answer_that_is_no_postgresql_takes_no_memory() {
        // Read as a message, its length is 1.4 GB.
        let said = asked(b"HTTP/1.1 400 Bad Request\r\n".to_vec(), 1).await;
        assert!(said.contains("too long"), "{said}");
    }

    #[tokio::test]
    async fn an_answer_without_an_end_is_bounded() {
        // DataRow: one column of 1000 bytes.
        let mut row = vec![b'D'];
        row.extend_from_slice(&1010_u32.to_be_bytes());
        row.extend_from_slice(&1_u16.to_be_bytes());
        row.extend_from_slice(&1000_u32.to_be_bytes());
        row.resize(1011, b'x');
        let said = asked(row, usize::MAX).await;
        assert!(said.contains("too long"), "{said}");
    }
}
