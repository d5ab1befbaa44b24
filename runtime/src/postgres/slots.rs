//! Physical replication slots. Each order states a goal: that it was reached before is no failure.

use std::time::Duration;

use matriarch_core::id::Lsn;
use matriarch_core::op::{Outcome, Refusal};

use super::roles::literal;
use super::settings::Settings;
use super::sql::{Monitor, SqlFailure};

const DEADLINE: Duration = Duration::from_secs(3);
/// SQLSTATE: `duplicate_object`.
const EXISTS: &str = "42710";
/// SQLSTATE: `undefined_object`.
const MISSING: &str = "42704";

/// Creates a physical slot that holds WAL from now on, not from its first use.
pub(super) async fn create(monitor: &Monitor, settings: &Settings, name: &str) -> Outcome<()> {
    let sql = format!("SELECT pg_create_physical_replication_slot({}, true)", literal(name));
    order(monitor, settings, name, &sql, EXISTS).await
}

/// Drops a slot.
pub(super) async fn drop(monitor: &Monitor, settings: &Settings, name: &str) -> Outcome<()> {
    let sql = format!("SELECT pg_drop_replication_slot({})", literal(name));
    order(monitor, settings, name, &sql, MISSING).await
}

/// Advances a slot that nobody streams from. One that is there or beyond already stays.
pub(super) async fn advance(monitor: &Monitor, settings: &Settings, name: &str, to: Lsn) -> Outcome<()> {
    let name_text = literal(name);
    let sql = format!(
        "SELECT pg_replication_slot_advance(slot_name, '{to}') FROM pg_replication_slots \
         WHERE slot_name = {name_text} AND slot_type = 'physical' AND NOT active AND restart_lsn < '{to}'"
    );
    order(monitor, settings, name, &sql, "").await
}

async fn order(monitor: &Monitor, settings: &Settings, name: &str, sql: &str, reached: &str) -> Outcome<()> {
    match monitor.rows(settings, sql, DEADLINE).await {
        Ok(_) => Outcome::Done(()),
        Err(SqlFailure::Failed { code, .. }) if !code.is_empty() && code == reached => Outcome::Done(()),
        Err(SqlFailure::Failed { code, message }) => {
            let way_out = match code.as_str() {
                "53400" => "; raise max_replication_slots",
                "55006" => "; it is in use",
                _ => "",
            };
            Outcome::Refused(Refusal::Failed(format!("slot {name}: {message} (SQLSTATE {code}){way_out}")))
        }
        Err(other) => Outcome::Unknown(format!("slot {name}: {other}")),
    }
}
