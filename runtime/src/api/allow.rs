//! From where the unsafe endpoints may be used (`restapi.allowlist`, `restapi.allowlist_include_members`).

use std::net::{IpAddr, Ipv4Addr};
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
    /// There were entries, whatever became of them.
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
    /// Reads entries: networks (`10.0.0.0/8`, `10.0.0.0/255.0.0.0`), addresses, and names, which are resolved now. An
    /// entry that is none of these lets nobody in, and is told.
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
        Self { networks, restricted: !entries.is_empty(), include_members }
    }

    /// Whether a client may pass. `api_urls` are those of the members, asked for only if they matter; `None` where
    /// members do not count: then that they are included closes nothing either.
    pub(super) async fn permits(&self, client: IpAddr, api_urls: Option<impl FnOnce() -> Vec<String>>) -> bool {
        let client = client.to_canonical();
        let api_urls = api_urls.filter(|_| self.include_members);
        let open = !self.restricted && api_urls.is_none();
        if open || self.networks.iter().any(|network| network.contains(client)) {
            return true;
        }
        let Some(api_urls) = api_urls else { return false };
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
        let (address, mask) = match text.trim().split_once('/') {
            Some((address, mask)) => (address, Some(mask)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().ok()?;
        let all = Self::single(address).bits;
        let bits = match mask {
            None => all,
            Some(mask) if address.is_ipv4() && mask.contains('.') => leading_bits(mask.parse().ok()?)?,
            Some(bits) => bits.parse().ok()?,
        };
        (bits <= all).then_some(Self { address, bits })
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

/// How many bits count by a mask of networks (`255.255.255.0`) or of hosts (`0.0.0.255`). All zeros are one of networks.
fn leading_bits(mask: Ipv4Addr) -> Option<u8> {
    let of_networks = |mask: u32| {
        let ones = mask.leading_ones();
        (ones == mask.count_ones()).then(|| u8::try_from(ones).ok()).flatten()
    };
    of_networks(mask.to_bits()).or_else(|| of_networks(!mask.to_bits()))
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
        list.permits(client.parse().unwrap(), Some(urls)).await
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

    #[test]
    fn a_mask_is_as_good_as_a_number_of_bits() {
        let bits = |entry: &str| Network::parse(entry).map(|network| network.bits);
        for (mask, expected) in [
            ("255.255.255.0", 24),
            ("255.128.0.0", 9),
            ("255.255.255.255", 32),
            ("0.0.0.0", 0),
            ("0.0.0.255", 24),
            ("127.255.255.255", 1),
        ] {
            assert_eq!(bits(&format!("192.0.2.0/{mask}")), Some(expected), "{mask}");
        }
        for entry in ["192.0.2.0/255.0.255.0", "192.0.2.0/0.255.0.255", "192.0.2.0/255.255.0", "::/255.255.0.0"] {
            assert_eq!(bits(entry), None, "{entry}");
        }
    }

    #[tokio::test]
    async fn where_members_do_not_count_they_close_nothing_and_open_nothing() {
        let client = "10.0.0.7".parse().unwrap();
        let without_members = None::<fn() -> Vec<String>>;
        for (entries, include_members, expected) in
            [(&[][..], true, true), (&["192.0.2.1".to_owned()], true, false), (&["10.0.0.7".to_owned()], true, true)]
        {
            let list = Allowlist::resolve(entries, include_members).await;
            assert_eq!(list.permits(client, without_members).await, expected, "{list:?}");
        }
    }

    #[tokio::test]
    async fn an_entry_that_means_nothing_lets_nobody_in() {
        assert!(!permits(&["192.0.2.0/33"], false, "192.0.2.1").await);
        assert!(!permits(&["no such host"], false, "192.0.2.1").await);
    }
}
