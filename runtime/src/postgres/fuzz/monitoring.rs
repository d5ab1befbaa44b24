//! What must hold of whatever a server answers to the monitoring query (`fuzz/`).

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use matriarch_core::id::Lsn;
use matriarch_core::view::postgres::{Sender, Slot, Sql};
use serde_json::{Value, json};

use crate::postgres::maxima;
use crate::postgres::monitoring::{QUERY, parse};

/// A row: what is understood is the same once it is told again, what is not names a column of the query. What it was taken
/// for.
pub fn monitoring_row(columns: &[(&str, Option<&str>)]) -> String {
    let column = |wanted: &str| columns.iter().find(|(name, _)| *name == wanted).map(|(_, text)| *text);
    let running = column(maxima::COLUMN).flatten().unwrap_or_default();
    let least = [100, 8, 10, 0, 64];
    let told = running.split(',').map(|word| word.parse::<i32>().unwrap_or(i32::MAX));
    assert_eq!(maxima::outgrown(running, least), told.zip(least).any(|(told, least)| told < least), "{running}");
    match parse(column, as_they_are) {
        Ok(sql) => {
            counted(&sql, column);
            let row = told_again(&sql);
            let column = |wanted: &str| row.iter().find(|(name, _)| *name == wanted).map(|(_, text)| text.as_deref());
            let again = parse(column, as_they_are);
            assert_eq!(again.as_ref(), Ok(&sql), "{row:?}");
            let role = if sql.in_recovery { "a standby" } else { "a primary" };
            let (senders, slots) = (sql.senders.len(), sql.slots.len());
            format!("{role} with {senders} senders, {slots} slots, a receiver: {}", sql.receiver.is_some())
        }
        Err(why) => {
            let name = why.rsplit(' ').next().unwrap_or_default();
            assert!(!name.is_empty() && QUERY.contains(name), "{why}");
            why
        }
    }
}

/// What a standby's clock showed stands for how long ago that was.
fn as_they_are(told: &[(i64, i64)]) -> BTreeMap<i64, Duration> {
    told.iter().map(|(process, us)| (*process, Duration::from_micros((*us).max(0).unsigned_abs()))).collect()
}

/// Nothing is lost or made up.
fn counted<'a>(sql: &Sql, column: impl Fn(&str) -> Option<Option<&'a str>>) {
    let list = |name| {
        let told = column(name).flatten().map_or(Value::Array(Vec::new()), |text| serde_json::from_str(text).unwrap());
        told.as_array().map(Vec::len)
    };
    assert_eq!(list("senders"), Some(sql.senders.len()));
    assert_eq!(list("slots"), Some(sql.slots.len()));
    assert_eq!(list("pending_restart"), Some(sql.pending_restart.len()));
    assert_eq!(column("receiver_pid").flatten().is_some(), sql.receiver.is_some());
    assert_eq!(column("in_recovery").flatten() == Some("t"), sql.in_recovery);
    let number = |name| column(name).flatten().map_or(0, |text| text.parse::<i128>().expect("digits"));
    assert_eq!(number("timeline"), i128::from(sql.timeline.0), "another number");
    assert_eq!(number("version"), i128::from(sql.server_version), "another number");
    assert_eq!(number("started_us"), i128::from(sql.postmaster_start_us), "another number");
}

/// The row of a server of which all this is so.
fn told_again(sql: &Sql) -> Vec<(&'static str, Option<String>)> {
    let text = |value: &dyn Display| Some(value.to_string());
    let flag = |set: bool| Some(if set { "t" } else { "f" }.to_owned());
    let position = |lsn: Lsn| (lsn != Lsn(0)).then(|| lsn.to_string());
    let receiver = sql.receiver.as_ref();
    let list = |values: Vec<Value>| (!values.is_empty()).then(|| Value::Array(values).to_string());
    vec![
        ("in_recovery", flag(sql.in_recovery)),
        ("replay_paused", flag(sql.replay_paused)),
        ("timeline", text(&sql.timeline)),
        ("flushed", position(sql.flushed)),
        ("received", position(sql.received)),
        ("replayed", position(sql.replayed)),
        ("receiver_pid", receiver.map(|receiver| receiver.pid.to_string())),
        ("receiver_status", receiver.filter(|receiver| receiver.streaming).map(|_| "streaming".to_owned())),
        ("receiver_timeline", receiver.map(|receiver| receiver.timeline.to_string())),
        ("receiver_end", receiver.and_then(|receiver| position(receiver.latest_end))),
        ("receiver_upstream", receiver.map(|receiver| receiver.upstream.clone())),
        ("replayed_at", sql.replayed_at.map(|at| at.to_string())),
        ("upstream_set", flag(sql.upstream_set)),
        ("restores", flag(sql.restores)),
        ("senders", list(sql.senders.iter().enumerate().map(sender).collect())),
        ("slots", list(sql.slots.iter().map(slot).collect())),
        ("version", text(&sql.server_version)),
        ("started_us", text(&sql.postmaster_start_us)),
        ("pending_restart", list(sql.pending_restart.iter().map(|(name, old, new)| json!([name, old, new])).collect())),
    ]
}

fn sender((number, sender): (usize, &Sender)) -> Value {
    let age_us = sender.reply_age.map(|age| i64::try_from(age.as_micros()).expect("what was told was one"));
    json!({
        "i": number, "n": sender.application_name.0, "u": sender.user, "a": sender.address, "s": sender.state,
        "y": sender.sync_state, "p": sender.sync_priority, "f": sender.flushed.to_string(), "g": age_us,
    })
}

fn slot(slot: &Slot) -> Value {
    json!({
        "n": slot.name, "p": slot.physical, "d": slot.database, "u": slot.plugin, "a": slot.active,
        "r": slot.restart.to_string(), "l": slot.lost, "x": slot.pins_rows,
    })
}
