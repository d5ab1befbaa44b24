//! What must hold of a line of `/proc/PID/stat`, in which a process names itself (`fuzz/`).

use super::Stat;

/// The line as it is, and that of a process that has given itself these bytes as its name.
pub fn process_stat(text: &[u8]) -> &'static str {
    let named = [b"7 (", text, b") T 42 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 3 0 99 0 0"].concat();
    let expected = Stat { state: b'T', parent: 42, threads: 3, start_ticks: 99 };
    assert_eq!(Stat::parse(&named), Some(expected), "{}", text.escape_ascii());
    let Some(stat) = Stat::parse(text) else { return "no process" };
    let line = String::from_utf8_lossy(text).into_owned();
    for number in [stat.parent.to_string(), stat.threads.to_string(), stat.start_ticks.to_string()] {
        assert!(line.contains(&number), "{number} of {line:?}");
    }
    if stat.is_dead() { "a dead process" } else { "a process" }
}
