//! What a server answers to the monitoring query: whatever it is by now.

use matriarch::fuzz::monitoring_row;

use crate::input::texts;

/// The target: a row's columns, each `name=value`, or its name alone where it is NULL.
pub fn target(data: &[u8]) -> String {
    let Some(texts) = texts(data) else { return "no text".into() };
    let column = |text| str::split_once(text, '=').map_or((text, None), |(name, value)| (name, Some(value)));
    monitoring_row(&texts.into_iter().map(column).collect::<Vec<_>>())
}
