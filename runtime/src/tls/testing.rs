//! Certificates for tests, as openssl makes them.

use std::path::PathBuf;
use std::process::Command;

use super::{Ciphers, Client, ClientSettings, Identity, Server, ServerSettings, Speaks, Trust, VerifyClient};
use crate::config::Secret;

/// A directory with what `tests/certificates` makes.
pub(crate) struct Certificates(tempfile::TempDir);

impl Certificates {
    pub(crate) fn make() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/certificates");
        let made = Command::new(script).arg(directory.path()).output().unwrap();
        assert!(made.status.success(), "is openssl installed? {}", String::from_utf8_lossy(&made.stderr));
        Self(directory)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    pub(crate) fn copy(&self, from: &str, to: &str) {
        std::fs::copy(self.path(from), self.path(to)).unwrap();
    }

    /// `NAME.pem` with `NAME.key`.
    pub(crate) fn identity(&self, name: &str) -> Identity {
        let key = Some(self.path(&format!("{name}.key")));
        Identity { certificate: self.path(&format!("{name}.pem")), key, password: None }
    }

    /// The server's certificate with another key.
    pub(crate) fn with_key(&self, key: &str, password: Option<&str>) -> Identity {
        let password = password.map(Secret::new);
        Identity { key: Some(self.path(key)), password, ..self.identity("server") }
    }

    /// A server that takes clients' certificates from `authority`.
    pub(crate) fn server(&self, identity: &str, verify_client: VerifyClient, authority: &str) -> Server {
        Server::load(self.server_settings(self.identity(identity), verify_client, authority)).unwrap()
    }

    pub(crate) fn server_settings(
        &self,
        identity: Identity,
        verify_client: VerifyClient,
        authority: &str,
    ) -> ServerSettings {
        let authorities = Some(self.path(authority));
        ServerSettings { identity, authorities, verify_client, ciphers: Ciphers::default() }
    }

    /// A client that takes servers' certificates from `authority`.
    pub(crate) fn client(&self, trust: Trust, authority: &str, identity: Option<&str>) -> Client {
        let identity = identity.map(|name| self.identity(name));
        let authorities = Some(self.path(authority));
        Client::load(ClientSettings { authorities, identity, trust, speaks: Speaks::Http1 }).unwrap()
    }
}
