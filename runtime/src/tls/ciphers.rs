//! OpenSSL's list of ciphers, as far as rustls has what it names.

use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, SupportedCipherSuite};

/// What rustls has of TLS 1.2, by OpenSSL's names. A list of ciphers says nothing about TLS 1.3, here as in OpenSSL.
const SUITES: [(&str, CipherSuite); 6] = [
    ("ECDHE-ECDSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// Which suites of TLS 1.2 are offered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ciphers {
    offered: Vec<CipherSuite>,
    /// What of the list was not understood: groups like `HIGH`, orders like `@STRENGTH`, and suites that rustls has not.
    pub unknown: Vec<String>,
}

impl Default for Ciphers {
    fn default() -> Self {
        Self { offered: SUITES.map(|(_, suite)| suite).to_vec(), unknown: Vec::new() }
    }
}

impl Ciphers {
    /// Reads a list: suites that it names are offered and no others, suites after `!` or `-` are not. A list that names
    /// none that rustls has changes nothing but for those.
    pub fn parse(list: &str) -> Self {
        let known = |name: &str| SUITES.iter().find(|(known, _)| *known == name).map(|(_, suite)| *suite);
        let (mut named, mut excluded, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        for word in list.split([':', ',', ' ']).filter(|word| !word.is_empty()) {
            match (known(word), word.strip_prefix(['!', '-']).and_then(known)) {
                (Some(suite), _) => named.push(suite),
                (None, Some(suite)) => excluded.push(suite),
                (None, None) => unknown.push(word.to_owned()),
            }
        }
        let mut offered = if named.is_empty() { Self::default().offered } else { named };
        offered.retain(|suite| !excluded.contains(suite));
        Self { offered, unknown }
    }

    /// OpenSSL's names of what is offered of TLS 1.2.
    pub fn names(&self) -> Vec<&'static str> {
        SUITES.iter().filter(|(_, suite)| self.offered.contains(suite)).map(|(name, _)| *name).collect()
    }

    /// The provider with these suites only, and all of TLS 1.3.
    pub(super) fn of(&self, provider: CryptoProvider) -> CryptoProvider {
        let is_offered =
            |suite: &SupportedCipherSuite| suite.tls13().is_some() || self.offered.contains(&suite.suite());
        let cipher_suites = provider.cipher_suites.iter().copied().filter(is_offered).collect();
        CryptoProvider { cipher_suites, ..provider }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_that_are_named_are_offered_and_the_rest_of_the_list_is_told() {
        let all = Ciphers::default();
        assert_eq!(all.names().len(), 6);
        let provider = all.of(super::super::provider());
        assert_eq!(provider.cipher_suites.len(), 9, "all that ring has");

        let some =
            Ciphers::parse("ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES256-GCM-SHA384:DHE-RSA-AES256-SHA:!aNULL");
        assert_eq!(some.names(), ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384"]);
        assert_eq!(some.unknown, ["DHE-RSA-AES256-SHA", "!aNULL"]);
        assert_eq!(some.of(super::super::provider()).cipher_suites.len(), 5, "two, and three of TLS 1.3");

        let group = Ciphers::parse("HIGH:!ECDHE-RSA-CHACHA20-POLY1305:@STRENGTH");
        assert_eq!(group.names().len(), 5);
        assert_eq!(group.unknown, ["HIGH", "@STRENGTH"]);
    }
}
