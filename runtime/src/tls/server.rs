//! The side of the REST API.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::sign::SingleCertAndKey;
use tokio_rustls::TlsAcceptor;

use super::pem::{Bundle, Identity, certificates};
use super::verify::{Authorities, Clients};
use super::{Ciphers, Part, Server, Settings, Unusable, provider};
use crate::net::BoxStream;

/// What is asked of clients (`restapi.verify_client`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum VerifyClient {
    /// Nothing.
    #[default]
    None,
    /// A certificate for the unsafe endpoints. One that is shown must be good, whatever it is shown for.
    Optional,
    /// A certificate for everything: without one there is no connection.
    Required,
}

/// What a server is configured with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerSettings {
    /// Its certificate.
    pub identity: Identity,
    /// Whose certificates clients may show.
    pub authorities: Option<PathBuf>,
    /// What is asked of clients.
    pub verify_client: VerifyClient,
    /// The suites that are offered.
    pub ciphers: Ciphers,
}

impl Settings for ServerSettings {
    type Config = ServerConfig;

    fn read(&self) -> Result<Bundle, Unusable> {
        Bundle::read(self.authorities.as_deref(), Some(&self.identity))
    }

    fn build(&self, files: Bundle) -> Result<ServerConfig, Unusable> {
        let provider = self.ciphers.of(provider());
        let certified = files.certified(&self.identity, &provider)?;
        let builder = ServerConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| Unusable::new(Part::Certificate, error.to_string()))?;
        let builder = match (self.verify_client, &self.authorities) {
            // Nobody's certificate would be trusted: none is asked for, and `demands_certificate` has the rest.
            (VerifyClient::None, _) | (_, None) => builder.with_no_client_auth(),
            (verify, Some(file)) => {
                let listed = certificates(Part::Authorities, file, files.authorities.as_deref().unwrap_or_default())?;
                let authorities = Authorities::new(listed, &file.display().to_string())?;
                let clients = Clients::new(authorities, verify == VerifyClient::Required)?;
                builder.with_client_cert_verifier(Arc::new(clients))
            }
        };
        Ok(builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified))))
    }
}

impl Server {
    /// Shakes hands with a client, and tells whether it has shown a certificate, which was good then. May take for ever.
    ///
    /// # Errors
    /// It speaks no TLS, or has no certificate that is good.
    pub async fn accept(&self, stream: BoxStream) -> io::Result<(BoxStream, bool)> {
        let stream = TlsAcceptor::from(Arc::clone(&self.config)).accept(stream).await?;
        let certified = stream.get_ref().1.peer_certificates().is_some();
        Ok((Box::new(stream), certified))
    }

    /// Whether the unsafe endpoints are for clients with a certificate only.
    pub fn demands_certificate(&self) -> bool {
        self.settings.verify_client != VerifyClient::None
    }
}
