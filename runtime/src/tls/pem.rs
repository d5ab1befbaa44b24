//! Certificates and keys from their files.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::der::{Decode, Encode, SecretDocument};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_cert::Certificate;

use super::{Part, Unusable};
use crate::config::Secret;

/// Largest file that is read. The authorities of a whole distribution are a quarter of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Our own certificate, with the intermediate ones, and its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The certificate, and behind it those that lead to an authority.
    pub certificate: PathBuf,
    /// The private key; beside the certificate in its file if absent.
    pub key: Option<PathBuf>,
    /// The password of the key.
    pub password: Option<Secret>,
}

/// What the files hold.
#[derive(Hash, Default)]
pub struct Bundle {
    /// The authorities that are trusted.
    pub(super) authorities: Option<Vec<u8>>,
    certificate: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
}

impl Bundle {
    /// Reads what is configured.
    pub(super) fn read(authorities: Option<&Path>, identity: Option<&Identity>) -> Result<Self, Unusable> {
        Ok(Self {
            authorities: authorities.map(|file| read(Part::Authorities, file)).transpose()?,
            certificate: identity.map(|own| read(Part::Certificate, &own.certificate)).transpose()?,
            key: identity.and_then(|own| own.key.as_ref()).map(|file| read(Part::Key, file)).transpose()?,
        })
    }

    /// The certificate and the key that belongs to it.
    pub(super) fn certified(&self, identity: &Identity, provider: &CryptoProvider) -> Result<CertifiedKey, Unusable> {
        let file = &identity.certificate;
        let chain = certificates(Part::Certificate, file, self.certificate.as_deref().unwrap_or_default())?;
        // Without a file of its own the key is searched beside the certificate.
        let (key_file, pem) = match (&identity.key, &self.key) {
            (Some(file), Some(pem)) => (file, pem.as_slice()),
            _ => (file, self.certificate.as_deref().unwrap_or_default()),
        };
        let bad = |why: String| Unusable::new(Part::Key, format!("{}: {why}", key_file.display()));
        let key = private_key(key_file, pem, identity.password.as_ref())?;
        let key = provider.key_provider.load_private_key(key);
        let key = key.map_err(|error| bad(format!("the private key cannot be used: {error}")))?;
        let certified = CertifiedKey::new(chain, key);
        match is_pair(&certified) {
            Some(true) => Ok(certified),
            Some(false) => {
                Err(bad(format!("the private key does not belong to the certificate in {}", file.display())))
            }
            None => Err(Unusable::new(
                Part::Certificate,
                format!("{}: the first certificate is not one of X.509", file.display()),
            )),
        }
    }
}

fn read(part: Part, file: &Path) -> Result<Vec<u8>, Unusable> {
    let cannot = |why: String| Unusable::new(part, format!("cannot read {}: {why}", file.display()));
    let mut bytes = Vec::new();
    let opened = File::open(file).and_then(|open| open.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    opened.map_err(|error| cannot(error.to_string()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(cannot(format!("it has more than {FILE_BYTES_MAX} bytes; is it the right file?")));
    }
    Ok(bytes)
}

/// All certificates of a file, at least one.
pub(super) fn certificates(part: Part, file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let bad = |why: String| Unusable::new(part, format!("{}: {why}", file.display()));
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| bad(format!("not valid PEM: {error}")))?;
    if found.is_empty() {
        return Err(bad("holds no certificate; expected PEM with a line `-----BEGIN CERTIFICATE-----`".to_owned()));
    }
    Ok(found)
}

fn private_key(file: &Path, pem: &[u8], password: Option<&Secret>) -> Result<PrivateKeyDer<'static>, Unusable> {
    let bad = |part: Part, why: &str| Unusable::new(part, format!("{}: {why}", file.display()));
    let text = String::from_utf8_lossy(pem);
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        let why = "the private key is encrypted in OpenSSL's old form, which is not supported: convert it by \
                   `openssl pkcs8 -topk8 -in OLD -out NEW`";
        return Err(bad(Part::Key, why));
    }
    if let Some(section) = section(&text, "ENCRYPTED PRIVATE KEY") {
        let Some(password) = password else {
            return Err(bad(Part::Key, "the private key is encrypted, and no password is configured"));
        };
        return decrypted(section, password).map_err(|why| bad(Part::Password, &why));
    }
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(key) => Ok(key),
        Err(rustls::pki_types::pem::Error::NoItemsFound) => {
            Err(bad(Part::Key, "holds no private key; expected PEM with a line `-----BEGIN PRIVATE KEY-----`"))
        }
        Err(error) => Err(bad(Part::Key, &format!("not valid PEM: {error}"))),
    }
}

/// The PEM section of a label, its first and last line included.
fn section<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let from = text.find(&begin)?;
    let length = text.get(from..)?.find(&end)? + end.len();
    text.get(from..from + length)
}

fn decrypted(section: &str, password: &Secret) -> Result<PrivateKeyDer<'static>, String> {
    let (_, document) = SecretDocument::from_pem(section).map_err(|error| format!("not valid PEM: {error}"))?;
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes());
    let encrypted = encrypted.map_err(|error| format!("the private key is encrypted in an unknown way: {error}"))?;
    let plain = encrypted.decrypt(password.reveal());
    let plain = plain.map_err(|error| format!("the private key cannot be decrypted by this password: {error}"))?;
    PrivateKeyDer::try_from(plain.as_bytes().to_vec()).map_err(|why| format!("what was decrypted is no key: {why}"))
}

/// Whether key and certificate belong together; `None` if the certificate is none. rustls's own comparison knows no
/// certificates of X.509 version 1, which `openssl x509 -req` makes and other programs take.
fn is_pair(certified: &CertifiedKey) -> Option<bool> {
    let certificate = Certificate::from_der(certified.cert.first()?).ok()?;
    let told = certificate.tbs_certificate().subject_public_key_info().to_der().ok()?;
    Some(certified.key.public_key().is_none_or(|own| own.as_ref() == told))
}
