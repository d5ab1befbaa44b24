//! What must hold of every request, whatever a client sends (`fuzz/`).

use matriarch_core::time::WallMillis;
use serde_json::{Map, Value};

use super::allow::Network;
use super::control::{move_request, restart_filter};
use super::query::Query;

/// The bodies of `POST /switchover`, `/failover` and `/restart`, as they are at `now`: for which of them it is one.
pub fn control_bodies(body: &Map<String, Value>, paused: bool, now: WallMillis) -> Vec<&'static str> {
    let mut taken = Vec::new();
    for switchover in [true, false] {
        match move_request(body, switchover, paused, now) {
            Ok(request) => {
                let named = [&request.leader, &request.candidate].into_iter().flatten();
                assert!(named.clone().count() > 0, "nobody is named: {body:?}");
                assert!(named.clone().all(|member| !member.0.is_empty()), "a member without a name: {body:?}");
                assert!(request.leader.is_none() || request.leader != request.candidate, "to itself: {body:?}");
                let scheduled = request.scheduled_at;
                assert!(scheduled.is_none() || (switchover && !paused), "scheduled, which it cannot be: {body:?}");
                assert!(scheduled.is_none_or(|schedule| schedule.at > now), "scheduled in the past: {body:?}");
                taken.push(if switchover { "switchover" } else { "failover" });
            }
            Err(reply) => assert!((400..500).contains(&reply.status()), "{} for {body:?}", reply.status()),
        }
    }
    match restart_filter(body, paused, now) {
        Ok(filter) => {
            let schedule = filter.schedule;
            assert_eq!(schedule.is_some(), body.contains_key("schedule"), "a schedule is lost or made up: {body:?}");
            assert!(schedule.is_none_or(|schedule| schedule.at > now && !paused), "scheduled in the past: {body:?}");
            let conditions = filter.conditions;
            assert_eq!(conditions.role.is_some(), body.contains_key("role"), "a role is lost: {body:?}");
            assert_eq!(
                conditions.below_version.is_some(),
                body.contains_key("postgres_version"),
                "a version is lost: {body:?}"
            );
            assert_eq!(filter.limit.is_some(), body.contains_key("timeout"), "a limit is lost: {body:?}");
            taken.push("restart");
        }
        Err(reply) => assert!([400, 422, 500].contains(&reply.status()), "{} for {body:?}", reply.status()),
    }
    taken
}

/// The query of a URL: what is written in the usual way is read as it was meant. How many parameters it has.
pub fn query(text: &str, pairs: &[(&str, &str)]) -> usize {
    let read = Query::parse(text);
    for (name, value) in read.iter() {
        assert!(read.get(name).is_some(), "{name} = {value} is there and not found");
    }
    let encoded = |text: &str| text.bytes().fold(String::new(), |all, byte| all + &format!("%{byte:02X}"));
    let written: Vec<_> = pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    let again = Query::parse(&written.join("&"));
    let expected: Vec<_> = pairs.iter().copied().filter(|(_, value)| !value.is_empty()).collect();
    assert_eq!(again.iter().collect::<Vec<_>>(), expected);
    read.iter().count()
}

/// An entry of the allow list lets its own address in, and no other kind of address.
pub fn allowed_network(entry: &str, client: std::net::IpAddr) -> &'static str {
    let Some(network) = Network::parse(entry) else { return "no network" };
    assert!(network.contains(network.address), "{entry} does not contain itself");
    let narrowed = Network::parse(&network.address.to_string()).expect("an address is a network of one");
    assert_eq!(narrowed.contains(client), client == network.address, "{entry} and {client}");
    if network.contains(client) {
        assert_eq!(client.is_ipv4(), network.address.is_ipv4(), "{entry} contains {client}");
        let wider = format!("{}/{}", network.address, network.bits / 2);
        assert!(Network::parse(&wider).is_some_and(|wider| wider.contains(client)), "{wider} lost {client}");
        return "the client is let in";
    }
    "the client is not let in"
}
