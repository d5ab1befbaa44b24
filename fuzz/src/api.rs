//! What clients of the REST API send.

use std::net::{IpAddr, Ipv4Addr};

use matriarch::fuzz::{allowed_network, control_bodies, query};
use matriarch_core::time::WallMillis;
use serde_json::Value;

use crate::input::texts;

/// 2026-11-22.
const NOW: WallMillis = WallMillis(1_795_000_000_000);

/// The target: a body, a query, an entry of the allow list, a client's address.
pub fn target(data: &[u8]) {
    let Some(texts) = texts(data) else { return };
    let text = |index: usize| texts.get(index).copied().unwrap_or_default();
    if let Ok(Value::Object(body)) = serde_json::from_str(text(0)) {
        control_bodies(&body, false, NOW);
        control_bodies(&body, true, NOW);
    }
    let pairs: Vec<_> = text(1).split('&').filter_map(|pair| pair.split_once('=')).collect();
    query(text(1), &pairs);
    allowed_network(text(2), text(3).parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)));
}
