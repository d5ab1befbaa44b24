//! The status document: `GET /patroni`, and the body of every health check. It is also Patroni's protocol of the race,
//! so Patroni members read it of us.

use matriarch_core::id::{Lsn, Timeline};
use matriarch_core::view::postgres::{Sender, Sql};
use serde_json::{Map, Value, json};

use super::Api;
use super::facts::Facts;
use super::peer;
use super::reply::Reply;
use crate::logging;
use crate::peers::position_document;
use crate::schedule;
use crate::wire::PATRONI_LEVEL;
use crate::wire::member::scheduled_restart;

/// `GET /patroni`. Its position is of now: agents compare it with a leader's.
pub(super) async fn patroni(api: &Api) -> Reply {
    api.freshen_for_comparison().await;
    api.with_facts(|facts| {
        let mut document = document(facts);
        // What agents compare: a role says nothing of who holds the key and is still to be promoted.
        document["matriarch"] = position_document(&peer::own(facts));
        Reply::json(200, &document)
    })
}

/// The document, keys in Patroni's order.
pub(super) fn document(facts: &Facts<'_>) -> Value {
    let mut document = Map::new();
    let mut put = |key: &str, value: Value| drop(document.insert(key.to_owned(), value));
    put("state", facts.state().into());
    if let Some(sql) = facts.sql {
        put("postmaster_start_time", schedule::micros_text(sql.postmaster_start_us).into());
    }
    put("role", facts.role().into());
    if let Some(sql) = facts.sql {
        put("server_version", sql.server_version.into());
        put("xlog", xlog(sql));
        put("timeline", if sql.timeline == Timeline(0) { Value::Null } else { sql.timeline.0.into() });
        if let Some(state) = facts.replication_state() {
            put("replication_state", state.into());
        }
        if !sql.senders.is_empty() {
            put("replication", sql.senders.iter().map(sender).collect());
        }
    }
    if facts.paused() {
        put("pause", true.into());
    }
    if facts.unlocked() {
        put("cluster_unlocked", true.into());
    }
    put("dcs_last_seen", facts.shared.store_last_seen_s.into());
    if !facts.shared.tags.is_empty() {
        put("tags", Value::Object(facts.shared.tags.clone()));
    }
    if let Some(identifier) = &facts.shared.system_identifier {
        put("database_system_identifier", identifier.as_str().into());
    }
    if let Some(sql) = facts.sql.filter(|sql| !sql.pending_restart.is_empty()) {
        put("pending_restart", true.into());
        put("pending_restart_reason", pending_restart(sql));
    }
    if let Some(restart) = &facts.shared.core.scheduled_restart {
        put("scheduled_restart", Value::Object(scheduled_restart(restart)));
    }
    let identity = json!({
        "version": PATRONI_LEVEL,
        "scope": facts.shared.scope,
        "name": facts.view.config().me.as_str(),
        "matriarch": env!("CARGO_PKG_VERSION"),
    });
    put("patroni", identity);
    let (waiting, lost) = logging::backlog();
    // From when on Patroni tells it.
    if waiting > 2 {
        put("logger_queue_size", waiting.into());
    }
    if lost > 0 {
        put("logger_records_lost", lost.into());
    }
    Value::Object(document)
}

fn xlog(sql: &Sql) -> Value {
    if !sql.in_recovery {
        return json!({ "location": sql.flushed.0 });
    }
    let received = if sql.received > Lsn(0) { sql.received } else { sql.replayed };
    json!({
        "received_location": received.0,
        "replayed_location": sql.replayed.0,
        "replayed_timestamp": sql.replayed_at.map(|ms| schedule::micros_text(ms.saturating_mul(1000))),
        "paused": sql.replay_paused,
    })
}

fn sender(sender: &Sender) -> Value {
    json!({
        "usename": sender.user,
        "application_name": sender.application_name.as_str(),
        "client_addr": sender.address,
        "state": sender.state,
        "sync_state": sender.sync_state,
        "sync_priority": sender.sync_priority,
    })
}

fn pending_restart(sql: &Sql) -> Value {
    let entry =
        |(name, old, new): &(String, String, String)| (name.clone(), json!({ "old_value": old, "new_value": new }));
    Value::Object(sql.pending_restart.iter().map(entry).collect())
}
