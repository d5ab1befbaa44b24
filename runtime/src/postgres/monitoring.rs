//! The monitoring query: everything that core wants to know of a running server, in one round trip. The functions and
//! columns are the same in PostgreSQL 13 to 18.

use std::collections::BTreeMap;
use std::time::Duration;

use matriarch_core::id::{Lsn, Member, Timeline};
use matriarch_core::view::postgres::{Receiver, Sender, Slot, Sql};
use serde_json::Value;

/// One row. Recovery ends only in one direction, so the functions of a primary, which are only called after "not in
/// recovery" was seen, cannot fail. Of those of a standby `pg_is_wal_replay_paused` does where recovery has ended: it is
/// called at once. The standby's timeline is the newest that
/// replay, control file or receiver know of. A receiver is asked by its function: the view hides it until it streams.
///
/// What waits for a restart: not the settings of recovery. A promoted primary has them no more in its file and goes on
/// with those that it started with, which mean nothing to it; whether a standby must restart for them is found out when
/// they are written.
pub(super) const QUERY: &str = r"
SELECT r.in_recovery,
       CASE WHEN r.in_recovery THEN pg_is_wal_replay_paused() ELSE false END AS replay_paused,
       CASE WHEN NOT r.in_recovery
            THEN ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::int
            ELSE GREATEST(0, w.received_tli, (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
                          (SELECT timeline_id FROM pg_control_checkpoint())) END AS timeline,
       CASE WHEN NOT r.in_recovery THEN pg_current_wal_flush_lsn() END AS flushed,
       CASE WHEN r.in_recovery THEN GREATEST(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) END AS received,
       CASE WHEN r.in_recovery THEN pg_last_wal_replay_lsn() END AS replayed,
       w.pid AS receiver_pid, w.status AS receiver_status, w.received_tli AS receiver_timeline,
       w.latest_end_lsn AS receiver_end, w.sender_host || ':' || w.sender_port AS receiver_upstream,
       (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000)::bigint AS replayed_at,
       current_setting('primary_conninfo') <> '' AS upstream_set, current_setting('restore_command') <> '' AS restores,
       (SELECT json_agg(json_build_object('i', pid, 'n', application_name, 'u', usename, 'a', host(client_addr), 's', state,
               'y', sync_state, 'p', sync_priority, 'f', flush_lsn,
               'g', (extract(epoch FROM reply_time) * 1000000)::bigint))
          FROM pg_stat_replication) AS senders,
       (SELECT json_agg(json_build_object('n', slot_name, 'p', slot_type = 'physical', 'd', database,
               'u', plugin, 'a', active, 'r', restart_lsn, 'l', coalesce(wal_status = 'lost', false),
               'x', xmin IS NOT NULL))
          FROM pg_replication_slots WHERE NOT temporary) AS slots,
       current_setting('server_version_num') AS version,
       (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint AS started_us,
       (SELECT json_agg(json_build_array(s.name, current_setting(s.name),
               (SELECT f.setting FROM pg_file_settings f WHERE f.name = s.name ORDER BY f.seqno DESC LIMIT 1)))
          FROM pg_settings s WHERE s.pending_restart AND s.name !~ '^(recovery_target|hot_standby$)' AND s.name NOT IN
               ('archive_cleanup_command', 'primary_conninfo', 'primary_slot_name', 'promote_trigger_file',
                'recovery_end_command', 'recovery_min_apply_delay', 'restore_command')) AS pending_restart,
       concat_ws(',', current_setting('max_connections'), current_setting('max_worker_processes'),
                 current_setting('max_wal_senders'), current_setting('max_prepared_transactions'),
                 current_setting('max_locks_per_transaction')) AS maxima
  FROM (SELECT pg_is_in_recovery() AS in_recovery) r, pg_stat_get_wal_receiver() w";

/// Understands the row, of which `column` tells the texts by their columns' names: `None` where there is no such column,
/// `Some(None)` for NULL. `ages` tells of WAL senders, by their process and what their standby's clock showed at its last answer
/// (microseconds since the epoch), how long ago that was.
///
/// # Errors
/// The name of the column that is not as expected.
pub(super) fn parse<'a>(
    column: impl Fn(&str) -> Option<Option<&'a str>>,
    ages: impl FnOnce(&[(i64, i64)]) -> BTreeMap<i64, Duration>,
) -> Result<Sql, String> {
    let text = |name: &str| column(name).ok_or_else(|| format!("no column {name}"));
    let flag = |name: &str| Ok::<_, String>(text(name)? == Some("t"));
    let lsn = |name: &str| lsn_or_zero(text(name)?, name);
    let receiver = match text("receiver_pid")? {
        None => None,
        Some(pid) => Some(Receiver {
            pid: number(Some(pid), "receiver_pid")?,
            streaming: text("receiver_status")? == Some("streaming"),
            timeline: Timeline(number(text("receiver_timeline")?, "receiver_timeline")?),
            latest_end: lsn("receiver_end")?,
            upstream: text("receiver_upstream")?.unwrap_or_default().to_owned(),
        }),
    };
    let list = |name: &str| -> Result<Vec<Value>, String> {
        text(name)?.map_or(Ok(Vec::new()), |t| serde_json::from_str(t).map_err(|_| format!("an unreadable {name}")))
    };
    let senders = list("senders")?;
    let replies =
        senders.iter().filter_map(|sender| Some((process(sender)?, sender.get("g").and_then(Value::as_i64)?)));
    let ages = ages(&replies.collect::<Vec<_>>());
    Ok(Sql {
        in_recovery: flag("in_recovery")?,
        timeline: Timeline(number(text("timeline")?, "timeline")?),
        flushed: lsn("flushed")?,
        received: lsn("received")?,
        replayed: lsn("replayed")?,
        replay_paused: flag("replay_paused")?,
        // What the primary has is in `pg_control` only.
        outgrown: false,
        receiver,
        replayed_at: text("replayed_at")?.and_then(|t| t.parse().ok()),
        upstream_set: flag("upstream_set")?,
        restores: flag("restores")?,
        senders: senders.iter().map(|value| sender(value, &ages)).collect::<Result<_, _>>()?,
        slots: list("slots")?.iter().map(slot).collect::<Result<_, _>>()?,
        server_version: number(text("version")?, "version")?,
        postmaster_start_us: number(text("started_us")?, "started_us")?,
        pending_restart: list("pending_restart")?.iter().map(pending).collect(),
    })
}

fn number<T: std::str::FromStr + Default>(text: Option<&str>, name: &str) -> Result<T, String> {
    text.map_or(Ok(T::default()), |t| t.parse().map_err(|_| format!("an unreadable {name}")))
}

fn lsn_or_zero(text: Option<&str>, name: &str) -> Result<Lsn, String> {
    text.map_or(Ok(Lsn(0)), |t| Lsn::parse(t).ok_or_else(|| format!("an unreadable {name}")))
}

fn word(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn process(sender: &Value) -> Option<i64> {
    sender.get("i").and_then(Value::as_i64)
}

fn sender(value: &Value, ages: &BTreeMap<i64, Duration>) -> Result<Sender, String> {
    Ok(Sender {
        application_name: Member(word(value, "n")),
        user: word(value, "u"),
        address: value.get("a").and_then(Value::as_str).map(str::to_owned),
        state: word(value, "s"),
        sync_state: word(value, "y"),
        sync_priority: value.get("p").and_then(Value::as_i64).and_then(|p| p.try_into().ok()).unwrap_or(0),
        flushed: lsn_or_zero(value.get("f").and_then(Value::as_str), "flush_lsn")?,
        reply_age: process(value).and_then(|process| ages.get(&process).copied()),
    })
}

fn slot(value: &Value) -> Result<Slot, String> {
    let flag = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or(false);
    Ok(Slot {
        name: word(value, "n"),
        physical: flag("p"),
        database: word(value, "d"),
        plugin: word(value, "u"),
        active: flag("a"),
        restart: lsn_or_zero(value.get("r").and_then(Value::as_str), "restart_lsn")?,
        lost: flag("l"),
        pins_rows: flag("x"),
    })
}

fn pending(value: &Value) -> (String, String, String) {
    let at = |i: usize| value.get(i).and_then(Value::as_str).unwrap_or("?").to_owned();
    (at(0), at(1), at(2))
}
