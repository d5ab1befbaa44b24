//! The side that connects: to other agents' REST APIs, and to the store.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig};
use tokio_rustls::TlsConnector;

use super::binding::server_end_point;
use super::pem::{Bundle, Identity, certificates};
use super::verify::{Authorities, Servers};
use super::{Client, Part, Settings, Unusable, provider};
use crate::net::BoxStream;

/// How long a handshake may take where nobody waits for less.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// What is verified of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// An authority has signed its certificate, which is for the name or address that was connected to.
    Name,
    /// An authority has signed its certificate.
    Chain,
    /// Nothing.
    Anyone,
}

/// What is spoken over the connection, where a server wants to hear it in the handshake already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speaks {
    /// HTTP/1, which is what a server expects.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What a client is configured with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientSettings {
    /// Whose certificates servers may show; if absent, what the host trusts.
    pub authorities: Option<PathBuf>,
    /// Its certificate.
    pub identity: Option<Identity>,
    /// What is verified of a server.
    pub trust: Trust,
    /// What is spoken.
    pub speaks: Speaks,
}

impl Settings for ClientSettings {
    type Config = ClientConfig;

    fn read(&self) -> Result<Bundle, Unusable> {
        let authorities = self.authorities.as_deref().filter(|_| self.trust != Trust::Anyone);
        Bundle::read(authorities, self.identity.as_ref())
    }

    fn build(&self, files: Bundle) -> Result<ClientConfig, Unusable> {
        let provider = provider();
        let certified = self.identity.as_ref().map(|own| files.certified(own, &provider)).transpose()?;
        let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| Unusable::new(Part::Certificate, error.to_string()))?;
        let verified = match (self.trust, &self.authorities, files.authorities) {
            (Trust::Anyone, ..) => None,
            (trust, Some(file), Some(pem)) => {
                let listed = certificates(Part::Authorities, file, &pem)?;
                Some((Some(Authorities::new(listed, &file.display().to_string())?), trust))
            }
            (trust, ..) => Some((None, trust)),
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Servers { verified }));
        let mut config = match certified {
            Some(certified) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified))),
            None => builder.with_no_client_auth(),
        };
        if self.speaks == Speaks::Http2 {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        Ok(config)
    }
}

impl Client {
    /// Shakes hands with a server, and tells what a login there can be bound to (`tls-server-end-point`). May take for
    /// ever.
    ///
    /// # Errors
    /// It speaks no TLS, or its certificate is not trusted.
    pub async fn connect_bound(&self, host: &str, stream: BoxStream) -> io::Result<(BoxStream, Option<Vec<u8>>)> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let stream = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let end_point = shown.and_then(server_end_point);
        Ok((Box::new(stream), end_point))
    }

    async fn connect(&self, address: &str, stream: BoxStream) -> io::Result<BoxStream> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Ok(self.connect_bound(host, stream).await?.0)
    }
}

/// The way out, where there is a usual one.
fn advice(error: &io::Error) -> &'static str {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "; no authority that is trusted here has signed it: name its authority's file under `cacert`"
        }
        _ => "",
    }
}

/// A client's TLS that can be replaced: connections that are made afterwards have the new one.
#[derive(Clone, Debug)]
pub struct ClientSlot(Arc<Mutex<Client>>);

impl ClientSlot {
    /// With this one in force.
    pub fn new(client: Client) -> Self {
        Self(Arc::new(Mutex::new(client)))
    }

    /// What is in force.
    pub fn current(&self) -> Client {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another in its place.
    pub fn replace(&self, client: Client) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }

    /// Puts another in its place, unless `current` is not in force any more.
    pub fn replace_if(&self, current: &Client, client: Client) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_as(current) {
            *held = client;
        }
    }

    /// Shakes hands with the server at `address` (`host:port`).
    ///
    /// # Errors
    /// It speaks no TLS, or its certificate is not trusted, or it is not heard of in time. The text names the address.
    pub async fn connect(&self, address: &str, stream: BoxStream) -> io::Result<BoxStream> {
        let client = self.current();
        let connected = tokio::time::timeout(HANDSHAKE_MAX, client.connect(address, stream)).await;
        let connected = connected.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")));
        connected
            .map_err(|error| io::Error::new(error.kind(), format!("no TLS with {address}: {error}{}", advice(&error))))
    }
}
