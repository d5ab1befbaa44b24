//! TLS: the one place where its configurations are made, for the REST API, for its clients and for the store.
//!
//! The provider is `ring`, the versions are 1.2 and 1.3. What a certificate is verified against, and what Patroni's keys
//! mean for that, is told where it is decided ([`Trust`], [`VerifyClient`]).

mod binding;
mod ciphers;
mod client;
mod pem;
mod server;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod verify;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use ciphers::Ciphers;
pub use client::{ClientSettings, ClientSlot, Speaks, Trust};
use pem::Bundle;
pub use pem::Identity;
pub use server::{ServerSettings, VerifyClient};

/// What a client connects with.
pub type Client = Tls<ClientSettings>;
/// What a server accepts with.
pub type Server = Tls<ServerSettings>;

/// Which of the configured things cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The file of the authorities that are trusted.
    Authorities,
    /// Our own certificate.
    Certificate,
    /// Its private key.
    Key,
    /// The password of the key.
    Password,
}

/// What keeps TLS from being set up; the text names the file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{why}")]
pub struct Unusable {
    /// What it is about.
    pub part: Part,
    /// What is wrong with it.
    pub why: String,
}

impl Unusable {
    fn new(part: Part, why: impl Into<String>) -> Self {
        Self { part, why: why.into() }
    }
}

/// What is configured, and what rustls makes of it.
pub trait Settings {
    /// rustls's configuration.
    type Config;
    /// Reads the files. May wait for a disk.
    fn read(&self) -> Result<Bundle, Unusable>;
    /// Makes the configuration of what the files hold.
    fn build(&self, files: Bundle) -> Result<Self::Config, Unusable>;
}

/// Settings, and the configuration that was made of their files.
pub struct Tls<S: Settings> {
    settings: S,
    digest: u64,
    config: Arc<S::Config>,
}

impl<S: Settings + Clone> Tls<S> {
    /// Reads the files and makes the configuration of them. May wait for a disk.
    ///
    /// # Errors
    /// A file cannot be read, or does not hold what it should.
    pub fn load(settings: S) -> Result<Self, Unusable> {
        let files = settings.read()?;
        let digest = digest(&files);
        let config = Arc::new(settings.build(files)?);
        Ok(Self { settings, digest, config })
    }

    /// The same with what the files hold now; `None` if that is what is in force already. May wait for a disk.
    ///
    /// # Errors
    /// As [`Self::load`]: a certificate that is in place before its key, for example.
    pub fn renewed(&self) -> Result<Option<Self>, Unusable> {
        let files = self.settings.read()?;
        let digest = digest(&files);
        if digest == self.digest {
            return Ok(None);
        }
        let config = Arc::new(self.settings.build(files)?);
        Ok(Some(Self { settings: self.settings.clone(), digest, config }))
    }

    /// What is configured.
    pub fn settings(&self) -> &S {
        &self.settings
    }

    /// Whether the other was made of the same files with the same contents.
    pub fn is_as(&self, other: &Self) -> bool
    where
        S: PartialEq,
    {
        self == other && self.digest == other.digest
    }
}

impl<S: Settings + Clone> Clone for Tls<S> {
    fn clone(&self) -> Self {
        Self { settings: self.settings.clone(), digest: self.digest, config: Arc::clone(&self.config) }
    }
}

impl<S: Settings + PartialEq> PartialEq for Tls<S> {
    /// Configured alike. A certificate that was renewed in its file is no change of the configuration.
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings
    }
}

impl<S: Settings + Eq> Eq for Tls<S> {}

impl<S: Settings + std::fmt::Debug> std::fmt::Debug for Tls<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tls").field(&self.settings).finish()
    }
}

fn digest(files: &Bundle) -> u64 {
    let mut hasher = DefaultHasher::new();
    files.hash(&mut hasher);
    hasher.finish()
}

/// The one provider of cryptography.
fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}
