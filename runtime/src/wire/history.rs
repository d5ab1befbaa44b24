//! `history`: which timelines ended where, when, and who led afterwards.

use matriarch_core::id::{Lsn, Timeline};
use matriarch_core::view::store::HistoryLine;
use serde_json::Value;

use super::lenient;

/// The value of `history`. A line is as long as what is known of it: three to five elements.
pub fn history_json(lines: &[HistoryLine]) -> String {
    Value::Array(lines.iter().map(line_json).collect()).to_string()
}

/// Reads `history`. A line without a timeline and a position is skipped; `None` for what is no list, or one of such lines
/// alone.
pub fn history_lines(text: &str) -> Option<Vec<HistoryLine>> {
    let Ok(Value::Array(items)) = serde_json::from_str(text) else { return None };
    let lines: Vec<_> = items.iter().filter_map(line).collect();
    (items.is_empty() || !lines.is_empty()).then_some(lines)
}

fn line_json(line: &HistoryLine) -> Value {
    let mut items = vec![line.timeline.0.into(), line.end.0.into(), line.reason.as_str().into()];
    if line.timestamp.is_some() || line.leader.is_some() {
        items.push(line.timestamp.as_deref().into());
    }
    if let Some(leader) = &line.leader {
        items.push(leader.as_str().into());
    }
    Value::Array(items)
}

fn line(value: &Value) -> Option<HistoryLine> {
    let items = value.as_array()?;
    let text = |index: usize| items.get(index).and_then(Value::as_str).map(str::to_owned);
    Some(HistoryLine {
        timeline: Timeline(u32::try_from(lenient::unsigned(items.first()?)?).ok()?),
        end: Lsn(lenient::unsigned(items.get(1)?)?),
        reason: text(2).unwrap_or_default(),
        timestamp: text(3),
        leader: text(4),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn written_as_patroni_writes_it() {
        let line = HistoryLine {
            timeline: Timeline(1),
            end: Lsn(67_417_056),
            reason: "no recovery target specified".to_owned(),
            timestamp: Some("2026-11-22T18:59:36.068758+00:00".to_owned()),
            leader: Some("n2".to_owned()),
        };
        assert_eq!(
            history_json(&[line]),
            r#"[[1,67417056,"no recovery target specified","2026-11-22T18:59:36.068758+00:00","n2"]]"#
        );
        assert_eq!(history_json(&[]), "[]");
    }

    #[test]
    fn short_and_broken_lines_are_tolerated() {
        let lines = history_lines(r#"[[1,50,"a"],[2,60,"b","then"],[3],"x",[-1,2,"c"],[4,70,"d",null,"n1"]]"#);
        let told: Vec<_> =
            lines.iter().flatten().map(|l| (l.timeline.0, l.timestamp.as_deref(), l.leader.as_deref())).collect();
        assert_eq!(told, [(1, None, None), (2, Some("then"), None), (4, None, Some("n1"))]);
        assert_eq!(history_lines("[]"), Some(Vec::new()));
        for unreadable in ["", "{}", "nonsense", "[3]", r#"[[1,"a"]]"#] {
            assert_eq!(history_lines(unreadable), None, "{unreadable}");
        }
    }

    proptest! {
        #[test]
        fn read_back_as_written(
            timeline: u32, end: u64, reason in ".*", timestamp: Option<String>, leader: Option<String>,
        ) {
            let line = HistoryLine { timeline: Timeline(timeline), end: Lsn(end), reason, timestamp, leader };
            prop_assert_eq!(history_lines(&history_json(std::slice::from_ref(&line))), Some(vec![line]));
        }
    }
}
