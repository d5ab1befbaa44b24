//! What clients of the REST API send.

use std::net::{IpAddr, Ipv4Addr};

use matriarch::fuzz::{allowed_network, control_bodies, query};
use matriarch_core::time::WallMillis;
use serde_json::Value;

use crate::input::texts;

/// 2026-11-22.
const NOW: WallMillis = WallMillis(1_795_000_000_000);

/// The target: a body, a query, an entry of the allow list, a client's address.
pub fn target(data: &[u8]) -> String {
    let Some(texts) = texts(data) else { return "no text".into() };
    let text = |index: usize| texts.get(index).copied().unwrap_or_default();
    let taken = match serde_json::from_str(text(0)) {
        Ok(Value::Object(body)) => [false, true].map(|paused| control_bodies(&body, paused, NOW).join(" ")),
        Ok(_) | Err(_) => Default::default(),
    };
    let pairs: Vec<_> = text(1).split('&').filter_map(|pair| pair.split_once('=')).collect();
    let asked = query(text(1), &pairs);
    let let_in = allowed_network(text(2), text(3).parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let [taken, paused] = taken;
    format!("takes [{taken}], in a pause [{paused}]; {asked} parameters; {let_in}")
}
