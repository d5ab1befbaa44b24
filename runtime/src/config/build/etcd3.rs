//! Where the store is.

use super::super::check::{describe, join, split_address, texts};
use super::super::local::{Address, Etcd3};
use super::super::report::Problem;
use super::super::schema::STORES;
use super::super::yaml::Value;
use super::Build;

impl Build<'_, '_> {
    /// Section `etcd3`, or why there is no store.
    pub(in super::super) fn etcd3(&mut self) -> Option<Etcd3> {
        let others: Vec<&str> =
            STORES.iter().copied().filter(|s| *s != "etcd3" && self.root.get(s).is_some()).collect();
        if self.root.get("etcd3").is_none() {
            if others.is_empty() {
                let message = "Can not find suitable configuration of distributed configuration store\n\
                               Available implementations: etcd3 (a section `etcd3` with `hosts: [HOST:2379]`)";
                self.problems.push(Problem::error(self.root.span, "", message));
            }
            for other in others {
                self.refuse(other, "this store is not supported yet; use etcd3");
            }
            return None;
        }
        for other in others {
            // Patroni takes the first that is there, in the order of the alphabet.
            if other < "etcd3" {
                let message = format!(
                    "with this section beside etcd3 Patroni's store is {other}, which is not supported yet; remove the one that \
                     the cluster does not use"
                );
                self.refuse(other, message);
            } else {
                self.warn(other, "ignored: the store is the one in section etcd3");
            }
        }
        for key in ["srv", "discovery_srv", "srv_domain", "srv_suffix", "proxy"] {
            if self.at(&join("etcd3", key)).is_some() {
                self.refuse(&join("etcd3", key), "not supported yet; name the members under etcd3.hosts");
            }
        }
        if self.flag("etcd3.use_proxies") == Some(true) {
            self.refuse("etcd3.use_proxies", "not supported yet; name the members under etcd3.hosts");
        }
        let (mut protocol, hosts) = self.etcd3_hosts()?;
        if let Some(given) = self.text("etcd3.protocol") {
            given.clone_into(&mut protocol);
        }
        let tls = self.etcd3_tls(protocol == "https");
        if tls.is_none() && protocol == "https" {
            return None;
        }
        Some(Etcd3 {
            hosts,
            tls,
            username: self.text("etcd3.username").map(str::to_owned),
            password: self.secret("etcd3.password"),
        })
    }

    fn etcd3_hosts(&mut self) -> Option<(String, Vec<String>)> {
        const ETCD_PORT: u16 = 2379;
        let default_port = self.int("etcd3.port").and_then(|p| u16::try_from(p).ok()).unwrap_or(ETCD_PORT);
        if let Some(url) = self.at("etcd3.url").filter(|_| self.at("etcd3.hosts").is_none()) {
            let parts = url.as_str().and_then(|u| u.trim().split_once("://"));
            let Some((protocol, host)) = parts.filter(|(p, h)| matches!(*p, "http" | "https") && !h.contains('@'))
            else {
                self.refuse(
                    "etcd3.url",
                    "expected http://host:port or https://host:port, with user and password in their own keys",
                );
                return None;
            };
            let host = with_port(host.trim_end_matches('/'), default_port);
            if host.is_none() {
                self.refuse("etcd3.url", "expected http://host:port");
            }
            return Some((protocol.to_owned(), vec![host?]));
        }
        for key in ["etcd3.url", "etcd3.host"] {
            if self.at("etcd3.hosts").is_some() && self.at(key).is_some() {
                self.warn(key, "not used: `hosts` names the members of the store");
            }
        }
        let key = if self.at("etcd3.hosts").is_some() { "etcd3.hosts" } else { "etcd3.host" };
        let Some(node) = self.at(key) else {
            self.refuse("etcd3", "one of `hosts`, `host` or `url` is required; write `hosts: [host:2379]`");
            return None;
        };
        let mut hosts = Vec::new();
        for item in texts(node) {
            if let Some(host) = with_port(item, default_port) {
                hosts.push(host);
            } else {
                let found = describe(&Value::Str(item.to_owned()), false);
                let hint = if item.contains("://") { "; the scheme belongs under `protocol`" } else { "" };
                self.refuse(key, format!("expected host:port, found {found}{hint}"));
            }
        }
        if hosts.is_empty() {
            self.refuse(key, "names no member of the store; write `hosts: [host:2379]`");
        }
        (!hosts.is_empty()).then(|| ("http".to_owned(), hosts))
    }
}

fn with_port(host: &str, default_port: u16) -> Option<String> {
    let host = host.trim();
    if let Some((host, port)) = split_address(host) {
        return Some(Address { host, port }.to_string());
    }
    let bare = !host.is_empty() && !host.contains([':', '/', ' ']);
    let bracketed = host.starts_with('[') && host.ends_with(']');
    (bare || bracketed).then(|| format!("{host}:{default_port}"))
}
