//! TLS of our own connections to PostgreSQL, the agent's and ctl's, as libpq's keywords ask for it: `sslmode`,
//! `sslrootcert`, `sslcert`, `sslkey`, `sslpassword`. Where a file is not named it is searched where libpq searches it.
//!
//! Source: "SSL Support" in the documentation of libpq.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::aside;
use crate::config::Secret;
use crate::net::BoxStream;
use crate::tls::{Client, ClientSettings, Identity, Speaks, Trust};

/// SSLRequest: its length and its code.
const REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// What `sslmode` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Mode {
    /// As the keywords say; libpq's own default is `prefer`.
    pub(crate) fn of(keywords: &BTreeMap<String, String>) -> Result<Self, String> {
        Ok(match keywords.get("sslmode").map_or("prefer", String::as_str) {
            "disable" => Self::Disable,
            "allow" => Self::Allow,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            other => {
                return Err(format!(
                    "sslmode={other} is none of disable, allow, prefer, require, verify-ca, verify-full"
                ));
            }
        })
    }

    /// With TLS or without, in this order, until one succeeds.
    pub(crate) fn attempts(self) -> &'static [bool] {
        match self {
            Self::Disable => &[false],
            Self::Allow => &[false, true],
            Self::Prefer => &[true, false],
            Self::Require | Self::VerifyCa | Self::VerifyFull => &[true],
        }
    }

    /// Nothing goes over a connection without TLS.
    pub(super) fn demands_tls(self) -> bool {
        matches!(self, Self::Require | Self::VerifyCa | Self::VerifyFull)
    }
}

/// A connection with TLS.
pub(crate) struct Encrypted {
    pub(crate) stream: BoxStream,
    /// What a login can be bound to, if the server's certificate gives it.
    pub(super) end_point: Option<Vec<u8>>,
}

/// Asks the server for TLS and shakes hands.
pub(crate) async fn encrypt(
    mut stream: BoxStream,
    host: &str,
    mode: Mode,
    keywords: &BTreeMap<String, String>,
) -> io::Result<Encrypted> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let settings = settings(mode, keywords, home.as_deref()).map_err(io::Error::other)?;
    let client = aside::look(move || Client::load(settings)).await.map_err(io::Error::other)?;
    stream.write_all(&REQUEST).await?;
    // One byte and no more: what follows it unasked is somebody else's.
    match stream.read_u8().await? {
        b'S' => {}
        b'N' => return Err(io::Error::other("the server has no TLS")),
        _ => return Err(io::Error::other("the server does not know TLS: is it a PostgreSQL that listens there?")),
    }
    let (stream, end_point) = client.connect_bound(host, stream).await?;
    Ok(Encrypted { stream, end_point })
}

/// What libpq would do. A certificate of authorities that is there counts with every `sslmode`, and has to be there for
/// the two that verify.
fn settings(mode: Mode, keywords: &BTreeMap<String, String>, home: Option<&Path>) -> Result<ClientSettings, String> {
    for key in ["sslcrl", "sslcrldir"] {
        if keywords.contains_key(key) {
            return Err(format!("{key} is not supported by the agent's own connections"));
        }
    }
    let usual = |file: &str| home.map(|home| home.join(".postgresql").join(file));
    let named = |key: &str| keywords.get(key).filter(|value| !value.is_empty()).map(PathBuf::from);
    let (authorities, trust) = match named("sslrootcert") {
        Some(file) if file.as_os_str() == "system" => (None, Trust::Name),
        file => match (mode, file.or_else(|| usual("root.crt"))) {
            (Mode::VerifyFull, file) => (Some(file.ok_or("sslrootcert is not set")?), Trust::Name),
            (Mode::VerifyCa, file) => (Some(file.ok_or("sslrootcert is not set")?), Trust::Chain),
            (_, Some(file)) if file.exists() => (Some(file), Trust::Chain),
            _ => (None, Trust::Anyone),
        },
    };
    let there = |file: &PathBuf| file.exists();
    let identity = named("sslcert").or_else(|| usual("postgresql.crt").filter(there)).map(|certificate| Identity {
        certificate,
        key: named("sslkey").or_else(|| usual("postgresql.key")),
        password: keywords.get("sslpassword").map(Secret::new),
    });
    Ok(ClientSettings { authorities, identity, trust, speaks: Speaks::Http1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keywords(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn keywords_mean_what_libpq_says() {
        let home = tempfile::tempdir().unwrap();
        let of = |pairs: &[(&str, &str)]| {
            let keywords = keywords(pairs);
            Mode::of(&keywords).and_then(|mode| settings(mode, &keywords, Some(home.path())))
        };
        let usual = home.path().join(".postgresql");
        assert_eq!(of(&[]).unwrap().trust, Trust::Anyone);
        assert_eq!(of(&[("sslmode", "require"), ("sslrootcert", "/missing")]).unwrap().trust, Trust::Anyone);
        let full = of(&[("sslmode", "verify-full"), ("sslrootcert", "/ca")]).unwrap();
        assert_eq!((full.trust, full.authorities), (Trust::Name, Some("/ca".into())));
        let ca = of(&[("sslmode", "verify-ca")]).unwrap();
        assert_eq!((ca.trust, ca.authorities), (Trust::Chain, Some(usual.join("root.crt"))));
        let system = of(&[("sslmode", "verify-full"), ("sslrootcert", "system")]).unwrap();
        assert_eq!((system.trust, system.authorities), (Trust::Name, None));
        let own = of(&[("sslcert", "/c"), ("sslkey", "/k"), ("sslpassword", "p")]).unwrap().identity.unwrap();
        assert_eq!((own.certificate, own.key), ("/c".into(), Some("/k".into())));
        assert!(of(&[("sslcrl", "/x")]).unwrap_err().contains("sslcrl is not supported"));
        assert!(of(&[("sslmode", "on")]).unwrap_err().contains("sslmode=on is none of"));

        std::fs::create_dir(&usual).unwrap();
        for file in ["root.crt", "postgresql.crt"] {
            std::fs::write(usual.join(file), "").unwrap();
        }
        let found = of(&[("sslmode", "require")]).unwrap();
        assert_eq!((found.trust, found.authorities), (Trust::Chain, Some(usual.join("root.crt"))));
        assert_eq!(found.identity.unwrap().certificate, usual.join("postgresql.crt"));
    }

    #[test]
    fn attempts_go_from_what_is_wanted_to_what_is_borne() {
        let of = |mode: &str| Mode::of(&keywords(&[("sslmode", mode)])).unwrap();
        let expected: [(&str, &[bool]); 6] = [
            ("disable", &[false]),
            ("allow", &[false, true]),
            ("prefer", &[true, false]),
            ("require", &[true]),
            ("verify-ca", &[true]),
            ("verify-full", &[true]),
        ];
        for (mode, attempts) in expected {
            assert_eq!(of(mode).attempts(), attempts, "{mode}");
            assert_eq!(of(mode).demands_tls(), attempts == [true], "{mode}");
        }
    }
}
