//! Who is trusted.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::client::Trust;
use super::{Part, Unusable, provider};

/// The certificates that are trusted.
#[derive(Debug)]
pub(super) struct Authorities {
    roots: Arc<RootCertStore>,
    listed: Vec<CertificateDer<'static>>,
}

impl Authorities {
    /// Of these certificates. `origin` is where they come from, for the error.
    pub(super) fn new(listed: Vec<CertificateDer<'static>>, origin: &str) -> Result<Self, Unusable> {
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(listed.iter().cloned());
        if usable == 0 {
            return Err(Unusable::new(Part::Authorities, format!("{origin}: holds no certificate of an authority")));
        }
        Ok(Self { roots: Arc::new(roots), listed })
    }

    /// Those that the host trusts. They are read when the first server is verified by them, and then never again: ctl
    /// does not look for them in clusters without TLS, and no later connection waits for a disk.
    fn of_host() -> Result<&'static Self, Error> {
        static HOST: OnceLock<Result<Authorities, String>> = OnceLock::new();
        let host = HOST.get_or_init(|| {
            let found = rustls_native_certs::load_native_certs();
            Self::new(found.certs, "this host's store").map_err(|unusable| {
                let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
                format!("no authorities are configured, and {unusable} {}", errors.join("; ")).trim().to_owned()
            })
        });
        host.as_ref().map_err(|why| Error::General(why.clone()))
    }

    /// Whether the peer shows a certificate that stands itself among the trusted ones. Many clusters have one
    /// certificate that signed itself, in `certfile` and in `cafile`: OpenSSL takes it, and the chains that rustls builds
    /// do not, as it is at once an authority and a server. It has to be of the present all the same.
    fn lists(&self, shown: &CertificateDer<'_>, now: UnixTime) -> Result<bool, Error> {
        if !self.listed.iter().any(|listed| listed == shown) {
            return Ok(false);
        }
        let parsed = Certificate::from_der(shown).map_err(|_| Error::from(CertificateError::BadEncoding))?;
        let validity = parsed.tbs_certificate().validity();
        if now.as_secs() < validity.not_before.to_unix_duration().as_secs() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now.as_secs() > validity.not_after.to_unix_duration().as_secs() {
            return Err(CertificateError::Expired.into());
        }
        Ok(true)
    }
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

/// Verifies servers.
#[derive(Debug)]
pub(super) struct Servers {
    /// By whom they have to be signed: without authorities, by one that the host trusts. `None`: anyone is taken.
    pub(super) verified: Option<(Option<Authorities>, Trust)>,
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some((authorities, trust)) = &self.verified else { return Ok(ServerCertVerified::assertion()) };
        let authorities = match authorities {
            Some(authorities) => authorities,
            None => Authorities::of_host()?,
        };
        let listed = authorities.lists(shown, now)?;
        let parsed = ParsedCertificate::try_from(shown)?;
        if !listed {
            let known = algorithms().all;
            verify_server_cert_signed_by_trust_anchor(&parsed, &authorities.roots, intermediates, now, known)?;
        }
        if *trust == Trust::Name {
            verify_server_name(&parsed, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // That anyone holds the key of any certificate says nothing.
        match self.verified {
            None => Ok(HandshakeSignatureValid::assertion()),
            Some(_) => verify_tls12_signature(message, shown, signed, &algorithms()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.verified {
            None => Ok(HandshakeSignatureValid::assertion()),
            Some(_) => verify_tls13_signature(message, shown, signed, &algorithms()),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

/// Verifies clients: [`WebPkiClientVerifier`], but for certificates that are trusted themselves.
#[derive(Debug)]
pub(super) struct Clients {
    authorities: Authorities,
    chains: Arc<dyn ClientCertVerifier>,
}

impl Clients {
    /// Clients without a certificate are turned away if it is `required`.
    pub(super) fn new(authorities: Authorities, required: bool) -> Result<Self, Unusable> {
        let roots = Arc::clone(&authorities.roots);
        let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::new(provider()));
        let builder = if required { builder } else { builder.allow_unauthenticated() };
        let chains = builder.build().map_err(|error| Unusable::new(Part::Authorities, error.to_string()))?;
        Ok(Self { authorities, chains })
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.chains.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.authorities.lists(shown, now)? {
            return Ok(ClientCertVerified::assertion());
        }
        self.chains.verify_client_cert(shown, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, shown, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
