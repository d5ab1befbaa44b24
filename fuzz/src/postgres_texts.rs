//! What PostgreSQL and its programs leave in files and say: `postmaster.pid`, `pg_waldump`'s last words.

use matriarch::fuzz::wal_end;
use matriarch::postgres::proc::PidFile;

/// The target.
pub fn target(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    wal_end(&text);
    let Some(file) = PidFile::parse(&text) else { return };
    // It is signalled: 0 is our own group, and a number has to have an absolute value.
    assert!(file.pid != 0 && file.pid.checked_abs().is_some(), "pid {}", file.pid);
    let first = text.lines().next().unwrap_or_default().trim();
    assert_eq!(first.parse(), Ok(file.pid), "a process that the file does not name");
    let again = format!("{}\n/data\n{}\n{}\n", file.pid, file.started_s, file.port);
    assert_eq!(PidFile::parse(&again), Some(PidFile { phase: None, ..file }));
}
