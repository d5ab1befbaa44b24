//! From where the unsafe endpoints may be used (`restapi.allowlist`, `restapi.allowlist_include_members`).

use std::net::IpAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::http::base_url;

/// How long a name of the list, or the names of all members together, may take to resolve: a name server that is
/// away must not keep an agent from starting.
const RESOLVE_LIMIT: Duration = Duration::from_secs(2);

/// Networks, and whether members count as listed. Empty and without members: anywhere.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Allowlist {
    networks: Vec<Network>,
    restricted: bool,
    include_members: bool,
}

/// An address and how many of its leading bits count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Network {
    pub(super) address: IpAddr,
    pub(super) bits: u8,
}

impl Allowlist {
    /// Reads entries: networks (`10.0.0.0/8`), addresses, and names, which are resolved now. An entry that is none of
    /// these lets nobody in, and is told.
    pub async fn resolve(entries: &[String], include_members: bool) -> Self {
        let mut networks = Vec::new();
        for entry in entries {
            match Network::parse(entry) {
                Some(network) => networks.push(network),
                None => match timeout(RESOLVE_LIMIT, resolved(entry)).await.unwrap_or_default() {
                    addresses if addresses.is_empty() => {
                        tracing::warn!(entry, "restapi.allowlist: neither a network nor a name that resolves; ignored");
                    }
                    addresses => networks.extend(addresses.into_iter().map(Network::single)),
                },
            }
        }
        Self { networks, restricted: !entries.is_empty() || include_members, include_members }
    }

    /// Whether a client may pass. `api_urls` are those of the members, asked for only if they matter.
    pub(super) async fn permits(&self, client: IpAddr, api_urls: impl FnOnce() -> Vec<String>) -> bool {
        let client = client.to_canonical();
        if !self.restricted || self.networks.iter().any(|network| network.contains(client)) {
            return true;
        }
        if !self.include_members {
            return false;
        }
        let any = async {
            for url in api_urls() {
                let authority = base_url(&url).and_then(|base| base.split_once("://"));
                let host =
                    authority.map(|(_, authority)| authority.rsplit_once(':').map_or(authority, |(host, _)| host));
                if resolved(host.unwrap_or_default()).await.contains(&client) {
                    return true;
                }
            }
            false
        };
        timeout(RESOLVE_LIMIT, any).await.unwrap_or(false)
    }
}

impl Network {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.trim().split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().ok()?;
        let bits = bits.unwrap_or(Self::single(address).bits);
        (bits <= Self::single(address).bits).then_some(Self { address, bits })
    }

    fn single(address: IpAddr) -> Self {
        Self { address, bits: if address.is_ipv4() { 32 } else { 128 } }
    }

    pub(super) fn contains(self, client: IpAddr) -> bool {
        match (self.address, client) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let differing = ours.to_bits() ^ theirs.to_bits();
                differing.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let differing = ours.to_bits() ^ theirs.to_bits();
                differing.leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }
}

/// The addresses of a host; none if it does not resolve.
async fn resolved(host: &str) -> Vec<IpAddr> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse::<IpAddr>() {
        return vec![address.to_canonical()];
    }
    let addresses = lookup_host((host, 0)).await;
    addresses.map(|found| found.map(|address| address.ip().to_canonical()).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn permits(entries: &[&str], members: bool, client: &str) -> bool {
        let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        let list = Allowlist::resolve(&entries, members).await;
        let urls = || vec!["http://10.0.0.7:8008/patroni".to_owned(), "http://[::7]:8008/patroni".to_owned()];
        list.permits(client.parse().unwrap(), urls).await
    }

    #[tokio::test]
    async fn networks_addresses_and_members_pass_and_nobody_else() {
        assert!(permits(&[], false, "192.0.2.1").await);
        assert!(permits(&["192.0.2.0/24"], false, "192.0.2.255").await);
        assert!(permits(&["192.0.2.0/24"], false, "::ffff:192.0.2.9").await);
        assert!(!permits(&["192.0.2.0/24"], false, "192.0.3.0").await);
        assert!(permits(&["0.0.0.0/0"], false, "203.0.113.1").await);
        assert!(!permits(&["0.0.0.0/0"], false, "::1").await);
        assert!(permits(&["2001:db8::/32", "192.0.2.1"], false, "2001:db8:ffff::1").await);
        assert!(!permits(&["192.0.2.1"], false, "10.0.0.7").await);
        assert!(permits(&["192.0.2.1"], true, "10.0.0.7").await);
        assert!(permits(&[], true, "::7").await);
        assert!(!permits(&[], true, "10.0.0.8").await);
        assert!(permits(&["localhost"], false, "127.0.0.1").await);
    }

    #[tokio::test]
    async fn an_entry_that_means_nothing_lets_nobody_in() {
        assert!(!permits(&["192.0.2.0/33"], false, "192.0.2.1").await);
        assert!(!permits(&["no such host"], false, "192.0.2.1").await);
    }
}
