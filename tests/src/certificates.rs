//! TLS for whole clusters: certificates of their servers and clients, as `tests/certificates` makes them.

use std::path::{Path, PathBuf};

use matriarch::tls::{Client, ClientSettings, ClientSlot, Identity, Speaks, Trust};

use crate::tools::run;

/// A directory of certificates.
pub struct Certificates(PathBuf);

impl Certificates {
    /// What makes them: `SCRIPT DIRECTORY`.
    pub const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/certificates");

    /// Those that [`Self::SCRIPT`] has made in `dir`.
    pub fn made_in(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    /// Makes them in `dir`, for servers with these addresses beside the loopback one. Every account may read the keys.
    pub(crate) fn make(dir: &Path, addresses: &[String]) -> Self {
        let dir = dir.join("certificates");
        let target = dir.display().to_string();
        let names: Vec<String> = addresses.iter().map(|address| format!("IP:{address}")).collect();
        let arguments: Vec<&str> = [target.as_str()].into_iter().chain(names.iter().map(String::as_str)).collect();
        run(Self::SCRIPT, &arguments).unwrap_or_else(|why| panic!("{why} (tests/run installs openssl)"));
        run("chmod", &["-R", "a+rX", &target]).unwrap_or_else(|why| panic!("{why}"));
        Self(dir)
    }

    /// One of the files.
    pub fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// Puts another certificate, with its key, in the place of one.
    pub fn replace(&self, name: &str, by: &str) {
        for end in ["pem", "key"] {
            let (from, to) = (self.path(&format!("{by}.{end}")), self.path(&format!("{name}.{end}")));
            std::fs::copy(from, to).expect("a certificate in another's place");
        }
    }

    /// What a client connects with that trusts an authority, and shows a certificate if it has one.
    pub fn client(&self, authority: &str, identity: Option<&str>, speaks: Speaks) -> ClientSlot {
        let identity = identity.map(|name| Identity {
            certificate: self.path(&format!("{name}.pem")),
            key: Some(self.path(&format!("{name}.key"))),
            password: None,
        });
        let authorities = Some(self.path(authority));
        let client = Client::load(ClientSettings { authorities, identity, trust: Trust::Name, speaks });
        ClientSlot::new(client.expect("the certificates are good"))
    }
}
